//! Aligned columns of text that fit a width, coloured or not.

use crate::human::{clip, width};

/// How text stands out; every use also says in words what the colour says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tint {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

/// Colours and drawing characters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pen {
    pub(crate) color: bool,
    pub(crate) unicode: bool,
}

impl Pen {
    /// `text` in a tint.
    pub(crate) fn paint(self, text: &str, tint: Tint) -> String {
        let code = match tint {
            Tint::Plain => return text.to_owned(),
            Tint::Bold => "1",
            Tint::Dim => "2",
            Tint::Good => "32",
            Tint::Warn => "33",
            Tint::Bad => "31",
        };
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The first where Unicode can be shown, else the second.
    pub(crate) fn glyph(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }

    /// For "not known" and "none".
    pub(crate) fn dash(self) -> &'static str {
        self.glyph("–", "-")
    }
}

/// One field of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tint: Tint,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tint: Tint::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Cell {
    pub(crate) fn tinted(text: impl Into<String>, tint: Tint) -> Self {
        Self { text: text.into(), tint }
    }
}

/// One column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    header: &'static str,
    right: bool,
    /// Least width where it may be cut; none: never cut.
    cut_to: Option<usize>,
    /// Left out where the table is too wide, largest first; 0: never.
    optional: u8,
}

impl Column {
    /// Left-aligned, cut where space is short (but not below `least`).
    pub(crate) fn text(header: &'static str, least: usize) -> Self {
        Self { header, right: false, cut_to: Some(least), optional: 0 }
    }

    /// Left-aligned, never cut.
    pub(crate) fn word(header: &'static str) -> Self {
        Self { header, right: false, cut_to: None, optional: 0 }
    }

    /// Right-aligned, never cut.
    pub(crate) fn number(header: &'static str) -> Self {
        Self { header, right: true, cut_to: None, optional: 0 }
    }

    /// Left out where the table is too wide; the largest rank goes first.
    pub(crate) fn optional(mut self, rank: u8) -> Self {
        self.optional = rank;
        self
    }
}

const GAP: usize = 2;

/// Rows under columns; empty columns are left out.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row; missing fields are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Lines of at most `limit` columns where that is possible at all, header first.
    pub(crate) fn lines(&self, limit: usize, pen: Pen) -> Vec<String> {
        let wanted = |(i, column): (usize, &Column)| {
            let widest = self.rows.iter().filter_map(|r| r.get(i)).map(|c| width(&c.text)).max().unwrap_or(0);
            if widest == 0 { 0 } else { widest.max(width(column.header)) }
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(wanted).collect();
        fit(&self.columns, &mut widths, limit);
        let header = self.columns.iter().map(|c| Cell::tinted(c.header, Tint::Dim)).collect();
        std::iter::once(&header).chain(&self.rows).map(|row| self.line(row, &widths, pen)).collect()
    }

    fn line(&self, row: &[Cell], widths: &[usize], pen: Pen) -> String {
        let empty = Cell::default();
        let mut out = String::new();
        let mut owed = 0;
        for (i, (column, &wide)) in self.columns.iter().zip(widths).enumerate() {
            if wide == 0 {
                continue;
            }
            let cell = row.get(i).unwrap_or(&empty);
            let text = clip(&cell.text, wide, pen.unicode);
            let pad = wide.saturating_sub(width(&text));
            // Blanks are owed until something follows, so no line ends in them.
            if column.right {
                owed += pad;
            }
            if !text.is_empty() {
                out.extend(std::iter::repeat_n(' ', owed));
                owed = 0;
                out.push_str(&pen.paint(&text, cell.tint));
            }
            owed += GAP + if column.right { 0 } else { pad };
        }
        out
    }
}

/// Makes `widths` fit `limit`: cuts what may be cut, then leaves out what may be left out.
fn fit(columns: &[Column], widths: &mut [usize], limit: usize) {
    loop {
        let shown = widths.iter().filter(|w| **w > 0).count();
        let total = widths.iter().sum::<usize>() + GAP * shown.saturating_sub(1);
        let mut over = total.saturating_sub(limit);
        if over == 0 {
            return;
        }
        let room = |c: &Column, w: usize| c.cut_to.map_or(0, |least| w.saturating_sub(least));
        let cuttable: usize = columns.iter().zip(widths.iter()).map(|(c, w)| room(c, *w)).sum();
        if over <= cuttable {
            // The widest gives first, column by column, until it fits.
            while over > 0 {
                let widest = (0..widths.len()).filter(|&i| room(&columns[i], widths[i]) > 0).max_by_key(|&i| widths[i]);
                let Some(i) = widest else { return };
                widths[i] -= 1;
                over -= 1;
            }
            return;
        }
        let optional = |i: &usize| columns[*i].optional > 0 && widths[*i] > 0;
        match (0..widths.len()).filter(optional).max_by_key(|&i| columns[i].optional) {
            Some(i) => widths[i] = 0,
            None => {
                for (column, wide) in columns.iter().zip(widths.iter_mut()) {
                    *wide -= room(column, *wide);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEN: Pen = Pen { color: false, unicode: true };

    fn sample() -> Table {
        let mut table = Table::new([
            Column::text("name", 6),
            Column::number("rows"),
            Column::word("note").optional(2),
            Column::number("none"),
        ]);
        table.row(["a_rather_long_name".into(), "1,000".into(), "fine".into()]);
        table.row(["b".into(), "5".into()]);
        table
    }

    #[test]
    fn aligned_cut_and_dropped() {
        assert_eq!(
            sample().lines(80, PEN),
            ["name                 rows  note", "a_rather_long_name  1,000  fine", "b                       5"]
        );
        assert_eq!(sample().lines(22, PEN), ["name        rows  note", "a_rather…  1,000  fine", "b              5"]);
        assert_eq!(sample().lines(15, PEN), ["name       rows", "a_rathe…  1,000", "b             5"]);
        assert_eq!(sample().lines(3, PEN), ["name     rows", "a_rat…  1,000", "b           5"]);
    }

    #[test]
    fn colour_does_not_move_anything() {
        let mut table = Table::new([Column::word("a"), Column::word("b")]);
        table.row([Cell::tinted("x", Tint::Bad), "y".into()]);
        let lines = table.lines(80, Pen { color: true, unicode: true });
        assert_eq!(lines[1], "\x1b[31mx\x1b[0m  y");
    }
}
