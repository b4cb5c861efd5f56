//! A claim on a target: the right to write it, and with it the duty to clear up after a run that died there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use sparklet_core::{Error, ErrorKind, Result};
use sparklet_history::RunId;

use super::disk::Disk;
use super::layout::{DataFile, Layout, ending};
use super::place::{Place, unwritable};
use crate::definition::Mode;
use crate::lock::{Attempt, LockFile, Owner};

/// The right of one run to write one target. What is staged and not published goes away with it.
#[derive(Debug)]
pub(crate) struct Claim {
    place: Place,
    run: String,
    disk: Disk,
    _lock: LockFile,
}

/// What came of an attempt to claim.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The target is ours to write.
    Held(Claim),
    /// A live run has it; which, if it tells.
    Busy(Option<Owner>),
}

impl Claim {
    /// Claims `target` (a path as defined) for `owner`, and completes or undoes what a dead run left there.
    pub(crate) fn take(disk: &Disk, target: &Path, owner: &Owner) -> Result<Self> {
        let place = Place::resolve(target)?;
        let shown = place.path();
        match Self::attempt(disk, place, owner)? {
            Taken::Held(claim) => Ok(claim),
            Taken::Busy(other) => {
                let who = other.map_or_else(|| "another run".to_owned(), |o| o.to_string());
                Err(Error::new(ErrorKind::Output, format!("{who} is writing the output `{}`", shown.display()))
                    .with_hint("wait until it has ended, or give the outputs different paths"))
            }
        }
    }

    /// The same for a place that is known; a live run that has it is no error.
    pub(crate) fn attempt(disk: &Disk, place: Place, owner: &Owner) -> Result<Taken> {
        let failed = |what: &str, e: io::Error| unwritable(&place.path(), what, &e);
        match LockFile::try_acquire(&place.lock(), owner).map_err(|e| failed("cannot write the output", e))? {
            Attempt::Held(lock) => {
                recover(disk, &place).map_err(|e| failed("cannot clear up after an interrupted run at", e))?;
                Ok(Taken::Held(Self { place, run: owner.run.clone(), disk: disk.clone(), _lock: lock }))
            }
            Attempt::Busy(other) => Ok(Taken::Busy(other)),
        }
    }

    /// The place that is claimed.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where the next version is written: a file or a folder beside the target.
    pub(crate) fn stage(&self) -> PathBuf {
        self.place.next(&self.run)
    }

    /// Publishes what is staged, in one step that readers see whole or not at all. On an error before that step the old
    /// version stands as it was. `files` are the staged files as paths in the folder (of a single file: not used), `rows` the
    /// rows in them: none, and there is nothing to add to what is there.
    pub(crate) fn publish(&self, layout: &Layout, files: &[String], rows: u64) -> Result<()> {
        let target = self.place.path();
        let old = layout.inspect(&self.place)?;
        if rows == 0 && layout.mode != Mode::Replace && target.exists() {
            self.discard();
            return Ok(());
        }
        let failed = |e: io::Error| unwritable(&target, "cannot publish", &e);
        let staged = self.stage();
        if layout.sink.single_file {
            self.keep_permissions(&staged).map_err(failed)?;
            self.disk.sync(&staged).map_err(failed)?;
            self.disk.rename(&staged, &target).map_err(failed)?;
        } else {
            self.disk.make_folders(&staged).map_err(failed)?;
            if layout.mode != Mode::Replace {
                let added =
                    if layout.mode == Mode::Append { self.unique(files).map_err(failed)? } else { files.to_vec() };
                same_endings(&target, &old, &added)?;
                self.keep(layout.mode, &old, &added).map_err(failed)?;
            }
            self.keep_permissions(&staged).map_err(failed)?;
            self.disk.sync_folders(&staged).map_err(failed)?;
            self.swap_folders(&staged, &target).map_err(failed)?;
        }
        self.disk
            .sync(self.place.parent())
            .map_err(|e| unwritable(&target, "published, but cannot make durable", &e))?;
        // Readers see the new version. What cannot be removed now is removed by the next run that claims this target.
        self.discard();
        Ok(())
    }

    /// Removes what stands beside the target for this run, the record of a swap before what it speaks of. A swap that could
    /// neither be completed nor undone is left whole for the next claim.
    pub(crate) fn discard(&self) {
        let swap = self.place.swap();
        if swap.exists() && !self.place.path().exists() {
            return;
        }
        let removed = self.disk.remove(&swap).and_then(|()| {
            // The claim covers all of them.
            self.place.leftovers()?.iter().try_for_each(|path| self.disk.remove(path))
        });
        if let Err(error) = removed {
            tracing::debug!(path = %self.place.path().display(), %error, "left for the next run to remove");
        }
    }

