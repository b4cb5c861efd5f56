//! Canonical order of the occurrences of a block: colour refinement, then individualisation where colours tie.
//!
//! The method is that of canonical graph labelling (McKay and Piperno, "Practical graph isomorphism, II", 2014) for very small graphs:
//! vertices are occurrences, hyper-edges are conditions. Ties that survive refinement are nearly always automorphisms (a table joined
//! with itself symmetrically); the search over them is bounded by [`MAX_LEAVES`], beyond which the first branch is taken: the result is
//! then the same for the same plan, but may differ between two ways of writing it.

use datafusion::common::HashMap;

use super::intern::{Symbols, mix};
use super::term::{Mode, OccId, Style, Term, TermId, Terms};

/// Leaves of the search tree that are looked at before giving up on the minimum.
const MAX_LEAVES: usize = 128;
/// Terms above this many nodes are hashed with a memo, since sharing can make their trees exponential.
const MEMO_ABOVE: u32 = 64;

const MARKED: u64 = 0x6d61_726b;
const SINGLED_OUT: u64 = 0x6f6e_6c79;

/// A condition of the graph.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edge {
    pub(crate) term: TermId,
    /// Tells kinds of conditions apart (filter, group key, third sort key, …).
    pub(crate) tag: u64,
    pub(crate) scope: Option<OccId>,
}

/// What colours are computed from.
pub(crate) struct Graph<'a> {
    pub(crate) symbols: &'a Symbols,
    pub(crate) terms: &'a Terms,
    /// Position of an occurrence in the block, by occurrence.
    pub(crate) local: &'a [u32],
    pub(crate) mode: Mode,
}

/// Final colours, and whether they needed no choice among ties.
pub(crate) struct Colours {
    pub(crate) colours: Vec<u64>,
    pub(crate) discrete: bool,
}

impl Graph<'_> {
    /// Colours of the occurrences, all different. `initial` has one colour an occurrence; `extras` choose among orders that are equal
    /// without them, so that they never change the text of the block itself.
    pub(crate) fn colour(&self, initial: Vec<u64>, edges: &[Edge], extras: &[Edge]) -> Colours {
        let mut colours = initial;
        if colours.len() < 2 {
            return Colours { colours, discrete: true };
        }
        let several = self.fold_single(&mut colours, edges);
        self.refine(&mut colours, &several);
        if count_distinct(&colours) == colours.len() {
            return Colours { colours, discrete: true };
        }
        let mut search = Search { graph: self, base: &colours, several: &several, extras, leaves: MAX_LEAVES };
        let best = search.run(colours.clone());
        Colours { colours: best.ranks, discrete: false }
    }

    /// Folds edges on one occurrence into its colour and returns the others.
    fn fold_single(&self, colours: &mut [u64], edges: &[Edge]) -> Vec<Edge> {
        let mut several = Vec::new();
        let mut sums = vec![0u64; colours.len()];
        for edge in edges {
            match self.ends(edge).as_slice() {
                [one] => sums[*one] = sums[*one].wrapping_add(self.hash_edge(edge, colours)),
                [] => {}
                _ => several.push(*edge),
            }
        }
        for (colour, sum) in colours.iter_mut().zip(sums) {
            *colour = mix(*colour, sum);
        }
        several
    }

    fn ends(&self, edge: &Edge) -> Vec<usize> {
        let mut ends: Vec<usize> = self
            .terms
            .occs(edge.term)
            .iter()
            .chain(&edge.scope)
            .map(|occ| self.local[occ.0 as usize] as usize)
            .collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    fn refine(&self, colours: &mut Vec<u64>, edges: &[Edge]) {
        let ends: Vec<Vec<usize>> = edges.iter().map(|e| self.ends(e)).collect();
        let mut classes = count_distinct(colours);
        while classes < colours.len() {
            let mut sums = vec![0u64; colours.len()];
            for (edge, ends) in edges.iter().zip(&ends) {
                for &end in ends {
                    let own = colours[end];
                    colours[end] = mix(own, MARKED);
                    sums[end] = sums[end].wrapping_add(self.hash_edge(edge, colours));
                    colours[end] = own;
                }
            }
            let next: Vec<u64> = colours.iter().zip(&sums).map(|(c, s)| mix(*c, *s)).collect();
            let refined = count_distinct(&next);
            if refined <= classes {
                break;
            }
            *colours = next;
            classes = refined;
        }
    }

    fn sorted_hashes(&self, edges: &[Edge], colours: &[u64]) -> Vec<u64> {
        let mut hashes: Vec<u64> = edges.iter().map(|e| self.hash_edge(e, colours)).collect();
        hashes.sort_unstable();
        hashes
    }

    fn hash_edge(&self, edge: &Edge, colours: &[u64]) -> u64 {
        let scope = edge.scope.map_or(0, |occ| colours[self.local[occ.0 as usize] as usize]);
        let mut memo = HashMap::default();
        mix(mix(edge.tag, scope), self.hash_term(edge.term, colours, &mut memo))
    }

    #[recursive::recursive]
    fn hash_term(&self, id: TermId, colours: &[u64], memo: &mut HashMap<TermId, u64>) -> u64 {
        let large = self.terms.size(id) > MEMO_ABOVE;
        if large && let Some(&known) = memo.get(&id) {
            return known;
        }
        let hash = match self.terms.get(id) {
            Term::Column { occ, key } => {
                let colour = colours[self.local[occ.0 as usize] as usize];
                mix(mix(1, colour), self.symbols.hash(key.in_mode(self.mode)))
            }
            Term::Literal { text, ty } => match self.mode {
                Mode::Exact => mix(mix(2, self.symbols.hash(*ty)), self.symbols.hash(*text)),
                Mode::Blind => mix(3, self.symbols.hash(*ty)),
            },
            Term::Opaque(key) => mix(4, self.symbols.hash(key.in_mode(self.mode))),
            Term::Apply { op, args } => {
                let mut hashes: Vec<u64> = args.iter().map(|&a| self.hash_term(a, colours, memo)).collect();
                match op.style {
                    Style::InfixAny | Style::CallAny => hashes.sort_unstable(),
                    Style::In => {
                        let of = hashes.remove(0);
                        hashes.sort_unstable();
                        hashes.dedup();
                        hashes.push(of);
                    }
                    Style::Call | Style::Infix | Style::Compare | Style::Postfix | Style::Cast => {}
                }
                hashes.into_iter().fold(mix(5, self.symbols.hash(op.name)), mix)
            }
        };
        if large {
            memo.insert(id, hash);
        }
        hash
    }
}

