//! Pipelines: definition, validation, steps, checks, publishing.

pub mod alarm;
mod audit;
pub mod check;
pub mod definition;
pub mod diagnostic;
pub mod event;
pub mod failed;
pub mod init;
mod jobs;
mod limits;
pub mod load;
mod lock;
pub mod measure;
pub mod params;
pub mod preview;
mod publish;
mod recover;
pub mod run;
pub mod select;
pub mod sql_refs;
mod stage;
mod step;
pub mod suggest;
pub mod units;

pub use definition::Pipeline;
pub use diagnostic::{Diagnostic, Place, Severity};
pub use event::Event;
pub use load::{Loaded, load, load_text};
