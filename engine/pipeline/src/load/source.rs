//! `[sources.NAME]`: where a table is and how to read it.

use std::path::{Path, PathBuf};

use datafusion::sql::sqlparser::ast::DataType as SqlType;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use sparklet_core::source::{Format, SourceOptions, SourceSpec};
use toml::de::DeValue;

use super::location::{self, Location};
use super::walk::{Section, Text};
use crate::definition::Source;
use crate::suggest;

pub(crate) const KEYS: [&str; 17] = [
    "path",
    "format",
    "header",
    "delimiter",
    "quote",
    "escape",
    "comment",
    "null",
    "multiline",
    "compression",
    "infer_rows",
    "columns",
    "partition_columns",
    "storage",
    "table",
    "scale",
    "description",
];
const CSV_ONLY: [&str; 7] = ["header", "delimiter", "quote", "escape", "comment", "null", "multiline"];
const TEXT_ONLY: [&str; 2] = ["compression", "infer_rows"];
const TPCH_ONLY: [&str; 2] = ["table", "scale"];
const TPCH_TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];
const SQL_TYPES: [&str; 19] = [
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INT",
    "INTEGER",
    "BIGINT",
    "FLOAT",
    "REAL",
    "DOUBLE",
    "DECIMAL(p, s)",
    "NUMERIC(p, s)",
    "VARCHAR",
    "TEXT",
    "STRING",
    "CHAR",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "BYTEA",
];

/// The format that each file ending stands for.
pub(crate) const ENDINGS: [(&str, Format); 14] = [
    ("parquet", Format::Parquet),
    ("parq", Format::Parquet),
    ("pq", Format::Parquet),
    ("csv", Format::Csv),
    ("tsv", Format::Csv),
    ("txt", Format::Csv),
    ("json", Format::Json),
    ("ndjson", Format::Json),
    ("jsonl", Format::Json),
    ("arrow", Format::Arrow),
    ("arrows", Format::Arrow),
    ("feather", Format::Arrow),
    ("ipc", Format::Arrow),
    ("avro", Format::Avro),
];
const FORMATS: [(&str, Format); 9] = [
    ("parquet", Format::Parquet),
    ("csv", Format::Csv),
    ("tsv", Format::Csv),
    ("json", Format::Json),
    ("ndjson", Format::Json),
    ("jsonl", Format::Json),
    ("arrow", Format::Arrow),
    ("avro", Format::Avro),
    ("tpch", Format::Tpch),
];

/// Reads one source.
pub(crate) fn source(name: &str, section: &Section<'_, '_>) -> Option<Source> {
    let walk = section.walk();
    let written_format = section.one_of("format", &FORMATS);
    if written_format == Some(Format::Tpch) {
        return tpch(name, section);
    }
    for key in TPCH_ONLY.iter().filter(|k| section.has(k)) {
        let message = format!("`{key}` in {} is for `format = \"tpch\"`", section.title());
        walk.error("wrong-option", section.key_span(key), message, "remove it, or set `format = \"tpch\"`");
    }
    let path = section.required("path", "give a file, a folder, a glob, or a URL: `path = \"data/orders.parquet\"`");
    let location = path.as_ref().and_then(|p| location::locate(walk, p));
    let format = match (written_format, &path, &location) {
        (Some(format), _, _) => Some(format),
        (None, Some(path), Some(location)) if !section.has("format") => guess_format(section, path, location),
        _ => None,
    };
    if let Some(format) = format {
        allowed_options(section, format);
    }
    let tab = path.as_ref().is_some_and(|p| ending(&p.value).0 == "tsv")
        || section.value("format").and_then(|v| v.get_ref().as_str()) == Some("tsv");
    let options = options(section, tab);
    let columns = typed_columns(section, "columns");
    let partition_columns = typed_columns(section, "partition_columns");
    for (column, span) in partition_columns.iter().map(|c| (&c.0, c.2.clone())) {
        if columns.iter().any(|c| c.0 == *column) {
            let message =
                format!("column `{column}` is in both `columns` and `partition_columns` of {}", section.title());
            walk.error(
                "duplicate-column",
                span,
                message,
                "a partition column comes from the folder names: leave it out of `columns`",
            );
        }
    }
    let storage = section.string_map("storage");
    if let (Some(Location::Local(_)), true) = (&location, section.has("storage")) {
        let message = format!("`storage` in {} has no meaning for a local path", section.title());
        walk.error(
            "wrong-option",
            section.key_span("storage"),
            message,
            "remove it, or give a URL such as `s3://bucket/path`",
        );
    }
    let (path, location, format) = (path?, location?, format?);
    let strip =
        |columns: Vec<(String, String, std::ops::Range<usize>)>| columns.into_iter().map(|(n, t, _)| (n, t)).collect();
    let spec = SourceSpec {
        location: match location {
            Location::Local(path) => path.to_string_lossy().into_owned(),
            Location::Remote(url) => url,
        },
        written: path.value.clone(),
        format,
        options,
        columns: strip(columns),
        partition_columns: strip(partition_columns),
        storage: storage.into_iter().map(|(k, v)| (k.value, v.value)).collect(),
    };
    Some(Source { name: name.to_owned(), spec, scale_param: None, span: path.span })
}

