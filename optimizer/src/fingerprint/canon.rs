//! The canonical form: what both kinds of plan are lowered into, and where its texts and hashes are made.

use std::collections::BTreeMap;

use datafusion::common::{HashMap, ScalarValue};
use sparklet_history::Fingerprint;

use super::block::{Atom, AtomId, Block, Limit, Member, Role};
use super::intern::{Sym, Symbols, mix, quoted};
use super::label::{Edge, Graph};
use super::render::Renderer;
use super::term::{Key, Mode, OccId, Style, TermId, Terms};
use super::{Identity, Reads, SourceId};

/// Column names above this many bytes are cut and completed by a digest: they are nested into the names of what stands above.
const KEY_LIMIT: usize = 160;

const MODES: [Mode; 2] = [Mode::Exact, Mode::Blind];

/// The state of one fingerprinting.
pub(crate) struct Canon {
    pub(crate) symbols: Symbols,
    pub(crate) terms: Terms,
    /// Values of literal terms, to fold casts of them.
    pub(crate) literals: HashMap<TermId, ScalarValue>,
    atoms: Vec<Atom>,
    /// With their positions in the order in which they were met.
    sources: HashMap<SourceId, (AtomId, usize)>,
    /// Sources met since this was last taken.
    pub(crate) read: Reads,
    /// Atom of an occurrence.
    occurrences: Vec<AtomId>,
    /// Scratch: position in the block at hand, by occurrence.
    local: Vec<u32>,
    /// Canonical texts by fingerprint or template.
    pub(crate) texts: BTreeMap<Fingerprint, String>,
}

/// Rows of a subplan, and its output columns as terms over the occurrences of the rows; `None` where not known or volatile.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lowered {
    pub(crate) block: Option<Block>,
    pub(crate) columns: Vec<Option<TermId>>,
    /// Sort keys in force, most significant first.
    pub(crate) order: Vec<TermId>,
    named: Option<Named>,
}

/// A block with its hashes and the labels of its occurrences.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    ids: [Fingerprint; 2],
    labels: [HashMap<u32, String>; 2],
    /// Labels needed no choice among ties, so that they hold whatever the block is used for.
    discrete: bool,
    /// Some literal is part of it.
    literal: bool,
}

/// A block closed into something that an atom above can be made of.
pub(crate) struct Sealed {
    pub(crate) label: Sym,
    pub(crate) described: [Sym; 2],
    pub(crate) ids: [Fingerprint; 2],
    /// Names of the requested terms.
    pub(crate) keys: Vec<Option<Key>>,
}

impl Lowered {
    pub(crate) fn new(block: Block, columns: Vec<Option<TermId>>) -> Self {
        Self { block: Some(block), columns, order: Vec::new(), named: None }
    }

    /// A subplan that has no identity.
    pub(crate) fn unknown(columns: usize) -> Self {
        Self { columns: vec![None; columns], ..Self::default() }
    }

    /// The block, to be changed.
    pub(crate) fn block_mut(&mut self) -> Option<&mut Block> {
        self.named = None;
        self.block.as_mut()
    }
}

impl Canon {
    pub(crate) fn new() -> Self {
        let mut symbols = Symbols::default();
        let terms = Terms::new(&mut symbols);
        Self {
            symbols,
            terms,
            literals: HashMap::default(),
            atoms: Vec::new(),
            sources: HashMap::default(),
            read: Reads::default(),
            occurrences: Vec::new(),
            local: Vec::new(),
            texts: BTreeMap::new(),
        }
    }

    /// A key whose text holds no literal.
    pub(crate) fn plain_key(&mut self, text: &str) -> Key {
        let sym = self.symbols.intern(text);
        Key { exact: sym, blind: sym }
    }

    pub(crate) fn atom(&self, id: AtomId) -> &Atom {
        &self.atoms[id.0 as usize]
    }

