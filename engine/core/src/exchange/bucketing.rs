//! Which bucket a row belongs to.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows};
use datafusion::common::hash_utils::create_hashes;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_plan::repartition::REPARTITION_RANDOM_STATE;

/// Rows of one batch, those of a bucket side by side and in their old order.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) batch: RecordBatch,
    /// Bucket `b` holds rows `starts[b] .. starts[b + 1]`.
    pub(crate) starts: Box<[u32]>,
}

impl Chunk {
    /// First row and number of rows of `bucket`.
    pub(crate) fn range(&self, bucket: usize) -> (usize, usize) {
        let start = self.starts[bucket] as usize;
        (start, self.starts[bucket + 1] as usize - start)
    }
}

/// Buckets by hash of keys: row `r` is in bucket `hash(keys) / divisor % buckets`.
///
/// The hash is DataFusion's own for repartitioning. With a divisor of 1 and `buckets` a multiple of `n`, the rows of its partition `p` of
/// `n` are those of the buckets `b` with `b % n == p`: that layout may be told to the planner as `Hash(keys, n)`. A divisor above 1 divides a
/// bucket further: the quotient is independent of the remainder.
#[derive(Debug, Clone)]
pub(crate) struct Bucketing {
    pub(crate) keys: Vec<PhysicalExprRef>,
    pub(crate) buckets: usize,
    pub(crate) divisor: u64,
    /// Where there are: row `r` is in the bucket of its range of `keys` instead, in the order of the ranges.
    pub(crate) ranges: Option<Arc<Ranges>>,
}

/// Ranges of keys in the order of `converter`. Rows with equal keys are in one range.
pub(crate) struct Ranges {
    pub(crate) converter: RowConverter,
    /// The first key of each range but the first, rising.
    pub(crate) starts: Rows,
}

impl std::fmt::Debug for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ranges").field("ranges", &(self.starts.num_rows() + 1)).finish_non_exhaustive()
    }
}

impl Ranges {
    pub(crate) fn count(&self) -> usize {
        self.starts.num_rows() + 1
    }

    /// The range of each row of `keys`.
    fn of(&self, keys: &[ArrayRef], ranges: &mut Vec<u64>) -> Result<()> {
        let rows = self.converter.convert_columns(keys)?;
        let starts = self.starts.num_rows();
        ranges.extend(rows.iter().map(|row| {
            let (mut low, mut high) = (0, starts);
            while low < high {
                let middle = (low + high) / 2;
                if self.starts.row(middle) <= row { low = middle + 1 } else { high = middle }
            }
            low as u64
        }));
        Ok(())
    }
}

/// Room that is used again from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) hashes: Vec<u64>,
    targets: Vec<u32>,
    order: Option<UInt32Array>,
}

impl Scratch {
    /// The rows of the batch that was divided last, in the order of its chunk; none where it has one bucket.
    pub(crate) fn order(&self) -> &[u32] {
        self.order.as_ref().map_or(&[], |order| order.values())
    }
}

impl Bucketing {
    /// The key columns of `batch`; their hashes are left in `scratch`.
    pub(crate) fn hash(&self, batch: &RecordBatch, scratch: &mut Scratch) -> Result<Vec<ArrayRef>> {
        let arrays = self
            .keys
            .iter()
            .map(|key| key.evaluate(batch)?.into_array(batch.num_rows()))
            .collect::<Result<Vec<_>>>()?;
        scratch.hashes.clear();
        if let Some(ranges) = &self.ranges {
            ranges.of(&arrays, &mut scratch.hashes)?;
            return Ok(arrays);
        }
        scratch.hashes.resize(batch.num_rows(), 0);
        create_hashes(&arrays, REPARTITION_RANDOM_STATE.random_state(), &mut scratch.hashes)?;
        Ok(arrays)
    }

    /// Bucket of a row with `hash`.
    pub(crate) fn bucket_of(&self, hash: u64) -> usize {
        (hash / self.divisor % self.buckets as u64) as usize
    }

