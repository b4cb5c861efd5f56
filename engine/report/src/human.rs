//! Numbers, times and sizes for people, and text that is safe to print.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `336,776`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// As [`count`] up to 9,999,999, then `12.3 M`: at most nine characters.
pub(crate) fn count_short(n: u64) -> String {
    if n < 10_000_000 { count(n) } else { scaled(n as f64, 1000.0, &["", " k", " M", " G", " T", " P", " E"]) }
}

/// `1 row`, `2 rows`.
pub fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `12 µs`, `1.23 ms`, `2.31 s`, `3 min 05 s`, `2 h 03 min`, `4 d 02 h`. `us`: micro-seconds.
pub fn duration(us: u64, unicode: bool) -> String {
    let seconds = us.saturating_add(500_000) / 1_000_000;
    match us {
        0..1_000 => format!("{us} {}", if unicode { "µs" } else { "us" }),
        // The upper bounds are where rounding to three digits would reach the next unit.
        1_000..999_500 => format!("{} ms", three_digits(us as f64 / 1e3)),
        999_500..59_950_000 => format!("{} s", three_digits(us as f64 / 1e6)),
        _ if seconds < 3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `512 B`, `1.50 KiB`, `12.3 MiB`.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        format!("{n} B")
    } else {
        scaled(n as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
    }
}

/// `12 %`, `<1 %`, `0 %`; `share` of one.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if !percent.is_finite() {
        "?".to_owned()
    } else if percent > 0.0 && percent < 0.5 {
        "<1 %".to_owned()
    } else {
        format!("{percent:.0} %")
    }
}

/// A share as written in a definition: `0.1 %`, where [`percent`] says `<1 %`.
pub(crate) fn exact_percent(share: f64) -> String {
    let text = format!("{:.3}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `3.4×`, `34×`, `12,000×`.
pub(crate) fn factor(f: f64, unicode: bool) -> String {
    format!("{}{}", factor_number(f), if unicode { "×" } else { "x" })
}

/// `1.0`, `3.4`, `34`, `12,000`, `12.3 M`.
pub(crate) fn factor_number(f: f64) -> String {
    // `as` saturates and sends NaN to zero: no input can go wrong here.
    if f < 9.95 { format!("{f:.1}") } else { count_short(f.round() as u64) }
}

/// Three significant digits at least, never an exponent.
fn three_digits(value: f64) -> String {
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$}")
}

fn scaled(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 0.9995 of the base would be shown as the base itself.
    while value >= base * 0.9995 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", three_digits(value), units.get(unit).copied().unwrap_or_default())
}

/// Columns that `text` takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// One line without anything that a terminal would obey: line breaks become blanks, control and direction characters are spelled out.
///
/// Names, paths and messages come from files that a stranger may have written.
pub fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                out.extend(c.escape_unicode())
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// `text` cut to `limit` columns, with an ellipsis where something was cut.
pub(crate) fn clip(text: &str, limit: usize, unicode: bool) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    let mark = if unicode { "…" } else { "..." };
    let mark = if width(mark) <= limit { mark } else { "" };
    let room = limit - width(mark);
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > room {
            break;
        }
        used += wide;
        out.push(c);
    }
    out.push_str(mark);
    out
}

/// `text` broken at blanks into lines of at most `limit` columns; a longer word stands on a line of its own and is
/// not cut: it is mostly a path, which a reader copies.
pub(crate) fn wrap(text: &str, limit: usize) -> Vec<String> {
    let limit = limit.max(8);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        if used > 0 && used + 1 + width(word) > limit {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        line.push_str(word);
        used += width(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Whole units: nobody needs the milli-seconds of a time ago.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => plural(seconds / 86_400, "day", "days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (n, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (336_776, "336,776"), (1_234_567_890, "1,234,567,890")]
        {
            assert_eq!(count(n), text);
        }
        for (n, text) in
            [(9_999_999, "9,999,999"), (10_000_000, "10.0 M"), (999_960_000, "1.00 G"), (u64::MAX, "18.4 E")]
        {
            assert_eq!(count_short(n), text);
            assert!(width(text) <= 9);
        }
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (f, text) in [
            (1.0, "1.0×"),
            (9.94, "9.9×"),
            (9.96, "10×"),
            (33.7, "34×"),
            (12_000.0, "12,000×"),
            (f64::INFINITY, "18.4 E×"),
        ] {
            assert_eq!(factor(f, true), text);
        }
        for (s, text) in [(0.0, "0 %"), (0.001, "0.1 %"), (0.2, "20 %"), (1.0, "100 %"), (0.12345, "12.345 %")] {
            assert_eq!(exact_percent(s), text);
        }
        for (s, text) in [(0.0, "0 %"), (0.001, "<1 %"), (0.12, "12 %"), (1.0, "100 %"), (f64::NAN, "?")] {
            assert_eq!(percent(s), text);
        }
    }

    #[test]
    fn times() {
        for (us, text) in [
            (0, "0 µs"),
            (999, "999 µs"),
            (1_000, "1.00 ms"),
            (9_999, "10.0 ms"),
            (123_456, "123 ms"),
            (999_499, "999 ms"),
            (999_500, "1.00 s"),
            (2_312_000, "2.31 s"),
            (59_949_000, "59.9 s"),
            (59_950_000, "1 min 00 s"),
            (185_000_000, "3 min 05 s"),
            (3_599_600_000, "1 h 00 min"),
            (7_380_000_000, "2 h 03 min"),
            (353_000_000_000, "4 d 02 h"),
        ] {
            assert_eq!(duration(us, true), text);
        }
        assert_eq!(duration(5, false), "5 us");
        assert!(!duration(u64::MAX, true).is_empty());
    }

    #[test]
    fn hostile_text_is_harmless() {
        assert_eq!(safe("a\x1b[31mb\nc\u{202e}d\u{7}"), "a\\u{1b}[31mb c\\u{202e}d\\u{7}");
        assert_eq!(clip("日本語テキスト", 7, true), "日本語…");
        assert_eq!(clip("abcdef", 2, false), "ab");
        assert_eq!(clip("abcdef", 5, false), "ab...");
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("a 0123456789 b", 8), ["a", "0123456789", "b"]);
        assert!(wrap("", 8).is_empty());
    }
}
