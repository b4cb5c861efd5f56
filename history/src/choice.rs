//! What a run leaves behind of how its plans were chosen: plain data.
//!
//! Times are CPU time in micro-seconds unless a name says otherwise.

use serde::{Deserialize, Serialize};

use crate::record::{EngineRecord, Fingerprint, RunId};

/// How the plan of a step was chosen, and what became of the choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChoiceRecord {
    /// The query.
    pub query: Option<Fingerprint>,
    /// The query without its literals.
    pub template: Option<Fingerprint>,
    /// What ran.
    pub chosen: PlanOutline,
    /// In which role it ran.
    pub role: PlanRole,
    /// Why.
    pub because: ChoiceReason,
    /// What was expected of it.
    pub predicted: Option<PlanPrediction>,
    /// What was expected of DataFusion's own plan.
    pub default: Option<PlanPrediction>,
    /// The other candidates, the best first.
    pub rejected: Vec<RejectedPlan>,
    /// Runs whose observations were used, newest first.
    pub evidence: Vec<RunId>,
    /// Age of the newest of them in seconds.
    #[serde(default)]
    pub evidence_age_s: Option<u64>,
    /// Why the past was not used, where it was not.
    #[serde(default)]
    pub unused: Option<HistoryUnused>,
    /// Where the choice would have been another.
    #[serde(default)]
    pub flip: Vec<FlipPoint>,
    /// Version of the cost model.
    pub model: String,
    /// Volume class of what the query reads: the binary logarithm of its rows.
    #[serde(default)]
    pub volume: u32,
    /// Rows that it reads, as known before it ran.
    #[serde(default)]
    pub rows_read: u64,
    /// What the user ordered, if anything.
    #[serde(default)]
    pub control: Option<PlanControl>,
    /// A trial that did not come to its end.
    #[serde(default)]
    pub fell_back: Option<FellBack>,
    /// The plan that takes over where a trial is ended; none: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fingerprint>,
    /// What planning took on top of DataFusion's.
    pub added_us: u64,
    /// The choice was a look-up.
    #[serde(default)]
    pub cached: bool,
    /// Look-ups in a row up to this run.
    #[serde(default)]
    pub looked_up: u32,
    /// CPU time of the run that counts for the guard, once it is over.
    #[serde(default)]
    pub cpu_us: Option<u64>,
    /// CPU time that the default would have taken for the rows of this run, as far as known.
    #[serde(default)]
    pub reference_us: Option<u64>,
    /// See [`Measured::work`].
    #[serde(default)]
    pub work: Option<u64>,
    /// State of the guard after the run.
    pub guard: GuardState,
}

/// The part a plan plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanRole {
    /// DataFusion's own plan.
    Default,
    /// A plan that has still to prove itself.
    Trial,
    /// A plan that has.
    Adopted,
    /// The default again, to compare with.
    Control,
    /// A plan that the user wants.
    Pinned,
}

impl ChoiceRecord {
    /// The record of a choice of which nothing is known yet.
    pub fn unknown() -> Self {
        Self {
            query: None,
            template: None,
            chosen: PlanOutline::default(),
            role: PlanRole::Default,
            because: ChoiceReason::NoOther,
            predicted: None,
            default: None,
            rejected: Vec::new(),
            evidence: Vec::new(),
            evidence_age_s: None,
            unused: None,
            flip: Vec::new(),
            model: String::new(),
            volume: 0,
            rows_read: 0,
            control: None,
            fell_back: None,
            fallback: None,
            added_us: 0,
            cached: false,
            cpu_us: None,
            reference_us: None,
            work: None,
            looked_up: 0,
            guard: GuardState::default(),
        }
    }

    /// DataFusion's own plan ran.
    pub fn is_default(&self) -> bool {
        matches!(self.role, PlanRole::Default | PlanRole::Control)
    }
}

/// What a plan is, told by what differs from DataFusion's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOutline {
    /// Hash over its operators and what they stand for, literals left out: the same plan in another run has the same.
    pub key: Option<Fingerprint>,
    /// What differs; empty for the default.
    pub changes: Vec<PlanChange>,
    /// The sides of all its joins, as the plan is made again by with other literals; empty for the default and for plans that did not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joins: Vec<JoinSides>,
    /// The orders of its joins, for the same; empty where nothing was rewritten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<JoinOrder>,
}

