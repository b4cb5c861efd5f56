//! Sources, earlier runs, and what the run ran on.

use super::{Page, overview};
use crate::Report;
use crate::compare::Comparison;
use crate::human::{bytes, count, percent, safe};
use crate::table::{Cell, Column, Table, Tint};
use crate::thresholds::FEW_RUNS;
use sparklet_history::{Outcome, RunRecord};

pub(super) fn sources(page: &mut Page, report: &Report<'_>) {
    let record = report.record;
    if record.sources.is_empty() {
        return;
    }
    page.heading("Sources");
    let mut table = Table::new([
        Column::text("source", 8),
        Column::word("format"),
        Column::number("files"),
        Column::number("size"),
        Column::number("rows"),
        Column::word("").optional(1),
        Column::text("location", 12),
    ]);
    for source in &record.sources {
        let changed = report.comparison.changed_sources.contains(&source.name);
        table.row([
            safe(&source.name).into(),
            safe(&source.format).into(),
            count(source.files).into(),
            if source.bytes == 0 { Cell::default() } else { bytes(source.bytes).into() },
            source.rows.map_or_else(|| "unknown".to_owned(), count).into(),
            if changed { Cell::tinted("changed", Tint::Warn) } else { Cell::default() },
            Cell::tinted(safe(&source.location), Tint::Dim),
        ]);
    }
    page.table(&table);
}

pub(super) fn runs(page: &mut Page, report: &Report<'_>) {
    let comparison = &report.comparison;
    page.heading("Earlier runs");
    if comparison.is_empty() {
        let text = match comparison.earlier_runs {
            None => "they cannot be read".to_owned(),
            Some(0) => "none of this pipeline and environment is remembered from before this run".to_owned(),
            Some(n) => format!("{} remembered, none to compare with (succeeded, with the same steps)", count(n as u64)),
        };
        return page.paragraph("  ", &text, Tint::Plain);
    }
    let mut table = Table::new([
        Column::word("run"),
        Column::word("started"),
        Column::number("wall"),
        Column::number("to median"),
        Column::number("cpu").optional(2),
        Column::number("rows written").optional(3),
        Column::text("changed since the one before", 10).optional(1),
    ]);
    for (i, run) in comparison.runs.iter().enumerate() {
        let words: Vec<&str> = run.changed.iter().map(|c| c.as_str()).collect();
        let this = if i == 0 { Tint::Bold } else { Tint::Plain };
        table.row([
            Cell::tinted(run.id.as_str(), this),
            run.started_at.format("%Y-%m-%d %H:%M").to_string().into(),
            Cell::tinted(page.duration(run.wall_us), this),
            change(page, run.delta),
            page.duration(run.cpu_us).into(),
            count(run.rows).into(),
            words.join(", ").into(),
        ]);
    }
    page.table(&table);
    noise(page, comparison, report.record);
    step_medians(page, comparison);
}

/// `+12 %`, `−3 %`; the words "faster" and "slower" are in the verdict.
fn change(page: &Page, delta: Option<f64>) -> Cell {
    let Some(delta) = delta else { return page.pen.dash().into() };
    let sign = match percent(delta.abs()).as_str() {
        "0 %" | "<1 %" => return "0 %".into(),
        _ if delta < 0.0 => page.pen.glyph("−", "-"),
        _ => "+",
    };
    format!("{sign}{}", percent(delta.abs())).into()
}

fn noise(page: &mut Page, comparison: &Comparison, record: &RunRecord) {
    let (Some(median), Some((low, high))) = (comparison.median_wall_us, comparison.spread_wall_us) else { return };
    let range = format!("{} to {}", page.duration(low), page.duration(high));
    let text = match comparison.len() {
        n if n < FEW_RUNS => format!(
            "{}; too few to tell a change from noise.",
            if n == 1 { "One earlier run".to_owned() } else { format!("{n} earlier runs, {range}") }
        ),
        _ if record.outcome != Outcome::Succeeded => {
            format!(
                "Median {}, from {range}; this run did not succeed, so its time says nothing.",
                page.duration(median)
            )
        }
        _ if comparison.beyond_noise => {
            format!("Median {}, from {range}: this run lies outside of it.", page.duration(median))
        }
        _ => format!("Median {}, from {range}: this run lies within, which may be noise.", page.duration(median)),
    };
    page.paragraph("  ", &text, Tint::Dim);
}

fn step_medians(page: &mut Page, comparison: &Comparison) {
    if comparison.steps.is_empty() {
        return;
    }
    let mut table = Table::new([
        Column::text("step", 10),
        Column::number("wall"),
        Column::number("median"),
        Column::number("to median"),
        Column::number("of runs").optional(1),
    ]);
    for step in &comparison.steps {
        table.row([
            safe(&step.step).into(),
            page.duration(step.wall_us).into(),
            page.duration(step.median_wall_us).into(),
            change(page, step.delta),
            count(step.runs as u64).into(),
        ]);
    }
    page.line("");
    page.table(&table);
}

pub(super) fn surroundings(page: &mut Page, record: &RunRecord) {
    page.heading("Ran with");
    let machine = &record.machine;
    let mut parts = vec![
        format!("sparklet {}", safe(&record.engine.sparklet)),
        format!("DataFusion {}", safe(&record.engine.datafusion)),
        format!("{}, {} cores, {}", safe(&machine.platform), machine.cores, bytes(machine.memory_bytes)),
        format!("{} slots", record.slots),
        format!("memory {}, peak {}", bytes(record.memory_limit_bytes), bytes(record.peak_memory_bytes)),
    ];
    parts.extend(record.peak_rss_bytes.map(|rss| format!("resident {}", bytes(rss))));
    parts.push(format!("CPU {}", page.duration(record.cpu_us)));
    page.paragraph("  ", &parts.join("; "), Tint::Plain);
    let params: Vec<String> = record.params.iter().map(|(k, v)| format!("{}={}", safe(k), safe(v))).collect();
    if !params.is_empty() {
        page.paragraph("  parameters: ", &params.join(", "), Tint::Plain);
    }
    let settings: Vec<String> = record
        .settings
        .iter()
        .map(|(k, s)| format!("{} = {} ({})", safe(k), safe(&s.value), safe(&s.origin)))
        .collect();
    if !settings.is_empty() {
        page.paragraph("  settings: ", &settings.join(", "), Tint::Plain);
    }
    let ended = overview::outcome(record.outcome).text;
    let versions = format!("code {}, data {}, {ended}", short(&record.code_version), short(&record.data_version()));
    page.paragraph("  versions: ", &versions, Tint::Plain);
}

/// Enough of a fingerprint to tell versions apart by eye.
fn short(fingerprint: &sparklet_history::Fingerprint) -> String {
    fingerprint.to_string().chars().take(8).collect()
}
