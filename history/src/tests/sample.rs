//! Records to test with: like those of real runs, made from a number.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::*;

/// How large a record is, and what changes from run to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    /// Draw new literals, and so new fingerprints, with every run.
    pub(crate) moving: bool,
    pub(crate) metrics: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { nodes: 12, moving: false, metrics: 3 }
    }
}

pub(crate) fn id(n: u64) -> RunId {
    let bits = Fingerprint::of(&n.to_string()).0;
    RunId::from_bits(u64::from_le_bytes(bits[..8].try_into().unwrap()))
}

pub(crate) fn start(n: u64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + 60 * n as i64, 250_000).unwrap()
}

fn name_of(n: u64, node: usize, shape: Shape) -> String {
    if shape.moving { format!("node {node} where day = {n}") } else { format!("node {node}") }
}

pub(crate) fn run(n: u64, shape: Shape) -> RunRecord {
    let version = |text: &str| Fingerprint::of(text);
    let source = SourceRecord {
        name: "flights".into(),
        location: "data/flights/*.parquet".into(),
        format: "parquet".into(),
        files: 3,
        bytes: 5_000_000,
        rows: Some(336_776),
        data_version: version(&format!("day {}", n / 7)),
        schema_version: version("schema"),
    };
    let node = |i: usize| {
        let noise = u64::from(Fingerprint::of(&format!("{n} {i}")).0[0]);
        NodeRecord {
            parent: (i > 0).then(|| (i as u32 - 1) / 2),
            operator: ["HashJoinExec", "AggregateExec", "DataSourceExec", "FilterExec"][i % 4].into(),
            detail: format!("mode=Partitioned, on=[(a{i}@0, b{i}@3)], projection=[x@1, y@2]"),
            fingerprint: Some(Fingerprint::of(&name_of(n, i, shape))),
            template: Some(Fingerprint::of(&format!("template {i}"))),
            completeness: if i % 9 == 8 { Completeness::Truncated } else { Completeness::Complete },
            estimated_rows: Some(1000 * i as u64),
            rows: Some(1000 * i as u64 + noise),
            bytes: i.is_multiple_of(3).then_some(64_000 + noise),
            elapsed_us: 10 * i as u64 + noise,
            spill_count: 0,
            spilled_bytes: 0,
            peak_memory_bytes: i.is_multiple_of(2).then_some(1 << 20),
            partitions: (0..2).map(|p| PartitionRecord { rows: 500 * i as u64 + p, elapsed_us: 5 }).collect(),
            metrics: (0..shape.metrics).map(|m| (format!("metric_{m}"), 1000 * noise + m as u64)).collect(),
            shape: None,
        }
    };
    let step = StepRecord {
        name: "enriched".into(),
        outcome: Outcome::Succeeded,
        started_us: 1000,
        wall_us: 100_000 + n,
        cpu_us: 150_000,
        planning_us: 4000,
        execution_us: 90_000,
        checks_us: 500,
        publish_us: 300,
        rows: 336_776,
        peak_memory_bytes: 12 << 20,
        output: Some(OutputRecord {
            location: "out/enriched".into(),
            format: "parquet".into(),
            mode: "replace".into(),
            files: 12,
            rows: 336_776,
            bytes: 9_000_000,
            partitions: (1..=12).map(|month| format!("month={month}")).collect(),
            published: true,
        }),
        checks: Vec::new(),
        plan: Some(PlanRecord { nodes: (0..shape.nodes).map(node).collect() }),
        decisions: vec![Decision {
            kind: DecisionKind::DefaultPlan,
            because: Reason::OnlyCandidate,
            evidence: Vec::new(),
            switch: None,
        }],
        choice: None,
        adaptations: Vec::new(),
        keys: Vec::new(),
        functions: Vec::new(),
        error: None,
    };
    RunRecord {
        version: RECORD_VERSION,
        id: id(n),
        pipeline: "flights".into(),
        environment: "default".into(),
        started_at: start(n),
        outcome: Outcome::Succeeded,
        wall_us: 120_000 + n,
        cpu_us: 160_000,
        peak_memory_bytes: 12 << 20,
        peak_rss_bytes: Some(90 << 20),
        engine: EngineRecord { sparklet: "0.1.0".into(), datafusion: "55.2.0".into() },
        machine: MachineRecord { cores: 2, memory_bytes: 24 << 30, platform: "linux-x86_64".into() },
        settings: BTreeMap::from([("slots".into(), SettingRecord { value: "2".into(), origin: "flag".into() })]),
        params: BTreeMap::new(),
        slots: 2,
        memory_limit_bytes: 16 << 30,
        code_version: version("code"),
        sources: vec![source],
        steps: vec![step],
        notes: Vec::new(),
        error: None,
    }
}

/// Canonical texts that hash to the fingerprints of a record.
pub(crate) fn texts(record: &RunRecord) -> CanonicalTexts {
    let mut texts = CanonicalTexts::new();
    let nodes: Vec<_> =
        record.steps.iter().filter_map(|step| step.plan.as_ref()).flat_map(|plan| &plan.nodes).collect();
    for (i, node) in nodes.iter().enumerate() {
        texts.extend(node.fingerprint.map(|fingerprint| (fingerprint, format!("the text of node {i}, {fingerprint}"))));
        texts.extend(node.template.map(|template| (template, format!("the template of node {i}"))));
    }
    texts
}
