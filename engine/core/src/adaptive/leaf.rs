//! A finished exchange as a leaf of a logical plan.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::DFSchemaRef;
use datafusion::error::Result;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::learned::LearnedFilter;
use super::parts::PartsExec;
use super::path::subqueries;
use crate::exchange::{Exchange, ExchangeReaderExec, slices};

/// Stands where the subplan stood whose rows the exchange holds, with that subplan's schema.
#[derive(Debug, Clone)]
pub(crate) struct ExchangeLeaf {
    exchange: Arc<Exchange>,
    schema: DFSchemaRef,
    /// Only the rows of these buckets, spread evenly; of all buckets where none.
    buckets: Option<Arc<[usize]>>,
}

impl ExchangeLeaf {
    pub(crate) fn plan(exchange: Arc<Exchange>, schema: DFSchemaRef) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(Self { exchange, schema, buckets: None }) })
    }

    /// The rows of some buckets, each of which is cut into slices for all partitions.
    pub(crate) fn sliced(exchange: Arc<Exchange>, schema: DFSchemaRef, buckets: &[usize]) -> LogicalPlan {
        let buckets = Some(Arc::from(buckets));
        LogicalPlan::Extension(Extension { node: Arc::new(Self { exchange, schema, buckets }) })
    }

    /// The exchange that `plan` stands for, if it is such a leaf.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<&Arc<Exchange>> {
        Self::leaf(plan).map(|leaf| &leaf.exchange)
    }

    /// The exchange all rows of which `plan` stands for, if it is such a leaf.
    pub(super) fn whole(plan: &LogicalPlan) -> Option<&Arc<Exchange>> {
        Self::leaf(plan).filter(|leaf| leaf.buckets.is_none()).map(|leaf| &leaf.exchange)
    }

    fn leaf(plan: &LogicalPlan) -> Option<&Self> {
        let LogicalPlan::Extension(extension) = plan else { return None };
        extension.node.as_any().downcast_ref::<Self>()
    }
}

/// The exchanges that `plan` reads, added to `found`.
#[recursive::recursive]
pub(super) fn exchanges(plan: &LogicalPlan, found: &mut Vec<Arc<Exchange>>) {
    found.extend(ExchangeLeaf::of(plan).cloned());
    plan.inputs().into_iter().for_each(|input| exchanges(input, found));
    subqueries(plan).iter().flatten().for_each(|query| exchanges(query, found));
}

/// True if an operator of `plan` is planned already.
#[recursive::recursive]
pub(super) fn has_parts(plan: &LogicalPlan) -> bool {
    let parts = |extension: &Extension| extension.node.as_any().downcast_ref::<PartsLeaf>().is_some();
    matches!(plan, LogicalPlan::Extension(extension) if parts(extension))
        || plan.inputs().into_iter().any(has_parts)
        || subqueries(plan).iter().flatten().any(|query| has_parts(query))
}

impl PartialEq for ExchangeLeaf {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.exchange, &other.exchange) && self.buckets == other.buckets
    }
}

impl Eq for ExchangeLeaf {}

impl PartialOrd for ExchangeLeaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.exchange.id.partial_cmp(&other.exchange.id)
    }
}

impl Hash for ExchangeLeaf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.exchange.id.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for ExchangeLeaf {
    fn name(&self) -> &str {
        "Exchange"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange {}: rows={}", self.exchange.id, self.exchange.size().rows)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// Stands for an operator that is planned already, with that operator's schema.
#[derive(Debug, Clone)]
pub(super) struct PartsLeaf {
    parts: Arc<PartsExec>,
    schema: DFSchemaRef,
}

impl PartsLeaf {
    pub(super) fn plan(parts: Arc<PartsExec>, schema: DFSchemaRef) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(Self { parts, schema }) })
    }
}

impl PartialEq for PartsLeaf {
    fn eq(&self, other: &Self) -> bool {
        self.parts.number() == other.parts.number()
    }
}

impl Eq for PartsLeaf {}

impl PartialOrd for PartsLeaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.parts.number().partial_cmp(&other.parts.number())
    }
}

impl Hash for PartsLeaf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts.number().hash(state);
    }
}

impl UserDefinedLogicalNodeCore for PartsLeaf {
    fn name(&self) -> &str {
        "Parts"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts: {}", self.parts.number())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// Plans the leaves.
#[derive(Debug)]
pub(crate) struct LeafPlanner;

#[async_trait]
impl ExtensionPlanner for LeafPlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if let Some(leaf) = node.as_any().downcast_ref::<PartsLeaf>() {
            return Ok(Some(Arc::clone(&leaf.parts) as Arc<dyn ExecutionPlan>));
        }
        if let (Some(filter), [input]) = (node.as_any().downcast_ref::<LearnedFilter>(), inputs) {
            return filter.physical(input).map(Some);
        }
        let Some(leaf) = node.as_any().downcast_ref::<ExchangeLeaf>() else { return Ok(None) };
        let partitions = session.config().target_partitions();
        let exchange = Arc::clone(&leaf.exchange);
        let reader = match &leaf.buckets {
            Some(buckets) => {
                let assignment = slices::sliced(&exchange.rows(), buckets, partitions);
                ExchangeReaderExec::assigned(exchange, assignment)
            }
            None if exchange.bucketing.keys.is_empty() => ExchangeReaderExec::even(exchange, partitions),
            None => ExchangeReaderExec::canonical(exchange, partitions),
        };
        Ok(Some(Arc::new(reader)))
    }
}
