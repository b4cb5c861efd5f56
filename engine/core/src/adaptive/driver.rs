//! Runs a query stage by stage.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::execution::context::{QueryPlanner, SessionState};
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{EmptyRelation, Expr, Join, LogicalPlan};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use sparklet_history::{Adaptation, AdaptationKind, AdaptationReason, HotKey};

use super::boundary::{Boundary, Reach};
use super::join::{AdaptiveJoinExec, Resources};
use super::leaf::{ExchangeLeaf, LeafPlanner};
use super::rule::{AdaptiveJoins, partitioned};
use super::share::Shared;
use super::units::{Limits, makespan};
use super::{AdaptiveMode, AdaptiveSettings};
use crate::exchange::{Bucketing, Budget, Exchange, ExchangeReaderExec, WriteSpec, write};
use crate::observe::scanned_bytes;

/// Buckets for each partition of the session.
const BUCKETS_PER_PARTITION: usize = 8;

/// Bytes in memory for a byte of a file, about: compression and encoding.
const BYTES_IN_MEMORY: u64 = 3;

/// Fewest and most buckets of an exchange: fewer leave nothing to pack, more make slices of a few rows.
const BUCKETS: std::ops::RangeInclusive<usize> = 32..=1024;

/// Share of the pool, in percent, that the exchanges of a query may keep in memory.
const MEMORY_PERCENT: u64 = 40;

/// Share of the pool, in percent, that the hash tables of all slots together may take.
const BUILD_PERCENT: u64 = 30;

/// Hot keys named in a record.
const KEYS_NAMED: usize = 5;

/// Most sizes that an adaptation lists, the largest first.
const SIZES_LISTED: usize = 64;

/// The plans of a query that run or have run, and what was changed meanwhile; for whoever looks on.
#[derive(Debug, Default)]
pub(crate) struct Running {
    state: Mutex<RunningState>,
}

#[derive(Debug, Default)]
struct RunningState {
    plans: Vec<Arc<dyn ExecutionPlan>>,
    /// The last of them gives the rows of the query.
    complete: bool,
    adaptations: Vec<Adaptation>,
    /// Exchanges whose stage shows as the input of one of their readers.
    shown: HashSet<usize>,
}

