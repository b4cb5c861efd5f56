//! What is said of pipelines whose definitions can be read.

use std::path::Path;

use sparklet_core::SessionConfig;

use super::*;
use crate::params::plan_params;

const ORDERS: &str = "id,customer_id,total,day,Status\n1,10,5.5,2013-02-01,ok\n2,11,7.25,2013-02-02,late\n";
const CUSTOMERS: &str = "id,name\n10,Ada\n11,Bob\n";
const SOURCES: &str =
    "name = \"p\"\n[sources.orders]\npath = \"orders.csv\"\n[sources.customers]\npath = \"customers.csv\"\n";

fn folder(toml: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in
        [("orders.csv", ORDERS), ("customers.csv", CUSTOMERS), ("pipeline.toml", toml)].iter().chain(files)
    {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

pub(crate) fn session() -> Session {
    let config = SessionConfig {
        slots: Some(2),
        spill_dir: std::env::temp_dir(),
        memory_limit: Some(256 << 20),
        ..SessionConfig::default()
    };
    Session::new(config).unwrap()
}

pub(crate) fn loaded(folder: &Path) -> Pipeline {
    match crate::load(folder, &|_| None) {
        Ok(loaded) => loaded.pipeline,
        Err(found) => panic!("{}", lines(&found, folder)),
    }
}

fn lines(found: &[Diagnostic], folder: &Path) -> String {
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    lines.join("\n").replace(&format!("{}/", folder.display()), "").replace(&folder.display().to_string(), "DIR")
}

async fn said(toml: &str, files: &[(&str, &str)]) -> String {
    let folder = folder(toml, files);
    let pipeline = loaded(folder.path());
    let params = plan_params(&pipeline, &BTreeMap::new()).unwrap();
    lines(&check(&pipeline, &session(), &params).await, folder.path())
}

fn step(name: &str, query: &str) -> String {
    format!("[[step]]\nname = \"{name}\"\nquery = \"\"\"\n{query}\"\"\"\n")
}

#[tokio::test]
async fn a_good_pipeline_has_nothing_said_of_it() {
    let toml = format!("params = {{ least = 1.5, day = {{ type = \"date\" }} }}\n{SOURCES}")
        + &step(
            "joined",
            "SELECT o.id, c.name, total, day FROM orders o JOIN customers c ON o.customer_id = c.id WHERE total > $least AND day = $day",
        )
        + "output = { path = \"out/joined\", partition_by = [\"day\"] }\n"
        + "checks = [{ name = \"a\", expr = \"total > 0 -- each\" }, { name = \"b\", sql = \"SELECT count(*) > 0 FROM joined\" }]\n"
        + &step(
            "totals",
            "SELECT name, sum(total) AS total FROM joined GROUP BY name ORDER BY total DESC, name LIMIT 5",
        );
    assert_eq!(said(&toml, &[]).await, "");
}

#[tokio::test]
async fn wrong_columns_functions_and_types_come_all_at_once() {
    let toml = SOURCES.to_owned()
        + "[[step]]\nname = \"file\"\nsql = \"file.sql\"\n"
        + &step("a", "SELECT id,\n  totl, custmer_id\nFROM orders")
        + &step("b", "SELECT o.nme FROM orders o JOIN customers c ON o.id = c.id")
        + &step("c", "SELECT id FROM orders o JOIN customers c ON o.id = c.id")
        + &step("d", "SELECT status FROM orders")
        + &step("e", "SELECT uper(day) AS x, day + total AS y FROM orders")
        + &step("f", "SELECT name FROM customers WHERE name + 1")
        + &step("g", "SELECT id, sum(total) FROM orders")
        + &step("h", "SELECT o.id, c.id FROM orders o, customers c")
        + &step("i", "SELECT id FROM orders UNION SELECT id, name FROM customers")
        + &step("j", "SELECT x FROM a")
        + &step("k", "SELECT name FROM customers WHERE id = (SELECT max(id), 1 FROM orders)");
    let files = [("file.sql", "-- a comment\nSELECT\n  é.nam\nFROM customers é")];
    insta::assert_snapshot!(said(&toml, &files).await, @r###"
    file.sql:3:3: error[unknown-column]: no column `nam` in `é` / did you mean `name`?
    pipeline.toml:13:3: error[unknown-column]: no column `totl` / did you mean `total`?
    pipeline.toml:13:9: error[unknown-column]: no column `custmer_id` / did you mean `customer_id`?
    pipeline.toml:18:8: error[unknown-column]: no column `nme` in `o` / did you mean `name`?
    pipeline.toml:22:8: error[ambiguous-column]: column `id` is in more than one table / say which: `table.id`
    pipeline.toml:26:8: error[unknown-column]: no column `status` / it is written `"Status"`, with quotes: names without quotes are lower case
    pipeline.toml:30:8: error[unknown-function]: unknown function `uper` / did you mean `upper`?
    pipeline.toml:34:1: error[sql-plan]: cannot coerce arithmetic expression Utf8 + Int64 to valid types / cast one side to the type of the other, e.g. `CAST(x AS DATE)`
    pipeline.toml:38:8: error[sql-plan]: 'orders.id' must appear in GROUP BY clause because it's not an aggregate expression / either add 'orders.id' to GROUP BY clause, or use an aggregate function like max(orders.id)
    pipeline.toml:42:1: error[duplicate-column]: the result of `h` has two columns `id` / give one of them another name with `AS`
    pipeline.toml:46:1: error[sql-plan]: UNION queries have different number of columns
    pipeline.toml:54:1: error[sql-plan]: too many columns! The subquery should only return one column: max(orders.id), Int64(1)
    "###);
}

#[tokio::test]
async fn outputs_and_checks_are_held_against_the_columns() {
    let toml = SOURCES.to_owned()
        + &step("a", "SELECT id, total, day, [id] AS list, NULL AS nothing FROM orders")
        + "output = { path = \"out/a\", format = \"csv\", partition_by = [\"dy\", \"total\"] }\n"
        + "checks = [{ name = \"a\", expr = \"ttal > 0\" }, { name = \"b\", expr = \"total + 1\" }, { name = \"c\", expr = \"count(*) > 0\" }, \
           { name = \"d\", sql = \"SELECT count(*) FROM a\" }, { name = \"e\", sql = \"SELECT true, false\" }, { name = \"f\", expr = \"day > 'x' AND\\n nope\" }]\n"
        + &step("b", "SELECT id FROM orders")
        + "output = { path = \"out/b\", partition_by = [\"id\"] }\n";
    insta::assert_snapshot!(said(&toml, &[]).await, @r###"
    pipeline.toml:5:8: note[unused-source]: no step reads source `customers`
    pipeline.toml:10:19: error[unknown-column]: `partition_by` names `dy`, which the result of `a` does not have / did you mean `day`?
    pipeline.toml:10:19: error[wrong-type]: column `total` is of type Float64, which cannot name folders / partition by a column of integers, text, dates or booleans
    pipeline.toml:10:19: error[wrong-type]: column `list` is of type List(Int64), which CSV cannot hold / write Parquet or JSON, or take the column apart in the query
    pipeline.toml:10:19: warning[no-type]: column `nothing` of `a` is always NULL and has no type / write `CAST(NULL AS INT) AS nothing`
    pipeline.toml:11:33: error[unknown-column]: no column `ttal` / did you mean `total`?
    pipeline.toml:11:68: error[bad-check]: check `b` is of type Float64, not boolean / compare with something, e.g. `… > 0` or `… IS NOT NULL`
    pipeline.toml:11:104: error[bad-check]: check `c` aggregates, but `expr` is asked of each row / write it as a query: `sql = "SELECT … FROM a"`
    pipeline.toml:11:142: error[bad-check]: check `d` is of type Int64, not boolean / compare with something, e.g. `… > 0` or `… IS NOT NULL`
    pipeline.toml:11:190: error[bad-check]: check `e` returns 2 columns, not one boolean / select one condition, e.g. `SELECT count(*) > 0 FROM …`
    pipeline.toml:11:251: error[unknown-column]: no column `nope` / there are `id`, `total`, `day`, `list`, `nothing`
    pipeline.toml:16:19: error[bad-value]: `partition_by` names every column of `b`: nothing is left for the files / leave out one column, or select another
    "###);
}

#[tokio::test]
async fn sources_that_cannot_be_read() {
    let toml = "name = \"p\"\n[sources.gone]\npath = \"gone.csv\"\n[sources.empty]\npath = \"empty\"\n[sources.bad]\npath = \"bad.parquet\"\n\
                [sources.unused]\npath = \"orders.csv\"\n"
        .to_owned()
        + &step("a", "SELECT x FROM gone")
        + &step("b", "SELECT x FROM empty JOIN bad ON true");
    let folder = folder(&toml, &[("bad.parquet", "PAR1 but no more")]);
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let pipeline = loaded(folder.path());
    let found = check(&pipeline, &session(), &BTreeMap::new()).await;
    insta::assert_snapshot!(lines(&found, folder.path()), @r###"
    pipeline.toml:3:8: error[bad-source]: source `gone`: `gone.csv` does not exist / looked for `gone.csv`
    pipeline.toml:5:8: error[bad-source]: source `empty`: `empty` holds no files / check the path; folders and globs are searched for files of the source's format
    pipeline.toml:7:8: error[bad-data]: source `bad`: `bad.parquet` is not readable as Parquet: bad Parquet data: Invalid Parquet file. Corrupt footer / the file is damaged or of another format; write it again, or leave it out by a glob
    pipeline.toml:9:8: note[unused-source]: no step reads source `unused`
    "###);
}

#[tokio::test]
async fn ties_are_noted() {
    for (query, note) in [
        ("SELECT id FROM orders LIMIT 5", Some("`LIMIT` without `ORDER BY` takes any rows")),
        (
            "SELECT id, total FROM orders ORDER BY total LIMIT 5",
            Some("`LIMIT` takes any of the rows that tie in `total`"),
        ),
        ("SELECT id FROM orders ORDER BY id LIMIT 5", None),
        ("SELECT count(*) AS n FROM orders LIMIT 1", None),
        (
            "SELECT day, count(*) AS n FROM orders GROUP BY day ORDER BY n DESC LIMIT 5",
            Some("`LIMIT` takes any of the rows that tie in `n`"),
        ),
        ("SELECT day, count(*) AS n FROM orders GROUP BY day ORDER BY n DESC, day LIMIT 5", None),
        (
            "SELECT id, row_number() OVER () AS r FROM orders",
            Some("`row_number` without `ORDER BY` depends on the order of its input"),
        ),
        (
            "SELECT id, row_number() OVER (ORDER BY total) AS r FROM orders",
            Some("`row_number` numbers rows that tie in `total` in any order"),
        ),
        ("SELECT id, rank() OVER (ORDER BY total) AS r FROM orders", None),
        (
            "SELECT array_agg(id) AS l FROM orders",
            Some("`array_agg` without `ORDER BY` depends on the order of its input"),
        ),
        ("SELECT array_agg(id ORDER BY id) AS l FROM orders", None),
        ("SELECT random() AS r", Some("`random` gives another value in each run")),
        ("SELECT id FROM orders WHERE EXISTS (SELECT 1 FROM customers LIMIT 1)", None),
    ] {
        let said = said(
            &(SOURCES.to_owned() + &step("a", query) + &step("use", "SELECT * FROM customers, orders"))
                .replace("[[step]]\nname = \"use\"\nquery = \"\"\"\nSELECT * FROM customers, orders\"\"\"\n", ""),
            &[],
        )
        .await;
        let notes: Vec<&str> = said.lines().filter(|l| l.contains("note[ties]")).collect();
        match note {
            Some(note) => assert!(notes.len() == 1 && notes[0].contains(note), "{query}\n{said}"),
            None => assert!(notes.is_empty(), "{query}\n{said}"),
        }
        assert!(!said.contains("error"), "{query}\n{said}");
    }
    let quiet = said(
        &(SOURCES.to_owned() + &step("a", "SELECT id FROM orders, customers LIMIT 5") + "deterministic = true\n"),
        &[],
    )
    .await;
    assert!(!quiet.contains("ties"), "{quiet}");
}

#[tokio::test]
async fn binding_some_steps_needs_only_what_they_read() {
    let toml = "name = \"p\"\n[sources.orders]\npath = \"orders.csv\"\n[sources.gone]\npath = \"gone.csv\"\n"
        .to_owned()
        + &step("a", "SELECT id FROM orders")
        + &step("b", "SELECT * FROM a")
        + &step("c", "SELECT * FROM gone");
    let folder = folder(&toml, &[]);
    let pipeline = loaded(folder.path());
    let session = session();
    let bound = bind(&pipeline, &session, &BTreeMap::new(), Some(&["b".to_owned()]), Depth::Logical).await.unwrap();
    let names: Vec<&str> = bound.steps.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((names, bound.sources.len()), (vec!["a", "b"], 1));
    assert_eq!(bound.steps[1].schema.field(0).name(), "id");
    // Sources stay, steps do not.
    assert!(session.table("orders").await.is_ok());
    assert!(session.table("a").await.is_err());
    assert!(bind(&pipeline, &session, &BTreeMap::new(), None, Depth::Logical).await.is_err());
}

#[tokio::test]
async fn scale_comes_from_a_parameter() {
    let toml = "name = \"p\"\nparams = { scale = 0.001 }\n[sources.nation]\nformat = \"tpch\"\nscale = \"$scale\"\n"
        .to_owned()
        + &step("a", "SELECT n_name FROM nation");
    let folder = folder(&toml, &[]);
    let pipeline = loaded(folder.path());
    let given = |text: &str| plan_params(&pipeline, &BTreeMap::from([("scale".to_owned(), text.to_owned())])).unwrap();
    let spec = resolve_source(&pipeline, &pipeline.sources[0], &given("2")).unwrap();
    assert_eq!(spec.options.scale, 2.0);
    assert_eq!(resolve_source(&pipeline, &pipeline.sources[0], &given("-1")).unwrap_err().code, "out-of-range");
    assert!(bind(&pipeline, &session(), &given("0.001"), None, Depth::Physical).await.is_ok());
}

/// A footer that says that it is longer than the file.
#[tokio::test]
async fn a_source_that_breaks_its_reader_is_bad_data() {
    let toml = "name = \"p\"\n[sources.bad]\npath = \"bad.parquet\"\n".to_owned() + &step("a", "SELECT x FROM bad");
    let found = said(&toml, &[("bad.parquet", "PAR1 not really PAR1")]).await;
    assert!(found.starts_with("pipeline.toml:3:8: error[bad-"), "{found}");
    assert!(found.contains("bad.parquet") && found.lines().count() == 1, "{found}");
}

#[tokio::test]
async fn the_examples_have_no_errors() {
    for name in ["flights", "retail"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        let pipeline = loaded(&folder);
        let params = plan_params(&pipeline, &BTreeMap::new()).unwrap();
        let found = check(&pipeline, &session(), &params).await;
        assert!(found.iter().all(|d| d.severity == crate::Severity::Note), "{}", lines(&found, &folder));
    }
}
