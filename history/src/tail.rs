//! What sled may destroy while it opens, kept until it is known that it did not.
//!
//! When sled 0.34 opens a database it reads its log from the last snapshot on. Where a message does not have the right checksum it
//! takes that for the end of the log, and overwrites what follows: right after a crash in the middle of a write, and wrong where
//! a disk has spoilt a byte. So the segments that it reads are copied first. If the store then proves to be missing runs, they are in the copy.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// sled's segments, and the header of one: checksum 4, log sequence number 8, stable number 8.
const SEGMENT: u64 = 512 << 10;
const HEADER: usize = 20;
/// The numbers are stored with these bits flipped.
const FLIPPED: u64 = 0x7FFF_FFFF_FFFF_FFFF;

/// Adds what sled may overwrite in the database at `store` to the file `to`.
pub(crate) fn keep(store: &Path, to: &Path) -> io::Result<()> {
    let mut log = match File::open(store.join("db")) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let from = last_snapshot(store) / SEGMENT * SEGMENT;
    let mut kept = None;
    for segment in 0..log.metadata()?.len().div_ceil(SEGMENT) {
        log.seek(SeekFrom::Start(segment * SEGMENT))?;
        let mut header = [0; HEADER];
        let empty = log.read_exact(&mut header).is_err() || header == [0; HEADER];
        if !empty && number(&header) >= from {
            log.seek(SeekFrom::Start(segment * SEGMENT))?;
            let kept = match &mut kept {
                Some(file) => file,
                None => kept.insert(OpenOptions::new().create(true).append(true).open(to)?),
            };
            io::copy(&mut log.by_ref().take(SEGMENT), kept)?;
        }
    }
    Ok(())
}

/// Number of a segment in the log; one with a broken header says anything, and is then kept or not overwritten either.
fn number(header: &[u8; HEADER]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[4..12]);
    u64::from_le_bytes(bytes) ^ FLIPPED
}

/// Where the last snapshot ends in the log: its name says it. Files of snapshots that a crash left half-written are removed: sled
/// would take them for the last.
fn last_snapshot(store: &Path) -> u64 {
    let mut last = 0;
    for entry in fs::read_dir(store).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(end) = name.to_str().and_then(|name| name.strip_prefix("snap.")) else { continue };
        if end.ends_with(".generating") {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::debug!("failed to remove `{}`: {error}", entry.path().display());
            }
        } else if let Ok(end) = u64::from_str_radix(end, 16) {
            last = last.max(end);
        }
    }
    last
}
