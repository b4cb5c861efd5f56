//! What a run leaves behind: plain data, no behaviour, no I/O.
//!
//! These types are the contract between the crates: the engine fills a [`RunRecord`], the store keeps it, the report renders it and
//! nothing else. On disk and in `history export` a record is JSON, so a field may be added with `#[serde(default)]`; a field that
//! changes meaning or goes away raises [`RECORD_VERSION`]. Times are micro-seconds, sizes are bytes, unless a name says otherwise.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::choice::ChoiceRecord;
use crate::shape::OperatorShape;

/// Version of the record format written by this build.
pub const RECORD_VERSION: u16 = 1;

/// Name of a run: 10 characters of `0-9a-z` without `i l o u`, drawn at random; any unique prefix names the run in commands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// Length of an id in characters.
    pub const LEN: usize = 10;
    const ALPHABET: &'static [u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// An id from 50 random bits (the rest of `bits` is not used).
    pub fn from_bits(bits: u64) -> Self {
        let char_at = |i: usize| char::from(Self::ALPHABET[((bits >> (5 * i)) & 31) as usize]);
        Self((0..Self::LEN).map(char_at).collect())
    }

    /// A new random id.
    pub fn random() -> Self {
        Self::from_bits(rand::random())
    }

    /// The 50 bits that [`RunId::from_bits`] makes this id from.
    pub fn to_bits(&self) -> u64 {
        let value = |byte: u8| Self::ALPHABET.iter().position(|&c| c == byte).unwrap_or(0) as u64;
        self.0.bytes().enumerate().fold(0, |bits, (i, byte)| bits | (value(byte) << (5 * i)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl TryFrom<String> for RunId {
    type Error = String;

    /// Checked also when a record is read: an id becomes part of file names.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RunId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.len() == Self::LEN && text.bytes().all(|b| Self::ALPHABET.contains(&b));
        if valid { Ok(Self(text.to_owned())) } else { Err(format!("`{text}` is not a run id")) }
    }
}

/// Canonical hash of a logical subplan, or of its template: the first 128 bits of BLAKE3 over the canonical text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of a canonical text.
    pub fn of(canonical: &str) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&blake3::hash(canonical.as_bytes()).as_bytes()[..16]);
        Self(first)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("`{text}` is not a fingerprint (32 hexadecimal digits)");
        if text.len() != 32 || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}

/// How a run or a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything asked for was done and published.
    Succeeded,
    /// A step failed: bad data, a resource limit, an I/O error.
    Failed,
    /// A check with `on_fail = "block"` found bad rows; nothing of that step was published.
    CheckFailed,
    /// Interrupted by the user (Ctrl-C) or by the caller.
    Cancelled,
    /// A time-out of the step or of the run fired.
    TimedOut,
    /// Not run: not selected, or an earlier step did not succeed.
    Skipped,
}

/// One run of a pipeline, or one ad-hoc SQL statement: all that a report is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RECORD_VERSION`] of the writer.
    pub version: u16,
    /// Name of the run.
    pub id: RunId,
    /// Name of the pipeline; `sql` for ad-hoc statements.
    pub pipeline: String,
    /// Evidence is kept apart by environment (`default` unless set): samples in dev must not teach production.
    pub environment: String,
    /// Start of the run.
    pub started_at: DateTime<Utc>,
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time from start to end, publishing included.
    pub wall_us: u64,
    /// CPU time of the process during the run (user + system).
    pub cpu_us: u64,
    /// Highest reservation in the session's memory pool.
    pub peak_memory_bytes: u64,
    /// Highest resident set of the process so far, if the platform tells.
    pub peak_rss_bytes: Option<u64>,
    /// What ran it.
    pub engine: EngineRecord,
    /// Where it ran.
    pub machine: MachineRecord,
    /// Settings in force that are not at their default, with where each came from.
    pub settings: BTreeMap<String, SettingRecord>,
    /// Run parameters as text.
    pub params: BTreeMap<String, String>,
    /// Slots (tasks at the same time) of the run.
    pub slots: u32,
    /// Bound of the memory pool.
    pub memory_limit_bytes: u64,
    /// Hash of the definition and of its SQL files; changes when the code changes.
    pub code_version: Fingerprint,
    /// What was read.
    pub sources: Vec<SourceRecord>,
    /// Steps in the order in which they ran.
    pub steps: Vec<StepRecord>,
    /// Things a reader should know that are not errors, e.g. "schedule takes effect with the service".
    pub notes: Vec<String>,
    /// Why the run failed, if it did.
    pub error: Option<ErrorRecord>,
}