impl Running {
    /// A query whose plan is run as it is.
    pub(crate) fn of(plan: Arc<dyn ExecutionPlan>) -> Arc<Self> {
        let running = Self::default();
        running.set(plan);
        Arc::new(running)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, RunningState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `plan` takes the place of all others: it alone gives the rows.
    pub(crate) fn set(&self, plan: Arc<dyn ExecutionPlan>) {
        let mut state = self.state();
        state.plans = vec![plan];
        state.complete = true;
    }

    /// Plans that run or have run.
    pub(crate) fn plans(&self) -> Vec<Arc<dyn ExecutionPlan>> {
        self.state().plans.clone()
    }

    /// The plan that gives the rows, the stages below it included; before it is known, the last that began.
    pub(crate) fn last(&self) -> Option<Arc<dyn ExecutionPlan>> {
        self.state().plans.last().cloned()
    }

    /// The plan that gives the rows, once it is known.
    pub(crate) fn complete(&self) -> Option<Arc<dyn ExecutionPlan>> {
        let state = self.state();
        state.complete.then(|| state.plans.last().cloned()).flatten()
    }

    /// What was changed, with what is known of its outcome by now.
    pub(crate) fn adaptations(&self) -> Vec<Adaptation> {
        let mut adaptations = self.state().adaptations.clone();
        for plan in self.plans() {
            measure(&plan, &mut adaptations);
        }
        adaptations
    }

    /// Stages follow: nothing runs until the first of them starts.
    fn begins(&self) {
        let mut state = self.state();
        state.plans.clear();
        state.shown.clear();
        state.complete = false;
    }

    fn starts(&self, plan: &Arc<dyn ExecutionPlan>, complete: bool) {
        let mut state = self.state();
        settle(plan, &mut state.shown);
        state.plans.push(Arc::clone(plan));
        state.complete = complete;
    }

    fn adapted(&self, adaptation: Adaptation) {
        self.state().adaptations.push(adaptation);
    }
}

/// Adds what the tasks of the joins in `plan` took.
fn measure(plan: &Arc<dyn ExecutionPlan>, adaptations: &mut [Adaptation]) {
    if let Some(join) = AdaptiveJoinExec::of(plan) {
        let done = join.done();
        if let Some(adaptation) = adaptations.iter_mut().find(|a| a.operator == Some(join.number())) {
            adaptation.task_cpu_us = done.iter().map(|task| micros(task.cpu)).collect();
        }
    }
    plan.children().into_iter().for_each(|child| measure(child, adaptations));
}

/// From now on `plan` is not optimised any more: its leaves over exchanges show the plans that filled them.
fn settle(plan: &Arc<dyn ExecutionPlan>, shown: &mut HashSet<usize>) {
    plan.children().into_iter().for_each(|child| settle(child, shown));
    if let Some(reader) = plan.downcast_ref::<ExchangeReaderExec>() {
        // Of several readers one shows it, so that its work counts once.
        if shown.insert(reader.exchange().id) {
            reader.show_stage();
        }
    } else if let Some(join) = AdaptiveJoinExec::of(plan) {
        join.settle();
    }
}

/// Where a plan is cut.
#[derive(Debug)]
pub(crate) struct Cuts {
    pub(crate) shared: Vec<Shared>,
    /// Inner joins first.
    pub(crate) boundaries: Vec<Boundary>,
    pub(crate) reach: Reach,
}

/// Runs one query.
pub(crate) struct Driver {
    state: SessionState,
    context: Arc<TaskContext>,
    settings: AdaptiveSettings,
    limits: Limits,
    logical: LogicalPlan,
    shared: Vec<Shared>,
    boundaries: Vec<Boundary>,
    budget: Arc<Budget>,
    running: Arc<Running>,
    /// The error by which an attempt without stages ended.
    pub(crate) instead_of: Option<String>,
    /// Inputs of a join that become stages; 2 but in tests of half-staged joins.
    pub(crate) sides: usize,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("boundaries", &self.boundaries).finish_non_exhaustive()
    }
}

/// Bytes that one hash table may have under a pool of `memory_limit` with `slots` tasks.
pub(crate) fn build_bytes_limit(memory_limit: u64, slots: usize) -> u64 {
    memory_limit / 100 * BUILD_PERCENT / slots.max(1) as u64
}

impl Driver {
    /// A driver for the optimised plan `logical`, cut at `cuts`.
    pub(crate) fn new(
        state: &SessionState,
        settings: &AdaptiveSettings,
        memory_limit: u64,
        logical: LogicalPlan,
        cuts: Cuts,
        running: Arc<Running>,
    ) -> Self {
        let Cuts { shared, boundaries, reach } = cuts;
        let slots = state.config().target_partitions();
        let force = settings.mode == AdaptiveMode::Force;
        let limits = Limits {
            slots,
            min_task: if force { 1 } else { MIN_TASK },
            build_bytes: build_bytes_limit(memory_limit, slots),
            parent_bytes: None,
        };
        let memory = usize::try_from(memory_limit / 100 * MEMORY_PERCENT).unwrap_or(usize::MAX);
        let budget = Budget::new(memory);
        let mut rules = state.physical_optimizers().to_vec();
        let after = rules.iter().position(|rule| rule.name() == "join_selection").map_or(0, |at| at + 1);
        rules.insert(
            after,
            Arc::new(AdaptiveJoins {
                settings: settings.clone(),
                resources: Resources { limits, budget: Arc::clone(&budget) },
            }),
        );
        let mut config = state.config().clone();
        if reach == Reach::EveryJoin {
            // Every join partitioned, however small.
            config.options_mut().optimizer.hash_join_single_partition_threshold = 0;
            config.options_mut().optimizer.hash_join_single_partition_threshold_rows = 0;
        }
        let state = SessionStateBuilder::new_from_existing(state.clone())
            .with_config(config)
            .with_query_planner(Arc::new(StagePlanner))
            .with_physical_optimizer_rules(rules)
            .build();
        Self {
            context: state.task_ctx(),
            state,
            settings: settings.clone(),
            limits,
            logical,
            shared,
            boundaries,
            budget,
            running,
            instead_of: None,
            sides: 2,
        }
    }

