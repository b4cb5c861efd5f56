//! When something is worth saying: every threshold of the report, with its reason.
//!
//! They decide what is said, never what is done, so they are constants and not settings. A threshold on a ratio always stands with one
//! on an amount: ten times nothing is nothing.

/// Findings shown, at most: more are not read.
pub const MAX_FINDINGS: usize = 4;

/// Good findings among them, at most: praise must not push out a problem.
pub const MAX_GOOD_FINDINGS: usize = 2;

/// Earlier runs compared with, at most: older ones describe another machine, other data, other code.
pub const MAX_EARLIER: usize = 10;

/// Fewer earlier runs than this say nothing about noise: a median of two has no spread.
pub const FEW_RUNS: usize = 3;

/// Wall times closer than this share are called equal: back-to-back runs of the same plan differ by about as much.
pub const SAME_TIME: f64 = 0.05;

/// A change of the wall time by this share, and outside the spread of the earlier runs, is a finding.
pub const TIME_CHANGE: f64 = 0.20;

/// … and by at least this many micro-seconds: people do not feel less.
pub const TIME_CHANGE_MIN_US: u64 = 200_000;

/// Estimated and actual rows apart by this factor can turn a join order or a build side round.
pub const Q_ERROR: f64 = 10.0;

/// … when the larger of the two is at least this many rows; below, any plan is fast.
pub const Q_ERROR_MIN_ROWS: u64 = 10_000;

/// An operator whose q-error is less than this many times that of its worst child passes on an error and did not make it.
pub const Q_ERROR_STEP: f64 = 2.0;

/// All known estimates within this factor: the planner saw clearly.
pub const GOOD_Q_ERROR: f64 = 2.0;

/// … with at least this many operators whose estimate is known; fewer prove nothing.
pub const GOOD_Q_ERROR_MIN_NODES: usize = 5;

/// Largest ÷ median partition from which one slot works while others wait: with 4 slots, 3 doubles the time of a stage.
pub const SKEW: f32 = 3.0;

/// … in an operator that takes at least this share of the run; elsewhere it costs nothing.
pub const SKEW_MIN_SHARE: f64 = 0.05;

/// … and at least this many rows in its largest partition: small inputs are uneven by nature.
pub const SKEW_MIN_ROWS: u64 = 10_000;

/// Bytes spilled in a run from which it is said: below, the disk cache swallows it.
pub const SPILL_MIN_BYTES: u64 = 16 << 20;

/// Share of the memory limit from which the next larger input may spill or fail.
pub const MEMORY_NEAR_LIMIT: f64 = 0.80;

/// Share of the memory limit below which there was room enough (with nothing spilled): a good finding.
pub const MEMORY_COMFORTABLE: f64 = 0.50;

/// Share of the run's wall time in one step from which only that step is worth work.
pub const STEP_DOMINATES: f64 = 0.60;

/// … where at least this many steps ran: of two, one always has more than half.
pub const STEP_DOMINATES_MIN_STEPS: usize = 3;

/// Share of the wall time in planning, or in checks and publishing, from which it is said: that time produces no rows.
pub const OVERHEAD_SHARE: f64 = 0.25;

/// Wall time of a run from which shares of time are findings at all: below, start-up decides.
pub const MIN_WALL_US: u64 = 1_000_000;

/// CPU time ÷ (wall time × slots) below which slots stood idle.
pub const SLOTS_IDLE: f64 = 0.35;

/// CPU time ÷ (wall time × slots) above which the machine was used well.
pub const SLOTS_BUSY: f64 = 0.80;

/// Rows out of a join ÷ rows of its larger input from which its keys match too much.
pub const JOIN_GROWTH: f64 = 5.0;

/// … where at least this many rows come out.
pub const JOIN_GROWTH_MIN_ROWS: u64 = 1_000_000;

/// Size of a source without row counts (CSV, JSON) from which planning blind costs more than converting it once.
pub const BLIND_SOURCE_MIN_BYTES: u64 = 64 << 20;

/// Files of a source from which opening them shows …
pub const SMALL_FILES: u64 = 200;

/// … where they are smaller than this on average, in bytes.
pub const SMALL_FILE_BYTES: u64 = 1 << 20;

/// Share of the median of earlier runs below which the rows written are called a drop, and above whose inverse a jump.
pub const ROWS_CHANGE: f64 = 0.5;

/// Skew from which a plan node tells of its partitions.
pub const SHOW_SKEW: f32 = 1.5;

/// Expected time before ÷ after from which a change in mid-run that was forced is worth a word; others were weighed when they were made.
pub const ADAPTATION_GAIN: f64 = 1.2;

/// Operators listed in "where the time went".
pub const TOP_OPERATORS: usize = 10;
