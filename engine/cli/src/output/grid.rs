//! Small tables that sparklet makes itself: the list of runs, settings, what is in the history.

use std::io::Write;

use serde_json::{Map, Value};

use super::Format;
use super::layout::{Layout, harmless};
use crate::console::Look;
use crate::failure::Result;

/// A table: names of columns and rows of cells.
#[derive(Debug, Default)]
pub struct Grid {
    columns: Vec<(&'static str, bool)>,
    rows: Vec<Vec<Cell>>,
}

/// A cell: for people and for programs.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    value: Value,
}

impl Cell {
    /// The same for both.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { value: Value::String(text.clone()), text }
    }

    /// `text` for people, `value` for programs.
    pub fn new(text: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { text: text.into(), value: value.into() }
    }
}

impl Grid {
    /// An empty table with these columns; `true` aligns to the right.
    pub fn new(columns: &[(&'static str, bool)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has one cell for each column.
    pub fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes it.
    pub fn write(&self, out: &mut dyn Write, format: Format, look: Look) -> Result {
        match format {
            Format::Table => {
                let header: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
                let rows: Vec<Vec<String>> =
                    self.rows.iter().map(|row| row.iter().map(|c| harmless(&c.text)).collect()).collect();
                let right = self.columns.iter().map(|(_, right)| *right).collect();
                let layout = Layout::fit(&header, right, &rows, look);
                layout.header(out, &header)?;
                rows.iter().try_for_each(|row| layout.row(out, row))?;
            }
            Format::Json => {
                let all: Vec<Value> = self.rows.iter().map(|row| self.object(row)).collect();
                serde_json::to_writer_pretty(&mut *out, &all)?;
                writeln!(out)?;
            }
            Format::Ndjson => {
                for row in &self.rows {
                    serde_json::to_writer(&mut *out, &self.object(row))?;
                    writeln!(out)?;
                }
            }
            Format::Csv => {
                let names: Vec<String> = self.columns.iter().map(|(name, _)| quoted(name)).collect();
                writeln!(out, "{}", names.join(","))?;
                for row in &self.rows {
                    let cells: Vec<String> = row.iter().map(|c| csv(&c.value)).collect();
                    writeln!(out, "{}", cells.join(","))?;
                }
            }
        }
        Ok(())
    }

    fn object(&self, row: &[Cell]) -> Value {
        let pairs = self.columns.iter().zip(row).map(|((name, _), cell)| ((*name).to_owned(), cell.value.clone()));
        Value::Object(pairs.collect::<Map<_, _>>())
    }
}

fn csv(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> String {
        let mut grid = Grid::new(&[("name", false), ("rows", true)]);
        grid.push(vec![Cell::text("a, \"b\""), Cell::new("1,000", 1000)]);
        grid.push(vec![Cell::text("c"), Cell::new("-", Value::Null)]);
        let mut out = Vec::new();
        grid.write(&mut out, format, Look::plain(80)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn formats() {
        insta::assert_snapshot!(written(Format::Table), @r#"
            name   │  rows
            ───────┼──────
            a, "b" │ 1,000
            c      │     -
        "#);
        insta::assert_snapshot!(written(Format::Csv), @r#"
            name,rows
            "a, ""b""",1000
            c,
        "#);
        insta::assert_snapshot!(written(Format::Ndjson), @r#"
            {"name":"a, \"b\"","rows":1000}
            {"name":"c","rows":null}
        "#);
        let json: Value = serde_json::from_str(&written(Format::Json)).unwrap();
        assert_eq!(json[0]["rows"], 1000);
        assert_eq!(json[1]["rows"], Value::Null);
    }
}
