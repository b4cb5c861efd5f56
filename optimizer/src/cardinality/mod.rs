//! Cardinalities with intervals: from what past runs observed, from edges of the join graph, from metadata of the sources.

mod derive;
mod estimate;
pub(crate) mod join;
mod ladder;
pub(crate) mod profile;
pub(crate) mod selectivity;
#[cfg(test)]
mod tests;

pub(crate) use derive::{Profiles, address, column};
pub use estimate::{Estimate, EstimateSource};
pub(crate) use estimate::{OF_JOIN, combined};

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::common::{HashMap, Statistics};
use datafusion::logical_expr::LogicalPlan;
use sparklet_history::{Evidence, RunId, Scope};

use crate::fingerprint::{Identity, LogicalFingerprints, PhysicalFingerprints, Reads, SourceId, fingerprint_logical};
use crate::source::SourceNames;
pub use ladder::Volumes;

/// Parts of a plan that have run already: leaves whose rows are known.
pub trait Finished: fmt::Debug + Send + Sync {
    /// What was measured of the rows of `leaf`, with a column for each of its schema; none where it is no such leaf.
    fn statistics(&self, leaf: &LogicalPlan) -> Option<Statistics>;
}

/// What the optimizer may know of rows before it plans: the past, and the metadata of the sources of now, which it finds at the tables of
/// the plan ([`datafusion::catalog::TableProvider::statistics`]).
pub struct Cardinalities<'a> {
    evidence: &'a dyn Evidence,
    scope: Scope<'a>,
    sources: &'a dyn SourceNames,
    /// None: there is no past to ask.
    volumes: Option<Volumes>,
    finished: Option<Arc<dyn Finished>>,
    found: Mutex<Answers>,
}

/// What was asked for and put together.
#[derive(Default)]
struct Answers {
    /// What subplans read, of the sources of now.
    reads: HashMap<Identity, Reads>,
    asked: HashMap<Identity, Option<Estimate>>,
    composed: HashMap<Identity, Estimate>,
    runs: BTreeSet<RunId>,
    /// Plans that were named: one plan is asked about by several parts of the search.
    named: Vec<(LogicalPlan, Arc<LogicalFingerprints>)>,
}

impl Answers {
    fn reading(&mut self, volumes: &Volumes, nodes: &[Option<Identity>], reads: &[Reads], of: &[SourceId]) {
        for (identity, reads) in nodes.iter().zip(reads) {
            let Some(identity) = identity else { continue };
            self.reads.entry(*identity).or_insert_with(|| volumes.reads(*reads, of));
        }
    }
}

