//! Sources become tables: found, described, registered.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, TableReference};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::avro::AvroFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::provider_as_source;
use datafusion::functions::core::expr_fn::nullif;
use datafusion::logical_expr::{LogicalPlanBuilder, cast, col, lit};
use futures::TryStreamExt;
use object_store::ObjectMeta;
use sparklet_history::{Fingerprint, SourceRecord};
use sparklet_optimizer::SourceId;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::named::NamedTable;
use crate::session::Session;
use crate::source::{Format, SourceSpec};
use crate::{partitions, stores, suggest, tpch};

/// Registers `spec` as table `name`.
pub(crate) async fn register(session: &Session, name: &str, spec: &SourceSpec) -> Result<SourceRecord> {
    if spec.format == Format::Tpch {
        return register_generated(session, name, spec);
    }
    let (table, files) = open(session, name, spec).await?;
    let schema = table.schema();
    let record = SourceRecord {
        name: name.to_owned(),
        location: spec.written.clone(),
        format: spec.format.name().to_owned(),
        files: files.list.len() as u64,
        bytes: files.list.iter().map(|f| f.size).sum(),
        rows: files.rows,
        data_version: files.version(),
        schema_version: schema_version(&schema),
    };
    let id = source_id(session, name);
    session.register_named(name, table, id, files.statistics)?;
    Ok(record)
}

fn source_id(session: &Session, name: &str) -> SourceId {
    SourceId::Table { pipeline: session.pipeline().to_owned(), name: name.to_owned() }
}

/// Hash over names and types of the columns in order.
pub(crate) fn schema_version(schema: &Schema) -> Fingerprint {
    let columns: Vec<String> = schema.fields().iter().map(|f| format!("{}:{}", f.name(), f.data_type())).collect();
    Fingerprint::of(&columns.join(","))
}

fn register_generated(session: &Session, name: &str, spec: &SourceSpec) -> Result<SourceRecord> {
    let scale = spec.options.scale;
    let table = Arc::new(tpch::table(&spec.location, scale, session.slots())?);
    let schema = table.schema();
    let rows = tpch::row_count(&spec.location, scale).and_then(|rows| usize::try_from(rows).ok());
    let statistics = rows.map(|rows| Statistics::new_unknown(&schema).with_num_rows(Precision::Inexact(rows)));
    session.register_named(name, table, source_id(session, name), statistics)?;
    Ok(SourceRecord {
        name: name.to_owned(),
        location: spec.written.clone(),
        format: spec.format.name().to_owned(),
        files: 0,
        bytes: 0,
        rows: tpch::row_count(&spec.location, scale),
        data_version: Fingerprint::of(&format!("tpch {} {scale}", spec.location)),
        schema_version: schema_version(&schema),
    })
}

/// The files of a source.
struct Files {
    prefix: String,
    list: Vec<ObjectMeta>,
    rows: Option<u64>,
    /// Of the table that is registered, where the metadata of the files tells.
    statistics: Option<Statistics>,
}

impl Files {
    /// Hash over path below the prefix, size, modification time and etag of each file.
    fn version(&self) -> Fingerprint {
        let mut lines: Vec<String> = self
            .list
            .iter()
            .map(|f| {
                let path = f.location.as_ref().strip_prefix(&self.prefix).unwrap_or(f.location.as_ref());
                let etag = f.e_tag.as_deref().unwrap_or_default();
                format!("{path}|{}|{}|{etag}", f.size, f.last_modified.timestamp_micros())
            })
            .collect();
        lines.sort_unstable();
        Fingerprint::of(&lines.join("\n"))
    }
}

/// Rows of files that do not tell them, about: a field of text takes so many bytes.
fn rows_by_size(schema: &Schema, bytes: u64) -> Statistics {
    const BYTES_A_FIELD: u64 = 8;
    let rows = bytes / (BYTES_A_FIELD * schema.fields().len().max(1) as u64);
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    Statistics::new_unknown(schema).with_num_rows(Precision::Inexact(rows))
}

