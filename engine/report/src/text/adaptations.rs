//! What was changed in mid-run: why, task sizes before and after, what was expected, what was measured, what it cost.

use sparklet_history::{Adaptation, AdaptationKind, HotKey, StepRecord};

use super::Page;
use super::overview::bar;
use crate::Report;
use crate::adaptation::{Adapted, Measured, SIZES_LISTED, cost_share, switch};
use crate::human::{count, factor, percent, plural, safe, width};
use crate::table::{Cell, Column, Table, Tint};
use crate::thresholds::SAME_TIME;
use crate::timing::share;

/// Task sizes drawn before and after, at most: those are the ones that decide the time.
const DRAWN: usize = 5;

/// Columns of the longest bar, at most and at least.
const LONGEST_BAR: usize = 40;
const SHORTEST_BAR: usize = 8;

/// Blanks before the chart.
const CHART_INDENT: usize = 6;

pub(super) fn adaptations(page: &mut Page, report: &Report<'_>) {
    let record = report.record;
    if record.steps.iter().all(|s| s.adaptations.is_empty()) {
        return;
    }
    page.heading("Changed in mid-run");
    let mut first = true;
    for step in &record.steps {
        for adaptation in &step.adaptations {
            if !std::mem::take(&mut first) {
                page.line("");
            }
            one(page, step, adaptation, record.slots);
        }
    }
}

fn one(page: &mut Page, step: &StepRecord, adaptation: &Adaptation, slots: u32) {
    let adapted = Adapted::new(adaptation, slots);
    let when = match adaptation.at_us {
        0 => String::new(),
        us => format!(", {} into its query, once exchange {} was finished", page.duration(us), adaptation.stage),
    };
    page.paragraph("  ", &format!("step `{}`{when}: {}", safe(&step.name), adapted.what), Tint::Plain);
    page.paragraph("    because: ", &adapted.because, Tint::Plain);
    chart(page, adaptation);
    expected(page, adaptation, adapted.predicted_gain, slots);
    if let Some(measured) = &adapted.measured {
        took(page, measured);
    }
    if adaptation.cost_us > 0 {
        let text = format!(
            "{} of CPU time to keep and measure its inputs in exchanges ({} of the step's)",
            page.duration(adaptation.cost_us),
            percent(cost_share(adaptation, step.cpu_us))
        );
        page.paragraph("    cost: ", &text, Tint::Plain);
    }
    if !adaptation.hot_keys.is_empty() {
        let keys: Vec<String> = adaptation.hot_keys.iter().map(hot_key).collect();
        page.paragraph("    hot keys: ", &keys.join("; "), Tint::Plain);
    }
    if matches!(adaptation.kind, AdaptationKind::LeftWhole { .. }) {
        return;
    }
    page.paragraph("    to turn it off: ", &format!("`{}`", switch(adaptation)), Tint::Dim);
}

/// Sizes of tasks before and after as bars of one scale.
fn chart(page: &mut Page, adaptation: &Adaptation) {
    let Some(most) = adaptation.before.iter().chain(&adaptation.after).copied().max().filter(|most| *most > 0) else {
        return;
    };
    let groups = [
        Group::new("before", &adaptation.before, 0),
        Group::new("after", &adaptation.after, adaptation.task_cpu_us.len()),
    ];
    let widest = groups.iter().map(|group| width(&group.label())).max().unwrap_or(0);
    let beside = CHART_INDENT + width("before") + widest + width(&count(most)) + 3 * 2;
    let cells = page.width.saturating_sub(beside).clamp(SHORTEST_BAR, LONGEST_BAR);
    let mut table = Table::new([Column::word(""), Column::word(""), Column::number(""), Column::word("").optional(1)]);
    for group in groups {
        for (i, size) in group.drawn.iter().enumerate() {
            let (name, label) = if i == 0 { (group.name, group.label()) } else { ("", String::new()) };
            let drawn = bar(page.pen, share(*size, most), cells);
            let tint = if i == 0 { Tint::Plain } else { Tint::Dim };
            table.row([name.into(), label.into(), count(*size).into(), Cell::tinted(drawn, tint)]);
        }
        if let Some(rest) = group.rest() {
            table.row([Cell::default(), Cell::tinted(rest, Tint::Dim)]);
        }
    }
    page.paragraph(
        "    ",
        "expected work by task, in rows, the largest first; a row of a build side counts as two:",
        Tint::Plain,
    );
    // Without the header: its columns have no names.
    for line in table.lines(page.width.saturating_sub(CHART_INDENT), page.pen).iter().skip(1) {
        page.line(&format!("{:CHART_INDENT$}{line}", ""));
    }
}

