//! Aggregates and windows whose input runs first, divided by the key of their groups: what is hot is cut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::NullEquality;
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Window};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary};
use sparklet_history::{AdaptationKind, WindowSplit};

use super::AdaptiveMode;
use super::boundary::Boundary;
use super::driver::Driver;
use super::hot::{Packing, pack};
use super::leaf::{ExchangeLeaf, PartsLeaf};
use super::parts::{Part, PartsExec};
use super::path::{at_path, replace_at};
use super::windows::{How, Running, Windows};
use super::{clock, groups, prefix, record, windows};
use crate::exchange::slices::{sliced, whole};
use crate::exchange::{Bucketing, Exchange, ExchangeReaderExec, WriteSpec};
use crate::observe::scanned_bytes;

/// Where the tasks of hot groups are.
struct Hot {
    parts: Vec<Part>,
    /// CPU time of the tasks of the stages before.
    before: Vec<Duration>,
}

impl Driver {
    /// Runs the input of the aggregate at `boundary`; returns the plan with a leaf in its place, hot groups cut.
    pub(super) async fn stage_aggregate(
        &self,
        logical: LogicalPlan,
        boundary: &Boundary,
        exchanges: &mut usize,
        start: Instant,
    ) -> Result<LogicalPlan> {
        let Some(LogicalPlan::Aggregate(aggregate)) = at_path(&logical, &boundary.path) else { return Ok(logical) };
        let Some(Ok(distinct)) = groups::recognise(aggregate) else { return Ok(logical) };
        let mut aggregate = aggregate.clone();
        let (keys, input) = (aggregate.group_expr.clone(), Arc::clone(&aggregate.input));
        let kept = self.exchange_by(&input, &keys, boundary, exchanges, start).await?;
        let Some(exchange) = kept else { return Ok(logical) };
        aggregate.input = Arc::new(ExchangeLeaf::plan(Arc::clone(&exchange), Arc::clone(input.schema())));
        let left = LogicalPlan::Aggregate(aggregate.clone());
        let schema = Arc::clone(&aggregate.schema);
        let Some((template, packing)) = self.packed(&left, &exchange).await? else {
            return replace_at(logical, &boundary.path, left);
        };
        let Some(hot) = self.hot_groups(&aggregate, &distinct, &exchange, &template, &packing, exchanges).await? else {
            return replace_at(logical, &boundary.path, left);
        };
        let kind = AdaptationKind::SplitGroups {
            by: keys.iter().map(ToString::to_string).collect(),
            distinct: distinct.arguments(),
            hot_buckets: packing.hot.len() as u32,
            slices: self.slots() as u32,
        };
        let Some(leaf) = self.divided(template, hot, &packing, &exchange, kind, None, schema, start)? else {
            return replace_at(logical, &boundary.path, left);
        };
        replace_at(logical, &boundary.path, leaf)
    }

    /// As [`Self::stage_aggregate`], for a window.
    pub(super) async fn stage_window(
        &self,
        logical: LogicalPlan,
        boundary: &Boundary,
        exchanges: &mut usize,
        start: Instant,
    ) -> Result<LogicalPlan> {
        let Some(LogicalPlan::Window(window)) = at_path(&logical, &boundary.path) else { return Ok(logical) };
        let Some(Ok(divided)) = windows::recognise(window) else { return Ok(logical) };
        let mut window = window.clone();
        let input = Arc::clone(&window.input);
        let kept = self.exchange_by(&input, &divided.by, boundary, exchanges, start).await?;
        let Some(exchange) = kept else { return Ok(logical) };
        let leaf = ExchangeLeaf::plan(Arc::clone(&exchange), Arc::clone(input.schema()));
        window.input = Arc::new(leaf);
        let left = LogicalPlan::Window(window.clone());
        let Some((template, packing)) = self.packed(&left, &exchange).await? else {
            return replace_at(logical, &boundary.path, left);
        };
        let (hot, how) = match &divided.how {
            How::AggregateJoin(_) => {
                (self.hot_whole(&window, &divided, &exchange, &packing, exchanges).await?, WindowSplit::AggregateJoin)
            }
            How::Prefix(functions) => {
                let hot = self.hot_running(&window, &divided, functions, &exchange, &template, &packing, exchanges);
                (hot.await?, WindowSplit::Prefix)
            }
        };
        let Some(hot) = hot else { return replace_at(logical, &boundary.path, left) };
        let kind = AdaptationKind::SplitWindow {
            by: divided.by.iter().map(ToString::to_string).collect(),
            functions: Windows::functions(&window),
            how,
            hot_buckets: packing.hot.len() as u32,
            slices: hot.parts.iter().map(|part| part.weights.len() as u32).sum(),
        };
        let (rows, schema) = (Some(exchange.size().rows), Arc::clone(&window.schema));
        let Some(leaf) = self.divided(template, hot, &packing, &exchange, kind, rows, schema, start)? else {
            return replace_at(logical, &boundary.path, left);
        };
        replace_at(logical, &boundary.path, leaf)
    }

