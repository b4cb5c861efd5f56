//! A table whose scans tell which source they read.
//!
//! A physical scan knows files, not names. So each scan of a registered table carries a tag with the table's identity and with the
//! filters that were settled by leaving files out (partition columns): from it a fingerprint is found again at any path.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Constraints, Result, Statistics};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::StreamingTableExec;
use sparklet_optimizer::{ScanTag, ScannedSource, SourceId, tag_scan};

/// The schema object of the rows that `scan` gives from memory or from a generator; none for any other plan.
pub(crate) fn schema_of_rows(scan: &dyn ExecutionPlan) -> Option<SchemaRef> {
    if let Some(streaming) = scan.downcast_ref::<StreamingTableExec>() {
        return Some(Arc::clone(streaming.partition_schema()));
    }
    let memory = scan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<MemorySourceConfig>()?;
    Some(memory.original_schema())
}

/// Rows of a table in memory.
fn in_memory(table: &dyn TableProvider) -> Option<Statistics> {
    let memory = table.downcast_ref::<MemTable>()?;
    let mut rows = 0;
    for partition in &memory.batches {
        rows += partition.try_read().ok()?.iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    Some(Statistics::new_unknown(&table.schema()).with_num_rows(Precision::Exact(rows)))
}

impl crate::session::Session {
    /// As [`Self::register_step`], for a table whose scans read no files: `is_scan` tells them from those of other tables.
    pub fn register_step_of(
        &self,
        step: &str,
        table: Arc<dyn TableProvider>,
        is_scan: impl Fn(&dyn ExecutionPlan) -> bool + Send + Sync + 'static,
    ) -> crate::error::Result<()> {
        let id = SourceId::Step { pipeline: self.pipeline().to_owned(), step: step.to_owned() };
        self.update_sources(|sources| sources.add_recogniser(move |scan| is_scan(scan).then(|| id.clone())));
        self.register_step(step, table)
    }
}

/// `inner` under the identity `id`.
#[derive(Debug)]
pub(crate) struct NamedTable {
    inner: Arc<dyn TableProvider>,
    id: SourceId,
    /// From the metadata of its files, when it was registered: DataFusion reads them only when it plans a scan.
    statistics: Option<Statistics>,
}

impl NamedTable {
    pub(crate) fn new(inner: Arc<dyn TableProvider>, id: SourceId) -> Self {
        Self { inner, id, statistics: None }
    }

    pub(crate) fn inner(&self) -> &Arc<dyn TableProvider> {
        &self.inner
    }

    pub(crate) fn id(&self) -> &SourceId {
        &self.id
    }

    pub(crate) fn with_statistics(self, statistics: Option<Statistics>) -> Self {
        Self { statistics, ..self }
    }
}

#[async_trait]
impl TableProvider for NamedTable {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.inner.constraints()
    }

    fn table_type(&self) -> TableType {
        self.inner.table_type()
    }

    fn get_table_definition(&self) -> Option<&str> {
        self.inner.get_table_definition()
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        self.inner.get_logical_plan()
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.inner.get_column_default(column)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = self.inner.scan(state, projection, filters, limit).await?;
        let given: Vec<&Expr> = filters.iter().collect();
        let support = self.inner.supports_filters_pushdown(&given)?;
        let settled = filters.iter().zip(support).filter(|(_, s)| *s == TableProviderFilterPushDown::Exact);
        let filters = settled.map(|(filter, _)| filter.clone()).collect();
        Ok(tag_scan(scan, &ScanTag(ScannedSource { id: self.id.clone(), filters })))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.inner.supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.statistics.clone().or_else(|| self.inner.statistics()).or_else(|| in_memory(self.inner.as_ref()))
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.inner.insert_into(state, input, insert_op).await
    }
}
