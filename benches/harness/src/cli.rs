//! The commands of the harness.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::Utc;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use sparklet_core::{AdaptiveMode, AdaptiveSettings};

use crate::calibrate::calibrate;
use crate::data;
use crate::engine::{Plain, Settings, Sparklet};
use crate::error::{AtPath, Failure, Result};
use crate::home::{Home, View, Workload};
use crate::report::Report;
use crate::runs::{self, Plan, Track};
use crate::{drift, joins, memory, oracle, peer, plot, prior, queries, skew, text, unseen};

/// Measures sparklet on workloads that come again day after day, beside plain DataFusion of the same version.
#[derive(Debug, Parser)]
#[command(name = "sparklet-harness", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Generate the data of a workload, unless it is there.
    Setup {
        /// The workload.
        #[arg(long, value_enum)]
        workload: Workload,
        /// Scale factor; 1 is about a gigabyte of text.
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// Days of new data after the base.
        #[arg(long, default_value_t = 10)]
        days: u32,
        /// Generate it even if it is there.
        #[arg(long)]
        force: bool,
    },
    /// Run a workload day by day, sparklet beside plain DataFusion, and report.
    Run {
        #[command(flatten)]
        what: What,
        /// Days; each starts fresh engines on the state of the days before.
        #[arg(long, default_value_t = 3)]
        days: u32,
        /// The same every day, or new data and new literals.
        #[arg(long, value_enum, default_value = "moving")]
        track: Track,
        /// Measured runs of each query, day and engine.
        #[arg(long, default_value_t = 3)]
        pairs: u32,
        /// Leave out the third column, plain DataFusion under the best global settings, and the search for them.
        #[arg(long)]
        no_tuned: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Run every query once on both engines and compare the results.
    Verify {
        #[command(flatten)]
        what: What,
    },
    /// Measure what observing and remembering cost, against the bars: frozen track, one day, many pairs.
    Overhead {
        #[command(flatten)]
        what: What,
        /// Measured runs of each query and engine.
        #[arg(long, default_value_t = 15)]
        pairs: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Measure joins, distinct counts and windows over facts with one key that has 40 % of the rows, against the bars.
    Skew {
        /// Rows of the facts; written once for each number.
        #[arg(long, default_value_t = 50_000_000)]
        rows: u64,
        /// Different keys of the facts; the table that they are joined with has a fifth more.
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        /// Names of the cases, separated by commas; all if left out.
        #[arg(long, value_delimiter = ',')]
        cases: Vec<String>,
        /// Measured runs of each case, engine and kind of facts.
        #[arg(long, default_value_t = 3)]
        pairs: u32,
        /// Slots of both engines in the pairs; the cores if left out. Worker threads are as many as cores.
        #[arg(long)]
        slots: Option<usize>,
        /// Numbers of slots for which the tasks of the skewed stage are measured, separated by commas.
        #[arg(long, value_delimiter = ',', default_values_t = [8, 32])]
        spread: Vec<usize>,
        /// Memory pool of both engines in MiB; 70 % of the memory if left out.
        #[arg(long)]
        memory: Option<u64>,
        /// Whether sparklet changes plans in mid-run: `on`, `off` or `force`.
        #[arg(long, default_value = "on")]
        adaptive: AdaptiveMode,
        /// Rows of both inputs of a join from which sparklet changes plans; its default if left out.
        #[arg(long)]
        min_rows: Option<u64>,
        /// Seed of the order of the runs.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// JSON file. In the bench home's `results` if left out.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Train the prior of the cost model on generated schemas, data and queries, on an idle machine.
    TrainPrior {
        /// Minutes for running queries.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Most rows of a table.
        #[arg(long, default_value_t = 2e6)]
        rows: f64,
        /// Seed of schemas, data and queries.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Number of the prior: one more than that of the last.
        #[arg(long)]
        number: u32,
        /// NDJSON file of run records: what is measured is kept in it, and if it is there, it is learned from instead.
        #[arg(long)]
        records: Option<PathBuf>,
        /// File of the model.
        #[arg(long, default_value = "optimizer/src/cost/prior.json")]
        out: PathBuf,
    },
    /// Run queries as lines on standard input tell, with one engine and no other in the process; `benches/peers` uses it.
    Peer {
        #[command(flatten)]
        what: What,
        /// The engine.
        #[arg(long, value_enum)]
        engine: peer::Engine,
    },
    /// Run each query without a limit and under small memory pools, one process a run, and compare rows, times and resident memory.
    Memory {
        #[command(flatten)]
        what: What,
        /// Pools in MiB, separated by commas.
        #[arg(long, value_delimiter = ',', default_values_t = [1024, 256])]
        pools: Vec<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Predict the time of each query from a past of all others, and run it.
    Unseen {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        output: Output,
    },
    /// Count joins of some relations of each query that none of its plans ran, beside what is expected of them.
    Joins {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        output: Output,
    },
    /// Run each query beside the best of many orders of its joins: how much of what there is to gain is got.
    Oracle {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        output: Output,
    },
    /// Change TPC-H under a pipeline that has learned: three runs before, four after, each beside plain DataFusion.
    Drift {
        /// What changes, separated by commas; each in turn if left out. The first three need the data of 3, 1.5 and 0.5 times the scale too.
        #[arg(long, value_enum, value_delimiter = ',')]
        changes: Vec<drift::Change>,
        /// Measured runs of each query and engine; the first is remembered.
        #[arg(long, default_value_t = 3)]
        pairs: u32,
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        output: Output,
    },
    /// Run one query once and write its rows to a file: a process of `memory`.
    #[command(hide = true)]
    Once {
        #[command(flatten)]
        what: What,
        /// The engine.
        #[arg(long, value_enum)]
        engine: peer::Engine,
        /// File of its rows.
        #[arg(long)]
        rows: PathBuf,
    },
    /// Print plain DataFusion's plan of a query, for looking at what a ratio says.
    Plan {
        #[command(flatten)]
        what: What,
    },
}

#[derive(Debug, Args)]
struct What {
    /// The workload.
    #[arg(long, value_enum)]
    workload: Workload,
    /// Scale factor.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Numbers of the queries, separated by commas; all if left out.
    #[arg(long, value_delimiter = ',')]
    queries: Vec<u32>,
    /// Partitions and worker threads of both engines; the cores if left out.
    #[arg(long)]
    slots: Option<usize>,
    /// Memory pool of both engines in MiB; 70 % of the memory if left out.
    #[arg(long)]
    memory: Option<u64>,
    /// Rows in a batch of both engines; DataFusion's default if left out.
    #[arg(long)]
    batch_size: Option<usize>,
    /// Seed of the order of the runs, and of the literals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Whether sparklet changes plans in mid-run: `on`, `off` or `force`. If left out, `on`; but `off` in `overhead`, which measures
    /// observing.
    #[arg(long)]
    adaptive: Option<AdaptiveMode>,
}

#[derive(Debug, Args)]
struct Output {
    /// JSON file; the picture stands beside it as `.svg`. In the bench home's `results` if left out.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What the harness found, as an exit code: 0 as it should be, 1 a bar was missed or a result differs, 2 it could not run.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Where not even the help can be written, the exit code is all there is.
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    let mut out = io::stdout().lock();
    match dispatch(cli.command, &mut out) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "error: {failure}");
            2
        }
    }
}

