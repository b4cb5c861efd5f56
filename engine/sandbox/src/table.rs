//! A table function of a module as a table of DataFusion.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{ColumnarValue, Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};

use crate::coerce::coerce;
use crate::describe::{FunctionSpec, Shape};
use crate::encode::Column;
use crate::error::Cause;
use crate::guest::Batch;
use crate::module::Module;
use crate::scope::{Callee, Owned, Scope};

/// Batches without rows that may come one after the other.
const MAX_EMPTY: usize = 1_000;

/// A table function.
#[derive(Debug)]
pub struct WasmTableFunction {
    spec: FunctionSpec,
    callee: Callee,
}

impl WasmTableFunction {
    pub(crate) fn new(module: &Arc<Module>, spec: FunctionSpec, scope: &Arc<Scope>) -> Self {
        Self { spec, callee: Callee { module: Arc::clone(module), scope: Arc::clone(scope) } }
    }
}

impl TableFunctionImpl for WasmTableFunction {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let name = &self.spec.name;
        let schema = Arc::new(DFSchema::empty());
        let one_row = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            Vec::new(),
            &RecordBatchOptions::new().with_row_count(Some(1)),
        )?;
        let mut values: Vec<ArrayRef> = Vec::new();
        for (i, expr) in args.exprs().iter().enumerate() {
            let constant = !expr.any_column_refs() && !matches!(expr, Expr::OuterReferenceColumn(..));
            let value =
                if constant { args.session().create_physical_expr(expr.clone(), &schema) } else { plan_err!("") };
            let Ok(value) = value.and_then(|e| e.evaluate(&one_row)) else {
                return plan_err!("argument {} of the table function `{name}` must be a constant, it is {expr}", i + 1);
            };
            values.push(match value {
                ColumnarValue::Array(array) => array,
                ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(1)?,
            });
        }
        let given: Vec<_> = values.iter().map(|v| v.data_type().clone()).collect();
        let wanted = coerce(std::slice::from_ref(&self.spec), &given, false)?;
        let columns = values.iter().zip(&wanted).map(|(v, of)| Ok(Column::rows(arrow::compute::cast(v, of)?)));
        let args = columns.collect::<Result<Vec<_>>>()?.into();
        Ok(Arc::new(WasmTable::of_call(self.callee.clone(), self.spec.clone(), args)))
    }
}

fn schema_of(spec: &FunctionSpec) -> SchemaRef {
    let Shape::Table { columns } = &spec.shape else { return Arc::new(Schema::empty()) };
    Arc::new(Schema::new(columns.iter().map(|(n, of)| Field::new(n, of.clone(), true)).collect::<Vec<_>>()))
}

/// The table that a call gives.
#[derive(Debug)]
pub struct WasmTable {
    spec: FunctionSpec,
    callee: Callee,
    args: Arc<[Column]>,
    schema: SchemaRef,
}

impl WasmTable {
    /// The same table in another scope.
    pub fn in_scope(&self, scope: &Arc<Scope>) -> Self {
        let callee = Callee { module: Arc::clone(&self.callee.module), scope: Arc::clone(scope) };
        Self { spec: self.spec.clone(), callee, args: Arc::clone(&self.args), schema: Arc::clone(&self.schema) }
    }

    /// The call of `spec` with `args`, of its types and one row each.
    pub(crate) fn of_call(callee: Callee, spec: FunctionSpec, args: Arc<[Column]>) -> Self {
        Self { schema: schema_of(&spec), spec, callee, args }
    }

    pub(crate) fn call(&self) -> Call<'_> {
        Call { module: &self.callee.module, spec: &self.spec, args: &self.args }
    }

    pub(crate) fn scan_of(&self, projection: Option<Vec<usize>>, limit: Option<usize>) -> Result<WasmTableExec> {
        let schema = match &projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        Ok(WasmTableExec {
            spec: self.spec.clone(),
            callee: self.callee.clone(),
            args: Arc::clone(&self.args),
            projection,
            limit,
            properties: Arc::new(PlanProperties::new(
                EquivalenceProperties::new(schema),
                Partitioning::UnknownPartitioning(1),
                EmissionType::Incremental,
                Boundedness::Bounded,
            )),
            whole: Arc::clone(&self.schema),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

/// What is called for a table.
pub(crate) struct Call<'a> {
    pub(crate) module: &'a Arc<Module>,
    pub(crate) spec: &'a FunctionSpec,
    pub(crate) args: &'a [Column],
}

#[async_trait]
impl TableProvider for WasmTable {
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
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.scan_of(projection.cloned(), limit)?))
    }
}

