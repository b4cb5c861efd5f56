//! `sparklet runs`: what ran before.

use std::path::Path;

use chrono::{DateTime, Local, NaiveDate, SecondsFormat, Utc};
use clap::Args;
use sparklet_history::{Outcome, RunFilter, RunSummary};
use sparklet_pipeline::units;
use sparklet_report::human;

use super::shared;
use crate::console::{Console, Look};
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::output::grid::{Cell, Grid};
use crate::past;
use crate::settings::{LookFlags, StateFlags};
use crate::world::World;

/// List past runs, newest first
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only runs of this pipeline: its name, or its folder (whose state is used then)
    #[arg(long, short, value_name = "PIPELINE")]
    pipeline: Option<String>,
    /// At most this many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Only runs that did not succeed
    #[arg(long)]
    failed: bool,
    /// Only runs that started since then: a time back (`7d`), a date or an instant
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Runs of all environments
    #[arg(long)]
    all_environments: bool,
    /// Format of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    settings: StateFlags,
}

/// Prints the list.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let folder = arguments.pipeline.as_ref().filter(|p| is_pipeline_folder(&world.cwd.join(p)));
    let pipeline = folder.map(|path| shared::load(Path::new(path), world, console)).transpose()?;
    let settings = world.in_force(look, arguments.settings.given(&world.cwd), pipeline.as_ref(), console)?;
    let since = arguments.since.as_deref().map(|text| instant(text, Utc::now())).transpose()?;
    let name = pipeline.map(|p| p.name).or_else(|| arguments.pipeline.clone());
    let filter = RunFilter {
        pipeline: name.clone(),
        environment: (!arguments.all_environments).then(|| settings.environment.clone()),
        since,
        outcome: None,
    };
    let store = past::open(&settings, console)?;
    // The filter knows one outcome; "did not succeed" is several.
    let mut runs = store.runs(&filter, if arguments.failed { usize::MAX } else { arguments.limit })?;
    store.close();
    if arguments.failed {
        runs.retain(|run| run.outcome != Outcome::Succeeded);
        runs.truncate(arguments.limit);
    }
    if runs.is_empty() {
        let of = name.map(|n| format!(" of `{n}`")).unwrap_or_default();
        let what = if arguments.failed || since.is_some() { "such runs" } else { "runs" };
        console.note(&format!("no {what}{of} in `{}`", settings.state.display()));
        if !past::exists(&settings) {
            console.hint(
                "runs of a pipeline are remembered beside it: `--pipeline FOLDER`, or `--state FOLDER/.sparklet`",
            );
        }
        if arguments.format == Format::Table {
            return Ok(());
        }
    }
    let look = console.out_look();
    grid(&runs, look).write(console.out(), arguments.format, look)
}

fn is_pipeline_folder(path: &Path) -> bool {
    path.join("pipeline.toml").is_file() || (path.extension().is_some_and(|e| e == "toml") && path.is_file())
}

fn grid(runs: &[RunSummary], look: Look) -> Grid {
    let mut grid = Grid::new(&[
        ("run", false),
        ("pipeline", false),
        ("environment", false),
        ("started", false),
        ("outcome", false),
        ("wall", true),
        ("cpu", true),
        ("steps", true),
        ("rows", true),
    ]);
    for run in runs {
        let started = run.started_at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string();
        grid.push(vec![
            Cell::text(run.id.as_str()),
            Cell::text(&run.pipeline),
            Cell::text(&run.environment),
            Cell::new(started, run.started_at.to_rfc3339_opts(SecondsFormat::Micros, true)),
            Cell::new(outcome(run.outcome), name(run.outcome)),
            Cell::new(human::duration(run.wall_us, look.unicode), run.wall_us as f64 / 1e6),
            Cell::new(human::duration(run.cpu_us, look.unicode), run.cpu_us as f64 / 1e6),
            Cell::new(run.steps.to_string(), run.steps),
            Cell::new(human::count(run.rows), run.rows),
        ]);
    }
    grid
}

fn name(outcome: Outcome) -> String {
    serde_json::to_value(outcome).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn outcome(outcome: Outcome) -> String {
    name(outcome).replace('_', " ")
}

/// `7d` before `now`, a date (its begin here), or an instant.
fn instant(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    if let Ok(back) = units::parse_duration(text) {
        return chrono::Duration::from_std(back)
            .ok()
            .and_then(|back| now.checked_sub_signed(back))
            .ok_or_else(|| Failure::usage(format!("`--since {text}` is too long ago")));
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        let midnight = date.and_hms_opt(0, 0, 0).and_then(|t| t.and_local_timezone(Local).earliest());
        if let Some(midnight) = midnight {
            return Ok(midnight.to_utc());
        }
    }
    DateTime::parse_from_rfc3339(text).map(|t| t.to_utc()).map_err(|_| {
        Failure::usage(format!("`--since {text}` is not a time"))
            .with_hint("write a time back (`12h`, `7d`), a date (`2013-02-01`) or an instant (`2013-02-01T10:00:00Z`)")
    })
}

#[cfg(test)]
mod tests {
    use sparklet_history::{Fingerprint, RunId};

    use super::*;

    #[test]
    fn times_are_understood() {
        let now = DateTime::parse_from_rfc3339("2013-02-08T00:00:00Z").unwrap().to_utc();
        assert_eq!(instant("7d", now).unwrap().to_rfc3339(), "2013-02-01T00:00:00+00:00");
        assert_eq!(instant("2013-02-01T10:00:00+01:00", now).unwrap().to_rfc3339(), "2013-02-01T09:00:00+00:00");
        assert!(instant("2013-02-01", now).is_ok());
        for bad in ["", "soon", "7", "2013-02-30"] {
            assert_eq!(instant(bad, now).unwrap_err().code(), 2, "{bad}");
        }
    }

    #[test]
    fn programs_get_plain_values() {
        let run = RunSummary {
            id: RunId::from_bits(7),
            pipeline: "flights".to_owned(),
            environment: "default".to_owned(),
            started_at: DateTime::parse_from_rfc3339("2013-02-08T00:00:00Z").unwrap().to_utc(),
            outcome: Outcome::CheckFailed,
            wall_us: 1_500_000,
            cpu_us: 2_000_000,
            rows: 336_776,
            steps: 5,
            code_version: Fingerprint::of("a"),
            data_version: Fingerprint::of("b"),
        };
        let mut out = Vec::new();
        grid(&[run], Look::plain(100)).write(&mut out, Format::Ndjson, Look::plain(100)).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["started"], "2013-02-08T00:00:00.000000Z");
        assert_eq!(json["outcome"], "check_failed");
        assert_eq!(json["wall"], 1.5);
        assert_eq!(json["rows"], 336_776);
    }
}
