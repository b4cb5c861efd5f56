//! Tests: pairs of statements, random join graphs, and agreement of both kinds of plan over all TPC queries.

mod agreement;
mod pairs;
mod properties;
mod support;
mod texts;

pub(crate) use pairs::shop;
pub(crate) use support::{Tables, runtime};
