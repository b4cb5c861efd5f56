//! Physical plans to the canonical form.
//!
//! Operators that move, merge, sort or buffer rows are transparent; what the physical optimizer pushed into scans and joins counts the
//! same as the logical operators that it came from.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::window::{PlainAggregateWindowExpr, SlidingAggregateWindowExpr, StandardWindowExpr};
use datafusion::physical_expr::{PhysicalExpr, PhysicalExprRef, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateInputMode, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec, SymmetricHashJoinExec,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::partial_sort::PartialSortExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec, WindowUDFExpr};
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, WindowExpr};
use sparklet_history::Fingerprint;

use super::canon::{Canon, Lowered};
use super::expression::{AggregateCall, Columns, Expressions, Opaque, Subqueries, project};
use super::operator::{JoinConditions, JoinKind, Sides};
use super::term::TermId;
use super::{Identity, PhysicalFingerprints, Reads, versioned};
use crate::source::SourceNames;

/// Operators of one input whose rows are the rows of that input, in any order.
const TRANSPARENT: [&str; 11] = [
    "ExchangeReaderExec",
    "RepartitionExec",
    "CoalescePartitionsExec",
    "CoalesceBatchesExec",
    "SortPreservingMergeExec",
    "SortExec",
    "SortExec(TopK)",
    "PartialSortExec",
    "CooperativeExec",
    "BufferExec",
    "OutputRequirementExec",
];

/// See [`super::fingerprint_physical`].
pub(crate) fn fingerprint(plan: &Arc<dyn ExecutionPlan>, sources: &dyn SourceNames) -> PhysicalFingerprints {
    let mut lowering = Physical {
        canon: Canon::new(),
        sources,
        nodes: Vec::new(),
        reads: Vec::new(),
        cursor: 0,
        subqueries: Subqueries::default(),
        recursions: Vec::new(),
    };
    lowering.plan(plan, None);
    let sources = lowering.canon.sources();
    PhysicalFingerprints { nodes: lowering.nodes, reads: lowering.reads, sources, texts: lowering.canon.texts }
}

/// A lowering of one physical plan.
pub(super) struct Physical<'a> {
    pub(super) canon: Canon,
    pub(super) sources: &'a dyn SourceNames,
    /// Identities in pre-order.
    nodes: Vec<Option<Identity>>,
    /// As `nodes`.
    reads: Vec<Reads>,
    /// Position of the next node in pre-order.
    cursor: usize,
    subqueries: Subqueries,
    /// Names of the recursive queries around.
    recursions: Vec<String>,
}

/// Whether the rows that a node puts out are those of its lowered form.
pub(super) enum Rows {
    Its,
    /// No logical subplan has just these rows.
    Other,
}

/// See [`Physical::plan`].
pub(super) type Demand = Option<usize>;