async fn open(session: &Session, name: &str, spec: &SourceSpec) -> Result<(Arc<dyn TableProvider>, Files)> {
    let context = session.context();
    let state = context.state();
    let url = table_url(session, name, spec)?;
    let store = state.runtime_env().object_store(&url)?;
    let all: Vec<ObjectMeta> = url
        .list_all_files(&state, &store, "")
        .await
        .map_err(|e| cannot_list(name, spec, e))?
        .try_collect()
        .await
        .map_err(|e| cannot_list(name, spec, e))?;
    let all: Vec<ObjectMeta> = all.into_iter().filter(|f| !is_hidden(&f.location)).collect();
    let folder = url.get_glob().is_none() && url.is_folder();
    let (ending, list) = if folder { by_ending(name, spec, all)? } else { (String::new(), all) };
    if list.is_empty() {
        let what = if folder { "holds no files" } else { "matches no file" };
        return Err(Error::new(ErrorKind::Source, format!("source `{name}`: `{}` {what}", spec.written))
            .with_hint("check the path; folders and globs are searched for files of the source's format"));
    }
    if let Some(empty) = list.iter().find(|f| f.size == 0)
        && !matches!(spec.format, Format::Csv | Format::Json)
    {
        let path = shown(spec, empty);
        return Err(Error::new(
            ErrorKind::Data,
            format!("source `{name}`: `{path}` is empty: not {}", spec.format.label()),
        )
        .with_hint("remove the file or write it again; an interrupted copy looks like this"));
    }
    let options = ListingOptions::new(file_format(spec, &list)?)
        .with_file_extension(ending)
        .with_table_partition_cols(partitions::columns(session, name, spec, &url, &list)?);
    let file_schema = match declared_columns(session, name, spec).await? {
        Some(declared) => {
            check_header(session, name, spec, &list[0], &declared).await?;
            declared
        }
        None => infer(session, name, spec, &options, &url, &list).await?,
    };
    let raw_schema = if spec.options.null.is_some() { all_text(&file_schema) } else { Arc::clone(&file_schema) };
    let config = ListingTableConfig::new(url.clone()).with_listing_options(options).with_schema(raw_schema);
    let table = ListingTable::try_new(config)?.with_cache(state.runtime_env().cache_manager.get_file_statistic_cache());
    let listed = table.list_files_for_scan(&state, &[], None).await.map_err(|e| session.explain(e).at_source(name))?;
    let rows = listed.statistics.num_rows.get_value().map(|rows| *rows as u64);
    let exact = spec.format == Format::Parquet;
    let prefix = url.prefix().to_string();
    let statistics = if exact {
        listed.statistics.clone()
    } else {
        let bytes: u64 = list.iter().map(|file| file.size).sum();
        rows_by_size(&table.schema(), bytes)
    };
    let statistics = spec.options.null.is_none().then_some(statistics);
    let files = Files { prefix, list, rows: rows.filter(|_| exact), statistics };
    let table: Arc<dyn TableProvider> = Arc::new(table);
    match &spec.options.null {
        Some(null) => {
            let id = source_id(session, name);
            let table: Arc<dyn TableProvider> = Arc::new(NamedTable::new(table, id));
            Ok((typed_view(name, table, &file_schema, null)?, files))
        }
        None => Ok((table, files)),
    }
}

/// The URL of a source; registers the object store of a remote one, and says clearly what is missing of a local one.
fn table_url(session: &Session, name: &str, spec: &SourceSpec) -> Result<ListingTableUrl> {
    let bad = |e: String| {
        Error::new(ErrorKind::Source, format!("source `{name}`: `{}` is not a usable location: {e}", spec.written))
            .with_hint("use a path, a glob, or a URL such as `s3://bucket/folder/`")
    };
    if let Ok(url) = Url::parse(&spec.location)
        && stores::is_remote(&url)
    {
        if !spec.storage.is_empty() {
            let store = stores::build(&url, &spec.storage)?;
            session.context().register_object_store(&url, store);
        }
        return ListingTableUrl::parse(&spec.location).map_err(|e| bad(e.strip_backtrace()));
    }
    let local = spec.location.strip_prefix("file://").unwrap_or(&spec.location);
    let fixed: PathBuf = match local.find(['*', '?', '[']) {
        Some(at) => Path::new(&local[..at]).parent().map(Path::to_owned).unwrap_or_default(),
        None => PathBuf::from(local),
    };
    let found = std::fs::metadata(&fixed);
    if let Ok(meta) = &found
        && !meta.is_file()
        && !meta.is_dir()
    {
        let message = format!("source `{name}`: `{}` is a pipe or a device, not a file", spec.written);
        return Err(Error::new(ErrorKind::Source, message)
            .with_hint("a source is read more than once: write the data to a file first"));
    }
    if let Err(error) = found {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let said = if missing { "does not exist".to_owned() } else { format!("cannot be read: {error}") };
        let error = Error::new(ErrorKind::Source, format!("source `{name}`: `{}` {said}", spec.written));
        return Err(match nearby(&fixed).filter(|_| missing) {
            Some(near) => error.with_hint(format!("did you mean `{near}`? (looked for `{}`)", fixed.display())),
            None => error.with_hint(format!("looked for `{}`", fixed.display())),
        });
    }
    ListingTableUrl::parse(local).map_err(|e| bad(e.strip_backtrace()))
}

