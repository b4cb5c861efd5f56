//! An open store: opening it, whatever state it is in, and reading its runs.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::block::{self, CanonicalTexts, Kind, Unreadable};
use crate::chunk::Recent;
use crate::error::HistoryError;
use crate::folder::{Current, Folder};
use crate::history::HistoryOptions;
use crate::keys;
use crate::record::{Fingerprint, Outcome, RunId, RunRecord, RunSummary};
use crate::repair;
use crate::spool;
use crate::tail;
use crate::trees::{Name, Trees};

/// What an opener wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Make the store if there is none.
    Create,
    /// Use what is there, also where it may only be read.
    Existing,
}

/// An open store. While it is open no other process can use the history of its state folder: keep it for moments.
#[derive(Debug)]
pub struct Store {
    /// None once closed.
    trees: Option<Trees>,
    pub(crate) folder: Folder,
    /// Number of the store in its folder.
    pub(crate) number: u64,
    pub(crate) options: HistoryOptions,
    /// By scope the runs whose observations are not yet in chunks, oldest first; read when first asked for.
    pub(crate) recent: Mutex<HashMap<[u8; 8], Arc<Vec<Recent>>>>,
    notes: Vec<String>,
    /// A copy, of a store that may only be read.
    copy: Option<tempfile::TempDir>,
    lock: Option<File>,
}

/// What is kept beside a run's block, to list it and to find what belongs to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) summary: RunSummary,
    /// Bytes of the compressed block.
    pub(crate) bytes: u64,
    /// Pieces of the block.
    pub(crate) pieces: u16,
    /// Observations taken from the run.
    pub(crate) observations: u64,
    /// The set of texts that its fingerprints have.
    pub(crate) texts: Option<Fingerprint>,
}

/// Which runs to list; an empty filter passes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only this pipeline.
    pub pipeline: Option<String>,
    /// Only this environment.
    pub environment: Option<String>,
    /// Only runs that started then or later.
    pub since: Option<DateTime<Utc>>,
    /// Only runs that ended so.
    pub outcome: Option<Outcome>,
}

impl RunFilter {
    fn passes(&self, run: &RunSummary) -> bool {
        self.pipeline.as_ref().is_none_or(|pipeline| *pipeline == run.pipeline)
            && self.environment.as_ref().is_none_or(|environment| *environment == run.environment)
            && self.since.is_none_or(|since| run.started_at >= since)
            && self.outcome.is_none_or(|outcome| outcome == run.outcome)
    }
}

impl Store {
    /// Opens the store of a folder, rebuilds it if it is damaged, and merges what was spooled.
    pub(crate) fn open(folder: &Folder, options: &HistoryOptions, access: Access) -> Result<Self, HistoryError> {
        if access == Access::Existing && !folder.root().exists() && spool::waiting(&folder.spool()).is_empty() {
            return Self::open_copy(folder, options, None);
        }
        let created = folder.create().and_then(|()| folder.lock(options.lock_wait));
        let lock = match (created, access) {
            (Ok(lock), _) => lock,
            (Err(HistoryError::ReadOnly { .. }), Access::Existing) => return Self::open_read_only(folder, options),
            (Err(error), _) => return Err(error),
        };
        match Self::open_locked(folder, options, lock) {
            Err(HistoryError::ReadOnly { .. }) if access == Access::Existing => Self::open_read_only(folder, options),
            opened => opened,
        }
    }

    fn open_locked(folder: &Folder, options: &HistoryOptions, lock: File) -> Result<Self, HistoryError> {
        let mut store = match Self::open_current(folder, options) {
            Ok((trees, number)) => Self::of(trees, folder, number, options, Some(lock)),
            Err(HistoryError::Damaged { detail, .. }) => repair::rebuild(folder, options, &detail, Some(lock))?,
            Err(error) => return Err(error),
        };
        match store.merge_spool(true) {
            Ok(()) => Ok(store),
            Err(HistoryError::Damaged { detail, .. }) => {
                let mut store = store.rebuild(&detail)?;
                store.merge_spool(true)?;
                Ok(store)
            }
            Err(error) => Err(error),
        }
    }

