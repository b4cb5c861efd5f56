//! Logical plans that give the same rows as one another.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};

use sparklet_history::JoinOrder;

use crate::cardinality::Cardinalities;
use crate::join_order::{
    EarlyGroups, FinerGroups, KeptOrders, KeyPush, MergedAggregates, OrderChange, OuterLater, Pick, Reordered,
    any_order, early_groups, finer_groups, merge_aggregates, outer_later, push_keys, reorder_after_stages, reorder_as,
    same_columns,
};

/// How a candidate differs from the plan that it was made from.
#[derive(Debug, Clone, PartialEq)]
pub enum RewriteNote {
    /// The joins of a block run in another order.
    JoinOrder(OrderChange),
    /// Only groups that matter are made.
    KeysPushed(KeyPush),
    /// Groups are made below joins, or before the sets of a ROLLUP, and merged above.
    EarlyGroups(EarlyGroups),
    /// Aggregates that differ by their conditions are computed in one pass.
    MergedAggregates(MergedAggregates),
    /// Aggregates over the same rows are made of the groups of the finest of them.
    FinerGroups(FinerGroups),
    /// An inner join runs before an outer one.
    OuterLater(OuterLater),
}

/// Another plan for the same rows.
#[derive(Debug, Clone, PartialEq)]
pub struct LogicalCandidate {
    /// The plan, ready to be planned physically.
    pub plan: LogicalPlan,
    /// What was changed.
    pub rewrites: Vec<RewriteNote>,
    /// The orders of its joins.
    pub orders: Vec<JoinOrder>,
}

/// Nodes of a plan from which only one other is made: each takes a search through all of it.
const LARGE: usize = 120;

/// The few best plans that give the rows of `logical`, which should be optimised, the most promising first; `logical` itself is not among
/// them. The same for the same inputs.
pub fn candidates(logical: &LogicalPlan, cardinalities: &Cardinalities<'_>) -> Vec<LogicalCandidate> {
    let simpler = Simpler::of(logical, cardinalities);
    let kept = KeptOrders::default();
    let rewritten = |keys, early| rewritten(logical, &simpler, cardinalities, Rewriting { keys, early }, &kept);
    let Some(most) = rewritten(true, true) else { return Vec::new() };
    let Rewriting { keys, early } = Rewriting::of(&most.rewrites);
    let mut found = vec![most];
    let mut nodes = 0;
    crate::for_each_logical_node(logical, &mut |_| nodes += 1);
    if nodes > LARGE {
        return found;
    }
    if early {
        found.extend(rewritten(true, false));
    }
    if keys {
        found.extend(rewritten(false, false));
    }
    found
}

/// The plan for the rows of `logical` with these rewrites, one of [`candidates`] if it has no others: a search for all of them takes up to three
/// times as long. Joins run in the `orders` that they had; a search for others takes most of the time that is left.
pub fn candidate_like(
    logical: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    rewriting: Rewriting,
    orders: &[JoinOrder],
) -> Option<LogicalCandidate> {
    let kept = KeptOrders::new(orders);
    rewritten(logical, &Simpler::of(logical, cardinalities), cardinalities, rewriting, &kept)
}

/// `logical` with joins in some order that `pick` leads to, and by how much the search expects it to cost more than as it is written, in
/// nanoseconds of CPU, about; for comparisons. None where there is no other order.
pub fn any_candidate(
    logical: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    pick: &mut Pick<'_>,
) -> Option<(LogicalPlan, f64)> {
    let made = any_order(logical, cardinalities, pick)?;
    let cost = made.because.iter().map(|change| change.cost_after - change.cost_before).sum();
    Some((narrowed(made.plan, logical)?, cost))
}

/// `logical`, parts of which have run ([`Cardinalities::after`]), with the joins that are still to come in another order; what was changed beside
/// it. None where no order saves `min_gain` (0 to 1) of the expected cost.
pub fn candidate_after_stages(
    logical: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    min_gain: f64,
) -> Option<(LogicalPlan, Vec<OrderChange>)> {
    let made = reorder_after_stages(logical, cardinalities, min_gain)?;
    Some((narrowed(made.plan, logical)?, made.because))
}

/// What is rewritten beside the orders of joins, and what always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewriting {
    /// Keys are pushed down.
    pub keys: bool,
    /// Groups are made early.
    pub early: bool,
}

impl Rewriting {
    fn of(rewrites: &[RewriteNote]) -> Self {
        let has = |wanted: fn(&RewriteNote) -> bool| rewrites.iter().any(wanted);
        Self {
            keys: has(|note| matches!(note, RewriteNote::KeysPushed(_))),
            early: has(|note| matches!(note, RewriteNote::EarlyGroups(_))),
        }
    }
}

