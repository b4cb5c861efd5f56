//! A pipeline that is planned from its last runs: what a user sees of it.

use std::fs;

use serde_json::Value;

use crate::support::Place;

/// A filter of which nothing is known keeps 100 rows of 100,000. DataFusion joins as it is written, so that 5,000,000 rows are made of which it
/// keeps 5,000.
const QUERY: &str =
    "SELECT count(*) AS n, sum(b.v) AS w FROM b JOIN g ON b.g = g.g JOIN s ON b.k = s.k WHERE s.v % 1000 = 3";

fn pipeline(place: &Place) {
    let copy = |what: &str, to: &str| {
        place.ok(&["sql", "--learning", "off", "-c", &format!("COPY (SELECT {what}) TO 'p/data/{to}.parquet'")]);
    };
    copy("value AS k, value % 1000 AS g, value AS v FROM range(0, 100000)", "b");
    copy("value % 1000 AS g, value AS y FROM range(0, 50000)", "g");
    copy("value AS k, value AS v FROM range(0, 100000)", "s");
    place.write(
        "p/pipeline.toml",
        format!(
            "name = \"p\"\n\n[sources.s]\npath = \"data/s.parquet\"\n\n[sources.b]\npath = \"data/b.parquet\"\n\n\
             [sources.g]\npath = \"data/g.parquet\"\n\n\
             [[step]]\nname = \"joined\"\nquery = \"{QUERY}\"\noutput = {{ path = \"out/joined.csv\" }}\n"
        ),
    );
}

fn run(place: &Place, more: &[&str]) -> String {
    // As many slots on any machine: the plan is the same.
    let said = place.ok(&[&["run", "p", "--slots", "2"], more].concat());
    assert_eq!(fs::read_to_string(place.path("p/out/joined.csv")).unwrap(), "n,w\n5000,247515000\n", "{}", said.err);
    said.err
}

fn last_choice(place: &Place) -> Value {
    let json = place.ok(&["report", "last", "--state", "p/.sparklet", "--format", "json"]).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    json["run"]["steps"][0]["choice"].clone()
}

#[test]
fn the_second_run_is_planned_from_the_first() {
    let place = Place::new();
    pipeline(&place);
    run(&place, &[]);
    let first = last_choice(&place);
    assert_eq!(first["role"], "default", "{first:#}");
    assert_eq!(first["unused"]["type"], "first_run", "{first:#}");
    assert!(first["guard"]["default"]["cpu_us"].as_u64().unwrap() > 0, "{first:#}");

    // With each run the budget for trials grows.
    let mut said = run(&place, &[]);
    let mut second = last_choice(&place);
    assert_eq!(second["evidence"].as_array().unwrap().len(), 1, "{second:#}");
    for _ in 0..20 {
        if second["role"] == "trial" {
            break;
        }
        let explained = place.ok(&["explain", "p", "joined", "--slots", "2"]).out;
        said = run(&place, &[]);
        second = last_choice(&place);
        assert_eq!(explained.contains("on trial"), second["role"] == "trial", "{explained}");
    }
    assert_eq!(second["role"], "trial", "{second:#}");
    assert!(!second["chosen"]["changes"].as_array().unwrap().is_empty(), "{second:#}");
    assert!(said.contains("1 plan on trial"), "{said}");
    let report = place.ok(&["report", "last", "--state", "p/.sparklet"]).out;
    assert!(report.contains("plan-control") && report.contains("predicted:"), "{report}");

    let json = place.ok(&["report", "last", "--state", "p/.sparklet", "--format", "json"]).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    let id = json["run"]["id"].as_str().unwrap().to_owned();
    let rebuilt = place.ok(&["explain", "p", "joined", "--slots", "2", "--run", &id]).out;
    assert!(rebuilt.contains("made again: identical"), "{rebuilt}");

    // The user's word is the last.
    place.ok(&["plan-control", "forbid", "joined", "--pipeline", "p"]);
    run(&place, &[]);
    let third = last_choice(&place);
    assert_eq!((&third["role"], &third["because"]["type"]), (&"default".into(), &"ordered".into()), "{third:#}");
    assert!(place.ok(&["plan-control", "list", "p"]).out.contains("joined: forbid"));
    place.ok(&["plan-control", "pin", "joined", "--pipeline", "p", "--run", &id]);
    run(&place, &[]);
    let fourth = last_choice(&place);
    assert_eq!((&fourth["role"], &fourth["chosen"]["key"]), (&"pinned".into(), &second["chosen"]["key"]), "{fourth:#}");
    place.ok(&["plan-control", "reset", "joined", "--pipeline", "p"]);
    let observed = run(&place, &["--learning", "observe"]);
    let fifth = last_choice(&place);
    assert_eq!((&fifth["role"], &fifth["because"]["type"]), (&"default".into(), &"observe_only".into()), "{observed}");
    // Another environment has a past of its own.
    run(&place, &["--environment", "dev"]);
    let dev = last_choice(&place);
    assert_eq!(dev["unused"]["elsewhere"][0], "default", "{dev:#}");
}

#[test]
fn a_history_that_cannot_be_used_costs_the_learning_and_no_more() {
    let place = Place::new();
    pipeline(&place);
    run(&place, &[]);
    let history = place.path("p/.sparklet/history");
    let whole: Vec<_> = walk(&history).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    let restore = || {
        fs::remove_dir_all(&history).unwrap();
        for (content, path) in &whole {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    };
    // Garbage, cut short, empty, gone.
    let breaks: [(&str, Spoil); 3] = [
        ("garbage", |path, content| fs::write(path, vec![0xA5; content.len()]).unwrap()),
        ("cut", |path, content| fs::write(path, &content[..content.len() / 2]).unwrap()),
        ("empty", |path, _| fs::write(path, b"").unwrap()),
    ];
    for (name, spoil) in breaks {
        for (content, path) in whole.iter().filter(|(_, path)| path.to_string_lossy().contains("store")) {
            spoil(path, content);
        }
        run(&place, &[]);
        let choice = last_choice(&place);
        assert_eq!(choice["role"], "default", "{name}: {choice:#}");
        assert!(choice["unused"]["type"].is_string(), "{name}: {choice:#}");
        restore();
    }
}

#[test]
fn hashed_values_teach_as_well() {
    let place = Place::new();
    place.write("p/data/in.csv", "name,v\nsecret-name,31337\nother,1\n");
    place.write(
        "p/pipeline.toml",
        "name = \"p\"\n\n[sources.t]\npath = \"data/in.csv\"\n\n[[step]]\nname = \"s\"\n\
         query = \"SELECT name, sum(v) AS v FROM t WHERE name = 'secret-name' OR v > 31336 GROUP BY name\"\n\
         output = { path = \"out/s.csv\" }\n",
    );
    for _ in 0..2 {
        let mut command = place.command(&["run", "p"]);
        command.env("SPARKLET_HISTORY_VALUES", "hashed");
        let said = crate::support::finish(command);
        assert_eq!(said.code, 0, "{}", said.err);
    }
    let exported = place.path("history.ndjson");
    place.ok(&["history", "export", "--state", "p/.sparklet", exported.to_str().unwrap()]);
    let exported = fs::read_to_string(exported).unwrap();
    assert!(!exported.contains("secret-name") && !exported.contains("31336"), "{exported}");
    let explained = place.ok(&["explain", "p", "s", "--format", "json"]).out;
    let explained: Value = serde_json::from_str(&explained).unwrap();
    assert_eq!(explained["nodes"][0]["seen"]["times"], 2, "{explained:#}");
}

/// Makes a file with this content another.
type Spoil = fn(&std::path::Path, &[u8]);

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
