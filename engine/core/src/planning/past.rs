//! What the last runs say of one query.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::Utc;
use sparklet_history::{
    ChoiceReason, ChoiceRecord, EngineRecord, Fingerprint, GuardPhase, GuardState, HistoryUnused, PlanChange,
    PlanPrediction, PlanRole, Recalled, RunId, RunRecord, SourceRecord, StepRecord,
};
use sparklet_optimizer::Identity;
use sparklet_optimizer::choice::decide::control_due;

use super::cache;
use super::work::Before;
use crate::session::Session;

/// Runs of a plan that its next one is predicted by.
const LAST: usize = 3;

/// How far beyond these the next one lies in one of ten cases: runs of the same plan over the same rows differ by about as much.
const WITHIN: f64 = 1.25;

/// See the module.
pub(super) struct Past<'a> {
    /// Where the guard stands.
    pub(super) guard: GuardState,
    /// The engine of the last runs, where none of them had this one.
    pub(super) engine_was: Option<EngineRecord>,
    /// The last choice for this query.
    pub(super) last_choice: Option<&'a ChoiceRecord>,
    /// What its work is compared with.
    pub(super) before: Before,
    /// The choices of the step, the newest first.
    choices: Vec<&'a ChoiceRecord>,
    recalled: &'a Recalled,
    last: Option<&'a StepRecord>,
    /// Sources of now.
    sources: Vec<SourceRecord>,
}

impl<'a> Past<'a> {
    pub(super) fn of(
        session: &Session,
        recalled: &'a Recalled,
        step: Option<&str>,
        template: Option<Fingerprint>,
    ) -> Self {
        let reset_at = session.control(step).and_then(|control| control.reset_at);
        let of_step: Vec<(&Arc<RunRecord>, &StepRecord)> = match (step, template) {
            (Some(name), _) => {
                let counts = |run: &&'a Arc<RunRecord>| reset_at.is_none_or(|reset| run.started_at >= reset);
                let named = |run: &'a Arc<RunRecord>| Some((run, run.steps.iter().find(|s| s.name == name)?));
                recalled.runs.iter().filter(counts).filter_map(named).collect()
            }
            (None, Some(template)) => recalled.queries(template).collect(),
            (None, None) => Vec::new(),
        };
        let choices: Vec<&ChoiceRecord> = of_step.iter().filter_map(|(_, step)| step.choice.as_deref()).collect();
        let last_choice = choices.first().copied();
        let guard = last_choice.map(|choice| choice.guard.clone()).unwrap_or_default();
        let now = engine();
        let known = recalled.runs.iter().any(|run| run.engine == now);
        Self {
            guard,
            engine_was: recalled.runs.first().filter(|_| !known).map(|run| run.engine.clone()),
            last_choice,
            choices,
            recalled,
            last: of_step.first().map(|(_, step)| *step),
            before: Before::newest(of_step),
            sources: session.source_records(),
        }
    }

    /// Hash over the versions of all sources of now.
    pub(super) fn data_version(&self) -> Fingerprint {
        data_version(&self.sources)
    }

    /// By run, rows of the sources now ÷ rows then.
    pub(super) fn growth(&self) -> BTreeMap<RunId, f64> {
        let of = |run: &Arc<RunRecord>| (run.id.clone(), growth(&run.sources, &self.sources));
        self.recalled.runs.iter().map(of).collect()
    }

