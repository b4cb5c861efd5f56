//! Where a local output really lies, and the names of what stands beside it for a while.
//!
//! For a target `dir/name` these are hidden siblings, so that a rename publishes them and readers' globs pass them by:
//!
//! | name | what it is |
//! |---|---|
//! | `.name.sparklet.lock` | held by the run that may write `name` and all that follows |
//! | `.name.sparklet-RUN.next` | the next version while it is made; after an exchange the old version until it is removed |
//! | `.name.sparklet-RUN.old` | the old version, where the file system cannot exchange two names |
//! | `.name.sparklet-swap` | says that `…next` is complete and a swap by two renames has begun; holds the run's id |

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use sparklet_core::{Error, ErrorKind, Result};
use sparklet_history::RunId;

/// Links followed before a chain is taken for a circle.
const MAX_LINKS: usize = 40;

/// A target with links resolved: where renames take place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    parent: PathBuf,
    name: OsString,
}

impl Place {
    /// Finds the place of `target`, follows links (also ones that lead nowhere yet) and makes missing parent folders.
    pub(crate) fn resolve(target: &Path) -> Result<Self> {
        let mut path = target.to_owned();
        for _ in 0..MAX_LINKS {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Error::new(ErrorKind::Output, format!("`{}` cannot be an output", target.display()))
                    .with_hint("give the path of a file or of a folder of its own"));
            };
            std::fs::create_dir_all(parent).map_err(|e| {
                let error = unwritable(parent, "cannot make the folder", &e);
                let cause = error.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
                error.with_hint(format!("it is needed for the output `{}`{cause}", target.display()))
            })?;
            let parent = parent.canonicalize().map_err(|e| unwritable(parent, "cannot find the folder", &e))?;
            let here = parent.join(name);
            match std::fs::read_link(&here) {
                Ok(link) => path = parent.join(link),
                // Not a link, or nothing there.
                Err(_) => return Ok(Self { name: name.to_owned(), parent }),
            }
        }
        Err(Error::new(ErrorKind::Output, format!("`{}` is a circle of links", target.display())))
    }

    /// A place as it was recorded by [`Place::path`].
    pub(crate) fn recorded(path: &Path) -> Option<Self> {
        Some(Self { parent: path.parent()?.to_owned(), name: path.file_name()?.to_owned() })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    pub(crate) fn parent(&self) -> &Path {
        &self.parent
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.sibling(".sparklet.lock")
    }

    pub(crate) fn next(&self, run: &str) -> PathBuf {
        self.sibling(&format!(".sparklet-{run}.next"))
    }

    pub(crate) fn old(&self, run: &str) -> PathBuf {
        self.sibling(&format!(".sparklet-{run}.old"))
    }

    pub(crate) fn swap(&self) -> PathBuf {
        self.sibling(".sparklet-swap")
    }

    /// Everything that runs left beside the target; the lock is not among it.
    pub(crate) fn leftovers(&self) -> io::Result<Vec<PathBuf>> {
        let prefix = self.hidden(".sparklet-");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.parent)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes()).is_some_and(is_ours) {
                found.push(entry.path());
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn sibling(&self, ending: &str) -> PathBuf {
        self.parent.join(self.hidden(ending))
    }

    fn hidden(&self, ending: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(ending);
        name
    }
}

/// True for what may follow `.name.sparklet-`: another target may be called `name.sparklet-something`.
fn is_ours(rest: &[u8]) -> bool {
    let Ok(rest) = std::str::from_utf8(rest) else { return false };
    // A local file store writes `name#1` before it gives the file its name.
    let rest = match rest.rsplit_once('#') {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => rest,
    };
    let run = rest.strip_suffix(".next").or_else(|| rest.strip_suffix(".old"));
    rest == "swap" || run.is_some_and(|run| run.parse::<RunId>().is_ok())
}

/// An error of kind `Output` about `path`, with a hint that fits the cause.
pub(crate) fn unwritable(path: &Path, what: &str, error: &io::Error) -> Error {
    use io::ErrorKind as Io;
    let message = format!("{what} `{}`: {}", path.display(), plain(error));
    let failed = Error::new(ErrorKind::Output, message);
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => {
            failed.with_hint("free some space and run again; what was published before is untouched")
        }
        Io::PermissionDenied => failed.with_hint("the user who runs sparklet needs write access to the folder"),
        Io::ReadOnlyFilesystem => failed.with_hint("choose an output on a file system that can be written"),
        Io::NotADirectory => failed.with_hint("a part of the path is a file"),
        Io::AlreadyExists => failed.with_hint("there is a file of that name: move it away, or choose another path"),
        Io::InvalidFilename => failed.with_hint("choose a shorter or plainer name"),
        _ => failed,
    }
}

/// The error without `(os error N)`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let plain = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = plain.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn links_lead_to_the_place_even_if_nothing_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink("far/away", root.join("link")).unwrap();
        let place = Place::resolve(&root.join("link")).unwrap();
        assert_eq!(place.path(), root.join("far/away"));
        assert!(root.join("far").is_dir());
        std::os::unix::fs::symlink("b", root.join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.join("b")).unwrap();
        assert!(Place::resolve(&root.join("a")).unwrap_err().message.contains("circle"));
    }

    #[test]
    fn leftovers_are_those_of_this_target() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::resolve(&dir.path().join("out")).unwrap();
        let run = RunId::from_bits(7);
        let next = format!(".out.sparklet-{run}.next");
        let half = format!("{next}#1");
        let others = [format!(".out2.sparklet-{run}.next"), format!(".out.sparklet-x.sparklet-{run}.next")];
        for name in [&next, &half, ".out.sparklet-swap", ".out.sparklet.lock", &others[0], &others[1], "out"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> =
            place.leftovers().unwrap().iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(names, [next.as_str(), half.as_str(), ".out.sparklet-swap"]);
    }

    #[test]
    fn a_file_in_the_way_is_an_output_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = Place::resolve(&dir.path().join("file/x/out")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Output);
        assert!(error.message.contains("file/x"), "{}", error.message);
        assert!(Place::resolve(Path::new("/")).is_err());
    }
}
