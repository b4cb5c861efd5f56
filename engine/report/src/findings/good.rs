//! What went well. Said only of runs that succeeded, and only where it is a fact that might have been otherwise.

use sparklet_history::Outcome;

use super::{Finding, FindingKind, Scene, Tone, changes, in_run};
use crate::compare::Change;
use crate::human::{bytes, duration, factor, percent, plural};
use crate::plan::q_error;
use crate::thresholds::{
    GOOD_Q_ERROR, GOOD_Q_ERROR_MIN_NODES, MEMORY_COMFORTABLE, MIN_WALL_US, SLOTS_BUSY, TIME_CHANGE, TIME_CHANGE_MIN_US,
};
use crate::timing::share;

pub(super) fn look(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    if scene.record.outcome == Outcome::Succeeded {
        found.extend(
            [faster(scene), changes::adapted(scene), estimates(scene), slots(scene), checks(scene), memory(scene)]
                .into_iter()
                .flatten(),
        );
    }
}

fn good(kind: FindingKind, weight: f64, what: String, next: &str) -> Finding {
    Finding { kind, tone: Tone::Good, what, place: in_run(), next: next.to_owned(), weight }
}

fn faster(scene: &Scene<'_>) -> Option<Finding> {
    let (delta, median) = (scene.comparison.delta?, scene.comparison.median_wall_us?);
    let less = median.saturating_sub(scene.record.wall_us);
    if -delta < TIME_CHANGE || less < TIME_CHANGE_MIN_US || !scene.comparison.beyond_noise {
        return None;
    }
    let next = match scene.comparison.changed.first() {
        Some(Change::Data) => "the data changed too: see below whether there was less of it",
        Some(_) => "keep the change",
        None => "nothing to do; neither code nor data changed",
    };
    let n = scene.comparison.len();
    let what =
        format!("{} shorter than the median of the last {n} runs, and shorter than any of them", duration(less, true));
    Some(good(FindingKind::Faster, 3.0, what, next))
}

fn estimates(scene: &Scene<'_>) -> Option<Finding> {
    let nodes = scene.record.steps.iter().filter_map(|s| s.plan.as_ref()).flat_map(|p| &p.nodes);
    let known: Vec<f64> = nodes.filter_map(q_error).map(|q| q.value).collect();
    let worst = known.iter().copied().fold(1.0, f64::max);
    if known.len() < GOOD_Q_ERROR_MIN_NODES || worst > GOOD_Q_ERROR {
        return None;
    }
    let n = plural(known.len() as u64, "estimate", "estimates");
    let what = format!("all {n} of rows were within {} of the truth", factor(worst, true));
    Some(good(FindingKind::GoodEstimates, 2.0, what, "nothing to do: plans rest on true numbers"))
}

fn slots(scene: &Scene<'_>) -> Option<Finding> {
    let record = scene.record;
    let slots = record.slots.min(record.machine.cores);
    let busy = record.cpu_us as f64 / record.wall_us.max(1) as f64;
    if slots < 2 || record.wall_us < MIN_WALL_US || busy / f64::from(slots) < SLOTS_BUSY {
        return None;
    }
    let what = format!("{:.1} of {slots} slots were busy on average", busy.min(f64::from(slots)));
    Some(good(FindingKind::BusySlots, 1.5, what, "nothing to do here; more `slots` help only with more cores"))
}

fn checks(scene: &Scene<'_>) -> Option<Finding> {
    let checks: Vec<_> = scene.record.steps.iter().flat_map(|s| &s.checks).collect();
    if checks.is_empty() || checks.iter().any(|c| !c.passed) {
        return None;
    }
    let tolerated = checks.iter().filter(|c| c.failed_rows.unwrap_or(0) > 0).count() as u64;
    let within = match tolerated {
        0 => String::new(),
        n => format!(", {n} of them within what they tolerate"),
    };
    let what = format!("{} passed{within}", plural(checks.len() as u64, "check", "checks"));
    let next = if tolerated == 0 { "nothing to do" } else { "watch the tolerated rows: their share is listed below" };
    Some(good(FindingKind::ChecksPassed, 1.0, what, next))
}

fn memory(scene: &Scene<'_>) -> Option<Finding> {
    let record = scene.record;
    let mut nodes = record.steps.iter().filter_map(|s| s.plan.as_ref()).flat_map(|p| &p.nodes);
    let used = share(record.peak_memory_bytes, record.memory_limit_bytes);
    if record.peak_memory_bytes == 0 || used > MEMORY_COMFORTABLE || nodes.any(|n| n.spilled_bytes > 0) {
        return None;
    }
    let what = format!(
        "nothing was spilled; memory peaked at {} of {} ({})",
        bytes(record.peak_memory_bytes),
        bytes(record.memory_limit_bytes),
        percent(used)
    );
    Some(good(FindingKind::Comfortable, 0.5, what, "nothing to do: there is room for more data"))
}
