//! From an error of planning to what is said of the SQL, at its place.

use std::ops::Range;

use datafusion::common::{DataFusionError, SchemaError, Span};
use sparklet_core::{ErrorKind, Session};

use crate::definition::SqlText;
use crate::diagnostic::Diagnostic;
use crate::{sql_refs, suggest};

/// SQL as it was planned: the text of a definition, maybe with something put before it.
pub(crate) struct Planned<'a> {
    /// The text of the definition.
    pub(crate) text: &'a SqlText,
    /// What was planned.
    pub(crate) sql: &'a str,
    /// Bytes of `sql` before the text of the definition.
    pub(crate) before: usize,
}

/// Everything that an error says; DataFusion collects several where it can.
pub(crate) fn explain(session: &Session, planned: &Planned<'_>, error: DataFusionError) -> Vec<Diagnostic> {
    let mut parts = Vec::new();
    flatten(error, About::default(), &mut parts);
    let mut found: Vec<Diagnostic> =
        parts.into_iter().map(|(about, error)| one(session, planned, about, error)).collect();
    found.dedup();
    found
}

/// What DataFusion adds to an error.
#[derive(Clone, Default)]
struct About {
    span: Option<Span>,
    message: Option<String>,
    help: Option<String>,
}

impl About {
    fn new(diagnostic: &datafusion::common::Diagnostic) -> Self {
        let noted = diagnostic.notes.iter().find_map(|n| n.span);
        Self {
            span: diagnostic.span.or(noted),
            message: Some(diagnostic.message.clone()),
            help: diagnostic.helps.first().map(|h| h.message.clone()),
        }
    }
}

/// Takes collections apart, also below contexts; the innermost place wins.
fn flatten(error: DataFusionError, about: About, parts: &mut Vec<(About, DataFusionError)>) {
    match error {
        DataFusionError::Collection(errors) => errors.into_iter().for_each(|e| flatten(e, about.clone(), parts)),
        DataFusionError::Context(_, inner) => flatten(*inner, about, parts),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let inner_about = About::new(&diagnostic);
            let about = if inner_about.span.is_some() || about.span.is_none() { inner_about } else { about };
            flatten(*inner, about, parts);
        }
        other => parts.push((about, other)),
    }
}

fn one(session: &Session, planned: &Planned<'_>, about: About, error: DataFusionError) -> Diagnostic {
    let (code, word) = match &error {
        DataFusionError::SchemaError(schema, _) => match &**schema {
            SchemaError::FieldNotFound { field, .. } => ("unknown-column", Some(field.name().to_owned())),
            SchemaError::AmbiguousReference { field } => ("ambiguous-column", Some(field.name().to_owned())),
            SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
                ("duplicate-column", Some(name.clone()))
            }
        },
        DataFusionError::Plan(text) => match between(text, "Invalid function '") {
            Some(name) => ("unknown-function", Some(name.to_owned())),
            None => ("sql-plan", None),
        },
        DataFusionError::NotImplemented(_) => ("not-supported", None),
        _ => ("sql-plan", None),
    };
    let function = match &error {
        DataFusionError::Plan(text) => {
            between(text, "Invalid function '").and_then(|name| function_like(session, name))
        }
        _ => None,
    };
    let twice = matches!(&error, DataFusionError::Plan(text) if text.contains("require unique expression names"));
    let grouping = matches!(&error, DataFusionError::Plan(text) if text.contains("GROUP BY"));
    let place = about.span.and_then(|s| in_text(planned, s)).or_else(|| find_word(&planned.text.sql, word.as_deref()?));
    let range = place.unwrap_or_else(|| sql_refs::first_word(&planned.text.sql));
    let explained = session.explain(error);
    let code = if explained.kind == ErrorKind::Internal { "internal" } else { code };
    let (message, hint) = match (code, word, about.message) {
        ("unknown-function", Some(name), _) => (format!("unknown function `{name}`"), function),
        // The error names all that the diagnostic leaves out, and is hard to read for that.
        (_, _, Some(message)) if grouping => (message, about.help.map(|h| begin_lower(&h.replace("ANY_VALUE", "max")))),
        _ if twice => {
            let hint = "give one of them another name with `AS`; names without quotes are lower case";
            (explained.message, Some(hint.to_owned()))
        }
        _ => (explained.message, explained.hint),
    };
    planned.text.error(code, range, begin_lower(&message)).maybe_hint(hint)
}

/// "Did you mean" for the name of a function.
fn function_like(session: &Session, name: &str) -> Option<String> {
    let state = session.context().state();
    let known = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
    let mut known: Vec<&str> = known.chain(state.window_functions().keys()).map(String::as_str).collect();
    // Ties go to the first.
    known.sort_unstable();
    suggest::nearest(name, known).map(|near| format!("did you mean `{near}`?"))
}

/// The same with a small first letter, unless the first word is all capitals.
fn begin_lower(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(std::iter::once(second)).chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// The range in the definition's text of a span of the planned SQL; none where it lies in what was put around it.
fn in_text(planned: &Planned<'_>, span: Span) -> Option<Range<usize>> {
    let start = sql_refs::offset(planned.sql, span.start.line, span.start.column)?.checked_sub(planned.before)?;
    let end = sql_refs::offset(planned.sql, span.end.line, span.end.column)?.saturating_sub(planned.before);
    let length = planned.text.sql.len();
    if start >= length {
        return None;
    }
    Some(start..end.clamp(start, length))
}

/// What stands after `begin` and before the next quote.
fn between<'a>(text: &'a str, begin: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    rest.split('\'').next()
}

/// The first place of a word in SQL, case aside, that is not a part of a longer one.
fn find_word(sql: &str, word: &str) -> Option<Range<usize>> {
    let (lower, word) = (sql.to_ascii_lowercase(), word.to_ascii_lowercase());
    let part = |c: char| c.is_alphanumeric() || c == '_';
    lower
        .match_indices(&word)
        .map(|(at, _)| at..at + word.len())
        .find(|r| !word.is_empty() && !lower[..r.start].ends_with(part) && !lower[r.end..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(find_word("SELECT totals, TOTAL FROM t", "total"), Some(15..20));
        assert_eq!(find_word("SELECT é, total", "total"), Some(11..16));
        assert_eq!(find_word("SELECT a", "b"), None);
        assert_eq!(find_word("SELECT a", ""), None);
    }
}
