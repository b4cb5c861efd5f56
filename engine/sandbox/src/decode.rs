//! A guest's memory → Arrow columns. Nothing that the guest says is believed: places and lengths are added up in 64 bits, offsets,
//! UTF-8, null counts and digits are checked, and what is good is copied.

use std::sync::Arc;

use arrow::array::ArrayData;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, ListArray, NullBufferBuilder, StringArray, StructArray,
    make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;

use crate::encode::{BATCH, COL};
use crate::types::{code, parameters, type_name, width};

/// What is wrong with what a guest gave.
pub(crate) type Broken = String;

/// Reads a guest's memory.
pub(crate) struct Reader<'a> {
    pub(crate) memory: &'a [u8],
    /// Most that all columns of one call may take on the host, in bytes.
    pub(crate) budget: u64,
}

/// A `batch` as the guest filled it.
pub(crate) struct BatchHead {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) at: u32,
}

/// A column of numbers that comes in pieces.
pub(crate) struct Pieces {
    values: MutableBuffer,
    nulls: NullBufferBuilder,
}

impl Pieces {
    /// Room for `rows` rows of type `of`; none for a type that does not come in pieces.
    pub(crate) fn new(of: &DataType, rows: usize) -> Option<Self> {
        let width = width(of).filter(|_| !matches!(of, DataType::Decimal128(..)))?;
        Some(Self { values: MutableBuffer::with_capacity(rows * width), nulls: NullBufferBuilder::new(rows) })
    }

    /// All of it.
    pub(crate) fn finish(mut self, of: &DataType, rows: usize) -> Result<ArrayRef, Broken> {
        numbers(of, rows, self.nulls.finish(), self.values.into())
    }
}

struct Col([u32; 12]);

impl Col {
    fn validity(&self) -> u32 {
        self.0[3]
    }
}

impl<'a> Reader<'a> {
    /// The `batch` at `at`.
    pub(crate) fn batch(&self, at: u32) -> Result<BatchHead, Broken> {
        let bytes = self.slice(at, BATCH as u64, "a batch")?;
        Ok(BatchHead { rows: word(bytes, 0), columns: word(bytes, 1), at: word(bytes, 2) })
    }

    /// Columns of the batch `head`, which must have these types.
    pub(crate) fn columns(&mut self, head: &BatchHead, types: &[DataType]) -> Result<Vec<ArrayRef>, Broken> {
        if head.columns as usize != types.len() {
            return Err(format!("a batch of {} columns where {} are declared", head.columns, types.len()));
        }
        let mut columns = Vec::with_capacity(types.len());
        for (i, of) in types.iter().enumerate() {
            let at = u64::from(head.at) + (i * COL) as u64;
            let at = u32::try_from(at).map_err(|_| "columns outside of its memory".to_owned())?;
            columns.push(self.column(at, of, head.rows as usize)?);
        }
        Ok(columns)
    }

