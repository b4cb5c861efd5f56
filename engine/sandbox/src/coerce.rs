//! Which overload arguments of given types are for, and what they are cast to.

use arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};

use crate::describe::FunctionSpec;
use crate::types::type_name;

/// True if a `given` type is passed as it is where `declared` is an argument's: views of strings cross the boundary as strings where
/// `views` says so.
fn passes(given: &DataType, declared: &DataType, views: bool) -> bool {
    use DataType::{Binary, BinaryView, Utf8, Utf8View};
    given == declared || views && matches!((given, declared), (Utf8View, Utf8) | (BinaryView, Binary))
}

/// Argument types of the overload that fits `given` best.
///
/// Numbers are cast to numbers (a value that does not fit is an error of the query), whole ones never from fractions; strings to strings;
/// dates and instants to instants.
pub(crate) fn coerce(overloads: &[FunctionSpec], given: &[DataType], views: bool) -> Result<Vec<DataType>> {
    let best = overloads
        .iter()
        .filter_map(|spec| {
            let fits = spec.args.len() == given.len();
            let cost = spec.args.iter().zip(given).map(|(to, from)| cost(from, to)).sum::<Option<u32>>();
            cost.filter(|_| fits).map(|cost| (cost, spec))
        })
        .min_by_key(|(cost, _)| *cost);
    if let Some((_, spec)) = best {
        let to = |(to, from): (&DataType, &DataType)| if passes(from, to, views) { from.clone() } else { to.clone() };
        return Ok(spec.args.iter().zip(given).map(to).collect());
    }
    let name = overloads.first().map_or("", |s| s.name.as_str());
    let given: Vec<String> = given.iter().map(type_name).collect();
    let known: Vec<String> = overloads.iter().map(|s| format!("`{name}{}`", s.signature())).collect();
    plan_err!("no function `{name}({})`: there is {}", given.join(", "), known.join(", "))
}

/// The overload for exactly these types.
pub(crate) fn exact<'a>(overloads: &'a [FunctionSpec], given: &[DataType], views: bool) -> Option<&'a FunctionSpec> {
    let fits = |spec: &&FunctionSpec| {
        spec.args.len() == given.len() && given.iter().zip(&spec.args).all(|(from, to)| passes(from, to, views))
    };
    overloads.iter().find(|spec| spec.args == given).or_else(|| overloads.iter().find(fits))
}

/// What a cast costs; none: there is none without being asked for.
fn cost(from: &DataType, to: &DataType) -> Option<u32> {
    use DataType::{
        Binary, BinaryView, Date32, Date64, Decimal128, Dictionary, Duration, FixedSizeBinary, LargeBinary, LargeList,
        LargeUtf8, List, Null, Struct, Timestamp, Utf8, Utf8View,
    };
    if from == to {
        return Some(0);
    }
    let floating = |t: &DataType| t.is_floating();
    let decimal = |t: &DataType| {
        matches!(t, DataType::Decimal32(..) | DataType::Decimal64(..) | Decimal128(..) | DataType::Decimal256(..))
    };
    match (from, to) {
        (Null, _) => Some(1),
        (Dictionary(_, value), _) => cost(value, to).map(|c| c + 1),
        (a, b) if a.is_integer() && b.is_integer() => {
            let width = |t: &DataType| t.primitive_width().unwrap_or(8);
            let same_sign = a.is_signed_integer() == b.is_signed_integer();
            Some(if same_sign && width(b) >= width(a) { 1 } else { 4 })
        }
        (a, b) if a.is_integer() && floating(b) => Some(if *b == DataType::Float64 { 2 } else { 3 }),
        (a, Decimal128(..)) if a.is_integer() => Some(2),
        (a, Decimal128(..)) if decimal(a) => Some(1),
        (a, b) if decimal(a) && floating(b) => Some(if *b == DataType::Float64 { 3 } else { 5 }),
        (a, b) if floating(a) && floating(b) => Some(if *b == DataType::Float64 { 1 } else { 5 }),
        (Utf8View | LargeUtf8, Utf8) => Some(1),
        (BinaryView | LargeBinary | FixedSizeBinary(_), Binary) => Some(1),
        (Utf8 | Utf8View | LargeUtf8, Binary) => Some(3),
        (Date64, Date32) => Some(2),
        (Date32 | Date64, Timestamp(..)) => Some(2),
        (Timestamp(_, a), Timestamp(_, b)) => Some(if a.is_some() == b.is_some() { 1 } else { 3 }),
        (Duration(_), Duration(_)) => Some(1),
        (List(a) | LargeList(a), List(b)) => cost(a.data_type(), b.data_type()).map(|c| c + 1),
        (DataType::FixedSizeList(a, _), List(b)) => cost(a.data_type(), b.data_type()).map(|c| c + 1),
        (Struct(a), Struct(b)) if a.len() == b.len() => {
            a.iter().zip(b).map(|(a, b)| cost(a.data_type(), b.data_type())).sum::<Option<u32>>().map(|c| c + 1)
        }
        _ => None,
    }
}
