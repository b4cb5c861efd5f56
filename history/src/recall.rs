//! The past as a run gets it before it plans: the last runs of its pipeline, read in one moment.
//!
//! Reading them never fails and never waits for long: where the store is held, damaged, newer or slow there is no past, and a reason.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::block;
use crate::choice::{ChoiceRecord, HistoryUnused};
use crate::error::HistoryError;
use crate::evidence::{Evidence, NoEvidence, Scope, Subplan};
use crate::folder::{Current, Folder};
use crate::history::{History, HistoryOptions};
use crate::observe::{Observed, observation_of, rows_in};
use crate::record::{Fingerprint, Observation, RunRecord, StepRecord};
use crate::store::{RunFilter, Store};

/// How much of the past is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecallLimits {
    /// Most runs.
    pub runs: usize,
    /// Most bytes of records, compressed; one run is always read.
    pub bytes: u64,
    /// Time after which the run goes on without.
    pub within: Duration,
    /// Only runs that started before.
    pub before: Option<DateTime<Utc>>,
}

impl Default for RecallLimits {
    fn default() -> Self {
        Self { runs: 8, bytes: 4 << 20, within: Duration::from_millis(1500), before: None }
    }
}

/// What is remembered of a pipeline in an environment.
#[derive(Clone)]
pub struct Recalled {
    pipeline: String,
    environment: String,
    /// The last runs, newest first.
    pub runs: Vec<Arc<RunRecord>>,
    /// Observations of these runs.
    pub evidence: Arc<dyn Evidence>,
    /// Why there is nothing.
    pub unused: Option<HistoryUnused>,
    /// See [`Recalled::beyond`].
    beyond: Option<f64>,
}

/// Earlier runs of a plan that its next one is held against.
pub const LAST_RUNS: usize = 3;

/// Fewest runs with one before them from which something is said of all.
const TELLING_RUNS: usize = 30;

impl std::fmt::Debug for Recalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recalled").field("runs", &self.runs.len()).field("unused", &self.unused).finish_non_exhaustive()
    }
}

impl Recalled {
    /// Nothing, and why.
    pub fn nothing(scope: Scope<'_>, unused: HistoryUnused) -> Self {
        Self {
            pipeline: scope.pipeline.to_owned(),
            environment: scope.environment.to_owned(),
            runs: Vec::new(),
            evidence: Arc::new(NoEvidence),
            unused: Some(unused),
            beyond: None,
        }
    }

    /// The past that `runs`, newest first, are.
    pub fn of(scope: Scope<'_>, runs: Vec<RunRecord>) -> Self {
        let runs: Vec<Arc<RunRecord>> = runs.into_iter().map(Arc::new).collect();
        let unused = runs.is_empty().then(|| HistoryUnused::FirstRun { elsewhere: Vec::new() });
        Self {
            pipeline: scope.pipeline.to_owned(),
            environment: scope.environment.to_owned(),
            evidence: Arc::new(RecordedEvidence::of(&runs)),
            beyond: beyond(&runs),
            runs,
            unused,
        }
    }

    /// The factor by which the CPU time of a run lies beyond what up to [`LAST_RUNS`] runs of the same plan before it took, scaled by rows, in one
    /// of ten cases: the quantile of all runs that are here (split-conformal: Lei et al., JASA 2018). None where few tell.
    pub fn beyond(&self) -> Option<f64> {
        self.beyond
    }

    /// Whose past it is.
    pub fn scope(&self) -> Scope<'_> {
        Scope { pipeline: &self.pipeline, environment: &self.environment }
    }

    /// What earlier runs tell of step `name`, newest first; steps that were not planned are left out.
    pub fn steps<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Arc<RunRecord>, &'a StepRecord)> {
        let of_run = move |run: &'a Arc<RunRecord>| {
            let step = run.steps.iter().find(|step| step.name == name && step.plan.is_some())?;
            Some((run, step))
        };
        self.runs.iter().filter_map(of_run)
    }

    /// What earlier runs tell of the query with `template`, in whatever step, newest first.
    pub fn queries(&self, template: Fingerprint) -> impl Iterator<Item = (&Arc<RunRecord>, &StepRecord)> {
        let is_it = move |step: &&StepRecord| step.choice.as_ref().is_some_and(|c| c.template == Some(template));
        self.runs.iter().flat_map(move |run| run.steps.iter().filter(is_it).map(move |step| (run, step)))
    }

    /// The last choice of each step of all runs, newest run first.
    pub fn choices(&self) -> impl Iterator<Item = &ChoiceRecord> {
        self.runs.iter().flat_map(|run| run.steps.iter().filter_map(|step| step.choice.as_deref()))
    }
}

