//! Staged, adaptive execution as a user meets it: same rows, and a record, a report and an `explain` that say what was changed.

use std::fs;

use serde_json::Value;

use crate::support::Place;

/// Two thousand rows of five have key 7.
const ROWS: usize = 5_000;

/// Facts with a hot key and some NULLs, dimensions with keys of which some match nothing, and a pipeline that joins them; `settings` is the
/// body of its `[settings]`.
fn pipeline(place: &Place, settings: &str) {
    let mut facts = "k,v\n".to_owned();
    for v in 0..ROWS {
        let key = match v * 7919 % 100 {
            0..40 => "7".to_owned(),
            40..45 => String::new(),
            _ => (v % 89).to_string(),
        };
        facts.push_str(&format!("{key},{v}\n"));
    }
    place.write("p/facts.csv", facts);
    let dims: String = (0..120).map(|k| format!("{k},name {k}\n")).collect();
    place.write("p/dims.csv", format!("k,name\n{dims}"));
    place.write(
        "p/pipeline.toml",
        format!(
            "name = \"p\"\n[settings]\nslots = 4\n{settings}\n\
             [sources.facts]\npath = \"facts.csv\"\n[sources.dims]\npath = \"dims.csv\"\n\
             [[step]]\nname = \"joined\"\noutput = {{ path = \"out/joined.csv\" }}\n\
             query = \"SELECT f.v, f.k, d.name FROM facts f FULL JOIN dims d ON f.k = d.k ORDER BY f.v, d.name\"\n\
             [[step]]\nname = \"counts\"\noutput = {{ path = \"out/counts.csv\" }}\n\
             query = \"SELECT d.k, count(*) AS n, sum(f.v) AS s FROM facts f JOIN dims d ON f.k = d.k GROUP BY d.k ORDER BY d.k\"\n"
        ),
    );
}

/// What a run with `--adaptive` of this `mode` publishes.
fn outputs(place: &Place, mode: &str) -> [String; 2] {
    place.ok(&["run", "p", "--adaptive", mode]);
    ["p/out/joined.csv", "p/out/counts.csv"].map(|file| fs::read_to_string(place.path(file)).unwrap())
}

fn json(place: &Place, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.extend(["--format", "json"]);
    serde_json::from_str(&place.ok(&args).out).unwrap()
}

fn report(place: &Place) -> (Value, String) {
    let args = ["report", "last", "--state", "p/.sparklet"];
    (json(place, &args), place.ok(&args).out)
}

