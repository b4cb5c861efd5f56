//! Runs a query stage by stage.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use datafusion::catalog::Session;
use datafusion::common::JoinType;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result;
use datafusion::execution::context::{QueryPlanner, SessionState};
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{EmptyRelation, Expr, Join, LogicalPlan};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::statistics::StatisticsContext;
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use futures::FutureExt;
use sparklet_optimizer::{SourceMap, SourceNames};

use super::boundary::{Boundary, Operator, Reach};
use super::governor::Governor;
use super::join::{AdaptiveJoinExec, Resources};
use super::known;
use super::leaf::{self, ExchangeLeaf, LeafPlanner};
use super::learned::{Learned, may_filter};
use super::path::{at_path, node_at, replace_at};
use super::readers::free_when_read;
use super::record::{
    broadcast, divide_join, partition, push_keys, reorder_joins, run_in_stages, share_subplan, skip_empty,
};
use super::reorder::{self, Reorderer, Surprise};
use super::rule::AdaptiveJoins;
use super::running::Running;
use super::share::Shared;
use super::units::Limits;
use super::windows::{self, Windows};
use super::{AdaptiveMode, AdaptiveSettings};
use crate::exchange::{Bucketing, Budget, Exchange, ExchangeReaderExec, Size, WriteSpec, write};
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

