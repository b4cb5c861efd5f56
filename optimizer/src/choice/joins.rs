//! Build sides and modes of joins, from learned cardinalities, by one rule in place of DataFusion's `JoinSelection`.
//!
//! The rule gives exactly DataFusion's result for all joins that it has no choice for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::join_selection::JoinSelection;
use datafusion::physical_optimizer::{PhysicalOptimizerContext, PhysicalOptimizerRule};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use sparklet_history::{Fingerprint, JoinChoice, JoinSides};

use super::cost::{HASH_BYTES, row_bytes};
use super::rows::{RowEstimate, for_each_node};
use crate::fingerprint::{Identity, PhysicalFingerprints, fingerprint_physical};
use crate::source::SourceNames;

/// Most rows of a hash table that all partitions share: it is built by one task alone, and a table of 15 M rows made a join four times
/// slower than one in partitions.
const MOST_COLLECTED_ROWS: f64 = 1_500_000.0;

/// Most bytes of a shared hash table.
const MOST_COLLECTED_BYTES: f64 = (96_u64 << 20) as f64;

/// Dividing a probe side costs about half of what probing does: a shared table pays where the probe side is this much larger.
const COLLECT_RATIO: f64 = 3.0;

/// The other side is built only where it is smaller by this factor: below, it is about the same.
const SWAP_RATIO: f64 = 1.3;

/// The joins of the finished plan `plan` that should run otherwise, by what is known of the `rows` of its nodes (in pre-order).
/// `limit` is the most bytes that a hash table may take.
pub fn join_choices(
    plan: &Arc<dyn ExecutionPlan>,
    fingerprints: &PhysicalFingerprints,
    rows: &[Option<RowEstimate>],
    limit: u64,
) -> Vec<JoinChoice> {
    let mut choices = Vec::new();
    visit(plan, &mut 0, fingerprints, rows, limit, &mut choices);
    choices
}

/// Returns the number of nodes.
fn visit(
    plan: &Arc<dyn ExecutionPlan>,
    at: &mut usize,
    fingerprints: &PhysicalFingerprints,
    rows: &[Option<RowEstimate>],
    limit: u64,
    choices: &mut Vec<JoinChoice>,
) {
    let own = *at;
    *at += 1;
    let mut places = Vec::new();
    for child in plan.children() {
        places.push(*at);
        visit(child, at, fingerprints, rows, limit, choices);
    }
    let (Some(join), [left, right]) = (plan.downcast_ref::<HashJoinExec>(), places.as_slice()) else { return };
    let identity = |at: usize| fingerprints.nodes.get(at).copied().flatten();
    let known = |at: usize| rows.get(at).and_then(Option::as_ref).filter(|r| r.observed);
    let (Some(whole), Some(left_id), Some(right_id)) = (identity(own), identity(*left), identity(*right)) else {
        return;
    };
    let (Some(left_rows), Some(right_rows)) = (known(*left), known(*right)) else { return };
    if join.null_aware || left_id.fingerprint == right_id.fingerprint {
        return;
    }
    let bytes = |side: &Arc<dyn ExecutionPlan>, rows: f64| rows * (row_bytes(&side.schema()) + HASH_BYTES);
    let (left_bytes, right_bytes) = (bytes(join.left(), left_rows.rows), bytes(join.right(), right_rows.rows));
    // The interval decides: a side that may be the larger one stays where it is.
    let swap = join.join_type().supports_swap()
        && right_bytes * SWAP_RATIO < left_bytes
        && right_rows.high < left_rows.low.max(1.0);
    let (build, probe, build_id, build_bytes) = match swap {
        true => (right_rows, left_rows, right_id, right_bytes),
        false => (left_rows, right_rows, left_id, left_bytes),
    };
    let factor = (build.high / build.rows.max(1.0)).max(1.0);
    let most = (limit as f64).min(MOST_COLLECTED_BYTES);
    let fits = build.high <= MOST_COLLECTED_ROWS && build_bytes * factor <= most;
    let now = *join.partition_mode() == PartitionMode::CollectLeft;
    let collect = match now {
        // Small enough for DataFusion: only what turned out large is divided.
        true => fits || build_bytes <= 4.0 * 1024.0 * 1024.0,
        false => fits && build.high * COLLECT_RATIO <= probe.low,
    };
    if swap || collect != now {
        choices.push(JoinChoice {
            join: whole.fingerprint,
            build: build_id.fingerprint,
            collect,
            on: on_text(join),
            build_rows: build.rows as u64,
            probe_rows: probe.rows as u64,
        });
    }
}