/// The search among ties.
struct Search<'a> {
    graph: &'a Graph<'a>,
    /// Colours before any choice: an occurrence never leaves the place of its class.
    base: &'a [u64],
    several: &'a [Edge],
    extras: &'a [Edge],
    /// Leaves left.
    leaves: usize,
}

/// An order of the occurrences, and what it makes of edges and extras.
struct Leaf {
    certificate: (Vec<u64>, Vec<u64>),
    ranks: Vec<u64>,
}

impl Search<'_> {
    /// The leaf with the smallest certificate.
    fn run(&mut self, colours: Vec<u64>) -> Leaf {
        let Some(tied) = smallest_tie(&colours) else { return self.leaf(&colours) };
        let mut best: Option<Leaf> = None;
        let mut tried: Vec<usize> = Vec::new();
        for &vertex in &tied {
            if best.is_some()
                && (self.leaves == 0 || tried.iter().any(|&other| self.are_twins(other, vertex, &colours)))
            {
                continue;
            }
            tried.push(vertex);
            let mut next = colours.clone();
            next[vertex] = mix(next[vertex], SINGLED_OUT);
            self.graph.refine(&mut next, self.several);
            let leaf = self.run(next);
            if best.as_ref().is_none_or(|b| leaf.certificate < b.certificate) {
                best = Some(leaf);
            }
        }
        best.unwrap_or_else(|| self.leaf(&colours))
    }

    fn leaf(&mut self, colours: &[u64]) -> Leaf {
        self.leaves = self.leaves.saturating_sub(1);
        let mut order: Vec<usize> = (0..colours.len()).collect();
        order.sort_by_key(|&i| (self.base[i], colours[i]));
        let mut ranks = vec![0; colours.len()];
        for (rank, &i) in order.iter().enumerate() {
            ranks[i] = rank as u64;
        }
        let certificate =
            (self.graph.sorted_hashes(self.several, &ranks), self.graph.sorted_hashes(self.extras, &ranks));
        Leaf { certificate, ranks }
    }

    /// True if exchanging the two changes nothing, so that looking at one of them is enough.
    fn are_twins(&self, a: usize, b: usize, colours: &[u64]) -> bool {
        let mut own: Vec<u64> = colours.iter().enumerate().map(|(i, c)| mix(*c, i as u64)).collect();
        let hashes = |colours: &[u64]| {
            (self.graph.sorted_hashes(self.several, colours), self.graph.sorted_hashes(self.extras, colours))
        };
        let before = hashes(&own);
        own.swap(a, b);
        before == hashes(&own)
    }
}

fn count_distinct(colours: &[u64]) -> usize {
    let mut sorted = colours.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.len()
}

/// Members of the smallest class of equal colours; of several, that of the smallest colour.
fn smallest_tie(colours: &[u64]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..colours.len()).collect();
    order.sort_by_key(|&i| colours[i]);
    order
        .chunk_by(|&a, &b| colours[a] == colours[b])
        .filter(|class| class.len() > 1)
        .min_by_key(|class| class.len())
        .map(<[_]>::to_vec)
}
