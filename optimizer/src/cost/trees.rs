//! Boosted regression trees over histograms, for linfa's traits.
//!
//! The trees are symmetric: all nodes of a level ask the same question, as in Prokhorenkova et al., *CatBoost: unbiased boosting with
//! categorical features* (NeurIPS 2018). A prediction is then a few comparisons and one look-up a tree, without a branch to guess, and
//! such trees are hard to overfit. Squared loss, shrinkage, weights by sample; nothing is drawn at random.

use linfa::dataset::{DatasetBase, Records};
use linfa::error::Error;
use linfa::traits::{Fit, Predict};
use ndarray::{Array1, Array2, ArrayView1};
use serde::{Deserialize, Serialize};

/// How trees are grown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TreeParams {
    pub(crate) trees: usize,
    /// Questions from the root to a leaf.
    pub(crate) depth: usize,
    /// Share of what is left that a tree takes away.
    pub(crate) rate: f64,
    /// Weight at which a leaf takes half of the mean of its samples.
    pub(crate) shrinkage: f64,
    /// Ranges that a feature is divided into.
    pub(crate) bins: usize,
}

impl Default for TreeParams {
    fn default() -> Self {
        Self { trees: 80, depth: 5, rate: 0.12, shrinkage: 4.0, bins: 32 }
    }
}

/// One symmetric tree: `asks[i]` is (feature, threshold), and the answers are the bits of the leaf's number, the first the highest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tree {
    asks: Vec<(u16, f32)>,
    leaves: Vec<f32>,
}

impl Tree {
    fn leaf(&self, row: impl Fn(usize) -> f32) -> f32 {
        let mut leaf = 0;
        for &(feature, threshold) in &self.asks {
            leaf = leaf << 1 | usize::from(row(usize::from(feature)) > threshold);
        }
        self.leaves.get(leaf).copied().unwrap_or(0.0)
    }
}

/// Boosted trees; their sum is the prediction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trees {
    mean: f32,
    trees: Vec<Tree>,
    /// Features that the asks may name.
    features: u16,
}

impl Trees {
    /// The prediction for one row.
    pub(crate) fn one(&self, row: &[f32]) -> f64 {
        let at = |feature: usize| row.get(feature).copied().unwrap_or(0.0);
        f64::from(self.mean) + self.trees.iter().map(|tree| f64::from(tree.leaf(at))).sum::<f64>()
    }

    /// False if it is not what [`Fit::fit`] makes: read from a damaged file.
    pub(crate) fn is_sound(&self) -> bool {
        let sound = |tree: &Tree| {
            tree.asks.len() < 16
                && tree.leaves.len() == 1 << tree.asks.len()
                && tree.asks.iter().all(|(feature, threshold)| *feature < self.features && threshold.is_finite())
                && tree.leaves.iter().all(|leaf| leaf.is_finite())
        };
        self.mean.is_finite() && self.trees.iter().all(sound)
    }
}

impl Fit<Array2<f32>, Array1<f32>, Error> for TreeParams {
    type Object = Trees;

    fn fit(&self, dataset: &DatasetBase<Array2<f32>, Array1<f32>>) -> Result<Trees, Error> {
        let (rows, features) = (dataset.records.nsamples(), dataset.records.nfeatures());
        if rows == 0 || features == 0 || features > usize::from(u16::MAX) || rows != dataset.targets.len() {
            return Err(Error::NotEnoughSamples);
        }
        let weights: Vec<f64> = (0..rows).map(|row| f64::from(dataset.weight_for(row))).collect();
        let total: f64 = weights.iter().sum();
        if total.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            return Err(Error::NotEnoughSamples);
        }
        let mean = dataset.targets.iter().zip(&weights).map(|(y, w)| f64::from(*y) * w).sum::<f64>() / total;
        let mut left: Vec<f64> = dataset.targets.iter().map(|y| f64::from(*y) - mean).collect();
        let columns: Vec<Column> = (0..features).map(|f| Column::of(dataset.records.column(f), self.bins)).collect();
        let mut grown = Trees { mean: rounded(mean), trees: Vec::new(), features: features as u16 };
        let mut growth = Growth::new(rows, self.depth, self.bins);
        for _ in 0..self.trees {
            let Some(tree) = growth.grow(self, &columns, &left, &weights) else { break };
            for (left, leaf) in left.iter_mut().zip(&growth.leaf_of) {
                *left -= f64::from(tree.leaves[usize::from(*leaf)]);
            }
            grown.trees.push(tree);
        }
        Ok(grown)
    }
}