    /// Runs `input` into an exchange by `keys`; none where these cannot be hashed here.
    async fn exchange_by(
        &self,
        input: &LogicalPlan,
        keys: &[Expr],
        boundary: &Boundary,
        exchanges: &mut usize,
        start: Instant,
    ) -> Result<Option<Arc<Exchange>>> {
        let stage = self.plan(input).await?;
        let buckets = self.buckets(None, scanned_bytes(&stage));
        let Some(bucketing) = self.bucketing(&stage, input, keys, buckets) else { return Ok(None) };
        self.note_splits(&stage, start);
        self.running.starts(&stage, false);
        let exchange = self.keep(stage, bucketing, exchanges).await?;
        self.remember(&exchange, boundary, 0, keys);
        Ok(Some(exchange))
    }

    async fn keep(
        &self,
        stage: Arc<dyn ExecutionPlan>,
        bucketing: Bucketing,
        exchanges: &mut usize,
    ) -> Result<Arc<Exchange>> {
        let id = std::mem::replace(exchanges, *exchanges + 1);
        let spec = WriteSpec { id, bucketing, budget: Arc::clone(&self.budget), bounds: false };
        self.write(stage, spec).await
    }

    /// The physical plan of an operator over the exchange of its groups, and how that is packed; none where nothing is hot, or where the
    /// planner does not run it in one go over the exchange's own partitions.
    async fn packed(
        &self,
        operator: &LogicalPlan,
        exchange: &Arc<Exchange>,
    ) -> Result<Option<(Arc<dyn ExecutionPlan>, Packing)>> {
        let force = self.settings.mode == AdaptiveMode::Force;
        let Some(packing) = pack(&exchange.rows(), self.limits, force) else { return Ok(None) };
        let template = self.plan(operator).await?;
        Ok(over_reader(&template, &mut |reader| Ok(Arc::new(reader.clone())))?.is_some().then_some((template, packing)))
    }

    /// The hot groups of an aggregate, computed in two phases.
    async fn hot_groups(
        &self,
        aggregate: &Aggregate,
        distinct: &groups::Distinct,
        exchange: &Arc<Exchange>,
        template: &Arc<dyn ExecutionPlan>,
        packing: &Packing,
        exchanges: &mut usize,
    ) -> Result<Option<Hot>> {
        let rows = ExchangeLeaf::sliced(Arc::clone(exchange), Arc::clone(aggregate.input.schema()), &packing.hot);
        let plan = distinct.plan(aggregate, &rows)?;
        let (stage, clocks) = clock::wrap(self.plan(&plan).await?)?;
        if !same_types(&stage, template) {
            return Ok(None);
        }
        self.running.runs(&stage);
        let groups = self.keep(stage, undivided(), exchanges).await?;
        let mut before = groups.cost.task_cpu.clone();
        before.extend(clocks.read());
        let weights = vec![groups.size().rows];
        let plan = Arc::new(ExchangeReaderExec::even(groups, 1));
        Ok(Some(Hot { parts: vec![Part { plan, weights }], before }))
    }

