//! Packed observations: the last ones of a template in a few dozen bytes each.
//!
//! A [`Chunk`] holds observations of the subplans of one template in one scope, oldest first. A [`Recent`] holds those of one run
//! that wait to be folded into chunks.

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use crate::block::{self, Unreadable};
use crate::evidence::Scope;
use crate::observe::Observed;
use crate::record::{Completeness, Fingerprint, Observation, Reduction, RunId};

/// Observations in a chunk.
pub(crate) const CHUNK_ROWS: usize = 16;
/// Observations before the next chunk is begun: a chunk that was written is left as it is if it is not too short.
pub(crate) const CHUNK_LEAST: usize = CHUNK_ROWS / 2;
/// Observations before a chunk is cut.
const CHUNK_MOST: usize = CHUNK_ROWS + CHUNK_LEAST;

/// An observation without what its container says for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    /// [`RunId::to_bits`]; zero in a [`Recent`].
    run: u64,
    /// Micro-seconds after the start of the container.
    after_us: i64,
    fingerprint: u32,
    operator: u32,
    data_version: u32,
    rows_in: u64,
    rows: u64,
    bytes: Option<u64>,
    elapsed_us: u64,
    peak_memory_bytes: Option<u64>,
    spilled_bytes: u64,
    partitions: u32,
    skew: f32,
    /// See [`completeness_code`].
    completeness: u8,
}

/// What rows refer to by position.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Names {
    fingerprints: Vec<Fingerprint>,
    operators: Vec<String>,
    data_versions: Vec<Fingerprint>,
}

impl Names {
    fn row(&mut self, fingerprint: Fingerprint, observation: &Observation, run: u64, after_us: i64) -> Row {
        Row {
            run,
            after_us,
            fingerprint: position(&mut self.fingerprints, |known| *known == fingerprint, || fingerprint),
            operator: position(
                &mut self.operators,
                |name| *name == observation.operator,
                || observation.operator.clone(),
            ),
            data_version: position(
                &mut self.data_versions,
                |version| *version == observation.data_version,
                || observation.data_version,
            ),
            rows_in: observation.rows_in,
            rows: observation.rows,
            bytes: observation.bytes,
            elapsed_us: observation.elapsed_us,
            peak_memory_bytes: observation.peak_memory_bytes,
            spilled_bytes: observation.spilled_bytes,
            partitions: observation.partitions,
            skew: observation.skew,
            completeness: completeness_code(&observation.completeness),
        }
    }

    fn observation(&self, row: &Row, run: u64, at_us: i64, environment: &str) -> Result<Seen, Unreadable> {
        let fingerprint =
            self.fingerprints.get(row.fingerprint as usize).ok_or_else(|| bad("a fingerprint is missing"))?;
        let operator = self.operators.get(row.operator as usize).ok_or_else(|| bad("an operator's name is missing"))?;
        let data_version =
            self.data_versions.get(row.data_version as usize).ok_or_else(|| bad("a data version is missing"))?;
        let observation = Observation {
            run: RunId::from_bits(run),
            at: DateTime::from_timestamp_micros(at_us).ok_or_else(|| bad("a time is out of range"))?,
            environment: environment.to_owned(),
            operator: operator.clone(),
            rows_in: row.rows_in,
            rows: row.rows,
            bytes: row.bytes,
            elapsed_us: row.elapsed_us,
            peak_memory_bytes: row.peak_memory_bytes,
            spilled_bytes: row.spilled_bytes,
            partitions: row.partitions,
            skew: row.skew,
            completeness: completeness_from(row.completeness)?,
            data_version: *data_version,
        };
        Ok((*fingerprint, observation))
    }
}

/// An observation with the subplan that it is of.
pub(crate) type Seen = (Fingerprint, Observation);

