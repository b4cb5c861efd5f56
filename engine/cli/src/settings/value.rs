//! Texts of settings and what they mean. Errors are the end of a sentence that began with the text in backticks.

use std::time::Duration;

use sparklet_pipeline::{suggest, units};

use super::table::Kind;

/// A bound of memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Memory {
    /// Bytes.
    Bytes(u64),
    /// Share of the memory that the process may use, above 0 and up to 1.
    Share(f64),
}

/// Checks `text` against `kind`.
pub fn check(kind: Kind, text: &str) -> Result<(), String> {
    match kind {
        Kind::Memory => memory(text).map(drop),
        Kind::Size => optional(text, size).map(drop),
        Kind::Count => count(text).map(drop),
        Kind::Limit => optional(text, count).map(drop),
        Kind::Slots => slots(text).map(drop),
        Kind::Duration => optional(text, duration).map(drop),
        Kind::Path if text.is_empty() => Err("is empty".to_owned()),
        Kind::Path => Ok(()),
        Kind::Name => units::check_name(text),
        Kind::Choice(words) if words.contains(&text) => Ok(()),
        Kind::Choice(words) => {
            let near = suggest::nearest(text, words.iter().copied());
            let guess = near.map(|w| format!(" (did you mean `{w}`?)")).unwrap_or_default();
            Err(format!("is not known{guess}"))
        }
    }
}

/// `none` → nothing, else what `parse` says.
pub fn optional<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.trim().eq_ignore_ascii_case("none") { Ok(None) } else { parse(text).map(Some) }
}

/// Bytes (`2GiB`, `512MB`, `1048576`) or a percentage (`70%`).
pub fn memory(text: &str) -> Result<Memory, String> {
    if let Some(percent) = text.trim().strip_suffix('%') {
        let percent: f64 = percent.trim().parse().map_err(|_| "is not a share".to_owned())?;
        let possible = percent > 0.0 && percent <= 100.0;
        return if possible {
            Ok(Memory::Share(percent / 100.0))
        } else {
            Err("is not between 0 and 100 %".to_owned())
        };
    }
    match size(text)? {
        0 => Err("is no memory at all".to_owned()),
        bytes => Ok(Memory::Bytes(bytes)),
    }
}

/// Bytes with a unit, or without one.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    match text.parse() {
        Ok(bytes) => Ok(bytes),
        Err(_) => units::parse_size(text),
    }
}

/// A whole number from 1.
pub fn count(text: &str) -> Result<u64, String> {
    match text.trim().parse::<u64>() {
        Ok(0) | Err(_) => Err("is not a whole number from 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// `auto` → nothing, else a whole number from 1 to 4096.
pub fn slots(text: &str) -> Result<Option<usize>, String> {
    match text.trim() {
        "auto" => Ok(None),
        number => match count(number)? {
            number @ 1..=4096 => Ok(Some(number as usize)),
            _ => Err("is more than 4096".to_owned()),
        },
    }
}

/// A time above 0.
pub fn duration(text: &str) -> Result<Duration, String> {
    match units::parse_duration(text)? {
        Duration::ZERO => Err("is no time at all".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_bounds() {
        assert_eq!(memory("70%"), Ok(Memory::Share(0.7)));
        assert_eq!(memory(" 12.5 % "), Ok(Memory::Share(0.125)));
        assert_eq!(memory("2GiB"), Ok(Memory::Bytes(2 << 30)));
        assert_eq!(memory("1048576"), Ok(Memory::Bytes(1 << 20)));
        for text in ["0%", "101%", "-5%", "%", "0", "x", "NaN%", "inf%", "", "-1", "99999999999999999999"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_numbers_and_times() {
        assert!(check(Kind::Choice(&["on", "off"]), "on").is_ok());
        let error = check(Kind::Choice(&["observe", "off"]), "obsreve").unwrap_err();
        assert_eq!(error, "is not known (did you mean `observe`?)");
        assert_eq!(slots("auto"), Ok(None));
        assert_eq!(slots("4"), Ok(Some(4)));
        assert!(slots("0").is_err() && slots("100000").is_err() && slots("two").is_err());
        assert_eq!(optional("none", count), Ok(None));
        assert_eq!(optional("7", count), Ok(Some(7)));
        assert!(check(Kind::Name, "prod-1").is_ok());
        assert!(check(Kind::Name, "a/b").is_err());
        assert_eq!(optional("90d", duration), Ok(Some(Duration::from_secs(90 * 86_400))));
        assert!(duration("0s").is_err());
        assert!(check(Kind::Path, "").is_err());
    }
}
