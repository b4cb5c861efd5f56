//! Results into local files, by DataFusion's own writers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::{CsvOptions, JsonOptions, TableParquetOptions};
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::{FileGroup, FileOutputMode, FileSinkConfig};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::TryStreamExt;

use crate::error::{Error, ErrorKind, Result};
use crate::query::{PreparedQuery, from_join};
use crate::sink::{SinkFormat, SinkSpec};

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
    /// Runs it into local files: `target` is the file, or the folder, which must not exist yet. Data is on disk (fsync) on return.
    ///
    /// A folder is made even when there are no rows; it then holds one file without rows (none if partitioned). Fails with
    /// [`ErrorKind::Output`] where the files cannot be written and with [`ErrorKind::Data`] where a partition column holds NULL
    /// or an empty text, which a `key=value` folder cannot say. What was written until then stays for the caller to remove.
    pub async fn write(&self, target: &Path, sink: &SinkSpec) -> Result<WriteSummary> {
        let cannot = |e: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Output, format!("cannot write `{}`: {e}", target.display()))
                .with_hint("check that the folder exists, is writable and has space")
        };
        if !sink.single_file {
            std::fs::create_dir_all(target).map_err(|e| cannot(&e))?;
        }
        check_partition_columns(&self.schema(), sink)?;
        let waiting = self.waiting();
        let rows = Arc::new(AtomicU64::new(0));
        let stream = checked(self.stream_hidden()?, sink, Arc::clone(&rows));
        let mut written = self.run_writer(stream, target, sink).await;
        if written.is_err() && self.gave_up() {
            // Nobody has seen what the trial wrote.
            clear(target, sink.single_file).map_err(|e| cannot(&e))?;
            rows.store(0, Relaxed);
            let stream = checked(self.stream_default()?, sink, Arc::clone(&rows));
            written = self.run_writer(stream, target, sink).await;
        }
        waiting.done();
        let rows = rows.load(Relaxed);
        if written.is_ok() && rows == 0 && !sink.single_file && sink.partition_by.is_empty() {
            // A folder without a file has no columns: later readers would not know them.
            let nothing = Box::pin(RecordBatchStreamAdapter::new(self.schema(), futures::stream::empty()));
            let single = SinkSpec { single_file: true, ..sink.clone() };
            let file = target.join(format!("part-0.{}", sink.format.ending(sink.compression.as_deref())));
            written = self.run_writer(nothing, &file, &single).await;
        }
        if let Err(error) = written {
            let at_output = matches!(error.kind, ErrorKind::Source | ErrorKind::Transient)
                && error.message.contains(target.to_string_lossy().as_ref());
            return Err(if at_output { cannot(&error) } else { error });
        }
        let (target, sink, schema) = (target.to_owned(), sink.clone(), self.schema());
        // Blocking I/O: fsync may take long.
        tokio::task::spawn_blocking(move || settle(&target, &sink, &schema, rows))
            .await
            .map_err(from_join)?
            .map_err(|e| cannot(&e))
    }

    async fn run_writer(&self, stream: SendableRecordBatchStream, target: &Path, sink: &SinkSpec) -> Result<()> {
        let state = self.session().context().state();
        let config = sink_config(&self.schema(), target, sink)?;
        // DataFusion makes writers as plans; only the sink in it is wanted, the rows come from our own stream.
        let plan = format(sink)?.create_writer_physical_plan(self.physical_plan(), &state, config, None).await?;
        let context = Arc::clone(self.task_context());
        // A task of its own: a panic in an operator becomes an error instead of ending the caller.
        let written = SpawnedTask::spawn(async move {
            let Some(writer) = plan.downcast_ref::<DataSinkExec>() else {
                return datafusion::common::internal_err!("a writer without a sink");
            };
            writer.sink().write_all(stream, &context).await
        });
        match written.join().await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failed(error).await),
            Err(join) => Err(from_join(join)),
        }
    }
}

/// Removes what was written.
fn clear(target: &Path, single_file: bool) -> std::io::Result<()> {
    let removed = if single_file { std::fs::remove_file(target) } else { std::fs::remove_dir_all(target) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ if single_file => Ok(()),
        _ => std::fs::create_dir_all(target),
    }
}

