//! Appending runs.
//!
//! A run is appended by writing at the ends of a few trees: that is fast whatever the size of the store. What becomes of its
//! observations is in `fold`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::block::{self, CanonicalTexts, Kind, Unreadable};
use crate::error::HistoryError;
use crate::evidence::Scope;
use crate::fold::{self, Laid};
use crate::guard;
use crate::keys;
use crate::observe::observations_of;
use crate::record::{Fingerprint, RunId, RunRecord, SourceRecord};
use crate::store::{Entry, Store};
use crate::trees::{Changes, Name, Trees};

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
        let mut scopes: BTreeMap<[u8; 8], (usize, Vec<Laid>)> = BTreeMap::new();
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
            let (runs, laid) = scopes.entry(keys::scope(Scope::of(record))).or_default();
            *runs += 1;
            laid.extend(fold::lay(record, &observed).map_err(fail)?);
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
        // Read again when asked for.
        let mut known = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.keys().for_each(|scope| drop(known.remove(scope)));
        drop(known);
        for (scope, (runs, laid)) in scopes {
            self.shelve(&scope, runs, laid, &mut changes)?;
        }
        self.commit(changes)
    }

    pub(crate) fn commit(&self, changes: Changes) -> Result<(), HistoryError> {
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
}

fn insert_pieces(changes: &mut Changes, tree: Name, prefix: &[u8], pieces: Vec<Vec<u8>>) {
    for (index, piece) in (0u16..).zip(pieces) {
        changes.insert(tree, keys::piece(prefix, index), piece);
    }
}
