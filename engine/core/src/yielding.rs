//! Joins that make many rows out of few give way to others.
//!
//! DataFusion counts what an operator takes from a scan or an exchange and makes it yield now and then. A cross or nested-loop join
//! makes thousands of batches out of one that it took: an aggregate above it keeps its worker busy for minutes, in which no
//! cancellation, time limit or other query gets a turn. This rule counts what such joins give as well.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};

/// Sets a [`CooperativeExec`] on each cross and nested-loop join.
#[derive(Debug, Default)]
pub(crate) struct YieldingJoins;

impl PhysicalOptimizerRule for YieldingJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let wrap = |node: Arc<dyn ExecutionPlan>| {
            let multiplies =
                node.downcast_ref::<CrossJoinExec>().is_some() || node.downcast_ref::<NestedLoopJoinExec>().is_some();
            Ok(if multiplies {
                Transformed::yes(Arc::new(CooperativeExec::new(node)) as _)
            } else {
                Transformed::no(node)
            })
        };
        plan.transform_up(wrap).data()
    }

    fn name(&self) -> &str {
        "yielding_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use crate::{Session, SessionConfig};

    /// With one worker: if the join did not yield, the timer would fire when it is done.
    #[test]
    fn a_cross_join_lets_go() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let config =
                SessionConfig { slots: Some(1), spill_dir: folder.path().to_owned(), ..SessionConfig::default() };
            let session = Session::new(config).unwrap();
            for join in
                ["a CROSS JOIN range(0, 1000000) b", "a JOIN range(0, 1000000) b ON a.value < b.value + 2000000"]
            {
                let sql = format!("SELECT sum(a.value * b.value % 7) FROM range(0, 1000000) {join}");
                let query = session.sql(&sql, &BTreeMap::new()).await.unwrap().prepare().await.unwrap();
                let task = tokio::spawn(async move { query.collect().await });
                let start = Instant::now();
                tokio::time::sleep(Duration::from_millis(50)).await;
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
                let after = tokio::spawn(async { 7 });
                assert_eq!(after.await.unwrap(), 7);
                assert!(start.elapsed() < Duration::from_secs(20), "{join}: {:?}", start.elapsed());
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
}
