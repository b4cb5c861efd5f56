//! Lock files held by the operating system: a lock dies with its process, however that ends, so there is no stale lock to guess about.
//!
//! The holder removes the file when it lets go. A process that opened the file just before that would then lock a file without
//! a name, next to someone who made a new one; so whoever gets a lock looks whether the name still leads to the locked file and
//! begins anew if not.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Attempts before a lock file that changes all the time is taken for an error.
const ATTEMPTS: usize = 100;

/// Who holds a lock, as it stands in the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Id of the run.
    pub(crate) run: String,
    /// Name of its pipeline.
    pub(crate) pipeline: String,
    /// Process id.
    pub(crate) pid: u32,
}

impl Owner {
    /// This process, for `run` of `pipeline`.
    pub(crate) fn here(run: &str, pipeline: &str) -> Self {
        Self { run: run.to_owned(), pipeline: pipeline.to_owned(), pid: std::process::id() }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run `{}` of pipeline `{}` (process {})", self.run, self.pipeline, self.pid)
    }
}

/// A lock; let go when dropped.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
    // Closing the file lets go of the lock: after the file is removed, see `drop`.
    file: File,
}

/// What came of an attempt to lock.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The lock is ours.
    Held(LockFile),
    /// Someone else has it; who, if the file tells.
    Busy(Option<Owner>),
}

impl LockFile {
    /// Takes the lock at `path` if it is free, without waiting, and writes `owner` into the file.
    pub(crate) fn try_acquire(path: &Path, owner: &Owner) -> io::Result<Attempt> {
        for _ in 0..ATTEMPTS {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Attempt::Busy(read_owner(&mut file))),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if same_file(&file, path)? {
                // From here on the lock is held: on an error the drop of `lock` lets go of it.
                let mut lock = Self { path: path.to_owned(), file };
                lock.write_owner(owner)?;
                return Ok(Attempt::Held(lock));
            }
        }
        Err(io::Error::other(format!("the lock file `{}` is removed again and again", path.display())))
    }

    fn write_owner(&mut self, owner: &Owner) -> io::Result<()> {
        let text = serde_json::to_string(owner)?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Removed first, while no one else can hold it; a file that cannot be removed is taken over by the next holder.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a lock file stays behind");
        }
    }
}

fn read_owner(file: &mut File) -> Option<Owner> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let held = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok(named.ino() == held.ino() && named.dev() == held.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn same_file(_file: &File, path: &Path) -> io::Result<bool> {
    // An open file cannot be removed there.
    path.try_exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn held(path: &Path, run: &str) -> Option<LockFile> {
        match LockFile::try_acquire(path, &Owner::here(run, "p")).unwrap() {
            Attempt::Held(lock) => Some(lock),
            Attempt::Busy(_) => None,
        }
    }

    #[test]
    fn a_held_lock_names_its_owner_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        let first = held(&path, "one").unwrap();
        match LockFile::try_acquire(&path, &Owner::here("two", "p")).unwrap() {
            Attempt::Busy(owner) => assert_eq!(owner.unwrap().run, "one"),
            Attempt::Held(_) => panic!("two holders"),
        }
        drop(first);
        assert!(!path.exists());
        assert!(held(&path, "two").is_some());
    }

    #[test]
    fn a_left_lock_file_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        std::fs::write(
            &path,
            "{\"run\":\"dead\" and then some longer rubbish than an owner takes up in the file ……………………",
        )
        .unwrap();
        let _lock = held(&path, "two").unwrap();
        match LockFile::try_acquire(&path, &Owner::here("three", "p")).unwrap() {
            Attempt::Busy(owner) => assert_eq!(owner.unwrap().run, "two"),
            Attempt::Held(_) => panic!("two holders"),
        }
    }

    #[test]
    fn there_is_never_more_than_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut turns = 0;
                    while turns < 200 {
                        let Some(lock) = held(&path, "x") else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        turns += 1;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}
