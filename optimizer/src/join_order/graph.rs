//! The join graph of a block: relations, classes of equal columns, other conditions; and the rows of any set of its relations.

use datafusion::common::{DFSchema, HashMap, HashSet, Result};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use super::block::{Block, Tree, name_of, place_of, relations_of};
use super::cost::Input;
use super::set::{Set, members, single, within};
use crate::cardinality::join::{KeySide, asked_for, divisor, matching_share};
use crate::cardinality::profile::{ColumnProfile, Profile};
use crate::cardinality::selectivity::filtered;
use crate::cardinality::{Estimate, EstimateSource, OF_JOIN, Profiles, column, combined};

/// How much more rows than expected must come for the input of a join to be thought larger.
const NEWS: f64 = 1.5;

/// Distinct values for a row from which a column is a key: its range may have gaps.
const UNIQUE: f64 = 0.9;

/// Rows for each row of the other side from which on a key has values twice.
const REPEATS: f64 = 1.05;

/// Relations up to which all orders are looked at for the most rows that a set can have.
const MOST_PATHS: usize = 9;

/// Rows assumed when the share of a condition is worked out.
const MANY: f64 = 1e9;

/// An expression over one relation that equals the others of its class.
#[derive(Debug, Clone)]
pub(super) struct ClassMember {
    pub(super) expr: Expr,
    pub(super) relation: usize,
    pub(super) profile: ColumnProfile,
}

/// Expressions that are equal in all rows of the block.
#[derive(Debug, Clone, Default)]
pub(super) struct Class {
    pub(super) members: Vec<ClassMember>,
    pub(super) relations: Set,
}

impl Class {
    /// The member that stands for the class in rows of `set`.
    pub(super) fn in_set(&self, set: Set) -> Option<&ClassMember> {
        self.members.iter().find(|m| within(single(m.relation), set))
    }
}

/// A condition that is no equality of two single relations.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) expr: Expr,
    pub(super) relations: Set,
    /// Share of rows that it keeps.
    share: f64,
}

/// What decides whether a row of the block has a partner in a semi- or anti-joined relation.
#[derive(Debug, Clone)]
pub(super) struct Partner {
    pub(super) anti: bool,
    /// Equal pairs: of the block, of the relation.
    pub(super) keys: Vec<(Expr, Expr)>,
    /// The class of the first of each pair, if it has one.
    pub(super) classes: Vec<Option<usize>>,
    /// Further conditions on a row and its partner.
    pub(super) rest: Vec<Expr>,
    rest_relations: Set,
    rest_share: f64,
}

#[derive(Debug)]
pub(super) struct Relation {
    pub(super) profile: Profile,
    /// Conditions on it alone.
    pub(super) own: Vec<Expr>,
    pub(super) partner: Option<Partner>,
    /// Rows of the largest table below, before filters: which of two tables refers to the other.
    pub(super) base_rows: f64,
}

#[derive(Debug)]
pub(super) struct Graph {
    pub(super) relations: Vec<Relation>,
    pub(super) classes: Vec<Class>,
    pub(super) conditions: Vec<Condition>,
    pub(super) neighbours: Vec<Set>,
    /// Relations that multiply rows.
    pub(super) inner: Set,
    rows: HashMap<Set, f64>,
    plain: HashMap<Set, f64>,
    /// Rows that past runs tell of.
    known: HashMap<Set, f64>,
    /// Relations whose keys were thought to have no value twice, and do.
    repeat: Set,
    facts: Vec<Fact>,
}

/// What a join that ran tells of the edges between its inputs: how its rows differ from what was expected, given those of its inputs. It holds for
/// every set that has these edges (Stillger et al., "LEO – DB2's LEarning Optimizer", VLDB 2001).
#[derive(Debug, Clone, Copy)]
struct Fact {
    left: Set,
    right: Set,
    factor: f64,
}

