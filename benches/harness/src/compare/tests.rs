use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, Float64Array, Int64Array, StringArray};
use arrow::datatypes::Field;

use super::*;

fn rows(columns: Vec<ArrayRef>) -> Rows {
    let fields: Vec<Field> =
        columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    // Cut in two, so that batch boundaries never count.
    let middle = batch.num_rows() / 2;
    Rows::new(&schema, &[batch.slice(0, middle), batch.slice(middle, batch.num_rows() - middle)]).unwrap()
}

fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn floats(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn ordered(order: &[usize], limit: Option<usize>) -> Shape {
    Shape { order: order.to_vec(), limit }
}

#[track_caller]
fn same(left: &Rows, right: &Rows, shape: &Shape) {
    assert_eq!(compare(left, right, shape, None), Verdict::Same);
    assert_eq!(compare(right, left, shape, None), Verdict::Same);
}

#[track_caller]
fn different(left: &Rows, right: &Rows, shape: &Shape, says: &str) {
    for (l, r) in [(left, right), (right, left)] {
        match compare(l, r, shape, None) {
            Verdict::Different(message) if message.contains(says) => {}
            other => panic!("expected a difference that says `{says}`, got {other:?}"),
        }
    }
}

#[test]
fn order_does_not_count_without_order_by() {
    same(&rows(vec![ints(&[1, 2, 2, 3])]), &rows(vec![ints(&[2, 3, 1, 2])]), &Shape::default());
}

#[test]
fn a_changed_value_is_found() {
    let left = rows(vec![ints(&[1, 2, 3]), texts(&[Some("a"), None, Some("c")])]);
    different(
        &left,
        &rows(vec![ints(&[1, 2, 4]), texts(&[Some("a"), None, Some("c")])]),
        &Shape::default(),
        "no equal",
    );
    different(
        &left,
        &rows(vec![ints(&[1, 2, 3]), texts(&[Some("a"), None, Some("C")])]),
        &Shape::default(),
        "no equal",
    );
    different(
        &left,
        &rows(vec![ints(&[1, 2, 3]), texts(&[Some("a"), Some(""), Some("c")])]),
        &Shape::default(),
        "no equal",
    );
}

#[test]
fn null_is_not_a_text_that_looks_like_it_nor_a_float() {
    different(&rows(vec![texts(&[None])]), &rows(vec![texts(&[Some("NULL")])]), &Shape::default(), "no equal");
    different(&rows(vec![texts(&[Some("float")])]), &rows(vec![texts(&[None])]), &Shape::default(), "no equal");
    let nulls: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(1.0)]));
    different(&rows(vec![nulls]), &rows(vec![floats(&[0.0, 1.0])]), &Shape::default(), "no equal");
}

#[test]
fn a_missing_duplicate_is_found() {
    different(&rows(vec![ints(&[1, 1, 2])]), &rows(vec![ints(&[1, 2, 2])]), &Shape::default(), "");
    different(&rows(vec![ints(&[1, 1])]), &rows(vec![ints(&[1])]), &Shape::default(), "rows");
    let (left, right) = (rows(vec![floats(&[1.0, 1.0, 2.0])]), rows(vec![floats(&[1.0, 2.0, 2.0])]));
    different(&left, &right, &Shape::default(), "no equal");
}

#[test]
fn a_wrong_order_is_found() {
    let (left, right) = (rows(vec![ints(&[1, 2, 3])]), rows(vec![ints(&[1, 3, 2])]));
    different(&left, &right, &ordered(&[0], None), "row 2 is out of order");
    let left = rows(vec![ints(&[1, 1, 2]), ints(&[5, 4, 3])]);
    let swapped = rows(vec![ints(&[1, 1, 2]), ints(&[4, 5, 3])]);
    same(&left, &swapped, &ordered(&[0], None));
    different(&left, &swapped, &ordered(&[0, 1], None), "row 1 is out of order in column 2");
}

