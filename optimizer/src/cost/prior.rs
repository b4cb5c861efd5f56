//! The prior: the model that this build ships, for a state folder that has run nothing yet.
//!
//! `prior.json` is made by `sparklet-harness train-prior` from generated schemas, data and queries; it holds no operator's own past.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use linfa::dataset::DatasetBase;
use linfa::traits::Fit;
use ndarray::{Array1, Array2};
use sparklet_history::OperatorClass;

use super::ModelVersion;
use super::analytic::{Coefficients, LEAST_US, TERMS, terms};
use super::judge::{accuracy, conformal, outcomes};
use super::model::{Learner, MODEL_FORMAT, Model, Provenance, Spreads};
use super::sample::Sample;
use super::train::{center, weight};
use super::trees::{TreeParams, rounded};
use super::vector::{FEATURES, vector};

static PRIOR: LazyLock<Model> = LazyLock::new(|| {
    Model::from_json(include_bytes!("prior.json")).unwrap_or_else(|error| {
        // A test reads it, so that only a changed build gets here.
        debug_assert!(false, "the prior cannot be read: {error}");
        untrained()
    })
});

/// The model that this build ships.
pub fn prior() -> &'static Model {
    &PRIOR
}

/// Coefficients of the right order of magnitude, nothing learned.
pub fn untrained() -> Model {
    Model {
        format: MODEL_FORMAT,
        version: ModelVersion::Analytic,
        provenance: Provenance::default(),
        coefficients: Coefficients::default(),
        learners: Vec::new(),
        speed: 0.0,
        trust: 0.25,
        spreads: Spreads { known: 0.5, unknown: 1.1 },
        past: Vec::new(),
    }
}

/// A prior from `samples`; `apart` are of other schemas and queries, and set its intervals. `number` and `datafusion` name it.
pub fn fit_prior(samples: &[Sample], apart: &[Sample], number: u32, datafusion: &str) -> Model {
    let samples: Vec<&Sample> = samples.iter().collect();
    let apart: Vec<&Sample> = apart.iter().collect();
    let mut model = Model { coefficients: fit_coefficients(&samples), ..untrained() };
    center(&mut model, &samples);
    if let Some(trees) = fit_trees(&model, &samples) {
        model.learners.push(trees);
        center(&mut model, &samples);
    }
    let unknown = outcomes(&model, &apart);
    model.spreads.unknown = conformal(&unknown).unwrap_or(model.spreads.unknown);
    // A step that is known comes closer; how much is for each history to find out.
    model.spreads.known = (model.spreads.unknown / 2.0).min(0.5);
    model.speed = f64::from(rounded(model.speed));
    model.spreads.unknown = f64::from(rounded(model.spreads.unknown));
    model.version = ModelVersion::Prior { number };
    model.provenance = Provenance {
        runs: samples.len() as u64,
        steps: samples.len() as u64,
        operators: samples.iter().map(|sample| sample.per_operator.len() as u64).sum(),
        through_us: 0,
        datafusion: datafusion.to_owned(),
        unknown: accuracy(&outcomes(&model, &apart)),
        ..Provenance::default()
    };
    model
}

fn fit_trees(model: &Model, samples: &[&Sample]) -> Option<Learner> {
    let rows: usize = samples.iter().map(|sample| sample.per_operator.len()).sum();
    let mut x = Array2::<f32>::zeros((rows, FEATURES));
    let mut y = Array1::<f32>::zeros(rows);
    let mut weights = Array1::<f32>::zeros(rows);
    let mut row = 0;
    for sample in samples {
        for (operator, cost) in sample.features.operators.iter().zip(&sample.per_operator) {
            let base = model.coefficients.cost(operator);
            for (to, from) in x.row_mut(row).iter_mut().zip(vector(operator, base, sample.features.slots)) {
                *to = from;
            }
            let missing = cost.max(LEAST_US).ln() - base.ln() - model.speed;
            y[row] = missing.clamp(-3.0, 3.0) as f32;
            weights[row] = weight(*cost, sample.cpu_us);
            row += 1;
        }
    }
    let params = TreeParams { trees: 60, shrinkage: 8.0, ..TreeParams::default() };
    params.fit(&DatasetBase::new(x, y).with_weights(weights)).ok().map(Learner::Trees)
}

