//! What one writer of an exchange has taken: chunks in memory, and before them runs on disk.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, StringViewArray};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;
use crc32fast::Hasher;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::spill_file::{SpillFile, SpillWriter};

use super::bucketing::Chunk;

/// Most rows of a block: readers of a slice open only the blocks that it touches.
const BLOCK_ROWS: u64 = 128 << 10;

/// Bytes asked for by one read.
const READ: usize = 1 << 17;

/// A file with the rows of all buckets, one after the other; a bucket is a row of blocks, each an Arrow IPC stream of its own.
pub(crate) struct Run {
    file: Arc<dyn SpillFile>,
    /// Blocks by bucket.
    blocks: Vec<Vec<Block>>,
    /// Bytes of the file.
    pub(crate) bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    offset: u64,
    bytes: u64,
    rows: u64,
    /// CRC-32 of the bytes.
    checksum: u32,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("path", &self.file.path()).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Rows of one writer, in the order in which it took them.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    pub(crate) runs: Vec<Arc<Run>>,
    pub(crate) chunks: Vec<Chunk>,
}

type FileWriter = BufWriter<Box<dyn SpillWriter>>;

impl Run {
    /// Writes `chunks` to a new file of `disk`, bucket by bucket, in batches of about `batch_rows`. Blocks on I/O.
    pub(crate) fn write(
        disk: &Arc<DiskManager>,
        schema: &SchemaRef,
        chunks: &[Chunk],
        batch_rows: usize,
    ) -> Result<Self> {
        let file = disk.create_tmp_file("spilling an exchange")?;
        let mut to = Counted {
            inner: BufWriter::with_capacity(1 << 18, file.open_writer()?),
            written: 0,
            checksum: Hasher::new(),
        };
        let buckets = chunks.first().map_or(0, |chunk| chunk.starts.len() - 1);
        let mut blocks = vec![Vec::new(); buckets];
        for (bucket, blocks) in blocks.iter_mut().enumerate() {
            let mut rest = chunks;
            while let Some(block) = write_block(&mut to, schema, &mut rest, bucket, batch_rows)? {
                blocks.push(block);
            }
        }
        let bytes = to.written;
        to.inner.into_inner().map_err(|e| DataFusionError::IoError(e.into_error()))?.finish()?;
        Ok(Self { file, blocks, bytes })
    }

    /// Rows of `bucket`.
    pub(crate) fn rows(&self, bucket: usize) -> u64 {
        self.blocks.get(bucket).map_or(0, |blocks| blocks.iter().map(|block| block.rows).sum())
    }