    /// A new occurrence of `atom`.
    pub(crate) fn occur(&mut self, atom: AtomId) -> OccId {
        let occ = OccId(self.occurrences.len() as u32);
        self.occurrences.push(atom);
        self.local.push(0);
        occ
    }

    /// A block of one new inner occurrence of `atom`, and that occurrence.
    pub(crate) fn single(&mut self, atom: AtomId) -> (Block, OccId) {
        let occ = self.occur(atom);
        (Block { members: vec![Member { occ, atom, role: Role::Inner }], conjuncts: Vec::new() }, occ)
    }

    /// The atom of a source.
    pub(crate) fn source(&mut self, id: &SourceId) -> AtomId {
        if let Some(&(atom, position)) = self.sources.get(id) {
            self.read = self.read.and(Reads::one(position));
            return atom;
        }
        let position = self.sources.len();
        self.read = self.read.and(Reads::one(position));
        let text = id.to_string();
        let described = self.symbols.intern(&text);
        let label = self.symbols.intern(&quoted(id.name()));
        let ids = [Fingerprint::of(&text); 2];
        self.texts.insert(ids[0], text);
        let atom = self.push(Atom { ids, label, described: [described; 2], limit: None });
        self.sources.insert(id.clone(), (atom, position));
        atom
    }

    /// The sources in the order in which they were met.
    pub(crate) fn sources(&self) -> Vec<SourceId> {
        let mut all: Vec<(&SourceId, usize)> = self.sources.iter().map(|(id, (_, position))| (id, *position)).collect();
        all.sort_unstable_by_key(|(_, position)| *position);
        all.into_iter().map(|(id, _)| id.clone()).collect()
    }

    fn push(&mut self, atom: Atom) -> AtomId {
        let id = AtomId(self.atoms.len() as u32);
        self.atoms.push(atom);
        id
    }

    /// An atom of `kind` defined by its texts.
    pub(crate) fn define(&mut self, kind: &str, texts: [String; 2]) -> AtomId {
        self.define_limit(kind, texts, None)
    }

    fn define_limit(&mut self, kind: &str, texts: [String; 2], limit: Option<Limit>) -> AtomId {
        let ids = [Fingerprint::of(&texts[0]), Fingerprint::of(&texts[1])];
        let described = ids.map(|id| self.symbols.intern(&format!("{kind} {id}")));
        let label = self.symbols.intern(&kind.replace(' ', "_"));
        for (id, text) in ids.into_iter().zip(texts) {
            self.texts.insert(id, text);
        }
        self.push(Atom { ids, label, described, limit })
    }

    /// Fingerprint and template of the rows of `lowered`.
    pub(crate) fn identity(&mut self, lowered: &mut Lowered) -> Option<Identity> {
        let block = lowered.block.as_ref()?;
        let ids = match (&lowered.named, block.bare()) {
            (Some(named), _) => named.ids,
            (None, Some(member)) => self.atom(member.atom).ids,
            (None, None) => {
                let named = self.name(block, &[]);
                lowered.named.insert(named).ids
            }
        };
        Some(Identity { fingerprint: ids[0], template: ids[1] })
    }

    /// Closes the rows of `lowered` and names `terms`, which are terms over them; `tags` tell kinds of terms apart.
    pub(crate) fn seal(&mut self, lowered: &mut Lowered, terms: &[Option<TermId>], tags: &[u64]) -> Option<Sealed> {
        self.identity(lowered)?;
        let block = lowered.block.as_ref()?;
        let bare = block.bare();
        let named = match (&lowered.named, bare) {
            (Some(named), _) if named.discrete => named.clone(),
            _ => {
                let extras: Vec<Edge> = terms
                    .iter()
                    .zip(tags.iter().chain(std::iter::repeat(&0)))
                    .filter_map(|(term, &tag)| term.map(|term| Edge { term, tag: mix(7, tag), scope: None }))
                    .collect();
                self.name(block, &extras)
            }
        };
        let only = match block.members.as_slice() {
            [one] => Some(*one),
            _ => None,
        };
        let keys = terms.iter().map(|term| term.map(|term| self.key(term, only, &named))).collect();
        let (label, described) = match (bare, only) {
            (Some(member), _) => {
                let atom = self.atom(member.atom);
                (atom.label, atom.described)
            }
            (None, only) => {
                let kind = block.kind();
                let label = match only {
                    Some(member) => self.atom(member.atom).label,
                    None => self.symbols.intern(&kind.replace(' ', "_")),
                };
                (label, named.ids.map(|id| self.symbols.intern(&format!("{kind} {id}"))))
            }
        };
        Some(Sealed { label, described, ids: named.ids, keys })
    }

