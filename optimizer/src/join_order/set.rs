//! Sets of relations as bits.

/// A set of at most 64 relations.
pub(super) type Set = u64;

/// Most relations that a block may have.
pub(super) const MAX_RELATIONS: usize = 64;

pub(super) fn single(relation: usize) -> Set {
    1 << relation
}

/// Members of a set in ascending order.
pub(super) fn members(set: Set) -> impl Iterator<Item = usize> {
    let mut left = set;
    std::iter::from_fn(move || {
        let next = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        (next < 64).then_some(next as usize)
    })
}

pub(super) fn within(inner: Set, outer: Set) -> bool {
    inner & !outer == 0
}
