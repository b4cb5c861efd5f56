//! Records that wait for the store: one file a run, each complete by itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::block::{self, CanonicalTexts, Unreadable, Version};
use crate::error::HistoryError;
use crate::folder;
use crate::record::RunRecord;

const SUFFIX: &str = ".json.zst";

#[derive(Serialize)]
struct Written<'a> {
    record: &'a RunRecord,
    texts: &'a CanonicalTexts,
}

#[derive(Deserialize)]
struct Read<R> {
    record: R,
    #[serde(default)]
    texts: CanonicalTexts,
}

/// Puts a record where a later run finds it; returns the file.
pub(crate) fn write(spool: &Path, record: &RunRecord, texts: &CanonicalTexts) -> Result<PathBuf, HistoryError> {
    let path = spool.join(format!("{}{SUFFIX}", record.id));
    let packed = block::pack(&Written { record, texts }).map_err(io::Error::other);
    let written = packed.and_then(|packed| {
        fs::create_dir_all(spool)?;
        folder::replace(&path, &packed)
    });
    written.map_err(|source| HistoryError::io("write", &path, source))?;
    Ok(path)
}

/// Reads a spooled record; the outer error is one of the system, the inner one of the content.
pub(crate) fn read(path: &Path) -> io::Result<Result<(RunRecord, CanonicalTexts), Unreadable>> {
    Ok(parse(&fs::read(path)?))
}

fn parse(packed: &[u8]) -> Result<(RunRecord, CanonicalTexts), Unreadable> {
    let json = block::unpack(packed)?;
    let Read { record, texts } = block::from_versioned_json(&json, |json| {
        serde_json::from_slice::<Read<Version>>(json).ok().map(|read| read.record)
    })?;
    Ok((record, texts))
}

/// Files that wait, in order of their names.
pub(crate) fn waiting(spool: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(spool).into_iter().flatten().flatten();
    let is_record = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.ends_with(SUFFIX) && !name.starts_with('.'))
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_record).collect();
    files.sort();
    files
}

/// Keeps a file that is no record from being tried again and again, without losing it.
pub(crate) fn reject(path: &Path) {
    let mut to = path.as_os_str().to_owned();
    to.push(".bad");
    if let Err(error) = fs::rename(path, &to) {
        tracing::debug!("failed to rename `{}`: {error}", path.display());
    }
}

/// Removes what killed writers left. A writer needs milliseconds; an hour is far beyond.
pub(crate) fn clean(spool: &Path) {
    const OLD: Duration = Duration::from_secs(3600);
    for entry in fs::read_dir(spool).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let temporary = name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"));
        let modified = entry.metadata().and_then(|meta| meta.modified());
        let old = modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > OLD));
        if temporary && old {
            // Another process may have removed it.
            let _ = fs::remove_file(entry.path());
        }
    }
}