impl Graph {
    pub(super) fn new(block: &Block<'_>, profiles: &Profiles) -> Result<Self> {
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        let mut relations = Vec::new();
        let mut schemas = Vec::new();
        for (i, plan) in block.relations.iter().enumerate() {
            let named = plan.schema().fields().iter().enumerate().map(|(c, field)| {
                let name = name_of((i, c));
                (name.relation, std::sync::Arc::new(field.as_ref().clone().with_name(name.name)))
            });
            let named: Vec<_> = named.collect();
            fields.extend(named.iter().cloned());
            schemas.push(DFSchema::new_with_metadata(named, std::collections::HashMap::new())?);
            let profile = profiles.of(plan);
            columns.extend(profile.columns.iter().cloned());
            let base_rows = profile.columns.iter().map(|c| c.of_rows).fold(profile.rows, f64::max);
            relations.push(Relation { profile, own: Vec::new(), partner: None, base_rows });
        }
        let schema = DFSchema::new_with_metadata(fields, std::collections::HashMap::new())?;
        let all = Profile { rows: MANY, columns, spread: 1.0, grounded: true };
        let share = |expr: &Expr| (filtered(all.clone(), expr, &schema).rows / MANY).clamp(0.0, 1.0);
        let member = |expr: &Expr, relation: usize| -> ClassMember {
            let profile = match (schemas.get(relation), relations.get(relation)) {
                (Some(schema), Some(known)) => column(expr, schema, &known.profile),
                _ => ColumnProfile::unknown(&datafusion::arrow::datatypes::DataType::Null, 1.0),
            };
            ClassMember { expr: expr.clone(), relation, profile }
        };

        let mut classes: Vec<Class> = Vec::new();
        let mut conditions: Vec<Condition> = Vec::new();
        let mut own: Vec<(usize, Expr)> = Vec::new();
        let mut seen: HashSet<&Expr> = HashSet::default();
        for expr in block.conjuncts.iter().filter(|e| seen.insert(e)) {
            let of = relations_of(expr);
            match sides(expr) {
                Some((l, r)) if relations_of(l).count_ones() == 1 && relations_of(r).count_ones() == 1 && l != r => {
                    equate(&mut classes, [l, r].map(|e| member(e, relations_of(e).trailing_zeros() as usize)));
                }
                _ if of.count_ones() > 1 => {
                    conditions.push(Condition { expr: expr.clone(), relations: of, share: share(expr) });
                }
                // What reads no relation is settled with the first.
                _ => own.push((if of == 0 { 0 } else { of.trailing_zeros() as usize }, expr.clone())),
            }
        }
        // What is asked about in a semi-joined relation is a class of its own, which others of them may share.
        for existence in &block.existences {
            let this = single(existence.relation);
            for (l, r) in existence.conjuncts.iter().filter_map(sides) {
                let outer = if relations_of(l) == this { r } else { l };
                let of = relations_of(outer);
                let known = classes.iter().any(|class| class.members.iter().any(|m| m.expr == *outer));
                if of.count_ones() == 1 && of != this && !known {
                    let members = vec![member(outer, of.trailing_zeros() as usize)];
                    classes.push(Class { members, relations: of });
                }
            }
        }
        let class_of = |expr: &Expr| classes.iter().position(|class| class.members.iter().any(|m| m.expr == *expr));
        let mut partners = Vec::new();
        for existence in &block.existences {
            let this = single(existence.relation);
            let mut partner = Partner {
                anti: existence.anti,
                keys: Vec::new(),
                classes: Vec::new(),
                rest: Vec::new(),
                rest_relations: 0,
                rest_share: 1.0,
            };
            for expr in &existence.conjuncts {
                let of = relations_of(expr);
                if of == this {
                    own.push((existence.relation, expr.clone()));
                    continue;
                }
                let pair = sides(expr).and_then(|(l, r)| {
                    let (a, b) = (relations_of(l), relations_of(r));
                    match (a & this, b & this) {
                        (0, _) if b == this && a != 0 => Some((l, r)),
                        (_, 0) if a == this && b != 0 => Some((r, l)),
                        _ => None,
                    }
                });
                match pair {
                    Some((outer, inner)) => {
                        partner.classes.push(class_of(outer));
                        partner.keys.push((outer.clone(), inner.clone()));
                    }
                    None => {
                        partner.rest.push(expr.clone());
                        partner.rest_relations |= of & !this;
                        partner.rest_share *= share(expr);
                    }
                }
            }
            partners.push((existence.relation, partner));
        }
        let mut inner: Set = (0..relations.len()).fold(0, |set, i| set | single(i));
        for (relation, partner) in partners {
            inner &= !single(relation);
            if let Some(relation) = relations.get_mut(relation) {
                relation.partner = Some(partner);
            }
        }
        for (relation, expr) in own {
            if let (Some(relation), Some(schema)) = (relations.get_mut(relation), schemas.get(relation)) {
                relation.profile = filtered(relation.profile.clone(), &expr, schema);
                relation.own.push(expr);
            }
        }
        let mut graph = Self {
            relations,
            classes,
            conditions,
            neighbours: Vec::new(),
            inner,
            rows: HashMap::default(),
            plain: HashMap::default(),
            known: HashMap::default(),
            repeat: 0,
            facts: Vec::new(),
        };
        graph.equate_within();
        graph.connect();
        Ok(graph)
    }