fn dispatch(command: Command, out: &mut dyn Write) -> Result<bool> {
    let home = Home::from_environment()?;
    match command {
        Command::Setup { workload, scale, days, force } => {
            let (manifest, made) = data::setup(&home, workload, scale, days, force)?;
            let folder = home.data(workload, scale);
            let bytes: u64 = manifest.tables.iter().map(|t| t.bytes).sum();
            let verb = if made { "wrote" } else { "there already:" };
            let (tables, rows) = (manifest.tables.len(), manifest.rows());
            writeln!(
                out,
                "{verb} {tables} tables, {rows} rows, {:.1} MiB, {days} days: {}",
                bytes as f64 / 1048576.0,
                folder.display()
            )?;
            Ok(true)
        }
        Command::Run { what, days, track, pairs, no_tuned, output } => {
            let work = Work::new(&home)?;
            let mut plan = what.plan(&home, &work, track, days, pairs)?;
            let runtime = runtime(plan.settings.slots)?;
            let started_at = Utc::now();
            let calibration = if no_tuned {
                None
            } else {
                let tables = all_tables(&home, &what, &work)?;
                let best = runtime.block_on(calibrate(&plan.settings, &tables, &plan.queries, out))?;
                plan.tuned = Some(best.best.clone());
                Some(best)
            };
            let measured = runtime.block_on(runs::run(&home, &plan, work.path(), out))?;
            let report = Report::new(&plan, measured, calibration, started_at);
            publish(&home, &report, &output, out)?;
            Ok(report.mismatches.is_empty() && report.not_stored.is_empty())
        }
        Command::Overhead { mut what, pairs, output } => {
            what.adaptive.get_or_insert(AdaptiveMode::Off);
            let work = Work::new(&home)?;
            let plan = what.plan(&home, &work, Track::Frozen, 1, pairs)?;
            let started_at = Utc::now();
            let measured = runtime(plan.settings.slots)?.block_on(runs::run(&home, &plan, work.path(), out))?;
            let report = Report::new(&plan, measured, None, started_at);
            publish(&home, &report, &output, out)?;
            let fine = bars(&report, out)?;
            Ok(fine && report.mismatches.is_empty() && report.not_stored.is_empty())
        }
        Command::Verify { what } => verify(&home, &what, out),
        Command::Skew { rows, keys, cases, pairs, slots, spread, memory, adaptive, min_rows, seed, out: json } => {
            if pairs == 0 || slots == Some(0) || spread.contains(&0) {
                return Err(Failure::new("0 pairs or 0 slots measure nothing").with_hint("use 1 or more of both"));
            }
            let cases = skew::load(&cases)?;
            let size = skew::Size { rows, keys };
            let (tables, made) = skew::setup(&home, size)?;
            writeln!(out, "{} {rows} rows", if made { "wrote" } else { "there already:" })?;
            let work = Work::new(&home)?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let defaults = AdaptiveSettings::default();
            let settings = Settings {
                slots: slots.unwrap_or(cores),
                memory: memory.map_or_else(sparklet_core::memory::default_memory_limit, |mib| mib << 20),
                batch_size: None,
                spill: work.path().join("spill"),
                adaptive: AdaptiveSettings {
                    mode: adaptive,
                    min_rows: min_rows.unwrap_or(defaults.min_rows),
                    ..defaults
                },
            };
            let plan = skew::Plan { size, cases, pairs, seed, settings, spread };
            let started_at = Utc::now();
            let measured = runtime(cores)?.block_on(skew::run(&plan, &tables, out))?;
            let report = skew::Report::new(&plan, measured, started_at);
            let time = report.started_at.format("%Y%m%d-%H%M%S");
            let json = json.unwrap_or_else(|| home.results().join(format!("skew-r{rows}-{time}.json")));
            skew::write(&report, out)?;
            write_json(&report, &json)?;
            writeln!(out, "written: {}", json.display())?;
            Ok(report.fine())
        }
        Command::TrainPrior { minutes, rows, seed, number, records, out: file } => {
            if !(minutes > 0.0 && rows >= 2e5) {
                return Err(Failure::new(format!("{minutes} minutes on tables of {rows} rows teach nothing"))
                    .with_hint("use more than 0 minutes, and 200000 rows or more"));
            }
            let work = Work::new(&home)?;
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let time = std::time::Duration::from_secs_f64(minutes * 60.0);
            let plan = prior::Plan { seed, time, rows, number, records };
            let model = runtime(cores)?.block_on(prior::train(&plan, work.path(), out))?;
            let json = model.to_json().map_err(|error| Failure::new(error.to_string()))?;
            std::fs::write(&file, &json).at_path(&file)?;
            writeln!(out, "written: {} ({} KiB)", file.display(), json.len() / 1024)?;
            Ok(true)
        }
        Command::Peer { what, engine } => {
            let work = Work::new(&home)?;
            let plan = what.plan(&home, &work, Track::Frozen, 1, 1)?;
            let tables = all_tables(&home, &what, &work)?;
            let settings = peer::Setting {
                engine,
                workload: plan.workload,
                settings: plan.settings,
                tables,
                state: work.path().join("state"),
            };
            runtime(settings.settings.slots)?.block_on(peer::serve(
                &settings,
                &plan.queries,
                &mut io::stdin().lock(),
                out,
            ))?;
            Ok(true)
        }
        Command::Memory { what, pools, output } => {
            let work = Work::new(&home)?;
            let plan = what.plan(&home, &work, Track::Frozen, 1, 1)?;
            let tables = all_tables(&home, &what, &work)?;
            let invocation = memory::Invocation { arguments: what.arguments(), folder: work.path().to_owned() };
            let measured = runtime(plan.settings.slots)?.block_on(async {
                let plain = Plain::new(&plan.settings, &Default::default())?;
                plain.register(&tables).await?;
                memory::measure(&invocation, &pools, &plan.queries, &plain, out).await
            })?;
            let fine = memory::summarise(&measured, &pools, out)?;
            write_found(&home, &what, "memory", &measured, output, out)?;
            Ok(fine)
        }
        Command::Unseen { what, output } => {
            let work = Work::new(&home)?;
            let plan = what.plan(&home, &work, Track::Frozen, 1, 1)?;
            let tables = all_tables(&home, &what, &work)?;
            let measured = runtime(plan.settings.slots)?.block_on(unseen::measure(&plan, &tables, work.path(), out))?;
            let fine = unseen::summarise(&measured, out)?;
            write_found(&home, &what, "unseen", &measured, output, out)?;
            Ok(fine)
        }
        Command::Joins { what, output } => {
            let work = Work::new(&home)?;
            let plan = what.plan(&home, &work, Track::Frozen, 1, 1)?;
            let tables = all_tables(&home, &what, &work)?;
            let counted = runtime(plan.settings.slots)?.block_on(joins::measure(&plan, &tables, work.path(), out))?;
            let fine = joins::summarise(&counted, out)?;
            write_found(&home, &what, "joins", &counted, output, out)?;
            Ok(fine)
        }
        Command::Oracle { what, output } => {
            let work = Work::new(&home)?;
            let plan = what.plan(&home, &work, Track::Frozen, 1, 1)?;
            let tables = all_tables(&home, &what, &work)?;
            let found = runtime(plan.settings.slots)?.block_on(oracle::measure(&plan, &tables, work.path(), out))?;
            let fine = oracle::summarise(&found, out)?;
            write_found(&home, &what, "oracle", &found, output, out)?;
            Ok(fine)
        }
        Command::Drift { changes, pairs, what, output } => {
            if what.workload != drift::WORKLOAD {
                return Err(Failure::new(format!("{} is not what changes", what.workload.name()))
                    .with_hint(format!("use `--workload {}`", drift::WORKLOAD.name())));
            }
            let changes = if changes.is_empty() { drift::Change::value_variants().to_vec() } else { changes };
            let work = Work::new(&home)?;
            let plan = what.plan(&home, &work, Track::Frozen, 1, pairs)?;
            let measuring = drift::measure(&home, &plan, &changes, work.path(), out);
            let measured = runtime(plan.settings.slots)?.block_on(measuring)?;
            let fine = drift::summarise(&measured, out)?;
            write_found(&home, &what, "drift", &measured, output, out)?;
            Ok(fine)
        }
        Command::Once { what, engine, rows } => {
            let work = Work::new(&home)?;
            let plan = what.plan(&home, &work, Track::Frozen, 1, 1)?;
            let tables = all_tables(&home, &what, &work)?;
            let [query] = plan.queries.as_slice() else { return Err(Failure::new("`once` runs one query")) };
            let workload = plan.workload.name();
            let run = memory::once(engine, &plan.settings, workload, &tables, query, &rows);
            let once = runtime(plan.settings.slots)?.block_on(run)?;
            writeln!(out, "{}", serde_json::to_string(&once).map_err(|e| Failure::new(e.to_string()))?)?;
            Ok(true)
        }
        Command::Plan { what } => {
            let work = Work::new(&home)?;
            let plan = what.plan(&home, &work, Track::Frozen, 1, 1)?;
            let tables = all_tables(&home, &what, &work)?;
            runtime(plan.settings.slots)?.block_on(async {
                let plain = Plain::new(&plan.settings, &Default::default())?;
                plain.register(&tables).await?;
                for query in &plan.queries {
                    writeln!(out, "-- {}\n{}", query.name(), plain.plan(&query.sql).await?)?;
                }
                Ok(true)
            })
        }
    }
}

