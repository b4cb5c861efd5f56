//! What is known of the rows of a subplan: how many, and of each column its range and its number of distinct values.

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{ScalarValue, Statistics};

/// Rows of a table of which nothing is known.
pub(crate) const UNKNOWN_ROWS: f64 = 100_000.0;

/// Bytes that a column of text takes in memory, where nothing is known.
const TEXT_WIDTH: f64 = 24.0;

/// A column of a subplan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ColumnProfile {
    /// Distinct values of the column in the rows that it was taken from, before conditions on *other* columns: the domain that a join
    /// partner's values are looked for in.
    pub(crate) distinct: f64,
    /// Rows that `distinct` was counted in.
    pub(crate) of_rows: f64,
    /// `distinct` follows from metadata and is no mere guess.
    pub(crate) known: bool,
    /// Smallest and largest value as numbers, where the type has an order that can be written so.
    pub(crate) range: Option<(f64, f64)>,
    /// Share of NULLs, 0 to 1.
    pub(crate) nulls: f64,
    /// Bytes a value in memory.
    pub(crate) width: f64,
}

impl ColumnProfile {
    /// A column of `rows` rows of which nothing is known.
    pub(crate) fn unknown(data_type: &DataType, rows: f64) -> Self {
        let distinct = rows.max(1.0).sqrt();
        Self { distinct, of_rows: rows, known: false, range: None, nulls: 0.0, width: width_of(data_type) }
    }

    /// A column with `distinct` values in `rows` rows.
    pub(crate) fn with_distinct(data_type: &DataType, distinct: f64, rows: f64) -> Self {
        let distinct = distinct.clamp(1.0, rows.max(1.0));
        Self { distinct, of_rows: rows, known: true, range: None, nulls: 0.0, width: width_of(data_type) }
    }
}

/// Rows of a subplan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    pub(crate) rows: f64,
    /// In the order of the subplan's schema.
    pub(crate) columns: Vec<ColumnProfile>,
    /// Factor by which the rows may be off, at least 1.
    pub(crate) spread: f64,
    /// Rests on metadata of the sources; a guess if not.
    pub(crate) grounded: bool,
}

impl Profile {
    /// Nothing is known.
    pub(crate) fn unknown(schema: &SchemaRef, rows: f64) -> Self {
        let columns = schema.fields().iter().map(|f| ColumnProfile::unknown(f.data_type(), rows)).collect();
        Self { rows, columns, spread: 100.0, grounded: false }
    }

    /// From the metadata of a table.
    pub(crate) fn of_statistics(schema: &SchemaRef, statistics: &Statistics) -> Self {
        let Some(&rows) = statistics.num_rows.get_value() else { return Self::unknown(schema, UNKNOWN_ROWS) };
        let rows = rows as f64;
        let columns = schema.fields().iter().enumerate().map(|(i, field)| {
            let data_type = field.data_type();
            let mut column = ColumnProfile::unknown(data_type, rows);
            let Some(known) = statistics.column_statistics.get(i) else { return column };
            if let Some(&nulls) = known.null_count.get_value() {
                column.nulls = (nulls as f64 / rows.max(1.0)).clamp(0.0, 1.0);
            }
            let (low, high) = (known.min_value.get_value(), known.max_value.get_value());
            column.range = low.and_then(number).zip(high.and_then(number));
            let present = rows * (1.0 - column.nulls);
            let text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            if let Some(&distinct) = known.distinct_count.get_value() {
                column.distinct = distinct as f64;
                column.known = true;
            } else if let (Some((low, high)), true) = (column.range, is_discrete(data_type)) {
                column.distinct = ((high - low) * units(data_type) + 1.0).min(present);
                column.known = true;
            } else if let (true, Some(&bytes)) = (text, known.byte_size.get_value()) {
                let length = [low, high].into_iter().flatten().filter_map(text_length).sum::<f64>() / 2.0;
                column.distinct = distinct_texts(bytes as f64, present, length.max(1.0));
            }
            column.distinct = column.distinct.clamp(1.0, rows.max(1.0));
            column
        });
        let columns = columns.collect();
        let spread = if statistics.num_rows.is_exact() == Some(true) { 1.0 } else { 2.0 };
        Self { rows, columns, spread, grounded: true }
    }

    /// Bytes of a row in memory.
    pub(crate) fn width(&self) -> f64 {
        self.columns.iter().map(|c| c.width).sum::<f64>().max(1.0)
    }

