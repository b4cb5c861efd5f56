//! Canonical texts as a reader sees them, and plans that are hard to write down.

use insta::assert_snapshot;

use super::pairs::{session, shop};
use super::support::runtime;
use crate::{explain_text, fingerprint_logical, fingerprint_physical};

/// Planning deep statements takes a large stack in DataFusion's debug build.
fn on_a_large_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(512 << 20).spawn(work).unwrap().join().unwrap()
}

fn texts(sql: &str) -> [String; 2] {
    let sql = sql.to_owned();
    on_a_large_stack(move || {
        let tables = shop();
        runtime().block_on(async {
            let session = session(&tables).await;
            let id = session.identity(&sql).await.unwrap();
            let (logical, physical) = session.fingerprints(&sql).await;
            for (id, text) in logical.texts.iter().chain(&physical.texts) {
                assert_eq!(*id, sparklet_history::Fingerprint::of(text), "a fingerprint is the hash of its text");
            }
            [id.fingerprint, id.template].map(|id| explain_text(id, &physical.texts))
        })
    })
}

#[test]
fn a_text_can_be_read() {
    let [exact, blind] = texts(
        "select n.name, sum(o.total * 2) from orders o join customers c on o.customer = c.id join nations n on c.nation = n.id \
         where o.day between date '2024-01-01' and date '2024-12-31' and c.name like 'a%' and n.id in (3, 1, 2, 7) \
         and not exists (select 1 from items i where i.order_id = o.id and i.price > 5) \
         group by n.name having count(*) > 10 order by 2 desc limit 3",
    );
    assert_snapshot!("exact", exact);
    assert_snapshot!("template", blind);
}

#[test]
fn occurrences_of_one_table_are_told_apart() {
    let [exact, _] = texts(
        "select 1 from edges a, edges b left join orders o on b.dst = o.id and o.total > 1 where a.dst = b.src and a.src = 7",
    );
    assert_snapshot!("self_join", exact);
}

#[test]
fn names_cannot_forge_a_text() {
    // A literal and a table name that look like syntax stay within their quotes.
    let [exact, _] = texts("select * from customers where name = E'x''\n  where id = 5:Int64'");
    assert_eq!(exact.lines().count(), 3, "{exact}");
}

#[test]
fn shared_sub_expressions_stay_small() {
    // Four times in each of twenty levels: 4²⁰ nodes if written out.
    let mut sql = "select id as x from orders".to_owned();
    for _ in 0..20 {
        sql = format!("select x + x + x + x as x from ({sql})");
    }
    let [exact, _] = texts(&format!("select x, count(*) from ({sql}) group by x"));
    assert!(exact.len() < 20_000, "{} bytes", exact.len());
}

#[test]
fn long_disjunctions_are_lowered_on_a_small_stack() {
    let tables = shop();
    let many: Vec<String> = (0..1000).map(|i| format!("(id = {i} and customer > {i})")).collect();
    let sql = format!("select * from orders where {}", many.join(" or "));
    // Planned on a large stack; ours gets a small one.
    let text = on_a_large_stack(move || {
        let runtime = runtime();
        let (logical, physical, sources) = runtime.block_on(async {
            let session = session(&tables).await;
            let (logical, physical) = session.plans(&sql).await;
            (logical, physical, session.sources)
        });
        std::thread::scope(|scope| {
            let small = std::thread::Builder::new().stack_size(1 << 20).spawn_scoped(scope, || {
                let started = std::time::Instant::now();
                let logical = fingerprint_logical(&logical, &sources);
                let physical = fingerprint_physical(&physical, &sources);
                assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
                assert_eq!(logical.nodes[0], physical.nodes[0]);
                logical.texts[&logical.nodes[0].unwrap().fingerprint].clone()
            });
            small.unwrap().join().unwrap()
        })
    });
    assert!(text.contains("where #"), "a huge condition stands as a digest: {}", text.len());
}

#[test]
fn many_symmetric_occurrences_end_in_time() {
    let from: Vec<String> = (0..9).map(|i| format!("edges t{i}")).collect();
    let keys: Vec<String> = (1..9).map(|i| format!("t0.src = t{i}.src")).collect();
    let started = std::time::Instant::now();
    let [exact, _] = texts(&format!("select 1 from {} where {}", from.join(", "), keys.join(" and ")));
    assert!(exact.contains("edges#9"));
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_node_reads_what_its_scalar_subqueries_read() {
    use datafusion::arrow::array::{Int64Array, RecordBatch};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::prelude::SessionConfig;

    let mut tables = super::Tables::new();
    let schema = std::sync::Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
    for name in ["a", "b", "c"] {
        let column = std::sync::Arc::new((0..50).collect::<Int64Array>()) as _;
        let batch = RecordBatch::try_new(std::sync::Arc::clone(&schema), vec![column]).unwrap();
        tables.add(name, std::sync::Arc::clone(&schema), [batch].into_iter());
    }
    super::runtime().block_on(async {
        let session = tables.session(SessionConfig::new().with_target_partitions(2)).await;
        let (logical, physical) = session
            .fingerprints("SELECT k, count(*) FROM a WHERE k > (SELECT avg(k) FROM b WHERE k < (SELECT avg(k) FROM c)) GROUP BY k")
            .await;
        let read = |reads: crate::Reads, sources: &[crate::SourceId]| {
            let mut names: Vec<String> = reads.positions().unwrap().map(|at| sources[at].name().to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(read(logical.reads[0], &logical.sources), ["a", "b", "c"]);
        // The operator that runs the subqueries, and what it runs them for.
        for at in [0, 1] {
            assert_eq!(read(physical.reads[at], &physical.sources), ["a", "b", "c"], "{at}");
        }
    });
}
