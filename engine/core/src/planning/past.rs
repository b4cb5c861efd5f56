//! What the last runs say of one query.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::Utc;
use sparklet_history::{
    ChoiceReason, ChoiceRecord, EngineRecord, Fingerprint, GuardPhase, GuardState, HistoryUnused, LAST_RUNS,
    PlanOutline, PlanPrediction, PlanRole, Recalled, RunId, RunRecord, SourceRecord, StepRecord, as_now,
};
use sparklet_optimizer::choice::decide::control_due;
use sparklet_optimizer::{Identity, Volumes};

use super::cache;
use super::work::Before;
use crate::session::Session;

/// How far beyond the last runs of a plan the next one lies in one of ten cases, where too few runs tell: runs of the same plan over the same rows
/// differ by about as much.
const BEYOND: f64 = 1.25;

/// The least and the most that what other runs did is taken for.
const LEAST_BEYOND: f64 = 1.05;
const MOST_BEYOND: f64 = 2.5;

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

    /// The sources of now beside those of the runs.
    pub(super) fn volumes(&self) -> Volumes {
        volumes(self.recalled, &self.sources)
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
    /// the default. What was chosen when nothing was known is looked for again at once: there may be something better by what its first run told.
    pub(super) fn proven(&self, plan: Fingerprint) -> Option<(&'a ChoiceRecord, u32)> {
        let GuardPhase::Adopted { plan: adopted, runs } = self.guard.phase else { return None };
        let last = self.last_choice?;
        let same = adopted == plan
            && last.chosen.key == Some(plan)
            && last.looked_up < cache::MOST_LOOK_UPS
            && !last.evidence.is_empty();
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
            fallback: None,
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
        let own = self.measured(&choice);
        let default = match choice.is_default() {
            true => own,
            false => self.measured(&ChoiceRecord { role: PlanRole::Default, ..choice.clone() }),
        };
        ChoiceRecord { predicted: own.or(choice.predicted), default: default.or(choice.default), ..choice }
    }

    /// What the last runs of the plan of `now` say of it.
    fn measured(&self, now: &ChoiceRecord) -> Option<PlanPrediction> {
        let mut last: Vec<f64> =
            self.choices.iter().filter_map(|earlier| as_now(earlier, now)).take(LAST_RUNS).collect();
        last.sort_by(f64::total_cmp);
        let (least, most) = (last.first().copied()?, last.last().copied()?);
        let middle = last.get(last.len() / 2).copied()?;
        let beyond = self.recalled.beyond().map_or(BEYOND, |of_all| of_all.clamp(LEAST_BEYOND, MOST_BEYOND));
        Some(PlanPrediction { cpu_us: middle as u64, low_us: (least / beyond) as u64, high_us: (most * beyond) as u64 })
    }

    /// What `plan` was when it last ran.
    pub(super) fn outline(&self, plan: Fingerprint) -> Option<&PlanOutline> {
        let choices = self.recalled.runs.iter().flat_map(|run| &run.steps).filter_map(|step| step.choice.as_deref());
        let mut of_plan = choices.filter(|choice| choice.chosen.key == Some(plan));
        of_plan.next().map(|choice| &choice.chosen)
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

/// `sources` beside those of the runs of `recalled`.
/// What tells the sources of now from those of past runs.
pub(crate) fn volumes(recalled: &Recalled, sources: &[SourceRecord]) -> Volumes {
    Volumes::new(sources, recalled.runs.iter().map(Arc::as_ref))
}

/// Rows of `now` ÷ rows of `then`, over the sources that both have; bytes where rows are not known.
pub(crate) fn growth(then: &[SourceRecord], now: &[SourceRecord]) -> f64 {
    let (mut before, mut after) = (0.0, 0.0);
    for source in now {
        let Some(old) = then.iter().find(|old| old.name == source.name) else { continue };
        let [a, b] = old.rows_beside(source);
        before += a;
        after += b;
    }
    if before > 0.0 && after > 0.0 { after / before } else { 1.0 }
}
