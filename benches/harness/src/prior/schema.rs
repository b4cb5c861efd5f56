//! Random schemas with data: facts, and tables that they refer to.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rand::Rng;
use rand::rngs::StdRng;

use crate::error::{AtPath, Result};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Content {
    /// 0, 1, 2, …
    Id,
    /// An id of another table; `hot` of its rows have the same.
    Refers { table: usize, rows: u64, hot: f64 },
    /// Integers below a bound.
    Integer(i64),
    /// Numbers between 0 and 1000.
    Float,
    /// Amounts with two digits after the point.
    Amount,
    /// Days of ten years.
    Day,
    /// One of so many words.
    Word(u32),
    /// Text of about so many characters, nearly every one different.
    Text(usize),
}

/// A column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) content: Content,
}

/// A table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) rows: u64,
    pub(super) columns: Vec<Column>,
}

/// Tables; the first ones are the facts.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) tables: Vec<Table>,
    pub(super) facts: usize,
}

/// A number between two, each order of magnitude as likely as the next.
pub(super) fn size(random: &mut StdRng, low: f64, high: f64) -> u64 {
    random.random_range(low.ln()..high.ln()).exp() as u64
}

impl Tables {
    /// A schema; the largest table has up to `most` rows.
    pub(super) fn random(random: &mut StdRng, most: f64) -> Self {
        let facts = random.random_range(1..=2_usize);
        let others = random.random_range(3..=6_usize);
        let sizes: Vec<u64> = (0..facts + others)
            .map(|i| if i < facts { size(random, 20_000.0, most) } else { size(random, 50.0, most / 8.0) })
            .collect();
        let tables = (0..facts + others).map(|table| {
            let mut columns = vec![column("id", Content::Id)];
            // Facts refer to all others; some of the others to one after them, as in a snowflake.
            let referred: Vec<usize> = match table {
                t if t < facts => (facts..facts + others).collect(),
                t if t + 1 < facts + others && random.random_bool(0.4) => vec![t + 1],
                _ => Vec::new(),
            };
            for to in referred {
                let hot = if random.random_bool(0.2) { 0.3 } else { 0.0 };
                columns.push(column(&format!("r{to}"), Content::Refers { table: to, rows: sizes[to], hot }));
            }
            for i in 0..random.random_range(2..=7) {
                let content = match random.random_range(0..8) {
                    0 | 1 => Content::Integer(size(random, 3.0, 1e6) as i64),
                    2 => Content::Float,
                    3 => Content::Amount,
                    4 => Content::Day,
                    5 | 6 => Content::Word(size(random, 2.0, 5000.0) as u32),
                    _ => Content::Text(random.random_range(8..60)),
                };
                columns.push(column(&format!("c{i}"), content));
            }
            Table { name: format!("t{table}"), rows: sizes[table], columns }
        });
        Self { tables: tables.collect(), facts }
    }

    /// Writes the tables as Parquet, a folder each.
    pub(super) fn write(&self, random: &mut StdRng, folder: &Path) -> Result<Vec<(String, PathBuf)>> {
        let packed = random.random_bool(0.7);
        let compression = if packed { Compression::SNAPPY } else { Compression::UNCOMPRESSED };
        let mut written = Vec::new();
        for table in &self.tables {
            let of_table = folder.join(&table.name);
            std::fs::create_dir_all(&of_table).at_path(&of_table)?;
            let schema = Arc::new(Schema::new(
                table.columns.iter().map(|c| Field::new(&c.name, c.content.data_type(), false)).collect::<Vec<_>>(),
            ));
            let files = if table.rows > 100_000 { random.random_range(1..=4_u64) } else { 1 };
            for file in 0..files {
                let path = of_table.join(format!("part-{file}.parquet"));
                let properties = WriterProperties::builder().set_compression(compression).build();
                let out = File::create(&path).at_path(&path)?;
                let mut writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties))?;
                let (mut from, to) = (table.rows * file / files, table.rows * (file + 1) / files);
                while from < to {
                    let until = (from + 65_536).min(to);
                    let columns = table.columns.iter().map(|c| c.content.values(random, from, until)).collect();
                    writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
                    from = until;
                }
                writer.close()?;
            }
            written.push((table.name.clone(), of_table));
        }
        Ok(written)
    }
}

fn column(name: &str, content: Content) -> Column {
    Column { name: name.to_owned(), content }
}

impl Content {
    fn data_type(self) -> DataType {
        match self {
            Self::Id | Self::Refers { .. } | Self::Integer(_) => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Amount => DataType::Decimal128(12, 2),
            Self::Day => DataType::Date32,
            Self::Word(_) | Self::Text(_) => DataType::Utf8,
        }
    }

    fn values(self, random: &mut StdRng, from: u64, to: u64) -> ArrayRef {
        let rows = from..to;
        match self {
            Self::Id => Arc::new(Int64Array::from_iter_values(rows.map(|row| row as i64))),
            Self::Refers { rows: of, hot, .. } => Arc::new(Int64Array::from_iter_values(
                rows.map(|_| if random.random_bool(hot) { 1 } else { random.random_range(0..of.max(1)) as i64 }),
            )),
            Self::Integer(bound) => {
                Arc::new(Int64Array::from_iter_values(rows.map(|_| random.random_range(0..bound.max(1)))))
            }
            Self::Float => Arc::new(Float64Array::from_iter_values(rows.map(|_| random.random_range(0.0..1000.0)))),
            Self::Amount => {
                let amounts = Decimal128Array::from_iter_values(rows.map(|_| random.random_range(0..10_000_000_i128)));
                // The precision that the schema has: it always fits.
                Arc::new(amounts.with_data_type(DataType::Decimal128(12, 2)))
            }
            Self::Day => Arc::new(Date32Array::from_iter_values(rows.map(|_| random.random_range(14_000..17_650)))),
            Self::Word(words) => Arc::new(StringArray::from_iter_values(
                rows.map(|_| format!("word {}", random.random_range(0..words.max(1)))),
            )),
            Self::Text(length) => Arc::new(StringArray::from_iter_values(rows.map(|_| {
                let length = random.random_range(length / 2..=length);
                (0..length).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect::<String>()
            }))),
        }
    }
}