/// Part of what a slot may have for a hash table that the rows of one for all slots may have, once it is known that memory is short.
const BROADCAST_PART: u64 = 4;

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
    pub(super) state: SessionState,
    pub(super) context: Arc<TaskContext>,
    pub(super) settings: AdaptiveSettings,
    pub(super) limits: Limits,
    logical: LogicalPlan,
    shared: Vec<Shared>,
    boundaries: Vec<Boundary>,
    reach: Reach,
    pub(super) budget: Arc<Budget>,
    pub(super) running: Arc<Running>,
    /// What tables are called in the history.
    sources: Arc<dyn SourceNames>,
    pub(super) governor: Option<Arc<Governor>>,
    /// Looks for other orders of joins; none where they stay as they are.
    reorderer: Option<Reorderer>,
    /// The plan as it was before anything of it ran, or before anything ran after its order was changed.
    origin: Mutex<LogicalPlan>,
    /// The error by which an attempt without stages ended.
    pub(crate) instead_of: Option<String>,
    /// Inputs of a join that become stages; 2 but in tests of half-staged joins.
    pub(crate) sides: usize,
    /// Exchanges whose rows are kept.
    written: Mutex<Vec<Weak<Exchange>>>,
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
        let governor = settings.slots.then(|| {
            let pool = Arc::clone(&state.runtime_env().memory_pool);
            Arc::new(Governor::new(slots, pool, memory_limit, Arc::downgrade(&running)))
        });
        let mut rules = state.physical_optimizers().to_vec();
        let after = rules.iter().position(|rule| rule.name() == "join_selection").map_or(0, |at| at + 1);
        rules.insert(
            after,
            Arc::new(AdaptiveJoins {
                settings: settings.clone(),
                resources: Resources { limits, budget: Arc::clone(&budget), governor: governor.clone() },
            }),
        );
        let mut config = state.config().clone();
        let broadcast_bytes = match reach {
            Reach::Worthwhile => None,
            Reach::AfterExhaustion if settings.broadcast => Some(limits.build_bytes / BROADCAST_PART),
            // Every join partitioned, however small.
            Reach::EveryJoin | Reach::AfterExhaustion => Some(0),
        };
        if let Some(bytes) = broadcast_bytes {
            let optimizer = &mut config.options_mut().optimizer;
            optimizer.hash_join_single_partition_threshold = usize::try_from(bytes).unwrap_or(usize::MAX);
            optimizer.hash_join_single_partition_threshold_rows = 0;
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
            origin: Mutex::new(logical.clone()),
            logical,
            shared,
            boundaries,
            reach,
            budget,
            running,
            sources: Arc::new(SourceMap::default()),
            governor,
            reorderer: None,
            instead_of: None,
            sides: 2,
            written: Mutex::default(),
        }
    }

    /// The same where `sources` tells what tables are called in the history.
    pub(crate) fn naming(self, sources: Arc<dyn SourceNames>) -> Self {
        Self { sources, ..self }
    }

    /// The same that looks for other orders of joins.
    pub(crate) fn reordering(self, reorderer: Option<Reorderer>) -> Self {
        Self { reorderer, ..self }
    }

    /// Keeps what `exchange` has measured of `keys`, key columns of input `side` of the operator at `boundary`.
    pub(super) fn remember(&self, exchange: &Exchange, boundary: &Boundary, side: usize, keys: &[Expr]) {
        // As the query was written: what is a leaf by now is a part of it there.
        let origin = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(operator) = at_path(&origin, &boundary.path) else { return };
        let Some(input) = operator.inputs().get(side).copied() else { return };
        let found = known::record(input, keys, self.sources.as_ref(), &exchange.facts);
        found.into_iter().for_each(|key| self.running.measured(key));
    }

    /// A line for each boundary.
    pub(crate) fn describe(&self) -> Vec<String> {
        let texts = |exprs: &[Expr]| exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let known = |boundary: &Boundary| match &boundary.known {
            Some((_, heavy)) => format!(", a heavy key known from run {}", heavy.run),
            None if boundary.broadcasts => ", a broadcast whose smaller input may be larger than that".to_owned(),
            None => String::new(),
        };
        let line = |boundary: &Boundary| {
            let rows = boundary.expected_rows.map_or("an unknown number of".to_owned(), |rows| rows.to_string());
            match at_path(&self.logical, &boundary.path)? {
                LogicalPlan::Join(join) => {
                    let on: Vec<String> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
                    let (kind, on) = (join.join_type, on.join(" and "));
                    Some(format!("{kind} join on {on}: {rows} rows expected on both sides together"))
                }
                LogicalPlan::Aggregate(aggregate) => {
                    let by = texts(&aggregate.group_expr);
                    Some(format!("aggregate with DISTINCT by {by}: {rows} rows expected"))
                }
                LogicalPlan::Window(window) => {
                    let by = texts(&windows::recognise(window)?.ok()?.by);
                    let functions = Windows::functions(window).join(", ");
                    Some(format!("window {functions} by {by}: {rows} rows expected"))
                }
                _ => None,
            }
        };
        let twice = |shared: &Shared| {
            let subplan = shared.paths.first().and_then(|path| node_at(&self.logical, path))?;
            Some(format!("{} computed once for {} readers", subplan.display(), shared.paths.len()))
        };
        let line = |boundary: &Boundary| Some(format!("{}{}", line(boundary)?, known(boundary)));
        self.shared.iter().filter_map(twice).chain(self.boundaries.iter().filter_map(line)).collect()
    }

    /// Runs all stages but the last, whose plan it returns. Dropping the future ends what runs and frees what was kept.
    pub(crate) async fn run(&self) -> Result<Arc<dyn ExecutionPlan>> {
        let start = Instant::now();
        self.running.begins();
        if let Some(governor) = &self.governor {
            governor.begins(start);
        }
        if let Some(error) = &self.instead_of {
            self.running.adapted(run_in_stages(start, error));
        }
        let mut logical = self.logical.clone();
        let mut exchanges = 0;
        for shared in &self.shared {
            logical = self.share(logical, shared, &mut exchanges, start).await?;
            self.release(&logical);
        }
        let mut boundaries: VecDeque<Boundary> = self.boundaries.iter().cloned().collect();
        let (mut judged, mut reordered, mut begun) = (0, 0, false);
        loop {
            if reordered < reorder::MOST
                && let Some(other) = self.reordered(&logical, judged, start).await?
            {
                (logical, boundaries) = other;
                (reordered, begun) = (reordered + 1, false);
            }
            judged = exchanges;
            let Some(boundary) = boundaries.pop_front() else { break };
            logical = match boundary.operator {
                Operator::Join => {
                    let (plan, staged) = self.stage_join(logical, &boundary, begun, &mut exchanges, start).await?;
                    begun = staged == Staged::First;
                    if begun {
                        boundaries.push_front(boundary);
                    }
                    plan
                }
                Operator::Aggregate => self.stage_aggregate(logical, &boundary, &mut exchanges, start).boxed().await?,
                Operator::Window => self.stage_window(logical, &boundary, &mut exchanges, start).boxed().await?,
            };
            self.release(&logical);
        }
        let plan = self.plan(&logical).await?;
        self.note_splits(&plan, start);
        free_when_read(&plan);
        self.running.starts(&plan, true);
        Ok(plan)
    }

    /// `logical` with the joins that are still to come in another order, and where it is cut now, if an exchange with the number `from` or a
    /// higher one has other rows than were expected.
    async fn reordered(
        &self,
        logical: &LogicalPlan,
        from: usize,
        start: Instant,
    ) -> Result<Option<(LogicalPlan, VecDeque<Boundary>)>> {
        let Some(reorderer) = &self.reorderer else { return Ok(None) };
        let Some(surprise) = Surprise::among(logical, from, reorderer.forced()) else { return Ok(None) };
        // Of parts that are planned already nobody knows the rows.
        if leaf::has_parts(logical) {
            return Ok(None);
        }
        let Some((other, changes)) = reorderer.candidate(logical) else { return Ok(None) };
        let physical = self.plan(&other).await?;
        let boundaries = reorderer.boundaries(&other, &physical, self.limits.slots, self.limits.build_bytes);
        self.running.adapted(reorder_joins(start, &surprise, changes));
        *self.origin.lock().unwrap_or_else(PoisonError::into_inner) = other.clone();
        Ok(Some((other, boundaries.into())))
    }

    /// Runs `stage` into an exchange.
    pub(super) async fn write(&self, stage: Arc<dyn ExecutionPlan>, spec: WriteSpec) -> Result<Arc<Exchange>> {
        let exchange = Arc::new(write(stage, Arc::clone(&self.context), spec).await?);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&exchange));
        Ok(exchange)
    }

    /// Frees the rows of the exchanges that `logical` does not read: the stages that read them are over.
    fn release(&self, logical: &LogicalPlan) {
        // Parts that are planned already read what they read.
        if leaf::has_parts(logical) {
            return;
        }
        let mut read = Vec::new();
        leaf::exchanges(logical, &mut read);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).retain(|exchange| {
            let Some(exchange) = exchange.upgrade() else { return false };
            let wanted = read.iter().any(|other| Arc::ptr_eq(other, &exchange));
            if !wanted {
                exchange.release();
            }
            wanted
        });
    }

    pub(crate) fn task_context(&self) -> &Arc<TaskContext> {
        &self.context
    }

    pub(super) async fn plan(&self, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
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
        let Some(subplan) = shared.paths.first().and_then(|path| node_at(&logical, path)) else { return Ok(logical) };
        let stage = self.plan(&subplan).await?;
        let schema = Arc::clone(subplan.schema());
        let what = subplan.display().to_string();
        let id = std::mem::replace(exchanges, *exchanges + 1);
        self.note_splits(&stage, start);
        self.running.starts(&stage, false);
        let bucketing = Bucketing { keys: Vec::new(), buckets: 1, divisor: 1, ranges: None };
        let spec = WriteSpec { id, bucketing, budget: Arc::clone(&self.budget), bounds: false };
        let exchange = self.write(stage, spec).await?;
        self.running.adapted(share_subplan(start, &exchange, what, shared.paths.len()));
        for path in &shared.paths {
            let leaf = ExchangeLeaf::plan(Arc::clone(&exchange), Arc::clone(&schema));
            logical = replace_at(logical, path, leaf)?;
        }
        Ok(logical)
    }

    /// Runs the inputs of the join at `boundary` as far as knowing them can change the plan; returns the plan with leaves in their place. After an
    /// input with other rows than were expected it stops: the other one may have to be joined later. `begun`: it goes on after that.
    async fn stage_join(
        &self,
        logical: LogicalPlan,
        boundary: &Boundary,
        begun: bool,
        exchanges: &mut usize,
        start: Instant,
    ) -> Result<(LogicalPlan, Staged)> {
        let Some(LogicalPlan::Join(join)) = at_path(&logical, &boundary.path) else {
            return Ok((logical, Staged::Enough));
        };
        let Some(keys) = Keys::of(join) else { return Ok((logical, Staged::Enough)) };
        let mut join = join.clone();
        let planned = self.plan(&LogicalPlan::Join(join.clone())).await?;
        let Some(shape) = Shape::of(&planned) else { return Ok((logical, Staged::Enough)) };
        let buckets = self.buckets(join_buckets(&join, &keys), shape.side_bytes);
        let begun = (begun && !self.settings.broadcast) || boundary.broadcasts;
        if shape.mode != PartitionMode::Partitioned && self.trusts(&shape) && !begun {
            // What lies below has turned out such that the planner takes another algorithm now.
            if self.settings.broadcast && shape.over_exchange {
                self.running.adapted(broadcast(start, keys.texts(), None, boundary.expected_rows));
            }
            return Ok((logical, Staged::Enough));
        }
        let mut learned = self.learned(&join, &keys);
        // What is smaller runs first: it is the likelier one to make the other needless, and to say what of it is not to be read.
        let stages = [self.plan(&join.left).await?, self.plan(&join.right).await?];
        let sides = order(&stages);
        let [left, right] = stages;
        let mut stages = [
            (!self.stays(&join.left, &keys.left, buckets)).then_some(left),
            (!self.stays(&join.right, &keys.right, buckets)).then_some(right),
        ];
        let mut surprised = false;
        for side in sides.into_iter().take(self.sides) {
            let (input, key) = match side {
                Side::Left => (&join.left, &keys.left),
                Side::Right => (&join.right, &keys.right),
            };
            let Some(mut stage) = stages[usize::from(side == Side::Right)].take() else { continue };
            if surprised {
                return Ok((replace_at(logical, &boundary.path, LogicalPlan::Join(join))?, Staged::First));
            }
            let expected = expected_rows(&stage);
            let applied = learned.take().filter(|(learned, _)| learned.may_reduce(&stage));
            if let Some((learned, from)) = &applied {
                stage = self.plan(&learned.over(input, from)?).await?;
            }
            let Some(bucketing) = self.bucketing(&stage, input, key, buckets) else {
                return Ok((logical, Staged::Enough));
            };
            let schema = Arc::clone(input.schema());
            let id = std::mem::replace(exchanges, *exchanges + 1);
            self.note_splits(&stage, start);
            self.running.starts(&stage, false);
            let waits = stages.iter().any(Option::is_some);
            let bounds = waits && self.settings.push_keys && self.pushes_filters() && may_filter(&join, side);
            let spec = WriteSpec { id, bucketing, budget: Arc::clone(&self.budget), bounds };
            let exchange = self.write(stage, spec).await?;
            let (other, other_key) = match side {
                Side::Left => (&join.right, &keys.right),
                Side::Right => (&join.left, &keys.left),
            };
            learned = Learned::of(&exchange.facts, other, other_key).map(|learned| (learned, Arc::clone(&exchange)));
            if let Some((filter, from)) = &applied {
                let on = keys.texts();
                self.running.adapted(push_keys(start, on, &exchange, from, filter.listed(), expected));
            }
            self.remember(&exchange, boundary, usize::from(side == Side::Right), key);
            let leaf = Arc::new(ExchangeLeaf::plan(Arc::clone(&exchange), schema));
            match side {
                Side::Left => join.left = leaf,
                Side::Right => join.right = leaf,
            }
            if self.settings.skip_empty && exchange.size().rows == 0 && is_empty_with(join.join_type, side) {
                self.running.adapted(skip_empty(start, &exchange, keys.texts()));
                let schema = Arc::clone(&join.schema);
                let empty = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema });
                return Ok((replace_at(logical, &boundary.path, empty)?, Staged::Enough));
            }
            let forced = self.settings.mode == AdaptiveMode::Force;
            surprised = self.reorderer.is_some() && Surprise::of(Arc::clone(&exchange), forced).is_some();
            let short = self.reach == Reach::AfterExhaustion;
            if !self.settings.broadcast && !short {
                continue;
            }
            let planned = self.plan(&LogicalPlan::Join(join.clone())).await?;
            let Some(shape) = Shape::of(&planned).filter(|shape| self.trusts(shape)) else { continue };
            match (shape.mode, boundary.broadcasts) {
                (PartitionMode::Partitioned, true) if waits => {
                    self.running.adapted(partition(start, keys.texts(), &exchange, expected));
                }
                (PartitionMode::Partitioned, _) => {}
                (_, true) => break,
                (_, false) => {
                    self.running.adapted(broadcast(start, keys.texts(), Some(&exchange), boundary.expected_rows));
                    break;
                }
            }
            let other = if side == Side::Left { &join.right } else { &join.left };
            if short && self.fits(&exchange) && !joins(other) {
                break;
            }
        }
        Ok((replace_at(logical, &boundary.path, LogicalPlan::Join(join))?, Staged::Enough))
    }

    /// What the input of `join` that is an exchange by its keys says of those of the other one.
    fn learned(&self, join: &Join, keys: &Keys) -> Option<(Learned, Arc<Exchange>)> {
        let sides = [
            (Side::Left, &join.left, &keys.left, &join.right, &keys.right),
            (Side::Right, &join.right, &keys.right, &join.left, &keys.left),
        ];
        let pushes = self.settings.push_keys && self.pushes_filters();
        sides.into_iter().filter(|(side, ..)| pushes && may_filter(join, *side)).find_map(
            |(_, input, key, other, other_key)| {
                let exchange = ExchangeLeaf::whole(input)?;
                divided_by(exchange, input, key)?;
                Some((Learned::of(&exchange.facts, other, other_key)?, Arc::clone(exchange)))
            },
        )
    }

    /// True if `input` is an exchange that the join can read as it is, in `buckets` buckets by `keys`.
    fn stays(&self, input: &LogicalPlan, keys: &[Expr], buckets: usize) -> bool {
        let Some(exchange) = ExchangeLeaf::of(input) else { return false };
        // What is divided otherwise cannot be joined bucket by bucket; where a build side would not fit, it is divided once more.
        let fits = exchange.size().hash_table() / self.limits.slots.max(1) as u64 <= self.limits.build_bytes;
        fits || divided_by(exchange, input, keys) == Some(buckets)
    }

    /// True if DataFusion's joins may make filters for their probe sides.
    fn pushes_filters(&self) -> bool {
        let optimizer = &self.state.config_options().optimizer;
        optimizer.enable_dynamic_filter_pushdown && optimizer.enable_join_dynamic_filter_pushdown
    }

    /// False if memory is short and what the join builds on may be larger than the planner expects. With one slot there is but one table.
    fn trusts(&self, shape: &Shape) -> bool {
        self.reach != Reach::AfterExhaustion || self.limits.slots == 1 || shape.builds_exchange
    }

    /// True if hash tables over `exchange`, one for each slot, are within what a slot may have.
    fn fits(&self, exchange: &Exchange) -> bool {
        let tables = exchange.partitions(self.limits.slots).into_iter().map(Size::hash_table);
        tables.max().unwrap_or(0) <= self.limits.build_bytes
    }

    /// Buckets of an exchange of rows that come from `scanned_bytes` bytes of files; `given` where another exchange is divided alike.
    pub(super) fn buckets(&self, given: Option<usize>, scanned_bytes: u64) -> usize {
        if let Some(given) = given {
            return given;
        }
        let partitions = self.limits.slots;
        // Files are smaller than their rows in memory; a bucket should be well below what a hash table may have.
        let expected = scanned_bytes.saturating_mul(BYTES_IN_MEMORY);
        let for_memory = usize::try_from(expected / (self.limits.build_bytes / 4).max(1)).unwrap_or(usize::MAX);
        let wanted = (partitions * BUCKETS_PER_PARTITION).max(for_memory).clamp(*BUCKETS.start(), *BUCKETS.end());
        // A multiple of a power of two: keys are then counted by some buckets alone.
        partitions * wanted.div_ceil(partitions).next_multiple_of(BUCKETS_PER_PARTITION)
    }

    /// How the rows of `stage` are divided into `buckets` by `keys`, the key columns of the logical plan `input`.
    pub(super) fn bucketing(
        &self,
        stage: &Arc<dyn ExecutionPlan>,
        input: &LogicalPlan,
        keys: &[Expr],
        buckets: usize,
    ) -> Option<Bucketing> {
        let schema = stage.schema();
        let keys = keys
            .iter()
            .map(|key| {
                let Expr::Column(column) = key else { return None };
                let at = input.schema().maybe_index_of_column(column)?;
                Some(Arc::new(Column::new(schema.fields().get(at)?.name(), at)) as PhysicalExprRef)
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Bucketing { keys, buckets, divisor: 1, ranges: None })
    }

    /// Records the joins of `plan` that were divided.
    pub(super) fn note_splits(&self, plan: &Arc<dyn ExecutionPlan>, start: Instant) {
        if let Some(join) = AdaptiveJoinExec::of(plan) {
            let force = self.settings.mode == AdaptiveMode::Force;
            self.running.adapted(divide_join(start, join, self.limits.slots, force));
        }
        plan.children().into_iter().for_each(|child| self.note_splits(child, start));
    }
}

