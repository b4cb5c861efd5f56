//! Every adaptation against the plain plan, on random data.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use futures::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sparklet_history::{
    Adaptation, AdaptationKind, AdaptationReason, Completeness, HeavyKey, KeyRecord, NodeRecord, Recalled,
};

use super::boundary::{Look, Reach};
use super::driver::{Cuts, Driver};
use super::known::KnownKeys;
use super::known::tests::{SCOPE, run};
use super::reorder::Reorderer;
use super::running::Running;
use super::{AdaptiveMode, AdaptiveSettings, boundary, share};
use crate::{Session, SessionConfig};

/// Rows of a table: key, text key, value.
#[derive(Debug, Clone)]
pub(super) struct Table(pub(super) Vec<(Option<i64>, Option<String>, i64)>);

fn tables() -> impl Strategy<Value = [Table; 3]> {
    [table(), table(), table()]
}

/// Random keys with NULLs, often with a hot key, sometimes empty.
pub(super) fn table() -> impl Strategy<Value = Table> {
    let key = (0u8..10, 0i64..40).prop_map(|(null, key)| (null > 0).then_some(key));
    let text = prop::option::weighted(0.9, "[ab]{0,1}");
    let rows = prop::collection::vec((key, text, -20i64..20), 0..60);
    (rows, 0usize..30, prop::option::weighted(0.8, 0i64..4)).prop_map(|(mut rows, hot, key)| {
        if rows.len() > 4 {
            rows.extend((0..hot).map(|i| (key, Some("a".to_owned()), i as i64 % 7)));
        }
        Table(rows)
    })
}

fn batch(table: &Table) -> RecordBatch {
    let keys: Int64Array = table.0.iter().map(|r| r.0).collect();
    let texts: StringArray = table.0.iter().map(|r| r.1.clone()).collect();
    let values: Int64Array = table.0.iter().map(|r| Some(r.2)).collect();
    let floats: Float64Array = table.0.iter().map(|r| (r.2 % 3 != 0).then_some(r.2 as f64 / 4.0)).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("k", Arc::new(keys) as ArrayRef, true),
        ("t", Arc::new(texts), true),
        ("v", Arc::new(values), true),
        ("f", Arc::new(floats), true),
    ])
    .unwrap()
}

pub(super) fn session(folder: &Path, mode: AdaptiveMode, slots: usize, memory: u64) -> Session {
    Session::new(SessionConfig {
        memory_limit: Some(memory),
        slots: Some(slots),
        spill_dir: folder.to_owned(),
        batch_size: Some(32),
        adaptive: AdaptiveSettings { mode, ..AdaptiveSettings::default() },
        ..SessionConfig::default()
    })
    .unwrap()
}

pub(super) fn register(session: &Session, tables: &[Table; 3]) {
    for (name, table) in ["l", "r", "s"].into_iter().zip(tables) {
        let batch = batch(table);
        let schema = batch.schema();
        // Two partitions, in batches.
        let rows = batch.num_rows();
        let half = rows / 2;
        let cut = |from: usize, to: usize| {
            (from..to).step_by(11).map(|at| batch.slice(at, 11.min(to - at))).collect::<Vec<_>>()
        };
        let table = MemTable::try_new(schema, vec![cut(0, half), cut(half, rows)]).unwrap();
        session.register_step(name, Arc::new(table)).unwrap();
    }
}

/// Rows as text, sorted.
pub(super) fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let Some(first) = batches.first() else { return Vec::new() };
    let all = concat_batches(&first.schema(), batches).unwrap();
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> = all.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    let mut rows: Vec<String> = (0..all.num_rows())
        .map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect();
    rows.sort_unstable();
    rows
}

pub(super) const JOINS: [&str; 8] =
    ["INNER", "LEFT", "RIGHT", "FULL", "LEFT SEMI", "RIGHT SEMI", "LEFT ANTI", "RIGHT ANTI"];

