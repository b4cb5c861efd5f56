//! What the plans of one query cost, and how much less one takes than another.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::PlanPrediction;

use super::rows::RowEstimate;
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
    /// What `model` expects of `plan`, whose nodes give `rows` (in pre-order), on `slots`.
    pub fn of(
        plan: &Arc<dyn ExecutionPlan>,
        fingerprints: &PhysicalFingerprints,
        rows: &[Option<RowEstimate>],
        slots: usize,
        model: &dyn CostModel,
    ) -> Self {
        let pick = |of: fn(&RowEstimate) -> f64| move |at: usize| rows.get(at)?.as_ref().map(of);
        let mut features = features(plan, slots, &pick(|r| r.rows));
        features.identify(fingerprints.nodes.iter().map(|node| node.map(|identity| identity.template)));
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
