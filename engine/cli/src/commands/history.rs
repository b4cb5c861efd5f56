//! `sparklet history`: the store of past runs.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Local, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sparklet_history::{PrunePolicy, StoreInfo};
use sparklet_pipeline::units;
use sparklet_report::human;

use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::output::grid::{Cell, Grid};
use crate::settings::{LookFlags, Settings, StateFlags, value};
use crate::world::World;
use crate::{exit, past};

/// Look after the store of past runs
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what is in the store and how large it is
    Info(Info),
    /// Check that every record can be read and fits the others; changes nothing
    Verify(Plain),
    /// Rebuild a damaged store from what can be read; the old one is set aside
    Repair(Plain),
    /// Drop old runs and give the space back
    Prune(Prune),
    /// Write all runs as NDJSON, to a file or to standard output
    Export(Export),
    /// Take in runs that were exported, from a file or from standard input; known ones are left out
    Import(Import),
}

#[derive(Debug, Args)]
struct Plain {
    #[command(flatten)]
    settings: StateFlags,
}

#[derive(Debug, Args)]
struct Info {
    /// Format of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    settings: StateFlags,
}

#[derive(Debug, Args)]
struct Prune {
    /// Drop runs older than this, e.g. `90d` [default: setting `history.max_age`]
    #[arg(long, value_name = "TIME")]
    max_age: Option<String>,
    /// Keep this many runs of each pipeline [default: setting `history.max_runs`]
    #[arg(long, value_name = "N")]
    max_runs: Option<String>,
    /// Drop the oldest runs until the store is below this size [default: setting `history.max_size`]
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    #[command(flatten)]
    settings: StateFlags,
}

#[derive(Debug, Args)]
struct Export {
    /// File to write; without it, standard output
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: StateFlags,
}

#[derive(Debug, Args)]
struct Import {
    /// File to read; without it, standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: StateFlags,
}

/// Does what was asked of the store.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let flags = match &arguments.command {
        Command::Info(Info { settings, .. })
        | Command::Verify(Plain { settings })
        | Command::Repair(Plain { settings })
        | Command::Prune(Prune { settings, .. })
        | Command::Export(Export { settings, .. })
        | Command::Import(Import { settings, .. }) => settings,
    };
    let settings = world.in_force(look, flags.given(&world.cwd), None, console)?;
    match &arguments.command {
        Command::Info(arguments) => info(arguments, &settings, console),
        Command::Verify(_) => verify(&settings, console),
        Command::Repair(_) => repair(&settings, console),
        Command::Prune(arguments) => prune(arguments, &settings, console),
        Command::Export(arguments) => export(arguments.file.as_deref(), &settings, console),
        Command::Import(arguments) => import(arguments.file.as_deref(), &settings, console),
    }
}

fn info(arguments: &Info, settings: &Settings, console: &mut Console) -> Result {
    let store = past::open(settings, console)?;
    let info = store.info()?;
    store.close();
    let look = console.out_look();
    match arguments.format {
        Format::Json | Format::Ndjson => {
            serde_json::to_writer(console.out(), &info_json(&info))?;
            writeln!(console.out())?;
            Ok(())
        }
        Format::Table | Format::Csv => info_grid(&info).write(console.out(), arguments.format, look),
    }
}

fn info_grid(info: &StoreInfo) -> Grid {
    let mut grid = Grid::new(&[("what", false), ("value", false)]);
    let mut add = |what: &str, text: String, value: Value| grid.push(vec![Cell::text(what), Cell::new(text, value)]);
    let number = |n: u64| (human::count(n), Value::from(n));
    let size = |n: u64| (human::bytes(n), Value::from(n));
    let path = info.path.display().to_string();
    add("path", path.clone(), path.into());
    add("version", info.version.to_string(), info.version.into());
    for (what, (text, value)) in [("runs", number(info.runs)), ("observations", number(info.observations))] {
        add(what, text, value);
    }
    for (what, time) in [("oldest run", info.oldest), ("newest run", info.newest)] {
        let text = time.map(|t| t.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string());
        let value = time.map(|t| t.to_rfc3339_opts(SecondsFormat::Micros, true));
        add(what, text.unwrap_or_else(|| "-".to_owned()), value.into());
    }
    let (text, value) = size(info.bytes_on_disk);
    add("size on disk", text, value);
    for tree in &info.trees {
        let text = format!("{} in {}", human::bytes(tree.bytes), human::plural(tree.entries, "entry", "entries"));
        add(&format!("  {}", tree.name), text, tree.bytes.into());
    }
    let (text, value) = number(info.spooled);
    add("waiting in the spool", text, value);
    for (path, bytes) in &info.set_aside {
        add("set aside", format!("{} ({})", path.display(), human::bytes(*bytes)), path.display().to_string().into());
    }
    grid
}

fn info_json(info: &StoreInfo) -> Value {
    let instant = |t: Option<DateTime<Utc>>| t.map(|t| t.to_rfc3339_opts(SecondsFormat::Micros, true));
    json!({
        "path": info.path.display().to_string(),
        "version": info.version,
        "runs": info.runs,
        "observations": info.observations,
        "oldest": instant(info.oldest),
        "newest": instant(info.newest),
        "bytes_on_disk": info.bytes_on_disk,
        "trees": info.trees.iter().map(|t| json!({"name": t.name, "entries": t.entries, "bytes": t.bytes})).collect::<Vec<_>>(),
        "spooled": info.spooled,
        "set_aside": info.set_aside.iter().map(|(path, bytes)| json!({"path": path.display().to_string(), "bytes": bytes})).collect::<Vec<_>>(),
    })
}

