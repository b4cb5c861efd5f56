//! A partitioned hash join over two finished exchanges, as many small joins taken from one queue.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::joins::{HashJoinExec, HashJoinExecBuilder, PartitionMode};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, Metric, MetricValue, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::ChildStats;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs};

use super::governor::{Gate, Governor};
use super::grace::{self, RedividedJoinExec};
use super::inputs::{self, Input};
use super::slots::{self, Slot, Task, TaskDone, TaskSource};
use super::units::{Division, Limits, Method, Unit};
use crate::exchange::slices::Assignment;
use crate::exchange::{Budget, Exchange};

const NAME: &str = "AdaptiveJoinExec";

/// See the module. Its inputs are leaves over exchanges (or column projections of them) in their canonical layout; each unit reads its own
/// slices of them. A unit is a `CollectLeft` join of DataFusion, which shares build side and matched rows among its probe partitions: so
/// every join type keeps its meaning when a bucket's probe side is cut. An output partition is a slot: it takes the next task when it is
/// done with one, so that an idle slot helps with the longest bucket.
#[derive(Debug)]
pub(crate) struct AdaptiveJoinExec {
    /// The join as planned; never run.
    template: HashJoinExec,
    left: Input,
    right: Input,
    division: Arc<Division>,
    resources: Resources,
    /// Output partitions.
    slots: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    work: OnceLock<Arc<Work>>,
    done: Arc<Mutex<Vec<TaskDone>>>,
    /// Once its plan is not optimised any more, it stands for its template where records and reports look at it.
    settled: Arc<AtomicBool>,
    number: u64,
}

/// What the joins of a query share.
#[derive(Debug, Clone)]
pub(crate) struct Resources {
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<Budget>,
    /// Says how many slots may have a task; none where all may.
    pub(crate) governor: Option<Arc<Governor>>,
}

impl AdaptiveJoinExec {
    /// The join `template` over `division`. Its inputs must be such as [`inputs::input`] accepts.
    pub(crate) fn new(template: &HashJoinExec, division: Division, resources: Resources) -> Result<Self> {
        let (left, right) = (inputs::input(template.left())?, inputs::input(template.right())?);
        let slots = resources.limits.slots.min(division.task_count()).max(1);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(template.schema()),
            Partitioning::UnknownPartitioning(slots),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            template: HashJoinExecBuilder::from(template).reset_state().build()?,
            left,
            right,
            division: Arc::new(division),
            resources,
            slots,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            work: OnceLock::new(),
            done: Arc::default(),
            settled: Arc::default(),
            number: slots::number(),
        })
    }

    pub(crate) fn template(&self) -> &HashJoinExec {
        &self.template
    }

    pub(crate) fn division(&self) -> &Division {
        &self.division
    }

    /// Tasks that have ended so far.
    pub(crate) fn done(&self) -> Vec<TaskDone> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The adaptive join that `plan` is, if it is one.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<&Self> {
        // Not by downcasting, which a settled one passes on to its template.
        (plan.name() == NAME).then(|| (plan.as_ref() as &dyn Any).downcast_ref::<Self>()).flatten()
    }

    /// Tells it from other joins of the process.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The exchanges that it joins.
    pub(crate) fn exchanges(&self) -> (Arc<Exchange>, Arc<Exchange>) {
        (Arc::clone(&self.left.exchange), Arc::clone(&self.right.exchange))
    }

    /// From now on it shows as the hash join that it stands for.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Relaxed);
    }

    fn work(&self) -> Result<&Arc<Work>> {
        if let Some(work) = self.work.get() {
            return Ok(work);
        }
        let mut first = VecDeque::new();
        let mut later = Vec::new();
        for (at, unit) in self.division.units.iter().enumerate() {
            first.push_back((unit.probe_weights.first().copied().unwrap_or(0) + unit.build_weight, at, 0));
            later.extend(unit.probe_weights.iter().enumerate().skip(1).map(|(slice, &weight)| (weight, at, slice)));
        }
        // The first slice of a unit builds; others that came at once would only wait for it.
        let mut tasks: Vec<(u64, usize, usize)> = first.into_iter().chain(later).collect();
        tasks.sort_by_key(|&(weight, unit, slice)| (slice > 0, std::cmp::Reverse(weight), unit, slice));
        let work = Work {
            template: HashJoinExecBuilder::from(&self.template).reset_state().build()?,
            left: self.left.clone(),
            right: self.right.clone(),
            division: Arc::clone(&self.division),
            resources: self.resources.clone(),
            gate: self.resources.governor.as_ref().map(|governor| {
                let stage = self.left.exchange.id.max(self.right.exchange.id);
                governor.gate(stage)
            }),
            state: Mutex::new(State {
                tasks: tasks.into_iter().map(|(_, unit, slice)| (unit, slice)).collect(),
                running: self.division.units.iter().map(|_| None).collect(),
            }),
        };
        Ok(self.work.get_or_init(|| Arc::new(work)))
    }
}

impl Division {
    pub(crate) fn task_count(&self) -> usize {
        self.units.iter().map(|unit| unit.probe.len()).sum()
    }
}

impl DisplayAs for AdaptiveJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<String> = self.template.on().iter().map(|(l, r)| format!("({l}, {r})")).collect();
        let swapped = self.division.units.iter().filter(|unit| unit.swapped).count();
        write!(
            f,
            "AdaptiveJoinExec: join_type={:?}, on=[{}], units={}, tasks={}, split_buckets={}, swapped_units={swapped}, slots={}",
            self.template.join_type(),
            on.join(", "),
            self.division.units.len(),
            self.division.task_count(),
            self.division.split_buckets.len(),
            self.slots
        )
    }
}

