//! Errors of the engine: kind, what and where, what to do, and whether trying again can help.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use crate::suggest;

/// Result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine.
#[derive(Debug)]
pub struct Error {
    /// What sort of error it is; decides the exit code.
    pub kind: ErrorKind,
    /// What went wrong and where.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The error beneath.
    pub source: Option<Box<DataFusionError>>,
}

/// Sorts of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The query or the definition is wrong (unknown table or column, types, syntax).
    Query,
    /// The data is wrong (corrupt file, ragged row, failed cast).
    Data,
    /// A user function failed: it trapped, ran too long, broke its contract or reported an error.
    Function,
    /// A source is missing, empty or unreadable.
    Source,
    /// The output cannot be written.
    Output,
    /// The memory limit or the spill space is exhausted.
    Resources,
    /// Interrupted.
    Cancelled,
    /// A time limit fired.
    Timeout,
    /// A setting has a bad value.
    Setting,
    /// Network, throttling or another passing fault.
    Transient,
    /// A bug.
    Internal,
}

impl ErrorKind {
    /// Stable name for records and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Data => "data",
            Self::Function => "function",
            Self::Source => "source",
            Self::Output => "output",
            Self::Resources => "resources",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Setting => "setting",
            Self::Transient => "transient",
            Self::Internal => "internal",
        }
    }
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a hint, unless there is one.
    #[must_use]
    pub fn or_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The same, said of source `name`.
    #[must_use]
    pub(crate) fn at_source(mut self, name: &str) -> Self {
        self.message = format!("source `{name}`: {}", self.message);
        self
    }

    /// The error that a user should see for one of DataFusion's; `tables` are the names that could have been meant.
    pub fn from_datafusion(error: DataFusionError, tables: &[String]) -> Self {
        let mut explained = classify(&error, tables);
        explained.source = Some(Box::new(error));
        explained
    }

    /// True if the same call may succeed later without a change.
    pub fn retryable(&self) -> bool {
        self.kind == ErrorKind::Transient
    }

    /// As it stands in a run record.
    pub fn record(&self) -> sparklet_history::ErrorRecord {
        sparklet_history::ErrorRecord {
            kind: self.kind.name().to_owned(),
            message: self.message.clone(),
            hint: self.hint.clone(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        Self::from_datafusion(error, &[])
    }
}

impl From<ArrowError> for Error {
    fn from(error: ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

pub(crate) const MEMORY_HINT: &str =
    "raise `memory` (`--memory`), or lower `slots` (`--slots`) so that fewer tasks share it";
const SPILL_HINT: &str =
    "free space, or set `spill_dir` (`--spill-dir`) to a larger disk, or raise `memory` (`--memory`)";
const TYPES_HINT: &str = "cast one side to the type of the other, e.g. `CAST(x AS DATE)`";
const DISK_HINT: &str = "free space on that disk and run again; nothing was published";

fn classify(error: &DataFusionError, tables: &[String]) -> Error {
    if let Some(ours) = find::<Error>(error) {
        return Error { kind: ours.kind, message: ours.message.clone(), hint: ours.hint.clone(), source: None };
    }
    if let Some(sandbox) = find::<sparklet_sandbox::Error>(error) {
        return crate::functions::from_sandbox(sandbox.clone());
    }
    let root = error.find_root();
    let text = clean(&root.strip_backtrace());
    if is_disk_full(error) {
        let hint = if text.contains(crate::spill::PREFIX) { SPILL_HINT } else { DISK_HINT };
        return Error::new(ErrorKind::Resources, format!("no space left on the disk: {text}")).with_hint(hint);
    }
    match root {
        DataFusionError::SchemaError(schema, _) => of_schema(schema, text),
        DataFusionError::Plan(_) => of_plan(text, tables),
        DataFusionError::SQL(parser, _) => Error::new(ErrorKind::Query, of_parser(parser)),
        DataFusionError::NotImplemented(_) => Error::new(ErrorKind::Query, format!("not supported: {text}")),
        DataFusionError::Configuration(_) => Error::new(ErrorKind::Setting, text),
        DataFusionError::ResourcesExhausted(_) if text.contains("temp directory") || text.contains("disk") => {
            Error::new(ErrorKind::Resources, text).with_hint(SPILL_HINT)
        }
        DataFusionError::ResourcesExhausted(_) => {
            Error::new(ErrorKind::Resources, out_of_memory(&text)).with_hint(MEMORY_HINT)
        }
        DataFusionError::ArrowError(arrow, _) => of_arrow(arrow, text),
        DataFusionError::ParquetError(_) => Error::new(ErrorKind::Data, format!("bad Parquet data: {text}"))
            .with_hint("the file is damaged; write it again or leave it out"),
        DataFusionError::ObjectStore(store) => of_store(store, text),
        DataFusionError::IoError(io) if io.kind() == std::io::ErrorKind::NotFound => {
            Error::new(ErrorKind::Source, text)
        }
        DataFusionError::IoError(_) => Error::new(ErrorKind::Source, text),
        DataFusionError::Execution(_) | DataFusionError::External(_) => Error::new(ErrorKind::Data, text),
        DataFusionError::ExecutionJoin(join) if join.is_cancelled() => Error::new(ErrorKind::Cancelled, "cancelled"),
        DataFusionError::ExecutionJoin(_) => {
            Error::new(ErrorKind::Internal, format!("an operator panicked: {text}")).with_hint(BUG_HINT)
        }
        _ => Error::new(ErrorKind::Internal, text).with_hint(BUG_HINT),
    }
}

const BUG_HINT: &str = "this is a bug in the engine: please report the query and this message";

/// One line of the pool's report: who asked for how much, and who holds the most.
fn out_of_memory(text: &str) -> String {
    let asked = text.rsplit("Error: ").next().unwrap_or(text).lines().next().unwrap_or(text);
    let holders: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.trim().split_once("(can spill: ")?;
            let held = rest.split_once("consumed ")?.1.split(',').next()?;
            let name = name.split('#').next().unwrap_or(name);
            (!held.starts_with("0.0 ")).then(|| format!("{name} {held}"))
        })
        .take(3)
        .collect();
    let most = if holders.is_empty() { String::new() } else { format!(" (most is held by {})", holders.join(", ")) };
    format!("the memory limit is reached: {asked}{most}")
}

/// An error of another crate where it travelled through DataFusion.
fn find<E: std::error::Error + 'static>(error: &DataFusionError) -> Option<&E> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<E>() {
            return Some(ours);
        }
        next = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::ArrowError(arrow, _)) => match arrow.as_ref() {
                ArrowError::ExternalError(inner) => Some(inner.as_ref()),
                _ => None,
            },
            _ => error.source(),
        };
    }
    None
}

