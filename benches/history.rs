//! The memory: encoding a record, appending a run of 200 operators, looking up in a store of a million observations, and the whole
//! of a fresh process that opens that store, looks up and closes it.
//!
//! All that twice: with pipelines whose plans recur as they are, and with such as draw new literals, and so get new fingerprints,
//! with every run: the hardest case. The stores are filled first, which takes a minute or two each. Sizes, and how the times of
//! the appends that fill them are distributed, are printed. `SPARKLET_BENCH_HISTORY` names a folder to keep the stores in;
//! `SPARKLET_BENCH_RUNS` fills them with fewer runs than 5,000.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench: it stops at what goes wrong, and prints sizes")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use criterion::Criterion;
use sparklet_history::*;

/// Operators of a run; 5,000 runs are a million observations.
const NODES: u64 = 200;
/// Recurring pipelines, so that there are 10,000 fingerprints with 100 observations each.
const PIPELINES: u64 = 50;
/// Set in the fresh process.
const COLD: &str = "SPARKLET_BENCH_HISTORY_COLD";

/// Runs in a store.
fn runs() -> u64 {
    static RUNS: LazyLock<u64> = LazyLock::new(|| {
        let asked = std::env::var("SPARKLET_BENCH_RUNS").ok().map(|runs| runs.parse().unwrap());
        asked.unwrap_or(5000).max(PIPELINES)
    });
    *RUNS
}

/// What changes from run to run beside the numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Track {
    Recurring,
    /// Literals, and so fingerprints.
    NewLiterals,
}

impl Track {
    const ALL: [Self; 2] = [Self::Recurring, Self::NewLiterals];

    fn name(self) -> &'static str {
        match self {
            Self::Recurring => "recurring",
            Self::NewLiterals => "new_literals",
        }
    }
}

fn random(n: u64, i: u64) -> u64 {
    let bytes = Fingerprint::of(&format!("{n} {i}")).0;
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// The canonical text of an operator holds those of the operators below it, as real ones do.
fn text(track: Track, pipeline: u64, run: u64, node: u64) -> String {
    let below: String = (0..node % 20).map(|i| format!("join(o{i}.c{} = o{}.c1)\n", i % 7, i + 1)).collect();
    let literal = if track == Track::NewLiterals { run } else { 0 };
    format!("pipeline {pipeline} step {}\n{below}filter(c3 > {literal}) of operator {node}", node / 20)
}

fn template(pipeline: u64, node: u64) -> Fingerprint {
    Fingerprint::of(&format!("pipeline {pipeline} operator {node}"))
}

fn start(n: u64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + 600 * n as i64, 0).unwrap_or_default()
}

fn node(track: Track, n: u64, i: u64) -> NodeRecord {
    let noise = random(n, i);
    let pipeline = n % PIPELINES;
    let names = ["output_rows", "elapsed_compute", "build_time", "build_input_rows", "join_time", "input_batches"];
    NodeRecord {
        parent: (!i.is_multiple_of(20)).then(|| (i % 20) as u32 - 1),
        operator: ["HashJoinExec", "AggregateExec", "RepartitionExec", "FilterExec"][(i % 4) as usize].into(),
        detail: format!(
            "mode=Partitioned, join_type=Inner, on=[(k{i}@0, k{}@3)], projection=[a@0, b@1, c@{}]",
            i + 1,
            i % 9
        ),
        fingerprint: Some(Fingerprint::of(&text(track, pipeline, n, i))),
        template: Some(template(pipeline, i)),
        completeness: Completeness::Complete,
        estimated_rows: Some(1000 * i),
        rows: Some(1000 * i + noise % 5000),
        bytes: Some(64_000 * i + noise % 70_000),
        elapsed_us: noise % 90_000,
        spill_count: 0,
        spilled_bytes: 0,
        peak_memory_bytes: Some(noise % (64 << 20)),
        partitions: (0..2)
            .map(|p| PartitionRecord { rows: random(noise, p) % 9000, elapsed_us: noise % 50_000 })
            .collect(),
        metrics: (0..).zip(names).map(|(m, name)| (name.to_owned(), random(noise, m) % 10_000_000)).collect(),
        shape: None,
    }
}

