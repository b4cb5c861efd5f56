//! Another order of the joins that are still to come, where a finished part of the plan has other rows than were expected.
//!
//! The search is the optimizer's, the one that candidates come from before a run: finished parts are relations whose rows are known, what is
//! known of all others is what was known before. Only blocks of joins that read a finished part are looked at.

use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::{Evidence, NoEvidence, Scope};
use sparklet_optimizer::{Cardinalities, Finished, Learning, OrderChange, candidate_after_stages};

use super::AdaptiveMode;
use super::boundary::{self, Boundary, Look, Reach};
use super::driver::expected_rows;
use super::known::KnownKeys;
use super::leaf::{self, ExchangeLeaf};
use crate::exchange::Exchange;
use crate::planning::volumes;
use crate::session::Session;

/// The rows of a finished part ÷ what was expected, or the other way round, from which another order is looked for.
const SURPRISE: f64 = 2.0;

/// Share of the expected cost of the joins still to come that another order saves at least, and nanoseconds of it: planning anew costs some
/// milliseconds, and of two orders of about the same cost the one that is there is as good.
const MIN_GAIN: f64 = 0.2;
const MIN_SAVED_NS: f64 = 20e6;

/// The share where all is done that can be.
const MIN_GAIN_FORCED: f64 = 0.01;

/// Times that the order is changed in one query at the most: a search may take a few milliseconds.
pub(super) const MOST: usize = 4;

/// A finished part of a plan that has other rows than were expected.
#[derive(Debug, Clone)]
pub(super) struct Surprise {
    pub(super) exchange: Arc<Exchange>,
    pub(super) expected_rows: u64,
}

impl Surprise {
    /// The greatest among the exchanges that `logical` reads and whose number is `from` or higher; with `forced`, any of them is one.
    pub(super) fn among(logical: &LogicalPlan, from: usize, forced: bool) -> Option<Self> {
        let mut read = Vec::new();
        leaf::exchanges(logical, &mut read);
        let new = read.into_iter().filter(|exchange| exchange.id >= from);
        let surprises = new.filter_map(|exchange| Self::of(exchange, forced));
        surprises.max_by(|a, b| a.factor().total_cmp(&b.factor()))
    }

    /// `exchange`, if it is one.
    pub(super) fn of(exchange: Arc<Exchange>, forced: bool) -> Option<Self> {
        let expected_rows = expected_rows(&exchange.stage)?;
        let surprise = Self { exchange, expected_rows };
        (forced || surprise.factor() >= SURPRISE).then_some(surprise)
    }

    fn factor(&self) -> f64 {
        let (rows, expected) = (self.exchange.size().rows.max(1) as f64, self.expected_rows.max(1) as f64);
        (rows / expected).max(expected / rows)
    }
}

/// Looks for other orders in one query.
pub(crate) struct Reorderer {
    session: Session,
    known: Arc<KnownKeys>,
    reach: Reach,
}

impl Reorderer {
    pub(crate) fn new(session: Session, known: Arc<KnownKeys>, reach: Reach) -> Self {
        Self { session, known, reach }
    }

    /// Where all is done that can be.
    pub(super) fn forced(&self) -> bool {
        self.session.adaptive().mode == AdaptiveMode::Force
    }

    /// `logical` with its joins in another order, and how it differs; none where that would not save enough.
    pub(super) fn candidate(&self, logical: &LogicalPlan) -> Option<(LogicalPlan, Vec<OrderChange>)> {
        let sources = self.session.sources();
        // The past is read before the first plan or not at all.
        let recalled = (self.session.learning() == Learning::On && self.session.has_recalled())
            .then(|| self.session.recalled())
            .filter(|recalled| !recalled.runs.is_empty());
        let (evidence, scope): (&dyn Evidence, _) = match &recalled {
            Some(recalled) => (recalled.evidence.as_ref(), recalled.scope()),
            None => (&NoEvidence, Scope { pipeline: self.session.pipeline(), environment: "default" }),
        };
        let mut cardinalities = Cardinalities::new(evidence, scope, sources.as_ref()).after(Arc::new(Exchanges));
        if let Some(recalled) = &recalled {
            cardinalities = cardinalities.at(volumes(recalled, &self.session.source_records()));
        }
        let forced = self.forced();
        let min_gain = if forced { MIN_GAIN_FORCED } else { MIN_GAIN };
        let (plan, changes) = candidate_after_stages(logical, &cardinalities, min_gain)?;
        let saved: f64 = changes.iter().map(|change| change.cost_before - change.cost_after).sum();
        (forced || saved >= MIN_SAVED_NS).then_some((plan, changes))
    }

    /// Where `logical`, planned as `physical`, is cut.
    pub(super) fn boundaries(
        &self,
        logical: &LogicalPlan,
        physical: &Arc<dyn ExecutionPlan>,
        slots: usize,
        build_bytes_limit: u64,
    ) -> Vec<Boundary> {
        let settings = self.session.adaptive();
        let look = Look { settings, build_bytes_limit, reach: self.reach, slots, known: &self.known };
        boundary::find(logical, physical, self.session.sources().as_ref(), &look).boundaries
    }
}

/// Exchanges, as what has run.
#[derive(Debug)]
struct Exchanges;

impl Finished for Exchanges {
    fn statistics(&self, leaf: &LogicalPlan) -> Option<Statistics> {
        let exchange = ExchangeLeaf::whole(leaf)?;
        Some(exchange.statistics())
    }
}
