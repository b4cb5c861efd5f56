//! Training: from samples to a model, judged on runs that it has not seen.

use std::collections::{BTreeMap, BTreeSet};

use linfa::dataset::DatasetBase;
use linfa::traits::Fit;
use ndarray::{Array1, Array2};

use super::analytic::LEAST_US;
use super::judge::{Outcome, accuracy, choice_regret, conformal, outcomes};
use super::linear::Linear;
use super::model::{Accuracy, Learner, MODEL_FORMAT, Model, Past, Provenance};
use super::sample::Sample;
use super::trees::TreeParams;
use super::vector::{FEATURES, vector};
use super::{CostModel, ModelVersion};

/// Operators that learners are fitted to, the newest first.
pub const MOST_OPERATORS: usize = 10_000;

/// Operators whose own past is kept.
const MOST_PAST: usize = 40_000;

/// Weight of a run's observation for each newer one of the same operator.
const FADING: f32 = 0.7;

/// Values of [`Model::trust`] that are tried.
const TRUSTS: [f64; 4] = [0.05, 0.25, 1.0, 4.0];

/// Fewest operators that something is learned from.
const FEWEST_OPERATORS: usize = 30;

/// What training came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// The new model, whatever was decided about it.
    pub model: Model,
    /// Whether it serves from now on.
    pub verdict: Verdict,
    /// The one that has served, on the same runs.
    pub champion: Accuracy,
    /// The new one, trained without these runs.
    pub challenger: Accuracy,
}

/// Whether a new model serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is no worse.
    Serves,
    /// It predicts worse on the runs that neither has seen.
    PredictsWorse,
    /// It would have picked worse plans.
    ChoosesWorse,
}

/// A model of `samples` on top of `prior`, judged against `champion`, which has served so far; none where there is nothing to learn from.
/// `datafusion` is the version that ran them. The same samples give the same model.
pub fn train(samples: &[Sample], prior: &Model, champion: &Model, datafusion: &str) -> Option<Training> {
    let mut samples: Vec<&Sample> = samples.iter().collect();
    samples.sort_by_key(|sample| (sample.at_us, sample.step.clone()));
    let operators: usize = samples.iter().map(|sample| sample.per_operator.len()).sum();
    if operators < FEWEST_OPERATORS {
        return None;
    }
    let split = Split::of(&samples);
    let (kind, trust) = choose(&split, prior);
    let tried = with_past(fit(&split.train, prior, kind), &split.train, trust);
    let known = outcomes(&tried, &split.later);
    let unknown = outcomes(&tried, &split.apart);
    let spreads = super::model::Spreads {
        known: conformal(&known).unwrap_or(prior.spreads.known),
        unknown: conformal(&unknown).unwrap_or(prior.spreads.unknown),
    };
    // Half of the outcomes set the interval, the other half checks it.
    let of_known = checked(&known);
    let of_unknown = checked(&unknown);

    let unseen: Vec<&Sample> =
        split.later.iter().filter(|s| s.at_us > champion.provenance.through_us).copied().collect();
    let (before, after) = (outcomes(champion, &unseen), outcomes(&tried, &unseen));
    let verdict = judge(champion, &tried, &before, &after, &samples);

    let runs: BTreeSet<i64> = samples.iter().map(|sample| sample.at_us).collect();
    let model = Model {
        format: MODEL_FORMAT,
        version: ModelVersion::Trained { number: 0, hash: String::new() },
        provenance: Provenance {
            runs: runs.len() as u64,
            steps: samples.len() as u64,
            operators: operators.min(MOST_OPERATORS) as u64,
            through_us: samples.last().map_or(0, |sample| sample.at_us),
            datafusion: datafusion.to_owned(),
            known: of_known,
            unknown: of_unknown,
        },
        spreads,
        ..with_past(fit(&samples, prior, kind), &samples, trust)
    };
    Some(Training { model, verdict, champion: accuracy(&before), challenger: accuracy(&after) })
}

/// No worse, within what a few steps can tell.
fn judge(champion: &Model, tried: &Model, before: &[Outcome], after: &[Outcome], samples: &[&Sample]) -> Verdict {
    let (old, new) = (accuracy(before), accuracy(after));
    if old.steps > 0 && (new.p50 > old.p50 * 1.03 + 0.01 || new.p90 > old.p90 * 1.1 + 0.05) {
        return Verdict::PredictsWorse;
    }
    let (regret, other) = (choice_regret(champion, samples), choice_regret(tried, samples));
    if other > regret * 1.05 + 1000.0 { Verdict::ChoosesWorse } else { Verdict::Serves }
}

