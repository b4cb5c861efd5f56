//! Table functions.

use std::fmt::Display;

use crate::abi::{begin_call, fail, Batch};
use crate::aggregate::write;
use crate::row::{Columns, Row, RowOutput};
use crate::scalar::wrong_arguments;

/// How many rows are handed over at once.
const ROWS: usize = 8192;

/// The rows of a call that are still to come.
pub struct Cursor<R>(Box<dyn Iterator<Item = R>>);

impl<R> Cursor<R> {
    /// The rows of `rows`.
    pub fn new<I>(rows: I) -> Self
    where
        I: IntoIterator<Item = R>,
        I::IntoIter: 'static,
    {
        Self(Box::new(rows.into_iter()))
    }
}

/// Calls `function` for the one row of the batch; a handle to its rows, or a status.
pub fn open<'a, A: Row<'a>, R: 'static, E: Display>(
    batch: &'a Batch,
    function: impl Fn(A) -> Result<Cursor<R>, E>,
) -> isize {
    begin_call();
    if let Some(status) = wrong_arguments::<A>(batch) {
        return status as isize;
    }
    // SAFETY: the batch has one row.
    let cursor = match unsafe { A::columns(batch).find(0) } {
        Some(arguments) => match function(arguments) {
            Ok(cursor) => cursor,
            Err(error) => return fail(error.to_string(), Some(0)) as isize,
        },
        None => Cursor::new(None),
    };
    Box::into_raw(Box::new(cursor)) as isize
}

/// Writes the next rows to `out`: 0, or 1 where there are none.
///
/// # Safety
/// The handle came from `open` and was not closed.
pub unsafe fn next<R: RowOutput>(handle: usize, out: &mut Batch) -> i32 {
    begin_call();
    let cursor = &mut *(handle as *mut Cursor<R>);
    let mut writers = R::writers(0);
    let mut rows = 0;
    for row in cursor.0.by_ref().take(ROWS) {
        row.push(&mut writers);
        rows += 1;
    }
    if rows == 0 {
        return 1;
    }
    write(R::finish(writers), rows, out);
    0
}

/// # Safety
/// As for [`next`]; the handle ends here.
pub unsafe fn close<R>(handle: usize) {
    drop(Box::from_raw(handle as *mut Cursor<R>));
}

/// Declares table functions.
///
/// ```
/// sparklet_udf::table! {
///     /// The words of a text, and where they are.
///     fn words(text: String) -> [word: String, at: i32] {
///         text.split_whitespace().map(str::to_owned).zip(0..).collect::<Vec<_>>()
///     }
///
///     fn countdown(from: i64) -> Result<[n: i64]> {
///         if from < 0 { return Err("begins below zero".into()) }
///         Ok((0..=from).rev().map(|n| (n,)))
///     }
/// }
/// ```
/// The body gives an iterator over tuples, or a result with one. It may not borrow from the arguments: they are gone
/// when the rows are asked for. A NULL argument gives no rows unless the type there is an `Option`.
#[macro_export]
macro_rules! table {
    () => {};
    (
        $(#[doc = $doc:literal])* $vis:vis fn $name:ident ($($arg:ident : $type:ty),* $(,)?)
        -> [$($column:ident : $output:ty),+ $(,)?] $body:block $($rest:tt)*
    ) => {
        $crate::table! {
            @one ($($doc)*) $name ($($arg: $type),*) ($($column: $output),+)
            {
                $(#[doc = $doc])*
                $vis fn $name($($arg: $type),*) -> impl IntoIterator<Item = ($($output,)+), IntoIter = impl Iterator<Item = ($($output,)+)> + 'static> $body
            }
            { |rows| ::std::result::Result::<_, $crate::Error>::Ok(rows) }
        }
        $crate::table! { $($rest)* }
    };
    (
        $(#[doc = $doc:literal])* $vis:vis fn $name:ident ($($arg:ident : $type:ty),* $(,)?)
        -> Result<[$($column:ident : $output:ty),+ $(,)?]> $body:block $($rest:tt)*
    ) => {
        $crate::table! {
            @one ($($doc)*) $name ($($arg: $type),*) ($($column: $output),+)
            {
                $(#[doc = $doc])*
                $vis fn $name($($arg: $type),*) -> $crate::Result<impl IntoIterator<Item = ($($output,)+), IntoIter = impl Iterator<Item = ($($output,)+)> + 'static>> $body
            }
            { |rows| rows }
        }
        $crate::table! { $($rest)* }
    };
    (@one ($($doc:literal)*) $name:ident ($($arg:ident : $type:ty),*) ($($column:ident : $output:ty),+) { $function:item } { $result:expr }) => {
        $function

        const _: () = {
            use $crate::glue::{Batch, Cursor, Row, Text};

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_open"))]
            extern "C" fn open(batch: &Batch) -> isize {
                $crate::glue::open::<($($type,)*), ($($output,)+), _>(batch, |($($arg,)*)| {
                    let result = $result;
                    result($name($($arg),*)).map(Cursor::new)
                })
            }

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_next"))]
            unsafe extern "C" fn next(handle: usize, out: &mut Batch) -> i32 {
                $crate::glue::next::<($($output,)+)>(handle, out)
            }

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_close"))]
            unsafe extern "C" fn close(handle: usize) {
                $crate::glue::close::<($($output,)+)>(handle)
            }

            const JSON: Text = Text::of("{\"name\":\"")
                .escaped(stringify!($name))
                .raw("\",\"kind\":\"table\",\"export\":\"udf_")
                .raw(stringify!($name))
                .raw("\",\"args\":[")
                .then(&<($($type,)*) as Row<'_>>::TYPES)
                .raw("],\"columns\":[")
                $(
                    .comma()
                    .raw("[\"")
                    .escaped(stringify!($column))
                    .raw("\",\"")
                    .then(&<$output as $crate::Output>::TYPE)
                    .raw("\"]")
                )+
                .raw("],\"doc\":\"")
                .escaped(concat!($($doc, "\n"),*))
                .raw("\"}\n");

            #[cfg_attr(target_arch = "wasm32", link_section = "sparklet.udf")]
            #[used]
            pub static SECTION: [u8; JSON.len] = JSON.array();
        };
    };
}
