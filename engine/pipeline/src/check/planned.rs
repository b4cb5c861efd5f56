//! A step's result before it exists: a table with columns and an expected number of rows, but no data.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

/// The table.
#[derive(Debug)]
pub struct PlannedTable {
    schema: SchemaRef,
    rows: Option<u64>,
}

impl PlannedTable {
    /// A table with these columns and about so many rows.
    pub fn new(schema: SchemaRef, rows: Option<u64>) -> Self {
        Self { schema, rows }
    }

    /// Puts it in the place of step `name`, such that plans over it have the fingerprints of plans over the step's result.
    pub(crate) fn register(self, session: &sparklet_core::Session, name: &str) -> sparklet_core::Result<()> {
        // An object of its own: scans are known by it.
        let table = Arc::new(Self { schema: Arc::new(self.schema.as_ref().clone()), rows: self.rows });
        let schema = Arc::clone(&table.schema);
        let is_scan = move |scan: &dyn ExecutionPlan| {
            scan.downcast_ref::<PlannedExec>().is_some_and(|exec| Arc::ptr_eq(&exec.table, &schema))
        };
        session.register_step_of(name, table, is_scan)
    }
}

#[async_trait]
impl TableProvider for PlannedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        Ok(Arc::new(PlannedExec::new(Arc::clone(&self.schema), schema, self.rows)))
    }
}

/// Its scan: plans, never runs.
#[derive(Debug)]
struct PlannedExec {
    /// Columns of the table.
    table: SchemaRef,
    rows: Option<u64>,
    properties: Arc<PlanProperties>,
}

impl PlannedExec {
    fn new(table: SchemaRef, schema: SchemaRef, rows: Option<u64>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { table, rows, properties: Arc::new(properties) }
    }
}

impl DisplayAs for PlannedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlannedExec")
    }
}

impl ExecutionPlan for PlannedExec {
    fn name(&self) -> &'static str {
        "PlannedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("a planned step has no rows to read")
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if let Some(rows) = self.rows.and_then(|r| usize::try_from(r).ok()) {
            statistics.num_rows = Precision::Inexact(rows);
        }
        Ok(Arc::new(statistics))
    }
}
