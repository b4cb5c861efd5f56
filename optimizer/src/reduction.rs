//! What may cut the counts of an operator below those of its subplan, read off a physical plan before it runs.
//!
//! A LIMIT stops pulling, a filter learned while running keeps rows out of a scan, an empty build side makes a join forget its probe
//! side. The plan tells where this can happen; metrics of the run tell whether it did. [`PossibleReduction`] names the nodes to look at.

use std::sync::Arc;

use datafusion::common::HashMap;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode};
use sparklet_history::Reduction;

use crate::source::file_scan;

/// A way in which the counts of a node may be cut. Nodes are given by their position in pre-order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PossibleReduction {
    /// The limit of node `by` may stop pulling before the node is done. It did not if `by` put out fewer rows than its limit.
    Limit {
        /// Node with the limit.
        by: usize,
    },
    /// Node `by` pulls both its inputs in step and stops when one ends (sort-merge join). Counted as [`Reduction::Limit`].
    Exhausted {
        /// The join.
        by: usize,
    },
    /// A filter that node `by` learns while it runs leaves out rows at node `at`. It did not if `at` neither pruned nor filtered.
    DynamicFilter {
        /// Join, TopK or aggregate that makes the filter; none if it is not part of the plan.
        by: Option<usize>,
        /// Scan or filter that applies it.
        at: usize,
    },
    /// Join `by` does not read this node's side in a partition where `build`, its other side, has no row with a key.
    EmptyBuildSide {
        /// The join.
        by: usize,
        /// Root of its build side.
        build: usize,
    },
}

impl PossibleReduction {
    /// As a run record names it.
    pub fn reduction(self) -> Reduction {
        match self {
            Self::Limit { .. } | Self::Exhausted { .. } => Reduction::Limit,
            Self::DynamicFilter { .. } => Reduction::DynamicFilter,
            Self::EmptyBuildSide { .. } => Reduction::EmptyBuildSide,
        }
    }
}

/// Per node of `plan` in pre-order: what may cut its counts, as a run record names it; sorted, each once.
pub fn reductions(plan: &Arc<dyn ExecutionPlan>) -> Vec<Vec<Reduction>> {
    let named = |causes: Vec<PossibleReduction>| {
        let mut named: Vec<Reduction> = causes.into_iter().map(PossibleReduction::reduction).collect();
        named.sort_unstable();
        named.dedup();
        named
    };
    possible_reductions(plan).into_iter().map(named).collect()
}

/// Per node of `plan` in pre-order: what may cut its counts, with the nodes that decide whether it did; sorted, each once.
pub fn possible_reductions(plan: &Arc<dyn ExecutionPlan>) -> Vec<Vec<PossibleReduction>> {
    let mut walk = Walk::default();
    walk.visit(plan, None, &[], false);
    walk.dynamic_filters();
    let mut nodes = walk.causes;
    for causes in &mut nodes {
        causes.sort_unstable();
        causes.dedup();
    }
    nodes
}

#[derive(Default)]
struct Walk {
    causes: Vec<Vec<PossibleReduction>>,
    parents: Vec<Option<usize>>,
    /// Nodes that make learned filters, by id of the expression.
    makers: HashMap<u64, usize>,
    /// Nodes that apply learned filters: (node, id of the expression).
    appliers: Vec<(usize, Option<u64>)>,
}

impl Walk {
    /// `causes` act on the rows of `plan`; `unordered` under a union below a limit, where a whole input may never be asked.
    #[recursive::recursive]
    fn visit(
        &mut self,
        plan: &Arc<dyn ExecutionPlan>,
        parent: Option<usize>,
        causes: &[PossibleReduction],
        unordered: bool,
    ) {
        let node = self.causes.len();
        self.causes.push(causes.to_vec());
        self.parents.push(parent);
        for made in plan.dynamic_expressions_produced() {
            if let Some(id) = made.expression_id() {
                self.makers.insert(id, node);
            }
        }
        for predicate in predicates(plan.as_ref()) {
            learned_filters(&predicate, |id| self.appliers.push((node, id)));
        }
        if limit_of(plan.as_ref()).is_some() && stops_itself(plan.as_ref()) {
            self.causes[node].push(PossibleReduction::Limit { by: node });
        }
        let unordered = unordered || matches!(plan.name(), "UnionExec" | "InterleaveExec");
        let children: Vec<Arc<dyn ExecutionPlan>> = plan.children().into_iter().cloned().collect();
        let mut build = node + 1;
        for (side, child) in children.iter().enumerate() {
            let at = self.causes.len();
            if side == 0 {
                build = at;
            }
            let mut below: Vec<PossibleReduction> = causes
                .iter()
                .filter(|cause| unordered_or_passes(**cause, plan.as_ref(), side, unordered))
                .copied()
                .collect();
            if limit_of(plan.as_ref()).is_some() && passes_limit(plan.as_ref(), side) {
                below.push(PossibleReduction::Limit { by: node });
            }
            if plan.downcast_ref::<SortMergeJoinExec>().is_some() {
                below.push(PossibleReduction::Exhausted { by: node });
            }
            if side == 1 && skips_probe_side(plan.as_ref()) {
                below.push(PossibleReduction::EmptyBuildSide { by: node, build });
            }
            self.visit(child, Some(node), &below, unordered);
        }
    }

