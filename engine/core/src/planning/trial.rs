//! A plan on trial, and the default that takes over.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::exec_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use datafusion::physical_plan::EmptyRecordBatchStream;
use futures::Stream;
use sparklet_history::{FallBackReason, FellBack};
use tokio::time::{Sleep, sleep};

use crate::cpu;

/// What became of a trial.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict(Arc<Mutex<Option<FellBack>>>);

impl Verdict {
    /// The default took over, or has to.
    pub(crate) fn fell_back(&self) -> Option<FellBack> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, fell: FellBack) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fell);
    }
}

/// Starts the default.
pub(crate) type Default = Box<dyn FnOnce() -> Result<SendableRecordBatchStream> + Send>;

/// What a plan on trial may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Wall time.
    pub(crate) wall: Duration,
    /// CPU time of the process.
    pub(crate) cpu: Duration,
}

impl Limits {
    /// How often it is looked at: a trial that is too long by this is noticed.
    fn tick(&self) -> Duration {
        (self.wall.min(self.cpu) / 16).clamp(Duration::from_millis(1), Duration::from_secs(1))
    }
}

/// A stream of a plan on trial. Until it has given its first batch the default takes over where it fails or its time is up. After that
/// it is left alone, or, where nobody sees what was given, ends with an error, and whoever hides it begins again.
pub(crate) struct TrialStream {
    stream: SendableRecordBatchStream,
    /// Gone once it cannot take over any more.
    default: Option<Default>,
    hidden: bool,
    released: bool,
    over: bool,
    limits: Limits,
    alarm: Pin<Box<Sleep>>,
    began: Instant,
    cpu: Duration,
    verdict: Verdict,
}

impl TrialStream {
    /// `stream` may take what `limits` say. With `hidden` what it gives is not seen before its end.
    pub(crate) fn new(
        stream: SendableRecordBatchStream,
        default: Default,
        limits: Limits,
        hidden: bool,
        verdict: Verdict,
    ) -> Self {
        Self {
            stream,
            default: Some(default),
            hidden,
            released: false,
            over: false,
            limits,
            alarm: Box::pin(sleep(limits.tick())),
            began: Instant::now(),
            cpu: cpu::process(),
            verdict,
        }
    }

    /// The limit that is passed, if one is; else it is looked at again later.
    fn passed(&mut self, cx: &mut Context<'_>) -> Option<Duration> {
        let mut ticked = false;
        while self.alarm.as_mut().poll(cx).is_ready() {
            ticked = true;
            self.alarm.set(sleep(self.limits.tick()));
        }
        let Limits { wall, cpu } = self.limits;
        if self.began.elapsed() >= wall {
            return Some(wall);
        }
        // The clock of the process is a call of the system: not for each batch.
        (ticked && cpu::process().saturating_sub(self.cpu) >= cpu).then_some(cpu)
    }

    /// The default takes over; an error where it cannot, because rows are out already.
    fn give_up(&mut self, because: FallBackReason) -> Result<()> {
        self.over = true;
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        self.verdict.set(FellBack {
            after_us: micros(self.began.elapsed()),
            lost_us: micros(cpu::process().saturating_sub(self.cpu)),
            because,
        });
        // The trial ends before the default begins.
        self.stream = Box::pin(EmptyRecordBatchStream::new(self.stream.schema()));
        match self.default.take().filter(|_| !self.released) {
            Some(default) => {
                self.stream = default()?;
                Ok(())
            }
            None => Err(exec_datafusion_err!("a plan on trial was given up")),
        }
    }
}

impl Stream for TrialStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let watched = !self.over && (self.hidden || !self.released);
            if watched && let Some(limit) = self.passed(cx) {
                let limit_us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
                if let Err(error) = self.give_up(FallBackReason::Deadline { limit_us }) {
                    return Poll::Ready(Some(Err(error)));
                }
                continue;
            }
            match self.stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(Err(error))) if watched => {
                    let because = match error.find_root() {
                        DataFusionError::ResourcesExhausted(_) => FallBackReason::OutOfMemory,
                        other => FallBackReason::Failed { message: other.strip_backtrace() },
                    };
                    if let Err(error) = self.give_up(because) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Poll::Ready(Some(Ok(batch))) => {
                    self.released = true;
                    return Poll::Ready(Some(Ok(batch)));
                }
                // Its end counts as the release of all that it has.
                Poll::Ready(None) => {
                    self.over = true;
                    return Poll::Ready(None);
                }
                other => return other,
            }
        }
    }
}

impl RecordBatchStream for TrialStream {
    fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }
}
