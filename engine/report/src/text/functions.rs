//! User functions: how often, for how many rows, what a row cost, and their share of the run.

use super::Page;
use crate::Report;
use crate::human::{bytes, count, percent, safe};
use crate::table::{Cell, Column, Table, Tint};
use crate::timing::share;

/// Shown of a module's hash.
const HASH: usize = 12;

pub(super) fn functions(page: &mut Page, report: &Report<'_>) {
    let record = report.record;
    if record.steps.iter().all(|s| s.functions.is_empty()) {
        return;
    }
    page.heading("User functions");
    let mut table = Table::new([
        Column::text("step", 8),
        Column::text("function", 10),
        Column::text("module", 12),
        Column::word("version").optional(1),
        Column::number("calls"),
        Column::number("rows"),
        Column::number("ns/row"),
        Column::number("memory").optional(2),
        Column::number("failed"),
        Column::number("share of CPU"),
    ]);
    for step in &record.steps {
        for function in &step.functions {
            let per_row = function.nanos as f64 / function.rows.max(1) as f64;
            let per_row = if per_row < 100.0 { format!("{per_row:.1}") } else { count(per_row as u64) };
            table.row([
                safe(&step.name).into(),
                safe(&function.name).into(),
                safe(&function.module).into(),
                Cell::tinted(function.hash.get(..HASH).unwrap_or(&function.hash), Tint::Dim),
                count(function.calls).into(),
                count(function.rows).into(),
                per_row.into(),
                bytes(function.peak_memory_bytes).into(),
                match function.failures {
                    0 => Cell::default(),
                    failures => Cell::tinted(count(failures), Tint::Bad),
                },
                percent(share(function.nanos / 1_000, record.cpu_us).min(1.0)).into(),
            ]);
        }
    }
    page.table(&table);
}