    /// A sealed block as an atom.
    pub(crate) fn sealed_atom(&mut self, sealed: &Sealed) -> AtomId {
        self.push(Atom { ids: sealed.ids, label: sealed.label, described: sealed.described, limit: None })
    }

    fn key(&mut self, term: TermId, only: Option<Member>, named: &Named) -> Key {
        if let (super::term::Term::Column { occ, key }, Some(member)) = (self.terms.get(term), only)
            && *occ == member.occ
        {
            return *key;
        }
        let exact = self.render(term, named, Mode::Exact);
        let blind = if self.terms.has_literal(term) || named.literal {
            self.render(term, named, Mode::Blind)
        } else {
            exact.clone()
        };
        Key { exact: self.short(exact), blind: self.short(blind) }
    }

    fn render(&self, term: TermId, named: &Named, mode: Mode) -> String {
        let labels = &named.labels[mode as usize];
        Renderer { symbols: &self.symbols, terms: &self.terms, labels, mode, digests: HashMap::default() }.text(term)
    }

    /// Interns the name of a column, cut if it is long; the whole then stands among the texts.
    fn short(&mut self, text: String) -> Sym {
        if text.len() <= KEY_LIMIT {
            return self.symbols.intern(&text);
        }
        let id = Fingerprint::of(&text);
        let end = (0..=KEY_LIMIT / 4).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        let sym = self.symbols.intern(&format!("{}…#{id}", &text[..end]));
        self.texts.insert(id, text);
        sym
    }

    /// A key of the given texts, cut if they are long.
    pub(crate) fn long_key(&mut self, exact: String, blind: String) -> Key {
        Key { exact: self.short(exact), blind: self.short(blind) }
    }

    /// Orders, labels and hashes a block. `extras` break ties.
    fn name(&mut self, block: &Block, extras: &[Edge]) -> Named {
        let edges = self.edges(block);
        let literal = block.conjuncts.iter().any(|c| self.terms.has_literal(c.term))
            || block.members.iter().any(|m| self.atom(m.atom).ids[0] != self.atom(m.atom).ids[1])
            || extras.iter().any(|e| self.terms.has_literal(e.term));
        for (i, member) in block.members.iter().enumerate() {
            self.local[member.occ.0 as usize] = i as u32;
        }
        let (exact, exact_labels, exact_discrete) = self.write(block, &edges, extras, Mode::Exact);
        let (blind, blind_labels, blind_discrete) = if literal {
            self.write(block, &edges, extras, Mode::Blind)
        } else {
            (exact.clone(), exact_labels.clone(), exact_discrete)
        };
        let ids = match block.bare() {
            Some(member) => self.atom(member.atom).ids,
            None => {
                let ids = [Fingerprint::of(&exact), Fingerprint::of(&blind)];
                self.texts.insert(ids[0], exact);
                self.texts.insert(ids[1], blind);
                ids
            }
        };
        Named { ids, labels: [exact_labels, blind_labels], discrete: exact_discrete && blind_discrete, literal }
    }

