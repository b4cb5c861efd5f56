//! What passes by about the keys of an exchange: NULLs, distinct keys, heavy hitters.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Date32Type, Int32Type, Int64Type};
use datafusion::common::{HashSet, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;
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

/// Distinct keys that are kept one by one.
const VALUES_KEPT: usize = 64;

/// Rows of a writer after which keys are not listed any more: each is looked up, which is dear where there are many rows.
const ROWS_LISTED: u64 = 1 << 20;

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
    /// Smallest and largest value of each key column, exact, NULL where it has none; none where nobody has asked, or of types whose order is
    /// not that of equality.
    pub(crate) bounds: Vec<Option<(ScalarValue, ScalarValue)>>,
    /// All keys, where these are few and whole numbers or days of one column; NULL left out.
    pub(crate) values: Option<Vec<ScalarValue>>,
}

/// What is exact about keys.
struct Exact {
    types: Vec<DataType>,
    bounds: Vec<Option<(MinAccumulator, MaxAccumulator)>>,
    values: Option<HashSet<i64>>,
    /// Rows whose keys were listed.
    listed: u64,
}

impl Exact {
    fn new(types: Vec<DataType>) -> Result<Self> {
        let bounds = types.iter().map(|of| {
            ordered(of).then(|| Ok((MinAccumulator::try_new(of)?, MaxAccumulator::try_new(of)?))).transpose()
        });
        let bounds = bounds.collect::<Result<_>>()?;
        let listed = matches!(types[..], [DataType::Int32 | DataType::Int64 | DataType::Date32]);
        Ok(Self { bounds, values: listed.then(HashSet::default), listed: 0, types })
    }

    fn observe(&mut self, keys: &[ArrayRef]) -> Result<()> {
        for (bounds, key) in self.bounds.iter_mut().zip(keys) {
            if let Some((min, max)) = bounds {
                min.update_batch(std::slice::from_ref(key))?;
                max.update_batch(std::slice::from_ref(key))?;
            }
        }
        if let ([of], [key]) = (&self.types[..], keys)
            && let Some(values) = &mut self.values
        {
            let few = match of {
                DataType::Int32 => list::<Int32Type>(values, key),
                DataType::Date32 => list::<Date32Type>(values, key),
                _ => list::<Int64Type>(values, key),
            };
            self.listed += key.len() as u64;
            if !few || self.listed > ROWS_LISTED {
                self.values = None;
            }
        }
        Ok(())
    }

    fn merge(&mut self, mut other: Self) -> Result<()> {
        for (own, other) in self.bounds.iter_mut().zip(&mut other.bounds) {
            if let (Some((min, max)), Some((least, most))) = (own, other) {
                min.update_batch(&[least.evaluate()?.to_array()?])?;
                max.update_batch(&[most.evaluate()?.to_array()?])?;
            }
        }
        self.values = self.values.take().zip(other.values).map(|(own, other)| own.union(&other).copied().collect());
        self.values.take_if(|values| values.len() > VALUES_KEPT);
        Ok(())
    }

    fn bounds(&mut self) -> Result<Vec<Option<(ScalarValue, ScalarValue)>>> {
        let bounds = self
            .bounds
            .iter_mut()
            .map(|bounds| bounds.as_mut().map(|(min, max)| Ok((min.evaluate()?, max.evaluate()?))).transpose());
        bounds.collect()
    }

    fn values(&self) -> Option<Vec<ScalarValue>> {
        let mut values: Vec<i64> = self.values.as_ref()?.iter().copied().collect();
        values.sort_unstable();
        let value = |value: i64| match self.types.first() {
            Some(DataType::Int32) => i32::try_from(value).ok().map(ScalarValue::from),
            Some(DataType::Date32) => i32::try_from(value).ok().map(|day| ScalarValue::Date32(Some(day))),
            _ => Some(ScalarValue::from(value)),
        };
        values.into_iter().map(value).collect()
    }
}

/// True if values of a type are equal just where neither comes before the other, and have no others between them in statistics of files.
fn ordered(of: &DataType) -> bool {
    of.is_integer()
        || matches!(
            of,
            DataType::Date32
                | DataType::Date64
                | DataType::Timestamp(..)
                | DataType::Decimal128(..)
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
        )
}

/// Adds the values of `key`; false where there are more than are kept.
fn list<T>(values: &mut HashSet<i64>, key: &ArrayRef) -> bool
where
    T: ArrowPrimitiveType,
    T::Native: Into<i64>,
{
    let Some(key) = key.as_primitive_opt::<T>() else { return false };
    let mut last = None;
    for value in key.iter().flatten() {
        let value: i64 = value.into();
        if last.replace(value) == Some(value) || !values.insert(value) {
            continue;
        }
        if values.len() > VALUES_KEPT {
            return false;
        }
    }
    true
}

/// Collects facts for one writer.
pub(crate) struct Collector {
    rows: u64,
    nulls: Vec<u64>,
    offset: usize,
    frequent: FrequentItemsSketch<u64>,
    first: ThetaSketch,
    sampled: ThetaSketch,
    exact: Exact,
}

impl Collector {
    /// Of so many `keys`; of columns of these `types` the bounds too.
    pub(crate) fn new(keys: usize, types: Vec<DataType>) -> Result<Self> {
        Ok(Self {
            rows: 0,
            nulls: vec![0; keys],
            offset: 0,
            frequent: FrequentItemsSketch::new(FREQUENT).map_err(sketch_error)?,
            first: ThetaSketchBuilder::default().build().map_err(sketch_error)?,
            sampled: ThetaSketchBuilder::default().build().map_err(sketch_error)?,
            exact: Exact::new(types)?,
        })
    }

    /// Takes note of a batch with key columns `keys` and their `hashes`.
    pub(crate) fn observe(&mut self, keys: &[ArrayRef], hashes: &[u64]) -> Result<()> {
        self.exact.observe(keys)?;
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
        Ok(())
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
        all.exact.merge(other.exact)?;
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
        bounds: all.exact.bounds()?,
        values: all.exact.values(),
    })
}

fn sketch_error(error: datasketches::error::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
