//! What a module says of its functions: the JSON of the custom section `sparklet.udf`, or of `sparklet_describe`.

use arrow::datatypes::DataType;
use datafusion::logical_expr::Volatility;
use serde::Deserialize;

use crate::types::{parse_type, type_name};

/// Most functions of a module, overloads counted one by one.
pub const MAX_FUNCTIONS: usize = 1_000;

/// Longest name of a function, an export or a column in bytes.
pub const MAX_NAME: usize = 128;

/// Most arguments of a function, columns of a table or of a state.
pub const MAX_COLUMNS: usize = 64;

/// One function, or one overload of one.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionSpec {
    /// Name in SQL.
    pub name: String,
    /// Name, or first part of the names, of what the module exports for it.
    pub export: String,
    /// Types of the arguments.
    pub args: Vec<DataType>,
    /// What it gives.
    pub shape: Shape,
    /// What happens to NULLs.
    pub nulls: Nulls,
    /// Whether equal arguments give equal results.
    pub volatility: Volatility,
    /// One line for people.
    pub doc: Option<String>,
}

/// What a function gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// One value for a row.
    Scalar {
        /// Its type.
        returns: DataType,
    },
    /// One value for a group of rows.
    Aggregate {
        /// Its type.
        returns: DataType,
        /// Types of the columns in which a group travels between tasks.
        state: Vec<DataType>,
    },
    /// Rows.
    Table {
        /// Their columns.
        columns: Vec<(String, DataType)>,
    },
}

/// What happens to NULLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nulls {
    /// A NULL argument gives NULL (scalar) or is passed over (aggregate).
    Propagate,
    /// The guest sees them.
    Called,
}

impl FunctionSpec {
    /// `scalar`, `aggregate` or `table`.
    pub fn kind(&self) -> &'static str {
        match self.shape {
            Shape::Scalar { .. } => "scalar",
            Shape::Aggregate { .. } => "aggregate",
            Shape::Table { .. } => "table",
        }
    }

    /// E.g. `(Float64, Float64) -> Float64`.
    pub fn signature(&self) -> String {
        let args: Vec<String> = self.args.iter().map(type_name).collect();
        let gives = match &self.shape {
            Shape::Scalar { returns } | Shape::Aggregate { returns, .. } => type_name(returns),
            Shape::Table { columns } => {
                let columns: Vec<String> = columns.iter().map(|(n, t)| format!("{n} {}", type_name(t))).collect();
                format!("TABLE({})", columns.join(", "))
            }
        };
        format!("({}) -> {gives}", args.join(", "))
    }
}

/// All functions that `texts` describe: each is a stream of JSON documents or function objects.
pub(crate) fn read<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<FunctionSpec>, String> {
    let mut found = Vec::new();
    for text in texts {
        // Linkers put sections together and pad them.
        let text: Vec<u8> = text.iter().map(|&b| if b == 0 { b' ' } else { b }).collect();
        for value in serde_json::Deserializer::from_slice(&text).into_iter::<serde_json::Value>() {
            let value = value.map_err(|e| format!("not JSON: {e}"))?;
            let functions = if value.get("functions").is_some() {
                let document: Document = serde_json::from_value(value).map_err(|e| e.to_string())?;
                document.functions()?
            } else {
                vec![serde_json::from_value::<Written>(value).map_err(|e| e.to_string())?]
            };
            for written in functions {
                if found.len() == MAX_FUNCTIONS {
                    return Err(format!("more than {MAX_FUNCTIONS} functions"));
                }
                found.push(written.spec()?);
            }
        }
    }
    if found.is_empty() {
        return Err("it lists no functions".to_owned());
    }
    agree(&found)?;
    Ok(found)
}

/// Overloads of a name must be of one kind (scalar or aggregate) and differ in their arguments.
pub(crate) fn agree(functions: &[FunctionSpec]) -> Result<(), String> {
    for (i, one) in functions.iter().enumerate() {
        for other in functions[..i].iter().filter(|f| f.name.eq_ignore_ascii_case(&one.name)) {
            let name = &one.name;
            if one.name != other.name {
                return Err(format!("`{}` and `{name}` differ by case only", other.name));
            }
            if one.kind() != other.kind() || matches!(one.shape, Shape::Table { .. }) {
                return Err(format!("`{name}` is there twice, as {} and as {}", other.kind(), one.kind()));
            }
            if one.args == other.args {
                return Err(format!("`{name}` is there twice with the arguments {}", one.signature()));
            }
            if one.volatility != other.volatility {
                return Err(format!("the overloads of `{name}` differ in their volatility"));
            }
        }
    }
    Ok(())
}

/// `name` where it can be one: not empty, not too long, nothing in it that is not a letter, a digit or `_`.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), String> {
    let shown: String = name.chars().take(40).collect();
    if name.is_empty() {
        return Err(format!("{what} has no name"));
    }
    if name.len() > MAX_NAME {
        return Err(format!("the name of {what}, `{}…`, is longer than {MAX_NAME} bytes", shown.escape_debug()));
    }
    if !name.chars().all(|c| c.is_alphanumeric() || c == '_') || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "the name of {what}, `{}`, must be letters, digits and `_`, and begin with no digit",
            shown.escape_debug()
        ));
    }
    Ok(())
}

#[derive(Deserialize)]
struct Document {
    abi: Option<String>,
    functions: Vec<Written>,
}

