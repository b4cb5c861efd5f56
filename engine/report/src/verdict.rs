//! The run in one sentence.

use sparklet_history::{Outcome, RunRecord, StepRecord};

use crate::compare::{Change, Comparison, Earlier, published, rows_written};
use crate::human::{count, duration, percent, plural, safe};
use crate::thresholds::{FEW_RUNS, SAME_TIME};

/// One sentence on `record` beside `earlier` runs, e.g. "succeeded in 2.31 s, 12 % faster than the median of the last 5 runs; 5 outputs,
/// 336,776 rows". Starts with a lower-case verb, has no full stop, no line break and nothing that a terminal would obey.
pub fn verdict<E: Into<Earlier>>(record: &RunRecord, earlier: impl IntoIterator<Item = E>) -> String {
    sentence(record, &Comparison::new(record, earlier))
}

/// As [`verdict`], where the earlier runs cannot be read: it says nothing of them.
pub fn verdict_alone(record: &RunRecord) -> String {
    sentence(record, &Comparison::unknown(record))
}

pub(crate) fn sentence(record: &RunRecord, comparison: &Comparison) -> String {
    let took = duration(record.wall_us, true);
    match record.outcome {
        Outcome::Succeeded => {
            format!(
                "succeeded in {took}{}{}{}; {}",
                beside(record, comparison),
                crate::choice::in_verdict(record),
                adapted(record),
                came_out(record)
            )
        }
        Outcome::Failed => format!("failed after {took}{}{}", at_step(record), published_before(record)),
        Outcome::CheckFailed => {
            format!("stopped by a check after {took}{}{}", failed_check(record), published_before(record))
        }
        Outcome::Cancelled => format!("cancelled after {took}{}{}", in_step(record), published_before(record)),
        Outcome::TimedOut => format!("timed out after {took}{}{}", in_step(record), published_before(record)),
        Outcome::Skipped => "nothing was run".to_owned(),
    }
}

fn beside(record: &RunRecord, comparison: &Comparison) -> String {
    let (Some(delta), Some((low, high))) = (comparison.delta, comparison.spread_wall_us) else {
        return match comparison.earlier_runs {
            _ if !comparison.is_empty() => String::new(),
            None => String::new(),
            Some(0) if record.pipeline == "sql" => String::new(),
            Some(0) => format!("; first run of `{}` that is remembered", safe(&record.pipeline)),
            Some(_) => "; none of the earlier runs compares with it".to_owned(),
        };
    };
    let runs = comparison.len();
    let than = match runs {
        1 => "the run before".to_owned(),
        n => format!("the median of the last {n} runs"),
    };
    let mut text = if delta.abs() < SAME_TIME {
        format!(", as fast as {than}")
    } else if delta < 0.0 {
        format!(", {} faster than {than}", percent(-delta))
    } else if delta < 1.0 {
        format!(", {} slower than {than}", percent(delta))
    } else {
        format!(", {} as long as {than}", crate::human::factor(delta + 1.0, true))
    };
    if delta.abs() >= SAME_TIME {
        match runs {
            n if n < FEW_RUNS => text.push_str(" (too few runs to tell from noise)"),
            _ if (low..=high).contains(&record.wall_us) => text.push_str(" (within their spread)"),
            _ => {}
        }
    }
    let changed: Vec<&str> = comparison.changed.iter().filter(|c| **c != Change::Machine).map(|c| c.as_str()).collect();
    if !changed.is_empty() {
        text.push_str(&format!("; {} changed since", join_words(&changed)));
    }
    text
}

fn adapted(record: &RunRecord) -> String {
    match crate::adaptation::count_of(record) {
        0 => String::new(),
        n => format!("; {} in mid-run", plural(n, "change", "changes")),
    }
}

fn came_out(record: &RunRecord) -> String {
    let outputs = published(record).count() as u64;
    let partial = record.steps.iter().any(|s| s.outcome == Outcome::Skipped);
    let mut text = match outputs {
        0 => {
            let rows = record.steps.last().map_or(0, |s| s.rows);
            format!("no outputs, {}", plural(rows, "row", "rows"))
        }
        n => format!("{}, {}", plural(n, "output", "outputs"), plural(rows_written(record), "row", "rows")),
    };
    if partial {
        let ran = record.steps.iter().filter(|s| s.outcome != Outcome::Skipped).count();
        text.push_str(&format!(" ({ran} of {} steps)", record.steps.len()));
    }
    text
}

fn first_with(record: &RunRecord, outcome: Outcome) -> Option<&StepRecord> {
    record.steps.iter().find(|s| s.outcome == outcome)
}

fn at_step(record: &RunRecord) -> String {
    let step = first_with(record, Outcome::Failed);
    let error = step.and_then(|s| s.error.as_ref()).or(record.error.as_ref());
    let place = step.map(|s| format!(" in step `{}`", safe(&s.name))).unwrap_or_default();
    let why = error.map(|e| format!(": {}", first_line(&e.message))).unwrap_or_default();
    format!("{place}{why}")
}

fn in_step(record: &RunRecord) -> String {
    let step = first_with(record, record.outcome);
    step.map(|s| format!(" in step `{}`", safe(&s.name))).unwrap_or_default()
}

fn failed_check(record: &RunRecord) -> String {
    let Some(step) = first_with(record, Outcome::CheckFailed) else { return String::new() };
    let place = format!(" in step `{}`", safe(&step.name));
    let Some(check) = step.checks.iter().find(|c| !c.passed && c.blocking) else { return place };
    let rows = match (check.failed_rows, check.rows) {
        (Some(failed), Some(rows)) => format!(" ({} of {} rows)", count(failed), count(rows)),
        _ => String::new(),
    };
    format!("{place}: `{}` does not hold{rows}", safe(&check.name))
}

/// What readers see of a run that did not get through; silence would leave that open.
fn published_before(record: &RunRecord) -> String {
    match published(record).count() as u64 {
        0 => "; nothing was published".to_owned(),
        n => format!("; {} published before", plural(n, "output was", "outputs were")),
    }
}

fn first_line(message: &str) -> String {
    safe(message.lines().next().unwrap_or_default().trim())
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn join_words(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