    /// The database in use, if it is whole.
    pub(crate) fn open_current(folder: &Folder, options: &HistoryOptions) -> Result<(Trees, u64), HistoryError> {
        let (number, new) = match folder.current()? {
            Current::Store(number) => (number, false),
            Current::None => (1, true),
            Current::Unclear(stores) => {
                let detail = format!("nothing says which of {} stores is in use", stores.len());
                return Err(HistoryError::damaged(&folder.root(), detail));
            }
        };
        let (path, tail) = (folder.store(number), folder.tail());
        if let Err(error) = tail::keep(&path, &tail) {
            // A precaution against two faults at once; most likely the disk is full.
            tracing::debug!("failed to write `{}`: {error}", tail.display());
        }
        let trees = Trees::open(&path, options.cache_bytes, options.answer_within)?;
        if new {
            folder.set_current(number)?;
        }
        let (known, acknowledged) = (trees.appended()?, folder.appended().unwrap_or(0));
        if known < acknowledged {
            let missing = acknowledged - known;
            trees.close(options.answer_within);
            return Err(HistoryError::damaged(&folder.root(), format!("the last {missing} runs are missing")));
        }
        folder.clean(number)?;
        // The log is whole.
        drop(fs::remove_file(tail));
        Ok((trees, number))
    }

    pub(crate) fn of(trees: Trees, folder: &Folder, number: u64, options: &HistoryOptions, lock: Option<File>) -> Self {
        Self {
            trees: Some(trees),
            folder: folder.clone(),
            number,
            options: options.clone(),
            recent: Mutex::default(),
            notes: Vec::new(),
            copy: None,
            lock,
        }
    }

    /// Sets this store aside and builds a new one from what can be read of it; others stay locked out meanwhile.
    pub(crate) fn rebuild(mut self, why: &str) -> Result<Self, HistoryError> {
        self.refuse_copy()?;
        let (folder, options, lock) = (self.folder.clone(), self.options.clone(), self.lock.take());
        drop(self);
        repair::rebuild(&folder, &options, why, lock)
    }

    pub(crate) fn open_read_only(folder: &Folder, options: &HistoryOptions) -> Result<Self, HistoryError> {
        let _shared = folder.lock_shared(options.lock_wait)?;
        match folder.current()? {
            Current::Store(number) => Self::open_copy(folder, options, Some(number)),
            Current::None => Self::open_copy(folder, options, None),
            Current::Unclear(_) => Err(HistoryError::damaged(&folder.root(), "nothing says which store is in use")),
        }
    }

    /// sled writes when it opens, so a store that may only be read is copied. What is spooled is merged into the copy only.
    fn open_copy(folder: &Folder, options: &HistoryOptions, number: Option<u64>) -> Result<Self, HistoryError> {
        let temporary = std::env::temp_dir();
        let made = tempfile::Builder::new().prefix("sparklet-history-").tempdir();
        let copy = made.map_err(|source| HistoryError::io("create a folder in", &temporary, source))?;
        let to = copy.path().join("store");
        if let Some(number) = number {
            let from = folder.store(number);
            copy_files(&from, &to).map_err(|source| HistoryError::io("copy", &from, source))?;
        }
        let trees = Trees::open(&to, options.cache_bytes, options.answer_within)?;
        let mut store = Self::of(trees, folder, number.unwrap_or(0), options, None);
        store.copy = Some(copy);
        store.merge_spool(false)?;
        Ok(store)
    }

