//! Plans as bytes, with their user functions by value: another process runs them without having anything loaded.
//!
//! A [`DataFrame`] travels as its logical plan, which the other side plans for itself; a [`PreparedQuery`] as the physical plan that it has
//! before it runs. Rows stay where they are: both sides must reach the files under the same paths or URLs. Bytes are read by an engine of the
//! same version only, and whoever wrote them decides what files are read: take them from those whose queries you would run.

mod codec;
mod envelope;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion_proto::logical_plan::AsLogicalPlan;
use datafusion_proto::physical_plan::{
    AsExecutionPlan, DeduplicatingProtoConverter, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use futures::TryStreamExt;
use sparklet_sandbox::Scope;
use sparklet_sandbox::parcel::Incoming;

use crate::error::{Error, ErrorKind, Result};
use crate::query::{self, DataFrame, PreparedQuery, Waiting, from_join};
use crate::session::Session;
use codec::Codec;
use envelope::{Envelope, Kind, wrong};

const PHYSICAL: &str = "prepare the query and send it as a physical plan: `prepare().await?.to_bytes()`";

impl DataFrame {
    /// Its logical plan in bytes, for [`Session::frame_from_bytes`].
    ///
    /// # Errors
    /// Something in it cannot travel: rows in memory, files by a pattern without a source's name, EXISTS and IN over a query, a function that
    /// is neither built in nor of a module.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let codec = Codec::default();
        let plan = self.logical_plan();
        no_patterns(plan).map_err(|e| self.session().explain(e).or_hint(PHYSICAL))?;
        let written = LogicalPlanNode::try_from_logical_plan(plan, &codec);
        let plan = finish(written, &codec, |node, bytes| node.try_encode(bytes), LogicalPlanNode::try_decode);
        let (modules, plan) = plan.map_err(|e| e.or_hint(PHYSICAL))?;
        Envelope { kind: Kind::Logical, modules: &modules, plan: &plan }.write()
    }
}

impl PreparedQuery {
    /// Its physical plan in bytes, for [`Session::plan_from_bytes`]; what it would change while it runs is not in it.
    ///
    /// # Errors
    /// Something in it cannot travel: an operator that is not DataFusion's own, a function that is neither built in nor of a module.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let codec = Codec::default();
        let written = PhysicalPlanNode::try_from_physical_plan(self.physical_plan(), &codec);
        let (modules, plan) =
            finish(written, &codec, |node, bytes| node.try_encode(bytes), PhysicalPlanNode::try_decode)?;
        Envelope { kind: Kind::Physical, modules: &modules, plan: &plan }.write()
    }
}

/// The modules and the plan, or what could not be written.
fn finish<T>(
    written: Result<T, DataFusionError>,
    codec: &Codec,
    encode: impl FnOnce(&T, &mut Vec<u8>) -> Result<(), DataFusionError>,
    decode: impl FnOnce(&[u8]) -> Result<T, DataFusionError>,
) -> Result<(Vec<u8>, Vec<u8>)> {
    if let Some(why) = codec.refused() {
        return Err(Error::new(ErrorKind::Query, why));
    }
    let mut bytes = Vec::new();
    encode(&written?, &mut bytes)?;
    // Readers bound how deep messages nest; here it is still known which plan it was.
    decode(&bytes).map_err(|_| Error::new(ErrorKind::Query, "the plan nests too deep to travel"))?;
    Ok((codec.modules()?, bytes))
}

