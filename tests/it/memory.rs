//! Small memory limits: a query completes by spilling, or fails with an error that names the setting.

use std::fs;

use crate::support::{Place, query_texts};

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