fn record(track: Track, n: u64) -> RunRecord {
    let steps = (0..NODES / 20).map(|step| StepRecord {
        started_us: 1000 * step,
        wall_us: 100_000 + random(n, step) % 9000,
        cpu_us: 150_000,
        planning_us: 4000,
        execution_us: 90_000,
        checks_us: 500,
        publish_us: 300,
        rows: 336_776,
        peak_memory_bytes: 12 << 20,
        plan: Some(PlanRecord { nodes: (20 * step..20 * step + 20).map(|i| node(track, n, i)).collect() }),
        ..StepRecord::unmeasured(&format!("step_{step}"), Outcome::Succeeded)
    });
    RunRecord {
        version: RECORD_VERSION,
        id: RunId::from_bits(random(n, u64::MAX)),
        pipeline: format!("pipeline_{}", n % PIPELINES),
        environment: "default".into(),
        started_at: start(n),
        outcome: Outcome::Succeeded,
        wall_us: 1_200_000,
        cpu_us: 1_600_000,
        peak_memory_bytes: 12 << 20,
        peak_rss_bytes: Some(90 << 20),
        engine: EngineRecord { sparklet: "0.1.0".into(), datafusion: "55.2.0".into() },
        machine: MachineRecord { cores: 2, memory_bytes: 24 << 30, platform: "linux-x86_64".into() },
        settings: BTreeMap::new(),
        params: BTreeMap::new(),
        slots: 2,
        memory_limit_bytes: 16 << 30,
        code_version: Fingerprint::of("code"),
        sources: (0..4)
            .map(|s| SourceRecord {
                name: format!("source_{s}"),
                location: "data/*.parquet".into(),
                format: "parquet".into(),
                files: 30,
                bytes: 1 << 30,
                rows: Some(1 << 24),
                data_version: Fingerprint::of(&format!("{s} {}", n / PIPELINES)),
                schema_version: Fingerprint::of("schema"),
            })
            .collect(),
        steps: steps.collect(),
        notes: Vec::new(),
        error: None,
    }
}

fn texts(track: Track, n: u64) -> CanonicalTexts {
    let pipeline = n % PIPELINES;
    let own = (0..NODES).map(|i| text(track, pipeline, n, i)).map(|text| (Fingerprint::of(&text), text));
    let templates = (0..NODES).map(|i| (template(pipeline, i), format!("pipeline {pipeline} operator {i}")));
    own.chain(templates).collect()
}

/// A subplan of some run, and its pipeline.
fn some(track: Track, k: u64) -> (String, Subplan) {
    // Of new literals, those of the last runs: nobody asks for others.
    let n = match track {
        Track::Recurring => random(k, 1) % runs(),
        Track::NewLiterals => runs() - 1 - random(k, 1) % PIPELINES,
    };
    let (pipeline, node) = (n % PIPELINES, random(k, 2) % NODES);
    let fingerprint = Fingerprint::of(&text(track, pipeline, n, node));
    (format!("pipeline_{pipeline}"), Subplan { fingerprint, template: Some(template(pipeline, node)) })
}

fn scope(pipeline: &str) -> Scope<'_> {
    Scope { pipeline, environment: "default" }
}

fn history(state: &Path) -> History {
    History::new(state, HistoryOptions::default())
}

/// Times of appends.
fn distribution(mut times: Vec<Duration>) -> String {
    times.sort();
    let mean = times.iter().sum::<Duration>() / times.len().max(1) as u32;
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!(
        "mean {mean:.2?}, P50 {:.2?}, P90 {:.2?}, P99 {:.2?}, longest {:.2?} of {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        times.len()
    )
}

fn fill(track: Track, state: &Path) {
    let mut store = history(state).create().unwrap();
    let begin = Instant::now();
    let mut times: Vec<Duration> = Vec::new();
    for n in 0..runs() {
        let (record, texts) = (record(track, n), texts(track, n));
        let one = Instant::now();
        store.append(&record, &texts).unwrap();
        times.push(one.elapsed());
    }
    store.flush().unwrap();
    println!("{}: filled in {:.1?}; an append without fsync: {}", track.name(), begin.elapsed(), distribution(times));
    let info = store.info().unwrap();
    for tree in &info.trees {
        println!("  {:<13} {:>9} entries {:>12} bytes", tree.name, tree.entries, tree.bytes);
    }
    let begin = Instant::now();
    let before = info.bytes_on_disk;
    let report = store.prune(&PrunePolicy::default(), start(runs())).unwrap();
    println!(
        "{}: {} observations: {:.1} MB on disk, {:.1} MB after `prune` ({:.1?})",
        track.name(),
        info.observations,
        before as f64 / 1e6,
        report.bytes_after as f64 / 1e6,
        begin.elapsed()
    );
}

