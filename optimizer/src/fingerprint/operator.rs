//! Relational operators over lowered inputs: joins, aggregates, windows, unions, recursion, unnesting.

use datafusion::common::{JoinType, NullEquality};

use super::block::{Block, Member, Role};
use super::canon::{Canon, Lowered};
use super::term::{Key, Style, TermId};

/// How a join matches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JoinKind {
    pub(crate) join_type: JoinType,
    pub(crate) null_equality: NullEquality,
    /// `NOT IN`.
    pub(crate) null_aware: bool,
}

/// Columns of both sides as a join condition may use them.
pub(crate) struct Sides<'a> {
    pub(crate) left: &'a [Option<TermId>],
    pub(crate) right: &'a [Option<TermId>],
}

/// Conditions of a join: pairs that are equal, and the rest.
#[derive(Default)]
pub(crate) struct JoinConditions {
    pub(crate) equal: Vec<(TermId, TermId)>,
    pub(crate) others: Vec<TermId>,
}

impl Canon {
    fn condition_terms(&mut self, kind: JoinKind, conditions: JoinConditions) -> Vec<TermId> {
        let mut terms = conditions.others;
        for (a, b) in conditions.equal {
            let term = match kind.null_equality {
                NullEquality::NullEqualsNothing => self.terms.equal(&[a, b]),
                NullEquality::NullEqualsNull => {
                    let name = self.symbols.intern("is not distinct from");
                    self.terms.commutative(name, a, b)
                }
            };
            terms.push(term);
        }
        terms
    }

    /// A join; `on` lowers its conditions over the columns that they may use.
    pub(crate) fn join(
        &mut self,
        left: Lowered,
        right: Lowered,
        kind: JoinKind,
        on: impl FnOnce(&mut Self, Sides<'_>) -> Option<JoinConditions>,
    ) -> Lowered {
        let width = left.columns.len() + right.columns.len();
        let joined = match kind.join_type {
            JoinType::Inner => self.inner_join(left, right, kind, on),
            JoinType::Left | JoinType::Right | JoinType::Full => self.outer_join(left, right, kind, on),
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => self.filtering_join(left, right, kind, on),
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                self.filtering_join(right, left, kind, |canon, s| on(canon, Sides { left: s.right, right: s.left }))
            }
        };
        joined.unwrap_or_else(|| Lowered::unknown(width))
    }

