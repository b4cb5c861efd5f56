//! `sparklet model`: the cost models of a state folder.

use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sparklet_core::models;
use sparklet_optimizer::cost::{self, Accuracy, CostModel, Model, Verdict};
use sparklet_report::human;

use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::output::grid::{Cell, Grid};
use crate::past;
use crate::settings::{LookFlags, Settings, StateFlags};
use crate::world::World;

/// Look after the cost models that plans are chosen by
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the models of the environment, which one serves, and how well each predicts
    Show(Show),
    /// Train a model on the last runs now; it serves if it is no worse than the one that does
    Train(Plain),
    /// Predict past runs by models of the runs before them, and each step by a model that has not seen it
    Evaluate(Show),
    /// Let an earlier model serve
    Rollback(Rollback),
}

#[derive(Debug, Args)]
struct Plain {
    #[command(flatten)]
    settings: StateFlags,
}

#[derive(Debug, Args)]
struct Show {
    /// Format of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    settings: StateFlags,
}

#[derive(Debug, Args)]
struct Rollback {
    /// Number of the model, or `prior` for the one that sparklet comes with [default: the one before the one that serves]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    settings: StateFlags,
}

/// Does what was asked of the models.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let flags = match &arguments.command {
        Command::Show(Show { settings, .. })
        | Command::Evaluate(Show { settings, .. })
        | Command::Train(Plain { settings })
        | Command::Rollback(Rollback { settings, .. }) => settings,
    };
    let settings = world.in_force(look, flags.given(&world.cwd), None, console)?;
    match &arguments.command {
        Command::Show(arguments) => show(arguments.format, &settings, console),
        Command::Train(_) => train(&settings, console),
        Command::Evaluate(arguments) => evaluate(arguments.format, &settings, console),
        Command::Rollback(arguments) => rollback(arguments.model.as_deref(), &settings, console),
    }
}

fn show(format: Format, settings: &Settings, console: &mut Console) -> Result {
    let history = past::history(settings);
    let kept = history.models(&settings.environment);
    let serving = models::serving(&history, &settings.environment);
    if let Some(reason) = &serving.ignored {
        console.warn(&human::safe(reason));
    }
    let serves = serving.model.version();
    let mut grid = Grid::new(&[
        ("model", false),
        ("serves", false),
        ("learned", false),
        ("through", false),
        ("runs", true),
        ("operators", true),
        ("steps", true),
        ("p50", true),
        ("p90", true),
        ("p99", true),
        ("covered", true),
        ("new p50", true),
        ("new p90", true),
    ]);
    let mut add = |model: &Model| {
        let of = model.provenance();
        let through = DateTime::from_timestamp_micros(of.through_us).filter(|_| of.through_us > 0);
        let learned = match model.learners().join(" + ") {
            empty if empty.is_empty() => "nothing".to_owned(),
            learned => learned,
        };
        let name = model.version().to_string();
        grid.push(vec![
            Cell::text(name),
            Cell::new(if model.version() == serves { "yes" } else { "" }, model.version() == serves),
            Cell::text(learned),
            Cell::new(
                through.map_or("-".to_owned(), |t| t.format("%Y-%m-%d %H:%M").to_string()),
                through.map(|t| t.to_rfc3339_opts(SecondsFormat::Micros, true)),
            ),
            Cell::new(human::count(of.runs), of.runs),
            Cell::new(human::count(model.operators_known() as u64), model.operators_known()),
            Cell::new(human::count(of.known.steps), of.known.steps),
            factor(&of.known, of.known.p50),
            factor(&of.known, of.known.p90),
            factor(&of.known, of.known.p99),
            share(&of.known),
            factor(&of.unknown, of.unknown.p50),
            factor(&of.unknown, of.unknown.p90),
        ]);
    };
    add(cost::prior());
    let mut unusable = Vec::new();
    for number in kept.numbers() {
        match models::read(&kept, number) {
            Ok(model) => add(&model),
            Err(reason) => unusable.push(format!("model {number}: {reason}")),
        }
    }
    unusable.iter().for_each(|reason| console.warn(&human::safe(reason)));
    let look = console.out_look();
    grid.write(console.out(), format, look)
}

/// A q-error; nothing where no step was predicted.
fn factor(of: &Accuracy, value: f64) -> Cell {
    if of.steps == 0 { Cell::new("-", Value::Null) } else { Cell::new(format!("{value:.2}"), value) }
}

fn share(of: &Accuracy) -> Cell {
    if of.coverage == 0.0 {
        Cell::new("-", Value::Null)
    } else {
        Cell::new(format!("{:.0} %", 100.0 * of.coverage), of.coverage)
    }
}

