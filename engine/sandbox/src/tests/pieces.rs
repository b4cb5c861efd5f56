//! Batches that are larger than what one call takes, loops in the guest's own module, views of strings.

use std::collections::BTreeMap;

use super::{Setting, columnar, limits, load, module};
use crate::inspect::{self, Inspected, Signature};
use crate::{Compiler, Declared, loops};

/// One partition, batches of 10,000 rows.
fn large(modules: impl IntoIterator<Item = crate::Module>) -> Setting {
    Setting::with_batches(1, 10_000, modules)
}

const MANY: &str = r#"(module
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
  (memory 1)
  (global $calls (mut i64) (i64.const 0))
  (func (export "quotient") (param i64 i64) (result i64) (i64.div_s (local.get 0) (local.get 1)))
  (func (export "fresh") (param $x i64) (result i64) (local $sum i64) (local $v v128)
    (local.set $sum (i64.add (local.get $sum) (i64.add (local.get $x) (i64x2.extract_lane 0 (local.get $v)))))
    (local.set $v (i64x2.splat (local.get $sum)))
    (local.set $x (i64.const 1000))
    (local.get $sum))
  (func (export "sign") (param $x i64) (result i64)
    (block $zero
      (loop $again
        (br_if $zero (i64.eqz (local.get $x)))
        (if (i64.lt_s (local.get $x) (i64.const 0)) (then (return (i64.const -1))))
        (if (i64.eq (local.get $x) (i64.const 1)) (then (return (i64.const 1))) (else
          (local.set $x (i64.shr_u (local.get $x) (i64.const 1))) (br $again)))))
    (i64.const 0))
  (func $triangle (export "triangle") (param $n i64) (result i64)
    (if (result i64) (i64.le_s (local.get $n) (i64.const 0)) (then (i64.const 0))
      (else (i64.add (local.get $n) (call $triangle (i64.sub (local.get $n) (i64.const 1)))))))
  (func (export "kept") (param $x i64) (result i64)
    (i64.store (i32.const 8) (i64.add (i64.load (i32.const 8)) (i64.const 1)))
    (i64.add (local.get $x) (i64.mul (i64.const 0) (i64.load (i32.const 8)))))
  (func (export "seen") (param i64) (result i32) (i32.add (memory.size) (i32.load (i32.const 64))))
  (func (export "fields") (param i32 f32) (result f32) (f32.add (f32.convert_i32_s (local.get 0)) (local.get 1)))
  (func $long (export "long") (param $x i64) (result i64) LONG (local.get $x))
  (export "yields" (func $yield)))"#;

pub(super) fn many() -> String {
    let long = "(local.set $x (i64.add (local.get $x) (i64.const 1)))".repeat(500);
    MANY.replace("LONG", &long)
}

