//! Rules over the run as a whole: checks, outputs, memory, time, sources.

use sparklet_history::{Outcome, StepRecord};

use super::{Finding, FindingKind, Scene, Tone, in_run, in_step, named};
use crate::compare::{Change, ComparedStep, rows_written};
use crate::human::{bytes, count, duration, exact_percent, percent, plural, safe};
use crate::thresholds::{
    BLIND_SOURCE_MIN_BYTES, MEMORY_NEAR_LIMIT, MIN_WALL_US, OVERHEAD_SHARE, ROWS_CHANGE, SLOTS_IDLE, SMALL_FILE_BYTES,
    SMALL_FILES, STEP_DOMINATES, STEP_DOMINATES_MIN_STEPS, TIME_CHANGE, TIME_CHANGE_MIN_US,
};
use crate::timing::{TimeKind, share};

pub(super) fn look(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    checks(scene, found);
    found.extend(empty_output(scene));
    found.extend(rows_changed(scene));
    found.extend(memory(scene));
    found.extend(slower(scene));
    found.extend(dominating_step(scene));
    found.extend(overhead(scene));
    found.extend(idle_slots(scene));
    found.extend(sources(scene));
}

/// One finding for all checks that failed without blocking: ten of them must not hide the rest.
fn checks(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    let failed: Vec<(&StepRecord, _)> = scene
        .record
        .steps
        .iter()
        .flat_map(|s| s.checks.iter().filter(|c| !c.passed && !c.blocking).map(move |c| (s, c)))
        .collect();
    let Some((step, check)) = failed.first().copied() else { return };
    let rows = match (check.failed_rows, check.rows) {
        (Some(bad), Some(all)) if check.tolerate <= 0.0 => format!(": {} of {} rows", count(bad), count(all)),
        (Some(bad), Some(all)) => {
            format!(": {} of {} rows, {} tolerated", count(bad), count(all), exact_percent(check.tolerate))
        }
        _ => String::new(),
    };
    let others = match failed.len() as u64 - 1 {
        0 => String::new(),
        n => format!("; {} failed too", plural(n, "other check", "other checks")),
    };
    let look = match &check.kept {
        Some(path) => format!("look at the failing rows in `{}`", safe(path)),
        None => format!("look at the rows where `{}` does not hold", safe(&check.condition)),
    };
    found.push(Finding {
        kind: FindingKind::CheckFailed,
        tone: Tone::Warning,
        what: format!("check `{}` failed and only warns{rows}{others}", safe(&check.name)),
        place: named(Some(&step.name), &check.name),
        next: format!(
            "{look}; set `tolerate` if they are expected, or `on_fail = \"block\"` to keep them from readers"
        ),
        weight: 2.0,
    });
}

fn empty_output(scene: &Scene<'_>) -> Option<Finding> {
    let step = scene
        .record
        .steps
        .iter()
        .find(|s| s.output.as_ref().is_some_and(|o| o.published && o.mode != "none" && o.rows == 0))?;
    let location = step.output.as_ref().map(|o| safe(&o.location)).unwrap_or_default();
    Some(Finding {
        kind: FindingKind::EmptyOutput,
        tone: Tone::Warning,
        what: format!("step `{}` published no rows to `{location}`", safe(&step.name)),
        place: named(Some(&step.name), &location),
        next: "if that is wrong, look at where the rows end in the plan below, and add a check such as \
               `SELECT count(*) > 0 FROM …` that blocks publishing"
            .to_owned(),
        weight: 1.8,
    })
}

