//! Several processes at one history, and processes that are killed.
//!
//! The test binary starts itself with [`ROLE`] set, to run only [`child`], which then plays that role.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

const ROLE: &str = "SPARKLET_HISTORY_TEST_ROLE";
const STATE: &str = "SPARKLET_HISTORY_TEST_STATE";

struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str, state: &std::path::Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::processes::child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(STATE, state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    /// The next line that the role says; what the test harness prints is left out.
    fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.stdout.read_line(&mut line).unwrap() > 0 {
            if let Some((_, said)) = line.trim_end().split_once("> ") {
                return Some(said.to_owned());
            }
            line.clear();
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn say(what: &str) {
    // In one write, so that a kill leaves a line or none.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("> {what}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Not a test of its own: what a started process does.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let state = std::path::PathBuf::from(std::env::var_os(STATE).unwrap());
    let patient = HistoryOptions { lock_wait: Duration::from_secs(60), ..HistoryOptions::default() };
    let history = History::new(&state, patient);
    match role.as_str() {
        "hold" => {
            let _store = history.create().unwrap();
            say("holding");
            // Until the parent closes the pipe.
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        "append" => {
            say("ready");
            // Large enough to have something on each shelf, or small.
            for nodes in [100, 12].into_iter().cycle() {
                let mut record = run(0, Shape { nodes, ..Shape::default() });
                record.id = RunId::random();
                record.started_at = chrono::Utc::now();
                match history.remember(&record, &texts(&record)) {
                    Remembered::Stored { notes } => say(&format!("{} {}", record.id, notes.join("; "))),
                    other => say(&format!("! {other:?}")),
                }
            }
        }
        "prune" => {
            say("ready");
            loop {
                let mut store = history.create().unwrap();
                store.compact().unwrap();
                say("compacted");
            }
        }
        "some" => {
            for n in 0..10 {
                let mut record = run(n, Shape::default());
                record.id = RunId::random();
                stored(&history.remember(&record, &texts(&record)));
                say(record.id.as_str());
            }
        }
        other => panic!("no role `{other}`"),
    }
}

#[test]
fn a_held_store_makes_the_record_wait_in_the_spool() {
    let state = state();
    let history = history(&state);
    let mut holder = Process::start("hold", state.path());
    assert_eq!(holder.next().as_deref(), Some("holding"));
    let start = Instant::now();
    let record = run(1, Shape::default());
    let Remembered::Spooled { reason } = history.remember(&record, &texts(&record)) else { panic!("not spooled") };
    assert!(reason.contains("in use by another process"), "{reason}");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(matches!(history.open(), Err(HistoryError::Locked { .. })));
    drop(holder);
    let store = history.open().unwrap();
    assert_eq!(store.run("last").unwrap(), record);
    assert_eq!(store.info().unwrap().spooled, 0);
    clean(&store);
}

#[test]
fn a_store_that_is_let_go_in_time_takes_the_record() {
    let state = state();
    let mut holder = Process::start("hold", state.path());
    assert_eq!(holder.next().as_deref(), Some("holding"));
    let patient = HistoryOptions { lock_wait: Duration::from_secs(60), ..HistoryOptions::default() };
    let path = state.path().to_owned();
    let waiting = std::thread::spawn(move || {
        History::new(path, patient).remember(&run(1, Shape::default()), &CanonicalTexts::new())
    });
    let Process { stdin, .. } = &mut holder;
    stdin.flush().unwrap();
    drop(holder);
    stored(&waiting.join().unwrap());
}

#[test]
fn processes_at_the_same_time_all_have_their_runs_stored() {
    let state = state();
    let mut processes: Vec<_> = (0..4).map(|_| Process::start("some", state.path())).collect();
    let mut ids = Vec::new();
    for process in &mut processes {
        while let Some(id) = process.next() {
            ids.push(id);
        }
        assert!(process.child.wait().unwrap().success());
    }
    let store = history(&state).open().unwrap();
    assert_eq!((ids.len(), clean(&store).runs), (40, 40));
    for id in ids {
        store.run(&id).unwrap();
    }
}

/// Kills a process in the middle of its work, `times` times, and looks whether all that it said is true.
fn kill(role: &str, times: usize) {
    let state = state();
    let history = history(&state);
    let mut rng = SmallRng::seed_from_u64(11);
    let mut acknowledged: Vec<String> = Vec::new();
    if role == "prune" {
        for n in 0..60 {
            let record = run(n, Shape::default());
            stored(&history.remember(&record, &texts(&record)));
            acknowledged.push(record.id.to_string());
        }
    }
    for round in 0..times {
        let mut process = Process::start(role, state.path());
        assert_eq!(process.next().as_deref(), Some("ready"));
        let lines = rng.random_range(0..4);
        for _ in 0..lines {
            acknowledged.extend(process.next());
        }
        // Somewhere in the next piece of work, which takes some milliseconds: by spinning, since a sleep is too coarse.
        let moment = Instant::now() + Duration::from_micros(rng.random_range(0..30_000));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        while let Some(line) = process.next() {
            acknowledged.push(line);
        }
        acknowledged.retain(|line| line != "compacted");
        let store = history.open().unwrap();
        assert_eq!(store.notes(), [] as [String; 0], "round {round}: a kill is no damage");
        clean(&store);
        for line in &acknowledged {
            let (id, notes) = line.split_once(' ').unwrap_or((line, ""));
            assert!(notes.is_empty() && !line.starts_with('!'), "round {round}: {line}");
            assert!(store.run(id).is_ok(), "round {round}: run `{id}` is lost");
        }
    }
    let left = std::fs::read_dir(state.path().join("history")).unwrap();
    let names: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("store-")).count(), 1, "{names:?}");
    assert!(!names.iter().any(|name| name == "tail"), "{names:?}");
}

/// `SPARKLET_KILLS` asks for more than are done each time.
fn kills() -> usize {
    std::env::var("SPARKLET_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(25)
}

#[test]
fn a_killed_writer_loses_nothing_that_it_acknowledged() {
    kill("append", kills());
}

#[test]
fn a_killed_rewrite_loses_nothing() {
    kill("prune", kills());
}
