//! Settings as values that the engine takes.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sparklet_core::memory::usable_memory;
use sparklet_core::models::ServingModel;
use sparklet_core::{AdaptiveSettings, SessionConfig};
use sparklet_history::StateFolder;
use sparklet_pipeline::failed::Retention;

use super::resolve::InForce;
use super::value::{self, Memory};

/// The default of the setting `memory`, which is the session's own.
const DEFAULT_SHARE: f64 = sparklet_core::memory::DEFAULT_MEMORY_PERCENT as f64 / 100.0;

/// Name of the state folder.
const STATE_FOLDER: &str = ".sparklet";

/// What history is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learning {
    /// Collected and used.
    On,
    /// Collected.
    Observe,
    /// Neither.
    Off,
}

/// Where the state folder is unless a setting says so.
#[derive(Debug, Clone)]
pub struct StateDefault {
    /// Folder of the project file, if there is one.
    pub project: Option<PathBuf>,
    /// Folder of the pipeline, if the command has one.
    pub pipeline: Option<PathBuf>,
    /// Working directory.
    pub cwd: PathBuf,
}

impl StateDefault {
    /// The state folder: in the project, else beside the pipeline, else the nearest that exists, else here.
    pub fn folder(&self) -> PathBuf {
        let fixed = self.project.as_ref().or(self.pipeline.as_ref()).map(|folder| folder.join(STATE_FOLDER));
        let nearest = || self.cwd.ancestors().map(|f| f.join(STATE_FOLDER)).find(|f| f.is_dir());
        fixed.or_else(nearest).unwrap_or_else(|| self.cwd.join(STATE_FOLDER))
    }
}

/// Settings in force, as values.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The same as text, with origins.
    pub in_force: InForce,
    /// Bound of memory.
    pub memory: Memory,
    /// Slots; none: as many as cores.
    pub slots: Option<usize>,
    /// Rows in a batch.
    pub batch_size: usize,
    /// Folder for spill files.
    pub spill_dir: PathBuf,
    /// Time limit of a run.
    pub timeout: Option<Duration>,
    /// What history is used for.
    pub learning: Learning,
    /// Whether plans may change in mid-run, by which rules.
    pub adaptive: AdaptiveSettings,
    /// Environment of runs.
    pub environment: String,
    /// State folder, absolute.
    pub state: PathBuf,
    /// Retention: age.
    pub max_age: Option<Duration>,
    /// Retention: runs of each pipeline.
    pub max_runs: Option<u64>,
    /// Retention: bytes.
    pub max_size: Option<u64>,
    /// Values of the data are not kept in the history.
    pub hashed: bool,
    /// Retention of rows that failed a check.
    pub failed_rows: Retention,
    /// Progress may be shown.
    pub progress: bool,
}

impl Settings {
    /// Typed values of `in_force`. An error is a bug: values were checked when they were resolved.
    pub fn new(in_force: InForce, state: &StateDefault) -> Result<Self, String> {
        let absolute = |path: PathBuf| if path.is_absolute() { path } else { state.cwd.join(path) };
        let folder = absolute(in_force.path("state").unwrap_or_else(|| state.folder()));
        let text = |name: &str| in_force.text(name).to_owned();
        let on = |name: &str| in_force.text(name) == "on";
        Ok(Self {
            memory: value::memory(&text("memory"))?,
            slots: value::slots(&text("slots"))?,
            batch_size: usize::try_from(value::count(&text("batch_size"))?).map_err(|e| e.to_string())?,
            spill_dir: absolute(in_force.path("spill_dir").unwrap_or_else(|| folder.join("spill"))),
            timeout: value::optional(&text("timeout"), value::duration)?,
            learning: match text("learning").as_str() {
                "off" => Learning::Off,
                "observe" => Learning::Observe,
                _ => Learning::On,
            },
            adaptive: AdaptiveSettings {
                mode: text("adaptive").parse()?,
                split_skew: on("adaptive_split_skew"),
                split_groups: on("adaptive_split_groups"),
                split_windows: on("adaptive_split_windows"),
                broadcast: on("adaptive_broadcast"),
                skip_empty: on("adaptive_skip_empty"),
                memory: on("adaptive_memory"),
                share: on("adaptive_share"),
                known_keys: on("adaptive_known_keys"),
                push_keys: on("adaptive_push_keys"),
                reorder: on("adaptive_reorder"),
                slots: on("adaptive_slots"),
                share_min_bytes: value::optional(&text("adaptive_share_min_bytes"), value::size)?.unwrap_or(0),
                min_slots: usize::try_from(value::count(&text("adaptive_min_slots"))?).map_err(|e| e.to_string())?,
                min_rows: value::count(&text("adaptive_min_rows"))?,
            },
            environment: text("environment"),
            max_age: value::optional(&text("history.max_age"), value::duration)?,
            max_runs: value::optional(&text("history.max_runs"), value::count)?,
            max_size: value::optional(&text("history.max_size"), value::size)?,
            hashed: text("history.values") == "hashed",
            failed_rows: Retention {
                max_age: value::optional(&text("failed.max_age"), value::duration)?,
                max_runs: value::optional(&text("failed.max_runs"), value::count)?,
            },
            progress: text("progress") != "never",
            state: folder,
            in_force,
        })
    }

    /// Cores that work at the same time.
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.slots.unwrap_or_else(cores)
    }

    /// The folder for spill files; a state folder that cannot be written fails no query, so the system's folder for temporary
    /// files takes the place of the default.
    fn spill_folder(&self) -> PathBuf {
        let probe = self.spill_dir.join(format!(".probe-{}", std::process::id()));
        let works = || fs::create_dir_all(&probe).and_then(|()| fs::remove_dir(&probe)).is_ok();
        let chosen = matches!(self.in_force.get("spill_dir"), Some((_, origin)) if origin != super::Origin::Default);
        if chosen || works() { self.spill_dir.clone() } else { std::env::temp_dir() }
    }

    /// How user functions are handled.
    fn functions(&self) -> sparklet_core::FunctionSettings {
        let compiler = sparklet_core::sandbox::Compiler::default().with_cache(self.state.join("functions"));
        sparklet_core::FunctionSettings { compiler, ..Default::default() }
    }

    /// Configuration of a session.
    pub fn session(&self) -> SessionConfig {
        SessionConfig {
            memory_limit: match self.memory {
                Memory::Bytes(bytes) => Some(bytes),
                Memory::Share(share) if share == DEFAULT_SHARE => None,
                Memory::Share(share) => Some((usable_memory() as f64 * share) as u64),
            },
            slots: self.slots,
            spill_dir: self.spill_folder(),
            batch_size: Some(self.batch_size),
            options: self.in_force.datafusion(),
            observe: self.learning != Learning::Off,
            learning: match self.learning {
                Learning::Off => sparklet_optimizer::Learning::Off,
                Learning::Observe => sparklet_optimizer::Learning::Observe,
                Learning::On => sparklet_optimizer::Learning::On,
            },
            past: (self.learning != Learning::Off)
                .then(|| Arc::new(StateFolder::new(crate::past::history(self), self.environment.as_str())) as _),
            model: (self.learning != Learning::Off)
                .then(|| Arc::new(ServingModel::new(crate::past::history(self), self.environment.as_str())) as _),
            adaptive: self.adaptive.clone(),
            functions: self.functions(),
            ..SessionConfig::default()
        }
    }
}
