//! A query: lazy as a [`DataFrame`], then planned, then run while it is observed.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::EmptyRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{Stream, TryStreamExt};
use sparklet_history::{Adaptation, ChoiceRecord, Decision, Fingerprint, FunctionRecord, KeyRecord, PlanRecord, Whole};
use sparklet_optimizer::choice::RowEstimate;
use sparklet_optimizer::decision_of;
use sparklet_sandbox::Scope;

use crate::adaptive::{self, AdaptiveMode, Driver, KnownKeys, Running, Uncut};
use crate::error::{Error, ErrorKind, Result};
use crate::functions;
use crate::observe::{self, Observed};
use crate::planning::expected::expected;
use crate::planning::trial::{TrialStream, Verdict};
use crate::planning::{self, Fallback, Planned};
use crate::progress::Progress;
use crate::session::Session;
use crate::stall::{self, StallWatch};

/// A lazy query of a session.
#[derive(Clone, Debug)]
pub struct DataFrame {
    session: Session,
    plan: LogicalPlan,
    /// Nothing of its plan changes while it runs.
    keeps_plan: bool,
    /// The step that it is the query of.
    step: Option<String>,
}

impl DataFrame {
    pub(crate) fn new(session: Session, plan: LogicalPlan) -> Self {
        Self { session, plan, keeps_plan: false, step: None }
    }

    /// The same as the query of step `name`: what is remembered of that step is its past, whatever its text was then. A query
    /// without a name is known by its text without literals.
    pub fn of_step(self, name: impl Into<String>) -> Self {
        Self { step: Some(name.into()), ..self }
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
        let Self { session, plan, keeps_plan, step } = self;
        let frame = datafusion::dataframe::DataFrame::new(session.context().state(), plan);
        let changed = change(frame).map_err(|e| session.explain(e))?;
        Ok(Self { plan: changed.logical_plan().clone(), session, keeps_plan, step })
    }

    /// The same, run by the plan that is made before it begins, whatever the session's settings of adaptive execution: rows of equal rank
    /// then come in the order that this one plan gives them.
    pub fn keep_plan(self) -> Self {
        Self { keeps_plan: true, ..self }
    }

    /// Optimises and plans; reads metadata, no data.
    pub async fn prepare(&self) -> Result<PreparedQuery> {
        let start = Instant::now();
        let (plan, scope) = self.session.functions().enter(&self.plan)?;
        let Planned { state, logical, physical, choice, before, composed, fallback } =
            self.planned(plan, scope.as_ref()).await?;
        let running = Running::of(Arc::clone(&physical));
        let known = Arc::new(KnownKeys::of(&self.session, self.step.as_deref()));
        let driver = match self.keeps_plan {
            true => None,
            false => adaptive::driver(&self.session, &state, &logical, &physical, &running, &known),
        };
        let adaptive = self.session.adaptive();
        let uncut = match adaptive.mode {
            AdaptiveMode::Off => Vec::new(),
            _ => adaptive::uncut(&logical),
        };
        running.looks_at(uncut.clone(), adaptive.min_rows);
        let planning_time = start.elapsed();
        let total_bytes = observe::scanned_bytes(&physical);
        Ok(PreparedQuery {
            decisions: vec![decision_of(&choice)],
            choice,
            before,
            composed,
            fallback,
            verdict: Verdict::default(),
            default_waits: Arc::default(),
            progress: Arc::new(Progress::of(Arc::clone(&running), total_bytes)),
            running,
            driver,
            known,
            task_context: state.task_ctx(),
            session: self.session.clone(),
            ended: Arc::new(AtomicBool::new(false)),
            keeps_plan: self.keeps_plan,
            scope,
            uncut,
            logical,
            schema: physical.schema(),
            physical: Arc::new(Mutex::new(physical)),
            planning_time,
        })
    }

