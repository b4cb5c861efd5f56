//! A session's own spill folder: created on need, removed when the session goes, swept after a kill.
//!
//! The folder is `<spill_dir>/sparklet-spill-<random>` and holds an OS lock on a file `lock` in it; a folder whose lock can be
//! taken belongs to a dead process, and the next session beside it removes it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// What the names of such folders begin with.
pub(crate) const PREFIX: &str = "sparklet-spill-";
const LOCK: &str = "lock";

/// Owns the folder; dropping it removes the folder with all that is in it.
#[derive(Debug)]
pub(crate) struct SpillFolder {
    path: PathBuf,
    _lock: File,
}

impl SpillFolder {
    /// Creates the folder in `parent` (and `parent` itself), after sweeping what dead sessions left there.
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        let failed = |what: &str, error: std::io::Error| {
            Error::new(ErrorKind::Setting, format!("cannot {what} the spill folder in `{}`: {error}", parent.display()))
                .with_hint("set `spill_dir` (`--spill-dir`) to a folder that can be written")
        };
        fs::create_dir_all(parent).map_err(|e| failed("create", e))?;
        sweep(parent);
        // Locked under a temporary name first: a sweep must never see the folder unlocked.
        let building =
            tempfile::Builder::new().prefix(".building-").tempdir_in(parent).map_err(|e| failed("create", e))?;
        let lock = File::create(building.path().join(LOCK)).map_err(|e| failed("lock", e))?;
        lock.lock().map_err(|e| failed("lock", e))?;
        let name = building.path().file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let path = parent.join(format!("{PREFIX}{}", name.trim_start_matches(".building-")));
        fs::rename(building.path(), &path).map_err(|e| failed("create", e))?;
        drop(building.keep());
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!("spill folder {} not removed: {error}", self.path.display());
        }
    }
}

fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|n| n.starts_with(PREFIX)) {
            continue;
        }
        let dead = match File::open(entry.path().join(LOCK)) {
            Ok(file) => match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
            },
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if dead && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::debug!("left-over spill folder {} not removed: {error}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_with_its_owner_and_sweeps_the_dead() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("data"), "x").unwrap();
        let first = SpillFolder::create(parent.path()).unwrap();
        assert!(!dead.exists());
        let second = SpillFolder::create(parent.path()).unwrap();
        assert!(first.path().exists() && second.path().exists());
        let (a, b) = (first.path().to_owned(), second.path().to_owned());
        drop(first);
        assert!(!a.exists() && b.exists());
        drop(second);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn unusable_parent_is_a_setting_error() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let error = SpillFolder::create(&file.join("x")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Setting);
        assert!(error.hint.unwrap().contains("spill_dir"));
    }
}
