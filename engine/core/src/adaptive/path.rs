//! Nodes of a logical plan by their place: from the root, the number of the input to go to.

use datafusion::common::internal_datafusion_err;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;

/// The node of `plan` at `path`.
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
    Ok(replaced.data)
}
