//! Ends a query that waits for itself.
//!
//! Under memory pressure operators can come to wait for one another. The case that is known, exchanges of DataFusion that spill, cannot
//! arise with the files of a session (`spill_files.rs`); this is for those that are not, and for who sets
//! `datafusion.execution.max_spill_file_size_bytes`. A query that has spilled, or has had the pool nearly full, and then neither
//! counts anything nor uses the processor for [`LIMIT`] is ended with an error that names the setting. A slow source is no stall: such
//! queries are under no pressure.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::adaptive::Running;
use crate::cpu;
use crate::error::{Error, ErrorKind};
use crate::session::Session;

/// Time without any sign of life after which a query under memory pressure is ended.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Share of the pool, in percent, from which a query counts as under pressure.
const PRESSURE_PERCENT: u64 = 80;

/// Processor time, in percent of the time that passed, below which the process counts as idle.
const IDLE_PERCENT: u32 = 5;

/// Watches one running plan; polled by its stream.
pub(crate) struct StallWatch {
    running: Arc<Running>,
    session: Session,
    limit: Duration,
    tick: Interval,
    seen: u64,
    since: Instant,
    cpu: Duration,
    clock: fn() -> Duration,
}

impl StallWatch {
    /// A watch over what `running` runs. Needs a tokio runtime with its timer enabled, as the engine's own is.
    pub(crate) fn new(running: Arc<Running>, session: Session, limit: Duration) -> Self {
        let mut tick = interval((limit / 8).max(Duration::from_millis(50)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { running, session, limit, tick, seen: 0, since: Instant::now(), cpu: cpu::process(), clock: cpu::process }
    }

    /// The stream gave something.
    pub(crate) fn alive(&mut self) {
        self.since = Instant::now();
        self.cpu = (self.clock)();
    }

    /// Ready with the error once the query has stalled; wakes the task to look again.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        while self.tick.poll_tick(cx).is_ready() {
            let seen = self.running.plans().iter().fold(0u64, |sum, plan| sum.wrapping_add(signature(plan)));
            let passed = self.since.elapsed();
            let used = (self.clock)().saturating_sub(self.cpu);
            if seen != self.seen || used * 100 > passed * IDLE_PERCENT {
                self.seen = seen;
                self.alive();
            } else if passed >= self.limit && self.under_pressure() {
                return Poll::Ready(self.error());
            }
        }
        Poll::Pending
    }

    fn under_pressure(&self) -> bool {
        let memory = self.session.memory();
        memory.peak.saturating_mul(100) >= memory.limit.saturating_mul(PRESSURE_PERCENT)
            || self.running.plans().iter().any(has_spilled)
    }

    fn error(&self) -> Error {
        let message = format!(
            "the memory limit is too small for this query: its operators spilled and have waited for one another for {} s",
            self.limit.as_secs()
        );
        Error::new(ErrorKind::Resources, message).with_hint(crate::error::MEMORY_HINT)
    }
}

/// A number that changes when any operator counts anything. Times are left out: being polled takes time, even for nothing.
fn signature(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let counted = |value: &MetricValue| match value {
        MetricValue::ElapsedCompute(_)
        | MetricValue::Time { .. }
        | MetricValue::StartTimestamp(_)
        | MetricValue::EndTimestamp(_) => 0,
        other => other.as_usize() as u64,
    };
    let own = plan
        .metrics()
        .map_or(0, |metrics| metrics.iter().fold(0u64, |sum, metric| sum.wrapping_add(counted(metric.value()))));
    plan.children().into_iter().fold(own, |sum, child| sum.wrapping_add(signature(child)))
}

fn has_spilled(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.metrics().is_some_and(|m| m.spill_count().unwrap_or(0) > 0) || plan.children().into_iter().any(has_spilled)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;
    use crate::SessionConfig;

    /// What a watch says of a query that does nothing while the process uses `cpu` in all.
    async fn outcome(fill: bool, clock: fn() -> Duration) -> Option<ErrorKind> {
        let folder = tempfile::tempdir().unwrap();
        let config = SessionConfig {
            memory_limit: Some(64 << 20),
            spill_dir: folder.path().to_owned(),
            ..SessionConfig::default()
        };
        let session = Session::new(config).unwrap();
        let pool = Arc::clone(&session.context().runtime_env().memory_pool);
        let held = MemoryConsumer::new("test").register(&pool);
        if fill {
            held.try_grow(60 << 20).unwrap();
        }
        let prepared = session.sql("SELECT 1", &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        let running = Running::of(prepared.physical_plan());
        let mut watch = StallWatch::new(running, session, Duration::from_millis(400));
        watch.clock = clock;
        watch.alive();
        let stalled = std::future::poll_fn(|cx| watch.poll(cx));
        tokio::time::timeout(Duration::from_secs(2), stalled).await.ok().map(|error| error.kind)
    }

    #[tokio::test]
    async fn only_an_idle_query_under_pressure_has_stalled() {
        let idle = || Duration::from_secs(1);
        assert_eq!(outcome(true, idle).await, Some(ErrorKind::Resources));
        assert_eq!(outcome(false, idle).await, None, "no pressure");
        assert_eq!(outcome(true, wall).await, None, "the processor is used");
    }

    /// A clock that runs as fast as the wall's: a process that computes all the time.
    fn wall() -> Duration {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
    }
}