fn cold(track: Track, state: &Path) {
    let store = history(state).open().unwrap();
    let (pipeline, subplan) = some(track, u64::from(std::process::id()));
    assert!(!store.observations(scope(&pipeline), &subplan, 10).unwrap().is_empty());
    store.close();
}

fn benches(criterion: &mut Criterion, track: Track, state: &Path) {
    let name = |what: &str| format!("history/{}/{what}", track.name());
    let one = record(track, runs());
    let block = encode_record(&one).unwrap();
    println!("{}: a run of {NODES} operators takes {} bytes", track.name(), block.len());
    criterion.bench_function(&name("encode_record"), |b| b.iter(|| encode_record(black_box(&one)).unwrap()));
    criterion.bench_function(&name("decode_record"), |b| b.iter(|| decode_record(black_box(&block)).unwrap()));

    let executable = std::env::current_exe().unwrap();
    criterion.bench_function(&name("cold_process_open_look_up_close"), |b| {
        b.iter(|| {
            let status = Command::new(&executable).env(COLD, state).arg(track.name()).status().unwrap();
            assert!(status.success());
        });
    });
    criterion.bench_function(&name("open_look_up_close"), |b| b.iter(|| cold(track, state)));

    let mut store = history(state).open().unwrap();
    let subplans: Vec<_> = (0..4096).map(|k| some(track, k)).collect();
    let mut next = subplans.iter().cycle();
    criterion.bench_function(&name("last_10_of_a_fingerprint"), |b| {
        b.iter(|| {
            let (pipeline, subplan) = next.next().unwrap();
            black_box(store.observations(scope(pipeline), subplan, 10).unwrap())
        });
    });
    criterion.bench_function(&name("last_10_of_a_template"), |b| {
        b.iter(|| {
            let (pipeline, subplan) = next.next().unwrap();
            black_box(store.observations_by_template(scope(pipeline), &subplan.template.unwrap(), 10).unwrap())
        });
    });
    criterion.bench_function(&name("list_50_runs"), |b| b.iter(|| store.runs(&RunFilter::default(), 50).unwrap()));
    let mut n = runs();
    let mut new = || {
        n += 1;
        let mut record = record(track, n);
        record.id = RunId::random();
        (record, texts(track, n))
    };
    let mut times = Vec::new();
    criterion.bench_function(&name("append_200_operators_no_fsync"), |b| {
        b.iter_custom(|iterations| {
            let one = |_| {
                let (record, texts) = new();
                let begin = Instant::now();
                store.append(&record, &texts).unwrap();
                times.push(begin.elapsed());
                begin.elapsed()
            };
            (0..iterations).map(one).sum()
        });
    });
    if !times.is_empty() {
        println!("{}: an append to the full store: {}", track.name(), distribution(times));
    }
    drop(store);
    // As the CLI does it: open, append, flush, close, in a store of that size.
    criterion.bench_function(&name("remember_200_operators"), |b| {
        b.iter_custom(|iterations| {
            let one = |_| {
                let (record, texts) = new();
                let begin = Instant::now();
                assert!(matches!(history(state).remember(&record, &texts), Remembered::Stored { .. }));
                begin.elapsed()
            };
            (0..iterations).map(one).sum()
        });
    });
}

fn main() {
    if let Some(state) = std::env::var_os(COLD) {
        let asked = std::env::args().nth(1);
        let track = Track::ALL.into_iter().find(|track| Some(track.name()) == asked.as_deref()).unwrap();
        return cold(track, Path::new(&state));
    }
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("SPARKLET_BENCH_HISTORY").map(PathBuf::from);
    for track in Track::ALL {
        let state = kept.as_deref().unwrap_or(temporary.path()).join(track.name());
        if !state.join("history").exists() {
            fill(track, &state);
        }
        benches(&mut criterion, track, &state);
    }
    criterion.final_summary();
}
