//! Runs a pipeline: steps in order, each staged, checked, published.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sparklet_core::SessionConfig;
use sparklet_history::{RunRecord, SettingRecord};
use tokio_util::sync::CancellationToken;

use crate::definition::Pipeline;
use crate::diagnostic::Diagnostic;
use crate::event::Event;

/// How to run.
#[derive(Clone)]
pub struct RunOptions {
    /// Settings of the session (memory, slots, spill folder, DataFusion options).
    pub session: SessionConfig,
    /// Values of run parameters, as text (`--param day=2013-02-01`).
    pub params: BTreeMap<String, String>,
    /// Steps to run: `name`, `name+` (and what reads it), `+name` (and what it reads), `+name+`, several separated by commas; none: all.
    pub select: Option<String>,
    /// Time limit of the run; overrides the definition's.
    pub timeout: Option<Duration>,
    /// Environment that the run is remembered under.
    pub environment: String,
    /// The state folder (`.sparklet`): work files of runs live in `work/` in it, locks in `locks/`.
    pub state: PathBuf,
    /// Settings not at their default, for the record.
    pub settings: BTreeMap<String, SettingRecord>,
    /// `observe` or `off`: with `off` no decision looks at history.
    pub learning_off: bool,
    /// Told of everything that happens; must not block.
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
    /// Ends the run when cancelled: everything is stopped and cleaned up, then the record is returned.
    pub cancel: CancellationToken,
}

/// Runs `pipeline`. Errors are definition errors found before anything ran; what fails later is in the record.
pub async fn run(_pipeline: &Pipeline, _options: &RunOptions) -> Result<RunRecord, Vec<Diagnostic>> {
    unimplemented!()
}
