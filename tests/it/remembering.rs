//! The history as a user meets it: found by the second run, never needed by any.

use std::fs;

use crate::support::Place;

fn pipeline(place: &Place) {
    place.write(
        "p/pipeline.toml",
        "name = \"p\"\n\n[[step]]\nname = \"sums\"\n\
         query = \"SELECT value % 10 AS k, sum(value) AS s FROM range(0, 100000) GROUP BY 1 ORDER BY 1\"\n\
         output = { path = \"out/sums.csv\" }\n",
    );
}

fn remembered(place: &Place) -> usize {
    place.ok(&["runs", "--state", "p/.sparklet", "--format", "ndjson"]).out.lines().count()
}

#[test]
fn a_second_run_finds_the_first() {
    let place = Place::new();
    pipeline(&place);
    let first = place.ok(&["run", "p"]);
    assert!(first.err.contains("first run"), "{}", first.err);
    let second = place.ok(&["run", "p"]);
    assert!(!second.err.contains("first run"), "{}", second.err);
    assert_eq!(remembered(&place), 2);
    let text = place.ok(&["report", "last", "--state", "p/.sparklet"]).out;
    assert!(text.contains("sums") && text.contains("AggregateExec"), "{text}");
    let json = place.ok(&["report", "last", "--state", "p/.sparklet", "--format", "json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json.is_object());
}

#[test]
fn explain_knows_what_a_step_over_other_steps_did() {
    let place = Place::new();
    place.write(
        "p/pipeline.toml",
        "name = \"p\"\n\n[[step]]\nname = \"numbers\"\n\
         query = \"SELECT value, value % 10 AS k FROM range(0, 1000)\"\noutput = { path = \"out/numbers.parquet\" }\n\n\
         [[step]]\nname = \"sums\"\nquery = \"SELECT k, sum(value) AS s FROM numbers WHERE value < 500 GROUP BY k\"\n\
         output = { path = \"out/sums.csv\" }\n",
    );
    place.ok(&["run", "p"]);
    let explained = place.ok(&["explain", "p", "sums", "--format", "json"]).out;
    let explained: serde_json::Value = serde_json::from_str(&explained).unwrap();
    let root = &explained["nodes"][0];
    assert_eq!(root["seen"]["rows"], 10, "{explained:#}");
    assert_eq!(root["seen"]["times"], 1, "{explained:#}");
    assert!(root["canonical"].as_str().unwrap().contains("numbers"), "{explained:#}");
}

#[test]
fn deleting_the_history_changes_no_result() {
    let place = Place::new();
    pipeline(&place);
    place.ok(&["run", "p"]);
    let before = fs::read(place.path("p/out/sums.csv")).unwrap();
    fs::remove_dir_all(place.path("p/.sparklet")).unwrap();
    place.ok(&["run", "p"]);
    assert_eq!(fs::read(place.path("p/out/sums.csv")).unwrap(), before);
    assert_eq!(remembered(&place), 1);
}

#[test]
fn a_damaged_store_is_set_aside() {
    let place = Place::new();
    pipeline(&place);
    place.ok(&["run", "p"]);
    place.ok(&["run", "p"]);
    let store = place.path("p/.sparklet/history");
    let mut damaged = 0;
    for entry in walk(&store) {
        let mut bytes = fs::read(&entry).unwrap();
        if !bytes.is_empty() {
            let middle = bytes.len() / 3;
            for byte in bytes.iter_mut().skip(middle).take(4096) {
                *byte ^= 0xa5;
            }
            fs::write(&entry, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let said = place.ok(&["run", "p"]);
    assert!(!said.err.contains("panicked"), "{}", said.err);
    assert!(remembered(&place) >= 1, "the run after the damage is remembered");
    place.ok(&["run", "p"]);
}

#[test]
fn a_read_only_state_folder_fails_no_query() {
    let place = Place::new();
    place.write("state", "a file where the state folder should be");
    let said = place.run(&["sql", "--state", "state", "--format", "csv", "-c", "SELECT 41 + 1 AS x"]);
    assert_eq!((said.code, said.out.as_str()), (0, "x\n42\n"), "{}", said.err);
    assert!(said.err.contains("not remembered"), "{}", said.err);
}

/// A store that cannot be used: runs go on, their records wait and are found when it can be used again.
fn unusable(place: &Place, says: &str, mut mend: impl FnMut()) {
    let said = place.run(&["run", "p"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("waits in the spool") && said.err.contains(says), "{}", said.err);
    // Nobody can say that it is the first run.
    assert!(!said.err.contains("first run"), "{}", said.err);
    assert_eq!(place.list("p/.sparklet/spool").len(), 1);
    let said = place.run(&["runs", "--state", "p/.sparklet"]);
    assert_eq!(said.code, 7, "{}", said.err);
    assert!(said.err.contains(says) && said.err.contains("hint:"), "{}", said.err);
    mend();
    assert_eq!(remembered(place), 2);
}

#[test]
fn a_locked_store_fails_no_run() {
    let place = Place::new();
    pipeline(&place);
    place.ok(&["run", "p"]);
    let mut lock = Some(fs::File::open(place.path("p/.sparklet/history.lock")).unwrap());
    lock.as_ref().unwrap().lock().unwrap();
    unusable(&place, "another process", || drop(lock.take()));
}

#[test]
fn a_newer_store_is_left_alone() {
    let place = Place::new();
    pipeline(&place);
    place.ok(&["run", "p"]);
    let pointer = place.path("p/.sparklet/history/current");
    let before = fs::read_to_string(&pointer).unwrap();
    let newer = before.lines().next().unwrap().replace("\"format\":1", "\"format\":4000");
    let newer = format!("{newer}\n{}\n", sparklet::history::Fingerprint::of(&newer));
    fs::write(&pointer, &newer).unwrap();
    unusable(&place, "4000", || {
        assert_eq!(fs::read_to_string(&pointer).unwrap(), newer);
        fs::write(&pointer, &before).unwrap();
    });
}

#[test]
fn history_moves_between_places() {
    let place = Place::new();
    pipeline(&place);
    place.ok(&["run", "p"]);
    place.ok(&["run", "p"]);
    let exported = place.ok(&["history", "export", "--state", "p/.sparklet"]).out;
    place.write("h.ndjson", &exported);
    for _ in 0..2 {
        place.ok(&["history", "import", "h.ndjson", "--state", "other"]);
        let listed = place.ok(&["runs", "--state", "other", "--format", "ndjson"]).out;
        assert_eq!(listed.lines().count(), 2);
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files
}