    /// Plans `plan`, the functions of which are in `scope`. Calls that fold constants hold the thread of their task: where there may be any
    /// it is a task of its own, and they end if what this gives is dropped.
    async fn planned(&self, plan: LogicalPlan, scope: Option<&Arc<Scope>>) -> Result<Planned> {
        let Self { session, step, keeps_plan, .. } = self.clone();
        let planned = async move {
            // On the heap: what is planned from the past is a large future.
            let planned = Box::pin(planning::plan(&session, &plan, step.as_deref(), keeps_plan)).await;
            planned.map_err(|e| session.explain(e))
        };
        let Some(scope) = scope else { return planned.await };
        let waiting = Waiting(Some(Arc::clone(scope)));
        let planned = datafusion::common::runtime::SpawnedTask::spawn(planned).join().await;
        waiting.done();
        planned.unwrap_or_else(|join| Err(from_join(join)))
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
    physical: Arc<Mutex<Arc<dyn ExecutionPlan>>>,
    schema: SchemaRef,
    task_context: Arc<TaskContext>,
    planning_time: Duration,
    decisions: Vec<Decision>,
    choice: ChoiceRecord,
    /// What the work of its run is compared with; none where nothing is to be told of it.
    before: Option<planning::Before>,
    /// Rows of subplans that never ran, as they were expected.
    composed: HashMap<Fingerprint, RowEstimate>,
    /// What takes over if its plan, which is on trial, turns out badly.
    fallback: Option<Fallback>,
    verdict: Verdict,
    /// A hidden trial has to be begun again by the default if it gives up.
    default_waits: Arc<AtomicBool>,
    progress: Arc<Progress>,
    /// Runs it in stages; none where the plan is run as it is.
    driver: Option<Arc<Driver>>,
    running: Arc<Running>,
    /// What earlier runs have found of keys.
    known: Arc<KnownKeys>,
    ended: Arc<AtomicBool>,
    keeps_plan: bool,
    /// What the user functions in it share; none where there are none.
    scope: Option<Arc<Scope>>,
    uncut: Vec<Uncut>,
}

impl PreparedQuery {
    /// Columns of the result.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The session that it belongs to.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The physical plan. One that runs in stages is planned again as it goes.
    pub fn physical_plan(&self) -> Arc<dyn ExecutionPlan> {
        Arc::clone(&self.physical.lock().unwrap_or_else(PoisonError::into_inner))
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

    /// How its plan was chosen, and what became of that so far; see [`crate::conclude`].
    pub fn choice(&self) -> ChoiceRecord {
        ChoiceRecord { fell_back: self.verdict.fell_back(), ..self.choice.clone() }
    }

    /// The same when it has run, as `ran` says: with what there was to do.
    pub fn choice_after(&self, ran: &PlanRecord) -> ChoiceRecord {
        let choice = self.choice();
        let told = self.ended.load(Relaxed) && choice.fell_back.is_none();
        let before = self.before.as_ref().filter(|_| told);
        ChoiceRecord { work: before.and_then(|before| before.work(ran)), ..choice }
    }

    /// Another deadline for its trial, if it is one, of wall time and of CPU time.
    #[cfg(test)]
    pub(crate) fn set_deadline(&mut self, deadline: Duration) {
        if let Some(fallback) = &mut self.fallback {
            fallback.limits = planning::trial::Limits { wall: deadline, cpu: deadline };
        }
    }

    /// Live counters.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Runs it as one stream; partitions are merged, order kept where the query has one. A query that waits for itself under memory
    /// pressure ends with [`ErrorKind::Resources`]. Call it within a tokio runtime whose timer is enabled.
    pub fn stream(&self) -> Result<SendableRecordBatchStream> {
        self.watched(self.on_trial(false)?)
    }

    /// The same for somebody who hides what it gives until it has ended, and begins again with [`Self::stream_default`] where
    /// [`Self::gave_up`] says so.
    pub(crate) fn stream_hidden(&self) -> Result<SendableRecordBatchStream> {
        self.watched(self.on_trial(true)?)
    }

    /// True if its plan was on trial and ended early, after it had given rows.
    pub(crate) fn gave_up(&self) -> bool {
        self.verdict.fell_back().is_some() && self.default_waits.load(Relaxed)
    }

    /// The rows by the default, in place of a plan on trial that gave up.
    pub(crate) fn stream_default(&self) -> Result<SendableRecordBatchStream> {
        self.default_waits.store(false, Relaxed);
        let started = match &self.fallback {
            Some(fallback) => self.attempt().with(fallback).start(),
            None => self.attempt().start(),
        };
        self.watched(started.map_err(|e| self.session.explain(e))?)
    }

    fn watched(&self, stream: SendableRecordBatchStream) -> Result<SendableRecordBatchStream> {
        let watch = StallWatch::new(Arc::clone(&self.running), self.session.clone(), stall::LIMIT);
        let (ended, follows) = (Arc::clone(&self.ended), Arc::clone(&self.default_waits));
        Ok(Box::pin(Watched { stream, ended, follows, watch, scope: self.scope.clone() }))
    }

    fn on_trial(&self, hidden: bool) -> Result<SendableRecordBatchStream> {
        let attempt = self.attempt();
        let explained = |e| self.session.explain(e);
        let Some(fallback) = &self.fallback else { return attempt.start().map_err(explained) };
        let default = attempt.with(fallback);
        // The default is what a trial that does not fit falls back to.
        let trial = Attempt { may_retry: false, ..attempt }.start().map_err(explained)?;
        let waits = Arc::clone(&self.default_waits);
        waits.store(hidden, Relaxed);
        let default = Box::new(move || {
            waits.store(false, Relaxed);
            default.start()
        });
        Ok(Box::pin(TrialStream::new(trial, default, fallback.limits, hidden, self.verdict.clone())))
    }

    fn attempt(&self) -> Attempt {
        let adaptive = self.session.adaptive();
        Attempt {
            session: self.session.clone(),
            logical: self.logical.clone(),
            physical: Arc::clone(&self.physical),
            plan: self.physical_plan(),
            schema: self.schema(),
            driver: self.driver.clone(),
            task_context: Arc::clone(&self.task_context),
            running: Arc::clone(&self.running),
            known: Arc::clone(&self.known),
            may_retry: !self.keeps_plan && adaptive.mode == AdaptiveMode::On && adaptive.memory,
        }
    }

    /// While what it gives lives, somebody waits for this query. If it is dropped before [`Waiting::done`], calls of user functions end, those
    /// that are going on within about a tenth of a second: for whoever waits for a stream that another task polls, which cannot be
    /// dropped while it computes.
    pub fn waiting(&self) -> Waiting {
        Waiting(self.scope.clone())
    }

    /// Runs it and returns all rows.
    pub async fn collect(&self) -> Result<Vec<RecordBatch>> {
        let waiting = self.waiting();
        let stream = self.stream()?;
        // A task of its own: a panic in an operator becomes an error instead of ending the caller.
        let rows = datafusion::common::runtime::SpawnedTask::spawn(stream.try_collect::<Vec<_>>());
        let rows = rows.join().await;
        waiting.done();
        match rows {
            Ok(Ok(batches)) => Ok(batches),
            Ok(Err(error)) => Err(self.failed(error).await),
            Err(join) => Err(from_join(join)),
        }
    }

    /// Calls of user functions so far, while it was planned too.
    pub fn functions(&self) -> Vec<FunctionRecord> {
        let uses = self.scope.as_ref().map(|scope| scope.uses()).unwrap_or_default();
        uses.into_iter().map(functions::record).collect()
    }

    /// What was changed in mid-run, so far.
    pub fn adaptations(&self) -> Vec<Adaptation> {
        self.running.adaptations()
    }

    /// What was measured of the keys of sources, so far.
    pub fn keys(&self) -> Vec<KeyRecord> {
        self.running.keys()
    }

    /// True if nothing of it changes while it runs; see [`DataFrame::keep_plan`].
    pub fn keeps_plan(&self) -> bool {
        self.keeps_plan
    }

    /// Joins whose inputs run as stages before the rest is planned.
    pub fn boundaries(&self) -> Vec<String> {
        self.driver.as_ref().map(|driver| driver.describe()).unwrap_or_default()
    }

    /// Aggregates and windows whose groups or partitions stay whole even if they are hot, and why.
    pub fn uncut(&self) -> Vec<(String, Whole)> {
        self.uncut.iter().map(|uncut| (uncut.what.clone(), uncut.why.clone())).collect()
    }

    /// The plan with what was observed so far; final once the stream has ended (or was dropped).
    pub fn observe(&self) -> PlanRecord {
        self.observe_with_texts().plan
    }

    /// As [`Self::observe`], with the canonical texts of the fingerprints in it.
    pub fn observe_with_texts(&self) -> Observed {
        let plan = self.running.last().unwrap_or_else(|| self.physical_plan());
        let fingerprints = self.session.observes().then(|| observe::names(&plan, self.session.sources().as_ref()));
        let expected = fingerprints.as_ref().and_then(|named| expected(&self.session, &plan, named, &self.composed));
        observe::record(&plan, fingerprints, expected, self.ended.load(Relaxed))
    }

    /// The error that a user should see for one that came while running: names the file and line of bad data where they can be
    /// found.
    pub async fn failed(&self, error: datafusion::error::DataFusionError) -> Error {
        let explained = self.session.explain(error);
        if explained.kind == ErrorKind::Data {
            crate::diagnose::locate(&self.session, &self.physical_plan(), explained).await
        } else {
            explained
        }
    }

    pub(crate) fn task_context(&self) -> &Arc<TaskContext> {
        &self.task_context
    }
}

/// What runs a query once.
struct Attempt {
    session: Session,
    logical: LogicalPlan,
    /// The plan of the query for whoever looks at it.
    physical: Arc<Mutex<Arc<dyn ExecutionPlan>>>,
    plan: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    driver: Option<Arc<Driver>>,
    task_context: Arc<TaskContext>,
    running: Arc<Running>,
    known: Arc<KnownKeys>,
    /// Runs again, the inputs of all its joins as stages, where it runs out of memory before it has given a row.
    may_retry: bool,
}

impl Attempt {
    /// The same with the default plan.
    fn with(&self, default: &Fallback) -> Self {
        let (logical, plan) = (default.logical.clone(), Arc::clone(&default.physical));
        let driver = adaptive::driver(&self.session, &default.state, &logical, &plan, &self.running, &self.known);
        Self {
            session: self.session.clone(),
            logical,
            physical: Arc::clone(&self.physical),
            plan,
            schema: Arc::clone(&self.schema),
            driver,
            task_context: Arc::clone(&self.task_context),
            running: Arc::clone(&self.running),
            known: Arc::clone(&self.known),
            may_retry: self.may_retry,
        }
    }

