//! Runs a pipeline: steps in order, each staged, checked, published.
//!
//! Before anything runs the definition is bound to its sources and all outputs are claimed: what is wrong with either stops the
//! run there. A step that fails, is blocked by a check or takes too long stops those that read it; others still run, so that one
//! bad source costs no more than it must. The history is read once, before the first step is planned, through
//! [`SessionConfig::past`]; a run does not write it: the caller remembers the record when the results are out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use sparklet_core::{Error, ErrorKind, Session, SessionConfig};
use sparklet_history::{
    ErrorRecord, Fingerprint, Outcome, RECORD_VERSION, RunId, RunRecord, SettingRecord, SourceRecord, StepRecord,
};
use tokio_util::sync::CancellationToken;

use crate::check::{self, Depth};
use crate::definition::{Pipeline, Step, Target};
use crate::diagnostic::Diagnostic;
use crate::event::Event;
use crate::failed;
use crate::jobs::{Route, routes};
use crate::limits::{Limit, Limits};
use crate::lock::{Attempt, LockFile, Owner};
use crate::measure::{self, Clock, peak_rss_bytes};
use crate::params::bind_params;
use crate::publish::{Claim, Disk, Layout, Place};
use crate::recover::{WorkFolder, recover};
use crate::select::{is_published, select};
use crate::sql_refs::Syntax;
use crate::stage::{self, Holder};
use crate::step::{Job, outcome_of, run_step};

#[cfg(test)]
mod kill;
#[cfg(test)]
mod tests;

/// How to run.
#[derive(Clone)]
pub struct RunOptions {
    /// Settings of the session (memory, slots, spill folder, DataFusion options).
    pub session: SessionConfig,
    /// Values of run parameters, as text (`--param day=2013-02-01`).
    pub params: BTreeMap<String, String>,
    /// Steps to run: `name`, `name+` (and what reads it), `+name` (and what it reads), `+name+`, several separated by commas; none: all.
    pub select: Option<String>,
    /// Time limit of the run; overrides the definition's.
    pub timeout: Option<Duration>,
    /// Environment that the run is remembered under.
    pub environment: String,
    /// The state folder (`.sparklet`): work files of runs live in `work/` in it, locks in `locks/`.
    pub state: PathBuf,
    /// Settings not at their default, for the record.
    pub settings: BTreeMap<String, SettingRecord>,
    /// How long rows that failed a check are kept in `failed/` of the state folder.
    pub failed_rows: failed::Retention,
    /// Told of everything that happens; must not block.
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
    /// Ends the run when cancelled: everything is stopped and cleaned up, then the record is returned.
    pub cancel: CancellationToken,
}

/// A run that has ended, in whatever way.
#[derive(Debug, Clone)]
pub struct Finished {
    /// What it leaves behind.
    pub record: RunRecord,
    /// Canonical texts of the fingerprints in the record's plans.
    pub texts: BTreeMap<Fingerprint, String>,
}

/// Runs `pipeline`. Errors are definition errors found before anything ran; what fails later is in the record.
///
/// # Errors
/// A bad parameter or selection, a source or a query that does not fit, a state folder that cannot be written, or another run of
/// the same pipeline that is going on (code `busy`).
pub async fn run(pipeline: &Pipeline, options: &RunOptions) -> Result<RunRecord, Vec<Diagnostic>> {
    Ok(run_with_texts(pipeline, options).await?.record)
}

