//! `sparklet run`: runs a pipeline, with progress, a verdict and a record of what happened.

use std::path::{Path, PathBuf};

use clap::Args;
use sparklet_history::{CanonicalTexts, CheckRecord, Outcome, RunRecord, StepRecord};
use sparklet_pipeline::Pipeline;
use sparklet_pipeline::run::{Finished, RunOptions, run_with_texts};
use sparklet_report::human;

use super::shared::{self, Subject};
use crate::console::Console;
use crate::failure::{Failure, Result, code_of_run};
use crate::interrupt::Interrupts;
use crate::progress::Bars;
use crate::settings::{EngineFlags, LookFlags, Settings};
use crate::world::{World, shows_progress};
use crate::{exit, past, runtime};

/// Run a pipeline now
///
/// Steps run in the order in which they read each other; each result is staged, checked and published in one step, so that
/// readers see all of it or the version before. The run is remembered: see `sparklet report`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder of the pipeline, or its definition file
    #[arg(value_name = "PIPELINE", default_value = ".")]
    pipeline: PathBuf,
    /// Run these steps: `STEP`, `STEP+` (and what reads it), `+STEP` (and what it reads), separated by commas
    #[arg(long, value_name = "STEPS")]
    select: Option<String>,
    /// Value of a run parameter
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    #[command(flatten)]
    settings: EngineFlags,
}

/// Runs the pipeline.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let subject = Subject::load(&arguments.pipeline, &arguments.params, &arguments.settings, look, world, console)?;
    let session = subject.session_config();
    let Subject { pipeline, settings, params, .. } = subject;
    let interrupts = Interrupts::listen().map_err(|error| Failure::io("cannot listen for Ctrl-C", error))?;
    let bars = Bars::new(console.err_look(), shows_progress(&settings, console.err_look()));
    let options = RunOptions {
        session,
        params,
        select: arguments.select.clone(),
        timeout: settings.timeout,
        environment: settings.environment.clone(),
        state: settings.state.clone(),
        settings: settings.in_force.records(),
        failed_rows: settings.failed_rows,
        events: bars.listener(),
        cancel: interrupts.next_token(),
    };
    let ran = runtime::block_on(&settings, run_with_texts(&pipeline, &options));
    drop(options);
    bars.finish();
    let Finished { record, texts } = ran?.map_err(shared::rejected)?;
    conclude(&pipeline, &record, &texts, &settings, world, console)
}

/// Says how it went and remembers it.
fn conclude(
    pipeline: &Pipeline,
    record: &RunRecord,
    texts: &CanonicalTexts,
    settings: &Settings,
    world: &World,
    console: &mut Console,
) -> Result {
    record.notes.iter().for_each(|note| console.note(&human::safe(note)));
    for step in &record.steps {
        explain_checks(step, console);
        explain_error(step, console);
    }
    let told = record.steps.iter().any(|s| s.error.is_some() && s.outcome != Outcome::CheckFailed);
    if let Some(error) = record.error.as_ref().filter(|_| !told && record.outcome != Outcome::CheckFailed) {
        console.error(&human::safe(&error.message));
        if let Some(hint) = &error.hint {
            console.hint(&human::safe(hint));
        }
    }
    // What was seen before this run; the run itself is remembered after it is told.
    let verdict = past::verdict(record, settings);
    console.say(&format!("{}: {verdict}", pipeline.name));
    past::remember(record, texts, None, settings, world, past::Tell::Always, console);
    let kind =
        record.error.as_ref().or_else(|| record.steps.iter().find_map(|s| s.error.as_ref())).map(|e| e.kind.as_str());
    match code_of_run(record.outcome, kind) {
        exit::OK => Ok(()),
        code => Err(Failure::Said(code)),
    }
}

fn explain_error(step: &StepRecord, console: &mut Console) {
    let Some(error) = step.error.as_ref().filter(|_| !matches!(step.outcome, Outcome::CheckFailed | Outcome::Skipped))
    else {
        return;
    };
    console.error(&format!("step `{}`: {}", step.name, human::safe(&error.message)));
    if let Some(hint) = &error.hint {
        console.hint(&human::safe(hint));
    }
}

fn explain_checks(step: &StepRecord, console: &mut Console) {
    for check in step.checks.iter().filter(|c| !c.passed) {
        let text = format!("step `{}`: check `{}` failed{}", step.name, check.name, counted(check));
        if check.blocking {
            console.error(&format!("{text}; the output is as it was before"));
        } else {
            console.warn(&text);
        }
        if let Some(kept) = &check.kept {
            let kept = crate::settings::relative(Path::new(kept)).display().to_string();
            console.hint(&format!("the rows are kept in `{}`", human::safe(&kept)));
        }
    }
}

fn counted(check: &CheckRecord) -> String {
    match (check.failed_rows, check.rows) {
        (Some(failed), Some(rows)) => {
            let tolerated = if check.tolerate > 0.0 {
                format!(", {} % are tolerated", check.tolerate * 100.0)
            } else {
                String::new()
            };
            format!(
                " for {} of {}{tolerated}: {}",
                human::count(failed),
                human::plural(rows, "row", "rows"),
                human::safe(&check.condition)
            )
        }
        _ => format!(": {}", human::safe(&check.condition)),
    }
}
