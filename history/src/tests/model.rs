//! The store against a model that is a plain vector, with runs of any shape in any order.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::chunk::{CHUNK_ROWS, Chunk, Recent};

#[derive(Debug, Clone)]
struct Step {
    minute: u64,
    environment: bool,
    /// Per node which of a few subplans it is.
    nodes: Vec<u8>,
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (0u64..50, any::<bool>(), vec(0u8..4, 0..5));
    vec(step.prop_map(|(minute, environment, nodes)| Step { minute, environment, nodes }), 1..most)
}

fn record(n: usize, step: &Step) -> RunRecord {
    let mut record = run(n as u64, Shape { nodes: step.nodes.len(), ..Shape::default() });
    record.started_at = sample::start(step.minute);
    record.environment = if step.environment { "default" } else { "dev" }.into();
    let nodes = &mut record.steps[0].plan.as_mut().unwrap().nodes;
    for (node, kind) in nodes.iter_mut().zip(&step.nodes) {
        let subplan = subplan(*kind);
        (node.fingerprint, node.template) = (Some(subplan.fingerprint), subplan.template);
    }
    record
}

/// Two subplans of one template, one of another, and one without.
fn subplan(kind: u8) -> Subplan {
    let template = (kind < 3).then(|| Fingerprint::of(&format!("template {}", kind / 2)));
    Subplan { fingerprint: Fingerprint::of(&format!("node {kind}")), template }
}

/// What the store should say, as a set for each time: the order among equal times is free.
fn expected(records: &[RunRecord], environment: &str, of: impl Fn(&Observed) -> bool) -> Vec<Observation> {
    let mut seen: Vec<Observation> = records
        .iter()
        .filter(|record| record.environment == environment)
        .flat_map(observations_of)
        .filter(|observed| of(observed))
        .map(|observed| observed.observation)
        .collect();
    seen.sort_by_key(|observation| std::cmp::Reverse(observation.at));
    seen
}

