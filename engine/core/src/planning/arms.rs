//! Candidates as plans that could run.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::statistics::StatisticsContext;
use sparklet_history::{Fingerprint, FlipPoint, JoinChoice, PlanChange, PlanOutline, PlanPrediction, RunId};
use sparklet_optimizer::choice::{
    Candidate, Known, LearnedJoins, PlanCost, RowEstimate, gain, join_choices, plan_key, rewrite_change, rows,
};
use sparklet_optimizer::{LogicalCandidate, PhysicalFingerprints, RewriteNote, fingerprint_physical};

use crate::session::Session;

/// A plan of the query.
pub(crate) struct Arm {
    pub(super) state: SessionState,
    pub(super) logical: LogicalPlan,
    pub(super) physical: Arc<dyn ExecutionPlan>,
    changes: Vec<PlanChange>,
    fingerprints: PhysicalFingerprints,
    rows: Vec<Option<RowEstimate>>,
    cost: PlanCost,
}

impl std::fmt::Debug for Arm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arm").field("changes", &self.changes).finish_non_exhaustive()
    }
}

impl Arm {
    /// DataFusion's own plan, of which only DataFusion's estimates are known.
    pub(super) fn default(session: &Session, logical: LogicalPlan, physical: Arc<dyn ExecutionPlan>) -> Self {
        let state = session.context().state();
        let mut arm = Self::unknown(state, logical, physical, Vec::new());
        arm.cost = PlanCost::of(&arm.physical, &arm.fingerprints, &statistics(&arm.physical), session.slots());
        arm
    }

    fn unknown(
        state: SessionState,
        logical: LogicalPlan,
        physical: Arc<dyn ExecutionPlan>,
        changes: Vec<PlanChange>,
    ) -> Self {
        Self {
            state,
            logical,
            physical,
            changes,
            fingerprints: PhysicalFingerprints::default(),
            rows: Vec::new(),
            cost: PlanCost::default(),
        }
    }

    /// The same with what is known.
    pub(super) fn estimated(mut self, known: &Known<'_>, runs: &mut Vec<RunId>, session: &Session) -> Self {
        self.fingerprints = fingerprint_physical(&self.physical, session.sources().as_ref());
        self.rows = known.of_plan(&self.physical, &self.fingerprints, runs);
        self.cost = PlanCost::of(&self.physical, &self.fingerprints, &self.rows, session.slots());
        self
    }

    /// Another instance of the same, nothing of which has run.
    pub(super) fn again(&self) -> Result<Self> {
        Ok(Self {
            state: self.state.clone(),
            logical: self.logical.clone(),
            physical: reset_plan_states(Arc::clone(&self.physical))?,
            changes: self.changes.clone(),
            fingerprints: self.fingerprints.clone(),
            rows: self.rows.clone(),
            cost: self.cost.clone(),
        })
    }

    /// The same with the names of its subplans.
    pub(super) fn named(mut self, session: &Session) -> Self {
        self.fingerprints = fingerprint_physical(&self.physical, session.sources().as_ref());
        self
    }

    /// Operators of its plan.
    pub(super) fn operators(&self) -> usize {
        let mut count = 0;
        rows::for_each_node(&self.physical, &mut count, &mut |_, _| {});
        count
    }

    /// What it is expected to take.
    pub(super) fn predicted(&self, session: &Session) -> PlanPrediction {
        self.cost.prediction(session.cost_model())
    }

    /// What the plan is called.
    pub(super) fn key(&self) -> Fingerprint {
        plan_key(&self.physical, &self.fingerprints)
    }

    /// Rows of the sources that it reads.
    pub(super) fn rows_read(&self) -> u64 {
        let mut sum = 0.0;
        let mut visit = |node: &Arc<dyn ExecutionPlan>, _: usize| {
            if node.children().is_empty() {
                sum += source_rows(node);
            }
        };
        rows::for_each_node(&self.physical, &mut 0, &mut visit);
        sum as u64
    }

    /// The arm beside the default.
    pub(super) fn candidate(&self, default: &Self, session: &Session) -> Candidate {
        Candidate {
            plan: PlanOutline { key: Some(self.key()), changes: self.changes.clone() },
            predicted: self.predicted(session),
            gain: gain(session.cost_model(), &default.cost, &self.cost),
        }
    }
}

/// DataFusion's estimates for each node in pre-order.
fn statistics(plan: &Arc<dyn ExecutionPlan>) -> Vec<Option<RowEstimate>> {
    let mut estimates = Vec::new();
    let statistics = StatisticsContext::new();
    let mut visit = |node: &Arc<dyn ExecutionPlan>, _: usize| estimates.push(rows::by_statistics(node, &statistics));
    rows::for_each_node(plan, &mut 0, &mut visit);
    estimates
}

/// Rows of a leaf, or one for each 24 bytes where nothing tells.
fn source_rows(leaf: &Arc<dyn ExecutionPlan>) -> f64 {
    match rows::by_statistics(leaf, &StatisticsContext::new()) {
        Some(known) => known.rows,
        None => crate::observe::scanned_bytes(leaf) as f64 / 24.0,
    }
}

/// Most CPU time that another build side or mode saves for a row of a join, in micro-seconds: what dividing and building a row takes.
const MOST_US_A_ROW: f64 = 0.3;

