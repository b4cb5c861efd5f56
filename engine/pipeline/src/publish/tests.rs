//! Publishing stopped, failed and raced at every point, against a model of what readers may see.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use sparklet_core::ErrorKind;
use sparklet_core::sink::{SinkFormat, SinkSpec};
use sparklet_history::RunId;

use super::disk::{Fault, Op};
use super::{Claim, Disk, Layout};
use crate::definition::Mode;
use crate::lock::Owner;

/// Content of a target by path; of a single file: by the empty path.
type Version = BTreeMap<String, String>;

fn owner(n: u64) -> Owner {
    Owner::here(RunId::from_bits(n).as_str(), "p")
}

fn layout(mode: Mode, single_file: bool, partitioned: bool) -> Layout {
    let partition_by = if partitioned { vec!["k".to_owned()] } else { Vec::new() };
    Layout { sink: SinkSpec { format: SinkFormat::Parquet, single_file, partition_by, compression: None }, mode }
}

fn version(files: &[(&str, &str)]) -> Version {
    files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect()
}

fn see(path: &Path) -> Option<Version> {
    if path.is_file() {
        return Some(version(&[("", &fs::read_to_string(path).unwrap())]));
    }
    fn walk(root: &Path, inner: &Path, found: &mut Version) {
        for entry in fs::read_dir(root.join(inner)).unwrap() {
            let path = inner.join(entry.unwrap().file_name());
            if root.join(&path).is_dir() {
                walk(root, &path, found);
            } else {
                found.insert(path.to_str().unwrap().to_owned(), fs::read_to_string(root.join(&path)).unwrap());
            }
        }
    }
    path.is_dir().then(|| {
        let mut found = Version::new();
        walk(path, Path::new(""), &mut found);
        found
    })
}

/// Writes `files` to where `claim` stages and publishes them.
fn publish(claim: &Claim, layout: &Layout, files: &Version) -> sparklet_core::Result<()> {
    let stage = claim.stage();
    if layout.sink.single_file {
        fs::write(&stage, &files[""]).unwrap();
    } else {
        fs::create_dir_all(&stage).unwrap();
        for (path, text) in files {
            fs::create_dir_all(stage.join(path).parent().unwrap()).unwrap();
            fs::write(stage.join(path), text).unwrap();
        }
    }
    claim.publish(layout, &files.keys().cloned().collect::<Vec<_>>(), files.len() as u64)
}

/// What `publish` makes of `old`.
fn model(old: Option<&Version>, new: &Version, layout: &Layout, run: u64) -> Version {
    let partition = |path: &str| path.rsplit_once('/').map(|(p, _)| p.to_owned()).unwrap_or_default();
    let old = old.cloned().unwrap_or_default();
    match layout.mode {
        Mode::Replace => new.clone(),
        Mode::Append => {
            let id = RunId::from_bits(run);
            let unique = |path: &String| path.replace(".parquet", &format!("-{id}.parquet"));
            old.into_iter().chain(new.iter().map(|(path, text)| (unique(path), text.clone()))).collect()
        }
        Mode::ReplacePartitions | Mode::ReplaceInterval => {
            let touched: Vec<String> = new.keys().map(|p| partition(p)).collect();
            let kept = old.into_iter().filter(|(path, _)| !touched.contains(&partition(path)));
            kept.chain(new.clone()).collect()
        }
    }
}

