//! Columns of what is published now, from the footer or header of one of its files.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow::datatypes::{DataType, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sparklet_core::sink::SinkFormat;

use super::Change;
use crate::definition::{Output, Target};

/// A published column: name and type; no type where the files do not tell (CSV, partition folders).
pub(super) type Published = (String, Option<DataType>);

/// Columns of what is at the target; none where nothing is there, or nothing that can be told.
pub(super) fn columns(output: &Output) -> Option<Vec<Published>> {
    let Target::Local(target) = &output.target else { return None };
    let (file, keys) = first_file(target, output.sink.single_file)?;
    // A damaged file is no reason to fail a preview, not even one that breaks its reader.
    let schema = catch_unwind(AssertUnwindSafe(|| schema_of(&file, output.sink.format))).ok()??;
    let typed = output.sink.format != SinkFormat::Csv;
    let columns = schema.fields().iter().map(|f| (f.name().clone(), typed.then(|| f.data_type().clone())));
    Some(columns.chain(keys.into_iter().map(|k| (k, None))).collect())
}

/// Some data file of the target, and the keys of the partition folders on the way to it.
fn first_file(target: &Path, single: bool) -> Option<(PathBuf, Vec<String>)> {
    let meta = std::fs::metadata(target).ok()?;
    if meta.is_file() {
        return single.then(|| (target.to_path_buf(), Vec::new()));
    }
    let (mut folder, mut keys) = (target.to_path_buf(), Vec::new());
    // Deeper than any partitioning: a loop of links ends here.
    for _ in 0..32 {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(&folder).ok()?.flatten().map(|e| e.path()).collect();
        entries.sort_unstable();
        entries.retain(|p| p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with(['.', '_'])));
        if let Some(file) = entries.iter().find(|p| p.is_file()) {
            return Some((file.clone(), keys));
        }
        folder = entries.into_iter().find(|p| p.is_dir())?;
        let name = folder.file_name()?.to_string_lossy().into_owned();
        keys.extend(name.split_once('=').map(|(key, _)| key.to_owned()));
    }
    None
}

fn schema_of(file: &Path, format: SinkFormat) -> Option<Schema> {
    let open = || File::open(file).ok();
    match format {
        SinkFormat::Parquet => Some(ParquetRecordBatchReaderBuilder::try_new(open()?).ok()?.schema().as_ref().clone()),
        SinkFormat::Arrow => {
            Some(arrow::ipc::reader::FileReader::try_new(open()?, None).ok()?.schema().as_ref().clone())
        }
        SinkFormat::Csv if file.extension().is_some_and(|e| e == "csv") => {
            let format = arrow::csv::reader::Format::default().with_header(true);
            Some(format.infer_schema(open()?, Some(0)).ok()?.0)
        }
        SinkFormat::Csv | SinkFormat::Json => None,
    }
}

/// How a result's columns differ from published ones.
pub(super) fn changes(published: &[Published], result: &Schema) -> Vec<Change> {
    let mut changes = Vec::new();
    for field in result.fields() {
        match published.iter().find(|(name, _)| name == field.name()) {
            None => changes.push(Change::Added { column: field.name().clone(), to: field.data_type().to_string() }),
            Some((_, Some(from))) if stored(from) != stored(field.data_type()) => changes.push(Change::Retyped {
                column: field.name().clone(),
                from: from.to_string(),
                to: field.data_type().to_string(),
            }),
            Some(_) => {}
        }
    }
    for (name, _) in published.iter().filter(|(name, _)| result.field_with_name(name).is_err()) {
        changes.push(Change::Removed { column: name.clone() });
    }
    changes
}

/// The type as it is stored: how text is laid out in memory makes no difference to a reader.
fn stored(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, value) => stored(value),
        other => other.clone(),
    }
}
