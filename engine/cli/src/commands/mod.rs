//! The commands, one file each.

pub mod check;
pub mod completions;
pub mod config;
pub mod explain;
pub mod history;
pub mod init;
pub mod model;
pub mod plan;
pub mod plan_control;
pub mod report;
pub mod run;
pub mod runs;
mod shared;
pub mod sql;
pub mod udf;
