//! default → trial → adopted | rolled back, as pure values.
//!
//! A state is what a step's last run left; [`advance`] makes the next one of it and of what a run took. Losses count against the default
//! *re-predicted for the rows of that run*: three times the data is no regression.

use sparklet_history::{ChoiceRecord, Fingerprint, GuardPhase, GuardState, Measured, PlanRole, RefusedPlan};

/// A run lost, or won, where it took this much more, or less, than the default, as a share of that.
pub const MARGIN: f64 = 0.1;

/// A loss or gain below this CPU time is noise.
pub const NOISE_US: u64 = 20_000;

/// Share of all past time that trials and control runs may cost.
pub const BUDGET_SHARE: f64 = 0.05;

/// Runs of a trial with neither gain nor loss after which it is given up.
pub const MOST_UNDECIDED: u32 = 3;

/// Runs after a loss in which nothing else is tried: where one plan was mispredicted the next may be.
pub const RESTS: u32 = 9;

/// Where what takes over takes so many times what it took before, a trial that was ended by that may be tried again.
const MUCH_MORE: f64 = 1.5;

/// Plans that are remembered as refused.
const MOST_REFUSED: usize = 16;

/// How a run ended, as far as its plan may be to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With all its rows.
    Succeeded,
    /// Cancelled, out of time or out of memory: its plan lost.
    Lost,
    /// For a reason that no plan is to blame for, e.g. bad data: it tells nothing.
    Untold,
}

/// What a run of a plan took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ran {
    /// The part that the plan played.
    pub role: PlanRole,
    /// The plan.
    pub plan: Option<Fingerprint>,
    /// What it took, for how many rows.
    pub took: Measured,
    /// Highest CPU time that the default is predicted to take, used where it was never measured.
    pub default_high_us: Option<u64>,
    /// Expected CPU time of the default where it was never measured.
    pub default_us: Option<u64>,
    /// Volume class.
    pub volume: u32,
    /// How it ended.
    pub ended: Ended,
    /// The adopted plan that a trial ran in place of; none: the default.
    pub in_place_of: Option<Fingerprint>,
    /// CPU time that was lost with a trial before the other took over, whose own time is `took`.
    pub fell_back_us: Option<u64>,
}

/// CPU time that the default would take for `rows` rows, or for `work` where that is known, from when it was last measured.
pub fn reference_us(state: &GuardState, rows: u64, work: Option<u64>) -> Option<u64> {
    let default = state.default?;
    Some((default.cpu_us as f64 * growth(&default, rows, work)) as u64)
}

/// How much more there is to do now than there was `then`: by the rows of what both runs did, else by rows of the sources.
fn growth(then: &Measured, rows: u64, work: Option<u64>) -> f64 {
    let of = |then: u64, now: u64| {
        if then == 0 || now == 0 { 1.0 } else { (now as f64 / then as f64).clamp(0.01, 100.0) }
    };
    match (then.work, work) {
        (Some(then), Some(now)) => of(then, now),
        _ => of(then.rows, rows),
    }
}

/// The state after a run.
pub fn advance(mut state: GuardState, ran: &Ran) -> GuardState {
    if ran.ended == Ended::Untold && ran.fell_back_us.is_none() {
        return state;
    }
    state.spent_us = state.spent_us.saturating_add(ran.took.cpu_us);
    state.since_default = state.since_default.saturating_add(1);
    state.rests = state.rests.saturating_sub(1);
    if let GuardPhase::Adopted { plan, .. } = state.phase
        && ran.in_place_of == Some(plan)
    {
        return of_challenger(state, ran);
    }
    if let Some(lost) = ran.fell_back_us {
        return of_fallen_back(state, ran, lost);
    }
    match ran.role {
        PlanRole::Default | PlanRole::Control => of_default(state, ran),
        PlanRole::Trial | PlanRole::Adopted | PlanRole::Pinned => of_other(state, ran),
    }
}