/// The sides of all joins of `plan`, in pre-order.
pub fn join_sides(plan: &Arc<dyn ExecutionPlan>, fingerprints: &PhysicalFingerprints) -> Vec<JoinSides> {
    let mut sides = Vec::new();
    for_each_join(plan, fingerprints, &mut |join, whole, [build, _]| {
        let collect = *join.partition_mode() == PartitionMode::CollectLeft;
        sides.push(JoinSides { join: whole.template, build: build.template, collect });
    });
    sides
}

/// The choices by which the joins of `plan` have the `sides` of another plan, in pre-order, that differs in literals. Where several joins differ in
/// nothing else, they are told apart by where they stand; where that tells nothing either, for a join of two copies of one subplan, the other one
/// is built if `others`.
pub fn with_sides(
    plan: &Arc<dyn ExecutionPlan>,
    fingerprints: &PhysicalFingerprints,
    sides: &[JoinSides],
    others: bool,
) -> Vec<JoinChoice> {
    let tree = Joins::of(plan, fingerprints, &mut 0);
    let mut choices = Vec::new();
    let mut search = Places { others, steps: MOST_STEPS, choices: &mut choices };
    if tree.count == sides.len() && tree.with_sides(sides, &mut search) {
        return choices;
    }
    let mut left: HashMap<Fingerprint, VecDeque<&JoinSides>> = HashMap::new();
    for of_join in sides {
        left.entry(of_join.join).or_default().push_back(of_join);
    }
    choices.clear();
    for_each_join(plan, fingerprints, &mut |join, whole, [build, probe]| {
        let Some(wanted) = left.get_mut(&whole.template).and_then(VecDeque::pop_front) else { return };
        let swap = build.template != wanted.build && probe.template == wanted.build;
        choices.push(chosen(whole, if swap { probe } else { build }, wanted.collect, on_text(join)));
    });
    choices
}

fn chosen(join: Identity, build: Identity, collect: bool, on: String) -> JoinChoice {
    JoinChoice { join: join.fingerprint, build: build.fingerprint, collect, on, build_rows: 0, probe_rows: 0 }
}

/// Joins that are looked at for the place of each: where copies of a subplan are joined with one another, which is which shows further down.
const MOST_STEPS: usize = 20_000;

/// The joins of a plan as they stand in it.
struct Joins {
    /// A join, its inputs (the one that is built first), and its keys; none for a node that has several inputs for another reason.
    join: Option<(Identity, [Identity; 2], String)>,
    below: Vec<Self>,
    /// Joins, this one included.
    count: usize,
}

impl Joins {
    #[recursive::recursive]
    fn of(plan: &Arc<dyn ExecutionPlan>, fingerprints: &PhysicalFingerprints, at: &mut usize) -> Self {
        let own = *at;
        *at += 1;
        let mut places = Vec::new();
        let mut below = Vec::new();
        for child in plan.children() {
            places.push(*at);
            below.push(Self::of(child, fingerprints, at));
        }
        let identity = |at: usize| fingerprints.nodes.get(at).copied().flatten();
        let join = match (plan.downcast_ref::<HashJoinExec>(), places.as_slice()) {
            (Some(join), &[build, probe]) => identity(own)
                .zip(identity(build).zip(identity(probe)))
                .map(|(whole, (build, probe))| (whole, [build, probe], on_text(join))),
            _ => None,
        };
        let count = usize::from(join.is_some()) + below.iter().map(|joins| joins.count).sum::<usize>();
        Self { join, below, count }
    }