fn tpch(name: &str, section: &Section<'_, '_>) -> Option<Source> {
    let walk = section.walk();
    for key in
        KEYS.iter().filter(|k| !TPCH_ONLY.contains(k) && !["format", "description"].contains(k) && section.has(k))
    {
        let message = format!("`{key}` in {} has no meaning for `format = \"tpch\"`", section.title());
        walk.error("wrong-option", section.key_span(key), message, "such a source has only `table` and `scale`");
    }
    let mut options = SourceOptions::default();
    let mut scale_param = None;
    match section.value("scale").map(|v| v.get_ref()) {
        Some(DeValue::String(_)) => {
            let text = section.string("scale")?;
            match text.value.strip_prefix('$') {
                Some(param) => scale_param = Some(param.to_owned()),
                None => {
                    let message = format!("`scale` in {} cannot be `{}`", section.title(), text.value.escape_debug());
                    section.bad("bad-value", "scale", message, "write a number, or a parameter: `scale = \"$scale\"`");
                }
            }
        }
        Some(_) => {
            if let Some(scale) = section.number("scale", f64::MIN_POSITIVE, 100_000.0) {
                options.scale = scale;
            }
        }
        None => {}
    }
    let table = match section.string("table") {
        Some(table) => table,
        None if section.has("table") => return None,
        None => Text { value: name.to_owned(), span: section.span() },
    };
    if !TPCH_TABLES.contains(&table.value.as_str()) {
        let hint = suggest::hint(&table.value, "tables", TPCH_TABLES).unwrap_or_default();
        walk.error("bad-value", table.span, format!("TPC-H has no table `{}`", table.value.escape_debug()), hint);
        return None;
    }
    let spec = SourceSpec {
        location: table.value.clone(),
        written: format!("tpch:{}", table.value),
        format: Format::Tpch,
        options,
        columns: Vec::new(),
        partition_columns: Vec::new(),
        storage: Default::default(),
    };
    let span = if section.has("scale") { section.value_span("scale") } else { table.span };
    Some(Source { name: name.to_owned(), spec, scale_param, span })
}

/// The ending of a path in lower case without a compression ending, and the compression.
pub(crate) fn ending(path: &str) -> (String, Option<&'static str>) {
    let name = path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default().to_ascii_lowercase();
    let mut parts = name.rsplit('.');
    let mut last = parts.next().unwrap_or_default();
    let compression = match last {
        "gz" | "gzip" => Some("gzip"),
        "zst" | "zstd" => Some("zstd"),
        "bz2" => Some("bzip2"),
        "xz" => Some("xz"),
        _ => None,
    };
    if compression.is_some() {
        last = parts.next().unwrap_or_default();
    }
    // A name without any dot has no ending.
    if parts.next().is_none() { (String::new(), compression) } else { (last.to_owned(), compression) }
}

fn format_of(path: &str) -> Option<Format> {
    let (ending, _) = ending(path);
    ENDINGS.iter().find(|(e, _)| *e == ending).map(|(_, f)| *f)
}

fn guess_format(section: &Section<'_, '_>, path: &Text, location: &Location) -> Option<Format> {
    if let Some(format) = format_of(&path.value) {
        return Some(format);
    }
    let all = "one of `parquet`, `csv`, `json`, `arrow`, `avro`";
    let Location::Local(folder) = location else {
        section.missing("format", format!("`{}` does not end in a known format: set `format` to {all}", path.value));
        return None;
    };
    // What is not there, or holds nothing, is reported when the source is bound; a guess keeps that message the only one.
    let formats = formats_in(&glob_base(folder));
    match formats.as_slice() {
        [] => match folder.extension() {
            Some(_) if folder.is_file() => {
                section.missing(
                    "format",
                    format!("`{}` does not end in a known format: set `format` to {all}", path.value),
                );
                None
            }
            _ => Some(Format::Parquet),
        },
        [format] => Some(*format),
        _ => {
            section.missing(
                "format",
                format!("`{}` holds files of several formats: set `format` to {all}, or give a glob", path.value),
            );
            None
        }
    }
}

/// The part of a path before the first component with a glob character.
pub(crate) fn glob_base(path: &Path) -> PathBuf {
    path.components().take_while(|c| !location::is_glob(&c.as_os_str().to_string_lossy())).collect()
}

