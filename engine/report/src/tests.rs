use insta::assert_snapshot;
use proptest::prelude::*;
use sparklet_history::*;

use crate::fixture::{adapted, check, divided, earlier, node, record, start, step};
use crate::human::width;
use crate::*;

const NONE: [RunRecord; 0] = [];

fn text(record: &RunRecord, before: &[RunRecord], width: usize) -> String {
    Report::new(record, before).to_text(&TextOptions { width, ..TextOptions::default() })
}

/// Without colours, as it would be read.
fn strip(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            for c in chars.by_ref() {
                if c == 'm' {
                    break;
                }
            }
        } else {
            out.push(c)
        }
    }
    out
}

fn failed() -> RunRecord {
    let mut run = record();
    let error = ErrorRecord {
        kind: "memory".to_owned(),
        message: "out of memory\nHashJoinExec asked for 310 MiB".to_owned(),
        hint: Some("raise `memory`, or lower `slots`".to_owned()),
    };
    run.outcome = Outcome::Failed;
    run.steps[1].outcome = Outcome::Failed;
    run.steps[1].output = None;
    run.steps[1].error = Some(error.clone());
    run.error = Some(error);
    let mut skipped = step("worst_tails", 0, 0);
    skipped.outcome = Outcome::Skipped;
    skipped.decisions.clear();
    run.steps.push(skipped);
    run
}

#[test]
fn a_run_at_100_columns() {
    assert_snapshot!(text(&record(), &earlier(&[2_600_000, 2_640_000, 2_580_000, 2_700_000, 2_620_000]), 100));
}

#[test]
fn a_first_run_at_80_columns() {
    assert_snapshot!(text(&record(), &NONE, 80));
}

#[test]
fn a_failed_run_in_ascii() {
    let options = TextOptions {
        width: 80,
        unicode: false,
        now: Some(start() + chrono::TimeDelta::minutes(3)),
        ..TextOptions::default()
    };
    let text = Report::new(&failed(), earlier(&[2_000_000])).to_text(&options);
    assert!(text.is_ascii(), "{text}");
    assert_snapshot!(text);
}

#[test]
fn changes_in_mid_run_at_100_columns() {
    assert_snapshot!(text(&adapted(), &NONE, 100));
}

#[test]
fn changes_in_mid_run_in_ascii() {
    let run = adapted();
    let text = Report::new(&run, NONE).to_text(&TextOptions { width: 60, unicode: false, ..TextOptions::default() });
    assert!(text.is_ascii(), "{text}");
    let (_, section) = text.split_once("Changed in mid-run").unwrap();
    let (section, _) = section.split_once("Plan of").unwrap();
    assert_snapshot!(section);
}

#[test]
fn a_long_list_of_sizes_says_that_it_may_go_on() {
    let mut run = adapted();
    let adaptation = &mut run.steps[0].adaptations[0];
    adaptation.after = vec![5_000; 64];
    adaptation.task_cpu_us.clear();
    let page = text(&run, &NONE, 100);
    assert!(page.contains("64 tasks or more") && page.contains("59 more"), "{page}");
    assert!(!page.contains("measured:"), "no task has ended");
    run.steps[0].adaptations[0].task_cpu_us = vec![700; 90];
    let page = text(&run, &NONE, 100);
    assert!(page.contains("90 tasks") && page.contains("85 more"), "{page}");
}

