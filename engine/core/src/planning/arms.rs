//! Candidates as plans that could run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::SchemaExt;
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::StatisticsContext;
use sparklet_history::{
    Fingerprint, FlipPoint, JoinChoice, JoinOrder, JoinSides, PlanChange, PlanOutline, PlanPrediction,
};
use sparklet_optimizer::choice::{
    Candidate, Gain, Known, LearnedJoins, PlanCost, RowEstimate, Runs, gain, join_choices, join_sides, plan_key,
    rewrite_change, rows, with_sides,
};
use sparklet_optimizer::{LogicalCandidate, PhysicalFingerprints, RewriteNote, fingerprint_physical};

use super::early;
use crate::session::Session;

/// A plan of the query.
#[derive(Clone)]
pub(crate) struct Arm {
    pub(super) state: SessionState,
    pub(super) logical: LogicalPlan,
    pub(super) physical: Arc<dyn ExecutionPlan>,
    /// See [`super::early`].
    early: Option<Arc<dyn ExecutionPlan>>,
    changes: Vec<PlanChange>,
    orders: Vec<JoinOrder>,
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
    /// DataFusion's own plan.
    pub(super) fn default(
        state: &SessionState,
        logical: LogicalPlan,
        (early, physical): (Option<Arc<dyn ExecutionPlan>>, Arc<dyn ExecutionPlan>),
    ) -> Self {
        let mut arm = Self::unknown(state.clone(), logical, physical, Vec::new());
        arm.early = early;
        arm
    }

    /// What it costs by DataFusion's estimates alone.
    pub(super) fn by_statistics(&self, session: &Session) -> PlanCost {
        let runs = runs(session, &self.physical);
        PlanCost::of(&self.physical, &self.fingerprints, &statistics(&self.physical), runs, session.cost_model())
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
            early: None,
            changes,
            orders: Vec::new(),
            fingerprints: PhysicalFingerprints::default(),
            rows: Vec::new(),
            cost: PlanCost::default(),
        }
    }

    /// The same with what is known.
    pub(super) fn estimated(mut self, known: &Known<'_>, session: &Session) -> Self {
        self = self.named(session);
        self.rows = known.of_plan(&self.physical, &self.fingerprints);
        let runs = runs(session, &self.physical);
        self.cost = PlanCost::of(&self.physical, &self.fingerprints, &self.rows, runs, session.cost_model());
        self
    }

    /// The same with the names of its subplans.
    pub(super) fn named(mut self, session: &Session) -> Self {
        if self.fingerprints.nodes.is_empty() {
            self.fingerprints = fingerprint_physical(&self.physical, session.sources().as_ref());
        }
        self
    }

    /// Operators of its plan.
    pub(super) fn operators(&self) -> usize {
        let mut count = 0;
        rows::for_each_node(&self.physical, &mut count, &mut |_, _| {});
        count
    }

    /// What it is expected to take.
    pub(super) fn predicted(&self) -> PlanPrediction {
        self.cost.prediction()
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

    /// The same, nothing of which the default has.
    pub(super) async fn apart(self) -> Result<Self> {
        // What was written anew was planned on its own.
        if self.changes.iter().any(|change| matches!(change, PlanChange::Rewrite { .. })) {
            return Ok(self);
        }
        let physical = self.state.query_planner().create_physical_plan(&self.logical, &self.state).await?;
        Ok(Self { physical, ..self })
    }

    /// The arm beside the default.
    pub(super) fn candidate(&self, default: &Self, session: &Session) -> Candidate {
        Candidate {
            plan: PlanOutline {
                key: Some(self.key()),
                changes: self.changes.clone(),
                joins: join_sides(&self.physical, &self.fingerprints),
                orders: self.orders.clone(),
            },
            predicted: self.predicted(),
            gain: gain(session.cost_model(), &default.cost, &self.cost),
        }
    }
}

/// How `session` runs `plan`.
fn runs(session: &Session, plan: &Arc<dyn ExecutionPlan>) -> Runs {
    Runs { slots: session.slots(), shares: crate::adaptive::shares(session.adaptive(), plan) }
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
        RewriteNote::FinerGroups(finer) => finer.saves / 1000.0,
        RewriteNote::OuterLater(later) => later.saves / 1000.0,
    };
    // It is a cost of what is changed alone, and about right at best.
    candidate.rewrites.iter().map(of).sum::<f64>() * 2.0
}

