//! A report over skewed facts as text.

use std::io::{self, Write};

use super::report::{
    Balance, CPU_BAR, CaseReport, EVEN_BAR, FACTS_BAR, MAKESPAN_BAR, Outcome, Report, SpreadReport, describe,
};
use crate::text::show;

/// Share of the machine from which other processes disturb a measurement.
const BUSY: f64 = 0.05;

/// Writes the report without its samples.
pub(crate) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{} rows, one key with 40 %, {} keys; adaptive {} from {} rows, {} pairs, {} slots, {} cores, {} MiB, sparklet {} beside DataFusion {}, seed {}",
        report.size.rows,
        report.size.keys,
        report.adaptive,
        report.min_rows,
        report.pairs,
        report.slots,
        report.machine.cores,
        report.memory_limit_bytes >> 20,
        report.sparklet,
        report.datafusion,
        report.seed
    )?;
    writeln!(out, "ratios of sparklet to plain DataFusion, below 1 is faster; in brackets the 95 % bounds\n")?;
    writeln!(
        out,
        "{:<13} {:>9} {:>9} {:<22} {:<22} {:<22} {:<22}",
        "", "plain ms", "sparkl.", "wall", "cpu", "plain again wall", "plain again cpu"
    )?;
    for case in &report.cases {
        writeln!(
            out,
            "{:<13} {:>9.0} {:>9.0} {:<22} {:<22} {:<22} {:<22}",
            case.name,
            case.plain_ms,
            case.sparklet_ms,
            show(case.wall),
            show(case.cpu),
            show(case.again_wall),
            show(case.again_cpu)
        )?;
    }
    writeln!(out, "\n{:<13} {:<22} {:<22} mid-run changes", "skewed ÷ even", "sparklet wall", "plain wall")?;
    for case in &report.cases {
        writeln!(out, "{:<13} {:<22} {:<22} {}", case.name, show(case.uneven), show(case.plain_uneven), changes(case))?;
    }
    for &slots in &report.spread {
        writeln!(
            out,
            "\non {slots} slots: tasks, longest task, makespan ÷ (CPU ÷ slots) of the skewed stage, by thread CPU time (first run)\n{:<13} {:<26} {:<26} {:>18}  {:<22} {:<22}",
            "", "plain", "sparklet", "makespan ÷ plain's", "wall of all", "cpu of all"
        )?;
        for case in &report.cases {
            // Cases that failed lack it.
            if let Some(spread) = case.spreads.iter().find(|s| s.slots == slots) {
                spread_row(case.name, spread, out)?;
            }
        }
    }
    writeln!(
        out,
        "\nbars: makespan ÷ even ≤ {MAKESPAN_BAR}, CPU ÷ plain ≤ {CPU_BAR}, wall skewed ÷ even ≤ {EVEN_BAR}, sketches ÷ exchange ≤ {FACTS_BAR}"
    )?;
    for case in &report.cases {
        let verdicts: Vec<String> = case
            .verdicts
            .iter()
            .map(|v| {
                let value = v.value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
                format!("{} {value} {}", v.what, outcome(v.outcome))
            })
            .collect();
        writeln!(out, "{:<13} {}", case.name, verdicts.join("; "))?;
    }
    if let Some(share) = report.neighbours.filter(|share| *share > BUSY) {
        writeln!(
            out,
            "BUSY MACHINE: other processes used {:.0} % of it: wall times say little, CPU times less than usual",
            share * 100.0
        )?;
    }
    for (what, list) in [
        ("setting that differs (plain → sparklet)", &report.different_settings),
        ("FAILED", &report.failures),
        ("MISMATCH", &report.mismatches),
    ] {
        for line in list {
            writeln!(out, "{what}: {line}")?;
        }
    }
    writeln!(out, "results: {} compared, {} differ", report.results_compared, report.mismatches.len())
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Met => "met",
        Outcome::Missed => "MISSED",
        Outcome::Undecided => "UNDECIDED",
        Outcome::NotAdapted => "NOT ADAPTED",
    }
}

fn changes(case: &CaseReport) -> String {
    if case.adaptations.is_empty() {
        return "nothing was adapted".to_owned();
    }
    case.adaptations.iter().map(describe).collect::<Vec<_>>().join("; ")
}

fn spread_row(name: &str, spread: &SpreadReport, out: &mut dyn Write) -> io::Result<()> {
    let Some(run) = spread.runs.first() else { return Ok(()) };
    let balance = |b: &Balance| format!("{} tasks, {:.0} ms, {:.2}", b.tasks, b.longest_us as f64 / 1000.0, b.ratio);
    let plain = run.plain.as_ref().map_or_else(|| "no stage over hashed rows".to_owned(), balance);
    let sparklet = match run.sparklet.as_slice() {
        [] if run.adaptations.is_empty() => "nothing was adapted".to_owned(),
        [] => "adapted, no tasks".to_owned(),
        all => all.iter().map(balance).collect::<Vec<_>>().join("; "),
    };
    let gain = run.gain().map_or_else(|| "–".to_owned(), |gain| format!("{gain:.3}"));
    writeln!(
        out,
        "{name:<13} {plain:<26} {sparklet:<26} {gain:>18}  {:<22} {:<22}",
        show(spread.wall),
        show(spread.cpu)
    )
}
