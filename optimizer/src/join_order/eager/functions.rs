//! Aggregate functions cut in two, so that rows can be grouped below the place where groups are asked for: `f_state` gives the state of `f` as
//! its value, `f_merge` takes such states and gives what `f` gives. They are what DataFusion's partial and final aggregation do, as functions of
//! their own (ClickHouse calls them `-State` and `-Merge`).

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StructArray, new_null_array};
use datafusion::arrow::compute::filter;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err, internal_err, plan_datafusion_err};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, Expr, GroupsAccumulator, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;

/// Functions for which the order of rows does not matter, and whose state is a few numbers.
const DIVISIBLE: [&str; 16] = [
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "var",
    "var_pop",
    "stddev",
    "stddev_pop",
    "covar_samp",
    "covar_pop",
    "corr",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
];

/// Whether `function` can be cut in two: it is one of DataFusion's, and what it is given is a group's rows in any order.
pub(in crate::join_order) fn is_divisible(function: &AggregateFunction) -> bool {
    let params = &function.params;
    // A user's function of the same name has its version for an alias.
    let own = function.func.aliases().iter().any(|alias| alias.contains('@'));
    DIVISIBLE.contains(&function.func.name())
        && !own
        && !params.distinct
        && params.order_by.is_empty()
        && params.null_treatment.is_none()
        && !params.args.iter().chain(params.filter.as_deref()).any(Expr::is_volatile)
}

/// `function` over arguments of `fields`, cut in two: what gives states, and what merges them.
pub(in crate::join_order) fn divided(
    function: &AggregateUDF,
    fields: Vec<FieldRef>,
) -> Result<(AggregateUDF, AggregateUDF)> {
    let of = |part: &str| Of {
        function: function.clone(),
        name: format!("{}_{part}", function.name()),
        signature: Signature::user_defined(Volatility::Immutable),
        fields: fields.clone(),
    };
    // What would fail when it runs fails here.
    let merge = Merge(of("merge"));
    merge.0.states()?;
    Ok((AggregateUDF::new_from_impl(State(of("state"))), AggregateUDF::new_from_impl(merge)))
}

/// One of the two parts of a function that was cut in two, such that it can be made again elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct AggregatePart {
    /// Name of the function, which is one of DataFusion's.
    pub function: String,
    /// Whether it takes states, or gives them.
    pub merges: bool,
    /// Arguments of the function.
    pub fields: Vec<FieldRef>,
}

impl AggregatePart {
    /// What `function` is a part of; none where it is no part.
    pub fn of(function: &AggregateUDF) -> Option<Self> {
        let part = function.inner();
        let (of, merges) = match (part.downcast_ref::<State>(), part.downcast_ref::<Merge>()) {
            (Some(State(of)), _) => (of, false),
            (_, Some(Merge(of))) => (of, true),
            _ => return None,
        };
        Some(Self { function: of.function.name().to_owned(), merges, fields: of.fields.clone() })
    }

    /// The part made again.
    ///
    /// # Errors
    /// There is no such function, or it takes no such arguments.
    pub fn make(&self) -> Result<AggregateUDF> {
        let known = DIVISIBLE.contains(&self.function.as_str());
        let function = SessionStateDefaults::default_aggregate_functions()
            .into_iter()
            .find(|f| known && f.name() == self.function)
            .ok_or_else(|| {
                plan_datafusion_err!("`{}` is no function that is cut in two", self.function.escape_debug())
            })?;
        let (state, merge) = divided(&function, self.fields.clone())?;
        Ok(if self.merges { merge } else { state })
    }
}

/// A function over arguments of known types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Of {
    function: AggregateUDF,
    name: String,
    signature: Signature,
    fields: Vec<FieldRef>,
}

impl Of {
    fn result(&self) -> Result<FieldRef> {
        self.function.return_field(&self.fields)
    }

    /// Columns of a state.
    fn states(&self) -> Result<Vec<FieldRef>> {
        self.function.state_fields(StateFieldsArgs {
            name: self.function.name(),
            input_fields: &self.fields,
            return_field: self.result()?,
            ordering_fields: &[],
            is_distinct: false,
        })
    }

    /// A state as one column: itself where it has one, else a struct.
    fn state(&self) -> Result<DataType> {
        let states = self.states()?;
        Ok(match states.as_slice() {
            [only] => only.data_type().clone(),
            _ => DataType::Struct(numbered(&states)),
        })
    }

    /// Calls `make` with arguments of the function itself.
    fn with_args<T>(&self, make: impl FnOnce(AccumulatorArgs<'_>) -> T) -> Result<T> {
        let fields: Fields = self.fields.iter().enumerate().map(|(i, f)| renamed(f, i)).collect();
        let schema = Schema::new(fields.clone());
        let exprs: Vec<Arc<dyn PhysicalExpr>> =
            fields.iter().enumerate().map(|(i, f)| Arc::new(Column::new(f.name(), i)) as _).collect();
        let expr_fields: Vec<FieldRef> = fields.iter().cloned().collect();
        Ok(make(AccumulatorArgs {
            return_field: self.result()?,
            schema: &schema,
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: self.function.name(),
            is_distinct: false,
            exprs: &exprs,
            expr_fields: &expr_fields,
        }))
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        self.with_args(|args| self.function.accumulator(args))?
    }

    fn groups_supported(&self) -> bool {
        self.with_args(|args| self.function.groups_accumulator_supported(args)).unwrap_or(false)
    }

    fn groups_accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        self.with_args(|args| self.function.create_groups_accumulator(args))?
    }
}

