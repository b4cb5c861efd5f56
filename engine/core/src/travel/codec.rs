//! What DataFusion cannot write of a plan by itself: user functions, their tables, aggregates cut in two, tables that have a name.

use std::collections::HashSet;
use std::fmt::Debug;
use std::io::Cursor;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::common::{Result, TableReference, exec_datafusion_err, exec_err, plan_datafusion_err, plan_err};
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::datasource::listing::{ListingTable, ListingTableConfig};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::DataFusionError;
use datafusion::execution::{SessionStateDefaults, TaskContext};
use datafusion::logical_expr::{AggregateUDF, Extension, LogicalPlan, ScalarUDF, TableScanBuilder, WindowUDF};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::logical_plan::{AsLogicalPlan, DefaultLogicalExtensionCodec, LogicalExtensionCodec};
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf::LogicalPlanNode;
use serde::{Deserialize, Serialize};
use sparklet_optimizer::{AggregatePart, SourceId};
use sparklet_sandbox::parcel::{Incoming, Outgoing};

use crate::named::NamedTable;

/// First bytes of what is written here.
const OF_MODULE: u8 = 1;
const PART: u8 = 2;
const NAMED: u8 = 3;

/// Most tables in tables: views over views.
const MAX_DEPTH: usize = 16;

static BUILT_IN: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let scalar = SessionStateDefaults::default_scalar_functions().into_iter().map(|f| f.name().to_owned());
    let aggregate = SessionStateDefaults::default_aggregate_functions().into_iter().map(|f| f.name().to_owned());
    let window = SessionStateDefaults::default_window_functions().into_iter().map(|f| f.name().to_owned());
    scalar.chain(aggregate).chain(window).collect()
});

/// Writes one plan, or reads one.
#[derive(Debug, Default)]
pub(super) struct Codec {
    outgoing: Mutex<Outgoing>,
    incoming: Option<Incoming>,
    /// What cannot be written: DataFusion passes over such errors of functions, or wraps them.
    refused: Mutex<Option<String>>,
    depth: AtomicUsize,
}

/// A part of an aggregate; its arguments follow as a schema of Arrow.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    function: String,
    merges: bool,
}

/// A table that has a name; a scan of what is under the name follows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    id: SourceId,
    /// Patterns that its files match, of each of its locations.
    patterns: Vec<Option<String>>,
}

