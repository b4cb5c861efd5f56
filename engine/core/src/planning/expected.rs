//! Rows that the operators of a plan are expected to give, for the record of its run.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::Fingerprint;
use sparklet_optimizer::choice::{Known, RowEstimate};
use sparklet_optimizer::{Cardinalities, Learning, PhysicalFingerprints};

use super::past::volumes;
use crate::session::Session;

/// By node in pre-order, from what was known when the query was planned and what was `composed` then; DataFusion's own estimates where that tells
/// nothing of a node. None where the past is not looked at.
pub(crate) fn expected(
    session: &Session,
    plan: &Arc<dyn ExecutionPlan>,
    fingerprints: &PhysicalFingerprints,
    composed: &HashMap<Fingerprint, RowEstimate>,
) -> Option<Vec<Option<u64>>> {
    let nothing_known = !session.has_recalled() && composed.is_empty();
    if session.learning() == Learning::Off || nothing_known {
        return None;
    }
    let recalled = session.recalled();
    let (sources, records) = (session.sources(), session.source_records());
    let cardinalities = Cardinalities::new(recalled.evidence.as_ref(), recalled.scope(), sources.as_ref())
        .at(volumes(&recalled, &records));
    let known = Known::new(cardinalities).with(composed.clone());
    let rows = |estimate: Option<RowEstimate>| Some(estimate?.rows.round().max(0.0) as u64);
    Some(known.of_plan(plan, fingerprints).into_iter().map(rows).collect())
}
