//! Functions by value: the modules that a plan needs, written beside it, so that it runs where nothing is loaded.
//!
//! [`Outgoing`] gathers modules while functions of a plan are written; a function is then a reference into them, with what it is said to be.
//! [`Incoming`] reads them: bytes have the length and the SHA-256 that are said of them, and a function is what its reference says, or
//! there is an error. Modules are checked, compiled and called under the same limits as those of files.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, exec_datafusion_err, exec_err, plan_datafusion_err, plan_err};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::physical_plan::ExecutionPlan;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::aggregate::WasmAggregate;
use crate::compile::Compiler;
use crate::describe::{FunctionSpec, Nulls, Shape};
use crate::encode::Column;
use crate::inspect::MAX_MODULE;
use crate::limits::Limits;
use crate::module::{Declared, Module, Wanted};
use crate::scalar::WasmScalar;
use crate::scope::{Callee, Scope};
use crate::table::{Call, WasmTable, WasmTableExec};
use crate::types::{parse_type, type_name};

/// Most modules of a plan.
const MAX_MODULES: usize = 256;

/// What stands before the bytes of the modules.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    binaries: Vec<Binary>,
    modules: Vec<Entry>,
}

/// Bytes of a module, once for all that is made of them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binary {
    sha256: String,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    binary: usize,
    name: String,
    limits: Limits,
    volatile: bool,
    functions: Vec<EntryFunction>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryFunction {
    name: String,
    function: Option<String>,
    types: Option<(Vec<String>, String)>,
}

/// A function: its module by number, its name there, and its overloads for people to read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    module: usize,
    name: String,
    overloads: Vec<String>,
}

/// A call of a table function; its arguments follow as a stream of Arrow.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableCall {
    function: Reference,
    projection: Option<Vec<usize>>,
    limit: Option<usize>,
}

/// Modules of functions that were written.
#[derive(Debug, Default)]
pub struct Outgoing {
    modules: Vec<Arc<Module>>,
}

impl Outgoing {
    /// `function`, if it is one of a module.
    pub fn scalar(&mut self, function: &ScalarUDF) -> Option<Result<Vec<u8>>> {
        let function = function.inner().downcast_ref::<WasmScalar>()?;
        Some(self.reference(function.module(), function.overloads()).and_then(|r| json(&r)))
    }

    /// `function`, if it is one of a module.
    pub fn aggregate(&mut self, function: &AggregateUDF) -> Option<Result<Vec<u8>>> {
        let function = function.inner().downcast_ref::<WasmAggregate>()?;
        Some(self.reference(function.module(), function.overloads()).and_then(|r| json(&r)))
    }

    /// `table`, if it is what a table function of a module gives.
    pub fn table(&mut self, table: &dyn TableProvider) -> Option<Result<Vec<u8>>> {
        let table = table.downcast_ref::<WasmTable>()?;
        Some(self.call(&table.call(), None, None))
    }

    /// `plan`, if it runs a table function of a module.
    pub fn scan(&mut self, plan: &dyn ExecutionPlan) -> Option<Result<Vec<u8>>> {
        let scan = plan.downcast_ref::<WasmTableExec>()?;
        Some(self.call(&scan.call(), scan.projection(), scan.limit()))
    }

    fn call(&mut self, call: &Call<'_>, projection: Option<&[usize]>, limit: Option<usize>) -> Result<Vec<u8>> {
        let function = self.reference(call.module, std::slice::from_ref(call.spec))?;
        let head = json(&TableCall { function, projection: projection.map(<[usize]>::to_vec), limit })?;
        let mut bytes = length(head.len())?.to_vec();
        bytes.extend_from_slice(&head);
        if !call.args.is_empty() {
            let fields: Vec<Field> =
                call.args.iter().map(|arg| Field::new("", arg.array.data_type().clone(), true)).collect();
            let schema = Arc::new(Schema::new(fields));
            let arrays: Vec<ArrayRef> = call.args.iter().map(|arg| Arc::clone(&arg.array)).collect();
            let mut writer = StreamWriter::try_new(&mut bytes, &schema)?;
            writer.write(&RecordBatch::try_new(schema, arrays)?)?;
            writer.finish()?;
        }
        Ok(bytes)
    }

    fn reference(&mut self, module: &Arc<Module>, overloads: &[FunctionSpec]) -> Result<Reference> {
        let same = |other: &Arc<Module>| {
            Arc::ptr_eq(other, module)
                || (other.digest() == module.digest()
                    && other.name() == module.name()
                    && other.declared() == module.declared())
        };
        let known = self.modules.iter().position(same);
        if known.is_none() && self.modules.len() == MAX_MODULES {
            return plan_err!("the plan has functions of more than {MAX_MODULES} modules");
        }
        let module = known.unwrap_or_else(|| {
            self.modules.push(Arc::clone(module));
            self.modules.len() - 1
        });
        let name = overloads.first().map(|f| f.name.clone()).unwrap_or_default();
        Ok(Reference { module, name, overloads: overloads.iter().map(shown).collect() })
    }

