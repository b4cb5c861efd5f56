//! The analytic model: the CPU time of an operator is a sum of what it does, each with a coefficient.

use serde::{Deserialize, Serialize};
use sparklet_history::OperatorClass;

use super::features::{OperatorFeatures, PlanFeatures};
use super::{CostModel, Interval, ModelVersion, Prediction};

/// Number of terms.
pub(crate) const TERMS: usize = 16;

/// What an operator does, in units that a coefficient turns into micro-seconds.
pub(crate) fn terms(operator: &OperatorFeatures) -> [f64; TERMS] {
    let shape = &operator.shape;
    let [first, others] = operator.rows_in;
    let [width_first, width_others] = operator.width_in;
    let (out, partitions) = (operator.rows_out, f64::from(shape.partitions.max(1)));
    let all = first + others;
    let keys = f64::from(shape.keys.max(1));
    let per_partition = |rows: f64| (rows / partitions).max(2.0).log2();
    let is_scan = shape.stored_bytes.is_some();
    let order = match shape.class {
        OperatorClass::Sort => first * per_partition(first) * keys.sqrt(),
        OperatorClass::TopK => first,
        OperatorClass::Merge => first * partitions.max(2.0).log2() * keys.sqrt(),
        // Tables that outgrow the caches cost more for each row that looks into them.
        OperatorClass::PartitionedJoin | OperatorClass::ExchangeJoin => all * beyond_cache(first / partitions),
        OperatorClass::BroadcastJoin => all * beyond_cache(first),
        OperatorClass::PartialAggregate | OperatorClass::FinalAggregate | OperatorClass::SingleAggregate => {
            first * beyond_cache(out / partitions)
        }
        OperatorClass::Window => first * keys.sqrt(),
        _ => 0.0,
    };
    let joins = matches!(
        shape.class,
        OperatorClass::PartitionedJoin
            | OperatorClass::BroadcastJoin
            | OperatorClass::ExchangeJoin
            | OperatorClass::SortMergeJoin
    );
    let pairs = if shape.class == OperatorClass::NestedLoopJoin { first * others } else { 0.0 };
    // A join's filter looks at the pairs whose keys match, a cross join's at all.
    let evaluated = match shape.class {
        OperatorClass::NestedLoopJoin => pairs,
        _ if joins => out,
        _ => first,
    };
    [
        partitions,
        first,
        others,
        out,
        first * width_first,
        others * width_others,
        out * f64::from(shape.width),
        all * f64::from(shape.key_width),
        evaluated * f64::from(shape.expression_cost),
        first * f64::from(shape.functions),
        order,
        shape.stored_bytes.unwrap_or(0) as f64,
        match is_scan {
            // The column of the filter, and the others where it lets rows pass.
            true if shape.late => first + out * f64::from(shape.columns),
            true => first * f64::from(shape.columns),
            false => 0.0,
        },
        out * f64::from(shape.strings),
        pairs,
        1.0,
    ]
}

/// How far a hash table of `rows` outgrows the caches of a core, 0 to about 8.
fn beyond_cache(rows: f64) -> f64 {
    (rows / 4096.0).max(1.0).log2().min(10.0)
}

/// Micro-seconds of CPU time for each unit of each term, by class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Coefficients(pub(crate) Vec<[f64; TERMS]>);

/// CPU time that every operator takes at least, in micro-seconds: it is set up and torn down.
pub(crate) const LEAST_US: f64 = 2.0;

impl Coefficients {
    /// CPU time of an operator in micro-seconds.
    pub(crate) fn cost(&self, operator: &OperatorFeatures) -> f64 {
        let of_class = self.0.get(operator.shape.class as usize);
        let sum = of_class.map_or(0.0, |of_class| of_class.iter().zip(terms(operator)).map(|(c, t)| c * t).sum());
        f64::max(sum, LEAST_US)
    }

    /// False if it is not what a fit makes.
    pub(crate) fn is_sound(&self) -> bool {
        self.0.len() == OperatorClass::ALL.len() && self.0.iter().flatten().all(|c| c.is_finite() && *c >= 0.0)
    }
}

