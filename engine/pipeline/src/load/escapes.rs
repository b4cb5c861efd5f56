//! From an offset in a decoded TOML string to the offset in its source.

/// The offset in `source` (what follows the opening quotes of a basic string) of the character at `offset` of the decoded `text`.
/// None where the two do not go together.
pub(crate) fn source_offset(source: &str, text: &str, offset: usize) -> Option<usize> {
    let (mut at, mut done) = (0, 0);
    loop {
        at += skipped(&source[at..]);
        if done >= offset {
            return Some(at);
        }
        let expected = text.get(done..)?.chars().next()?;
        let (found, length) = decode(source.get(at..)?)?;
        if found != expected {
            return None;
        }
        at += length;
        done += expected.len_utf8();
    }
}

/// Bytes of a line-ending backslash with the white space after it: they stand for nothing.
fn skipped(source: &str) -> usize {
    let Some(rest) = source.strip_prefix('\\') else { return 0 };
    let blank = rest.trim_start_matches([' ', '\t']);
    if !blank.starts_with(['\n', '\r']) {
        return 0;
    }
    source.len() - blank.trim_start_matches([' ', '\t', '\n', '\r']).len()
}

/// The next character and how many bytes of the source stand for it.
fn decode(source: &str) -> Option<(char, usize)> {
    let mut chars = source.chars();
    let first = chars.next()?;
    if source.starts_with("\r\n") {
        return Some(('\n', 2));
    }
    if first != '\\' {
        return Some((first, first.len_utf8()));
    }
    let escape = chars.next()?;
    let plain = match escape {
        'b' => '\u{8}',
        't' => '\t',
        'n' => '\n',
        'f' => '\u{c}',
        'r' => '\r',
        'e' => '\u{1b}',
        '"' => '"',
        '\\' => '\\',
        'x' | 'u' | 'U' => {
            let digits = match escape {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            let code = u32::from_str_radix(source.get(2..2 + digits)?, 16).ok()?;
            return Some((char::from_u32(code)?, 2 + digits));
        }
        _ => return None,
    };
    Some((plain, 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes() {
        for (source, text, offset, expected) in [
            ("a\\nb\"", "a\nb", 2, Some(3)),
            ("a\\\n   b\"", "ab", 1, Some(6)),
            ("\\u00e9x\"", "éx", 2, Some(6)),
            ("a\r\nb\"", "a\nb", 2, Some(3)),
            ("\\\\x\"", "\\x", 1, Some(2)),
            ("abc\"", "xyz", 2, None),
        ] {
            assert_eq!(source_offset(source, text, offset), expected, "{source}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(source in ".{0,20}", text in ".{0,20}", offset in 0usize..30) {
            let _ = source_offset(&source, &text, offset);
        }

        #[test]
        fn escaped_text_maps_to_its_source(text in "[a-c\"\\\\\n\té]{1,20}", at in 0usize..20) {
            let starts: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
            let at = starts[at % starts.len()];
            let escape = |t: &str| t.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t");
            prop_assert_eq!(source_offset(&(escape(&text) + "\""), &text, at), Some(escape(&text[..at]).len()));
        }
    }
}