    /// Runs the plan, in stages where there are any.
    fn start(self) -> datafusion::error::Result<SendableRecordBatchStream> {
        let Self { session, logical, physical, plan, schema, driver, task_context, running, may_retry, .. } = self;
        *physical.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&plan);
        running.set(Arc::clone(&plan));
        let may_retry = may_retry && !plan.children().is_empty();
        let stream = match driver {
            Some(driver) => staged(driver, Arc::clone(&schema)),
            None => execute_stream(plan, task_context)?,
        };
        if !may_retry {
            return Ok(stream);
        }
        let again = move |error| {
            let last = async move {
                let state = session.context().state();
                let plan = state.query_planner().create_physical_plan(&logical, &state).await?;
                // Only now what the joins of the first attempt have collected is gone.
                *physical.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&plan);
                running.set(Arc::clone(&plan));
                let driver = adaptive::after_exhaustion(&session, &state, &logical, &plan, &running, &error);
                last_stage(driver.ok_or(error)?).await
            };
            Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(last).try_flatten())) as _
        };
        Ok(Box::pin(SecondAttempt { stream, again: Some(Box::new(again)) }))
    }
}

/// The rows of the last stage, after all others have run.
fn staged(driver: Arc<Driver>, schema: SchemaRef) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(last_stage(driver)).try_flatten()))
}

