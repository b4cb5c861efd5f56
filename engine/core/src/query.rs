//! A query: lazy as a [`DataFrame`], then planned, then run while it is observed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::{Decision, PlanRecord};

use crate::error::Result;
use crate::progress::Progress;
use crate::sink::SinkSpec;

/// A lazy query of a session.
#[derive(Clone)]
pub struct DataFrame;

impl DataFrame {
    /// The logical plan as written (not optimised).
    pub fn logical_plan(&self) -> &LogicalPlan {
        unimplemented!()
    }

    /// Columns of the result.
    pub fn schema(&self) -> SchemaRef {
        unimplemented!()
    }

    /// Optimises and plans; reads metadata, no data.
    pub async fn prepare(&self) -> Result<PreparedQuery> {
        unimplemented!()
    }

    /// Runs it and returns all rows.
    pub async fn collect(&self) -> Result<Vec<RecordBatch>> {
        unimplemented!()
    }
}

/// A planned query; runs once.
pub struct PreparedQuery;

/// What [`PreparedQuery::write`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteSummary {
    /// Files, as paths relative to the target folder (`month=1/part-0.parquet`), or empty for a single file.
    pub files: Vec<String>,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// Partition folders, e.g. `month=1`, sorted; empty where not partitioned.
    pub partitions: Vec<String>,
}

impl PreparedQuery {
    /// Columns of the result.
    pub fn schema(&self) -> SchemaRef {
        unimplemented!()
    }

    /// The physical plan.
    pub fn physical_plan(&self) -> &Arc<dyn ExecutionPlan> {
        unimplemented!()
    }

    /// The optimised logical plan.
    pub fn logical_plan(&self) -> &LogicalPlan {
        unimplemented!()
    }

    /// Time spent in planning.
    pub fn planning_time(&self) -> Duration {
        unimplemented!()
    }

    /// What the optimizer decided.
    pub fn decisions(&self) -> &[Decision] {
        unimplemented!()
    }

    /// Live counters.
    pub fn progress(&self) -> Arc<Progress> {
        unimplemented!()
    }

    /// Runs it as one stream; partitions are merged, order kept where the query has one.
    pub fn stream(&self) -> Result<SendableRecordBatchStream> {
        unimplemented!()
    }

    /// Runs it and returns all rows.
    pub async fn collect(&self) -> Result<Vec<RecordBatch>> {
        unimplemented!()
    }

    /// Runs it into local files: `target` is the file, or the folder, which must not exist yet. Data is on disk (fsync) on return.
    pub async fn write(&self, _target: &Path, _sink: &SinkSpec) -> Result<WriteSummary> {
        unimplemented!()
    }

    /// The plan with what was observed so far; final once the stream has ended (or was dropped).
    pub fn observe(&self) -> PlanRecord {
        unimplemented!()
    }
}
