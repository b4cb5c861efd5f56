//! An operator whose groups were divided: plans for its parts, whose partitions are tasks of one queue.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs};

use super::governor::{Gate, Governor};
use super::slots::{self, Slot, Task, TaskDone, TaskSource};

const NAME: &str = "PartsExec";

/// A plan and what its partitions are expected to take, in rows.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) weights: Vec<u64>,
}

/// Gives the rows that `template`, an aggregate or a window over a finished exchange, would give. Each group is whole in one partition of a
/// part, or the parts hold what makes its slices one result. To optimizer rules it is a leaf. An output partition is a slot.
#[derive(Debug)]
pub(super) struct PartsExec {
    /// The operator as planned; never run.
    template: Arc<dyn ExecutionPlan>,
    parts: Vec<Part>,
    /// CPU time of the tasks of stages that were run for its parts before.
    before: Vec<Duration>,
    /// Rows that it gives, where they are known.
    rows: Option<u64>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    queue: Arc<Queue>,
    done: Arc<Mutex<Vec<TaskDone>>>,
    /// Once its plan is not optimised any more, it stands for its template where records and reports look at it.
    settled: AtomicBool,
    number: u64,
}

impl PartsExec {
    pub(super) fn new(
        template: Arc<dyn ExecutionPlan>,
        parts: Vec<Part>,
        before: Vec<Duration>,
        rows: Option<u64>,
        slots: usize,
        gate: Option<(Arc<Governor>, usize)>,
    ) -> Self {
        let mut tasks: Vec<(u64, usize, usize)> = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            tasks.extend(part.weights.iter().enumerate().map(|(partition, &weight)| (weight, at, partition)));
        }
        tasks.sort_by_key(|&(weight, part, partition)| (std::cmp::Reverse(weight), part, partition));
        let slots = slots.min(tasks.len()).max(1);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(template.schema()),
            Partitioning::UnknownPartitioning(slots),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let gate = gate.map(|(governor, stage)| governor.gate(stage));
        let plans = parts.iter().map(|part| Arc::clone(&part.plan)).collect();
        let tasks = tasks.into_iter().map(|(_, part, partition)| (part, partition)).collect();
        Self {
            template,
            parts,
            before,
            rows,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            queue: Arc::new(Queue { plans, tasks: Mutex::new(tasks), gate }),
            done: Arc::default(),
            settled: AtomicBool::new(false),
            number: slots::number(),
        }
    }

    /// The operator that `plan` is, if it is one.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<&Self> {
        // Not by downcasting, which a settled one passes on to its template.
        (plan.name() == NAME).then(|| (plan.as_ref() as &dyn Any).downcast_ref::<Self>()).flatten()
    }

    /// Tells it from other operators of the process.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// From now on it shows as the operator that it stands for.
    pub(super) fn settle(&self) {
        self.settled.store(true, Relaxed);
    }

    /// CPU time of its tasks that have ended so far.
    pub(super) fn task_cpu(&self) -> Vec<Duration> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        self.before.iter().copied().chain(done.iter().map(|task| task.cpu)).collect()
    }
}

#[derive(Debug)]
struct Queue {
    plans: Vec<Arc<dyn ExecutionPlan>>,
    /// (part, partition), in the order in which they are taken.
    tasks: Mutex<VecDeque<(usize, usize)>>,
    /// Where its slots ask before they take a task.
    gate: Option<Gate>,
}

impl TaskSource for Queue {
    fn take(&self, context: &Arc<TaskContext>) -> Result<Option<Task>> {
        let next = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((part, partition)) = next else { return Ok(None) };
        Ok(Some(Task { unit: part, stream: self.plans[part].execute(partition, Arc::clone(context))? }))
    }

    fn ended(&self, _: usize, _: &ExecutionPlanMetricsSet) {}

    fn gate(&self) -> Option<Gate> {
        self.gate.clone()
    }
}

impl DisplayAs for PartsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: usize = self.parts.iter().map(|part| part.weights.len()).sum();
        let operator = self.template.name();
        write!(
            f,
            "{NAME}: of={operator}, parts={}, tasks={tasks}, stages before={}",
            self.parts.len(),
            self.before.len()
        )
    }
}

impl ExecutionPlan for PartsExec {
    fn name(&self) -> &str {
        NAME
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        self.settled.load(Relaxed).then_some(self.template.as_ref())
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        if self.settled.load(Relaxed) { self.template.children() } else { Vec::new() }
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let queue = Arc::clone(&self.queue) as Arc<dyn TaskSource>;
        let done = Arc::clone(&self.done);
        Ok(Box::pin(Slot::new(partition, self.template.schema(), queue, context, &self.metrics, done)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if args.partition().is_none()
            && let Some(rows) = self.rows
        {
            statistics.num_rows = Precision::Exact(rows as usize);
        }
        Ok(Arc::new(statistics))
    }
}
