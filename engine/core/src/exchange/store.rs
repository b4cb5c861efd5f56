//! Where the rows of an exchange are.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};

use super::segment::{Run, Segment};
use super::slices::Slice;
use super::writer::Held;

/// Keeps the rows of a finished exchange. The driver and the readers know no more of where they are.
pub(crate) trait ExchangeStore: fmt::Debug + Send + Sync {
    /// The rows of `slice`, always in the same order.
    fn read(self: Arc<Self>, slice: Slice) -> BoxStream<'static, Result<RecordBatch>>;
}

/// In this process: memory, and files of its spill folder.
pub(crate) struct LocalStore {
    pub(crate) schema: SchemaRef,
    /// By writer, in the order of the stage's partitions.
    pub(crate) segments: Vec<Segment>,
    /// What the chunks in memory take of the pool; given back with the store.
    pub(crate) _held: Vec<Held>,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").field("writers", &self.segments.len()).finish_non_exhaustive()
    }
}

enum Part {
    Rows(RecordBatch),
    File(Arc<Run>, Slice),
}

impl LocalStore {
    /// What lies where: views of chunks, and pieces of files.
    fn parts(&self, slice: &Slice) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut at = 0u64;
        let mut cut = |rows: u64| {
            let start = at;
            at += rows;
            let (from, to) = (slice.rows.start.max(start), slice.rows.end.min(at));
            (from < to).then(|| from - start..to - start)
        };
        for segment in &self.segments {
            for run in &segment.runs {
                if let Some(rows) = cut(run.rows(slice.bucket)) {
                    parts.push(Part::File(Arc::clone(run), Slice { bucket: slice.bucket, rows }));
                }
            }
            for chunk in &segment.chunks {
                let (start, len) = chunk.range(slice.bucket);
                if let Some(rows) = cut(len as u64) {
                    let (from, count) = (start + rows.start as usize, (rows.end - rows.start) as usize);
                    parts.push(Part::Rows(chunk.batch.slice(from, count)));
                }
            }
        }
        parts
    }
}

impl ExchangeStore for LocalStore {
    fn read(self: Arc<Self>, slice: Slice) -> BoxStream<'static, Result<RecordBatch>> {
        let schema = Arc::clone(&self.schema);
        let parts = self.parts(&slice);
        let batches = stream::iter(parts).flat_map(move |part| match part {
            Part::Rows(batch) => stream::once(std::future::ready(Ok(batch))).left_stream(),
            Part::File(run, slice) => from_file(Arc::clone(&schema), run, slice).right_stream(),
        });
        batches.boxed()
    }
}

/// Reads on a thread where blocking is allowed.
fn from_file(schema: SchemaRef, run: Arc<Run>, slice: Slice) -> BoxStream<'static, Result<RecordBatch>> {
    let mut receiver = RecordBatchReceiverStream::builder(schema, 2);
    let sender = receiver.tx();
    receiver.spawn_blocking(move || {
        run.read(slice.bucket, slice.rows, &mut |batch| sender.blocking_send(Ok(batch)).is_ok())
    });
    receiver.build().boxed()
}
