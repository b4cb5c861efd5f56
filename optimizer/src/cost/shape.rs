//! The shape of an operator, read off a physical plan.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec,
};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, WindowExpr};
use sparklet_history::{OperatorClass, OperatorShape};

use super::weight;
use crate::source::file_scan;

/// What of `plan`'s root decides its cost, apart from rows. Reads no data.
pub fn shape(plan: &dyn ExecutionPlan) -> OperatorShape {
    let schema = plan.schema();
    let (width, strings) = weight::row(&schema);
    let mut shape = OperatorShape {
        class: class(plan),
        columns: count(schema.fields().len()),
        width,
        strings,
        partitions: u32::try_from(plan.output_partitioning().partition_count()).unwrap_or(u32::MAX),
        fetch: plan.fetch().map(|rows| rows as u64),
        ..OperatorShape::default()
    };
    if let Some(scan) = file_scan(plan) {
        stored(&mut shape, scan, &schema);
    } else if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        shape.expression_cost = weight::expression(filter.predicate(), &filter.input().schema());
    } else if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let input = projection.input().schema();
        let computed = |e: &f32| *e > 0.0;
        let costs: Vec<f32> = projection.expr().iter().map(|e| weight::expression(&e.expr, &input)).collect();
        shape.functions = count(costs.iter().filter(|e| computed(e)).count());
        shape.expression_cost = costs.iter().sum();
    } else if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let left = join.left().schema();
        keys(&mut shape, join.on().iter().map(|(key, _)| key), &left);
        if let Some(filter) = join.filter() {
            shape.expression_cost = weight::expression(filter.expression(), filter.schema());
        }
    } else if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
        let left = join.left().schema();
        keys(&mut shape, join.on().iter().map(|(key, _)| key), &left);
        if let Some(filter) = join.filter() {
            shape.expression_cost = weight::expression(filter.expression(), filter.schema());
        }
    } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        if let Some(filter) = join.filter() {
            shape.expression_cost = weight::expression(filter.expression(), filter.schema());
        }
    } else if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let input = aggregate.input().schema();
        let groups = aggregate.group_expr().input_exprs();
        keys(&mut shape, &groups, &input);
        shape.functions = count(aggregate.aggr_expr().len());
        if matches!(class(plan), OperatorClass::PartialAggregate | OperatorClass::SingleAggregate) {
            let of_input = aggregate.input_schema();
            for function in aggregate.aggr_expr() {
                let heavier = if function.is_distinct() { 8.0 } else { 0.0 };
                shape.expression_cost += heavier + weight::expressions(&function.expressions(), &of_input);
            }
            shape.expression_cost += weight::expressions(&groups, &of_input);
        }
    } else if let Some(sort) = plan.downcast_ref::<SortExec>() {
        let input = sort.input().schema();
        keys(&mut shape, sort.expr().iter().map(|e| &e.expr), &input);
    } else if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        let input = merge.input().schema();
        keys(&mut shape, merge.expr().iter().map(|e| &e.expr), &input);
    } else if let Some(window) = plan.downcast_ref::<WindowAggExec>() {
        windows(&mut shape, window.window_expr(), &window.input().schema());
    } else if let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() {
        windows(&mut shape, window.window_expr(), &window.input().schema());
    } else if let Some(repartition) = plan.downcast_ref::<RepartitionExec>()
        && let Partitioning::Hash(by, _) = repartition.partitioning()
    {
        keys(&mut shape, by, &schema);
    }
    shape
}

