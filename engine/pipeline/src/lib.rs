//! Pipelines: definition, validation, steps, checks, publishing.

pub mod definition;
pub mod diagnostic;
pub mod event;
pub mod params;
pub mod run;
pub mod suggest;
pub mod units;

pub use definition::Pipeline;
pub use diagnostic::{Diagnostic, Place, Severity};
pub use event::Event;
