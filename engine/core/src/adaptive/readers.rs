//! When the rows of an exchange are given up: once the operators of the last plan have read them.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;

use super::join::AdaptiveJoinExec;
use super::parts::PartsExec;
use crate::exchange::{Exchange, ExchangeReaderExec};

/// Lets the exchanges that `plan` reads, the last one of its query, give up their rows when they have been read.
pub(super) fn free_when_read(plan: &Arc<dyn ExecutionPlan>) {
    let mut readers: Vec<(Arc<Exchange>, usize)> = Vec::new();
    if !count_readers(plan, &mut readers) {
        return;
    }
    readers.into_iter().for_each(|(exchange, readers)| exchange.expect_readers(readers));
}

/// Adds the operators that read exchanges; false where a part of `plan` may run twice, or reads what does not show.
fn count_readers(plan: &Arc<dyn ExecutionPlan>, readers: &mut Vec<(Arc<Exchange>, usize)>) -> bool {
    let mut count = |exchange: Arc<Exchange>| match readers.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &exchange))
    {
        Some((_, readers)) => *readers += 1,
        None => readers.push((exchange, 1)),
    };
    if let Some(join) = AdaptiveJoinExec::of(plan) {
        let (left, right) = join.exchanges();
        [left, right].into_iter().for_each(count);
        return true;
    }
    if let Some(reader) = plan.downcast_ref::<ExchangeReaderExec>() {
        reader.tells();
        count(Arc::clone(reader.exchange()));
        return true;
    }
    if plan.is::<RecursiveQueryExec>() || PartsExec::of(plan).is_some() {
        return false;
    }
    plan.children().into_iter().all(|child| count_readers(child, readers))
}