    /// Adds the choices by which these joins are `wanted`, one after the other; false, and as it was, where they cannot be.
    #[recursive::recursive]
    fn with_sides(&self, wanted: &[JoinSides], search: &mut Places<'_>) -> bool {
        let Some(left) = search.steps.checked_sub(1) else { return false };
        search.steps = left;
        let Some((whole, [build, probe], on)) = &self.join else {
            return Self::each(self.below.iter(), wanted, search);
        };
        let Some((own, wanted)) = wanted.split_first().filter(|(own, _)| own.join == whole.template) else {
            return false;
        };
        let before = search.choices.len();
        let mut ways = [(build, false), (probe, true)];
        if search.others {
            ways.reverse();
        }
        for (build, swapped) in ways.into_iter().filter(|(build, _)| build.template == own.build) {
            search.choices.push(chosen(*whole, *build, own.collect, on.clone()));
            let found = match swapped {
                false => Self::each(self.below.iter(), wanted, search),
                true => Self::each(self.below.iter().rev(), wanted, search),
            };
            if found {
                return true;
            }
            search.choices.truncate(before);
        }
        false
    }

    fn each<'a>(below: impl Iterator<Item = &'a Self>, mut wanted: &[JoinSides], search: &mut Places<'_>) -> bool {
        let before = search.choices.len();
        for joins in below {
            let Some((of_these, rest)) = wanted.split_at_checked(joins.count) else { return false };
            if !joins.with_sides(of_these, search) {
                search.choices.truncate(before);
                return false;
            }
            wanted = rest;
        }
        true
    }
}

/// What a search for the places of joins goes by, and what it found.
struct Places<'a> {
    /// Of two inputs that are alike, the one that is probed is tried first.
    others: bool,
    /// Joins that it may still look at.
    steps: usize,
    choices: &'a mut Vec<JoinChoice>,
}

/// Calls `visit` for each hash join whose subplan and inputs have names, with these: the input that is built, and the other one.
fn for_each_join(
    plan: &Arc<dyn ExecutionPlan>,
    fingerprints: &PhysicalFingerprints,
    visit: &mut dyn FnMut(&HashJoinExec, Identity, [Identity; 2]),
) {
    let identity = |at: usize| fingerprints.nodes.get(at).copied().flatten();
    for_each_node(plan, &mut 0, &mut |node, own| {
        let Some(join) = node.downcast_ref::<HashJoinExec>() else { return };
        let mut build_nodes = 0;
        for_each_node(join.left(), &mut build_nodes, &mut |_, _| {});
        if let (Some(whole), Some(build), Some(probe)) =
            (identity(own), identity(own + 1), identity(own + 1 + build_nodes))
        {
            visit(join, whole, [build, probe]);
        }
    });
}

fn on_text(join: &HashJoinExec) -> String {
    let keys: Vec<String> = join.on().iter().map(|(l, r)| format!("{l} = {r}")).collect();
    keys.join(" and ")
}

/// `JoinSelection`, and then the choices that were made for single joins.
pub struct LearnedJoins {
    inner: JoinSelection,
    choices: HashMap<Fingerprint, JoinChoice>,
    sources: Arc<dyn SourceNames>,
}

impl std::fmt::Debug for LearnedJoins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LearnedJoins").field("choices", &self.choices).finish_non_exhaustive()
    }
}

impl LearnedJoins {
    /// The rule with `choices` for single joins; `sources` must be those that the choices' fingerprints were made with.
    pub fn new(choices: impl IntoIterator<Item = JoinChoice>, sources: Arc<dyn SourceNames>) -> Self {
        let choices = choices.into_iter().map(|choice| (choice.join, choice)).collect();
        Self { inner: JoinSelection::new(), choices, sources }
    }

