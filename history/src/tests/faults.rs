//! Broken, foreign, full and read-only stores: never a failed run, never a lost record.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const RUNS: u64 = 45;

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

/// A closed history with runs 0..[`RUNS`], some folded and some not.
fn template() -> TempDir {
    let state = state();
    let history = history(&state);
    for n in 0..RUNS {
        // Opened once a few runs, so that the log has several generations.
        let mut store = history.create().unwrap();
        let record = run(n, Shape { metrics: 30, ..Shape::default() });
        store.append(&record, &texts(&record)).unwrap();
        store.flush().unwrap();
    }
    state
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(f64),
    Zero(f64),
    Noise(f64),
    Truncate(f64),
    Extend,
    Empty,
    Delete,
}

fn damage(file: &Path, how: Damage, rng: &mut SmallRng) {
    let mut bytes = fs::read(file).unwrap();
    let at = |share: f64| ((bytes.len().max(1) - 1) as f64 * share) as usize;
    match how {
        Damage::Flip(share) => {
            let at = at(share);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        Damage::Zero(share) | Damage::Noise(share) => {
            let from = at(share);
            let to = bytes.len().min(from + 4096);
            bytes[from..to].fill_with(|| if matches!(how, Damage::Zero(_)) { 0 } else { rng.random() });
        }
        Damage::Truncate(share) => bytes.truncate(at(share)),
        Damage::Extend => bytes.extend((0..10_000).map(|_| rng.random::<u8>())),
        Damage::Empty => bytes.clear(),
        Damage::Delete => return fs::remove_file(file).unwrap(),
    }
    fs::write(file, bytes).unwrap();
}

/// Runs `work` and fails if it takes too long: a hang must not look like a slow test.
fn in_time(what: String, work: impl FnOnce() + Send + 'static) {
    let (send, receive) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        send.send(()).unwrap();
    });
    if let Err(mpsc::RecvTimeoutError::Timeout) = receive.recv_timeout(Duration::from_secs(120)) {
        panic!("{what}: still not done");
    }
    assert!(worker.join().is_ok(), "{what}: panicked");
}

/// Remembers a run in a damaged history, and looks whether that and what was there is still there.
fn survives(state: &Path, least: u64, what: &str) {
    let options = HistoryOptions { answer_within: Duration::from_secs(20), ..HistoryOptions::default() };
    let history = History::new(state, options);
    let new = run(1000, Shape::default());
    let remembered = history.remember(&new, &texts(&new));
    assert!(!matches!(remembered, Remembered::Lost { .. }), "{what}: {remembered:?}");
    let report = history.repair().unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut store = history.open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let verified = store.verify().unwrap();
    assert_eq!(verified.problems, [], "{what}");
    assert!(verified.runs > least, "{what}: {} runs of {RUNS} are left: {remembered:?} {report:?}", verified.runs - 1);
    assert_eq!(store.run(new.id.as_str()).unwrap(), new, "{what}");
    let newer = run(1001, Shape::default());
    store.append(&newer, &texts(&newer)).unwrap();
    store.flush().unwrap();
    drop(store);
    assert_eq!(history.open().unwrap().run("last").unwrap(), newer, "{what}");
}

