//! `sparklet config`: which settings hold, and where each comes from.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::shared;
use crate::console::Console;
use crate::failure::Result;
use crate::output::Format;
use crate::output::grid::{Cell, Grid};
use crate::settings::{EngineFlags, LookFlags, Origin, reference_page, table};
use crate::world::World;

/// Show the settings in force
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the settings in force here, or for a pipeline
    Show(Show),
    /// Print the reference page of the settings (Markdown)
    #[command(hide = true)]
    Reference,
}

#[derive(Debug, Args)]
struct Show {
    /// Folder or definition file of a pipeline whose `[settings]` count too
    #[arg(value_name = "PIPELINE")]
    pipeline: Option<PathBuf>,
    /// Say where each value comes from
    #[arg(long)]
    origin: bool,
    /// Format of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    settings: EngineFlags,
}

/// Prints settings.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let show = match &arguments.command {
        Command::Show(show) => show,
        Command::Reference => {
            console.out().write_all(reference_page().as_bytes())?;
            return Ok(());
        }
    };
    let (_, settings) = shared::settle(show.pipeline.as_deref(), &show.settings, look, world, console)?;

    let columns: &[(&str, bool)] = if show.origin {
        &[("name", false), ("value", false), ("origin", false), ("from", false)]
    } else {
        &[("name", false), ("value", false)]
    };
    let mut grid = Grid::new(columns);
    for (name, given, origin) in settings.in_force.all() {
        let value = match name {
            // What a default stands for here is worth more than its name.
            "state" => settings.state.display().to_string(),
            "spill_dir" => settings.spill_dir.display().to_string(),
            _ => given.text.clone(),
        };
        let mut row = vec![Cell::text(name), Cell::text(value)];
        if show.origin {
            let line = given.place.as_ref().map(|place| format!("{}:{}", given.by, place.line_column().0));
            let from = line.unwrap_or_else(|| given.by.clone());
            row.push(Cell::text(origin.to_string()));
            row.push(match origin {
                Origin::Default => Cell::new(documented(name), Value::Null),
                _ => Cell::text(from),
            });
        }
        grid.push(row);
    }
    let look = console.out_look();
    grid.write(console.out(), show.format, look)
}

/// How a setting at its default can be changed.
fn documented(name: &str) -> String {
    let flag = table::find(name).and_then(|s| s.flag);
    match flag {
        Some(table::Flag::Value(flag) | table::Flag::Switch(flag, _)) => format!("(--{flag})"),
        None => String::new(),
    }
}
