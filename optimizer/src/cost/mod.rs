//! What a plan costs: CPU time by operator from features, with an interval.
//!
//! [`features`] looks at a physical plan before it runs, [`recorded`] at one that has run; both see the same things. A [`CostModel`] turns
//! them into CPU time: analytic terms with measured coefficients, what boosted trees or an elastic net have learned on top of these, and
//! what is known of the very operators of a plan from earlier runs. The wall time of an operator (`elapsed_compute`) only says how the
//! CPU time of its step, which is exact, is divided among the operators.

mod analytic;
mod difference;
mod evaluate;
mod features;
mod judge;
mod linear;
mod model;
mod prior;
mod sample;
mod shape;
mod train;
mod trees;
mod vector;
mod weight;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use analytic::AnalyticModel;
pub use difference::difference;
pub(crate) use difference::difference_of;
pub use evaluate::{Evaluation, evaluate};
pub use features::{OperatorFeatures, PlanFeatures, features, recorded};
pub use judge::{Outcome, accuracy, outcomes};
pub use model::{Accuracy, MODEL_FORMAT, Model, ModelError, Provenance};
pub use prior::{fit_prior, prior, untrained};
pub use sample::{Sample, samples};
pub use shape::shape;
pub use train::{MOST_OPERATORS, Training, Verdict, train};

/// Which model has predicted: a plan that was chosen by one can be chosen by it again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ModelVersion {
    /// Coefficients alone.
    #[default]
    Analytic,
    /// The model that this build ships.
    Prior {
        /// Number of the prior.
        number: u32,
    },
    /// A model trained on the history of this state folder.
    Trained {
        /// Number of the model in its environment, from 1.
        number: u32,
        /// Hash of its content.
        hash: String,
    },
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Analytic => f.write_str("analytic"),
            Self::Prior { number } => write!(f, "prior-{number}"),
            Self::Trained { number, hash } => write!(f, "{number}-{}", hash.get(..8).unwrap_or(hash)),
        }
    }
}

/// From `low` to `high`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What a plan is expected to cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prediction {
    /// CPU time of all operators, in micro-seconds.
    pub cpu_us: f64,
    /// In 90 % of runs it takes at least so much.
    pub low_us: f64,
    /// In 90 % of runs it takes at most so much.
    pub high_us: f64,
    /// Share of `cpu_us` in operators whose own past is known, 0 to 1.
    pub known: f64,
    /// The same by operator in pre-order, in micro-seconds; their sum is `cpu_us`.
    pub per_operator: Vec<f64>,
}

/// Tells what a plan costs. The same features give the same prediction.
pub trait CostModel: fmt::Debug + Send + Sync {
    /// CPU time of a plan.
    fn predict(&self, plan: &PlanFeatures) -> Prediction;

    /// Factors around a prediction between which 90 % of outcomes lie, for a plan whose operators' own past is known for the share
    /// `known` of its cost.
    fn spread(&self, known: f64) -> Interval;

    /// Which model this is.
    fn version(&self) -> ModelVersion;
}

#[cfg(test)]
mod tests;
