//! What the measurements say: ratios with intervals, regressions, planning, q-errors, memory.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sparklet_history::MachineRecord;

use crate::calibrate::Calibration;
use crate::home::Workload;
use crate::learning::Learned;
use crate::measure::Cost;
use crate::runs::{Column, CountedOperator, Measured, Plan, Sample, Track};
use crate::stats::{Estimate, geometric_mean, median, paired_ratio, quantile, total_ratio};

/// Milli-seconds that a regression costs at least.
const REGRESSION_MS: f64 = 20.0;

/// Everything about one invocation, as written to JSON. Ratios are to plain DataFusion: below 1 is faster.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Version of this format.
    pub(crate) format: u32,
    pub(crate) sparklet: String,
    pub(crate) datafusion: String,
    pub(crate) machine: MachineRecord,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) workload: Workload,
    pub(crate) scale: f64,
    pub(crate) track: Track,
    pub(crate) days: u32,
    pub(crate) pairs: u32,
    pub(crate) seed: u64,
    pub(crate) slots: usize,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) batch_size: Option<usize>,
    /// Whether sparklet changes plans in mid-run: `off`, `on` or `force`.
    pub(crate) adaptive: String,
    /// Changes of plans in mid-run by query, in the first pair of each day.
    pub(crate) adaptations: BTreeMap<String, usize>,
    /// Settings of DataFusion that the two engines do not share.
    pub(crate) different_settings: Vec<String>,
    /// Each column against plain DataFusion: `sparklet` (from the text of a query to its last row), `sparklet_whole` (with what comes
    /// after the result: a query's observations are read, the run is remembered), `plain_again` (noise), `tuned`.
    pub(crate) columns: BTreeMap<String, Comparison>,
    pub(crate) queries: Vec<QueryReport>,
    /// The same columns from the third day on: what has been learned by then.
    pub(crate) from_day_3: BTreeMap<String, Comparison>,
    /// Choices of plans, and predictions.
    pub(crate) learned: Learned,
    pub(crate) by_day: Vec<DayReport>,
    /// Planning time in milli-seconds, by column.
    pub(crate) planning_ms: BTreeMap<String, Quantiles>,
    /// Reading the observations of a query after its last row, in milli-seconds of wall time.
    pub(crate) observe_ms: Quantiles,
    /// Remembering a run of all queries, in milli-seconds of wall time.
    pub(crate) remember_ms: Quantiles,
    /// Registering all tables, in milli-seconds, median over the days, by column.
    pub(crate) registration_ms: BTreeMap<String, f64>,
    /// Expected against counted rows of operators whose count is complete, by day.
    pub(crate) q_error: BTreeMap<u32, Quantiles>,
    /// Those with the largest errors, by day.
    pub(crate) worst_expected: BTreeMap<u32, Vec<CountedOperator>>,
    /// Highest memory by column.
    pub(crate) memory: BTreeMap<String, Memory>,
    /// Share of the machine's CPU time that other processes used meanwhile, 0 to 1: beyond a few percent wall times say little.
    pub(crate) neighbours: Option<f64>,
    pub(crate) results_compared: u32,
    pub(crate) mismatches: Vec<String>,
    pub(crate) not_stored: Vec<String>,
    /// Queries of the moving track without a row, of all that were drawn.
    pub(crate) empty: u32,
    pub(crate) drawn: u32,
    /// How the settings of the third column were found.
    pub(crate) calibration: Option<Calibration>,
    pub(crate) samples: Vec<Sample>,
}

/// A column against plain DataFusion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Comparison {
    /// Sum of all wall times ÷ sum of plain's.
    pub(crate) wall: Estimate,
    /// The same in CPU time.
    pub(crate) cpu: Estimate,
    /// Sum over the queries of the median wall time ÷ sum of plain's medians: what a slow outlier does not move.
    pub(crate) median_wall: f64,
    pub(crate) median_cpu: f64,
    /// Geometric mean of the queries' ratios.
    pub(crate) geometric_mean_wall: f64,
    pub(crate) geometric_mean_cpu: f64,
    /// Queries slower by more than 1.1 × with 95 % confidence, and by more than 20 ms.
    pub(crate) over_1_1: Vec<String>,
    /// The same for 1.2 ×.
    pub(crate) over_1_2: Vec<String>,
}

/// A query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct QueryReport {
    pub(crate) name: String,
    /// Median wall time of plain DataFusion in milli-seconds.
    pub(crate) plain_ms: f64,
    pub(crate) columns: BTreeMap<String, QueryRatio>,
}

