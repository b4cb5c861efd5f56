//! Guests of the columnar mode: batches in, batches out, in udf-sdk/ABI.md.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use wasmtime::{Instance, InstancePre, Memory, Store, TypedFunc, WasmParams, WasmResults};

use crate::decode::{Pieces, Reader};
use crate::describe::{FunctionSpec, Shape};
use crate::encode::{ALIGN, BATCH, Block, COL, Column};
use crate::error::Cause;
use crate::guest::{Batch, Emit, Guest};
use crate::limits::Limits;
use crate::scope::Owner;
use crate::state::{self, State};

/// `sparklet_abi` of this engine: major version 1.
const MAJOR: i32 = 1;

/// Most that columns of one result may take on the host, for each byte of memory that the guest may have: parts of a result may
/// lie on top of each other.
const OVERLAP: u64 = 4;

/// Rows of one call of a scalar function whose results are numbers: what a call needs stays in the CPU's near caches.
const PIECE: usize = 4096;

type Ids = (i32, i32, i32, i32);

/// See the module.
pub(crate) struct Columnar {
    store: Store<State>,
    instance: Instance,
    memory: Memory,
    alloc: TypedFunc<(i32, i32), i32>,
    free: TypedFunc<(i32, i32, i32), ()>,
    error: TypedFunc<(), i64>,
    error_row: Option<TypedFunc<(), i64>>,
    end_call: Option<TypedFunc<(), ()>>,
    limits: Limits,
    /// The block that inputs are written to: place and size.
    arena: Option<(u32, usize)>,
    scalars: HashMap<String, TypedFunc<(i32, i32), i32>>,
    batches: HashMap<(String, &'static str), TypedFunc<Ids, i32>>,
}

impl Columnar {
    /// An instance that works for `owner`.
    pub(crate) fn new(
        pre: &InstancePre<State>,
        module: &Arc<str>,
        limits: &Limits,
        owner: &Owner,
    ) -> Result<Self, Cause> {
        let mut store = state::store(pre.module().engine(), State::new(module, limits, owner))?;
        let instance = with_stack(|| pre.instantiate(&mut store)).map_err(|e| state::cause_of(&e, &mut store))?;
        let missing = |name: &str| Cause::Contract(format!("it does not export `{name}` as the contract says"));
        let memory = instance.get_memory(&mut store, "memory").ok_or_else(|| missing("memory"))?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut store, "_initialize") {
            call(&mut store, &initialize, ())?;
        }
        let abi = func::<(), i32>(&instance, &mut store, "sparklet_abi")?;
        let version = call(&mut store, &abi, ())?;
        if version >> 16 != MAJOR {
            let message = format!("it keeps to version {} of the contract, this engine to {MAJOR}", version >> 16);
            return Err(Cause::Contract(message));
        }
        Ok(Self {
            alloc: func(&instance, &mut store, "sparklet_alloc")?,
            free: func(&instance, &mut store, "sparklet_free")?,
            error: func(&instance, &mut store, "sparklet_error")?,
            error_row: instance.get_typed_func(&mut store, "sparklet_error_row").ok(),
            end_call: instance.get_typed_func(&mut store, "sparklet_end_call").ok(),
            limits: limits.clone(),
            arena: None,
            scalars: HashMap::new(),
            batches: HashMap::new(),
            store,
            instance,
            memory,
        })
    }

    /// The JSON of `sparklet_describe`, for modules without the section.
    pub(crate) fn describe(
        pre: &InstancePre<State>,
        module: &Arc<str>,
        limits: &Limits,
        owner: &Owner,
    ) -> Result<Vec<u8>, Cause> {
        const LONGEST: u64 = 1 << 20;
        let mut guest = Self::new(pre, module, limits, owner)?;
        let describe = func::<(), i64>(&guest.instance, &mut guest.store, "sparklet_describe")?;
        let packed = call(&mut guest.store, &describe, ())?.cast_unsigned();
        let (at, len) = (packed >> 32, packed & 0xffff_ffff);
        let end = usize::try_from(at + len).unwrap_or(usize::MAX);
        let text = guest.memory.data(&guest.store).get(usize::try_from(at).unwrap_or(usize::MAX)..end);
        match text {
            Some(text) if len <= LONGEST => Ok(text.to_vec()),
            _ => Err(Cause::Contract(
                "`sparklet_describe` gave a text that is too long or outside of its memory".to_owned(),
            )),
        }
    }

