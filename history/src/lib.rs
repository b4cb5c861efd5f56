//! The memory of sparklet: runs, what each operator did, sources and their versions.
//!
//! [`History`] is the handle on a state folder; [`History::remember`] keeps the record of a run and never fails one. [`Store`] is the
//! open store, for reading and tending; it implements [`Evidence`], which is all that planning sees of the past. `record` holds the
//! plain types that a run leaves behind.
//!
//! What stays stable: records are JSON with a version; values in the store start with a version byte; the store names its format
//! before anything else of it is read. This build reads all versions up to its own, and leaves newer ones alone. `fixtures/`
//! freezes each format.
//!
//! What survives a crash: a run is [`Remembered::Stored`] once it is on the disk. Its record, observations and texts appear together
//! or not at all. A store that is held by another process, read-only, full, damaged or newer never fails a run: the record goes to
//! the spool folder and is merged when the store opens next. A damaged store is set aside and rebuilt from what can be read.
//! Deleting the history changes speed only.
//!
//! What is not here: deciding anything. And a store is opened for moments: one process at a time can hold it.

mod append;
mod block;
mod choice;
mod chunk;
mod controls;
mod error;
mod evidence;
mod fold;
mod folder;
mod guard;
mod hashed;
mod history;
mod info;
mod keys;
mod lookup;
mod models;
mod observe;
mod prune;
mod recall;
pub mod record;
mod repair;
pub mod shape;
mod spool;
mod store;
mod tail;
mod transfer;
mod trees;
mod verify;

#[cfg(test)]
mod tests;

pub use append::SourceVersion;
pub use block::{CanonicalTexts, decode_record, encode_record};
pub use choice::*;
pub use controls::{Controls, StepControl};
pub use error::HistoryError;
pub use evidence::{Evidence, NoEvidence, Scope, Subplan};
pub use hashed::hash_values;
pub use history::{History, HistoryOptions, Remembered};
pub use info::{StoreInfo, TreeInfo};
pub use models::Models;
pub use observe::{Observed, observations_of};
pub use prune::{PrunePolicy, PruneReport};
pub use recall::{LAST_RUNS, Recall, RecallLimits, Recalled, StateFolder, as_now};
pub use record::*;
pub use repair::RepairReport;
pub use shape::{OperatorClass, OperatorShape};
pub use store::{RunFilter, Store};
pub use transfer::{ExportReport, ImportReport};
pub use verify::{Problem, VerifyReport};