/// Versions of the software that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// Version of sparklet.
    pub sparklet: String,
    /// Version of DataFusion.
    pub datafusion: String,
}

/// The machine of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Logical cores that the process may use.
    pub cores: u32,
    /// Memory that the process may use (cgroup limit included).
    pub memory_bytes: u64,
    /// Operating system and architecture, e.g. `linux-x86_64`.
    pub platform: String,
}

/// A setting and where its value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingRecord {
    /// The value as text.
    pub value: String,
    /// `flag`, `environment`, `pipeline`, `project`, `user` or `default`.
    pub origin: String,
}

/// A source as a run found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Name in the pipeline.
    pub name: String,
    /// Where it was read from, as written in the definition.
    pub location: String,
    /// `parquet`, `csv`, `json`, `arrow`, `avro`, `tpch`.
    pub format: String,
    /// Number of files.
    pub files: u64,
    /// Size of the files.
    pub bytes: u64,
    /// Rows, where the metadata of the files tells.
    pub rows: Option<u64>,
    /// Hash over path, size, modification time and etag of each file: equal versions are the same data.
    pub data_version: Fingerprint,
    /// Hash of the schema (names and types in order).
    pub schema_version: Fingerprint,
}

/// Bytes that are taken for a row of a source of which no one told how many it has.
const BYTES_A_ROW: f64 = 24.0;

impl SourceRecord {
    /// Rows of this version of a source and of another one; by their sizes where one is not counted.
    pub fn rows_beside(&self, other: &Self) -> [f64; 2] {
        match (self.rows, other.rows) {
            (Some(own), Some(others)) => [own as f64, others as f64],
            _ => [self.bytes as f64 / BYTES_A_ROW, other.bytes as f64 / BYTES_A_ROW],
        }
    }
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Name in the pipeline.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Start, in micro-seconds after the start of the run.
    pub started_us: u64,
    /// Wall time: planning, execution, checks and publishing.
    pub wall_us: u64,
    /// CPU time of the process meanwhile.
    pub cpu_us: u64,
    /// Time in planning (logical and physical), part of `wall_us`.
    pub planning_us: u64,
    /// Time in executing the plan and writing the result, part of `wall_us`.
    pub execution_us: u64,
    /// Time in checks, part of `wall_us`.
    pub checks_us: u64,
    /// Time in publishing, part of `wall_us`.
    pub publish_us: u64,
    /// Rows that the step produced.
    pub rows: u64,
    /// Highest reservation in the memory pool during the step.
    pub peak_memory_bytes: u64,
    /// What became of the result.
    pub output: Option<OutputRecord>,
    /// Checks in the order of the definition.
    pub checks: Vec<CheckRecord>,
    /// The plan that ran, with its observations; absent where the step did not get that far.
    pub plan: Option<PlanRecord>,
    /// What the optimizer decided.
    pub decisions: Vec<Decision>,
    /// How its plan was chosen; absent where it was not planned, and in records of builds that chose none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Box<ChoiceRecord>>,
    /// What was changed while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adaptations: Vec<Adaptation>,
    /// What was measured of keys while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyRecord>,
    /// User functions that were called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<FunctionRecord>,
    /// Why it failed, if it did.
    pub error: Option<ErrorRecord>,
}

/// What was measured of the keys by which rows were divided, where these are plain columns of one source. The rows may be those of a filter or
/// of a join over the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Identity of the source, as fingerprints name it.
    pub source: String,
    /// Its name.
    pub table: String,
    /// Columns, in order of their names.
    pub columns: Vec<String>,
    /// Rows that were seen.
    pub rows: u64,
    /// Rows in which a column is NULL.
    pub null_rows: u64,
    /// Estimated number of distinct keys.
    pub distinct: u64,
    /// Keys that a hundredth of the rows have, or more; the heaviest first.
    pub heavy: Vec<HeavyKey>,
}

/// A key that many rows have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeavyKey {
    /// Values of the key columns as text, where known.
    pub key: Option<Vec<String>>,
    /// Estimated share of the rows, 0 to 1.
    pub share: f64,
}

