//! Guests of the plain mode: exported functions over numbers, called by a generated loop.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, make_array};
use arrow::buffer::{Buffer, MutableBuffer, NullBuffer};
use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Int32Type};
use datafusion::logical_expr::Volatility;
use wasmtime::{Instance, InstancePre, Memory, Store, Val};

use crate::columnar::{call, with_stack};
use crate::describe::{FunctionSpec, MAX_FUNCTIONS, Nulls, Shape, check_name};
use crate::encode::Column;
use crate::error::Cause;
use crate::guest::{Batch, Guest};
use crate::inspect::{Core, Signature};
use crate::limits::Limits;
use crate::loops::{self, FIRST, ROW};
use crate::module::Loops;
use crate::scope::Owner;
use crate::state::{self, State};
use crate::types::{type_name, width};

/// Exports that are no functions for SQL.
const NOT_FUNCTIONS: [&str; 6] = ["malloc", "free", "alloc", "dealloc", "realloc", "memory"];
const NOT_PREFIXES: [&str; 5] = ["_", "cabi_", "sparklet_", "asyncify_", "go_"];

const PAGE: usize = 64 << 10;

/// Rows of one call of a loop, a multiple of 8: what they need stays in the CPU's near caches.
const PIECE: usize = 2048;

/// The functions of a module without the SDK: exports with numbers in and one number out.
pub(crate) fn functions(core: &Core) -> Result<Vec<FunctionSpec>, Cause> {
    let mut found: Vec<FunctionSpec> = Vec::new();
    for (name, signature) in &core.functions {
        if NOT_FUNCTIONS.contains(&name.as_str()) || NOT_PREFIXES.iter().any(|p| name.starts_with(p)) {
            continue;
        }
        let Some((args, returns)) = natural(signature) else { continue };
        if check_name("a function", name).is_err() {
            continue;
        }
        if found.len() == MAX_FUNCTIONS {
            return Err(Cause::Invalid(format!("it exports more than {MAX_FUNCTIONS} functions")));
        }
        found.push(FunctionSpec {
            name: name.clone(),
            export: name.clone(),
            args,
            shape: Shape::Scalar { returns },
            nulls: Nulls::Propagate,
            volatility: Volatility::Immutable,
            doc: None,
        });
    }
    Ok(found)
}

/// Types as the module itself has them.
fn natural(of: &Signature) -> Option<(Vec<DataType>, DataType)> {
    let [result] = of.results.as_slice() else { return None };
    if of.params.len() > loops::MAX_ARGS {
        return None;
    }
    let args = of.params.iter().map(|p| natural_type(*p)).collect::<Option<_>>()?;
    Some((args, natural_type(*result)?))
}

fn natural_type(of: wasmparser::ValType) -> Option<DataType> {
    Some(match of {
        wasmparser::ValType::I32 => DataType::Int32,
        wasmparser::ValType::I64 => DataType::Int64,
        wasmparser::ValType::F32 => DataType::Float32,
        wasmparser::ValType::F64 => DataType::Float64,
        _ => return None,
    })
}

/// The type of the module that carries `declared`; none where none does.
pub(crate) fn carrier(declared: &DataType) -> Option<DataType> {
    Some(match declared {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::Date32 => DataType::Int32,
        DataType::Int64 | DataType::UInt64 | DataType::Timestamp(..) | DataType::Duration(_) => DataType::Int64,
        DataType::Float32 => DataType::Float32,
        DataType::Float64 => DataType::Float64,
        _ => return None,
    })
}

/// See the module.
pub(crate) struct Plain {
    store: Store<State>,
    instance: Instance,
    limits: Limits,
    loops: Arc<Loops>,
    running: HashMap<String, Loop>,
}

struct Loop {
    memory: Memory,
    run: wasmtime::Func,
}

