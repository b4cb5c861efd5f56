//! Groups made early: below the joins that only look up what groups are called by, and before the sets of a ROLLUP ("eager aggregation": Yan and
//! Larson, VLDB 1995).
//!
//! Rows that agree in all that is still asked of them (the keys of joins to come, columns of conditions to come, group keys) meet the same rows
//! in every join above. So they may be one row with the state of their functions: a join that finds several partners repeats the state as it
//! would have repeated each row, and states of one group are merged at the end as those of partial aggregates are.

mod functions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, TableReference, plan_datafusion_err};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, AggregateUDF, Expr, ExprSchemable, GroupingSet, LogicalPlan, Projection};

use super::block::{Block, in_terms_of, movable, name_of, place_of, placed_whole, relations_of, with_columns};
use super::cost::{self, Input};
use super::graph::Graph;
use super::set::{Set, members, single, within};
use super::{build, same_columns, search, with_inputs, written};
use crate::cardinality::profile::left_of;
use crate::cardinality::{Cardinalities, Estimate, EstimateSource, Profiles, address};
pub use functions::AggregatePart;
pub(in crate::join_order) use functions::{divided, is_divisible};

/// When groups are made early.
pub(super) struct Limits {
    /// Rows of an aggregate's input below which it stays as it is.
    pub(super) min_rows: f64,
    /// Most groups for a row.
    pub(super) max_share: f64,
    /// Share of the cost of the joins above and of the grouping that must be saved.
    pub(super) min_gain: f64,
    /// Of its rows, what a relation that is joined later must leave.
    pub(super) min_kept: f64,
}

const LIMITS: Limits = Limits { min_rows: 20_000.0, max_share: 0.5, min_gain: 0.1, min_kept: 0.75 };

/// Most relations of a block that is looked at.
const MOST_RELATIONS: usize = 20;

/// The qualifier of what early groups give.
const EARLY: &str = "early groups";

/// Groups that are made early.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlyGroups {
    /// Expected rows that are grouped.
    pub rows: f64,
    /// Expected groups.
    pub groups: f64,
    /// Relations that are joined afterwards.
    pub joined_later: usize,
    /// What is saved by the cost of the search, in nanoseconds of CPU, about.
    pub saves: f64,
}

/// `plan` with groups made early where that is expected to pay; none where it is nowhere so.
pub(crate) fn early_groups(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
) -> Option<(LogicalPlan, Vec<EarlyGroups>)> {
    early_groups_within(plan, cardinalities, &LIMITS)
}

pub(super) fn early_groups_within(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    limits: &Limits,
) -> Option<(LogicalPlan, Vec<EarlyGroups>)> {
    let profiles = cardinalities.profiles(plan);
    let mut visit = Visit { cardinalities, profiles: &profiles, limits, found: Vec::new() };
    let plan = visit.plan(plan).ok()?;
    (!visit.found.is_empty()).then_some((plan, visit.found))
}

struct Visit<'a> {
    cardinalities: &'a Cardinalities<'a>,
    profiles: &'a Profiles,
    limits: &'a Limits,
    found: Vec<EarlyGroups>,
}

/// An aggregate over a block.
struct Asked<'p> {
    block: Block<'p>,
    graph: Graph,
    /// All relations.
    all: Set,
    /// Group keys, in names of the block.
    keys: Vec<Expr>,
    /// Functions in names of the block, with the types of their arguments.
    functions: Vec<(AggregateFunction, Vec<FieldRef>)>,
    /// Sets of groups.
    sets: f64,
    /// Expected groups of all sets.
    groups: f64,
    /// Past runs tell of them.
    observed: bool,
}

/// Where groups are made: over the joined relations of `below`.
struct Early {
    below: Set,
    /// In names of the block.
    keys: Vec<Expr>,
    note: EarlyGroups,
}

