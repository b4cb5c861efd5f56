//! What a plan is called: the same plan in another run has the same name.

use std::fmt::Write;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use sparklet_history::{Fingerprint, PlanChange};

use super::rows::for_each_node;
use crate::candidates::{RewriteNote, Rewriting};
use crate::fingerprint::PhysicalFingerprints;
use crate::source::file_scan;

/// Hash over the operators of a plan and what they stand for, literals left out: new literals make no new plan, another order, build side,
/// mode or number of partitions does.
pub fn plan_key(plan: &Arc<dyn ExecutionPlan>, fingerprints: &PhysicalFingerprints) -> Fingerprint {
    let mut text = String::new();
    let mut visit = |node: &Arc<dyn ExecutionPlan>, at: usize| {
        // Operators that only cut or merge batches come and go with sizes.
        if matches!(node.name(), "CooperativeExec" | "CoalesceBatchesExec") {
            return;
        }
        let template = fingerprints.nodes.get(at).copied().flatten().map(|identity| identity.template);
        let mode = node.downcast_ref::<HashJoinExec>().map_or("", |join| match join.partition_mode() {
            PartitionMode::CollectLeft => "collect",
            PartitionMode::Partitioned => "partitioned",
            PartitionMode::Auto => "auto",
        });
        let pushed = if filters_while_reading(node.as_ref()) { "filtered" } else { "" };
        let template = template.map(|t| t.to_string()).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {mode}{pushed} {template}", node.name());
    };
    for_each_node(plan, &mut 0, &mut visit);
    Fingerprint::of(&text)
}

const GROUPS_EARLY: &str = "groups made early";
const KEYS_DOWN: &str = "keys pushed down";

/// What was rewritten in a plan, by its record.
pub fn rewriting(changes: &[PlanChange]) -> Rewriting {
    let has = |of: &str| changes.iter().any(|c| matches!(c, PlanChange::Rewrite { name, .. } if name == of));
    Rewriting { keys: has(KEYS_DOWN), early: has(GROUPS_EARLY) }
}

/// A rewrite as a record tells of it.
pub fn rewrite_change(note: &RewriteNote) -> PlanChange {
    match note {
        RewriteNote::JoinOrder(order) => PlanChange::Rewrite {
            name: "join order".to_owned(),
            what: format!(
                "of {} relations, search cost {:.1} to {:.1} ms",
                order.relations,
                order.cost_before / 1e6,
                order.cost_after / 1e6
            ),
        },
        RewriteNote::EarlyGroups(early) => PlanChange::Rewrite {
            name: GROUPS_EARLY.to_owned(),
            what: match early.joined_later {
                0 => format!("{:.0} of {:.0} rows, before the sets of groups", early.groups, early.rows),
                1 => format!("{:.0} of {:.0} rows, before the last relation is joined", early.groups, early.rows),
                later => format!("{:.0} of {:.0} rows, before {later} relations are joined", early.groups, early.rows),
            },
        },
        RewriteNote::MergedAggregates(merged) => PlanChange::Rewrite {
            name: "aggregates merged".to_owned(),
            what: format!("{} that differ by their conditions, over {:.0} rows", merged.aggregates, merged.rows),
        },
        RewriteNote::FinerGroups(finer) => PlanChange::Rewrite {
            name: "groups of finer ones".to_owned(),
            what: format!("{} aggregates of one, which has {:.0} groups", finer.aggregates, finer.groups),
        },
        RewriteNote::OuterLater(later) => PlanChange::Rewrite {
            name: "outer join later".to_owned(),
            what: format!("of {:.0} rows instead of {:.0}", later.rows_after, later.rows_before),
        },
        RewriteNote::KeysPushed(pushed) => PlanChange::Rewrite {
            name: KEYS_DOWN.to_owned(),
            what: format!(
                "the groups by {} that matter: {:.2} % of {:.0} rows",
                pushed.key,
                pushed.share * 100.0,
                pushed.rows_before
            ),
        },
    }
}

/// True for a scan of Parquet that applies its filters row by row.
pub(super) fn filters_while_reading(node: &dyn ExecutionPlan) -> bool {
    use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
    file_scan(node).is_some_and(|scan| {
        let source = scan.file_source().downcast_ref::<ParquetSource>();
        source.is_some_and(|source| {
            source.table_parquet_options().global.pushdown_filters && FileSource::filter(source).is_some()
        })
    })
}
