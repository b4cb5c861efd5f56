//! What may change under a pipeline: how much its runs lose by it, and how many it takes to get over it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use sparklet_history::{History, HistoryOptions, Remembered};

use crate::engine::{Plain, Sparklet, learn};
use crate::error::{AtPath, Failure, Result};
use crate::home::{Home, Manifest, View, Workload};
use crate::measure::Cost;
use crate::record::Trace;
use crate::report::Quantiles;
use crate::runs::{self, CountedOperator, Plan};
use crate::stats::median;
use crate::{data, domains, literals};

/// Runs before the change.
const BEFORE: u32 = 3;
/// Runs from the change on.
const AFTER: u32 = 4;
/// CPU time by which a query must be slower for it to count, in milli-seconds.
const COUNTS_MS: f64 = 20.0;
/// Most that a query may take of what plain DataFusion takes.
const WORST: f64 = 1.2;
/// What the last run may take more than that before the change, of what plain takes.
const RECOVERED: f64 = 0.05;

/// Most that rows may be off after half as many more or less, in 95 of 100 operators.
const EXPECTED: f64 = 2.0;

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Change {
    /// All tables have three times as many rows.
    Volume,
    /// Half as many more.
    Larger,
    /// Half as many.
    Smaller,
    /// 40 % of the lines are of one supplier.
    HotKey,
    /// Literals are drawn anew with each run.
    Literals,
    /// A column is gone that no query reads.
    DroppedColumn,
    /// A table has other rows: most customers are of one segment.
    ReplacedTable,
}

/// A query in one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Timed {
    pub(crate) change: Change,
    /// The first after the change is 1, the last before it 0.
    pub(crate) run: i64,
    pub(crate) query: String,
    /// Medians of CPU time in milli-seconds.
    pub(crate) sparklet_ms: f64,
    pub(crate) plain_ms: f64,
    pub(crate) differs: Option<String>,
    /// Of the operators that were counted in full in the first pair: expected ÷ counted rows, or the inverse where that is more.
    pub(crate) q_errors: Vec<f64>,
}

type Tables = Vec<(String, PathBuf)>;

/// Measures TPC-H as it is and after each of `changes`.
pub(crate) async fn measure(
    home: &Home,
    plan: &Plan,
    changes: &[Change],
    work: &Path,
    out: &mut dyn Write,
) -> Result<Vec<Timed>> {
    let mut measured = Vec::new();
    for &change in changes {
        let folder = work.join(format!("{change:?}"));
        let (manifest, before) = tables(home, plan, plan.scale, &folder.join("before"))?;
        let after = changed(home, plan, change, &before, &folder.join("after")).await?;
        let state = History::new(folder.join("state"), HistoryOptions::default());
        let mut random = StdRng::seed_from_u64(plan.seed);
        for day in 1..=BEFORE + AFTER {
            let run = i64::from(day) - i64::from(BEFORE);
            let at = Run { change, run, plan, manifest: &manifest, state: &state };
            measured.extend(at.measure(if run > 0 { &after } else { &before }, &mut random).await?);
            write!(out, "\r{change:?}, run {day} of {} … ", BEFORE + AFTER)?;
            out.flush()?;
        }
    }
    writeln!(out)?;
    Ok(measured)
}

fn tables(home: &Home, plan: &Plan, scale: f64, folder: &Path) -> Result<(Manifest, Tables)> {
    let manifest = data::require(home, plan.workload, scale, 0)?;
    let view = View::new(&home.data(plan.workload, scale), &manifest, folder.to_owned());
    view.advance(manifest.days)?;
    Ok((manifest, view.tables()))
}

