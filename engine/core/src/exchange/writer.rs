//! Runs a plan into an exchange.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::runtime::JoinSet;
use datafusion::common::{ScalarValue, Statistics};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::statistics::StatisticsContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, StatisticsArgs};
use futures::{StreamExt, TryStreamExt};

use super::bucketing::{Bucketing, Scratch};
use super::facts::{self, Collector};
use super::segment::{Coalescer, Run, Segment, compact};
use super::slices;
use super::store::{ExchangeStore, LocalStore};
use super::{Exchange, Size, WriteCost};
use crate::cpu::{self, CpuTimed};

/// Bytes that a writer may keep beyond what the pool gives it, so that a full pool does not make it write a file a batch.
const SLACK: usize = 4 << 20;

/// Rows that a bucket should have in a chunk, on average: a slice of fewer costs more than its rows.
const ROWS_A_BUCKET: usize = 128;

/// Most rows of a chunk.
const MAX_CHUNK: usize = 64 << 10;

/// Heavy keys whose values are looked up.
const MAX_NAMED: usize = 8;

/// Batches in which a heavy key is looked for.
const BATCHES_SEARCHED: usize = 32;

/// Bytes that the exchanges of a query may keep in memory together.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    fn take(&self, bytes: usize) -> bool {
        self.used.fetch_update(Relaxed, Relaxed, |used| Some(used + bytes).filter(|used| *used <= self.limit)).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// How to write an exchange.
#[derive(Debug, Clone)]
pub(crate) struct WriteSpec {
    pub(crate) id: usize,
    pub(crate) bucketing: Bucketing,
    pub(crate) budget: Arc<Budget>,
    /// Smallest and largest keys are wanted.
    pub(crate) bounds: bool,
}

/// Runs all partitions of `plan`, each as a task of its own, and keeps their rows. Dropping the future ends the tasks and frees all.
pub(crate) async fn write(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    spec: WriteSpec,
) -> Result<Exchange> {
    let start = Instant::now();
    let partitions = plan.output_partitioning().partition_count();
    let mut tasks = JoinSet::new();
    for partition in 0..partitions {
        let stream = plan.execute(partition, Arc::clone(&context))?;
        let writer = Writer::new(plan.schema(), &context, &spec)?;
        tasks.spawn(CpuTimed::new(async move { (partition, writer.run(stream).await) }));
    }
    let mut written: Vec<Option<(Writer, Duration)>> = (0..partitions).map(|_| None).collect();
    while let Some(done) = tasks.join_next().await {
        let ((partition, writer), cpu) = done.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
        written[partition] = Some((writer?, cpu));
    }
    let mut sizes = vec![Size::default(); spec.bucketing.buckets];
    let (mut segments, mut held, mut collectors) = (Vec::new(), Vec::new(), Vec::new());
    let mut cost = WriteCost::default();
    for (writer, cpu) in written.into_iter().flatten() {
        cost.task_cpu.push(cpu);
        cost.exchange_cpu += writer.exchange_cpu;
        cost.facts_cpu += writer.facts_cpu;
        cost.spill_count += writer.segment.runs.len() as u64;
        cost.spilled_bytes += writer.segment.runs.iter().map(|run| run.bytes).sum::<u64>();
        for (sum, size) in sizes.iter_mut().zip(&writer.sizes) {
            sum.rows += size.rows;
            sum.bytes += size.bytes;
        }
        segments.push(writer.segment);
        held.push(writer.held);
        collectors.push(writer.collector);
    }
    let schema = plan.schema();
    let expected = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new());
    let columns = expected
        .map_or_else(|_| Statistics::unknown_column(&schema), |s| s.as_ref().clone().to_inexact().column_statistics);
    let facts = facts::merge(collectors)?;
    let store: Arc<dyn ExchangeStore> = Arc::new(LocalStore { schema: Arc::clone(&schema), segments, _held: held });
    cost.wall = start.elapsed();
    let mut exchange = Exchange {
        id: spec.id,
        schema,
        stage: plan,
        bucketing: spec.bucketing,
        sizes,
        facts,
        columns,
        cost,
        store: Mutex::new(Some(store)),
        readers: AtomicUsize::new(0),
        taught: Mutex::default(),
    };
    name_heavy_keys(&mut exchange).await?;
    Ok(exchange)
}

/// Finds the values of heavy keys among the first rows of their buckets; a heavy key is not far down.
async fn name_heavy_keys(exchange: &mut Exchange) -> Result<()> {
    let mut scratch = Scratch::default();
    let mut heavy = std::mem::take(&mut exchange.facts.heavy);
    for hitter in heavy.iter_mut().take(MAX_NAMED) {
        let bucket = exchange.bucketing.bucket_of(hitter.hash);
        let rows = exchange.sizes.get(bucket).map_or(0, |size| size.rows);
        let mut batches = exchange.read(slices::whole(bucket, rows)).take(BATCHES_SEARCHED);
        while let Some(batch) = batches.try_next().await? {
            let keys = exchange.bucketing.hash(&batch, &mut scratch)?;
            if let Some(row) = scratch.hashes.iter().position(|&hash| hash == hitter.hash) {
                let values = keys.iter().map(|key| ScalarValue::try_from_array(key, row)).collect::<Result<_>>()?;
                hitter.key = Some(values);
                break;
            }
        }
    }
    exchange.facts.heavy = heavy;
    Ok(())
}

