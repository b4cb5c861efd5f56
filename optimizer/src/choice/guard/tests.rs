use proptest::prelude::*;

use super::*;

fn plan(n: u8) -> Fingerprint {
    Fingerprint([n; 16])
}

fn ran(role: PlanRole, cpu_us: u64, rows: u64) -> Ran {
    let of = if matches!(role, PlanRole::Default | PlanRole::Control) { 0 } else { 1 };
    Ran {
        role,
        plan: Some(plan(of)),
        took: Measured { cpu_us, wall_us: cpu_us, rows, work: None },
        default_high_us: None,
        default_us: None,
        volume: rows.max(1).ilog2(),
        ended: Ended::Succeeded,
        in_place_of: None,
        fell_back_us: None,
    }
}

#[test]
fn a_trial_that_wins_is_adopted_and_saves() {
    let state = advance(GuardState::default(), &ran(PlanRole::Default, 1_000_000, 100));
    let state = advance(state, &ran(PlanRole::Trial, 400_000, 100));
    assert_eq!(state.phase, GuardPhase::Adopted { plan: plan(1), runs: 1 });
    assert_eq!(state.saved_us, 600_000);
    // Three times the data: no regression, and three times the saving.
    let state = advance(state, &ran(PlanRole::Adopted, 1_200_000, 300));
    assert_eq!(state.phase, GuardPhase::Adopted { plan: plan(1), runs: 2 });
    assert_eq!(state.saved_us, 600_000 + 1_800_000);
    assert_eq!(state.regret_us, 0);
}

#[test]
fn a_trial_that_loses_is_rolled_back_and_refused() {
    let state = advance(GuardState::default(), &ran(PlanRole::Default, 1_000_000, 100));
    let state = advance(state, &ran(PlanRole::Trial, 1_500_000, 100));
    assert_eq!(state.phase, GuardPhase::RolledBack { plan: plan(1), took_us: 1_500_000, reference_us: 1_000_000 });
    assert_eq!((state.regret_us, state.saved_us), (500_000, -500_000));
    assert_eq!(state.refused[0].plan, plan(1));
}

#[test]
fn an_adopted_plan_that_loses_against_its_control_is_rolled_back() {
    let state = advance(GuardState::default(), &ran(PlanRole::Default, 1_000_000, 100));
    let state = advance(state, &ran(PlanRole::Trial, 800_000, 100));
    let state = advance(state, &ran(PlanRole::Control, 500_000, 100));
    assert!(matches!(state.phase, GuardPhase::RolledBack { .. }), "{state:?}");
    assert_eq!(state.default.map(|d| d.cpu_us), Some(500_000));
}

#[test]
fn a_cancelled_trial_lost_and_bad_data_tells_nothing() {
    let before = advance(GuardState::default(), &ran(PlanRole::Default, 1_000_000, 100));
    let lost = Ran { ended: Ended::Lost, ..ran(PlanRole::Trial, 10_000, 100) };
    assert!(matches!(advance(before.clone(), &lost).phase, GuardPhase::RolledBack { .. }));
    let untold = Ran { ended: Ended::Untold, ..ran(PlanRole::Trial, 10_000, 100) };
    assert_eq!(advance(before.clone(), &untold), before);
    let fell = Ran { fell_back_us: Some(70_000), ..ran(PlanRole::Trial, 1_100_000, 100) };
    let after = advance(before, &fell);
    assert!(matches!(after.phase, GuardPhase::RolledBack { .. }));
    assert_eq!(after.regret_us, 70_000);
    assert_eq!(after.default.map(|default| default.cpu_us), Some(1_100_000), "the default was measured, too");
}

#[test]
fn a_trial_that_was_ended_when_the_default_has_more_to_do_may_be_tried_again() {
    let before = advance(GuardState::default(), &ran(PlanRole::Default, 1_000_000, 100));
    let fell = |lost, took| Ran { fell_back_us: Some(lost), ..ran(PlanRole::Trial, took, 100) };
    let after = advance(before.clone(), &fell(900_000, 1_800_000));
    assert!(matches!(after.phase, GuardPhase::RolledBack { .. }) && rests(&after, 6), "nothing is tried soon");
    assert_eq!(after.refused, [], "but then it may be");
    assert_eq!((after.regret_us, after.default.map(|default| default.cpu_us)), (900_000, Some(1_800_000)));
    for (lost, took) in [(900_000, 1_000_000), (100_000, 1_800_000), (900_000, 900_000)] {
        let after = advance(before.clone(), &fell(lost, took));
        assert_eq!(after.refused.len(), 1, "{lost} and {took}");
    }
}

