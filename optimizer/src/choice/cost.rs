//! What the plans of one query cost, and how much less one takes than another.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::PlanPrediction;

use super::rows::RowEstimate;
use crate::cost::{CostModel, PlanFeatures, difference, features};
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

/// What a cost model needs to know of a plan, with the rows that are expected, and with those at either end of their intervals.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlanCost {
    expected: PlanFeatures,
    low: PlanFeatures,
    high: PlanFeatures,
}

impl PlanCost {
    /// Of `plan`, whose nodes give `rows` (in pre-order), on `slots`.
    pub fn of(
        plan: &Arc<dyn ExecutionPlan>,
        fingerprints: &PhysicalFingerprints,
        rows: &[Option<RowEstimate>],
        slots: usize,
    ) -> Self {
        let with = |pick: fn(&RowEstimate) -> f64| {
            let mut features = features(plan, slots, &|at| rows.get(at)?.as_ref().map(pick));
            features.identify(fingerprints.nodes.iter().map(|node| node.map(|identity| identity.template)));
            features
        };
        Self { expected: with(|r| r.rows), low: with(|r| r.low), high: with(|r| r.high) }
    }

    /// What `model` expects.
    pub fn prediction(&self, model: &dyn CostModel) -> PlanPrediction {
        let expected = model.predict(&self.expected);
        let (low, high) = (model.predict(&self.low), model.predict(&self.high));
        // Rows and model err independently: their deviations add as their squares do.
        let below = (expected.cpu_us - expected.low_us).hypot(expected.cpu_us - low.cpu_us.min(expected.cpu_us));
        let above = (expected.high_us - expected.cpu_us).hypot(high.cpu_us.max(expected.cpu_us) - expected.cpu_us);
        PlanPrediction {
            cpu_us: expected.cpu_us as u64,
            low_us: (expected.cpu_us - below).max(0.0) as u64,
            high_us: (expected.cpu_us + above) as u64,
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

/// How much less `other` takes than `default`. Operators that both have cancel ([`difference`]); rows of subplans that both have err in both
/// alike, so that the two are compared at the same end of all intervals.
pub fn gain(model: &dyn CostModel, default: &PlanCost, other: &PlanCost) -> Gain {
    let at = |of: fn(&PlanCost) -> &PlanFeatures| model.predict(of(default)).cpu_us - model.predict(of(other)).cpu_us;
    let us = at(|cost| &cost.expected);
    let (low, high) = (at(|cost| &cost.low), at(|cost| &cost.high));
    let by_model = difference(model, &default.expected, &other.expected);
    let below = (us + by_model.high).max(0.0).hypot((us - low.min(high)).max(0.0));
    let above = (-by_model.low - us).max(0.0).hypot((low.max(high) - us).max(0.0));
    Gain { us, low: us - below, high: us + above }
}
