//! Decisions of the optimizer as typed values.

use sparklet_history::{Decision, DecisionKind, Reason};

/// Whether the past is read when a plan is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Learning {
    /// The past is read, and may choose another plan than the default.
    #[default]
    On,
    /// The past is not read.
    Off,
}

/// The decision to take DataFusion's own plan: the only candidate that this build knows, with learning on as with learning off.
pub fn decide_default(learning: Learning) -> Decision {
    let (because, switch) = match learning {
        // Nothing would change if it were off, so there is no switch to name.
        Learning::On => (Reason::OnlyCandidate, None),
        Learning::Off => (Reason::LearningOff, Some("learning = \"on\"".to_owned())),
    };
    Decision { kind: DecisionKind::DefaultPlan, because, evidence: Vec::new(), switch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_follows_the_switch() {
        assert_eq!(decide_default(Learning::On).because, Reason::OnlyCandidate);
        let off = decide_default(Learning::Off);
        assert_eq!(off.because, Reason::LearningOff);
        assert_eq!(off.switch.as_deref(), Some("learning = \"on\""));
        assert!(off.evidence.is_empty(), "learning off reads no runs");
    }
}
