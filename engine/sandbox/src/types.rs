//! Names and codes of the types that cross the boundary.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

/// Deepest nesting of lists and structs.
pub(crate) const MAX_DEPTH: usize = 8;

/// Most fields of a struct.
const MAX_FIELDS: usize = 256;

/// The type that `text` names, e.g. `Decimal128(12, 2)`, `List(Utf8)`, `Struct(a: Int32, b: Utf8)`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_type(text: &str) -> Result<DataType, String> {
    let mut parser = Parser { rest: text, whole: text };
    let found = parser.of_depth(0)?;
    parser.skip();
    if parser.rest.is_empty() { Ok(found) } else { Err(parser.bad()) }
}

/// Name of a type, as [`parse_type`] reads it; types that do not cross the boundary have the name that Arrow gives them.
pub fn type_name(of: &DataType) -> String {
    match of {
        DataType::Decimal128(p, s) => format!("Decimal128({p}, {s})"),
        DataType::Timestamp(unit, None) => format!("Timestamp({})", unit_name(unit)),
        DataType::Timestamp(unit, Some(_)) => format!("Timestamp({}, UTC)", unit_name(unit)),
        DataType::Duration(unit) => format!("Duration({})", unit_name(unit)),
        DataType::List(item) => format!("List({})", type_name(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|f| format!("{}: {}", f.name(), type_name(f.data_type()))).collect();
            format!("Struct({})", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// Code of a type in `col.type`; none where it does not cross the boundary.
pub(crate) fn code(of: &DataType) -> Option<u32> {
    Some(match of {
        DataType::Boolean => 1,
        DataType::Int8 => 2,
        DataType::Int16 => 3,
        DataType::Int32 => 4,
        DataType::Int64 => 5,
        DataType::UInt8 => 6,
        DataType::UInt16 => 7,
        DataType::UInt32 => 8,
        DataType::UInt64 => 9,
        DataType::Float32 => 10,
        DataType::Float64 => 11,
        DataType::Utf8 | DataType::Utf8View => 12,
        DataType::Binary | DataType::BinaryView => 13,
        DataType::Decimal128(..) => 14,
        DataType::Date32 => 15,
        DataType::Timestamp(..) => 16,
        DataType::Duration(_) => 17,
        DataType::List(_) => 20,
        DataType::Struct(_) => 21,
        _ => return None,
    })
}

/// `p0` and `p1` of a column of this type.
pub(crate) fn parameters(of: &DataType) -> (u32, u32) {
    match of {
        DataType::Decimal128(precision, scale) => (u32::from(*precision), i32::from(*scale).cast_unsigned()),
        DataType::Timestamp(unit, zone) => (unit_code(*unit), u32::from(zone.is_some())),
        DataType::Duration(unit) => (unit_code(*unit), 0),
        _ => (0, 0),
    }
}

fn unit_code(unit: TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

fn unit_name(unit: &TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// Width of a value in bytes, for types whose values lie in one buffer of them.
pub(crate) fn width(of: &DataType) -> Option<usize> {
    of.primitive_width()
}

struct Parser<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl<'a> Parser<'a> {
    fn bad(&self) -> String {
        let shown: String = self.whole.chars().take(80).collect();
        format!("`{}` is not a type, e.g. `Int64`, `Utf8`, `Decimal128(12, 2)`, `List(Utf8)`", shown.escape_debug())
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn word(&mut self) -> &'a str {
        self.skip();
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.take(wanted) { Ok(()) } else { Err(self.bad()) }
    }

    fn of_depth(&mut self, depth: usize) -> Result<DataType, String> {
        if depth > MAX_DEPTH {
            return Err(format!("types nest deeper than {MAX_DEPTH} levels"));
        }
        Ok(match self.word() {
            "Boolean" => DataType::Boolean,
            "Int8" => DataType::Int8,
            "Int16" => DataType::Int16,
            "Int32" => DataType::Int32,
            "Int64" => DataType::Int64,
            "UInt8" => DataType::UInt8,
            "UInt16" => DataType::UInt16,
            "UInt32" => DataType::UInt32,
            "UInt64" => DataType::UInt64,
            "Float32" => DataType::Float32,
            "Float64" => DataType::Float64,
            "Utf8" => DataType::Utf8,
            "Binary" => DataType::Binary,
            "Date32" => DataType::Date32,
            "Decimal128" => self.decimal()?,
            "Timestamp" => {
                self.expect('(')?;
                let unit = self.unit()?;
                let zone = match self.take(',') {
                    true if self.word() == "UTC" => Some(Arc::from("UTC")),
                    true => return Err(self.bad()),
                    false => None,
                };
                self.expect(')')?;
                DataType::Timestamp(unit, zone)
            }
            "Duration" => {
                self.expect('(')?;
                let unit = self.unit()?;
                self.expect(')')?;
                DataType::Duration(unit)
            }
            "List" => {
                self.expect('(')?;
                let item = self.of_depth(depth + 1)?;
                self.expect(')')?;
                DataType::List(item_field(item))
            }
            "Struct" => self.structure(depth)?,
            _ => return Err(self.bad()),
        })
    }

    fn decimal(&mut self) -> Result<DataType, String> {
        self.expect('(')?;
        let precision: u8 = self.word().parse().map_err(|_| self.bad())?;
        self.expect(',')?;
        let scale: i8 = self.word().parse().map_err(|_| self.bad())?;
        self.expect(')')?;
        if precision == 0 || precision > 38 || scale > precision.cast_signed() {
            return Err(format!("a decimal has 1 to 38 digits, and no more of them after the point: `{}`", self.whole));
        }
        Ok(DataType::Decimal128(precision, scale))
    }

    fn structure(&mut self, depth: usize) -> Result<DataType, String> {
        self.expect('(')?;
        let mut fields: Vec<FieldRef> = Vec::new();
        loop {
            let name = self.word().to_owned();
            if name.is_empty() || fields.len() == MAX_FIELDS {
                return Err(self.bad());
            }
            self.expect(':')?;
            fields.push(Arc::new(Field::new(name, self.of_depth(depth + 1)?, true)));
            if !self.take(',') {
                break;
            }
        }
        self.expect(')')?;
        Ok(DataType::Struct(Fields::from(fields)))
    }

    fn unit(&mut self) -> Result<TimeUnit, String> {
        Ok(match self.word() {
            "s" => TimeUnit::Second,
            "ms" => TimeUnit::Millisecond,
            "us" => TimeUnit::Microsecond,
            "ns" => TimeUnit::Nanosecond,
            _ => return Err(self.bad()),
        })
    }
}

/// The field of a list's items.
pub(crate) fn item_field(item: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(item, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [
            "Boolean",
            "UInt16",
            "Decimal128(12, 2)",
            "Timestamp(us)",
            "Timestamp(ns, UTC)",
            "Duration(ms)",
            "List(List(Utf8))",
            "Struct(a: Int32, b: List(Struct(c: Date32)))",
        ] {
            assert_eq!(type_name(&parse_type(name).unwrap()), name);
        }
        for bad in
            ["", "int", "Decimal128(39,2)", "List(Utf8", "Utf8)", "Struct()", "Timestamp(h)", "Timestamp(s, CET)"]
        {
            assert!(parse_type(bad).is_err(), "{bad}");
        }
        let deep = format!("{}Int8{}", "List(".repeat(20), ")".repeat(20));
        assert!(parse_type(&deep).unwrap_err().contains("deeper"));
    }
}