#[test]
fn a_hot_key_changes_the_plan_and_no_row() {
    let place = Place::new();
    pipeline(&place, "");
    let plain = outputs(&place, "off");
    // The unmatched rows of both sides are among them: 31 dimensions match nothing.
    assert_eq!(plain[0].lines().count(), 1 + ROWS + 31, "{}", plain[0]);
    let (json, text) = report(&place);
    assert!(json["run"]["steps"][0].get("adaptations").is_none(), "{json:#}");
    assert!(!text.contains("mid-run"), "{text}");

    assert_eq!(outputs(&place, "force"), plain);
    let (json, text) = report(&place);
    for step in [0, 1] {
        let recorded = &json["run"]["steps"][step]["adaptations"];
        let slots = |a: &&Value| a["kind"]["type"] == "change_slots";
        let changes: Vec<&Value> = recorded.as_array().unwrap().iter().filter(|a| !slots(a)).collect();
        // Of a full join each row is wanted; of the other the smaller input says which.
        let (adaptation, at) = match (step, &changes[..]) {
            (0, [divided]) => (*divided, 0),
            (1, [pushed, divided]) if pushed["kind"]["type"] == "push_keys" => (*divided, 1),
            _ => panic!("{recorded:#}"),
        };
        assert_eq!(adaptation["kind"]["type"], "divide_join", "{adaptation:#}");
        assert_eq!(adaptation["because"]["type"], "forced");
        let sum = |name: &str| adaptation[name].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
        // Rows without a match do not come so far where nobody wants them.
        let least = if step == 0 { ROWS } else { ROWS / 2 } as u64;
        assert!(sum("before") >= least && sum("after") > 0, "{adaptation:#}");
        let hot = &adaptation["hot_keys"].as_array().unwrap();
        let seven = hot.iter().find(|hot| hot["key"][0] == "7").unwrap_or_else(|| panic!("{adaptation:#}"));
        assert!((0.3..0.5).contains(&seven["share"].as_f64().unwrap()), "{seven}");
        // The tasks were measured, and all of them ran.
        let measured = &json["steps"][step]["adaptations"][at]["measured"];
        let tasks = adaptation["task_cpu_us"].as_array().unwrap().len();
        assert!(tasks > 1 && measured["tasks"] == tasks, "{measured:#}");
        assert_eq!(measured["spans"][0]["slots"], 4);
        // One tree: below each exchange is the stage that filled it.
        let nodes = json["run"]["steps"][step]["plan"]["nodes"].as_array().unwrap();
        let readers: Vec<usize> = (0..nodes.len()).filter(|&n| nodes[n]["operator"] == "ExchangeReaderExec").collect();
        assert_eq!(readers.len(), 2, "{nodes:#?}");
        assert!(readers.iter().all(|&r| nodes.iter().any(|n| n["parent"] == r)), "{nodes:#?}");
    }
    // Lines break where the page ends.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in
        ["Changed in mid-run", "was divided into", "because: `adaptive = \"force\"`", "`7` has 4", "█", "measured:"]
    {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn a_deterministic_step_keeps_its_plan() {
    let place = Place::new();
    pipeline(&place, "");
    let file = place.path("p/pipeline.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("name = \"counts\"\n", "name = \"counts\"\ndeterministic = true\n");
    assert!(text.contains("deterministic"));
    fs::write(&file, text).unwrap();
    outputs(&place, "force");
    let (json, _) = report(&place);
    let steps = json["run"]["steps"].as_array().unwrap();
    assert!(steps[0].get("adaptations").is_some() && steps[1].get("adaptations").is_none(), "{json:#}");
    let explained = place.ok(&["explain", "p", "counts", "--adaptive", "force"]).out;
    assert!(explained.contains("no stages: the step is `deterministic`"), "{explained}");
}

#[test]
fn what_an_empty_input_makes_empty_is_not_run() {
    let place = Place::new();
    pipeline(&place, "");
    let query = "SELECT count(*) AS n FROM 'p/facts.csv' f JOIN 'p/dims.csv' d ON f.k = d.k WHERE d.name = 'nobody'";
    let ask = |set: &str| {
        let said =
            place.ok(&["sql", "--adaptive", "force", "--set", set, "--slots", "4", "--format", "csv", "-c", query]);
        assert_eq!(said.out, "n\n0\n");
        let json = json(&place, &["report", "last"]);
        json["run"]["steps"][0]["adaptations"].to_string()
    };
    assert!(ask("adaptive_skip_empty=on").contains("skip_empty"));
    assert!(!ask("adaptive_skip_empty=off").contains("skip_empty"));
    let text = place.ok(&["runs", "--format", "ndjson"]).out;
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn what_stands_twice_is_computed_once() {
    let place = Place::new();
    pipeline(&place, "");
    let query = "WITH s AS (SELECT k, sum(v) AS t FROM 'p/facts.csv' GROUP BY k) \
                 SELECT count(*) AS n, max(a.t) AS m FROM s a JOIN s b ON a.t = b.t";
    let ask = |adaptive: &str, set: &str| {
        let args = ["--adaptive", adaptive, "--set", set, "-c", query];
        let out = place.ok(&[&["sql", "--format", "csv"], args.as_slice()].concat()).out;
        let recorded = json(&place, &["report", "last"])["run"]["steps"][0]["adaptations"].to_string();
        (out, recorded, place.ok(&[&["explain"], args.as_slice()].concat()).out)
    };
    let (plain, recorded, _) = ask("off", "adaptive_share=on");
    assert_eq!(recorded, "null");
    let (out, recorded, explained) = ask("force", "adaptive_share=on");
    assert_eq!(out, plain);
    assert!(recorded.contains("share_subplan") && explained.contains("computed once for 2 readers"), "{explained}");
    let text = place.ok(&["report", "last"]).out;
    assert!(text.contains("was computed once") && text.contains("its stage stands below another reader"), "{text}");
    let (out, recorded, explained) = ask("force", "adaptive_share=off");
    assert_eq!(out, plain);
    assert!(!recorded.contains("share_subplan") && !explained.contains("computed once"), "{explained}");
    // So small a query is left alone.
    let (out, recorded, explained) = ask("on", "adaptive_share=on");
    assert_eq!((out, recorded.as_str()), (plain, "null"));
    assert!(explained.contains("no stages: "), "{explained}");
    assert!(ask("on", "adaptive_share_min_bytes=none").1.contains("share_subplan"));
}

/// A build side that looks small: text columns are larger than anybody guessed.
#[test]
fn a_query_that_does_not_fit_says_that_it_was_run_twice() {
    let place = Place::new();
    for copy in [
        "COPY (SELECT value AS k, repeat('x', 500) || value AS t FROM range(0, 45000)) TO 'wide.parquet'",
        "COPY (SELECT value AS k FROM range(0, 400000)) TO 'long.parquet'",
    ] {
        place.ok(&["sql", "--learning", "off", "-c", copy]);
    }
    let query = "SELECT count(*) AS n, max(length(w.t)) AS m FROM 'wide.parquet' w JOIN 'long.parquet' l ON w.k = l.k";
    let args = ["--slots", "2", "--memory", "16MiB", "-c", query];
    let explained = place.ok(&[&["explain"], args.as_slice()].concat()).out;
    assert!(explained.contains("no stages: ") && explained.contains("run again"), "{explained}");
    let said = place.ok(&[&["sql", "--format", "csv"], args.as_slice()].concat());
    assert_eq!(said.out, "n,m\n45000,505\n");
    let text = place.ok(&["report", "last"]).out;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in
        ["was run a second time, in stages", "the query began again", "because: the attempt without stages did not fit"]
    {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let off = place.run(&[&["sql", "--set", "adaptive_memory=off"], args.as_slice()].concat());
    assert_eq!(off.code, 6, "{}", off.err);
}

#[test]
fn explain_says_where_a_plan_is_cut_and_why_nowhere() {
    let place = Place::new();
    // Joins that are not broadcast, however small.
    pipeline(
        &place,
        "datafusion.optimizer.hash_join_single_partition_threshold = 0\n\
         datafusion.optimizer.hash_join_single_partition_threshold_rows = 0",
    );
    let step = |more: &[&str]| {
        let args: Vec<&str> = ["explain", "p", "counts"].iter().chain(more).copied().collect();
        let json = json(&place, &args);
        let text = place.ok(&args).out;
        let stages = json["adaptive"].clone();
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(stages["why"].as_str().unwrap()), "{stages:#}\n{text}");
        (stages["boundaries"].as_array().unwrap().len(), stages["why"].as_str().unwrap().to_owned(), text)
    };
    let (boundaries, why, text) = step(&["--adaptive", "force"]);
    assert_eq!(boundaries, 1);
    assert!(why.contains("force") && text.contains("join on") && text.contains("run first"), "{text}");
    let (boundaries, why, text) = step(&[]);
    assert_eq!(boundaries, 0);
    assert!(why.contains("8,388,608 rows") && text.contains("no stages: "), "{text}");
    let (boundaries, why, _) = step(&["--adaptive", "off"]);
    assert_eq!((boundaries, why.as_str()), (0, "`adaptive` is `off`"));
    // The minimum and each rule can be set by themselves.
    let low = ["--set", "adaptive_min_rows=100"];
    assert_eq!(step(&low).0, 1);
    let (boundaries, why, _) = step(&["--set", "adaptive_min_rows=100", "--slots", "2"]);
    assert!(boundaries == 0 && why.contains("`adaptive_min_slots` is 4"), "{why}");
    assert_eq!(step(&["--set", "adaptive_min_rows=100", "--slots", "2", "--set", "adaptive_min_slots=2"]).0, 1);
    let mut rules = low.to_vec();
    rules.extend(["--set", "adaptive_split_skew=off"]);
    assert_eq!(step(&rules).0, 1, "it may still become a broadcast");
    rules.extend(["--set", "adaptive_broadcast=off"]);
    let (boundaries, why, _) = step(&rules);
    assert!(boundaries == 0 && why.contains("`adaptive_split_skew` and `adaptive_broadcast` are `off`"), "{why}");
    let planned = place.ok(&["plan", "p", "--adaptive", "force"]).out;
    assert!(planned.contains("1 part of the plan run first"), "{planned}");
    assert!(!place.ok(&["plan", "p"]).out.contains("run first"));
    // A query over files has no name for it, and no joins here.
    let query = json(&place, &["explain", "--adaptive", "force", "-c", "SELECT count(*) FROM 'p/facts.csv'"]);
    assert!(query["adaptive"]["why"].as_str().unwrap().contains("no hash join"), "{query:#}");
}

#[test]
fn switches_come_from_the_pipeline_the_environment_and_flags() {
    let place = Place::new();
    pipeline(&place, "adaptive_min_rows = 500\nadaptive_memory = \"off\"");
    let shown = |env: &[(&str, &str)], more: &[&str]| {
        let args: Vec<&str> = ["explain", "p", "counts", "--format", "json"].iter().chain(more).copied().collect();
        let mut command = place.command(&args);
        command.envs(env.iter().copied());
        let said = crate::support::finish(command);
        assert_eq!(said.code, 0, "{}", said.err);
        serde_json::from_str::<Value>(&said.out).unwrap()["adaptive"]["min_rows"].as_u64().unwrap()
    };
    assert_eq!(shown(&[], &[]), 500);
    let env = [("SPARKLET_ADAPTIVE_MIN_ROWS", "600")];
    assert_eq!(shown(&env, &[]), 600);
    assert_eq!(shown(&env, &["--set", "adaptive_min_rows=700"]), 700);
    let said = place.run(&["explain", "p", "counts", "--set", "adaptive_min_rows=few"]);
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("whole number from 1"), "{}", said.err);
}

#[test]
fn hot_groups_and_partitions_are_cut_and_others_say_why_not() {
    let place = Place::new();
    pipeline(&place, "");
    let ask = |mode: &str, set: &str, query: &str| {
        let args = ["sql", "--adaptive", mode, "--set", set, "--slots", "4", "--format", "csv", "-c", query];
        let rows = place.ok(&args).out;
        (rows, json(&place, &["report", "last"])["run"]["steps"][0]["adaptations"].clone())
    };
    let groups = "SELECT k, count(DISTINCT v % 7) AS a, count(DISTINCT v % 11) AS b, sum(v) AS s FROM 'p/facts.csv' \
                  GROUP BY k ORDER BY k";
    let ranks = "SELECT k, v, rank() OVER (PARTITION BY k ORDER BY v % 100) AS r FROM 'p/facts.csv' ORDER BY v";
    let whole = "SELECT k, v, sum(v) OVER (PARTITION BY k) AS s FROM 'p/facts.csv' ORDER BY v";
    let cut = [
        (groups, "split_groups", "adaptive_split_groups"),
        (ranks, "split_window", "adaptive_split_windows"),
        (whole, "split_window", "adaptive_split_windows"),
    ];
    for (query, kind, switch) in cut {
        let (plain, _) = ask("off", "adaptive_share=on", query);
        let (rows, changes) = ask("force", "adaptive_share=on", query);
        assert_eq!(rows, plain);
        assert_eq!(changes[0]["kind"]["type"], kind, "{changes:#}");
        assert!(changes[0]["task_cpu_us"].as_array().unwrap().len() > 4, "{changes:#}");
        let text = place.ok(&["report", "last"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("hot bucket") && text.contains("`7` has 4"), "{text}");
        let (rows, changes) = ask("force", &format!("{switch}=off"), query);
        assert_eq!((rows, changes.is_null()), (plain, true), "{changes:#}");
        let explained = place.ok(&["explain", "--adaptive", "force", "--slots", "4", "-c", query]).out;
        assert!(explained.contains(" by ") && explained.contains("rows expected"), "{explained}");
    }
    let lag = "SELECT k, v, lag(v) OVER (PARTITION BY k ORDER BY v) AS l FROM 'p/facts.csv' ORDER BY v";
    let explained = place.ok(&["explain", "--adaptive", "force", "--slots", "4", "-c", lag]).out;
    assert!(explained.contains("stays whole if it is hot: window lag by"), "{explained}");
    let (_, changes) = ask("on", "adaptive_min_rows=1000", lag);
    assert_eq!(changes[0]["kind"]["why"]["type"], "frame", "{changes:#}");
    let text = place.ok(&["report", "last"]).out;
    assert!(text.contains("left whole"), "{text}");
}

/// Scans of the larger input leave out what the keys of the smaller one, which is finished, do not reach.
#[test]
fn scans_prune_by_the_keys_of_a_finished_input() {
    let place = Place::new();
    for copy in [
        "COPY (SELECT value AS k, value * 3 AS v FROM range(0, 100000)) TO 'facts.parquet' OPTIONS ('format.max_row_group_size' 5000)",
        "COPY (SELECT value + 42000 AS k FROM range(0, 300)) TO 'dims.parquet'",
    ] {
        place.ok(&["sql", "--learning", "off", "-c", copy]);
    }
    let query =
        "SELECT count(*) AS n, sum(f.v) AS s FROM 'facts.parquet' f LEFT SEMI JOIN 'dims.parquet' d ON f.k = d.k";
    let ask = |set: &str| {
        let args = ["sql", "--adaptive", "force", "--set", set, "--slots", "4", "--format", "csv", "-c", query];
        assert_eq!(place.ok(&args).out, "n,s\n300,37934550\n");
        let step = json(&place, &["report", "last"])["run"]["steps"][0].clone();
        let nodes = step["plan"]["nodes"].as_array().unwrap();
        let pruned: u64 =
            nodes.iter().filter_map(|node| node["metrics"]["row_groups_pruned_statistics_pruned"].as_u64()).sum();
        (pruned, step["adaptations"].to_string(), step)
    };
    let (pruned, changes, step) = ask("adaptive_push_keys=on");
    assert!(pruned >= 15 && changes.contains("push_keys"), "{pruned}: {step:#}");
    let text = place.ok(&["report", "last"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("was read with the range of the keys of the other: 300 rows, of 100,000 expected"), "{text}");
    let (pruned, changes, step) = ask("adaptive_push_keys=off");
    assert!(pruned == 0 && !changes.contains("push_keys"), "{pruned}: {step:#}");
}

/// A build side that was expected to be small is five times as large: the join that was planned as a broadcast is partitioned.
#[test]
fn a_broadcast_becomes_partitioned_where_its_input_is_large() {
    let place = Place::new();
    for copy in [
        "COPY (SELECT value % 300000 AS k, value AS v FROM range(0, 1000000)) TO 'facts.parquet'",
        "COPY (SELECT value AS k, value AS w FROM range(0, 300000)) TO 'parts.parquet'",
    ] {
        place.ok(&["sql", "--learning", "off", "-c", copy]);
    }
    let ask = |rule: &str, condition: &str| {
        let query = format!(
            "SELECT count(*) AS n, sum(f.v + p.w) AS s FROM 'facts.parquet' f JOIN 'parts.parquet' p ON f.k = p.k WHERE {condition}"
        );
        let (rule, rows) = (format!("adaptive_broadcast={rule}"), "adaptive_min_rows=200000");
        let args = ["sql", "--learning", "off", "--slots", "4", "--format", "csv", "-c", &query];
        let result = place.ok(&[&args[..], &["--set", &rule, "--set", rows]].concat()).out;
        (result, json(&place, &["report", "last"])["run"]["steps"][0]["adaptations"].to_string())
    };
    let (plain, changes) = ask("off", "p.w % 7 >= 0");
    assert_eq!(changes, "null");
    let (result, changes) = ask("on", "p.w % 7 >= 0");
    assert_eq!(result, plain);
    assert_eq!(changes.matches(r#""type":"partition""#).count(), 1, "{changes}");
    assert!(changes.contains(r#""rows":300000"#) && changes.contains(r#""expected_rows":60000"#), "{changes}");
    let text = place.ok(&["report", "last"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("became a partitioned one, instead of a broadcast of one input"), "{text}");
    // As small as expected, or smaller.
    let (_, changes) = ask("on", "p.w % 700 = 0");
    assert!(!changes.contains(r#""type":"partition""#), "{changes}");
}

/// A condition that nobody can estimate leaves five times the rows that are expected: the join that was to be next comes last.
#[test]
fn joins_still_to_come_change_their_order() {
    let place = Place::new();
    for copy in [
        "COPY (SELECT value % 50000 AS k, value % 100003 AS e, value AS v FROM range(0, 1000000)) TO 'facts.parquet'",
        "COPY (SELECT value % 50000 AS k, value AS w FROM range(0, 300000)) TO 'parts.parquet'",
        "COPY (SELECT value AS e, value % 7 AS z FROM range(0, 300)) TO 'few.parquet'",
    ] {
        place.ok(&["sql", "--learning", "off", "-c", copy]);
    }
    let query = "SELECT count(*) AS n, sum(f.v + p.w + x.z) AS s FROM 'facts.parquet' f JOIN 'parts.parquet' p ON f.k = p.k \
                 JOIN 'few.parquet' x ON f.e = x.e WHERE f.v % 7 >= 0";
    let ask = |reorder: &str| {
        let (reorder, rows) = (format!("adaptive_reorder={reorder}"), "adaptive_min_rows=100000");
        let args = ["sql", "--learning", "off", "--slots", "4", "--format", "csv", "-c", query];
        let result = place.ok(&[&args[..], &["--set", &reorder, "--set", rows]].concat()).out;
        let run = json(&place, &["report", "last"])["run"].clone();
        (result, run["steps"][0]["adaptations"].clone())
    };
    let (plain, changes) = ask("off");
    assert!(!changes.to_string().contains("reorder_joins"), "{changes:#}");
    let (result, changes) = ask("on");
    assert_eq!(result, plain);
    let changes = changes.as_array().unwrap();
    let change = changes.iter().find(|change| change["kind"]["type"] == "reorder_joins");
    let change = change.unwrap_or_else(|| panic!("{changes:#?}"));
    assert_eq!(change["kind"]["orders"], serde_json::json!(["(x JOIN Exchange 0) JOIN p"]), "{change:#}");
    assert!(change["because"]["rows"].as_u64() >= Some(2 * change["because"]["expected_rows"].as_u64().unwrap()));
    assert!(change["predicted_before"].as_u64() > change["predicted_after"].as_u64());
    let text = place.ok(&["report", "last"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("the joins that were still to come ran in another order: (x JOIN Exchange 0) JOIN p"),
        "{text}"
    );
    assert!(text.contains("a finished part of the plan has 1,000,000 rows, 200,000 were expected"), "{text}");
}

/// What one run measures of keys, the next one begins with.
#[test]
fn heavy_keys_are_known_in_the_next_run() {
    let place = Place::new();
    place.write("p/in/none", "");
    for copy in [
        "COPY (SELECT CASE WHEN value % 5 < 3 THEN 7 ELSE value % 200000 END AS k, value % 200000 AS e, value AS v \
         FROM range(0, 600000)) TO 'p/in/facts.parquet'",
        "COPY (SELECT value AS k, value * 2 AS w FROM range(0, 200000)) TO 'p/in/dims.parquet'",
    ] {
        place.ok(&["sql", "--learning", "off", "-c", copy]);
    }
    let step = |name: &str, key: &str| {
        format!(
            "[[step]]\nname = \"{name}\"\noutput = {{ path = \"out/{name}.csv\" }}\n\
             query = \"SELECT count(*) AS n, sum(f.v) AS s, max(d.w) AS w FROM facts f FULL JOIN dims d ON f.{key} = d.k\"\n"
        )
    };
    place.write(
        "p/pipeline.toml",
        format!(
            "name = \"p\"\n[settings]\nslots = 4\n[sources.facts]\npath = \"in/facts.parquet\"\n\
             [sources.dims]\npath = \"in/dims.parquet\"\n{}{}",
            step("skewed", "k"),
            step("even", "e")
        ),
    );
    let run = |more: &[&str]| {
        place.ok(&[&["run", "p"], more].concat());
        let (json, text) = report(&place);
        let id = json["run"]["id"].as_str().unwrap().to_owned();
        let rows = ["p/out/skewed.csv", "p/out/even.csv"].map(|file| fs::read_to_string(place.path(file)).unwrap());
        (id, json["run"]["steps"].clone(), rows, text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let kinds = |step: &Value| -> Vec<String> {
        let changes = step["adaptations"].as_array().cloned().unwrap_or_default();
        let kinds = changes.iter().map(|change| change["kind"]["type"].as_str().unwrap().to_owned());
        kinds.filter(|kind| kind != "change_slots").collect()
    };
    // Nothing is known: too few rows to look for heavy keys.
    let (_, steps, plain, _) = run(&[]);
    assert!(kinds(&steps[0]).is_empty() && kinds(&steps[1]).is_empty(), "{steps:#}");
    // A join on trial is no part of this.
    for step in ["skewed", "even"] {
        place.ok(&["plan-control", "forbid", step, "--pipeline", "p"]);
    }
    let looks = ["--set", "adaptive_min_rows=1000"];
    let (first, steps, rows, _) = run(&looks);
    assert_eq!(rows, plain);
    assert_eq!(kinds(&steps[0]), ["divide_join"], "{steps:#}");
    let keys = steps[0]["keys"].as_array().unwrap();
    let facts = keys.iter().find(|key| key["table"] == "facts").unwrap_or_else(|| panic!("{keys:#?}"));
    assert_eq!((&facts["columns"][0], facts["rows"].as_u64()), (&Value::from("k"), Some(600_000)));
    assert_eq!(facts["heavy"][0]["key"][0], "7", "{facts:#}");
    assert_eq!(steps[1]["keys"].as_array().unwrap().len(), 2);
    // As few rows as before, but now it is known that a key is heavy.
    let (_, steps, rows, text) = run(&[]);
    assert_eq!(rows, plain);
    assert_eq!(kinds(&steps[0]), ["begin_with_split", "divide_join"], "{steps:#}");
    assert!(steps[0]["adaptations"][1]["kind"]["split_buckets"].as_u64().unwrap() > 0, "{steps:#}");
    assert!(kinds(&steps[1]).is_empty(), "{steps:#}");
    assert!(text.contains(&format!("known from run {first}")), "{text}");
    let explained = place.ok(&["explain", "p", "skewed"]).out;
    assert!(explained.contains("a heavy key known from run"), "{explained}");
    // Where none is heavy nothing is looked for.
    let (_, steps, rows, text) = run(&looks);
    assert_eq!(rows, plain);
    assert_eq!(
        (kinds(&steps[0]), kinds(&steps[1])),
        (vec!["divide_join".to_owned()], vec!["leave_out".to_owned()]),
        "{steps:#}"
    );
    assert!(text.contains("found no heavy key"), "{text}");
    let explained = place.ok(&[&["explain", "p", "even"], &looks[..]].concat()).out;
    assert!(explained.contains("what they would look for is known"), "{explained}");
    // It can be switched off.
    let (_, steps, rows, _) = run(&["--set", "adaptive_known_keys=off"]);
    assert_eq!(rows, plain);
    assert!(kinds(&steps[0]).is_empty(), "{steps:#}");
}
