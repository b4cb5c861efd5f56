//! An aggregate of a module as an aggregate of DataFusion: grouped, in two phases.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array};
use arrow::buffer::NullBuffer;
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_datafusion_err, not_impl_err, plan_datafusion_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use crate::coerce::{coerce, exact};
use crate::describe::{FunctionSpec, Nulls, Shape};
use crate::encode::Column;
use crate::guest::{Batch, Emit};
use crate::module::Module;
use crate::scalar::aliases;
use crate::scope::{Callee, Owned, Scope};

/// All overloads of an aggregate.
#[derive(Debug)]
pub struct WasmAggregate {
    name: String,
    aliases: Vec<String>,
    overloads: Vec<FunctionSpec>,
    signature: Signature,
    callee: Callee,
}

impl WasmAggregate {
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

    fn overload(&self, given: &[FieldRef]) -> Result<FunctionSpec> {
        let given: Vec<DataType> = given.iter().map(|f| f.data_type().clone()).collect();
        exact(&self.overloads, &given, self.callee.views())
            .cloned()
            .ok_or_else(|| plan_datafusion_err!("no overload of `{}` for these arguments", self.name))
    }

    fn groups(&self, args: &AccumulatorArgs<'_>) -> Result<Groups> {
        if args.is_distinct {
            return not_impl_err!(
                "`{}` with DISTINCT beside other aggregates: take the distinct rows first",
                self.name
            );
        }
        if args.ignore_nulls {
            return not_impl_err!("`{}` with IGNORE NULLS", self.name);
        }
        Groups::new(self.callee.clone(), self.overload(args.expr_fields)?)
    }
}

impl PartialEq for WasmAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.callee.module.digest() == other.callee.module.digest()
            && self.overloads == other.overloads
            && self.callee.module.declared().limits == other.callee.module.declared().limits
    }
}

impl Eq for WasmAggregate {}

impl Hash for WasmAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.callee.module.digest().hash(state);
    }
}

impl AggregateUDFImpl for WasmAggregate {
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
            Some(Shape::Aggregate { returns, .. }) => Ok(returns.clone()),
            _ => Err(plan_datafusion_err!("no overload of `{}` for these arguments", self.name)),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let spec = self.overload(args.input_fields)?;
        let Shape::Aggregate { state, .. } = spec.shape else { return Ok(Vec::new()) };
        let field = |(i, of): (usize, DataType)| {
            Arc::new(Field::new(format_state_name(args.name, &format!("state {i}")), of, true))
        };
        Ok(state.into_iter().enumerate().map(field).collect())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Single { groups: Mutex::new(self.groups(&args)?) }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.groups(&args)?))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The groups of one task: an instance of their own, which ends with them.
struct Groups {
    callee: Callee,
    spec: FunctionSpec,
    guest: Option<(Owned, u32)>,
    /// Groups that the guest knows of.
    known: usize,
}

impl Groups {
    fn new(callee: Callee, spec: FunctionSpec) -> Result<Self> {
        Ok(Self { callee, spec, guest: None, known: 0 })
    }

    fn state_types(&self) -> Vec<DataType> {
        match &self.spec.shape {
            Shape::Aggregate { state, .. } => state.clone(),
            _ => Vec::new(),
        }
    }

