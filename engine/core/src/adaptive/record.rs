//! What was changed, as the record keeps it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sparklet_history::{Adaptation, AdaptationKind, AdaptationReason, HotKey, RunId};
use sparklet_optimizer::OrderChange;

use super::boundary::Boundary;
use super::hot::Packing;
use super::join::AdaptiveJoinExec;
use super::known::Heavy;
use super::reorder::Surprise;
use super::rule::partitioned;
use super::uncut::Uncut;
use super::units::makespan;
use crate::exchange::Exchange;

/// Hot keys named in a record.
const KEYS_NAMED: usize = 5;

/// Most sizes that an adaptation lists, the largest first.
const SIZES_LISTED: usize = 64;

/// A join that was divided.
pub(super) fn divide_join(start: Instant, join: &AdaptiveJoinExec, slots: usize, force: bool) -> Adaptation {
    let (left, right) = join.exchanges();
    let before: Vec<u64> = partitioned(&left.sizes, &right.sizes, slots).iter().map(|p| p.weight).collect();
    let after = join.division().task_weights();
    let mut hot_keys = hot(&left);
    hot_keys.extend(hot(&right));
    let mut rows: Vec<u64> = left.sizes.iter().zip(&right.sizes).map(|(l, r)| l.rows + r.rows).collect();
    rows.sort_unstable();
    let reason = match join.division().too_large {
        Some((bytes, limit)) => AdaptationReason::BuildSideLarge { bytes, limit },
        None if force => AdaptationReason::Forced,
        None => AdaptationReason::HotBuckets {
            largest_rows: rows.last().copied().unwrap_or(0),
            median_rows: rows.get(rows.len() / 2).copied().unwrap_or(0),
        },
    };
    Adaptation {
        at_us: micros(start.elapsed()),
        stage: left.id.max(right.id) as u32,
        operator: Some(join.number()),
        kind: AdaptationKind::DivideJoin {
            on: join.template().on().iter().map(|(l, r)| format!("{l} = {r}")).collect(),
            units: join.division().units.len() as u32,
            split_buckets: join.division().split_buckets.len() as u32,
            swapped_units: join.division().units.iter().filter(|unit| unit.swapped).count() as u32,
            oversized_units: join.division().oversized() as u32,
        },
        because: reason,
        predicted_before: makespan(before.iter().copied(), slots),
        predicted_after: makespan(after.iter().copied(), slots),
        before: largest(before),
        after: largest(after),
        hot_keys,
        cost_us: micros(left.cost.exchange_cpu + right.cost.exchange_cpu),
        facts_us: micros(left.cost.facts_cpu + right.cost.facts_cpu),
        task_cpu_us: Vec::new(),
    }
}

/// An operator whose hot groups were cut.
pub(super) fn split_groups(
    start: Instant,
    exchange: &Arc<Exchange>,
    packing: &Packing,
    kind: AdaptationKind,
    operator: u64,
    slots: usize,
    force: bool,
) -> Adaptation {
    let mut rows = exchange.rows();
    rows.sort_unstable();
    let reason = AdaptationReason::HotBuckets {
        largest_rows: rows.last().copied().unwrap_or(0),
        median_rows: rows.get(rows.len() / 2).copied().unwrap_or(0),
    };
    Adaptation {
        operator: Some(operator),
        predicted_before: makespan(packing.before.iter().copied(), slots),
        predicted_after: makespan(packing.after.iter().copied(), slots),
        before: largest(packing.before.clone()),
        after: largest(packing.after.clone()),
        hot_keys: hot(exchange),
        ..of_plan(start, Some(exchange), kind, if force { AdaptationReason::Forced } else { reason })
    }
}

/// An operator with a hot partition that cannot be cut, known once it has run.
pub(super) fn left_whole(uncut: &Uncut, largest: u64, median: u64) -> Adaptation {
    let kind = AdaptationKind::LeftWhole { what: uncut.what.clone(), why: uncut.why.clone() };
    let because = AdaptationReason::HotBuckets { largest_rows: largest, median_rows: median };
    Adaptation { at_us: 0, ..of_plan(Instant::now(), None, kind, because) }
}

/// The heavy keys of an exchange.
pub(super) fn hot(exchange: &Exchange) -> Vec<HotKey> {
    let heavy = exchange.facts.heavy.iter().take(KEYS_NAMED);
    heavy
        .map(|hitter| HotKey {
            exchange: exchange.id as u32,
            key: hitter.key.as_ref().map(|key| key.iter().map(ToString::to_string).collect()),
            share: hitter.share,
        })
        .collect()
}

pub(super) fn broadcast(
    start: Instant,
    on: Vec<String>,
    exchange: Option<&Arc<Exchange>>,
    expected: Option<u64>,
) -> Adaptation {
    let size = exchange.map(|e| e.size()).unwrap_or_default();
    let because = AdaptationReason::BuildSideSmall { rows: size.rows, bytes: size.bytes, expected_rows: expected };
    of_plan(start, exchange, AdaptationKind::Broadcast { on }, because)
}

