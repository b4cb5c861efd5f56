//! Cardinalities with intervals: from what past runs observed, from edges of the join graph, from metadata of the sources.

mod derive;
mod estimate;
pub(crate) mod join;
pub(crate) mod profile;
pub(crate) mod selectivity;

pub(crate) use derive::{Profiles, column};
pub use estimate::{Estimate, EstimateSource};

use std::fmt;

use datafusion::common::HashMap;
use datafusion::logical_expr::LogicalPlan;
use sparklet_history::{Evidence, Scope};

use crate::source::SourceNames;

/// What the optimizer may know of rows before it plans: the past, and the metadata of the sources of now, which it finds at the tables of
/// the plan ([`datafusion::catalog::TableProvider::statistics`]).
pub struct Cardinalities<'a> {
    evidence: &'a dyn Evidence,
    scope: Scope<'a>,
    sources: &'a dyn SourceNames,
}

impl fmt::Debug for Cardinalities<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cardinalities").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl<'a> Cardinalities<'a> {
    /// From the past of `scope`, for plans over `sources`.
    pub fn new(evidence: &'a dyn Evidence, scope: Scope<'a>, sources: &'a dyn SourceNames) -> Self {
        Self { evidence, scope, sources }
    }

    /// An estimate for each node of `plan` in the order of [`crate::for_each_logical_node`].
    pub fn of_plan(&self, plan: &LogicalPlan) -> Vec<Estimate> {
        let profiles = self.profiles(plan);
        let mut estimates = Vec::new();
        crate::for_each_logical_node(plan, &mut |node| estimates.push(profiles.estimate(node)));
        estimates
    }

    /// Profiles of the subplans of `plan`.
    pub(crate) fn profiles(&self, plan: &LogicalPlan) -> Profiles {
        let _ = (self.evidence, self.scope, self.sources, plan);
        Profiles::new(HashMap::default())
    }
}
