//! The memory of sparklet.
//!
//! `record` holds the plain types that a run leaves behind.

pub mod record;

pub use record::*;
