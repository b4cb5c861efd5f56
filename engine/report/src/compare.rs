//! Which earlier runs a run is compared with, and what the comparison says.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sparklet_history::{Fingerprint, Outcome, RunId, RunRecord, RunSummary};

use crate::thresholds::{FEW_RUNS, MAX_EARLIER};

/// What a report needs to know of an earlier run; made from its record (then steps and settings are compared too) or its summary.
#[derive(Debug, Clone, PartialEq)]
pub struct Earlier {
    summary: RunSummary,
    /// Known only from a record.
    more: Option<More>,
}

#[derive(Debug, Clone, PartialEq)]
struct More {
    params: BTreeMap<String, String>,
    slots: u32,
    memory_limit_bytes: u64,
    cores: u32,
    engine: (String, String),
    /// Wall time by step that succeeded.
    steps: BTreeMap<String, u64>,
    /// Data version by source.
    sources: BTreeMap<String, Fingerprint>,
}

impl From<&RunRecord> for More {
    fn from(record: &RunRecord) -> Self {
        let succeeded = |s: &&sparklet_history::StepRecord| s.outcome == Outcome::Succeeded;
        Self {
            params: record.params.clone(),
            slots: record.slots,
            memory_limit_bytes: record.memory_limit_bytes,
            cores: record.machine.cores,
            engine: (record.engine.sparklet.clone(), record.engine.datafusion.clone()),
            steps: record.steps.iter().filter(succeeded).map(|s| (s.name.clone(), s.wall_us)).collect(),
            sources: record.sources.iter().map(|s| (s.name.clone(), s.data_version)).collect(),
        }
    }
}

impl From<&RunRecord> for Earlier {
    fn from(record: &RunRecord) -> Self {
        // Not `RunRecord::summary`: its sum of rows may overflow for a record that no engine wrote.
        let summary = RunSummary {
            id: record.id.clone(),
            pipeline: record.pipeline.clone(),
            environment: record.environment.clone(),
            started_at: record.started_at,
            outcome: record.outcome,
            wall_us: record.wall_us,
            cpu_us: record.cpu_us,
            rows: rows_written(record),
            steps: steps_run(record),
            code_version: record.code_version,
            data_version: record.data_version(),
        };
        Self { summary, more: Some(record.into()) }
    }
}

impl From<RunRecord> for Earlier {
    fn from(record: RunRecord) -> Self {
        (&record).into()
    }
}

impl From<RunSummary> for Earlier {
    fn from(summary: RunSummary) -> Self {
        Self { summary, more: None }
    }
}

impl From<&RunSummary> for Earlier {
    fn from(summary: &RunSummary) -> Self {
        summary.clone().into()
    }
}

/// Rows in published outputs of a run.
pub(crate) fn rows_written(record: &RunRecord) -> u64 {
    published(record).fold(0, |sum, o| sum.saturating_add(o.rows))
}

/// Outputs of a run that readers see.
pub(crate) fn published(record: &RunRecord) -> impl Iterator<Item = &sparklet_history::OutputRecord> {
    record.steps.iter().filter_map(|s| s.output.as_ref()).filter(|o| o.published && o.mode != "none")
}

fn steps_run(record: &RunRecord) -> u32 {
    u32::try_from(record.steps.iter().filter(|s| s.outcome != Outcome::Skipped).count()).unwrap_or(u32::MAX)
}

/// What differs between a run and the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The definition or its SQL.
    Code,
    /// The files of a source.
    Data,
    /// Run parameters (known from records only).
    Params,
    /// Slots or the memory limit (known from records only).
    Resources,
    /// Cores of the machine (known from records only).
    Machine,
    /// Version of sparklet or DataFusion (known from records only).
    Engine,
}

impl Change {
    /// The word for it in a report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Data => "data",
            Self::Params => "parameters",
            Self::Resources => "slots or memory",
            Self::Machine => "machine",
            Self::Engine => "engine",
        }
    }
}

