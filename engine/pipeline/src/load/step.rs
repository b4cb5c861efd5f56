//! `[[step]]`: a query, where its result goes, and what must hold.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sparklet_core::sink::{SinkFormat, SinkSpec};
use toml::de::DeTable;

use super::later;
use super::location::{self, Location};
use super::source::ending;
use super::walk::{Section, Text, Walk};
use crate::definition::{Check, Condition, Mode, Output, SqlText, Target};
use crate::diagnostic::{Diagnostic, Place};
use crate::suggest;

const KEYS: [&str; 9] =
    ["name", "description", "sql", "query", "timeout", "deterministic", "incremental", "output", "checks"];
const OUTPUT_KEYS: [&str; 6] = ["path", "format", "partition_by", "mode", "compression", "single_file"];
const CHECK_KEYS: [&str; 6] = ["name", "expr", "sql", "on_fail", "tolerate", "description"];
const FORMATS: [(&str, SinkFormat); 6] = [
    ("parquet", SinkFormat::Parquet),
    ("csv", SinkFormat::Csv),
    ("json", SinkFormat::Json),
    ("ndjson", SinkFormat::Json),
    ("jsonl", SinkFormat::Json),
    ("arrow", SinkFormat::Arrow),
];

/// A step as it is written: every part that could be read.
pub(crate) struct Draft {
    pub(crate) name: Text,
    pub(crate) sql: Option<SqlText>,
    pub(crate) output: Option<Output>,
    pub(crate) checks: Vec<DraftCheck>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) deterministic: bool,
    pub(crate) incremental: bool,
    pub(crate) span: Range<usize>,
}

/// A check with the SQL of its condition, so that errors can point into it.
pub(crate) struct DraftCheck {
    pub(crate) check: Check,
    pub(crate) sql: SqlText,
}

/// Reads one step; nothing where it has no name that it could be known by.
pub(crate) fn step(
    walk: &Walk<'_>,
    index: usize,
    table: &DeTable<'_>,
    span: Range<usize>,
    shown_root: &Path,
) -> Option<Draft> {
    let name = table.get("name").and_then(|v| v.get_ref().as_str());
    let title = name.map_or_else(|| format!("step {}", index + 1), |n| format!("step `{}`", n.escape_debug()));
    let section = Section::new(walk, title, table, span.clone(), &KEYS);
    let name = section.required("name", "give the step a name: it is the table that later steps read");
    if let Some(name) = &name {
        walk.check_name("a step", &name.value, name.span.clone());
    }
    let sql = sql_text(&section, shown_root);
    let incremental = later::incremental(&section);
    let output = output(&section);
    if let Some(output) = output.as_ref().filter(|o| o.mode == Mode::ReplaceInterval && !section.has("incremental")) {
        let message = format!("{} writes with `replace_interval` but is not incremental", section.title());
        walk.error(
            "bad-mode",
            output.span.clone(),
            message,
            "add `incremental = { column = …, interval = \"1d\" }`, or use `replace_partitions`",
        );
    }
    let checks = checks(&section);
    let draft = Draft {
        name: name?,
        sql,
        output,
        checks,
        timeout: section.duration("timeout"),
        deterministic: section.boolean("deterministic").unwrap_or(false),
        incremental,
        span,
    };
    Some(draft)
}

fn sql_text(section: &Section<'_, '_>, shown_root: &Path) -> Option<SqlText> {
    match (section.has("sql"), section.has("query")) {
        (false, false) => {
            section
                .missing("sql", "name an SQL file, `sql = \"name.sql\"`, or write the query, `query = \"SELECT …\"`");
            None
        }
        (true, true) => {
            let message = format!("{} has both `sql` and `query`", section.title());
            section.walk().error(
                "conflict",
                section.key_span("query"),
                message,
                "keep one: `sql` names a file, `query` is the text",
            );
            None
        }
        (false, true) => inline(section, "query"),
        (true, false) => {
            let text = section.required("sql", "name an SQL file")?;
            if looks_like_sql(&text.value) {
                section.bad(
                    "bad-value",
                    "sql",
                    format!("`sql` in {} names a file", section.title()),
                    "write SQL text as `query = …`",
                );
                return None;
            }
            sql_file(section.walk(), &text, shown_root)
        }
    }
}

fn looks_like_sql(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or_default().to_ascii_lowercase();
    ["select", "with", "values", "from"].contains(&first.as_str()) && words.next().is_some()
}

