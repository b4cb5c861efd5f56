//! The decision, on the interval of the difference.

use sparklet_history::{
    ChoiceReason, EngineRecord, Fingerprint, GuardPhase, GuardState, PlanControl, PlanOutline, PlanPrediction,
    PlanRole, RefusedPlan, Rejection,
};

use super::cost::Gain;
use super::guard::{is_alike, reference_us, rests};
use crate::decision::Learning;

/// Least gain, as a share of what the default takes.
const LEAST_SHARE: f64 = 0.1;

/// Least gain that is tried though it is not certain, as a share of what the default takes: a trial is given up when that is over, and what would
/// take about as long is given up by chance.
const LEAST_TRIED: f64 = 0.15;

/// Least that another plan takes less than the one in force to be tried in its place, as a share of what that takes: both were good, and only
/// estimates tell them apart.
const LEAST_OF_CHALLENGE: f64 = 0.3;

/// Least gain in CPU time where the default takes a second or more, in micro-seconds.
const LEAST_US: f64 = 50_000.0;

/// Least gain of the smallest queries: about what planning a candidate costs.
const LEAST_OF_SMALL_US: f64 = 2_000.0;

/// Runs after which the default is measured again; the more often a plan has proved itself, the later.
const CONTROL_EVERY: u32 = 10;

/// A plan other than the default. Without a key it was not planned to its end, since it would not pay: it is told of, and not taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// What it is.
    pub plan: PlanOutline,
    /// What it is expected to take.
    pub predicted: PlanPrediction,
    /// How much less than the default.
    pub gain: Gain,
}

/// What is decided about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What the default is expected to take.
    pub default: &'a PlanPrediction,
    /// The others.
    pub candidates: &'a [Candidate],
    /// State of the guard.
    pub state: &'a GuardState,
    /// The user's order.
    pub control: Option<&'a PlanControl>,
    /// Regret budget in CPU time.
    pub budget_us: u64,
    /// Whether the past may decide.
    pub learning: Learning,
    /// The engine of the last runs, where it is another than this one.
    pub engine_was: Option<&'a EngineRecord>,
    /// Volume class.
    pub volume: u32,
    /// Rows that the query reads.
    pub rows: u64,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Index of the candidate; none for the default.
    pub candidate: Option<usize>,
    /// The part that it plays.
    pub role: PlanRole,
    /// Why.
    pub because: ChoiceReason,
    /// By candidate, why it was not taken; for the one that was, its reason does not matter.
    pub rejections: Vec<Rejection>,
}

/// Least gain that counts for a query whose default takes `default_us`: 10 %, and 50 ms where that is less than 5 % of it. For a small
/// query 50 ms are more than it takes; a recurring gain of a tenth is one there too, and the guard bounds what a wrong choice costs.
pub fn threshold_us(default_us: f64) -> f64 {
    (default_us * LEAST_SHARE).max(LEAST_US.min(default_us * LEAST_SHARE / 2.0)).max(LEAST_OF_SMALL_US)
}

/// Chooses. The default is arm 0: it wins ties, and wherever the gain of another is not certain.
pub fn choose(asked: &Asked<'_>) -> Chosen {
    let threshold = threshold_us(asked.default.cpu_us as f64);
    // Where a gain is at its low end, so is what the default takes.
    let certain = threshold.min(threshold_us(asked.default.low_us as f64));
    let mut verdicts = Verdicts::of(asked, certain);
    if asked.learning == Learning::Off {
        return verdicts.default(ChoiceReason::LearningOff, &Rejection::Guard);
    }
    match asked.control {
        Some(PlanControl::Forbid) => return verdicts.default(ChoiceReason::Ordered, &Rejection::Forbidden),
        Some(PlanControl::Pin { plan, .. }) => {
            return match position(asked.candidates, *plan) {
                Some(at) => verdicts.take(at, PlanRole::Pinned, ChoiceReason::Ordered),
                None => verdicts.default(ChoiceReason::PinLost, &Rejection::Guard),
            };
        }
        Some(PlanControl::Freeze) => {
            return match in_force(asked.state).and_then(|plan| position(asked.candidates, plan)) {
                Some(at) => verdicts.take(at, PlanRole::Adopted, ChoiceReason::Ordered),
                None => verdicts.default(ChoiceReason::Ordered, &Rejection::Guard),
            };
        }
        None => {}
    }
    if asked.learning == Learning::Observe {
        return verdicts.default(ChoiceReason::ObserveOnly, &Rejection::ObserveOnly);
    }
    if let Some(was) = asked.engine_was {
        return verdicts.default(ChoiceReason::EngineChanged { was: was.clone() }, &Rejection::Guard);
    }
    if asked.candidates.is_empty() {
        return verdicts.default(ChoiceReason::NoOther, &Rejection::Guard);
    }
    if let Some(chosen) = keep(asked, &mut verdicts, threshold) {
        return chosen;
    }
    let resting = rests(asked.state, asked.volume);
    if !resting && let Some((at, because)) = best(asked, threshold, certain, &verdicts) {
        return verdicts.take(at, PlanRole::Trial, because);
    }
    let because = match asked.state.phase {
        GuardPhase::RolledBack { took_us, reference_us, .. } if resting || asked.state.since_default > 0 => {
            ChoiceReason::RolledBack { took_us, reference_us }
        }
        _ => ChoiceReason::NoCertainGain,
    };
    Chosen { candidate: None, role: PlanRole::Default, because, rejections: verdicts.rejections }
}

