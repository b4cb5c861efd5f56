//! Aggregates without groups that read the same relations and differ by what they filter: computed in one pass, each with its condition as the FILTER
//! of its functions. They are scalar subqueries of one query (`SELECT (SELECT avg(x) FROM t WHERE a < 1), (SELECT avg(x) FROM t WHERE a > 1)`), or
//! rows that are joined without a condition.
//!
//! A condition that all of them have stays below. What differs must be about one relation each; below stays that one of them holds.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, HashMap, Result, ScalarValue, TableReference, plan_datafusion_err};
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::{conjunction, disjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Expr, FetchType, Filter, JoinType, LogicalPlan, Projection, SkipType, Subquery, SubqueryAlias,
    TableScan, TableScanBuilder, lit, when,
};
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};

use super::block::{Block, in_terms_of, movable, name_of, place_of, placed_whole, relations_of, with_columns};
use super::graph::Graph;
use super::set::{members, single};
use super::{build, eager, search, with_inputs};
use crate::cardinality::Cardinalities;

/// Rows of the largest table below which a pass is not worth saving.
const MIN_ROWS: f64 = 20_000.0;

/// CPU time of reading a row once more, in nanoseconds, about.
const ROW_NS: f64 = 10.0;

/// Aggregates that are computed together.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedAggregates {
    /// How many.
    pub aggregates: usize,
    /// Expected rows of the largest table that all of them read.
    pub rows: f64,
    /// What is saved, in nanoseconds of CPU, about.
    pub saves: f64,
}

/// `plan` with such aggregates computed together; none where there are none.
pub(crate) fn merge_aggregates(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
) -> Option<(LogicalPlan, Vec<MergedAggregates>)> {
    merge_aggregates_of(plan, cardinalities, MIN_ROWS)
}

fn merge_aggregates_of(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    min_rows: f64,
) -> Option<(LogicalPlan, Vec<MergedAggregates>)> {
    let mut found = Vec::new();
    let mut current = None;
    if let Some(plan) = merged_subqueries(plan, cardinalities, min_rows, &mut found).ok()? {
        current = Some(plan);
    }
    let from = without_limits(current.as_ref().unwrap_or(plan).clone()).ok()?;
    let before = found.len();
    let joined = merged_rows(&from, cardinalities, min_rows, &mut found).ok()?;
    if found.len() > before {
        current = Some(joined);
    }
    current.map(|plan| (plan, found))
}

/// An aggregate in terms of the tables that it reads.
pub(super) struct OverTables<'p> {
    /// In the order in which they are joined.
    pub(super) tables: Vec<&'p TableScan>,
    /// Conditions over columns of the tables.
    pub(super) conditions: Vec<Expr>,
    /// Group keys.
    pub(super) keys: Vec<Expr>,
    pub(super) functions: Vec<AggregateFunction>,
}

impl<'p> OverTables<'p> {
    /// One without groups.
    fn of_one_row(aggregate: &'p Aggregate) -> Result<Option<Self>> {
        if aggregate.group_expr.is_empty() { Self::of(aggregate) } else { Ok(None) }
    }

