//! `sparklet udf`: user functions in WebAssembly: begin one, look into a module, test it, measure it.

mod bench;
mod new;
mod test;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sparklet_core::sandbox::{Module, Nulls};
use sparklet_core::{Session, SessionConfig};
use sparklet_report::human;

use super::shared;
use crate::console::Console;
use crate::failure::Result;
use crate::output::Format;
use crate::output::grid::{Cell, Grid};
use crate::settings::{EngineFlags, LookFlags, Settings};
use crate::world::World;

/// Work with user functions in WebAssembly
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a function to begin with, in a language of your choice
    New(new::Arguments),
    /// Say what is in a module, and what is wrong with it; none of its code runs
    Check(Check),
    /// List the functions of a pipeline's modules
    List(List),
    /// Hold a function against a table of cases: row by row, all at once, in reverse
    Test(test::Arguments),
    /// Measure what a row costs
    Bench(bench::Arguments),
}

#[derive(Debug, Args)]
struct Check {
    /// The module: a `.wasm` or `.wat` file
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// Format of the list of functions
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    settings: EngineFlags,
}

#[derive(Debug, Args)]
struct List {
    /// Folder of the pipeline, or its definition file
    #[arg(value_name = "PIPELINE", default_value = ".")]
    pipeline: PathBuf,
    /// Format of the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    settings: EngineFlags,
}

/// Does what was asked.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    match &arguments.command {
        Command::New(arguments) => new::run(arguments, world, console),
        Command::Check(arguments) => check(arguments, look, world, console),
        Command::List(arguments) => list(arguments, look, world, console),
        Command::Test(arguments) => test::run(arguments, look, world, console),
        Command::Bench(arguments) => bench::run(arguments, look, world, console),
    }
}

/// A session with the functions of one module.
fn session(settings: &Settings, change: impl FnOnce(&mut SessionConfig), file: &Path) -> Result<Session> {
    let mut config = settings.session();
    change(&mut config);
    let session = Session::new(config)?;
    session.load_functions(file)?;
    Ok(session)
}

fn check(arguments: &Check, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let (_, settings) = shared::settle(None, &arguments.settings, look, world, console)?;
    let file = world.cwd.join(&arguments.module);
    let session = Session::new(settings.session())?;
    let module = session.load_functions(&file)?;
    session.compile(&module)?;
    let look = console.out_look();
    grid([&*module].into_iter()).write(console.out(), arguments.format, look)?;
    console.say(&format!(
        "`{}` is good: {} mode, {}, {}, version {}",
        arguments.module.display(),
        module.mode().name(),
        human::plural(module.functions().len() as u64, "function", "functions"),
        human::bytes(module.bytes().len() as u64),
        module.version(),
    ));
    Ok(())
}

fn list(arguments: &List, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let (pipeline, settings) = shared::settle(Some(&arguments.pipeline), &arguments.settings, look, world, console)?;
    let session = Session::new(settings.session())?;
    let mut modules = Vec::new();
    for udf in pipeline.iter().flat_map(|p| &p.udfs) {
        modules.push(session.load_module(&udf.file, &udf.written, udf.declared.clone())?);
    }
    let look = console.out_look();
    grid(modules.iter().map(|m| &**m)).write(console.out(), arguments.format, look)
}

fn grid<'a>(modules: impl Iterator<Item = &'a Module>) -> Grid {
    let columns = [
        ("function", false),
        ("kind", false),
        ("signature", false),
        ("nulls", false),
        ("volatility", false),
        ("module", false),
    ];
    let mut grid = Grid::new(&columns);
    for module in modules {
        for function in module.functions() {
            grid.push(vec![
                Cell::text(&function.name),
                Cell::text(function.kind()),
                Cell::text(function.signature()),
                Cell::text(if function.nulls == Nulls::Propagate { "propagate" } else { "called" }),
                Cell::text(format!("{:?}", function.volatility).to_lowercase()),
                Cell::text(module.name()),
            ]);
        }
    }
    grid
}
