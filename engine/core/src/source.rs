//! Tables that come from outside: where they are and how to read them.

use std::collections::BTreeMap;

/// Where a source is and how to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSpec {
    /// Absolute path, glob or folder, or a URL (`file://`, `s3://`, `gs://`, `az://`, `http(s)://`); for [`Format::Tpch`] the table name.
    pub location: String,
    /// As written in the definition, for messages and records.
    pub written: String,
    /// File format.
    pub format: Format,
    /// Format options.
    pub options: SourceOptions,
    /// Declared columns (name, SQL type) in order; empty: inferred.
    pub columns: Vec<(String, String)>,
    /// Hive-style partition columns (name, SQL type) taken from `key=value` folders.
    pub partition_columns: Vec<(String, String)>,
    /// Settings of the object store (endpoint, region, …), by name as `object_store` spells them.
    pub storage: BTreeMap<String, String>,
}

/// File formats of sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Delimited text.
    Csv,
    /// One JSON object a line.
    Json,
    /// Arrow IPC file or stream.
    Arrow,
    /// Apache Avro.
    Avro,
    /// TPC-H rows generated on the fly; the location is the table, `scale` an option.
    Tpch,
}

/// Options of reading.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceOptions {
    /// CSV: first line names the columns.
    pub header: bool,
    /// CSV: field separator.
    pub delimiter: u8,
    /// CSV: quote character.
    pub quote: u8,
    /// CSV: escape character.
    pub escape: Option<u8>,
    /// CSV: lines that begin with this are comments.
    pub comment: Option<u8>,
    /// CSV: text that stands for NULL (besides the empty field).
    pub null: Option<String>,
    /// CSV: quoted fields may contain line breaks.
    pub multiline: bool,
    /// CSV and JSON: `gzip`, `bzip2`, `xz`, `zstd`; none: by the file's ending.
    pub compression: Option<String>,
    /// CSV and JSON: rows looked at to infer types.
    pub infer_rows: usize,
    /// TPC-H: scale factor.
    pub scale: f64,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            header: true,
            delimiter: b',',
            quote: b'"',
            escape: None,
            comment: None,
            null: None,
            multiline: false,
            compression: None,
            infer_rows: 10_000,
            scale: 0.01,
        }
    }
}

impl Format {
    /// Name in definitions and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Arrow => "arrow",
            Self::Avro => "avro",
            Self::Tpch => "tpch",
        }
    }

    /// Name for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
            Self::Json => "JSON (one object a line)",
            Self::Arrow => "Arrow IPC",
            Self::Avro => "Avro",
            Self::Tpch => "TPC-H",
        }
    }

    /// Endings of files of this format that a folder is searched for.
    pub fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Parquet => &[".parquet", ".parq", ".pq"],
            Self::Csv => &[
                ".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst", ".txt", ".txt.gz",
            ],
            Self::Json => &[
                ".json",
                ".json.gz",
                ".json.bz2",
                ".json.xz",
                ".json.zst",
                ".ndjson",
                ".ndjson.gz",
                ".ndjson.zst",
                ".jsonl",
                ".jsonl.gz",
                ".jsonl.zst",
            ],
            Self::Arrow => &[".arrow", ".ipc", ".feather", ".arrows"],
            Self::Avro => &[".avro"],
            Self::Tpch => &[],
        }
    }
}
