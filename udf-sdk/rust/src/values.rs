//! Types whose values are single: numbers, booleans, texts, bytes, times, decimals.

use std::marker::PhantomData;

use crate::abi::{keep, Col};
use crate::column::{bit, Arg, Bits, Item, Nulls, Output, Writer};
use crate::text::Text;

/// A value that lies in a buffer as it is.
#[doc(hidden)]
pub trait Fixed: Copy + 'static {
    /// The code of its type.
    const KIND: u32;
    /// Parameters of the type.
    const PARAMETERS: (u32, u32) = (0, 0);
}

/// A column of fixed values.
#[doc(hidden)]
pub struct FixedView<'a, T>(*const T, PhantomData<&'a T>);

impl<T> FixedView<'_, T> {
    pub(crate) fn of(col: &Col) -> Self {
        Self(address(col.buf0), PhantomData)
    }
}

/// A pointer that is never null: an empty buffer may be at 0.
fn address<T>(at: u32) -> *const T {
    if at == 0 {
        std::ptr::NonNull::dangling().as_ptr()
    } else {
        at as usize as *const T
    }
}

/// Fixed values that are being written.
#[doc(hidden)]
pub struct FixedWriter<T> {
    values: Vec<T>,
    nulls: Nulls,
}

impl<T: Fixed> Writer for FixedWriter<T> {
    fn with_rows(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), nulls: Nulls::default() }
    }

    fn push_null(&mut self) {
        self.nulls.push(self.values.len());
        // SAFETY: every fixed type is a number, for which zero is a value.
        self.values.push(unsafe { std::mem::zeroed() });
    }

    fn finish(self) -> Col {
        let rows = self.values.len();
        let (buf0, len0) = keep(self.values);
        let (p0, p1) = T::PARAMETERS;
        Col { buf0, len0, p0, p1, ..self.nulls.finish(T::KIND, rows) }
    }
}

/// Reads and writes a type whose values are fixed.
macro_rules! fixed {
    ($type:ty, $text:expr $(, $($generic:tt)*)?) => {
        impl<'a $(, $($generic)*)?> Arg<'a> for $type {
            const TYPE: Text = $text;
            type View = FixedView<'a, $type>;

            fn view(col: &'a Col) -> Self::View {
                FixedView::of(col)
            }

            #[inline]
            unsafe fn get(view: &Self::View, row: usize) -> Self {
                *view.0.add(row)
            }
        }

        impl $(<$($generic)*>)? Output for $type {
            const TYPE: Text = $text;
            type Writer = FixedWriter<$type>;

            #[inline]
            fn push(writer: &mut Self::Writer, value: Self) {
                writer.values.push(value);
            }

            #[inline]
            unsafe fn push_reserved(writer: &mut Self::Writer, value: Self) {
                let len = writer.values.len();
                *writer.values.as_mut_ptr().add(len) = value;
                writer.values.set_len(len + 1);
            }
        }
    };
}

macro_rules! numbers {
    ($($type:ty, $name:literal, $kind:literal;)*) => {$(
        impl Fixed for $type {
            const KIND: u32 = $kind;
        }
        fixed!($type, Text::of($name));
    )*};
}

numbers! {
    i8, "Int8", 2;
    i16, "Int16", 3;
    i32, "Int32", 4;
    i64, "Int64", 5;
    u8, "UInt8", 6;
    u16, "UInt16", 7;
    u32, "UInt32", 8;
    u64, "UInt64", 9;
    f32, "Float32", 10;
    f64, "Float64", 11;
}

/// Lists of numbers as they lie in memory.
macro_rules! slices {
    ($($type:ty)*) => {$(
        impl Item for $type {}

        /// A list of numbers without NULLs, as it lies in memory.
        impl<'a> Arg<'a> for &'a [$type] {
            const TYPE: Text = Text::of("List(").then(&<$type as Output>::TYPE).raw(")");
            type View = (FixedView<'a, i32>, FixedView<'a, $type>);

            fn view(col: &'a Col) -> Self::View {
                let items = &col.children()[0];
                assert!(items.null_count == 0, "a list has a NULL item, and the function has no place for it");
                (FixedView::of(col), FixedView::of(items))
            }

            #[inline]
            unsafe fn get((offsets, items): &Self::View, row: usize) -> Self {
                let (from, to) = (*offsets.0.add(row) as usize, *offsets.0.add(row + 1) as usize);
                std::slice::from_raw_parts(items.0.add(from), to - from)
            }
        }
    )*};
}