/// A join that was to be a broadcast of `exchange`.
pub(super) fn partition(
    start: Instant,
    on: Vec<String>,
    exchange: &Arc<Exchange>,
    expected_rows: Option<u64>,
) -> Adaptation {
    let because = AdaptationReason::RowsDiffer { rows: exchange.size().rows, expected_rows };
    of_plan(start, Some(exchange), AdaptationKind::Partition { on }, because)
}

/// An input of a join that was run with what the other one, `from`, says of its keys.
pub(super) fn push_keys(
    start: Instant,
    on: Vec<String>,
    exchange: &Arc<Exchange>,
    from: &Exchange,
    listed: Option<u32>,
    expected_rows: Option<u64>,
) -> Adaptation {
    let kind = AdaptationKind::PushKeys { on, listed, expected_rows, rows: exchange.size().rows };
    let because = AdaptationReason::InputFinished { rows: from.size().rows, distinct: from.facts.distinct };
    // What the exchange cost is told where it is used.
    Adaptation { cost_us: 0, facts_us: 0, ..of_plan(start, Some(exchange), kind, because) }
}

/// Joins that were still to come; `surprise` is what had other rows than expected. Costs in nano-seconds.
pub(super) fn reorder_joins(start: Instant, surprise: &Surprise, changes: Vec<OrderChange>) -> Adaptation {
    let cost = |of: fn(&OrderChange) -> f64| (changes.iter().map(of).sum::<f64>() / 1e3).round() as u64;
    let (predicted_before, predicted_after) = (cost(|change| change.cost_before), cost(|change| change.cost_after));
    let Surprise { exchange, expected_rows } = surprise;
    let because = AdaptationReason::RowsDiffer { rows: exchange.size().rows, expected_rows: Some(*expected_rows) };
    let kind = AdaptationKind::ReorderJoins { orders: changes.into_iter().map(|change| change.order).collect() };
    // What the exchange cost is told where it is used.
    let adaptation = of_plan(start, Some(exchange), kind, because);
    Adaptation { predicted_before, predicted_after, cost_us: 0, facts_us: 0, ..adaptation }
}

pub(super) fn share_subplan(start: Instant, exchange: &Arc<Exchange>, what: String, readers: usize) -> Adaptation {
    let size = exchange.size();
    let kind = AdaptationKind::ShareSubplan { what, readers: readers as u32 };
    of_plan(start, Some(exchange), kind, AdaptationReason::Repeated { rows: size.rows, bytes: size.bytes })
}

pub(super) fn run_in_stages(start: Instant, error: &str) -> Adaptation {
    let because = AdaptationReason::MemoryExhausted { message: error.to_owned() };
    of_plan(start, None, AdaptationKind::RunInStages, because)
}

pub(super) fn skip_empty(start: Instant, exchange: &Arc<Exchange>, on: Vec<String>) -> Adaptation {
    let kind = AdaptationKind::SkipEmpty { on };
    of_plan(start, Some(exchange), kind, AdaptationReason::InputEmpty)
}

/// The inputs of an operator that run first for the sake of a key that is known.
pub(super) fn begin_with_split(boundary: &Boundary) -> Option<Adaptation> {
    let (what, Heavy { run, columns, percent }) = boundary.known.clone()?;
    let because = AdaptationReason::KnownKey { run, columns, percent };
    Some(before_it_runs(AdaptationKind::BeginWithSplit { what }, because))
}

/// An operator whose inputs do not run first: `run` has found that no key is heavy.
pub(super) fn leave_out(what: String, run: RunId) -> Adaptation {
    before_it_runs(AdaptationKind::LeaveOut { what }, AdaptationReason::NoKnownKey { run })
}

fn before_it_runs(kind: AdaptationKind, because: AdaptationReason) -> Adaptation {
    Adaptation { at_us: 0, ..of_plan(Instant::now(), None, kind, because) }
}

/// Another number of slots than before.
pub(super) fn change_slots(begun: Instant, stage: u32, kind: AdaptationKind, because: AdaptationReason) -> Adaptation {
    Adaptation { stage, ..of_plan(begun, None, kind, because) }
}

/// A change of the plan as a whole, after `exchange` was finished: no operator of its own carries it out.
pub(super) fn of_plan(
    start: Instant,
    exchange: Option<&Arc<Exchange>>,
    kind: AdaptationKind,
    because: AdaptationReason,
) -> Adaptation {
    Adaptation {
        at_us: micros(start.elapsed()),
        stage: exchange.map_or(0, |e| e.id as u32),
        operator: None,
        kind,
        because,
        before: Vec::new(),
        after: Vec::new(),
        predicted_before: 0,
        predicted_after: 0,
        hot_keys: Vec::new(),
        cost_us: exchange.map_or(0, |e| micros(e.cost.exchange_cpu)),
        facts_us: exchange.map_or(0, |e| micros(e.cost.facts_cpu)),
        task_cpu_us: Vec::new(),
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn largest(mut sizes: Vec<u64>) -> Vec<u64> {
    sizes.sort_unstable_by_key(|&size| std::cmp::Reverse(size));
    sizes.truncate(SIZES_LISTED);
    sizes
}
