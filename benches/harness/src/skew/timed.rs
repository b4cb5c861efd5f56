//! CPU time of the tasks of a stage of plain DataFusion, by the clock of the thread that polls them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode, SortMergeJoinExec};
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, displayable,
};
use futures::{Stream, StreamExt};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What a stage took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Stage {
    /// Its topmost operator.
    pub(crate) operator: String,
    /// Thread CPU time by partition in micro-seconds: the operator, and what lies between it and the rows that were hashed.
    pub(crate) task_cpu_us: Vec<u64>,
}

/// A stage that runs.
#[derive(Debug)]
pub(crate) struct Timed {
    operator: String,
    nanos: Arc<[AtomicU64]>,
}

impl Timed {
    /// What it took so far.
    pub(crate) fn read(&self) -> Stage {
        let task_cpu_us = self.nanos.iter().map(|nanos| nanos.load(Relaxed) / 1_000).collect();
        Stage { operator: self.operator.clone(), task_cpu_us }
    }
}

/// `plan` with a clock around its topmost join, window or aggregate over hashed rows; none where it has none. `plan` must not be
/// optimised after that.
pub(crate) fn wrap(plan: Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, Option<Timed>)> {
    let mut found = None;
    let plan = plan.transform_down(|node| {
        if found.is_some() || !takes_hashed_rows(&node) {
            return Ok(Transformed::no(node));
        }
        let nanos: Arc<[AtomicU64]> =
            (0..node.output_partitioning().partition_count()).map(|_| AtomicU64::new(0)).collect();
        let operator = displayable(node.as_ref()).one_line().to_string().trim().to_owned();
        found = Some(Timed { operator, nanos: Arc::clone(&nanos) });
        let clock: Arc<dyn ExecutionPlan> = Arc::new(ClockExec { input: node, nanos });
        Ok(Transformed::new(clock, true, TreeNodeRecursion::Stop))
    })?;
    Ok((plan.data, found))
}

fn takes_hashed_rows(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let join = plan.downcast_ref::<HashJoinExec>().is_some_and(|j| *j.partition_mode() == PartitionMode::Partitioned);
    let aggregate = plan
        .downcast_ref::<AggregateExec>()
        .is_some_and(|a| matches!(a.mode(), AggregateMode::FinalPartitioned | AggregateMode::SinglePartitioned));
    join || aggregate
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<WindowAggExec>()
        || plan.is::<BoundedWindowAggExec>()
}

/// Passes the rows of its input on and adds up what its polls take.
#[derive(Debug)]
struct ClockExec {
    input: Arc<dyn ExecutionPlan>,
    nanos: Arc<[AtomicU64]>,
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

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.into_iter().next() else {
            return datafusion::common::internal_err!("a clock has one input");
        };
        Ok(Arc::new(Self { input, nanos: Arc::clone(&self.nanos) }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stream = self.input.execute(partition, context)?;
        Ok(Box::pin(ClockStream { stream, partition, nanos: Arc::clone(&self.nanos) }))
    }
}

struct ClockStream {
    stream: SendableRecordBatchStream,
    partition: usize,
    nanos: Arc<[AtomicU64]>,
}

impl Stream for ClockStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let start = thread_nanos();
        let polled = self.stream.poll_next_unpin(cx);
        if let Some(nanos) = self.nanos.get(self.partition) {
            nanos.fetch_add(thread_nanos().saturating_sub(start), Relaxed);
        }
        polled
    }
}

impl RecordBatchStream for ClockStream {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}

/// CPU time of the calling thread so far.
fn thread_nanos() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