/// CPU time of `earlier` if it had the plan and read the rows of `now`; none where it had another plan, or tells nothing.
pub fn as_now(earlier: &ChoiceRecord, now: &ChoiceRecord) -> Option<f64> {
    let same = earlier.is_default() == now.is_default()
        && (now.is_default() || earlier.chosen.key == now.chosen.key)
        && earlier.fell_back.is_none()
        && earlier.rows_read > 0;
    let cpu_us = earlier.cpu_us.filter(|_| same)? as f64;
    Some(cpu_us * (now.rows_read.max(1) as f64 / earlier.rows_read as f64).clamp(0.1, 10.0))
}

/// See [`Recalled::beyond`]; `runs` are the newest first.
fn beyond(runs: &[Arc<RunRecord>]) -> Option<f64> {
    let mut of_steps: HashMap<&str, Vec<&ChoiceRecord>> = HashMap::new();
    for step in runs.iter().flat_map(|run| &run.steps) {
        of_steps.entry(&step.name).or_default().extend(step.choice.as_deref());
    }
    let mut factors = Vec::new();
    for choices in of_steps.values() {
        for (at, now) in choices.iter().enumerate() {
            let before = choices.get(at + 1..).unwrap_or_default();
            let before: Vec<f64> = before.iter().filter_map(|earlier| as_now(earlier, now)).take(LAST_RUNS).collect();
            let (Some(took), false) = (as_now(now, now), before.is_empty()) else { continue };
            let (least, most) = before.iter().fold((f64::INFINITY, 1.0_f64), |(a, b), us| (a.min(*us), b.max(*us)));
            factors.push((took / most).max(least / took.max(1.0)).max(1.0));
        }
    }
    factors.sort_by(f64::total_cmp);
    let at = (factors.len() as f64 * 0.9).ceil() as usize;
    factors.get(at).copied().filter(|_| factors.len() >= TELLING_RUNS)
}

/// Where a session gets its past from.
pub trait Recall: std::fmt::Debug + Send + Sync {
    /// The past of `pipeline`. Called when a first query is planned, and again when the session forgets it.
    fn recall(&self, pipeline: &str) -> Recalled;
}

/// The past in a state folder.
#[derive(Debug, Clone)]
pub struct StateFolder {
    history: History,
    environment: String,
    limits: RecallLimits,
}

impl StateFolder {
    /// The past of `environment` in the state folder of `history`.
    pub fn new(history: History, environment: impl Into<String>) -> Self {
        Self { history, environment: environment.into(), limits: RecallLimits::default() }
    }

    /// The same within other limits.
    pub fn within(self, limits: RecallLimits) -> Self {
        Self { limits, ..self }
    }
}

impl Recall for StateFolder {
    fn recall(&self, pipeline: &str) -> Recalled {
        self.history.recall(Scope { pipeline, environment: &self.environment }, &self.limits)
    }
}

impl Recall for Recalled {
    fn recall(&self, _: &str) -> Recalled {
        self.clone()
    }
}

impl History {
    /// The last runs of a pipeline in an environment. Never fails, creates and repairs nothing, and takes about
    /// [`RecallLimits::within`] at most.
    pub fn recall(&self, scope: Scope<'_>, limits: &RecallLimits) -> Recalled {
        let (folder, options) = self.parts();
        // Where there is nothing to read no thread is needed to say so.
        if !folder.root().exists() {
            return Recalled::nothing(scope, HistoryUnused::FirstRun { elsewhere: Vec::new() });
        }
        let (send, receive) = mpsc::channel();
        let (pipeline, environment) = (scope.pipeline.to_owned(), scope.environment.to_owned());
        let inner = limits.clone();
        let options = HistoryOptions {
            lock_wait: Duration::from_millis(50).min(limits.within),
            answer_within: limits.within,
            cache_bytes: options.cache_bytes.min(8 << 20),
        };
        let work = move || {
            let scope = Scope { pipeline: &pipeline, environment: &environment };
            let recalled = read(&folder, &options, scope, &inner);
            // Nobody waits any more if this fails.
            drop(send.send(recalled));
        };
        let spawned = std::thread::Builder::new().name("recall".to_owned()).spawn(work);
        if let Err(error) = spawned {
            return Recalled::nothing(scope, HistoryUnused::Unreadable { detail: error.to_string() });
        }
        match receive.recv_timeout(limits.within) {
            Ok(recalled) => recalled,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let limit_ms = u64::try_from(limits.within.as_millis()).unwrap_or(u64::MAX);
                Recalled::nothing(scope, HistoryUnused::Slow { limit_ms })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Recalled::nothing(scope, HistoryUnused::Unreadable { detail: "reading it panicked".to_owned() })
            }
        }
    }
}

