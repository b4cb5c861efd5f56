//! How a plan is chosen, and what happens when the choice was wrong.
//!
//! Candidates are plans of one query; arm 0 is DataFusion's own and wins ties. What decides is the interval of the *difference* of two
//! predictions, since operators that both plans have cancel. A plan that is taken is on trial first, then adopted or rolled back
//! ([`guard`]); what that may cost is bounded. All of it is pure: what is known comes in as values, what was decided goes out as one.

pub mod cost;
pub mod decide;
pub mod guard;
pub mod joins;
pub mod outline;
pub mod rows;

pub use cost::{Gain, PlanCost, Runs, gain};
pub use decide::{Asked, Candidate, Chosen, choose, in_force, threshold_us};
pub use guard::{Ended, Ran, advance};
pub use joins::{LearnedJoins, join_choices, join_sides, with_sides};
pub use outline::{plan_key, rewrite_change, rewriting};
pub use rows::{Known, RowEstimate, Then};
