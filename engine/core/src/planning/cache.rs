//! The recurring case: the same query over about as much data, by the same engine, is planned as it was, without looking again.
//!
//! What is looked up is the last run's choice. It holds for a few runs: the default where no other candidate had a gain to expect, a plan that
//! has proved itself until the default is due for a comparison.

use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use sparklet_history::{
    ChoiceReason, ChoiceRecord, Fingerprint, GuardPhase, GuardState, JoinChoice, PlanChange, PlanRole,
};
use sparklet_optimizer::Learning;
use sparklet_optimizer::choice::decide::control_due;
use sparklet_optimizer::choice::threshold_us;

use super::arms::{self, Arm};
use crate::session::Session;

/// Look-ups in a row: then it is looked for again, for models and evidence have changed meanwhile.
pub(super) const MOST_LOOK_UPS: u32 = 5;

/// The same where the literals are others.
const MOST_OF_OTHER_LITERALS: u32 = 2;

/// The query of now.
pub(super) struct Asked<'a> {
    pub(super) query: Option<Fingerprint>,
    /// The same without literals.
    pub(super) template: Option<Fingerprint>,
    pub(super) volume: u32,
    pub(super) rows: u64,
    pub(super) session: &'a Session,
    pub(super) state: &'a SessionState,
}

/// The choice that `last` tells to make again, and its plan (none: the default); none where it must be looked for anew.
pub(super) fn look_up(
    last: &ChoiceRecord,
    guard: &GuardState,
    asked: &Asked<'_>,
    default: &Arm,
) -> Result<Option<(Option<Arm>, ChoiceRecord)>> {
    // With other literals there may be something to gain that there was not: that is looked for again sooner.
    let exact = asked.query.is_some() && last.query == asked.query;
    let alike = asked.template.is_some() && last.template == asked.template;
    let most = if exact { MOST_LOOK_UPS } else { MOST_OF_OTHER_LITERALS };
    let same = (exact || alike) && last.volume == asked.volume && last.looked_up < most;
    // A choice without evidence is the first run's: there is some now.
    if !same || last.evidence.is_empty() || last.control.is_some() || asked.session.learning() != Learning::On {
        return Ok(None);
    }
    let again = |role, because| ChoiceRecord {
        role,
        because,
        query: asked.query,
        rows_read: asked.rows,
        unused: None,
        fell_back: None,
        fallback: None,
        cached: true,
        looked_up: last.looked_up + 1,
        cpu_us: None,
        reference_us: None,
        work: None,
        guard: guard.clone(),
        ..last.clone()
    };
    let plain = matches!(last.because, ChoiceReason::NoOther | ChoiceReason::NoCertainGain);
    let default_us = last.default.map_or(0.0, |default| default.cpu_us as f64);
    let hopeless = last.rejected.iter().all(|rejected| (rejected.gain_us[0] as f64) < threshold_us(default_us));
    if last.role == PlanRole::Default && plain && hopeless && guard.phase == GuardPhase::Default {
        return Ok(Some((None, again(PlanRole::Default, last.because.clone()))));
    }
    // Joins are told by their subplans with literals.
    let GuardPhase::Adopted { plan, runs } = guard.phase else { return Ok(None) };
    if !exact {
        return Ok(None);
    }
    let joins: Option<Vec<JoinChoice>> = last
        .chosen
        .changes
        .iter()
        .map(|change| if let PlanChange::Join(join) = change { Some(join.clone()) } else { None })
        .collect();
    // A query that was written anew has to be written anew again.
    let Some(joins) = joins.filter(|joins| !joins.is_empty() && last.chosen.key == Some(plan)) else { return Ok(None) };
    if control_due(guard, runs) {
        return Ok(None);
    }
    let arm = arms::with_joins(asked.session, asked.state, default, joins)?.map(|arm| arm.named(asked.session));
    let Some(arm) = arm.filter(|arm| arm.key() == plan) else { return Ok(None) };
    Ok(Some((Some(arm), again(PlanRole::Adopted, ChoiceReason::Proven { runs }))))
}
