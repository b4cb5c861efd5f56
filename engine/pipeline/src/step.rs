//! One step of a run: planned, executed into staging, checked, published.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sparklet_core::sink::{SinkFormat, SinkSpec};
use sparklet_core::{Error, ErrorKind, PreparedQuery, Progress, Result, WriteSummary, conclude};
use sparklet_history::{CheckRecord, ErrorRecord, Outcome, OutputRecord, StepRecord};
use sparklet_optimizer::Learning;

use crate::audit::{self, Audit};
use crate::definition::{Mode, Output, Step, Target};
use crate::event::Event;
use crate::failed;
use crate::limits::Limit;
use crate::measure::{Clock, micros};
use crate::publish::{Claim, Layout, upload};
use crate::run::Running;
use crate::stage::{self, Files, Holder};

/// A step that is to be run.
pub(crate) struct Job<'a> {
    /// The step.
    pub(crate) step: &'a Step,
    /// Later steps of the run that read it.
    pub(crate) readers: usize,
    /// How it gets to its readers and its output.
    pub(crate) way: Way,
    /// The right to write its local output.
    pub(crate) claim: Option<Arc<Claim>>,
}

/// What is done with the result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// No output, no check, one reader that names it once: becomes a part of the reader's query.
    Inline,
    /// No output: computed once and kept.
    Keep,
    /// Written; checks and readers read what was written.
    Write,
    /// Kept and then written: CSV and JSON do not carry types, so checks and readers get the rows as they were computed.
    KeepAndWrite,
}

impl Way {
    /// The way for `step`, whose table is named `mentions` times by `readers` later steps.
    pub(crate) fn of(step: &Step, readers: usize, mentions: usize) -> Self {
        let text = |sink: &SinkSpec| matches!(sink.format, SinkFormat::Csv | SinkFormat::Json);
        match &step.output {
            // The plan of a reader may change while it runs.
            None if step.deterministic => Self::Keep,
            None if step.checks.is_empty() && step.timeout.is_none() && readers == 1 && mentions == 1 => Self::Inline,
            None => Self::Keep,
            Some(output) if text(&output.sink) && (readers > 0 || !step.checks.is_empty()) => Self::KeepAndWrite,
            Some(_) => Self::Write,
        }
    }
}

/// What happened so far; outlives the work when that is stopped.
#[derive(Default)]
struct Trace {
    query: Option<Arc<PreparedQuery>>,
    planning_us: u64,
    execution_us: u64,
    checks_us: u64,
    publish_us: u64,
    rows: u64,
    output: Option<OutputRecord>,
    checks: Vec<CheckRecord>,
    written: Option<WriteSummary>,
    holder: Option<Holder>,
}

/// Runs one step; whatever happens is in the record. What holds a result that later steps read goes to [`Running::keep`].
pub(crate) async fn run_step(running: &mut Running<'_>, job: &Job<'_>) -> StepRecord {
    let step = job.step;
    let (clock, started_us) = (Clock::start(), running.clock.wall_us());
    running.session.reset_peak_memory();
    let progress = Arc::new(Progress::default());
    running.tell(Event::StepStarted { step: step.name.clone(), progress: Arc::clone(&progress) });

    let limit = step.timeout.and_then(|length| Limit::from(clock.instant(), length));
    let mut trace = Trace::default();
    let staged = running.limits.guard(limit, stage_and_audit(running, job, &progress, &mut trace)).await;
    let published = match staged {
        Ok(None) => publish(running, job, limit, &mut trace).await.map(|()| None),
        other => other,
    };
    if trace.execution_us == 0 && trace.query.is_some() {
        // Stopped in the middle of it.
        trace.execution_us = clock.wall_us().saturating_sub(trace.planning_us);
    }
    let functions = trace.query.as_ref().map(|query| query.functions()).unwrap_or_default();
    let query = trace.query.take();
    let (plan, decisions, adaptations, keys) = match &query {
        Some(query) => {
            let observed = query.observe_with_texts();
            running.texts.extend(observed.texts);
            (Some(observed.plan), query.decisions().to_vec(), query.adaptations(), query.keys())
        }
        None => (None, Vec::new(), Vec::new(), Vec::new()),
    };
    let (outcome, error) = match published {
        Ok(None) => (Outcome::Succeeded, None),
        Ok(Some(blocked)) => (Outcome::CheckFailed, Some(blocked)),
        Err(error) => (outcome_of(&error), Some(error.record())),
    };
    match trace.holder.take() {
        Some(holder) if outcome == Outcome::Succeeded => running.keep(&step.name, holder),
        holder => drop(holder),
    }
    if outcome != Outcome::Succeeded {
        stage::forget(&running.session, &step.name);
        settle(running).await;
        if let Some(claim) = &job.claim {
            claim.discard();
        }
    }
    let cpu_us = clock.cpu_us();
    let choice = query.filter(|_| running.session.learning() != Learning::Off).map(|query| {
        let ran = plan.as_ref().map(|plan| query.choice_after(plan));
        let mut choice = Box::new(ran.unwrap_or_else(|| query.choice()));
        conclude(&mut choice, outcome, cpu_us, trace.execution_us);
        choice
    });
    StepRecord {
        name: step.name.clone(),
        outcome,
        started_us,
        wall_us: clock.wall_us(),
        cpu_us,
        planning_us: trace.planning_us,
        execution_us: trace.execution_us,
        checks_us: trace.checks_us,
        publish_us: trace.publish_us,
        rows: trace.rows,
        peak_memory_bytes: running.session.memory().peak,
        output: trace.output,
        checks: trace.checks,
        plan,
        decisions,
        choice,
        adaptations,
        keys,
        functions,
        error,
    }
}

