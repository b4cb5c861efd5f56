//! The best single global settings of plain DataFusion for a workload, so that a global switch is not taken for learning.
//!
//! Every candidate changes one thing. All run all queries, two rounds, the better time of each query counts; a candidate that is far
//! behind is stopped. What wins alone is then tried together. The least total wall time is chosen, and the defaults where nothing is better.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::engine::{Plain, Settings};
use crate::error::Result;
use crate::queries::Query;

/// Settings of DataFusion by dotted name.
pub(crate) type Options = BTreeMap<String, String>;

/// A candidate and how it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Tried {
    pub(crate) name: String,
    pub(crate) options: Options,
    /// Sum over the queries of the better of two rounds, in micro-seconds; none if it failed or was stopped for being far behind.
    pub(crate) wall_us: Option<u64>,
    /// Why there is no time.
    pub(crate) stopped: Option<String>,
}

/// The outcome of a calibration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Calibration {
    /// What was chosen; empty: the defaults.
    pub(crate) best: Options,
    pub(crate) tried: Vec<Tried>,
}

const ROUNDS: u32 = 2;
/// A candidate is stopped once it has taken this many times the defaults' time of the queries that it has run, and of a fifth of all.
const FAR_BEHIND: f64 = 1.5;
/// Gain from which a candidate is tried together with others.
const WORTHWHILE: f64 = 0.99;

/// The candidates: one change each, all of them settings that a user could set for a whole session.
fn candidates(slots: usize) -> Vec<(&'static str, Options)> {
    let options = |pairs: &[(&str, String)]| -> Options {
        pairs.iter().map(|(k, v)| (format!("datafusion.{k}"), v.clone())).collect()
    };
    let yes = || "true".to_owned();
    let no = || "false".to_owned();
    vec![
        ("pushdown_filters", options(&[("execution.parquet.pushdown_filters", yes())])),
        (
            "pushdown_filters, reorder_filters",
            options(&[("execution.parquet.pushdown_filters", yes()), ("execution.parquet.reorder_filters", yes())]),
        ),
        ("twice the partitions", options(&[("execution.target_partitions", (slots * 2).to_string())])),
        ("one partition", options(&[("execution.target_partitions", "1".to_owned())])),
        ("batches of 32768 rows", options(&[("execution.batch_size", "32768".to_owned())])),
        ("no partitioned joins", options(&[("optimizer.repartition_joins", no())])),
        (
            "broadcast up to 16 MiB",
            options(&[
                ("optimizer.hash_join_single_partition_threshold", (16 << 20).to_string()),
                ("optimizer.hash_join_single_partition_threshold_rows", "2000000".to_owned()),
            ]),
        ),
        (
            "no broadcast",
            options(&[
                ("optimizer.hash_join_single_partition_threshold", "0".to_owned()),
                ("optimizer.hash_join_single_partition_threshold_rows", "0".to_owned()),
            ]),
        ),
        ("sort-merge joins", options(&[("optimizer.prefer_hash_join", no())])),
        ("no dynamic filters", options(&[("optimizer.enable_dynamic_filter_pushdown", no())])),
        ("statistics registry", options(&[("optimizer.use_statistics_registry", yes())])),
    ]
}

/// Finds the best options for `queries` over `tables`.
pub(crate) async fn calibrate(
    settings: &Settings,
    tables: &[(String, PathBuf)],
    queries: &[Query],
    out: &mut dyn Write,
) -> Result<Calibration> {
    let mut defaults = vec![u64::MAX; queries.len()];
    let mut tried = vec![attempt("defaults", Options::new(), settings, tables, queries, &mut defaults, true).await?];
    for (name, options) in candidates(settings.slots) {
        write!(out, "\rcalibrating: {name:<40}")?;
        out.flush()?;
        tried.push(attempt(name, options, settings, tables, queries, &mut defaults, false).await?);
    }
    let default_us = tried[0].wall_us.unwrap_or(u64::MAX);
    let gains = |t: &&Tried| t.wall_us.is_some_and(|us| (us as f64) < default_us as f64 * WORTHWHILE);
    let mut winners: Vec<&Tried> = tried[1..].iter().filter(gains).collect();
    // The best first: where two set the same thing, the better one has it.
    winners.sort_by_key(|t| t.wall_us);
    if winners.len() > 1 {
        let mut together = Options::new();
        for (name, value) in winners.iter().flat_map(|t| &t.options) {
            together.entry(name.clone()).or_insert_with(|| value.clone());
        }
        tried
            .push(attempt("all that gain, together", together, settings, tables, queries, &mut defaults, false).await?);
    }
    let best = tried
        .iter()
        .filter(|t| t.wall_us.is_some())
        .min_by_key(|t| t.wall_us)
        .map(|t| t.options.clone())
        .unwrap_or_default();
    writeln!(out, "\rcalibrated: {}{:<40}", if best.is_empty() { "the defaults are best" } else { "" }, show(&best))?;
    Ok(Calibration { best, tried })
}

/// `name = value`, separated by commas.
pub(crate) fn show(options: &Options) -> String {
    options.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
}

async fn attempt(
    name: &str,
    options: Options,
    settings: &Settings,
    tables: &[(String, PathBuf)],
    queries: &[Query],
    defaults: &mut [u64],
    is_default: bool,
) -> Result<Tried> {
    let mut tried = Tried { name: name.to_owned(), options, wall_us: None, stopped: None };
    let plain = match Plain::new(settings, &tried.options) {
        Ok(plain) => plain,
        Err(error) => {
            tried.stopped = Some(error.to_string());
            return Ok(tried);
        }
    };
    plain.register(tables).await?;
    let mut best = vec![u64::MAX; queries.len()];
    let fifth = defaults.iter().fold(0_u64, |sum, us| sum.saturating_add(*us)) / 5;
    for round in 0..ROUNDS {
        let (mut taken, mut allowed) = (0_u64, fifth);
        for (i, query) in queries.iter().enumerate() {
            match plain.run(&query.sql).await {
                Ok(answer) => best[i] = best[i].min(answer.cost.wall_us),
                Err(error) if is_default => return Err(error.at(query.name())),
                Err(error) => {
                    tried.stopped = Some(format!("{}: {error}", query.name()));
                    return Ok(tried);
                }
            }
            taken += best[i];
            allowed = allowed.saturating_add(defaults[i]);
            if !is_default && taken as f64 > allowed as f64 * FAR_BEHIND {
                tried.stopped = Some(format!("far behind after {} of round {}", query.name(), round + 1));
                return Ok(tried);
            }
        }
    }
    if is_default {
        defaults.copy_from_slice(&best);
    }
    tried.wall_us = Some(best.iter().sum());
    Ok(tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_is_known_to_datafusion_and_changes_something() {
        let settings = Settings {
            slots: 2,
            memory: 64 << 20,
            batch_size: None,
            spill: std::env::temp_dir(),
            adaptive: Default::default(),
        };
        let entries = |plain: &Plain| -> Vec<_> {
            plain.context().copied_config().options().entries().into_iter().map(|e| (e.key, e.value)).collect()
        };
        let default = entries(&Plain::new(&settings, &Options::new()).unwrap());
        for (name, options) in candidates(2) {
            let changed = entries(&Plain::new(&settings, &options).unwrap_or_else(|e| panic!("{name}: {e}")));
            assert_ne!(changed, default, "{name}");
        }
    }
}