/// The tables after the change.
async fn changed(home: &Home, plan: &Plan, change: Change, before: &Tables, folder: &Path) -> Result<Tables> {
    // 0.3 × 3 is not 0.9.
    let scaled = |by: f64| Ok(tables(home, plan, (plan.scale * by * 1e6).round() / 1e6, folder)?.1);
    let written_anew = match change {
        Change::Literals => return Ok(before.clone()),
        Change::Volume => return scaled(3.0),
        Change::Larger => return scaled(1.5),
        Change::Smaller => return scaled(0.5),
        Change::HotKey => ("lineitem", "l_suppkey", Some("CASE WHEN l_orderkey % 5 < 2 THEN 7 ELSE l_suppkey END")),
        Change::DroppedColumn => ("orders", "o_clerk", None),
        Change::ReplacedTable => {
            ("customer", "c_mktsegment", Some("CASE WHEN c_custkey % 3 > 0 THEN 'BUILDING' ELSE c_mktsegment END"))
        }
    };
    let (table, column, expression) = written_anew;
    let plain = Plain::new(&plan.settings, &BTreeMap::new())?;
    plain.register(before).await?;
    let schema = plain.context().table_provider(table).await?.schema();
    let expressions = schema.fields().iter().filter_map(|field| match (field.name() == column, expression) {
        (false, _) => Some(format!("\"{}\"", field.name())),
        (true, None) => None,
        (true, Some(expression)) => Some(format!("arrow_cast({expression}, '{}') AS \"{column}\"", field.data_type())),
    });
    let columns = expressions.collect::<Vec<_>>().join(", ");
    let folder = folder.join(table);
    std::fs::create_dir_all(&folder).at_path(&folder)?;
    let file = folder.join("base.parquet");
    plain.run(&format!("COPY (SELECT {columns} FROM {table}) TO '{}'", file.display())).await?;
    let moved =
        |(name, old): &(String, PathBuf)| (name.clone(), if name == table { folder.clone() } else { old.clone() });
    Ok(before.iter().map(moved).collect())
}

struct Run<'a> {
    change: Change,
    run: i64,
    plan: &'a Plan,
    manifest: &'a Manifest,
    state: &'a History,
}

impl Run<'_> {
    async fn measure(&self, tables: &Tables, random: &mut StdRng) -> Result<Vec<Timed>> {
        let plan = self.plan;
        let scout = Plain::new(&plan.settings, &BTreeMap::new())?;
        let plain = Plain::new(&plan.settings, &BTreeMap::new())?;
        let mut sparklet = Sparklet::new(&plan.settings, plan.workload.name(), Some(self.state))?;
        scout.register(tables).await?;
        plain.register(tables).await?;
        sparklet.register(tables).await?;
        let mut columns = std::collections::BTreeSet::new();
        for query in &plan.queries {
            columns.extend(literals::compared_columns(&query.sql)?);
        }
        let domains = match self.change == Change::Literals && self.run > 0 {
            true => Some(domains::load(&scout, plan.workload, self.manifest, self.manifest.days, &columns).await?),
            false => None,
        };
        let (mut trace, mut measured) = (Trace::default(), Vec::new());
        for query in &plan.queries {
            let name = query.name();
            let seed = plan.seed ^ (u64::from(query.number) << 40) ^ self.run.unsigned_abs();
            let sql = match &domains {
                Some(domains) => literals::redraw(&query.sql, domains, StdRng::seed_from_u64(seed).random())?,
                None => query.sql.clone(),
            };
            let mut costs: [Vec<Cost>; 2] = Default::default();
            let (mut differs, mut q_errors) = (None, Vec::new());
            scout.run(&sql).await.map_err(|e| e.at(&name))?;
            for pair in 0..plan.pairs {
                let mut order = [0, 1];
                order.shuffle(random);
                let mut answers = [None, None];
                for which in order {
                    let answer = if which == 0 {
                        let (answer, prepared) = sparklet.run(&name, &sql).await.map_err(|e| e.at(&name))?;
                        if pair == 0 {
                            let rows = answer.batches.iter().map(|b| b.num_rows() as u64).sum();
                            let observed = prepared.observe_with_texts();
                            let nodes = observed.plan.nodes.iter();
                            q_errors.extend(nodes.filter_map(|n| Some(CountedOperator::of(&name, n)?.q_error)));
                            trace.add(&name, &sql, answer.cost, rows, &prepared, observed);
                        }
                        answer
                    } else {
                        plain.run(&sql).await.map_err(|e| e.at(&name))?
                    };
                    costs[which].push(answer.cost);
                    answers[which] = Some(answer);
                }
                if let (0, [Some(ours), Some(theirs)]) = (pair, &answers) {
                    differs = runs::difference(ours, theirs, &sql, &scout).await?;
                }
            }
            let [sparklet_ms, plain_ms] =
                costs.map(|costs| median(&costs.iter().map(|c| c.cpu_us as f64 / 1000.0).collect::<Vec<_>>()));
            let (change, run) = (self.change, self.run);
            measured.push(Timed { change, run, query: name, sparklet_ms, plain_ms, differs, q_errors });
        }
        let (record, texts) = trace.finish(sparklet.session(), &sparklet.sources);
        if !matches!(self.state.remember(&record, &texts), Remembered::Stored { .. }) {
            return Err(Failure::new("a run could not be remembered"));
        }
        learn(self.state).map_err(|e| Failure::new(e.to_string()))?;
        Ok(measured)
    }
}

