//! Panics: told as what they are, bugs, with exit code 70.

use std::backtrace::Backtrace;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, Once, PoisonError};

use crate::console::Console;

/// Where a person tells of a bug.
const TELL: &str = "https://github.com/sparklet/sparklet/issues";

/// What the last panic said, with its place.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Runs `work`; a panic that reaches this point is `Err` with its message.
///
/// Panics elsewhere (a task of the engine, the history's store) are caught where they can be handled: they are not told here,
/// only traced.
pub fn guard<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
            let message = format!("{}{place}", said(info.payload()));
            tracing::error!("panic: {message}\n{}", Backtrace::capture());
            *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
        }));
    });
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        LAST.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(|| said(&*payload))
    })
}

fn said(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Says that it is a bug.
pub fn say(console: &mut Console, message: &str) {
    console.error(&format!("this is a bug in sparklet: {message}"));
    say_where_to_tell(console);
}

/// Says where to tell of a bug.
pub fn say_where_to_tell(console: &mut Console) {
    console.hint(&format!(
        "please report it at {TELL} with the command, sparklet {} and what `SPARKLET_LOG=debug` shows",
        env!("CARGO_PKG_VERSION")
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_message_with_its_place() {
        assert_eq!(guard(|| 7), Ok(7));
        let message = guard(|| panic!("no {}", "luck")).unwrap_err();
        assert!(message.starts_with("no luck (") && message.contains("bug.rs:"), "{message}");
    }
}
