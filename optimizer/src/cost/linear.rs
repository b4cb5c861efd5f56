//! An elastic net over standardised features, for small histories and for explanation.

use linfa::dataset::DatasetBase;
use linfa::error::Error;
use linfa::traits::Fit;
use linfa_elasticnet::ElasticNet;
use ndarray::{Array1, Array2, Axis};
use serde::{Deserialize, Serialize};
use sparklet_history::OperatorClass;

use super::trees::rounded;

/// Numbers of the classes follow those of [`super::vector::vector`], whose first is the class itself.
const CLASSES: usize = OperatorClass::ALL.len();

/// A linear model in the logarithm of CPU time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Linear {
    intercept: f32,
    /// By feature: coefficient of the value itself.
    slopes: Vec<f32>,
    /// By class.
    classes: Vec<f32>,
    /// By feature: the range that was seen; a line says nothing beyond it.
    ranges: Vec<(f32, f32)>,
}

impl Linear {
    /// The prediction for one row.
    pub(crate) fn one(&self, row: &[f32]) -> f64 {
        let slopes = self.slopes.iter().zip(&self.ranges).zip(row).skip(1);
        let sum: f32 = slopes.map(|((slope, (low, high)), value)| slope * value.max(*low).min(*high)).sum();
        let class = row.first().map_or(0.0, |class| self.classes.get(*class as usize).copied().unwrap_or(0.0));
        f64::from(self.intercept + sum + class)
    }

    /// False if it is not what [`Self::fit`] makes.
    pub(crate) fn is_sound(&self) -> bool {
        self.slopes.len() == self.ranges.len()
            && self.slopes.iter().chain(&self.classes).all(|slope| slope.is_finite())
            && self.intercept.is_finite()
            && self.ranges.iter().all(|(low, high)| low.is_finite() && high.is_finite())
    }

    /// Fits it by coordinate descent.
    pub(crate) fn fit(records: &Array2<f32>, targets: &Array1<f32>, penalty: f64) -> Result<Self, Error> {
        let (rows, features) = records.dim();
        if rows < 8 || features == 0 {
            return Err(Error::NotEnoughSamples);
        }
        let mut x = Array2::<f64>::zeros((rows, features + CLASSES));
        for (mut to, from) in x.rows_mut().into_iter().zip(records.rows()) {
            for (at, value) in from.iter().enumerate().skip(1) {
                to[at] = f64::from(*value);
            }
            let class = from[0] as usize;
            if class < CLASSES {
                to[features + class] = 1.0;
            }
        }
        let means = x.mean_axis(Axis(0)).ok_or(Error::NotEnoughSamples)?;
        let scales = x.std_axis(Axis(0), 0.0).mapv(|scale| if scale > 1e-9 { scale } else { f64::INFINITY });
        let x = (x - &means) / &scales;
        let y = targets.mapv(f64::from);
        let net = ElasticNet::params().penalty(penalty).l1_ratio(0.5).max_iterations(300).tolerance(1e-3);
        let net = net.fit(&DatasetBase::new(x, y)).map_err(|error| Error::Parameters(error.to_string()))?;
        let slopes = net.hyperplane() / &scales;
        let intercept =
            net.intercept() - slopes.dot(&means.mapv(|mean: f64| if mean.is_finite() { mean } else { 0.0 }));
        let ranges = records.columns().into_iter().map(|column| {
            column
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
        });
        let fitted = Self {
            intercept: rounded(intercept),
            slopes: slopes.iter().take(features).map(|slope| rounded(*slope)).collect(),
            classes: slopes.iter().skip(features).map(|slope| rounded(*slope)).collect(),
            ranges: ranges.collect(),
        };
        if fitted.is_sound() { Ok(fitted) } else { Err(Error::Parameters("the fit diverged".to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_and_classes_are_found() {
        let x = Array2::from_shape_fn((400, 3), |(row, column)| match column {
            0 => (row % 3) as f32,
            1 => (row as f32 * 0.7).sin() * 3.0,
            _ => (row as f32 * 1.3).cos(),
        });
        let of = |row: &[f32]| 1.0 + 0.8 * row[1] + if row[0] == 2.0 { 2.0 } else { 0.0 };
        let y = x.rows().into_iter().map(|row| of(row.as_slice().unwrap())).collect();
        let linear = Linear::fit(&x, &y, 0.01).unwrap();
        for row in x.rows() {
            let row = row.as_slice().unwrap();
            assert!((linear.one(row) - f64::from(of(row))).abs() < 0.1);
        }
        // Beyond what was seen the line is level.
        assert!((linear.one(&[0.0, 1e6, 0.0]) - linear.one(&[0.0, 3.0, 0.0])).abs() < 0.01);
    }

    #[test]
    fn a_handful_of_rows_is_not_enough() {
        assert!(Linear::fit(&Array2::zeros((3, 2)), &Array1::zeros(3), 0.01).is_err());
    }
}
