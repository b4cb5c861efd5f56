//! A rewritten query that proved itself runs again before anything else is looked at.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use sparklet_history::ChoiceRecord;
use sparklet_optimizer::choice::{Then, in_force};
use sparklet_optimizer::fingerprint_logical;

use super::arms::Arm;
use super::looking::Looking;
use super::past::Past;
use super::{Planned, is_rewritten, micros, rows_of_tables};
use crate::session::Session;

/// What became of a plan that proved itself.
pub(super) enum Proven {
    /// It runs again.
    Planned(Box<Planned>),
    /// It could not be made again.
    Gone,
    /// There is none, or it is made of the default.
    No,
}

/// The plan of a rewritten query that proved itself in earlier runs of `step`, made again; the default is not planned for it.
pub(super) async fn proven(
    session: &Session,
    state: &SessionState,
    logical: &LogicalPlan,
    step: &str,
) -> Result<Proven> {
    let start = Instant::now();
    if session.control(Some(step)).is_some_and(|control| control.order.is_some()) {
        return Ok(Proven::No);
    }
    let recalled = session.recalled();
    let past = Past::of(session, &recalled, Some(step), None);
    let Some(plan) = in_force(&past.guard).filter(|_| past.engine_was.is_none()) else { return Ok(Proven::No) };
    let (Some((last, runs)), Some(wanted)) = (past.proven(plan), past.outline(plan)) else { return Ok(Proven::No) };
    let (Some(then), Some(rows)) = (past.known_before(plan), rows_of_tables(logical)) else { return Ok(Proven::No) };
    if !is_rewritten(&wanted.changes) {
        return Ok(Proven::No);
    }
    let names = Arc::new(fingerprint_logical(logical, session.sources().as_ref()));
    let identity = names.nodes.first().copied().flatten();
    let looking = Looking {
        session,
        state,
        past: &past,
        scope: recalled.scope(),
        sources: session.sources(),
        names,
        refused: &|_| false,
    };
    let evidence = Then { evidence: recalled.evidence.as_ref(), runs: then };
    let Some((arm, plain)) = Box::pin(looking.again(logical, &evidence, wanted, false)).await else {
        return Ok(Proven::Gone);
    };
    // One plan is made in any case.
    let added_us = micros(start.elapsed().saturating_sub(plain));
    let choice = ChoiceRecord { added_us, ..past.again(last, identity, runs, rows) };
    let Arm { state, logical, physical, .. } = arm;
    Ok(Proven::Planned(Box::new(Planned {
        state,
        logical,
        physical,
        choice,
        before: Some(past.before),
        composed: HashMap::new(),
        fallback: None,
    })))
}
