//! How an exchange by the keys of groups is packed: whole buckets together, hot ones apart.

use super::units::{Limits, makespan};

/// Tasks for each slot that whole buckets are packed to.
const TASKS_PER_SLOT: u64 = 4;

/// A packing of all buckets that have rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packing {
    /// Buckets whose rows are spread over tasks.
    pub(super) hot: Vec<usize>,
    pub(super) hot_rows: u64,
    /// Slices that the rows of hot buckets are worth.
    pub(super) slices: usize,
    /// Whole buckets, by task.
    pub(super) cold: Vec<Vec<usize>>,
    /// Rows by task if nothing was changed.
    pub(super) before: Vec<u64>,
    /// The same with hot buckets in slices.
    pub(super) after: Vec<u64>,
}

/// How to pack buckets of so many `rows`; none where nothing is hot enough to be worth it. With `force` the largest bucket always is.
pub(super) fn pack(rows: &[u64], limits: Limits, force: bool) -> Option<Packing> {
    let slots = limits.slots.max(1);
    let total: u64 = rows.iter().sum();
    let target = (total / (slots as u64 * TASKS_PER_SLOT)).max(limits.min_task).max(1);
    let mut hot: Vec<usize> = (0..rows.len()).filter(|&bucket| rows[bucket] > 2 * target).collect();
    if hot.is_empty() && force {
        hot.extend((0..rows.len()).max_by_key(|&bucket| rows[bucket]).filter(|&bucket| rows[bucket] > 1));
    }
    if hot.is_empty() {
        return None;
    }
    let hot_rows: u64 = hot.iter().map(|&bucket| rows[bucket]).sum();
    let slices = (hot_rows.div_ceil(target) as usize).max(2);
    let mut cold: Vec<Vec<usize>> = Vec::new();
    let mut after = Vec::new();
    let mut open = 0;
    for bucket in (0..rows.len()).filter(|bucket| rows[*bucket] > 0 && !hot.contains(bucket)) {
        match (cold.last_mut(), after.last_mut()) {
            (Some(task), Some(weight)) if open + rows[bucket] <= target => {
                task.push(bucket);
                *weight += rows[bucket];
                open = *weight;
            }
            _ => {
                cold.push(vec![bucket]);
                after.push(rows[bucket]);
                open = rows[bucket];
            }
        }
    }
    after.extend(
        (0..slices as u64).map(|slice| hot_rows * (slice + 1) / slices as u64 - hot_rows * slice / slices as u64),
    );
    let mut before = vec![0; slots];
    rows.iter().enumerate().for_each(|(bucket, rows)| before[bucket % slots] += rows);
    let (now, then) = (makespan(before.iter().copied(), slots), makespan(after.iter().copied(), slots));
    // What the split costs: hot rows move once more.
    let pays = then + then / 10 < now;
    (pays || force).then_some(Packing { hot, hot_rows, slices, cold, before, after })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(slots: usize, min_task: u64) -> Limits {
        Limits { slots, min_task, build_bytes: u64::MAX, parent_bytes: None }
    }

    proptest! {
        #[test]
        fn every_bucket_is_in_one_place(
            rows in prop::collection::vec(0u64..5_000, 1..60),
            slots in 1usize..9,
            min_task in 1u64..500,
            force: bool,
        ) {
            let Some(packing) = pack(&rows, limits(slots, min_task), force) else { return Ok(()) };
            let mut all: Vec<usize> = packing.cold.concat();
            all.extend(&packing.hot);
            all.sort_unstable();
            let expected: Vec<usize> = (0..rows.len()).filter(|&bucket| rows[bucket] > 0).collect();
            prop_assert_eq!(all, expected);
            prop_assert_eq!(packing.before.iter().sum::<u64>(), rows.iter().sum::<u64>());
            prop_assert_eq!(packing.after.iter().sum::<u64>(), rows.iter().sum::<u64>());
        }
    }

    #[test]
    fn a_hot_bucket_is_apart_and_even_ones_are_left_alone() {
        let mut rows = vec![9_000u64; 64];
        assert_eq!(pack(&rows, limits(8, 1_000), false), None);
        rows[17] = 400_000;
        let packing = pack(&rows, limits(8, 1_000), false).unwrap();
        assert_eq!(packing.hot, [17]);
        let ideal: u64 = rows.iter().sum::<u64>() / 8;
        assert!(makespan(packing.after, 8) * 100 <= ideal * 125);
        assert_eq!(pack(&[10, 500_000, 10], limits(8, 1 << 20), false), None, "too few rows to be worth a task");
    }
}
