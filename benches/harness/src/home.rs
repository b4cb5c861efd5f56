//! Where the harness keeps what it makes: query texts, data sets, states of runs, results.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::error::{AtPath, Failure, Result};

/// A set of tables and the queries over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// TPC-H: 8 tables, 22 queries.
    Tpch,
    /// TPC-DS: 24 tables, 99 queries.
    Tpcds,
    /// Skewed keys, many-to-many joins and correlated filters: 8 tables, 12 queries.
    Skewed,
}

impl Workload {
    /// Name in paths and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tpch => "tpch",
            Self::Tpcds => "tpcds",
            Self::Skewed => "skewed",
        }
    }
}

/// The bench home: `$SPARKLET_BENCH_HOME`, or `~/.cache/sparklet/bench`.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    /// The home that the environment names.
    pub(crate) fn from_environment() -> Result<Self> {
        let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = set("SPARKLET_BENCH_HOME").or_else(|| set("HOME").map(|home| home.join(".cache/sparklet/bench")));
        let root = root.ok_or_else(|| {
            Failure::new("neither `SPARKLET_BENCH_HOME` nor `HOME` is set")
                .with_hint("set `SPARKLET_BENCH_HOME` to a folder for data and results")
        })?;
        std::fs::create_dir_all(&root).at_path(&root)?;
        let root = root.canonicalize().at_path(&root)?;
        Ok(Self { root })
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The bench home itself; states of runs are made in it, so that they are on the same file system as the data.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// File of a query text.
    pub(crate) fn query(&self, workload: Workload, number: u32) -> PathBuf {
        self.root.join("queries").join(workload.name()).join(format!("q{number:02}.sql"))
    }

    /// Folder of a data set.
    pub(crate) fn data(&self, workload: Workload, scale: f64) -> PathBuf {
        self.root.join("data").join(format!("{}-sf{scale}", workload.name()))
    }

    /// Folder of results.
    pub(crate) fn results(&self) -> PathBuf {
        self.root.join("results")
    }
}

/// What is in a data set; written last, so that a data set with a manifest is whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// [`Manifest::FORMAT`] of the writer.
    pub(crate) format: u32,
    pub(crate) workload: Workload,
    pub(crate) scale: f64,
    /// Days of new data after the base.
    pub(crate) days: u32,
    pub(crate) tables: Vec<Table>,
}

/// A table: the folder of its name holds `base.parquet`, and `day-01.parquet` … where it grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Rows of the base and of each day, in order.
    pub(crate) rows: Vec<u64>,
    /// Bytes of all files.
    pub(crate) bytes: u64,
}

impl Manifest {
    /// Raised when the generators change what they write.
    pub(crate) const FORMAT: u32 = 1;
    const FILE: &'static str = "manifest.json";

    /// The manifest of the data set in `folder`; none if there is no whole data set of this format.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(Self::FILE)).ok()?;
        serde_json::from_str::<Self>(&text).ok().filter(|manifest| manifest.format == Self::FORMAT)
    }

    /// Writes it into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Failure::new(e.to_string()))?;
        let (fresh, path) = (folder.join("manifest.new"), folder.join(Self::FILE));
        std::fs::write(&fresh, text).at_path(&fresh)?;
        std::fs::rename(&fresh, &path).at_path(&path)
    }

    /// Rows of all tables.
    pub(crate) fn rows(&self) -> u64 {
        self.tables.iter().flat_map(|t| &t.rows).sum()
    }
}

/// File of the base (`slice` 0) or of a day.
pub(crate) fn slice_file(slice: u32) -> String {
    if slice == 0 { "base.parquet".to_owned() } else { format!("day-{slice:02}.parquet") }
}

/// Folders of the tables as they stand on a day: hard links to the files of the data set, so that the same folder grows.
#[derive(Debug)]
pub(crate) struct View {
    data: PathBuf,
    folder: PathBuf,
    manifest: Manifest,
}

impl View {
    /// A view of the data set in `data`, in the new folder `folder`; empty until [`View::advance`].
    pub(crate) fn new(data: &Path, manifest: &Manifest, folder: PathBuf) -> Self {
        Self { data: data.to_owned(), folder, manifest: manifest.clone() }
    }

    /// Lets everything up to `day` arrive.
    pub(crate) fn advance(&self, day: u32) -> Result<()> {
        for table in &self.manifest.tables {
            let folder = self.folder.join(&table.name);
            std::fs::create_dir_all(&folder).at_path(&folder)?;
            for slice in 0..(table.rows.len() as u32).min(day + 1) {
                let (from, to) = (self.data.join(&table.name).join(slice_file(slice)), folder.join(slice_file(slice)));
                if !to.exists() && std::fs::hard_link(&from, &to).is_err() {
                    std::fs::copy(&from, &to).at_path(&from)?;
                }
            }
        }
        Ok(())
    }

    /// Tables and their folders.
    pub(crate) fn tables(&self) -> Vec<(String, PathBuf)> {
        self.manifest.tables.iter().map(|t| (t.name.clone(), self.folder.join(&t.name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_grows_by_the_day_and_is_told_apart_by_format() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let manifest = Manifest {
            format: Manifest::FORMAT,
            workload: Workload::Skewed,
            scale: 0.1,
            days: 2,
            tables: vec![
                Table { name: "fact".into(), rows: vec![1, 1, 1], bytes: 3 },
                Table { name: "dim".into(), rows: vec![1], bytes: 1 },
            ],
        };
        for (table, slices) in [("fact", 3), ("dim", 1)] {
            std::fs::create_dir_all(data.join(table)).unwrap();
            (0..slices).for_each(|s| std::fs::write(data.join(table).join(slice_file(s)), [0]).unwrap());
        }
        let view = View::new(&data, &manifest, folder.path().join("view"));
        let files = || -> Vec<usize> {
            view.tables().iter().map(|(_, folder)| std::fs::read_dir(folder).unwrap().count()).collect()
        };
        view.advance(1).unwrap();
        assert_eq!(files(), [2, 1]);
        view.advance(2).unwrap();
        assert_eq!(files(), [3, 1]);
        manifest.write(&data).unwrap();
        assert_eq!(Manifest::read(&data), Some(manifest.clone()));
        Manifest { format: Manifest::FORMAT + 1, ..manifest }.write(&data).unwrap();
        assert_eq!(Manifest::read(&data), None);
    }
}
