//! The core through its public API, compared with plain DataFusion.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use sparklet_history::Completeness;

use crate::sink::{SinkFormat, SinkSpec};
use crate::source::{Format, SourceOptions, SourceSpec};
use crate::{AdaptiveMode, AdaptiveSettings, Error, ErrorKind, Session, SessionConfig};

pub(crate) fn session(folder: &Path) -> Session {
    let config = SessionConfig {
        memory_limit: Some(256 << 20),
        slots: Some(2),
        spill_dir: folder.join("spill"),
        ..SessionConfig::default()
    };
    Session::new(config).unwrap()
}

pub(crate) fn source(path: &Path, format: Format) -> SourceSpec {
    SourceSpec {
        location: path.display().to_string(),
        written: path.display().to_string(),
        format,
        options: SourceOptions::default(),
        columns: Vec::new(),
        partition_columns: Vec::new(),
        storage: BTreeMap::new(),
    }
}

pub(crate) fn text(batches: &[RecordBatch]) -> String {
    pretty_format_batches(batches).unwrap().to_string()
}

async fn query(session: &Session, sql: &str) -> Result<String, Error> {
    session.sql(sql, &BTreeMap::new()).await?.collect().await.map(|b| text(&b))
}

fn sink(format: SinkFormat, single_file: bool, partition_by: &[&str]) -> SinkSpec {
    let partition_by = partition_by.iter().map(ToString::to_string).collect();
    SinkSpec { format, single_file, partition_by, compression: None }
}

#[tokio::test]
async fn every_format_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let rows = "SELECT * FROM (VALUES (1, 'a', 1.5, DATE '2013-01-01'), (2, 'b, \"q\"', NULL, DATE '2013-02-01')) \
                AS t(id, name, value, day) ORDER BY id";
    let expected = query(&session, rows).await.unwrap();
    for format in [SinkFormat::Parquet, SinkFormat::Csv, SinkFormat::Json, SinkFormat::Arrow] {
        let path = folder.path().join(format!("t.{}", format.ending(None)));
        let prepared = session.sql(rows, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        let wrote = prepared.write(&path, &sink(format, true, &[])).await.unwrap();
        assert_eq!((wrote.rows, wrote.files.len()), (2, 0), "{format:?}");
        let read = match format {
            SinkFormat::Parquet => Format::Parquet,
            SinkFormat::Csv => Format::Csv,
            SinkFormat::Json => Format::Json,
            SinkFormat::Arrow => Format::Arrow,
        };
        let record = session.register_source("back", &source(&path, read)).await.unwrap();
        assert_eq!((record.files, record.bytes), (1, wrote.bytes));
        let back = query(&session, "SELECT id, name, value, CAST(day AS DATE) AS day FROM back ORDER BY id").await;
        assert_eq!(back.unwrap(), expected, "{format:?}");
    }
}

#[tokio::test]
async fn partitions_are_folders_and_awkward_values_survive() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let rows = "SELECT * FROM (VALUES (1, 'a/b'), (2, 'c d'), (3, 'é=ü'), (4, '100%'), (5, 'a/b')) AS t(id, k)";
    let path = folder.path().join("out");
    let prepared = session.sql(rows, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
    let wrote = prepared.write(&path, &sink(SinkFormat::Parquet, false, &["k"])).await.unwrap();
    assert_eq!((wrote.rows, wrote.partitions.len()), (5, 4));
    session.register_source("back", &source(&path, Format::Parquet)).await.unwrap();
    let expected = query(&session, &format!("{rows} ORDER BY id")).await.unwrap();
    assert_eq!(query(&session, "SELECT id, k FROM back ORDER BY id").await.unwrap(), expected);
    for bad in ["NULL", "''"] {
        let rows = format!("SELECT * FROM (VALUES (1, 'x'), (2, {bad})) AS t(id, k)");
        let prepared = session.sql(&rows, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        let error = prepared.write(&folder.path().join("bad"), &sink(SinkFormat::Parquet, false, &["k"])).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Data);
        assert!(error.message.contains("partition column `k`"), "{}", error.message);
    }
}

#[tokio::test]
async fn results_without_rows_keep_their_columns() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let rows = "SELECT 1 AS id, 'x' AS name WHERE false";
    for (name, format, single) in
        [("a.parquet", Format::Parquet, true), ("b.csv", Format::Csv, true), ("c", Format::Parquet, false)]
    {
        let path = folder.path().join(name);
        let out = if format == Format::Csv { SinkFormat::Csv } else { SinkFormat::Parquet };
        let prepared = session.sql(rows, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        prepared.write(&path, &sink(out, single, &[])).await.unwrap();
        session.register_source("back", &source(&path, format)).await.unwrap();
        assert_eq!(query(&session, "SELECT count(*) AS n, max(name) AS m FROM back").await.unwrap().lines().count(), 5);
    }
}

