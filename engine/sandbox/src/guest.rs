//! An instance of a module, whatever its mode: what the host can ask of it.

use arrow::array::ArrayRef;

use crate::describe::FunctionSpec;
use crate::encode::Column;
use crate::error::Cause;

/// Rows of a call: columns of one length, or constants.
pub(crate) struct Batch<'a> {
    pub(crate) rows: usize,
    pub(crate) columns: &'a [Column],
}

/// What is emitted of an aggregate.
pub(crate) enum Emit {
    /// Columns of the state.
    State,
    /// Results.
    Value,
}

/// An instance. After an error of any call it is dropped, not used again; what it holds for a handle ends with it.
///
/// Every mode implements [`Guest::scalar`]; what a mode has not says so.
pub(crate) trait Guest: Send {
    /// Calls a scalar function on a batch; the result has `batch.rows` rows and the declared type. NULL arguments of a function that
    /// propagates them are the caller's to mask.
    fn scalar(&mut self, function: &FunctionSpec, batch: &Batch<'_>) -> Result<ArrayRef, Cause>;

    /// A new aggregate: its handle.
    fn begin(&mut self, function: &FunctionSpec) -> Result<u32, Cause> {
        Err(lacks("aggregate", function))
    }

    /// Adds rows to groups.
    fn update(
        &mut self,
        function: &FunctionSpec,
        _handle: u32,
        _batch: &Batch<'_>,
        _groups: &[u32],
        _count: usize,
    ) -> Result<(), Cause> {
        Err(lacks("aggregate", function))
    }

    /// Adds states to groups.
    fn merge(
        &mut self,
        function: &FunctionSpec,
        _handle: u32,
        _batch: &Batch<'_>,
        _groups: &[u32],
        _count: usize,
    ) -> Result<(), Cause> {
        Err(lacks("aggregate", function))
    }

    /// The first `count` groups, which are gone afterwards: columns of the state, or the results as one column.
    fn emit(
        &mut self,
        function: &FunctionSpec,
        _handle: u32,
        _count: usize,
        _what: Emit,
    ) -> Result<Vec<ArrayRef>, Cause> {
        Err(lacks("aggregate", function))
    }

    /// Begins a table: its handle.
    fn open(&mut self, function: &FunctionSpec, _batch: &Batch<'_>) -> Result<u32, Cause> {
        Err(lacks("table", function))
    }

    /// The next rows of a table; none at its end.
    fn next(&mut self, function: &FunctionSpec, _handle: u32) -> Result<Option<(usize, Vec<ArrayRef>)>, Cause> {
        Err(lacks("table", function))
    }

    /// Bytes of memory that it holds.
    fn memory(&self) -> usize;
}

fn lacks(kind: &str, function: &FunctionSpec) -> Cause {
    Cause::Unsupported(format!("`{}` cannot be a {kind} function in this mode", function.name))
}
