//! Clocks and meters of a run, and what a record says of the engine and the machine.

use std::time::{Duration, Instant};

use sparklet_core::memory::usable_memory;
use sparklet_history::{EngineRecord, MachineRecord};

/// Wall and CPU time since a moment.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    /// Wall time since the start in micro-seconds.
    pub fn wall_us(&self) -> u64 {
        micros(self.wall.elapsed())
    }

    /// CPU time (user + system) of the process since the start in micro-seconds.
    pub fn cpu_us(&self) -> u64 {
        micros(cpu_time().saturating_sub(self.cpu))
    }

    /// The moment of the start.
    pub fn instant(&self) -> Instant {
        self.wall
    }
}

/// Whole micro-seconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Highest resident set of the process so far in bytes, where the platform tells.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// This build.
pub fn engine() -> EngineRecord {
    EngineRecord {
        sparklet: env!("CARGO_PKG_VERSION").to_owned(),
        datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
    }
}

/// This machine, as far as the process may use it.
pub fn machine() -> MachineRecord {
    MachineRecord {
        cores: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_bytes: usable_memory(),
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_cpu_time() {
        let clock = Clock::start();
        let mut sum = 0_u64;
        while clock.wall_us() < 20_000 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        assert!(clock.cpu_us() > 1_000);
        assert!(clock.wall_us() >= 20_000);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_resident_set_is_known() {
        assert!(peak_rss_bytes().unwrap() > 1 << 20);
    }
}