/// How a step ended that failed with `error`.
pub(crate) fn outcome_of(error: &Error) -> Outcome {
    match error.kind {
        ErrorKind::Cancelled => Outcome::Cancelled,
        ErrorKind::Timeout => Outcome::TimedOut,
        _ => Outcome::Failed,
    }
}

/// Computes and checks the result. Some: a blocking check failed.
async fn stage_and_audit(
    running: &Running<'_>,
    job: &Job<'_>,
    progress: &Progress,
    trace: &mut Trace,
) -> Result<Option<ErrorRecord>> {
    let (step, session) = (job.step, &running.session);
    let start = Instant::now();
    if job.way == Way::Inline {
        stage::inline(session, step, &running.params).await?;
        trace.planning_us = micros(start.elapsed());
        trace.output = Some(intermediate("inlined", 0, 0));
        return Ok(None);
    }
    let query = Arc::new(stage::query(session, step, &running.params).await?);
    trace.planning_us = micros(start.elapsed());
    progress.follow(&query.progress());
    trace.query = Some(Arc::clone(&query));

    let start = Instant::now();
    let waiting = query.waiting();
    let executed = execute(running, job, &query, trace).await;
    waiting.done();
    trace.execution_us = micros(start.elapsed());
    executed?;

    let start = Instant::now();
    let audited = run_checks(running, step, trace).await;
    trace.checks_us = micros(start.elapsed());
    audited
}

async fn execute(running: &Running<'_>, job: &Job<'_>, query: &Arc<PreparedQuery>, trace: &mut Trace) -> Result<()> {
    let (step, session) = (job.step, &running.session);
    if matches!(job.way, Way::Keep | Way::KeepAndWrite) {
        let file = running.work.path().join(format!("{}.arrow", step.name));
        let kept = stage::keep(query, &step.name, &file).await?;
        stage::register(session, &step.name, kept.table)?;
        trace.rows = kept.rows;
        trace.output = Some(intermediate(kept.holder.name(), kept.rows, kept.bytes));
        trace.holder = Some(kept.holder);
    }
    let Some(output) = &step.output else { return Ok(()) };
    let staged = staged_path(running, job);
    let written = if job.way == Way::KeepAndWrite {
        write(&session.table(&step.name).await?.prepare().await?, &staged, output).await?
    } else {
        let written = write(query, &staged, output).await?;
        if !step.checks.is_empty() {
            let table = stage::files_table(session, &step.name, &Files::Local(staged), &output.sink, &query.schema())?;
            stage::register(session, &step.name, table)?;
        }
        written
    };
    trace.rows = written.rows;
    trace.output = Some(OutputRecord {
        location: output.location.clone(),
        format: output.sink.format.name().to_owned(),
        mode: output.mode.name().to_owned(),
        files: if output.sink.single_file { 1 } else { written.files.len() as u64 },
        rows: written.rows,
        bytes: written.bytes,
        partitions: written.partitions.clone(),
        published: false,
    });
    trace.written = Some(written);
    Ok(())
}

/// Writes the result beside its target. DataFusion's writers report a failed last write as a bug of theirs, and a full disk does
/// not say whose it was: here it is known what was written and where.
async fn write(query: &PreparedQuery, staged: &Path, output: &Output) -> Result<WriteSummary> {
    query.write(staged, &output.sink).await.map_err(|error| {
        let swallowed = error.kind == ErrorKind::Internal && error.message.contains("finalizing writes");
        // Spill files do not go through an object store, and nothing else is written through one meanwhile.
        let ours = error.message.contains("LocalFileSystem")
            || staged.file_name().is_some_and(|name| error.message.contains(name.to_string_lossy().as_ref()));
        let full = error.kind == ErrorKind::Resources && error.message.contains("no space left");
        if !(swallowed || full && ours) {
            return error;
        }
        let cause = if full { "no space left on the disk" } else { "the file system did not take all of the data" };
        let folder = staged.parent().unwrap_or(staged);
        let free = match rustix::fs::statvfs(folder) {
            Ok(disk) => format!(" ({} KiB are free at `{}`)", disk.f_bavail * disk.f_frsize / 1024, folder.display()),
            Err(_) => String::new(),
        };
        Error {
            source: error.source,
            ..Error::new(ErrorKind::Output, format!("cannot write `{}`: {cause}", output.location))
        }
        .with_hint(format!("make room on the disk and run again; what was published before is untouched{free}"))
    })
}

