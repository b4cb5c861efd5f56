//! Appending runs, and folding their observations into chunks.
//!
//! A run is appended by writing at the ends of a few trees: that is fast whatever the size of the store. Its observations wait in
//! `recent`; after [`FOLD_RUNS`] runs of a pipeline they are sorted into the chunks of their templates, so that a chunk is found and
//! written once for many runs. Readers look at both.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::block::{self, CanonicalTexts, Kind, Unreadable};
use crate::chunk::{CHUNK_ROWS, Chunk, Recent, Seen};
use crate::error::HistoryError;
use crate::evidence::Scope;
use crate::guard;
use crate::keys;
use crate::observe::observations_of;
use crate::record::{Fingerprint, RunId, RunRecord, SourceRecord};
use crate::store::{Entry, Store};
use crate::trees::{Changes, Name, Trees};

/// Runs of a scope that are folded together.
pub(crate) const FOLD_RUNS: usize = 16;
/// Observations that are folded at once, however few runs they are of.
const FOLD_ROWS: usize = 4096;
/// Runs that are appended together when there are many.
pub(crate) const GROUP: usize = 64;

/// A version of a source, as runs have seen it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceVersion {
    /// Pipeline that read it.
    pub pipeline: String,
    /// Environment of the runs.
    pub environment: String,
    /// Start of the first run that read it.
    pub first_seen: DateTime<Utc>,
    /// Start of the last one.
    pub last_seen: DateTime<Utc>,
    /// That run.
    pub last_run: RunId,
    /// Runs that read it.
    pub runs: u64,
    /// What it was.
    pub source: SourceRecord,
}

type Scoped<T> = BTreeMap<[u8; 8], Vec<T>>;

impl Store {
    /// Appends a run with the canonical texts of its fingerprints. A run whose id is known is taken for the same and left as it is.
    /// What is appended survives a crash of the process at once, and a loss of power after [`Self::flush`].
    ///
    /// # Errors
    /// The store cannot be written, or is a copy.
    pub fn append(&mut self, record: &RunRecord, texts: &CanonicalTexts) -> Result<(), HistoryError> {
        self.refuse_copy()?;
        self.append_group(&[(record, texts)])
    }

