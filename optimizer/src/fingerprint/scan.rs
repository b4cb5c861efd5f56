//! Scans of physical plans to the canonical form.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::physical_plan::ExecutionPlan;

use super::canon::Lowered;
use super::expression::project;
use super::physical::{Demand, Physical, Rows};
use super::term::TermId;
use crate::source::file_scan;

/// Largest literal relation whose values are part of its identity, in values.
pub(crate) const MAX_VALUES: usize = 4096;

impl Physical<'_> {
    pub(super) fn scan(&mut self, exec: &DataSourceExec, demand: Demand) -> (Lowered, Rows) {
        let Some(source) = self.sources.by_scan(exec) else {
            return match exec.data_source().downcast_ref::<MemorySourceConfig>() {
                Some(memory) => (self.values(memory), Rows::Its),
                None => (Lowered::unknown(exec.schema().fields().len()), Rows::Other),
            };
        };
        let atom = self.canon.source(&source.id);
        let (block, occ) = self.canon.single(atom);
        let config = file_scan(exec);
        let table = match config {
            Some(config) => Arc::clone(config.file_source().table_schema().table_schema()),
            None => exec.schema(),
        };
        let columns = table
            .fields()
            .iter()
            .map(|field| {
                let key = self.canon.plain_key(&super::quoted(field.name()));
                Some(self.canon.terms.column(occ, key))
            })
            .collect();
        let mut lowered = Lowered::new(block, columns);
        self.listed_filters(&mut lowered, &source.filters, &table);
        let mut rows = Rows::Its;
        if let Some(config) = config {
            rows = self.scan_filter(&mut lowered, config);
            if let Some(projection) = config.file_source().projection() {
                let exprs: Vec<&Arc<dyn PhysicalExpr>> = projection.iter().map(|e| &e.expr).collect();
                lowered = self.projection(lowered, &exprs, &table);
            }
        }
        match (exec.fetch(), rows) {
            // A scan stops at its limit on its own; in several partitions, each does.
            (Some(fetch), Rows::Its) => match demand {
                Some(demand) if demand <= fetch => (lowered, Rows::Its),
                _ => self.fetch(lowered, exec, Some(fetch), demand),
            },
            (_, rows) => (lowered, rows),
        }
    }

    /// Filters that listing the files applied.
    fn listed_filters(&mut self, lowered: &mut Lowered, filters: &[Expr], table: &SchemaRef) {
        if filters.is_empty() {
            return;
        }
        let props = ExecutionProps::new();
        let schema = DFSchema::try_from(Arc::clone(table));
        for filter in filters {
            let expr = schema.as_ref().ok().and_then(|schema| {
                create_physical_expr(filter, schema, &props, &PhysicalPlanningContext::default()).ok()
            });
            match expr {
                Some(expr) => self.filter(lowered, &expr, table),
                None => self.canon.filter(lowered, None),
            }
        }
    }

    /// A predicate that the scan applies in full is a filter; one that only leaves out row groups leaves rows that no subplan has.
    fn scan_filter(&mut self, lowered: &mut Lowered, config: &FileScanConfig) -> Rows {
        let Some(predicate) = config.file_source().filter() else { return Rows::Its };
        let exact = config
            .file_source()
            .downcast_ref::<ParquetSource>()
            .is_some_and(|parquet| parquet.table_parquet_options().global.pushdown_filters);
        let table = config.file_source().table_schema().table_schema();
        let conditions = self.expressions(&lowered.columns, table).conjuncts(&predicate);
        if exact {
            for condition in conditions {
                self.canon.filter(lowered, condition);
            }
            Rows::Its
        } else if conditions.is_empty() {
            Rows::Its
        } else {
            Rows::Other
        }
    }

    /// A relation of literals, which is planned as batches in memory.
    fn values(&mut self, memory: &MemorySourceConfig) -> Lowered {
        let schema = memory.original_schema();
        let batches: Vec<&RecordBatch> = memory.partitions().iter().flatten().collect();
        let rows: usize = batches.iter().map(|b| b.num_rows()).sum();
        let width = schema.fields().len();
        let all: Vec<usize> = (0..width).collect();
        let projection = memory.projection().as_deref().unwrap_or(&all);
        if rows.saturating_mul(width) > MAX_VALUES {
            return Lowered::unknown(projection.len());
        }
        let mut cells: Vec<Vec<TermId>> = Vec::with_capacity(rows);
        for batch in batches {
            for row in 0..batch.num_rows() {
                let values: Option<Vec<ScalarValue>> =
                    batch.columns().iter().map(|column| ScalarValue::try_from_array(column, row).ok()).collect();
                let Some(values) = values else { return Lowered::unknown(projection.len()) };
                cells.push(values.iter().map(|value| self.canon.scalar(value)).collect());
            }
        }
        project(self.canon.values(&cells, width), projection)
    }
}
