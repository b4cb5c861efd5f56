use std::sync::Barrier;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::spill::SpillManager;
use datafusion::physical_plan::spill::spill_pool::{SpillPoolWriter, mpsc_channel};
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use futures::{StreamExt, TryStreamExt};

use super::*;
use crate::{Session, SessionConfig};

/// Far more than any of these needs: what has not come by then does not come.
const NEVER: Duration = Duration::from_secs(30);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn batch(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(values.into_iter().collect::<Int64Array>())]).unwrap()
}

fn session(folder: &Path) -> Session {
    let config = SessionConfig {
        memory_limit: Some(16 << 20),
        slots: Some(2),
        spill_dir: folder.to_owned(),
        batch_size: Some(256),
        ..SessionConfig::default()
    };
    Session::new(config).unwrap()
}

/// The queue of an exchange over files of `factory`.
fn queue(factory: impl TempFileFactory + 'static, file_size: usize) -> (SpillPoolWriter, SendableRecordBatchStream) {
    let disk = DiskManagerBuilder::default().with_temp_file_factory(Arc::new(factory));
    let runtime = RuntimeEnvBuilder::new().with_disk_manager_builder(disk).build_arc().unwrap();
    let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
    mpsc_channel(file_size, Arc::new(SpillManager::new(runtime, metrics, schema())))
}

/// Files whose first writes wait for each other, so that as many as the barrier counts are open at once.
struct Meeting {
    files: SpillFiles,
    barrier: Arc<Barrier>,
}

struct MeetingFile(Arc<dyn SpillFile>, Arc<Barrier>);

struct MeetingWriter(Box<dyn SpillWriter>, Option<Arc<Barrier>>);

impl TempFileFactory for Meeting {
    fn create_temp_file(&self, description: &str) -> Result<Arc<dyn SpillFile>> {
        Ok(Arc::new(MeetingFile(self.files.create_temp_file(description)?, Arc::clone(&self.barrier))))
    }
}

impl SpillFile for MeetingFile {
    fn size(&self) -> Option<u64> {
        self.0.size()
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        self.0.read_stream()
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(MeetingWriter(self.0.open_writer()?, Some(Arc::clone(&self.1)))))
    }
}

impl Write for MeetingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(barrier) = self.1.take() {
            barrier.wait();
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl SpillWriter for MeetingWriter {
    fn finish(&mut self) -> Result<()> {
        self.0.finish()
    }
}

/// Two tasks of an exchange spill a batch each at the same moment and then wait at the gate, as writers do until the reader has
/// taken what there is. How many of the two batches the reader gets.
async fn read_of_two(file_size: usize, patience: Duration) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let meeting = Meeting { files: SpillFiles::new(folder.path()), barrier: Arc::new(Barrier::new(2)) };
    let (writer, mut reader) = queue(meeting, file_size);
    let sinks = [writer.new_sink(), writer.new_sink()];
    std::thread::scope(|scope| {
        for (sink, value) in sinks.iter().zip(1..) {
            scope.spawn(move || sink.push_batch(&batch([value])).unwrap());
        }
    });
    let mut read = 0;
    while read < 2 && tokio::time::timeout(patience, reader.next()).await.is_ok_and(|batch| batch.unwrap().is_ok()) {
        read += 1;
    }
    read
}

#[tokio::test]
async fn a_reader_gets_what_two_tasks_spilled_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file_size =
        session(folder.path()).context().copied_config().options().execution.max_spill_file_size_bytes.get();
    assert_eq!(read_of_two(file_size, NEVER).await, 2);
    // Once DataFusion reads both with files of its own size, `ONE_BATCH` can go.
    let theirs = datafusion::config::ConfigOptions::new().execution.max_spill_file_size_bytes.get();
    assert_eq!(read_of_two(theirs, Duration::from_secs(1)).await, 1, "mended in DataFusion: drop `ONE_BATCH`");
}