/// `SPARKLET_FAULTS` asks for more rounds than are run each time.
fn rounds(usual: usize) -> usize {
    std::env::var("SPARKLET_FAULTS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

#[test]
fn a_store_broken_anywhere_is_rebuilt() {
    let template = template();
    let names: Vec<PathBuf> = files(&template.path().join("history"));
    let names: Vec<_> = names.iter().map(|file| file.strip_prefix(template.path()).unwrap().to_owned()).collect();
    assert!(names.iter().any(|name| name.ends_with("db")) && names.len() >= 5, "{names:?}");
    let mut rng = SmallRng::seed_from_u64(7);
    let mut cases: Vec<(PathBuf, Damage)> = Vec::new();
    for name in &names {
        let is_log = name.ends_with("db");
        cases.extend([Damage::Delete, Damage::Empty, Damage::Extend].map(|how| (name.clone(), how)));
        for _ in 0..rounds(if is_log { 8 } else { 2 }) {
            cases.push((name.clone(), Damage::Flip(rng.random())));
            cases.push((name.clone(), Damage::Zero(rng.random())));
            cases.push((name.clone(), Damage::Noise(rng.random())));
            cases.push((name.clone(), Damage::Truncate(rng.random())));
        }
    }
    for (name, how) in cases {
        let what = format!("{how:?} of {}", name.display());
        let state = state();
        copy(template.path(), state.path());
        damage(&state.path().join(&name), how, &mut rng);
        let is_log = name.ends_with("db");
        let least = match how {
            _ if !is_log => RUNS,
            // One byte is part of at most one piece of one run.
            Damage::Flip(_) => RUNS - 1,
            Damage::Extend => RUNS,
            // A page may hold the only copies of a few.
            Damage::Zero(_) | Damage::Noise(_) => RUNS - 10,
            Damage::Truncate(_) | Damage::Empty | Damage::Delete => 0,
        };
        in_time(what.clone(), move || survives(state.path(), least, &what));
    }
}

#[test]
fn what_is_broken_below_the_surface_is_found_and_repaired() {
    let state = state();
    let history = history(&state);
    let mut store = history.create().unwrap();
    for n in 0..40 {
        let record = run(n, Shape::default());
        store.append(&record, &texts(&record)).unwrap();
    }
    let some = store.run("last").unwrap();
    let key = crate::keys::run(some.started_at, &some.id);
    let (here, subplan) = (Scope::of(&some), observations_of(&some)[0].subplan);
    let series = crate::keys::series(&subplan.series(), &crate::keys::scope(here));
    let name = crate::block::texts_name(&texts(&some));
    use crate::trees::Name::{Blocks, Ids, Observations, Recent, Runs, Sources, Texts};
    let source = crate::keys::source("flights", here, &some.sources[0].data_version);
    let chunk = store.trees().unwrap().tree(Observations).prefix(&series).next().unwrap().unwrap().0.to_vec();
    let waiting = store.trees().unwrap().tree(Recent).rows().next().unwrap().unwrap().0.to_vec();
    let piece = crate::keys::piece(&key, 0);
    let text_piece = crate::keys::piece(&name.0, 0);
    let spots = [
        (Runs, key.clone()),
        (Ids, some.id.as_str().as_bytes().to_vec()),
        (Blocks, piece),
        (Observations, chunk),
        (Recent, waiting),
        (Texts, text_piece),
        (Sources, source),
    ];
    for (tree, key) in spots {
        let old = store.trees().unwrap().tree(tree).get(&key).unwrap().unwrap();
        for new in [None, Some(&b"\x01garbage that is long enough to be taken for a value"[..]), Some(&b""[..])] {
            let mut changes = crate::trees::Changes::default();
            match new {
                Some(new) => changes.insert(tree, &key[..], new),
                None => changes.remove(tree, &key[..]),
            }
            store.trees().unwrap().commit(&changes).unwrap();
            let found = store.verify().unwrap().problems;
            // A version of a source that is gone refers to nothing and nothing refers to it.
            let expected = !(tree == Sources && new.is_none());
            assert_eq!(!found.is_empty(), expected, "{tree:?} {new:?}");
            let mut changes = crate::trees::Changes::default();
            changes.insert(tree, &key[..], &old);
            store.trees().unwrap().commit(&changes).unwrap();
        }
    }
    clean(&store);
    let mut changes = crate::trees::Changes::default();
    changes.remove(Observations, &store.trees().unwrap().tree(Observations).prefix(&series).next().unwrap().unwrap().0);
    store.trees().unwrap().commit(&changes).unwrap();
    store.flush().unwrap();
    drop(store);
    let report = history.repair().unwrap();
    assert!(report.rebuilt && report.runs == 40 && !report.problems.is_empty(), "{report:?}");
    assert!(!history.repair().unwrap().rebuilt);
    let store = history.open().unwrap();
    assert_eq!(store.observations(here, &subplan, 99).unwrap().len(), 40);
    assert_eq!(store.info().unwrap().set_aside.len(), 1);
}

#[test]
fn a_newer_store_is_left_alone() {
    let state = state();
    let history = history(&state);
    stored(&history.remember(&run(1, Shape::default()), &CanonicalTexts::new()));
    let current = state.path().join("history/current");
    let point = |json: &str| fs::write(&current, format!("{json}\n{}\n", crate::folder::sum_of(json))).unwrap();
    point(r#"{"format":2,"store":"store-1","what":"a later build adds"}"#);
    let before: Vec<_> = files(&state.path().join("history")).iter().map(|file| fs::read(file).unwrap()).collect();
    let Remembered::Spooled { reason } = history.remember(&run(2, Shape::default()), &CanonicalTexts::new()) else {
        panic!("not spooled")
    };
    assert!(reason.contains("version 2") && reason.contains("up to version 1"), "{reason}");
    assert!(matches!(history.open(), Err(HistoryError::Newer { found: 2, supported: 1, .. })));
    assert!(matches!(history.repair(), Err(HistoryError::Newer { .. })));
    let after: Vec<_> = files(&state.path().join("history")).iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(before == after, "nothing was touched");

    point(r#"{"format":1,"store":"store-1"}"#);
    let store = history.open().unwrap();
    assert_eq!(clean(&store).runs, 2, "the spooled run was merged");

    // The version inside counts too.
    let mut changes = crate::trees::Changes::default();
    changes.insert(crate::trees::Name::Meta, &b"version"[..], &7u64.to_be_bytes());
    store.trees().unwrap().commit(&changes).unwrap();
    drop(store);
    assert!(matches!(history.open(), Err(HistoryError::Newer { found: 7, .. })));
}

#[test]
fn garbage_in_the_spool_is_put_aside_and_newer_records_wait() {
    let state = state();
    let history = history(&state);
    let spool = state.path().join("spool");
    let good = run(1, Shape::default());
    let path = crate::spool::write(&spool, &good, &texts(&good)).unwrap();
    let packed = fs::read(&path).unwrap();
    fs::write(spool.join("garbage.json.zst"), b"not zstd").unwrap();
    fs::write(spool.join("empty.json.zst"), b"").unwrap();
    fs::write(spool.join("cut.json.zst"), &packed[..packed.len() / 2]).unwrap();
    let json = |text: &str| zstd::bulk::compress(text.as_bytes(), 3).unwrap();
    fs::write(spool.join("other.json.zst"), json(r#"{"record":{"version":1}}"#)).unwrap();
    fs::write(spool.join("newer.json.zst"), json(r#"{"record":{"version":9,"shape":"unknown"}}"#)).unwrap();
    fs::write(spool.join("escape.json.zst"), {
        let text = String::from_utf8(zstd::bulk::decompress(&packed, 1 << 20).unwrap()).unwrap();
        json(&text.replace(good.id.as_str(), "../../../x"))
    })
    .unwrap();
    fs::write(spool.join("notes.txt"), b"mine").unwrap();

    let store = history.open().unwrap();
    assert_eq!(store.notes().len(), 5, "{:?}", store.notes());
    assert_eq!(clean(&store).runs, 1);
    assert_eq!(store.texts_of("last").unwrap(), texts(&good));
    drop(store);
    let left: Vec<_> =
        files(&spool).iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let bad = ["cut", "empty", "escape", "garbage"].map(|name| format!("{name}.json.zst.bad"));
    let expected = [&bad[..], &["newer.json.zst", "notes.txt", "other.json.zst.bad"].map(String::from)].concat();
    assert_eq!(left, expected);
    assert_eq!(history.open().unwrap().notes().len(), 0);
}

/// A small file system of its own, if the test may mount one.
struct Mount(TempDir);

impl Mount {
    fn new(size: &str) -> Option<Self> {
        let folder = state();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("SKIPPED: this test needs the right to mount a tmpfs");
        None
    }

    fn remount(&self, option: &str) {
        let options = format!("remount,{option}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[test]
fn a_full_disk_loses_no_acknowledged_run() {
    let Some(mount) = Mount::new("6m") else { return };
    let path = mount.0.path().to_owned();
    in_time("a full disk".into(), move || {
        let options = HistoryOptions { answer_within: Duration::from_secs(10), ..HistoryOptions::default() };
        let history = History::new(&path, options);
        let mut kept = Vec::new();
        let mut refused = 0;
        for n in 0..2000 {
            // Records that do not compress.
            let mut record = run(n, Shape { nodes: 60, metrics: 20, moving: true });
            record.notes = (0..400).map(|i| Fingerprint::of(&format!("{n} {i}")).to_string()).collect();
            match history.remember(&record, &texts(&record)) {
                Remembered::Stored { .. } | Remembered::Spooled { .. } => kept.push(record.id),
                Remembered::Lost { reason } => {
                    assert!(reason.contains("no space"), "{reason}");
                    refused += 1;
                    if refused == 3 {
                        break;
                    }
                }
            }
        }
        assert_eq!(refused, 3, "the disk never got full");
        assert!(kept.len() > 20, "only {} runs were kept", kept.len());
        // With room again, all is there.
        let size = Command::new("mount").args(["-o", "remount,size=200m"]).arg(&path).status().unwrap();
        assert!(size.success());
        let store = history.open().unwrap();
        let there: Vec<RunId> = all(&store).into_iter().map(|record| record.id).collect();
        let lost: Vec<_> = kept.iter().filter(|id| !there.contains(id)).collect();
        assert!(lost.is_empty(), "{} of {} are lost: {:?}", lost.len(), kept.len(), store.notes());
        clean(&store);
    });
}

#[test]
fn what_may_only_be_read_is_read_from_a_copy() {
    let Some(mount) = Mount::new("64m") else { return };
    let history = History::new(mount.0.path(), HistoryOptions::default());
    let (first, second) = (run(1, Shape::default()), run(2, Shape::default()));
    stored(&history.remember(&first, &texts(&first)));
    crate::spool::write(&mount.0.path().join("spool"), &second, &texts(&second)).unwrap();
    mount.remount("ro");
    let Remembered::Lost { reason } = history.remember(&run(3, Shape::default()), &CanonicalTexts::new()) else {
        panic!("there is nowhere to keep it")
    };
    assert!(reason.contains("may only be read"), "{reason}");
    let mut store = history.open().unwrap();
    assert!(store.is_copy());
    assert_eq!(all(&store), [second, first], "what is spooled is shown too");
    clean(&store);
    assert!(matches!(store.import(&b""[..]), Err(HistoryError::ReadOnly { .. })));
    assert!(matches!(store.prune(&PrunePolicy::default(), sample::start(9)), Err(HistoryError::ReadOnly { .. })));
    assert!(matches!(
        store.append(&run(4, Shape::default()), &CanonicalTexts::new()),
        Err(HistoryError::ReadOnly { .. })
    ));
    drop(store);
    mount.remount("rw");
    assert_eq!(history.open().unwrap().runs(&RunFilter::default(), 9).unwrap().len(), 2);
}

#[test]
fn a_state_folder_that_is_a_file_loses_the_record_and_says_so() {
    let state = state();
    let path = state.path().join("file");
    fs::write(&path, "x").unwrap();
    let history = History::new(&path, HistoryOptions::default());
    assert!(matches!(history.remember(&run(1, Shape::default()), &CanonicalTexts::new()), Remembered::Lost { .. }));
}
