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

/// The choices by which the joins of `plan` have the `sides` of another plan that differs in literals. Where several joins differ in nothing
/// else, they are told apart by their order.
pub fn with_sides(
    plan: &Arc<dyn ExecutionPlan>,
    fingerprints: &PhysicalFingerprints,
    sides: &[JoinSides],
) -> Vec<JoinChoice> {
    let mut left: HashMap<Fingerprint, VecDeque<&JoinSides>> = HashMap::new();
    for of_join in sides {
        left.entry(of_join.join).or_default().push_back(of_join);
    }
    let mut choices = Vec::new();
    for_each_join(plan, fingerprints, &mut |join, whole, [build, probe]| {
        let Some(wanted) = left.get_mut(&whole.template).and_then(VecDeque::pop_front) else { return };
        let swap = build.template != wanted.build && probe.template == wanted.build;
        let build = if swap { probe } else { build };
        let (join_name, build_name) = (whole.fingerprint, build.fingerprint);
        choices.push(JoinChoice {
            join: join_name,
            build: build_name,
            collect: wanted.collect,
            on: on_text(join),
            build_rows: 0,
            probe_rows: 0,
        });
    });
    choices
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
    use crate::fingerprint::tests::{Tables, runtime};

    /// Joins that differ in nothing but a literal, and one beside them.
    fn sql([a, b, c]: [i64; 3]) -> String {
        format!(
            "SELECT count(*) FROM big x JOIN (SELECT k FROM small WHERE v > {a}) s ON x.k = s.k \
             JOIN (SELECT k FROM small WHERE v > {b}) t ON x.v = t.k JOIN (SELECT k, max(v) AS m FROM big WHERE v < {c} GROUP BY k) u ON x.k = u.m"
        )
    }

    #[test]
    fn joins_have_the_sides_they_had_with_other_literals() {
        let mut tables = Tables::new();
        let schema = Arc::new(Schema::new(["k", "v"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
        for (name, rows) in [("big", 5_000), ("small", 700)] {
            let column = |by: i64| Arc::new((0..rows).map(|i| i % by).collect::<Int64Array>()) as _;
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column(97), column(rows)]).unwrap();
            tables.add(name, Arc::clone(&schema), [batch].into_iter());
        }
        runtime().block_on(async {
            let mut config = SessionConfig::new().with_target_partitions(3);
            // Inputs of finished plans cannot change places with it.
            config.options_mut().optimizer.enable_join_dynamic_filter_pushdown = false;
            let session = tables.session(config).await;
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
                let rule = LearnedJoins::new(with_sides(&other, &names, &wanted), Arc::clone(&sources));
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
