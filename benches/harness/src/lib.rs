//! The recurring-workload harness: what later work is judged with.
//!
//! It makes data sets ([`data`]), takes the query texts, runs a workload day by day on sparklet beside plain DataFusion of the same
//! version and settings ([`runs`]), compares every result ([`compare`]), and reports ratios with their noise ([`report`]).
//! `benches/README.md` says how to use and to read it.

mod calibrate;
mod cli;
mod compare;
mod data;
mod domains;
mod drift;
mod engine;
mod error;
mod home;
mod joins;
mod learning;
mod literals;
mod measure;
mod memory;
mod oracle;
mod peer;
mod plot;
mod prior;
mod queries;
mod record;
mod report;
mod runs;
mod skew;
mod skewed;
mod stats;
mod text;
mod unseen;

pub use cli::main;