/// Queries whose joins, and what relies on their partitioning, take every way through the driver.
fn queries() -> Vec<String> {
    let mut queries = Vec::new();
    for join in JOINS {
        for on in ["l.k = r.k", "l.k = r.k AND l.t = r.t", "l.k = r.k AND l.v < r.v"] {
            queries.push(format!("SELECT * FROM l {join} JOIN r ON {on}"));
        }
        let (side, other) = if join.starts_with("RIGHT ") && join != "RIGHT" { ("r", "l") } else { ("l", "r") };
        // Relies on the partitioning of the join by its own keys.
        queries.push(format!(
            "SELECT {side}.k, count(*), sum({side}.v) FROM l {join} JOIN r ON l.k = r.k GROUP BY {side}.k"
        ));
        queries
            .push(format!("SELECT {side}.k, {side}.v, s.v FROM l {join} JOIN r ON l.k = r.k JOIN s ON {side}.k = s.k"));
        queries.push(format!(
            "SELECT {side}.k, {side}.v, s.t FROM l {join} JOIN r ON l.k = r.k FULL JOIN s ON {side}.k = s.k"
        ));
        queries.push(format!("SELECT {side}.t, count(DISTINCT {side}.v) FROM l {join} JOIN r ON l.k = r.k WHERE {side}.v > 0 GROUP BY {side}.t"));
        queries.push(format!(
            "SELECT {side}.k, row_number() OVER (PARTITION BY {side}.k ORDER BY {side}.v, {side}.t, {side}.f) \
             FROM l {join} JOIN r ON l.k = r.k"
        ));
        let _ = other;
    }
    queries.push("SELECT * FROM l WHERE EXISTS (SELECT 1 FROM r WHERE r.k = l.k) OR l.v > 5".to_owned());
    queries.push("SELECT * FROM l WHERE l.k IN (SELECT k FROM r) OR l.v > 5".to_owned());
    queries.push("SELECT * FROM l WHERE l.k NOT IN (SELECT k FROM r)".to_owned());
    queries.push(
        "SELECT k, sum(v) FROM l GROUP BY k HAVING sum(v) > (SELECT avg(r.v) FROM r JOIN s ON r.k = s.k)".to_owned(),
    );
    // A total order: of rows that tie at the limit any may be given (`f` follows from `v`).
    queries.push(
        "SELECT * FROM l JOIN r USING (k) JOIN s USING (k) ORDER BY l.v, r.v, s.v, l.k, l.t, r.t, s.t LIMIT 10"
            .to_owned(),
    );
    queries.push("SELECT a.v, b.v FROM l a JOIN l b ON a.k = b.k".to_owned());
    queries.push("SELECT * FROM l JOIN r ON l.k = r.k + 1".to_owned());
    queries.push(
        "SELECT * FROM (SELECT k, sum(v) AS total FROM l GROUP BY k) a JOIN (SELECT DISTINCT k FROM r) b ON a.k = b.k"
            .to_owned(),
    );
    queries.push("SELECT l.k FROM l JOIN r ON l.k = r.k INTERSECT SELECT k FROM s".to_owned());
    queries.push("WITH j AS (SELECT l.k, l.v, r.t FROM l LEFT JOIN r ON l.k = r.k) SELECT * FROM j a JOIN j b ON a.k = b.k AND a.v = b.v".to_owned());
    // Inputs of which a filter over the key may go down some way, or none.
    for (input, key) in [
        ("(SELECT k, v FROM r UNION ALL SELECT v, k FROM s) b", "b.k"),
        ("(SELECT 40 / v AS k, t FROM r WHERE v <> 0) b", "b.k"),
        ("(SELECT k + 1 AS k, v FROM r WHERE v > -10) b", "b.k"),
        ("(SELECT k % 7 AS k, sum(v) AS total FROM r GROUP BY k % 7) b", "b.k"),
        ("(SELECT k, t, sum(v) AS total FROM r GROUP BY ROLLUP (k, t)) b", "b.k"),
        ("(SELECT k, count(*) AS n FROM r GROUP BY k HAVING count(*) > 1) b", "b.k"),
        ("(SELECT k, t, v, f FROM r ORDER BY v, k, t LIMIT 9) b", "b.k"),
        ("(SELECT k, v, rank() OVER (PARTITION BY t ORDER BY v) AS n FROM r) b", "b.k"),
        ("(r a JOIN s b ON a.v = b.v)", "b.k"),
        ("(r a LEFT JOIN s b ON a.v = b.v)", "b.k"),
        ("(r a LEFT JOIN s b ON a.v = b.v)", "a.k"),
        ("(r a RIGHT JOIN s b ON a.v > b.v)", "b.k"),
    ] {
        queries.push(format!("SELECT * FROM l JOIN {input} ON l.k = {key}"));
        queries.push(format!("SELECT * FROM l RIGHT JOIN {input} ON l.k = {key}"));
    }
    let twice = "WITH g AS (SELECT k, t, sum(v) AS total, count(*) AS n FROM l GROUP BY k, t) ";
    queries.push(format!("{twice}SELECT * FROM g a JOIN g b ON a.k = b.k AND a.total <= b.total"));
    queries.push(format!("{twice}SELECT k, total FROM g UNION ALL SELECT k, n FROM g UNION ALL SELECT v, k FROM s"));
    queries.push(format!(
        "{twice}SELECT a.k, b.t FROM g a LEFT JOIN g b ON a.k = b.k + 1 WHERE a.total > (SELECT avg(total) FROM g)"
    ));
    queries.push(
        "WITH w AS (SELECT k, v, rank() OVER (PARTITION BY t ORDER BY v, k, f) AS r FROM l) \
                  SELECT a.k, b.k FROM w a JOIN w b ON a.r = b.r + 1 JOIN w c ON a.r = c.r - 1"
            .to_owned(),
    );
    queries
}

