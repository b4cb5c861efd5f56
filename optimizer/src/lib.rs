//! The optimizer: what a subplan is called, what its counts are worth, and what is decided about it.
//!
//! Pure: it takes plans and returns values, does no I/O and never meets the store. Its outputs are keys and values of the history:
//! fingerprints are stable from run to run, from machine to machine and between logical and physical plans; they change only with the
//! canonical texts that they are hashes of, and then the past is merely not found.

pub mod candidates;
pub mod cardinality;
pub mod choice;
pub mod cost;
pub mod decision;
pub mod fingerprint;
pub mod join_order;
pub mod reduction;
pub mod source;

pub use candidates::{
    LogicalCandidate, RewriteNote, Rewriting, any_candidate, candidate_after_stages, candidate_like, candidates,
};
pub use cardinality::{Cardinalities, Estimate, EstimateSource, Finished, Volumes};
pub use decision::{Learning, decision_of};
pub use fingerprint::{
    Identity, LogicalFingerprints, PhysicalFingerprints, Reads, explain_text, fingerprint_logical,
    fingerprint_physical, for_each_logical_node,
};
pub use join_order::{
    AggregatePart, EarlyGroups, FinerGroups, JoinSubset, KeyPush, MergedAggregates, OrderChange, OuterLater, Pick,
    Reordered, join_subsets, reorder,
};
pub use reduction::{PossibleReduction, possible_reductions, reductions};
pub use source::{ScanTag, ScannedSource, SourceId, SourceMap, SourceNames, tag_scan};
