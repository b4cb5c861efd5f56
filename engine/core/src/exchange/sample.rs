//! Samples of the keys that pass, taken from the hashes by which rows find their buckets: most rows cost a comparison.

use datafusion::common::{HashMap, HashSet};

use super::bucketing::Chunk;
use super::facts::HeavyHitter;

/// First rows of a writer whose keys are all looked up; those of twice as many rows after them every other key, and so on.
const ROWS_SHOWN: u64 = 4 << 10;

/// Times that the keys looked up are halved for the number of rows: one of 128 is looked up whatever it is, for rows in the order of their keys.
const HALVINGS: u32 = 7;

/// Most keys that are kept.
const KEYS_KEPT: usize = 2 << 10;

/// Keys that tell how many there are to within 3 %.
const KEYS_ENOUGH: u64 = 1024;

/// Hashes that are looked at together.
const LANES: usize = 16;

/// Fewest such bits for which the rows of some buckets are looked at instead of all hashes.
const MIN_ZEROS: u32 = 3;

/// Chunks that are passed over at the most before one is looked at again, where no new keys come.
const CHUNKS_PASSED: u32 = 7;

/// Keys in a row that have been looked up before, the one before each left out, from which on no new ones are expected: rows in the order of their
/// keys show one key after the other, and none of them again.
const KEYS_AGAIN: u32 = 8;

/// Rows kept of a writer; with twice as many, every other one goes.
const ROWS_KEPT: usize = 4 << 10;

/// Rows of the sample that a heavy key has at least: below, it may be chance.
const HEAVY_ROWS: u64 = 8;

/// Rows of an exchange below which no key is heavy: it is little work at most.
const ROWS_WORTH: u64 = 2 << 10;

/// Smallest share of all rows from which a key counts as heavy.
const HEAVY_SHARE: f64 = 0.01;

/// Distinct keys: those are looked up whose hash has `level` trailing zeros, one of 2 ^ `level` keys, wherever they are. The level rises with
/// the rows that have passed, so the first rows show all keys, and all rows show enough of them; and with the keys that are kept (after Wegman's
/// adaptive sampling; Flajolet: "On adaptive sampling", Computing 43, 1990).
#[derive(Default)]
pub(super) struct Keys {
    seen: HashSet<u64>,
    /// The key that was looked up last: a hot one comes many times.
    last: u64,
    level: u32,
    /// Of keys with fewer trailing zeros nothing is kept any more.
    floor: u32,
    /// Rows that have passed.
    rows: u64,
    /// Whether a key of the chunk was new.
    new: bool,
    /// Keys since then, and since chunks were passed over, that were not.
    again: u32,
    /// Chunks that are passed over where no new keys come, and those left of them.
    pause: u32,
    waits: u32,
}

impl Keys {
    /// Takes note of the rows of a batch, which are divided as `chunk` says by their `hashes`.
    pub(super) fn observe(&mut self, hashes: &[u64], order: &[u32], chunk: &Chunk) {
        if self.waits > 0 {
            self.waits -= 1;
            return self.passed(hashes.len());
        }
        self.observe_chunk(hashes, order, chunk);
        if std::mem::take(&mut self.new) {
            (self.pause, self.again) = (0, 0);
        } else if self.level >= HALVINGS && self.again >= KEYS_AGAIN {
            self.pause = (2 * self.pause + 1).min(CHUNKS_PASSED);
            (self.waits, self.again) = (self.pause, 0);
        }
    }

    fn observe_chunk(&mut self, hashes: &[u64], order: &[u32], chunk: &Chunk) {
        let buckets = chunk.starts.len() - 1;
        // Where the bucket is the remainder by a multiple of 2 ^ `zeros`, so many trailing bits of its number are those of the hash.
        let zeros = buckets.trailing_zeros().min(self.level);
        if zeros < MIN_ZEROS {
            return self.observe_all(hashes);
        }
        for bucket in (0..buckets).step_by(1 << zeros) {
            let (start, rows) = chunk.range(bucket);
            for &row in &order[start..start + rows] {
                let hash = hashes[row as usize];
                if is_shown(hash, self.level) {
                    self.look(hash);
                }
            }
        }
        self.passed(hashes.len());
    }

    fn observe_all(&mut self, hashes: &[u64]) {
        for lanes in hashes.chunks(LANES) {
            let level = self.level;
            // Without a branch for each: soon most have none.
            if lanes.iter().fold(false, |any, &hash| any | is_shown(hash, level)) {
                lanes.iter().filter(|&&hash| is_shown(hash, level)).for_each(|&hash| self.look(hash));
            }
            self.passed(lanes.len());
        }
    }