impl Visit<'_> {
    #[recursive::recursive]
    fn plan(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let before = self.found.len();
        if let LogicalPlan::Aggregate(aggregate) = plan {
            match self.aggregate(plan, aggregate) {
                Ok(Some(new)) => return Ok(new),
                Ok(None) => {}
                // What cannot be written in other words stays as it is.
                Err(_) => self.found.truncate(before),
            }
        }
        let new: Vec<LogicalPlan> = plan.inputs().into_iter().map(|input| self.plan(input)).collect::<Result<_>>()?;
        if self.found.len() == before { Ok(plan.clone()) } else { with_inputs(plan, new) }
    }

    fn aggregate(&mut self, plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
        if self.profiles.of(&aggregate.input).rows < self.limits.min_rows {
            return Ok(None);
        }
        let Some(mut asked) = self.asked(plan, aggregate)? else { return Ok(None) };
        let Some(early) = asked.best(self.limits) else { return Ok(None) };
        let at = self.found.len();
        self.found.push(early.note.clone());
        let relations = asked.block.relations.iter().map(|relation| self.plan(relation)).collect::<Result<Vec<_>>>()?;
        let built = asked.built(&early, relations, aggregate)?;
        if !same_columns(&built, plan) {
            self.found.truncate(at);
            return Ok(None);
        }
        self.expect(&built, plan, early.note.groups)?;
        Ok(Some(built))
    }

    /// Tells whoever asks later how many rows the aggregates of `built` are expected to have, which stands for `original`.
    fn expect(&self, built: &LogicalPlan, original: &LogicalPlan, groups: f64) -> Result<()> {
        let identities = self.cardinalities.identities(built);
        let compose = |node: &LogicalPlan, estimate: Estimate| {
            if let Some(&identity) = identities.get(&address(node)) {
                self.cardinalities.compose(identity, estimate);
            }
        };
        if let LogicalPlan::Projection(top) = built {
            compose(&top.input, self.profiles.estimate(original));
        }
        built.apply(|node| {
            if let LogicalPlan::Projection(early) = node
                && early.schema.iter().next().and_then(|(of, _)| of).is_some_and(|of| of.table() == EARLY)
            {
                compose(&early.input, Estimate::within(groups, 3.0, EstimateSource::Statistics));
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }

    /// What `aggregate`, which is `plan`, asks for, if it can be divided.
    fn asked<'p>(&self, plan: &LogicalPlan, aggregate: &'p Aggregate) -> Result<Option<Asked<'p>>> {
        let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
        let sets = match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(GroupingSet::Rollup(exprs))] => exprs.len() as f64 + 1.0,
            [Expr::GroupingSet(GroupingSet::Cube(exprs))] => 2f64.powi(exprs.len().min(30) as i32),
            [Expr::GroupingSet(GroupingSet::GroupingSets(sets))] => sets.len() as f64,
            _ => 1.0,
        };
        let Some(called) = aggregate.aggr_expr.iter().map(function_of).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        if !called.iter().all(|function| is_divisible(function)) {
            return Ok(None);
        }
        let schema = aggregate.input.schema();
        let fields = called.iter().map(|function| {
            let of = |arg: &Expr| Ok(arg.to_field(schema)?.1);
            function.params.args.iter().map(of).collect::<Result<Vec<FieldRef>>>()
        });
        let fields = fields.collect::<Result<Vec<_>>>()?;
        let functions = called.into_iter().map(|function| Expr::AggregateFunction(function.clone()));
        let mut exprs: Vec<Expr> = keys.iter().cloned().chain(functions).collect();
        let mut input: &LogicalPlan = &aggregate.input;
        while let Some(below) = below_names(input, &mut exprs)? {
            input = below;
        }
        if !exprs.iter().all(movable) {
            return Ok(None);
        }
        let block = match Block::of(input)? {
            Some(block) => block,
            None if sets > 1.0 => Block::single(input),
            None => return Ok(None),
        };
        if block.relations.len() > MOST_RELATIONS {
            return Ok(None);
        }
        let mut graph = Graph::new(&block, self.profiles)?;
        for (join, left, right) in written(&block) {
            if let Some(known) = self.profiles.observed(join) {
                graph.learn(left, right, known.rows);
            }
        }
        let mut exprs =
            exprs.iter().map(|expr| placed_whole(expr, input, &block.output)).collect::<Result<Vec<_>>>()?;
        let placed = exprs.split_off(keys.len());
        let functions = placed.into_iter().zip(fields).filter_map(|(expr, fields)| match expr {
            Expr::AggregateFunction(function) => Some((function, fields)),
            _ => None,
        });
        let all = (0..block.relations.len()).fold(0, |set, relation| set | single(relation));
        let (groups, observed) = (self.profiles.of(plan).rows, self.profiles.observed(plan).is_some());
        Ok(Some(Asked { functions: functions.collect(), block, graph, all, keys: exprs, sets, groups, observed }))
    }
}

