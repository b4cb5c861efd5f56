//! Every adaptation × every type of join, with NULL keys and empty inputs, on random data: the rows are those of the plain plan.
//!
//! A case is one query in one way; what happens to any join of it counts for the type that it is about. Unasked, a few fixed ones of each
//! way and type run; `SPARKLET_TEST_CASES=4000` draws so many others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sparklet_history::{AdaptationKind, NoEvidence};
use sparklet_optimizer::{Cardinalities, candidates};

use super::AdaptiveMode;
use super::boundary::Reach;
use super::join::AdaptiveJoinExec;
use super::known::tests::SCOPE;
use super::running::Running;
use super::tests::{JOINS, Stages, Table, asked_cases, register, rows, run_stages, session, sorted, table};

/// `EXISTS` beside another condition, and joins of SQL.
const TYPES: [&str; 9] = [JOINS[0], JOINS[1], JOINS[2], JOINS[3], JOINS[4], JOINS[5], JOINS[6], JOINS[7], "MARK"];

/// Cases of each way and type unless more are asked for.
const FEW: u32 = 2;

const SLOTS: [usize; 3] = [2, 3, 5];

/// How a query is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Both inputs of all joins are kept.
    Staged,
    /// One of them.
    HalfStaged,
    /// Build sides do not fit.
    WithoutMemory,
    /// As after an attempt that ran out of memory.
    AfterExhaustion,
    /// Filtered inputs may be smaller than expected.
    Measured,
    /// Both inputs are one aggregate.
    Shared,
    /// In all orders, and with all rewrites, that are offered.
    Reordered,
    /// The order may change when an input is finished.
    ReorderedLater,
}

const WAYS: [Way; 8] = [
    Way::Staged,
    Way::HalfStaged,
    Way::WithoutMemory,
    Way::AfterExhaustion,
    Way::Measured,
    Way::Shared,
    Way::Reordered,
    Way::ReorderedLater,
];

/// What may happen to a query, or be so of its inputs; with the types of joins that it does not happen to, or seldom.
const KINDS: [(&str, &[&str]); 15] = [
    ("NULL keys on both sides", &[]),
    ("a side without rows", &[]),
    ("a side without keys", &[]),
    ("hot bucket cut", &[]),
    ("sides swapped", &[]),
    ("buckets put together", &[]),
    ("divided again or sorted", &[]),
    ("broadcast", &[]),
    ("not run", &["FULL"]),
    ("keys pushed", &["FULL", "MARK"]),
    ("shared", &[]),
    ("groups cut", &[]),
    ("window cut", &[]),
    ("reordered", &["LEFT", "RIGHT", "FULL", "MARK"]),
    ("reordered in mid-run", &["LEFT", "RIGHT", "FULL", "MARK"]),
];

/// What is drawn for a case.
#[derive(Debug, Clone)]
struct Drawn {
    tables: [Table; 3],
    /// Index into [`SLOTS`].
    slots: usize,
    /// Which query.
    shape: usize,
    on: &'static str,
    /// Rows of a filtered input have a larger value.
    above: i64,
    memory: u64,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let on = prop::sample::select(vec![
        "l.k = r.k",
        "l.k = r.k AND l.t = r.t",
        "l.k = r.k AND l.v < r.v",
        "l.t = r.t",
        "l.k IS NOT DISTINCT FROM r.k",
    ]);
    let memory = prop::sample::select(vec![2_000, 40_000, 400_000, 256 << 20]);
    let tables = [input(), input(), input()];
    (tables, 0..SLOTS.len(), 0usize..6, on, -25i64..25, memory)
        .prop_map(|(tables, slots, shape, on, above, memory)| Drawn { tables, slots, shape, on, above, memory })
}

/// Now and then without rows or keys.
fn input() -> impl Strategy<Value = Table> {
    prop_oneof![
        8 => table(),
        1 => Just(Table(Vec::new())),
        1 => table().prop_map(|Table(rows)| Table(rows.into_iter().map(|(_, text, v)| (None, text, v)).collect())),
    ]
}