fn rows_changed(scene: &Scene<'_>) -> Option<Finding> {
    let (median, now) = (scene.comparison.median_rows?, rows_written(scene.record));
    let ratio = now as f64 / median as f64;
    if scene.record.outcome != Outcome::Succeeded || median == 0 || (ratio >= ROWS_CHANGE && ratio * ROWS_CHANGE <= 1.0)
    {
        return None;
    }
    // Who gave other parameters asked for other rows.
    if scene.comparison.has_changed(Change::Params) {
        return None;
    }
    let expected = scene.comparison.has_changed(Change::Code);
    let because = if expected { ", and the code changed" } else { "" };
    Some(Finding {
        kind: FindingKind::RowsChanged,
        tone: if expected { Tone::Note } else { Tone::Warning },
        what: format!("{} rows were written, where {} are usual{because}", count(now), count(median)),
        place: in_run(),
        next: "compare the rows of the sources with those of the run before; a check on the number of rows would have said so first"
            .to_owned(),
        weight: 1.5,
    })
}

fn memory(scene: &Scene<'_>) -> Option<Finding> {
    let (peak, limit) = (scene.record.peak_memory_bytes, scene.record.memory_limit_bytes);
    let used = share(peak, limit);
    if used < MEMORY_NEAR_LIMIT {
        return None;
    }
    let step = scene.record.steps.iter().max_by_key(|s| s.peak_memory_bytes)?;
    Some(Finding {
        kind: FindingKind::MemoryNearLimit,
        tone: Tone::Warning,
        what: format!("memory reached {} of its limit: {} of {}", percent(used), bytes(peak), bytes(limit)),
        place: in_step(&step.name),
        next: "raise `memory`, or lower `slots` (fewer tasks share the pool), before the data grows".to_owned(),
        weight: 0.5 + used.min(1.0) / 2.0,
    })
}

fn slower(scene: &Scene<'_>) -> Option<Finding> {
    let (delta, median) = (scene.comparison.delta?, scene.comparison.median_wall_us?);
    let more = scene.record.wall_us.saturating_sub(median);
    if scene.record.outcome != Outcome::Succeeded
        || delta < TIME_CHANGE
        || more < TIME_CHANGE_MIN_US
        || !scene.comparison.beyond_noise
    {
        return None;
    }
    let grown = |s: &&ComparedStep| s.wall_us.saturating_sub(s.median_wall_us);
    let worst = scene.comparison.steps.iter().max_by_key(grown).filter(|s| grown(s) > more / 4);
    let (place, because) = match worst {
        Some(s) => (
            in_step(&s.step),
            format!(
                "; most of it in step `{}`: {} instead of {}",
                safe(&s.step),
                duration(s.wall_us, true),
                duration(s.median_wall_us, true)
            ),
        ),
        None => (in_run(), String::new()),
    };
    let next = match scene.comparison.changed.first() {
        Some(change) => format!("{} changed since the run before: compare the plans of the two runs", change.as_str()),
        None => "neither code nor data changed: look for other load on the machine, then run again".to_owned(),
    };
    let n = scene.comparison.len();
    Some(Finding {
        kind: FindingKind::Slower,
        tone: Tone::Warning,
        what: format!(
            "{} longer than the median of the last {n} runs, and longer than any of them{because}",
            duration(more, true)
        ),
        place,
        next,
        weight: 0.6 + delta.min(1.0),
    })
}

fn dominating_step(scene: &Scene<'_>) -> Option<Finding> {
    let ran = scene.record.steps.iter().filter(|s| s.outcome != Outcome::Skipped).count();
    let (index, step) = scene.record.steps.iter().enumerate().max_by_key(|(_, s)| s.wall_us)?;
    let part = share(step.wall_us, scene.record.wall_us);
    if ran < STEP_DOMINATES_MIN_STEPS || scene.record.wall_us < MIN_WALL_US || part < STEP_DOMINATES {
        return None;
    }
    let nodes = step.plan.as_ref().map(|p| p.nodes.as_slice()).unwrap_or_default();
    let top = nodes.iter().enumerate().max_by_key(|(i, _)| scene.time.node_us(index, *i));
    let next = match top.filter(|(i, _)| scene.time.node_us(index, *i) > 0) {
        Some((i, node)) => format!(
            "only this step is worth work; begin at {} (node {i}), which has {} of the run",
            safe(&node.operator),
            percent(scene.time.node_share(index, i))
        ),
        None => "only this step is worth work; `sparklet explain` shows its plan".to_owned(),
    };
    Some(Finding {
        kind: FindingKind::StepDominates,
        tone: Tone::Note,
        what: format!(
            "step `{}` takes {} of the run: {}",
            safe(&step.name),
            percent(part.min(1.0)),
            duration(step.wall_us, true)
        ),
        place: in_step(&step.name),
        next,
        weight: part.min(1.0) / 2.0,
    })
}

