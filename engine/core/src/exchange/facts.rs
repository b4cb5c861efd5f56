//! What passes by about the keys of an exchange: NULLs, distinct keys, heavy hitters.

use arrow::array::{Array, ArrayRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datasketches::frequencies::{ErrorType, FrequentItemsSketch};
use datasketches::theta::{ThetaSketch, ThetaSketchBuilder, ThetaUnionBuilder};

/// One row in so many is shown to the sketch of frequent keys.
const ROW_STRIDE: usize = 32;

/// Rows of a writer whose keys are all shown to the sketch of distinct keys; of later ones, only keys with a hash divisible by
/// [`KEY_STRIDE`] are.
const ALL_KEYS_ROWS: u64 = 32 << 10;

const KEY_STRIDE: u64 = 32;

/// Entries of the sketch of frequent keys: errors are below 1 / 0.75 / 256 of the rows shown.
const FREQUENT: usize = 256;

/// Smallest share of all rows from which a key counts as heavy.
const HEAVY_SHARE: f64 = 0.01;

/// A key that many rows have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HeavyHitter {
    pub(crate) hash: u64,
    /// Estimated share of all rows, 0 to 1.
    pub(crate) share: f64,
    /// The values of the key columns, where a row with them was found.
    pub(crate) key: Option<Vec<ScalarValue>>,
}

/// Facts about the keys of an exchange.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct KeyFacts {
    pub(crate) rows: u64,
    /// Rows in which a key column is NULL (the largest count over the columns).
    pub(crate) null_rows: u64,
    /// Estimate of the number of distinct keys (Dasgupta, Lang, Rhodes, Thaler: "A framework for estimating stream expression
    /// cardinalities", ICDT 2016), within a few percent of what it was shown.
    pub(crate) distinct: u64,
    /// By falling share (Anderson et al.: "A high-performance algorithm for identifying frequent items in data streams", IMC 2017).
    pub(crate) heavy: Vec<HeavyHitter>,
}

/// Collects facts for one writer.
pub(crate) struct Collector {
    rows: u64,
    nulls: Vec<u64>,
    offset: usize,
    frequent: FrequentItemsSketch<u64>,
    first: ThetaSketch,
    sampled: ThetaSketch,
}

impl Collector {
    pub(crate) fn new(keys: usize) -> Result<Self> {
        Ok(Self {
            rows: 0,
            nulls: vec![0; keys],
            offset: 0,
            frequent: FrequentItemsSketch::new(FREQUENT).map_err(sketch_error)?,
            first: ThetaSketchBuilder::default().build().map_err(sketch_error)?,
            sampled: ThetaSketchBuilder::default().build().map_err(sketch_error)?,
        })
    }

    /// Takes note of a batch with key columns `keys` and their `hashes`.
    pub(crate) fn observe(&mut self, keys: &[ArrayRef], hashes: &[u64]) {
        for (nulls, key) in self.nulls.iter_mut().zip(keys) {
            *nulls += key.logical_null_count() as u64;
        }
        let all = ALL_KEYS_ROWS.saturating_sub(self.rows).min(hashes.len() as u64) as usize;
        hashes[..all].iter().for_each(|hash| self.first.update(hash));
        hashes.iter().filter(|hash| hash.is_multiple_of(KEY_STRIDE)).for_each(|hash| self.sampled.update(hash));
        let mut at = self.offset;
        while at < hashes.len() {
            self.frequent.update(hashes[at]);
            at += ROW_STRIDE;
        }
        self.offset = at - hashes.len();
        self.rows += hashes.len() as u64;
    }
}

/// The facts of all writers of an exchange together.
pub(crate) fn merge(collectors: Vec<Collector>) -> Result<KeyFacts> {
    let mut collectors = collectors.into_iter();
    let Some(mut all) = collectors.next() else { return Ok(KeyFacts::default()) };
    let mut first = ThetaUnionBuilder::default().build().map_err(sketch_error)?;
    let mut sampled = ThetaUnionBuilder::default().build().map_err(sketch_error)?;
    first.update(&all.first).map_err(sketch_error)?;
    sampled.update(&all.sampled).map_err(sketch_error)?;
    for other in collectors {
        all.rows += other.rows;
        all.nulls.iter_mut().zip(&other.nulls).for_each(|(sum, nulls)| *sum += nulls);
        all.frequent.merge(&other.frequent);
        first.update(&other.first).map_err(sketch_error)?;
        sampled.update(&other.sampled).map_err(sketch_error)?;
    }
    let first = first.to_sketch(false).estimate();
    let sampled = sampled.to_sketch(false).estimate() * KEY_STRIDE as f64;
    let shown = all.frequent.total_weight().max(1) as f64;
    let mut heavy: Vec<HeavyHitter> = all
        .frequent
        .frequent_items(ErrorType::NoFalsePositives)
        .into_iter()
        .map(|row| HeavyHitter { hash: *row.item(), share: row.estimate() as f64 / shown, key: None })
        .filter(|hitter| hitter.share >= HEAVY_SHARE && shown >= 64.0)
        .collect();
    heavy.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.hash.cmp(&b.hash)));
    Ok(KeyFacts {
        rows: all.rows,
        null_rows: all.nulls.iter().copied().max().unwrap_or(0),
        distinct: (first.max(sampled).round() as u64).min(all.rows),
        heavy,
    })
}

fn sketch_error(error: datasketches::error::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
