//! A plan as a tree, with figures in columns beside it.
//!
//! Only a node with several children indents them: a chain of single children stays in one column, so the depth of joins and not of
//! operators decides the width. What cannot fit is cut, never wrapped; the JSON form has all of it.

use sparklet_history::{Completeness, NodeRecord, PlanRecord, Reduction};

use super::Page;
use crate::Report;
use crate::human::{bytes, clip, count_short, duration, factor, factor_number, percent, plural, safe, width};
use crate::plan::{Shape, is_cut, is_exchange_reader, is_leaf, is_shared_out, q_error};
use crate::table::{Pen, Tint};
use crate::thresholds::{Q_ERROR, SHOW_SKEW};
use crate::timing::share;
use crate::verdict::join_words;

/// Partitions drawn one by one, at most.
const DRAWN_PARTITIONS: usize = 32;

/// Least columns for names.
const LEAST_NAMES: usize = 24;

const HEADERS: [&str; 5] = ["rows", "estimated", "q-error", "time", "share"];

pub(super) fn plans(page: &mut Page, report: &Report<'_>) {
    let mut cut = false;
    let mut staged = false;
    let mut any = false;
    for step in &report.record.steps {
        let Some(plan) = step.plan.as_ref().filter(|p| !p.nodes.is_empty()) else { continue };
        page.heading(&format!("Plan of `{}`", safe(&step.name)));
        draw(page, plan);
        any = true;
        cut |= plan.nodes.iter().any(is_cut);
        staged |= plan.nodes.iter().any(is_exchange_reader);
    }
    if !any {
        return;
    }
    page.line("");
    if cut {
        let text =
            "at least: the operator did not give all the rows of its subplan, because something above it cut it short.";
        let lead = format!("  {} ", page.pen.glyph("≥", ">="));
        page.paragraph(&lead, text, Tint::Dim);
    }
    if staged {
        page.paragraph(
            "  ",
            "ExchangeReaderExec reads the rows that the stage below it left: that stage ran to its end first, and what is above was \
             planned from what it was. Where several read the same rows, the stage stands below one of them.",
            Tint::Dim,
        );
    }
    page.paragraph(
        "  ",
        "time: in the operator itself, summed over its partitions; share: of the time in all operators of the step; q-error: how many \
         times the estimate was off.",
        Tint::Dim,
    );
}

/// One node to draw: its index, and what stands before its first and its other lines.
struct Pending {
    node: usize,
    first: String,
    rest: String,
}

fn draw(page: &mut Page, plan: &PlanRecord) {
    let pen = page.pen;
    let shape = Shape::of(plan);
    let elapsed = plan.nodes.iter().fold(0, |a: u64, n| a.saturating_add(n.elapsed_us));
    let figures: Vec<[String; 5]> = plan.nodes.iter().map(|n| figures(pen, n, elapsed)).collect();
    let mut widths = HEADERS.map(str::len);
    for row in &figures {
        for (wide, cell) in widths.iter_mut().zip(row) {
            *wide = (*wide).max(width(cell));
        }
    }
    let beside: usize = widths.iter().map(|w| w + 2).sum();
    let names = page.width.saturating_sub(beside + 2).max(LEAST_NAMES);
    let header = HEADERS.map(str::to_owned);
    let line = format!("  {}{}", " ".repeat(names), columns(&header, &widths));
    let line = pen.paint(&line, Tint::Dim);
    page.line(&line);

    let room = Room { page: page.width.saturating_sub(2), names };
    let mut stack: Vec<Pending> = shape
        .roots
        .iter()
        .rev()
        .map(|root| Pending { node: *root, first: String::new(), rest: String::new() })
        .collect();
    while let Some(at) = stack.pop() {
        let (Some(node), Some(row)) = (plan.nodes.get(at.node), figures.get(at.node)) else { continue };
        let children = shape.children.get(at.node).map(Vec::as_slice).unwrap_or_default();
        let name = clip(&format!("{}{} #{}", at.first, safe(&node.operator), at.node), names, pen.unicode);
        let pad = names.saturating_sub(width(&name));
        page.line(&format!("  {name}{:pad$}{}", "", columns(row, &widths)));
        let under = match children.len() {
            0 | 1 => format!("{}  ", at.rest),
            _ => format!("{}{} ", at.rest, pen.glyph("│", "|")),
        };
        let leaf = is_leaf(&shape, at.node);
        below(page, &room, &under, &safe(node.detail.trim()), Tint::Dim);
        let (attributes, tint) = attributes(pen, node, leaf, is_shared_out(plan, &shape, at.node));
        below(page, &room, &under, &attributes, tint);
        push_children(&mut stack, pen, children, &at.rest, names);
    }
}

/// Columns for a line, and for the part of it with names.
struct Room {
    page: usize,
    names: usize,
}

