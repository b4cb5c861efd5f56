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

use std::cell::RefCell;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{HashMap, Result};
use datafusion::logical_expr::LogicalPlan;
use sparklet_history::{Fingerprint, JoinOrder};

use crate::cardinality::{Cardinalities, Profiles, address};
use crate::fingerprint::Identity;
use block::{Block, Tree};
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
    /// The order now, e.g. `(a JOIN c) JOIN b`.
    pub order: String,
}

/// A plan with other orders of joins.
#[derive(Debug, Clone, PartialEq)]
pub struct Reordered {
    /// The plan.
    pub plan: LogicalPlan,
    /// Blocks that changed, the outermost first.
    pub because: Vec<OrderChange>,
    /// The orders of all blocks, by which the plan is made again with other literals.
    pub orders: Vec<JoinOrder>,
}

/// Orders of joins that a plan had before, each for one block.
#[derive(Debug, Default)]
pub(crate) struct KeptOrders(RefCell<Vec<JoinOrder>>);

impl KeptOrders {
    /// What a plan that is to be made again had.
    pub(crate) fn new(orders: &[JoinOrder]) -> Self {
        Self(RefCell::new(orders.to_vec()))
    }

    /// The order of the next block with these relations.
    fn take(&self, relations: &[Fingerprint]) -> Option<Tree> {
        let mut kept = self.0.borrow_mut();
        let at = kept.iter().position(|order| order.relations == relations)?;
        Tree::from_postfix(&kept.remove(at).tree, relations.len())
    }
}

/// Chooses one of so many, by number.
pub type Pick<'a> = dyn FnMut(usize) -> usize + 'a;

/// Where orders come from.
enum Orders<'a> {
    /// The cheapest, where none is kept.
    Cheapest(&'a KeptOrders),
    /// Any.
    Any(RefCell<&'a mut Pick<'a>>),
    /// The cheapest, of blocks some relations of which have run, where it saves this share of the cost.
    AfterStages(f64),
}

/// Share of the cost of a block that another order must save.
const MIN_GAIN: f64 = 0.05;

/// `plan`, which should be optimised, with the joins of each block in the order that is expected to be the cheapest; none where nothing
/// changes. The schema stays what it was. Columns that are no longer needed are still carried: see
/// [`crate::candidates`].
pub fn reorder(plan: &LogicalPlan, cardinalities: &Cardinalities<'_>) -> Option<Reordered> {
    reorder_as(plan, cardinalities, &KeptOrders::default()).filter(|reordered| !reordered.because.is_empty())
}

/// The same, in the orders that are kept for its blocks; where none is, it is looked for. With the orders where nothing changes, too.
pub(crate) fn reorder_as(
    plan: &LogicalPlan,
    cardinalities: &Cardinalities<'_>,
    kept: &KeptOrders,
) -> Option<Reordered> {
    reorder_by(plan, cardinalities, Orders::Cheapest(kept))
}

/// `plan` with the joins of each block in some order that `pick` leads to, all of which have conditions where the block has; for
/// comparisons. None where no block can have another order.
pub fn any_order(plan: &LogicalPlan, cardinalities: &Cardinalities<'_>, pick: &mut Pick<'_>) -> Option<Reordered> {
    let made = reorder_by(plan, cardinalities, Orders::Any(RefCell::new(pick)))?;
    (!made.because.is_empty()).then_some(made)
}

/// `plan`, parts of which have run ([`Cardinalities::after`]), with the joins that are still to come in the order that is expected to be the
/// cheapest, where it saves `min_gain` (0 to 1) of the cost of the block; other blocks stay as they are. None where nothing changes.
pub fn reorder_after_stages(plan: &LogicalPlan, cardinalities: &Cardinalities<'_>, min_gain: f64) -> Option<Reordered> {
    let made = reorder_by(plan, cardinalities, Orders::AfterStages(min_gain))?;
    (!made.because.is_empty()).then_some(made)
}

fn reorder_by(plan: &LogicalPlan, cardinalities: &Cardinalities<'_>, wanted: Orders<'_>) -> Option<Reordered> {
    let identities = cardinalities.identities(plan);
    let profiles = cardinalities.profiles_from(cardinalities.observed(&identities));
    let mut search = Search {
        templates: templates(plan, cardinalities),
        ..Search::new(cardinalities, identities, &profiles, wanted)
    };
    let plan = search.plan(plan).ok()?;
    let Search { changes, orders, .. } = search;
    Some(Reordered { plan, because: changes, orders })
}

/// Templates of the subplans of `plan` by address; none where there is no past that a plan could be made again from.
fn templates(plan: &LogicalPlan, cardinalities: &Cardinalities<'_>) -> HashMap<usize, Fingerprint> {
    let mut templates = HashMap::default();
    let names = cardinalities.named(plan);
    let mut of_nodes = names.nodes.iter();
    crate::for_each_logical_node(plan, &mut |node| {
        templates.extend(of_nodes.next().copied().flatten().map(|identity| (address(node), identity.template)));
    });
    templates
}