/// Samples to learn from, and two kinds to judge by.
struct Split<'a> {
    train: Vec<&'a Sample>,
    /// Of later runs.
    later: Vec<&'a Sample>,
    /// Of steps that none of `train` is of.
    apart: Vec<&'a Sample>,
}

impl<'a> Split<'a> {
    /// The last fifth of the runs is later, at least one if there are two; a fifth of the steps is apart, if there are five.
    fn of(samples: &[&'a Sample]) -> Self {
        let runs: BTreeSet<i64> = samples.iter().map(|sample| sample.at_us).collect();
        let later = if runs.len() < 2 { 0 } else { runs.len().div_ceil(5) };
        let from = runs.iter().rev().nth(later.wrapping_sub(1)).copied().unwrap_or(i64::MAX);
        let steps: BTreeSet<&str> = samples.iter().map(|sample| sample.step.as_str()).collect();
        let apart: BTreeSet<&str> = match steps.len() {
            ..5 => BTreeSet::new(),
            _ => steps.into_iter().enumerate().filter(|(i, _)| i % 5 == 2).map(|(_, step)| step).collect(),
        };
        let mut split = Self { train: Vec::new(), later: Vec::new(), apart: Vec::new() };
        for &sample in samples {
            if apart.contains(sample.step.as_str()) {
                split.apart.push(sample);
            } else if sample.at_us >= from {
                split.later.push(sample);
            } else {
                split.train.push(sample);
            }
        }
        split
    }
}

/// What is learned on top of the prior.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nothing,
    Linear,
    Trees,
}

/// The better on what was held out, and how far to trust an operator's own past.
fn choose(split: &Split<'_>, prior: &Model) -> (Kind, f64) {
    let mut best: Option<(f64, Kind, f64)> = None;
    for kind in [Kind::Nothing, Kind::Linear, Kind::Trees] {
        let fitted = fit(&split.train, prior, kind);
        let unknown = mean_error(&outcomes(&fitted, &split.apart));
        let mut model = with_past(fitted, &split.train, 0.0);
        for trust in TRUSTS {
            model.trust = trust;
            let known = mean_error(&outcomes(&model, &split.later));
            let error = known + unknown;
            // A more complex model has to be better by something.
            if best.is_none_or(|(least, ..)| error < least * 0.99) {
                best = Some((error, kind, trust));
            }
            if split.later.is_empty() {
                // Nothing tells how far to trust it: a quarter of a run, as a rule.
                best = best.map(|(error, kind, _)| (error, kind, 0.25));
                break;
            }
        }
    }
    best.map_or((Kind::Nothing, 0.25), |(_, kind, trust)| (kind, trust))
}

fn mean_error(outcomes: &[Outcome]) -> f64 {
    match outcomes.len() {
        0 => 0.0,
        n => outcomes.iter().map(|outcome| outcome.log.abs()).sum::<f64>() / n as f64,
    }
}

fn checked(outcomes: &[Outcome]) -> Accuracy {
    let part = |odd: usize| -> Vec<Outcome> {
        outcomes.iter().enumerate().filter(|(i, _)| i % 2 == odd).map(|(_, outcome)| *outcome).collect()
    };
    let within = |log: f64, of: &[Outcome]| of.iter().filter(|outcome| outcome.log.abs() <= log).count();
    let (even, odd) = (part(0), part(1));
    let covered = match (conformal(&even), conformal(&odd)) {
        (Some(of_even), Some(of_odd)) => within(of_even, &odd) + within(of_odd, &even),
        // Too few to say.
        _ => return Accuracy { coverage: 0.0, ..accuracy(outcomes) },
    };
    Accuracy { coverage: covered as f64 / outcomes.len().max(1) as f64, ..accuracy(outcomes) }
}

