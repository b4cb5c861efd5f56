//! What the runs over skewed facts say, case by case, against the bars.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sparklet_history::{Adaptation, AdaptationKind, MachineRecord};

use super::cases::{Case, Kind};
use super::data::Size;
use super::runs::{Column, Measured, Plan, Sample, Spread};
use super::timed::Stage;
use crate::measure::Cost;
use crate::stats::{Estimate, makespan, median, paired_ratio};

/// Longest makespan of the skewed stage, in parts of its CPU time ÷ slots.
pub(crate) const MAKESPAN_BAR: f64 = 1.25;
/// Most CPU time, in parts of plain DataFusion's.
pub(crate) const CPU_BAR: f64 = 1.10;
/// Most of the CPU time of exchanges that sketches and counts may take.
pub(crate) const FACTS_BAR: f64 = 0.02;
/// Longest wall time, in parts of that over even facts.
pub(crate) const EVEN_BAR: f64 = 1.15;

/// Everything about one invocation, as written to JSON. Ratios below 1 are faster.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// Version of this format.
    pub(crate) format: u32,
    pub(crate) sparklet: String,
    pub(crate) datafusion: String,
    pub(crate) machine: MachineRecord,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) size: Size,
    pub(crate) pairs: u32,
    pub(crate) seed: u64,
    /// Slots of the pairs.
    pub(crate) slots: usize,
    /// Numbers of slots for which tasks were measured.
    pub(crate) spread: Vec<usize>,
    pub(crate) memory_limit_bytes: u64,
    /// Whether sparklet changes plans in mid-run: `off`, `on` or `force`.
    pub(crate) adaptive: String,
    /// Rows of both inputs from which it does.
    pub(crate) min_rows: u64,
    pub(crate) different_settings: Vec<String>,
    /// Share of the machine's CPU time that other processes used meanwhile, 0 to 1.
    pub(crate) neighbours: Option<f64>,
    pub(crate) cases: Vec<CaseReport>,
    pub(crate) results_compared: u32,
    pub(crate) mismatches: Vec<String>,
    pub(crate) failures: Vec<String>,
    pub(crate) samples: Vec<Sample>,
}

/// A case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CaseReport {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Median wall time over the skewed facts in milli-seconds.
    pub(crate) plain_ms: f64,
    pub(crate) sparklet_ms: f64,
    /// Sparklet ÷ plain, both over the skewed facts.
    pub(crate) wall: Estimate,
    pub(crate) cpu: Estimate,
    /// Plain ÷ plain: noise.
    pub(crate) again_wall: Estimate,
    pub(crate) again_cpu: Estimate,
    /// Wall time over the skewed facts ÷ over the even ones: sparklet's, and plain DataFusion's.
    pub(crate) uneven: Estimate,
    pub(crate) plain_uneven: Estimate,
    /// What sparklet changed in mid-run in the first pair, with the CPU time of its tasks.
    pub(crate) adaptations: Vec<Adaptation>,
    pub(crate) spreads: Vec<SpreadReport>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// How the work of the skewed stage lies on a number of slots.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SpreadReport {
    pub(crate) slots: usize,
    /// Sparklet ÷ plain DataFusion, the whole query.
    pub(crate) wall: Estimate,
    pub(crate) cpu: Estimate,
    pub(crate) runs: Vec<SpreadRun>,
}

/// The case run once on both engines.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SpreadRun {
    /// The stage of plain DataFusion, and its tasks (one a partition).
    pub(crate) plain_stage: Option<Stage>,
    pub(crate) plain: Option<Balance>,
    /// Of each adaptation that ran tasks of its own.
    pub(crate) sparklet: Vec<Balance>,
    pub(crate) adaptations: Vec<Adaptation>,
    pub(crate) plain_cost: Cost,
    pub(crate) sparklet_cost: Cost,
}

