//! Queries under pools smaller than their data: does each end, is it right, what memory does the process take, how much slower is it?
//!
//! A run is a process of its own, so that its resident set is its own; its rows come back in a file.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::engine::{Answer, Plain, Settings, Sparklet};
use crate::error::{AtPath, Failure, Result};
use crate::measure::Cost;
use crate::peer::Engine;
use crate::queries::Query;
use crate::runs;

/// Bytes that a process may have beyond its pool.
const BEYOND_POOL: u64 = 300 << 20;

/// How often longer than without a limit.
const SLOWER: f64 = 10.0;

/// One query under one pool.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Limited {
    pub(crate) query: String,
    pub(crate) pool_mib: u64,
    /// Nothing where it did not end.
    pub(crate) cost: Option<Once>,
    /// Wall time without a limit, in micro-seconds.
    pub(crate) unlimited_us: u64,
    /// Why it did not end, or where its rows differ from plain DataFusion's.
    pub(crate) problem: Option<String>,
}

impl Limited {
    fn slower(&self) -> Option<f64> {
        self.cost.map(|once| once.wall_us as f64 / self.unlimited_us.max(1) as f64)
    }

    /// True if it met all bars.
    fn fine(&self) -> bool {
        let small = self.cost.is_some_and(|once| once.peak_rss_bytes <= (self.pool_mib << 20) + BEYOND_POOL);
        self.problem.is_none() && small && self.slower().is_some_and(|slower| slower <= SLOWER)
    }
}

/// What one run in a process of its own took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Once {
    pub(crate) wall_us: u64,
    pub(crate) cpu_us: u64,
    pub(crate) peak_rss_bytes: u64,
}

/// Runs one query and writes its rows to `rows`: what the processes of [`measure`] do.
pub(crate) async fn once(
    engine: Engine,
    settings: &Settings,
    workload: &str,
    tables: &[(String, PathBuf)],
    query: &Query,
    rows: &Path,
) -> Result<Once> {
    let answer = match engine {
        Engine::Plain => {
            let plain = Plain::new(settings, &Default::default())?;
            plain.register(tables).await?;
            plain.run(&query.sql).await?
        }
        Engine::Sparklet => {
            let mut sparklet = Sparklet::new(settings, workload, None)?;
            sparklet.register(tables).await?;
            sparklet.run(&query.name(), &query.sql).await?.0
        }
    };
    let Cost { wall_us, cpu_us, peak_rss_bytes, .. } = answer.cost;
    let mut writer = FileWriter::try_new(BufWriter::new(File::create(rows).at_path(rows)?), &answer.schema)?;
    for batch in &answer.batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(Once { wall_us, cpu_us, peak_rss_bytes })
}

/// Arguments of a process that runs one query, but for engine, pool, query and file.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) arguments: Vec<String>,
    /// Folder for files of rows.
    pub(crate) folder: PathBuf,
}

impl Invocation {
    fn run(&self, engine: &str, pool_mib: Option<u64>, query: &Query) -> Result<(Once, Answer)> {
        let rows = self.folder.join(format!("{engine}-{}.arrow", query.name()));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("once").args(&self.arguments).args(["--engine", engine, "--queries", &query.number.to_string()]);
        command.args(pool_mib.iter().flat_map(|mib| ["--memory".to_owned(), mib.to_string()]));
        command.arg("--rows").arg(&rows).stdin(Stdio::null());
        let output = command.output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::new(match error.trim() {
                "" => format!("the process ended with {}", output.status),
                error => error.to_owned(),
            }));
        }
        let once: Once = serde_json::from_slice(&output.stdout).map_err(|e| Failure::new(e.to_string()))?;
        let (schema, batches) = read(&rows)?;
        std::fs::remove_file(&rows).at_path(&rows)?;
        Ok((once, Answer { schema, batches, cost: Cost { wall_us: once.wall_us, ..Cost::default() } }))
    }
}

fn read(rows: &Path) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let reader = FileReader::try_new(BufReader::new(File::open(rows).at_path(rows)?), None)?;
    Ok((reader.schema(), reader.collect::<Result<_, _>>()?))
}

/// Each query without a limit and under each of `pools` (MiB), rows compared with plain DataFusion's; `plain` decides ties at a LIMIT.
pub(crate) async fn measure(
    invocation: &Invocation,
    pools: &[u64],
    queries: &[Query],
    plain: &Plain,
    out: &mut dyn Write,
) -> Result<Vec<Limited>> {
    let mut measured = Vec::new();
    for query in queries {
        let (_, theirs) = invocation.run("plain", None, query).map_err(|e| e.at("plain"))?;
        let (unlimited, _) = invocation.run("sparklet", None, query).map_err(|e| e.at("without a limit"))?;
        for &pool_mib in pools {
            let mut limited =
                Limited { query: query.name(), pool_mib, cost: None, unlimited_us: unlimited.wall_us, problem: None };
            match invocation.run("sparklet", Some(pool_mib), query) {
                Ok((once, ours)) => {
                    limited.cost = Some(once);
                    limited.problem = runs::difference(&ours, &theirs, &query.sql, plain).await?;
                }
                Err(failure) => limited.problem = Some(failure.to_string()),
            }
            say(&limited, out)?;
            measured.push(limited);
        }
    }
    Ok(measured)
}

fn say(limited: &Limited, out: &mut dyn Write) -> Result<()> {
    write!(out, "{} pool {} MiB: ", limited.query, limited.pool_mib)?;
    if let (Some(once), Some(slower)) = (&limited.cost, limited.slower()) {
        let (seconds, rss) = (once.wall_us as f64 / 1e6, once.peak_rss_bytes >> 20);
        write!(out, "{seconds:.2} s, {slower:.2} × without a limit, RSS {rss} MiB")?;
    }
    if let Some(problem) = &limited.problem {
        write!(out, "; {}", problem.lines().next().unwrap_or_default())?;
    }
    writeln!(out, "{}", if limited.fine() { "" } else { "  MISSED" })?;
    Ok(out.flush()?)
}

/// A line for each pool; true if all met the bars.
pub(crate) fn summarise(measured: &[Limited], pools: &[u64], out: &mut dyn Write) -> Result<bool> {
    for &pool in pools {
        let of_pool: Vec<&Limited> = measured.iter().filter(|limited| limited.pool_mib == pool).collect();
        let right = of_pool.iter().filter(|limited| limited.problem.is_none()).count();
        let rss = of_pool.iter().filter_map(|limited| limited.cost).map(|once| once.peak_rss_bytes).max().unwrap_or(0);
        let slower = of_pool.iter().filter_map(|limited| limited.slower()).fold(0.0, f64::max);
        writeln!(
            out,
            "bar: pool {pool} MiB: {right} of {} end right, peak RSS {} MiB (≤ {}), at most {slower:.1} × without a limit (≤ {SLOWER}): {}",
            of_pool.len(),
            rss >> 20,
            pool + (BEYOND_POOL >> 20),
            if of_pool.iter().all(|limited| limited.fine()) { "met" } else { "MISSED" }
        )?;
    }
    Ok(measured.iter().all(Limited::fine))
}
