//! Steps, outputs, checks, notes, time and decisions.

use sparklet_history::{
    CheckRecord, ChoiceRecord, Decision, DecisionKind, HistoryUnused, Outcome, PlanRole, Reason, RunRecord, StepRecord,
};

use super::Page;
use crate::Report;
use crate::choice;
use crate::human::{bytes, count, exact_percent, percent, plural, safe};
use crate::table::{Cell, Column, Pen, Table, Tint};
use crate::thresholds::TOP_OPERATORS;
use crate::timing::{TimeKind, TimeLine, share};

/// The word and colour for an outcome.
pub(super) fn outcome(outcome: Outcome) -> Cell {
    let (word, tint) = match outcome {
        Outcome::Succeeded => ("succeeded", Tint::Good),
        Outcome::Failed => ("failed", Tint::Bad),
        Outcome::CheckFailed => ("check failed", Tint::Bad),
        Outcome::Cancelled => ("cancelled", Tint::Bad),
        Outcome::TimedOut => ("timed out", Tint::Bad),
        Outcome::Skipped => ("skipped", Tint::Dim),
    };
    Cell::tinted(word, tint)
}

fn size(n: u64) -> Cell {
    if n == 0 { Cell::default() } else { bytes(n).into() }
}

pub(super) fn steps(page: &mut Page, report: &Report<'_>) {
    let record = report.record;
    if record.steps.is_empty() {
        return;
    }
    page.heading("Steps");
    let mut table = Table::new([
        Column::text("step", 10),
        Column::word("outcome"),
        Column::number("rows"),
        Column::number("written").optional(3),
        Column::number("wall"),
        Column::number("share").optional(1),
        Column::number("memory").optional(4),
        Column::word("checks").optional(2),
    ]);
    let mut phases = Table::new([
        Column::text("step", 10),
        Column::number("planning"),
        Column::number("execution"),
        Column::number("checks"),
        Column::number("publishing"),
        Column::number("other").optional(1),
        Column::number("cpu").optional(2),
    ]);
    let (dash, total) = (page.pen.dash(), report.time.total_us);
    for step in &record.steps {
        let name = safe(&step.name);
        if step.outcome == Outcome::Skipped {
            table.row([name.into(), outcome(step.outcome), dash.into()]);
            continue;
        }
        let written = step.output.as_ref().filter(|o| o.mode != "none").map_or(0, |o| o.bytes);
        table.row([
            name.clone().into(),
            outcome(step.outcome),
            count(step.rows).into(),
            size(written),
            page.duration(step.wall_us).into(),
            percent(share(step.wall_us, total)).into(),
            size(step.peak_memory_bytes),
            checks_in_short(&step.checks),
        ]);
        let parts = [step.planning_us, step.execution_us, step.checks_us, step.publish_us];
        let other = step.wall_us.saturating_sub(parts.iter().fold(0, |a: u64, b| a.saturating_add(*b)));
        let cells = parts.into_iter().chain([other, step.cpu_us]).map(|us| Cell::from(page.some_time(us)));
        phases.row(std::iter::once(Cell::from(name)).chain(cells));
    }
    page.table(&table);
    if record.steps.iter().any(|s| s.outcome != Outcome::Skipped) {
        page.line("");
        page.table(&phases);
    }
}

fn checks_in_short(checks: &[CheckRecord]) -> Cell {
    let failed = checks.iter().filter(|c| !c.passed).count();
    match (checks.len(), failed) {
        (0, _) => Cell::default(),
        (n, 0) => format!("{n} passed").into(),
        (n, failed) => Cell::tinted(format!("{failed} of {n} failed"), Tint::Warn),
    }
}

pub(super) fn outputs(page: &mut Page, record: &RunRecord) {
    let mut table = Table::new([
        Column::text("step", 8),
        Column::text("output", 16),
        Column::word("format"),
        Column::word("mode").optional(3),
        Column::number("rows"),
        Column::number("size"),
        Column::number("files"),
        Column::number("partitions").optional(2),
        Column::word("").optional(1),
    ]);
    for step in &record.steps {
        let Some(output) = &step.output else { continue };
        let kept = output.mode == "none";
        table.row([
            safe(&step.name).into(),
            if kept { Cell::tinted("(intermediate)", Tint::Dim) } else { safe(&output.location).into() },
            safe(&output.format).into(),
            if kept { Cell::default() } else { safe(&output.mode).into() },
            count(output.rows).into(),
            size(output.bytes),
            if output.files == 0 { Cell::default() } else { count(output.files).into() },
            if output.partitions.is_empty() { Cell::default() } else { count(output.partitions.len() as u64).into() },
            if kept || output.published { Cell::default() } else { Cell::tinted("not published", Tint::Bad) },
        ]);
    }
    if record.steps.iter().any(|s| s.output.is_some()) {
        page.heading("Outputs");
        page.table(&table);
    }
}