#[tokio::test]
async fn observations_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let sql = "SELECT a.k, count(*) AS n FROM (SELECT value % 7 AS k, value FROM range(0, 1000)) a \
               JOIN (SELECT value AS v FROM range(0, 500)) b ON a.value = b.v GROUP BY a.k";
    let prepared = session.sql(sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
    assert!(prepared.observe().nodes.iter().all(|n| n.completeness == Completeness::Truncated));
    let rows = prepared.collect().await.unwrap();
    let plain = SessionContext::new().sql(sql).await.unwrap().collect().await.unwrap();
    let sum = |b: &[RecordBatch]| b.iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!(sum(&rows), sum(&plain));
    let plan = prepared.observe();
    assert_eq!(plan.nodes[0].parent, None);
    assert_eq!(plan.nodes[0].rows, Some(7));
    let join = plan.nodes.iter().find(|n| n.operator == "HashJoinExec").unwrap();
    assert_eq!(join.rows, Some(500));
    for (i, node) in plan.nodes.iter().enumerate().skip(1) {
        assert!((node.parent.unwrap() as usize) < i);
    }
    assert_eq!(prepared.progress().snapshot().rows, 7);
}

#[tokio::test]
async fn parameters_bind_and_do_not_paste() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let params = BTreeMap::from([("x".to_owned(), ScalarValue::from("1' OR '1'='1"))]);
    let frame = session.sql("SELECT $x AS x", &params).await.unwrap();
    assert!(text(&frame.collect().await.unwrap()).contains("1' OR '1'='1"));
}

#[tokio::test]
async fn bad_sources_say_what_where_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let session = session(folder.path());
    let check = async |spec: SourceSpec, kind: ErrorKind, message: &str, hint: &str| {
        let error = session.register_source("s", &spec).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(message), "message: {}", error.message);
        let found = error.hint.unwrap_or_default();
        assert!(found.contains(hint), "hint: {found}");
    };
    std::fs::write(at("orders.csv"), "a,b\n1,2\n").unwrap();
    check(source(&at("order.csv"), Format::Csv), ErrorKind::Source, "does not exist", "did you mean `orders.csv`?")
        .await;
    std::fs::create_dir(at("empty")).unwrap();
    check(source(&at("empty"), Format::Parquet), ErrorKind::Source, "holds no files", "check the path").await;
    check(source(&at("*.parquet"), Format::Parquet), ErrorKind::Source, "matches no file", "").await;
    std::fs::create_dir(at("mixed")).unwrap();
    std::fs::write(at("mixed/readme.md"), "x").unwrap();
    check(source(&at("mixed"), Format::Parquet), ErrorKind::Source, "no file that ends in `.parquet`", "`readme.md`")
        .await;
    std::fs::write(at("bad.parquet"), "PAR1 but no more").unwrap();
    check(
        source(&at("bad.parquet"), Format::Parquet),
        ErrorKind::Data,
        "bad.parquet` is not readable as Parquet",
        "damaged",
    )
    .await;
    std::fs::write(at("zero.parquet"), "").unwrap();
    check(source(&at("zero.parquet"), Format::Parquet), ErrorKind::Data, "is empty", "").await;
    std::fs::write(at("zero.csv"), "").unwrap();
    check(source(&at("zero.csv"), Format::Csv), ErrorKind::Data, "has no columns", "declare `columns`").await;
    let declared = SourceSpec {
        columns: vec![("b".into(), "INT".into()), ("a".into(), "INT".into())],
        ..source(&at("orders.csv"), Format::Csv)
    };
    check(declared, ErrorKind::Data, "the header of", "in its order").await;
    let mistyped = SourceSpec { columns: vec![("a".into(), "INTT".into())], ..source(&at("orders.csv"), Format::Csv) };
    check(mistyped, ErrorKind::Query, "`INTT` is not a type", "use an SQL type").await;
}