impl Document {
    fn functions(self) -> Result<Vec<Written>, String> {
        match self.abi.as_deref() {
            None => Ok(self.functions),
            Some(abi) if abi == "1" || abi.starts_with("1.") => Ok(self.functions),
            Some(abi) => {
                let abi: String = abi.chars().take(20).collect();
                Err(format!("it is written for version {} of the ABI, this engine knows 1", abi.escape_debug()))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(default)]
    kind: WrittenKind,
    export: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    returns: Option<String>,
    state: Option<Vec<String>>,
    columns: Option<Vec<(String, String)>>,
    #[serde(default)]
    nulls: WrittenNulls,
    #[serde(default)]
    volatility: WrittenVolatility,
    doc: Option<String>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum WrittenKind {
    #[default]
    Scalar,
    Aggregate,
    Table,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum WrittenNulls {
    #[default]
    Propagate,
    Called,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum WrittenVolatility {
    #[default]
    Immutable,
    Stable,
    Volatile,
}

impl Written {
    fn spec(self) -> Result<FunctionSpec, String> {
        check_name("a function", &self.name)?;
        let name = self.name.clone();
        let within = |why: String| format!("function `{name}`: {why}");
        let export = self.export.unwrap_or_else(|| self.name.clone());
        if export.is_empty() || export.len() > MAX_NAME {
            return Err(within(format!("`export` must have 1 to {MAX_NAME} bytes")));
        }
        let types = |texts: &[String]| -> Result<Vec<DataType>, String> {
            if texts.len() > MAX_COLUMNS {
                return Err(format!("more than {MAX_COLUMNS} types in a list"));
            }
            texts.iter().map(|text| parse_type(text)).collect()
        };
        let returns = |text: &Option<String>| match text {
            Some(text) => parse_type(text),
            None => Err("`returns` is missing".to_owned()),
        };
        let shape = match self.kind {
            WrittenKind::Scalar => Shape::Scalar { returns: returns(&self.returns).map_err(within)? },
            WrittenKind::Aggregate => {
                let Some(state) = &self.state else { return Err(within("`state` is missing".to_owned())) };
                if state.is_empty() {
                    return Err(within("`state` has no columns".to_owned()));
                }
                Shape::Aggregate {
                    returns: returns(&self.returns).map_err(within)?,
                    state: types(state).map_err(within)?,
                }
            }
            WrittenKind::Table => {
                let Some(columns) = &self.columns else { return Err(within("`columns` is missing".to_owned())) };
                if columns.is_empty() || columns.len() > MAX_COLUMNS {
                    return Err(within(format!("a table has 1 to {MAX_COLUMNS} columns")));
                }
                let mut read: Vec<(String, DataType)> = Vec::new();
                for (column, of) in columns {
                    check_name("a column", column).map_err(within)?;
                    if read.iter().any(|(n, _)| n == column) {
                        return Err(within(format!("two columns `{column}`")));
                    }
                    read.push((column.clone(), parse_type(of).map_err(within)?));
                }
                Shape::Table { columns: read }
            }
        };
        Ok(FunctionSpec {
            args: types(&self.args).map_err(within)?,
            name: self.name,
            export,
            shape,
            nulls: match self.nulls {
                WrittenNulls::Propagate => Nulls::Propagate,
                WrittenNulls::Called => Nulls::Called,
            },
            volatility: match self.volatility {
                WrittenVolatility::Immutable => Volatility::Immutable,
                WrittenVolatility::Stable => Volatility::Stable,
                WrittenVolatility::Volatile => Volatility::Volatile,
            },
            doc: self.doc.map(|doc| doc.chars().filter(|c| !c.is_control()).take(200).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Vec<FunctionSpec>, String> {
        read([text.as_bytes()])
    }

    #[test]
    fn documents_and_objects_in_a_row() {
        let text = "{\"abi\":\"1.0\",\"functions\":[{\"name\":\"a\",\"args\":[\"Utf8\"],\"returns\":\"Utf8\"}]}\0\0\
                    {\"name\":\"b\",\"kind\":\"aggregate\",\"args\":[],\"returns\":\"Int64\",\"state\":[\"Int64\"]}";
        let found = one(text).unwrap();
        assert_eq!(found.iter().map(|f| f.signature()).collect::<Vec<_>>(), ["(Utf8) -> Utf8", "() -> Int64"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("", "no functions"),
            ("{\"functions\":[", "not JSON"),
            ("{\"abi\":\"2.0\",\"functions\":[]}", "version 2.0"),
            ("{\"name\":\"a\",\"args\":[\"Int\"],\"returns\":\"Utf8\"}", "`Int` is not a type"),
            ("{\"name\":\"a b\",\"returns\":\"Utf8\"}", "must be letters"),
            ("{\"name\":\"a\"}", "`returns` is missing"),
            ("{\"name\":\"a\",\"returns\":\"Utf8\",\"arity\":1}", "unknown field `arity`"),
            ("{\"name\":\"a\",\"kind\":\"aggregate\",\"returns\":\"Utf8\"}", "`state` is missing"),
            ("{\"name\":\"a\",\"returns\":\"Utf8\"} {\"name\":\"a\",\"returns\":\"Int8\"}", "is there twice"),
            ("{\"name\":\"a\",\"returns\":\"Utf8\"} {\"name\":\"A\",\"returns\":\"Int8\"}", "differ by case"),
        ] {
            let error = one(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let long = format!("{{\"name\":\"{}\",\"returns\":\"Utf8\"}}", "x".repeat(1 << 20));
        assert!(one(&long).unwrap_err().len() < 200);
    }
}
