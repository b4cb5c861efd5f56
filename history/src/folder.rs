//! What lies where in a state folder, who may touch it, and which store is the one in use.
//!
//! ```text
//! <state>/history.lock              held by whoever uses the history
//! <state>/history/current           names the store in use and its format; replaced in one step
//! <state>/history/appended          runs acknowledged so far: tells if the store lost some
//! <state>/history/tail              what sled may destroy of the store that is being opened
//! <state>/history/store-N/          a sled database
//! <state>/history.damaged-<time>/   a store that was set aside
//! <state>/spool/<run>.json.zst      records that wait for the store
//! ```
//!
//! A store is replaced (by `prune`, or since it is damaged) by building the next one beside it, and then replacing `current`. After a
//! crash at any moment `current` names a whole store; others are left-overs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::HistoryError;
use crate::trees::STORE_VERSION;

/// The state folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    state: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Pointer {
    /// [`STORE_VERSION`] of the writer: read before sled is asked, since a newer build may bring another sled.
    format: u32,
    #[serde(default)]
    store: String,
}

/// Which store is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Current {
    /// None was made yet.
    None,
    /// This one.
    Store(u64),
    /// What says it is gone, and there are several to choose from.
    Unclear(Vec<u64>),
}

impl Folder {
    pub(crate) fn new(state: PathBuf) -> Self {
        Self { state }
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.state.join("history")
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.state.join("spool")
    }

    pub(crate) fn store(&self, number: u64) -> PathBuf {
        self.root().join(format!("store-{number}"))
    }

    fn lock_path(&self) -> PathBuf {
        self.state.join("history.lock")
    }

    /// Where the end of the log is kept while sled opens it; there only if an opening did not end well.
    pub(crate) fn tail(&self) -> PathBuf {
        self.root().join("tail")
    }

    /// Makes the folders of the history.
    pub(crate) fn create(&self) -> Result<(), HistoryError> {
        let root = self.root();
        fs::create_dir_all(&root).map_err(|source| HistoryError::io("create", &root, source))
    }

    /// The exclusive right to use the history, for as long as the file is open; the system takes it back when a process dies.
    pub(crate) fn lock(&self, wait: Duration) -> Result<File, HistoryError> {
        let path = self.lock_path();
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = opened.map_err(|source| HistoryError::io("open", &path, source))?;
        wait_for(&path, wait, || file.try_lock())?;
        Ok(file)
    }

    /// As [`Self::lock`] for reading in a folder that may not be written; none where there is no lock file to hold.
    pub(crate) fn lock_shared(&self, wait: Duration) -> Result<Option<File>, HistoryError> {
        let path = self.lock_path();
        let Ok(file) = File::open(&path) else { return Ok(None) };
        wait_for(&path, wait, || file.try_lock_shared())?;
        Ok(Some(file))
    }

    /// The store in use, by what `current` says.
    pub(crate) fn current(&self) -> Result<Current, HistoryError> {
        let path = self.root().join("current");
        let pointer = match fs::read(&path) {
            Ok(bytes) => pointer_in(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(HistoryError::io("read", &path, error)),
        };
        if let Some(Pointer { format, .. }) = pointer
            && format > STORE_VERSION
        {
            return Err(HistoryError::Newer { path: self.root(), found: format, supported: STORE_VERSION });
        }
        let named = pointer.and_then(|pointer| number(&pointer.store));
        let stores = self.stores()?;
        Ok(match (named, &stores[..]) {
            (Some(store), _) if stores.contains(&store) => Current::Store(store),
            (_, []) => Current::None,
            (_, [only]) => Current::Store(*only),
            _ => Current::Unclear(stores),
        })
    }

    /// Makes a store the one in use, in one step.
    pub(crate) fn set_current(&self, store: u64) -> Result<(), HistoryError> {
        let path = self.root().join("current");
        let pointer = Pointer { format: STORE_VERSION, store: format!("store-{store}") };
        let replaced = serde_json::to_string(&pointer).map_err(io::Error::from).and_then(|json| {
            let text = format!("{json}\n{}\n", sum_of(&json));
            replace(&path, text.as_bytes())
        });
        replaced.map_err(|source| HistoryError::io("write", &path, source))
    }

    /// Numbers of the stores that there are, ascending.
    pub(crate) fn stores(&self) -> Result<Vec<u64>, HistoryError> {
        let root = self.root();
        let mut stores: Vec<u64> = match fs::read_dir(&root) {
            Ok(entries) => entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(HistoryError::io("read", &root, error)),
        };
        stores.sort_unstable();
        Ok(stores)
    }

    /// Removes what a crash left: stores that are not in use.
    pub(crate) fn clean(&self, current: u64) -> Result<(), HistoryError> {
        for store in self.stores()?.into_iter().filter(|&store| store != current) {
            self.remove(store);
        }
        Ok(())
    }

    pub(crate) fn remove(&self, store: u64) {
        let path = self.store(store);
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::debug!("failed to remove `{}`: {error}", path.display());
        }
    }

