//! Renders one recorded run as text or JSON.
//!
//! Values in, text out: no files, no clock, no planning. All that a report says comes from the [`RunRecord`] of the run and from the
//! earlier runs that the caller hands in ([`Earlier`]), so a report of an old run reads the same tomorrow.
//!
//! ```
//! # fn show(record: &sparklet_history::RunRecord, before: &[sparklet_history::RunSummary]) -> Result<(), serde_json::Error> {
//! use sparklet_report::{Report, TextOptions};
//!
//! let report = Report::new(record, before);
//! let line: String = report.verdict();
//! let page: String = report.to_text(&TextOptions::default());
//! let json: serde_json::Value = report.to_json()?;
//! # Ok(()) }
//! ```
//!
//! **Stable:** the field names of the JSON form ([`json`] lists them; fields may be added, [`json::REPORT_VERSION`] rises when one
//! changes its meaning or goes away). **Not stable:** the wording and layout of the text form, and which findings are picked.
//!
//! Reading order: [`compare`] (which earlier runs count), [`timing`] (where the time went), [`adaptation`] (what was changed in mid-run), [`mod@choice`] (why this plan), [`findings`] (what matters, by the
//! [`thresholds`]), [`mod@verdict`]; then the two renderers, [`text`] and [`json`].

pub mod adaptation;
pub mod choice;
pub mod compare;
pub mod findings;
pub mod human;
pub mod json;
mod plan;
mod table;
pub mod text;
pub mod thresholds;
pub mod timing;
pub mod verdict;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use sparklet_history::RunRecord;

pub use adaptation::Adapted;
pub use compare::{Change, Comparison, Earlier};
pub use findings::{Finding, FindingKind, Place, Tone};
pub use text::TextOptions;
pub use timing::{TimeKind, TimeLine, TimeSplit};
pub use verdict::{verdict, verdict_alone};

/// A run with everything that is derived from it; renders to text and JSON.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    record: &'a RunRecord,
    comparison: Comparison,
    time: TimeSplit,
    findings: Vec<Finding>,
}

impl<'a> Report<'a> {
    /// A report of `record` beside `earlier` runs (records or summaries, in any order; those that do not compare are left out).
    pub fn new<E: Into<Earlier>>(record: &'a RunRecord, earlier: impl IntoIterator<Item = E>) -> Self {
        let comparison = Comparison::new(record, earlier);
        let time = TimeSplit::new(record);
        let findings = findings::find(record, &comparison, &time);
        Self { record, comparison, time, findings }
    }

    /// The run.
    pub fn record(&self) -> &RunRecord {
        self.record
    }

    /// The run beside earlier ones.
    pub fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// Where the time went.
    pub fn time(&self) -> &TimeSplit {
        &self.time
    }

    /// At most [`thresholds::MAX_FINDINGS`] things that matter, most important first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// One sentence: how it ended, how long it took, beside earlier runs, and what came out.
    pub fn verdict(&self) -> String {
        verdict::sentence(self.record, &self.comparison)
    }

    /// The report as text for a terminal or a log.
    pub fn to_text(&self, options: &TextOptions) -> String {
        text::render(self, options)
    }

    /// The report as JSON: everything that the text says, and the whole record as `run`.
    pub fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
        json::render(self)
    }
}
