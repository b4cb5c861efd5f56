//! The queries of a workload, and what each promises about its result.

use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, FetchType, LogicalPlan, SkipType};

use crate::compare::Shape;
use crate::error::{Failure, Result};
use crate::home::{Home, Workload};

/// A query of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) number: u32,
    pub(crate) sql: String,
}

impl Query {
    /// `q01` …: the name in reports.
    pub(crate) fn name(&self) -> String {
        format!("q{:02}", self.number)
    }
}

const SKEWED: [&str; 12] = [
    include_str!("../skewed/q01.sql"),
    include_str!("../skewed/q02.sql"),
    include_str!("../skewed/q03.sql"),
    include_str!("../skewed/q04.sql"),
    include_str!("../skewed/q05.sql"),
    include_str!("../skewed/q06.sql"),
    include_str!("../skewed/q07.sql"),
    include_str!("../skewed/q08.sql"),
    include_str!("../skewed/q09.sql"),
    include_str!("../skewed/q10.sql"),
    include_str!("../skewed/q11.sql"),
    include_str!("../skewed/q12.sql"),
];

impl Workload {
    /// Number of queries.
    pub(crate) fn queries(self) -> u32 {
        match self {
            Self::Tpch => 22,
            Self::Tpcds => 99,
            Self::Skewed => SKEWED.len() as u32,
        }
    }
}

/// The queries numbered `only`, or all where that is empty, in order.
pub(crate) fn load(home: &Home, workload: Workload, only: &[u32]) -> Result<Vec<Query>> {
    let count = workload.queries();
    if let Some(number) = only.iter().find(|&&n| n == 0 || n > count) {
        return Err(Failure::new(format!("{} has no query {number}", workload.name()))
            .with_hint(format!("its queries are 1 to {count}")));
    }
    let mut numbers: Vec<u32> = if only.is_empty() { (1..=count).collect() } else { only.to_vec() };
    numbers.sort_unstable();
    numbers.dedup();
    let text = |number: u32| -> Result<String> {
        if workload == Workload::Skewed {
            return Ok(SKEWED[number as usize - 1].to_owned());
        }
        let path = home.query(workload, number);
        std::fs::read_to_string(&path).map_err(|e| {
            Failure::new(format!("`{}`: {e}", path.display())).with_hint("run `benches/fetch-queries` first")
        })
    };
    numbers.into_iter().map(|number| Ok(Query { number, sql: text(number)? })).collect()
}

/// What the outermost ORDER BY and LIMIT of a plan promise, and the plan without that LIMIT where there is one.
///
/// `plan` is the plan as written, before optimising: then a LIMIT is the root, and the ORDER BY stands right below it, or below the
/// projection that takes sort-only columns away.
pub(crate) fn shape(plan: &LogicalPlan) -> (Shape, Option<LogicalPlan>) {
    let (mut shape, mut below, mut unlimited) = (Shape::default(), plan, None);
    if let LogicalPlan::Limit(limit) = plan
        && let (Ok(SkipType::Literal(0)), Ok(FetchType::Literal(Some(fetch)))) =
            (limit.get_skip_type(), limit.get_fetch_type())
    {
        shape.limit = Some(fetch);
        below = limit.input.as_ref();
        unlimited = Some(below.clone());
    }
    // Output column of each column of the plan looked at, by its position there.
    let mut output: Vec<Option<usize>> = (0..plan.schema().fields().len()).map(Some).collect();
    loop {
        match below {
            LogicalPlan::Projection(projection) => {
                let input = projection.input.schema();
                let mut through = vec![None; input.fields().len()];
                for (position, expr) in projection.expr.iter().enumerate() {
                    if let Some(column) = plain_column(expr)
                        && let Ok(from) = input.index_of_column(column)
                        && through[from].is_none()
                    {
                        through[from] = output[position];
                    }
                }
                output = through;
                below = projection.input.as_ref();
            }
            LogicalPlan::SubqueryAlias(alias) => below = alias.input.as_ref(),
            LogicalPlan::Sort(sort) => {
                let key = |expr: &Expr| output_of(expr, sort.input.schema(), &output);
                shape.order = sort.expr.iter().map_while(|s| key(&s.expr)).collect();
                return (shape, unlimited);
            }
            _ => return (shape, unlimited),
        }
    }
}

fn plain_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Alias(alias) => plain_column(&alias.expr),
        Expr::Column(column) => Some(column),
        _ => None,
    }
}

fn output_of(expr: &Expr, schema: &DFSchema, output: &[Option<usize>]) -> Option<usize> {
    let position = schema.index_of_column(plain_column(expr)?).ok()?;
    output[position]
}

#[cfg(test)]
mod tests {
    use datafusion::execution::context::SessionContext;

    use super::*;

    async fn shape_of(sql: &str) -> (Shape, bool) {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t(a INT, b INT, c INT)").await.unwrap();
        let plan = context.state().create_logical_plan(sql).await.unwrap();
        let (shape, unlimited) = shape(&plan);
        (shape, unlimited.is_some())
    }

    #[tokio::test]
    async fn order_and_limit_are_found() {
        let of = |order: &[usize], limit: Option<usize>| (Shape { order: order.to_vec(), limit }, limit.is_some());
        for (sql, expected) in [
            ("SELECT a, b FROM t", of(&[], None)),
            ("SELECT a, b FROM t ORDER BY b, a LIMIT 5", of(&[1, 0], Some(5))),
            ("SELECT a AS x, b FROM t ORDER BY x DESC", of(&[0], None)),
            ("SELECT a, sum(b) AS s FROM t GROUP BY a ORDER BY s, a LIMIT 3", of(&[1, 0], Some(3))),
            // A key that is not in the output ends what can be checked.
            ("SELECT a, b FROM t ORDER BY a, c, b", of(&[0], None)),
            ("SELECT a, b FROM t ORDER BY a + b, a LIMIT 2", of(&[], Some(2))),
            ("SELECT * FROM (SELECT a FROM t ORDER BY a LIMIT 9) x WHERE a > 1", of(&[], None)),
            ("SELECT a FROM t UNION ALL SELECT b FROM t ORDER BY a LIMIT 7", of(&[0], Some(7))),
        ] {
            assert_eq!(shape_of(sql).await, expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn the_skewed_queries_are_ordered_by_what_they_put_out() {
        assert_eq!(Workload::Skewed.queries(), 12);
        for query in load(&Home::at(std::path::Path::new("/nonexistent")), Workload::Skewed, &[]).unwrap() {
            assert!(query.sql.contains("ORDER BY"), "{}", query.name());
        }
        assert!(load(&Home::at(std::path::Path::new("/nonexistent")), Workload::Skewed, &[13]).is_err());
        assert!(load(&Home::at(std::path::Path::new("/nonexistent")), Workload::Tpch, &[1]).is_err());
    }
}