    /// The same columns in `rows` rows.
    pub(crate) fn with_rows(mut self, rows: f64) -> Self {
        self.rows = rows.max(0.0);
        self
    }

    /// Distinct values of a column in the rows that are left.
    pub(crate) fn distinct_left(&self, column: usize) -> f64 {
        self.columns.get(column).map_or(self.rows, |c| left_of(c.distinct, c.of_rows, self.rows)).max(1.0)
    }
}

/// Of `distinct` values spread evenly over `of_rows` rows, how many are met in `rows` of them (Cardenas' formula).
pub(crate) fn left_of(distinct: f64, of_rows: f64, rows: f64) -> f64 {
    if rows >= of_rows || distinct <= 1.0 {
        return distinct.min(rows.max(1.0));
    }
    let share = (rows / of_rows.max(1.0)).clamp(0.0, 1.0);
    let each = of_rows / distinct;
    distinct * (1.0 - (1.0 - share).powf(each))
}

/// Distinct values of a column of text that takes `bytes` as Parquet writes it uncompressed: a dictionary of its values, and for each row as
/// many bits as tell them apart. More bytes than that are values written one after the other.
fn distinct_texts(bytes: f64, rows: f64, length: f64) -> f64 {
    const HEADERS: f64 = 80.0;
    let bytes = (bytes - HEADERS).max(1.0);
    let size = |distinct: f64| distinct * (length + 4.0) + rows * distinct.log2().ceil() / 8.0;
    let (mut low, mut high) = (1.0, rows.max(1.0));
    if size(high) <= bytes {
        return high;
    }
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if size(middle) <= bytes { low = middle } else { high = middle }
    }
    low.round().max(1.0)
}

fn text_length(value: &ScalarValue) -> Option<f64> {
    match value {
        ScalarValue::Utf8(Some(s)) | ScalarValue::LargeUtf8(Some(s)) | ScalarValue::Utf8View(Some(s)) => {
            Some(s.len() as f64)
        }
        _ => None,
    }
}

/// Types whose values between two bounds can be counted.
fn is_discrete(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Date32
                | DataType::Date64
                | DataType::Boolean
                | DataType::Decimal32(..)
                | DataType::Decimal64(..)
                | DataType::Decimal128(..)
        )
}

/// Values of a type in a step of one in [`number`].
fn units(data_type: &DataType) -> f64 {
    match data_type {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            10f64.powi(i32::from(*scale))
        }
        DataType::Date64 => 1.0 / 86_400_000.0,
        _ => 1.0,
    }
}

/// Bytes of a value of a type in memory.
pub(crate) fn width_of(data_type: &DataType) -> f64 {
    data_type.primitive_width().map_or(TEXT_WIDTH, |width| width as f64)
}

/// A value as a number in the order of its type; none for NULL and for what has no such number.
pub(crate) fn number(value: &ScalarValue) -> Option<f64> {
    Some(match value {
        ScalarValue::Boolean(Some(v)) => f64::from(u8::from(*v)),
        ScalarValue::Int8(Some(v)) => f64::from(*v),
        ScalarValue::Int16(Some(v)) => f64::from(*v),
        ScalarValue::Int32(Some(v)) | ScalarValue::Date32(Some(v)) => f64::from(*v),
        ScalarValue::Int64(Some(v))
        | ScalarValue::Date64(Some(v))
        | ScalarValue::TimestampSecond(Some(v), _)
        | ScalarValue::TimestampMillisecond(Some(v), _)
        | ScalarValue::TimestampMicrosecond(Some(v), _)
        | ScalarValue::TimestampNanosecond(Some(v), _) => *v as f64,
        ScalarValue::UInt8(Some(v)) => f64::from(*v),
        ScalarValue::UInt16(Some(v)) => f64::from(*v),
        ScalarValue::UInt32(Some(v)) => f64::from(*v),
        ScalarValue::UInt64(Some(v)) => *v as f64,
        ScalarValue::Float32(Some(v)) => f64::from(*v),
        ScalarValue::Float64(Some(v)) => *v,
        ScalarValue::Decimal32(Some(v), _, scale) => f64::from(*v) / 10f64.powi(i32::from(*scale)),
        ScalarValue::Decimal64(Some(v), _, scale) => *v as f64 / 10f64.powi(i32::from(*scale)),
        ScalarValue::Decimal128(Some(v), _, scale) => *v as f64 / 10f64.powi(i32::from(*scale)),
        _ => return None,
    })
    .filter(|v| v.is_finite())
}
