//! Keys pushed into aggregates: where a group key of an aggregate must equal a column of a small relation beside it, only groups with one of
//! that relation's values matter, and rows of other groups are kept out before they are grouped ("magic sets": Mumick et al., SIGMOD 1990).
//!
//! The aggregate's input is semi-joined with the values. A group is kept or left out as a whole, and one that is left out would have found no
//! partner; a NULL key neither. So the join above gives what it gave.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, HashMap, HashSet, JoinType, NullEquality, Result, TableReference};
use datafusion::logical_expr::{Aggregate, Expr, Join, JoinConstraint, LogicalPlan, Projection};

use super::block::{Block, Place, place_of};
use super::graph::Graph;
use super::set::single;
use super::with_inputs;
use crate::cardinality::join::{KeySide, divisor};
use crate::cardinality::profile::left_of;
use crate::cardinality::{Cardinalities, Profiles, address};

/// When keys are pushed.
pub(super) struct Limits {
    /// Rows of an aggregate's input below which nothing is pushed into it.
    pub(super) min_rows: f64,
    /// Share of the groups that may stay, and of the rows that the values may be.
    pub(super) max_share: f64,
}

const LIMITS: Limits = Limits { min_rows: 20_000.0, max_share: 0.3 };

/// Passes: a pushed key may go further down.
const PASSES: usize = 3;

/// Keys that were pushed into an aggregate.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyPush {
    /// The group key.
    pub key: String,
    /// Expected rows of the aggregate's input before.
    pub rows_before: f64,
    /// Expected share of them that stays.
    pub share: f64,
}

/// `plan` with keys pushed into aggregates where few of the groups matter; none where that is nowhere so.
pub(crate) fn push_keys(plan: &LogicalPlan, cardinalities: &Cardinalities<'_>) -> Option<(LogicalPlan, Vec<KeyPush>)> {
    push_keys_within(plan, cardinalities, &LIMITS)
}

pub(super) fn push_keys_within(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    limits: &Limits,
) -> Option<(LogicalPlan, Vec<KeyPush>)> {
    let mut pushed = Vec::new();
    let mut current: Option<LogicalPlan> = None;
    for _ in 0..PASSES {
        let from = current.as_ref().unwrap_or(plan);
        let profiles = cardinalities.profiles(from);
        let repeated = repeated(from).ok()?;
        let mut search =
            Search { profiles: &profiles, limits, repeated, replaced: HashMap::default(), pushed: &mut pushed };
        search.visit(from).ok()?;
        let replaced = search.replaced;
        if replaced.is_empty() {
            break;
        }
        current = Some(replace(from, &replaced).ok()?);
    }
    current.map(|plan| (plan, pushed))
}

struct Search<'a> {
    profiles: &'a Profiles,
    limits: &'a Limits,
    /// Aggregates that the plan has more than once: changed in one place they could no longer be computed once for all.
    repeated: HashSet<usize>,
    /// By address: what stands in the place of a subplan.
    replaced: HashMap<usize, LogicalPlan>,
    pushed: &'a mut Vec<KeyPush>,
}

/// Values to push: a column of a relation.
struct Values {
    relation: usize,
    column: usize,
    share: f64,
}