    fn look(&mut self, hash: u64) {
        // The first one is 0, which is that of NULL: no key.
        if hash == 0 || std::mem::replace(&mut self.last, hash) == hash {
            return;
        }
        if !self.seen.insert(hash) {
            self.again += 1;
            return;
        }
        self.new = true;
        if self.seen.len() > KEYS_KEPT && self.floor < u32::BITS - 1 {
            self.floor += 1;
            self.level = self.level.max(self.floor);
            self.seen.retain(|hash| hash.trailing_zeros() >= self.floor);
        }
    }

    fn passed(&mut self, rows: usize) {
        self.rows += rows as u64;
        if self.level < HALVINGS && self.rows >= ROWS_SHOWN << self.level {
            self.level += 1;
        }
    }
}

/// True if `hash` ends in `level` zeros; only its lower half is looked at, of which twice as many are compared at once.
fn is_shown(hash: u64, level: u32) -> bool {
    (hash as u32) & !(u32::MAX << level) == 0
}

/// Heavy keys: the keys of rows drawn evenly.
pub(super) struct Rows {
    hashes: Vec<u64>,
    /// One row of so many is drawn.
    stride: u64,
    /// Rows to pass over before the next one.
    next: u64,
    /// Rows that passed.
    passed: u64,
    random: u32,
}

impl Default for Rows {
    fn default() -> Self {
        Self { hashes: Vec::new(), stride: 1, next: 0, passed: 0, random: 1 }
    }
}

impl Rows {
    pub(super) fn observe(&mut self, hashes: &[u64]) {
        let rows = hashes.len() as u64;
        while self.next < rows {
            self.hashes.push(hashes[self.next as usize]);
            if self.hashes.len() == 2 * ROWS_KEPT {
                let mut at = 0;
                self.hashes.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.stride *= 2;
            }
            self.next += self.gap();
        }
        self.next -= rows;
        self.passed += rows;
    }

    /// Rows to the next one that is drawn: the stride on average, without a rhythm that the data might have too.
    fn gap(&mut self) -> u64 {
        // The linear congruential generator of Numerical Recipes; its high bits.
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + ((u64::from(self.random) * (2 * self.stride - 1)) >> 32)
    }

    /// The heavy keys of all writers together, by falling share.
    pub(super) fn heavy(writers: &[Self]) -> Vec<HeavyHitter> {
        let rows = writers.iter().map(|writer| writer.passed).sum::<u64>();
        if rows < ROWS_WORTH {
            return Vec::new();
        }
        let rows = rows as f64;
        let mut keys: HashMap<u64, (u64, f64)> = HashMap::new();
        for writer in writers {
            let weight = writer.passed as f64 / writer.hashes.len().max(1) as f64;
            for &hash in &writer.hashes {
                let (drawn, of) = keys.entry(hash).or_default();
                *drawn += 1;
                *of += weight;
            }
        }
        let mut heavy: Vec<HeavyHitter> = keys
            .into_iter()
            .filter(|(_, (drawn, of))| *drawn >= HEAVY_ROWS && *of >= rows * HEAVY_SHARE)
            .map(|(hash, (_, of))| HeavyHitter { hash, share: of / rows, key: None })
            .collect();
        heavy.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.hash.cmp(&b.hash)));
        heavy
    }
}