    /// A line for each boundary.
    pub(crate) fn describe(&self) -> Vec<String> {
        let line = |boundary: &Boundary| {
            let Some(LogicalPlan::Join(join)) = at_path(&self.logical, &boundary.path) else { return None };
            let on: Vec<String> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
            let rows = boundary.expected_rows.map_or("an unknown number of".to_owned(), |rows| rows.to_string());
            Some(format!(
                "{} join on {}: {rows} rows expected on both sides together",
                join.join_type,
                on.join(" and ")
            ))
        };
        let twice = |shared: &Shared| {
            let subplan = shared.paths.first().and_then(|path| at_path(&self.logical, path))?;
            Some(format!("{} computed once for {} readers", subplan.display(), shared.paths.len()))
        };
        self.shared.iter().filter_map(twice).chain(self.boundaries.iter().filter_map(line)).collect()
    }

    /// Runs all stages but the last, whose plan it returns. Dropping the future ends what runs and frees what was kept.
    pub(crate) async fn run(&self) -> Result<Arc<dyn ExecutionPlan>> {
        let start = Instant::now();
        self.running.begins();
        if let Some(error) = &self.instead_of {
            self.running.adapted(run_in_stages(start, error));
        }
        let mut logical = self.logical.clone();
        let mut exchanges = 0;
        for shared in &self.shared {
            logical = self.share(logical, shared, &mut exchanges, start).await?;
        }
        for boundary in &self.boundaries {
            logical = self.stage_join(logical, boundary, &mut exchanges, start).await?;
        }
        let plan = self.plan(&logical).await?;
        self.note_splits(&plan, start);
        self.running.starts(&plan, true);
        Ok(plan)
    }

    pub(crate) fn task_context(&self) -> &Arc<TaskContext> {
        &self.context
    }

    async fn plan(&self, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        self.state.query_planner().create_physical_plan(logical, &self.state).await
    }

    /// Runs a subplan that stands more than once; each occurrence becomes a leaf over the one result.
    async fn share(
        &self,
        mut logical: LogicalPlan,
        shared: &Shared,
        exchanges: &mut usize,
        start: Instant,
    ) -> Result<LogicalPlan> {
        let Some(subplan) = shared.paths.first().and_then(|path| at_path(&logical, path)) else { return Ok(logical) };
        let stage = self.plan(subplan).await?;
        let schema = Arc::clone(subplan.schema());
        let what = subplan.display().to_string();
        let id = std::mem::replace(exchanges, *exchanges + 1);
        self.note_splits(&stage, start);
        self.running.starts(&stage, false);
        let bucketing = Bucketing { keys: Vec::new(), buckets: 1, divisor: 1 };
        let spec = WriteSpec { id, bucketing, budget: Arc::clone(&self.budget) };
        let exchange = Arc::new(write(stage, Arc::clone(&self.context), spec).await?);
        self.running.adapted(share_subplan(start, &exchange, what, shared.paths.len()));
        for path in &shared.paths {
            let leaf = ExchangeLeaf::plan(Arc::clone(&exchange), Arc::clone(&schema));
            logical = replace_at(logical, path, leaf)?;
        }
        Ok(logical)
    }