    /// Moves a damaged store out of the way, for someone to look at; returns where to.
    pub(crate) fn set_aside(&self, store: u64, stamp: &str) -> Result<PathBuf, HistoryError> {
        let from = self.store(store);
        let free = |n: u32| {
            let suffix = if n == 0 { String::new() } else { format!("-{n}") };
            let to = self.state.join(format!("history.damaged-{stamp}{suffix}"));
            (!to.exists()).then_some(to)
        };
        let to = (0..u32::MAX).find_map(free).unwrap_or_else(|| self.state.join("history.damaged"));
        fs::rename(&from, &to).map_err(|source| HistoryError::io("set aside", &from, source))?;
        Ok(to)
    }

    /// Stores that were set aside, the oldest first.
    pub(crate) fn damaged(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.state).into_iter().flatten().flatten();
        let is_damaged = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with("history.damaged"));
        let mut found: Vec<PathBuf> = entries.filter(|e| is_damaged(&e.file_name())).map(|e| e.path()).collect();
        found.sort();
        found
    }

    /// Runs that were acknowledged; none where that is not known.
    pub(crate) fn appended(&self) -> Option<u64> {
        let text = fs::read_to_string(self.root().join("appended")).ok()?;
        let (count, sum) = text.trim_end().split_once(' ')?;
        (sum == sum_of(count)).then(|| count.parse().ok()).flatten()
    }

    /// Notes how many runs were acknowledged. Not brought to the disk at once: after a loss of power an older number may be there,
    /// which says less but nothing wrong.
    pub(crate) fn set_appended(&self, appended: u64) -> Result<(), HistoryError> {
        let path = self.root().join("appended");
        let count = appended.to_string();
        let written = fs::write(&path, format!("{count} {}\n", sum_of(&count)));
        written.map_err(|source| HistoryError::io("write", &path, source))
    }
}

/// A line of JSON and one with its checksum: so in all versions. A spoilt byte must not look like a newer version.
fn pointer_in(bytes: &[u8]) -> Option<Pointer> {
    let (json, sum) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
    (sum.trim_end() == sum_of(json)).then(|| serde_json::from_str(json).ok()).flatten()
}

pub(crate) fn sum_of(text: &str) -> String {
    crate::record::Fingerprint::of(text).to_string()
}

fn number(store: &str) -> Option<u64> {
    store.strip_prefix("store-")?.parse().ok()
}

fn wait_for(
    path: &Path,
    wait: Duration,
    mut lock: impl FnMut() -> Result<(), TryLockError>,
) -> Result<(), HistoryError> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => return Err(HistoryError::io("lock", path, source)),
            Err(TryLockError::WouldBlock) => {}
        }
        let waited = start.elapsed();
        if waited >= wait {
            return Err(HistoryError::Locked { path: path.into(), waited });
        }
        // Those who wait should not all come back at the same moment.
        let pause_now = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0).min(wait - waited);
        std::thread::sleep(pause_now);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Writes a file such that readers, and a crash, see the old content or the new.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", crate::record::RunId::random()));
    let written = File::create_new(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if renamed.is_err() {
        // Only clears up; the error that matters is the first.
        let _ = fs::remove_file(&temporary);
    }
    renamed?;
    sync_folder(path.parent());
    Ok(())
}

/// Makes renames in a folder durable, on systems where a folder can be synced.
pub(crate) fn sync_folder(folder: Option<&Path>) {
    if let Some(folder) = folder {
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        if let Err(error) = synced {
            tracing::debug!("failed to sync `{}`: {error}", folder.display());
        }
    }
}

/// Bytes of the files in a folder, at any depth.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
