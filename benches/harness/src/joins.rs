//! How well the rows of joins are expected that never ran: joins of some relations of each query, counted.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{LogicalPlanBuilder, lit};
use serde::Serialize;
use sparklet_history::{Recall, StateFolder};
use sparklet_optimizer::{Cardinalities, JoinSubset, Volumes, join_subsets};

use crate::engine::{ENVIRONMENT, Plain};
use crate::error::Result;
use crate::record::learned;
use crate::report::{Quantiles, against};
use crate::runs::Plan;

/// Runs of all queries before joins are counted.
const RUNS: u32 = 2;
/// Joins of a block that are counted.
const OF_BLOCK: usize = 3;
/// Time after which a count is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A join that never ran.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Counted {
    pub(crate) query: String,
    pub(crate) relations: usize,
    pub(crate) expected: f64,
    /// Ends of the interval.
    pub(crate) interval: [f64; 2],
    /// What it rests on.
    pub(crate) source: String,
    /// None: given up.
    pub(crate) rows: Option<f64>,
}

impl Counted {
    fn q_error(&self) -> Option<f64> {
        let (expected, rows) = (self.expected.max(1.0), self.rows?.max(1.0));
        Some((expected / rows).max(rows / expected))
    }
}

/// Runs all queries of `plan` and counts joins that none of them ran.
pub(crate) async fn measure(
    plan: &Plan,
    tables: &[(String, PathBuf)],
    work: &Path,
    out: &mut dyn Write,
) -> Result<Vec<Counted>> {
    let (state, sparklet) = learned(plan, tables, work, RUNS).await?;
    let names = sparklet.session().sources();
    let recalled = StateFolder::new(state, ENVIRONMENT).recall(plan.workload.name());
    let context = sparklet.session().context();
    let plain = Plain::new(&plan.settings, &Default::default())?;
    plain.register(tables).await?;
    let mut counted = Vec::new();
    for query in &plan.queries {
        let logical = context.state().create_logical_plan(&query.sql).await?;
        let logical = context.state().optimize(&logical)?;
        let volumes = Volumes::new(&sparklet.sources, recalled.runs.iter().map(AsRef::as_ref));
        let cardinalities =
            Cardinalities::new(recalled.evidence.as_ref(), recalled.scope(), names.as_ref()).at(volumes);
        for join in join_subsets(&logical, &cardinalities, OF_BLOCK)? {
            let rows = rows(&plain, &join).await.map_err(|e| e.at(query.name()))?;
            counted.push(Counted {
                query: query.name(),
                relations: join.relations,
                expected: join.estimate.rows,
                interval: [join.estimate.low, join.estimate.high],
                source: format!("{:?}", join.estimate.source),
                rows,
            });
        }
        write!(out, "\r{}, {} joins … ", query.name(), counted.len())?;
        out.flush()?;
    }
    writeln!(out)?;
    Ok(counted)
}

async fn rows(plain: &Plain, join: &JoinSubset) -> Result<Option<f64>> {
    let none: [datafusion::logical_expr::Expr; 0] = [];
    let plan = LogicalPlanBuilder::from(join.plan.clone()).aggregate(none, [count(lit(1))])?.build()?;
    let counting = async { plain.context().execute_logical_plan(plan).await?.collect().await };
    let Ok(batches) = tokio::time::timeout(PATIENCE, counting).await else { return Ok(None) };
    let batches = batches?;
    let counts = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
    Ok(Some(counts.sum::<i64>() as f64))
}

/// Tells what was found against the bars.
pub(crate) fn summarise(counted: &[Counted], out: &mut dyn Write) -> Result<bool> {
    const BARS: [f64; 2] = [2.0, 10.0];
    let mut worst: Vec<(f64, &Counted)> = counted.iter().filter_map(|join| Some((join.q_error()?, join))).collect();
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (error, join) in worst.iter().take(15) {
        let (expected, rows) = (join.expected, join.rows.unwrap_or_default());
        writeln!(
            out,
            "{}, {} relations: {expected:.0} expected by {}, {rows:.0} counted: {error:.1}",
            join.query, join.relations, join.source
        )?;
    }
    let of = Quantiles::of(&worst.iter().map(|(error, _)| *error).collect::<Vec<_>>());
    let inside = |join: &Counted| join.rows.is_some_and(|rows| (join.interval[0]..=join.interval[1]).contains(&rows));
    let within = worst.iter().filter(|(_, join)| inside(join)).count() as f64 / worst.len().max(1) as f64;
    let (fine, verdict) = against(&of, BARS);
    writeln!(
        out,
        "rows of {} joins that never ran ({} more took over {} s to count): {verdict}; {:.0} % within their interval",
        of.count,
        counted.len() - of.count,
        PATIENCE.as_secs(),
        within * 100.0
    )?;
    Ok(fine)
}