fn read(folder: &Folder, options: &HistoryOptions, scope: Scope<'_>, limits: &RecallLimits) -> Recalled {
    let opened = Store::open_to_recall(folder, options);
    match opened.and_then(|store| store.map(|store| last_runs(&store, scope, limits)).transpose()) {
        Ok(Some((runs, elsewhere))) => {
            let mut recalled = Recalled::of(scope, runs);
            if recalled.runs.is_empty() {
                recalled.unused = Some(HistoryUnused::FirstRun { elsewhere });
            }
            recalled
        }
        Ok(None) => Recalled::nothing(scope, HistoryUnused::FirstRun { elsewhere: Vec::new() }),
        Err(error) => Recalled::nothing(scope, why(error)),
    }
}

fn why(error: HistoryError) -> HistoryUnused {
    match error {
        HistoryError::Locked { .. } => HistoryUnused::Locked,
        HistoryError::Damaged { detail, .. } => HistoryUnused::Damaged { detail },
        HistoryError::Newer { found, supported, .. } => HistoryUnused::Newer { found, supported },
        HistoryError::Stuck { limit, .. } => {
            HistoryUnused::Slow { limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) }
        }
        other => HistoryUnused::Unreadable { detail: other.to_string() },
    }
}

/// Records of the last runs, and the environments in which the pipeline has others.
fn last_runs(
    store: &Store,
    scope: Scope<'_>,
    limits: &RecallLimits,
) -> Result<(Vec<RunRecord>, Vec<String>), HistoryError> {
    let filter = RunFilter { pipeline: Some(scope.pipeline.to_owned()), ..RunFilter::default() };
    let mut blocks = Vec::new();
    let mut elsewhere = Vec::new();
    let mut bytes = 0;
    for (summary, size) in store.run_sizes(&filter, LOOKED_AT)? {
        if summary.environment != scope.environment {
            if !elsewhere.contains(&summary.environment) {
                elsewhere.push(summary.environment);
            }
            continue;
        }
        if limits.before.is_some_and(|before| summary.started_at >= before) {
            continue;
        }
        bytes += size;
        if blocks.len() >= limits.runs || (bytes > limits.bytes && !blocks.is_empty()) {
            break;
        }
        blocks.extend(store.block_of(summary.id.as_str()).ok());
    }
    Ok((unpacked(&blocks), elsewhere))
}

/// The records in `blocks`, unpacked side by side: most of the time of reading goes there. One that cannot be read is `history verify`'s to
/// tell.
fn unpacked(blocks: &[Vec<u8>]) -> Vec<RunRecord> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS).min(blocks.len());
    let next = AtomicUsize::new(0);
    let unpack = || {
        let mut records = Vec::new();
        while let Some((at, block)) = blocks.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
            records.extend(block::unpack_run(block).ok().map(|(record, _)| (at, record)));
        }
        records
    };
    let mut records = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(unpack)).collect();
        let mut records = unpack();
        records.extend(others.into_iter().filter_map(|thread| thread.join().ok()).flatten());
        records
    });
    records.sort_unstable_by_key(|(at, _)| *at);
    records.into_iter().map(|(_, record)| record).collect()
}

/// Threads that unpack records.
const MOST_THREADS: usize = 4;

/// Runs of a pipeline that are looked at for those of one environment.
const LOOKED_AT: usize = 1000;

impl Store {
    /// The store as it is: nothing is created, repaired or merged. None where there is none.
    fn open_to_recall(folder: &Folder, options: &HistoryOptions) -> Result<Option<Self>, HistoryError> {
        let lock = match folder.lock(options.lock_wait) {
            Ok(lock) => lock,
            Err(HistoryError::ReadOnly { .. }) => return Self::open_read_only(folder, options).map(Some),
            Err(error) => return Err(error),
        };
        if matches!(folder.current()?, Current::None) {
            return Ok(None);
        }
        let (trees, number) = Self::open_current(folder, options)?;
        Ok(Some(Self::of(trees, folder, number, options, Some(lock))))
    }
}

/// Observations of whole records, by subplan: where they are, for few of them are asked for.
#[derive(Debug, Default)]
struct RecordedEvidence {
    runs: Vec<Arc<RunRecord>>,
    /// Data versions of the runs.
    versions: Vec<Fingerprint>,
    exact: HashMap<Fingerprint, Vec<Place>>,
    templates: HashMap<Fingerprint, Vec<Place>>,
}

/// An operator of a record.
#[derive(Debug, Clone, Copy)]
struct Place {
    run: usize,
    step: usize,
    node: usize,
    rows_in: Option<u64>,
}