    /// None where it has grouping sets, or reads more than tables that are joined, filtered and renamed.
    pub(super) fn of(aggregate: &'p Aggregate) -> Result<Option<Self>> {
        let sets = aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
        if sets || aggregate.aggr_expr.is_empty() {
            return Ok(None);
        }
        let Some(functions) = aggregate.aggr_expr.iter().map(eager::function_of).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        // Each order is made for all functions of an aggregate.
        if functions.iter().any(|function| !function.params.order_by.is_empty()) {
            return Ok(None);
        }
        let called = functions.into_iter().cloned().map(Expr::AggregateFunction);
        let mut exprs: Vec<Expr> = aggregate.group_expr.iter().cloned().chain(called).collect();
        let mut input: &LogicalPlan = &aggregate.input;
        while let Some(below) = eager::below_names(input, &mut exprs)? {
            input = below;
        }
        if !exprs.iter().all(movable) {
            return Ok(None);
        }
        let block = Block::of(input)?.unwrap_or_else(|| Block::single(input));
        if !block.existences.is_empty() {
            return Ok(None);
        }
        let mut tables = Vec::new();
        let mut columns = Vec::new();
        let mut conditions = Vec::new();
        for (at, relation) in block.relations.iter().enumerate() {
            let Some((scan, of)) = table_below(relation, at, &mut conditions)? else { return Ok(None) };
            tables.push(scan);
            columns.push(of);
        }
        let to_tables = |expr: &Expr| {
            let value = |column: &Column| {
                let (relation, at) = place_of(column)?;
                columns.get(relation)?.get(at).cloned()
            };
            with_columns(expr, &value)
        };
        for condition in &block.conjuncts {
            conditions.push(to_tables(condition)?);
        }
        let mut unique: Vec<Expr> = Vec::new();
        for condition in conditions {
            if !movable(&condition) {
                return Ok(None);
            }
            if !unique.contains(&condition) {
                unique.push(condition);
            }
        }
        let (mut keys, mut of_tables) = (Vec::new(), Vec::new());
        for (at, expr) in exprs.iter().enumerate() {
            match to_tables(&placed_whole(expr, input, &block.output)?)? {
                key if at < aggregate.group_expr.len() => keys.push(key),
                Expr::AggregateFunction(function) => of_tables.push(function),
                _ => return Ok(None),
            }
        }
        Ok(Some(Self { tables, conditions: unique, keys, functions: of_tables }))
    }

    /// Conditions on several tables, which are the same for all that are merged.
    fn joins(&self) -> impl Iterator<Item = &Expr> {
        self.conditions.iter().filter(|condition| relations_of(condition).count_ones() != 1)
    }

    pub(super) fn reads_as(&self, other: &Self) -> bool {
        let same =
            |(a, b): (&&TableScan, &&TableScan)| a.table_name == b.table_name && Arc::ptr_eq(&a.source, &b.source);
        self.tables.len() == other.tables.len()
            && self.tables.iter().zip(&other.tables).all(same)
            && self.joins().count() == other.joins().count()
            && self.joins().all(|condition| other.conditions.contains(condition))
    }
}

/// The table that `plan` filters and renames at the most, as relation `at`: with its columns, and its conditions added to `conditions`.
fn table_below<'p>(
    plan: &'p LogicalPlan,
    at: usize,
    conditions: &mut Vec<Expr>,
) -> Result<Option<(&'p TableScan, Vec<Expr>)>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            if scan.fetch.is_some() {
                return Ok(None);
            }
            let table = scan.source.schema();
            let column = |field: &str| Some(Expr::Column(name_of((at, table.index_of(field).ok()?))));
            let columns: Option<Vec<Expr>> = scan.projected_schema.fields().iter().map(|f| column(f.name())).collect();
            let Some(columns) = columns else { return Ok(None) };
            for filter in &scan.filters {
                let placed = with_columns(filter, &|of| column(&of.name))?;
                conditions.extend(split_conjunction_owned(placed));
            }
            Ok(Some((scan, columns)))
        }
        LogicalPlan::Filter(filter) => {
            let Some((scan, columns)) = table_below(&filter.input, at, conditions)? else { return Ok(None) };
            conditions.extend(split_conjunction_owned(in_terms_of(&filter.predicate, &filter.input, &columns)?));
            Ok(Some((scan, columns)))
        }
        LogicalPlan::Projection(projection) => {
            let Some((scan, columns)) = table_below(&projection.input, at, conditions)? else { return Ok(None) };
            let columns = projection.expr.iter().map(|expr| in_terms_of(expr, &projection.input, &columns));
            Ok(Some((scan, columns.collect::<Result<_>>()?)))
        }
        LogicalPlan::SubqueryAlias(alias) => table_below(&alias.input, at, conditions),
        _ => Ok(None),
    }
}

/// Several of them in one pass.
struct Pass {
    /// One row.
    plan: LogicalPlan,
    /// For each, the columns of its functions in `plan`.
    columns: Vec<Vec<usize>>,
    note: MergedAggregates,
}