/// What was counted of the calls of one user function in a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRecord {
    /// Name in SQL.
    pub name: String,
    /// `scalar`, `aggregate` or `table`.
    pub kind: String,
    /// The module as it is written in the definition.
    pub module: String,
    /// SHA-256 of the module in hexadecimal: with the name, what observations of the function go by.
    pub hash: String,
    /// Calls into guests: one for a batch.
    pub calls: u64,
    /// Rows of these batches.
    pub rows: u64,
    /// Wall time of the calls in nano-seconds, summed over tasks.
    pub nanos: u64,
    /// Most memory of one instance in bytes.
    pub peak_memory_bytes: u64,
    /// Instances made.
    pub instances: u64,
    /// Calls that failed.
    pub failures: u64,
}

/// What a step published, or kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// Path or URL as in the definition; empty for an intermediate result.
    pub location: String,
    /// `parquet`, `csv`, `json`, `arrow`; `memory`, `spilled` or `inlined` for an intermediate result.
    pub format: String,
    /// `replace`, `append`, `replace_partitions`, `replace_interval`, or `none` for an intermediate result.
    pub mode: String,
    /// Files written by this run.
    pub files: u64,
    /// Rows written by this run.
    pub rows: u64,
    /// Bytes written by this run.
    pub bytes: u64,
    /// Partitions written, e.g. `month=1`; empty where not partitioned.
    pub partitions: Vec<String>,
    /// True once readers see it.
    pub published: bool,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// Name in the definition.
    pub name: String,
    /// The expression or query.
    pub condition: String,
    /// True if it held, within what it tolerates.
    pub passed: bool,
    /// True if a failure blocks publishing (`on_fail = "block"`), false if it only warns.
    pub blocking: bool,
    /// Rows looked at (row checks only).
    pub rows: Option<u64>,
    /// Rows that failed (row checks only).
    pub failed_rows: Option<u64>,
    /// Share of rows that may fail.
    pub tolerate: f64,
    /// Where the failing rows were kept.
    pub kept: Option<String>,
}

/// An error as a user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// Stable short name of the kind, e.g. `definition`, `data`, `memory`, `io`, `timeout`, `cancelled`, `internal`.
    pub kind: String,
    /// What went wrong and where.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A physical plan with what was observed of each operator.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// Nodes in pre-order: a parent stands before its children, children in plan order. Node 0 is the root.
    pub nodes: Vec<NodeRecord>,
}

/// One operator of a physical plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Index of the parent in [`PlanRecord::nodes`]; none for the root.
    pub parent: Option<u32>,
    /// Name of the operator, e.g. `HashJoinExec`.
    pub operator: String,
    /// One line as DataFusion prints it, the operator's name left out.
    pub detail: String,
    /// Fingerprint of the logical subplan that this node completes, where there is one.
    pub fingerprint: Option<Fingerprint>,
    /// Template of the same.
    pub template: Option<Fingerprint>,
    /// What the counts are worth as evidence.
    pub completeness: Completeness,
    /// Rows that DataFusion's statistics expected.
    pub estimated_rows: Option<u64>,
    /// Rows out, summed over partitions.
    pub rows: Option<u64>,
    /// Bytes out, where known (scans: bytes read).
    pub bytes: Option<u64>,
    /// Time spent in this operator, summed over partitions (`elapsed_compute`: wall time of polls, for attribution only).
    pub elapsed_us: u64,
    /// Spill files written.
    pub spill_count: u64,
    /// Bytes spilled.
    pub spilled_bytes: u64,
    /// Largest memory reservation, where the operator tells.
    pub peak_memory_bytes: Option<u64>,
    /// Per output partition, in order; empty where the operator does not tell.
    pub partitions: Vec<PartitionRecord>,
    /// Everything else that the operator measured, summed over partitions (times in nano-seconds as DataFusion names them).
    pub metrics: BTreeMap<String, u64>,
    /// What decides its cost apart from rows; none in records of builds before cost models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<OperatorShape>,
}

/// One partition of an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// Rows out.
    pub rows: u64,
    /// Time in this operator for this partition.
    pub elapsed_us: u64,
}

/// What an observed count is worth: only `Complete` ones are exact cardinalities of the subplan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// The operator produced all its rows.
    Complete,
    /// Something above cut its input on purpose.
    ReducedBy(Vec<Reduction>),
    /// It did not run to its end (cancelled, failed, or its consumer stopped early).
    Truncated,
}

/// Why an operator produced fewer rows than its subplan has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// A filter learned while running (join build side, TopK, aggregate).
    DynamicFilter,
    /// A LIMIT above stopped pulling.
    Limit,
    /// The build side of a join above was empty.
    EmptyBuildSide,
}

