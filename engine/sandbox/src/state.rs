//! What the host keeps for each instance: how much memory it may have, what it has said.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use crate::error::Cause;
use crate::host::TABLE_ELEMENTS;
use crate::limits::Limits;
use crate::scope::Owner;

/// Longest message of a guest in bytes.
pub(crate) const MAX_MESSAGE: usize = 4 << 10;

/// Most that a guest may write to its log in one query, in bytes.
const MAX_LOG: usize = 16 << 10;

/// Data of a store.
pub(crate) struct State {
    limits: Limits,
    owner: Owner,
    /// When the time of the call that is going on is up; none: never.
    until: Option<Instant>,
    reservation: MemoryReservation,
    /// Bytes of the guest's own memories.
    guest_bytes: usize,
    /// The host makes room in a memory of its own: charged to the pool, but not to the guest.
    for_host: bool,
    /// Why the last growth was refused.
    pub(crate) refused: Option<Cause>,
    /// What the guest said as it failed (`sparklet1.fail`, standard error, `proc_exit`).
    pub(crate) failure: Option<String>,
    /// Bytes of log so far.
    logged: usize,
    /// State of the generator behind `random_get`: the same numbers for every instance.
    pub(crate) random: u64,
    /// What was written to standard error, its end.
    pub(crate) stderr: Vec<u8>,
    module: Arc<str>,
}

impl State {
    /// The state of an instance of `module` that works for `owner`.
    pub(crate) fn new(module: &Arc<str>, limits: &Limits, owner: &Owner) -> Self {
        let consumer = MemoryConsumer::new(format!("functions of {module}"));
        Self {
            limits: limits.clone(),
            owner: owner.clone(),
            until: None,
            reservation: consumer.register(&owner.pool),
            guest_bytes: 0,
            for_host: false,
            refused: None,
            failure: None,
            logged: 0,
            random: 0x9E37_79B9_7F4A_7C15,
            stderr: Vec::new(),
            module: Arc::clone(module),
        }
    }

    /// Bytes that all memories of the store have.
    pub(crate) fn bytes(&self) -> usize {
        self.reservation.size()
    }

    /// Takes one line of log; what is too much is dropped.
    pub(crate) fn log(&mut self, level: i32, text: &str) {
        if self.logged + text.len() > MAX_LOG {
            if self.logged <= MAX_LOG {
                tracing::warn!(module = %self.module, "the guest logs too much: the rest is dropped");
                self.logged = MAX_LOG + 1;
            }
            return;
        }
        self.logged += text.len().max(16);
        match level {
            i32::MIN..=0 => tracing::error!(module = %self.module, "{text}"),
            1 => tracing::warn!(module = %self.module, "{text}"),
            2 => tracing::info!(module = %self.module, "{text}"),
            _ => tracing::debug!(module = %self.module, "{text}"),
        }
    }

    /// True if further logging is dropped.
    pub(crate) fn log_is_full(&self) -> bool {
        self.logged > MAX_LOG
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current);
        if !self.for_host {
            let asked = self.guest_bytes.saturating_add(more);
            if asked > self.limits.memory {
                self.refused = Some(Cause::Memory { asked: asked as u64, limit: self.limits.memory as u64 });
                return Ok(false);
            }
        }
        if let Err(error) = self.reservation.try_grow(more) {
            let text = error.strip_backtrace();
            let last = text.rsplit("Error: ").next().unwrap_or(&text);
            self.refused = Some(Cause::Pool(last.lines().next().unwrap_or_default().to_owned()));
            return Ok(false);
        }
        if !self.for_host {
            self.guest_bytes += more;
        }
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        Ok(())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            self.refused =
                Some(Cause::Contract(format!("it wants a table of {desired} elements, {TABLE_ELEMENTS} are allowed")));
            return Ok(false);
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        1_000
    }
}