/// All checks of the step; only then is decided. Some: what a blocking one found.
async fn run_checks(running: &Running<'_>, step: &Step, trace: &mut Trace) -> Result<Option<ErrorRecord>> {
    let failed = failed::folder(&running.options.state, &running.id);
    let audit = Audit { session: &running.session, params: &running.params, step, failed: &failed };
    let mut blocked: Option<ErrorRecord> = None;
    for check in &step.checks {
        let record = audit.run(check).await?;
        running.tell(Event::Checked { step: step.name.clone(), check: record.clone() });
        if !record.passed {
            let said = audit::describe(&record);
            if record.blocking && blocked.is_none() {
                let hint = match &record.kept {
                    Some(path) => format!("see the failing rows in `{path}`"),
                    None => "what was published before is untouched".to_owned(),
                };
                let message = format!("{said}; nothing was published");
                blocked = Some(ErrorRecord { kind: "check".to_owned(), message, hint: Some(hint) });
            } else if !record.blocking {
                running.tell(Event::Note(format!("step `{}`: {said}", step.name)));
            }
        }
        trace.checks.push(record);
    }
    Ok(blocked)
}

/// Puts the staged result where readers see it, and registers it for later steps as they will see it.
async fn publish(running: &Running<'_>, job: &Job<'_>, limit: Option<Limit>, trace: &mut Trace) -> Result<()> {
    let (Some(output), Some(written)) = (&job.step.output, &trace.written) else { return Ok(()) };
    // Once more before the point of no return: from here to the end nothing local is interrupted.
    running.limits.guard(limit, async { Ok(()) }).await?;
    let start = Instant::now();
    let published = match &output.target {
        Target::Local(_) => publish_local(job, output, written).await,
        Target::Remote(url) => {
            upload(&running.session, &staged_path(running, job), url, running.limits.stopped(limit)).await
        }
    };
    trace.publish_us = micros(start.elapsed());
    published?;
    if let Some(record) = &mut trace.output {
        record.published = true;
    }
    if job.readers > 0
        && let Some(query) = &trace.query
        && let Some(files) = files_of_readers(running, job, output)
    {
        let table = stage::files_table(&running.session, &job.step.name, &files, &output.sink, &query.schema())?;
        stage::register(&running.session, &job.step.name, table)?;
        trace.holder = None;
    }
    Ok(())
}

async fn publish_local(job: &Job<'_>, output: &Output, written: &WriteSummary) -> Result<()> {
    let Some(claim) = &job.claim else {
        return Err(Error::new(ErrorKind::Internal, "an output that was not claimed"));
    };
    let (claim, files, rows) = (Arc::clone(claim), written.files.clone(), written.rows);
    let layout = Layout { sink: output.sink.clone(), mode: output.mode };
    // Blocking I/O, and never dropped half-way: the task runs to its end even if nobody waits for it.
    let done = tokio::task::spawn_blocking(move || claim.publish(&layout, &files, rows)).await;
    done.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, format!("publishing ended early: {e}"))))
}

/// Where later steps read an output from; none: they read the kept result. With a mode that keeps old rows a step's table is
/// the whole output, as it is for everyone else.
fn files_of_readers(running: &Running<'_>, job: &Job<'_>, output: &Output) -> Option<Files> {
    match (&output.target, output.mode) {
        (Target::Remote(_), _) if job.way == Way::Write => Some(Files::Local(staged_path(running, job))),
        (Target::Local(path), Mode::Replace) if job.way == Way::Write => Some(Files::Local(path.clone())),
        (Target::Remote(_), _) | (_, Mode::Replace) => None,
        (Target::Local(path), _) => Some(Files::Local(path.clone())),
    }
}

fn staged_path(running: &Running<'_>, job: &Job<'_>) -> PathBuf {
    match &job.claim {
        Some(claim) => claim.stage(),
        None => running.work.path().join(format!("{}.out", job.step.name)),
    }
}

/// Gives what was told to stop the time to stop, so that it does not write where is cleared up.
async fn settle(running: &Running<'_>) {
    for _ in 0..20 {
        tokio::task::yield_now().await;
        if running.session.memory().reserved <= running.kept_bytes() {
            break;
        }
        // Not a timer of tokio: none fires while every worker computes. An error here only shortens the wait.
        let _ = tokio::task::spawn_blocking(|| std::thread::sleep(std::time::Duration::from_millis(10))).await;
    }
}

fn intermediate(format: &str, rows: u64, bytes: u64) -> OutputRecord {
    OutputRecord {
        location: String::new(),
        format: format.to_owned(),
        mode: "none".to_owned(),
        files: 0,
        rows,
        bytes,
        partitions: Vec::new(),
        published: false,
    }
}