/// A folder for one invocation in the bench home, removed at its end: state, spill files, views of the data.
struct Work(tempfile::TempDir);

impl Work {
    fn new(home: &Home) -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("work-").tempdir_in(home.root()).at_path(home.root())?))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl What {
    /// These settings as arguments, but for queries and pool.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--workload".to_owned(), self.workload.name().to_owned()];
        let mut set = |name: &str, value: Option<String>| {
            arguments.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        };
        set("--scale", Some(self.scale.to_string()));
        set("--slots", self.slots.map(|n| n.to_string()));
        set("--batch-size", self.batch_size.map(|n| n.to_string()));
        set("--adaptive", self.adaptive.map(|mode| mode.name().to_owned()));
        arguments
    }

    fn plan(&self, home: &Home, work: &Work, track: Track, days: u32, pairs: u32) -> Result<Plan> {
        if days == 0 || pairs == 0 {
            return Err(Failure::new("0 days or 0 pairs measure nothing").with_hint("use 1 or more of both"));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Plan {
            workload: self.workload,
            scale: self.scale,
            track,
            days,
            pairs,
            queries: queries::load(home, self.workload, &self.queries)?,
            seed: self.seed,
            settings: Settings {
                slots: self.slots.unwrap_or(cores).max(1),
                memory: self.memory.map_or_else(sparklet_core::memory::default_memory_limit, |mib| mib << 20),
                batch_size: self.batch_size,
                spill: work.path().join("spill"),
                adaptive: AdaptiveSettings {
                    mode: self.adaptive.unwrap_or(AdaptiveMode::On),
                    ..AdaptiveSettings::default()
                },
            },
            tuned: None,
        })
    }
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