fn pass(all: &[&OverTables<'_>], cardinalities: &Cardinalities<'_>) -> Result<Option<Pass>> {
    let Some(first) = all.first() else { return Ok(None) };
    let common: Vec<&Expr> =
        first.conditions.iter().filter(|condition| all.iter().all(|one| one.conditions.contains(condition))).collect();
    let own = |one: &OverTables<'_>| -> Vec<Expr> {
        one.conditions.iter().filter(|condition| !common.contains(condition)).cloned().collect()
    };
    let own: Vec<Vec<Expr>> = all.iter().map(|one| own(one)).collect();
    let mut conditions: Vec<Expr> = common.into_iter().cloned().collect();
    for relation in 0..first.tables.len() {
        let of = own.iter().map(|own| {
            conjunction(own.iter().filter(|condition| relations_of(condition) == single(relation)).cloned())
        });
        if let Some(of) = of.collect::<Option<Vec<Expr>>>() {
            let mut unique: Vec<Expr> = Vec::new();
            of.into_iter().for_each(|condition| {
                if !unique.contains(&condition) {
                    unique.push(condition);
                }
            });
            conditions.extend(disjunction(unique));
        }
    }
    let rules = OptimizerContext::new();
    let mut relations = Vec::new();
    for (at, scan) in first.tables.iter().enumerate() {
        let whole = TableScanBuilder::new(scan.table_name.clone(), Arc::clone(&scan.source)).build()?;
        let mut plan = LogicalPlan::TableScan(whole);
        let names = plan.schema().columns();
        let name = |column: &Column| Some(Expr::Column(names.get(place_of(column)?.1)?.clone()));
        let of_table = |expr: &Expr| with_columns(expr, &name);
        let filters = conditions.iter().filter(|condition| relations_of(condition) == single(at));
        if let Some(filter) = conjunction(filters.map(of_table).collect::<Result<Vec<_>>>()?) {
            let filter = LogicalPlan::Filter(Filter::try_new(filter, Arc::new(plan))?);
            plan = PushDownFilter::new().rewrite(filter, &rules)?.data;
        }
        let alias = TableReference::bare(format!("merged {at}"));
        relations.push(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(plan), alias)?));
    }
    conditions.retain(|condition| relations_of(condition).count_ones() != 1);
    let no_order = || plan_datafusion_err!("relations that do not hang together");
    let (input, names, rows) = {
        let profiles = cardinalities.profiles_from(HashMap::default());
        let block = Block::of_relations(relations.iter().collect(), conditions);
        let mut graph = Graph::new(&block, &profiles)?;
        let rows =
            members(graph.inner).filter_map(|at| graph.relations.get(at)).map(|r| r.base_rows).fold(0.0, f64::max);
        let (tree, _) = search::cheapest(&mut graph).ok_or_else(no_order)?;
        let tree = build::oriented(&mut graph, tree);
        let (input, names) = build::joins_of(&graph, &mut relations.clone(), &tree)?;
        (input, names, rows)
    };
    let mut functions: Vec<Expr> = Vec::new();
    let mut columns = Vec::new();
    for (one, own) in all.iter().zip(&own) {
        let mut of = Vec::new();
        for function in &one.functions {
            let mut function = function.clone();
            let filters = own.iter().cloned().chain(function.params.filter.take().map(|filter| *filter));
            function.params.filter = conjunction(filters).map(Box::new);
            let function = names.named(&Expr::AggregateFunction(function))?;
            let at = functions.iter().position(|known| *known == function).unwrap_or_else(|| {
                functions.push(function);
                functions.len() - 1
            });
            of.push(at);
        }
        columns.push(of);
    }
    // Functions may have one name and different conditions: a filter's text is no part of it everywhere.
    let functions =
        functions.into_iter().enumerate().map(|(at, function)| function.alias(format!("value {at}"))).collect();
    let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), Vec::new(), functions)?);
    let saves = (all.len() - 1) as f64 * rows * ROW_NS;
    Ok(Some(Pass { plan, columns, note: MergedAggregates { aggregates: all.len(), rows, saves } }))
}

