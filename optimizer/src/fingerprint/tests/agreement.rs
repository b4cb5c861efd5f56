//! Over all TPC-H and TPC-DS queries: each join and aggregate of the physical plan has the identity of one of the logical plan.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchReader};
use datafusion::logical_expr::{Distinct, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateOutputMode};
use datafusion::prelude::SessionConfig;
use sparklet_history::{NoEvidence, Scope};

use super::support::{Session, Tables, runtime};
use crate::candidates::{RewriteNote, candidates};
use crate::cardinality::Cardinalities;
use crate::fingerprint::{Identity, fingerprint_logical, fingerprint_physical, for_each_logical_node};

/// Rows of a table at the most: plans need statistics, not data.
const MAX_ROWS: usize = 20_000;

fn queries(workload: &str) -> Option<BTreeMap<String, String>> {
    let home = std::env::var_os("SPARKLET_BENCH_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/sparklet/bench")))?;
    let folder = home.join("queries").join(workload);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        let hint = format!("no queries in `{}`: run `benches/fetch-queries`", folder.display());
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{hint}");
        eprintln!("SKIPPED: {hint}");
        return None;
    };
    let texts: BTreeMap<String, String> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    Some(texts)
}

fn capped(reader: impl RecordBatchReader) -> (SchemaRef, impl Iterator<Item = RecordBatch>) {
    let schema = reader.schema();
    let mut left = MAX_ROWS;
    let batches = reader.map_while(move |batch| {
        let batch = batch.unwrap();
        let batch = batch.slice(0, batch.num_rows().min(left));
        left -= batch.num_rows();
        (batch.num_rows() > 0).then_some(batch)
    });
    (schema, batches)
}

pub(super) fn tpch() -> Tables {
    use tpchgen::generators as h;
    use tpchgen_arrow as a;
    let mut tables = Tables::new();
    macro_rules! add {
        ($($name:literal $generator:ident $arrow:ident),+) => {$(
            let (schema, batches) = capped(a::$arrow::new(h::$generator::new(0.01, 1, 1)));
            tables.add($name, schema, batches);
        )+};
    }
    add!(
        "lineitem" LineItemGenerator LineItemArrow, "orders" OrderGenerator OrderArrow, "partsupp" PartSuppGenerator PartSuppArrow,
        "part" PartGenerator PartArrow, "customer" CustomerGenerator CustomerArrow, "supplier" SupplierGenerator SupplierArrow,
        "nation" NationGenerator NationArrow, "region" RegionGenerator RegionArrow
    );
    tables
}

fn tpcds() -> Tables {
    use tpcdsgen::config::SessionBuilder;
    use tpcdsgen_arrow as a;
    let session = SessionBuilder::new().with_scale_factor(0.01).build().unwrap();
    let mut tables = Tables::new();
    macro_rules! add {
        ($($name:literal $arrow:ident),+) => {$(
            let (schema, batches) = capped(a::$arrow::new(session.clone()));
            tables.add($name, schema, batches);
        )+};
    }
    add!(
        "inventory" InventoryArrow, "store_sales" StoreSalesArrow, "store_returns" StoreReturnsArrow,
        "catalog_sales" CatalogSalesArrow, "catalog_returns" CatalogReturnsArrow, "web_sales" WebSalesArrow,
        "web_returns" WebReturnsArrow, "call_center" CallCenterArrow, "catalog_page" CatalogPageArrow, "customer" CustomerArrow,
        "customer_address" CustomerAddressArrow, "customer_demographics" CustomerDemographicsArrow, "date_dim" DateDimArrow,
        "household_demographics" HouseholdDemographicsArrow, "income_band" IncomeBandArrow, "item" ItemArrow,
        "promotion" PromotionArrow, "reason" ReasonArrow, "ship_mode" ShipModeArrow, "store" StoreArrow, "time_dim" TimeDimArrow,
        "warehouse" WarehouseArrow, "web_page" WebPageArrow, "web_site" WebSiteArrow
    );
    tables
}

fn is_join(plan: &dyn ExecutionPlan) -> bool {
    plan.name().ends_with("JoinExec")
}

fn is_aggregate(plan: &dyn ExecutionPlan) -> bool {
    plan.downcast_ref::<AggregateExec>().is_some_and(|a| a.mode().output_mode() == AggregateOutputMode::Final)
}

fn physical_nodes(plan: &Arc<dyn ExecutionPlan>, into: &mut Vec<Arc<dyn ExecutionPlan>>) {
    into.push(Arc::clone(plan));
    plan.children().into_iter().for_each(|child| physical_nodes(child, into));
}

/// Joins and aggregates that agree, and a line for each that does not.
#[derive(Default)]
struct Tally {
    joins: usize,
    aggregates: usize,
    logical_only: usize,
    candidates: usize,
    differences: Vec<String>,
}