/// A query in a column.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct QueryRatio {
    /// Median wall time in milli-seconds.
    pub(crate) ms: f64,
    pub(crate) wall: Estimate,
    pub(crate) cpu: Estimate,
}

/// A day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DayReport {
    pub(crate) day: u32,
    /// Ratio of the sums of wall times, by column.
    pub(crate) wall: BTreeMap<String, f64>,
    pub(crate) cpu: BTreeMap<String, f64>,
    /// The whole day: registering the tables, every query once (mean over the pairs), and what comes after it.
    pub(crate) whole_day_wall: f64,
}

/// A distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
}

impl Quantiles {
    pub(crate) fn of(values: &[f64]) -> Self {
        let at = |q| if values.is_empty() { 0.0 } else { quantile(values, q) };
        Self { count: values.len(), p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99) }
    }
}

/// The middle and the ninth tenth of errors against what is asked of them: whether they are met, and in words.
pub(crate) fn against(of: &Quantiles, [p50, p90]: [f64; 2]) -> (bool, String) {
    let met = of.p50 <= p50 && of.p90 <= p90;
    let verdict = if met { "met" } else { "MISSED" };
    (met, format!("P50 {:.2}, P90 {:.2} ({p50} and {p90} are asked for: {verdict})", of.p50, of.p90))
}

/// Operators that a report names.
const WORST: usize = 60;

fn worst(of: &[CountedOperator]) -> Vec<CountedOperator> {
    let mut of = of.to_vec();
    of.sort_by(|a, b| b.q_error.total_cmp(&a.q_error));
    // One for each subplan: what moves rows gives as many.
    let mut seen = std::collections::BTreeSet::new();
    of.retain(|one| seen.insert((one.query.clone(), one.expected, one.rows)));
    of.truncate(WORST);
    of
}

fn by_day<T, U>(of: &BTreeMap<u32, Vec<T>>, read: impl Fn(&[T]) -> U) -> BTreeMap<u32, U> {
    of.iter().map(|(day, all)| (*day, read(all))).collect()
}

/// Highest memory of a column, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Memory {
    /// Reserved in the memory pool.
    pub(crate) pool: u64,
    /// Resident set of the process, which all columns share, while this one ran.
    pub(crate) process: u64,
}

/// A named way to read a sample.
type Reading = (&'static str, Column, fn(&Sample) -> (u64, u64));

/// The columns of the report, with wall and CPU time of a sample in micro-seconds.
const READINGS: [Reading; 4] = [
    ("sparklet", Column::Sparklet, |s| (s.cost.wall_us, s.cost.cpu_us)),
    ("sparklet_whole", Column::Sparklet, |s| (s.cost.wall_us + s.after.wall_us, s.cost.cpu_us + s.after.cpu_us)),
    ("plain_again", Column::PlainAgain, |s| (s.cost.wall_us, s.cost.cpu_us)),
    ("tuned", Column::Tuned, |s| (s.cost.wall_us, s.cost.cpu_us)),
];

fn column_name(column: Column) -> &'static str {
    match column {
        Column::Sparklet => "sparklet",
        Column::Plain => "plain",
        Column::PlainAgain => "plain_again",
        Column::Tuned => "tuned",
    }
}

/// Pairs of a column and plain DataFusion, by query: (column, plain) in micro-seconds, wall and CPU.
struct Pairs {
    wall: BTreeMap<u32, Vec<(f64, f64)>>,
    cpu: BTreeMap<u32, Vec<(f64, f64)>>,
}

/// Stands for the remembering of a run among its queries: it costs sparklet alone.
const REMEMBERING: u32 = 0;

fn pairs(samples: &[Sample], remembering: &[(u32, u32, Cost)], reading: Reading, days: impl RangeBounds<u32>) -> Pairs {
    let key = |s: &Sample| (s.day, s.query, s.pair);
    let wanted = |s: &&Sample| days.contains(&s.day);
    let plain: BTreeMap<_, _> =
        samples.iter().filter(wanted).filter(|s| s.column == Column::Plain).map(|s| (key(s), s)).collect();
    let mut pairs = Pairs { wall: BTreeMap::new(), cpu: BTreeMap::new() };
    for sample in samples.iter().filter(wanted).filter(|s| s.column == reading.1) {
        if let Some(base) = plain.get(&key(sample)) {
            let (wall, cpu) = reading.2(sample);
            pairs.wall.entry(sample.query).or_default().push((wall as f64, base.cost.wall_us as f64));
            pairs.cpu.entry(sample.query).or_default().push((cpu as f64, base.cost.cpu_us as f64));
        }
    }
    if reading.0 == "sparklet_whole" {
        for (_, _, cost) in remembering.iter().filter(|r| days.contains(&r.0)) {
            pairs.wall.entry(REMEMBERING).or_default().push((cost.wall_us as f64, 0.0));
            pairs.cpu.entry(REMEMBERING).or_default().push((cost.cpu_us as f64, 0.0));
        }
    }
    pairs
}