/// After a trial of a plan in place of the one that is adopted, and which took over where it was ended.
fn of_challenger(mut state: GuardState, ran: &Ran) -> GuardState {
    let Some(other) = ran.plan else { return state };
    let took = ran.took.cpu_us;
    let expected = state
        .latest
        .map_or(took, |latest| (latest.cpu_us as f64 * growth(&latest, ran.took.rows, ran.took.work)) as u64);
    let whole = ran.ended == Ended::Succeeded && ran.fell_back_us.is_none();
    if let (true, Some(default)) = (whole, reference_us(&state, ran.took.rows, ran.took.work)) {
        let saved = i64::try_from(default).unwrap_or(i64::MAX) - i64::try_from(took).unwrap_or(i64::MAX);
        state.saved_us = state.saved_us.saturating_add(saved);
    }
    if whole && gained(took, expected) {
        state.phase = GuardPhase::Adopted { plan: other, runs: 1 };
        state.latest = Some(ran.took);
        return state;
    }
    // The one in force stays. It ran in this run, too, if the other was ended.
    let cost = ran.fell_back_us.unwrap_or_else(|| took.saturating_sub(expected));
    state.regret_us = state.regret_us.saturating_add(cost);
    let limited_by = state.latest.map(|latest| latest.cpu_us as f64 * growth(&latest, ran.took.rows, None));
    if ran.fell_back_us.is_none() || !limited_by.is_some_and(|was| took as f64 > was * MUCH_MORE) {
        refuse(&mut state, other, cost, ran.volume);
    }
    if !whole || lost(took, expected) {
        state.rests = RESTS;
    }
    if let (Some(lost_us), Ended::Succeeded) = (ran.fell_back_us, ran.ended) {
        state.latest = Some(taken_over(ran, lost_us));
    }
    state
}

/// What took over from a trial that was ended when it had taken `lost_us`; the wall time of the run is that of both.
fn taken_over(ran: &Ran, lost_us: u64) -> Measured {
    let share = ran.took.cpu_us as f64 / (ran.took.cpu_us + lost_us).max(1) as f64;
    Measured { wall_us: (ran.took.wall_us as f64 * share) as u64, ..ran.took }
}

/// After a trial that was ended when it had taken `lost_us`, in whose place the default ran, in the same run.
fn of_fallen_back(mut state: GuardState, ran: &Ran, lost_us: u64) -> GuardState {
    let reference = reference_us(&state, ran.took.rows, ran.took.work);
    if ran.ended != Ended::Succeeded {
        return roll_back(state, ran, lost_us, reference.unwrap_or(ran.took.cpu_us));
    }
    let cpu_us = ran.took.cpu_us;
    let limited_by = reference_us(&state, ran.took.rows, None);
    state.default = Some(taken_over(ran, lost_us));
    state.since_default = 0;
    let mut state = roll_back(state, ran, lost_us, reference.unwrap_or(cpu_us));
    // Where the default has more to do by far than when the limit was measured, the plan may be tried again some day.
    if limited_by.is_some_and(|was| cpu_us as f64 > was as f64 * MUCH_MORE && lost_us > was / 2) {
        state.refused.retain(|refused| Some(refused.plan) != ran.plan);
    }
    state
}

fn of_default(mut state: GuardState, ran: &Ran) -> GuardState {
    if ran.ended != Ended::Succeeded {
        return state;
    }
    state.since_default = 0;
    state.default = Some(ran.took);
    let GuardPhase::Adopted { plan, .. } = state.phase else { return state };
    let Some(latest) = state.latest.filter(|_| ran.role == PlanRole::Control) else { return state };
    let expected = (latest.cpu_us as f64 * growth(&latest, ran.took.rows, ran.took.work)) as u64;
    state.regret_us = state.regret_us.saturating_add(ran.took.cpu_us.saturating_sub(expected));
    if lost(expected, ran.took.cpu_us) {
        // The control run was the better one.
        refuse(&mut state, plan, expected.saturating_sub(ran.took.cpu_us), ran.volume);
        state.phase = GuardPhase::RolledBack { plan, took_us: expected, reference_us: ran.took.cpu_us };
        state.latest = None;
    }
    state
}

