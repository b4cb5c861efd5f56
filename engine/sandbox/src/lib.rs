//! User functions in WebAssembly.
//!
//! A [`Module`] is read from a file and says what functions it has; each is a function of DataFusion ([`register`]). Guests are hostile:
//! nothing that they return is used before it is checked, a call ends at its deadline, memory is bounded and charged to the session's
//! pool, and an instance is never used again after an error, nor by another query.

pub mod aggregate;
mod cache;
mod coerce;
mod columnar;
pub mod compile;
mod component;
mod decode;
pub mod describe;
mod encode;
pub mod error;
mod guest;
mod host;
mod imports;
mod inspect;
pub mod limits;
mod loops;
pub mod module;
pub mod parcel;
mod plain;
pub mod register;
pub mod scalar;
pub mod scope;
mod state;
pub mod table;
pub mod types;

pub use compile::Compiler;
pub use describe::{FunctionSpec, Nulls, Shape};
pub use error::{Cause, Error, Fault, Result};
pub use limits::Limits;
pub use module::{Declared, Mode, Module, Wanted};
pub use register::Registered;
pub use scope::{FunctionUse, Scope};

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
