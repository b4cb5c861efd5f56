//! Another order of the joins of a plan.
//!
//! Inner joins of any number of relations are one block, whose order is free: all orders give the same rows. Semi and anti joins take part:
//! they may be asked anywhere above the relations that their conditions speak of. Outer joins, aggregates, windows, limits and the like
//! are relations of the block above them, and blocks of their own below.

mod block;
mod build;
mod cost;
mod dpccp;
mod eager;
mod finer;
mod graph;
mod keys;
mod merged;
mod outer;
mod search;
mod set;
mod subsets;
#[cfg(test)]
mod tests;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{HashMap, Result};
use datafusion::logical_expr::LogicalPlan;

use crate::cardinality::{Cardinalities, Profiles, address};
use crate::fingerprint::Identity;
use block::Block;
pub(crate) use eager::early_groups;
pub use eager::{AggregatePart, EarlyGroups};
pub use finer::FinerGroups;
pub(crate) use finer::finer_groups;
use graph::Graph;
pub use keys::KeyPush;
pub(crate) use keys::push_keys;
pub use merged::MergedAggregates;
pub(crate) use merged::merge_aggregates;
pub use outer::OuterLater;
pub(crate) use outer::outer_later;
use set::Set;
pub use subsets::{JoinSubset, join_subsets};

/// An order of joins that was changed.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderChange {
    /// Relations of the block.
    pub relations: usize,
    /// Expected cost as it was written, in nanoseconds of CPU, about.
    pub cost_before: f64,
    /// Expected cost now.
    pub cost_after: f64,
}

/// A plan with other orders of joins.
#[derive(Debug, Clone, PartialEq)]
pub struct Reordered {
    /// The plan.
    pub plan: LogicalPlan,
    /// Blocks that changed, the outermost first.
    pub because: Vec<OrderChange>,
}

/// Share of the cost of a block that another order must save.
const MIN_GAIN: f64 = 0.05;

/// `plan`, which should be optimised, with the joins of each block in the order that is expected to be the cheapest; none where nothing
/// changes. The schema stays what it was. Columns that are no longer needed are still carried: see
/// [`crate::candidates`].
pub fn reorder(plan: &LogicalPlan, cardinalities: &Cardinalities<'_>) -> Option<Reordered> {
    let identities = cardinalities.identities(plan);
    let profiles = Profiles::new(cardinalities.observed(&identities));
    let mut search = Search { cardinalities, identities, profiles: &profiles, changes: Vec::new() };
    let plan = search.plan(plan).ok()?;
    (!search.changes.is_empty()).then_some(Reordered { plan, because: search.changes })
}

/// How often an order is looked for again with what past runs tell of the last one found.
const ROUNDS: usize = 4;

struct Search<'a> {
    cardinalities: &'a Cardinalities<'a>,
    /// Of the nodes of the plan.
    identities: HashMap<usize, Identity>,
    profiles: &'a Profiles,
    changes: Vec<OrderChange>,
}

