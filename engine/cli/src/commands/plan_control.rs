//! `sparklet plan-control`: overrules the optimizer for one step, visibly.

use std::path::PathBuf;

use chrono::Utc;
use clap::{Args, Subcommand};
use serde_json::json;
use sparklet_history::{Controls, PlanControl, Scope, StepControl};
use sparklet_report::choice;

use super::shared;
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::output::Form;
use crate::past;
use crate::settings::{EngineFlags, LookFlags};
use crate::world::World;

/// Overrule how the plan of a step is chosen
///
/// An order stands until it is changed, and each report shows it. It is kept in `plan-control.json` of the state folder, for one
/// environment.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Run the plan that a step had in an earlier run, while it is among the candidates
    Pin {
        #[command(flatten)]
        step: Step,
        /// The run: its id, a prefix of it, or `last`
        #[arg(long, value_name = "RUN", default_value = "last")]
        run: String,
    },
    /// Always run DataFusion's own plan
    Forbid(#[command(flatten)] Step),
    /// Keep the plan that is in force: no trials, no runs of the default to compare with
    Freeze(#[command(flatten)] Step),
    /// Take back the order, and forget how the step's plans have been chosen so far
    Reset(#[command(flatten)] Step),
    /// Show the orders in force
    List {
        /// Folder of the pipeline, or its definition file
        #[arg(value_name = "PIPELINE", default_value = ".")]
        pipeline: PathBuf,
        /// Format of the output
        #[arg(long, value_enum, default_value_t)]
        format: Form,
        #[command(flatten)]
        settings: EngineFlags,
    },
}

/// The step that an order is about.
#[derive(Debug, Args)]
struct Step {
    /// Step of the pipeline
    #[arg(value_name = "STEP")]
    step: String,
    /// Folder of the pipeline, or its definition file
    #[arg(long, value_name = "PIPELINE", default_value = ".")]
    pipeline: PathBuf,
    #[command(flatten)]
    settings: EngineFlags,
}

/// Carries out the order.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let (step, run) = match &arguments.order {
        Order::List { pipeline, format, settings } => {
            let (pipeline, settings) = shared::settle(Some(pipeline), settings, look, world, console)?;
            let name = pipeline.map(|p| p.name).unwrap_or_default();
            let scope = Scope { pipeline: &name, environment: &settings.environment };
            return list(&read(&settings.state)?, scope, *format, console);
        }
        Order::Pin { step, run } => (step, Some(run)),
        Order::Forbid(step) | Order::Freeze(step) | Order::Reset(step) => (step, None),
    };
    let (pipeline, settings) = shared::settle(Some(&step.pipeline), &step.settings, look, world, console)?;
    let Some(pipeline) = pipeline else { return Err(Failure::usage("no pipeline")) };
    if !pipeline.steps.iter().any(|known| known.name == step.step) {
        let names: Vec<String> = pipeline.steps.iter().map(|s| format!("`{}`", s.name)).collect();
        let failure = Failure::usage(format!("`{}` has no step `{}`", pipeline.name, step.step));
        return Err(failure.with_hint(format!("its steps are {}", names.join(", "))));
    }
    let scope = Scope { pipeline: &pipeline.name, environment: &settings.environment };
    let mut controls = read(&settings.state)?;
    let before = controls.of(scope).remove(&step.step).unwrap_or_default();
    let order = match (&arguments.order, run) {
        (Order::Pin { .. }, Some(run)) => Some(pin(run, scope, &step.step, &settings, console)?),
        (Order::Forbid(_), _) => Some(PlanControl::Forbid),
        (Order::Freeze(_), _) => Some(PlanControl::Freeze),
        _ => None,
    };
    let reset_at = if matches!(arguments.order, Order::Reset(_)) { Some(Utc::now()) } else { before.reset_at };
    let said = match &order {
        Some(order) => choice::control(order),
        None => "no order; what was learned of its plans so far does not count any more".to_owned(),
    };
    controls
        .set(scope, &step.step, StepControl { order, reset_at })
        .map_err(|error| Failure::io(format!("cannot write `{}`", controls.path().display()), error))?;
    console.say(&format!("{}.{}: {said}", pipeline.name, step.step));
    Ok(())
}

fn read(state: &std::path::Path) -> Result<Controls> {
    Controls::read(state).map_err(|error| {
        let path = state.join("plan-control.json");
        Failure::io(format!("cannot read `{}`", path.display()), error)
    })
}

/// The plan that `step` had in `run`.
fn pin(
    run: &str,
    scope: Scope<'_>,
    step: &str,
    settings: &crate::settings::Settings,
    console: &mut Console,
) -> Result<PlanControl> {
    let store = past::open(settings, console)?;
    let record = store.run(run)?;
    if record.pipeline != scope.pipeline {
        let message = format!("run `{}` is one of `{}`, not of `{}`", record.id, record.pipeline, scope.pipeline);
        return Err(Failure::usage(message).with_hint("see `sparklet runs` for the runs of a pipeline"));
    }
    let of_step = record.steps.iter().find(|s| s.name == step).and_then(|s| s.choice.as_ref());
    match of_step.and_then(|choice| choice.chosen.key) {
        Some(plan) => Ok(PlanControl::Pin { plan, run: Some(record.id) }),
        None => Err(Failure::usage(format!("run `{}` has not chosen a plan for step `{step}`", record.id))
            .with_hint("see `sparklet report RUN` for what it chose")),
    }
}

fn list(controls: &Controls, scope: Scope<'_>, format: Form, console: &mut Console) -> Result {
    let orders = controls.of(scope);
    match format {
        Form::Json => {
            console.json(&json!({ "pipeline": scope.pipeline, "environment": scope.environment, "steps": orders }))?
        }
        Form::Text => {
            let mut any = false;
            for (step, control) in &orders {
                let Some(order) = &control.order else { continue };
                any = true;
                writeln!(console.out(), "{step}: {}", choice::control(order))?;
            }
            if !any {
                writeln!(console.out(), "no orders for `{}`", scope.pipeline)?;
            }
        }
    }
    Ok(())
}
