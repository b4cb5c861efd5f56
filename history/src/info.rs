//! What a store holds and what it takes.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::block;
use crate::error::HistoryError;
use crate::folder::bytes_in;
use crate::spool;
use crate::store::{Entry, Store};
use crate::trees::{Name, STORE_VERSION};

/// What a store holds and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// The folder of the store in use; a temporary one if it is a copy.
    pub path: PathBuf,
    /// Version of its layout.
    pub version: u32,
    /// Runs.
    pub runs: u64,
    /// Observations.
    pub observations: u64,
    /// Start of the oldest run.
    pub oldest: Option<DateTime<Utc>>,
    /// Start of the newest run.
    pub newest: Option<DateTime<Utc>>,
    /// What each tree holds.
    pub trees: Vec<TreeInfo>,
    /// Bytes of the store's files. More than the trees hold: sled gives space back only when the store is rewritten.
    pub bytes_on_disk: u64,
    /// Records that wait in the spool folder.
    pub spooled: u64,
    /// Stores that were set aside as damaged, with their bytes.
    pub set_aside: Vec<(PathBuf, u64)>,
}

/// What a tree holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeInfo {
    /// Name of the tree.
    pub name: &'static str,
    /// Entries in it.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl Store {
    /// Counts and sizes; reads the whole store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn info(&self) -> Result<StoreInfo, HistoryError> {
        let trees = self.trees()?;
        let mut sizes = Vec::new();
        for name in Name::ALL {
            let mut size = TreeInfo { name: name.as_str(), entries: 0, bytes: 0 };
            for row in trees.tree(name).rows() {
                let (key, value) = row?;
                size.entries += 1;
                size.bytes += (key.len() + value.len()) as u64;
            }
            sizes.push(size);
        }
        let mut observations = 0;
        let mut runs = 0;
        let mut times: Option<(DateTime<Utc>, DateTime<Utc>)> = None;
        for row in trees.tree(Name::Runs).rows() {
            runs += 1;
            // One that cannot be read is `verify`'s to tell.
            if let Ok(entry) = block::unseal_json::<Entry>(&row?.1) {
                observations += entry.observations;
                let at = entry.summary.started_at;
                times = Some((times.map_or(at, |times| times.0), at));
            }
        }
        let set_aside = self.folder.damaged().into_iter().map(|path| {
            let bytes = bytes_in(&path);
            (path, bytes)
        });
        Ok(StoreInfo {
            path: trees.path().to_owned(),
            version: STORE_VERSION,
            runs,
            observations,
            oldest: times.map(|times| times.0),
            newest: times.map(|times| times.1),
            trees: sizes,
            bytes_on_disk: bytes_in(trees.path()),
            spooled: spool::waiting(&self.folder.spool()).len() as u64,
            set_aside: set_aside.collect(),
        })
    }
}
