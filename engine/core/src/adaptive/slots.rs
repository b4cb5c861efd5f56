//! Slots that take tasks from one queue: an idle one helps with what is left.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::{Stream, StreamExt};

use super::governor::{Gate, Pass};
use crate::cpu;

/// A number for an operator that runs tasks, unique within the process.
pub(super) fn number() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Relaxed)
}

/// Where slots get their tasks.
pub(super) trait TaskSource: Send + Sync {
    /// The next task; none where all are taken.
    fn take(&self, context: &Arc<TaskContext>) -> Result<Option<Task>>;

    /// A task of `unit` has ended and its stream is gone.
    fn ended(&self, unit: usize, metrics: &ExecutionPlanMetricsSet);

    /// Where its slots ask before they take a task; none where they need not.
    fn gate(&self) -> Option<Gate>;
}

/// A task for a slot.
pub(super) struct Task {
    pub(super) unit: usize,
    pub(super) stream: SendableRecordBatchStream,
}

/// A task that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskDone {
    pub(crate) unit: usize,
    pub(crate) slot: usize,
    /// Thread CPU time of the task: reading, building (if it was first), probing.
    pub(crate) cpu: Duration,
    pub(crate) rows_out: u64,
}

/// One output partition: the rows of the tasks that it takes.
pub(super) struct Slot {
    slot: usize,
    schema: SchemaRef,
    source: Arc<dyn TaskSource>,
    context: Arc<TaskContext>,
    metrics: ExecutionPlanMetricsSet,
    done: Arc<Mutex<Vec<TaskDone>>>,
    rows: Count,
    tasks: Count,
    current: Option<Current>,
    pass: Pass,
}

struct Current {
    task: Task,
    cpu: Duration,
    rows_out: u64,
}

impl Slot {
    pub(super) fn new(
        slot: usize,
        schema: SchemaRef,
        source: Arc<dyn TaskSource>,
        context: Arc<TaskContext>,
        metrics: &ExecutionPlanMetricsSet,
        done: Arc<Mutex<Vec<TaskDone>>>,
    ) -> Self {
        let rows = MetricBuilder::new(metrics).output_rows(slot);
        let tasks = MetricBuilder::new(metrics).counter("tasks", slot);
        let pass = Pass::new(source.gate(), slot);
        Self { slot, schema, source, context, metrics: metrics.clone(), done, rows, tasks, current: None, pass }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            let start = cpu::thread();
            let current = match &mut self.current {
                Some(current) => current,
                none => {
                    ready!(self.pass.poll(cx));
                    let Some(task) = self.source.take(&self.context)? else {
                        self.pass.leave();
                        return Poll::Ready(None);
                    };
                    none.insert(Current { task, cpu: Duration::ZERO, rows_out: 0 })
                }
            };
            let polled = current.task.stream.poll_next_unpin(cx);
            current.cpu += cpu::thread().saturating_sub(start);
            match ready!(polled) {
                Some(Ok(batch)) => {
                    current.rows_out += batch.num_rows() as u64;
                    self.pass.moved();
                    self.rows.add(batch.num_rows());
                    // Tasks may call a column by another nullability or name.
                    let batch = if batch.schema_ref() == &self.schema {
                        batch
                    } else {
                        RecordBatch::try_new(Arc::clone(&self.schema), batch.columns().to_vec())?
                    };
                    return Poll::Ready(Some(Ok(batch)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let Some(Current { task: Task { unit, stream }, cpu, rows_out }) = self.current.take() else {
                        continue;
                    };
                    drop(stream);
                    self.source.ended(unit, &self.metrics);
                    self.pass.ended();
                    self.tasks.add(1);
                    let done = TaskDone { unit, slot: self.slot, cpu, rows_out };
                    self.done.lock().unwrap_or_else(PoisonError::into_inner).push(done);
                }
            }
        }
    }
}

impl Stream for Slot {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl RecordBatchStream for Slot {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
