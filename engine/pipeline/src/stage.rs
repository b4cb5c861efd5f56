//! Results of steps as tables that later steps and checks read.
//!
//! A step's table has exactly the columns and types of its query, in order, whatever it is kept in: a Parquet or Arrow output is
//! read back (partition columns from the folders' names, with their types); a result that goes to CSV or JSON, or nowhere, is
//! kept in memory under the session's pool, or in a file of the work folder where it does not fit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::common::{ScalarValue, TableReference};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::TryStreamExt;
use sparklet_core::sink::{SinkFormat, SinkSpec};
use sparklet_core::{DataFrame, Error, ErrorKind, PreparedQuery, Result, Session};
use url::Url;

use crate::definition::Step;

mod ordered;
mod published;

use ordered::OrderedTable;
pub(crate) use published::published_table;

/// Share of the memory pool that one kept result may take before it goes to a file.
const MAX_POOL_SHARE: u64 = 4;

/// Puts `table`, the result of step `name`, in the place of what that name stood for.
pub(crate) fn register(session: &Session, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
    session.register_step(name, table)
}

/// The query of `step`, planned.
pub(crate) async fn query(
    session: &Session,
    step: &Step,
    params: &BTreeMap<String, ScalarValue>,
) -> Result<PreparedQuery> {
    prepared(session.sql(&step.sql.sql, params).await?, step).await
}

/// Plans `frame`, the query of `step`: for good where it is to be deterministic.
pub(crate) async fn prepared(frame: DataFrame, step: &Step) -> Result<PreparedQuery> {
    let frame = frame.of_step(step.name.as_str());
    if step.deterministic { frame.keep_plan() } else { frame }.prepare().await
}

/// Makes the query of `step` a part of the queries that read it.
pub(crate) async fn inline(session: &Session, step: &Step, params: &BTreeMap<String, ScalarValue>) -> Result<()> {
    let frame = session.sql(&step.sql.sql, params).await?;
    let view = ViewTable::new(frame.logical_plan().clone(), Some(step.sql.sql.clone()));
    register(session, &step.name, Arc::new(view))
}

/// Takes the table of step `name` away, and with it what it holds.
pub(crate) fn forget(session: &Session, name: &str) {
    if let Err(error) = session.context().deregister_table(TableReference::bare(name)) {
        tracing::debug!(%error, name, "a table stays registered");
    }
}

/// Where files of an output are read from.
#[derive(Debug, Clone)]
pub(crate) enum Files {
    /// A local file, or a folder.
    Local(PathBuf),
    /// An object-store URL.
    Remote(Url),
}

/// A table over the files of step `name`'s output, with the columns of `schema`.
pub(crate) fn files_table(
    session: &Session,
    name: &str,
    files: &Files,
    sink: &SinkSpec,
    schema: &SchemaRef,
) -> Result<Arc<dyn TableProvider>> {
    let ending = sink.format.ending(sink.compression.as_deref());
    let extension = if sink.single_file { String::new() } else { format!(".{ending}") };
    let partition_columns = sink.partition_by.iter().map(|name| match schema.field_with_name(name) {
        // Values come out of names as text; a dictionary of them is no type of a query.
        Ok(field) => Ok((name.clone(), field.data_type().clone())),
        Err(error) => Err(Error::from(error)),
    });
    let partition_columns = partition_columns.collect::<Result<Vec<(String, DataType)>>>()?;
    let in_files: Vec<_> =
        schema.fields().iter().filter(|f| !sink.partition_by.contains(f.name())).map(Arc::clone).collect();
    let options =
        ListingOptions::new(format(sink)?).with_file_extension(extension).with_table_partition_cols(partition_columns);
    let config = ListingTableConfig::new(url(files, sink)?)
        .with_listing_options(options)
        .with_schema(Arc::new(Schema::new(in_files)));
    let table: Arc<dyn TableProvider> = Arc::new(ListingTable::try_new(config)?);
    if sink.partition_by.is_empty() {
        return Ok(table);
    }
    let names = schema.fields().iter().map(|field| field.name().as_str());
    Ok(Arc::new(OrderedTable::try_new(session.name_step_table(name, table), names)?))
}

fn url(files: &Files, sink: &SinkSpec) -> Result<ListingTableUrl> {
    let url = match files {
        Files::Remote(url) => url.clone(),
        Files::Local(path) => {
            let url = if sink.single_file { Url::from_file_path(path) } else { Url::from_directory_path(path) };
            url.map_err(|()| Error::new(ErrorKind::Output, format!("`{}` is not an absolute path", path.display())))?
        }
    };
    Ok(ListingTableUrl::try_new(url, None)?)
}

fn format(sink: &SinkSpec) -> Result<Arc<dyn FileFormat>> {
    let compression = match sink.compression.as_deref() {
        Some("gzip") => FileCompressionType::GZIP,
        Some("zstd") => FileCompressionType::ZSTD,
        _ => FileCompressionType::UNCOMPRESSED,
    };
    Ok(match sink.format {
        SinkFormat::Parquet => Arc::new(ParquetFormat::default()),
        SinkFormat::Arrow => Arc::new(ArrowFormat),
        SinkFormat::Csv => Arc::new(
            CsvFormat::default()
                .with_has_header(true)
                .with_newlines_in_values(true)
                .with_file_compression_type(compression),
        ),
        SinkFormat::Json => Arc::new(JsonFormat::default().with_file_compression_type(compression)),
    })
}