/// The function that `expr` calls and names.
pub(super) fn function_of(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::AggregateFunction(function) => Some(function),
        Expr::Alias(alias) => function_of(&alias.expr),
        _ => None,
    }
}

/// The input of `plan`, which only names or computes columns; `exprs` are put in its terms.
pub(super) fn below_names<'p>(plan: &'p LogicalPlan, exprs: &mut [Expr]) -> Result<Option<&'p LogicalPlan>> {
    let (input, columns): (&LogicalPlan, Vec<Expr>) = match plan {
        LogicalPlan::Projection(projection) if !projection.expr.iter().any(Expr::is_volatile) => {
            (&projection.input, projection.expr.clone())
        }
        LogicalPlan::SubqueryAlias(alias) => {
            (&alias.input, alias.input.schema().columns().into_iter().map(Expr::Column).collect())
        }
        _ => return Ok(None),
    };
    for expr in exprs {
        *expr = in_terms_of(expr, plan, &columns)?;
    }
    Ok(Some(input))
}

/// CPU time of grouping, in nanoseconds, about: rows, groups, widths of the keys in bytes, functions.
fn grouping(rows: f64, groups: f64, widths: &[f64], functions: usize) -> f64 {
    // Text is hashed, compared and copied; numbers that fit a register are not worth mentioning.
    let keys: f64 = widths.iter().map(|width| if *width > 16.0 { 25.0 + 0.3 * width } else { 6.0 }).sum();
    let lookup = 10.0 + 3.0 * (groups.max(1.0) / 4096.0).max(1.0).log2();
    // Groups are made twice: in the partial aggregate and in the final one.
    let made = groups * 2.0 * (30.0 + widths.iter().sum::<f64>());
    rows * (10.0 + keys + lookup + 4.0 * functions as f64) + made
}

