//! How a join of two finished exchanges is cut into units of work: small buckets together, hot ones in slices.

use std::cmp::Reverse;

use datafusion::common::JoinType;

use crate::exchange::Size;
use crate::exchange::slices::{Slice, split, whole};

/// A hash join of its own: one build side, and slices of the other side as its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// The build side is the join's right input.
    pub(crate) swapped: bool,
    pub(crate) build: Vec<Slice>,
    pub(crate) probe: Vec<Vec<Slice>>,
    /// Expected work of the build side, in weights (see [`Limits`]).
    pub(crate) build_weight: u64,
    /// Expected work of each slice.
    pub(crate) probe_weights: Vec<u64>,
    /// Rows and bytes of the build side.
    pub(crate) build_size: Size,
    pub(crate) method: Method,
}

/// How a unit is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Hash,
    /// The build side of one bucket is too large for a hash table: its rows are divided once more, by other bits of the hash.
    Redivide,
    /// Dividing does not make it smaller (few keys have most rows): sorted runs, which spill.
    SortMerge,
}

impl Unit {
    fn weight(&self) -> u64 {
        self.build_weight + self.probe_weights.iter().sum::<u64>()
    }
}

/// Bounds of a division.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Tasks at the same time.
    pub(crate) slots: usize,
    /// Smallest task worth being one, in weights: 1 a probed row, [`BUILD_WEIGHT`] a row of a build side.
    pub(crate) min_task: u64,
    /// Bytes that one hash table may have.
    pub(crate) build_bytes: u64,
    /// Bytes of the hash table over the bucket that is divided here; none where it is the whole join.
    pub(crate) parent_bytes: Option<u64>,
}

/// Work for a row of the build side, in rows of the probe side: measured on joins of integers, 2 to 3.
pub(crate) const BUILD_WEIGHT: u64 = 2;

/// Tasks a slot: so that the last to end leaves the others idle for no more than 1 / 8 of the time.
const TASKS_PER_SLOT: u64 = 8;

/// A join over all buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Division {
    /// By falling weight; first slices first.
    pub(crate) units: Vec<Unit>,
    /// Buckets whose probe side was cut.
    pub(crate) split_buckets: Vec<usize>,
    /// Buckets that can give no row.
    pub(crate) skipped: usize,
    /// Where it was made for the sake of memory alone: bytes of the largest hash table otherwise, and how many it may have.
    pub(crate) too_large: Option<(u64, u64)>,
}

/// True if a bucket with so many rows on each side can give a row.
pub(crate) fn gives_rows(join: JoinType, left: u64, right: u64) -> bool {
    match join {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => left > 0 && right > 0,
        JoinType::Left | JoinType::LeftAnti | JoinType::LeftMark => left > 0,
        JoinType::Right | JoinType::RightAnti | JoinType::RightMark => right > 0,
        JoinType::Full => left + right > 0,
    }
}

