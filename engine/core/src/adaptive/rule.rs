//! Joins of two finished exchanges become adaptive where that pays.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};

use super::inputs::{Input, as_input};
use super::join::{AdaptiveJoinExec, Resources};
use super::units::{BUILD_WEIGHT, Division, divide, makespan};
use super::{AdaptiveMode, AdaptiveSettings};
use crate::exchange::Size;

/// Runs after the join algorithms are chosen and before distribution is enforced: whatever relied on the partitioning of a join that is
/// divided gets an exchange of its own from DataFusion's rule.
#[derive(Debug)]
pub(crate) struct AdaptiveJoins {
    pub(crate) settings: AdaptiveSettings,
    pub(crate) resources: Resources,
}

impl PhysicalOptimizerRule for AdaptiveJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(Transformed::no(node)) };
            let Some(division) = self.division(join) else { return Ok(Transformed::no(node)) };
            Ok(Transformed::yes(Arc::new(AdaptiveJoinExec::new(join, division, self.resources.clone())?)))
        })
        .data()
    }

    fn name(&self) -> &str {
        "adaptive_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

impl AdaptiveJoins {
    /// How to divide `join`; none where it is better left as it is.
    fn division(&self, join: &HashJoinExec) -> Option<Division> {
        let (left, right) = staged_inputs(join)?;
        let limits = self.resources.limits;
        let division = divide(*join.join_type(), &left.exchange.sizes, &right.exchange.sizes, limits);
        if self.settings.mode == AdaptiveMode::Force && self.settings.split_skew {
            return Some(division);
        }
        let slots = limits.slots;
        let before = partitioned(&left.exchange.sizes, &right.exchange.sizes, slots);
        let largest = before.iter().map(|partition| partition.build.hash_table()).max().unwrap_or(0);
        let before = makespan(before.iter().map(|p| p.weight), slots);
        let after = makespan(division.task_weights(), slots);
        // An exchange above may be the price: rows that move once more.
        if self.settings.split_skew && after + after / 10 < before {
            return Some(division);
        }
        let too_large = (largest, limits.build_bytes);
        (self.settings.memory && largest > limits.build_bytes)
            .then_some(Division { too_large: Some(too_large), ..division })
    }
}

/// The inputs of a partitioned hash join over two exchanges that are divided alike by its keys; none for any other join.
pub(crate) fn staged_inputs(join: &HashJoinExec) -> Option<(Input, Input)> {
    if *join.partition_mode() != PartitionMode::Partitioned
        || join.null_aware
        || join.fetch().is_some()
        || !join.dynamic_expressions_produced().is_empty()
    {
        return None;
    }
    let (left, right) = (as_input(join.left())?, as_input(join.right())?);
    let (left_keys, right_keys): (Vec<_>, Vec<_>) = join.on().iter().cloned().unzip();
    let alike = left.exchange.bucketing.ranges.is_none()
        && left.exchange.sizes.len() == right.exchange.sizes.len()
        && left.exchange.bucketing.divisor == right.exchange.bucketing.divisor;
    (alike && left.is_divided_by(&left_keys) && right.is_divided_by(&right_keys)).then_some((left, right))
}

/// One partition of the join as DataFusion would run it.
pub(crate) struct Partition {
    pub(crate) weight: u64,
    build: Size,
}

/// The partitions of a join of buckets `left` and `right` in `n` partitions, the left side built.
pub(crate) fn partitioned(left: &[Size], right: &[Size], n: usize) -> Vec<Partition> {
    let n = n.max(1);
    let mut partitions: Vec<Partition> = (0..n).map(|_| Partition { weight: 0, build: Size::default() }).collect();
    for (bucket, (left, right)) in left.iter().zip(right).enumerate() {
        let partition = &mut partitions[bucket % n];
        partition.weight += left.rows * BUILD_WEIGHT + right.rows;
        partition.build = partition.build.plus(*left);
    }
    partitions
}
