//! `sparklet check`: everything that can be said of a pipeline without reading data, all at once.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use sparklet_history::Controls;
use sparklet_pipeline::diagnostic::has_errors;
use sparklet_pipeline::{Diagnostic, Pipeline, check};
use sparklet_report::human;

use super::shared::{self, Subject};
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::output::Form;
use crate::settings::{EngineFlags, LookFlags};
use crate::world::World;
use crate::{diagnostics, exit};

/// Check a pipeline without running it: definition, SQL, sources, outputs; all mistakes at once
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder of the pipeline, or its definition file
    #[arg(value_name = "PIPELINE", default_value = ".")]
    pipeline: PathBuf,
    /// Value of a run parameter
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Format of what is found: text for people, or JSON on standard output
    #[arg(long, value_enum, default_value_t)]
    format: Form,
    #[command(flatten)]
    settings: EngineFlags,
}

/// Checks the pipeline.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let found = find(arguments, look, world, console)?;
    let failed = has_errors(&found.diagnostics);
    if arguments.format == Form::Json {
        console.json(&found.diagnostics.iter().map(json_of).collect::<Vec<Value>>())?;
    } else if !found.diagnostics.is_empty() {
        let text = diagnostics::render(&found.diagnostics, console.err_look());
        console.say(&text);
    }
    if failed {
        return Err(Failure::Said(exit::DEFINITION));
    }
    if let Some(pipeline) = found.pipeline {
        console.say(&format!(
            "`{}` is good: {}, {}",
            pipeline.name,
            human::plural(pipeline.sources.len() as u64, "source", "sources"),
            human::plural(pipeline.steps.len() as u64, "step", "steps"),
        ));
    }
    Ok(())
}

struct Found {
    pipeline: Option<Pipeline>,
    diagnostics: Vec<Diagnostic>,
}

fn find(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result<Found> {
    let flags = arguments.settings.given(&world.cwd).map_err(Failure::usage)?;
    let params = shared::params(&arguments.params)?;
    let loaded = match sparklet_pipeline::load(&arguments.pipeline, &*world.env) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return Ok(Found { pipeline: None, diagnostics }),
    };
    let pipeline = loaded.pipeline;
    let mut all = loaded.warnings;
    let settings = match world.in_force(look, flags, Some(&pipeline), console) {
        Ok(settings) => settings,
        // Settings of the pipeline are part of its definition.
        Err(Failure::Definition { diagnostics, code: exit::DEFINITION }) => {
            all.extend(diagnostics);
            return Ok(Found { pipeline: Some(pipeline), diagnostics: all });
        }
        Err(failure) => return Err(failure),
    };
    let subject = Subject { pipeline, settings, params, controls: Controls::default() };
    let found = subject.plan(async |session, values| Ok(check::check(&subject.pipeline, session, values).await))?;
    all.extend(found);
    Ok(Found { pipeline: Some(subject.pipeline), diagnostics: all })
}

fn json_of(diagnostic: &Diagnostic) -> Value {
    let place = diagnostic.place.as_ref().map(|place| {
        let (line, column) = place.line_column();
        json!({"file": place.file.display().to_string(), "line": line, "column": column})
    });
    json!({
        "severity": diagnostic.severity.name(),
        "code": diagnostic.code,
        "message": diagnostic.message,
        "place": place,
        "hint": diagnostic.hint,
    })
}
