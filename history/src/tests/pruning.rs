//! Retention, and the space it gives back.

use super::*;

fn fill(store: &mut Store, runs: std::ops::Range<u64>, shape: Shape) {
    let records: Vec<_> = runs
        .map(|n| {
            let mut record = run(n, shape);
            record.notes = (0..200).map(|i| Fingerprint::of(&format!("{n} {i}")).to_string()).collect();
            let texts = texts(&record);
            (record, texts)
        })
        .collect();
    store.append_all(&records).unwrap();
}

#[test]
fn space_is_really_given_back() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    fill(&mut store, 0..700, Shape { nodes: 20, ..Shape::default() });
    let policy = PrunePolicy { max_runs: Some(50), ..PrunePolicy::default() };
    let report = store.prune(&policy, sample::start(700)).unwrap();
    assert_eq!((report.runs_removed, report.runs_kept, report.rewritten), (650, 50, true));
    assert!(report.bytes_before > 8 << 20 && report.bytes_after < report.bytes_before / 3, "{report:?}");
    assert_eq!(report.bytes_after, store.info().unwrap().bytes_on_disk);
    let verified = clean(&store);
    assert_eq!((verified.runs, verified.observations), (50, 1000));
    assert_eq!(store.run("last").unwrap().id, sample::id(699));

    drop(store);
    let mut store = history(&state).open().unwrap();
    assert_eq!(clean(&store).runs, 50);
    assert_eq!(store.run("last").unwrap().id, sample::id(699));
    fill(&mut store, 700..740, Shape::default());
    drop(store);
    assert_eq!(clean(&history(&state).open().unwrap()).runs, 90);
}

#[test]
fn size_is_bounded_by_dropping_the_oldest() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    fill(&mut store, 0..600, Shape { nodes: 20, moving: true, ..Shape::default() });
    let limit = 5 << 20;
    let report =
        store.prune(&PrunePolicy { max_bytes: Some(limit), ..PrunePolicy::default() }, sample::start(600)).unwrap();
    assert!(report.bytes_before > limit && report.bytes_after <= limit, "{report:?}");
    assert!(report.runs_kept > 40, "{report:?}");
    let runs = all(&store);
    assert_eq!(runs.len() as u64, report.runs_kept);
    assert!(runs.iter().enumerate().all(|(i, run)| run.id == sample::id(599 - i as u64)));
    let verified = clean(&store);
    assert_eq!(verified.texts, report.runs_kept, "texts of runs that are gone are gone");
    assert_eq!(verified.observations, 20 * report.runs_kept);
}

#[test]
fn age_counts_from_the_time_given() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    fill(&mut store, 0..10, Shape::default());
    let policy = PrunePolicy { max_age: Some(Duration::from_secs(3 * 60)), ..PrunePolicy::default() };
    let report = store.prune(&policy, sample::start(10)).unwrap();
    assert_eq!((report.runs_removed, report.runs_kept, report.rewritten), (7, 3, false));
    assert_eq!(all(&store).last().unwrap().id, sample::id(7));
    let verified = clean(&store);
    assert_eq!(verified.sources, 1, "versions that only older runs saw are gone");
    assert_eq!(store.prune(&policy, sample::start(0)).unwrap().runs_removed, 0, "runs of the future are not old");
    assert_eq!(store.prune(&policy, sample::start(1000)).unwrap().runs_kept, 0);
    assert_eq!(clean(&store), VerifyReport::default());
    fill(&mut store, 20..23, Shape::default());
    assert_eq!(clean(&store).runs, 3);
}

#[test]
fn pruning_what_is_within_bounds_changes_nothing() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    fill(&mut store, 0..40, Shape::default());
    let before = all(&store);
    let policy =
        PrunePolicy { max_age: Some(Duration::from_secs(1 << 30)), max_runs: Some(40), max_bytes: Some(1 << 40) };
    let report = store.prune(&policy, sample::start(40)).unwrap();
    assert_eq!((report.runs_removed, report.runs_kept, report.rewritten), (0, 40, false));
    assert!(all(&store) == before);
}

#[test]
fn pipelines_and_environments_are_counted_apart() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    for n in 0..24 {
        let mut record = run(n, Shape::default());
        record.pipeline = ["a", "b"][(n % 2) as usize].into();
        record.environment = ["default", "dev"][(n / 2 % 2) as usize].into();
        store.append(&record, &texts(&record)).unwrap();
    }
    store.prune(&PrunePolicy { max_runs: Some(2), ..PrunePolicy::default() }, sample::start(24)).unwrap();
    let mut kept: Vec<_> = all(&store).into_iter().map(|run| (run.pipeline, run.environment)).collect();
    kept.sort();
    kept.dedup();
    assert_eq!((kept.len(), clean(&store).runs), (4, 8));
}

#[test]
fn lines_that_cannot_be_imported_are_told_by_number() {
    let (from, to) = (state(), state());
    let mut store = history(&from).create().unwrap();
    fill(&mut store, 0..3, Shape::default());
    let mut lines = Vec::new();
    assert_eq!(store.export(&mut lines).unwrap().runs, 3);
    let text = String::from_utf8(lines).unwrap();
    let good: Vec<&str> = text.lines().collect();
    assert_eq!(good.len(), 5, "a head, one set of texts, three runs");
    let newer = good[4].replace(r#""version":1"#, r#""version":99"#);
    let altered = good[1].replace("the text of", "another text of");
    let mixed =
        [good[0], "", "{", good[2], good[1], good[3], &newer, r#"{"kind":"models"}"#, &altered, "\u{fffd}", "[]"];
    let mut bytes = mixed.join("\r\n").into_bytes();
    bytes.extend(b"\n\xff\xfe\n{\"kind\":\"history\",\"version\":2}\n");
    let mut copy = history(&to).create().unwrap();
    let report = copy.import(&bytes[..]).unwrap();
    assert_eq!((report.imported, report.known), (2, 0));
    let skipped: Vec<u64> = report.skipped.iter().map(|(line, _)| *line).collect();
    assert_eq!(skipped, [3, 4, 7, 8, 9, 10, 11, 12, 13], "{:?}", report.skipped);
    assert!(report.skipped[2].1.contains("version 99"), "{:?}", report.skipped);
    clean(&copy);
}
