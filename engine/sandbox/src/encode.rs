//! Arrow columns → one block of a guest's memory, in the layout of udf-sdk/ABI.md.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, StringViewArray};
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
    /// Offsets, to be written such that they begin at 0.
    Offsets(OffsetBuffer<i32>),
    /// Views of strings, to be written as offsets and, at another place, bytes.
    Views(ArrayRef, usize),
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
                Part::Offsets(offsets) => {
                    let first = offsets.first().copied().unwrap_or_default();
                    let places = place[*at..].chunks_exact_mut(4);
                    offsets.iter().zip(places).for_each(|(o, place)| place.copy_from_slice(&(o - first).to_le_bytes()));
                }
                Part::Views(array, data) => {
                    let Some((views, buffers)) = views(array) else { continue };
                    let (before, data) = place.split_at_mut(*data);
                    write_views(views, buffers, &mut before[*at..], data);
                }
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
            DataType::Utf8View | DataType::BinaryView => buffers = self.views(array)?,
            DataType::Binary => {
                let binary = array.as_binary::<i32>();
                buffers = self.variable(binary.offsets(), binary.values())?;
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let (first, last) = ends(list.offsets());
                [buffers[0], buffers[1]] = self.offsets(list.offsets())?;
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
        let [buf0, len0] = self.offsets(offsets)?;
        let len1 = Word::Value(small(last - first)?);
        let buf1 = Word::Place(self.bytes(data.slice_with_length(first, last - first)));
        Ok([buf0, len0, buf1, len1])
    }

    fn offsets(&mut self, offsets: &OffsetBuffer<i32>) -> Result<[Word; 2], Cause> {
        let len = 4 * offsets.len();
        let at = self.room(len);
        self.parts.push((at, Part::Offsets(offsets.clone())));
        Ok([Word::Place(at), Word::Value(small(len)?)])
    }

    fn views(&mut self, array: &ArrayRef) -> Result<[Word; 4], Cause> {
        let (len0, len1) = (4 * (array.len() + 1), views(array).map_or(0, |(views, _)| view_bytes(views)));
        let (buf0, buf1) = (self.room(len0), self.room(len1 + INLINE));
        self.parts.push((buf0, Part::Views(Arc::clone(array), buf1)));
        Ok([Word::Place(buf0), Word::Value(small(len0)?), Word::Place(buf1), Word::Value(small(len1)?)])
    }
}

/// Bytes that a view has in itself.
const INLINE: usize = 12;

/// Views and what they point into, if `array` has any.
pub(crate) fn views(array: &ArrayRef) -> Option<(&[u128], &[Buffer])> {
    let strings = array.as_any().downcast_ref::<StringViewArray>().map(|a| (&**a.views(), a.data_buffers()));
    strings.or_else(|| array.as_any().downcast_ref::<BinaryViewArray>().map(|a| (&**a.views(), a.data_buffers())))
}

/// Bytes of all that `views` show.
pub(crate) fn view_bytes(views: &[u128]) -> usize {
    views.iter().map(|view| view_len(*view)).sum()
}

/// The lowest 32 bits of a view are its length.
fn view_len(view: u128) -> usize {
    (view & u128::from(u32::MAX)) as usize
}

/// Writes `offsets`, and to `data`, which has room for them and [`INLINE`] bytes more, the bytes.
fn write_views(views: &[u128], buffers: &[Buffer], offsets: &mut [u8], data: &mut [u8]) {
    let mut end = 0;
    let mut places = offsets.chunks_exact_mut(4);
    let mut note = |end: usize| {
        if let Some(place) = places.next() {
            place.copy_from_slice(&(end as u32).to_le_bytes());
        }
    };
    note(0);
    for view in views {
        let len = view_len(*view);
        if len <= INLINE {
            // All of it, which is one instruction or two: the next one begins where this one ends.
            data[end..end + INLINE].copy_from_slice(&view.to_le_bytes()[4..]);
        } else {
            let (buffer, start) = ((*view >> 64) as u32 as usize, (*view >> 96) as usize);
            // What stands where a row is NULL may point nowhere.
            if let Some(bytes) = buffers.get(buffer).and_then(|b| b.as_slice().get(start..start + len)) {
                data[end..end + len].copy_from_slice(bytes);
            }
        }
        end += len;
        note(end);
    }
}

fn ends(offsets: &OffsetBuffer<i32>) -> (usize, usize) {
    let at = |offset: Option<&i32>| offset.and_then(|o| usize::try_from(*o).ok()).unwrap_or_default();
    (at(offsets.first()), at(offsets.last()))
}

fn small(number: usize) -> Result<u32, Cause> {
    u32::try_from(number).map_err(|_| Cause::Memory { asked: number as u64, limit: u64::from(u32::MAX) })
}