fn renamed(field: &FieldRef, at: usize) -> FieldRef {
    Arc::new(field.as_ref().clone().with_name(at.to_string()))
}

/// Fields of a struct of states.
fn numbered(states: &[FieldRef]) -> Fields {
    states.iter().enumerate().map(|(i, f)| Arc::new(Field::new(i.to_string(), f.data_type().clone(), true))).collect()
}

/// States of all groups as one column.
fn joined(states: Vec<ArrayRef>) -> Result<ArrayRef> {
    if let [only] = states.as_slice() {
        return Ok(Arc::clone(only));
    }
    let fields: Fields = states
        .iter()
        .enumerate()
        .map(|(i, array)| Arc::new(Field::new(i.to_string(), array.data_type().clone(), true)))
        .collect();
    Ok(Arc::new(StructArray::try_new(fields, states, None)?))
}

/// The columns of states in `values`, `width` of them.
fn parted(values: &[ArrayRef], width: usize) -> Result<Vec<ArrayRef>> {
    let [states] = values else { return internal_err!("states are one column, not {}", values.len()) };
    if width == 1 {
        return Ok(vec![Arc::clone(states)]);
    }
    let parts = states.as_struct_opt().ok_or_else(|| internal_datafusion_err!("states are no struct"))?;
    Ok(parts.columns().to_vec())
}

/// Gives the state of a function as its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State(Of);

impl AggregateUDFImpl for State {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        self.0.state()
    }

    fn state_fields(&self, _: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.states()
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(StateOf(self.0.accumulator()?)))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        self.0.groups_supported()
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(StatesOf(self.0.groups_accumulator()?)))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// Merges states of a function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Merge(Of);

impl AggregateUDFImpl for Merge {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.0.result()?.data_type().clone())
    }

    fn return_field(&self, _: &[FieldRef]) -> Result<FieldRef> {
        self.0.result()
    }

    fn is_nullable(&self) -> bool {
        self.0.function.is_nullable()
    }

    fn state_fields(&self, _: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.states()
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(MergeOf { inner: self.0.accumulator()?, width: self.0.states()?.len() }))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        self.0.groups_supported()
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        let width = self.0.states()?.len();
        Ok(Box::new(MergesOf { inner: self.0.groups_accumulator()?, width, of: self.0.clone() }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.0.function.default_value(data_type)
    }
}

#[derive(Debug)]
struct StateOf(Box<dyn Accumulator>);

impl Accumulator for StateOf {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let states = self.0.state()?;
        if let [only] = states.as_slice() {
            return Ok(only.clone());
        }
        let arrays = states.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
        ScalarValue::try_from_array(&joined(arrays)?, 0)
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }
}

struct StatesOf(Box<dyn GroupsAccumulator>);

impl GroupsAccumulator for StatesOf {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.0.update_batch(values, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        joined(self.0.state(emit_to)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.0.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.0.convert_to_state(values, opt_filter)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

#[derive(Debug)]
struct MergeOf {
    inner: Box<dyn Accumulator>,
    width: usize,
}

impl Accumulator for MergeOf {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(&parted(values, self.width)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}

struct MergesOf {
    inner: Box<dyn GroupsAccumulator>,
    width: usize,
    of: Of,
}

impl GroupsAccumulator for MergesOf {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let states = parted(values, self.width)?;
        match opt_filter {
            None => self.inner.merge_batch(&states, group_indices, total_num_groups),
            Some(kept) => merge_kept(&mut *self.inner, &self.of, &states, group_indices, kept, total_num_groups),
        }
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.inner.evaluate(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.inner.merge_batch(values, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let states = parted(values, self.width)?;
        let Some(kept) = opt_filter else { return Ok(states) };
        let mut of_rows = self.of.groups_accumulator()?;
        let groups: Vec<usize> = (0..kept.len()).collect();
        merge_kept(&mut *of_rows, &self.of, &states, &groups, kept, groups.len())?;
        of_rows.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

/// Merges the states that are `kept` into their groups. A group with none of them is one of no rows.
fn merge_kept(
    into: &mut dyn GroupsAccumulator,
    of: &Of,
    states: &[ArrayRef],
    group_indices: &[usize],
    kept: &BooleanArray,
    total_num_groups: usize,
) -> Result<()> {
    // Makes the groups. Accumulators take groups for filled that come without NULLs and without a filter, even where no row comes.
    let none = BooleanArray::from(vec![false; group_indices.len()]);
    let nulls: Vec<ArrayRef> = of.fields.iter().map(|f| new_null_array(f.data_type(), group_indices.len())).collect();
    into.update_batch(&nulls, group_indices, Some(&none), total_num_groups)?;
    let stays = |at: usize| kept.is_valid(at) && kept.value(at);
    let rows = group_indices.iter().enumerate().filter(|(at, _)| stays(*at));
    let indices: Vec<usize> = rows.map(|(_, &group)| group).collect();
    if indices.is_empty() {
        return Ok(());
    }
    let states = states.iter().map(|array| Ok(filter(array, kept)?)).collect::<Result<Vec<_>>>()?;
    into.merge_batch(&states, &indices, total_num_groups)
}
