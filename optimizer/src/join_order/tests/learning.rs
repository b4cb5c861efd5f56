//! Orders from metadata alone, and from what past runs counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;
use sparklet_history::{
    Completeness, Evidence, Fingerprint, NoEvidence, Observation, RunId, Scope, Subplan, data_version,
};

use super::super::block::{Block, Tree};
use super::super::graph::Graph;
use super::super::{KeptOrders, reorder, reorder_as};
use crate::cardinality::{Cardinalities, EstimateSource, Volumes};
use crate::fingerprint::fingerprint_logical;
use crate::source::{SourceId, SourceMap};

/// A table of which only the metadata are there.
#[derive(Debug)]
struct Known {
    schema: SchemaRef,
    statistics: Statistics,
}

#[async_trait]
impl TableProvider for Known {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        Some(self.statistics.clone())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(EmptyExec::new(Arc::clone(&self.schema))))
    }
}

struct Tables {
    context: SessionContext,
    sources: SourceMap,
}

impl Tables {
    fn new() -> Self {
        let mut tables = Self { context: SessionContext::new(), sources: SourceMap::default() };
        // Sales of a million rows refer to items and shops, a thousand each; both have ten kinds.
        tables.add("sales", 1_000_000, &[("item", 1, 1000), ("shop", 1, 1000), ("amount", 0, 10_000)]);
        tables.add("items", 1000, &[("id", 1, 1000), ("kind", 1, 10)]);
        tables.add("shops", 1000, &[("id", 1, 1000), ("kind", 1, 10)]);
        tables
    }

    fn add(&mut self, name: &str, rows: usize, columns: &[(&str, i64, i64)]) {
        let fields: Vec<Field> = columns.iter().map(|(name, ..)| Field::new(*name, DataType::Int64, true)).collect();
        let statistics = columns.iter().map(|(_, min, max)| ColumnStatistics {
            min_value: Precision::Exact(ScalarValue::Int64(Some(*min))),
            max_value: Precision::Exact(ScalarValue::Int64(Some(*max))),
            null_count: Precision::Exact(0),
            ..ColumnStatistics::new_unknown()
        });
        let statistics = Statistics {
            num_rows: Precision::Exact(rows),
            total_byte_size: Precision::Absent,
            column_statistics: statistics.collect(),
        };
        let table = Known { schema: Arc::new(Schema::new(fields)), statistics };
        self.context.register_table(name, Arc::new(table)).unwrap();
        let id = SourceId::Table { pipeline: "test".into(), name: name.into() };
        self.sources.add_table(name, id);
    }

    async fn plan(&self, sql: &str) -> LogicalPlan {
        let state = self.context.state();
        state.optimize(&state.create_logical_plan(sql).await.unwrap()).unwrap()
    }
}

/// Rows by fingerprint, as one run counted them.
#[derive(Default)]
struct Counted(BTreeMap<Fingerprint, u64>);

impl Counted {
    /// Counts the joins of `plan` that have all of `tables` below and no other.
    fn count(&mut self, tables: &Tables, plan: &LogicalPlan, of: &[&str], rows: u64) {
        let fingerprints = fingerprint_logical(plan, &tables.sources);
        let mut nodes = fingerprints.nodes.iter();
        let mut found = 0;
        crate::for_each_logical_node(plan, &mut |node| {
            let identity = nodes.next().copied().flatten();
            let mut below = Vec::new();
            crate::for_each_logical_node(node, &mut |n| {
                if let LogicalPlan::TableScan(scan) = n {
                    below.push(scan.table_name.table().to_owned());
                }
            });
            below.sort();
            if matches!(node, LogicalPlan::Join(_)) && below == of {
                self.0.insert(identity.unwrap().fingerprint, rows);
                found += 1;
            }
        });
        assert!(found > 0, "no join of {of:?} in\n{}", plan.display_indent());
    }
}

fn version() -> Fingerprint {
    data_version(&[])
}

