//! Forgetting: by age, count and size, with the space really given back.
//!
//! sled reuses space and hardly ever returns it, so the store is written anew when that pays: beside the old one, which stays in use
//! until the new one is whole and on the disk.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

use crate::append::SourceVersion;
use crate::block;
use crate::chunk::Chunk;
use crate::error::HistoryError;
use crate::evidence::Scope;
use crate::folder::bytes_in;
use crate::keys;
use crate::observe::observations_of;
use crate::record::{Fingerprint, RunId};
use crate::store::{Entry, Store};
use crate::trees::{Changes, Name, Trees};

/// What may stay; a part that is not given does not limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrunePolicy {
    /// Runs that started longer ago are forgotten.
    pub max_age: Option<Duration>,
    /// Runs to keep of each pipeline and environment, the newest.
    pub max_runs: Option<u64>,
    /// Bytes of the store on disk. The oldest runs of all go first. Less than 2 MiB counts as 2 MiB, which an empty store may need.
    pub max_bytes: Option<u64>,
}

/// What was forgotten, and what that gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Runs forgotten.
    pub runs_removed: u64,
    /// Runs in the store now.
    pub runs_kept: u64,
    /// Bytes on disk before.
    pub bytes_before: u64,
    /// Bytes on disk now.
    pub bytes_after: u64,
    /// True if the store was written anew.
    pub rewritten: bool,
    /// Damaged stores that had been set aside for more than a week, deleted.
    pub set_aside_removed: u64,
}

const SMALLEST_LIMIT: u64 = 2 << 20;
/// Set-aside stores are for someone to look at; their runs are in the store.
const KEEP_SET_ASIDE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Rewriting for fewer bytes is not worth the writing.
const LEAST_GAIN: u64 = 4 << 20;
/// Runs removed in one step.
const STEP: usize = 64;
/// Bytes written at once to a new store. sled writes a page anew as it fills, and uses the space of the old one again once the new one is
/// on the disk: bringing it there often makes stores of some hundred thousand observations a tenth smaller or more, larger ones hardly.
const LOAD_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct Kept {
    key: Vec<u8>,
    id: RunId,
    pipeline: String,
    environment: String,
    at: DateTime<Utc>,
    texts: Option<Fingerprint>,
    /// About the bytes that go with it.
    weight: u64,
}

impl Store {
    /// Forgets what the policy does not let stay, as of `now`, and gives the space back where that pays.
    ///
    /// # Errors
    /// The store cannot be read or written, or is a copy. The store is whole then too.
    pub fn prune(&mut self, policy: &PrunePolicy, now: DateTime<Utc>) -> Result<PruneReport, HistoryError> {
        self.refuse_copy()?;
        let mut report = PruneReport { bytes_before: self.bytes_on_disk()?, ..PruneReport::default() };
        self.fold()?;
        let mut runs = self.weighed()?;
        let all = runs.len();
        let mut removed = split_off(&mut runs, policy, now);
        loop {
            // Many runs are left behind by writing the others anew; few are taken out, and the space is reused.
            let many = removed.len() > STEP && removed.len() * 10 > all;
            let fresh = many || !self.remove(&removed, &runs)?;
            let live: u64 = runs.iter().map(|run| run.weight).sum();
            let bytes = self.bytes_on_disk()?;
            let limit = policy.max_bytes.map_or(u64::MAX, |limit| limit.max(SMALLEST_LIMIT));
            let gain = bytes.saturating_sub(live + live / 3 + SMALLEST_LIMIT / 2);
            let pays = gain > LEAST_GAIN && gain > bytes / 4;
            if fresh || pays || bytes > limit {
                self.rewrite(&runs)?;
                report.rewritten = true;
            }
            let bytes = self.bytes_on_disk()?;
            if bytes <= limit || runs.is_empty() {
                break;
            }
            removed = oldest_beyond(&mut runs, live, bytes, limit);
        }
        report.set_aside_removed = self.remove_set_aside();
        report.runs_kept = runs.len() as u64;
        report.runs_removed = (all - runs.len()) as u64;
        report.bytes_after = self.bytes_on_disk()?;
        Ok(report)
    }

