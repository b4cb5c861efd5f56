//! A trained model, and its file.

use serde::{Deserialize, Serialize};

use super::analytic::{Coefficients, LEAST_US};
use super::features::{OperatorFeatures, PlanFeatures};
use super::linear::Linear;
use super::trees::Trees;
use super::vector::vector;
use super::{CostModel, Interval, ModelVersion, Prediction};

/// Version of model files written by this build.
pub const MODEL_FORMAT: u16 = 1;

/// What was learned on top of what comes before it: the logarithm of the factor that is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Learner {
    /// An elastic net.
    Linear(Linear),
    /// Boosted trees.
    Trees(Trees),
}

impl Learner {
    fn one(&self, row: &[f32]) -> f64 {
        match self {
            Self::Linear(linear) => linear.one(row),
            Self::Trees(trees) => trees.one(row),
        }
    }

    fn is_sound(&self) -> bool {
        match self {
            Self::Linear(linear) => linear.is_sound(),
            Self::Trees(trees) => trees.is_sound(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Linear(_) => "elastic net",
            Self::Trees(_) => "boosted trees",
        }
    }
}

/// What is known of one operator: how far it was from what the model says of its like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Past {
    pub(crate) key: u64,
    /// Mean logarithm of the factor, the last runs first.
    pub(crate) factor: f32,
    /// Runs that it is from, older ones counting less.
    pub(crate) runs: f32,
}

/// Logarithms of factors around predictions that 90 % of outcomes lie within.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spreads {
    /// Where the operators' own past is known.
    pub(crate) known: f64,
    /// Where it is not.
    pub(crate) unknown: f64,
}

/// Quantiles of the q-error: the factor between predicted and measured CPU time, whichever way round it is above 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Steps that were predicted.
    pub steps: u64,
    /// Median.
    pub p50: f64,
    /// Nine of ten are better.
    pub p90: f64,
    /// 99 of a hundred are better.
    pub p99: f64,
    /// Share of outcomes within the 90 % interval, 0 to 1.
    pub coverage: f64,
}

/// What a model was made from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Runs.
    pub runs: u64,
    /// Steps of these.
    pub steps: u64,
    /// Operators that learners saw.
    pub operators: u64,
    /// Start of the last run, micro-seconds since 1970.
    pub through_us: i64,
    /// Version of DataFusion.
    pub datafusion: String,
    /// On runs that it had not seen, of steps that it knew.
    pub known: Accuracy,
    /// Of steps that it did not know.
    pub unknown: Accuracy,
}

/// A trained model: analytic terms, what was learned on top of them, and what is known of single operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    pub(crate) format: u16,
    pub(crate) version: ModelVersion,
    pub(crate) provenance: Provenance,
    pub(crate) coefficients: Coefficients,
    pub(crate) learners: Vec<Learner>,
    /// Logarithm of a factor on everything: how fast the machine is.
    pub(crate) speed: f64,
    /// Runs at which an operator's own past counts as much as the model.
    pub(crate) trust: f64,
    pub(crate) spreads: Spreads,
    /// In order of the keys.
    pub(crate) past: Vec<Past>,
}

/// Why a model cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelError {
    /// Its file has another format.
    OtherFormat(u16),
    /// It is not what was written.
    Damaged(String),
}

impl std::fmt::Display for ModelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherFormat(found) => {
                write!(f, "its file has format {found}, and this build reads format {MODEL_FORMAT}")
            }
            Self::Damaged(why) => write!(f, "its file is damaged: {why}"),
        }
    }
}

impl std::error::Error for ModelError {}

/// Most that learning may change a cost by, as a logarithm: beyond is a model that has lost its way.
const MOST_LEARNED: f64 = 3.0;

impl Model {
    /// The model in a file.
    ///
    /// # Errors
    /// The file is of another format, or damaged.
    pub fn from_json(json: &[u8]) -> Result<Self, ModelError> {
        #[derive(Deserialize)]
        struct Format {
            format: u16,
        }
        let damaged = |error: serde_json::Error| ModelError::Damaged(error.to_string());
        let Format { format } = serde_json::from_slice(json).map_err(damaged)?;
        if format != MODEL_FORMAT {
            return Err(ModelError::OtherFormat(format));
        }
        let model: Self = serde_json::from_slice(json).map_err(damaged)?;
        if model.is_sound() { Ok(model) } else { Err(ModelError::Damaged("a number in it cannot be".to_owned())) }
    }

    /// The file of a model.
    ///
    /// # Errors
    /// A number in it has no JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, ModelError> {
        serde_json::to_vec(self).map_err(|error| ModelError::Damaged(error.to_string()))
    }

    /// What it was made from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// What was learned, in the order in which it is applied: `boosted trees`, `elastic net`.
    pub fn learners(&self) -> Vec<&'static str> {
        self.learners.iter().map(Learner::name).collect()
    }

    /// Operators whose own past it knows.
    pub fn operators_known(&self) -> usize {
        self.past.len()
    }

    /// The same model under a version.
    pub fn with_version(self, version: ModelVersion) -> Self {
        Self { version, ..self }
    }

    fn is_sound(&self) -> bool {
        let fine = |x: f64| x.is_finite();
        self.coefficients.is_sound()
            && self.learners.iter().all(Learner::is_sound)
            && [self.speed, self.trust, self.spreads.known, self.spreads.unknown].into_iter().all(fine)
            && self.trust >= 0.0
            && self.past.iter().all(|past| past.factor.is_finite() && past.runs.is_finite() && past.runs >= 0.0)
            && self.past.is_sorted_by(|a, b| a.key < b.key)
    }

    /// Logarithm of what the model says of an operator, its own past left out.
    pub(crate) fn of_its_like(&self, operator: &OperatorFeatures, slots: u32) -> f64 {
        let base = self.coefficients.cost(operator);
        let mut learned = 0.0;
        if !self.learners.is_empty() {
            let row = vector(operator, base, slots);
            learned = self.learners.iter().map(|learner| learner.one(&row)).sum::<f64>();
        }
        base.ln() + self.speed + learned.clamp(-MOST_LEARNED, MOST_LEARNED)
    }

    pub(crate) fn past_of(&self, operator: &OperatorFeatures) -> Option<&Past> {
        let key = operator.key?;
        self.past.binary_search_by_key(&key, |past| past.key).ok().and_then(|at| self.past.get(at))
    }
}

impl CostModel for Model {
    fn predict(&self, plan: &PlanFeatures) -> Prediction {
        let mut known = 0.0;
        let mut per_operator = Vec::with_capacity(plan.operators.len());
        for operator in &plan.operators {
            let mut log = self.of_its_like(operator, plan.slots);
            let past = self.past_of(operator);
            if let Some(past) = past {
                let runs = f64::from(past.runs);
                log += f64::from(past.factor) * runs / (runs + self.trust);
            }
            let cost = log.exp().max(LEAST_US);
            known += if past.is_some() { cost } else { 0.0 };
            per_operator.push(cost);
        }
        let cpu_us: f64 = per_operator.iter().sum();
        let known = if cpu_us > 0.0 { known / cpu_us } else { 0.0 };
        let spread = self.spread(known);
        Prediction { cpu_us, low_us: cpu_us * spread.low, high_us: cpu_us * spread.high, known, per_operator }
    }

    fn spread(&self, known: f64) -> Interval {
        let known = known.clamp(0.0, 1.0);
        let log = known * self.spreads.known + (1.0 - known) * self.spreads.unknown;
        Interval { low: (-log).exp(), high: log.exp() }
    }

    fn version(&self) -> ModelVersion {
        self.version.clone()
    }
}
