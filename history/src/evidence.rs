//! What planning sees of the past.

use crate::record::{Fingerprint, Observation};

/// The past as the optimizer asks for it. Object-safe; implemented by the store, and by fixed evidence in tests.
///
/// An answer is never an error: evidence that cannot be read is evidence that is not there, and planning goes on without.
pub trait Evidence: Send + Sync {
    /// The last `limit` observations of a subplan in an environment, newest first.
    fn by_fingerprint(&self, fingerprint: &Fingerprint, environment: &str, limit: usize) -> Vec<Observation>;

    /// The last `limit` observations of all subplans of a template in an environment, newest first, each with its fingerprint.
    fn by_template(&self, template: &Fingerprint, environment: &str, limit: usize) -> Vec<(Fingerprint, Observation)>;
}

/// No past at all: the first run, and `learning = "off"`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvidence;

impl Evidence for NoEvidence {
    fn by_fingerprint(&self, _: &Fingerprint, _: &str, _: usize) -> Vec<Observation> {
        Vec::new()
    }

    fn by_template(&self, _: &Fingerprint, _: &str, _: usize) -> Vec<(Fingerprint, Observation)> {
        Vec::new()
    }
}
