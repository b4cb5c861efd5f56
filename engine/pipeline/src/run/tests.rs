//! Runs of small pipelines in temporary folders.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use arrow::util::pretty::pretty_format_batches;

use super::*;

/// A folder with data and a pipeline.
struct Bench {
    dir: tempfile::TempDir,
    options: RunOptions,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("in.csv"), "k,v\na,1\nb,2\na,3\nc,\n").unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let options = RunOptions {
            session: SessionConfig {
                memory_limit: Some(256 << 20),
                slots: Some(2),
                spill_dir: dir.path().join("spill"),
                ..SessionConfig::default()
            },
            params: BTreeMap::new(),
            select: None,
            timeout: None,
            environment: "default".to_owned(),
            state: dir.path().join(".sparklet"),
            settings: BTreeMap::new(),
            failed_rows: crate::failed::Retention::default(),
            events: Arc::new(move |event| sink.lock().unwrap().push(event)),
            cancel: CancellationToken::new(),
        };
        Self { dir, options, events }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pipeline(&self, toml: &str) -> Pipeline {
        let text = format!("name = \"p\"\n{toml}");
        crate::load_text(&self.path("pipeline.toml"), Arc::from(text), &|_| None)
            .unwrap_or_else(|d| panic!("{}", d.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
            .pipeline
    }

    async fn try_run(&self, toml: &str) -> Result<RunRecord, Vec<Diagnostic>> {
        run(&self.pipeline(toml), &self.options).await
    }

    async fn run(&self, toml: &str) -> RunRecord {
        let record = self.try_run(toml).await.unwrap_or_else(|d| panic!("{d:?}"));
        self.nothing_left();
        record
    }

    /// Nothing that a run needs only while it runs is left.
    fn nothing_left(&self) {
        fn walk(folder: &Path) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(!name.contains(".sparklet-") && !name.ends_with(".lock"), "left: {}", path.display());
                if path.is_dir() {
                    walk(&path);
                }
            }
        }
        walk(self.dir.path());
        let work = self.options.state.join("work");
        assert!(!work.exists() || fs::read_dir(work).unwrap().count() == 0);
    }

    /// Rows of a published file or folder, through a session of its own.
    async fn rows(&self, sql: &str) -> String {
        let session = Session::new(self.options.session.clone()).unwrap();
        let sql = sql.replace("out/", &format!("{}/", self.path("out").display()));
        let batches = session.sql(&sql, &BTreeMap::new()).await.unwrap().collect().await.unwrap();
        let text = pretty_format_batches(&batches).unwrap().to_string();
        // Only what stands between the bars.
        let lines = text.lines().filter(|l| l.starts_with('|')).skip(1);
        lines
            .map(|l| l.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(","))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn notes(&self) -> Vec<String> {
        let events = self.events.lock().unwrap();
        events.iter().filter_map(|e| if let Event::Note(note) = e { Some(note.clone()) } else { None }).collect()
    }
}

const SOURCE: &str = "[sources.t]\npath = \"in.csv\"\n";

fn steps(record: &RunRecord) -> Vec<(&str, Outcome)> {
    record.steps.iter().map(|s| (s.name.as_str(), s.outcome)).collect()
}

