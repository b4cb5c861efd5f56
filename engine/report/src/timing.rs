//! Where the time of a run went: its wall time, shared out.
//!
//! Planning, checks and publishing are measured. The execution of a step is shared out over its operators in proportion to
//! `elapsed_us`, which adds up the polls of all partitions: an attribution, not a measurement. Where the operators account for less
//! than the execution took, the rest is [`TimeKind::Waiting`]: reading, writing and waiting, in no operator. Where they account for
//! more (several slots), they are scaled down to it. So the lines of a run add up to its wall time.

use serde::Serialize;
use sparklet_history::{RunRecord, StepRecord};

/// What took the time of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeKind {
    /// One operator of a step's plan (attributed).
    Operator,
    /// Execution that no operator accounts for: input, output, waiting.
    Waiting,
    /// Planning, all steps.
    Planning,
    /// Checks, all steps.
    Checks,
    /// Publishing, all steps.
    Publish,
    /// What else steps did: binding sources, staging.
    Steps,
    /// Outside of steps: start, end.
    Run,
}

/// One line of the split.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimeLine {
    /// What took it.
    pub kind: TimeKind,
    /// The step, for operators.
    pub step: Option<String>,
    /// Index of the node in the step's plan, for operators.
    pub node: Option<usize>,
    /// Name of the operator, for operators.
    pub operator: Option<String>,
    /// Wall time in micro-seconds; attributed for operators.
    pub wall_us: u64,
    /// Share of the run's wall time, 0 to 1.
    pub share: f64,
    /// `elapsed_us` of the operator: sum over partitions.
    pub elapsed_us: Option<u64>,
}

/// The split of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TimeSplit {
    /// What the shares are shares of, in micro-seconds: the run's wall time, or the sum of the lines where that is larger.
    pub total_us: u64,
    /// Largest first; lines of no time are left out.
    pub lines: Vec<TimeLine>,
    /// Attributed wall time by step and node, aligned with the record; micro-seconds.
    #[serde(skip)]
    nodes: Vec<Vec<u64>>,
}

impl TimeSplit {
    /// Shares out the wall time of `record`.
    pub fn new(record: &RunRecord) -> Self {
        let nodes: Vec<Vec<u64>> = record.steps.iter().map(attribute).collect();
        let mut lines = Vec::new();
        let mut whole = |kind, us: u64| {
            if us > 0 {
                lines.push(TimeLine {
                    kind,
                    step: None,
                    node: None,
                    operator: None,
                    wall_us: us,
                    share: 0.0,
                    elapsed_us: None,
                });
            }
        };
        let sum = |part: &dyn Fn(&StepRecord) -> u64| record.steps.iter().map(part).fold(0, u64::saturating_add);
        whole(TimeKind::Planning, sum(&|s| s.planning_us));
        whole(TimeKind::Checks, sum(&|s| s.checks_us));
        whole(TimeKind::Publish, sum(&|s| s.publish_us));
        whole(TimeKind::Steps, sum(&|s| s.wall_us.saturating_sub(phases(s))));
        whole(TimeKind::Run, record.wall_us.saturating_sub(sum(&|s| s.wall_us.max(phases(s)))));
        let in_operators = nodes.iter().flatten().fold(0, |a: u64, b| a.saturating_add(*b));
        whole(TimeKind::Waiting, sum(&|s| s.execution_us).saturating_sub(in_operators));
        for (step, times) in record.steps.iter().zip(&nodes) {
            let Some(plan) = &step.plan else { continue };
            for (index, (node, &wall_us)) in plan.nodes.iter().zip(times).enumerate() {
                if wall_us > 0 {
                    lines.push(TimeLine {
                        kind: TimeKind::Operator,
                        step: Some(step.name.clone()),
                        node: Some(index),
                        operator: Some(node.operator.clone()),
                        wall_us,
                        share: 0.0,
                        elapsed_us: Some(node.elapsed_us),
                    });
                }
            }
        }
        let total_us = lines.iter().fold(0, |a: u64, l| a.saturating_add(l.wall_us)).max(record.wall_us);
        lines.iter_mut().for_each(|line| line.share = share(line.wall_us, total_us));
        lines.sort_by_key(|line| std::cmp::Reverse(line.wall_us));
        Self { total_us, lines, nodes }
    }

    /// Wall time attributed to a node, in micro-seconds.
    pub fn node_us(&self, step: usize, node: usize) -> u64 {
        self.nodes.get(step).and_then(|s| s.get(node)).copied().unwrap_or(0)
    }

    /// Share of the run attributed to a node, 0 to 1.
    pub fn node_share(&self, step: usize, node: usize) -> f64 {
        share(self.node_us(step, node), self.total_us)
    }

    /// Wall time of all lines of a kind, in micro-seconds.
    pub fn of(&self, kind: TimeKind) -> u64 {
        self.lines.iter().filter(|l| l.kind == kind).fold(0, |a, l| a.saturating_add(l.wall_us))
    }
}

/// `part` of `whole`, 0 to 1; 0 of nothing.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn phases(step: &StepRecord) -> u64 {
    [step.planning_us, step.execution_us, step.checks_us, step.publish_us].into_iter().fold(0, u64::saturating_add)
}

/// The execution time of a step by node; all zero where nothing was measured.
fn attribute(step: &StepRecord) -> Vec<u64> {
    let Some(plan) = &step.plan else { return Vec::new() };
    let elapsed: u128 = plan.nodes.iter().map(|n| u128::from(n.elapsed_us)).sum();
    let available = u128::from(step.execution_us).min(elapsed);
    let scaled = |us: u64| (u128::from(us) * available).checked_div(elapsed).unwrap_or(0);
    plan.nodes.iter().map(|n| u64::try_from(scaled(n.elapsed_us)).unwrap_or(u64::MAX)).collect()
}