/// How often an order is looked for again with what past runs tell of the last one found.
const ROUNDS: usize = 4;

struct Search<'a, 'o> {
    cardinalities: &'a Cardinalities<'a>,
    /// Of the nodes of the plan.
    identities: HashMap<usize, Identity>,
    /// Of the same, tables included.
    templates: HashMap<usize, Fingerprint>,
    profiles: &'a Profiles,
    wanted: Orders<'o>,
    changes: Vec<OrderChange>,
    orders: Vec<JoinOrder>,
}

impl<'a, 'o> Search<'a, 'o> {
    fn new(
        cardinalities: &'a Cardinalities<'a>,
        identities: HashMap<usize, Identity>,
        profiles: &'a Profiles,
        wanted: Orders<'o>,
    ) -> Self {
        let (templates, changes, orders) = (HashMap::default(), Vec::new(), Vec::new());
        Self { cardinalities, identities, templates, profiles, wanted, changes, orders }
    }

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
    fn order(&self, plan: &LogicalPlan, block: &Block<'_>, graph: &mut Graph) -> Result<Option<(Tree, f64)>> {
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
        if matches!(self.wanted, Orders::AfterStages(_))
            && !block.relations.iter().any(|relation| self.cardinalities.has_run(relation))
        {
            return Ok(None);
        }
        let relations = block.relations.iter().map(|relation| self.templates.get(&address(relation)).copied());
        let relations: Option<Vec<Fingerprint>> = relations.collect();
        let kept = match &self.wanted {
            Orders::Cheapest(kept) => relations.as_deref().and_then(|relations| kept.take(relations)),
            Orders::Any(_) | Orders::AfterStages(_) => None,
        };
        let keep = |tree: &Tree| relations.map(|relations| JoinOrder { relations, tree: tree.to_postfix() });
        if kept.as_ref() == Some(&block.written) {
            self.orders.extend(keep(&block.written));
            return Ok(None);
        }
        let mut graph = Graph::new(block, self.profiles)?;
        let (tree, change) = match kept.filter(|tree| graph.may_run(tree)) {
            // What it costs is known of the runs that it had.
            Some(tree) => {
                let order = shown(&tree, &block.relations);
                let relations = block.relations.len();
                (tree, OrderChange { relations, cost_before: f64::INFINITY, cost_after: 0.0, order })
            }
            None => {
                let found = match &self.wanted {
                    Orders::Cheapest(_) | Orders::AfterStages(_) => self.order(plan, block, &mut graph)?,
                    Orders::Any(pick) => search::any(&mut graph, &mut **pick.borrow_mut()),
                };
                let Some((tree, cost_after)) = found else { return Ok(None) };
                let cost_before = search::cost_of(&mut graph, &block.written);
                let cheap = match self.wanted {
                    Orders::Cheapest(_) => cost_after <= cost_before * (1.0 - MIN_GAIN),
                    Orders::AfterStages(min_gain) => cost_after <= cost_before * (1.0 - min_gain),
                    Orders::Any(_) => true,
                };
                if tree == block.written || !cheap {
                    self.orders.extend(keep(&block.written));
                    return Ok(None);
                }
                let relations = block.relations.len();
                let tree = build::oriented(&mut graph, tree);
                let order = shown(&tree, &block.relations);
                (tree, OrderChange { relations, cost_before, cost_after, order })
            }
        };
        let (changes, orders) = (self.changes.len(), self.orders.len());
        self.changes.push(change);
        self.orders.extend(keep(&tree));
        let relations = block.relations.iter().map(|relation| self.plan(relation)).collect::<Result<Vec<_>>>()?;
        let built = build::plan(&graph, relations, &tree, &block.output, plan)?;
        if same_columns(&built, plan) {
            return Ok(Some(built));
        }
        self.changes.truncate(changes);
        self.orders.truncate(orders);
        Ok(None)
    }
}

/// `(a JOIN c) JOIN b`.
fn shown(tree: &Tree, relations: &[&LogicalPlan]) -> String {
    fn part(tree: &Tree, relations: &[&LogicalPlan]) -> String {
        match tree {
            Tree::Relation(_) => shown(tree, relations),
            Tree::Join(..) => format!("({})", shown(tree, relations)),
        }
    }
    match tree {
        Tree::Relation(relation) => relations.get(*relation).map_or_else(String::new, |relation| name_of(relation)),
        Tree::Join(left, right) => format!("{} JOIN {}", part(left, relations), part(right, relations)),
    }
}

/// What a relation is called: its table, or its topmost operator.
fn name_of(relation: &LogicalPlan) -> String {
    match (relation, relation.inputs().as_slice()) {
        (LogicalPlan::SubqueryAlias(alias), _) => alias.alias.to_string(),
        (LogicalPlan::TableScan(scan), _) => scan.table_name.to_string(),
        (LogicalPlan::Filter(_) | LogicalPlan::Projection(_), [input]) => name_of(input),
        _ => relation.display().to_string().chars().take_while(|c| *c != ':').collect(),
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
