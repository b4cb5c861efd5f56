//! Durations, sizes and names as people write them in a definition: `1h30m`, `2GiB`, `daily_orders`.

use std::time::Duration;

/// Longest duration that is taken: 100 years.
const MAX_DURATION: u64 = 100 * 365 * 24 * 3600;

/// Units of durations with their length in milli-seconds, longest first.
const DURATION_UNITS: [(&str, u64); 6] =
    [("w", 7 * 86_400_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Units of sizes with their bytes; the first of each value is the one that [`format_size`] writes.
const SIZE_UNITS: [(&str, u64); 13] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("B", 1),
];

/// Reads a duration: one or more `<number><unit>` in falling order of units (`w`, `d`, `h`, `m`, `s`, `ms`), e.g. `1h30m`.
///
/// # Errors
/// What is wrong, as the end of a sentence that began with the text in backticks.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    let (mut rest, mut total, mut last) = (text, 0u64, usize::MAX);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, tail) = tail.split_at(letters);
        if number.is_empty() {
            return Err("is not a duration".to_owned());
        }
        if unit.is_empty() {
            return Err(if tail.is_empty() {
                format!("has no unit after `{number}`")
            } else {
                "is not a duration".to_owned()
            });
        }
        let Some(index) = DURATION_UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(format!("has the unknown unit `{unit}`"));
        };
        if last != usize::MAX && index <= last {
            return Err("has its units out of order".to_owned());
        }
        last = index;
        let value = number.parse::<u64>().ok().and_then(|n| n.checked_mul(DURATION_UNITS[index].1));
        total = value.and_then(|v| total.checked_add(v)).ok_or_else(|| "is too long".to_owned())?;
        rest = tail;
    }
    if total > MAX_DURATION * 1000 {
        return Err("is longer than a hundred years".to_owned());
    }
    Ok(Duration::from_millis(total))
}

/// Writes a duration so that [`parse_duration`] reads it back (milli-seconds and longer).
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, length) in DURATION_UNITS {
        if rest >= length {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    text
}

/// Reads a size in bytes: a whole or decimal number and a unit (`B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`; `K`, `M`, `G`, `T`
/// are powers of 1024); case does not matter.
///
/// # Errors
/// What is wrong, as the end of a sentence that began with the text in backticks.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    if number.is_empty() {
        return Err("is not a size".to_owned());
    }
    if unit.is_empty() {
        return Err(format!("has no unit after `{number}`"));
    }
    let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
        return Err(format!("has the unknown unit `{unit}`"));
    };
    let too_large = || "is too large".to_owned();
    if number.contains('.') {
        let value = number.parse::<f64>().map_err(|_| "is not a size".to_owned())? * *bytes as f64;
        // 2^63 is exact as f64: every value below it fits u64 without a change.
        if value < 9_223_372_036_854_775_808.0 { Ok(value.round() as u64) } else { Err(too_large()) }
    } else {
        number.parse::<u64>().ok().and_then(|n| n.checked_mul(*bytes)).ok_or_else(too_large)
    }
}

/// Writes a size so that [`parse_size`] reads the same back: the largest binary unit that divides it.
pub fn format_size(bytes: u64) -> String {
    for (unit, size) in &SIZE_UNITS[..4] {
        if bytes >= *size && bytes.is_multiple_of(*size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

/// Tests a name of a pipeline, source, step or check: a letter or `_`, then letters, digits, `_` and `-`, at most 64, all ASCII.
///
/// # Errors
/// What is wrong, as the end of a sentence that began with the name in backticks.
pub fn check_name(name: &str) -> Result<(), String> {
    let mut chars = name.chars();
    match chars.next() {
        None => return Err("is empty".to_owned()),
        Some(c) if c.is_ascii_alphabetic() || c == '_' => {}
        Some(c) => return Err(format!("begins with {}", show(c))),
    }
    if let Some(c) = chars.find(|c| !(c.is_ascii_alphanumeric() || *c == '_' || *c == '-')) {
        return Err(format!("contains {}", show(c)));
    }
    if name.len() > 64 {
        return Err("is longer than 64 characters".to_owned());
    }
    Ok(())
}

fn show(c: char) -> String {
    match c {
        ' ' => "a space".to_owned(),
        c if c.is_control() => format!("the control character U+{:04X}", c as u32),
        c => format!("`{c}`"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1d", 86_400_000),
            (" 2w ", 1_209_600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, says) in [
            ("", "is empty"),
            ("30", "has no unit after `30`"),
            ("30 s", "is not a duration"),
            ("abc", "is not a duration"),
            ("5x", "has the unknown unit `x`"),
            ("30m1h", "has its units out of order"),
            ("1h1h", "has its units out of order"),
            ("99999999999999999999s", "is too long"),
            ("5300w", "is longer than a hundred years"),
            ("-1s", "is not a duration"),
        ] {
            assert_eq!(parse_duration(text), Err(says.to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("2GiB", 2 << 30),
            ("1.5GiB", 3 << 29),
            ("64 MiB", 64 << 20),
            ("10MB", 10_000_000),
            ("1k", 1024),
            ("1kb", 1000),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for (text, says) in [
            ("", "is not a size"),
            ("GiB", "is not a size"),
            ("12", "has no unit after `12`"),
            ("1.2.3GB", "is not a size"),
            ("5XB", "has the unknown unit `XB`"),
            ("99999999999TiB", "is too large"),
            ("99999999999.5TiB", "is too large"),
            ("-1GB", "is not a size"),
        ] {
            assert_eq!(parse_size(text), Err(says.to_owned()), "{text}");
        }
    }

    #[test]
    fn names() {
        for good in ["a", "_x", "daily_orders", "by-customer", "A1"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("", "is empty"),
            ("1a", "begins with `1`"),
            ("a b", "contains a space"),
            ("a/b", "contains `/`"),
            ("..", "begins with `.`"),
            ("a\n", "contains the control character U+000A"),
            ("é", "begins with `é`"),
        ] {
            assert_eq!(check_name(bad), Err(says.to_owned()), "{bad}");
        }
        assert_eq!(check_name(&"a".repeat(65)), Err("is longer than 64 characters".to_owned()));
    }

    proptest! {
        #[test]
        fn durations_read_back(millis in 0u64..MAX_DURATION * 1000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn sizes_read_back(bytes in any::<u64>(), shift in 0u32..64) {
            let bytes = bytes >> shift << (shift / 2);
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_answered(text in ".*") {
            let _ = (parse_duration(&text), parse_size(&text), check_name(&text));
        }

        #[test]
        fn names_are_safe_as_file_names(name in "[ -~]{0,12}") {
            if check_name(&name).is_ok() {
                prop_assert_eq!(std::path::Path::new(&name).components().count(), 1);
                prop_assert!(!name.starts_with('.') && !name.contains('/'));
            }
        }
    }
}
