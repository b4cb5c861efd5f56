//! Rows that failed a check: they outlive their run in `<state>/failed/<run>/`, for people to look at, until they are too old or
//! too many.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sparklet_history::RunId;

use crate::publish::Disk;
use crate::recover;

/// How long failing rows are kept; none: for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Rows of runs older than this are removed.
    pub max_age: Option<Duration>,
    /// Rows of so many runs of all pipelines of the state folder are kept, the newest.
    pub max_runs: Option<u64>,
}

impl Default for Retention {
    /// 30 days, 100 runs.
    fn default() -> Self {
        Self { max_age: Some(Duration::from_secs(30 * 24 * 3600)), max_runs: Some(100) }
    }
}

/// The folder for failing rows of `run`.
pub(crate) fn folder(state: &Path, run: &RunId) -> PathBuf {
    root(state).join(run.as_str())
}

fn root(state: &Path) -> PathBuf {
    state.join("failed")
}

/// Removes what `retention` does not keep at the time `now`. Rows of runs that are going on stay, and so does what is no run's.
pub(crate) fn prune(state: &Path, retention: &Retention, now: SystemTime) -> io::Result<()> {
    let entries = match fs::read_dir(root(state)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut kept = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(run) = name.to_str().filter(|name| name.parse::<RunId>().is_ok()) else { continue };
        if entry.file_type()?.is_dir() {
            // The time of the last check of the run: the folder changes when a file is added.
            kept.push((entry.metadata()?.modified()?, entry.path(), recover::is_going_on(state, run)));
        }
    }
    kept.sort_unstable_by(|a, b| b.cmp(a));
    let most = retention.max_runs.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    for (i, (at, path, going_on)) in kept.iter().enumerate() {
        let too_old = retention.max_age.is_some_and(|most| now.duration_since(*at).is_ok_and(|age| age > most));
        if !going_on && (i >= most || too_old) {
            Disk::default().remove(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Failing rows of runs 0, 1, 2 … of so many days ago.
    fn state(days: &[u64]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (i, days) in days.iter().enumerate() {
            let folder = folder(dir.path(), &RunId::from_bits(i as u64));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("step-check.parquet"), "rows").unwrap();
            let at = SystemTime::now() - Duration::from_secs(days * 86_400);
            fs::File::open(&folder).unwrap().set_modified(at).unwrap();
        }
        dir
    }

    fn left(state: &Path) -> Vec<bool> {
        (0..4).map(|i| folder(state, &RunId::from_bits(i)).join("step-check.parquet").exists()).collect()
    }

    #[test]
    fn the_newest_that_are_young_enough_are_kept() {
        let days = |n: u64| Some(Duration::from_secs(n * 86_400));
        for (max_age, max_runs, expected) in [
            (None, None, [true, true, true, true]),
            (days(30), None, [true, false, true, true]),
            (None, Some(2), [true, false, true, false]),
            (days(3), Some(2), [true, false, false, false]),
            (days(0), None, [false, false, false, false]),
        ] {
            let state = state(&[1, 40, 5, 9]);
            prune(state.path(), &Retention { max_age, max_runs }, SystemTime::now()).unwrap();
            assert_eq!(left(state.path()), expected, "{max_age:?} {max_runs:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        prune(dir.path(), &Retention::default(), SystemTime::now()).unwrap();
    }

    #[test]
    fn what_is_not_an_ended_run_stays() {
        let state = state(&[1, 40, 5, 9]);
        let notes = state.path().join("failed/notes");
        fs::create_dir(&notes).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&notes, folder(state.path(), &RunId::from_bits(9))).unwrap();
        let owner = crate::lock::Owner::here(RunId::from_bits(1).as_str(), "p");
        let going_on = recover::WorkFolder::create(state.path(), &owner).unwrap();
        prune(state.path(), &Retention { max_age: None, max_runs: Some(0) }, SystemTime::now()).unwrap();
        assert_eq!(left(state.path()), [false, true, false, false]);
        assert!(notes.is_dir());
        drop(going_on);
        prune(state.path(), &Retention { max_age: None, max_runs: Some(0) }, SystemTime::now()).unwrap();
        assert_eq!(left(state.path()), [false; 4]);
    }
}
