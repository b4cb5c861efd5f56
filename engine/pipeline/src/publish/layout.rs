//! What a target folder holds, and whether it may be written: nothing that sparklet would not have written is ever removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sparklet_core::sink::{SinkFormat, SinkSpec};
use sparklet_core::{Error, ErrorKind, Result};

use super::place::{Place, unwritable};
use crate::definition::Mode;

/// How an output lies at its target.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Format, partition columns, one file or a folder.
    pub(crate) sink: SinkSpec,
    /// What happens to the old version.
    pub(crate) mode: Mode,
}

/// A data file of a target folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DataFile {
    /// Partition folders, `month=1/day=2`; empty where not partitioned.
    pub(crate) partition: PathBuf,
    /// Path in the target folder.
    pub(crate) path: PathBuf,
}

impl Layout {
    /// Looks whether the version at `place` may be replaced or extended; returns its data files (none for a single file).
    pub(crate) fn inspect(&self, place: &Place) -> Result<Vec<DataFile>> {
        let path = place.path();
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unwritable(&path, "cannot look at the output", &error)),
        };
        let refuse = |what: String, hint: &str| Err(Error::new(ErrorKind::Output, what).with_hint(hint));
        let shown = path.display();
        if meta.permissions().readonly() {
            return refuse(
                format!("the output `{shown}` is marked read-only"),
                "allow writing to it, or choose another path",
            );
        }
        if self.sink.single_file {
            if !meta.is_file() {
                let what = format!("the output `{shown}` should be one file, but there is something else");
                return refuse(what, "move it away, or choose another path");
            }
            return Ok(Vec::new());
        }
        if !meta.is_dir() {
            let what = format!("the output `{shown}` should be a folder, but there is a file");
            return refuse(what, "move it away, or choose another path");
        }
        if is_mount_point(&meta, place.parent()) {
            let what = format!("the output `{shown}` is a mount point, which cannot be exchanged in one step");
            return refuse(what, "choose a folder inside it");
        }
        let mut files = Vec::new();
        self.walk(&path, Path::new(""), &mut files)?;
        files.sort_unstable();
        Ok(files)
    }

    fn walk(&self, root: &Path, inner: &Path, files: &mut Vec<DataFile>) -> Result<()> {
        let folder = root.join(inner);
        let failed = |e: io::Error| unwritable(&folder, "cannot look into the output", &e);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let name = entry.file_name();
            let path = inner.join(&name);
            let name = name.to_string_lossy();
            if kind.is_dir() && is_partition(&name) {
                self.walk(root, &path, files)?;
            } else if kind.is_file() && is_marker(&name) {
                // Left by other engines; goes with the old version.
            } else if kind.is_file() && has_format(&name, self.sink.format) {
                self.check_depth(root, inner)?;
                files.push(DataFile { partition: inner.to_owned(), path });
            } else {
                let what = format!(
                    "the output folder `{}` holds `{}`, which does not look like {} data",
                    root.display(),
                    path.display(),
                    self.sink.format.label()
                );
                return Err(Error::new(ErrorKind::Output, what).with_hint(
                    "publishing replaces the whole folder: give the output a folder of its own, or move this away",
                ));
            }
        }
        Ok(())
    }

    /// What is kept must be partitioned as what is new.
    fn check_depth(&self, root: &Path, inner: &Path) -> Result<()> {
        if self.mode == Mode::Replace {
            return Ok(());
        }
        let there: Vec<String> = inner
            .iter()
            .filter_map(|part| part.to_string_lossy().split_once('=').map(|(key, _)| key.to_owned()))
            .collect();
        if there == self.sink.partition_by {
            return Ok(());
        }
        let say = |columns: &[String]| {
            if columns.is_empty() {
                "not partitioned".to_owned()
            } else {
                format!("partitioned by `{}`", columns.join("`, `"))
            }
        };
        let what = format!(
            "the output `{}` is {}, but the step's result is {}",
            root.display(),
            say(&there),
            say(&self.sink.partition_by)
        );
        Err(Error::new(ErrorKind::Output, what)
            .with_hint("use `mode = \"replace\"` once, or give `partition_by` as it was before"))
    }
}

/// Ending of a data file's name, compression included: `parquet`, `csv.gz`.
pub(crate) fn ending(name: &str) -> &str {
    let last = name.rfind('.').map_or(name.len(), |at| at + 1);
    let compressed = ["gz", "gzip", "zst", "zstd", "bz2", "xz"].contains(&&name[last..]);
    match name[..last.saturating_sub(1)].rfind('.') {
        Some(at) if compressed => &name[at + 1..],
        _ => &name[last..],
    }
}

