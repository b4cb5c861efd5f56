//! Logical plans that give the same rows as one another.

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
    let mut add = |plan: LogicalPlan, rewrites: Vec<RewriteNote>| {
        if let Some(plan) = narrowed(plan, logical)
            && !found.iter().any(|known| known.plan == plan)
        {
            found.push(LogicalCandidate { plan, rewrites });
        }
    };
    if let Some((plan, pushed)) = push_keys(logical, cardinalities) {
        let notes = pushed.into_iter().map(RewriteNote::KeysPushed);
        match reorder(&plan, cardinalities) {
            Some(Reordered { plan, because }) => {
                add(plan, notes.chain(because.into_iter().map(RewriteNote::JoinOrder)).collect());
            }
            None => add(plan, notes.collect()),
        }
    }
    if let Some(Reordered { plan, because }) = reorder(logical, cardinalities) {
        add(plan, because.into_iter().map(RewriteNote::JoinOrder).collect());
    }
    found
}

/// `plan` without the columns that nothing above needs.
pub(crate) fn narrowed(plan: LogicalPlan, original: &LogicalPlan) -> Option<LogicalPlan> {
    let narrowed = OptimizeProjections::new().rewrite(plan, &OptimizerContext::new()).ok()?.data;
    same_columns(&narrowed, original).then_some(narrowed)
}
