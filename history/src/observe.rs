//! From the record of a run to its observations.

use chrono::{DateTime, SubsecRound, Utc};

use crate::evidence::Subplan;
use crate::record::{Fingerprint, NodeRecord, Observation, PlanRecord, RunRecord};

/// An observation with what it is filed under.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The subplan.
    pub subplan: Subplan,
    /// What was measured.
    pub observation: Observation,
}

/// What a run teaches: one observation for each operator that has a fingerprint and counted its rows, in the order of the record.
///
/// `data_version` is the hash over *all* sources of the run. A node's record does not say which sources lie below it, so a change
/// in any of them counts as a change: an observation is then taken for less near than it is, never for nearer. Times are cut to
/// micro-seconds.
pub fn observations_of(record: &RunRecord) -> Vec<Observed> {
    let data_version = record.data_version();
    let plans = record.steps.iter().filter_map(|step| step.plan.as_ref());
    let of_plan = |plan: &PlanRecord| {
        let nodes = plan.nodes.iter().zip(rows_in(plan));
        let observed = nodes.filter_map(|(node, rows_in)| observation_of(record, data_version, node, rows_in));
        observed.collect::<Vec<_>>()
    };
    plans.flat_map(of_plan).collect()
}

/// What `node` of a plan in `record` teaches, whose children gave `rows_in`.
pub(crate) fn observation_of(
    record: &RunRecord,
    data_version: Fingerprint,
    node: &NodeRecord,
    rows_in: Option<u64>,
) -> Option<Observed> {
    let (fingerprint, rows) = (node.fingerprint?, node.rows?);
    let observation = Observation {
        run: record.id.clone(),
        at: micros(record.started_at),
        environment: record.environment.clone(),
        operator: node.operator.clone(),
        rows_in: rows_in.unwrap_or(rows),
        rows,
        bytes: node.bytes,
        elapsed_us: node.elapsed_us,
        peak_memory_bytes: node.peak_memory_bytes,
        spilled_bytes: node.spilled_bytes,
        partitions: u32::try_from(node.partitions.len().max(1)).unwrap_or(u32::MAX),
        skew: node.skew(),
        completeness: node.completeness.clone(),
        data_version,
    };
    Some(Observed { subplan: Subplan { fingerprint, template: node.template }, observation })
}

/// Per node the rows of its children; none for a leaf.
pub(crate) fn rows_in(plan: &PlanRecord) -> Vec<Option<u64>> {
    let mut sums = vec![None; plan.nodes.len()];
    for node in &plan.nodes {
        let parent = node.parent.and_then(|at| sums.get_mut(at as usize));
        if let Some(sum) = parent {
            *sum = Some(sum.unwrap_or(0u64).saturating_add(node.rows.unwrap_or(0)));
        }
    }
    sums
}

/// A time as the store keeps it.
pub(crate) fn micros(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(6)
}