async fn last_stage(driver: Arc<Driver>) -> datafusion::error::Result<SendableRecordBatchStream> {
    let plan = driver.run().await?;
    execute_stream(plan, Arc::clone(driver.task_context()))
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

/// Somebody who waits for a query; see [`PreparedQuery::waiting`].
#[derive(Debug)]
#[must_use = "dropped, it ends what is waited for"]
pub struct Waiting(Option<Arc<Scope>>);

impl Waiting {
    pub(crate) fn of(scope: &Arc<Scope>) -> Self {
        Self(Some(Arc::clone(scope)))
    }

    /// The query has ended, or goes on without being waited for.
    pub fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(scope) = &self.0 {
            scope.cancel();
        }
    }
}

type Again = Box<dyn FnOnce(DataFusionError) -> SendableRecordBatchStream + Send>;

/// A stream that another one replaces if it ends for want of memory before it has given anything.
struct SecondAttempt {
    stream: SendableRecordBatchStream,
    /// Makes the other one; gone once rows were given.
    again: Option<Again>,
}

impl Stream for SecondAttempt {
    type Item = datafusion::error::Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let item = std::task::ready!(self.stream.as_mut().poll_next(cx));
            match (self.again.take(), item) {
                (Some(again), Some(Err(error)))
                    if matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)) =>
                {
                    // The first attempt ends before the second begins.
                    self.stream = Box::pin(EmptyRecordBatchStream::new(self.stream.schema()));
                    self.stream = again(error);
                }
                (_, item) => return Poll::Ready(item),
            }
        }
    }
}

impl RecordBatchStream for SecondAttempt {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}

/// `stream`, which runs `plan`: it ends if it stalls, and calls of functions in `scope` end with it.
pub(crate) fn watched(
    stream: SendableRecordBatchStream,
    session: &Session,
    plan: &Arc<dyn ExecutionPlan>,
    scope: &Arc<Scope>,
) -> SendableRecordBatchStream {
    let watch = StallWatch::new(Running::of(Arc::clone(plan)), session.clone(), stall::LIMIT);
    Box::pin(Watched { stream, ended: Arc::default(), follows: Arc::default(), watch, scope: Some(Arc::clone(scope)) })
}

/// Marks when a stream has given all its rows (counts of a stream that was dropped before are no evidence), and ends one that has
/// stalled.
struct Watched {
    stream: SendableRecordBatchStream,
    ended: Arc<AtomicBool>,
    /// Another stream of the same query follows where this one ends early.
    follows: Arc<AtomicBool>,
    watch: StallWatch,
    scope: Option<Arc<Scope>>,
}

impl Drop for Watched {
    /// Instances of user functions end with the query that they were made for, and calls of tasks that it has started elsewhere.
    fn drop(&mut self) {
        if let Some(scope) = &self.scope {
            if !self.ended.load(Relaxed) && !self.follows.load(Relaxed) {
                scope.cancel();
            }
            scope.release();
        }
    }
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
