//! From a physical plan that ran to its record: what each operator was expected to do and what it did.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsContext;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, StatisticsArgs};
use sparklet_history::{Completeness, Fingerprint, NodeRecord, PartitionRecord, PlanRecord, Reduction};
use sparklet_optimizer::{
    PhysicalFingerprints, PossibleReduction, ScannedSource, SourceId, SourceMap, SourceNames, fingerprint_physical,
    possible_reductions,
};

use crate::exchange::ExchangeReaderExec;

/// A plan's record and the canonical texts of its fingerprints.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The record.
    pub plan: PlanRecord,
    /// Canonical text by fingerprint.
    pub texts: BTreeMap<Fingerprint, String>,
}

/// Names of the subplans of a plan that ran: a reader of an exchange gives the rows of the stage before it.
pub(crate) fn names(plan: &Arc<dyn ExecutionPlan>, sources: &SourceMap) -> PhysicalFingerprints {
    struct Staged<'a>(&'a SourceMap);
    impl SourceNames for Staged<'_> {
        fn by_table(&self, table: &TableReference) -> Option<SourceId> {
            self.0.by_table(table)
        }

        fn by_scan(&self, scan: &dyn ExecutionPlan) -> Option<ScannedSource> {
            self.0.by_scan(scan)
        }

        fn by_stage(&self, leaf: &dyn ExecutionPlan) -> Option<Arc<dyn ExecutionPlan>> {
            leaf.downcast_ref::<ExchangeReaderExec>()?.whole_stage()
        }
    }
    fingerprint_physical(plan, &Staged(sources))
}

/// Longest `detail` of an operator in characters; an IN list can have thousands of values.
const MAX_DETAIL: usize = 600;

/// The record of `plan`, whose nodes were `expected` to give so many rows (none: what DataFusion says); `ended` says that its stream gave all
/// rows.
pub(crate) fn record(
    plan: &Arc<dyn ExecutionPlan>,
    fingerprints: Option<PhysicalFingerprints>,
    expected: Option<Vec<Option<u64>>>,
    ended: bool,
) -> Observed {
    let mut walk = Walk { nodes: Vec::new(), expected, statistics: StatisticsContext::new() };
    walk.visit(plan, None);
    let mut nodes = walk.nodes;
    let mut cuts: Vec<Vec<Reduction>> = Vec::new();
    for causes in possible_reductions(plan) {
        let mut happened: Vec<Reduction> =
            causes.into_iter().filter(|cause| may_have_cut(*cause, &nodes)).map(PossibleReduction::reduction).collect();
        happened.sort_unstable();
        happened.dedup();
        cuts.push(happened);
    }
    for (i, node) in nodes.iter_mut().enumerate() {
        if let Some(identity) = fingerprints.as_ref().and_then(|f| f.nodes.get(i).copied().flatten()) {
            node.fingerprint = Some(identity.fingerprint);
            node.template = Some(identity.template);
        }
        node.completeness = if ended {
            completeness(cuts.get(i).map(Vec::as_slice).unwrap_or_default())
        } else {
            Completeness::Truncated
        };
    }
    apply_empty_builds(plan, &mut nodes, ended);
    Observed { plan: PlanRecord { nodes }, texts: fingerprints.map(|f| f.texts).unwrap_or_default() }
}

/// Whether what may cut the counts of a node did so, as far as the run's metrics tell.
fn may_have_cut(cause: PossibleReduction, nodes: &[NodeRecord]) -> bool {
    match cause {
        // A scan that pruned nothing at all has not used the filter.
        PossibleReduction::DynamicFilter { at, .. } => nodes.get(at).is_none_or(|node| {
            let pruned =
                |(name, count): (&String, &u64)| *count > 0 && name.contains("pruned") && !name.ends_with("_matched");
            node.operator != "DataSourceExec" || node.metrics.iter().any(pruned)
        }),
        _ => true,
    }
}

fn completeness(cuts: &[Reduction]) -> Completeness {
    // Whether a build side was empty is known from its rows, not from the shape of the plan.
    let cuts: Vec<Reduction> = cuts.iter().copied().filter(|c| *c != Reduction::EmptyBuildSide).collect();
    if cuts.is_empty() { Completeness::Complete } else { Completeness::ReducedBy(cuts) }
}

/// The probe side of a join whose build side gave no rows may not have been read at all.
fn apply_empty_builds(plan: &Arc<dyn ExecutionPlan>, nodes: &mut [NodeRecord], ended: bool) {
    if !ended {
        return;
    }
    let mut at = 0;
    mark(plan, nodes, &mut at, false);

    fn mark(plan: &Arc<dyn ExecutionPlan>, nodes: &mut [NodeRecord], at: &mut usize, cut: bool) {
        let own = *at;
        *at += 1;
        if cut && let Some(node) = nodes.get_mut(own) {
            node.completeness = match std::mem::replace(&mut node.completeness, Completeness::Truncated) {
                Completeness::ReducedBy(mut cuts) => {
                    cuts.push(Reduction::EmptyBuildSide);
                    Completeness::ReducedBy(cuts)
                }
                _ => Completeness::ReducedBy(vec![Reduction::EmptyBuildSide]),
            };
        }
        let is_join = plan.name().ends_with("JoinExec") && plan.children().len() == 2;
        let build = own + 1;
        for (i, child) in plan.children().into_iter().enumerate() {
            let empty_build = is_join && i == 1 && nodes.get(build).is_some_and(|n| n.rows == Some(0));
            mark(child, nodes, at, cut || empty_build);
        }
    }
}

