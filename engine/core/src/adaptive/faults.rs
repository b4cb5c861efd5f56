//! What a stage leaves behind when it fails or is cut off: nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use datafusion::error::Result;
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SpillFile, SpillWriter, TaskContext, TempFileFactory};
use datafusion::physical_expr::expressions::Column;
use datafusion::prelude::{SessionConfig as Options, SessionContext};
use futures::StreamExt;
use rand::{Rng, SeedableRng};

use super::{AdaptiveMode, AdaptiveSettings};
use crate::exchange::{Bucketing, Budget, WriteSpec, write};
use crate::spill_files::SpillFiles;
use crate::{Session, SessionConfig};

/// Files of a disk with room for so many bytes.
#[derive(Debug)]
struct SmallDisk {
    files: SpillFiles,
    room: Arc<AtomicUsize>,
}

impl TempFileFactory for SmallDisk {
    fn create_temp_file(&self, description: &str) -> Result<Arc<dyn SpillFile>> {
        let file = self.files.create_temp_file(description)?;
        Ok(Arc::new(OnSmallDisk { file, room: Arc::clone(&self.room) }))
    }
}

struct OnSmallDisk {
    file: Arc<dyn SpillFile>,
    room: Arc<AtomicUsize>,
}

impl SpillFile for OnSmallDisk {
    fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    fn size(&self) -> Option<u64> {
        self.file.size()
    }

    fn read_stream(
        &self,
    ) -> Result<std::pin::Pin<Box<dyn futures::Stream<Item = Result<tokio_util::bytes::Bytes>> + Send>>> {
        self.file.read_stream()
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        Ok(Box::new(SmallWriter { inner: self.file.open_writer()?, room: Arc::clone(&self.room) }))
    }
}

struct SmallWriter {
    inner: Box<dyn SpillWriter>,
    room: Arc<AtomicUsize>,
}

impl std::io::Write for SmallWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = self.room.fetch_update(Relaxed, Relaxed, |room| room.checked_sub(bytes.len()));
        taken.map_err(|_| std::io::Error::from(std::io::ErrorKind::StorageFull))?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl SpillWriter for SmallWriter {
    fn finish(&mut self) -> Result<()> {
        self.inner.finish()
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    // A session holds the lock of its folder as long as it lives.
    found.retain(|file| file.file_name().is_some_and(|name| name != "lock"));
    found
}

#[test]
fn a_full_disk_is_an_error_that_says_so() {
    for room in [0, 1_000, 200_000] {
        let folder = tempfile::tempdir().unwrap();
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
        let disk = SmallDisk { files: SpillFiles::new(folder.path()), room: Arc::new(AtomicUsize::new(room)) };
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&pool))
            .with_disk_manager_builder(
                DiskManagerBuilder::default()
                    .with_temp_file_factory(Arc::new(disk))
                    .with_max_temp_directory_size(u64::MAX),
            )
            .build_arc()
            .unwrap();
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let error = tokio.block_on(async {
            let context = SessionContext::new_with_config(Options::new().with_target_partitions(2));
            let rows = context.sql("SELECT value, value * 7 AS w FROM range(0, 2000000)").await.unwrap();
            let plan = rows.create_physical_plan().await.unwrap();
            let keys: Vec<_> = vec![Arc::new(Column::new("value", 0)) as _];
            let bucketing = Bucketing { keys, buckets: 8, divisor: 1, ranges: None };
            let spec = WriteSpec { id: 0, bucketing, budget: Budget::new(0), bounds: false };
            write(plan, Arc::new(TaskContext::default().with_runtime(runtime)), spec).await.unwrap_err()
        });
        // Tasks that were still writing end with it.
        drop(tokio);
        let error = crate::Error::from(error);
        assert_eq!(error.kind, crate::ErrorKind::Resources, "{error}");
        assert!(error.to_string().contains("no space left"), "{error}");
        assert_eq!(pool.reserved(), 0);
        assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
    }
}