impl ExecutionPlan for AdaptiveJoinExec {
    fn name(&self) -> &str {
        NAME
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        // Not before: an optimizer rule that sees a hash join would put another in its place.
        self.settled.load(Relaxed).then_some(&self.template)
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.template.left(), self.template.right()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.template.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(right), Some(left)) = (children.pop(), children.pop()) else {
            return datafusion::common::internal_err!("an adaptive join has two inputs");
        };
        let template = HashJoinExecBuilder::from(&self.template)
            .recompute_properties()
            .with_new_children(vec![left, right])?
            .build()?;
        match (inputs::as_input(template.left()), inputs::as_input(template.right())) {
            (Some(_), Some(_)) => Ok(Arc::new(Self::new(&template, (*self.division).clone(), self.resources.clone())?)),
            // Slices can no longer be read: the join as planned gives the same rows.
            _ => Ok(Arc::new(template)),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let work = Arc::clone(self.work()?) as Arc<dyn TaskSource>;
        let done = Arc::clone(&self.done);
        Ok(Box::pin(Slot::new(partition, self.template.schema(), work, context, &self.metrics, done)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(swapped) = self.template.try_swapping_with_projection(projection)? else { return Ok(None) };
        let Some(join) = swapped.downcast_ref::<HashJoinExec>() else { return Ok(None) };
        match (inputs::as_input(join.left()), inputs::as_input(join.right())) {
            (Some(_), Some(_)) => {
                Ok(Some(Arc::new(Self::new(join, (*self.division).clone(), self.resources.clone())?)))
            }
            _ => Ok(None),
        }
    }

    fn child_stats_requests(&self, _: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(None), ChildStats::At(None)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        if args.partition().is_some() {
            return Ok(Arc::new(Statistics::new_unknown(&self.schema())));
        }
        self.template.statistics_from_inputs(inputs, args)
    }
}

/// What the slots of a join share.
#[derive(Debug)]
struct Work {
    template: HashJoinExec,
    left: Input,
    right: Input,
    division: Arc<Division>,
    resources: Resources,
    gate: Option<Gate>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// (unit, slice), in the order in which they are taken.
    tasks: VecDeque<(usize, usize)>,
    /// By unit: its join, and the slices that have not ended.
    running: Vec<Option<(Arc<dyn ExecutionPlan>, usize)>>,
}

/// A task: a partition of a unit's join.
struct Taken {
    unit: usize,
    slice: usize,
    plan: Arc<dyn ExecutionPlan>,
}

impl Work {
    /// The next task and the join that it is a partition of.
    fn next(&self) -> Result<Option<Taken>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((unit, slice)) = state.tasks.pop_front() else { return Ok(None) };
        let plan = match &state.running[unit] {
            Some((plan, _)) => Arc::clone(plan),
            None => {
                let spec = &self.division.units[unit];
                let plan = self.plan(spec)?;
                state.running[unit] = Some((Arc::clone(&plan), spec.probe.len()));
                plan
            }
        };
        Ok(Some(Taken { unit, slice, plan }))
    }

    fn plan(&self, unit: &Unit) -> Result<Arc<dyn ExecutionPlan>> {
        let build: Assignment = vec![unit.build.clone()];
        let (left, right) = match unit.swapped {
            false => (self.left.assigned(build)?, self.right.assigned(unit.probe.clone())?),
            true => (self.left.assigned(unit.probe.clone())?, self.right.assigned(build)?),
        };
        match unit.method {
            Method::Hash => {}
            Method::SortMerge => return grace::sort_merge(&self.template, left, right),
            Method::Redivide => {
                let (left, right) = (self.left.clone(), self.right.clone());
                let bytes = unit.build_size.hash_table();
                let redivided =
                    RedividedJoinExec::new(&self.template, left, right, unit, bytes, self.resources.clone())?;
                return Ok(Arc::new(redivided));
            }
        }
        let join = HashJoinExecBuilder::from(&self.template)
            .reset_state()
            .with_new_children(vec![left, right])?
            .with_partition_mode(if unit.swapped { PartitionMode::Partitioned } else { PartitionMode::CollectLeft })
            .recompute_properties()
            .build()?;
        match unit.swapped {
            false => Ok(Arc::new(join)),
            true => join.swap_inputs(PartitionMode::CollectLeft),
        }
    }
}

impl TaskSource for Work {
    fn take(&self, context: &Arc<TaskContext>) -> Result<Option<Task>> {
        let Some(Taken { unit, slice, plan }) = self.next()? else { return Ok(None) };
        Ok(Some(Task { unit, stream: plan.execute(slice, Arc::clone(context))? }))
    }

    /// With its last slice the unit's hash table goes; its counters are added to `metrics`.
    fn ended(&self, unit: usize, metrics: &ExecutionPlanMetricsSet) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((plan, left)) = &mut state.running[unit] else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        add_metrics(plan, metrics);
        state.running[unit] = None;
        if state.tasks.is_empty() && state.running.iter().all(Option::is_none) {
            drop(state);
            self.left.exchange.reader_ended();
            self.right.exchange.reader_ended();
        }
    }

    fn gate(&self) -> Option<Gate> {
        self.gate.clone()
    }
}

/// Adds the counters of the join in `plan` (itself, or below a projection). Its rows are counted where they leave a slot.
fn add_metrics(plan: &Arc<dyn ExecutionPlan>, to: &ExecutionPlanMetricsSet) {
    let join = if plan.is::<HashJoinExec>() { plan } else { plan.children().into_iter().next().unwrap_or(plan) };
    for metric in join.metrics().iter().flat_map(MetricsSet::iter) {
        match metric.value() {
            MetricValue::OutputRows(_) | MetricValue::StartTimestamp(_) | MetricValue::EndTimestamp(_) => {}
            value => to.register(Arc::new(Metric::new(value.clone(), None))),
        }
    }
}