#[tokio::test]
async fn bad_rows_name_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let session = session(folder.path());
    let fails = async |name: &str, format: Format, columns: &[(&str, &str)]| {
        let columns = columns.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        let spec = SourceSpec { columns, ..source(&at(name), format) };
        match session.register_source("s", &spec).await {
            Err(error) => error,
            Ok(_) => query(&session, "SELECT * FROM s").await.unwrap_err(),
        }
    };
    let two: &[(&str, &str)] = &[("a", "INT"), ("b", "INT")];
    std::fs::write(at("ragged.csv"), "a,b\n1,2\n3\n").unwrap();
    let error = fails("ragged.csv", Format::Csv, two).await;
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    assert!(error.message.contains("ragged.csv:3`"), "{error}");
    std::fs::write(at("value.csv"), "a,b\n1,2\n3,x\n").unwrap();
    let error = fails("value.csv", Format::Csv, two).await;
    assert!(error.message.contains("value.csv:3`"), "{error}");
    assert!(error.hint.unwrap().contains("TRY_CAST"));
    std::fs::write(at("latin.csv"), b"a,b\n1,caf\xe9\n").unwrap();
    let error = fails("latin.csv", Format::Csv, &[("a", "INT"), ("b", "VARCHAR")]).await;
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    assert!(error.message.contains("latin.csv"), "{error}");
    assert!(error.hint.unwrap().contains("iconv"));
    std::fs::write(at("bad.json"), "{\"a\": 1}\n{\"a\": }\n").unwrap();
    let error = fails("bad.json", Format::Json, &[("a", "INT")]).await;
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    assert!(error.message.contains("bad.json"), "{error}");
}

#[tokio::test]
async fn null_text_and_long_fields_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let path = folder.path().join("n.csv");
    let long = "x".repeat(3 << 20);
    std::fs::write(&path, format!("a,b\n1,NA\nNA,{long}\n3,\"two\nlines\"\n")).unwrap();
    let mut spec = source(&path, Format::Csv);
    spec.options.null = Some("NA".to_owned());
    spec.options.multiline = true;
    session.register_source("n", &spec).await.unwrap();
    let sums =
        query(&session, "SELECT sum(a) AS s, count(a) AS n, max(length(b)) AS l, count(b) AS m FROM n").await.unwrap();
    let row: Vec<&str> = sums.lines().nth(3).unwrap().split('|').map(str::trim).collect();
    assert_eq!(row[1..5], ["4", "2", "3145728", "2"]);
}

#[tokio::test]
async fn tpch_rows_are_the_same_in_any_number_of_parts() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let mut spec = source(Path::new("lineitem"), Format::Tpch);
    spec.options.scale = 0.001;
    session.register_source("l", &spec).await.unwrap();
    let counted = query(&session, "SELECT count(*) AS n, sum(l_quantity) AS q FROM l").await.unwrap();
    assert!(counted.contains("6005"), "{counted}");
    spec.location = "lineitems".into();
    assert_eq!(session.register_source("l", &spec).await.unwrap_err().kind, ErrorKind::Source);
}

#[tokio::test]
async fn memory_limit_is_named_and_spill_folder_goes() {
    let folder = tempfile::tempdir().unwrap();
    let config = SessionConfig {
        memory_limit: Some(32 << 20),
        slots: Some(2),
        spill_dir: folder.path().join("spill"),
        // With it, the join begins again in stages and finishes.
        adaptive: AdaptiveSettings { mode: AdaptiveMode::Off, ..AdaptiveSettings::default() },
        ..SessionConfig::default()
    };
    let session = Session::new(config).unwrap();
    let join = "SELECT count(*) FROM range(0, 2000000) a JOIN range(0, 2000000) b ON a.value = b.value";
    let error = query(&session, join).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Resources);
    assert!(error.hint.unwrap().contains("--memory"));
    let sort = "SELECT value AS v, CAST(value AS VARCHAR) AS t FROM range(0, 2000000) ORDER BY value * 7 % 1000003";
    let prepared = session.sql(sort, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
    let wrote = prepared.write(&folder.path().join("sorted.parquet"), &sink(SinkFormat::Parquet, true, &[])).await;
    assert_eq!(wrote.unwrap().rows, 2_000_000);
    assert!(prepared.observe().nodes.iter().any(|n| n.spilled_bytes > 0));
    drop(prepared);
    drop(session);
    assert_eq!(std::fs::read_dir(folder.path().join("spill")).unwrap().count(), 0);
    assert_eq!(
        Session::new(SessionConfig { memory_limit: Some(1), ..SessionConfig::default() }).unwrap_err().kind,
        ErrorKind::Setting
    );
}

#[tokio::test]
async fn misspelt_settings_are_named() {
    let options = BTreeMap::from([("datafusion.optimizer.prefer_hash_joins".to_owned(), "true".to_owned())]);
    let error = Session::new(SessionConfig { options, ..SessionConfig::default() }).unwrap_err();
    assert!(error.hint.unwrap().contains("`datafusion.optimizer.prefer_hash_join`"));
}