impl Default for Coefficients {
    /// Of the right order of magnitude on the machines of 2025: what a fit starts from and what it falls back to where a class was not
    /// measured.
    fn default() -> Self {
        let all = OperatorClass::ALL.map(|class| {
            let mut terms = [0.0; TERMS];
            let [
                partitions,
                first,
                others,
                out,
                bytes_first,
                bytes_others,
                bytes_out,
                key_bytes,
                expressions,
                functions,
                order,
                stored_bytes,
                stored_values,
                strings_out,
                pairs,
                plan,
            ] = &mut terms;
            *partitions = 8.0;
            *plan = 10.0;
            match class {
                OperatorClass::ParquetScan => {
                    *partitions = 150.0;
                    *stored_bytes = 0.0012;
                    *stored_values = 0.0015;
                    *strings_out = 0.01;
                    *expressions = 0.001;
                }
                OperatorClass::FileScan => (*stored_bytes, *stored_values, *partitions) = (0.008, 0.01, 100.0),
                OperatorClass::MemoryScan | OperatorClass::Union | OperatorClass::Limit => *out = 0.0002,
                OperatorClass::Filter => (*first, *expressions, *bytes_out) = (0.002, 0.0015, 0.0003),
                OperatorClass::Projection => (*first, *expressions) = (0.0002, 0.0015),
                OperatorClass::PartitionedJoin | OperatorClass::BroadcastJoin | OperatorClass::ExchangeJoin => {
                    (*first, *others, *out) = (0.06, 0.025, 0.01);
                    (*key_bytes, *order, *bytes_out, *expressions) = (0.0008, 0.006, 0.0003, 0.003);
                }
                OperatorClass::SortMergeJoin => {
                    (*first, *others, *out) = (0.08, 0.08, 0.02);
                    (*key_bytes, *bytes_out, *expressions) = (0.0008, 0.0003, 0.003);
                }
                OperatorClass::NestedLoopJoin => (*pairs, *expressions, *out) = (0.0015, 0.0015, 0.01),
                OperatorClass::PartialAggregate | OperatorClass::SingleAggregate => {
                    (*first, *out, *key_bytes) = (0.008, 0.06, 0.0012);
                    (*functions, *order, *expressions) = (0.004, 0.006, 0.0015);
                }
                OperatorClass::FinalAggregate => {
                    (*first, *out, *key_bytes, *functions, *order) = (0.015, 0.05, 0.0012, 0.006, 0.006);
                }
                OperatorClass::Sort => (*order, *bytes_first, *first) = (0.008, 0.001, 0.02),
                OperatorClass::TopK => *order = 0.006,
                OperatorClass::Merge => (*order, *bytes_first) = (0.02, 0.0004),
                OperatorClass::Window => (*first, *functions, *order, *bytes_out) = (0.02, 0.03, 0.01, 0.0003),
                OperatorClass::HashRepartition => (*first, *key_bytes, *bytes_first) = (0.008, 0.0008, 0.0004),
                OperatorClass::RoundRobin | OperatorClass::Coalesce => *first = 0.0005,
                OperatorClass::Exchange => (*out, *bytes_out, *bytes_first) = (0.005, 0.0003, 0.0006),
                OperatorClass::Write => (*first, *bytes_first) = (0.02, 0.004),
                OperatorClass::Other => (*first, *others, *bytes_others) = (0.01, 0.01, 0.0002),
            }
            terms
        });
        Self(all.to_vec())
    }
}

/// A model of coefficients alone.
#[derive(Debug, Clone, Default)]
pub struct AnalyticModel {
    coefficients: Coefficients,
}

/// 90 % of plans are within this factor of what coefficients alone say.
const SPREAD: f64 = 3.0;

impl CostModel for AnalyticModel {
    fn predict(&self, plan: &PlanFeatures) -> Prediction {
        let per_operator: Vec<f64> = plan.operators.iter().map(|operator| self.coefficients.cost(operator)).collect();
        let cpu_us = per_operator.iter().sum();
        Prediction { cpu_us, low_us: cpu_us / SPREAD, high_us: cpu_us * SPREAD, known: 0.0, per_operator }
    }

    fn spread(&self, _known: f64) -> Interval {
        Interval { low: 1.0 / SPREAD, high: SPREAD }
    }

    fn version(&self) -> ModelVersion {
        ModelVersion::Analytic
    }
}
