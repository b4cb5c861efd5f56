//! Walks a parsed TOML document: typed look-ups that report what is wrong, with the place, and go on.

use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::substitute::{self, Problem};
use crate::diagnostic::{Diagnostic, Place};
use crate::{suggest, units};

/// A value with its place.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// What the walk needs everywhere: the text, the environment, and where diagnostics go.
pub(crate) struct Walk<'a> {
    /// The definition file, as it is shown.
    pub(crate) file: PathBuf,
    /// Its text.
    pub(crate) text: Arc<str>,
    /// The absolute folder that relative paths start from.
    pub(crate) root: PathBuf,
    /// The environment.
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    /// What was found so far.
    pub(crate) found: RefCell<Vec<Diagnostic>>,
}

/// A string with its place.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// After substitution.
    pub(crate) value: String,
    /// Place of the whole TOML value, quotes included.
    pub(crate) span: Range<usize>,
}

impl Walk<'_> {
    /// A place in the definition.
    pub(crate) fn place(&self, span: Range<usize>) -> Place {
        Place { file: self.file.clone(), text: Arc::clone(&self.text), span, label: None }
    }

    /// Reports something with a place in the definition.
    pub(crate) fn report(&self, diagnostic: Diagnostic, span: Range<usize>) {
        self.found.borrow_mut().push(diagnostic.at(self.place(span)));
    }

    /// Reports an error with a hint.
    pub(crate) fn error(
        &self,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report(Diagnostic::error(code, message).hint(hint), span);
    }

    /// Reports a name that breaks the rules; true if it keeps them.
    pub(crate) fn check_name(&self, what: &str, name: &str, span: Range<usize>) -> bool {
        let Err(why) = units::check_name(name) else { return true };
        let hint = "a name has letters, digits, `_` and `-`, and begins with a letter or `_`";
        self.error("bad-name", span, format!("the name of {what}, `{}`, {why}", name.escape_debug()), hint);
        false
    }

    /// The string in `value` with `${VAR}` replaced from the environment; an unset variable is an error, or a warning where `later`.
    pub(crate) fn text(&self, title: &str, value: &Value<'_>, later: bool) -> Option<Text> {
        let DeValue::String(raw) = value.get_ref() else {
            self.mistyped(title, value, "a string");
            return None;
        };
        let span = value.span();
        let (text, problems) = substitute::substitute(raw, self.env);
        for Problem { source, message, hint } in &problems {
            // The same characters in the file: they are plain unless someone wrote them with escapes.
            let slice = self.text.get(span.clone()).unwrap_or_default();
            let at =
                slice.find(source.as_str()).map_or(span.clone(), |i| span.start + i..span.start + i + source.len());
            let diagnostic = if later {
                Diagnostic::warning("unset-variable", message)
            } else {
                Diagnostic::error("unset-variable", message)
            };
            self.report(diagnostic.hint(hint), at);
        }
        if problems.is_empty() || later { Some(Text { value: text, span }) } else { None }
    }

    fn mistyped(&self, title: &str, value: &Value<'_>, expected: &str) {
        let found = describe(value.get_ref());
        let hint = match (expected, value.get_ref()) {
            ("a string", DeValue::Integer(i)) => format!("write it in quotes: `\"{i}\"`"),
            ("a string", DeValue::Float(f)) => format!("write it in quotes: `\"{f}\"`"),
            ("a string", DeValue::Boolean(b)) => format!("write it in quotes: `\"{b}\"`"),
            ("a boolean", DeValue::String(s)) if ["true", "false"].contains(&&**s) => {
                format!("write it without quotes: `{s}`")
            }
            ("an integer" | "a number", DeValue::String(s)) if s.parse::<f64>().is_ok() => {
                format!("write it without quotes: `{s}`")
            }
            ("a boolean", _) => "write `true` or `false`".to_owned(),
            ("an array" | "an array of strings", DeValue::String(s)) => format!("write it in brackets: `[\"{s}\"]`"),
            ("an array of tables", DeValue::Table(_)) => "write it in double brackets: `[[…]]`".to_owned(),
            _ => format!("expected {expected}"),
        };
        self.error("wrong-type", value.span(), format!("{title} must be {expected}, but is {found}"), hint);
    }
}

/// What a value is, with its article.
pub(crate) fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// An integer, if it fits.
pub(crate) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(i) = value else { return None };
    i64::from_str_radix(i.as_str(), i.radix()).ok()
}

