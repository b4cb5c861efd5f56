//! How long training and predicting take: 10,000 operators, plans of 12, 40 and 120 operators.
//!
//! `cargo bench --bench cost`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sparklet_history::{
    Completeness, EngineRecord, Fingerprint, MachineRecord, NodeRecord, OperatorClass, OperatorShape, Outcome,
    PlanRecord, RunId, RunRecord, StepRecord,
};
use sparklet_optimizer::cost::{self, CostModel, Sample, samples};

const CLASSES: [OperatorClass; 8] = [
    OperatorClass::ParquetScan,
    OperatorClass::Filter,
    OperatorClass::HashRepartition,
    OperatorClass::PartitionedJoin,
    OperatorClass::BroadcastJoin,
    OperatorClass::PartialAggregate,
    OperatorClass::FinalAggregate,
    OperatorClass::Sort,
];

fn random(n: u64, i: u64) -> u64 {
    let Fingerprint(bytes) = Fingerprint::of(&format!("{n} {i}"));
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// A step of a chain of `operators`.
fn step(run: u64, number: u64, operators: u64) -> StepRecord {
    let nodes: Vec<NodeRecord> = (0..operators)
        .map(|i| {
            let noise = random(run, number * 1000 + i);
            let rows = 1000 + random(number, i) % 1_000_000;
            let class = CLASSES[(random(number, i + 500) % CLASSES.len() as u64) as usize];
            NodeRecord {
                parent: (i > 0).then(|| (i - 1) as u32),
                operator: class.name().to_owned(),
                detail: String::new(),
                fingerprint: None,
                template: Some(Fingerprint::of(&format!("{number} {i}"))),
                completeness: Completeness::Complete,
                estimated_rows: None,
                rows: Some(rows),
                bytes: None,
                elapsed_us: rows / 50 + noise % (rows / 200 + 10),
                spill_count: 0,
                spilled_bytes: 0,
                peak_memory_bytes: None,
                partitions: Vec::new(),
                metrics: Default::default(),
                shape: Some(OperatorShape {
                    class,
                    columns: 4,
                    width: 40.0,
                    strings: 1,
                    keys: 1 + (noise % 2) as u16,
                    key_width: 8.0,
                    partitions: 2,
                    ..OperatorShape::default()
                }),
            }
        })
        .collect();
    let cpu_us = nodes.iter().map(|node| node.elapsed_us).sum::<u64>();
    StepRecord {
        wall_us: cpu_us,
        cpu_us,
        execution_us: cpu_us,
        rows: 1,
        plan: Some(PlanRecord { nodes }),
        ..StepRecord::unmeasured(&format!("step {number}"), Outcome::Succeeded)
    }
}

fn run(number: u64, steps: u64, operators: u64) -> RunRecord {
    let steps: Vec<StepRecord> = (0..steps).map(|n| step(number, n, operators)).collect();
    RunRecord {
        version: sparklet_history::RECORD_VERSION,
        id: RunId::from_bits(number),
        pipeline: "bench".to_owned(),
        environment: "default".to_owned(),
        started_at: chrono::DateTime::from_timestamp(1_700_000_000 + number as i64 * 3600, 0).unwrap_or_default(),
        outcome: Outcome::Succeeded,
        wall_us: 1,
        cpu_us: 1,
        peak_memory_bytes: 0,
        peak_rss_bytes: None,
        engine: EngineRecord { sparklet: String::new(), datafusion: String::new() },
        machine: MachineRecord { cores: 2, memory_bytes: 1 << 30, platform: String::new() },
        settings: Default::default(),
        params: Default::default(),
        slots: 2,
        memory_limit_bytes: 1 << 30,
        code_version: Fingerprint::of("code"),
        sources: Vec::new(),
        steps,
        notes: Vec::new(),
        error: None,
    }
}

fn costs(criterion: &mut Criterion) {
    // 10 runs of 25 steps of 40 operators.
    let history: Vec<Sample> = (0..10).flat_map(|n| samples(&run(n, 25, 40))).collect();
    let operators: usize = history.iter().map(|sample| sample.per_operator.len()).sum();
    let train = || cost::train(&history, cost::prior(), cost::prior(), "bench");
    let mut group = criterion.benchmark_group("cost");
    group.sample_size(10);
    group.bench_function(format!("train on {operators} operators"), |b| b.iter(|| black_box(train())));
    if let Some(training) = train() {
        for operators in [12, 40, 120] {
            let of_plan = samples(&run(99, 1, operators));
            group.bench_function(format!("predict a plan of {operators} operators"), |b| {
                b.iter(|| of_plan.iter().map(|sample| training.model.predict(&sample.features).cpu_us).sum::<f64>());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
