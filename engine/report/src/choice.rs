//! How plans were chosen, in words.

use sparklet_history::{
    ChoiceReason, ChoiceRecord, FallBackReason, GuardPhase, HistoryUnused, PlanChange, PlanControl, PlanOutline,
    PlanPrediction, PlanRole, Rejection, RunRecord,
};

use crate::human::{age, count, duration, plural, safe};

/// Characters of a plan's name that are shown.
const SHORT: usize = 8;

/// The choice in one line: what ran, in which role, and why.
pub fn headline(choice: &ChoiceRecord) -> String {
    let what = match choice.role {
        PlanRole::Default => "DataFusion's own plan".to_owned(),
        PlanRole::Control => "DataFusion's own plan, to compare with".to_owned(),
        PlanRole::Trial => format!("plan {} on trial", name(&choice.chosen)),
        PlanRole::Adopted => format!("plan {}", name(&choice.chosen)),
        PlanRole::Pinned => format!("plan {}, pinned", name(&choice.chosen)),
    };
    format!("{what}: {}", reason(&choice.because))
}

/// All that there is to say of a choice, a line each, without the headline.
pub fn details(choice: &ChoiceRecord) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(choice.chosen.changes.iter().map(|change| format!("changed: {}", self::change(change))));
    if let Some(predicted) = &choice.predicted {
        let mut text = format!("predicted: {}", prediction(predicted));
        if let Some(default) = choice.default.as_ref().filter(|_| !choice.chosen.changes.is_empty()) {
            text.push_str(&format!("; the default: {}", prediction(default)));
        }
        lines.push(text);
    }
    if let Some(took) = choice.cpu_us {
        let beside = choice
            .reference_us
            .map(|reference| format!("; the default would have taken {} by its last run", duration(reference, true)));
        lines.push(format!("took: {} of CPU time{}", duration(took, true), beside.unwrap_or_default()));
    }
    if let Some(fell) = &choice.fell_back {
        let why = match &fell.because {
            FallBackReason::Deadline { limit_us } => format!("its time, {}, was up", duration(*limit_us, true)),
            FallBackReason::OutOfMemory => "it ran out of memory".to_owned(),
            FallBackReason::Failed { message } => format!("it failed: {}", safe(message)),
        };
        let instead =
            choice.fallback.map_or("the default".to_owned(), |plan| format!("plan {}", short(&plan.to_string())));
        lines.push(format!(
            "given up after {}: {why}; {instead} took over, {} of CPU time was lost",
            duration(fell.after_us, true),
            duration(fell.lost_us, true)
        ));
    }
    for rejected in &choice.rejected {
        let changes: Vec<String> = rejected.plan.changes.iter().map(change).collect();
        let [expected, low, high] = rejected.gain_us;
        lines.push(format!(
            "rejected: plan {} ({}), {}, gain {} ({} to {}): {}",
            name(&rejected.plan),
            if changes.is_empty() { "as the default".to_owned() } else { changes.join("; ") },
            prediction(&rejected.predicted),
            signed(expected),
            signed(low),
            signed(high),
            rejection(&rejected.because)
        ));
    }
    if !choice.evidence.is_empty() {
        let runs: Vec<&str> = choice.evidence.iter().map(|run| run.as_str()).collect();
        let old = choice.evidence_age_s.map(|s| format!(", the newest {} old", age(s))).unwrap_or_default();
        lines.push(format!("evidence: {}{old}", runs.join(", ")));
    }
    for flip in &choice.flip {
        lines.push(format!(
            "would change: {} where it has {} (now {}): {}",
            safe(&flip.what),
            plural(flip.at_rows, "row", "rows"),
            count(flip.rows),
            safe(&flip.then)
        ));
    }
    if let Some(control) = &choice.control {
        lines.push(format!("ordered: {}", self::control(control)));
    }
    if let Some(unused) = &choice.unused {
        lines.push(format!("history was not used: {}", self::unused(unused)));
    }
    let guard = &choice.guard;
    let stands = match guard.phase {
        GuardPhase::Default => None,
        GuardPhase::Trial { plan, .. } => Some(format!("plan {} is on trial", short(&plan.to_string()))),
        GuardPhase::Adopted { plan, runs } => Some(format!(
            "plan {} is adopted, good in {}",
            short(&plan.to_string()),
            plural(u64::from(runs), "run", "runs")
        )),
        GuardPhase::RolledBack { plan, took_us, reference_us } => Some(format!(
            "plan {} is rolled back: it took {}, the default {}{}",
            short(&plan.to_string()),
            duration(took_us, true),
            duration(reference_us, true),
            match guard.rests {
                0 => String::new(),
                runs => format!("; for {} nothing else is tried", plural(u64::from(runs), "more run", "more runs")),
            }
        )),
    };
    lines.extend(stands.map(|stands| format!("after this run: {stands}")));
    if guard.saved_us != 0 || guard.regret_us != 0 {
        lines.push(format!(
            "so far: {} of CPU time saved against the default, {} spent on finding out",
            signed(guard.saved_us),
            duration(guard.regret_us, true)
        ));
    }
    lines
}