/// A choice of the optimizer, made where the branch is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What was decided.
    pub kind: DecisionKind,
    /// Why, as a typed reason.
    pub because: Reason,
    /// Runs that were looked at.
    pub evidence: Vec<RunId>,
    /// How to turn it off or change it, e.g. `learning = "off"`; none where there is nothing to switch.
    pub switch: Option<String>,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum DecisionKind {
    /// DataFusion's own plan was taken as it is.
    DefaultPlan,
    /// Another plan than DataFusion's was taken; see [`StepRecord::choice`].
    LearnedPlan,
}

/// Why it was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Reason {
    /// It was the only candidate: this build enumerates no others.
    OnlyCandidate,
    /// `learning = "off"`: history was not read.
    LearningOff,
    /// Candidates were compared; see [`StepRecord::choice`].
    Compared,
}

/// A change of a plan in mid-run, made where the branch is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adaptation {
    /// When, after the query began to run.
    pub at_us: u64,
    /// Exchange that was the last to be finished before.
    pub stage: u32,
    /// Number of the operator that carries it out; unique within a process.
    pub operator: Option<u64>,
    /// What was changed.
    pub kind: AdaptationKind,
    /// Why.
    pub because: AdaptationReason,
    /// Expected work by task if nothing had been changed, the largest first, in rows (a row of a build side counts as two); may be cut short.
    pub before: Vec<u64>,
    /// The same as changed.
    pub after: Vec<u64>,
    /// Expected time on the run's slots before, in the unit of `before`; of joins in another order their CPU time in micro-seconds.
    pub predicted_before: u64,
    /// Expected time on the run's slots after.
    pub predicted_after: u64,
    /// Keys that many rows have.
    pub hot_keys: Vec<HotKey>,
    /// CPU time of keeping and measuring the inputs in exchanges.
    pub cost_us: u64,
    /// Part of it that went into what is known of keys: heavy and distinct ones, NULLs.
    #[serde(default)]
    pub facts_us: u64,
    /// Thread CPU time by task as measured, in the order in which they ended; empty where no tasks of its own were run.
    pub task_cpu_us: Vec<u64>,
}

/// What was changed in mid-run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum AdaptationKind {
    /// A partitioned join became many small joins taken from one queue, hot buckets cut into slices.
    DivideJoin {
        /// Key columns.
        on: Vec<String>,
        /// Joins of their own.
        units: u32,
        /// Buckets whose probe side was cut.
        split_buckets: u32,
        /// Units that build the right side.
        swapped_units: u32,
        /// Units whose build side was too large for a hash table: divided once more, or joined by sorting.
        #[serde(default)]
        oversized_units: u32,
    },
    /// A join planned as partitioned became a broadcast.
    Broadcast {
        /// Key columns.
        on: Vec<String>,
    },
    /// A join planned as a broadcast became a partitioned one.
    Partition {
        /// Key columns.
        on: Vec<String>,
    },
    /// A subplan that the query has more than once was computed once.
    ShareSubplan {
        /// Its topmost operator.
        what: String,
        /// Places that read it.
        readers: u32,
    },
    /// Hot groups of an aggregate were computed in two phases, divided by their distinct values first.
    SplitGroups {
        /// Group keys.
        by: Vec<String>,
        /// Distinct arguments.
        distinct: Vec<String>,
        /// Buckets with hot groups.
        hot_buckets: u32,
        /// Slices that their rows were cut into.
        slices: u32,
    },
    /// Hot partitions of a window were cut.
    SplitWindow {
        /// Partition keys.
        by: Vec<String>,
        /// Window functions.
        functions: Vec<String>,
        /// How the slices make one result.
        how: WindowSplit,
        /// Buckets with hot partitions.
        hot_buckets: u32,
        /// Slices that their rows were cut into.
        slices: u32,
    },
    /// An operator that has hot groups or partitions was left as it is.
    LeftWhole {
        /// The operator.
        what: String,
        /// What stands against cutting them.
        why: Whole,
    },
    /// A query that ran out of memory began again, the inputs of its joins as stages.
    RunInStages,
    /// A join was not run, nor what was left to run beneath it.
    SkipEmpty {
        /// Key columns.
        on: Vec<String>,
    },
    /// Other many slots of each operator may take tasks than before.
    ChangeSlots {
        /// Before.
        from: u32,
        /// From then on.
        to: u32,
    },
    /// The inputs of an operator ran first, for the sake of a heavy key that was known.
    BeginWithSplit {
        /// The operator and its keys.
        what: String,
    },
    /// The other input of a join was run with a filter of the keys of the one that was finished.
    PushKeys {
        /// Key columns.
        on: Vec<String>,
        /// Keys in the filter; none where it is a range.
        listed: Option<u32>,
        /// Rows of the other input that were expected without it.
        expected_rows: Option<u64>,
        /// Its rows with the filter.
        rows: u64,
    },
    /// The inputs of an operator did not run first, though it is large: it is known that no key is heavy.
    LeaveOut {
        /// The operator and its keys.
        what: String,
    },
    /// Joins that were still to come ran in another order.
    ReorderJoins {
        /// The new order, e.g. `(Exchange 0 JOIN c) JOIN b`; of each block one.
        orders: Vec<String>,
    },
}