impl Asked<'_> {
    fn width(&self, expr: &Expr) -> f64 {
        let Expr::Column(column) = expr else { return 8.0 };
        let known =
            place_of(column).and_then(|(relation, at)| self.graph.relations.get(relation)?.profile.columns.get(at));
        known.map_or(8.0, |column| column.width)
    }

    fn widths(&self, keys: &[Expr]) -> Vec<f64> {
        keys.iter().map(|key| self.width(key)).collect()
    }

    /// Relations whose columns the functions read.
    fn read(&self) -> Set {
        let of = |function: &AggregateFunction| {
            let params = &function.params;
            params.args.iter().chain(params.filter.as_deref()).fold(0, |set, expr| set | relations_of(expr))
        };
        self.functions.iter().fold(0, |set, (function, _)| set | of(function))
    }

    /// What groups over `below` are by: group keys, and what conditions to come read.
    fn keys_of(&self, below: Set) -> Vec<Expr> {
        let mut keys: Vec<Expr> = Vec::new();
        let mut add = |expr: Expr| {
            if !keys.contains(&expr) {
                keys.push(expr);
            }
        };
        let columns = |expr: &Expr| {
            let mut columns: Vec<Column> = expr.column_refs().into_iter().cloned().collect();
            columns.retain(|column| place_of(column).is_some_and(|(relation, _)| within(single(relation), below)));
            columns.sort();
            columns.into_iter().map(Expr::Column).collect::<Vec<_>>()
        };
        for key in &self.keys {
            let of = relations_of(key);
            match of != 0 && within(of, below) {
                true => add(key.clone()),
                false => columns(key).into_iter().for_each(&mut add),
            }
        }
        for condition in &self.block.conjuncts {
            if !is_below(condition, below) {
                columns(condition).into_iter().for_each(&mut add);
            }
        }
        keys
    }

    /// Expected groups of the rows of `below` by `keys`: those that independent keys would have, where columns of one relation have together no
    /// more values than it has rows.
    fn groups_of(&mut self, below: Set, keys: &[Expr]) -> f64 {
        let rows = self.graph.rows(below).max(1.0);
        let mut combinations = 1.0;
        for relation in members(below) {
            let Some(known) = self.graph.relations.get(relation) else { continue };
            let own = known.profile.rows.max(1.0);
            let mut values = 1.0;
            for key in keys.iter().filter(|key| relations_of(key) == single(relation)) {
                let class = self.graph.classes.iter().find(|class| class.members.iter().any(|m| m.expr == *key));
                let equal =
                    class.into_iter().flat_map(|class| &class.members).filter(|m| within(single(m.relation), below));
                let least = equal.filter_map(|m| {
                    let rows = self.graph.relations.get(m.relation)?.profile.rows;
                    Some(left_of(m.profile.distinct, m.profile.of_rows, rows).max(1.0))
                });
                let columns = key
                    .column_refs()
                    .into_iter()
                    .filter_map(place_of)
                    .filter_map(|(_, at)| known.profile.columns.get(at).map(|_| known.profile.distinct_left(at)));
                values *= least.chain([columns.product()]).fold(f64::INFINITY, f64::min);
            }
            combinations *= values.min(own);
        }
        // A key over several relations: as many values as there are rows.
        if keys.iter().any(|key| relations_of(key).count_ones() > 1) {
            combinations = combinations.max(rows);
        }
        let mut groups = (combinations * (1.0 - (-rows / combinations).exp())).clamp(1.0, rows);
        if below == self.all {
            groups = groups.min(self.groups.max(1.0));
        } else if self.observed && self.sets == 1.0 {
            // Each group there was has as many of these as rows of the relations that wait are called alike.
            let alike: f64 = members(self.all & !below).map(|relation| self.called_alike(relation)).product();
            groups = groups.min((self.groups * alike).max(1.0));
        }
        groups
    }

    /// Rows of `relation` for each combination of its group keys, expected.
    fn called_alike(&self, relation: usize) -> f64 {
        let Some(known) = self.graph.relations.get(relation) else { return 1.0 };
        let rows = known.profile.rows.max(1.0);
        let keys = self.keys.iter().filter(|key| relations_of(key) == single(relation));
        let columns = keys.flat_map(|key| key.column_refs().into_iter().filter_map(place_of));
        let combinations: f64 = columns.map(|(_, at)| known.profile.distinct_left(at)).product();
        rows / combinations.clamp(1.0, rows)
    }

    /// The relations to group over, and what that saves; none where nothing is saved.
    fn best(&mut self, limits: &Limits) -> Option<Early> {
        let read = self.read();
        let mut best: Option<Early> = None;
        let mut below = self.all;
        if self.sets > 1.0 {
            best = self.early(below, limits);
        }
        loop {
            let mut next: Option<(f64, Set, Option<Early>)> = None;
            for relation in members(below & !read) {
                let smaller = below & !single(relation);
                if smaller == 0 || !self.may_wait(smaller, relation, limits) {
                    continue;
                }
                let early = self.early(smaller, limits);
                let saves = early.as_ref().map_or(f64::NEG_INFINITY, |early| early.note.saves);
                if next.as_ref().is_none_or(|(known, ..)| saves > *known) {
                    next = Some((saves, smaller, early));
                }
            }
            let Some((saves, smaller, early)) = next else { break };
            if best.as_ref().is_none_or(|best| saves > best.note.saves) {
                best = early.or(best);
            }
            below = smaller;
        }
        best
    }

    /// Whether `relation` can be joined after all of `rest`, and leaves about as many rows.
    fn may_wait(&mut self, rest: Set, relation: usize, limits: &Limits) -> bool {
        let graph = &mut self.graph;
        let inner = rest & graph.inner;
        if graph.is_partner(single(relation)).is_some()
            || inner == 0
            || graph.reached(single(inner.trailing_zeros() as usize), inner) != inner
            || !members(rest & !graph.inner).all(|partner| graph.may_join(inner, single(partner)))
        {
            return false;
        }
        graph.rows(rest | single(relation)) >= graph.rows(rest) * limits.min_kept
    }

    /// Groups over `below`; none where that saves too little.
    fn early(&mut self, below: Set, limits: &Limits) -> Option<Early> {
        let keys = self.keys_of(below);
        if keys.is_empty() {
            return None;
        }
        let rows = self.graph.rows(below);
        let groups = self.groups_of(below, &keys);
        if groups > rows * limits.max_share {
            return None;
        }
        let functions = self.functions.len();
        let (widths, top_widths) = (self.widths(&keys), self.widths(&self.keys));
        let width = widths.iter().sum::<f64>() + 8.0 * functions as f64;
        let share = groups / rows.max(1.0);
        // The relations that wait, the one that leaves the fewest rows first.
        let (mut joined, mut late, mut early) = (below, 0.0, 0.0);
        while joined != self.all {
            let waiting: Vec<usize> = members(self.all & !joined & self.graph.neighbours_of(joined)).collect();
            let mut least: Option<(f64, usize)> = None;
            for relation in waiting {
                let rows = self.graph.rows(joined | single(relation));
                if least.is_none_or(|(known, _)| rows < known) {
                    least = Some((rows, relation));
                }
            }
            let (_, relation) = least?;
            let (from, to) = (self.graph.input(joined), self.graph.input(joined | single(relation)));
            let with = self.graph.input(single(relation));
            let keyed = self.graph.has_keys(joined, single(relation));
            late += cost::of_join(from, with, to, keyed);
            let grouped =
                |input: Input| Input { rows: input.rows * share, width: (input.width).min(width + with.width) };
            early += cost::of_join(grouped(from), with, grouped(to), keyed);
            joined |= single(relation);
        }
        let at_last = self.graph.rows(self.all);
        late += grouping(at_last * self.sets, self.groups, &top_widths, functions);
        early += grouping(rows, groups, &widths, functions);
        early += grouping(at_last * share * self.sets, self.groups, &top_widths, functions);
        let saves = late - early;
        let note = EarlyGroups { rows, groups, joined_later: (self.all & !below).count_ones() as usize, saves };
        (saves > late * limits.min_gain).then_some(Early { below, keys, note })
    }

    /// The plan; `relations` are those of the block.
    fn built(&mut self, early: &Early, mut relations: Vec<LogicalPlan>, aggregate: &Aggregate) -> Result<LogicalPlan> {
        let no_order = || plan_datafusion_err!("relations that do not hang together");
        let (tree, _) = search::cheapest_of(&mut self.graph, early.below).ok_or_else(no_order)?;
        let tree = build::oriented(&mut self.graph, tree);
        let waiting: Vec<usize> = members(self.all & !early.below).collect();
        let later: Vec<LogicalPlan> = waiting.iter().filter_map(|&relation| relations.get(relation).cloned()).collect();
        let (joined, names) = build::joins_of(&self.graph, &mut relations, &tree)?;
        let has_keys_of_floats = early.keys.iter().any(|key| {
            let named = names.named(key).and_then(|key| key.get_type(joined.schema()));
            named.is_ok_and(|data_type| has_floats(&data_type))
        });
        if has_keys_of_floats {
            // Zeros of two signs are equal and not the same.
            return Err(plan_datafusion_err!("keys of floating-point numbers"));
        }
        let divided = self.functions.iter().map(|(function, fields)| divided(&function.func, fields.clone()));
        let divided = divided.collect::<Result<Vec<_>>>()?;
        let states = self.functions.iter().zip(&divided).map(|((function, _), (state, _))| {
            let mut function = function.clone();
            function.func = Arc::new(state.clone());
            names.named(&Expr::AggregateFunction(function))
        });
        let by = early.keys.iter().map(|key| names.named(key)).collect::<Result<Vec<_>>>()?;
        let grouped = Aggregate::try_new(Arc::new(joined), by, states.collect::<Result<Vec<_>>>()?)?;
        let grouped = LogicalPlan::Aggregate(grouped);
        let width = early.keys.len();
        let grouped = named_states(grouped, width)?;

        // The joins above: early groups are the first relation.
        let place = |column: &Column| {
            let (relation, at) = place_of(column)?;
            if let Some(later) = waiting.iter().position(|&waiting| waiting == relation) {
                return Some(Expr::Column(name_of((later + 1, at))));
            }
            let key = early.keys.iter().position(|key| matches!(key, Expr::Column(known) if known == column))?;
            Some(Expr::Column(name_of((0, key))))
        };
        let above = |expr: &Expr| match early.keys.iter().position(|key| key == expr) {
            Some(key) => Ok(Expr::Column(name_of((0, key)))),
            None => with_columns(expr, &place),
        };
        let conditions = self.block.conjuncts.iter().filter(|condition| !is_below(condition, early.below));
        let conditions = conditions.map(above).collect::<Result<Vec<_>>>()?;
        let profiles = Profiles::new(
            [(address(&grouped), Estimate::within(early.note.groups, 3.0, EstimateSource::Statistics))]
                .into_iter()
                .collect(),
            None,
        );
        let (joined, names) = {
            let block = Block::of_relations(std::iter::once(&grouped).chain(&later).collect(), conditions);
            let mut graph = Graph::new(&block, &profiles)?;
            let (tree, _) = search::cheapest(&mut graph).ok_or_else(no_order)?;
            let tree = build::oriented(&mut graph, tree);
            let mut relations: Vec<LogicalPlan> = block.relations.iter().map(|&relation| relation.clone()).collect();
            build::joins_of(&graph, &mut relations, &tree)?
        };
        let merges = divided
            .into_iter()
            .enumerate()
            .map(|(at, (_, merge))| Ok(merging(merge, names.named(&Expr::Column(name_of((0, width + at))))?)));
        let keys = self.keys.iter().map(|key| names.named(&above(key)?)).collect::<Result<Vec<_>>>()?;
        let by = match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(set)] => vec![Expr::GroupingSet(replaced_set(set, aggregate, &keys)?)],
            _ => keys,
        };
        let merged = Aggregate::try_new(Arc::new(joined), by, merges.collect::<Result<Vec<_>>>()?)?;
        called_as(LogicalPlan::Aggregate(merged), &aggregate.schema)
    }
}