impl Search<'_> {
    #[recursive::recursive]
    fn visit(&mut self, plan: &LogicalPlan) -> Result<()> {
        let Some(block) = Block::of(plan)? else {
            return plan.inputs().into_iter().try_for_each(|input| self.visit(input));
        };
        let graph = Graph::new(&block, self.profiles)?;
        for (at, relation) in block.relations.iter().enumerate() {
            match self.pushed_into(&block, &graph, at)? {
                Some(new) => {
                    self.replaced.insert(address(relation), new);
                }
                None => self.visit(relation)?,
            }
        }
        Ok(())
    }

    fn is_shared(&self, plan: &LogicalPlan) -> Result<bool> {
        plan.exists(|node| Ok(self.repeated.contains(&address(node))))
    }

    fn pushed_into(&mut self, block: &Block<'_>, graph: &Graph, at: usize) -> Result<Option<LogicalPlan>> {
        let Some(relation) = block.relations.get(at) else { return Ok(None) };
        let Some(aggregate) = aggregate_below(relation) else { return Ok(None) };
        let rows = self.profiles.of(&aggregate.input).rows;
        if rows < self.limits.min_rows || has_pushed_keys(&aggregate.input) || self.is_shared(relation)? {
            return Ok(None);
        }
        let mut best: Option<(Values, Column)> = None;
        for (class, own) in keys_of(graph, at) {
            let Some(key) = group_key(relation, own) else { continue };
            let input = self.profiles.of(&aggregate.input);
            let Some(domain) = aggregate.input.schema().maybe_index_of_column(&key).and_then(|i| input.columns.get(i))
            else {
                continue;
            };
            for (other, column) in values_of(graph, class) {
                if other == at || !block.relations.get(other).is_some_and(|plan| is_cheap(plan)) {
                    continue;
                }
                // To read it once more must be worth it.
                let Some(beside) = graph.relations.get(other).filter(|r| r.base_rows <= rows) else { continue };
                let known = &beside.profile;
                let Some(values) = known.columns.get(column) else { continue };
                let left = left_of(values.distinct, values.of_rows, known.rows).min(known.rows);
                // A key whose table is whole keeps everything that refers to it, however wide the range of that is.
                let share = left / divisor(&KeySide::of([domain]), &KeySide::of([values]));
                let better = best.as_ref().is_none_or(|(b, _)| share < b.share);
                if share <= self.limits.max_share && known.rows <= rows * self.limits.max_share && better {
                    best = Some((Values { relation: other, column, share }, key.clone()));
                }
            }
        }
        let Some((values, key)) = best else { return Ok(None) };
        let Some(from) = block.relations.get(values.relation) else { return Ok(None) };
        let new = with_input(relation, &mut |input| keep(input, &key, from, values.column))?;
        self.pushed.push(KeyPush { key: key.name.clone(), rows_before: rows, share: values.share });
        Ok(Some(new))
    }
}

