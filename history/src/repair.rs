//! Rebuilding a store from what can be read of it.
//!
//! Runs are the truth, the rest is derived from them. The blocks of runs and texts are gathered from the raw bytes of the store's
//! files, so it does not matter whether sled can open them, nor which of its pages are broken.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::append::GROUP;
use crate::block::{self, CanonicalTexts, Carved, Kind, Unreadable};
use crate::error::HistoryError;
use crate::folder::{Current, Folder};
use crate::history::{HistoryOptions, stamp};
use crate::record::Fingerprint;
use crate::store::{Access, Store};
use crate::trees::{Changes, Trees};

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReport {
    /// False if nothing was wrong and nothing was changed.
    pub rebuilt: bool,
    /// Runs in the store now.
    pub runs: u64,
    /// What was wrong.
    pub problems: Vec<String>,
    /// What was done about it.
    pub notes: Vec<String>,
}

pub(crate) fn repair(folder: &Folder, options: &HistoryOptions) -> Result<RepairReport, HistoryError> {
    // Opening rebuilds a store that does not open; what is wrong deeper down, `verify` finds.
    let store = Store::open(folder, options, Access::Create)?;
    let opened_with: Vec<String> = store.notes().to_vec();
    let found = store.verify()?;
    let problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
    if problems.is_empty() {
        return Ok(RepairReport { rebuilt: !opened_with.is_empty(), runs: found.runs, problems, notes: opened_with });
    }
    let store = store.rebuild(&problems[0])?;
    let runs = store.verify()?.runs;
    let notes = opened_with.iter().chain(store.notes()).cloned().collect();
    Ok(RepairReport { rebuilt: true, runs, problems, notes })
}

/// Builds a new store from what can be read of the ones there are, makes it the one in use and sets the old ones aside. Nothing is
/// deleted, and a crash on the way leaves things as they were.
pub(crate) fn rebuild(
    folder: &Folder,
    options: &HistoryOptions,
    why: &str,
    lock: Option<File>,
) -> Result<Store, HistoryError> {
    if let Current::Store(current) = folder.current()? {
        folder.clean(current)?;
    }
    let old = folder.stores()?;
    let mut carved = Carved::default();
    for &store in &old {
        let path = folder.store(store);
        carve_files(&path, &mut carved).map_err(|source| HistoryError::io("read", &path, source))?;
    }
    let tail = folder.tail();
    if let Ok(kept) = File::open(&tail) {
        carved.carve(kept).map_err(|source| HistoryError::io("read", &tail, source))?;
    }
    let number = old.last().copied().unwrap_or(0) + 1;
    let trees = Trees::open(&folder.store(number), options.cache_bytes, options.answer_within)?;
    let mut store = Store::of(trees, folder, number, options, lock);
    let outcome = refill(&mut store, &carved)?;

    // Runs that are lost for good must not look lost again at each opening.
    let acknowledged = folder.appended().unwrap_or(0);
    let mut changes = Changes::default();
    Trees::set_appended(&mut changes, store.trees()?.appended()?.max(acknowledged));
    store.trees()?.commit(&changes)?;
    store.flush()?;
    folder.set_current(number)?;
    drop(fs::remove_file(tail));
    let stamp = stamp();
    for store_aside in old {
        let to = folder.set_aside(store_aside, &stamp)?;
        store.note(format!(
            "the history was damaged ({why}); it was rebuilt with {outcome}, and the old one is at `{}`",
            to.display()
        ));
    }
    Ok(store)
}

/// Appends what was carved; returns what that was, in words.
fn refill(store: &mut Store, carved: &Carved) -> Result<String, HistoryError> {
    let (texts, _) = carved.whole(Kind::Texts);
    let mut packed_texts: HashMap<Fingerprint, Vec<u8>> = HashMap::new();
    for packed in texts {
        if let Ok(texts) = block::unpack_texts(&packed) {
            packed_texts.insert(block::texts_name(&texts), packed);
        }
    }
    let (runs, mut unreadable) = carved.whole(Kind::Run);
    let mut newer = 0u64;
    let mut recovered = 0;
    let mut group = Vec::with_capacity(GROUP);
    for packed in runs {
        match block::unpack_run(&packed) {
            Ok((record, name)) => {
                let texts = name.and_then(|name| packed_texts.get(&name));
                let texts = texts.and_then(|packed| block::unpack_texts(packed).ok());
                group.push((record, texts.unwrap_or_else(CanonicalTexts::new)));
            }
            Err(Unreadable::Newer(_)) => newer += 1,
            Err(Unreadable::Broken(_)) => unreadable += 1,
        }
        if group.len() == GROUP {
            recovered += store.append_all(&std::mem::take(&mut group))?;
        }
    }
    recovered += store.append_all(&group)?;
    let mut words = format!("{recovered} runs");
    if unreadable > 0 {
        words += &format!(", {unreadable} could not be read");
    }
    if newer > 0 {
        words += &format!(", {newer} are of a newer version");
    }
    Ok(words)
}

fn carve_files(folder: &Path, carved: &mut Carved) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            carve_files(&entry.path(), carved)?;
        } else if entry.file_type()?.is_file() {
            carved.carve(File::open(entry.path())?)?;
        }
    }
    Ok(())
}
