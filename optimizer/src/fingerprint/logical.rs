//! Logical plans to the canonical form.
//!
//! Expressions go through DataFusion's `create_physical_expr` first: what the physical planner rewrites (BETWEEN, IS TRUE, …) is then
//! rewritten here by the same code.

use std::sync::{Arc, LazyLock};

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, HashMap, HashSet};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::source_as_provider;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::physical_planning_context::{
    PhysicalPlanningContext, ScalarSubqueryResults, SubqueryIndex,
};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, FetchType, GroupingSet, Join, Limit, LogicalPlan, SkipType, Subquery,
    TableProviderFilterPushDown, TableScan, WindowFunctionDefinition,
};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::canon::{Canon, Lowered};
use super::expression::{AggregateCall, Columns, Expressions, Opaque, Subqueries};
use super::operator::{JoinConditions, JoinKind, Sides};
use super::physical::pushed_demand;
use super::scan::MAX_VALUES;
use super::term::TermId;
use super::{Identity, LogicalFingerprints, Reads, versioned};
use crate::source::SourceNames;

/// See [`super::fingerprint_logical`].
pub(crate) fn fingerprint(plan: &LogicalPlan, sources: &dyn SourceNames) -> LogicalFingerprints {
    // Making default options costs more than lowering most expressions.
    static OPTIONS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(Arc::default);
    let mut props = ExecutionProps::new();
    props.config_options = Some(Arc::clone(&OPTIONS));
    let mut lowering = Logical {
        canon: Canon::new(),
        sources,
        nodes: Vec::new(),
        reads: Vec::new(),
        props,
        level: Level::default(),
        recursions: Vec::new(),
    };
    lowering.query(plan, None);
    let sources = lowering.canon.sources();
    LogicalFingerprints { nodes: lowering.nodes, reads: lowering.reads, sources, texts: lowering.canon.texts }
}

/// Calls `visit` for the nodes of a logical plan in the order of [`LogicalFingerprints::nodes`]: a node, then its inputs, and after all
/// nodes of a query its uncorrelated scalar subqueries in the order in which they are met.
pub fn for_each_logical_node(plan: &LogicalPlan, visit: &mut dyn FnMut(&LogicalPlan)) {
    #[recursive::recursive]
    fn nodes(plan: &LogicalPlan, visit: &mut dyn FnMut(&LogicalPlan)) {
        visit(plan);
        for input in plan.inputs() {
            nodes(input, visit);
        }
    }
    nodes(plan, visit);
    for subquery in subqueries_of(plan) {
        for_each_logical_node(&subquery.subquery, visit);
    }
}