impl Plain {
    /// An instance that works for `owner`.
    pub(crate) fn new(
        pre: &InstancePre<State>,
        loops: &Arc<Loops>,
        module: &Arc<str>,
        limits: &Limits,
        owner: &Owner,
    ) -> Result<Self, Cause> {
        let mut store = state::store(pre.module().engine(), State::new(module, limits, owner))?;
        let instance = with_stack(|| pre.instantiate(&mut store)).map_err(|e| state::cause_of(&e, &mut store))?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut store, "_initialize") {
            call(&mut store, &initialize, ())?;
        }
        Ok(Self { store, instance, limits: limits.clone(), loops: Arc::clone(loops), running: HashMap::new() })
    }

    fn begin_loop(&mut self, function: &FunctionSpec) -> Result<(), Cause> {
        if self.running.contains_key(&function.export) {
            return Ok(());
        }
        let (instance, name) = match self.loops.within {
            true => (self.instance, loops::export(&function.export)),
            false => (self.loop_apart(function)?, "run".to_owned()),
        };
        let memory = instance.get_memory(&mut self.store, loops::MEMORY);
        let run = instance.get_func(&mut self.store, &name);
        let (Some(memory), Some(run)) = (memory, run) else {
            return Err(Cause::Internal("a loop without memory".to_owned()));
        };
        self.running.insert(function.export.clone(), Loop { memory, run });
        Ok(())
    }

    /// Why a loop ended, over rows of `batch` from `start` on.
    fn failure(&mut self, error: &wasmtime::Error, memory: Memory, batch: &Batch<'_>, start: usize) -> Cause {
        let cause = state::cause_of(error, &mut self.store);
        let data = memory.data(&self.store);
        let row = data.get(ROW..ROW + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        match (cause, row) {
            (Cause::Trap(why), Some(row)) => {
                Cause::Trap(format!("{why}, at {}", shown(batch.columns, start + row as usize)))
            }
            (Cause::Guest { message, .. }, Some(row)) => {
                Cause::Guest { message, row: Some(start as u64 + u64::from(row)) }
            }
            (cause, _) => cause,
        }
    }

    /// An instance of a loop that is a module of its own.
    fn loop_apart(&mut self, function: &FunctionSpec) -> Result<Instance, Cause> {
        let Some(guest) = self.instance.get_func(&mut self.store, &function.export) else {
            return Err(Cause::Contract(format!("it does not export `{}`", function.export)));
        };
        let module = self.loops.of(self.store.engine(), &function.export)?;
        let made = state::as_host(&mut self.store, |store| Instance::new(store, &module, &[guest.into()]));
        made.map_err(|e| state::cause_of(&e, &mut self.store))
    }
}

impl Guest for Plain {
    fn scalar(&mut self, function: &FunctionSpec, batch: &Batch<'_>) -> Result<ArrayRef, Cause> {
        let Shape::Scalar { returns } = &function.shape else {
            return Err(Cause::Internal(format!("`{}` is no scalar function", function.name)));
        };
        let internal = |what: &DataType| Cause::Internal(format!("{what} in the plain mode"));
        state::arm(&mut self.store, self.limits.timeout, self.limits.fuel)?;
        self.begin_loop(function)?;
        let Some(Loop { memory, run }) = self.running.get(&function.export) else {
            return Err(Cause::Internal("a loop that is gone".to_owned()));
        };
        let (memory, run) = (*memory, *run);

        let rows = batch.rows;
        let piece = rows.min(PIECE);
        let nulls = validity(rows, batch.columns);
        let carried = carrier(returns).ok_or_else(|| internal(returns))?;
        let result_width = width(&carried).ok_or_else(|| internal(returns))?;
        let mut place = Places { end: FIRST };
        let out = place.room(piece * result_width);
        let mut params = vec![number(piece)?, Val::I32(0), number(out)?];
        // What changes from piece to piece, with its bytes for eight rows; constants are written once.
        let mut moving: Vec<(usize, Buffer, usize)> = Vec::new();
        let mut constants: Vec<(usize, Buffer)> = Vec::new();
        if let Some(nulls) = &nulls {
            let at = place.room(piece.div_ceil(8));
            params[1] = number(at)?;
            moving.push((at, nulls.inner().sliced(), 1));
        }
        for Column { array, constant } in batch.columns {
            let carrier = carrier(array.data_type()).ok_or_else(|| internal(array.data_type()))?;
            let (bytes, width) = carried_bytes(array, &carrier)?;
            let at = place.room(if *constant { width } else { piece * width });
            params.push(number(at)?);
            params.push(number(if *constant { 0 } else { width })?);
            if *constant {
                constants.push((at, bytes));
            } else {
                moving.push((at, bytes, 8 * width));
            }
        }
        let size = memory.data_size(&self.store);
        if place.end > size {
            state::grow_for_host(&mut self.store, memory, (place.end - size).div_ceil(PAGE) as u64)?;
        }
        let data = memory.data_mut(&mut self.store);
        for (at, bytes) in &constants {
            data[*at..*at + bytes.len()].copy_from_slice(bytes.as_slice());
        }
        let mut results = MutableBuffer::with_capacity(rows * result_width);
        for start in (0..rows).step_by(PIECE) {
            let end = rows.min(start + PIECE);
            let data = memory.data_mut(&mut self.store);
            for (at, bytes, of_eight) in &moving {
                let bytes = &bytes.as_slice()[start / 8 * of_eight..bytes.len().min((end * of_eight).div_ceil(8))];
                data[*at..*at + bytes.len()].copy_from_slice(bytes);
            }
            params[0] = number(end - start)?;
            let ran = with_stack(|| run.call(&mut self.store, &params, &mut []));
            if let Err(error) = ran {
                return Err(self.failure(&error, memory, batch, start));
            }
            results.extend_from_slice(&memory.data(&self.store)[out..out + (end - start) * result_width]);
        }
        narrowed(results.into(), rows, nulls, &carried, returns)
    }

