//! TPC-H tables generated on the fly (crate `tpchgen`), as a source for examples, tests and benches.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchReader};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::TryStreamExt;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

use crate::error::{Error, ErrorKind, Result};

/// Names of the eight tables.
pub const TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

type Rows = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// One part of a generated table.
pub(crate) struct TpchPart {
    pub(crate) table: &'static str,
    pub(crate) scale: f64,
    part: i32,
    parts: i32,
    schema: SchemaRef,
}

impl fmt::Debug for TpchPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tpch {} scale {} part {}/{}", self.table, self.scale, self.part, self.parts)
    }
}

impl PartitionStream for TpchPart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch_size = context.session_config().batch_size();
        let (_, rows) = generate(self.table, self.scale, self.part, self.parts, batch_size);
        let stream = futures::stream::iter(rows).map_err(Into::into);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}

/// Rows of `table` at `scale`, for parts that the scale makes; none where it is not known without generating.
pub(crate) fn row_count(table: &str, scale: f64) -> Option<u64> {
    let rows = match table {
        "customer" => CustomerGenerator::calculate_row_count(scale, 1, 1),
        "orders" => OrderGenerator::calculate_row_count(scale, 1, 1),
        "part" => PartGenerator::calculate_row_count(scale, 1, 1),
        "partsupp" => PartSuppGenerator::calculate_row_count(scale, 1, 1),
        "supplier" => SupplierGenerator::calculate_row_count(scale, 1, 1),
        "nation" => 25,
        "region" => 5,
        _ => return None,
    };
    u64::try_from(rows).ok()
}

/// A table of `name` at `scale` (1 is about 1 GB of text), in at most `parts` partitions.
pub(crate) fn table(name: &str, scale: f64, parts: usize) -> Result<StreamingTable> {
    let Some(table) = TABLES.into_iter().find(|t| *t == name) else {
        return Err(Error::new(ErrorKind::Source, format!("TPC-H has no table `{name}`"))
            .with_hint(format!("its tables are {}", TABLES.map(|t| format!("`{t}`")).join(", "))));
    };
    if !(scale.is_finite() && scale > 0.0 && scale <= 100_000.0) {
        return Err(Error::new(ErrorKind::Source, format!("TPC-H scale {scale} is out of range"))
            .with_hint("use a number above 0, e.g. 0.1 (100 MB of text)"));
    }
    let whole = matches!(table, "nation" | "region");
    let parts = if whole { 1 } else { i32::try_from(parts).unwrap_or(i32::MAX).clamp(1, 1024) };
    let (schema, _) = generate(table, scale, 1, 1, 1);
    // An object of its own: a scan is known by it.
    let schema: SchemaRef = Arc::new(schema.as_ref().clone());
    let streams = (1..=parts)
        .map(|part| {
            Arc::new(TpchPart { table, scale, part, parts, schema: Arc::clone(&schema) }) as Arc<dyn PartitionStream>
        })
        .collect();
    Ok(StreamingTable::try_new(schema, streams)?)
}

fn generate(table: &str, scale: f64, part: i32, parts: i32, batch_size: usize) -> (SchemaRef, Rows) {
    macro_rules! rows {
        ($arrow:ident, $generator:ident) => {{
            let rows = $arrow::new($generator::new(scale, part, parts)).with_batch_size(batch_size);
            (rows.schema(), Box::new(rows) as Rows)
        }};
    }
    match table {
        "customer" => rows!(CustomerArrow, CustomerGenerator),
        "orders" => rows!(OrderArrow, OrderGenerator),
        "part" => rows!(PartArrow, PartGenerator),
        "partsupp" => rows!(PartSuppArrow, PartSuppGenerator),
        "supplier" => rows!(SupplierArrow, SupplierGenerator),
        "nation" => rows!(NationArrow, NationGenerator),
        "region" => rows!(RegionArrow, RegionGenerator),
        _ => rows!(LineItemArrow, LineItemGenerator),
    }
}
