//! What runs of a query and what was changed meanwhile, for whoever looks on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::physical_plan::ExecutionPlan;
use sparklet_history::{Adaptation, KeyRecord};

use super::join::AdaptiveJoinExec;
use super::parts::PartsExec;
use super::record::{self, micros};
use super::uncut::Uncut;
use crate::exchange::ExchangeReaderExec;

/// The plans of a query that run or have run, and what was changed meanwhile; for whoever looks on.
#[derive(Debug, Default)]
pub(crate) struct Running {
    state: Mutex<RunningState>,
}

#[derive(Debug, Default)]
struct RunningState {
    plans: Vec<Arc<dyn ExecutionPlan>>,
    /// The last of them gives the rows of the query.
    complete: bool,
    adaptations: Vec<Adaptation>,
    /// What was measured of keys.
    keys: Vec<KeyRecord>,
    /// Exchanges whose stage shows as the input of one of their readers.
    shown: HashSet<usize>,
    /// Operators that are never cut, and the rows from which it tells that one would have been.
    uncut: (Vec<Uncut>, u64),
}

impl Running {
    /// A query whose plan is run as it is.
    pub(crate) fn of(plan: Arc<dyn ExecutionPlan>) -> Arc<Self> {
        let running = Self::default();
        running.set(plan);
        Arc::new(running)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, RunningState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of those of `uncut` that turn out to have a hot partition, among `min_rows` rows or more.
    pub(crate) fn looks_at(&self, uncut: Vec<Uncut>, min_rows: u64) {
        self.state().uncut = (uncut, min_rows);
    }

    /// `plan` takes the place of all others: it alone gives the rows.
    pub(crate) fn set(&self, plan: Arc<dyn ExecutionPlan>) {
        let mut state = self.state();
        state.plans = vec![plan];
        state.complete = true;
    }

    /// Plans that run or have run.
    pub(crate) fn plans(&self) -> Vec<Arc<dyn ExecutionPlan>> {
        self.state().plans.clone()
    }

    /// The plan that gives the rows, the stages below it included; before it is known, the last that began.
    pub(crate) fn last(&self) -> Option<Arc<dyn ExecutionPlan>> {
        self.state().plans.last().cloned()
    }

    /// The plan that gives the rows, once it is known.
    pub(crate) fn complete(&self) -> Option<Arc<dyn ExecutionPlan>> {
        let state = self.state();
        state.complete.then(|| state.plans.last().cloned()).flatten()
    }

    /// What was changed, with what is known of its outcome by now.
    pub(crate) fn adaptations(&self) -> Vec<Adaptation> {
        let mut adaptations = self.state().adaptations.clone();
        for plan in self.plans() {
            measure(&plan, &mut adaptations);
        }
        let (uncut, min_rows) = self.state().uncut.clone();
        if let Some(plan) = self.complete().filter(|_| !uncut.is_empty()) {
            left_whole(&plan, &uncut, min_rows, &mut adaptations);
        }
        adaptations
    }

    /// What was measured of keys so far.
    pub(crate) fn keys(&self) -> Vec<KeyRecord> {
        self.state().keys.clone()
    }

    pub(super) fn measured(&self, key: KeyRecord) {
        self.state().keys.push(key);
    }

    /// Stages follow: nothing runs until the first of them starts.
    pub(super) fn begins(&self) {
        let mut state = self.state();
        state.plans.clear();
        state.shown.clear();
        state.complete = false;
    }

    pub(super) fn starts(&self, plan: &Arc<dyn ExecutionPlan>, complete: bool) {
        let mut state = self.state();
        settle(plan, &mut state.shown);
        state.plans.push(Arc::clone(plan));
        state.complete = complete;
    }

    /// A part of a stage: its plan shows nowhere, what it does counts as progress.
    pub(super) fn runs(&self, plan: &Arc<dyn ExecutionPlan>) {
        self.state().plans.push(Arc::clone(plan));
    }

    /// As [`Self::adapted`], for what is found anew each time the query is planned.
    pub(super) fn adapted_once(&self, adaptation: Adaptation) {
        let mut state = self.state();
        if state.adaptations.iter().all(|other| other.kind != adaptation.kind) {
            state.adaptations.push(adaptation);
        }
    }

    pub(super) fn adapted(&self, adaptation: Adaptation) {
        self.state().adaptations.push(adaptation);
    }
}

/// Adds what the tasks of the joins in `plan` took.
fn measure(plan: &Arc<dyn ExecutionPlan>, adaptations: &mut [Adaptation]) {
    if let Some(join) = AdaptiveJoinExec::of(plan) {
        let done = join.done();
        if let Some(adaptation) = adaptations.iter_mut().find(|a| a.operator == Some(join.number())) {
            adaptation.task_cpu_us = done.iter().map(|task| micros(task.cpu)).collect();
        }
    }
    if let Some(parts) = PartsExec::of(plan)
        && let Some(adaptation) = adaptations.iter_mut().find(|a| a.operator == Some(parts.number()))
    {
        adaptation.task_cpu_us = parts.task_cpu().into_iter().map(micros).collect();
    }
    plan.children().into_iter().for_each(|child| measure(child, adaptations));
}

/// Adds what was not cut though a partition has twice the rows of the median one and more.
fn left_whole(plan: &Arc<dyn ExecutionPlan>, uncut: &[Uncut], min_rows: u64, adaptations: &mut Vec<Adaptation>) {
    let found = uncut.iter().find_map(|uncut| Some((uncut, uncut.skew(plan)?)));
    if let Some((uncut, (largest, median))) = found
        && largest >= min_rows / 4
        && largest > 2 * median
    {
        adaptations.push(record::left_whole(uncut, largest, median));
    }
    plan.children().into_iter().for_each(|child| left_whole(child, uncut, min_rows, adaptations));
}

/// From now on `plan` is not optimised any more: its leaves over exchanges show the plans that filled them.
fn settle(plan: &Arc<dyn ExecutionPlan>, shown: &mut HashSet<usize>) {
    if let Some(parts) = PartsExec::of(plan) {
        parts.settle();
    }
    plan.children().into_iter().for_each(|child| settle(child, shown));
    if let Some(reader) = plan.downcast_ref::<ExchangeReaderExec>() {
        // Of several readers one shows it, so that its work counts once.
        if shown.insert(reader.exchange().id) {
            reader.show_stage();
        }
    } else if let Some(join) = AdaptiveJoinExec::of(plan) {
        join.settle();
    }
}