/// The entry beside a missing path whose name is closest.
fn nearby(missing: &Path) -> Option<String> {
    let wanted = missing.file_name()?.to_str()?;
    let names: Vec<String> = std::fs::read_dir(missing.parent()?)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    suggest::closest(wanted, names.iter().map(String::as_str)).map(str::to_owned)
}

/// The error for what the user may not read; none for any other error.
fn forbidden(name: &str, shown: &str, error: &Error) -> Option<Error> {
    let is_local = error.message.contains("Permission denied (os error");
    is_local.then(|| {
        let message = format!("source `{name}`: `{shown}` cannot be read: permission denied");
        Error::new(ErrorKind::Source, message)
            .with_hint("the user who runs sparklet needs read access to the file and to the folders above it")
    })
}

fn cannot_list(name: &str, spec: &SourceSpec, error: datafusion::error::DataFusionError) -> Error {
    let mut explained = Error::from(error).at_source(name);
    if let Some(forbidden) = forbidden(name, &spec.written, &explained) {
        return forbidden;
    }
    explained.message = format!("{} (listing `{}`)", explained.message, spec.written);
    if explained.kind != ErrorKind::Transient {
        explained.kind = ErrorKind::Source;
    }
    explained
}

/// Files whose name begins with `.` or `_` are not data (staging, markers): every engine skips them.
fn is_hidden(location: &object_store::path::Path) -> bool {
    location.filename().is_none_or(|name| name.starts_with(['.', '_']))
}

/// Files of the source's format in a folder; all must share one ending, since one ending means one way of reading.
fn by_ending(name: &str, spec: &SourceSpec, all: Vec<ObjectMeta>) -> Result<(String, Vec<ObjectMeta>)> {
    let endings = spec.format.endings();
    let ending_of = |file: &ObjectMeta| {
        endings.iter().copied().filter(|e| file.location.as_ref().ends_with(e)).max_by_key(|e| e.len())
    };
    let found: BTreeSet<&str> = all.iter().filter_map(ending_of).collect();
    match found.len() {
        0 if all.is_empty() => Ok((String::new(), all)),
        0 => {
            let some: BTreeSet<&str> = all.iter().filter_map(|f| f.location.filename()).take(3).collect();
            let some: Vec<String> = some.into_iter().map(|n| format!("`{n}`")).collect();
            let message = format!(
                "source `{name}`: `{}` holds no file that ends in {}",
                spec.written,
                endings.iter().map(|e| format!("`{e}`")).collect::<Vec<_>>().join(" or ")
            );
            Err(Error::new(ErrorKind::Source, message)
                .with_hint(format!("it holds {}; set `format`, or use a glob to read them", some.join(", "))))
        }
        1 => {
            let ending = found.into_iter().next().unwrap_or_default().to_owned();
            let list = all.into_iter().filter(|f| f.location.as_ref().ends_with(&ending)).collect();
            Ok((ending, list))
        }
        _ => {
            let found: Vec<String> = found.into_iter().map(|e| format!("`*{e}`")).collect();
            let message = format!("source `{name}`: `{}` mixes {}", spec.written, found.join(" and "));
            Err(Error::new(ErrorKind::Source, message).with_hint("use a glob that matches one of them"))
        }
    }
}

fn compression(spec: &SourceSpec, list: &[ObjectMeta]) -> Result<FileCompressionType> {
    let named = spec.options.compression.as_deref().or_else(|| {
        let path = list.first()?.location.as_ref();
        [(".gz", "gzip"), (".bz2", "bzip2"), (".xz", "xz"), (".zst", "zstd")]
            .into_iter()
            .find_map(|(ending, name)| path.ends_with(ending).then_some(name))
    });
    match named {
        None | Some("none") => Ok(FileCompressionType::UNCOMPRESSED),
        Some("gzip") => Ok(FileCompressionType::GZIP),
        Some("bzip2") => Ok(FileCompressionType::BZIP2),
        Some("xz") => Ok(FileCompressionType::XZ),
        Some("zstd") => Ok(FileCompressionType::ZSTD),
        Some(other) => Err(Error::new(ErrorKind::Source, format!("`{other}` is not a known compression"))
            .with_hint("use `gzip`, `bzip2`, `xz`, `zstd` or `none`")),
    }
}