    /// Members of a class in one relation are equal before it is joined.
    fn equate_within(&mut self) {
        for class in &self.classes {
            let mut first: HashMap<usize, &ClassMember> = HashMap::default();
            for member in &class.members {
                let Some(known) = first.get(&member.relation) else {
                    first.insert(member.relation, member);
                    continue;
                };
                let Some(relation) = self.relations.get_mut(member.relation) else { continue };
                let larger = known.profile.distinct.max(member.profile.distinct).max(1.0);
                relation.profile.rows /= larger;
                relation.own.push(equal(&known.expr, &member.expr));
            }
        }
    }

    /// Which relations may be joined with one another: those of a class; where that leaves parts, those of another condition; where that
    /// leaves parts still, the smallest of each.
    fn connect(&mut self) {
        let n = self.relations.len();
        self.neighbours = vec![0; n];
        for class in &self.classes {
            for a in members(class.relations) {
                if let Some(known) = self.neighbours.get_mut(a) {
                    *known |= class.relations & !single(a);
                }
            }
        }
        for condition in self.conditions.clone() {
            let first = condition.relations.trailing_zeros() as usize;
            if !within(condition.relations, self.component(first)) {
                for a in members(condition.relations) {
                    for b in members(condition.relations & !single(a)) {
                        self.link(a, b);
                    }
                }
            }
        }
        let mut left = self.inner;
        let mut smallest = Vec::new();
        while left != 0 {
            let component = self.component(left.trailing_zeros() as usize);
            let rows = |i: &usize| self.relations.get(*i).map_or(0.0, |r| r.profile.rows);
            smallest.extend(members(component).min_by(|a, b| rows(a).total_cmp(&rows(b))));
            left &= !component;
        }
        for pair in smallest.windows(2) {
            if let [a, b] = pair {
                self.link(*a, *b);
            }
        }
        // Semi- and anti-joined relations hold nothing together.
        for i in 0..n {
            let reach = self.partner_reach(i);
            for other in members(reach) {
                self.link(i, other);
            }
        }
        // What is only asked whether it has rows at all is asked first.
        let first = self.inner.trailing_zeros() as usize;
        for i in members(!self.inner & (!0 >> (64 - n.min(64)))) {
            if self.neighbours.get(i) == Some(&0) {
                self.link(i, first);
            }
        }
    }

    fn link(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        for (a, b) in [(a, b), (b, a)] {
            if let Some(known) = self.neighbours.get_mut(a) {
                *known |= single(b);
            }
        }
    }

    /// Relations that the conditions of a semi- or anti-joined relation can be asked of.
    fn partner_reach(&self, relation: usize) -> Set {
        let Some(partner) = self.relations.get(relation).and_then(|r| r.partner.as_ref()) else { return 0 };
        let keys = partner.keys.iter().zip(&partner.classes).map(|((outer, _), class)| {
            let class = class.and_then(|c| self.classes.get(c));
            relations_of(outer) | class.map_or(0, |class| class.relations)
        });
        keys.fold(partner.rest_relations, |set, of| set | of)
    }

    /// Relations that hang together with `of` without semi- and anti-joined ones.
    fn component(&self, of: usize) -> Set {
        self.reached(single(of), self.inner)
    }

