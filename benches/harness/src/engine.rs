//! The two engines under test, driven the same way: plain DataFusion, and sparklet through its public session.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::context::{SessionConfig as PlainConfig, SessionContext};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, PeakRecordingPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::ParquetReadOptions;
use sparklet_core::models::{self, ServingModel};
use sparklet_core::source::{Format, SourceOptions, SourceSpec};
use sparklet_core::{AdaptiveSettings, PreparedQuery, Session, SessionConfig};
use sparklet_history::{History, HistoryError, SourceRecord, StateFolder};

use crate::error::{AtPath, Result};
use crate::measure::{Clock, Cost};
use crate::skew::timed::{self, Stage};

/// What both engines are given.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Partitions, and worker threads.
    pub(crate) slots: usize,
    /// Bound of the memory pool in bytes.
    pub(crate) memory: u64,
    /// Rows in a batch; none: DataFusion's default.
    pub(crate) batch_size: Option<usize>,
    /// Folder for spill files.
    pub(crate) spill: PathBuf,
    /// How sparklet changes plans in mid-run; plain DataFusion does not.
    pub(crate) adaptive: AdaptiveSettings,
}

/// A finished query.
pub(crate) struct Answer {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    /// What the query took, from its text to its last row.
    pub(crate) cost: Cost,
}

/// Plain DataFusion with a context of its own.
pub(crate) struct Plain {
    context: SessionContext,
    pool: Arc<PeakRecordingPool>,
}

impl Plain {
    /// A context with `settings`, and DataFusion's `options` by dotted name.
    pub(crate) fn new(settings: &Settings, options: &BTreeMap<String, String>) -> Result<Self> {
        let mut config = PlainConfig::new().with_target_partitions(settings.slots);
        if let Some(rows) = settings.batch_size {
            config = config.with_batch_size(rows);
        }
        for (name, value) in options {
            config.options_mut().set(name, value)?;
        }
        std::fs::create_dir_all(&settings.spill).at_path(&settings.spill)?;
        // The same kind of pool as a sparklet session's.
        let bounded = FairSpillPool::new(usize::try_from(settings.memory).unwrap_or(usize::MAX));
        let tracked = TrackConsumersPool::new(bounded, NonZeroUsize::new(5).unwrap_or(NonZeroUsize::MIN));
        let pool = Arc::new(PeakRecordingPool::new(Arc::new(tracked)));
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![settings.spill.clone()]))
            .with_max_temp_directory_size(u64::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&pool) as Arc<dyn MemoryPool>)
            .with_disk_manager_builder(disk)
            .build_arc()?;
        Ok(Self { context: SessionContext::new_with_config_rt(config, runtime), pool })
    }

    /// DataFusion's context.
    pub(crate) fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Registers folders of Parquet files as tables.
    pub(crate) async fn register(&self, tables: &[(String, PathBuf)]) -> Result<Cost> {
        let clock = Clock::start();
        for (name, folder) in tables {
            self.context.register_parquet(name, folder.to_string_lossy(), ParquetReadOptions::default()).await?;
        }
        Ok(clock.stop())
    }

    /// Runs one query.
    pub(crate) async fn run(&self, sql: &str) -> Result<Answer> {
        self.pool.reset_peak();
        let clock = Clock::start();
        let plan = self.context.sql(sql).await?.create_physical_plan().await?;
        self.rows(plan, &clock).await
    }

    /// Runs one query and says what the tasks of its topmost stage over hashed rows took; none where there is no such stage.
    pub(crate) async fn run_timed(&self, sql: &str) -> Result<(Answer, Option<Stage>)> {
        self.pool.reset_peak();
        let clock = Clock::start();
        let plan = self.context.sql(sql).await?.create_physical_plan().await?;
        let (plan, stage) = timed::wrap(plan)?;
        let answer = self.rows(plan, &clock).await?;
        Ok((answer, stage.map(|stage| stage.read())))
    }

    async fn rows(&self, plan: Arc<dyn ExecutionPlan>, clock: &Clock) -> Result<Answer> {
        let planning_us = clock.wall_us();
        let schema = plan.schema();
        let batches = collect(plan, self.context.task_ctx()).await?;
        let cost = Cost { planning_us, peak_memory_bytes: self.pool.peak_reserved() as u64, ..clock.stop() };
        Ok(Answer { schema, batches, cost })
    }

    /// The plan of a query, one operator a line.
    pub(crate) async fn plan(&self, sql: &str) -> Result<String> {
        let plan = self.context.sql(sql).await?.create_physical_plan().await?;
        Ok(displayable(plan.as_ref()).indent(false).to_string())
    }
}