/// Memory of one writer, out of the pool and of the budget of its query.
pub(crate) struct Held {
    reservation: MemoryReservation,
    budget: Arc<Budget>,
    bytes: usize,
}

impl Held {
    fn try_grow(&mut self, bytes: usize) -> bool {
        if !self.budget.take(bytes) {
            return false;
        }
        if self.reservation.try_grow(bytes).is_err() {
            self.budget.give(bytes);
            return false;
        }
        self.bytes += bytes;
        true
    }

    fn free(&mut self) {
        self.reservation.free();
        self.budget.give(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.free();
    }
}

/// Takes the rows of one partition.
struct Writer {
    schema: SchemaRef,
    context: Arc<TaskContext>,
    bucketing: Bucketing,
    scratch: Scratch,
    collector: Collector,
    segment: Segment,
    sizes: Vec<Size>,
    held: Held,
    /// Puts batches together, so that the rows of a bucket in a chunk are not too few to be worth looking at.
    coalescer: Coalescer,
    /// Bytes in memory beyond `held`.
    loose: usize,
    exchange_cpu: Duration,
    facts_cpu: Duration,
}

impl Writer {
    fn new(schema: SchemaRef, context: &Arc<TaskContext>, spec: &WriteSpec) -> Result<Self> {
        let reservation = MemoryConsumer::new(format!("exchange {}", spec.id)).register(context.memory_pool());
        let chunk_rows =
            (spec.bucketing.buckets * ROWS_A_BUCKET).clamp(context.session_config().batch_size(), MAX_CHUNK);
        let types = match spec.bounds {
            true => spec.bucketing.keys.iter().map(|key| key.data_type(&schema)).collect::<Result<_>>()?,
            false => Vec::new(),
        };
        Ok(Self {
            context: Arc::clone(context),
            bucketing: spec.bucketing.clone(),
            scratch: Scratch::default(),
            collector: Collector::new(spec.bucketing.keys.len(), types)?,
            segment: Segment::default(),
            sizes: vec![Size::default(); spec.bucketing.buckets],
            held: Held { reservation, budget: Arc::clone(&spec.budget), bytes: 0 },
            coalescer: Coalescer::new(Arc::clone(&schema), chunk_rows),
            schema,
            loose: 0,
            exchange_cpu: Duration::ZERO,
            facts_cpu: Duration::ZERO,
        })
    }

    async fn run(mut self, mut stream: SendableRecordBatchStream) -> Result<Self> {
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            if batch.num_rows() > 0 {
                let start = cpu::thread();
                self.coalescer.push(compact(batch)?)?;
                self.push_completed()?;
                self.exchange_cpu += cpu::thread().saturating_sub(start);
            }
            // A scan in memory never waits: give others a turn.
            tokio::task::consume_budget().await;
        }
        let start = cpu::thread();
        self.coalescer.finish()?;
        self.push_completed()?;
        self.exchange_cpu += cpu::thread().saturating_sub(start);
        // The slack was for writing; what stays in memory is all accounted for.
        if self.loose > 0 && !self.held.try_grow(self.loose) {
            self.spill()?;
        }
        Ok(self)
    }

    fn push_completed(&mut self) -> Result<()> {
        while let Some(batch) = self.coalescer.next_completed()? {
            self.push(batch)?;
        }
        Ok(())
    }

    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let keys = self.bucketing.hash(&batch, &mut self.scratch)?;
        let chunk = self.bucketing.divide(&batch, &mut self.scratch)?;
        // Nothing waits here, so that wall time is CPU time; the thread's own clock would be a good part of what is measured.
        let start = Instant::now();
        // Of a bucket that is divided further, and of rows that have no key, nobody asks.
        if self.bucketing.ranges.is_none() && self.bucketing.divisor == 1 && !keys.is_empty() {
            self.collector.observe(&keys, &self.scratch, &chunk)?;
        }
        self.facts_cpu += start.elapsed();
        drop(keys);
        let bytes = chunk.batch.get_array_memory_size();
        let rows = chunk.batch.num_rows() as u64;
        for (bucket, size) in self.sizes.iter_mut().enumerate() {
            let taken = chunk.range(bucket).1 as u64;
            size.rows += taken;
            size.bytes += bytes as u64 * taken / rows;
        }
        self.segment.chunks.push(chunk);
        if !self.held.try_grow(bytes) {
            self.loose += bytes;
            if self.loose > SLACK {
                self.spill()?;
            }
        }
        Ok(())
    }

    /// Moves what is in memory to a file.
    fn spill(&mut self) -> Result<()> {
        let chunks = std::mem::take(&mut self.segment.chunks);
        let disk = &self.context.runtime_env().disk_manager;
        let batch_rows = self.context.session_config().batch_size();
        let run = Run::write(disk, &self.schema, &chunks, batch_rows)?;
        drop(chunks);
        self.segment.runs.push(Arc::new(run));
        self.held.free();
        self.loose = 0;
        Ok(())
    }
}