/// Tells what was found against the bars.
pub(crate) fn summarise(measured: &[Timed], out: &mut dyn Write) -> Result<bool> {
    let mut fine = true;
    let mut changes: Vec<Change> = Vec::new();
    for timed in measured {
        if !changes.contains(&timed.change) {
            changes.push(timed.change);
        }
        if let Some(differs) = &timed.differs {
            fine = false;
            writeln!(out, "{:?}, run {}, {}: differs: {differs}", timed.change, timed.run, timed.query)?;
        }
    }
    for change in changes {
        let mut totals = BTreeMap::new();
        let mut slow = Vec::new();
        for run in 1 - i64::from(BEFORE)..=i64::from(AFTER) {
            let of_run: Vec<&Timed> = measured.iter().filter(|t| t.change == change && t.run == run).collect();
            let sum = |of: fn(&Timed) -> f64| of_run.iter().map(|t| of(t)).sum::<f64>();
            totals.insert(run, sum(|t| t.sparklet_ms) / sum(|t| t.plain_ms).max(1e-9));
            let counts =
                |t: &&&Timed| t.sparklet_ms > t.plain_ms * WORST && t.sparklet_ms - t.plain_ms > COUNTS_MS && run > 0;
            slow.extend(
                of_run
                    .iter()
                    .filter(counts)
                    .map(|t| format!("run {run} {} {:.2} ({:.0} ms)", t.query, t.sparklet_ms / t.plain_ms, t.plain_ms)),
            );
        }
        let shown: Vec<String> = totals.iter().map(|(run, ratio)| format!("{run}: {ratio:.2}")).collect();
        let recovered = match (totals.get(&0), totals.get(&3)) {
            (Some(before), Some(after)) => *after <= before + RECOVERED,
            _ => false,
        };
        let first = measured.iter().filter(|t| t.change == change && t.run == 1);
        let errors = Quantiles::of(&first.flat_map(|t| t.q_errors.iter().copied()).collect::<Vec<_>>());
        let met = |of: bool| if of { "met" } else { "MISSED" };
        writeln!(out, "{change:?}: CPU ÷ plain by run (0 is the last before the change): {}", shown.join(", "))?;
        writeln!(
            out,
            "  recovered in 3 runs: {}; never above {WORST}: {}{}",
            met(recovered),
            met(slow.is_empty()),
            if slow.is_empty() { String::new() } else { format!(": {}", slow.join(", ")) }
        )?;
        let counts = matches!(change, Change::Larger | Change::Smaller);
        let expected = !counts || errors.p95 <= EXPECTED;
        writeln!(
            out,
            "  rows of {} operators in the first run after it, expected ÷ counted: P50 {:.2}, P95 {:.2}{}",
            errors.count,
            errors.p50,
            errors.p95,
            if counts { format!(" (P95 {EXPECTED} is asked for: {})", met(expected)) } else { String::new() }
        )?;
        fine &= recovered && slow.is_empty() && expected;
    }
    Ok(fine)
}

/// The workload that the changes are made to.
pub(crate) const WORKLOAD: Workload = Workload::Tpch;