impl Drawn {
    /// A query with a join of this type.
    fn sql(&self, way: Way, join: &str) -> String {
        let Self { shape, on, above, .. } = self;
        let (with, left, right) = match way {
            Way::Shared => (
                "WITH g AS (SELECT k, t, sum(v) AS v, count(*) AS f FROM l GROUP BY k, t) ",
                "g".to_owned(),
                "g".to_owned(),
            ),
            Way::Measured => {
                ("", format!("(SELECT * FROM l WHERE v > {above})"), format!("(SELECT * FROM r WHERE v < {above})"))
            }
            _ => ("", "l".to_owned(), "r".to_owned()),
        };
        let from = match join {
            "MARK" => {
                format!("(SELECT * FROM {left} l WHERE EXISTS (SELECT 1 FROM {right} r WHERE {on}) OR l.v > {above}) l")
            }
            _ => format!("{left} l {join} JOIN {right} r ON {on}"),
        };
        let side = if matches!(join, "RIGHT" | "RIGHT SEMI" | "RIGHT ANTI") { "r" } else { "l" };
        let query = match shape {
            // Few rows of `s` make it the one to be joined first.
            _ if matches!(way, Way::Reordered | Way::ReorderedLater) => {
                format!("SELECT {side}.k, {side}.v, s.k FROM {from} JOIN s ON {side}.v = s.v")
            }
            0 => format!("SELECT * FROM {from}"),
            // What relies on the partitioning of the join.
            1 => format!("SELECT {side}.k, count(*), sum({side}.v) FROM {from} GROUP BY {side}.k"),
            2 => format!("SELECT {side}.k, {side}.v, s.v FROM {from} JOIN s ON {side}.k = s.k"),
            3 => format!("SELECT {side}.k, s.k, s.t FROM {from} FULL JOIN s ON {side}.k = s.k"),
            4 => format!(
                "SELECT {side}.k, count(DISTINCT {side}.v), count(DISTINCT {side}.t) FROM {from} GROUP BY {side}.k"
            ),
            _ => {
                format!("SELECT {side}.k, {side}.v, rank() OVER (PARTITION BY {side}.k ORDER BY {side}.v) FROM {from}")
            }
        };
        format!("{with}{query}")
    }

    /// Counts what its inputs are like.
    fn looks(&self, join: &'static str, seen: &mut Seen) {
        let [Table(l), Table(r), _] = &self.tables;
        let without_keys =
            |rows: &[(Option<i64>, Option<String>, i64)]| !rows.is_empty() && rows.iter().all(|row| row.0.is_none());
        let looks = [
            ("NULL keys on both sides", [l, r].into_iter().all(|rows| rows.iter().any(|row| row.0.is_none()))),
            ("a side without rows", l.is_empty() || r.is_empty()),
            ("a side without keys", without_keys(l) || without_keys(r)),
        ];
        looks.into_iter().filter(|look| look.1).for_each(|(look, _)| count(seen, look, join));
    }

    fn stages(&self, way: Way) -> Stages {
        let stages = Stages { reach: Reach::EveryJoin, sides: 2, memory: 256 << 20, shared: way == Way::Shared };
        match way {
            Way::HalfStaged => Stages { sides: 1, ..stages },
            Way::WithoutMemory => Stages { memory: 4000, ..stages },
            Way::AfterExhaustion => Stages { reach: Reach::AfterExhaustion, memory: self.memory, ..stages },
            Way::Measured => Stages { reach: Reach::Worthwhile, ..stages },
            Way::Staged | Way::Shared | Way::Reordered | Way::ReorderedLater => stages,
        }
    }
}

/// How often what happened, by kind and type of join.
type Seen = BTreeMap<&'static str, BTreeMap<&'static str, u32>>;

fn count(seen: &mut Seen, kind: &'static str, join: &'static str) {
    *seen.entry(kind).or_default().entry(join).or_default() += 1;
}

/// Counts what happened in a run.
fn happened(running: &Running, join: &'static str, seen: &mut Seen) {
    for adaptation in running.adaptations() {
        match adaptation.kind {
            AdaptationKind::DivideJoin { split_buckets, swapped_units, oversized_units, .. } => {
                let parts = [
                    ("hot bucket cut", split_buckets),
                    ("sides swapped", swapped_units),
                    ("divided again or sorted", oversized_units),
                ];
                parts.into_iter().filter(|(_, units)| *units > 0).for_each(|(kind, _)| count(seen, kind, join));
            }
            AdaptationKind::Broadcast { .. } => count(seen, "broadcast", join),
            AdaptationKind::SkipEmpty { .. } => count(seen, "not run", join),
            AdaptationKind::PushKeys { .. } => count(seen, "keys pushed", join),
            AdaptationKind::ShareSubplan { .. } => count(seen, "shared", join),
            AdaptationKind::SplitGroups { .. } => count(seen, "groups cut", join),
            AdaptationKind::SplitWindow { .. } => count(seen, "window cut", join),
            AdaptationKind::ReorderJoins { .. } => count(seen, "reordered in mid-run", join),
            _ => {}
        }
    }
    if running.plans().iter().any(packs) {
        count(seen, "buckets put together", join);
    }
}