fn sink_config(schema: &SchemaRef, target: &Path, sink: &SinkSpec) -> Result<FileSinkConfig> {
    let mut path = target.to_string_lossy().into_owned();
    if !sink.single_file && !path.ends_with('/') {
        path.push('/');
    }
    let url = url::Url::from_file_path(target)
        .or_else(|()| url::Url::from_directory_path(target))
        .map_err(|()| Error::new(ErrorKind::Output, format!("`{path}` is not an absolute path")))?;
    let url = if sink.single_file { url } else { url::Url::from_directory_path(target).unwrap_or(url) };
    let url = ListingTableUrl::try_new(url, None)?;
    let partition_by = sink
        .partition_by
        .iter()
        .map(|name| {
            let data_type = schema.field_with_name(name).map_or(DataType::Utf8, |f| f.data_type().clone());
            (name.clone(), data_type)
        })
        .collect();
    Ok(FileSinkConfig {
        original_url: path,
        object_store_url: url.object_store(),
        file_group: FileGroup::default(),
        table_paths: vec![url],
        output_schema: Arc::clone(schema),
        table_partition_cols: partition_by,
        insert_op: InsertOp::Append,
        keep_partition_by_columns: false,
        file_extension: sink.format.ending(sink.compression.as_deref()).to_owned(),
        file_output_mode: if sink.single_file { FileOutputMode::SingleFile } else { FileOutputMode::Directory },
    })
}

fn format(sink: &SinkSpec) -> Result<Arc<dyn FileFormat>> {
    let named = sink.compression.as_deref();
    let unknown = |known: &str| {
        let given = named.unwrap_or_default();
        Error::new(ErrorKind::Output, format!("`{given}` is not a compression for {}", sink.format.label()))
            .with_hint(format!("use {known}"))
    };
    let text = || match named {
        None | Some("none") => Ok(CompressionTypeVariant::UNCOMPRESSED),
        Some("gzip") => Ok(CompressionTypeVariant::GZIP),
        Some("zstd") => Ok(CompressionTypeVariant::ZSTD),
        Some(_) => Err(unknown("`none`, `gzip` or `zstd`")),
    };
    Ok(match sink.format {
        SinkFormat::Parquet => {
            let mut options = TableParquetOptions::default();
            options.global.compression = Some(match named {
                None | Some("zstd") => "zstd(1)".to_owned(),
                Some("none") => "uncompressed".to_owned(),
                Some("snappy") => "snappy".to_owned(),
                Some("lz4") => "lz4_raw".to_owned(),
                Some(_) => return Err(unknown("`none`, `snappy`, `zstd` or `lz4`")),
            });
            Arc::new(ParquetFormat::default().with_options(options))
        }
        SinkFormat::Arrow if matches!(named, None | Some("none" | "lz4")) => Arc::new(ArrowFormat),
        SinkFormat::Arrow => return Err(unknown("`lz4`")),
        SinkFormat::Csv => {
            let mut options = CsvOptions::default().with_has_header(true);
            options.compression = text()?;
            Arc::new(CsvFormat::default().with_options(options))
        }
        SinkFormat::Json => {
            let options = JsonOptions { compression: text()?, ..JsonOptions::default() };
            Arc::new(JsonFormat::default().with_options(options))
        }
    })
}

/// True for types whose values `partition_by` can put into folder names and read back as they were.
pub fn can_name_folders(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Date32 | DataType::Boolean
        )
}

fn check_partition_columns(schema: &SchemaRef, sink: &SinkSpec) -> Result<()> {
    for name in &sink.partition_by {
        let Ok(field) = schema.field_with_name(name) else {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            let error =
                Error::new(ErrorKind::Query, format!("`partition_by` names `{name}`, which is not in the result"));
            return Err(match crate::suggest::closest(name, names.iter().copied()) {
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None => error.with_hint(format!("the result has {}", names.join(", "))),
            });
        };
        if !can_name_folders(field.data_type()) {
            let message =
                format!("`partition_by` names `{name}` of type {}, which cannot name folders", field.data_type());
            return Err(Error::new(ErrorKind::Query, message)
                .with_hint("cast it to text, an integer, a date or a boolean in the query"));
        }
    }
    if !sink.partition_by.is_empty() && sink.partition_by.len() == schema.fields().len() {
        return Err(Error::new(
            ErrorKind::Query,
            "`partition_by` names all columns of the result: the files would be empty",
        )
        .with_hint("leave a column out of `partition_by`"));
    }
    Ok(())
}

