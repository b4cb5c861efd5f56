//! Fingerprints and templates of logical subplans, from logical and from physical plans.
//!
//! Both kinds of plan are lowered into one relational form and named there (module `canon`), so that a metric of a physical operator and
//! the question of a planner meet under one key. What the identity of a node says and does not say:
//!
//! - It stands for the *rows* of the subplan. Which columns are carried along, their names and their order do not matter for scans,
//!   filters, joins, unions and limits; group keys and aggregate functions do for aggregates, functions for windows.
//! - Inner joins are sets: occurrences of tables, conditions, classes of equal keys. Their order, the side of each input and the algorithm
//!   do not matter. Semi, anti and mark joins are conditions of such a set, for they multiply nothing. Outer joins, aggregates, windows,
//!   unions, limits and recursion are atoms of the sets above them.
//! - A physical operator whose rows are those of no logical subplan has none: a partial aggregate, a limit in each of several partitions,
//!   a scan that leaves out row groups by a predicate which a filter above applies again.
//! - A limit over rows whose order the plan has for free (a window's, a sorted file's) does not tell what it was ordered by: it then counts
//!   as a limit of any rows, unlike its logical node. Nothing below or beside it is touched.
//! - A subplan with a volatile expression has none, nor has one over a source that [`SourceNames`] does not know.
//!
//! The canonical text of a node names what is nested in it by fingerprint; [`explain_text`] puts the parts together. Texts are part of the
//! stored format: changing how they are written makes the past unknown to the next run, which costs speed, not correctness.

mod block;
mod canon;
mod expression;
mod intern;
mod label;
mod leaf;
mod logical;
mod operator;
mod physical;
mod render;
mod scan;
mod term;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::Fingerprint;

pub(crate) use intern::quoted;
pub use logical::for_each_logical_node;

pub use crate::source::{SourceId, SourceNames};

/// Fingerprint and template of a subplan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Hash of the canonical text.
    pub fingerprint: Fingerprint,
    /// Hash of the canonical text with typed holes for literals; equal to the fingerprint where there are none.
    pub template: Fingerprint,
}

/// Sources below a node, by their positions in a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Reads(u64);

impl Reads {
    /// Any of a list, or sources that are not told apart.
    pub const ANY: Self = Self(u64::MAX);

    /// The source at `position` of a list; those beyond the 63rd are not told apart.
    pub fn one(position: usize) -> Self {
        if position < 63 { Self(1 << position) } else { Self::ANY }
    }

    /// All of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Positions of the sources; none where they are not told apart.
    pub fn positions(self) -> Option<impl Iterator<Item = usize>> {
        (self != Self::ANY).then(|| (0..63).filter(move |at| self.0 & (1 << at) != 0))
    }
}

/// Identities of the nodes of a physical plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PhysicalFingerprints {
    /// One entry a node in pre-order: a parent before its children, these in the order of `children()`.
    pub nodes: Vec<Option<Identity>>,
    /// What each node reads, in the same order, with what the scalar subqueries around it read.
    pub reads: Vec<Reads>,
    /// The sources that are read.
    pub sources: Vec<SourceId>,
    /// Canonical texts of all fingerprints and templates, and of what they name.
    pub texts: BTreeMap<Fingerprint, String>,
}

/// Identities of the nodes of a logical plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogicalFingerprints {
    /// One entry a node in the order of [`for_each_logical_node`].
    pub nodes: Vec<Option<Identity>>,
    /// What each node reads, in the same order, with what the scalar subqueries of its query read.
    pub reads: Vec<Reads>,
    /// The sources that are read.
    pub sources: Vec<SourceId>,
    /// Canonical texts of all fingerprints and templates, and of what they name.
    pub texts: BTreeMap<Fingerprint, String>,
}

/// Identities of all nodes of a physical plan. Never fails: what is not understood has no identity. Reads no data.
pub fn fingerprint_physical(plan: &Arc<dyn ExecutionPlan>, sources: &dyn SourceNames) -> PhysicalFingerprints {
    physical::fingerprint(plan, sources)
}

/// Identities of all nodes of a logical plan, which should be optimised: only then does it agree with its physical plan.
pub fn fingerprint_logical(plan: &LogicalPlan, sources: &dyn SourceNames) -> LogicalFingerprints {
    logical::fingerprint(plan, sources)
}

/// The canonical text of `of` followed by those of all that it names, each once, in the order of first mention.
pub fn explain_text(of: Fingerprint, texts: &BTreeMap<Fingerprint, String>) -> String {
    let mut seen = vec![of];
    let mut next = 0;
    let mut out = String::new();
    while let Some(&id) = seen.get(next) {
        next += 1;
        let Some(text) = texts.get(&id) else { continue };
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("{id}: {text}\n"));
        let words = text.split(|c: char| !c.is_ascii_hexdigit());
        for mentioned in words.filter_map(|word| word.parse::<Fingerprint>().ok()) {
            if !seen.contains(&mentioned) {
                seen.push(mentioned);
            }
        }
    }
    out
}

/// The name of a function in this version: one that users can replace has an alias `NAME@VERSION`, so that plans over two versions of it
/// are two plans.
pub(crate) fn versioned<'a>(name: &'a str, aliases: &'a [String]) -> &'a str {
    let of = |alias: &&String| alias.strip_prefix(name).is_some_and(|rest| rest.starts_with('@'));
    aliases.iter().find(of).map_or(name, String::as_str)
}
