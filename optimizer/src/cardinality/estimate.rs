//! A number of rows with an interval, and where it comes from.

/// Where an estimate comes from, the nearest first; `runs` is the number of past runs that it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EstimateSource {
    /// The same subplan over the same data, counted in full.
    Observed {
        /// Runs used.
        runs: u32,
    },
    /// The same subplan over other data, scaled by its volume.
    Scaled {
        /// Runs used.
        runs: u32,
    },
    /// The same subplan with other literals.
    Template {
        /// Runs used.
        runs: u32,
    },
    /// Put together from what is known of its parts and of the joins between them.
    Edges {
        /// Runs used.
        runs: u32,
    },
    /// From metadata of the sources.
    Statistics,
    /// Nothing is known: a guess.
    Fallback,
}

/// A number of rows, with an interval that should hold it in nine of ten cases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Expected rows.
    pub rows: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Where it comes from.
    pub source: EstimateSource,
}

impl Estimate {
    /// `rows`, give or take the factor `spread` (at least 1).
    pub fn within(rows: f64, spread: f64, source: EstimateSource) -> Self {
        let (rows, spread) = (rows.max(0.0), spread.max(1.0));
        Self { rows, low: rows / spread, high: rows * spread, source }
    }

    /// `rows` exactly.
    pub fn exact(rows: f64, source: EstimateSource) -> Self {
        Self::within(rows, 1.0, source)
    }
}

/// Widest factor that an estimate is given.
const WIDEST: f64 = 1e4;

/// The factor by which a product may be off whose parts may be off by `spreads`, independently of one another: logarithms of errors add as
/// squares do.
pub(crate) fn combined(spreads: impl IntoIterator<Item = f64>) -> f64 {
    let squares: f64 = spreads.into_iter().map(|spread| spread.max(1.0).ln().powi(2)).sum();
    squares.sqrt().exp().min(WIDEST)
}

/// What a join whose keys are known by metadata only may be off by.
pub(crate) const OF_JOIN: f64 = 1.8;
