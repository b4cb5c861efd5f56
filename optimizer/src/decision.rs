//! Decisions of the optimizer as typed values.

use sparklet_history::{ChoiceReason, ChoiceRecord, Decision, DecisionKind, PlanRole, Reason};

/// Whether the past is read when a plan is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Learning {
    /// The past is read, and may choose another plan than the default.
    #[default]
    On,
    /// The past is read, and what it would choose is told; the default runs.
    Observe,
    /// The past is not read.
    Off,
}

/// The decision that `choice` is, in one line of a record.
pub fn decision_of(choice: &ChoiceRecord) -> Decision {
    let other = !matches!(choice.role, PlanRole::Default | PlanRole::Control);
    let (because, switch) = match choice.because {
        ChoiceReason::LearningOff => (Reason::LearningOff, Some("learning = \"on\"".to_owned())),
        // Nothing would change if it were off, so there is no switch to name.
        ChoiceReason::NoOther | ChoiceReason::TooSmall | ChoiceReason::Deterministic => (Reason::OnlyCandidate, None),
        _ => (Reason::Compared, other.then(|| "learning = \"observe\"".to_owned())),
    };
    let kind = if other { DecisionKind::LearnedPlan } else { DecisionKind::DefaultPlan };
    Decision { kind, because, evidence: choice.evidence.clone(), switch }
}
