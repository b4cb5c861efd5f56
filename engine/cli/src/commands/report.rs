//! `sparklet report`: what happened in a run, and why.

use chrono::Utc;
use clap::Args;
use sparklet_report::{Report, TextOptions};

use crate::console::Console;
use crate::failure::Result;
use crate::output::Form;
use crate::past;
use crate::settings::{LookFlags, StateFlags};
use crate::world::World;

/// Report a run: verdict, steps, plans, where the time went, comparison with earlier runs
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run: its id, the first characters of it, or `last`
    #[arg(value_name = "RUN", default_value = "last")]
    run: String,
    /// Format of the report; JSON has everything that the text says and the whole record
    #[arg(long, value_enum, default_value_t)]
    format: Form,
    /// Compare with up to this many earlier runs
    #[arg(long, value_name = "N", default_value_t = 10)]
    compare: usize,
    #[command(flatten)]
    settings: StateFlags,
}

/// Prints the report.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let settings = world.in_force(look, arguments.settings.given(&world.cwd), None, console)?;
    let store = past::open(&settings, console)?;
    let record = store.run(&arguments.run)?;
    let earlier = past::earlier(&store, &record, arguments.compare)?;
    store.close();
    let report = Report::new(&record, earlier);
    match arguments.format {
        Form::Text => {
            let look = console.out_look();
            let options =
                TextOptions { width: look.width, color: look.color, unicode: look.unicode, now: Some(Utc::now()) };
            console.out().write_all(report.to_text(&options).as_bytes())?;
        }
        Form::Json => console.json(&report.to_json()?)?,
    }
    Ok(())
}
