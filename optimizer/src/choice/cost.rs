//! What the plans of one query cost, and how much less one takes than another.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use sparklet_history::{Fingerprint, PlanPrediction};

use super::rows::{RowEstimate, for_each_node};
use crate::cost::{CostModel, PlanFeatures, Prediction, difference_of, features};
use crate::fingerprint::PhysicalFingerprints;

/// Bytes of a hash table for a row, beside the row itself.
pub(super) const HASH_BYTES: f64 = 16.0;

/// Bytes of a row of `schema` in memory, about.
pub(super) fn row_bytes(schema: &Schema) -> f64 {
    schema.fields().iter().map(|field| width(field.data_type())).sum::<f64>().max(1.0)
}

fn width(of: &DataType) -> f64 {
    match of.primitive_width() {
        Some(bytes) => bytes as f64,
        None => match of {
            DataType::Boolean => 1.0,
            DataType::FixedSizeBinary(bytes) => f64::from(*bytes),
            DataType::Dictionary(keys, _) => width(keys),
            DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).sum(),
            _ => 28.0,
        },
    }
}

/// How a plan is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// Slots.
    pub slots: usize,
    /// Subplans that stand more than once are computed once.
    pub shares: bool,
}

/// Subplans of a plan that stand in it before: those that the adaptive engine shares.
#[derive(Debug, Default)]
struct Again {
    /// Whether a node, by position, is one of them or in one of them.
    nodes: Vec<bool>,
    roots: HashSet<usize>,
    /// With the columns of those that are called so: a projection is called as its input is.
    seen: HashMap<Fingerprint, Vec<SchemaRef>>,
}

impl Again {
    fn of(plan: &Arc<dyn ExecutionPlan>, fingerprints: &PhysicalFingerprints) -> Self {
        let mut found = Self::default();
        found.visit(plan, fingerprints);
        found
    }

    /// Whether work that is worth keeping is done in `plan`.
    #[recursive::recursive]
    fn visit(&mut self, plan: &Arc<dyn ExecutionPlan>, fingerprints: &PhysicalFingerprints) -> bool {
        let own = self.nodes.len();
        let known = fingerprints.nodes.get(own).copied().flatten().map(|identity| identity.fingerprint);
        if let Some(same) = known.and_then(|known| self.seen.get(&known))
            && same.contains(&plan.schema())
        {
            for_each_node(plan, &mut 0, &mut |_, _| self.nodes.push(true));
            self.roots.insert(own);
            return true;
        }
        self.nodes.push(false);
        let mut reduces = plan.is::<AggregateExec>() || plan.is::<WindowAggExec>() || plan.is::<BoundedWindowAggExec>();
        for child in plan.children() {
            reduces |= self.visit(child, fingerprints);
        }
        // After its inputs: what only moves rows is called as its input is.
        if let Some(known) = known.filter(|_| reduces) {
            self.seen.entry(known).or_default().push(plan.schema());
        }
        reduces
    }

    /// Whether the node gives no rows to anyone.
    fn is_below(&self, at: usize) -> bool {
        self.nodes.get(at).copied().unwrap_or(false) && !self.roots.contains(&at)
    }
}

/// What a cost model says of a plan, with the rows that are expected, and with those at either end of their intervals.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlanCost {
    features: PlanFeatures,
    predicted: Prediction,
    /// CPU time at the low and at the high end of the rows, in micro-seconds.
    low_us: f64,
    high_us: f64,
}

impl PlanCost {
    /// What `model` expects of `plan`, whose nodes give `rows` (in pre-order), where it is run as `runs` says.
    pub fn of(
        plan: &Arc<dyn ExecutionPlan>,
        fingerprints: &PhysicalFingerprints,
        rows: &[Option<RowEstimate>],
        runs: Runs,
        model: &dyn CostModel,
    ) -> Self {
        let again = if runs.shares { Again::of(plan, fingerprints) } else { Again::default() };
        let is_again = |at: usize| again.nodes.get(at).copied().unwrap_or(false);
        let pick = |of: fn(&RowEstimate) -> f64| {
            let again = &again;
            move |at: usize| if again.is_below(at) { Some(0.0) } else { rows.get(at)?.as_ref().map(of) }
        };
        let mut features = features(plan, runs.slots, &pick(|r| r.rows));
        if !again.roots.is_empty() {
            features = features.without(&again.nodes, &pick(|r| r.rows));
        }
        let templates = fingerprints.nodes.iter().enumerate();
        features.identify(templates.map(|(at, node)| node.filter(|_| !is_again(at)).map(|identity| identity.template)));
        let at = |of: fn(&RowEstimate) -> f64| model.predict(&features.at_rows(&pick(of))).cpu_us;
        let (low_us, high_us) = (at(|r| r.low), at(|r| r.high));
        Self { predicted: model.predict(&features), features, low_us, high_us }
    }