pub(super) fn checks(page: &mut Page, record: &RunRecord) {
    if record.steps.iter().all(|s| s.checks.is_empty()) {
        return;
    }
    page.heading("Checks");
    let mut table = Table::new([
        Column::word("result"),
        Column::text("step", 8),
        Column::text("check", 8),
        Column::number("failed rows"),
        Column::number("of").optional(2),
        Column::number("tolerated").optional(1),
        Column::text("condition", 12).optional(4),
    ]);
    for (step, check) in record.steps.iter().flat_map(|s| s.checks.iter().map(move |c| (s, c))) {
        let result = match (check.passed, check.blocking) {
            (true, _) => Cell::tinted("passed", Tint::Good),
            (false, true) => Cell::tinted("failed", Tint::Bad),
            (false, false) => Cell::tinted("warning", Tint::Warn),
        };
        table.row([
            result,
            safe(&step.name).into(),
            safe(&check.name).into(),
            check.failed_rows.map(count).unwrap_or_default().into(),
            check.rows.map(count).unwrap_or_default().into(),
            if check.tolerate > 0.0 { exact_percent(check.tolerate).into() } else { Cell::default() },
            Cell::tinted(safe(&check.condition), Tint::Dim),
        ]);
    }
    page.table(&table);
    for (check, kept) in record.steps.iter().flat_map(|s| &s.checks).filter_map(|c| Some((c, c.kept.as_ref()?))) {
        page.paragraph("  ", &format!("failing rows of `{}`: {}", safe(&check.name), safe(kept)), Tint::Plain);
    }
}

pub(super) fn notes(page: &mut Page, record: &RunRecord) {
    if record.notes.is_empty() {
        return;
    }
    page.heading("Notes");
    for note in &record.notes {
        let lead = format!("  {} ", page.pen.glyph("•", "*"));
        page.paragraph(&lead, &safe(note), Tint::Plain);
    }
}

/// Largest lines first; operators beyond the first few are added up.
pub(super) fn time(page: &mut Page, report: &Report<'_>) {
    let split = &report.time;
    if split.lines.is_empty() {
        return;
    }
    page.heading("Where the time went");
    let mut table = Table::new([
        Column::number("wall"),
        Column::number("share"),
        Column::word("").optional(1),
        Column::text("what", 20),
        Column::text("step", 10),
    ]);
    let (mut operators, mut others, mut others_us) = (0, 0_u64, 0_u64);
    for line in &split.lines {
        if line.kind == TimeKind::Operator {
            operators += 1;
            if operators > TOP_OPERATORS {
                others += 1;
                others_us = others_us.saturating_add(line.wall_us);
                continue;
            }
        }
        let step = line.step.as_deref().map(safe).unwrap_or_default();
        table.row(row(page, line.wall_us, line.share, &name(line), &step));
    }
    if others > 0 {
        let what = format!("{} more", plural(others, "operator", "operators"));
        table.row(row(page, others_us, share(others_us, split.total_us), &what, ""));
    }
    page.table(&table);
    if operators > 0 {
        page.paragraph(
            "  ",
            "Times of operators are attributed: the execution of a step, shared out by `elapsed_compute`, which counts polls of all \
             partitions. Planning, checks and publishing are measured.",
            Tint::Dim,
        );
    }
}

fn row(page: &Page, us: u64, share: f64, what: &str, step: &str) -> [Cell; 5] {
    [
        page.duration(us).into(),
        percent(share).into(),
        Cell::tinted(bar(page.pen, share, TIME_BAR), Tint::Dim),
        what.into(),
        step.into(),
    ]
}

/// Columns of the longest bar of time.
const TIME_BAR: usize = 10;

