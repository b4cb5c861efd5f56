//! User functions of a session: modules of WebAssembly, loaded, registered, and put into the scope of each query.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{FunctionFactory, RegisterFunction, SessionContext};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{
    CreateFunction, EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, Volatility, col, lit,
};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::ShowStatementFilter;
use sparklet_history::FunctionRecord;
use sparklet_sandbox::register::{self, Registered};
use sparklet_sandbox::types::type_name;
use sparklet_sandbox::{Cause, Compiler, Declared, Fault, FunctionUse, Module, Scope, Shape, Wanted};

use crate::error::{Error, ErrorKind, Result};
use crate::suggest::closest;

/// How a session handles user functions.
#[derive(Debug, Clone, Default)]
pub struct FunctionSettings {
    /// Where relative paths of `CREATE FUNCTION … AS 'file.wasm'` start; none: the working directory.
    pub folder: Option<PathBuf>,
    /// How modules are compiled.
    pub compiler: Compiler,
}

/// A user function, as `SHOW FUNCTIONS` lists it; overloads one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFunction {
    /// Name in SQL.
    pub name: String,
    /// Types of the arguments, e.g. `Float64, Float64`.
    pub arguments: String,
    /// Type of the result; of a table function, `TABLE(` its columns `)`.
    pub result: String,
    /// `scalar`, `aggregate` or `table`.
    pub kind: &'static str,
    /// The module, as the user wrote it.
    pub module: String,
    /// The beginning of the module's SHA-256: enough to tell versions apart.
    pub version: String,
}

impl UserFunction {
    const COLUMNS: [&'static str; 6] = ["name", "arguments", "result", "kind", "module", "version"];

    fn values(self) -> [String; 6] {
        [self.name, self.arguments, self.result, self.kind.to_owned(), self.module, self.version]
    }
}

/// The modules of a session.
#[derive(Debug)]
pub(crate) struct Functions {
    settings: FunctionSettings,
    pool: Arc<dyn MemoryPool>,
    /// Of calls that belong to no query that is known.
    scope: Arc<Scope>,
    /// The module of each function, by the function's name.
    modules: Mutex<BTreeMap<String, Arc<Module>>>,
    closed: AtomicBool,
    /// Functions of modules that are not registered came with plans.
    came: AtomicBool,
}

impl Functions {
    pub(crate) fn new(settings: FunctionSettings, pool: Arc<dyn MemoryPool>) -> Arc<Self> {
        Arc::new(Self {
            scope: Scope::of_session(Arc::clone(&pool)),
            settings,
            pool,
            modules: Mutex::default(),
            closed: AtomicBool::new(false),
            came: AtomicBool::new(false),
        })
    }

    /// From now on no guest is called: plans are made only to be looked at.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.scope.close();
    }

    /// `plan` in a scope of its own, where functions of modules may be in it.
    pub(crate) fn enter(&self, plan: &LogicalPlan) -> Result<(LogicalPlan, Option<Arc<Scope>>)> {
        if self.lock().is_empty() && !self.came.load(Ordering::Relaxed) {
            return Ok((plan.clone(), None));
        }
        let scope = self.query_scope();
        Ok((register::enter(plan.clone(), &scope)?, Some(scope)))
    }

    /// A scope for a query.
    pub(crate) fn query_scope(&self) -> Arc<Scope> {
        let scope = Scope::of_query(Arc::clone(&self.pool));
        if self.closed.load(Ordering::Relaxed) {
            scope.close();
        }
        scope
    }

    /// The scope of calls that belong to no query that is known.
    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    pub(crate) fn compiler(&self) -> &Compiler {
        &self.settings.compiler
    }

    /// A plan may have functions of modules that are not registered.
    pub(crate) fn came(&self) {
        self.came.store(true, Ordering::Relaxed);
    }

