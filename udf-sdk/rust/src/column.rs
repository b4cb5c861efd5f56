//! How Rust types are read from columns and written to them.

use std::marker::PhantomData;

use crate::abi::{keep, Batch, Col};
use crate::text::Text;

/// A type of an argument.
pub trait Arg<'a>: Sized {
    /// What SQL calls it.
    #[doc(hidden)]
    const TYPE: Text;
    /// Whether NULL is one of its values.
    #[doc(hidden)]
    const NULLABLE: bool = false;
    /// A column of it.
    #[doc(hidden)]
    type View;
    #[doc(hidden)]
    fn view(col: &'a Col) -> Self::View;
    /// # Safety
    /// The column has this row, and it is valid unless `NULLABLE`.
    #[doc(hidden)]
    unsafe fn get(view: &Self::View, row: usize) -> Self;
}

/// A type of a result.
pub trait Output: Sized {
    /// What SQL calls it.
    #[doc(hidden)]
    const TYPE: Text;
    #[doc(hidden)]
    type Writer: Writer;
    #[doc(hidden)]
    fn push(writer: &mut Self::Writer, value: Self);
    /// # Safety
    /// The writer was made for more rows than it has.
    #[doc(hidden)]
    unsafe fn push_reserved(writer: &mut Self::Writer, value: Self) {
        Self::push(writer, value);
    }
}

/// A type that a list may hold: all but `u8`, whose lists are `Binary`. (`Vec<Option<u8>>` is a list.)
pub trait Item {}

/// A column that is being written.
pub trait Writer {
    /// A column for `rows` rows; more may follow.
    fn with_rows(rows: usize) -> Self;
    /// Adds a NULL.
    fn push_null(&mut self);
    /// The column; its memory stays until the next call.
    fn finish(self) -> Col;
}

/// The column `at` of a batch, read as `T`.
pub fn view<'a, T: Arg<'a>>(batch: &'a Batch, at: usize) -> Column<'a, T> {
    let col = &batch.columns()[at];
    Column { cells: Cells::of(col), mask: if col.is_const() { 0 } else { usize::MAX } }
}

/// A column of an argument; one row may stand for all.
pub struct Column<'a, T: Arg<'a>> {
    cells: Cells<'a, T>,
    mask: usize,
}

impl<'a, T: Arg<'a>> Column<'a, T> {
    /// Whether each row has a value of its own.
    pub fn is_plain(&self) -> bool {
        self.mask != 0 && (T::NULLABLE || self.cells.validity.is_none())
    }

    /// # Safety
    /// The column is plain and has this row.
    pub unsafe fn get(&self, row: usize) -> T {
        T::get(&self.cells.view, row)
    }

    /// The value, or none where it is NULL and `T` has no place for that.
    ///
    /// # Safety
    /// The column has this row.
    pub unsafe fn find(&self, row: usize) -> Option<T> {
        self.cells.find(row & self.mask)
    }
}

/// Values, each of which may be NULL.
pub struct Cells<'a, T: Arg<'a>> {
    view: T::View,
    validity: Validity,
    lives: PhantomData<&'a Col>,
}

impl<'a, T: Arg<'a>> Cells<'a, T> {
    pub(crate) fn of(col: &'a Col) -> Self {
        Self { view: T::view(col), validity: Validity::of(col), lives: PhantomData }
    }

    /// # Safety
    /// There is such a row.
    pub(crate) unsafe fn find(&self, row: usize) -> Option<T> {
        if T::NULLABLE || self.validity.is_valid(row) {
            Some(T::get(&self.view, row))
        } else {
            None
        }
    }
}

/// Which rows are not NULL.
#[derive(Clone, Copy)]
pub struct Validity(*const u8);

impl Validity {
    pub(crate) fn of(col: &Col) -> Self {
        Self(col.validity as usize as *const u8)
    }

    fn is_none(self) -> bool {
        self.0.is_null()
    }

    /// # Safety
    /// There is such a row.
    pub(crate) unsafe fn is_valid(self, row: usize) -> bool {
        self.0.is_null() || bit(self.0, row)
    }
}

/// # Safety
/// The bitmap has this bit.
pub(crate) unsafe fn bit(bitmap: *const u8, at: usize) -> bool {
    *bitmap.add(at / 8) & (1 << (at % 8)) != 0
}

/// Bits that are being written, LSB first.
#[derive(Default)]
pub struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    pub(crate) fn with_bits(bits: usize) -> Self {
        Self { bytes: Vec::with_capacity((bits + 7) / 8), len: 0 }
    }

    pub(crate) fn push(&mut self, bit: bool) {
        if self.len % 8 == 0 {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (self.len % 8);
        }
        self.len += 1;
    }

    fn fill(&mut self, len: usize) {
        while self.len < len {
            self.push(true);
        }
    }

    pub(crate) fn finish(self) -> (u32, u32) {
        keep(self.bytes)
    }
}

/// The NULLs of a column that is being written; nothing as long as there are none.
#[derive(Default)]
pub struct Nulls {
    bits: Bits,
    count: u32,
}

impl Nulls {
    /// Notes a NULL at `row`, which comes after all that were noted before.
    pub(crate) fn push(&mut self, row: usize) {
        self.bits.fill(row);
        self.bits.push(false);
        self.count += 1;
    }

    /// A column of `rows` rows with these NULLs and nothing else.
    pub(crate) fn finish(mut self, kind: u32, rows: usize) -> Col {
        if self.count == 0 {
            return Col { kind, ..Col::default() };
        }
        self.bits.fill(rows);
        Col { kind, null_count: self.count, validity: self.bits.finish().0, ..Col::default() }
    }
}

impl<'a, T: Arg<'a>> Arg<'a> for Option<T> {
    const TYPE: Text = T::TYPE;
    const NULLABLE: bool = true;
    type View = Cells<'a, T>;

    fn view(col: &'a Col) -> Self::View {
        Cells::of(col)
    }

    #[inline]
    unsafe fn get(view: &Self::View, row: usize) -> Self {
        view.find(row)
    }
}

impl<T: Output> Output for Option<T> {
    const TYPE: Text = T::TYPE;
    type Writer = T::Writer;

    #[inline]
    fn push(writer: &mut Self::Writer, value: Self) {
        match value {
            Some(value) => T::push(writer, value),
            None => writer.push_null(),
        }
    }
}

impl<T> Item for Option<T> {}