/// A result that was computed once and is kept for later steps of the run.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Rows.
    pub(crate) rows: u64,
    /// Bytes in memory, or of the file.
    pub(crate) bytes: u64,
    /// The table.
    pub(crate) table: Arc<dyn TableProvider>,
    /// What holds the rows.
    pub(crate) holder: Holder,
}

/// What holds the rows of a kept result; dropped when no one reads it any more.
#[derive(Debug)]
pub(crate) enum Holder {
    /// Memory of the session's pool.
    Memory(MemoryReservation),
    /// A file of the work folder.
    File(PathBuf),
}

impl Holder {
    /// As it stands in a record.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::File(_) => "spilled",
        }
    }

    /// Bytes that it holds in the memory pool.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        match self {
            Self::Memory(reservation) => reservation.size() as u64,
            Self::File(_) => 0,
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Self::File(path) = self
            && let Err(error) = std::fs::remove_file(&*path)
        {
            tracing::debug!(path = %path.display(), %error, "left for the end of the run");
        }
    }
}

/// Runs `query` and keeps its rows, in their order: in memory while they fit, else in `file`.
pub(crate) async fn keep(query: &PreparedQuery, name: &str, file: &Path) -> Result<Kept> {
    let session = query.session();
    let pool = &session.context().runtime_env().memory_pool;
    let reservation = MemoryConsumer::new(format!("result of step {name}")).register(pool);
    let limit = usize::try_from(session.memory().limit / MAX_POOL_SHARE).unwrap_or(usize::MAX);
    let mut keeping = Keeping {
        // An object of its own: scans of rows in memory are known by it.
        schema: Arc::new(query.schema().as_ref().clone()),
        counter: RecordBatchMemoryCounter::new(),
        reservation,
        limit,
        batches: Vec::new(),
        spill: None,
        file: file.to_owned(),
        rows: 0,
    };
    let mut stream = query.stream()?;
    loop {
        match stream.try_next().await {
            Ok(Some(batch)) => keeping.add(batch)?,
            Ok(None) => break,
            Err(error) => return Err(query.failed(error).await),
        }
    }
    drop(stream);
    keeping.finish(session, name)
}

struct Keeping {
    schema: SchemaRef,
    counter: RecordBatchMemoryCounter,
    reservation: MemoryReservation,
    limit: usize,
    batches: Vec<RecordBatch>,
    spill: Option<Spill>,
    file: PathBuf,
    rows: u64,
}

/// An Arrow IPC stream: unlike an IPC file it may change dictionaries on the way.
struct Spill {
    writer: StreamWriter<BufWriter<File>>,
    // Removes the file if the result does not come to its end.
    holder: Holder,
}

impl Keeping {
    fn add(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows += batch.num_rows() as u64;
        // Operators may say less of a column than the plan does; readers rely on the plan.
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), batch.columns().to_vec(), &rows)?;
        if let Some(spill) = &mut self.spill {
            return spill.writer.write(&batch).map_err(|e| cannot_spill(&self.file, e));
        }
        let before = self.counter.memory_usage();
        self.counter.count_batch(&batch);
        let after = self.counter.memory_usage();
        self.batches.push(batch);
        if after <= self.limit && self.reservation.try_grow(after - before).is_ok() {
            return Ok(());
        }
        let spill = Spill::create(&self.file, &self.schema)?;
        let spill = self.spill.insert(spill);
        for batch in self.batches.drain(..) {
            spill.writer.write(&batch).map_err(|e| cannot_spill(&self.file, e))?;
        }
        self.reservation.free();
        Ok(())
    }

    fn finish(self, session: &Session, name: &str) -> Result<Kept> {
        let Some(spill) = self.spill else {
            let bytes = self.reservation.size() as u64;
            let table = Arc::new(MemTable::try_new(self.schema, vec![self.batches])?);
            return Ok(Kept { rows: self.rows, bytes, table, holder: Holder::Memory(self.reservation) });
        };
        let Spill { mut writer, holder } = spill;
        let finished = writer.finish().and_then(|()| Ok(writer.get_mut().flush()?));
        finished.map_err(|e| cannot_spill(&self.file, e))?;
        let bytes = std::fs::metadata(&self.file).map_err(|e| cannot_spill(&self.file, e.into()))?.len();
        let sink =
            SinkSpec { format: SinkFormat::Arrow, single_file: true, partition_by: Vec::new(), compression: None };
        let table = files_table(session, name, &Files::Local(self.file), &sink, &self.schema)?;
        Ok(Kept { rows: self.rows, bytes, table, holder })
    }
}

impl Spill {
    fn create(path: &Path, schema: &Schema) -> Result<Self> {
        let failed = |e: io::Error| cannot_spill(path, e.into());
        let file = File::create(path).map_err(failed)?;
        let holder = Holder::File(path.to_owned());
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let writer = StreamWriter::try_new_with_options(BufWriter::new(file), schema, options)?;
        Ok(Self { writer, holder })
    }
}

fn cannot_spill(path: &Path, error: arrow::error::ArrowError) -> Error {
    Error::new(
        ErrorKind::Resources,
        format!("a result does not fit in memory and cannot be kept in `{}`: {error}", path.display()),
    )
    .with_hint("free space in the state folder (`--state`), or allow more memory (`--memory`)")
}
