//! Which rows of an exchange a reader's partition gets: slices of buckets.
//!
//! Coalescing, splitting, replicating and sharing are all assignments.

use std::ops::Range;

/// Rows of one bucket, in the bucket's own order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) bucket: usize,
    pub(crate) rows: Range<u64>,
}

/// For each output partition, its slices.
pub(crate) type Assignment = Vec<Vec<Slice>>;

/// A whole bucket of `rows` rows.
pub(crate) fn whole(bucket: usize, rows: u64) -> Slice {
    Slice { bucket, rows: 0..rows }
}

/// The layout that DataFusion calls `Hash(keys, n)`; `sizes` are the rows by bucket, their number a multiple of `n`.
pub(crate) fn canonical(sizes: &[u64], n: usize) -> Assignment {
    debug_assert!(sizes.len().is_multiple_of(n.max(1)));
    let mut partitions = vec![Vec::new(); n];
    for (bucket, &rows) in sizes.iter().enumerate() {
        if rows > 0 {
            partitions[bucket % n].push(whole(bucket, rows));
        }
    }
    partitions
}

/// `rows` rows of `bucket` in `parts` slices of about the same size.
pub(crate) fn split(bucket: usize, rows: u64, parts: usize) -> Vec<Slice> {
    let parts = (parts.max(1) as u64).min(rows.max(1));
    (0..parts).map(|part| Slice { bucket, rows: rows * part / parts..rows * (part + 1) / parts }).collect()
}

/// The rows of `buckets`, each cut into slices for all of `n` partitions; `sizes` are the rows by bucket.
pub(crate) fn sliced(sizes: &[u64], buckets: &[usize], n: usize) -> Assignment {
    let mut partitions = vec![Vec::new(); n.max(1)];
    for &bucket in buckets {
        let rows = sizes.get(bucket).copied().unwrap_or(0);
        for (partition, slice) in partitions.iter_mut().zip(split(bucket, rows, n)) {
            if slice.rows.start < slice.rows.end {
                partition.push(slice);
            }
        }
    }
    partitions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slices_cover_a_bucket_once(rows in 0u64..1000, parts in 0usize..40) {
            let slices = split(3, rows, parts);
            prop_assert_eq!(slices.first().map(|s| s.rows.start), Some(0));
            prop_assert_eq!(slices.last().map(|s| s.rows.end), Some(rows));
            prop_assert!(slices.windows(2).all(|pair| pair[0].rows.end == pair[1].rows.start));
            let sizes: Vec<u64> = slices.iter().map(|s| s.rows.end - s.rows.start).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        }
    }
}
