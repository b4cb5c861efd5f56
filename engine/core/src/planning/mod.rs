//! Which plan a query runs: DataFusion's own, or one that the past says is better.
//!
//! Candidates are made, predicted and compared here; what decides is `sparklet_optimizer::choice`. Where the past is not used, or tells
//! nothing better, the plan object is the one that DataFusion made.

mod arms;
mod cache;
mod conclude;
mod early;
pub(crate) mod expected;
mod looking;
mod past;
mod proven;
#[cfg(test)]
mod tests;
pub(crate) mod trial;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{LogicalPlan, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::{
    ChoiceReason, ChoiceRecord, Fingerprint, GuardPhase, HistoryUnused, Measured, PlanChange, PlanControl, PlanOutline,
    PlanPrediction, PlanRole, RejectedPlan,
};
use sparklet_optimizer::choice::decide::refused;
use sparklet_optimizer::choice::{Asked, Candidate, Chosen, RowEstimate, Then, choose, guard, in_force, threshold_us};
use sparklet_optimizer::{Learning, fingerprint_logical};

use arms::Arm;
pub use conclude::conclude;
use looking::{Arms, Looking};
use past::Past;
pub(crate) use past::{growth, volumes};
use proven::{Proven, proven};
use trial::Limits;
pub(crate) use work::Before;

use crate::session::Session;

/// Predicted CPU time of the default below which no other plan is looked for, in micro-seconds: less than what looking costs.
const TOO_SMALL_US: u64 = 2_000;

/// What planning a query once more takes for each operator of its plan, in micro-seconds, about.
const PLANNING_US: u64 = 100;

/// How often the default must take as long as planning once more, for other plans to be looked for: with evidence, and on a first run, where
/// hardly a gain is certain.
const TIMES_PLANNING: [u64; 2] = [10, 100];

/// Rows of a source from which on a query is expected to take more than [`TOO_SMALL_US`].
const MUCH: usize = 20_000;

/// Share of what the default took that a trial may take.
const TRIAL_SHARE: f64 = 0.9;

/// Share of that which a trial has in any case.
const LEAST_OF_TRIAL: f64 = 0.5;

/// What a trial may take beyond that: clocks and schedulers are not exact.
const GRACE: Duration = Duration::from_millis(5);

/// A planned query.
pub(crate) struct Planned {
    /// With the rules that the plan was made by.
    pub(crate) state: SessionState,
    pub(crate) logical: LogicalPlan,
    pub(crate) physical: Arc<dyn ExecutionPlan>,
    pub(crate) choice: ChoiceRecord,
    /// What its work is compared with; none where nothing is to be told of it.
    pub(crate) before: Option<Before>,
    /// Rows that were put together for subplans that never ran.
    pub(crate) composed: HashMap<Fingerprint, RowEstimate>,
    /// What takes over from a trial.
    pub(crate) fallback: Option<Fallback>,
}

/// The default, while another plan is on trial.
#[derive(Clone)]
pub(crate) struct Fallback {
    pub(crate) state: SessionState,
    pub(crate) logical: LogicalPlan,
    pub(crate) physical: Arc<dyn ExecutionPlan>,
    pub(crate) limits: Limits,
}

impl std::fmt::Debug for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fallback").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Plans `query`, which is step `step` where that has a name.
pub(crate) async fn plan(session: &Session, query: &LogicalPlan, step: Option<&str>, keeps: bool) -> Result<Planned> {
    let state = session.context().state();
    if !keeps && reads_much(query) {
        session.recall_ahead();
    }
    let logical = state.optimize(query)?;
    let proven = match step.filter(|_| !keeps && session.learning() == Learning::On && session.has_recalled()) {
        Some(step) => Box::pin(proven(session, &state, &logical, step)).await?,
        None => Proven::No,
    };
    if let Proven::Planned(planned) = proven {
        return Ok(*planned);
    }
    let planned = |choice, logical, physical, state| Planned {
        state,
        logical,
        physical,
        choice,
        before: None,
        composed: HashMap::new(),
        fallback: None,
    };
    let own = |choice, default: Arm, state, before| {
        let Arm { logical, physical, .. } = default;
        Planned { before: Some(before), ..planned(choice, logical, physical, state) }
    };
    let without = |because| ChoiceRecord { because, ..ChoiceRecord::unknown() };
    if session.learning() == Learning::Off || keeps {
        let physical = state.query_planner().create_physical_plan(&logical, &state).await?;
        let choice = match session.learning() {
            Learning::Off => {
                ChoiceRecord { unused: Some(HistoryUnused::Switched), ..without(ChoiceReason::LearningOff) }
            }
            _ => without(ChoiceReason::Deterministic),
        };
        return Ok(planned(choice, logical, physical, state));
    }
    let physical = early::planned(&state, &logical).await?;
    let start = Instant::now();
    let default = Arm::default(&state, logical, physical);
    let ordered = session.control(step);
    let planning_us = PLANNING_US * default.operators() as u64;
    let worth_us = |known: bool| (planning_us * TIMES_PLANNING[usize::from(!known)]).max(TOO_SMALL_US);
    if ordered.is_none() && !session.has_recalled() && default.by_statistics(session).prediction().cpu_us < TOO_SMALL_US
    {
        let rows_read = rows_read(&default);
        let choice = ChoiceRecord { rows_read, ..without(ChoiceReason::TooSmall) };
        return Ok(planned(choice, default.logical, default.physical, state));
    }
    let names = Arc::new(fingerprint_logical(&default.logical, session.sources().as_ref()));
    let identity = names.nodes.first().copied().flatten();
    let recalled = session.recalled();
    let past = Past::of(session, &recalled, step, identity.map(|i| i.template));
    let rows = rows_read(&default);
    let volume = rows.max(1).ilog2();
    let control = ordered.and_then(|control| control.order.clone());
    if let Some(last) = past.last_choice.filter(|_| control.is_none() && past.engine_was.is_none()) {
        let asked = cache::Asked {
            query: identity.map(|i| i.fingerprint),
            template: identity.map(|i| i.template),
            volume,
            rows,
            session,
            state: &state,
        };
        if let Some((arm, looked_up)) = cache::look_up(last, &past.guard, &asked, &default)? {
            let looked_up = past.predicted(looked_up);
            let choice = ChoiceRecord {
                added_us: micros(start.elapsed()),
                evidence_age_s: past.age_s(&looked_up.evidence),
                ..looked_up
            };
            return Ok(match arm {
                Some(Arm { state, logical, physical, .. }) => {
                    Planned { before: Some(past.before), ..planned(choice, logical, physical, state) }
                }
                None => own(choice, default, state, past.before),
            });
        }
    }
    let expected = default.by_statistics(session).prediction();
    let default_us = past.guard.default.map_or(expected.cpu_us, |measured| measured.cpu_us);
    let because = match past.guard.phase {
        // Looking would tell nothing that may be tried.
        GuardPhase::RolledBack { took_us, reference_us, .. } if guard::rests(&past.guard, volume) => {
            Some(ChoiceReason::RolledBack { took_us, reference_us })
        }
        _ => (default_us < worth_us(!recalled.runs.is_empty())).then_some(ChoiceReason::TooSmall),
    };
    if let Some(because) = because
        && control.is_none()
        && in_force(&past.guard).is_none()
    {
        let choice = ChoiceRecord {
            query: identity.map(|i| i.fingerprint),
            template: identity.map(|i| i.template),
            default: Some(expected),
            predicted: Some(expected),
            unused: recalled.unused.clone(),
            volume,
            rows_read: rows,
            guard: past.guard.clone(),
            model: session.cost_model().version().to_string(),
            added_us: micros(start.elapsed()),
            ..without(because)
        };
        return Ok(own(past.predicted(choice), default, state, past.before));
    }
    let default = default.named(session);
    let refused = |plan| refused(&past.guard, plan, volume).is_some();
    let looking = Looking {
        session,
        state: &state,
        past: &past,
        scope: recalled.scope(),
        sources: session.sources(),
        names,
        refused: &refused,
    };
    // A plan in force, or one that the user wants, is made again from what was known when it was made: what was learned since may lead
    // elsewhere.
    let wanted = match &control {
        Some(PlanControl::Pin { plan, .. }) => Some(*plan),
        Some(PlanControl::Forbid) => None,
        Some(PlanControl::Freeze) | None => in_force(&past.guard),
    };
    let learns = session.learning() == Learning::On && past.engine_was.is_none();
    let mut kept = None;
    if let Some(plan) = wanted.filter(|_| (learns || control.is_some()) && !matches!(proven, Proven::Gone))
        && let Some(then) = past.known_before(plan)
    {
        let evidence = Then { evidence: recalled.evidence.as_ref(), runs: then };
        let nothing = PlanOutline { key: Some(plan), ..PlanOutline::default() };
        let made = past.outline(plan).unwrap_or(&nothing);
        let proven = past.proven(plan).filter(|_| control.is_none());
        let costs = proven.is_none();
        kept = match is_rewritten(&made.changes) {
            true => Box::pin(looking.again(&default.logical, &evidence, made, costs)).await.map(|(arm, _)| arm),
            false => looking.again_joined(default.clone(), &evidence, made, costs)?,
        };
        if let Some((last, runs)) = proven
            && let Some(arm) = kept.take()
        {
            let choice = ChoiceRecord { added_us: micros(start.elapsed()), ..past.again(last, identity, runs, rows) };
            return Ok(Planned { before: Some(past.before), ..planned(choice, arm.logical, arm.physical, arm.state) });
        }
    }
    // Statistics may expect ten times what it took.
    let least_us = match expected.cpu_us.min(default_us) {
        // What the user wants is among all that there is.
        _ if matches!(control, Some(PlanControl::Pin { .. } | PlanControl::Freeze)) => 0.0,
        ..TOO_SMALL_US => f64::INFINITY,
        // It is planned once more in each run.
        cpu_us => threshold_us(cpu_us as f64) + planning_us as f64,
    };
    let Arms { default, mut others, left, runs, composed } =
        Box::pin(looking.arms(default, recalled.evidence.as_ref(), least_us)).await;
    if let Some(kept) = kept.filter(|kept| others.iter().all(|arm| arm.key() != kept.key())) {
        others.push(kept);
    }
    let compared: Vec<Candidate> = others.iter().map(|arm| arm.candidate(&default, session)).chain(left).collect();
    let predicted = default.predicted();
    let budget_us = guard::budget_us(past.last_choices().into_iter());
    let asked = Asked {
        default: &predicted,
        candidates: &compared,
        state: &past.guard,
        control: control.as_ref(),
        budget_us,
        learning: session.learning(),
        engine_was: past.engine_was.as_ref(),
        volume,
        rows,
    };
    let chosen = choose(&asked);
    // What takes over from a trial: the plan in force, if there is one.
    let incumbent = match past.guard.phase {
        GuardPhase::Adopted { plan, .. } => others.iter().find(|arm| arm.key() == plan).cloned(),
        _ => None,
    };
    let mut choice = ChoiceRecord {
        query: identity.map(|i| i.fingerprint),
        template: identity.map(|i| i.template),
        default: Some(predicted),
        evidence_age_s: past.age_s(&runs),
        unused: past.unused(&recalled, &runs),
        evidence: runs,
        volume,
        rows_read: rows,
        guard: past.guard.clone(),
        control,
        model: session.cost_model().version().to_string(),
        ..record(&chosen, &default, predicted, &compared)
    };
    choice = past.predicted(choice);
    let Some(mut arm) = chosen.candidate.and_then(|at| others.into_iter().nth(at)) else {
        choice.added_us = micros(start.elapsed());
        return Ok(Planned { composed, ..own(choice, default, state, past.before) });
    };
    if chosen.role == PlanRole::Trial {
        // The default may take over, and count for itself.
        arm = Box::pin(arm.apart()).await?;
    }
    choice.added_us = micros(start.elapsed());
    let fallback = (chosen.role == PlanRole::Trial).then(|| {
        let measured = if incumbent.is_some() { past.guard.latest } else { past.guard.default };
        let limits = limits(measured, &predicted, rows, session.slots(), choice.added_us);
        choice.fallback = incumbent.as_ref().map(Arm::key);
        match incumbent {
            Some(Arm { state, logical, physical, .. }) => Fallback { state, logical, physical, limits },
            None => {
                Fallback { state, logical: default.logical.clone(), physical: Arc::clone(&default.physical), limits }
            }
        }
    });
    Ok(Planned {
        fallback,
        composed,
        before: Some(past.before),
        ..planned(choice, arm.logical, arm.physical, arm.state)
    })
}

fn is_rewritten(changes: &[PlanChange]) -> bool {
    changes.iter().any(|change| matches!(change, PlanChange::Rewrite { .. }))
}

/// Rows of the tables that `default` reads.
fn rows_read(default: &Arm) -> u64 {
    rows_of_tables(&default.logical).unwrap_or_else(|| default.rows_read())
}

/// Rows of the tables that `query` reads; none where that takes a physical plan: no one told how many a table has, or its filters may leave
/// whole folders out.
fn rows_of_tables(query: &LogicalPlan) -> Option<u64> {
    let mut sum = Some(0u64);
    let visited = query.apply_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(TreeNodeRecursion::Continue) };
        let table = source_as_provider(&scan.source)?;
        let support = table.supports_filters_pushdown(&scan.filters.iter().collect::<Vec<_>>())?;
        let whole = !support.contains(&TableProviderFilterPushDown::Exact);
        let rows = table.statistics().filter(|_| whole).and_then(|known| known.num_rows.get_value().copied());
        sum = sum.zip(rows).map(|(sum, rows)| sum + rows as u64);
        Ok(if sum.is_some() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    sum.filter(|_| visited.is_ok())
}

/// True if a source of `query` has rows enough for the past to be asked, or no one knows how many it has.
fn reads_much(query: &LogicalPlan) -> bool {
    let much = |node: &LogicalPlan| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(false) };
        let statistics = source_as_provider(&scan.source)?.statistics();
        let rows = statistics.and_then(|statistics| statistics.num_rows.get_value().copied());
        Ok(rows.is_none_or(|rows| rows >= MUCH))
    };
    query.exists(much).unwrap_or(false)
}

