//! Trains the prior of the cost model on generated schemas, data and queries; none of them is of a benchmark.

mod query;
mod schema;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::Either;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sparklet_core::{AdaptiveMode, AdaptiveSettings, Session, SessionConfig};
use sparklet_history::RunRecord;
use sparklet_optimizer::cost::{self, CostModel, Model, Sample};

use crate::engine::parquet;
use crate::error::{AtPath, Failure, Result};
use crate::measure::Clock;
use crate::record::Trace;

/// How to train.
pub(crate) struct Plan {
    /// Seed of schemas, data and queries.
    pub(crate) seed: u64,
    /// Time for running queries.
    pub(crate) time: Duration,
    /// Most rows of a table.
    pub(crate) rows: f64,
    /// Number of the prior.
    pub(crate) number: u32,
    /// File of records that were measured before, or that are kept; read if it is there.
    pub(crate) records: Option<PathBuf>,
}

/// Queries of a schema.
const QUERIES: usize = 36;
/// Runs of a query; the first warms up.
const RUNS: usize = 2;
/// A query that takes longer is left.
const LONGEST: Duration = Duration::from_secs(20);
/// One of so many schemas sets the intervals and is not learned from.
const APART: usize = 4;

/// Measures, or reads what was measured, and trains. The model, after it has said how good it is.
pub(crate) async fn train(plan: &Plan, work: &Path, out: &mut dyn Write) -> Result<Model> {
    let kept = plan.records.as_deref().filter(|path| path.exists());
    let runs = match kept {
        Some(path) => read(path)?,
        None => measure(plan, work, out).await?,
    };
    let (mut samples, mut apart) = (Vec::new(), Vec::new());
    let mut schemas: BTreeMap<String, usize> = BTreeMap::new();
    for run in &runs {
        let next = schemas.len();
        let schema = *schemas.entry(run.pipeline.clone()).or_insert(next);
        let to: &mut Vec<Sample> = if schema % APART == APART - 1 { &mut apart } else { &mut samples };
        to.extend(cost::samples(run));
    }
    writeln!(
        out,
        "{} samples of {} schemas, {} of them apart",
        samples.len() + apart.len(),
        schemas.len(),
        apart.len()
    )?;
    if samples.len() < 20 || apart.len() < 10 {
        return Err(Failure::new("too few queries to learn from").with_hint("give it more time: `--minutes`"));
    }
    let apart_of: Vec<&Sample> = apart.iter().collect();
    let untrained = cost::untrained();
    let model = cost::fit_prior(&samples, &apart, plan.number, datafusion::DATAFUSION_VERSION);
    for (name, model) in [("untrained", &untrained as &dyn CostModel), ("trained", &model)] {
        let accuracy = cost::accuracy(&cost::outcomes(model, &apart_of));
        writeln!(
            out,
            "{name}: q-error of schemas apart P50 {:.2}, P90 {:.2}, P99 {:.2}; {:.0} % within the interval",
            accuracy.p50,
            accuracy.p90,
            accuracy.p99,
            100.0 * accuracy.coverage
        )?;
    }
    Ok(model)
}

fn read(path: &Path) -> Result<Vec<RunRecord>> {
    let mut runs = Vec::new();
    for line in BufReader::new(std::fs::File::open(path).at_path(path)?).lines() {
        runs.push(serde_json::from_str(&line.at_path(path)?).map_err(|e| Failure::new(e.to_string()))?);
    }
    Ok(runs)
}