    /// The `col` at `at`, of type `of` with `rows` rows.
    pub(crate) fn column(&mut self, at: u32, of: &DataType, rows: usize) -> Result<ArrayRef, Broken> {
        let bytes = self.slice(at, COL as u64, "a column")?;
        let col = Col(std::array::from_fn(|i| word(bytes, i)));
        self.check_head(&col, of)?;
        let nulls = self.nulls(&col, rows)?;
        let [_, _, _, _, buf0, len0, buf1, len1, count, children, _, _] = col.0;
        let what = type_name(of);
        match of {
            DataType::Boolean => {
                let need = rows.div_ceil(8);
                let bits = self.copy(buf0, len0, need as u64, &what)?;
                let values = BooleanBuffer::new(bits, 0, rows);
                Ok(Arc::new(BooleanArray::new(values, nulls)))
            }
            DataType::Utf8 => {
                let (offsets, data) = self.variable([buf0, len0, buf1, len1], rows, &what)?;
                // Checks UTF-8, and that offsets are at character boundaries.
                StringArray::try_new(offsets, data, nulls)
                    .map(|array| Arc::new(array) as _)
                    .map_err(|e| format!("strings that are not UTF-8: {e}"))
            }
            DataType::Binary => {
                let (offsets, data) = self.variable([buf0, len0, buf1, len1], rows, &what)?;
                BinaryArray::try_new(offsets, data, nulls).map(|a| Arc::new(a) as _).map_err(|e| e.to_string())
            }
            DataType::List(item) => {
                let offsets = self.offsets(buf0, len0, rows, &what)?;
                if count != 1 {
                    return Err(format!("a list with {count} children"));
                }
                let items = offsets.last().copied().unwrap_or_default();
                let items = self.column(children, item.data_type(), usize::try_from(items).unwrap_or_default())?;
                ListArray::try_new(Arc::clone(item), offsets, items, nulls)
                    .map(|a| Arc::new(a) as _)
                    .map_err(|e| e.to_string())
            }
            DataType::Struct(fields) => {
                if count as usize != fields.len() {
                    return Err(format!("a struct with {count} children where {} are declared", fields.len()));
                }
                let mut columns = Vec::with_capacity(fields.len());
                for (i, field) in fields.iter().enumerate() {
                    let at = u32::try_from(u64::from(children) + (i * COL) as u64)
                        .map_err(|_| "children outside of its memory".to_owned())?;
                    columns.push(self.column(at, field.data_type(), rows)?);
                }
                StructArray::try_new_with_length(fields.clone(), columns, nulls, rows)
                    .map(|a| Arc::new(a) as _)
                    .map_err(|e| e.to_string())
            }
            DataType::Decimal128(precision, scale) => {
                let bytes = self.copy(buf0, len0, rows as u64 * 16, &what)?;
                let values = ScalarBuffer::<i128>::new(bytes, 0, rows);
                let array = Decimal128Array::try_new(values, nulls)
                    .and_then(|a| a.with_precision_and_scale(*precision, *scale))
                    .map_err(|e| e.to_string())?;
                array.validate_decimal_precision(*precision).map_err(|e| format!("a decimal out of range: {e}"))?;
                Ok(Arc::new(array))
            }
            other => {
                let width = width(other).ok_or_else(|| format!("{other} does not cross the boundary"))?;
                let bytes = self.copy(buf0, len0, rows as u64 * width as u64, &what)?;
                numbers(other, rows, nulls, bytes)
            }
        }
    }

    /// Adds the `col` at `at`, of type `of` with `rows` rows, to `pieces` of this type.
    pub(crate) fn piece(&mut self, at: u32, of: &DataType, rows: usize, pieces: &mut Pieces) -> Result<(), Broken> {
        let bytes = self.slice(at, COL as u64, "a column")?;
        let col = Col(std::array::from_fn(|i| word(bytes, i)));
        self.check_head(&col, of)?;
        match self.nulls(&col, rows)? {
            Some(nulls) => pieces.nulls.append_buffer(&nulls),
            None => pieces.nulls.append_n_non_nulls(rows),
        }
        let need = rows as u64 * width(of).unwrap_or_default() as u64;
        pieces.values.extend_from_slice(self.buffer(col.0[4], col.0[5], need, || type_name(of))?);
        Ok(())
    }

    fn check_head(&self, col: &Col, of: &DataType) -> Result<(), Broken> {
        let [found, flags, .., p0, p1] = col.0;
        if Some(found) != code(of) {
            return Err(format!("a column of type code {found} where {} is declared", type_name(of)));
        }
        if flags != 0 {
            return Err(format!("a result with the flags {flags}"));
        }
        let want = parameters(of);
        if (p0, p1) != (0, 0) && (p0, p1) != want {
            return Err(format!("a {} with the parameters {p0}, {p1}", type_name(of)));
        }
        Ok(())
    }