#[test]
fn json_has_what_is_derived_of_changes() {
    let run = adapted();
    let json = Report::new(&run, NONE).to_json().unwrap();
    let adaptations = |step: usize| json["steps"][step]["adaptations"].as_array().unwrap().clone();
    assert_eq!((adaptations(0).len(), adaptations(1).len()), (1, 2));
    let divided = &adaptations(0)[0];
    assert!(divided["what"].as_str().unwrap().contains("flights.carrier = airlines.carrier"), "{divided}");
    assert!((divided["predicted_gain"].as_f64().unwrap() - 300_032.0 / 84_400.0).abs() < 1e-9);
    let spans = divided["measured"]["spans"].as_array().unwrap();
    assert_eq!(spans.iter().map(|s| s["slots"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 8, 32]);
    assert!(spans.iter().all(|s| s["makespan_us"].as_u64() >= s["ideal_us"].as_u64()));
    assert!(adaptations(1)[0]["measured"].is_null() && adaptations(1)[0]["predicted_gain"].is_null());
    assert_eq!(json["run"]["steps"][0]["adaptations"][0]["before"][0], 300_032);
}

#[test]
fn verdicts() {
    let run = record();
    let mut lines = Vec::new();
    let mut say =
        |what: &str, run: &RunRecord, before: &[RunRecord]| lines.push(format!("{what}: {}", verdict(run, before)));
    say("first", &run, &NONE);
    say("one before", &run, &earlier(&[2_600_000]));
    say("the same", &run, &earlier(&[2_300_000, 2_310_000, 2_320_000]));
    say("faster", &run, &earlier(&[2_600_000, 2_640_000, 2_580_000]));
    say("slower, but noise", &run, &earlier(&[2_600_000, 1_900_000, 1_950_000]));
    say("much slower", &run, &earlier(&[600_000, 640_000, 580_000]));
    let mut before = earlier(&[2_600_000, 2_640_000, 2_580_000]);
    before[0].code_version = Fingerprint::of("code 0");
    before[0].sources[0].data_version = Fingerprint::of("data 0");
    say("changed", &run, &before);
    before.iter_mut().for_each(|r| r.outcome = Outcome::Failed);
    say("none succeeded", &run, &before);
    say("failed", &failed(), &NONE);
    let mut stopped = record();
    stopped.outcome = Outcome::CheckFailed;
    stopped.steps[0].outcome = Outcome::CheckFailed;
    stopped.steps[0].checks = vec![check("distance_known", false, true)];
    stopped.steps.truncate(1);
    stopped.steps[0].output = None;
    say("check", &stopped, &NONE);
    let mut cancelled = record();
    cancelled.outcome = Outcome::Cancelled;
    cancelled.steps[1].outcome = Outcome::Cancelled;
    cancelled.steps[1].output = None;
    say("cancelled", &cancelled, &NONE);
    let mut part = record();
    part.steps[0].outcome = Outcome::Skipped;
    part.steps[0].output = None;
    say("selected", &part, &earlier(&[2_000_000]));
    say("changed in mid-run", &adapted(), &earlier(&[2_000_000]));
    let mut one = record();
    one.steps[0].adaptations = vec![divided()];
    say("changed once", &one, &NONE);
    one.steps[0].adaptations[0].because = AdaptationReason::Forced;
    one.steps[0].adaptations[0].predicted_after = one.steps[0].adaptations[0].predicted_before;
    say("forced for nothing", &one, &NONE);
    lines.push(format!("nothing known: {}", verdict_alone(&record())));
    assert_snapshot!(lines.join("\n"), @"
    first: succeeded in 2.31 s; first run of `flights` that is remembered; 2 outputs, 337,000 rows
    one before: succeeded in 2.31 s, 11 % faster than the run before (too few runs to tell from noise); 2 outputs, 337,000 rows
    the same: succeeded in 2.31 s, as fast as the median of the last 3 runs; 2 outputs, 337,000 rows
    faster: succeeded in 2.31 s, 11 % faster than the median of the last 3 runs; 2 outputs, 337,000 rows
    slower, but noise: succeeded in 2.31 s, 19 % slower than the median of the last 3 runs (within their spread); 2 outputs, 337,000 rows
    much slower: succeeded in 2.31 s, 3.9× as long as the median of the last 3 runs; 2 outputs, 337,000 rows
    changed: succeeded in 2.31 s, 11 % faster than the median of the last 3 runs; code and data changed since; 2 outputs, 337,000 rows
    none succeeded: succeeded in 2.31 s; none of the earlier runs compares with it; 2 outputs, 337,000 rows
    failed: failed after 2.31 s in step `routes`: out of memory; 1 output was published before
    check: stopped by a check after 2.31 s in step `enriched`: `distance_known` does not hold (1,500 of 336,776 rows); nothing was published
    cancelled: cancelled after 2.31 s in step `routes`; 1 output was published before
    selected: succeeded in 2.31 s; none of the earlier runs compares with it; 1 output, 224 rows (1 of 2 steps)
    changed in mid-run: succeeded in 2.31 s, 16 % slower than the run before (too few runs to tell from noise); 3 changes in mid-run; 2 outputs, 337,000 rows
    changed once: succeeded in 2.31 s; first run of `flights` that is remembered; 1 change in mid-run; 2 outputs, 337,000 rows
    forced for nothing: succeeded in 2.31 s; first run of `flights` that is remembered; 2 outputs, 337,000 rows
    nothing known: succeeded in 2.31 s; 2 outputs, 337,000 rows
    ");
}

#[test]
fn only_comparable_runs_count() {
    let run = record();
    let mut before = earlier(&[1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]);
    before[0].environment = "dev".to_owned();
    before[1].pipeline = "other".to_owned();
    before[2].outcome = Outcome::TimedOut;
    before[3].steps.pop();
    let mut later = run.clone();
    later.id = RunId::from_bits(7);
    later.started_at += chrono::TimeDelta::hours(1);
    before.push(later);
    before.push(run.clone());
    let report = Report::new(&run, &before);
    let ids: Vec<u64> = report.comparison().runs.iter().map(|r| r.wall_us).collect();
    assert_eq!(ids, [run.wall_us, 5_000_000]);
    // Ad-hoc statements share a name, so only the same text compares.
    let mut sql = run.clone();
    sql.pipeline = "sql".to_owned();
    let mut other = before[4].clone();
    other.pipeline = "sql".to_owned();
    assert_eq!(Report::new(&sql, [&other]).comparison().len(), 1);
    other.code_version = Fingerprint::of("other");
    assert_eq!(Report::new(&sql, [&other]).comparison().len(), 0);
}

#[test]
fn summaries_compare_as_records_do_without_steps() {
    let run = record();
    let before = earlier(&[2_600_000, 2_640_000, 2_580_000]);
    let summaries: Vec<RunSummary> = before.iter().map(RunRecord::summary).collect();
    let (records, summaries) = (Report::new(&run, &before), Report::new(&run, &summaries));
    assert_eq!(records.verdict(), summaries.verdict());
    assert_eq!(records.comparison().runs, summaries.comparison().runs);
    assert!(!records.comparison().steps.is_empty() && summaries.comparison().steps.is_empty());
}

#[test]
fn lines_of_time_add_up() {
    for mut run in [record(), failed()] {
        let sum = |split: &TimeSplit| split.lines.iter().map(|l| l.wall_us).sum::<u64>();
        let split = TimeSplit::new(&run);
        // Rounding down loses less than a micro-second a node.
        assert!(split.total_us.abs_diff(sum(&split)) <= 16 && split.total_us == run.wall_us, "{split:?}");
        // Operators that account for more than the execution (several slots) are scaled down to it.
        run.steps[0].plan.as_mut().unwrap().nodes[0].elapsed_us = 50_000_000;
        let split = TimeSplit::new(&run);
        assert!(split.total_us.abs_diff(sum(&split)) <= 16 && split.total_us == run.wall_us, "{split:?}");
    }
}

fn kinds(run: &RunRecord, before: &[RunRecord]) -> Vec<FindingKind> {
    Report::new(run, before).findings().iter().map(|f| f.kind).collect()
}

/// A run that gives no reason to say anything bad.
fn calm() -> RunRecord {
    let mut run = record();
    run.steps = vec![step("a", 700_000, 10), step("b", 800_000, 10), step("c", 800_000, 10)];
    run.peak_memory_bytes = 100 << 20;
    run.cpu_us = 5_000_000;
    run
}

#[test]
fn each_finding_needs_its_reason() {
    use FindingKind::*;
    assert_eq!(kinds(&calm(), &[]), [Comfortable]);
    let with = |change: &dyn Fn(&mut RunRecord)| {
        let mut run = calm();
        change(&mut run);
        kinds(&run, &[])
    };
    let plan = |run: &mut RunRecord, nodes: Vec<NodeRecord>| run.steps[1].plan = Some(PlanRecord { nodes });
    assert!(with(&|r| r.steps[0].checks = vec![check("c", false, false)]).contains(&CheckFailed));
    assert!(!with(&|r| r.steps[0].checks = vec![check("c", false, true)]).contains(&CheckFailed));
    assert!(with(&|r| r.steps[0].checks = vec![check("c", true, false)]).contains(&ChecksPassed));
    assert!(
        with(&|r| r.steps[0].output = {
            let mut o = record().steps[0].output.clone();
            o.as_mut().unwrap().rows = 0;
            o
        })
        .contains(&EmptyOutput)
    );
    assert!(with(&|r| r.peak_memory_bytes = 250 << 20).contains(&MemoryNearLimit));
    assert!(with(&|r| r.steps[1].wall_us = 2_000_000).contains(&StepDominates));
    assert!(with(&|r| r.steps[1].planning_us = 790_000).contains(&Overhead));
    assert!(with(&|r| r.cpu_us = 2_000_000).contains(&IdleSlots));
    assert!(with(&|r| r.cpu_us = 9_000_000).contains(&BusySlots));
    assert!(
        with(&|r| {
            r.sources[0].rows = None;
            r.sources[0].bytes = 1 << 30
        })
        .contains(&BlindSource)
    );
    assert!(
        !with(&|r| {
            r.sources[0].rows = None;
            r.sources[0].bytes = 1 << 20
        })
        .contains(&BlindSource)
    );
    assert!(with(&|r| r.sources[0].files = 2_000).contains(&SmallFiles));
    let join = |rows| {
        vec![
            node(None, "HashJoinExec", "", None, rows, 1),
            node(Some(0), "A", "", None, 100_000, 1),
            node(Some(0), "B", "", None, 5, 1),
        ]
    };
    assert!(with(&|r| plan(r, join(2_000_000))).contains(&JoinGrowth));
    assert!(!with(&|r| plan(r, join(400_000))).contains(&JoinGrowth));
    let joined =
        |child: NodeRecord| vec![node(None, "HashJoinExec", "", None, 1, 1), NodeRecord { parent: Some(0), ..child }];
    assert!(with(&|r| plan(r, joined(node(None, "A", "", Some(5), 20_000, 1)))).contains(&Estimate));
    assert!(!with(&|r| plan(r, vec![node(None, "A", "", Some(5), 20_000, 1)])).contains(&Estimate), "no join reads it");
    assert!(with(&|r| plan(r, vec![node(None, "HashJoinExec", "", Some(5), 20_000, 1)])).contains(&Estimate));
    assert!(!with(&|r| plan(r, joined(node(None, "A", "", Some(5), 2_000, 1)))).contains(&Estimate));
    let inherited =
        vec![node(None, "HashJoinExec", "", Some(5), 20_000, 900_000), node(Some(0), "B", "", Some(5), 20_000, 1)];
    let mut told = calm();
    plan(&mut told, inherited);
    assert_eq!(
        Report::new(&told, NONE).findings()[0].place.node,
        Some(1),
        "where it came up, not where it was passed on"
    );
    let staged = vec![
        node(None, "HashJoinExec", "", Some(20_000), 20_000, 1),
        node(Some(0), "ExchangeReaderExec", "", Some(20_000), 20_000, 1),
        node(Some(1), "A", "", Some(5), 20_000, 1),
    ];
    assert!(!with(&|r| plan(r, staged.clone())).contains(&Estimate), "the join was planned from what the stage left");
    assert!(with(&|r| r.steps[1].adaptations = vec![divided()]).contains(&Adapted));
    assert!(with(&|r| r.steps[1].adaptations = adapted().steps[1].adaptations.clone()).contains(&SecondAttempt));
    let sure = vec![node(None, "A", "", Some(5), 5, 1); 5];
    assert!(with(&|r| plan(r, sure.clone())).contains(&GoodEstimates));
    let mut cut = node(None, "A", "", Some(20_000), 5, 1);
    assert!(with(&|r| plan(r, joined(cut.clone()))).contains(&Estimate));
    cut.completeness = Completeness::Truncated;
    assert!(!with(&|r| plan(r, joined(cut.clone()))).contains(&Estimate), "rows that never came prove nothing");
    let mut uneven = node(None, "A", "", None, 100_000, 800_000);
    uneven.partitions = [90_000, 5_000, 5_000].map(|rows| PartitionRecord { rows, elapsed_us: 1 }).to_vec();
    assert!(with(&|r| plan(r, vec![uneven.clone()])).contains(&Skew));
    let read_by = |join: &str| {
        let read = NodeRecord { parent: Some(0), operator: "ExchangeReaderExec".to_owned(), ..uneven.clone() };
        vec![node(None, join, "", None, 100_000, 1), read]
    };
    assert!(with(&|r| plan(r, read_by("HashJoinExec"))).contains(&Skew));
    assert!(!with(&|r| plan(r, read_by("AdaptiveJoinExec"))).contains(&Skew), "its slots share the slices");
    let above = |operator: &str| {
        let aggregate = NodeRecord { operator: operator.to_owned(), ..uneven.clone() };
        vec![aggregate, node(Some(0), "AdaptiveJoinExec", "", None, 100_000, 1)]
    };
    assert!(!with(&|r| plan(r, above("AggregateExec"))).contains(&Skew), "nor is what takes its rows as they come");
    assert!(with(&|r| plan(r, above("RepartitionExec"))).contains(&Skew));
    uneven.elapsed_us = 10;
    assert!(
        !with(&|r| plan(r, vec![uneven.clone(), node(Some(0), "B", "", None, 1, 800_000)])).contains(&Skew),
        "it costs nothing there"
    );
    let mut sort = node(None, "SortExec", "", None, 1, 1);
    sort.spilled_bytes = 1 << 30;
    assert_eq!(with(&|r| plan(r, vec![sort.clone()])), [Spill]);

    let slow = kinds(&calm(), &before(&[1_000_000, 1_100_000, 1_200_000]));
    assert!(slow.contains(&Slower), "{slow:?}");
    assert!(!kinds(&calm(), &before(&[1_000_000, 1_100_000])).contains(&Slower), "two runs are too few");
    assert!(!kinds(&calm(), &before(&[1_000_000, 1_100_000, 3_000_000])).contains(&Slower), "within the spread");
    assert!(kinds(&calm(), &before(&[4_000_000, 4_100_000, 4_200_000])).contains(&Faster));
    let mut fewer = record();
    fewer.steps[0].output.as_mut().unwrap().rows = 1_000;
    assert!(kinds(&fewer, &earlier(&[2_000_000])).contains(&RowsChanged));
    assert!(!kinds(&record(), &earlier(&[2_000_000])).contains(&RowsChanged));
    fewer.params.clear();
    assert!(!kinds(&fewer, &earlier(&[2_000_000])).contains(&RowsChanged), "asked for");
}

fn before(walls: &[u64]) -> Vec<RunRecord> {
    let mut runs = earlier(walls);
    runs.iter_mut().for_each(|r| r.steps = calm().steps);
    runs
}

#[test]
fn findings_are_few_and_have_a_next_step() {
    let report = record();
    let report = Report::new(&report, earlier(&[1_000_000, 1_100_000, 1_200_000]));
    assert!(report.findings().len() <= thresholds::MAX_FINDINGS);
    assert!(report.findings().iter().all(|f| !f.what.is_empty() && !f.next.is_empty()));
}

#[test]
fn json_holds_the_record_and_all_that_is_derived() {
    let run = record();
    let report = Report::new(&run, earlier(&[2_600_000, 2_640_000, 2_580_000]));
    let json = report.to_json().unwrap();
    assert_eq!(serde_json::from_value::<RunRecord>(json["run"].clone()).unwrap(), run);
    assert_eq!(json["report_version"], 1);
    assert_eq!(json["verdict"], report.verdict());
    assert_eq!(json["findings"].as_array().unwrap().len(), report.findings().len());
    assert_eq!(json["comparison"]["runs"].as_array().unwrap().len(), 4);
    let depths: Vec<u64> =
        json["steps"][0]["nodes"].as_array().unwrap().iter().map(|n| n["depth"].as_u64().unwrap()).collect();
    assert_eq!(depths, [0, 1, 2, 3, 3, 4]);
    let top: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(top.join(" "), "comparison findings report_version run steps time verdict");
}

#[test]
fn hostile_names_do_not_reach_the_terminal() {
    let mut run = failed();
    let evil = "x\x1b[2J\x07\r\nfake line\u{202e}";
    run.pipeline = evil.to_owned();
    run.environment = evil.to_owned();
    run.notes = vec![evil.to_owned()];
    run.params.insert(evil.to_owned(), evil.to_owned());
    run.sources[0].location = evil.to_owned();
    run.steps[0].name = evil.to_owned();
    run.steps[0].checks[1].name = evil.to_owned();
    run.steps[0].output.as_mut().unwrap().location = evil.to_owned();
    let nodes = &mut run.steps[0].plan.as_mut().unwrap().nodes;
    nodes[2].operator = evil.to_owned();
    nodes[2].detail = evil.to_owned();
    run.steps[1].error.as_mut().unwrap().message = evil.to_owned();
    let mut changed = adapted().steps[1].adaptations[0].clone();
    changed.because = AdaptationReason::MemoryExhausted { message: evil.to_owned() };
    changed.kind = AdaptationKind::Broadcast { on: vec![evil.to_owned()] };
    changed.hot_keys = vec![HotKey { exchange: 0, key: Some(vec![evil.to_owned()]), share: 1.0 }];
    run.steps[0].adaptations = vec![changed];
    for text in [text(&run, &NONE, 100), verdict(&run, NONE)] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n') && !text.contains('\u{202e}'), "{text}");
        assert!(!text.lines().any(|l| l.starts_with("fake line")), "{text}");
    }
}

/// A left-deep join of 40 inputs, and a chain of 200 operators: neither may push the figures out of the page.
#[test]
fn wide_and_deep_plans_keep_to_the_page() {
    let mut nodes = Vec::new();
    let mut parent = None;
    for _ in 0..40 {
        let join = nodes.len() as u32;
        nodes.push(node(
            parent,
            "HashJoinExec",
            "mode=Partitioned, join_type=Inner, on=[(a_long_column_name@1, another_long_column_name@0)]",
            Some(1_000_000),
            123_456_789,
            10,
        ));
        nodes.push(node(Some(join), "DataSourceExec", &"file ".repeat(100), Some(5), 5, 10));
        parent = Some(join);
    }
    for _ in 0..200 {
        nodes.push(node(parent, "ProjectionExec", "expr=[a, b, c]", None, 9, 1));
        parent = Some(nodes.len() as u32 - 1);
    }
    let mut run = record();
    run.steps[0].plan = Some(PlanRecord { nodes });
    for columns in [80, 100, 140] {
        for line in text(&run, &earlier(&[2_000_000]), columns).lines() {
            assert!(width(line) <= columns, "{} > {columns}: {line}", width(line));
        }
    }
}

#[test]
fn colour_changes_no_letter() {
    let run = failed();
    let plain = text(&run, &NONE, 90);
    let coloured = Report::new(&run, NONE).to_text(&TextOptions { width: 90, color: true, ..TextOptions::default() });
    assert_ne!(plain, coloured);
    assert_eq!(plain, strip(&coloured));
}

fn any_node() -> impl Strategy<Value = NodeRecord> {
    (
        proptest::option::of(any::<u32>().prop_map(|p| p % 12)),
        "\\PC{0,20}|HashJoinExec|\\x1b.*",
        any::<(Option<u64>, Option<u64>, Option<u64>, u64, u64, u64)>(),
        proptest::collection::vec(any::<(u64, u64)>(), 0..5),
        prop_oneof![
            Just(Completeness::Complete),
            Just(Completeness::Truncated),
            Just(Completeness::ReducedBy(vec![])),
            Just(Completeness::ReducedBy(vec![Reduction::DynamicFilter, Reduction::Limit, Reduction::EmptyBuildSide])),
        ],
    )
        .prop_map(|(parent, name, (estimated, rows, bytes, us, spills, spilled), partitions, completeness)| {
            let mut node = node(parent, &name, &name, estimated, 0, us);
            node.rows = rows;
            node.bytes = bytes;
            node.peak_memory_bytes = bytes;
            node.spill_count = spills;
            node.spilled_bytes = spilled;
            node.completeness = completeness;
            node.partitions =
                partitions.into_iter().map(|(rows, elapsed_us)| PartitionRecord { rows, elapsed_us }).collect();
            node
        })
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    use Outcome::*;
    proptest::sample::select(vec![Succeeded, Failed, CheckFailed, Cancelled, TimedOut, Skipped])
}

fn any_adaptation() -> impl Strategy<Value = Adaptation> {
    let sizes = || proptest::collection::vec(any::<u64>(), 0..70);
    let kind = (0_u8..6, "\\PC{0,30}", any::<[u32; 4]>()).prop_map(|(kind, on, n)| match kind {
        0 => AdaptationKind::DivideJoin {
            on: vec![on],
            units: n[0],
            split_buckets: n[1],
            swapped_units: n[2],
            oversized_units: n[3],
        },
        1 => AdaptationKind::Broadcast { on: vec![on] },
        3 => AdaptationKind::ShareSubplan { what: on, readers: n[0] },
        2 => AdaptationKind::SkipEmpty { on: Vec::new() },
        4 => AdaptationKind::ChangeSlots { from: n[0], to: n[1] },
        _ => AdaptationKind::RunInStages,
    });
    let because = (0_u8..9, "\\PC{0,30}", any::<[u64; 2]>(), any::<Option<u64>>()).prop_map(
        |(because, message, n, expected_rows)| match because {
            0 => AdaptationReason::HotBuckets { largest_rows: n[0], median_rows: n[1] },
            1 => AdaptationReason::BuildSideSmall { rows: n[0], bytes: n[1], expected_rows },
            2 => AdaptationReason::MemoryExhausted { message },
            3 => AdaptationReason::InputEmpty,
            4 => AdaptationReason::Repeated { rows: n[0], bytes: n[1] },
            5 => AdaptationReason::PoolUse { used: n[0], limit: n[1] },
            6 => AdaptationReason::OtherQueries { queries: n[0] as u32 },
            7 => AdaptationReason::Cores { cores: n[0] as u32 },
            _ => AdaptationReason::Forced,
        },
    );
    (kind, because, sizes(), sizes(), sizes(), any::<[u64; 4]>(), any::<u32>(), 0.0_f64..1.0).prop_map(
        |(kind, because, before, after, task_cpu_us, n, stage, share)| Adaptation {
            at_us: n[0],
            stage,
            operator: None,
            kind,
            because,
            before,
            after,
            predicted_before: n[1],
            predicted_after: n[2],
            hot_keys: vec![HotKey { exchange: stage, key: Some(vec!["\u{202e}".to_owned()]), share }],
            cost_us: n[3],
            facts_us: n[3] / 50,
            task_cpu_us,
        },
    )
}

fn any_step() -> impl Strategy<Value = StepRecord> {
    let plan =
        proptest::option::of(proptest::collection::vec(any_node(), 0..12).prop_map(|nodes| PlanRecord { nodes }));
    let adaptations = proptest::collection::vec(any_adaptation(), 0..3);
    let n = (any::<[u64; 8]>(), any::<(bool, bool, Option<u64>, Option<u64>, bool)>());
    (any_outcome(), "\\PC{0,30}", n, plan, adaptations).prop_map(
        |(outcome, name, (n, (passed, blocking, rows, failed_rows, published)), plan, adaptations)| {
            let mut made = step(&name, 0, n[0]);
            (made.wall_us, made.cpu_us, made.planning_us, made.execution_us) = (n[1], n[2], n[3], n[4]);
            (made.checks_us, made.publish_us, made.peak_memory_bytes) = (n[5], n[6], n[7]);
            made.outcome = outcome;
            made.plan = plan;
            made.adaptations = adaptations;
            made.checks = vec![CheckRecord { rows, failed_rows, tolerate: 0.25, ..check(&name, passed, blocking) }];
            made.output =
                record().steps[1].output.clone().map(|o| OutputRecord { rows: n[0], bytes: n[1], published, ..o });
            made
        },
    )
}

fn any_record() -> impl Strategy<Value = RunRecord> {
    let steps = proptest::collection::vec(any_step(), 0..4);
    (any_outcome(), "\\PC{0,30}", any::<[u64; 8]>(), any::<(u32, u32, Option<u64>)>(), steps).prop_map(
        |(outcome, name, n, (slots, cores, rows), steps)| {
            let mut run = record();
            run.id = RunId::from_bits(n[0]);
            run.outcome = outcome;
            run.pipeline = "p".to_owned();
            run.notes = vec![name.clone()];
            (run.wall_us, run.cpu_us, run.peak_memory_bytes, run.memory_limit_bytes) = (n[1], n[2], n[3], n[4]);
            (run.slots, run.machine.cores) = (slots, cores);
            (run.sources[0].files, run.sources[0].bytes, run.sources[0].rows) = (n[5], n[6], rows);
            run.error = Some(ErrorRecord { kind: name.clone(), message: name.clone(), hint: Some(name) });
            run.started_at -= chrono::TimeDelta::seconds((n[7] % 1_000_000) as i64);
            run.steps = steps;
            run
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the record, there is a report, it keeps to the page, and its JSON gives the record back.
    #[test]
    fn any_record_renders(run in any_record(), before in proptest::collection::vec(any_record(), 0..6), width in 0_usize..200, unicode: bool, color: bool) {
        let report = Report::new(&run, &before);
        let text = report.to_text(&TextOptions { width, color, unicode, now: Some(start()) });
        prop_assert!(text.contains(run.id.as_str()));
        prop_assert!(!strip(&text).chars().any(|c| c.is_control() && c != '\n'));
        prop_assert!(report.findings().len() <= thresholds::MAX_FINDINGS);
        prop_assert!(!report.verdict().contains('\n'));
        let again: RunRecord = serde_json::from_value(report.to_json().unwrap()["run"].clone()).unwrap();
        prop_assert_eq!(again, run);
    }
}