fn file_format(spec: &SourceSpec, list: &[ObjectMeta]) -> Result<Arc<dyn FileFormat>> {
    let options = &spec.options;
    Ok(match spec.format {
        Format::Parquet | Format::Tpch => Arc::new(ParquetFormat::default()),
        Format::Arrow => Arc::new(ArrowFormat),
        Format::Avro => Arc::new(AvroFormat),
        Format::Json => Arc::new(
            JsonFormat::default()
                .with_schema_infer_max_rec(options.infer_rows)
                .with_file_compression_type(compression(spec, list)?),
        ),
        Format::Csv => Arc::new(
            CsvFormat::default()
                .with_has_header(options.header)
                .with_delimiter(options.delimiter)
                .with_quote(options.quote)
                .with_escape(options.escape)
                .with_comment(options.comment)
                .with_newlines_in_values(options.multiline)
                .with_schema_infer_max_rec(options.infer_rows)
                .with_null_regex(options.null.as_deref().map(null_regex))
                .with_file_compression_type(compression(spec, list)?),
        ),
    })
}

/// A pattern for exactly `null` or nothing.
fn null_regex(null: &str) -> String {
    let escaped: String = null
        .chars()
        .flat_map(|c| {
            let special = !c.is_alphanumeric() && c.is_ascii() && c != ' ';
            special.then_some('\\').into_iter().chain(std::iter::once(c))
        })
        .collect();
    format!("^(?:{escaped})?$")
}

/// Schema of the files; where one file is at fault, says which.
async fn infer(
    session: &Session,
    name: &str,
    spec: &SourceSpec,
    options: &ListingOptions,
    url: &ListingTableUrl,
    list: &[ObjectMeta],
) -> Result<SchemaRef> {
    let state = session.context().state();
    let store = state.runtime_env().object_store(url)?;
    let error = match options.format.infer_schema(&state, &store, list).await {
        Ok(schema) if schema.fields().is_empty() => {
            return Err(Error::new(ErrorKind::Data, format!("source `{name}`: `{}` has no columns", spec.written))
                .with_hint("the files are empty or hold no header; declare `columns` to read them anyway"));
        }
        Ok(schema) => {
            let inner: Vec<_> = options.table_partition_cols.iter().map(|(n, _)| n.as_str()).collect();
            let fields: Vec<_> =
                schema.fields().iter().filter(|f| !inner.contains(&f.name().as_str())).cloned().collect();
            return Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())));
        }
        Err(error) => error,
    };
    for file in list {
        if let Err(error) = options.format.infer_schema(&state, &store, std::slice::from_ref(file)).await {
            return Err(unreadable(name, spec, file, session.explain(error)));
        }
    }
    let mut explained = session.explain(error).at_source(name);
    explained.kind = ErrorKind::Data;
    Err(explained.or_hint(
        "the files do not agree on the types of their columns; declare `columns`, or read them as two sources",
    ))
}

/// The error for a file whose metadata, header or first rows cannot be read.
fn unreadable(name: &str, spec: &SourceSpec, file: &ObjectMeta, explained: Error) -> Error {
    if let Some(forbidden) = forbidden(name, &shown(spec, file), &explained) {
        return forbidden;
    }
    let json = spec.format == Format::Json;
    // Each object of a JSON file is parsed for itself: its lines are no lines of the file.
    let said = explained.message.split(" at line ").next().filter(|_| json).unwrap_or(&explained.message);
    let line = crate::diagnose::line_of(said).map(|n| format!(":{n}")).unwrap_or_default();
    let hint = crate::diagnose::hint_for(said).unwrap_or(if json {
        "a JSON source holds one object a line; `jq -c '.[]'` makes lines of an array"
    } else {
        "the file is damaged or of another format; write it again, or leave it out by a glob"
    });
    let message =
        format!("source `{name}`: `{}{line}` is not readable as {}: {said}", shown(spec, file), spec.format.label());
    let kind = if explained.kind == ErrorKind::Transient { ErrorKind::Transient } else { ErrorKind::Data };
    Error { kind, message, hint: Some(hint.to_owned()), source: explained.source }
}

