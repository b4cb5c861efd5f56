//! Any order of the joins of a block gives the rows of the plan as written: random tables (NULLs, duplicates, no rows), random statements,
//! orders drawn at random, through plain DataFusion.

mod learning;

use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sparklet_history::{NoEvidence, Scope};

use super::block::Block;
use super::graph::Graph;
use super::*;
use crate::candidates::narrowed;
use crate::source::SourceMap;

pub(super) type Row = (Option<i64>, Option<i64>, Option<i64>);
pub(super) type Rows = Vec<Row>;

pub(super) fn tables() -> impl Strategy<Value = Vec<Rows>> {
    let value = || prop::option::weighted(0.85, 0i64..5);
    let rows = prop::collection::vec((value(), value(), value()), 0..9);
    prop::collection::vec(rows, 5)
}

/// `t0` to `t4` with columns `a`, `b`, `c` and a text `s`.
pub(super) fn context(tables: &[Rows]) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for (i, rows) in tables.iter().enumerate() {
        let fields = ["a", "b", "c"].map(|name| Field::new(name, DataType::Int64, true));
        let mut fields = fields.to_vec();
        fields.push(Field::new("s", DataType::Utf8, false));
        let schema = Arc::new(Schema::new(fields));
        let column = |pick: fn(&Row) -> Option<i64>| Arc::new(rows.iter().map(pick).collect::<Int64Array>()) as _;
        let text: StringArray = (0..rows.len()).map(|at| Some(format!("{i}-{at}"))).collect();
        let columns = vec![column(|r| r.0), column(|r| r.1), column(|r| r.2), Arc::new(text) as _];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        context
            .register_table(format!("t{i}"), Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap()))
            .unwrap();
    }
    context
}

#[derive(Debug, Clone)]
struct Statement {
    /// Table of each occurrence, joined with an earlier one on columns, and how.
    joins: Vec<(usize, usize, u8, u8, u8)>,
    /// Conditions: occurrence, column, kind.
    filters: Vec<(usize, u8, u8)>,
    /// EXISTS and NOT EXISTS: table, occurrence, columns, anti, further condition.
    exists: Vec<(usize, usize, u8, u8, bool, bool)>,
    around: u8,
}

fn statements() -> impl Strategy<Value = Statement> {
    let join = (0usize..5, 0usize..8, 0u8..3, 0u8..3, 0u8..12);
    let filter = (0usize..8, 0u8..3, 0u8..6);
    let exists = (0usize..5, 0usize..8, 0u8..3, 0u8..3, any::<bool>(), any::<bool>());
    (
        prop::collection::vec(join, 2..6),
        prop::collection::vec(filter, 0..4),
        prop::collection::vec(exists, 0..3),
        0u8..6,
    )
        .prop_map(|(joins, filters, exists, around)| Statement { joins, filters, exists, around })
}

