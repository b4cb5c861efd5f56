//! A table with the columns of another in another order: what lies in `key=value` folders comes last in DataFusion's tables,
//! but stands anywhere in the query of a step.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, Statistics};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

/// `inner` with its columns in the order of `order`.
#[derive(Debug)]
pub(crate) struct OrderedTable {
    inner: Arc<dyn TableProvider>,
    order: Vec<usize>,
    schema: SchemaRef,
}

impl OrderedTable {
    /// `inner` with all its columns in the order of `names`. Fails where one does not exist.
    pub(crate) fn try_new<'a>(inner: Arc<dyn TableProvider>, names: impl Iterator<Item = &'a str>) -> Result<Self> {
        let there = inner.schema();
        let order = names.map(|name| Ok(there.index_of(name)?)).collect::<Result<Vec<usize>>>()?;
        let schema = Arc::new(there.project(&order)?);
        Ok(Self { inner, order, schema })
    }
}

#[async_trait]
impl TableProvider for OrderedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = match projection {
            Some(columns) => columns.iter().map(|&column| self.order[column]).collect(),
            None => self.order.clone(),
        };
        self.inner.scan(state, Some(&columns), filters, limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        let mut statistics = self.inner.statistics()?;
        let columns = statistics.column_statistics;
        statistics.column_statistics = self.order.iter().filter_map(|&column| columns.get(column).cloned()).collect();
        Some(statistics)
    }
}
