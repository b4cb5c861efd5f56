//! What users order for single steps: the file `plan-control.json` of a state folder.
//!
//! It stands beside the history, not in it: the history may be deleted at any time and changes speed only, an order is the user's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::choice::PlanControl;
use crate::evidence::Scope;
use crate::folder;

/// Version of the file that this build writes.
const VERSION: u32 = 1;

/// Name of the file.
const FILE: &str = "plan-control.json";

/// What is ordered for one step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepControl {
    /// The order in force, if any.
    #[serde(default)]
    pub order: Option<PlanControl>,
    /// What runs before have left of choices does not count any more.
    #[serde(default)]
    pub reset_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    pipeline: String,
    environment: String,
    step: String,
    #[serde(flatten)]
    control: StepControl,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    version: u32,
    steps: Vec<Entry>,
}

/// All orders of a state folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controls {
    path: PathBuf,
    steps: Vec<Entry>,
}

impl Controls {
    /// Reads the orders in `state`; where there is no file there are none.
    ///
    /// # Errors
    /// The file cannot be read, is none of this program, or a newer build wrote it.
    pub fn read(state: &Path) -> io::Result<Self> {
        let path = state.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self { path, steps: Vec::new() }),
            Err(error) => return Err(error),
        };
        let content: Content = serde_json::from_slice(&bytes)?;
        if content.version > VERSION {
            let message = format!("it has version {}, this build reads up to {VERSION}", content.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self { path, steps: content.steps })
    }

    /// Orders of a pipeline in an environment, by step.
    pub fn of(&self, scope: Scope<'_>) -> BTreeMap<String, StepControl> {
        let mine = self.steps.iter().filter(|e| e.pipeline == scope.pipeline && e.environment == scope.environment);
        mine.map(|entry| (entry.step.clone(), entry.control.clone())).collect()
    }

    /// Replaces what is ordered for a step, and writes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&mut self, scope: Scope<'_>, step: &str, control: StepControl) -> io::Result<()> {
        let same = |e: &Entry| e.pipeline == scope.pipeline && e.environment == scope.environment && e.step == step;
        self.steps.retain(|entry| !same(entry));
        if control != StepControl::default() {
            self.steps.push(Entry {
                pipeline: scope.pipeline.to_owned(),
                environment: scope.environment.to_owned(),
                step: step.to_owned(),
                control,
            });
        }
        let content = Content { version: VERSION, steps: self.steps.clone() };
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        folder::replace(&self.path, &serde_json::to_vec_pretty(&content)?)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_back_by_pipeline_and_environment() {
        let state = tempfile::tempdir().unwrap();
        let scope = Scope { pipeline: "p", environment: "default" };
        let mut controls = Controls::read(state.path()).unwrap();
        assert!(controls.of(scope).is_empty());
        let forbid = StepControl { order: Some(PlanControl::Forbid), reset_at: None };
        controls.set(scope, "s", forbid.clone()).unwrap();
        let read = Controls::read(state.path()).unwrap();
        assert_eq!(read, controls);
        assert_eq!(read.of(scope).get("s"), Some(&forbid));
        assert!(read.of(Scope { environment: "dev", ..scope }).is_empty());
        controls.set(scope, "s", StepControl::default()).unwrap();
        assert!(Controls::read(state.path()).unwrap().of(scope).is_empty());
        fs::write(controls.path(), "{").unwrap();
        assert!(Controls::read(state.path()).is_err());
        fs::write(controls.path(), r#"{"version": 9, "steps": []}"#).unwrap();
        assert!(Controls::read(state.path()).is_err());
    }
}
