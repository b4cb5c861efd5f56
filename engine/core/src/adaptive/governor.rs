//! How many slots of an operator may take a next task, judged anew while a stage runs: by the memory pool, by the other queries of the
//! process, by the cores that it may use.
//!
//! A slot asks before it takes a task; one that may not waits until another is done, or until it may. Of each operator at least one slot
//! runs. A task that has begun is never stopped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use datafusion::execution::memory_pool::MemoryPool;
use sparklet_history::{AdaptationKind, AdaptationReason};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::record;
use super::running::Running;

/// Share of the pool in use, in percent, from which slots are taken away: all but one at 100.
const PRESSURE_PERCENT: u64 = 85;

/// Share of the pool in use, in percent, below which they come back.
const RELIEF_PERCENT: u64 = 70;

/// Time after which a slot that waits judges anew.
const TICK: Duration = Duration::from_millis(250);

/// Ticks without a row of its operator after which a slot waits no longer. No operator is known that would wait for one slot while it does
/// not look at another; should there be one, the query goes on.
const STUCK_TICKS: u32 = 20;

/// Changes of a query that are recorded.
const CHANGES_RECORDED: usize = 32;

/// Time for which a number of cores holds.
const CORES_HOLD: Duration = Duration::from_secs(1);

/// Cores that the process may use now.
fn cores() -> usize {
    static SEEN: Mutex<Option<(Instant, usize)>> = Mutex::new(None);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    match *seen {
        Some((at, cores)) if at.elapsed() < CORES_HOLD => cores,
        _ => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            *seen = Some((Instant::now(), cores));
            cores
        }
    }
}

/// Queries that share cores.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Those with slots that have tasks or want them.
    queries: Mutex<Vec<Weak<Governor>>>,
}

/// All queries of the process.
static PROCESS: LazyLock<Arc<Neighbours>> = LazyLock::new(Arc::default);

impl Neighbours {
    fn queries(&self) -> MutexGuard<'_, Vec<Weak<Governor>>> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, query: &Arc<Governor>) {
        let mut queries = self.queries();
        queries.retain(|other| other.strong_count() > 0 && other.as_ptr() != Arc::as_ptr(query));
        queries.push(Arc::downgrade(query));
    }

    fn leave(&self, query: &Governor) {
        self.queries().retain(|other| !std::ptr::eq(other.as_ptr(), query));
    }

    /// Slots in use or wanted of each query but `query`.
    fn others(&self, query: &Governor) -> Vec<usize> {
        let queries: Vec<_> = self.queries().iter().filter_map(Weak::upgrade).collect();
        let others = queries.iter().filter(|other| !std::ptr::eq(Arc::as_ptr(other), query));
        // Tests run side by side: those of other sessions are not what a test is about.
        #[cfg(test)]
        let others = others.filter(|other| Arc::ptr_eq(&other.pool, &query.pool));
        others.map(|other| other.demand.load(Relaxed)).filter(|&demand| demand > 0).collect()
    }
}

/// What a judgement is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Surroundings {
    /// Bytes of the pool in use.
    used: u64,
    /// Bytes of the pool.
    limit: u64,
    cores: usize,
    /// Cores when the query began.
    first_cores: usize,
    /// Slots in use or wanted of each other query.
    others: Vec<usize>,
}

/// What a number of slots follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Memory,
    Cores,
    Others,
}

impl Surroundings {
    /// Slots out of `slots` that the memory pool allows, where it allowed `before`.
    fn by_memory(&self, slots: usize, before: usize) -> usize {
        let percent = self.used.saturating_mul(100) / self.limit.max(1);
        if percent < RELIEF_PERCENT {
            return slots;
        }
        let over = percent.saturating_sub(PRESSURE_PERCENT).min(100 - PRESSURE_PERCENT) as usize;
        let fewer = slots.saturating_sub(1) * over / (100 - PRESSURE_PERCENT) as usize;
        (slots - fewer).min(before)
    }

    /// Those that are left where the process has lost cores.
    fn by_cores(&self, slots: usize) -> usize {
        (slots * self.cores).div_ceil(self.first_cores.max(1)).clamp(1, slots)
    }

