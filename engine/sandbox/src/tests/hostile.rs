//! Modules that mean harm: each ends in an error that says what happened, in time, with the memory given back and the next query right.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use datafusion::execution::memory_pool::UnboundedMemoryPool;

use super::{Setting, columnar, limits, load, module, sandbox_error};
use crate::encode::Column;
use crate::guest::Batch;
use crate::scope::Owner;
use crate::{Cause, Compiler, Declared, Module, Scope};

const GOOD: &str = r#"(module (func (export "good") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1))))"#;

/// Calls `bad(v)` of the module on 250 rows; then all must be as it was.
async fn check(text: &str, says: &str) {
    check_call(text, "SELECT bad(v) FROM generate_series(1, 250) t(v)", says).await;
}

async fn check_call(text: &str, sql: &str, says: &str) {
    let module = match load(text) {
        Ok(module) => module,
        Err(error) => {
            assert!(error.to_string().contains(says), "`{error}` lacks `{says}`");
            return;
        }
    };
    let setting = Setting::with_partitions(1, [module, self::module(GOOD)]);
    let start = Instant::now();
    let error = setting.error(sql).await;
    let took = start.elapsed();
    assert!(error.to_string().contains(says), "`{error}` lacks `{says}`");
    assert!(error.to_string().len() < 8 << 10, "{}", error.to_string().len());
    assert_eq!((error.module.as_str(), error.function.as_deref()), ("test.wasm", Some("bad")));
    // Generous: the machine may be busy. What matters is that it ends.
    assert!(took < limits().timeout + Duration::from_secs(20), "{took:?}");
    assert_eq!(setting.pool.reserved(), 0);
    assert_eq!(setting.value("SELECT sum(good(v)) FROM generate_series(1, 250) t(v)").await, "31625");
}

