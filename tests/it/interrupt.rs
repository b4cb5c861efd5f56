//! Ctrl-C, SIGTERM, time-outs, closed pipes.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::Place;

/// A pipeline whose first step publishes at once and whose second would take minutes.
fn endless(place: &Place, extra: &str) {
    place.write(
        "p/pipeline.toml",
        format!(
            "name = \"p\"\n\n[[step]]\nname = \"first\"\nquery = \"SELECT 1 AS x\"\noutput = {{ path = \"out/first.csv\" }}\n\n\
             [[step]]\nname = \"endless\"\n{extra}\
             query = \"SELECT sum(a.value * b.value % 7) AS s FROM range(0, 1000000) a CROSS JOIN range(0, 1000000) b CROSS JOIN first\"\n\
             output = {{ path = \"out/endless.parquet\" }}\n"
        ),
    );
}

#[test]
fn signals_end_a_run_cleanly() {
    for signal in [Signal::INT, Signal::TERM] {
        let place = Place::new();
        endless(&place, "");
        let mut child = place.command(&["run", "p"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let first = place.path("p/out/first.csv");
        while !first.exists() {
            assert!(child.try_wait().unwrap().is_none(), "ended before it was interrupted");
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
        assert!(said.contains("cancelled") || said.contains("interrupted"), "{said}");
        assert_eq!(place.list("p/out"), ["first.csv"]);
        assert_eq!(place.list("p/.sparklet/work"), [""; 0]);
        let listed = place.ok(&["runs", "--state", "p/.sparklet", "--format", "csv"]);
        assert!(listed.out.contains("cancelled"), "{}", listed.out);
    }
}

#[test]
fn time_limits_of_steps_and_runs_fire() {
    let place = Place::new();
    endless(&place, "timeout = \"1s\"\n");
    let said = place.run(&["run", "p"]);
    assert_eq!(said.code, 124, "{}", said.err);
    assert!(said.err.contains("endless"), "{}", said.err);
    endless(&place, "");
    let said = place.run(&["run", "p", "--timeout", "1s"]);
    assert_eq!(said.code, 124, "{}", said.err);
    assert_eq!(place.list("p/out"), ["first.csv"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    let sql = "SELECT value FROM range(0, 5000000)";
    let mut child = place.start(&["sql", "--format", "csv", "-c", sql]);
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "value\n");
    drop(out);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let code = child.wait().unwrap().code();
    assert!(code == Some(0) || code == Some(141), "{code:?} {said}");
    assert!(!said.contains("panic") && !said.contains("Broken pipe"), "{said}");
}

/// Functions that would compute for a minute are no reason to wait for one.
#[test]
fn functions_end_with_the_work_that_calls_them() {
    let place = Place::new();
    place.write("p/spin.wat", "(module (func (export \"spin\") (param i64) (result i64) (loop (br 0)) (i64.const 1)))");
    let pipeline = |timeout: &str| {
        place.write(
            "p/pipeline.toml",
            format!(
                "name = \"p\"\n\n[udfs.spin]\nmodule = \"spin.wat\"\ntimeout = \"10m\"\n\n[[step]]\nname = \"first\"\nquery = \"SELECT 1 AS x\"\n\
                 output = {{ path = \"out/first.csv\" }}\n\n[[step]]\nname = \"endless\"\n{timeout}\
                 query = \"SELECT sum(spin(value)) AS s FROM range(0, 100000) CROSS JOIN first\"\noutput = {{ path = \"out/endless.csv\" }}\n"
            ),
        );
    };
    pipeline("timeout = \"1s\"\n");
    let start = Instant::now();
    let said = place.run(&["run", "p"]);
    assert_eq!(said.code, 124, "{}", said.err);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    pipeline("");
    std::fs::remove_file(place.path("p/out/first.csv")).unwrap();
    let mut child = place.command(&["run", "p"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !place.path("p/out/first.csv").exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before it was interrupted");
        std::thread::yield_now();
    }
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    // In ad-hoc SQL, the function's own limit is ten seconds. The other call is of constants: it is a part of planning.
    for call in ["spin(value) FROM range(0, 10)", "spin(1)"] {
        let sql = format!("CREATE FUNCTION spin() LANGUAGE wasm AS 'p/spin.wat'; SELECT {call}");
        let start = Instant::now();
        let said = place.run(&["sql", "-c", &sql, "--timeout", "1s"]);
        assert_eq!(said.code, 124, "{call}: {}", said.err);
        assert!(start.elapsed() < Duration::from_secs(8), "{call}: {:?}", start.elapsed());
    }
}
