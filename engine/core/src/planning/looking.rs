//! Plans of a query from what is known of the past.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use sparklet_history::{Evidence, Fingerprint, PlanChange, PlanOutline, RunId, Scope};
use sparklet_optimizer::choice::{Candidate, Known, RowEstimate, rewrite_change, rewriting};
use sparklet_optimizer::{
    Cardinalities, LogicalCandidate, LogicalFingerprints, SourceNames, candidate_like, candidates,
};

use super::arms::{self, Arm};
use super::past::Past;
use crate::session::Session;

/// What plans of one query are made from, beside the evidence.
pub(super) struct Looking<'a> {
    pub(super) session: &'a Session,
    pub(super) state: &'a SessionState,
    pub(super) past: &'a Past<'a>,
    pub(super) scope: Scope<'a>,
    pub(super) sources: Arc<dyn SourceNames>,
    /// Names of the subplans of the query.
    pub(super) names: Arc<LogicalFingerprints>,
    /// Whether a plan has lost before.
    pub(super) refused: &'a (dyn Fn(Fingerprint) -> bool + Sync),
}

/// What was found.
pub(super) struct Arms {
    pub(super) default: Arm,
    pub(super) others: Vec<Arm>,
    /// What was not finished.
    pub(super) left: Vec<Candidate>,
    /// The runs that told of any of them.
    pub(super) runs: Vec<RunId>,
    /// Rows of subplans that never ran.
    pub(super) composed: HashMap<Fingerprint, RowEstimate>,
}

impl Looking<'_> {
    /// What `evidence` tells of `logical` and of the queries that `search` finds in its place; with these.
    fn look<'e>(
        &'e self,
        logical: &LogicalPlan,
        evidence: &'e dyn Evidence,
        search: impl FnOnce(&Cardinalities<'_>) -> Vec<LogicalCandidate>,
    ) -> (Known<'e>, Vec<LogicalCandidate>) {
        let cardinalities = Cardinalities::new(evidence, self.scope, self.sources.as_ref())
            .at(self.past.volumes())
            .naming(logical, Arc::clone(&self.names));
        let mut known = Known::new(cardinalities);
        known.compose(logical);
        let queries = search(known.cardinalities());
        queries.iter().for_each(|query| known.compose(&query.plan));
        (known, queries)
    }

    /// `default` with what `evidence` tells, and the plans beside it that may save `least_us` micro-seconds of CPU time.
    pub(super) async fn arms(&self, default: Arm, evidence: &dyn Evidence, least_us: f64) -> Arms {
        let (known, queries) = self.look(&default.logical, evidence, |cardinalities| {
            let mut queries =
                if least_us.is_finite() { candidates(&default.logical, cardinalities) } else { Vec::new() };
            queries.truncate(arms::MOST_REWRITTEN);
            queries
        });
        let default = default.estimated(&known, self.session);
        let (others, left) = match least_us.is_finite() {
            true => self.search(&known, least_us).others(&default, queries).await,
            false => (Vec::new(), Vec::new()),
        };
        let runs = known.cardinalities().evidence();
        Arms { default, others, left, runs, composed: known.into_composed() }
    }

    /// The plan `wanted` of a rewritten query, which once came of `evidence`, made again; none where it does not come of it any more. What has other
    /// changes is not planned. With what it costs if `costs`, and with the time that a plan of the query takes to make at least.
    pub(super) async fn again(
        &self,
        logical: &LogicalPlan,
        evidence: &dyn Evidence,
        wanted: &PlanOutline,
        costs: bool,
    ) -> Option<(Arm, Duration)> {
        let names = rewrites(&wanted.changes);
        let (known, queries) = self.look(logical, evidence, |cardinalities| {
            candidate_like(logical, cardinalities, rewriting(&wanted.changes), &wanted.orders).into_iter().collect()
        });
        let same = |query: &LogicalCandidate| {
            let changes: Vec<PlanChange> = query.rewrites.iter().map(rewrite_change).collect();
            rewrites(&changes) == names
        };
        let query = queries.into_iter().find(same)?;
        self.search(&known, 0.0).wanted_rewritten(wanted, query, costs).await
    }

    /// The same of a plan that is `default` with other sides of joins, or `default` itself.
    pub(super) fn again_joined(
        &self,
        default: Arm,
        evidence: &dyn Evidence,
        wanted: &PlanOutline,
        costs: bool,
    ) -> Result<Option<Arm>> {
        let made = match wanted.changes.is_empty() {
            true => Some(default.clone().named(self.session)).filter(|arm| Some(arm.key()) == wanted.key),
            false => arms::wanted_joins(self.session, self.state, &default, wanted)?,
        };
        Ok(match made {
            Some(made) if costs => {
                let (known, _) = self.look(&default.logical, evidence, |_| Vec::new());
                Some(made.estimated(&known, self.session))
            }
            made => made,
        })
    }

    fn search<'s>(&'s self, known: &'s Known<'s>, least_us: f64) -> arms::Search<'s> {
        arms::Search { session: self.session, state: self.state, known, least_us, refused: self.refused }
    }
}

/// Names of the rewrites among `changes`.
fn rewrites(changes: &[PlanChange]) -> Vec<&str> {
    fn name(change: &PlanChange) -> Option<&str> {
        if let PlanChange::Rewrite { name, .. } = change { Some(name) } else { None }
    }
    changes.iter().filter_map(name).collect()
}