impl Evidence for Counted {
    fn by_fingerprint(&self, _: Scope<'_>, subplan: &Subplan, _: usize) -> Vec<Observation> {
        let rows = self.0.get(&subplan.fingerprint).copied();
        rows.map(|rows| Observation {
            run: RunId::from_bits(7),
            at: std::time::SystemTime::UNIX_EPOCH.into(),
            environment: "test".into(),
            operator: "HashJoinExec".into(),
            rows_in: 0,
            rows,
            bytes: None,
            elapsed_us: 0,
            peak_memory_bytes: None,
            spilled_bytes: 0,
            partitions: 1,
            skew: 1.0,
            completeness: Completeness::Complete,
            data_version: version(),
        })
        .into_iter()
        .collect()
    }

    fn by_template(&self, _: Scope<'_>, _: &Fingerprint, _: usize) -> Vec<(Fingerprint, Observation)> {
        Vec::new()
    }
}

const SCOPE: Scope<'static> = Scope { pipeline: "test", environment: "test" };

/// Tables in the order in which a plan reads them.
fn scans(plan: &LogicalPlan) -> Vec<String> {
    let mut names = Vec::new();
    crate::for_each_logical_node(plan, &mut |node| {
        if let LogicalPlan::TableScan(scan) = node {
            names.push(scan.table_name.table().to_owned());
        }
    });
    names
}

/// The table that joins last: beside the join of the other two.
fn last(plan: &LogicalPlan) -> String {
    let mut last = None;
    crate::for_each_logical_node(plan, &mut |node| {
        if let (LogicalPlan::Join(join), None) = (node, &last) {
            let sides = [&join.left, &join.right].map(|side| scans(side));
            last = sides.into_iter().find(|names| names.len() == 1).and_then(|names| names.into_iter().next());
        }
    });
    last.unwrap()
}

/// The block below what only reads its rows.
fn topmost(plan: &LogicalPlan) -> Block<'_> {
    Block::of(plan).unwrap().unwrap_or_else(|| topmost(plan.inputs()[0]))
}

const SQL: &str = "select count(*) from sales join items on sales.item = items.id join shops on sales.shop = shops.id \
                   where items.kind between 1 and 5 and shops.kind = 3";

#[tokio::test]
async fn metadata_alone_put_the_selective_table_first() {
    let tables = Tables::new();
    let plan = tables.plan(SQL).await;
    assert_eq!(last(&plan), "shops");
    let cardinalities = Cardinalities::new(&NoEvidence, SCOPE, &tables.sources);
    let reordered = reorder(&plan, &cardinalities).expect("another order is cheaper");
    assert_eq!(last(&reordered.plan), "items");
    let whole = cardinalities.of_plan(&reordered.plan)[0];
    assert_eq!(whole.source, EstimateSource::Statistics);
    assert!(cardinalities.evidence().is_empty());
}

#[tokio::test]
async fn a_plan_is_named_once_and_another_one_apart() {
    let tables = Tables::new();
    let cardinalities = Cardinalities::new(&NoEvidence, SCOPE, &tables.sources).at(Volumes::new(&[], []));
    let plans = [tables.plan(SQL).await, tables.plan("select amount from sales where shop = 3").await];
    let [named, other] = plans.each_ref().map(|plan| cardinalities.named(plan));
    assert!(Arc::ptr_eq(&named, &cardinalities.named(&plans[0].clone())));
    for (plan, named) in plans.iter().zip([named, other]) {
        assert_eq!(*named, fingerprint_logical(plan, &tables.sources));
    }
}