fn medians(pairs: &[(f64, f64)]) -> (f64, f64) {
    let side = |pick: fn(&(f64, f64)) -> f64| median(&pairs.iter().map(pick).collect::<Vec<_>>());
    (side(|p| p.0), side(|p| p.1))
}

fn median_total(by_query: &BTreeMap<u32, Vec<(f64, f64)>>) -> f64 {
    let (new, base) = by_query.values().map(|p| medians(p)).fold((0.0, 0.0), |sum, m| (sum.0 + m.0, sum.1 + m.1));
    new / base
}

fn comparison(pairs: &Pairs, seed: u64) -> Comparison {
    let ratios = |by_query: &BTreeMap<u32, Vec<(f64, f64)>>| -> Vec<f64> {
        by_query.iter().filter(|(query, _)| **query != REMEMBERING).map(|(_, p)| paired_ratio(p).value).collect()
    };
    let total =
        |by_query: &BTreeMap<u32, Vec<(f64, f64)>>| total_ratio(&by_query.values().cloned().collect::<Vec<_>>(), seed);
    let over = |limit: f64| -> Vec<String> {
        let slower = |(query, pairs): (&u32, &Vec<(f64, f64)>)| {
            let (new, base) = medians(pairs);
            (paired_ratio(pairs).lower > limit && (new - base) / 1000.0 > REGRESSION_MS).then(|| format!("q{query:02}"))
        };
        pairs.wall.iter().filter(|(query, _)| **query != REMEMBERING).filter_map(slower).collect()
    };
    Comparison {
        wall: total(&pairs.wall),
        cpu: total(&pairs.cpu),
        median_wall: median_total(&pairs.wall),
        median_cpu: median_total(&pairs.cpu),
        geometric_mean_wall: geometric_mean(&ratios(&pairs.wall)),
        geometric_mean_cpu: geometric_mean(&ratios(&pairs.cpu)),
        over_1_1: over(1.1),
        over_1_2: over(1.2),
    }
}

impl Report {
    /// Version of the format that this build writes.
    pub(crate) const FORMAT: u32 = 2;