/// That `call` is `same` for 25,000 rows.
async fn same(setting: &Setting, call: &str, same: &str) {
    let sql = format!("SELECT count(*) FROM generate_series(1, 25000) t(v) WHERE {call} IS DISTINCT FROM {same}");
    assert_eq!(setting.value(&sql).await, "0", "{call}");
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_in_the_guests_own_module() {
    let text = many();
    assert!(within(&text, "quotient").is_some());
    let setting = large([module(&text)]);
    same(&setting, "quotient(v, 7)", "v / 7").await;
    same(&setting, "quotient(100000, v)", "100000 / v").await;
    same(&setting, "quotient(v, nullif(v % 5, 0))", "v / nullif(v % 5, 0)").await;
    same(&setting, "quotient(nullif(v, 12000), nullif(v % 5, 0))", "nullif(v, 12000) / nullif(v % 5, 0)").await;
    // Locals are zero in each call, and parameters the caller's.
    same(&setting, "fresh(v)", "v").await;
    same(&setting, "sign(v - 9000)", "signum(v - 9000)").await;
    same(&setting, "triangle(v % 50)", "(v % 50) * (v % 50 + 1) / 2").await;
    same(&setting, "kept(v)", "v").await;
    // Its memory is its own: one page, and nothing of the rows in it.
    same(&setting, "seen(v)", "1").await;
    same(&setting, "fields(CAST(v % 9 AS INT), CAST(v AS FLOAT))", "CAST(v % 9 + v AS FLOAT)").await;
    same(&setting, "long(v)", "v + 500").await;
    same(&setting, "yields() + v", "v").await;
    let error = setting.error("SELECT quotient(v, v - 5003) FROM generate_series(1, 25000) t(v)").await;
    assert_eq!(error.to_string(), "function `quotient` of `test.wasm`: trapped: integer divide by zero, at (5003, 0)");
    assert_eq!(setting.pool.reserved(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_apart_where_names_are_taken() {
    let taken = [
        "(memory (export \"sparklet rows\") 1)",
        "(func (export \"sparklet loop half\") (param i32) (result i32) unreachable)",
    ];
    for taken in taken {
        let half = r#"(func (export "half") (param i64) (result i64) (i64.shr_s (local.get 0) (i64.const 1)))"#;
        let text = format!("(module {half} {taken})");
        assert!(within(&text, "half").is_none());
        let setting = large([module(&text)]);
        same(&setting, "half(2 * v)", "v").await;
        same(&setting, "half(nullif(2 * v, 8000))", "nullif(v, 4000)").await;
    }
}

/// The module with loops for one function.
fn within(text: &str, function: &str) -> Option<Vec<u8>> {
    let bytes = wat::parse_str(text).unwrap();
    let Ok(Inspected::Core(core)) = inspect::inspect(&bytes) else { panic!("no module") };
    let wanted: BTreeMap<&str, &Signature> = [(function, core.function(function)?)].into();
    loops::within(&bytes, &wanted)
}

#[test]
fn a_guest_with_two_memories_is_none_and_one_with_loops_cannot_be_loaded() {
    let two =
        "(module (memory 1) (memory 1) (func (export \"f\") (param i64) (result i64) (i64.load 1 (i32.const 0))))";
    assert!(load(two).unwrap_err().to_string().contains("not a usable WebAssembly module"));
    // What was made of a module is not taken for one.
    let plain = "(module (memory 1) (func (export \"f\") (param i64) (result i64) (local.get 0)))";
    let made = within(plain, "f").unwrap();
    let declared = Declared { limits: limits(), ..Declared::default() };
    assert!(crate::Module::load(made, "twice.wasm", declared, &Compiler::default()).is_err());
    let nothing = "(module (func (export \"f\") (param i64) (result i64) (local.get 0)))";
    assert!(within(nothing, "f").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_in_pieces() {
    // Doubles in place of its input's neighbour: room for 4,096 rows, no more. NULL for multiples of 1,000, an error at 9,999.
    let text = columnar(
        r#"{"abi":"1.0","functions":[{"name":"twice","args":["Int64","Int64"],"returns":"Int64","nulls":"called"}]}"#,
        r#"
  (global $bad (mut i64) (i64.const -1))
  (func (export "sparklet_error_row") (result i64) (global.get $bad))
  (func (export "twice") (param $batch i32) (param $out i32) (result i32)
    (local $rows i32) (local $in i32) (local $k i64) (local $i i32) (local $v i64) (local $nulls i32)
    (local.set $rows (i32.load (local.get $batch)))
    (if (i32.gt_u (local.get $rows) (i32.const 4096)) (then unreachable))
    (local.set $in (i32.load offset=16 (i32.load offset=8 (local.get $batch))))
    (local.set $k (i64.load (i32.load offset=64 (i32.load offset=8 (local.get $batch)))))
    (memory.fill (i32.const 40000) (i32.const 255) (i32.const 512))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
      (local.set $v (i64.load (i32.add (local.get $in) (i32.shl (local.get $i) (i32.const 3)))))
      (if (i64.eq (local.get $v) (i64.const 9999)) (then
        (global.set $bad (i64.extend_i32_u (local.get $i))) (return (i32.const -7))))
      (if (i64.eqz (i64.rem_u (local.get $v) (i64.const 1000))) (then
        (local.set $nulls (i32.add (local.get $nulls) (i32.const 1)))
        (i32.store8 offset=40000 (i32.shr_u (local.get $i) (i32.const 3)) (i32.xor
          (i32.load8_u offset=40000 (i32.shr_u (local.get $i) (i32.const 3)))
          (i32.shl (i32.const 1) (i32.and (local.get $i) (i32.const 7)))))))
      (i64.store offset=1024 (i32.shl (local.get $i) (i32.const 3)) (i64.mul (local.get $k) (local.get $v)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (call $col (local.get $out) (i32.const 5) (i32.const 1024) (i32.shl (local.get $rows) (i32.const 3)))
    (if (local.get $nulls) (then
      (i32.store offset=8 (local.get $out) (local.get $nulls))
      (i32.store offset=12 (local.get $out) (i32.const 40000))))
    (i32.const 0))"#,
    );
    let setting = large([module(&text)]);
    let sql = "SELECT count(*) FROM generate_series(10000, 35000) t(v) WHERE \
               twice(v, 2) IS DISTINCT FROM CASE WHEN v % 1000 = 0 THEN NULL ELSE 2 * v END";
    assert_eq!(setting.value(sql).await, "0");
    let error = setting.error("SELECT twice(v, 2) FROM generate_series(1, 25000) t(v)").await;
    assert!(error.to_string().ends_with("it failed with status -7 and no message (row 9998 of the batch)"), "{error}");
}

/// `weigh(Utf8)`: the sum of the bytes, each times its place in the value, and 1,000 for the value itself.
pub(super) fn weigh() -> String {
    columnar(
        r#"{"abi":"1.0","functions":[{"name":"weigh","args":["Utf8"],"returns":"Int64"}]}"#,
        r#"
  (func (export "weigh") (param $batch i32) (param $out i32) (result i32)
    (local $rows i32) (local $offsets i32) (local $data i32) (local $i i32) (local $at i32) (local $n i32) (local $sum i64)
    (local.set $rows (i32.load (local.get $batch)))
    (local.set $offsets (i32.load offset=16 (i32.load offset=8 (local.get $batch))))
    (local.set $data (i32.load offset=24 (i32.load offset=8 (local.get $batch))))
    (if (i32.load (local.get $offsets)) (then unreachable))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (local.get $rows)))
      (local.set $sum (i64.const 1000))
      (local.set $n (i32.const 0))
      (local.set $at (i32.load (i32.add (local.get $offsets) (i32.shl (local.get $i) (i32.const 2)))))
      (block $end (loop $byte
        (br_if $end (i32.ge_u (local.get $at)
          (i32.load offset=4 (i32.add (local.get $offsets) (i32.shl (local.get $i) (i32.const 2))))))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_u (i32.mul (local.get $n)
          (i32.load8_u (i32.add (local.get $data) (local.get $at)))))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $byte)))
      (i64.store offset=1024 (i32.shl (local.get $i) (i32.const 3)) (local.get $sum))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (call $col (local.get $out) (i32.const 5) (i32.const 1024) (i32.shl (local.get $rows) (i32.const 3)))
    (i32.const 0))"#,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_strings_are_written_as_strings() {
    let setting = large([module(&weigh())]);
    assert_eq!(setting.value("SELECT weigh('ab')").await, (1000 + 97 + 2 * 98).to_string());
    // Short ones, long ones, empty ones, NULLs, slices.
    let values = "CASE v % 4 WHEN 0 THEN concat('v', v % 97) WHEN 1 THEN concat('a longer value, number ', v % 89) \
                  WHEN 2 THEN '' ELSE nullif(concat('twelve bytes', ''), CASE WHEN v % 3 = 0 THEN 'twelve bytes' END) END";
    let both = format!(
        "SELECT count(*) AS n, count(weigh(s)) AS known, \
           count(*) FILTER (WHERE weigh(s) IS DISTINCT FROM weigh(t)) AS wrong \
         FROM (SELECT arrow_cast({values}, 'Utf8View') AS s, arrow_cast({values}, 'Utf8') AS t \
               FROM generate_series(1, 25000) x(v))"
    );
    let found = setting.rows(&both).await;
    assert!(found.contains("| 25000 | 22916 | 0     |"), "{found}");
    let cut = "SELECT sum(weigh(s) - 1000) FROM (SELECT arrow_cast(concat('number ', v), 'Utf8View') AS s \
               FROM generate_series(1, 25000) x(v) LIMIT 3 OFFSET 4999)";
    let one = |text: &str| text.bytes().enumerate().map(|(i, b)| (i + 1) * usize::from(b)).sum::<usize>();
    let wanted: usize = (5000..5003).map(|v| one(&format!("number {v}"))).sum();
    assert_eq!(setting.value(cut).await, wanted.to_string());
    // There is no cast on the way.
    let explained = "EXPLAIN SELECT weigh(s) FROM (SELECT arrow_cast(concat('v', v), 'Utf8View') AS s \
                     FROM generate_series(1, 10) x(v) LIMIT 5)";
    let plan = setting.rows(explained).await;
    assert!(plan.contains("AS Utf8View)) as weigh(s)"), "{plan}");
}