/// Waits until nothing of a query is left: tasks of `tokio` and memory of `session`; what is still going on ends when it is next looked at.
async fn all_ended(session: &Session) -> bool {
    let ended = async {
        // The task that waits is none of the runtime's.
        while session.memory().reserved > 0 || tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.is_ok()
}

fn threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A query may be dropped at any moment, while any of its stages runs.
#[test]
fn what_is_cut_off_leaves_nothing_behind() {
    let sql = [
        "SELECT count(*), sum(a.value + b.value) FROM range(0, 60000) a JOIN range(0, 60000) b ON a.value % 3000 = b.value % 5000",
        "SELECT k, count(DISTINCT v), count(DISTINCT w) FROM t GROUP BY k",
        "SELECT k, v, rank() OVER (PARTITION BY k ORDER BY v) FROM t",
        "SELECT k, v, sum(v) OVER (PARTITION BY k) FROM t",
        "SELECT a.k, b.v FROM t a JOIN t b ON a.v = b.w",
        // Larger than what exchanges may have of the pool: they go to disk.
        "SELECT a.value, b.value FROM range(0, 900000) a JOIN range(0, 900000) b ON a.value = b.value",
    ];
    let seed = std::env::var("SPARKLET_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let rounds = super::tests::asked_cases().map_or(12, |cases| cases as usize);
    let mut on_disk = 0;
    for round in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let session = Session::new(SessionConfig {
            memory_limit: Some(16 << 20),
            slots: Some(3),
            spill_dir: folder.path().to_owned(),
            batch_size: Some(256),
            adaptive: AdaptiveSettings { mode: AdaptiveMode::Force, ..AdaptiveSettings::default() },
            ..SessionConfig::default()
        })
        .unwrap();
        let tokio = threads();
        // From the first poll to long after the first rows, early moments as often as late ones.
        let polls = 10f64.powf(random.random_range(0.0..4.5)) as u64;
        let waits_for_files = round % sql.len() == sql.len() - 1;
        let sql = sql[round % sql.len()];
        let left = || format!("seed {seed}, round {round}, {polls} polls: {sql}");
        tokio.block_on(async {
            let t = "CREATE TABLE t AS SELECT value % 5 / 3 AS k, value * 7919 % 10007 AS v, value % 977 AS w FROM range(0, 40000)";
            session.context().sql(t).await.unwrap().collect().await.unwrap();
            let before = session.memory().reserved;
            let query = session.sql(sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
            let mut stream = query.stream().unwrap();
            let mut left_to_poll = polls;
            std::future::poll_fn(|cx| {
                let polled = stream.poll_next_unpin(cx);
                if !waits_for_files || !files(folder.path()).is_empty() {
                    left_to_poll -= 1;
                }
                if left_to_poll == 0 || matches!(polled, std::task::Poll::Ready(None | Some(Err(_)))) {
                    return std::task::Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            })
            .await;
            on_disk += usize::from(!files(folder.path()).is_empty());
            drop(stream);
            drop(query);
            assert_eq!(before, 0, "{}", left());
            assert!(all_ended(&session).await, "{} bytes and tasks, {}", session.memory().reserved, left());
            assert!(files(folder.path()).is_empty(), "{:?}, {}", files(folder.path()), left());
        });
        drop(tokio);
        drop(session);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{}", left());
    }
    println!("seed {seed}: {rounds} queries cut off, {on_disk} of them with files on disk");
}

/// What happens to the files of a running query.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Removed,
    CutShort,
    Changed,
}

/// Exchange files that are harmed while the last stage reads them end the query with an error that says so, and with nothing left.
#[test]
fn harmed_files_of_a_running_query_are_an_error_that_says_so() {
    let sql = "SELECT a.value, b.value FROM range(0, 900000) a JOIN range(0, 900000) b ON a.value = b.value";
    for harm in [Harm::Removed, Harm::CutShort, Harm::Changed] {
        let folder = tempfile::tempdir().unwrap();
        let session = Session::new(SessionConfig {
            memory_limit: Some(16 << 20),
            slots: Some(2),
            spill_dir: folder.path().to_owned(),
            adaptive: AdaptiveSettings { mode: AdaptiveMode::Force, ..AdaptiveSettings::default() },
            ..SessionConfig::default()
        })
        .unwrap();
        let tokio = threads();
        tokio.block_on(async {
            let query = session.sql(sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
            let mut stream = query.stream().unwrap();
            assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
            let files = files(folder.path());
            assert!(!files.is_empty(), "the exchanges are in memory");
            for file in &files {
                let bytes = std::fs::read(file).unwrap();
                match harm {
                    Harm::Removed => std::fs::remove_file(file).unwrap(),
                    Harm::CutShort => std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap(),
                    Harm::Changed => {
                        std::fs::write(file, bytes.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>()).unwrap();
                    }
                }
            }
            let error = loop {
                match stream.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break query.failed(error).await,
                    None => panic!("{harm:?}: the query ended as if nothing had happened"),
                }
            };
            assert_eq!(error.kind, crate::ErrorKind::Resources, "{harm:?}: {error}");
            assert!(error.to_string().contains("cannot read back"), "{harm:?}: {error}");
            assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("spill_dir")), "{harm:?}: {error:?}");
            drop(stream);
            drop(query);
            assert!(all_ended(&session).await, "{harm:?}: {} bytes and tasks", session.memory().reserved);
            let again = session.sql("SELECT count(*) FROM range(0, 10)", &BTreeMap::new()).await.unwrap();
            assert_eq!(again.collect().await.unwrap().len(), 1, "the session goes on");
        });
        assert!(files(folder.path()).is_empty(), "{harm:?}: {:?}", files(folder.path()));
        drop(tokio);
        drop(session);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{harm:?}");
    }
}