    /// Relations among `among` that hang together with `from`.
    pub(super) fn reached(&self, from: Set, among: Set) -> Set {
        let mut all = from;
        loop {
            let next = all | (self.neighbours_of(all) & among);
            if next == all {
                return all;
            }
            all = next;
        }
    }

    pub(super) fn neighbours_of(&self, set: Set) -> Set {
        members(set).filter_map(|i| self.neighbours.get(i)).fold(0, |all, of| all | of) & !set
    }

    pub(super) fn is_partner(&self, set: Set) -> Option<&Partner> {
        if set.count_ones() != 1 {
            return None;
        }
        self.relations.get(set.trailing_zeros() as usize)?.partner.as_ref()
    }

    /// Whether rows of `left` can be joined with those of `right`: a semi- or anti-joined relation stands alone on its side, and all that
    /// it is asked about on the other.
    pub(super) fn may_join(&self, left: Set, right: Set) -> bool {
        match (self.is_partner(left), self.is_partner(right)) {
            (None, None) => true,
            (None, Some(partner)) => self.answers(partner, left),
            (Some(partner), None) => self.answers(partner, right),
            (Some(_), Some(_)) => false,
        }
    }

    /// Whether the joins of `tree` can be made: what semi- and anti-joined relations are asked about is there.
    pub(super) fn may_run(&self, tree: &Tree) -> bool {
        match tree {
            Tree::Relation(relation) => *relation < self.relations.len(),
            Tree::Join(left, right) => {
                self.may_run(left) && self.may_run(right) && self.may_join(left.set(), right.set())
            }
        }
    }

    fn answers(&self, partner: &Partner, set: Set) -> bool {
        within(partner.rest_relations, set)
            && (0..partner.keys.len()).all(|key| self.outer_key(partner, key, set).is_some())
    }

    /// The block's side of a key of a semi or anti join, in rows of `set`.
    pub(super) fn outer_key<'g>(&'g self, partner: &'g Partner, key: usize, set: Set) -> Option<&'g Expr> {
        let (outer, _) = partner.keys.get(key)?;
        if within(relations_of(outer), set) {
            return Some(outer);
        }
        let class = partner.classes.get(key).copied().flatten().and_then(|c| self.classes.get(c))?;
        class.in_set(set).map(|m| &m.expr)
    }

    /// Whether the join of two sets has equal keys.
    pub(super) fn has_keys(&self, left: Set, right: Set) -> bool {
        if let Some(partner) = self.is_partner(left).or_else(|| self.is_partner(right)) {
            return !partner.keys.is_empty();
        }
        self.classes.iter().any(|class| class.relations & left != 0 && class.relations & right != 0)
            || self.conditions.iter().any(|condition| split(condition, left, right).is_some())
    }

    pub(super) fn input(&mut self, set: Set) -> Input {
        let width =
            members(set & self.inner).filter_map(|i| self.relations.get(i)).map(|r| r.profile.width()).sum::<f64>();
        let width = match self.is_partner(set) {
            Some(_) => self.relations.get(set.trailing_zeros() as usize).map_or(8.0, |r| r.profile.width()),
            None => width,
        };
        Input { rows: self.rows(set), width: width.max(1.0) }
    }

    /// Expected rows of the join of `set`: the same whatever the order of the joins, since one and the same relation is taken away each time.
    pub(super) fn rows(&mut self, set: Set) -> f64 {
        if let Some(&rows) = self.rows.get(&set) {
            return rows;
        }
        let rows = self.estimate(set);
        self.rows.insert(set, rows);
        rows
    }