impl Codec {
    /// Reads a plan whose modules are `incoming`.
    pub(super) fn reading(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), ..Self::default() }
    }

    /// The modules of what was written.
    pub(super) fn modules(&self) -> Result<Vec<u8>> {
        self.outgoing().bytes()
    }

    /// Why what was written is not the plan.
    pub(super) fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn incoming(&self) -> Result<&Incoming> {
        self.incoming.as_ref().ok_or_else(|| plan_datafusion_err!("a plan is only written here"))
    }

    fn refuse(&self, why: String) -> DataFusionError {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        plan_datafusion_err!("{}", refused.get_or_insert(why))
    }

    /// Writes what a module's function is, or nothing for one of DataFusion, which is known by its name.
    fn write_function(&self, name: &str, of_module: Option<Result<Vec<u8>>>, buf: &mut Vec<u8>) -> Result<()> {
        match of_module {
            Some(written) => {
                buf.push(OF_MODULE);
                buf.extend(written.map_err(|e| self.refuse(e.strip_backtrace()))?);
                Ok(())
            }
            None if BUILT_IN.contains(name) => Ok(()),
            None => {
                Err(self.refuse(format!("function `{name}` cannot travel: it is neither built in nor of a module")))
            }
        }
    }

    fn write_scalar(&self, function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        let of_module = self.outgoing().scalar(function);
        self.write_function(function.name(), of_module, buf)
    }

    fn write_aggregate(&self, function: &AggregateUDF, buf: &mut Vec<u8>) -> Result<()> {
        let Some(part) = AggregatePart::of(function) else {
            let of_module = self.outgoing().aggregate(function);
            return self.write_function(function.name(), of_module, buf);
        };
        buf.push(PART);
        write_part(part, buf).map_err(|e| self.refuse(e.strip_backtrace()))
    }

    fn read_scalar(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        match buf.split_first() {
            Some((&OF_MODULE, reference)) => Ok(Arc::new(self.incoming()?.scalar(reference)?)),
            _ => exec_err!("no function `{}` here", name.escape_debug()),
        }
    }

    fn read_aggregate(&self, name: &str, buf: &[u8]) -> Result<Arc<AggregateUDF>> {
        match buf.split_first() {
            Some((&OF_MODULE, reference)) => Ok(Arc::new(self.incoming()?.aggregate(reference)?)),
            Some((&PART, part)) => Ok(Arc::new(read_part(part)?.make()?)),
            _ => exec_err!("no aggregate function `{}` here", name.escape_debug()),
        }
    }

    fn write_table(&self, name: &TableReference, table: &Arc<dyn TableProvider>, buf: &mut Vec<u8>) -> Result<()> {
        let of_module = self.outgoing().table(table.as_ref());
        if let Some(call) = of_module {
            buf.push(OF_MODULE);
            buf.extend(call?);
            return Ok(());
        }
        let refuse = || Err(self.refuse(format!("table `{name}` cannot travel: its rows are in no files")));
        let Some(named) = table.downcast_ref::<NamedTable>() else { return refuse() };
        let inner = named.inner();
        let patterns = match inner.downcast_ref::<ListingTable>() {
            Some(files) => {
                let patterns = files.table_paths().iter().map(|url| url.get_glob().as_ref().map(ToString::to_string));
                patterns.collect()
            }
            None if inner.is::<ViewTable>() => Vec::new(),
            None => return refuse(),
        };
        let head = Named { id: named.id().clone(), patterns };
        let scan = TableScanBuilder::new(name.clone(), provider_as_source(Arc::clone(inner))).build()?;
        let scan = LogicalPlanNode::try_from_logical_plan(&LogicalPlan::TableScan(scan), self)?;
        buf.push(NAMED);
        write_head(&head, buf)?;
        scan.try_encode(buf)
    }

    fn read_table(&self, buf: &[u8], ctx: &TaskContext) -> Result<Arc<dyn TableProvider>> {
        match buf.split_first() {
            Some((&OF_MODULE, call)) => Ok(Arc::new(self.incoming()?.table(call)?)),
            Some((&NAMED, named)) => {
                let (Named { id, patterns }, scan) = read_head(named)?;
                if self.depth.fetch_add(1, Relaxed) >= MAX_DEPTH {
                    return exec_err!("the plan has more than {MAX_DEPTH} views over views");
                }
                let scan = LogicalPlanNode::try_decode(scan)?.try_into_logical_plan(ctx, self);
                self.depth.fetch_sub(1, Relaxed);
                let LogicalPlan::TableScan(scan) = scan? else { return exec_err!("a table of the plan is none") };
                let table = matching(source_as_provider(&scan.source)?, &patterns, ctx)?;
                Ok(Arc::new(NamedTable::new(table, id)))
            }
            _ => exec_err!("a table of the plan is of an unknown sort"),
        }
    }
}

/// `table` with the files that match `patterns` alone: DataFusion writes locations without them.
fn matching(
    table: Arc<dyn TableProvider>,
    patterns: &[Option<String>],
    ctx: &TaskContext,
) -> Result<Arc<dyn TableProvider>> {
    if patterns.iter().all(Option::is_none) {
        return Ok(table);
    }
    let files = table.downcast_ref::<ListingTable>().filter(|files| files.table_paths().len() == patterns.len());
    let files = files.ok_or_else(|| exec_datafusion_err!("a table of the plan has no such files"))?;
    let paths = files.table_paths().iter().zip(patterns).map(|(path, pattern)| match pattern {
        Some(pattern) => path.clone().with_glob(pattern),
        None => Ok(path.clone()),
    });
    let options = files.options().clone();
    let partitioned = |field: &FieldRef| options.table_partition_cols.iter().any(|(name, _)| name == field.name());
    let schema = files.schema();
    let fields: Vec<FieldRef> = schema.fields().iter().filter(|field| !partitioned(field)).cloned().collect();
    let config = ListingTableConfig::new_with_multi_paths(paths.collect::<Result<_>>()?)
        .with_listing_options(options)
        .with_schema(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())));
    let cache = ctx.runtime_env().cache_manager.get_file_statistic_cache();
    Ok(Arc::new(ListingTable::try_new(config)?.with_cache(cache)))
}