    /// Those that are left to a query where others run: an equal share, and what the others leave of theirs.
    fn by_others(&self, slots: usize) -> usize {
        let capacity = self.cores.max(self.by_cores(slots));
        let equal = capacity.div_ceil(self.others.len() + 1);
        equal.max(capacity.saturating_sub(self.others.iter().sum())).clamp(1, slots)
    }

    fn reason(&self, why: Why) -> AdaptationReason {
        match why {
            Why::Memory => AdaptationReason::PoolUse { used: self.used, limit: self.limit },
            Why::Cores => AdaptationReason::Cores { cores: self.cores as u32 },
            Why::Others => AdaptationReason::OtherQueries { queries: self.others.len() as u32 },
        }
    }
}

/// Judges for one query.
#[derive(Debug)]
pub(crate) struct Governor {
    slots: usize,
    pool: Arc<dyn MemoryPool>,
    limit: u64,
    cores: fn() -> usize,
    first_cores: usize,
    running: Weak<Running>,
    neighbours: Arc<Neighbours>,
    /// Slots with a task or waiting for one.
    demand: AtomicUsize,
    stuck_ticks: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    begun: Instant,
    /// Slots of each operator that may have a task.
    allowed: usize,
    by_memory: usize,
    /// What the last change followed from.
    why: Why,
    recorded: usize,
    operators: Vec<Operator>,
}

#[derive(Debug)]
struct Operator {
    /// Exchange that was finished before.
    stage: u32,
    /// Slots with a task.
    active: usize,
    waiting: BTreeMap<usize, Waker>,
}

impl Governor {
    /// For a query on `slots` slots, whose tasks draw on `pool` of `limit` bytes.
    pub(super) fn new(slots: usize, pool: Arc<dyn MemoryPool>, limit: u64, running: Weak<Running>) -> Self {
        Self::among(Arc::clone(&PROCESS), cores, slots, pool, limit, running)
    }

    fn among(
        neighbours: Arc<Neighbours>,
        cores: fn() -> usize,
        slots: usize,
        pool: Arc<dyn MemoryPool>,
        limit: u64,
        running: Weak<Running>,
    ) -> Self {
        let slots = slots.max(1);
        let state = State {
            begun: Instant::now(),
            allowed: slots,
            by_memory: slots,
            why: Why::Memory,
            recorded: 0,
            operators: Vec::new(),
        };
        Self {
            slots,
            pool,
            limit,
            cores,
            first_cores: cores(),
            running,
            neighbours,
            demand: AtomicUsize::new(0),
            stuck_ticks: STUCK_TICKS,
            state: Mutex::new(state),
        }
    }

    /// The query begins at `start`.
    pub(super) fn begins(&self, start: Instant) {
        self.state().begun = start;
    }

