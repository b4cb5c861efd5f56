//! Windows whose hot partitions can be divided: running functions, whose slices follow one another, and functions of the whole partition.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::expr_fn::{count, max};
use datafusion::logical_expr::expr::{AggregateFunction, Sort, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, Expr, LogicalPlan, Window, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, lit, when,
};
use sparklet_history::Whole;

/// A window whose hot partitions can be divided.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) by: Vec<Expr>,
    pub(super) order: Vec<Sort>,
    pub(super) how: How,
}

/// How the parts of a partition are put together.
#[derive(Debug)]
pub(super) enum How {
    /// The functions are aggregates of the whole partition: they are computed once and joined to its rows.
    AggregateJoin(Vec<AggregateFunction>),
    /// Slices in the order of the window; what a slice gives is added to what those before it gave.
    Prefix(Vec<Running>),
}

/// A function of all rows up to the current one.
#[derive(Debug)]
pub(super) enum Running {
    /// `row_number` and `rank`: rows before.
    Rows,
    /// `dense_rank`: distinct values of the order before.
    Values,
    Count(AggregateFunction),
    Sum(AggregateFunction),
}

/// How `window` can be divided, or why it cannot; none where it has no partitions.
pub(super) fn recognise(window: &Window) -> Option<std::result::Result<Windows, Whole>> {
    let functions: Vec<&WindowFunction> = window.window_expr.iter().filter_map(function).collect();
    let first = functions.first()?;
    if first.params.partition_by.is_empty() {
        return None;
    }
    Some(divide(window, &functions, first))
}

fn function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => function(&alias.expr),
        _ => None,
    }
}

/// By what the first function of `window` has its partitions.
pub(super) fn partition_by(window: &Window) -> Vec<Expr> {
    window.window_expr.iter().find_map(function).map(|f| f.params.partition_by.clone()).unwrap_or_default()
}

/// The function of a window as its text names it.
fn name(function: &WindowFunction) -> &str {
    match &function.fun {
        WindowFunctionDefinition::AggregateUDF(function) => function.name(),
        WindowFunctionDefinition::WindowUDF(function) => function.name(),
    }
}

fn divide(
    window: &Window,
    functions: &[&WindowFunction],
    first: &WindowFunction,
) -> std::result::Result<Windows, Whole> {
    let (by, order) = (first.params.partition_by.clone(), first.params.order_by.clone());
    if functions.len() != window.window_expr.len()
        || functions.iter().any(|f| f.params.partition_by != by || f.params.order_by != order)
        || order.iter().any(|sort| sort.expr.is_volatile())
    {
        return Err(Whole::Expression);
    }
    if let Some(key) = by.iter().find(|key| !is_simple(key, window)) {
        return Err(Whole::Key { key: key.to_string() });
    }
    let ties = ties_differ(window, &by, &order);
    let classes = functions.iter().map(|function| class(function, ties)).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut whole = Vec::new();
    let mut running = Vec::new();
    for class in classes {
        match class {
            Class::Whole(function) => whole.push(function),
            Class::Running(function) => running.push(function),
        }
    }
    let how = match (whole.is_empty(), running.is_empty()) {
        (false, true) => How::AggregateJoin(whole),
        (true, false) => How::Prefix(running),
        _ => return Err(Whole::Mixed),
    };
    Ok(Windows { by, order, how })
}

enum Class {
    Whole(AggregateFunction),
    Running(Running),
}

fn class(function: &WindowFunction, ties: bool) -> std::result::Result<Class, Whole> {
    let params = &function.params;
    let named = || name(function).to_owned();
    let ordered = !params.order_by.is_empty();
    if params.null_treatment.is_some() || params.args.iter().chain(params.filter.as_deref()).any(Expr::is_volatile) {
        return Err(Whole::Expression);
    }
    let aggregate = match &function.fun {
        WindowFunctionDefinition::WindowUDF(udf) => {
            let running = match udf.name() {
                "row_number" if ordered && ties => return Err(Whole::Ties { function: named() }),
                "row_number" | "rank" => Running::Rows,
                "dense_rank" => Running::Values,
                _ => return Err(Whole::Frame { function: named() }),
            };
            if !ordered || (matches!(running, Running::Values) && params.order_by.len() != 1) {
                return Err(Whole::NoOrder { function: named() });
            }
            return Ok(Class::Running(running));
        }
        WindowFunctionDefinition::AggregateUDF(udf) => {
            let (args, filter) = (params.args.clone(), params.filter.clone());
            AggregateFunction::new_udf(Arc::clone(udf), args, params.distinct, filter, Vec::new(), None)
        }
    };
    let frame = &params.window_frame;
    let from_start = matches!(&frame.start_bound, WindowFrameBound::Preceding(rows) if rows.is_null());
    let to_end = matches!(&frame.end_bound, WindowFrameBound::Following(rows) if rows.is_null());
    let to_current = matches!(&frame.end_bound, WindowFrameBound::CurrentRow);
    let peers = frame.units != WindowFrameUnits::Rows;
    if from_start && (to_end || (to_current && peers && !ordered)) {
        return Ok(Class::Whole(aggregate));
    }
    if !from_start || !to_current || params.distinct {
        return Err(Whole::Frame { function: named() });
    }
    if !ordered {
        return Err(Whole::NoOrder { function: named() });
    }
    if !peers && ties {
        return Err(Whole::Ties { function: named() });
    }
    match aggregate.func.name() {
        "count" => Ok(Class::Running(Running::Count(aggregate))),
        "sum" => Ok(Class::Running(Running::Sum(aggregate))),
        _ => Err(Whole::NotDecomposable { function: named() }),
    }
}

