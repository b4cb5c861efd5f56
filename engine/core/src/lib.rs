//! The engine: sessions, sources, sinks, observed execution.
//!
//! A [`Session`] owns DataFusion's context, a bounded memory pool, a spill folder and the slots. A query is a [`DataFrame`] until
//! it is prepared; a [`PreparedQuery`] runs to a stream, to rows or to files, and tells afterwards what each of its operators did
//! ([`PreparedQuery::observe`]). The history is read through [`SessionConfig::past`] alone, once, before the first plan that it may change;
//! nothing here writes outside the spill folder but [`PreparedQuery::write`]; [`models`] trains what the history teaches of costs, when a run
//! is over. After a crash, spill folders of dead sessions are swept by the next session beside them.

pub mod adaptive;
mod cpu;
mod diagnose;
pub mod error;
mod exchange;
pub mod functions;
pub mod memory;
pub mod models;
mod named;
mod observe;
mod partitions;
mod planning;
pub mod progress;
pub mod query;
mod reserve;
pub mod session;
pub mod sink;
pub mod source;
mod spill;
mod spill_files;
mod stall;
pub mod stores;
pub mod suggest;
mod tables;
pub mod tpch;
pub mod travel;
pub mod write;
mod yielding;

pub use adaptive::{AdaptiveMode, AdaptiveSettings};
pub use error::{Error, ErrorKind, Result};
pub use functions::{FunctionSettings, UserFunction};
pub use memory::MemoryUsage;
pub use observe::Observed;
pub use planning::conclude;
pub use progress::{Progress, ProgressSnapshot};
pub use query::{DataFrame, PreparedQuery, Waiting};
pub use reserve::Reservation;
pub use session::{Session, SessionConfig};
pub use sparklet_sandbox as sandbox;
pub use travel::ReceivedPlan;
pub use write::WriteSummary;

#[cfg(test)]
mod tests;