/// What of the inputs of a join has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Staged {
    /// The first one, which had other rows than were expected.
    First,
    /// All that is to run before the join.
    Enough,
}

/// Smallest task in weights (rows probed): below, starting it costs more than it spreads.
const MIN_TASK: u64 = 128 << 10;

/// An input of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
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

/// Buckets of the input of `join` that is an exchange by its keys already: the other one must be divided alike.
fn join_buckets(join: &Join, keys: &Keys) -> Option<usize> {
    let sides = [(&join.left, &keys.left), (&join.right, &keys.right)];
    sides.into_iter().find_map(|(input, keys)| divided_by(ExchangeLeaf::of(input)?, input, keys))
}

/// Buckets of `exchange`, whose leaf is `leaf`, if it is divided by `keys`.
fn divided_by(exchange: &Exchange, leaf: &LogicalPlan, keys: &[Expr]) -> Option<usize> {
    let Bucketing { keys: own, buckets, divisor: 1, ranges: None } = &exchange.bucketing else { return None };
    let is = |(key, own): (&Expr, &PhysicalExprRef)| {
        let Expr::Column(key) = key else { return false };
        let own = own.downcast_ref::<Column>().map(Column::index);
        own.is_some() && own == leaf.schema().maybe_index_of_column(key)
    };
    (keys.len() == own.len() && keys.iter().zip(own).all(is)).then_some(*buckets)
}

