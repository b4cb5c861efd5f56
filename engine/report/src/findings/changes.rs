//! Rules over what was changed in mid-run.

use sparklet_history::{AdaptationKind, StepRecord};

use super::{Finding, FindingKind, Scene, Tone, in_step};
use crate::adaptation::{keys, predicted_gain, switch};
use crate::human::{bytes, factor, plural, safe};
use crate::thresholds::ADAPTATION_GAIN;

/// A query that did not fit in memory at first: its first attempt was for nothing.
pub(super) fn second_attempt(scene: &Scene<'_>) -> Option<Finding> {
    let again = |step: &&StepRecord| step.adaptations.iter().any(|a| a.kind == AdaptationKind::RunInStages);
    let steps: Vec<&StepRecord> = scene.record.steps.iter().filter(again).collect();
    let first = steps.first()?;
    let others = match steps.len() as u64 - 1 {
        0 => String::new(),
        n => format!(
            ", and so {} of {}",
            if n == 1 { "was that" } else { "were those" },
            plural(n, "other step", "other steps")
        ),
    };
    Some(Finding {
        kind: FindingKind::SecondAttempt,
        tone: Tone::Warning,
        what: format!("the query did not fit in memory and was run a second time, in stages{others}"),
        place: in_step(&first.name),
        next: format!(
            "raise `memory` (now {}), or lower `slots` (now {}), so that the first attempt fits",
            bytes(scene.record.memory_limit_bytes),
            scene.record.slots
        ),
        weight: 1.5,
    })
}

/// The change from which most was expected.
pub(super) fn adapted(scene: &Scene<'_>) -> Option<Finding> {
    let steps = scene.record.steps.iter().flat_map(|s| s.adaptations.iter().map(move |a| (s, a)));
    let gains = steps.filter_map(|(step, a)| Some((step, a, predicted_gain(a).filter(|g| *g >= ADAPTATION_GAIN)?)));
    let (step, adaptation, gain) = gains.max_by(|a, b| a.2.total_cmp(&b.2))?;
    let divided = |what: String| {
        let slots = plural(u64::from(scene.record.slots), "slot", "slots");
        format!("{what} was divided in mid-run: its expected time on {slots} fell {}", factor(gain, true))
    };
    let what = match &adaptation.kind {
        AdaptationKind::DivideJoin { on, .. } => divided(format!("the join{}", keys(on))),
        AdaptationKind::SplitGroups { by, .. } => divided(format!("the aggregate by {}", safe(&by.join(", ")))),
        AdaptationKind::SplitWindow { by, .. } => divided(format!("the window by {}", safe(&by.join(", ")))),
        AdaptationKind::ReorderJoins { .. } => {
            format!("joins changed their order in mid-run: their expected CPU time fell {}", factor(gain, true))
        }
        _ => return None,
    };
    Some(Finding {
        kind: FindingKind::Adapted,
        tone: Tone::Good,
        what,
        place: in_step(&step.name),
        next: format!("nothing to do; below is what it gained and cost, and `{}` turns it off", switch(adaptation)),
        weight: 2.5,
    })
}