async fn measure(plan: &Plan, work: &Path, out: &mut dyn Write) -> Result<Vec<RunRecord>> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let started = Instant::now();
    let mut keep = match &plan.records {
        Some(path) => Some(std::fs::File::create(path).at_path(path)?),
        None => None,
    };
    let mut runs = Vec::new();
    for number in 0.. {
        if started.elapsed() >= plan.time {
            break;
        }
        let most = schema::size(&mut random, 2e5, plan.rows.max(2e5 + 1.0)) as f64;
        let tables = schema::Tables::random(&mut random, most);
        let folder = work.join(format!("schema-{number}"));
        let written = tables.write(&mut random, &folder)?;
        let mut measured = 0;
        for _ in 0..QUERIES {
            if started.elapsed() >= plan.time {
                break;
            }
            let sql = query::random_query(&mut random, &tables);
            let config = config(&mut random, &format!("schema-{number}"), work);
            match run(&config, &written, &sql).await {
                Ok(run) => {
                    if let Some(file) = &mut keep {
                        let line = serde_json::to_string(&run).map_err(|e| Failure::new(e.to_string()))?;
                        writeln!(file, "{line}")?;
                    }
                    measured += 1;
                    runs.push(run);
                }
                // A query of no meaning may ask for more memory, time or types than there are.
                Err(failure) => left_out(out, &failure)?,
            }
        }
        std::fs::remove_dir_all(&folder).at_path(&folder)?;
        let rows: u64 = tables.tables.iter().map(|t| t.rows).sum();
        writeln!(out, "schema {number}: {rows} rows, {measured} queries, {:.0} s", started.elapsed().as_secs_f64())?;
        out.flush()?;
    }
    Ok(runs)
}

fn left_out(out: &mut dyn Write, failure: &Failure) -> Result<()> {
    let text = failure.to_string();
    writeln!(out, "  left out: {}", text.lines().next().unwrap_or_default().chars().take(160).collect::<String>())?;
    Ok(())
}

/// A session of random settings: other plans for queries alike.
fn config(random: &mut StdRng, pipeline: &str, work: &Path) -> SessionConfig {
    let mut options = BTreeMap::new();
    let mut set = |name: &str, value: &str| drop(options.insert(format!("datafusion.{name}"), value.to_owned()));
    if random.random_bool(0.1) {
        set("optimizer.prefer_hash_join", "false");
    }
    if random.random_bool(0.25) {
        set("execution.parquet.pushdown_filters", "true");
    }
    match random.random_range(0..6) {
        0 => {
            set("optimizer.hash_join_single_partition_threshold", "1000000000");
            set("optimizer.hash_join_single_partition_threshold_rows", "100000000");
        }
        1 => {
            set("optimizer.hash_join_single_partition_threshold", "0");
            set("optimizer.hash_join_single_partition_threshold_rows", "0");
        }
        _ => {}
    }
    let mode = match random.random_range(0..8) {
        0 => AdaptiveMode::Force,
        1..=4 => AdaptiveMode::On,
        _ => AdaptiveMode::Off,
    };
    SessionConfig {
        slots: Some([1, 2, 2, 2, 4, 8][random.random_range(0..6)]),
        spill_dir: work.join("spill"),
        options,
        pipeline: pipeline.to_owned(),
        adaptive: AdaptiveSettings { mode, ..AdaptiveSettings::default() },
        ..SessionConfig::default()
    }
}

/// The record of the last of a few runs of a query.
async fn run(config: &SessionConfig, tables: &[(String, PathBuf)], sql: &str) -> Result<RunRecord> {
    std::fs::create_dir_all(&config.spill_dir).at_path(&config.spill_dir)?;
    let session = Session::new(config.clone())?;
    let mut sources = Vec::new();
    for (name, folder) in tables {
        sources.push(session.register_source(name, &parquet(folder)).await?);
    }
    let mut trace = Trace::default();
    for last in (0..RUNS).rev() {
        session.reset_peak_memory();
        let clock = Clock::start();
        let prepared = session.sql(sql, &BTreeMap::new()).await?.prepare().await?;
        let planning_us = clock.wall_us();
        let limit = std::pin::pin!(tokio::time::sleep(LONGEST));
        let rows = match futures::future::select(std::pin::pin!(prepared.collect()), limit).await {
            Either::Left((batches, _)) => batches?.iter().map(|batch| batch.num_rows() as u64).sum(),
            Either::Right(_) => return Err(Failure::new(format!("it takes too long: {sql}"))),
        };
        let cost = crate::measure::Cost { planning_us, ..clock.stop() };
        if last == 0 {
            let observed = prepared.observe_with_texts();
            trace.add("query", sql, cost, rows, &prepared, observed);
        }
    }
    Ok(trace.finish(&session, &sources).0)
}