/// The passes that all of `singles` take, each with the numbers of those that it is for; at least two each.
fn passes(
    singles: &[OverTables<'_>],
    cardinalities: &Cardinalities<'_>,
    min_rows: f64,
) -> Result<Vec<(Vec<usize>, Pass)>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, one) in singles.iter().enumerate() {
        let alike = |group: &&mut Vec<usize>| {
            group.first().and_then(|first| singles.get(*first)).is_some_and(|first| first.reads_as(one))
        };
        match groups.iter_mut().find(alike) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    let mut found = Vec::new();
    for group in groups.into_iter().filter(|group| group.len() > 1) {
        let all: Vec<&OverTables<'_>> = group.iter().filter_map(|at| singles.get(*at)).collect();
        if let Some(pass) = pass(&all, cardinalities)?.filter(|pass| pass.note.rows >= min_rows) {
            found.push((group, pass));
        }
    }
    Ok(found)
}

/// The aggregate of `plan`, below what only names and computes, with the expressions of the columns of `plan` over it.
fn aggregate_below(plan: &LogicalPlan) -> Result<Option<(&Aggregate, Vec<Expr>)>> {
    let mut exprs: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let mut input = plan;
    while let Some(below) = eager::below_names(input, &mut exprs)? {
        input = below;
    }
    let plain = !exprs.iter().any(|expr| expr.is_volatile() || expr.contains_scalar_subquery());
    Ok(match input {
        LogicalPlan::Aggregate(aggregate) if plain => Some((aggregate, exprs)),
        _ => None,
    })
}

/// `expr` over the columns of `aggregate`, with `value` for the column at a place.
fn over(expr: &Expr, aggregate: &Aggregate, value: &dyn Fn(usize) -> Option<Expr>) -> Result<Expr> {
    with_columns(expr, &|column| value(aggregate.schema.maybe_index_of_column(column)?))
}

/// `plan` with scalar subqueries that are one pass; what they give is one row with a struct, which DataFusion computes once for all that read it.
fn merged_subqueries(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    min_rows: f64,
    found: &mut Vec<MergedAggregates>,
) -> Result<Option<LogicalPlan>> {
    let mut queries: Vec<Subquery> = Vec::new();
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarSubquery(query) = e
                    && query.outer_ref_columns.is_empty()
                    && !queries.contains(query)
                {
                    queries.push(query.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    let mut singles = Vec::new();
    let mut values = Vec::new();
    for query in &queries {
        if let Some((aggregate, exprs)) = aggregate_below(&query.subquery)?
            && let Some(one) = OverTables::of_one_row(aggregate)?
            && let Some(expr) = exprs.into_iter().next()
        {
            singles.push(one);
            values.push((query, aggregate, expr));
        }
    }
    let mut replaced: Vec<(&Subquery, Expr)> = Vec::new();
    for (group, pass) in passes(&singles, cardinalities, min_rows)? {
        let columns = pass.plan.schema().columns();
        let fields = columns.iter().flat_map(|column| [lit(column.name.clone()), Expr::Column(column.clone())]);
        let row = named_struct(fields.collect()).alias("values");
        let row = LogicalPlan::Projection(Projection::try_new(vec![row], Arc::new(pass.plan.clone()))?);
        let row = Subquery {
            subquery: Arc::new(row),
            outer_ref_columns: Vec::new(),
            spans: datafusion::common::Spans::new(),
        };
        for (at, own) in group.iter().zip(&pass.columns) {
            let Some((query, aggregate, expr)) = values.get(*at) else { continue };
            let value = |at: usize| {
                let column = columns.get(*own.get(at)?)?;
                let value = get_field(Expr::ScalarSubquery(row.clone()), column.name.clone());
                let field = aggregate.schema.fields().get(at)?;
                if field.is_nullable() {
                    return Some(value);
                }
                // A field of a struct may be NULL, whatever it is made of; a count is none.
                let zero = ScalarValue::new_zero(field.data_type()).ok()?;
                when(value.clone().is_not_null(), value).otherwise(lit(zero)).ok()
            };
            replaced.push((query, over(expr, aggregate, &value)?));
        }
        found.push(pass.note);
    }
    if replaced.is_empty() {
        return Ok(None);
    }
    let new = plan.clone().transform_up(|node| {
        let names = match &node {
            LogicalPlan::Projection(projection) => projection.schema.columns(),
            _ => Vec::new(),
        };
        let mut at = 0;
        let node = node.map_expressions(|expr| {
            let replaced = expr.transform_down(|e| {
                let known = match &e {
                    Expr::ScalarSubquery(query) => replaced.iter().find(|(known, _)| *known == query),
                    _ => None,
                };
                Ok(match known {
                    Some((_, value)) => Transformed::new(value.clone(), true, TreeNodeRecursion::Jump),
                    None => Transformed::no(e),
                })
            })?;
            // Columns keep their names.
            let name: Option<&Column> = names.get(at);
            at += 1;
            match name {
                Some(name) if replaced.transformed && !matches!(replaced.data, Expr::Alias(_)) => {
                    replaced.map_data(|expr| Ok(expr.alias_qualified(name.relation.clone(), name.name.clone())))
                }
                _ => Ok(replaced),
            }
        })?;
        if node.transformed { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
    })?;
    Ok(Some(new.data))
}

/// `plan` without limits on one row, which DataFusion puts below cross joins.
fn without_limits(plan: LogicalPlan) -> Result<LogicalPlan> {
    let without = plan.transform_up(|node| {
        let LogicalPlan::Limit(limit) = &node else { return Ok(Transformed::no(node)) };
        let fetches = matches!(limit.get_fetch_type()?, FetchType::Literal(Some(1..) | None));
        let skips = !matches!(limit.get_skip_type()?, SkipType::Literal(0));
        Ok(match fetches && !skips && is_one_row(&limit.input) {
            true => Transformed::yes(Arc::unwrap_or_clone(Arc::clone(&limit.input))),
            false => Transformed::no(node),
        })
    })?;
    Ok(without.data)
}

/// True if `plan` gives one row at the most.
fn is_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) | LogicalPlan::Limit(_) => {
            plan.inputs().into_iter().all(is_one_row)
        }
        LogicalPlan::Join(join) => {
            join.join_type == JoinType::Inner && is_one_row(&join.left) && is_one_row(&join.right)
        }
        _ => false,
    }
}

