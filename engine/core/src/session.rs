//! A session: DataFusion's context with a bounded memory pool, a spill folder and slots.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::config::{ConfigNonZeroUsize, ConfigOptions};
use datafusion::common::{ScalarValue, Statistics, TableReference};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{SessionConfig as DataFusionConfig, SessionContext};
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{MemoryPool, PeakRecordingPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use sparklet_history::{HistoryUnused, Recall, Recalled, Scope, SourceRecord, StepControl};
use sparklet_optimizer::cost::{AnalyticModel, CostModel};
use sparklet_optimizer::{Learning, SourceId, SourceMap};
use sparklet_sandbox::{Declared, Module};

use crate::adaptive::AdaptiveSettings;
use crate::error::{Error, ErrorKind, Result};
use crate::functions::{Factory, FunctionSettings, Functions, UserFunction, from_sandbox};
use crate::memory::{self, MIN_MEMORY_LIMIT, MemoryUsage};
use crate::named::{self, NamedTable};
use crate::query::DataFrame;
use crate::source::SourceSpec;
use crate::spill::SpillFolder;
use crate::spill_files::{self, SpillFiles};
use crate::stores::LazyStores;
use crate::tables;
use crate::yielding::YieldingJoins;

/// Settings of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Bound of the memory pool in bytes; none: 70 % of the memory that the process may use.
    pub memory_limit: Option<u64>,
    /// Tasks at the same time; none: the cores that the process may use.
    pub slots: Option<usize>,
    /// Folder for spill files; the session uses a folder of its own in it and removes that when dropped.
    pub spill_dir: PathBuf,
    /// Rows in a batch; none: DataFusion's default.
    pub batch_size: Option<usize>,
    /// DataFusion settings by dotted name, e.g. `datafusion.optimizer.prefer_hash_join` → `false`.
    pub options: BTreeMap<String, String>,
    /// Collect observations (fingerprints, statistics) of what runs.
    pub observe: bool,
    /// Name of the pipeline: tables are told apart by it in the history.
    pub pipeline: String,
    /// Whether decisions may look at the past.
    pub learning: Learning,
    /// Where the past comes from; none: there is none. E.g. a `StateFolder`.
    pub past: Option<Arc<dyn Recall>>,
    /// What predicts the cost of plans; none: coefficients alone.
    pub model: Option<Arc<dyn CostModel>>,
    /// What the user ordered, by step.
    pub controls: BTreeMap<String, StepControl>,
    /// Whether and how plans change in mid-run.
    pub adaptive: AdaptiveSettings,
    /// How user functions are handled.
    pub functions: FunctionSettings,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            memory_limit: None,
            slots: None,
            spill_dir: std::env::temp_dir(),
            batch_size: None,
            options: BTreeMap::new(),
            observe: true,
            pipeline: "sql".to_owned(),
            learning: Learning::On,
            past: None,
            model: None,
            controls: BTreeMap::new(),
            adaptive: AdaptiveSettings::default(),
            functions: FunctionSettings::default(),
        }
    }
}

/// See the module. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped before the spill folder: the runtime owns files in it.
    context: SessionContext,
    pool: Arc<PeakRecordingPool>,
    memory_limit: u64,
    slots: usize,
    observe: bool,
    pipeline: String,
    learning: Learning,
    past: Option<Arc<dyn Recall>>,
    /// Read when first asked for.
    recalled: Mutex<Option<Arc<Recalled>>>,
    /// What is read before anyone has asked.
    ahead: Mutex<Option<JoinHandle<Recalled>>>,
    model: Arc<dyn CostModel>,
    controls: BTreeMap<String, StepControl>,
    adaptive: AdaptiveSettings,
    functions: Arc<Functions>,
    sources: Mutex<Arc<SourceMap>>,
    /// Sources as they were registered, by name.
    registered: Mutex<BTreeMap<String, SourceRecord>>,
    _spill: SpillFolder,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("slots", &self.inner.slots).field("memory", &self.memory()).finish()
    }
}

