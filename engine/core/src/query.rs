//! A query: lazy as a [`DataFrame`], then planned, then run while it is observed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{Stream, TryStreamExt};
use sparklet_history::{Adaptation, Decision, PlanRecord};
use sparklet_optimizer::decide_default;

use crate::adaptive::{self, Driver, Staged};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{self, Observed};
use crate::progress::Progress;
use crate::session::Session;
use crate::stall::{self, StallWatch};

/// A lazy query of a session.
#[derive(Clone, Debug)]
pub struct DataFrame {
    session: Session,
    plan: LogicalPlan,
}

impl DataFrame {
    pub(crate) fn new(session: Session, plan: LogicalPlan) -> Self {
        Self { session, plan }
    }

    /// The logical plan as written (not optimised).
    pub fn logical_plan(&self) -> &LogicalPlan {
        &self.plan
    }

    /// The session that it belongs to.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Columns of the result.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }

    /// The frame that `change` makes of this one with DataFusion's own data-frame API, e.g.
    /// `frame.with(|f| f.filter(col("a").gt(lit(1)))?.limit(0, Some(10)))`.
    pub fn with(
        self,
        change: impl FnOnce(datafusion::dataframe::DataFrame) -> datafusion::error::Result<datafusion::dataframe::DataFrame>,
    ) -> Result<Self> {
        let Self { session, plan } = self;
        let frame = datafusion::dataframe::DataFrame::new(session.context().state(), plan);
        let changed = change(frame).map_err(|e| session.explain(e))?;
        Ok(Self { plan: changed.logical_plan().clone(), session })
    }

    /// Optimises and plans; reads metadata, no data.
    pub async fn prepare(&self) -> Result<PreparedQuery> {
        let start = Instant::now();
        let state = self.session.context().state();
        let planned = async {
            let logical = state.optimize(&self.plan)?;
            let physical = state.query_planner().create_physical_plan(&logical, &state).await?;
            Ok((logical, physical))
        };
        let (logical, physical) = planned.await.map_err(|e| self.session.explain(e))?;
        let driver = adaptive::driver(&self.session, &state, &logical, &physical);
        let planning_time = start.elapsed();
        let total_bytes = observe::scanned_bytes(&physical);
        let running = Running::new(&physical, driver.as_ref());
        Ok(PreparedQuery {
            decisions: vec![decide_default(self.session.learning())],
            progress: Arc::new(Progress::of(running, total_bytes)),
            driver,
            task_context: state.task_ctx(),
            session: self.session.clone(),
            ended: Arc::new(AtomicBool::new(false)),
            logical,
            physical,
            planning_time,
        })
    }

    /// Runs it and returns all rows.
    pub async fn collect(&self) -> Result<Vec<RecordBatch>> {
        self.prepare().await?.collect().await
    }
}

/// A planned query; runs once.
#[derive(Debug)]
pub struct PreparedQuery {
    session: Session,
    logical: LogicalPlan,
    physical: Arc<dyn ExecutionPlan>,
    task_context: Arc<TaskContext>,
    planning_time: Duration,
    decisions: Vec<Decision>,
    progress: Arc<Progress>,
    /// Runs it in stages; none where the plan is run as it is.
    driver: Option<Arc<Driver>>,
    ended: Arc<AtomicBool>,
}

impl PreparedQuery {
    /// Columns of the result.
    pub fn schema(&self) -> SchemaRef {
        self.physical.schema()
    }

