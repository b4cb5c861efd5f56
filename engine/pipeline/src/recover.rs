//! The work folder of a run, and the clearing up after runs that died.
//!
//! `<state>/work/RUN/` holds what a run needs only while it runs; `<state>/work/RUN.lock` is locked before the folder is made
//! and until it is gone, so a folder whose lock can be taken belongs to a dead run. `targets.json` in it names the outputs that
//! the run claims, so that any later run, of whichever pipeline, can clear up beside them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sparklet_core::{Error, Result};
use sparklet_history::RunId;

use crate::lock::{Attempt, LockFile, Owner};
use crate::publish::{Claim, Disk, Place, unwritable};

const TARGETS: &str = "targets.json";

/// The work folder of a live run; removed when dropped.
#[derive(Debug)]
pub(crate) struct WorkFolder {
    path: PathBuf,
    // Let go after the folder is removed, see `drop`.
    _lock: LockFile,
}

impl WorkFolder {
    /// Makes the folder of `owner`'s run.
    pub(crate) fn create(state: &Path, owner: &Owner) -> Result<Self> {
        let all = all_work(state);
        let failed = |e: io::Error| {
            unwritable(&all, "cannot make the work folder of the run in", &e)
                .with_hint("work files need a writable state folder: set `state` (`--state`, `SPARKLET_STATE`)")
        };
        fs::create_dir_all(&all).map_err(failed)?;
        let path = all.join(&owner.run);
        let lock = loop {
            match LockFile::try_acquire(&lock_of(&path), owner).map_err(failed)? {
                Attempt::Held(lock) => break lock,
                // Another run has just taken it for that of a dead run; it will see that there is nothing.
                Attempt::Busy(_) => std::thread::yield_now(),
            }
        };
        fs::create_dir(&path).map_err(failed)?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down which targets are claimed, before anything is staged there.
    pub(crate) fn record_targets(&self, places: &[Place]) -> Result<()> {
        let failed = |e: io::Error| unwritable(&self.path, "cannot write into the work folder", &e);
        // A path that is no text cannot be recorded as JSON; the next claim of that target clears up there.
        let paths: Vec<String> = places.iter().filter_map(|p| p.path().to_str().map(str::to_owned)).collect();
        let text = serde_json::to_vec(&paths).map_err(|e| failed(e.into()))?;
        let (new, file) = (self.path.join("targets.new"), self.path.join(TARGETS));
        let disk = Disk::default();
        disk.write(&new, &text).and_then(|()| disk.rename(&new, &file)).map_err(failed)
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = Disk::default().remove(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "left for the next run to remove");
        }
    }
}

/// True for a run that is going on, or that died and has not been cleared up after.
pub(crate) fn is_going_on(state: &Path, run: &str) -> bool {
    all_work(state).join(run).exists()
}

/// Clears up after dead runs of this state folder and says what could not be cleared up. Never touches what a live run has.
pub(crate) fn recover(state: &Path, owner: &Owner) -> Vec<Error> {
    let all = all_work(state);
    let entries = match fs::read_dir(&all) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![unwritable(&all, "cannot look for interrupted runs in", &error)],
    };
    let mut runs: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".lock").map(str::to_owned).unwrap_or(name))
        })
        .filter(|name| *name != owner.run && name.parse::<RunId>().is_ok())
        .collect();
    runs.sort_unstable();
    runs.dedup();
    runs.iter().filter_map(|run| recover_run(&all.join(run), owner).err()).collect()
}

