//! Processor time of tasks, by the clock of the thread that polls them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time of the calling thread so far.
pub(crate) fn thread() -> Duration {
    duration(ClockId::ThreadCPUTime)
}

/// Processor time of the process so far.
pub(crate) fn process() -> Duration {
    duration(ClockId::ProcessCPUTime)
}

fn duration(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A future that also gives the processor time of its polls. What it waits for on other threads is not in it.
pub(crate) struct CpuTimed<F> {
    future: Pin<Box<F>>,
    spent: Duration,
}

impl<F: Future> CpuTimed<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future: Box::pin(future), spent: Duration::ZERO }
    }
}

impl<F: Future> Future for CpuTimed<F> {
    type Output = (F::Output, Duration);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let start = thread();
        let polled = self.future.as_mut().poll(cx);
        self.spent += thread().saturating_sub(start);
        polled.map(|output| (output, self.spent))
    }
}
