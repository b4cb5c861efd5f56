//! `[settings]` and `[params]`.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDate;
use toml::de::{DeTable, DeValue};

use super::Params;
use super::walk::{Section, Value, Walk, describe, entries, integer};
use crate::definition::{Param, ParamKind, ParamValue};
use crate::params::{days, micros};
use crate::units;

/// Reads `[settings]`: text by dotted name, tables flattened. Names are the settings table's business; values are tested where the
/// name is one whose form is known here. The second is `timeout`.
pub(crate) fn settings(top: &Section<'_, '_>) -> (BTreeMap<String, String>, Option<Duration>) {
    let mut settings = BTreeMap::new();
    let Some(table) = top.table("settings") else { return (settings, None) };
    flatten(top.walk(), "", table, &mut settings);
    let section = Section::open(top.walk(), "`[settings]`", table, top.key_span("settings"));
    if let Some(DeValue::String(_)) = section.value("memory").map(|v| v.get_ref())
        && let Some(memory) = section.string("memory")
    {
        let share = memory.value.strip_suffix('%').map(|n| n.trim().parse::<f64>());
        let why = match share {
            Some(Ok(n)) if n > 0.0 && n <= 100.0 => None,
            Some(_) => Some("is not a share from 1% to 100%".to_owned()),
            None => units::parse_size(&memory.value).err(),
        };
        if let Some(why) = why {
            section.bad(
                "bad-size",
                "memory",
                format!("`memory` in `[settings]`, `{}`, {why}", memory.value.escape_debug()),
                "give a size like `2GiB`, or a share like `70%`",
            );
        }
    }
    section.integer("slots", 1..=65_536);
    section.integer("batch_size", 1..=(1 << 24));
    section.one_of("learning", &[("on", ()), ("observe", ()), ("off", ())]);
    switch(&section, "adaptive", &[("on", ()), ("off", ()), ("force", ())]);
    for rule in [
        "adaptive_split_skew",
        "adaptive_split_groups",
        "adaptive_split_windows",
        "adaptive_broadcast",
        "adaptive_skip_empty",
        "adaptive_memory",
        "adaptive_share",
        "adaptive_slots",
        "adaptive_push_keys",
        "adaptive_reorder",
        "adaptive_known_keys",
    ] {
        switch(&section, rule, &[("on", ()), ("off", ())]);
    }
    section.integer("adaptive_min_rows", 1..=i64::MAX);
    section.integer("adaptive_min_slots", 1..=65_536);
    section.string("spill_dir");
    if let Some(environment) = section.string("environment") {
        top.walk().check_name("the environment", &environment.value, environment.span);
    }
    let timeout = section.duration("timeout");
    (settings, timeout)
}

/// Checks a word that is `on` or `off`, among others: for a truth value the hint is the word that it means.
fn switch(section: &Section<'_, '_>, key: &str, words: &[(&str, ())]) {
    if let Some(DeValue::Boolean(truth)) = section.value(key).map(|v| v.get_ref()) {
        let word = if *truth { "on" } else { "off" };
        let message = format!("`{key}` in `[settings]` is a word, not a boolean");
        section.bad("wrong-type", key, message, format!("write `{key} = \"{word}\"`"));
    } else {
        section.one_of(key, words);
    }
}

fn flatten(walk: &Walk<'_>, prefix: &str, table: &DeTable<'_>, out: &mut BTreeMap<String, String>) {
    for (key, value) in entries(table) {
        let name = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let text = match value.get_ref() {
            DeValue::Table(table) => {
                flatten(walk, &name, table, out);
                continue;
            }
            DeValue::Array(_) => {
                let message = format!("setting `{name}` must be a string, a number or a boolean, but is an array");
                walk.error("wrong-type", value.span(), message, "give one value");
                continue;
            }
            DeValue::String(_) => match walk.text(&format!("setting `{name}`"), value, false) {
                Some(text) => text.value,
                None => continue,
            },
            DeValue::Boolean(b) => b.to_string(),
            DeValue::Datetime(d) => d.to_string(),
            DeValue::Float(f) => f.as_str().to_owned(),
            other => integer(other).map_or_else(|| other_text(other), |i| i.to_string()),
        };
        if let Some(before) = out.insert(name.clone(), text) {
            walk.error(
                "duplicate-key",
                key.span(),
                format!("setting `{name}` is given twice (also `{before}`)"),
                "remove one",
            );
        }
    }
}

fn other_text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(i) => i.to_string(),
        _ => String::new(),
    }
}