fn verify(settings: &Settings, console: &mut Console) -> Result {
    let store = past::open(settings, console)?;
    let report = store.verify()?;
    store.close();
    for problem in &report.problems {
        console.error(&human::safe(&problem.to_string()));
    }
    console.say(&format!(
        "{}, {}, {}, {} read; {} waiting in the spool",
        human::plural(report.runs, "run", "runs"),
        human::plural(report.observations, "observation", "observations"),
        human::plural(report.texts, "text", "texts"),
        human::plural(report.sources, "source", "sources"),
        human::count(report.spooled),
    ));
    if report.problems.is_empty() {
        console.say("the history is whole");
        return Ok(());
    }
    console.say(&human::plural(report.problems.len() as u64, "problem", "problems"));
    console.hint("run `sparklet history repair`: the store is rebuilt from what can be read, the old one set aside");
    Err(Failure::Said(exit::HISTORY))
}

fn repair(settings: &Settings, console: &mut Console) -> Result {
    let report = past::history(settings).repair()?;
    report.problems.iter().for_each(|problem| console.warn(&human::safe(problem)));
    report.notes.iter().for_each(|note| console.note(&human::safe(note)));
    let runs = human::plural(report.runs, "run", "runs");
    console.say(&if report.rebuilt { format!("rebuilt: {runs}") } else { format!("nothing was wrong: {runs}") });
    Ok(())
}

fn prune(arguments: &Prune, settings: &Settings, console: &mut Console) -> Result {
    fn given<T>(
        flag: &str,
        text: Option<&str>,
        default: Option<T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>> {
        match text {
            None => Ok(default),
            Some(text) => {
                value::optional(text, parse).map_err(|wrong| Failure::usage(format!("`{flag} {text}` {wrong}")))
            }
        }
    }
    let kept = past::retention(settings);
    let policy = PrunePolicy {
        max_age: given("--max-age", arguments.max_age.as_deref(), kept.max_age, value::duration)?,
        max_runs: given("--max-runs", arguments.max_runs.as_deref(), kept.max_runs, value::count)?,
        max_bytes: given("--max-size", arguments.max_size.as_deref(), kept.max_bytes, value::size)?,
    };
    let mut store = past::open(settings, console)?;
    if store.is_copy() {
        return Err(match past::exists(settings) {
            true => Failure::History {
                message: format!("the history in `{}` may only be read", settings.state.display()),
                hint: Some("make the folder writable".to_owned()),
            },
            false => Failure::Nothing(format!("there is no history in `{}`", settings.state.display())),
        });
    }
    let report = store.prune(&policy, Utc::now())?;
    store.close();
    if let Some(age) = policy.max_age {
        console.note(&format!("runs older than {} are dropped", units::format_duration(age)));
    }
    console.say(&format!(
        "dropped {}, kept {}; {} before, {} after",
        human::plural(report.runs_removed, "run", "runs"),
        human::count(report.runs_kept),
        human::bytes(report.bytes_before),
        human::bytes(report.bytes_after),
    ));
    Ok(())
}

fn export(file: Option<&Path>, settings: &Settings, console: &mut Console) -> Result {
    let store = past::open(settings, console)?;
    let report = match file {
        None => store.export(console.out()).map_err(closed_pipe)?,
        Some(path) => {
            let cannot = |error: io::Error| Failure::io(format!("cannot write `{}`", path.display()), error);
            // Whole or not at all: the old file stays until the new one is on the disk.
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let staged = folder.join(format!(".{name}.sparklet-{}", std::process::id()));
            let written = File::create(&staged).map_err(cannot).and_then(|file| {
                let mut writer = BufWriter::new(file);
                let report = store.export(&mut writer)?;
                let file = writer.into_inner().map_err(|e| cannot(e.into_error()))?;
                file.sync_all().map_err(cannot)?;
                std::fs::rename(&staged, path).map_err(cannot)?;
                Ok(report)
            });
            if written.is_err() {
                // It is of no use to anybody.
                let _ = std::fs::remove_file(&staged);
            }
            written?
        }
    };
    store.close();
    console.say(&format!("exported {}", human::plural(report.runs, "run", "runs")));
    if report.unreadable.is_empty() {
        return Ok(());
    }
    for run in &report.unreadable {
        console.error(&format!("run `{}` cannot be read", human::safe(run)));
    }
    Err(Failure::Said(exit::HISTORY))
}

/// A reader that went away is no error, also where the history says so.
fn closed_pipe(error: sparklet_history::HistoryError) -> Failure {
    match error {
        sparklet_history::HistoryError::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => {
            Failure::ClosedPipe
        }
        other => other.into(),
    }
}

fn import(file: Option<&Path>, settings: &Settings, console: &mut Console) -> Result {
    let reader: Box<dyn BufRead> = match file {
        Some(path) => {
            let file = File::open(path).map_err(|error| {
                Failure::usage(format!("cannot read `{}`: {error}", path.display()))
                    .with_hint("give a file that `sparklet history export` wrote")
            })?;
            Box::new(BufReader::new(file))
        }
        None if io::stdin().is_terminal() => {
            return Err(Failure::usage("nothing to import").with_hint("give a file, or pipe an export in"));
        }
        None => Box::new(io::stdin().lock()),
    };
    let mut store = past::history(settings).create()?;
    store.notes().iter().for_each(|note| console.note(note));
    let report = store.import(reader)?;
    store.close();
    console.say(&format!(
        "imported {}, {} known before",
        human::plural(report.imported, "run", "runs"),
        human::count(report.known)
    ));
    if report.skipped.is_empty() {
        return Ok(());
    }
    for (line, why) in &report.skipped {
        console.error(&format!("line {line} is left out: {}", human::safe(why)));
    }
    Err(Failure::Said(exit::FAILED))
}