/// The order of the joins of a block, whatever its literals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinOrder {
    /// Templates of the relations, as they stand in the query.
    pub relations: Vec<Fingerprint>,
    /// The tree of joins in postfix: the number of a relation, or none for a join of the two before it, the first of which is on the left.
    pub tree: Vec<Option<u32>>,
}

/// The sides of a join, whatever its literals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinSides {
    /// Template of the subplan that the join completes.
    pub join: Fingerprint,
    /// Template of the input whose rows go into the hash table.
    pub build: Fingerprint,
    /// The table is one for all partitions, instead of one each.
    pub collect: bool,
}

/// A difference from DataFusion's own plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum PlanChange {
    /// The query was written anew before it was planned.
    Rewrite {
        /// Kind of the rewrite.
        name: String,
        /// What it does here.
        what: String,
    },
    /// A join builds the other input, or runs in another mode.
    Join(JoinChoice),
    /// A scan applies its filters while it reads.
    ScanFilter {
        /// The filtered scan.
        scan: Fingerprint,
        /// Its source, and the filter.
        what: String,
    },
    /// Partitions of the plan.
    Partitions {
        /// Their number.
        partitions: u32,
    },
}

/// How one join is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JoinChoice {
    /// The subplan that the join completes.
    pub join: Fingerprint,
    /// The input whose rows go into the hash table.
    pub build: Fingerprint,
    /// The table is one for all partitions, instead of one each.
    pub collect: bool,
    /// Its keys, as DataFusion writes them.
    pub on: String,
    /// Rows expected of the input that is built.
    pub build_rows: u64,
    /// Rows expected of the other one.
    pub probe_rows: u64,
}

/// Predicted CPU time; the true value lies between `low_us` and `high_us` in nine of ten cases.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlanPrediction {
    /// Expected.
    pub cpu_us: u64,
    /// Low end.
    pub low_us: u64,
    /// High end.
    pub high_us: u64,
}

/// A candidate that was not taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RejectedPlan {
    /// What it is.
    pub plan: PlanOutline,
    /// What was expected of it.
    pub predicted: PlanPrediction,
    /// How much less than the default it was expected to take: expected, low end, high end; negative where it takes more.
    pub gain_us: [i64; 3],
    /// Why it was not taken.
    pub because: Rejection,
}

/// Why a candidate was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Rejection {
    /// Another was expected to take less.
    Slower,
    /// Its gain is not certain, or too small.
    GainUncertain {
        /// The least that the gain must be.
        threshold_us: u64,
    },
    /// It lost before, and nothing has changed since.
    LostBefore {
        /// The CPU time that it lost.
        lost_us: u64,
    },
    /// Another plan is in force.
    Guard,
    /// The user forbids it.
    Forbidden,
    /// `learning = "observe"`.
    ObserveOnly,
}

/// Why a plan was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum ChoiceReason {
    /// There was no other candidate.
    NoOther,
    /// The others have no certain gain.
    NoCertainGain,
    /// The query is too small for a choice to pay.
    TooSmall,
    /// Its gain is certain enough.
    Gain {
        /// Expected.
        expected_us: i64,
        /// Low end.
        low_us: i64,
        /// High end.
        high_us: i64,
        /// The least that the low end must be.
        threshold_us: u64,
    },
    /// Its gain is likely, and what it may lose is within the regret budget.
    Exploration {
        /// Expected gain.
        expected_us: i64,
        /// What it may lose.
        risk_us: u64,
        /// The budget.
        budget_us: u64,
    },
    /// It is likely to be better than the plan in force, which takes over if it is not.
    Challenge {
        /// What it is expected to take less.
        expected_us: i64,
        /// What that plan took in its last run.
        took_us: u64,
        /// The regret budget.
        budget_us: u64,
    },
    /// It has proved itself.
    Proven {
        /// Runs in which it did.
        runs: u32,
    },
    /// It is time to compare with the default.
    Control {
        /// Runs since the last time.
        after: u32,
    },
    /// The plan in force lost in the last run.
    RolledBack {
        /// What the run took.
        took_us: u64,
        /// What the default would have taken.
        reference_us: u64,
    },
    /// The engine is another than in the last runs: first it is seen how it does.
    EngineChanged {
        /// The engine then.
        was: EngineRecord,
    },
    /// `learning = "observe"`.
    ObserveOnly,
    /// `learning = "off"`.
    LearningOff,
    /// The user ordered it.
    Ordered,
    /// The plan that the user pinned is no candidate any more.
    PinLost,
    /// The step's plan is to be the same in every run.
    Deterministic,
}

