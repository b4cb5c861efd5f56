//! What the last runs say of one query.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::Utc;
use sparklet_history::{
    ChoiceRecord, EngineRecord, Fingerprint, GuardState, HistoryUnused, Recalled, RunId, RunRecord, SourceRecord,
    StepRecord,
};

use crate::session::Session;

/// See the module.
pub(super) struct Past<'a> {
    /// Where the guard stands.
    pub(super) guard: GuardState,
    /// Hash over the versions of all sources of now.
    pub(super) data_version: Fingerprint,
    /// By run, rows of the sources now ÷ rows then.
    pub(super) growth: BTreeMap<RunId, f64>,
    /// The engine of the last runs, where none of them had this one.
    pub(super) engine_was: Option<EngineRecord>,
    /// The last choice of each step.
    pub(super) last_choices: Vec<&'a ChoiceRecord>,
    /// The last choice for this query.
    pub(super) last_choice: Option<&'a ChoiceRecord>,
    recalled: &'a Recalled,
    last: Option<&'a StepRecord>,
}

impl<'a> Past<'a> {
    pub(super) fn of(
        session: &Session,
        recalled: &'a Recalled,
        step: Option<&str>,
        template: Option<Fingerprint>,
    ) -> Self {
        let sources = session.source_records();
        let reset_at = session.control(step).and_then(|control| control.reset_at);
        let of_step: Vec<&StepRecord> = match (step, template) {
            (Some(name), _) => {
                let counts = |run: &&'a Arc<RunRecord>| reset_at.is_none_or(|reset| run.started_at >= reset);
                let named = |run: &'a Arc<RunRecord>| run.steps.iter().find(|s| s.name == name);
                recalled.runs.iter().filter(counts).filter_map(named).collect()
            }
            (None, Some(template)) => recalled.queries(template).map(|(_, step)| step).collect(),
            (None, None) => Vec::new(),
        };
        let last_choice = of_step.iter().find_map(|step| step.choice.as_deref());
        let guard = last_choice.map(|choice| choice.guard.clone()).unwrap_or_default();
        let now = engine();
        let known = recalled.runs.iter().any(|run| run.engine == now);
        let mut seen = HashSet::new();
        let mut last_choices = Vec::new();
        for step in recalled.runs.iter().flat_map(|run| &run.steps) {
            let Some(choice) = step.choice.as_deref() else { continue };
            // An ad-hoc query is its template.
            let own =
                if recalled.scope().pipeline == "sql" { format!("{:?}", choice.template) } else { step.name.clone() };
            if seen.insert(own) {
                last_choices.push(choice);
            }
        }
        Self {
            guard,
            data_version: data_version(&sources),
            growth: recalled.runs.iter().map(|run| (run.id.clone(), growth(&run.sources, &sources))).collect(),
            engine_was: recalled.runs.first().filter(|_| !known).map(|run| run.engine.clone()),
            last_choices,
            last_choice,
            recalled,
            last: of_step.first().copied(),
        }
    }

    /// The runs that were known when `plan` was first chosen, as far as they are still here; none where it was not.
    pub(super) fn known_before(&self, plan: Fingerprint) -> Option<HashSet<RunId>> {
        let chose = |run: &Arc<RunRecord>| {
            run.steps.iter().filter_map(|step| step.choice.as_deref()).any(|choice| choice.chosen.key == Some(plan))
        };
        let first = self.recalled.runs.iter().rposition(chose)?;
        Some(self.recalled.runs.get(first + 1..)?.iter().map(|run| run.id.clone()).collect())
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
fn growth(then: &[SourceRecord], now: &[SourceRecord]) -> f64 {
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
