//! Ctrl-C and SIGTERM: the first ends the work cleanly, the second ends the process at once.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::exit;

/// Listens for signals from its creation to the end of the process.
#[derive(Debug, Clone)]
pub struct Interrupts {
    current: Arc<Mutex<CancellationToken>>,
}

impl Interrupts {
    /// Starts to listen. Without it a signal ends the process as usual.
    ///
    /// The listener has a thread and a runtime of its own: it answers also while every worker of the engine computes.
    pub fn listen() -> std::io::Result<Self> {
        let interrupts = Self { current: Arc::new(Mutex::new(CancellationToken::new())) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let heard = interrupts.clone();
        let listener = {
            let _inside = runtime.enter();
            Signals::new()?
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let mut signals = listener;
                while signals.next().await {
                    heard.signal();
                }
            });
        })?;
        Ok(interrupts)
    }

    /// A token for the next piece of work; signals go to the newest token.
    pub fn next_token(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = token.clone();
        token
    }

    fn signal(&self) {
        let token = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if token.is_cancelled() {
            // Clean-up takes too long for whoever waits; the next run cleans up what is left.
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
        token.cancel();
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> bool {
        tokio::select! {
            heard = self.interrupt.recv() => heard.is_some(),
            heard = self.terminate.recv() => heard.is_some(),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> bool {
        tokio::signal::ctrl_c().await.is_ok()
    }
}
