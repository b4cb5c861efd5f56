//! The shape of a recorded plan, and what may be said of a node's counts.

use sparklet_history::{Completeness, NodeRecord, PlanRecord};

/// Children by node, for any record: a parent that does not stand before its child makes the child a root.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Nodes without a parent; one in every plan that an engine wrote.
    pub(crate) roots: Vec<usize>,
    /// Children of each node, in plan order.
    pub(crate) children: Vec<Vec<usize>>,
}

impl Shape {
    pub(crate) fn of(plan: &PlanRecord) -> Self {
        let mut shape = Self { roots: Vec::new(), children: vec![Vec::new(); plan.nodes.len()] };
        for (index, node) in plan.nodes.iter().enumerate() {
            let parent = node.parent.and_then(|p| usize::try_from(p).ok()).filter(|p| *p < index);
            match parent.and_then(|p| shape.children.get_mut(p)) {
                Some(siblings) => siblings.push(index),
                None => shape.roots.push(index),
            }
        }
        shape
    }

    /// Rows out of the children of `node`, largest first; empty where one is unknown.
    pub(crate) fn input_rows(&self, plan: &PlanRecord, node: usize) -> Vec<u64> {
        let children = self.children.get(node).map(Vec::as_slice).unwrap_or_default();
        let rows: Option<Vec<u64>> = children.iter().map(|c| plan.nodes.get(*c).and_then(|n| n.rows)).collect();
        let mut rows = rows.unwrap_or_default();
        rows.sort_unstable_by(|a, b| b.cmp(a));
        rows
    }
}

/// A q-error and what it is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QError {
    /// `max(estimated ÷ actual, actual ÷ estimated)`.
    pub(crate) value: f64,
    /// True if the node did not give all its rows: the q-error is this or more.
    pub(crate) at_least: bool,
}

/// The q-error of a node; none where the estimate is unknown, or where a count that was cut short lies below the estimate (the missing
/// rows may be all that is wrong).
pub(crate) fn q_error(node: &NodeRecord) -> Option<QError> {
    let value = node.q_error()?;
    let at_least = is_cut(node);
    (!at_least || node.rows > node.estimated_rows).then_some(QError { value, at_least })
}

/// True if the node has fewer rows than its subplan: reduced on purpose, or stopped.
pub(crate) fn is_cut(node: &NodeRecord) -> bool {
    node.completeness != Completeness::Complete
}

/// True for operators that join two inputs.
pub(crate) fn is_join(node: &NodeRecord) -> bool {
    node.operator.ends_with("JoinExec")
}

/// True for operators that read files or generate rows: leaves.
pub(crate) fn is_leaf(shape: &Shape, node: usize) -> bool {
    shape.children.get(node).is_none_or(Vec::is_empty)
}

/// True for operators that read what a stage left, which ran before: the plan below them.
pub(crate) fn is_exchange_reader(node: &NodeRecord) -> bool {
    node.operator == "ExchangeReaderExec"
}

/// True for joins that were divided in mid-run, for what they read, and for what takes their rows as they come. The partitions of the
/// join are slots, which take tasks until none is left, those of its inputs slices: neither says anything of skew.
pub(crate) fn is_shared_out(plan: &PlanRecord, shape: &Shape, node: usize) -> bool {
    feeds_divided_join(plan, node) || follows_divided_join(plan, shape, node)
}

fn is_divided_join(node: &NodeRecord) -> bool {
    node.operator == "AdaptiveJoinExec"
}

fn feeds_divided_join(plan: &PlanRecord, node: usize) -> bool {
    let mut at = node;
    while let Some(record) = plan.nodes.get(at) {
        if is_divided_join(record) {
            return true;
        }
        // A reader further up is that of another stage.
        let passes = record.operator == "ProjectionExec" || (at == node && is_exchange_reader(record));
        match record.parent.and_then(|p| usize::try_from(p).ok()).filter(|p| passes && *p < at) {
            Some(above) => at = above,
            None => return false,
        }
    }
    false
}

fn follows_divided_join(plan: &PlanRecord, shape: &Shape, node: usize) -> bool {
    let mut at = node;
    while let Some(record) = plan.nodes.get(at) {
        if is_divided_join(record) {
            return true;
        }
        // A repartition has partitions of its own.
        let passes = record.operator != "RepartitionExec" && !is_exchange_reader(record);
        match shape.children.get(at).map(Vec::as_slice) {
            Some([only]) if passes => at = *only,
            _ => return false,
        }
    }
    false
}
