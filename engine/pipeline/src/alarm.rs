//! A clock that rings whatever the engine does.
//!
//! A timer of tokio is served by the runtime's own workers: while each of them computes and none yields (a large cross join does
//! not, for minutes), no timer fires. An alarm has a thread of its own.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// Rings once, at a moment; dropping it ends its thread.
#[derive(Debug)]
pub struct Alarm {
    bell: CancellationToken,
    _alive: Sender<()>,
}

impl Alarm {
    /// An alarm that rings at `until`, or at once where that has passed.
    pub fn at(until: Instant) -> Self {
        let bell = CancellationToken::new();
        let (alive, gone) = mpsc::channel::<()>();
        let ring = bell.clone();
        let wait = move || {
            let left = until.saturating_duration_since(Instant::now());
            if gone.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                ring.cancel();
            }
        };
        if std::thread::Builder::new().name("alarm".to_owned()).spawn(wait).is_err()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // No thread to be had: a timer that may come late is better than none.
            let ring = bell.clone();
            runtime.spawn(async move {
                tokio::time::sleep_until(until.into()).await;
                ring.cancel();
            });
        }
        Self { bell, _alive: alive }
    }

    /// Waits until it rings; at once if it has.
    pub async fn rung(&self) {
        self.bell.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_rings_while_no_timer_is_served() {
        let start = Instant::now();
        let alarm = Alarm::at(start + Duration::from_millis(20));
        alarm.rung().await;
        assert!(start.elapsed() >= Duration::from_millis(20));
        alarm.rung().await;
        Alarm::at(start).rung().await;
    }

    #[test]
    fn a_busy_runtime_does_not_hold_it_back() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        runtime.spawn(async move {
            while !seen.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let rang = runtime.block_on(async {
            let alarm = Alarm::at(Instant::now() + Duration::from_millis(10));
            alarm.rung().await;
            stop.swap(true, Ordering::Relaxed)
        });
        assert!(!rang, "the worker was busy until the alarm rang");
    }
}
