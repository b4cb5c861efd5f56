//! Expressions of the canonical form: hash-consed terms over columns of occurrences, normalised where they are made.

use std::rc::Rc;

use datafusion::common::HashMap;

use super::intern::{Sym, Symbols};

/// A term of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TermId(u32);

/// One use of an atom in a plan; unique within a fingerprinting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OccId(pub(crate) u32);

/// What a column is called within its atom, with literals and without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) exact: Sym,
    pub(crate) blind: Sym,
}

/// Exact: literals count (fingerprint). Blind: literals are typed holes (template).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    Exact,
    Blind,
}

impl Key {
    pub(crate) fn in_mode(self, mode: Mode) -> Sym {
        match mode {
            Mode::Exact => self.exact,
            Mode::Blind => self.blind,
        }
    }
}

/// How an operator is written, and whether the order of its arguments counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Style {
    /// `name(a, b)`.
    Call,
    /// `name(a, b)`; the order does not count.
    CallAny,
    /// `a name b`.
    Infix,
    /// `a name b name c`; the order does not count.
    InfixAny,
    /// `a < b`, `a <= b`; written the other way round if `a` is a literal.
    Compare,
    /// `a name`.
    Postfix,
    /// `a name (b, c)`; the order of all but the first does not count, nor do repetitions.
    In,
    /// `a as name`: a cast.
    Cast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Op {
    pub(crate) name: Sym,
    pub(crate) style: Style,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Term {
    Column {
        occ: OccId,
        key: Key,
    },
    Literal {
        text: Sym,
        ty: Sym,
    },
    /// A value that no row of the block decides, e.g. that of a scalar subquery.
    Opaque(Key),
    Apply {
        op: Op,
        args: Rc<[TermId]>,
    },
}

struct Entry {
    term: Term,
    /// Occurrences mentioned, sorted.
    occs: Rc<[OccId]>,
    has_literal: bool,
    /// Nodes of the term written as a tree; saturates.
    size: u32,
}

/// The arena, and the normalising constructors.
pub(crate) struct Terms {
    index: HashMap<Term, TermId>,
    entries: Vec<Entry>,
    words: Words,
}

/// Operator names that normalisation looks at.
struct Words {
    and: Sym,
    or: Sym,
    not: Sym,
    eq: Sym,
    not_eq: Sym,
    lt: Sym,
    lt_eq: Sym,
    is_in: Sym,
    not_in: Sym,
    is_null: Sym,
    is_not_null: Sym,
}

impl Terms {
    pub(crate) fn new(symbols: &mut Symbols) -> Self {
        let words = Words {
            and: symbols.intern("and"),
            or: symbols.intern("or"),
            not: symbols.intern("not"),
            eq: symbols.intern("="),
            not_eq: symbols.intern("<>"),
            lt: symbols.intern("<"),
            lt_eq: symbols.intern("<="),
            is_in: symbols.intern("in"),
            not_in: symbols.intern("not in"),
            is_null: symbols.intern("is null"),
            is_not_null: symbols.intern("is not null"),
        };
        Self { index: HashMap::default(), entries: Vec::new(), words }
    }

    pub(crate) fn get(&self, id: TermId) -> &Term {
        &self.entries[id.0 as usize].term
    }

    pub(crate) fn occs(&self, id: TermId) -> &[OccId] {
        &self.entries[id.0 as usize].occs
    }

    pub(crate) fn has_literal(&self, id: TermId) -> bool {
        self.entries[id.0 as usize].has_literal
    }

    pub(crate) fn size(&self, id: TermId) -> u32 {
        self.entries[id.0 as usize].size
    }

    fn insert(&mut self, term: Term) -> TermId {
        if let Some(&id) = self.index.get(&term) {
            return id;
        }
        let (occs, has_literal, size): (Rc<[OccId]>, bool, u32) = match &term {
            Term::Column { occ, key } => (Rc::from([*occ].as_slice()), key.exact != key.blind, 1),
            Term::Literal { .. } => (Rc::from([].as_slice()), true, 1),
            Term::Opaque(key) => (Rc::from([].as_slice()), key.exact != key.blind, 1),
            Term::Apply { args, .. } => {
                let literal = args.iter().any(|&a| self.has_literal(a));
                let size = args.iter().fold(1u32, |sum, &a| sum.saturating_add(self.size(a)));
                (self.union_of_occs(args), literal, size)
            }
        };
        let id = TermId(self.entries.len() as u32);
        self.entries.push(Entry { term: term.clone(), occs, has_literal, size });
        self.index.insert(term, id);
        id
    }

    fn union_of_occs(&self, args: &[TermId]) -> Rc<[OccId]> {
        let mut with_columns = args.iter().filter(|&&a| !self.occs(a).is_empty());
        let Some(&first) = with_columns.next() else { return Rc::from([].as_slice()) };
        let first = &self.entries[first.0 as usize].occs;
        if with_columns.clone().all(|&a| self.occs(a) == &first[..]) {
            return Rc::clone(first);
        }
        let mut all: Vec<OccId> = args.iter().flat_map(|&a| self.occs(a)).copied().collect();
        all.sort_unstable();
        all.dedup();
        Rc::from(all)
    }

    pub(crate) fn column(&mut self, occ: OccId, key: Key) -> TermId {
        self.insert(Term::Column { occ, key })
    }

    pub(crate) fn literal(&mut self, text: Sym, ty: Sym) -> TermId {
        self.insert(Term::Literal { text, ty })
    }

    pub(crate) fn opaque(&mut self, key: Key) -> TermId {
        self.insert(Term::Opaque(key))
    }

    /// An application; arguments whose order does not count are put in one, so that equal terms are one term.
    pub(crate) fn apply(&mut self, name: Sym, style: Style, args: &[TermId]) -> TermId {
        let mut args: Rc<[TermId]> = Rc::from(args);
        if matches!(style, Style::InfixAny | Style::CallAny)
            && let Some(args) = Rc::get_mut(&mut args)
        {
            args.sort_unstable();
        }
        self.insert(Term::Apply { op: Op { name, style }, args })
    }

    /// `id` with terms replaced by others; `within`: only proper sub-terms.
    pub(crate) fn replace(&mut self, id: TermId, by: &HashMap<TermId, TermId>, within: bool) -> TermId {
        if by.is_empty() {
            return id;
        }
        let mut memo = HashMap::default();
        match by.get(&id) {
            Some(&other) if !within => other,
            _ => self.replace_within(id, by, &mut memo),
        }
    }

    #[recursive::recursive]
    fn replace_within(
        &mut self,
        id: TermId,
        by: &HashMap<TermId, TermId>,
        memo: &mut HashMap<TermId, TermId>,
    ) -> TermId {
        let Term::Apply { op, args } = self.get(id).clone() else { return id };
        if let Some(&known) = memo.get(&id) {
            return known;
        }
        let mut replaced: Vec<TermId> = Vec::with_capacity(args.len());
        for &arg in args.iter() {
            replaced.push(match by.get(&arg) {
                Some(&other) => other,
                None => self.replace_within(arg, by, memo),
            });
        }
        let new = if replaced == *args { id } else { self.apply(op.name, op.style, &replaced) };
        memo.insert(id, new);
        new
    }

    fn is_literal(&self, id: TermId) -> bool {
        matches!(self.get(id), Term::Literal { .. })
    }

    /// Arguments of `id` if it is an application of `name`.
    fn args_of(&self, id: TermId, name: Sym) -> Option<Rc<[TermId]>> {
        match self.get(id) {
            Term::Apply { op, args } if op.name == name && op.style != Style::Call => Some(Rc::clone(args)),
            _ => None,
        }
    }

    /// Both sides of an equality of two terms.
    pub(crate) fn sides_of_equality(&self, id: TermId) -> Option<(TermId, TermId)> {
        self.args_of(id, self.words.eq).filter(|args| args.len() == 2).map(|args| (args[0], args[1]))
    }

    /// All of `terms` are equal.
    pub(crate) fn equal(&mut self, terms: &[TermId]) -> TermId {
        self.any_order(self.words.eq, terms)
    }

    fn any_order(&mut self, name: Sym, terms: &[TermId]) -> TermId {
        self.apply(name, Style::InfixAny, terms)
    }

    pub(crate) fn not_equal(&mut self, a: TermId, b: TermId) -> TermId {
        self.any_order(self.words.not_eq, &[a, b])
    }

    pub(crate) fn less(&mut self, a: TermId, b: TermId) -> TermId {
        self.apply(self.words.lt, Style::Compare, &[a, b])
    }

    pub(crate) fn less_or_equal(&mut self, a: TermId, b: TermId) -> TermId {
        self.apply(self.words.lt_eq, Style::Compare, &[a, b])
    }

    /// A commutative operator of two arguments that is not re-associated (floats).
    pub(crate) fn commutative(&mut self, name: Sym, a: TermId, b: TermId) -> TermId {
        self.any_order(name, &[a, b])
    }

    pub(crate) fn is_null(&mut self, a: TermId) -> TermId {
        self.apply(self.words.is_null, Style::Postfix, &[a])
    }

    pub(crate) fn is_not_null(&mut self, a: TermId) -> TermId {
        self.apply(self.words.is_not_null, Style::Postfix, &[a])
    }

    pub(crate) fn and(&mut self, terms: &[TermId]) -> TermId {
        self.flat(self.words.and, terms.iter().copied())
    }

    /// A disjunction; equalities of one term with literals become one `in`.
    pub(crate) fn or(&mut self, terms: &[TermId]) -> TermId {
        let mut lists: Vec<(TermId, Vec<TermId>)> = Vec::new();
        let mut others = Vec::new();
        for &term in terms {
            let listed =
                self.args_of(term, self.words.is_in).filter(|args| args[1..].iter().all(|&a| self.is_literal(a)));
            let (of, values) = match (listed, self.sides_of_equality(term)) {
                (Some(args), _) => (args[0], args[1..].to_vec()),
                (None, Some((a, b))) if self.is_literal(b) && !self.is_literal(a) => (a, vec![b]),
                (None, Some((a, b))) if self.is_literal(a) && !self.is_literal(b) => (b, vec![a]),
                _ => {
                    others.push(term);
                    continue;
                }
            };
            match lists.iter_mut().find(|(term, _)| *term == of) {
                Some((_, all)) => all.extend(values),
                None => lists.push((of, values)),
            }
        }
        for (of, values) in lists {
            let list = self.in_list(of, &values, false);
            others.push(list);
        }
        self.flat(self.words.or, others.into_iter())
    }

    fn flat(&mut self, name: Sym, terms: impl Iterator<Item = TermId>) -> TermId {
        let mut all = Vec::new();
        for term in terms {
            match self.args_of(term, name) {
                Some(args) => all.extend_from_slice(&args),
                None => all.push(term),
            }
        }
        all.sort_unstable();
        all.dedup();
        match all.as_slice() {
            [one] => *one,
            _ => self.apply(name, Style::InfixAny, &all),
        }
    }

    pub(crate) fn in_list(&mut self, of: TermId, values: &[TermId], negated: bool) -> TermId {
        let mut values = values.to_vec();
        values.sort_unstable();
        values.dedup();
        match (values.as_slice(), negated) {
            ([one], false) => self.equal(&[of, *one]),
            ([one], true) => self.not_equal(of, *one),
            _ => {
                values.insert(0, of);
                let name = if negated { self.words.not_in } else { self.words.is_in };
                self.apply(name, Style::In, &values)
            }
        }
    }

    /// A negation, pushed through comparisons (which keeps SQL's three values: both sides of each pair are null together).
    pub(crate) fn not(&mut self, term: TermId) -> TermId {
        let Term::Apply { op, args } = self.get(term).clone() else {
            return self.apply(self.words.not, Style::CallAny, &[term]);
        };
        let w = &self.words;
        let renamed = [
            (w.eq, Style::InfixAny, w.not_eq, 2),
            (w.not_eq, Style::InfixAny, w.eq, 2),
            (w.is_null, Style::Postfix, w.is_not_null, 1),
            (w.is_not_null, Style::Postfix, w.is_null, 1),
        ];
        if let Some(&(_, style, to, _)) =
            renamed.iter().find(|(from, style, _, n)| op.name == *from && op.style == *style && args.len() == *n)
        {
            return self.apply(to, style, &args);
        }
        match op.style {
            Style::Compare if op.name == w.lt => self.less_or_equal(args[1], args[0]),
            Style::Compare if op.name == w.lt_eq => self.less(args[1], args[0]),
            Style::In if op.name == w.is_in => self.apply(self.words.not_in, Style::In, &args),
            Style::In if op.name == w.not_in => self.apply(self.words.is_in, Style::In, &args),
            Style::CallAny if op.name == w.not => args[0],
            _ => self.apply(self.words.not, Style::CallAny, &[term]),
        }
    }
}
