//! Publishing: what readers see changes in one step, from the old version whole to the new version whole.
//!
//! A run claims its targets before anything runs ([`Claim`]), writes next versions beside them, and publishes each once its
//! checks have passed. It may be killed between any two operations: the next claim of the target, by whichever run, brings it to
//! one of the two versions and removes the rest. The tests stop the sequence before each operation and look.

mod claim;
mod disk;
mod layout;
mod place;
mod remote;
#[cfg(test)]
mod tests;

pub(crate) use claim::Claim;
pub(crate) use disk::Disk;
pub(crate) use layout::Layout;
pub(crate) use place::{Place, unwritable};
pub(crate) use remote::upload;
