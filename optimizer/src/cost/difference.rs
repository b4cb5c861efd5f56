//! What one plan costs more than another.

use std::collections::HashMap;

use super::features::{OperatorFeatures, PlanFeatures};
use super::{CostModel, Interval, Prediction};

/// Counts that differ by less are the same: cardinalities are estimates.
const SAME: f64 = 0.01;

/// CPU time of `b` less that of `a` in micro-seconds, as a 90 % interval. Operators that both plans have, at the same rows, cancel with all
/// that is uncertain about them; what is left of either plan is taken for independent of the other.
pub fn difference(model: &dyn CostModel, a: &PlanFeatures, b: &PlanFeatures) -> Interval {
    difference_of(model, (a, &model.predict(a)), (b, &model.predict(b)))
}

/// [`difference`] of plans that `model` has predicted.
pub(crate) fn difference_of(
    model: &dyn CostModel,
    (a, of_a): (&PlanFeatures, &Prediction),
    (b, of_b): (&PlanFeatures, &Prediction),
) -> Interval {
    let (only_a, only_b) = unshared(a, b);
    let rest = |prediction: &Prediction, only: &[usize]| -> f64 {
        only.iter().filter_map(|&at| prediction.per_operator.get(at)).sum()
    };
    let (cost_a, cost_b) = (rest(of_a, &only_a), rest(of_b, &only_b));
    let (spread_a, spread_b) = (model.spread(of_a.known), model.spread(of_b.known));
    let middle = cost_b - cost_a;
    // Deviations of independent sums add as their squares do.
    let below = (cost_b * (1.0 - spread_b.low)).hypot(cost_a * (spread_a.high - 1.0));
    let above = (cost_b * (spread_b.high - 1.0)).hypot(cost_a * (1.0 - spread_a.low));
    Interval { low: middle - below, high: middle + above }
}

/// Positions of the operators of each plan that the other does not have.
fn unshared(a: &PlanFeatures, b: &PlanFeatures) -> (Vec<usize>, Vec<usize>) {
    let mut of_b: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, operator) in b.operators.iter().enumerate().rev() {
        if let Some(key) = operator.key {
            of_b.entry(key).or_default().push(at);
        }
    }
    let mut shared = vec![false; b.operators.len()];
    let mut only_a = Vec::new();
    for (at, operator) in a.operators.iter().enumerate() {
        let candidates = operator.key.and_then(|key| of_b.get_mut(&key));
        let twin = candidates.and_then(|candidates| {
            let found = candidates.iter().rposition(|&twin| alike(operator, &b.operators[twin]))?;
            Some(candidates.remove(found))
        });
        match twin {
            Some(twin) => shared[twin] = true,
            None => only_a.push(at),
        }
    }
    let only_b = (0..b.operators.len()).filter(|&at| !shared[at]).collect();
    (only_a, only_b)
}

fn alike(a: &OperatorFeatures, b: &OperatorFeatures) -> bool {
    let same = |x: f64, y: f64| (x - y).abs() <= SAME * x.abs().max(y.abs());
    a.shape == b.shape
        && same(a.rows_out, b.rows_out)
        && same(a.rows_in[0], b.rows_in[0])
        && same(a.rows_in[1], b.rows_in[1])
}
