//! Training on histories whose costs follow a law that the prior does not know.

use sparklet_history::{Fingerprint, OperatorClass, OperatorShape, PlanRecord};

use super::super::features::recorded;
use super::*;

/// Numbers that look drawn, the same in every run.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const CLASSES: [OperatorClass; 5] = [
    OperatorClass::ParquetScan,
    OperatorClass::Filter,
    OperatorClass::BroadcastJoin,
    OperatorClass::PartialAggregate,
    OperatorClass::Sort,
];

/// A step of `run`: the same operators in every run, other rows, and costs that are `factor` of what the prior says, with noise.
fn sample(step: u64, run: u64, factor: impl Fn(&OperatorFeatures) -> f64) -> Sample {
    let (mut form, mut noise) = (Noise(step * 7919 + 1), Noise(step * 31 + run * 101 + 5));
    let nodes = (0..6_u32).map(|i| {
        let class = CLASSES[(form.uniform() * 5.0) as usize];
        let rows = (form.uniform() * 12.0).exp2() * 1000.0 * (0.8 + 0.4 * noise.uniform());
        serde_json::json!({
            "parent": (i > 0).then(|| i - 1), "operator": class.name(), "detail": "",
            "fingerprint": null, "template": Fingerprint::of(&format!("{step} {i}")),
            "completeness": "complete", "estimated_rows": null, "rows": rows as u64, "bytes": null, "elapsed_us": 0,
            "spill_count": 0, "spilled_bytes": 0, "peak_memory_bytes": null, "partitions": [], "metrics": {},
            "shape": OperatorShape { class, columns: 3, width: 24.0, keys: 1, key_width: 8.0, functions: 2, partitions: 2, ..OperatorShape::default() },
        })
    });
    let plan: PlanRecord = serde_json::from_value(serde_json::json!({ "nodes": nodes.collect::<Vec<_>>() })).unwrap();
    let features = recorded(&plan, 2).unwrap();
    let said = prior().predict(&features).per_operator;
    let per_operator: Vec<f64> = said
        .iter()
        .zip(&features.operators)
        .map(|(said, operator)| said * factor(operator) * (0.95 + 0.1 * noise.uniform()))
        .collect();
    let cpu_us = per_operator.iter().sum();
    Sample { features, cpu_us, per_operator, at_us: run as i64 * 1_000_000, step: format!("step {step}") }
}

fn history(runs: u64, factor: impl Fn(&OperatorFeatures) -> f64 + Copy) -> Vec<Sample> {
    (1..=runs).flat_map(|run| (0..20).map(move |step| sample(step, run, factor))).collect()
}

/// Joins cost three times what the prior says, and four times as much again beyond half a million rows.
fn law(operator: &OperatorFeatures) -> f64 {
    let large = if operator.rows_in[0] > 5e5 { 4.0 } else { 1.0 };
    if operator.shape.class == OperatorClass::BroadcastJoin { 3.0 * large } else { 1.0 }
}

#[test]
fn what_comes_again_is_predicted_and_so_is_what_was_not_seen() {
    let samples = history(4, law);
    let training = train(&samples, prior(), prior(), "test").unwrap();
    assert_eq!(training.verdict, Verdict::Serves);
    assert!(training.challenger.p50 < training.champion.p50);
    let later: Vec<Sample> = (0..20).map(|step| sample(step, 9, law)).collect();
    let again = accuracy(&outcomes(&training.model, &later.iter().collect::<Vec<_>>()));
    assert!(again.p50 < 1.1 && again.p90 < 1.3, "{again:?}");
    let others: Vec<Sample> = (100..140).map(|step| sample(step, 9, law)).collect();
    let others: Vec<&Sample> = others.iter().collect();
    let (new, old) = (accuracy(&outcomes(&training.model, &others)), accuracy(&outcomes(&prior().clone(), &others)));
    assert!(new.p50 < old.p50, "{new:?} {old:?}");
}

#[test]
fn the_same_history_gives_the_same_model_whatever_its_order() {
    let samples = history(3, law);
    let mut turned = samples.clone();
    turned.reverse();
    let (a, b) =
        (train(&samples, prior(), prior(), "test").unwrap(), train(&turned, prior(), prior(), "test").unwrap());
    assert_eq!(a.model.to_json().unwrap(), b.model.to_json().unwrap());
    let read = Model::from_json(&a.model.to_json().unwrap()).unwrap();
    assert_eq!(read.predict(&samples[0].features), a.model.predict(&samples[0].features));
}

#[test]
fn a_model_of_another_time_does_not_replace_a_better_one() {
    let champion = train(&history(4, law), prior(), prior(), "test").unwrap().model;
    // One run of an odd machine, then a run as before.
    let mut samples: Vec<Sample> = (0..20).map(|step| sample(step, 5, |_| 40.0)).collect();
    samples.extend((0..20).map(|step| sample(step, 6, law)));
    assert_eq!(train(&samples, prior(), &champion, "test").unwrap().verdict, Verdict::PredictsWorse);
}

#[test]
fn too_little_is_not_learned_from_and_other_formats_are_told() {
    assert!(train(&[], prior(), prior(), "test").is_none());
    assert!(train(&[sample(1, 1, law)], prior(), prior(), "test").is_none());
    let json = String::from_utf8(prior().to_json().unwrap()).unwrap();
    let other = json.replacen("\"format\":1", "\"format\":9", 1);
    assert_eq!(Model::from_json(other.as_bytes()), Err(ModelError::OtherFormat(9)));
    assert!(matches!(Model::from_json(&json.as_bytes()[..json.len() / 2]), Err(ModelError::Damaged(_))));
    let hostile = json.replacen("\"trust\":0.25", "\"trust\":-1.0", 1);
    assert!(matches!(Model::from_json(hostile.as_bytes()), Err(ModelError::Damaged(_))));
}

#[test]
fn replaying_a_history_shows_coverage() {
    let evaluation = evaluate(&history(5, law), prior(), "test");
    assert_eq!(evaluation.runs.len(), 3);
    assert!(evaluation.recurring.p50 < 1.1 && evaluation.recurring.coverage > 0.7, "{:?}", evaluation.recurring);
    assert_eq!(evaluation.unseen.steps, 100);
}
