//! What may be cut, by the shape of the plan.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use sparklet_history::Reduction::{DynamicFilter, EmptyBuildSide, Limit};

use super::*;
use crate::fingerprint::tests::{Tables, runtime, shop};

fn with_rows() -> Tables {
    let mut tables = shop();
    let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(vec![
        datafusion::arrow::datatypes::Field::new("k", datafusion::arrow::datatypes::DataType::Int64, true),
        datafusion::arrow::datatypes::Field::new("v", datafusion::arrow::datatypes::DataType::Int64, true),
    ]));
    for (name, rows) in [("small", 10i64), ("large", 5000)] {
        let column = || {
            Arc::new(datafusion::arrow::array::Int64Array::from_iter_values(0..rows))
                as datafusion::arrow::array::ArrayRef
        };
        let batch =
            datafusion::arrow::record_batch::RecordBatch::try_new(Arc::clone(&schema), vec![column(), column()])
                .unwrap();
        tables.add(name, Arc::clone(&schema), std::iter::once(batch));
    }
    tables
}

/// `(operator, reductions)` of the nodes that have any.
fn check(config: SessionConfig, sql: &str) -> Vec<(String, Vec<Reduction>)> {
    let tables = with_rows();
    runtime().block_on(async {
        let (_, plan) = tables.session(config).await.plans(sql).await;
        let found = reductions(&plan);
        let mut nodes = Vec::new();
        fn visit(plan: &Arc<dyn ExecutionPlan>, into: &mut Vec<String>) {
            into.push(plan.name().to_owned());
            plan.children().into_iter().for_each(|c| visit(c, into));
        }
        visit(&plan, &mut nodes);
        assert_eq!(nodes.len(), found.len());
        nodes.into_iter().zip(found).filter(|(_, r)| !r.is_empty()).collect()
    })
}

fn one() -> SessionConfig {
    SessionConfig::new().with_target_partitions(1)
}

fn at(node: &str, reductions: &[Reduction]) -> (String, Vec<Reduction>) {
    (node.to_owned(), reductions.to_vec())
}

#[test]
fn a_limit_cuts_down_to_what_blocks() {
    let mut plain = one();
    let optimizer = &mut plain.options_mut().optimizer;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    assert_eq!(check(plain.clone(), "select k + 1 from large where v > 3 limit 5"), [at("DataSourceExec", &[Limit])]);
    assert_eq!(check(plain.clone(), "select v, count(*) from large group by v order by 2"), []);
    // The sort reads all that is below it, the aggregate too.
    assert_eq!(check(plain.clone(), "select * from (select k from large where v > 3 order by v limit 5)"), []);
    assert_eq!(
        check(plain, "select k, count(*) from large where v > 3 group by k having count(*) > 1 limit 5"),
        [at("AggregateExec", &[Limit])]
    );
}

#[test]
fn a_learned_filter_cuts_up_to_its_maker() {
    let cuts = check(one(), "select * from large where v > 3 order by v limit 5");
    assert_eq!(cuts, [at("FilterExec", &[DynamicFilter]), at("DataSourceExec", &[DynamicFilter])]);
    let cuts = check(one(), "select large.v from large join small on large.k = small.k");
    assert_eq!(cuts, [at("DataSourceExec", &[DynamicFilter, EmptyBuildSide])], "the probe side only, and not the join");
}

#[test]
fn causes_name_their_nodes() {
    let tables = with_rows();
    runtime().block_on(async {
        let (_, plan) =
            tables.session(one()).await.plans("select large.v from large join small on large.k = small.k").await;
        let causes = possible_reductions(&plan);
        let probe = causes.len() - 1;
        assert_eq!(
            causes[probe],
            [
                PossibleReduction::DynamicFilter { by: Some(probe - 2), at: probe },
                PossibleReduction::EmptyBuildSide { by: probe - 2, build: probe - 1 },
            ]
        );
    });
}

#[test]
fn a_sort_merge_join_stops_early() {
    let mut merge = SessionConfig::new().with_target_partitions(2);
    merge.options_mut().optimizer.prefer_hash_join = false;
    let cuts = check(merge, "select large.v from large join small on large.k = small.k");
    assert!(
        cuts.iter().all(|(_, r)| r == &[Limit]) && cuts.iter().filter(|(n, _)| n == "SortExec").count() == 2,
        "{cuts:?}"
    );
    assert!(!cuts.iter().any(|(n, _)| n == "DataSourceExec" || n == "SortMergeJoinExec"), "{cuts:?}");
}