fn train(settings: &Settings, console: &mut Console) -> Result {
    let trained = models::train(&past::history(settings), &settings.environment, true)?;
    let Some(trained) = trained else {
        console
            .say("there is nothing to learn from yet: no run of this environment that succeeded, or too few operators");
        return Ok(());
    };
    let number = trained.number;
    console.say(&match trained.verdict {
        Verdict::Serves => format!("model {number} serves from now on"),
        Verdict::PredictsWorse => {
            format!("model {number} is kept, and does not serve: it predicts worse than the one that does")
        }
        Verdict::ChoosesWorse => {
            format!("model {number} is kept, and does not serve: it would have picked worse plans")
        }
    });
    if trained.champion.steps > 0 {
        console.say(&format!(
            "q-error on {} that neither had seen: P50 {:.2}, P90 {:.2}; the one before: P50 {:.2}, P90 {:.2}",
            human::plural(trained.challenger.steps, "step", "steps"),
            trained.challenger.p50,
            trained.challenger.p90,
            trained.champion.p50,
            trained.champion.p90,
        ));
    }
    Ok(())
}

fn evaluate(format: Format, settings: &Settings, console: &mut Console) -> Result {
    let store = past::open(settings, console)?;
    let samples = models::samples(&store, &settings.environment)?;
    store.close();
    let evaluation = models::evaluate(&samples);
    if format == Format::Json {
        let of = |accuracy: &Accuracy| {
            json!({
                "steps": accuracy.steps, "p50": accuracy.p50, "p90": accuracy.p90, "p99": accuracy.p99,
                "coverage": accuracy.coverage,
            })
        };
        let runs: Vec<Value> = evaluation
            .runs
            .iter()
            .map(|(at, accuracy)| {
                let started =
                    DateTime::from_timestamp_micros(*at).map(|t| t.to_rfc3339_opts(SecondsFormat::Micros, true));
                json!({"started": started, "accuracy": of(accuracy)})
            })
            .collect();
        let all = json!({
            "runs": runs,
            "recurring": of(&evaluation.recurring),
            "unseen": of(&evaluation.unseen),
            "prior": of(&evaluation.prior),
        });
        serde_json::to_writer_pretty(console.out(), &all)?;
        writeln!(console.out())?;
        return Ok(());
    }
    let mut grid =
        Grid::new(&[("what", false), ("steps", true), ("p50", true), ("p90", true), ("p99", true), ("covered", true)]);
    let mut add = |what: String, of: &Accuracy| {
        grid.push(vec![
            Cell::text(what),
            Cell::new(human::count(of.steps), of.steps),
            factor(of, of.p50),
            factor(of, of.p90),
            factor(of, of.p99),
            share(of),
        ]);
    };
    for (at, accuracy) in &evaluation.runs {
        let started = DateTime::from_timestamp_micros(*at).map(|t| t.format("%Y-%m-%d %H:%M:%S").to_string());
        add(format!("run of {}", started.unwrap_or_default()), accuracy);
    }
    add("steps that came again".to_owned(), &evaluation.recurring);
    add("steps never seen".to_owned(), &evaluation.unseen);
    add("the same, by the prior".to_owned(), &evaluation.prior);
    let look = console.out_look();
    grid.write(console.out(), format, look)
}

fn rollback(asked: Option<&str>, settings: &Settings, console: &mut Console) -> Result {
    let history = past::history(settings);
    let kept = history.models(&settings.environment);
    let number = match asked {
        Some("prior") => None,
        Some(text) => {
            let number = text.split('-').next().and_then(|number| number.parse().ok());
            let number: u32 = number.ok_or_else(|| {
                Failure::usage(format!("`{text}` is no model"))
                    .with_hint("give a number that `sparklet model show` lists, or `prior`")
            })?;
            Some(number)
        }
        None => match kept.serving() {
            None => return Err(Failure::Nothing("the prior serves: there is nothing before it".to_owned())),
            Some(serving) => kept.numbers().into_iter().rfind(|number| *number < serving),
        },
    };
    if let Some(number) = number {
        models::read(&kept, number).map_err(|reason| {
            Failure::usage(format!("model {number} cannot serve: {reason}"))
                .with_hint("`sparklet model show` lists those that can")
        })?;
    }
    kept.serve(number)?;
    console.say(&match number {
        Some(number) => format!("model {number} serves from now on"),
        None => "the prior serves from now on".to_owned(),
    });
    console.hint("the next model that is trained serves again if it is no worse");
    Ok(())
}