    fn arm(&mut self) -> Result<(), Cause> {
        state::arm(&mut self.store, self.limits.timeout, self.limits.fuel)
    }

    /// Writes `block` to the guest's memory and says where it begins.
    fn place(&mut self, block: &Block) -> Result<u32, Cause> {
        let size = block.size();
        let base = match self.arena {
            Some((base, room)) if room >= size => base,
            old => {
                if let Some((base, room)) = old {
                    self.arena = None;
                    call(&mut self.store, &self.free, (base.cast_signed(), narrow(room)?, ALIGN as i32))?;
                }
                // Batches of a query are of about the same size: some room to spare, and no second allocation.
                let room = (size + size / 4).next_multiple_of(4096);
                let base = call(&mut self.store, &self.alloc, (narrow(room)?, ALIGN as i32))?.cast_unsigned();
                if base == 0 {
                    return Err(self.refusal().unwrap_or_else(|| {
                        Cause::Contract(format!("`sparklet_alloc` gave no block of {room} bytes"))
                    }));
                }
                if !(base as usize).is_multiple_of(ALIGN) {
                    return Err(Cause::Contract(format!(
                        "`sparklet_alloc` gave a block at {base}, not aligned to {ALIGN}"
                    )));
                }
                let end = u64::from(base) + room as u64;
                if end > self.memory.data_size(&self.store) as u64 {
                    return Err(Cause::Contract("`sparklet_alloc` gave a block outside of its memory".to_owned()));
                }
                self.arena = Some((base, room));
                base
            }
        };
        block.write(self.memory.data_mut(&mut self.store), base)?;
        Ok(base)
    }

    fn refusal(&mut self) -> Option<Cause> {
        self.store.data_mut().refused.take()
    }

    /// The error behind a negative status.
    fn failure(&mut self, status: i32) -> Cause {
        if let Some(refused) = self.refusal() {
            return refused;
        }
        let row = match self.error_row.clone() {
            Some(row) => match call(&mut self.store, &row, ()) {
                Ok(row) => u64::try_from(row).ok(),
                Err(cause) => return cause,
            },
            None => None,
        };
        let error = self.error.clone();
        let packed = match call(&mut self.store, &error, ()) {
            Ok(packed) => packed.cast_unsigned(),
            Err(cause) => return cause,
        };
        let (at, len) = ((packed >> 32) as u32, (packed & 0xffff_ffff) as u32);
        match state::message(self.memory.data(&self.store), at, len) {
            Some(message) if message.is_empty() => {
                Cause::Guest { message: format!("it failed with status {status} and no message"), row }
            }
            Some(message) => Cause::Guest { message, row },
            None => Cause::Contract(format!(
                "it failed with status {status}, and a message of {len} bytes outside of its memory"
            )),
        }
    }

