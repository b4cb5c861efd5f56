//! Rows of arguments and of results, as tuples.

use crate::abi::{Batch, Col};
use crate::column::{view, Arg, Column, Output, Writer};
use crate::text::Text;

/// The arguments of one row: a tuple of up to eight.
pub trait Row<'a>: Sized {
    /// The types, as items of a JSON array.
    const TYPES: Text;
    /// Whether one of them takes NULL.
    const NULLABLE: bool;
    /// How many there are.
    const LEN: usize;
    /// The columns.
    type Columns: Columns<Self>;
    /// Opens the columns of a batch.
    fn columns(batch: &'a Batch) -> Self::Columns;
}

/// Columns that are read row by row.
pub trait Columns<R> {
    /// Whether each row has values of its own, and all arguments at that.
    fn are_plain(&self) -> bool;
    /// # Safety
    /// The columns are plain and have this row.
    unsafe fn get(&self, row: usize) -> R;
    /// The values, or none where one is NULL that may not be.
    ///
    /// # Safety
    /// The columns have this row.
    unsafe fn find(&self, row: usize) -> Option<R>;
}

/// A row of a result with several columns.
pub trait RowOutput: Sized {
    /// The types, as items of a JSON array.
    const TYPES: Text;
    /// The columns.
    type Writers;
    /// Columns for `rows` rows.
    fn writers(rows: usize) -> Self::Writers;
    /// Adds a row.
    fn push(self, writers: &mut Self::Writers);
    /// The columns.
    fn finish(writers: Self::Writers) -> Vec<Col>;
}

macro_rules! tuples {
    ($($len:literal: $($name:ident $at:tt)*;)*) => {$(
        #[allow(unused_variables, clippy::unused_unit)]
        impl<'a, $($name: Arg<'a>),*> Row<'a> for ($($name,)*) {
            const TYPES: Text = Text::new()$(.raw(if $at == 0 { "\"" } else { ",\"" }).then(&$name::TYPE).raw("\""))*;
            const NULLABLE: bool = false $(|| $name::NULLABLE)*;
            const LEN: usize = $len;
            type Columns = ($(Column<'a, $name>,)*);

            fn columns(batch: &'a Batch) -> Self::Columns {
                ($(view::<$name>(batch, $at),)*)
            }
        }

        #[allow(unused_variables, clippy::unused_unit)]
        impl<'a, $($name: Arg<'a>),*> Columns<($($name,)*)> for ($(Column<'a, $name>,)*) {
            fn are_plain(&self) -> bool {
                true $(&& self.$at.is_plain())*
            }

            #[inline]
            unsafe fn get(&self, row: usize) -> ($($name,)*) {
                ($(self.$at.get(row),)*)
            }

            #[inline]
            unsafe fn find(&self, row: usize) -> Option<($($name,)*)> {
                Some(($(self.$at.find(row)?,)*))
            }
        }

        #[allow(unused_variables, clippy::unused_unit)]
        impl<$($name: Output),*> RowOutput for ($($name,)*) {
            const TYPES: Text = Text::new()$(.raw(if $at == 0 { "\"" } else { ",\"" }).then(&$name::TYPE).raw("\""))*;
            type Writers = ($($name::Writer,)*);

            fn writers(rows: usize) -> Self::Writers {
                ($($name::Writer::with_rows(rows),)*)
            }

            fn push(self, writers: &mut Self::Writers) {
                $($name::push(&mut writers.$at, self.$at);)*
            }

            fn finish(writers: Self::Writers) -> Vec<Col> {
                vec![$(writers.$at.finish()),*]
            }
        }
    )*};
}

tuples! {
    0: ;
    1: A 0;
    2: A 0 B 1;
    3: A 0 B 1 C 2;
    4: A 0 B 1 C 2 D 3;
    5: A 0 B 1 C 2 D 3 E 4;
    6: A 0 B 1 C 2 D 3 E 4 F 5;
    7: A 0 B 1 C 2 D 3 E 4 F 5 G 6;
    8: A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7;
}
