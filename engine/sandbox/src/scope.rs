//! What the calls of one query share: instances, the memory that they are charged to, and what is counted of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use datafusion::execution::memory_pool::MemoryPool;

use crate::describe::FunctionSpec;
use crate::error::{Cause, Error, Result};
use crate::guest::Guest;
use crate::module::{Mode, Module};

/// Idle instances of a module that a query keeps.
const MAX_IDLE: usize = 64;

/// An instance that holds more than one of so many parts of the memory it may have is not used again: what it has let go of is not given back,
/// and interpreters lose some with each call.
const WORN: usize = 2;

/// Instances that wait for a call, by the SHA-256 of their module.
type Idle = HashMap<[u8; 32], Vec<Box<dyn Guest>>>;

/// What an instance has of the query that it works for.
#[derive(Clone)]
pub(crate) struct Owner {
    /// Its memory is charged to it.
    pub(crate) pool: Arc<dyn MemoryPool>,
    cancelled: Arc<AtomicBool>,
}

impl Owner {
    /// Of a query that nobody cancels.
    pub(crate) fn of_pool(pool: Arc<dyn MemoryPool>) -> Self {
        Self { pool, cancelled: Arc::default() }
    }

    /// Nobody waits for it any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }
}

/// See the module. An instance is used again within a scope, never in another one.
pub struct Scope {
    owner: Owner,
    /// Instances are kept for the next call.
    keeps: bool,
    /// No guest may be called: something is only planned.
    closed: AtomicBool,
    idle: Mutex<Idle>,
    /// Of few functions: they are looked through for each call.
    counters: Mutex<Vec<Arc<Counters>>>,
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("keeps", &self.keeps).finish_non_exhaustive()
    }
}

/// What was counted of the calls of one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionUse {
    /// Name in SQL.
    pub function: String,
    /// `scalar`, `aggregate` or `table`.
    pub kind: &'static str,
    /// The module as the user wrote it.
    pub module: String,
    /// SHA-256 of the module in hexadecimal.
    pub hash: String,
    /// Calls into guests: one for a batch.
    pub calls: u64,
    /// Rows of these batches.
    pub rows: u64,
    /// Wall time in guests and on the way to them and back, in nano-seconds, summed over tasks.
    pub nanos: u64,
    /// Most memory that an instance had, in bytes.
    pub peak_bytes: u64,
    /// Instances made.
    pub instances: u64,
    /// Calls that failed.
    pub failures: u64,
}

#[derive(Debug)]
struct Counters {
    function: String,
    kind: &'static str,
    module: String,
    digest: [u8; 32],
    hash: String,
    calls: AtomicU64,
    rows: AtomicU64,
    nanos: AtomicU64,
    peak_bytes: AtomicU64,
    instances: AtomicU64,
    failures: AtomicU64,
}

impl Scope {
    /// The scope of one query.
    pub fn of_query(pool: Arc<dyn MemoryPool>) -> Arc<Self> {
        Arc::new(Self::new(pool, true))
    }

    /// A scope for calls of which it is not known to what query they belong: every call has an instance of its own.
    pub fn of_session(pool: Arc<dyn MemoryPool>) -> Arc<Self> {
        Arc::new(Self::new(pool, false))
    }

    fn new(pool: Arc<dyn MemoryPool>, keeps: bool) -> Self {
        Self {
            owner: Owner::of_pool(pool),
            keeps,
            closed: AtomicBool::new(false),
            idle: Mutex::default(),
            counters: Mutex::default(),
        }
    }