impl Physical<'_> {
    /// Lowers `plan`. `demand`: no more than so many of its rows are taken, whichever come first; a smaller or equal limit met below is
    /// a consequence of the limit above and no part of the logical subplan.
    #[recursive::recursive]
    fn plan(&mut self, plan: &Arc<dyn ExecutionPlan>, demand: Demand) -> Lowered {
        let position = self.cursor;
        self.cursor += 1;
        if self.nodes.len() <= position {
            self.nodes.resize(position + 1, None);
            self.reads.resize(position + 1, Reads::default());
        }
        let before = std::mem::take(&mut self.canon.read);
        let stage = if plan.children().is_empty() { self.sources.by_stage(plan.as_ref()) } else { None };
        let (mut lowered, rows) = match stage {
            Some(stage) => (self.aside(&stage, demand), Rows::Its),
            None => self.operator(plan.as_ref(), demand),
        };
        self.reads[position] = self.canon.read;
        self.canon.read = before.and(self.canon.read);
        if matches!(rows, Rows::Its) {
            self.nodes[position] = self.canon.identity(&mut lowered);
            self.states(plan.as_ref(), position);
        }
        lowered
    }

    /// Names the states that the aggregate at `position` is made of, and whatever moves them: they are no rows of a subplan, but how many there are
    /// follows from it, the number of partitions, and how its keys lie.
    fn states(&mut self, plan: &dyn ExecutionPlan, position: usize) {
        let Some(aggregate) = plan.downcast_ref::<AggregateExec>() else { return };
        let Some(whole) = self.nodes.get(position).copied().flatten() else { return };
        if !matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned) {
            return;
        }
        let mut next = aggregate.input();
        let mut last = position + 1;
        let partial = loop {
            if let Some(partial) = next.downcast_ref::<AggregateExec>() {
                break partial;
            }
            let children = next.children();
            let [input] = children.as_slice() else { return };
            next = *input;
            last += 1;
        };
        let unnamed = self.nodes.get(position + 1..=last).is_some_and(|nodes| nodes.iter().all(Option::is_none));
        if !unnamed || partial.mode().input_mode() != AggregateInputMode::Raw || partial.group_expr().is_empty() {
            return;
        }
        let partitions = next.output_partitioning().partition_count();
        let [exact, blind] = [whole.fingerprint, whole.template].map(|of| {
            let text = format!("states of {of} in {partitions} partitions");
            let name = Fingerprint::of(&text);
            self.canon.texts.insert(name, text);
            name
        });
        for at in position + 1..=last {
            self.nodes[at] = Some(Identity { fingerprint: exact, template: blind });
            self.reads[at] = self.reads[position];
        }
    }

    fn operator(&mut self, plan: &dyn ExecutionPlan, demand: Demand) -> (Lowered, Rows) {
        if let Some(exec) = plan.downcast_ref::<DataSourceExec>() {
            return self.scan(exec, demand);
        }
        if let Some(exec) = plan.downcast_ref::<GlobalLimitExec>() {
            let needed = exec.fetch().map(|f| f + exec.skip());
            let hint = exec.skip() == 0 && demand.is_some_and(|d| exec.fetch().is_some_and(|f| d <= f));
            let input = self.plan(exec.input(), needed.or(demand.map(|d| d.saturating_add(exec.skip()))));
            return match hint {
                true => (input, Rows::Other),
                false => (self.canon.limit(input, exec.skip(), exec.fetch()), Rows::Its),
            };
        }
        if let Some(exec) = plan.downcast_ref::<LocalLimitExec>() {
            let input = self.plan(exec.input(), Some(exec.fetch()));
            return self.fetch(input, plan, Some(exec.fetch()), demand);
        }
        let children = plan.children();
        if TRANSPARENT.contains(&plan.name())
            && let [input] = children.as_slice()
        {
            return self.transparent(plan, input, demand);
        }
        let fetch = plan.fetch();
        let lowered = if let Some(exec) = plan.downcast_ref::<ProjectionExec>() {
            let input = self.plan(exec.input(), demand);
            let exprs: Vec<&Arc<dyn PhysicalExpr>> = exec.expr().iter().map(|e| &e.expr).collect();
            self.projection(input, &exprs, &exec.input().schema())
        } else if let Some(exec) = plan.downcast_ref::<FilterExec>() {
            let mut input = self.plan(exec.input(), None);
            self.filter(&mut input, exec.predicate(), &exec.input().schema());
            projected(input, exec.projection().as_deref())
        } else if let Some(exec) = plan.downcast_ref::<AggregateExec>() {
            match self.aggregate(exec) {
                Some(lowered) => lowered,
                None => return (Lowered::unknown(exec.schema().fields().len()), Rows::Other),
            }
        } else if let Some(exec) = plan.downcast_ref::<ScalarSubqueryExec>() {
            self.scalar_subqueries(exec, demand)
        } else if let Some(lowered) = self.join(plan, demand) {
            lowered
        } else if let Some(exec) = plan.downcast_ref::<WindowAggExec>() {
            self.window(exec.input(), exec.window_expr(), None)
        } else if let Some(exec) = plan.downcast_ref::<BoundedWindowAggExec>() {
            // The planner pushes limits past windows into the sort below.
            self.window(exec.input(), exec.window_expr(), demand)
        } else {
            self.other(plan, &children, demand)
        };
        self.fetch(lowered, plan, fetch, demand)
    }

    /// Applies the limit that `plan` carries.
    pub(super) fn fetch(
        &mut self,
        lowered: Lowered,
        plan: &dyn ExecutionPlan,
        fetch: Option<usize>,
        demand: Demand,
    ) -> (Lowered, Rows) {
        match fetch {
            None => (lowered, Rows::Its),
            Some(_) if plan.output_partitioning().partition_count() > 1 => (lowered, Rows::Other),
            Some(fetch) if demand.is_some_and(|d| d <= fetch) => (lowered, Rows::Other),
            Some(fetch) => (self.canon.limit(lowered, 0, Some(fetch)), Rows::Its),
        }
    }

    fn transparent(
        &mut self,
        plan: &dyn ExecutionPlan,
        input: &Arc<dyn ExecutionPlan>,
        demand: Demand,
    ) -> (Lowered, Rows) {
        let fetch = plan.fetch();
        let order = plan
            .downcast_ref::<SortExec>()
            .map(|sort| sort.expr())
            .or_else(|| plan.downcast_ref::<SortPreservingMergeExec>().map(|merge| merge.expr()))
            .or_else(|| plan.downcast_ref::<PartialSortExec>().map(|sort| sort.expr()));
        let sorts = plan.is::<SortExec>() || plan.is::<PartialSortExec>();
        let below = match (sorts, fetch) {
            (true, _) => None,
            (false, Some(fetch)) => Some(demand.map_or(fetch, |d| d.min(fetch))),
            (false, None) => demand,
        };
        let mut lowered = self.plan(input, below);
        if let Some(order) = order {
            lowered.order = self.order(&lowered.columns, &plan.schema(), order);
        }
        self.fetch(lowered, plan, fetch, demand)
    }

    pub(super) fn expressions<'s>(&'s mut self, columns: &'s [Option<TermId>], schema: &'s Schema) -> Expressions<'s> {
        Expressions { canon: &mut self.canon, columns: Columns::ByIndex(columns), schema, subqueries: &self.subqueries }
    }

    fn order<'k>(
        &mut self,
        columns: &[Option<TermId>],
        schema: &Schema,
        keys: impl IntoIterator<Item = &'k PhysicalSortExpr>,
    ) -> Vec<TermId> {
        let mut expressions = self.expressions(columns, schema);
        keys.into_iter().map_while(|key| expressions.sort_key(key)).collect()
    }

    pub(super) fn projection(
        &mut self,
        mut input: Lowered,
        exprs: &[&Arc<dyn PhysicalExpr>],
        schema: &Schema,
    ) -> Lowered {
        let mut volatile = false;
        let mut expressions = self.expressions(&input.columns, schema);
        let columns = exprs
            .iter()
            .map(|expr| match expressions.lower(expr) {
                Ok(term) => Some(term),
                Err(opaque) => {
                    volatile |= opaque == Opaque::Volatile;
                    None
                }
            })
            .collect();
        if volatile {
            return Lowered::unknown(exprs.len());
        }
        input.columns = columns;
        input
    }

    pub(super) fn filter(&mut self, input: &mut Lowered, predicate: &Arc<dyn PhysicalExpr>, schema: &Schema) {
        let conditions = self.expressions(&input.columns, schema).conjuncts(predicate);
        for condition in conditions {
            self.canon.filter(input, condition);
        }
    }

    fn aggregate(&mut self, exec: &AggregateExec) -> Option<Lowered> {
        let partial = match exec.mode() {
            AggregateMode::Single | AggregateMode::SinglePartitioned => return Some(self.raw_aggregate(exec)),
            AggregateMode::Final | AggregateMode::FinalPartitioned => self.partial_below(exec.input()),
            AggregateMode::Partial | AggregateMode::PartialReduce => {
                self.plan(exec.input(), None);
                None
            }
        };
        partial.map(|partial| self.raw_aggregate(&partial))
    }

    /// Finds the partial aggregate under a final one, which may have exchanges between them; their rows are states, not rows.
    fn partial_below(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Option<AggregateExec> {
        let mut next = Arc::clone(plan);
        loop {
            if let Some(aggregate) = next.downcast_ref::<AggregateExec>()
                && aggregate.mode().input_mode() == AggregateInputMode::Raw
            {
                self.skip_node();
                return Some(aggregate.clone());
            }
            let reduces = next.downcast_ref::<AggregateExec>().is_some();
            let children = next.children();
            match children.as_slice() {
                [input] if reduces || TRANSPARENT.contains(&next.name()) => {
                    self.skip_node();
                    let input = Arc::clone(input);
                    next = input;
                }
                _ => {
                    self.plan(&next, None);
                    return None;
                }
            }
        }
    }

    /// Lowers a plan whose nodes are not part of the tree.
    fn aside(&mut self, plan: &Arc<dyn ExecutionPlan>, demand: Demand) -> Lowered {
        let outer =
            (std::mem::take(&mut self.nodes), std::mem::take(&mut self.reads), std::mem::take(&mut self.cursor));
        let lowered = self.plan(plan, demand);
        (self.nodes, self.reads, self.cursor) = outer;
        lowered
    }

    fn skip_node(&mut self) {
        self.cursor += 1;
        if self.nodes.len() < self.cursor {
            self.nodes.resize(self.cursor, None);
            self.reads.resize(self.cursor, Reads::default());
        }
    }

    fn raw_aggregate(&mut self, exec: &AggregateExec) -> Lowered {
        let input = self.plan(exec.input(), None);
        let group = exec.group_expr();
        let schema = exec.input().schema();
        let mut expressions = self.expressions(&input.columns, &schema);
        let keys: Vec<Option<TermId>> = group.expr().iter().map(|(expr, _)| expressions.term(expr)).collect();
        let mut aggregates = Vec::with_capacity(exec.aggr_expr().len());
        for (function, filter) in exec.aggr_expr().iter().zip(exec.filter_expr()) {
            let args = function.expressions();
            let call = AggregateCall {
                name: versioned(function.fun().name(), function.fun().aliases()),
                args: args.iter().map(|arg| expressions.term(arg)).collect(),
                distinct: function.is_distinct(),
                ignore_nulls: function.ignore_nulls(),
                order: function
                    .order_bys()
                    .iter()
                    .map(|key| (expressions.term(&key.expr), key.options.descending, key.options.nulls_first))
                    .collect(),
                filter: filter.as_ref().map(|filter| expressions.term(filter)),
            };
            aggregates.push(expressions.canon.aggregate_function(call));
        }
        let sets = group.has_grouping_set().then(|| {
            let kept =
                |nulls: &Vec<bool>| nulls.iter().enumerate().filter(|(_, null)| !**null).map(|(i, _)| i).collect();
            group.groups().iter().map(kept).collect()
        });
        self.canon.aggregate(input, keys, sets, aggregates)
    }

    fn scalar_subqueries(&mut self, exec: &ScalarSubqueryExec, demand: Demand) -> Lowered {
        let input_at = self.cursor;
        self.cursor += count_nodes(exec.input());
        for link in exec.subqueries() {
            let mut subquery = self.plan(&link.plan, None);
            let columns = std::mem::take(&mut subquery.columns);
            let key = self.canon.scalar_subquery(subquery, &columns);
            let field = link.plan.schema();
            let reader = ScalarSubqueryExpr::new(
                field.fields().first().map_or(DataType::Null, |f| f.data_type().clone()),
                true,
                link.index,
                exec.results().clone(),
            );
            self.subqueries.insert(reader, key);
        }
        let asked = self.canon.read;
        let end = std::mem::replace(&mut self.cursor, input_at);
        let lowered = self.plan(exec.input(), demand);
        for reads in self.reads.iter_mut().take(self.cursor).skip(input_at) {
            *reads = reads.and(asked);
        }
        self.cursor = end;
        lowered
    }

    fn join(&mut self, plan: &dyn ExecutionPlan, demand: Demand) -> Option<Lowered> {
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            let kind =
                JoinKind { join_type: join.join_type, null_equality: join.null_equality, null_aware: join.null_aware };
            let lowered = self.join_of(&join.left, &join.right, kind, &join.on, join.filter.as_ref(), demand);
            return Some(projected(lowered, join.projection.as_deref()));
        }
        if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
            let kind = JoinKind { join_type: join.join_type(), null_equality: join.null_equality(), null_aware: false };
            return Some(self.join_of(join.left(), join.right(), kind, join.on(), join.filter().as_ref(), demand));
        }
        if let Some(join) = plan.downcast_ref::<SymmetricHashJoinExec>() {
            let kind =
                JoinKind { join_type: *join.join_type(), null_equality: join.null_equality(), null_aware: false };
            return Some(self.join_of(join.left(), join.right(), kind, join.on(), join.filter(), demand));
        }
        let plain =
            |join_type| JoinKind { join_type, null_equality: NullEquality::NullEqualsNothing, null_aware: false };
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            let lowered = self.join_of(join.left(), join.right(), plain(*join.join_type()), &[], join.filter(), demand);
            return Some(projected(lowered, join.projection().as_deref()));
        }
        if let Some(join) = plan.downcast_ref::<CrossJoinExec>() {
            return Some(self.join_of(join.left(), join.right(), plain(JoinType::Inner), &[], None, demand));
        }
        None
    }

    fn join_of(
        &mut self,
        left: &Arc<dyn ExecutionPlan>,
        right: &Arc<dyn ExecutionPlan>,
        kind: JoinKind,
        on: &[(PhysicalExprRef, PhysicalExprRef)],
        filter: Option<&JoinFilter>,
        demand: Demand,
    ) -> Lowered {
        let demands = pushed_demand(kind.join_type, on.is_empty() && filter.is_none(), demand);
        let schemas = [left.schema(), right.schema()];
        let left = self.plan(left, demands[0]);
        let right = self.plan(right, demands[1]);
        let subqueries = &self.subqueries;
        let on = JoinOn { schemas, keys: on, filter };
        self.canon.join(left, right, kind, |canon, sides| on.conditions(canon, subqueries, &sides))
    }

    fn window(&mut self, input: &Arc<dyn ExecutionPlan>, functions: &[Arc<dyn WindowExpr>], demand: Demand) -> Lowered {
        let schema = input.schema();
        let input = self.plan(input, demand);
        let terms =
            functions.iter().map(|function| self.window_function(&input.columns, &schema, function.as_ref())).collect();
        self.canon.window(input, terms)
    }

    fn window_function(
        &mut self,
        columns: &[Option<TermId>],
        schema: &Schema,
        function: &dyn WindowExpr,
    ) -> Option<TermId> {
        let any = function.as_any();
        let aggregate =
            any.downcast_ref::<PlainAggregateWindowExpr>().map(PlainAggregateWindowExpr::get_aggregate_expr).or_else(
                || any.downcast_ref::<SlidingAggregateWindowExpr>().map(SlidingAggregateWindowExpr::get_aggregate_expr),
            );
        let mut expressions = self.expressions(columns, schema);
        let call = if let Some(aggregate) = aggregate {
            // There is no accessor either; without the filter two functions would be one.
            if format!("{function:?}").contains("filter: Some(") {
                return None;
            }
            let args = aggregate.expressions();
            let call = AggregateCall {
                name: versioned(aggregate.fun().name(), aggregate.fun().aliases()),
                args: args.iter().map(|arg| expressions.term(arg)).collect(),
                distinct: aggregate.is_distinct(),
                ignore_nulls: aggregate.ignore_nulls(),
                order: Vec::new(),
                filter: None,
            };
            expressions.canon.aggregate_function(call)?
        } else {
            let standard = any.downcast_ref::<StandardWindowExpr>()?.get_standard_func_expr();
            let udf = standard.as_any().downcast_ref::<WindowUDFExpr>()?;
            let args: Vec<TermId> = udf.args().iter().map(|arg| expressions.term(arg)).collect::<Option<_>>()?;
            // There is no accessor; without it `lag(x)` and `lag(x) ignore nulls` would be one.
            let ignore_nulls = format!("{udf:?}").contains("ignore_nulls: true");
            let name =
                if ignore_nulls { format!("{} ignore nulls", udf.fun().name()) } else { udf.fun().name().to_owned() };
            expressions.canon.function(&name, &args, &[])
        };
        let partition: Vec<TermId> =
            function.partition_by().iter().map(|e| expressions.term(e)).collect::<Option<_>>()?;
        let order: Vec<TermId> =
            function.order_by().iter().map(|key| expressions.sort_key(key)).collect::<Option<_>>()?;
        let frame = function.get_window_frame().to_string();
        Some(expressions.canon.over_window(call, partition, order, &frame))
    }

    fn other(&mut self, plan: &dyn ExecutionPlan, children: &[&Arc<dyn ExecutionPlan>], demand: Demand) -> Lowered {
        let width = plan.schema().fields().len();
        if let Some(exec) = plan.downcast_ref::<UnnestExec>() {
            let input = self.plan(exec.input(), None);
            let lists: Vec<(usize, usize)> =
                exec.list_column_indices().iter().map(|list| (list.index_in_input_schema, list.depth)).collect();
            let structs = exec.struct_column_indices();
            let output = unnested_columns(&exec.input().schema(), &lists, structs);
            if output.len() != width {
                return Lowered::unknown(width);
            }
            return self.canon.unnest(input, &lists, structs, exec.options().preserve_nulls(), &output);
        }
        if let Some(exec) = plan.downcast_ref::<RecursiveQueryExec>() {
            let first = self.plan(exec.static_term(), None);
            self.recursions.push(exec.name().to_owned());
            let step = self.plan(exec.recursive_term(), None);
            self.recursions.pop();
            return self.canon.recursive(first, step, exec.is_distinct());
        }
        if let Some(exec) = plan.downcast_ref::<WorkTableExec>() {
            let depth = self.recursions.iter().rev().position(|name| name == exec.name());
            let names: Vec<String> = plan.schema().fields().iter().map(|f| f.name().clone()).collect();
            return self.canon.work_table(depth, &names);
        }
        match (plan.name(), children) {
            ("UnionExec" | "InterleaveExec", inputs) => {
                let inputs = inputs.iter().map(|input| self.plan(input, demand)).collect();
                self.canon.union(inputs, width)
            }
            ("EmptyExec", []) => self.canon.no_source(0, width),
            ("PlaceholderRowExec", []) => self.canon.no_source(1, width),
            ("AnalyzeExec", [input]) => {
                self.plan(input, None);
                Lowered::unknown(width)
            }
            (_, []) => match self.sources.by_scan(plan) {
                Some(source) if source.filters.is_empty() => {
                    let atom = self.canon.source(&source.id);
                    let names: Vec<String> = plan.schema().fields().iter().map(|f| f.name().clone()).collect();
                    self.canon.named_columns(atom, &names)
                }
                _ => Lowered::unknown(width),
            },
            (_, inputs) => {
                for input in inputs {
                    self.plan(input, None);
                }
                Lowered::unknown(width)
            }
        }
    }
}

