//! `sparklet init`: a commented example pipeline that runs.

use std::path::PathBuf;

use clap::Args;

use crate::console::Console;
use crate::failure::Result;
use crate::settings::{LookFlags, relative};
use crate::world::World;

/// Write a commented example pipeline that runs as it is; never overwrites a file
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder for the pipeline; it is made if it does not exist
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes the example.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    world.in_force(look, Default::default(), None, console)?;
    let folder = world.cwd.join(&arguments.folder);
    for path in sparklet_pipeline::init::init(&folder)? {
        writeln!(console.out(), "{}", relative(&path).display())?;
    }
    console.hint(&format!("sparklet run {}", arguments.folder.display()));
    Ok(())
}
