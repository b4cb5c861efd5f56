//! `sparklet sql`: ad-hoc SQL over files, in a text, a file or a prompt.

mod files;
mod prompt;
mod record;
mod script;
mod statement;
mod values;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use datafusion::common::{DataFusionError, ScalarValue};
use sparklet_core::{Error, ErrorKind, PreparedQuery, Session, SessionConfig};
use sparklet_pipeline::{Diagnostic, Place};

use super::shared;
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupts;
use crate::output::Format;
use crate::past::{self, Tell};
use crate::runtime;
use crate::settings::{EngineFlags, LookFlags, Settings};
use crate::world::{World, shows_progress};
use record::AdHoc;
use statement::{Limits, Manner};

/// Rows of a table on a terminal unless `--rows` says otherwise.
const TERMINAL_ROWS: u64 = 100;

/// Run SQL over files: `FROM 'data/*.parquet'`, `COPY … TO`, `CREATE TABLE`, `EXPLAIN ANALYZE`
///
/// Without `-c` and `-f` it reads a script from standard input, or opens a prompt if that is a terminal. Paths in quotes are
/// tables: Parquet, CSV, JSON, Arrow and Avro files, folders, globs and URLs.
#[derive(Debug, Args)]
pub struct Arguments {
    /// SQL to run: one or more statements
    #[arg(short = 'c', long = "command", value_name = "TEXT", conflicts_with = "file")]
    command: Option<String>,
    /// File with SQL to run
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Value for `$NAME` in the SQL; the type is read off the value, `'…'` makes it text
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Folder of a pipeline whose sources become tables
    #[arg(long, value_name = "PIPELINE")]
    pipeline: Option<PathBuf>,
    /// Format of rows
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Rows that a table shows, `0` for all [default: 100 on a terminal, else all]
    #[arg(long, value_name = "N", hide_default_value = true)]
    rows: Option<u64>,
    #[command(flatten)]
    settings: EngineFlags,
}

/// Runs SQL.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let (pipeline, settings) =
        shared::settle(arguments.pipeline.as_deref(), &arguments.settings, look, world, console)?;
    let given = shared::params(&arguments.params)?;
    let params = values::scalars(&given);
    let text = match (&arguments.command, &arguments.file) {
        (Some(text), _) => Some(Text::new("-c", text.clone())),
        (None, Some(file)) => Some(Text::read(file)?),
        (None, None) if !std::io::stdin().is_terminal() => Some(Text::from_input()?),
        (None, None) => None,
    };
    let limit = match arguments.rows {
        Some(0) => None,
        Some(rows) => Some(rows),
        None => console.out_look().terminal.then_some(TERMINAL_ROWS),
    };
    let manner = Manner {
        format: arguments.format,
        limit,
        progress: shows_progress(&settings, console.err_look()),
        timeout: settings.timeout,
    };
    let interrupts = Interrupts::listen().map_err(|error| Failure::io("cannot listen for Ctrl-C", error))?;
    runtime::block_on(&settings, async {
        let session = Session::new(with_places(settings.session()))?;
        if let Some(pipeline) = &pipeline {
            shared::register_tables(&session, pipeline, &given, console).await?;
        }
        let shell = Shell { session, settings: &settings, params, given, manner, world, interrupts };
        match text {
            Some(text) => shell.script(&text, console).await,
            None => prompt::run(shell, console).await,
        }
    })?
}

/// With places in errors of planning.
pub(super) fn with_places(mut config: SessionConfig) -> SessionConfig {
    config.options.entry("datafusion.sql_parser.collect_spans".to_owned()).or_insert_with(|| "true".to_owned());
    config
}

/// Registers the files that `sql` reads as tables.
pub(super) async fn register_files(session: &Session, sql: &str, cwd: &Path) -> Result {
    files::register(session, sql, cwd).await?;
    Ok(())
}

/// Plans one query over files, for `explain`.
pub(super) async fn plan(
    session: &Session,
    sql: &str,
    params: &BTreeMap<String, String>,
    world: &World,
) -> Result<PreparedQuery> {
    let text = Text::new("-c", sql.to_owned());
    let sql = sql.trim().trim_end_matches(';');
    let range = text.text.find(sql).map_or(0..text.text.len(), |at| at..at + sql.len());
    let planned = async {
        files::register(session, sql, &world.cwd).await?;
        session.sql(sql, &values::scalars(params)).await?.prepare().await
    };
    planned.await.map_err(|error| located(error, &text, range))
}

/// SQL with the name of where it came from.
struct Text {
    name: PathBuf,
    text: Arc<str>,
}

impl Text {
    fn new(name: impl Into<PathBuf>, text: String) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    fn read(file: &Path) -> Result<Self> {
        let bytes = std::fs::read(file).map_err(|error| {
            Failure::usage(format!("cannot read `{}`: {error}", file.display())).with_hint("`-f` takes a file with SQL")
        })?;
        Self::decode(file.to_owned(), bytes)
    }

    fn from_input() -> Result<Self> {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(|error| Failure::io("cannot read standard input", error))?;
        Self::decode(PathBuf::from("standard input"), bytes)
    }