/// What all rewritten queries begin with.
struct Simpler {
    /// None where nothing changes.
    plan: Option<LogicalPlan>,
    rewrites: Vec<RewriteNote>,
}

impl Simpler {
    fn of(logical: &LogicalPlan, cardinalities: &Cardinalities<'_>) -> Self {
        let mut found = Self { plan: None, rewrites: Vec::new() };
        if let Some((plan, merged)) = merge_aggregates(logical, cardinalities) {
            found.rewrites.extend(merged.into_iter().map(RewriteNote::MergedAggregates));
            found.plan = Some(plan);
        }
        if let Some((plan, finer)) = finer_groups(found.plan.as_ref().unwrap_or(logical), cardinalities) {
            found.rewrites.extend(finer.into_iter().map(RewriteNote::FinerGroups));
            found.plan = Some(plan);
        }
        if let Some((plan, moved)) = outer_later(found.plan.as_ref().unwrap_or(logical), cardinalities) {
            found.rewrites.extend(moved.into_iter().map(RewriteNote::OuterLater));
            found.plan = Some(plan);
        }
        found
    }
}

/// `logical`, which has become `simpler`, rewritten, its scalar subqueries included; none where nothing changes.
fn rewritten(
    logical: &LogicalPlan,
    simpler: &Simpler,
    cardinalities: &Cardinalities<'_>,
    rewriting: Rewriting,
    kept: &KeptOrders,
) -> Option<LogicalCandidate> {
    let mut orders = Vec::new();
    let mut rewrites = simpler.rewrites.clone();
    let mut current = simpler.plan.clone();
    if rewriting.keys
        && let Some((plan, pushed)) = push_keys(current.as_ref().unwrap_or(logical), cardinalities)
    {
        rewrites.extend(pushed.into_iter().map(RewriteNote::KeysPushed));
        current = Some(plan);
    }
    if rewriting.early
        && let Some((plan, early)) = early_groups(current.as_ref().unwrap_or(logical), cardinalities)
    {
        rewrites.extend(early.into_iter().map(RewriteNote::EarlyGroups));
        current = Some(plan);
    }
    let reordered = reorder_as(current.as_ref().unwrap_or(logical), cardinalities, kept);
    if let Some(Reordered { plan, because, orders: of_blocks }) = reordered {
        orders.extend(of_blocks);
        if !because.is_empty() {
            rewrites.extend(because.into_iter().map(RewriteNote::JoinOrder));
            current = Some(plan);
        }
    }
    let mut plan = current.unwrap_or_else(|| logical.clone());
    if has_subqueries(&plan) {
        // One subquery may stand in many places.
        let mut known: Vec<(Arc<LogicalPlan>, Option<Arc<LogicalPlan>>)> = Vec::new();
        let subqueries = plan.transform_down(|node| {
            node.map_subqueries(|query| match query {
                LogicalPlan::Subquery(query) if query.outer_ref_columns.is_empty() => {
                    let better = match known.iter().find(|(known, _)| *known == query.subquery) {
                        Some((_, better)) => better.clone(),
                        None => {
                            let simpler = Simpler::of(&query.subquery, cardinalities);
                            let better = rewritten(&query.subquery, &simpler, cardinalities, rewriting, kept);
                            let better = better.map(|better| {
                                rewrites.extend(better.rewrites);
                                orders.extend(better.orders);
                                Arc::new(better.plan)
                            });
                            known.push((Arc::clone(&query.subquery), better.clone()));
                            better
                        }
                    };
                    Ok(match better {
                        Some(better) => Transformed::yes(LogicalPlan::Subquery(query.with_plan(better))),
                        None => Transformed::no(LogicalPlan::Subquery(query)),
                    })
                }
                other => Ok(Transformed::no(other)),
            })
        });
        plan = subqueries.ok()?.data;
    }
    if rewrites.is_empty() {
        return None;
    }
    Some(LogicalCandidate { plan: narrowed(plan, logical)?, rewrites, orders })
}

fn has_subqueries(plan: &LogicalPlan) -> bool {
    let found = plan.exists(|node| {
        let mut found = false;
        node.apply_subqueries(|_| {
            found = true;
            Ok(TreeNodeRecursion::Stop)
        })?;
        Ok(found)
    });
    found.unwrap_or(false)
}

/// `plan` without the columns that nothing above needs.
pub(crate) fn narrowed(plan: LogicalPlan, original: &LogicalPlan) -> Option<LogicalPlan> {
    let narrowed = OptimizeProjections::new().rewrite(plan, &OptimizerContext::new()).ok()?.data;
    same_columns(&narrowed, original).then_some(narrowed)
}