    /// Hot partitions of a window over whole partitions: aggregated, and joined to their rows.
    async fn hot_whole(
        &self,
        window: &Window,
        divided: &Windows,
        exchange: &Arc<Exchange>,
        packing: &Packing,
        exchanges: &mut usize,
    ) -> Result<Option<Hot>> {
        let leaf = ExchangeLeaf::sliced(Arc::clone(exchange), Arc::clone(window.input.schema()), &packing.hot);
        let (stage, clocks) = clock::wrap(self.plan(&divided.totals(leaf)?).await?)?;
        self.running.runs(&stage);
        let totals = self.keep(stage, undivided(), exchanges).await?;
        let mut before = totals.cost.task_cpu.clone();
        before.extend(clocks.read());
        let keys = &exchange.bucketing.keys;
        let on = |(at, key): (usize, &PhysicalExprRef)| {
            let total: PhysicalExprRef = Arc::new(Column::new(totals.schema.field(at).name(), at));
            (total, Arc::clone(key))
        };
        let assignment = sliced(&exchange.rows(), &packing.hot, packing.slices);
        let weights = assignment.iter().map(|slices| slices.iter().map(|s| s.rows.end - s.rows.start).sum()).collect();
        let columns = totals.schema.fields().len();
        let join: Arc<dyn ExecutionPlan> = Arc::new(HashJoinExec::try_new(
            Arc::new(ExchangeReaderExec::even(Arc::clone(&totals), 1)),
            Arc::new(ExchangeReaderExec::assigned(Arc::clone(exchange), assignment)),
            keys.iter().enumerate().map(on).collect(),
            None,
            &datafusion::common::JoinType::Inner,
            None,
            PartitionMode::CollectLeft,
            NullEquality::NullEqualsNull,
            false,
        )?);
        let schema = join.schema();
        let ordered = (columns..schema.fields().len()).chain(keys.len()..columns).map(|at| {
            let name = schema.field(at).name();
            ProjectionExpr::new(Arc::new(Column::new(name, at)) as PhysicalExprRef, name.clone())
        });
        let plan = Arc::new(ProjectionExec::try_new(ordered.collect::<Vec<_>>(), join)?);
        Ok(Some(Hot { parts: vec![Part { plan, weights }], before }))
    }

