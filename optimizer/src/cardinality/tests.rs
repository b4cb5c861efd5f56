//! Estimates from metadata.

use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::logical_expr::{Expr, col, lit};

use super::join::{KeySide, asked_for, divisor, matching_share};
use super::profile::Profile;
use super::selectivity::filtered;

/// 10,000 rows: a key, a day of a year, a text of few values, one of many.
fn profile() -> (Profile, DFSchema) {
    let fields = vec![
        Field::new("id", DataType::Int32, false),
        Field::new("day", DataType::Int32, true),
        Field::new("kind", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
    ];
    let schema = std::sync::Arc::new(Schema::new(fields));
    let ints = |min, max, nulls| ColumnStatistics {
        min_value: Precision::Exact(ScalarValue::Int32(Some(min))),
        max_value: Precision::Exact(ScalarValue::Int32(Some(max))),
        null_count: Precision::Exact(nulls),
        ..ColumnStatistics::new_unknown()
    };
    let texts = |bytes| ColumnStatistics {
        min_value: Precision::Exact(ScalarValue::from("aaaa")),
        max_value: Precision::Exact(ScalarValue::from("zzzz")),
        null_count: Precision::Exact(0),
        byte_size: Precision::Inexact(bytes),
        ..ColumnStatistics::new_unknown()
    };
    // Four values take two bits a row; values one after the other take eight bytes.
    let column_statistics = vec![ints(1, 10_000, 0), ints(1, 365, 1000), texts(2_612), texts(80_080)];
    let statistics =
        Statistics { num_rows: Precision::Exact(10_000), total_byte_size: Precision::Absent, column_statistics };
    let profile = Profile::of_statistics(&schema, &statistics);
    (profile, DFSchema::try_from(schema).unwrap())
}

fn kept(predicate: Expr) -> f64 {
    let (profile, schema) = profile();
    filtered(profile, &predicate, &schema).rows
}

#[test]
fn distinct_values_follow_from_ranges_and_sizes() {
    let (profile, _) = profile();
    let distinct: Vec<f64> = profile.columns.iter().map(|c| c.distinct).collect();
    assert_eq!(distinct[..2], [10_000.0, 365.0]);
    assert!((2.0..=4.0).contains(&distinct[2]), "{distinct:?}");
    assert!(distinct[3] > 5_000.0, "{distinct:?}");
}

#[test]
fn conditions_keep_their_share() {
    assert!((kept(col("day").eq(lit(7))) - 9_000.0 / 365.0).abs() < 1.0);
    assert!((kept(col("day").between(lit(1), lit(73))) - 1_800.0).abs() < 20.0);
    assert!((kept(col("day").gt_eq(lit(1)).and(col("day").lt_eq(lit(73)))) - 1_800.0).abs() < 20.0);
    assert!((kept(col("day").is_null()) - 1_000.0).abs() < 1.0);
    assert!((kept(col("id").in_list(vec![lit(1), lit(2), lit(3)], false)) - 3.0).abs() < 0.1);
    let (known, schema) = profile();
    let (day, other) = (col("day").eq(lit(7)), col("day").eq(lit(9)));
    let days = filtered(known, &day.or(other), &schema);
    assert!(
        (days.rows - 2.0 * 9_000.0 / 365.0).abs() < 1.0 && (days.columns[1].distinct - 2.0).abs() < 1e-9,
        "{days:?}"
    );
    assert!(kept(col("day").eq(lit(400))) < 1.0);
    assert!(kept(col("day").not_eq(lit(7))) > 8_000.0);
    let either = kept(col("id").lt_eq(lit(1000)).or(col("id").gt(lit(9000))));
    assert!((1_700.0..2_100.0).contains(&either), "{either}");
    assert!((2_400.0..5_100.0).contains(&kept(col("kind").eq(lit("bbbb")))));
}

#[test]
fn keys_divide_by_the_values_of_the_table_they_are_the_key_of() {
    let side = |distinct: &[f64], rows| KeySide { distinct: distinct.to_vec(), of_rows: Some(rows) };
    // A foreign key whose range is wider than the key has values.
    assert!((divisor(&side(&[6e6], 6e6), &side(&[1.5e6], 1.5e6)) - 1.5e6).abs() < 1.0);
    // A key of two columns.
    assert!((divisor(&side(&[2e5, 1e4], 8e5), &side(&[2e5, 1e4], 6e6)) - 8e5).abs() < 1.0);
    // No key on either side.
    assert!((divisor(&side(&[100.0], 1e6), &side(&[300.0], 1e6)) - 300.0).abs() < 1e-6);
}

#[test]
fn a_calendar_is_asked_for_days_on_which_something_was_sold() {
    // 2 M sales on 1,826 of the 73,049 days that the calendar has.
    let sold_on = |days_asked_for: f64| 2e6 * days_asked_for / asked_for(73_049.0, days_asked_for, 1_826.0);
    assert!((sold_on(73_049.0) - 2e6).abs() < 1.0);
    assert!((sold_on(365.0) - 2e6 * 365.0 / 1_826.0).abs() < 1.0);
    // Neither the table that refers to all keys of another, nor one that refers to some, changes by it.
    assert!((asked_for(1_826.0, 10.0, 1_826.0) - 1_826.0).abs() < 1e-9);
    assert!((asked_for(100.0, 10.0, 1_826.0) - 100.0).abs() < 1e-9);
}

#[test]
fn semi_joins_keep_what_can_have_a_partner() {
    let side = |distinct: f64, rows| KeySide { distinct: vec![distinct], of_rows: Some(rows) };
    assert!((matching_share(&side(1000.0, 1e6), &side(1000.0, 1000.0), 100.0) - 0.1).abs() < 1e-6);
    assert!((matching_share(&side(1000.0, 1e6), &side(1000.0, 1e6), 1e6) - 1.0).abs() < 1e-6);
}

#[test]
fn errors_of_parts_add_as_squares_of_their_logarithms() {
    assert!((super::combined([2.0]) - 2.0).abs() < 1e-9);
    assert!((super::combined([2.0; 4]) - 4.0).abs() < 1e-9);
    assert!(super::combined([1e4; 9]) <= 1e4);
}