fn position<T>(all: &mut Vec<T>, same: impl Fn(&T) -> bool, new: impl Fn() -> T) -> u32 {
    let at = all.iter().position(same).unwrap_or_else(|| {
        all.push(new());
        all.len() - 1
    });
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn bad(what: &str) -> Unreadable {
    Unreadable::Broken(what.to_owned())
}

const REDUCTIONS: [(u8, Reduction); 3] =
    [(2, Reduction::DynamicFilter), (4, Reduction::Limit), (8, Reduction::EmptyBuildSide)];
const TRUNCATED: u8 = 1;
const REDUCED: u8 = 16;

/// 0 complete, 1 truncated, else 16 and a bit for each reduction: frozen, whatever becomes of the enums.
fn completeness_code(completeness: &Completeness) -> u8 {
    match completeness {
        Completeness::Complete => 0,
        Completeness::Truncated => TRUNCATED,
        Completeness::ReducedBy(reductions) => {
            let bits = REDUCTIONS.iter().filter(|(_, reduction)| reductions.contains(reduction)).map(|(bit, _)| bit);
            REDUCED | bits.sum::<u8>()
        }
    }
}

fn completeness_from(code: u8) -> Result<Completeness, Unreadable> {
    let known = REDUCTIONS.iter().map(|(bit, _)| bit).sum::<u8>();
    match code {
        0 => Ok(Completeness::Complete),
        TRUNCATED => Ok(Completeness::Truncated),
        code if code & REDUCED != 0 && code & !(REDUCED | known) == 0 => {
            let reductions = REDUCTIONS.iter().filter(|(bit, _)| code & bit != 0).map(|(_, reduction)| *reduction);
            Ok(Completeness::ReducedBy(reductions.collect()))
        }
        _ => Err(bad("a completeness is not known")),
    }
}

/// Observations of the subplans of one template in one scope, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pipeline: String,
    environment: String,
    /// Times of the rows are relative to this.
    base_us: i64,
    names: Names,
    rows: Vec<Row>,
}

/// What a [`Chunk`] begins with.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "pipeline")]
    _pipeline: &'a str,
    #[serde(rename = "environment")]
    _environment: &'a str,
    #[serde(rename = "base_us")]
    _base_us: i64,
    fingerprints: Vec<Fingerprint>,
}

impl Chunk {
    /// A chunk without rows.
    pub(crate) fn new(scope: Scope<'_>) -> Self {
        Self {
            pipeline: scope.pipeline.to_owned(),
            environment: scope.environment.to_owned(),
            base_us: 0,
            names: Names::default(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope { pipeline: &self.pipeline, environment: &self.environment }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Unreadable> {
        postcard::to_stdvec(self).map(|bytes| block::seal(&bytes)).map_err(|error| bad(&error.to_string()))
    }

    pub(crate) fn decode(sealed: &[u8]) -> Result<Self, Unreadable> {
        postcard::from_bytes(block::unseal(sealed)?).map_err(|error| bad(&error.to_string()))
    }

    /// True if a sealed chunk may hold observations of a subplan: looks at the names only. What cannot be read may hold anything.
    pub(crate) fn may_hold(sealed: &[u8], fingerprint: &Fingerprint) -> bool {
        let head = sealed.get(block::SEAL..).map(postcard::take_from_bytes::<Head<'_>>);
        head.and_then(Result::ok).is_none_or(|(head, _)| head.fingerprints.contains(fingerprint))
    }

    /// Observations in it.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Time of the oldest row.
    pub(crate) fn first_at_us(&self) -> Option<i64> {
        self.rows.first().map(|row| self.at(row))
    }

    fn at(&self, row: &Row) -> i64 {
        self.base_us.saturating_add(row.after_us)
    }

    /// True if all that are here are older than that time. Rows of one time belong into one chunk: it is the key of the chunk that begins with
    /// them, which pruning may make of any row.
    pub(crate) fn ends_before(&self, at_us: i64) -> bool {
        self.rows.last().is_none_or(|row| self.at(row) < at_us)
    }

    /// Adds an observation at its place in time; among equal times the later added is the later.
    pub(crate) fn insert(&mut self, (fingerprint, observation): &Seen) {
        let at_us = observation.at.timestamp_micros();
        if self.rows.is_empty() {
            self.base_us = at_us;
        }
        let place = self.rows.partition_point(|row| self.base_us.saturating_add(row.after_us) <= at_us);
        let row =
            self.names.row(*fingerprint, observation, observation.run.to_bits(), at_us.saturating_sub(self.base_us));
        self.rows.insert(place, row);
    }

    /// Drops the observations of runs that `keep` refuses, and names that no row uses; true if any row was dropped.
    pub(crate) fn retain(&mut self, keep: impl Fn(u64) -> bool) -> bool {
        let before = self.rows.len();
        self.rows.retain(|row| keep(row.run));
        let dropped = self.rows.len() < before;
        if dropped {
            *self = self.part(0, self.rows.len());
        }
        dropped
    }

    /// Rows `from..to` as a chunk of its own.
    fn part(&self, from: usize, to: usize) -> Self {
        let mut part = Self::new(self.scope());
        for row in &self.rows[from..to] {
            let at_us = self.at(row);
            if part.rows.is_empty() {
                part.base_us = at_us;
            }
            let mut row = row.clone();
            if let Some(name) = self.names.fingerprints.get(row.fingerprint as usize) {
                row.fingerprint = position(&mut part.names.fingerprints, |known| known == name, || *name);
            }
            if let Some(name) = self.names.operators.get(row.operator as usize) {
                row.operator = position(&mut part.names.operators, |known| known == name, || name.clone());
            }
            if let Some(version) = self.names.data_versions.get(row.data_version as usize) {
                row.data_version = position(&mut part.names.data_versions, |known| known == version, || *version);
            }
            row.after_us = at_us.saturating_sub(part.base_us);
            part.rows.push(row);
        }
        part
    }

    /// Cuts into chunks of about [`CHUNK_ROWS`]; rows of the same time stay together, since that time is the chunk's key.
    pub(crate) fn split(self) -> Vec<Self> {
        if self.rows.len() <= CHUNK_MOST {
            return vec![self];
        }
        let mut parts = Vec::new();
        let mut from = 0;
        while from < self.rows.len() {
            let mut to = self.rows.len().min(from + CHUNK_ROWS);
            while to < self.rows.len() && self.at(&self.rows[to]) == self.at(&self.rows[to - 1]) {
                to += 1;
            }
            parts.push(self.part(from, to));
            from = to;
        }
        parts
    }

    /// Adds the rows of `other`, which must be later.
    pub(crate) fn extend(&mut self, other: &Self) -> Result<(), Unreadable> {
        let mut newer: Vec<Seen> = other.newest_first().collect::<Result<_, _>>()?;
        newer.reverse();
        newer.iter().for_each(|seen| self.insert(seen));
        Ok(())
    }

    /// The observations, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = Result<Seen, Unreadable>> + '_ {
        self.rows.iter().rev().map(|row| self.names.observation(row, row.run, self.at(row), &self.environment))
    }

    /// Those of one subplan, newest first.
    pub(crate) fn newest_of(&self, fingerprint: &Fingerprint) -> impl Iterator<Item = Result<Seen, Unreadable>> + '_ {
        let own = self.names.fingerprints.iter().position(|known| known == fingerprint);
        let rows = self.rows.iter().rev().filter(move |row| Some(row.fingerprint as usize) == own);
        rows.map(|row| self.names.observation(row, row.run, self.at(row), &self.environment))
    }

    /// The runs of the rows, oldest first.
    pub(crate) fn runs(&self) -> impl Iterator<Item = u64> + '_ {
        self.rows.iter().map(|row| row.run)
    }

    /// True if times ascend.
    pub(crate) fn ordered(&self) -> bool {
        self.rows.windows(2).all(|pair| pair[0].after_us <= pair[1].after_us)
    }
}

/// Observations of one run, ordered by series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recent {
    pub(crate) run: u64,
    pub(crate) at_us: i64,
    pipeline: String,
    environment: String,
    names: Names,
    rows: Vec<(Fingerprint, Row)>,
}

