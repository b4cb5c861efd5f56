//! Exchanges as a whole: what is written is read back, from memory and from disk.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::Int64Type;
use datafusion::common::ScalarValue;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;

use super::bucketing::Scratch;
use super::facts::{Collector, merge};
use super::*;
use crate::exchange::slices::{Slice, split, whole};

const ROWS: i64 = 60_000;

/// Two partitions; 40 % of the rows have key 7.
fn plan() -> Arc<dyn ExecutionPlan> {
    let part = |from: i64| -> Vec<RecordBatch> {
        (from..from + ROWS / 2)
            .step_by(1000)
            .map(|start| {
                let rows: Vec<i64> = (start..start + 1000).collect();
                let keys: Int64Array = rows
                    .iter()
                    .map(|row| if row % 5 < 2 { Some(7) } else { (row % 11 != 0).then_some(row / 3) })
                    .collect();
                let texts: StringViewArray =
                    rows.iter().map(|row| Some(format!("a text too long to be inlined, number {row}"))).collect();
                RecordBatch::try_from_iter([
                    ("key", Arc::new(keys) as ArrayRef),
                    ("row", Arc::new(Int64Array::from(rows))),
                    ("text", Arc::new(texts)),
                ])
                .unwrap()
            })
            .collect()
    };
    let partitions = [part(0), part(ROWS / 2)];
    let schema = partitions[0][0].schema();
    MemorySourceConfig::try_new_exec(&partitions, schema, None).unwrap()
}

fn context(pool: &Arc<dyn MemoryPool>) -> Arc<TaskContext> {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::clone(pool)).build_arc().unwrap();
    Arc::new(TaskContext::default().with_runtime(runtime))
}

async fn written(pool: &Arc<dyn MemoryPool>, budget: usize) -> Exchange {
    let bucketing = Bucketing { keys: vec![Arc::new(Column::new("key", 0))], buckets: 32, divisor: 1, ranges: None };
    let spec = WriteSpec { id: 3, bucketing, budget: Budget::new(budget), bounds: false };
    write(plan(), context(pool), spec).await.unwrap()
}

async fn rows(exchange: &Exchange, slice: Slice) -> Vec<i64> {
    let batches: Vec<RecordBatch> = exchange.read(slice).try_collect().await.unwrap();
    batches.iter().flat_map(|b| b.column(1).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn rows_come_back_from_memory_and_from_disk() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
    let in_memory = written(&pool, 1 << 30).await;
    assert_eq!(in_memory.cost.spill_count, 0);
    assert!(pool.reserved() > 0);
    // Nothing but what a writer may keep without asking.
    let on_disk = written(&pool, 0).await;
    assert!(on_disk.cost.spill_count >= 2, "{:?}", on_disk.cost);
    assert_eq!(in_memory.rows(), on_disk.rows());
    let mut all = Vec::new();
    for (bucket, count) in in_memory.rows().into_iter().enumerate() {
        let expected = rows(&in_memory, whole(bucket, count)).await;
        assert_eq!(expected.len() as u64, count);
        assert_eq!(rows(&on_disk, whole(bucket, count)).await, expected, "bucket {bucket}");
        let mut slices = Vec::new();
        for slice in split(bucket, count, 5) {
            slices.extend(rows(&on_disk, slice).await);
        }
        assert_eq!(slices, expected, "bucket {bucket} in slices");
        all.extend(expected);
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..ROWS));
    drop((in_memory, on_disk));
    assert_eq!(pool.reserved(), 0);
}

/// Rows of buckets with even numbers lie in one store, the others in another.
#[derive(Debug)]
struct TakingTurns([Arc<dyn ExchangeStore>; 2]);

impl ExchangeStore for TakingTurns {
    fn read(self: Arc<Self>, slice: Slice) -> BoxStream<'static, Result<RecordBatch>> {
        Arc::clone(&self.0[slice.bucket % 2]).read(slice)
    }
}

#[tokio::test]
async fn what_is_read_holds_little_more_than_it_shows() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
    let (exchange, on_disk) = (written(&pool, 1 << 30).await, written(&pool, 0).await);
    let stores = [&exchange, &on_disk].map(|exchange| exchange.store.lock().unwrap().take().unwrap());
    *exchange.store.lock().unwrap() = Some(Arc::new(TakingTurns(stores)));
    let reader = ExchangeReaderExec::canonical(Arc::new(exchange), 1);
    let batches: Vec<RecordBatch> = reader.execute(0, context(&pool)).unwrap().try_collect().await.unwrap();
    let mut rows = 0;
    for batch in batches {
        let texts = batch.column(2).as_string_view();
        let held: usize = texts.data_buffers().iter().map(arrow::buffer::Buffer::capacity).sum();
        let shown = texts.total_buffer_bytes_used();
        assert!(held <= 2 * shown, "{held} bytes held, {shown} shown");
        rows += batch.num_rows();
    }
    assert_eq!(rows as i64, ROWS);
}

#[tokio::test]
async fn facts_about_keys_are_near_the_truth() {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
    let facts = written(&pool, 1 << 30).await.facts;
    assert_eq!(facts.rows, ROWS as u64);
    let is_hot = |row: &i64| row % 5 < 2;
    assert_eq!(facts.null_rows, (0..ROWS).filter(|row| !is_hot(row) && row % 11 == 0).count() as u64);
    let distinct = (0..ROWS)
        .filter(|row| !is_hot(row) && row % 11 != 0)
        .map(|row| row / 3)
        .collect::<std::collections::HashSet<_>>();
    let expected = distinct.len() as f64;
    assert!((facts.distinct as f64 / expected - 1.0).abs() < 0.05, "{} of {expected}", facts.distinct);
    let hottest = &facts.heavy[0];
    assert!((hottest.share - 0.4).abs() < 0.02, "{hottest:?}");
    assert_eq!(hottest.key.as_ref().unwrap()[0].to_string(), "7");
}