    /// Takes in that the join of `left` and `right` gave `rows`; tells whether that is news. The inputs should be taken in before.
    pub(super) fn learn(&mut self, left: Set, right: Set, rows: f64) -> bool {
        for (side, key) in [(left, right), (right, left)] {
            let counted = side.count_ones() == 1 || self.known.contains_key(&side);
            if counted && self.is_looked_up(side, key) && rows > self.rows(side) * REPEATS {
                self.repeat |= key;
                self.rows.clear();
            }
        }
        let mut expected = self.rows(left | right).max(0.5);
        if rows > expected * NEWS {
            // A join with a key makes no more of the rows of the other side: these were more than expected already.
            for (side, key) in [(left, right), (right, left)] {
                if side.count_ones() > 1 && !self.known.contains_key(&side) && self.is_looked_up(side, key) {
                    let found = self.relations.get(key.trailing_zeros() as usize);
                    let kept = found.map_or(1.0, |r| (r.profile.rows / r.base_rows.max(1.0)).clamp(1e-6, 1.0));
                    let known = (rows / kept).min(self.most(side)).max(self.rows(side));
                    self.known.insert(side, known);
                    self.rows.clear();
                }
            }
            expected = self.rows(left | right).max(0.5);
        }
        let factor = rows.max(0.5) / expected;
        let news = self.known.insert(left | right, rows).is_none() && (factor - 1.0).abs() > 0.02;
        if news {
            self.facts.push(Fact { left, right, factor });
        }
        self.rows.clear();
        news
    }

    /// Whether rows of `side` find one row at the most in `key`: a single relation whose columns of the join have no value twice.
    fn is_looked_up(&self, side: Set, key: Set) -> bool {
        let Some(relation) = self.relations.get(key.trailing_zeros() as usize).filter(|_| key.count_ones() == 1) else {
            return false;
        };
        let crossing = self.classes.iter().filter(|class| class.relations & side != 0);
        let mut own = crossing.filter_map(|class| class.in_set(key));
        relation.partner.is_none()
            && !within(key, self.repeat)
            && own.any(|m| m.profile.known && m.profile.distinct >= m.profile.of_rows * UNIQUE)
    }

    /// Most rows that `set` can have: where one of its relations is only looked up, or only asked about, no more than there are without it. The
    /// filter of that relation may keep more of these than of its own rows, so that what is learned of the one says too much of the other.
    fn most(&mut self, set: Set) -> f64 {
        if set.count_ones() < 2 {
            return f64::INFINITY;
        }
        let without: Vec<usize> = match self.relations.len() > MOST_PATHS {
            // All sets of a large graph are too many.
            true => vec![self.last_of(set)],
            false => members(set).collect(),
        };
        let mut most = f64::INFINITY;
        for relation in without {
            let (this, rest) = (single(relation), set & !single(relation));
            let is_partner = self.is_partner(this).is_some();
            let hangs_together = self.reached(single(rest.trailing_zeros() as usize), rest) == rest;
            if rest & self.inner != 0 && hangs_together && (is_partner || self.is_looked_up(rest, this)) {
                most = most.min(self.rows(rest));
            }
        }
        most
    }

    /// The estimate for a set.
    pub(super) fn of_set(&mut self, set: Set) -> Estimate {
        let rows = self.rows(set);
        let told = self.facts.iter().filter(|fact| self.has_edges(set, fact.left, fact.right)).count();
        let joins = (set.count_ones() as usize).saturating_sub(1);
        if told > 0 {
            let untold = std::iter::repeat_n(OF_JOIN, joins.saturating_sub(told));
            return Estimate::within(rows, combined(untold.chain([1.5])), EstimateSource::Edges { runs: told as u32 });
        }
        let parts = members(set).filter_map(|i| self.relations.get(i)).map(|r| r.profile.spread);
        let spread = combined(parts.chain(std::iter::repeat_n(OF_JOIN, joins)));
        Estimate::within(rows, spread, EstimateSource::Statistics)
    }

    /// What joins that ran tell of the edges within `set`.
    fn corrected(&self, set: Set) -> f64 {
        let applies = |fact: &&Fact| self.has_edges(set, fact.left, fact.right);
        self.facts.iter().filter(applies).map(|fact| fact.factor).product()
    }

    /// Whether all that joins `left` with `right` is there in `set` too.
    fn has_edges(&self, set: Set, left: Set, right: Set) -> bool {
        let touches = |of: Set| of & left & set != 0 && of & right & set != 0;
        for (side, other) in [(left, right), (right, left)] {
            if let Some(partner) = self.is_partner(side) {
                return within(side, set) && self.answers(partner, set & other);
            }
        }
        let mut any = false;
        for class in &self.classes {
            if class.relations & left != 0 && class.relations & right != 0 {
                any = true;
                if !touches(class.relations) {
                    return false;
                }
            }
        }
        for condition in &self.conditions {
            let of = condition.relations;
            if within(of, left | right) && !within(of, left) && !within(of, right) {
                any = true;
                if !within(of, set) {
                    return false;
                }
            }
        }
        any
    }

