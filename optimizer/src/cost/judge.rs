//! How good a model is: on steps that it predicts, and on plans that it would pick.

use std::collections::BTreeMap;

use super::CostModel;
use super::model::Accuracy;
use super::sample::Sample;

/// A prediction beside what came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Logarithm of measured ÷ predicted CPU time.
    pub log: f64,
    /// Share of the prediction in operators whose own past was known.
    pub known: f64,
    /// It lay within the predicted interval.
    pub within: bool,
}

/// Predicts each sample and looks at what came.
pub fn outcomes(model: &dyn CostModel, samples: &[&Sample]) -> Vec<Outcome> {
    let outcome = |sample: &&Sample| {
        let predicted = model.predict(&sample.features);
        Outcome {
            log: (sample.cpu_us / predicted.cpu_us.max(1.0)).ln(),
            known: predicted.known,
            within: (predicted.low_us..=predicted.high_us).contains(&sample.cpu_us),
        }
    };
    samples.iter().map(outcome).collect()
}

/// Quantiles of the q-errors, and how many outcomes lay within their intervals.
pub fn accuracy(outcomes: &[Outcome]) -> Accuracy {
    let mut errors: Vec<f64> = outcomes.iter().map(|outcome| outcome.log.abs().exp()).collect();
    errors.sort_unstable_by(f64::total_cmp);
    let n = errors.len();
    if n == 0 {
        return Accuracy::default();
    }
    let quantile = |share: f64| errors[((n as f64 * share).ceil() as usize).clamp(1, n) - 1];
    Accuracy {
        steps: n as u64,
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        coverage: outcomes.iter().filter(|outcome| outcome.within).count() as f64 / n as f64,
    }
}

/// Share of outcomes that an interval is to hold.
const HELD: f64 = 0.9;

/// Fewest outcomes that an interval is made from.
const FEWEST: usize = 10;

/// Half the width of an interval in logarithms that holds 90 % of outcomes to come, if they are like these: the split-conformal quantile
/// of Lei et al., *Distribution-free predictive inference for regression* (JASA 2018). None where there are too few.
pub(super) fn conformal(outcomes: &[Outcome]) -> Option<f64> {
    if outcomes.len() < FEWEST {
        return None;
    }
    let mut errors: Vec<f64> = outcomes.iter().map(|outcome| outcome.log.abs()).collect();
    errors.sort_unstable_by(f64::total_cmp);
    let rank = ((errors.len() + 1) as f64 * HELD).ceil() as usize;
    errors.get(rank.clamp(1, errors.len()) - 1).copied()
}

/// CPU time in micro-seconds that is lost by picking plans with `model`, over all steps that have run with more than one plan: each plan by
/// its last run.
pub(super) fn choice_regret(model: &dyn CostModel, samples: &[&Sample]) -> f64 {
    let mut steps: BTreeMap<&str, BTreeMap<u64, &Sample>> = BTreeMap::new();
    for sample in samples {
        if let Some(key) = sample.features.key() {
            let plans = steps.entry(&sample.step).or_default();
            let last = plans.entry(key).or_insert(sample);
            if last.at_us <= sample.at_us {
                *last = sample;
            }
        }
    }
    let mut regret = 0.0;
    for plans in steps.values().filter(|plans| plans.len() > 1) {
        let picked = plans
            .values()
            .min_by(|a, b| model.predict(&a.features).cpu_us.total_cmp(&model.predict(&b.features).cpu_us));
        let best = plans.values().map(|sample| sample.cpu_us).fold(f64::INFINITY, f64::min);
        regret += picked.map_or(0.0, |picked| picked.cpu_us - best);
    }
    regret
}
