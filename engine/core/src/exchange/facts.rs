//! What passes by about the keys of an exchange: NULLs, distinct keys, heavy hitters.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Date32Type, Int32Type, Int64Type};
use datafusion::common::{HashSet, ScalarValue};
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;

use super::bucketing::{Chunk, Scratch};
use super::sample::{Keys, Rows, distinct};

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
    /// The number of distinct keys: exact up to some thousand rows a writer, else an estimate, mostly within a few percent. NULL is none of them.
    pub(crate) distinct: u64,
    /// By falling share.
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
                let ends = ends(key);
                min.update_batch(std::slice::from_ref(&ends))?;
                max.update_batch(std::slice::from_ref(&ends))?;
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

/// The smallest and the largest value of `key`, found in one pass, if they are whole numbers or days; else all values. Without AVX, Arrow takes
/// four times as long for 64 bits.
fn ends(key: &ArrayRef) -> ArrayRef {
    fn of<T: ArrowPrimitiveType>(key: &ArrayRef) -> Option<ArrayRef>
    where
        T::Native: Ord,
    {
        let key = key.as_primitive_opt::<T>().filter(|key| key.null_count() == 0)?;
        let (first, rest) = key.values().split_first()?;
        let (min, max) = rest.iter().fold((*first, *first), |(min, max), value| (min.min(*value), max.max(*value)));
        Some(Arc::new(PrimitiveArray::<T>::from_iter_values([min, max])))
    }
    let ends = match key.data_type() {
        DataType::Int32 => of::<Int32Type>(key),
        DataType::Date32 => of::<Date32Type>(key),
        DataType::Int64 => of::<Int64Type>(key),
        _ => None,
    };
    ends.unwrap_or_else(|| Arc::clone(key))
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
    let mut last = [None; VALUES_KEPT];
    for value in key.iter().flatten() {
        let value: i64 = value.into();
        if last[value as usize % VALUES_KEPT].replace(value) == Some(value) || !values.insert(value) {
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
    shown: Rows,
    keys: Keys,
    exact: Exact,
}

impl Collector {
    /// Of so many `keys`; of columns of these `types` the bounds too.
    pub(crate) fn new(keys: usize, types: Vec<DataType>) -> Result<Self> {
        Ok(Self {
            rows: 0,
            nulls: vec![0; keys],
            shown: Rows::default(),
            keys: Keys::default(),
            exact: Exact::new(types)?,
        })
    }

    /// Takes note of a batch with key columns `keys` that was divided into `chunk`; hashes and order lie in `scratch`.
    pub(crate) fn observe(&mut self, keys: &[ArrayRef], scratch: &Scratch, chunk: &Chunk) -> Result<()> {
        self.exact.observe(keys)?;
        for (nulls, key) in self.nulls.iter_mut().zip(keys) {
            *nulls += key.logical_null_count() as u64;
        }
        self.shown.observe(&scratch.hashes);
        self.keys.observe(&scratch.hashes, scratch.order(), chunk);
        self.rows += scratch.hashes.len() as u64;
        Ok(())
    }
}

/// The facts of all writers of an exchange together.
pub(crate) fn merge(collectors: Vec<Collector>) -> Result<KeyFacts> {
    let (mut rows, mut nulls) = (0, Vec::new());
    let (mut shown, mut keys, mut exact): (_, _, Option<Exact>) = (Vec::new(), Vec::new(), None);
    for collector in collectors {
        rows += collector.rows;
        nulls.resize(collector.nulls.len(), 0);
        nulls.iter_mut().zip(&collector.nulls).for_each(|(sum, nulls): (&mut u64, _)| *sum += nulls);
        shown.push(collector.shown);
        keys.push(collector.keys);
        match &mut exact {
            Some(exact) => exact.merge(collector.exact)?,
            None => exact = Some(collector.exact),
        }
    }
    let Some(mut exact) = exact else { return Ok(KeyFacts::default()) };
    Ok(KeyFacts {
        rows,
        null_rows: nulls.into_iter().max().unwrap_or(0),
        distinct: distinct(&keys, &shown).min(rows),
        heavy: Rows::heavy(&shown),
        bounds: exact.bounds()?,
        values: exact.values(),
    })
}
