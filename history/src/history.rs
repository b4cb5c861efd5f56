//! The handle on a state folder: remembering never fails a run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;

use crate::block::CanonicalTexts;
use crate::error::HistoryError;
use crate::folder::Folder;
use crate::models::Models;
use crate::record::RunRecord;
use crate::repair::RepairReport;
use crate::spool;
use crate::store::{Access, Store};

/// How the history is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryOptions {
    /// How long to wait while another process holds the store.
    pub lock_wait: Duration,
    /// How long the store may take for one operation before it counts as stuck.
    pub answer_within: Duration,
    /// Memory for sled's page cache. sled's own default is 1 GiB.
    pub cache_bytes: u64,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self { lock_wait: Duration::from_secs(2), answer_within: Duration::from_secs(60), cache_bytes: 32 << 20 }
    }
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    /// It is in the store, on the disk.
    Stored {
        /// What a user should know although all went well, e.g. that a damaged store was set aside.
        notes: Vec<String>,
    },
    /// It waits in the spool folder, on the disk, and is merged when the store opens next.
    Spooled {
        /// Why it is not in the store.
        reason: String,
    },
    /// It could not be written anywhere. The run itself is not affected.
    Lost {
        /// Why.
        reason: String,
    },
}

/// The memory of a state folder. Holds nothing open: the store is opened for moments.
#[derive(Debug, Clone)]
pub struct History {
    folder: Folder,
    options: HistoryOptions,
}

impl History {
    /// The memory in `state`; nothing is read or written yet.
    pub fn new(state: impl Into<PathBuf>, options: HistoryOptions) -> Self {
        Self { folder: Folder::new(state.into()), options }
    }

    pub(crate) fn parts(&self) -> (Folder, HistoryOptions) {
        (self.folder.clone(), self.options.clone())
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        self.folder.state()
    }

    /// Keeps a record with the canonical texts of its fingerprints. Never fails and never panics: what cannot be stored is spooled.
    ///
    /// A record whose id is in the store already is taken for the same record and not stored again.
    pub fn remember(&self, record: &RunRecord, texts: &CanonicalTexts) -> Remembered {
        let reason = match self.store(record, texts) {
            Ok(notes) => return Remembered::Stored { notes },
            Err(error) => format!("{error}; {}", error.hint()),
        };
        match spool::write(&self.folder.spool(), record, texts) {
            Ok(_) => Remembered::Spooled { reason },
            Err(error) => Remembered::Lost { reason: format!("{reason}; and {error}") },
        }
    }

    fn store(&self, record: &RunRecord, texts: &CanonicalTexts) -> Result<Vec<String>, HistoryError> {
        let mut store = Store::open(&self.folder, &self.options, Access::Create)?;
        if let Err(error) = store.append(record, texts).and_then(|()| store.flush()) {
            let HistoryError::Damaged { detail, .. } = error else { return Err(error) };
            store = store.rebuild(&detail)?;
            store.append(record, texts)?;
            store.flush()?;
        }
        Ok(store.notes().to_vec())
    }

    /// Opens the store to read it or to tend it; spooled records are merged first. Where there is no history, an empty one is
    /// given and nothing is created. Where the folder may only be read, a copy in the temporary folder is opened.
    ///
    /// # Errors
    /// Another process holds the store for longer than [`HistoryOptions::lock_wait`]; a newer build wrote it; the system refuses.
    pub fn open(&self) -> Result<Store, HistoryError> {
        Store::open(&self.folder, &self.options, Access::Existing)
    }

    /// As [`Self::open`], and makes the store if there is none: to import into.
    ///
    /// # Errors
    /// As [`Self::open`], and where the folder cannot be written.
    pub fn create(&self) -> Result<Store, HistoryError> {
        Store::open(&self.folder, &self.options, Access::Create)
    }

    /// The cost models of an environment.
    pub fn models(&self, environment: &str) -> Models {
        Models::of(&self.folder.root(), environment)
    }

    /// Checks the store and rebuilds it from what can be read if anything is wrong. The old store is set aside, not deleted.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn repair(&self) -> Result<RepairReport, HistoryError> {
        crate::repair::repair(&self.folder, &self.options)
    }
}

/// A time as part of a file name.
pub(crate) fn stamp() -> String {
    Utc::now().format("%Y%m%dT%H%M%S").to_string()
}