    /// Loaded modules, each once, in the order of their names.
    pub(crate) fn modules(&self) -> Vec<Arc<Module>> {
        let mut modules: Vec<Arc<Module>> = Vec::new();
        for module in self.lock().values() {
            if !modules.iter().any(|m| Arc::ptr_eq(m, module)) {
                modules.push(Arc::clone(module));
            }
        }
        modules.sort_by(|a, b| a.name().cmp(b.name()));
        modules
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Module>>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a module.
    pub(crate) fn read(&self, file: &Path, name: &str, declared: Declared) -> Result<Arc<Module>> {
        Ok(Arc::new(Module::read(file, name, declared, &self.settings.compiler).map_err(from_sandbox)?))
    }

    /// What `module` has, for DataFusion; fails where a name is taken already. With `replace`, by another module does not count.
    pub(crate) fn claim(&self, state: &SessionState, module: &Arc<Module>, replace: bool) -> Result<Vec<Registered>> {
        let functions = register::functions(module, &self.scope);
        let mut modules = self.lock();
        for function in &functions {
            let name = function.name().to_lowercase();
            if !is_taken(state, &name) {
                continue;
            }
            let message = match modules.get(&name) {
                Some(other) if replace || other.hash() == module.hash() => continue,
                Some(other) => {
                    format!("function `{name}` of `{}` is there already, from `{}`", module.name(), other.name())
                }
                None => format!("function `{name}` of `{}` has the name of a built-in function", module.name()),
            };
            return Err(Error::new(ErrorKind::Query, message)
                .with_hint("give it another name in the module, or take only the others by `functions = […]`"));
        }
        for function in &functions {
            modules.insert(function.name().to_lowercase(), Arc::clone(module));
        }
        Ok(functions)
    }

    /// Registers all functions of `module`.
    pub(crate) fn register(&self, context: &SessionContext, module: &Arc<Module>) -> Result<()> {
        for function in self.claim(&context.state(), module, false)? {
            match function {
                Registered::Scalar(function) => context.register_udf((*function).clone()),
                Registered::Aggregate(function) => context.register_udaf((*function).clone()),
                Registered::Table(name, function) => context.register_udtf(&name, function),
            }
        }
        Ok(())
    }

    /// Functions that are registered, by name.
    pub(crate) fn list(&self) -> Vec<UserFunction> {
        let modules = self.lock();
        let of_module = modules.iter().flat_map(|(name, module)| {
            let same = module.functions().iter().filter(move |f| f.name.to_lowercase() == *name);
            same.map(|function| {
                let result = match &function.shape {
                    Shape::Scalar { returns } | Shape::Aggregate { returns, .. } => type_name(returns),
                    Shape::Table { columns } => {
                        let columns: Vec<_> = columns.iter().map(|(n, of)| format!("{n} {}", type_name(of))).collect();
                        format!("TABLE({})", columns.join(", "))
                    }
                };
                UserFunction {
                    name: function.name.clone(),
                    arguments: function.args.iter().map(type_name).collect::<Vec<_>>().join(", "),
                    result,
                    kind: function.kind(),
                    module: module.name().to_owned(),
                    version: module.version(),
                }
            })
        });
        of_module.collect()
    }

    /// The plan of `SHOW FUNCTIONS`: the functions of the user. What is built in is in `information_schema.routines`.
    pub(crate) fn show(&self, filter: Option<&ShowStatementFilter>) -> datafusion::error::Result<LogicalPlan> {
        let rows: Vec<Vec<Expr>> = self.list().into_iter().map(|f| f.values().map(lit).into()).collect();
        let plan = match rows.is_empty() {
            false => {
                let names = UserFunction::COLUMNS.iter().enumerate();
                let named = names.map(|(i, name)| col(format!("column{}", i + 1)).alias(*name));
                LogicalPlanBuilder::values(rows)?.project(named.collect::<Vec<_>>())?
            }
            true => {
                let fields = UserFunction::COLUMNS.map(|name| Field::new(name, DataType::Utf8, true));
                let schema = Arc::new(DFSchema::try_from(Schema::new(fields.to_vec()))?);
                LogicalPlanBuilder::from(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema }))
            }
        };
        match filter {
            None => plan.build(),
            Some(ShowStatementFilter::Like(pattern)) => plan.filter(col("name").like(lit(pattern)))?.build(),
            Some(ShowStatementFilter::ILike(pattern)) => plan.filter(col("name").ilike(lit(pattern)))?.build(),
            Some(_) => {
                Err(DataFusionError::Plan("`SHOW FUNCTIONS` takes `LIKE 'pattern'` or `ILIKE 'pattern'`".to_owned()))
            }
        }
    }

    /// Takes the function `name` out of `context`; false where there is none.
    pub(crate) fn remove(&self, context: &SessionContext, name: &str) -> Result<bool> {
        let lower = name.to_lowercase();
        let mut modules = self.lock();
        let Some(module) = modules.remove(&lower) else {
            if is_taken(&context.state(), &lower) {
                return Err(Error::new(ErrorKind::Query, format!("`{name}` is a built-in function: it stays")));
            }
            return Ok(false);
        };
        let names = module.functions().iter().map(|f| f.name.as_str()).filter(|n| n.to_lowercase() == lower);
        for name in names.chain([lower.as_str()]) {
            context.deregister_udf(name);
            context.deregister_udaf(name);
            context.deregister_udtf(name);
        }
        Ok(true)
    }

    /// The error for a function that is not there.
    pub(crate) fn missing(&self, name: &str) -> Error {
        let modules = self.lock();
        let error = Error::new(ErrorKind::Query, format!("no function `{name}` of yours"));
        match closest(name, modules.keys().map(String::as_str)) {
            Some(close) => error.with_hint(format!("did you mean `{close}`?")),
            None => error.with_hint("`SHOW FUNCTIONS` lists them; `DROP FUNCTION IF EXISTS` does not mind"),
        }
    }
}