/// `plan` with aggregates that are joined without a condition in one pass.
#[recursive::recursive]
fn merged_rows(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    min_rows: f64,
    found: &mut Vec<MergedAggregates>,
) -> Result<LogicalPlan> {
    if let Some(block) = Block::of(plan)?
        && block.conjuncts.is_empty()
        && block.existences.is_empty()
        && let Some(merged) = merged_block(plan, &block, cardinalities, min_rows, found)?
    {
        return Ok(merged);
    }
    let before = found.len();
    let inputs = plan.inputs().into_iter().map(|input| merged_rows(input, cardinalities, min_rows, found));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    if found.len() == before { Ok(plan.clone()) } else { with_inputs(plan, inputs) }
}

fn merged_block(
    plan: &LogicalPlan,
    block: &Block<'_>,
    cardinalities: &Cardinalities<'_>,
    min_rows: f64,
    found: &mut Vec<MergedAggregates>,
) -> Result<Option<LogicalPlan>> {
    let mut singles = Vec::new();
    let mut values = Vec::new();
    for relation in &block.relations {
        let Some((aggregate, exprs)) = aggregate_below(relation)? else { return Ok(None) };
        let Some(one) = OverTables::of_one_row(aggregate)? else { return Ok(None) };
        singles.push(one);
        values.push((aggregate, exprs));
    }
    // All of them in one: what is left would be joined again.
    let mut passes = passes(&singles, cardinalities, min_rows)?;
    let Some((group, pass)) = passes.pop().filter(|(group, _)| group.len() == singles.len()) else { return Ok(None) };
    let columns = pass.plan.schema().columns();
    let exprs = block.output.iter().zip(plan.schema().iter()).map(|(&(relation, at), (qualifier, field))| {
        let of = || plan_datafusion_err!("no column {at} in relation {relation}");
        let (aggregate, exprs) = values.get(relation).ok_or_else(of)?;
        let own = group.iter().position(|&of| of == relation).and_then(|at| pass.columns.get(at)).ok_or_else(of)?;
        let value = |at: usize| Some(Expr::Column(columns.get(*own.get(at)?)?.clone()));
        let expr = over(exprs.get(at).ok_or_else(of)?, aggregate, &value)?;
        Ok(expr.alias_qualified(qualifier.cloned(), field.name().clone()))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    found.push(pass.note);
    Ok(Some(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(pass.plan))?)))
}
