//! Errors with a message, panics, and messages to the log of the host.

use std::fmt::{self, Display};

/// What went wrong, in words for the person who wrote the query.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error(String);

/// A result whose error goes to the person who wrote the query.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with this message.
    pub fn new(message: impl Display) -> Self {
        Self(message.to_string())
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self(message.to_owned())
    }
}

/// How loud a message is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// Something failed.
    Error = 0,
    /// Something to look at.
    Warn = 1,
    /// Something to know.
    Info = 2,
    /// For the author of the function.
    Debug = 3,
}

/// Writes a message to the host's log, which shows only so many.
pub fn log(level: Level, message: &str) {
    host::log(level as i32, message);
}

/// Makes a panic end the call with its message.
pub(crate) fn report_panics() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|info| host::fail(&info.to_string()))));
}

#[cfg(target_arch = "wasm32")]
mod host {
    mod import {
        #[link(wasm_import_module = "sparklet1")]
        extern "C" {
            pub fn log(level: i32, message: *const u8, len: usize);
            pub fn fail(message: *const u8, len: usize);
        }
    }

    pub(super) fn log(level: i32, message: &str) {
        // SAFETY: the host only reads the message.
        unsafe { import::log(level, message.as_ptr(), message.len()) }
    }

    pub(super) fn fail(message: &str) {
        // SAFETY: the host only reads the message.
        unsafe { import::fail(message.as_ptr(), message.len()) }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod host {
    pub(super) fn log(level: i32, message: &str) {
        eprintln!("[{level}] {message}");
    }

    pub(super) fn fail(message: &str) {
        eprintln!("{message}");
    }
}
