//! Folding: from the observations of runs, as they come, to the chunks of their templates.
//!
//! A chunk is found and written once for many runs, so the observations of a run wait in `recent`, and readers look at both. They
//! wait on [`SHELVES`] shelves, by what they are filed under, and each run that is appended empties the fullest one: about as much is folded as
//! came in, whatever run it is, and no run pays for the ones before it. After a crash a shelf is as it was, or it is empty and all
//! of it is in chunks.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

use sled::IVec;

use crate::block::{self, Kind, Unreadable};
use crate::chunk::{CHUNK_LEAST, Chunk, Recent, Seen};
use crate::error::HistoryError;
use crate::evidence::Scope;
use crate::keys::{self, SHELVES};
use crate::observe::Observed;
use crate::record::{Fingerprint, RunRecord};
use crate::store::Store;
use crate::trees::{Changes, Name};

/// Runs on a shelf before it is worth emptying. A shelf's turn comes every [`SHELVES`] runs, and 8 runs after the others at first.
const FOLD_RUNS: usize = 8;
/// Bytes that may wait of a scope: ten thousands of observations.
const WAITING_BYTES: usize = 2 << 20;

/// The observations of one run on one shelf.
pub(crate) struct Laid {
    /// Prefix of its keys in `recent`.
    key: Vec<u8>,
    shelf: usize,
    recent: Recent,
    packed: Vec<u8>,
}

/// Lays the observations of a run on shelves.
pub(crate) fn lay(record: &RunRecord, observed: &[Observed]) -> Result<Vec<Laid>, Unreadable> {
    let scope = Scope::of(record);
    let mut shelves: [Vec<&Observed>; SHELVES] = Default::default();
    for seen in observed {
        shelves[keys::shelf_of(&seen.subplan.series())].push(seen);
    }
    let key = keys::recent(&keys::scope(scope), record.started_at, &record.id);
    let at_us = record.started_at.timestamp_micros();
    let laid = shelves.into_iter().enumerate().filter(|(_, seen)| !seen.is_empty()).map(|(shelf, seen)| {
        let recent = Recent::new(&record.id, at_us, scope, seen);
        let packed = recent.encode()?;
        Ok(Laid { key: key.clone(), shelf, recent, packed })
    });
    laid.collect()
}

/// What is on a shelf: stored by earlier runs, and new.
#[derive(Default)]
struct Shelf {
    runs: usize,
    bytes: usize,
    stored: Vec<(IVec, IVec)>,
    new: Vec<Laid>,
}

/// The shelf to empty next: the fullest if it is someone's turn, the largest while too much waits.
fn next(shelves: &mut [Shelf], turn: bool) -> Option<&mut Shelf> {
    if turn && shelves.iter().any(|shelf| shelf.runs >= FOLD_RUNS) {
        shelves.iter_mut().max_by_key(|shelf| (shelf.runs, shelf.bytes))
    } else if shelves.iter().map(|shelf| shelf.bytes).sum::<usize>() > WAITING_BYTES {
        shelves.iter_mut().max_by_key(|shelf| shelf.bytes)
    } else {
        None
    }
}

impl Store {
    /// Puts the observations of `runs` runs of a scope on its shelves, and empties one for each, if there are any with many.
    pub(crate) fn shelve(
        &self,
        scope: &[u8; 8],
        runs: usize,
        new: Vec<Laid>,
        changes: &mut Changes,
    ) -> Result<(), HistoryError> {
        let mut shelves: [Shelf; SHELVES] = Default::default();
        for row in self.trees()?.tree(Name::Recent).prefix(scope) {
            let (key, value) = row?;
            let (_, at, piece) = keys::of_recent(&key);
            let shelf = &mut shelves[at];
            shelf.runs += usize::from(piece == 0);
            shelf.bytes += value.len();
            shelf.stored.push((key, value));
        }
        for laid in new {
            let shelf = &mut shelves[laid.shelf];
            shelf.runs += 1;
            shelf.bytes += laid.packed.len();
            shelf.new.push(laid);
        }
        let mut folded = Vec::new();
        let mut turns = 0..runs;
        while let Some(shelf) = next(&mut shelves, turns.next().is_some()) {
            let Shelf { stored, new, .. } = std::mem::take(shelf);
            folded.extend(self.decoded(&stored)?);
            folded.extend(new.into_iter().map(|laid| laid.recent));
            stored.into_iter().for_each(|(key, _)| changes.remove(Name::Recent, key));
        }
        self.fold_all(scope, &folded, changes)?;
        for laid in shelves.into_iter().flat_map(|shelf| shelf.new) {
            let pieces = block::cut(Kind::Recent, &laid.packed);
            let pieces = pieces.map_err(|why| self.unreadable("observations", &why))?;
            for (piece, bytes) in (0u16..).zip(pieces) {
                changes.insert(Name::Recent, keys::recent_piece(&laid.key, laid.shelf, piece), bytes);
            }
        }
        Ok(())
    }

    /// Sorts all observations that wait into chunks.
    pub(crate) fn fold(&mut self) -> Result<(), HistoryError> {
        for scope in self.waiting_scopes()? {
            let mut changes = Changes::default();
            self.fold_all(&scope, &self.recent(&scope)?, &mut changes)?;
            for row in self.trees()?.tree(Name::Recent).prefix(&scope) {
                changes.remove(Name::Recent, row?.0);
            }
            self.commit(changes)?;
        }
        self.recent = Mutex::default();
        Ok(())
    }

    /// The blocks in entries of `recent`, in their order.
    pub(crate) fn decoded(&self, entries: &[(IVec, IVec)]) -> Result<Vec<Recent>, HistoryError> {
        let mut blocks: Vec<(_, Vec<&IVec>)> = Vec::new();
        for (key, value) in entries {
            let (run, shelf, _) = keys::of_recent(key);
            match blocks.last_mut() {
                Some((last, pieces)) if *last == (run, shelf) => pieces.push(value),
                _ => blocks.push(((run, shelf), vec![value])),
            }
        }
        let decode = |(_, pieces): &(_, Vec<&IVec>)| Recent::decode(&block::join(Kind::Recent, pieces)?);
        let recent: Result<Vec<Recent>, _> = blocks.iter().map(decode).collect();
        recent.map_err(|why| self.unreadable("a run's observations", &why))
    }

    /// The changes that put observations of a scope into chunks.
    fn fold_all(&self, scope: &[u8; 8], recents: &[Recent], changes: &mut Changes) -> Result<(), HistoryError> {
        let Some(name) = recents.first().map(Recent::scope) else { return Ok(()) };
        let mut groups: BTreeMap<Fingerprint, Vec<Seen>> = BTreeMap::new();
        for observed in recents.iter().flat_map(Recent::all) {
            let (series, seen) = observed.map_err(|why| self.unreadable("a run's observations", &why))?;
            groups.entry(series).or_default().push(seen);
        }
        for (series, mut seen) in groups {
            seen.sort_by_key(|(_, observation)| observation.at);
            self.fold_series(&keys::series(&series, scope), name, &seen, changes)?;
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
        // Chunks that end after the first of the new ones must take them in; usually that is none, and the newest is continued
        // if it is short.
        let mut touched: Vec<(Vec<u8>, Chunk)> = Vec::new();
        for entry in self.trees()?.tree(Name::Observations).prefix(series) {
            let (key, value) = entry?;
            let chunk = Chunk::decode(&value).map_err(|why| self.unreadable("a chunk of observations", &why))?;
            let ends_before = chunk.ends_before(earliest);
            let full = chunk.len() >= CHUNK_LEAST && chunk.first_at_us().is_some_and(|first| first < earliest);
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