    fn apply(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        if self.choices.is_empty() {
            return Ok(plan);
        }
        let fingerprints = fingerprint_physical(&plan, self.sources.as_ref());
        self.applied(plan, &fingerprints)
    }

    /// `plan`, whose joins have sides and modes and whose nodes are named by `fingerprints`, with the choices.
    ///
    /// # Errors
    /// A join that cannot be as it is chosen.
    pub fn applied(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        fingerprints: &PhysicalFingerprints,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.node(plan, &mut 0, fingerprints)
    }

    fn node(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        at: &mut usize,
        fingerprints: &PhysicalFingerprints,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let own = *at;
        *at += 1;
        let identity = |at: usize| fingerprints.nodes.get(at).copied().flatten().map(|i| i.fingerprint);
        let mut places = Vec::new();
        let mut children = Vec::new();
        let mut changed = false;
        for child in plan.children() {
            places.push(*at);
            let new = self.node(Arc::clone(child), at, fingerprints)?;
            changed |= !Arc::ptr_eq(&new, child);
            children.push(new);
        }
        let plan = match changed {
            true => plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?,
            false => plan,
        };
        let choice = identity(own).and_then(|fingerprint| self.choices.get(&fingerprint));
        let (Some(choice), Some(join), [left, right]) =
            (choice, plan.downcast_ref::<HashJoinExec>(), places.as_slice())
        else {
            return Ok(plan);
        };
        let mode = if choice.collect { PartitionMode::CollectLeft } else { PartitionMode::Partitioned };
        let swap = identity(*right) == Some(choice.build) && identity(*left) != Some(choice.build);
        if join.null_aware || (swap && !join.join_type().supports_swap()) {
            return Ok(plan);
        }
        if swap {
            return join.swap_inputs(mode);
        }
        if *join.partition_mode() == mode {
            return Ok(plan);
        }
        Ok(Arc::new(join.builder().with_partition_mode(mode).build()?))
    }
}

