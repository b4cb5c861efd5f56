//! A batch data engine that remembers its runs.
//!
//! This crate is the facade: [`prelude`] has what a program needs to run queries, the modules have the rest.
//!
//! ```no_run
//! use sparklet::prelude::*;
//!
//! # async fn example() -> sparklet::core::Result<()> {
//! let session = Session::new(SessionConfig { memory_limit: Some(2 << 30), ..SessionConfig::default() })?;
//! let sql = "SELECT carrier, avg(arr_delay) AS delay FROM 'data/flights.parquet' GROUP BY carrier";
//! let query = session.sql(sql, &Default::default()).await?.prepare().await?;
//! let rows = query.collect().await?;
//! println!("{} batches, {} operators observed", rows.len(), query.observe().nodes.len());
//! # Ok(()) }
//! ```
//!
//! Pipelines are loaded and run with [`pipeline`], runs are remembered with [`history`] and rendered with [`report`].

pub use sparklet_core as core;
pub use sparklet_history as history;
pub use sparklet_pipeline as pipeline;
pub use sparklet_report as report;

/// What `use sparklet::prelude::*` gives.
pub mod prelude {
    pub use sparklet_core::source::{Format, SourceOptions, SourceSpec};
    pub use sparklet_core::{DataFrame, Error, ErrorKind, PreparedQuery, ReceivedPlan, Session, SessionConfig};
    pub use sparklet_history::{History, HistoryOptions, RunRecord, RunSummary};
    pub use sparklet_pipeline::run::RunOptions;
    pub use sparklet_pipeline::{Diagnostic, Event, Pipeline};
    pub use sparklet_report::{Report, TextOptions};
}