/// Environment of the harness's runs.
pub(crate) const ENVIRONMENT: &str = "default";

/// What the command line does once a run is remembered: a cost model is trained where one is due.
pub(crate) fn learn(history: &History) -> std::result::Result<(), HistoryError> {
    models::train(history, ENVIRONMENT, false).map(drop)
}

/// Sparklet through its public session.
pub(crate) struct Sparklet {
    session: Session,
    /// What was registered, for the run records.
    pub(crate) sources: Vec<SourceRecord>,
}

impl Sparklet {
    /// A session with `settings` that observes, and plans from what `past` holds.
    pub(crate) fn new(settings: &Settings, pipeline: &str, past: Option<&History>) -> Result<Self> {
        let config = SessionConfig {
            memory_limit: Some(settings.memory),
            slots: Some(settings.slots),
            spill_dir: settings.spill.clone(),
            batch_size: settings.batch_size,
            observe: true,
            past: past.map(|history| Arc::new(StateFolder::new(history.clone(), ENVIRONMENT)) as _),
            model: past.map(|history| Arc::new(ServingModel::new(history.clone(), ENVIRONMENT)) as _),
            pipeline: pipeline.to_owned(),
            adaptive: settings.adaptive.clone(),
            ..SessionConfig::default()
        };
        std::fs::create_dir_all(&settings.spill).at_path(&settings.spill)?;
        Ok(Self { session: Session::new(config)?, sources: Vec::new() })
    }

    /// The session.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Registers folders of Parquet files as tables.
    pub(crate) async fn register(&mut self, tables: &[(String, PathBuf)]) -> Result<Cost> {
        let clock = Clock::start();
        // As a pipeline's run does.
        self.session.recall_ahead();
        for (name, folder) in tables {
            self.sources.push(self.session.register_source(name, &parquet(folder)).await?);
        }
        Ok(clock.stop())
    }

    /// Runs one query; what ran is handed back for its observations.
    pub(crate) async fn run(&self, step: &str, sql: &str) -> Result<(Answer, PreparedQuery)> {
        self.session.reset_peak_memory();
        let clock = Clock::start();
        let prepared = self.session.sql(sql, &BTreeMap::new()).await?.of_step(step).prepare().await?;
        let planning_us = clock.wall_us();
        let schema = prepared.schema();
        let batches = prepared.collect().await?;
        let cost = Cost { planning_us, peak_memory_bytes: self.session.memory().peak, ..clock.stop() };
        Ok((Answer { schema, batches, cost }, prepared))
    }
}

/// A folder of Parquet files as a source.
pub(crate) fn parquet(folder: &Path) -> SourceSpec {
    let location = folder.to_string_lossy().into_owned();
    SourceSpec {
        written: location.clone(),
        location,
        format: Format::Parquet,
        options: SourceOptions::default(),
        columns: Vec::new(),
        partition_columns: Vec::new(),
        storage: BTreeMap::new(),
    }
}

/// DataFusion's settings that differ between the two engines, as `name: plain → sparklet`: what a comparison must say.
pub(crate) fn different_settings(plain: &Plain, sparklet: &Sparklet) -> Vec<String> {
    let entries = |context: &SessionContext| -> BTreeMap<String, String> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        context.copied_config().options().entries().into_iter().map(|e| (e.key, text(e.value))).collect()
    };
    let (ours, theirs) = (entries(sparklet.session().context()), entries(plain.context()));
    let differs = |(name, value): (&String, &String)| {
        let other = theirs.get(name).map_or("none", String::as_str);
        (other != value).then(|| format!("{name}: {other} → {value}"))
    };
    ours.iter().filter_map(differs).collect()
}