    /// Runs the inputs of the join at `boundary` as far as knowing them can change the plan; returns the plan with leaves in their place.
    async fn stage_join(
        &self,
        logical: LogicalPlan,
        boundary: &Boundary,
        exchanges: &mut usize,
        start: Instant,
    ) -> Result<LogicalPlan> {
        let Some(LogicalPlan::Join(join)) = at_path(&logical, &boundary.path) else { return Ok(logical) };
        let Some(keys) = Keys::of(join) else { return Ok(logical) };
        let mut join = join.clone();
        let planned = self.plan(&LogicalPlan::Join(join.clone())).await?;
        let Some(shape) = Shape::of(&planned) else { return Ok(logical) };
        if shape.mode != PartitionMode::Partitioned {
            // What lies below has turned out such that the planner takes another algorithm now.
            if self.settings.broadcast && shape.over_exchange {
                self.running.adapted(broadcast(start, &keys, None, boundary.expected_rows));
            }
            return Ok(logical);
        }
        for side in shape.order().into_iter().take(self.sides) {
            let (input, key) = match side {
                Side::Left => (&join.left, &keys.left),
                Side::Right => (&join.right, &keys.right),
            };
            if ExchangeLeaf::of(input).is_some() {
                continue;
            }
            let stage = self.plan(input).await?;
            let Some(bucketing) = self.bucketing(&stage, input, key) else { return Ok(logical) };
            let schema = Arc::clone(input.schema());
            let id = std::mem::replace(exchanges, *exchanges + 1);
            self.note_splits(&stage, start);
            self.running.starts(&stage, false);
            let spec = WriteSpec { id, bucketing, budget: Arc::clone(&self.budget) };
            let exchange = Arc::new(write(stage, Arc::clone(&self.context), spec).await?);
            let leaf = Arc::new(ExchangeLeaf::plan(Arc::clone(&exchange), schema));
            match side {
                Side::Left => join.left = leaf,
                Side::Right => join.right = leaf,
            }
            if self.settings.skip_empty && exchange.size().rows == 0 && is_empty_with(join.join_type, side) {
                self.running.adapted(skip_empty(start, &exchange, &keys));
                let schema = Arc::clone(&join.schema);
                let empty = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema });
                return replace_at(logical, &boundary.path, empty);
            }
            if self.settings.broadcast {
                let planned = self.plan(&LogicalPlan::Join(join.clone())).await?;
                if Shape::of(&planned).is_some_and(|shape| shape.mode != PartitionMode::Partitioned) {
                    self.running.adapted(broadcast(start, &keys, Some(&exchange), boundary.expected_rows));
                    break;
                }
            }
        }
        replace_at(logical, &boundary.path, LogicalPlan::Join(join))
    }

    /// How the rows of `stage` are divided by `keys`, the key columns of the logical plan `input`.
    fn bucketing(&self, stage: &Arc<dyn ExecutionPlan>, input: &LogicalPlan, keys: &[Expr]) -> Option<Bucketing> {
        let schema = stage.schema();
        let keys = keys
            .iter()
            .map(|key| {
                let Expr::Column(column) = key else { return None };
                let at = input.schema().maybe_index_of_column(column)?;
                Some(Arc::new(Column::new(schema.fields().get(at)?.name(), at)) as PhysicalExprRef)
            })
            .collect::<Option<Vec<_>>>()?;
        let partitions = self.limits.slots;
        // Files are smaller than their rows in memory; a bucket should be well below what a hash table may have.
        let expected = scanned_bytes(stage).saturating_mul(BYTES_IN_MEMORY);
        let for_memory = usize::try_from(expected / (self.limits.build_bytes / 4).max(1)).unwrap_or(usize::MAX);
        let wanted = (partitions * BUCKETS_PER_PARTITION).max(for_memory).clamp(*BUCKETS.start(), *BUCKETS.end());
        let per_partition = wanted.div_ceil(partitions);
        Some(Bucketing { keys, buckets: partitions * per_partition, divisor: 1 })
    }

    /// Records the joins of `plan` that were divided.
    fn note_splits(&self, plan: &Arc<dyn ExecutionPlan>, start: Instant) {
        if let Some(join) = AdaptiveJoinExec::of(plan) {
            self.running.adapted(self.split(join, start));
        }
        plan.children().into_iter().for_each(|child| self.note_splits(child, start));
    }

    fn split(&self, join: &AdaptiveJoinExec, start: Instant) -> Adaptation {
        let (left, right) = join.exchanges();
        let slots = self.limits.slots;
        let before: Vec<u64> = partitioned(&left.sizes, &right.sizes, slots).iter().map(|p| p.weight).collect();
        let after = join.division().task_weights();
        let hot = |exchange: &Exchange| -> Vec<HotKey> {
            let heavy = exchange.facts.heavy.iter().take(KEYS_NAMED);
            heavy
                .map(|hitter| HotKey {
                    exchange: exchange.id as u32,
                    key: hitter.key.as_ref().map(|key| key.iter().map(ToString::to_string).collect()),
                    share: hitter.share,
                })
                .collect()
        };
        let mut hot_keys = hot(&left);
        hot_keys.extend(hot(&right));
        let mut rows: Vec<u64> = left.sizes.iter().zip(&right.sizes).map(|(l, r)| l.rows + r.rows).collect();
        rows.sort_unstable();
        let reason = AdaptationReason::HotBuckets {
            largest_rows: rows.last().copied().unwrap_or(0),
            median_rows: rows.get(rows.len() / 2).copied().unwrap_or(0),
        };
        Adaptation {
            at_us: micros(start.elapsed()),
            stage: left.id.max(right.id) as u32,
            operator: Some(join.number()),
            kind: AdaptationKind::DivideJoin {
                on: join.template().on().iter().map(|(l, r)| format!("{l} = {r}")).collect(),
                units: join.division().units.len() as u32,
                split_buckets: join.division().split_buckets.len() as u32,
                swapped_units: join.division().units.iter().filter(|unit| unit.swapped).count() as u32,
                oversized_units: join.division().oversized() as u32,
            },
            because: if self.settings.mode == AdaptiveMode::Force { AdaptationReason::Forced } else { reason },
            predicted_before: makespan(before.iter().copied(), slots),
            predicted_after: makespan(after.iter().copied(), slots),
            before: largest(before),
            after: largest(after),
            hot_keys,
            cost_us: micros(left.cost.exchange_cpu + right.cost.exchange_cpu),
            task_cpu_us: Vec::new(),
        }
    }
}

