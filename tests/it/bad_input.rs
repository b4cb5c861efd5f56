//! Bad input: each case says what, where and what to do, with the right exit code, and loses nothing.

use std::fs;

use crate::support::{Place, Said};

const GOOD_CSV: &str = "id,amount\n1,10\n2,20\n";

/// A pipeline with one source `orders` and one step `totals`.
fn definition(source: &str, query: &str) -> String {
    format!(
        "name = \"p\"\n\n[sources.orders]\n{source}\n\n[[step]]\nname = \"totals\"\nquery = \"{query}\"\n\
         output = {{ path = \"out/totals.csv\" }}\n"
    )
}

/// Runs a good pipeline, breaks it with `break_it`, and shows what `run` says; what was published stays.
fn check(name: &str, code: i32, contains: &[&str], break_it: impl Fn(&Place)) -> Said {
    let place = Place::new();
    place.write("p/orders.csv", GOOD_CSV);
    place.write("p/pipeline.toml", definition("path = \"orders.csv\"", "SELECT sum(amount) AS s FROM orders"));
    place.ok(&["run", "p"]);
    let before = fs::read_to_string(place.path("p/out/totals.csv")).unwrap();
    break_it(&place);
    let said = place.run(&["run", "p"]);
    assert_eq!(said.code, code, "{name}: {}", said.err);
    for part in contains {
        assert!(said.err.contains(part), "{name}: `{part}` is not said:\n{}", place.neutral(&said.err));
    }
    assert!(!said.err.contains("panicked"), "{name}: {}", said.err);
    assert_eq!(fs::read_to_string(place.path("p/out/totals.csv")).unwrap(), before, "{name}: the output changed");
    assert_eq!(place.list("p/out"), ["totals.csv"], "{name}: left-overs");
    said
}

fn break_definition(text: &'static str) -> impl Fn(&Place) {
    move |place| {
        place.write("p/pipeline.toml", text);
    }
}

fn query(sql: &'static str) -> impl Fn(&Place) {
    move |place| {
        place.write("p/pipeline.toml", definition("path = \"orders.csv\"", sql));
    }
}

fn source(text: &'static str, csv: &'static [u8]) -> impl Fn(&Place) {
    move |place| {
        place.write("p/orders.csv", csv);
        place.write("p/pipeline.toml", definition(text, "SELECT sum(amount) AS s FROM orders"));
    }
}