impl Session {
    /// A session with `config`. Fails where a setting has a bad value or the spill folder cannot be made.
    pub fn new(config: SessionConfig) -> Result<Self> {
        let memory_limit = config.memory_limit.unwrap_or_else(memory::default_memory_limit);
        if memory_limit < MIN_MEMORY_LIMIT {
            return Err(Error::new(ErrorKind::Setting, format!("a memory limit of {memory_limit} bytes is too small"))
                .with_hint(format!("set `memory` (`--memory`) to {} MiB or more", MIN_MEMORY_LIMIT >> 20)));
        }
        let slots = match config.slots {
            Some(0) => {
                return Err(Error::new(ErrorKind::Setting, "0 slots can run nothing")
                    .with_hint("set `slots` (`--slots`) to 1 or more"));
            }
            Some(slots) => slots,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        let spill = SpillFolder::create(&config.spill_dir)?;
        let pool = memory::pool(memory_limit);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&pool) as Arc<dyn MemoryPool>)
            .with_disk_manager_builder(
                DiskManagerBuilder::default()
                    .with_temp_file_factory(Arc::new(SpillFiles::new(spill.path())))
                    .with_max_temp_directory_size(u64::MAX),
            )
            // A listing must see what a step has just published.
            .with_object_list_cache_limit(0)
            .with_object_store_registry(Arc::new(LazyStores::default()))
            .build_arc()?;
        let functions = Functions::new(config.functions.clone(), Arc::clone(&pool) as Arc<dyn MemoryPool>);
        let state = SessionStateBuilder::new()
            .with_config(datafusion_config(&config, memory_limit, slots)?)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(YieldingJoins))
            .with_function_factory(Some(Arc::new(Factory(Arc::clone(&functions)))))
            .build();
        let context = SessionContext::new_with_state(state).enable_url_table();
        Ok(Self {
            inner: Arc::new(Inner {
                context,
                pool,
                memory_limit,
                slots,
                observe: config.observe,
                pipeline: config.pipeline,
                learning: config.learning,
                past: config.past,
                recalled: Mutex::default(),
                ahead: Mutex::default(),
                model: config.model.unwrap_or_else(|| Arc::new(AnalyticModel::default())),
                controls: config.controls,
                adaptive: config.adaptive,
                functions,
                sources: Mutex::default(),
                registered: Mutex::default(),
                _spill: spill,
            }),
        })
    }

    /// DataFusion's context.
    pub fn context(&self) -> &SessionContext {
        &self.inner.context
    }

    /// Slots in force: tasks at the same time.
    pub fn slots(&self) -> usize {
        self.inner.slots
    }

    /// True if what runs is observed.
    pub fn observes(&self) -> bool {
        self.inner.observe
    }

    /// Name of the pipeline that the session works for.
    pub fn pipeline(&self) -> &str {
        &self.inner.pipeline
    }

    /// Whether decisions may look at the past.
    pub fn learning(&self) -> Learning {
        self.inner.learning
    }

    /// The past, read when this is first called.
    pub fn recalled(&self) -> Arc<Recalled> {
        let mut recalled = self.inner.recalled.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || match &self.inner.past {
            Some(past) if self.inner.learning != Learning::Off => {
                let ahead = self.inner.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
                ahead.and_then(|reading| reading.join().ok()).unwrap_or_else(|| past.recall(&self.inner.pipeline))
            }
            _ => {
                let scope = Scope { pipeline: &self.inner.pipeline, environment: "default" };
                Recalled::nothing(scope, HistoryUnused::Switched)
            }
        };
        Arc::clone(recalled.get_or_insert_with(|| Arc::new(read())))
    }

    /// Begins to read the past, and the model that predicts, on a thread of its own, so that [`Self::recalled`] has less to wait for.
    pub fn recall_ahead(&self) {
        let Some(past) = self.inner.past.clone().filter(|_| self.inner.learning != Learning::Off) else { return };
        if self.has_recalled() {
            return;
        }
        let mut ahead = self.inner.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.is_some() {
            return;
        }
        let (model, pipeline) = (Arc::clone(&self.inner.model), self.inner.pipeline.clone());
        let read = move || {
            // Models are read when they are first asked.
            model.version();
            past.recall(&pipeline)
        };
        // Where there is no thread to be had, whoever asks reads.
        *ahead = std::thread::Builder::new().name("past".to_owned()).spawn(read).ok();
    }

    /// True if the past was read, or there is none to read.
    pub(crate) fn has_recalled(&self) -> bool {
        self.inner.past.is_none() || self.inner.recalled.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The past is read again before the next plan: something was remembered meanwhile.
    pub fn forget_past(&self) {
        drop(self.inner.ahead.lock().unwrap_or_else(PoisonError::into_inner).take());
        *self.inner.recalled.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What predicts the cost of plans.
    pub(crate) fn cost_model(&self) -> &dyn CostModel {
        self.inner.model.as_ref()
    }

    /// What the user ordered for a step.
    pub(crate) fn control(&self, step: Option<&str>) -> Option<&StepControl> {
        self.inner.controls.get(step?)
    }

    /// Sources as they were registered.
    pub(crate) fn source_records(&self) -> Vec<SourceRecord> {
        self.inner.registered.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Whether and how plans change in mid-run.
    pub fn adaptive(&self) -> &AdaptiveSettings {
        &self.inner.adaptive
    }

    /// Registers a source as table `name` and says what it found: files, bytes, rows, versions.
    ///
    /// Reads metadata and headers only. Fails with [`ErrorKind::Source`] where there is nothing to read and with
    /// [`ErrorKind::Data`] where what is there is not what it is said to be.
    pub async fn register_source(&self, name: &str, spec: &SourceSpec) -> Result<SourceRecord> {
        let record = tables::register(self, name, spec).await?;
        let mut registered = self.inner.registered.lock().unwrap_or_else(PoisonError::into_inner);
        registered.insert(name.to_owned(), record.clone());
        Ok(record)
    }

    /// Loads a module of WebAssembly (`.wasm`, or `.wat`) and registers its functions; they are called like any other in SQL.
    ///
    /// # Errors
    /// The module cannot be read, is none that runs here, or a function of it has a name that is taken.
    pub fn load_functions(&self, file: impl AsRef<Path>) -> Result<Arc<Module>> {
        let file = file.as_ref();
        let name = file.file_name().map_or_else(|| file.display().to_string(), |n| n.to_string_lossy().into_owned());
        self.load_module(file, &name, Declared::default())
    }

    /// As [`Session::load_functions`], for the functions that `declared` takes and within its limits; messages call it `name`.
    ///
    /// # Errors
    /// As there, and where `declared` does not fit the module.
    pub fn load_module(&self, file: &Path, name: &str, declared: Declared) -> Result<Arc<Module>> {
        let module = self.inner.functions.read(file, name, declared)?;
        self.inner.functions.register(self.context(), &module)?;
        Ok(module)
    }

    /// Compiles `module` now instead of when it is first called.
    ///
    /// # Errors
    /// The compiler does not take it, or not within its limits.
    pub fn compile(&self, module: &Module) -> Result<()> {
        module.compile().map_err(from_sandbox)
    }

    /// Modules whose functions are registered.
    pub fn modules(&self) -> Vec<Arc<Module>> {
        self.inner.functions.modules()
    }

    /// The user functions that are registered, in the order of their names; what `SHOW FUNCTIONS` lists.
    pub fn user_functions(&self) -> Vec<UserFunction> {
        self.inner.functions.list()
    }

    /// Takes the user function `name`, all its overloads, out of the session, as `DROP FUNCTION` does; false where there is none. Queries
    /// that are planned keep it.
    ///
    /// # Errors
    /// It is a built-in function.
    pub fn drop_function(&self, name: &str) -> Result<bool> {
        self.inner.functions.remove(self.context(), name)
    }

    /// From now on no user function is called in this session, not even to fold constants: for plans that are only looked at.
    pub fn plan_only(&self) {
        self.inner.functions.close();
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.inner.functions
    }

    /// Plans one SQL statement; `$name` placeholders are bound to `params`. Statements that define something (`CREATE …`,
    /// `SET …`) take effect at once.
    pub async fn sql(&self, sql: &str, params: &BTreeMap<String, ScalarValue>) -> Result<DataFrame> {
        let named = async {
            let state = self.context().state();
            let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
            if let Statement::Statement(statement) = &statement
                && let ast::Statement::ShowFunctions { filter } = statement.as_ref()
            {
                return self.inner.functions.show(filter.as_ref());
            }
            let plan = state.statement_to_plan(statement).await?;
            let plan = if params.is_empty() {
                plan
            } else {
                let values: Vec<_> = params.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                plan.with_param_values(values)?
            };
            if let LogicalPlan::Ddl(DdlStatement::DropFunction(dropped)) = &plan {
                let own = |error: Error| DataFusionError::External(Box::new(error));
                if !self.drop_function(&dropped.name).map_err(own)? && !dropped.if_exists {
                    return Err(own(self.inner.functions.missing(&dropped.name)));
                }
                return LogicalPlanBuilder::empty(false).build();
            }
            let frame = self.context().execute_logical_plan(plan).await?;
            Ok::<_, DataFusionError>(frame.logical_plan().clone())
        };
        Ok(DataFrame::new(self.clone(), named.await.map_err(|e| self.explain(e))?))
    }

    /// A data frame over a plan made with DataFusion's own API on [`Session::context`].
    pub fn frame(&self, plan: LogicalPlan) -> DataFrame {
        DataFrame::new(self.clone(), plan)
    }

    /// A data frame over a registered table.
    pub async fn table(&self, name: &str) -> Result<DataFrame> {
        let table = datafusion::common::TableReference::bare(name);
        let frame = self.context().table(table).await.map_err(|e| self.explain(e))?;
        Ok(self.frame(frame.logical_plan().clone()))
    }

    /// Use of the memory pool.
    pub fn memory(&self) -> MemoryUsage {
        MemoryUsage {
            reserved: self.inner.pool.reserved() as u64,
            peak: self.inner.pool.peak_reserved() as u64,
            limit: self.inner.memory_limit,
        }
    }

    /// Starts the measurement of the peak anew and returns the old peak in bytes.
    pub fn reset_peak_memory(&self) -> u64 {
        let peak = self.inner.pool.peak_reserved() as u64;
        self.inner.pool.reset_peak();
        peak
    }

    /// Names under which sources are known to the history.
    pub fn sources(&self) -> Arc<SourceMap> {
        Arc::clone(&self.inner.sources.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the names of sources.
    pub(crate) fn update_sources(&self, change: impl FnOnce(&mut SourceMap)) {
        let mut sources = self.inner.sources.lock().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut sources));
    }

    /// `table`, which holds the result of step `step`, such that scans of it are known to the history; for tables that a view
    /// over them stands for. A plan must scan it under the step's name.
    pub fn name_step_table(&self, step: &str, table: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
        Arc::new(NamedTable::new(table, self.step_id(step)))
    }

    fn step_id(&self, step: &str) -> SourceId {
        SourceId::Step { pipeline: self.inner.pipeline.clone(), step: step.to_owned() }
    }

    /// Puts `table`, the result of step `step`, in the place of what that name stood for.
    pub fn register_step(&self, step: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        self.register_named(step, table, self.step_id(step), None)
    }

    /// Puts `table` in the place of what `name` stood for; scans of it are known to the history as `id`.
    pub(crate) fn register_named(
        &self,
        name: &str,
        table: Arc<dyn TableProvider>,
        id: SourceId,
        statistics: Option<Statistics>,
    ) -> Result<()> {
        let reference = TableReference::bare(name);
        let identity = id.clone();
        self.update_sources(|sources| {
            sources.add_table(reference.clone(), identity);
            // Rows in memory and generated rows have no files to carry a tag: their schema object is theirs alone.
            let schema = table.schema();
            if table.is::<MemTable>() || table.is::<StreamingTable>() {
                let id = id.clone();
                sources.add_recogniser(move |scan| {
                    named::schema_of_rows(scan).is_some_and(|s| Arc::ptr_eq(&s, &schema)).then(|| id.clone())
                });
            }
        });
        self.context().deregister_table(reference.clone())?;
        self.context().register_table(reference, Arc::new(NamedTable::new(table, id).with_statistics(statistics)))?;
        Ok(())
    }

    /// The error as a user should see it, with suggestions from the tables of this session.
    pub fn explain(&self, error: datafusion::error::DataFusionError) -> Error {
        let tables: Vec<String> = self
            .context()
            .catalog_names()
            .iter()
            .filter_map(|catalog| self.context().catalog(catalog))
            .flat_map(|catalog| {
                let schemas = catalog.schema_names();
                schemas.into_iter().filter_map(move |s| catalog.schema(&s)).collect::<Vec<_>>()
            })
            .flat_map(|schema| schema.table_names())
            .collect();
        Error::from_datafusion(error, &tables)
    }
}

fn datafusion_config(config: &SessionConfig, memory_limit: u64, slots: usize) -> Result<DataFusionConfig> {
    let mut options = ConfigOptions::new();
    options.execution.target_partitions = slots;
    // A sort keeps this much aside for its merge; DataFusion's 10 MB a partition would eat a small pool whole.
    let per_sort = memory_limit / (slots as u64 * 16).max(1);
    let aside = options.execution.sort_spill_reservation_bytes.min(usize::try_from(per_sort).unwrap_or(usize::MAX));
    options.execution.sort_spill_reservation_bytes = aside;
    options.execution.max_spill_file_size_bytes = ConfigNonZeroUsize::try_new(spill_files::ONE_BATCH)?;
    options.catalog.information_schema = true;
    if let Some(rows) = config.batch_size {
        options.execution.batch_size = ConfigNonZeroUsize::try_new(rows).map_err(|_| {
            Error::new(ErrorKind::Setting, "a batch size of 0 rows can hold nothing")
                .with_hint("set `batch_size` to 1 or more; 8192 is the default")
        })?;
    }
    for (name, value) in &config.options {
        options.set(name, value).map_err(|error| {
            let known: Vec<String> = ConfigOptions::new().entries().into_iter().map(|e| e.key).collect();
            let message = format!("`{name} = {value}` is not a setting of DataFusion: {}", error.strip_backtrace());
            let error = Error::new(ErrorKind::Setting, message);
            match crate::suggest::closest(name, known.iter().map(String::as_str)) {
                Some(near) if near != name => error.with_hint(format!("did you mean `{near}`?")),
                _ => error.with_hint("see `sparklet config show` for the settings and their types"),
            }
        })?;
    }
    Ok(DataFusionConfig::from(options))
}
