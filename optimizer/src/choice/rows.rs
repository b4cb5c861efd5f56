//! Rows of the operators of a physical plan, from what was observed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::statistics::StatisticsContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, StatisticsArgs};
use sparklet_history::{Evidence, Fingerprint, Observation, RunId, Scope, Subplan};

use crate::cardinality::{Cardinalities, Estimate, EstimateSource};
use crate::fingerprint::PhysicalFingerprints;

/// Observations of a subplan that are looked at.
const LOOKED_AT: usize = 8;

/// A number of rows, with an interval of about 90 %.
#[derive(Debug, Clone, PartialEq)]
pub struct RowEstimate {
    /// Expected rows.
    pub rows: f64,
    /// Low end.
    pub low: f64,
    /// High end.
    pub high: f64,
    /// The subplan itself was observed in full, over whatever volume.
    pub observed: bool,
}

impl From<Estimate> for RowEstimate {
    fn from(of: Estimate) -> Self {
        Self { rows: of.rows, low: of.low, high: of.high, observed: of.source != EstimateSource::Fallback }
    }
}

impl RowEstimate {
    fn within(rows: f64, factor: f64, observed: bool) -> Self {
        Self { rows, low: rows / factor, high: rows * factor, observed }
    }
}

/// What is known of the rows of subplans.
pub struct Known<'a> {
    cardinalities: Cardinalities<'a>,
    /// What was put together for subplans that were not observed themselves.
    composed: HashMap<Fingerprint, RowEstimate>,
}

/// What was known when only `runs` were.
pub struct Then<'a> {
    /// All that is known now.
    pub evidence: &'a dyn Evidence,
    /// The runs.
    pub runs: HashSet<RunId>,
}

impl Evidence for Then<'_> {
    fn by_fingerprint(&self, scope: Scope<'_>, subplan: &Subplan, limit: usize) -> Vec<Observation> {
        let mut seen = self.evidence.by_fingerprint(scope, subplan, limit.saturating_mul(LOOKED_AT));
        seen.retain(|observation| self.runs.contains(&observation.run));
        seen.truncate(limit);
        seen
    }

    fn by_template(&self, scope: Scope<'_>, template: &Fingerprint, limit: usize) -> Vec<(Fingerprint, Observation)> {
        let mut seen = self.evidence.by_template(scope, template, limit.saturating_mul(LOOKED_AT));
        seen.retain(|(_, observation)| self.runs.contains(&observation.run));
        seen.truncate(limit);
        seen
    }
}

impl<'a> Known<'a> {
    /// What `cardinalities` tell.
    pub fn new(cardinalities: Cardinalities<'a>) -> Self {
        Self { cardinalities, composed: HashMap::new() }
    }

    /// What it goes by.
    pub fn cardinalities(&self) -> &Cardinalities<'a> {
        &self.cardinalities
    }

    /// Adds what is put together for the subplans of `logical`, which should be optimised.
    pub fn compose(&mut self, logical: &LogicalPlan) {
        let fingerprints = self.cardinalities.named(logical);
        for (identity, estimate) in fingerprints.nodes.iter().zip(self.cardinalities.of_plan(logical)) {
            let Some(identity) = identity else { continue };
            self.composed.entry(identity.fingerprint).or_insert_with(|| RowEstimate::from(estimate));
        }
    }

    /// What was put together, for later: by subplan.
    pub fn into_composed(self) -> HashMap<Fingerprint, RowEstimate> {
        self.composed
    }

    /// With what was put together before.
    #[must_use]
    pub fn with(self, composed: HashMap<Fingerprint, RowEstimate>) -> Self {
        Self { composed, ..self }
    }

    /// For each node of `plan` in pre-order; where nothing was observed, DataFusion's own estimate with a wide interval, or none.
    pub fn of_plan(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        fingerprints: &PhysicalFingerprints,
    ) -> Vec<Option<RowEstimate>> {
        self.cardinalities.reading(fingerprints);
        let mut estimates = Vec::new();
        let mut counted = Vec::new();
        let statistics = StatisticsContext::new();
        let mut visit = |node: &Arc<dyn ExecutionPlan>, at: usize| {
            let identity = fingerprints.nodes.get(at).copied().flatten();
            let known = identity.and_then(|identity| {
                let observed = self.cardinalities.of_subplan(&identity).map(RowEstimate::from);
                observed.or_else(|| self.composed.get(&identity.fingerprint).cloned())
            });
            counted.push(known.is_some());
            estimates.push(known.or_else(|| by_statistics(node, &statistics)));
        };
        for_each_node(plan, &mut 0, &mut visit);
        states(plan, &mut 0, None, &mut estimates, &counted);
        estimates
    }
}