/// Path of a file as a user would write it.
pub(crate) fn shown(spec: &SourceSpec, file: &ObjectMeta) -> String {
    if stores::is_remote(&Url::parse(&spec.location).unwrap_or_else(|_| unparsable())) {
        return file.location.to_string();
    }
    let absolute = format!("/{}", file.location);
    let here = std::env::current_dir().ok();
    here.and_then(|here| Path::new(&absolute).strip_prefix(here).ok().map(|p| p.display().to_string()))
        .unwrap_or(absolute)
}

#[expect(clippy::unwrap_used, reason = "a constant that parses")]
fn unparsable() -> Url {
    Url::parse("file:///").unwrap()
}

/// Columns as declared, each type written in SQL.
async fn declared_columns(session: &Session, name: &str, spec: &SourceSpec) -> Result<Option<SchemaRef>> {
    if spec.columns.is_empty() {
        return Ok(None);
    }
    let mut fields = Vec::with_capacity(spec.columns.len());
    for (column, sql_type) in &spec.columns {
        let data_type = sql_data_type(session, sql_type).await.map_err(|e| {
            Error::new(
                ErrorKind::Query,
                format!("source `{name}`: column `{column}`: `{sql_type}` is not a type: {}", e.message),
            )
            .with_hint(
                "use an SQL type, e.g. `INT`, `BIGINT`, `DOUBLE`, `DECIMAL(12, 2)`, `VARCHAR`, `DATE`, `TIMESTAMP`",
            )
        })?;
        fields.push(arrow::datatypes::Field::new(column, data_type, true));
    }
    Ok(Some(Arc::new(Schema::new(fields))))
}

/// The Arrow type of an SQL type name.
pub(crate) async fn sql_data_type(session: &Session, sql_type: &str) -> Result<DataType> {
    let plan = session.context().state().create_logical_plan(&format!("SELECT CAST(NULL AS {sql_type}) AS c")).await?;
    match plan.schema().fields().as_ref() {
        [only] => Ok(only.data_type().clone()),
        _ => Err(Error::new(ErrorKind::Query, "more than one type")),
    }
}

/// With a header, declared columns must be the header's, in its order: CSV is read by position.
async fn check_header(
    session: &Session,
    name: &str,
    spec: &SourceSpec,
    first: &ObjectMeta,
    declared: &SchemaRef,
) -> Result<()> {
    if spec.format != Format::Csv || !spec.options.header || first.size == 0 {
        return Ok(());
    }
    let url = table_url(session, name, spec)?;
    let state = session.context().state();
    let store = state.runtime_env().object_store(&url)?;
    // One row is enough: what is wrong further down is for the reader to find.
    let mut header_only = spec.clone();
    header_only.options.infer_rows = 0;
    let format = file_format(&header_only, std::slice::from_ref(first))?;
    let found = format
        .infer_schema(&state, &store, std::slice::from_ref(first))
        .await
        .map_err(|e| unreadable(name, spec, first, session.explain(e)))?;
    let found: Vec<&str> = found.fields().iter().map(|f| f.name().as_str()).collect();
    let wanted: Vec<&str> = declared.fields().iter().map(|f| f.name().as_str()).collect();
    if found == wanted {
        return Ok(());
    }
    let message = format!(
        "source `{name}`: the header of `{}` is `{}`, but the declared columns are `{}`",
        shown(spec, first),
        found.join(", "),
        wanted.join(", ")
    );
    Err(Error::new(ErrorKind::Data, message)
        .with_hint("declare all columns of the header in its order, or set `header = false` if the first line is data"))
}

fn all_text(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_data_type(DataType::Utf8)).collect();
    Arc::new(Schema::new(fields))
}

/// `table` read as text, with `null` as NULL and then the types of `schema` (partition columns as they are).
fn typed_view(
    name: &str,
    table: Arc<dyn TableProvider>,
    schema: &SchemaRef,
    null: &str,
) -> Result<Arc<dyn TableProvider>> {
    let all = table.schema();
    let columns = all.fields().iter().map(|field| {
        let column = col(datafusion::common::Column::from_name(field.name()));
        match schema.field_with_name(field.name()) {
            Ok(typed) => cast(nullif(column, lit(null)), typed.data_type().clone()).alias(field.name()),
            Err(_) => column,
        }
    });
    let plan = LogicalPlanBuilder::scan(TableReference::bare(name), provider_as_source(table), None)?
        .project(columns.collect::<Vec<_>>())?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