/// True if rows of equal rank may differ: then it depends on the order in which they come which of them has which number. They are equal
/// where all columns are keys of the window, and there are none where some of these are unique.
fn ties_differ(window: &Window, by: &[Expr], order: &[Sort]) -> bool {
    let schema = window.input.schema();
    let at = |expr: &Expr| match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    };
    let keys: HashSet<usize> = by.iter().chain(order.iter().map(|sort| &sort.expr)).filter_map(at).collect();
    let unique = schema.functional_dependencies().iter().any(|dependence| {
        dependence.mode == datafusion::common::Dependency::Single
            && !dependence.nullable
            && dependence.target_indices.len() == schema.fields().len()
            && dependence.source_indices.iter().all(|source| keys.contains(source))
    });
    !unique && keys.len() < schema.fields().len()
}

/// Columns of types whose equality is that of their bytes.
fn is_simple(key: &Expr, window: &Window) -> bool {
    let Expr::Column(column) = key else { return false };
    let schema = window.input.schema();
    let Some(at) = schema.maybe_index_of_column(column) else { return false };
    let data_type = schema.field(at).data_type();
    data_type.is_integer()
        || data_type.is_temporal()
        || matches!(
            data_type,
            DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Boolean
                | DataType::Decimal128(..)
                | DataType::Decimal256(..)
        )
}

impl Windows {
    /// Names of the functions.
    pub(super) fn functions(window: &Window) -> Vec<String> {
        window.window_expr.iter().filter_map(function).map(|f| name(f).to_owned()).collect()
    }

    /// What a partition or a slice of it adds to those that follow, by key, of `rows`.
    pub(super) fn totals(&self, rows: LogicalPlan) -> Result<LogicalPlan> {
        let totals: Vec<Expr> = match &self.how {
            How::AggregateJoin(functions) => functions.iter().cloned().map(Expr::AggregateFunction).collect(),
            How::Prefix(functions) => functions.iter().map(|f| self.total(f)).collect::<Result<Vec<_>>>()?.concat(),
        };
        let totals = totals.into_iter().enumerate().map(|(at, total)| total.alias(format!("__total{at}"))).collect();
        Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(rows), self.by.clone(), totals)?))
    }

    fn total(&self, function: &Running) -> Result<Vec<Expr>> {
        Ok(match function {
            Running::Rows => vec![count(lit(1_i64))],
            Running::Values => {
                let Some(value) = self.order.first().map(|sort| sort.expr.clone()) else { return Ok(Vec::new()) };
                let distinct =
                    AggregateFunction::new_udf(count_udaf(), vec![value.clone()], true, None, Vec::new(), None);
                let null = when(value.is_null(), lit(1_i64)).otherwise(lit(0_i64))?;
                vec![Expr::AggregateFunction(distinct), max(null)]
            }
            Running::Count(function) | Running::Sum(function) => vec![Expr::AggregateFunction(function.clone())],
        })
    }
}

impl Running {
    /// Its total out of the columns that [`Windows::totals`] has for it, which are taken off `columns`.
    pub(super) fn total_of(&self, columns: &mut impl Iterator<Item = ScalarValue>) -> Result<ScalarValue> {
        let mut next = || columns.next().unwrap_or(ScalarValue::Null);
        match self {
            Self::Rows => next().cast_to(&DataType::UInt64),
            Self::Values => {
                let (values, null) = (next(), next());
                values.add(null)?.cast_to(&DataType::UInt64)
            }
            Self::Count(_) | Self::Sum(_) => Ok(next()),
        }
    }
}
