//! The share of rows that a condition keeps, from what is known of the columns.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use super::estimate::combined;
use super::profile::{Profile, number};

/// Conditions of which nothing is known.
const UNKNOWN: f64 = 0.25;
/// Comparisons of which nothing is known (System R, 1979).
const RANGE: f64 = 1.0 / 3.0;
/// `LIKE 'x%'`, and with a wildcard in front.
const PREFIX: f64 = 0.05;
const CONTAINS: f64 = 0.1;

/// Bounds on one column.
struct Bounds {
    column: usize,
    low: f64,
    high: f64,
    /// A bound that is not known, e.g. the value of a subquery.
    open: u32,
}

/// The rows of `profile` that fulfil `predicate`.
pub(crate) fn filtered(mut profile: Profile, predicate: &Expr, schema: &DFSchema) -> Profile {
    let mut bounds: Vec<Bounds> = Vec::new();
    let mut shares: Vec<(f64, bool)> = Vec::new();
    for conjunct in split_conjunction(predicate) {
        if !bound(conjunct, schema, &mut bounds) {
            shares.push(share(conjunct, schema, &mut profile));
        }
    }
    for Bounds { column, low, high, open } in bounds {
        let Some(known) = profile.columns.get_mut(column) else { continue };
        let unknown = RANGE.powi(open as i32);
        let Some((min, max)) = known.range else {
            let sides = i32::from(low.is_finite()) + i32::from(high.is_finite());
            shares.push((RANGE.powi(sides).max(0.1) * unknown, false));
            continue;
        };
        let (from, to) = (low.max(min), high.min(max));
        let step = (max - min + 1.0) / known.distinct.max(1.0);
        let kept = if to < from { 0.0 } else { ((to - from + step) / (max - min + step)).clamp(0.0, 1.0) };
        known.distinct = (known.distinct * kept).max(1.0);
        known.of_rows *= kept.max(1e-9);
        if from <= to {
            known.range = Some((from, to));
        }
        shares.push((kept * (1.0 - known.nulls) * unknown, open == 0));
        known.nulls = 0.0;
    }
    // Conditions on one table go together more often than not: the second counts half, the third a quarter of its weight where they are
    // guesses (exponential back-off).
    shares.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut weight = 1.0;
    for (share, known) in shares {
        let share = share.clamp(1e-7, 1.0);
        profile.rows *= if known { share } else { share.powf(weight) };
        profile.spread = combined([profile.spread, if known { 1.2 } else { 3.0 }]);
        if !known {
            weight /= 2.0;
        }
    }
    profile
}

/// Takes `column < literal` and its like into `bounds`.
fn bound(expr: &Expr, schema: &DFSchema, bounds: &mut Vec<Bounds>) -> bool {
    let mut add = |column: usize, low: f64, high: f64, open: u32| {
        match bounds.iter_mut().find(|b| b.column == column) {
            Some(known) => {
                known.low = known.low.max(low);
                known.high = known.high.min(high);
                known.open += open;
            }
            None => bounds.push(Bounds { column, low, high, open }),
        }
        true
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (column, op, value) = match (column_of(left, schema), column_of(right, schema)) {
                (Some(column), None) => (column, *op, right.as_ref()),
                (None, Some(column)) => match op.swap() {
                    Some(op) => (column, op, left.as_ref()),
                    None => return false,
                },
                _ => return false,
            };
            if !matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq) {
                return false;
            }
            match literal(value).and_then(number) {
                Some(value) if matches!(op, Operator::Lt | Operator::LtEq) => add(column, f64::NEG_INFINITY, value, 0),
                Some(value) => add(column, value, f64::INFINITY, 0),
                None => add(column, f64::NEG_INFINITY, f64::INFINITY, 1),
            }
        }
        Expr::Between(between) if !between.negated => {
            let Some(column) = column_of(&between.expr, schema) else { return false };
            let value = |expr: &Expr| literal(expr).and_then(number);
            match (value(&between.low), value(&between.high)) {
                (Some(low), Some(high)) => add(column, low, high, 0),
                _ => add(column, f64::NEG_INFINITY, f64::INFINITY, 2),
            }
        }
        _ => false,
    }
}