/// Queries with groups and partitions that may be hot, and whether these are cut.
fn grouped() -> Vec<(&'static str, bool)> {
    vec![
        ("SELECT k, count(DISTINCT v), count(DISTINCT t), sum(v), avg(f) FROM l GROUP BY k", true),
        ("SELECT k, t, count(DISTINCT v), sum(DISTINCT v), avg(DISTINCT f), count(*) FROM l GROUP BY k, t", true),
        ("SELECT count(DISTINCT v + 1), k, count(DISTINCT t) FROM l GROUP BY k HAVING count(DISTINCT t) > 0", true),
        (
            "SELECT k, median(v), count(DISTINCT v), count(DISTINCT t), count(f) FILTER (WHERE v > 0) FROM l GROUP BY k",
            true,
        ),
        ("SELECT k, count(DISTINCT v) FILTER (WHERE v > 0), count(DISTINCT t) FROM l GROUP BY k", false),
        ("SELECT count(DISTINCT v), count(DISTINCT t) FROM l", false),
        (
            "SELECT r.v, a.n, a.m FROM (SELECT k, count(DISTINCT v) n, count(DISTINCT t) m FROM l GROUP BY k) a JOIN r ON a.k = r.k",
            true,
        ),
        ("SELECT l.k, count(DISTINCT l.v), count(DISTINCT r.v) FROM l JOIN r ON l.k = r.k GROUP BY l.k", true),
        ("SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v) FROM l", true),
        ("SELECT *, row_number() OVER (PARTITION BY k ORDER BY v DESC, t NULLS FIRST, f) FROM l", true),
        ("SELECT k, v, t, f, row_number() OVER (PARTITION BY k ORDER BY t) + v * 0 AS n FROM l WHERE false", true),
        (
            "SELECT k, t, v, rank() OVER (PARTITION BY k ORDER BY v), rank() OVER (PARTITION BY k ORDER BY v DESC) FROM l",
            true,
        ),
        (
            "SELECT k, t, dense_rank() OVER (PARTITION BY k ORDER BY f), count(v) OVER (PARTITION BY k ORDER BY f), \
          sum(v) OVER (PARTITION BY k ORDER BY f) FROM l",
            true,
        ),
        (
            "SELECT t, k, v, sum(f) OVER (PARTITION BY t, k ORDER BY v), count(f) FILTER (WHERE f > 0) OVER (PARTITION BY t, k ORDER BY v) FROM l",
            true,
        ),
        ("SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY v DESC ROWS UNBOUNDED PRECEDING) FROM l", true),
        ("SELECT k, t, sum(f) OVER (PARTITION BY k ORDER BY v + 1 DESC NULLS LAST) FROM l", true),
        (
            "SELECT k, v, t, sum(v) OVER (PARTITION BY k), count(*) OVER (PARTITION BY k), min(t) OVER (PARTITION BY k) FROM l",
            true,
        ),
        (
            "SELECT v, avg(f) OVER (PARTITION BY t, k), count(f) FILTER (WHERE v > 0) OVER (PARTITION BY t, k) FROM l",
            true,
        ),
        (
            "SELECT k, max(v) OVER (PARTITION BY k ORDER BY v ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM l",
            true,
        ),
        ("SELECT k, v, lag(v) OVER (PARTITION BY k ORDER BY v) FROM l", false),
        ("SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY v ROWS 2 PRECEDING) FROM l", false),
        ("SELECT v, max(n) FROM (SELECT v, rank() OVER (PARTITION BY k ORDER BY v, t) AS n FROM l) GROUP BY v", true),
        ("SELECT l.k, r.v, rank() OVER (PARTITION BY l.k ORDER BY r.v) FROM l FULL JOIN r ON l.k = r.k", true),
        (
            "SELECT a.n, b.v FROM (SELECT k, v, sum(v) OVER (PARTITION BY k) AS n FROM l) a LEFT JOIN r b ON a.k = b.k AND a.n = b.v",
            true,
        ),
        (
            "SELECT k, n, sum(m) OVER (PARTITION BY n) FROM (SELECT k, count(DISTINCT v) n, count(DISTINCT t) m FROM l GROUP BY k)",
            true,
        ),
    ]
}

#[test]
fn divided_groups_give_the_rows_of_plain_ones() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut runner =
        TestRunner::new(Config { cases: cases(), failure_persistence: None, max_shrink_iters: 4, ..Config::default() });
    let outcome = runner.run(&(tables(), 1usize..5), |(tables, slots)| {
        runtime.block_on(async {
            let plain = session(folder.path(), AdaptiveMode::Off, slots, 256 << 20);
            let forced = session(folder.path(), AdaptiveMode::Force, slots, 256 << 20);
            register(&plain, &tables);
            register(&forced, &tables);
            for (sql, _) in grouped() {
                let expected = rows(&plain, sql).await;
                prop_assert_eq!(&rows(&forced, sql).await, &expected, "{}", sql);
            }
            prop_assert_eq!(forced.memory().reserved, 0, "memory that was not given back");
            Ok(())
        })
    });
    outcome.unwrap();
}

#[tokio::test]
async fn hot_groups_are_reached() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), AdaptiveMode::Force, 3, 256 << 20);
    let rows: Vec<_> = (0..90).map(|i| (Some(if i % 5 < 2 { 7 } else { i }), Some("a".to_owned()), i % 11)).collect();
    register(&session, &[Table(rows.clone()), Table(rows.clone()), Table(rows)]);
    for (sql, cut) in grouped().into_iter().filter(|(sql, _)| !sql.contains("false")) {
        let query = session.sql(sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        query.collect().await.unwrap();
        let adaptations = query.adaptations();
        let split: Vec<_> = adaptations
            .iter()
            .filter(|a| matches!(a.kind, AdaptationKind::SplitGroups { .. } | AdaptationKind::SplitWindow { .. }))
            .collect();
        assert_eq!(!split.is_empty(), cut, "{sql}: {adaptations:#?}");
        assert!(split.iter().all(|a| !a.task_cpu_us.is_empty()), "{sql}");
        let observed = query.observe();
        assert!(
            !cut || observed.nodes.iter().any(|node| node.operator == "ExchangeReaderExec"),
            "{sql}: {observed:#?}"
        );
    }
}

pub(super) async fn rows(session: &Session, sql: &str) -> Vec<String> {
    let query = session.sql(sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
    let batches = query.collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    sorted(&batches)
}

/// Cases a run; `SPARKLET_TEST_CASES` or `PROPTEST_CASES` sets more.
fn cases() -> u32 {
    asked_cases().unwrap_or(12)
}

/// Cases that who runs the tests wants.
pub(super) fn asked_cases() -> Option<u32> {
    let set = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    set("SPARKLET_TEST_CASES").or_else(|| set("PROPTEST_CASES"))
}

#[test]
fn staged_plans_give_the_rows_of_plain_ones() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let queries = queries();
    let mut runner =
        TestRunner::new(Config { cases: cases(), failure_persistence: None, max_shrink_iters: 4, ..Config::default() });
    let strategy = (tables(), 1usize..5);
    let outcome = runner.run(&strategy, |(tables, slots)| {
        runtime.block_on(async {
            let plain = session(folder.path(), AdaptiveMode::Off, slots, 256 << 20);
            let forced = session(folder.path(), AdaptiveMode::Force, slots, 256 << 20);
            register(&plain, &tables);
            register(&forced, &tables);
            for sql in &queries {
                let expected = rows(&plain, sql).await;
                prop_assert_eq!(&rows(&forced, sql).await, &expected, "{}", sql);
                let half = staged(&forced, sql, Reach::EveryJoin, 1, 256 << 20).await;
                prop_assert_eq!(&half, &expected, "half staged: {}", sql);
                let without = staged(&forced, sql, Reach::EveryJoin, 2, 4000).await;
                prop_assert_eq!(&without, &expected, "without memory: {}", sql);
                // So much that small inputs are broadcast, some fit, and some do not.
                let again = staged(&forced, sql, Reach::AfterExhaustion, 2, 40_000).await;
                prop_assert_eq!(&again, &expected, "after exhaustion: {}", sql);
            }
            prop_assert_eq!(forced.memory().reserved, 0, "memory that was not given back");
            Ok(())
        })
    });
    outcome.unwrap();
}

