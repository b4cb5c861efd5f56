//! What a run tells while it goes on; progress bars are drawn from this.

use std::sync::Arc;

use sparklet_core::Progress;
use sparklet_history::{CheckRecord, Outcome, RunId, StepRecord};

/// Something happened in a run.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run has a name and begins.
    Started {
        /// Name of the run.
        run: RunId,
        /// Names of the steps that will run, in order.
        steps: Vec<String>,
    },
    /// A step begins; `progress` is updated while it runs and may be polled.
    StepStarted {
        /// Name of the step.
        step: String,
        /// Live counters.
        progress: Arc<Progress>,
    },
    /// A check has an answer.
    Checked {
        /// Name of the step.
        step: String,
        /// The answer.
        check: CheckRecord,
    },
    /// A step has ended, in whatever way.
    StepFinished {
        /// What is recorded of it.
        step: Box<StepRecord>,
    },
    /// Something a reader should know.
    Note(String),
    /// The run has ended; the record is being stored.
    Finished {
        /// How.
        outcome: Outcome,
    },
}
