//! The component mode: batches as the typed values of udf-sdk/wit/udf.wit. A component may import of WASI what it likes; all of it traps.

use std::sync::Arc;

use arrow::array::ArrayRef;
use wasmtime::Store;
use wasmtime::component::{
    Component as Compiled, ComponentNamedList, Instance, InstancePre, Lift, Linker, Lower, TypedFunc,
};

use self::wit::{Column, Failure, Rows};
use crate::columnar::with_stack;
use crate::describe::{FunctionSpec, Shape};
use crate::error::Cause;
use crate::guest::{Batch, Emit, Guest};
use crate::limits::Limits;
use crate::scope::Owner;
use crate::state::{self, MAX_MESSAGE, State};

mod columns;
mod wit;

/// Longest description in bytes.
const MAX_DESCRIPTION: usize = 1 << 20;

type Outcome<T> = (Result<T, Failure>,);

/// `scalar`: number of the function, rows, arguments.
type Scalar = TypedFunc<(u32, u32, Vec<Column>), Outcome<Column>>;

/// A component that is ready to be instantiated: its imports are those of WASI, and trap.
pub(crate) fn link(component: &Compiled) -> Result<InstancePre<State>, Cause> {
    let invalid = |e: wasmtime::Error| Cause::Invalid(crate::inspect::cut(&format!("{e:#}")));
    let engine = component.engine();
    for (name, _) in component.component_type().imports(engine) {
        if !name.starts_with("wasi:") && !name.starts_with("sparklet:udf/types") {
            let name = crate::inspect::cut(&name.escape_debug().to_string());
            return Err(Cause::Import(format!("it imports `{name}`, which there is not for components")));
        }
    }
    let mut linker = Linker::new(engine);
    linker.define_unknown_imports_as_traps(component).map_err(invalid)?;
    linker.instantiate_pre(component).map_err(invalid)
}

/// An instance of a component.
pub(crate) struct Component {
    store: Store<State>,
    instance: Instance,
    limits: Limits,
    scalar: Option<Scalar>,
}

impl Component {
    /// An instance that works for `owner`.
    pub(crate) fn new(
        pre: &InstancePre<State>,
        module: &Arc<str>,
        limits: &Limits,
        owner: &Owner,
    ) -> Result<Self, Cause> {
        let mut store = state::store(pre.engine(), State::new(module, limits, owner))?;
        let instance = with_stack(|| pre.instantiate(&mut store)).map_err(|e| state::cause_of(&e, &mut store))?;
        Ok(Self { store, instance, limits: limits.clone(), scalar: None })
    }

    /// The JSON of `describe`, for components without the custom section.
    pub(crate) fn describe(
        pre: &InstancePre<State>,
        module: &Arc<str>,
        limits: &Limits,
        owner: &Owner,
    ) -> Result<Vec<u8>, Cause> {
        let mut guest = Self::new(pre, module, limits, owner)?;
        let (text,): (String,) = guest.call("describe", ())?;
        if text.len() > MAX_DESCRIPTION {
            return Err(Cause::Contract(format!("`describe` gave a text of {} bytes", text.len())));
        }
        Ok(text.into_bytes())
    }

    fn find<P, R>(&mut self, name: &str) -> Result<TypedFunc<P, R>, Cause>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        self.instance.get_typed_func(&mut self.store, name).map_err(|e| {
            Cause::Contract(format!(
                "its export `{name}` is not as in udf-sdk/wit; built with the SDK of this version it would be: {}",
                crate::inspect::cut(&format!("{e:#}"))
            ))
        })
    }

    fn call<P, R>(&mut self, name: &str, params: P) -> Result<R, Cause>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        let function = self.find::<P, R>(name)?;
        self.call_it(&function, params)
    }

    fn call_it<P, R>(&mut self, function: &TypedFunc<P, R>, params: P) -> Result<R, Cause>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift + 'static,
    {
        state::arm(&mut self.store, self.limits.timeout, self.limits.fuel)?;
        with_stack(|| function.call(&mut self.store, params)).map_err(|e| state::cause_of(&e, &mut self.store))
    }
}

impl Guest for Component {
    fn scalar(&mut self, function: &FunctionSpec, batch: &Batch<'_>) -> Result<ArrayRef, Cause> {
        let Shape::Scalar { returns } = &function.shape else {
            return Err(Cause::Internal(format!("`{}` is no scalar function", function.name)));
        };
        let params = (number(function)?, rows(batch.rows)?, arguments(batch)?);
        let scalar = match &self.scalar {
            Some(scalar) => *scalar,
            None => {
                let scalar = self.find("scalar")?;
                *self.scalar.insert(scalar)
            }
        };
        let (result,) = self.call_it(&scalar, params)?;
        columns::lift(result.map_err(failed)?, returns, batch.rows).map_err(gave)
    }

