//! Waiting and folding: evenly, all at once or not at all, and within bounds.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::block::{self, Kind};
use crate::chunk::Recent;
use crate::keys;
use crate::tests;
use crate::trees::{Changes, Name};

const NODES: usize = 160;

fn record(n: u64, moving: bool) -> RunRecord {
    run(n, Shape { nodes: NODES, moving, metrics: 0 })
}

fn tree(store: &Store, name: Name) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let rows = store.trees().unwrap().tree(name).rows();
    rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// Observations that wait.
fn waiting(store: &Store) -> usize {
    let scopes = store.waiting_scopes().unwrap();
    scopes.iter().flat_map(|scope| store.recent(scope).unwrap().to_vec()).map(|recent| recent.len()).sum()
}

#[test]
fn no_run_pays_for_the_ones_before_it() {
    for moving in [false, true] {
        let state = state();
        let mut store = history(&state).create().unwrap();
        let mut before: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut most = 0;
        for n in 0..80 {
            let record = record(n, moving);
            store.append(&record, &CanonicalTexts::new()).unwrap();
            let after = tree(&store, Name::Observations);
            // Of a shelf's templates, each has a chunk written at most: a continued or a new one.
            let written = after.iter().filter(|(key, value)| before.get(*key) != Some(value)).count();
            most = most.max(written);
            assert!(written <= NODES / 4, "run {n} wrote {written} chunks of {NODES}");
            assert!(waiting(&store) <= 16 * NODES, "{} observations wait after run {n}", waiting(&store));
            before = after;
        }
        assert!(most > 0, "nothing was ever folded");
        let chunks = before.len();
        assert!(chunks <= 80 * NODES / 12, "{chunks} chunks for {} observations", 80 * NODES);
        clean(&store);
    }
}

#[test]
fn what_waits_is_bounded_for_runs_of_any_size() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    for n in 0..12 {
        let record = run(n, Shape { nodes: 9000, moving: true, metrics: 0 });
        store.append(&record, &CanonicalTexts::new()).unwrap();
        let bytes: usize = tree(&store, Name::Recent).values().map(Vec::len).sum();
        assert!(bytes <= 5 << 19, "{bytes} bytes wait after run {n}");
    }
    let seen = &observations_of(&run(3, Shape { nodes: 9000, moving: true, metrics: 0 }))[4000];
    let found = store.observations(Scope { pipeline: "flights", environment: "default" }, &seen.subplan, 9).unwrap();
    assert_eq!(found, std::slice::from_ref(&seen.observation));
    clean(&store);
}

#[test]
fn groups_are_folded_as_they_are() {
    let (one_by_one, at_once) = (state(), state());
    let records: Vec<_> = (0..64).map(|n| record(n, false)).collect();
    let mut single = history(&one_by_one).create().unwrap();
    records.iter().for_each(|record| single.append(record, &CanonicalTexts::new()).unwrap());
    let mut group = history(&at_once).create().unwrap();
    let with_texts: Vec<_> = records.iter().map(|record| (record.clone(), CanonicalTexts::new())).collect();
    group.append_all(&with_texts).unwrap();
    assert_eq!(waiting(&group), 0, "enough for whole chunks");
    assert!(waiting(&single) > 0);
    let here = Scope::of(&records[0]);
    for seen in observations_of(&records[0]) {
        let of = |store: &Store| store.observations(here, &seen.subplan, usize::MAX).unwrap();
        assert_eq!(of(&single).len(), 64);
        assert_eq!(of(&single), of(&group));
    }
    assert_eq!(clean(&single), clean(&group));
}

#[test]
fn observations_that_wait_as_they_once_did_are_read_and_folded() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    let records: Vec<_> = (0..40).map(|n| record(n, false)).collect();
    let here = Scope::of(&records[0]);
    // All of a run in one block: so before there were shelves.
    for record in &records[..10] {
        store.append(record, &CanonicalTexts::new()).unwrap();
    }
    store.fold().unwrap();
    let mut changes = Changes::default();
    tree(&store, Name::Observations).into_keys().for_each(|key| changes.remove(Name::Observations, key));
    for record in &records[..10] {
        let at_us = record.started_at.timestamp_micros();
        let packed = Recent::new(&record.id, at_us, here, &observations_of(record)).encode().unwrap();
        let key = keys::recent(&keys::scope(here), record.started_at, &record.id);
        let pieces = block::cut(Kind::Recent, &packed).unwrap();
        assert!(pieces.len() > 1);
        for (piece, bytes) in (0u16..).zip(pieces) {
            changes.insert(Name::Recent, keys::piece(&key, piece), bytes);
        }
    }
    store.trees().unwrap().commit(&changes).unwrap();
    let check = |store: &Store, runs: usize| {
        for seen in observations_of(&records[0]) {
            let found = store.observations(here, &seen.subplan, usize::MAX).unwrap();
            let times: Vec<_> = found.iter().map(|observation| observation.at).collect();
            let expected: Vec<_> = records[..runs].iter().rev().map(|record| record.started_at).collect();
            assert_eq!(times, expected);
        }
        clean(store);
    };
    drop(store);
    let mut store = history(&state).open().unwrap();
    check(&store, 10);
    for (n, record) in (1..).zip(&records[10..]) {
        store.append(record, &CanonicalTexts::new()).unwrap();
        check(&store, 10 + n);
    }
    store.fold().unwrap();
    check(&store, 40);
}

#[test]
fn a_crash_leaves_a_shelf_as_it_was_or_empty() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    let mut seen = BTreeSet::new();
    for n in 0..24 {
        store.append(&record(n, n % 3 == 0), &CanonicalTexts::new()).unwrap();
        if n % 4 == 3 {
            store.flush().unwrap();
        }
        // What a process that is killed now leaves to the next one.
        let crashed = tests::state();
        faults::copy(state.path(), crashed.path());
        let left = history(&crashed).open().unwrap();
        assert_eq!(left.notes(), [] as [String; 0], "a crash is no damage");
        let report = clean(&left);
        assert!(report.runs >= (n + 1) / 4 * 4, "{} runs of {} are left", report.runs, n + 1);
        assert_eq!(report.observations, NODES as u64 * report.runs);
        seen.insert(report.runs);
        assert!(waiting(&left) < report.observations as usize || report.runs < 8, "nothing is folded");
    }
    assert!(seen.len() >= 6, "{seen:?}");
}
