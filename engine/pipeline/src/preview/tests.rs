use std::fs::File;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use sparklet_core::SessionConfig;

use super::*;

fn session() -> Session {
    Session::new(SessionConfig { slots: Some(2), memory_limit: Some(256 << 20), ..SessionConfig::default() }).unwrap()
}

const TOML: &str = r#"
name = "p"
[sources.orders]
path = "orders.csv"
[schedule]
cron = "30 2 * * *"
timezone = "Europe/Paris"
[[step]]
name = "a"
query = "SELECT id, total FROM orders"
output = { path = "out/a.parquet" }
checks = [{ name = "positive", expr = "total > 0" }]
[[step]]
name = "b"
query = "SELECT count(*) AS n FROM a"
output = { path = "out/b", partition_by = ["n"], mode = "append" }
"#;

fn folder() -> (tempfile::TempDir, Pipeline) {
    let folder = tempfile::tempdir().unwrap();
    let toml = TOML.replace("count(*) AS n", "count(*) AS n, 1 AS one");
    std::fs::write(folder.path().join("pipeline.toml"), toml).unwrap();
    std::fs::write(folder.path().join("orders.csv"), "id,total\n1,2.5\n").unwrap();
    let pipeline = crate::load(folder.path(), &|_| None).unwrap().pipeline;
    (folder, pipeline)
}

fn write_parquet(path: &std::path::Path, fields: Vec<Field>) {
    let schema = Arc::new(Schema::new(fields));
    let columns = schema
        .fields()
        .iter()
        .map(|f| match f.data_type() {
            DataType::Int32 => Arc::new(Int32Array::from(vec![1])) as _,
            _ => Arc::new(StringArray::from(vec!["x"])) as _,
        })
        .collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn steps_and_changes() {
    let (folder, pipeline) = folder();
    let now = DateTime::parse_from_rfc3339("2013-03-30T12:00:00Z").unwrap().to_utc();
    let first = plan(&pipeline, &session(), &BTreeMap::new(), None, now).await.unwrap();
    assert_eq!(first.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let output = first.steps[0].output.as_ref().unwrap();
    assert_eq!((output.exists, &output.changes, output.format, output.mode), (false, &None, "parquet", "replace"));
    assert_eq!(first.steps[0].columns[1], Column { name: "total".to_owned(), data_type: "Float64".to_owned() });
    assert_eq!(first.steps[1].estimated_rows, Some(1));
    assert_eq!(first.due.len(), 5);

    let text = Field::new("total", DataType::Utf8, true);
    write_parquet(&folder.path().join("out/a.parquet"), vec![text, Field::new("old", DataType::Int32, true)]);
    write_parquet(&folder.path().join("out/b/n=3/part-0.parquet"), vec![Field::new("one", DataType::Int32, true)]);
    let second = plan(&pipeline, &session(), &BTreeMap::new(), Some("b"), now).await.unwrap();
    assert_eq!(second.steps.iter().map(|s| s.runs).collect::<Vec<_>>(), [false, true]);
    let changes = |i: usize| second.steps[i].output.as_ref().unwrap().changes.clone().unwrap();
    assert_eq!(
        changes(0),
        [
            Change::Added { column: "id".to_owned(), to: "Int64".to_owned() },
            Change::Retyped { column: "total".to_owned(), from: "Utf8".to_owned(), to: "Float64".to_owned() },
            Change::Removed { column: "old".to_owned() },
        ]
    );
    assert_eq!(
        changes(1),
        [Change::Retyped { column: "one".to_owned(), from: "Int32".to_owned(), to: "Int64".to_owned() }]
    );

    std::fs::write(folder.path().join("out/a.parquet"), "PAR1 not really PAR1").unwrap();
    let third = plan(&pipeline, &session(), &BTreeMap::new(), None, now).await.unwrap();
    let output = third.steps[0].output.as_ref().unwrap();
    assert_eq!((output.exists, &output.changes), (true, &None));
    std::fs::remove_file(folder.path().join("out/a.parquet")).unwrap();
    let errors = plan(&pipeline, &session(), &BTreeMap::new(), Some("b"), now).await.unwrap_err();
    assert_eq!(errors[0].code, "not-published");
}

#[test]
fn due_times_in_both_zones() {
    let schedule = |cron: &str| Schedule { cron: cron.to_owned(), timezone: "Europe/Paris".to_owned() };
    let now = DateTime::parse_from_rfc3339("2013-03-29T12:00:00Z").unwrap().to_utc();
    let times = due(&schedule("15 4 * * *"), now, 3);
    let expected = [
        ("2013-03-30T04:15:00+01:00", "2013-03-30T03:15:00Z"),
        ("2013-03-31T04:15:00+02:00", "2013-03-31T02:15:00Z"),
        ("2013-04-01T04:15:00+02:00", "2013-04-01T02:15:00Z"),
    ];
    assert_eq!(times.iter().map(|d| (d.local.as_str(), d.utc.as_str())).collect::<Vec<_>>(), expected);
    // In the gap of that night there is no 02:30; there are still five times, each later than the one before.
    let gap = due(&schedule("30 2 * * *"), now, 5);
    assert_eq!(gap.len(), 5);
    assert!(gap.is_sorted_by(|a, b| a.utc < b.utc), "{gap:?}");
}