/// What `plan` does. Operators that this crate does not know are told by their names.
fn class(plan: &dyn ExecutionPlan) -> OperatorClass {
    if let Some(scan) = file_scan(plan) {
        let parquet = scan.file_source().downcast_ref::<ParquetSource>().is_some();
        return if parquet { OperatorClass::ParquetScan } else { OperatorClass::FileScan };
    }
    if plan.downcast_ref::<DataSourceExec>().is_some() {
        return OperatorClass::MemoryScan;
    }
    if plan.downcast_ref::<DataSinkExec>().is_some() {
        return OperatorClass::Write;
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return match aggregate.mode() {
            AggregateMode::Partial | AggregateMode::PartialReduce => OperatorClass::PartialAggregate,
            AggregateMode::Final | AggregateMode::FinalPartitioned => OperatorClass::FinalAggregate,
            AggregateMode::Single | AggregateMode::SinglePartitioned => OperatorClass::SingleAggregate,
        };
    }
    if plan.name() == "AdaptiveJoinExec" {
        return OperatorClass::ExchangeJoin;
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return match join.partition_mode() {
            PartitionMode::Partitioned => OperatorClass::PartitionedJoin,
            PartitionMode::CollectLeft | PartitionMode::Auto => OperatorClass::BroadcastJoin,
        };
    }
    if plan.downcast_ref::<CrossJoinExec>().is_some() {
        return OperatorClass::NestedLoopJoin;
    }
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        return match repartition.partitioning() {
            Partitioning::Hash(..) | Partitioning::Range(..) => OperatorClass::HashRepartition,
            Partitioning::RoundRobinBatch(_) | Partitioning::UnknownPartitioning(_) => OperatorClass::RoundRobin,
        };
    }
    match plan.name() {
        "FilterExec" => OperatorClass::Filter,
        "ProjectionExec" => OperatorClass::Projection,
        "SortMergeJoinExec" => OperatorClass::SortMergeJoin,
        "NestedLoopJoinExec" => OperatorClass::NestedLoopJoin,
        "SortExec(TopK)" => OperatorClass::TopK,
        "SortExec" if plan.fetch().is_some() => OperatorClass::TopK,
        "SortExec" | "PartialSortExec" => OperatorClass::Sort,
        "SortPreservingMergeExec" => OperatorClass::Merge,
        "WindowAggExec" | "BoundedWindowAggExec" => OperatorClass::Window,
        "CoalesceBatchesExec" | "CoalescePartitionsExec" | "CooperativeExec" | "BufferExec" => OperatorClass::Coalesce,
        "GlobalLimitExec" | "LocalLimitExec" => OperatorClass::Limit,
        "UnionExec" | "InterleaveExec" => OperatorClass::Union,
        "ExchangeReaderExec" => OperatorClass::Exchange,
        "RedividedJoinExec" => OperatorClass::PartitionedJoin,
        "EmptyExec" | "PlaceholderRowExec" => OperatorClass::MemoryScan,
        _ => OperatorClass::Other,
    }
}

fn keys<'a>(shape: &mut OperatorShape, keys: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>, input: &Schema) {
    for key in keys {
        shape.keys = shape.keys.saturating_add(1);
        if let Ok(data_type) = key.data_type(input) {
            shape.key_width += weight::width(&data_type);
            shape.key_strings += u16::from(weight::is_string(&data_type));
        }
    }
}

fn windows(shape: &mut OperatorShape, functions: &[Arc<dyn WindowExpr>], input: &SchemaRef) {
    shape.functions = count(functions.len());
    for function in functions {
        shape.expression_cost += weight::expressions(&function.expressions(), input);
    }
    // All functions of one operator have the same partitions and order.
    if let Some(first) = functions.first() {
        keys(shape, first.partition_by().iter().chain(first.order_by().iter().map(|e| &e.expr)), input);
    }
}

/// What the files of a scan hold, as far as they tell.
fn stored(shape: &mut OperatorShape, scan: &FileScanConfig, read: &Schema) {
    let mut bytes = 0_u64;
    let mut rows = Some(0_u64);
    for file in scan.file_groups.iter().flat_map(|group| group.iter()) {
        let size = file.object_meta.size;
        let part = file.range.as_ref().map_or(size, |range| u64::try_from(range.end - range.start).unwrap_or(0));
        bytes += part;
        let of_file = file.statistics.as_ref().and_then(|statistics| match statistics.num_rows {
            Precision::Exact(rows) | Precision::Inexact(rows) => Some(rows as f64),
            Precision::Absent => None,
        });
        rows = match (rows, of_file) {
            // A file may be cut among several groups.
            (Some(sum), Some(of_file)) => Some(sum + (of_file * part as f64 / size.max(1) as f64).round() as u64),
            _ => None,
        };
    }
    let columnar = shape.class == OperatorClass::ParquetScan;
    let (all, _) = weight::row(scan.file_schema());
    let share = if columnar { (f64::from(weight::row(read).0) / f64::from(all).max(1.0)).min(1.0) } else { 1.0 };
    shape.stored_bytes = Some((bytes as f64 * share) as u64);
    shape.stored_rows = rows;
    if let Some(filter) = scan.file_source().filter() {
        shape.expression_cost = weight::expression(&filter, scan.file_schema());
        let source = scan.file_source().downcast_ref::<ParquetSource>();
        shape.late = source.is_some_and(|source| source.table_parquet_options().global.pushdown_filters);
    }
}

fn count(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}