/// Divides the join of two exchanges, whose buckets have the sizes `left` and `right`. Each row of a bucket that can give rows is in one
/// unit; all rows of a bucket's build side are in one unit, so that each unit is a join of its own whatever the join type.
pub(crate) fn divide(join: JoinType, left: &[Size], right: &[Size], limits: Limits) -> Division {
    let cheaper_swapped = |b: usize| (right[b].rows, right[b].bytes) < (left[b].rows, left[b].bytes);
    let sides = |b: usize, swapped: bool| if swapped { (right[b], left[b]) } else { (left[b], right[b]) };
    let weight = |b: usize| {
        let (build, probe) = sides(b, cheaper_swapped(b));
        build.rows * BUILD_WEIGHT + probe.rows
    };
    let alive: Vec<usize> = (0..left.len()).filter(|&b| gives_rows(join, left[b].rows, right[b].rows)).collect();
    let total: u64 = alive.iter().map(|&b| weight(b)).sum();
    let target = (total / (limits.slots.max(1) as u64 * TASKS_PER_SLOT)).max(limits.min_task).max(1);
    let mut units: Vec<Unit> = Vec::new();
    let mut split_buckets = Vec::new();
    // Small buckets are put together by the side that is built, so that no unit needs two.
    let mut open: [Option<Unit>; 2] = [None, None];
    for &bucket in &alive {
        let swapped = cheaper_swapped(bucket);
        let (build, probe) = sides(bucket, swapped);
        let build_weight = build.rows * BUILD_WEIGHT;
        let table = build.hash_table();
        if table > limits.build_bytes && build.rows > 1 {
            let stuck = limits.parent_bytes.is_some_and(|parent| table > parent / 4 * 3);
            units.push(Unit {
                swapped,
                build: slice_of(bucket, build.rows),
                probe: vec![slice_of(bucket, probe.rows)],
                build_weight,
                probe_weights: vec![probe.rows],
                build_size: build,
                method: if stuck { Method::SortMerge } else { Method::Redivide },
            });
            continue;
        }
        if probe.rows > target + target / 4 {
            let slices = split(bucket, probe.rows, probe.rows.div_ceil(target) as usize);
            split_buckets.push(bucket);
            units.push(Unit {
                swapped,
                build: slice_of(bucket, build.rows),
                probe_weights: slices.iter().map(|s| s.rows.end - s.rows.start).collect(),
                probe: slices.into_iter().map(|slice| vec![slice]).collect(),
                build_weight,
                build_size: build,
                method: Method::Hash,
            });
            continue;
        }
        let slot = &mut open[usize::from(swapped)];
        if let Some(unit) = slot
            && (unit.weight() + build_weight + probe.rows > target
                || unit.build_size.plus(build).hash_table() > limits.build_bytes)
        {
            units.extend(slot.take());
        }
        let unit = slot.get_or_insert_with(|| Unit {
            swapped,
            build: Vec::new(),
            probe: vec![Vec::new()],
            build_weight: 0,
            probe_weights: vec![0],
            build_size: Size::default(),
            method: Method::Hash,
        });
        unit.build.extend(slice_of(bucket, build.rows));
        unit.probe[0].extend(slice_of(bucket, probe.rows));
        unit.build_weight += build_weight;
        unit.probe_weights[0] += probe.rows;
        unit.build_size = unit.build_size.plus(build);
    }
    units.extend(open.into_iter().flatten());
    units.sort_by_key(|unit| Reverse(unit.weight()));
    Division { units, split_buckets, skipped: left.len() - alive.len(), too_large: None }
}

fn slice_of(bucket: usize, rows: u64) -> Vec<Slice> {
    if rows == 0 { Vec::new() } else { vec![whole(bucket, rows)] }
}

/// Time until the last of `tasks` ends when `slots` take them one by one, the longest first (Graham: "Bounds on multiprocessing timing
/// anomalies", 1969), in the unit of the tasks.
pub(crate) fn makespan(tasks: impl IntoIterator<Item = u64>, slots: usize) -> u64 {
    let mut tasks: Vec<u64> = tasks.into_iter().collect();
    tasks.sort_unstable_by_key(|&task| Reverse(task));
    let mut busy: std::collections::BinaryHeap<Reverse<u64>> = (0..slots.max(1)).map(|_| Reverse(0)).collect();
    let mut last = 0;
    for task in tasks {
        let Reverse(free) = busy.pop().unwrap_or(Reverse(0));
        last = last.max(free + task);
        busy.push(Reverse(free + task));
    }
    last
}

impl Division {
    /// Units that are not joined by one hash table.
    pub(crate) fn oversized(&self) -> usize {
        self.units.iter().filter(|unit| unit.method != Method::Hash).count()
    }

