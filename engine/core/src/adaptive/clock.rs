//! CPU time of the tasks that feed a repartitioning within a plan: those that the plan's own partitions only wait for.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, replace_children_if_necessary,
};
use futures::{Stream, StreamExt};

use crate::cpu;

/// Clocks of a plan, by task.
#[derive(Debug, Clone, Default)]
pub(super) struct Clocks(Arc<Mutex<Vec<Arc<AtomicU64>>>>);

impl Clocks {
    fn add(&self) -> Arc<AtomicU64> {
        let clock = Arc::new(AtomicU64::new(0));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&clock));
        clock
    }

    /// CPU time by task so far.
    pub(super) fn read(&self) -> Vec<Duration> {
        let clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.iter().map(|clock| Duration::from_nanos(clock.load(Relaxed))).collect()
    }
}

/// `plan` with a clock below each operator whose inputs run as tasks of their own. It must not be optimised after that.
pub(super) fn wrap(plan: Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, Clocks)> {
    let clocks = Clocks::default();
    let plan = plan
        .transform_up(|node| {
            let spawns = node.is::<RepartitionExec>() || node.is::<CoalescePartitionsExec>();
            let children = node.children();
            let [input] = children.as_slice() else { return Ok(Transformed::no(node)) };
            if !spawns || input.output_partitioning().partition_count() < 2 {
                return Ok(Transformed::no(node));
            }
            let input = Arc::new(ClockExec { input: Arc::clone(input), clocks: clocks.clone() });
            Ok(Transformed::yes(replace_children_if_necessary(node, vec![input])?))
        })
        .data()?;
    Ok((plan, clocks))
}

/// Passes the rows of its input on and adds up what its polls take.
#[derive(Debug)]
struct ClockExec {
    input: Arc<dyn ExecutionPlan>,
    clocks: Clocks,
}

impl DisplayAs for ClockExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockExec")
    }
}

impl ExecutionPlan for ClockExec {
    fn name(&self) -> &str {
        "ClockExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return datafusion::common::internal_err!("a clock has one input") };
        Ok(Arc::new(Self { input, clocks: self.clocks.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stream = self.input.execute(partition, context)?;
        Ok(Box::pin(ClockStream { stream, clock: self.clocks.add() }))
    }
}

struct ClockStream {
    stream: SendableRecordBatchStream,
    clock: Arc<AtomicU64>,
}

impl Stream for ClockStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let start = cpu::thread();
        let polled = self.stream.poll_next_unpin(cx);
        let took = u64::try_from(cpu::thread().saturating_sub(start).as_nanos()).unwrap_or(u64::MAX);
        self.clock.fetch_add(took, Relaxed);
        polled
    }
}

impl RecordBatchStream for ClockStream {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}