/// Why the past was not used.
pub fn unused(why: &HistoryUnused) -> String {
    match why {
        HistoryUnused::Switched => "nothing is to be learned (`learning`), or no history is set".to_owned(),
        HistoryUnused::FirstRun { elsewhere } if elsewhere.is_empty() => "no earlier run is remembered".to_owned(),
        HistoryUnused::FirstRun { elsewhere } => {
            let names: Vec<String> = elsewhere.iter().map(|name| format!("`{}`", safe(name))).collect();
            format!("no earlier run in this environment, only in {}", names.join(", "))
        }
        HistoryUnused::Locked => "another process holds it".to_owned(),
        HistoryUnused::Damaged { detail } => format!("it is damaged: {}", safe(detail)),
        HistoryUnused::Newer { found, supported } => {
            format!("a newer build wrote it (version {found}, this build reads up to {supported})")
        }
        HistoryUnused::Slow { limit_ms } => format!("it did not answer within {limit_ms} ms"),
        HistoryUnused::Unreadable { detail } => format!("it cannot be read: {}", safe(detail)),
        HistoryUnused::NoMatch { nearest, differs } => {
            let nearest = nearest.map(|f| format!(" (nearest: {})", short(&f.to_string()))).unwrap_or_default();
            format!("{}{nearest}", safe(differs))
        }
    }
}

/// What the user ordered.
pub fn control(control: &PlanControl) -> String {
    match control {
        PlanControl::Pin { plan, run } => {
            let run = run.as_ref().map(|run| format!(" of run {run}")).unwrap_or_default();
            format!("pin plan {}{run}", short(&plan.to_string()))
        }
        PlanControl::Forbid => "forbid: always the default".to_owned(),
        PlanControl::Freeze => "freeze: the plan in force, no trials".to_owned(),
    }
}

/// A part of the verdict: what of the run was chosen by learning.
pub(crate) fn in_verdict(record: &RunRecord) -> String {
    let choices = || record.steps.iter().filter_map(|step| step.choice.as_deref());
    let number = |role: PlanRole| choices().filter(|choice| choice.role == role).count() as u64;
    let fell = choices().filter(|choice| choice.fell_back.is_some()).count() as u64;
    let back = choices()
        .filter(|c| c.fell_back.is_none() && matches!(c.role, PlanRole::Trial | PlanRole::Adopted | PlanRole::Control))
        .filter(|choice| matches!(choice.guard.phase, GuardPhase::RolledBack { .. }))
        .count() as u64;
    let mut parts = Vec::new();
    let learned = number(PlanRole::Adopted) + number(PlanRole::Pinned);
    if learned > 0 {
        parts.push(plural(learned, "learned plan", "learned plans"));
    }
    if number(PlanRole::Trial) > 0 {
        parts.push(format!("{} on trial", plural(number(PlanRole::Trial), "plan", "plans")));
    }
    if fell > 0 {
        parts.push(format!("{fell} given up"));
    }
    if back > 0 {
        parts.push(format!("{back} rolled back"));
    }
    if parts.is_empty() { String::new() } else { format!("; {}", parts.join(", ")) }
}

