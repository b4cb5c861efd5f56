//! How much there was to do in a run, beside an earlier run of the same step.

use std::collections::HashMap;
use std::sync::Arc;

use sparklet_history::{Completeness, Fingerprint, NodeRecord, PlanRecord, RunRecord, StepRecord};

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
    /// Rows that their topmost operators took, and those of them of which it is known.
    taken: f64,
    taking: usize,
    elapsed_us: f64,
}

impl Subplans {
    /// Rows of one; of several alike one that was not read to its end says nothing of the others. `taken` with those that its operator took.
    fn rows(&self, taken: bool) -> f64 {
        let taken = if taken { self.taken } else { 0.0 };
        ((self.rows + taken) / self.count as f64).max(1.0)
    }

    fn takes(&self) -> bool {
        self.taking == self.count
    }
}

/// By template, literals left out: what both plans have, whatever order their joins run in.
fn subplans(plan: &PlanRecord) -> HashMap<Fingerprint, Subplans> {
    let inputs = only_inputs(plan);
    let mut all: HashMap<Fingerprint, Subplans> = HashMap::new();
    for (node, input) in plan.nodes.iter().zip(inputs).filter(|(node, _)| node.completeness == Completeness::Complete) {
        let (Some(template), Some(rows)) = (node.template, node.rows) else { continue };
        let of_template = all.entry(template).or_default();
        of_template.count += 1;
        of_template.rows += rows as f64;
        if let Some(taken) = input {
            of_template.taken += taken as f64;
            of_template.taking += 1;
        }
        of_template.elapsed_us += node.elapsed_us as f64;
    }
    all
}

/// For each node the rows of its input, if it has one and that is counted in full: what a filter or an aggregate does follows from the rows that it
/// takes. The inputs of a join are others in another order of the joins.
fn only_inputs(plan: &PlanRecord) -> Vec<Option<u64>> {
    let mut inputs: Vec<Option<&NodeRecord>> = vec![None; plan.nodes.len()];
    let mut several = vec![false; plan.nodes.len()];
    for node in &plan.nodes {
        let Some(parent) = node.parent.map(|parent| parent as usize).filter(|&parent| parent < inputs.len()) else {
            continue;
        };
        several[parent] |= inputs[parent].replace(node).is_some();
    }
    let rows = |input: Option<&NodeRecord>| input.filter(|node| node.completeness == Completeness::Complete)?.rows;
    inputs.into_iter().zip(several).map(|(input, several)| rows(input.filter(|_| !several))).collect()
}

/// Rows now ÷ rows before of the subplans that both have, those that their operators take included, weighted by the time they took.
fn quotient(before: &PlanRecord, now: &PlanRecord) -> Option<f64> {
    let now = subplans(now);
    let (mut sum, mut weights, mut all) = (0.0, 0.0, 0.0);
    for (template, before) in subplans(before) {
        all += before.elapsed_us + 1.0;
        let Some(now) = now.get(&template) else { continue };
        let taken = now.takes() && before.takes();
        let weight = before.elapsed_us + 1.0;
        sum += weight * (now.rows(taken) / before.rows(taken)).clamp(0.01, 100.0);
        weights += weight;
    }
    (weights > all * TELLING).then(|| sum / weights)
}

#[cfg(test)]
mod tests {
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

    /// A filter over as many rows has as much to do, though it leaves a tenth of them; not so a join, whose inputs may be others.
    #[test]
    fn the_rows_that_an_operator_takes_count() {
        let filtered = |rows, parents: [Option<u32>; 3]| {
            let mut nodes = vec![
                node(1, rows, 80, Completeness::Complete),
                node(2, 1000, 0, Completeness::Complete),
                node(3, 1000, 0, Completeness::Complete),
            ];
            nodes.iter_mut().zip(parents).for_each(|(node, parent)| node.parent = parent);
            plan(nodes)
        };
        let quotient = |parents| quotient(&filtered(100, parents), &filtered(10, parents)).unwrap();
        let (filter, join) = (quotient([None, Some(0), None]), quotient([None, Some(0), Some(0)]));
        assert!((0.91..0.93).contains(&filter), "{filter}");
        assert!((0.1..0.13).contains(&join), "{join}");
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
