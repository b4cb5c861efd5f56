//! Shows diagnostics with `miette`: file, line, a caret, a hint; all of them, then how many there are.

use std::fmt;
use std::path::Path;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use sparklet_pipeline::{Diagnostic, Severity};

use crate::console::Look;

/// Bytes before or after the place on its line, or on a line beside it, that are shown.
const LONG_LINE: usize = 600;

/// Text of all `diagnostics`, worst first in each file's order, with a last line that counts them.
pub fn render(diagnostics: &[Diagnostic], look: Look) -> String {
    let mut theme = match (look.unicode, look.color) {
        (true, true) => GraphicalTheme::unicode(),
        (true, false) => GraphicalTheme::unicode_nocolor(),
        (false, true) => GraphicalTheme { characters: miette::ThemeCharacters::ascii(), ..GraphicalTheme::unicode() },
        (false, false) => GraphicalTheme::none(),
    };
    // Severity is a word, as in every other message, not a sign in front of it.
    theme.characters.error = "error:".to_owned();
    theme.characters.warning = "warning:".to_owned();
    theme.characters.advice = "note:".to_owned();
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(look.width.clamp(40, 160))
        .with_links(false)
        .with_context_lines(1)
        .without_syntax_highlighting();
    let mut text = String::new();
    for diagnostic in diagnostics {
        let shown = Shown::new(diagnostic);
        if handler.render_report(&mut text, &shown).is_err() {
            text.push_str(&diagnostic.to_string());
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if let Some(place) = diagnostic.place.as_ref().filter(|_| shown.source.is_none()) {
            let (line, column) = place.line_column();
            text.push_str(&format!("  at {}:{line}:{column}\n", name(&place.file)));
        }
        if let Some(hint) = &diagnostic.hint {
            let label = if look.color { "\x1b[36mhint:\x1b[0m" } else { "hint:" };
            text.push_str(&format!("  {label} {hint}\n"));
        }
    }
    if let Some(counts) = counts(diagnostics) {
        text.push_str(&counts);
        text.push('\n');
    }
    text
}

/// `2 errors, 1 warning`; nothing where there is neither.
pub fn counts(diagnostics: &[Diagnostic]) -> Option<String> {
    let count = |severity: Severity, word: &str| {
        let n = diagnostics.iter().filter(|d| d.severity == severity).count();
        match n {
            0 => None,
            1 => Some(format!("1 {word}")),
            n => Some(format!("{n} {word}s")),
        }
    };
    let parts: Vec<String> =
        [count(Severity::Error, "error"), count(Severity::Warning, "warning")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// A diagnostic in the shape that miette takes.
struct Shown<'a> {
    diagnostic: &'a Diagnostic,
    /// None where its lines are too long to be shown.
    source: Option<NamedSource<String>>,
    span: std::ops::Range<usize>,
}

impl<'a> Shown<'a> {
    fn new(diagnostic: &'a Diagnostic) -> Self {
        let place = diagnostic.place.as_ref();
        let source = place.filter(|p| is_readable(&p.text, p.span.start));
        let source = source.map(|p| NamedSource::new(name(&p.file), p.text.to_string()));
        let span = place.map(|p| within(&p.text, p.span.clone())).unwrap_or_default();
        Self { diagnostic, source, span }
    }
}

/// True if the lines around byte `at` are short enough for people; generated SQL can be one line of a megabyte.
fn is_readable(text: &str, at: usize) -> bool {
    let at = text.floor_char_boundary(at);
    let before = text[..at].rsplit('\n').take(2).map(str::len);
    let after = text[at..].split('\n').take(2).map(str::len);
    before.chain(after).all(|length| length <= LONG_LINE)
}

fn name(file: &Path) -> String {
    crate::settings::relative(file).display().to_string()
}

/// The span cut to the text and to whole characters, and to its first line where it is long: a step's span may be the whole step.
fn within(text: &str, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (floor(span.start), floor(span.end.max(span.start)));
    let first_line = text[start..end].find('\n').map_or(end, |at| start + at);
    start..first_line
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.diagnostic, f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl miette::Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
            Severity::Note => miette::Severity::Advice,
        })
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|s| s as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.diagnostic.place.as_ref().filter(|_| self.source.is_some())?;
        let label = LabeledSpan::new(place.label.clone(), self.span.start, self.span.len());
        Some(Box::new(std::iter::once(label)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sparklet_pipeline::Place;

    use super::*;

    fn diagnostics() -> Vec<Diagnostic> {
        let text: Arc<str> = "name = \"x\"\n[sources.orders]\npaht = \"data\"\n".into();
        let label = Some("did you mean `path`?".to_owned());
        let place = Some(Place { file: "pipeline.toml".into(), text, span: 28..32, label });
        vec![
            Diagnostic {
                severity: Severity::Error,
                code: "unknown-key",
                message: "unknown key `paht` in `sources.orders`".to_owned(),
                place,
                hint: Some("known keys: `path`, `format`".to_owned()),
            },
            Diagnostic {
                severity: Severity::Warning,
                code: "missing-source",
                message: "source `a` is empty".to_owned(),
                place: None,
                hint: None,
            },
        ]
    }

    #[test]
    fn shows_place_and_hint() {
        insta::assert_snapshot!(render(&diagnostics(), Look::plain(80)), @r#"
              error: unknown key `paht` in `sources.orders`
               ╭─[pipeline.toml:3:1]
             2 │ [sources.orders]
             3 │ paht = "data"
               · ──┬─
               ·   ╰── did you mean `path`?
               ╰────
              hint: known keys: `path`, `format`
              warning: source `a` is empty
            1 error, 1 warning
        "#);
        let ascii = Look { unicode: false, ..Look::plain(80) };
        assert!(render(&diagnostics(), ascii).is_ascii());
        let color = Look { color: true, ..Look::plain(80) };
        assert!(render(&diagnostics(), color).contains("\x1b["));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "a span that ends before it begins is one of the cases")]
    fn spans_out_of_range_do_no_harm() {
        let mut all = diagnostics();
        for span in [0..0, 40..4000, 4000..4001, 46..2, 3..46] {
            if let Some(place) = all[0].place.as_mut() {
                place.span = span;
                place.text = "näme = ü\nx".into();
            }
            assert!(render(&all, Look::plain(80)).contains("paht"));
        }
    }

    #[test]
    fn counting() {
        assert_eq!(counts(&diagnostics()).as_deref(), Some("1 error, 1 warning"));
        assert_eq!(counts(&[]), None);
    }
}