/// The prior with a learner on top, without any operator's own past.
fn fit(samples: &[&Sample], prior: &Model, kind: Kind) -> Model {
    let mut model = Model { past: Vec::new(), ..prior.clone() };
    let newest = newest(samples);
    // How fast the machine is, from whole steps: where little is known, less of it.
    let mut factors: Vec<f64> =
        newest.iter().map(|s| (s.cpu_us / model.predict(&s.features).cpu_us.max(1.0)).ln()).collect();
    factors.sort_unstable_by(f64::total_cmp);
    if let Some(median) = factors.get(factors.len() / 2) {
        let n = factors.len() as f64;
        model.speed += median * n / (n + 4.0);
    }
    let rows: usize = newest.iter().map(|sample| sample.per_operator.len()).sum();
    if kind == Kind::Nothing || rows < FEWEST_OPERATORS {
        return model;
    }
    let mut x = Array2::<f32>::zeros((rows, FEATURES));
    let mut y = Array1::<f32>::zeros(rows);
    let mut weights = Array1::<f32>::zeros(rows);
    let operators = newest.iter().flat_map(|sample| {
        sample.features.operators.iter().zip(&sample.per_operator).map(move |(o, cost)| (*sample, o, *cost))
    });
    for (row, (sample, operator, cost)) in operators.enumerate() {
        let base = model.coefficients.cost(operator);
        for (to, from) in x.row_mut(row).iter_mut().zip(vector(operator, base, sample.features.slots)) {
            *to = from;
        }
        let missing = cost.max(LEAST_US).ln() - model.of_its_like(operator, sample.features.slots);
        y[row] = missing.clamp(-4.0, 4.0) as f32;
        weights[row] = weight(cost, sample.cpu_us);
    }
    let learner = match kind {
        Kind::Nothing => None,
        Kind::Linear => Linear::fit(&x, &y, 0.02).ok().map(Learner::Linear),
        Kind::Trees => {
            // Fewer where there is less to learn from.
            let trees = (rows / 25).clamp(8, 60);
            let params = TreeParams { trees, ..TreeParams::default() };
            params.fit(&DatasetBase::new(x, y).with_weights(weights)).ok().map(Learner::Trees)
        }
    };
    model.learners.extend(learner);
    center(&mut model, &newest);
    model
}

/// Operators count by what they cost of their step: what is cheap may be wrong by any factor.
pub(super) fn weight(cost: f64, of_step: f64) -> f32 {
    (cost / of_step.max(1.0)).sqrt().clamp(0.02, 1.0) as f32
}

/// A sum of medians is not the median of a sum: moves the model so that half of the steps take longer than it says.
pub(super) fn center(model: &mut Model, samples: &[&Sample]) {
    let mut left: Vec<f64> =
        samples.iter().map(|s| (s.cpu_us / model.predict(&s.features).cpu_us.max(1.0)).ln()).collect();
    left.sort_unstable_by(f64::total_cmp);
    model.speed += left.get(left.len() / 2).copied().unwrap_or(0.0);
}

/// The last samples, of [`MOST_OPERATORS`] operators or a few less.
fn newest<'a>(samples: &[&'a Sample]) -> Vec<&'a Sample> {
    let mut left = MOST_OPERATORS;
    let fits = samples.iter().rev().take_while(|sample| {
        let fits = sample.per_operator.len() <= left;
        left = left.saturating_sub(sample.per_operator.len());
        fits
    });
    let mut newest: Vec<&Sample> = fits.copied().collect();
    newest.reverse();
    newest
}

/// The model with what `samples` tell of single operators.
fn with_past(model: Model, samples: &[&Sample], trust: f64) -> Model {
    let mut known: BTreeMap<u64, Past> = BTreeMap::new();
    for sample in samples.iter().rev() {
        let mut of_step: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for (operator, cost) in sample.features.operators.iter().zip(&sample.per_operator) {
            let Some(key) = operator.key else { continue };
            let sums = of_step.entry(key).or_default();
            sums.0 += cost.max(LEAST_US);
            sums.1 += model.of_its_like(operator, sample.features.slots).exp();
        }
        for (key, (took, said)) in of_step {
            if known.len() >= MOST_PAST && !known.contains_key(&key) {
                continue;
            }
            let factor = (took / said.max(LEAST_US)).ln() as f32;
            let past = known.entry(key).or_insert(Past { key, factor: 0.0, runs: 0.0 });
            // The newest comes first: each one more counts less than all before it.
            let weight = FADING.powf(past.runs_seen());
            past.factor = (past.factor * past.runs + factor * weight) / (past.runs + weight);
            past.runs += weight;
        }
    }
    Model { past: known.into_values().collect(), trust, ..model }
}

impl Past {
    /// How many runs the weights of `runs` are of, from the sum of a geometric series.
    fn runs_seen(&self) -> f32 {
        let left = 1.0 - self.runs * (1.0 - FADING);
        if left > 0.01 { left.ln() / FADING.ln() } else { 13.0 }
    }
}