    /// `batch` in the order of its buckets; its hashes must lie in `scratch`.
    pub(crate) fn divide(&self, batch: &RecordBatch, scratch: &mut Scratch) -> Result<Chunk> {
        scratch.order = None;
        if self.buckets == 1 {
            let rows = batch.num_rows() as u32;
            return Ok(Chunk { batch: batch.clone(), starts: Box::new([0, rows]) });
        }
        let buckets = self.buckets as u64;
        scratch.targets.clear();
        let mask = buckets.is_power_of_two().then(|| buckets - 1);
        match (self.divisor, mask) {
            (1, Some(mask)) => scratch.targets.extend(scratch.hashes.iter().map(|hash| (hash & mask) as u32)),
            (1, None) => scratch.targets.extend(scratch.hashes.iter().map(|hash| (hash % buckets) as u32)),
            (divisor, _) => scratch.targets.extend(scratch.hashes.iter().map(|hash| (hash / divisor % buckets) as u32)),
        }
        // A counting sort: stable, so that rows keep their order within a bucket.
        let mut starts = vec![0u32; self.buckets + 1];
        for &target in &scratch.targets {
            starts[target as usize + 1] += 1;
        }
        for bucket in 0..self.buckets {
            starts[bucket + 1] += starts[bucket];
        }
        let mut next = starts.clone();
        let mut order = vec![0u32; scratch.targets.len()];
        for (row, &target) in scratch.targets.iter().enumerate() {
            let at = &mut next[target as usize];
            order[*at as usize] = row as u32;
            *at += 1;
        }
        let order = UInt32Array::from(order);
        let batch = take_record_batch(batch, &order)?;
        scratch.order = Some(order);
        Ok(Chunk { batch, starts: starts.into_boxed_slice() })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringViewArray};
    use arrow::datatypes::Int64Type;
    use datafusion::physical_expr::expressions::Column;
    use datafusion::physical_plan::metrics::Time;
    use datafusion::physical_plan::repartition::BatchPartitioner;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The rule that all else stands on: buckets packed by `b % n` are DataFusion's partitions of `n`, row for row.
        #[test]
        fn buckets_pack_into_the_partitions_of_datafusion(
            keys in prop::collection::vec((prop::option::of(-40i64..40), prop::option::of("[a-c]{0,2}")), 0..300),
            n in 1usize..9,
            factor in 1usize..9,
        ) {
            let numbers: Int64Array = keys.iter().map(|(number, _)| *number).collect();
            let texts: StringViewArray = keys.iter().map(|(_, text)| text.as_deref()).collect();
            let rows: Int64Array = (0..keys.len() as i64).collect::<Vec<_>>().into();
            let batch = RecordBatch::try_from_iter([
                ("number", Arc::new(numbers) as ArrayRef),
                ("text", Arc::new(texts)),
                ("row", Arc::new(rows)),
            ]).unwrap();
            let on: Vec<PhysicalExprRef> = vec![Arc::new(Column::new("number", 0)), Arc::new(Column::new("text", 1))];
            let mut partitioner = BatchPartitioner::new_hash_partitioner(on.clone(), n, Time::new()).unwrap();
            let mut theirs = vec![Vec::new(); n];
            partitioner.partition(batch.clone(), |partition, batch| {
                theirs[partition].extend_from_slice(batch.column(2).as_primitive::<Int64Type>().values());
                Ok(())
            }).unwrap();
            let bucketing = Bucketing { keys: on, buckets: n * factor, divisor: 1, ranges: None };
            let mut scratch = Scratch::default();
            bucketing.hash(&batch, &mut scratch).unwrap();
            let hashes = scratch.hashes.clone();
            let chunk = bucketing.divide(&batch, &mut scratch).unwrap();
            let mut ours = vec![Vec::new(); n];
            for bucket in 0..bucketing.buckets {
                let (start, len) = chunk.range(bucket);
                let slice = chunk.batch.slice(start, len);
                let rows = slice.column(2).as_primitive::<Int64Type>().values().to_vec();
                prop_assert!(rows.is_sorted());
                prop_assert!(rows.iter().all(|&row| bucketing.bucket_of(hashes[row as usize]) == bucket));
                ours[bucket % n].extend(rows);
            }
            for rows in ours.iter_mut().chain(&mut theirs) {
                rows.sort_unstable();
            }
            prop_assert_eq!(ours, theirs);
        }
    }
}