#[test]
fn without_a_measured_default_only_what_is_beyond_its_interval_loses() {
    let predicted =
        |took| Ran { default_us: Some(1_000_000), default_high_us: Some(3_000_000), ..ran(PlanRole::Trial, took, 100) };
    let state = advance(GuardState::default(), &predicted(2_000_000));
    assert_eq!(state.phase, GuardPhase::Trial { plan: plan(1), undecided: 1 });
    assert_eq!(state.saved_us, 0, "a prediction saves nothing");
    assert!(matches!(advance(GuardState::default(), &predicted(4_000_000)).phase, GuardPhase::RolledBack { .. }));
}

#[test]
fn a_trial_without_effect_is_given_up() {
    let mut state = advance(GuardState::default(), &ran(PlanRole::Default, 1_000_000, 100));
    for _ in 0..MOST_UNDECIDED {
        state = advance(state, &ran(PlanRole::Trial, 1_000_000, 100));
    }
    assert_eq!(state.phase, GuardPhase::Default);
    assert_eq!(state.refused.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("SPARKLET_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
    ))]

    /// Whatever happens: sums never shrink, a loss never leaves its plan in force, and a plan that is in force has been run.
    #[test]
    fn any_sequence_of_runs(runs in prop::collection::vec((0..5_u8, 1_000..5_000_000_u64, 1..1_000_u64, 0..4_u8), 1..40)) {
        let mut state = GuardState::default();
        for (role, cpu, rows, ended) in runs {
            let role = [PlanRole::Default, PlanRole::Trial, PlanRole::Adopted, PlanRole::Control, PlanRole::Pinned][usize::from(role)];
            let mut run = ran(role, cpu, rows);
            run.ended = [Ended::Succeeded, Ended::Succeeded, Ended::Lost, Ended::Untold][usize::from(ended)];
            let before = state.clone();
            state = advance(state, &run);
            prop_assert!(state.spent_us >= before.spent_us);
            prop_assert!(state.regret_us >= before.regret_us);
            prop_assert!(state.refused.len() <= MOST_REFUSED);
            let in_force = matches!(state.phase, GuardPhase::Trial { .. } | GuardPhase::Adopted { .. });
            if matches!(role, PlanRole::Trial | PlanRole::Adopted) && run.ended == Ended::Lost {
                prop_assert!(!in_force);
            }
            if let GuardPhase::RolledBack { plan, .. } = state.phase {
                prop_assert!(state.refused.iter().any(|refused| refused.plan == plan));
            }
        }
    }
}

#[test]
fn a_plan_that_runs_in_place_of_an_adopted_one_is_compared_with_it() {
    let state = advance(GuardState::default(), &ran(PlanRole::Default, 10_000_000, 100));
    let adopted = advance(state, &ran(PlanRole::Trial, 1_000_000, 100));
    let other = |took, fell_back_us| Ran {
        plan: Some(plan(2)),
        in_place_of: Some(plan(1)),
        fell_back_us,
        ..ran(PlanRole::Trial, took, 100)
    };
    let better = advance(adopted.clone(), &other(400_000, None));
    assert_eq!(better.phase, GuardPhase::Adopted { plan: plan(2), runs: 1 });
    assert_eq!((better.latest.map(|latest| latest.cpu_us), better.saved_us), (Some(400_000), 18_600_000));
    // Better than the default, and worse than what is in force.
    for (took, fell_back_us, regret, rests) in
        [(1_500_000, None, 500_000, RESTS), (1_010_000, Some(900_000), 900_000, RESTS), (1_000_000, None, 0, 0)]
    {
        let after = advance(adopted.clone(), &other(took, fell_back_us));
        assert_eq!(after.phase, adopted.phase, "{took}");
        assert_eq!((after.regret_us, after.rests), (regret, rests), "{took}");
        assert_eq!(after.refused.last().map(|refused| refused.plan), Some(plan(2)));
        assert_eq!(after.default, adopted.default, "it did not run");
        assert_eq!(after.latest.map(|l| l.cpu_us), Some(if fell_back_us.is_some() { took } else { 1_000_000 }));
    }
    let heavier = advance(adopted, &other(1_800_000, Some(900_000)));
    assert_eq!((heavier.refused.len(), heavier.rests), (0, RESTS), "it may be tried again, but not soon");
}