/// Smallest task in weights (rows probed): below, starting it costs more than it spreads.
const MIN_TASK: u64 = 128 << 10;

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn largest(mut sizes: Vec<u64>) -> Vec<u64> {
    sizes.sort_unstable_by_key(|&size| std::cmp::Reverse(size));
    sizes.truncate(SIZES_LISTED);
    sizes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// True if a join gives no rows when `side` has none.
fn is_empty_with(join: JoinType, side: Side) -> bool {
    match join {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => true,
        JoinType::Left | JoinType::LeftAnti | JoinType::LeftMark => side == Side::Left,
        JoinType::Right | JoinType::RightAnti | JoinType::RightMark => side == Side::Right,
        JoinType::Full => false,
    }
}

/// The key columns of a join, by side.
struct Keys {
    left: Vec<Expr>,
    right: Vec<Expr>,
}

impl Keys {
    /// None where a key is no plain column: what is hashed would not be what the planner hashes.
    fn of(join: &Join) -> Option<Self> {
        let columns = join.on.iter().all(|(l, r)| matches!((l, r), (Expr::Column(_), Expr::Column(_))));
        let (left, right) = join.on.iter().cloned().unzip();
        (columns && !join.on.is_empty()).then_some(Self { left, right })
    }

    fn texts(&self) -> Vec<String> {
        self.left.iter().zip(&self.right).map(|(l, r)| format!("{l} = {r}")).collect()
    }
}

/// How the planner would run a join.
struct Shape {
    mode: PartitionMode,
    /// The left input is expected to be no larger than the right one: it is measured first, for it may make the other needless.
    left_first: bool,
    /// An input is a finished exchange.
    over_exchange: bool,
}

impl Shape {
    /// Of the topmost hash join of `plan`, below operators with one input.
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let mut at = plan;
        loop {
            if let Some(join) = at.downcast_ref::<HashJoinExec>() {
                let expected = |side: &Arc<dyn ExecutionPlan>| {
                    let statistics = datafusion::physical_plan::statistics::StatisticsContext::new()
                        .compute(side.as_ref(), &datafusion::physical_plan::StatisticsArgs::new());
                    statistics.ok().and_then(|s| s.num_rows.get_value().copied())
                };
                let left_first = match (expected(join.left()), expected(join.right())) {
                    (Some(left), Some(right)) => left <= right,
                    _ => true,
                };
                let over_exchange = [join.left(), join.right()].into_iter().any(reads_exchange);
                return Some(Self { mode: *join.partition_mode(), left_first, over_exchange });
            }
            if AdaptiveJoinExec::of(at).is_some() {
                return Some(Self { mode: PartitionMode::Partitioned, left_first: true, over_exchange: true });
            }
            let children = at.children();
            let [only] = children.as_slice() else { return None };
            at = only;
        }
    }

    fn order(&self) -> [Side; 2] {
        if self.left_first { [Side::Left, Side::Right] } else { [Side::Right, Side::Left] }
    }
}

