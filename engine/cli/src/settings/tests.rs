use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::settings::table::{Flag, SETTINGS};

fn layer(origin: Origin, values: &[(&str, &str)]) -> Layer {
    let given = |text: &str| Given { text: text.to_owned(), by: "test".to_owned(), place: None, base: "/base".into() };
    Layer { origin, values: values.iter().map(|(name, text)| ((*name).to_owned(), given(text))).collect() }
}

fn said(layers: &[Layer]) -> String {
    let rejected = resolve(layers).unwrap_err();
    let line = |d: &sparklet_pipeline::Diagnostic| format!("{} / {}", d.message, d.hint.clone().unwrap_or_default());
    rejected.diagnostics.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_table_is_sound() {
    let mut seen = std::collections::BTreeSet::new();
    for setting in SETTINGS {
        assert!(seen.insert(setting.name), "{} stands twice", setting.name);
        assert!(value::check(setting.kind, setting.default).is_ok(), "{}: bad default", setting.name);
        if let Some(env) = setting.env {
            let spelled = format!("SPARKLET_{}", setting.name.to_uppercase().replace('.', "_"));
            assert_eq!(env, spelled, "{}", setting.name);
        }
        if let Some(Flag::Value(flag)) = setting.flag {
            assert_eq!(flag, setting.name.replace('_', "-"), "{}", setting.name);
        }
        assert!(!setting.doc.ends_with('.') && !setting.doc.contains('|'), "{}", setting.name);
    }
}

#[test]
fn each_origin_beats_the_ones_below_it() {
    let order = [Origin::User, Origin::Project, Origin::Pipeline, Origin::Environment, Origin::Flag];
    let mut layers = Vec::new();
    for (n, origin) in order.into_iter().enumerate() {
        let text = (n + 1).to_string();
        layers.push(layer(origin, &[("slots", text.as_str())]));
        // In whatever order they come.
        layers.reverse();
        let in_force = resolve(&layers).unwrap();
        let (given, from) = in_force.get("slots").unwrap();
        assert_eq!((given.text.as_str(), from), (text.as_str(), origin));
    }
    let (given, from) = resolve(&[]).unwrap().get("slots").map(|(g, o)| (g.text.clone(), o)).unwrap();
    assert_eq!((given.as_str(), from), ("auto", Origin::Default));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let layers = [
        layer(Origin::User, &[("memroy", "1GiB"), ("slots", "many")]),
        layer(Origin::Flag, &[("memory", "7 potatoes"), ("learning", "of")]),
        layer(Origin::Pipeline, &[("state", "x"), ("datafusion.optimizer.prefer_hash_joins", "true")]),
        layer(
            Origin::Project,
            &[("datafusion.execution.target_partitions", "3"), ("datafusion.optimizer.prefer_hash_join", "maybe")],
        ),
    ];
    insta::assert_snapshot!(said(&layers), @r#"
        `test`: unknown setting `memroy` / did you mean `memory`?
        `test`: setting `slots`: `many` is not a whole number from 1 / write a whole number from 1 to 4096, or `auto`
        `test`: setting `learning`: `of` is not known (did you mean `off`?) / write one of `on`, `observe`, `off`
        `test`: setting `memory`: `7 potatoes` has the unknown unit `potatoes` / write bytes such as `2GiB`, or a share such as `70%`
        `test`: unknown DataFusion setting `datafusion.optimizer.prefer_hash_joins` / did you mean `datafusion.optimizer.prefer_hash_join`?
        `test`: setting `state` cannot stand in a pipeline / set it in `sparklet.toml`, by a flag or in the environment
        `test`: `datafusion.execution.target_partitions` is set by sparklet / set `slots` instead
        `test`: setting `datafusion.optimizer.prefer_hash_join`: `maybe` cannot be used / provided string was not `true` or `false`
    "#);
    assert!(resolve(&layers).unwrap_err().by_caller);
    assert!(!resolve(&layers[..1]).unwrap_err().by_caller);
}

#[test]
fn environment_variables() {
    let vars = BTreeMap::from([("SPARKLET_MEMORY", "1GiB"), ("NO_COLOR", "1"), ("SPARKLET_SLOTS", "")]);
    let env = |name: &str| vars.get(name).map(|v| (*v).to_owned());
    let found = Layer::from_environment(&env, Path::new("/here"));
    let names: Vec<_> = found.values.iter().map(|(name, given)| (name.as_str(), given.text.as_str())).collect();
    assert_eq!(names, [("color", "never"), ("memory", "1GiB")]);
    let vars = BTreeMap::from([("SPARKLET_COLOR", "always"), ("NO_COLOR", "1")]);
    let env = |name: &str| vars.get(name).map(|v| (*v).to_owned());
    assert_eq!(Layer::from_environment(&env, Path::new("/")).values["color"].text, "always");
}

#[test]
fn files_nest_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(PROJECT_FILE);
    fs::write(&file, "slots = 3\nhistory.max_runs = 1_000\n[datafusion.optimizer]\nprefer_hash_join = false\n")
        .unwrap();
    let layer = from_file(&file, Origin::Project).unwrap();
    let texts: Vec<_> = layer.values.iter().map(|(n, g)| (n.as_str(), g.text.as_str())).collect();
    assert_eq!(
        texts,
        [("datafusion.optimizer.prefer_hash_join", "false"), ("history.max_runs", "1000"), ("slots", "3")]
    );
    assert_eq!(layer.values["slots"].place.as_ref().unwrap().line_column(), (1, 9));
    assert!(resolve(&[layer]).is_ok());

    fs::write(&file, "slots = [3]\nmemory = 1979-05-27\n").unwrap();
    let errors = from_file(&file, Origin::Project).unwrap_err();
    assert_eq!(errors.len(), 2);
    fs::write(&file, "slots = \n").unwrap();
    let errors = from_file(&file, Origin::Project).unwrap_err();
    assert_eq!(errors[0].place.as_ref().unwrap().line_column().0, 1);
    fs::write(&file, b"slots = \"\xff\"").unwrap();
    assert!(from_file(&file, Origin::Project).unwrap_err()[0].message.contains("UTF-8"));
    assert!(from_file(&folder.path().join("none.toml"), Origin::User).unwrap().values.is_empty());
}

#[test]
fn the_project_file_is_found_above() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b");
    fs::create_dir_all(&deep).unwrap();
    let file = folder.path().join(PROJECT_FILE);
    fs::write(&file, "").unwrap();
    assert_eq!(find_project_file(&deep), Some(file));
}