    /// Gives staged files names that no other run gives, and returns the new names.
    fn unique(&self, files: &[String]) -> io::Result<Vec<String>> {
        let staged = self.stage();
        files
            .iter()
            .map(|file| {
                let (folder, name) = file.rsplit_once('/').map_or(("", file.as_str()), |(f, n)| (f, n));
                let (stem, rest) = name.split_at(name.len() - ending(name).len());
                let stem = stem.strip_suffix('.').unwrap_or(stem);
                let dot = if rest.is_empty() { "" } else { "." };
                let name = format!("{stem}-{}{dot}{rest}", self.run);
                let unique = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                self.disk.rename(&staged.join(file), &staged.join(&unique))?;
                Ok(unique)
            })
            .collect()
    }

    /// Takes the old files that stay over into the next version.
    fn keep(&self, mode: Mode, old: &[DataFile], added: &[String]) -> io::Result<()> {
        let (staged, target) = (self.stage(), self.place.path());
        let replaced: BTreeSet<&Path> = match mode {
            Mode::Append | Mode::Replace => BTreeSet::new(),
            Mode::ReplacePartitions | Mode::ReplaceInterval => {
                added.iter().filter_map(|file| Path::new(file).parent()).collect()
            }
        };
        for file in old.iter().filter(|file| !replaced.contains(file.partition.as_path())) {
            self.disk.make_folders(&staged.join(&file.partition))?;
            self.disk.link_or_copy(&target.join(&file.path), &staged.join(&file.path))?;
        }
        Ok(())
    }

    fn keep_permissions(&self, staged: &Path) -> io::Result<()> {
        match std::fs::metadata(self.place.path()) {
            Ok(old) => self.disk.permissions(staged, old.permissions()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Puts the complete folder `staged` at `target`. Where the file system cannot exchange two names, a record of the
    /// intention makes two renames as good as one for everyone but a reader who looks just between them.
    fn swap_folders(&self, staged: &Path, target: &Path) -> io::Result<()> {
        if !target.exists() {
            return self.disk.rename(staged, target);
        }
        match self.disk.exchange(staged, target) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            done => return done,
        }
        let (old, swap) = (self.place.old(&self.run), self.place.swap());
        self.disk.write(&swap, self.run.as_bytes())?;
        self.disk.sync(self.place.parent())?;
        self.disk.rename(target, &old)?;
        self.disk.rename(staged, target).inspect_err(|_| {
            // Back to the old version; if that fails too, the next claim completes the swap.
            if let Err(error) = self.disk.rename(&old, target) {
                tracing::warn!(path = %target.display(), %error, "the old version waits for the next run");
            }
        })?;
        self.disk.sync(self.place.parent())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Completes or undoes what a dead run began at `place`, then removes what it left. Only for the holder of the lock.
fn recover(disk: &Disk, place: &Place) -> io::Result<()> {
    let (target, swap) = (place.path(), place.swap());
    if let Ok(text) = std::fs::read_to_string(&swap) {
        // A record that is cut short was written by a run that died before it moved anything.
        if let Ok(run) = text.parse::<RunId>() {
            let (next, old) = (place.next(run.as_str()), place.old(run.as_str()));
            if !target.exists() && old.exists() {
                disk.rename(if next.exists() { &next } else { &old }, &target)?;
                disk.sync(place.parent())?;
            }
        }
        // Before the rest: without the record, `…old` is known to be of no use.
        disk.remove_file(&swap)?;
    }
    for path in place.leftovers()? {
        disk.remove(&path)?;
    }
    Ok(())
}

/// A folder is read as one table: all its files must be of one kind.
fn same_endings(target: &Path, old: &[DataFile], added: &[String]) -> Result<()> {
    let Some(new) = added.first().map(|name| ending(name)) else { return Ok(()) };
    let differs = |file: &&DataFile| file.path.to_str().is_some_and(|name| ending(name) != new);
    match old.iter().find(differs) {
        None => Ok(()),
        Some(file) => {
            let what = format!(
                "the output `{}` holds `{}`, but new files end in `.{new}`",
                target.display(),
                file.path.display()
            );
            Err(Error::new(ErrorKind::Output, what)
                .with_hint("keep `format` and `compression` as they were, or use `mode = \"replace\"` once"))
        }
    }
}
