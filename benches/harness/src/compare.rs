//! Are two results the same? As multisets, with the order that the query asks for, and floats within a tolerance.
//!
//! - Columns are compared by position and type; integers, decimals, dates, text exactly.
//! - Floats may differ by 1e-9 of the value, or by 1e-12 of the largest value of their column: sums in another order are the same.
//! - Where the query has an ORDER BY, the keys must agree row by row; rows with equal keys may stand in any order.
//! - Where a LIMIT cuts through rows with equal keys, any choice among them is right: then [`compare`] needs the result without the
//!   LIMIT, and each side's rows must be found in it.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::Result;

/// Part of a float that two results may differ by.
const RELATIVE: f64 = 1e-9;
/// Part of the largest float of the column that two results may differ by: what is left when large numbers cancel.
const OF_COLUMN: f64 = 1e-12;
/// Rows with equal exact columns up to which floats are matched one by one when sorting does not pair them.
const MATCHED_ONE_BY_ONE: usize = 4096;

/// What the query promises about the order and the number of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shape {
    /// Output columns of the ORDER BY, first key first, up to the first key that is not an output column.
    pub(crate) order: Vec<usize>,
    /// The LIMIT.
    pub(crate) limit: Option<usize>,
}

/// The outcome of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same result.
    Same,
    /// Not the same: where, and what stands there.
    Different(String),
    /// A LIMIT cut through equal keys: the result without it decides.
    NeedsUnlimited,
}

/// A value, so that equality is what a comparison of results needs.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Exact(String),
    Float(f64),
}

/// A result as rows.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    types: Vec<DataType>,
    rows: Vec<Vec<Cell>>,
}

impl Rows {
    /// All rows of `batches`, which have `schema`.
    pub(crate) fn new(schema: &Schema, batches: &[RecordBatch]) -> Result<Self> {
        let types: Vec<DataType> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        let mut rows = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
        for batch in batches {
            let columns = batch.columns().iter().map(|c| cells(c.as_ref())).collect::<Result<Vec<_>>>()?;
            let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
            rows.extend(
                (0..batch.num_rows()).map(|_| columns.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>()),
            );
        }
        Ok(Self { types, rows })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

fn cells(array: &dyn Array) -> Result<Vec<Cell>> {
    let floats: Option<Vec<Option<f64>>> = match array.data_type() {
        DataType::Float64 => Some(array.as_primitive::<Float64Type>().iter().collect()),
        DataType::Float32 => Some(array.as_primitive::<Float32Type>().iter().map(|v| v.map(f64::from)).collect()),
        DataType::Float16 => Some(array.as_primitive::<Float16Type>().iter().map(|v| v.map(f64::from)).collect()),
        _ => None,
    };
    if let Some(floats) = floats {
        return Ok(floats.into_iter().map(|v| v.map_or(Cell::Null, Cell::Float)).collect());
    }
    let format = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &format)?;
    let cell =
        |row| if array.is_null(row) { Ok(Cell::Null) } else { Ok(Cell::Exact(formatter.value(row).try_to_string()?)) };
    (0..array.len()).map(cell).collect()
}

/// Compares `left` with `right`; `unlimited` is the result without the query's LIMIT, asked for by [`Verdict::NeedsUnlimited`].
pub(crate) fn compare(left: &Rows, right: &Rows, shape: &Shape, unlimited: Option<&Rows>) -> Verdict {
    if left.types != right.types {
        return Verdict::Different(format!("columns {:?} and {:?}", left.types, right.types));
    }
    if left.len() != right.len() {
        return Verdict::Different(format!("{} rows and {} rows", left.len(), right.len()));
    }
    let same = Tolerance::of(left, right);
    for row in 0..left.len() {
        for &key in &shape.order {
            if !same.cells(key, &left.rows[row][key], &right.rows[row][key]) {
                let keys = (show(&left.rows[row]), show(&right.rows[row]));
                return Verdict::Different(format!(
                    "row {} is out of order in column {}: {} and {}",
                    row + 1,
                    key + 1,
                    keys.0,
                    keys.1
                ));
            }
        }
    }
    let cut = shape.limit.is_some_and(|limit| left.len() >= limit);
    let mut start = 0;
    while start < left.len() {
        let mut end = start + 1;
        while end < left.len() && shape.order.iter().all(|&k| same.cells(k, &left.rows[end - 1][k], &left.rows[end][k]))
        {
            end += 1;
        }
        let (l, r) = (&left.rows[start..end], &right.rows[start..end]);
        if let Some(difference) = same.unmatched(l, r) {
            if !(cut && end == left.len()) {
                return Verdict::Different(difference);
            }
            let Some(all) = unlimited else { return Verdict::NeedsUnlimited };
            for side in [l, r] {
                if let Some(difference) = same.unmatched(side, &all.rows) {
                    return Verdict::Different(format!("{difference}, also without the LIMIT"));
                }
            }
        }
        start = end;
    }
    Verdict::Same
}

/// Rows of the part, and of the whole, whose exact columns are equal.
type Sides<'a> = (Vec<&'a [Cell]>, Vec<&'a [Cell]>);

/// How far the floats of each column may differ.
struct Tolerance {
    of_column: Vec<f64>,
}

impl Tolerance {
    fn of(left: &Rows, right: &Rows) -> Self {
        let mut of_column = vec![0.0_f64; left.types.len()];
        for row in left.rows.iter().chain(&right.rows) {
            for (largest, cell) in of_column.iter_mut().zip(row) {
                if let Cell::Float(v) = cell
                    && v.is_finite()
                {
                    *largest = largest.max(v.abs() * OF_COLUMN);
                }
            }
        }
        Self { of_column }
    }

