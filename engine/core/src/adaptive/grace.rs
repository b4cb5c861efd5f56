//! Joins of a bucket whose build side does not fit a hash table.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::JoinSide;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, HashJoinExecBuilder, SortMergeJoinExec};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;

use super::inputs::Input;
use super::join::{AdaptiveJoinExec, Resources};
use super::units::{Limits, Unit, divide};
use crate::exchange::slices::Slice;
use crate::exchange::{Bucketing, Exchange, WriteSpec, write};

/// Parts that a bucket is divided into.
const PARTS: usize = 16;

/// One bucket, divided once more by the quotient of the hash (grace hash join; Kitsuregawa et al., 1983): the parts are joined one after the other.
#[derive(Debug)]
pub(crate) struct RedividedJoinExec {
    template: Arc<HashJoinExec>,
    left: Input,
    right: Input,
    left_slices: Vec<Slice>,
    right_slices: Vec<Slice>,
    build_bytes: u64,
    resources: Resources,
    properties: Arc<PlanProperties>,
}

impl RedividedJoinExec {
    pub(crate) fn new(
        template: &HashJoinExec,
        left: Input,
        right: Input,
        unit: &Unit,
        build_bytes: u64,
        resources: Resources,
    ) -> Result<Self> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(template.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let (left_slices, right_slices) = match unit.swapped {
            false => (unit.build.clone(), unit.probe.concat()),
            true => (unit.probe.concat(), unit.build.clone()),
        };
        Ok(Self {
            template: Arc::new(HashJoinExecBuilder::from(template).reset_state().build()?),
            left,
            right,
            left_slices,
            right_slices,
            build_bytes,
            // Its one slot runs within a task of the join above.
            resources: Resources { limits: Limits { slots: 1, ..resources.limits }, governor: None, ..resources },
            properties: Arc::new(properties),
        })
    }
}

/// Writes the rows of `slices` to an exchange with [`PARTS`] buckets.
async fn redivide(
    input: &Input,
    slices: Vec<Slice>,
    resources: &Resources,
    context: &Arc<TaskContext>,
) -> Result<Arc<Exchange>> {
    let from = &input.exchange;
    let bucketing = Bucketing {
        keys: from.bucketing.keys.clone(),
        buckets: PARTS,
        divisor: from.bucketing.divisor * from.bucketing.buckets as u64,
        ranges: None,
    };
    let spec = WriteSpec { id: from.id, bucketing, budget: Arc::clone(&resources.budget), bounds: false };
    Ok(Arc::new(write(input.raw(vec![slices]), Arc::clone(context), spec).await?))
}

impl DisplayAs for RedividedJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RedividedJoinExec: join_type={:?}, parts={PARTS}, build_bytes={}",
            self.template.join_type(),
            self.build_bytes
        )
    }
}

impl ExecutionPlan for RedividedJoinExec {
    fn name(&self) -> &str {
        "RedividedJoinExec"
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

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (left, right) = (self.left.clone(), self.right.clone());
        let (left_slices, right_slices) = (self.left_slices.clone(), self.right_slices.clone());
        let (template, resources) = (Arc::clone(&self.template), self.resources.clone());
        let limits = Limits { parent_bytes: Some(self.build_bytes), ..resources.limits };
        let joined = async move {
            let left_parts = redivide(&left, left_slices, &resources, &context).await?;
            let right_parts = redivide(&right, right_slices, &resources, &context).await?;
            let division = divide(*template.join_type(), &left_parts.sizes, &right_parts.sizes, limits);
            let template = HashJoinExecBuilder::from(template.as_ref())
                .reset_state()
                .recompute_properties()
                .with_new_children(vec![left.over(left_parts)?, right.over(right_parts)?])?
                .build()?;
            AdaptiveJoinExec::new(&template, division, resources)?.execute(0, context)
        };
        let rows = futures::stream::once(joined).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// The same filter with the columns of the left side before those of the right: DataFusion's sort-merge join hands them over in that order,
/// whatever the filter says; one of swapped inputs says the other.
fn left_first(filter: &JoinFilter) -> Result<JoinFilter> {
    let indices = filter.column_indices();
    let mut order: Vec<usize> = (0..indices.len()).collect();
    order.sort_by_key(|&at| indices[at].side == JoinSide::Right);
    let expression = Arc::clone(filter.expression()).transform(|expr| {
        let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
        let at = order.iter().position(|&at| at == column.index()).unwrap_or(column.index());
        Ok(Transformed::yes(Arc::new(Column::new(column.name(), at)) as _))
    });
    let expression = expression.data()?;
    let schema = filter.schema().project(&order)?;
    let indices = order.iter().map(|&at| indices[at].clone()).collect();
    Ok(JoinFilter::new(expression, indices, Arc::new(schema)))
}

/// The join `template` of `left` and `right`, one partition each, by sorting both; sorts and the join spill.
pub(crate) fn sort_merge(
    template: &HashJoinExec,
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let sorted = |input: Arc<dyn ExecutionPlan>, keys: Vec<Arc<dyn PhysicalExpr>>| -> Arc<dyn ExecutionPlan> {
        let order = keys.into_iter().map(|key| PhysicalSortExpr::new(key, SortOptions::default()));
        match LexOrdering::new(order) {
            Some(order) => Arc::new(SortExec::new(order, input)),
            None => input,
        }
    };
    let (left_keys, right_keys) = template.on().iter().cloned().unzip();
    let join: Arc<dyn ExecutionPlan> = Arc::new(SortMergeJoinExec::try_new(
        sorted(left, left_keys),
        sorted(right, right_keys),
        template.on().to_vec(),
        template.filter().map(left_first).transpose()?,
        *template.join_type(),
        vec![SortOptions::default(); template.on().len()],
        template.null_equality(),
    )?);
    let Some(projection) = template.projection.as_ref() else { return Ok(join) };
    let schema = join.schema();
    let columns = projection.iter().map(|&at| ProjectionExpr {
        expr: Arc::new(Column::new(schema.field(at).name(), at)),
        alias: schema.field(at).name().clone(),
    });
    Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), join)?))
}
