//! Tests of the store as a whole.

mod faults;
mod fixtures;
mod folding;
mod model;
mod processes;
mod pruning;
pub(crate) mod sample;

use std::time::Duration;

use tempfile::TempDir;

use crate::*;
use sample::{Shape, run, texts};

pub(crate) fn state() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn history(state: &TempDir) -> History {
    History::new(state.path(), HistoryOptions { lock_wait: Duration::from_millis(200), ..HistoryOptions::default() })
}

#[track_caller]
pub(crate) fn stored(remembered: &Remembered) {
    assert!(matches!(remembered, Remembered::Stored { notes } if notes.is_empty()), "{remembered:?}");
}

#[track_caller]
pub(crate) fn clean(store: &Store) -> VerifyReport {
    let report = store.verify().unwrap();
    assert_eq!(report.problems, []);
    report
}

pub(crate) fn all(store: &Store) -> Vec<RunRecord> {
    let runs = store.runs(&RunFilter::default(), usize::MAX).unwrap();
    runs.iter().map(|summary| store.run(summary.id.as_str()).unwrap()).collect()
}

#[test]
fn what_is_remembered_is_there() {
    let state = state();
    let history = history(&state);
    let records: Vec<_> = (0..70).map(|n| run(n, Shape::default())).collect();
    for record in &records {
        stored(&history.remember(record, &texts(record)));
    }
    let store = history.open().unwrap();
    let report = clean(&store);
    assert_eq!(report.runs, 70);
    assert_eq!(report.observations, records.iter().map(|record| observations_of(record).len() as u64).sum::<u64>());
    let newest_first: Vec<_> = records.iter().rev().cloned().collect();
    assert_eq!(all(&store), newest_first);
    assert_eq!(store.run("last").unwrap(), records[69]);

    let seen = observations_of(&records[69]);
    let (here, subplan) = (Scope::of(&records[69]), seen[0].subplan);
    let last = store.observations(here, &subplan, 10).unwrap();
    assert_eq!(last.len(), 10);
    assert_eq!(last[0], seen[0].observation);
    assert!(last.windows(2).all(|pair| pair[0].at > pair[1].at));
    assert_eq!(store.observations(here, &subplan, 1000).unwrap().len(), 70);
    assert_eq!(store.observations(Scope { environment: "dev", ..here }, &subplan, 10).unwrap(), []);
    assert_eq!(store.observations(Scope { pipeline: "other", ..here }, &subplan, 10).unwrap(), []);
    let evidence: &dyn Evidence = &store;
    assert_eq!(evidence.by_fingerprint(here, &subplan, 10), last);
    let by_template = evidence.by_template(here, &subplan.template.unwrap(), 5);
    assert_eq!(by_template[0], (subplan.fingerprint, seen[0].observation.clone()));

    for (fingerprint, text) in texts(&records[3]) {
        assert_eq!(store.text(&fingerprint).unwrap(), Some(text));
    }
    assert_eq!(store.text(&Fingerprint::of("never seen")).unwrap(), None);
    assert_eq!(store.texts_of(records[5].id.as_str()).unwrap(), texts(&records[5]));
    assert_eq!(report.texts, 1, "the same texts are kept once");

    let versions = store.sources("flights").unwrap();
    assert_eq!(versions.iter().map(|version| version.runs).sum::<u64>(), 70);
    assert!(versions.windows(2).all(|pair| pair[0].last_seen > pair[1].last_seen));
    assert_eq!(store.sources("nothing").unwrap(), []);
}

#[test]
fn nothing_is_made_where_there_is_no_history() {
    let state = state();
    let path = state.path().join("not/there");
    let store = History::new(&path, HistoryOptions::default()).open().unwrap();
    assert!(store.is_copy());
    assert_eq!(store.runs(&RunFilter::default(), 10).unwrap(), []);
    assert!(matches!(store.run("last"), Err(HistoryError::NotFound { .. })));
    assert!(!path.exists());
}

#[test]
fn runs_are_found_by_prefix_and_filter() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    for n in 0..40 {
        let mut record = run(n, Shape::default());
        record.pipeline = if n % 2 == 0 { "even" } else { "odd" }.into();
        record.environment = if n < 10 { "dev" } else { "default" }.into();
        record.outcome = if n % 5 == 0 { Outcome::Failed } else { Outcome::Succeeded };
        store.append(&record, &texts(&record)).unwrap();
    }
    let ids = |filter: &RunFilter, limit| {
        let runs = store.runs(filter, limit).unwrap();
        runs.into_iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&RunFilter::default(), 3), [39, 38, 37].map(sample::id));
    let even = RunFilter { pipeline: Some("even".into()), ..RunFilter::default() };
    assert_eq!(ids(&even, 2), [38, 36].map(sample::id));
    let since = RunFilter { since: Some(sample::start(38)), ..RunFilter::default() };
    assert_eq!(ids(&since, 99), [39, 38].map(sample::id));
    let dev = RunFilter { environment: Some("dev".into()), outcome: Some(Outcome::Failed), ..RunFilter::default() };
    assert_eq!(ids(&dev, 99), [5, 0].map(sample::id));

    let id = sample::id(7).to_string();
    assert_eq!(store.run(&id[..6]).unwrap().id, sample::id(7));
    assert_eq!(store.run(&id.to_uppercase()).unwrap().id, sample::id(7));
    let Err(HistoryError::Ambiguous { candidates, .. }) = store.run(&id[..1]) else {
        panic!("one character is enough?")
    };
    assert!(candidates.contains(&id));
    let mistyped = format!("{}zz", &id[..8]);
    let Err(HistoryError::NotFound { nearest, .. }) = store.run(&mistyped) else { panic!("found `{mistyped}`") };
    assert!(nearest.contains(&id), "{nearest:?}");
    for nothing in ["", "*", "../x", "é", "0123456789abcdef"] {
        assert!(matches!(store.run(nothing), Err(HistoryError::NotFound { .. })), "`{nothing}`");
    }
}