/// As [`run`]; returns the texts of the record's fingerprints too.
///
/// # Errors
/// As [`run`].
pub async fn run_with_texts(pipeline: &Pipeline, options: &RunOptions) -> Result<Finished, Vec<Diagnostic>> {
    let started_at = Utc::now();
    let clock = Clock::start();
    let params = bind_params(pipeline, &options.params)?;
    let id = RunId::random();
    let owner = Owner::here(id.as_str(), &pipeline.name);
    let _lock = lock_pipeline(pipeline, options, &owner)?;
    let work = WorkFolder::create(&options.state, &owner).map_err(|e| vec![diagnostic("state", e)])?;
    let left = recover(&options.state, &owner);
    let selection = Selection::of(pipeline, options.select.as_deref())?;

    let config = SessionConfig { pipeline: pipeline.name.clone(), ..options.session.clone() };
    let session = Session::new(config).map_err(|e| vec![diagnostic("setting", e)])?;
    session.recall_ahead();
    let limit = options.timeout.or(pipeline.timeout).and_then(|length| Limit::from(clock.instant(), length));
    let limits = Limits { cancel: options.cancel.clone(), run: limit };
    let mut running = Running {
        pipeline,
        options,
        id,
        session,
        params,
        limits,
        clock,
        work,
        kept: BTreeMap::new(),
        texts: BTreeMap::new(),
    };
    let bound = running.bind(&selection).await?;
    recall(&running.session).await;
    running.tell(Event::Started {
        run: running.id.clone(),
        steps: selection.run.iter().map(|s| s.name.clone()).collect(),
    });
    let mut notes = bound.notes;
    notes.extend(left.into_iter().map(|error| error.message));
    notes.extend(pipeline.later.iter().map(|section| format!("`{section}` is checked, but has no effect yet")));
    for note in &notes {
        running.tell(Event::Note(note.clone()));
    }
    let steps = match bound.stopped {
        Some(error) => Steps { records: skipped(&selection.run), error: Some(error) },
        None => match running.claim(&selection.run, &owner) {
            Ok(claims) => running.run_steps(&selection.run, &claims).await,
            Err(failed) => not_started(&selection.run, &failed),
        },
    };
    let record = running.record(started_at, bound.sources, steps, notes);
    running.tell(Event::Finished { outcome: record.outcome });
    // The results are out: what cannot be removed now, the next run tries again.
    if let Err(error) = failed::prune(&options.state, &options.failed_rows, SystemTime::now()) {
        tracing::warn!(%error, "old failing rows are not removed");
    }
    let texts = std::mem::take(&mut running.texts);
    Ok(Finished { record, texts })
}

/// Waits for what is remembered of the pipeline, a moment; a run never waits long for it, and never fails for it.
async fn recall(session: &Session) {
    let session = session.clone();
    // Nothing is remembered if this fails, which planning finds out for itself.
    drop(tokio::task::spawn_blocking(move || session.recalled()).await);
}

/// A run that is going on.
pub(crate) struct Running<'a> {
    pipeline: &'a Pipeline,
    /// How to run.
    pub(crate) options: &'a RunOptions,
    /// Name of the run.
    pub(crate) id: RunId,
    /// Where queries run.
    pub(crate) session: Session,
    /// Values of run parameters.
    pub(crate) params: BTreeMap<String, ScalarValue>,
    /// What may stop it.
    pub(crate) limits: Limits,
    /// Since its start.
    pub(crate) clock: Clock,
    /// Its own folder.
    pub(crate) work: WorkFolder,
    kept: BTreeMap<String, Holder>,
    /// Canonical texts of fingerprints.
    pub(crate) texts: BTreeMap<Fingerprint, String>,
}

/// Steps that have ended, and what ended the run before its end.
struct Steps {
    records: Vec<StepRecord>,
    error: Option<Error>,
}

/// Steps that a run is about, in order.
struct Selection<'a> {
    /// Steps that run.
    run: Vec<&'a Step>,
    /// Steps whose published outputs are read instead.
    published: Vec<&'a Step>,
}

impl<'a> Selection<'a> {
    fn of(pipeline: &'a Pipeline, text: Option<&str>) -> Result<Self, Vec<Diagnostic>> {
        let names = select(pipeline, text, &is_published)?;
        let steps = |names: &[String]| pipeline.steps.iter().filter(|step| names.contains(&step.name)).collect();
        Ok(Self { run: steps(&names.run), published: steps(&names.published) })
    }
}

/// What binding found.
struct Bound {
    sources: Vec<SourceRecord>,
    notes: Vec<String>,
    /// The run was stopped meanwhile.
    stopped: Option<Error>,
}