/// All tables with all their days.
fn all_tables(home: &Home, what: &What, work: &Work) -> Result<Vec<(String, PathBuf)>> {
    let manifest = data::require(home, what.workload, what.scale, 0)?;
    let view = View::new(&home.data(what.workload, what.scale), &manifest, work.path().join("all"));
    view.advance(manifest.days)?;
    Ok(view.tables())
}

/// Writes the report as text, JSON and a picture.
fn publish(home: &Home, report: &Report, output: &Output, out: &mut dyn Write) -> Result<()> {
    let json = match &output.out {
        Some(path) => path.clone(),
        None => {
            let track = format!("{:?}", report.track).to_lowercase();
            let time = report.started_at.format("%Y%m%d-%H%M%S");
            home.results().join(format!("{}-sf{}-{track}-{time}.json", report.workload.name(), report.scale))
        }
    };
    text::write(report, out)?;
    write_json(report, &json)?;
    let svg = json.with_extension("svg");
    plot::draw(report, &svg)?;
    writeln!(out, "written: {} and {}", json.display(), svg.display())?;
    Ok(())
}

/// Writes what a command called `kind` found.
fn write_found(
    home: &Home,
    what: &What,
    kind: &str,
    found: &impl Serialize,
    output: Output,
    out: &mut dyn Write,
) -> Result<()> {
    let json = output.out.unwrap_or_else(|| {
        let time = Utc::now().format("%Y%m%d-%H%M%S");
        home.results().join(format!("{kind}-{}-sf{}-{time}.json", what.workload.name(), what.scale))
    });
    write_json(found, &json)?;
    writeln!(out, "written: {}", json.display())?;
    Ok(())
}