impl Predict<&Array2<f32>, Array1<f32>> for Trees {
    fn predict(&self, rows: &Array2<f32>) -> Array1<f32> {
        let one = |row: ArrayView1<'_, f32>| match row.as_slice() {
            Some(row) => self.one(row) as f32,
            None => self.one(&row.to_vec()) as f32,
        };
        rows.rows().into_iter().map(one).collect()
    }
}

/// Four digits: what is beyond is noise, and model files are read as text.
pub(super) fn rounded(value: f64) -> f32 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let digits = 10_f64.powf(3.0 - value.abs().log10().floor());
    ((value * digits).round() / digits) as f32
}

/// A feature in ranges.
struct Column {
    /// Upper ends of all ranges but the last.
    cuts: Vec<f32>,
    /// Range of each row.
    bins: Vec<u8>,
}

impl Column {
    fn of(values: ArrayView1<'_, f32>, bins: usize) -> Self {
        let mut sorted: Vec<f32> = values.iter().map(|value| if value.is_nan() { 0.0 } else { *value }).collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let bins = bins.clamp(2, 256);
        let mut cuts: Vec<f32> = Vec::new();
        let mut different = sorted.clone();
        different.dedup();
        if different.len() <= bins {
            cuts.extend(different.windows(2).map(|pair| rounded_between(pair[0], pair[1])));
        } else {
            for bin in 1..bins {
                let at = bin * sorted.len() / bins;
                let (below, here) = (sorted[at - 1], sorted[at]);
                if below < here || cuts.last().is_none_or(|last| *last < here) {
                    let next = sorted[at..].iter().copied().find(|value| *value > here);
                    let cut = if below < here {
                        Some(rounded_between(below, here))
                    } else {
                        next.map(|n| rounded_between(here, n))
                    };
                    cuts.extend(cut);
                }
            }
            cuts.sort_unstable_by(f32::total_cmp);
            cuts.dedup();
        }
        let bins = values.iter().map(|value| cuts.partition_point(|cut| *value > *cut) as u8).collect();
        Self { cuts, bins }
    }
}

/// A short number that is at least `low` and below `high`.
fn rounded_between(low: f32, high: f32) -> f32 {
    let middle = f64::from(low) / 2.0 + f64::from(high) / 2.0;
    let short = rounded(middle);
    if low <= short && short < high { short } else { low }
}

/// Room to grow trees in.
struct Growth {
    leaf_of: Vec<u8>,
    /// By leaf and bin: sum of weighted targets, and of weights.
    histogram: Vec<(f64, f64)>,
    bins: usize,
}

impl Growth {
    fn new(rows: usize, depth: usize, bins: usize) -> Self {
        let bins = bins.clamp(2, 256);
        Self { leaf_of: vec![0; rows], histogram: vec![(0.0, 0.0); bins << depth.min(7)], bins }
    }

    /// The next tree; none where no question helps.
    fn grow(&mut self, params: &TreeParams, columns: &[Column], left: &[f64], weights: &[f64]) -> Option<Tree> {
        self.leaf_of.fill(0);
        let mut asks = Vec::new();
        for level in 0..params.depth.min(7) {
            let leaves = 1 << level;
            let mut best: Option<(f64, usize, usize)> = None;
            for (feature, column) in columns.iter().enumerate().filter(|(_, column)| !column.cuts.is_empty()) {
                let histogram = &mut self.histogram[..leaves * self.bins];
                histogram.fill((0.0, 0.0));
                for (((leaf, bin), y), w) in self.leaf_of.iter().zip(&column.bins).zip(left).zip(weights) {
                    let cell = &mut histogram[usize::from(*leaf) * self.bins + usize::from(*bin)];
                    cell.0 += y * w;
                    cell.1 += w;
                }
                let (gain, cut) = best_cut(histogram, self.bins, column.cuts.len(), params.shrinkage);
                if best.is_none_or(|(most, ..)| gain > most * (1.0 + 1e-9)) {
                    best = Some((gain, feature, cut));
                }
            }
            let (gain, feature, cut) = best?;
            if gain <= 1e-12 {
                break;
            }
            let column = &columns[feature];
            for (leaf, bin) in self.leaf_of.iter_mut().zip(&column.bins) {
                *leaf = *leaf << 1 | u8::from(usize::from(*bin) > cut);
            }
            asks.push((feature as u16, column.cuts[cut]));
        }
        if asks.is_empty() {
            return None;
        }
        let mut sums = vec![(0.0, 0.0); 1 << asks.len()];
        for ((leaf, y), w) in self.leaf_of.iter().zip(left).zip(weights) {
            sums[usize::from(*leaf)].0 += y * w;
            sums[usize::from(*leaf)].1 += w;
        }
        let leaves =
            sums.iter().map(|(sum, weight)| rounded(params.rate * sum / (weight + params.shrinkage))).collect();
        Some(Tree { asks, leaves })
    }
}