fn reads_exchange(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<ExchangeReaderExec>() || plan.children().into_iter().any(reads_exchange)
}

fn broadcast(start: Instant, keys: &Keys, exchange: Option<&Arc<Exchange>>, expected: Option<u64>) -> Adaptation {
    let size = exchange.map(|e| e.size()).unwrap_or_default();
    let because = AdaptationReason::BuildSideSmall { rows: size.rows, bytes: size.bytes, expected_rows: expected };
    of_plan(start, exchange, AdaptationKind::Broadcast { on: keys.texts() }, because)
}

fn share_subplan(start: Instant, exchange: &Arc<Exchange>, what: String, readers: usize) -> Adaptation {
    let size = exchange.size();
    let kind = AdaptationKind::ShareSubplan { what, readers: readers as u32 };
    of_plan(start, Some(exchange), kind, AdaptationReason::Repeated { rows: size.rows, bytes: size.bytes })
}

fn run_in_stages(start: Instant, error: &str) -> Adaptation {
    let because = AdaptationReason::MemoryExhausted { message: error.to_owned() };
    of_plan(start, None, AdaptationKind::RunInStages, because)
}

fn skip_empty(start: Instant, exchange: &Arc<Exchange>, keys: &Keys) -> Adaptation {
    let kind = AdaptationKind::SkipEmpty { on: keys.texts() };
    of_plan(start, Some(exchange), kind, AdaptationReason::InputEmpty)
}

/// A change of the plan as a whole, after `exchange` was finished: no operator of its own carries it out.
fn of_plan(
    start: Instant,
    exchange: Option<&Arc<Exchange>>,
    kind: AdaptationKind,
    because: AdaptationReason,
) -> Adaptation {
    Adaptation {
        at_us: micros(start.elapsed()),
        stage: exchange.map_or(0, |e| e.id as u32),
        operator: None,
        kind,
        because,
        before: Vec::new(),
        after: Vec::new(),
        predicted_before: 0,
        predicted_after: 0,
        hot_keys: Vec::new(),
        cost_us: exchange.map_or(0, |e| micros(e.cost.exchange_cpu)),
        task_cpu_us: Vec::new(),
    }
}

/// The node of `plan` at `path`.
fn at_path<'a>(plan: &'a LogicalPlan, path: &[usize]) -> Option<&'a LogicalPlan> {
    match path.split_first() {
        None => Some(plan),
        Some((first, rest)) => at_path(plan.inputs().get(*first).copied()?, rest),
    }
}

/// `plan` with `node` at `path`.
fn replace_at(plan: LogicalPlan, path: &[usize], node: LogicalPlan) -> Result<LogicalPlan> {
    let Some((first, rest)) = path.split_first() else { return Ok(node) };
    let mut at = 0;
    let mut node = Some(node);
    let replaced = plan.map_children(|child| {
        let own = at;
        at += 1;
        if own != *first {
            return Ok(Transformed::no(child));
        }
        let node = node.take().ok_or_else(|| internal_datafusion_err!("a plan node with two inputs {first}"))?;
        Ok(Transformed::yes(replace_at(child, rest, node)?))
    })?;
    Ok(replaced.data)
}

/// DataFusion's planner with leaves over exchanges.
#[derive(Debug)]
struct StagePlanner;

#[async_trait::async_trait]
impl QueryPlanner for StagePlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(LeafPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}