    fn estimate(&mut self, set: Set) -> f64 {
        if let Some(&known) = self.known.get(&set) {
            return known;
        }
        let rows = self.uncorrected(set) * self.corrected(set);
        rows.min(self.most(set))
    }

    /// Memoised: the rows of a set without what joins that ran tell.
    fn uncorrected(&mut self, set: Set) -> f64 {
        if let Some(&rows) = self.plain.get(&set) {
            return rows;
        }
        let rows = self.by_statistics(set);
        self.plain.insert(set, rows);
        rows
    }

    fn by_statistics(&mut self, set: Set) -> f64 {
        if set.count_ones() <= 1 {
            return self.relations.get(set.trailing_zeros() as usize).map_or(1.0, |r| r.profile.rows);
        }
        let partners = set & !self.inner;
        if partners != 0 {
            let last = 63 - partners.leading_zeros() as usize;
            let rest = set & !single(last);
            return self.uncorrected(rest) * self.kept_by(last, rest);
        }
        let taken = self.last_of(set);
        let rest = set & !single(taken);
        let product = self.uncorrected(rest) * self.uncorrected(single(taken));
        product * self.share_of_pairs(rest, taken)
    }

    /// The relation of `set` with the smallest table of those without which the others still hang together.
    fn last_of(&self, set: Set) -> usize {
        let base = |i: usize| self.relations.get(i).map_or(0.0, |r| r.base_rows);
        let mut ordered: Vec<usize> = members(set).collect();
        ordered.sort_by(|&a, &b| base(a).total_cmp(&base(b)));
        let hangs_together = |i: &&usize| {
            let rest = set & !single(**i);
            self.reached(single(rest.trailing_zeros() as usize), rest) == rest
        };
        ordered.iter().find(hangs_together).or(ordered.first()).copied().unwrap_or(0)
    }

    /// The share of pairs of a row of `rest` and one of `taken` that are joined.
    fn share_of_pairs(&self, rest: Set, taken: usize) -> f64 {
        let this = single(taken);
        let crossing: Vec<&Class> =
            self.classes.iter().filter(|c| c.relations & rest != 0 && c.relations & this != 0).collect();
        let mut share = 1.0;
        if !crossing.is_empty() {
            let mut right = KeySide::default();
            let mut left = KeySide::default();
            for class in &crossing {
                let Some(own) = class.in_set(this) else { continue };
                right.distinct.push(own.profile.distinct);
                right.of_rows = Some(right.of_rows.unwrap_or(0.0).max(own.profile.of_rows));
                share *= 1.0 - own.profile.nulls;
                let others: Vec<&ClassMember> =
                    class.members.iter().filter(|m| within(single(m.relation), rest)).collect();
                // Of equal columns the one with the fewest values is left.
                left.distinct.push(others.iter().map(|m| m.profile.distinct).fold(f64::INFINITY, f64::min));
                if let [only] = others.as_slice() {
                    share *= 1.0 - only.profile.nulls;
                }
            }
            // Keys that are columns of one table have no more values together than it has rows.
            let common = crossing.iter().fold(rest, |set, class| set & class.relations);
            left.of_rows = members(common)
                .map(|i| {
                    let own = crossing.iter().filter_map(|c| c.in_set(single(i)));
                    own.map(|m| m.profile.of_rows).fold(0.0, f64::max)
                })
                .min_by(f64::total_cmp);
            if let ([ours], [others]) = (right.distinct.as_mut_slice(), left.distinct.as_mut_slice()) {
                let rows = |set: Set| match members(set).collect::<Vec<_>>().as_slice() {
                    [only] => self.relations.get(*only).map(|r| r.profile.rows),
                    _ => None,
                };
                let (of_ours, of_others) = (*ours, *others);
                *ours = asked_for(of_ours, rows(this).unwrap_or(of_ours), of_others);
                *others = asked_for(of_others, rows(rest).unwrap_or(of_others), of_ours);
            }
            share /= divisor(&left, &right);
        }
        let both = rest | this;
        for condition in &self.conditions {
            let of = condition.relations;
            if within(of, both) && !within(of, rest) && !within(of, this) {
                share *= condition.share;
            }
        }
        share
    }