/// Plans whose joins were put into another order can be planned, and are the same rows by their fingerprint.
async fn reordered(session: &Session, name: &str, logical: &LogicalPlan, tally: &mut Tally) {
    let scope = Scope { pipeline: "test", environment: "test" };
    let root = |plan: &LogicalPlan| fingerprint_logical(plan, &session.sources).nodes[0];
    for candidate in candidates(logical, &Cardinalities::new(&NoEvidence, scope, &session.sources)) {
        let state = session.context.state();
        let planned = state.query_planner().create_physical_plan(&candidate.plan, &state).await;
        let shown = || format!("{}\n{}", logical.display_indent(), candidate.plan.display_indent());
        if let Err(error) = planned {
            tally.differences.push(format!("{name}: a candidate cannot be planned: {error}\n{}", shown()));
        }
        let orders = candidate.rewrites.iter().all(|note| matches!(note, RewriteNote::JoinOrder(_)));
        if orders && root(&candidate.plan) != root(logical) {
            tally.differences.push(format!("{name}: another order, another fingerprint:\n{}", shown()));
        }
        tally.candidates += 1;
    }
}

async fn compare(session: &Session, name: &str, sql: &str, tally: &mut Tally) {
    let (logical, physical) = session.plans(sql).await;
    if session.context.copied_config().target_partitions() == 1 {
        reordered(session, name, &logical, tally).await;
    }
    let started = std::time::Instant::now();
    let ours = fingerprint_logical(&logical, &session.sources);
    let between = started.elapsed();
    let theirs = fingerprint_physical(&physical, &session.sources);
    if std::env::var_os("SHOW_TIMES").is_some() {
        eprintln!(
            "{name}: logical {between:?} ({} nodes), physical {:?} ({} nodes)",
            ours.nodes.len(),
            started.elapsed() - between,
            theirs.nodes.len()
        );
    }
    let mut expected: BTreeMap<(bool, Identity), isize> = BTreeMap::new();
    let mut position = 0;
    for_each_logical_node(&logical, &mut |node| {
        let id = ours.nodes[position];
        position += 1;
        let join = matches!(node, LogicalPlan::Join(_));
        if join || matches!(node, LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(Distinct::All(_))) {
            match id {
                Some(id) => *expected.entry((join, id)).or_default() += 1,
                None => tally.differences.push(format!("{name}: no identity: {}", node.display())),
            }
        }
    });
    assert_eq!(position, ours.nodes.len());
    let mut nodes = Vec::new();
    physical_nodes(&physical, &mut nodes);
    assert_eq!(nodes.len(), theirs.nodes.len());
    for (node, id) in nodes.iter().zip(&theirs.nodes) {
        let join = is_join(node.as_ref());
        if !join && !is_aggregate(node.as_ref()) {
            continue;
        }
        let known = id.and_then(|id| expected.get_mut(&(join, id))).filter(|left| **left > 0);
        match known {
            Some(left) => {
                *left -= 1;
                *if join { &mut tally.joins } else { &mut tally.aggregates } += 1;
            }
            None => {
                let text = id.map_or_else(String::new, |id| crate::explain_text(id.fingerprint, &theirs.texts));
                tally.differences.push(format!("{name}: {} has no match: {id:?}\n{text}", node.name()));
            }
        }
    }
    for ((_, id), left) in expected {
        if left > 0 {
            tally.logical_only += left as usize;
            let text = crate::explain_text(id.fingerprint, &ours.texts);
            tally.differences.push(format!("{name}: only in the logical plan, {left} times:\n{text}"));
        }
    }
}

fn settings() -> Vec<(&'static str, SessionConfig)> {
    let base = || SessionConfig::new().with_target_partitions(4);
    let mut merge = base();
    merge.options_mut().optimizer.prefer_hash_join = false;
    let mut partitioned = base();
    partitioned.options_mut().optimizer.hash_join_single_partition_threshold = 0;
    partitioned.options_mut().optimizer.hash_join_single_partition_threshold_rows = 0;
    let mut pushed = base();
    pushed.options_mut().execution.parquet.pushdown_filters = true;
    let mut subqueries = base();
    subqueries.options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    vec![
        ("defaults", base()),
        ("one partition", SessionConfig::new().with_target_partitions(1)),
        ("sort-merge joins", merge),
        ("partitioned joins", partitioned),
        ("filters in scans", pushed),
        ("subqueries as joins", subqueries),
    ]
}

fn check(workload: &str, tables: &Tables, count: usize) {
    let Some(queries) = queries(workload) else { return };
    assert_eq!(queries.len(), count);
    runtime().block_on(async {
        let mut differences = Vec::new();
        for (name, config) in settings() {
            let session = tables.session(config).await;
            let mut tally = Tally::default();
            for (query, sql) in &queries {
                // Some texts hold more than one statement.
                for statement in sql.split(';').filter(|s| !s.trim().is_empty()) {
                    compare(&session, query, statement, &mut tally).await;
                }
            }
            eprintln!(
                "{workload}, {name}: {} joins and {} aggregates agree, {} do not",
                tally.joins,
                tally.aggregates,
                tally.differences.len()
            );
            let tried = name == "one partition";
            assert_eq!(tally.candidates > 0, tried, "{name}: {} candidates", tally.candidates);
            differences.extend(tally.differences.into_iter().map(|d| format!("{name}: {d}")));
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    });
}

#[test]
fn both_plans_of_all_tpch_queries_agree() {
    check("tpch", &tpch(), 22);
}

#[test]
fn both_plans_of_all_tpcds_queries_agree() {
    check("tpcds", &tpcds(), 99);
}