    /// The modules, in bytes.
    ///
    /// # Errors
    /// They are too large for it.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut distinct: Vec<&Arc<Module>> = Vec::new();
        let mut modules = Vec::new();
        for module in &self.modules {
            let known = distinct.iter().position(|other| other.digest() == module.digest());
            let binary = known.unwrap_or_else(|| {
                distinct.push(module);
                distinct.len() - 1
            });
            let Declared { limits, functions, volatile } = module.declared();
            modules.push(Entry {
                binary,
                name: module.name().to_owned(),
                limits: limits.clone(),
                volatile: *volatile,
                functions: functions.iter().map(EntryFunction::of).collect(),
            });
        }
        let binaries = distinct.iter().map(|m| Binary { sha256: m.hash(), bytes: m.bytes().len() as u64 }).collect();
        let head = json(&Head { binaries, modules })?;
        let mut bytes = length(head.len())?.to_vec();
        bytes.extend_from_slice(&head);
        distinct.iter().for_each(|module| bytes.extend_from_slice(module.bytes()));
        Ok(bytes)
    }
}

impl EntryFunction {
    fn of(wanted: &Wanted) -> Self {
        let names = |types: &[DataType]| types.iter().map(type_name).collect();
        Self {
            name: wanted.name.clone(),
            function: wanted.function.clone(),
            types: wanted.types.as_ref().map(|(args, returns)| (names(args), type_name(returns))),
        }
    }

    fn wanted(self) -> Result<Wanted, String> {
        let types = self.types.map(|(args, returns)| {
            let args = args.iter().map(|arg| parse_type(arg)).collect::<Result<_, _>>()?;
            Ok::<_, String>((args, parse_type(&returns)?))
        });
        Ok(Wanted { name: self.name, function: self.function, types: types.transpose()? })
    }
}

/// Modules that came with a plan.
#[derive(Debug)]
pub struct Incoming {
    modules: Vec<Arc<Module>>,
    scope: Arc<Scope>,
}

impl Incoming {
    /// Reads what [`Outgoing::bytes`] wrote. A module that is among `known` is that one. Calls belong to `scope`.
    ///
    /// # Errors
    /// The bytes are damaged, or a module is none that runs here.
    pub fn read(bytes: &[u8], compiler: &Compiler, known: &[Arc<Module>], scope: Arc<Scope>) -> Result<Self> {
        let (head, mut rest) = parted(bytes).ok_or_else(|| damaged("they end too early"))?;
        let head: Head = serde_json::from_slice(head).map_err(|e| damaged(&e.to_string()))?;
        if head.modules.len() > MAX_MODULES || head.binaries.len() > MAX_MODULES {
            return Err(damaged(&format!("more than {MAX_MODULES}")));
        }
        let mut binaries: Vec<(Arc<[u8]>, String)> = Vec::new();
        for Binary { sha256, bytes } in head.binaries {
            let len = usize::try_from(bytes).ok().filter(|len| *len <= MAX_MODULE);
            let len = len.ok_or_else(|| damaged(&format!("one of {bytes} bytes, {MAX_MODULE} are allowed")))?;
            let Some((binary, after)) = rest.split_at_checked(len) else {
                return Err(damaged(&format!("{} bytes of one of {len}", rest.len())));
            };
            let found: String = Sha256::digest(binary).iter().map(|b| format!("{b:02x}")).collect();
            if found != sha256 {
                let said: String = sha256.chars().take(64).collect();
                return Err(damaged(&format!("one has the SHA-256 {found}, not {}", said.escape_debug())));
            }
            binaries.push((binary.into(), found));
            rest = after;
        }
        if !rest.is_empty() {
            return Err(damaged(&format!("{} bytes are left over", rest.len())));
        }
        let mut modules = Vec::new();
        for Entry { binary, name, limits, volatile, functions } in head.modules {
            let (bytes, hash) = binaries.get(binary).ok_or_else(|| damaged("one has no bytes"))?;
            if limits.memory > Limits::MAX_MEMORY {
                return Err(damaged(&format!("one may have {} bytes of memory", limits.memory)));
            }
            let functions = functions.into_iter().map(EntryFunction::wanted).collect::<Result<_, _>>();
            let declared = Declared { limits, functions: functions.map_err(|why| damaged(&why))?, volatile };
            let same = |m: &&Arc<Module>| m.hash() == *hash && m.name() == name && *m.declared() == declared;
            modules.push(match known.iter().find(same) {
                Some(known) => Arc::clone(known),
                None => Arc::new(Module::of_shared(Arc::clone(bytes), &name, declared, compiler)?),
            });
        }
        Ok(Self { modules, scope })
    }

    /// The function that [`Outgoing::scalar`] wrote.
    ///
    /// # Errors
    /// It is damaged, or another one than is said.
    pub fn scalar(&self, bytes: &[u8]) -> Result<ScalarUDF> {
        let (module, overloads) = self.function(&read_json(bytes)?)?;
        match overloads.first().map(|f| &f.shape) {
            Some(Shape::Scalar { .. }) => Ok(ScalarUDF::new_from_impl(WasmScalar::new(module, overloads, &self.scope))),
            _ => Err(damaged("a function is not scalar")),
        }
    }

