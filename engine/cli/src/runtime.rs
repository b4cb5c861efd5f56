//! The tokio runtime that the engine works on.

use std::future::Future;
use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::settings::Settings;

/// Deep plans recurse: planning in tasks needs more than the usual 2 MiB.
const STACK: usize = 8 << 20;

/// How long work that was given up may take to end; a query that does not yield ends with the process.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs `work` to its end on as many threads as there are slots.
pub fn block_on<T>(settings: &Settings, work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.workers())
        .thread_name("engine")
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start the engine's threads", error))?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(FAREWELL);
    Ok(done)
}
