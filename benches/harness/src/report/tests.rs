use super::*;
use crate::engine::Settings;
use crate::queries::Query;

/// Samples of `days` days and `pairs` pairs: `time` gives micro-seconds by query and column, with a little noise.
fn measured(days: u32, pairs: u32, queries: &[u32], time: impl Fn(u32, Column) -> u64) -> Measured {
    let mut measured = Measured::default();
    for day in 1..=days {
        for (column, wall_us) in [(Column::Sparklet, 500), (Column::Plain, 100)] {
            measured.registration.push((day, column, Cost { wall_us, ..Cost::default() }));
        }
        measured.remembering.extend((0..pairs).map(|pair| (day, pair, Cost { wall_us: 2_000, ..Cost::default() })));
        for &query in queries {
            for pair in 0..pairs {
                for column in [Column::Sparklet, Column::Plain, Column::PlainAgain] {
                    let wall_us = time(query, column) + u64::from(pair % 3) * 100;
                    let cost = Cost {
                        wall_us,
                        cpu_us: wall_us * 2,
                        planning_us: 1_000,
                        peak_memory_bytes: 7,
                        peak_rss_bytes: 9,
                    };
                    let after = if column == Column::Sparklet {
                        Cost { wall_us: 1_000, ..Cost::default() }
                    } else {
                        Cost::default()
                    };
                    measured.samples.push(Sample { day, query, pair, column, cost, after });
                }
            }
        }
    }
    measured
}

fn report(days: u32, pairs: u32, queries: &[u32], time: impl Fn(u32, Column) -> u64) -> Report {
    let plan = Plan {
        workload: Workload::Tpch,
        scale: 1.0,
        track: Track::Frozen,
        days,
        pairs,
        queries: queries.iter().map(|&number| Query { number, sql: String::new() }).collect(),
        seed: 1,
        settings: Settings { slots: 2, memory: 1, batch_size: None, spill: "/".into(), adaptive: Default::default() },
        tuned: None,
    };
    Report::new(&plan, measured(days, pairs, queries, time), None, DateTime::UNIX_EPOCH)
}

#[test]
fn a_certain_regression_is_named_and_a_short_one_is_not() {
    let report = report(1, 6, &[1, 2, 3], |query, column| match (query, column) {
        (1, Column::Sparklet) => 130_000,
        (2, Column::Sparklet) => 115_000,
        // Thirty percent of 10 ms are 3 ms: below what counts.
        (3, Column::Sparklet) => 13_000,
        (3, _) => 10_000,
        _ => 100_000,
    });
    let sparklet = &report.columns["sparklet"];
    // q02 is slower by 15 ms only.
    assert_eq!(
        (sparklet.over_1_1.clone(), sparklet.over_1_2.clone()),
        (vec!["q01".to_owned()], vec!["q01".to_owned()])
    );
    assert!((sparklet.wall.value - 1.2286).abs() < 0.01, "{sparklet:?}");
    assert_eq!(report.columns["plain_again"].wall.value, 1.0);
    assert!(report.columns["plain_again"].over_1_1.is_empty());
    assert!(!report.columns.contains_key("tuned"));
}

#[test]
fn the_whole_counts_what_comes_after_and_the_day_the_registration() {
    let report = report(2, 3, &[1], |_, _| 10_000);
    let (query, whole) = (&report.columns["sparklet"], &report.columns["sparklet_whole"]);
    assert_eq!(query.wall.value, 1.0);
    assert!((whole.wall.value - (10_100.0 + 1_000.0 + 2_000.0) / 10_100.0).abs() < 1e-9, "{whole:?}");
    // The query itself is charged with its observations, not with the remembering of the run.
    assert!((report.queries[0].columns["sparklet_whole"].wall.value - 1.099).abs() < 0.002);
    assert!((whole.geometric_mean_wall - 1.099).abs() < 0.002, "{whole:?}");
    let day = &report.by_day[1];
    assert!((day.whole_day_wall - (10_100.0 + 1_000.0 + 2_000.0 + 500.0) / (10_100.0 + 100.0)).abs() < 1e-9, "{day:?}");
    assert_eq!((report.observe_ms.p50, report.remember_ms.p50), (1.0, 2.0));
}

#[test]
fn a_report_is_valid_json_even_where_one_pair_says_nothing() {
    let report = report(1, 1, &[1, 2], |_, _| 10_000);
    let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(json["columns"]["sparklet"]["wall"]["value"], 1.0);
    assert!(json["columns"]["sparklet"]["wall"]["upper"].is_null());
    assert_eq!(json["workload"], "tpch");
    assert_eq!(json["samples"].as_array().unwrap().len(), 6);
}
