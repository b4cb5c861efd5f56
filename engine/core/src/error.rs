//! Errors of the engine: kind, what and where, what to do, and whether trying again can help.

use std::fmt;

use datafusion::error::DataFusionError;

/// Result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine.
#[derive(Debug)]
pub struct Error {
    /// What sort of error it is; decides the exit code.
    pub kind: ErrorKind,
    /// What went wrong and where.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The error beneath.
    pub source: Option<Box<DataFusionError>>,
}

/// Sorts of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The query or the definition is wrong (unknown table or column, types, syntax).
    Query,
    /// The data is wrong (corrupt file, ragged row, failed cast).
    Data,
    /// A source is missing, empty or unreadable.
    Source,
    /// The output cannot be written.
    Output,
    /// The memory limit or the spill space is exhausted.
    Resources,
    /// Interrupted.
    Cancelled,
    /// A time limit fired.
    Timeout,
    /// A setting has a bad value.
    Setting,
    /// Network, throttling or another passing fault.
    Transient,
    /// A bug.
    Internal,
}

impl ErrorKind {
    /// Stable name for records and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Data => "data",
            Self::Source => "source",
            Self::Output => "output",
            Self::Resources => "resources",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Setting => "setting",
            Self::Transient => "transient",
            Self::Internal => "internal",
        }
    }
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// True if the same call may succeed later without a change.
    pub fn retryable(&self) -> bool {
        self.kind == ErrorKind::Transient
    }

    /// As it stands in a run record.
    pub fn record(&self) -> sparklet_history::ErrorRecord {
        sparklet_history::ErrorRecord {
            kind: self.kind.name().to_owned(),
            message: self.message.clone(),
            hint: self.hint.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
