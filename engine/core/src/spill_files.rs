//! Spill files that cost no file descriptor while they wait, and that no writer leaves half open.
//!
//! Why a session has its own: exchanges of DataFusion 55 ([`RepartitionExec`]) that are out of memory write batches to a queue of
//! files, and send their reader one marker for each. The queue has a file for each task that writes at the same moment, all kept
//! open until they reach `datafusion.execution.max_spill_file_size_bytes`; the reader looks at the oldest only. Once that is read
//! up, a marker of a batch in a newer file makes the reader wait for a write to the oldest, and the writers wait for the reader
//! (apache/datafusion#24883, mended after 55.2). So [`ONE_BATCH`] is the limit in a session: a file is complete before its marker is
//! sent, and the oldest is never one that somebody may write to later. That makes a file of each batch, thousands where an exchange
//! is skewed. DataFusion's own files hold a descriptor each until they are dropped, of which a process often has 1024; those here
//! hold one only while written or read.
//!
//! A file that could not be written must not stay at the head of that queue either: there, a failed write is told to the reader.
//!
//! [`RepartitionExec`]: datafusion::physical_plan::repartition::RepartitionExec

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use futures::Stream;
use tokio::io::AsyncReadExt;
use tokio_util::bytes::{Bytes, BytesMut};

/// Size in bytes that every file of an exchange exceeds with its first batch.
pub(crate) const ONE_BATCH: usize = 1;

/// What DataFusion calls the files of an exchange's queue. Under another name they would only fail at once, as all others do.
const EXCHANGE: &str = "SpillPool";

/// Bytes asked for by one read: fewer trips to the thread that reads, against memory that nobody accounts for.
const CHUNK: usize = 128 << 10;

/// Bytes gathered before a write; the encoder writes lengths and paddings one by one.
const BUFFER: usize = 32 << 10;

/// Makes the files of one session in its spill folder.
#[derive(Debug)]
pub(crate) struct SpillFiles {
    folder: PathBuf,
    made: AtomicU64,
}

impl SpillFiles {
    /// Files in `folder`, which must be there and nobody else's.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), made: AtomicU64::new(0) }
    }
}

impl TempFileFactory for SpillFiles {
    fn create_temp_file(&self, description: &str) -> Result<Arc<dyn SpillFile>> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let file = Spilled {
            path: self.folder.join(format!("{number}.arrow")),
            written: AtomicU64::new(0),
            failure: (description == EXCHANGE).then(Mutex::default),
        };
        Ok(Arc::new(Handle(Arc::new(file))))
    }
}

/// One file; removed with its last handle, writer or reader.
#[derive(Debug)]
struct Spilled {
    path: PathBuf,
    written: AtomicU64,
    /// For files whose reader is told of a failed write in the writer's place: what failed.
    failure: Option<Mutex<Option<Failure>>>,
}

#[derive(Debug, Clone)]
struct Failure {
    kind: ErrorKind,
    text: String,
}

impl Spilled {
    fn failed(&self) -> Option<io::Error> {
        let failure = self.failure.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(io::Error::new(failure.kind, failure.text))
    }

    /// Keeps `error` for the reader, or hands it back where the writer is to be told.
    fn keep(&self, error: io::Error) -> io::Result<()> {
        let named = io::Error::new(error.kind(), format!("cannot write `{}`: {error}", self.path.display()));
        let Some(failure) = &self.failure else { return Err(named) };
        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(Failure { kind: named.kind(), text: named.to_string() });
        Ok(())
    }
}

impl Drop for Spilled {
    fn drop(&mut self) {
        // Not there if nothing was written, or if the session's folder went first.
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!("spill file {} not removed: {error}", self.path.display());
        }
    }
}

struct Handle(Arc<Spilled>);

impl SpillFile for Handle {
    fn path(&self) -> Option<&Path> {
        Some(&self.0.path)
    }

    fn size(&self) -> Option<u64> {
        Some(self.0.written.load(Ordering::Relaxed))
    }

    fn read_stream(&self) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>> {
        let start = (Arc::clone(&self.0), None);
        Ok(Box::pin(futures::stream::try_unfold(start, async |(spilled, open)| {
            let chunk = read_chunk(&spilled, open).await.map_err(DataFusionError::IoError)?;
            Ok(chunk.map(|(bytes, file)| (bytes, (spilled, Some(file)))))
        })))
    }

    fn open_writer(&self) -> Result<Box<dyn SpillWriter>> {
        let file = match create(&self.0.path) {
            Ok(file) => Some(BufWriter::with_capacity(BUFFER, file)),
            Err(error) => {
                self.0.keep(error).map_err(DataFusionError::IoError)?;
                None
            }
        };
        Ok(Box::new(Writer { file, spilled: Arc::clone(&self.0) }))
    }
}

/// A new file that only its owner may read: the folder of the session may lie where all may look.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The next bytes of the file; none at its end, where a file that is still written may have more later.
async fn read_chunk(spilled: &Spilled, open: Option<tokio::fs::File>) -> io::Result<Option<(Bytes, tokio::fs::File)>> {
    if let Some(failure) = spilled.failed() {
        return Err(failure);
    }
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read `{}`: {error}", spilled.path.display()));
    let mut file = match open {
        Some(file) => file,
        None => tokio::fs::File::open(&spilled.path).await.map_err(named)?,
    };
    let mut bytes = BytesMut::with_capacity(CHUNK);
    let read = file.read_buf(&mut bytes).await.map_err(named)?;
    if read > 0 {
        return Ok(Some((bytes.freeze(), file)));
    }
    // It may have ended because a write failed meanwhile.
    spilled.failed().map_or(Ok(None), Err)
}

/// Writes one file; writes nothing more once a write has failed.
struct Writer {
    file: Option<BufWriter<File>>,
    spilled: Arc<Spilled>,
}

impl Writer {
    fn attempt<T>(&mut self, lost: T, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> io::Result<T> {
        let Some(file) = &mut self.file else { return Ok(lost) };
        match write(file) {
            Ok(done) => Ok(done),
            Err(error) => {
                // Dropped without another attempt to write what is buffered.
                if let Some(file) = self.file.take() {
                    drop(file.into_parts());
                }
                self.spilled.keep(error).map(|()| lost)
            }
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.attempt(bytes.len(), |file| file.write(bytes))?;
        self.spilled.written.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt((), Write::flush)
    }
}

impl SpillWriter for Writer {
    fn finish(&mut self) -> Result<()> {
        self.flush().map_err(DataFusionError::IoError)
    }
}

#[cfg(test)]
mod tests;