/// An integer or float as a float.
pub(crate) fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(f) => f.as_str().parse().ok(),
        other => integer(other).map(|i| i as f64),
    }
}

/// One table of the definition: a list of known keys, and look-ups.
pub(crate) struct Section<'a, 't> {
    walk: &'a Walk<'a>,
    /// How it is called in messages, e.g. `[sources.orders]`.
    title: String,
    table: &'t DeTable<'t>,
    span: Range<usize>,
    later: bool,
    /// Keys that an unknown key was probably meant to be.
    meant: Vec<&'static str>,
}

impl<'a, 't> Section<'a, 't> {
    /// A table with these keys; others are reported now. `span` is where a missing key is reported.
    pub(crate) fn new(
        walk: &'a Walk<'a>,
        title: impl Into<String>,
        table: &'t DeTable<'t>,
        span: Range<usize>,
        keys: &[&'static str],
    ) -> Self {
        let mut section = Self::open(walk, title, table, span);
        for (key, _) in table {
            let name: &str = key.get_ref();
            if keys.contains(&name) {
                continue;
            }
            let near = suggest::nearest(name, keys.iter().copied());
            section.meant.extend(near);
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("allowed here: {}", suggest::listing(keys.iter().copied())),
            };
            let message = format!("unknown key `{}` in {}", name.escape_debug(), section.title);
            walk.error("unknown-key", key.span(), message, hint);
        }
        section
    }

    /// A table whose keys are not known here.
    pub(crate) fn open(
        walk: &'a Walk<'a>,
        title: impl Into<String>,
        table: &'t DeTable<'t>,
        span: Range<usize>,
    ) -> Self {
        Self { walk, title: title.into(), table, span, later: false, meant: Vec::new() }
    }

    /// The same for a section that takes effect later: unset variables are warnings.
    pub(crate) fn later(mut self) -> Self {
        self.later = true;
        self
    }

    /// The context.
    pub(crate) fn walk(&self) -> &'a Walk<'a> {
        self.walk
    }

    /// Name in messages.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// Place of the section.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of a key.
    pub(crate) fn value(&self, key: &str) -> Option<&'t Value<'t>> {
        self.table.get(key)
    }

    /// True if the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Place of a key, or of the section where it is missing.
    pub(crate) fn key_span(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or_else(|| self.span(), |(k, _)| k.span())
    }

    /// Place of a value, or of the section where it is missing.
    pub(crate) fn value_span(&self, key: &str) -> Range<usize> {
        self.value(key).map_or_else(|| self.span(), Spanned::span)
    }

    /// Reports an error at the value of `key`.
    pub(crate) fn bad(&self, code: &'static str, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.walk.error(code, self.value_span(key), message, hint);
    }

    fn named(&self, key: &str) -> String {
        format!("`{key}` in {}", self.title)
    }

    /// Reports that a key is missing, unless it is there with a misspelt name.
    pub(crate) fn missing(&self, key: &str, hint: impl Into<String>) {
        if self.meant.contains(&key) {
            return;
        }
        self.walk.error("missing-key", self.span(), format!("{} has no `{key}`", self.title), hint);
    }

    /// A string.
    pub(crate) fn string(&self, key: &str) -> Option<Text> {
        self.walk.text(&self.named(key), self.value(key)?, self.later)
    }

