//! Rows of a join from its keys.

use super::profile::{ColumnProfile, left_of};

/// Share of a key's values that the other side must be able to have for it to be taken for a foreign key.
const INCLUDED: f64 = 0.1;

/// One side of the keys of a join.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeySide {
    /// Distinct values by key.
    pub(crate) distinct: Vec<f64>,
    /// Rows of the table that the keys are columns of, before filters; together they have no more values than that. None: several tables.
    pub(crate) of_rows: Option<f64>,
}

impl KeySide {
    pub(crate) fn of<'c>(columns: impl IntoIterator<Item = &'c ColumnProfile>) -> Self {
        let mut side = Self::default();
        for column in columns {
            side.distinct.push(column.distinct);
            side.of_rows = Some(side.of_rows.map_or(column.of_rows, |rows| rows.max(column.of_rows)));
        }
        side
    }

    /// Distinct values of all keys together, and whether that is a value for each row.
    fn together(&self) -> (f64, bool) {
        let product: f64 = self.distinct.iter().product();
        match self.of_rows {
            Some(rows) => (product.min(rows.max(1.0)), product >= 0.9 * rows),
            None => (product, false),
        }
    }
}

/// By what the product of the rows of two sides is divided to get those of their join: the values that the keys of one side are looked for
/// among (containment of the smaller set of values in the larger; Selinger et al., 1979). Where both sides seem to have each value once,
/// as far as bounds can tell, the smaller is the table of the key and the other refers to it.
pub(crate) fn divisor(left: &KeySide, right: &KeySide) -> f64 {
    let ((a, a_key), (b, b_key)) = (left.together(), right.together());
    let (small, large) = if a <= b { (a, b) } else { (b, a) };
    let small_is_key = if a <= b { a_key } else { b_key };
    let divisor = match (a_key, b_key) {
        (true, true) => small,
        (true, false) | (false, true) if small_is_key && small >= INCLUDED * large => small,
        _ => large,
    };
    divisor.max(1.0)
}

/// Values that those of the other side are looked for among, where a key has more (`distinct`) than the other side (`others`): those that are left in
/// its `rows`, but no fewer than the other side has. Who asks for a month of a calendar of two hundred years asks for one in which something was sold.
pub(crate) fn asked_for(distinct: f64, rows: f64, others: f64) -> f64 {
    if distinct > others { rows.clamp(others, distinct) } else { distinct }
}

/// Share of the rows of `outer` that have a partner among `inner_rows` rows.
pub(crate) fn matching_share(outer: &KeySide, inner: &KeySide, inner_rows: f64) -> f64 {
    let (domain, _) = outer.together();
    let (distinct, _) = inner.together();
    let present = left_of(distinct, inner.of_rows.unwrap_or(inner_rows), inner_rows).min(inner_rows);
    (present / domain.max(distinct.min(domain * 10.0)).max(1.0)).clamp(0.0, 1.0)
}
