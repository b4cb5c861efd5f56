//! What a module may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of the guests of one module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory of one instance.
    pub memory: usize,
    /// Longest time of one call, on one batch.
    pub timeout: Duration,
    /// Instructions (of wasmtime's count) of one call; none: not counted.
    pub fuel: Option<u64>,
    /// Most rows that a table function may give.
    pub max_rows: u64,
}

impl Limits {
    /// Most memory that can be asked for: what 32 bits can address.
    pub const MAX_MEMORY: usize = 4 << 30;
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 64 << 20, timeout: Duration::from_secs(10), fuel: None, max_rows: 1_000_000_000 }
    }
}
