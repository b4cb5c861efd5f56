//! The numbers that a learner sees of an operator.

use sparklet_history::OperatorClass;

use super::features::OperatorFeatures;

/// Numbers of an operator.
pub(crate) const FEATURES: usize = 26;

/// Features of an operator; `base_us` is what the analytic terms say. Counts and sizes are logarithms to base 2.
pub(crate) fn vector(operator: &OperatorFeatures, base_us: f64, slots: u32) -> [f32; FEATURES] {
    let shape = &operator.shape;
    let log = |x: f64| (x.max(0.0) + 1.0).log2() as f32;
    let [first, others] = operator.rows_in;
    let partitions = f64::from(shape.partitions.max(1));
    [
        shape.class as usize as f32,
        f32::from(u8::from(joins(shape.class))),
        log(base_us),
        log(first),
        log(others),
        log(operator.rows_out),
        log(operator.rows_out) - log(first + others),
        log(first) - log(others),
        log(first / partitions),
        operator.width_in[0] as f32,
        operator.width_in[1] as f32,
        shape.width,
        f32::from(shape.columns),
        f32::from(shape.strings),
        f32::from(shape.keys),
        shape.key_width,
        f32::from(shape.key_strings),
        f32::from(shape.functions),
        log(f64::from(shape.expression_cost)),
        partitions.min(1024.0).log2() as f32,
        log(shape.fetch.map_or(0.0, |rows| rows as f64)),
        log(shape.stored_bytes.unwrap_or(0) as f64),
        log(shape.stored_bytes.unwrap_or(0) as f64 / first.max(1.0)),
        f32::from(u8::from(shape.late)),
        log(operator.spilled_bytes),
        f64::from(slots.clamp(1, 1024)).log2() as f32,
    ]
}

fn joins(class: OperatorClass) -> bool {
    matches!(
        class,
        OperatorClass::PartitionedJoin
            | OperatorClass::BroadcastJoin
            | OperatorClass::SortMergeJoin
            | OperatorClass::NestedLoopJoin
            | OperatorClass::ExchangeJoin
    )
}
