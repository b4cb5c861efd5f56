//! Checking that everything in a store reads and fits together.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::PoisonError;

use crate::append::SourceVersion;
use crate::block::{self, Unreadable};
use crate::chunk::Chunk;
use crate::error::HistoryError;
use crate::evidence::Scope;
use crate::keys;
use crate::record::{Fingerprint, RunId};
use crate::spool;
use crate::store::{Entry, Store};
use crate::trees::Name;

/// What a check of the whole store found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Runs in the store.
    pub runs: u64,
    /// Observations in the store.
    pub observations: u64,
    /// Sets of canonical texts.
    pub texts: u64,
    /// Versions of sources.
    pub sources: u64,
    /// Records that wait in the spool folder.
    pub spooled: u64,
    /// What is wrong; empty if all is well.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The tree, or `spool`.
    pub place: &'static str,
    /// The run, fingerprint or file.
    pub item: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`: {}", self.place, self.item, self.what)
    }
}

impl VerifyReport {
    fn problem(&mut self, place: &'static str, item: impl fmt::Display, what: impl fmt::Display) {
        self.problems.push(Problem { place, item: item.to_string(), what: what.to_string() });
    }
}

/// Observations by run: as the entries say, and as found.
#[derive(Default)]
struct Counts {
    expected: HashMap<u64, u64>,
    found: HashMap<u64, u64>,
}

impl Store {
    /// Reads everything and checks it against everything else: versions and checksums, that records decode and are where their keys
    /// say, that each run has its observations and each observation its run, that texts are found.
    ///
    /// # Errors
    /// Only the system's; what is wrong with the content is in the report.
    pub fn verify(&self) -> Result<VerifyReport, HistoryError> {
        let mut report = VerifyReport::default();
        let mut counts = Counts::default();
        // What is on the disk counts, not what was read before.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let steps = [
            Self::verify_runs as fn(&Self, &mut VerifyReport, &mut Counts) -> Result<(), HistoryError>,
            Self::verify_ids,
            Self::verify_observations,
            Self::verify_sources,
            Self::verify_spool,
        ];
        for step in steps {
            match step(self, &mut report, &mut counts) {
                Err(HistoryError::Damaged { detail, .. }) => report.problem("store", self.number, detail),
                done => done?,
            }
        }
        Ok(report)
    }

    fn verify_runs(&self, report: &mut VerifyReport, counts: &mut Counts) -> Result<(), HistoryError> {
        let trees = self.trees()?;
        let mut used_texts = HashSet::new();
        let mut used_blocks = HashSet::new();
        for row in trees.tree(Name::Runs).rows() {
            let (key, value) = row?;
            report.runs += 1;
            let Some(id) = keys::run_id(&key) else {
                report.problem("runs", format!("{key:02x?}"), "its key is no key of a run");
                continue;
            };
            used_blocks.insert(key.to_vec());
            let entry: Entry = match block::unseal_json(&value) {
                Ok(entry) => entry,
                Err(why) => {
                    report.problem("runs", &id, why);
                    continue;
                }
            };
            counts.expected.insert(id.to_bits(), entry.observations);
            used_texts.extend(entry.texts);
            if trees.tree(Name::Ids).get(id.as_str().as_bytes())?.as_deref() != key.get(..8) {
                report.problem("ids", &id, "it does not lead to the run");
            }
            let packed = match self.block(&key) {
                Ok(packed) => packed,
                Err(HistoryError::Record { detail, .. }) => {
                    report.problem("blocks", &id, detail);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match block::unpack_run(&packed) {
                Err(why) => report.problem("blocks", &id, why),
                Ok((record, texts)) => {
                    let agree = key == keys::run(record.started_at, &record.id)
                        && record.summary() == entry.summary
                        && texts == entry.texts
                        && entry.bytes == packed.len() as u64;
                    if !agree {
                        report.problem("runs", &id, "its entry does not agree with its record");
                    }
                }
            }
        }
        for row in trees.tree(Name::Blocks).rows() {
            let (key, _) = row?;
            let run = &key[..key.len().saturating_sub(2)];
            if !used_blocks.contains(run) {
                let name = keys::run_id(run).map_or_else(|| format!("{key:02x?}"), String::from);
                report.problem("blocks", name, "no run has this block");
                used_blocks.insert(run.to_vec());
            }
        }
        let names = self.texts_names()?;
        report.texts = names.len() as u64;
        for name in &names {
            match self.texts(name) {
                Err(HistoryError::Damaged { detail, .. }) => report.problem("texts", name, detail),
                Err(error) => return Err(error),
                Ok(texts) if block::texts_name(&texts) != *name => {
                    report.problem("texts", name, "the texts do not hash to their name");
                }
                Ok(_) => {}
            }
        }
        for name in used_texts.iter().filter(|name| !names.contains(name)) {
            report.problem("texts", name, "a run refers to it, and it is missing");
        }
        Ok(())
    }

    fn verify_ids(&self, report: &mut VerifyReport, _: &mut Counts) -> Result<(), HistoryError> {
        let trees = self.trees()?;
        for row in trees.tree(Name::Ids).rows() {
            let (id, at) = row?;
            let text = String::from_utf8_lossy(&id).into_owned();
            let is_id = text.parse::<RunId>().is_ok();
            if !is_id || trees.tree(Name::Runs).get(&keys::run_from(&at, &text))?.is_none() {
                report.problem("ids", text, "it leads to no run");
            }
        }
        Ok(())
    }

    fn verify_observations(&self, report: &mut VerifyReport, counts: &mut Counts) -> Result<(), HistoryError> {
        let trees = self.trees()?;
        for scope in self.waiting_scopes()? {
            for recent in self.recent(&scope)?.iter() {
                *counts.found.entry(recent.run).or_default() += recent.len() as u64;
                if keys::scope(recent.scope()) != scope {
                    report.problem("recent", RunId::from_bits(recent.run), "it is not where its key says");
                }
                if let Some(Err(why)) = recent.all().find(Result::is_err) {
                    report.problem("recent", RunId::from_bits(recent.run), why);
                }
            }
        }
        for row in trees.tree(Name::Observations).rows() {
            let (key, value) = row?;
            let fingerprint = keys::fingerprint_at(&key, 0).unwrap_or(Fingerprint([0; 16]));
            let chunk = match Chunk::decode(&value) {
                Ok(chunk) => chunk,
                Err(why) => {
                    report.problem("observations", fingerprint, why);
                    continue;
                }
            };
            let series = keys::series(&fingerprint, &keys::scope(chunk.scope()));
            let own_key = chunk.first_at_us().map(|first| keys::chunk(&series, first));
            if own_key.as_deref() != Some(&key[..]) || !chunk.ordered() {
                report.problem("observations", fingerprint, "a chunk is out of order");
            }
            if let Some(Err(why)) = chunk.newest_first().find(Result::is_err) {
                report.problem("observations", fingerprint, why);
            }
            chunk.runs().for_each(|run| *counts.found.entry(run).or_default() += 1);
        }
        report.observations = counts.found.values().sum();
        for (run, found) in &counts.found {
            if !counts.expected.contains_key(run) {
                report.problem(
                    "observations",
                    RunId::from_bits(*run),
                    format!("{found} observations of a run that is not there"),
                );
            }
        }
        for (run, expected) in &counts.expected {
            let found = counts.found.get(run).copied().unwrap_or(0);
            if found != *expected {
                let what = format!("{found} observations are there, {expected} were taken");
                report.problem("observations", RunId::from_bits(*run), what);
            }
        }
        Ok(())
    }

    fn verify_sources(&self, report: &mut VerifyReport, _: &mut Counts) -> Result<(), HistoryError> {
        for row in self.trees()?.tree(Name::Sources).rows() {
            let (key, value) = row?;
            report.sources += 1;
            match block::unseal_json::<SourceVersion>(&value) {
                Err(why) => report.problem("sources", format!("{key:02x?}"), why),
                Ok(version) => {
                    let source = &version.source;
                    let scope = Scope { pipeline: &version.pipeline, environment: &version.environment };
                    let own = keys::source(&source.name, scope, &source.data_version);
                    if key != own {
                        report.problem("sources", &source.name, "it is not where its key says");
                    }
                }
            }
        }
        Ok(())
    }

    fn verify_spool(&self, report: &mut VerifyReport, _: &mut Counts) -> Result<(), HistoryError> {
        for path in spool::waiting(&self.folder.spool()) {
            report.spooled += 1;
            // One of a newer version waits for a newer build.
            if let Ok(Err(why @ Unreadable::Broken(_))) = spool::read(&path) {
                report.problem("spool", path.display(), why);
            }
        }
        Ok(())
    }
}
