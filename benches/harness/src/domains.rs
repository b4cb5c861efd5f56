//! What the columns of a data set hold, for [`crate::literals`].

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use chrono::NaiveDate;

use crate::engine::Plain;
use crate::error::{Failure, Result};
use crate::home::{Manifest, Workload};
use crate::literals::{Domains, Scalar, Values};
use crate::runs::day_from_epoch;
use crate::skewed;

/// Values kept of a column: the most frequent ones.
const VALUES: usize = 500;

/// The frequent values of `columns`, those of them that are columns of a table, and the days that have data on `day`.
pub(crate) async fn load(
    plain: &Plain,
    workload: Workload,
    manifest: &Manifest,
    day: u32,
    columns: &BTreeSet<String>,
) -> Result<Domains> {
    let context = plain.context();
    let mut values = BTreeMap::new();
    for table in &manifest.tables {
        let provider = context.table_provider(table.name.as_str()).await?;
        for field in provider.schema().fields().iter().filter(|f| columns.contains(f.name())) {
            let name = field.name();
            let sql = format!(
                "SELECT \"{name}\", count(*) AS n FROM \"{}\" WHERE \"{name}\" IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {VALUES}",
                table.name
            );
            values.insert(name.clone(), column(plain, &sql).await.map_err(|e| e.at(format!("`{name}`")))?);
        }
    }
    let (first_day, last_day) = days(workload, manifest, day)?;
    Ok(Domains { columns: values, first_day, last_day })
}

async fn column(plain: &Plain, sql: &str) -> Result<Values> {
    let mut values = Values::new();
    for batch in plain.run(sql).await?.batches {
        let number = batch.column(0).data_type().is_numeric();
        let texts = cast(batch.column(0), &DataType::Utf8)?;
        let counts = cast(batch.column(1), &DataType::Int64)?;
        let (texts, counts) = (texts.as_string::<i32>(), counts.as_primitive::<Int64Type>());
        for row in (0..batch.num_rows()).filter(|&row| texts.is_valid(row)) {
            let text = texts.value(row).to_owned();
            let scalar = if number { Scalar::Number(text) } else { Scalar::Text(text) };
            values.push((scalar, counts.value(row).unsigned_abs()));
        }
    }
    Ok(values)
}

/// First and last day with facts. TPC-H spreads its dates over every part; TPC-DS sells from 1998 to 2002, part of it by date.
fn days(workload: Workload, manifest: &Manifest, day: u32) -> Result<(NaiveDate, NaiveDate)> {
    let date = |text: &str| text.parse::<NaiveDate>().map_err(|e| Failure::new(e.to_string()));
    Ok(match workload {
        Workload::Tpch => (date("1992-01-01")?, date("1998-08-02")?),
        Workload::Tpcds => {
            let (first, last) = (date("1998-01-02")?, date("2002-12-31")?);
            let share =
                crate::data::BASE_SHARE + (1.0 - crate::data::BASE_SHARE) * f64::from(day) / f64::from(manifest.days);
            (first, first + chrono::Duration::days(((last - first).num_days() as f64 * share) as i64))
        }
        Workload::Skewed => (day_from_epoch(skewed::first_day()), day_from_epoch(skewed::last_day(manifest.days, day))),
    })
}
