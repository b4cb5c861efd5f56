//! The examples, as a newcomer runs them; their outputs read by plain DataFusion and held against figures that DuckDB computed from
//! the same queries (`examples/*/expected`).

use std::fs;
use std::path::Path;

use arrow::array::{Array, Float64Array};
use arrow::datatypes::DataType;
use datafusion::prelude::{CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionContext};
use serde_json::Value;

use crate::support::Place;

/// Runs example `name` twice and compares each output with `expected`.
fn check(name: &str, expected: &str, args: &[&str]) {
    let place = Place::new();
    place.copy(&format!("examples/{name}"), name);
    let run: Vec<&str> = ["run", name].iter().chain(args).copied().collect();
    let first = place.ok(&run);
    assert!(first.err.contains("first run"), "{}", first.err);
    let second = place.ok(&run);
    assert!(!second.err.contains("first run"), "the first run was not found: {}", second.err);

    let state = format!("{name}/.sparklet");
    let report = place.ok(&["report", "last", "--state", &state, "--format", "json"]).out;
    let report: Value = serde_json::from_str(&report).unwrap();
    let expected = fs::read_to_string(place.path(&format!("{name}/expected/{expected}"))).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut compared = 0;
    for step in report["run"]["steps"].as_array().unwrap() {
        let (step_name, output) = (step["name"].as_str().unwrap(), &step["output"]);
        let wanted = &expected[step_name];
        assert!(wanted.is_object(), "no expectation for step `{step_name}`");
        assert_eq!(step["rows"], wanted["rows"], "rows of `{step_name}`");
        if output["published"] != Value::Bool(true) {
            continue;
        }
        let path = place.path(&format!("{name}/{}", output["location"].as_str().unwrap()));
        runtime.block_on(compare(&path, output, wanted, step_name));
        compared += 1;
    }
    assert!(compared >= 5, "only {compared} outputs");
}

async fn compare(path: &Path, output: &Value, wanted: &Value, step: &str) {
    let context = SessionContext::new();
    let path = path.to_str().unwrap();
    match output["format"].as_str().unwrap() {
        "parquet" => {
            let keys: Vec<String> = output["partitions"]
                .as_array()
                .and_then(|p| p.first())
                .and_then(Value::as_str)
                .map(|first| first.split('/').filter_map(|kv| kv.split_once('=')).map(|(k, _)| k.to_owned()).collect())
                .unwrap_or_default();
            let columns = keys.into_iter().map(|key| (key, DataType::Int64)).collect();
            let options = ParquetReadOptions::default().table_partition_cols(columns);
            context.register_parquet("t", path, options).await.unwrap();
        }
        "csv" => context.register_csv("t", path, CsvReadOptions::new()).await.unwrap(),
        "json" => context.register_json("t", path, JsonReadOptions::default().file_extension("")).await.unwrap(),
        other => panic!("format {other}"),
    }
    let one = async |expression: &str| -> f64 {
        let sql = format!("SELECT CAST({expression} AS DOUBLE) FROM t");
        let rows = context.sql(&sql).await.unwrap().collect().await.unwrap();
        let values = rows[0].column(0).as_any().downcast_ref::<Float64Array>().unwrap().clone();
        if values.is_null(0) { 0.0 } else { values.value(0) }
    };
    let same = |what: String, found: f64, wanted: &Value| {
        let wanted = wanted.as_f64().unwrap_or_default();
        let tolerance = 1e-9 * wanted.abs().max(1.0);
        assert!((found - wanted).abs() <= tolerance, "{what}: {found} instead of {wanted}");
    };
    same(format!("{step}: rows"), one("count(*)").await, &wanted["rows"]);
    for (column, facts) in wanted["columns"].as_object().unwrap() {
        for (fact, value) in facts.as_object().unwrap() {
            let expression = match fact.as_str() {
                "sum" => format!("sum(\"{column}\")"),
                "distinct" => format!("count(DISTINCT \"{column}\")"),
                "nulls" => format!("count(*) FILTER (WHERE \"{column}\" IS NULL)"),
                "true" => format!("count(*) FILTER (WHERE \"{column}\")"),
                other => panic!("unknown fact `{other}`"),
            };
            same(format!("{step}.{column}: {fact}"), one(&expression).await, value);
        }
    }
}

#[test]
fn flights() {
    check("flights", "outputs.json", &[]);
}

#[test]
fn retail() {
    check("retail", "scale-0.01.json", &["--param", "scale=0.01"]);
}