/// One run in the comparison; times in micro-seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedRun {
    /// Name of the run.
    pub id: RunId,
    /// Start.
    pub started_at: DateTime<Utc>,
    /// Wall time.
    pub wall_us: u64,
    /// CPU time.
    pub cpu_us: u64,
    /// Rows written.
    pub rows: u64,
    /// `wall_us` ÷ the median of the earlier runs − 1.
    pub delta: Option<f64>,
    /// What differs from the next older run of the list.
    pub changed: Vec<Change>,
}

/// One step beside the same step of earlier runs; times in micro-seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparedStep {
    /// Name of the step.
    pub step: String,
    /// Wall time now.
    pub wall_us: u64,
    /// Median wall time of the earlier runs that have the step.
    pub median_wall_us: u64,
    /// Earlier runs that have the step.
    pub runs: usize,
    /// `wall_us` ÷ `median_wall_us` − 1.
    pub delta: Option<f64>,
}

/// A run beside comparable earlier ones: same pipeline and environment, succeeded, and as many steps where the code is the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Earlier runs handed in, comparable or not; none where nobody knows of them ([`Comparison::unknown`]).
    pub earlier_runs: Option<usize>,
    /// This run first, then the comparable earlier ones, newest first; the latter at most [`MAX_EARLIER`].
    pub runs: Vec<ComparedRun>,
    /// Median wall time of the comparable earlier runs.
    pub median_wall_us: Option<u64>,
    /// Shortest and longest wall time of them.
    pub spread_wall_us: Option<(u64, u64)>,
    /// Median rows written of them.
    pub median_rows: Option<u64>,
    /// This run's wall time ÷ median − 1: −0.12 is 12 % faster.
    pub delta: Option<f64>,
    /// True if this run's wall time lies outside the spread, and there are enough runs to speak of one.
    pub beyond_noise: bool,
    /// What differs from the newest comparable run.
    pub changed: Vec<Change>,
    /// Sources whose files differ from the newest comparable run (known from records only).
    pub changed_sources: Vec<String>,
    /// Steps beside their medians, in the order of this run; only from records.
    pub steps: Vec<ComparedStep>,
}

impl Comparison {
    /// Compares `record` with those of `earlier` that are comparable.
    pub fn new<E: Into<Earlier>>(record: &RunRecord, earlier: impl IntoIterator<Item = E>) -> Self {
        let this = Earlier::from(record);
        let mut all: Vec<Earlier> = earlier.into_iter().map(Into::into).filter(|e| is_before(&this, e)).collect();
        let earlier_runs = all.len();
        all.retain(|e| is_comparable(&this, e));
        all.sort_by_key(|e| std::cmp::Reverse(e.summary.started_at));
        all.dedup_by(|a, b| a.summary.id == b.summary.id);
        all.truncate(MAX_EARLIER);

        let walls: Vec<u64> = all.iter().map(|e| e.summary.wall_us).collect();
        let median_wall_us = median(&walls);
        let spread_wall_us = walls.iter().min().copied().zip(walls.iter().max().copied());
        let runs = std::iter::once(&this)
            .chain(&all)
            .zip(all.iter().map(Some).chain([None]))
            .map(|(run, older)| ComparedRun {
                id: run.summary.id.clone(),
                started_at: run.summary.started_at,
                wall_us: run.summary.wall_us,
                cpu_us: run.summary.cpu_us,
                rows: run.summary.rows,
                delta: median_wall_us.and_then(|m| delta(run.summary.wall_us, m)),
                changed: older.map(|o| changes(run, o)).unwrap_or_default(),
            })
            .collect();
        let beyond_noise = all.len() >= FEW_RUNS
            && spread_wall_us.is_some_and(|(low, high)| record.wall_us < low || record.wall_us > high);
        Self {
            earlier_runs: Some(earlier_runs),
            runs,
            median_wall_us,
            spread_wall_us,
            median_rows: median(&all.iter().map(|e| e.summary.rows).collect::<Vec<_>>()),
            delta: median_wall_us.and_then(|m| delta(record.wall_us, m)),
            beyond_noise,
            changed: all.first().map(|o| changes(&this, o)).unwrap_or_default(),
            changed_sources: all.first().map(|o| changed_sources(&this, o)).unwrap_or_default(),
            steps: compare_steps(record, &all),
        }
    }