/// True if the default is to be compared with again, for a plan that was good in `runs` runs.
pub fn control_due(state: &GuardState, runs: u32) -> bool {
    state.since_default >= CONTROL_EVERY + runs.min(90)
}

/// What `plan` lost when it was tried over about as much data.
pub fn refused(state: &GuardState, plan: Fingerprint, volume: u32) -> Option<&RefusedPlan> {
    state.refused.iter().find(|refused| refused.plan == plan && is_alike(refused, volume))
}

fn position(candidates: &[Candidate], plan: Fingerprint) -> Option<usize> {
    candidates.iter().position(|candidate| candidate.plan.key == Some(plan))
}

/// The plan that runs in place of the default: adopted, or on trial.
pub fn in_force(state: &GuardState) -> Option<Fingerprint> {
    match state.phase {
        GuardPhase::Adopted { plan, .. } | GuardPhase::Trial { plan, .. } => Some(plan),
        GuardPhase::Default | GuardPhase::RolledBack { .. } => None,
    }
}

/// Goes on with the plan in force, or compares it with the default.
fn keep(asked: &Asked<'_>, verdicts: &mut Verdicts, threshold: f64) -> Option<Chosen> {
    let at = in_force(asked.state).and_then(|plan| position(asked.candidates, plan))?;
    let mine = asked.candidates.get(at)?;
    // Another one may be certain to be better than the one in force.
    let better = asked.candidates.iter().enumerate().any(|(other, candidate)| {
        candidate.plan.key.is_some()
            && other != at
            && verdicts.rejections.get(other).is_some_and(|r| !matches!(r, Rejection::LostBefore { .. }))
            && candidate.gain.low > mine.gain.high.max(0.0) + threshold
    });
    if better {
        return None;
    }
    let GuardPhase::Adopted { runs, .. } = asked.state.phase else {
        let because = ChoiceReason::Gain {
            expected_us: mine.gain.us as i64,
            low_us: mine.gain.low as i64,
            high_us: mine.gain.high as i64,
            threshold_us: threshold as u64,
        };
        return Some(verdicts.take(at, PlanRole::Trial, because));
    };
    let due = control_due(asked.state, runs);
    if let Some((other, because)) = challenger(asked, at, verdicts) {
        return Some(verdicts.take(other, PlanRole::Trial, because));
    }
    let risk = match (reference_us(asked.state, asked.rows, None), asked.state.latest) {
        (Some(default), Some(latest)) => default.saturating_sub(latest.cpu_us),
        _ => mine.gain.high.max(0.0) as u64,
    };
    if due && risk <= asked.budget_us {
        let mut chosen =
            verdicts.default(ChoiceReason::Control { after: asked.state.since_default }, &Rejection::Guard);
        chosen.role = PlanRole::Control;
        return Some(chosen);
    }
    Some(verdicts.take(at, PlanRole::Adopted, ChoiceReason::Proven { runs }))
}