impl Recent {
    /// Packs observations of one run.
    pub(crate) fn new<'a>(
        run: &RunId,
        at_us: i64,
        scope: Scope<'_>,
        observed: impl IntoIterator<Item = &'a Observed>,
    ) -> Self {
        let mut names = Names::default();
        let row = |seen: &Observed| {
            let row = names.row(seen.subplan.fingerprint, &seen.observation, 0, 0);
            (seen.subplan.series(), row)
        };
        let mut rows: Vec<_> = observed.into_iter().map(row).collect();
        rows.sort_by_key(|row| row.0);
        let (pipeline, environment) = (scope.pipeline.to_owned(), scope.environment.to_owned());
        Self { run: run.to_bits(), at_us, pipeline, environment, names, rows }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Unreadable> {
        postcard::to_stdvec(self).map_err(|error| bad(&error.to_string()))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        postcard::from_bytes(bytes).map_err(|error| bad(&error.to_string()))
    }

    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope { pipeline: &self.pipeline, environment: &self.environment }
    }

    /// Observations in it.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there may be some of a series: quick to say, since they lie in order.
    pub(crate) fn spans(&self, series: &Fingerprint) -> bool {
        let ends = self.rows.first().zip(self.rows.last());
        ends.is_some_and(|(first, last)| first.0 <= *series && *series <= last.0)
    }

    /// Those of a series, the last of the run first.
    pub(crate) fn of(&self, series: &Fingerprint) -> impl Iterator<Item = Result<Seen, Unreadable>> + '_ {
        let from = self.rows.partition_point(|row| row.0 < *series);
        let to = from + self.rows[from..].partition_point(|row| row.0 == *series);
        self.rows[from..to].iter().rev().map(|row| self.seen(&row.1))
    }

    /// All with the series they belong to.
    pub(crate) fn all(&self) -> impl Iterator<Item = Result<(Fingerprint, Seen), Unreadable>> + '_ {
        self.rows.iter().map(|(series, row)| Ok((*series, self.seen(row)?)))
    }

    fn seen(&self, row: &Row) -> Result<Seen, Unreadable> {
        self.names.observation(row, self.run, self.at_us, &self.environment)
    }
}