/// How a plan is run in stages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stages {
    pub(super) reach: Reach,
    /// Inputs of each join that are finished exchanges. With one, the other must meet it in the same partitions.
    pub(super) sides: usize,
    /// Bytes of the pool, as far as the stages know. With next to none, exchanges go to disk, and buckets are divided again or sorted.
    pub(super) memory: u64,
    /// Subplans that repeat run once.
    pub(super) shared: bool,
}

/// Runs `logical`, an optimised plan.
pub(super) async fn run_stages(
    session: &Session,
    state: &SessionState,
    logical: LogicalPlan,
    stages: Stages,
) -> Result<(Vec<RecordBatch>, Arc<Running>), DataFusionError> {
    let physical = state.query_planner().create_physical_plan(&logical, state).await?;
    let settings = session.adaptive();
    let known = KnownKeys::default();
    let Stages { reach, sides, memory, shared } = stages;
    let look = Look { settings, build_bytes_limit: 0, reach, slots: 2, known: &known };
    let boundaries = boundary::find(&logical, &physical, session.sources().as_ref(), &look).boundaries;
    let shared = if shared { share::repeated(&logical) } else { Vec::new() };
    let cuts = Cuts { shared, boundaries, reach };
    let running = Running::of(physical);
    let reorderer = Reorderer::new(session.clone(), Arc::default(), reach);
    let mut driver = Driver::new(state, settings, memory, logical, cuts, Arc::clone(&running))
        .reordering(settings.reorder.then_some(reorderer));
    driver.sides = sides;
    let plan = driver.run().await?;
    Ok((collect(plan, Arc::clone(driver.task_context())).await?, running))
}

async fn ran(session: &Session, sql: &str, stages: Stages) -> (Vec<String>, Arc<Running>) {
    let state = session.context().state();
    let frame = session.sql(sql, &BTreeMap::new()).await.unwrap();
    let logical = state.optimize(frame.logical_plan()).unwrap();
    let ran = run_stages(session, &state, logical, stages).await;
    let (batches, running) = ran.unwrap_or_else(|e| panic!("{sql}: {e}"));
    (sorted(&batches), running)
}

async fn staged(session: &Session, sql: &str, reach: Reach, sides: usize, memory: u64) -> Vec<String> {
    ran(session, sql, Stages { reach, sides, memory, shared: false }).await.0
}

#[tokio::test]
async fn repeated_subplans_are_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), AdaptiveMode::Force, 2, 256 << 20);
    let rows: Vec<_> = (0..60).map(|i| (Some(i % 9), Some("a".to_owned()), i)).collect();
    register(&session, &[Table(rows.clone()), Table(rows.clone()), Table(rows)]);
    let shared = async |sql: &str| -> Vec<u32> {
        let query = session.sql(sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        query.collect().await.unwrap();
        let kinds = query.adaptations().into_iter().map(|a| a.kind);
        kinds
            .filter_map(
                |kind| if let AdaptationKind::ShareSubplan { readers, .. } = kind { Some(readers) } else { None },
            )
            .collect()
    };
    let g = "WITH g AS (SELECT k, sum(v) AS total FROM l GROUP BY k) ";
    assert_eq!(shared(&format!("{g}SELECT * FROM g a JOIN g b ON a.k = b.k")).await, [2]);
    assert_eq!(shared(&format!("{g}SELECT * FROM g UNION ALL SELECT * FROM g UNION ALL SELECT * FROM g")).await, [3]);
    let most = "(SELECT max(total) FROM g)";
    assert_eq!(shared(&format!("{g}SELECT * FROM g WHERE total = {most}")).await, [2]);
    assert_eq!(shared(&format!("{g}SELECT {most} - (SELECT min(total) FROM g) AS width")).await, [2]);
    // Readers that filter by a key differ below the aggregate; what is random is not the same twice.
    assert!(
        shared(&format!("{g}SELECT * FROM g a JOIN g b ON a.total = b.total WHERE a.k = 1 AND b.k = 2"))
            .await
            .is_empty()
    );
    let random =
        "WITH g AS (SELECT k, sum(v * random()) AS total FROM l GROUP BY k) SELECT * FROM g a JOIN g b ON a.k = b.k";
    assert!(shared(random).await.is_empty());
}