impl SpreadRun {
    fn new(spread: &Spread) -> Self {
        Self {
            plain: spread.stage.as_ref().and_then(|stage| Balance::of(&stage.task_cpu_us, spread.slots)),
            plain_stage: spread.stage.clone(),
            sparklet: spread.adaptations.iter().filter_map(|a| Balance::of(&a.task_cpu_us, spread.slots)).collect(),
            adaptations: spread.adaptations.clone(),
            plain_cost: spread.plain,
            sparklet_cost: spread.sparklet,
        }
    }

    /// Makespan of sparklet's tasks ÷ of plain DataFusion's, where both have one stage of them. What was written to exchanges before
    /// is not in it.
    pub(crate) fn gain(&self) -> Option<f64> {
        let ([ours], Some(theirs)) = (self.sparklet.as_slice(), &self.plain) else { return None };
        Some(ours.makespan_us as f64 / theirs.makespan_us.max(1) as f64)
    }
}

/// Tasks on slots.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Balance {
    pub(crate) tasks: usize,
    /// CPU time of all tasks.
    pub(crate) cpu_us: u64,
    pub(crate) longest_us: u64,
    /// Time until the last ends when the slots take them one by one, the longest first.
    pub(crate) makespan_us: u64,
    /// Makespan ÷ (CPU time ÷ slots): 1 is even.
    pub(crate) ratio: f64,
}

impl Balance {
    /// None without work.
    pub(crate) fn of(tasks: &[u64], slots: usize) -> Option<Self> {
        let cpu_us: u64 = tasks.iter().sum();
        let makespan_us = makespan(tasks, slots);
        (cpu_us > 0).then(|| Self {
            tasks: tasks.len(),
            cpu_us,
            longest_us: tasks.iter().copied().max().unwrap_or(0),
            makespan_us,
            ratio: makespan_us as f64 * slots as f64 / cpu_us as f64,
        })
    }
}

/// A bar and whether it was met.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) bar: f64,
    pub(crate) value: Option<f64>,
    pub(crate) outcome: Outcome,
}

/// How a bar came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Met,
    Missed,
    /// The pairs leave a doubt.
    Undecided,
    /// Nothing was adapted: there is nothing to measure.
    NotAdapted,
}

impl Verdict {
    fn of(what: &str, bar: f64, estimate: Estimate) -> Self {
        let outcome = if estimate.upper <= bar {
            Outcome::Met
        } else if estimate.lower > bar {
            Outcome::Missed
        } else {
            Outcome::Undecided
        };
        Self { what: what.to_owned(), bar, value: Some(estimate.value).filter(|v| v.is_finite()), outcome }
    }

    /// The worst of the runs counts; where nothing was adapted, of the stage of the plain plan, which may be even by itself.
    fn of_balance(slots: usize, balances: &[Balance], plain: &[Balance]) -> Self {
        let worst = |balances: &[Balance]| balances.iter().map(|b| b.ratio).max_by(f64::total_cmp);
        let (value, otherwise) = match worst(balances) {
            Some(value) => (Some(value), Outcome::Missed),
            None => (worst(plain), Outcome::NotAdapted),
        };
        let outcome = if value.is_some_and(|value| value <= MAKESPAN_BAR) { Outcome::Met } else { otherwise };
        Self { what: format!("makespan on {slots} slots ÷ even"), bar: MAKESPAN_BAR, value, outcome }
    }
}

impl Report {
    /// Version of the format that this build writes.
    pub(crate) const FORMAT: u32 = 1;

    /// The report on what was measured.
    pub(crate) fn new(plan: &Plan, measured: Measured, started_at: DateTime<Utc>) -> Self {
        let cases = plan.cases.iter().map(|case| case_report(case, &measured)).collect();
        Self {
            format: Self::FORMAT,
            sparklet: env!("CARGO_PKG_VERSION").to_owned(),
            datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
            machine: crate::record::machine(),
            started_at,
            size: plan.size,
            pairs: plan.pairs,
            seed: plan.seed,
            slots: plan.settings.slots,
            spread: plan.spread.clone(),
            memory_limit_bytes: plan.settings.memory,
            adaptive: plan.settings.adaptive.mode.name().to_owned(),
            min_rows: plan.settings.adaptive.min_rows,
            different_settings: measured.different_settings,
            neighbours: measured.neighbours,
            cases,
            results_compared: measured.compared,
            mismatches: measured.mismatches,
            failures: measured.failures,
            samples: measured.samples,
        }
    }

