//! The report as text, for a terminal or a log: readable without colour, aligned for a width.
//!
//! Order: what it was, the verdict, errors with their hints, findings; then steps, outputs, checks, notes; where the time went; the
//! changes in mid-run and plans; decisions; sources; earlier runs; what it ran on.

mod adaptations;
mod functions;
mod overview;
mod past;
mod tree;

use chrono::{DateTime, Utc};
use sparklet_history::{Outcome, RunRecord};

use crate::human::{age, duration, safe, wrap};
use crate::table::{Pen, Table, Tint};
use crate::{Finding, Report, Tone};

/// How to render text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextOptions {
    /// Columns of a line; at least [`TextOptions::LEAST_WIDTH`] are used.
    pub width: usize,
    /// ANSI colours.
    pub color: bool,
    /// Box-drawing and other characters beyond ASCII; names and paths are shown as they are either way.
    pub unicode: bool,
    /// The time now, to say how long ago the run was; none: not said.
    pub now: Option<DateTime<Utc>>,
}

impl TextOptions {
    /// Below this many columns nothing can be aligned.
    pub const LEAST_WIDTH: usize = 60;
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { width: 100, color: false, unicode: true, now: None }
    }
}

/// A page being written.
struct Page {
    out: String,
    pen: Pen,
    width: usize,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn heading(&mut self, title: &str) {
        self.out.push('\n');
        let title = self.pen.paint(title, Tint::Bold);
        self.line(&title);
    }

    fn table(&mut self, table: &Table) {
        for line in table.lines(self.width.saturating_sub(2), self.pen) {
            self.line(&format!("  {line}"));
        }
    }

    /// A paragraph with a first line that starts with `lead` and others indented as far as `lead` is wide.
    fn paragraph(&mut self, lead: &str, text: &str, tint: Tint) {
        let text = self.plain(text);
        let indent = crate::human::width(lead);
        for (i, line) in wrap(&text, self.width.saturating_sub(indent)).iter().enumerate() {
            let line = self.pen.paint(line, tint);
            if i == 0 { self.line(&format!("{lead}{line}")) } else { self.line(&format!("{:indent$}{line}", "")) }
        }
    }

    /// The signs of sentences in ASCII, where nothing else can be shown.
    fn plain(&self, text: &str) -> String {
        if self.pen.unicode {
            return text.to_owned();
        }
        text.replace('×', "x").replace('µ', "u").replace('…', "...").replace(['–', '−'], "-").replace('·', "|")
    }

    fn duration(&self, us: u64) -> String {
        duration(us, self.pen.unicode)
    }

    /// As [`Page::duration`], with a dash for nothing.
    fn some_time(&self, us: u64) -> String {
        if us == 0 { self.pen.dash().to_owned() } else { self.duration(us) }
    }
}

pub(crate) fn render(report: &Report<'_>, options: &TextOptions) -> String {
    let pen = Pen { color: options.color, unicode: options.unicode };
    let mut page = Page { out: String::new(), pen, width: options.width.max(TextOptions::LEAST_WIDTH) };
    title(&mut page, report.record, options.now);
    let tint = match report.record.outcome {
        Outcome::Succeeded => Tint::Good,
        Outcome::Skipped => Tint::Warn,
        _ => Tint::Bad,
    };
    page.paragraph("", &report.verdict(), tint);
    errors(&mut page, report.record);
    findings(&mut page, &report.findings);
    overview::steps(&mut page, report);
    overview::outputs(&mut page, report.record);
    overview::checks(&mut page, report.record);
    overview::notes(&mut page, report.record);
    overview::time(&mut page, report);
    functions::functions(&mut page, report);
    adaptations::adaptations(&mut page, report);
    tree::plans(&mut page, report);
    overview::decisions(&mut page, report.record);
    past::sources(&mut page, report);
    past::runs(&mut page, report);
    past::surroundings(&mut page, report.record);
    page.out
}

fn title(page: &mut Page, record: &RunRecord, now: Option<DateTime<Utc>>) {
    let name = page.pen.paint(&safe(&record.pipeline), Tint::Bold);
    let started = record.started_at.format("%Y-%m-%d %H:%M:%S UTC");
    let age = now
        .and_then(|now| u64::try_from((now - record.started_at).num_microseconds()?).ok())
        .map(|us| format!(", {} ago", age(us / 1_000_000)))
        .unwrap_or_default();
    let environment = match record.environment.as_str() {
        "default" => String::new(),
        other => format!("  environment {}", safe(other)),
    };
    let text = format!("{name}  run {}  {started}{age}{environment}", record.id);
    page.line(&text);
}

fn errors(page: &mut Page, record: &RunRecord) {
    let of_steps = record.steps.iter().filter_map(|s| s.error.as_ref().map(|e| (Some(s.name.as_str()), e)));
    let of_run = record.error.as_ref().map(|e| (None, e));
    let mut told: Vec<&str> = Vec::new();
    for (step, error) in of_steps.chain(of_run) {
        // The run's error is mostly that of the step that failed; once is enough.
        if told.contains(&error.message.as_str()) {
            continue;
        }
        told.push(&error.message);
        page.line("");
        let place = step.map(|s| format!(" in step `{}`", safe(s))).unwrap_or_default();
        let lead = format!("error[{}]{place}: ", safe(&error.kind));
        let mut lines = error.message.lines().filter(|l| !l.trim().is_empty());
        page.paragraph("", &format!("{lead}{}", safe(lines.next().unwrap_or_default())), Tint::Bad);
        lines.for_each(|line| page.paragraph("  ", &safe(line), Tint::Plain));
        if let Some(hint) = &error.hint {
            page.paragraph("hint: ", &safe(hint), Tint::Plain);
        }
    }
}

fn findings(page: &mut Page, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    page.heading("Findings");
    for finding in findings {
        let (mark, tint) = match finding.tone {
            Tone::Warning => ("!", Tint::Warn),
            Tone::Note => (page.pen.glyph("•", "*"), Tint::Plain),
            Tone::Good => (page.pen.glyph("✓", "+"), Tint::Good),
        };
        let what = page.plain(&finding.what);
        for (i, line) in wrap(&what, page.width.saturating_sub(4)).iter().enumerate() {
            let mark = page.pen.paint(if i == 0 { mark } else { " " }, tint);
            page.line(&format!("  {mark} {line}"));
        }
        let mut place = Vec::new();
        place.extend(finding.place.step.as_ref().map(|s| format!("step `{}`", safe(s))));
        place.extend(finding.place.node.map(|n| format!("node #{n}")));
        place.extend(finding.place.name.as_ref().map(|n| safe(n)));
        if !place.is_empty() {
            page.paragraph("    where: ", &place.join(", "), Tint::Plain);
        }
        page.paragraph("    next: ", &finding.next, Tint::Plain);
    }
}