/// As it is written the first join gives 120,000 rows. Once its inputs are finished it is known that their keys are few: the small table comes first.
#[tokio::test]
async fn joins_still_to_come_run_in_another_order() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |rows: i64, keys: i64| Table((0..rows).map(|i| (Some(i % keys), Some("a".to_owned()), i)).collect());
    let tables = [rows(600, 3), rows(600, 3), rows(3, 3)];
    let sql = "SELECT l.k, l.v, r.v, s.t FROM l JOIN r ON l.k = r.k JOIN s ON l.v = s.v";
    let plain = session(folder.path(), AdaptiveMode::Off, 3, 256 << 20);
    register(&plain, &tables);
    let expected = sorted(&plain.sql(sql, &BTreeMap::new()).await.unwrap().collect().await.unwrap());
    assert_eq!(expected.len(), 600);
    for reorder in [true, false] {
        let session = Session::new(SessionConfig {
            slots: Some(3),
            spill_dir: folder.path().to_owned(),
            adaptive: AdaptiveSettings { mode: AdaptiveMode::Force, reorder, ..AdaptiveSettings::default() },
            ..SessionConfig::default()
        })
        .unwrap();
        register(&session, &tables);
        let query = session.sql(sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        assert_eq!(sorted(&query.collect().await.unwrap()), expected);
        let orders: Vec<Vec<String>> = query
            .adaptations()
            .into_iter()
            .filter_map(|a| if let AdaptationKind::ReorderJoins { orders } = a.kind { Some(orders) } else { None })
            .collect();
        match reorder {
            true => assert_eq!(orders, [["(s JOIN Exchange 0) JOIN r"]], "the first input is finished"),
            false => assert!(orders.is_empty(), "{orders:?}"),
        }
        // All that was joined is counted as what it is.
        let joins: Vec<u64> = query
            .observe()
            .nodes
            .iter()
            .filter(|node| node.operator.contains("Join"))
            .filter_map(|node| node.rows)
            .collect();
        assert_eq!(joins.iter().any(|rows| *rows > 100_000), !reorder, "{joins:?}");
    }
}

#[tokio::test]
async fn most_joins_are_reached() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), AdaptiveMode::Force, 2, 256 << 20);
    let rows: Vec<_> = (0..60).map(|i| (Some(if i % 5 < 2 { 7 } else { i }), Some("a".to_owned()), i)).collect();
    register(&session, &[Table(rows.clone()), Table(rows.clone()), Table(rows)]);
    let mut missed = Vec::new();
    for sql in queries() {
        let query = session.sql(&sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        query.collect().await.unwrap();
        let divided =
            query.adaptations().iter().filter(|a| matches!(a.kind, AdaptationKind::DivideJoin { .. })).count();
        if divided == 0 {
            missed.push(sql);
        }
    }
    // Outer joins that DataFusion removes; NOT IN; a join within a scalar subquery; keys that are expressions; no join at all.
    assert_eq!(missed.len(), 8, "{missed:#?}");
}

/// A join whose build side does not fit ends in plain DataFusion; here it begins again in stages, on disk.
#[tokio::test]
async fn a_join_that_does_not_fit_begins_again_in_stages() {
    let folder = tempfile::tempdir().unwrap();
    let sql = "SELECT count(*), sum(a.value + b.value) FROM range(0, 3000000) a JOIN range(0, 3000000) b ON a.value = b.value";
    let off = session(folder.path(), AdaptiveMode::Off, 2, 40 << 20);
    let failed = off.sql(sql, &BTreeMap::new()).await.unwrap().collect().await.unwrap_err();
    assert_eq!(failed.kind, crate::ErrorKind::Resources, "{failed}");
    let on = Session::new(SessionConfig {
        memory_limit: Some(40 << 20),
        slots: Some(2),
        spill_dir: folder.path().to_owned(),
        ..SessionConfig::default()
    })
    .unwrap();
    let query = on.sql(sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
    let rows = sorted(&query.collect().await.unwrap());
    assert_eq!(rows, ["3000000|8999997000000"]);
    let mut kinds: Vec<_> = query.adaptations().into_iter().map(|a| a.kind).collect();
    kinds.retain(|kind| !matches!(kind, AdaptationKind::ChangeSlots { .. } | AdaptationKind::PushKeys { .. }));
    assert!(matches!(kinds[..], [AdaptationKind::RunInStages, AdaptationKind::DivideJoin { .. }]), "{kinds:?}");
    let plan = query.observe();
    assert!(plan.nodes.iter().any(|node| node.operator == "ExchangeReaderExec"), "{plan:#?}");
    drop(query);
    // Tasks that were still going on end when they are next looked at.
    let ended = async {
        while on.memory().reserved > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ended).await.unwrap();
}

/// Once memory has run out, an input that is small becomes a broadcast, one that fits is built while the other is read as it comes, and only
/// where neither fits both are kept.
#[tokio::test]
async fn after_exhaustion_only_what_may_be_needed_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path(), AdaptiveMode::Force, 2, 256 << 20);
    let table = |n: i64| Table((0..n).map(|i| (Some(i), Some("a".to_owned()), i)).collect());
    register(&session, &[table(3000), table(3000), table(10)]);
    let kept = async |sql: &str, memory: u64| {
        let stages = Stages { reach: Reach::AfterExhaustion, sides: 2, memory, shared: false };
        let (rows, running) = ran(&session, sql, stages).await;
        let shown = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(false).to_string();
        let plans: Vec<String> = running.plans().iter().map(shown).collect();
        let exchanges: std::collections::BTreeSet<String> = plans
            .iter()
            .flat_map(|plan| plan.lines())
            .filter_map(|line| line.split("ExchangeReaderExec: ").nth(1)?.split(", partitions=").next())
            .map(ToOwned::to_owned)
            .collect();
        (rows.len(), exchanges.len())
    };
    // A slot may have 38 MiB, 150 kB, 15 kB and 300 bytes; the rows of a broadcast a quarter of it.
    let small = "SELECT l.v, s.t FROM l JOIN s ON l.k = s.k WHERE s.v >= 0";
    assert_eq!(kept(small, 256 << 20).await, (10, 1), "a broadcast");
    let large = "SELECT l.v, r.t FROM l JOIN r ON l.k = r.k WHERE l.v >= 0 AND r.v >= 0";
    assert_eq!(kept(large, 1_000_000).await, (3000, 1), "a table that fits");
    assert_eq!(kept(large, 100_000).await, (3000, 2), "one that does not");
    let both = "SELECT l.v, r.t, s.t FROM l JOIN r ON l.k = r.k JOIN s ON r.v = s.v WHERE s.v >= 0";
    assert_eq!(kept(both, 2_000).await, (10, 4), "two joins");
}