    fn decode(name: PathBuf, bytes: Vec<u8>) -> Result<Self> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { name, text: text.into() }),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let message = format!("`{}` is not UTF-8 text: bad byte at offset {at}", name.display());
                Err(Failure::definition(vec![Diagnostic::error("not-utf8", message).hint("convert the file to UTF-8")]))
            }
        }
    }
}

/// A session and how it is used.
struct Shell<'a> {
    session: Session,
    settings: &'a Settings,
    params: BTreeMap<String, ScalarValue>,
    given: BTreeMap<String, String>,
    manner: Manner,
    world: &'a World,
    interrupts: Interrupts,
}

impl Shell<'_> {
    /// Runs all statements of `text`, one after the other, until one fails; they are remembered as one run.
    async fn script(&self, text: &Text, console: &mut Console) -> Result {
        let script = script::split(&text.text).map_err(|unfinished| {
            let place = Place {
                file: text.name.clone(),
                text: Arc::clone(&text.text),
                span: unfinished.at..unfinished.at + 1,
                label: None,
            };
            Failure::definition(vec![Diagnostic::error("sql-syntax", lower(&unfinished.message)).at(place)])
        })?;
        if script.statements.is_empty() {
            return Err(Failure::Nothing("there is no statement to run".to_owned()));
        }
        let limits = Limits::new(self.interrupts.next_token(), self.manner.timeout);
        let place = statement::Place { session: &self.session, cwd: &self.world.cwd, params: &self.params };
        let mut run = AdHoc::begin(&text.text);
        let mut ended = Ok(());
        let many = script.statements.len() > 1;
        for (i, range) in script.statements.iter().enumerate() {
            let sql = &text.text[range.clone()];
            let name = if many { format!("statement {}", i + 1) } else { "statement".to_owned() };
            let (done, ran) = statement::run(&place, sql, &name, &self.manner, &limits, console).await;
            run.add(done);
            if let Err(failure) = ran {
                ended = Err(placed(failure, text, range.clone()));
                break;
            }
        }
        console.flush()?;
        self.remember(run, &ended, if ended.is_ok() { Tell::Watched } else { Tell::Trouble }, console);
        ended
    }

    /// Remembers what was run.
    fn remember(&self, run: AdHoc, ended: &Result, tell: Tell, console: &mut Console) {
        if let Some((record, texts)) = run.finish(&self.session, self.settings, &self.given, ended) {
            past::remember(&record, &texts, Some(&self.session), self.settings, self.world, tell, console);
        }
    }
}

fn placed(failure: Failure, text: &Text, statement: std::ops::Range<usize>) -> Failure {
    match failure {
        Failure::Engine(error) => located(*error, text, statement),
        other => other,
    }
}

/// Points at the place in the text where the error has one.
fn located(error: Error, text: &Text, statement: std::ops::Range<usize>) -> Failure {
    let sql = &text.text[statement.clone()];
    let hint = files::quote_hint(&error).or_else(|| error.hint.clone());
    if !matches!(error.kind, ErrorKind::Query | ErrorKind::Source) {
        return Failure::Engine(Box::new(Error { hint, ..error }));
    }
    // Texts of one line say by themselves where an error without a place is.
    let one_line = !text.text.trim().contains('\n');
    let span = match span_of(&error, sql) {
        Some(span) => Some(statement.start + span.start..statement.start + span.end),
        None => (!one_line).then_some(statement),
    };
    let code = if is_syntax(&error) { "sql-syntax" } else { "sql" };
    let message = if is_syntax(&error) { syntax_message(&error.message) } else { error.message };
    let place = span.map(|span| Place { file: text.name.clone(), text: Arc::clone(&text.text), span, label: None });
    Failure::definition(vec![Diagnostic { place, ..Diagnostic::error(code, message).maybe_hint(hint) }])
}

fn is_syntax(error: &Error) -> bool {
    error.source.as_deref().is_some_and(|e| matches!(e.find_root(), DataFusionError::SQL(..)))
}

/// What the parser says, without its wrapping and the place, which is shown.
fn syntax_message(said: &str) -> String {
    let inner = said.trim_start_matches("SQL error: ").trim_start_matches("ParserError(\"").trim_end_matches("\")");
    lower(inner.split(" at Line: ").next().unwrap_or(inner))
}

/// Byte range in `sql` that the error is about.
fn span_of(error: &Error, sql: &str) -> Option<std::ops::Range<usize>> {
    let source = error.source.as_deref()?;
    if let Some(span) = source.diagnostic().and_then(|d| d.span) {
        let start = script::offset(sql, span.start.line, span.start.column);
        let end = script::offset(sql, span.end.line, span.end.column);
        return Some(start..end.max(start));
    }
    let DataFusionError::SQL(..) = source.find_root() else { return None };
    // The parser says where in its text only: `… at Line: 2, Column: 8`.
    let said = source.strip_backtrace();
    let (_, rest) = said.rsplit_once("at Line: ")?;
    let (line, column) = rest.split_once(", Column: ")?;
    let column: String = column.chars().take_while(char::is_ascii_digit).collect();
    let start = script::offset(sql, line.trim().parse().ok()?, column.parse().ok()?);
    let word = sql[start..].find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(sql.len() - start).max(1);
    Some(start..(start + word).min(sql.len()))
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().collect::<String>() + chars.as_str())
}