#[test]
fn other_types_and_scales_are_found() {
    different(&rows(vec![ints(&[1])]), &rows(vec![floats(&[1.0])]), &Shape::default(), "columns");
    let decimal =
        |scale| -> ArrayRef { Arc::new(Decimal128Array::from(vec![100]).with_precision_and_scale(10, scale).unwrap()) };
    different(&rows(vec![decimal(2)]), &rows(vec![decimal(3)]), &Shape::default(), "columns");
    different(&rows(vec![ints(&[1]), ints(&[1])]), &rows(vec![ints(&[1])]), &Shape::default(), "columns");
}

#[test]
fn floats_are_compared_within_a_tolerance_scaled_to_the_column() {
    same(&rows(vec![floats(&[1.0, 1e6])]), &rows(vec![floats(&[1.0 + 1e-10, 1e6 + 1e-4])]), &Shape::default());
    different(&rows(vec![floats(&[1.0, 1e6])]), &rows(vec![floats(&[1.0 + 1e-5, 1e6])]), &Shape::default(), "no equal");
    // What is left when large numbers cancel: noise of the column's size, not of the value's.
    same(&rows(vec![floats(&[0.0, 1e6])]), &rows(vec![floats(&[1e-7, 1e6])]), &Shape::default());
    different(&rows(vec![floats(&[0.0, 1e6])]), &rows(vec![floats(&[1e-3, 1e6])]), &Shape::default(), "no equal");
    same(&rows(vec![floats(&[f64::NAN, 0.0])]), &rows(vec![floats(&[-0.0, f64::NAN])]), &Shape::default());
    different(&rows(vec![floats(&[f64::INFINITY])]), &rows(vec![floats(&[f64::MAX])]), &Shape::default(), "no equal");
    different(&rows(vec![floats(&[f64::NAN])]), &rows(vec![floats(&[0.0])]), &Shape::default(), "no equal");
}

#[test]
fn rows_whose_floats_sort_another_way_are_still_paired() {
    let bit = 1.0 + f64::EPSILON;
    let left = rows(vec![floats(&[1.0, bit]), floats(&[7.0, 3.0])]);
    let right = rows(vec![floats(&[1.0, bit]), floats(&[3.0, 7.0])]);
    same(&left, &right, &Shape::default());
    different(&left, &rows(vec![floats(&[1.0, bit]), floats(&[3.0, 3.0])]), &Shape::default(), "no equal");
}

#[test]
fn float_keys_that_swap_by_noise_are_not_out_of_order() {
    let left = rows(vec![floats(&[2.0, 2.0 + 1e-12]), ints(&[1, 2])]);
    let right = rows(vec![floats(&[2.0, 2.0 + 1e-12]), ints(&[2, 1])]);
    same(&left, &right, &ordered(&[0], None));
}

#[test]
fn ties_at_the_limit_are_decided_by_the_result_without_it() {
    let shape = ordered(&[0], Some(3));
    let left = rows(vec![ints(&[9, 8, 8]), ints(&[1, 2, 3])]);
    let right = rows(vec![ints(&[9, 8, 8]), ints(&[1, 4, 3])]);
    let all = rows(vec![ints(&[9, 8, 8, 8, 1]), ints(&[1, 2, 3, 4, 5])]);
    assert_eq!(compare(&left, &right, &shape, None), Verdict::NeedsUnlimited);
    assert_eq!(compare(&left, &right, &shape, Some(&all)), Verdict::Same);
    // A row that the query does not have, and one taken twice.
    let invented = rows(vec![ints(&[9, 8, 8]), ints(&[1, 7, 3])]);
    let twice = rows(vec![ints(&[9, 8, 8]), ints(&[1, 3, 3])]);
    for wrong in [&invented, &twice] {
        assert!(matches!(compare(&left, wrong, &shape, Some(&all)), Verdict::Different(_)));
    }
    // A difference above the cut is one whatever the limit, and so is one where the limit was not reached.
    let above = rows(vec![ints(&[9, 8, 8]), ints(&[6, 2, 3])]);
    different(&left, &above, &shape, "no equal");
    different(&left, &right, &ordered(&[0], Some(4)), "no equal");
}

#[test]
fn empty_results_are_the_same_if_their_columns_are() {
    same(&rows(vec![ints(&[])]), &rows(vec![ints(&[])]), &ordered(&[0], Some(10)));
    different(&rows(vec![ints(&[])]), &rows(vec![floats(&[])]), &Shape::default(), "columns");
}
