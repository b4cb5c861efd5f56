//! Scalar functions.

use std::fmt::Display;

use crate::abi::{begin_call, fail, Batch, Col};
use crate::column::{Output, Writer};
use crate::row::{Columns, Row};

/// What a function may return: a value, or a value or an error.
pub trait Return {
    /// The value.
    type Value: Output;
    /// The value, or the message of the error.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl<T: Output> Return for T {
    type Value = T;

    #[inline]
    fn outcome(self) -> Result<T, String> {
        Ok(self)
    }
}

impl<T: Output, E: Display> Return for Result<T, E> {
    type Value = T;

    #[inline]
    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Calls `function` for every row; a status.
pub fn call<'a, A: Row<'a>, R: Return>(batch: &'a Batch, out: &mut Col, function: impl Fn(A) -> R) -> i32 {
    begin_call();
    let rows = batch.rows();
    if let Some(status) = wrong_arguments::<A>(batch) {
        return status;
    }
    let columns = A::columns(batch);
    let mut writer = <R::Value as Output>::Writer::with_rows(rows);
    if columns.are_plain() {
        for row in 0..rows {
            // SAFETY: the columns are plain and have `rows` rows, for which the writer was made.
            match function(unsafe { columns.get(row) }).outcome() {
                Ok(value) => unsafe { R::Value::push_reserved(&mut writer, value) },
                Err(message) => return fail(message, Some(row)),
            }
        }
    } else {
        for row in 0..rows {
            // SAFETY: the columns have `rows` rows, or one for all.
            match unsafe { columns.find(row) }.map(|arguments| function(arguments).outcome()) {
                Some(Ok(value)) => R::Value::push(&mut writer, value),
                Some(Err(message)) => return fail(message, Some(row)),
                None => writer.push_null(),
            }
        }
    }
    *out = writer.finish();
    0
}

/// The status to return where a batch has another number of arguments than the function.
pub(crate) fn wrong_arguments<'a, A: Row<'a>>(batch: &Batch) -> Option<i32> {
    let given = batch.columns().len();
    (given != A::LEN).then(|| fail(format!("called with {given} arguments, takes {}", A::LEN), None))
}

/// Declares scalar functions.
///
/// ```
/// sparklet_udf::scalar! {
///     /// How much of the price is left.
///     #[name = "margin"]
///     #[volatility = "immutable"]
///     fn margin_of(price: f64, cost: Option<f64>) -> f64 { price - cost.unwrap_or(0.0) }
/// }
/// ```
/// The name in SQL is that of the function unless `#[name]` says otherwise; several functions with one name and
/// different arguments are overloads. `#[volatility]` is `immutable` (the same arguments, the same result; so it is
/// unless said), `stable` (within a query) or `volatile`. At most eight arguments; a type written as `&str` has no
/// lifetime.
#[macro_export]
macro_rules! scalar {
    () => {};
    (
        $(#[doc = $doc:literal])* #[name = $sql:literal] #[volatility = $volatility:literal]
        $vis:vis fn $name:ident ($($arg:ident : $type:ty),* $(,)?) -> $ret:ty $body:block $($rest:tt)*
    ) => {
        $crate::scalar! { @one [$sql, $volatility, concat!($($doc, "\n"),*)]
            $(#[doc = $doc])* $vis fn $name($($arg: $type),*) -> $ret $body }
        $crate::scalar! { $($rest)* }
    };
    (
        $(#[doc = $doc:literal])* #[name = $sql:literal]
        $vis:vis fn $name:ident ($($arg:ident : $type:ty),* $(,)?) -> $ret:ty $body:block $($rest:tt)*
    ) => {
        $crate::scalar! { @one [$sql, "immutable", concat!($($doc, "\n"),*)]
            $(#[doc = $doc])* $vis fn $name($($arg: $type),*) -> $ret $body }
        $crate::scalar! { $($rest)* }
    };
    (
        $(#[doc = $doc:literal])* #[volatility = $volatility:literal]
        $vis:vis fn $name:ident ($($arg:ident : $type:ty),* $(,)?) -> $ret:ty $body:block $($rest:tt)*
    ) => {
        $crate::scalar! { @one [stringify!($name), $volatility, concat!($($doc, "\n"),*)]
            $(#[doc = $doc])* $vis fn $name($($arg: $type),*) -> $ret $body }
        $crate::scalar! { $($rest)* }
    };
    (
        $(#[doc = $doc:literal])*
        $vis:vis fn $name:ident ($($arg:ident : $type:ty),* $(,)?) -> $ret:ty $body:block $($rest:tt)*
    ) => {
        $crate::scalar! { @one [stringify!($name), "immutable", concat!($($doc, "\n"),*)]
            $(#[doc = $doc])* $vis fn $name($($arg: $type),*) -> $ret $body }
        $crate::scalar! { $($rest)* }
    };
    (
        @one [$sql:expr, $volatility:expr, $doc:expr]
        $(#[$meta:meta])* $vis:vis fn $name:ident ($($arg:ident : $type:ty),*) -> $ret:ty $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) -> $ret $body

        const _: () = {
            use $crate::glue::{Batch, Col, Return, Row, Text};

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name)))]
            extern "C" fn call(batch: &Batch, out: &mut Col) -> i32 {
                $crate::glue::call::<($($type,)*), $ret>(batch, out, |($($arg,)*)| $name($($arg),*))
            }
            let _ = call as extern "C" fn(&Batch, &mut Col) -> i32;

            const JSON: Text = Text::of("{\"name\":\"")
                .escaped($sql)
                .raw("\",\"kind\":\"scalar\",\"export\":\"udf_")
                .raw(stringify!($name))
                .raw("\",\"args\":[")
                .then(&<($($type,)*) as Row<'_>>::TYPES)
                .raw("],\"returns\":\"")
                .then(&<<$ret as Return>::Value as $crate::Output>::TYPE)
                .raw("\",\"nulls\":\"")
                .raw(if <($($type,)*) as Row<'_>>::NULLABLE { "called" } else { "propagate" })
                .raw("\",\"volatility\":\"")
                .raw($volatility)
                .raw("\",\"doc\":\"")
                .escaped($doc)
                .raw("\"}\n");

            #[cfg_attr(target_arch = "wasm32", link_section = "sparklet.udf")]
            #[used]
            pub static SECTION: [u8; JSON.len] = JSON.array();
        };
    };
}