    fn memory(&self) -> usize {
        self.store.data().bytes()
    }
}

struct Places {
    end: usize,
}

impl Places {
    fn room(&mut self, bytes: usize) -> usize {
        let at = self.end.next_multiple_of(64);
        self.end = at + bytes;
        at
    }
}

fn number(value: usize) -> Result<Val, Cause> {
    match i32::try_from(value) {
        Ok(value) => Ok(Val::I32(value)),
        Err(_) => Err(Cause::Memory { asked: value as u64, limit: i32::MAX as u64 }),
    }
}

/// Rows in which no argument is NULL; none: all.
pub(crate) fn validity(rows: usize, columns: &[Column]) -> Option<NullBuffer> {
    let mut all: Option<NullBuffer> = None;
    for Column { array, constant } in columns {
        if *constant {
            if array.is_null(0) {
                return Some(NullBuffer::new_null(rows));
            }
        } else {
            all = NullBuffer::union(all.as_ref(), array.nulls());
        }
    }
    all.filter(|nulls| nulls.null_count() > 0)
}

/// Values as the module has them, and their width.
fn carried_bytes(array: &ArrayRef, carrier: &DataType) -> Result<(Buffer, usize), Cause> {
    let width = width(carrier).ok_or_else(|| Cause::Internal(format!("{carrier} has no width")))?;
    let same = array.data_type().primitive_width() == Some(width);
    let array = match same {
        true => Arc::clone(array),
        false => arrow::compute::cast(array, carrier).map_err(|e| Cause::Internal(e.to_string()))?,
    };
    let data = array.to_data();
    Ok((data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width), width))
}

/// Results as declared; values that do not fit are an error.
fn narrowed(
    bytes: Buffer,
    rows: usize,
    nulls: Option<NullBuffer>,
    carried: &DataType,
    declared: &DataType,
) -> Result<ArrayRef, Cause> {
    let array = |of: &DataType| {
        let bits = nulls.as_ref().map(|n| n.inner().sliced());
        ArrayData::try_new(of.clone(), rows, bits, 0, vec![bytes.clone()], Vec::new())
            .map(make_array)
            .map_err(|e| Cause::Internal(e.to_string()))
    };
    if declared.primitive_width() == carried.primitive_width() {
        return array(declared);
    }
    let wide = array(carried)?;
    let values = wide.as_primitive::<Int32Type>();
    let range = match declared {
        DataType::Boolean => 0..=1,
        DataType::Int8 => i8::MIN.into()..=i8::MAX.into(),
        DataType::Int16 => i16::MIN.into()..=i16::MAX.into(),
        DataType::UInt8 => 0..=u8::MAX.into(),
        _ => 0..=u16::MAX.into(),
    };
    if let Some((row, value)) =
        values.iter().enumerate().find_map(|(row, v)| Some((row, v.filter(|v| !range.contains(v))?)))
    {
        return Err(Cause::Range(format!(
            "its result {value} in row {row} of the batch is no {}",
            type_name(declared)
        )));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    arrow::compute::cast_with_options(&wide, declared, &options).map_err(|e| Cause::Internal(e.to_string()))
}

/// The arguments of a row, e.g. `(10, 0)`.
fn shown(columns: &[Column], row: usize) -> String {
    let values = columns.iter().map(|Column { array, constant }| {
        let row = if *constant { 0 } else { row };
        let options = arrow::util::display::FormatOptions::default().with_null("NULL");
        let formatter = arrow::util::display::ArrayFormatter::try_new(array, &options).ok();
        formatter.filter(|_| row < array.len()).map_or_else(|| "?".to_owned(), |f| f.value(row).to_string())
    });
    format!("({})", values.collect::<Vec<_>>().join(", "))
}
