//! Settings: one table, five places they can come from, and what is in force.
//!
//! Precedence: flag > environment > pipeline (`[settings]`) > project (`sparklet.toml`) > user
//! (`$XDG_CONFIG_HOME/sparklet/config.toml`) > default.

mod file;
mod flags;
mod layer;
mod page;
mod resolve;
pub mod table;
mod typed;
pub mod value;

#[cfg(test)]
mod tests;

pub(crate) use file::relative;
pub use file::{PROJECT_FILE, find_project_file, from_file, from_pipeline, user_file};
pub use flags::{EngineFlags, LookFlags, StateFlags};
pub use layer::{Given, Layer, Origin};
pub use page::reference_page;
pub use resolve::{InForce, Rejected, resolve};
pub use typed::{Learning, Settings, StateDefault};