#[test]
fn sources() {
    check(
        "missing",
        3,
        &["source `orders`", "does not exist", "did you mean `orders.csv`?", "pipeline.toml:4"],
        |place| {
            place.write("p/pipeline.toml", definition("path = \"order.csv\"", "SELECT sum(amount) AS s FROM orders"));
        },
    );
    check("empty folder", 3, &["source `orders`", "holds no files", "pipeline.toml:4"], |place| {
        fs::create_dir(place.path("p/data")).unwrap();
        let source = "path = \"data/\"\nformat = \"parquet\"";
        place.write("p/pipeline.toml", definition(source, "SELECT sum(amount) AS s FROM orders"));
    });
    check("corrupt footer", 3, &["orders.parquet", "not readable as Parquet", "hint"], |place| {
        place.write("p/orders.parquet", "PAR1 and no more");
        place.write("p/pipeline.toml", definition("path = \"orders.parquet\"", "SELECT sum(amount) AS s FROM orders"));
    });
    check("a pipe", 3, &["source `orders`", "is a pipe", "to a file first"], |place| {
        fs::remove_file(place.path("p/orders.csv")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(place.path("p/orders.csv")).status().unwrap();
        assert!(made.success());
    });
    check("an array of JSON", 3, &["source `orders`", "orders.json`", "one object a line", "jq"], |place| {
        place.write("p/orders.json", "[{\"amount\": 1},\n{\"amount\": 2}]\n");
        place.write("p/pipeline.toml", definition("path = \"orders.json\"", "SELECT sum(amount) AS s FROM orders"));
    });
    check("cut off gzip", 1, &["orders.csv.gz", "cut off"], |place| {
        let sql = "COPY (SELECT value AS amount FROM range(0, 50000)) TO 'full.csv.gz' STORED AS CSV \
                   OPTIONS ('format.compression' 'gzip')";
        place.ok(&["sql", "-c", sql]);
        let bytes = fs::read(place.path("full.csv.gz")).unwrap();
        place.write("p/orders.csv.gz", &bytes[..bytes.len() - 1000]);
        place.write("p/pipeline.toml", definition("path = \"orders.csv.gz\"", "SELECT sum(amount) AS s FROM orders"));
    });
    check("a header with one name twice", 1, &["orders.csv:1", "one name"], |place| {
        place.write("p/orders.csv", "id,id\n1,10\n");
        place.write("p/pipeline.toml", definition("path = \"orders.csv\"", "SELECT sum(id) AS s FROM orders"));
    });
    let typed = "path = \"orders.csv\"\ncolumns = { id = \"INT\", amount = \"INT\" }";
    check("ragged", 1, &["orders.csv:3", "hint"], source(typed, b"id,amount\n1,10\n2\n"));
    check("not a number", 1, &["orders.csv:3", "TRY_CAST"], source(typed, b"id,amount\n1,10\n2,x\n"));
    let text = "path = \"orders.csv\"\ncolumns = { id = \"VARCHAR\", amount = \"INT\" }";
    check("not UTF-8", 1, &["orders.csv", "UTF-8", "iconv"], source(text, b"id,amount\n\xff\xfe,10\n"));
}

#[test]
fn definitions() {
    check(
        "unknown key",
        3,
        &["pipeline.toml:2", "`sourcs`", "did you mean", "sources"],
        break_definition("name = \"p\"\n[sourcs.orders]\npath = \"orders.csv\"\n"),
    );
    check(
        "mistyped key",
        3,
        &["pipeline.toml:6", "pth"],
        break_definition(
            "name = \"p\"\n[sources.orders]\npath = \"orders.csv\"\n[[step]]\nname = \"totals\"\noutput = { pth = \"x.csv\" }\nquery = \"SELECT 1 AS a\"\n",
        ),
    );
    check("wrong type", 3, &["pipeline.toml:1", "name"], break_definition("name = 3\n"));
    check("broken TOML", 3, &["pipeline.toml:2"], break_definition("name = \"p\"\n[sources\n"));
    check(
        "cycle",
        3,
        &["a → b → a"],
        break_definition(
            "name = \"p\"\n[[step]]\nname = \"a\"\nquery = \"SELECT * FROM b\"\n[[step]]\nname = \"b\"\nquery = \"SELECT * FROM a\"\n",
        ),
    );
}

#[test]
fn queries() {
    check(
        "misspelt column",
        3,
        &["no column `amuont`", "did you mean `amount`?", "pipeline.toml:8"],
        query("SELECT sum(amuont) AS s FROM orders"),
    );
    let same = "SELECT id AS a, amount AS A FROM orders";
    check("one name twice", 3, &["unique expression names", "lower case"], query(same));
    let said = check("a long line", 3, &["no column `nix`", "at p/pipeline.toml:8:"], |place| {
        let sql = format!("SELECT {}nix FROM orders", " ".repeat(20_000));
        place.write("p/pipeline.toml", definition("path = \"orders.csv\"", &sql));
    });
    assert!(said.err.len() < 2000, "{}", said.err.len());
    check("misspelt table", 3, &["`order_s`", "did you mean `orders`?"], query("SELECT * FROM order_s"));
    check("syntax in a file", 3, &["totals.sql:3"], |place| {
        place.write("p/totals.sql", "SELECT sum(amount) AS s\nFROM orders\nWHERE GROUP\n");
        let text = definition("path = \"orders.csv\"", "").replace("query = \"\"", "sql = \"totals.sql\"");
        place.write("p/pipeline.toml", text);
    });
    check(
        "misspelt function",
        3,
        &["unknown function `smu`", "did you mean `sum`?"],
        query("SELECT smu(id) AS s FROM orders"),
    );
    check(
        "types",
        3,
        &["totals", "Date32 * Boolean", "CAST("],
        query("SELECT amount + DATE '2013-01-01' * true AS s FROM orders"),
    );
}

#[test]
fn all_mistakes_come_at_once() {
    let place = Place::new();
    place.write(
        "p/pipeline.toml",
        "name = \"p\"\ncolour = 1\n[sources.a]\npaht = \"x\"\n[[step]]\nname = \"s\"\nquery = \"SELEC 1\"\n",
    );
    let said = place.run(&["check", "p"]);
    assert_eq!(said.code, 3);
    for part in ["colour", "paht", "pipeline.toml:7"] {
        assert!(said.err.contains(part), "`{part}`:\n{}", said.err);
    }
}

#[test]
fn outputs_that_cannot_be_written() {
    check("a file where a folder must be", 1, &["out", "hint"], |place| {
        place.write("p/blocked", "a file");
        let text = definition("path = \"orders.csv\"", "SELECT 1 AS s").replace("out/totals.csv", "blocked/totals.csv");
        place.write("p/pipeline.toml", text);
    });
    check("foreign files in the folder", 1, &["mine.txt", "hint"], |place| {
        place.write("p/other/mine.txt", "precious");
        let text = definition("path = \"orders.csv\"", "SELECT 1 AS s").replace("out/totals.csv", "other");
        place.write("p/pipeline.toml", text);
    });
}

/// The binary as a user without rights to files of mode 0600 and folders of mode 0755 of this one. None where this one is root and
/// cannot become another.
#[cfg(unix)]
fn without_rights(place: &Place, args: &[&str]) -> Said {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    let open = |name: &str| fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    if fs::metadata(place.path("")).unwrap().uid() != 0 {
        return place.run(args);
    }
    // The binary may lie where others may not look.
    let binary = place.path("sparklet");
    if !binary.exists() {
        let there = env!("CARGO_BIN_EXE_sparklet");
        fs::hard_link(there, &binary).or_else(|_| fs::copy(there, &binary).map(drop)).unwrap();
    }
    open("");
    let mut command = std::process::Command::new(binary);
    command
        .args(args)
        .current_dir(place.path(""))
        .uid(65_534)
        .gid(65_534)
        .env("NO_COLOR", "1")
        .env("XDG_CONFIG_HOME", place.path("config-home"));
    crate::support::finish(command)
}

#[cfg(unix)]
#[test]
fn missing_rights() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let mode = |name: &str, mode: u32| fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    place.write("p/orders.csv", GOOD_CSV);
    place.write("p/out/totals.csv", "old");
    place.write("p/pipeline.toml", definition("path = \"orders.csv\"", "SELECT sum(amount) AS s FROM orders"));
    let check = |name: &str, code: i32, parts: &[&str]| {
        let said = without_rights(&place, &["run", "p", "--state", "state"]);
        assert_eq!(said.code, code, "{name}: {}", said.err);
        for part in parts.iter().chain(&["permission denied", "hint: "]) {
            assert!(said.err.contains(part), "{name}: `{part}` is not said:\n{}", said.err);
        }
        assert_eq!(fs::read_to_string(place.path("p/out/totals.csv")).unwrap(), "old", "{name}");
        assert_eq!(place.list("p/out"), ["totals.csv"], "{name}");
    };
    fs::create_dir(place.path("state")).unwrap();
    mode("state", 0o555);
    check("state", 1, &["state/locks", "--state"]);
    mode("state", 0o777);
    mode("p/orders.csv", 0o000);
    check("source", 3, &["source `orders`", "`orders.csv` cannot be read", "pipeline.toml:4"]);
    mode("p/orders.csv", 0o644);
    mode("p/out", 0o555);
    check("output", 1, &["step `totals`", "out/totals.csv"]);
    mode("p/out", 0o755);
}

