//! Enumeration of connected subgraphs and their connected complements: Moerkotte and Neumann, "Analysis of Two Existing and One New
//! Dynamic Programming Algorithm for the Generation of Optimal Bushy Join Trees without Cross Products", VLDB 2006 (DPccp).

use std::ops::ControlFlow;

use super::set::{Set, members, single, within};

/// Calls `emit` for each pair of disjoint connected sets with an edge between them, once for the two orders of a pair, smaller sets before
/// larger ones that hold them. `neighbours` has the neighbours of each relation.
pub(super) fn pairs(neighbours: &[Set], emit: &mut dyn FnMut(Set, Set) -> ControlFlow<()>) -> ControlFlow<()> {
    // The algorithm wants numbers in breadth-first order.
    let order = breadth_first(neighbours);
    let renumbered: Vec<Set> = order
        .iter()
        .map(|&old| {
            let of = neighbours.get(old).copied().unwrap_or(0);
            (0..order.len())
                .filter(|&new| order.get(new).is_some_and(|&o| within(single(o), of)))
                .fold(0, |s, new| s | single(new))
        })
        .collect();
    let back = |set: Set| members(set).filter_map(|new| order.get(new)).fold(0, |s, &old| s | single(old));
    let mut walk = Walk { neighbours: &renumbered, emit: &mut |a, b| emit(back(a), back(b)) };
    for i in (0..order.len()).rev() {
        walk.complements(single(i))?;
        walk.grow(single(i), up_to(i))?;
    }
    ControlFlow::Continue(())
}

struct Walk<'a> {
    neighbours: &'a [Set],
    emit: &'a mut dyn FnMut(Set, Set) -> ControlFlow<()>,
}

impl Walk<'_> {
    fn around(&self, set: Set) -> Set {
        members(set).filter_map(|i| self.neighbours.get(i)).fold(0, |all, of| all | of) & !set
    }

    /// Connected sets that hold `set` and nothing of `without`.
    fn grow(&mut self, set: Set, without: Set) -> ControlFlow<()> {
        let around = self.around(set) & !without;
        for more in subsets(around) {
            self.complements(set | more)?;
        }
        for more in subsets(around) {
            self.grow(set | more, without | around)?;
        }
        ControlFlow::Continue(())
    }

    /// Connected sets beside `set`.
    fn complements(&mut self, set: Set) -> ControlFlow<()> {
        let without = set | up_to(set.trailing_zeros() as usize);
        let around = self.around(set) & !without;
        for i in members(around).collect::<Vec<_>>().into_iter().rev() {
            (self.emit)(set, single(i))?;
            self.grow_complement(set, single(i), without | (up_to(i) & around))?;
        }
        ControlFlow::Continue(())
    }

    fn grow_complement(&mut self, set: Set, complement: Set, without: Set) -> ControlFlow<()> {
        let around = self.around(complement) & !without & !set;
        for more in subsets(around) {
            (self.emit)(set, complement | more)?;
        }
        for more in subsets(around) {
            self.grow_complement(set, complement | more, without | around)?;
        }
        ControlFlow::Continue(())
    }
}

/// Relations up to and with `i`.
fn up_to(i: usize) -> Set {
    !0 >> (63 - i.min(63))
}

/// Non-empty subsets, smaller numbers first.
fn subsets(of: Set) -> impl Iterator<Item = Set> {
    let mut next: Set = 0;
    std::iter::from_fn(move || {
        next = next.wrapping_sub(of) & of;
        (next != 0).then_some(next)
    })
}

fn breadth_first(neighbours: &[Set]) -> Vec<usize> {
    let mut order: Vec<usize> = Vec::with_capacity(neighbours.len());
    let mut seen: Set = 0;
    for start in 0..neighbours.len() {
        if within(single(start), seen) {
            continue;
        }
        seen |= single(start);
        order.push(start);
        let mut at = order.len() - 1;
        while let Some(&i) = order.get(at) {
            let new = neighbours.get(i).copied().unwrap_or(0) & !seen;
            seen |= new;
            order.extend(members(new));
            at += 1;
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connected(set: Set, neighbours: &[Set]) -> bool {
        let mut all = single(set.trailing_zeros() as usize);
        loop {
            let next = all | (members(all).fold(0, |s, i| s | neighbours[i]) & set);
            if next == all {
                return all == set;
            }
            all = next;
        }
    }

    proptest! {
        #[test]
        fn every_pair_once_and_parts_before_wholes(n in 2usize..8, edges in prop::collection::vec((0usize..8, 0usize..8), 1..16)) {
            let mut neighbours = vec![0; n];
            for (a, b) in edges.into_iter().map(|(a, b)| (a % n, b % n)).filter(|(a, b)| a != b) {
                neighbours[a] |= single(b);
                neighbours[b] |= single(a);
            }
            let mut expected = std::collections::BTreeSet::new();
            for a in 1..single(n) {
                for b in (a + 1)..single(n) {
                    let touch = members(a).any(|i| neighbours[i] & b != 0);
                    if a & b == 0 && touch && connected(a, &neighbours) && connected(b, &neighbours) {
                        expected.insert((a, b));
                    }
                }
            }
            let mut found = std::collections::BTreeSet::new();
            let mut known: std::collections::BTreeSet<Set> = (0..n).map(single).collect();
            let mut wrong = None;
            let _ = pairs(&neighbours, &mut |a, b| {
                if !known.contains(&a) || !known.contains(&b) || !found.insert((a.min(b), a.max(b))) {
                    wrong = Some((a, b));
                }
                known.insert(a | b);
                ControlFlow::Continue(())
            });
            prop_assert_eq!(wrong, None);
            prop_assert_eq!(found, expected);
        }
    }
}
