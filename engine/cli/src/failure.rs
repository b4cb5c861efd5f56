//! Why a command did not do what was asked, what is said about it, and the exit code.

use std::io;

use sparklet_core::{Error, ErrorKind};
use sparklet_history::Outcome;
use sparklet_pipeline::{Diagnostic, Severity};

use crate::console::Console;
use crate::{diagnostics, exit};

/// Result of a command.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Why a command stops.
#[derive(Debug)]
pub enum Failure {
    /// The command line, the environment or a run id is wrong.
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A definition, a settings file or SQL is wrong.
    Definition {
        /// All that is wrong.
        diagnostics: Vec<Diagnostic>,
        /// [`exit::DEFINITION`], or [`exit::USAGE`] where the caller is to blame.
        code: u8,
    },
    /// The engine says no.
    Engine(Box<Error>),
    /// The history cannot be used.
    History {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Something about files that are not the engine's.
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        error: io::Error,
    },
    /// There was nothing to do.
    Nothing(String),
    /// Everything was said already; the code is left.
    Said(u8),
    /// The reader of the output went away: not an error.
    ClosedPipe,
    /// Interrupted.
    Interrupted,
    /// A bug.
    Bug(String),
}

impl Failure {
    /// A wrong command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Self::Usage { hint, .. } | Self::History { hint, .. } => *hint = Some(text.into()),
            Self::Engine(error) => error.hint = Some(text.into()),
            _ => {}
        }
        self
    }

    /// Wrong definitions or SQL.
    pub fn definition(diagnostics: Vec<Diagnostic>) -> Self {
        Self::Definition { diagnostics, code: exit::DEFINITION }
    }

    /// Something about a file.
    pub fn io(what: impl Into<String>, error: io::Error) -> Self {
        Self::Io { what: what.into(), error }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage { .. } => exit::USAGE,
            Self::Definition { code, .. } | Self::Said(code) => *code,
            Self::Engine(error) => code_of(error.kind),
            Self::History { .. } => exit::HISTORY,
            Self::Io { .. } => exit::FAILED,
            Self::Nothing(_) => exit::NOTHING,
            Self::ClosedPipe => exit::OK,
            Self::Interrupted => exit::INTERRUPTED,
            Self::Bug(_) => exit::BUG,
        }
    }

    /// Says it.
    pub fn report(&self, console: &mut Console) {
        let (message, hint) = match self {
            Self::Definition { diagnostics: all, .. } => {
                let text = diagnostics::render(all, console.err_look());
                console.say(&text);
                return;
            }
            Self::Usage { message, hint } | Self::History { message, hint } => (message.clone(), hint.clone()),
            Self::Engine(error) => (error.message.clone(), error.hint.clone()),
            Self::Io { what, error } => (format!("{what}: {error}"), None),
            Self::Nothing(message) => {
                console.note(message);
                return;
            }
            Self::Interrupted => ("interrupted".to_owned(), None),
            Self::Bug(message) => {
                crate::bug::say(console, message);
                return;
            }
            Self::Said(_) | Self::ClosedPipe => return,
        };
        console.error(message.trim_end());
        if let Some(hint) = hint {
            console.hint(&hint);
        }
        if matches!(self, Self::Engine(error) if error.kind == ErrorKind::Internal) {
            crate::bug::say_where_to_tell(console);
        }
    }
}

/// Exit code for a kind of engine error.
pub fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Query => exit::DEFINITION,
        ErrorKind::Data | ErrorKind::Function | ErrorKind::Source | ErrorKind::Output | ErrorKind::Transient => {
            exit::FAILED
        }
        ErrorKind::Resources => exit::RESOURCES,
        ErrorKind::Cancelled => exit::INTERRUPTED,
        ErrorKind::Timeout => exit::TIMEOUT,
        ErrorKind::Setting => exit::USAGE,
        ErrorKind::Internal => exit::BUG,
    }
}

/// Exit code for a run that ended as `outcome`; `kind` names the error as a run record does.
pub fn code_of_run(outcome: Outcome, kind: Option<&str>) -> u8 {
    match outcome {
        Outcome::Succeeded => exit::OK,
        Outcome::CheckFailed => exit::CHECK_FAILED,
        Outcome::Cancelled => exit::INTERRUPTED,
        Outcome::TimedOut => exit::TIMEOUT,
        Outcome::Skipped => exit::NOTHING,
        Outcome::Failed => match kind {
            Some("resources") => exit::RESOURCES,
            Some("internal") => exit::BUG,
            Some("query" | "definition") => exit::DEFINITION,
            _ => exit::FAILED,
        },
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        debug_assert!(diagnostics.iter().any(|d| d.severity == Severity::Error));
        Self::definition(diagnostics)
    }
}

/// Errors of writing to the output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::io("cannot write the output", error)
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() {
            io::Error::from(error).into()
        } else {
            Self::Bug(format!("a value could not be written as JSON: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        assert_eq!(Failure::usage("x").code(), 2);
        assert_eq!(Failure::definition(Vec::new()).code(), 3);
        assert_eq!(Failure::from(Error::new(ErrorKind::Resources, "x")).code(), 6);
        assert_eq!(Failure::from(Error::new(ErrorKind::Timeout, "x")).code(), 124);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).code(), 0);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).code(), 1);
        assert_eq!(code_of_run(Outcome::Succeeded, None), 0);
        assert_eq!(code_of_run(Outcome::CheckFailed, None), 4);
        assert_eq!(code_of_run(Outcome::Failed, Some("data")), 1);
        assert_eq!(code_of_run(Outcome::Failed, Some("resources")), 6);
        assert_eq!(code_of_run(Outcome::Cancelled, Some("cancelled")), 130);
    }
}
