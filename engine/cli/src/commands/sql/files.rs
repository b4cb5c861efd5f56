//! `FROM 'file.parquet'`: tables that are named by where they are.
//!
//! They are registered as sources, like a pipeline's: the same errors, and the run remembers which version it read.

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::common::TableReference;
use sparklet_core::source::{Format, SourceOptions, SourceSpec};
use sparklet_core::{Error, ErrorKind, Session};
use sparklet_history::SourceRecord;

/// Folders deeper than this are not searched for what they hold.
const MAX_DEPTH: usize = 8;

/// Registers the files that `sql` reads; returns what was found. A statement that does not parse reads nothing.
pub(super) async fn register(session: &Session, sql: &str, cwd: &Path) -> Result<Vec<SourceRecord>, Error> {
    let state = session.context().state();
    let dialect = state.config().options().sql_parser.dialect;
    let Ok(references) =
        state.sql_to_statement(sql, &dialect).and_then(|statement| state.resolve_table_references(&statement))
    else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for reference in references {
        let TableReference::Bare { table } = &reference else { continue };
        // A name that was made otherwise (`CREATE TABLE "a.csv"`) stays what it is.
        if !is_location(table) || (exists(session, table) && !session_knows(session, table)) {
            continue;
        }
        found.push(session.register_source(table, &spec(table, cwd)?).await.map_err(|e| unsource(e, table))?);
    }
    Ok(found)
}

/// The hint for a query that names a file without quotes, if that is what went wrong.
pub(super) fn quote_hint(error: &Error) -> Option<String> {
    let start = error.message.find('`')? + 1;
    let name = &error.message[start..start + error.message[start..].find('`')?];
    let name = name.strip_prefix("datafusion.").unwrap_or(name);
    let name = name.strip_prefix("public.").unwrap_or(name);
    let (_, ending) = name.rsplit_once('.')?;
    let known = format_of(&format!("x.{ending}")).is_some() && error.kind == ErrorKind::Query;
    known.then(|| format!("a file stands in single quotes: `FROM '{name}'`"))
}

fn exists(session: &Session, table: &str) -> bool {
    session.context().table_exist(TableReference::bare(table)).unwrap_or(false)
}

/// True if `table` was registered from a file before: then it may have changed since.
fn session_knows(session: &Session, table: &str) -> bool {
    let catalog = session.context().copied_config().options().catalog.clone();
    let schema = session.context().catalog(&catalog.default_catalog).and_then(|c| c.schema(&catalog.default_schema));
    schema.is_some_and(|schema| schema.table_names().iter().any(|name| name == table))
}

/// The error without the words that belong to a pipeline's named sources.
fn unsource(mut error: Error, table: &str) -> Error {
    if let Some(rest) = error.message.strip_prefix(&format!("source `{table}`: ")) {
        error.message = rest.to_owned();
    }
    error
}

/// True for what can only be a path or a URL: it has a `/`, a glob character or a known ending.
fn is_location(name: &str) -> bool {
    name.contains(['/', '*', '?']) || format_of(name).is_some() || (cfg!(windows) && name.contains('\\'))
}

fn spec(written: &str, cwd: &Path) -> Result<SourceSpec, Error> {
    let remote = written.contains("://");
    let location = if remote { written.to_owned() } else { cwd.join(written).display().to_string() };
    let format = format_of(written.split(['?', '#']).next().unwrap_or_default())
        .or_else(|| format_of(written))
        .or_else(|| if remote { None } else { format_inside(Path::new(&location), 0) });
    let Some(format) = format else {
        let message = format!("the format of `{written}` cannot be told");
        let hint = if !remote && !Path::new(&location).exists() && !location.contains(['*', '?', '[']) {
            format!("nothing is there: looked for `{location}`")
        } else {
            "use an ending such as `.parquet`, `.csv`, `.json`, `.arrow`, `.avro`, or a glob with one (`folder/*.csv`)"
                .to_owned()
        };
        return Err(Error::new(ErrorKind::Source, message).with_hint(hint));
    };
    let options =
        SourceOptions { delimiter: if written.contains(".tsv") { b'\t' } else { b',' }, ..SourceOptions::default() };
    Ok(SourceSpec {
        location,
        written: written.to_owned(),
        format,
        options,
        columns: Vec::new(),
        partition_columns: Vec::new(),
        storage: BTreeMap::new(),
    })
}

fn format_of(name: &str) -> Option<Format> {
    let lower = name.to_ascii_lowercase();
    const FORMATS: [Format; 5] = [Format::Parquet, Format::Csv, Format::Json, Format::Arrow, Format::Avro];
    FORMATS.into_iter().find(|format| format.endings().iter().any(|ending| lower.ends_with(ending)))
}

/// Format of the first data file in a folder.
fn format_inside(folder: &Path, depth: usize) -> Option<Format> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
    entries.sort();
    let shown = |path: &Path| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| !n.starts_with(['.', '_']));
    entries.retain(|path| shown(path));
    let here = entries.iter().filter(|p| p.is_file()).find_map(|p| format_of(p.to_str()?));
    let below = || entries.iter().filter(|p| p.is_dir()).find_map(|p| format_inside(p, depth + 1));
    here.or_else(|| if depth < MAX_DEPTH { below() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_told_from_names() {
        for name in ["a.parquet", "a.csv.gz", "dir/x", "*.json", "s3://b/k.parquet", "A.CSV", "out/"] {
            assert!(is_location(name), "{name}");
        }
        for name in ["orders", "a.b", "parquet", "my table"] {
            assert!(!is_location(name), "{name}");
        }
    }

    #[test]
    fn formats_of_folders() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("out/month=1");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join(".hidden.csv"), "").unwrap();
        std::fs::write(inner.join("part-0.parquet"), "").unwrap();
        assert_eq!(spec("out", folder.path()).unwrap().format, Format::Parquet);
        assert_eq!(spec("out/", folder.path()).unwrap().format, Format::Parquet);
        let error = spec("nowhere/x", folder.path()).unwrap_err();
        assert!(error.hint.unwrap().starts_with("nothing is there"));
        assert_eq!(spec("https://h/a.csv?x=1", folder.path()).unwrap().format, Format::Csv);
        assert_eq!(spec("a.tsv", folder.path()).unwrap().options.delimiter, b'\t');
    }

    #[test]
    fn a_file_without_quotes_is_explained() {
        let error = Error::new(ErrorKind::Query, "no table `datafusion.data.parquet`");
        assert_eq!(quote_hint(&error).as_deref(), Some("a file stands in single quotes: `FROM 'data.parquet'`"));
        assert_eq!(quote_hint(&Error::new(ErrorKind::Query, "unknown table `a.orders`")), None);
        assert_eq!(quote_hint(&Error::new(ErrorKind::Query, "nothing quoted")), None);
    }
}
