//! Widths of types, and what an expression costs for a row.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, LikeExpr, Literal, TryCastExpr,
};

/// Bytes that a string, a binary or a list is taken for: nobody has read one when a plan is made.
const VARIABLE_WIDTH: f32 = 24.0;

/// Bytes of a value in memory.
pub(super) fn width(data_type: &DataType) -> f32 {
    if let Some(bytes) = data_type.primitive_width() {
        return bytes as f32;
    }
    match data_type {
        DataType::Null => 0.0,
        DataType::Boolean => 0.125,
        DataType::FixedSizeBinary(bytes) => *bytes as f32,
        DataType::Dictionary(key, _) => width(key),
        DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).sum(),
        DataType::FixedSizeList(field, length) => width(field.data_type()) * *length as f32,
        DataType::List(field) | DataType::LargeList(field) | DataType::ListView(field) => {
            8.0 * width(field.data_type())
        }
        _ => VARIABLE_WIDTH,
    }
}

/// True for values that lie beside their column, of any length.
pub(super) fn is_string(data_type: &DataType) -> bool {
    data_type.primitive_width().is_none() && !matches!(data_type, DataType::Boolean | DataType::Null)
}

/// Bytes of a row, and its columns of strings.
pub(super) fn row(schema: &Schema) -> (f32, u16) {
    let types = || schema.fields().iter().map(|field| field.data_type());
    (types().map(width).sum(), types().filter(|t| is_string(t)).count() as u16)
}

/// How much dearer an operation on a type is than on a number.
fn factor(data_type: Option<DataType>) -> f32 {
    match data_type {
        Some(DataType::Decimal128(..)) => 2.0,
        Some(DataType::Decimal256(..)) => 6.0,
        Some(t) if is_string(&t) => 6.0,
        _ => 1.0,
    }
}

/// Cost of an expression for one row, in additions of two numbers, by its form alone.
#[recursive::recursive]
pub(super) fn expression(expr: &Arc<dyn PhysicalExpr>, input: &Schema) -> f32 {
    let below: f32 = expr.children().into_iter().map(|child| expression(child, input)).sum();
    let of_first = || expr.children().first().and_then(|child| child.data_type(input).ok());
    let own = if expr.downcast_ref::<Column>().is_some() || expr.downcast_ref::<Literal>().is_some() {
        0.0
    } else if expr.downcast_ref::<BinaryExpr>().is_some() {
        factor(of_first())
    } else if let Some(list) = expr.downcast_ref::<InListExpr>() {
        // A hash table beyond a few values.
        (list.list().len() as f32).min(4.0) * factor(of_first())
    } else if expr.downcast_ref::<LikeExpr>().is_some() {
        24.0
    } else if expr.downcast_ref::<CaseExpr>().is_some() {
        4.0
    } else if expr.downcast_ref::<CastExpr>().is_some() || expr.downcast_ref::<TryCastExpr>().is_some() {
        2.0 * factor(of_first())
    } else if expr.downcast_ref::<ScalarFunctionExpr>().is_some() {
        4.0 * factor(of_first())
    } else {
        1.0
    };
    own + below
}

/// Cost of several expressions.
pub(super) fn expressions<'a>(exprs: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>, input: &Schema) -> f32 {
    exprs.into_iter().map(|expr| expression(expr, input)).sum()
}
