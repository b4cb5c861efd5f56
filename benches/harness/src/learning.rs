//! What sparklet's choices were, and what came of the predictions that they rest on.

use std::collections::BTreeMap;

use serde::Serialize;
use sparklet_history::ChoiceRecord;
use sparklet_report::choice::headline;

use crate::measure::Cost;
use crate::report::Quantiles;

/// First day on which predictions are judged: a query has run twice.
const FROM_DAY: u32 = 3;

/// A choice, as its run was remembered.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Choice {
    pub(crate) day: u32,
    pub(crate) query: String,
    /// The part that the plan played, and why it was chosen, in words.
    pub(crate) what: String,
    /// What was chosen and what was not, as in the record.
    pub(crate) record: ChoiceRecord,
}

impl Choice {
    pub(crate) fn of(day: u32, query: String, record: ChoiceRecord) -> Self {
        Self { day, query, what: headline(&record), record }
    }
}

/// Choices and predictions of a whole measurement.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Learned {
    /// Choices by day, and by the part that their plan played.
    pub(crate) roles: BTreeMap<u32, BTreeMap<String, usize>>,
    /// Planning beyond DataFusion's own, in milli-seconds: choices that were looked for, and those that were looked up.
    pub(crate) searched_ms: Quantiles,
    pub(crate) looked_up_ms: Quantiles,
    /// Predicted against measured CPU time of queries from the third day on, as max(a ÷ b, b ÷ a).
    pub(crate) prediction: Quantiles,
    /// Share of them within their interval; it is to be 0.9.
    pub(crate) coverage: f64,
    /// Training a cost model, in milli-seconds of wall time.
    pub(crate) training_ms: Quantiles,
    pub(crate) choices: Vec<Choice>,
}

impl Learned {
    pub(crate) fn new(choices: Vec<Choice>, training: &[(u32, Cost)]) -> Self {
        let mut roles: BTreeMap<u32, BTreeMap<String, usize>> = BTreeMap::new();
        for choice in &choices {
            let role = format!("{:?}", choice.record.role).to_lowercase();
            *roles.entry(choice.day).or_default().entry(role).or_default() += 1;
        }
        let added = |cached: bool| -> Vec<f64> {
            let of = choices.iter().map(|choice| &choice.record).filter(|record| record.cached == cached);
            of.map(|record| record.added_us as f64 / 1000.0).collect()
        };
        let (mut errors, mut within) = (Vec::new(), 0_usize);
        for choice in choices.iter().filter(|choice| choice.day >= FROM_DAY && choice.record.fell_back.is_none()) {
            let (Some(predicted), Some(took)) = (&choice.record.predicted, choice.record.cpu_us) else { continue };
            let (said, was) = (predicted.cpu_us.max(1) as f64, took.max(1) as f64);
            errors.push((said / was).max(was / said));
            within += usize::from((predicted.low_us..=predicted.high_us).contains(&took));
        }
        Self {
            roles,
            searched_ms: Quantiles::of(&added(false)),
            looked_up_ms: Quantiles::of(&added(true)),
            prediction: Quantiles::of(&errors),
            coverage: within as f64 / errors.len().max(1) as f64,
            training_ms: Quantiles::of(&training.iter().map(|t| t.1.wall_us as f64 / 1000.0).collect::<Vec<_>>()),
            choices,
        }
    }
}
