//! `--param NAME=VALUE` of ad-hoc SQL: the type is read off the value.

use std::collections::BTreeMap;

use datafusion::common::ScalarValue;
use sparklet_pipeline::definition::ParamKind;

/// Values as SQL sees them: whole number, number, truth value, date, instant, else text; `'…'` is text whatever is in it.
pub(super) fn scalars(params: &BTreeMap<String, String>) -> BTreeMap<String, ScalarValue> {
    params.iter().map(|(name, text)| (name.clone(), scalar(text))).collect()
}

fn scalar(text: &str) -> ScalarValue {
    if text.len() >= 2 && text.starts_with('\'') && text.ends_with('\'') {
        return ScalarValue::Utf8(Some(text[1..text.len() - 1].replace("''", "'")));
    }
    // `inf`, `nan` and `1_000` are words here.
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    let kinds: &[ParamKind] = if numeric {
        &[ParamKind::Int, ParamKind::Float, ParamKind::Date, ParamKind::Timestamp]
    } else {
        &[ParamKind::Bool]
    };
    let parsed = kinds.iter().find_map(|kind| if text.trim() == text { kind.parse(text) } else { None });
    parsed.map_or_else(|| ScalarValue::Utf8(Some(text.to_owned())), |value| value.scalar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_off_values() {
        let utf8 = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
        for (text, want) in [
            ("7", ScalarValue::Int64(Some(7))),
            ("-7.5", ScalarValue::Float64(Some(-7.5))),
            ("true", ScalarValue::Boolean(Some(true))),
            ("2013-02-01", ScalarValue::Date32(Some(15737))),
            ("'7'", utf8("7")),
            ("'it''s'", utf8("it's")),
            ("UA", utf8("UA")),
            ("inf", utf8("inf")),
            ("1-2", utf8("1-2")),
            (" 7", utf8(" 7")),
            ("", utf8("")),
            ("'", utf8("'")),
        ] {
            assert_eq!(scalar(text), want, "{text}");
        }
        assert!(matches!(scalar("2013-02-01T10:00:00Z"), ScalarValue::TimestampMicrosecond(Some(_), Some(_))));
    }
}
