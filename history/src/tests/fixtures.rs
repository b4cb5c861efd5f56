//! Formats that must stay readable: `fixtures/v1` was written by version 1 and never changes.
//!
//! A change that makes one of these tests fail needs a new version, a new folder of fixtures, and code that still reads this one.
//! The fixtures were made by [`write_fixtures`], which only a new version has reason to run.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::chunk::{Chunk, Recent};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

fn records() -> Vec<RunRecord> {
    let mut records: Vec<_> = (0..3).map(|n| run(n, Shape { nodes: 9, ..Shape::default() })).collect();
    let mut failed = run(3, Shape { nodes: 2, ..Shape::default() });
    failed.environment = "dev".into();
    failed.outcome = Outcome::CheckFailed;
    failed.error =
        Some(ErrorRecord { kind: "data".into(), message: "check `c` failed".into(), hint: Some("look".into()) });
    failed.steps[0].outcome = Outcome::CheckFailed;
    failed.steps[0].error = failed.error.clone();
    failed.steps[0].checks.push(CheckRecord {
        name: "c".into(),
        condition: "dep_delay is not null".into(),
        passed: false,
        blocking: true,
        rows: Some(336_776),
        failed_rows: Some(8255),
        tolerate: 0.01,
        kept: Some(".sparklet/bad/c.parquet".into()),
    });
    let nodes = &mut failed.steps[0].plan.as_mut().unwrap().nodes;
    nodes[0].completeness = Completeness::ReducedBy(vec![Reduction::DynamicFilter, Reduction::Limit]);
    nodes[1].completeness = Completeness::Truncated;
    records.push(failed);
    records
}

fn chunk() -> (Chunk, Vec<(Fingerprint, Observation)>) {
    let mut chunk = Chunk::new(Scope { pipeline: "flights", environment: "default" });
    let mut seen = Vec::new();
    let reductions = vec![Reduction::DynamicFilter, Reduction::Limit, Reduction::EmptyBuildSide];
    let kinds = [Completeness::Complete, Completeness::Truncated, Completeness::ReducedBy(reductions)];
    for (n, completeness) in (0..).zip(kinds) {
        let Observed { subplan, mut observation } =
            observations_of(&run(n, Shape { moving: n == 1, ..Shape::default() })).remove(4);
        observation.completeness = completeness;
        seen.push((subplan.fingerprint, observation));
        chunk.insert(&seen[seen.len() - 1]);
    }
    seen.reverse();
    (chunk, seen)
}

fn recent() -> Recent {
    let record = run(5, Shape::default());
    Recent::new(&record.id, record.started_at.timestamp_micros(), Scope::of(&record), &observations_of(&record))
}

#[test]
#[ignore = "writes the fixtures of a new version"]
fn write_fixtures() {
    fs::create_dir_all(folder()).unwrap();
    let state = state();
    let mut store = history(&state).create().unwrap();
    for record in records() {
        store.append(&record, &texts(&record)).unwrap();
    }
    let mut lines = Vec::new();
    store.export(&mut lines).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder().join(name), bytes).unwrap();
    write("export.ndjson", &lines);
    write("observations.bin", &chunk().0.encode().unwrap());
    write("recent.bin", &recent().encode().unwrap());
    let record = &records()[3];
    let key = crate::keys::run(record.started_at, &record.id);
    let packed = store.block(&key).unwrap();
    write("block.bin", &crate::block::cut(crate::block::Kind::Run, &packed).unwrap().concat());
    let entry = store.trees().unwrap().tree(crate::trees::Name::Runs).get(&key).unwrap().unwrap();
    write("entry.bin", &entry);
    let spooled = crate::spool::write(state.path(), record, &texts(record)).unwrap();
    write("spooled.json.zst", &fs::read(spooled).unwrap());
    write("current", &fs::read(state.path().join("history/current")).unwrap());
}

#[test]
fn version_1_is_imported() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    let report = store.import(&read("export.ndjson")[..]).unwrap();
    assert_eq!((report.imported, report.skipped), (4, vec![]));
    let mut expected = records();
    expected.reverse();
    assert_eq!(all(&store), expected);
    assert_eq!(store.texts_of("last").unwrap(), texts(&expected[0]));
    clean(&store);
}

/// True if `now` has all that `then` has. Fields may be added within a version.
fn holds(now: &serde_json::Value, then: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object};
    match (now, then) {
        (Object(now), Object(then)) => then.iter().all(|(key, then)| now.get(key).is_some_and(|now| holds(now, then))),
        (Array(now), Array(then)) => {
            now.len() == then.len() && now.iter().zip(then).all(|(now, then)| holds(now, then))
        }
        (now, then) => now == then,
    }
}

#[test]
fn version_1_is_written_as_it_was() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    for record in records() {
        store.append(&record, &texts(&record)).unwrap();
    }
    let mut lines = Vec::new();
    store.export(&mut lines).unwrap();
    let (now, then) = (String::from_utf8(lines).unwrap(), String::from_utf8(read("export.ndjson")).unwrap());
    assert_eq!(now.lines().count(), then.lines().count());
    for (now, then) in now.lines().zip(then.lines()) {
        let (now, then) = (serde_json::from_str(now).unwrap(), serde_json::from_str(then).unwrap());
        assert!(holds(&now, &then), "a field of version 1 is gone or means something else:\n{then}\n{now}");
    }
    assert_eq!(fs::read(state.path().join("history/current")).unwrap(), read("current"));
}

#[test]
fn version_1_of_packed_observations_is_read() {
    let (chunk, seen) = chunk();
    let read_back = Chunk::decode(&read("observations.bin")).unwrap();
    assert_eq!(read_back, chunk);
    let observations: Vec<_> = read_back.newest_first().map(Result::unwrap).collect();
    assert_eq!(observations, seen);
    assert_eq!(Recent::decode(&read("recent.bin")).unwrap(), recent());
}

#[test]
fn version_1_of_blocks_and_spooled_records_is_read() {
    let record = &records()[3];
    let mut carved = crate::block::Carved::default();
    carved.carve(&read("block.bin")[..]).unwrap();
    let (mut whole, parts) = carved.whole(crate::block::Kind::Run);
    let (found, name) = crate::block::unpack_run(&whole.next().unwrap()).unwrap();
    assert_eq!((&found, name, parts), (record, Some(crate::block::texts_name(&texts(record))), 0));
    let entry: crate::store::Entry = crate::block::unseal_json(&read("entry.bin")).unwrap();
    assert_eq!((entry.summary, entry.texts, entry.observations), (record.summary(), name, 2));
    let (spooled, with) = crate::spool::read(&folder().join("spooled.json.zst")).unwrap().unwrap();
    assert_eq!((&spooled, with), (record, texts(record)));
}