fn micros(of: Duration) -> u64 {
    u64::try_from(of.as_micros()).unwrap_or(u64::MAX)
}

/// What a trial may take: a little less than what takes over from it did when it was `measured`, the default or the plan in force; of CPU time
/// less half of `added_us`, which finding it took: it does not take that in every run, and all of it would leave small queries no trial that can
/// win. When it is over the other runs from its beginning, so that a trial that fails at the last moment makes a run about twice as long.
fn limits(measured: Option<Measured>, predicted: &PlanPrediction, rows: u64, slots: usize, added_us: u64) -> Limits {
    let measured = measured.filter(|default| default.wall_us > 0 && default.rows > 0);
    let (wall_us, cpu_us) = match measured {
        Some(default) => {
            let by_rows = (rows.max(1) as f64 / default.rows as f64).clamp(0.1, 100.0);
            // Other literals may mean more to do: a trial that is ended for it may be tried again.
            let share = by_rows * TRIAL_SHARE;
            (default.wall_us as f64 * share, default.cpu_us as f64 * share)
        }
        // Never measured: the high end of the prediction, on the slots that there are.
        None => (predicted.high_us as f64 / slots.max(1) as f64, predicted.high_us as f64),
    };
    let limit = |us: f64| Duration::from_micros(us as u64) + GRACE;
    Limits { wall: limit(wall_us), cpu: limit((cpu_us - added_us as f64 / 2.0).max(cpu_us * LEAST_OF_TRIAL)) }
}

