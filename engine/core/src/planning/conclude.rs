//! What a run tells of the choice that was made for it.

use sparklet_history::{ChoiceRecord, Measured, Outcome, PlanRole};
use sparklet_optimizer::choice::guard::reference_us;
use sparklet_optimizer::choice::{Ended, Ran, advance};

/// Completes the record of a choice with what the run took: CPU time, and wall time of the execution, in micro-seconds.
pub fn conclude(choice: &mut ChoiceRecord, outcome: Outcome, cpu_us: u64, wall_us: u64) {
    let lost = choice.fell_back.as_ref().map(|fell| fell.lost_us);
    // What the trial took is lost with it; the rest is the default's.
    let own = cpu_us.saturating_sub(lost.unwrap_or(0));
    let ended = match outcome {
        Outcome::Succeeded | Outcome::CheckFailed => Ended::Succeeded,
        Outcome::Cancelled | Outcome::TimedOut => Ended::Lost,
        Outcome::Failed | Outcome::Skipped => Ended::Untold,
    };
    let other = !matches!(choice.role, PlanRole::Default | PlanRole::Control);
    choice.cpu_us = Some(cpu_us);
    choice.reference_us = reference_us(&choice.guard, choice.rows_read, choice.work).filter(|_| other);
    let ran = Ran {
        role: choice.role,
        plan: choice.chosen.key,
        took: Measured { cpu_us: own, wall_us, rows: choice.rows_read, work: choice.work },
        default_us: choice.default.map(|default| default.cpu_us),
        default_high_us: choice.default.map(|default| default.high_us),
        volume: choice.volume,
        ended,
        in_place_of: choice.fallback,
        fell_back_us: lost,
    };
    choice.guard = advance(std::mem::take(&mut choice.guard), &ran);
}
