//! Rows of a logical subplan from those of its inputs.

use std::cell::RefCell;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, HashMap, JoinType};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::utils::{grouping_set_to_exprlist, split_conjunction};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, FetchType, GroupingSet, Join, LogicalPlan, SkipType,
    TableProviderFilterPushDown, TableScan,
};

use super::Finished;
use super::estimate::{Estimate, EstimateSource, OF_JOIN, combined};
use super::join::{KeySide, asked_for, divisor, matching_share};
use super::profile::{ColumnProfile, Profile, UNKNOWN_ROWS, width_of};
use super::selectivity::{column_of, filtered};

/// Profiles of the subplans of one plan: from observations where there are any, else from those below.
#[derive(Debug, Default)]
pub(crate) struct Profiles {
    /// By address of a node. Nodes live in the plan that is borrowed while this is used.
    observed: HashMap<usize, Estimate>,
    derived: RefCell<HashMap<usize, Profile>>,
    /// Leaves that have run.
    finished: Option<Arc<dyn Finished>>,
}

/// A node's place in memory: its name within one plan.
pub(crate) fn address(plan: &LogicalPlan) -> usize {
    std::ptr::from_ref(plan) as usize
}

impl Profiles {
    pub(crate) fn new(observed: HashMap<usize, Estimate>, finished: Option<Arc<dyn Finished>>) -> Self {
        Self { observed, derived: RefCell::default(), finished }
    }

    /// What is known of the rows of `plan` from past runs.
    pub(crate) fn observed(&self, plan: &LogicalPlan) -> Option<Estimate> {
        self.observed.get(&address(plan)).copied()
    }

    /// The rows of `plan`.
    #[recursive::recursive]
    pub(crate) fn of(&self, plan: &LogicalPlan) -> Profile {
        if let Some(known) = self.derived.borrow().get(&address(plan)) {
            return known.clone();
        }
        let mut profile = self.derive(plan);
        if let Some(observed) = self.observed(plan) {
            profile.rows = observed.rows;
            profile.spread = (observed.high / observed.low.max(1.0)).sqrt().clamp(1.0, profile.spread.max(1.0));
            profile.grounded = true;
        }
        self.derived.borrow_mut().insert(address(plan), profile.clone());
        profile
    }

    /// The estimate for `plan`.
    pub(crate) fn estimate(&self, plan: &LogicalPlan) -> Estimate {
        if let Some(observed) = self.observed(plan) {
            return observed;
        }
        let profile = self.of(plan);
        let source = if profile.grounded { EstimateSource::Statistics } else { EstimateSource::Fallback };
        Estimate::within(profile.rows, profile.spread, source)
    }

