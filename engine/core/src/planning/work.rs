//! How much there was to do in a run, beside an earlier run of the same step.

use std::collections::HashMap;
use std::sync::Arc;

use sparklet_history::{Completeness, Fingerprint, PlanRecord, RunRecord, StepRecord};

/// Of the time of an earlier run, what subplans take that two runs have to have in common to be compared by them.
const TELLING: f64 = 0.1;

/// Work of a step's first run.
const FIRST: u64 = 1_000_000;

/// An earlier run of a step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Before(Option<(Arc<RunRecord>, usize)>);

impl Before {
    /// The first of `runs` of the step (newest first) of which a plan and its work are known.
    pub(super) fn newest<'a>(runs: impl IntoIterator<Item = (&'a Arc<RunRecord>, &'a StepRecord)>) -> Self {
        let told =
            |step: &StepRecord| step.plan.is_some() && step.choice.as_ref().is_some_and(|choice| choice.work.is_some());
        let place = |(run, step): (&Arc<RunRecord>, &StepRecord)| {
            let at = run.steps.iter().position(|other| std::ptr::eq(other, step))?;
            Some((Arc::clone(run), at))
        };
        Self(runs.into_iter().filter(|(_, step)| told(step)).find_map(place))
    }

    /// Work of the run `ran` ([`sparklet_history::Measured::work`]); none where the two runs have nothing in common to compare.
    pub(crate) fn work(&self, ran: &PlanRecord) -> Option<u64> {
        let Some((run, step)) = &self.0 else { return Some(FIRST) };
        let step = run.steps.get(*step)?;
        let base = step.choice.as_ref()?.work?;
        Some(((base as f64 * quotient(step.plan.as_ref()?, ran)?) as u64).max(1))
    }
}

/// Rows and time of the subplans with one template.
#[derive(Debug, Default)]
struct Subplans {
    count: usize,
    rows: f64,
    elapsed_us: f64,
}

/// By template, literals left out: what both plans have, whatever order their joins run in.
fn subplans(plan: &PlanRecord) -> HashMap<Fingerprint, Subplans> {
    let mut all: HashMap<Fingerprint, Subplans> = HashMap::new();
    for node in plan.nodes.iter().filter(|node| node.completeness == Completeness::Complete) {
        let (Some(template), Some(rows)) = (node.template, node.rows) else { continue };
        let of_template = all.entry(template).or_default();
        of_template.count += 1;
        of_template.rows += rows as f64;
        of_template.elapsed_us += node.elapsed_us as f64;
    }
    all
}

/// Rows now ÷ rows before of the subplans that both have, weighted by the time they took.
fn quotient(before: &PlanRecord, now: &PlanRecord) -> Option<f64> {
    let now = subplans(now);
    let (mut sum, mut weights, mut all) = (0.0, 0.0, 0.0);
    for (template, before) in subplans(before) {
        all += before.elapsed_us + 1.0;
        let Some(now) = now.get(&template) else { continue };
        // One of several alike that was not read to its end says nothing of the others.
        let per = |of: &Subplans| (of.rows / of.count as f64).max(1.0);
        let weight = before.elapsed_us + 1.0;
        sum += weight * (per(now) / per(&before)).clamp(0.01, 100.0);
        weights += weight;
    }
    (weights > all * TELLING).then(|| sum / weights)
}

#[cfg(test)]
mod tests {
    use sparklet_history::NodeRecord;

    use super::*;

    fn node(template: u8, rows: u64, elapsed_us: u64, completeness: Completeness) -> NodeRecord {
        NodeRecord {
            parent: None,
            operator: "FilterExec".to_owned(),
            detail: String::new(),
            fingerprint: None,
            template: Some(Fingerprint([template; 16])),
            completeness,
            estimated_rows: None,
            rows: Some(rows),
            bytes: None,
            elapsed_us,
            spill_count: 0,
            spilled_bytes: 0,
            peak_memory_bytes: None,
            partitions: Vec::new(),
            metrics: Default::default(),
            shape: None,
        }
    }

    fn plan(nodes: Vec<NodeRecord>) -> PlanRecord {
        PlanRecord { nodes }
    }

    #[test]
    fn the_same_rows_are_the_same_work_in_whatever_order() {
        let whole = || Completeness::Complete;
        let before = plan(vec![node(1, 100, 10, whole()), node(2, 50, 90, whole()), node(3, 7, 5, whole())]);
        let other = plan(vec![node(3, 7, 1, whole()), node(9, 1_000_000, 1, whole()), node(1, 100, 3, whole())]);
        assert_eq!(quotient(&before, &other), Some(1.0));
        // What was cut short does not count, neither here nor there.
        let cut = plan(vec![node(1, 3, 1, Completeness::Truncated), node(2, 100, 1, whole())]);
        assert_eq!(quotient(&before, &cut), Some(2.0));
        assert_eq!(quotient(&before, &plan(vec![node(8, 1, 1, whole())])), None);
        // Nor does little of many.
        assert_eq!(quotient(&before, &plan(vec![node(3, 7, 5, whole())])), None);
    }

    #[test]
    fn what_takes_longest_counts_most() {
        let whole = || Completeness::Complete;
        let before = plan(vec![node(1, 100, 999, whole()), node(2, 100, 0, whole())]);
        let now = plan(vec![node(1, 300, 1, whole()), node(2, 100, 1, whole())]);
        let quotient = quotient(&before, &now).unwrap();
        assert!((2.99..3.0).contains(&quotient), "{quotient}");
    }
}