fn same(mut found: Vec<Observation>, mut expected: Vec<Observation>, limit: usize) -> Result<(), TestCaseError> {
    let times = |all: &[Observation]| all.iter().take(limit).map(|observation| observation.at).collect::<Vec<_>>();
    prop_assert_eq!(times(&found), times(&expected));
    if limit >= expected.len() {
        for all in [&mut found, &mut expected] {
            all.sort_by_key(|o| (o.at, o.run.clone(), o.rows, o.elapsed_us));
        }
        prop_assert_eq!(found, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_last_n_are_those_of_a_vector(steps in steps(90), groups in vec(1usize..40, 1..5), limit in 1usize..40) {
        let state = state();
        let mut store = history(&state).create().unwrap();
        let records: Vec<_> = steps.iter().enumerate().map(|(n, step)| record(n, step)).collect();
        let mut left: Vec<_> = records.iter().map(|record| (record.clone(), texts(record))).collect();
        // Appended one at a time, in groups, and folded in between, as it comes.
        for size in groups.iter().cycle() {
            if left.is_empty() { break }
            let rest = left.split_off(left.len().min(*size));
            if size % 2 == 0 {
                store.append_all(&left).unwrap();
            } else {
                for (record, texts) in &left { store.append(record, texts).unwrap(); }
                if size % 3 == 0 { store.fold().unwrap(); }
            }
            left = rest;
        }
        let check = |store: &Store| {
            for environment in ["default", "dev"] {
                let scope = Scope { pipeline: "flights", environment };
                for kind in 0..4 {
                    let subplan = subplan(kind);
                    let expected = expected(&records, environment, |seen| seen.subplan == subplan);
                    same(store.observations(scope, &subplan, limit).unwrap(), expected.clone(), limit)?;
                    same(store.observations(scope, &subplan, usize::MAX).unwrap(), expected, usize::MAX)?;
                }
                for kind in 0..2 {
                    let template = Fingerprint::of(&format!("template {kind}"));
                    let found = store.observations_by_template(scope, &template, limit).unwrap();
                    let expected = expected(&records, environment, |seen| seen.subplan.template == Some(template));
                    same(found.into_iter().map(|seen| seen.1).collect(), expected, limit)?;
                }
            }
            Ok::<_, TestCaseError>(())
        };
        check(&store)?;
        prop_assert_eq!(store.verify().unwrap().problems, []);
        store.fold().unwrap();
        check(&store)?;
        prop_assert_eq!(store.verify().unwrap().problems, []);
        drop(store);
        check(&history(&state).open().unwrap())?;
    }

    #[test]
    fn export_and_import_give_the_same_store(steps in steps(30)) {
        let (from, to) = (state(), state());
        let mut store = history(&from).create().unwrap();
        for (n, step) in steps.iter().enumerate() {
            let record = record(n, step);
            store.append(&record, &texts(&record)).unwrap();
        }
        let mut lines = Vec::new();
        store.export(&mut lines).unwrap();
        let mut copy = history(&to).create().unwrap();
        let report = copy.import(&lines[..]).unwrap();
        prop_assert_eq!((report.imported, report.known, report.skipped), (steps.len() as u64, 0, vec![]));
        prop_assert_eq!(copy.import(&lines[..]).unwrap().known, steps.len() as u64);
        let mut again = Vec::new();
        copy.export(&mut again).unwrap();
        prop_assert!(lines == again);
        prop_assert_eq!(copy.verify().unwrap(), store.verify().unwrap());
    }

    #[test]
    fn pruning_keeps_what_it_should(steps in steps(60), keep in 1u64..30, rewrite in any::<bool>()) {
        let state = state();
        let mut store = history(&state).create().unwrap();
        let records: Vec<_> = steps.iter().enumerate().map(|(n, step)| record(n, step)).collect();
        for record in &records {
            store.append(record, &texts(record)).unwrap();
        }
        let policy = PrunePolicy { max_runs: Some(keep), ..PrunePolicy::default() };
        store.prune(&policy, sample::start(99)).unwrap();
        if rewrite { store.compact().unwrap() }
        let kept = all(&store);
        for environment in ["default", "dev"] {
            let of = |all: &[RunRecord]| {
                let mut times: Vec<_> = all.iter().filter(|r| r.environment == environment).map(|r| r.started_at).collect();
                times.sort();
                times.into_iter().rev().take(keep as usize).collect::<Vec<_>>()
            };
            prop_assert_eq!(of(&kept), of(&records));
        }
        prop_assert_eq!(store.verify().unwrap().problems, []);
        prop_assert_eq!(store.verify().unwrap().runs, kept.len() as u64);
    }

    #[test]
    fn packed_observations_come_back(steps in steps(80)) {
        let scope = Scope { pipeline: "flights", environment: "default" };
        let mut chunk = Chunk::new(scope);
        let mut seen: Vec<Observation> = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            let mut record = record(n, step);
            record.environment = "default".into();
            let observed = observations_of(&record);
            let recent = Recent::new(&record.id, record.started_at.timestamp_micros(), scope, &observed);
            prop_assert_eq!(&Recent::decode(&recent.encode().unwrap()).unwrap(), &recent);
            prop_assert_eq!(recent.all().count(), observed.len());
            for Observed { subplan, observation } in observed {
                chunk.insert(&(subplan.fingerprint, observation.clone()));
                seen.push(observation);
            }
        }
        for kind in 0..4 {
            let fingerprint = subplan(kind).fingerprint;
            let own: Vec<_> = chunk.newest_of(&fingerprint).map(Result::unwrap).collect();
            let all: Vec<_> = chunk.newest_first().map(Result::unwrap).filter(|seen| seen.0 == fingerprint).collect();
            prop_assert_eq!(own, all);
        }
        seen.sort_by_key(|observation| observation.at);
        seen.reverse();
        let parts = chunk.clone().split();
        prop_assert_eq!(parts.iter().map(Chunk::len).sum::<usize>(), seen.len());
        for part in &parts {
            prop_assert_eq!(&Chunk::decode(&part.encode().unwrap()).unwrap(), part);
            prop_assert!(part.ordered());
        }
        prop_assert!(parts.len() <= 1 + 2 * seen.len() / CHUNK_ROWS);
        let back: Vec<_> = parts.iter().rev().flat_map(Chunk::newest_first).map(|seen| seen.unwrap().1).collect();
        same(back, seen, usize::MAX)?;
    }

    #[test]
    fn bytes_that_are_no_observations_are_refused(bytes in vec(any::<u8>(), 0..200)) {
        // Whatever they are: an answer, not a panic. (A checksum that fits by chance is not to be expected.)
        prop_assert!(Chunk::decode(&bytes).is_err());
        if let Ok(recent) = Recent::decode(&bytes) {
            recent.all().for_each(drop);
        }
    }

    #[test]
    fn ids_come_back_from_their_bits(bits in any::<u64>()) {
        let id = RunId::from_bits(bits);
        prop_assert_eq!(RunId::from_bits(id.to_bits()), id.clone());
        prop_assert_eq!(id.to_bits(), bits & ((1 << 50) - 1));
        prop_assert!(id.as_str().parse::<RunId>().is_ok());
    }
}

/// A full chunk that ends at the moment at which the next run begins takes that run in: when the older rows are pruned, both would have
/// one key.
#[test]
fn runs_of_one_moment_lose_nothing_when_older_ones_go() {
    let state = state();
    let mut store = history(&state).create().unwrap();
    let step = |minute, nodes: usize| Step { minute, environment: true, nodes: vec![3; nodes] };
    for (n, step) in [step(0, 4), step(10, CHUNK_ROWS / 2), step(10, 2)].iter().enumerate() {
        let record = record(n, step);
        store.append(&record, &texts(&record)).unwrap();
        store.fold().unwrap();
    }
    assert_eq!(store.verify().unwrap().observations, CHUNK_ROWS as u64 / 2 + 6);
    store.prune(&PrunePolicy { max_runs: Some(2), ..PrunePolicy::default() }, sample::start(99)).unwrap();
    let report = store.verify().unwrap();
    assert_eq!((report.problems, report.observations), (Vec::new(), CHUNK_ROWS as u64 / 2 + 2));
}