#[test]
fn a_full_device() {
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let place = Place::new();
    for format in ["csv", "json", "table"] {
        let sql = "SELECT * FROM range(0, 100000)";
        let mut command = place.command(&["sql", "--format", format, "-c", sql]);
        command.stdout(full.try_clone().unwrap());
        let said = crate::support::finish(command);
        assert_eq!(said.code, 1, "{format}: {}", said.err);
        assert!(said.err.contains("cannot write the output: No space left"), "{format}: {}", said.err);
    }
}

/// A small disk, `disk` of `place`; none, said loudly, where this process may not mount one.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(place: &Place, options: &str) -> Option<Self> {
        let disk = place.path("disk");
        fs::create_dir_all(&disk).unwrap();
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk).output();
        if mounted.is_ok_and(|o| o.status.success()) {
            return Some(Self(disk));
        }
        eprintln!("SKIPPED: a full disk needs to mount a tmpfs (run as root)");
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = std::process::Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_too_full_for_the_history() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place, "size=400k") else { return };
    place.write("p/orders.csv", GOOD_CSV);
    place.write("p/pipeline.toml", definition("path = \"orders.csv\"", "SELECT sum(amount) AS s FROM orders"));
    let run = ["run", "p", "--state", "disk/state"];
    place.ok(&run);
    let fill = |name: &str| drop(fs::write(place.path(name), vec![1_u8; 1 << 20]));
    fill("disk/filler");
    let said = place.ok(&["sql", "--state", "disk/state", "--format", "csv", "-c", "SELECT 41 + 1 AS x"]);
    assert_eq!(said.out, "x\n42\n");
    for part in ["is not remembered", "no space is left", "make room"] {
        assert!(said.err.contains(part), "`{part}`: {}", said.err);
    }
    // A pipeline cannot even say what it is about to write, and does not begin.
    fill("disk/more");
    let said = place.run(&run);
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("no space left") && said.err.contains("free some space"), "{}", said.err);
    assert_eq!(place.list("p/out"), ["totals.csv"]);
    // With room again, what was remembered is there, and the next run is added.
    disk.remount("size=20m");
    let listed = || place.ok(&["runs", "--state", "disk/state", "--format", "ndjson"]).out.lines().count();
    assert_eq!(listed(), 1);
    place.ok(&run);
    assert_eq!(listed(), 2);
    place.ok(&["history", "verify", "--state", "disk/state"]);
}

