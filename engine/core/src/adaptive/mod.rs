//! Staged, adaptive execution: where a wrong guess would change the plan, a part of it runs first, and the rest is planned from what
//! that part was.
//!
//! A boundary is an input of a join in the *logical* plan. Once its rows lie in an exchange it is a leaf with exact statistics, and what
//! is above is planned anew. Below a minimum of predicted work there are no boundaries and the plan is plain DataFusion's.

mod boundary;
mod clock;
mod driver;
#[cfg(test)]
mod every;
#[cfg(test)]
mod faults;
mod governor;
mod grace;
mod group_stage;
mod groups;
mod hot;
mod inputs;
mod join;
mod known;
mod leaf;
mod learned;
mod parts;
mod path;
mod prefix;
mod readers;
mod record;
mod reorder;
mod rule;
mod running;
mod share;
mod slots;
#[cfg(test)]
mod tests;
mod uncut;
mod units;
mod windows;

use std::str::FromStr;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;

use boundary::{Cutting, Look, Reach};
use driver::Cuts;
pub(crate) use driver::{Driver, build_bytes_limit};
pub(crate) use known::KnownKeys;
use reorder::Reorderer;
pub(crate) use running::Running;
pub(crate) use uncut::{Uncut, uncut};

use crate::observe::scanned_bytes;
use crate::session::Session;

/// What runs the query with plans `logical` and `physical` in stages; none where it is run as it is.
pub(crate) fn driver(
    session: &Session,
    state: &SessionState,
    logical: &LogicalPlan,
    physical: &Arc<dyn ExecutionPlan>,
    running: &Arc<Running>,
    known: &Arc<KnownKeys>,
) -> Option<Arc<Driver>> {
    let reach = match session.adaptive().mode {
        AdaptiveMode::Off => return None,
        AdaptiveMode::On => Reach::Worthwhile,
        AdaptiveMode::Force => Reach::EveryJoin,
    };
    reaching(session, state, logical, physical, running, known, reach).map(Arc::new)
}

/// What runs the query after an attempt without stages has ended with `error` for want of memory; none where there is nothing to stage.
pub(crate) fn after_exhaustion(
    session: &Session,
    state: &SessionState,
    logical: &LogicalPlan,
    physical: &Arc<dyn ExecutionPlan>,
    running: &Arc<Running>,
    error: &DataFusionError,
) -> Option<Arc<Driver>> {
    let nothing = Arc::default();
    let mut driver = reaching(session, state, logical, physical, running, &nothing, Reach::AfterExhaustion)?;
    driver.instead_of = Some(error.strip_backtrace());
    Some(Arc::new(driver))
}

fn reaching(
    session: &Session,
    state: &SessionState,
    logical: &LogicalPlan,
    physical: &Arc<dyn ExecutionPlan>,
    running: &Arc<Running>,
    known: &Arc<KnownKeys>,
    reach: Reach,
) -> Option<Driver> {
    let settings = session.adaptive();
    let memory = session.memory().limit;
    let slots = state.config().target_partitions();
    let limit = driver::build_bytes_limit(memory, slots);
    let sources = session.sources();
    let look = Look { settings, build_bytes_limit: limit, reach, slots, known };
    let Cutting { boundaries, left_out } = boundary::find(logical, physical, sources.as_ref(), &look);
    boundaries.iter().filter_map(record::begin_with_split).for_each(|adaptation| running.adapted_once(adaptation));
    left_out.into_iter().for_each(|(what, run)| running.adapted_once(record::leave_out(what, run)));
    let shares = settings.share && reach != Reach::Worthwhile || self::shares(settings, physical);
    let shared = if shares { share::repeated(logical) } else { Vec::new() };
    let worth_it = !boundaries.is_empty() || !shared.is_empty();
    let cuts = Cuts { shared, boundaries, reach };
    let reorderer = || Reorderer::new(session.clone(), Arc::clone(known), reach);
    worth_it.then(|| {
        let driver = Driver::new(state, settings, memory, logical.clone(), cuts, Arc::clone(running)).naming(sources);
        driver.reordering(settings.reorder.then(reorderer))
    })
}

/// Whether subplans that stand more than once in `plan` are computed once when it runs.
pub(crate) fn shares(settings: &AdaptiveSettings, plan: &Arc<dyn ExecutionPlan>) -> bool {
    let large = || match settings.mode {
        AdaptiveMode::Off => false,
        AdaptiveMode::On => scanned_bytes(plan) >= settings.share_min_bytes,
        AdaptiveMode::Force => true,
    };
    settings.share && large()
}

/// Whether runs adapt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AdaptiveMode {
    /// Plain DataFusion.
    Off,
    /// Where the predicted work is worth it.
    #[default]
    On,
    /// Wherever it can be done, however small; for tests and for looking at it.
    Force,
}

impl AdaptiveMode {
    /// Name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Force => "force",
        }
    }
}

impl FromStr for AdaptiveMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "on" => Ok(Self::On),
            "force" => Ok(Self::Force),
            other => Err(format!("`{other}` is none of `on`, `off`, `force`")),
        }
    }
}

/// Settings of adaptive execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveSettings {
    /// Whether runs adapt.
    pub mode: AdaptiveMode,
    /// Cut hot buckets of joins into slices.
    pub split_skew: bool,
    /// Cut hot groups of aggregates with DISTINCT arguments.
    pub split_groups: bool,
    /// Cut hot partitions of windows.
    pub split_windows: bool,
    /// Change a partitioned join into a broadcast where its build side turns out small, and back where it turns out large.
    pub broadcast: bool,
    /// Do not run what an empty input makes empty.
    pub skip_empty: bool,
    /// Run joins that would not fit the memory pool over smaller buckets.
    pub memory: bool,
    /// Compute subplans that a query has more than once a single time.
    pub share: bool,
    /// Use what earlier runs have found of keys.
    pub known_keys: bool,
    /// Run an input of a join with what the other one, which is finished, says of its keys.
    pub push_keys: bool,
    /// Run the joins that are still to come in another order where a finished input has other rows than were expected.
    pub reorder: bool,
    /// Change the number of slots while a stage runs.
    pub slots: bool,
    /// Smallest size of the files that a query reads, in bytes, from which subplans are shared.
    pub share_min_bytes: u64,
    /// Fewest slots for which inputs of large joins are run as stages to look for skew: with two, a hot key of 40 % costs at the most a
    /// third of the join's time, about what keeping both inputs costs (measured).
    pub min_slots: usize,
    /// Smallest predicted work of a join, in rows of both inputs, for which its inputs are run as stages.
    pub min_rows: u64,
}

impl Default for AdaptiveSettings {
    fn default() -> Self {
        Self {
            mode: AdaptiveMode::On,
            split_skew: true,
            split_groups: true,
            split_windows: true,
            broadcast: true,
            skip_empty: true,
            memory: true,
            share: true,
            known_keys: true,
            push_keys: true,
            reorder: true,
            slots: true,
            share_min_bytes: 8 << 20,
            min_slots: 4,
            min_rows: 8 << 20,
        }
    }
}