slices! { i8 i16 i32 i64 u16 u32 u64 f32 f64 }

/// A day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Date(pub i32);

impl Fixed for Date {
    const KIND: u32 = 15;
}
fixed!(Date, Text::of("Date32"));
impl Item for Date {}

/// What a time is counted in.
pub trait Unit: Copy + 'static {
    /// Its name in SQL.
    const NAME: &'static str;
    /// Its code.
    const CODE: u32;
    /// How many there are in a second.
    const PER_SECOND: i64;
}

macro_rules! units {
    ($($(#[$doc:meta])* $type:ident, $name:literal, $code:literal, $per_second:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $type;

        impl Unit for $type {
            const NAME: &'static str = $name;
            const CODE: u32 = $code;
            const PER_SECOND: i64 = $per_second;
        }
    )*};
}

units! {
    /// Seconds.
    Seconds, "s", 0, 1;
    /// Milliseconds.
    Millis, "ms", 1, 1_000;
    /// Microseconds.
    Micros, "us", 2, 1_000_000;
    /// Nanoseconds.
    Nanos, "ns", 3, 1_000_000_000;
}

macro_rules! times {
    ($($(#[$doc:meta])* $type:ident, $kind:literal, $utc:literal, $open:literal, $close:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[repr(transparent)]
        pub struct $type<U>(i64, PhantomData<U>);

        impl<U: Unit> $type<U> {
            /// From a count of `U`.
            #[must_use]
            pub const fn new(count: i64) -> Self {
                Self(count, PhantomData)
            }

            /// The count of `U`.
            #[must_use]
            pub const fn count(self) -> i64 {
                self.0
            }
        }

        impl<U: Unit> Fixed for $type<U> {
            const KIND: u32 = $kind;
            const PARAMETERS: (u32, u32) = (U::CODE, $utc);
        }
        fixed!($type<U>, Text::of($open).raw(U::NAME).raw($close), U: Unit);
        impl<U> Item for $type<U> {}
    )*};
}

times! {
    /// A time without a zone, counted in `U` from 1970-01-01 00:00:00.
    Timestamp, 16, 0, "Timestamp(", ")";
    /// A time in UTC, counted in `U` from 1970-01-01 00:00:00 UTC.
    TimestampUtc, 16, 1, "Timestamp(", ",UTC)";
    /// A length of time, counted in `U`.
    Duration, 17, 0, "Duration(", ")";
}

/// A decimal of `P` digits, `S` of them behind the point.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Decimal<const P: u8, const S: i8>(i128);

impl<const P: u8, const S: i8> Decimal<P, S> {
    /// From a count of units in the last place: 123 is 1.23 where `S` is 2.
    #[must_use]
    pub const fn new(units: i128) -> Self {
        Self(units)
    }

    /// The count of units in the last place.
    #[must_use]
    pub const fn units(self) -> i128 {
        self.0
    }
}

impl<const P: u8, const S: i8> Fixed for Decimal<P, S> {
    const KIND: u32 = 14;
    const PARAMETERS: (u32, u32) = (P as u32, S as i32 as u32);
}
fixed!(
    Decimal<P, S>,
    Text::of("Decimal128(").number(P as i16).raw(",").number(S as i16).raw(")"),
    const P: u8,
    const S: i8
);
impl<const P: u8, const S: i8> Item for Decimal<P, S> {}

/// A column of booleans.
#[doc(hidden)]
pub struct BoolView<'a>(*const u8, PhantomData<&'a u8>);

impl<'a> Arg<'a> for bool {
    const TYPE: Text = Text::of("Boolean");
    type View = BoolView<'a>;

    fn view(col: &'a Col) -> Self::View {
        BoolView(address(col.buf0), PhantomData)
    }

    #[inline]
    unsafe fn get(view: &Self::View, row: usize) -> Self {
        bit(view.0, row)
    }
}

/// Booleans that are being written.
#[doc(hidden)]
pub struct BoolWriter {
    bits: Bits,
    nulls: Nulls,
    rows: usize,
}

impl Writer for BoolWriter {
    fn with_rows(rows: usize) -> Self {
        Self { bits: Bits::with_bits(rows), nulls: Nulls::default(), rows: 0 }
    }

    fn push_null(&mut self) {
        self.nulls.push(self.rows);
        self.bits.push(false);
        self.rows += 1;
    }

    fn finish(self) -> Col {
        let (buf0, len0) = self.bits.finish();
        Col { buf0, len0, ..self.nulls.finish(1, self.rows) }
    }
}

impl Output for bool {
    const TYPE: Text = Text::of("Boolean");
    type Writer = BoolWriter;

    fn push(writer: &mut Self::Writer, value: Self) {
        writer.bits.push(value);
        writer.rows += 1;
    }
}
impl Item for bool {}

/// A column of texts or bytes.
#[doc(hidden)]
pub struct BytesView<'a> {
    offsets: *const i32,
    data: *const u8,
    lives: PhantomData<&'a u8>,
}