    /// The comparison where the past cannot be read: nobody can say that `record` is the first run.
    pub fn unknown(record: &RunRecord) -> Self {
        Self { earlier_runs: None, ..Self::new(record, std::iter::empty::<Earlier>()) }
    }

    /// Comparable earlier runs.
    pub fn len(&self) -> usize {
        self.runs.len().saturating_sub(1)
    }

    /// True if there is no comparable earlier run.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if something differs from the newest comparable run.
    pub fn has_changed(&self, change: Change) -> bool {
        self.changed.contains(&change)
    }
}

fn is_before(this: &Earlier, other: &Earlier) -> bool {
    let (this, other) = (&this.summary, &other.summary);
    other.id != this.id
        && other.pipeline == this.pipeline
        && other.environment == this.environment
        && other.started_at <= this.started_at
}

/// Ad-hoc statements share a pipeline name but have nothing else in common, so there the text must be the same; a run of a part of the
/// steps (`--select`) does not compare with a whole one.
fn is_comparable(this: &Earlier, other: &Earlier) -> bool {
    let (this, other) = (&this.summary, &other.summary);
    let same_code = other.code_version == this.code_version;
    other.outcome == Outcome::Succeeded && if same_code { other.steps == this.steps } else { this.pipeline != "sql" }
}

fn changes(newer: &Earlier, older: &Earlier) -> Vec<Change> {
    let mut changed = Vec::new();
    let mut note = |differs: bool, change| {
        if differs {
            changed.push(change);
        }
    };
    note(newer.summary.code_version != older.summary.code_version, Change::Code);
    note(newer.summary.data_version != older.summary.data_version, Change::Data);
    if let (Some(newer), Some(older)) = (&newer.more, &older.more) {
        note(newer.params != older.params, Change::Params);
        note((newer.slots, newer.memory_limit_bytes) != (older.slots, older.memory_limit_bytes), Change::Resources);
        note(newer.cores != older.cores, Change::Machine);
        note(newer.engine != older.engine, Change::Engine);
    }
    changed
}

fn changed_sources(newer: &Earlier, older: &Earlier) -> Vec<String> {
    let (Some(newer), Some(older)) = (&newer.more, &older.more) else { return Vec::new() };
    newer
        .sources
        .iter()
        .filter(|(name, version)| older.sources.get(*name) != Some(*version))
        .map(|(n, _)| n.clone())
        .collect()
}

fn compare_steps(record: &RunRecord, earlier: &[Earlier]) -> Vec<ComparedStep> {
    let compared = |step: &sparklet_history::StepRecord| {
        let walls: Vec<u64> =
            earlier.iter().filter_map(|e| e.more.as_ref()).filter_map(|m| m.steps.get(&step.name).copied()).collect();
        median(&walls).map(|median_wall_us| ComparedStep {
            step: step.name.clone(),
            wall_us: step.wall_us,
            median_wall_us,
            runs: walls.len(),
            delta: delta(step.wall_us, median_wall_us),
        })
    };
    record.steps.iter().filter(|s| s.outcome == Outcome::Succeeded).filter_map(compared).collect()
}

fn delta(now: u64, median: u64) -> Option<f64> {
    (median > 0).then(|| now as f64 / median as f64 - 1.0)
}

/// The middle value; of an even number, the mean of the two in the middle.
fn median(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(lower + (upper - lower) / 2)
}
