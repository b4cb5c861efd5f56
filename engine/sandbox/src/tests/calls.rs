//! What works.

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;

use super::{Setting, columnar, limits, module};
use crate::{Compiler, Declared, Limits, Module, Wanted};

pub(super) const PLAIN: &str = r#"(module
  (func (export "margin") (param f64 f64) (result f64) (f64.sub (local.get 0) (local.get 1)))
  (func (export "twice") (param i32) (result i32) (i32.shl (local.get 0) (i32.const 1)))
  (func (export "quotient") (param i64 i64) (result i64) (i64.div_s (local.get 0) (local.get 1)))
  (func (export "seven") (result i32) (i32.const 7))
  (func (export "_hidden") (param i32) (result i32) (local.get 0)))"#;

#[tokio::test(flavor = "multi_thread")]
async fn plain_functions() {
    let setting = Setting::new([module(PLAIN)]);
    assert_eq!(setting.value("SELECT margin(10.5, 4)").await, "6.5");
    assert_eq!(setting.value("SELECT twice(21) + seven()").await, "49");
    assert_eq!(setting.value("SELECT margin(NULL, 4)").await, "");
    let rows = "SELECT a, margin(a, b) AS m FROM (VALUES (1, 2), (3, NULL), (NULL, 4), (10, 1)) t(a, b) ORDER BY m, a";
    insta::assert_snapshot!(setting.rows(rows).await, @r"
    +----+------+
    | a  | m    |
    +----+------+
    | 1  | -1.0 |
    | 10 | 9.0  |
    | 3  |      |
    |    |      |
    +----+------+
    ");
    let sum = "SELECT sum(quotient(v, 3)) = sum(v / 3) FROM generate_series(1, 2500) t(v)";
    assert_eq!(setting.value(sum).await, "true");
    // The guest is never called where an argument is NULL, nor where a branch is not taken.
    assert_eq!(setting.value("SELECT count(quotient(v, NULL)) FROM generate_series(1, 250) t(v)").await, "0");
    let guarded = "SELECT sum(CASE WHEN v <> 0 THEN quotient(10, v) ELSE 0 END) FROM (VALUES (0), (5)) t(v)";
    assert_eq!(setting.value(guarded).await, "2");
    let error = setting.error("SELECT quotient(v, v - 7) FROM generate_series(1, 250) t(v)").await;
    assert_eq!(error.to_string(), "function `quotient` of `test.wasm`: trapped: integer divide by zero, at (7, 0)");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_functions_with_declared_types() {
    let text = r#"(module
      (func (export "late") (param i32 i32) (result i32) (i32.gt_s (local.get 0) (local.get 1)))
      (func (export "next") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))
      (func (export "tick") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"#;
    let functions = ["late(Date32, Date32) -> Boolean", "next(Int8) -> Int8", "tick(Timestamp(us)) -> Timestamp(us)"];
    let functions = functions.iter().map(|t| Wanted::parse(t).unwrap()).collect();
    let declared = Declared { functions, ..Declared::default() };
    let module = Module::load(text.into(), "t.wasm", declared.clone(), &Compiler::default()).unwrap();
    let setting = Setting::new([module]);
    assert_eq!(setting.value("SELECT late(DATE '2020-01-02', DATE '2020-01-01')").await, "true");
    assert_eq!(setting.value("SELECT next(arrow_cast(126, 'Int8'))").await, "127");
    assert_eq!(setting.value("SELECT tick(TIMESTAMP '2020-01-01')").await, "2020-01-01T00:00:00.000001");
    let error = setting.error("SELECT next(arrow_cast(127, 'Int8'))").await;
    assert_eq!(error.to_string(), "function `next` of `t.wasm`: its result 128 in row 0 of the batch is no Int8");
    let wrong = Declared { functions: vec![Wanted::parse("next(Utf8) -> Int8").unwrap()], ..declared };
    let error = Module::load(text.into(), "t.wasm", wrong, &Compiler::default()).unwrap_err();
    assert!(error.to_string().contains("cannot be (Utf8) -> Int8: the module has (Int32) -> Int32"), "{error}");
}

/// Interpreters lose some memory with each call: what has lost much of it is replaced before a call fails.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_has_grown_is_not_used_again() {
    let text = r#"(module (memory 1)
      (func (export "grows") (param i64) (result i32) (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0))))"#;
    // 64 pages: without others in its place, the first instance has no more after seven batches.
    let declared = Declared { limits: Limits { memory: 4 << 20, ..limits() }, ..Declared::default() };
    let module = Module::load(text.into(), "test.wasm", declared, &Compiler::default()).unwrap();
    let setting = Setting::with_batches(1, 10, [module]);
    let (found, scope) = setting.batches("SELECT grows(value) AS g FROM generate_series(1, 1000)").await;
    let grown: i64 = found
        .unwrap()
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().values().to_vec())
        .map(i64::from)
        .sum();
    assert_eq!(grown, 1000);
    let used = &scope.uses()[0];
    assert_eq!((used.calls, used.failures), (100, 0));
    assert!((20..50).contains(&used.instances), "{used:?}");
}