    /// From now on no guest is called in it.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.release();
    }

    /// Ends calls that are going on, within a few ticks, and lets no more begin: nobody waits for the query any more.
    pub fn cancel(&self) {
        self.owner.cancelled.store(true, Relaxed);
    }

    /// Lets go of idle instances.
    pub fn release(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        drop(idle);
    }

    /// What was called so far.
    pub fn uses(&self) -> Vec<FunctionUse> {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let uses = counters.iter().map(|c| FunctionUse {
            function: c.function.clone(),
            kind: c.kind,
            module: c.module.clone(),
            hash: c.hash.clone(),
            calls: c.calls.load(Relaxed),
            rows: c.rows.load(Relaxed),
            nanos: c.nanos.load(Relaxed),
            peak_bytes: c.peak_bytes.load(Relaxed),
            instances: c.instances.load(Relaxed),
            failures: c.failures.load(Relaxed),
        });
        let mut uses: Vec<_> = uses.filter(|u| u.instances > 0 || u.failures > 0).collect();
        uses.sort_by(|a, b| (&a.hash, &a.function).cmp(&(&b.hash, &b.function)));
        uses
    }

    fn counters(&self, module: &Module, function: &FunctionSpec) -> Arc<Counters> {
        let mut all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.iter().find(|c| c.digest == *module.digest() && c.function == function.name) {
            return Arc::clone(found);
        }
        let made = Arc::new(Counters {
            function: function.name.clone(),
            kind: function.kind(),
            module: module.name().to_owned(),
            digest: *module.digest(),
            hash: module.hash(),
            calls: AtomicU64::default(),
            rows: AtomicU64::default(),
            nanos: AtomicU64::default(),
            peak_bytes: AtomicU64::default(),
            instances: AtomicU64::default(),
            failures: AtomicU64::default(),
        });
        all.push(Arc::clone(&made));
        made
    }
}

/// A function of a module in a scope.
#[derive(Debug, Clone)]
pub(crate) struct Callee {
    pub(crate) module: Arc<Module>,
    pub(crate) scope: Arc<Scope>,
}

impl Callee {
    /// True if views of strings are arguments as they are.
    pub(crate) fn views(&self) -> bool {
        self.module.mode() == Mode::Columnar
    }

    /// Calls an instance on `rows` rows; it is kept for the next call if that goes well.
    pub(crate) fn call<T>(
        &self,
        function: &FunctionSpec,
        rows: usize,
        work: impl FnOnce(&mut dyn Guest) -> Result<T, Cause>,
    ) -> Result<T> {
        let kept = {
            let mut idle = self.scope.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.get_mut(self.module.digest()).and_then(Vec::pop)
        };
        let mut owned = match kept {
            Some(guest) => Owned { guest, counters: self.scope.counters(&self.module, function) },
            None => self.own(function)?,
        };
        let done = owned.call(self, function, rows, work)?;
        let worn = owned.guest.memory() > self.module.declared().limits.memory / WORN;
        if self.scope.keeps && !worn && !self.scope.closed.load(Relaxed) {
            let mut idle = self.scope.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = idle.entry(*self.module.digest()).or_default();
            if idle.len() < MAX_IDLE {
                idle.push(owned.guest);
            }
        }
        Ok(done)
    }

    /// An instance for one user alone.
    pub(crate) fn own(&self, function: &FunctionSpec) -> Result<Owned> {
        let counters = self.scope.counters(&self.module, function);
        if self.scope.closed.load(Relaxed) {
            let cause = Cause::Unsupported("it is only planned here, not called".to_owned());
            return Err(self.error(function, cause));
        }
        match self.module.instantiate(&self.scope.owner) {
            Ok(guest) => {
                counters.instances.fetch_add(1, Relaxed);
                Ok(Owned { guest, counters })
            }
            Err(cause) => {
                counters.failures.fetch_add(1, Relaxed);
                Err(self.error(function, cause))
            }
        }
    }

    pub(crate) fn error(&self, function: &FunctionSpec, cause: Cause) -> Error {
        Error::of_function(self.module.name(), &function.name, cause)
    }
}

/// An instance and what counts its calls.
pub(crate) struct Owned {
    guest: Box<dyn Guest>,
    counters: Arc<Counters>,
}

impl Owned {
    /// Calls it; after an error it must be dropped.
    pub(crate) fn call<T>(
        &mut self,
        callee: &Callee,
        function: &FunctionSpec,
        rows: usize,
        work: impl FnOnce(&mut dyn Guest) -> Result<T, Cause>,
    ) -> Result<T> {
        let start = Instant::now();
        let done = match callee.scope.owner.is_cancelled() {
            true => Err(Cause::Cancelled),
            false => work(self.guest.as_mut()),
        };
        let counters = &self.counters;
        counters.nanos.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        counters.calls.fetch_add(1, Relaxed);
        counters.rows.fetch_add(rows as u64, Relaxed);
        counters.peak_bytes.fetch_max(self.guest.memory() as u64, Relaxed);
        done.map_err(|cause| {
            counters.failures.fetch_add(1, Relaxed);
            callee.error(function, cause)
        })
    }

    /// Counts rows that it gave.
    pub(crate) fn count_rows(&self, rows: usize) {
        self.counters.rows.fetch_add(rows as u64, Relaxed);
    }
}