/// A full disk, a quota, or a limit on the size of files (`ulimit -f`).
fn has_no_room(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}

fn is_disk_full(error: &DataFusionError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| has_no_room(io.kind())) {
            return true;
        }
        next = error.source();
    }
    // Some writers keep only the text of the error.
    error.to_string().contains("No space left on device")
}

/// The first paragraph without the prefixes that say which layer spoke.
fn clean(text: &str) -> String {
    const PREFIXES: [&str; 12] = [
        "Error during planning: ",
        "Execution error: ",
        "External error: ",
        "Arrow error: ",
        "Parquet error: ",
        "Object Store error: ",
        "SQL error: ",
        "Schema error: ",
        "IO error: ",
        "Resources exhausted: ",
        "This feature is not implemented: ",
        "Invalid or Unsupported Configuration: ",
    ];
    let mut rest = text.trim();
    while let Some(shorter) = PREFIXES.iter().find_map(|p| rest.strip_prefix(p)) {
        rest = shorter.trim_start();
    }
    let rest = rest.split("\n\nbacktrace:").next().unwrap_or(rest);
    rest.trim_end_matches('.').to_owned()
}

/// What the parser says, in the project's voice.
fn of_parser(parser: &ParserError) -> String {
    match parser {
        ParserError::TokenizerError(said) | ParserError::ParserError(said) => {
            let mut letters = said.chars();
            letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
        }
        ParserError::RecursionLimitExceeded => "the statement nests too deeply".to_owned(),
    }
}

fn of_schema(schema: &SchemaError, text: String) -> Error {
    match schema {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let wanted = field.name();
            let message = match &field.relation {
                Some(table) => format!("no column `{wanted}` in `{table}`"),
                None => format!("no column `{wanted}`"),
            };
            let names: Vec<&str> = valid_fields.iter().map(|f| f.name()).collect();
            let error = Error::new(ErrorKind::Query, message);
            match suggest::closest(wanted, names.iter().copied()) {
                Some(near) if near.to_lowercase() == wanted.to_lowercase() => error
                    .with_hint(format!("it is written `\"{near}\"`, with quotes: names without quotes are lower case")),
                Some(near) => error.with_hint(format!("did you mean `{near}`?")),
                None if names.is_empty() => error.with_hint("nothing here has columns: is a `FROM` missing?"),
                None => error.with_hint(format!("there are {}", list(&names))),
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::new(ErrorKind::Query, format!("column `{}` is in more than one table", field.name()))
                .with_hint(format!("say which: `table.{}`", field.name()))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new(ErrorKind::Query, format!("the result would have two columns `{name}`: {text}"))
                .with_hint("give one of them another name with `AS`")
        }
    }
}

/// Up to eight names in backticks.
fn list(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(8).map(|n| format!("`{n}`")).collect();
    let more = names.len().saturating_sub(8);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn of_plan(text: String, tables: &[String]) -> Error {
    if let Some(wanted) = missing_table(&text) {
        let error = Error::new(ErrorKind::Query, format!("no table `{wanted}`"));
        let names = tables.iter().map(String::as_str);
        return match suggest::closest(wanted, names.clone()) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None if tables.is_empty() => error.with_hint("name a file in quotes: `FROM 'data/x.parquet'`"),
            None => error.with_hint(format!("there are {}", list(&names.collect::<Vec<_>>()))),
        };
    }
    let mut lines = text.split(" Did you mean ");
    let said = lines.next().unwrap_or_default().trim_end_matches('.').to_owned();
    let error = Error::new(ErrorKind::Query, said);
    match lines.next() {
        Some(hint) => error.with_hint(format!("did you mean {}", hint.replace('\'', "`"))),
        None if types_clash(&error.message) => error.with_hint(TYPES_HINT),
        None => error,
    }
}