    /// The last choice of each step of the pipeline.
    pub(super) fn last_choices(&self) -> Vec<&'a ChoiceRecord> {
        let mut seen = HashSet::new();
        let mut last = Vec::new();
        for step in self.recalled.runs.iter().flat_map(|run| &run.steps) {
            let Some(choice) = step.choice.as_deref() else { continue };
            // An ad-hoc query is its template.
            let own = match self.recalled.scope().pipeline == "sql" {
                true => format!("{:?}", choice.template),
                false => step.name.clone(),
            };
            if seen.insert(own) {
                last.push(choice);
            }
        }
        last
    }

    /// The runs that were known when `plan` was first chosen, as far as they are still here; none where it was not.
    pub(super) fn known_before(&self, plan: Fingerprint) -> Option<HashSet<RunId>> {
        let chose = |run: &Arc<RunRecord>| {
            run.steps.iter().filter_map(|step| step.choice.as_deref()).any(|choice| choice.chosen.key == Some(plan))
        };
        let first = self.recalled.runs.iter().rposition(chose)?;
        Some(self.recalled.runs.get(first + 1..)?.iter().map(|run| run.id.clone()).collect())
    }

    /// The last choice, if it was `plan`, which has proved itself in so many runs; none where it is to be looked for again, or to be compared with
    /// the default.
    pub(super) fn proven(&self, plan: Fingerprint) -> Option<(&'a ChoiceRecord, u32)> {
        let GuardPhase::Adopted { plan: adopted, runs } = self.guard.phase else { return None };
        let last = self.last_choice?;
        let same = adopted == plan && last.chosen.key == Some(plan) && last.looked_up < cache::MOST_LOOK_UPS;
        (same && !control_due(&self.guard, runs)).then_some((last, runs))
    }

    /// The record of `last` made again, over `rows` rows, for the query `identity`; its runs say what it takes.
    pub(super) fn again(&self, last: &ChoiceRecord, identity: Option<Identity>, runs: u32, rows: u64) -> ChoiceRecord {
        self.predicted(ChoiceRecord {
            query: identity.map(|i| i.fingerprint),
            template: identity.map(|i| i.template),
            role: PlanRole::Adopted,
            because: ChoiceReason::Proven { runs },
            evidence_age_s: self.age_s(&last.evidence),
            unused: None,
            volume: rows.max(1).ilog2(),
            rows_read: rows,
            fell_back: None,
            looked_up: last.looked_up + 1,
            cpu_us: None,
            reference_us: None,
            work: None,
            guard: self.guard.clone(),
            ..last.clone()
        })
    }

    /// `choice` with what the earlier runs of its plan, and of the default, say that they take; where there were none it stays as it is.
    pub(super) fn predicted(&self, choice: ChoiceRecord) -> ChoiceRecord {
        let is_default = |choice: &ChoiceRecord| matches!(choice.role, PlanRole::Default | PlanRole::Control);
        let default = self.measured(choice.rows_read, is_default);
        let own = match is_default(&choice) {
            true => default,
            false => {
                self.measured(choice.rows_read, |other| !is_default(other) && other.chosen.key == choice.chosen.key)
            }
        };
        ChoiceRecord { predicted: own.or(choice.predicted), default: default.or(choice.default), ..choice }
    }

    /// What the runs of the step that `is_it` takes say of one over `rows` rows.
    fn measured(&self, rows: u64, is_it: impl Fn(&ChoiceRecord) -> bool) -> Option<PlanPrediction> {
        let took = |choice: &&ChoiceRecord| {
            let cpu_us =
                choice.cpu_us.filter(|_| is_it(choice) && choice.fell_back.is_none() && choice.rows_read > 0)?;
            Some(cpu_us as f64 * (rows.max(1) as f64 / choice.rows_read as f64).clamp(0.1, 10.0))
        };
        let mut last: Vec<f64> = self.choices.iter().filter_map(took).take(LAST).collect();
        last.sort_by(f64::total_cmp);
        let (least, most) = (last.first().copied()?, last.last().copied()?);
        let middle = last.get(last.len() / 2).copied()?;
        Some(PlanPrediction { cpu_us: middle as u64, low_us: (least / WITHIN) as u64, high_us: (most * WITHIN) as u64 })
    }

    /// How `plan` differed from the default when it last ran.
    pub(super) fn changes(&self, plan: Fingerprint) -> Option<&[PlanChange]> {
        let choices = self.recalled.runs.iter().flat_map(|run| &run.steps).filter_map(|step| step.choice.as_deref());
        let mut of_plan = choices.filter(|choice| choice.chosen.key == Some(plan));
        of_plan.next().map(|choice| choice.chosen.changes.as_slice())
    }

    /// Age of the newest of `runs` in seconds.
    pub(super) fn age_s(&self, runs: &[RunId]) -> Option<u64> {
        let newest = self.recalled.runs.iter().find(|run| runs.contains(&run.id))?;
        u64::try_from((Utc::now() - newest.started_at).num_seconds()).ok()
    }

    /// Why nothing of the past was used for a query whose estimates came from `runs`.
    pub(super) fn unused(&self, recalled: &Recalled, runs: &[RunId]) -> Option<HistoryUnused> {
        if let Some(unused) = &recalled.unused {
            return Some(unused.clone());
        }
        if !runs.is_empty() {
            return None;
        }
        let nearest = self.last.and_then(|step| step.plan.as_ref()?.nodes.iter().find_map(|node| node.fingerprint));
        let differs = match self.last {
            Some(_) => "the step's query has changed since its last run".to_owned(),
            None => "no run had this query".to_owned(),
        };
        Some(HistoryUnused::NoMatch { nearest, differs })
    }
}

/// This build.
pub(super) fn engine() -> EngineRecord {
    EngineRecord {
        sparklet: env!("CARGO_PKG_VERSION").to_owned(),
        datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
    }
}

/// As [`RunRecord::data_version`].
fn data_version(sources: &[SourceRecord]) -> Fingerprint {
    let mut parts: Vec<String> = sources.iter().map(|s| format!("{}={}", s.name, s.data_version)).collect();
    parts.sort_unstable();
    Fingerprint::of(&parts.join(";"))
}

/// Rows of `now` ÷ rows of `then`, over the sources that both have; bytes where rows are not known.
pub(crate) fn growth(then: &[SourceRecord], now: &[SourceRecord]) -> f64 {
    let (mut before, mut after) = (0.0, 0.0);
    for source in now {
        let Some(old) = then.iter().find(|old| old.name == source.name) else { continue };
        let (a, b) = match (old.rows, source.rows) {
            (Some(a), Some(b)) => (a as f64, b as f64),
            _ => (old.bytes as f64 / 24.0, source.bytes as f64 / 24.0),
        };
        before += a;
        after += b;
    }
    if before > 0.0 && after > 0.0 { after / before } else { 1.0 }
}