fn kinds(record: &RunRecord) -> Vec<&str> {
    record.steps.iter().map(|s| s.output.as_ref().map_or("-", |o| o.format.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_runs_and_is_recorded() {
    let bench = Bench::new();
    let record = bench
        .run(&format!(
            r#"{SOURCE}
[params]
least = 2
[[step]]
name = "big"
query = "SELECT * FROM t WHERE v >= $least"
[[step]]
name = "sums"
query = "SELECT k, sum(v) AS v FROM big GROUP BY k ORDER BY k DESC"
output.path = "out/sums.parquet"
checks = [{{ name = "positive", expr = "v > 0" }}]
[[step]]
name = "text"
query = "SELECT * FROM sums ORDER BY k"
output.path = "out/text.csv"
[[step]]
name = "last"
query = "SELECT count(*) AS n FROM text"
output.path = "out/last.json"
"#
        ))
        .await;
    assert_eq!(record.outcome, Outcome::Succeeded, "{:?}", record.error);
    assert_eq!(kinds(&record), ["inlined", "parquet", "csv", "json"]);
    assert_eq!(bench.rows("SELECT * FROM 'out/sums.parquet'").await, "b,2 a,3");
    assert_eq!(fs::read_to_string(bench.path("out/text.csv")).unwrap(), "k,v\na,3\nb,2\n");
    assert_eq!(fs::read_to_string(bench.path("out/last.json")).unwrap(), "{\"n\":2}\n");
    assert_eq!(record.params["least"], "2");
    assert_eq!(record.sources.len(), 1);
    assert_eq!(record.slots, 2);
    assert_eq!(record.memory_limit_bytes, 256 << 20);
    assert!(record.wall_us > 0 && record.cpu_us > 0 && record.peak_memory_bytes > 0);
    let sums = &record.steps[1];
    assert_eq!((sums.rows, sums.checks[0].rows, sums.checks[0].failed_rows), (2, Some(2), Some(0)));
    assert!(sums.plan.as_ref().unwrap().nodes.len() > 2);
    assert!(sums.output.as_ref().unwrap().published && sums.output.as_ref().unwrap().bytes > 0);
    assert!(sums.planning_us > 0 && sums.execution_us > 0 && sums.publish_us > 0 && sums.checks_us > 0);
    assert!(sums.wall_us >= sums.planning_us + sums.execution_us + sums.publish_us + sums.checks_us);
    let events = bench.events.lock().unwrap();
    assert!(matches!(&events[0], Event::Started { steps, .. } if steps.len() == 4));
    assert!(matches!(events.last(), Some(Event::Finished { outcome: Outcome::Succeeded })));
    assert_eq!(events.iter().filter(|e| matches!(e, Event::StepFinished { .. })).count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_columns_come_back_with_their_types_and_places() {
    let bench = Bench::new();
    let record = bench
        .run(
            r#"
[[step]]
name = "a"
query = """SELECT * FROM (VALUES
  (DATE '2013-01-02', 1.5, 'x/y z%=é', CAST(7 AS SMALLINT), 'one'),
  (DATE '2013-01-03', 2.5, '007', CAST(-1 AS SMALLINT), 'two')) v(day, amount, name, n, other)"""
output = { path = "out/a", partition_by = ["day", "name", "n"] }
checks = [{ name = "seen", sql = "SELECT count(*) = 1 FROM a WHERE name = 'x/y z%=é' AND day = DATE '2013-01-02' AND n = 7" }]
[[step]]
name = "b"
query = "SELECT *, arrow_typeof(day) AS t1, arrow_typeof(n) AS t2 FROM a ORDER BY amount"
output.path = "out/b.csv"
"#,
        )
        .await;
    assert_eq!(record.outcome, Outcome::Succeeded, "{:?} {:?}", record.error, record.steps[0].checks);
    assert_eq!(
        fs::read_to_string(bench.path("out/b.csv")).unwrap(),
        "day,amount,name,n,other,t1,t2\n2013-01-02,1.5,x/y z%=é,7,one,Date32,Int16\n2013-01-03,2.5,007,-1,two,Date32,Int16\n"
    );
    assert_eq!(record.steps[0].output.as_ref().unwrap().partitions.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_check_publishes_nothing_and_keeps_the_rows() {
    let mut bench = Bench::new();
    bench.options.failed_rows.max_runs = Some(2);
    let toml = |tolerate: &str, block: &str| {
        format!(
            r#"{SOURCE}
[[step]]
name = "a"
query = "SELECT * FROM t"
output.path = "out/a.csv"
checks = [
  {{ name = "has_value", expr = "v > 0 -- of course", on_fail = "{block}", tolerate = {tolerate} }},
  {{ name = "many", sql = "SELECT count(*) > 100 FROM a", on_fail = "warn" }},
]
[[step]]
name = "b"
query = "SELECT * FROM a"
output.path = "out/b.parquet"
[[step]]
name = "c"
query = "SELECT 1 AS one"
output.path = "out/c.parquet"
"#
        )
    };
    fs::create_dir(bench.path("out")).unwrap();
    fs::write(bench.path("out/a.csv"), "old").unwrap();
    let record = bench.run(&toml("0.0", "block")).await;
    assert_eq!(record.outcome, Outcome::CheckFailed);
    assert_eq!(steps(&record), [("a", Outcome::CheckFailed), ("b", Outcome::Skipped), ("c", Outcome::Succeeded)]);
    assert_eq!(fs::read_to_string(bench.path("out/a.csv")).unwrap(), "old");
    let checks = &record.steps[0].checks;
    assert_eq!((checks[0].passed, checks[0].rows, checks[0].failed_rows), (false, Some(4), Some(1)));
    assert_eq!((checks[1].passed, checks[1].blocking, checks[1].rows), (false, false, None));
    let kept = checks[0].kept.clone().unwrap();
    assert!(kept.contains("failed") && kept.ends_with("a-has_value.parquet"));
    assert_eq!(bench.rows(&format!("SELECT * FROM '{kept}'")).await, "c,");
    let error = record.error.unwrap();
    assert_eq!(error.kind, "check");
    assert!(
        error.message.starts_with("step `a`: check `has_value` failed: 1 of 4 rows (25.00 %)"),
        "{}",
        error.message
    );
    assert!(bench.notes().iter().any(|n| n.contains("check `many` failed")));

    let record = bench.run(&toml("0.25", "block")).await;
    assert_eq!(record.outcome, Outcome::Succeeded, "{:?}", record.error);
    assert!(record.steps[0].checks[0].passed);
    let record = bench.run(&toml("0.0", "warn")).await;
    assert_eq!(record.outcome, Outcome::Succeeded);
    assert!(!record.steps[0].checks[0].passed);
    assert_eq!(fs::read_dir(bench.path(".sparklet/failed")).unwrap().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_stops_those_that_read_it_only() {
    let bench = Bench::new();
    let record = bench
        .run(&format!(
            r#"{SOURCE}
[[step]]
name = "a"
query = "SELECT CAST(k AS INT) AS n FROM t"
output.path = "out/a.parquet"
[[step]]
name = "b"
query = "SELECT * FROM a"
[[step]]
name = "c"
query = "SELECT * FROM b"
output.path = "out/c.parquet"
[[step]]
name = "d"
query = "SELECT k FROM t WHERE v = 1"
output.path = "out/d.csv"
"#
        ))
        .await;
    assert_eq!(record.outcome, Outcome::Failed);
    assert_eq!(
        steps(&record),
        [("a", Outcome::Failed), ("b", Outcome::Skipped), ("c", Outcome::Skipped), ("d", Outcome::Succeeded)]
    );
    assert!(record.error.unwrap().message.starts_with("step `a`: "));
    assert!(!bench.path("out/a.parquet").exists());
    assert_eq!(fs::read_to_string(bench.path("out/d.csv")).unwrap(), "k\na\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn intermediates_are_kept_once_and_given_back() {
    let bench = Bench::new();
    let toml = r#"
[[step]]
name = "numbers"
query = "SELECT value AS n, random() AS r FROM generate_series(1, 100000)"
[[step]]
name = "x"
query = "SELECT sum(r) AS s, count(*) AS n FROM numbers"
output.path = "out/x.parquet"
[[step]]
name = "y"
query = "SELECT sum(r) AS s, count(*) AS n FROM numbers"
output.path = "out/y.parquet"
[[step]]
name = "z"
query = "SELECT count(*) AS n FROM numbers WHERE n > 10"
output.path = "out/z.parquet"
"#;
    let record = bench.run(toml).await;
    assert_eq!(record.outcome, Outcome::Succeeded, "{:?}", record.error);
    assert_eq!(kinds(&record)[0], "memory");
    let same = "SELECT abs(x.s - y.s) < 1e-6, x.n FROM 'out/x.parquet' x, 'out/y.parquet' y";
    assert_eq!(bench.rows(same).await, "true,100000");
    assert_eq!(record.steps[0].rows, 100_000);

    // Too large for its share of the pool: the same through a file.
    let mut small = Bench::new();
    small.options.session.memory_limit = Some(16 << 20);
    let wide = toml.replace("random() AS r", "random() AS r, repeat('x', 100) AS pad");
    let record = small.run(&wide).await;
    assert_eq!(record.outcome, Outcome::Succeeded, "{:?}", record.error);
    assert_eq!(kinds(&record)[0], "spilled");
    assert_eq!(small.rows(same).await, "true,100000");
    assert_eq!(small.rows("SELECT n FROM 'out/z.parquet'").await, "99990");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_csv_keeps_its_order_even_when_spilled() {
    let mut bench = Bench::new();
    bench.options.session.memory_limit = Some(16 << 20);
    let record = bench
        .run(
            r#"
[[step]]
name = "sorted"
query = "SELECT value AS n, repeat('x', 80) AS pad FROM generate_series(1, 100000) ORDER BY n DESC"
output.path = "out/sorted.csv"
checks = [{ name = "all", sql = "SELECT count(*) = 100000 FROM sorted" }]
[[step]]
name = "file"
query = "SELECT n FROM sorted ORDER BY n"
output.path = "out/file.parquet"
"#,
        )
        .await;
    assert_eq!(record.outcome, Outcome::Succeeded, "{:?}", record.error);
    let text = fs::read_to_string(bench.path("out/sorted.csv")).unwrap();
    let numbers: Vec<u32> = text.lines().skip(1).map(|l| l.split(',').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a > b));
    assert_eq!(numbers.len(), 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_keep_what_they_should_and_later_steps_see_the_whole() {
    let bench = Bench::new();
    let toml = |mode: &str, format: &str| {
        format!(
            r#"{SOURCE}
[params]
shift = 0
[[step]]
name = "a"
query = "SELECT k, v + $shift AS v FROM t WHERE v IS NOT NULL AND (k = 'a' OR $shift = 0)"
output = {{ path = "out/{mode}_{format}", format = "{format}", mode = "{mode}", partition_by = ["k"] }}
checks = [{{ name = "mine", sql = "SELECT count(*) <= 3 FROM a" }}]
[[step]]
name = "b"
query = "SELECT k, sum(v) AS v, count(*) AS n FROM a GROUP BY k ORDER BY k"
output.path = "out/b.csv"
"#
        )
    };
    for format in ["parquet", "csv", "arrow", "json"] {
        for (mode, second) in [
            ("append", "k,v,n\na,28,4\nb,2,1\n"),
            ("replace_partitions", "k,v,n\na,24,2\nb,2,1\n"),
            ("replace", "k,v,n\na,24,2\n"),
        ] {
            let record = bench.run(&toml(mode, format)).await;
            assert_eq!(record.outcome, Outcome::Succeeded, "{mode} {format}: {:?}", record.error);
            assert_eq!(
                fs::read_to_string(bench.path("out/b.csv")).unwrap(),
                "k,v,n\na,4,2\nb,2,1\n",
                "{mode} {format}"
            );
            let mut again = bench.options.clone();
            again.params.insert("shift".to_owned(), "10".to_owned());
            let record = run(&bench.pipeline(&toml(mode, format)), &again).await.unwrap();
            assert_eq!(record.outcome, Outcome::Succeeded, "{mode} {format}: {:?}", record.error);
            assert_eq!(record.steps[0].rows, 2);
            assert_eq!(fs::read_to_string(bench.path("out/b.csv")).unwrap(), second, "{mode} {format}");
        }
    }
    bench.nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn appending_nothing_adds_nothing() {
    let bench = Bench::new();
    let toml = format!(
        "{SOURCE}[params]\nleast = 0\n[[step]]\nname = \"a\"\nquery = \"SELECT * FROM t WHERE v > $least\"\noutput = {{ path = \"out/a\", mode = \"append\" }}\n"
    );
    bench.run(&toml).await;
    let files = || fs::read_dir(bench.path("out/a")).unwrap().count();
    let before = files();
    let mut none = bench.options.clone();
    none.params.insert("least".to_owned(), "100".to_owned());
    let record = run(&bench.pipeline(&toml), &none).await.unwrap();
    assert_eq!((record.outcome, record.steps[0].rows, files()), (Outcome::Succeeded, 0, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn selected_steps_read_what_was_published() {
    let mut bench = Bench::new();
    let toml = format!(
        r#"{SOURCE}
[[step]]
name = "a"
query = "SELECT k, v, k AS p FROM t WHERE v > 0"
output = {{ path = "out/a", partition_by = ["k"] }}
[[step]]
name = "m"
query = "SELECT k, v, p FROM a"
[[step]]
name = "b"
query = "SELECT k, p, sum(v) AS v FROM m GROUP BY k, p ORDER BY k"
output.path = "out/b.csv"
"#
    );
    bench.options.select = Some("b".to_owned());
    let errors = bench.try_run(&toml).await.unwrap_err();
    assert_eq!(errors[0].code, "not-published");
    bench.nothing_left();
    bench.options.select = None;
    bench.run(&toml).await;
    fs::remove_file(bench.path("out/b.csv")).unwrap();
    bench.options.select = Some("b".to_owned());
    let record = bench.run(&toml).await;
    assert_eq!(steps(&record), [("m", Outcome::Succeeded), ("b", Outcome::Succeeded)]);
    assert_eq!(fs::read_to_string(bench.path("out/b.csv")).unwrap(), "k,p,v\na,a,4\nb,b,2\n");
    // The definition has moved on, what was published has not.
    let wider =
        toml.replace("k AS p FROM t", "k AS p, v + 1 AS w FROM t").replace("v, p FROM a", "v + w AS v, p FROM a");
    let errors = bench.try_run(&wider).await.unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].message.contains("was published without `w`"), "{}", errors[0].message);
    let other = toml.replace("partition_by = [\"k\"]", "partition_by = [\"p\"]");
    let errors = bench.try_run(&other).await.unwrap_err();
    assert!(errors[0].message.contains("partitioned by `k`"), "{}", errors[0].message);
}

const ENDLESS: &str = "SELECT count(*) AS n FROM generate_series(1, 100000000) a, generate_series(1, 100000000) b WHERE a.value % 7 = b.value % 11";

#[tokio::test(flavor = "multi_thread")]
async fn time_limits_and_interruption_stop_promptly() {
    let endless = |timeout: &str| {
        format!(
            r#"{SOURCE}
[[step]]
name = "a"
query = "{ENDLESS}"
output.path = "out/a.parquet"
{timeout}
[[step]]
name = "b"
query = "SELECT * FROM a"
output.path = "out/b.parquet"
[[step]]
name = "c"
query = "SELECT 1 AS one"
output.path = "out/c.parquet"
"#
        )
    };
    let bench = Bench::new();
    let start = Instant::now();
    let record = bench.run(&endless("timeout = \"300ms\"")).await;
    assert_eq!(record.outcome, Outcome::TimedOut);
    assert_eq!(steps(&record), [("a", Outcome::TimedOut), ("b", Outcome::Skipped), ("c", Outcome::Succeeded)]);
    assert!(record.error.unwrap().message.contains("time limit of 300ms"));
    assert!(record.steps[0].plan.is_some());

    let mut bench = Bench::new();
    bench.options.timeout = Some(Duration::from_millis(300));
    let record = bench.run(&endless("")).await;
    assert_eq!(record.outcome, Outcome::TimedOut);
    assert_eq!(steps(&record), [("a", Outcome::TimedOut), ("b", Outcome::Skipped), ("c", Outcome::Skipped)]);
    assert!(record.error.unwrap().message.contains("the run took longer"));

    let bench = Bench::new();
    let cancel = bench.options.cancel.clone();
    let interrupt = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    };
    let toml = endless("");
    let (record, ()) = tokio::join!(bench.run(&toml), interrupt);
    assert_eq!(record.outcome, Outcome::Cancelled);
    assert_eq!(steps(&record), [("a", Outcome::Cancelled), ("b", Outcome::Skipped), ("c", Outcome::Skipped)]);
    assert!(!bench.path("out/a.parquet").exists());
    // Cancelled before it began.
    let record = bench.run(&toml).await;
    assert_eq!(record.outcome, Outcome::Cancelled);
    assert!(record.steps.iter().all(|s| s.outcome == Outcome::Skipped));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_one_pipeline_never_overlap_others_do() {
    let bench = Bench::new();
    let slow = format!("[[step]]\nname = \"a\"\nquery = \"{ENDLESS}\"\noutput.path = \"out/a.parquet\"\n");
    let (slow_pipeline, options) = (bench.pipeline(&slow), bench.options.clone());
    let running = tokio::spawn(async move { run(&slow_pipeline, &options).await });
    while !bench.events.lock().unwrap().iter().any(|e| matches!(e, Event::StepStarted { .. })) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let quick = RunOptions { events: Arc::new(|_| {}), cancel: CancellationToken::new(), ..bench.options.clone() };
    let errors = run(&bench.pipeline(&slow), &quick).await.unwrap_err();
    assert_eq!(errors[0].code, "busy");
    assert!(errors[0].message.starts_with("another run of `p` is going on: run `"), "{}", errors[0].message);

    let mut other =
        bench.pipeline("[[step]]\nname = \"z\"\nquery = \"SELECT 1 AS one\"\noutput.path = \"out/z.csv\"\n");
    other.name = "q".to_owned();
    assert_eq!(run(&other, &quick).await.unwrap().outcome, Outcome::Succeeded);
    // Another pipeline that writes the same output, from another state folder.
    let mut rival = bench.pipeline(&slow.replace(ENDLESS, "SELECT 1 AS one"));
    rival.name = "r".to_owned();
    let elsewhere = RunOptions { state: bench.path("other_state"), ..quick.clone() };
    let record = run(&rival, &elsewhere).await.unwrap();
    assert_eq!(record.outcome, Outcome::Failed);
    let error = record.error.unwrap();
    assert!(
        error.message.contains("is writing the output") && error.message.contains("of pipeline `p`"),
        "{}",
        error.message
    );

    bench.options.cancel.cancel();
    assert_eq!(running.await.unwrap().unwrap().outcome, Outcome::Cancelled);
    let record = run(&rival, &elsewhere).await.unwrap();
    assert_eq!(record.outcome, Outcome::Succeeded);
    bench.nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_cannot_be_written_stop_the_run_before_it_starts() {
    let bench = Bench::new();
    let toml = r#"
[[step]]
name = "a"
query = "SELECT 1 AS one"
output.path = "out/a.csv"
[[step]]
name = "b"
query = "SELECT 2 AS two"
output.path = "out/b"
[[step]]
name = "c"
query = "SELECT 3 AS three"
output.path = "in.csv/c.csv"
"#;
    fs::create_dir_all(bench.path("out/b")).unwrap();
    fs::write(bench.path("out/b/diary.txt"), "dear").unwrap();
    let record = bench.run(toml).await;
    assert_eq!(steps(&record), [("a", Outcome::Skipped), ("b", Outcome::Skipped), ("c", Outcome::Failed)]);
    assert_eq!(record.steps[2].error.as_ref().unwrap().kind, "output");
    let record = bench.run(&toml.replace("in.csv/c.csv", "out/c.csv")).await;
    assert_eq!(steps(&record), [("a", Outcome::Skipped), ("b", Outcome::Failed), ("c", Outcome::Skipped)]);
    let error = record.error.unwrap();
    assert!(error.message.contains("holds `diary.txt`"), "{}", error.message);
    assert_eq!(fs::read_to_string(bench.path("out/b/diary.txt")).unwrap(), "dear");
    assert!(!bench.path("out/a.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn definition_errors_come_before_anything_runs() {
    let mut bench = Bench::new();
    let toml = format!(
        "{SOURCE}[params]\nday = {{ type = \"date\", required = true }}\n[[step]]\nname = \"a\"\nquery = \"SELECT $day AS d, w FROM t\"\noutput.path = \"out/a.csv\"\n"
    );
    assert_eq!(bench.try_run(&toml).await.unwrap_err()[0].code, "missing-param");
    bench.options.params.insert("day".to_owned(), "2013-02-01".to_owned());
    let errors = bench.try_run(&toml).await.unwrap_err();
    assert!(errors[0].place.is_some(), "{errors:?}");
    bench.options.select = Some("b".to_owned());
    assert_eq!(bench.try_run(&toml).await.unwrap_err()[0].code, "unknown-step");
    bench.nothing_left();
    fs::write(bench.path("blocked"), "").unwrap();
    bench.options.state = bench.path("blocked/state");
    let errors = bench.try_run(&toml).await.unwrap_err();
    assert_eq!(errors[0].code, "state");
    assert!(errors[0].hint.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_version_follows_the_code() {
    let bench = Bench::new();
    let toml = format!("{SOURCE}[[step]]\nname = \"a\"\nsql = \"a.sql\"\noutput.path = \"out/a.csv\"\n");
    fs::write(bench.path("a.sql"), "SELECT 1 AS one").unwrap();
    let first = code_version(&bench.pipeline(&toml));
    assert_eq!(first, code_version(&bench.pipeline(&toml)));
    fs::write(bench.path("a.sql"), "SELECT 2 AS one").unwrap();
    let second = code_version(&bench.pipeline(&toml));
    assert_ne!(first, second);
    assert_ne!(second, code_version(&bench.pipeline(&format!("{toml}# more\n"))));
}
