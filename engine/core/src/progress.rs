//! Live counters of a running query, read from the operators' own metrics.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;

use crate::adaptive::Running;

/// Counters of a query; anyone may read them while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    running: OnceLock<Arc<Running>>,
    total_bytes: OnceLock<u64>,
}

/// Counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgressSnapshot {
    /// Rows out of the plan's root.
    pub rows: u64,
    /// Rows out of the plan's scans.
    pub scanned_rows: u64,
    /// Bytes read by the plan's scans.
    pub scanned_bytes: u64,
    /// Size of the files that the scans read; 0 where unknown.
    pub total_bytes: u64,
}

impl Progress {
    /// Counters of what `running` runs, whose scans read files of `total_bytes` (0: unknown).
    pub(crate) fn of(running: Arc<Running>, total_bytes: u64) -> Self {
        let progress = Self::default();
        progress.attach(running, total_bytes);
        progress
    }

    fn attach(&self, running: Arc<Running>, total_bytes: u64) {
        // A second call changes nothing: counters belong to one plan.
        let _ = self.running.set(running);
        let _ = self.total_bytes.set(total_bytes);
    }

    /// Follows what `other` follows; for a handle that was given out before the plan was known.
    pub fn follow(&self, other: &Self) {
        if let Some(running) = other.running.get() {
            self.attach(Arc::clone(running), other.total_bytes.get().copied().unwrap_or_default());
        }
    }

    /// Counters now; all zero before there is a plan.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let mut now = ProgressSnapshot {
            total_bytes: self.total_bytes.get().copied().unwrap_or_default(),
            ..ProgressSnapshot::default()
        };
        if let Some(running) = self.running.get() {
            now.rows = running.complete().map_or(0, |plan| rows_out(&plan));
            // A stage shows below those that read it.
            let mut seen = HashSet::new();
            running.plans().iter().for_each(|plan| add_scans(plan, &mut seen, &mut now));
        }
        now
    }
}

/// Rows out of `plan`, or of the first operator below it that counts them.
fn rows_out(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let counted = plan.metrics().and_then(|m| m.output_rows());
    match (counted, plan.children().as_slice()) {
        (Some(rows), _) => rows as u64,
        (None, [child]) => rows_out(child),
        (None, _) => 0,
    }
}

fn add_scans(plan: &Arc<dyn ExecutionPlan>, seen: &mut HashSet<*const ()>, now: &mut ProgressSnapshot) {
    if !seen.insert(Arc::as_ptr(plan).cast()) {
        return;
    }
    let children = plan.children();
    if children.is_empty()
        && let Some(metrics) = plan.metrics()
    {
        for metric in metrics.iter() {
            match metric.value() {
                MetricValue::OutputRows(count) => now.scanned_rows += count.value() as u64,
                MetricValue::Count { name, count } if name == "bytes_scanned" => {
                    now.scanned_bytes += count.value() as u64;
                }
                _ => {}
            }
        }
    }
    children.into_iter().for_each(|child| add_scans(child, seen, now));
}
