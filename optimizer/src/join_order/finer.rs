//! Aggregates over the same rows, by fewer and fewer keys (what a ROLLUP was written as before there were any: one `SELECT` a level, under `UNION
//! ALL`): the rows are read and grouped once, by the keys of the finest, and the groups of all of them are made of its groups.
//!
//! The finest is a subplan that stands more than once then, which is computed once where it runs.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{HashMap, Result, plan_datafusion_err};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};

use super::block::Block;
use super::eager::{called_as, divided, function_of, has_floats, is_divisible, merging, named_states};
use super::graph::Graph;
use super::merged::OverTables;
use super::set::members;
use super::{same_columns, search, with_inputs};
use crate::cardinality::{Cardinalities, Profiles, address};

/// Rows of the largest table below which reading it once more is not worth saving.
const MIN_ROWS: f64 = 20_000.0;

/// CPU time of reading a row of a table, and of joining and grouping one, in nanoseconds, about.
const READ_NS: f64 = 10.0;
const GROUP_NS: f64 = 40.0;

/// CPU time of keeping a group, reading it, and merging its states, in nanoseconds, about.
const MERGE_NS: f64 = 150.0;

/// Aggregates that are made of the groups of the finest of them.
#[derive(Debug, Clone, PartialEq)]
pub struct FinerGroups {
    /// How many.
    pub aggregates: usize,
    /// Expected groups of the finest.
    pub groups: f64,
    /// What is saved, in nanoseconds of CPU, about.
    pub saves: f64,
}

/// `plan` with such aggregates; none where that is nowhere expected to pay.
pub(crate) fn finer_groups(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
) -> Option<(LogicalPlan, Vec<FinerGroups>)> {
    finer_groups_of(plan, cardinalities, MIN_ROWS)
}

fn finer_groups_of(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    min_rows: f64,
) -> Option<(LogicalPlan, Vec<FinerGroups>)> {
    let levels = levels(plan).ok()?;
    if levels.is_empty() {
        return None;
    }
    let profiles = cardinalities.profiles(plan);
    let (mut found, mut replaced) = (Vec::new(), HashMap::new());
    for levels in levels {
        let Some(note) = levels.note(&profiles, min_rows).ok()? else { continue };
        // What cannot be written in other words stays as it is.
        let Ok(Some(built)) = levels.built() else { continue };
        levels.expect(&built, cardinalities, &profiles);
        replaced.extend(levels.all.iter().map(|level| address(level.plan)).zip(built));
        found.push(note);
    }
    let plan = (!found.is_empty()).then(|| put(plan, &replaced).ok()).flatten()?;
    Some((plan, found))
}

/// An aggregate, which is `plan`.
struct Level<'p> {
    plan: &'p LogicalPlan,
    aggregate: &'p Aggregate,
    over: OverTables<'p>,
}

impl Level<'_> {
    fn reads_as(&self, other: &Self) -> bool {
        let (a, b) = (&self.over, &other.over);
        a.reads_as(b)
            && has_all(&a.conditions, &b.conditions)
            && has_all(&b.conditions, &a.conditions)
            && has_all(&a.functions, &b.functions)
            && has_all(&b.functions, &a.functions)
    }
}

fn has_all<T: PartialEq>(all: &[T], some: &[T]) -> bool {
    some.iter().all(|one| all.contains(one))
}

/// Aggregates over the same rows.
struct Levels<'p> {
    all: Vec<Level<'p>>,
    /// The one that has the keys of all.
    finest: usize,
}