/// Fails where files are told by a pattern that DataFusion would leave out.
fn no_patterns(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(table) = source_as_provider(&scan.source)
            && let Some(files) = table.downcast_ref::<ListingTable>()
            && files.table_paths().iter().any(|path| path.get_glob().is_some())
        {
            let message = format!("`{}` cannot travel: its files are told by a pattern", scan.table_name);
            return Err(DataFusionError::Plan(message));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(drop)
}

impl Session {
    /// The query that [`DataFrame::to_bytes`] wrote. Its functions are those that came with it, not those of this session.
    ///
    /// # Errors
    /// The bytes are damaged or of another version, a module in them is none that runs here, or files are not there.
    pub fn frame_from_bytes(&self, bytes: &[u8]) -> Result<DataFrame> {
        let envelope = Envelope::read(bytes, Kind::Logical)?;
        let codec = self.codec(envelope.modules, self.functions().scope())?;
        let plan = self.reading(|| {
            let node = LogicalPlanNode::try_decode(envelope.plan)?;
            node.try_into_logical_plan(&self.context().task_ctx(), &codec)
        })?;
        self.functions().came();
        Ok(self.frame(plan))
    }

    /// The plan that [`PreparedQuery::to_bytes`] wrote. Its functions are those that came with it, not those of this session.
    ///
    /// # Errors
    /// The bytes are damaged or of another version, or a module in them is none that runs here.
    pub fn plan_from_bytes(&self, bytes: &[u8]) -> Result<ReceivedPlan> {
        let envelope = Envelope::read(bytes, Kind::Physical)?;
        let scope = self.functions().query_scope();
        let codec = self.codec(envelope.modules, &scope)?;
        let physical = self.reading(|| {
            let node = PhysicalPlanNode::try_decode(envelope.plan)?;
            let context = self.context().task_ctx();
            // What a join tells its scans while it runs is one expression in both.
            DeduplicatingProtoConverter {}
                .proto_to_execution_plan(&node, &PhysicalPlanDecodeContext::new(&context, &codec))
        })?;
        Ok(ReceivedPlan { session: self.clone(), physical, scope })
    }

    fn codec(&self, modules: &[u8], scope: &Arc<Scope>) -> Result<Codec> {
        let incoming = Incoming::read(modules, self.functions().compiler(), &self.modules(), Arc::clone(scope));
        Ok(Codec::reading(incoming.map_err(|e| self.explain(e))?))
    }

    /// What DataFusion reads; a panic of its own is an error, since what it is given may be anything.
    fn reading<T>(&self, read: impl FnOnce() -> Result<T, DataFusionError>) -> Result<T> {
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(read) => read.map_err(|e| self.explain(e)),
            Err(_) => Err(wrong("the plan is damaged: DataFusion cannot read it")),
        }
    }
}

/// A physical plan that came as bytes.
#[derive(Debug)]
pub struct ReceivedPlan {
    session: Session,
    physical: Arc<dyn ExecutionPlan>,
    scope: Arc<Scope>,
}

impl ReceivedPlan {
    /// Columns of the result.
    pub fn schema(&self) -> SchemaRef {
        self.physical.schema()
    }

    /// The plan.
    pub fn physical_plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.physical
    }

    /// Runs it as one stream, as [`PreparedQuery::stream`] does. It is run once.
    ///
    /// # Errors
    /// It cannot begin.
    pub fn stream(&self) -> Result<SendableRecordBatchStream> {
        let stream = execute_stream(Arc::clone(&self.physical), self.session.context().task_ctx());
        let stream = stream.map_err(|e| self.session.explain(e))?;
        Ok(query::watched(stream, &self.session, &self.physical, &self.scope))
    }

    /// While what it gives lives, somebody waits for the rows; see [`PreparedQuery::waiting`].
    pub fn waiting(&self) -> Waiting {
        Waiting::of(&self.scope)
    }

    /// Runs it and returns all rows.
    ///
    /// # Errors
    /// Those of the query.
    pub async fn collect(&self) -> Result<Vec<RecordBatch>> {
        let waiting = self.waiting();
        let stream = self.stream()?;
        // A task of its own: a panic in an operator becomes an error instead of ending the caller.
        let rows = datafusion::common::runtime::SpawnedTask::spawn(stream.try_collect::<Vec<_>>()).join().await;
        waiting.done();
        rows.map_err(from_join)?.map_err(|e| self.session.explain(e))
    }
}
