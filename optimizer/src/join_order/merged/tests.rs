//! Aggregates in one pass give the rows of the plan as written: random tables, random conditions, subqueries and cross joins, through plain
//! DataFusion.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sparklet_history::{NoEvidence, Scope};

use super::super::tests::{cases, context, optimized, rows, tables};
use super::*;
use crate::candidates::narrowed;
use crate::source::SourceMap;

/// Function, column, conditions (column, kind), whether it reads a join.
type One = (u8, u8, Vec<(u8, u8)>, bool);

fn query((function, c, conditions, joined): &One) -> String {
    let column = |c: u8| ["a", "b", "c"][usize::from(c) % 3];
    let value = format!("p.{}", column(*c));
    let call = match function {
        0 => "count(*)".to_owned(),
        1 => format!("sum({value})"),
        2 => format!("avg({value}) + 1"),
        3 => format!("count(distinct {value})"),
        4 => format!("max({value}) filter (where p.b > 1)"),
        _ => format!("min({value})"),
    };
    let conditions = conditions.iter().map(|&(c, kind)| {
        let c = format!("p.{}", column(c));
        match kind {
            0 => format!("{c} = 1"),
            1 => format!("{c} between 1 and 3"),
            2 => format!("{c} is null"),
            3 => format!("({c} = 2 or p.b = 3)"),
            4 if *joined => format!("q.c < {}", kind),
            _ => format!("{c} < 4"),
        }
    });
    let conditions: Vec<String> = conditions.collect();
    let filter = if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
    let from = if *joined { "t0 p join t1 q on p.a = q.b" } else { "t0 p" };
    format!("select {call} as v from {from}{filter}")
}

#[test]
fn aggregates_in_one_pass_give_the_same_rows() {
    let runtime = crate::fingerprint::tests::runtime();
    let mut runner = TestRunner::new(Config { cases: cases(), ..Config::default() });
    let sources = SourceMap::default();
    let conditions = prop::collection::vec((0u8..3, 0u8..6), 0..3);
    let one = (0u8..6, 0u8..3, conditions, any::<bool>());
    let made = [std::cell::Cell::new(0), std::cell::Cell::new(0)];
    runner
        .run(&(tables(), prop::collection::vec(one, 2..6), any::<bool>()), |(tables, all, scalar)| {
            runtime.block_on(async {
                let context = context(&tables);
                let queries = all.iter().map(query);
                let sql = if scalar {
                    let values: Vec<String> =
                        queries.enumerate().map(|(i, query)| format!("coalesce(({query}), {i}) as v{i}")).collect();
                    format!("select x.s, {} from t2 x", values.join(", "))
                } else {
                    let from: Vec<String> = queries.enumerate().map(|(i, query)| format!("({query}) x{i}")).collect();
                    let limit = if tables[0].len() % 2 == 0 { " limit 10" } else { "" };
                    format!("select * from {}{limit}", from.join(", "))
                };
                let fail = |e: &dyn std::fmt::Display| TestCaseError::fail(format!("{sql}: {e}"));
                let (logical, expected) = optimized(&context, &sql).await.map_err(|e| fail(&e))?;
                let scope = Scope { pipeline: "test", environment: "test" };
                let cardinalities = Cardinalities::new(&NoEvidence, scope, &sources);
                if let Some((merged, _)) = merge_aggregates_of(&logical, &cardinalities, 0.0) {
                    let kind = &made[usize::from(scalar)];
                    kind.set(kind.get() + 1);
                    let shown = merged.display_indent_schema().to_string();
                    let Some(merged) = narrowed(merged, &logical) else {
                        return Err(TestCaseError::fail(format!(
                            "{sql}\n{}\n{shown}",
                            logical.display_indent_schema()
                        )));
                    };
                    let got = rows(&context, &merged).await;
                    prop_assert_eq!(
                        got.as_ref(),
                        Ok(&expected),
                        "{}\n{}\n{}",
                        sql,
                        logical.display_indent(),
                        merged.display_indent()
                    );
                }
                Ok(())
            })
        })
        .unwrap();
    assert!(made.iter().all(|made| made.get() > 0), "{made:?}");
}

#[tokio::test]
async fn subqueries_become_one_scan() {
    let context = context(&[vec![(Some(1), Some(2), Some(3))], vec![], vec![], vec![], vec![]]);
    let sql = "select (select count(*) from t0 where a = 1) as n, (select avg(b) from t0 where a = 2 and c = 3) as m";
    let logical = context.state().optimize(context.sql(sql).await.unwrap().logical_plan()).unwrap();
    let sources = SourceMap::default();
    let cardinalities = Cardinalities::new(&NoEvidence, Scope { pipeline: "test", environment: "test" }, &sources);
    let (merged, notes) = merge_aggregates_of(&logical, &cardinalities, 0.0).unwrap();
    assert_eq!(notes.iter().map(|note| note.aggregates).collect::<Vec<_>>(), [2]);
    let merged = narrowed(merged, &logical).unwrap();
    let state = context.state();
    let physical = state.query_planner().create_physical_plan(&merged, &state).await.unwrap();
    let text = datafusion::physical_plan::displayable(physical.as_ref()).indent(false).to_string();
    assert_eq!(text.matches("DataSourceExec").count(), 1, "{text}");
}

#[tokio::test]
async fn distinct_values_are_counted_in_the_same_pass() {
    let context = context(&[vec![(Some(1), Some(2), Some(3))], vec![], vec![], vec![], vec![]]);
    let one = |n: i32| {
        format!(
            "(select avg(b) l{n}, count(b) n{n}, count(distinct b) d{n} from t0
              where a between {n} and {n} + 5 and (b between 8 and 18 or c between {n} and 10 + 20))"
        )
    };
    let sql = format!("select * from {} x, {} y, {} z limit 100", one(0), one(6), one(11));
    let logical = context.state().optimize(context.sql(&sql).await.unwrap().logical_plan()).unwrap();
    let sources = SourceMap::default();
    let cardinalities = Cardinalities::new(&NoEvidence, Scope { pipeline: "test", environment: "test" }, &sources);
    let merged = merge_aggregates_of(&logical, &cardinalities, 0.0);
    let notes = merged.map(|(_, notes)| notes).unwrap_or_default();
    let text = logical.display_indent_schema();
    assert_eq!(notes.iter().map(|note| note.aggregates).collect::<Vec<_>>(), [3], "{text}");
}
