//! Runs that are killed: a child process runs a pipeline and is ended with SIGKILL at a random moment.
//!
//! `SPARKLET_KILLS=200` kills more often than the default.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use sparklet_core::SessionConfig;
use sparklet_history::Outcome;
use tokio_util::sync::CancellationToken;

use super::{RunOptions, run};

/// Rows of each version of an output.
const ROWS: usize = 3000;

const PIPELINE: &str = r#"
name = "killed"
[params]
version = 0
[[step]]
name = "numbers"
query = "SELECT value AS n, value % 5 AS k, $version AS version FROM generate_series(1, 3000)"
[[step]]
name = "file"
query = "SELECT version, n, k FROM numbers ORDER BY n"
output.path = "out/file.csv"
checks = [{ name = "all", expr = "n > 0" }]
[[step]]
name = "parts"
query = "SELECT version, n, k FROM file"
output = { path = "out/parts", format = "csv", partition_by = ["k"] }
[[step]]
name = "log"
query = "SELECT version, n, k FROM numbers"
output = { path = "out/log", format = "csv", mode = "append" }
[[step]]
name = "some"
query = "SELECT version, n, k FROM numbers WHERE k < 3 OR $version = 0"
output = { path = "out/some", format = "csv", mode = "replace_partitions", partition_by = ["k"] }
"#;

fn options(dir: &Path, version: usize) -> RunOptions {
    RunOptions {
        session: SessionConfig {
            memory_limit: Some(64 << 20),
            slots: Some(2),
            spill_dir: dir.join("spill"),
            ..SessionConfig::default()
        },
        params: BTreeMap::from([("version".to_owned(), version.to_string())]),
        select: None,
        timeout: None,
        environment: "default".to_owned(),
        state: dir.join(".sparklet"),
        settings: BTreeMap::new(),
        failed_rows: crate::failed::Retention::default(),
        events: Arc::new(|_| {}),
        cancel: CancellationToken::new(),
    }
}

async fn run_version(dir: &Path, version: usize) -> Outcome {
    let file = dir.join("pipeline.toml");
    let pipeline = crate::load_text(&file, Arc::from(PIPELINE), &|_| None).unwrap().pipeline;
    let record = run(&pipeline, &options(dir, version)).await.unwrap();
    assert!(record.error.is_none(), "{:?}", record.error);
    record.outcome
}

/// What the child process does.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the test below"]
async fn child() {
    let Ok(dir) = std::env::var("SPARKLET_KILL_DIR") else { return };
    let version = std::env::var("SPARKLET_KILL_VERSION").unwrap().parse().unwrap();
    run_version(Path::new(&dir), version).await;
}

fn spawn(dir: &Path, version: usize) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run::kill::child", "--ignored"])
        .env("SPARKLET_KILL_DIR", dir)
        .env("SPARKLET_KILL_VERSION", version.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Rows by version, of a file or of all files of a folder.
fn versions(path: &Path) -> BTreeMap<usize, usize> {
    let mut found = BTreeMap::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            for (version, rows) in versions(&entry.unwrap().path()) {
                *found.entry(version).or_default() += rows;
            }
        }
    } else if path.exists() {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'), "cut short: {}", path.display());
        for line in text.lines().skip(1) {
            *found.entry(line.split(',').next().unwrap().parse().unwrap()).or_default() += 1;
        }
    }
    found
}

/// Every output is one version, whole; of the log: whole versions only; of the partitions: three of the last, two of the first.
fn look(dir: &Path) -> BTreeMap<&'static str, Vec<usize>> {
    let mut seen = BTreeMap::new();
    for name in ["file.csv", "parts", "log", "some"] {
        let found = versions(&dir.join("out").join(name));
        for (version, rows) in &found {
            let whole = match (name, version) {
                ("some", 0) if found.len() == 2 => ROWS / 5 * 2,
                ("some", 1..) => ROWS / 5 * 3,
                _ => ROWS,
            };
            assert_eq!(*rows, whole, "{name}, version {version} of {found:?}");
        }
        let at_most = match name {
            "log" => usize::MAX,
            "some" => 2,
            _ => 1,
        };
        assert!(found.len() <= at_most, "{name} mixes versions: {found:?}");
        seen.insert(name, found.into_keys().collect());
    }
    seen
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if name.contains(".sparklet-") || name.ends_with(".lock") {
            found.push(path);
        } else if path.is_dir() {
            found.extend(leftovers(&path));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_runs_leave_whole_outputs_and_the_next_run_succeeds() {
    let kills: usize = std::env::var("SPARKLET_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert_eq!(run_version(dir, 0).await, Outcome::Succeeded);
    let start = Instant::now();
    assert!(spawn(dir, 1).wait().unwrap().success());
    let whole_run = start.elapsed();
    let mut done = vec![0, 1];
    let mut caught = 0;
    for version in 2..2 + kills {
        let wait = whole_run.mul_f64(rand::rng().random_range(0.1..1.1));
        let mut child = spawn(dir, version);
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let seen = look(dir);
        let (first, last) = (seen["file.csv"].contains(&version), seen["some"].contains(&version));
        caught += usize::from(first != last || !leftovers(dir).is_empty());
        if seen["log"].contains(&version) {
            done.push(version);
            done.sort_unstable();
        }
        assert_eq!(seen["log"], done, "a version came or went");
        if version % 3 == 0 {
            // A run of another pipeline in the same state folder clears up too; here the same one does.
            let next = version + 1_000_000;
            assert_eq!(run_version(dir, next).await, Outcome::Succeeded);
            done.push(next);
            done.sort_unstable();
            let seen = look(dir);
            assert_eq!((&seen["file.csv"], &seen["parts"], &seen["log"]), (&vec![next], &vec![next], &done));
            assert_eq!(seen["some"], [0, next]);
            assert_eq!(leftovers(dir), Vec::<PathBuf>::new());
            let work = dir.join(".sparklet/work");
            assert_eq!(fs::read_dir(work).unwrap().count(), 0);
        }
    }
    assert!(kills < 50 || caught * 10 > kills, "only {caught} of {kills} kills hit a run at work");
}