fn write_json(report: &impl Serialize, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).at_path(folder)?;
    }
    let content = serde_json::to_vec_pretty(report).map_err(|e| Failure::new(e.to_string()))?;
    std::fs::write(path, content).at_path(path)
}

/// Bars of the whole run against plain DataFusion: its total, and each query beyond what plain shows against itself. Met only where the
/// pairs leave no doubt; what they leave open asks for more pairs, or for an idle machine.
fn bars(report: &Report, out: &mut dyn Write) -> Result<bool> {
    const TOTAL: f64 = 1.03;
    const QUERY: f64 = 1.10;
    const NOISE: f64 = 0.01;
    let total =
        report.columns.get("sparklet_whole").map(|c| c.wall).ok_or_else(|| Failure::new("nothing was measured"))?;
    // Plain DataFusion beside itself is 1; where it is not, something else than the engines was measured.
    let noise = report.columns.get("plain_again").map(|c| c.wall);
    let disturbed = noise.is_some_and(|n| (n.value - 1.0).abs() > NOISE && (n.lower > 1.0 || n.upper < 1.0));
    let verdict = match total {
        _ if disturbed => "UNDECIDED: plain DataFusion differs from itself; use an idle machine",
        t if t.upper <= TOTAL => "met",
        t if t.lower > TOTAL => "MISSED",
        _ => "UNDECIDED: use more `--pairs`, or an idle machine",
    };
    writeln!(out, "bar: whole run ≤ {TOTAL} in total: {}, {verdict}", text::show(total))?;
    let slow: Vec<String> = report
        .queries
        .iter()
        .filter_map(|query| {
            let (whole, noise) = (query.columns.get("sparklet_whole")?.wall, query.columns.get("plain_again")?.wall);
            let beyond = whole.value > QUERY && whole.lower > noise.upper.max(1.0);
            beyond.then(|| format!("{} {}", query.name, text::show(whole)))
        })
        .collect();
    let list = if slow.is_empty() { "none, met".to_owned() } else { format!("{}, MISSED", slow.join(", ")) };
    writeln!(out, "bar: no query > {QUERY} beyond the noise: {list}")?;
    Ok(verdict == "met" && slow.is_empty())
}

