//! Sessions with small tables, and plans of statements in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use sparklet_history::Fingerprint;

use crate::fingerprint::{
    Identity, LogicalFingerprints, PhysicalFingerprints, fingerprint_logical, fingerprint_physical,
};
use crate::source::{SourceId, SourceMap};

/// Tables in a folder, in sessions made anew with any settings.
pub(crate) struct Tables {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) names: Vec<String>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), names: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.parquet"))
    }

    pub(crate) fn add(&mut self, name: &str, schema: Arc<Schema>, batches: impl Iterator<Item = RecordBatch>) {
        let file = std::fs::File::create(self.path(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, schema, None).unwrap();
        for batch in batches {
            writer.write(&batch).unwrap();
        }
        writer.close().unwrap();
        self.names.push(name.to_owned());
    }

    pub(crate) async fn session(&self, config: SessionConfig) -> Session {
        let context = SessionContext::new_with_config(config);
        let mut sources = SourceMap::default();
        for name in &self.names {
            let path = self.path(name);
            context.register_parquet(name, path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
            add(&mut sources, name, &path);
        }
        Session { context, sources }
    }
}

fn add(sources: &mut SourceMap, name: &str, path: &Path) {
    let id = SourceId::Table { pipeline: "test".into(), name: name.into() };
    sources.add_files(name, id, [("file:///".to_owned(), path.to_str().unwrap().to_owned())]);
}

pub(crate) struct Session {
    pub(crate) context: SessionContext,
    pub(crate) sources: SourceMap,
}

impl Session {
    pub(crate) async fn plans(&self, sql: &str) -> (LogicalPlan, Arc<dyn ExecutionPlan>) {
        let state = self.context.state();
        let plan = state.create_logical_plan(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let logical = state.optimize(&plan).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let physical =
            state.query_planner().create_physical_plan(&logical, &state).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        (logical, physical)
    }

    pub(crate) async fn fingerprints(&self, sql: &str) -> (LogicalFingerprints, PhysicalFingerprints) {
        let (logical, physical) = self.plans(sql).await;
        (fingerprint_logical(&logical, &self.sources), fingerprint_physical(&physical, &self.sources))
    }

    /// Identity of the rows of a statement, which both plans must agree on.
    pub(crate) async fn identity(&self, sql: &str) -> Option<Identity> {
        let (plan, exec) = self.plans(sql).await;
        let logical = fingerprint_logical(&plan, &self.sources);
        let physical = fingerprint_physical(&exec, &self.sources);
        let (a, b) = (logical.nodes[0], physical.nodes[0]);
        let shown = || displayable(exec.as_ref()).indent(false).to_string();
        assert_eq!(
            a,
            b,
            "plans disagree on: {sql}\n{}\n{}\n{}",
            text(a, &logical.texts),
            text(b, &physical.texts),
            shown()
        );
        a
    }
}

fn text(id: Option<Identity>, texts: &std::collections::BTreeMap<Fingerprint, String>) -> String {
    id.map_or_else(|| "no identity".to_owned(), |id| crate::explain_text(id.fingerprint, texts))
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .unwrap()
}