    /// The expectation with its interval.
    pub fn prediction(&self) -> PlanPrediction {
        let Prediction { cpu_us, low_us, high_us, .. } = self.predicted;
        // Rows and model err independently: their deviations add as their squares do.
        let below = (cpu_us - low_us).hypot(cpu_us - self.low_us.min(cpu_us));
        let above = (high_us - cpu_us).hypot(self.high_us.max(cpu_us) - cpu_us);
        PlanPrediction {
            cpu_us: cpu_us as u64,
            low_us: (cpu_us - below).max(0.0) as u64,
            high_us: (cpu_us + above) as u64,
        }
    }
}

/// How much less one plan takes than another, in micro-seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Gain {
    /// Expected.
    pub us: f64,
    /// Low end.
    pub low: f64,
    /// High end.
    pub high: f64,
}

/// How much less `other` takes than `default`, both predicted by `model`. Operators that both have cancel ([`crate::cost::difference`]); rows
/// of subplans that both have err in both alike, so that the two are compared at the same end of all intervals.
pub fn gain(model: &dyn CostModel, default: &PlanCost, other: &PlanCost) -> Gain {
    let us = default.predicted.cpu_us - other.predicted.cpu_us;
    let (low, high) = (default.low_us - other.low_us, default.high_us - other.high_us);
    let by_model = difference_of(model, (&default.features, &default.predicted), (&other.features, &other.predicted));
    let below = (us + by_model.high).max(0.0).hypot((us - low.min(high)).max(0.0));
    let above = (-by_model.low - us).max(0.0).hypot((low.max(high) - us).max(0.0));
    Gain { us, low: us - below, high: us + above }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::Field;
    use datafusion::arrow::record_batch::RecordBatch;
    use datafusion::prelude::SessionConfig;
    use sparklet_history::{NoEvidence, Scope};

    use super::*;
    use crate::cardinality::Cardinalities;
    use crate::fingerprint::fingerprint_physical;
    use crate::fingerprint::tests::{Tables, runtime};

    /// Statements, and how many of their subplans stand in them before.
    const STATEMENTS: [(&str, usize); 6] = [
        ("WITH c AS (SELECT a, sum(b) AS s FROM t GROUP BY a) SELECT * FROM c x JOIN c y ON x.a = y.s", 1),
        (
            "WITH c AS (SELECT a, sum(b) AS s FROM t GROUP BY a) SELECT a FROM c WHERE s > 3 UNION ALL SELECT s FROM c",
            1,
        ),
        // The condition goes below.
        (
            "WITH c AS (SELECT a, sum(b) AS s FROM t GROUP BY a) SELECT s FROM c WHERE a > 3 UNION ALL SELECT s FROM c",
            0,
        ),
        ("SELECT a FROM t UNION ALL SELECT a FROM t", 0),
        ("SELECT sum(b) FROM t GROUP BY a", 0),
        // Once they are made of the finest.
        (
            "SELECT a, b, sum(c) FROM t GROUP BY a, b UNION ALL SELECT a, NULL, sum(c) FROM t GROUP BY a \
             UNION ALL SELECT NULL, NULL, sum(c) FROM t",
            2,
        ),
    ];

    #[test]
    fn what_stands_twice_is_computed_once() {
        let mut tables = Tables::new();
        let schema =
            Arc::new(Schema::new(["a", "b", "c"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
        let column = |of: fn(i64) -> i64| Arc::new((0..50_000).map(of).collect::<Int64Array>()) as _;
        let columns = vec![column(|i| i % 7), column(|i| i % 11), column(|i| i)];
        tables.add("t", Arc::clone(&schema), [RecordBatch::try_new(schema, columns).unwrap()].into_iter());
        runtime().block_on(async {
            let session = tables.session(SessionConfig::new().with_target_partitions(2)).await;
            for (sql, expected) in STATEMENTS {
                let (mut logical, mut plan) = session.plans(sql).await;
                let scope = Scope { pipeline: "test", environment: "test" };
                let cardinalities = Cardinalities::new(&NoEvidence, scope, &session.sources);
                if let Some(finer) = crate::candidates(&logical, &cardinalities).into_iter().next() {
                    logical = finer.plan;
                    let state = session.context.state();
                    plan = state.query_planner().create_physical_plan(&logical, &state).await.unwrap();
                }
                let again = Again::of(&plan, &fingerprint_physical(&plan, &session.sources));
                let shown = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
                assert_eq!(again.roots.len(), expected, "{sql}\n{shown}");
            }
        });
    }
}
