//! Arrow columns ↔ the types of udf-sdk/wit. What comes back is checked like what comes from a core module's memory: lengths, offsets, UTF-8,
//! digits, and that there are as many nodes as the type says.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, Decimal128Array, ListArray,
    PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};

use super::wit::{Bytes, Column, Node, Values};
use crate::decode::Broken;
use crate::encode;
use crate::error::Cause;
use crate::types::type_name;

/// The column as a component gets it.
pub(super) fn lower(column: &encode::Column) -> Result<Column, Cause> {
    let mut nodes = Vec::new();
    lower_array(&column.array, &mut nodes)?;
    Ok(Column { nodes, constant: column.constant })
}

fn lower_array(array: &ArrayRef, nodes: &mut Vec<Node>) -> Result<(), Cause> {
    let at = nodes.len();
    let validity = array.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| bits(nulls.inner()));
    nodes.push(Node { values: Values::Structs(0), validity: validity.unwrap_or_default() });
    let values = match array.data_type() {
        DataType::Boolean => Values::Booleans(bits(array.as_boolean().values())),
        DataType::Int8 => Values::Int8(numbers::<Int8Type>(array)),
        DataType::Int16 => Values::Int16(numbers::<Int16Type>(array)),
        DataType::Int32 => Values::Int32(numbers::<Int32Type>(array)),
        DataType::Date32 => Values::Int32(numbers::<Date32Type>(array)),
        DataType::Int64 => Values::Int64(numbers::<Int64Type>(array)),
        DataType::Timestamp(TimeUnit::Second, _) => Values::Int64(numbers::<TimestampSecondType>(array)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Values::Int64(numbers::<TimestampMillisecondType>(array)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Values::Int64(numbers::<TimestampMicrosecondType>(array)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Values::Int64(numbers::<TimestampNanosecondType>(array)),
        DataType::Duration(TimeUnit::Second) => Values::Int64(numbers::<DurationSecondType>(array)),
        DataType::Duration(TimeUnit::Millisecond) => Values::Int64(numbers::<DurationMillisecondType>(array)),
        DataType::Duration(TimeUnit::Microsecond) => Values::Int64(numbers::<DurationMicrosecondType>(array)),
        DataType::Duration(TimeUnit::Nanosecond) => Values::Int64(numbers::<DurationNanosecondType>(array)),
        DataType::UInt8 => Values::Uint8(numbers::<UInt8Type>(array)),
        DataType::UInt16 => Values::Uint16(numbers::<UInt16Type>(array)),
        DataType::UInt32 => Values::Uint32(numbers::<UInt32Type>(array)),
        DataType::UInt64 => Values::Uint64(numbers::<UInt64Type>(array)),
        DataType::Float32 => Values::Float32(numbers::<Float32Type>(array)),
        DataType::Float64 => Values::Float64(numbers::<Float64Type>(array)),
        DataType::Utf8 => {
            let strings = array.as_string::<i32>();
            Values::Bytes(variable(strings.offsets(), strings.values()))
        }
        DataType::Binary => {
            let binary = array.as_binary::<i32>();
            Values::Bytes(variable(binary.offsets(), binary.values()))
        }
        DataType::Decimal128(..) => {
            let decimals = array.as_primitive::<arrow::datatypes::Decimal128Type>().values();
            Values::Decimals(decimals.iter().flat_map(|units| units.to_le_bytes()).collect())
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (first, last) = ends(list.offsets());
            let items = list.values().slice(first, last - first);
            let offsets = rebased(list.offsets());
            lower_array(&items, nodes)?;
            Values::Lists(offsets)
        }
        DataType::Struct(_) => {
            for field in array.as_struct().columns() {
                lower_array(field, nodes)?;
            }
            Values::Structs(u32::try_from(array.len()).map_err(|_| Cause::Internal("too many rows".to_owned()))?)
        }
        other => return Err(Cause::Internal(format!("{other} does not cross the boundary"))),
    };
    nodes[at].values = values;
    Ok(())
}

/// Numbers as they lie in memory, which is little-endian wherever sparklet runs.
fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef) -> Vec<u8> {
    let values = array.as_primitive::<T>().values();
    values.inner().as_slice()[..values.len() * size_of::<T::Native>()].to_vec()
}

fn bits(bits: &BooleanBuffer) -> Vec<u8> {
    bits.sliced().as_slice()[..bits.len().div_ceil(8)].to_vec()
}

fn ends(offsets: &OffsetBuffer<i32>) -> (usize, usize) {
    let at = |offset: Option<&i32>| offset.and_then(|o| usize::try_from(*o).ok()).unwrap_or_default();
    (at(offsets.first()), at(offsets.last()))
}

fn rebased(offsets: &OffsetBuffer<i32>) -> Vec<u8> {
    let first = offsets.first().copied().unwrap_or_default();
    offsets.iter().flat_map(|offset| (offset - first).to_le_bytes()).collect()
}

fn variable(offsets: &OffsetBuffer<i32>, data: &Buffer) -> Bytes {
    let (first, last) = ends(offsets);
    Bytes { offsets: rebased(offsets), data: data.as_slice()[first..last].to_vec() }
}

/// The array of a column that a component gave, of type `of` with `rows` rows.
pub(super) fn lift(column: Column, of: &DataType, rows: usize) -> Result<ArrayRef, Broken> {
    if column.constant {
        return Err("a result that is one row for all".to_owned());
    }
    let mut nodes = column.nodes.into_iter();
    let array = lift_node(&mut nodes, of, rows)?;
    match nodes.len() {
        0 => Ok(array),
        more => Err(format!("a column with {more} nodes more than {} has", type_name(of))),
    }
}

fn lift_node(nodes: &mut std::vec::IntoIter<Node>, of: &DataType, rows: usize) -> Result<ArrayRef, Broken> {
    let Some(Node { values, validity }) = nodes.next() else {
        return Err(format!("a column with fewer nodes than {} has", type_name(of)));
    };
    let nulls = match validity.len() {
        0 => None,
        bytes if bytes == rows.div_ceil(8) => {
            Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(validity), 0, rows)))
        }
        bytes => return Err(format!("a validity of {bytes} bytes for {rows} rows")),
    };
    let what = || type_name(of);
    Ok(match (of, values) {
        (DataType::Boolean, Values::Booleans(bits)) => {
            fits(bits.len(), rows.div_ceil(8), "bytes", &what())?;
            Arc::new(BooleanArray::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, rows), nulls))
        }
        (DataType::Int8, Values::Int8(v)) => primitive::<Int8Type>(v, of, nulls, rows)?,
        (DataType::Int16, Values::Int16(v)) => primitive::<Int16Type>(v, of, nulls, rows)?,
        (DataType::Int32, Values::Int32(v)) => primitive::<Int32Type>(v, of, nulls, rows)?,
        (DataType::Date32, Values::Int32(v)) => primitive::<Date32Type>(v, of, nulls, rows)?,
        (DataType::Int64, Values::Int64(v)) => primitive::<Int64Type>(v, of, nulls, rows)?,
        (DataType::Timestamp(unit, _), Values::Int64(v)) => match unit {
            TimeUnit::Second => primitive::<TimestampSecondType>(v, of, nulls, rows)?,
            TimeUnit::Millisecond => primitive::<TimestampMillisecondType>(v, of, nulls, rows)?,
            TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(v, of, nulls, rows)?,
            TimeUnit::Nanosecond => primitive::<TimestampNanosecondType>(v, of, nulls, rows)?,
        },
        (DataType::Duration(unit), Values::Int64(v)) => match unit {
            TimeUnit::Second => primitive::<DurationSecondType>(v, of, nulls, rows)?,
            TimeUnit::Millisecond => primitive::<DurationMillisecondType>(v, of, nulls, rows)?,
            TimeUnit::Microsecond => primitive::<DurationMicrosecondType>(v, of, nulls, rows)?,
            TimeUnit::Nanosecond => primitive::<DurationNanosecondType>(v, of, nulls, rows)?,
        },
        (DataType::UInt8, Values::Uint8(v)) => primitive::<UInt8Type>(v, of, nulls, rows)?,
        (DataType::UInt16, Values::Uint16(v)) => primitive::<UInt16Type>(v, of, nulls, rows)?,
        (DataType::UInt32, Values::Uint32(v)) => primitive::<UInt32Type>(v, of, nulls, rows)?,
        (DataType::UInt64, Values::Uint64(v)) => primitive::<UInt64Type>(v, of, nulls, rows)?,
        (DataType::Float32, Values::Float32(v)) => primitive::<Float32Type>(v, of, nulls, rows)?,
        (DataType::Float64, Values::Float64(v)) => primitive::<Float64Type>(v, of, nulls, rows)?,
        (DataType::Utf8, Values::Bytes(bytes)) => {
            let offsets = offsets(&bytes.offsets, rows, Some(bytes.data.len()))?;
            // Checks UTF-8, and that offsets are at character boundaries.
            let array = StringArray::try_new(offsets, Buffer::from_vec(bytes.data), nulls);
            Arc::new(array.map_err(|e| format!("strings that are not UTF-8: {e}"))?)
        }
        (DataType::Binary, Values::Bytes(bytes)) => {
            let offsets = offsets(&bytes.offsets, rows, Some(bytes.data.len()))?;
            let array = BinaryArray::try_new(offsets, Buffer::from_vec(bytes.data), nulls);
            Arc::new(array.map_err(|e| e.to_string())?)
        }
        (DataType::Decimal128(precision, scale), Values::Decimals(bytes)) => {
            fits(bytes.len(), rows.saturating_mul(16), "bytes", &what())?;
            let (units, _) = bytes.as_chunks::<16>();
            let units: Vec<i128> = units.iter().map(|units| i128::from_le_bytes(*units)).collect();
            let array = Decimal128Array::try_new(ScalarBuffer::from(units), nulls)
                .and_then(|array| array.with_precision_and_scale(*precision, *scale))
                .map_err(|e| e.to_string())?;
            array.validate_decimal_precision(*precision).map_err(|e| format!("a decimal out of range: {e}"))?;
            Arc::new(array)
        }
        (DataType::List(item), Values::Lists(ends)) => {
            let offsets = offsets(&ends, rows, None)?;
            let count = offsets.last().copied().and_then(|last| usize::try_from(last).ok()).unwrap_or_default();
            let items = lift_node(nodes, item.data_type(), count)?;
            Arc::new(ListArray::try_new(Arc::clone(item), offsets, items, nulls).map_err(|e| e.to_string())?)
        }
        (DataType::Struct(fields), Values::Structs(count)) => {
            fits(count as usize, rows, "rows", &what())?;
            let columns: Result<Vec<ArrayRef>, Broken> =
                fields.iter().map(|field| lift_node(nodes, field.data_type(), rows)).collect();
            let array = StructArray::try_new_with_length(fields.clone(), columns?, nulls, rows);
            Arc::new(array.map_err(|e| e.to_string())?)
        }
        (_, values) => return Err(format!("{} where {} is declared", values.name(), what())),
    })
}

