//! `sparklet plan`: what a run would do.

use std::path::PathBuf;

use chrono::Utc;
use clap::Args;
use sparklet_pipeline::preview::{self, Change, OutputPreview, Preview, StepPreview};
use sparklet_report::human;

use super::shared::{self, Subject};
use crate::console::{Console, Look};
use crate::diagnostics;
use crate::failure::Result;
use crate::output::Form;
use crate::settings::{EngineFlags, LookFlags};
use crate::world::World;

/// Show what a run would do: steps, columns, changes to what is published, the next times to fire
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder of the pipeline, or its definition file
    #[arg(value_name = "PIPELINE", default_value = ".")]
    pipeline: PathBuf,
    /// Steps to run, as for `sparklet run`
    #[arg(long, value_name = "STEPS")]
    select: Option<String>,
    /// Value of a run parameter
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Format of the output
    #[arg(long, value_enum, default_value_t)]
    format: Form,
    #[command(flatten)]
    settings: EngineFlags,
}

/// Prints the preview.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let subject = Subject::load(&arguments.pipeline, &arguments.params, &arguments.settings, look, world, console)?;
    let previewed = subject.plan(async |session, values| {
        let planned = preview::plan(&subject.pipeline, session, values, arguments.select.as_deref(), Utc::now());
        planned.await.map_err(shared::rejected)
    })?;
    if !previewed.warnings.is_empty() {
        let text = diagnostics::render(&previewed.warnings, console.err_look());
        console.say(&text);
    }
    match arguments.format {
        Form::Text => {
            let text = text_of(&previewed, console.out_look());
            console.out().write_all(text.as_bytes())?;
        }
        Form::Json => console.json(&previewed)?,
    }
    Ok(())
}

fn text_of(preview: &Preview, look: Look) -> String {
    let running = preview.steps.iter().filter(|s| s.runs).count() as u64;
    let mut text = format!("`{}` would run {}\n", preview.pipeline, human::plural(running, "step", "steps"));
    for step in &preview.steps {
        text.push('\n');
        describe(step, look, &mut text);
    }
    if !preview.due.is_empty() {
        text.push_str("\nnext times to fire\n");
        for due in &preview.due {
            text.push_str(&format!("  {}  {}\n", due.local, due.utc));
        }
    }
    if !preview.later.is_empty() {
        let names: Vec<String> = preview.later.iter().map(|name| format!("`{name}`")).collect();
        text.push_str(&format!("\nchecked now, in effect with the service or the sandbox: {}\n", names.join(", ")));
    }
    text
}

fn describe(step: &StepPreview, look: Look, text: &mut String) {
    let (bold, plain) = if look.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let arrow = if look.unicode { "←" } else { "<-" };
    let how = if step.runs { "" } else { "  (not run: its published output is read)" };
    text.push_str(&format!("{bold}{}{plain}{how}\n", step.name));
    let mut line = |label: &str, value: String| text.push_str(&format!("  {label:<9}{}\n", human::safe(&value)));
    if !step.reads.is_empty() {
        line("reads", format!("{arrow} {}", step.reads.join(", ")));
    }
    match &step.output {
        Some(output) => line("output", output_text(output)),
        None => line("output", "none: an intermediate result".to_owned()),
    }
    if let Some(rows) = step.estimated_rows {
        line("rows", format!("about {} (from statistics)", human::count(rows)));
    }
    if step.boundaries > 0 {
        let parts = human::plural(step.boundaries, "part", "parts");
        line("stages", format!("{parts} of the plan run first and are measured (see `sparklet explain`)"));
    }
    let columns: Vec<String> = step.columns.iter().map(|c| format!("{} {}", c.name, c.data_type)).collect();
    line("columns", columns.join(", "));
    for change in step.output.iter().flat_map(|o| o.changes.iter().flatten()) {
        line("changes", change_text(change));
    }
    for check in &step.checks {
        let then = if check.blocking { "blocks publishing" } else { "warns" };
        line("check", format!("{} ({then}): {}", check.name, check.condition));
    }
}

fn output_text(output: &OutputPreview) -> String {
    let form = if output.single_file { "file" } else { "folder" };
    let by =
        if output.partition_by.is_empty() { String::new() } else { format!(" by {}", output.partition_by.join(", ")) };
    let now = match (output.exists, output.mode) {
        (true, "replace") => "replaces what is there",
        (true, "append") => "adds to what is there",
        (true, _) => "replaces partitions of what is there",
        (false, _) => "new",
    };
    format!("{} ({} {form}{by}, {now})", output.location, output.format)
}

fn change_text(change: &Change) -> String {
    match change {
        Change::Added { column, to } => format!("adds column `{column}` ({to})"),
        Change::Removed { column } => format!("removes column `{column}`"),
        Change::Retyped { column, from, to } => format!("column `{column}` was {from}, becomes {to}"),
    }
}

#[cfg(test)]
mod tests {
    use sparklet_pipeline::preview::{CheckPreview, Column, Due};

    use super::*;

    #[test]
    fn text() {
        let preview = Preview {
            pipeline: "daily".to_owned(),
            steps: vec![
                StepPreview {
                    name: "clean".to_owned(),
                    runs: false,
                    reads: vec!["orders".to_owned()],
                    columns: vec![Column { name: "id".to_owned(), data_type: "Int64".to_owned() }],
                    estimated_rows: None,
                    boundaries: 0,
                    output: None,
                    checks: Vec::new(),
                },
                StepPreview {
                    name: "totals".to_owned(),
                    runs: true,
                    reads: vec!["clean".to_owned(), "customers".to_owned()],
                    columns: vec![
                        Column { name: "id".to_owned(), data_type: "Int64".to_owned() },
                        Column { name: "total".to_owned(), data_type: "Float64".to_owned() },
                    ],
                    estimated_rows: Some(12_000),
                    boundaries: 2,
                    output: Some(OutputPreview {
                        location: "out/totals".to_owned(),
                        format: "parquet",
                        mode: "replace",
                        single_file: false,
                        partition_by: vec!["day".to_owned()],
                        exists: true,
                        changes: Some(vec![
                            Change::Added { column: "total".to_owned(), to: "Float64".to_owned() },
                            Change::Removed { column: "sum".to_owned() },
                        ]),
                    }),
                    checks: vec![CheckPreview {
                        name: "positive".to_owned(),
                        condition: "total > 0".to_owned(),
                        blocking: true,
                    }],
                },
            ],
            due: vec![Due { local: "2026-03-29T03:15:00+02:00".to_owned(), utc: "2026-03-29T01:15:00Z".to_owned() }],
            later: vec!["schedule"],
            warnings: Vec::new(),
        };
        insta::assert_snapshot!(text_of(&preview, Look::plain(80)), @r#"
            `daily` would run 1 step

            clean  (not run: its published output is read)
              reads    ← orders
              output   none: an intermediate result
              columns  id Int64

            totals
              reads    ← clean, customers
              output   out/totals (parquet folder by day, replaces what is there)
              rows     about 12,000 (from statistics)
              stages   2 parts of the plan run first and are measured (see `sparklet explain`)
              columns  id Int64, total Float64
              changes  adds column `total` (Float64)
              changes  removes column `sum`
              check    positive (blocks publishing): total > 0

            next times to fire
              2026-03-29T03:15:00+02:00  2026-03-29T01:15:00Z

            checked now, in effect with the service or the sandbox: `schedule`
        "#);
    }
}
