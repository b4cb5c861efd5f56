//! Splits SQL text into statements.

use std::ops::Range;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

/// What a text holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    /// Byte ranges of the statements, without their `;`.
    pub(super) statements: Vec<Range<usize>>,
    /// True if the last statement has its `;`, or there is nothing after the last `;`.
    pub(super) complete: bool,
}

/// A quote or a comment that does not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// What the tokenizer says.
    pub(super) message: String,
    /// Byte offset.
    pub(super) at: usize,
}

/// Splits `text` at `;` outside of quotes and comments. What is empty but for comments is no statement.
pub(super) fn split(text: &str) -> Result<Script, Unfinished> {
    let lines = Lines::of(text);
    let tokens = Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| Unfinished { message: error.message.clone(), at: lines.offset(text, error.location) })?;
    let mut statements = Vec::new();
    let mut current: Option<Range<usize>> = None;
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => statements.extend(current.take()),
            _ => {
                let (start, end) = (lines.offset(text, token.span.start), lines.offset(text, token.span.end));
                current = Some(current.map_or(start, |c| c.start)..end.max(start));
            }
        }
    }
    let complete = current.is_none();
    statements.extend(current);
    Ok(Script { statements, complete })
}

/// Byte offset of `location` (lines and columns from 1, columns in characters) in `text`.
pub(super) fn offset(text: &str, line: u64, column: u64) -> usize {
    Lines::of(text).offset(text, Location { line, column })
}

struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { starts }
    }

    fn offset(&self, text: &str, location: Location) -> usize {
        let line = usize::try_from(location.line).unwrap_or(usize::MAX).saturating_sub(1);
        let Some(start) = self.starts.get(line).copied() else { return text.len() };
        let column = usize::try_from(location.column).unwrap_or(usize::MAX).saturating_sub(1);
        let rest = &text[start..];
        start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, statements: &[&str], complete: bool) {
        let script = split(text).unwrap();
        let found: Vec<&str> = script.statements.iter().map(|r| &text[r.clone()]).collect();
        assert_eq!((found.as_slice(), script.complete), (statements, complete), "{text}");
    }

    #[test]
    fn statements() {
        check("", &[], true);
        check(" -- nothing\n;;", &[], true);
        check("select 1", &["select 1"], false);
        check(
            "select ';' /* ; */, \";\" -- ;\n; select 'ü;', 2;",
            &["select ';' /* ; */, \";\"", "select 'ü;', 2"],
            true,
        );
        check("select 'ä\nö' as x\n;\n\nselect $day", &["select 'ä\nö' as x", "select $day"], false);
        check("select 1; -- the end", &["select 1"], true);
        check("select E'a\\'b;c';", &["select E'a\\'b;c'"], true);
    }

    #[test]
    fn quotes_that_do_not_end() {
        assert_eq!(split("select\n 'abc").unwrap_err().at, 8);
        assert!(split("select /* abc").is_err());
    }

    #[test]
    fn offsets() {
        let text = "ab\nüxy\n";
        assert_eq!(offset(text, 1, 1), 0);
        assert_eq!(offset(text, 2, 2), 5);
        assert_eq!(offset(text, 9, 1), text.len());
        assert_eq!(offset(text, 2, 99), text.len());
        assert_eq!(offset(text, 0, 0), 0);
    }
}
