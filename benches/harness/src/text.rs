//! A report as text.

use std::io::{self, Write};

use crate::calibrate;
use crate::learning::Learned;
use crate::report::{Comparison, Quantiles, Report};
use crate::stats::Estimate;

/// Share of the machine from which other processes disturb a measurement.
const BUSY: f64 = 0.05;

/// Writes the report without its samples.
pub(crate) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let track = format!("{:?}", report.track).to_lowercase();
    writeln!(
        out,
        "{} scale {}, {track}, {} days × {} pairs, {} slots, {} MiB, adaptive {}, sparklet {} beside DataFusion {}, seed {}",
        report.workload.name(),
        report.scale,
        report.days,
        report.pairs,
        report.slots,
        report.memory_limit_bytes >> 20,
        report.adaptive,
        report.sparklet,
        report.datafusion,
        report.seed
    )?;
    writeln!(out, "ratios to plain DataFusion, below 1 is faster; in brackets the 95 % bounds\n")?;
    queries(report, out)?;
    writeln!(
        out,
        "\n{:<16} {:<24} {:<24} {:>9} {:>9} {:>9}  over 1.1 × / 1.2 ×",
        "total", "wall", "cpu", "medians", "cpu", "geo.mean"
    )?;
    for (name, column) in &report.columns {
        total(name, column, out)?;
    }
    if report.days > 3 {
        writeln!(out, "from the third day on")?;
        for (name, column) in &report.from_day_3 {
            total(name, column, out)?;
        }
    }
    learned(&report.learned, out)?;
    if report.days > 1 {
        writeln!(out, "\nday   sparklet  plain again  whole day")?;
        for day in &report.by_day {
            let of = |name: &str| day.wall.get(name).copied().unwrap_or(f64::NAN);
            writeln!(
                out,
                "{:>3} {:>10.3} {:>12.3} {:>10.3}",
                day.day,
                of("sparklet"),
                of("plain_again"),
                day.whole_day_wall
            )?;
        }
    } else if let Some(day) = report.by_day.first() {
        writeln!(out, "\nwhole day (tables registered, every query once, runs remembered): {:.3}", day.whole_day_wall)?;
    }
    writeln!(out)?;
    for (name, q) in &report.planning_ms {
        let registration = report.registration_ms.get(name).copied().unwrap_or(f64::NAN);
        let memory = report.memory.get(name).copied().unwrap_or_default();
        writeln!(
            out,
            "{name:<9} planning P50 {:.2} ms, P99 {:.2} ms; registration {registration:.1} ms; peak memory {:.0} MiB of the pool, {:.0} MiB of the process",
            q.p50,
            q.p99,
            memory.pool as f64 / 1048576.0,
            memory.process as f64 / 1048576.0
        )?;
    }
    let (observe, remember) = (report.observe_ms, report.remember_ms);
    writeln!(
        out,
        "after the result: observations of a query P50 {:.2} ms, P99 {:.2} ms; remembering a run of all P50 {:.2} ms, P99 {:.2} ms",
        observe.p50, observe.p99, remember.p50, remember.p99
    )?;
    for (day, q) in &report.q_error {
        let Quantiles { count, p50, p95, p99, .. } = q;
        writeln!(
            out,
            "day {day}: rows of {count} operators, expected ÷ counted: P50 {p50:.2}, P95 {p95:.2}, P99 {p99:.2}"
        )?;
    }
    if report.adaptive != "off" {
        let adapted: Vec<String> = report.adaptations.iter().map(|(query, n)| format!("{query} {n} ×")).collect();
        let list = if adapted.is_empty() { "none".to_owned() } else { adapted.join(", ") };
        writeln!(out, "changed in mid-run: {list}")?;
    }
    if report.drawn > 0 {
        writeln!(out, "literals drawn for {} queries, {} of them without a row", report.drawn, report.empty)?;
    }
    if let Some(calibration) = &report.calibration {
        let best =
            if calibration.best.is_empty() { "the defaults".to_owned() } else { calibrate::show(&calibration.best) };
        writeln!(out, "best global settings of plain DataFusion: {best}")?;
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
        ("not stored", &report.not_stored),
        ("MISMATCH", &report.mismatches),
    ] {
        for line in list.iter().take(20) {
            writeln!(out, "{what}: {line}")?;
        }
        if list.len() > 20 {
            writeln!(out, "{what}: {} more", list.len() - 20)?;
        }
    }
    writeln!(out, "results: {} compared, {} differ", report.results_compared, report.mismatches.len())
}

fn learned(learned: &Learned, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    for (day, roles) in &learned.roles {
        let roles: Vec<String> = roles.iter().map(|(role, n)| format!("{n} {role}")).collect();
        writeln!(out, "plans on day {day}: {}", roles.join(", "))?;
    }
    let (searched, looked_up, training) = (learned.searched_ms, learned.looked_up_ms, learned.training_ms);
    writeln!(
        out,
        "planning added: searched {} ×, P50 {:.2} ms, P99 {:.2} ms; looked up {} ×, P50 {:.2} ms, P99 {:.2} ms; training P50 {:.0} ms",
        searched.count, searched.p50, searched.p99, looked_up.count, looked_up.p50, looked_up.p99, training.p50
    )?;
    if learned.prediction.count > 0 {
        let q = learned.prediction;
        writeln!(
            out,
            "predicted CPU time of {} queries from day 3 on: q-error P50 {:.2}, P90 {:.2}, P99 {:.2}; {:.0} % within their interval",
            q.count,
            q.p50,
            q.p90,
            q.p99,
            learned.coverage * 100.0
        )?;
    }
    Ok(())
}

fn queries(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let tuned = report.columns.contains_key("tuned");
    write!(
        out,
        "{:<5} {:>10} {:>10} {:<24} {:<24} {:<24}",
        "", "plain ms", "sparkl. ms", "sparklet wall", "sparklet cpu", "plain again wall"
    )?;
    writeln!(out, "{}", if tuned { " tuned wall" } else { "" })?;
    for query in &report.queries {
        let Some(sparklet) = query.columns.get("sparklet") else { continue };
        write!(
            out,
            "{:<5} {:>10.1} {:>10.1} {:<24} {:<24}",
            query.name,
            query.plain_ms,
            sparklet.ms,
            show(sparklet.wall),
            show(sparklet.cpu)
        )?;
        for name in ["plain_again", "tuned"] {
            if let Some(column) = query.columns.get(name) {
                write!(out, " {:<24}", show(column.wall))?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

fn total(name: &str, column: &Comparison, out: &mut dyn Write) -> io::Result<()> {
    let list = |queries: &[String]| if queries.is_empty() { "none".to_owned() } else { queries.join(" ") };
    writeln!(
        out,
        "{name:<16} {:<24} {:<24} {:>9.3} {:>9.3} {:>9.3}  {} / {}",
        show(column.wall),
        show(column.cpu),
        column.median_wall,
        column.median_cpu,
        column.geometric_mean_wall,
        list(&column.over_1_1),
        list(&column.over_1_2)
    )
}

/// `1.023 (0.991–1.057)`.
pub(crate) fn show(estimate: Estimate) -> String {
    if estimate.upper.is_finite() {
        format!("{:.3} ({:.3}–{:.3})", estimate.value, estimate.lower, estimate.upper)
    } else {
        format!("{:.3} (one pair)", estimate.value)
    }
}
