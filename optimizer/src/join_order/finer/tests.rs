//! Aggregates made of the groups of the finest give the rows of the plan as written: random tables (NULLs, no rows), random levels, through plain
//! DataFusion.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sparklet_history::{NoEvidence, Scope};

use super::super::tests::{cases, context, optimized, rows, tables};
use super::*;
use crate::candidates::narrowed;
use crate::source::SourceMap;

const KEYS: [&str; 4] = ["p.a", "p.s", "coalesce(p.b, 7) % 2", "p.c"];

#[test]
fn aggregates_of_finer_groups_give_the_same_rows() {
    let runtime = crate::fingerprint::tests::runtime();
    let mut runner = TestRunner::new(Config { cases: cases(), ..Config::default() });
    let sources = SourceMap::default();
    let made = std::cell::Cell::new(0);
    let (levels, functions) = (prop::collection::vec(0u8..16, 2..5), prop::collection::vec(0u8..8, 1..4));
    runner
        .run(&(tables(), levels, functions, 0u8..4, 0u8..3), |(tables, levels, functions, from, around)| {
            runtime.block_on(async {
                let context = context(&tables);
                let calls = functions.iter().map(|which| match which {
                    0 => "count(*)",
                    1 => "count(p.b)",
                    2 => "min(p.s)",
                    3 => "max(p.c) filter (where p.b > 1)",
                    4 => "avg(p.b)",
                    5 => "avg(cast(p.c as decimal(7, 2)))",
                    6 => "sum(case when p.a > 1 then p.b else 10 end)",
                    _ => "sum(p.b)",
                });
                let calls: Vec<String> = calls.enumerate().map(|(i, call)| format!("{call} as v{i}")).collect();
                let from = match from {
                    0 => "t0 p",
                    1 => "t0 p join t1 q on p.a = q.b",
                    2 => "t0 p join t1 q on p.a = q.b join t2 r on r.a = p.c where q.c < 4",
                    _ => "t0 p where p.b between 1 and 3",
                };
                // The first has all keys that another has, most of the time.
                let all = levels.iter().fold(0, |all, level| all | level);
                let levels = levels.iter().enumerate().map(|(i, level)| if i == 0 { all } else { *level });
                let selects: Vec<String> = levels
                    .map(|level| {
                        let has = |at: usize| level & (1 << at) != 0;
                        let keys: Vec<&str> = (0..4).filter(|&at| has(at)).map(|at| KEYS[at]).collect();
                        let columns = (0..4).map(|at| match (has(at), at) {
                            (true, _) => format!("{} as k{at}", KEYS[at]),
                            (false, 1) => format!("cast(null as varchar) as k{at}"),
                            (false, _) => format!("cast(null as bigint) as k{at}"),
                        });
                        let columns: Vec<String> = columns.chain(calls.iter().cloned()).collect();
                        let by = if keys.is_empty() { String::new() } else { format!(" group by {}", keys.join(", ")) };
                        format!("select {} from {from}{by}", columns.join(", "))
                    })
                    .collect();
                let sql = match around {
                    0 => selects.join(" union all "),
                    1 => format!("select k0, v0 from ({}) u where k0 > 0", selects.join(" union all ")),
                    _ => format!("select x.k0, y.v0 from ({}) x join ({}) y on x.k0 = y.k0", selects[0], selects[1]),
                };
                let fail = |e: &dyn std::fmt::Display| TestCaseError::fail(format!("{sql}: {e}"));
                let (logical, expected) = optimized(&context, &sql).await.map_err(|e| fail(&e))?;
                let scope = Scope { pipeline: "test", environment: "test" };
                let cardinalities = Cardinalities::new(&NoEvidence, scope, &sources);
                if let Some((finer, _)) = finer_groups_of(&logical, &cardinalities, 0.0) {
                    made.set(made.get() + 1);
                    let Some(finer) = narrowed(finer, &logical) else {
                        return Err(fail(&logical.display_indent_schema()));
                    };
                    let found = rows(&context, &finer).await.map_err(|e| fail(&e))?;
                    prop_assert_eq!(found, expected, "{}\n{}", sql, finer.display_indent());
                }
                Ok(())
            })
        })
        .unwrap();
    // Levels differ in most statements.
    assert!(made.get() * 4 > cases(), "{} of {}", made.get(), cases());
}