/// Coefficients of 0 and above that are closest to what operators took, in relative terms; where little was measured they stay near the
/// default.
fn fit_coefficients(samples: &[&Sample]) -> Coefficients {
    let mut coefficients = Coefficients::default();
    // Relative to what was measured, too little is the cheaper mistake; relative to what was said the last time, too much is. The mean of
    // both is fair.
    for pass in 0..4 {
        let mut by_class: BTreeMap<OperatorClass, Vec<([f64; TERMS], f64)>> = BTreeMap::new();
        for sample in samples {
            for (operator, cost) in sample.features.operators.iter().zip(&sample.per_operator) {
                let said = if pass == 0 { *cost } else { coefficients.cost(operator) };
                // What is cheap beside its step may be wrong by any factor.
                let unit = 0.5 * (cost + said) + 20.0 + 0.003 * sample.cpu_us;
                let row = terms(operator).map(|term| term / unit);
                by_class.entry(operator.shape.class).or_default().push((row, cost / unit));
            }
        }
        let start = Coefficients::default();
        for (class, rows) in by_class {
            let number = class as usize;
            if let (Some(of_class), Some(start)) = (coefficients.0.get_mut(number), start.0.get(number)) {
                *of_class = least_squares(&rows, *start).map(|coefficient| f64::from(rounded(coefficient)));
            }
        }
    }
    coefficients
}

/// Coordinate descent with coefficients of 0 and above, drawn towards `start` with the weight of a few rows.
fn least_squares(rows: &[([f64; TERMS], f64)], start: [f64; TERMS]) -> [f64; TERMS] {
    const DRAWN: f64 = 3.0;
    const SWEEPS: usize = 400;
    let n = rows.len().max(1) as f64;
    let squares: [f64; TERMS] = std::array::from_fn(|j| rows.iter().map(|(row, _)| row[j] * row[j]).sum());
    let mut current = start;
    let mut left: Vec<f64> =
        rows.iter().map(|(row, y)| y - row.iter().zip(&current).map(|(t, c)| t * c).sum::<f64>()).collect();
    for _ in 0..SWEEPS {
        let mut moved = 0.0_f64;
        for j in 0..TERMS {
            if squares[j] <= 0.0 {
                continue;
            }
            let drawn = DRAWN * squares[j] / n;
            let gradient: f64 = rows.iter().zip(&left).map(|((row, _), left)| row[j] * left).sum();
            let step = (gradient + drawn * (start[j] - current[j])) / (squares[j] + drawn);
            let next = (current[j] + step).max(0.0);
            let change = next - current[j];
            if change != 0.0 {
                rows.iter().zip(&mut left).for_each(|((row, _), left)| *left -= change * row[j]);
                current[j] = next;
                moved = moved.max(change.abs() * (squares[j] / n).sqrt());
            }
        }
        if moved < 1e-6 {
            break;
        }
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_prior_can_be_read() {
        let model = Model::from_json(include_bytes!("prior.json")).unwrap();
        assert_eq!(model, Model::from_json(&model.to_json().unwrap()).unwrap());
        assert!(include_bytes!("prior.json").len() < 100_000, "it is part of every binary");
    }

    #[test]
    fn coefficients_are_found_and_never_negative() {
        let rows: Vec<_> = (1..200)
            .map(|i| {
                let mut row = [0.0; TERMS];
                row[1] = f64::from(i % 17) / 20.0;
                row[2] = f64::from(i % 5) / 5.0;
                row[3] = f64::from(i % 7) / 7.0;
                (row, 0.5 * row[1] + 2.0 * row[2] - 0.1 * row[3])
            })
            .collect();
        let found = least_squares(&rows, [0.0; TERMS]);
        assert!((found[1] - 0.5).abs() < 0.2 && (found[2] - 2.0).abs() < 0.2, "{found:?}");
        assert_eq!(found[3], 0.0);
    }
}
