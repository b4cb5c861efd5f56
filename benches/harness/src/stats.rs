//! The statistics of paired measurements: quantiles, means of logarithmic ratios with intervals, bootstrap of totals.
//!
//! A pair is two runs of the same query, one right after the other; its ratio is free of what drifts slowly (frequency, page cache,
//! neighbours). Ratios are averaged as logarithms, so that 2 × and ½ × cancel.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// An estimate with the bounds of its two-sided 90 % interval: each bound holds with 95 %. In JSON an infinite bound is null.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    /// 95 % lower bound.
    pub(crate) lower: f64,
    /// 95 % upper bound.
    pub(crate) upper: f64,
}

/// Quantile `q` in 0..=1 by linear interpolation between order statistics (type 7 of Hyndman and Fan, 1996); NaN for no values.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

/// Median; NaN for no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Geometric mean of positive values; NaN for no values.
pub(crate) fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|v| v.ln()).sum::<f64>() / values.len() as f64).exp()
}

/// Geometric mean of the ratios `new ÷ base` over the pairs, with bounds by Student's t on the logarithms.
///
/// One pair says nothing about noise: its bounds are 0 and infinity. Pairs with a value that is not positive are left out.
pub(crate) fn paired_ratio(pairs: &[(f64, f64)]) -> Estimate {
    let logs: Vec<f64> =
        pairs.iter().filter(|(new, base)| *new > 0.0 && *base > 0.0).map(|(new, base)| (new / base).ln()).collect();
    let n = logs.len();
    let mean = logs.iter().sum::<f64>() / n as f64;
    if n < 2 {
        return Estimate { value: mean.exp(), lower: 0.0, upper: f64::INFINITY };
    }
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    let half = t_quantile_95(n - 1) * (variance / n as f64).sqrt();
    Estimate { value: mean.exp(), lower: (mean - half).exp(), upper: (mean + half).exp() }
}

/// Ratio of totals `Σ new ÷ Σ base` over queries, with percentile bounds from a bootstrap over the pairs of each query.
///
/// `queries` holds the pairs of each query. Every resample draws, for each query, as many pairs as it has, with replacement.
pub(crate) fn total_ratio(queries: &[Vec<(f64, f64)>], seed: u64) -> Estimate {
    let total = |sums: (f64, f64)| sums.0 / sums.1;
    let add = |sums: (f64, f64), pair: &(f64, f64)| (sums.0 + pair.0, sums.1 + pair.1);
    let value = total(queries.iter().flatten().fold((0.0, 0.0), add));
    if queries.iter().all(|pairs| pairs.len() < 2) {
        return Estimate { value, lower: 0.0, upper: f64::INFINITY };
    }
    const RESAMPLES: usize = 2000;
    let mut random = StdRng::seed_from_u64(seed);
    let resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = queries.iter().flat_map(|pairs| (0..pairs.len()).map(move |_| pairs));
            total(drawn.fold((0.0, 0.0), |sums, pairs| add(sums, &pairs[random.random_range(0..pairs.len())])))
        })
        .collect();
    Estimate { value, lower: quantile(&resampled, 0.05), upper: quantile(&resampled, 0.95) }
}

/// Quantile 0.95 of Student's t with `df` degrees of freedom: exact to three decimals to 30, by the expansion of Cornish and Fisher
/// beyond (Abramowitz and Stegun 26.7.5).
pub(crate) fn t_quantile_95(df: usize) -> f64 {
    const TABLE: [f64; 30] = [
        6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753, 1.746,
        1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697,
    ];
    const Z: f64 = 1.644_853_626_951_472_2;
    match df {
        0 => f64::INFINITY,
        1..=30 => TABLE[df - 1],
        _ => {
            let n = df as f64;
            Z + (Z.powi(3) + Z) / (4.0 * n) + (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / (96.0 * n * n)
        }
    }
}

/// Time until the last of `tasks` ends when `slots` take them one by one, the longest first (Graham: "Bounds on multiprocessing timing
/// anomalies", 1969), in the unit of the tasks.
pub(crate) fn makespan(tasks: &[u64], slots: usize) -> u64 {
    let mut longest_first = tasks.to_vec();
    longest_first.sort_unstable_by(|a, b| b.cmp(a));
    let mut busy = vec![0_u64; slots.max(1)];
    for task in longest_first {
        if let Some(free) = busy.iter_mut().min() {
            *free += task;
        }
    }
    busy.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_makespan_is_the_last_end() {
        assert_eq!(makespan(&[], 8), 0);
        assert_eq!(makespan(&[5, 1, 1, 1], 1), 8);
        // One long task sets the time whatever the slots.
        assert_eq!(makespan(&[1, 1, 40, 1], 8), 40);
        assert_eq!(makespan(&[3, 3, 2, 2, 2], 2), 7);
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[4.0, 1.0, 3.0, 2.0], 0.5), 2.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 1.0), 3.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn ratios_cancel_in_the_geometric_mean() {
        let both = paired_ratio(&[(2.0, 1.0), (1.0, 2.0)]);
        assert!((both.value - 1.0).abs() < 1e-12);
        assert!(both.lower < 0.1 && both.upper > 10.0);
        assert!((geometric_mean(&[0.5, 2.0, 8.0]) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_steady_slowdown_is_certain_and_a_noisy_one_is_not() {
        let steady: Vec<_> = (0..8).map(|i| (1.30 + 0.01 * f64::from(i % 3), 1.0)).collect();
        assert!(paired_ratio(&steady).lower > 1.2);
        let noisy: Vec<_> = (0..8).map(|i| (if i % 2 == 0 { 0.7 } else { 2.0 }, 1.0)).collect();
        let noisy = paired_ratio(&noisy);
        assert!(noisy.value > 1.1 && noisy.lower < 1.0, "{noisy:?}");
        assert_eq!(paired_ratio(&[(3.0, 1.0)]).lower, 0.0);
    }

    #[test]
    fn totals_weigh_long_queries() {
        let long = vec![(20.0, 10.0); 5];
        let short = vec![(0.1, 1.0); 5];
        let ratio = total_ratio(&[long, short], 1);
        assert!((ratio.value - 100.5 / 55.0).abs() < 1e-12);
        assert!((ratio.lower - ratio.value).abs() < 1e-9 && (ratio.upper - ratio.value).abs() < 1e-9);
        let spread = total_ratio(&[vec![(1.0, 1.0), (2.0, 1.0), (1.5, 1.0)]], 1);
        assert!(spread.lower < spread.value && spread.value < spread.upper);
    }

    #[test]
    fn t_quantiles_meet_at_the_end_of_the_table() {
        assert!((t_quantile_95(31) - 1.696).abs() < 1e-3);
        assert!((t_quantile_95(100_000) - 1.645).abs() < 1e-3);
        assert!((1..200).all(|df| t_quantile_95(df) > t_quantile_95(df + 1) - 1e-3));
    }
}