    /// Calls the guest; one that failed is gone.
    fn with<T>(
        &mut self,
        rows: usize,
        work: impl FnOnce(&mut dyn crate::guest::Guest, &FunctionSpec, u32) -> Result<T, crate::error::Cause>,
    ) -> Result<T> {
        let (mut owned, handle) = match self.guest.take() {
            Some(guest) => guest,
            None => {
                let mut owned = self.callee.own(&self.spec)?;
                let handle = owned.call(&self.callee, &self.spec, 0, |guest| guest.begin(&self.spec))?;
                (owned, handle)
            }
        };
        let done = owned.call(&self.callee, &self.spec, rows, |guest| work(guest, &self.spec, handle))?;
        self.guest = Some((owned, handle));
        Ok(done)
    }

    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        only: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        let nulls = match self.spec.nulls {
            Nulls::Propagate => values.iter().fold(None, |all, v| NullBuffer::union(all.as_ref(), v.nulls())),
            Nulls::Called => None,
        };
        let ids = narrowed(groups)?;
        let chosen = match (nulls.filter(|n| n.null_count() > 0), only) {
            (None, None) => None,
            (None, Some(only)) => Some(truth(only)),
            (Some(nulls), None) => Some(BooleanArray::new(nulls.inner().clone(), None)),
            (Some(nulls), Some(only)) => Some(BooleanArray::new(nulls.inner() & truth(only).values(), None)),
        };
        let (ids, columns) = match chosen {
            None => (ids, values.iter().cloned().map(Column::rows).collect::<Vec<_>>()),
            Some(chosen) => {
                let ids = filter(&UInt32Array::from(ids), &chosen)?;
                let ids = arrow::array::AsArray::as_primitive::<arrow::datatypes::UInt32Type>(&ids).values().to_vec();
                let columns = values.iter().map(|v| Ok(Column::rows(filter(v, &chosen)?)));
                (ids, columns.collect::<Result<Vec<_>>>()?)
            }
        };
        // Groups without a row that counts are groups all the same.
        if ids.is_empty() && count == self.known {
            return Ok(());
        }
        let batch = Batch { rows: ids.len(), columns: &columns };
        self.with(ids.len(), |guest, spec, handle| guest.update(spec, handle, &batch, &ids, count))?;
        self.known = count;
        Ok(())
    }

    fn merge(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        let ids = narrowed(groups)?;
        let columns: Vec<Column> = values.iter().cloned().map(Column::rows).collect();
        let batch = Batch { rows: ids.len(), columns: &columns };
        self.with(ids.len(), |guest, spec, handle| guest.merge(spec, handle, &batch, &ids, count))?;
        self.known = count;
        Ok(())
    }

    fn emit(&mut self, emit_to: EmitTo, what: Emit) -> Result<Vec<ArrayRef>> {
        let count = match emit_to {
            EmitTo::All => self.known,
            EmitTo::First(n) => n,
        };
        if count > self.known {
            self.grow(count)?;
        }
        let columns = self.with(count, |guest, spec, handle| guest.emit(spec, handle, count, what))?;
        self.known -= count;
        Ok(columns)
    }

    /// Tells the guest of groups that no row has come for.
    fn grow(&mut self, count: usize) -> Result<()> {
        let columns: Vec<Column> = self.spec.args.iter().map(|of| Column::rows(new_empty_array(of))).collect();
        let batch = Batch { rows: 0, columns: &columns };
        self.with(0, |guest, spec, handle| guest.update(spec, handle, &batch, &[], count))?;
        self.known = count;
        Ok(())
    }

    fn value(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let mut columns = self.emit(emit_to, Emit::Value)?;
        columns.pop().ok_or_else(|| exec_datafusion_err!("`{}` gave no result", self.spec.name))
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        only: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.update(values, groups, only, count)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.value(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.emit(emit_to, Emit::State)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.merge(values, groups, count)
    }

    fn convert_to_state(&self, values: &[ArrayRef], only: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |v| v.len());
        let mut each = Self::new(self.callee.clone(), self.spec.clone())?;
        let groups: Vec<usize> = (0..rows).collect();
        each.update(values, &groups, only, rows)?;
        each.emit(EmitTo::First(rows), Emit::State)
    }

    /// What the guest holds is charged to the pool by the guest's own reservation.
    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

/// One group.
struct Single {
    groups: Mutex<Groups>,
}

impl std::fmt::Debug for Single {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Single")
    }
}

impl Single {
    fn groups(&mut self) -> &mut Groups {
        self.groups.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |v| v.len());
        self.groups().update(values, &vec![0; rows], None, 1)
    }

    /// A window asks again and again while it grows: the group is put back from its state.
    fn evaluate(&mut self) -> Result<ScalarValue> {
        let groups = self.groups();
        let state = groups.emit(EmitTo::First(1), Emit::State)?;
        groups.merge(&state, &[0], 1)?;
        let value = groups.value(EmitTo::First(1))?;
        groups.merge(&state, &[0], 1)?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = self.groups().emit(EmitTo::First(1), Emit::State)?;
        state.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |v| v.len());
        debug_assert_eq!(states.len(), self.groups().state_types().len());
        self.groups().merge(states, &vec![0; rows], 1)
    }
}

fn narrowed(groups: &[usize]) -> Result<Vec<u32>> {
    groups
        .iter()
        .map(|g| u32::try_from(*g))
        .collect::<Result<_, _>>()
        .map_err(|_| exec_datafusion_err!("more groups than a guest can count"))
}

/// NULL is false.
fn truth(only: &BooleanArray) -> BooleanArray {
    match only.nulls() {
        Some(nulls) => BooleanArray::new(only.values() & nulls.inner(), None),
        None => only.clone(),
    }
}
