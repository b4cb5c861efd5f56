//! `sparklet udf test`: a scalar function against a table of cases.

use std::path::PathBuf;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use clap::Args;
use sparklet_core::Session;

use super::super::{shared, sql};
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::settings::{EngineFlags, LookFlags};
use crate::world::World;
use crate::{exit, runtime};

/// Differences that are shown.
const SHOWN: usize = 10;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The module: a `.wasm` or `.wat` file
    #[arg(value_name = "MODULE")]
    module: PathBuf,
    /// The function
    #[arg(value_name = "FUNCTION")]
    function: String,
    /// A table file: the arguments in order, then a last column with what is expected
    #[arg(value_name = "CASES")]
    cases: PathBuf,
    #[command(flatten)]
    settings: EngineFlags,
}

/// One way of calling: equal results whatever the batches, the order and the instance.
struct Way {
    name: &'static str,
    batch: usize,
    descending: bool,
}

const WAYS: [Way; 4] = [
    Way { name: "all rows in one call", batch: 1 << 20, descending: false },
    Way { name: "a call for each row, on one instance", batch: 1, descending: false },
    Way { name: "all rows in one call, in reverse", batch: 1 << 20, descending: true },
    Way { name: "a call for each row, in reverse, on one instance", batch: 1, descending: true },
];

pub(super) fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let (_, settings) = shared::settle(None, &arguments.settings, look, world, console)?;
    let file = world.cwd.join(&arguments.module);
    let cases = world.cwd.join(&arguments.cases).display().to_string();
    let mut wrong = 0u64;
    let mut rows = 0u64;
    runtime::block_on(&settings, async {
        for way in &WAYS {
            let change = |config: &mut sparklet_core::SessionConfig| {
                config.batch_size = Some(way.batch);
                config.slots = Some(1);
            };
            let session = super::session(&settings, change, &file)?;
            let found = call(&session, &arguments.function, &cases, way, world).await?;
            rows = found.iter().map(|b| b.num_rows() as u64).sum();
            wrong += differences(&found, way, console);
        }
        Ok::<_, Failure>(())
    })??;
    if wrong > 0 {
        console.error(&format!("`{}` differs from what is expected in {wrong} results", arguments.function));
        return Err(Failure::Said(exit::FAILED));
    }
    console.say(&format!("`{}` is right in {rows} cases, each called in {} ways", arguments.function, WAYS.len()));
    Ok(())
}

/// Case, expected, found and whether they agree, for each case.
async fn call(session: &Session, function: &str, cases: &str, way: &Way, world: &World) -> Result<Vec<RecordBatch>> {
    let table = format!("'{}'", cases.replace('\'', "''"));
    sql::register_files(session, &format!("SELECT * FROM {table}"), &world.cwd).await?;
    let frame = session.sql(&format!("SELECT * FROM {table}"), &Default::default()).await?;
    let columns: Vec<String> =
        frame.schema().fields().iter().map(|f| format!("\"{}\"", f.name().replace('"', "\"\""))).collect();
    let Some((expected, args)) = columns.split_last() else {
        return Err(Failure::usage(format!("`{cases}` has no columns"))
            .with_hint("the last column is what is expected, those before it are the arguments"));
    };
    let args = args.join(", ");
    let order = if way.descending { "DESC" } else { "ASC" };
    let call = format!("\"{function}\"({args})");
    // The type of the result is the function's to say.
    let of = session.sql(&format!("SELECT arrow_typeof({call}) FROM {table} LIMIT 1"), &Default::default()).await?;
    let of = of.collect().await?;
    let of = of.iter().find(|b| b.num_rows() > 0).and_then(|b| array_value_to_string(b.column(0), 0).ok());
    let Some(of) = of else { return Err(Failure::usage(format!("`{cases}` has no rows"))) };
    let text = format!(
        "SELECT row, want, got, want IS NOT DISTINCT FROM got AS agree FROM (
           SELECT row, arrow_cast({expected}, '{of}') AS want, {call} AS got FROM (
             SELECT *, row_number() OVER () AS row FROM {table}) ORDER BY row {order})"
    );
    let text = text.replace('\n', " ");
    Ok(session.sql(&text, &Default::default()).await?.collect().await?)
}

fn differences(found: &[RecordBatch], way: &Way, console: &mut Console) -> u64 {
    let mut wrong = 0;
    for batch in found {
        for row in 0..batch.num_rows() {
            let text = |column: usize| match batch.column(column) {
                array if array.is_null(row) => "NULL".to_owned(),
                array => array_value_to_string(array, row).unwrap_or_default(),
            };
            if text(3) == "true" {
                continue;
            }
            wrong += 1;
            if wrong <= SHOWN as u64 {
                console.say(&format!("case {}, {}: expected {}, found {}", text(0), way.name, text(1), text(2)));
            }
        }
    }
    wrong
}