/// A store with its limits set; the clock runs as soon as something is called in it.
pub(crate) fn store(engine: &wasmtime::Engine, state: State) -> Result<Store<State>, Cause> {
    let fuel = state.limits.fuel;
    let timeout = state.limits.timeout;
    let mut store = Store::new(engine, state);
    store.limiter(|state| state);
    // Looked at in each tick.
    store.epoch_deadline_callback(|mut context| {
        let state = context.data_mut();
        let over = state.until.is_some_and(|until| Instant::now() >= until);
        Ok(if over || state.owner.is_cancelled() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
    });
    arm(&mut store, timeout, fuel)?;
    Ok(store)
}

/// Starts the time of a call.
pub(crate) fn arm(store: &mut Store<State>, timeout: Duration, fuel: Option<u64>) -> Result<(), Cause> {
    store.set_epoch_deadline(1);
    store.data_mut().until = Instant::now().checked_add(timeout);
    if let Some(fuel) = fuel {
        store.set_fuel(fuel).map_err(|e| Cause::Internal(e.to_string()))?;
    }
    store.data_mut().refused = None;
    store.data_mut().failure = None;
    Ok(())
}

/// Grows `memory` by `pages` for the host's own use.
pub(crate) fn grow_for_host(store: &mut Store<State>, memory: wasmtime::Memory, pages: u64) -> Result<(), Cause> {
    store.data_mut().for_host = true;
    let grown = memory.grow(&mut *store, pages);
    store.data_mut().for_host = false;
    grown.map(drop).map_err(|e| store.data_mut().refused.take().unwrap_or_else(|| Cause::Internal(e.to_string())))
}

/// Runs `make` such that what it allocates is the host's.
pub(crate) fn as_host<T>(store: &mut Store<State>, make: impl FnOnce(&mut Store<State>) -> T) -> T {
    store.data_mut().for_host = true;
    let made = make(store);
    store.data_mut().for_host = false;
    made
}

/// Why a call ended: from the engine's error and what the store knows.
pub(crate) fn cause_of(error: &wasmtime::Error, store: &mut Store<State>) -> Cause {
    let limits = store.data().limits.clone();
    cause(error, store.data_mut(), &limits)
}

/// As [`cause_of`], within a call of the host.
pub(crate) fn cause(error: &wasmtime::Error, state: &mut State, limits: &Limits) -> Cause {
    use wasmtime::Trap;
    if let Some(message) = state.failure.take() {
        return Cause::Guest { message, row: None };
    }
    if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
        return Cause::Instances;
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) if state.owner.is_cancelled() => Cause::Cancelled,
        Some(Trap::Interrupt) => Cause::Deadline(limits.timeout),
        Some(Trap::StackOverflow) => Cause::Stack,
        Some(Trap::OutOfFuel) => Cause::Fuel(limits.fuel.unwrap_or_default()),
        Some(trap) => {
            let said = trap.to_string();
            let said = said.strip_prefix("wasm trap: ").unwrap_or(&said);
            // A guest that runs out of memory aborts: the refusal is the cause.
            match (state.refused.take(), trap) {
                (Some(refused), Trap::UnreachableCodeReached | Trap::MemoryOutOfBounds) => refused,
                _ => match tail(&state.stderr) {
                    Some(stderr) => Cause::Trap(format!("{said}; it wrote: {stderr}")),
                    None => Cause::Trap(said.to_owned()),
                },
            }
        }
        None => match state.refused.take() {
            Some(refused) => refused,
            None => Cause::Contract(crate::inspect::cut(&format!("{error:#}"))),
        },
    }
}

fn tail(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    (!text.is_empty()).then(|| crate::inspect::cut(&text.escape_debug().to_string()))
}

/// Text of at most [`MAX_MESSAGE`] bytes at `ptr` in the memory of a guest; none where it does not lie in the memory.
pub(crate) fn message(memory: &[u8], ptr: u32, len: u32) -> Option<String> {
    let start = ptr as usize;
    let end = (u64::from(ptr) + u64::from(len)).try_into().ok().filter(|end: &usize| *end <= memory.len())?;
    let bytes = memory.get(start..end)?;
    Some(String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_MESSAGE)]).into_owned())
}
