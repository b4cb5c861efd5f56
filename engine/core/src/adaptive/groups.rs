//! Aggregates whose hot group partial aggregation does not make smaller: those with DISTINCT arguments.
//!
//! The state of such an aggregate is the set of its distinct values: all of it arrives where the group is finished. So the rows of a hot group
//! are first divided by the distinct value (as a group of key and value), then counted; one such leg for each distinct argument and one for all
//! aggregates that are not distinct. The legs are joined by the key, NULL equal to NULL; each leg has all keys.

use std::sync::Arc;

use datafusion::common::{Column, NullEquality};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Projection};
use sparklet_history::Whole;

/// Functions that give for the distinct values of a group what they give with DISTINCT for all.
const OF_DISTINCT: [&str; 5] = ["count", "sum", "avg", "min", "max"];

/// Functions whose state grows with the rows of a group.
const NOT_DECOMPOSABLE: [&str; 7] = [
    "median",
    "array_agg",
    "string_agg",
    "percentile_cont",
    "quantile_cont",
    "nth_value",
    "approx_percentile_cont_with_weight",
];

/// An aggregate whose hot groups can be divided.
#[derive(Debug)]
pub(super) struct Distinct {
    /// By distinct arguments: the numbers of the aggregates that have them.
    legs: Vec<(Vec<Expr>, Vec<usize>)>,
    /// Numbers of those that are not distinct.
    plain: Vec<usize>,
}

/// How `aggregate` can be divided, or why it cannot; none where partial aggregation does it all.
pub(super) fn recognise(aggregate: &Aggregate) -> Option<std::result::Result<Distinct, Whole>> {
    let functions: Vec<&AggregateFunction> = aggregate.aggr_expr.iter().filter_map(function).collect();
    let grows = |f: &&AggregateFunction| f.params.distinct || NOT_DECOMPOSABLE.contains(&f.func.name());
    if !functions.iter().any(grows) {
        return None;
    }
    Some(divide(aggregate, &functions))
}

fn divide(aggregate: &Aggregate, functions: &[&AggregateFunction]) -> std::result::Result<Distinct, Whole> {
    if aggregate.group_expr.is_empty() {
        return Err(Whole::NoKey);
    }
    if let Some(key) = aggregate.group_expr.iter().find(|key| !matches!(key, Expr::Column(_))) {
        return Err(Whole::Key { key: key.to_string() });
    }
    if functions.len() != aggregate.aggr_expr.len() {
        return Err(Whole::Expression);
    }
    let mut found = Distinct { legs: Vec::new(), plain: Vec::new() };
    for (at, function) in functions.iter().enumerate() {
        let params = &function.params;
        let name = || function.func.name().to_owned();
        if params.args.iter().chain(params.filter.as_deref()).any(Expr::is_volatile) {
            return Err(Whole::Expression);
        }
        if !params.distinct {
            found.plain.push(at);
            continue;
        }
        if params.filter.is_some() || !params.order_by.is_empty() || !OF_DISTINCT.contains(&function.func.name()) {
            return Err(Whole::NotDecomposable { function: name() });
        }
        match found.legs.iter_mut().find(|(args, _)| *args == params.args) {
            Some((_, numbers)) => numbers.push(at),
            None => found.legs.push((params.args.clone(), vec![at])),
        }
    }
    match functions.iter().find(|f| !f.params.distinct && NOT_DECOMPOSABLE.contains(&f.func.name())) {
        Some(function) if found.legs.is_empty() => {
            Err(Whole::NotDecomposable { function: function.func.name().to_owned() })
        }
        _ => Ok(found),
    }
}

fn function(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::AggregateFunction(function) => Some(function),
        Expr::Alias(alias) => function(&alias.expr),
        _ => None,
    }
}

impl Distinct {
    /// The distinct arguments.
    pub(super) fn arguments(&self) -> Vec<String> {
        self.legs.iter().map(|(args, _)| args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")).collect()
    }

    /// The rows of `aggregate` for the groups in `rows`, which stands in for its input; columns in its order.
    pub(super) fn plan(&self, aggregate: &Aggregate, rows: &LogicalPlan) -> Result<LogicalPlan> {
        let keys = aggregate.group_expr.len();
        let mut legs: Vec<(LogicalPlan, Vec<usize>)> = Vec::new();
        if !self.plain.is_empty() {
            let plain: Vec<Expr> = self.plain.iter().map(|&at| aggregate.aggr_expr[at].clone()).collect();
            let plan = Aggregate::try_new(Arc::new(rows.clone()), aggregate.group_expr.clone(), plain)?;
            legs.push((LogicalPlan::Aggregate(plan), self.plain.clone()));
        }
        for (args, numbers) in &self.legs {
            let name = |at: usize| format!("__value{at}");
            let values = args.iter().enumerate().map(|(at, value)| value.clone().alias(name(at)));
            let by: Vec<Expr> = aggregate.group_expr.iter().cloned().chain(values).collect();
            let pairs = Aggregate::try_new(Arc::new(rows.clone()), by, Vec::new())?;
            let values: Vec<Expr> = (0..args.len()).map(|at| Expr::Column(Column::new_unqualified(name(at)))).collect();
            let over_values = numbers.iter().filter_map(|&at| function(&aggregate.aggr_expr[at])).map(|function| {
                let mut function = function.clone();
                function.params.distinct = false;
                function.params.args = values.clone();
                Expr::AggregateFunction(function)
            });
            let over_values: Vec<Expr> = over_values.collect();
            let pairs = Arc::new(LogicalPlan::Aggregate(pairs));
            let counted = Aggregate::try_new(pairs, aggregate.group_expr.clone(), over_values)?;
            legs.push((LogicalPlan::Aggregate(counted), numbers.clone()));
        }
        let mut joined: Option<LogicalPlan> = None;
        let columns = |leg: usize| (0..keys).map(|key| Column::new_unqualified(key_name(leg, key))).collect::<Vec<_>>();
        for (leg, (plan, numbers)) in legs.into_iter().enumerate() {
            let plan = named(plan, leg, keys, &numbers)?;
            joined = Some(match joined {
                None => plan,
                Some(left) => LogicalPlanBuilder::from(left)
                    .join_detailed(
                        plan,
                        JoinType::Inner,
                        (columns(0), columns(leg)),
                        None,
                        NullEquality::NullEqualsNull,
                    )?
                    .build()?,
            });
        }
        let Some(joined) = joined else { return datafusion::common::internal_err!("an aggregate without legs") };
        let names = (0..keys).map(|key| key_name(0, key)).chain((0..aggregate.aggr_expr.len()).map(aggregate_name));
        let ordered = names.map(|name| Expr::Column(Column::new_unqualified(name))).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(ordered, Arc::new(joined))?))
    }
}

fn key_name(leg: usize, key: usize) -> String {
    format!("__leg{leg}_key{key}")
}

fn aggregate_name(at: usize) -> String {
    format!("__aggregate{at}")
}

/// The columns of a leg under names that no other leg has.
fn named(plan: LogicalPlan, leg: usize, keys: usize, numbers: &[usize]) -> Result<LogicalPlan> {
    let names = (0..keys).map(|key| key_name(leg, key)).chain(numbers.iter().map(|&at| aggregate_name(at)));
    let columns = plan.schema().columns();
    let renamed = columns.into_iter().zip(names).map(|(column, name)| Expr::Column(column).alias(name)).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(renamed, Arc::new(plan))?))
}