/// Dies before operation `at`, and `lacks` what a plain file system lacks. Counts operations.
fn dying(at: usize, lacks: &'static [Op], count: &Arc<AtomicUsize>) -> Disk {
    let count = Arc::clone(count);
    let fault: Fault = Arc::new(move |op, _| {
        if count.fetch_add(1, Ordering::SeqCst) >= at {
            return Err(io::Error::other("killed"));
        }
        if lacks.contains(&op) { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
    });
    Disk::with_faults(fault)
}

/// A folder, in memory where there is one: thousands of them are made.
fn temp() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Works, without fsync.
fn fine() -> Disk {
    Disk::with_faults(Arc::new(|_, _| Ok(())))
}

struct Case {
    layout: Layout,
    old: Option<Version>,
    new: Version,
}

fn cases() -> Vec<Case> {
    let flat = version(&[("a.parquet", "old a"), ("b.parquet", "old b")]);
    let parts = version(&[("k=1/a.parquet", "old 1"), ("k=1/b.parquet", "old 1b"), ("k=2/a.parquet", "old 2")]);
    let new_parts = version(&[("k=2/a.parquet", "new 2"), ("k=3/a.parquet", "new 3")]);
    let new = version(&[("a.parquet", "new a"), ("c.parquet", "new c")]);
    let single = |text: &str| version(&[("", text)]);
    let case = |layout, old, new: &Version| Case { layout, old, new: new.clone() };
    vec![
        case(layout(Mode::Replace, true, false), None, &single("new")),
        case(layout(Mode::Replace, true, false), Some(single("old")), &single("new")),
        case(layout(Mode::Replace, false, false), None, &new),
        case(layout(Mode::Replace, false, false), Some(flat.clone()), &new),
        case(layout(Mode::Replace, false, false), Some(flat.clone()), &Version::new()),
        case(layout(Mode::Append, false, false), None, &new),
        case(layout(Mode::Append, false, false), Some(flat), &new),
        case(layout(Mode::Append, false, true), Some(parts.clone()), &new_parts),
        case(layout(Mode::ReplacePartitions, false, true), None, &new_parts),
        case(layout(Mode::ReplacePartitions, false, true), Some(parts.clone()), &new_parts),
        case(layout(Mode::ReplacePartitions, false, true), Some(parts), &Version::new()),
    ]
}

fn write_version(target: &Path, old: Option<&Version>, single: bool) {
    let Some(old) = old else { return };
    for (path, text) in old {
        let path = if single { target.to_owned() } else { target.join(path) };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn nothing_beside(target: &Path) {
    for entry in fs::read_dir(target.parent().unwrap()).unwrap() {
        let name = entry.unwrap().file_name();
        assert_eq!(name, target.file_name().unwrap(), "left behind");
    }
}

const LACKS: [&[Op]; 3] = [&[], &[Op::Exchange], &[Op::Exchange, Op::Link]];

#[test]
fn killed_anywhere_the_old_or_the_new_version_is_whole() {
    let mut points = 0;
    for case in cases() {
        for lacks in LACKS {
            let mut at = 0;
            loop {
                // Recovery may be killed too: at its first, second, … operation.
                let mut again = 0;
                let ended = loop {
                    let (ended, recovered) = kill_twice(&case, lacks, at, again);
                    points += 1;
                    if ended || recovered {
                        break ended;
                    }
                    again += 1;
                };
                if ended {
                    break;
                }
                at += 1;
            }
        }
    }
    assert!(points > 500, "{points}");
}

/// Dies at operation `at` of publishing, then at operation `again` of recovery. Says which of the two came to its end before.
fn kill_twice(case: &Case, lacks: &'static [Op], at: usize, again: usize) -> (bool, bool) {
    let dir = temp();
    let target = dir.path().join("out");
    write_version(&target, case.old.as_ref(), case.layout.sink.single_file);
    let new = model(case.old.as_ref(), &case.new, &case.layout, 1);
    let place = format!("{:?} {lacks:?} at {at}, {again}", case.layout);

    let count = Arc::new(AtomicUsize::new(0));
    let claim = Claim::take(&dying(at, lacks, &count), &target, &owner(1)).unwrap();
    let published = publish(&claim, &case.layout, &case.new);
    drop(claim);
    let ended = count.load(Ordering::SeqCst) <= at;
    let seen = see(&target);
    let between_renames = seen.is_none() && lacks.contains(&Op::Exchange);
    assert!(seen == case.old || seen.as_ref() == Some(&new) || between_renames, "{place}: {seen:?}");
    assert!(published.is_err() || seen.as_ref() == Some(&new), "{place}: {seen:?}");

    let count = Arc::new(AtomicUsize::new(0));
    drop(Claim::take(&dying(again, lacks, &count), &target, &owner(2)));
    let recovered = count.load(Ordering::SeqCst) <= again;

    let claim = Claim::take(&fine(), &target, &owner(3)).unwrap();
    let seen = see(&target);
    assert!(seen == case.old || seen.as_ref() == Some(&new), "{place}: {seen:?}");
    assert!(published.is_err() || seen.as_ref() == Some(&new), "{place}: {seen:?}");
    publish(&claim, &case.layout, &case.new).unwrap();
    assert_eq!(see(&target), Some(model(seen.as_ref(), &case.new, &case.layout, 3)), "{place}");
    drop(claim);
    nothing_beside(&target);
    (ended, recovered)
}

#[test]
fn a_full_disk_leaves_the_old_version_and_no_rest() {
    for case in cases() {
        for lacks in LACKS {
            for at in 0.. {
                let dir = temp();
                let target = dir.path().join("out");
                write_version(&target, case.old.as_ref(), case.layout.sink.single_file);
                let new = model(case.old.as_ref(), &case.new, &case.layout, 1);
                let count = Arc::new(AtomicUsize::new(0));
                let fault: Fault = {
                    let count = Arc::clone(&count);
                    Arc::new(move |op, _| {
                        let writes = !matches!(op, Op::RemoveFile | Op::RemoveFolder);
                        if writes && count.fetch_add(1, Ordering::SeqCst) == at {
                            return Err(io::ErrorKind::StorageFull.into());
                        }
                        if lacks.contains(&op) { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
                    })
                };
                let claim = Claim::take(&Disk::with_faults(fault), &target, &owner(1)).unwrap();
                let published = publish(&claim, &case.layout, &case.new);
                drop(claim);
                nothing_beside_or_empty(&target);
                match published {
                    Ok(()) => assert_eq!(see(&target), Some(new)),
                    Err(error) => {
                        assert_eq!(error.kind, ErrorKind::Output);
                        assert!(error.hint.as_ref().unwrap().contains("free some space"), "{error:?}");
                        // Only the last fsync comes after the switch.
                        let seen = see(&target);
                        let durable =
                            error.message.starts_with("published") || error.message.contains("cannot publish");
                        assert!(seen == case.old || (durable && seen == Some(new)), "{error}: {seen:?}");
                    }
                }
                if count.load(Ordering::SeqCst) <= at {
                    break;
                }
            }
        }
    }
}

#[test]
fn one_target_has_one_writer_and_readers_see_one_version() {
    let dir = temp();
    let target = dir.path().join("out");
    let (done, published, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for writer in 0..2_u64 {
            let (target, published, refused, done) = (&target, &published, &refused, &done);
            scope.spawn(move || {
                for round in 0..60 {
                    let id = writer * 1000 + round;
                    match Claim::take(&Disk::default(), target, &owner(id)) {
                        Ok(claim) => {
                            let text = id.to_string();
                            let files = version(&[("a.parquet", &text), ("b.parquet", &text), ("c.parquet", &text)]);
                            publish(&claim, &layout(Mode::Replace, false, false), &files).unwrap();
                            published.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            assert!(error.message.contains("is writing"), "{error}");
                            refused.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
                done.store(true, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            use rustix::fs::{CWD, Dir, Mode as Bits, OFlags, openat};
            while !done.load(Ordering::SeqCst) {
                // An open folder stays the version that it was when opened; its files go one by one once it is the old one.
                let Ok(folder) = openat(CWD, &target, OFlags::RDONLY | OFlags::DIRECTORY, Bits::empty()) else {
                    continue;
                };
                let mut texts = Vec::new();
                for entry in Dir::read_from(&folder).unwrap() {
                    let Ok(entry) = entry else { continue };
                    let name = entry.file_name();
                    if name.to_bytes().starts_with(b".") {
                        continue;
                    }
                    if let Ok(file) = openat(&folder, name, OFlags::RDONLY, Bits::empty()) {
                        texts.push(io::read_to_string(fs::File::from(file)).unwrap());
                    }
                }
                texts.dedup();
                assert!(texts.len() <= 1, "two versions at once: {texts:?}");
            }
        });
    });
    assert_eq!(published.load(Ordering::SeqCst) + refused.load(Ordering::SeqCst), 120);
    assert_eq!(see(&target).unwrap().len(), 3);
    nothing_beside(&target);
}

#[cfg(unix)]
#[test]
fn links_and_permissions_of_the_old_version_stay() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("real", &link).unwrap();
    let claim = Claim::take(&Disk::default(), &link, &owner(1)).unwrap();
    publish(&claim, &layout(Mode::Replace, false, false), &version(&[("a.parquet", "new")])).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(see(&real), Some(version(&[("a.parquet", "new")])));
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o750);
}

#[test]
fn kept_files_of_another_ending_are_refused() {
    let dir = temp();
    let target = dir.path().join("out");
    let mut csv = layout(Mode::Append, false, false);
    csv.sink.format = SinkFormat::Csv;
    write_version(&target, Some(&version(&[("a.csv.gz", "old")])), false);
    let claim = Claim::take(&Disk::default(), &target, &owner(1)).unwrap();
    let error = publish(&claim, &csv, &version(&[("b.csv", "new")])).unwrap_err();
    assert!(error.message.contains("holds `a.csv.gz`, but new files end in `.csv`"), "{error}");
    drop(claim);
    assert_eq!(see(&target), Some(version(&[("a.csv.gz", "old")])));
    nothing_beside(&target);
}

/// One publish of a sequence: keys of the partitions it writes, and where it dies, if it does.
fn sequence() -> impl Strategy<Value = Vec<(Vec<u8>, Option<usize>)>> {
    prop::collection::vec((prop::collection::vec(0_u8..4, 0..4), prop::option::of(0_usize..20)), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any sequence of publishes, some of which die, leaves what the model says: each was done whole or not at all.
    #[test]
    fn sequences_of_publishes_follow_the_model(
        mode in prop::sample::select(vec![Mode::Replace, Mode::Append, Mode::ReplacePartitions]),
        lacks in prop::sample::select(LACKS.to_vec()),
        steps in sequence(),
    ) {
        let dir = temp();
        let target = dir.path().join("out");
        let layout = layout(mode, false, true);
        let mut expected: Option<Version> = None;
        for (n, (keys, dies)) in steps.into_iter().enumerate() {
            let run = n as u64 + 1;
            let files: Version =
                keys.iter().map(|k| (format!("k={k}/part-0.parquet"), format!("run {run} key {k}"))).collect();
            let new = model(expected.as_ref(), &files, &layout, run);
            let count = Arc::new(AtomicUsize::new(0));
            let claim = Claim::take(&fine(), &target, &owner(1000 + run)).unwrap();
            prop_assert_eq!(&see(&target), &expected);
            drop(claim);
            let disk = dying(dies.unwrap_or(usize::MAX), lacks, &count);
            let published = match Claim::take(&disk, &target, &owner(run)) {
                Ok(claim) => publish(&claim, &layout, &files).is_ok(),
                Err(_) => false,
            };
            drop(Claim::take(&fine(), &target, &owner(2000 + run)).unwrap());
            let seen = see(&target);
            if published {
                prop_assert_eq!(&seen, &Some(new));
            } else {
                prop_assert!(seen == expected || seen == Some(new), "{:?}", seen);
            }
            expected = seen;
            nothing_beside_or_empty(&target);
        }
    }
}

fn nothing_beside_or_empty(target: &Path) {
    if target.exists() {
        nothing_beside(target);
    } else {
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 0);
    }
}
