//! Run parameters: from text to the values that are bound to `$name` in SQL.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use datafusion::common::ScalarValue;

use crate::definition::{ParamKind, ParamValue, Pipeline};
use crate::diagnostic::Diagnostic;
use crate::suggest;

impl ParamKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::String, Self::Int, Self::Float, Self::Bool, Self::Date, Self::Timestamp];

    /// Name in a definition.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
        }
    }

    /// An example of a value, for hints.
    pub fn example(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Int => "42",
            Self::Float => "0.5",
            Self::Bool => "true",
            Self::Date => "2013-02-01",
            Self::Timestamp => "2013-02-01T00:00:00Z",
        }
    }

    /// A NULL of this kind: stands for a value that is not known yet.
    pub fn null(self) -> ScalarValue {
        match self {
            Self::String => ScalarValue::Utf8(None),
            Self::Int => ScalarValue::Int64(None),
            Self::Float => ScalarValue::Float64(None),
            Self::Bool => ScalarValue::Boolean(None),
            Self::Date => ScalarValue::Date32(None),
            Self::Timestamp => ScalarValue::TimestampMicrosecond(None, utc()),
        }
    }

    /// Reads a value of this kind; instants without an offset are UTC.
    pub fn parse(self, text: &str) -> Option<ParamValue> {
        Some(match self {
            Self::String => ParamValue::String(text.to_owned()),
            Self::Int => ParamValue::Int(text.trim().parse().ok()?),
            Self::Float => ParamValue::Float(text.trim().parse().ok()?),
            Self::Bool => ParamValue::Bool(text.trim().parse().ok()?),
            Self::Date => ParamValue::Date(days(NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok()?)?),
            Self::Timestamp => ParamValue::Timestamp(micros(text.trim())?),
        })
    }
}

impl ParamValue {
    /// Kind of the value.
    pub fn kind(&self) -> ParamKind {
        match self {
            Self::String(_) => ParamKind::String,
            Self::Int(_) => ParamKind::Int,
            Self::Float(_) => ParamKind::Float,
            Self::Bool(_) => ParamKind::Bool,
            Self::Date(_) => ParamKind::Date,
            Self::Timestamp(_) => ParamKind::Timestamp,
        }
    }

    /// As SQL sees it.
    pub fn scalar(&self) -> ScalarValue {
        match self {
            Self::String(v) => ScalarValue::Utf8(Some(v.clone())),
            Self::Int(v) => ScalarValue::Int64(Some(*v)),
            Self::Float(v) => ScalarValue::Float64(Some(*v)),
            Self::Bool(v) => ScalarValue::Boolean(Some(*v)),
            Self::Date(v) => ScalarValue::Date32(Some(*v)),
            Self::Timestamp(v) => ScalarValue::TimestampMicrosecond(Some(*v), utc()),
        }
    }
}

/// Days since 1970-01-01.
pub(crate) fn days(date: NaiveDate) -> Option<i32> {
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

/// Micro-seconds since 1970-01-01T00:00:00Z of `2013-02-01`, `2013-02-01T10:00:00`, with or without fraction and offset, `T` or a space.
pub(crate) fn micros(text: &str) -> Option<i64> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)) {
        return Some(instant.timestamp_micros());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"] {
        if let Ok(local) = NaiveDateTime::parse_from_str(text, format) {
            return Some(local.and_utc().timestamp_micros());
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
}

fn utc() -> Option<Arc<str>> {
    Some(Arc::from("+00:00"))
}

/// Values of all declared parameters: given ones, else defaults.
///
/// # Errors
/// Given but not declared (with a suggestion), of the wrong type, or required and not given: all at once.
pub fn bind_params(
    pipeline: &Pipeline,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, ScalarValue>, Vec<Diagnostic>> {
    let (mut values, mut errors) = given_params(pipeline, given);
    for (name, param) in &pipeline.params {
        if values.contains_key(name) || given.contains_key(name) {
            continue;
        }
        match &param.default {
            Some(default) => {
                values.insert(name.clone(), default.scalar());
            }
            None => errors.push(
                Diagnostic::error("missing-param", format!("parameter `{name}` has no value"))
                    .hint(format!("give it with `--param {name}={}`", param.kind.example())),
            ),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

/// As [`bind_params`], but what is required and not given becomes a NULL of its type: enough to plan, not to run.
///
/// # Errors
/// Given but not declared, or of the wrong type.
pub fn plan_params(
    pipeline: &Pipeline,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, ScalarValue>, Vec<Diagnostic>> {
    let (mut values, errors) = given_params(pipeline, given);
    for (name, param) in &pipeline.params {
        let value = || param.default.as_ref().map_or_else(|| param.kind.null(), ParamValue::scalar);
        values.entry(name.clone()).or_insert_with(value);
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

fn given_params(
    pipeline: &Pipeline,
    given: &BTreeMap<String, String>,
) -> (BTreeMap<String, ScalarValue>, Vec<Diagnostic>) {
    let (mut values, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, text) in given {
        let Some(param) = pipeline.params.get(name) else {
            let hint = suggest::hint(name, "declared parameters", pipeline.params.keys().map(String::as_str))
                .unwrap_or_else(|| format!("the pipeline declares none; add `{name} = …` to `[params]`"));
            errors.push(Diagnostic::error("unknown-param", format!("unknown parameter `{name}`")).hint(hint));
            continue;
        };
        match param.kind.parse(text) {
            Some(value) => {
                values.insert(name.clone(), value.scalar());
            }
            None => errors.push(
                Diagnostic::error("bad-param", format!("parameter `{name}` is a {}, not `{text}`", param.kind.name()))
                    .hint(format!("write it like `--param {name}={}`", param.kind.example())),
            ),
        }
    }
    (values, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_their_texts() {
        for (kind, text, expected) in [
            (ParamKind::String, " x ", Some(ParamValue::String(" x ".to_owned()))),
            (ParamKind::Int, "-7", Some(ParamValue::Int(-7))),
            (ParamKind::Int, "7.0", None),
            (ParamKind::Float, "1e3", Some(ParamValue::Float(1000.0))),
            (ParamKind::Bool, "true", Some(ParamValue::Bool(true))),
            (ParamKind::Bool, "yes", None),
            (ParamKind::Date, "1970-01-11", Some(ParamValue::Date(10))),
            (ParamKind::Date, "2013-02-30", None),
            (ParamKind::Date, "1969-12-31", Some(ParamValue::Date(-1))),
            (ParamKind::Timestamp, "1970-01-01T00:00:01Z", Some(ParamValue::Timestamp(1_000_000))),
            (ParamKind::Timestamp, "1970-01-01 01:00:00.5+01:00", Some(ParamValue::Timestamp(500_000))),
            (ParamKind::Timestamp, "1970-01-02", Some(ParamValue::Timestamp(86_400_000_000))),
            (ParamKind::Timestamp, "soon", None),
        ] {
            assert_eq!(kind.parse(text), expected, "{kind:?} {text}");
        }
        for kind in ParamKind::ALL {
            let value = kind.parse(kind.example()).unwrap();
            assert_eq!(value.kind(), kind);
            assert_eq!(value.scalar().data_type(), kind.null().data_type());
        }
    }
}