/// `grouped`, states by `width` keys, under names of its own.
pub(super) fn named_states(grouped: LogicalPlan, width: usize) -> Result<LogicalPlan> {
    let named = grouped.schema().columns().into_iter().enumerate().map(|(at, column)| {
        let name = if at < width { format!("key {at}") } else { format!("state {}", at - width) };
        Expr::Column(column).alias_qualified(Some(TableReference::bare(EARLY)), name)
    });
    Ok(LogicalPlan::Projection(Projection::try_new(named.collect(), Arc::new(grouped))?))
}

/// A call of `merge` on `state`.
pub(super) fn merging(merge: AggregateUDF, state: Expr) -> Expr {
    Expr::AggregateFunction(AggregateFunction {
        func: Arc::new(merge),
        params: AggregateFunctionParams {
            args: vec![state],
            distinct: false,
            filter: None,
            order_by: Vec::new(),
            null_treatment: None,
        },
    })
}

/// `plan` with the names of `schema` for its columns.
pub(super) fn called_as(plan: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan> {
    let exprs = plan.schema().columns().into_iter().zip(schema.iter()).map(|(column, (of, field))| {
        let same = column.relation.as_ref() == of && column.name == *field.name();
        let column = Expr::Column(column);
        if same { column } else { column.alias_qualified(of.cloned(), field.name().clone()) }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(exprs.collect(), Arc::new(plan))?))
}

/// Whether `condition` of a block is settled in the joins of `below`.
fn is_below(condition: &Expr, below: Set) -> bool {
    let of = relations_of(condition);
    of != 0 && within(of, below)
}

pub(super) fn has_floats(data_type: &DataType) -> bool {
    data_type.is_floating() || data_type.is_nested()
}

/// The grouping sets of `aggregate` by `keys`, which are its keys in other words.
fn replaced_set(set: &GroupingSet, aggregate: &Aggregate, keys: &[Expr]) -> Result<GroupingSet> {
    let known = grouping_set_to_exprlist(&aggregate.group_expr)?;
    let of = |expr: &Expr| {
        let at = known.iter().position(|key| *key == expr);
        let key = at.and_then(|at| keys.get(at)).cloned();
        key.ok_or_else(|| plan_datafusion_err!("`{expr}` is no group key"))
    };
    let all = |exprs: &[Expr]| exprs.iter().map(of).collect::<Result<Vec<_>>>();
    Ok(match set {
        GroupingSet::Rollup(exprs) => GroupingSet::Rollup(all(exprs)?),
        GroupingSet::Cube(exprs) => GroupingSet::Cube(all(exprs)?),
        GroupingSet::GroupingSets(sets) => {
            GroupingSet::GroupingSets(sets.iter().map(|exprs| all(exprs)).collect::<Result<_>>()?)
        }
    })
}
