//! The prompt: lines until `;`, commands with `\`, a history of what was typed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use sparklet_report::human;

use super::record::AdHoc;
use super::{Shell, Text, script, statement};
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::output::Format;
use crate::output::grid::{Cell, Grid};
use crate::past::Tell;

const HELP: &str = "\
SQL ends with `;` and may have many lines. Files are tables: SELECT * FROM 'data/*.parquet';
  \\d           tables
  \\d NAME      columns of a table or file
  \\format F    rows as table, json, ndjson or csv
  \\timing      say how long statements take (on or off)
  \\?           this help
  \\q           leave (Ctrl-D too); Ctrl-C ends the statement that runs";

/// Statements of history kept in the file.
const TYPED: usize = 10_000;

/// Reads and runs statements until the end of input.
pub(super) async fn run(mut shell: Shell<'_>, console: &mut Console) -> Result {
    let names = Arc::new(Mutex::new(Vec::new()));
    let mut editor = editor(Arc::clone(&names))?;
    let typed = typed_file(&shell);
    if let Some(file) = &typed {
        // A history that cannot be read is an empty one.
        let _ = editor.load_history(file);
    }
    console.say(&format!("sparklet {} (type \\? for help, \\q to leave)", env!("CARGO_PKG_VERSION")));
    let mut timing = false;
    loop {
        *names.lock().unwrap_or_else(PoisonError::into_inner) = table_names(&shell);
        let text = match editor.readline("sparklet> ") {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(ReadlineError::Io(error)) => return Err(Failure::io("cannot read from the terminal", error)),
            Err(error) => return Err(Failure::Bug(format!("the prompt failed: {error}"))),
        };
        if text.trim().is_empty() {
            continue;
        }
        // Entries that cannot be kept are lost, no more.
        let _ = editor.add_history_entry(text.as_str());
        if let Some(file) = &typed {
            let _ = editor.append_history(file);
        }
        let ran = match text.trim().strip_prefix('\\') {
            Some("q" | "quit") => break,
            Some(command) => special(command, &mut shell, &mut timing, console).await,
            None => statements(&shell, text, timing, console).await,
        };
        match ran {
            Ok(()) => {}
            // Nobody reads any more.
            Err(Failure::ClosedPipe) => return Err(Failure::ClosedPipe),
            Err(failure) => failure.report(console),
        }
    }
    Ok(())
}

/// Each statement is a run of its own.
async fn statements(shell: &Shell<'_>, text: String, timing: bool, console: &mut Console) -> Result {
    let text = Text::new("prompt", text);
    let script = match script::split(&text.text) {
        Ok(script) => script,
        // The script's way of telling it has the place.
        Err(_) => return shell.script(&text, console).await,
    };
    for range in script.statements {
        let limits = statement::Limits::new(shell.interrupts.next_token(), shell.manner.timeout);
        let sql = &text.text[range.clone()];
        let place = statement::Place { session: &shell.session, cwd: &shell.world.cwd, params: &shell.params };
        let mut run = AdHoc::begin(sql);
        let start = Instant::now();
        let (done, ran) = statement::run(&place, sql, "statement", &shell.manner, &limits, console).await;
        console.flush()?;
        let rows = done.rows.filter(|_| ran.is_ok()).map(|rows| human::plural(rows, "row", "rows"));
        let took = timing.then(|| human::duration(start.elapsed().as_micros() as u64, console.err_look().unicode));
        let line: Vec<String> = rows.into_iter().chain(took).collect();
        if !line.is_empty() {
            console.say(&line.join(", "));
        }
        run.add(done);
        let ended = ran.map_err(|failure| super::placed(failure, &text, range));
        shell.remember(run, &ended, Tell::Trouble, console);
        ended?;
    }
    Ok(())
}

