//! User functions as a user meets them: from nothing to a pipeline, on the command line alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use sparklet::core::sandbox::{Declared, Limits};
use sparklet::prelude::*;

use crate::support::Place;

const TARIFF: &str = r#"(module
  (func (export "tariff") (param i64) (result i64)
    (if (result i64) (i64.gt_s (local.get 0) (i64.const 500))
      (then (i64.const 2)) (else (i64.const 1)))))"#;

fn pipeline(place: &Place) {
    place.write("p/tariff.wat", TARIFF);
    place.write(
        "p/pipeline.toml",
        "name = \"p\"\n\n[udfs.tariff]\nmodule = \"tariff.wat\"\nmemory = \"1MiB\"\n\n[[step]]\nname = \"sums\"\n\
         query = \"SELECT tariff(value) AS t, count(*) AS n FROM range(0, 1000) GROUP BY 1 ORDER BY 1\"\n\
         output = { path = \"out/sums.csv\" }\n",
    );
}

#[test]
fn from_a_template_to_a_query() {
    let place = Place::new();
    place.ok(&["udf", "new", "m", "--lang", "wat"]);
    let checked = place.ok(&["udf", "check", "m/margin.wat", "--format", "csv"]);
    assert!(checked.out.contains("margin,scalar,\"(Float64, Float64) -> Float64\""), "{}", checked.out);
    let tested = place.ok(&["udf", "test", "m/margin.wat", "margin", "m/cases.csv"]);
    assert!(tested.err.contains("right in 3 cases"), "{}", tested.err);
    place.write("m/wrong.csv", "price,cost,expected\n1,2,3\n");
    let wrong = place.run(&["udf", "test", "m/margin.wat", "margin", "m/wrong.csv"]);
    assert_eq!(wrong.code, 1, "{}", wrong.err);
    assert!(wrong.err.contains("expected 3.0, found -1.0"), "{}", wrong.err);
    let sql = "CREATE FUNCTION margin(DOUBLE, DOUBLE) RETURNS DOUBLE LANGUAGE wasm AS 'm/margin.wat'; \
               SELECT margin(10.5, 4) AS m; DROP FUNCTION margin";
    assert_eq!(place.ok(&["sql", "-c", sql, "--format", "csv"]).out, "m\n6.5\n");
    let shown = "CREATE FUNCTION margin() LANGUAGE wasm AS 'm/margin.wat'; SHOW FUNCTIONS LIKE 'mar%'";
    let shown = place.ok(&["sql", "-c", shown, "--format", "csv"]).out;
    let (head, row) = shown.split_once('\n').unwrap();
    assert_eq!(head, "name,arguments,result,kind,module,version");
    assert!(row.starts_with("margin,\"Float64, Float64\",Float64,scalar,m/margin.wat,"), "{shown}");
    let again = "CREATE FUNCTION margin() LANGUAGE wasm AS 'm/margin.wat'; DROP FUNCTION margin; SELECT margin(2, 1)";
    let again = place.run(&["sql", "-c", again]);
    assert!(again.code != 0 && again.err.contains("margin"), "{}", again.err);
    let gone = "CREATE FUNCTION nope() LANGUAGE wasm AS 'm/margin.wat'";
    let gone = place.run(&["sql", "-c", gone]);
    assert!(gone.err.contains("it has no function `nope`: there are `margin`"), "{}", gone.err);
}

