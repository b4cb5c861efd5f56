//! Operators whose groups or partitions would stay whole if they were hot.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use sparklet_history::Whole;

use super::boundary::{column_name, group_columns};
use super::windows::Windows;
use super::{groups, windows};

/// An aggregate or a window that is never cut, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uncut {
    pub(crate) what: String,
    pub(crate) why: Whole,
    /// Names of its key columns, in order of their names.
    keys: Vec<String>,
    window: bool,
}

/// Those of the optimised plan `logical`.
pub(crate) fn uncut(logical: &LogicalPlan) -> Vec<Uncut> {
    let mut found = Vec::new();
    let visited = logical.apply(|node| {
        let (why, what, by, window) = match node {
            LogicalPlan::Aggregate(aggregate) => match groups::recognise(aggregate) {
                Some(Err(why)) => (why, "aggregate".to_owned(), aggregate.group_expr.clone(), false),
                _ => return Ok(TreeNodeRecursion::Continue),
            },
            LogicalPlan::Window(window) => match windows::recognise(window) {
                Some(Err(why)) => {
                    let what = format!("window {}", Windows::functions(window).join(", "));
                    (why, what, windows::partition_by(window), true)
                }
                _ => return Ok(TreeNodeRecursion::Continue),
            },
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        let texts: Vec<String> = by.iter().map(ToString::to_string).collect();
        let what = if texts.is_empty() { what } else { format!("{what} by {}", texts.join(", ")) };
        found.push(Uncut { what, why, keys: group_columns(by).unwrap_or_default(), window });
        Ok(TreeNodeRecursion::Continue)
    });
    match visited {
        Ok(_) => found,
        Err(_) => Vec::new(),
    }
}

impl Uncut {
    /// Rows of the largest and of the median partition where `plan` is this operator and has run on several; none for any other.
    pub(super) fn skew(&self, plan: &Arc<dyn ExecutionPlan>) -> Option<(u64, u64)> {
        let functions = match (plan.downcast_ref::<BoundedWindowAggExec>(), plan.downcast_ref::<WindowAggExec>()) {
            (Some(window), _) => window.window_expr(),
            (_, Some(window)) => window.window_expr(),
            // What an aggregate takes is not counted by partition.
            _ => return None,
        };
        let by = functions.first()?.partition_by();
        let mut keys: Vec<String> = by.iter().filter_map(column_name).collect();
        keys.sort_unstable();
        if !self.window || keys.is_empty() || keys != self.keys {
            return None;
        }
        let mut rows: Vec<u64> = Vec::new();
        for metric in plan.metrics()?.iter() {
            if let (MetricValue::OutputRows(count), Some(_)) = (metric.value(), metric.partition()) {
                rows.push(count.value() as u64);
            }
        }
        rows.sort_unstable();
        Some((*rows.last()?, *rows.get(rows.len() / 2)?))
    }
}