fn below(page: &mut Page, room: &Room, under: &str, text: &str, tint: Tint) {
    if text.is_empty() {
        return;
    }
    let under = clip(under, room.names, page.pen.unicode);
    let text = clip(text, room.page.saturating_sub(width(&under)), page.pen.unicode);
    let text = page.pen.paint(&text, tint);
    page.line(&format!("  {under}{text}"));
}

fn push_children(stack: &mut Vec<Pending>, pen: Pen, children: &[usize], rest: &str, names: usize) {
    if let [only] = children {
        stack.push(Pending { node: *only, first: rest.to_owned(), rest: rest.to_owned() });
        return;
    }
    // Deeper than half of the space, the left of the drawing is dropped: names matter more.
    let room = names / 2;
    let rest = if width(rest) + 3 > room {
        &rest[rest.char_indices().nth(3).map_or(rest.len(), |(at, _)| at)..]
    } else {
        rest
    };
    for (i, child) in children.iter().enumerate().rev() {
        let last = i + 1 == children.len();
        let branch = if last { pen.glyph("└─ ", "`- ") } else { pen.glyph("├─ ", "|- ") };
        let below = if last { "   " } else { pen.glyph("│  ", "|  ") };
        stack.push(Pending { node: *child, first: format!("{rest}{branch}"), rest: format!("{rest}{below}") });
    }
}

fn columns(cells: &[String; 5], widths: &[usize; 5]) -> String {
    cells
        .iter()
        .zip(widths)
        .map(|(cell, wide)| format!("  {}{cell}", " ".repeat(wide.saturating_sub(width(cell)))))
        .collect()
}

fn figures(pen: Pen, node: &NodeRecord, elapsed: u64) -> [String; 5] {
    let unknown = || pen.dash().to_owned();
    let at_least = |yes: bool| if yes { pen.glyph("≥", ">=") } else { "" };
    let rows = node.rows.map_or_else(unknown, |rows| format!("{}{}", at_least(is_cut(node)), count_short(rows)));
    let estimated = node.estimated_rows.map_or_else(unknown, count_short);
    let q = q_error(node).map_or_else(unknown, |q| {
        let loud = if q.value >= Q_ERROR { "! " } else { "" };
        format!("{loud}{}{}", at_least(q.at_least), factor_number(q.value))
    });
    if node.elapsed_us == 0 {
        return [rows, estimated, q, unknown(), unknown()];
    }
    [rows, estimated, q, duration(node.elapsed_us, pen.unicode), percent(share(node.elapsed_us, elapsed))]
}

/// What is out of the ordinary, worst first; the tint of the worst.
fn attributes(pen: Pen, node: &NodeRecord, leaf: bool, shared_out: bool) -> (String, Tint) {
    let mut parts = Vec::new();
    let mut tint = Tint::Plain;
    if node.spilled_bytes > 0 {
        parts.push(format!("spilled {} in {}", bytes(node.spilled_bytes), plural(node.spill_count, "file", "files")));
        tint = Tint::Warn;
    }
    let skew = node.skew();
    if !shared_out && skew >= SHOW_SKEW && node.partitions.len() > 1 {
        parts.push(format!(
            "{} partitions{}, skew {}",
            node.partitions.len(),
            drawn(pen, node),
            factor(f64::from(skew), pen.unicode)
        ));
    }
    match &node.completeness {
        Completeness::Complete => {}
        Completeness::ReducedBy(reasons) => {
            let words: Vec<&str> = reasons.iter().map(|r| reduction(*r)).collect();
            parts.push(format!("reduced by {}", join_words(&words)));
        }
        Completeness::Truncated => parts.push("stopped before its end".to_owned()),
    }
    if is_exchange_reader(node) {
        let stage = if leaf { "its stage stands below another reader" } else { "what is below ran first, as a stage" };
        parts.push(stage.to_owned());
    }
    parts.extend(node.bytes.filter(|b| *b > 0).map(|b| format!("{} {}", bytes(b), if leaf { "read" } else { "out" })));
    parts.extend(node.peak_memory_bytes.filter(|b| *b > 0).map(|b| format!("memory {}", bytes(b))));
    (parts.join(pen.glyph(" · ", "; ")), tint)
}

fn reduction(reason: Reduction) -> &'static str {
    match reason {
        Reduction::DynamicFilter => "a filter learned while running",
        Reduction::Limit => "a limit above",
        Reduction::EmptyBuildSide => "an empty join side above",
    }
}

/// Rows by partition as little bars: ` ▁█▂▁`.
fn drawn(pen: Pen, node: &NodeRecord) -> String {
    let bars = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = node.partitions.iter().map(|p| p.rows).max().unwrap_or(0);
    if !pen.unicode || most == 0 || node.partitions.len() > DRAWN_PARTITIONS {
        return String::new();
    }
    let bar = |rows: u64| bars.get((share(rows, most) * 7.0).round() as usize).copied().unwrap_or('█');
    std::iter::once(' ').chain(node.partitions.iter().map(|p| bar(p.rows))).collect()
}
