//! End-to-end tests: the binary as a user runs it, by its outputs; and the library through its public entry.
//!
//! One binary for all of them: linking the engine takes longer than most of these tests.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed expectation is what a test is for"
)]

mod adaptive;
mod bad_input;
mod concurrency;
mod examples;
mod functions;
mod interrupt;
mod kill;
mod learning;
mod memory;
mod remembering;
mod remote;
mod slt;
mod support;
mod travel;
