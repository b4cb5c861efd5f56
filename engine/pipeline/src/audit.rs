//! Checks on a staged result, before anyone sees it. They read what was written; nothing is computed again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use sparklet_core::sink::{SinkFormat, SinkSpec};
use sparklet_core::{Error, ErrorKind, Result, Session};
use sparklet_history::CheckRecord;

use crate::definition::{Check, Condition, Step};

/// Failing rows that are kept for inspection, per check.
const MAX_KEPT_ROWS: usize = 1000;

/// What checks of a step need.
pub(crate) struct Audit<'a> {
    /// Session in which the result is a table under the step's name.
    pub(crate) session: &'a Session,
    /// Values of run parameters.
    pub(crate) params: &'a BTreeMap<String, ScalarValue>,
    /// The step.
    pub(crate) step: &'a Step,
    /// Folder for failing rows; made when needed.
    pub(crate) failed: &'a Path,
}

impl Audit<'_> {
    /// The answer of one check. Fails where the check cannot be evaluated; a failed condition is an answer.
    pub(crate) async fn run(&self, check: &Check) -> Result<CheckRecord> {
        let answer = match &check.condition {
            Condition::EachRow(expression) => self.each_row(check, expression).await,
            Condition::Query(sql) => self.query(check, sql).await,
        };
        answer.map_err(|mut error| {
            error.message = format!("check `{}`: {}", check.name, error.message);
            error
        })
    }

    async fn each_row(&self, check: &Check, expression: &str) -> Result<CheckRecord> {
        let table = quoted(&self.step.name);
        // On a line of its own: the expression may end in a comment. NULL is not true, so it fails.
        let failing = format!("(\n{expression}\n) IS NOT TRUE");
        let sql = format!("SELECT count(*) AS n, count(*) FILTER (WHERE {failing}) AS failed FROM {table}");
        let counts = self.session.sql(&sql, self.params).await?.collect().await?;
        let (rows, failed) = (count(&counts, 0)?, count(&counts, 1)?);
        let kept = if failed == 0 {
            None
        } else {
            let sql = format!("SELECT * FROM {table} WHERE {failing} LIMIT {MAX_KEPT_ROWS}");
            self.keep(check, &sql).await.inspect_err(|e| tracing::warn!(%e, "failing rows are not kept")).ok()
        };
        let record = CheckRecord {
            name: check.name.clone(),
            condition: expression.to_owned(),
            passed: tolerated(failed, rows, check.tolerate),
            blocking: check.blocking,
            rows: Some(rows),
            failed_rows: Some(failed),
            tolerate: check.tolerate,
            kept: kept.map(|path| path.display().to_string()),
        };
        Ok(record)
    }

    async fn query(&self, check: &Check, sql: &str) -> Result<CheckRecord> {
        let frame = self.session.sql(sql, self.params).await?;
        let wrong = |what: String| {
            Error::new(ErrorKind::Query, format!("the query must return one boolean, but returns {what}"))
                .with_hint("write it like `SELECT count(*) > 0 FROM …`")
        };
        let schema = frame.schema();
        match schema.fields().as_ref() {
            [field] if matches!(field.data_type(), DataType::Boolean | DataType::Null) => {}
            [field] => return Err(wrong(format!("a value of type {}", field.data_type()))),
            fields => return Err(wrong(format!("{} columns", fields.len()))),
        }
        // Two rows are enough to see that there is more than one.
        let answer = frame.with(|f| f.limit(0, Some(2)))?.collect().await?;
        let rows: usize = answer.iter().map(RecordBatch::num_rows).sum();
        let Some(batch) = answer.iter().find(|b| b.num_rows() > 0) else { return Err(wrong("no row".to_owned())) };
        if rows != 1 {
            return Err(wrong("several rows".to_owned()));
        }
        let column = batch.column(0);
        let passed = column.as_boolean_opt().is_some_and(|c| c.is_valid(0) && c.value(0));
        Ok(CheckRecord {
            name: check.name.clone(),
            condition: sql.to_owned(),
            passed,
            blocking: check.blocking,
            rows: None,
            failed_rows: None,
            tolerate: check.tolerate,
            kept: None,
        })
    }

    /// Writes failing rows where they outlive the run.
    async fn keep(&self, check: &Check, sql: &str) -> Result<PathBuf> {
        std::fs::create_dir_all(self.failed)
            .map_err(|e| crate::publish::unwritable(self.failed, "cannot make the folder", &e))?;
        let path = self.failed.join(format!("{}-{}.parquet", plain(&self.step.name), plain(&check.name)));
        let sink =
            SinkSpec { format: SinkFormat::Parquet, single_file: true, partition_by: Vec::new(), compression: None };
        self.session.sql(sql, self.params).await?.prepare().await?.write(&path, &sink).await?;
        Ok(path)
    }
}

/// What is said of a check that failed.
pub(crate) fn describe(check: &CheckRecord) -> String {
    let condition = check.condition.split_whitespace().collect::<Vec<_>>().join(" ");
    match (check.rows, check.failed_rows) {
        (Some(rows), Some(failed)) => {
            let share = 100.0 * failed as f64 / rows.max(1) as f64;
            let tolerated = if check.tolerate > 0.0 {
                format!(", {} % are tolerated", 100.0 * check.tolerate)
            } else {
                String::new()
            };
            format!(
                "check `{}` failed: {failed} of {rows} rows ({share:.2} %) are not `{condition}`{tolerated}",
                check.name
            )
        }
        _ => format!("check `{}` failed: `{condition}` is not true", check.name),
    }
}

/// True if `failed` of `rows` is no more than the share `tolerate`.
fn tolerated(failed: u64, rows: u64, tolerate: f64) -> bool {
    failed == 0 || failed as f64 <= tolerate * rows as f64
}

fn count(batches: &[RecordBatch], column: usize) -> Result<u64> {
    let batch = batches.iter().find(|b| b.num_rows() == 1);
    let value = batch.and_then(|b| b.column(column).as_primitive_opt::<Int64Type>().map(|c| c.value(0)));
    let value = value.and_then(|v| u64::try_from(v).ok());
    value.ok_or_else(|| Error::new(ErrorKind::Internal, "counting the rows of a check gave no count"))
}

/// `name` as SQL text that means exactly this name.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `name` as a part of a file name.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "_-".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerance_is_a_share_of_all_rows() {
        for (failed, rows, tolerate, passed) in [
            (0, 0, 0.0, true),
            (0, 10, 0.0, true),
            (1, 10, 0.0, false),
            (1, 10, 0.1, true),
            (2, 10, 0.1, false),
            (10, 10, 1.0, true),
        ] {
            assert_eq!(tolerated(failed, rows, tolerate), passed, "{failed} of {rows}, {tolerate}");
        }
    }

    #[test]
    fn names_are_made_safe() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert_eq!(plain("../a b/ü-1"), "___a_b_ü-1");
    }
}