impl Running<'_> {
    /// Registers sources, and published outputs of steps that are not run; finds everything that is wrong with the definition.
    async fn bind(&self, selection: &Selection<'_>) -> Result<Bound, Vec<Diagnostic>> {
        let names: Vec<String> = selection.run.iter().map(|s| s.name.clone()).collect();
        let only = (names.len() < self.pipeline.steps.len()).then_some(names.as_slice());
        let binding = check::bind(self.pipeline, &self.session, &self.params, only, Depth::Logical);
        let bound = match self.limits.guard(None, async { Ok(binding.await) }).await {
            Ok(bound) => bound?,
            Err(stopped) => return Ok(Bound { sources: Vec::new(), notes: Vec::new(), stopped: Some(stopped) }),
        };
        let mut errors = Vec::new();
        for step in &selection.published {
            let schema = bound.steps.iter().find(|s| s.name == step.name).map(|s| &s.schema);
            let registered = match (schema, &step.output) {
                (Some(schema), Some(output)) => stage::published_table(&self.session, step, output, schema)
                    .await
                    .and_then(|table| stage::register(&self.session, &step.name, table)),
                _ => Err(Error::new(ErrorKind::Internal, format!("step `{}` was not bound", step.name))),
            };
            errors.extend(registered.err().map(|e| diagnostic("not-published", e)));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let notes = bound.warnings.into_iter().map(|d| d.message).collect();
        Ok(Bound { sources: bound.sources, notes, stopped: None })
    }

    /// Tells of something that happened.
    pub(crate) fn tell(&self, event: Event) {
        (self.options.events)(event);
    }

    /// Keeps what holds the result of `step` until no one reads it any more.
    pub(crate) fn keep(&mut self, step: &str, holder: Holder) {
        self.kept.insert(step.to_owned(), holder);
    }

    /// Memory that results of earlier steps hold in the pool.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept.values().map(Holder::reserved_bytes).sum()
    }

    /// Claims the local outputs of `steps`; on an error of any of them none is kept.
    fn claim(&self, steps: &[&Step], owner: &Owner) -> Result<Vec<Option<Arc<Claim>>>, BTreeMap<String, Error>> {
        let mut failed = BTreeMap::new();
        let targets = steps.iter().filter_map(|step| match step.output.as_ref().map(|o| &o.target) {
            Some(Target::Local(path)) => Some((step.name.as_str(), path)),
            _ => None,
        });
        let mut places = Vec::new();
        for (name, path) in targets {
            match Place::resolve(path) {
                Ok(place) => places.push(place),
                Err(error) => drop(failed.insert(name.to_owned(), error)),
            }
        }
        if let Err(error) = self.work.record_targets(&places) {
            let first = steps.first().map(|s| s.name.clone()).unwrap_or_default();
            failed.insert(first, error);
        }
        if !failed.is_empty() {
            return Err(failed);
        }
        let mut claims = Vec::new();
        for step in steps {
            let claim = match &step.output {
                Some(output) => match &output.target {
                    Target::Local(path) => {
                        let layout = Layout { sink: output.sink.clone(), mode: output.mode };
                        let claimed = Claim::take(&Disk::default(), path, owner);
                        claimed.and_then(|claim| layout.inspect(claim.place()).map(|_| Some(Arc::new(claim))))
                    }
                    Target::Remote(_) if output.sink.single_file => Ok(None),
                    Target::Remote(url) => Err(Error::new(
                        ErrorKind::Output,
                        format!(
                            "the output `{url}` is a folder, which cannot be published in one step on an object store"
                        ),
                    )
                    .with_hint("write one file there: end the path in `.parquet`, and leave `partition_by` out")),
                },
                None => Ok(None),
            };
            match claim {
                Ok(claim) => claims.push(claim),
                Err(error) => drop(failed.insert(step.name.clone(), error)),
            }
        }
        if failed.is_empty() { Ok(claims) } else { Err(failed) }
    }

    /// Claims are held until the last step has ended: later steps read what was published.
    async fn run_steps(&mut self, steps: &[&Step], claims: &[Option<Arc<Claim>>]) -> Steps {
        let routes = routes(steps, &Syntax::of(&self.session));
        let mut records: Vec<StepRecord> = Vec::with_capacity(steps.len());
        for (i, ((step, route), claim)) in steps.iter().zip(&routes).zip(claims).enumerate() {
            let ready = route.reads.iter().all(|&read| records[read].outcome == Outcome::Succeeded);
            if let Some(error) = self.limits.run_is_over() {
                for record in skipped(&steps[i..]) {
                    self.tell(Event::StepFinished { step: Box::new(record.clone()) });
                    records.push(record);
                }
                return Steps { records, error: Some(error) };
            }
            let record = if ready {
                let job = Job { step, readers: route.readers, way: route.way, claim: claim.clone() };
                run_step(self, &job).await
            } else {
                skipped_step(step)
            };
            self.tell(Event::StepFinished { step: Box::new(record.clone()) });
            records.push(record);
            self.forget(steps, &routes, i);
        }
        let last = records.last().map(|r| r.outcome);
        let stopped = matches!(last, Some(Outcome::Cancelled | Outcome::TimedOut));
        let error = if stopped { self.limits.run_is_over() } else { None };
        Steps { records, error }
    }

    /// Gives back what results hold that no one reads after step `now`.
    fn forget(&mut self, steps: &[&Step], routes: &[Route], now: usize) {
        for (step, route) in steps.iter().zip(routes) {
            if route.needed_until == now
                && let Some(holder) = self.kept.remove(&step.name)
            {
                stage::forget(&self.session, &step.name);
                drop(holder);
            }
        }
    }

    fn record(
        &self,
        started_at: DateTime<Utc>,
        sources: Vec<SourceRecord>,
        steps: Steps,
        notes: Vec<String>,
    ) -> RunRecord {
        let memory = self.session.memory();
        let peak = steps.records.iter().map(|s| s.peak_memory_bytes).max().unwrap_or_default().max(memory.peak);
        let (outcome, error) = verdict(&steps);
        RunRecord {
            version: RECORD_VERSION,
            id: self.id.clone(),
            pipeline: self.pipeline.name.clone(),
            environment: self.options.environment.clone(),
            started_at,
            outcome,
            wall_us: self.clock.wall_us(),
            cpu_us: self.clock.cpu_us(),
            peak_memory_bytes: peak,
            peak_rss_bytes: peak_rss_bytes(),
            engine: measure::engine(),
            machine: measure::machine(),
            settings: self.options.settings.clone(),
            params: self.params.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
            slots: u32::try_from(self.session.slots()).unwrap_or(u32::MAX),
            memory_limit_bytes: memory.limit,
            code_version: code_version(self.pipeline),
            sources,
            steps: steps.records,
            notes,
            error,
        }
    }
}