/// Each project is built where its compiler is.
#[test]
fn templates_with_the_sdk() {
    let place = Place::new();
    for (lang, files) in [("c", 5), ("cpp", 5), ("rust", 16), ("assemblyscript", 6), ("python", 10), ("javascript", 8)]
    {
        let written = place.ok(&["udf", "new", lang, "--lang", lang, "--sdk"]).out;
        assert_eq!(written.lines().count(), files, "{written}");
        written.lines().for_each(|file| assert!(place.path(file).metadata().unwrap().len() > 0, "{file}"));
    }
    let none = place.run(&["udf", "new", "go", "--lang", "go", "--sdk"]);
    assert!(none.err.contains("there is no SDK for this language"), "{}", none.err);
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"), PathBuf::from);
    let tools =
        std::env::var_os("SPARKLET_TOOLCHAINS").map_or_else(|| cache.join("sparklet/toolchains"), PathBuf::from);
    let zig = format!("{} -m ziglang cc -target wasm32-freestanding", tools.join("ziglang/bin/python").display());
    let asc = tools.join("assemblyscript/node_modules/.bin/asc");
    let script = |lang: &str| {
        let mut shell = Command::new("sh");
        shell.arg(place.path(&format!("{lang}/build.sh")));
        shell
    };
    for (lang, variable, compilers) in [
        ("c", "CC", ["clang --target=wasm32".to_owned(), zig.clone()]),
        ("cpp", "CXX", ["clang++ --target=wasm32".to_owned(), zig.replace(" cc ", " c++ ")]),
    ] {
        if compilers.iter().any(|compiler| works(script(lang).env(variable, compiler))) {
            shop(&place, lang);
        } else {
            eprintln!(
                "!! NOT TESTED: the project in {lang}, it needs clang and lld, or Zig (udf-sdk/conformance/install)"
            );
        }
    }
    let python = tools.join("componentize-py/bin/python");
    let qjs = tools.join("componentize-qjs/node_modules/componentize-qjs/bin/componentize-qjs");
    for (lang, variable, tool) in [("python", "PYTHON", python), ("javascript", "COMPONENTIZE_QJS", qjs)] {
        if tool.is_file() {
            assert!(works(script(lang).env(variable, tool)));
            shop(&place, lang);
        } else {
            eprintln!("!! NOT TESTED: the project in {lang}, it needs what udf-sdk/conformance/install-all installs");
        }
    }
    if asc.is_file() {
        assert!(works(script("assemblyscript").env("ASC", asc)));
        shop(&place, "assemblyscript");
    } else {
        eprintln!("!! NOT TESTED: the project in AssemblyScript, it needs asc (udf-sdk/conformance/install)");
    }
    // Debian's rustc has the target, and is no match for rustup's cargo: it builds what cargo would.
    let rust = place.path("rust");
    let rustc = |rustc: &str, arguments: &[&str]| {
        let mut rustc = Command::new(rustc);
        rustc
            .current_dir(&rust)
            .args(["--edition", "2021", "-O", "-C", "strip=symbols", "--target", "wasm32-unknown-unknown"])
            .args(arguments);
        works(&mut rustc)
    };
    if has_wasm("rustc") {
        assert!(works(&mut script("rust")));
        shop(&place, "rust");
    } else if has_wasm("/usr/bin/rustc") {
        let library = ["--crate-name", "sparklet_udf", "--crate-type", "rlib", "sparklet-udf/src/lib.rs"];
        assert!(rustc("/usr/bin/rustc", &library));
        let cdylib = ["--crate-type", "cdylib", "-L", ".", "--extern", "sparklet_udf=libsparklet_udf.rlib"];
        assert!(rustc("/usr/bin/rustc", &[&cdylib[..], &["src/lib.rs", "-o", "shop.wasm"]].concat()));
        shop(&place, "rust");
    } else {
        eprintln!("!! NOT TESTED: the project in Rust, it needs wasm32-unknown-unknown (udf-sdk/conformance/install)");
    }
}

/// True if it can be started and ends well; what it says otherwise is shown.
fn works(command: &mut Command) -> bool {
    let Ok(done) = command.output() else { return false };
    if !done.status.success() {
        eprintln!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    }
    done.status.success()
}

/// True if this compiler has the target for modules.
fn has_wasm(rustc: &str) -> bool {
    let Ok(said) = Command::new(rustc).args(["--print", "sysroot"]).output() else { return false };
    let sysroot = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    sysroot.join("lib/rustlib/wasm32-unknown-unknown").is_dir()
}

/// Calls the functions of a project that was built in folder `lang`.
fn shop(place: &Place, lang: &str) {
    let (module, cases) = (format!("{lang}/shop.wasm"), format!("{lang}/cases.csv"));
    let tested = place.ok(&["udf", "test", &module, "shout", &cases]);
    assert!(tested.err.contains("right in 2 cases"), "{lang}: {}", tested.err);
    let sql = format!(
        "CREATE FUNCTION wavg() LANGUAGE wasm AS '{module}'; \
         SELECT wavg(a, b) AS m FROM (VALUES (1.0, 1.0), (4.0, 2.0), (9.0, NULL)) t(a, b)"
    );
    assert_eq!(place.ok(&["sql", "-c", &sql, "--format", "csv"]).out, "m\n3.0\n", "{lang}");
}

