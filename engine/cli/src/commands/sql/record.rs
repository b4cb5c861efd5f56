//! What an ad-hoc run leaves behind.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sparklet_core::{PreparedQuery, Session};
use sparklet_history::{
    CanonicalTexts, Fingerprint, Outcome, RECORD_VERSION, RunId, RunRecord, SourceRecord, StepRecord,
};
use sparklet_pipeline::measure::{self, Clock, micros, peak_rss_bytes};

use super::statement::Done;
use crate::failure::{Failure, Result};
use crate::settings::Settings;

/// Name that ad-hoc runs are remembered under.
const PIPELINE: &str = "sql";

/// Statements that are remembered as one run.
pub(super) struct AdHoc {
    id: RunId,
    started_at: DateTime<Utc>,
    clock: Clock,
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
            clock: Clock::start(),
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
            step.started_us = self.clock.wall_us().saturating_sub(step.wall_us);
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
            wall_us: self.clock.wall_us(),
            cpu_us: self.clock.cpu_us(),
            peak_memory_bytes: self.peak,
            peak_rss_bytes: peak_rss_bytes(),
            engine: measure::engine(),
            machine: measure::machine(),
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
    let unmeasured = StepRecord::unmeasured(name, Outcome::Failed);
    StepRecord { planning_us: micros(planning), decisions: query.decisions().to_vec(), ..unmeasured }
}