/// The share of rows that one condition keeps, and whether it rests on metadata; narrows the column that it speaks of.
fn share(expr: &Expr, schema: &DFSchema, profile: &mut Profile) -> (f64, bool) {
    match expr {
        Expr::Literal(ScalarValue::Boolean(Some(true)), _) => (1.0, true),
        Expr::Literal(..) => (0.0, true),
        Expr::Not(inner) => negated(share(inner, schema, &mut profile.clone())),
        Expr::IsNull(inner) => match column_of(inner, schema).and_then(|i| profile.columns.get(i)) {
            Some(column) => (column.nulls, true),
            None => (0.1, false),
        },
        Expr::IsNotNull(inner) => match column_of(inner, schema).and_then(|i| profile.columns.get_mut(i)) {
            Some(column) => (1.0 - std::mem::take(&mut column.nulls), true),
            None => (0.9, false),
        },
        Expr::IsTrue(inner) => share(inner, schema, profile),
        Expr::IsNotTrue(inner) | Expr::IsFalse(inner) => negated(share(inner, schema, &mut profile.clone())),
        Expr::InList(list) => {
            let values = list.list.len() as f64;
            let found = match column_of(&list.expr, schema).and_then(|i| profile.columns.get_mut(i)) {
                Some(column) if !list.negated => equal_to(column, values),
                Some(column) => equal_to(&mut column.clone(), values),
                None => ((values * 0.05).min(0.5), false),
            };
            if list.negated { negated(found) } else { found }
        }
        Expr::Between(between) => negated((RANGE * RANGE, column_of(&between.expr, schema).is_none())),
        Expr::Like(like) => {
            let found =
                match literal(&like.pattern) {
                    Some(
                        ScalarValue::Utf8(Some(p)) | ScalarValue::LargeUtf8(Some(p)) | ScalarValue::Utf8View(Some(p)),
                    ) if !p.starts_with(['%', '_']) => (PREFIX, false),
                    _ => (CONTAINS, false),
                };
            if like.negated { negated(found) } else { found }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => binary(left, *op, right, schema, profile),
        Expr::Column(_) => (0.5, false),
        _ => (UNKNOWN, false),
    }
}

fn binary(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema, profile: &mut Profile) -> (f64, bool) {
    match op {
        Operator::And => {
            let (a, b) = (share(left, schema, profile), share(right, schema, profile));
            (a.0 * b.0, a.1 && b.1)
        }
        Operator::Or => {
            // `x = 1 OR x = 2` is a list of values.
            if let (Some((a, m)), Some((b, n))) = (values_of(left, schema), values_of(right, schema))
                && a == b
                && let Some(column) = profile.columns.get_mut(a)
            {
                return equal_to(column, (m + n) as f64);
            }
            // Each branch is judged as the filter that it would be.
            let branch = |expr: &Expr| {
                let whole = profile.rows.max(1.0);
                filtered(profile.clone().with_rows(whole), expr, schema).rows / whole
            };
            let (a, b) = (branch(left), branch(right));
            (a + b - a * b, false)
        }
        Operator::Eq | Operator::IsNotDistinctFrom => match (column_of(left, schema), column_of(right, schema)) {
            (Some(a), Some(b)) => {
                let larger = profile.distinct_left(a).max(profile.distinct_left(b));
                (1.0 / larger.max(1.0), false)
            }
            (Some(column), None) => one_value(profile, column, right),
            (None, Some(column)) => one_value(profile, column, left),
            (None, None) => (0.1, false),
        },
        Operator::NotEq | Operator::IsDistinctFrom => {
            negated(binary(left, Operator::Eq, right, schema, &mut profile.clone()))
        }
        Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => (RANGE, false),
        Operator::LikeMatch | Operator::ILikeMatch | Operator::RegexMatch | Operator::RegexIMatch => (CONTAINS, false),
        _ => (UNKNOWN, false),
    }
}

/// The column that must have one of some values, and how many these are.
fn values_of(expr: &Expr, schema: &DFSchema) -> Option<(usize, usize)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (column, value) = match column_of(left, schema) {
                Some(column) => (column, right),
                None => (column_of(right, schema)?, left),
            };
            literal(value).map(|_| (column, 1))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let ((a, m), (b, n)) = (values_of(left, schema)?, values_of(right, schema)?);
            (a == b).then_some((a, m + n))
        }
        Expr::InList(list) if !list.negated => Some((column_of(&list.expr, schema)?, list.list.len())),
        _ => None,
    }
}

fn one_value(profile: &mut Profile, column: usize, value: &Expr) -> (f64, bool) {
    let Some(column) = profile.columns.get_mut(column) else { return (0.1, false) };
    if let (Some(value), Some((low, high))) = (literal(value).and_then(number), column.range) {
        if value < low || value > high {
            return (1e-7, true);
        }
        column.range = Some((value, value));
    }
    equal_to(column, 1.0)
}

/// Rows with one of `values` values, and the column narrowed to them.
fn equal_to(column: &mut super::profile::ColumnProfile, values: f64) -> (f64, bool) {
    let kept = (values / column.distinct.max(1.0)).min(1.0);
    let share = kept * (1.0 - column.nulls);
    column.of_rows *= kept;
    column.distinct = values.min(column.distinct).max(1.0);
    column.nulls = 0.0;
    (share, column.known)
}

fn negated((share, known): (f64, bool)) -> (f64, bool) {
    (1.0 - share, known)
}

/// The position of the column that `expr` is; casts that keep its order are looked through.
pub(crate) fn column_of(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_of(&alias.expr, schema),
        Expr::Cast(cast) if is_number(cast.field.data_type()) => {
            let at = column_of(&cast.expr, schema)?;
            is_number(schema.field(at).data_type()).then_some(at)
        }
        _ => None,
    }
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}