fn name(plan: &PlanOutline) -> String {
    plan.key.map_or_else(|| "?".to_owned(), |key| short(&key.to_string()).to_owned())
}

fn short(text: &str) -> &str {
    text.get(..SHORT).unwrap_or(text)
}

fn prediction(of: &PlanPrediction) -> String {
    format!(
        "{} of CPU time ({} to {})",
        duration(of.cpu_us, true),
        duration(of.low_us, true),
        duration(of.high_us, true)
    )
}

fn signed(us: i64) -> String {
    let size = duration(us.unsigned_abs(), true);
    if us < 0 { format!("-{size}") } else { size }
}

fn change(change: &PlanChange) -> String {
    match change {
        PlanChange::Rewrite { name, what } => format!("{}: {}", safe(name), safe(what)),
        PlanChange::Join(join) => {
            let table = if join.collect { "one table for all partitions" } else { "a table for each partition" };
            format!(
                "join on {}: builds the side of {} for {}, {table}",
                safe(&join.on),
                plural(join.build_rows, "row", "rows"),
                count(join.probe_rows)
            )
        }
        PlanChange::ScanFilter { what, .. } => format!("filters while it reads {}", safe(what)),
        PlanChange::Partitions { partitions } => {
            format!("runs in {}", plural(u64::from(*partitions), "partition", "partitions"))
        }
    }
}

fn rejection(why: &Rejection) -> String {
    match why {
        Rejection::Slower => "another gains more".to_owned(),
        Rejection::GainUncertain { threshold_us } => {
            format!("the low end of its gain is below {}", duration(*threshold_us, true))
        }
        Rejection::LostBefore { lost_us } => {
            format!("it lost {} before, and nothing has changed since", duration(*lost_us, true))
        }
        Rejection::Guard => "the guard".to_owned(),
        Rejection::Forbidden => "forbidden".to_owned(),
        Rejection::ObserveOnly => "`learning = \"observe\"`".to_owned(),
    }
}

fn reason(why: &ChoiceReason) -> String {
    match why {
        ChoiceReason::NoOther => "there was no other candidate".to_owned(),
        ChoiceReason::NoCertainGain => "no other candidate has a certain gain".to_owned(),
        ChoiceReason::TooSmall => "the query is too small for a choice to pay".to_owned(),
        ChoiceReason::Gain { expected_us, low_us, high_us, threshold_us } => format!(
            "expected to take {} less than the default ({} to {}; at least {} is asked for)",
            signed(*expected_us),
            signed(*low_us),
            signed(*high_us),
            duration(*threshold_us, true)
        ),
        ChoiceReason::Exploration { expected_us, risk_us, budget_us } => format!(
            "likely to take {} less than the default; it may lose {}, the budget is {}",
            signed(*expected_us),
            duration(*risk_us, true),
            duration(*budget_us, true)
        ),
        ChoiceReason::Challenge { expected_us, took_us, budget_us } => format!(
            "likely to take {} less than the plan in force, which took {}; the budget is {}",
            signed(*expected_us),
            duration(*took_us, true),
            duration(*budget_us, true)
        ),
        ChoiceReason::Proven { runs } => {
            format!("better than the default in {}", plural(u64::from(*runs), "run", "runs"))
        }
        ChoiceReason::Control { after } => format!("last compared {} ago", plural(u64::from(*after), "run", "runs")),
        ChoiceReason::RolledBack { took_us, reference_us } => format!(
            "the other plan lost: it took {}, the default would have taken {}",
            duration(*took_us, true),
            duration(*reference_us, true)
        ),
        ChoiceReason::EngineChanged { was } => format!(
            "the last runs were of sparklet {} with DataFusion {}: first it is seen how this one does",
            safe(&was.sparklet),
            safe(&was.datafusion)
        ),
        ChoiceReason::ObserveOnly => "`learning = \"observe\"`".to_owned(),
        ChoiceReason::LearningOff => "`learning = \"off\"`".to_owned(),
        ChoiceReason::Ordered => "the user ordered it".to_owned(),
        ChoiceReason::PinLost => "the plan that the user pinned is no candidate any more".to_owned(),
        ChoiceReason::Deterministic => "the step is to give its rows in the same order in every run".to_owned(),
    }
}