/// Formats of the data files in a folder (and below), by their endings; looks at a thousand entries at the most.
fn formats_in(folder: &Path) -> Vec<Format> {
    let (mut formats, mut folders, mut seen) = (Vec::new(), vec![folder.to_path_buf()], 0);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            let name = entry.file_name().to_string_lossy().into_owned();
            if seen > 1000 || name.starts_with(['.', '_']) {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => {
                    if let Some(format) = format_of(&name).filter(|f| !formats.contains(f)) {
                        formats.push(format);
                    }
                }
                Err(_) => {}
            }
        }
        if seen > 1000 {
            break;
        }
    }
    formats
}

fn allowed_options(section: &Section<'_, '_>, format: Format) {
    let wrong = |keys: &[&str], kinds: &str| {
        for key in keys.iter().filter(|k| section.has(k)) {
            let message = format!("`{key}` in {} is for {kinds} sources", section.title());
            section.walk().error("wrong-option", section.key_span(key), message, "remove it");
        }
    };
    if format != Format::Csv {
        wrong(&CSV_ONLY, "CSV");
    }
    if !matches!(format, Format::Csv | Format::Json) {
        wrong(&TEXT_ONLY, "CSV and JSON");
    }
}

fn options(section: &Section<'_, '_>, tab: bool) -> SourceOptions {
    let default = SourceOptions::default();
    let options = SourceOptions {
        header: section.boolean("header").unwrap_or(default.header),
        delimiter: section.character("delimiter").unwrap_or(if tab { b'\t' } else { default.delimiter }),
        quote: section.character("quote").unwrap_or(default.quote),
        escape: section.character("escape"),
        comment: section.character("comment"),
        null: section.string("null").map(|t| t.value),
        multiline: section.boolean("multiline").unwrap_or(default.multiline),
        compression: section
            .one_of(
                "compression",
                &[
                    ("none", Some("none")),
                    ("gzip", Some("gzip")),
                    ("bzip2", Some("bzip2")),
                    ("xz", Some("xz")),
                    ("zstd", Some("zstd")),
                ],
            )
            .flatten()
            .map(str::to_owned),
        infer_rows: section
            .integer("infer_rows", 1..=i64::MAX)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(default.infer_rows),
        scale: default.scale,
    };
    if options.delimiter == options.quote {
        let message = format!("`delimiter` and `quote` in {} are the same character", section.title());
        section.bad(
            "bad-value",
            if section.has("delimiter") { "delimiter" } else { "quote" },
            message,
            "change one of them",
        );
    }
    options
}

/// Declared columns with their types and places, in the order in which they are written.
fn typed_columns(section: &Section<'_, '_>, key: &str) -> Vec<(String, String, std::ops::Range<usize>)> {
    let mut columns = Vec::new();
    for (name, kind) in section.string_map(key) {
        if name.value.is_empty() {
            section.walk().error("bad-name", name.span.clone(), "a column has an empty name", "give it a name");
        }
        if let Err(why) = check_type(&kind.value) {
            let word = kind.value.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
            let hint = suggest::hint(word, "SQL types", SQL_TYPES).unwrap_or_default();
            section.walk().error("bad-type", kind.span.clone(), format!("column `{}`: {why}", name.value), hint);
        }
        columns.push((name.value, kind.value, name.span));
    }
    columns
}

fn check_type(text: &str) -> Result<(), String> {
    let wrong = || format!("`{}` is not an SQL type", text.escape_debug());
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(text).map_err(|_| wrong())?;
    let kind = parser.parse_data_type().map_err(|_| wrong())?;
    let ended = parser.peek_token().token == datafusion::sql::sqlparser::tokenizer::Token::EOF;
    if !ended || matches!(kind, SqlType::Custom(..) | SqlType::Unspecified) { Err(wrong()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings() {
        for (path, expected) in [
            ("a/b.parquet", ("parquet", None)),
            ("a/b.CSV.gz", ("csv", Some("gzip"))),
            ("a.b/c", ("", None)),
            ("out/day/", ("", None)),
            ("x/*.json.zst", ("json", Some("zstd"))),
            ("x.gz", ("", Some("gzip"))),
            ("", ("", None)),
        ] {
            assert_eq!(ending(path), (expected.0.to_owned(), expected.1), "{path}");
        }
    }

    #[test]
    fn types() {
        for good in ["INT", "bigint", "DECIMAL(12, 2)", "VARCHAR", "TIMESTAMP", "DOUBLE", "DATE", "TEXT", "STRING"] {
            assert_eq!(check_type(good), Ok(()), "{good}");
        }
        for bad in ["INTT", "", "INT INT", "'x'", "DECIMAL("] {
            assert!(check_type(bad).is_err(), "{bad}");
        }
    }
}
