//! What a run would do, as data: steps, columns, changes to what is published, checks, and when the pipeline is due next.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::common::ScalarValue;
use serde::Serialize;
use sparklet_core::{PreparedQuery, Session};

use crate::check::planned::PlannedTable;
use crate::check::{Depth, PlannedStep, bind};
use crate::definition::{Condition, Output, Pipeline, Schedule, Step};
use crate::diagnostic::Diagnostic;
use crate::jobs::routes;
use crate::select::{self, Selection};
use crate::sql_refs::{self, Syntax};
use crate::step::Way;
use crate::{stage, suggest};

#[cfg(test)]
mod fingerprints;
mod published;
#[cfg(test)]
mod tests;

/// Times shown of a schedule.
const DUE: usize = 5;

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preview {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Steps that run, or are read from what is published, in order.
    pub steps: Vec<StepPreview>,
    /// The next times of the schedule; empty without one.
    pub due: Vec<Due>,
    /// What is in the definition and takes effect later.
    pub later: Vec<&'static str>,
    /// Warnings and notes of planning.
    #[serde(skip)]
    pub warnings: Vec<Diagnostic>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepPreview {
    /// Name.
    pub name: String,
    /// False: it is not selected, and its published output is read.
    pub runs: bool,
    /// Sources and steps that it reads.
    pub reads: Vec<String>,
    /// Columns of the result.
    pub columns: Vec<Column>,
    /// Rows that statistics expect, where they tell.
    pub estimated_rows: Option<u64>,
    /// Parts of the plan, such as joins, that would run as stages before the rest is planned.
    pub boundaries: u64,
    /// Where the result goes; none: an intermediate result.
    pub output: Option<OutputPreview>,
    /// Conditions on the result.
    pub checks: Vec<CheckPreview>,
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Arrow type.
    #[serde(rename = "type")]
    pub data_type: String,
}

/// What becomes of an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutputPreview {
    /// As written.
    pub location: String,
    /// `parquet`, `csv`, `json`, `arrow`.
    pub format: &'static str,
    /// `replace`, `append`, `replace_partitions`, `replace_interval`.
    pub mode: &'static str,
    /// True: one file.
    pub single_file: bool,
    /// Partition columns.
    pub partition_by: Vec<String>,
    /// True if something is published there now.
    pub exists: bool,
    /// How the columns differ from what is published; none where nothing is, or its columns cannot be told.
    pub changes: Option<Vec<Change>>,
}

/// A change of a published column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A column that is new.
    Added {
        /// Name.
        column: String,
        /// Its type.
        to: String,
    },
    /// A column that goes away.
    Removed {
        /// Name.
        column: String,
    },
    /// A column of another type.
    Retyped {
        /// Name.
        column: String,
        /// Type of what is published.
        from: String,
        /// Type of the result.
        to: String,
    },
}

/// A check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckPreview {
    /// Name.
    pub name: String,
    /// The expression or query.
    pub condition: String,
    /// True if a failure blocks publishing.
    pub blocking: bool,
}

/// A time at which a pipeline is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Due {
    /// In the zone of the schedule, with its offset.
    pub local: String,
    /// In UTC.
    pub utc: String,
}

