//! Plans in bytes, run by a session that has nothing but the bytes: the queries of TPC-H.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use arrow::util::pretty::pretty_format_batches;
use sparklet::core::sink::{SinkFormat, SinkSpec};
use sparklet::core::tpch::TABLES;
use sparklet::prelude::*;

use crate::support::query_texts;

fn session(folder: &Path) -> Session {
    let config = SessionConfig {
        memory_limit: Some(512 << 20),
        slots: Some(2),
        spill_dir: folder.to_owned(),
        ..SessionConfig::default()
    };
    Session::new(config).unwrap()
}

fn source(location: &str, format: Format, scale: f64) -> SourceSpec {
    SourceSpec {
        location: location.to_owned(),
        written: location.to_owned(),
        format,
        options: SourceOptions { scale, ..SourceOptions::default() },
        columns: Vec::new(),
        partition_columns: Vec::new(),
        storage: BTreeMap::new(),
    }
}

#[test]
fn the_queries_of_tpch_travel() {
    let Some(texts) = query_texts("tpch") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (generated, ours) = (session(folder.path()), session(folder.path()));
        let sink =
            SinkSpec { format: SinkFormat::Parquet, single_file: false, partition_by: Vec::new(), compression: None };
        for table in TABLES {
            generated.register_source(table, &source(table, Format::Tpch, 0.01)).await.unwrap();
            let path = folder.path().join(table);
            let rows = generated.sql(&format!("SELECT * FROM {table}"), &BTreeMap::new()).await.unwrap();
            rows.prepare().await.unwrap().write(&path, &sink).await.unwrap();
            let files = source(&path.display().to_string(), Format::Parquet, 1.0);
            ours.register_source(table, &files).await.unwrap();
        }
        let mut logical = 0;
        for number in 1..=22 {
            let sql = fs::read_to_string(texts.join(format!("q{number:02}.sql"))).unwrap();
            let frame = ours.sql(sql.trim().trim_end_matches(';'), &BTreeMap::new()).await.unwrap();
            let shown = |rows: &[_]| pretty_format_batches(rows).unwrap().to_string();
            let expected = shown(&frame.collect().await.unwrap());
            let bytes = frame.prepare().await.unwrap().to_bytes().unwrap();
            let received = session(folder.path()).plan_from_bytes(&bytes).unwrap();
            assert_eq!(shown(&received.collect().await.unwrap()), expected, "q{number}");
            match frame.to_bytes() {
                Ok(bytes) => {
                    let received = session(folder.path()).frame_from_bytes(&bytes).unwrap();
                    assert_eq!(shown(&received.collect().await.unwrap()), expected, "q{number}");
                    logical += 1;
                }
                Err(error) => assert!(error.hint.unwrap().contains("as a physical plan"), "q{number}"),
            }
        }
        // The others ask EXISTS or IN over a query, or look outside of a subquery.
        assert!(logical >= 11, "{logical} logical plans travel");
    });
}
