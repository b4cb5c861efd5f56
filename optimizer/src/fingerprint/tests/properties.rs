//! Random join graphs, self-joins included: every way of writing one has the same fingerprint, and a changed one another.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::pairs::{session, shop};
use super::support::runtime;

/// A join graph over `edges` and `orders`: occurrences (table, filter literal) and key edges between them.
#[derive(Debug, Clone)]
struct Graph {
    occurrences: Vec<(bool, Option<u8>)>, // `<>`, since DataFusion folds contradictions of equal keys to no rows
    /// Occurrence, its column, earlier occurrence, its column.
    keys: Vec<(usize, bool, usize, bool)>,
}

fn graphs() -> impl Strategy<Value = Graph> {
    (2usize..7).prop_flat_map(|n| {
        let occurrences = prop::collection::vec((any::<bool>(), prop::option::weighted(0.4, 0u8..2)), n);
        let tree = (1..n).map(|i| (Just(i), any::<bool>(), 0..i, any::<bool>())).collect::<Vec<_>>();
        let more = prop::collection::vec((1..n, any::<bool>(), any::<prop::sample::Index>(), any::<bool>()), 0..2);
        (occurrences, tree, more).prop_map(|(occurrences, mut keys, more)| {
            keys.extend(more.into_iter().map(|(i, a, j, b)| (i, a, j.index(i), b)));
            Graph { occurrences, keys }
        })
    })
}

fn column(graph: &Graph, occurrence: usize, second: bool) -> &'static str {
    match (graph.occurrences[occurrence].0, second) {
        (true, false) => "src",
        (true, true) => "dst",
        (false, false) => "id",
        (false, true) => "customer",
    }
}

/// The graph as a statement: occurrences named and joined in the order of `order`, conditions in that of `shuffle`.
fn sql(graph: &Graph, order: &[usize], shuffle: &[usize]) -> String {
    let alias = |i: usize| format!("t{}", order.iter().position(|&o| o == i).unwrap());
    let tables: Vec<String> = order
        .iter()
        .map(|&i| format!("{} as {}", if graph.occurrences[i].0 { "edges" } else { "orders" }, alias(i)))
        .collect();
    let mut conditions: Vec<String> = graph
        .keys
        .iter()
        .enumerate()
        .map(|(at, &(i, a, j, b))| {
            let (left, right) =
                (format!("{}.{}", alias(i), column(graph, i, a)), format!("{}.{}", alias(j), column(graph, j, b)));
            if shuffle[at % shuffle.len()].is_multiple_of(2) {
                format!("{left} = {right}")
            } else {
                format!("{right} = {left}")
            }
        })
        .collect();
    conditions.extend(graph.occurrences.iter().enumerate().filter_map(|(i, (_, filter))| {
        filter.map(|literal| format!("{}.{} <> {literal}", alias(i), column(graph, i, false)))
    }));
    let mut sorted: Vec<(usize, String)> =
        conditions.into_iter().enumerate().map(|(i, c)| (shuffle[i % shuffle.len()] * 31 + i * 7 % 13, c)).collect();
    sorted.sort();
    let conditions: Vec<String> = sorted.into_iter().map(|(_, c)| c).collect();
    format!(
        "select count(*) as n, t0.{} from {} where {} group by 2",
        column(graph, order[0], true),
        tables.join(", "),
        conditions.join(" and ")
    )
}

fn joined(sql: &str) -> String {
    // The rows of the join alone, without the grouping by one occurrence.
    format!("select 1 {}", &sql[sql.find("from").unwrap()..sql.rfind(" group by").unwrap()])
}

#[test]
fn every_order_of_a_join_graph_has_one_fingerprint() {
    let tables = shop();
    let runtime = runtime();
    let session = runtime.block_on(session(&tables));
    let cases = (graphs(), any::<prop::sample::Index>()).prop_flat_map(|(graph, _)| {
        let n = graph.occurrences.len();
        let order = Just((0..n).collect::<Vec<_>>()).prop_shuffle();
        (Just(graph), order, prop::collection::vec(0usize..100, 12))
    });
    let mut runner = TestRunner::new(Config { cases: 96, ..Config::default() });
    runner
        .run(&cases, |(graph, order, shuffle)| {
            let plain: Vec<usize> = (0..order.len()).collect();
            let written = [sql(&graph, &plain, &[0]), sql(&graph, &order, &shuffle)].map(|sql| joined(&sql));
            let ids = written.each_ref().map(|sql| runtime.block_on(session.identity(sql)));
            prop_assert_eq!(ids[0], ids[1], "{} and {}", &written[0], &written[1]);
            prop_assert!(ids[0].is_some());
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_change_of_a_join_graph_changes_the_fingerprint() {
    let tables = shop();
    let runtime = runtime();
    let session = runtime.block_on(session(&tables));
    let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
    runner
        .run(&(graphs(), any::<prop::sample::Index>()), |(graph, at)| {
            let identity = |graph: &Graph| {
                let plain: Vec<usize> = (0..graph.occurrences.len()).collect();
                let sql = joined(&sql(graph, &plain, &[0]));
                runtime.block_on(session.identity(&sql)).ok_or_else(|| TestCaseError::fail(sql))
            };
            let before = identity(&graph)?;
            // Another literal in one occurrence: the others are the same, so no automorphism can hide it.
            let mut other = graph.clone();
            let i = at.index(other.occurrences.len());
            other.occurrences[i].1 = Some(77);
            let after = identity(&other)?;
            prop_assert_ne!(before.fingerprint, after.fingerprint);
            let before_filter = graph.occurrences[i].1;
            // The template changes with the shape only; two conditions on equal keys that become one by equal literals change the shape.
            let same = graph.occurrences.iter().filter(|o| o.1 == before_filter).count();
            if before_filter.is_none() {
                prop_assert_ne!(before.template, after.template);
            } else if same == 1 {
                prop_assert_eq!(before.template, after.template);
            }
            // One occurrence more, hanging from one that is there.
            let mut more = graph.clone();
            more.occurrences.push((true, None));
            more.keys.push((more.occurrences.len() - 1, false, i, true));
            let after = identity(&more)?;
            prop_assert_ne!(before.fingerprint, after.fingerprint);
            prop_assert_ne!(before.template, after.template);
            Ok(())
        })
        .unwrap();
}
