//! A scalar function of a module as a function of DataFusion.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::kernels::nullif::nullif;
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_datafusion_err, plan_datafusion_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use crate::coerce::{coerce, exact};
use crate::describe::{FunctionSpec, Nulls, Shape};
use crate::encode::{Column, view_bytes, views};
use crate::guest::Batch;
use crate::module::{Mode, Module};
use crate::plain::validity;
use crate::scope::{Callee, Scope};

/// Arguments of one call may take this share of a guest's memory; larger batches are cut.
const SHARE: usize = 8;

/// All overloads of a scalar function.
#[derive(Debug)]
pub struct WasmScalar {
    name: String,
    aliases: Vec<String>,
    overloads: Vec<FunctionSpec>,
    signature: Signature,
    callee: Callee,
}

impl WasmScalar {
    pub(crate) fn new(module: &Arc<Module>, overloads: Vec<FunctionSpec>, scope: &Arc<Scope>) -> Self {
        let first = overloads.first();
        let name = first.map(|f| f.name.clone()).unwrap_or_default();
        let volatility = first.map_or(Volatility::Volatile, |f| f.volatility);
        Self {
            aliases: aliases(&name, module),
            signature: Signature::user_defined(volatility),
            callee: Callee { module: Arc::clone(module), scope: Arc::clone(scope) },
            overloads,
            name,
        }
    }

    /// The same function in another scope.
    pub fn in_scope(&self, scope: &Arc<Scope>) -> Self {
        Self::new(&self.callee.module, self.overloads.clone(), scope)
    }

    /// Its module.
    pub fn module(&self) -> &Arc<Module> {
        &self.callee.module
    }

    pub(crate) fn overloads(&self) -> &[FunctionSpec] {
        &self.overloads
    }

    fn call(&self, spec: &FunctionSpec, columns: &[Column], rows: usize) -> Result<ArrayRef> {
        let bytes: usize = columns.iter().map(|c| size(&c.array)).sum();
        let room = self.callee.module.declared().limits.memory / SHARE;
        if bytes > room && rows > 1 {
            return self.call_halves(spec, columns, rows);
        }
        let batch = Batch { rows, columns };
        Ok(self.callee.call(spec, rows, |guest| guest.scalar(spec, &batch))?)
    }

    fn call_halves(&self, spec: &FunctionSpec, columns: &[Column], rows: usize) -> Result<ArrayRef> {
        let half = rows / 2;
        let part = |start: usize, len: usize| -> Vec<Column> {
            let cut = |c: &Column| match c.constant {
                true => c.clone(),
                false => Column::rows(c.array.slice(start, len)),
            };
            columns.iter().map(cut).collect()
        };
        let (front, back) = (part(0, half), part(half, rows - half));
        let front = self.call(spec, &front, half)?;
        let back = self.call(spec, &back, rows - half)?;
        Ok(arrow::compute::concat(&[front.as_ref(), back.as_ref()])?)
    }
}

/// `NAME@HASH`: the function in exactly this version, by which plans are told apart; and the name in lower case, which SQL without quotes
/// looks for.
pub(crate) fn aliases(name: &str, module: &Module) -> Vec<String> {
    let mut aliases = vec![format!("{name}@{}", module.version())];
    let lower = name.to_lowercase();
    if lower != name {
        aliases.push(lower);
    }
    aliases
}

impl PartialEq for WasmScalar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.callee.module.digest() == other.callee.module.digest()
            && self.overloads == other.overloads
            && self.callee.module.declared().limits == other.callee.module.declared().limits
    }
}

impl Eq for WasmScalar {}

impl Hash for WasmScalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.callee.module.digest().hash(state);
    }
}

impl ScalarUDFImpl for WasmScalar {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        coerce(&self.overloads, given, self.callee.views())
    }

    fn return_type(&self, given: &[DataType]) -> Result<DataType> {
        let views = self.callee.views();
        let spec = match exact(&self.overloads, given, views) {
            Some(spec) => Some(spec),
            None => exact(&self.overloads, &coerce(&self.overloads, given, views)?, views),
        };
        match spec.map(|s| &s.shape) {
            Some(Shape::Scalar { returns }) => Ok(returns.clone()),
            _ => Err(plan_datafusion_err!("no overload of `{}` for these arguments", self.name)),
        }
    }

    fn is_strict(&self) -> bool {
        self.overloads.iter().all(|f| f.nulls == Nulls::Propagate)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let given: Vec<DataType> = args.args.iter().map(ColumnarValue::data_type).collect();
        let views = self.callee.views();
        let wanted = match exact(&self.overloads, &given, views) {
            Some(_) => given,
            None => coerce(&self.overloads, &given, views)?,
        };
        let spec = exact(&self.overloads, &wanted, views)
            .ok_or_else(|| exec_datafusion_err!("no overload of `{}` for these arguments", self.name))?;
        let Shape::Scalar { returns } = &spec.shape else {
            return Err(exec_datafusion_err!("`{}` is no scalar function", self.name));
        };
        let mut columns = Vec::with_capacity(args.args.len());
        for (value, of) in args.args.iter().zip(&wanted) {
            let (array, constant) = match value {
                ColumnarValue::Array(array) => (Arc::clone(array), false),
                ColumnarValue::Scalar(scalar) => (scalar.to_array_of_size(1)?, true),
            };
            let array = if array.data_type() == of { array } else { arrow::compute::cast(&array, of)? };
            columns.push(Column { array, constant });
        }
        // Equal arguments, equal results: one row is enough.
        let once = columns.iter().all(|c| c.constant) && spec.volatility != Volatility::Volatile;
        let rows = if once { 1 } else { args.number_rows };
        let nulls = match spec.nulls {
            Nulls::Propagate => validity(rows, &columns),
            Nulls::Called => None,
        };
        let nothing = rows == 0 || nulls.as_ref().is_some_and(|n| n.null_count() == rows);
        let result = match nothing {
            true => new_null_array(returns, rows),
            false => {
                let found = self.call(spec, &columns, rows)?;
                // The plain mode has left them out already.
                let masked = self.callee.module.mode() == Mode::Plain;
                match nulls {
                    Some(nulls) if !masked => mask(&found, &nulls)?,
                    _ => found,
                }
            }
        };
        if once {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// Bytes that an argument takes in a guest, about.
fn size(array: &ArrayRef) -> usize {
    match views(array) {
        Some((views, _)) => view_bytes(views) + 4 * views.len(),
        None => array.to_data().get_slice_memory_size().unwrap_or_default(),
    }
}

/// `array` with NULL where `nulls` says so.
fn mask(array: &ArrayRef, nulls: &NullBuffer) -> Result<ArrayRef> {
    let absent = BooleanArray::new(!nulls.inner(), None);
    Ok(nullif(array.as_ref(), &absent)?)
}