#[test]
fn a_pipeline_calls_them_and_its_report_tells() {
    let place = Place::new();
    pipeline(&place);
    place.ok(&["check", "p"]);
    place.ok(&["run", "p"]);
    assert_eq!(fs::read_to_string(place.path("p/out/sums.csv")).unwrap(), "t,n\n1,501\n2,499\n");
    let text = place.ok(&["report", "last", "--state", "p/.sparklet"]).out;
    assert!(text.contains("User functions") && text.contains("tariff.wat"), "{text}");
    let json = place.ok(&["report", "last", "--state", "p/.sparklet", "--format", "json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let used = &json["run"]["steps"][0]["functions"][0];
    assert_eq!((&used["name"], &used["rows"], &used["failures"]), (&"tariff".into(), &1000.into(), &0.into()));
    // Compiled by a process of its own, and kept.
    let kept = || fs::read_dir(place.path("p/.sparklet/functions")).unwrap().count();
    assert_eq!(kept(), 2);
    place.ok(&["run", "p"]);
    assert_eq!(kept(), 2);
}

#[test]
fn another_module_under_the_same_name_is_another_function() {
    let place = Place::new();
    pipeline(&place);
    // Only what reads a source has a fingerprint.
    place.write("p/numbers.csv", "value\n1\n700\n");
    let text = fs::read_to_string(place.path("p/pipeline.toml")).unwrap().replace("range(0, 1000)", "numbers");
    place.write("p/pipeline.toml", text.replace("[udfs", "[sources]\nnumbers = { path = \"numbers.csv\" }\n\n[udfs"));
    let fingerprints = || {
        place.ok(&["run", "p"]);
        let json = place.ok(&["report", "last", "--state", "p/.sparklet", "--format", "json"]).out;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["run"]["steps"][0]["plan"]["nodes"].as_array().unwrap().iter().map(|n| n["fingerprint"].clone()).collect()
    };
    let first: Vec<serde_json::Value> = fingerprints();
    place.write("p/tariff.wat", TARIFF.replace("500", "600"));
    let second: Vec<serde_json::Value> = fingerprints();
    assert_eq!(first.len(), second.len());
    assert_ne!(first, second);
}

#[test]
fn a_hostile_one_ends_the_step_and_nothing_else() {
    let place = Place::new();
    pipeline(&place);
    place.ok(&["run", "p"]);
    place.write(
        "p/tariff.wat",
        "(module (func (export \"tariff\") (param i64) (result i64) (loop (br 0)) (i64.const 1)))",
    );
    let text = fs::read_to_string(place.path("p/pipeline.toml")).unwrap();
    place.write("p/pipeline.toml", text.replace("memory = \"1MiB\"", "timeout = \"1s\""));
    let ended = place.run(&["run", "p"]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(
        ended.err.contains("function `tariff` of `tariff.wat`: ran longer than its time limit of 1s"),
        "{}",
        ended.err
    );
    assert_eq!(fs::read_to_string(place.path("p/out/sums.csv")).unwrap(), "t,n\n1,501\n2,499\n");
    place.write("p/tariff.wat", "(module (import \"env\" \"open\" (func)))");
    let refused = place.run(&["check", "p"]);
    assert!(refused.err.contains("it imports `env.open`"), "{}", refused.err);
}

/// Fifty queries at once on one session, one of which calls a function that does not end.
#[test]
fn a_hostile_one_among_fifty() {
    const QUERIES: i64 = 50;
    let place = Place::new();
    place.write("good.wat", TARIFF);
    place.write("bad.wat", TARIFF.replace("tariff", "spin").replace("(i64.const 2)", "(loop (br 0)) (i64.const 2)"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = SessionConfig { slots: Some(2), spill_dir: place.path("spill"), ..SessionConfig::default() };
        let session = Session::new(config).unwrap();
        session.load_functions(place.path("good.wat")).unwrap();
        let limits = Limits { timeout: Duration::from_millis(500), ..Limits::default() };
        let declared = Declared { limits, ..Declared::default() };
        session.load_module(&place.path("bad.wat"), "bad.wat", declared).unwrap();
        // Numbers above 500 count twice.
        let query = |function: &str, rows: i64| {
            let sql = format!("SELECT sum({function}(value)) AS s FROM range(0, {rows})");
            let session = session.clone();
            async move {
                let prepared = session.sql(&sql, &BTreeMap::new()).await?.prepare().await?;
                let rows = prepared.collect().await;
                let in_guests = prepared.functions().iter().map(|f| f.nanos).sum();
                Ok::<_, Error>((rows, Duration::from_nanos(in_guests)))
            }
        };
        let sum = |batches: Vec<RecordBatch>| batches[0].column(0).as_primitive::<Int64Type>().value(0);
        let tasks: Vec<_> =
            (0..QUERIES).map(|i| tokio::spawn(query(if i == 20 { "spin" } else { "tariff" }, 20_000 + i))).collect();
        let mut right = 0;
        for (i, task) in (0..).zip(tasks) {
            let (rows, in_guests) = task.await.unwrap().unwrap();
            match (i, rows) {
                (20, Ok(_)) => panic!("a function that does not end has ended"),
                (20, Err(error)) => {
                    let said = "function `spin` of `bad.wat`: ran longer than its time limit of 500ms";
                    assert!(error.message.contains(said), "{error}");
                    assert_eq!(error.kind, ErrorKind::Function);
                    // Two tasks at most; the machine may be busy.
                    assert!(in_guests < Duration::from_secs(10), "{in_guests:?}");
                }
                (i, done) => {
                    let rows = 20_000 + i;
                    assert_eq!(sum(done.unwrap()), rows + (rows - 501), "query {i}");
                    right += 1;
                }
            }
        }
        assert_eq!(right, QUERIES - 1);
        let (after, _) = query("tariff", 1_000).await.unwrap();
        assert_eq!(sum(after.unwrap()), 1_000 + 499);
        let start = Instant::now();
        while session.memory().reserved > 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "{} bytes are still held", session.memory().reserved);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