#[test]
fn state_goes_to_the_project_then_the_pipeline_then_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let cwd = folder.path().join("a/b");
    fs::create_dir_all(&cwd).unwrap();
    let mut default = StateDefault { project: None, pipeline: None, cwd: cwd.clone() };
    assert_eq!(default.folder(), cwd.join(".sparklet"));
    fs::create_dir(folder.path().join(".sparklet")).unwrap();
    assert_eq!(default.folder(), folder.path().join(".sparklet"));
    default.pipeline = Some("/p".into());
    assert_eq!(default.folder(), Path::new("/p/.sparklet"));
    default.project = Some("/q".into());
    assert_eq!(default.folder(), Path::new("/q/.sparklet"));
}

#[test]
fn paths_start_where_they_were_written() {
    let layers = [layer(Origin::Project, &[("state", "st"), ("spill_dir", "/fast")])];
    let default = StateDefault { project: None, pipeline: None, cwd: "/cwd".into() };
    let settings = Settings::new(resolve(&layers).unwrap(), &default).unwrap();
    assert_eq!(settings.state, Path::new("/base/st"));
    assert_eq!(settings.spill_dir, Path::new("/fast"));
    let settings = Settings::new(resolve(&[]).unwrap(), &default).unwrap();
    assert_eq!(settings.spill_dir, Path::new("/cwd/.sparklet/spill"));
    assert_eq!(settings.session().memory_limit, None);
    let half = Settings::new(resolve(&[layer(Origin::Flag, &[("memory", "50%")])]).unwrap(), &default).unwrap();
    let limit = half.session().memory_limit.unwrap();
    assert_eq!(limit, (sparklet_core::memory::usable_memory() as f64 * 0.5) as u64);
}

#[test]
fn each_rule_of_adaptive_execution_has_a_switch() {
    let default = StateDefault { project: None, pipeline: None, cwd: "/cwd".into() };
    let adaptive = |layers: &[Layer]| Settings::new(resolve(layers).unwrap(), &default).unwrap().session().adaptive;
    assert_eq!(adaptive(&[]), sparklet_core::AdaptiveSettings::default(), "the table and the library agree");
    let layers = [
        layer(Origin::Pipeline, &[("adaptive_split_skew", "off"), ("adaptive_memory", "off")]),
        layer(Origin::Environment, &[("adaptive_broadcast", "off"), ("adaptive_memory", "on")]),
        layer(
            Origin::Flag,
            &[
                ("adaptive", "force"),
                ("adaptive_skip_empty", "off"),
                ("adaptive_share", "off"),
                ("adaptive_slots", "off"),
                ("adaptive_push_keys", "off"),
                ("adaptive_reorder", "off"),
                ("adaptive_known_keys", "off"),
                ("adaptive_share_min_bytes", "none"),
                ("adaptive_min_slots", "2"),
                ("adaptive_min_rows", "1000"),
            ],
        ),
    ];
    let wanted = sparklet_core::AdaptiveSettings {
        mode: sparklet_core::AdaptiveMode::Force,
        split_skew: false,
        split_groups: true,
        split_windows: true,
        broadcast: false,
        skip_empty: false,
        memory: true,
        share: false,
        slots: false,
        push_keys: false,
        reorder: false,
        known_keys: false,
        share_min_bytes: 0,
        min_slots: 2,
        min_rows: 1000,
    };
    assert_eq!(adaptive(&layers), wanted);
    assert!(said(&[layer(Origin::Flag, &[("adaptive_memory", "false")])]).contains("write one of"));
    assert!(said(&[layer(Origin::Flag, &[("adaptive_min_rows", "0")])]).contains("whole number from 1"));
}

#[test]
fn records_leave_out_defaults_and_looks() {
    let layers = [
        layer(Origin::Flag, &[("color", "never"), ("slots", "2")]),
        layer(Origin::Pipeline, &[("datafusion.optimizer.prefer_hash_join", "false")]),
    ];
    let records = resolve(&layers).unwrap().records();
    let shown: Vec<_> = records.iter().map(|(n, r)| (n.as_str(), r.value.as_str(), r.origin.as_str())).collect();
    assert_eq!(shown, [("datafusion.optimizer.prefer_hash_join", "false", "pipeline"), ("slots", "2", "flag")]);
}

#[test]
fn the_reference_page_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let written = fs::read_to_string(file).unwrap_or_default();
    assert!(written == reference_page(), "run `sparklet config reference > docs/settings.md`");
}