/// Share of the least gain that a plan must have before it is finished, to be compared when it is: rules that come after the joins change a
/// little of it.
const NEARLY: f64 = 0.5;

/// Plans that are finished to be compared.
const MOST_FINISHED: usize = 2;

/// Rewritten queries that are planned physically.
pub(super) const MOST_REWRITTEN: usize = 3;

/// What a search for other plans goes by.
pub(super) struct Search<'a> {
    pub(super) session: &'a Session,
    pub(super) state: &'a SessionState,
    pub(super) known: &'a Known<'a>,
    /// Least gain in micro-seconds of CPU time; nothing where all plans are wanted.
    pub(super) least_us: f64,
    /// Whether a plan has lost before, and is not taken.
    pub(super) refused: &'a (dyn Fn(Fingerprint) -> bool + Sync),
}

/// A plan before most of DataFusion's rules ([`super::early`]).
struct Draft {
    logical: LogicalPlan,
    /// Before its rows are moved between partitions: what learned joins and the rest of the rules start from.
    physical: Arc<dyn ExecutionPlan>,
    /// With that: what it costs.
    shaped: Arc<dyn ExecutionPlan>,
    changes: Vec<PlanChange>,
    orders: Vec<JoinOrder>,
    joins: Vec<JoinChoice>,
    /// Of `shaped`.
    fingerprints: PhysicalFingerprints,
    /// Of `shaped`.
    rows: Vec<Option<RowEstimate>>,
}