    /// Expected work by task, builds counted with the first slice.
    pub(crate) fn task_weights(&self) -> Vec<u64> {
        let of = |unit: &Unit| {
            let mut weights = unit.probe_weights.clone();
            if let Some(first) = weights.first_mut() {
                *first += unit.build_weight;
            }
            weights
        };
        self.units.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn any_join() -> impl Strategy<Value = JoinType> {
        prop::sample::select(vec![
            JoinType::Inner,
            JoinType::Left,
            JoinType::Right,
            JoinType::Full,
            JoinType::LeftSemi,
            JoinType::RightSemi,
            JoinType::LeftAnti,
            JoinType::RightAnti,
            JoinType::LeftMark,
            JoinType::RightMark,
        ])
    }

    fn sizes(rows: &[u64]) -> Vec<Size> {
        rows.iter().map(|&rows| Size { rows, bytes: rows * 8 }).collect()
    }

    /// Rows of each bucket that the units hold, by side; each row once.
    fn covered<'a>(slices: impl Iterator<Item = &'a Slice>) -> BTreeMap<usize, u64> {
        let mut by_bucket: BTreeMap<usize, Vec<&Slice>> = BTreeMap::new();
        slices.for_each(|slice| by_bucket.entry(slice.bucket).or_default().push(slice));
        by_bucket
            .into_iter()
            .map(|(bucket, mut slices)| {
                slices.sort_by_key(|slice| slice.rows.start);
                let mut end = 0;
                for slice in slices {
                    assert_eq!(slice.rows.start, end, "a gap or an overlap in bucket {bucket}");
                    end = slice.rows.end;
                }
                (bucket, end)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_unit(
            join in any_join(),
            rows in prop::collection::vec((0u64..2000, 0u64..2000, any::<bool>()), 1..40),
            slots in 1usize..9,
            min_task in 1u64..500,
        ) {
            let hot = |(l, r, hot): &(u64, u64, bool)| if *hot { (l / 100, r * 20) } else { (l / 10, r / 10) };
            let left = sizes(&rows.iter().map(|r| hot(r).0).collect::<Vec<_>>());
            let right = sizes(&rows.iter().map(|r| hot(r).1).collect::<Vec<_>>());
            let division = divide(join, &left, &right, Limits { slots, min_task, build_bytes: 4000, parent_bytes: None });
            let left_slices = division.units.iter().flat_map(|u| if u.swapped { u.probe.concat() } else { u.build.clone() }).collect::<Vec<_>>();
            let right_slices = division.units.iter().flat_map(|u| if u.swapped { u.build.clone() } else { u.probe.concat() }).collect::<Vec<_>>();
            let (lefts, rights) = (covered(left_slices.iter()), covered(right_slices.iter()));
            for bucket in 0..left.len() {
                let alive = gives_rows(join, left[bucket].rows, right[bucket].rows);
                let expected = |rows: u64| if alive { rows } else { 0 };
                prop_assert_eq!(lefts.get(&bucket).copied().unwrap_or(0), expected(left[bucket].rows));
                prop_assert_eq!(rights.get(&bucket).copied().unwrap_or(0), expected(right[bucket].rows));
                // Both sides of a bucket meet in one unit.
                let units = division.units.iter().filter(|u| u.build.iter().chain(u.probe.iter().flatten()).any(|s| s.bucket == bucket)).count();
                prop_assert_eq!(units, usize::from(alive && left[bucket].rows + right[bucket].rows > 0));
            }
            prop_assert!(division.units.iter().all(|u| !u.probe.is_empty() && u.probe.len() == u.probe_weights.len()));
        }

        #[test]
        fn makespan_is_within_the_bounds_of_graham(tasks in prop::collection::vec(0u64..1000, 0..60), slots in 1usize..12) {
            let total: u64 = tasks.iter().sum();
            let longest = tasks.iter().copied().max().unwrap_or(0);
            let span = makespan(tasks, slots);
            prop_assert!(span >= longest.max(total.div_ceil(slots as u64)));
            prop_assert!(span <= total / slots as u64 + longest);
        }
    }

    #[test]
    fn a_hot_bucket_no_longer_sets_the_time() {
        // 40 % of the rows in one bucket of 64, on either side.
        let mut rows = vec![10_000u64; 64];
        rows[17] = 420_000;
        let dimension = sizes(&[100; 64]);
        for (left, right) in [(dimension.clone(), sizes(&rows)), (sizes(&rows), dimension)] {
            for slots in [2, 8, 32] {
                let limits = Limits { slots, min_task: 1000, build_bytes: u64::MAX, parent_bytes: None };
                let division = divide(JoinType::Full, &left, &right, limits);
                assert!(division.split_buckets.contains(&17));
                assert!(slots == 32 || division.split_buckets.len() == 1, "{slots} slots");
                let weights = division.task_weights();
                let ideal = weights.iter().sum::<u64>() / slots as u64;
                assert!(makespan(weights, slots) * 100 <= ideal * 125, "{slots} slots");
            }
        }
    }
}
