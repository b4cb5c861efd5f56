//! Records for tests: a run of two steps with a join, spill and skew.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sparklet_history::*;

/// 2013-02-01 02:15 UTC.
pub(crate) fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_359_684_900, 0).unwrap()
}

pub(crate) fn node(
    parent: Option<u32>,
    operator: &str,
    detail: &str,
    estimated: Option<u64>,
    rows: u64,
    us: u64,
) -> NodeRecord {
    NodeRecord {
        parent,
        operator: operator.to_owned(),
        detail: detail.to_owned(),
        fingerprint: None,
        template: None,
        completeness: Completeness::Complete,
        estimated_rows: estimated,
        rows: Some(rows),
        bytes: None,
        elapsed_us: us,
        spill_count: 0,
        spilled_bytes: 0,
        peak_memory_bytes: None,
        partitions: Vec::new(),
        metrics: BTreeMap::new(),
        shape: None,
    }
}

pub(crate) fn check(name: &str, passed: bool, blocking: bool) -> CheckRecord {
    CheckRecord {
        name: name.to_owned(),
        condition: "distance > 0".to_owned(),
        passed,
        blocking,
        rows: Some(336_776),
        failed_rows: Some(if passed { 0 } else { 1_500 }),
        tolerate: 0.001,
        kept: (!passed).then(|| ".sparklet/rejected/0123456789/enriched.distance_known.parquet".to_owned()),
    }
}

fn output(location: &str, format: &str, rows: u64, bytes: u64, partitions: usize) -> OutputRecord {
    OutputRecord {
        location: location.to_owned(),
        format: format.to_owned(),
        mode: "replace".to_owned(),
        files: partitions.max(1) as u64,
        rows,
        bytes,
        partitions: (1..=partitions).map(|m| format!("month={m}")).collect(),
        published: true,
    }
}

/// A step of `wall_us` that mostly executes.
pub(crate) fn step(name: &str, wall_us: u64, rows: u64) -> StepRecord {
    StepRecord {
        wall_us,
        cpu_us: wall_us * 3 / 2,
        planning_us: wall_us / 20,
        execution_us: wall_us * 8 / 10,
        checks_us: wall_us / 20,
        publish_us: wall_us / 20,
        rows,
        peak_memory_bytes: 120 << 20,
        decisions: vec![Decision {
            kind: DecisionKind::DefaultPlan,
            because: Reason::OnlyCandidate,
            evidence: Vec::new(),
            switch: None,
        }],
        ..StepRecord::unmeasured(name, Outcome::Succeeded)
    }
}

fn enriched() -> StepRecord {
    let mut step = step("enriched", 1_800_000, 336_776);
    let mut join = node(
        Some(1),
        "HashJoinExec",
        "mode=CollectLeft, join_type=Left, on=[(carrier@1, carrier@0), (origin@4, faa@0)]",
        Some(10_000),
        336_776,
        600_000,
    );
    join.peak_memory_bytes = Some(3 << 20);
    let mut repartition = node(
        Some(2),
        "RepartitionExec",
        "partitioning=Hash([carrier@1], 4), input_partitions=4",
        Some(336_776),
        336_776,
        90_000,
    );
    repartition.partitions =
        [300_000, 12_000, 14_776, 10_000].map(|rows| PartitionRecord { rows, elapsed_us: rows / 10 }).to_vec();
    let mut scan = node(
        Some(4),
        "DataSourceExec",
        "file_groups={4 groups: [[data/flights.parquet:0..1261939], ...]}, projection=[year, month, day, dep_time, dep_delay, arr_delay, carrier, flight, tailnum, origin, dest], file_type=parquet",
        Some(336_776),
        336_776,
        210_000,
    );
    scan.bytes = Some(5_047_757);
    let mut sort = node(
        Some(0),
        "SortExec",
        "expr=[month@1 ASC NULLS LAST], preserve_partitioning=[true]",
        Some(10_000),
        336_776,
        500_000,
    );
    sort.spilled_bytes = 48 << 20;
    sort.spill_count = 3;
    sort.peak_memory_bytes = Some(64 << 20);
    step.plan = Some(PlanRecord {
        nodes: vec![
            node(None, "SortPreservingMergeExec", "[month@1 ASC NULLS LAST]", Some(10_000), 336_776, 30_000),
            sort,
            join,
            node(
                Some(2),
                "DataSourceExec",
                "file_groups={1 group: [[data/airlines.parquet]]}, file_type=parquet",
                Some(16),
                16,
                900,
            ),
            repartition,
            scan,
        ],
    });
    // Children of the join are 3 and 4; the scan of flights lies below the repartition.
    step.output = Some(output("out/enriched", "parquet", 336_776, 9_800_000, 12));
    step.checks = vec![check("key_present", true, true), check("distance_known", false, false)];
    step
}

