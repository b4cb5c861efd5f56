//! A pipeline as it is written: typed, validated, not yet bound to any data.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sparklet_core::sink::SinkSpec;
use sparklet_core::source::SourceSpec;

/// A pipeline: a folder with a `pipeline.toml` and its SQL files.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Name: letters, digits, `_` and `-`.
    pub name: String,
    /// One line for people.
    pub description: Option<String>,
    /// The folder; relative paths in the definition start here.
    pub root: PathBuf,
    /// The definition file.
    pub file: PathBuf,
    /// Text of the definition file.
    pub text: Arc<str>,
    /// Settings for runs of this pipeline (`[settings]`), as text by dotted name, e.g. `memory` → `2GiB`; checked by the settings table.
    pub settings: BTreeMap<String, String>,
    /// Declared run parameters with their defaults.
    pub params: BTreeMap<String, Param>,
    /// Tables that come from outside.
    pub sources: Vec<Source>,
    /// Modules of user functions.
    pub udfs: Vec<Udf>,
    /// Steps, in an order in which they can run (ties: as written).
    pub steps: Vec<Step>,
    /// Time limit of a whole run.
    pub timeout: Option<Duration>,
    /// Sections that are validated now and take effect with the service: a plain sentence each.
    pub later: Vec<&'static str>,
    /// When the service will run it.
    pub schedule: Option<Schedule>,
}

/// When a pipeline is due (takes effect with the service; `plan` shows the next times).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Cron expression of five fields, valid.
    pub cron: String,
    /// IANA name of the time zone, valid.
    pub timezone: String,
}

/// A run parameter: bound as an SQL parameter `$name`, never pasted into text.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Default, which also gives the type; none: must be given with `--param`.
    pub default: Option<ParamValue>,
    /// Type of the value.
    pub kind: ParamKind,
}

/// Types of run parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// Text.
    String,
    /// 64-bit integer.
    Int,
    /// 64-bit float.
    Float,
    /// Truth value.
    Bool,
    /// Calendar date.
    Date,
    /// Instant with micro-seconds, UTC.
    Timestamp,
}

/// A value of a run parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamValue {
    /// Text.
    String(String),
    /// 64-bit integer.
    Int(i64),
    /// 64-bit float.
    Float(f64),
    /// Truth value.
    Bool(bool),
    /// Days since 1970-01-01.
    Date(i32),
    /// Micro-seconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
}

/// A table that comes from outside the pipeline.
#[derive(Debug, Clone)]
pub struct Source {
    /// Table name in SQL.
    pub name: String,
    /// Where and how to read it (paths made absolute against the pipeline's folder).
    pub spec: SourceSpec,
    /// TPC-H: the run parameter that gives the scale factor in the place of `spec.options.scale`; resolved when a run is bound.
    pub scale_param: Option<String>,
    /// Place of `path` (or of the table header) in the definition.
    pub span: Range<usize>,
}

/// A module of user functions.
#[derive(Debug, Clone)]
pub struct Udf {
    /// Name in the definition.
    pub name: String,
    /// Its file as written.
    pub written: String,
    /// Its file, absolute.
    pub file: PathBuf,
    /// Limits, and the functions to take.
    pub declared: sparklet_core::sandbox::Declared,
    /// Place of `module` in the definition.
    pub span: Range<usize>,
}

/// One step: a query whose result is an output, or an intermediate table for later steps.
#[derive(Debug, Clone)]
pub struct Step {
    /// Table name in SQL for later steps.
    pub name: String,
    /// The query.
    pub sql: SqlText,
    /// Names of sources and steps that the query (or a check's query) reads, as they were defined, each once, the step itself left out.
    pub reads: Vec<String>,
    /// Where the result goes; none: an intermediate result.
    pub output: Option<Output>,
    /// Conditions on the result.
    pub checks: Vec<Check>,
    /// Time limit of the step.
    pub timeout: Option<Duration>,
    /// `deterministic = true`: keeps the default plan and one layout.
    pub deterministic: bool,
    /// Place of the step in the definition.
    pub span: Range<usize>,
}

/// SQL with the file that it came from, so that errors can point into it.
#[derive(Debug, Clone)]
pub struct SqlText {
    /// The file: the SQL file, or the definition for inline text.
    pub file: PathBuf,
    /// The whole text of that file.
    pub file_text: Arc<str>,
    /// Byte offset of the SQL in the file (0 for an SQL file).
    pub offset: usize,
    /// The SQL.
    pub sql: String,
}

/// Where a step's result goes.
#[derive(Debug, Clone)]
pub struct Output {
    /// Path or URL as written.
    pub location: String,
    /// Absolute path, or URL for an object store.
    pub target: Target,
    /// Format and layout of the files.
    pub sink: SinkSpec,
    /// What happens to what is there.
    pub mode: Mode,
    /// Place in the definition.
    pub span: Range<usize>,
}

/// Local or remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file or folder on a file system.
    Local(PathBuf),
    /// An object-store URL.
    Remote(String),
}

/// What publishing does with what is already at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The new version takes the place of the old one, whole.
    Replace,
    /// New files are added to a folder.
    Append,
    /// Partitions that the result has take the place of the same partitions; the others stay.
    ReplacePartitions,
    /// As `ReplacePartitions`, for the interval of an incremental step (with the service).
    ReplaceInterval,
}

impl Mode {
    /// Name in definitions and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Append => "append",
            Self::ReplacePartitions => "replace_partitions",
            Self::ReplaceInterval => "replace_interval",
        }
    }
}

/// A condition on a step's result, tested before anything is published.
#[derive(Debug, Clone)]
pub struct Check {
    /// Name, unique in the step.
    pub name: String,
    /// What must hold.
    pub condition: Condition,
    /// True: a failure blocks publishing. False: it is reported.
    pub blocking: bool,
    /// Share of rows that may fail (row conditions), 0 to 1.
    pub tolerate: f64,
    /// Place in the definition.
    pub span: Range<usize>,
}

/// What a check asks.
#[derive(Debug, Clone)]
pub enum Condition {
    /// A boolean expression over each row of the result; NULL counts as failed.
    EachRow(String),
    /// A query that returns one boolean; it sees the result under the step's name.
    Query(String),
}