    /// Brings what was appended to the disk.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn flush(&mut self) -> Result<(), HistoryError> {
        self.trees()?.flush(self.options.answer_within)?;
        if self.is_copy() {
            return Ok(());
        }
        self.folder.set_appended(self.trees()?.appended()?)
    }

    /// Appends many runs and brings them to the disk.
    pub(crate) fn append_all(&mut self, records: &[(RunRecord, CanonicalTexts)]) -> Result<u64, HistoryError> {
        let before = self.trees()?.appended()?;
        for group in records.chunks(GROUP) {
            let group: Vec<_> = group.iter().map(|(record, texts)| (record, texts)).collect();
            self.append_group(&group)?;
        }
        let added = self.trees()?.appended()? - before;
        if added > 0 {
            self.flush()?;
        }
        Ok(added)
    }

    fn append_group(&mut self, records: &[(&RunRecord, &CanonicalTexts)]) -> Result<(), HistoryError> {
        let trees = self.trees()?.clone();
        let mut changes = Changes::default();
        let mut texts_written = HashSet::new();
        let mut sources = HashMap::new();
        let mut recents: Scoped<(Vec<u8>, Recent)> = BTreeMap::new();
        let mut appended = 0;
        let mut ids = HashSet::new();
        for &(record, texts) in records {
            if self.knows(&record.id)? || !ids.insert(&record.id) {
                continue;
            }
            let fail = |why: Unreadable| HistoryError::Record { run: record.id.to_string(), detail: why.to_string() };
            let key = keys::run(record.started_at, &record.id);
            let kept = self.keep_texts(texts, &mut texts_written, &mut changes);
            let texts = kept.map_err(|error| match error {
                Ok(why) => fail(why),
                Err(error) => error,
            })?;
            let packed = block::pack_run(record, texts).map_err(fail)?;
            let pieces = block::cut(Kind::Run, &packed).map_err(fail)?;
            let observed = observations_of(record);
            let entry = Entry {
                summary: record.summary(),
                bytes: packed.len() as u64,
                pieces: u16::try_from(pieces.len()).unwrap_or(u16::MAX),
                observations: observed.len() as u64,
                texts,
            };
            insert_pieces(&mut changes, Name::Blocks, &key, pieces);
            changes.insert(Name::Runs, &key[..], block::seal_json(&entry).map_err(fail)?);
            changes.insert(Name::Ids, record.id.as_str().as_bytes(), &keys::ascending(record.started_at));
            for source in &record.sources {
                self.keep_source(record, source, &mut sources)?;
            }
            let scope = Scope::of(record);
            let tag = keys::scope(scope);
            let recent = Recent::new(&record.id, record.started_at.timestamp_micros(), scope, &observed);
            recents.entry(tag).or_default().push((keys::recent(&tag, record.started_at, &record.id), recent));
            appended += 1;
        }
        if appended == 0 {
            return Ok(());
        }
        for (key, source) in &sources {
            let sealed = block::seal_json(source).map_err(|why| self.unreadable("a source", &why))?;
            changes.insert(Name::Sources, &key[..], sealed);
        }
        Trees::set_appended(&mut changes, trees.appended()? + appended);
        for (scope, recents) in &recents {
            self.keep_recent(scope, recents, &mut changes)?;
        }
        self.commit(changes)?;
        // Read again when asked for.
        let mut known = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recents.keys().for_each(|scope| drop(known.remove(scope)));
        Ok(())
    }

    /// Lets the observations of runs wait, or folds them with those that wait if that makes enough.
    fn keep_recent(
        &self,
        scope: &[u8; 8],
        new: &[(Vec<u8>, Recent)],
        changes: &mut Changes,
    ) -> Result<(), HistoryError> {
        let mut waiting = 0;
        for row in self.trees()?.tree(Name::Recent).prefix(scope) {
            waiting += usize::from(row?.0.ends_with(&[0, 0]));
        }
        let rows: usize = new.iter().map(|(_, recent)| recent.len()).sum();
        if waiting + new.len() >= FOLD_RUNS || rows >= FOLD_ROWS {
            let known = self.recent(scope)?;
            let all = known.iter().chain(new.iter().map(|(_, recent)| recent));
            return self.fold_scope(scope, all, changes);
        }
        for (key, recent) in new {
            let packed = recent.encode().and_then(|packed| block::cut(Kind::Recent, &packed));
            let pieces = packed.map_err(|why| self.unreadable("observations", &why))?;
            insert_pieces(changes, Name::Recent, key, pieces);
        }
        Ok(())
    }

    fn commit(&self, changes: Changes) -> Result<(), HistoryError> {
        let trees = self.trees()?.clone();
        let path = trees.path().to_owned();
        guard::within(&path, "appending to it", self.options.answer_within, move || trees.commit(&changes))
    }

    /// Stores a set of texts unless it is there. The inner error is one of the content.
    fn keep_texts(
        &self,
        texts: &CanonicalTexts,
        written: &mut HashSet<Fingerprint>,
        changes: &mut Changes,
    ) -> Result<Option<Fingerprint>, Result<Unreadable, HistoryError>> {
        if texts.is_empty() {
            return Ok(None);
        }
        let name = block::texts_name(texts);
        let known = self.trees().and_then(|trees| trees.tree(Name::Texts).get(&keys::piece(&name.0, 0)));
        if known.map_err(Err)?.is_none() && written.insert(name) {
            let packed = block::pack(texts).and_then(|packed| block::cut(Kind::Texts, &packed));
            insert_pieces(changes, Name::Texts, &name.0, packed.map_err(Ok)?);
        }
        Ok(Some(name))
    }

    fn keep_source(
        &self,
        record: &RunRecord,
        source: &SourceRecord,
        seen: &mut HashMap<Vec<u8>, SourceVersion>,
    ) -> Result<(), HistoryError> {
        let key = keys::source(&source.name, Scope::of(record), &source.data_version);
        let known = match seen.get(&key) {
            Some(known) => Some(known.clone()),
            None => {
                let value = self.trees()?.tree(Name::Sources).get(&key)?;
                let known = value.map(|value| block::unseal_json::<SourceVersion>(&value)).transpose();
                known.map_err(|why| self.unreadable(&format!("source `{}`", source.name), &why))?
            }
        };
        let at = record.started_at;
        let version = match known {
            Some(mut known) => {
                known.runs += 1;
                known.first_seen = known.first_seen.min(at);
                if at >= known.last_seen {
                    known.last_seen = at;
                    known.last_run = record.id.clone();
                    known.source = source.clone();
                }
                known
            }
            None => SourceVersion {
                pipeline: record.pipeline.clone(),
                environment: record.environment.clone(),
                first_seen: at,
                last_seen: at,
                last_run: record.id.clone(),
                runs: 1,
                source: source.clone(),
            },
        };
        seen.insert(key, version);
        Ok(())
    }

    /// Sorts the observations that wait into chunks.
    pub(crate) fn fold(&mut self) -> Result<(), HistoryError> {
        for scope in self.waiting_scopes()? {
            let mut changes = Changes::default();
            self.fold_scope(&scope, self.recent(&scope)?.iter(), &mut changes)?;
            self.commit(changes)?;
        }
        self.recent = Mutex::default();
        Ok(())
    }

    /// The changes that put observations of a scope into chunks and leave none waiting.
    fn fold_scope<'a>(
        &self,
        scope: &[u8; 8],
        recents: impl Iterator<Item = &'a Recent>,
        changes: &mut Changes,
    ) -> Result<(), HistoryError> {
        let mut groups: BTreeMap<Fingerprint, Vec<Seen>> = BTreeMap::new();
        let mut name = None;
        for recent in recents {
            for observed in recent.all() {
                let (series, seen) = observed.map_err(|why| self.unreadable("a run's observations", &why))?;
                groups.entry(series).or_default().push(seen);
            }
            name = Some(recent.scope());
        }
        let Some(name) = name else { return Ok(()) };
        for (series, mut seen) in groups {
            seen.sort_by_key(|(_, observation)| observation.at);
            self.fold_series(&keys::series(&series, scope), name, &seen, changes)?;
        }
        for row in self.trees()?.tree(Name::Recent).prefix(scope) {
            changes.remove(Name::Recent, row?.0);
        }
        Ok(())
    }

    /// Puts observations of one series, oldest first, where they belong in time.
    fn fold_series(
        &self,
        series: &[u8],
        scope: Scope<'_>,
        seen: &[Seen],
        changes: &mut Changes,
    ) -> Result<(), HistoryError> {
        let Some(earliest) = seen.first().map(|(_, observation)| observation.at.timestamp_micros()) else {
            return Ok(());
        };
        // Chunks that end after the first of the new ones must take them in; usually that is none, and the newest is continued.
        let mut touched: Vec<(Vec<u8>, Chunk)> = Vec::new();
        for entry in self.trees()?.tree(Name::Observations).prefix(series) {
            let (key, value) = entry?;
            let chunk = Chunk::decode(&value).map_err(|why| self.unreadable("a chunk of observations", &why))?;
            let ends_before = chunk.ends_before(earliest);
            let full = chunk.len() >= CHUNK_ROWS && chunk.first_at_us().is_some_and(|first| first < earliest);
            if !(ends_before && full) {
                touched.push((key.to_vec(), chunk));
            }
            if ends_before {
                break;
            }
        }
        let mut merged = Chunk::new(scope);
        let mut old: HashSet<Vec<u8>> = HashSet::new();
        for (key, chunk) in touched.into_iter().rev() {
            merged.extend(&chunk).map_err(|why| self.unreadable("a chunk of observations", &why))?;
            old.insert(key);
        }
        seen.iter().for_each(|seen| merged.insert(seen));
        for chunk in merged.split() {
            let Some(first) = chunk.first_at_us() else { continue };
            let key = keys::chunk(series, first);
            old.remove(&key);
            let sealed = chunk.encode().map_err(|why| self.unreadable("a chunk of observations", &why))?;
            changes.insert(Name::Observations, key, sealed);
        }
        old.into_iter().for_each(|key| changes.remove(Name::Observations, key));
        Ok(())
    }
}

pub(crate) fn insert_pieces(changes: &mut Changes, tree: Name, prefix: &[u8], pieces: Vec<Vec<u8>>) {
    for (index, piece) in (0u16..).zip(pieces) {
        changes.insert(tree, keys::piece(prefix, index), piece);
    }
}