/// A candidate that is likely to take much less than the adopted one at `at`, which takes over if it does not.
fn challenger(asked: &Asked<'_>, at: usize, verdicts: &Verdicts) -> Option<(usize, ChoiceReason)> {
    let (mine, latest) = (asked.candidates.get(at)?, asked.state.latest?);
    if rests(asked.state, asked.volume) || mine.predicted.cpu_us == 0 {
        return None;
    }
    let took = latest.cpu_us as f64;
    // What both are expected to take, as the one is known to.
    let scale = took / mine.predicted.cpu_us as f64;
    let gain = |other: &Candidate| took - other.predicted.cpu_us as f64 * scale;
    let risk = |other: &Candidate| (other.predicted.high_us as f64 * scale - took).clamp(0.0, took) as u64;
    let threshold = threshold_us(took).max(took * LEAST_OF_CHALLENGE);
    let open = |&(other, candidate): &(usize, &Candidate)| {
        candidate.plan.key.is_some()
            && other != at
            && verdicts.rejections.get(other).is_some_and(|r| !matches!(r, Rejection::LostBefore { .. }))
            && gain(candidate) > threshold
            && risk(candidate) <= asked.budget_us
    };
    let open = asked.candidates.iter().enumerate().filter(open);
    let (other, candidate) = open.min_by_key(|(_, candidate)| candidate.predicted.cpu_us)?;
    let (expected_us, took_us) = (gain(candidate) as i64, latest.cpu_us);
    Some((other, ChoiceReason::Challenge { expected_us, took_us, budget_us: asked.budget_us }))
}

/// The candidate with the largest certain gain; else the one whose gain is likely and whose loss the budget covers.
fn best(asked: &Asked<'_>, threshold: f64, certain: f64, verdicts: &Verdicts) -> Option<(usize, ChoiceReason)> {
    let open = |at: &usize| {
        asked.candidates.get(*at).is_some_and(|candidate| candidate.plan.key.is_some())
            && verdicts.rejections.get(*at).is_some_and(|rejection| !matches!(rejection, Rejection::LostBefore { .. }))
    };
    let gain = |at: usize| asked.candidates.get(at).map(|c| c.gain).unwrap_or_default();
    let sure = (0..asked.candidates.len())
        .filter(open)
        .filter(|&at| gain(at).low > certain)
        .max_by(|&a, &b| gain(a).us.total_cmp(&gain(b).us).then(b.cmp(&a)));
    if let Some(at) = sure {
        let Gain { us, low, high } = gain(at);
        let because = ChoiceReason::Gain {
            expected_us: us as i64,
            low_us: low as i64,
            high_us: high as i64,
            threshold_us: certain as u64,
        };
        return Some((at, because));
    }
    // What was never measured cannot be told to be better or worse.
    asked.state.default?;
    let likely_us = threshold.max(asked.default.cpu_us as f64 * LEAST_TRIED);
    let likely = (0..asked.candidates.len())
        .filter(open)
        .filter(|&at| gain(at).us > likely_us && (-gain(at).low).max(0.0) as u64 <= asked.budget_us)
        .max_by(|&a, &b| gain(a).us.total_cmp(&gain(b).us).then(b.cmp(&a)))?;
    let because = ChoiceReason::Exploration {
        expected_us: gain(likely).us as i64,
        risk_us: (-gain(likely).low).max(0.0) as u64,
        budget_us: asked.budget_us,
    };
    Some((likely, because))
}

struct Verdicts {
    rejections: Vec<Rejection>,
}

impl Verdicts {
    fn of(asked: &Asked<'_>, certain: f64) -> Self {
        let of = |candidate: &Candidate| match candidate
            .plan
            .key
            .and_then(|plan| refused(asked.state, plan, asked.volume))
        {
            Some(refused) => Rejection::LostBefore { lost_us: refused.lost_us },
            None => Rejection::GainUncertain { threshold_us: certain as u64 },
        };
        Self { rejections: asked.candidates.iter().map(of).collect() }
    }

    fn default(&mut self, because: ChoiceReason, rejection: &Rejection) -> Chosen {
        let rejections = self.rejections.iter().map(|_| rejection.clone()).collect();
        Chosen { candidate: None, role: PlanRole::Default, because, rejections }
    }

