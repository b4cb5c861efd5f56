//! Files that a result is written to.

/// Format and layout of written files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSpec {
    /// File format.
    pub format: SinkFormat,
    /// True: one file at the target path; false: a folder of files.
    pub single_file: bool,
    /// Columns that become `key=value` folders, in order; these columns are not in the files. Needs a folder.
    pub partition_by: Vec<String>,
    /// `none`, `snappy`, `zstd`, `lz4` (Parquet); `none`, `gzip`, `zstd` (CSV, JSON); none: the format's default.
    pub compression: Option<String>,
}

/// File formats of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SinkFormat {
    /// Apache Parquet, zstd unless set.
    Parquet,
    /// Delimited text with a header line.
    Csv,
    /// One JSON object a line.
    Json,
    /// Arrow IPC file.
    Arrow,
}

impl SinkFormat {
    /// Name in definitions and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Arrow => "arrow",
        }
    }

    /// Name for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Csv => "CSV",
            Self::Json => "JSON",
            Self::Arrow => "Arrow IPC",
        }
    }

    /// Ending of a file without the first dot.
    pub fn ending(self, compression: Option<&str>) -> &'static str {
        match (self, compression) {
            (Self::Parquet, _) => "parquet",
            (Self::Arrow, _) => "arrow",
            (Self::Csv, Some("gzip")) => "csv.gz",
            (Self::Csv, Some("zstd")) => "csv.zst",
            (Self::Csv, _) => "csv",
            (Self::Json, Some("gzip")) => "json.gz",
            (Self::Json, Some("zstd")) => "json.zst",
            (Self::Json, _) => "json",
        }
    }
}