    /// The batches with rows `wanted` of `bucket`, handed to `give` one after the other until it says false. Blocks on I/O.
    pub(crate) fn read(
        &self,
        bucket: usize,
        wanted: Range<u64>,
        give: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<()> {
        let mut at = 0;
        for block in self.blocks.get(bucket).map_or(&[][..], Vec::as_slice) {
            let rows = at..at + block.rows;
            if rows.end > wanted.start && rows.start < wanted.end {
                for batch in self.open(*block)? {
                    let batch = batch.map_err(|e| self.damaged(&e))?;
                    let start = at;
                    at += batch.num_rows() as u64;
                    let (from, to) = (wanted.start.max(start), wanted.end.min(at));
                    if from < to && !give(batch.slice((from - start) as usize, (to - from) as usize)) {
                        return Ok(());
                    }
                }
                if at != rows.end {
                    return Err(self.damaged(&format!("{} rows are missing", rows.end.saturating_sub(at))));
                }
            }
            at = rows.end;
        }
        Ok(())
    }

    fn open(&self, block: Block) -> Result<StreamReader<impl Read + use<>>> {
        let path = self.file.path().ok_or_else(|| self.damaged(&"it is not a local file"))?;
        let mut file = File::open(path).map_err(|e| self.damaged(&e))?;
        // Before anything is decoded: changed bytes may unpack to other rows without complaint, or ask for any amount of memory.
        if checksum(&mut file, block).map_err(|e| self.damaged(&e))? != block.checksum {
            return Err(self.damaged(&"it has changed"));
        }
        file.seek(SeekFrom::Start(block.offset)).map_err(|e| self.damaged(&e))?;
        StreamReader::try_new(BufReader::with_capacity(READ, file).take(block.bytes), None)
            .map_err(|e| self.damaged(&e))
    }

    /// The error for an exchange file that is gone or not as it was written.
    fn damaged(&self, error: &dyn std::fmt::Display) -> DataFusionError {
        let path = self.file.path().map(|p| p.display().to_string()).unwrap_or_default();
        let message = format!("cannot read back `{path}`, which this query had written: {error}");
        let hint = "something removed or changed files in the spill folder while the query ran: run it again, or set `spill_dir` (`--spill-dir`) elsewhere";
        DataFusionError::External(Box::new(crate::Error::new(crate::ErrorKind::Resources, message).with_hint(hint)))
    }
}

/// CRC-32 of the bytes of `block` as they are in `file` now.
fn checksum(file: &mut File, block: Block) -> std::io::Result<u32> {
    file.seek(SeekFrom::Start(block.offset))?;
    let mut from = BufReader::with_capacity(READ, file.take(block.bytes));
    let mut sum = Hasher::new();
    loop {
        let bytes = from.fill_buf()?;
        let read = bytes.len();
        if read == 0 {
            return Ok(sum.finalize());
        }
        sum.update(bytes);
        from.consume(read);
    }
}

/// Writes the next rows of `bucket` from `rest`, which moves on; none where there are no more.
fn write_block(
    to: &mut Counted<FileWriter>,
    schema: &SchemaRef,
    rest: &mut &[Chunk],
    bucket: usize,
    batch_rows: usize,
) -> Result<Option<Block>> {
    while let Some((chunk, after)) = rest.split_first()
        && chunk.range(bucket).1 == 0
    {
        *rest = after;
    }
    if rest.is_empty() {
        return Ok(None);
    }
    let offset = to.written;
    to.checksum.reset();
    let mut rows = 0;
    let mut coalescer = BatchCoalescer::new(Arc::clone(schema), batch_rows);
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(&mut *to, schema, options)?;
    while let Some((chunk, after)) = rest.split_first()
        && rows < BLOCK_ROWS
    {
        *rest = after;
        let (start, len) = chunk.range(bucket);
        if len > 0 {
            rows += len as u64;
            coalescer.push_batch(chunk.batch.slice(start, len))?;
        }
        while let Some(batch) = coalescer.next_completed_batch() {
            writer.write(&batch)?;
        }
    }
    coalescer.finish_buffered_batch()?;
    while let Some(batch) = coalescer.next_completed_batch() {
        writer.write(&batch)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(Some(Block { offset, bytes: to.written - offset, rows, checksum: to.checksum.clone().finalize() }))
}

struct Counted<W> {
    inner: W,
    written: u64,
    /// Of what was written since it was last reset.
    checksum: Hasher,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.checksum.update(bytes.get(..written).unwrap_or(bytes));
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // Each bucket's stream ends with a flush; the file is flushed once, at its end.
        Ok(())
    }
}

/// Puts batches together to larger ones that hold little more than what they show.
pub(crate) struct Coalescer {
    inner: BatchCoalescer,
}

impl Coalescer {
    /// Batches of `rows` rows; one of more than half as many is given as it is.
    pub(crate) fn new(schema: SchemaRef, rows: usize) -> Self {
        Self { inner: BatchCoalescer::new(schema, rows).with_biggest_coalesce_batch_size(Some(rows / 2)) }
    }

    pub(crate) fn push(&mut self, batch: RecordBatch) -> Result<()> {
        Ok(self.inner.push_batch(batch)?)
    }

    /// No more rows come.
    pub(crate) fn finish(&mut self) -> Result<()> {
        Ok(self.inner.finish_buffered_batch()?)
    }

    /// The next batch that is complete. Arrow's coalescer copies the texts of one batch and keeps the buffers of another, and where these
    /// take turns (rows in memory, rows from a file) it begins a buffer of up to 1 MiB for each copy, however short: 60 MiB for 2 MiB of
    /// texts. So what it gives is looked at once more.
    pub(crate) fn next_completed(&mut self) -> Result<Option<RecordBatch>> {
        self.inner.next_completed_batch().map(compact).transpose()
    }
}

/// `batch` without the bytes that its views do not show: a filtered or divided batch may hold on to whole pages of a file.
pub(crate) fn compact(batch: RecordBatch) -> Result<RecordBatch> {
    if !batch.columns().iter().any(|c| matches!(c.data_type(), DataType::Utf8View | DataType::BinaryView)) {
        return Ok(batch);
    }
    let columns = batch.columns().iter().map(compact_array).collect();
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

fn compact_array(array: &ArrayRef) -> ArrayRef {
    fn held(buffers: &[arrow::buffer::Buffer]) -> usize {
        buffers.iter().map(arrow::buffer::Buffer::capacity).sum()
    }
    match array.data_type() {
        DataType::Utf8View => {
            let views: &StringViewArray = array.as_string_view();
            if wasteful(held(views.data_buffers()), views.total_buffer_bytes_used()) {
                Arc::new(views.gc())
            } else {
                Arc::clone(array)
            }
        }
        DataType::BinaryView => {
            let views: &BinaryViewArray = array.as_binary_view();
            if wasteful(held(views.data_buffers()), views.total_buffer_bytes_used()) {
                Arc::new(views.gc())
            } else {
                Arc::clone(array)
            }
        }
        _ => Arc::clone(array),
    }
}

/// Copying costs less than holding twice what is used; small buffers are let be.
fn wasteful(held: usize, used: usize) -> bool {
    held > 16 << 10 && held > 2 * used
}
