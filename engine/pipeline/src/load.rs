//! Reads a definition: TOML, environment, SQL files; everything that is wrong is found in one go.
//!
//! The walk is by hand, over a document with places, so that an error never hides the next one and each points at its characters.
//! What needs no data, no clock and no network is decided here; the rest in [`crate::check`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::definition::{Param, Pipeline, Source};
use crate::diagnostic::{self, Diagnostic, Place};
use crate::sql_refs::Syntax;
use walk::{Section, Walk, describe, entries};

mod escapes;
pub(crate) mod later;
pub(crate) mod location;
mod outputs;
mod sections;
pub(crate) mod source;
mod step;
mod steps;
mod substitute;
mod udfs;
mod walk;

#[cfg(test)]
mod tests;

/// Largest definition or SQL file that is read, in bytes.
const MAX_TEXT: u64 = 16 << 20;
/// TOML errors shown at the most: one missing bracket can make hundreds.
const MAX_SYNTAX_ERRORS: usize = 10;

const KEYS: [&str; 11] =
    ["name", "description", "settings", "params", "sources", "udfs", "schedule", "retry", "step", "notify", "timeout"];

/// A definition that can run, and what is worth saying of it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The definition.
    pub pipeline: Pipeline,
    /// Warnings and notes.
    pub warnings: Vec<Diagnostic>,
}

/// Reads the definition at `path`: a folder with a `pipeline.toml`, or a TOML file. `env` gives the values of `${VAR}`.
///
/// # Errors
/// All that is wrong, in the order of the files; warnings are among them.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Vec<Diagnostic>> {
    let file = locate(path).map_err(|d| vec![d])?;
    let text = read_text(&file, &file).map_err(|d| vec![d])?;
    load_text(&file, text, env)
}

/// Reads the definition `text` that stands in `file`; relative paths start at the folder of `file`.
///
/// # Errors
/// As [`load`].
pub fn load_text(file: &Path, text: Arc<str>, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Vec<Diagnostic>> {
    let shown_root = file.parent().unwrap_or(Path::new("")).to_path_buf();
    let folder = if shown_root.as_os_str().is_empty() { Path::new(".") } else { &shown_root };
    let root = match std::path::absolute(folder) {
        Ok(root) => location::normal(&root),
        Err(error) => {
            return Err(vec![Diagnostic::error(
                "unreadable",
                format!("failed to find the folder of `{}`: {error}", file.display()),
            )]);
        }
    };
    let (document, errors) = DeTable::parse_recoverable(&text);
    if !errors.is_empty() {
        return Err(syntax_errors(file, &text, &errors));
    }
    let walk = Walk { file: file.to_path_buf(), text: Arc::clone(&text), root, env, found: RefCell::default() };
    let pipeline = pipeline(&walk, document.get_ref(), &shown_root);
    let mut found = walk.found.into_inner();
    diagnostic::tidy(&mut found);
    match pipeline {
        Some(pipeline) if !diagnostic::has_errors(&found) => Ok(Loaded { pipeline, warnings: found }),
        _ => Err(found),
    }
}

#[expect(clippy::result_large_err, reason = "an error is said once and ends the work")]
fn locate(path: &Path) -> Result<PathBuf, Diagnostic> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            Diagnostic::error("missing-file", format!("there is no file or folder `{shown}`"))
                .hint(format!("check the path, or make an example there: `sparklet init {shown}`"))
        } else {
            unreadable(path, &error)
        }
    })?;
    if !meta.is_dir() {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml")) {
            return Ok(path.to_path_buf());
        }
        return Err(Diagnostic::error("not-a-definition", format!("`{shown}` is not a pipeline definition"))
            .hint("give the folder of a `pipeline.toml`, or a `.toml` file"));
    }
    let file = path.join("pipeline.toml");
    match std::fs::metadata(&file) {
        Ok(_) => Ok(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let others: Vec<String> = std::fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .filter(|n| n.ends_with(".toml") && n != "sparklet.toml")
                .collect();
            let hint = match others.as_slice() {
                [one] => format!("did you mean `{}`?", path.join(one).display()),
                _ => format!("make an example there: `sparklet init {shown}`"),
            };
            Err(Diagnostic::error("missing-file", format!("the folder `{shown}` has no `pipeline.toml`")).hint(hint))
        }
        Err(error) => Err(unreadable(&file, &error)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    let hint = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "check who may read it",
        _ => "check that it is a plain file",
    };
    Diagnostic::error("unreadable", format!("failed to read `{}`: {error}", path.display())).hint(hint)
}