/// True for what DataFusion says where values of these types do not go together.
fn types_clash(said: &str) -> bool {
    ["coerce", "common argument type", "common type"].iter().any(|words| said.contains(words))
}

/// `x` of DataFusion's "table 'datafusion.public.x' not found".
fn missing_table(text: &str) -> Option<&str> {
    let full = text.strip_prefix("table '")?.strip_suffix("' not found")?;
    Some(full.strip_prefix("datafusion.public.").unwrap_or(full))
}

fn of_arrow(arrow: &ArrowError, text: String) -> Error {
    match arrow {
        ArrowError::CsvError(_) => {
            Error::new(ErrorKind::Data, format!("bad CSV: {}", text.trim_start_matches("Csv error: ")))
        }
        ArrowError::JsonError(_) => {
            Error::new(ErrorKind::Data, format!("bad JSON: {}", text.trim_start_matches("Json error: ")))
        }
        ArrowError::ParseError(_) => Error::new(
            ErrorKind::Data,
            format!("a value does not parse: {}", text.trim_start_matches("Parser error: ")),
        ),
        ArrowError::CastError(_) => Error::new(
            ErrorKind::Data,
            format!("a value does not convert: {}", text.trim_start_matches("Cast error: ")),
        )
        .with_hint("`TRY_CAST(… AS …)` gives NULL for values that do not convert"),
        ArrowError::DivideByZero => {
            Error::new(ErrorKind::Data, "a division by zero").with_hint("guard the divisor with `NULLIF(…, 0)`")
        }
        ArrowError::ArithmeticOverflow(_) => Error::new(ErrorKind::Data, format!("a number is too large: {text}"))
            .with_hint("cast to a wider type first, e.g. `CAST(… AS DECIMAL(38, 4))`"),
        ArrowError::IoError(_, io) if io.kind() == std::io::ErrorKind::NotFound => Error::new(ErrorKind::Source, text),
        ArrowError::ExternalError(_) | ArrowError::IoError(..) => Error::new(ErrorKind::Data, text),
        _ => Error::new(ErrorKind::Data, text),
    }
}

fn of_store(store: &object_store::Error, text: String) -> Error {
    match store {
        object_store::Error::NotFound { path, .. } => Error::new(ErrorKind::Source, format!("`{path}` does not exist"))
            .with_hint("it was there a moment ago, or the path is wrong: is something else writing there?"),
        object_store::Error::PermissionDenied { path, .. } | object_store::Error::Unauthenticated { path, .. } => {
            Error::new(ErrorKind::Source, format!("no permission for `{path}`: {text}"))
                .with_hint("check the credentials in the environment or in `storage`")
        }
        object_store::Error::Generic { store, .. } if *store != "LocalFileSystem" => {
            Error::new(ErrorKind::Transient, text).with_hint("the object store did not answer as it should; try again")
        }
        _ => Error::new(ErrorKind::Source, text),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::Column;

    use super::*;

    fn check(error: DataFusionError, kind: ErrorKind, message: &str, hint: &str) {
        let tables = ["flights".to_owned(), "planes".to_owned()];
        let error = Error::from_datafusion(error, &tables);
        assert_eq!((error.kind, error.message.as_str()), (kind, message));
        let found = error.hint.as_deref().unwrap_or_default();
        assert!(found.contains(hint), "hint `{found}` lacks `{hint}`");
    }

    #[test]
    fn errors_say_what_and_what_to_do() {
        let plan = |text: &str| DataFusionError::Plan(text.to_owned());
        check(
            plan("table 'datafusion.public.fligths' not found"),
            ErrorKind::Query,
            "no table `fligths`",
            "did you mean `flights`?",
        );
        let missing = SchemaError::FieldNotFound {
            field: Box::new(Column::from_name("dep_dealy")),
            valid_fields: vec![Column::from_name("dep_delay")],
        };
        let missing = DataFusionError::SchemaError(Box::new(missing), Box::new(None));
        check(missing.context("type_coercion"), ErrorKind::Query, "no column `dep_dealy`", "did you mean `dep_delay`?");
        let full = std::io::Error::from_raw_os_error(28);
        let full = Error::from_datafusion(DataFusionError::from(full).context("writing"), &[]);
        assert_eq!(full.kind, ErrorKind::Resources);
        let ours = DataFusionError::External(Box::new(Error::new(ErrorKind::Output, "cannot write").with_hint("x")));
        check(ours.context("outer"), ErrorKind::Output, "cannot write", "x");
        check(
            DataFusionError::ResourcesExhausted("Failed to allocate".to_owned()),
            ErrorKind::Resources,
            "the memory limit is reached: Failed to allocate",
            "--memory",
        );
        check(ArrowError::DivideByZero.into(), ErrorKind::Data, "a division by zero", "NULLIF");
    }
}