/// All of an exchange's batches spill, from two tasks to two readers; with DataFusion's own file size they soon wait for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_exchange_that_spills_everything_ends() {
    const BATCHES: i64 = 200;
    const ROWS: i64 = 512;
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let held = MemoryConsumer::new("test").register(&session.context().runtime_env().memory_pool);
    held.try_grow(16 << 20).unwrap();
    for _ in 0..10 {
        let part = |p: i64| (0..BATCHES).map(|b| batch((0..ROWS).map(|r| (b * ROWS + r) * 2 + p))).collect();
        let parts: Vec<Vec<RecordBatch>> = vec![part(0), part(1)];
        let scan = MemorySourceConfig::try_new_exec(&parts, schema(), None).unwrap();
        let by = Partitioning::Hash(vec![col("n", &schema()).unwrap()], 2);
        let exchange = Arc::new(RepartitionExec::try_new(scan, by).unwrap());
        let mut seen = Vec::new();
        // One after the other, as a join reads its sides: the first reader must not need the second.
        let readers = [0, 1].map(|p| exchange.execute(p, session.context().task_ctx()).unwrap());
        for reader in readers {
            let read = tokio::time::timeout(NEVER, reader.try_collect::<Vec<RecordBatch>>()).await;
            let batches = read.expect("a reader waits for ever").unwrap();
            seen.extend(batches.iter().flat_map(|b| b["n"].as_primitive::<Int64Type>().values().to_vec()));
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..2 * BATCHES * ROWS));
        let spilled = exchange.metrics().unwrap();
        assert_eq!(spilled.spilled_rows(), Some(usize::try_from(2 * BATCHES * ROWS).unwrap()));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_waits_holds_no_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(|path| path.starts_with(folder.path())).count()
    };
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    let (writer, reader) = queue(SpillFiles::new(folder.path()), ONE_BATCH);
    for n in 0..100 {
        writer.push_batch(&batch([n])).unwrap();
    }
    assert_eq!((files(), open()), (100, 0));
    drop(writer);
    assert_eq!(reader.try_collect::<Vec<_>>().await.unwrap(), (0..100).map(|n| batch([n])).collect::<Vec<_>>());
    assert_eq!((files(), open()), (0, 0));
}

#[tokio::test]
async fn what_nobody_reads_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, reader) = queue(SpillFiles::new(folder.path()), ONE_BATCH);
    for n in 0..3 {
        writer.push_batch(&batch([n])).unwrap();
    }
    drop((writer, reader));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Also that [`EXCHANGE`] is what DataFusion says.
#[tokio::test]
async fn the_reader_of_an_exchange_is_told_of_a_failed_write() {
    let folder = tempfile::tempdir().unwrap();
    let (writer, mut reader) = queue(SpillFiles::new(&folder.path().join("gone")), ONE_BATCH);
    writer.push_batch(&batch([1])).unwrap();
    let error = tokio::time::timeout(NEVER, reader.next()).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.contains("cannot write `") && error.contains("gone"), "{error}");
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let file = SpillFiles::new(folder.path()).create_temp_file("Sorting").unwrap();
    file.open_writer().unwrap().write_all(b"secret").unwrap();
    let mode = std::fs::metadata(file.path().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn others_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = SpillFiles::new(&folder.path().join("gone")).create_temp_file("Sorting").unwrap();
    assert!(file.open_writer().err().unwrap().to_string().contains("cannot write `"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_known_as_such() {
    let folder = tempfile::tempdir().unwrap();
    for (description, deferred) in [(EXCHANGE, true), ("Sorting", false)] {
        let spilled = Arc::new(Spilled {
            path: folder.path().join("full"),
            written: AtomicU64::new(0),
            failure: deferred.then(Mutex::default),
        });
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut writer = Writer { file: Some(BufWriter::with_capacity(BUFFER, full)), spilled: Arc::clone(&spilled) };
        let written =
            writer.write_all(&[7; 100_000]).and_then(|()| writer.write_all(&[7])).and_then(|()| writer.flush());
        let read = Handle(Arc::clone(&spilled)).read_stream().unwrap().try_next().await;
        let kind = match (written, read) {
            (Ok(()), Err(DataFusionError::IoError(error))) if deferred => error.kind(),
            (Err(error), _) if !deferred => error.kind(),
            other => panic!("{description}: {other:?}"),
        };
        assert_eq!(kind, ErrorKind::StorageFull);
    }
}
