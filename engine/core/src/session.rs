//! A session: DataFusion's context with a bounded memory pool, a spill folder and slots.

use std::collections::BTreeMap;
use std::path::PathBuf;

use datafusion::common::ScalarValue;
use datafusion::execution::context::SessionContext;
use sparklet_history::SourceRecord;

use crate::error::Result;
use crate::query::DataFrame;
use crate::source::SourceSpec;

/// Settings of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Bound of the memory pool in bytes; none: 70 % of the memory that the process may use.
    pub memory_limit: Option<u64>,
    /// Tasks at the same time; none: the cores that the process may use.
    pub slots: Option<usize>,
    /// Folder for spill files; the session uses a folder of its own in it and removes that when dropped.
    pub spill_dir: PathBuf,
    /// Rows in a batch; none: DataFusion's default.
    pub batch_size: Option<usize>,
    /// DataFusion settings by dotted name, e.g. `datafusion.optimizer.prefer_hash_join` → `false`.
    pub options: BTreeMap<String, String>,
    /// Collect observations (fingerprints, statistics) of what runs.
    pub observe: bool,
}

/// Use of the memory pool, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Reserved now.
    pub reserved: u64,
    /// Highest reservation since the session began or [`Session::reset_peak_memory`] was called.
    pub peak: u64,
    /// Bound.
    pub limit: u64,
}

/// See the module. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Session;

impl Session {
    /// A session with `config`.
    pub fn new(_config: SessionConfig) -> Result<Self> {
        unimplemented!()
    }

    /// DataFusion's context.
    pub fn context(&self) -> &SessionContext {
        unimplemented!()
    }

    /// Slots in force.
    pub fn slots(&self) -> usize {
        unimplemented!()
    }

    /// Registers a source as table `name` and says what it found: files, bytes, rows, versions.
    pub async fn register_source(&self, _name: &str, _spec: &SourceSpec) -> Result<SourceRecord> {
        unimplemented!()
    }

    /// Plans one SQL statement; `$name` placeholders are bound to `params`.
    pub async fn sql(&self, _sql: &str, _params: &BTreeMap<String, ScalarValue>) -> Result<DataFrame> {
        unimplemented!()
    }

    /// Use of the memory pool.
    pub fn memory(&self) -> MemoryUsage {
        unimplemented!()
    }

    /// Starts the measurement of the peak anew and returns the old peak.
    pub fn reset_peak_memory(&self) -> u64 {
        unimplemented!()
    }
}