/// CPU time that a query written anew may save, in micro-seconds, by the cost of the search; without end where that does not tell.
fn may_save_us(candidate: &LogicalCandidate) -> f64 {
    let of = |note: &RewriteNote| match note {
        RewriteNote::JoinOrder(order) => (order.cost_before - order.cost_after).max(0.0) / 1000.0,
        RewriteNote::KeysPushed(_) => f64::INFINITY,
        RewriteNote::EarlyGroups(early) => early.saves / 1000.0,
        RewriteNote::MergedAggregates(merged) => merged.saves / 1000.0,
        RewriteNote::OuterLater(later) => later.saves / 1000.0,
    };
    // It is a cost of what is changed alone, and about right at best.
    candidate.rewrites.iter().map(of).sum::<f64>() * 2.0
}

/// The plans beside the default, each another one than those before. What could not save `least_us` micro-seconds of CPU time is not planned:
/// planning takes as long as a small query.
pub(super) async fn others(
    session: &Session,
    state: &SessionState,
    default: &Arm,
    queries: Vec<LogicalCandidate>,
    known: &Known<'_>,
    runs: &mut Vec<RunId>,
    least_us: f64,
) -> Result<Vec<Arm>> {
    let mut arms: Vec<Arm> = Vec::new();
    let mut keys = vec![default.key()];
    let mut keep = |arm: Arm, arms: &mut Vec<Arm>| {
        let key = arm.key();
        if !keys.contains(&key) {
            keys.push(key);
            arms.push(arm);
        }
    };
    if let Some(arm) = with_learned_joins(session, state, default, known, runs, least_us).await? {
        keep(arm, &mut arms);
    }
    for query in queries.into_iter().filter(|query| may_save_us(query) >= least_us) {
        let Some(arm) = rewritten(session, state, default, query, known, runs).await? else { continue };
        if let Some(joins) = with_learned_joins(session, state, &arm, known, runs, least_us).await? {
            keep(joins, &mut arms);
        }
        keep(arm, &mut arms);
    }
    Ok(arms)
}

/// `query` as a plan; none where it cannot be planned.
pub(super) async fn rewritten(
    session: &Session,
    state: &SessionState,
    default: &Arm,
    query: LogicalCandidate,
    known: &Known<'_>,
    runs: &mut Vec<RunId>,
) -> Result<Option<Arm>> {
    let physical = match state.query_planner().create_physical_plan(&query.plan, state).await {
        Ok(physical) if physical.schema() == default.physical.schema() => physical,
        Ok(_) => {
            tracing::debug!("a candidate with other columns is left out");
            return Ok(None);
        }
        // The default was planned: the query is sound.
        Err(error) => {
            tracing::debug!(%error, "a candidate cannot be planned");
            return Ok(None);
        }
    };
    let changes = query.rewrites.iter().map(rewrite_change).collect();
    Ok(Some(Arm::unknown(state.clone(), query.plan, physical, changes).estimated(known, runs, session)))
}

/// Rewritten queries that are planned physically.
pub(super) const MOST_REWRITTEN: usize = 3;

/// `arm` with build sides and modes of its joins by what is known; none where they are so already.
pub(super) async fn with_learned_joins(
    session: &Session,
    state: &SessionState,
    arm: &Arm,
    known: &Known<'_>,
    runs: &mut Vec<RunId>,
    least_us: f64,
) -> Result<Option<Arm>> {
    let limit = crate::adaptive::build_bytes_limit(session.memory().limit, session.slots());
    let choices = join_choices(&arm.physical, &arm.fingerprints, &arm.rows, limit);
    let moved = choices.iter().map(|choice| choice.build_rows.saturating_add(choice.probe_rows) as f64).sum::<f64>();
    if choices.is_empty() || moved * MOST_US_A_ROW < least_us {
        return Ok(None);
    }
    let joined = with_joins(session, state, arm, choices).await?;
    Ok(Some(joined.estimated(known, runs, session)))
}

/// `arm` with its joins as in `choices`; nothing is estimated.
pub(super) async fn with_joins(
    session: &Session,
    state: &SessionState,
    arm: &Arm,
    choices: Vec<JoinChoice>,
) -> Result<Arm> {
    let rule = Arc::new(LearnedJoins::new(choices.clone(), session.sources()));
    let mut rules = state.physical_optimizers().to_vec();
    for place in &mut rules {
        if place.name() == "join_selection" {
            *place = Arc::clone(&rule) as _;
        }
    }
    let state = SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(rules).build();
    let physical = state.query_planner().create_physical_plan(&arm.logical, &state).await?;
    let mut changes = arm.changes.clone();
    changes.extend(choices.into_iter().map(PlanChange::Join));
    Ok(Arm::unknown(state, arm.logical.clone(), physical, changes))
}

/// Where the choices of a plan would be others, as far as that is cheap to tell.
pub(super) fn flips(plan: &PlanOutline) -> Vec<FlipPoint> {
    let of = |change: &PlanChange| {
        let PlanChange::Join(join) = change else { return None };
        Some(FlipPoint {
            what: format!("the build side of the join on {}", join.on),
            rows: join.build_rows,
            at_rows: if join.collect { join.probe_rows / 3 } else { join.probe_rows },
            then: if join.collect { "a table for each partition" } else { "the other side is built" }.to_owned(),
        })
    };
    plan.changes.iter().filter_map(of).collect()
}
