//! One statement: planned, run with progress, its rows written as they come, its observations kept.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{SchemaRef, UInt64Type};
use arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::common::runtime::SpawnedTask;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;
use sparklet_core::{Error, ErrorKind, PreparedQuery, Session, conclude};
use sparklet_history::{Fingerprint, Outcome, OutputRecord, SourceRecord, StepRecord};
use sparklet_optimizer::Learning;
use sparklet_pipeline::alarm::Alarm;
use sparklet_pipeline::measure::{Clock, micros};
use sparklet_pipeline::{Event, units};
use sparklet_report::human;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{files, record};
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::output::rows::RowWriter;
use crate::progress::Bars;

/// Batches between the query and the output: a slow reader holds the query back.
const AHEAD: usize = 2;

/// How rows are shown and how long a statement may take.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// Format of rows.
    pub(super) format: Format,
    /// Rows that a table shows.
    pub(super) limit: Option<u64>,
    /// Progress is drawn.
    pub(super) progress: bool,
    /// Time limit.
    pub(super) timeout: Option<Duration>,
}

/// What a statement left behind.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// What is recorded of it; none for a statement that runs no plan (`SET`, `CREATE VIEW`).
    pub(super) step: Option<StepRecord>,
    /// Files that it read.
    pub(super) sources: Vec<SourceRecord>,
    /// Canonical texts of fingerprints.
    pub(super) texts: BTreeMap<Fingerprint, String>,
    /// Rows shown or written.
    pub(super) rows: Option<u64>,
}

/// What statements run in.
pub(super) struct Place<'a> {
    /// The session.
    pub(super) session: &'a Session,
    /// Where relative paths start.
    pub(super) cwd: &'a Path,
    /// Values of `$name`.
    pub(super) params: &'a BTreeMap<String, ScalarValue>,
}

/// Runs `sql`. What was done is in the first part also where the second is an error.
pub(super) async fn run(
    place: &Place<'_>,
    sql: &str,
    name: &str,
    manner: &Manner,
    limits: &Limits,
    console: &mut Console,
) -> (Done, Result) {
    let mut work = Work { place, manner, limits, done: Done::default() };
    place.session.reset_peak_memory();
    let clock = Clock::start();
    let ran = work.run(sql, name, console).await;
    let mut done = work.done;
    if let Some(step) = &mut done.step {
        step.wall_us = clock.wall_us();
        step.cpu_us = clock.cpu_us();
        step.peak_memory_bytes = place.session.memory().peak;
        step.outcome = outcome(&ran);
        if let Some(choice) = &mut step.choice {
            conclude(choice, step.outcome, step.cpu_us, step.execution_us);
        }
        if let Err(Failure::Engine(error)) = &ran {
            step.error = Some(error.record());
        }
    }
    (done, ran)
}

/// How a statement with this result ended.
fn outcome(ran: &Result) -> Outcome {
    match ran {
        Ok(()) => Outcome::Succeeded,
        Err(Failure::Interrupted | Failure::ClosedPipe) => Outcome::Cancelled,
        Err(Failure::Engine(error)) if error.kind == ErrorKind::Cancelled => Outcome::Cancelled,
        Err(Failure::Engine(error)) if error.kind == ErrorKind::Timeout => Outcome::TimedOut,
        Err(_) => Outcome::Failed,
    }
}

struct Work<'a> {
    place: &'a Place<'a>,
    manner: &'a Manner,
    limits: &'a Limits,
    done: Done,
}

