//! How well models would have predicted: each run by a model of the runs before it, and each step by one that has never seen it.

use std::collections::{BTreeMap, BTreeSet};

use super::judge::{Outcome, accuracy, outcomes};
use super::model::{Accuracy, Model};
use super::sample::Sample;
use super::train::train;

/// Runs that are predicted at the most, the last ones: each needs a model of its own.
const MOST_RUNS: usize = 8;

/// Parts that the steps are divided into; each part is predicted by a model of the others.
const PARTS: usize = 5;

/// What models would have said of a history.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// By run, its start in micro-seconds since 1970 and how well a model of the runs before it predicts it.
    pub runs: Vec<(i64, Accuracy)>,
    /// All of these runs.
    pub recurring: Accuracy,
    /// Steps that the model has not seen, nor any like them.
    pub unseen: Accuracy,
    /// The same steps by the prior alone.
    pub prior: Accuracy,
}

/// Replays a history, at the rows that came. Runs are predicted from the third on.
pub fn evaluate(samples: &[Sample], prior: &Model, datafusion: &str) -> Evaluation {
    let starts: BTreeSet<i64> = samples.iter().map(|sample| sample.at_us).collect();
    let later: Vec<i64> = starts.iter().copied().skip(2).collect();
    let mut evaluation = Evaluation::default();
    let mut recurring: Vec<Outcome> = Vec::new();
    for at in later.into_iter().rev().take(MOST_RUNS).rev() {
        let before: Vec<Sample> = samples.iter().filter(|sample| sample.at_us < at).cloned().collect();
        let of_run: Vec<&Sample> = samples.iter().filter(|sample| sample.at_us == at).collect();
        let Some(training) = train(&before, prior, prior, datafusion) else { continue };
        let known: BTreeSet<&str> = before.iter().map(|sample| sample.step.as_str()).collect();
        let again: Vec<&Sample> = of_run.into_iter().filter(|sample| known.contains(sample.step.as_str())).collect();
        let of_run = outcomes(&training.model, &again);
        evaluation.runs.push((at, accuracy(&of_run)));
        recurring.extend(of_run);
    }
    evaluation.recurring = accuracy(&recurring);
    let mut steps: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in samples {
        let next = steps.len();
        steps.entry(&sample.step).or_insert(next);
    }
    // By their order of names, not by that of the runs: neighbours in a pipeline may be alike.
    for (number, part) in steps.values_mut().enumerate() {
        *part = number % PARTS;
    }
    let (mut unseen, mut by_prior) = (Vec::new(), Vec::new());
    for part in 0..PARTS.min(steps.len()) {
        let in_part = |sample: &Sample| steps.get(sample.step.as_str()) == Some(&part);
        let others: Vec<Sample> = samples.iter().filter(|sample| !in_part(sample)).cloned().collect();
        // Past of operators that the others share with it is past all the same, and would be there for a new query too.
        let of_part: Vec<&Sample> = samples.iter().filter(|sample| in_part(sample)).collect();
        by_prior.extend(outcomes(prior, &of_part));
        if let Some(training) = train(&others, prior, prior, datafusion) {
            unseen.extend(outcomes(&training.model, &of_part));
        }
    }
    evaluation.unseen = accuracy(&unseen);
    evaluation.prior = accuracy(&by_prior);
    evaluation
}