/// The tasks before or after.
struct Group {
    name: &'static str,
    /// The largest, in falling order.
    drawn: Vec<u64>,
    tasks: usize,
    /// There may be more.
    open: bool,
}

impl Group {
    /// Of the `sizes` that a record lists; `ended` of them, or more, have run.
    fn new(name: &'static str, sizes: &[u64], ended: usize) -> Self {
        let mut drawn = sizes.to_vec();
        drawn.sort_unstable_by(|a, b| b.cmp(a));
        drawn.truncate(DRAWN);
        let tasks = sizes.len().max(ended);
        Self { name, drawn, tasks, open: sizes.len() >= SIZES_LISTED && tasks == sizes.len() }
    }

    fn label(&self) -> String {
        format!("{}{}", plural(self.tasks as u64, "task", "tasks"), if self.open { " or more" } else { "" })
    }

    /// Those that are not drawn.
    fn rest(&self) -> Option<String> {
        let rest = self.tasks.checked_sub(self.drawn.len()).filter(|rest| *rest > 0)?;
        Some(format!("{} more", count(rest as u64)))
    }
}

fn expected(page: &mut Page, adaptation: &Adaptation, gain: Option<f64>, slots: u32) {
    let Some(gain) = gain else { return };
    let unicode = page.pen.unicode;
    let largest = |sizes: &[u64]| sizes.iter().copied().max().filter(|size| *size > 0);
    let fell = match (largest(&adaptation.before), largest(&adaptation.after)) {
        (Some(before), Some(after)) if after < before => {
            let times = factor(before as f64 / after as f64, unicode);
            format!("the largest task falls from {} to {} ({times}); ", count(before), count(after))
        }
        _ => String::new(),
    };
    let ratio = if (gain - 1.0).abs() < SAME_TIME {
        "about the same".to_owned()
    } else if gain >= 1.0 {
        format!("{} as fast", factor(gain, unicode))
    } else {
        format!("{} as long", factor(1.0 / gain, unicode))
    };
    if matches!(adaptation.kind, AdaptationKind::ReorderJoins { .. }) {
        let [before, after] = [adaptation.predicted_before, adaptation.predicted_after].map(|us| page.duration(us));
        let text = format!("the joins still to come take {after} of CPU time instead of {before}: {ratio}");
        page.paragraph("    expected: ", &text, Tint::Plain);
        return;
    }
    let what = match &adaptation.kind {
        AdaptationKind::SplitGroups { .. } => "the aggregate",
        AdaptationKind::SplitWindow { .. } => "the window",
        _ => "the join",
    };
    let text = format!(
        "{fell}on {} {what} takes the time of {} rows instead of {}: {ratio}",
        plural(u64::from(slots), "slot", "slots"),
        count(adaptation.predicted_after),
        count(adaptation.predicted_before)
    );
    page.paragraph("    expected: ", &text, Tint::Plain);
}

fn took(page: &mut Page, measured: &Measured) {
    let text = format!(
        "{} took {} of CPU time, the longest {}",
        plural(measured.tasks, "task", "tasks"),
        page.duration(measured.total_us),
        page.duration(measured.longest_us)
    );
    page.paragraph("    measured: ", &text, Tint::Plain);
    let divided = page.pen.glyph("total ÷ slots", "total / slots");
    let mut table = Table::new([
        Column::text("on", 8),
        Column::number("last ends"),
        Column::number(divided),
        Column::number("ratio"),
    ]);
    for (i, span) in measured.spans.iter().enumerate() {
        let of = if i == 0 { " (this run)" } else { "" };
        table.row([
            format!("{}{of}", plural(u64::from(span.slots), "slot", "slots")).into(),
            page.duration(span.makespan_us).into(),
            page.duration(span.ideal_us).into(),
            span.ratio.map_or_else(|| page.pen.dash().to_owned(), |r| ratio(r, page.pen.unicode)).into(),
        ]);
    }
    for line in table.lines(page.width.saturating_sub(6), page.pen) {
        page.line(&format!("      {line}"));
    }
}

/// Two decimals where they tell: a makespan is mostly a few percent above what is possible.
fn ratio(ratio: f64, unicode: bool) -> String {
    if ratio < 9.95 { format!("{ratio:.2}{}", if unicode { "×" } else { "x" }) } else { factor(ratio, unicode) }
}

fn hot_key(hot: &HotKey) -> String {
    let value = match hot.key.as_deref() {
        None | Some([]) => "a key that was not looked up".to_owned(),
        Some([one]) => format!("`{}`", safe(one)),
        Some(several) => format!("`({})`", safe(&several.join(", "))),
    };
    format!("{value} has {} of exchange {}", percent(hot.share), hot.exchange)
}
