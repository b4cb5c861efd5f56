//! The memory that a session may use, and the pool that bounds it.

use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, PeakRecordingPool, TrackConsumersPool};

/// Share of the usable memory that a session takes unless told otherwise, in percent.
pub const DEFAULT_MEMORY_PERCENT: u64 = 70;

/// Smallest accepted bound in bytes: below it not even one batch per operator fits.
pub const MIN_MEMORY_LIMIT: u64 = 16 << 20;

const FALLBACK_MEMORY: u64 = 2 << 30;

/// Largest consumers named in an out-of-memory error.
const CONSUMERS_NAMED: usize = 5;

/// Use of the memory pool, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Reserved now.
    pub reserved: u64,
    /// Highest reservation since the session began or the peak was reset.
    pub peak: u64,
    /// Bound.
    pub limit: u64,
}

/// Memory that this process may use in bytes: the machine's, or less where a cgroup says so.
pub fn usable_memory() -> u64 {
    static USABLE: OnceLock<u64> = OnceLock::new();
    *USABLE.get_or_init(|| {
        // Where the platform does not tell, a size that any machine of today has.
        let Ok(mut system) = sysinfo::System::new() else { return FALLBACK_MEMORY };
        system.refresh_memory();
        let machine = system.total_memory();
        system.cgroup_limits().map_or(machine, |limits| machine.min(limits.total_memory))
    })
}

/// Bound in bytes for a session that sets none.
pub fn default_memory_limit() -> u64 {
    (usable_memory() / 100 * DEFAULT_MEMORY_PERCENT).max(MIN_MEMORY_LIMIT)
}

/// A pool of `limit` bytes that shares fairly between operators that can spill, names the largest consumers when it is
/// exhausted, and records its peak.
pub(crate) fn pool(limit: u64) -> Arc<PeakRecordingPool> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let named = NonZeroUsize::new(CONSUMERS_NAMED).unwrap_or(NonZeroUsize::MIN);
    let tracked: Arc<dyn MemoryPool> = Arc::new(TrackConsumersPool::new(FairSpillPool::new(limit), named));
    Arc::new(PeakRecordingPool::new(tracked))
}
