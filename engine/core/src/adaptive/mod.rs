//! Staged, adaptive execution: where a wrong guess would change the plan, a part of it runs first, and the rest is planned from what
//! that part was.
//!
//! A boundary is an input of a join in the *logical* plan. Once its rows lie in an exchange it is a leaf with exact statistics, and what
//! is above is planned anew. Below a minimum of predicted work there are no boundaries and the plan is plain DataFusion's.

mod boundary;
mod driver;
mod inputs;
mod join;
mod leaf;
mod rule;
#[cfg(test)]
mod tests;
mod units;

use std::str::FromStr;
use std::sync::Arc;

use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;

pub(crate) use driver::{Driver, Staged};

use crate::session::Session;

/// What runs the query with plans `logical` and `physical` in stages; none where it is run as it is.
pub(crate) fn driver(
    session: &Session,
    state: &SessionState,
    logical: &LogicalPlan,
    physical: &Arc<dyn ExecutionPlan>,
) -> Option<Arc<Driver>> {
    let settings = session.adaptive();
    if settings.mode == AdaptiveMode::Off {
        return None;
    }
    let memory = session.memory().limit;
    let limit = driver::build_bytes_limit(memory, state.config().target_partitions());
    let boundaries = boundary::find(logical, physical, session.sources().as_ref(), settings, limit);
    (!boundaries.is_empty()).then(|| Arc::new(Driver::new(state, settings, memory, logical.clone(), boundaries)))
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
    /// Change a partitioned join into a broadcast where its build side turns out small.
    pub broadcast: bool,
    /// Do not run what an empty input makes empty.
    pub skip_empty: bool,
    /// Run joins that would not fit the memory pool over smaller buckets.
    pub memory: bool,
    /// Smallest predicted work of a join, in rows of both inputs, for which its inputs are run as stages.
    pub min_rows: u64,
}

impl Default for AdaptiveSettings {
    fn default() -> Self {
        Self {
            mode: AdaptiveMode::On,
            split_skew: true,
            broadcast: true,
            skip_empty: true,
            memory: true,
            min_rows: 8 << 20,
        }
    }
}