/// The text of a file of a definition: plain, UTF-8, at most 16 MiB. `shown` is its name in messages.
#[expect(clippy::result_large_err, reason = "an error is said once and ends the work")]
pub(crate) fn read_text(path: &Path, shown: &Path) -> Result<Arc<str>, Diagnostic> {
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("there is no file `{}`", shown.display());
            return Err(Diagnostic::error("missing-file", message)
                .hint("check the path: it starts at the folder of the definition"));
        }
        Err(error) => return Err(unreadable(shown, &error)),
    };
    // A pipe or a device would block or never end.
    if !meta.is_file() {
        return Err(
            Diagnostic::error("unreadable", format!("`{}` is not a file", shown.display())).hint("give a plain file")
        );
    }
    if meta.len() > MAX_TEXT {
        return Err(Diagnostic::error("unreadable", format!("`{}` is larger than 16 MiB", shown.display()))
            .hint("this is not a definition; data belongs into sources"));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable(shown, &error))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::from(text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes().get(at).copied().unwrap_or_default();
            // Up to `at` the lossy text has the same bytes, so the place is right.
            let text: Arc<str> = Arc::from(String::from_utf8_lossy(error.as_bytes()));
            let place = Place { file: shown.to_path_buf(), text, span: at..at + 1, label: None };
            Err(Diagnostic::error(
                "not-utf8",
                format!("`{}` is not UTF-8: byte 0x{byte:02x} at offset {at}", shown.display()),
            )
            .hint("save the file as UTF-8")
            .at(place))
        }
    }
}

fn syntax_errors(file: &Path, text: &Arc<str>, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(text.len()..text.len());
            let place = Place { file: file.to_path_buf(), text: Arc::clone(text), span: span.clone(), label: None };
            let message = error.message().trim_end().replace('\n', "; ");
            let (code, hint) = if message.contains("duplicate key") {
                ("duplicate-key", "a key may stand once in a table; remove or rename one")
            } else {
                ("toml-syntax", "see https://toml.io for how TOML is written")
            };
            Diagnostic::error(code, message).hint(hint).at(place)
        })
        .collect();
    diagnostic::tidy(&mut found);
    if found.len() > MAX_SYNTAX_ERRORS {
        let more = found.len() - MAX_SYNTAX_ERRORS;
        found.truncate(MAX_SYNTAX_ERRORS);
        found.push(Diagnostic::error("toml-syntax", format!("{more} more errors follow from these")));
    }
    found
}

fn pipeline(walk: &Walk<'_>, document: &DeTable<'_>, shown_root: &Path) -> Option<Pipeline> {
    // Keys that are missing at the top are reported at the first character.
    let top = Section::new(walk, "the definition", document, 0..0, &KEYS);
    let name = top.required("name", "begin with `name = \"daily_orders\"`");
    if let Some(name) = &name {
        walk.check_name("the pipeline", &name.value, name.span.clone());
    }
    let description = top.string("description").map(|t| t.value);
    let (settings, settings_timeout) = sections::settings(&top);
    let params = sections::params(&top);
    let sources = sources(&top);
    let udfs = top.table("udfs").map(|table| udfs::udfs(&top, table)).unwrap_or_default();
    let (schedule, later) = later_sections(&top);
    let drafts = step_drafts(&top, shown_root);
    let mut later = later;
    if let Some(first) = drafts.iter().find(|d| d.incremental) {
        later.push(later::note(walk, first.span.clone(), later::INCREMENTAL));
    }
    let timeout = timeout(&top, settings_timeout);
    let syntax = Syntax::from_settings(|name| settings.get(name).map(String::as_str));
    let steps = steps::resolve(walk, drafts, &sources, &params, &syntax);
    outputs::check(walk, &steps, &sources.read);
    Some(Pipeline {
        name: name?.value,
        description,
        root: walk.root.clone(),
        file: walk.file.clone(),
        text: Arc::clone(&walk.text),
        settings,
        params: params.into_iter().map(|(name, (param, _))| (name, param)).collect(),
        sources: sources.read,
        udfs,
        steps: steps.into_iter().filter_map(steps::Resolved::finish).collect(),
        timeout,
        later,
        schedule,
    })
}

