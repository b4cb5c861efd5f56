//! What matters in a run, good and bad: each with what, where, and the next step to take.
//!
//! Every rule looks at the record alone and weighs its finding; the heaviest are kept ([`crate::thresholds`]). A finding that has no
//! next step a reader can take is not worth one of the few places.

mod changes;
mod good;
mod plans;
mod runs;

use serde::Serialize;
use sparklet_history::RunRecord;

use crate::compare::Comparison;
use crate::thresholds::{MAX_FINDINGS, MAX_GOOD_FINDINGS};
use crate::timing::TimeSplit;

/// How a finding is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// Went well, and is worth knowing.
    Good,
    /// May cost time or memory.
    Note,
    /// Costs time, memory or trust now.
    Warning,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A check that does not block failed.
    CheckFailed,
    /// An output has no rows.
    EmptyOutput,
    /// Far fewer or far more rows were written than before.
    RowsChanged,
    /// Operators spilled.
    Spill,
    /// The memory pool was nearly full.
    MemoryNearLimit,
    /// A join gives far more rows than it is given.
    JoinGrowth,
    /// Estimated and actual rows are far apart.
    Estimate,
    /// One partition has far more rows than the others.
    Skew,
    /// Slower than before.
    Slower,
    /// Faster than before.
    Faster,
    /// One step takes most of the run.
    StepDominates,
    /// Planning, or checks and publishing, take much of the run.
    Overhead,
    /// A query ran out of memory and began again.
    SecondAttempt,
    /// Slots stood idle.
    IdleSlots,
    /// A large source tells nothing about its rows.
    BlindSource,
    /// A source of many small files.
    SmallFiles,
    /// Estimates were right.
    GoodEstimates,
    /// All slots worked.
    BusySlots,
    /// A plan was changed in mid-run, and the run was shorter for it.
    Adapted,
    /// All checks passed.
    ChecksPassed,
    /// Memory was enough, nothing was spilled.
    Comfortable,
}

/// Where a finding was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The step; none: the run.
    pub step: Option<String>,
    /// Index of the node in the step's plan.
    pub node: Option<usize>,
    /// Name of the operator, source, output or check.
    pub name: Option<String>,
}

/// Something that matters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// How it is meant.
    pub tone: Tone,
    /// What is so, in one sentence with figures.
    pub what: String,
    /// Where.
    pub place: Place,
    /// What to do next.
    pub next: String,
    /// Order of findings: larger first. Shares of the run's time where that can be said, so mostly 0 to 1, plus what the kind is worth.
    pub weight: f64,
}

/// What the rules look at.
struct Scene<'a> {
    record: &'a RunRecord,
    comparison: &'a Comparison,
    time: &'a TimeSplit,
}

/// The findings of a run, most important first: what is wrong before what is well.
pub(crate) fn find(record: &RunRecord, comparison: &Comparison, time: &TimeSplit) -> Vec<Finding> {
    let scene = Scene { record, comparison, time };
    let mut found = Vec::new();
    runs::look(&scene, &mut found);
    plans::look(&scene, &mut found);
    found.extend(changes::second_attempt(&scene));
    // NaN cannot come up (weights are sums of bounded shares); `total_cmp` would order it all the same.
    found.sort_by(|a, b| b.tone.cmp(&a.tone).then(b.weight.total_cmp(&a.weight)));
    found.truncate(MAX_FINDINGS);
    let mut well = Vec::new();
    good::look(&scene, &mut well);
    well.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    well.truncate(MAX_GOOD_FINDINGS.min(MAX_FINDINGS - found.len()));
    found.extend(well);
    found
}

fn in_run() -> Place {
    Place::default()
}

fn in_step(step: &str) -> Place {
    Place { step: Some(step.to_owned()), ..Place::default() }
}

fn named(step: Option<&str>, name: &str) -> Place {
    Place { step: step.map(str::to_owned), node: None, name: Some(name.to_owned()) }
}

fn at_node(step: &str, node: usize, operator: &str) -> Place {
    Place { step: Some(step.to_owned()), node: Some(node), name: Some(operator.to_owned()) }
}
