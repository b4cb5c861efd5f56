//! Several processes at once.

use std::fs;

use crate::support::Place;

fn pipeline(place: &Place, name: &str, rows: u64) {
    place.write(
        &format!("{name}/pipeline.toml"),
        format!(
            "name = \"{name}\"\n\n[[step]]\nname = \"numbers\"\n\
             query = \"SELECT value AS n, value % 97 AS k FROM range(0, {rows})\"\noutput = {{ path = \"out/numbers.parquet\" }}\n\n\
             [[step]]\nname = \"sums\"\nquery = \"SELECT k, sum(n) AS s FROM numbers GROUP BY k\"\n\
             output = {{ path = \"out/sums.csv\" }}\n"
        ),
    );
}

#[test]
fn different_pipelines_share_a_state_folder() {
    let place = Place::new();
    let names = ["a", "b", "c"];
    for name in names {
        pipeline(&place, name, 200_000);
    }
    let children: Vec<_> = names.iter().map(|name| place.start(&["run", name, "--state", "state"])).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let listed = place.ok(&["runs", "--state", "state", "--format", "csv"]);
    for name in names {
        assert_eq!(listed.out.matches(&format!(",{name},")).count(), 1, "{}", listed.out);
        assert_eq!(fs::read_to_string(place.path(&format!("{name}/out/sums.csv"))).unwrap().lines().count(), 98);
    }
}

#[test]
fn two_runs_of_one_pipeline_never_overlap() {
    let place = Place::new();
    pipeline(&place, "a", 3_000_000);
    let children: Vec<_> = (0..4).map(|_| place.start(&["run", "a"])).collect();
    let mut codes = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        codes.push(output.status.code());
        if !output.status.success() {
            assert!(said.contains("another run of `a`"), "{said}");
            assert!(said.contains("hint:"), "{said}");
        }
    }
    assert!(codes.contains(&Some(0)), "{codes:?}");
    assert_eq!(place.ask("SELECT count(*) FROM 'a/out/numbers.parquet'"), "3000000");
}
