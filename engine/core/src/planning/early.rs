//! Physical plans before most of DataFusion's rules have seen them: joins have their sides and modes by then, and that is what the plans of a
//! query differ by. Of what comes after only what a cost needs to
//! see is done for a plan that is not going to run.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{CatalogProviderList, Session};
use datafusion::common::config::{ConfigOptions, TableOptions};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::context::{ExecutionProps, QueryPlanner, SessionState};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::registry::ExtensionTypeRegistryRef;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, WindowUDF};
use datafusion::physical_expr::{
    Distribution, LexOrdering, OrderingRequirements, Partitioning, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::operator_statistics::StatisticsRegistry;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{
    ChildSatisfactionOptions, ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary,
};
use datafusion::physical_planner::DefaultPhysicalPlanner;

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// The plan that DataFusion makes of `logical`, and the same before the rules that come after the one for joins; none for a plan that
/// explains another.
pub(super) async fn planned(
    state: &SessionState,
    logical: &LogicalPlan,
) -> Result<(Option<Arc<dyn ExecutionPlan>>, Arc<dyn ExecutionPlan>)> {
    let explains = matches!(logical, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
    let Some(cut) = cut(state).filter(|_| !explains) else {
        return Ok((None, state.query_planner().create_physical_plan(logical, state).await?));
    };
    let seen = Arc::new(Seen { stops: false, plan: Mutex::default() });
    let mut rules = state.physical_optimizers().to_vec();
    rules.insert(cut, Arc::clone(&seen) as _);
    let physical = state.query_planner().create_physical_plan(logical, &Ruled::new(state, rules)).await?;
    Ok((seen.take(), physical))
}

/// The plan of `logical` before the rules that come after the one for joins.
pub(super) async fn planned_early(state: &SessionState, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let seen = Arc::new(Seen { stops: true, plan: Mutex::default() });
    let mut rules = state.physical_optimizers().to_vec();
    rules.truncate(cut(state).unwrap_or(rules.len()));
    rules.push(Arc::clone(&seen) as _);
    state.query_planner().create_physical_plan(logical, &Ruled::new(state, rules)).await?;
    seen.take().ok_or_else(|| internal_datafusion_err!("no rule has seen the plan"))
}

/// `early` with what moves rows between its partitions and sorts them: what a cost needs to see. About as DataFusion's own rule has it, which
/// looks at the statistics of all that is below for each node, and takes as long as the rest of planning.
pub(super) fn shaped(state: &SessionState, early: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let options = state.config_options();
    let shaped = early.transform_up(|node| with_inputs_moved(node, options))?.data;
    let combines = |rule: &&Rule| rule.name() == "CombinePartialFinalAggregate";
    state.physical_optimizers().iter().filter(combines).try_fold(shaped, |plan, rule| rule.optimize(plan, options))
}

/// `node` with inputs that are distributed and sorted as it requires.
fn with_inputs_moved(
    node: Arc<dyn ExecutionPlan>,
    options: &ConfigOptions,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let slots = options.execution.target_partitions;
    let required = node.input_distribution_requirements();
    let inputs: Vec<_> = node.children().into_iter().cloned().collect();
    let by_keys = |at| match required.child_distribution(at) {
        Some(Distribution::KeyPartitioned(keys)) => Some(keys),
        _ => None,
    };
    let split = |input: &Arc<dyn ExecutionPlan>| input.output_partitioning().partition_count() > 1;
    // Inputs by keys are divided alike, or all of them are whole.
    let divides = inputs.iter().enumerate().any(|(at, input)| by_keys(at).is_some() && split(input));
    let mut moved = Vec::with_capacity(inputs.len());
    for (at, (input, order)) in inputs.iter().zip(node.required_input_ordering()).enumerate() {
        let mut input = match input.children().is_empty() && options.optimizer.repartition_file_scans {
            true => input.repartitioned(slots, options)?.unwrap_or_else(|| Arc::clone(input)),
            false => Arc::clone(input),
        };
        match (required.child_distribution(at), by_keys(at)) {
            (Some(Distribution::SinglePartition), _) if split(&input) => {
                input = Arc::new(CoalescePartitionsExec::new(input));
            }
            (_, Some(keys)) if divides => {
                let exact = ChildSatisfactionOptions::new();
                let partitions = input.output_partitioning().partition_count();
                if partitions < slots || !required.child_satisfaction(at, input.as_ref(), exact)?.is_satisfied() {
                    input = Arc::new(RepartitionExec::try_new(input, Partitioning::Hash(keys.clone(), slots))?);
                }
            }
            _ => (),
        }
        if let Some(order) = order.map(OrderingRequirements::into_single)
            && !input.equivalence_properties().ordering_satisfy_requirement(order.clone())?
            && let Some(order) = LexOrdering::new(order.into_iter().map(PhysicalSortExpr::from))
        {
            let apart = split(&input);
            input = Arc::new(SortExec::new(order, input).with_preserve_partitioning(apart));
        }
        moved.push(input);
    }
    let same = inputs.iter().zip(&moved).all(|(before, after)| Arc::ptr_eq(before, after));
    if same { Ok(Transformed::no(node)) } else { replace_children_if_necessary(node, moved).map(Transformed::yes) }
}

/// `early` after all rules.
pub(super) fn finished(state: &SessionState, early: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let rules = state.physical_optimizers().iter().skip(cut(state).unwrap_or(usize::MAX)).cloned().collect();
    DefaultPhysicalPlanner::default().optimize_physical_plan(early, &Ruled::new(state, rules), |_, _| {})
}

/// The number of rules up to the one for joins.
fn cut(state: &SessionState) -> Option<usize> {
    state.physical_optimizers().iter().position(|rule| rule.name() == "join_selection").map(|at| at + 1)
}

/// Keeps the plan that comes by, and, where it stops, gives an empty one to what follows.
#[derive(Debug)]
struct Seen {
    stops: bool,
    plan: Mutex<Option<Arc<dyn ExecutionPlan>>>,
}

impl Seen {
    fn take(&self) -> Option<Arc<dyn ExecutionPlan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl PhysicalOptimizerRule for Seen {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&plan));
        Ok(if self.stops { Arc::new(EmptyExec::new(plan.schema())) } else { plan })
    }

    fn name(&self) -> &str {
        "seen"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A session with other physical rules: making a [`SessionState`] anew registers all functions again.
struct Ruled<'a> {
    state: &'a SessionState,
    rules: Vec<Rule>,
    table_options: TableOptions,
}

impl<'a> Ruled<'a> {
    fn new(state: &'a SessionState, rules: Vec<Rule>) -> Self {
        Self { state, rules, table_options: state.table_options().clone() }
    }
}

#[async_trait]
impl Session for Ruled<'_> {
    fn session_id(&self) -> &str {
        self.state.session_id()
    }

    fn config(&self) -> &SessionConfig {
        self.state.config()
    }

    fn catalog_list(&self) -> Arc<dyn CatalogProviderList> {
        Arc::clone(self.state.catalog_list())
    }

    fn query_planner(&self) -> Arc<dyn QueryPlanner + Send + Sync> {
        Session::query_planner(self.state)
    }

    fn optimize(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        self.state.optimize(plan)
    }

    fn physical_optimizers(&self) -> &[Rule] {
        &self.rules
    }

    fn statistics_registry(&self) -> Option<&StatisticsRegistry> {
        self.state.statistics_registry()
    }

    async fn create_physical_plan(&self, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        let logical = self.state.optimize(logical)?;
        self.state.query_planner().create_physical_plan(&logical, self).await
    }

    fn create_physical_expr(&self, expr: Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        self.state.create_physical_expr(expr, schema)
    }

    fn scalar_functions(&self) -> &HashMap<String, Arc<ScalarUDF>> {
        self.state.scalar_functions()
    }

    fn higher_order_functions(&self) -> &HashMap<String, Arc<HigherOrderUDF>> {
        Session::higher_order_functions(self.state)
    }

    fn aggregate_functions(&self) -> &HashMap<String, Arc<AggregateUDF>> {
        self.state.aggregate_functions()
    }

    fn window_functions(&self) -> &HashMap<String, Arc<WindowUDF>> {
        self.state.window_functions()
    }

    fn extension_type_registry(&self) -> &ExtensionTypeRegistryRef {
        Session::extension_type_registry(self.state)
    }

    fn runtime_env(&self) -> &Arc<RuntimeEnv> {
        self.state.runtime_env()
    }

    fn execution_props(&self) -> &ExecutionProps {
        self.state.execution_props()
    }

    /// The state: tables look for it here.
    fn as_any(&self) -> &dyn Any {
        self.state
    }

    fn table_options(&self) -> &TableOptions {
        &self.table_options
    }

    fn table_options_mut(&mut self) -> &mut TableOptions {
        &mut self.table_options
    }

    fn task_ctx(&self) -> Arc<TaskContext> {
        self.state.task_ctx()
    }
}