    /// Writes the store anew with what is in it: as small as it gets.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub fn compact(&mut self) -> Result<(), HistoryError> {
        self.refuse_copy()?;
        self.fold()?;
        self.rewrite(&self.weighed()?)
    }

    fn bytes_on_disk(&self) -> Result<u64, HistoryError> {
        Ok(bytes_in(self.trees()?.path()))
    }

    /// All runs, newest first, with what they weigh.
    fn weighed(&self) -> Result<Vec<Kept>, HistoryError> {
        let trees = self.trees()?;
        let mut runs = Vec::new();
        let mut sets: HashMap<Fingerprint, u64> = HashMap::new();
        for row in trees.tree(Name::Runs).rows().rev() {
            let (key, value) = row?;
            let Some(id) = keys::run_id(&key) else { continue };
            let entry: Entry = block::unseal_json(&value).map_err(|why| self.unreadable("a run's entry", &why))?;
            let mut weight = entry.bytes + 80 * u64::from(entry.pieces) + value.len() as u64 + 60 * entry.observations;
            if let Some(name) = entry.texts
                && !sets.contains_key(&name)
            {
                let bytes = trees.tree(Name::Texts).prefix(&name.0).map(|row| row.map(|(_, value)| value.len() as u64));
                let bytes = bytes.sum::<Result<u64, _>>()?;
                weight += bytes;
                sets.insert(name, bytes);
            }
            runs.push(Kept {
                key: key.to_vec(),
                id,
                pipeline: entry.summary.pipeline,
                environment: entry.summary.environment,
                at: entry.summary.started_at,
                texts: entry.texts,
                weight,
            });
        }
        Ok(runs)
    }

    /// Takes runs out of the store as it is; false if one of them cannot be read, and thus not be taken out.
    fn remove(&self, removed: &[Kept], kept: &[Kept]) -> Result<bool, HistoryError> {
        for step in removed.chunks(STEP) {
            let Some(changes) = self.removal(step)? else { return Ok(false) };
            self.trees()?.commit(&changes)?;
        }
        if removed.is_empty() {
            return Ok(true);
        }
        let mut changes = Changes::default();
        let used: HashSet<Fingerprint> = kept.iter().filter_map(|run| run.texts).collect();
        for name in removed.iter().filter_map(|run| run.texts).filter(|name| !used.contains(name)) {
            for row in self.trees()?.tree(Name::Texts).prefix(&name.0) {
                changes.remove(Name::Texts, row?.0);
            }
        }
        let gone: HashSet<&RunId> = removed.iter().map(|run| &run.id).collect();
        for row in self.trees()?.tree(Name::Sources).rows() {
            let (key, value) = row?;
            // Runs go oldest first, so a version whose last run goes has no other.
            if block::unseal_json::<SourceVersion>(&value).is_ok_and(|version| gone.contains(&version.last_run)) {
                changes.remove(Name::Sources, key);
            }
        }
        self.trees()?.commit(&changes)?;
        self.trees()?.flush(self.options.answer_within)?;
        Ok(true)
    }

    fn removal(&self, runs: &[Kept]) -> Result<Option<Changes>, HistoryError> {
        let trees = self.trees()?;
        let mut changes = Changes::default();
        let mut series: BTreeSet<Vec<u8>> = BTreeSet::new();
        for run in runs {
            let Ok(packed) = self.block(&run.key) else { return Ok(None) };
            let Ok((record, _)) = block::unpack_run(&packed) else { return Ok(None) };
            let scope = keys::scope(Scope::of(&record));
            let observed = observations_of(&record);
            series.extend(observed.iter().map(|observed| keys::series(&observed.subplan.series(), &scope)));
            for row in trees.tree(Name::Blocks).prefix(&run.key) {
                changes.remove(Name::Blocks, row?.0);
            }
            changes.remove(Name::Runs, &run.key[..]);
            changes.remove(Name::Ids, run.id.as_str().as_bytes());
        }
        let gone: HashSet<u64> = runs.iter().map(|run| run.id.to_bits()).collect();
        for prefix in series {
            for row in trees.tree(Name::Observations).prefix(&prefix) {
                let (key, value) = row?;
                let chunk = Chunk::decode(&value);
                let mut chunk = chunk.map_err(|why| self.unreadable("a chunk of observations", &why))?;
                if chunk.retain(|run| !gone.contains(&run)) {
                    changes.remove(Name::Observations, key);
                    if let Some(first) = chunk.first_at_us() {
                        let sealed = chunk.encode().map_err(|why| self.unreadable("a chunk of observations", &why))?;
                        changes.insert(Name::Observations, keys::chunk(&prefix, first), sealed);
                    }
                }
            }
        }
        Ok(Some(changes))
    }

    /// Writes the store anew with the given runs only, and makes that one the store in use.
    fn rewrite(&mut self, kept: &[Kept]) -> Result<(), HistoryError> {
        let number = self.number + 1;
        self.folder.clean(self.number)?;
        let limit = self.options.answer_within;
        let new = Trees::open(&self.folder.store(number), self.options.cache_bytes, limit)?;
        let copied = self.copy_to(&new, kept).and_then(|()| new.flush(limit));
        new.close(limit);
        // sled reads what was written and takes a snapshot of it when it opens next: better now than in the way of a run.
        let path = self.folder.store(number);
        let new = match copied.and_then(|()| Trees::open(&path, self.options.cache_bytes, limit)) {
            Ok(new) => new,
            Err(error) => {
                self.folder.remove(number);
                return Err(error);
            }
        };
        self.folder.set_current(number)?;
        let old = self.number;
        if let Some(trees) = self.swap(new, number) {
            trees.close(limit);
        }
        self.folder.remove(old);
        Ok(())
    }

    fn copy_to(&self, new: &Trees, kept: &[Kept]) -> Result<(), HistoryError> {
        let trees = self.trees()?;
        let ids: HashSet<u64> = kept.iter().map(|run| run.id.to_bits()).collect();
        let texts: HashSet<Fingerprint> = kept.iter().filter_map(|run| run.texts).collect();
        let stays = |key: &[u8]| keys::run_id(key).is_some_and(|id| ids.contains(&id.to_bits()));
        let limit = self.options.answer_within;
        let mut load = Load { trees: new, changes: Changes::default(), bytes: 0, limit };
        Trees::set_appended(&mut load.changes, trees.appended()?);
        for row in trees.tree(Name::Runs).rows() {
            let (key, value) = row?;
            if let Some(id) = keys::run_id(&key)
                && stays(&key)
            {
                load.insert(Name::Ids, id.as_str().as_bytes(), &key[..8])?;
                load.insert(Name::Runs, &key, &value)?;
            }
        }
        for row in trees.tree(Name::Blocks).rows() {
            let (key, value) = row?;
            if stays(&key[..key.len().saturating_sub(2)]) {
                load.insert(Name::Blocks, &key, &value)?;
            }
        }
        for row in trees.tree(Name::Texts).rows() {
            let (key, value) = row?;
            if keys::fingerprint_at(&key, 0).is_some_and(|name| texts.contains(&name)) {
                load.insert(Name::Texts, &key, &value)?;
            }
        }
        for row in trees.tree(Name::Sources).rows() {
            let (key, value) = row?;
            let version = block::unseal_json::<SourceVersion>(&value);
            if version.is_ok_and(|version| ids.contains(&version.last_run.to_bits())) {
                load.insert(Name::Sources, &key, &value)?;
            }
        }
        // Of each series the chunks, newest first.
        let mut series: Option<(Vec<u8>, Vec<Chunk>)> = None;
        for row in trees.tree(Name::Observations).rows() {
            let (key, value) = row?;
            let mut chunk = Chunk::decode(&value).map_err(|why| self.unreadable("a chunk of observations", &why))?;
            chunk.retain(|run| ids.contains(&run));
            let prefix = &key[..key.len().min(keys::SERIES)];
            match &mut series {
                Some((last, chunks)) if last == prefix => chunks.push(chunk),
                _ => {
                    if let Some(done) = series.replace((prefix.to_vec(), vec![chunk])) {
                        self.copy_series(done, &mut load)?;
                    }
                }
            }
        }
        if let Some(done) = series {
            self.copy_series(done, &mut load)?;
        }
        load.done()
    }

    /// Packs a series into full chunks.
    fn copy_series(&self, (prefix, chunks): (Vec<u8>, Vec<Chunk>), load: &mut Load<'_>) -> Result<(), HistoryError> {
        let unreadable = |why| self.unreadable("a chunk of observations", &why);
        let mut chunks = chunks.into_iter().rev();
        let Some(mut all) = chunks.next() else { return Ok(()) };
        for chunk in chunks {
            all.extend(&chunk).map_err(unreadable)?;
        }
        for chunk in all.split() {
            if let Some(first) = chunk.first_at_us() {
                load.insert(Name::Observations, &keys::chunk(&prefix, first), &chunk.encode().map_err(unreadable)?)?;
            }
        }
        Ok(())
    }

    fn remove_set_aside(&self) -> u64 {
        let old = |path: &std::path::PathBuf| {
            let modified = fs::metadata(path).and_then(|meta| meta.modified());
            modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > KEEP_SET_ASIDE))
        };
        let removed = self.folder.damaged().into_iter().filter(old).filter(|path| fs::remove_dir_all(path).is_ok());
        removed.count() as u64
    }
}