/// Why the hot groups of an aggregate, or the hot partitions of a window, stay whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Whole {
    /// All rows are one group.
    NoKey,
    /// A key is no plain column, or of a type that is not compared here.
    Key {
        /// The key.
        key: String,
    },
    /// It has an expression that is no plain function of its rows.
    Expression,
    /// The state of a function grows with the rows of a group, and is no sum over parts of them.
    NotDecomposable {
        /// Its name.
        function: String,
    },
    /// The frame of a function is neither the whole partition nor all rows up to the current one.
    Frame {
        /// Its name.
        function: String,
    },
    /// A function tells rows of equal rank apart, and these may differ.
    Ties {
        /// Its name.
        function: String,
    },
    /// Functions over the whole partition stand beside running ones.
    Mixed,
    /// A function has no ORDER BY by which slices could follow one another.
    NoOrder {
        /// Its name.
        function: String,
    },
}

/// How the slices of a partition of a window make one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowSplit {
    /// Slices lie in the window's order; each adds what those before it have given.
    Prefix,
    /// The functions were computed once for the partition and joined to its rows.
    AggregateJoin,
}

/// Why a plan was changed in mid-run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum AdaptationReason {
    /// Some buckets are much larger than others.
    HotBuckets {
        /// Rows of both sides in the largest bucket.
        largest_rows: u64,
        /// Rows of both sides in the median bucket.
        median_rows: u64,
    },
    /// A hash table would be larger than it may be.
    BuildSideLarge {
        /// Bytes of the largest.
        bytes: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// The build side turned out small.
    BuildSideSmall {
        /// Its rows.
        rows: u64,
        /// Its bytes in memory.
        bytes: u64,
        /// Rows of both sides that were expected.
        expected_rows: Option<u64>,
    },
    /// The subplan stands more than once, with nothing that is pushed into one place alone.
    Repeated {
        /// Its rows.
        rows: u64,
        /// Its bytes in memory.
        bytes: u64,
    },
    /// The attempt without stages did not fit the memory pool.
    MemoryExhausted {
        /// What it said.
        message: String,
    },
    /// An input has no rows.
    InputEmpty,
    /// `adaptive = "force"`.
    Forced,
    /// So much of the memory pool was in use.
    PoolUse {
        /// Bytes in use.
        used: u64,
        /// Bytes of the pool.
        limit: u64,
    },
    /// So many other queries of the process had tasks.
    OtherQueries {
        /// Their number.
        queries: u32,
    },
    /// The process may use so many cores.
    Cores {
        /// Their number.
        cores: u32,
    },
    /// An earlier run has found a heavy key.
    KnownKey {
        /// The run.
        run: RunId,
        /// The columns with their table.
        columns: Vec<String>,
        /// Share of the rows that have the key.
        percent: u32,
    },
    /// A finished part of the plan had other rows than were expected.
    RowsDiffer {
        /// Its rows.
        rows: u64,
        /// What was expected, if anything was.
        expected_rows: Option<u64>,
    },
    /// An input of the join was finished.
    InputFinished {
        /// Its rows.
        rows: u64,
        /// Its distinct keys, estimated.
        distinct: u64,
    },
    /// An earlier run has found none.
    NoKnownKey {
        /// The run.
        run: RunId,
    },
}

/// A key that many rows of an exchange have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HotKey {
    /// Number of the exchange.
    pub exchange: u32,
    /// Values of the key columns as text, where known.
    pub key: Option<Vec<String>>,
    /// Estimated share of the exchange's rows, 0 to 1.
    pub share: f64,
}

