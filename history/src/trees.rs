//! The trees of one sled database, each call fenced by [`crate::guard`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sled::transaction::TransactionError;
use sled::{Batch, IVec, Transactional};

use crate::error::HistoryError;
use crate::guard;

/// Version of the layout of trees, keys and values.
pub(crate) const STORE_VERSION: u32 = 1;

const VERSION_KEY: &[u8] = b"version";
/// How long sled may hold its lock after it was closed.
const LET_GO: Duration = Duration::from_secs(5);
const APPENDED_KEY: &[u8] = b"appended";

/// A tree by what it holds. `meta` holds the version and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Meta,
    Runs,
    Ids,
    Blocks,
    Recent,
    Observations,
    Texts,
    Sources,
}

impl Name {
    pub(crate) const ALL: [Self; 8] =
        [Self::Meta, Self::Runs, Self::Ids, Self::Blocks, Self::Recent, Self::Observations, Self::Texts, Self::Sources];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Runs => "runs",
            Self::Ids => "ids",
            Self::Blocks => "blocks",
            Self::Recent => "recent",
            Self::Observations => "observations",
            Self::Texts => "texts",
            Self::Sources => "sources",
        }
    }
}

/// Writes to several trees that appear together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    batches: [Batch; Name::ALL.len()],
}

impl Changes {
    pub(crate) fn insert(&mut self, tree: Name, key: impl Into<IVec>, value: impl Into<IVec>) {
        self.batches[tree as usize].insert(key, value);
    }

    pub(crate) fn remove(&mut self, tree: Name, key: impl Into<IVec>) {
        self.batches[tree as usize].remove(key);
    }
}

/// One open database.
#[derive(Debug, Clone)]
pub(crate) struct Trees {
    // First to go: sled closes when its last handle does.
    trees: Vec<sled::Tree>,
    db: sled::Db,
    path: Arc<Path>,
}

impl Trees {
    /// Opens or creates the database in a folder, which must not be open anywhere else. A new one gets this build's version.
    pub(crate) fn open(path: &Path, cache_bytes: u64, limit: Duration) -> Result<Self, HistoryError> {
        let trees = Self::open_free(path, cache_bytes, limit)?;
        match trees.number(VERSION_KEY)? {
            Some(found) if found > u64::from(STORE_VERSION) => Err(HistoryError::Newer {
                path: path.into(),
                found: u32::try_from(found).unwrap_or(u32::MAX),
                supported: STORE_VERSION,
            }),
            Some(1..) => Ok(trees),
            Some(0) => Err(HistoryError::damaged(path, "its version is zero")),
            None if trees.tree(Name::Runs).rows().next().is_none() => {
                let mut changes = Changes::default();
                changes.insert(Name::Meta, VERSION_KEY, &u64::from(STORE_VERSION).to_be_bytes());
                trees.commit(&changes)?;
                Ok(trees)
            }
            None => Err(HistoryError::damaged(path, "its version is missing")),
        }
    }

    /// Whoever calls holds the history, so sled's own lock can only be that of a database just closed: its threads may take a moment
    /// longer to let go.
    fn open_free(path: &Path, cache_bytes: u64, limit: Duration) -> Result<Self, HistoryError> {
        let start = Instant::now();
        loop {
            let folder: PathBuf = path.into();
            match guard::within(path, "opening it", limit, move || Self::open_here(&folder, cache_bytes)) {
                Err(HistoryError::Locked { .. }) if start.elapsed() < limit.min(LET_GO) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(HistoryError::Locked { path, .. }) => {
                    return Err(HistoryError::Locked { path, waited: start.elapsed() });
                }
                opened => return opened,
            }
        }
    }