fn recover_run(path: &Path, owner: &Owner) -> Result<()> {
    let failed = |e: io::Error| unwritable(path, "cannot clear up after an interrupted run in", &e);
    let _lock = match LockFile::try_acquire(&lock_of(path), owner).map_err(failed)? {
        Attempt::Held(lock) => lock,
        Attempt::Busy(_) => return Ok(()),
    };
    if let Ok(text) = fs::read_to_string(path.join(TARGETS)) {
        tracing::info!(path = %path.display(), "clearing up after an interrupted run");
        let targets: Vec<PathBuf> = serde_json::from_str(&text).unwrap_or_default();
        for place in targets.iter().filter_map(|target| Place::recorded(target)) {
            // Gone with its folder: nothing is left to clear up.
            if !place.parent().is_dir() {
                continue;
            }
            // Claiming clears up. A live run that writes there has done so when it claimed the target.
            Claim::attempt(&Disk::default(), place, owner)?;
        }
    }
    Disk::default().remove(path).map_err(failed)
}

fn all_work(state: &Path) -> PathBuf {
    state.join("work")
}

fn lock_of(work: &Path) -> PathBuf {
    work.with_extension("lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(n: u64) -> Owner {
        Owner::here(RunId::from_bits(n).as_str(), "p")
    }

    /// Leaves everything as a killed run does: the folder without a lock, a staged file.
    fn dead_run(state: &Path, n: u64, target: &Path) -> PathBuf {
        let owner = owner(n);
        let place = Place::resolve(target).unwrap();
        let work = state.join("work").join(&owner.run);
        fs::create_dir_all(work.join("inner")).unwrap();
        fs::write(work.join("inner/x.arrow"), "half").unwrap();
        fs::write(work.with_extension("lock"), serde_json::to_string(&owner).unwrap()).unwrap();
        fs::write(work.join(TARGETS), serde_json::to_vec(&[place.path()]).unwrap()).unwrap();
        fs::write(place.next(&owner.run), "half").unwrap();
        place.next(&owner.run)
    }

    #[test]
    fn what_a_dead_run_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (state, target) = (dir.path().join("state"), dir.path().join("out/x.parquet"));
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::write(&target, "old").unwrap();
        let staged = dead_run(&state, 1, &target);
        assert!(recover(&state, &owner(2)).is_empty());
        assert!(!staged.exists());
        assert_eq!(fs::read_dir(state.join("work")).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1);
    }

    #[test]
    fn what_a_live_run_has_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (state, target) = (dir.path().join("state"), dir.path().join("x.parquet"));
        let work = WorkFolder::create(&state, &owner(1)).unwrap();
        let claim = Claim::take(&Disk::default(), &target, &owner(1)).unwrap();
        work.record_targets(&[claim.place().clone()]).unwrap();
        fs::write(claim.stage(), "half").unwrap();
        // A dead run that had claimed the same target before.
        let dead = state.join("work").join(&owner(3).run);
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join(TARGETS), serde_json::to_vec(&[claim.place().path()]).unwrap()).unwrap();

        assert!(recover(&state, &owner(2)).is_empty());
        assert!(claim.stage().exists());
        assert!(work.path().exists());
        assert!(!dead.exists());
        let (path, staged) = (work.path().to_owned(), claim.stage());
        drop((claim, work));
        assert!(!path.exists() && !staged.exists());
        assert_eq!(fs::read_dir(state.join("work")).unwrap().count(), 0);
    }

    #[test]
    fn a_target_whose_folder_is_gone_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir(dir.path().join("out")).unwrap();
        dead_run(&state, 1, &dir.path().join("out/x"));
        fs::remove_dir_all(dir.path().join("out")).unwrap();
        assert!(recover(&state, &owner(2)).is_empty());
        assert_eq!(fs::read_dir(state.join("work")).unwrap().count(), 0);
        assert!(!dir.path().join("out").exists());
    }

    #[test]
    fn runs_that_start_at_once_leave_each_other_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    for n in 0..50 {
                        let owner = owner(1 + thread * 1000 + n);
                        let work = WorkFolder::create(state, &owner).unwrap();
                        assert!(recover(state, &owner).is_empty());
                        assert!(work.path().is_dir());
                        fs::write(work.path().join("x"), "x").unwrap();
                        assert!(recover(state, &owner).is_empty());
                        assert_eq!(fs::read_to_string(work.path().join("x")).unwrap(), "x");
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(state.join("work")).unwrap().count(), 0);
    }
}