fn overhead(scene: &Scene<'_>) -> Option<Finding> {
    if scene.record.wall_us < MIN_WALL_US {
        return None;
    }
    let planning = share(scene.time.of(TimeKind::Planning), scene.time.total_us);
    let checks = share(scene.time.of(TimeKind::Checks), scene.time.total_us);
    let publish = share(scene.time.of(TimeKind::Publish), scene.time.total_us);
    let (name, part, next) = [
        ("planning", planning, "joins of many tables and sources of many files make planning long: join in two steps, or compact the files"),
        ("checks", checks, "each query check reads the result once more: put several conditions into one row check"),
        ("publishing", publish, "publishing syncs every file: write fewer, larger files (fewer partitions)"),
    ]
    .into_iter()
    .max_by(|a, b| a.1.total_cmp(&b.1))?;
    (part >= OVERHEAD_SHARE).then(|| Finding {
        kind: FindingKind::Overhead,
        tone: Tone::Note,
        what: format!("{name} takes {} of the run", percent(part)),
        place: in_run(),
        next: next.to_owned(),
        weight: part,
    })
}

fn idle_slots(scene: &Scene<'_>) -> Option<Finding> {
    let record = scene.record;
    let slots = record.slots.min(record.machine.cores);
    let busy = record.cpu_us as f64 / record.wall_us.max(1) as f64;
    if slots < 2 || record.wall_us < MIN_WALL_US || busy / f64::from(slots) >= SLOTS_IDLE {
        return None;
    }
    Some(Finding {
        kind: FindingKind::IdleSlots,
        tone: Tone::Note,
        what: format!("{busy:.1} of {slots} slots were busy on average"),
        place: in_run(),
        next:
            "look for one partition that does all the work, for sources of one row group, or for a slow disk or network"
                .to_owned(),
        weight: 0.4,
    })
}

fn sources(scene: &Scene<'_>) -> Option<Finding> {
    let small =
        |s: &&sparklet_history::SourceRecord| s.files >= SMALL_FILES && s.bytes / s.files.max(1) < SMALL_FILE_BYTES;
    if let Some(source) = scene.record.sources.iter().filter(small).max_by_key(|s| s.files) {
        return Some(Finding {
            kind: FindingKind::SmallFiles,
            tone: Tone::Note,
            what: format!(
                "source `{}` is {} files of {} on average",
                safe(&source.name),
                count(source.files),
                bytes(source.bytes / source.files.max(1))
            ),
            place: named(None, &source.name),
            next: "compact it: a step `SELECT * FROM …` with a Parquet output, read by the others".to_owned(),
            weight: 0.35,
        });
    }
    let blind = |s: &&sparklet_history::SourceRecord| {
        s.rows.is_none() && s.format != "tpch" && s.bytes >= BLIND_SOURCE_MIN_BYTES
    };
    let source = scene.record.sources.iter().filter(blind).max_by_key(|s| s.bytes)?;
    Some(Finding {
        kind: FindingKind::BlindSource,
        tone: Tone::Note,
        what: format!(
            "source `{}` ({}, {}) does not tell its rows, so plans over it are guesses",
            safe(&source.name),
            safe(&source.format),
            bytes(source.bytes)
        ),
        place: named(None, &source.name),
        next: "convert it to Parquet once, in a step that the others read: its footers hold row counts".to_owned(),
        weight: 0.3,
    })
}
