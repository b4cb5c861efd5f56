//! Inner joins below outer joins: `(a LEFT JOIN b) JOIN c ON c = a` is `(a JOIN c) LEFT JOIN b`. Rows of the outer side that the inner join drops are
//! not looked up first, and the inner joins are one block, whose order is free (Galindo-Legaria and Rosenthal, TODS 1997).

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::{Expr, Filter, Join, JoinType, LogicalPlan, Projection};

use super::block::{in_terms_of, movable, with_columns};
use super::with_inputs;
use crate::cardinality::{Cardinalities, Estimate, EstimateSource, Profiles, address};

/// CPU time of looking up a row in an outer join, in nanoseconds, about.
const LOOK_UP_NS: f64 = 30.0;

/// When joins change places.
pub(super) struct Limits {
    /// Rows of the outer side below which they do not.
    pub(super) min_rows: f64,
    /// Share of them that the inner join may leave.
    pub(super) max_share: f64,
}

const LIMITS: Limits = Limits { min_rows: 20_000.0, max_share: 0.7 };

/// An inner join that was moved below an outer one.
#[derive(Debug, Clone, PartialEq)]
pub struct OuterLater {
    /// Expected rows of the outer side before.
    pub rows_before: f64,
    /// Those that the inner join leaves.
    pub rows_after: f64,
    /// What is saved, in nanoseconds of CPU, about.
    pub saves: f64,
}

/// `plan` with inner joins below outer joins where they drop rows; none where there are none.
pub(crate) fn outer_later(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
) -> Option<(LogicalPlan, Vec<OuterLater>)> {
    outer_later_within(plan, cardinalities, &LIMITS)
}

pub(super) fn outer_later_within(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    limits: &Limits,
) -> Option<(LogicalPlan, Vec<OuterLater>)> {
    let profiles = cardinalities.profiles(plan);
    let mut visit = Visit { cardinalities, profiles: &profiles, limits, found: Vec::new() };
    let plan = visit.plan(plan).ok()?;
    (!visit.found.is_empty()).then_some((plan, visit.found))
}

struct Visit<'a> {
    cardinalities: &'a Cardinalities<'a>,
    /// Of the plan as it was.
    profiles: &'a Profiles,
    limits: &'a Limits,
    found: Vec<OuterLater>,
}