impl RecordedEvidence {
    fn of(runs: &[Arc<RunRecord>]) -> Self {
        let mut evidence = Self {
            runs: runs.to_vec(),
            versions: runs.iter().map(|run| run.data_version()).collect(),
            ..Self::default()
        };
        for (run, record) in runs.iter().enumerate() {
            let plans = record.steps.iter().enumerate().filter_map(|(step, of)| Some((step, of.plan.as_ref()?)));
            for (step, plan) in plans {
                for (node, (of, rows_in)) in plan.nodes.iter().zip(rows_in(plan)).enumerate() {
                    let (Some(fingerprint), Some(_)) = (of.fingerprint, of.rows) else { continue };
                    let place = Place { run, step, node, rows_in };
                    evidence.exact.entry(fingerprint).or_default().push(place);
                    if let Some(template) = of.template {
                        evidence.templates.entry(template).or_default().push(place);
                    }
                }
            }
        }
        evidence
    }

    fn at(&self, place: &Place) -> Option<Observed> {
        let record = self.runs.get(place.run)?;
        let node = record.steps.get(place.step)?.plan.as_ref()?.nodes.get(place.node)?;
        observation_of(record, *self.versions.get(place.run)?, node, place.rows_in)
    }

    fn first<'a>(&'a self, places: Option<&'a Vec<Place>>, limit: usize) -> impl Iterator<Item = Observed> + 'a {
        places.into_iter().flatten().take(limit).filter_map(move |place| self.at(place))
    }
}

impl Evidence for RecordedEvidence {
    fn by_fingerprint(&self, _: Scope<'_>, subplan: &Subplan, limit: usize) -> Vec<Observation> {
        self.first(self.exact.get(&subplan.fingerprint), limit).map(|seen| seen.observation).collect()
    }

    fn by_template(&self, _: Scope<'_>, template: &Fingerprint, limit: usize) -> Vec<(Fingerprint, Observation)> {
        let named = |seen: Observed| (seen.subplan.fingerprint, seen.observation);
        self.first(self.templates.get(template), limit).map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::PlanRole;
    use crate::record::{Fingerprint, Outcome};
    use crate::tests::sample;

    /// A run of `took`, by step: its plan (none: the default) and CPU time in micro-seconds; over `rows` rows.
    fn run(n: u64, rows: u64, took: &[(Option<u8>, u64)]) -> RunRecord {
        let step = |(at, (plan, cpu_us)): (usize, &(Option<u8>, u64))| {
            let mut choice = ChoiceRecord { rows_read: rows, cpu_us: Some(*cpu_us), ..ChoiceRecord::unknown() };
            if let Some(plan) = plan {
                (choice.role, choice.chosen.key) = (PlanRole::Adopted, Some(Fingerprint([*plan; 16])));
            }
            StepRecord {
                choice: Some(Box::new(choice)),
                ..StepRecord::unmeasured(&format!("step {at}"), Outcome::Succeeded)
            }
        };
        RunRecord { steps: took.iter().enumerate().map(step).collect(), ..sample::run(n, sample::Shape::default()) }
    }

    fn beyond(runs: Vec<RunRecord>) -> Option<f64> {
        Recalled::of(Scope { pipeline: "p", environment: "e" }, runs).beyond()
    }

    #[test]
    fn one_run_in_ten_lies_beyond() {
        let before: Vec<_> = (0..40).map(|_| (None, 1_000)).collect();
        let now: Vec<_> =
            (0..40).map(|i| (None, if i % 2 == 0 { 1_000 + 10 * i } else { 100_000 / (100 + i) })).collect();
        let factor = beyond(vec![run(2, 500, &now), run(1, 500, &before)]).unwrap();
        assert!((factor - 1.36).abs() < 0.01, "{factor}");
        // Twice the rows, twice the time.
        let twice: Vec<_> = now.iter().map(|(plan, us)| (*plan, us * 2)).collect();
        let factor = beyond(vec![run(2, 1_000, &twice), run(1, 500, &before)]).unwrap();
        assert!((factor - 1.36).abs() < 0.01, "{factor}");
        // Between what two runs took is not beyond them.
        let factor = beyond(vec![run(3, 500, &before), run(2, 500, &now), run(1, 500, &before)]).unwrap();
        assert!(factor < 1.36, "{factor}");
    }

    #[test]
    fn other_plans_and_few_runs_tell_nothing() {
        let of = |plan, us, steps: usize| vec![(plan, us); steps];
        assert_eq!(beyond(vec![run(2, 500, &of(Some(1), 9_000, 40)), run(1, 500, &of(None, 1_000, 40))]), None);
        assert_eq!(beyond(vec![run(2, 500, &of(Some(1), 9_000, 40)), run(1, 500, &of(Some(2), 1_000, 40))]), None);
        assert_eq!(beyond(vec![run(2, 500, &of(None, 1_000, 29)), run(1, 500, &of(None, 1_000, 29))]), None);
        assert_eq!(beyond(vec![run(2, 500, &of(Some(2), 1_000, 30)), run(1, 500, &of(Some(2), 1_000, 30))]), Some(1.0));
    }
}