impl Search<'_> {
    /// The plans beside the default that may save enough, each another one than those before; and those that were left as drafts, with what
    /// is expected of them. What cannot save enough is not finished: planning takes as long as a small query.
    pub(super) async fn others(&self, default: &Arm, queries: Vec<LogicalCandidate>) -> (Vec<Arm>, Vec<Candidate>) {
        let mut drafts = Vec::new();
        let joins = self.learned_joins(&default.physical, &default.fingerprints, &default.rows);
        let queries: Vec<_> = queries.into_iter().filter(|query| may_save_us(query) >= self.least_us).collect();
        if joins.is_empty() && queries.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let Some(base) = self.draft_of(default) else { return (Vec::new(), Vec::new()) };
        if !joins.is_empty() {
            drafts.extend(self.joined(&base, joins));
        }
        for query in queries {
            let Some(physical) = planned(early::planned_early(self.state, &query.plan).await) else { continue };
            if physical.schema() != default.physical.schema() {
                tracing::debug!("a candidate with other columns is left out");
                continue;
            }
            let changes = query.rewrites.iter().map(rewrite_change).collect();
            let Some(mut draft) = self.draft(query.plan, physical, changes, Vec::new()) else { continue };
            draft.orders = query.orders;
            let joins = self.learned_joins(&draft.shaped, &draft.fingerprints, &draft.rows);
            if !joins.is_empty() {
                drafts.extend(self.joined(&draft, joins));
            }
            drafts.push(draft);
        }
        let (model, least) = (self.session.cost_model(), self.least_us);
        let cost = self.cost(&base);
        let mut drafts: Vec<(Gain, Draft)> =
            drafts.into_iter().map(|draft| (gain(model, &cost, &self.cost(&draft)), draft)).collect();
        let mut arms: Vec<Arm> = Vec::new();
        let mut keys = vec![default.key()];
        let mut open = 0;
        let mut certain = false;
        while let Some(at) = next(&drafts, open == 0, least) {
            if least > 0.0 && (certain || open == MOST_FINISHED) {
                break;
            }
            let (_, draft) = drafts.remove(at);
            let Some(arm) = self.finished(draft).map(|arm| self.estimated(arm)) else { continue };
            let key = arm.key();
            if keys.contains(&key) {
                continue;
            }
            keys.push(key);
            if !(self.refused)(key) {
                open += 1;
                certain |= arm.candidate(default, self.session).gain.low > least;
            }
            arms.push(arm);
        }
        (arms, drafts.into_iter().map(|(gain, draft)| left_as_draft(draft.changes, gain, default)).collect())
    }

    /// The plan `wanted`, if it is that of `query`, its joins as they were; what it costs is worked out where `costs` says so. With the time that
    /// a plan of `query` takes to make at least.
    pub(super) async fn wanted_rewritten(
        &self,
        wanted: &PlanOutline,
        query: LogicalCandidate,
        costs: bool,
    ) -> Option<(Arm, Duration)> {
        let (start, columns) = (Instant::now(), query.plan.schema().clone());
        let drafted = planned(early::planned_early(self.state, &query.plan).await)?;
        let early = start.elapsed();
        if columns.as_arrow().logically_equivalent_names_and_types(&drafted.schema()).is_err() {
            return None;
        }
        let fingerprints = fingerprint_physical(&drafted, self.session.sources().as_ref());
        let LogicalCandidate { plan: logical, orders, .. } = query;
        for joins in ways(&drafted, &fingerprints, &wanted.joins) {
            let mut physical = Arc::clone(&drafted);
            if !joins.is_empty() {
                let rule = LearnedJoins::new(joins.iter().cloned(), self.session.sources());
                physical = planned(rule.applied(physical, &fingerprints))?;
            }
            let start = Instant::now();
            let physical = planned(early::finished(self.state, physical))?;
            let took = early + start.elapsed();
            let state = with_rule(self.session, self.state, &joins);
            let arm = Arm::unknown(state, logical.clone(), physical, wanted.changes.clone()).named(self.session);
            if Some(arm.key()) == wanted.key {
                let arm = Arm { orders, ..arm };
                return Some((if costs { self.estimated(arm) } else { arm }, took));
            }
        }
        None
    }

    fn draft_of(&self, default: &Arm) -> Option<Draft> {
        let early = default.early.clone()?;
        self.draft(default.logical.clone(), early, default.changes.clone(), Vec::new())
    }

    fn draft(
        &self,
        logical: LogicalPlan,
        physical: Arc<dyn ExecutionPlan>,
        changes: Vec<PlanChange>,
        joins: Vec<JoinChoice>,
    ) -> Option<Draft> {
        let shaped = planned(early::shaped(self.state, Arc::clone(&physical)))?;
        let fingerprints = fingerprint_physical(&shaped, self.session.sources().as_ref());
        let rows = self.known.of_plan(&shaped, &fingerprints);
        Some(Draft { logical, physical, shaped, changes, orders: Vec::new(), joins, fingerprints, rows })
    }

    /// Build sides and modes of joins by what is known; none where they are so already, or too little would be saved.
    fn learned_joins(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        fingerprints: &PhysicalFingerprints,
        rows: &[Option<RowEstimate>],
    ) -> Vec<JoinChoice> {
        let limit = crate::adaptive::build_bytes_limit(self.session.memory().limit, self.session.slots());
        let choices = join_choices(plan, fingerprints, rows, limit);
        let moved = choices.iter().map(|join| join.build_rows.saturating_add(join.probe_rows) as f64).sum::<f64>();
        if moved * MOST_US_A_ROW < self.least_us { Vec::new() } else { choices }
    }

    fn joined(&self, draft: &Draft, joins: Vec<JoinChoice>) -> Option<Draft> {
        let physical = self.with_sides(&draft.physical, &joins)?;
        let changes = changed(&draft.changes, &joins);
        let joined = self.draft(draft.logical.clone(), physical, changes, joins)?;
        Some(Draft { orders: draft.orders.clone(), ..joined })
    }

    /// `early` with its joins as in `joins`.
    fn with_sides(&self, early: &Arc<dyn ExecutionPlan>, joins: &[JoinChoice]) -> Option<Arc<dyn ExecutionPlan>> {
        let sources = self.session.sources();
        let fingerprints = fingerprint_physical(early, sources.as_ref());
        let rule = LearnedJoins::new(joins.iter().cloned(), sources);
        planned(rule.applied(Arc::clone(early), &fingerprints))
    }

    fn cost(&self, draft: &Draft) -> PlanCost {
        let runs = runs(self.session, &draft.shaped);
        PlanCost::of(&draft.shaped, &draft.fingerprints, &draft.rows, runs, self.session.cost_model())
    }

    fn finished(&self, draft: Draft) -> Option<Arm> {
        let physical = planned(early::finished(self.state, draft.physical))?;
        let state = with_rule(self.session, self.state, &draft.joins);
        let arm = Arm::unknown(state, draft.logical, physical, draft.changes);
        Some(Arm { orders: draft.orders, ..arm })
    }

    fn estimated(&self, arm: Arm) -> Arm {
        arm.estimated(self.known, self.session)
    }
}