/// The distinct uncorrelated scalar subqueries of one query, those within subqueries left out.
fn subqueries_of(plan: &LogicalPlan) -> Vec<Subquery> {
    let mut found: Vec<Subquery> = Vec::new();
    let mut seen: HashSet<Subquery> = HashSet::default();
    let visited = plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarSubquery(subquery) = e
                    && subquery.outer_ref_columns.is_empty()
                    && seen.insert(subquery.clone())
                {
                    found.push(subquery.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    debug_assert!(visited.is_ok(), "nothing in the visit fails");
    found
}

struct Logical<'a> {
    canon: Canon,
    sources: &'a dyn SourceNames,
    nodes: Vec<Option<Identity>>,
    /// As `nodes`.
    reads: Vec<Reads>,
    props: ExecutionProps,
    level: Level,
    /// Names of the recursive queries around.
    recursions: Vec<String>,
}

/// Scalar subqueries of the query at hand.
#[derive(Default)]
struct Level {
    context: PhysicalPlanningContext,
    values: Subqueries,
}

/// Whether the rows of a node are those of its lowered form.
enum Rows {
    Its,
    Other,
}

type Demand = Option<usize>;

impl Logical<'_> {
    /// Lowers a query: first its scalar subqueries, whose nodes stand after its own.
    fn query(&mut self, plan: &LogicalPlan, demand: Demand) -> Lowered {
        let subqueries = subqueries_of(plan);
        let before = std::mem::take(&mut self.canon.read);
        let (mut later, mut later_reads) = (Vec::new(), Vec::new());
        let mut level = Level::default();
        if !subqueries.is_empty() {
            let results = ScalarSubqueryResults::new(subqueries.len());
            let mut indexes = HashMap::default();
            for (i, subquery) in subqueries.into_iter().enumerate() {
                let (outer, outer_reads) = (std::mem::take(&mut self.nodes), std::mem::take(&mut self.reads));
                let mut lowered = self.query(&subquery.subquery, None);
                later.append(&mut self.nodes);
                later_reads.append(&mut self.reads);
                (self.nodes, self.reads) = (outer, outer_reads);
                let columns = std::mem::take(&mut lowered.columns);
                let key = self.canon.scalar_subquery(lowered, &columns);
                let ty = subquery.subquery.schema().fields().first().map(|f| f.data_type().clone());
                let Some(ty) = ty else { continue };
                let index = SubqueryIndex::new(i);
                level.values.insert(ScalarSubqueryExpr::new(ty, true, index, results.clone()), key);
                indexes.insert(subquery, index);
            }
            level.context = PhysicalPlanningContext::new(indexes, results);
        }
        let outer = std::mem::replace(&mut self.level, level);
        let (asked, own) = (self.canon.read, self.reads.len());
        let lowered = self.plan(plan, demand);
        self.level = outer;
        for reads in self.reads.iter_mut().skip(own) {
            *reads = reads.and(asked);
        }
        self.canon.read = before.and(self.canon.read);
        self.nodes.append(&mut later);
        self.reads.append(&mut later_reads);
        lowered
    }

    #[recursive::recursive]
    fn plan(&mut self, plan: &LogicalPlan, demand: Demand) -> Lowered {
        let position = self.nodes.len();
        self.nodes.push(None);
        self.reads.push(Reads::default());
        let before = std::mem::take(&mut self.canon.read);
        let (mut lowered, rows) = self.operator(plan, demand);
        if let Some(reads) = self.reads.get_mut(position) {
            *reads = self.canon.read;
        }
        self.canon.read = before.and(self.canon.read);
        if matches!(rows, Rows::Its) {
            self.nodes[position] = self.canon.identity(&mut lowered);
        }
        lowered
    }

    fn operator(&mut self, plan: &LogicalPlan, demand: Demand) -> (Lowered, Rows) {
        let width = plan.schema().fields().len();
        let lowered = match plan {
            LogicalPlan::Limit(limit) => return self.limit(limit, demand),
            LogicalPlan::Sort(sort) => {
                let mut input = self.plan(&sort.input, None);
                input.order = self.order(&input.columns, &sort.expr, sort.input.schema());
                return match sort.fetch {
                    Some(fetch) if demand.is_some_and(|d| d <= fetch) => (input, Rows::Other),
                    Some(fetch) => (self.canon.limit(input, 0, Some(fetch)), Rows::Its),
                    None => (input, Rows::Its),
                };
            }
            LogicalPlan::Projection(projection) => {
                let input = self.plan(&projection.input, demand);
                self.projection(input, &projection.expr, projection.input.schema())
            }
            LogicalPlan::Filter(filter) => {
                let mut input = self.plan(&filter.input, None);
                self.filter(&mut input, &filter.predicate, filter.input.schema());
                input
            }
            LogicalPlan::Join(join) => self.join(join, demand),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.plan(input, None);
                let keys = input.columns.clone();
                self.canon.aggregate(input, keys, None, Vec::new())
            }
            LogicalPlan::Window(window) => {
                let input = self.plan(&window.input, None);
                let schema = window.input.schema();
                let terms =
                    window.window_expr.iter().map(|e| self.window_function(&input.columns, e, schema)).collect();
                self.canon.window(input, terms)
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|input| self.plan(input, demand)).collect();
                self.canon.union(inputs, width)
            }
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.plan(&alias.input, demand),
            LogicalPlan::Repartition(repartition) => self.plan(&repartition.input, demand),
            LogicalPlan::EmptyRelation(empty) => self.canon.no_source(usize::from(empty.produce_one_row), width),
            LogicalPlan::Values(values) => {
                let mut rows = Vec::new();
                if values.values.len().saturating_mul(width) <= MAX_VALUES {
                    let schema = DFSchema::empty();
                    let mut cells = values.values.iter().map(|row| {
                        let terms = row.iter().map(|cell| self.term(&[], cell, &schema).ok());
                        terms.collect::<Option<Vec<TermId>>>()
                    });
                    rows = cells.by_ref().map_while(|row| row).collect();
                }
                match rows.len() == values.values.len() {
                    true => self.canon.values(&rows, width),
                    false => Lowered::unknown(width),
                }
            }
            LogicalPlan::Unnest(unnest) => {
                let input = self.plan(&unnest.input, None);
                let lists: Vec<(usize, usize)> =
                    unnest.list_type_columns.iter().map(|(i, list)| (*i, list.depth)).collect();
                let nulls = unnest.options.preserve_nulls();
                self.canon.unnest(input, &lists, &unnest.struct_type_columns, nulls, &unnest.dependency_indices)
            }
            LogicalPlan::RecursiveQuery(query) => {
                let first = self.plan(&query.static_term, None);
                self.recursions.push(query.name.clone());
                let step = self.plan(&query.recursive_term, None);
                self.recursions.pop();
                self.canon.recursive(first, step, query.is_distinct)
            }
            LogicalPlan::Subquery(subquery) => self.plan(&subquery.subquery, demand),
            _ => {
                for input in plan.inputs() {
                    self.plan(input, None);
                }
                return (Lowered::unknown(width), Rows::Other);
            }
        };
        (lowered, Rows::Its)
    }

    fn limit(&mut self, limit: &Limit, demand: Demand) -> (Lowered, Rows) {
        let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) =
            (limit.get_skip_type(), limit.get_fetch_type())
        else {
            self.plan(&limit.input, None);
            return (Lowered::unknown(limit.input.schema().fields().len()), Rows::Other);
        };
        let below = fetch.or(demand).map(|f| f.saturating_add(skip));
        let input = self.plan(&limit.input, below);
        let hint = skip == 0 && demand.is_some_and(|d| fetch.is_some_and(|f| d <= f));
        match hint {
            true => (input, Rows::Other),
            false => (self.canon.limit(input, skip, fetch), Rows::Its),
        }
    }

    fn physical(&self, expr: &Expr, schema: &DFSchema) -> Option<Arc<dyn PhysicalExpr>> {
        create_physical_expr(expr, schema, &self.props, &self.level.context).ok()
    }

    fn term(&mut self, columns: &[Option<TermId>], expr: &Expr, schema: &DFSchema) -> Result<TermId, Opaque> {
        let physical = self.physical(expr, schema).ok_or(Opaque::Unknown)?;
        Expressions {
            canon: &mut self.canon,
            columns: Columns::ByIndex(columns),
            schema: schema.as_arrow(),
            subqueries: &self.level.values,
        }
        .lower(&physical)
    }

    fn order(&mut self, columns: &[Option<TermId>], keys: &[SortExpr], schema: &DFSchema) -> Vec<TermId> {
        let mut order = Vec::with_capacity(keys.len());
        for key in keys {
            let Ok(term) = self.term(columns, &key.expr, schema) else { break };
            order.push(self.canon.sort_key(term, !key.asc, key.nulls_first));
        }
        order
    }

    fn projection(&mut self, mut input: Lowered, exprs: &[Expr], schema: &DFSchema) -> Lowered {
        let lowered: Vec<Result<TermId, Opaque>> = exprs.iter().map(|e| self.term(&input.columns, e, schema)).collect();
        if lowered.contains(&Err(Opaque::Volatile)) {
            return Lowered::unknown(exprs.len());
        }
        input.columns = lowered.into_iter().map(Result::ok).collect();
        input
    }

    fn conjuncts(&mut self, columns: &[Option<TermId>], predicate: &Expr, schema: &DFSchema) -> Vec<Option<TermId>> {
        let Some(physical) = self.physical(predicate, schema) else { return vec![None] };
        Expressions {
            canon: &mut self.canon,
            columns: Columns::ByIndex(columns),
            schema: schema.as_arrow(),
            subqueries: &self.level.values,
        }
        .conjuncts(&physical)
    }

    fn filter(&mut self, input: &mut Lowered, predicate: &Expr, schema: &DFSchema) {
        for condition in self.conjuncts(&input.columns, predicate, schema) {
            self.canon.filter(input, condition);
        }
    }

    fn scan(&mut self, scan: &TableScan) -> Lowered {
        let names: Vec<String> = scan.projected_schema.fields().iter().map(|f| f.name().clone()).collect();
        let provider = source_as_provider(&scan.source).ok();
        if let Some(table) = provider.as_ref().and_then(|p| p.downcast_ref::<CteWorkTable>()) {
            let depth = self.recursions.iter().rev().position(|name| name == table.name());
            return self.canon.work_table(depth, &names);
        }
        let Some(id) = self.sources.by_table(&scan.table_name) else { return Lowered::unknown(names.len()) };
        let atom = self.canon.source(&id);
        let table = scan.source.schema();
        let all: Vec<String> = table.fields().iter().map(|f| f.name().clone()).collect();
        let mut lowered = self.canon.named_columns(atom, &all);
        // Filters that the source applies in full are gone from the plan above; of the others a copy stands there.
        let filters: Vec<&Expr> = scan.filters.iter().collect();
        if let Ok(support) = scan.source.supports_filters_pushdown(&filters)
            && let Ok(schema) = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &table)
        {
            for (filter, support) in filters.into_iter().zip(support) {
                if support == TableProviderFilterPushDown::Exact {
                    self.filter(&mut lowered, filter, &schema);
                }
            }
        }
        if let Some(projection) = &scan.projection {
            lowered.columns = projection.iter().map(|&i| lowered.columns.get(i).copied().flatten()).collect();
        }
        lowered
    }

    fn join(&mut self, join: &Join, demand: Demand) -> Lowered {
        let kind =
            JoinKind { join_type: join.join_type, null_equality: join.null_equality, null_aware: join.null_aware };
        let demands = pushed_demand(join.join_type, join.on.is_empty() && join.filter.is_none(), demand);
        let left = self.plan(&join.left, demands[0]);
        let right = self.plan(&join.right, demands[1]);
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        let keys: Option<Vec<_>> = join
            .on
            .iter()
            .map(|(a, b)| Some((self.physical(a, left_schema)?, self.physical(b, right_schema)?)))
            .collect();
        let both_schema = join.filter.as_ref().and_then(|_| left_schema.join(right_schema).ok());
        let filter = match (&join.filter, &both_schema) {
            (Some(filter), Some(schema)) => self.physical(filter, schema).map(Some),
            (Some(_), None) => None,
            (None, _) => Some(None),
        };
        let subqueries = &self.level.values;
        self.canon.join(left, right, kind, |canon, sides| {
            let mut conditions = JoinConditions::default();
            for (a, b) in keys? {
                let (columns, schema) = (Columns::ByIndex(sides.left), left_schema.as_arrow());
                let a = Expressions { canon, columns, schema, subqueries }.term(&a)?;
                let (columns, schema) = (Columns::ByIndex(sides.right), right_schema.as_arrow());
                let b = Expressions { canon, columns, schema, subqueries }.term(&b)?;
                conditions.equal.push((a, b));
            }
            if let Some(filter) = filter? {
                let Sides { left, right } = sides;
                let both = [left, right].concat();
                let (columns, schema) = (Columns::ByIndex(&both), both_schema.as_ref()?.as_arrow());
                let parts = Expressions { canon, columns, schema, subqueries }.conjuncts(&filter);
                conditions.others = parts.into_iter().collect::<Option<_>>()?;
            }
            Some(conditions)
        })
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Lowered {
        let input = self.plan(&aggregate.input, None);
        let schema = aggregate.input.schema();
        let width = aggregate.schema.fields().len();
        let Ok(keys) = grouping_set_to_exprlist(&aggregate.group_expr) else { return Lowered::unknown(width) };
        let sets = match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(set)] => Some(grouping_sets(set, &keys)),
            _ => None,
        };
        let keys = keys.into_iter().map(|key| self.term(&input.columns, key, schema).ok()).collect();
        let functions =
            aggregate.aggr_expr.iter().map(|e| self.aggregate_function(&input.columns, e, schema)).collect();
        self.canon.aggregate(input, keys, sets, functions)
    }

    fn aggregate_function(&mut self, columns: &[Option<TermId>], expr: &Expr, schema: &DFSchema) -> Option<TermId> {
        let mut expr = expr;
        while let Expr::Alias(alias) = expr {
            expr = &alias.expr;
        }
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else { return None };
        let call = AggregateCall {
            name: versioned(func.name(), func.aliases()),
            args: params.args.iter().map(|arg| self.term(columns, arg, schema).ok()).collect(),
            distinct: params.distinct,
            ignore_nulls: params.null_treatment == Some(NullTreatment::IgnoreNulls),
            order: params
                .order_by
                .iter()
                .map(|key| (self.term(columns, &key.expr, schema).ok(), !key.asc, key.nulls_first))
                .collect(),
            filter: params.filter.as_ref().map(|filter| self.term(columns, filter, schema).ok()),
        };
        self.canon.aggregate_function(call)
    }

    fn window_function(&mut self, columns: &[Option<TermId>], expr: &Expr, schema: &DFSchema) -> Option<TermId> {
        let mut expr = expr;
        while let Expr::Alias(alias) = expr {
            expr = &alias.expr;
        }
        let Expr::WindowFunction(function) = expr else { return None };
        let WindowFunction { fun, params } = function.as_ref();
        let args: Vec<Option<TermId>> = params.args.iter().map(|arg| self.term(columns, arg, schema).ok()).collect();
        let ignore_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
        let call = match fun {
            WindowFunctionDefinition::AggregateUDF(udf) => {
                if params.filter.is_some() {
                    return None; // physical window expressions do not tell their filter
                }
                let distinct = params.distinct;
                let call = AggregateCall {
                    name: versioned(udf.name(), udf.aliases()),
                    args,
                    distinct,
                    ignore_nulls,
                    order: Vec::new(),
                    filter: None,
                };
                self.canon.aggregate_function(call)?
            }
            WindowFunctionDefinition::WindowUDF(udf) => {
                let args: Vec<TermId> = args.into_iter().collect::<Option<_>>()?;
                let name = if ignore_nulls { format!("{} ignore nulls", udf.name()) } else { udf.name().to_owned() };
                self.canon.function(&name, &args, &[])
            }
        };
        let partition: Vec<TermId> =
            params.partition_by.iter().map(|e| self.term(columns, e, schema).ok()).collect::<Option<_>>()?;
        let order = self.order(columns, &params.order_by, schema);
        if order.len() != params.order_by.len() {
            return None;
        }
        Some(self.canon.over_window(call, partition, order, &params.window_frame.to_string()))
    }
}

/// Grouping sets as positions in `keys`, the distinct expressions in order.
fn grouping_sets(set: &GroupingSet, keys: &[&Expr]) -> Vec<Vec<usize>> {
    let position = |expr: &Expr| keys.iter().position(|key| *key == expr);
    match set {
        GroupingSet::Rollup(exprs) => {
            (0..=exprs.len()).map(|n| exprs[..n].iter().filter_map(position).collect()).collect()
        }
        GroupingSet::Cube(exprs) => {
            let sets = 1usize << exprs.len().min(16);
            (0..sets)
                .map(|mask| {
                    exprs
                        .iter()
                        .enumerate()
                        .filter(|(i, _)| mask >> i & 1 == 1)
                        .filter_map(|(_, e)| position(e))
                        .collect()
                })
                .collect()
        }
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| set.iter().filter_map(position).collect()).collect(),
    }
}
