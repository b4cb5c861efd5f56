//! One key with 40 % of the rows: what adapting in mid-run makes of it, beside plain DataFusion and beside even data.
//!
//! Data by [`data`], queries by [`cases`], run by [`runs`]; [`timed`] measures the tasks of plain DataFusion's skewed stage, [`report`]
//! says what came of it, against the bars.

mod cases;
mod data;
mod report;
mod runs;
mod text;
pub(crate) mod timed;

pub(crate) use cases::load;
pub(crate) use data::{Size, setup};
pub(crate) use report::Report;
pub(crate) use runs::{Plan, run};
pub(crate) use text::write;
