//! The file-system operations that publishing is made of, each a place where a test can make it fail or stop.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// A name is given to something else.
    Rename,
    /// Two names change places, at once.
    Exchange,
    /// A second name for a file.
    Link,
    /// A file is copied.
    Copy,
    /// A folder is made.
    MakeFolder,
    /// A small file is written.
    Write,
    /// A file is removed.
    RemoveFile,
    /// An empty folder is removed.
    RemoveFolder,
    /// A file or folder is made durable.
    Sync,
    /// Permissions are set.
    Permissions,
}

/// Asked before each operation; an error takes the place of the operation.
pub(crate) type Fault = Arc<dyn Fn(Op, &Path) -> io::Result<()> + Send + Sync>;

/// The file system, with faults under test.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    fault: Option<Fault>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("faults", &self.fault.is_some()).finish()
    }
}

impl Disk {
    #[cfg(test)]
    pub(crate) fn with_faults(fault: Fault) -> Self {
        Self { fault: Some(fault) }
    }

    fn before(&self, op: Op, path: &Path) -> io::Result<()> {
        self.fault.as_ref().map_or(Ok(()), |fault| fault(op, path))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Op::Rename, to)?;
        fs::rename(from, to)
    }

    /// Swaps two names in one step; `Unsupported` where the platform or the file system cannot.
    pub(crate) fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.before(Op::Exchange, other)?;
        exchange(one, other)
    }

    /// Gives a file a second name, or copies it where the file system has no links (or no more of them for this file).
    pub(crate) fn link_or_copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let linked = self.before(Op::Link, to).and_then(|()| fs::hard_link(from, to));
        match linked {
            Ok(()) => Ok(()),
            Err(error) if cannot_link(&error) => {
                self.before(Op::Copy, to)?;
                fs::copy(from, to)?;
                self.sync(to)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn make_folders(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.before(Op::MakeFolder, path)?;
        fs::create_dir_all(path)
    }

    /// Writes a small file and makes it durable.
    pub(crate) fn write(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        self.before(Op::Write, path)?;
        fs::write(path, text)?;
        self.sync(path)
    }

    pub(crate) fn permissions(&self, path: &Path, permissions: fs::Permissions) -> io::Result<()> {
        self.before(Op::Permissions, path)?;
        fs::set_permissions(path, permissions)
    }

    /// Makes a file's content, or a folder's list of names, durable.
    pub(crate) fn sync(&self, path: &Path) -> io::Result<()> {
        self.before(Op::Sync, path)?;
        if self.fault.is_some() {
            // Under test nothing but the process dies, and thousands of fsyncs take minutes.
            return path.symlink_metadata().map(drop);
        }
        match File::open(path)?.sync_all() {
            // Some file systems know no fsync of folders; there is nothing more to be done on them.
            Err(error) if path.is_dir() && matches!(error.raw_os_error(), Some(libc_codes::EINVAL)) => Ok(()),
            other => other,
        }
    }

    /// Makes the lists of names of a folder and all folders in it durable, inner ones first.
    pub(crate) fn sync_folders(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.sync_folders(&entry.path())?;
            }
        }
        self.sync(folder)
    }

    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.before(Op::RemoveFile, path)?;
        gone_is_fine(fs::remove_file(path))
    }

    /// Removes a file, or a folder with all that is in it (links are removed, not followed); fine if there is nothing.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let kind = match fs::symlink_metadata(path) {
            Ok(meta) => meta.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !kind.is_dir() {
            return self.remove_file(path);
        }
        // A writer that was told to stop may still add a file: look again before giving up.
        for attempt in 0.. {
            self.remove_content(path)?;
            self.before(Op::RemoveFolder, path)?;
            match gone_is_fine(fs::remove_dir(path)) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && attempt < 5 => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                other => return other,
            }
        }
        Ok(())
    }

    fn remove_content(&self, folder: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let path = entry?.path();
            self.remove(&path)?;
        }
        Ok(())
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Errors of a file system without hard links, with a full count of links, or that forbids them here.
fn cannot_link(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), Unsupported | PermissionDenied | TooManyLinks | CrossesDevices)
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // What old kernels and plain file systems say to the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Err(io::ErrorKind::Unsupported.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn exchange(_one: &Path, _other: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

mod libc_codes {
    /// "Invalid argument" on every Unix.
    pub(super) const EINVAL: i32 = 22;
}