/// Runs every query once on both engines; says `N of N` when all parse, run and match.
fn verify(home: &Home, what: &What, out: &mut dyn Write) -> Result<bool> {
    let work = Work::new(home)?;
    let plan = what.plan(home, &work, Track::Frozen, 1, 1)?;
    let tables = all_tables(home, what, &work)?;
    runtime(plan.settings.slots)?.block_on(async {
        let plain = Plain::new(&plan.settings, &Default::default())?;
        let mut sparklet = Sparklet::new(&plan.settings, plan.workload.name(), None)?;
        plain.register(&tables).await?;
        sparklet.register(&tables).await?;
        let (mut matched, mut empty) = (0, 0);
        for query in &plan.queries {
            let outcome = async {
                let theirs = plain.run(&query.sql).await.map_err(|e| e.at("plain"))?;
                let (ours, _) = sparklet.run(&query.name(), &query.sql).await.map_err(|e| e.at("sparklet"))?;
                let rows: usize = theirs.batches.iter().map(|b| b.num_rows()).sum();
                Ok::<_, Failure>((rows, runs::difference(&ours, &theirs, &query.sql, &plain).await?))
            };
            match outcome.await {
                Ok((rows, None)) => {
                    matched += 1;
                    empty += usize::from(rows == 0);
                }
                Ok((_, Some(difference))) => writeln!(out, "{}: differs: {difference}", query.name())?,
                Err(failure) => writeln!(out, "{}: {failure}", query.name())?,
            }
            out.flush()?;
        }
        let all = plan.queries.len();
        writeln!(out, "{} scale {}: {matched} of {all} queries parse, run and match plain DataFusion; {empty} of them have no rows", plan.workload.name(), plan.scale)?;
        Ok(matched == all)
    })
}
