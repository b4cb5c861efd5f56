//! Rows of a query, written as they come.

use std::io::{self, Write};

use arrow::csv;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::json;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use sparklet_report::human;

use super::Format;
use super::layout::{Layout, harmless};
use crate::console::Look;
use crate::failure::{Failure, Result};

/// Rows that the widths of a table's columns are taken from; later rows may be wider, and are shown whole.
const FITTED_ROWS: usize = 1000;

/// Writes batches in one format. Memory does not grow with the number of rows.
pub struct RowWriter<'a> {
    out: &'a mut dyn Write,
    look: Look,
    schema: SchemaRef,
    state: State,
    rows: u64,
    hidden: u64,
}

enum State {
    /// The first rows of a table, until the widths are known; then its layout.
    Table {
        limit: Option<u64>,
        first: Vec<Vec<String>>,
        layout: Option<Layout>,
    },
    Json(Option<json::ArrayWriter<Vec<u8>>>),
    Ndjson,
    Csv {
        header: bool,
    },
}

/// How many rows there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Rows of the result.
    pub rows: u64,
    /// Rows that a table left out because of its limit.
    pub hidden: u64,
}

impl<'a> RowWriter<'a> {
    /// A writer for rows of `schema`; `limit` bounds the rows that a table shows (not those of other formats).
    pub fn new(out: &'a mut dyn Write, look: Look, format: Format, schema: SchemaRef, limit: Option<u64>) -> Self {
        let state = match format {
            Format::Table => State::Table { limit, first: Vec::new(), layout: None },
            Format::Json => {
                let builder = json::WriterBuilder::new().with_explicit_nulls(true);
                State::Json(Some(builder.build::<_, json::writer::JsonArray>(Vec::new())))
            }
            Format::Ndjson => State::Ndjson,
            Format::Csv => State::Csv { header: true },
        };
        Self { out, look, schema, state, rows: 0, hidden: 0 }
    }

    /// Writes the rows of a batch.
    pub fn write(&mut self, batch: &RecordBatch) -> Result {
        let before = self.rows;
        self.rows += batch.num_rows() as u64;
        match &mut self.state {
            State::Table { limit, first, layout } => {
                let show =
                    limit.map_or(batch.num_rows() as u64, |l| l.saturating_sub(before)).min(batch.num_rows() as u64);
                self.hidden += batch.num_rows() as u64 - show;
                let batch = batch.slice(0, show as usize);
                let mut rows = texts(&batch)?;
                if layout.is_none() {
                    first.append(&mut rows);
                    if first.len() >= FITTED_ROWS {
                        *layout = Some(begin(self.out, &self.schema, first, self.look)?);
                        first.clear();
                    }
                }
                if let Some(layout) = layout {
                    rows.iter().try_for_each(|row| layout.row(self.out, row))?;
                }
            }
            State::Json(writer) => {
                if let Some(writer) = writer {
                    writer.write(batch).map_err(failed)?;
                }
                self.drain()?;
            }
            State::Ndjson => {
                let builder = json::WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = builder.build::<_, json::writer::LineDelimited>(&mut *self.out);
                writer.write(batch).and_then(|()| writer.finish()).map_err(failed)?;
            }
            State::Csv { header } => {
                let mut writer = csv::WriterBuilder::new().with_header(*header).build(&mut *self.out);
                writer.write(batch).map_err(failed)?;
                *header = false;
            }
        }
        Ok(())
    }

    /// Writes what is left.
    pub fn finish(mut self) -> Result<Written> {
        match &mut self.state {
            State::Table { first, layout: layout @ None, .. } => {
                *layout = Some(begin(self.out, &self.schema, first, self.look)?);
            }
            State::Json(writer) => {
                if let Some(mut writer) = writer.take() {
                    writer.finish().map_err(failed)?;
                    self.out.write_all(&writer.into_inner())?;
                    writeln!(self.out)?;
                }
            }
            State::Csv { header: true } => {
                let mut writer = csv::WriterBuilder::new().build(&mut *self.out);
                writer.write(&RecordBatch::new_empty(self.schema.clone())).map_err(failed)?;
            }
            State::Table { .. } | State::Ndjson | State::Csv { .. } => {}
        }
        if self.hidden > 0 {
            let (mark, count) = (if self.look.unicode { "…" } else { "..." }, human::count(self.hidden));
            let rows = if self.hidden == 1 { "row" } else { "rows" };
            writeln!(self.out, "{mark} {count} more {rows}")?;
        }
        self.out.flush()?;
        Ok(Written { rows: self.rows, hidden: self.hidden })
    }

    /// Moves what the JSON writer has made to the output.
    fn drain(&mut self) -> Result {
        let State::Json(slot) = &mut self.state else { return Ok(()) };
        if let Some(writer) = slot.as_mut() {
            let made = writer.get_mut();
            self.out.write_all(made)?;
            made.clear();
        }
        Ok(())
    }
}

