//! The command line of sparklet: one file per command, and what they share.
//!
//! From the outside in: [`run`] reads the arguments ([`cli`]), finds the settings in force ([`settings`], [`world`]), does the command
//! ([`commands`]) and turns what went wrong ([`failure`]) into a message and an exit code ([`exit`]).
//!
//! Data goes to standard output ([`output`]), everything else to standard error ([`console`], [`diagnostics`], [`progress`]). Stable:
//! commands and flags, exit codes, names of fields in JSON, NDJSON and CSV. Not stable: the wording of messages and the layout of
//! tables. A process that is killed leaves files that the next run cleans up; nothing here has to be saved.

pub mod bug;
pub mod cli;
pub mod commands;
pub mod console;
pub mod diagnostics;
pub mod exit;
pub mod failure;
pub mod interrupt;
pub mod output;
pub mod past;
pub mod progress;
pub mod runtime;
pub mod settings;
pub mod world;

pub use cli::run;
