//! What an ad-hoc run leaves behind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sparklet_core::memory::usable_memory;
use sparklet_core::{PreparedQuery, Session};
use sparklet_history::{
    CanonicalTexts, EngineRecord, Fingerprint, MachineRecord, Outcome, RECORD_VERSION, RunId, RunRecord, SourceRecord,
    StepRecord,
};

use super::statement::Done;
use crate::failure::{Failure, Result};
use crate::settings::Settings;

/// Name that ad-hoc runs are remembered under.
const PIPELINE: &str = "sql";

/// Statements that are remembered as one run.
pub(super) struct AdHoc {
    id: RunId,
    started_at: DateTime<Utc>,
    started: Instant,
    cpu: Duration,
    code: Fingerprint,
    steps: Vec<StepRecord>,
    sources: Vec<SourceRecord>,
    texts: CanonicalTexts,
    peak: u64,
}

impl AdHoc {
    /// Begins a run of `sql`.
    pub(super) fn begin(sql: &str) -> Self {
        Self {
            id: RunId::random(),
            started_at: Utc::now(),
            started: Instant::now(),
            cpu: cpu_time(),
            code: Fingerprint::of(sql),
            steps: Vec::new(),
            sources: Vec::new(),
            texts: CanonicalTexts::new(),
            peak: 0,
        }
    }

    /// Adds a statement.
    pub(super) fn add(&mut self, done: Done) {
        let Done { step, sources, texts, .. } = done;
        for source in sources {
            // The version that was read last is the one that counts.
            self.sources.retain(|known| known.name != source.name);
            self.sources.push(source);
        }
        self.texts.extend(texts);
        if let Some(mut step) = step {
            step.started_us = (self.started.elapsed().as_micros() as u64).saturating_sub(step.wall_us);
            self.peak = self.peak.max(step.peak_memory_bytes);
            self.steps.push(step);
        }
    }

    /// The record, if any statement ran a plan.
    pub(super) fn finish(
        self,
        session: &Session,
        settings: &Settings,
        params: &BTreeMap<String, String>,
        ended: &Result,
    ) -> Option<(RunRecord, CanonicalTexts)> {
        let last = self.steps.last()?;
        let error = match ended {
            Err(Failure::Engine(error)) => Some(error.record()),
            _ => last.error.clone(),
        };
        let record = RunRecord {
            version: RECORD_VERSION,
            id: self.id,
            pipeline: PIPELINE.to_owned(),
            environment: settings.environment.clone(),
            started_at: self.started_at,
            outcome: if ended.is_ok() { Outcome::Succeeded } else { failed(last.outcome) },
            wall_us: self.started.elapsed().as_micros() as u64,
            cpu_us: cpu_time().saturating_sub(self.cpu).as_micros() as u64,
            peak_memory_bytes: self.peak,
            peak_rss_bytes: peak_rss(),
            engine: EngineRecord {
                sparklet: env!("CARGO_PKG_VERSION").to_owned(),
                datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
            },
            machine: MachineRecord {
                cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
                memory_bytes: usable_memory(),
                platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            },
            settings: settings.in_force.records(),
            params: params.clone(),
            slots: session.slots() as u32,
            memory_limit_bytes: session.memory().limit,
            code_version: self.code,
            sources: self.sources,
            steps: self.steps,
            notes: Vec::new(),
            error,
        };
        Some((record, self.texts))
    }
}

/// A script that ended with an error did not succeed, also where the statement before the error did.
fn failed(last: Outcome) -> Outcome {
    if last == Outcome::Succeeded { Outcome::Failed } else { last }
}

/// A step for a planned statement that is about to run.
pub(super) fn step(name: &str, query: &PreparedQuery, planning: Duration) -> StepRecord {
    StepRecord {
        name: name.to_owned(),
        outcome: Outcome::Failed,
        started_us: 0,
        wall_us: 0,
        cpu_us: 0,
        planning_us: planning.as_micros() as u64,
        execution_us: 0,
        checks_us: 0,
        publish_us: 0,
        rows: 0,
        peak_memory_bytes: 0,
        output: None,
        checks: Vec::new(),
        plan: None,
        decisions: query.decisions().to_vec(),
        error: None,
    }
}

/// CPU time of the process so far.
pub(super) fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap_or_default(), now.tv_nsec.try_into().unwrap_or_default())
}

/// Highest resident set of the process in bytes, where the system tells.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_used_something() {
        assert!(cpu_time() > Duration::ZERO);
        if cfg!(target_os = "linux") {
            assert!(peak_rss().unwrap() > 1 << 20);
        }
    }
}