/// Plans a run of `pipeline` in `session` and compares it with what is published. Nothing runs.
///
/// # Errors
/// What a run would fail with before it began.
pub async fn plan(
    pipeline: &Pipeline,
    session: &Session,
    params: &BTreeMap<String, ScalarValue>,
    selection: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Preview, Vec<Diagnostic>> {
    let chosen = select::select(pipeline, selection, &select::is_published)?;
    let only = selection.map(|_| chosen.run.as_slice());
    let bound = bind(pipeline, session, params, only, Depth::Physical).await?;
    let shown = |step: &&Step| chosen.run.contains(&step.name) || chosen.published.contains(&step.name);
    let steps = pipeline.steps.iter().filter(shown);
    let steps =
        steps.filter_map(|s| Some(preview(s, bound.steps.iter().find(|p| p.name == s.name)?, &chosen))).collect();
    let due = pipeline.schedule.as_ref().map(|s| due(s, now, DUE)).unwrap_or_default();
    Ok(Preview { pipeline: pipeline.name.clone(), steps, due, later: pipeline.later.clone(), warnings: bound.warnings })
}

/// Plans step `name` as a run of the whole pipeline plans it; nothing runs. What it reads of other steps is known by columns and
/// expected rows only, but the plan has the fingerprints that it has in a run; except where a run finds the answer to an aggregate,
/// such as `min(x)` over a whole file, in the statistics of what a step wrote, and plans a literal in its place.
///
/// # Errors
/// No step is called so, or what is wrong with it or with what it reads.
pub async fn step(
    pipeline: &Pipeline,
    session: &Session,
    params: &BTreeMap<String, ScalarValue>,
    name: &str,
) -> Result<PreparedQuery, Vec<Diagnostic>> {
    let Some(step) = pipeline.steps.iter().find(|s| s.name == name) else {
        let hint = suggest::hint(name, "steps", pipeline.steps.iter().map(|s| s.name.as_str()));
        let unknown = Diagnostic::error("unknown-step", format!("there is no step `{name}` in `{}`", pipeline.name));
        return Err(vec![unknown.maybe_hint(hint)]);
    };
    let bound = bind(pipeline, session, params, Some(&[name.to_owned()]), Depth::Physical).await?;
    let all: Vec<&Step> = pipeline.steps.iter().collect();
    let routes = routes(&all, &Syntax::of(session));
    let planned = async {
        for (before, route) in all.iter().zip(&routes).take_while(|(s, _)| s.name != name) {
            // Steps that it does not read, directly or not, were not bound.
            let Some(bound) = bound.steps.iter().find(|b| b.name == before.name) else { continue };
            match route.way {
                Way::Inline => stage::inline(session, before, params).await?,
                Way::Keep | Way::Write | Way::KeepAndWrite => {
                    let table = PlannedTable::new(Arc::clone(&bound.schema), bound.estimated_rows);
                    table.register(session, &before.name)?;
                }
            }
        }
        stage::query(session, step, params).await
    };
    planned.await.map_err(|error| {
        let place = sql_refs::first_word(&step.sql.sql);
        vec![step.sql.error("sql-plan", place, error.message).maybe_hint(error.hint)]
    })
}

fn preview(step: &Step, planned: &PlannedStep, chosen: &Selection) -> StepPreview {
    let columns: Vec<Column> = planned
        .schema
        .fields()
        .iter()
        .map(|f| Column { name: f.name().clone(), data_type: f.data_type().to_string() })
        .collect();
    let checks = step.checks.iter().map(|check| {
        let (Condition::EachRow(text) | Condition::Query(text)) = &check.condition;
        CheckPreview { name: check.name.clone(), condition: text.trim().to_owned(), blocking: check.blocking }
    });
    StepPreview {
        name: step.name.clone(),
        runs: chosen.run.contains(&step.name),
        reads: step.reads.clone(),
        columns,
        estimated_rows: planned.estimated_rows,
        boundaries: planned.boundaries,
        output: step.output.as_ref().map(|o| output_preview(o, planned)),
        checks: checks.collect(),
    }
}

fn output_preview(output: &Output, planned: &PlannedStep) -> OutputPreview {
    OutputPreview {
        location: output.location.clone(),
        format: output.sink.format.name(),
        mode: output.mode.name(),
        single_file: output.sink.single_file,
        partition_by: output.sink.partition_by.clone(),
        exists: select::is_published(output) && matches!(output.target, crate::definition::Target::Local(_)),
        changes: published::columns(output).map(|columns| published::changes(&columns, &planned.schema)),
    }
}

/// The next `count` times after `now`; fewer where the schedule has no more.
pub fn due(schedule: &Schedule, now: DateTime<Utc>, count: usize) -> Vec<Due> {
    let (Ok(cron), Ok(zone)) =
        (crate::load::later::parse_cron(&schedule.cron), schedule.timezone.parse::<chrono_tz::Tz>())
    else {
        return Vec::new();
    };
    cron.iter_after(now.with_timezone(&zone))
        .take(count)
        .map(|at| Due {
            local: at.to_rfc3339_opts(SecondsFormat::Secs, false),
            utc: at.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true),
        })
        .collect()
}