struct Walk {
    nodes: Vec<NodeRecord>,
    expected: Option<Vec<Option<u64>>>,
    statistics: StatisticsContext,
}

impl Walk {
    fn visit(&mut self, plan: &Arc<dyn ExecutionPlan>, parent: Option<u32>) {
        let own = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let estimated = match &self.expected {
            Some(expected) => expected.get(self.nodes.len()).copied().flatten(),
            None => {
                let computed = self.statistics.compute(plan.as_ref(), &StatisticsArgs::new()).ok();
                computed.and_then(|statistics| statistics.num_rows.get_value().map(|rows| *rows as u64))
            }
        };
        let mut node = NodeRecord {
            parent,
            operator: plan.name().to_owned(),
            detail: detail(plan.as_ref()),
            fingerprint: None,
            template: None,
            completeness: Completeness::Truncated,
            estimated_rows: estimated,
            rows: None,
            bytes: None,
            elapsed_us: 0,
            spill_count: 0,
            spilled_bytes: 0,
            peak_memory_bytes: None,
            partitions: Vec::new(),
            metrics: BTreeMap::new(),
            shape: Some(sparklet_optimizer::cost::shape(plan.as_ref())),
        };
        if let Some(metrics) = plan.metrics() {
            measure(&mut node, &metrics, plan.output_partitioning().partition_count());
        }
        self.nodes.push(node);
        for child in plan.children() {
            self.visit(child, Some(own));
        }
    }
}

fn measure(node: &mut NodeRecord, metrics: &MetricsSet, partition_count: usize) {
    let mut partitions = vec![PartitionRecord::default(); partition_count];
    let mut per_partition = false;
    let mut elapsed_ns = 0;
    for metric in metrics.iter() {
        let slot = metric.partition().and_then(|p| partitions.get_mut(p));
        match metric.value() {
            MetricValue::OutputRows(count) => {
                let rows = count.value() as u64;
                *node.rows.get_or_insert(0) += rows;
                if let Some(slot) = slot {
                    slot.rows += rows;
                    per_partition = true;
                }
            }
            MetricValue::ElapsedCompute(time) => {
                let ns = time.value() as u64;
                elapsed_ns += ns;
                if let Some(slot) = slot {
                    slot.elapsed_us += ns / 1000;
                }
            }
            MetricValue::SpillCount(count) => node.spill_count += count.value() as u64,
            MetricValue::SpilledBytes(count) => node.spilled_bytes += count.value() as u64,
            MetricValue::OutputBytes(count) => *node.bytes.get_or_insert(0) += count.value() as u64,
            MetricValue::PeakMemoryUsage { gauge, .. } => {
                *node.peak_memory_bytes.get_or_insert(0) += gauge.value() as u64;
            }
            MetricValue::StartTimestamp(_) | MetricValue::EndTimestamp(_) => {}
            MetricValue::PruningMetrics { name, pruning_metrics } => {
                *node.metrics.entry(format!("{name}_pruned")).or_default() += pruning_metrics.pruned() as u64;
                *node.metrics.entry(format!("{name}_matched")).or_default() += pruning_metrics.matched() as u64;
            }
            MetricValue::Ratio { name, ratio_metrics } => {
                *node.metrics.entry(format!("{name}_part")).or_default() += ratio_metrics.part() as u64;
                *node.metrics.entry(format!("{name}_total")).or_default() += ratio_metrics.total() as u64;
            }
            other => {
                let value = other.as_usize() as u64;
                match other.name() {
                    "peak_mem_used" | "build_mem_used" => *node.peak_memory_bytes.get_or_insert(0) += value,
                    name => *node.metrics.entry(name.to_owned()).or_default() += value,
                }
            }
        }
    }
    node.elapsed_us = elapsed_ns / 1000;
    // What was read is what a scan costs; what it gives out is only the projected columns in memory.
    if let Some(read) = node.metrics.get("bytes_scanned").copied().filter(|b| *b > 0) {
        node.bytes = Some(read);
    }
    node.metrics.retain(|_, value| *value != 0);
    if per_partition {
        node.partitions = partitions;
    }
}

/// One line as DataFusion prints it, without the operator's name.
fn detail(plan: &dyn ExecutionPlan) -> String {
    struct OneLine<'a>(&'a dyn ExecutionPlan);
    impl std::fmt::Display for OneLine<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt_as(DisplayFormatType::Default, f)
        }
    }
    let line = OneLine(plan).to_string();
    let name = plan.name();
    let rest = line.strip_prefix(name).unwrap_or(&line).trim_start_matches([':', ' ']);
    match rest.char_indices().nth(MAX_DETAIL) {
        Some((end, _)) => format!("{}…", &rest[..end]),
        None => rest.to_owned(),
    }
}

/// Size in bytes of the files that the scans of `plan` read at the most.
pub(crate) fn scanned_bytes(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    let own = file_scan(plan).map_or(0, |scan| {
        scan.file_groups
            .iter()
            .flat_map(|group| group.iter())
            .map(|file| {
                file.range.as_ref().map_or(file.object_meta.size, |r| u64::try_from(r.end - r.start).unwrap_or(0))
            })
            .sum()
    });
    own + plan.children().into_iter().map(scanned_bytes).sum::<u64>()
}

/// The file scan that `plan` is, if it is one.
pub(crate) fn file_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}
