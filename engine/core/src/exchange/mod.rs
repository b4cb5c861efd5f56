//! Exchange: a finished intermediate result, divided into buckets by the hash of its keys, and measured while it was written.
//!
//! A writer runs a plan and keeps its rows in memory under the session's pool, on disk where that is short. What it measures (rows and
//! bytes by bucket, heavy hitters, distinct keys, NULLs) is exact or says how far it is off; readers are given slices of buckets.

mod bucketing;
mod facts;
mod reader;
mod sample;
mod segment;
pub(crate) mod slices;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics, internal_err};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

pub(crate) use bucketing::{Bucketing, Ranges};
pub(crate) use facts::KeyFacts;
pub(crate) use reader::ExchangeReaderExec;
pub(crate) use store::ExchangeStore;
pub(crate) use writer::{Budget, WriteSpec, write};

/// Size of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u64,
    /// Bytes in memory; where buckets share a batch, its bytes are shared out by rows.
    pub(crate) bytes: u64,
}

/// Bytes of a slot of the hash table of a join of DataFusion: hash, row, and the byte that tells whether it is free.
const TABLE_SLOT: u64 = 17;

impl Size {
    /// Bytes that a hash join takes out of the pool to build on these rows: the rows, and slots for 8 / 7 of them, a power of two.
    pub(crate) fn hash_table(self) -> u64 {
        match self.rows {
            0 => self.bytes,
            rows => self.bytes + (rows * 8 / 7).max(4).next_power_of_two() * TABLE_SLOT,
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, bytes: self.bytes + other.bytes }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Number within its query, from 0.
    pub(crate) id: usize,
    /// The plan whose rows it holds; it has run.
    pub(crate) stage: Arc<dyn ExecutionPlan>,
    pub(crate) schema: SchemaRef,
    pub(crate) bucketing: Bucketing,
    /// By bucket.
    pub(crate) sizes: Vec<Size>,
    pub(crate) facts: KeyFacts,
    /// What the planner knew of the columns before: bounds, NULLs, distinct values.
    pub(crate) columns: Vec<ColumnStatistics>,
    pub(crate) cost: WriteCost,
    /// None once nothing reads its rows any more.
    store: Mutex<Option<Arc<dyn ExchangeStore>>>,
    /// Operators of the last plan that have not yet read all that they read of it; 0 where that is not known.
    readers: AtomicUsize,
    /// Filters that its keys made for the other input of their join.
    taught: Mutex<Vec<Arc<dyn PhysicalExpr>>>,
}

/// What writing took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WriteCost {
    pub(crate) wall: Duration,
    /// Thread CPU time by task: the stage's plan and the writing of its rows.
    pub(crate) task_cpu: Vec<Duration>,
    /// Part of it that went into hashing, dividing and keeping rows.
    pub(crate) exchange_cpu: Duration,
    /// Part of that which went into the facts about keys, by the wall clock: nothing waits there.
    pub(crate) facts_cpu: Duration,
    /// Bytes of the exchange on disk.
    pub(crate) spilled_bytes: u64,
    /// Files on disk.
    pub(crate) spill_count: u64,
}

impl Exchange {
    /// Rows and bytes of all buckets.
    pub(crate) fn size(&self) -> Size {
        self.sizes.iter().fold(Size::default(), |sum, size| sum.plus(*size))
    }

    /// Rows and bytes of each of `n` partitions in the canonical layout.
    pub(crate) fn partitions(&self, n: usize) -> Vec<Size> {
        let mut partitions = vec![Size::default(); n.max(1)];
        for (bucket, size) in self.sizes.iter().enumerate() {
            let partition = &mut partitions[bucket % n.max(1)];
            *partition = partition.plus(*size);
        }
        partitions
    }

    /// The rows of `slice`, always in the same order.
    pub(crate) fn read(&self, slice: slices::Slice) -> BoxStream<'static, Result<RecordBatch>> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match store {
            Some(store) => store.read(slice),
            None => {
                let id = self.id;
                stream::once(async move { internal_err!("the rows of exchange {id} are gone") }).boxed()
            }
        }
    }

    /// Gives up its rows: nothing will begin to read them any more. What is known of them stays.
    pub(crate) fn release(&self) {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Nothing but so many operators will read it: when the last of them has, its rows are given up.
    pub(crate) fn expect_readers(&self, readers: usize) {
        self.readers.store(readers, Relaxed);
    }

    /// An operator has read all that it reads of it.
    pub(crate) fn reader_ended(&self) {
        if self.readers.fetch_update(Relaxed, Relaxed, |readers| readers.checked_sub(1)) == Ok(1) {
            self.release();
        }
    }

    /// Notes a filter that was made from its keys.
    pub(crate) fn teaches(&self, filter: Arc<dyn PhysicalExpr>) {
        self.taught.lock().unwrap_or_else(PoisonError::into_inner).push(filter);
    }

    /// Filters that were made from its keys.
    pub(crate) fn taught(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.taught.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known of all its rows.
    pub(crate) fn statistics(&self) -> Statistics {
        self.statistics_of(self.size().rows, true)
    }

    /// What is known of `rows` of its rows; `spread`: of all buckets alike.
    fn statistics_of(&self, rows: u64, spread: bool) -> Statistics {
        let size = self.size();
        let bytes = (size.bytes as u128 * u128::from(rows) / u128::from(size.rows.max(1))) as usize;
        let mut columns = self.columns.clone();
        // Distinct keys are known of the combination of the key columns; of one column alone if it is the key.
        if let [key] = self.bucketing.keys.as_slice()
            && let Some(column) = key.downcast_ref::<Column>()
            && let Some(statistics) = columns.get_mut(column.index())
            && spread
            && self.facts.rows == size.rows
        {
            statistics.distinct_count = Precision::Inexact(self.facts.distinct as usize);
            statistics.null_count = Precision::Exact(self.facts.null_rows as usize);
        }
        Statistics {
            num_rows: Precision::Exact(rows as usize),
            total_byte_size: Precision::Inexact(bytes),
            column_statistics: columns,
        }
    }

    /// Rows by bucket.
    pub(crate) fn rows(&self) -> Vec<u64> {
        self.sizes.iter().map(|size| size.rows).collect()
    }
}