    fn open_here(path: &Path, cache_bytes: u64) -> Result<Self, HistoryError> {
        guard::call(path, || {
            let db = sled::Config::new()
                .path(path)
                .cache_capacity(cache_bytes)
                .flush_every_ms(None)
                .mode(sled::Mode::LowSpace)
                .open()?;
            let trees = Name::ALL.iter().map(|name| db.open_tree(name.as_str())).collect::<sled::Result<_>>()?;
            Ok(Self { db, trees, path: path.into() })
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn tree(&self, name: Name) -> Tree<'_> {
        Tree { tree: &self.trees[name as usize], path: &self.path }
    }

    /// A counter of `meta`.
    fn number(&self, key: &[u8]) -> Result<Option<u64>, HistoryError> {
        let Some(value) = self.tree(Name::Meta).get(key)? else { return Ok(None) };
        let bytes =
            <[u8; 8]>::try_from(&value[..]).map_err(|_| HistoryError::damaged(&self.path, "a counter is broken"))?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    /// Runs ever appended to this store.
    pub(crate) fn appended(&self) -> Result<u64, HistoryError> {
        Ok(self.number(APPENDED_KEY)?.unwrap_or(0))
    }

    pub(crate) fn set_appended(changes: &mut Changes, appended: u64) {
        changes.insert(Name::Meta, APPENDED_KEY, &appended.to_be_bytes());
    }

    /// Makes changes at once: after a crash all of them are there, or none.
    pub(crate) fn commit(&self, changes: &Changes) -> Result<(), HistoryError> {
        let [a, b, c, d, e, f, g, h] = &self.trees[..] else {
            return Err(HistoryError::damaged(&self.path, "a tree is missing"));
        };
        guard::call(&self.path, || {
            let done = (a, b, c, d, e, f, g, h).transaction(|(a, b, c, d, e, f, g, h)| {
                for (tree, batch) in [a, b, c, d, e, f, g, h].into_iter().zip(&changes.batches) {
                    tree.apply_batch(batch)?;
                }
                Ok(())
            });
            done.map_err(|error: TransactionError<()>| match error {
                TransactionError::Storage(error) => error,
                TransactionError::Abort(()) => sled::Error::ReportableBug("a transaction was aborted".into()),
            })
        })
    }

    /// Makes changes tree by tree: faster for much data, for stores that nobody uses before all is done.
    pub(crate) fn load(&self, changes: Changes) -> Result<(), HistoryError> {
        guard::call(&self.path, || {
            self.trees.iter().zip(changes.batches).try_for_each(|(tree, batch)| tree.apply_batch(batch))
        })
    }

    /// Brings everything to the disk.
    pub(crate) fn flush(&self, limit: Duration) -> Result<(), HistoryError> {
        let db = self.db.clone();
        let path = Arc::clone(&self.path);
        guard::within(&self.path, "writing to the disk", limit, move || guard::call(&path, || db.flush().map(drop)))
    }

    /// Closes the database; waits for sled's threads at most `limit`.
    pub(crate) fn close(self, limit: Duration) {
        let path = Arc::clone(&self.path);
        let here = Arc::clone(&self.path);
        let closed = guard::within(&path, "closing it", limit, move || {
            guard::call(&here, || {
                drop(self);
                Ok(())
            })
        });
        if let Err(error) = closed {
            tracing::debug!("{error}");
        }
    }
}

/// One tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree<'a> {
    tree: &'a sled::Tree,
    path: &'a Path,
}

impl<'a> Tree<'a> {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>, HistoryError> {
        guard::call(self.path, || self.tree.get(key))
    }

    /// Entries in order of their keys.
    pub(crate) fn rows(&self) -> Rows<'a> {
        Rows { rows: Some(self.tree.iter()), path: self.path }
    }

    /// Entries whose keys start with `prefix`.
    pub(crate) fn prefix(&self, prefix: &[u8]) -> Rows<'a> {
        Rows { rows: Some(self.tree.scan_prefix(prefix)), path: self.path }
    }
}

/// Entries of a tree from either end; ends after an error.
pub(crate) struct Rows<'a> {
    rows: Option<sled::Iter>,
    path: &'a Path,
}

impl Rows<'_> {
    fn step(
        &mut self,
        step: impl FnOnce(&mut sled::Iter) -> Option<sled::Result<(IVec, IVec)>>,
    ) -> Option<Result<(IVec, IVec), HistoryError>> {
        let rows = self.rows.as_mut()?;
        let entry = guard::call(self.path, || step(rows).transpose()).transpose();
        if !matches!(entry, Some(Ok(_))) {
            self.rows = None;
        }
        entry
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<(IVec, IVec), HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(Iterator::next)
    }
}

impl DoubleEndedIterator for Rows<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(DoubleEndedIterator::next_back)
    }
}