/// Runs a table function.
#[derive(Debug)]
pub struct WasmTableExec {
    spec: FunctionSpec,
    callee: Callee,
    args: Arc<[Column]>,
    projection: Option<Vec<usize>>,
    limit: Option<usize>,
    whole: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl WasmTableExec {
    pub(crate) fn call(&self) -> Call<'_> {
        Call { module: &self.callee.module, spec: &self.spec, args: &self.args }
    }

    pub(crate) fn projection(&self) -> Option<&[usize]> {
        self.projection.as_deref()
    }

    pub(crate) fn limit(&self) -> Option<usize> {
        self.limit
    }
}

impl DisplayAs for WasmTableExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WasmTableExec: function={}, module={}", self.spec.name, self.callee.module.name())?;
        match self.limit {
            Some(limit) => write!(f, ", fetch={limit}"),
            None => Ok(()),
        }
    }
}

impl ExecutionPlan for WasmTableExec {
    fn name(&self) -> &'static str {
        "WasmTableExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn for<'a> FnMut(&'a Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = Rows {
            spec: self.spec.clone(),
            callee: self.callee.clone(),
            args: Arc::clone(&self.args),
            schema: Arc::clone(&self.whole),
            open: None,
            given: 0,
            left: self.limit,
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let projection = self.projection.clone();
        let stream = futures::stream::try_unfold(rows, move |mut rows| {
            let (metrics, projection) = (metrics.clone(), projection.clone());
            async move {
                let start = Instant::now();
                let next = rows.next()?;
                metrics.elapsed_compute().add_elapsed(start);
                let Some(batch) = next else { return Ok(None) };
                metrics.record_output(batch.num_rows());
                let batch = match &projection {
                    Some(columns) => batch.project(columns)?,
                    None => batch,
                };
                Ok(Some((batch, rows)))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(self.properties.equivalence_properties().schema()),
            stream,
        )))
    }
}

struct Rows {
    spec: FunctionSpec,
    callee: Callee,
    args: Arc<[Column]>,
    schema: SchemaRef,
    open: Option<(Owned, u32)>,
    given: u64,
    left: Option<usize>,
}

impl Rows {
    fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let (mut owned, handle) = match self.open.take() {
            Some(open) => open,
            None => {
                let mut owned = self.callee.own(&self.spec)?;
                let batch = Batch { rows: 1, columns: &self.args };
                let handle = owned.call(&self.callee, &self.spec, 0, |guest| guest.open(&self.spec, &batch))?;
                (owned, handle)
            }
        };
        let limits = &self.callee.module.declared().limits;
        let start = Instant::now();
        for _ in 0..MAX_EMPTY {
            let next = owned.call(&self.callee, &self.spec, 0, |guest| guest.next(&self.spec, handle))?;
            let Some((rows, columns)) = next else { return Ok(None) };
            if rows == 0 {
                if start.elapsed() > limits.timeout {
                    return Err(self.callee.error(&self.spec, Cause::Deadline(limits.timeout)).into());
                }
                continue;
            }
            self.given += rows as u64;
            if self.given > limits.max_rows {
                let message = format!("it gave more rows than its limit of {}", limits.max_rows);
                return Err(self.callee.error(&self.spec, Cause::Contract(message)).into());
            }
            owned.count_rows(rows);
            let mut batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            if let Some(left) = &mut self.left {
                batch = batch.slice(0, rows.min(*left));
                *left -= batch.num_rows();
            }
            self.open = Some((owned, handle));
            return Ok(Some(batch));
        }
        let message = format!("it gave {MAX_EMPTY} batches without rows one after the other");
        Err(self.callee.error(&self.spec, Cause::Contract(message)).into())
    }
}
