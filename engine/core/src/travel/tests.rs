//! Plans that travel: to a session that has nothing loaded, to another process, and damaged on the way.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sparklet_sandbox::{Declared, Limits, Wanted};

use crate::sink::{SinkFormat, SinkSpec};
use crate::source::Format;
use crate::tests::{session, source, text};
use crate::{Error, ErrorKind, Session};

/// Functions over numbers, no SDK.
const PLAIN: &str = r#"(module
  (func (export "margin") (param f64 f64) (result f64) (f64.sub (local.get 0) (local.get 1)))
  (func (export "late") (param i32) (result i32) (i32.gt_s (local.get 0) (i32.const 15000))))"#;

const COLUMNAR: &str = include_str!("functions.wat");

/// A session with functions of two modules and the table `t`, whose rows are in files.
async fn sender(folder: &Path) -> Session {
    let session = session(folder);
    std::fs::write(folder.join("plain.wat"), PLAIN).unwrap();
    std::fs::write(folder.join("columnar.wat"), COLUMNAR).unwrap();
    let functions = ["margin", "late(Date32) -> Boolean"].map(|text| Wanted::parse(text).unwrap()).to_vec();
    let limits = Limits { memory: 8 << 20, ..Limits::default() };
    let declared = Declared { limits, functions, volatile: false };
    session.load_module(&folder.join("plain.wat"), "plain.wat", declared).unwrap();
    session.load_functions(folder.join("columnar.wat")).unwrap();
    let rows = "SELECT value AS v, value % 7 AS g, value * 1.5 AS x, DATE '2011-01-01' + CAST(value AS INT) AS day \
                FROM range(0, 1000)";
    let query = session.sql(rows, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
    let path = folder.join("t");
    let sink =
        SinkSpec { format: SinkFormat::Parquet, single_file: false, partition_by: Vec::new(), compression: None };
    query.write(&path, &sink).await.unwrap();
    register(&session, "t", &path).await;
    register(&session, "p", &path.join("*.parquet")).await;
    session
}

async fn register(session: &Session, name: &str, path: &Path) {
    session.register_source(name, &source(path, Format::Parquet)).await.unwrap();
}

/// Queries whose functions are of modules.
const QUERIES: [&str; 6] = [
    "SELECT g, total(plus_one(v)) AS a, sum(margin(x, 1)) AS b, total(v) FILTER (WHERE late(day)) AS c FROM t \
     GROUP BY g ORDER BY g",
    "SELECT count(*) AS n, sum(i) AS s FROM count_up(9) JOIN t ON t.v = i",
    "SELECT v, total(v) OVER (PARTITION BY g ORDER BY v) AS w FROM t WHERE margin(x, v) > 100 ORDER BY v LIMIT 5",
    "SELECT count(*) AS n FROM p WHERE plus_one(v) IN (10, 20, 30)",
    "SELECT a.g, max(b.v) AS m FROM t a JOIN t b ON plus_one(a.v) = b.v GROUP BY a.g HAVING total(b.v) > 10 ORDER BY 1",
    "SELECT * FROM (SELECT plus_one(v) AS v FROM t UNION ALL SELECT i FROM count_up(4)) ORDER BY v LIMIT 7",
];

#[tokio::test(flavor = "multi_thread")]
async fn plans_run_where_nothing_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (sender(folder.path()).await, session(folder.path()));
    for sql in QUERIES {
        let frame = ours.sql(sql, &BTreeMap::new()).await.unwrap();
        let expected = text(&frame.collect().await.unwrap());
        let received = theirs.plan_from_bytes(&frame.prepare().await.unwrap().to_bytes().unwrap()).unwrap();
        assert_eq!(text(&received.collect().await.unwrap()), expected, "{sql}");
        let bytes = frame.to_bytes().unwrap();
        let received = theirs.frame_from_bytes(&bytes).unwrap();
        let query = received.prepare().await.unwrap();
        assert_eq!(text(&query.collect().await.unwrap()), expected, "{sql}");
        assert!(query.functions().iter().all(|f| f.instances > 0) && !query.functions().is_empty(), "{sql}");
        // What was read is written as it came.
        assert_eq!(received.to_bytes().unwrap(), bytes, "{sql}");
    }
    assert!(theirs.user_functions().is_empty());
    assert_eq!(theirs.memory().reserved, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_travels_once() {
    let folder = tempfile::tempdir().unwrap();
    let ours = sender(folder.path()).await;
    let path = folder.path().join("columnar.wat");
    // Each has a module of its own, of the same bytes.
    for (name, function) in [("one", "plus_one"), ("two", "plus_one"), ("three", "total")] {
        let functions = vec![Wanted { name: name.to_owned(), function: Some(function.to_owned()), types: None }];
        ours.load_module(&path, "columnar.wat", Declared { functions, ..Declared::default() }).unwrap();
    }
    let size = |bytes: &[u8]| {
        let module = ours.modules().iter().find(|m| m.name() == "columnar.wat").unwrap().bytes().to_vec();
        bytes.windows(module.len()).filter(|w| *w == module).count()
    };
    let query = ours.sql("SELECT three(one(two(plus_one(v)))) FROM t", &BTreeMap::new()).await.unwrap();
    assert_eq!(size(&query.to_bytes().unwrap()), 1);
    assert_eq!(size(&query.prepare().await.unwrap().to_bytes().unwrap()), 1);
    let none = ours.sql("SELECT sum(v) FROM t", &BTreeMap::new()).await.unwrap();
    assert_eq!(size(&none.to_bytes().unwrap()), 0);
}

/// Early groups: functions of the optimizer's own.
#[tokio::test(flavor = "multi_thread")]
async fn aggregates_cut_in_two_travel() {
    let folder = tempfile::tempdir().unwrap();
    let ours = sender(folder.path()).await;
    let call = |name: &str, merges| {
        let fields = vec![Arc::new(datafusion::arrow::datatypes::Field::new("x", DataType::Float64, true))];
        sparklet_optimizer::AggregatePart { function: name.to_owned(), merges, fields }.make().unwrap()
    };
    let table = ours.context().table("t").await.unwrap();
    let (column, plan) =
        (datafusion::logical_expr::col, |f: datafusion::dataframe::DataFrame| f.logical_plan().clone());
    for name in ["sum", "avg", "max", "count"] {
        let state = call(name, false).call(vec![column("x")]).alias("s");
        let early = table.clone().aggregate(vec![column("g")], vec![state]).unwrap();
        let late = early.aggregate(Vec::new(), vec![call(name, true).call(vec![column("s")]).alias("r")]).unwrap();
        let frame = ours.frame(plan(late));
        let expected = text(&frame.collect().await.unwrap());
        let theirs = session(folder.path());
        let received = theirs.plan_from_bytes(&frame.prepare().await.unwrap().to_bytes().unwrap()).unwrap();
        assert_eq!(text(&received.collect().await.unwrap()), expected, "{name}");
        let received = theirs.frame_from_bytes(&frame.to_bytes().unwrap()).unwrap();
        assert_eq!(text(&received.collect().await.unwrap()), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_travel_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ours = sender(folder.path()).await;
    let mine = |args: &[ColumnarValue]| Ok(args[0].clone());
    let mine = create_udf("mine", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, Arc::new(mine));
    ours.context().register_udf(mine);
    let rows = ours.context().read_batch(RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()))).unwrap();
    ours.context().register_table("m", rows.into_view()).unwrap();
    ours.context().sql("CREATE TABLE held AS SELECT 1 AS a").await.unwrap().collect().await.unwrap();
    let sent = async |sql: &str| {
        let frame = ours.sql(sql, &BTreeMap::new()).await.unwrap();
        (frame.to_bytes().map(drop), frame.prepare().await.unwrap().to_bytes().map(drop))
    };
    let (logical, physical) = sent("SELECT mine(v) FROM t").await;
    let why = "function `mine` cannot travel: it is neither built in nor of a module";
    assert_eq!(logical.unwrap_err().message, why);
    assert_eq!(physical.unwrap_err().message, why);
    let (logical, _) = sent("SELECT plus_one(a) FROM held").await;
    assert_eq!(logical.unwrap_err().message, "table `held` cannot travel: its rows are in no files");
    let files = folder.path().join("t/*.parquet").display().to_string();
    let (logical, physical) = sent(&format!("SELECT plus_one(v) FROM '{files}'")).await;
    let error = logical.unwrap_err();
    assert!(error.message.contains("its files are told by a pattern"), "{}", error.message);
    assert!(error.hint.unwrap().contains("as a physical plan"));
    physical.unwrap();
}

/// The part of another process, below.
const PLAN: &str = "SPARKLET_TEST_RECEIVED_PLAN";

#[tokio::test(flavor = "multi_thread")]
async fn plans_run_in_another_process() {
    if let Some(path) = std::env::var_os(PLAN) {
        let folder = tempfile::tempdir().unwrap();
        let received = session(folder.path()).plan_from_bytes(&std::fs::read(&path).unwrap()).unwrap();
        let rows = text(&received.collect().await.unwrap());
        std::fs::write(Path::new(&path).with_extension("txt"), rows).unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let frame = sender(folder.path()).await.sql(QUERIES[0], &BTreeMap::new()).await.unwrap();
    let path = folder.path().join("sent.plan");
    std::fs::write(&path, frame.prepare().await.unwrap().to_bytes().unwrap()).unwrap();
    let test = ["--exact", "travel::tests::plans_run_in_another_process"];
    let ended = Command::new(std::env::current_exe().unwrap()).args(test).env(PLAN, &path).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    let rows = std::fs::read_to_string(path.with_extension("txt")).unwrap();
    assert_eq!(rows, text(&frame.collect().await.unwrap()));
}

/// `bytes` with another plan and modules, and a checksum that is right again.
fn resealed(bytes: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut rest = bytes[44..].to_vec();
    change(&mut rest);
    [&bytes[..12], blake3::hash(&rest).as_bytes().as_slice(), &rest].concat()
}

fn received(session: &Session, bytes: &[u8]) -> [Result<(), Error>; 2] {
    [session.frame_from_bytes(bytes).map(drop), session.plan_from_bytes(bytes).map(drop)]
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (sender(folder.path()).await, session(folder.path()));
    let frame = ours.sql(QUERIES[0], &BTreeMap::new()).await.unwrap();
    let good = frame.prepare().await.unwrap().to_bytes().unwrap();
    let check = |bytes: &[u8], says: &str| {
        let error = theirs.plan_from_bytes(bytes).map(drop).unwrap_err();
        assert!(error.message.contains(says), "{} instead of {says}", error.message);
        assert_eq!(error.kind, ErrorKind::Data, "{}", error.message);
    };
    check(b"", "no plan of sparklet");
    check(b"PK\x03\x04 some archive", "no plan of sparklet");
    check(&good[..8], "ends too early");
    check(&good[..20], "ends too early");
    check(&good[..good.len() - 1], "its checksum is another");
    check(&[good.as_slice(), b"x"].concat(), "its checksum is another");
    let mut newer = good.clone();
    newer[8] = 7;
    check(&newer, "the plan is of version 7, this engine reads version 1");
    check(&frame.to_bytes().unwrap(), "a logical plan, a physical one is wanted");
    let version = datafusion::DATAFUSION_VERSION;
    let other = resealed(&good, |rest| {
        let at = rest.windows(version.len()).position(|w| w == version.as_bytes()).unwrap();
        rest[at] = b'9';
    });
    check(&other, "the plan is made by DataFusion 9");
    // A module that is another, with the old hash.
    let module = ours.modules()[0].bytes().to_vec();
    let other = resealed(&good, |rest| {
        let at = rest.windows(module.len()).position(|w| w == module).unwrap();
        rest[at + module.len() - 1] ^= 1;
    });
    let error = theirs.plan_from_bytes(&other).unwrap_err();
    assert!(error.message.contains("has the SHA-256"), "{}", error.message);
    // A function that is said to be another one than the module has.
    let other = resealed(&good, |rest| {
        let said = b"(Float64, Float64) -> Float64";
        let at = rest.windows(said.len()).rposition(|w| w == said).unwrap();
        rest[at + 1] = b'B';
    });
    let error = theirs.plan_from_bytes(&other).unwrap_err();
    assert!(error.message.contains("where the plan was made and is `Immutable scalar"), "{}", error.message);
    // A limit that no module may have.
    let other = resealed(&good, |rest| {
        let said = b"\"memory\":8388608";
        let at = rest.windows(said.len()).position(|w| w == said).unwrap();
        rest[at + 9..at + 16].copy_from_slice(b"9e99999");
    });
    assert!(theirs.plan_from_bytes(&other).is_err());
}

#[test]
fn changed_bytes_are_an_error_or_a_plan() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let plans = runtime.block_on(async {
        let ours = sender(folder.path()).await;
        let mut plans = Vec::new();
        for sql in QUERIES {
            let frame = ours.sql(sql, &BTreeMap::new()).await.unwrap();
            plans.push(frame.to_bytes().unwrap());
            plans.push(frame.prepare().await.unwrap().to_bytes().unwrap());
        }
        plans
    });
    let theirs = session(folder.path());
    let _guard = runtime.enter();
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4u8);
    let changes = (0..plans.len(), prop::collection::vec(change, 1..4), any::<bool>());
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let done = TestRunner::new(config).run(&changes, |(plan, changes, seal)| {
        let change = |bytes: &mut Vec<u8>| {
            for (at, value, how) in &changes {
                let at = at.index(bytes.len());
                match how {
                    0 => bytes[at] = *value,
                    1 => bytes[at] ^= 1 << (value % 8),
                    2 => drop(bytes.drain(at..(at + usize::from(*value)).min(bytes.len() - 1).max(at))),
                    _ => bytes.insert(at, *value),
                }
            }
        };
        let bytes = match seal {
            true => resealed(&plans[plan], change),
            false => {
                let mut bytes = plans[plan].clone();
                change(&mut bytes);
                bytes
            }
        };
        for read in received(&theirs, &bytes) {
            let unchanged = bytes == plans[plan];
            prop_assert!(seal || unchanged || read.is_err());
            if let Err(error) = read {
                prop_assert!(!error.message.is_empty() && error.message.len() < 64 << 10, "{}", error.message);
            }
        }
        Ok(())
    });
    done.unwrap();
}