/// A hot key that no division makes smaller is joined by sorting, with its filter over the columns of either side first.
#[tokio::test]
async fn a_hot_key_without_memory_keeps_its_filter() {
    let folder = tempfile::tempdir().unwrap();
    let plain = session(folder.path(), AdaptiveMode::Off, 2, 256 << 20);
    let forced = session(folder.path(), AdaptiveMode::Force, 2, 256 << 20);
    let hot = |n: i64| Table((0..n).map(|i| (Some(i % 9 / 8), Some("a".to_owned()), i % 7)).collect());
    for (l, r) in [(70, 50), (50, 70)] {
        let tables = [hot(l), hot(r), hot(1)];
        register(&plain, &tables);
        register(&forced, &tables);
        for join in JOINS {
            let sql = format!("SELECT * FROM l {join} JOIN r ON l.k = r.k AND l.v < r.v");
            assert_eq!(staged(&forced, &sql, Reach::EveryJoin, 2, 4000).await, rows(&plain, &sql).await, "{sql}");
        }
    }
}

/// A join of many tasks, whose rows are more than fit between its slots and who reads them.
const LONG: &str = "SELECT a.k, a.v, b.v AS w FROM l a JOIN l b ON a.k = b.k";

fn long(session: &Session) {
    let rows = Table((0..3000).map(|i| (Some(i % 200), None, i)).collect());
    register(session, &[rows.clone(), rows, Table(Vec::new())]);
}

/// Changes of the number of slots so far.
fn slot_changes(query: &crate::PreparedQuery) -> Vec<(u32, u32, AdaptationReason)> {
    let change = |a: Adaptation| match a.kind {
        AdaptationKind::ChangeSlots { from, to } => Some((from, to, a.because)),
        _ => None,
    };
    query.adaptations().into_iter().filter_map(change).collect()
}

/// Fills the session's pool to 97 %.
fn fill(session: &Session) -> MemoryReservation {
    let held = MemoryConsumer::new("test").register(&session.context().runtime_env().memory_pool);
    let memory = session.memory();
    held.try_grow((memory.limit / 100 * 97 - memory.reserved) as usize).unwrap();
    held
}

/// Returns once `done`; what runs goes on meanwhile.
async fn until(done: impl Fn() -> bool) {
    let looks = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), looks).await.unwrap();
}

