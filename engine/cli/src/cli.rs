//! The command line: what there is to say, and where it goes.

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    check, completions, config, explain, history, init, model, plan, plan_control, report, run as run_command, runs,
    sql, udf,
};
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::settings::LookFlags;
use crate::world::World;
use crate::{bug, exit};

/// A batch data engine that remembers its runs.
#[derive(Debug, Parser)]
#[command(name = "sparklet", version, about, after_help = exit::help(), max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    look: LookFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Arguments),
    Check(check::Arguments),
    Plan(plan::Arguments),
    Run(run_command::Arguments),
    Sql(sql::Arguments),
    Explain(explain::Arguments),
    Udf(udf::Arguments),
    Runs(runs::Arguments),
    Report(report::Arguments),
    PlanControl(plan_control::Arguments),
    History(history::Arguments),
    Model(model::Arguments),
    Config(config::Arguments),
    Completions(completions::Arguments),
}

/// The command line as clap knows it, for help and completion.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what `arguments` (the program's name first) ask for and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, world: &World, console: &mut Console) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, mistakes to standard error; neither can be told to a closed pipe.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::OK };
        }
    };
    start_log(world);
    let done = bug::guard(|| cli.command.run(&cli.look, world, console).and_then(|()| Ok(console.flush()?)));
    let failure = match done {
        Ok(Ok(())) => return exit::OK,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::Bug(panic),
    };
    failure.report(console);
    match console.flush() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => failure.code().max(exit::FAILED),
        _ => failure.code(),
    }
}

impl Command {
    fn run(&self, look: &LookFlags, world: &World, console: &mut Console) -> Result {
        match self {
            Self::Init(arguments) => init::run(arguments, look, world, console),
            Self::Check(arguments) => check::run(arguments, look, world, console),
            Self::Plan(arguments) => plan::run(arguments, look, world, console),
            Self::Run(arguments) => run_command::run(arguments, look, world, console),
            Self::Sql(arguments) => sql::run(arguments, look, world, console),
            Self::Explain(arguments) => explain::run(arguments, look, world, console),
            Self::Udf(arguments) => udf::run(arguments, look, world, console),
            Self::Runs(arguments) => runs::run(arguments, look, world, console),
            Self::Report(arguments) => report::run(arguments, look, world, console),
            Self::PlanControl(arguments) => plan_control::run(arguments, look, world, console),
            Self::History(arguments) => history::run(arguments, look, world, console),
            Self::Model(arguments) => model::run(arguments, look, world, console),
            Self::Config(arguments) => config::run(arguments, look, world, console),
            Self::Completions(arguments) => completions::run(arguments, console),
        }
    }
}

/// Sends traces to standard error where `SPARKLET_LOG` asks for them.
fn start_log(world: &World) {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;

    let Some(filter) = (world.env)("SPARKLET_LOG").filter(|f| !f.is_empty()) else { return };
    let filter = EnvFilter::builder().parse_lossy(filter);
    let color = std::io::stderr().is_terminal() && (world.env)("NO_COLOR").is_none_or(|v| v.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color);
    // A second start in one process (tests) keeps the first.
    let _ = log.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    /// Help of all commands, as a terminal of 100 columns shows it.
    #[test]
    fn help() {
        fn collect(command: &mut clap::Command, path: &str, text: &mut String) {
            let name = format!("{path} {}", command.get_name()).trim().to_owned();
            text.push_str(&format!("=== {name} --help\n{}\n", command.render_long_help()));
            for inner in command.get_subcommands_mut().filter(|c| !c.is_hide_set()) {
                collect(inner, &name, text);
            }
        }
        let mut text = String::new();
        let mut command = command().term_width(100);
        command.build();
        collect(&mut command, "", &mut text);
        insta::assert_snapshot!(text);
    }
}
