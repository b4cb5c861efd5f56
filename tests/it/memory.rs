//! Small memory limits: a query completes by spilling, or fails with an error that names the setting.

use std::fs;
use std::process::Command;

use crate::support::{Place, finish, query_texts};

#[test]
fn tpch_under_64_megabytes() {
    let Some(texts) = query_texts("tpch") else { return };
    let place = Place::new();
    let mut definition = "name = \"t\"\n".to_owned();
    for table in ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"] {
        definition += &format!("[sources.{table}]\nformat = \"tpch\"\ntable = \"{table}\"\nscale = 0.1\n");
    }
    for number in [9, 18, 21] {
        let text = fs::read_to_string(texts.join(format!("q{number:02}.sql"))).unwrap();
        place.write(&format!("t/q{number}.sql"), text);
        definition += &format!(
            "[[step]]\nname = \"q{number}\"\nsql = \"q{number}.sql\"\noutput = {{ path = \"out/q{number}.csv\" }}\n"
        );
    }
    place.write("t/pipeline.toml", definition);
    place.ok(&["run", "t", "--slots", "2"]);
    for number in [9, 18, 21] {
        let name = format!("t/out/q{number}.csv");
        let roomy = fs::read_to_string(place.path(&name)).unwrap();
        for limit in ["64MiB", "16MiB"] {
            let said = place.run(&["run", "t", "--slots", "2", "--memory", limit, "--select", &format!("q{number}")]);
            if said.code == 0 {
                let tight = fs::read_to_string(place.path(&name)).unwrap();
                let sorted = |text: &str| {
                    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                    lines.sort();
                    lines
                };
                assert_eq!(sorted(&tight), sorted(&roomy), "q{number} at {limit}");
            } else {
                assert_eq!(said.code, 6, "{}", said.err);
                assert!(said.err.contains("--memory"), "{}", said.err);
                assert_eq!(fs::read_to_string(place.path(&name)).unwrap(), roomy);
            }
        }
    }
    assert_eq!(place.list("t/.sparklet/work"), [""; 0]);
}

/// A spill folder that takes no more: the query says so, keeps nothing, publishes nothing, and runs once there is room.
#[test]
fn a_full_spill_disk_is_an_error_that_names_the_setting() {
    let place = Place::new();
    let join = "SELECT a.value AS a, b.value AS b FROM range(0, 900000) a JOIN range(0, 900000) b ON a.value = b.value";
    let sort = "SELECT value * 7919 % 1000003 AS v, repeat('x', 40) || value AS t FROM range(0, 400000) ORDER BY v, t";
    for (name, sql, memory) in [("join", join, "16MiB"), ("sort", sort, "24MiB")] {
        place.write(
            "p/pipeline.toml",
            format!(
                "name = \"p\"\n[[step]]\nname = \"{name}\"\nquery = \"{sql}\"\noutput = {{ path = \"out/{name}.csv\" }}\n"
            ),
        );
        let args = ["run", "p", "--memory", memory, "--slots", "2", "--adaptive", "force", "--spill-dir", "spill"];
        fs::create_dir_all(place.path("spill")).unwrap();
        // No file may have more than 64 blocks of 512 or 1,024 bytes; what writes more is told, not killed.
        let mut limited = Command::new("sh");
        let bare = place.command(&args);
        limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]).arg(bare.get_program());
        limited.args(bare.get_args()).current_dir(place.path("")).env("NO_COLOR", "1");
        for (name, value) in bare.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        let said = finish(limited);
        assert_eq!(said.code, 6, "{name}: {}{}", said.out, said.err);
        assert!(said.err.contains("no space left on the disk") && said.err.contains("--spill-dir"), "{}", said.err);
        assert_eq!(place.list("spill"), [""; 0], "{name}");
        assert_eq!((place.list("p/out"), place.list("p/.sparklet/work")), (Vec::new(), Vec::new()), "{name}");
        place.ok(&args);
        assert_eq!(place.list("spill"), [""; 0], "{name}");
        assert_eq!(place.list("p/out"), [format!("{name}.csv")]);
        fs::remove_dir_all(place.path("p")).unwrap();
    }
}
