//! The fence round sled: what it does with broken files (panic, fail, never answer) comes out as a [`HistoryError`].
//!
//! sled 0.34 checks what it reads with assertions. Each call into it goes through [`call`], which turns a panic into
//! [`HistoryError::Damaged`], and what can block goes through [`within`], which gives up after a time.

use std::io;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::path::Path;
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::error::HistoryError;

/// Calls into sled. `path` names the store in errors.
pub(crate) fn call<T>(path: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T, HistoryError> {
    quiet_sled();
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(meaning(path, error)),
        Err(payload) => Err(HistoryError::damaged(path, panic_text(payload.as_ref()))),
    }
}

/// Runs `work` on a thread of its own and waits at most `limit` for it. Work that does not end keeps its thread and all it
/// holds until the process ends: nothing better can be done about a call that does not come back.
pub(crate) fn within<T: Send + 'static>(
    path: &Path,
    doing: &'static str,
    limit: Duration,
    work: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, HistoryError> {
    let (send, receive) = mpsc::sync_channel(1);
    let spawned = thread::Builder::new().name("sparklet-history".into()).spawn(move || {
        // The receiver is gone if the wait was given up.
        let _ = send.send(work());
    });
    if let Err(source) = spawned {
        return Err(HistoryError::Io { doing: "start a thread for", path: path.into(), source });
    }
    match receive.recv_timeout(limit) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(HistoryError::Stuck { path: path.into(), doing, limit }),
        Err(RecvTimeoutError::Disconnected) => {
            Err(HistoryError::damaged(path, format!("the store panicked while {doing}")))
        }
    }
}

fn meaning(path: &Path, error: sled::Error) -> HistoryError {
    let sled::Error::Io(source) = error else { return HistoryError::damaged(path, error.to_string()) };
    let text = source.to_string();
    if text.contains("could not acquire lock") {
        return HistoryError::Locked { path: path.into(), waited: Duration::ZERO };
    }
    match HistoryError::io("use", path, source) {
        // What the system said stands; what sled made up itself ("failed to fill buffer") means broken files. sled passes some
        // errors of the system on as their debug text, which starts with `Os`.
        HistoryError::Io { source, .. } if source.raw_os_error().is_none() && !of_the_system(&source, &text) => {
            HistoryError::damaged(path, text)
        }
        other => other,
    }
}

fn of_the_system(source: &io::Error, text: &str) -> bool {
    text.starts_with("Os {") || source.kind() == io::ErrorKind::OutOfMemory
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("the store panicked");
    text.chars().take(300).collect()
}

/// Keeps sled's panics, which are handled here, from being printed as if sparklet had crashed. Other panics are reported as before.
fn quiet_sled() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if of_sled(info) {
                tracing::debug!("the store panicked: {info}");
            } else {
                previous(info);
            }
        }));
    });
}

fn of_sled(info: &PanicHookInfo<'_>) -> bool {
    let in_file = info.location().is_some_and(|at| at.file().contains("sled-0.34"));
    in_file || thread::current().name().is_some_and(|name| name.starts_with("sled-io"))
}
