//! Running window functions of a hot partition: its rows in ranges of the window's order, what each range gives added to what those before
//! it gave (a prefix sum over slices: Blelloch, "Prefix sums and their applications", 1990).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::UInt32Array;
use arrow::compute::{SortOptions, concat, take};
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::{Column, binary, case, cast, is_null, lit};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, collect};
use futures::{StreamExt, TryStreamExt, stream};

use super::windows::Running;
use crate::cpu::CpuTimed;
use crate::exchange::slices::whole;
use crate::exchange::{Exchange, Ranges};

/// Rows of the sample for each range: sizes are then within about an eighth of one another.
const SAMPLED: u64 = 128;

/// What a range adds to those after it, by key.
type Totals = HashMap<Vec<ScalarValue>, Vec<ScalarValue>>;

/// Ranges of about the same number of rows over `buckets` of `exchange`, by `keys`.
pub(super) async fn ranges(
    exchange: &Exchange,
    buckets: &[usize],
    keys: &[(PhysicalExprRef, SortOptions)],
    count: usize,
) -> Result<Ranges> {
    let rows: u64 = buckets.iter().map(|&bucket| exchange.sizes[bucket].rows).sum();
    let stride = (rows / (SAMPLED * count as u64)).max(1);
    let mut samples: Vec<Vec<arrow::array::ArrayRef>> = vec![Vec::new(); keys.len()];
    let mut skip = 0;
    for &bucket in buckets {
        let mut batches = exchange.read(whole(bucket, exchange.sizes[bucket].rows));
        while let Some(batch) = batches.try_next().await? {
            let rows = batch.num_rows() as u64;
            let picked: UInt32Array = (skip..rows).step_by(stride as usize).map(|row| row as u32).collect();
            skip = (skip + picked.len() as u64 * stride).saturating_sub(rows);
            if picked.is_empty() {
                continue;
            }
            for (samples, (key, _)) in samples.iter_mut().zip(keys) {
                let values = key.evaluate(&batch)?.into_array(batch.num_rows())?;
                samples.push(take(&values, &picked, None)?);
            }
        }
    }
    let fields = keys
        .iter()
        .map(|(key, options)| Ok(SortField::new_with_options(key.data_type(&exchange.schema)?, *options)))
        .collect::<Result<Vec<_>>>()?;
    let converter = RowConverter::new(fields)?;
    let samples = samples
        .iter()
        .map(|parts| concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>()))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let sample = converter.convert_columns(&samples)?;
    let mut order: Vec<usize> = (0..sample.num_rows()).collect();
    order.sort_unstable_by(|&a, &b| sample.row(a).cmp(&sample.row(b)));
    let mut starts = converter.empty_rows(count, 0);
    let mut last = order.first().copied();
    for range in 1..count {
        let Some(&start) = order.get(order.len() * range / count) else { break };
        // A value that fills several ranges starts one only.
        if last.is_none_or(|last| sample.row(last) < sample.row(start)) {
            starts.push(sample.row(start));
            last = Some(start);
        }
    }
    Ok(Ranges { converter, starts })
}

/// The totals of each of `plans`, which have so many `keys` and then the totals as columns; and what each took. At most `slots` run at a
/// time.
pub(super) async fn totals(
    plans: Vec<Arc<dyn ExecutionPlan>>,
    keys: usize,
    functions: &[Running],
    context: &Arc<TaskContext>,
    slots: usize,
) -> Result<(Vec<Totals>, Vec<Duration>)> {
    let tasks = plans.into_iter().map(|plan| {
        let context = Arc::clone(context);
        async move {
            let task = CpuTimed::new(async move { collect(plan, context).await });
            let task = datafusion::common::runtime::SpawnedTask::spawn(task);
            let (batches, cpu) = task.join().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
            Ok::<_, DataFusionError>((batches?, cpu))
        }
    });
    let tasks: Vec<_> = tasks.collect();
    let done: Vec<(Vec<RecordBatch>, Duration)> = stream::iter(tasks).buffered(slots.max(1)).try_collect().await?;
    let mut all = Vec::new();
    let mut spent = Vec::new();
    for (batches, cpu) in done {
        let mut totals = Totals::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let columns = batch.columns().iter().map(|column| ScalarValue::try_from_array(column, row));
                let mut columns = columns.collect::<Result<Vec<_>>>()?;
                let mut values = columns.split_off(keys).into_iter();
                let values = functions.iter().map(|f| f.total_of(&mut values)).collect::<Result<Vec<_>>>()?;
                totals.insert(columns, values);
            }
        }
        all.push(totals);
        spent.push(cpu);
    }
    Ok((all, spent))
}