/// Hash of the definition and of its SQL files: changes when the code changes, and only then.
pub fn code_version(pipeline: &Pipeline) -> Fingerprint {
    let mut texts: Vec<&str> = vec![&pipeline.text];
    let files: BTreeSet<(&std::path::Path, &str)> =
        pipeline.steps.iter().map(|step| (step.sql.file.as_path(), &*step.sql.file_text)).collect();
    texts.extend(files.into_iter().filter(|(file, _)| *file != pipeline.file).map(|(_, text)| text));
    // With their lengths: moving text from one file to the next is a change.
    Fingerprint::of(&texts.iter().map(|text| format!("{}:{text}", text.len())).collect::<String>())
}

fn lock_pipeline(pipeline: &Pipeline, options: &RunOptions, owner: &Owner) -> Result<LockFile, Vec<Diagnostic>> {
    let locks = options.state.join("locks");
    let failed = |e: std::io::Error| {
        let error = crate::publish::unwritable(&locks, "cannot lock the pipeline in", &e);
        let cause = error.hint.as_deref().map(|hint| format!("{hint}; or ")).unwrap_or_default();
        let hint = format!("{cause}set `state` (`--state`, `SPARKLET_STATE`) to a folder that can be written");
        vec![diagnostic("state", error.with_hint(hint))]
    };
    std::fs::create_dir_all(&locks).map_err(failed)?;
    match LockFile::try_acquire(&locks.join(format!("{}.lock", pipeline.name)), owner).map_err(failed)? {
        Attempt::Held(lock) => Ok(lock),
        Attempt::Busy(other) => {
            let who = other.map(|o| format!(": run `{}` (process {})", o.run, o.pid)).unwrap_or_default();
            let message = format!("another run of `{}` is going on{who}", pipeline.name);
            Err(vec![Diagnostic::error("busy", message).hint("wait until it has ended, or stop it")])
        }
    }
}

fn diagnostic(code: &'static str, error: Error) -> Diagnostic {
    Diagnostic::error(code, error.message).maybe_hint(error.hint)
}

/// How the run ended, and why if not well.
fn verdict(steps: &Steps) -> (Outcome, Option<ErrorRecord>) {
    if let Some(error) = &steps.error {
        return (outcome_of(error), Some(error.record()));
    }
    // The worst of what happened, and the first step where it did.
    for outcome in [Outcome::Failed, Outcome::Cancelled, Outcome::TimedOut, Outcome::CheckFailed] {
        if let Some(step) = steps.records.iter().find(|step| step.outcome == outcome) {
            let error = step.error.clone().map(|mut error| {
                error.message = format!("step `{}`: {}", step.name, error.message);
                error
            });
            return (outcome, error);
        }
    }
    (Outcome::Succeeded, None)
}

/// Outputs that cannot be written stop the run before its first step.
fn not_started(steps: &[&Step], failed: &BTreeMap<String, Error>) -> Steps {
    let records = steps.iter().map(|step| {
        let mut record = skipped_step(step);
        if let Some(error) = failed.get(&step.name) {
            record.outcome = Outcome::Failed;
            record.error = Some(error.record());
        }
        record
    });
    Steps { records: records.collect(), error: None }
}

fn skipped(steps: &[&Step]) -> Vec<StepRecord> {
    steps.iter().map(|step| skipped_step(step)).collect()
}

fn skipped_step(step: &Step) -> StepRecord {
    StepRecord::unmeasured(&step.name, Outcome::Skipped)
}