impl<'a> BytesView<'a> {
    fn of(col: &'a Col) -> Self {
        Self { offsets: address(col.buf0), data: address(col.buf1), lives: PhantomData }
    }

    unsafe fn get(&self, row: usize) -> &'a [u8] {
        let (from, to) = (*self.offsets.add(row) as usize, *self.offsets.add(row + 1) as usize);
        std::slice::from_raw_parts(self.data.add(from), to - from)
    }
}

/// Texts or bytes that are being written.
#[doc(hidden)]
pub struct BytesWriter<const KIND: u32> {
    offsets: Vec<i32>,
    data: Vec<u8>,
    nulls: Nulls,
}

impl<const KIND: u32> BytesWriter<KIND> {
    fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.offsets.push(self.data.len() as i32);
    }
}

impl<const KIND: u32> Writer for BytesWriter<KIND> {
    fn with_rows(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, data: Vec::with_capacity(rows * 8), nulls: Nulls::default() }
    }

    fn push_null(&mut self) {
        self.nulls.push(self.offsets.len() - 1);
        self.push(&[]);
    }

    fn finish(self) -> Col {
        let rows = self.offsets.len() - 1;
        let ((buf0, len0), (buf1, len1)) = (keep(self.offsets), keep(self.data));
        Col { buf0, len0, buf1, len1, ..self.nulls.finish(KIND, rows) }
    }
}

macro_rules! bytes {
    ($($borrowed:ty, $owned:ty, $name:literal, $kind:literal, $from:expr, $bytes:expr;)*) => {$(
        impl<'a> Arg<'a> for &'a $borrowed {
            const TYPE: Text = Text::of($name);
            type View = BytesView<'a>;

            fn view(col: &'a Col) -> Self::View {
                BytesView::of(col)
            }

            #[inline]
            unsafe fn get(view: &Self::View, row: usize) -> Self {
                $from(view.get(row))
            }
        }

        impl<'a> Arg<'a> for $owned {
            const TYPE: Text = Text::of($name);
            type View = BytesView<'a>;

            fn view(col: &'a Col) -> Self::View {
                BytesView::of(col)
            }

            #[inline]
            unsafe fn get(view: &Self::View, row: usize) -> Self {
                <$owned>::from(<&'a $borrowed>::get(view, row))
            }
        }

        impl Output for $owned {
            const TYPE: Text = Text::of($name);
            type Writer = BytesWriter<$kind>;

            fn push(writer: &mut Self::Writer, value: Self) {
                writer.push($bytes(&value));
            }
        }

        impl Output for &$borrowed {
            const TYPE: Text = Text::of($name);
            type Writer = BytesWriter<$kind>;

            fn push(writer: &mut Self::Writer, value: Self) {
                writer.push($bytes(value));
            }
        }

        impl Item for &$borrowed {}
    )*};
}

bytes! {
    // The host checked that it is UTF-8.
    str, String, "Utf8", 12, |bytes: &'a [u8]| std::str::from_utf8_unchecked(bytes), str::as_bytes;
    [u8], Vec<u8>, "Binary", 13, |bytes: &'a [u8]| bytes, |bytes| bytes;
}

impl Item for String {}