/// A bar of `cells` columns for a share of 1.
pub(super) fn bar(pen: Pen, share: f64, cells: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * 8.0 * cells as f64).round() as usize;
    if !pen.unicode {
        return "#".repeat(eighths.div_ceil(8));
    }
    let parts = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    format!("{}{}", "█".repeat(eighths / 8), parts.get(eighths % 8).copied().unwrap_or_default())
}

fn name(line: &TimeLine) -> String {
    match line.kind {
        TimeKind::Operator => {
            let operator = line.operator.as_deref().map(safe).unwrap_or_default();
            line.node.map_or(operator.clone(), |node| format!("{operator} #{node}"))
        }
        TimeKind::Waiting => "execution, in no operator (I/O, waiting)".to_owned(),
        TimeKind::Planning => "planning".to_owned(),
        TimeKind::Checks => "checks".to_owned(),
        TimeKind::Publish => "publishing".to_owned(),
        TimeKind::Steps => "in steps, else (binding, staging)".to_owned(),
        TimeKind::Run => "outside of steps".to_owned(),
    }
}

/// True if there is more to say of a choice than that there was none.
fn speaks(choice: &ChoiceRecord) -> bool {
    choice.role != PlanRole::Default
        || !choice.rejected.is_empty()
        || choice.control.is_some()
        || !choice.evidence.is_empty()
        || matches!(&choice.unused, Some(unused) if *unused != HistoryUnused::Switched && !matches!(unused, HistoryUnused::FirstRun { .. }))
}

/// Steps with the same decision share a line.
pub(super) fn decisions(page: &mut Page, record: &RunRecord) {
    let mut groups: Vec<(&Decision, Vec<&str>)> = Vec::new();
    let short = |step: &&StepRecord| !step.choice.as_deref().is_some_and(speaks);
    for (step, decision) in record.steps.iter().filter(short).flat_map(|s| s.decisions.iter().map(move |d| (s, d))) {
        match groups.iter_mut().find(|(d, _)| *d == decision) {
            Some((_, steps)) => steps.push(&step.name),
            None => groups.push((decision, vec![&step.name])),
        }
    }
    if groups.is_empty() && record.steps.iter().all(|step| short(&step)) {
        return;
    }
    page.heading("Decisions");
    for step in &record.steps {
        let Some(choice) = step.choice.as_deref().filter(|choice| speaks(choice)) else { continue };
        let text = format!("step `{}`: {}", safe(&step.name), choice::headline(choice));
        page.paragraph("  ", &text, Tint::Plain);
        choice::details(choice).iter().for_each(|line| page.paragraph("    ", line, Tint::Plain));
        let switch = format!("to change it: `sparklet plan-control forbid` or `pin` of `{}`", safe(&step.name));
        if choice.role != PlanRole::Default {
            page.paragraph("    ", &switch, Tint::Plain);
        }
    }
    for (decision, steps) in groups {
        let planned = record.steps.iter().filter(|s| !s.decisions.is_empty()).count();
        let who = match steps.as_slice() {
            [one] => format!("step `{}`", safe(one)),
            all if all.len() == planned => "every step".to_owned(),
            some => format!("steps {}", some.iter().map(|s| format!("`{}`", safe(s))).collect::<Vec<_>>().join(", ")),
        };
        let mut text = format!("{who}: {}, {}", chosen(&decision.kind), because(&decision.because));
        if !decision.evidence.is_empty() {
            let runs: Vec<&str> = decision.evidence.iter().map(|r| r.as_str()).collect();
            text.push_str(&format!("; evidence: {}", runs.join(", ")));
        }
        if let Some(switch) = &decision.switch {
            text.push_str(&format!("; to change it: `{}`", safe(switch)));
        }
        page.paragraph("  ", &text, Tint::Plain);
    }
}

fn chosen(kind: &DecisionKind) -> &'static str {
    match kind {
        DecisionKind::DefaultPlan => "DataFusion's plan was taken as it is",
        DecisionKind::LearnedPlan => "another plan than DataFusion's was taken",
    }
}

fn because(reason: &Reason) -> &'static str {
    match reason {
        Reason::OnlyCandidate => "there was no other candidate",
        Reason::Compared => "after candidates were compared",
        Reason::LearningOff => "history was not read (`learning = \"off\"`)",
    }
}