/// The number of keys of all writers together, of which they have shown `keys` and `rows`.
pub(super) fn distinct(keys: &[Keys], rows: &[Rows]) -> u64 {
    let floor = keys.iter().map(|keys| keys.floor).max().unwrap_or(0);
    let level = keys.iter().map(|keys| keys.level).max().unwrap_or(0);
    let all: HashSet<u64> = keys.iter().flat_map(|keys| keys.seen.iter().copied()).collect();
    // How many keys have so many trailing zeros or more, from `floor` on.
    let found: Vec<u64> =
        (floor..=level).map(|zeros| all.iter().filter(|hash| hash.trailing_zeros() >= zeros).count() as u64).collect();
    let enough = found.iter().rposition(|&found| found >= KEYS_ENOUGH).unwrap_or(0);
    let part = |at: usize| 2f64.powi((floor as usize + at) as i32);
    let mut distinct = found[enough] as f64 * part(enough);
    // Few keys tell of many others only where they are more than chance makes them: then later rows have other keys than the first ones.
    for (at, &found) in found.iter().enumerate().skip(enough + 1) {
        let expected = distinct / part(at);
        if found as f64 > expected + 2.0 * expected.sqrt() + 4.0 {
            distinct = found as f64 * part(at);
        }
    }
    // Rows in the order of a few keys show them one after the other.
    let drawn: HashSet<u64> =
        rows.iter().flat_map(|rows| rows.hashes.iter().copied()).filter(|hash| *hash != 0).collect();
    (distinct.round() as u64).max(drawn.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, UInt64Array};
    use arrow::record_batch::RecordBatch;
    use datafusion::common::hash_utils::RandomState;

    use super::super::bucketing::{Bucketing, Scratch};
    use super::*;

    /// The key of a row, of so many keys and rows.
    type Key = fn(u64, u64, u64) -> u64;

    fn hash(key: u64) -> u64 {
        RandomState::with_seed(0).hash_one(key as i64)
    }

    /// Shows a batch with these hashes, divided into 96 buckets.
    fn observe(sample: &mut Keys, hashes: &[u64]) {
        let bucketing = Bucketing { keys: Vec::new(), buckets: 96, divisor: 1, ranges: None };
        let rows: ArrayRef = Arc::new(UInt64Array::from(hashes.to_vec()));
        let mut scratch = Scratch::default();
        scratch.hashes.extend_from_slice(hashes);
        let chunk = bucketing.divide(&RecordBatch::try_from_iter([("hash", rows)]).unwrap(), &mut scratch).unwrap();
        sample.observe(&scratch.hashes, scratch.order(), &chunk);
    }

    /// The keys of each writer, in order.
    fn counted(writers: Vec<Vec<u64>>) -> u64 {
        let observed = writers.into_iter().map(|keys| {
            let (mut shown, mut rows) = (Keys::default(), Rows::default());
            let hashes: Vec<u64> = keys.into_iter().map(hash).collect();
            for batch in hashes.chunks(8192) {
                observe(&mut shown, batch);
                rows.observe(batch);
            }
            assert!(shown.seen.len() <= KEYS_KEPT);
            (shown, rows)
        });
        let (keys, rows): (Vec<_>, Vec<_>) = observed.unzip();
        distinct(&keys, &rows)
    }

    #[test]
    fn distinct_keys_are_near_the_truth() {
        for (keys, rows, writers) in [
            (1, 1_000_000, 1),
            (7, 1_000_000, 2),
            (200, 3000, 4),
            (200, 1_000_000, 1),
            (200, 1_000_000, 4),
            (1500, 500_000, 1),
            (10_000, 2_000_000, 1),
            (10_000, 2_000_000, 4),
            (50_000, 2_000_000, 2),
            (300_000, 3_000_000, 2),
            (2_000_000, 2_000_000, 1),
        ] {
            let of = |writer: u64, key: Key| {
                (0..rows / writers).map(|row| key(row * writers + writer, keys, rows)).collect::<Vec<_>>()
            };
            let all: [(&str, Key); 4] = [
                ("in turn", |row, keys, _| row % keys),
                ("at random", |row, keys, _| hash(row) % keys),
                ("in order", |row, keys, rows| (u128::from(row) * u128::from(keys) / u128::from(rows)) as u64),
                // Two of five rows have one key.
                ("beside a hot one", |row, keys, _| if row % 5 < 2 { 0 } else { hash(row) % keys }),
            ];
            for (order, key) in all {
                let writers: Vec<_> = (0..writers).map(|writer| of(writer, key)).collect();
                let truth = writers.iter().flatten().collect::<HashSet<_>>().len() as f64;
                let found = counted(writers) as f64;
                // In order, later rows tell of one key of 128.
                let off = if order == "in order" { 0.2 } else { 0.08 };
                assert!((found / truth - 1.0).abs() < off, "{keys} keys {order}, {rows} rows: {found} of {truth}");
            }
        }
    }

    #[test]
    fn null_is_no_key() {
        let (mut keys, mut rows) = (Keys::default(), Rows::default());
        for _ in 0..100 {
            observe(&mut keys, &[0; 10_000]);
            rows.observe(&[0; 10_000]);
        }
        assert_eq!(distinct(&[keys], &[rows]), 0);
    }

    #[test]
    fn heavy_keys_are_found_with_their_share() {
        for rows in [3000, 50_000, 3_000_000u64] {
            let writers = [0, 1, 2].map(|writer| {
                let mut sample = Rows::default();
                // One of the writers has most rows.
                let hashes: Vec<u64> = (0..rows / (1 + 9 * writer))
                    .map(|row| match hash(row ^ (writer << 40)) % 100 {
                        0..40 => hash(1),
                        40..45 => hash(2),
                        45..47 => hash(3),
                        _ => hash(10 + row),
                    })
                    .collect();
                hashes.chunks(1000).for_each(|batch| sample.observe(batch));
                assert!(sample.hashes.len() < 2 * ROWS_KEPT);
                sample
            });
            let heavy = Rows::heavy(&writers);
            let found: Vec<u64> = heavy.iter().map(|heavy| heavy.hash).collect();
            assert_eq!(found, [hash(1), hash(2), hash(3)], "{rows} rows: {heavy:?}");
            for (heavy, share) in heavy.iter().zip([0.4, 0.05, 0.02]) {
                assert!((heavy.share - share).abs() < 0.006 + share * 0.1, "{rows} rows: {heavy:?}");
            }
        }
    }
}