fn write_part(part: AggregatePart, buf: &mut Vec<u8>) -> Result<()> {
    let AggregatePart { function, merges, fields } = part;
    write_head(&Part { function, merges }, buf)?;
    let schema = Schema::new(fields);
    StreamWriter::try_new(buf, &schema)?.finish()?;
    Ok(())
}

fn read_part(part: &[u8]) -> Result<AggregatePart> {
    let (Part { function, merges }, schema) = read_head(part)?;
    let schema = StreamReader::try_new(Cursor::new(schema), None)?.schema();
    Ok(AggregatePart { function, merges, fields: schema.fields().iter().cloned().collect() })
}

fn write_head(head: &impl Serialize, buf: &mut Vec<u8>) -> Result<()> {
    let head = serde_json::to_vec(head).map_err(|e| plan_datafusion_err!("{e}"))?;
    let length = u32::try_from(head.len()).map_err(|e| plan_datafusion_err!("{e}"))?;
    buf.extend(length.to_le_bytes());
    buf.extend(head);
    Ok(())
}

fn read_head<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<(T, &[u8])> {
    let parts = bytes.split_first_chunk::<4>();
    let parts = parts.and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
    let (head, rest) = parts.ok_or_else(|| exec_datafusion_err!("the plan is damaged: a part ends too early"))?;
    let head = serde_json::from_slice(head).map_err(|e| exec_datafusion_err!("the plan is damaged: {e}"))?;
    Ok((head, rest))
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        buf: &[u8],
        _: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match buf.split_first() {
            Some((&OF_MODULE, scan)) => Ok(Arc::new(self.incoming()?.scan(scan)?)),
            _ => exec_err!("an operator of the plan is of an unknown sort"),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let of_module = self.outgoing().scan(node.as_ref());
        match of_module {
            Some(scan) => {
                buf.push(OF_MODULE);
                buf.extend(scan.map_err(|e| self.refuse(e.strip_backtrace()))?);
                Ok(())
            }
            None => Err(self.refuse(format!("operator `{}` cannot travel", node.name()))),
        }
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        self.read_scalar(name, buf)
    }

    fn try_encode_udf(&self, node: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.write_scalar(node, buf)
    }

    fn try_decode_udaf(&self, name: &str, buf: &[u8]) -> Result<Arc<AggregateUDF>> {
        self.read_aggregate(name, buf)
    }

    fn try_encode_udaf(&self, node: &AggregateUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.write_aggregate(node, buf)
    }

    fn try_encode_udwf(&self, node: &WindowUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.write_function(node.name(), None, buf)
    }
}

impl LogicalExtensionCodec for Codec {
    fn try_decode(&self, _: &[u8], _: &[LogicalPlan], _: &TaskContext) -> Result<Extension> {
        exec_err!("a node of the plan is of an unknown sort")
    }

    fn try_encode(&self, node: &Extension, _: &mut Vec<u8>) -> Result<()> {
        Err(self.refuse(format!("node `{}` cannot travel", node.node.name())))
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        _: &TableReference,
        schema: SchemaRef,
        ctx: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        let table = self.read_table(buf, ctx)?;
        if table.schema().fields() != schema.fields() {
            return plan_err!("a table of the plan has other columns here");
        }
        Ok(table)
    }

    fn try_encode_table_provider(
        &self,
        table_ref: &TableReference,
        node: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        self.write_table(table_ref, &node, buf)
    }

    fn try_decode_file_format(&self, buf: &[u8], ctx: &TaskContext) -> Result<Arc<dyn FileFormatFactory>> {
        DefaultLogicalExtensionCodec {}.try_decode_file_format(buf, ctx)
    }

    fn try_encode_file_format(&self, buf: &mut Vec<u8>, node: Arc<dyn FileFormatFactory>) -> Result<()> {
        DefaultLogicalExtensionCodec {}.try_encode_file_format(buf, node)
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        self.read_scalar(name, buf)
    }

    fn try_encode_udf(&self, node: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.write_scalar(node, buf)
    }

    fn try_decode_udaf(&self, name: &str, buf: &[u8]) -> Result<Arc<AggregateUDF>> {
        self.read_aggregate(name, buf)
    }

    fn try_encode_udaf(&self, node: &AggregateUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.write_aggregate(node, buf)
    }

    fn try_encode_udwf(&self, node: &WindowUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.write_function(node.name(), None, buf)
    }
}