/// The aggregates of `plan` that are levels of one another.
fn levels(plan: &LogicalPlan) -> Result<Vec<Levels<'_>>> {
    let mut count = 0;
    plan.apply(|node| {
        count += usize::from(matches!(node, LogicalPlan::Aggregate(_)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if count < 2 {
        return Ok(Vec::new());
    }
    let mut groups: Vec<Vec<Level<'_>>> = Vec::new();
    plan.apply(|node| {
        let LogicalPlan::Aggregate(aggregate) = node else { return Ok(TreeNodeRecursion::Continue) };
        if let Some(level) = level(node, aggregate)? {
            match groups.iter_mut().find(|group| group.first().is_some_and(|first| first.reads_as(&level))) {
                Some(group) => group.push(level),
                None => groups.push(vec![level]),
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(groups.into_iter().filter_map(Levels::of).collect())
}

fn level<'p>(plan: &'p LogicalPlan, aggregate: &'p Aggregate) -> Result<Option<Level<'p>>> {
    let schema = aggregate.input.schema();
    for key in &aggregate.group_expr {
        if matches!(key, Expr::GroupingSet(_)) || has_floats(&key.get_type(schema)?) {
            return Ok(None);
        }
    }
    if !aggregate.aggr_expr.iter().all(|expr| function_of(expr).is_some_and(is_divisible)) {
        return Ok(None);
    }
    // What cannot be said of tables is none.
    let Ok(Some(over)) = OverTables::of(aggregate) else { return Ok(None) };
    Ok(Some(Level { plan, aggregate, over }))
}

impl<'p> Levels<'p> {
    /// None where none of them has the keys of all, or all have the same: these are computed once as they are.
    fn of(all: Vec<Level<'p>>) -> Option<Self> {
        let keys = |level: &Level<'_>| level.over.keys.len();
        let finest = (0..all.len()).max_by_key(|&at| all.get(at).map(keys))?;
        let most = &all.get(finest)?.over.keys;
        let fewer = all.iter().any(|level| level.over.keys.len() < most.len());
        let has = all.iter().all(|level| has_all(most, &level.over.keys));
        (fewer && has).then_some(Self { all, finest })
    }

    fn finest(&self) -> Option<&Level<'p>> {
        self.all.get(self.finest)
    }

    /// What is to be gained; none where it is too little.
    fn note(&self, profiles: &Profiles, min_rows: f64) -> Result<Option<FinerGroups>> {
        let Some(finest) = self.finest() else { return Ok(None) };
        let input: &LogicalPlan = &finest.aggregate.input;
        let block = Block::of(input)?.unwrap_or_else(|| Block::single(input));
        let mut graph = Graph::new(&block, profiles)?;
        let largest =
            members(graph.inner).filter_map(|at| graph.relations.get(at)).map(|r| r.base_rows).fold(0.0, f64::max);
        let (rows, groups) = (profiles.of(input).rows, profiles.of(finest.plan).rows);
        let count = self.all.len() as f64;
        let once = largest * READ_NS + search::cost_of(&mut graph, &block.written) + rows * GROUP_NS;
        let saves = (count - 1.0) * once - count * groups * MERGE_NS;
        let note = FinerGroups { aggregates: self.all.len(), groups, saves };
        Ok((largest >= min_rows && (saves > 0.0 || min_rows == 0.0)).then_some(note))
    }

    /// In their place; none where one of them has other columns then.
    fn built(&self) -> Result<Option<Vec<LogicalPlan>>> {
        let Some(finest) = self.finest() else { return Ok(None) };
        let schema = finest.aggregate.input.schema();
        let called = finest.aggregate.aggr_expr.iter().filter_map(function_of);
        let parts = called.clone().map(|function| {
            let fields = function.params.args.iter().map(|arg| Ok(arg.to_field(schema)?.1));
            divided(&function.func, fields.collect::<Result<_>>()?)
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let states = called.zip(&parts).map(|(function, (state, _))| {
            Expr::AggregateFunction(AggregateFunction { func: Arc::new(state.clone()), ..function.clone() })
        });
        let keys = finest.aggregate.group_expr.clone();
        let width = keys.len();
        let grouped = Aggregate::try_new(Arc::clone(&finest.aggregate.input), keys, states.collect())?;
        let grouped = Arc::new(named_states(LogicalPlan::Aggregate(grouped), width)?);
        let columns = grouped.schema().columns();
        let column = |at: Option<usize>| {
            let column = at.and_then(|at| columns.get(at)).cloned();
            column.map(Expr::Column).ok_or_else(|| plan_datafusion_err!("the finest groups lack a column"))
        };
        let mut built = Vec::with_capacity(self.all.len());
        for level in &self.all {
            let place = |key| finest.over.keys.iter().position(|known| known == key);
            let by = level.over.keys.iter().map(|key| column(place(key))).collect::<Result<Vec<_>>>()?;
            let merges = level.over.functions.iter().map(|function| {
                let at = finest.over.functions.iter().position(|known| known == function);
                let merge = at.and_then(|at| parts.get(at)).map(|(_, merge)| merge.clone());
                let merge = merge.ok_or_else(|| plan_datafusion_err!("the finest groups lack a function"))?;
                Ok(merging(merge, column(at.map(|at| at + width))?))
            });
            let merged = Aggregate::try_new(Arc::clone(&grouped), by, merges.collect::<Result<Vec<_>>>()?)?;
            let merged = called_as(LogicalPlan::Aggregate(merged), &level.aggregate.schema)?;
            if !same_columns(&merged, level.plan) {
                return Ok(None);
            }
            built.push(merged);
        }
        Ok(Some(built))
    }

    /// Tells whoever asks later how many rows the aggregates of `built` are expected to have.
    fn expect(&self, built: &[LogicalPlan], cardinalities: &Cardinalities<'_>, profiles: &Profiles) {
        for (level, built) in self.all.iter().zip(built) {
            let identities = cardinalities.identities(built);
            let compose = |node: &LogicalPlan, like: &LogicalPlan| {
                if let Some(&identity) = identities.get(&address(node)) {
                    cardinalities.compose(identity, profiles.estimate(like));
                }
            };
            if let [merged] = built.inputs().as_slice()
                && let [named] = merged.inputs().as_slice()
                && let ([grouped], Some(finest)) = (named.inputs().as_slice(), self.finest())
            {
                compose(merged, level.plan);
                compose(grouped, finest.plan);
            }
        }
    }
}

/// `plan` with `replaced` in the place of some of its nodes.
#[recursive::recursive]
fn put(plan: &LogicalPlan, replaced: &HashMap<usize, LogicalPlan>) -> Result<LogicalPlan> {
    if let Some(new) = replaced.get(&address(plan)) {
        return Ok(new.clone());
    }
    let inputs = plan.inputs();
    if inputs.is_empty() {
        return Ok(plan.clone());
    }
    let new = inputs.into_iter().map(|input| put(input, replaced)).collect::<Result<Vec<_>>>()?;
    with_inputs(plan, new)
}
