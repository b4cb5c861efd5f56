//! Lists and structs.

use std::marker::PhantomData;

use crate::abi::{keep, Col};
use crate::column::{Arg, Cells, Item, Nulls, Output, Writer};
use crate::text::Text;

/// A column of lists.
#[doc(hidden)]
pub struct ListView<'a, T: Arg<'a>> {
    offsets: *const i32,
    items: Cells<'a, T>,
}

impl<'a, T: Arg<'a> + Item> Arg<'a> for Vec<T> {
    const TYPE: Text = Text::of("List(").then(&T::TYPE).raw(")");
    type View = ListView<'a, T>;

    fn view(col: &'a Col) -> Self::View {
        ListView { offsets: col.buf0 as usize as *const i32, items: Cells::of(&col.children()[0]) }
    }

    unsafe fn get(view: &Self::View, row: usize) -> Self {
        let (from, to) = (*view.offsets.add(row) as usize, *view.offsets.add(row + 1) as usize);
        (from..to).map(|at| inner(&view.items, at)).collect()
    }
}

/// A value within another, whose type must have a place for NULL if it can be NULL.
unsafe fn inner<'a, T: Arg<'a>>(cells: &Cells<'a, T>, at: usize) -> T {
    match cells.find(at) {
        Some(value) => value,
        None => panic!("a NULL within a list or struct, and the function has no place for it; take an Option there"),
    }
}

/// Lists that are being written.
#[doc(hidden)]
pub struct ListWriter<W> {
    offsets: Vec<i32>,
    items: W,
    len: i32,
    nulls: Nulls,
}

impl<W: Writer> Writer for ListWriter<W> {
    fn with_rows(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { offsets, items: W::with_rows(rows), len: 0, nulls: Nulls::default() }
    }

    fn push_null(&mut self) {
        self.nulls.push(self.offsets.len() - 1);
        self.offsets.push(self.len);
    }

    fn finish(self) -> Col {
        let rows = self.offsets.len() - 1;
        let (buf0, len0) = keep(self.offsets);
        let (children, _) = keep(vec![self.items.finish()]);
        Col { buf0, len0, nchildren: 1, children, ..self.nulls.finish(20, rows) }
    }
}

impl<T: Output + Item> Output for Vec<T> {
    const TYPE: Text = Text::of("List(").then(&T::TYPE).raw(")");
    type Writer = ListWriter<T::Writer>;

    fn push(writer: &mut Self::Writer, value: Self) {
        writer.len += value.len() as i32;
        for item in value {
            T::push(&mut writer.items, item);
        }
        writer.offsets.push(writer.len);
    }
}

impl<T> Item for Vec<T> {}

/// A field of a column of structs.
#[doc(hidden)]
pub struct StructView<'a, T: Arg<'a>>(Cells<'a, T>, PhantomData<&'a T>);

impl<'a, T: Arg<'a>> StructView<'a, T> {
    /// Field `at`.
    pub fn of(col: &'a Col, at: usize) -> Self {
        Self(Cells::of(&col.children()[at]), PhantomData)
    }

    /// # Safety
    /// There is such a row.
    pub unsafe fn get(&self, row: usize) -> T {
        inner(&self.0, row)
    }
}

/// What all structs that are being written have.
#[doc(hidden)]
#[derive(Default)]
pub struct StructBuilder {
    rows: usize,
    nulls: Nulls,
}

impl StructBuilder {
    /// Counts a row.
    pub fn push(&mut self, valid: bool) {
        if !valid {
            self.nulls.push(self.rows);
        }
        self.rows += 1;
    }

    /// The column.
    pub fn finish(self, fields: Vec<Col>) -> Col {
        let nchildren = fields.len() as u32;
        let (children, _) = keep(fields);
        Col { nchildren, children, ..self.nulls.finish(21, self.rows) }
    }
}

/// Declares a struct type.
///
/// ```
/// sparklet_udf::record! {
///     /// A point of the plane.
///     #[derive(Debug, Clone)]
///     pub struct Point { pub x: f64, pub y: Option<f64> }
/// }
/// ```
/// In SQL it is `Struct(x: Float64, y: Float64)`. Fields are owned types, at most as many as fit a line of 4 kB.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $type:ty),+ $(,)? }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type),+ }

        const _: () = {
            use $crate::glue::{Col, StructBuilder, StructView, Text, Writer};

            const TYPE: Text = {
                let text = Text::of("Struct(");
                let mut first = true;
                $(
                    let text = if first { text } else { text.raw(", ") };
                    first = false;
                    let text = text.raw(stringify!($field)).raw(": ").then(&<$type as $crate::Output>::TYPE);
                )+
                let _ = first;
                text.raw(")")
            };

            #[allow(non_camel_case_types)]
            pub struct View<'a, $($field),+> { $($field: $field,)+ lives: ::std::marker::PhantomData<&'a Col> }

            impl<'a> $crate::Arg<'a> for $name {
                const TYPE: Text = TYPE;
                type View = View<'a, $(StructView<'a, $type>),+>;

                fn view(col: &'a Col) -> Self::View {
                    let mut at = 0;
                    $(
                        let $field = StructView::of(col, at);
                        at += 1;
                    )+
                    let _ = at;
                    View { $($field,)+ lives: ::std::marker::PhantomData }
                }

                unsafe fn get(view: &Self::View, row: usize) -> Self {
                    $name { $($field: view.$field.get(row)),+ }
                }
            }

            pub struct Fields { own: StructBuilder, $($field: <$type as $crate::Output>::Writer),+ }

            impl Writer for Fields {
                fn with_rows(rows: usize) -> Self {
                    Self { own: StructBuilder::default(), $($field: Writer::with_rows(rows)),+ }
                }

                fn push_null(&mut self) {
                    self.own.push(false);
                    $(self.$field.push_null();)+
                }

                fn finish(self) -> Col {
                    self.own.finish(::std::vec![$(self.$field.finish()),+])
                }
            }

            impl $crate::Output for $name {
                const TYPE: Text = TYPE;
                type Writer = Fields;

                fn push(writer: &mut Fields, value: Self) {
                    writer.own.push(true);
                    $(<$type as $crate::Output>::push(&mut writer.$field, value.$field);)+
                }
            }

            impl $crate::Item for $name {}
        };
    };
}