    /// True if this is a copy, of a history that may only be read or that does not exist: what is written to it is dropped.
    pub fn is_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// What a user should know: that a damaged store was set aside, that a spooled record could not be read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(crate) fn note(&mut self, note: String) {
        tracing::warn!("{note}");
        self.notes.push(note);
    }

    pub(crate) fn trees(&self) -> Result<&Trees, HistoryError> {
        self.trees.as_ref().ok_or_else(|| HistoryError::damaged(&self.folder.root(), "it is closed"))
    }

    /// Replaces the database, e.g. by a smaller one with the same content.
    pub(crate) fn swap(&mut self, trees: Trees, number: u64) -> Option<Trees> {
        self.recent = Mutex::default();
        self.number = number;
        self.trees.replace(trees)
    }

    pub(crate) fn refuse_copy(&self) -> Result<(), HistoryError> {
        if self.is_copy() {
            return Err(HistoryError::ReadOnly { path: self.folder.root(), detail: "this is a copy of it".into() });
        }
        Ok(())
    }

    /// Closes the store. Dropping it does the same.
    pub fn close(self) {}

    fn merge_spool(&mut self, remove: bool) -> Result<(), HistoryError> {
        let spool = self.folder.spool();
        if remove {
            spool::clean(&spool);
        }
        for files in spool::waiting(&spool).chunks(crate::append::GROUP) {
            let mut merged = Vec::new();
            let mut records = Vec::new();
            for path in files {
                match spool::read(path) {
                    Ok(Ok(record)) => {
                        records.push(record);
                        merged.push(path);
                    }
                    // Left for the build that can read it.
                    Ok(Err(Unreadable::Newer(_))) => {}
                    Ok(Err(Unreadable::Broken(why))) => {
                        if remove {
                            spool::reject(path);
                            self.note(format!("the spooled record `{}` cannot be read: {why}", path.display()));
                        }
                    }
                    Err(error) => tracing::debug!("failed to read `{}`: {error}", path.display()),
                }
            }
            self.append_all(&records)?;
            if remove {
                // Stored and on the disk; a file that stays is found to be known the next time.
                merged.into_iter().for_each(|path| drop(fs::remove_file(path)));
            }
        }
        Ok(())
    }

    /// Runs that pass a filter, newest first, at most `limit`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn runs(&self, filter: &RunFilter, limit: usize) -> Result<Vec<RunSummary>, HistoryError> {
        Ok(self.run_sizes(filter, limit)?.into_iter().map(|(run, _)| run).collect())
    }

    /// As [`Self::runs`], each with the bytes of its compressed record.
    pub(crate) fn run_sizes(&self, filter: &RunFilter, limit: usize) -> Result<Vec<(RunSummary, u64)>, HistoryError> {
        let mut runs = Vec::new();
        for entry in self.trees()?.tree(Name::Runs).rows().rev() {
            if runs.len() >= limit {
                break;
            }
            let (key, value) = entry?;
            if before(&key, filter.since) {
                break;
            }
            // An entry that cannot be read is `verify`'s to tell; the others are still worth showing.
            if let Ok(entry) = block::unseal_json::<Entry>(&value)
                && filter.passes(&entry.summary)
            {
                runs.push((entry.summary, entry.bytes));
            }
        }
        Ok(runs)
    }

    /// The record of a run by its id, a prefix of it that no other run shares, or `last`.
    ///
    /// # Errors
    /// [`HistoryError::NotFound`], [`HistoryError::Ambiguous`], [`HistoryError::Record`]; the store cannot be read.
    pub fn run(&self, asked: &str) -> Result<RunRecord, HistoryError> {
        let key = self.find(asked)?;
        let name = keys::run_id(&key).map(String::from).unwrap_or_default();
        let unreadable = |why: Unreadable| HistoryError::Record { run: name.clone(), detail: why.to_string() };
        block::unpack_run(&self.block(&key)?).map(|(record, _)| record).map_err(unreadable)
    }

    /// The block of a run by its id: see [`block::unpack_run`].
    pub(crate) fn block_of(&self, id: &str) -> Result<Vec<u8>, HistoryError> {
        self.block(&self.find(id)?)
    }

    /// The canonical texts that came with a run.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn texts_of(&self, asked: &str) -> Result<CanonicalTexts, HistoryError> {
        let key = self.find(asked)?;
        match self.entry(&key)?.texts {
            Some(name) => self.texts(&name),
            None => Ok(CanonicalTexts::new()),
        }
    }

    /// Key of a run in `runs`.
    fn find(&self, asked: &str) -> Result<Vec<u8>, HistoryError> {
        let trees = self.trees()?;
        let not_found = |nearest| HistoryError::NotFound { asked: asked.to_owned(), path: self.folder.root(), nearest };
        if asked == "last" {
            let last = trees.tree(Name::Runs).rows().next_back().transpose()?;
            return last.map(|(key, _)| key.to_vec()).ok_or_else(|| not_found(Vec::new()));
        }
        let asked_for = asked.to_ascii_lowercase();
        let mut found: Vec<(Vec<u8>, String)> = Vec::new();
        if !asked_for.is_empty() {
            for entry in trees.tree(Name::Ids).prefix(asked_for.as_bytes()) {
                let (id, at) = entry?;
                let id = String::from_utf8_lossy(&id).into_owned();
                found.push((keys::run_from(&at, &id), id));
            }
        }
        found.sort();
        match &mut found[..] {
            [(key, _)] => Ok(std::mem::take(key)),
            [] => Err(not_found(self.nearest(&asked_for)?)),
            several => {
                let candidates = several.iter().rev().map(|(_, id)| id.clone()).collect();
                Err(HistoryError::Ambiguous { asked: asked.to_owned(), candidates })
            }
        }
    }

    /// Up to three ids that one may have meant.
    fn nearest(&self, asked: &str) -> Result<Vec<String>, HistoryError> {
        let mut near: Vec<(usize, String)> = Vec::new();
        for entry in self.trees()?.tree(Name::Ids).rows() {
            let (id, _) = entry?;
            let id = String::from_utf8_lossy(&id).into_owned();
            // A prefix is compared with as much of the id.
            let head: String = id.chars().take(asked.chars().count().max(1)).collect();
            near.push((strsim::damerau_levenshtein(&head, asked), id));
        }
        near.retain(|(distance, _)| *distance <= 1 + asked.len() / 4);
        near.sort();
        near.truncate(3);
        Ok(near.into_iter().map(|(_, id)| id).collect())
    }

    pub(crate) fn entry(&self, key: &[u8]) -> Result<Entry, HistoryError> {
        let name = keys::run_id(key).map(String::from).unwrap_or_default();
        let record = |detail: String| HistoryError::Record { run: name.clone(), detail };
        let value = self.trees()?.tree(Name::Runs).get(key)?.ok_or_else(|| record("its entry is missing".into()))?;
        block::unseal_json(&value).map_err(|why| record(why.to_string()))
    }

    /// The compressed block of a run.
    pub(crate) fn block(&self, key: &[u8]) -> Result<Vec<u8>, HistoryError> {
        self.joined(Name::Blocks, Kind::Run, key)
    }

    /// A set of texts by its name.
    pub(crate) fn texts(&self, name: &Fingerprint) -> Result<CanonicalTexts, HistoryError> {
        let packed = self.joined(Name::Texts, Kind::Texts, &name.0)?;
        block::unpack_texts(&packed).map_err(|why| self.unreadable(&format!("texts `{name}`"), &why))
    }

    pub(crate) fn joined(&self, tree: Name, kind: Kind, prefix: &[u8]) -> Result<Vec<u8>, HistoryError> {
        let pieces = self.trees()?.tree(tree).prefix(prefix).map(|entry| entry.map(|(_, value)| value));
        let pieces = pieces.collect::<Result<Vec<_>, _>>()?;
        block::join(kind, &pieces).map_err(|why| {
            let name = keys::run_id(prefix).map(String::from);
            match name {
                Some(run) => HistoryError::Record { run, detail: why.to_string() },
                None => self.unreadable("a block", &why),
            }
        })
    }

    pub(crate) fn unreadable(&self, what: &str, why: &Unreadable) -> HistoryError {
        HistoryError::damaged(&self.folder.root(), format!("{what} cannot be read: {why}"))
    }

    /// True if a run is in the store.
    pub(crate) fn knows(&self, id: &RunId) -> Result<bool, HistoryError> {
        Ok(self.trees()?.tree(Name::Ids).get(id.as_str().as_bytes())?.is_some())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(trees) = self.trees.take() {
            trees.close(CLOSE_WITHIN.min(self.options.answer_within));
        }
    }
}

/// Closing writes nothing that matters (all is flushed before): there is no reason to wait long.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

fn before(key: &[u8], since: Option<DateTime<Utc>>) -> bool {
    since.is_some_and(|since| key.get(..8).is_some_and(|at| at < &keys::ascending(since)[..]))
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            let mut source = File::open(entry.path())?;
            // Not `fs::copy`, which would copy the permissions too, and the copy must be writable.
            std::io::copy(&mut source, &mut File::create(&target)?)?;
        }
    }
    Ok(())
}