impl PhysicalOptimizerRule for LearnedJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        self.apply(self.inner.optimize(plan, config)?)
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.apply(self.inner.optimize_with_context(plan, context)?)
    }

    fn name(&self) -> &str {
        // The adaptive engine looks for the rule under DataFusion's name.
        self.inner.name()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int64Array, RecordBatch};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::prelude::SessionConfig;

    use super::*;
    use crate::choice::plan_key;
    use crate::fingerprint::tests::{Tables, runtime};

    /// Joins that differ in nothing but a literal, and one beside them.
    fn sql([a, b, c]: [i64; 3]) -> String {
        format!(
            "SELECT count(*) FROM big x JOIN (SELECT k FROM small WHERE v > {a}) s ON x.k = s.k \
             JOIN (SELECT k FROM small WHERE v > {b}) t ON x.v = t.k JOIN (SELECT k, max(v) AS m FROM big WHERE v < {c} GROUP BY k) u ON x.k = u.m"
        )
    }

    /// Two copies of a join of two, joined with one another, that differ in nothing but literals.
    fn copies([a, b]: [i64; 2]) -> String {
        let copy = |of: i64| {
            format!(
                "SELECT x.k, max(s.v) AS m FROM big x JOIN small s ON x.k = s.k JOIN big y ON x.v = y.v WHERE s.v > {of} GROUP BY x.k"
            )
        };
        format!("SELECT count(*) FROM ({}) p JOIN ({}) q ON p.m = q.m", copy(a), copy(b))
    }

    #[test]
    fn copies_of_a_subplan_that_change_places_keep_their_own_sides() {
        let tables = tables();
        runtime().block_on(async {
            let session = tables.session(three_slots()).await;
            let sources: Arc<dyn SourceNames> = Arc::new(session.sources.clone());
            let named = |plan: &Arc<dyn ExecutionPlan>| fingerprint_physical(plan, sources.as_ref());
            let (_, plan) = session.plans(&copies([1, 2])).await;
            let mut all = Vec::new();
            for_each_join(&plan, &named(&plan), &mut |join, whole, sides| all.push((whole, sides, on_text(join))));
            assert_eq!(all.len(), 5);
            let mut keys = std::collections::HashSet::new();
            // Which side each of them builds.
            for ways in 0..1_usize << all.len() {
                let of = |(at, (whole, sides, on)): (usize, &(Identity, [Identity; 2], String))| {
                    chosen(*whole, sides[ways >> at & 1], true, on.clone())
                };
                let rule = LearnedJoins::new(all.iter().enumerate().map(of), Arc::clone(&sources));
                let made = rule.applied(Arc::clone(&plan), &named(&plan)).unwrap();
                let (key, wanted) = (plan_key(&made, &named(&made)), join_sides(&made, &named(&made)));
                keys.insert(key);
                let (_, other) = session.plans(&copies([11, 12])).await;
                let names = named(&other);
                let again = [false, true].map(|others| {
                    let rule = LearnedJoins::new(with_sides(&other, &names, &wanted, others), Arc::clone(&sources));
                    let again = rule.applied(Arc::clone(&other), &names).unwrap();
                    plan_key(&again, &named(&again))
                });
                assert!(again.contains(&key), "{ways:b}");
            }
            assert!(keys.len() > 16, "{}", keys.len());
        });
    }

    /// Inputs of finished plans can change places.
    fn three_slots() -> SessionConfig {
        let mut config = SessionConfig::new().with_target_partitions(3);
        config.options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
        config
    }

    fn tables() -> Tables {
        let mut tables = Tables::new();
        let schema = Arc::new(Schema::new(["k", "v"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
        for (name, rows) in [("big", 5_000), ("small", 700)] {
            let column = |by: i64| Arc::new((0..rows).map(|i| i % by).collect::<Int64Array>()) as _;
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column(97), column(rows)]).unwrap();
            tables.add(name, Arc::clone(&schema), [batch].into_iter());
        }
        tables
    }

    #[test]
    fn joins_have_the_sides_they_had_with_other_literals() {
        let tables = tables();
        runtime().block_on(async {
            let session = tables.session(three_slots()).await;
            let sources: Arc<dyn SourceNames> = Arc::new(session.sources.clone());
            let named = |plan: &Arc<dyn ExecutionPlan>| fingerprint_physical(plan, sources.as_ref());
            let (_, plan) = session.plans(&sql([1, 2, 3])).await;
            let joins = join_sides(&plan, &named(&plan)).len();
            assert_eq!(joins, 3);
            // All ways in which the joins of the first may run.
            for ways in 0..4_usize.pow(joins as u32) {
                let mut wanted = join_sides(&plan, &named(&plan));
                let mut inputs = Vec::new();
                for_each_join(&plan, &named(&plan), &mut |_, _, sides| inputs.push(sides));
                for (at, (of_join, sides)) in wanted.iter_mut().zip(inputs).enumerate() {
                    let way = ways >> (2 * at) & 3;
                    of_join.build = sides[way & 1].template;
                    of_join.collect = way & 2 != 0;
                }
                let (_, other) = session.plans(&sql([11, 12, 4_000])).await;
                let names = named(&other);
                let rule = LearnedJoins::new(with_sides(&other, &names, &wanted, false), Arc::clone(&sources));
                let made = rule.applied(other, &names).unwrap();
                let mut sides = join_sides(&made, &named(&made));
                // Swapped inputs stand in another order.
                let key = |of: &JoinSides| (of.join, of.build, of.collect);
                sides.sort_by_key(key);
                wanted.sort_by_key(key);
                assert_eq!(sides, wanted);
            }
        });
    }
}
