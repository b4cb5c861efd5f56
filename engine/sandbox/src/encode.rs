//! Arrow columns → one block of a guest's memory, in the layout of udf-sdk/ABI.md.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer};
use arrow::datatypes::DataType;

use crate::error::Cause;
use crate::types::{code, parameters, width};

/// Bytes of a `batch` and of a `col`.
pub(crate) const BATCH: usize = 16;
pub(crate) const COL: usize = 48;

/// Alignment of a block and of each buffer in it.
pub(crate) const ALIGN: usize = 64;

const CONST: u32 = 1;

/// A column of a call: rows, or one row that stands for all.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) array: ArrayRef,
    pub(crate) constant: bool,
}

impl Column {
    pub(crate) fn rows(array: ArrayRef) -> Self {
        Self { array, constant: false }
    }
}

/// A block that is laid out and not yet anywhere: places are relative to its start.
pub(crate) struct Block {
    size: usize,
    parts: Vec<(usize, Part)>,
    /// Where the batch lies.
    pub(crate) batch: usize,
}

enum Part {
    Bytes(Buffer),
    /// Words of a struct, with those that are places in the block.
    Words(Vec<Word>),
}

#[derive(Clone, Copy)]
enum Word {
    Value(u32),
    Place(usize),
}

impl Block {
    /// The block of `columns` with `rows` rows.
    pub(crate) fn of(rows: usize, columns: &[Column]) -> Result<Self, Cause> {
        let mut block = Self { size: 0, parts: Vec::new(), batch: 0 };
        let batch = block.room(BATCH);
        let cols = block.columns(columns.iter().map(|c| (&c.array, c.constant)).collect())?;
        block.batch = batch;
        let words = [Word::Value(small(rows)?), Word::Value(small(columns.len())?), cols, Word::Value(0)];
        block.parts.push((batch, Part::Words(words.to_vec())));
        Ok(block)
    }

    /// Adds bytes and says where they lie.
    pub(crate) fn bytes(&mut self, bytes: Buffer) -> usize {
        let at = self.room(bytes.len());
        self.parts.push((at, Part::Bytes(bytes)));
        at
    }

    /// Makes room that is all zeros in the beginning.
    pub(crate) fn zeros(&mut self, len: usize) -> usize {
        let at = self.room(len);
        self.parts.push((at, Part::Words(vec![Word::Value(0); len.div_ceil(4)])));
        at
    }

    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Writes it to `memory` at `base`; there is room for it.
    pub(crate) fn write(&self, memory: &mut [u8], base: u32) -> Result<(), Cause> {
        let outside = || Cause::Contract("`sparklet_alloc` gave a block outside of its memory".to_owned());
        let start = base as usize;
        let place = start.checked_add(self.size).and_then(|end| memory.get_mut(start..end)).ok_or_else(outside)?;
        for (at, part) in &self.parts {
            match part {
                Part::Bytes(bytes) => place[*at..*at + bytes.len()].copy_from_slice(bytes.as_slice()),
                Part::Words(words) => {
                    for (i, word) in words.iter().enumerate() {
                        let value = match word {
                            Word::Value(value) => *value,
                            Word::Place(at) => base.wrapping_add(small(*at)?),
                        };
                        place[at + 4 * i..at + 4 * i + 4].copy_from_slice(&value.to_le_bytes());
                    }
                }
            }
        }
        Ok(())
    }

    fn room(&mut self, len: usize) -> usize {
        let at = self.size.next_multiple_of(ALIGN);
        // Words are written in fours.
        self.size = at + len.next_multiple_of(4);
        at
    }

    fn columns(&mut self, columns: Vec<(&ArrayRef, bool)>) -> Result<Word, Cause> {
        if columns.is_empty() {
            return Ok(Word::Value(0));
        }
        let at = self.room(COL * columns.len());
        let mut words = Vec::with_capacity(12 * columns.len());
        for (array, constant) in columns {
            words.extend(self.column(array, constant)?);
        }
        self.parts.push((at, Part::Words(words)));
        Ok(Word::Place(at))
    }

