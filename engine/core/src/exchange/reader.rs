//! Gives the rows of an exchange to the stage that reads it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};

use super::Exchange;
use super::segment::Coalescer;
use super::slices::{self, Assignment};

/// A leaf over an exchange. Its partitions are `Hash(keys, n)` for the planner only in the canonical layout; any other assignment is given
/// to all inputs of an operator together, after which that operator's inputs are not planned again.
#[derive(Debug, Clone)]
pub(crate) struct ExchangeReaderExec {
    exchange: Arc<Exchange>,
    assignment: Arc<Assignment>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// Once a plan is not optimised any more, the plan that filled the exchange shows as the input: records and reports see one tree.
    shows_stage: Arc<AtomicBool>,
    /// Partitions that have not ended, where it tells the exchange that it has read it.
    left: Arc<AtomicUsize>,
}

impl ExchangeReaderExec {
    /// All rows in `n` partitions, in the canonical layout; `n` divides the number of buckets.
    pub(crate) fn canonical(exchange: Arc<Exchange>, n: usize) -> Self {
        let assignment = slices::canonical(&exchange.rows(), n);
        let partitioning = Partitioning::Hash(exchange.bucketing.keys.clone(), n);
        Self::new(exchange, assignment, partitioning)
    }

    /// All rows of an exchange that is not divided, in `n` partitions of the same size.
    pub(crate) fn even(exchange: Arc<Exchange>, n: usize) -> Self {
        let rows = exchange.size().rows;
        let assignment = slices::split(0, rows, n).into_iter().map(|slice| vec![slice]).collect();
        Self::assigned(exchange, assignment)
    }

    /// The rows of `assignment`, in a layout that the planner knows nothing of.
    pub(crate) fn assigned(exchange: Arc<Exchange>, assignment: Assignment) -> Self {
        let partitioning = Partitioning::UnknownPartitioning(assignment.len());
        Self::new(exchange, assignment, partitioning)
    }

    /// Other rows of the same exchange, counted by the same metrics.
    pub(crate) fn reassigned(&self, assignment: Assignment) -> Self {
        Self { metrics: self.metrics.clone(), ..Self::assigned(Arc::clone(&self.exchange), assignment) }
    }

    fn new(exchange: Arc<Exchange>, assignment: Assignment, partitioning: Partitioning) -> Self {
        let equivalences = EquivalenceProperties::new(Arc::clone(&exchange.schema));
        let properties =
            PlanProperties::new(equivalences, partitioning, EmissionType::Incremental, Boundedness::Bounded)
                .with_scheduling_type(SchedulingType::Cooperative);
        Self {
            exchange,
            assignment: Arc::new(assignment),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            shows_stage: Arc::default(),
            left: Arc::default(),
        }
    }

    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// From now on the plan that filled the exchange shows as the input.
    pub(crate) fn show_stage(&self) {
        self.shows_stage.store(true, Relaxed);
    }

    /// Once all its partitions have ended, each of which runs once, it has read the exchange.
    pub(crate) fn tells(&self) {
        self.left.store(self.assignment.len(), Relaxed);
    }

    /// The plan that filled the exchange, if all its rows are read.
    pub(crate) fn whole_stage(&self) -> Option<Arc<dyn ExecutionPlan>> {
        (self.rows(None) == self.exchange.size().rows).then(|| Arc::clone(&self.exchange.stage))
    }

    fn rows(&self, partition: Option<usize>) -> u64 {
        let rows = |slices: &Vec<slices::Slice>| slices.iter().map(|s| s.rows.end - s.rows.start).sum::<u64>();
        match partition {
            Some(partition) => self.assignment.get(partition).map_or(0, rows),
            None => self.assignment.iter().map(rows).sum(),
        }
    }
}

impl DisplayAs for ExchangeReaderExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.exchange.size();
        write!(
            f,
            "ExchangeReaderExec: exchange={}, buckets={}, partitions={}, rows={}, bytes={}",
            self.exchange.id,
            self.exchange.sizes.len(),
            self.properties.partitioning,
            size.rows,
            size.bytes
        )?;
        match self.exchange.cost.spilled_bytes {
            0 => Ok(()),
            bytes => write!(f, ", on disk={bytes}"),
        }
    }
}

impl ExecutionPlan for ExchangeReaderExec {
    fn name(&self) -> &str {
        "ExchangeReaderExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        if self.shows_stage.load(Relaxed) { vec![&self.exchange.stage] } else { Vec::new() }
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn dynamic_expressions_produced(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.exchange.taught()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let slices = self.assignment.get(partition).cloned().unwrap_or_default();
        let exchange = Arc::clone(&self.exchange);
        let schema = Arc::clone(&exchange.schema);
        let ends = Ends { exchange: Arc::clone(&exchange), left: Arc::clone(&self.left) };
        let batches = stream::iter(slices).flat_map(move |slice| exchange.read(slice)).boxed();
        let batch_rows = context.session_config().batch_size();
        let coalescer = Coalescer::new(Arc::clone(&schema), batch_rows);
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        Ok(Box::pin(cooperative(Coalesced { schema, batches, coalescer, ends, ended: false, baseline })))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(self.exchange.statistics_of(self.rows(args.partition()), args.partition().is_none())))
    }
}

/// What a partition does when it has ended.
struct Ends {
    exchange: Arc<Exchange>,
    left: Arc<AtomicUsize>,
}

impl Ends {
    fn one(&self) {
        if self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) == Ok(1) {
            self.exchange.reader_ended();
        }
    }
}

/// Slices of buckets are small: puts them together to batches of the session's size.
struct Coalesced {
    schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch>>,
    coalescer: Coalescer,
    ends: Ends,
    ended: bool,
    baseline: BaselineMetrics,
}

impl Coalesced {
    fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        loop {
            if let Some(batch) = self.coalescer.next_completed()? {
                return Poll::Ready(Some(Ok(batch)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let batch = ready!(self.batches.poll_next_unpin(cx));
            let _timer = self.baseline.elapsed_compute().timer();
            match batch {
                Some(Ok(batch)) => self.coalescer.push(batch)?,
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.ended = true;
                    // What it held of the exchange goes first.
                    self.batches = stream::empty().boxed();
                    self.ends.one();
                    self.coalescer.finish()?;
                }
            }
        }
    }
}

impl Stream for Coalesced {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.poll_batch(cx);
        self.baseline.record_poll(polled)
    }
}

impl RecordBatchStream for Coalesced {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