/// A plain module whose `bad(i64)` has this body.
fn plain(body: &str) -> String {
    format!(r#"(module (memory (export "memory") 1) (func $bad (export "bad") (param i64) (result i64) {body}))"#)
}

/// A columnar module whose `bad` does this before it returns 0; `$to` has 2,000 bytes.
fn scalar(returns: &str, body: &str) -> String {
    columnar(
        &format!(r#"{{"name":"bad","args":["Int64"],"returns":"{returns}"}}"#),
        &format!(r#"(func (export "bad") (param $batch i32) (param $out i32) (result i32) {body} (i32.const 0))"#),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_does_not_end_or_traps() {
    check(&plain("(loop $l (br $l)) (i64.const 0)"), "ran longer than its time limit of 300ms").await;
    check(&plain("(call $bad (local.get 0))"), "ran out of stack").await;
    check(&plain("unreachable"), "trapped: wasm `unreachable` instruction executed, at (1)").await;
    check(&plain("(i64.load (i32.const -8))"), "trapped: out of bounds memory access").await;
    let start = "(module (func $s (loop $l (br $l))) (start $s) (func (export \"bad\") (param i64) (result i64) (i64.const 0)))";
    check(start, "ran longer than its time limit").await;
    let fills = "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l)) (i64.const 0)";
    check(&plain(fills), "ran longer than its time limit").await;
    let folded = plain("(loop $l (br $l)) (i64.const 0)");
    let setting = Setting::with_partitions(1, [module(&folded)]);
    assert!(setting.error("SELECT bad(1)").await.to_string().contains("ran longer"));
}

#[tokio::test(flavor = "multi_thread")]
async fn fuel_ends_what_is_counted() {
    let declared = Declared { limits: crate::Limits { fuel: Some(10_000), ..limits() }, ..Declared::default() };
    let text = plain("(loop $l (br $l)) (i64.const 0)");
    let module = Module::load(text.into(), "test.wasm", declared, &Compiler::default()).unwrap();
    let setting = Setting::with_partitions(1, [module]);
    let error = setting.error("SELECT bad(v) FROM generate_series(1, 250) t(v)").await;
    assert!(error.to_string().contains("used up its fuel of 10000"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_has_a_limit() {
    let grows = "(if (i32.eq (memory.grow (i32.const 2000)) (i32.const -1)) (then unreachable)) (i64.const 0)";
    check(&plain(grows), "wants 125 MiB of memory, its limit is 64 MiB").await;
    let bad = "(func (export \"bad\") (param i64) (result i64) (i64.const 0))";
    check(&format!("(module (memory 65536) {bad})"), "wants 4096 MiB of memory").await;
    check(&format!("(module (table 10000000 funcref) {bad})"), "table").await;
    let pool_is_shared = Setting::with_partitions(1, [module(&plain("(i64.const 0)"))]);
    assert_eq!(pool_is_shared.pool.reserved(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_modules() {
    let bad = |bytes: &[u8], says: &str| {
        let error = Module::load(bytes.to_vec(), "test.wasm", Declared::default(), &Compiler::default()).unwrap_err();
        assert!(error.to_string().contains(says), "`{error}` lacks `{says}`");
        assert!(error.to_string().len() < 1000);
    };
    let good = wat::parse_str(GOOD).unwrap();
    bad(b"", "does not begin with the bytes");
    bad(b"garbage that goes on", "does not begin with the bytes");
    bad(&good[..good.len() / 2], "not a usable WebAssembly module");
    bad(b"(module (func", "not a usable WebAssembly module");
    bad(b"(module)", "exports no function");
    bad(b"(module (import \"env\" \"abort\" (func)))", "it imports `env.abort`");
    bad(b"(module (import \"env\" \"memory\" (memory 1)))", "which is no function");
    bad(b"(module (memory 1 1 shared))", "not a usable WebAssembly module");
    bad(b"(module (memory i64 1))", "not a usable WebAssembly module");
    let many: String = (0..10_000).map(|i| format!("(export \"f{i}\" (func 0))")).collect();
    bad(format!("(module (func (param i32) (result i32) local.get 0) {many})").as_bytes(), "more than 1000 functions");
    let name = "x".repeat(1 << 20);
    bad(
        format!("(module (func (export \"{name}\") (result i32) (i32.const 1)))").as_bytes(),
        "string size out of bounds",
    );
    let name = "x".repeat(1000);
    bad(format!("(module (func (export \"{name}\") (result i32) (i32.const 1)))").as_bytes(), "longer than 128 bytes");
    bad(columnar("{\"name\":", "").as_bytes(), "bad description of functions: not JSON");
    bad(columnar("{\"name\":\"f\",\"returns\":\"Utf8\"}", "").as_bytes(), "does not export the function `f`");
    let body = "(drop (i32.const 1))".repeat(400_000);
    bad(format!("(module (func (export \"f\") (result i32) {body} (i32.const 1)))").as_bytes(), "a function of");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_lie() {
    let col = |kind: i32, at: &str, bytes: &str| {
        format!("(call $col (local.get $out) (i32.const {kind}) (i32.const {at}) (i32.const {bytes}))")
    };
    check(&scalar("Int64", ""), "a column of type code 0 where Int64 is declared").await;
    check(&scalar("Int64", &col(5, "1024", "8")), "a buffer of 8 bytes for Int64").await;
    check(&scalar("Int64", &col(5, "-64", "8000")), "outside of its memory").await;
    check(&scalar("Int64", &col(5, "131000", "8000")), "outside of its memory").await;
    check(&scalar("Int64", &col(4, "1024", "8000")), "a column of type code 4").await;
    let with = |more: &str| format!("{} {more}", col(5, "1024", "8000"));
    check(&scalar("Int64", &with("(i32.store offset=4 (local.get $out) (i32.const 1))")), "the flags 1").await;
    check(&scalar("Int64", &with("(i32.store offset=8 (local.get $out) (i32.const 3))")), "a null count of 3 without")
        .await;
    let nulls =
        "(i32.store offset=8 (local.get $out) (i32.const 3)) (i32.store offset=12 (local.get $out) (i32.const 30000))";
    check(&scalar("Int64", &with(nulls)), "a null count of 3 where the bitmap has").await;
    let strings = |body: &str| {
        format!(
            "{} (i32.store offset=24 (local.get $out) (i32.const 4096)) (i32.store offset=28 (local.get $out) (i32.const 8)) {body}",
            col(12, "2048", "404")
        )
    };
    check(&scalar("Utf8", &strings("(i32.store (i32.const 2048) (i32.const 5))")), "offsets that begin at 5").await;
    check(&scalar("Utf8", &strings("(i32.store (i32.const 2052) (i32.const -5))")), "offsets that fall from 0 to -5")
        .await;
    check(&scalar("Utf8", &strings("(i32.store (i32.const 2052) (i32.const 5))")), "offsets that fall from 5 to 0")
        .await;
    let all = "(memory.fill (i32.const 2052) (i32.const 1) (i32.const 400))";
    check(&scalar("Utf8", &strings(all)), "a buffer of 8 bytes for Utf8").await;
    let last = "(memory.fill (i32.const 2052) (i32.const 0) (i32.const 400)) (i32.store (i32.const 2448) (i32.const 2)) \
                (i32.store8 (i32.const 4096) (i32.const 255))";
    let one = scalar("Utf8", &strings(last));
    check_call(&one, "SELECT bad(v) FROM generate_series(1, 100) t(v)", "not UTF-8").await;
    let digits = "(memory.fill (i32.const 1024) (i32.const 127) (i32.const 1600))";
    check(&scalar("Decimal128(4, 2)", &format!("{digits} {}", col(14, "1024", "4000"))), "a decimal out of range")
        .await;
    check(&scalar("List(Int64)", &col(20, "1024", "404")), "a list with 0 children").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn allocators_that_lie() {
    let good = "(call $col (local.get $out) (i32.const 5) (i32.const 1024) (i32.const 800))";
    let with = |body: &str| {
        let text = scalar("Int64", good);
        let start = text.find("(local $at i32)").unwrap();
        format!("{} (local $at i32) (return {body}) {}", &text[..start], &text[start + "(local $at i32)".len()..])
    };
    check(&with("(i32.const 0)"), "`sparklet_alloc` gave no block").await;
    check(&with("(i32.const 65)"), "not aligned to 64").await;
    check(&with("(i32.const 0x7fffffc0)"), "a block outside of its memory").await;
    check(&with("(i32.const -64)"), "a block outside of its memory").await;
    check(&with("(loop $l (result i32) (br $l))"), "ran longer than its time limit").await;
    // A block on top of the guest's own data harms nobody else: the result is what the guest makes of it.
    let overlapping = Setting::with_partitions(1, [module(&with("(i32.const 1024)"))]);
    let _ = overlapping.batches("SELECT bad(v) FROM generate_series(1, 50) t(v)").await;
    assert_eq!(overlapping.pool.reserved(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_logs_that_are_too_much() {
    let text = scalar("Int64", "(return (i32.const -3))");
    check(&text, "it failed with status -3 and no message").await;
    let long = text.replace("(result i64) i64.const 0)", "(result i64) (i64.const 0x40080000000))");
    check(&long, "outside of its memory").await;
    let text = r#"(module (import "sparklet1" "fail" (func $fail (param i32 i32))) (memory (export "memory") 1)
        (data (i32.const 8) "no such tariff")
        (func (export "bad") (param i64) (result i64) (call $fail (i32.const 8) (i32.const 14)) (i64.const 0)))"#;
    check(text, "no such tariff").await;
    let flood = r#"(module (import "sparklet1" "log" (func $log (param i32 i32 i32))) (memory (export "memory") 1)
        (func (export "bad") (param i64) (result i64)
          (loop $l (call $log (i32.const 0) (i32.const 0) (i32.const 4000)) (br $l)) (i64.const 0)))"#;
    check(flood, "ran longer than its time limit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wasi_denies() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "bad") (param i64) (result i64)
          (call $exit (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
            (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)))
          (i64.const 0)))"#;
    check(text, "it called exit(76)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_aggregates_without_end() {
    let next = |body: &str| {
        columnar(
            r#"{"name":"bad","kind":"table","args":[],"columns":[["i","Int64"]]}"#,
            &format!(
                r#"(func (export "bad_open") (param i32) (result i32) i32.const 1)
                (func (export "bad_next") (param $h i32) (param $out i32) (result i32) {body} (i32.const 0))
                (func (export "bad_close") (param i32))"#
            ),
        )
    };
    let rows = |n: u32| {
        next(&format!(
            "(i32.store (local.get $out) (i32.const {n})) (i32.store offset=4 (local.get $out) (i32.const 1)) \
             (i32.store offset=8 (local.get $out) (i32.const 512)) \
             (call $col (i32.const 512) (i32.const 5) (i32.const 1024) (i32.const 8000))"
        ))
    };
    check_call(&rows(0), "SELECT * FROM bad()", "1000 batches without rows").await;
    check_call(&rows(4_000_000_000), "SELECT * FROM bad()", "a buffer of 8000 bytes").await;
    check_call(&next("(return (i32.const 2))"), "SELECT * FROM bad()", "gave the status 2").await;
    let declared = Declared { limits: crate::Limits { max_rows: 5_000, ..limits() }, ..Declared::default() };
    let endless = Module::load(rows(1000).into(), "test.wasm", declared, &Compiler::default()).unwrap();
    let error = Setting::with_partitions(1, [endless]).error("SELECT count(i) FROM bad()").await;
    assert!(error.to_string().contains("more rows than its limit of 5000"), "{error}");
    let state = columnar(
        r#"{"name":"bad","kind":"aggregate","args":["Int64"],"returns":"Int64","state":["Int64"]}"#,
        r#"(func (export "bad_new") (result i32) i32.const 7)
        (func (export "bad_update") (param i32 i32 i32 i32) (result i32)
          (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (i32.const -1))
        (func (export "bad_merge") (param i32 i32 i32 i32) (result i32) i32.const 0)
        (func (export "bad_state") (param i32 i32 i32) (result i32) i32.const 0)
        (func (export "bad_evaluate") (param i32 i32 i32) (result i32) i32.const 0)
        (func (export "bad_size") (param i32) (result i32) i32.const 0)
        (func (export "bad_drop") (param i32) (loop $l (br $l)))"#,
    );
    check_call(&state, "SELECT bad(v) FROM generate_series(1, 250) t(v)", "of memory, its limit is 64 MiB").await;
    let forged = state.replace(
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (i32.const -1))",
        "(i32.const 0))",
    );
    check_call(&forged, "SELECT bad(v) FROM generate_series(1, 250) t(v)", "a state of 0 rows for 1 groups").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_from_one_query_to_the_next() {
    let text = r#"(module (global $n (mut i64) (i64.const 0))
        (func (export "calls") (param i64) (result i64)
          (global.set $n (i64.add (global.get $n) (i64.const 1))) (global.get $n)))"#;
    let setting = Setting::with_partitions(1, [module(text)]);
    for _ in 0..3 {
        assert_eq!(setting.value("SELECT max(calls(v)) FROM (VALUES (1), (2)) t(v)").await, "2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_fifty_queries_is_hostile() {
    let hostile = module(&plain("(loop $l (br $l)) (i64.const 0)"));
    let setting = std::sync::Arc::new(Setting::with_partitions(1, [hostile, module(GOOD)]));
    let query = |i: usize| {
        let setting = std::sync::Arc::clone(&setting);
        tokio::spawn(async move {
            match i {
                17 => setting.error("SELECT bad(v) FROM generate_series(1, 250) t(v)").await.to_string(),
                _ => setting.value("SELECT sum(good(v)) FROM generate_series(1, 250) t(v)").await,
            }
        })
    };
    let mut right = 0;
    for (i, query) in (0..50).map(query).collect::<Vec<_>>().into_iter().enumerate() {
        let said = query.await.unwrap();
        match i {
            17 => assert!(said.contains("ran longer"), "{said}"),
            _ => right += usize::from(said == "31625"),
        }
    }
    assert_eq!(right, 49);
    assert_eq!(setting.pool.reserved(), 0);
}

/// A query of which nobody waits for the end lets go, whatever deadline its functions have.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_what_goes_on() {
    const ENDLESS: Duration = Duration::from_secs(600);
    let aggregate = columnar(
        r#"{"name":"bad","kind":"aggregate","args":["Int64"],"returns":"Int64","state":["Int64"]}"#,
        r#"
  (func (export "bad_new") (result i32) i32.const 1)
  (func (export "bad_update") (param i32 i32 i32 i32) (result i32) (loop $l (br $l)) (i32.const 0))
  (func (export "bad_merge") (param i32 i32 i32 i32) (result i32) (i32.const 0))
  (func (export "bad_state") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "bad_evaluate") (param i32 i32 i32) (result i32) (i32.const 0))
  (func (export "bad_size") (param i32) (result i32) i32.const 0)
  (func (export "bad_drop") (param i32))"#,
    );
    let start = "(module (func $s (loop $l (br $l))) (start $s) (func (export \"bad\") (param i64) (result i64) (i64.const 0)))";
    let guests =
        [plain("(loop $l (br $l)) (i64.const 0)"), scalar("Int64", "(loop $l (br $l))"), aggregate, start.to_owned()];
    for text in guests {
        let declared = Declared { limits: crate::Limits { timeout: ENDLESS, ..limits() }, ..Declared::default() };
        let module = Module::load(text.into(), "test.wasm", declared, &Compiler::default()).unwrap();
        let setting = Setting::with_partitions(1, [module]);
        let sql = "SELECT bad(v) FROM generate_series(1, 250) t(v)";
        soon(async || {
            let scope = Scope::of_query(Arc::clone(&setting.pool));
            let other = Arc::clone(&scope);
            let canceller = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                other.cancel();
                Instant::now()
            });
            let error = setting.batches_in(sql, &scope).await.unwrap_err();
            let late = canceller.join().unwrap().elapsed();
            assert!(matches!(sandbox_error(&error).cause, Cause::Cancelled), "{error}");
            // No other call begins.
            let error = setting.batches_in(sql, &scope).await.unwrap_err();
            assert!(matches!(sandbox_error(&error).cause, Cause::Cancelled), "{error}");
            scope.release();
            assert_eq!(setting.pool.reserved(), 0);
            late
        })
        .await;
    }
}

/// What is over ends within this time.
const SOON: Duration = Duration::from_millis(100);

/// That something ends soon, by how `late` it is. Other programs may have the processors: of some times, one counts.
async fn soon(mut late: impl AsyncFnMut() -> Duration) {
    let mut least = Duration::MAX;
    for _ in 0..20 {
        least = least.min(late().await);
        if least <= SOON {
            return;
        }
    }
    panic!("{least:?} late at the best of 20 times");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept() {
    let timeout = Duration::from_millis(50);
    let calls = (1..30).fold("(func $f0 (param i64) (result i64) (local.get 0))".to_owned(), |text, i| {
        let call = format!("(call $f{})", i - 1);
        format!("{text} (func $f{i} (param i64) (result i64) (local.get 0) {call} {call})")
    });
    let guests = [
        plain("(loop $l (br $l)) (i64.const 0)"),
        plain("(loop $l (loop $k (br_if $k (i64.ne (local.get 0) (local.get 0)))) (br $l)) (i64.const 0)"),
        plain("(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l)) (i64.const 0)"),
        // No loop, a thousand million calls.
        plain("(call $f29 (local.get 0))").replace("(module", &format!("(module {calls}")),
        scalar("Int64", "(loop $l (br $l))"),
        "(module (func $s (loop $l (br $l))) (start $s) (func (export \"bad\") (param i64) (result i64) (i64.const 0)))"
            .to_owned(),
    ];
    for text in guests {
        let declared = Declared { limits: crate::Limits { timeout, ..limits() }, ..Declared::default() };
        let module = Module::load(text.clone().into(), "test.wasm", declared, &Compiler::default()).unwrap();
        module.compile().unwrap();
        let column = Column::rows(Arc::new(Int64Array::from(vec![1; 250])));
        let batch = Batch { rows: 250, columns: std::slice::from_ref(&column) };
        soon(async || {
            let owner = Owner::of_pool(Arc::new(UnboundedMemoryPool::default()));
            let start = Instant::now();
            let called = module.instantiate(&owner).and_then(|mut guest| guest.scalar(&module.functions()[0], &batch));
            let late = start.elapsed().saturating_sub(timeout);
            let ended = called.err();
            assert!(matches!(ended, Some(Cause::Deadline(limit)) if limit == timeout), "{text}: {ended:?}");
            late
        })
        .await;
    }
}