/// An exchange whose rows are in files below `folder`.
async fn written_below(folder: &std::path::Path) -> Exchange {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::clone(&pool))
        .with_disk_manager_builder(
            datafusion::execution::disk_manager::DiskManagerBuilder::default()
                .with_mode(datafusion::execution::disk_manager::DiskManagerMode::Directories(vec![folder.to_owned()])),
        )
        .build_arc()
        .unwrap();
    let context = Arc::new(TaskContext::default().with_runtime(runtime));
    let bucketing = Bucketing { keys: vec![Arc::new(Column::new("key", 0))], buckets: 4, divisor: 1, ranges: None };
    let spec = WriteSpec { id: 0, bucketing, budget: Budget::new(0), bounds: false };
    write(plan(), context, spec).await.unwrap()
}

#[tokio::test]
async fn a_lost_file_is_an_error_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let exchange = written_below(folder.path()).await;
    let files: Vec<_> = walk(folder.path());
    assert!(!files.is_empty());
    for (i, file) in files.iter().enumerate() {
        match i % 2 {
            0 => std::fs::remove_file(file).unwrap(),
            _ => std::fs::write(file, b"something else").unwrap(),
        }
    }
    for (bucket, count) in exchange.rows().into_iter().enumerate() {
        let error = exchange.read(whole(bucket, count)).try_collect::<Vec<_>>().await.unwrap_err().to_string();
        assert!(error.contains("cannot read back"), "{error}");
    }
    drop(exchange);
    // Threads that read have theirs open until they notice that nobody listens.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !walk(folder.path()).is_empty() {
        assert!(std::time::Instant::now() < until, "files are left behind");
        tokio::task::yield_now().await;
    }
}

/// A byte that has changed is noticed wherever it is, before rows are made of it.
#[tokio::test]
async fn a_changed_byte_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let exchange = written_below(folder.path()).await;
    let read = async || {
        let (mut rows, mut errors) = (0, Vec::new());
        for (bucket, count) in exchange.rows().into_iter().enumerate() {
            match exchange.read(whole(bucket, count)).try_collect::<Vec<_>>().await {
                Ok(batches) => rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>(),
                Err(error) => errors.push(error.to_string()),
            }
        }
        (rows, errors)
    };
    assert_eq!(read().await, (ROWS as usize, Vec::new()));
    let file = walk(folder.path()).swap_remove(0);
    let bytes = std::fs::read(&file).unwrap();
    let step = bytes.len() / 97;
    for at in (0..bytes.len()).step_by(step) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&file, changed).unwrap();
        let (_, errors) = read().await;
        assert!(errors.len() == 1 && errors[0].contains("it has changed"), "byte {at}: {errors:?}");
        std::fs::write(&file, &bytes).unwrap();
    }
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(read().await.1.len(), 1, "cut short");
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(read().await, (ROWS as usize, Vec::new()));
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { found.extend(walk(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

#[test]
fn bounds_and_few_keys_are_exact() {
    let collect = |parts: Vec<ArrayRef>| {
        let collector = |key: ArrayRef| {
            let mut collector = Collector::new(1, vec![key.data_type().clone()]).unwrap();
            // In two batches.
            let half = key.len() / 2;
            for key in [key.slice(0, half), key.slice(half, key.len() - half)] {
                let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("key", 0));
                let bucketing = Bucketing { keys: vec![column], buckets: 8, divisor: 1, ranges: None };
                let batch = RecordBatch::try_from_iter([("key", key)]).unwrap();
                let mut scratch = Scratch::default();
                let keys = bucketing.hash(&batch, &mut scratch).unwrap();
                let chunk = bucketing.divide(&batch, &mut scratch).unwrap();
                collector.observe(&keys, &scratch, &chunk).unwrap();
            }
            collector
        };
        let facts = merge(parts.into_iter().map(collector).collect()).unwrap();
        let text = |value: &ScalarValue| value.to_string();
        let bounds = facts.bounds[0].as_ref().map(|(min, max)| format!("{min}..{max}"));
        (bounds, facts.values.map(|values| values.iter().map(text).collect::<Vec<_>>().join(" ")))
    };
    let ints = |values: &[Option<i64>]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
    let said = |bounds: &str, values: Option<&str>| (Some(bounds.to_owned()), values.map(str::to_owned));
    let few = vec![ints(&[Some(3), None, Some(-5), Some(3)]), ints(&[]), ints(&[None]), ints(&[Some(9)])];
    assert_eq!(collect(few), said("-5..9", Some("-5 3 9")));
    assert_eq!(collect(vec![ints(&[None, None])]), said("NULL..NULL", Some("")));
    let many = |from: i64, to: i64| ints(&(from..to).map(Some).collect::<Vec<_>>());
    let listed: Vec<String> = (0..64).map(|i| i.to_string()).collect();
    assert_eq!(collect(vec![many(0, 40), many(30, 64)]), said("0..63", Some(&listed.join(" "))));
    assert_eq!(collect(vec![many(0, 40), many(30, 65)]), said("0..64", None));
    assert_eq!(collect(vec![many(-100, 100)]), said("-100..99", None));
    let texts = Arc::new(StringArray::from(vec![Some("b"), None, Some("a")]));
    assert_eq!(collect(vec![texts]), said("a..b", None));
    let days = Arc::new(Date32Array::from(vec![Some(1), Some(0)]));
    assert_eq!(collect(vec![days]), said("1970-01-01..1970-01-02", Some("1970-01-01 1970-01-02")));
    let floats = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN]));
    assert_eq!(collect(vec![floats]), (None, None), "zero is less than zero there");
}
