//! Logical plans that give the same rows as one another.

use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{OptimizerContext, OptimizerRule};

use crate::cardinality::Cardinalities;
use crate::join_order::{OrderChange, reorder, same_columns};

/// How a candidate differs from the plan that it was made from.
#[derive(Debug, Clone, PartialEq)]
pub enum RewriteNote {
    /// The joins of a block run in another order.
    JoinOrder(OrderChange),
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
    let reordered = reorder(logical, cardinalities).and_then(|reordered| {
        let plan = narrowed(reordered.plan, logical)?;
        let rewrites = reordered.because.into_iter().map(RewriteNote::JoinOrder).collect();
        Some(LogicalCandidate { plan, rewrites })
    });
    reordered.into_iter().collect()
}

/// `plan` without the columns that nothing above needs.
pub(crate) fn narrowed(plan: LogicalPlan, original: &LogicalPlan) -> Option<LogicalPlan> {
    let narrowed = OptimizeProjections::new().rewrite(plan, &OptimizerContext::new()).ok()?.data;
    same_columns(&narrowed, original).then_some(narrowed)
}