    /// Conditions of a block. Equalities are closed into classes, and other conditions speak of classes, not of their members: planners
    /// copy `a = 5` to `b = 5` where `a = b`, but not always.
    fn edges(&mut self, block: &Block) -> Vec<Edge> {
        let mut others = Vec::with_capacity(block.conjuncts.len());
        let mut classes: Vec<(Option<OccId>, Vec<TermId>)> = Vec::new();
        for conjunct in &block.conjuncts {
            let equality = self
                .terms
                .sides_of_equality(conjunct.term)
                .filter(|(a, b)| a != b && !self.terms.occs(*a).is_empty() && !self.terms.occs(*b).is_empty());
            let Some((a, b)) = equality else {
                others.push(*conjunct);
                continue;
            };
            let mut merged = vec![a, b];
            classes.retain_mut(|(scope, class)| {
                let joins = *scope == conjunct.scope && (class.contains(&a) || class.contains(&b));
                if joins {
                    merged.append(class);
                }
                !joins
            });
            merged.sort_unstable();
            merged.dedup();
            classes.push((conjunct.scope, merged));
        }
        let key = self.symbols.intern("key");
        let mut keys: HashMap<TermId, TermId> = HashMap::default();
        for (_, class) in classes.iter().filter(|(scope, _)| scope.is_none()) {
            let term = self.terms.apply(key, Style::CallAny, class);
            keys.extend(class.iter().map(|&member| (member, term)));
        }
        let mut edges: Vec<Edge> = Vec::with_capacity(others.len() + classes.len());
        for (scope, class) in classes {
            // Members of the class itself stay; what is nested in them, and all of a scoped class, is replaced.
            let members: Vec<TermId> = class.iter().map(|&m| self.terms.replace(m, &keys, scope.is_none())).collect();
            edges.push(Edge { term: self.terms.equal(&members), tag: 1, scope });
        }
        for conjunct in others {
            let term = self.terms.replace(conjunct.term, &keys, false);
            if !edges.iter().any(|edge| edge.term == term && edge.scope == conjunct.scope) {
                edges.push(Edge { term, tag: 1, scope: conjunct.scope });
            }
        }
        edges
    }

    /// Canonical text of a block, labels of its occurrences, and whether these needed no choice.
    fn write(
        &self,
        block: &Block,
        edges: &[Edge],
        extras: &[Edge],
        mode: Mode,
    ) -> (String, HashMap<u32, String>, bool) {
        let initial = block.members.iter().map(|member| {
            let id = &self.atom(member.atom).ids[mode as usize];
            let half = |bytes: &[u8]| bytes.iter().fold(0, |word, &byte| (word << 8) | u64::from(byte));
            mix(mix(half(&id.0[..8]), half(&id.0[8..])), member.role as u64)
        });
        let graph = Graph { symbols: &self.symbols, terms: &self.terms, local: &self.local, mode };
        let coloured = graph.colour(initial.collect(), edges, extras);

        let mut order: Vec<usize> = (0..block.members.len()).collect();
        let label_of = |i: usize| self.symbols.text(self.atom(block.members[i].atom).label);
        order.sort_by(|&a, &b| label_of(a).cmp(label_of(b)).then(coloured.colours[a].cmp(&coloured.colours[b])));
        let mut labels = HashMap::with_capacity(order.len());
        for group in order.chunk_by(|&a, &b| label_of(a) == label_of(b)) {
            for (number, &i) in group.iter().enumerate() {
                let label =
                    if group.len() == 1 { label_of(i).to_owned() } else { format!("{}#{}", label_of(i), number + 1) };
                labels.insert(block.members[i].occ.0, label);
            }
        }

        let mut text = String::from(block.kind());
        for &i in &order {
            let member = &block.members[i];
            let described = self.symbols.text(self.atom(member.atom).described[mode as usize]);
            let label = labels.get(&member.occ.0).map_or("", String::as_str);
            text.push_str(&format!("\n  {} {label} = {described}", member.role.word()));
        }
        let mut renderer =
            Renderer { symbols: &self.symbols, terms: &self.terms, labels: &labels, mode, digests: HashMap::default() };
        let mut lines: Vec<String> = edges
            .iter()
            .map(|edge| {
                let condition = renderer.text(edge.term);
                match edge.scope.and_then(|occ| labels.get(&occ.0)) {
                    Some(scope) => format!("\n  on {scope}: {condition}"),
                    None => format!("\n  where {condition}"),
                }
            })
            .collect();
        lines.sort_unstable();
        // Without its literals a condition may look like another one that it is not.
        if mode == Mode::Exact {
            lines.dedup();
        }
        text.extend(lines);
        (text, labels, coloured.discrete)
    }