    fn reader(&self) -> Reader<'_> {
        let memory = self.memory.data(&self.store);
        Reader { memory, budget: (memory.len() as u64).saturating_mul(OVERLAP) }
    }

    /// Calls `scalar` and says where its result is.
    fn call_scalar(
        &mut self,
        scalar: &TypedFunc<(i32, i32), i32>,
        rows: usize,
        columns: &[Column],
    ) -> Result<u32, Cause> {
        let mut block = Block::of(rows, columns)?;
        let out = block.zeros(COL);
        let base = self.place(&block)?;
        let at = |place: usize| base.wrapping_add(place as u32);
        let status = call(&mut self.store, scalar, (at(block.batch).cast_signed(), at(out).cast_signed()))?;
        if status < 0 { Err(self.failure(status)) } else { Ok(at(out)) }
    }

    fn ended(&mut self) -> Result<(), Cause> {
        match self.end_call.clone() {
            Some(end_call) => call(&mut self.store, &end_call, ()),
            None => Ok(()),
        }
    }

    fn with_groups(
        &mut self,
        function: &FunctionSpec,
        suffix: &'static str,
        handle: u32,
        batch: &Batch<'_>,
        groups: &[u32],
        count: usize,
    ) -> Result<(), Cause> {
        self.arm()?;
        let mut block = Block::of(batch.rows, batch.columns)?;
        let ids = block.bytes(Buffer::from_slice_ref(groups));
        let base = self.place(&block)?;
        let key = (function.export.clone(), suffix);
        let call_it = match self.batches.get(&key) {
            Some(found) => found.clone(),
            None => {
                let found: TypedFunc<Ids, i32> =
                    func(&self.instance, &mut self.store, &format!("{}{suffix}", function.export))?;
                self.batches.insert(key, found.clone());
                found
            }
        };
        let at = |place: usize| base.wrapping_add(place as u32).cast_signed();
        let status = call(&mut self.store, &call_it, (handle.cast_signed(), at(block.batch), at(ids), narrow(count)?))?;
        if status < 0 { Err(self.failure(status)) } else { Ok(()) }
    }

    fn named<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &FunctionSpec,
        suffix: &str,
    ) -> Result<TypedFunc<P, R>, Cause> {
        func(&self.instance, &mut self.store, &format!("{}{suffix}", function.export))
    }
}

impl Guest for Columnar {
    fn scalar(&mut self, function: &FunctionSpec, batch: &Batch<'_>) -> Result<ArrayRef, Cause> {
        let Shape::Scalar { returns } = &function.shape else {
            return Err(Cause::Internal(format!("`{}` is no scalar function", function.name)));
        };
        self.arm()?;
        let scalar = match self.scalars.get(&function.export) {
            Some(found) => found.clone(),
            None => {
                let found: TypedFunc<(i32, i32), i32> = func(&self.instance, &mut self.store, &function.export)?;
                self.scalars.insert(function.export.clone(), found.clone());
                found
            }
        };
        let rows = batch.rows;
        let pieces = if rows > PIECE { Pieces::new(returns, rows) } else { None };
        let Some(mut pieces) = pieces else {
            let at = self.call_scalar(&scalar, rows, batch.columns)?;
            let result = self.reader().column(at, returns, rows).map_err(gave)?;
            self.ended()?;
            return Ok(result);
        };
        for start in (0..rows).step_by(PIECE) {
            let len = PIECE.min(rows - start);
            let part = |c: &Column| if c.constant { c.clone() } else { Column::rows(c.array.slice(start, len)) };
            let columns: Vec<Column> = batch.columns.iter().map(part).collect();
            let at = self.call_scalar(&scalar, len, &columns).map_err(|cause| cause.later_by(start))?;
            self.reader().piece(at, returns, len, &mut pieces).map_err(gave)?;
            self.ended()?;
        }
        pieces.finish(returns, rows).map_err(gave)
    }

    fn begin(&mut self, function: &FunctionSpec) -> Result<u32, Cause> {
        self.arm()?;
        let new = self.named::<(), i32>(function, "_new")?;
        match call(&mut self.store, &new, ())? {
            0 => Err(Cause::Contract("it gave 0 for the handle of an aggregate".to_owned())),
            handle if handle < 0 => Err(self.failure(handle)),
            handle => Ok(handle.cast_unsigned()),
        }
    }

    fn update(
        &mut self,
        function: &FunctionSpec,
        handle: u32,
        batch: &Batch<'_>,
        groups: &[u32],
        count: usize,
    ) -> Result<(), Cause> {
        self.with_groups(function, "_update", handle, batch, groups, count)
    }

    fn merge(
        &mut self,
        function: &FunctionSpec,
        handle: u32,
        batch: &Batch<'_>,
        groups: &[u32],
        count: usize,
    ) -> Result<(), Cause> {
        self.with_groups(function, "_merge", handle, batch, groups, count)
    }