/// Reads `[params]`.
pub(crate) fn params(top: &Section<'_, '_>) -> Params {
    let mut params = Params::new();
    let Some(table) = top.table("params") else { return params };
    let walk = top.walk();
    for (name, value) in entries(table) {
        let text: &str = name.get_ref();
        let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && text.len() <= 64;
        if !plain {
            let message = format!("the name of a parameter cannot be `{}`", text.escape_debug());
            walk.error("bad-name", name.span(), message, "use letters, digits and `_`, so that SQL can say `$name`");
        }
        if let Some(param) = param(walk, text, name.span(), value) {
            params.insert(text.to_owned(), (param, name.span()));
        }
    }
    params
}

fn param(walk: &Walk<'_>, name: &str, span: std::ops::Range<usize>, value: &Value<'_>) -> Option<Param> {
    let DeValue::Table(table) = value.get_ref() else {
        let default = scalar(walk, &format!("parameter `{name}`"), value)?;
        return Some(Param { kind: default.kind(), default: Some(default) });
    };
    let section =
        Section::new(walk, format!("parameter `{name}`"), table, span, &["type", "default", "required", "description"]);
    let kinds = ParamKind::ALL.map(|k| (k.name(), k));
    let kind = section.one_of("type", &kinds);
    let required = section.boolean("required");
    section.string("description");
    let default = match section.value("default") {
        Some(value) => Some(scalar(walk, &format!("the default of parameter `{name}`"), value)?),
        None => None,
    };
    if section.has("type") && kind.is_none() {
        return None;
    }
    let Some(kind) = kind.or(default.as_ref().map(ParamValue::kind)) else {
        section.missing("type", "say `type = \"date\"` (or string, int, float, bool, timestamp), or give a `default`");
        return None;
    };
    let default = match default {
        Some(default) => Some(convert(&section, kind, default)?),
        None => None,
    };
    match (required, &default) {
        (Some(true), Some(_)) => {
            let message = format!("parameter `{name}` is required, but has a default");
            walk.error("conflict", section.key_span("required"), message, "keep one of `required` and `default`");
        }
        (Some(false), None) => {
            let message = format!("parameter `{name}` is not required, but has no default");
            walk.error("conflict", section.key_span("required"), message, "give a `default`");
        }
        _ => {}
    }
    Some(Param { default, kind })
}

/// A default of another type that means the same: `"2013-02-01"` for a date, `1` for a float.
fn convert(section: &Section<'_, '_>, kind: ParamKind, default: ParamValue) -> Option<ParamValue> {
    let converted = match (&default, kind) {
        (value, kind) if value.kind() == kind => Some(default.clone()),
        (ParamValue::Int(i), ParamKind::Float) => Some(ParamValue::Float(*i as f64)),
        (ParamValue::Date(d), ParamKind::Timestamp) => Some(ParamValue::Timestamp(i64::from(*d) * 86_400_000_000)),
        (ParamValue::String(text), ParamKind::Date | ParamKind::Timestamp) => kind.parse(text),
        _ => None,
    };
    if converted.is_none() {
        let message = format!("the default of {} is not of type `{}`", section.title(), kind.name());
        section.bad("bad-param", "default", message, format!("write it like `{}`", kind.example()));
    }
    converted
}

fn scalar(walk: &Walk<'_>, title: &str, value: &Value<'_>) -> Option<ParamValue> {
    let wrong = |message: String, hint: &str| walk.error("bad-param", value.span(), message, hint);
    match value.get_ref() {
        DeValue::String(_) => walk.text(title, value, false).map(|text| ParamValue::String(text.value)),
        DeValue::Boolean(b) => Some(ParamValue::Bool(*b)),
        DeValue::Float(f) => f.as_str().parse().ok().map(ParamValue::Float),
        DeValue::Integer(_) => {
            let found = integer(value.get_ref());
            if found.is_none() {
                wrong(format!("{title} does not fit 64 bits"), "give a smaller number, or a string");
            }
            found.map(ParamValue::Int)
        }
        DeValue::Datetime(when) => {
            let text = when.to_string();
            let found = match (when.date, when.time) {
                (Some(_), None) => {
                    NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok().and_then(days).map(ParamValue::Date)
                }
                (Some(_), Some(_)) => micros(&text).map(ParamValue::Timestamp),
                _ => None,
            };
            if found.is_none() {
                wrong(
                    format!("{title} cannot be `{text}`"),
                    "give a date, `2013-02-01`, or a date with a time, `2013-02-01T10:00:00Z`",
                );
            }
            found
        }
        other => {
            wrong(
                format!("{title} must be a string, a number, a boolean or a date, but is {}", describe(other)),
                "give one value",
            );
            None
        }
    }
}