#[tokio::test]
async fn what_runs_counted_is_stronger_than_metadata() {
    let tables = Tables::new();
    let plan = tables.plan(SQL).await;
    let by_metadata = reorder(&plan, &Cardinalities::new(&NoEvidence, SCOPE, &tables.sources)).unwrap().plan;
    // Nearly all sales are of shops of that kind: what metadata cannot know. The plan as written is the better one.
    let mut counted = Counted::default();
    counted.count(&tables, &by_metadata, &["sales", "shops"], 990_000);
    let cardinalities = Cardinalities::new(&counted, SCOPE, &tables.sources).at(Volumes::new(&[], []));
    let learned = reorder(&plan, &cardinalities);
    let learned = learned.map_or(plan.clone(), |reordered| reordered.plan);
    assert_eq!(last(&learned), "shops");
    assert_eq!(cardinalities.evidence(), [RunId::from_bits(7)]);
    // The run of that one tells that few sales are left by it: nothing changes any more.
    counted.count(&tables, &plan, &["items", "sales"], 500_000);
    let cardinalities = Cardinalities::new(&counted, SCOPE, &tables.sources).at(Volumes::new(&[], []));
    let learned = reorder(&plan, &cardinalities);
    assert_eq!(last(&learned.map_or(plan.clone(), |reordered| reordered.plan)), "shops");
}

#[tokio::test]
async fn joins_that_never_ran_take_over_what_was_learned_of_their_edges() {
    let tables = Tables::new();
    let plan = tables.plan(SQL).await;
    let by_metadata = reorder(&plan, &Cardinalities::new(&NoEvidence, SCOPE, &tables.sources)).unwrap().plan;
    let mut counted = Counted::default();
    counted.count(&tables, &by_metadata, &["sales", "shops"], 990_000);
    let cardinalities = Cardinalities::new(&counted, SCOPE, &tables.sources).at(Volumes::new(&[], []));
    let profiles = cardinalities.profiles(&by_metadata);
    let block = topmost(&by_metadata);
    let mut graph = Graph::new(&block, &profiles).unwrap();
    let all = 0b111;
    let before = graph.rows(all);
    for &(join, left, right) in &block.joins {
        if let Some(known) = profiles.observed(join) {
            assert!(graph.learn(left, right, known.rows));
            // Told once, it is no news.
            assert!(!graph.learn(left, right, known.rows));
            assert!((graph.rows(left | right) - 990_000.0).abs() < 1.0);
        }
    }
    let factor = graph.rows(all) / before;
    assert!((factor - 9.9).abs() < 0.2, "a tenth of the rows was expected, nearly all came: {factor}");
    // Whoever asks about the plan is told the same, once it was looked at.
    let _ = reorder(&by_metadata, &cardinalities);
    let mut estimates = cardinalities.of_plan(&by_metadata).into_iter();
    let mut whole = None;
    crate::for_each_logical_node(&by_metadata, &mut |node| {
        let estimate = estimates.next().unwrap();
        if matches!(node, LogicalPlan::Join(_)) {
            whole.get_or_insert(estimate);
        }
    });
    let whole = whole.unwrap();
    assert!(matches!(whole.source, EstimateSource::Edges { .. }), "{whole:?}");
    assert!((whole.rows / graph.rows(all) - 1.0).abs() < 0.01, "{whole:?}");
}

#[tokio::test]
async fn more_rows_above_a_key_were_more_rows_below_it() {
    let tables = Tables::new();
    // The join of sales and shops was cut short by what was learned of items, so only the whole is known.
    let plan = tables
        .plan("select count(*) from sales join shops on sales.shop = shops.id join items on sales.item = items.id where shops.kind = 3")
        .await;
    let mut counted = Counted::default();
    counted.count(&tables, &plan, &["items", "sales", "shops"], 990_000);
    let cardinalities = Cardinalities::new(&counted, SCOPE, &tables.sources).at(Volumes::new(&[], []));
    let profiles = cardinalities.profiles(&plan);
    let block = topmost(&plan);
    let mut graph = Graph::new(&block, &profiles).unwrap();
    let all = 0b111;
    let (join, left, right) = *block.joins.last().unwrap();
    assert_eq!(left | right, all);
    let below = if left.count_ones() == 2 { left } else { right };
    assert!((graph.rows(below) - 100_000.0).abs() < 1_000.0, "{}", graph.rows(below));
    graph.learn(left, right, profiles.observed(join).unwrap().rows);
    assert!((graph.rows(below) - 990_000.0).abs() < 10_000.0, "{}", graph.rows(below));
    assert!((graph.rows(all) - 990_000.0).abs() < 1.0);
}