    fn derive(&self, plan: &LogicalPlan) -> Profile {
        match plan {
            LogicalPlan::TableScan(scan) => scanned(scan),
            LogicalPlan::Filter(filter) => filtered(self.of(&filter.input), &filter.predicate, filter.input.schema()),
            LogicalPlan::Projection(projection) => {
                let input = self.of(&projection.input);
                let columns =
                    projection.expr.iter().map(|expr| column(expr, projection.input.schema(), &input)).collect();
                Profile { columns, ..input }
            }
            LogicalPlan::SubqueryAlias(alias) => self.of(&alias.input),
            LogicalPlan::Subquery(subquery) => self.of(&subquery.subquery),
            LogicalPlan::Repartition(repartition) => self.of(&repartition.input),
            LogicalPlan::Sort(sort) => {
                let input = self.of(&sort.input);
                let rows = sort.fetch.map_or(input.rows, |fetch| input.rows.min(fetch as f64));
                input.with_rows(rows)
            }
            LogicalPlan::Limit(limit) => {
                let input = self.of(&limit.input);
                let skip = match limit.get_skip_type() {
                    Ok(SkipType::Literal(skip)) => skip as f64,
                    _ => 0.0,
                };
                let mut rows = (input.rows - skip).max(0.0);
                if let Ok(FetchType::Literal(Some(fetch))) = limit.get_fetch_type() {
                    rows = rows.min(fetch as f64);
                }
                input.with_rows(rows)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregated(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.of(input);
                let all: Vec<usize> = (0..input.columns.len()).collect();
                let rows = groups(&input, &all);
                input.with_rows(rows)
            }
            LogicalPlan::Window(window) => {
                let mut input = self.of(&window.input);
                let rows = input.rows;
                let fields = window.schema.fields().iter().skip(input.columns.len());
                input.columns.extend(fields.map(|f| ColumnProfile::unknown(f.data_type(), rows)));
                input
            }
            LogicalPlan::Union(union) => {
                let mut inputs = union.inputs.iter().map(|input| self.of(input));
                let Some(mut all) = inputs.next() else { return Profile::unknown(plan.schema().inner(), 1.0) };
                for input in inputs {
                    all.rows += input.rows;
                    all.spread = all.spread.max(input.spread);
                    all.grounded &= input.grounded;
                    for (column, other) in all.columns.iter_mut().zip(input.columns) {
                        column.of_rows += other.of_rows;
                        column.distinct = column.distinct.max(other.distinct);
                        column.range = column.range.zip(other.range).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1)));
                    }
                }
                all
            }
            LogicalPlan::Join(join) => self.joined(join),
            LogicalPlan::Values(values) => {
                let rows = values.values.len() as f64;
                let mut profile = Profile::unknown(plan.schema().inner(), rows);
                (profile.spread, profile.grounded) = (1.0, true);
                profile
            }
            LogicalPlan::EmptyRelation(empty) => {
                let rows = f64::from(u8::from(empty.produce_one_row));
                let mut profile = Profile::unknown(plan.schema().inner(), rows);
                (profile.spread, profile.grounded) = (1.0, true);
                profile
            }
            other => {
                let schema = other.schema().inner();
                if let Some(statistics) = self.finished.as_ref().and_then(|finished| finished.statistics(other)) {
                    return Profile::of_statistics(schema, &statistics);
                }
                let rows = other.inputs().iter().map(|input| self.of(input).rows).fold(0.0, f64::max);
                let rows = if other.inputs().is_empty() { UNKNOWN_ROWS } else { rows };
                Profile::unknown(schema, rows)
            }
        }
    }

    fn aggregated(&self, aggregate: &Aggregate) -> Profile {
        let input = self.of(&aggregate.input);
        let width = aggregate.schema.fields().len();
        let Ok(keys) = grouping_set_to_exprlist(&aggregate.group_expr) else {
            return Profile::unknown(aggregate.schema.inner(), input.rows.sqrt());
        };
        let key_columns: Vec<ColumnProfile> =
            keys.iter().map(|key| column(key, aggregate.input.schema(), &input)).collect();
        let of_keys = Profile { columns: key_columns, ..input.clone() };
        let all: Vec<usize> = (0..of_keys.columns.len()).collect();
        let rows = match aggregate.group_expr.as_slice() {
            [] => 1.0,
            [Expr::GroupingSet(set)] => {
                let at = |exprs: &[Expr]| -> Vec<usize> {
                    exprs.iter().filter_map(|e| keys.iter().position(|key| *key == e)).collect()
                };
                match set {
                    GroupingSet::Rollup(exprs) => {
                        let sets = (0..=exprs.len()).map(|n| exprs.get(..n).unwrap_or_default());
                        sets.map(|exprs| groups(&of_keys, &at(exprs))).sum()
                    }
                    GroupingSet::GroupingSets(sets) => sets.iter().map(|exprs| groups(&of_keys, &at(exprs))).sum(),
                    GroupingSet::Cube(_) => groups(&of_keys, &all) * 2.0,
                }
            }
            _ => groups(&of_keys, &all),
        };
        let mut columns = of_keys.columns;
        for column in &mut columns {
            // In the result a key alone has each of its values once, and the domain stays that of the input.
            column.of_rows = if all.len() == 1 { column.distinct } else { rows.max(column.distinct) };
        }
        let fields = aggregate.schema.fields();
        columns.truncate(width);
        while let Some(field) = fields.get(columns.len()) {
            columns.push(ColumnProfile {
                distinct: rows.max(1.0),
                of_rows: rows,
                known: false,
                range: None,
                nulls: 0.0,
                width: width_of(field.data_type()),
            });
        }
        let spread = if aggregate.group_expr.is_empty() { 1.0 } else { combined([input.spread, 2.5]) };
        Profile { rows, columns, spread, grounded: input.grounded }
    }

    fn joined(&self, join: &Join) -> Profile {
        let (left, right) = (self.of(&join.left), self.of(&join.right));
        let left_keys: Vec<_> = join.on.iter().map(|(l, _)| column(l, join.left.schema(), &left)).collect();
        let right_keys: Vec<_> = join.on.iter().map(|(_, r)| column(r, join.right.schema(), &right)).collect();
        let (mut left_side, mut right_side) = (KeySide::of(&left_keys), KeySide::of(&right_keys));
        if let ([l], [r]) = (left_side.distinct.as_mut_slice(), right_side.distinct.as_mut_slice()) {
            (*l, *r) = (asked_for(*l, left.rows, *r), asked_for(*r, right.rows, *l));
        }
        let nulls = |keys: &[ColumnProfile]| keys.iter().map(|c| 1.0 - c.nulls).product::<f64>();
        let mut inner = left.rows * right.rows * nulls(&left_keys) * nulls(&right_keys);
        if !join.on.is_empty() {
            inner /= divisor(&left_side, &right_side);
        }
        let mut spread = combined([left.spread, right.spread, if join.on.is_empty() { 1.0 } else { OF_JOIN }]);
        let grounded = left.grounded && right.grounded;
        let mut residual = 1.0;
        if let Some(filter) = &join.filter
            && let Ok(schema) = join.left.schema().join(join.right.schema())
        {
            let columns = left.columns.iter().chain(&right.columns).cloned().collect();
            let both = Profile { rows: inner.max(1.0), columns, spread: 1.0, grounded };
            for condition in split_conjunction(filter) {
                residual *= filtered(both.clone(), condition, &schema).rows / both.rows;
            }
            spread = combined([spread, 2.5]);
        }
        inner *= residual;
        let both_columns = || left.columns.iter().chain(&right.columns).cloned().collect::<Vec<_>>();
        // Of several candidates one that passes the rest of the condition is enough.
        let semi = |outer: &Profile, outer_side: &KeySide, inner: &Profile, inner_side: &KeySide| {
            if join.on.is_empty() {
                return outer.rows * if inner.rows < 0.5 { 0.0 } else { residual.max(0.5) };
            }
            let share = matching_share(outer_side, inner_side, inner.rows);
            let fan_out = (inner.rows / left_of_keys(inner_side, inner.rows)).max(1.0);
            outer.rows * share * (1.0 - (1.0 - residual).powf(fan_out))
        };
        let (rows, columns) = match join.join_type {
            JoinType::Inner => (inner, both_columns()),
            JoinType::Left => (inner.max(left.rows), both_columns()),
            JoinType::Right => (inner.max(right.rows), both_columns()),
            JoinType::Full => {
                (inner.max(left.rows).max(right.rows).max(left.rows + right.rows - inner), both_columns())
            }
            JoinType::LeftSemi => (semi(&left, &left_side, &right, &right_side), left.columns.clone()),
            JoinType::RightSemi => (semi(&right, &right_side, &left, &left_side), right.columns.clone()),
            JoinType::LeftAnti => {
                let kept = semi(&left, &left_side, &right, &right_side);
                ((left.rows - kept).max(left.rows * 0.05), left.columns.clone())
            }
            JoinType::RightAnti => {
                let kept = semi(&right, &right_side, &left, &left_side);
                ((right.rows - kept).max(right.rows * 0.05), right.columns.clone())
            }
            JoinType::LeftMark | JoinType::RightMark => {
                let mut outer = if join.join_type == JoinType::LeftMark { left.clone() } else { right.clone() };
                outer.columns.push(ColumnProfile::with_distinct(&DataType::Boolean, 2.0, outer.rows));
                (outer.rows, outer.columns)
            }
        };
        Profile { rows, columns, spread, grounded }
    }
}

