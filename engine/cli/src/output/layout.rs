//! Aligned columns of text, safe to show: what a value holds cannot move the cursor.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::console::Look;

/// Narrowest that a column is cut to.
const MIN_WIDTH: usize = 8;

/// Widths and alignment of columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    widths: Vec<usize>,
    right: Vec<bool>,
    /// Cells are cut to the widths.
    cut: bool,
    look: Look,
}

impl Layout {
    /// Fits `rows` under `header`; on a terminal the widest columns are cut until a line fits.
    pub(super) fn fit(header: &[String], right: Vec<bool>, rows: &[Vec<String>], look: Look) -> Self {
        let mut widths: Vec<usize> = header.iter().map(|name| name.width()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let room = look.width.saturating_sub(3 * widths.len().saturating_sub(1));
        while look.terminal && widths.iter().sum::<usize>() > room {
            let over = widths.iter().sum::<usize>() - room;
            let Some(widest) = widths.iter_mut().max_by_key(|w| **w).filter(|w| **w > MIN_WIDTH) else { break };
            // Down to what is needed, in steps so that two wide columns share the loss.
            *widest = (*widest - over.min(*widest / 8 + 1)).max(MIN_WIDTH);
        }
        Self { widths, right, cut: look.terminal, look }
    }

    /// Writes the header and a rule.
    pub(super) fn header(&self, out: &mut dyn Write, header: &[String]) -> io::Result<()> {
        let bold = if self.look.color { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.line(out, header, bold)?;
        let (dash, cross) = if self.look.unicode { ("─", "─┼─") } else { ("-", "-+-") };
        let rule: Vec<String> = self.widths.iter().map(|w| dash.repeat(*w)).collect();
        writeln!(out, "{}", rule.join(cross))
    }

    /// Writes one row.
    pub(super) fn row(&self, out: &mut dyn Write, cells: &[String]) -> io::Result<()> {
        self.line(out, cells, ("", ""))
    }

    fn line(&self, out: &mut dyn Write, cells: &[String], style: (&str, &str)) -> io::Result<()> {
        let bar = if self.look.unicode { " │ " } else { " | " };
        let mut line = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let width = self.widths.get(i).copied().unwrap_or_default();
            let text = if self.cut { self.shorten(cell, width) } else { cell.clone() };
            let pad = " ".repeat(width.saturating_sub(text.width()));
            let (before, after) =
                if self.right.get(i).copied().unwrap_or_default() { (&*pad, "") } else { ("", &*pad) };
            if i > 0 {
                line.push_str(bar);
            }
            line.extend([before, style.0, &text, style.1, after]);
        }
        writeln!(out, "{}", line.trim_end())
    }

    fn shorten(&self, text: &str, width: usize) -> String {
        if text.width() <= width {
            return text.to_owned();
        }
        let mark = if self.look.unicode { "…" } else { "~" };
        let mut short = String::new();
        let mut used = mark.width();
        for c in text.chars() {
            used += c.width().unwrap_or(0);
            if used > width {
                break;
            }
            short.push(c);
        }
        short + mark
    }
}

/// The text with control characters written out (`\n`, `\u{1b}`).
pub(super) fn harmless(text: &str) -> String {
    // Bidirectional overrides reorder what stands beside them.
    let harmful = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(harmful) {
        return text.to_owned();
    }
    text.chars().flat_map(|c| if harmful(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rows: &[[&str; 2]], look: Look) -> String {
        let text = |row: &[&str; 2]| row.iter().map(|c| (*c).to_owned()).collect::<Vec<String>>();
        let header = text(&["name", "n"]);
        let rows: Vec<_> = rows.iter().map(text).collect();
        let layout = Layout::fit(&header, vec![false, true], &rows, look);
        let mut out = Vec::new();
        layout.header(&mut out, &header).unwrap();
        rows.iter().for_each(|row| layout.row(&mut out, row).unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned() {
        let text = shown(&[["ü", "1"], ["日本", "1000"]], Look::plain(80));
        assert_eq!(text, "name │    n\n─────┼─────\nü    │    1\n日本 │ 1000\n");
        let ascii = Look { unicode: false, ..Look::plain(80) };
        assert_eq!(shown(&[["a", "1"]], ascii), "name | n\n-----+--\na    | 1\n");
    }

    #[test]
    fn a_terminal_line_is_not_longer_than_the_terminal() {
        let wide = "x".repeat(300);
        let look = Look { terminal: true, ..Look::plain(40) };
        let text = shown(&[[&wide, "12"]], look);
        assert!(text.lines().all(|line| line.width() <= 40), "{text}");
        assert!(text.contains('…'));
        assert!(shown(&[[&wide, "12"]], Look::plain(40)).contains(&wide), "files get everything");
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(harmless("a\x1b[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(harmless("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(harmless("plain ü"), "plain ü");
    }
}
