//! Functions for sparklet in Rust, compiled to WebAssembly (the columnar ABI, version 1; see `ABI.md`).
//!
//! ```
//! sparklet_udf::scalar! {
//!     /// Lower case, words joined by hyphens.
//!     fn slug(text: &str) -> String {
//!         text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join("-")
//!     }
//!
//!     fn ratio(part: f64, whole: f64) -> Result<f64, String> {
//!         if whole == 0.0 { return Err("the whole is zero".to_string()) }
//!         Ok(part / whole)
//!     }
//! }
//! # assert_eq!(slug("Blue  Suede"), "blue-suede");
//! ```
//!
//! A `NULL` in an argument makes the result `NULL` without a call; a function that wants to see it takes `Option<T>`.
//! [`scalar!`], [`aggregate!`] and [`table!`] declare functions, [`record!`] a struct type. Errors are whatever
//! displays; sparklet shows the message with the function, the module and the row. A panic is an error too.
//!
//! | SQL | argument | result |
//! |---|---|---|
//! | `Boolean`, `Int8` … `UInt64`, `Float32`, `Float64` | `bool`, `i8` … `u64`, `f32`, `f64` | the same |
//! | `Utf8` | `&str`, `String` | `String` |
//! | `Binary` | `&[u8]`, `Vec<u8>` | `Vec<u8>` |
//! | `Date32` | [`Date`] | the same |
//! | `Timestamp`, with UTC, `Duration` | [`Timestamp`], [`TimestampUtc`], [`Duration`] | the same |
//! | `Decimal128(P,S)` | [`Decimal<P, S>`](Decimal) | the same |
//! | `List(T)` | `Vec<T>`, `Vec<Option<T>>` | the same |
//! | `Struct(…)` | a [`record!`] | the same |
//!
//! What is promised to stay: the macros, the types above, [`Aggregate`], [`Error`]. The crate needs Rust 1.63 and nothing else.

#![warn(missing_docs)]

mod abi;
mod aggregate;
mod column;
mod error;
mod nested;
mod row;
mod scalar;
mod table;
mod text;
mod values;

pub use aggregate::Aggregate;
pub use column::{Arg, Item, Output};
pub use error::{log, Error, Level, Result};
pub use values::{Date, Decimal, Duration, Micros, Millis, Nanos, Seconds, Timestamp, TimestampUtc, Unit};

/// What the macros expand to. Not for direct use: it may change in any version.
#[doc(hidden)]
pub mod glue {
    pub use crate::abi::{Batch, Col};
    pub use crate::aggregate::{drop_groups, evaluate, merge, new_groups, size, state, update};
    pub use crate::column::{view, Validity, Writer};
    pub use crate::nested::{StructBuilder, StructView};
    pub use crate::row::{Columns, Row, RowOutput};
    pub use crate::scalar::{call, Return};
    pub use crate::table::{close, next, open, Cursor};
    pub use crate::text::Text;
}
