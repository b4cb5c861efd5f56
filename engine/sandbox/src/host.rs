//! The engine that runs guests: one for the process, alive while a session holds it, with a clock that ends what runs too long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy};

use crate::error::Cause;

/// Length of a tick: so often it is looked whether the time of a call is up, or nobody waits for it any more.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Stack of a guest in bytes.
pub(crate) const STACK: usize = 512 << 10;

/// Address space of one memory: all that 32 bits can address, so that no access needs a check.
const RESERVATION: u64 = 1 << 32;

/// Instances at the same time, of all sessions, and memories of them: an instance of the plain mode has one for its loops as well.
const INSTANCES: u32 = 1_000;

/// Elements of a table.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// What one engine runs; see the module.
pub(crate) struct Host {
    engine: Engine,
    /// The same with a count of instructions, for functions with a limit of them.
    counting: Engine,
    clock: Option<Clock>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

static SHARED: Mutex<Weak<Host>> = Mutex::new(Weak::new());

impl Host {
    /// The one of the process; made where there is none.
    pub(crate) fn shared() -> Result<Arc<Self>, Cause> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = shared.upgrade() {
            return Ok(host);
        }
        let host = Arc::new(Self::new()?);
        *shared = Arc::downgrade(&host);
        Ok(host)
    }

    fn new() -> Result<Self, Cause> {
        let engine = engine(false)?;
        let counting = engine_on_demand(true)?;
        let clock = Some(Clock::start([engine.clone(), counting.clone()])?);
        Ok(Self { engine, counting, clock })
    }

    /// The engine for guests with (`fuel`) or without a count of instructions.
    pub(crate) fn engine(&self, fuel: bool) -> &Engine {
        if fuel { &self.counting } else { &self.engine }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.clock.take());
    }
}

/// What compiler and engine have in common; artifacts are good for engines with the same.
pub(crate) fn config(fuel: bool) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .consume_fuel(fuel)
        .max_wasm_stack(STACK)
        .memory_reservation(RESERVATION)
        .memory_init_cow(true)
        .parallel_compilation(false)
        .wasm_memory64(false)
        // For loops, and for what wasmtime puts between the modules of a component; guests with several memories are refused by `inspect`.
        .wasm_multi_memory(true)
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(true);
    config
}

fn engine(fuel: bool) -> Result<Engine, Cause> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(INSTANCES)
        .total_memories(INSTANCES)
        .total_tables(INSTANCES)
        .total_component_instances(INSTANCES)
        .max_memory_size(1 << 32)
        .max_core_instance_size(4 << 20)
        .max_component_instance_size(16 << 20)
        .table_elements(TABLE_ELEMENTS)
        .max_tables_per_module(4)
        // The guest's own, and one for loops.
        .max_memories_per_module(2)
        // Pages that stay with a slot are cleared instead of given back: cheaper for small guests.
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(8 << 10);
    let mut pooled = config(fuel);
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    // Where the address space is limited (`ulimit -v`), instances are made one by one.
    Engine::new(&pooled).or_else(|_| Engine::new(&config(fuel))).map_err(|e| Cause::Internal(format!("{e:#}")))
}

fn engine_on_demand(fuel: bool) -> Result<Engine, Cause> {
    Engine::new(&config(fuel)).map_err(|e| Cause::Internal(format!("{e:#}")))
}

/// A thread that counts ticks; it ends with its owner.
struct Clock {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    fn start(engines: [Engine; 2]) -> Result<Self, Cause> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("guest clock".to_owned())
            .stack_size(128 << 10)
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::park_timeout(TICK);
                    engines.iter().for_each(Engine::increment_epoch);
                }
            })
            .map_err(|e| Cause::Internal(format!("cannot start the clock of guests: {e}")))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It cannot have panicked: it only sleeps and counts.
            let _ = thread.join();
        }
    }
}