    fn column(&mut self, array: &ArrayRef, constant: bool) -> Result<[Word; 12], Cause> {
        let of = array.data_type();
        let Some(code) = code(of) else {
            return Err(Cause::Internal(format!("{of} does not cross the boundary")));
        };
        let (p0, p1) = parameters(of);
        let zero = Word::Value(0);
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        let validity = match nulls {
            Some(nulls) => self.bitmap(nulls.inner()),
            None => zero,
        };
        let mut buffers = [zero; 4];
        let (mut count, mut children) = (0, zero);
        match of {
            DataType::Boolean => {
                let values = array.as_boolean().values();
                buffers[0] = self.bitmap(values);
                buffers[1] = Word::Value(small(values.len().div_ceil(8))?);
            }
            DataType::Utf8 => {
                let strings = array.as_string::<i32>();
                buffers = self.variable(strings.offsets(), strings.values())?;
            }
            DataType::Binary => {
                let binary = array.as_binary::<i32>();
                buffers = self.variable(binary.offsets(), binary.values())?;
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let (first, last) = ends(list.offsets());
                let offsets = rebased(list.offsets());
                buffers[1] = Word::Value(small(offsets.len())?);
                buffers[0] = Word::Place(self.bytes(offsets));
                let items = list.values().slice(first, last - first);
                count = 1;
                children = self.columns(vec![(&items, false)])?;
            }
            DataType::Struct(_) => {
                let fields = array.as_struct();
                count = fields.num_columns();
                children = self.columns(fields.columns().iter().map(|c| (c, false)).collect())?;
            }
            other => {
                let width = width(other).ok_or_else(|| Cause::Internal(format!("{other} has no width")))?;
                let data = array.to_data();
                let bytes = data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width);
                buffers[1] = Word::Value(small(bytes.len())?);
                buffers[0] = Word::Place(self.bytes(bytes));
            }
        }
        let flags = if constant { CONST } else { 0 };
        Ok([
            Word::Value(code),
            Word::Value(flags),
            Word::Value(small(nulls.map_or(0, |n| n.null_count()))?),
            validity,
            buffers[0],
            buffers[1],
            buffers[2],
            buffers[3],
            Word::Value(small(count)?),
            children,
            Word::Value(p0),
            Word::Value(p1),
        ])
    }

    fn bitmap(&mut self, bits: &BooleanBuffer) -> Word {
        let bytes = bits.len().div_ceil(8);
        let sliced = bits.sliced();
        Word::Place(self.bytes(if sliced.len() > bytes { sliced.slice_with_length(0, bytes) } else { sliced }))
    }

    fn variable(&mut self, offsets: &OffsetBuffer<i32>, data: &Buffer) -> Result<[Word; 4], Cause> {
        let (first, last) = ends(offsets);
        let bytes = rebased(offsets);
        let len0 = Word::Value(small(bytes.len())?);
        let buf0 = Word::Place(self.bytes(bytes));
        let len1 = Word::Value(small(last - first)?);
        let buf1 = Word::Place(self.bytes(data.slice_with_length(first, last - first)));
        Ok([buf0, len0, buf1, len1])
    }
}

fn ends(offsets: &OffsetBuffer<i32>) -> (usize, usize) {
    let at = |offset: Option<&i32>| offset.and_then(|o| usize::try_from(*o).ok()).unwrap_or_default();
    (at(offsets.first()), at(offsets.last()))
}

/// Offsets that begin at 0.
fn rebased(offsets: &OffsetBuffer<i32>) -> Buffer {
    match offsets.first() {
        Some(0) | None => offsets.inner().inner().clone(),
        Some(first) => Buffer::from_vec(offsets.iter().map(|o| o - first).collect::<Vec<i32>>()),
    }
}

fn small(number: usize) -> Result<u32, Cause> {
    u32::try_from(number).map_err(|_| Cause::Memory { asked: number as u64, limit: u64::from(u32::MAX) })
}
