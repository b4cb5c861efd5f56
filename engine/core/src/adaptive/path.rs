//! Nodes of a logical plan by their place: from the root, the number of the input to go to. Behind the inputs of a node come the subqueries in
//! its expressions.

use std::sync::Arc;

use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;

/// The queries of the subqueries in the expressions of `plan`; none for one that reads columns from outside.
pub(super) fn subqueries(plan: &LogicalPlan) -> Vec<Option<Arc<LogicalPlan>>> {
    let mut found = Vec::new();
    let visited = plan.apply_subqueries(|node| {
        found.push(match node {
            LogicalPlan::Subquery(query) if query.outer_ref_columns.is_empty() => Some(Arc::clone(&query.subquery)),
            _ => None,
        });
        Ok(TreeNodeRecursion::Jump)
    });
    if visited.is_ok() { found } else { Vec::new() }
}

/// The node of `plan` at `path`, which may lead into subqueries.
pub(super) fn node_at(plan: &LogicalPlan, path: &[usize]) -> Option<LogicalPlan> {
    let Some((first, rest)) = path.split_first() else { return Some(plan.clone()) };
    let inputs = plan.inputs();
    match inputs.get(*first) {
        Some(input) => node_at(input, rest),
        None => node_at(subqueries(plan).get(first - inputs.len())?.as_ref()?, rest),
    }
}

/// The node of `plan` at `path`, which leads through inputs alone.
pub(super) fn at_path<'a>(plan: &'a LogicalPlan, path: &[usize]) -> Option<&'a LogicalPlan> {
    match path.split_first() {
        None => Some(plan),
        Some((first, rest)) => at_path(plan.inputs().get(*first).copied()?, rest),
    }
}

/// `plan` with `node` at `path`.
pub(super) fn replace_at(plan: LogicalPlan, path: &[usize], node: LogicalPlan) -> Result<LogicalPlan> {
    let Some((first, rest)) = path.split_first() else { return Ok(node) };
    let mut at = 0;
    let mut node = Some(node);
    let replaced = plan.map_children(|child| {
        let own = at;
        at += 1;
        if own != *first {
            return Ok(Transformed::no(child));
        }
        let node = node.take().ok_or_else(|| internal_datafusion_err!("a plan node with two inputs {first}"))?;
        Ok(Transformed::yes(replace_at(child, rest, node)?))
    })?;
    if node.is_none() {
        return Ok(replaced.data);
    }
    let replaced = replaced.data.map_subqueries(|child| {
        let own = at;
        at += 1;
        match (child, node.take()) {
            (LogicalPlan::Subquery(query), Some(node)) if own == *first => {
                let new = replace_at(query.subquery.as_ref().clone(), rest, node)?;
                Ok(Transformed::new(
                    LogicalPlan::Subquery(query.with_plan(Arc::new(new))),
                    true,
                    TreeNodeRecursion::Jump,
                ))
            }
            (child, kept) => {
                node = kept;
                Ok(Transformed::new(child, false, TreeNodeRecursion::Jump))
            }
        }
    })?;
    Ok(replaced.data)
}