/// How the planner would run a join.
struct Shape {
    mode: PartitionMode,
    /// An input is a finished exchange.
    over_exchange: bool,
    /// The build side is the rows of a finished exchange.
    builds_exchange: bool,
    /// Bytes of files that the larger of the inputs reads.
    side_bytes: u64,
}

impl Shape {
    /// Of the topmost hash join of `plan`, below operators with one input.
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let mut at = plan;
        loop {
            if let Some(join) = at.downcast_ref::<HashJoinExec>() {
                let over_exchange = [join.left(), join.right()].into_iter().any(reads_exchange);
                let side_bytes = scanned_bytes(join.left()).max(scanned_bytes(join.right()));
                return Some(Self {
                    mode: *join.partition_mode(),
                    over_exchange,
                    builds_exchange: is_exchange(join.left()),
                    side_bytes,
                });
            }
            if AdaptiveJoinExec::of(at).is_some() {
                return Some(Self {
                    mode: PartitionMode::Partitioned,
                    over_exchange: true,
                    builds_exchange: true,
                    side_bytes: 0,
                });
            }
            let children = at.children();
            let [only] = children.as_slice() else { return None };
            at = only;
        }
    }
}

/// The inputs of a join with these plans, the one first that is expected to have fewer rows; by their files where nobody knows.
fn order([left, right]: &[Arc<dyn ExecutionPlan>; 2]) -> [Side; 2] {
    let left_first = match (expected_rows(left), expected_rows(right)) {
        (Some(left), Some(right)) => left <= right,
        _ => scanned_bytes(left) <= scanned_bytes(right),
    };
    if left_first { [Side::Left, Side::Right] } else { [Side::Right, Side::Left] }
}

/// Rows that `plan` is expected to give.
pub(super) fn expected_rows(plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    let statistics = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new());
    statistics.ok().and_then(|s| s.num_rows.get_value().map(|rows| *rows as u64))
}

/// True if `plan` has a join, whose hash table would be there at the same time as that of a join above.
fn joins(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Join(_)))).unwrap_or(true)
}

/// True if the rows of `plan` are those of a finished exchange.
fn is_exchange(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut at = plan;
    while let [only] = at.children().as_slice()
        && (at.is::<ProjectionExec>() || at.is::<RepartitionExec>() || at.is::<CoalescePartitionsExec>())
    {
        at = only;
    }
    at.is::<ExchangeReaderExec>()
}

fn reads_exchange(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<ExchangeReaderExec>() || plan.children().into_iter().any(reads_exchange)
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