    /// Marks the nodes from each learned filter up to the node that makes it, whose own rows are the same with and without; where an input of
    /// a join makes it for the other input, up to the join.
    fn dynamic_filters(&mut self) {
        for (at, id) in std::mem::take(&mut self.appliers) {
            let by = id.and_then(|id| self.makers.get(&id)).copied();
            let mut above = Vec::new();
            let mut maker = by;
            while let Some(current) = maker {
                above.push(current);
                maker = self.parents[current];
            }
            let mut node = Some(at);
            while let Some(current) = node.filter(|n| !above.contains(n)) {
                self.causes[current].push(PossibleReduction::DynamicFilter { by, at });
                node = self.parents[current];
            }
        }
    }
}

/// Calls `found` for each learned filter in `predicate`, with its id.
fn learned_filters(predicate: &Arc<dyn PhysicalExpr>, mut found: impl FnMut(Option<u64>)) {
    let visited = predicate.apply(|expr| {
        if expr.downcast_ref::<DynamicFilterPhysicalExpr>().is_some() {
            found(expr.expression_id());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "nothing in the visit fails");
}

/// Predicates that an operator applies to rows.
fn predicates(plan: &dyn ExecutionPlan) -> Vec<Arc<dyn PhysicalExpr>> {
    let scan = file_scan(plan).and_then(|config| config.file_source().filter());
    let filter = plan.downcast_ref::<FilterExec>().map(|filter| Arc::clone(filter.predicate()));
    scan.into_iter().chain(filter).collect()
}

/// The number of rows after which an operator stops.
fn limit_of(plan: &dyn ExecutionPlan) -> Option<usize> {
    if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() {
        return limit.fetch().map(|fetch| fetch.saturating_add(limit.skip()));
    }
    if let Some(limit) = plan.downcast_ref::<LocalLimitExec>() {
        return Some(limit.fetch());
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return aggregate.limit_options().map(|options| options.limit());
    }
    plan.fetch()
}

/// True if the limit is a hint from above, so that the operator's own rows are cut too: those of a scan, or of an aggregate.
fn stops_itself(plan: &dyn ExecutionPlan) -> bool {
    plan.children().is_empty() || plan.downcast_ref::<AggregateExec>().is_some()
}

/// True if a limit in `plan` keeps it from pulling all of input `side`.
fn passes_limit(plan: &dyn ExecutionPlan, side: usize) -> bool {
    match plan.downcast_ref::<AggregateExec>() {
        // With a direction it is a TopK over the groups, which needs all of them; else any groups will do.
        Some(aggregate) => aggregate.limit_options().is_some_and(|options| options.descending().is_none()),
        None => !blocks(plan, side),
    }
}

/// True if a cause that acts on the rows of `plan` acts on those of its input `side` too.
fn unordered_or_passes(cause: PossibleReduction, plan: &dyn ExecutionPlan, side: usize, unordered: bool) -> bool {
    match cause {
        // The whole side is not read.
        PossibleReduction::EmptyBuildSide { .. } => true,
        PossibleReduction::Limit { .. } | PossibleReduction::Exhausted { .. } => unordered || !blocks(plan, side),
        PossibleReduction::DynamicFilter { .. } => false,
    }
}

/// True if `plan` reads all of input `side` before its first row is out.
fn blocks(plan: &dyn ExecutionPlan, side: usize) -> bool {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        // Partitions are built one by one, and those not asked for are not built.
        return side == 0 && *join.partition_mode() == PartitionMode::CollectLeft;
    }
    if plan.downcast_ref::<NestedLoopJoinExec>().is_some() || plan.downcast_ref::<CrossJoinExec>().is_some() {
        return side == 0;
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return *aggregate.input_order_mode() == InputOrderMode::Linear && aggregate.limit_options().is_none();
    }
    match plan.name() {
        "SortExec" | "SortExec(TopK)" | "WindowAggExec" => true,
        // Scalar subqueries run to their end before the first row.
        "ScalarSubqueryExec" => side > 0,
        _ => false,
    }
}

/// True if `plan` is a join that leaves its second input alone when the first is empty.
fn skips_probe_side(plan: &dyn ExecutionPlan) -> bool {
    let join_type = plan
        .downcast_ref::<HashJoinExec>()
        .map(|join| *join.join_type())
        .or_else(|| plan.downcast_ref::<NestedLoopJoinExec>().map(|join| *join.join_type()));
    match join_type {
        Some(join_type) => join_type.empty_build_side_produces_empty_result(),
        None => plan.downcast_ref::<CrossJoinExec>().is_some(),
    }
}

#[cfg(test)]
mod tests;
