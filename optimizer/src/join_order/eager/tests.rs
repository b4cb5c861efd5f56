//! Groups made early give the rows of the plan as written: random tables (NULLs, duplicates, no rows), random statements with aggregates over
//! joins, grouping sets among them, and any relations that may wait, through plain DataFusion.

use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::DataFrame;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sparklet_history::{NoEvidence, Scope};

use super::super::tests::{cases, context, rows, tables};
use super::*;
use crate::candidates::narrowed;
use crate::source::SourceMap;

#[derive(Debug, Clone)]
struct Statement {
    /// Table of each occurrence, joined with an earlier one on columns, and how.
    joins: Vec<(usize, usize, u8, u8, u8)>,
    /// Group keys: occurrence, column, kind.
    keys: Vec<(usize, u8, u8)>,
    sets: u8,
    /// Functions: which, occurrence, column, with a FILTER.
    functions: Vec<(u8, usize, u8, bool)>,
    /// Occurrence whose columns all functions read, so that others may wait.
    of: usize,
    exists: bool,
    around: u8,
}

fn statements() -> impl Strategy<Value = Statement> {
    let join = (0usize..5, 0usize..8, 0u8..3, 0u8..3, 0u8..8);
    let key = (0usize..8, 0u8..4, 0u8..5);
    let function = (0u8..9, 0usize..8, 0u8..3, prop::bool::weighted(0.2));
    (
        prop::collection::vec(join, 0..4),
        prop::collection::vec(key, 0..4),
        0u8..6,
        prop::collection::vec(function, 0..4),
        0usize..8,
        any::<bool>(),
        0u8..4,
    )
        .prop_map(|(joins, keys, sets, functions, of, exists, around)| Statement {
            joins,
            keys,
            sets,
            functions,
            of,
            exists,
            around,
        })
}

impl Statement {
    fn sql(&self) -> String {
        let column = |c: u8| ["a", "b", "c", "s"][usize::from(c) % 4];
        let mut from = "t0 x0".to_owned();
        let mut conditions = Vec::new();
        for (i, &(table, earlier, l, r, kind)) in self.joins.iter().enumerate() {
            let i = i + 1;
            let (other, l, r) = (earlier % i, column(l), column(r));
            let on = format!("x{i}.{l} = x{other}.{r}");
            from.push_str(&match kind {
                0 => format!(" left join t{table} x{i} on {on}"),
                1 => format!(
                    " join (select a, max(b) as b, count(*) as c, min(s) as s from t{table} group by a) x{i} on {on}"
                ),
                2 => format!(" join t{table} x{i} on {on} and x{i}.b < x{other}.c + 2"),
                3 => format!(" join t{table} x{i} on x{i}.a + x{other}.b = x0.c"),
                4 => {
                    conditions.push(format!("x{i}.c = x{}.c", (other + i) / 2));
                    format!(" join t{table} x{i} on {on}")
                }
                _ => format!(" join t{table} x{i} on {on}"),
            });
        }
        let n = self.joins.len() + 1;
        if self.exists {
            conditions.push("exists (select 1 from t1 e where e.a = x0.b)".to_owned());
        }
        let filter = if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
        let keys = self.keys.iter().map(|&(occurrence, c, kind)| {
            let i = occurrence % n;
            match kind {
                0 => format!("coalesce(x{i}.a, 7) % 2"),
                1 => format!("x{i}.a + x{}.b", (i + 1) % n),
                _ => format!("x{i}.{}", column(c)),
            }
        });
        let mut keys: Vec<String> = keys.collect();
        keys.dedup();
        let functions = self.functions.iter().map(|&(which, occurrence, c, filtered)| {
            let i = if self.around == 0 { occurrence % n } else { self.of % n };
            let value = format!("x{i}.{}", ["a", "b", "c"][usize::from(c)]);
            let call = match which {
                0 => "count(*)".to_owned(),
                1 => format!("count({value})"),
                2 => format!("min({value})"),
                3 => format!("max(x{i}.s)"),
                4 => format!("avg({value})"),
                5 => format!("sum(case when {value} > 1 then {value} else 10 end)"),
                6 => format!("cast(round(stddev({value}), 6) as decimal(20, 6))"),
                7 => format!("avg(cast({value} as decimal(7, 2)))"),
                _ => format!("sum({value})"),
            };
            if filtered && which != 6 { format!("{call} filter (where x{i}.b is distinct from 2)") } else { call }
        });
        let functions: Vec<String> = functions.collect();
        let columns: Vec<String> =
            keys.iter().chain(&functions).enumerate().map(|(i, e)| format!("{e} as o{i}")).collect();
        let columns = if columns.is_empty() { "count(*) as o0".to_owned() } else { columns.join(", ") };
        let by = match (keys.as_slice(), self.sets) {
            ([], _) => String::new(),
            (keys, 0) => format!(" group by rollup ({})", keys.join(", ")),
            (keys, 1) => format!(" group by cube ({})", keys.join(", ")),
            ([first, ..], 2) => format!(" group by grouping sets (({}), ({first}), ())", keys.join(", ")),
            (keys, _) => format!(" group by {}", keys.join(", ")),
        };
        let select = format!("select {columns} from {from}{filter}{by}");
        match self.around {
            1 => format!("select t2.a, y.* from ({select}) y left join t2 on cast(y.o0 as varchar) = t2.s"),
            _ => select,
        }
    }
}

