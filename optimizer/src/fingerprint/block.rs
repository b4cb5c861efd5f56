//! The relational half of the canonical form: atoms, their occurrences, and blocks of occurrences held together by conditions.

use sparklet_history::Fingerprint;

use super::intern::Sym;
use super::term::{OccId, TermId};

/// Something that yields rows and is not taken apart further: a source, an aggregate, an outer join, a union, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AtomId(pub(crate) u32);

/// What is known of an atom; index 0 is exact, 1 is blind (see [`super::term::Mode`]).
pub(crate) struct Atom {
    pub(crate) ids: [Fingerprint; 2],
    /// First word of its name in the blocks that use it, e.g. `lineitem`, `aggregate`.
    pub(crate) label: Sym,
    /// One line that defines it: a source in full, anything else by the fingerprint of its text.
    pub(crate) described: [Sym; 2],
    /// A limit, so that a limit above can be merged with it.
    pub(crate) limit: Option<Limit>,
}

/// `first fetch after skip` and the rest of the text, which does not depend on these numbers.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    pub(crate) skip: usize,
    pub(crate) fetch: Option<usize>,
    pub(crate) tail: [String; 2],
}

/// What an occurrence does in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Joined: its rows multiply.
    Inner,
    /// Rows of the block stay if it has a match.
    Semi,
    /// Rows of the block stay if it has no match.
    Anti,
    /// The same under the rules of `NOT IN`.
    AntiNullAware,
    /// Rows of the block stay and learn whether it has a match.
    Mark,
    /// Preserved side of an outer join.
    Preserved,
    /// Side of an outer join that is filled with nulls.
    Optional,
    /// Either side of a full outer join.
    Full,
}

impl Role {
    /// As written in canonical texts.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Inner => "of",
            Self::Semi => "with some",
            Self::Anti => "with no",
            Self::AntiNullAware => "with no (nulls count)",
            Self::Mark => "marked by",
            Self::Preserved => "all of",
            Self::Optional => "matched with",
            Self::Full => "all of either",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) occ: OccId,
    pub(crate) atom: AtomId,
    pub(crate) role: Role,
}

/// A condition; `scope` is the semi-, anti- or mark-joined occurrence that it decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conjunct {
    pub(crate) term: TermId,
    pub(crate) scope: Option<OccId>,
}

/// A set of occurrences and the conditions on them: an inner join of any order, or the two sides of one outer join.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub(crate) members: Vec<Member>,
    pub(crate) conjuncts: Vec<Conjunct>,
}

impl Block {
    /// The only member, if the block is no more than that.
    pub(crate) fn bare(&self) -> Option<Member> {
        match self.members.as_slice() {
            [one] if self.conjuncts.is_empty() && one.role == Role::Inner => Some(*one),
            _ => None,
        }
    }

    pub(crate) fn add(&mut self, term: TermId, scope: Option<OccId>) {
        let conjunct = Conjunct { term, scope };
        if !self.conjuncts.contains(&conjunct) {
            self.conjuncts.push(conjunct);
        }
    }

    /// First word of the canonical text.
    pub(crate) fn kind(&self) -> &'static str {
        match self.members.iter().map(|m| m.role).find(|r| *r != Role::Inner) {
            Some(Role::Preserved | Role::Optional) => "left join",
            Some(Role::Full) => "full join",
            _ if self.members.len() > 1 => "join",
            _ => "filter",
        }
    }
}
