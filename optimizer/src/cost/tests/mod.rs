mod training;

use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::execution::context::SessionContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use sparklet_history::OperatorClass;

use super::*;
use crate::{SourceId, SourceMap, fingerprint_physical};

/// Two tables `facts` and `names` in memory.
fn session() -> (SessionContext, SourceMap) {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let mut sources = SourceMap::default();
    for table in ["facts", "names"] {
        let named = |column: &str| format!("{table}_{column}");
        let schema = Arc::new(Schema::new(vec![
            Field::new(named("id"), DataType::Int64, false),
            Field::new(named("label"), DataType::Utf8, false),
        ]));
        let ids = Int64Array::from_iter_values(0..1000);
        let labels = StringArray::from_iter_values((0..1000).map(|i| format!("label {i}")));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(ids), Arc::new(labels)]).unwrap();
        let memory = MemTable::try_new(schema, vec![vec![batch.clone()], vec![batch]]).unwrap();
        context.register_table(table, Arc::new(memory)).unwrap();
        let id = SourceId::Table { pipeline: "tests".into(), name: table.into() };
        sources.add_table(table, id.clone());
        sources.add_recogniser(move |scan| {
            scan.schema().fields().iter().any(|field| field.name().starts_with(table)).then(|| id.clone())
        });
    }
    (context, sources)
}

async fn plan(context: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    context.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
}

/// Features at a thousand rows a node.
fn at_rows(plan: &Arc<dyn ExecutionPlan>, sources: &SourceMap, rows: f64) -> PlanFeatures {
    let mut features = features(plan, 2, &|_| Some(rows));
    features.identify(fingerprint_physical(plan, sources).nodes.iter().map(|node| node.map(|n| n.template)));
    features
}

const JOIN: &str =
    "SELECT facts_label, count(*) FROM facts JOIN names ON facts_id = names_id WHERE names_id > 5 GROUP BY facts_label";

#[tokio::test]
async fn features_see_keys_widths_and_rows() {
    let (context, sources) = session();
    let plan = plan(&context, JOIN).await;
    let features = at_rows(&plan, &sources, 500.0);
    let of = |class: OperatorClass| features.operators.iter().find(|o| o.shape.class == class).unwrap();
    let filter = of(OperatorClass::Filter);
    assert!(filter.shape.expression_cost > 0.0);
    assert_eq!((filter.rows_in, filter.rows_out), ([500.0, 0.0], 500.0));
    let partial = of(OperatorClass::PartialAggregate);
    assert_eq!((partial.shape.keys, partial.shape.key_strings, partial.shape.functions), (1, 1, 1));
    let join = features.operators.iter().find(|o| o.rows_in[1] > 0.0).unwrap();
    assert!(matches!(join.shape.class, OperatorClass::BroadcastJoin | OperatorClass::PartitionedJoin));
    assert_eq!((join.shape.keys, join.rows_in), (1, [500.0, 500.0]));
    assert!(join.width_in[0] >= 8.0);
}

#[tokio::test]
async fn more_rows_cost_more_and_a_plan_costs_as_much_as_itself() {
    let (context, sources) = session();
    let plan = plan(&context, JOIN).await;
    let model = AnalyticModel::default();
    let (few, many) = (at_rows(&plan, &sources, 1e4), at_rows(&plan, &sources, 1e6));
    let (cheap, dear) = (model.predict(&few), model.predict(&many));
    assert!(cheap.low_us < cheap.cpu_us && cheap.cpu_us < cheap.high_us);
    assert!(dear.cpu_us > 20.0 * cheap.cpu_us);
    assert!((dear.per_operator.iter().sum::<f64>() - dear.cpu_us).abs() < 1e-6 * dear.cpu_us);
    assert_eq!(difference(&model, &many, &many), Interval { low: 0.0, high: 0.0 });
    let less = difference(&model, &many, &few);
    assert!(less.low < 0.0 && less.high < dear.cpu_us, "{less:?}");
}

#[tokio::test]
async fn what_plans_share_cancels() {
    let (context, sources) = session();
    let model = AnalyticModel::default();
    let a = at_rows(
        &plan(&context, "SELECT facts_id FROM facts WHERE facts_id > 5 ORDER BY facts_id").await,
        &sources,
        1e6,
    );
    // Another literal, another operator on top.
    let b = at_rows(
        &plan(&context, "SELECT facts_id, count(*) FROM facts WHERE facts_id > 7 GROUP BY 1").await,
        &sources,
        1e6,
    );
    let (of_a, of_b) = (model.predict(&a), model.predict(&b));
    let interval = difference(&model, &a, &b);
    let independent = (of_b.high_us - of_b.cpu_us).hypot(of_a.cpu_us - of_a.low_us);
    assert!(interval.high - (of_b.cpu_us - of_a.cpu_us) < independent, "{interval:?}");
    assert!(interval.low <= of_b.cpu_us - of_a.cpu_us && of_b.cpu_us - of_a.cpu_us <= interval.high);
}
