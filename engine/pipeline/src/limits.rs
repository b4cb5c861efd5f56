//! What ends a run or a step before it is done: the user, or a time limit.

use std::future::Future;
use std::time::{Duration, Instant};

use sparklet_core::{Error, ErrorKind, Result};
use tokio_util::sync::CancellationToken;

use crate::alarm::Alarm;

/// A time limit from a start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    until: Instant,
    length: Duration,
}

impl Limit {
    /// `length` from `start`; none where that is beyond all clocks.
    pub(crate) fn from(start: Instant, length: Duration) -> Option<Self> {
        Some(Self { until: start.checked_add(length)?, length })
    }
}

/// What may end a run.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Cancelled by the user or the caller.
    pub(crate) cancel: CancellationToken,
    /// Time limit of the run.
    pub(crate) run: Option<Limit>,
}

impl Limits {
    /// `work`'s result, unless the run is stopped or `step`'s time is over before; `work` is dropped then.
    pub(crate) async fn guard<T>(&self, step: Option<Limit>, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            stopped = self.stopped(step) => Err(stopped),
            done = work => done,
        }
    }

    /// Waits for what ends the run or the step, and says it.
    pub(crate) async fn stopped(&self, step: Option<Limit>) -> Error {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => cancelled(),
            limit = over(self.run) => timed_out("run", limit),
            limit = over(step) => timed_out("step", limit),
        }
    }

    /// What has ended the run, if anything has.
    pub(crate) fn run_is_over(&self) -> Option<Error> {
        if self.cancel.is_cancelled() {
            return Some(cancelled());
        }
        self.run.filter(|limit| Instant::now() >= limit.until).map(|limit| timed_out("run", limit))
    }
}

async fn over(limit: Option<Limit>) -> Limit {
    match limit {
        Some(limit) => {
            Alarm::at(limit.until).rung().await;
            limit
        }
        None => std::future::pending().await,
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "interrupted").with_hint("nothing of what was not finished has been published")
}

fn timed_out(what: &str, limit: Limit) -> Error {
    Error::new(ErrorKind::Timeout, format!("the {what} took longer than its time limit of {:?}", limit.length))
        .with_hint(format!("raise `timeout` of the {what}, or give it less to do"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_first_counts() {
        let limits = Limits { cancel: CancellationToken::new(), run: None };
        assert_eq!(limits.guard(None, async { Ok(1) }).await.unwrap(), 1);
        let short = Limit::from(Instant::now(), Duration::from_millis(5));
        let error = limits.guard(short, std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        assert!(error.message.contains("the step took longer than its time limit of 5ms"), "{error}");
        let limits = Limits { run: short, ..limits };
        assert!(limits.run_is_over().unwrap().message.contains("the run"));
        limits.cancel.cancel();
        let error = limits.guard(short, async { Ok(1) }).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled);
        assert_eq!(limits.run_is_over().unwrap().kind, ErrorKind::Cancelled);
    }

    #[test]
    fn endless_limits_are_none() {
        assert!(Limit::from(Instant::now(), Duration::MAX).is_none());
    }
}
