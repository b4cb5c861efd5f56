//! The cheapest order of the joins of a graph: exact where there are few pairs, greedy beyond.

use std::ops::ControlFlow;

use datafusion::common::HashMap;

use super::Pick;
use super::block::Tree;
use super::cost;
use super::dpccp;
use super::graph::Graph;
use super::set::{Set, members, single};

/// Most pairs of sets that the exact search looks at: a few milliseconds.
const MAX_PAIRS: usize = 12_000;

/// Most relations for the exact search.
const MAX_EXACT: usize = 12;

/// The cheapest order and its cost; none where the graph has no order (it always should).
pub(super) fn cheapest(graph: &mut Graph) -> Option<(Tree, f64)> {
    let all = (0..graph.relations.len()).fold(0, |set, relation| set | single(relation));
    cheapest_of(graph, all)
}

/// The cheapest order of the joins of `set`, which should hang together, and its cost.
pub(super) fn cheapest_of(graph: &mut Graph, set: Set) -> Option<(Tree, f64)> {
    let exact = (set.count_ones() as usize <= MAX_EXACT).then(|| exhaustive(graph, set)).flatten();
    exact.or_else(|| greedy(graph, set))
}

/// The cost of an order.
pub(super) fn cost_of(graph: &mut Graph, tree: &Tree) -> f64 {
    match tree {
        Tree::Relation(_) => 0.0,
        Tree::Join(left, right) => {
            let below = cost_of(graph, left) + cost_of(graph, right);
            below + of_join(graph, left.set(), right.set())
        }
    }
}

fn of_join(graph: &mut Graph, left: Set, right: Set) -> f64 {
    let (a, b) = (graph.input(left), graph.input(right));
    let output = graph.input(left | right);
    let keys = graph.has_keys(left, right);
    cost::of_join(a, b, output, keys)
}

#[derive(Debug, Clone, Copy)]
struct Best {
    cost: f64,
    /// The inputs of the last join; the same set twice for a relation.
    left: Set,
    right: Set,
}

fn exhaustive(graph: &mut Graph, whole: Set) -> Option<(Tree, f64)> {
    let mut best: HashMap<Set, Best> =
        members(whole).map(|i| (single(i), Best { cost: 0.0, left: single(i), right: single(i) })).collect();
    let within = |(i, of): (usize, &Set)| if whole & single(i) == 0 { 0 } else { of & whole };
    let neighbours: Vec<Set> = graph.neighbours.iter().enumerate().map(within).collect();
    let mut looked_at = 0;
    let all = dpccp::pairs(&neighbours, &mut |left, right| {
        looked_at += 1;
        if looked_at > MAX_PAIRS {
            return ControlFlow::Break(());
        }
        if !graph.may_join(left, right) {
            return ControlFlow::Continue(());
        }
        let (Some(a), Some(b)) = (best.get(&left), best.get(&right)) else { return ControlFlow::Continue(()) };
        let below = a.cost + b.cost;
        let known = best.get(&(left | right)).map_or(f64::INFINITY, |b| b.cost);
        if below < known {
            let cost = below + of_join(graph, left, right);
            if cost < known {
                best.insert(left | right, Best { cost, left, right });
            }
        }
        ControlFlow::Continue(())
    });
    if all.is_break() {
        return None;
    }
    let cost = best.get(&whole)?.cost;
    Some((tree(&best, whole)?, cost))
}

fn tree(best: &HashMap<Set, Best>, set: Set) -> Option<Tree> {
    let of = best.get(&set)?;
    if of.left == of.right {
        return Some(Tree::Relation(set.trailing_zeros() as usize));
    }
    Some(Tree::Join(Box::new(tree(best, of.left)?), Box::new(tree(best, of.right)?)))
}

/// The order that `pick` leads to, choosing each join among those that can be made, and its cost.
pub(super) fn any(graph: &mut Graph, pick: &mut Pick<'_>) -> Option<(Tree, f64)> {
    let mut parts: Vec<(Set, Tree)> = (0..graph.relations.len()).map(|i| (single(i), Tree::Relation(i))).collect();
    let mut total = 0.0;
    while parts.len() > 1 {
        let mut open = Vec::new();
        for (i, (a, _)) in parts.iter().enumerate() {
            let after = parts.iter().enumerate().skip(i + 1);
            let joined = after.filter(|(_, (b, _))| graph.neighbours_of(*a) & b != 0 && graph.may_join(*a, *b));
            open.extend(joined.map(|(j, _)| (i, j)));
        }
        let &(i, j) = open.get(pick(open.len()))?;
        let (b, right) = parts.swap_remove(j);
        let (a, left) = parts.swap_remove(i);
        total += of_join(graph, a, b);
        parts.push((a | b, Tree::Join(Box::new(left), Box::new(right))));
    }
    parts.pop().map(|(_, tree)| (tree, total))
}

/// Greedy operator ordering (Fegaras, 1998): of all joins that can be made, the one whose result is the smallest, again and again; by cost
/// where results are equal.
fn greedy(graph: &mut Graph, whole: Set) -> Option<(Tree, f64)> {
    let mut parts: Vec<(Set, Tree)> = members(whole).map(|i| (single(i), Tree::Relation(i))).collect();
    let mut total = 0.0;
    while parts.len() > 1 {
        let mut chosen: Option<(f64, f64, usize, usize)> = None;
        for (i, (a, _)) in parts.iter().enumerate() {
            for (j, (b, _)) in parts.iter().enumerate().skip(i + 1) {
                if graph.neighbours_of(*a) & b == 0 || !graph.may_join(*a, *b) {
                    continue;
                }
                let cost = of_join(graph, *a, *b);
                let rows = graph.rows(a | b);
                if chosen.is_none_or(|(r, c, ..)| (rows, cost) < (r, c)) {
                    chosen = Some((rows, cost, i, j));
                }
            }
        }
        let (_, cost, i, j) = chosen?;
        total += cost;
        let (b, right) = parts.swap_remove(j);
        let (a, left) = parts.swap_remove(i);
        parts.push((a | b, Tree::Join(Box::new(left), Box::new(right))));
    }
    parts.pop().map(|(_, tree)| (tree, total))
}