#[test]
fn the_same_run_is_kept_once() {
    let state = state();
    let history = history(&state);
    let record = run(1, Shape::default());
    stored(&history.remember(&record, &texts(&record)));
    stored(&history.remember(&record, &texts(&record)));
    let report = clean(&history.open().unwrap());
    assert_eq!((report.runs, report.observations), (1, observations_of(&record).len() as u64));
}

#[test]
fn deleting_the_history_leaves_a_working_one() {
    let state = state();
    let history = history(&state);
    stored(&history.remember(&run(1, Shape::default()), &CanonicalTexts::new()));
    std::fs::remove_dir_all(state.path().join("history")).unwrap();
    stored(&history.remember(&run(2, Shape::default()), &CanonicalTexts::new()));
    let store = history.open().unwrap();
    assert_eq!(clean(&store).runs, 1);
}

#[test]
fn odd_records_are_kept_too() {
    let state = state();
    let history = history(&state);
    let mut records = Vec::new();
    for (n, nodes) in [(0, 0), (1, 1), (2, 3000)] {
        records.push(run(n, Shape { nodes, ..Shape::default() }));
    }
    let mut odd = run(3, Shape { nodes: 3, ..Shape::default() });
    odd.pipeline = "π/../\0 \"quoted\"\n".into();
    odd.environment = "e".repeat(300_000);
    odd.started_at = chrono::DateTime::from_timestamp(-4_000_000_000, 123_456_789).unwrap();
    odd.notes = vec![String::new(); 3];
    odd.steps[0].checks.push(CheckRecord {
        name: "c".into(),
        condition: String::new(),
        passed: false,
        blocking: true,
        rows: Some(u64::MAX),
        failed_rows: None,
        tolerate: 0.25,
        kept: None,
    });
    let nodes = &mut odd.steps[0].plan.as_mut().unwrap().nodes;
    nodes[1].parent = Some(u32::MAX);
    nodes[2].rows = Some(u64::MAX);
    nodes[2].completeness = Completeness::ReducedBy(vec![Reduction::Limit, Reduction::EmptyBuildSide]);
    records.push(odd.clone());
    for record in &records {
        stored(&history.remember(record, &texts(record)));
    }
    let store = history.open().unwrap();
    clean(&store);
    for record in &records {
        assert!(store.run(record.id.as_str()).unwrap() == *record, "run `{}` differs", record.id);
    }
    let seen = observations_of(&odd);
    assert_eq!(seen.len(), 3);
    for observed in seen {
        assert!(store.observations(Scope::of(&odd), &observed.subplan, 1).unwrap()[0] == observed.observation);
    }
}

#[test]
fn literals_that_change_share_a_template() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    let records: Vec<_> = (0..100).map(|n| run(n, Shape { moving: true, ..Shape::default() })).collect();
    for record in &records {
        store.append(record, &texts(record)).unwrap();
    }
    let here = Scope::of(&records[0]);
    for record in &records {
        for seen in observations_of(record) {
            assert_eq!(store.observations(here, &seen.subplan, 9).unwrap(), [seen.observation]);
        }
    }
    let seen = &observations_of(&records[99])[3];
    let by_template = store.observations_by_template(here, &seen.subplan.template.unwrap(), 1000).unwrap();
    assert_eq!(by_template.len(), 100);
    assert_eq!(by_template[0], (seen.subplan.fingerprint, seen.observation.clone()));
    let mut without = seen.subplan;
    without.template = None;
    assert_eq!(store.observations(here, &without, 9).unwrap(), []);
    clean(&store);
}

#[test]
fn info_says_what_is_there() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    for n in 0..40 {
        let record = run(n, Shape::default());
        store.append(&record, &texts(&record)).unwrap();
    }
    store.flush().unwrap();
    let info = store.info().unwrap();
    assert_eq!((info.runs, info.version, info.spooled), (40, 1, 0));
    assert_eq!((info.oldest, info.newest), (Some(sample::start(0)), Some(sample::start(39))));
    assert!(info.bytes_on_disk > info.trees.iter().map(|tree| tree.bytes).sum());
    assert!(info.trees.iter().find(|tree| tree.name == "observations").unwrap().entries > 0);
}