#[test]
fn a_full_disk() {
    let place = Place::new();
    let Some(mounted) = Disk::mount(&place, "size=3m") else { return };
    let disk = mounted.0.clone();
    let text = |rows: u64| {
        format!(
            "name = \"p\"\n[[step]]\nname = \"big\"\nquery = \"SELECT value, value * 7919 % 1000003 AS h FROM range(0, {rows})\"\noutput = {{ path = \"{}/out/big.parquet\" }}\n",
            disk.display()
        )
    };
    place.write("p/pipeline.toml", text(1000));
    place.ok(&["run", "p"]);
    place.write("p/pipeline.toml", text(3_000_000));
    let said = place.run(&["run", "p"]);
    assert_eq!(said.code, 1, "{}", said.err);
    for part in ["no space left on the disk", "out/big.parquet", "untouched"] {
        assert!(said.err.contains(part), "`{part}`: {}", said.err);
    }
    assert_eq!(place.ask(&format!("SELECT count(*) FROM '{}/out/big.parquet'", disk.display())), "1000");
    assert_eq!(place.list("disk/out"), ["big.parquet"]);
    // The history on the full disk: the run succeeds and says that it is not remembered.
    place.write("p/pipeline.toml", text(10));
    let filler = disk.join("filler");
    let _ = fs::write(&filler, vec![1u8; 4 << 20]);
    let state = disk.join("state");
    let said = place.run(&["sql", "--state", state.to_str().unwrap(), "--format", "csv", "-c", "SELECT 41 + 1 AS x"]);
    assert!(said.out.contains("42"), "{} {}", said.out, said.err);
}
