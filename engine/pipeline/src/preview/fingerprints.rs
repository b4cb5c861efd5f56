//! Plans of steps before they run have the fingerprints that they have in a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use sparklet_core::{Session, SessionConfig};
use sparklet_history::{NodeRecord, Outcome, PlanRecord};
use tokio_util::sync::CancellationToken;

use crate::params::{bind_params, plan_params};
use crate::run::{RunOptions, run};

/// Steps that are read in every way: inlined, kept in memory, from one file, from partition folders, kept and written as text.
const PIPELINE: &str = r#"
name = "p"
[params]
least = { type = "int", default = 1 }
[sources.t]
path = "in.csv"

[[step]]
name = "once"
query = "SELECT k, v, v * 2 AS w FROM t WHERE v > $least"
[[step]]
name = "file"
query = "SELECT k, v, w FROM once WHERE w < 100"
output.path = "out/file.parquet"
[[step]]
name = "folders"
query = "SELECT k, v FROM t"
output = { path = "out/folders", format = "parquet", partition_by = ["k"] }
[[step]]
name = "kept"
query = "SELECT k, count(*) AS n, max(v) AS most FROM file GROUP BY k"
[[step]]
name = "text"
query = "SELECT f.k, f.v, n.n FROM file f JOIN kept n ON f.k = n.k WHERE n.n > 0"
output.path = "out/text.csv"
[[step]]
name = "of_folders"
query = "SELECT v, count(*) AS n FROM folders WHERE k = 'a' GROUP BY v"
output.path = "out/of_folders.parquet"
[[step]]
name = "twice"
query = "SELECT a.k, b.v FROM file a JOIN file b ON a.k = b.k AND a.v < b.v WHERE a.v > (SELECT avg(v) FROM folders)"
output.path = "out/twice.parquet"
[[step]]
name = "all"
query = """
SELECT k, sum(v) AS s FROM (
    SELECT k, v FROM text UNION ALL SELECT k, most FROM kept UNION ALL SELECT k, v FROM twice
) u GROUP BY k ORDER BY s DESC, k LIMIT 3"""
output.path = "out/all.json"
"#;

fn fingerprints(plan: &PlanRecord, of: impl Fn(&NodeRecord) -> bool) -> BTreeSet<String> {
    plan.nodes.iter().filter(|n| of(n)).filter_map(|n| Some(n.fingerprint?.to_string())).collect()
}

fn computes(node: &NodeRecord) -> bool {
    // In how many parts groups are made depends on the files.
    let partial = node.operator == "AggregateExec" && node.detail.starts_with("mode=Partial");
    !partial && !matches!(node.operator.as_str(), "PlannedExec" | "DataSourceExec" | "RepartitionExec")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_step_has_the_fingerprints_of_its_run() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = (0..200).map(|i| format!("{},{}\n", ["a", "b", "c", "d"][i % 4], i)).collect();
    fs::write(dir.path().join("in.csv"), format!("k,v\n{rows}")).unwrap();
    let file = dir.path().join("pipeline.toml");
    let pipeline = crate::load_text(&file, Arc::from(PIPELINE), &|_| None).unwrap().pipeline;
    let config = SessionConfig {
        memory_limit: Some(256 << 20),
        slots: Some(2),
        spill_dir: dir.path().join("spill"),
        pipeline: "p".to_owned(),
        ..SessionConfig::default()
    };
    let options = RunOptions {
        session: config.clone(),
        params: BTreeMap::new(),
        select: None,
        timeout: None,
        environment: "default".to_owned(),
        state: dir.path().join("state"),
        settings: BTreeMap::new(),
        failed_rows: crate::failed::Retention::default(),
        events: Arc::new(|_| {}),
        cancel: CancellationToken::new(),
    };
    let planned = async |name: &str| {
        let values = plan_params(&pipeline, &BTreeMap::new()).unwrap();
        assert_eq!(values, bind_params(&pipeline, &BTreeMap::new()).unwrap());
        let session = Session::new(config.clone()).unwrap();
        super::step(&pipeline, &session, &values, name).await.unwrap().observe()
    };
    // Before anything ran, and with all outputs there.
    let mut before = BTreeMap::new();
    for step in &pipeline.steps {
        before.insert(step.name.clone(), planned(&step.name).await);
    }
    let record = run(&pipeline, &options).await.unwrap();
    assert_eq!(record.outcome, Outcome::Succeeded, "{:?}", record.error);
    let mut compared = 0;
    for step in &record.steps {
        let Some(ran) = &step.plan else { continue };
        let name = &step.name;
        for planned in [&before[name], &planned(name).await] {
            assert!(planned.nodes[0].fingerprint.is_some(), "{name}");
            assert_eq!(planned.nodes[0].fingerprint, ran.nodes[0].fingerprint, "{name}: {planned:#?} {ran:#?}");
            let (all_planned, all_ran) = (fingerprints(planned, |_| true), fingerprints(ran, |_| true));
            // A filter of the plan may be the scan's in the run, and who moves rows differs.
            assert!(fingerprints(planned, computes).is_subset(&all_ran), "{name}: {planned:#?} {ran:#?}");
            assert!(fingerprints(ran, computes).is_subset(&all_planned), "{name}: {planned:#?} {ran:#?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 2 * 7);
}