    /// The text of a key in each mode.
    pub(crate) fn key_texts(&self, key: Key) -> [&str; 2] {
        MODES.map(|mode| self.symbols.text(key.in_mode(mode)))
    }

    /// An atom whose text is `kind`, the sealed input and `lines`, each in both modes; sorted within each mode.
    pub(crate) fn define_over(&mut self, kind: &str, input: &Sealed, lines: Vec<[String; 2]>) -> AtomId {
        let texts = [0, 1].map(|mode| {
            let mut all: Vec<&str> = lines.iter().map(|line| line[mode].as_str()).collect();
            all.sort_unstable();
            let described = self.symbols.text(input.described[mode]);
            let label = self.symbols.text(input.label);
            format!("{kind}\n  of {label} = {described}{}", all.iter().map(|l| format!("\n  {l}")).collect::<String>())
        });
        self.define(kind, texts)
    }

    /// First `fetch` rows after `skip` of them.
    pub(crate) fn limit(&mut self, mut input: Lowered, skip: usize, fetch: Option<usize>) -> Lowered {
        let width = input.columns.len();
        // A limit of a limit that is already cut and sorted the same way is one limit.
        if input.order.is_empty()
            && let Some(inner) = input.block.as_ref().and_then(Block::bare)
            && let Some(limit) = self.atom(inner.atom).limit.clone()
        {
            let left = limit.fetch.map(|f| f.saturating_sub(skip));
            let fetch = match (left, fetch) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let atom = self.define_cut(Limit { skip: limit.skip + skip, fetch, tail: limit.tail });
            self.occurrences[inner.occ.0 as usize] = atom;
            if let Some(block) = input.block_mut() {
                block.members = vec![Member { atom, ..inner }];
            }
            return input;
        }
        let order = std::mem::take(&mut input.order);
        let terms: Vec<Option<TermId>> = order.iter().copied().map(Some).chain(input.columns.iter().copied()).collect();
        let tags: Vec<u64> = (0..order.len() as u64).map(|i| i + 1).collect();
        let Some(sealed) = self.seal(&mut input, &terms, &tags) else { return Lowered::unknown(width) };
        let tail = [0, 1].map(|mode| {
            let keys: String = sealed.keys[..order.len()]
                .iter()
                .flatten()
                .map(|k| format!("\n  by {}", self.key_texts(*k)[mode]))
                .collect();
            format!("\n  of {} = {}{keys}", self.symbols.text(sealed.label), self.symbols.text(sealed.described[mode]))
        });
        let atom = self.define_cut(Limit { skip, fetch, tail });
        self.over(atom, &sealed.keys[order.len()..])
    }

    fn define_cut(&mut self, limit: Limit) -> AtomId {
        let fetch = limit.fetch.map_or_else(|| "all".to_owned(), |n| n.to_string());
        let holes = [limit.fetch.map_or("all", |_| "?"), if limit.skip == 0 { "0" } else { "?" }];
        let texts = [
            format!("limit\n  first {fetch} after {}{}", limit.skip, limit.tail[0]),
            format!("limit\n  first {} after {}{}", holes[0], holes[1], limit.tail[1]),
        ];
        self.define_limit("limit", texts, Some(limit))
    }

    /// Rows of `atom` with columns of the given names.
    pub(crate) fn over(&mut self, atom: AtomId, keys: &[Option<Key>]) -> Lowered {
        let (block, occ) = self.single(atom);
        let columns = keys.iter().map(|key| key.map(|key| self.terms.column(occ, key))).collect();
        Lowered::new(block, columns)
    }
}