impl fmt::Debug for Cardinalities<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cardinalities").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl<'a> Cardinalities<'a> {
    /// From the past of `scope`, for plans over `sources`. The past is asked only after [`Self::at`].
    pub fn new(evidence: &'a dyn Evidence, scope: Scope<'a>, sources: &'a dyn SourceNames) -> Self {
        Self { evidence, scope, sources, volumes: None, finished: None, found: Mutex::default() }
    }

    /// With what tells the data of now from those of past runs.
    pub fn at(self, volumes: Volumes) -> Self {
        Self { volumes: Some(volumes), ..self }
    }

    /// For plans some parts of which have run.
    pub fn after(self, finished: Arc<dyn Finished>) -> Self {
        Self { finished: Some(finished), ..self }
    }

    /// With the names of the subplans of `plan`, where they are known already.
    pub fn naming(self, plan: &LogicalPlan, fingerprints: Arc<LogicalFingerprints>) -> Self {
        self.keep_named(plan, fingerprints);
        self
    }

    fn found(&self) -> MutexGuard<'_, Answers> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_named(&self, plan: &LogicalPlan, fingerprints: Arc<LogicalFingerprints>) {
        let mut found = self.found();
        if let Some(volumes) = &self.volumes {
            found.reading(volumes, &fingerprints.nodes, &fingerprints.reads, &fingerprints.sources);
        }
        found.named.push((plan.clone(), fingerprints));
    }

    /// Takes in what the subplans of a physical plan read, which are asked about next.
    pub(crate) fn reading(&self, fingerprints: &PhysicalFingerprints) {
        if let Some(volumes) = &self.volumes {
            self.found().reading(volumes, &fingerprints.nodes, &fingerprints.reads, &fingerprints.sources);
        }
    }

    /// Names of the subplans of `plan`, worked out once.
    pub fn named(&self, plan: &LogicalPlan) -> Arc<LogicalFingerprints> {
        // Equal inputs are mostly the same ones: comparing them ends at their addresses.
        if let Some((_, known)) = self.found().named.iter().find(|(known, _)| known == plan) {
            return Arc::clone(known);
        }
        let fingerprints = Arc::new(fingerprint_logical(plan, self.sources));
        self.keep_named(plan, Arc::clone(&fingerprints));
        fingerprints
    }

    /// An estimate for each node of `plan` in the order of [`crate::for_each_logical_node`]. Joins that never ran are put together from
    /// what is known of their edges if [`crate::candidates`] has looked at them before, in this plan or in the one it came from.
    pub fn of_plan(&self, plan: &LogicalPlan) -> Vec<Estimate> {
        let identities = self.identities(plan);
        let mut known = self.observed(&identities);
        let found = self.found();
        for (node, identity) in &identities {
            if let Some(estimate) = found.composed.get(identity) {
                known.entry(*node).or_insert(*estimate);
            }
        }
        drop(found);
        let profiles = self.profiles_from(known);
        let mut estimates = Vec::new();
        crate::for_each_logical_node(plan, &mut |node| estimates.push(profiles.estimate(node)));
        estimates
    }

    /// Rows of a subplan as past runs observed it, or what is alike; none where they did not.
    pub fn of_subplan(&self, identity: &Identity) -> Option<Estimate> {
        let volumes = self.volumes.as_ref()?;
        let mut found = self.found();
        if let Some(known) = found.asked.get(identity) {
            return *known;
        }
        let reads = found.reads.get(identity).copied().unwrap_or(Reads::ANY);
        let told = ladder::look_up(self.evidence, self.scope, volumes, identity, reads);
        let estimate = told.as_ref().map(|told| told.estimate);
        found.asked.insert(*identity, estimate);
        found.runs.extend(told.into_iter().flat_map(|told| told.runs));
        estimate
    }

    /// Whether there is a past to ask.
    pub(crate) fn has_past(&self) -> bool {
        self.volumes.is_some()
    }

    /// Runs that answers rested on so far.
    pub fn evidence(&self) -> Vec<RunId> {
        self.found().runs.iter().cloned().collect()
    }

    /// Profiles of the subplans of `plan`.
    pub(crate) fn profiles(&self, plan: &LogicalPlan) -> Profiles {
        self.profiles_from(self.observed(&self.identities(plan)))
    }

    /// Profiles from what is `observed`, by address, and from what has run.
    pub(crate) fn profiles_from(&self, observed: HashMap<usize, Estimate>) -> Profiles {
        Profiles::new(observed, self.finished.clone())
    }

    /// True if `plan` is one relation of a block that has run, or a few operators over one.
    pub(crate) fn has_run(&self, plan: &LogicalPlan) -> bool {
        let Some(finished) = &self.finished else { return false };
        match plan.inputs().as_slice() {
            [] => finished.statistics(plan).is_some(),
            [input] => self.has_run(input),
            _ => false,
        }
    }

    /// Identities of the nodes of `plan` by address, as far as past runs can tell of them better than metadata; none where there is no past.
    pub(crate) fn identities(&self, plan: &LogicalPlan) -> HashMap<usize, Identity> {
        let mut identities = HashMap::default();
        if self.volumes.is_none() {
            return identities;
        }
        let fingerprints = self.named(plan);
        let mut of_nodes = fingerprints.nodes.iter();
        crate::for_each_logical_node(plan, &mut |node| {
            let identity = of_nodes.next().copied().flatten();
            identities.extend(
                identity
                    .filter(|_| !matches!(node, LogicalPlan::TableScan(_)))
                    .map(|identity| (address(node), identity)),
            );
        });
        identities
    }

    /// What past runs tell of nodes, by address.
    pub(crate) fn observed(&self, identities: &HashMap<usize, Identity>) -> HashMap<usize, Estimate> {
        identities.iter().filter_map(|(node, identity)| Some((*node, self.of_subplan(identity)?))).collect()
    }

    /// Remembers what was put together for a subplan.
    pub(crate) fn compose(&self, identity: Identity, estimate: Estimate) {
        self.found().composed.insert(identity, estimate);
    }
}