    /// The report on what was measured.
    pub(crate) fn new(
        plan: &Plan,
        measured: Measured,
        calibration: Option<Calibration>,
        started_at: DateTime<Utc>,
    ) -> Self {
        let samples = measured.samples;
        let present: Vec<(Reading, Pairs)> = READINGS
            .into_iter()
            .map(|r| (r, pairs(&samples, &measured.remembering, r, ..)))
            .filter(|(_, p)| !p.wall.is_empty())
            .collect();
        let columns = present.iter().map(|(r, p)| (r.0.to_owned(), comparison(p, plan.seed))).collect();
        let late = READINGS.into_iter().map(|r| (r, pairs(&samples, &measured.remembering, r, 3..)));
        let from_day_3 = late
            .filter(|(_, pairs)| !pairs.wall.is_empty())
            .map(|(r, pairs)| (r.0.to_owned(), comparison(&pairs, plan.seed)))
            .filter(|(_, comparison)| comparison.wall.value.is_finite())
            .collect();
        let query = |number: u32| -> QueryReport {
            let ratio = |p: &Pairs| -> Option<QueryRatio> {
                let (wall, cpu) = (p.wall.get(&number)?, p.cpu.get(&number)?);
                Some(QueryRatio { ms: medians(wall).0 / 1000.0, wall: paired_ratio(wall), cpu: paired_ratio(cpu) })
            };
            let base = present.first().and_then(|(_, p)| p.wall.get(&number)).map_or(0.0, |p| medians(p).1 / 1000.0);
            let columns = present.iter().filter_map(|(r, p)| Some((r.0.to_owned(), ratio(p)?))).collect();
            QueryReport { name: format!("q{number:02}"), plain_ms: base, columns }
        };
        let of_column = |column: Column, value: fn(&Sample) -> f64| -> Vec<f64> {
            samples.iter().filter(|s| s.column == column).map(value).collect()
        };
        let by_column = |value: fn(&Sample) -> f64| -> BTreeMap<String, Quantiles> {
            let columns = [Column::Sparklet, Column::Plain];
            columns.into_iter().map(|c| (column_name(c).to_owned(), Quantiles::of(&of_column(c, value)))).collect()
        };
        let mut memory: BTreeMap<String, Memory> = BTreeMap::new();
        for sample in &samples {
            let highest = memory.entry(column_name(sample.column).to_owned()).or_default();
            highest.pool = highest.pool.max(sample.cost.peak_memory_bytes);
            highest.process = highest.process.max(sample.cost.peak_rss_bytes);
        }
        let registration = |column: Column| -> Vec<f64> {
            measured.registration.iter().filter(|r| r.1 == column).map(|r| r.2.wall_us as f64 / 1000.0).collect()
        };
        Self {
            format: Self::FORMAT,
            sparklet: env!("CARGO_PKG_VERSION").to_owned(),
            datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
            machine: crate::record::machine(),
            started_at,
            workload: plan.workload,
            scale: plan.scale,
            track: plan.track,
            days: plan.days,
            pairs: plan.pairs,
            seed: plan.seed,
            slots: plan.settings.slots,
            memory_limit_bytes: plan.settings.memory,
            batch_size: plan.settings.batch_size,
            adaptive: plan.settings.adaptive.mode.name().to_owned(),
            adaptations: measured.adaptations,
            different_settings: measured.different_settings,
            columns,
            queries: plan.queries.iter().map(|q| query(q.number)).collect(),
            from_day_3,
            learned: Learned::new(measured.choices, &measured.training),
            by_day: (1..=plan.days)
                .map(|day| day_report(day, &samples, &measured.registration, &measured.remembering))
                .collect(),
            planning_ms: by_column(|s| s.cost.planning_us as f64 / 1000.0),
            observe_ms: Quantiles::of(&of_column(Column::Sparklet, |s| s.after.wall_us as f64 / 1000.0)),
            remember_ms: Quantiles::of(
                &measured.remembering.iter().map(|r| r.2.wall_us as f64 / 1000.0).collect::<Vec<_>>(),
            ),
            registration_ms: [Column::Sparklet, Column::Plain]
                .into_iter()
                .map(|c| (column_name(c).to_owned(), median(&registration(c))))
                .collect(),
            q_error: by_day(&measured.counted, |of| {
                Quantiles::of(&of.iter().map(|one| one.q_error).collect::<Vec<_>>())
            }),
            worst_expected: by_day(&measured.counted, worst),
            memory,
            neighbours: measured.neighbours,
            results_compared: measured.compared,
            mismatches: measured.mismatches,
            not_stored: measured.not_stored,
            empty: measured.empty,
            drawn: measured.drawn,
            calibration,
            samples,
        }
    }
}

fn day_report(
    day: u32,
    samples: &[Sample],
    registration: &[(u32, Column, Cost)],
    remembering: &[(u32, u32, Cost)],
) -> DayReport {
    let mut report = DayReport { day, wall: BTreeMap::new(), cpu: BTreeMap::new(), whole_day_wall: f64::NAN };
    let sums = |by_query: &BTreeMap<u32, Vec<(f64, f64)>>| {
        by_query.values().flatten().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1))
    };
    let registered = |column: Column| {
        registration.iter().filter(|r| r.0 == day && r.1 == column).map(|r| r.2.wall_us as f64).sum::<f64>()
    };
    for reading in READINGS {
        let pairs = pairs(samples, remembering, reading, day..=day);
        let (wall, cpu) = (sums(&pairs.wall), sums(&pairs.cpu));
        if wall.1 > 0.0 {
            report.wall.insert(reading.0.to_owned(), wall.0 / wall.1);
            report.cpu.insert(reading.0.to_owned(), cpu.0 / cpu.1);
        }
        if reading.0 == "sparklet_whole" && wall.1 > 0.0 {
            let means = |pick: fn(&(f64, f64)) -> f64| {
                pairs.wall.values().map(|p| p.iter().map(pick).sum::<f64>() / p.len() as f64).sum::<f64>()
            };
            report.whole_day_wall =
                (means(|p| p.0) + registered(Column::Sparklet)) / (means(|p| p.1) + registered(Column::Plain));
        }
    }
    report
}

#[cfg(test)]
mod tests;