/// Rows of partial aggregates, and of what moves them, where no run `counted` them: no more than the groups that the final one makes of them, in
/// each partition. DataFusion expects as many rows as go in.
fn states(
    plan: &Arc<dyn ExecutionPlan>,
    at: &mut usize,
    groups: Option<&RowEstimate>,
    estimates: &mut [Option<RowEstimate>],
    counted: &[bool],
) {
    let own = *at;
    *at += 1;
    let aggregate = plan.downcast_ref::<AggregateExec>();
    let is_final =
        aggregate.is_some_and(|of| matches!(of.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned));
    let children = plan.children();
    let below = match (is_final, groups, children.as_slice()) {
        (true, ..) => estimates.get(own).cloned().flatten(),
        // Moved, not computed.
        (false, Some(groups), [_]) if aggregate.is_none() => Some(groups.clone()),
        _ => None,
    };
    let first = *at;
    for child in &children {
        states(child, at, below.as_ref(), estimates, counted);
    }
    let (Some(groups), Some(input)) = (groups, estimates.get(first).cloned().flatten()) else { return };
    let estimate = match (aggregate, children.as_slice()) {
        (None, [_]) => input,
        (Some(partial), [child]) if *partial.mode() == AggregateMode::Partial => {
            let sets = partial.group_expr().groups().len().max(1) as f64;
            let partitions = child.output_partitioning().partition_count() as f64;
            RowEstimate {
                rows: (input.rows * sets).min(groups.rows * partitions),
                low: (input.low * sets).min(groups.low),
                high: (input.high * sets).min(groups.high * partitions),
                observed: false,
            }
        }
        _ => return,
    };
    if let Some(known) = estimates.get_mut(own).filter(|_| counted.get(own) != Some(&true)) {
        *known = Some(estimate);
    }
}

/// DataFusion's own estimate of the rows of `node`; `statistics` keeps what was worked out for other nodes of the same plan.
pub fn by_statistics(node: &Arc<dyn ExecutionPlan>, statistics: &StatisticsContext) -> Option<RowEstimate> {
    let computed = statistics.compute(node.as_ref(), &StatisticsArgs::new()).ok()?;
    let rows = *computed.num_rows.get_value()? as f64;
    let factor = if node.children().is_empty() { 1.2 } else { 10.0 };
    Some(RowEstimate::within(rows, factor, false))
}

/// Calls `visit` for each node of a plan in pre-order with its number.
pub fn for_each_node(
    plan: &Arc<dyn ExecutionPlan>,
    at: &mut usize,
    visit: &mut dyn FnMut(&Arc<dyn ExecutionPlan>, usize),
) {
    let own = *at;
    *at += 1;
    visit(plan, own);
    for child in plan.children() {
        for_each_node(child, at, visit);
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    #[tokio::test]
    async fn a_partial_aggregate_gives_no_more_than_the_groups_of_each_partition() {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(4));
        context
            .sql("CREATE TABLE t AS SELECT value % 7 AS k FROM range(10000)")
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        let plan = context.sql("SELECT k, count(*) FROM t GROUP BY k").await.unwrap();
        let plan = plan.create_physical_plan().await.unwrap();
        let mut estimates = Vec::new();
        let mut modes = Vec::new();
        for_each_node(&plan, &mut 0, &mut |node, _| {
            let mode = node.downcast_ref::<AggregateExec>().map(|aggregate| *aggregate.mode());
            let groups = mode.is_some_and(|mode| mode == AggregateMode::FinalPartitioned);
            estimates.push(Some(RowEstimate::within(if groups { 7.0 } else { 10_000.0 }, 1.0, groups)));
            modes.push(mode);
        });
        states(&plan, &mut 0, None, &mut estimates, &[]);
        let at = modes.iter().position(|mode| *mode == Some(AggregateMode::Partial)).unwrap();
        let partial = estimates[at].as_ref().unwrap();
        assert!(partial.rows > 6.0 && partial.rows <= 28.0, "{partial:?}");
        // What moves the groups has as many; what goes in stays as it was.
        assert_eq!(estimates[at - 1].as_ref().map(|e| e.rows), Some(partial.rows));
        assert_eq!(estimates.last().unwrap().as_ref().map(|e| e.rows), Some(10_000.0));
    }
}
