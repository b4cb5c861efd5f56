//! What is said about a bad definition: values, rendered at the edge (the CLI shows them with a caret at file:line).

use std::fmt;
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

impl Diagnostic {
    /// Something that prevents a run.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, message: message.into(), place: None, hint: None }
    }

    /// Something that is probably not what was meant.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Something worth knowing.
    pub fn note(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(code, message) }
    }

    /// The same with a place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a hint, if there is one.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// True if it prevents a run.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl Severity {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One line without colour: `file:line:col: severity[code]: message / hint`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            let (line, column) = place.line_column();
            write!(f, "{}:{line}:{column}: ", place.file.display())?;
        }
        write!(f, "{}[{}]: {}", self.severity.name(), self.code, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " / {hint}"),
            None => Ok(()),
        }
    }
}

/// True if any of them prevents a run.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

/// Orders by file and place, those without a place first, and drops exact repetitions.
pub fn tidy(diagnostics: &mut Vec<Diagnostic>) {
    let key = |d: &Diagnostic| d.place.as_ref().map(|p| (p.file.clone(), p.span.start));
    diagnostics.sort_by_cached_key(key);
    diagnostics.dedup();
}
