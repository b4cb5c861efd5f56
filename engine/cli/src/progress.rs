//! Progress on standard error: a line for each step with rows, bytes, rate and time.
//!
//! A thread of its own reads the counters ten times a second: it draws also while every worker computes.

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sparklet_core::{Progress, ProgressSnapshot};
use sparklet_history::{Outcome, StepRecord};
use sparklet_pipeline::Event;
use sparklet_report::human;

use crate::console::Look;

/// Time between two looks at the counters.
const PERIOD: Duration = Duration::from_millis(100);

/// Draws what events tell, until it is dropped.
pub struct Bars {
    events: Option<Sender<Event>>,
    painter: Option<JoinHandle<()>>,
}

impl Bars {
    /// Bars on standard error; `shown` false: nothing is drawn.
    pub fn new(look: Look, shown: bool) -> Self {
        if !shown {
            return Self { events: None, painter: None };
        }
        let (events, told) = mpsc::channel();
        let paint = move || {
            let mut board = Board::new(look);
            loop {
                match told.recv_timeout(PERIOD) {
                    Ok(event) => board.tell(&event),
                    Err(RecvTimeoutError::Timeout) => board.look(),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            board.finish();
        };
        let painter = std::thread::Builder::new().name("progress".to_owned()).spawn(paint).ok();
        Self { events: Some(events), painter }
    }

    /// Where to send events.
    pub fn listener(&self) -> Arc<dyn Fn(Event) + Send + Sync> {
        match self.events.clone() {
            Some(events) => Arc::new(move |event| {
                // The painter may be gone: then nobody looks.
                let _ = events.send(event);
            }),
            None => Arc::new(drop),
        }
    }

    /// Draws what is left; all listeners must be gone.
    pub fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.events = None;
        if let Some(painter) = self.painter.take() {
            // A panic in the painter concerns nobody else.
            let _ = painter.join();
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.end();
    }
}

struct Board {
    look: Look,
    bars: MultiProgress,
    width: usize,
    steps: HashMap<String, Line>,
}

struct Line {
    bar: ProgressBar,
    progress: Arc<Progress>,
    start: Instant,
}

impl Board {
    fn new(look: Look) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { look, bars, width: 8, steps: HashMap::new() }
    }

    fn tell(&mut self, event: &Event) {
        match event {
            Event::Started { steps, .. } => {
                self.width = steps.iter().map(|s| s.chars().count()).max().unwrap_or(8).clamp(4, 32);
            }
            Event::StepStarted { step, progress } => {
                let bar = self.bars.add(ProgressBar::no_length());
                bar.set_style(style("{msg}"));
                let line = Line { bar, progress: Arc::clone(progress), start: Instant::now() };
                line.bar.set_message(self.going(step, &line));
                self.steps.insert(step.clone(), line);
            }
            Event::StepFinished { step } => {
                let line = self.steps.remove(&step.name);
                let text = self.done(step);
                match line {
                    Some(line) => line.bar.finish_with_message(text),
                    None => {
                        let bar = self.bars.add(ProgressBar::no_length());
                        bar.set_style(style("{msg}"));
                        bar.finish_with_message(text);
                    }
                }
            }
            // Checks stand in the step's last line and in the report; notes are said after the bars.
            Event::Checked { .. } | Event::Note(_) | Event::Finished { .. } => {}
        }
    }

    fn look(&mut self) {
        for (step, line) in &self.steps {
            line.bar.set_message(self.going(step, line));
        }
    }

    fn finish(self) {
        for line in self.steps.into_values() {
            line.bar.finish_and_clear();
        }
    }

    fn going(&self, step: &str, line: &Line) -> String {
        running(step, self.width, line.progress.snapshot(), line.start.elapsed(), self.look)
    }

    fn done(&self, step: &StepRecord) -> String {
        finished(step, self.width, self.look)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The line of a step that runs.
fn running(step: &str, width: usize, now: ProgressSnapshot, elapsed: Duration, look: Look) -> String {
    const FRAMES: [&str; 8] = ["⠋", "⠙", "⠸", "⠴", "⠦", "⠇", "⠏", "⠟"];
    const ASCII: [&str; 4] = ["|", "/", "-", "\\"];
    let tick = (elapsed.as_millis() / 100) as usize;
    let frame = if look.unicode { FRAMES[tick % FRAMES.len()] } else { ASCII[tick % ASCII.len()] };
    let seconds = elapsed.as_secs_f64();
    let rate = if seconds >= 0.5 { now.scanned_rows as f64 / seconds } else { 0.0 };
    let mut parts = vec![format!("{} rows read", human::count(now.scanned_rows))];
    if now.scanned_bytes > 0 {
        let of = if now.total_bytes > 0 { format!(" of {}", human::bytes(now.total_bytes)) } else { String::new() };
        parts.push(format!("{}{of}", human::bytes(now.scanned_bytes)));
    }
    if rate >= 1.0 {
        parts.push(format!("{} rows/s", human::count(rate as u64)));
    }
    if now.rows > 0 {
        parts.push(format!("{} rows out", human::count(now.rows)));
    }
    parts.push(format!("{seconds:.1} s"));
    line(paint(frame, "36", look), step, width, &parts, look)
}

/// The line of a step that has ended.
fn finished(step: &StepRecord, width: usize, look: Look) -> String {
    let (mark, ascii, style) = match step.outcome {
        Outcome::Succeeded => ("✓", "+", "32"),
        Outcome::Skipped => ("-", "-", "2"),
        Outcome::Failed | Outcome::CheckFailed | Outcome::TimedOut | Outcome::Cancelled => ("✗", "x", "31"),
    };
    let mark = paint(if look.unicode { mark } else { ascii }, style, look);
    let mut parts = Vec::new();
    match step.outcome {
        Outcome::Succeeded => {
            parts.push(format!("{} rows", human::count(step.rows)));
            if let Some(output) = step.output.as_ref().filter(|o| o.published) {
                parts.push(human::bytes(output.bytes));
            }
        }
        Outcome::Failed => parts.push("failed".to_owned()),
        Outcome::CheckFailed => {
            let names = step.checks.iter().filter(|c| !c.passed && c.blocking).map(|c| format!("`{}`", c.name));
            parts.push(format!("check failed: {}", names.collect::<Vec<_>>().join(", ")));
        }
        Outcome::Cancelled => parts.push("interrupted".to_owned()),
        Outcome::TimedOut => parts.push("timed out".to_owned()),
        Outcome::Skipped => parts.push("skipped".to_owned()),
    }
    if step.outcome != Outcome::Skipped {
        parts.push(human::duration(step.wall_us, look.unicode));
    }
    line(mark, &step.name, width, &parts, look)
}

fn line(mark: String, step: &str, width: usize, parts: &[String], look: Look) -> String {
    let dot = if look.unicode { " · " } else { ", " };
    let name = human::safe(step);
    format!("{mark} {name:<width$}  {}", parts.join(dot))
}

fn paint(text: &str, style: &str, look: Look) -> String {
    if look.color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_step() {
        let now = ProgressSnapshot { rows: 12, scanned_rows: 336_776, scanned_bytes: 5 << 20, total_bytes: 10 << 20 };
        let look = Look::plain(100);
        let text = running("enriched", 10, now, Duration::from_secs(2), look);
        assert_eq!(
            text,
            "⠦ enriched    336,776 rows read · 5.00 MiB of 10.0 MiB · 168,388 rows/s · 12 rows out · 2.0 s"
        );
        let start = running("x", 4, ProgressSnapshot::default(), Duration::ZERO, Look { unicode: false, ..look });
        assert_eq!(start, "| x     0 rows read, 0.0 s");
    }

    #[test]
    fn hidden_bars_listen_and_say_nothing() {
        let bars = Bars::new(Look::plain(80), false);
        bars.listener()(Event::Note("x".to_owned()));
        bars.finish();
    }
}