impl Statement {
    fn sql(&self) -> String {
        let column = |c: u8| ["a", "b", "c"][usize::from(c) % 3];
        let mut from = format!("t{} x0", self.joins[0].0);
        let mut conditions = Vec::new();
        for (i, &(table, earlier, l, r, kind)) in self.joins.iter().enumerate() {
            let i = i + 1;
            let (other, l, r) = (earlier % i, column(l), column(r));
            let on = format!("x{i}.{l} = x{other}.{r}");
            match kind {
                0 => from.push_str(&format!(" left join t{table} x{i} on {on}")),
                1 => from.push_str(&format!(
                    " join (select a, max(b) as b, count(*) as c, min(s) as s from t{table} group by a) x{i} on {on}"
                )),
                2 => from.push_str(&format!(" join t{table} x{i} on {on} and x{i}.b < x{other}.c + 2")),
                3 => from.push_str(&format!(" join t{table} x{i} on x{i}.a + x{other}.b = x0.c")),
                4 => from.push_str(&format!(" cross join t{table} x{i}")),
                5 => {
                    from.push_str(&format!(" join t{table} x{i} on {on}"));
                    conditions.push(format!("x{i}.c = x{}.c", (other + i) / 2));
                }
                6 => from.push_str(&format!(" join t{table} x{i} on {on} or x{i}.b = x0.b")),
                7 => from.push_str(&format!(
                    " join (select p.a, q.b, p.c, q.s from t{table} p join t{} q on p.b = q.b) x{i} on {on}",
                    (table + 1) % 5
                )),
                8 => from.push_str(&format!(" right join t{table} x{i} on {on}")),
                _ => from.push_str(&format!(" join t{table} x{i} on {on}")),
            }
        }
        let n = self.joins.len() + 1;
        for &(occurrence, c, kind) in &self.filters {
            let (i, c) = (occurrence % n, column(c));
            conditions.push(match kind {
                0 => format!("x{i}.{c} = 1"),
                1 => format!("x{i}.{c} is not null"),
                2 => format!("x{i}.{c} <= x{}.b", (i + 1) % n),
                3 => format!("(x{i}.{c} = 2 or x{}.a = 3)", (i + 1) % n),
                4 => format!("coalesce(x{i}.{c}, 0) < 4"),
                _ => format!(
                    "x{i}.{c} >= (select min(p.a) from t0 p join t1 q on p.a = q.b join t{} r on q.a = r.b where r.c < 3)",
                    i % 5
                ),
            });
        }
        for &(table, occurrence, l, r, anti, more) in &self.exists {
            let i = occurrence % n;
            let more = if more { format!(" and e.c <> x{i}.c") } else { String::new() };
            conditions.push(format!(
                "{}exists (select 1 from t{table} e where e.{} = x{i}.{}{more})",
                if anti { "not " } else { "" },
                column(l),
                column(r)
            ));
        }
        let filter = if conditions.is_empty() { String::new() } else { format!(" where {}", conditions.join(" and ")) };
        let all: Vec<String> = (0..n).map(|i| format!("x{i}.a as a{i}, x{i}.c as c{i}, x{i}.s as s{i}")).collect();
        match self.around {
            0 => format!("select x0.a, count(*), sum(x1.b) from {from}{filter} group by x0.a"),
            1 => format!(
                "select t2.a, y.* from (select {} from {from}{filter}) y left join t2 on y.a1 = t2.b",
                all.join(", ")
            ),
            2 => format!("select count(*) from {from}{filter}"),
            _ => format!("select {} from {from}{filter}", all.join(", ")),
        }
    }
}

/// All blocks of `plan` in orders drawn with `draws`.
fn shuffled(plan: &LogicalPlan, profiles: &Profiles, draws: &[u8], changed: &mut usize) -> LogicalPlan {
    if let Some(block) = Block::of(plan).unwrap() {
        *changed += 1;
        let mut graph = Graph::new(&block, profiles).unwrap();
        let mut drawn = draws.iter().cycle();
        let mut pick = |of: usize| drawn.next().map_or(0, |draw| usize::from(*draw) % of.max(1));
        let (tree, _) = search::any(&mut graph, &mut pick).expect("there is an order");
        let relations = block.relations.iter().map(|r| shuffled(r, profiles, draws, changed)).collect();
        let tree = build::oriented(&mut graph, tree);
        let built = build::plan(&graph, relations, &tree, &block.output, plan).unwrap();
        assert!(same_columns(&built, plan), "{}\n{}", built.display_indent_schema(), plan.display_indent_schema());
        return built;
    }
    let inputs = plan.inputs().into_iter().map(|input| shuffled(input, profiles, draws, changed)).collect();
    with_inputs(plan, inputs).unwrap()
}