    /// True if all results are the same, all cases ran and all bars were met.
    pub(crate) fn fine(&self) -> bool {
        let met = |case: &CaseReport| case.verdicts.iter().all(|v| v.outcome == Outcome::Met);
        self.mismatches.is_empty() && self.failures.is_empty() && self.cases.iter().all(met)
    }
}

fn case_report(case: &Case, measured: &Measured) -> CaseReport {
    let times = |column: Column, time: fn(&Cost) -> u64| -> Vec<(u32, f64)> {
        let of_column = measured.samples.iter().filter(|s| s.case == case.name && s.column == column);
        of_column.map(|s| (s.pair, time(&s.cost) as f64)).collect()
    };
    let ratio = |new: Column, base: Column, time: fn(&Cost) -> u64| -> Estimate {
        let base = times(base, time);
        let base_of = |pair: u32| base.iter().find(|b| b.0 == pair).map(|b| b.1);
        let pairs: Vec<_> = times(new, time).into_iter().filter_map(|(pair, t)| Some((t, base_of(pair)?))).collect();
        paired_ratio(&pairs)
    };
    let ms = |column| median(&times(column, |c| c.wall_us).iter().map(|t| t.1 / 1000.0).collect::<Vec<_>>());
    let (cpu, uneven) = (
        ratio(Column::Sparklet, Column::Plain, |c| c.cpu_us),
        ratio(Column::Sparklet, Column::SparkletEven, |c| c.wall_us),
    );
    let mut slots: Vec<usize> = Vec::new();
    let of_case: Vec<&Spread> = measured.spreads.iter().filter(|s| s.case == case.name).collect();
    of_case.iter().for_each(|s| {
        if !slots.contains(&s.slots) {
            slots.push(s.slots)
        }
    });
    let spreads: Vec<SpreadReport> = slots.into_iter().map(|slots| spread(slots, &of_case)).collect();
    let mut verdicts = Vec::new();
    for spread in &spreads {
        let balances: Vec<Balance> = spread.runs.iter().flat_map(|run| run.sparklet.clone()).collect();
        let plain: Vec<Balance> = spread.runs.iter().filter_map(|run| run.plain).collect();
        verdicts.push(Verdict::of_balance(spread.slots, &balances, &plain));
        verdicts.push(Verdict::of(&format!("CPU on {} slots ÷ plain", spread.slots), CPU_BAR, spread.cpu));
    }
    let adaptations = measured.adaptations.get(case.name).cloned().unwrap_or_default();
    let exchanges: u64 = adaptations.iter().map(|a| a.cost_us).sum();
    if exchanges > 0 {
        let facts = adaptations.iter().map(|a| a.facts_us).sum::<u64>() as f64 / exchanges as f64;
        let outcome = if facts <= FACTS_BAR { Outcome::Met } else { Outcome::Missed };
        verdicts.push(Verdict { what: "sketches ÷ exchange".to_owned(), bar: FACTS_BAR, value: Some(facts), outcome });
    }
    verdicts.push(Verdict::of("CPU ÷ plain", CPU_BAR, cpu));
    verdicts.push(Verdict::of("wall, skewed ÷ even", EVEN_BAR, uneven));
    CaseReport {
        name: case.name,
        kind: case.kind,
        plain_ms: ms(Column::Plain),
        sparklet_ms: ms(Column::Sparklet),
        wall: ratio(Column::Sparklet, Column::Plain, |c| c.wall_us),
        cpu,
        again_wall: ratio(Column::PlainAgain, Column::Plain, |c| c.wall_us),
        again_cpu: ratio(Column::PlainAgain, Column::Plain, |c| c.cpu_us),
        uneven,
        plain_uneven: ratio(Column::Plain, Column::PlainEven, |c| c.wall_us),
        adaptations,
        spreads,
        verdicts,
    }
}