/// `plan` with groups made early over relations drawn with `draws`, whatever that costs.
fn drawn(plan: &LogicalPlan, cardinalities: &Cardinalities<'_>, draws: &[u8]) -> Option<LogicalPlan> {
    let profiles = cardinalities.profiles(plan);
    let limits = Limits { min_rows: 0.0, max_share: f64::INFINITY, min_gain: f64::NEG_INFINITY, min_kept: 0.0 };
    let visit = Visit { cardinalities, profiles: &profiles, limits: &limits, found: Vec::new() };
    let mut done = None;
    let new = plan.clone().transform_down(|node| {
        // The first that can be divided: addresses are those of the plan as it is.
        let (None, LogicalPlan::Aggregate(_)) = (&done, &node) else { return Ok(Transformed::no(node)) };
        let mut found = None;
        plan.apply(|original| {
            if found.is_none()
                && *original == node
                && let LogicalPlan::Aggregate(aggregate) = original
                && let Some(mut asked) = visit.asked(original, aggregate)?
            {
                let mut below = asked.all;
                let read = asked.read();
                for draw in draws {
                    let relation = usize::from(*draw) % 8;
                    let smaller = below & !single(relation);
                    if smaller != below && read & single(relation) == 0 && asked.may_wait(smaller, relation, &limits) {
                        below = smaller;
                    }
                }
                if let Some(early) = asked.early(below, &limits) {
                    let relations = asked.block.relations.iter().map(|&relation| relation.clone()).collect();
                    let built = asked.built(&early, relations, aggregate)?;
                    assert!(
                        same_columns(&built, original),
                        "{}\n{}",
                        built.display_indent_schema(),
                        original.display_indent_schema()
                    );
                    found = Some(built);
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        match found {
            Some(built) => {
                done = Some(());
                Ok(Transformed::new(built, true, TreeNodeRecursion::Stop))
            }
            None => Ok(Transformed::no(node)),
        }
    });
    done.and(Some(new.unwrap().data))
}

#[test]
fn early_groups_give_the_same_rows() {
    let runtime = crate::fingerprint::tests::runtime();
    let mut runner = TestRunner::new(Config { cases: cases(), ..Config::default() });
    let sources = SourceMap::default();
    let merged = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let (made, waited) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let missing = || {
        let functions = merged.borrow();
        let all = ["count", "min", "max", "avg", "sum", "stddev"].into_iter();
        all.filter(|f| !functions.contains(*f)).collect::<Vec<_>>()
    };
    // Few cases may be without one of them: then as many more.
    for _ in 0..8 {
        if missing().is_empty() {
            break;
        }
        runner
            .run(&(tables(), statements(), prop::collection::vec(any::<u8>(), 6)), |(tables, statement, draws)| {
                runtime.block_on(async {
                    let context = context(&tables);
                    let sql = statement.sql();
                    let frame: DataFrame =
                        context.sql(&sql).await.map_err(|e| TestCaseError::reject(format!("{sql}: {e}")))?;
                    let Ok(logical) = context.state().optimize(frame.logical_plan()) else {
                        return Err(TestCaseError::reject("not planned"));
                    };
                    let expected =
                        rows(&context, &logical).await.map_err(|e| TestCaseError::reject(format!("{sql}: {e}")))?;
                    let scope = Scope { pipeline: "test", environment: "test" };
                    let cardinalities = Cardinalities::new(&NoEvidence, scope, &sources);
                    let mut made_early = Vec::new();
                    if let Some(early) = drawn(&logical, &cardinalities, &draws) {
                        made.set(made.get() + 1);
                        let text = early.display_indent().to_string();
                        let names = text
                            .split("_merge(")
                            .filter_map(|before| before.rsplit(|c: char| !c.is_ascii_lowercase()).next());
                        let names: Vec<String> = names.map(str::to_owned).collect();
                        waited.set(waited.get() + usize::from(names.len() > 1));
                        merged.borrow_mut().extend(names);
                        made_early.push(early);
                    }
                    let any =
                        Limits { min_rows: 0.0, max_share: f64::INFINITY, min_gain: f64::NEG_INFINITY, min_kept: 0.0 };
                    if let Some((early, _)) = early_groups_within(&logical, &cardinalities, &any) {
                        made_early.push(early);
                    }
                    for early in made_early {
                        let early = narrowed(early, &logical).expect("the columns stay");
                        let got = rows(&context, &early).await;
                        let shown = format!("{sql}\n{}\n{}", logical.display_indent(), early.display_indent());
                        prop_assert_eq!(got.as_ref(), Ok(&expected), "{}", shown);
                    }
                    Ok(())
                })
            })
            .unwrap();
    }
    assert!(missing().is_empty(), "never divided: {:?}", missing());
    assert!(made.get() > 0 && waited.get() > 0, "{} made early, {} of them with functions", made.get(), waited.get());
}
