//! Clocks: wall time, CPU time of the process, and its resident memory.

use std::ops::AddAssign;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What a piece of work took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// Wall time in micro-seconds.
    pub(crate) wall_us: u64,
    /// CPU time of the process in micro-seconds, all threads, user and system.
    pub(crate) cpu_us: u64,
    /// Part of the wall time spent in planning, in micro-seconds.
    pub(crate) planning_us: u64,
    /// Highest reservation in the memory pool, in bytes.
    pub(crate) peak_memory_bytes: u64,
    /// Highest resident set of the process, in bytes; 0 where the platform does not tell.
    pub(crate) peak_rss_bytes: u64,
}

impl AddAssign for Cost {
    /// Times add up, peaks do not.
    fn add_assign(&mut self, other: Self) {
        self.wall_us += other.wall_us;
        self.cpu_us += other.cpu_us;
        self.planning_us += other.planning_us;
        self.peak_memory_bytes = self.peak_memory_bytes.max(other.peak_memory_bytes);
        self.peak_rss_bytes = self.peak_rss_bytes.max(other.peak_rss_bytes);
    }
}

/// A running measurement.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    cpu_us: u64,
}

impl Clock {
    /// Starts to measure.
    pub(crate) fn start() -> Self {
        reset_peak_rss();
        Self { cpu_us: process_cpu_us(), started: Instant::now() }
    }

    /// Wall time so far in micro-seconds.
    pub(crate) fn wall_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Wall and CPU time since the start.
    pub(crate) fn stop(&self) -> Cost {
        let wall_us = self.wall_us();
        let cpu_us = process_cpu_us().saturating_sub(self.cpu_us);
        Cost { wall_us, cpu_us, peak_rss_bytes: peak_rss_bytes(), ..Cost::default() }
    }
}

/// CPU time of this process in micro-seconds.
pub(crate) fn process_cpu_us() -> u64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

/// Linux keeps the highest resident set since the start of the process, or since `5` was written here (`man 5 proc`).
fn reset_peak_rss() {
    // Elsewhere there is no such file, and the peak reads as 0: nothing to report.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Watches what other processes take from the machine: on a busy one wall times say little.
#[derive(Debug)]
pub(crate) struct Neighbours {
    machine: Option<(u64, u64)>,
    cpu_us: u64,
}

impl Neighbours {
    /// Starts to watch.
    pub(crate) fn watch() -> Self {
        Self { machine: machine_ticks(), cpu_us: process_cpu_us() }
    }

    /// Share of the machine's CPU time since then that other processes (or virtual machines) used, 0 to 1; none where the platform
    /// does not tell.
    pub(crate) fn share(&self) -> Option<f64> {
        let ((busy, all), (busy_now, all_now)) = (self.machine?, machine_ticks()?);
        // Linux tells this file's times in hundredths of a second on every platform that this builds for (`USER_HZ`).
        let own = process_cpu_us().saturating_sub(self.cpu_us) / 10_000;
        let (busy, all) = (busy_now.saturating_sub(busy), all_now.saturating_sub(all));
        (all > 0).then(|| busy.saturating_sub(own) as f64 / all as f64)
    }
}

/// Busy and all ticks of all cores since the machine started (`man 5 proc_stat`).
fn machine_ticks() -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    ticks(stat.lines().next()?)
}

fn ticks(line: &str) -> Option<(u64, u64)> {
    let ticks: Vec<u64> = line.strip_prefix("cpu ")?.split_whitespace().map_while(|t| t.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of user and nice.
    let all: u64 = ticks.get(..8)?.iter().sum();
    Some((all - ticks[3] - ticks[4], all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_and_sleep_takes_no_cpu() {
        let clock = Clock::start();
        let mut sum = 0_u64;
        while clock.wall_us() < 20_000 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let busy = clock.stop();
        assert!(busy.wall_us >= 20_000 && busy.cpu_us >= 5_000, "{busy:?}");
    }

    #[test]
    fn the_machine_is_busy_when_it_is_not_idle() {
        assert_eq!(ticks("cpu  10 1 5 70 4 1 2 7 3 0"), Some((26, 100)));
        assert_eq!(ticks("cpu  10 1 5"), None);
        assert_eq!(ticks("intr 1"), None);
    }

    #[test]
    fn costs_add_times_and_keep_peaks() {
        let mut sum = Cost { wall_us: 1, cpu_us: 2, planning_us: 3, peak_memory_bytes: 40, peak_rss_bytes: 5 };
        sum += Cost { wall_us: 10, cpu_us: 20, planning_us: 30, peak_memory_bytes: 4, peak_rss_bytes: 50 };
        assert_eq!(sum, Cost { wall_us: 11, cpu_us: 22, planning_us: 33, peak_memory_bytes: 40, peak_rss_bytes: 50 });
    }
}
