//! What can go wrong with the memory, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the history could not be read or written. A run never fails for one of these: its record is spooled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// Another process holds the store.
    #[error("the history at `{}` is in use by another process (waited {:.1} s)", path.display(), waited.as_secs_f64())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Time spent waiting.
        waited: Duration,
    },
    /// The folder or the store may not be written.
    #[error("the history at `{}` may only be read: {detail}", path.display())]
    ReadOnly {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// No space is left.
    #[error("no space is left for the history at `{}`", path.display())]
    Full {
        /// What was to be written.
        path: PathBuf,
    },
    /// A newer build wrote it.
    #[error("the history at `{}` has version {found}, this build reads up to version {supported}", path.display())]
    Newer {
        /// The store.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version that this build reads.
        supported: u32,
    },
    /// Its content does not make sense.
    #[error("the history at `{}` is damaged: {detail}", path.display())]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// An operation on the store did not end in time.
    #[error("the history at `{}` did not answer within {} s while {doing}", path.display(), limit.as_secs())]
    Stuck {
        /// The store.
        path: PathBuf,
        /// What was asked of it.
        doing: &'static str,
        /// The time it was given.
        limit: Duration,
    },
    /// The system refused an operation.
    #[error("failed to {doing} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No run has that name.
    #[error("no run `{asked}` in the history at `{}`", path.display())]
    NotFound {
        /// The name or prefix asked for.
        asked: String,
        /// The store.
        path: PathBuf,
        /// The ids most like it.
        nearest: Vec<String>,
    },
    /// Several runs have names that start so.
    #[error("`{asked}` names {} runs", candidates.len())]
    Ambiguous {
        /// The prefix asked for.
        asked: String,
        /// Their ids, newest first.
        candidates: Vec<String>,
    },
    /// One record cannot be read; others can.
    #[error("run `{run}` cannot be read: {detail}")]
    Record {
        /// The run.
        run: String,
        /// What was found.
        detail: String,
    },
}

impl HistoryError {
    /// What a user can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Locked { .. } => "wait for the other process to end, then try again".into(),
            Self::ReadOnly { .. } => "make the folder writable, or choose another with `--state`".into(),
            Self::Full { .. } => "free some space, or run `sparklet history prune`".into(),
            Self::Newer { found, .. } => {
                format!("use a sparklet that reads history version {found}; nothing was changed")
            }
            Self::Damaged { .. } => "run `sparklet history repair`: the store is rebuilt from what can be read".into(),
            Self::Stuck { .. } => "try again; if it stays so, run `sparklet history repair`".into(),
            Self::Io { .. } => "check that the state folder exists and may be read and written".into(),
            Self::NotFound { nearest, .. } if nearest.is_empty() => {
                "list what is there with `sparklet runs`; another state folder is given with `--state`".into()
            }
            Self::NotFound { nearest, .. } => format!("did you mean {}?", quoted(nearest)),
            Self::Ambiguous { candidates, .. } => format!("give more characters: {}", quoted(candidates)),
            Self::Record { .. } => "run `sparklet history verify` to see what else is affected".into(),
        }
    }

    /// True if the same call can succeed later without anybody doing anything.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::Stuck { .. })
    }

    /// An I/O error by what it means for a user.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path: path.into(), detail: source.to_string() }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path: path.into() }
            }
            _ => Self::Io { doing, path: path.into(), source },
        }
    }

    pub(crate) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), detail: detail.into() }
    }
}

fn quoted(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|n| format!("`{n}`")).collect();
    let more = names.len().saturating_sub(5);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