/// Aggregates of `plan` that are there more than once, by address.
fn repeated(plan: &LogicalPlan) -> Result<HashSet<usize>> {
    let mut by_hash: HashMap<u64, Vec<&LogicalPlan>> = HashMap::default();
    plan.apply(|node| {
        if matches!(node, LogicalPlan::Aggregate(_)) {
            let mut hasher = DefaultHasher::new();
            node.hash(&mut hasher);
            by_hash.entry(hasher.finish()).or_default().push(node);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let alike = by_hash.into_values().filter(|nodes| nodes.len() > 1).flatten();
    Ok(alike.map(address).collect())
}

/// Classes that relation `at` has a plain column in, with the column; of a semi-joined relation those of what it is compared with.
fn keys_of(graph: &Graph, at: usize) -> Vec<(usize, usize)> {
    let plain = |expr: &Expr| match expr {
        Expr::Column(column) => place_of(column),
        _ => None,
    };
    let mut keys = Vec::new();
    for (i, class) in graph.classes.iter().enumerate() {
        let own = class.members.iter().filter_map(|m| plain(&m.expr)).find(|(relation, _)| *relation == at);
        keys.extend(own.map(|(_, column)| (i, column)));
    }
    if let Some(partner) = graph.is_partner(single(at)).filter(|p| !p.anti) {
        for ((_, inner), class) in partner.keys.iter().zip(&partner.classes) {
            keys.extend(class.zip(plain(inner)).map(|(class, (_, column))| (class, column)));
        }
    }
    keys
}

/// Columns whose values all rows of the block have in a class.
fn values_of(graph: &Graph, class: usize) -> Vec<Place> {
    let plain = |expr: &Expr| match expr {
        Expr::Column(column) => place_of(column),
        _ => None,
    };
    let members = graph.classes.get(class).map(|c| c.members.as_slice()).unwrap_or_default();
    let mut places: Vec<Place> = members.iter().filter_map(|m| plain(&m.expr)).collect();
    for relation in &graph.relations {
        let Some(partner) = relation.partner.as_ref().filter(|p| !p.anti) else { continue };
        for ((_, inner), of) in partner.keys.iter().zip(&partner.classes) {
            if *of == Some(class) {
                places.extend(plain(inner));
            }
        }
    }
    places
}

/// The aggregate that `plan` is, below what filters and renames; one set of groups only.
fn aggregate_below(plan: &LogicalPlan) -> Option<&Aggregate> {
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let plain = !aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
            (plain && !aggregate.group_expr.is_empty()).then_some(aggregate)
        }
        LogicalPlan::Projection(projection) => aggregate_below(&projection.input),
        LogicalPlan::Filter(filter) => aggregate_below(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => aggregate_below(&alias.input),
        _ => None,
    }
}

/// The column of the aggregate's input that is group key and gives column `at` of `plan`.
fn group_key(plan: &LogicalPlan, at: usize) -> Option<Column> {
    let plain = |expr: &Expr| {
        let mut expr = expr;
        while let Expr::Alias(alias) = expr {
            expr = &alias.expr;
        }
        match expr {
            Expr::Column(column) => Some(column.clone()),
            _ => None,
        }
    };
    match plan {
        LogicalPlan::Aggregate(aggregate) => plain(aggregate.group_expr.get(at)?),
        LogicalPlan::Projection(projection) => {
            let column = plain(projection.expr.get(at)?)?;
            group_key(&projection.input, projection.input.schema().maybe_index_of_column(&column)?)
        }
        LogicalPlan::Filter(filter) => group_key(&filter.input, at),
        LogicalPlan::SubqueryAlias(alias) => group_key(&alias.input, at),
        _ => None,
    }
}

/// Cheap to read twice: one table, filtered at the most.
fn is_cheap(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
        LogicalPlan::Projection(projection) => {
            !projection.expr.iter().any(Expr::is_volatile) && is_cheap(&projection.input)
        }
        LogicalPlan::Filter(filter) => {
            !filter.predicate.is_volatile() && !has_subquery(&filter.predicate) && is_cheap(&filter.input)
        }
        LogicalPlan::SubqueryAlias(alias) => is_cheap(&alias.input),
        _ => false,
    }
}

fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|e| {
        Ok(matches!(e, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    })
    .unwrap_or(true)
}

/// The qualifier of pushed keys.
const KEYS: &str = "pushed keys";

fn has_pushed_keys(input: &LogicalPlan) -> bool {
    match input {
        LogicalPlan::Join(join) => {
            join.join_type == JoinType::RightSemi
                && join.left.schema().iter().any(|(of, _)| of.is_some_and(|of| of.table() == KEYS))
        }
        _ => false,
    }
}

/// Rows of `input` whose `key` is among the values of column `column` of `from`.
fn keep(input: &LogicalPlan, key: &Column, from: &LogicalPlan, column: usize) -> Result<LogicalPlan> {
    let (qualifier, field) = from.schema().qualified_field(column);
    let value = Expr::Column(Column::new(qualifier.cloned(), field.name().clone()));
    let keys = TableReference::bare(KEYS);
    let value = value.alias_qualified(Some(keys.clone()), field.name().clone());
    let on = (Expr::Column(Column::new(Some(keys), field.name().clone())), Expr::Column(key.clone()));
    let values = LogicalPlan::Projection(Projection::try_new(vec![value], Arc::new(from.clone()))?);
    let join = Join::try_new(
        Arc::new(values),
        Arc::new(input.clone()),
        vec![on],
        None,
        JoinType::RightSemi,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?;
    Ok(LogicalPlan::Join(join))
}

/// `plan` with another input of its aggregate.
fn with_input(plan: &LogicalPlan, change: &mut dyn FnMut(&LogicalPlan) -> Result<LogicalPlan>) -> Result<LogicalPlan> {
    let inputs = plan.inputs();
    let Some(input) = inputs.first() else { return Ok(plan.clone()) };
    let new = match plan {
        LogicalPlan::Aggregate(_) => change(input)?,
        _ => with_input(input, change)?,
    };
    with_inputs(plan, vec![new])
}

/// `plan` with subplans replaced by address.
#[recursive::recursive]
fn replace(plan: &LogicalPlan, by: &HashMap<usize, LogicalPlan>) -> Result<LogicalPlan> {
    if let Some(new) = by.get(&address(plan)) {
        return Ok(new.clone());
    }
    let new = plan.inputs().into_iter().map(|input| replace(input, by)).collect::<Result<_>>()?;
    with_inputs(plan, new)
}
