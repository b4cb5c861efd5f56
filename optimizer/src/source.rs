//! Names of sources: what a scan reads, never where it lies.

use std::fmt;
use std::sync::Arc;

use datafusion::common::{HashMap, HashSet, ResolvedTableReference, TableReference};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use serde::{Deserialize, Serialize};

use crate::fingerprint::quoted;

/// Identity of a source: stays the same when its files move or the folder is named by date.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SourceId {
    /// A source of a pipeline, whatever its columns are: what a subplan reads of them is part of its own name.
    Table {
        /// Pipeline that declares it.
        pipeline: String,
        /// Name in that pipeline.
        name: String,
    },
    /// The output of a step.
    Step {
        /// Pipeline of the step.
        pipeline: String,
        /// Name of the step.
        step: String,
    },
}

impl SourceId {
    /// Name of the source or step.
    pub fn name(&self) -> &str {
        match self {
            Self::Table { name, .. } => name,
            Self::Step { step, .. } => step,
        }
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table { pipeline, name } => write!(f, "source {}.{}", quoted(pipeline), quoted(name)),
            Self::Step { pipeline, step } => write!(f, "step {}.{}", quoted(pipeline), quoted(step)),
        }
    }
}

/// What a physical scan reads.
#[derive(Debug, Clone, PartialEq)]
pub struct ScannedSource {
    /// The source.
    pub id: SourceId,
    /// Filters over its columns that the scan applies in full by leaving out files (partition columns) and that its predicate does not
    /// show.
    pub filters: Vec<Expr>,
}

/// Tells which source a scan reads. Both methods must give the same [`SourceId`] for the same scan.
pub trait SourceNames: Send + Sync {
    /// The source registered as `table`, as logical plans name it.
    fn by_table(&self, table: &TableReference) -> Option<SourceId>;

    /// The source that a leaf of a physical plan reads.
    fn by_scan(&self, scan: &dyn ExecutionPlan) -> Option<ScannedSource>;

    /// The plan all of whose rows a leaf of a physical plan gives once more, where it is no source.
    fn by_stage(&self, _leaf: &dyn ExecutionPlan) -> Option<Arc<dyn ExecutionPlan>> {
        None
    }
}

/// Attached to the files of a scan ([`datafusion::datasource::listing::PartitionedFile::extensions`]), it names the source for certain
/// and carries the filters that listing the files took care of; optimizer rules keep it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanTag(pub ScannedSource);

/// Attaches `tag` to the files of `scan`; any other plan is returned as it is.
pub fn tag_scan(scan: Arc<dyn ExecutionPlan>, tag: &ScanTag) -> Arc<dyn ExecutionPlan> {
    let Some(config) = file_scan(scan.as_ref()) else { return scan };
    let mut config = config.clone();
    for group in &mut config.file_groups {
        let files = group.iter().map(|file| file.clone().with_extension(tag.clone())).collect();
        *group = datafusion::datasource::physical_plan::FileGroup::new(files);
    }
    DataSourceExec::from_data_source(config)
}

/// The file scan that `plan` is, if it is one.
pub(crate) fn file_scan(plan: &dyn ExecutionPlan) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

type Recogniser = Arc<dyn Fn(&dyn ExecutionPlan) -> Option<SourceId> + Send + Sync>;

/// [`SourceNames`] from registrations.
///
/// A scan is recognised, in this order, by a recogniser, by its [`ScanTag`], or by its files. Two sources over one file are one source to
/// it (the first that was added), in logical plans too, since a physical scan cannot tell them apart.
#[derive(Clone, Default)]
pub struct SourceMap {
    tables: HashMap<ResolvedTableReference, SourceId>,
    /// Source of a file, by store and path.
    files: HashMap<(String, String), SourceId>,
    /// Number of files of a source.
    counts: HashMap<SourceId, usize>,
    recognisers: Vec<Recogniser>,
}

impl fmt::Debug for SourceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceMap")
            .field("tables", &self.tables)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

impl SourceMap {
    /// Names table `table`, which reads `files` as (URL of the object store, path in it). Returns the source that it counts as: `id`, or
    /// the one that was added before over one of the files.
    pub fn add_files(
        &mut self,
        table: impl Into<TableReference>,
        id: SourceId,
        files: impl IntoIterator<Item = (String, String)>,
    ) -> SourceId {
        let files: Vec<(String, String)> =
            files.into_iter().map(|(store, path)| (store_key(&store), path_key(&path))).collect();
        let id = files.iter().find_map(|file| self.files.get(file)).cloned().unwrap_or(id);
        let mut added = 0;
        for file in files {
            added += usize::from(self.files.insert(file, id.clone()).is_none());
        }
        *self.counts.entry(id.clone()).or_default() += added;
        self.add_table(table, id.clone());
        id
    }

    /// Names table `table`; its scans are recognised by their [`ScanTag`] or by a recogniser.
    pub fn add_table(&mut self, table: impl Into<TableReference>, id: SourceId) {
        self.tables.insert(resolved(&table.into()), id);
    }

    /// Adds a way of recognising scans that read no files, e.g. by downcasting to an operator of the caller.
    pub fn add_recogniser(
        &mut self,
        recogniser: impl Fn(&dyn ExecutionPlan) -> Option<SourceId> + Send + Sync + 'static,
    ) {
        self.recognisers.push(Arc::new(recogniser));
    }

    fn by_files(&self, config: &FileScanConfig) -> Option<ScannedSource> {
        let store = store_key(config.object_store_url.as_str());
        let mut files: HashSet<String> = HashSet::default();
        let mut id = None;
        for file in config.file_groups.iter().flat_map(|group| group.iter()) {
            if let Some(ScanTag(tagged)) = file.extension::<ScanTag>() {
                return Some(tagged.clone());
            }
            if files.insert(path_key(file.path().as_ref())) && id.is_none() {
                id = self.files.get(&(store.clone(), path_key(file.path().as_ref())));
            }
        }
        let id = id?;
        // Files left out for partition filters that nobody tells of: these are not the rows of the source.
        let partial = self.counts.get(id).is_some_and(|&all| files.len() < all);
        if partial && config.limit.is_none() && !config.table_partition_cols().is_empty() {
            return None;
        }
        Some(ScannedSource { id: id.clone(), filters: Vec::new() })
    }
}

impl SourceNames for SourceMap {
    fn by_table(&self, table: &TableReference) -> Option<SourceId> {
        self.tables.get(&resolved(table)).cloned()
    }

    fn by_scan(&self, scan: &dyn ExecutionPlan) -> Option<ScannedSource> {
        if let Some(id) = self.recognisers.iter().find_map(|recognise| recognise(scan)) {
            return Some(ScannedSource { id, filters: Vec::new() });
        }
        self.by_files(file_scan(scan)?)
    }
}

/// Tables without catalog and schema are in the default ones.
fn resolved(table: &TableReference) -> ResolvedTableReference {
    table.clone().resolve("datafusion", "public")
}

fn store_key(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

fn path_key(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests;
