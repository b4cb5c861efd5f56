//! `sparklet udf bench`: what a row costs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use clap::Args;
use sparklet_core::Session;
use sparklet_core::sandbox::{FunctionSpec, Shape};
use sparklet_report::human;

use super::super::shared;
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::output::grid::{Cell, Grid};
use crate::runtime;
use crate::settings::{EngineFlags, LookFlags};
use crate::world::World;

/// Runs of each query; the fastest counts.
const RUNS: usize = 3;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The module: a `.wasm` or `.wat` file
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// The function; without it, all of the module
    #[arg(value_name = "FUNCTION")]
    function: Option<String>,
    /// Rows
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    rows: u64,
    /// Format of the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    settings: EngineFlags,
}

pub(super) fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let (_, settings) = shared::settle(None, &arguments.settings, look, world, console)?;
    let file = world.cwd.join(&arguments.module);
    let columns = [
        ("function", false),
        ("signature", false),
        ("ns/row in guest", true),
        ("ns/row added", true),
        ("calls", true),
        ("memory", true),
    ];
    let mut grid = Grid::new(&columns);
    runtime::block_on(&settings, async {
        // One task: time is time of one core.
        let session = super::session(&settings, |config| config.slots = Some(1), &file)?;
        let module = session.modules().into_iter().next();
        for function in module.iter().flat_map(|m| m.functions()) {
            if arguments.function.as_ref().is_some_and(|name| *name != function.name) {
                continue;
            }
            if let Some(measured) = measure(&session, function, arguments.rows).await? {
                let per_row = |nanos: f64| format!("{:.2}", nanos / arguments.rows.max(1) as f64);
                grid.push(vec![
                    Cell::text(&function.name),
                    Cell::text(function.signature()),
                    Cell::text(per_row(measured.guest)),
                    Cell::text(per_row(measured.added)),
                    Cell::new(human::count(measured.calls), measured.calls),
                    Cell::new(human::bytes(measured.memory), measured.memory),
                ]);
            }
        }
        Ok::<_, Failure>(())
    })??;
    if grid.is_empty() {
        return Err(
            Failure::usage("there is nothing to measure").with_hint("see the functions with `sparklet udf check`")
        );
    }
    let look = console.out_look();
    grid.write(console.out(), arguments.format, look)
}

struct Measured {
    /// Nano-seconds in calls.
    guest: f64,
    /// Nano-seconds of the query more than of one that only reads the arguments.
    added: f64,
    calls: u64,
    memory: u64,
}

async fn measure(session: &Session, function: &FunctionSpec, rows: u64) -> Result<Option<Measured>> {
    let args: Option<Vec<String>> = function.args.iter().enumerate().map(|(i, of)| argument(i, of)).collect();
    let Some(args) = args else { return Ok(None) };
    let names: Vec<String> = (0..args.len()).map(|i| format!("a{i}")).collect();
    let columns = args.iter().enumerate().map(|(i, a)| format!("{a} AS a{i}")).collect::<Vec<_>>().join(", ");
    let columns = if columns.is_empty() { "v".to_owned() } else { columns };
    let table = "sparklet_udf_bench";
    session.sql(&format!("DROP TABLE IF EXISTS {table}"), &Default::default()).await?;
    let fill = format!("CREATE TABLE {table} AS SELECT {columns} FROM generate_series(1, {rows}) t(v)");
    session.sql(&fill, &Default::default()).await?;
    let call = format!("\"{}\"({})", function.name, names.join(", "));
    let text = match function.shape {
        Shape::Scalar { .. } => format!("SELECT count({call}) FROM {table}"),
        Shape::Aggregate { .. } => format!("SELECT {call} FROM {table}"),
        Shape::Table { .. } => return Ok(None),
    };
    let counts = names.iter().map(|n| format!("count({n})")).collect::<Vec<_>>().join(", ");
    let base = format!("SELECT count(*) {} {counts} FROM {table}", if counts.is_empty() { "" } else { "," });
    let mut best = (Duration::MAX, None);
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        let query = session.sql(&text, &Default::default()).await?.prepare().await?;
        let start = Instant::now();
        query.collect().await?;
        let took = start.elapsed();
        if took < best.0 {
            best = (took, query.functions().into_iter().next());
        }
        let query = session.sql(&base, &Default::default()).await?.prepare().await?;
        let start = Instant::now();
        query.collect().await?;
        least = least.min(start.elapsed());
    }
    let (took, Some(used)) = best else { return Ok(None) };
    Ok(Some(Measured {
        guest: used.nanos as f64,
        added: took.saturating_sub(least).as_nanos() as f64,
        calls: used.calls,
        memory: used.peak_memory_bytes,
    }))
}

/// SQL for values of an argument, from the row's number `v`.
fn argument(i: usize, of: &DataType) -> Option<String> {
    let number = format!("((v * {} + {i}) % 100)", 7 + 4 * i);
    Some(match of {
        DataType::Utf8 => format!("concat('value ', {number})"),
        DataType::Boolean => format!("({number} % 2 = 0)"),
        DataType::Binary => format!("arrow_cast(concat('value ', {number}), 'Binary')"),
        of if of.is_numeric() => format!("arrow_cast({number}, '{of}')"),
        DataType::Date32 => format!("arrow_cast(arrow_cast({number}, 'Int32'), 'Date32')"),
        DataType::Timestamp(..) | DataType::Duration(_) => format!("arrow_cast({number}, '{of}')"),
        _ => return None,
    })
}