impl Visit<'_> {
    /// From below: an outer join rises past one inner join after the other.
    #[recursive::recursive]
    fn plan(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let (before, original) = (self.found.len(), plan);
        let inputs = plan.inputs().into_iter().map(|input| self.plan(input)).collect::<Result<Vec<_>>>()?;
        let plan = if self.found.len() == before { plan.clone() } else { with_inputs(plan, inputs)? };
        let LogicalPlan::Join(join) = &plan else { return Ok(plan) };
        if join.join_type != JoinType::Inner || join.on.is_empty() {
            return Ok(plan);
        }
        let LogicalPlan::Join(as_written) = original else { return Ok(plan) };
        let rows = |plan: &LogicalPlan| self.profiles.of(plan).rows.max(1.0);
        let written = rows(original);
        let kept = [&as_written.left, &as_written.right].map(|side| (written / rows(side)).min(1.0));
        for (outer_left, kept) in [true, false].into_iter().zip(kept) {
            // What cannot be said with other names stays as it is.
            if let Ok(Some(moved)) = self.moved(join, outer_left, kept)
                && super::same_columns(&moved, &plan)
            {
                return Ok(moved);
            }
        }
        Ok(plan)
    }

    /// `join` with the outer join that is its left input (or its right one) above it; none where that is none, or not worth it. `share`: of the rows of that input, what the inner join leaves.
    fn moved(&mut self, join: &Join, outer_left: bool, share: f64) -> Result<Option<LogicalPlan>> {
        let (side, other) = if outer_left { (&join.left, &join.right) } else { (&join.right, &join.left) };
        let Some(outer) = Outer::of(side)? else { return Ok(None) };
        let kept_left = outer.join.join_type == JoinType::Left;
        let (kept, nullable) =
            if kept_left { (&outer.join.left, &outer.join.right) } else { (&outer.join.right, &outer.join.left) };
        let is_kept = |expr: &Expr| expr.column_refs().into_iter().all(|column| kept.schema().has_column(column));
        let side_schema = side.schema();
        // In columns of the outer join, where they are of this side.
        let below = |expr: &Expr| {
            with_columns(expr, &|column| match side_schema.maybe_index_of_column(column) {
                Some(at) => outer.columns.get(at).cloned(),
                None => Some(Expr::Column(column.clone())),
            })
        };
        let mut on = Vec::new();
        for (left, right) in &join.on {
            let (own, others) = if outer_left { (left, right) } else { (right, left) };
            let own = below(own)?;
            if !is_kept(&own) || !movable(&own) || !movable(others) {
                return Ok(None);
            }
            on.push((own, others.clone()));
        }
        let filter = join.filter.as_ref().map(&below).transpose()?;
        let reads_nullable =
            |expr: &Expr| expr.column_refs().into_iter().any(|column| nullable.schema().has_column(column));
        if filter.as_ref().is_some_and(|filter| reads_nullable(filter) || !movable(filter)) {
            return Ok(None);
        }
        let inner = Join::try_new(
            Arc::clone(kept),
            Arc::clone(other),
            on,
            filter,
            JoinType::Inner,
            join.join_constraint,
            join.null_equality,
            false,
        )?;
        let inner = LogicalPlan::Join(inner);
        let LogicalPlan::Join(joined) = &inner else { return Ok(None) };
        let expected = self.cardinalities.of_plan(&joined.left);
        // What the outer join adds or drops says nothing of the inner one.
        let rows_before = expected.first().map_or(1.0, |kept| kept.rows);
        let rows_after = rows_before * share;
        if rows_before < self.limits.min_rows || rows_after > rows_before * self.limits.max_share {
            return Ok(None);
        }
        if let Some(&identity) = self.cardinalities.identities(&inner).get(&address(&inner)) {
            self.cardinalities.compose(identity, Estimate::within(rows_after, 2.0, EstimateSource::Edges { runs: 1 }));
        }
        let on =
            outer.join.on.iter().map(|(left, right)| {
                if kept_left { (left.clone(), right.clone()) } else { (right.clone(), left.clone()) }
            });
        let mut built = LogicalPlan::Join(Join::try_new(
            Arc::new(inner),
            Arc::clone(nullable),
            on.collect(),
            outer.join.filter.clone(),
            JoinType::Left,
            outer.join.join_constraint,
            outer.join.null_equality,
            false,
        )?);
        for filter in outer.filters.into_iter().rev() {
            built = LogicalPlan::Filter(Filter::try_new(filter, Arc::new(built))?);
        }
        let of_other = || other.schema().columns().into_iter().map(Expr::Column);
        let columns: Vec<Expr> = match outer_left {
            true => outer.columns.iter().cloned().chain(of_other()).collect(),
            false => of_other().chain(outer.columns.iter().cloned()).collect(),
        };
        let columns = columns.into_iter().zip(join.schema.iter()).map(|(expr, (qualifier, field))| match &expr {
            Expr::Column(column) if column.relation.as_ref() == qualifier && column.name == *field.name() => expr,
            _ => expr.alias_qualified(qualifier.cloned(), field.name().clone()),
        });
        let built = LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(built))?);
        self.found.push(OuterLater { rows_before, rows_after, saves: (rows_before - rows_after) * LOOK_UP_NS });
        Ok(Some(built))
    }
}

/// A left or right join below what filters and names.
struct Outer<'p> {
    join: &'p Join,
    /// In columns of the join, the uppermost first.
    filters: Vec<Expr>,
    /// Columns of the plan above, in columns of the join.
    columns: Vec<Expr>,
}

impl<'p> Outer<'p> {
    fn of(plan: &'p LogicalPlan) -> Result<Option<Self>> {
        let columns = || plan.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
        match plan {
            LogicalPlan::Join(join) if matches!(join.join_type, JoinType::Left | JoinType::Right) => {
                Ok(Some(Self { join, filters: Vec::new(), columns: columns() }))
            }
            LogicalPlan::Filter(filter) if movable(&filter.predicate) => {
                let Some(mut outer) = Self::of(&filter.input)? else { return Ok(None) };
                let predicate = in_terms_of(&filter.predicate, &filter.input, &outer.columns)?;
                outer.filters.insert(0, predicate);
                Ok(Some(outer))
            }
            LogicalPlan::Projection(projection) if projection.expr.iter().all(is_plain) => {
                let Some(mut outer) = Self::of(&projection.input)? else { return Ok(None) };
                let columns = projection.expr.iter().map(|expr| in_terms_of(expr, &projection.input, &outer.columns));
                outer.columns = columns.collect::<Result<_>>()?;
                Ok(Some(outer))
            }
            LogicalPlan::SubqueryAlias(alias) => Self::of(&alias.input),
            _ => Ok(None),
        }
    }
}

fn is_plain(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => is_plain(&alias.expr),
        _ => false,
    }
}