/// True if there is a function `name`, in lower case.
fn is_taken(state: &SessionState, name: &str) -> bool {
    state.scalar_functions().contains_key(name)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name)
        || state.table_functions().contains_key(name)
}

/// `CREATE FUNCTION name(types) RETURNS type LANGUAGE wasm AS 'file.wasm'`, or `AS 'file.wasm#function'`; without types and result,
/// those of the module.
#[derive(Debug)]
pub(crate) struct Factory(pub(crate) Arc<Functions>);

#[async_trait]
impl FunctionFactory for Factory {
    async fn create(
        &self,
        state: &SessionState,
        statement: CreateFunction,
    ) -> datafusion::error::Result<RegisterFunction> {
        let own = |error: Error| DataFusionError::External(Box::new(error));
        self.make(state, statement).map_err(own)
    }
}

impl Factory {
    fn make(&self, state: &SessionState, statement: CreateFunction) -> Result<RegisterFunction> {
        let wrong = |message: String| {
            Error::new(ErrorKind::Query, message)
                .with_hint("write `CREATE FUNCTION name() LANGUAGE wasm AS 'file.wasm'`")
        };
        let name = statement.name.rsplit('.').next().unwrap_or(&statement.name).to_owned();
        match &statement.params.language {
            Some(language) if language.value.eq_ignore_ascii_case("wasm") => {}
            Some(language) => return Err(wrong(format!("no functions in the language `{language}`, only `wasm`"))),
            None => return Err(wrong("the language of the function is missing".to_owned())),
        }
        let Some(Expr::Literal(ScalarValue::Utf8(Some(written)), _)) = &statement.params.function_body else {
            return Err(wrong("the file of the function is missing".to_owned()));
        };
        let (file, function) = match written.rsplit_once('#') {
            Some((file, function)) => (file, function.to_owned()),
            None => (written.as_str(), name.clone()),
        };
        let args: Vec<_> = statement.args.iter().flatten().map(|arg| boundary_type(&arg.data_type)).collect();
        let types = match &statement.return_type {
            Some(returns) => Some((args, boundary_type(returns))),
            None if args.is_empty() => None,
            None => return Err(wrong("the types of the arguments are there, `RETURNS type` is missing".to_owned())),
        };
        let declared = Declared {
            functions: vec![Wanted { name: name.clone(), function: Some(function), types }],
            volatile: statement.params.behavior == Some(Volatility::Volatile),
            ..Declared::default()
        };
        let path = match &self.0.settings.folder {
            Some(folder) => folder.join(file),
            None => PathBuf::from(file),
        };
        let module = self.0.read(&path, file, declared)?;
        let mut functions = self.0.claim(state, &module, statement.or_replace)?;
        match functions.pop() {
            Some(Registered::Scalar(function)) => Ok(RegisterFunction::Scalar(function)),
            Some(Registered::Aggregate(function)) => Ok(RegisterFunction::Aggregate(function)),
            Some(Registered::Table(name, function)) => Ok(RegisterFunction::Table(name, function)),
            None => Err(Error::new(ErrorKind::Query, format!("`{file}` has no function `{name}`"))),
        }
    }
}

/// The type that stands for one of SQL at the boundary: SQL's strings may be views.
fn boundary_type(of: &DataType) -> DataType {
    match of {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other.clone(),
    }
}

/// The error that a user should see for one of the sandbox.
pub(crate) fn from_sandbox(error: sparklet_sandbox::Error) -> Error {
    let kind = match error.cause.fault() {
        Fault::Definition => ErrorKind::Query,
        Fault::Source => ErrorKind::Source,
        Fault::Call => ErrorKind::Function,
        Fault::Resources => ErrorKind::Resources,
        Fault::Time => ErrorKind::Function,
        Fault::Cancelled => ErrorKind::Cancelled,
        Fault::Host => ErrorKind::Internal,
    };
    let hint = error.hint();
    let shown = Error::new(kind, error.to_string());
    match (hint, &error.cause) {
        (Some(hint), _) => shown.with_hint(hint),
        (None, Cause::Io(_)) => shown.with_hint("check the path of the module"),
        _ => shown,
    }
}

/// As it stands in a run record.
pub(crate) fn record(used: FunctionUse) -> FunctionRecord {
    FunctionRecord {
        name: used.function,
        kind: used.kind.to_owned(),
        module: used.module,
        hash: used.hash,
        calls: used.calls,
        rows: used.rows,
        nanos: used.nanos,
        peak_memory_bytes: used.peak_bytes,
        instances: used.instances,
        failures: used.failures,
    }
}