/// What the ranges before have given to the first key of a range.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Carry {
    key: Vec<ScalarValue>,
    values: Vec<ScalarValue>,
}

/// The carry into each range, out of the totals of all. Ranges are by key first: only the first key of one can have rows in those before.
pub(super) fn carries(totals: Vec<Totals>) -> Result<Vec<Option<Carry>>> {
    let mut before = Totals::new();
    let mut carries = Vec::new();
    for mut own in totals {
        let mut carry = None;
        for (key, values) in &mut own {
            let Some(carried) = before.get(key) else { continue };
            carry = Some(Carry { key: key.clone(), values: carried.clone() });
            for (value, carried) in values.iter_mut().zip(carried) {
                *value = match (carried.is_null(), value.is_null()) {
                    (true, _) => continue,
                    (false, true) => carried.clone(),
                    (false, false) => carried.add(&*value)?.cast_to(&carried.data_type())?,
                };
            }
        }
        carries.push(carry);
        // An empty range lies between two of the same key.
        if !own.is_empty() {
            before = own;
        }
    }
    Ok(carries)
}

/// `window`, whose last columns are running functions over one range, with `carry` added to the rows of its key; `keys` are the columns of
/// the key.
pub(super) fn carried(
    window: Arc<dyn ExecutionPlan>,
    carry: Option<&Carry>,
    keys: &[usize],
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(carry) = carry else { return Ok(window) };
    let schema = window.schema();
    let column = |at: usize| Arc::new(Column::new(schema.field(at).name(), at)) as PhysicalExprRef;
    let mut own: Option<PhysicalExprRef> = None;
    for (&at, value) in keys.iter().zip(&carry.key) {
        let equal = binary(column(at), Operator::IsNotDistinctFrom, lit(value.clone()), &schema)?;
        own = Some(match own {
            None => equal,
            Some(others) => binary(others, Operator::And, equal, &schema)?,
        });
    }
    let Some(own) = own else { return Ok(window) };
    let first = schema.fields().len() - carry.values.len();
    let expressions = (0..schema.fields().len())
        .map(|at| {
            let value = at.checked_sub(first).map(|at| &carry.values[at]).filter(|value| !value.is_null());
            let expr = match value {
                None => column(at),
                Some(value) => {
                    let sum = added(column(at), value, &schema)?;
                    case(None, vec![(Arc::clone(&own), sum)], Some(column(at)))?
                }
            };
            Ok(ProjectionExpr::new(expr, schema.field(at).name().clone()))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(ProjectionExec::try_new(expressions, window)?))
}

/// `running + value`, or `value` where the range has given nothing yet.
fn added(running: PhysicalExprRef, value: &ScalarValue, schema: &Arc<Schema>) -> Result<PhysicalExprRef> {
    let sum = binary(Arc::clone(&running), Operator::Plus, lit(value.clone()), schema)?;
    let sum = cast(sum, schema, running.data_type(schema)?)?;
    let value = cast(lit(value.clone()), schema, running.data_type(schema)?)?;
    case(None, vec![(is_null(running)?, value)], Some(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(of: &[(i64, Option<i64>)]) -> Totals {
        of.iter().map(|&(key, sum)| (vec![ScalarValue::from(key)], vec![ScalarValue::Int64(sum)])).collect()
    }

    #[test]
    fn a_key_carries_what_all_ranges_before_have_given_it() {
        let ranges = vec![
            totals(&[(1, Some(5)), (2, None)]),
            totals(&[(2, Some(10))]),
            totals(&[]),
            totals(&[(2, None)]),
            totals(&[(2, Some(1)), (3, Some(7))]),
            totals(&[(4, Some(1))]),
        ];
        let carry = |sum| Some(Carry { key: vec![ScalarValue::from(2_i64)], values: vec![ScalarValue::Int64(sum)] });
        assert_eq!(carries(ranges).unwrap(), [None, carry(None), None, carry(Some(10)), carry(Some(10)), None]);
    }
}