#[tokio::test]
async fn a_table_that_is_looked_up_adds_no_rows_whatever_another_ones_filter_kept() {
    let tables = Tables::new();
    // A tenth of the items is asked for, and nearly all sales are of them: that says nothing of shops.
    let plan = tables
        .plan("select count(*) from sales join shops on sales.shop = shops.id join items on sales.item = items.id where items.kind = 3")
        .await;
    let mut counted = Counted::default();
    counted.count(&tables, &plan, &["items", "sales", "shops"], 990_000);
    let cardinalities = Cardinalities::new(&counted, SCOPE, &tables.sources).at(Volumes::new(&[], []));
    let profiles = cardinalities.profiles(&plan);
    let block = topmost(&plan);
    let mut graph = Graph::new(&block, &profiles).unwrap();
    let (join, left, right) = *block.joins.last().unwrap();
    let below = if left.count_ones() == 2 { left } else { right };
    graph.learn(left, right, profiles.observed(join).unwrap().rows);
    assert!(graph.rows(below) < 1_000_001.0, "{}", graph.rows(below));
    // A table of which more rows are found than are looked for has values twice.
    let (sales, shops) = (0b001, 0b010);
    assert!(graph.rows(sales | shops) < 1_000_001.0);
    graph.learn(sales, shops, 3_000_000.0);
    assert!((graph.rows(sales | shops) - 3_000_000.0).abs() < 1.0);
}

#[tokio::test]
async fn an_order_is_kept_with_other_literals_whatever_is_known_of_them() {
    let tables = Tables::new();
    let plan = tables.plan(SQL).await;
    let nothing = Cardinalities::new(&NoEvidence, SCOPE, &tables.sources);
    let first = reorder(&plan, &nothing).expect("another order is cheaper");
    assert_eq!(last(&first.plan), "items");
    let other = tables.plan(&SQL.replace("and 5", "and 7").replace("kind = 3", "kind = 4")).await;
    let mut counted = Counted::default();
    let by_metadata = reorder(&other, &nothing).unwrap().plan;
    counted.count(&tables, &by_metadata, &["sales", "shops"], 990_000);
    let cardinalities = Cardinalities::new(&counted, SCOPE, &tables.sources).at(Volumes::new(&[], []));
    assert!(reorder(&other, &cardinalities).is_none(), "what is known of these literals leads elsewhere");
    let kept = reorder_as(&other, &cardinalities, &KeptOrders::new(&first.orders)).unwrap();
    assert_eq!((last(&kept.plan), &kept.orders), ("items".to_owned(), &first.orders));
    // Of other relations, or no order at all: it is looked for.
    let mut foreign = first.orders.clone();
    foreign[0].relations.reverse();
    let mut damaged = first.orders.clone();
    damaged[0].tree.pop();
    for orders in [foreign, damaged] {
        let found = reorder_as(&other, &cardinalities, &KeptOrders::new(&orders)).unwrap();
        assert!(found.because.is_empty(), "{orders:?}");
    }
}

#[test]
fn trees_are_read_as_they_were_written() {
    let leaf = |relation| Box::new(Tree::Relation(relation));
    let tree = Tree::Join(Box::new(Tree::Join(leaf(2), leaf(0))), Box::new(Tree::Join(leaf(1), leaf(3))));
    assert_eq!(Tree::from_postfix(&tree.to_postfix(), 4), Some(tree.clone()));
    let wrong: [&[Option<u32>]; 6] = [
        &[],
        &[None],
        &[Some(0), Some(1)],
        &[Some(0), Some(0), None],
        &[Some(0), Some(9), None],
        &[Some(u32::MAX), Some(1), None],
    ];
    for postfix in wrong {
        assert_eq!(Tree::from_postfix(postfix, 2), None, "{postfix:?}");
    }
    assert_eq!(Tree::from_postfix(&tree.to_postfix(), 5), None);
}
