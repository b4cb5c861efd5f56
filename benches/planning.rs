//! Planning through a sparklet session beside plain DataFusion, on a join of six tables, and the observation that follows a run.
#![expect(clippy::unwrap_used, reason = "a bench that cannot set itself up has nothing to measure")]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use datafusion::prelude::{SessionConfig as PlainConfig, SessionContext};
use sparklet::prelude::*;

const SQL: &str = "SELECT r.name, count(*) AS n, sum(f.v) AS v \
    FROM f JOIN d1 ON f.k1 = d1.k JOIN d2 ON f.k2 = d2.k JOIN d3 ON d2.k3 = d3.k JOIN r ON d3.kr = r.k \
    LEFT JOIN d1 e ON e.k = f.k2 WHERE f.v % 3 = 1 AND d1.name <> 'x' GROUP BY r.name ORDER BY v DESC LIMIT 10";

const TABLES: [&str; 5] = [
    "CREATE TABLE f AS SELECT value % 100 AS k1, value % 50 AS k2, value AS v FROM range(0, 20000)",
    "CREATE TABLE d1 AS SELECT value AS k, 'name ' || value AS name FROM range(0, 100)",
    "CREATE TABLE d2 AS SELECT value AS k, value % 20 AS k3 FROM range(0, 50)",
    "CREATE TABLE d3 AS SELECT value AS k, value % 5 AS kr FROM range(0, 20)",
    "CREATE TABLE r AS SELECT value AS k, 'region ' || value AS name FROM range(0, 5)",
];

fn planning(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let spill = tempfile::tempdir().unwrap();
    let config = SessionConfig { slots: Some(2), spill_dir: spill.path().to_owned(), ..SessionConfig::default() };
    let session = Session::new(config).unwrap();
    let plain = SessionContext::new_with_config(PlainConfig::new().with_target_partitions(2));
    let none = BTreeMap::new();
    runtime.block_on(async {
        for table in TABLES {
            session.sql(table, &none).await.unwrap().collect().await.unwrap();
            plain.sql(table).await.unwrap().collect().await.unwrap();
        }
    });
    let mut group = criterion.benchmark_group("planning");
    group.bench_function("plain_datafusion", |b| {
        b.to_async(&runtime).iter(|| async { plain.sql(SQL).await.unwrap().create_physical_plan().await.unwrap() });
    });
    group.bench_function("sparklet", |b| {
        b.to_async(&runtime).iter(|| async { session.sql(SQL, &none).await.unwrap().prepare().await.unwrap() });
    });
    let prepared = runtime.block_on(async {
        let prepared = session.sql(SQL, &none).await.unwrap().prepare().await.unwrap();
        prepared.collect().await.unwrap();
        prepared
    });
    group.bench_function("observe", |b| b.iter(|| black_box(prepared.observe())));
    group.finish();
}

criterion_group!(benches, planning);
criterion_main!(benches);