fn routes() -> StepRecord {
    let mut step = step("routes", 400_000, 224);
    let mut scan = node(Some(0), "DataSourceExec", "partitions=1, partition_sizes=[42]", None, 100_000, 20_000);
    scan.completeness = Completeness::ReducedBy(vec![Reduction::Limit]);
    step.plan = Some(PlanRecord {
        nodes: vec![
            node(
                None,
                "AggregateExec",
                "mode=Single, gby=[origin@0 as origin, dest@1 as dest]",
                Some(100),
                224,
                150_000,
            ),
            scan,
        ],
    });
    step.output = Some(output("out/routes.csv", "csv", 224, 9_100, 0));
    step
}

/// A join that was divided because of one hot key.
pub(crate) fn divided() -> Adaptation {
    let mut after: Vec<u64> = (0..29).map(|i| 10_500 - 20 * i).collect();
    after.extend([9_200, 7_400, 1_776]);
    Adaptation {
        at_us: 620_000,
        stage: 1,
        operator: Some(3),
        kind: AdaptationKind::DivideJoin {
            on: vec!["flights.carrier = airlines.carrier".to_owned()],
            units: 12,
            split_buckets: 1,
            swapped_units: 2,
            oversized_units: 0,
        },
        because: AdaptationReason::HotBuckets { largest_rows: 301_000, median_rows: 2_300 },
        before: vec![300_032, 14_776, 12_000, 10_000],
        predicted_before: 300_032,
        predicted_after: 84_400,
        hot_keys: vec![
            HotKey { exchange: 1, key: Some(vec!["UA".to_owned()]), share: 0.89 },
            HotKey { exchange: 1, key: None, share: 0.012 },
        ],
        cost_us: 38_000,
        facts_us: 500,
        task_cpu_us: after.iter().map(|rows| rows * 15 / 10).collect(),
        after,
    }
}