    fn inner_join(
        &mut self,
        mut left: Lowered,
        mut right: Lowered,
        kind: JoinKind,
        on: impl FnOnce(&mut Self, Sides<'_>) -> Option<JoinConditions>,
    ) -> Option<Lowered> {
        let conditions = on(self, Sides { left: &left.columns, right: &right.columns })?;
        let terms = self.condition_terms(kind, conditions);
        let block = left.block_mut()?;
        let other = right.block.take()?;
        block.members.extend(other.members);
        block.conjuncts.extend(other.conjuncts);
        let block = std::mem::take(block);
        left.columns.append(&mut right.columns);
        let mut joined = Lowered::new(block, left.columns);
        for term in terms {
            self.filter(&mut joined, Some(term));
        }
        Some(joined)
    }

    /// Semi, anti and mark joins keep the rows of `kept` and multiply nothing, so they are conditions of its block.
    fn filtering_join(
        &mut self,
        mut kept: Lowered,
        mut other: Lowered,
        kind: JoinKind,
        on: impl FnOnce(&mut Self, Sides<'_>) -> Option<JoinConditions>,
    ) -> Option<Lowered> {
        let role = match kind.join_type {
            JoinType::LeftSemi | JoinType::RightSemi => Role::Semi,
            JoinType::LeftMark | JoinType::RightMark => Role::Mark,
            _ if kind.null_aware => Role::AntiNullAware,
            _ => Role::Anti,
        };
        let columns = other.columns.clone();
        let sealed = self.seal(&mut other, &columns, &[])?;
        let atom = match other.block.as_ref().and_then(Block::bare) {
            Some(member) => member.atom,
            None => self.sealed_atom(&sealed),
        };
        let occ = self.occur(atom);
        let columns: Vec<Option<TermId>> = sealed.keys.iter().map(|k| k.map(|k| self.terms.column(occ, k))).collect();
        let conditions = on(self, Sides { left: &kept.columns, right: &columns })?;
        let terms = self.condition_terms(kind, conditions);
        let block = kept.block_mut()?;
        block.members.push(Member { occ, atom, role });
        for term in terms {
            let decides = self.terms.occs(term).contains(&occ);
            let scope = if decides || role != Role::Semi { Some(occ) } else { None };
            block.add(term, scope);
        }
        if role == Role::Mark {
            let key = self.plain_key("mark");
            let mark = self.terms.column(occ, key);
            kept.columns.push(Some(mark));
        }
        kept.order.clear();
        Some(kept)
    }

    fn outer_join(
        &mut self,
        left: Lowered,
        right: Lowered,
        kind: JoinKind,
        on: impl FnOnce(&mut Self, Sides<'_>) -> Option<JoinConditions>,
    ) -> Option<Lowered> {
        let roles = match kind.join_type {
            JoinType::Left => [Role::Preserved, Role::Optional],
            JoinType::Right => [Role::Optional, Role::Preserved],
            _ => [Role::Full, Role::Full],
        };
        let mut block = Block::default();
        let mut columns: Vec<Vec<Option<TermId>>> = Vec::with_capacity(2);
        for (mut side, role) in [left, right].into_iter().zip(roles) {
            let terms = std::mem::take(&mut side.columns);
            let sealed = self.seal(&mut side, &terms, &[])?;
            let atom = match side.block.as_ref().and_then(Block::bare) {
                Some(member) => member.atom,
                None => self.sealed_atom(&sealed),
            };
            let occ = self.occur(atom);
            block.members.push(Member { occ, atom, role });
            columns.push(sealed.keys.iter().map(|k| k.map(|k| self.terms.column(occ, k))).collect());
        }
        let conditions = on(self, Sides { left: &columns[0], right: &columns[1] })?;
        for term in self.condition_terms(kind, conditions) {
            block.add(term, None);
        }
        let all: Vec<Option<TermId>> = columns.concat();
        let mut inner = Lowered::new(block, Vec::new());
        let sealed = self.seal(&mut inner, &all, &[])?;
        let atom = self.sealed_atom(&sealed);
        Some(self.over(atom, &sealed.keys))
    }

    /// Keeps the rows for which `condition` holds; `None` makes the rows unknown.
    pub(crate) fn filter(&mut self, input: &mut Lowered, condition: Option<TermId>) {
        let Some(term) = condition else {
            input.block_mut();
            input.block = None;
            return;
        };
        let and = self.symbols.intern("and");
        let parts = match self.terms.get(term) {
            super::term::Term::Apply { op, args } if op.name == and && op.style == Style::InfixAny => args.to_vec(),
            _ => vec![term],
        };
        if let Some(block) = input.block_mut() {
            for part in parts {
                block.add(part, None);
            }
        }
    }

    /// Groups by `keys`; `sets` are the grouping sets as positions in `keys`, empty for a plain GROUP BY.
    pub(crate) fn aggregate(
        &mut self,
        mut input: Lowered,
        keys: Vec<Option<TermId>>,
        sets: Option<Vec<Vec<usize>>>,
        aggregates: Vec<Option<TermId>>,
    ) -> Lowered {
        let width = keys.len() + usize::from(sets.is_some()) + aggregates.len();
        let terms: Vec<Option<TermId>> = keys.iter().chain(&aggregates).copied().collect();
        if terms.iter().any(Option::is_none) {
            return Lowered::unknown(width);
        }
        let tags: Vec<u64> = (0..terms.len()).map(|i| if i < keys.len() { 1 } else { 2 }).collect();
        let Some(sealed) = self.seal(&mut input, &terms, &tags) else { return Lowered::unknown(width) };
        let (groups, computed) = sealed.keys.split_at(keys.len());
        let mut lines = Vec::new();
        let unique = |keys: &[Option<Key>]| {
            let mut unique: Vec<Key> = keys.iter().flatten().copied().collect();
            unique.sort_unstable();
            unique.dedup();
            unique
        };
        for key in unique(groups) {
            lines.push(self.key_texts(key).map(|text| format!("by {text}")));
        }
        for key in unique(computed) {
            lines.push(self.key_texts(key).map(|text| format!("compute {text}")));
        }
        let mut output: Vec<Option<Key>> = groups.to_vec();
        if let Some(sets) = sets {
            let written: Vec<[String; 2]> = sets
                .iter()
                .map(|set| {
                    [0, 1].map(|mode| {
                        let mut names: Vec<&str> =
                            set.iter().filter_map(|&i| groups[i]).map(|k| self.key_texts(k)[mode]).collect();
                        names.sort_unstable();
                        format!("set ({})", names.join(", "))
                    })
                })
                .collect();
            lines.extend(written);
            // The id is a bit mask over the keys in their order.
            let order = [0, 1].map(|mode| {
                let names: Vec<&str> = groups.iter().flatten().map(|k| self.key_texts(*k)[mode]).collect();
                format!("grouping_id({})", names.join(", "))
            });
            let [exact, blind] = order;
            let key = Key { exact: self.symbols.intern(&exact), blind: self.symbols.intern(&blind) };
            output.push(Some(key));
        }
        output.extend_from_slice(computed);
        let atom = self.define_over("aggregate", &sealed, lines);
        self.over(atom, &output)
    }

    /// Adds window functions as columns after those of the input.
    pub(crate) fn window(&mut self, mut input: Lowered, functions: Vec<Option<TermId>>) -> Lowered {
        let mut terms = std::mem::take(&mut input.columns);
        let width = terms.len();
        terms.extend(functions);
        let tags: Vec<u64> = (0..terms.len()).map(|i| if i < width { 1 } else { 2 }).collect();
        if terms[width..].iter().any(Option::is_none) {
            return Lowered::unknown(terms.len());
        }
        let Some(sealed) = self.seal(&mut input, &terms, &tags) else { return Lowered::unknown(terms.len()) };
        let mut computed: Vec<Key> = sealed.keys[width..].iter().flatten().copied().collect();
        computed.sort_unstable();
        computed.dedup();
        let lines = computed.iter().map(|k| self.key_texts(*k).map(|text| format!("compute {text}"))).collect();
        let atom = self.define_over("window", &sealed, lines);
        self.over(atom, &sealed.keys)
    }

    /// All rows of all inputs; columns by position.
    pub(crate) fn union(&mut self, inputs: Vec<Lowered>, width: usize) -> Lowered {
        let mut sealed = Vec::with_capacity(inputs.len());
        for mut input in inputs {
            let columns = std::mem::take(&mut input.columns);
            let Some(one) = self.seal(&mut input, &columns, &[]) else { return Lowered::unknown(width) };
            if one.keys.len() != width {
                return Lowered::unknown(width);
            }
            sealed.push(one);
        }
        let mut texts = [String::new(), String::new()];
        let mut names: [Vec<Option<String>>; 2] = [Vec::new(), Vec::new()];
        for mode in [0, 1] {
            let name = |key: &Option<Key>| key.map(|k| self.key_texts(k)[mode]);
            let mut order: Vec<usize> = (0..sealed.len()).collect();
            let described = |i: usize| self.symbols.text(sealed[i].described[mode]);
            order.sort_by(|&a, &b| {
                described(a)
                    .cmp(described(b))
                    .then_with(|| sealed[a].keys.iter().map(name).cmp(sealed[b].keys.iter().map(name)))
            });
            texts[mode] = String::from("union");
            for &i in &order {
                texts[mode].push_str(&format!("\n  of {} = {}", self.symbols.text(sealed[i].label), described(i)));
            }
            for column in 0..width {
                let parts: Option<Vec<&str>> = order.iter().map(|&i| name(&sealed[i].keys[column])).collect();
                names[mode].push(parts.map(|parts| match parts.as_slice() {
                    [first, rest @ ..] if rest.iter().all(|p| p == first) => (*first).to_owned(),
                    parts => format!("[{}]", parts.join(" | ")),
                }));
            }
        }
        let [exact, blind] = names;
        let keys: Vec<Option<Key>> = exact.into_iter().zip(blind).map(|(e, b)| Some(self.long_key(e?, b?))).collect();
        let atom = self.define("union", texts);
        self.over(atom, &keys)
    }

    /// A recursive query of the given terms; columns by position.
    pub(crate) fn recursive(&mut self, mut first: Lowered, mut step: Lowered, distinct: bool) -> Lowered {
        let width = first.columns.len();
        let (a, b) = (std::mem::take(&mut first.columns), std::mem::take(&mut step.columns));
        let (Some(first), Some(step)) = (self.seal(&mut first, &a, &[]), self.seal(&mut step, &b, &[])) else {
            return Lowered::unknown(width);
        };
        if first.keys.len() != step.keys.len() {
            return Lowered::unknown(width);
        }
        let texts = [0, 1].map(|mode| {
            let mut text = format!("recursion{}", if distinct { " without duplicates" } else { "" });
            for (word, sealed) in [("from", &first), ("step", &step)] {
                let (label, described) = (self.symbols.text(sealed.label), self.symbols.text(sealed.described[mode]));
                let names: Vec<&str> = sealed.keys.iter().flatten().map(|k| self.key_texts(*k)[mode]).collect();
                text.push_str(&format!("\n  {word} {label} = {described}: {}", names.join(", ")));
            }
            text
        });
        let keys: Vec<Option<Key>> = first
            .keys
            .iter()
            .zip(&step.keys)
            .map(|(a, b)| {
                let (a, b) = (self.key_texts((*a)?), self.key_texts((*b)?));
                let [exact, blind] = [0, 1].map(|mode| format!("[{} | {}]", a[mode], b[mode]));
                Some(self.long_key(exact, blind))
            })
            .collect();
        let atom = self.define("recursion", texts);
        self.over(atom, &keys)
    }

    /// Unnests; `lists` are (input column, depth), `structs` input columns, `output` the input column of each output column.
    pub(crate) fn unnest(
        &mut self,
        mut input: Lowered,
        lists: &[(usize, usize)],
        structs: &[usize],
        preserve_nulls: bool,
        output: &[usize],
    ) -> Lowered {
        let columns = std::mem::take(&mut input.columns);
        let Some(sealed) = self.seal(&mut input, &columns, &[]) else { return Lowered::unknown(output.len()) };
        let mut lines = Vec::new();
        for &(column, depth) in lists {
            let Some(key) = sealed.keys.get(column).copied().flatten() else { return Lowered::unknown(output.len()) };
            lines.push(self.key_texts(key).map(|t| format!("list {t} depth {depth} nulls {preserve_nulls}")));
        }
        let mut seen: Vec<usize> = Vec::new();
        let keys: Vec<Option<Key>> = output
            .iter()
            .map(|&column| {
                let key = sealed.keys.get(column).copied().flatten()?;
                let unnested = structs.contains(&column) || lists.iter().any(|(list, _)| *list == column);
                if !unnested {
                    return Some(key);
                }
                let nth = seen.iter().filter(|&&c| c == column).count();
                seen.push(column);
                let [exact, blind] = self.key_texts(key).map(|t| format!("unnest({t}, {nth})"));
                Some(self.long_key(exact, blind))
            })
            .collect();
        // Structs only spread columns: the rows are those of the input.
        let atom = self.define_over("unnest", &sealed, lines);
        self.over(atom, &keys)
    }
}