/// `plus_one(Int64)`: rows to a place of its own.
pub(super) fn plus_one() -> String {
    columnar(
        r#"{"abi":"1.0","functions":[{"name":"plus_one","args":["Int64"],"returns":"Int64"}]}"#,
        r#"
  (func (export "plus_one") (param $batch i32) (param $out i32) (result i32)
    (local $rows i32) (local $in i32) (local $to i32) (local $i i32)
    (local.set $rows (i32.load (local.get $batch)))
    (local.set $in (i32.load offset=16 (i32.load offset=8 (local.get $batch))))
    (local.set $to (i32.const 1024))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
      (i64.store (i32.add (local.get $to) (i32.shl (local.get $i) (i32.const 3)))
        (i64.add (i64.const 1) (i64.load (i32.add (local.get $in) (i32.shl (local.get $i) (i32.const 3))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (call $col (local.get $out) (i32.const 5) (local.get $to) (i32.shl (local.get $rows) (i32.const 3)))
    (i32.const 0))"#,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn columnar_functions() {
    let setting = Setting::new([module(&plus_one())]);
    assert_eq!(setting.value("SELECT plus_one(41)").await, "42");
    let same = "SELECT sum(plus_one(v)) - sum(v + 1) FROM generate_series(1, 2500) t(v)";
    assert_eq!(setting.value(same).await, "0");
    let nulls = "SELECT count(plus_one(nullif(v, 5))) FROM generate_series(1, 2500) t(v)";
    assert_eq!(setting.value(nulls).await, "2499");
    let (_, scope) = setting.batches("SELECT plus_one(v) FROM generate_series(1, 2500) t(v)").await;
    let uses = scope.uses();
    assert_eq!((uses[0].calls, uses[0].rows, uses[0].failures), (25, 2500, 0));
    assert!(uses[0].instances <= 2, "{uses:?}");
    assert_eq!(setting.pool.reserved(), 0);
}

/// A sum of Int64 in groups, kept in a table of 1,000 words.
pub(super) fn total() -> String {
    columnar(
        r#"{"name":"total","kind":"aggregate","args":["Int64"],"returns":"Int64","state":["Int64"]}"#,
        r#"
  (global $known (mut i32) (i32.const 0))
  (func (export "total_new") (result i32) i32.const 1)
  (func $add (export "total_update") (param $h i32) (param $batch i32) (param $ids i32) (param $n i32) (result i32)
    (local $rows i32) (local $in i32) (local $i i32) (local $at i32)
    (block $full (loop $clear
      (br_if $full (i32.ge_u (global.get $known) (local.get $n)))
      (i64.store (i32.add (i32.const 1024) (i32.shl (global.get $known) (i32.const 3))) (i64.const 0))
      (global.set $known (i32.add (global.get $known) (i32.const 1)))
      (br $clear)))
    (local.set $rows (i32.load (local.get $batch)))
    (local.set $in (i32.load offset=16 (i32.load offset=8 (local.get $batch))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
      (local.set $at (i32.add (i32.const 1024) (i32.shl
        (i32.load (i32.add (local.get $ids) (i32.shl (local.get $i) (i32.const 2)))) (i32.const 3))))
      (i64.store (local.get $at) (i64.add (i64.load (local.get $at))
        (i64.load (i32.add (local.get $in) (i32.shl (local.get $i) (i32.const 3))))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (i32.const 0))
  (func (export "total_merge") (param i32 i32 i32 i32) (result i32)
    (call $add (local.get 0) (local.get 1) (local.get 2) (local.get 3)))
  (func $take (param $n i32)
    (memory.copy (i32.const 20000) (i32.const 1024) (i32.shl (local.get $n) (i32.const 3)))
    (memory.copy (i32.const 1024) (i32.add (i32.const 1024) (i32.shl (local.get $n) (i32.const 3))) (i32.const 8000))
    (global.set $known (i32.sub (global.get $known) (local.get $n))))
  (func (export "total_state") (param $h i32) (param $n i32) (param $out i32) (result i32)
    (call $take (local.get $n))
    (i32.store (local.get $out) (local.get $n))
    (i32.store offset=4 (local.get $out) (i32.const 1))
    (i32.store offset=8 (local.get $out) (i32.const 512))
    (call $col (i32.const 512) (i32.const 5) (i32.const 20000) (i32.shl (local.get $n) (i32.const 3)))
    (i32.const 0))
  (func (export "total_evaluate") (param $h i32) (param $n i32) (param $out i32) (result i32)
    (call $take (local.get $n))
    (call $col (local.get $out) (i32.const 5) (i32.const 20000) (i32.shl (local.get $n) (i32.const 3)))
    (i32.const 0))
  (func (export "total_size") (param i32) (result i32) i32.const 8000)
  (func (export "total_drop") (param i32))"#,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregates() {
    let setting = Setting::new([module(&total())]);
    assert_eq!(setting.value("SELECT total(v) FROM generate_series(1, 1000) t(v)").await, "500500");
    let same = "SELECT count(*) FROM (SELECT v % 97 AS g, total(v) AS a, sum(v) AS b FROM generate_series(1, 5000) t(v) \
                GROUP BY v % 97) WHERE a = b";
    assert_eq!(setting.value(same).await, "97");
    let filtered =
        "SELECT total(v) FILTER (WHERE v > 990) - sum(v) FILTER (WHERE v > 990) FROM generate_series(1, 1000) t(v)";
    assert_eq!(setting.value(filtered).await, "0");
    // An empty group is a group, and NULLs are passed over.
    let empty = "SELECT total(v) FILTER (WHERE v > 5) FROM generate_series(1, 3) t(v)";
    assert_eq!(setting.value(empty).await, "0");
    assert_eq!(setting.value("SELECT total(nullif(v, 2)) FROM generate_series(1, 3) t(v)").await, "4");
    let window = "SELECT max(t) FROM (SELECT total(v) OVER (ORDER BY v) AS t FROM generate_series(1, 10) t(v))";
    assert_eq!(setting.value(window).await, "55");
    let distinct = "SELECT total(DISTINCT v % 3) FROM generate_series(1, 10) t(v)";
    assert_eq!(setting.value(distinct).await, "3");
    assert_eq!(setting.pool.reserved(), 0);
}

/// `count_up(n)`: the numbers below n, three at a time.
pub(super) fn count_up() -> String {
    columnar(
        r#"{"name":"count_up","kind":"table","args":["Int64"],"columns":[["i","Int64"]]}"#,
        r#"
  (global $at (mut i64) (i64.const 0))
  (global $end (mut i64) (i64.const 0))
  (func (export "count_up_open") (param $batch i32) (result i32)
    (global.set $end (i64.load (i32.load offset=16 (i32.load offset=8 (local.get $batch)))))
    (i32.const 1))
  (func (export "count_up_next") (param $h i32) (param $out i32) (result i32)
    (if (i64.ge_s (global.get $at) (global.get $end)) (then (return (i32.const 1))))
    (i64.store (i32.const 1024) (global.get $at))
    (i64.store (i32.const 1032) (i64.add (global.get $at) (i64.const 1)))
    (i64.store (i32.const 1040) (i64.add (global.get $at) (i64.const 2)))
    (global.set $at (i64.add (global.get $at) (i64.const 3)))
    (i32.store (local.get $out) (i32.const 3))
    (i32.store offset=4 (local.get $out) (i32.const 1))
    (i32.store offset=8 (local.get $out) (i32.const 512))
    (call $col (i32.const 512) (i32.const 5) (i32.const 1024) (i32.const 24))
    (i32.const 0))
  (func (export "count_up_close") (param i32))"#,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn table_functions() {
    let setting = Setting::new([module(&count_up())]);
    assert_eq!(setting.value("SELECT count(*) * 1000 + sum(i) FROM count_up(9)").await, "9036");
    assert_eq!(setting.value("SELECT sum(i) FROM (SELECT i FROM count_up(1000000) LIMIT 4)").await, "6");
    let error = setting.batches("SELECT * FROM (VALUES (1)) t(v), LATERAL count_up(v)").await.0.unwrap_err();
    assert!(error.to_string().contains("must be a constant") || error.to_string().contains("ateral"), "{error}");
    assert_eq!(setting.pool.reserved(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn constants_are_folded_and_volatile_functions_are_not() {
    let setting = Setting::new([module(PLAIN)]);
    let (plan, _) = setting.batches("EXPLAIN SELECT margin(10.5, 4) + v FROM (VALUES (1)) t(v)").await;
    let plan = arrow::util::pretty::pretty_format_batches(&plan.unwrap()).unwrap().to_string();
    assert!(plan.contains("ProjectionExec: expr=[6.5 +"), "{plan}");
    let declared = Declared { volatile: true, limits: Limits::default(), functions: Vec::new() };
    let volatile = Module::load(PLAIN.into(), "v.wasm", declared, &Compiler::default()).unwrap();
    let setting = Setting::new([volatile]);
    let (plan, scope) = setting.batches("EXPLAIN SELECT margin(10.5, 4) + v FROM (VALUES (1)) t(v)").await;
    let plan = arrow::util::pretty::pretty_format_batches(&plan.unwrap()).unwrap().to_string();
    assert!(plan.contains("ProjectionExec: expr=[margin("), "{plan}");
    assert_eq!(scope.uses(), []);
}
