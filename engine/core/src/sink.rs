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
