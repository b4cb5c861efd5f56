//! Stand-in while the optimizer crate is being written.
use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::*;
use std::collections::BTreeMap;
use std::sync::Arc;
#[derive(Debug, Clone, Default)]
pub struct SourceMap;
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    pub fingerprint: Fingerprint,
    pub template: Fingerprint,
}
#[derive(Default)]
pub struct PhysicalFingerprints {
    pub nodes: Vec<Option<Identity>>,
    pub texts: BTreeMap<Fingerprint, String>,
}
pub fn fingerprint_physical(_: &Arc<dyn ExecutionPlan>, _: &SourceMap) -> PhysicalFingerprints {
    PhysicalFingerprints::default()
}
pub fn reductions(_: &Arc<dyn ExecutionPlan>) -> Vec<Vec<Reduction>> {
    Vec::new()
}
pub fn decide_default(_: bool) -> Decision {
    Decision { kind: DecisionKind::DefaultPlan, because: Reason::OnlyCandidate, evidence: vec![], switch: None }
}