/// The column that `expr` gives over the rows of `input`, whose schema is `schema`.
pub(crate) fn column(expr: &Expr, schema: &DFSchema, input: &Profile) -> ColumnProfile {
    if let Some(known) = column_of(expr, schema).and_then(|i| input.columns.get(i)) {
        return known.clone();
    }
    let data_type = expr.get_type(schema).unwrap_or(DataType::Null);
    // A function of columns has no more values than they have together.
    let mut distinct = 1.0;
    for column in expr.column_refs() {
        let known = schema.maybe_index_of_column(column).and_then(|i| input.columns.get(i));
        distinct *= known.map_or(input.rows.max(1.0).sqrt(), |c| c.distinct);
    }
    let mut column = ColumnProfile::with_distinct(&data_type, distinct, input.rows);
    column.known = false;
    column
}

fn left_of_keys(side: &KeySide, rows: f64) -> f64 {
    side.distinct.iter().product::<f64>().min(rows).max(1.0)
}

/// Groups of the rows by the columns at `keys`. Keys depend on one another, so the second counts half, the third a quarter (exponential
/// back-off).
pub(crate) fn groups(input: &Profile, keys: &[usize]) -> f64 {
    let mut distinct: Vec<f64> = keys.iter().map(|&i| input.distinct_left(i)).collect();
    distinct.sort_by(|a, b| b.total_cmp(a));
    let mut product = 1.0;
    for (i, values) in distinct.into_iter().enumerate() {
        product *= values.powf(0.5f64.powi(i.min(3) as i32));
    }
    product.min(input.rows).max(if input.rows > 0.0 { 1.0 } else { 0.0 })
}

fn scanned(scan: &TableScan) -> Profile {
    let table = scan.source.schema();
    let provider = source_as_provider(&scan.source).ok();
    let mut profile = match provider.and_then(|p| p.statistics()) {
        Some(statistics) => Profile::of_statistics(&table, &statistics),
        None => Profile::unknown(&table, UNKNOWN_ROWS),
    };
    // Filters that the source applies in full are gone from the plan above.
    let filters: Vec<&Expr> = scan.filters.iter().collect();
    if let Ok(support) = scan.source.supports_filters_pushdown(&filters)
        && let Ok(schema) = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &table)
    {
        for (filter, support) in filters.into_iter().zip(support) {
            if support == TableProviderFilterPushDown::Exact {
                profile = filtered(profile, filter, &schema);
            }
        }
    }
    if let Some(projection) = &scan.projection {
        profile.columns = projection
            .iter()
            .zip(scan.projected_schema.fields())
            .map(|(&i, field)| {
                let known = profile.columns.get(i).cloned();
                known.unwrap_or_else(|| ColumnProfile::unknown(field.data_type(), profile.rows))
            })
            .collect();
    }
    if let Some(fetch) = scan.fetch {
        profile.rows = profile.rows.min(fetch as f64);
    }
    profile
}