#[tokio::test]
async fn slots_change_with_the_memory_pool_while_a_stage_runs() {
    let folder = tempfile::tempdir().unwrap();
    let plain = session(folder.path(), AdaptiveMode::Off, 4, 64 << 20);
    let forced = session(folder.path(), AdaptiveMode::Force, 4, 64 << 20);
    long(&plain);
    long(&forced);
    let prepare = async || forced.sql(LONG, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
    let by_memory = |change: &(u32, u32, AdaptationReason)| matches!(change.2, AdaptationReason::PoolUse { .. });
    let query = prepare().await;
    let mut stream = query.stream().unwrap();
    let mut batches = vec![stream.next().await.unwrap().unwrap()];
    let held = fill(&forced);
    while !slot_changes(&query).iter().any(|change| by_memory(change) && change.1 < change.0) {
        batches.push(stream.next().await.expect("slots change before the end").unwrap());
    }
    drop(held);
    while !slot_changes(&query).iter().any(|change| by_memory(change) && change.1 > change.0) {
        batches.push(stream.next().await.expect("slots come back before the end").unwrap());
    }
    while let Some(batch) = stream.next().await {
        batches.push(batch.unwrap());
    }
    assert_eq!(sorted(&batches), rows(&plain, LONG).await);
    // What a query keeps goes with it.
    drop((stream, query));
    // Cut off while slots wait.
    let query = prepare().await;
    let mut stream = query.stream().unwrap();
    stream.next().await.unwrap().unwrap();
    let held = fill(&forced);
    while slot_changes(&query).is_empty() {
        stream.next().await.expect("slots change before the end").unwrap();
    }
    drop((stream, query, held));
    until(|| forced.memory().reserved == 0).await;
}

#[tokio::test]
async fn two_queries_share_the_slots() {
    let folder = tempfile::tempdir().unwrap();
    let slots = std::thread::available_parallelism().map_or(1, usize::from).max(4);
    let plain = session(folder.path(), AdaptiveMode::Off, slots, 256 << 20);
    let forced = session(folder.path(), AdaptiveMode::Force, slots, 256 << 20);
    long(&plain);
    long(&forced);
    let prepare = async || forced.sql(LONG, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
    let queries = [prepare().await, prepare().await];
    let mut streams = queries.each_ref().map(|query| query.stream().unwrap());
    let mut batches = [Vec::new(), Vec::new()];
    for (stream, batches) in streams.iter_mut().zip(&mut batches) {
        batches.push(stream.next().await.unwrap().unwrap());
    }
    // Both are at work now: the first one finds the other at its next task.
    for (stream, batches) in streams.iter_mut().zip(&mut batches) {
        while let Some(batch) = stream.next().await {
            batches.push(batch.unwrap());
        }
    }
    let expected = rows(&plain, LONG).await;
    for (query, batches) in queries.iter().zip(&batches) {
        assert_eq!(sorted(batches), expected);
        let changes = slot_changes(query);
        let shared = |(from, to, because): &(u32, u32, AdaptationReason)| {
            to < from && matches!(because, AdaptationReason::OtherQueries { queries: 1.. })
        };
        assert!(changes.iter().any(shared), "{changes:?}");
    }
    let off = Session::new(SessionConfig {
        slots: Some(slots),
        spill_dir: folder.path().to_owned(),
        adaptive: AdaptiveSettings { mode: AdaptiveMode::Force, slots: false, ..AdaptiveSettings::default() },
        ..SessionConfig::default()
    })
    .unwrap();
    long(&off);
    let query = off.sql(LONG, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
    let _held = fill(&off);
    assert_eq!(sorted(&query.collect().await.unwrap()), expected);
    assert!(slot_changes(&query).is_empty());
}

/// What a query over small tables, which are known to have `keys`, begins with; its rows are those of the plain plan.
async fn with_past(
    folder: &Path,
    sql: &str,
    keys: Vec<KeyRecord>,
    adaptive: AdaptiveSettings,
) -> (Vec<String>, Vec<Adaptation>) {
    let plain = session(folder, AdaptiveMode::Off, 4, 256 << 20);
    long(&plain);
    let threshold =
        |name: &str| (format!("datafusion.optimizer.hash_join_single_partition_threshold{name}"), "0".to_owned());
    let session = Session::new(SessionConfig {
        slots: Some(4),
        spill_dir: folder.to_owned(),
        options: [threshold(""), threshold("_rows")].into(),
        past: Some(Arc::new(Recalled::of(SCOPE, vec![run("step", keys, Vec::new())]))),
        adaptive,
        ..SessionConfig::default()
    })
    .unwrap();
    long(&session);
    session.recalled();
    let query = session.sql(sql, &BTreeMap::new()).await.unwrap().of_step("step").prepare().await.unwrap();
    let boundaries = query.boundaries();
    assert_eq!(sorted(&query.collect().await.unwrap()), rows(&plain, sql).await, "{sql}");
    (boundaries, query.adaptations())
}

#[tokio::test]
async fn what_is_known_of_keys_decides_what_runs_first() {
    let folder = tempfile::tempdir().unwrap();
    let queries = [
        ("SELECT a.v, b.v AS w FROM l a JOIN r b ON a.k = b.k", "join on a.k = b.k"),
        ("SELECT k, count(DISTINCT v), count(DISTINCT t) FROM l GROUP BY k", "aggregate by k"),
        ("SELECT k, v, rank() OVER (PARTITION BY k ORDER BY v) FROM l", "window by k"),
    ];
    for (sql, what) in queries {
        let forced = session(folder.path(), AdaptiveMode::Force, 4, 256 << 20);
        long(&forced);
        let query = forced.sql(sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        query.collect().await.unwrap();
        let measured = query.keys();
        assert!(
            measured.iter().any(|key| key.table == "l" && key.columns == ["k"] && key.rows == 3000),
            "{measured:?}"
        );
        let distinct = measured.iter().find(|key| key.table == "l").unwrap().distinct;
        assert!((180..220).contains(&distinct), "{measured:?}");
        // As many rows as are worth it, so many of which have one key.
        let past = |share: f64| -> Vec<KeyRecord> {
            let heavy = vec![HeavyKey { key: Some(vec!["7".to_owned()]), share }];
            measured.iter().cloned().map(|key| KeyRecord { rows: 1_000_000, heavy: heavy.clone(), ..key }).collect()
        };
        let on = AdaptiveSettings::default();
        let (boundaries, changes) = with_past(folder.path(), sql, past(0.5), on.clone()).await;
        assert!(boundaries.len() == 1 && boundaries[0].contains("known from run"), "{boundaries:?}");
        let begins = |change: &Adaptation| match (&change.kind, &change.because) {
            (AdaptationKind::BeginWithSplit { what: of }, AdaptationReason::KnownKey { percent: 50, columns, .. }) => {
                of == what && columns == &["l.k"]
            }
            _ => false,
        };
        assert!(changes.iter().filter(|change| begins(change)).count() == 1, "{changes:#?}");
        let off = AdaptiveSettings { known_keys: false, ..on.clone() };
        assert!(with_past(folder.path(), sql, past(0.5), off.clone()).await.0.is_empty());
        assert!(with_past(folder.path(), sql, past(0.1), on.clone()).await.0.is_empty());
        assert!(with_past(folder.path(), sql, Vec::new(), on.clone()).await.0.is_empty());
        // Large enough to look for heavy keys, were it not known that there is none.
        let large = AdaptiveSettings { min_rows: 100, ..on };
        let (boundaries, changes) = with_past(folder.path(), sql, past(0.01), large.clone()).await;
        let left = |change: &Adaptation| matches!(&change.kind, AdaptationKind::LeaveOut { what: of } if of == what);
        if what.starts_with("window") {
            // Its input is sorted in buckets, heavy keys or not; on two slots too.
            assert!(boundaries.len() == 1 && !changes.iter().any(left), "{boundaries:?} {changes:#?}");
        } else {
            assert!(boundaries.is_empty(), "{boundaries:?}");
            assert!(changes.len() == 1 && left(&changes[0]), "{changes:#?}");
        }
        for (keys, settings) in [
            (past(0.1), large.clone()),
            (Vec::new(), large.clone()),
            (past(0.01), AdaptiveSettings { known_keys: false, ..large.clone() }),
        ] {
            let (boundaries, changes) = with_past(folder.path(), sql, keys, settings).await;
            assert!(boundaries.len() == 1 && !boundaries[0].contains("known from run"), "{boundaries:?}");
            assert!(!changes.iter().any(left), "{changes:#?}");
        }
        if what.starts_with("join") {
            let one = past(0.01).split_off(1);
            assert_eq!(with_past(folder.path(), sql, one, large).await.0.len(), 1, "of one input nothing is known");
        }
    }
}

/// Which joins are run with the keys of their smaller input, `r`: those that give no row for a row of the other one without a match.
#[tokio::test]
async fn the_keys_of_a_finished_input_keep_rows_out_of_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let texts = |i: i64| Some(["a", "b", "c"][i as usize % 3].to_owned());
    let null = |i: i64| (i % 7 > 0).then_some(i);
    let large = Table((0..900).map(|i| (null(i), texts(i), i)).collect());
    let small = |keys: std::ops::Range<i64>| Table(keys.map(|i| (null(i), texts(1), i)).collect());
    let cases = [
        // Few keys are listed, more have a range; so has text.
        (small(300..320), "l.k = r.k", Some(17), 17),
        (small(200..500), "l.k = r.k", None, 257),
        (small(0..20), "l.t = r.t", None, 300),
        (small(200..500), "l.k = r.k AND l.t = r.t", None, 86),
    ];
    for (small, on, listed, rows_left) in cases {
        let plain = session(folder.path(), AdaptiveMode::Off, 3, 256 << 20);
        let forced = session(folder.path(), AdaptiveMode::Force, 3, 256 << 20);
        let off = Session::new(SessionConfig {
            slots: Some(3),
            spill_dir: folder.path().to_owned(),
            adaptive: AdaptiveSettings { mode: AdaptiveMode::Force, push_keys: false, ..AdaptiveSettings::default() },
            ..SessionConfig::default()
        })
        .unwrap();
        for session in [&plain, &forced, &off] {
            register(session, &[large.clone(), small.clone(), Table(Vec::new())]);
        }
        let pushed = |query: &crate::PreparedQuery| -> Vec<(Option<u32>, u64)> {
            let pushed = |a: Adaptation| match a.kind {
                AdaptationKind::PushKeys { listed, rows, .. } => Some((listed, rows)),
                _ => None,
            };
            query.adaptations().into_iter().filter_map(pushed).collect()
        };
        for join in JOINS {
            let sql = format!("SELECT * FROM l {join} JOIN r ON {on}");
            let query = forced.sql(&sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
            assert_eq!(sorted(&query.collect().await.unwrap()), rows(&plain, &sql).await, "{sql}");
            let may = !matches!(join, "LEFT" | "FULL" | "LEFT ANTI");
            assert_eq!(pushed(&query), if may { vec![(listed, rows_left)] } else { Vec::new() }, "{sql}");
            // What was cut is no evidence of the table; the join is what it is.
            let nodes = query.observe().nodes;
            let cut = |node: &&&NodeRecord| matches!(node.completeness, Completeness::ReducedBy(_));
            let readers: Vec<_> = nodes.iter().filter(|node| node.operator == "ExchangeReaderExec").collect();
            assert_eq!(readers.iter().filter(cut).count(), usize::from(may), "{sql}: {nodes:#?}");
            let joins: Vec<_> = nodes.iter().filter(|node| node.operator.contains("JoinExec")).collect();
            assert!(!joins.is_empty() && joins.iter().all(|join| join.completeness == Completeness::Complete), "{sql}");
            let query = off.sql(&sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
            query.collect().await.unwrap();
            assert!(pushed(&query).is_empty(), "{sql}");
        }
    }
}

/// Where the keys of a finished input go: to the leaves that they are columns of, and past nothing that would change a row.
#[tokio::test]
async fn keys_are_pushed_to_leaves_that_have_them_as_columns() {
    let folder = tempfile::tempdir().unwrap();
    let rows_of = |keys: std::ops::Range<i64>| Table(keys.map(|i| (Some(i), Some("a".to_owned()), i)).collect());
    let tables = [rows_of(0..900), rows_of(300..320), rows_of(0..400)];
    let plain = session(folder.path(), AdaptiveMode::Off, 3, 256 << 20);
    // As it is written.
    let forced = Session::new(SessionConfig {
        slots: Some(3),
        spill_dir: folder.path().to_owned(),
        adaptive: AdaptiveSettings { mode: AdaptiveMode::Force, reorder: false, ..AdaptiveSettings::default() },
        ..SessionConfig::default()
    })
    .unwrap();
    register(&plain, &tables);
    register(&forced, &tables);
    for (input, key, pushed) in [
        ("(SELECT k AS x, v FROM l WHERE v % 3 > 0) q", "x", true),
        ("(SELECT k, sum(v) AS v FROM l GROUP BY k) q", "q.k", true),
        ("(SELECT DISTINCT k, t FROM l) q", "q.k", true),
        ("(SELECT k, v FROM l UNION ALL SELECT v, k FROM s) q", "q.k", true),
        ("(l a JOIN s b ON a.v = b.v)", "a.k", true),
        ("(l a JOIN s b ON a.v = b.v)", "b.k", true),
        // Of a key that is computed, where a row may fail that is filtered out, or be another one.
        ("(SELECT 100000 / v AS k FROM l WHERE v <> 0) q", "q.k", false),
        ("(SELECT k + 1 AS k, v FROM l) q", "q.k", false),
        ("(SELECT k, v FROM l ORDER BY v LIMIT 500) q", "q.k", false),
        ("(SELECT k, v, rank() OVER (PARTITION BY t ORDER BY v) AS n FROM l) q", "q.k", false),
        ("(SELECT k, t, sum(v) AS v FROM l GROUP BY ROLLUP (k, t)) q", "q.k", false),
    ] {
        let sql = format!("SELECT * FROM {input} JOIN r ON {key} = r.k");
        let query = forced.sql(&sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
        assert_eq!(sorted(&query.collect().await.unwrap()), rows(&plain, &sql).await, "{sql}");
        let by_r = format!("{key} = r.k").replace("x =", "q.x =");
        let pushes = |a: &Adaptation| matches!(&a.kind, AdaptationKind::PushKeys { on, .. } if on.contains(&by_r));
        let adaptations = query.adaptations();
        assert_eq!(adaptations.iter().any(pushes), pushed, "{sql}: {adaptations:#?}");
        // A join of two exchanges is divided, filter or not.
        let divided = adaptations.iter().filter(|a| matches!(a.kind, AdaptationKind::DivideJoin { .. })).count();
        assert_eq!(divided, 1 + usize::from(sql.contains("JOIN s")), "{sql}: {adaptations:#?}");
    }
}