/// What a user orders for a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum PlanControl {
    /// This plan, while it is among the candidates.
    Pin {
        /// The plan.
        plan: Fingerprint,
        /// The run that it is from.
        run: Option<RunId>,
    },
    /// DataFusion's own plan, whatever the candidates.
    Forbid,
    /// The plan in force: no trials, no control runs.
    Freeze,
}

/// A value at which the choice would be another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlipPoint {
    /// What the value is of, e.g. the build side of a join.
    pub what: String,
    /// Rows now.
    pub rows: u64,
    /// Rows at which it flips.
    pub at_rows: u64,
    /// What would be chosen there.
    pub then: String,
}

/// A trial that the default, or the plan in force, took over from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FellBack {
    /// Wall time that the trial had.
    pub after_us: u64,
    /// CPU time that was lost with it.
    pub lost_us: u64,
    /// Why.
    pub because: FallBackReason,
}

/// Why a trial ended early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum FallBackReason {
    /// Its time was up.
    Deadline {
        /// The time that it was given.
        limit_us: u64,
    },
    /// It did not fit the memory pool.
    OutOfMemory,
    /// It failed.
    Failed {
        /// What it said.
        message: String,
    },
}

/// Why the past was not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum HistoryUnused {
    /// `learning` is `off` or `observe`.
    Switched,
    /// No run of the pipeline in this environment is remembered.
    FirstRun {
        /// Environments that have runs of it.
        elsewhere: Vec<String>,
    },
    /// Another process holds the store.
    Locked,
    /// The store is damaged; it is repaired when the run is remembered.
    Damaged {
        /// What was found.
        detail: String,
    },
    /// A newer build wrote it.
    Newer {
        /// Version found.
        found: u32,
        /// Newest version that this build reads.
        supported: u32,
    },
    /// The store did not answer in time.
    Slow {
        /// The time that it was given.
        limit_ms: u64,
    },
    /// It cannot be read.
    Unreadable {
        /// What went wrong.
        detail: String,
    },
    /// Runs are remembered, but none of this query.
    NoMatch {
        /// The subplan most like it.
        nearest: Option<Fingerprint>,
        /// What differs.
        differs: String,
    },
}

/// Where a step stands between its default and a plan that is better.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardState {
    /// The plan in force.
    pub phase: GuardPhase,
    /// Runs since the default was last measured.
    #[serde(default)]
    pub since_default: u32,
    /// CPU time of all runs so far.
    #[serde(default)]
    pub spent_us: u64,
    /// CPU time that trials and control runs have cost beyond the better plan.
    #[serde(default)]
    pub regret_us: u64,
    /// CPU time saved against the default, losses taken off.
    #[serde(default)]
    pub saved_us: i64,
    /// The default, when it was last measured.
    #[serde(default)]
    pub default: Option<Measured>,
    /// The plan in force, when it was last measured.
    #[serde(default)]
    pub latest: Option<Measured>,
    /// Plans that lost.
    #[serde(default)]
    pub refused: Vec<RefusedPlan>,
    /// Runs to come in which nothing is tried, since a plan lost.
    #[serde(default)]
    pub rests: u32,
}

/// See [`GuardState`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum GuardPhase {
    /// DataFusion's own plan.
    #[default]
    Default,
    /// A plan on trial.
    Trial {
        /// The plan.
        plan: Fingerprint,
        /// Runs that showed neither gain nor loss.
        undecided: u32,
    },
    /// A plan that has proved itself.
    Adopted {
        /// The plan.
        plan: Fingerprint,
        /// Runs.
        runs: u32,
    },
    /// A plan lost, and the default is back.
    RolledBack {
        /// The plan that lost.
        plan: Fingerprint,
        /// What it took.
        took_us: u64,
        /// What the default would have taken.
        reference_us: u64,
    },
}

/// CPU time of one run of a plan, and the rows that it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// CPU time.
    pub cpu_us: u64,
    /// Wall time of the execution.
    #[serde(default)]
    pub wall_us: u64,
    /// Rows of the sources.
    pub rows: u64,
    /// How much there was to do, in no unit: the quotient of two runs of a step says how much more rows one of them had in the subplans that
    /// both had, whatever plan each had. Runs are compared by it where their literals or their data differ.
    #[serde(default)]
    pub work: Option<u64>,
}

/// A plan that lost, and what it lost against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPlan {
    /// The plan.
    pub plan: Fingerprint,
    /// CPU time lost.
    pub lost_us: u64,
    /// Volume class when it lost: another volume is other evidence.
    pub volume: u32,
}
