//! The engine: sessions, sources, sinks, observed execution.

pub mod error;
pub mod progress;
pub mod query;
pub mod session;
pub mod sink;
pub mod source;

pub use error::{Error, ErrorKind, Result};
pub use progress::{Progress, ProgressSnapshot};
pub use query::{DataFrame, PreparedQuery, WriteSummary};
pub use session::{MemoryUsage, Session, SessionConfig};
