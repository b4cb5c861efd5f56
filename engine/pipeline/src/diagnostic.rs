//! What is said about a bad definition: values, rendered at the edge (the CLI shows them with a caret at file:line).

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// One thing that is wrong, or worth saying, about a definition or its SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it prevents a run.
    pub severity: Severity,
    /// Stable short code, e.g. `unknown-key`, `missing-source`, `sql-syntax`.
    pub code: &'static str,
    /// What is wrong: lower case, names in backticks.
    pub message: String,
    /// Where, if it has a place.
    pub place: Option<Place>,
    /// What to do.
    pub hint: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the run goes on as written.
    Note,
    /// Probably not what was meant.
    Warning,
    /// Nothing runs until it is mended.
    Error,
}

/// A place in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, relative to the working directory where that is shorter.
    pub file: PathBuf,
    /// Its text as it was read.
    pub text: Arc<str>,
    /// Byte range in `text`.
    pub span: Range<usize>,
    /// Few words set under the caret, e.g. "did you mean `path`?".
    pub label: Option<String>,
}

impl Place {
    /// Line and column of the start of the span, both from 1; the column counts characters.
    pub fn line_column(&self) -> (usize, usize) {
        let start = self.span.start.min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}
