//! Joins of some of the relations of a query: what is expected of them can be held against a count, though no plan of it ran them.

use datafusion::common::{HashSet, Result};
use datafusion::logical_expr::LogicalPlan;
use sparklet_history::Fingerprint;

use super::block::Block;
use super::build;
use super::graph::Graph;
use super::search::cheapest_of;
use super::set::{Set, members, single};
use super::{KeptOrders, Orders, Search};
use crate::cardinality::{Cardinalities, Estimate, address};

/// A join that a query could begin with.
#[derive(Debug, Clone)]
pub struct JoinSubset {
    /// The relations of the join with their filters, joined.
    pub plan: LogicalPlan,
    /// How many there are.
    pub relations: usize,
    /// Rows that are expected.
    pub estimate: Estimate,
}

/// Up to `most` joins of two or more relations of each block of `plan`, which should be optimised, that `cardinalities` know no count of: a
/// sample, the same for the same plan.
pub fn join_subsets(plan: &LogicalPlan, cardinalities: &Cardinalities<'_>, most: usize) -> Result<Vec<JoinSubset>> {
    let identities = cardinalities.identities(plan);
    let profiles = cardinalities.profiles_from(cardinalities.observed(&identities));
    let kept = KeptOrders::default();
    let search = Search::new(cardinalities, identities, &profiles, Orders::Cheapest(&kept));
    let mut found = Vec::new();
    of_plan(&search, plan, most, &mut found)?;
    Ok(found)
}

#[recursive::recursive]
fn of_plan(search: &Search<'_, '_>, plan: &LogicalPlan, most: usize, into: &mut Vec<JoinSubset>) -> Result<()> {
    let Some(block) = Block::of(plan)? else {
        return plan.inputs().into_iter().try_for_each(|input| of_plan(search, input, most, into));
    };
    if block.relations.len() > 2 {
        of_block(search, plan, &block, most, into)?;
    }
    block.relations.iter().try_for_each(|relation| of_plan(search, relation, most, into))
}

fn of_block(
    search: &Search<'_, '_>,
    plan: &LogicalPlan,
    block: &Block<'_>,
    most: usize,
    into: &mut Vec<JoinSubset>,
) -> Result<()> {
    let mut graph = Graph::new(block, search.profiles)?;
    search.order(plan, block, &mut graph)?;
    let mut sets: Vec<Set> = connected(&graph).into_iter().collect();
    // By a hash: neither the small ones first nor those of the first relations.
    sets.sort_by_cached_key(|set| Fingerprint::of(&format!("{set:b}")));
    let mut taken = 0;
    for set in sets {
        if taken == most {
            break;
        }
        let Some((tree, _)) = cheapest_of(&mut graph, set) else { continue };
        let mut relations: Vec<LogicalPlan> = block.relations.iter().map(|&relation| relation.clone()).collect();
        let (joined, _) = build::joins_of(&graph, &mut relations, &tree)?;
        let known = search.cardinalities.identities(&joined);
        let identity = known.get(&address(&joined));
        if identity.is_none_or(|identity| search.cardinalities.of_subplan(identity).is_some()) {
            continue;
        }
        let estimate = graph.of_set(set);
        into.push(JoinSubset { plan: joined, relations: set.count_ones() as usize, estimate });
        taken += 1;
    }
    Ok(())
}

/// Most sets that are sampled from.
const SETS: usize = 500;

/// Sets of relations that multiply rows and hang together, but for single ones and all.
fn connected(graph: &Graph) -> HashSet<Set> {
    let mut found: HashSet<Set> = HashSet::default();
    let mut open: Vec<Set> = members(graph.inner).map(single).collect();
    while let Some(set) = open.pop() {
        if found.len() >= SETS {
            break;
        }
        for next in members(graph.neighbours_of(set) & graph.inner) {
            let larger = set | single(next);
            if larger != graph.inner && found.insert(larger) {
                open.push(larger);
            }
        }
    }
    found
}
