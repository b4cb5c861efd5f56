//! Definitions and what is said of them.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::definition::{Condition, Mode, ParamKind, ParamValue, Target};

fn env(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/ada".to_owned()),
        "BUCKET" => Some("s3://lake".to_owned()),
        _ => None,
    }
}

/// Loads `toml` beside the given files.
fn load_with(toml: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Loaded, Vec<Diagnostic>>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(folder.path().join("pipeline.toml"), toml).unwrap();
    let loaded = load(folder.path(), &env);
    (folder, loaded)
}

/// All diagnostics as text, one a line, without the folder.
fn said(toml: &str, files: &[(&str, &str)]) -> String {
    let (folder, loaded) = load_with(toml, files);
    let found = match loaded {
        Ok(loaded) => loaded.warnings,
        Err(found) => found,
    };
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    lines
        .join("\n")
        .replace(&format!("{}/", folder.path().display()), "")
        .replace(&folder.path().display().to_string(), "DIR")
}

/// A definition around one step, with `more` between.
fn around(more: &str) -> String {
    format!("name = \"p\"\n{more}\n[[step]]\nname = \"s\"\nquery = \"SELECT 1 AS a\"\n")
}

fn good(toml: &str, files: &[(&str, &str)]) -> Pipeline {
    let (_folder, loaded) = load_with(toml, files);
    match loaded {
        Ok(loaded) => loaded.pipeline,
        Err(found) => panic!("{}", found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

const WHOLE: &str = r#"
name = "daily_orders"
description = "orders of a day"
[settings]
memory = "2GiB"
slots = 2
adaptive_split_skew = "off"
adaptive_min_rows = 1_000_000
"datafusion.execution.batch_size" = 4096
datafusion.optimizer.prefer_hash_join = false
timeout = "1h"
[params]
day = 2013-02-01
since = { type = "timestamp", default = "2013-02-01T00:00:00Z" }
least = { type = "float", default = 1 }
label = { type = "string", required = true }
[sources.orders]
path = "data/orders/*.parquet"
[sources.customers]
path = "data/customers.csv.gz"
delimiter = ";"
columns = { id = "BIGINT", name = "VARCHAR", balance = "DECIMAL(12, 2)" }
[sources.remote]
path = "${BUCKET}/x/${NONE:-y}.parquet"
storage = { region = "eu-west-1" }
[sources.nation]
format = "tpch"
scale = "$least"
[schedule]
cron = "15 2 * * *"
timezone = "Europe/Paris"
catch_up = "latest"
overlap = "skip"
[retry]
attempts = 3
backoff = "30s..10m"
on = "transient"
[[step]]
name = "by_customer"
query = "SELECT customer_id, sum(total) AS total FROM enriched WHERE day >= $since GROUP BY 1"
output = { path = "out/by_customer.csv.gz" }
deterministic = true
[[step]]
name = "enriched"
sql = "enriched.sql"
timeout = "10m"
incremental = { column = "ts", interval = "1d", lookback = 2 }
output = { path = "out/enriched", format = "parquet", partition_by = ["day"], mode = "replace_interval" }
checks = [
  { name = "key_present", expr = "order_id IS NOT NULL", on_fail = "warn", tolerate = 0.1 },
  { name = "enough_rows", sql = "SELECT count(*) > 0 FROM enriched, nation" },
]
[notify]
on = ["failure", "check_failed"]
webhook = "${ORDERS_HOOK}"
"#;
const ENRICHED: &str = "SELECT * FROM orders JOIN customers ON customer_id = id WHERE day = $day AND label = $label";

#[test]
fn a_whole_definition() {
    let pipeline = good(WHOLE, &[("enriched.sql", ENRICHED)]);
    assert_eq!(pipeline.name, "daily_orders");
    assert_eq!(pipeline.timeout, Some(Duration::from_secs(3600)));
    let settings: Vec<_> = pipeline.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        settings,
        [
            "adaptive_min_rows=1000000",
            "adaptive_split_skew=off",
            "datafusion.execution.batch_size=4096",
            "datafusion.optimizer.prefer_hash_join=false",
            "memory=2GiB",
            "slots=2",
            "timeout=1h"
        ]
    );
    assert_eq!(pipeline.params["day"].default, Some(ParamValue::Date(15737)));
    assert_eq!(pipeline.params["since"].default, Some(ParamValue::Timestamp(15737 * 86_400_000_000)));
    assert_eq!(pipeline.params["least"].default, Some(ParamValue::Float(1.0)));
    assert_eq!(pipeline.params["label"], Param { default: None, kind: ParamKind::String });

    let [orders, customers, remote, nation] = pipeline.sources.as_slice() else { panic!("{:?}", pipeline.sources) };
    assert_eq!(orders.spec.location, pipeline.root.join("data/orders/*.parquet").to_string_lossy());
    assert_eq!((customers.spec.format.name(), customers.spec.options.delimiter), ("csv", b';'));
    let columns: Vec<&str> = customers.spec.columns.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(columns, ["id", "name", "balance"]);
    assert_eq!(remote.spec.location, "s3://lake/x/y.parquet");
    assert_eq!((nation.spec.location.as_str(), nation.scale_param.as_deref()), ("nation", Some("least")));

    let [enriched, by_customer] = pipeline.steps.as_slice() else { panic!("{:?}", pipeline.steps) };
    assert_eq!(enriched.reads, ["orders", "customers", "nation"]);
    assert_eq!(by_customer.reads, ["enriched"]);
    assert!(by_customer.deterministic);
    let output = enriched.output.as_ref().unwrap();
    assert_eq!(output.target, Target::Local(pipeline.root.join("out/enriched")));
    assert_eq!((output.mode, output.sink.single_file), (Mode::ReplaceInterval, false));
    let csv = by_customer.output.as_ref().unwrap();
    assert_eq!(
        (csv.sink.format.name(), csv.sink.single_file, csv.sink.compression.as_deref()),
        ("csv", true, Some("gzip"))
    );
    assert_eq!(enriched.checks[0].tolerate, 0.1);
    assert!(!enriched.checks[0].blocking && enriched.checks[1].blocking);
    assert!(matches!(&enriched.checks[0].condition, Condition::EachRow(e) if e == "order_id IS NOT NULL"));
    assert_eq!(pipeline.later, [later::SCHEDULE, later::RETRY, later::NOTIFY, later::INCREMENTAL]);
    assert_eq!(pipeline.schedule.as_ref().map(|s| s.timezone.as_str()), Some("Europe/Paris"));
}

#[test]
fn later_sections_are_notes_and_unset_variables_in_them_warnings() {
    insta::assert_snapshot!(said(WHOLE, &[("enriched.sql", ENRICHED)]), @r###"
    pipeline.toml:29:2: note[later]: `[schedule]` takes effect with the service: this run is not repeated by itself
    pipeline.toml:34:2: note[later]: `[retry]` takes effect with the service: a failed step is not tried again
    pipeline.toml:43:1: note[later]: `incremental` takes effect with the service: steps read all rows, and `replace_interval` replaces the partitions that the result has
    pipeline.toml:53:2: note[later]: `[notify]` takes effect with the service: nobody is told
    pipeline.toml:55:12: warning[unset-variable]: the environment variable `ORDERS_HOOK` is not set / set it, or give a default: `${ORDERS_HOOK:-…}`
    "###);
}

#[test]
fn unknown_and_mistyped_keys_come_all_at_once() {
    let toml = r#"
nme = "x"
sorces = {}
[settings]
memory = "2XB"
slots = 0
learning = "yes"
adaptive = "always"
adaptive_broadcast = "of"
adaptive_skip_empty = false
adaptive_min_rows = 0
[sources.a]
pth = "a.csv"
[sources.b]
path = 3
header = "true"
delimiter = ";;"
[sources.c]
path = "c.parquet"
header = true
infer_rows = 5
[sources.d]
path = "d.csv"
columns = { a = "INTT", b = "VARCHAR" }
partition_columns = { b = "INT" }
[sources]
e = "e.csv"
[[step]]
name = "bad name"
query = 7
timeout = "5 minutes"
deterministic = 1
output = { path = "x.parquet", mode = "overwrite", compression = "gzip" }
checks = [ { nam = "x", expr = "a > 1", tolerate = 2 }, { name = "y" }, { name = "y", sql = "SELECT true", tolerate = 0.5 } ]
"#;
    insta::assert_snapshot!(said(toml, &[]), @r###"
    pipeline.toml:2:1: error[unknown-key]: unknown key `nme` in the definition / did you mean `name`?
    pipeline.toml:3:1: error[unknown-key]: unknown key `sorces` in the definition / did you mean `sources`?
    pipeline.toml:5:10: error[bad-size]: `memory` in `[settings]`, `2XB`, has the unknown unit `XB` / give a size like `2GiB`, or a share like `70%`
    pipeline.toml:6:9: error[out-of-range]: `slots` in `[settings]` is out of range / from 1 to 65536
    pipeline.toml:7:12: error[bad-value]: `learning` in `[settings]` cannot be `yes` / one of `on`, `observe`, `off`
    pipeline.toml:8:12: error[bad-value]: `adaptive` in `[settings]` cannot be `always` / one of `on`, `off`, `force`
    pipeline.toml:9:22: error[bad-value]: `adaptive_broadcast` in `[settings]` cannot be `of` / did you mean `off`? one of `on`, `off`
    pipeline.toml:10:23: error[wrong-type]: `adaptive_skip_empty` in `[settings]` is a word, not a boolean / write `adaptive_skip_empty = "off"`
    pipeline.toml:11:21: error[out-of-range]: `adaptive_min_rows` in `[settings]` is out of range / 1 or more
    pipeline.toml:13:1: error[unknown-key]: unknown key `pth` in `[sources.a]` / did you mean `path`?
    pipeline.toml:15:8: error[wrong-type]: `path` in `[sources.b]` must be a string, but is an integer / write it in quotes: `"3"`
    pipeline.toml:16:10: error[wrong-type]: `header` in `[sources.b]` must be a boolean, but is a string / write it without quotes: `true`
    pipeline.toml:17:13: error[bad-value]: `delimiter` in `[sources.b]` must be one ASCII character, not `;;` / write one character, e.g. `";"` or `"\t"`
    pipeline.toml:20:1: error[wrong-option]: `header` in `[sources.c]` is for CSV sources / remove it
    pipeline.toml:21:1: error[wrong-option]: `infer_rows` in `[sources.c]` is for CSV and JSON sources / remove it
    pipeline.toml:24:17: error[bad-type]: column `a`: `INTT` is not an SQL type / did you mean `INT`?
    pipeline.toml:25:23: error[duplicate-column]: column `b` is in both `columns` and `partition_columns` of `[sources.d]` / a partition column comes from the folder names: leave it out of `columns`
    pipeline.toml:27:5: error[wrong-type]: `[sources.e]` must be a table, but is a string / write `e = { path = "e.csv" }`
    pipeline.toml:29:8: error[bad-name]: the name of a step, `bad name`, contains a space / a name has letters, digits, `_` and `-`, and begins with a letter or `_`
    pipeline.toml:30:9: error[wrong-type]: `query` in step `bad name` must be a string, but is an integer / write it in quotes: `"7"`
    pipeline.toml:31:11: error[bad-duration]: `timeout` in step `bad name`, `5 minutes`, is not a duration / give a duration like `30s`, `10m`, `1h30m`
    pipeline.toml:32:17: error[wrong-type]: `deterministic` in step `bad name` must be a boolean, but is an integer / write `true` or `false`
    pipeline.toml:33:39: error[bad-value]: `mode` in the output of step `bad name` cannot be `overwrite` / one of `replace`, `append`, `replace_partitions`, `replace_interval`
    pipeline.toml:33:66: error[bad-value]: `compression` of a Parquet output cannot be `gzip` / one of `none`, `snappy`, `zstd`, `lz4`
    pipeline.toml:34:14: error[unknown-key]: unknown key `nam` in check 1 of step `bad name` / did you mean `name`?
    pipeline.toml:34:52: error[out-of-range]: `tolerate` in check 1 of step `bad name` is out of range / from 0 to 1
    pipeline.toml:34:57: error[missing-key]: check 2 of step `bad name` has no `expr` / write `expr = "column IS NOT NULL"`, or a query: `sql = "SELECT count(*) > 0 FROM step"`
    pipeline.toml:34:108: error[wrong-option]: `tolerate` is for checks with `expr` / remove it: a query says yes or no
    "###);
}

#[test]
fn later_sections_are_validated() {
    let toml = around(
        r#"
[schedule]
cron = "61 2 * * *"
timezone = "Europe/Pariss"
catch_up = "lates"
[retry]
attempts = 0
backoff = "10m..30s"
on = "always"
[notify]
on = ["failed"]
webhook = "ftp://x"
[udfs.pricing]
module = "pricing.wasm"
memory = "lots"
[udfs.other]
modul = "x"
"#,
    );
    insta::assert_snapshot!(said(&toml, &[]), @r###"
    pipeline.toml:3:2: note[later]: `[schedule]` takes effect with the service: this run is not repeated by itself
    pipeline.toml:4:8: error[bad-cron]: `cron` cannot be `61 2 * * *`: number out of bounds / five fields: minute, hour, day of month, month, day of week, e.g. `15 2 * * *`
    pipeline.toml:5:12: error[bad-timezone]: unknown time zone `Europe/Pariss` / did you mean `Europe/Paris`?
    pipeline.toml:6:12: error[bad-value]: `catch_up` in `[schedule]` cannot be `lates` / did you mean `latest`? one of `none`, `latest`, `all`
    pipeline.toml:7:2: note[later]: `[retry]` takes effect with the service: a failed step is not tried again
    pipeline.toml:8:12: error[out-of-range]: `attempts` in `[retry]` is out of range / from 1 to 100
    pipeline.toml:9:11: error[bad-range]: `backoff` ends before it begins: `10m..30s` / give a range like `30s..10m`
    pipeline.toml:10:6: error[bad-value]: `on` in `[retry]` cannot be `always` / one of `transient`, `any`, `none`
    pipeline.toml:11:2: note[later]: `[notify]` takes effect with the service: nobody is told
    pipeline.toml:12:7: error[bad-value]: `on` in `[notify]` cannot be `failed` / did you mean `failure`? one of `success`, `failure`, `check_failed`, `timeout`, `late`, `recovered`, `plan_regressed`
    pipeline.toml:13:11: error[bad-value]: `webhook` is not an `http://` or `https://` URL / give the whole URL
    pipeline.toml:15:10: error[missing-file]: there is no module `pricing.wasm` / build it, or correct the path
    pipeline.toml:16:10: error[bad-size]: `memory` in `[udfs.pricing]`, `lots`, is not a size / give a size like `64MiB`
    pipeline.toml:18:1: error[unknown-key]: unknown key `modul` in `[udfs.other]` / did you mean `module`?
    "###);
}

#[test]
fn parameters() {
    let toml = around(
        r#"
[params]
a = 99999999999999999999
b = 10:00:00
"c d" = 1
e = { type = "dat" }
f = { default = "x", type = "int" }
g = { required = true, default = 1 }
h = { required = false, type = "int" }
i = [1]
j = {}
k = 0x10
"#,
    );
    insta::assert_snapshot!(said(&toml, &[]), @r###"
    pipeline.toml:4:5: error[bad-param]: parameter `a` does not fit 64 bits / give a smaller number, or a string
    pipeline.toml:5:5: error[bad-param]: parameter `b` cannot be `10:00:00` / give a date, `2013-02-01`, or a date with a time, `2013-02-01T10:00:00Z`
    pipeline.toml:6:1: error[bad-name]: the name of a parameter cannot be `c d` / use letters, digits and `_`, so that SQL can say `$name`
    pipeline.toml:7:14: error[bad-value]: `type` in parameter `e` cannot be `dat` / did you mean `date`? one of `string`, `int`, `float`, `bool`, `date`, `timestamp`
    pipeline.toml:8:17: error[bad-param]: the default of parameter `f` is not of type `int` / write it like `42`
    pipeline.toml:9:7: error[conflict]: parameter `g` is required, but has a default / keep one of `required` and `default`
    pipeline.toml:10:7: error[conflict]: parameter `h` is not required, but has no default / give a `default`
    pipeline.toml:11:5: error[bad-param]: parameter `i` must be a string, a number, a boolean or a date, but is an array / give one value
    pipeline.toml:12:1: error[missing-key]: parameter `j` has no `type` / say `type = "date"` (or string, int, float, bool, timestamp), or give a `default`
    "###);
}

#[test]
fn outputs() {
    for (output, expected) in [
        (r#"{ path = "out/x", partition_by = ["a", "a"] }"#, "duplicate-column"),
        (r#"{ path = "out/x.parquet", partition_by = ["a"] }"#, "needs-folder"),
        (r#"{ path = "out/x.parquet", mode = "append" }"#, "needs-folder"),
        (r#"{ path = "out/x", single_file = true, mode = "append" }"#, "needs-folder"),
        (r#"{ path = "out/x", mode = "replace_partitions" }"#, "bad-mode"),
        (r#"{ path = "out/x", mode = "replace_interval", partition_by = ["a"] }"#, "bad-mode"),
        (r#"{ path = "out/x.parqet" }"#, "bad-format"),
        (r#"{ path = "out/x.csv", format = "json" }"#, "conflict"),
        (r#"{ path = "out/x.csv.gz", compression = "zstd" }"#, "conflict"),
        (r#"{ path = "out/x.csv.bz2" }"#, "bad-format"),
        (r#"{ path = "out/x.arrow", compression = "zstd" }"#, "bad-value"),
        (r#"{ path = "out/*.parquet" }"#, "bad-path"),
        (r#"{ path = "out/.x.parquet" }"#, "bad-path"),
        (r#"{ path = "~/x.parquet" }"#, "bad-path"),
        (r#"{ path = "ftp://h/x.parquet" }"#, "bad-path"),
        (r#"{ path = "https://h/x.parquet" }"#, "bad-path"),
        (r#"{ path = "s3://b/x" }"#, "needs-file"),
        (r#"{ path = "s3:///x.parquet" }"#, "bad-path"),
        (r#"{ path = "." }"#, "bad-path"),
        (r#"{ path = "../" }"#, "bad-path"),
        (r#"{ path = "/" }"#, "bad-path"),
        (r#"{ path = "/home/" }"#, "bad-path"),
        (r#"{ path = "${HOME}" }"#, "bad-path"),
        (r#"{ path = "pipeline.toml", format = "csv", single_file = true }"#, "bad-path"),
        (r#"{ path = ".sparklet/x.parquet" }"#, "bad-path"),
        (r#"{ path = "" }"#, "empty-value"),
        (r#"{ path = "in" }"#, "output-is-source"),
        (r#"{ path = "in/x.parquet" }"#, "output-is-source"),
        (r#"{ path = "glob/x.csv" }"#, "output-is-source"),
        (r#"{ path = "./glob" }"#, "output-is-source"),
        (r#"{ path = "taken.csv" }"#, "output-clash"),
        (r#"{ path = "taken.csv/x.csv" }"#, "output-clash"),
    ] {
        let toml = format!(
            "name = \"p\"\n[sources.i]\npath = \"in\"\n[sources.g]\npath = \"glob/*.csv\"\n[[step]]\nname = \"t\"\nquery = \"SELECT 1 AS a\"\n\
             output.path = \"taken.csv\"\n[[step]]\nname = \"s\"\nquery = \"SELECT 1 AS a\"\noutput = {output}\n"
        );
        let said = said(&toml, &[]);
        assert!(said.contains(&format!("error[{expected}]")), "{output}\n{said}");
        assert_eq!(said.lines().count(), 1, "{output}\n{said}");
    }
    for output in [
        r#"{ path = "out/x" }"#,
        r#"{ path = "out/x/", format = "csv" }"#,
        r#"{ path = "out/x.parquet", single_file = false, mode = "append" }"#,
        r#"{ path = "out/x", mode = "replace_partitions", partition_by = ["a"] }"#,
        r#"{ path = "s3://b/x.parquet" }"#,
        r#"{ path = "glob/x.parquet" }"#,
        r#"{ path = "taken.csv2/x.csv" }"#,
        r#"{ path = "../out/x.parquet" }"#,
    ] {
        good(&around("").replace("SELECT 1 AS a\"\n", &format!("SELECT 1 AS a\"\noutput = {output}\n")), &[]);
    }
}

#[test]
fn tables_and_parameters_in_sql() {
    let toml = r#"
name = "p"
params = { day = 2013-02-01, unused = 1 }
[sources.orders]
path = "orders.parquet"
[sources.Customers]
path = "customers.parquet"
[[step]]
name = "a"
sql = "a.sql"
[[step]]
name = "b"
query = """
SELECT *
FROM ordrs -- line 14
WHERE x = $dya AND y = $1 AND z = $interval_start
"""
checks = [ { name = "c", sql = "SELECT count(*) > 0 FROM bb" }, { name = "d", expr = "x >" } ]
[[step]]
name = "c"
query = "SELECT \"x\" FROM\tordrs2"
[[step]]
name = "d"
sql = "d.sq"
[[step]]
name = "e"
sql = "SELECT 1"
[[step]]
name = "f"
sql = "f.sql"
query = "SELECT 1"
[[step]]
name = "g"
"#;
    let files = [
        ("a.sql", "SELECT *\nFROM customers\nJOIN other.orders ON true\nJOIN 'x.csv' ON true\nJOIN zzz ON true"),
        ("d.sql", "SELECT 1"),
        ("f.sql", "SELECT 1"),
    ];
    insta::assert_snapshot!(said(toml, &files), @r###"
    a.sql:2:6: error[unknown-table]: unknown table `customers` / write `"Customers"`: names with capital letters need double quotes in SQL
    a.sql:3:6: error[unknown-table]: unknown table `other.orders` / write `orders`: sources and steps have plain names
    a.sql:4:6: error[unknown-table]: a step cannot read the file `x.csv` directly / declare it, `[sources.NAME]` with `path = "x.csv"`, and read `NAME`; files as tables are for `sparklet sql`
    a.sql:5:6: error[unknown-table]: unknown table `zzz` / tables: `orders`, `Customers`, `a`, `b`, `c`, `d`, `e`, `f`, `g`
    pipeline.toml:15:6: error[unknown-table]: unknown table `ordrs` / did you mean `orders`?
    pipeline.toml:16:11: error[unknown-param]: parameter `$dya` is not declared / did you mean `$day`?
    pipeline.toml:16:24: error[unknown-param]: `$1` is not the name of a parameter / write `$name` and declare `name` in `[params]`
    pipeline.toml:16:35: error[unknown-param]: `$interval_start` has no value: intervals take effect with the service / declare it meanwhile, `[params]` with `interval_start = 2013-02-01T00:00:00Z`
    pipeline.toml:18:58: error[unknown-table]: unknown table `bb` / tables: `orders`, `Customers`, `a`, `b`, `c`, `d`, `e`, `f`, `g`
    pipeline.toml:18:89: error[sql-syntax]: SQL syntax: expected an expression, but the text ends here
    pipeline.toml:21:29: error[unknown-table]: unknown table `ordrs2` / did you mean `orders`?
    pipeline.toml:24:7: error[missing-file]: there is no file `d.sq` / did you mean `d.sql`?
    pipeline.toml:27:7: error[bad-value]: `sql` in step `e` names a file / write SQL text as `query = …`
    pipeline.toml:31:1: error[conflict]: step `f` has both `sql` and `query` / keep one: `sql` names a file, `query` is the text
    pipeline.toml:32:1: error[missing-key]: step `g` has no `sql` / name an SQL file, `sql = "name.sql"`, or write the query, `query = "SELECT …"`
    "###);
}

#[test]
fn sql_syntax_errors_point_into_their_file() {
    let toml = "name = \"p\"\n[[step]]\nname = \"a\"\nsql = \"a.sql\"\n[[step]]\nname = \"b\"\nsql = \"b.sql\"\n[[step]]\nname = \"c\"\nsql = \"c.sql\"\n\
                [[step]]\nname = \"d\"\nsql = \"d.sql\"\n[[step]]\nname = \"e\"\nsql = \"e.sql\"\n[[step]]\nname = \"f\"\nquery = '''\nSELECT ${X}'''";
    let files = [
        ("a.sql", "SELECT a,\n  b,\nFROM t"),
        ("b.sql", "\u{feff}-- c\nSELECT é é é FROM t"),
        ("c.sql", "SELECT 1;\nSELECT 2"),
        ("d.sql", "  \n"),
        ("e.sql", "CREATE TABLE x AS SELECT 1"),
    ];
    insta::assert_snapshot!(said(toml, &files), @r###"
    a.sql:3:6: error[unknown-table]: unknown table `t` / tables: `a`, `b`, `c`, `d`, `e`, `f`
    b.sql:2:12: error[sql-syntax]: SQL syntax: expected end of statement, found é
    c.sql:2:1: error[sql-syntax]: there is more than one statement / a step is one query; make a step of each
    e.sql:1:1: error[sql-syntax]: `CREATE` is not a query / a step is one SELECT (or WITH, VALUES); its `output` says where the result goes
    pipeline.toml:13:7: error[empty-value]: `d.sql` is empty / write a query into it
    pipeline.toml:20:9: error[sql-syntax]: SQL syntax: expected end of statement, found { / the environment is not pasted into SQL: declare a parameter in `[params]` and write `$name`
    "###);
}

#[test]
fn cycles_and_names() {
    let step = |name: &str, sql: &str| format!("[[step]]\nname = \"{name}\"\nquery = \"{sql}\"\n");
    let toml = "name = \"p\"\n[sources.src]\npath = \"x.csv\"\n".to_owned()
        + &step("a", "SELECT * FROM b")
        + &step("b", "SELECT * FROM c, d")
        + &step("c", "SELECT * FROM a")
        + &step("d", "SELECT * FROM src")
        + &step("me", "SELECT * FROM me")
        + &step("after", "SELECT * FROM c")
        + &step("Src", "SELECT 1")
        + &step("d", "SELECT 2");
    insta::assert_snapshot!(said(&toml, &[]), @r###"
    pipeline.toml:6:24: error[step-cycle]: steps read each other in a circle: `a → b → c → a` / take out one of these: `a` reads `b` at pipeline.toml:6:24, `b` reads `c` at pipeline.toml:9:24, `c` reads `a` at pipeline.toml:12:24
    pipeline.toml:18:24: error[step-cycle]: steps read each other in a circle: `me → me` / a step cannot read its own result
    pipeline.toml:23:8: error[duplicate-name]: step `Src` has the name of source `src` / rename one: both are tables in SQL
    pipeline.toml:26:8: error[duplicate-name]: two steps have the name `d` / rename one
    "###);
}

#[test]
fn order_is_as_written_where_it_may_be() {
    let step = |name: &str, sql: &str| format!("[[step]]\nname = \"{name}\"\nquery = \"{sql}\"\n");
    let toml = "name = \"p\"\n".to_owned()
        + &step("z", "SELECT 1")
        + &step("late", "SELECT * FROM early")
        + &step("m", "SELECT * FROM z")
        + &step("early", "WITH late AS (SELECT 1) SELECT * FROM late")
        + &step("a", "SELECT 1");
    let names: Vec<String> = good(&toml, &[]).steps.into_iter().map(|s| s.name).collect();
    assert_eq!(names, ["z", "m", "early", "late", "a"]);
}

#[test]
fn toml_errors() {
    for (toml, expected) in [
        ("name = ", "pipeline.toml:1:8: error[toml-syntax]"),
        ("name = \"x\"\nname = \"y\"", "pipeline.toml:2:1: error[duplicate-key]"),
        ("name = \"x\n", "pipeline.toml:1:10: error[toml-syntax]: invalid basic string, expected `\"`"),
        ("[[step]", "pipeline.toml:1:"),
        ("", "pipeline.toml:1:1: error[missing-key]: the definition has no `name`"),
        (
            "name = \"x\"\n[step]\nname = \"y\"",
            "error[wrong-type]: `step` in the definition must be an array of tables, but is a table / write it in double brackets",
        ),
    ] {
        let said = said(toml, &[]);
        assert!(said.contains(expected), "{toml}\n{said}");
    }
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let says = |path: &Path| {
        let found = load(path, &env).unwrap_err();
        assert_eq!(found.len(), 1);
        found[0].to_string().replace(&folder.path().display().to_string(), "DIR")
    };
    assert_eq!(
        says(&at("none")),
        "error[missing-file]: there is no file or folder `DIR/none` / check the path, or make an example there: `sparklet init DIR/none`"
    );
    assert_eq!(
        says(folder.path()),
        "error[missing-file]: the folder `DIR` has no `pipeline.toml` / make an example there: `sparklet init DIR`"
    );
    std::fs::write(at("x.sql"), "SELECT 1").unwrap();
    assert!(says(&at("x.sql")).contains("is not a pipeline definition"));
    std::fs::write(at("other.toml"), "name = \"x\"\n# \u{e9} ").unwrap();
    assert!(says(folder.path()).contains("did you mean `DIR/other.toml`?"));
    std::fs::write(at("pipeline.toml"), b"name = \"x\"\n# caf\xe9").unwrap();
    assert!(says(folder.path()).starts_with("DIR/pipeline.toml:2:6: error[not-utf8]"), "{}", says(folder.path()));
    std::fs::remove_file(at("pipeline.toml")).unwrap();
    std::fs::create_dir(at("pipeline.toml")).unwrap();
    assert!(says(folder.path()).contains("is not a file"));
    std::fs::write(at("single.toml"), "name = \"x\"\n[[step]]\nname = \"s\"\nquery = \"SELECT 1 AS a\"").unwrap();
    assert_eq!(load(&at("single.toml"), &env).unwrap().pipeline.steps.len(), 1);
}

#[test]
fn formats_of_folders() {
    let toml = |path: &str| around(&format!("[sources.x]\npath = \"{path}\""));
    let files =
        [("one/a.csv", "a\n1"), ("one/_SUCCESS", ""), ("two/a.csv", "a\n1"), ("two/b.json", "{}"), ("file.dat", "x")];
    assert_eq!(good(&toml("one"), &files).sources[0].spec.format.name(), "csv");
    assert_eq!(good(&toml("none"), &files).sources[0].spec.format.name(), "parquet");
    assert!(said(&toml("two"), &files).contains("holds files of several formats"));
    assert!(said(&toml("file.dat"), &files).contains("does not end in a known format"));
    assert!(said(&toml("s3://b/x"), &files).contains("does not end in a known format"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,80}") {
        let _ = load_text(Path::new("nowhere/pipeline.toml"), Arc::from(text), &env);
    }

    #[test]
    fn a_changed_definition_is_answered(at in 0usize..WHOLE.len(), cut in 0usize..12, put in "[\\[\\]{}=\"'$a1.,\n#]{0,3}") {
        let end = (at + cut).min(WHOLE.len());
        let text = format!("{}{put}{}", &WHOLE[..at], &WHOLE[end..]);
        let text: Arc<str> = Arc::from(text);
        let found = match load_text(Path::new("nowhere/pipeline.toml"), Arc::clone(&text), &env) {
            Ok(loaded) => loaded.warnings,
            Err(found) => found,
        };
        for place in found.iter().filter_map(|d| d.place.as_ref()) {
            prop_assert!(place.text.get(place.span.clone()).is_some(), "{place:?}");
            let _ = place.line_column();
        }
    }
}

#[test]
fn a_schedule_that_is_never_due() {
    let said = said(&around("[schedule]\ncron = \"0 0 31 2 *\""), &[]);
    assert!(said.contains("pipeline.toml:3:8: error[bad-cron]: `cron` is never due"), "{said}");
}
