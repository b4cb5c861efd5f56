//! `kill -9` at random moments: what readers see is the old version or the new one, whole, and the next run succeeds.

use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::Place;

/// Rounds in this test; `SPARKLET_TEST_KILLS=200` for the figure of record.
fn rounds() -> u32 {
    std::env::var("SPARKLET_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(25)
}

fn pipeline(place: &Place, version: u32) {
    place.write(
        "p/pipeline.toml",
        format!(
            "name = \"p\"\n\n\
             [[step]]\nname = \"file\"\nquery = \"SELECT value AS n, {version} AS version FROM range(0, 20000)\"\n\
             output = {{ path = \"out/file.parquet\" }}\n\
             checks = [{{ name = \"all\", expr = \"version = {version}\" }}]\n\n\
             [[step]]\nname = \"folder\"\nquery = \"SELECT n, version, n % 4 AS part FROM file\"\n\
             output = {{ path = \"out/folder\", partition_by = [\"part\"] }}\n\n\
             [[step]]\nname = \"text\"\nquery = \"SELECT version, count(*) AS n FROM folder GROUP BY version\"\n\
             output = {{ path = \"out/text.csv\" }}\n"
        ),
    );
}

/// The one version in an output, with the number of its rows; none where there is no output yet.
fn seen(place: &Place, sql: &str) -> Option<(String, String)> {
    let said = place.run(&["sql", "--learning", "off", "--format", "csv", "-c", sql]);
    if said.code != 0 {
        assert!(said.err.contains("does not exist") || said.err.contains("no table"), "{sql}: {}", said.err);
        return None;
    }
    let rows: Vec<&str> = said.out.lines().skip(1).collect();
    assert_eq!(rows.len(), 1, "a mixture of versions: {rows:?}");
    let (version, count) = rows[0].split_once(',').unwrap();
    Some((version.to_owned(), count.to_owned()))
}

#[test]
fn killed_runs_leave_whole_versions() {
    let place = Place::new();
    let mut random = StdRng::seed_from_u64(20131101);
    pipeline(&place, 0);
    let start = Instant::now();
    place.ok(&["run", "p"]);
    let whole = start.elapsed();
    let mut killed = 0;
    for round in 1..=rounds() {
        pipeline(&place, round);
        let mut child = place.command(&["run", "p"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let moment = whole.mul_f64(random.random_range(0.02..1.1));
        let deadline = Instant::now() + moment;
        // Waits for the moment or the end, whichever comes first.
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break None;
            }
            std::thread::park_timeout(left.min(Duration::from_millis(2)));
        };
        match ended {
            Some(status) => {
                let mut said = String::new();
                child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                assert!(status.success(), "round {round}: {said}");
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
            }
        }
        for sql in [
            "SELECT version, count(*) FROM 'p/out/file.parquet' GROUP BY version",
            "SELECT version, count(*) FROM 'p/out/folder/' GROUP BY version",
            "SELECT version, sum(n) FROM 'p/out/text.csv' GROUP BY version",
        ] {
            let (version, count) = seen(&place, sql).expect("an output that was published is gone");
            assert_eq!(count, "20000", "round {round}: {sql}");
            assert!(version.parse::<u32>().unwrap() <= round);
        }
    }
    assert!(killed > 0, "no round was killed");
    pipeline(&place, 9_999);
    place.ok(&["run", "p"]);
    assert_eq!(place.list("p/out"), ["file.parquet", "folder", "text.csv"], "left-overs beside the outputs");
    assert_eq!(place.list("p/.sparklet/work"), [""; 0], "left-overs in the state folder");
    assert_eq!(fs::read_to_string(place.path("p/out/text.csv")).unwrap().lines().nth(1), Some("9999,20000"));
    let verified = place.ok(&["history", "verify", "--state", "p/.sparklet"]);
    assert_eq!(verified.code, 0, "{}", verified.out);
    eprintln!("{killed} of {} rounds were killed before their end", rounds());
}