/// Counts rows and refuses partition values that a folder name cannot carry (DataFusion would write NULL as an empty text).
fn checked(stream: SendableRecordBatchStream, sink: &SinkSpec, rows: Arc<AtomicU64>) -> SendableRecordBatchStream {
    let schema = stream.schema();
    let partition_by = sink.partition_by.clone();
    let stream = stream.and_then(move |batch| {
        rows.fetch_add(batch.num_rows() as u64, Relaxed);
        let checked = partition_by.iter().try_for_each(|name| check_values(&batch, name)).map(|()| batch);
        futures::future::ready(checked.map_err(|e| datafusion::error::DataFusionError::External(Box::new(e))))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

fn check_values(batch: &RecordBatch, name: &str) -> Result<()> {
    let Some(column) = batch.column_by_name(name) else { return Ok(()) };
    let bad = |what: &str| {
        Error::new(ErrorKind::Data, format!("partition column `{name}` holds {what}, which a folder name cannot carry"))
            .with_hint(format!(
                "give such rows a value in the query, e.g. `coalesce({name}, 'unknown')`, or filter them out"
            ))
    };
    if column.null_count() > 0 {
        return Err(bad("NULL"));
    }
    if column.data_type().is_string() {
        let text = arrow::compute::cast(column, &DataType::LargeUtf8)?;
        let text = text.as_any().downcast_ref::<arrow::array::LargeStringArray>();
        if text.is_some_and(|t| t.iter().flatten().any(str::is_empty)) {
            return Err(bad("an empty text"));
        }
    }
    Ok(())
}

/// Names, sizes and fsyncs what was written.
fn settle(target: &Path, sink: &SinkSpec, schema: &SchemaRef, rows: u64) -> std::io::Result<WriteSummary> {
    let mut summary = WriteSummary { files: Vec::new(), rows, bytes: 0, partitions: Vec::new() };
    if sink.single_file {
        // A CSV writer that saw no batch has not written the header either.
        if sink.format == SinkFormat::Csv && rows == 0 && sink.compression.as_deref().is_none_or(|c| c == "none") {
            std::fs::write(target, header(schema))?;
        }
        let file = File::open(target)?;
        file.sync_all()?;
        summary.bytes = file.metadata()?.len();
        return Ok(summary);
    }
    let mut found = Vec::new();
    collect_files(target, &mut found)?;
    found.sort();
    let mut number = 0;
    let mut last_folder = PathBuf::new();
    for path in found {
        let folder = path.parent().unwrap_or(target).to_owned();
        if folder != last_folder {
            number = 0;
            last_folder.clone_from(&folder);
        }
        // DataFusion names files at random; numbers read better and are the same on every run.
        let named = folder.join(format!("part-{number}.{}", sink.format.ending(sink.compression.as_deref())));
        number += 1;
        std::fs::rename(&path, &named)?;
        let file = File::open(&named)?;
        file.sync_all()?;
        summary.bytes += file.metadata()?.len();
        let relative = named.strip_prefix(target).unwrap_or(&named).to_string_lossy().into_owned();
        if let Some((folder, _)) = relative.rsplit_once('/')
            && summary.partitions.last().map(String::as_str) != Some(folder)
        {
            summary.partitions.push(folder.to_owned());
        }
        summary.files.push(relative);
    }
    sync_folders(target)?;
    Ok(summary)
}

fn header(schema: &SchemaRef) -> Vec<u8> {
    let mut bytes = Vec::new();
    let empty = RecordBatch::new_empty(Arc::clone(schema));
    let written = arrow::csv::WriterBuilder::new().with_header(true).build(&mut bytes).write(&empty);
    if written.is_err() {
        // Only types that CSV cannot hold fail here, and those have failed in planning before.
        bytes.clear();
    }
    bytes
}

fn collect_files(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect_files(&entry.path(), into)?;
        } else {
            into.push(entry.path());
        }
    }
    Ok(())
}

fn sync_folders(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}