/// What the history keeps per operator and run: the evidence that planning asks for by fingerprint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The run.
    pub run: RunId,
    /// Start of the run.
    pub at: DateTime<Utc>,
    /// Environment of the run.
    pub environment: String,
    /// Operator kind, e.g. `HashJoinExec`.
    pub operator: String,
    /// Rows into the operator (sum over its children; scans: rows out).
    pub rows_in: u64,
    /// Rows out.
    pub rows: u64,
    /// Bytes out, where known.
    pub bytes: Option<u64>,
    /// Time in the operator.
    pub elapsed_us: u64,
    /// Largest memory reservation, where known.
    pub peak_memory_bytes: Option<u64>,
    /// Bytes spilled.
    pub spilled_bytes: u64,
    /// Partitions of the operator.
    pub partitions: u32,
    /// Largest partition ÷ median partition, in rows; 1 where there is one partition or no rows.
    pub skew: f32,
    /// What the count is worth.
    pub completeness: Completeness,
    /// Hash over the data versions of all sources below this node.
    pub data_version: Fingerprint,
}

/// One line of `runs`: what is kept beside the full record for listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Name of the run.
    pub id: RunId,
    /// Pipeline.
    pub pipeline: String,
    /// Environment.
    pub environment: String,
    /// Start.
    pub started_at: DateTime<Utc>,
    /// How it ended.
    pub outcome: Outcome,
    /// Wall time.
    pub wall_us: u64,
    /// CPU time.
    pub cpu_us: u64,
    /// Rows written, over all steps with an output.
    pub rows: u64,
    /// Steps that ran.
    pub steps: u32,
    /// Hash of definition and SQL.
    pub code_version: Fingerprint,
    /// Hash over the data versions of all sources.
    pub data_version: Fingerprint,
}

impl StepRecord {
    /// The record of a step of which nothing has been measured.
    pub fn unmeasured(name: &str, outcome: Outcome) -> Self {
        Self {
            name: name.to_owned(),
            outcome,
            started_us: 0,
            wall_us: 0,
            cpu_us: 0,
            planning_us: 0,
            execution_us: 0,
            checks_us: 0,
            publish_us: 0,
            rows: 0,
            peak_memory_bytes: 0,
            output: None,
            checks: Vec::new(),
            plan: None,
            decisions: Vec::new(),
            choice: None,
            adaptations: Vec::new(),
            keys: Vec::new(),
            functions: Vec::new(),
            error: None,
        }
    }
}

/// Hash over the data versions of `sources`, in order of their names.
pub fn data_version(sources: &[SourceRecord]) -> Fingerprint {
    let mut parts: Vec<String> = sources.iter().map(|s| format!("{}={}", s.name, s.data_version)).collect();
    parts.sort_unstable();
    Fingerprint::of(&parts.join(";"))
}

impl RunRecord {
    /// Hash over the data versions of the run's sources, in order of their names.
    pub fn data_version(&self) -> Fingerprint {
        data_version(&self.sources)
    }

    /// The line that listings show.
    pub fn summary(&self) -> RunSummary {
        RunSummary {
            id: self.id.clone(),
            pipeline: self.pipeline.clone(),
            environment: self.environment.clone(),
            started_at: self.started_at,
            outcome: self.outcome,
            wall_us: self.wall_us,
            cpu_us: self.cpu_us,
            rows: self.steps.iter().filter_map(|s| s.output.as_ref()).filter(|o| o.published).map(|o| o.rows).sum(),
            steps: self.steps.iter().filter(|s| s.outcome != Outcome::Skipped).count() as u32,
            code_version: self.code_version,
            data_version: self.data_version(),
        }
    }
}

impl NodeRecord {
    /// Largest ÷ median partition in rows (the terms' "skew"); 1 for fewer than two partitions or no rows.
    pub fn skew(&self) -> f32 {
        let mut rows: Vec<u64> = self.partitions.iter().map(|p| p.rows).collect();
        rows.sort_unstable();
        let (Some(&max), median) = (rows.last(), rows.get(rows.len() / 2).copied().unwrap_or(0)) else { return 1.0 };
        if rows.len() < 2 || max == 0 { 1.0 } else { max as f32 / median.max(1) as f32 }
    }

    /// `max(estimated ÷ actual, actual ÷ estimated)` in rows, counts below one taken as one; none where either is unknown.
    pub fn q_error(&self) -> Option<f64> {
        let estimated = self.estimated_rows?.max(1) as f64;
        let actual = self.rows?.max(1) as f64;
        Some((estimated / actual).max(actual / estimated))
    }
}