/// True if a join of `plan` takes several buckets at once.
fn packs(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let units = AdaptiveJoinExec::of(plan).map(|join| &join.division().units);
    units.is_some_and(|units| units.iter().any(|unit| unit.build.len() > 1 || unit.probe.iter().any(|p| p.len() > 1)))
        || plan.children().into_iter().any(packs)
}

#[test]
fn every_adaptation_of_every_join_gives_the_rows_of_the_plain_plan() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let asked = asked_cases();
    let each = asked.map_or(FEW, |cases| cases.div_ceil((WAYS.len() * TYPES.len()) as u32));
    let mut seed = 0;
    let seen = Mutex::new(Seen::new());
    for way in WAYS {
        let sessions = SLOTS.map(|slots| {
            [AdaptiveMode::Off, AdaptiveMode::Force].map(|mode| session(folder.path(), mode, slots, 256 << 20))
        });
        for join in TYPES {
            let config = Config { cases: each, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
            seed += 1;
            let mut runner = match asked {
                Some(_) => TestRunner::new(config),
                None => TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])),
            };
            let outcome = runner.run(&drawn(), |mut case| {
                if matches!(way, Way::Reordered | Way::ReorderedLater) {
                    case.tables[2].0.truncate(3);
                }
                let [plain, forced] = &sessions[case.slots];
                register(plain, &case.tables);
                register(forced, &case.tables);
                runtime.block_on(async {
                    let sql = case.sql(way, join);
                    case.looks(join, &mut seen.lock().unwrap());
                    let expected = rows(plain, &sql).await;
                    let mut state = forced.context().state();
                    if way == Way::Measured {
                        let mut config = state.config().clone();
                        let optimizer = &mut config.options_mut().optimizer;
                        optimizer.hash_join_single_partition_threshold = 300;
                        optimizer.hash_join_single_partition_threshold_rows = 0;
                        state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
                    }
                    let frame = forced.sql(&sql, &BTreeMap::new()).await.unwrap();
                    let logical = state.optimize(frame.logical_plan()).unwrap();
                    let plans = match way {
                        Way::Reordered => {
                            let sources = forced.sources();
                            let cardinalities = Cardinalities::new(&NoEvidence, SCOPE, sources.as_ref());
                            candidates(&logical, &cardinalities).into_iter().map(|other| other.plan).collect()
                        }
                        _ => vec![logical],
                    };
                    for plan in plans {
                        let shown = plan.display_indent().to_string();
                        let ran = run_stages(forced, &state, plan, case.stages(way)).await;
                        let (batches, running) = ran.unwrap_or_else(|e| panic!("{way:?}: {sql}: {e}"));
                        prop_assert_eq!(&sorted(&batches), &expected, "{:?}: {}\n{}", way, sql, shown);
                        let mut seen = seen.lock().unwrap();
                        happened(&running, join, &mut seen);
                        if way == Way::Reordered {
                            count(&mut seen, "reordered", join);
                        }
                    }
                    prop_assert_eq!(forced.memory().reserved, 0, "memory that was not given back");
                    Ok(())
                })
            });
            outcome.unwrap_or_else(|e| panic!("{way:?}, {join}: {e}"));
        }
    }
    let seen = seen.into_inner().unwrap();
    println!("{} cases: {seen:#?}", each as usize * WAYS.len() * TYPES.len());
    for (kind, never) in KINDS {
        let by_type = seen.get(kind).cloned().unwrap_or_default();
        assert!(!by_type.is_empty(), "{kind}: in no case");
        if each >= 30 {
            let missed: Vec<_> =
                TYPES.iter().filter(|&join| !by_type.contains_key(join) && !never.contains(join)).collect();
            assert!(missed.is_empty(), "{kind}: not with {missed:?}");
        }
    }
}