/// The cut of one feature that explains most over all leaves, and how much more than no cut.
fn best_cut(histogram: &[(f64, f64)], bins: usize, cuts: usize, shrinkage: f64) -> (f64, usize) {
    let score = |sum: f64, weight: f64| sum * sum / (weight + shrinkage);
    let mut gains = vec![0.0; cuts];
    for leaf in histogram.chunks(bins) {
        let (all, weight) = leaf.iter().fold((0.0, 0.0), |(s, w), cell| (s + cell.0, w + cell.1));
        if weight == 0.0 {
            continue;
        }
        let whole = score(all, weight);
        let (mut below, mut weight_below) = (0.0, 0.0);
        for (gain, cell) in gains.iter_mut().zip(leaf) {
            below += cell.0;
            weight_below += cell.1;
            *gain += score(below, weight_below) + score(all - below, weight - weight_below) - whole;
        }
    }
    let mut best = (0.0, 0);
    for (cut, gain) in gains.into_iter().enumerate() {
        if gain > best.0 {
            best = (gain, cut);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: usize, seed: u64) -> (Array2<f32>, Array1<f32>) {
        let mut state = seed;
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1_u64 << 24) as f32
        };
        let x = Array2::from_shape_fn((rows, 6), |_| uniform() * 4.0 - 2.0);
        let y = x.rows().into_iter().map(|r| r[0] + if r[1] > 0.5 { 1.5 } else { 0.0 } + 0.5 * r[2] * r[3]).collect();
        (x, y)
    }

    #[test]
    fn steps_and_interactions_are_learned() {
        let (x, y) = sample(3000, 1);
        let trees = TreeParams::default().fit(&DatasetBase::new(x, y)).unwrap();
        assert!(trees.is_sound());
        let (x, y) = sample(1000, 2);
        let predicted = trees.predict(&x);
        let error = (&predicted - &y).mapv(|e| e * e).mean().unwrap();
        let variance = y.var(0.0);
        assert!(error < 0.06 * variance, "{error} of {variance}");
    }

    #[test]
    fn the_same_data_give_the_same_trees_and_weights_count() {
        let (x, y) = sample(400, 3);
        let of = |weights: Array1<f32>| {
            TreeParams::default().fit(&DatasetBase::new(x.clone(), y.clone()).with_weights(weights)).unwrap()
        };
        let even = of(Array1::ones(400));
        assert_eq!(even, of(Array1::ones(400)));
        let mut one = Array1::zeros(400);
        one[7] = 1000.0;
        let single = of(one);
        assert!((single.one(&x.row(7).to_vec()) - f64::from(y[7])).abs() < 0.01);
        assert_ne!(single, even);
    }

    #[test]
    fn nothing_to_learn_from_is_an_error_and_constants_are_learned() {
        let none = DatasetBase::new(Array2::<f32>::zeros((0, 3)), Array1::<f32>::zeros(0));
        assert!(TreeParams::default().fit(&none).is_err());
        let same = DatasetBase::new(Array2::<f32>::zeros((5, 3)), Array1::<f32>::from_elem(5, 2.5));
        assert_eq!(TreeParams::default().fit(&same).unwrap().one(&[0.0; 3]), 2.5);
    }

    #[test]
    fn damaged_trees_are_noticed() {
        let (x, y) = sample(200, 4);
        let mut trees = TreeParams::default().fit(&DatasetBase::new(x, y)).unwrap();
        trees.trees[0].leaves.pop();
        assert!(!trees.is_sound());
    }
}