/// Declared parameters with the places of their names.
pub(crate) type Params = BTreeMap<String, (Param, Range<usize>)>;

/// Sources that could be read, and the names of all.
struct Sources {
    read: Vec<Source>,
    names: Vec<(String, Range<usize>)>,
}

fn sources(top: &Section<'_, '_>) -> Sources {
    let mut sources = Sources { read: Vec::new(), names: Vec::new() };
    let Some(table) = top.table("sources") else { return sources };
    let walk = top.walk();
    for (name, value) in entries(table) {
        let (text, span): (&str, _) = (name.get_ref(), name.span());
        walk.check_name("a source", text, span.clone());
        if let Some((other, _)) = sources.names.iter().find(|(n, _)| n.eq_ignore_ascii_case(text)) {
            let message = format!("sources `{other}` and `{text}` differ by case only");
            walk.error(
                "duplicate-name",
                span.clone(),
                message,
                "rename one: SQL does not tell them apart without quotes",
            );
        }
        sources.names.push((text.to_owned(), span.clone()));
        let DeValue::Table(table) = value.get_ref() else {
            let message =
                format!("`[sources.{}]` must be a table, but is {}", text.escape_debug(), describe(value.get_ref()));
            let hint = match value.get_ref() {
                DeValue::String(path) => format!("write `{text} = {{ path = \"{path}\" }}`"),
                _ => "write `path = …` in it".to_owned(),
            };
            walk.error("wrong-type", value.span(), message, hint);
            continue;
        };
        let section = Section::new(walk, format!("`[sources.{}]`", text.escape_debug()), table, span, &source::KEYS);
        sources.read.extend(source::source(text, &section));
    }
    sources
}

fn later_sections(top: &Section<'_, '_>) -> (Option<crate::definition::Schedule>, Vec<&'static str>) {
    let walk = top.walk();
    let (mut schedule, mut later) = (None, Vec::new());
    let mut note = |key, says| later.push(later::note(walk, top.key_span(key), says));
    if let Some(table) = top.table("schedule") {
        let keys = ["cron", "timezone", "catch_up", "overlap"];
        schedule = later::schedule(&Section::new(walk, "`[schedule]`", table, top.key_span("schedule"), &keys));
        note("schedule", later::SCHEDULE);
    }
    if let Some(table) = top.table("retry") {
        later::retry(
            &Section::new(walk, "`[retry]`", table, top.key_span("retry"), &["attempts", "backoff", "on"]).later(),
        );
        note("retry", later::RETRY);
    }
    if let Some(table) = top.table("notify") {
        later::notify(&Section::new(walk, "`[notify]`", table, top.key_span("notify"), &["on", "webhook"]).later());
        note("notify", later::NOTIFY);
    }
    (schedule, later)
}

fn step_drafts(top: &Section<'_, '_>, shown_root: &Path) -> Vec<step::Draft> {
    let walk = top.walk();
    let tables = top.tables("step");
    if tables.is_empty() && !matches!(top.value("step").map(|v| v.get_ref()), Some(DeValue::Table(_))) {
        let diagnostic = Diagnostic::error("no-steps", "the definition has no steps")
            .hint("add a `[[step]]` with a `name` and a `query`");
        walk.report(diagnostic, 0..0);
    }
    tables
        .into_iter()
        .enumerate()
        .filter_map(|(i, (table, span))| step::step(walk, i, table, span, shown_root))
        .collect()
}

fn timeout(top: &Section<'_, '_>, from_settings: Option<Duration>) -> Option<Duration> {
    let timeout = top.duration("timeout");
    if timeout.is_some() && from_settings.is_some() {
        top.walk().error(
            "conflict",
            top.key_span("timeout"),
            "`timeout` stands at the top and in `[settings]`",
            "keep one",
        );
    }
    timeout.or(from_settings)
}
