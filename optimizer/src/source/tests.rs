//! Names of scans.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext, col, lit};

use super::*;
use crate::fingerprint::tests::runtime;
use crate::{fingerprint_logical, fingerprint_physical};

fn id(name: &str) -> SourceId {
    SourceId::Table { pipeline: "p".into(), name: name.into() }
}

/// A folder of days with one file each; returns (folder, files).
fn days() -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for day in 1..=3 {
        let part = folder.path().join(format!("day={day}"));
        std::fs::create_dir(&part).unwrap();
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let path = part.join("a.parquet");
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        files.push(path.to_str().unwrap().to_owned());
    }
    (folder, files)
}

async fn register(context: &SessionContext, table: &str, folder: &std::path::Path) {
    let options = ParquetReadOptions::default().table_partition_cols(vec![("day".to_owned(), DataType::Int64)]);
    context.register_parquet(table, folder.to_str().unwrap(), options).await.unwrap();
}

#[test]
fn a_partition_filter_counts_although_no_operator_shows_it() {
    let (folder, files) = days();
    runtime().block_on(async {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        register(&context, "t", folder.path()).await;
        let mut sources = SourceMap::default();
        sources.add_files("t", id("t"), files.into_iter().map(|file| ("file:///".to_owned(), file)));
        let state = context.state();
        let plan = state.create_logical_plan("select x from t where day = 2").await.unwrap();
        let logical = state.optimize(&plan).unwrap();
        let physical = state.query_planner().create_physical_plan(&logical, &state).await.unwrap();
        let expected = fingerprint_logical(&logical, &sources).nodes[0].unwrap();
        assert_eq!(
            fingerprint_physical(&physical, &sources).nodes[0],
            None,
            "some files, and nobody says why: not the source"
        );
        // The tag says why.
        let tag = ScanTag(ScannedSource { id: id("t"), filters: vec![col("day").eq(lit(2i64))] });
        let tagged = tag_scan(physical, &tag);
        assert_eq!(fingerprint_physical(&tagged, &sources).nodes[0], Some(expected));
    });
}

#[test]
fn moved_files_are_the_same_source() {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (folder, files) = days();
        runtime().block_on(async {
            let context = SessionContext::new();
            register(&context, "t", folder.path()).await;
            let mut sources = SourceMap::default();
            sources.add_files("t", id("t"), files.into_iter().map(|file| ("file:///".to_owned(), file)));
            let plan = context
                .sql("select count(*), x from t group by x")
                .await
                .unwrap()
                .create_physical_plan()
                .await
                .unwrap();
            ids.push(fingerprint_physical(&plan, &sources).nodes[0].unwrap());
        });
    }
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn two_tables_over_one_file_are_one_source() {
    let (folder, files) = days();
    runtime().block_on(async {
        let context = SessionContext::new();
        let mut sources = SourceMap::default();
        for name in ["a", "b"] {
            register(&context, name, folder.path()).await;
            let files = files.iter().map(|file| ("file:///".to_owned(), file.clone()));
            assert_eq!(sources.add_files(name, id(name), files), id("a"));
        }
        for sql in ["select sum(x) from b group by day", "select sum(x) from a group by day"] {
            let state = context.state();
            let logical = state.optimize(&state.create_logical_plan(sql).await.unwrap()).unwrap();
            let physical = state.query_planner().create_physical_plan(&logical, &state).await.unwrap();
            let (l, p) = (fingerprint_logical(&logical, &sources), fingerprint_physical(&physical, &sources));
            assert!(l.nodes[0].is_some());
            assert_eq!(l.nodes[0], p.nodes[0]);
        }
    });
}

#[test]
fn names_are_quoted() {
    let odd = SourceId::Step { pipeline: "a.b".into(), step: "c\nd".into() };
    assert_eq!(odd.to_string(), r#"step "a.b"."c\nd""#);
    assert_eq!(SourceId::Step { pipeline: "a".into(), step: "b".into() }.to_string(), "step a.b");
}

#[test]
fn unknown_tables_have_no_name() {
    let sources = SourceMap::default();
    assert_eq!(sources.by_table(&TableReference::bare("t")), None);
}