/// Limits that DataFusion pushes below a join.
pub(crate) fn pushed_demand(join_type: JoinType, cross: bool, demand: Demand) -> [Demand; 2] {
    match join_type {
        JoinType::Left => [demand, None],
        JoinType::Right => [None, demand],
        JoinType::Full => [demand, demand],
        _ if cross => [demand, demand],
        _ => [None, None],
    }
}

/// The conditions of a physical join.
struct JoinOn<'a> {
    schemas: [SchemaRef; 2],
    keys: &'a [(PhysicalExprRef, PhysicalExprRef)],
    filter: Option<&'a JoinFilter>,
}

impl JoinOn<'_> {
    fn conditions(&self, canon: &mut Canon, subqueries: &Subqueries, sides: &Sides<'_>) -> Option<JoinConditions> {
        let mut conditions = JoinConditions::default();
        let [left_schema, right_schema] = &self.schemas;
        for (left, right) in self.keys {
            let columns = Columns::ByIndex(sides.left);
            let a = Expressions { canon, columns, schema: left_schema, subqueries }.term(left)?;
            let columns = Columns::ByIndex(sides.right);
            let b = Expressions { canon, columns, schema: right_schema, subqueries }.term(right)?;
            conditions.equal.push((a, b));
        }
        if let Some(filter) = self.filter {
            let map = |column: &Column| {
                let at = filter.column_indices().get(column.index())?;
                match at.side {
                    JoinSide::Left => sides.left.get(at.index).copied().flatten(),
                    JoinSide::Right => sides.right.get(at.index).copied().flatten(),
                    JoinSide::None => None,
                }
            };
            let columns = Columns::Mapped(&map);
            let parts =
                Expressions { canon, columns, schema: filter.schema(), subqueries }.conjuncts(filter.expression());
            conditions.others = parts.into_iter().collect::<Option<_>>()?;
        }
        Some(conditions)
    }
}

fn projected(lowered: Lowered, projection: Option<&[usize]>) -> Lowered {
    match projection {
        Some(indices) => project(lowered, indices),
        None => lowered,
    }
}

/// Nodes of a plan, itself included.
#[recursive::recursive]
fn count_nodes(plan: &Arc<dyn ExecutionPlan>) -> usize {
    1 + plan.children().into_iter().map(count_nodes).sum::<usize>()
}

/// Input column of each output column of an unnesting.
fn unnested_columns(input: &Schema, lists: &[(usize, usize)], structs: &[usize]) -> Vec<usize> {
    let mut output = Vec::new();
    for (i, field) in input.fields().iter().enumerate() {
        let copies = match field.data_type() {
            DataType::Struct(fields) if structs.contains(&i) => fields.len(),
            _ => lists.iter().filter(|(list, _)| *list == i).count().max(1),
        };
        output.extend(std::iter::repeat_n(i, copies));
    }
    output
}