fn spread(slots: usize, of_case: &[&Spread]) -> SpreadReport {
    let of_slots = || of_case.iter().filter(|s| s.slots == slots);
    let ratio = |time: fn(&Cost) -> u64| {
        paired_ratio(&of_slots().map(|s| (time(&s.sparklet) as f64, time(&s.plain) as f64)).collect::<Vec<_>>())
    };
    SpreadReport {
        slots,
        wall: ratio(|c| c.wall_us),
        cpu: ratio(|c| c.cpu_us),
        runs: of_slots().map(|s| SpreadRun::new(s)).collect(),
    }
}

/// `DivideJoin` and the like, with what they were over.
pub(crate) fn describe(adaptation: &Adaptation) -> String {
    match &adaptation.kind {
        AdaptationKind::DivideJoin { units, split_buckets, .. } => format!(
            "join divided into {units} units, {split_buckets} buckets split, exchanges {:.0} ms of CPU",
            adaptation.cost_us as f64 / 1000.0
        ),
        AdaptationKind::SplitGroups { distinct, hot_buckets, slices, .. } => format!(
            "{hot_buckets} hot buckets of groups in {slices} slices, {} distinct arguments, exchange {:.0} ms of CPU",
            distinct.len(),
            adaptation.cost_us as f64 / 1000.0
        ),
        AdaptationKind::SplitWindow { how, hot_buckets, slices, .. } => format!(
            "{hot_buckets} hot buckets of partitions in {slices} slices ({how:?}), exchange {:.0} ms of CPU",
            adaptation.cost_us as f64 / 1000.0
        ),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_task_is_seen_and_slices_of_it_are_even() {
        let hot = Balance::of(&[10, 10, 10, 470], 4).unwrap();
        assert!((hot.ratio - 3.76).abs() < 1e-9 && hot.longest_us == 470, "{hot:?}");
        let cut = Balance::of(&[25; 20], 4).unwrap();
        assert_eq!((cut.tasks, cut.makespan_us, cut.ratio), (20, 125, 1.0));
        assert_eq!(Balance::of(&[0, 0], 4), None);
        assert_eq!(Balance::of(&[], 4), None);
    }

    #[test]
    fn a_bar_is_met_only_without_a_doubt() {
        let estimate = |value, lower, upper| Estimate { value, lower, upper };
        let outcome = |e| Verdict::of("", 1.1, e).outcome;
        assert_eq!(outcome(estimate(1.05, 1.0, 1.1)), Outcome::Met);
        assert_eq!(outcome(estimate(1.05, 1.0, 1.2)), Outcome::Undecided);
        assert_eq!(outcome(estimate(1.3, 1.2, 1.4)), Outcome::Missed);
        assert_eq!(outcome(estimate(f64::NAN, 0.0, f64::INFINITY)), Outcome::Undecided);
        let balance = |ratio| Balance { tasks: 1, cpu_us: 1, longest_us: 1, makespan_us: 1, ratio };
        let outcome = |b: &[Balance]| Verdict::of_balance(8, b, &[]).outcome;
        assert_eq!(Verdict::of_balance(8, &[], &[balance(1.1)]).outcome, Outcome::Met, "even by itself");
        assert_eq!(Verdict::of_balance(8, &[], &[balance(1.9)]).outcome, Outcome::NotAdapted);
        assert_eq!(outcome(&[]), Outcome::NotAdapted);
        assert_eq!(outcome(&[balance(1.0), balance(1.2)]), Outcome::Met);
        assert_eq!(outcome(&[balance(1.0), balance(1.3)]), Outcome::Missed);
    }
}