async fn special(command: &str, shell: &mut Shell<'_>, timing: &mut bool, console: &mut Console) -> Result {
    let (word, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let argument = argument.trim().trim_end_matches(';').trim();
    match (word, argument) {
        ("?" | "h" | "help", _) => console.say(HELP),
        ("timing", _) => {
            *timing = !*timing;
            console.say(if *timing { "timing is on" } else { "timing is off" });
        }
        ("d", "") => tables(shell, console)?,
        ("d", name) => columns(shell, name, console).await?,
        ("format", name) => match <Format as clap::ValueEnum>::from_str(name, true) {
            Ok(format) => shell.manner.format = format,
            Err(_) => {
                return Err(Failure::usage(format!("`{name}` is not a format"))
                    .with_hint("formats are `table`, `json`, `ndjson` and `csv`"));
            }
        },
        _ => return Err(Failure::usage(format!("unknown command `\\{word}`")).with_hint("`\\?` lists the commands")),
    }
    Ok(())
}

fn tables(shell: &Shell<'_>, console: &mut Console) -> Result {
    let mut grid = Grid::new(&[("table", false)]);
    for name in table_names(shell) {
        grid.push(vec![Cell::text(name)]);
    }
    if grid.is_empty() {
        console.note("no tables; files are tables too: `SELECT * FROM 'data.parquet';`");
        return Ok(());
    }
    let look = console.out_look();
    grid.write(console.out(), Format::Table, look)?;
    Ok(console.flush()?)
}

async fn columns(shell: &Shell<'_>, name: &str, console: &mut Console) -> Result {
    let name = name.trim_matches(['\'', '"']);
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    let sql = format!("SELECT * FROM {quoted}");
    super::files::register(&shell.session, &sql, &shell.world.cwd).await?;
    let frame = shell.session.sql(&sql, &Default::default()).await?;
    let mut grid = Grid::new(&[("column", false), ("type", false), ("null", false)]);
    for field in frame.schema().fields() {
        let null = if field.is_nullable() { "yes" } else { "no" };
        grid.push(vec![Cell::text(field.name()), Cell::text(field.data_type().to_string()), Cell::text(null)]);
    }
    let look = console.out_look();
    grid.write(console.out(), Format::Table, look)?;
    Ok(console.flush()?)
}

fn table_names(shell: &Shell<'_>) -> Vec<String> {
    let context = shell.session.context();
    let catalog = context.copied_config().options().catalog.clone();
    let schema = context.catalog(&catalog.default_catalog).and_then(|c| c.schema(&catalog.default_schema));
    let mut names = schema.map(|s| s.table_names()).unwrap_or_default();
    names.sort();
    names
}

/// File of what was typed, in the state folder; none where that cannot be made.
fn typed_file(shell: &Shell<'_>) -> Option<PathBuf> {
    std::fs::create_dir_all(&shell.settings.state).ok()?;
    Some(shell.settings.state.join("sql_typed"))
}

type Prompt = Editor<Assistant, FileHistory>;

fn editor(names: Arc<Mutex<Vec<String>>>) -> Result<Prompt> {
    let failed = |error: ReadlineError| Failure::Bug(format!("the prompt cannot be opened: {error}"));
    let config = Config::builder()
        .max_history_size(TYPED)
        .map_err(failed)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .auto_add_history(false)
        .build();
    let history = FileHistory::with_config(&config);
    let mut editor = Editor::<Assistant, FileHistory>::with_history(config, history).map_err(failed)?;
    editor.set_helper(Some(Assistant { files: FilenameCompleter::new(), names }));
    Ok(editor)
}

/// Says when a statement is whole, and completes words.
struct Assistant {
    files: FilenameCompleter,
    names: Arc<Mutex<Vec<String>>>,
}

impl Helper for Assistant {}
impl Highlighter for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if whole(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// True for what Enter should run.
fn whole(text: &str) -> bool {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.starts_with('\\') {
        return true;
    }
    script::split(text).is_ok_and(|script| script.complete)
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..pos];
        if before.matches('\'').count() % 2 == 1 {
            let start = before.rfind('\'').map_or(0, |at| at + 1);
            let (at, files) = self.files.complete_path(&before[start..], pos - start)?;
            return Ok((start + at, files));
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(words(before, &names))
    }
}

/// Tables and keywords that begin with the word before the cursor.
fn words(before: &str, tables: &[String]) -> (usize, Vec<Pair>) {
    let start = before
        .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let word = &before[start..];
    if word.is_empty() {
        return (start, Vec::new());
    }
    let pair = |text: String| Pair { display: text.clone(), replacement: text };
    let tables = tables.iter().filter(|name| name.starts_with(word)).cloned();
    let upper = word.to_uppercase();
    let same_case =
        |keyword: &str| if word.chars().any(char::is_lowercase) { keyword.to_lowercase() } else { keyword.to_owned() };
    let keywords = ALL_KEYWORDS.iter().filter(|k| k.starts_with(&upper)).map(|k| same_case(k));
    (start, tables.chain(keywords).map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_runs_what_is_whole() {
        for text in ["", "  ", "\\d", "\\q", "select 1;", "select ';' ;", "select 1; -- done", ";"] {
            assert!(whole(text), "{text}");
        }
        for text in ["select 1", "select ';", "select 1; select 2", "select /* ;", "-- ;\nselect 1"] {
            assert!(!whole(text), "{text}");
        }
    }

    #[test]
    fn words_are_completed() {
        let tables = ["orders".to_owned(), "order_lines".to_owned()];
        let texts = |before: &str| {
            let (start, pairs) = words(before, &tables);
            (start, pairs.into_iter().map(|p| p.replacement).collect::<Vec<_>>())
        };
        let (start, found) = texts("select * from ord");
        assert_eq!(start, 14);
        assert_eq!(found[..2], ["orders", "order_lines"]);
        assert!(found.contains(&"order".to_owned()));
        assert!(texts("SEL").1.contains(&"SELECT".to_owned()));
        assert_eq!(texts("select ").1, Vec::<String>::new());
        assert_eq!(texts("ü").0, 0);
    }
}