fn has_format(name: &str, format: SinkFormat) -> bool {
    if name.starts_with(['.', '_']) {
        return false;
    }
    let endings: &[&str] = match format {
        SinkFormat::Parquet => &["parquet"],
        SinkFormat::Csv => &["csv"],
        SinkFormat::Json => &["json", "ndjson", "jsonl"],
        SinkFormat::Arrow => &["arrow"],
    };
    let ending = ending(name).split('.').next().unwrap_or_default().to_ascii_lowercase();
    endings.contains(&ending.as_str())
}

fn is_partition(name: &str) -> bool {
    !name.starts_with(['.', '_', '=']) && name.contains('=')
}

/// Files that engines leave beside data: `_SUCCESS`, `_metadata`, checksums.
fn is_marker(name: &str) -> bool {
    name.starts_with('_') || (name.starts_with('.') && name.ends_with(".crc")) || name == ".DS_Store"
}

#[cfg(unix)]
fn is_mount_point(meta: &fs::Metadata, parent: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(parent).is_ok_and(|above| above.dev() != meta.dev())
}

#[cfg(not(unix))]
fn is_mount_point(_meta: &fs::Metadata, _parent: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(mode: Mode, partition_by: &[&str]) -> Layout {
        let partition_by = partition_by.iter().map(|&s| s.to_owned()).collect();
        Layout {
            sink: SinkSpec { format: SinkFormat::Parquet, single_file: false, partition_by, compression: None },
            mode,
        }
    }

    #[test]
    fn endings() {
        for (name, want) in [
            ("a.csv", "csv"),
            ("a.csv.gz", "csv.gz"),
            ("a", ""),
            ("a.b.parquet", "parquet"),
            ("gz", ""),
            ("a.gz", "gz"),
            (".gz", "gz"),
        ] {
            assert_eq!(ending(name), want, "{name}");
        }
    }

    #[test]
    fn foreign_files_are_refused() {
        for (name, fine) in [
            ("part-0.parquet", true),
            ("_SUCCESS", true),
            ("month=1/part-0.parquet", true),
            ("month=1/.part-0.parquet.crc", true),
            ("notes.txt", false),
            (".git/config", false),
            ("_delta_log/0.json", false),
            ("sub/part-0.parquet", false),
            (".hidden.parquet", false),
            ("month=1/data.csv", false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("out").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            let place = Place::resolve(&dir.path().join("out")).unwrap();
            let found = layout(Mode::Replace, &[]).inspect(&place);
            assert_eq!(found.is_ok(), fine, "{name}: {found:?}");
            if let Err(error) = found {
                assert_eq!(error.kind, ErrorKind::Output);
                assert!(error.hint.is_some());
            }
        }
    }

    #[test]
    fn kept_files_must_have_the_same_partitions() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("out/month=1")).unwrap();
        fs::write(dir.path().join("out/month=1/a.parquet"), "").unwrap();
        let place = Place::resolve(&dir.path().join("out")).unwrap();
        assert!(layout(Mode::Append, &["month"]).inspect(&place).is_ok());
        assert!(layout(Mode::Replace, &["year"]).inspect(&place).is_ok());
        let error = layout(Mode::ReplacePartitions, &["year"]).inspect(&place).unwrap_err();
        assert!(
            error.message.contains("partitioned by `month`, but the step's result is partitioned by `year`"),
            "{error}"
        );
        let error = layout(Mode::Append, &[]).inspect(&place).unwrap_err();
        assert!(error.message.contains("not partitioned"), "{error}");
    }

    #[test]
    fn file_and_folder_are_not_mixed_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("out"), "precious").unwrap();
        let place = Place::resolve(&dir.path().join("out")).unwrap();
        assert!(layout(Mode::Replace, &[]).inspect(&place).unwrap_err().message.contains("there is a file"));
        let mut permissions = fs::metadata(place.path()).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(place.path(), permissions).unwrap();
        let mut file = layout(Mode::Replace, &[]);
        file.sink.single_file = true;
        assert!(file.inspect(&place).unwrap_err().message.contains("read-only"));
        fs::create_dir(dir.path().join("folder")).unwrap();
        let place = Place::resolve(&dir.path().join("folder")).unwrap();
        assert!(file.inspect(&place).unwrap_err().message.contains("should be one file"));
    }
}