    /// A string as it is written: SQL, where nothing is ever pasted into the text.
    pub(crate) fn verbatim(&self, key: &str) -> Option<Text> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(raw) => Some(Text { value: raw.to_string(), span: value.span() }),
            _ => {
                self.walk.mistyped(&self.named(key), value, "a string");
                None
            }
        }
    }

    /// A string that must be there.
    pub(crate) fn required(&self, key: &str, hint: &str) -> Option<Text> {
        if !self.has(key) {
            self.missing(key, hint);
        }
        let text = self.string(key)?;
        if text.value.trim().is_empty() {
            self.bad("empty-value", key, format!("{} is empty", self.named(key)), hint);
            return None;
        }
        Some(text)
    }

    /// A boolean.
    pub(crate) fn boolean(&self, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.walk.mistyped(&self.named(key), value, "a boolean");
        }
        found
    }

    /// An integer within bounds.
    pub(crate) fn integer(&self, key: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let value = self.value(key)?;
        if !value.get_ref().is_integer() {
            self.walk.mistyped(&self.named(key), value, "an integer");
            return None;
        }
        let found = integer(value.get_ref()).filter(|i| range.contains(i));
        if found.is_none() {
            let hint = match (*range.start(), *range.end()) {
                (least, i64::MAX) => format!("{least} or more"),
                (least, most) => format!("from {least} to {most}"),
            };
            self.bad("out-of-range", key, format!("{} is out of range", self.named(key)), hint);
        }
        found
    }

    /// A number within bounds.
    pub(crate) fn number(&self, key: &str, least: f64, most: f64) -> Option<f64> {
        let value = self.value(key)?;
        let Some(found) = number(value.get_ref()) else {
            self.walk.mistyped(&self.named(key), value, "a number");
            return None;
        };
        if !(least..=most).contains(&found) {
            self.bad(
                "out-of-range",
                key,
                format!("{} is out of range", self.named(key)),
                format!("from {least} to {most}"),
            );
            return None;
        }
        Some(found)
    }

    /// A duration.
    pub(crate) fn duration(&self, key: &str) -> Option<Duration> {
        let text = self.string(key)?;
        match units::parse_duration(&text.value) {
            Ok(duration) if duration.is_zero() => {
                self.bad(
                    "bad-duration",
                    key,
                    format!("{} is zero", self.named(key)),
                    "give a duration like `30s`, `10m`, `1h30m`",
                );
                None
            }
            Ok(duration) => Some(duration),
            Err(why) => {
                let message = format!("{}, `{}`, {why}", self.named(key), text.value.escape_debug());
                self.bad("bad-duration", key, message, "give a duration like `30s`, `10m`, `1h30m`");
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn one_of<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string(key)?;
        self.choose(&self.named(key), &text, choices)
    }

    /// The choice that `text` names.
    pub(crate) fn choose<T: Copy>(&self, title: &str, text: &Text, choices: &[(&str, T)]) -> Option<T> {
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text.value) {
            return Some(*choice);
        }
        let names = choices.iter().map(|(name, _)| *name);
        let hint = match suggest::nearest(&text.value, names.clone()) {
            Some(near) => format!("did you mean `{near}`? one of {}", suggest::listing(names)),
            None => format!("one of {}", suggest::listing(names)),
        };
        let message = format!("{title} cannot be `{}`", text.value.escape_debug());
        self.walk.error("bad-value", text.span.clone(), message, hint);
        None
    }

    /// One ASCII character, as a byte.
    pub(crate) fn character(&self, key: &str) -> Option<u8> {
        let text = self.string(key)?;
        match text.value.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Some(*byte),
            _ => {
                let message =
                    format!("{} must be one ASCII character, not `{}`", self.named(key), text.value.escape_debug());
                self.bad("bad-value", key, message, "write one character, e.g. `\";\"` or `\"\\t\"`");
                None
            }
        }
    }

    /// An array of strings.
    pub(crate) fn strings(&self, key: &str) -> Option<Vec<Text>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.walk.mistyped(&self.named(key), value, "an array of strings");
            return None;
        };
        let title = format!("every item of {}", self.named(key));
        Some(items.iter().filter_map(|item| self.walk.text(&title, item, self.later)).collect())
    }

    /// A table.
    pub(crate) fn table(&self, key: &str) -> Option<&'t DeTable<'t>> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.walk.mistyped(&self.named(key), value, "a table");
            return None;
        };
        Some(table)
    }

    /// An array of tables, each with its place.
    pub(crate) fn tables(&self, key: &str) -> Vec<(&'t DeTable<'t>, Range<usize>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.walk.mistyped(&self.named(key), value, "an array of tables");
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::Table(table) => tables.push((table, item.span())),
                _ => self.walk.mistyped(&format!("every item of {}", self.named(key)), item, "a table"),
            }
        }
        tables
    }

    /// A table of names to strings in the order in which they are written, e.g. columns with their types.
    pub(crate) fn string_map(&self, key: &str) -> Vec<(Text, Text)> {
        let Some(table) = self.table(key) else { return Vec::new() };
        entries(table)
            .into_iter()
            .filter_map(|(name, value)| {
                let title = format!("`{}` in `{key}` of {}", name.get_ref(), self.title);
                let text = self.walk.text(&title, value, self.later)?;
                Some((Text { value: name.get_ref().to_string(), span: name.span() }, text))
            })
            .collect()
    }
}

/// The entries of a table in the order in which they are written.
pub(crate) fn entries<'t>(table: &'t DeTable<'t>) -> Vec<(&'t Spanned<toml::de::DeString<'t>>, &'t Value<'t>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}