pub(super) async fn rows(context: &SessionContext, optimized: &LogicalPlan) -> Result<Vec<String>, String> {
    // Planned as it is: no rule of the logical optimizer may mend it.
    let state = context.state();
    let physical = state.query_planner().create_physical_plan(optimized, &state).await.map_err(|e| e.to_string())?;
    let batches = datafusion::physical_plan::collect(physical, context.task_ctx()).await.map_err(|e| e.to_string())?;
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let mut lines: Vec<String> = text.lines().filter(|l| l.starts_with('|')).skip(1).map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// The optimised plan of `sql`, and its rows.
pub(super) async fn optimized(context: &SessionContext, sql: &str) -> Result<(LogicalPlan, Vec<String>), String> {
    let frame = context.sql(sql).await.map_err(|e| e.to_string())?;
    let logical = context.state().optimize(frame.logical_plan()).map_err(|e| e.to_string())?;
    let rows = rows(context, &logical).await?;
    Ok((logical, rows))
}

pub(super) fn cases() -> u32 {
    std::env::var("SPARKLET_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
}

#[test]
fn any_order_gives_the_same_rows() {
    let runtime = crate::fingerprint::tests::runtime();
    let mut runner = TestRunner::new(Config { cases: cases(), ..Config::default() });
    let cases = (tables(), statements(), prop::collection::vec(any::<u8>(), 8));
    let sources = SourceMap::default();
    let (pushes, later) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    runner
        .run(&cases, |(tables, statement, draws)| {
            runtime.block_on(async {
                let context = context(&tables);
                let sql = statement.sql();
                let frame: DataFrame =
                    context.sql(&sql).await.map_err(|e| TestCaseError::fail(format!("{sql}: {e}")))?;
                let logical = context.state().optimize(frame.logical_plan()).unwrap();
                let expected =
                    rows(&context, &logical).await.map_err(|e| TestCaseError::fail(format!("{sql}: {e}")))?;
                let scope = Scope { pipeline: "test", environment: "test" };
                let profiles = Cardinalities::new(&NoEvidence, scope, &sources).profiles(&logical);
                let mut changed = 0;
                let other = shuffled(&logical, &profiles, &draws, &mut changed);
                let other = narrowed(other, &logical).expect("the columns stay");
                let got = rows(&context, &other).await;
                let shown = || format!("{sql}\n{}\n{}", logical.display_indent(), other.display_indent());
                prop_assert_eq!(got.as_ref(), Ok(&expected), "{}", shown());
                // Keys pushed wherever they can be, and the joins that this makes in any order.
                let all = keys::Limits { min_rows: 0.0, max_share: f64::INFINITY };
                let cardinalities = Cardinalities::new(&NoEvidence, scope, &sources);
                if let Some((pushed, _)) = keys::push_keys_within(&logical, &cardinalities, &all) {
                    let pushed = narrowed(pushed, &logical).expect("the columns stay");
                    let got = rows(&context, &pushed).await;
                    prop_assert_eq!(got.as_ref(), Ok(&expected), "{}\n{}", shown(), pushed.display_indent());
                    let other = shuffled(&pushed, &cardinalities.profiles(&pushed), &draws, &mut changed);
                    let got = rows(&context, &narrowed(other, &logical).expect("the columns stay")).await;
                    prop_assert_eq!(got.as_ref(), Ok(&expected), "{}\n{}", shown(), pushed.display_indent());
                    pushes.set(pushes.get() + 1);
                }
                let all = outer::Limits { min_rows: 0.0, max_share: f64::INFINITY };
                if let Some((moved, _)) = outer::outer_later_within(&logical, &cardinalities, &all) {
                    let moved = narrowed(moved, &logical).expect("the columns stay");
                    let got = rows(&context, &moved).await;
                    prop_assert_eq!(got.as_ref(), Ok(&expected), "{}\n{}", shown(), moved.display_indent());
                    let other = shuffled(&moved, &cardinalities.profiles(&moved), &draws, &mut changed);
                    let got = rows(&context, &narrowed(other, &logical).expect("the columns stay")).await;
                    prop_assert_eq!(got.as_ref(), Ok(&expected), "{}\n{}", shown(), moved.display_indent());
                    later.set(later.get() + 1);
                }
                for candidate in crate::candidates(&logical, &Cardinalities::new(&NoEvidence, scope, &sources)) {
                    let got = rows(&context, &candidate.plan).await;
                    prop_assert_eq!(got.as_ref(), Ok(&expected), "{}\n{}", shown(), candidate.plan.display_indent());
                }
                Ok(())
            })
        })
        .unwrap();
    assert!(pushes.get() > 0, "no statement has a key to push");
    assert!(later.get() > 0, "no statement has an outer join to move");
}