    fn nulls(&mut self, col: &Col, rows: usize) -> Result<Option<NullBuffer>, Broken> {
        let told = col.0[2];
        if col.validity() == 0 {
            return match told {
                0 => Ok(None),
                told => Err(format!("a null count of {told} without a validity bitmap")),
            };
        }
        let bytes = rows.div_ceil(8) as u64;
        let len = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bits = self.copy(col.validity(), len, bytes, "a validity bitmap")?;
        let nulls = NullBuffer::new(BooleanBuffer::new(bits, 0, rows));
        if nulls.null_count() != told as usize {
            return Err(format!("a null count of {told} where the bitmap has {}", nulls.null_count()));
        }
        Ok((told > 0).then_some(nulls))
    }

    fn variable(
        &mut self,
        [buf0, len0, buf1, len1]: [u32; 4],
        rows: usize,
        what: &str,
    ) -> Result<(OffsetBuffer<i32>, Buffer), Broken> {
        let offsets = self.offsets(buf0, len0, rows, what)?;
        let end = offsets.last().copied().unwrap_or_default();
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        let data = self.copy(buf1, len1, end, what)?;
        Ok((offsets, data))
    }

    fn offsets(&mut self, at: u32, len: u32, rows: usize, what: &str) -> Result<OffsetBuffer<i32>, Broken> {
        if rows == 0 {
            return Ok(OffsetBuffer::new_empty());
        }
        let bytes = self.copy(at, len, (rows as u64 + 1) * 4, &format!("offsets of {what}"))?;
        let offsets = ScalarBuffer::<i32>::new(bytes, 0, rows + 1);
        if offsets[0] != 0 {
            return Err(format!("offsets that begin at {} instead of 0", offsets[0]));
        }
        if let Some(row) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(format!("offsets that fall from {} to {} at row {row}", offsets[row], offsets[row + 1]));
        }
        Ok(OffsetBuffer::new(offsets))
    }

    /// A copy of the first `need` bytes of the buffer of `len` bytes at `at`.
    fn copy(&mut self, at: u32, len: u32, need: u64, what: &str) -> Result<Buffer, Broken> {
        let bytes = self.buffer(at, len, need, || what.to_owned())?;
        self.budget = self
            .budget
            .checked_sub(need)
            .ok_or_else(|| "columns that together are larger than its memory".to_owned())?;
        let mut copied = MutableBuffer::new(bytes.len());
        copied.extend_from_slice(bytes);
        Ok(copied.into())
    }

    /// The first `need` bytes of the buffer of `len` bytes at `at`.
    fn buffer(&self, at: u32, len: u32, need: u64, what: impl Fn() -> String) -> Result<&'a [u8], Broken> {
        if u64::from(len) < need {
            return Err(format!("a buffer of {len} bytes for {}, where {need} are needed", what()));
        }
        if need == 0 {
            return Ok(&[]);
        }
        slice(self.memory, at, need, what)
    }

    fn slice(&self, at: u32, len: u64, what: &str) -> Result<&'a [u8], Broken> {
        slice(self.memory, at, len, || what.to_owned())
    }
}

/// A column of numbers.
fn numbers(of: &DataType, rows: usize, nulls: Option<NullBuffer>, bytes: Buffer) -> Result<ArrayRef, Broken> {
    // Bitmaps of pieces begin at bit 0, as those that are read do.
    let bits = nulls.as_ref().map(|n| n.buffer().clone());
    let data = ArrayData::try_new(of.clone(), rows, bits, 0, vec![bytes], Vec::new());
    Ok(make_array(data.map_err(|e| e.to_string())?))
}

fn slice(memory: &[u8], at: u32, len: u64, what: impl Fn() -> String) -> Result<&[u8], Broken> {
    let start = u64::from(at);
    let end = start.saturating_add(len);
    let outside = || format!("{} at {start} to {end}, outside of its memory of {} bytes", what(), memory.len());
    let (start, end) = (usize::try_from(start), usize::try_from(end));
    let (Ok(start), Ok(end)) = (start, end) else { return Err(outside()) };
    memory.get(start..end).ok_or_else(outside)
}

fn word(bytes: &[u8], i: usize) -> u32 {
    bytes.get(4 * i..4 * i + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}