fn fits(found: usize, want: usize, unit: &str, what: &str) -> Result<(), Broken> {
    if found == want { Ok(()) } else { Err(format!("{found} {unit} of {what} where {want} belong")) }
}

fn primitive<T: ArrowPrimitiveType>(
    bytes: Vec<u8>,
    of: &DataType,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> Result<ArrayRef, Broken> {
    fits(bytes.len(), rows.saturating_mul(size_of::<T::Native>()), "bytes", &type_name(of))?;
    // Copied to where it is aligned.
    let values = ScalarBuffer::<T::Native>::new(Buffer::from_slice_ref(&bytes), 0, rows);
    let array = PrimitiveArray::<T>::try_new(values, nulls).map_err(|e| e.to_string())?;
    Ok(Arc::new(array.with_data_type(of.clone())))
}

fn offsets(offsets: &[u8], rows: usize, bytes: Option<usize>) -> Result<OffsetBuffer<i32>, Broken> {
    let (offsets, rest) = offsets.as_chunks::<4>();
    fits(rest.len(), 0, "bytes more than whole numbers", "offsets")?;
    let offsets: Vec<i32> = offsets.iter().map(|offset| i32::from_le_bytes(*offset)).collect();
    fits(offsets.len(), rows.saturating_add(1), "offsets", "a column")?;
    if offsets.first() != Some(&0) {
        return Err("offsets that do not begin at 0".to_owned());
    }
    if offsets.windows(2).any(|pair| pair[0] > pair[1]) {
        return Err("offsets that fall".to_owned());
    }
    let last = offsets.last().copied().and_then(|last| usize::try_from(last).ok()).unwrap_or_default();
    if bytes.is_some_and(|bytes| last > bytes) {
        return Err(format!("offsets that end at {last}, outside of the data"));
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;
    use crate::types::parse_type;

    fn check(array: ArrayRef) {
        for (from, len) in [(0, array.len()), (1, array.len() - 1), (1, 0)] {
            let part = array.slice(from, len);
            let lowered = lower(&encode::Column::rows(Arc::clone(&part))).unwrap();
            assert_eq!(&lift(lowered, array.data_type(), len).unwrap(), &part);
        }
    }

    #[test]
    fn columns_come_back_as_they_went() {
        check(Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MAX)])));
        check(Arc::new(StringArray::from(vec![Some("a"), None, Some("é☃"), Some("")])));
        check(Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)])));
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
            Some(vec![]),
            Some(vec![Some(7)]),
        ]);
        let of = parse_type("Struct(a: List(Int64), b: Utf8)").unwrap();
        let DataType::Struct(fields) = of else { unreachable!() };
        let lists = arrow::compute::cast(&lists, fields[0].data_type()).unwrap();
        check(Arc::clone(&lists));
        let texts = Arc::new(StringArray::from(vec![Some("x"), Some("y"), None, Some("z")]));
        check(Arc::new(StructArray::new(fields, vec![lists, texts], None)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let words = |numbers: &[i32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        let column = |values, validity| Column { nodes: vec![Node { values, validity }], constant: false };
        let text = |offsets: &[i32], data: &[u8]| {
            column(Values::Bytes(Bytes { offsets: words(offsets), data: data.to_vec() }), vec![])
        };
        for (given, of, says) in [
            (column(Values::Int64(vec![1]), vec![]), "Int64", "1 bytes of Int64 where 16 belong"),
            (column(Values::Int64(vec![0; 16]), vec![0, 0]), "Int64", "a validity of 2 bytes for 2 rows"),
            (column(Values::Float64(vec![0; 16]), vec![]), "Int64", "float64 where Int64 is declared"),
            (column(Values::Int16(vec![0; 3]), vec![]), "Int16", "3 bytes of Int16 where 4 belong"),
            (column(Values::Lists(vec![0; 9]), vec![]), "List(Int8)", "1 bytes more than whole numbers"),
            (text(&[0, 1], b"ab"), "Utf8", "2 offsets"),
            (text(&[1, 1, 2], b"ab"), "Utf8", "begin at 0"),
            (text(&[0, 2, 1], b"ab"), "Utf8", "fall"),
            (text(&[0, 1, 3], b"ab"), "Utf8", "outside"),
            (text(&[0, 1, 2], b"\xc3\xa9"), "Utf8", "not UTF-8"),
            (column(Values::Lists(words(&[0, 0, 9])), vec![]), "List(Int8)", "fewer nodes"),
            (column(Values::Decimals(vec![0xff; 31]), vec![]), "Decimal128(4, 2)", "31 bytes"),
            (column(Values::Decimals([[0x7f; 16]; 2].concat()), vec![]), "Decimal128(4, 2)", "out of range"),
            (column(Values::Structs(1), vec![]), "Struct(a: Int8)", "1 rows"),
        ] {
            let error = lift(given, &parse_type(of).unwrap(), 2).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