    /// For the slots of one operator, which runs once exchange `stage` is finished.
    pub(super) fn gate(self: &Arc<Self>, stage: usize) -> Gate {
        let mut state = self.state();
        state.operators.push(Operator { stage: stage as u32, active: 0, waiting: BTreeMap::new() });
        Gate { governor: Arc::clone(self), operator: state.operators.len() - 1, moved: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges anew; `operator` is the one that asks.
    fn judge(&self, operator: usize) {
        let now = Surroundings {
            used: self.pool.reserved() as u64,
            limit: self.limit,
            cores: (self.cores)(),
            first_cores: self.first_cores,
            others: self.neighbours.others(self),
        };
        let mut state = self.state();
        state.by_memory = now.by_memory(self.slots, state.by_memory);
        let caps = [
            (state.by_memory, Why::Memory),
            (now.by_cores(self.slots), Why::Cores),
            (now.by_others(self.slots), Why::Others),
        ];
        let Some((to, binding)) = caps.into_iter().min_by_key(|(cap, _)| *cap) else { return };
        let from = std::mem::replace(&mut state.allowed, to);
        if from == to {
            return;
        }
        if to < self.slots {
            state.why = binding;
        }
        let because = now.reason(state.why);
        let woken: Vec<Waker> = match to > from {
            true => state.operators.iter_mut().flat_map(|o| std::mem::take(&mut o.waiting).into_values()).collect(),
            false => Vec::new(),
        };
        let (begun, stage) = (state.begun, state.operators.get(operator).map_or(0, |operator| operator.stage));
        state.recorded += 1;
        let recorded = state.recorded <= CHANGES_RECORDED;
        drop(state);
        if let Some(running) = self.running.upgrade().filter(|_| recorded) {
            let kind = AdaptationKind::ChangeSlots { from: from as u32, to: to as u32 };
            running.adapted(record::change_slots(begun, stage, kind, because));
        }
        woken.into_iter().for_each(Waker::wake);
    }

    /// True if `slot` of `operator` may take a task; else it is woken when it should ask again.
    fn admits(&self, operator: usize, slot: usize, anyway: bool, waker: &Waker) -> bool {
        self.judge(operator);
        let mut state = self.state();
        let allowed = state.allowed;
        let Some(operator) = state.operators.get_mut(operator) else { return true };
        let admitted = anyway || operator.active < allowed.max(1);
        if admitted {
            operator.active += 1;
            operator.waiting.remove(&slot);
        } else {
            operator.waiting.insert(slot, waker.clone());
        }
        admitted
    }

    /// A slot of `operator` has no task any more; if it `leaves` it does not ask for another.
    fn ended(&self, operator: usize, slot: usize, held: bool, leaves: bool) {
        let mut woken = BTreeMap::new();
        let mut state = self.state();
        if let Some(operator) = state.operators.get_mut(operator) {
            operator.active -= usize::from(held);
            if leaves {
                operator.waiting.remove(&slot);
                woken = std::mem::take(&mut operator.waiting);
            }
        }
        drop(state);
        woken.into_values().for_each(Waker::wake);
    }
}

/// Where the slots of one operator ask.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    governor: Arc<Governor>,
    operator: usize,
    /// Counts what its slots have given and ended.
    moved: Arc<AtomicU64>,
}

/// What one slot may.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Option<Gate>,
    slot: usize,
    entered: bool,
    held: bool,
    wait: Option<Wait>,
}

#[derive(Debug)]
struct Wait {
    tick: Interval,
    moved: u64,
    /// Ticks since something moved.
    still: u32,
}

impl Pass {
    /// Of `slot`; without a gate it never waits.
    pub(super) fn new(gate: Option<Gate>, slot: usize) -> Self {
        Self { gate, slot, entered: false, held: false, wait: None }
    }

