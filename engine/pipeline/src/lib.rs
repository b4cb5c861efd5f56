//! Pipelines: definition, validation, steps, checks, publishing.

pub mod definition;
pub mod diagnostic;
pub mod event;
pub mod run;

pub use definition::Pipeline;
pub use diagnostic::{Diagnostic, Place, Severity};
pub use event::Event;
