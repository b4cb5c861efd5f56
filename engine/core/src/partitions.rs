//! Hive-style partition columns of a source: declared, or read off its `key=value` folders.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::datasource::listing::ListingTableUrl;
use object_store::ObjectMeta;

use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::source::SourceSpec;

/// Partition columns with their types. Undeclared ones are typed by their values: all integers, all dates, else text.
pub(crate) fn columns(
    session: &Session,
    name: &str,
    spec: &SourceSpec,
    url: &ListingTableUrl,
    list: &[ObjectMeta],
) -> Result<Vec<(String, DataType)>> {
    let mut keys: Option<Vec<String>> = None;
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in list {
        let Some(parts) = url.strip_prefix(&file.location) else { continue };
        let pairs: Vec<(String, String)> = parts
            .filter_map(|part| part.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
            .filter(|(key, _)| !key.is_empty())
            .collect();
        let found: Vec<String> = pairs.iter().map(|(k, _)| k.clone()).collect();
        match &keys {
            None => keys = Some(found),
            Some(known) if *known == found => {}
            Some(known) => {
                let message = format!(
                    "source `{name}`: `{}` is partitioned by ({}), other files by ({})",
                    file.location,
                    found.join(", "),
                    known.join(", ")
                );
                return Err(Error::new(ErrorKind::Data, message)
                    .with_hint("all files of a source need the same `key=value` folders; move the odd ones away"));
            }
        }
        for (key, value) in pairs {
            values.entry(key).or_default().push(value);
        }
    }
    let keys = keys.unwrap_or_default();
    if spec.partition_columns.is_empty() {
        return Ok(keys
            .into_iter()
            .map(|key| {
                let data_type = values.get(&key).map_or(DataType::Utf8, |v| guess(v));
                (key, data_type)
            })
            .collect());
    }
    let declared: Vec<&String> = spec.partition_columns.iter().map(|(n, _)| n).collect();
    if !declared.iter().copied().eq(keys.iter()) {
        let names: Vec<&str> = declared.iter().map(|n| n.as_str()).collect();
        let message = format!(
            "source `{name}`: `partition_columns` are ({}), but the folders say ({})",
            names.join(", "),
            keys.join(", ")
        );
        return Err(
            Error::new(ErrorKind::Data, message).with_hint("name them as the `key=value` folders do, in that order")
        );
    }
    spec.partition_columns
        .iter()
        .map(|(key, sql_type)| {
            futures::executor::block_on(crate::tables::sql_data_type(session, sql_type))
                .map(|data_type| (key.clone(), data_type))
                .map_err(|e| {
                    Error::new(ErrorKind::Query, format!("source `{name}`: partition column `{key}`: {}", e.message))
                        .with_hint("use an SQL type, e.g. `INT`, `DATE`, `VARCHAR`")
                })
        })
        .collect()
}

fn guess(values: &[String]) -> DataType {
    let plain_integer = |v: &String| v.parse::<i64>().is_ok_and(|n| n.to_string() == *v);
    if values.iter().all(plain_integer) {
        DataType::Int64
    } else if values.iter().all(|v| v.len() == 10 && chrono::NaiveDate::parse_from_str(v, "%Y-%m-%d").is_ok()) {
        DataType::Date32
    } else {
        DataType::Utf8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_guessed_from_all_values() {
        let guess = |values: &[&str]| super::guess(&values.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(guess(&["1", "12"]), DataType::Int64);
        assert_eq!(guess(&["01", "12"]), DataType::Utf8);
        assert_eq!(guess(&["2013-01-02"]), DataType::Date32);
        assert_eq!(guess(&["2013-01-02", "x"]), DataType::Utf8);
    }
}