impl Search<'_> {
    #[recursive::recursive]
    fn plan(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        if let Some(block) = Block::of(plan)?
            && let Some(changed) = self.block(plan, &block)?
        {
            return Ok(changed);
        }
        self.inputs(plan)
    }

    /// `plan` over inputs that were looked at.
    fn inputs(&mut self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let inputs = plan.inputs();
        if inputs.is_empty() {
            return Ok(plan.clone());
        }
        let before = self.changes.len();
        let new: Vec<LogicalPlan> = inputs.into_iter().map(|input| self.plan(input)).collect::<Result<_>>()?;
        if self.changes.len() == before {
            return Ok(plan.clone());
        }
        with_inputs(plan, new)
    }

    /// The cheapest order. Past runs may tell of its joins too: then it is looked for again.
    fn order(&self, plan: &LogicalPlan, block: &Block<'_>, graph: &mut Graph) -> Result<Option<(block::Tree, f64)>> {
        for (join, left, right) in written(block) {
            if let Some(known) = self.profiles.observed(join) {
                graph.learn(left, right, known.rows);
            }
        }
        let mut found = search::cheapest(graph);
        if !self.cardinalities.has_past() {
            return Ok(found);
        }
        for round in 1..=ROUNDS {
            let Some((tree, _)) = &found else { return Ok(None) };
            if *tree == block.written {
                break;
            }
            let tree = build::oriented(graph, tree.clone());
            let relations = block.relations.iter().map(|&relation| relation.clone()).collect();
            let built = build::plan(graph, relations, &tree, &block.output, plan)?;
            let identities = self.cardinalities.identities(&built);
            let observed = self.cardinalities.observed(&identities);
            let mut joins = Vec::new();
            build::joins(&built, &tree, &mut joins);
            let mut news = false;
            for (join, left, right) in &joins {
                if let Some(known) = observed.get(&address(join)) {
                    news |= graph.learn(*left, *right, known.rows);
                }
            }
            if !news || round == ROUNDS {
                self.compose(graph, &identities, joins.into_iter());
                break;
            }
            found = search::cheapest(graph);
        }
        self.compose(graph, &self.identities, written(block));
        Ok(found)
    }

    /// Keeps what the graph expects of joins, for whoever asks about them later.
    fn compose<'p>(
        &self,
        graph: &mut Graph,
        identities: &HashMap<usize, Identity>,
        joins: impl Iterator<Item = (&'p LogicalPlan, Set, Set)>,
    ) {
        for (join, left, right) in joins {
            if let Some(&identity) = identities.get(&address(join)) {
                self.cardinalities.compose(identity, graph.of_set(left | right));
            }
        }
    }

    fn block(&mut self, plan: &LogicalPlan, block: &Block<'_>) -> Result<Option<LogicalPlan>> {
        if block.relations.len() < 3 {
            return Ok(None);
        }
        let mut graph = Graph::new(block, self.profiles)?;
        let Some((tree, cost_after)) = self.order(plan, block, &mut graph)? else { return Ok(None) };
        let cost_before = search::cost_of(&mut graph, &block.written);
        if tree == block.written || cost_after > cost_before * (1.0 - MIN_GAIN) {
            return Ok(None);
        }
        let at = self.changes.len();
        self.changes.push(OrderChange { relations: block.relations.len(), cost_before, cost_after });
        let relations = block.relations.iter().map(|relation| self.plan(relation)).collect::<Result<Vec<_>>>()?;
        let tree = build::oriented(&mut graph, tree);
        let built = build::plan(&graph, relations, &tree, &block.output, plan)?;
        if same_columns(&built, plan) {
            return Ok(Some(built));
        }
        self.changes.truncate(at);
        Ok(None)
    }
}

/// Joins as they are written; without those that a condition above would be counted to, which makes them differ.
fn written<'p>(block: &'p Block<'_>) -> impl Iterator<Item = (&'p LogicalPlan, Set, Set)> {
    block.joins.iter().copied().filter(|(_, left, right)| {
        !block.late.iter().any(|e| {
            let of = block::relations_of(e);
            of != 0 && set::within(of, left | right)
        })
    })
}

/// `plan` over other inputs.
fn with_inputs(plan: &LogicalPlan, inputs: Vec<LogicalPlan>) -> Result<LogicalPlan> {
    let mut inputs = inputs.into_iter();
    let replaced = plan.clone().map_children(|old| {
        Ok(match inputs.next() {
            Some(input) => Transformed::yes(input),
            None => Transformed::no(old),
        })
    })?;
    Ok(replaced.data)
}

/// Names, types and nullability of all columns are the same.
pub(crate) fn same_columns(a: &LogicalPlan, b: &LogicalPlan) -> bool {
    let (a, b) = (a.schema(), b.schema());
    a.fields().len() == b.fields().len()
        && a.iter().zip(b.iter()).all(|((p, f), (q, g))| {
            p == q && f.name() == g.name() && f.data_type() == g.data_type() && f.is_nullable() == g.is_nullable()
        })
}