/// The draft to finish next: the one with the largest gain, after it the one with the largest that is certain. None where no other gains
/// enough, or, after the first, none is certain to: what is merely likely is taken of the largest.
fn next(drafts: &[(Gain, Draft)], first: bool, least_us: f64) -> Option<usize> {
    let by = |gain: &Gain| if first { gain.us } else { gain.low };
    let enough = drafts.iter().enumerate().filter(|(_, (gain, _))| least_us <= 0.0 || by(gain) >= least_us * NEARLY);
    // Of equal ones the first.
    enough.rev().max_by(|(_, (a, _)), (_, (b, _))| by(a).total_cmp(&by(b))).map(|(at, _)| at)
}

/// A candidate's plan, if it can be made; the default was planned: the query is sound.
fn planned(made: Result<Arc<dyn ExecutionPlan>>) -> Option<Arc<dyn ExecutionPlan>> {
    made.inspect_err(|error| tracing::debug!(%error, "a candidate cannot be planned")).ok()
}

/// A plan that is not finished, in a record: what it would save is known, and what it would take follows from what the default takes.
fn left_as_draft(changes: Vec<PlanChange>, gain: Gain, default: &Arm) -> Candidate {
    let default = default.predicted();
    let less = |us: u64| (us as f64 - gain.us).max(0.0) as u64;
    let predicted =
        PlanPrediction { cpu_us: less(default.cpu_us), low_us: less(default.low_us), high_us: less(default.high_us) };
    Candidate { plan: PlanOutline { changes, ..PlanOutline::default() }, predicted, gain }
}

fn changed(before: &[PlanChange], joins: &[JoinChoice]) -> Vec<PlanChange> {
    before.iter().cloned().chain(joins.iter().cloned().map(PlanChange::Join)).collect()
}

/// `state` with the rule that makes joins as in `joins`, for whoever plans parts of the query anew.
fn with_rule(session: &Session, state: &SessionState, joins: &[JoinChoice]) -> SessionState {
    if joins.is_empty() {
        return state.clone();
    }
    let rule = Arc::new(LearnedJoins::new(joins.iter().cloned(), session.sources()));
    let mut rules = state.physical_optimizers().to_vec();
    for place in &mut rules {
        if place.name() == "join_selection" {
            *place = Arc::clone(&rule) as _;
        }
    }
    SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(rules).build()
}

/// The plan `wanted`, if it is `default` with other sides of its joins; nothing is estimated. Its scans are those of the default.
pub(super) fn wanted_joins(
    session: &Session,
    state: &SessionState,
    default: &Arm,
    wanted: &PlanOutline,
) -> Result<Option<Arm>> {
    let Some(early) = &default.early else { return Ok(None) };
    let fingerprints = fingerprint_physical(early, session.sources().as_ref());
    for joins in ways(early, &fingerprints, &wanted.joins) {
        let arm = with_joins(session, state, default, joins)?.map(|arm| arm.named(session));
        if let Some(arm) = arm.filter(|arm| Some(arm.key()) == wanted.key) {
            return Ok(Some(Arm { changes: wanted.changes.clone(), ..arm }));
        }
    }
    Ok(None)
}

/// The choices by which the joins of `plan` have `sides`; a second time, for who asks, where those of copies of one subplan may be meant the other
/// way round.
fn ways<'a>(
    plan: &'a Arc<dyn ExecutionPlan>,
    fingerprints: &'a PhysicalFingerprints,
    sides: &'a [JoinSides],
) -> impl Iterator<Item = Vec<JoinChoice>> + 'a {
    let mut first = None;
    [false, true].into_iter().filter_map(move |others| {
        let way = with_sides(plan, fingerprints, sides, others);
        (first.replace(way.clone()).as_ref() != Some(&way)).then_some(way)
    })
}

/// `default` with its joins as in `joins`; nothing is estimated. Its scans are those of the default: only one of the two may run.
pub(super) fn with_joins(
    session: &Session,
    state: &SessionState,
    default: &Arm,
    joins: Vec<JoinChoice>,
) -> Result<Option<Arm>> {
    let Some(early) = default.early.clone() else { return Ok(None) };
    let sources = session.sources();
    let fingerprints = fingerprint_physical(&early, sources.as_ref());
    let joined = LearnedJoins::new(joins.clone(), sources).applied(early, &fingerprints)?;
    let physical = early::finished(state, joined)?;
    let changes = changed(&default.changes, &joins);
    Ok(Some(Arm::unknown(with_rule(session, state, &joins), default.logical.clone(), physical, changes)))
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
