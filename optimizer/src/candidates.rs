//! Logical plans that give the same rows as one another.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};

use crate::cardinality::Cardinalities;
use crate::join_order::{KeyPush, OrderChange, Reordered, push_keys, reorder, same_columns};

/// How a candidate differs from the plan that it was made from.
#[derive(Debug, Clone, PartialEq)]
pub enum RewriteNote {
    /// The joins of a block run in another order.
    JoinOrder(OrderChange),
    /// Only groups that matter are made.
    KeysPushed(KeyPush),
}

/// Another plan for the same rows.
#[derive(Debug, Clone, PartialEq)]
pub struct LogicalCandidate {
    /// The plan, ready to be planned physically.
    pub plan: LogicalPlan,
    /// What was changed.
    pub rewrites: Vec<RewriteNote>,
}

/// The few best plans that give the rows of `logical`, which should be optimised, the most promising first; `logical` itself is not among
/// them. The same for the same inputs.
pub fn candidates(logical: &LogicalPlan, cardinalities: &Cardinalities<'_>) -> Vec<LogicalCandidate> {
    let mut found: Vec<LogicalCandidate> = Vec::new();
    found.extend(rewritten(logical, cardinalities, Rewriting::KeysAndOrder));
    let pushed = |note: &RewriteNote| matches!(note, RewriteNote::KeysPushed(_));
    if found.iter().any(|candidate| candidate.rewrites.iter().any(pushed)) {
        found.extend(rewritten(logical, cardinalities, Rewriting::Order));
    }
    found
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rewriting {
    Order,
    KeysAndOrder,
}

/// `logical` rewritten, its scalar subqueries included; none where nothing changes.
fn rewritten(
    logical: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    rewriting: Rewriting,
) -> Option<LogicalCandidate> {
    let mut rewrites = Vec::new();
    let mut current: Option<LogicalPlan> = None;
    if rewriting == Rewriting::KeysAndOrder
        && let Some((plan, pushed)) = push_keys(logical, cardinalities)
    {
        rewrites.extend(pushed.into_iter().map(RewriteNote::KeysPushed));
        current = Some(plan);
    }
    if let Some(Reordered { plan, because }) = reorder(current.as_ref().unwrap_or(logical), cardinalities) {
        rewrites.extend(because.into_iter().map(RewriteNote::JoinOrder));
        current = Some(plan);
    }
    let mut plan = current.unwrap_or_else(|| logical.clone());
    if has_subqueries(&plan) {
        let subqueries = plan.transform_down(|node| {
            node.map_subqueries(|query| match query {
                LogicalPlan::Subquery(query) if query.outer_ref_columns.is_empty() => {
                    let Some(better) = rewritten(&query.subquery, cardinalities, rewriting) else {
                        return Ok(Transformed::no(LogicalPlan::Subquery(query)));
                    };
                    rewrites.extend(better.rewrites);
                    Ok(Transformed::yes(LogicalPlan::Subquery(query.with_plan(Arc::new(better.plan)))))
                }
                other => Ok(Transformed::no(other)),
            })
        });
        plan = subqueries.ok()?.data;
    }
    if rewrites.is_empty() {
        return None;
    }
    Some(LogicalCandidate { plan: narrowed(plan, logical)?, rewrites })
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