fn of_other(mut state: GuardState, ran: &Ran) -> GuardState {
    let Some(plan) = ran.plan else { return state };
    let measured = reference_us(&state, ran.took.rows, ran.took.work);
    let took = ran.took.cpu_us;
    if ran.ended == Ended::Lost {
        let reference = measured.or(ran.default_us).unwrap_or(took);
        return if ran.role == PlanRole::Pinned { state } else { roll_back(state, ran, took, reference) };
    }
    // Where the default was never measured only what is beyond its interval is a loss.
    let bound = measured.or(ran.default_high_us.map(|high| high.max(ran.default_us.unwrap_or(0))));
    if let Some(reference) = measured.or(ran.default_us) {
        let saved = i64::try_from(reference).unwrap_or(i64::MAX) - i64::try_from(took).unwrap_or(i64::MAX);
        // A prediction is no measurement: nothing is claimed from it.
        if measured.is_some() {
            state.saved_us = state.saved_us.saturating_add(saved);
        }
        if ran.role == PlanRole::Pinned {
            return state;
        }
        if bound.is_some_and(|bound| lost(took, bound)) {
            return roll_back(state, ran, took.saturating_sub(reference), reference);
        }
        let won = gained(took, reference);
        state.phase = match state.phase {
            GuardPhase::Adopted { plan: same, runs } if same == plan => {
                GuardPhase::Adopted { plan, runs: runs.saturating_add(1) }
            }
            _ if won => GuardPhase::Adopted { plan, runs: 1 },
            GuardPhase::Trial { plan: same, undecided } if same == plan && undecided + 1 >= MOST_UNDECIDED => {
                refuse(&mut state, plan, 0, ran.volume);
                state.latest = None;
                GuardPhase::Default
            }
            GuardPhase::Trial { plan: same, undecided } if same == plan => {
                GuardPhase::Trial { plan, undecided: undecided + 1 }
            }
            _ => GuardPhase::Trial { plan, undecided: 1 },
        };
    } else if ran.role != PlanRole::Pinned {
        state.phase = GuardPhase::Trial { plan, undecided: 0 };
    }
    if state.phase != GuardPhase::Default {
        state.latest = Some(ran.took);
    }
    state
}

fn roll_back(mut state: GuardState, ran: &Ran, lost_us: u64, reference_us: u64) -> GuardState {
    state.regret_us = state.regret_us.saturating_add(lost_us);
    state.latest = None;
    state.rests = RESTS;
    if let Some(plan) = ran.plan {
        refuse(&mut state, plan, lost_us, ran.volume);
        state.phase = GuardPhase::RolledBack { plan, took_us: ran.took.cpu_us, reference_us };
    }
    state
}

fn refuse(state: &mut GuardState, plan: Fingerprint, lost_us: u64, volume: u32) {
    state.refused.retain(|refused| refused.plan != plan);
    state.refused.push(RefusedPlan { plan, lost_us, volume });
    if state.refused.len() > MOST_REFUSED {
        state.refused.remove(0);
    }
}

/// True if nothing is tried, since a trial was ended, or a plan lost over about as much data, not long ago.
pub fn rests(state: &GuardState, volume: u32) -> bool {
    state.rests > 0 && state.refused.last().is_none_or(|refused| is_alike(refused, volume))
}

/// Whether `volume` is about that over which a plan lost.
pub(super) fn is_alike(refused: &RefusedPlan, volume: u32) -> bool {
    refused.volume.abs_diff(volume) <= 1
}

fn lost(took: u64, reference: u64) -> bool {
    took as f64 > reference as f64 * (1.0 + MARGIN) && took.saturating_sub(reference) > NOISE_US
}

/// A gain may be smaller than a loss to count: the plan costs nothing while it is no worse.
fn gained(took: u64, reference: u64) -> bool {
    (took as f64) < reference as f64 * (1.0 - MARGIN / 2.0)
}

/// What trials may still cost, pooled over the steps whose last choices these are.
pub fn budget_us<'a>(last: impl Iterator<Item = &'a ChoiceRecord>) -> u64 {
    let (mut spent, mut regret) = (0_u64, 0_u64);
    for choice in last {
        spent = spent.saturating_add(choice.guard.spent_us);
        regret = regret.saturating_add(choice.guard.regret_us);
    }
    ((spent as f64 * BUDGET_SHARE) as u64).saturating_sub(regret)
}

#[cfg(test)]
mod tests;
