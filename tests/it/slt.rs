//! SQL behaviour as data: `tests/slt/*.slt`, run through the library's public entry.

use std::collections::BTreeMap;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use sparklet::prelude::*;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};

struct Engine {
    session: Session,
    _spill: tempfile::TempDir,
}

impl Engine {
    fn new() -> Self {
        let spill = tempfile::tempdir().unwrap();
        let config = SessionConfig { slots: Some(2), spill_dir: spill.path().to_owned(), ..SessionConfig::default() };
        Self { session: Session::new(config).unwrap(), _spill: spill }
    }
}

#[async_trait::async_trait]
impl AsyncDB for Engine {
    type Error = sparklet::prelude::Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Self::Error> {
        let batches = self.session.sql(sql, &BTreeMap::new()).await?.collect().await?;
        let Some(first) = batches.first() else { return Ok(DBOutput::StatementComplete(0)) };
        let types = vec![DefaultColumnType::Any; first.num_columns()];
        let options = FormatOptions::default().with_null("NULL");
        let mut rows = Vec::new();
        for batch in &batches {
            let columns: Vec<_> =
                batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
            rows.extend((0..batch.num_rows()).map(|row| {
                columns
                    .iter()
                    .map(|c| c.value(row).to_string())
                    .map(|v| if v.is_empty() { "(empty)".into() } else { v })
                    .collect()
            }));
        }
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}
}

#[test]
fn sql_logic_tests() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut runner = sqllogictest::Runner::new(|| async { Ok(Engine::new()) });
            runner.run_file_async(&file).await.unwrap_or_else(|e| panic!("{}: {}", file.display(), e.display(false)));
        });
    }
}
