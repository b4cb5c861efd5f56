//! What planning sees of the past.

use crate::record::{Fingerprint, Observation, RunRecord};

/// Evidence is kept apart by pipeline and environment. A subplan belongs to one pipeline anyway, since its sources do; and samples in
/// dev must not teach production.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scope<'a> {
    /// Name of the pipeline; `sql` for ad-hoc statements.
    pub pipeline: &'a str,
    /// Name of the environment.
    pub environment: &'a str,
}

impl<'a> Scope<'a> {
    /// The scope of a run.
    pub fn of(record: &'a RunRecord) -> Self {
        Self { pipeline: &record.pipeline, environment: &record.environment }
    }
}

/// A subplan as evidence is filed: under its template, and there by its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subplan {
    /// The subplan.
    pub fingerprint: Fingerprint,
    /// The same with its literals taken out.
    pub template: Option<Fingerprint>,
}

impl Subplan {
    /// What its observations are filed under: all subplans that differ in literals only are neighbours, so that a pipeline that
    /// draws new literals with every run fills the same few series and not a new one each time.
    pub(crate) fn series(&self) -> Fingerprint {
        self.template.unwrap_or(self.fingerprint)
    }
}

/// The past as the optimizer asks for it. Object-safe; implemented by the store, and by fixed evidence in tests.
///
/// An answer is never an error: evidence that cannot be read is evidence that is not there, and planning goes on without.
pub trait Evidence: Send + Sync {
    /// The last `limit` observations of a subplan, newest first. Of a template whose literals change all the time the last
    /// observations are looked at (the store looks at 2,048 or some more), and older ones of the subplan are not found.
    fn by_fingerprint(&self, scope: Scope<'_>, subplan: &Subplan, limit: usize) -> Vec<Observation>;

    /// The last `limit` observations of all subplans of a template, newest first, each with its fingerprint.
    fn by_template(&self, scope: Scope<'_>, template: &Fingerprint, limit: usize) -> Vec<(Fingerprint, Observation)>;
}

/// No past at all: the first run, and `learning = "off"`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvidence;

impl Evidence for NoEvidence {
    fn by_fingerprint(&self, _: Scope<'_>, _: &Subplan, _: usize) -> Vec<Observation> {
        Vec::new()
    }

    fn by_template(&self, _: Scope<'_>, _: &Fingerprint, _: usize) -> Vec<(Fingerprint, Observation)> {
        Vec::new()
    }
}
