//! What a run teaches about costs.

use sparklet_history::{NodeRecord, OperatorClass, Outcome, RunRecord, StepRecord};

use super::features::{PlanFeatures, recorded};

/// A step that has run: its features at the rows that came, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its plan.
    pub features: PlanFeatures,
    /// CPU time of its execution in micro-seconds.
    pub cpu_us: f64,
    /// The same divided among its operators, in pre-order.
    pub per_operator: Vec<f64>,
    /// Start of its run, micro-seconds since 1970.
    pub at_us: i64,
    /// Names the step among all pipelines.
    pub step: String,
}

/// CPU time below which a step says more about clocks than about its plan, in micro-seconds.
const LEAST_CPU_US: f64 = 500.0;

/// The steps of a run that teach something: that succeeded, whose plan was observed to its end.
pub fn samples(run: &RunRecord) -> Vec<Sample> {
    run.steps.iter().filter_map(|step| sample(run, step)).collect()
}

fn sample(run: &RunRecord, step: &StepRecord) -> Option<Sample> {
    let plan = step.plan.as_ref().filter(|_| step.outcome == Outcome::Succeeded)?;
    let features = recorded(plan, run.slots)?;
    let cpu_us = execution_cpu(step);
    if cpu_us < LEAST_CPU_US {
        return None;
    }
    let attributed: Vec<f64> = plan.nodes.iter().map(attributed).collect();
    let sum: f64 = attributed.iter().sum();
    if sum <= 0.0 {
        return None;
    }
    let per_operator = attributed.iter().map(|own| own * cpu_us / sum).collect();
    let at_us = run.started_at.timestamp_micros();
    Some(Sample { features, cpu_us, per_operator, at_us, step: format!("{}/{}", run.pipeline, step.name) })
}

/// CPU time of the plan: planning runs on one thread, on a busy machine as slowly as the rest, and checks and publishing take their share
/// by time.
fn execution_cpu(step: &StepRecord) -> f64 {
    let pace = (step.cpu_us as f64 / step.wall_us.max(1) as f64).min(1.0);
    let after_planning = (step.cpu_us as f64 - step.planning_us as f64 * pace).max(0.0);
    let others = step.checks_us.saturating_add(step.publish_us) as f64;
    let execution = step.execution_us.max(1) as f64;
    after_planning * execution / (execution + others)
}

/// Time that an operator has counted as its own, in micro-seconds: by whichever of its clocks shows it.
fn attributed(node: &NodeRecord) -> f64 {
    let metric = |name: &str| node.metrics.get(name).copied().unwrap_or(0) as f64 / 1000.0;
    let own = node.elapsed_us as f64;
    match node.shape.as_ref().map(|shape| shape.class) {
        // Reading and decoding is not part of `elapsed_compute`.
        Some(OperatorClass::ParquetScan | OperatorClass::FileScan) => own.max(metric("time_elapsed_processing")),
        Some(OperatorClass::HashRepartition | OperatorClass::RoundRobin) => own.max(metric("repartition_time")),
        Some(
            OperatorClass::PartitionedJoin
            | OperatorClass::BroadcastJoin
            | OperatorClass::NestedLoopJoin
            | OperatorClass::ExchangeJoin
            | OperatorClass::SortMergeJoin,
        ) => own.max(metric("build_time") + metric("join_time")),
        _ => own,
    }
}