    /// Hot partitions of a running window: in ranges, each with what those before it gave.
    #[expect(clippy::too_many_arguments, reason = "what the stages of one window need")]
    async fn hot_running(
        &self,
        window: &Window,
        divided: &Windows,
        functions: &[Running],
        exchange: &Arc<Exchange>,
        template: &Arc<dyn ExecutionPlan>,
        packing: &Packing,
        exchanges: &mut usize,
    ) -> Result<Option<Hot>> {
        let totals = self.plan(&divided.totals(window.input.as_ref().clone())?).await?;
        if over_reader(&totals, &mut |reader| Ok(Arc::new(reader.clone())))?.is_none() {
            return Ok(None);
        }
        let mut keys: Vec<_> =
            exchange.bucketing.keys.iter().map(|key| (Arc::clone(key), Default::default())).collect();
        for sort in &divided.order {
            let expr = self.state.create_physical_expr(sort.expr.clone(), window.input.schema())?;
            let options = arrow::compute::SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
            keys.push((expr, options));
        }
        let ranges = prefix::ranges(exchange, &packing.hot, &keys, packing.slices).await?;
        let bucketing = Bucketing {
            keys: keys.into_iter().map(|(key, _)| key).collect(),
            buckets: ranges.count(),
            divisor: 1,
            ranges: Some(Arc::new(ranges)),
        };
        let rows = sliced(&exchange.rows(), &packing.hot, self.slots());
        let stage: Arc<dyn ExecutionPlan> = Arc::new(ExchangeReaderExec::assigned(Arc::clone(exchange), rows));
        self.running.runs(&stage);
        let ranges = self.keep(stage, bucketing, exchanges).await?;
        let slice = |range: usize| vec![vec![whole(range, ranges.sizes[range].rows)]];
        let over = |plan: &Arc<dyn ExecutionPlan>, range: usize| -> Result<Arc<dyn ExecutionPlan>> {
            let reader = ExchangeReaderExec::assigned(Arc::clone(&ranges), slice(range));
            over_reader(plan, &mut |_| Ok(Arc::new(reader.clone())))?
                .ok_or_else(|| datafusion::common::internal_datafusion_err!("{} is not over one exchange", plan.name()))
        };
        let plans = (0..ranges.sizes.len()).map(|range| over(&totals, range)).collect::<Result<Vec<_>>>()?;
        let (totals, took) = prefix::totals(plans, divided.by.len(), functions, &self.context, self.slots()).await?;
        let carries = prefix::carries(totals)?;
        let schema = window.input.schema();
        let column = |key: &Expr| match key {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        };
        let Some(keys) = divided.by.iter().map(column).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let parts = carries
            .iter()
            .enumerate()
            .map(|(range, carry)| {
                let plan = prefix::carried(over(template, range)?, carry.as_ref(), &keys)?;
                Ok(Part { plan, weights: vec![ranges.sizes[range].rows] })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut before = ranges.cost.task_cpu.clone();
        before.extend(took);
        Ok(Some(Hot { parts, before }))
    }

    /// The leaf for an operator whose hot groups are `hot`, all others whole; its adaptation is noted.
    #[expect(clippy::too_many_arguments, reason = "what is known of one operator")]
    fn divided(
        &self,
        template: Arc<dyn ExecutionPlan>,
        hot: Hot,
        packing: &Packing,
        exchange: &Arc<Exchange>,
        kind: AdaptationKind,
        rows: Option<u64>,
        schema: datafusion::common::DFSchemaRef,
        start: Instant,
    ) -> Result<Option<LogicalPlan>> {
        let mut parts = hot.parts;
        let sizes = exchange.rows();
        for buckets in &packing.cold {
            let slices: Vec<_> = buckets.iter().map(|&bucket| whole(bucket, sizes[bucket])).collect();
            let weight = slices.iter().map(|slice| slice.rows.end).sum();
            let plan = over_reader(&template, &mut |reader| Ok(Arc::new(reader.reassigned(vec![slices.clone()]))))?;
            let Some(plan) = plan else { return Ok(None) };
            parts.push(Part { plan, weights: vec![weight] });
        }
        if parts.iter().any(|part| !same_types(&part.plan, &template)) {
            return Ok(None);
        }
        let gate = self.governor.clone().map(|governor| (governor, exchange.id));
        let parts = Arc::new(PartsExec::new(template, parts, hot.before, rows, self.slots(), gate));
        let force = self.settings.mode == AdaptiveMode::Force;
        self.running.adapted(record::split_groups(start, exchange, packing, kind, parts.number(), self.slots(), force));
        Ok(Some(PartsLeaf::plan(parts, schema)))
    }

    fn slots(&self) -> usize {
        self.limits.slots
    }
}

fn undivided() -> Bucketing {
    Bucketing { keys: Vec::new(), buckets: 1, divisor: 1, ranges: None }
}

/// `plan`, a chain of operators that work on each partition alone, over what `reader` makes of the leaf below them; none for any other plan.
fn over_reader(
    plan: &Arc<dyn ExecutionPlan>,
    reader: &mut dyn FnMut(&ExchangeReaderExec) -> Result<Arc<dyn ExecutionPlan>>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(leaf) = plan.downcast_ref::<ExchangeReaderExec>() {
        return reader(leaf).map(Some);
    }
    let moves =
        plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>();
    let children = plan.children();
    let [child] = children.as_slice() else { return Ok(None) };
    let partitions = |plan: &Arc<dyn ExecutionPlan>| plan.output_partitioning().partition_count();
    if moves || partitions(plan) != partitions(child) {
        return Ok(None);
    }
    let Some(child) = over_reader(child, reader)? else { return Ok(None) };
    replace_children_if_necessary(Arc::clone(plan), vec![child]).map(Some)
}

/// True if the columns of two plans have the same types.
fn same_types(a: &Arc<dyn ExecutionPlan>, b: &Arc<dyn ExecutionPlan>) -> bool {
    let (a, b) = (a.schema(), b.schema());
    a.fields().len() == b.fields().len()
        && a.fields().iter().zip(b.fields()).all(|(a, b)| a.data_type() == b.data_type())
}