fn begin(out: &mut dyn Write, schema: &SchemaRef, rows: &[Vec<String>], look: Look) -> Result<Layout> {
    let header: Vec<String> = schema.fields().iter().map(|f| harmless(f.name())).collect();
    let right = schema.fields().iter().map(|f| is_number(f.data_type())).collect();
    let layout = Layout::fit(&header, right, rows, look);
    layout.header(out, &header)?;
    rows.iter().try_for_each(|row| layout.row(out, row))?;
    Ok(layout)
}

fn is_number(kind: &DataType) -> bool {
    kind.is_numeric() || matches!(kind, DataType::Duration(_))
}

/// Cells of a batch as a table shows them.
fn texts(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("NULL").with_display_error(true);
    let columns: Vec<ArrayFormatter<'_>> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    let cell = |row: usize, column: &ArrayFormatter<'_>| harmless(&column.value(row).to_string());
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect())
}

fn failed(error: ArrowError) -> Failure {
    match error {
        ArrowError::IoError(_, error) => error.into(),
        other => {
            // The CSV writer keeps the kind of an I/O error in its text only.
            if let Some(error) = os_error(&other.to_string()) {
                return error.into();
            }
            let message = format!("the result cannot be written in this format: {other}");
            sparklet_core::Error::new(sparklet_core::ErrorKind::Data, message)
                .with_hint("choose another `--format`, or cast the column")
                .into()
        }
    }
}

/// The error of the system whose text ends in `(os error N)`.
fn os_error(text: &str) -> Option<io::Error> {
    let (_, code) = text.trim_end().strip_suffix(')')?.rsplit_once("(os error ")?;
    Some(io::Error::from_raw_os_error(code.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("name", DataType::Utf8, true),
            Field::new("price", DataType::Decimal128(9, 2), true),
            Field::new("day", DataType::Date32, true),
            Field::new("share", DataType::Float64, true),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(Int64Array::from(vec![Some(1), None])),
                Arc::new(StringArray::from(vec![Some("a,\n\"b\""), None])),
                Arc::new(Decimal128Array::from(vec![Some(12345), None]).with_precision_and_scale(9, 2).unwrap()),
                Arc::new(Date32Array::from(vec![Some(15706), None])),
                Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN)])),
            ],
        )
        .unwrap()
    }

    fn written(format: Format, batches: &[RecordBatch], limit: Option<u64>) -> (String, Written) {
        let mut out = Vec::new();
        let mut writer = RowWriter::new(&mut out, Look::plain(80), format, batch().schema(), limit);
        batches.iter().for_each(|b| writer.write(b).unwrap());
        let counts = writer.finish().unwrap();
        (String::from_utf8(out).unwrap(), counts)
    }

    #[test]
    fn formats() {
        insta::assert_snapshot!(written(Format::Table, &[batch()], None).0, @r#"
              id │ name    │  price │ day        │ share
            ─────┼─────────┼────────┼────────────┼──────
               1 │ a,\n"b" │ 123.45 │ 2013-01-01 │   0.1
            NULL │ NULL    │   NULL │ NULL       │   NaN
        "#);
        insta::assert_snapshot!(written(Format::Csv, &[batch(), batch()], None).0, @r#"
            id,name,price,day,share
            1,"a,
            ""b""",123.45,2013-01-01,0.1
            ,,,,NaN
            1,"a,
            ""b""",123.45,2013-01-01,0.1
            ,,,,NaN
        "#);
        insta::assert_snapshot!(written(Format::Ndjson, &[batch()], None).0, @r#"
            {"id":1,"name":"a,\n\"b\"","price":123.45,"day":"2013-01-01","share":0.1}
            {"id":null,"name":null,"price":null,"day":null,"share":null}
        "#);
        let json: serde_json::Value =
            serde_json::from_str(&written(Format::Json, &[batch(), batch()], None).0).unwrap();
        assert_eq!(json.as_array().unwrap().len(), 4);
        assert_eq!(json[1]["name"], serde_json::Value::Null);
    }

    #[test]
    fn no_rows_still_have_a_form() {
        assert_eq!(written(Format::Csv, &[], None).0, "id,name,price,day,share\n");
        assert_eq!(written(Format::Json, &[], None).0, "[]\n");
        assert_eq!(written(Format::Ndjson, &[], None).0, "");
        assert_eq!(written(Format::Table, &[], None).0.lines().count(), 2);
    }

    #[test]
    fn a_table_counts_what_it_hides() {
        let many = vec![batch(); 3];
        let (text, counts) = written(Format::Table, &many, Some(3));
        assert_eq!(counts, Written { rows: 6, hidden: 3 });
        assert_eq!(text.lines().count(), 6);
        assert!(text.ends_with("… 3 more rows\n"), "{text}");
        assert_eq!(written(Format::Csv, &many, Some(3)).1, Written { rows: 6, hidden: 0 });
    }

    #[test]
    fn many_rows_are_all_there() {
        let (text, counts) = written(Format::Table, &vec![batch(); 1200], None);
        assert_eq!(counts.rows, 2400);
        assert_eq!(text.lines().count(), 2402);
    }
}
