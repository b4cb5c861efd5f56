//! Live counters of a running query.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters that a running query updates and anyone may read.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
    scanned_rows: AtomicU64,
    scanned_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

/// Counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// Rows out of the plan's root.
    pub rows: u64,
    /// Rows out of the plan's scans.
    pub scanned_rows: u64,
    /// Bytes read by the plan's scans.
    pub scanned_bytes: u64,
    /// Size of what the scans will read at the most; 0 where unknown.
    pub total_bytes: u64,
}

impl Progress {
    /// Counters now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        ProgressSnapshot {
            rows: self.rows.load(Relaxed),
            scanned_rows: self.scanned_rows.load(Relaxed),
            scanned_bytes: self.scanned_bytes.load(Relaxed),
            total_bytes: self.total_bytes.load(Relaxed),
        }
    }

    /// Sets all counters.
    pub fn set(&self, now: ProgressSnapshot) {
        self.rows.store(now.rows, Relaxed);
        self.scanned_rows.store(now.scanned_rows, Relaxed);
        self.scanned_bytes.store(now.scanned_bytes, Relaxed);
        self.total_bytes.store(now.total_bytes, Relaxed);
    }
}