/// As [`record`], with changes in mid-run: the join of the first step was divided, one of the second became a broadcast after the query
/// had run out of memory and begun again.
pub(crate) fn adapted() -> RunRecord {
    let mut run = record();
    let join =
        "join_type=Left, on=[(carrier@1, carrier@0)], units=12, tasks=32, split_buckets=1, swapped_units=2, slots=4";
    let reader =
        |parent, detail: &str, rows| node(Some(parent), "ExchangeReaderExec", detail, Some(rows), rows, 30_000);
    let mut hot =
        reader(1, "exchange=1, buckets=64, partitions=Hash([carrier@1], 4), rows=336776, bytes=30309840", 336_776);
    hot.partitions = [300_000, 12_000, 14_776, 10_000].map(|rows| PartitionRecord { rows, elapsed_us: 1 }).to_vec();
    let mut divided_join = node(Some(0), "AdaptiveJoinExec", join, Some(336_776), 336_776, 480_000);
    divided_join.partitions =
        [200_000, 62_000, 64_776, 10_000].map(|rows| PartitionRecord { rows, elapsed_us: 1 }).to_vec();
    let mut scan = node(Some(4), "DataSourceExec", "file_type=parquet", None, 336_776, 210_000);
    scan.bytes = Some(5_047_757);
    run.steps[0].plan = Some(PlanRecord {
        nodes: vec![
            node(None, "CoalescePartitionsExec", "", Some(336_776), 336_776, 9_000),
            divided_join,
            reader(1, "exchange=0, buckets=64, partitions=Hash([carrier@0], 4), rows=16, bytes=1600", 16),
            node(
                Some(2),
                "DataSourceExec",
                "file_groups={1 group: [[data/airlines.parquet]]}, file_type=parquet",
                None,
                16,
                900,
            ),
            hot,
            scan,
        ],
    });
    run.steps[0].checks.clear();
    run.steps[0].adaptations = vec![divided()];
    let plain = Adaptation {
        at_us: 0,
        stage: 0,
        operator: None,
        kind: AdaptationKind::RunInStages,
        because: AdaptationReason::MemoryExhausted {
            message: "out of memory: HashJoinInput asked for 310 MiB".to_owned(),
        },
        before: Vec::new(),
        after: Vec::new(),
        predicted_before: 0,
        predicted_after: 0,
        hot_keys: Vec::new(),
        cost_us: 0,
        facts_us: 0,
        task_cpu_us: Vec::new(),
    };
    let broadcast = Adaptation {
        at_us: 90_000,
        kind: AdaptationKind::Broadcast { on: vec!["a.origin = b.faa".to_owned()] },
        because: AdaptationReason::BuildSideSmall { rows: 224, bytes: 9_100, expected_rows: Some(20_000_000) },
        cost_us: 1_200,
        facts_us: 10,
        ..plain.clone()
    };
    run.steps[1].adaptations = vec![plain, broadcast];
    run
}

/// A run that succeeded.
pub(crate) fn record() -> RunRecord {
    RunRecord {
        version: RECORD_VERSION,
        id: RunId::from_bits(42),
        pipeline: "flights".to_owned(),
        environment: "default".to_owned(),
        started_at: start(),
        outcome: Outcome::Succeeded,
        wall_us: 2_312_000,
        cpu_us: 3_900_000,
        peak_memory_bytes: 120 << 20,
        peak_rss_bytes: Some(410 << 20),
        engine: EngineRecord { sparklet: "0.1.0".to_owned(), datafusion: "55.2.0".to_owned() },
        machine: MachineRecord { cores: 4, memory_bytes: 16 << 30, platform: "linux-x86_64".to_owned() },
        settings: BTreeMap::from([(
            "memory".to_owned(),
            SettingRecord { value: "256MiB".to_owned(), origin: "flag".to_owned() },
        )]),
        params: BTreeMap::from([("min_flights".to_owned(), "50".to_owned())]),
        slots: 4,
        memory_limit_bytes: 256 << 20,
        code_version: Fingerprint::of("code 1"),
        sources: vec![SourceRecord {
            name: "flights".to_owned(),
            location: "data/flights.parquet".to_owned(),
            format: "parquet".to_owned(),
            files: 1,
            bytes: 5_047_757,
            rows: Some(336_776),
            data_version: Fingerprint::of("data 1"),
            schema_version: Fingerprint::of("schema 1"),
        }],
        steps: vec![enriched(), routes()],
        notes: vec!["`schedule` takes effect with the service".to_owned()],
        error: None,
    }
}

/// Runs before [`record`], newest first, an hour apart, with these wall times.
pub(crate) fn earlier(walls: &[u64]) -> Vec<RunRecord> {
    let before = |(i, wall_us): (usize, &u64)| {
        let mut run = record();
        run.id = RunId::from_bits(1000 + i as u64);
        run.started_at = start() - TimeDelta::hours(i as i64 + 1);
        run.wall_us = *wall_us;
        run
    };
    walls.iter().enumerate().map(before).collect()
}