/// SQL that stands in the definition itself.
fn inline(section: &Section<'_, '_>, key: &str) -> Option<SqlText> {
    let text = section.verbatim(key)?;
    if text.value.trim().is_empty() {
        section.bad(
            "empty-value",
            key,
            format!("`{key}` in {} is empty", section.title()),
            "write a query that begins with SELECT or WITH",
        );
        return None;
    }
    let walk = section.walk();
    Some(SqlText::inline(&walk.file, &walk.text, text.span, text.value))
}

fn sql_file(walk: &Walk<'_>, text: &Text, shown_root: &Path) -> Option<SqlText> {
    let path = walk.root.join(&text.value);
    let shown = shown_root.join(&text.value);
    match super::read_text(&path, &shown) {
        Ok(content) => {
            // A byte order mark is no SQL.
            let offset = if content.starts_with('\u{feff}') { 3 } else { 0 };
            let sql = content.get(offset..).unwrap_or_default().to_owned();
            if sql.trim().is_empty() {
                walk.error(
                    "empty-value",
                    text.span.clone(),
                    format!("`{}` is empty", shown.display()),
                    "write a query into it",
                );
                return None;
            }
            Some(SqlText { file: shown, file_text: content, offset, sql })
        }
        Err(mut diagnostic) => {
            if diagnostic.code == "missing-file" {
                let folder = path.parent().unwrap_or(&walk.root);
                let names: Vec<String> = std::fs::read_dir(folder)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.file_name().to_string_lossy().into_owned())
                    .filter(|n| n.ends_with(".sql"))
                    .collect();
                let wanted = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                diagnostic = diagnostic.maybe_hint(
                    suggest::nearest(&wanted, names.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`?")),
                );
            }
            if diagnostic.place.is_none() {
                diagnostic = diagnostic.at(walk.place(text.span.clone()));
            }
            walk.found.borrow_mut().push(diagnostic);
            None
        }
    }
}

fn output(section: &Section<'_, '_>) -> Option<Output> {
    let table = section.table("output")?;
    let walk = section.walk();
    let title = format!("the output of {}", section.title());
    let section = Section::new(walk, title, table, section.value_span("output"), &OUTPUT_KEYS);
    let path = section.required("path", "give a file or a folder: `path = \"out/name.parquet\"`");
    let location = path.as_ref().and_then(|p| target(walk, p));
    let written_format = section.one_of("format", &FORMATS);
    let mode = section
        .one_of(
            "mode",
            &[
                ("replace", Mode::Replace),
                ("append", Mode::Append),
                ("replace_partitions", Mode::ReplacePartitions),
                ("replace_interval", Mode::ReplaceInterval),
            ],
        )
        .unwrap_or(Mode::Replace);
    let single = section.boolean("single_file");
    let partition_by = partition_columns(&section);
    let (path, location) = (path?, location?);

    let (by_ending, by_compression) = format_of(&path.value);
    let slash = path.value.ends_with('/');
    if written_format.is_none() && by_ending.is_none() && !section.has("format") && !slash {
        let (end, _) = ending(&path.value);
        if !end.is_empty() {
            let endings = FORMATS.map(|(e, _)| e);
            let hint = suggest::nearest(&end, endings).map_or_else(
                || "set `format`, or end it in `.parquet`, `.csv`, `.json` or `.arrow`".to_owned(),
                |near| format!("did you mean `.{near}`?"),
            );
            section.bad("bad-format", "path", format!("`{}` does not end in a known format", path.value), hint);
        }
    }
    // A name with the ending of a format is one file, anything else a folder, unless `single_file` says so.
    let folder =
        !single.unwrap_or(by_ending.is_some() && !slash && partition_by.is_empty() && !section.has("partition_by"));
    let format = written_format.or(by_ending).unwrap_or(SinkFormat::Parquet);
    if let (Some(written), Some(ending), false) = (written_format, by_ending, folder)
        && written != ending
    {
        let message =
            format!("`format` of {} is `{}`, but `{}` ends otherwise", section.title(), written.name(), path.value);
        section.bad("conflict", "format", message, "change the ending or remove `format`");
    }
    let need_folder = |key: &str, what: &str| {
        if folder && by_ending.is_some() && single.is_none() && !slash && key == "partition_by" {
            // `partition_by` with a file's name: a folder called `x.parquet` is a surprise.
            let stem = path.value.split_once('.').map_or(path.value.as_str(), |(s, _)| s);
            section.bad(
                "needs-folder",
                key,
                format!("{what} needs a folder, but `{}` is a file", path.value),
                format!("write `path = \"{stem}\"`"),
            );
        } else if !folder {
            let hint = if single == Some(true) {
                "remove `single_file`"
            } else {
                "give a folder as `path`, without an ending"
            };
            section.bad("needs-folder", key, format!("{what} needs a folder, but `{}` is a file", path.value), hint);
        }
    };
    if section.has("partition_by") {
        need_folder("partition_by", "`partition_by`");
    }
    match mode {
        Mode::Replace => {}
        Mode::Append => need_folder("mode", "mode `append`"),
        Mode::ReplacePartitions => need_folder("mode", "mode `replace_partitions`"),
        Mode::ReplaceInterval => need_folder("mode", "mode `replace_interval`"),
    }
    if matches!(mode, Mode::ReplacePartitions | Mode::ReplaceInterval) && !section.has("partition_by") {
        let name = section.value("mode").and_then(|v| v.get_ref().as_str()).unwrap_or_default();
        section.bad(
            "bad-mode",
            "mode",
            format!("mode `{name}` needs `partition_by`"),
            "add `partition_by = [\"column\"]`, or use `replace` or `append`",
        );
    }
    let compression = compression(&section, format, by_compression);
    let target = match location {
        Location::Local(path) => Target::Local(path),
        Location::Remote(url) => {
            if url.starts_with("http") {
                section.bad(
                    "bad-path",
                    "path",
                    format!("`{url}` cannot be written to"),
                    "write to a local path, `s3://`, `gs://` or `az://`",
                );
                return None;
            }
            if folder {
                let message =
                    format!("`{url}` is a folder on an object store, which cannot be published in one step yet");
                section.bad(
                    "needs-file",
                    "path",
                    message,
                    "write one file: give the path an ending such as `.parquet`; or write the folder locally and copy it",
                );
                return None;
            }
            Target::Remote(url)
        }
    };
    Some(Output {
        location: path.value,
        target,
        sink: SinkSpec { format, single_file: !folder, partition_by, compression },
        mode,
        span: path.span,
    })
}

fn partition_columns(section: &Section<'_, '_>) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    if section.has("partition_by") && section.strings("partition_by").is_some_and(|c| c.is_empty()) {
        section.bad("empty-value", "partition_by", "`partition_by` is empty", "name a column, or remove it");
    }
    for column in section.strings("partition_by").unwrap_or_default() {
        if columns.contains(&column.value) {
            let message = format!("column `{}` is twice in `partition_by`", column.value);
            section.walk().error("duplicate-column", column.span, message, "remove one");
        } else if column.value.is_empty() {
            section.walk().error(
                "empty-value",
                column.span,
                "a column in `partition_by` has an empty name",
                "name a column of the result",
            );
        } else {
            columns.push(column.value);
        }
    }
    columns
}

fn format_of(path: &str) -> (Option<SinkFormat>, Option<&'static str>) {
    let (ending, compression) = ending(path);
    (FORMATS.iter().find(|(e, _)| *e == ending).map(|(_, f)| *f), compression)
}

fn compression(section: &Section<'_, '_>, format: SinkFormat, by_ending: Option<&'static str>) -> Option<String> {
    let allowed: &[(&str, &'static str)] = match format {
        SinkFormat::Parquet => &[("none", "none"), ("snappy", "snappy"), ("zstd", "zstd"), ("lz4", "lz4")],
        SinkFormat::Csv | SinkFormat::Json => &[("none", "none"), ("gzip", "gzip"), ("zstd", "zstd")],
        SinkFormat::Arrow => &[("none", "none"), ("lz4", "lz4")],
    };
    let written = match section.string("compression") {
        Some(text) => Some(section.choose(&format!("`compression` of a {} output", format.label()), &text, allowed)?),
        None => None,
    };
    let Some(ending) = by_ending else { return written.map(str::to_owned) };
    if !matches!(format, SinkFormat::Csv | SinkFormat::Json) || !allowed.iter().any(|(name, _)| *name == ending) {
        let message = format!("a {} output cannot be compressed as the ending of its path says", format.label());
        section.bad(
            "bad-format",
            "path",
            message,
            "remove that ending; use `compression` to choose how the data is compressed",
        );
        return None;
    }
    if written.is_some_and(|w| w != ending) {
        section.bad(
            "conflict",
            "compression",
            "`compression` and the ending of `path` do not agree",
            "change one of them",
        );
    }
    Some(ending.to_owned())
}

/// Where an output goes: no glob, no file of the definition.
fn target(walk: &Walk<'_>, path: &Text) -> Option<Location> {
    let location = location::locate(walk, path)?;
    let name = match &location {
        Location::Local(path) => path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        Location::Remote(url) => url.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned(),
    };
    if location::is_glob(&path.value) {
        walk.error(
            "bad-path",
            path.span.clone(),
            format!("`{}` is a glob; an output is one place", path.value),
            "take out `*`, `?` and `[`",
        );
        return None;
    }
    if name.starts_with(['.', '_']) {
        let message = format!("`{}` begins with `{}`", name, &name[..1]);
        walk.error(
            "bad-path",
            path.span.clone(),
            message,
            "choose another name: readers skip files and folders that begin with `.` or `_`",
        );
        return None;
    }
    Some(location)
}

fn checks(section: &Section<'_, '_>) -> Vec<DraftCheck> {
    let walk = section.walk();
    let mut checks: Vec<DraftCheck> = Vec::new();
    for (index, (table, span)) in section.tables("checks").into_iter().enumerate() {
        let title = format!("check {} of {}", index + 1, section.title());
        let check = Section::new(walk, title, table, span.clone(), &CHECK_KEYS);
        let name = check.required("name", "give the check a name: reports show it");
        if let Some(name) = &name {
            walk.check_name("a check", &name.value, name.span.clone());
            if checks.iter().any(|c| c.check.name == name.value) {
                let message = format!("{} has two checks with the name `{}`", section.title(), name.value);
                walk.error("duplicate-name", name.span.clone(), message, "rename one");
            }
        }
        let blocking = check.one_of("on_fail", &[("block", true), ("warn", false)]).unwrap_or(true);
        let tolerate = check.number("tolerate", 0.0, 1.0);
        let (key, each_row) = match (check.has("expr"), check.has("sql")) {
            (true, false) => ("expr", true),
            (false, true) => ("sql", false),
            (true, true) => {
                let message = format!("{} has both `expr` and `sql`", check.title());
                walk.error(
                    "conflict",
                    check.key_span("sql"),
                    message,
                    "keep one: `expr` must hold for each row, `sql` is a query that returns one boolean",
                );
                continue;
            }
            (false, false) => {
                check.missing(
                    "expr",
                    "write `expr = \"column IS NOT NULL\"`, or a query: `sql = \"SELECT count(*) > 0 FROM step\"`",
                );
                continue;
            }
        };
        if !each_row && check.has("tolerate") {
            check.walk().error(
                "wrong-option",
                check.key_span("tolerate"),
                "`tolerate` is for checks with `expr`",
                "remove it: a query says yes or no",
            );
        }
        let (Some(name), Some(sql)) = (name, inline(&check, key)) else { continue };
        let condition = if each_row { Condition::EachRow(sql.sql.clone()) } else { Condition::Query(sql.sql.clone()) };
        checks.push(DraftCheck {
            check: Check {
                name: name.value,
                condition,
                blocking,
                tolerate: tolerate.unwrap_or(0.0),
                span: check.value_span(key),
            },
            sql,
        });
    }
    checks
}

impl SqlText {
    /// SQL that is the string value at `span` (quotes included) of the definition.
    pub(crate) fn inline(file: &Path, file_text: &Arc<str>, span: Range<usize>, sql: String) -> Self {
        let source = file_text.get(span.clone()).unwrap_or_default();
        let quotes = if source.starts_with("\"\"\"") || source.starts_with("'''") { 3 } else { 1 };
        let body = source.get(quotes..).unwrap_or_default();
        // A line break right after the opening quotes is not part of the text.
        let skipped = match quotes {
            3 if body.starts_with("\r\n") => 2,
            3 if body.starts_with('\n') => 1,
            _ => 0,
        };
        let offset = span.start + quotes + skipped;
        Self { file: file.to_path_buf(), file_text: Arc::clone(file_text), offset, sql }
    }

    /// The place of a byte range of [`SqlText::sql`] in the file; the whole text where escapes do not allow more.
    pub fn place(&self, range: Range<usize>) -> Place {
        let span = self.file_span(range).unwrap_or_else(|| self.offset..self.offset + 1);
        Place { file: self.file.clone(), text: Arc::clone(&self.file_text), span, label: None }
    }

    fn file_span(&self, range: Range<usize>) -> Option<Range<usize>> {
        let source = self.file_text.get(self.offset..)?;
        if source.starts_with(self.sql.as_str()) {
            return Some(self.offset + range.start..self.offset + range.end);
        }
        let start = self.offset + super::escapes::source_offset(source, &self.sql, range.start)?;
        let end = self.offset + super::escapes::source_offset(source, &self.sql, range.end)?;
        Some(start..end.max(start))
    }

    /// An error about the SQL at a byte range of it.
    pub(crate) fn error(&self, code: &'static str, range: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, message).at(self.place(range))
    }
}