    /// Ready when the slot may take a task. Needs a tokio runtime with its timer enabled if it has to wait.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(gate) = &self.gate else { return Poll::Ready(()) };
        if self.held {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut self.entered, true) && gate.governor.demand.fetch_add(1, Relaxed) == 0 {
            gate.governor.neighbours.enter(&gate.governor);
        }
        loop {
            let stuck = self.wait.as_ref().is_some_and(|wait| wait.still >= gate.governor.stuck_ticks);
            if gate.governor.admits(gate.operator, self.slot, stuck, cx.waker()) {
                self.held = true;
                self.wait = None;
                return Poll::Ready(());
            }
            let moved = gate.moved.load(Relaxed);
            let wait = self.wait.get_or_insert_with(|| {
                let mut tick = interval_at(tokio::time::Instant::now() + TICK, TICK);
                tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                Wait { tick, moved, still: 0 }
            });
            ready!(wait.tick.poll_tick(cx));
            wait.still = if wait.moved == moved { wait.still + 1 } else { 0 };
            wait.moved = moved;
        }
    }

    /// The slot has given rows.
    pub(super) fn moved(&self) {
        if let Some(gate) = &self.gate {
            gate.moved.fetch_add(1, Relaxed);
        }
    }

    /// The task has ended.
    pub(super) fn ended(&mut self) {
        self.moved();
        if let (Some(gate), true) = (&self.gate, std::mem::take(&mut self.held)) {
            gate.governor.ended(gate.operator, self.slot, true, false);
        }
    }

    /// No more tasks are wanted.
    pub(super) fn leave(&mut self) {
        let Some(gate) = self.gate.take() else { return };
        gate.governor.ended(gate.operator, self.slot, self.held, true);
        if self.entered && gate.governor.demand.fetch_sub(1, Relaxed) == 1 {
            gate.governor.neighbours.leave(&gate.governor);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryReservation};

    use super::*;

    fn around(used: u64, cores: usize, others: &[usize]) -> Surroundings {
        Surroundings { used, limit: 100, cores, first_cores: 8, others: others.to_vec() }
    }

    #[test]
    fn slots_follow_the_pool() {
        let by = |used, before| around(used, 8, &[]).by_memory(4, before);
        let allowed = [(0, 4), (69, 4), (85, 4), (90, 3), (95, 2), (100, 1), (130, 1)];
        for (used, slots) in allowed {
            assert_eq!(by(used, 4), slots, "{used} %");
        }
        assert_eq!((by(80, 2), by(70, 2), by(69, 2)), (2, 2, 4), "they come back once there is room");
        assert_eq!(around(100, 8, &[]).by_memory(1, 1), 1);
        assert_eq!(Surroundings { limit: 0, ..around(0, 8, &[]) }.by_memory(4, 4), 4);
    }

    #[test]
    fn slots_follow_cores_and_other_queries() {
        let cores = [(8, 4), (12, 4), (4, 2), (3, 2), (1, 1)];
        for (now, slots) in cores {
            assert_eq!(around(0, now, &[]).by_cores(4), slots, "{now} of 8 cores");
        }
        let by = |cores, slots, others: &[usize]| around(0, cores, others).by_others(slots);
        assert_eq!(by(8, 8, &[]), 8);
        assert_eq!(by(8, 8, &[8]), 4);
        assert_eq!(by(8, 8, &[2]), 6, "what another does not use");
        assert_eq!(by(8, 8, &[8, 8]), 3);
        assert_eq!(by(8, 8, &[8, 1]), 3);
        assert_eq!(by(8, 4, &[4]), 4, "there are cores for both");
        let few = Surroundings { first_cores: 2, ..around(0, 2, &[8]) };
        assert_eq!(few.by_others(8), 4, "as many slots as the user wants, whatever the cores");
        assert_eq!(by(8, 2, &[8; 20]), 1);
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A query on four slots under a pool of 100 bytes.
    struct Query {
        governor: Arc<Governor>,
        running: Arc<Running>,
        passes: Vec<Pass>,
        woken: Arc<Woken>,
    }

    impl Query {
        fn new(neighbours: &Arc<Neighbours>, pool: &Arc<dyn MemoryPool>, stuck_ticks: u32) -> Self {
            let running = Arc::new(Running::default());
            let made =
                Governor::among(Arc::clone(neighbours), || 4, 4, Arc::clone(pool), 100, Arc::downgrade(&running));
            let governor = Arc::new(Governor { stuck_ticks, ..made });
            let gate = governor.gate(3);
            let passes = (0..4).map(|slot| Pass::new(Some(gate.clone()), slot)).collect();
            Self { governor, running, passes, woken: Arc::default() }
        }

        /// Whether `slot` may take a task.
        fn asks(&mut self, slot: usize) -> bool {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.passes[slot].poll(&mut Context::from_waker(&waker)).is_ready()
        }

        /// `slot` is done with its task and asks for another.
        fn next(&mut self, slot: usize) -> bool {
            self.passes[slot].ended();
            self.asks(slot)
        }

        fn changes(&self) -> Vec<(u32, u32, AdaptationReason)> {
            let adaptations = self.running.adaptations();
            assert!(adaptations.iter().all(|a| a.stage == 3));
            let change = |a: sparklet_history::Adaptation| match a.kind {
                AdaptationKind::ChangeSlots { from, to } => Some((from, to, a.because)),
                _ => None,
            };
            adaptations.into_iter().filter_map(change).collect()
        }
    }

    fn pool() -> (Arc<dyn MemoryPool>, MemoryReservation) {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let held = MemoryConsumer::new("test").register(&pool);
        (pool, held)
    }

    #[tokio::test]
    async fn a_full_pool_takes_slots_away_and_gives_them_back() {
        let (pool, held) = pool();
        let mut query = Query::new(&Arc::default(), &pool, u32::MAX);
        assert!((0..4).all(|slot| query.asks(slot)));
        assert!(query.changes().is_empty());
        held.try_grow(95).unwrap();
        assert!(query.asks(0), "a task that has begun goes on");
        assert!(!query.next(0) && !query.next(1), "two are left");
        assert!(query.next(2) && query.next(3));
        held.try_grow(5).unwrap();
        assert!(!query.next(2), "one is left");
        assert!(query.next(3), "one always runs");
        assert_eq!(query.woken.0.load(Relaxed), 0);
        held.free();
        assert!(query.next(3));
        assert_eq!(query.woken.0.load(Relaxed), 3, "those that wait are told");
        assert!((0..3).all(|slot| query.asks(slot)));
        let used = |used| AdaptationReason::PoolUse { used, limit: 100 };
        assert_eq!(query.changes(), [(4, 2, used(95)), (2, 1, used(100)), (1, 4, used(0))]);
    }

    #[tokio::test]
    async fn a_slot_that_waits_looks_by_itself() {
        let (pool, held) = pool();
        let mut query = Query::new(&Arc::default(), &pool, u32::MAX);
        assert!((0..4).all(|slot| query.asks(slot)));
        held.try_grow(100).unwrap();
        assert!(!query.next(0));
        held.free();
        let pass = &mut query.passes[0];
        std::future::poll_fn(|cx| pass.poll(cx)).await;
        assert_eq!(query.changes().len(), 2);
    }

    #[tokio::test]
    async fn a_slot_does_not_wait_for_ever_for_one_that_nobody_looks_at() {
        let (pool, held) = pool();
        held.try_grow(100).unwrap();
        let mut query = Query::new(&Arc::default(), &pool, 1);
        assert!(query.asks(0) && !query.asks(1));
        let pass = &mut query.passes[1];
        std::future::poll_fn(|cx| pass.poll(cx)).await;
        assert_eq!(query.changes().len(), 1, "no more slots than before");
    }

    #[tokio::test]
    async fn what_ends_makes_room_for_what_waits() {
        let (pool, held) = pool();
        held.try_grow(100).unwrap();
        let mut query = Query::new(&Arc::default(), &pool, u32::MAX);
        assert!(query.asks(0) && !query.asks(1) && !query.asks(2));
        // Cut off in mid-task.
        query.passes.remove(0);
        assert_eq!(query.woken.0.load(Relaxed), 2);
        assert!(query.asks(0) && !query.asks(1));
        query.passes.clear();
        assert_eq!(query.governor.demand.load(Relaxed), 0);
        assert!(query.governor.state().operators.iter().all(|o| o.active == 0 && o.waiting.is_empty()));
    }

    #[tokio::test]
    async fn queries_share_what_there_is() {
        let (pool, _held) = pool();
        let neighbours = Arc::default();
        let mut first = Query::new(&neighbours, &pool, u32::MAX);
        let mut second = Query::new(&neighbours, &pool, u32::MAX);
        assert!((0..4).all(|slot| first.asks(slot)));
        assert!(second.asks(0) && second.asks(1), "half is its own");
        assert!(!second.asks(2) && !second.asks(3));
        assert!(!first.next(0) && !first.next(1) && first.next(2) && first.next(3));
        second.passes.clear();
        assert!(neighbours.others(&first.governor).is_empty());
        assert!(first.asks(0) && first.asks(1));
        let others = |queries| AdaptationReason::OtherQueries { queries };
        assert_eq!(first.changes(), [(4, 2, others(1)), (2, 4, others(0))]);
        assert_eq!(second.changes(), [(4, 2, others(1))]);
    }

    #[tokio::test]
    async fn what_is_recorded_is_bounded() {
        let (pool, held) = pool();
        let mut query = Query::new(&Arc::default(), &pool, u32::MAX);
        assert!(query.asks(0));
        for _ in 0..CHANGES_RECORDED {
            held.try_grow(100).unwrap();
            assert!(query.next(0));
            held.free();
            assert!(query.next(0));
        }
        assert_eq!(query.changes().len(), CHANGES_RECORDED);
    }
}