    fn emit(&mut self, function: &FunctionSpec, handle: u32, count: usize, what: Emit) -> Result<Vec<ArrayRef>, Cause> {
        let Shape::Aggregate { returns, state: columns } = &function.shape else {
            return Err(Cause::Internal(format!("`{}` is no aggregate", function.name)));
        };
        self.arm()?;
        let mut block = Block::of(0, &[])?;
        let out = block.zeros(COL);
        let base = self.place(&block)?;
        let at = base.wrapping_add(out as u32);
        let suffix = if matches!(what, Emit::State) { "_state" } else { "_evaluate" };
        let emit = self.named::<(i32, i32, i32), i32>(function, suffix)?;
        let status = call(&mut self.store, &emit, (handle.cast_signed(), narrow(count)?, at.cast_signed()))?;
        if status < 0 {
            return Err(self.failure(status));
        }
        let columns = match what {
            Emit::Value => vec![self.reader().column(at, returns, count).map_err(gave)?],
            Emit::State => {
                let mut reader = self.reader();
                let head = reader.batch(at).map_err(gave)?;
                if head.rows as usize != count {
                    return Err(gave(format!("a state of {} rows for {count} groups", head.rows)));
                }
                reader.columns(&head, columns).map_err(gave)?
            }
        };
        self.ended()?;
        Ok(columns)
    }

    fn open(&mut self, function: &FunctionSpec, batch: &Batch<'_>) -> Result<u32, Cause> {
        self.arm()?;
        let block = Block::of(batch.rows, batch.columns)?;
        let base = self.place(&block)?;
        let open = self.named::<i32, i32>(function, "_open")?;
        match call(&mut self.store, &open, base.wrapping_add(block.batch as u32).cast_signed())? {
            0 => Err(Cause::Contract("it gave 0 for the handle of a table".to_owned())),
            handle if handle < 0 => Err(self.failure(handle)),
            handle => Ok(handle.cast_unsigned()),
        }
    }

    fn next(&mut self, function: &FunctionSpec, handle: u32) -> Result<Option<(usize, Vec<ArrayRef>)>, Cause> {
        let Shape::Table { columns } = &function.shape else {
            return Err(Cause::Internal(format!("`{}` is no table function", function.name)));
        };
        let types: Vec<DataType> = columns.iter().map(|(_, of)| of.clone()).collect();
        self.arm()?;
        let mut block = Block::of(0, &[])?;
        let out = block.zeros(BATCH);
        let base = self.place(&block)?;
        let at = base.wrapping_add(out as u32);
        let next = self.named::<(i32, i32), i32>(function, "_next")?;
        match call(&mut self.store, &next, (handle.cast_signed(), at.cast_signed()))? {
            0 => {}
            1 => return Ok(None),
            status if status < 0 => return Err(self.failure(status)),
            status => return Err(Cause::Contract(format!("`{}_next` gave the status {status}", function.export))),
        }
        let mut reader = self.reader();
        let head = reader.batch(at).map_err(gave)?;
        let columns = reader.columns(&head, &types).map_err(gave)?;
        self.ended()?;
        Ok(Some((head.rows as usize, columns)))
    }

    fn memory(&self) -> usize {
        self.store.data().bytes()
    }
}

fn gave(broken: String) -> Cause {
    Cause::Contract(format!("it gave {broken}"))
}

fn narrow(number: usize) -> Result<i32, Cause> {
    i32::try_from(number).map_err(|_| Cause::Memory { asked: number as u64, limit: i32::MAX as u64 })
}

/// The function exported as `name`, of this type.
pub(crate) fn func<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<State>,
    name: &str,
) -> Result<TypedFunc<P, R>, Cause> {
    instance
        .get_typed_func(&mut *store, name)
        .map_err(|_| Cause::Contract(format!("it does not export `{name}` with the type that the contract says")))
}

/// Calls into the guest; an error is told by its cause.
pub(crate) fn call<P: WasmParams, R: WasmResults>(
    store: &mut Store<State>,
    function: &TypedFunc<P, R>,
    params: P,
) -> Result<R, Cause> {
    with_stack(|| function.call(&mut *store, params)).map_err(|e| state::cause_of(&e, store))
}

/// Runs `work` with room on the stack for a guest's, however deep the plan is from which it is called.
pub(crate) fn with_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(crate::host::STACK + (256 << 10), 2 << 20, work)
}
