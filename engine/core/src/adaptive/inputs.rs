//! The inputs of an operator that are leaves over exchanges.

use std::sync::Arc;

use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::exchange::slices::Assignment;
use crate::exchange::{Exchange, ExchangeReaderExec};

/// A leaf over an exchange, or a projection to some of its columns.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) exchange: Arc<Exchange>,
    reader: ExchangeReaderExec,
    projection: Option<ProjectionExec>,
}

/// The input that `plan` is, if it is one.
pub(crate) fn as_input(plan: &Arc<dyn ExecutionPlan>) -> Option<Input> {
    if let Some(reader) = plan.downcast_ref::<ExchangeReaderExec>() {
        return Some(Input { exchange: Arc::clone(reader.exchange()), reader: reader.clone(), projection: None });
    }
    let projection = plan.downcast_ref::<ProjectionExec>()?;
    if !projection.expr().iter().all(|e| e.expr.is::<Column>()) {
        return None;
    }
    let reader = projection.input().downcast_ref::<ExchangeReaderExec>()?;
    let exchange = Arc::clone(reader.exchange());
    Some(Input { exchange, reader: reader.clone(), projection: Some(projection.clone()) })
}

/// As [`as_input`], for a plan that must be one.
pub(crate) fn input(plan: &Arc<dyn ExecutionPlan>) -> Result<Input> {
    as_input(plan).ok_or_else(|| internal_datafusion_err!("{} is no leaf over an exchange", plan.name()))
}

impl Input {
    /// The same with the rows of `assignment`; counts go to the same metrics.
    pub(crate) fn assigned(&self, assignment: Assignment) -> Result<Arc<dyn ExecutionPlan>> {
        let reader: Arc<dyn ExecutionPlan> = Arc::new(self.reader.reassigned(assignment));
        match &self.projection {
            None => Ok(reader),
            Some(projection) => Ok(Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), reader)?)),
        }
    }

    /// The same columns of another exchange with the schema of this one's, all rows in one partition.
    pub(crate) fn over(&self, exchange: Arc<Exchange>) -> Result<Arc<dyn ExecutionPlan>> {
        let reader: Arc<dyn ExecutionPlan> = Arc::new(ExchangeReaderExec::canonical(exchange, 1));
        match &self.projection {
            None => Ok(reader),
            Some(projection) => Ok(Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), reader)?)),
        }
    }

    /// The rows of `assignment` with all columns of the exchange.
    pub(crate) fn raw(&self, assignment: Assignment) -> Arc<dyn ExecutionPlan> {
        Arc::new(self.reader.reassigned(assignment))
    }

    /// True if `keys`, over this input's columns, are those by which the exchange was divided, in the same order.
    pub(crate) fn is_divided_by(&self, keys: &[PhysicalExprRef]) -> bool {
        let below = |key: &PhysicalExprRef| -> Option<usize> {
            let column = key.downcast_ref::<Column>()?.index();
            match &self.projection {
                None => Some(column),
                Some(projection) => Some(projection.expr().get(column)?.expr.downcast_ref::<Column>()?.index()),
            }
        };
        let divided = &self.exchange.bucketing.keys;
        keys.len() == divided.len()
            && keys.iter().zip(divided).all(|(key, own)| {
                below(key).is_some_and(|at| own.downcast_ref::<Column>().is_some_and(|column| column.index() == at))
            })
    }
}