    /// The session that it belongs to.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The physical plan.
    pub fn physical_plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.physical
    }

    /// The optimised logical plan.
    pub fn logical_plan(&self) -> &LogicalPlan {
        &self.logical
    }

    /// Time spent in planning.
    pub fn planning_time(&self) -> Duration {
        self.planning_time
    }

    /// What the optimizer decided.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Live counters.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Runs it as one stream; partitions are merged, order kept where the query has one. A query that waits for itself under memory
    /// pressure ends with [`ErrorKind::Resources`]. Call it within a tokio runtime whose timer is enabled.
    pub fn stream(&self) -> Result<SendableRecordBatchStream> {
        let stream = match &self.driver {
            None => execute_stream(Arc::clone(&self.physical), Arc::clone(&self.task_context))
                .map_err(|e| self.session.explain(e))?,
            Some(driver) => staged(Arc::clone(driver), self.schema()),
        };
        let watch = StallWatch::new(self.running(), self.session.clone(), stall::LIMIT);
        Ok(Box::pin(Watched { stream, ended: Arc::clone(&self.ended), watch }))
    }

    /// Runs it and returns all rows.
    pub async fn collect(&self) -> Result<Vec<RecordBatch>> {
        let stream = self.stream()?;
        // A task of its own: a panic in an operator becomes an error instead of ending the caller.
        let rows = datafusion::common::runtime::SpawnedTask::spawn(stream.try_collect::<Vec<_>>());
        match rows.join().await {
            Ok(Ok(batches)) => Ok(batches),
            Ok(Err(error)) => Err(self.failed(error).await),
            Err(join) => Err(from_join(join)),
        }
    }

    /// What was changed in mid-run, so far.
    pub fn adaptations(&self) -> Vec<Adaptation> {
        self.driver.as_ref().map(|driver| driver.staged().adaptations()).unwrap_or_default()
    }

    /// Joins whose inputs run as stages before the rest is planned.
    pub fn boundaries(&self) -> Vec<String> {
        self.driver.as_ref().map(|driver| driver.describe()).unwrap_or_default()
    }

    fn running(&self) -> Running {
        Running::new(&self.physical, self.driver.as_ref())
    }

    /// The plan with what was observed so far; final once the stream has ended (or was dropped).
    pub fn observe(&self) -> PlanRecord {
        self.observe_with_texts().plan
    }

    /// As [`Self::observe`], with the canonical texts of the fingerprints in it.
    pub fn observe_with_texts(&self) -> Observed {
        let plan = self.running().last();
        let fingerprints = self
            .session
            .observes()
            .then(|| sparklet_optimizer::fingerprint_physical(&plan, self.session.sources().as_ref()));
        observe::record(&plan, fingerprints, self.ended.load(Relaxed))
    }

    /// The error that a user should see for one that came while running: names the file and line of bad data where they can be
    /// found.
    pub async fn failed(&self, error: datafusion::error::DataFusionError) -> Error {
        let explained = self.session.explain(error);
        if explained.kind == ErrorKind::Data {
            crate::diagnose::locate(&self.session, &self.physical, explained).await
        } else {
            explained
        }
    }

    pub(crate) fn task_context(&self) -> &Arc<TaskContext> {
        &self.task_context
    }
}

/// The plans of a query that run or have run.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    plan: Arc<dyn ExecutionPlan>,
    staged: Option<Arc<Staged>>,
}

impl Running {
    pub(crate) fn new(plan: &Arc<dyn ExecutionPlan>, driver: Option<&Arc<Driver>>) -> Self {
        Self { plan: Arc::clone(plan), staged: driver.map(|driver| Arc::clone(driver.staged())) }
    }

    /// All of them; the one plan of a query that does not run in stages.
    pub(crate) fn plans(&self) -> Vec<Arc<dyn ExecutionPlan>> {
        self.staged.as_ref().map_or_else(|| vec![Arc::clone(&self.plan)], |staged| staged.plans())
    }

    /// The plan that gives the rows, once it runs.
    pub(crate) fn finished_plan(&self) -> Option<Arc<dyn ExecutionPlan>> {
        match &self.staged {
            Some(staged) => staged.last().cloned(),
            None => Some(Arc::clone(&self.plan)),
        }
    }

    /// The plan that gives the rows, the stages below it included; before it is known, the last that began.
    pub(crate) fn last(&self) -> Arc<dyn ExecutionPlan> {
        self.finished_plan().or_else(|| self.plans().pop()).unwrap_or_else(|| Arc::clone(&self.plan))
    }
}

/// The rows of the last stage, after all others have run.
fn staged(driver: Arc<Driver>, schema: SchemaRef) -> SendableRecordBatchStream {
    let last = async move {
        let plan = driver.run().await?;
        execute_stream(plan, Arc::clone(driver.task_context()))
    };
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(last).try_flatten()))
}

/// The error for a task that did not come to its end.
pub(crate) fn from_join(join: tokio::task::JoinError) -> Error {
    if join.is_cancelled() {
        return Error::new(ErrorKind::Cancelled, "cancelled");
    }
    let panic = join.into_panic();
    let said = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::new(ErrorKind::Internal, format!("an operator panicked: {said}"))
        .with_hint("this is a bug in the engine: please report the query and this message")
}

/// Marks when a stream has given all its rows (counts of a stream that was dropped before are no evidence), and ends one that has
/// stalled.
struct Watched {
    stream: SendableRecordBatchStream,
    ended: Arc<AtomicBool>,
    watch: StallWatch,
}

impl Stream for Watched {
    type Item = datafusion::error::Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.stream.as_mut().poll_next(cx) {
            Poll::Pending => match self.watch.poll(cx) {
                Poll::Ready(error) => Poll::Ready(Some(Err(DataFusionError::External(Box::new(error))))),
                Poll::Pending => Poll::Pending,
            },
            Poll::Ready(None) => {
                self.ended.store(true, Relaxed);
                Poll::Ready(None)
            }
            Poll::Ready(item) => {
                self.watch.alive();
                Poll::Ready(item)
            }
        }
    }
}

impl RecordBatchStream for Watched {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}