    fn take(&mut self, at: usize, role: PlanRole, because: ChoiceReason) -> Chosen {
        let rejections = self.rejections.iter().map(|rejection| match rejection {
            Rejection::LostBefore { .. } => rejection.clone(),
            _ => Rejection::Slower,
        });
        Chosen { candidate: Some(at), role, because, rejections: rejections.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparklet_history::{Measured, RefusedPlan};

    use crate::choice::guard::{Ended, RESTS, Ran, advance};

    fn candidate(n: u8, us: f64, low: f64, high: f64) -> Candidate {
        Candidate {
            plan: PlanOutline { key: Some(Fingerprint([n; 16])), ..PlanOutline::default() },
            predicted: PlanPrediction { cpu_us: 0, low_us: 0, high_us: 0 },
            gain: Gain { us, low, high },
        }
    }

    const DEFAULT: PlanPrediction = PlanPrediction { cpu_us: 1_000_000, low_us: 500_000, high_us: 2_000_000 };

    fn asked<'a>(candidates: &'a [Candidate], state: &'a GuardState) -> Asked<'a> {
        Asked {
            default: &DEFAULT,
            candidates,
            state,
            control: None,
            budget_us: 0,
            learning: Learning::On,
            engine_was: None,
            volume: 10,
            rows: 1000,
        }
    }

    #[test]
    fn a_certain_gain_is_taken_and_an_uncertain_one_is_not() {
        let state = GuardState::default();
        let sure = [candidate(1, 500e3, 40e3, 800e3), candidate(2, 400e3, 60e3, 600e3)];
        let chosen = choose(&asked(&sure, &state));
        assert_eq!((chosen.candidate, chosen.role), (Some(1), PlanRole::Trial));
        let unsure = [candidate(1, 500e3, 40e3, 800e3)];
        let chosen = choose(&asked(&unsure, &state));
        assert_eq!(chosen.candidate, None);
        assert_eq!(chosen.rejections, [Rejection::GainUncertain { threshold_us: 50_000 }], "a tenth of the low end");
        // Ties are the default's.
        assert_eq!(choose(&asked(&[candidate(1, 0.0, 0.0, 0.0)], &state)).candidate, None);
    }

    #[test]
    fn what_was_not_planned_to_its_end_is_not_taken() {
        let mut draft = candidate(1, 900e3, 800e3, 950e3);
        draft.plan.key = None;
        let state = GuardState::default();
        assert_eq!(choose(&asked(&[draft.clone()], &state)).candidate, None);
        assert_eq!(choose(&asked(&[draft.clone(), candidate(2, 500e3, 400e3, 600e3)], &state)).candidate, Some(1));
        let phase = GuardPhase::Adopted { plan: Fingerprint([2; 16]), runs: 2 };
        let state = GuardState { phase, ..GuardState::default() };
        let chosen = choose(&asked(&[draft, candidate(2, 500e3, 400e3, 600e3)], &state));
        assert_eq!((chosen.candidate, chosen.role), (Some(1), PlanRole::Adopted));
    }

    #[test]
    fn a_plan_in_force_is_challenged_by_one_that_is_expected_to_be_much_better() {
        let at = |n, cpu_us| {
            let gain = 10_000_000.0 - cpu_us as f64;
            let predicted = PlanPrediction { cpu_us, low_us: 0, high_us: 10_000_000 };
            Candidate { predicted, ..candidate(n, gain, gain - 5e6, gain + 5e6) }
        };
        let took = Measured { cpu_us: 1_000_000, wall_us: 500_000, rows: 1000, work: None };
        let phase = GuardPhase::Adopted { plan: Fingerprint([1; 16]), runs: 1 };
        let state = GuardState { phase, latest: Some(took), ..GuardState::default() };
        let much = [at(1, 2_000_000), at(2, 1_000_000), at(3, 500_000)];
        let chosen = choose(&Asked { budget_us: 1_000_000, ..asked(&much, &state) });
        assert_eq!((chosen.candidate, chosen.role), (Some(2), PlanRole::Trial));
        let ChoiceReason::Challenge { expected_us, took_us, .. } = chosen.because else {
            panic!("{:?}", chosen.because)
        };
        assert_eq!((expected_us, took_us), (750_000, 1_000_000), "a quarter of what the plan in force took");
        let stays = |candidates: &[Candidate], state: &GuardState, budget_us| {
            let chosen = choose(&Asked { budget_us, ..asked(candidates, state) });
            assert_eq!((chosen.candidate, chosen.role), (Some(0), PlanRole::Adopted));
        };
        stays(&much, &state, 999_999);
        stays(&[at(1, 2_000_000), at(2, 1_500_000)], &state, 1 << 40);
        stays(&much, &GuardState { rests: 3, ..state.clone() }, 1 << 40);
        let refused = [2, 3].map(|n| RefusedPlan { plan: Fingerprint([n; 16]), lost_us: 7, volume: 10 });
        stays(&much, &GuardState { refused: refused.to_vec(), ..state.clone() }, 1 << 40);
    }

    #[test]
    fn exploration_needs_a_budget_and_a_measured_default() {
        let unsure = [candidate(1, 500e3, -90e3, 800e3)];
        let measured = Measured { cpu_us: 1_000_000, wall_us: 500_000, rows: 1000, work: None };
        let state = GuardState { default: Some(measured), ..GuardState::default() };
        assert_eq!(choose(&Asked { budget_us: 80_000, ..asked(&unsure, &state) }).candidate, None);
        let chosen = choose(&Asked { budget_us: 90_000, ..asked(&unsure, &state) });
        assert_eq!(chosen.candidate, Some(0));
        let state = GuardState::default();
        assert_eq!(choose(&Asked { budget_us: 90_000, ..asked(&unsure, &state) }).candidate, None);
    }

    #[test]
    fn what_lost_is_not_tried_again_until_the_volume_is_another() {
        let sure = [candidate(1, 500e3, 400e3, 800e3)];
        let refused = vec![RefusedPlan { plan: Fingerprint([1; 16]), lost_us: 7, volume: 10 }];
        let state = GuardState { refused, ..GuardState::default() };
        let chosen = choose(&asked(&sure, &state));
        assert_eq!((chosen.candidate, &chosen.rejections[0]), (None, &Rejection::LostBefore { lost_us: 7 }));
        assert_eq!(choose(&Asked { volume: 13, ..asked(&sure, &state) }).candidate, Some(0));
    }

    #[test]
    fn after_a_loss_nothing_is_tried_for_some_runs() {
        let sure = [candidate(2, 500e3, 400e3, 800e3)];
        let took = Measured { cpu_us: 2_000_000, wall_us: 0, rows: 1000, work: None };
        let ran = Ran {
            role: PlanRole::Trial,
            plan: Some(Fingerprint([1; 16])),
            took,
            default_high_us: None,
            default_us: None,
            volume: 10,
            ended: Ended::Succeeded,
            in_place_of: None,
            fell_back_us: Some(900_000),
        };
        let mut state = advance(GuardState::default(), &ran);
        let mut runs = 0;
        while choose(&asked(&sure, &state)).candidate.is_none() {
            assert!(matches!(choose(&asked(&sure, &state)).because, ChoiceReason::RolledBack { .. }));
            assert_eq!(choose(&Asked { volume: 13, ..asked(&sure, &state) }).candidate, Some(0));
            state = advance(state, &Ran { role: PlanRole::Default, plan: None, fell_back_us: None, ..ran });
            runs += 1;
        }
        assert_eq!(runs, RESTS, "one loss in ten runs");
    }

    #[test]
    fn orders_of_the_user_come_first() {
        let sure = [candidate(1, 500e3, 400e3, 800e3)];
        let state = GuardState::default();
        let with = |control: &PlanControl| choose(&Asked { control: Some(control), ..asked(&sure, &state) });
        assert_eq!(with(&PlanControl::Forbid).candidate, None);
        assert_eq!(with(&PlanControl::Freeze).candidate, None);
        let pin = |n| PlanControl::Pin { plan: Fingerprint([n; 16]), run: None };
        assert_eq!(with(&pin(1)).role, PlanRole::Pinned);
        assert_eq!(with(&pin(2)).because, ChoiceReason::PinLost);
        assert_eq!(choose(&Asked { learning: Learning::Observe, ..asked(&sure, &state) }).candidate, None);
    }

    #[test]
    fn an_adopted_plan_stays_and_the_default_runs_now_and_then() {
        let two = [candidate(1, 100e3, -50e3, 300e3), candidate(2, 120e3, 110e3, 130e3)];
        let plan = Fingerprint([1; 16]);
        let measured = |cpu_us| Some(Measured { cpu_us, wall_us: cpu_us, rows: 1000, work: None });
        let mut state = GuardState {
            phase: GuardPhase::Adopted { plan, runs: 3 },
            default: measured(1_000_000),
            latest: measured(700_000),
            since_default: 3,
            ..GuardState::default()
        };
        let chosen = choose(&asked(&two, &state));
        assert_eq!((chosen.candidate, chosen.role), (Some(0), PlanRole::Adopted));
        state.since_default = 30;
        assert_eq!(choose(&asked(&two, &state)).role, PlanRole::Adopted, "no budget");
        assert_eq!(choose(&Asked { budget_us: 300_000, ..asked(&two, &state) }).role, PlanRole::Control);
    }

    #[test]
    fn the_threshold_grows_with_the_query() {
        assert_eq!(threshold_us(5_000.0), 2_000.0);
        assert_eq!(threshold_us(100_000.0), 10_000.0);
        assert_eq!(threshold_us(10_000_000.0), 1_000_000.0);
    }
}