impl Work<'_> {
    async fn run(&mut self, sql: &str, name: &str, console: &mut Console) -> Result {
        let Place { session, cwd, params } = *self.place;
        let planning = Instant::now();
        let planned = async {
            self.done.sources = files::register(session, sql, cwd).await?;
            let frame = session.sql(sql, params).await?;
            if defines(frame.logical_plan()) {
                return Ok::<_, Error>(None);
            }
            Ok(Some((frame.prepare().await?, frame.logical_plan().clone())))
        };
        let Some((query, logical)) = self.limits.guard(planned).await? else { return Ok(()) };
        self.done.step = Some(record::step(name, &query, planning.elapsed()));
        let execution = Instant::now();
        let ran = self.stream(&query, &logical, name, console).await;
        let observed = query.observe_with_texts();
        self.done.texts = observed.texts;
        if let Some(step) = &mut self.done.step {
            step.execution_us = micros(execution.elapsed());
            if self.place.session.learning() != Learning::Off {
                step.choice = Some(Box::new(query.choice_after(&observed.plan)));
            }
            step.plan = Some(observed.plan);
            step.adaptations = query.adaptations();
            step.keys = query.keys();
            step.functions = query.functions();
            step.rows = self.done.rows.unwrap_or_default();
            if let LogicalPlan::Copy(copy) = &logical {
                step.output = Some(OutputRecord {
                    location: copy.output_url.clone(),
                    format: copy.file_type.get_ext(),
                    mode: "replace".to_owned(),
                    files: 0,
                    rows: step.rows,
                    bytes: 0,
                    partitions: copy.partition_by.clone(),
                    published: ran.is_ok(),
                });
            }
        }
        ran
    }

    /// Runs the plan in a task of its own and writes its batches as they come.
    async fn stream(
        &mut self,
        query: &PreparedQuery,
        logical: &LogicalPlan,
        name: &str,
        console: &mut Console,
    ) -> Result {
        let waiting = query.waiting();
        let mut stream = query.stream()?;
        let schema = query.schema();
        let (send, mut batches) = mpsc::channel(AHEAD);
        let task = SpawnedTask::spawn(async move {
            while let Some(batch) = stream.next().await {
                if send.send(batch).await.is_err() {
                    break;
                }
            }
        });
        let mut bars = Some(Bars::new(console.err_look(), self.manner.progress));
        if let Some(bars) = &bars {
            bars.listener()(Event::StepStarted { step: name.to_owned(), progress: query.progress() });
        }
        let look = console.out_look();
        let mut sink = Sink::for_plan(logical, console, self.manner, schema);
        loop {
            let next = self.limits.guard(async { Ok(batches.recv().await) }).await?;
            match next {
                Some(Ok(batch)) => {
                    // Rows and bars on one terminal would write over each other.
                    if look.terminal {
                        bars.take();
                    }
                    sink.write(&batch)?;
                }
                Some(Err(error)) => {
                    drop(bars.take());
                    return Err(query.failed(error).await.into());
                }
                None => break,
            }
        }
        drop(bars);
        waiting.done();
        if let Err(panicked) = task.join().await {
            let message = format!("an operator panicked: {panicked}");
            return Err(Error::new(ErrorKind::Internal, message).into());
        }
        let rows = sink.finish()?;
        self.done.rows = Some(rows);
        if matches!(logical, LogicalPlan::Copy(_) | LogicalPlan::Dml(_)) {
            console.note(&format!("{} written", human::plural(rows, "row", "rows")));
        }
        Ok(())
    }
}

/// What may end statements before they are done.
pub(super) struct Limits {
    cancel: CancellationToken,
    alarm: Option<(Alarm, Duration)>,
}

impl Limits {
    /// The limits of a piece of work that begins now.
    pub(super) fn new(cancel: CancellationToken, timeout: Option<Duration>) -> Self {
        let alarm = timeout.and_then(|t| Some((Alarm::at(Instant::now().checked_add(t)?), t)));
        Self { cancel, alarm }
    }

    /// Runs `work` until it ends, is cancelled or its time is up.
    async fn guard<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T> {
        let time_is_up = async {
            match &self.alarm {
                Some((alarm, length)) => {
                    alarm.rung().await;
                    *length
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Failure::Interrupted),
            length = time_is_up => {
                let message = format!("the time limit of {} is over", units::format_duration(length));
                Err(Error::new(ErrorKind::Timeout, message).with_hint("raise `timeout` (`--timeout`)").into())
            }
            done = work => Ok(done?),
        }
    }
}

/// True for a statement that took effect when it was planned and has nothing to run.
fn defines(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => !empty.produce_one_row && empty.schema.fields().is_empty(),
        LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => true,
        _ => false,
    }
}

/// Where batches go.
enum Sink<'a> {
    /// Rows for the user.
    Rows(Box<RowWriter<'a>>),
    /// A plan, as text for people.
    Plan { out: &'a mut dyn Write, rows: u64 },
    /// A count of rows written elsewhere.
    Count { rows: u64 },
}

impl<'a> Sink<'a> {
    fn for_plan(plan: &LogicalPlan, console: &'a mut Console, manner: &Manner, schema: SchemaRef) -> Self {
        let look = console.out_look();
        match plan {
            LogicalPlan::Copy(_) | LogicalPlan::Dml(_) => Self::Count { rows: 0 },
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) if manner.format == Format::Table => {
                Self::Plan { out: console.out(), rows: 0 }
            }
            _ => Self::Rows(Box::new(RowWriter::new(console.out(), look, manner.format, schema, manner.limit))),
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result {
        match self {
            Self::Rows(writer) => writer.write(batch)?,
            Self::Count { rows } => {
                let counts = batch.columns().first().and_then(|c| c.as_primitive_opt::<UInt64Type>());
                *rows += counts.map_or(0, |c| c.iter().flatten().sum::<u64>());
            }
            Self::Plan { out, rows } => {
                *rows += batch.num_rows() as u64;
                let text = |column: usize, row: usize| {
                    let texts = batch.columns().get(column)?.as_string_opt::<i32>()?;
                    Some(texts.value(row).to_owned())
                };
                for row in 0..batch.num_rows() {
                    let kind = text(0, row).unwrap_or_default().replace('_', " ");
                    writeln!(out, "{kind}:\n{}\n", text(1, row).unwrap_or_default().trim_end())?;
                }
            }
        }
        Ok(())
    }

    /// Ends the output and returns how many rows there were.
    fn finish(self) -> Result<u64> {
        match self {
            Self::Rows(writer) => writer.finish().map(|written| written.rows),
            Self::Plan { out, rows } => {
                out.flush()?;
                Ok(rows)
            }
            Self::Count { rows } => Ok(rows),
        }
    }
}
