//! The outside: environment variables and the working directory; and the settings that hold in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sparklet_pipeline::Pipeline;

use crate::console::{ColorChoice, Console, Look};
use crate::exit;
use crate::failure::{Failure, Result};
use crate::settings::{
    Given, Layer, LookFlags, Origin, Rejected, Settings, StateDefault, find_project_file, from_file, from_pipeline,
    resolve, user_file,
};

/// A variable's value by name.
pub type Env = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What a command finds around it.
pub struct World {
    /// Environment variables.
    pub env: Env,
    /// Working directory, absolute.
    pub cwd: PathBuf,
}

impl World {
    /// The process's own.
    pub fn of_process() -> std::io::Result<Self> {
        Ok(Self { env: Box::new(|name| std::env::var(name).ok()), cwd: std::env::current_dir()? })
    }

    /// As [`World::settings`], with the look that they ask for applied to `console`.
    pub fn in_force(
        &self,
        look: &LookFlags,
        flags: BTreeMap<String, Given>,
        pipeline: Option<&Pipeline>,
        console: &mut Console,
    ) -> Result<Settings> {
        let settings = self.settings(look, flags, pipeline)?;
        console.set_color(ColorChoice::from_setting(settings.in_force.text("color")));
        Ok(settings)
    }

    /// Settings in force for a command with these flags and, if it has one, this pipeline.
    pub fn settings(
        &self,
        look: &LookFlags,
        mut flags: BTreeMap<String, Given>,
        pipeline: Option<&Pipeline>,
    ) -> Result<Settings> {
        flags.extend(look.given(&self.cwd));
        let root = pipeline.map(|p| self.absolute(&p.root));
        let project = find_project_file(root.as_deref().unwrap_or(&self.cwd));
        let mut layers =
            vec![Layer { origin: Origin::Flag, values: flags }, Layer::from_environment(&*self.env, &self.cwd)];
        layers.extend(pipeline.map(from_pipeline));
        let mut problems = Vec::new();
        let files = [(project.clone(), Origin::Project), (user_file(&*self.env), Origin::User)];
        for (path, origin) in files {
            match path.map(|path| from_file(&path, origin)).transpose() {
                Ok(layer) => layers.extend(layer),
                Err(mut diagnostics) => problems.append(&mut diagnostics),
            }
        }
        let in_force = match resolve(&layers) {
            Ok(in_force) if problems.is_empty() => in_force,
            Ok(_) => return Err(Failure::definition(problems)),
            Err(Rejected { mut diagnostics, by_caller }) => {
                let code = if by_caller { exit::USAGE } else { exit::DEFINITION };
                problems.append(&mut diagnostics);
                return Err(Failure::Definition { diagnostics: problems, code });
            }
        };
        let folder_of = |file: PathBuf| file.parent().map(Path::to_owned);
        let state = StateDefault { project: project.and_then(folder_of), pipeline: root, cwd: self.cwd.clone() };
        Settings::new(in_force, &state).map_err(Failure::Bug)
    }

    /// What to add to a command without a pipeline so that it finds the state of `settings`: nothing, or ` --state FOLDER`.
    pub fn state_argument(&self, settings: &Settings) -> String {
        let found = self.settings(&LookFlags::default(), BTreeMap::new(), None);
        if found.is_ok_and(|found| found.state == settings.state) {
            return String::new();
        }
        let state = settings.state.strip_prefix(&self.cwd).unwrap_or(&settings.state).display().to_string();
        let plain = |c: char| c.is_alphanumeric() || "/._-+:@%".contains(c);
        if state.chars().all(plain) {
            format!(" --state {state}")
        } else {
            format!(" --state '{}'", state.replace('\'', r"'\''"))
        }
    }

    /// The path, absolute, without `.` and `..` where that can be said without looking.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        let joined = self.cwd.join(path);
        std::fs::canonicalize(&joined).unwrap_or(joined)
    }
}

/// Where progress is shown: a terminal that did not say `--no-progress`.
pub fn shows_progress(settings: &Settings, look: Look) -> bool {
    settings.progress && look.terminal
}