    fn begin(&mut self, function: &FunctionSpec) -> Result<u32, Cause> {
        let (handle,): Outcome<u32> = self.call("aggregate-new", (number(function)?,))?;
        handle.map_err(failed)
    }

    fn update(
        &mut self,
        _function: &FunctionSpec,
        handle: u32,
        batch: &Batch<'_>,
        groups: &[u32],
        count: usize,
    ) -> Result<(), Cause> {
        let params = (handle, rows(batch.rows)?, arguments(batch)?, numbers(groups), rows(count)?);
        let (done,): Outcome<()> = self.call("aggregate-update", params)?;
        done.map_err(failed)
    }

    fn merge(
        &mut self,
        _function: &FunctionSpec,
        handle: u32,
        batch: &Batch<'_>,
        groups: &[u32],
        count: usize,
    ) -> Result<(), Cause> {
        let params = (handle, rows(batch.rows)?, arguments(batch)?, numbers(groups), rows(count)?);
        let (done,): Outcome<()> = self.call("aggregate-merge", params)?;
        done.map_err(failed)
    }

    fn emit(&mut self, function: &FunctionSpec, handle: u32, count: usize, what: Emit) -> Result<Vec<ArrayRef>, Cause> {
        let Shape::Aggregate { returns, state } = &function.shape else {
            return Err(Cause::Internal(format!("`{}` is no aggregate", function.name)));
        };
        match what {
            Emit::Value => {
                let (result,): Outcome<Column> = self.call("aggregate-evaluate", (handle, rows(count)?))?;
                Ok(vec![columns::lift(result.map_err(failed)?, returns, count).map_err(gave)?])
            }
            Emit::State => {
                let (result,): Outcome<Vec<Column>> = self.call("aggregate-state", (handle, rows(count)?))?;
                all(result.map_err(failed)?, state.iter(), count).map_err(gave)
            }
        }
    }

    fn open(&mut self, function: &FunctionSpec, batch: &Batch<'_>) -> Result<u32, Cause> {
        let (handle,): Outcome<u32> = self.call("table-open", (number(function)?, arguments(batch)?))?;
        handle.map_err(failed)
    }

    fn next(&mut self, function: &FunctionSpec, handle: u32) -> Result<Option<(usize, Vec<ArrayRef>)>, Cause> {
        let Shape::Table { columns } = &function.shape else {
            return Err(Cause::Internal(format!("`{}` is no table function", function.name)));
        };
        let (next,): Outcome<Option<Rows>> = self.call("table-next", (handle,))?;
        let Some(next) = next.map_err(failed)? else { return Ok(None) };
        let count = next.count as usize;
        let columns = all(next.columns, columns.iter().map(|(_, of)| of), count).map_err(gave)?;
        Ok(Some((count, columns)))
    }

    fn memory(&self) -> usize {
        self.store.data().bytes()
    }
}

/// The number of a function: its place in the description, which is its export's name here.
fn number(function: &FunctionSpec) -> Result<u32, Cause> {
    function.export.parse().map_err(|_| Cause::Internal(format!("`{}` has no number", function.name)))
}

/// Groups of rows as bytes.
fn numbers(groups: &[u32]) -> Vec<u8> {
    groups.iter().flat_map(|group| group.to_le_bytes()).collect()
}

fn rows(rows: usize) -> Result<u32, Cause> {
    u32::try_from(rows).map_err(|_| Cause::Internal(format!("a batch of {rows} rows")))
}

fn arguments(batch: &Batch<'_>) -> Result<Vec<Column>, Cause> {
    batch.columns.iter().map(columns::lower).collect()
}

fn all<'a>(
    given: Vec<Column>,
    types: impl ExactSizeIterator<Item = &'a arrow::datatypes::DataType>,
    rows: usize,
) -> Result<Vec<ArrayRef>, String> {
    if given.len() != types.len() {
        return Err(format!("{} columns where {} are declared", given.len(), types.len()));
    }
    given.into_iter().zip(types).map(|(column, of)| columns::lift(column, of, rows)).collect()
}

fn failed(failure: Failure) -> Cause {
    let Failure { mut message, row } = failure;
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    Cause::Guest { message, row: row.map(u64::from) }
}

fn gave(broken: String) -> Cause {
    Cause::Contract(format!("it gave {broken}"))
}