    /// The share of the rows of `rest` that stay when they are semi- or anti-joined with `partner`.
    fn kept_by(&self, partner: usize, rest: Set) -> f64 {
        let Some(relation) = self.relations.get(partner) else { return 1.0 };
        let Some(of) = &relation.partner else { return 1.0 };
        let mut outer = KeySide::default();
        let mut inner = KeySide::default();
        for (key, class) in of.keys.iter().zip(&of.classes) {
            let inner_place = key.1.column_refs().into_iter().find_map(place_of);
            let Some(column) = inner_place.and_then(|(_, c)| relation.profile.columns.get(c)) else { continue };
            inner.distinct.push(column.distinct);
            inner.of_rows = Some(inner.of_rows.unwrap_or(0.0).max(column.of_rows));
            let member = class.and_then(|c| self.classes.get(c)).and_then(|c| {
                c.members
                    .iter()
                    .filter(|m| within(single(m.relation), rest))
                    .map(|m| &m.profile)
                    .min_by(|a, b| a.distinct.total_cmp(&b.distinct))
            });
            let place = key.0.column_refs().into_iter().find_map(place_of);
            let own = place.and_then(|(r, c)| self.relations.get(r)?.profile.columns.get(c));
            let Some(known) = member.or(own) else { continue };
            outer.distinct.push(known.distinct);
            outer.of_rows = Some(outer.of_rows.unwrap_or(0.0).max(known.of_rows));
        }
        let mut share = if outer.distinct.is_empty() {
            if relation.profile.rows < 0.5 { 0.0 } else { 1.0 }
        } else {
            matching_share(&outer, &inner, relation.profile.rows)
        };
        if of.rest_share < 1.0 {
            let values = inner.distinct.iter().product::<f64>().min(relation.profile.rows).max(1.0);
            let fan_out = (relation.profile.rows / values).max(1.0);
            share *= 1.0 - (1.0 - of.rest_share).powf(fan_out);
        }
        if of.anti { (1.0 - share).max(0.05) } else { share }
    }
}

/// The sides of an equality as keys of the join of `left` and `right`, if it can be one.
pub(super) fn split(condition: &Condition, left: Set, right: Set) -> Option<(&Expr, &Expr)> {
    let (a, b) = sides(&condition.expr)?;
    let (of_a, of_b) = (relations_of(a), relations_of(b));
    if of_a == 0 || of_b == 0 {
        None
    } else if within(of_a, left) && within(of_b, right) {
        Some((a, b))
    } else if within(of_a, right) && within(of_b, left) {
        Some((b, a))
    } else {
        None
    }
}

fn sides(expr: &Expr) -> Option<(&Expr, &Expr)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => Some((left, right)),
        _ => None,
    }
}

pub(super) fn equal(left: &Expr, right: &Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left.clone()), Operator::Eq, Box::new(right.clone())))
}

/// Puts two expressions into one class, which takes in the classes that either was in.
fn equate(classes: &mut Vec<Class>, pair: [ClassMember; 2]) {
    let mut merged = Class::default();
    let touches = |class: &Class| class.members.iter().any(|m| pair.iter().any(|p| p.expr == m.expr));
    let mut at = None;
    let mut i = 0;
    while let Some(class) = classes.get(i) {
        if touches(class) {
            let class = classes.remove(i);
            merged.members.extend(class.members);
            at.get_or_insert(i);
        } else {
            i += 1;
        }
    }
    for member in pair {
        if !merged.members.iter().any(|m| m.expr == member.expr) {
            merged.members.push(member);
        }
    }
    merged.relations = merged.members.iter().fold(0, |set, m| set | single(m.relation));
    classes.insert(at.unwrap_or(classes.len()), merged);
}