    /// The function that [`Outgoing::aggregate`] wrote.
    ///
    /// # Errors
    /// It is damaged, or another one than is said.
    pub fn aggregate(&self, bytes: &[u8]) -> Result<AggregateUDF> {
        let (module, overloads) = self.function(&read_json(bytes)?)?;
        match overloads.first().map(|f| &f.shape) {
            Some(Shape::Aggregate { .. }) => {
                Ok(AggregateUDF::new_from_impl(WasmAggregate::new(module, overloads, &self.scope)))
            }
            _ => Err(damaged("a function is no aggregate")),
        }
    }

    /// The table that [`Outgoing::table`] wrote.
    ///
    /// # Errors
    /// It is damaged, or its function is another one than is said.
    pub fn table(&self, bytes: &[u8]) -> Result<WasmTable> {
        Ok(self.call(bytes)?.0)
    }

    /// The plan that [`Outgoing::scan`] wrote.
    ///
    /// # Errors
    /// It is damaged, or its function is another one than is said.
    pub fn scan(&self, bytes: &[u8]) -> Result<WasmTableExec> {
        let (table, call) = self.call(bytes)?;
        table.scan_of(call.projection, call.limit)
    }

    fn call(&self, bytes: &[u8]) -> Result<(WasmTable, TableCall)> {
        let (head, args) = parted(bytes).ok_or_else(|| damaged("a call ends too early"))?;
        let call: TableCall = read_json(head)?;
        let (module, mut overloads) = self.function(&call.function)?;
        let spec = overloads.pop().filter(|f| matches!(f.shape, Shape::Table { .. }) && overloads.is_empty());
        let spec = spec.ok_or_else(|| damaged("a function gives no table"))?;
        let columns = if args.is_empty() { Vec::new() } else { one_row(args)? };
        if !columns.iter().map(|c| c.data_type()).eq(&spec.args) {
            return Err(damaged(&format!("the arguments of `{}` are of other types", spec.name)));
        }
        let args: Vec<Column> = columns.into_iter().map(Column::rows).collect();
        let callee = Callee { module: Arc::clone(module), scope: Arc::clone(&self.scope) };
        Ok((WasmTable::of_call(callee, spec, args.into()), call))
    }

    fn function(&self, reference: &Reference) -> Result<(&Arc<Module>, Vec<FunctionSpec>)> {
        let module = self.modules.get(reference.module).ok_or_else(|| damaged("a function has no module"))?;
        let of_name = module.functions().iter().filter(|f| f.name == reference.name);
        let overloads: Vec<FunctionSpec> = of_name.cloned().collect();
        if !overloads.iter().map(shown).eq(reference.overloads.iter().cloned()) || overloads.is_empty() {
            return exec_err!(
                "function `{}` of `{}` was {} where the plan was made and is {} here",
                reference.name.escape_debug(),
                module.name(),
                one_of(reference.overloads.iter().cloned()),
                one_of(overloads.iter().map(shown))
            );
        }
        Ok((module, overloads))
    }
}

/// A function as two engines must see it.
fn shown(function: &FunctionSpec) -> String {
    let state = match &function.shape {
        Shape::Aggregate { state, .. } => {
            format!(" by ({})", state.iter().map(type_name).collect::<Vec<_>>().join(", "))
        }
        _ => String::new(),
    };
    let nulls = match function.nulls {
        Nulls::Propagate => "",
        Nulls::Called => " called for NULL",
    };
    format!("{:?} {} {}{state}{nulls}", function.volatility, function.kind(), function.signature())
}

/// Overloads for a message.
fn one_of(overloads: impl Iterator<Item = String>) -> String {
    let shown: Vec<String> = overloads.take(4).map(|o| format!("`{}`", o.escape_debug())).collect();
    if shown.is_empty() { "not there".to_owned() } else { shown.join(", ") }
}

fn one_row(args: &[u8]) -> Result<Vec<ArrayRef>> {
    let mut batches = StreamReader::try_new(Cursor::new(args), None)?;
    let batch = batches.next().ok_or_else(|| damaged("a call has no arguments"))??;
    if batch.num_rows() != 1 {
        return Err(damaged(&format!("a call has {} rows of arguments", batch.num_rows())));
    }
    Ok(batch.columns().to_vec())
}

/// What has its length before it, and the rest.
fn parted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn length(of: usize) -> Result<[u8; 4]> {
    let len = u32::try_from(of).map_err(|_| plan_datafusion_err!("{of} bytes are too many for one part of a plan"))?;
    Ok(len.to_le_bytes())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| plan_datafusion_err!("a function cannot be written: {e}"))
}

fn read_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| damaged(&e.to_string()))
}

fn damaged(why: &str) -> datafusion::error::DataFusionError {
    exec_datafusion_err!("the modules of the plan are damaged: {why}")
}