    fn cells(&self, column: usize, left: &Cell, right: &Cell) -> bool {
        match (left, right) {
            (Cell::Float(l), Cell::Float(r)) => {
                l == r
                    || (l.is_nan() && r.is_nan())
                    || (l.is_finite()
                        && r.is_finite()
                        && (l - r).abs() <= (l.abs().max(r.abs()) * RELATIVE).max(self.of_column[column]))
            }
            _ => left == right,
        }
    }

    fn rows(&self, left: &[Cell], right: &[Cell]) -> bool {
        left.iter().zip(right).enumerate().all(|(column, (l, r))| self.cells(column, l, r))
    }

    /// The first row of `part` that has no row of its own in `whole`, as a message; none if `part` is a sub-multiset of `whole`.
    /// With as many rows on both sides that is equality.
    fn unmatched(&self, part: &[Vec<Cell>], whole: &[Vec<Cell>]) -> Option<String> {
        let mut by_exact: HashMap<Vec<Option<&str>>, Sides<'_>> = HashMap::new();
        for row in part {
            by_exact.entry(exact(row)).or_default().0.push(row);
        }
        for row in whole {
            if let Some(group) = by_exact.get_mut(&exact(row)) {
                group.1.push(row);
            }
        }
        let mut groups: Vec<_> = by_exact.into_iter().collect();
        groups.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        groups.into_iter().find_map(|(_, (part, whole))| self.unmatched_floats(part, whole))
    }

    /// The same for rows whose exact columns are equal.
    fn unmatched_floats(&self, mut part: Vec<&[Cell]>, mut whole: Vec<&[Cell]>) -> Option<String> {
        let message = |row: &[Cell], closest: Option<&&[Cell]>| {
            let closest = closest.map_or_else(|| "no such row".to_owned(), |other| format!("closest {}", show(other)));
            Some(format!("row {} has no equal on the other side ({closest})", show(row)))
        };
        if part.len() > whole.len() {
            return message(part[0], None)
                .map(|m| format!("{m}: {} rows of this kind and {}", part.len(), whole.len()));
        }
        part.sort_unstable_by(|a, b| by_floats(a, b));
        whole.sort_unstable_by(|a, b| by_floats(a, b));
        let paired = part.len() == whole.len() && part.iter().zip(&whole).all(|(l, r)| self.rows(l, r));
        if paired {
            return None;
        }
        // Sorting by several floats need not pair rows that differ in a last bit: match one by one, and never more often than rows exist.
        if part.len() > MATCHED_ONE_BY_ONE {
            let first = part.iter().zip(&whole).find(|(l, r)| !self.rows(l, r));
            return first.and_then(|(l, r)| message(l, Some(r)));
        }
        let mut used = vec![false; whole.len()];
        for row in part {
            match (0..whole.len()).find(|&i| !used[i] && self.rows(row, whole[i])) {
                Some(i) => used[i] = true,
                None => return message(row, (0..whole.len()).find(|&i| !used[i]).map(|i| &whole[i])),
            }
        }
        None
    }
}

/// The exact columns of a row; a float counts only as present or NULL.
fn exact(row: &[Cell]) -> Vec<Option<&str>> {
    row.iter()
        .map(|cell| match cell {
            Cell::Null => None,
            Cell::Exact(text) => Some(text.as_str()),
            Cell::Float(_) => Some("float"),
        })
        .collect()
}

fn by_floats(left: &[Cell], right: &[Cell]) -> std::cmp::Ordering {
    let floats = |row: &[Cell]| {
        row.iter().filter_map(|c| if let Cell::Float(v) = c { Some(*v) } else { None }).collect::<Vec<_>>()
    };
    let (left, right) = (floats(left), floats(right));
    left.iter().zip(&right).map(|(l, r)| l.total_cmp(r)).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
}

fn show(row: &[Cell]) -> String {
    let cell = |cell: &Cell| match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Exact(text) => text.clone(),
        Cell::Float(v) => format!("{v:?}"),
    };
    let mut text = format!("({})", row.iter().map(cell).collect::<Vec<_>>().join(", "));
    if text.len() > 300 {
        let mut end = 300;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