/// Most candidates that a record names.
const MOST_REJECTED: usize = 6;

fn record(chosen: &Chosen, default: &Arm, predicted: PlanPrediction, candidates: &[Candidate]) -> ChoiceRecord {
    let taken = chosen.candidate.and_then(|at| candidates.get(at));
    let mut rejected: Vec<RejectedPlan> = candidates
        .iter()
        .zip(&chosen.rejections)
        .enumerate()
        .filter(|(at, _)| chosen.candidate != Some(*at))
        .map(|(_, (candidate, because))| RejectedPlan {
            plan: PlanOutline { joins: Vec::new(), orders: Vec::new(), ..candidate.plan.clone() },
            predicted: candidate.predicted,
            gain_us: [candidate.gain.us as i64, candidate.gain.low as i64, candidate.gain.high as i64],
            because: because.clone(),
        })
        .collect();
    rejected.sort_by_key(|plan| std::cmp::Reverse(plan.gain_us[0]));
    rejected.truncate(MOST_REJECTED);
    let outline = || PlanOutline { key: Some(default.key()), ..PlanOutline::default() };
    ChoiceRecord {
        chosen: taken.map_or_else(outline, |candidate| candidate.plan.clone()),
        role: chosen.role,
        because: chosen.because.clone(),
        predicted: Some(taken.map_or(predicted, |candidate| candidate.predicted)),
        flip: taken.map(|candidate| arms::flips(&candidate.plan)).unwrap_or_default(),
        rejected,
        ..ChoiceRecord::unknown()
    }
}