/// Fills a new store in portions.
struct Load<'a> {
    trees: &'a Trees,
    changes: Changes,
    bytes: usize,
    /// How long the disk may take for a portion.
    limit: Duration,
}

impl Load<'_> {
    fn insert(&mut self, tree: Name, key: &[u8], value: &[u8]) -> Result<(), HistoryError> {
        self.changes.insert(tree, key, value);
        self.bytes += key.len() + value.len();
        if self.bytes > LOAD_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), HistoryError> {
        self.bytes = 0;
        self.trees.load(std::mem::take(&mut self.changes))?;
        self.trees.flush(self.limit)
    }

    fn done(mut self) -> Result<(), HistoryError> {
        self.write()
    }
}

/// Takes out the runs, of those given newest first, that age and count do not let stay.
fn split_off(runs: &mut Vec<Kept>, policy: &PrunePolicy, now: DateTime<Utc>) -> Vec<Kept> {
    let mut counts: HashMap<(String, String), u64> = HashMap::new();
    let stays = |run: &Kept| {
        let count = counts.entry((run.pipeline.clone(), run.environment.clone())).or_default();
        *count += 1;
        let age = now.signed_duration_since(run.at).to_std().unwrap_or(Duration::ZERO);
        policy.max_age.is_none_or(|limit| age <= limit) && policy.max_runs.is_none_or(|limit| *count <= limit)
    };
    let (kept, removed) = std::mem::take(runs).into_iter().partition(stays);
    *runs = kept;
    removed
}

/// Takes out the oldest runs, of those given newest first, so that the rest should fit; at least one.
fn oldest_beyond(runs: &mut Vec<Kept>, live: u64, bytes: u64, limit: u64) -> Vec<Kept> {
    // What a store takes when it is empty does not shrink with its runs.
    let floor = SMALLEST_LIMIT / 2;
    let share = limit.saturating_sub(floor) as f64 / bytes.saturating_sub(floor).max(1) as f64;
    let target = (live as f64 * share * 0.97) as u64;
    let mut weight = 0;
    let fits = |run: &&Kept| {
        weight += run.weight;
        weight <= target
    };
    let keep = runs.iter().take_while(fits).count().min(runs.len() - 1);
    runs.split_off(keep)
}
