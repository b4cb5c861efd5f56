//! Puts the layers on top of each other and checks every value that was given.

use std::collections::BTreeMap;

use datafusion::config::ConfigOptions;
use sparklet_history::SettingRecord;
use sparklet_pipeline::{Diagnostic, Severity, suggest};

use super::layer::{Given, Layer, Origin};
use super::table::{Kind, SETTINGS, find};
use super::value;

/// What holds: every setting of the table, and the DataFusion options that were given.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    values: BTreeMap<String, (Given, Origin)>,
}

/// Values that cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// What is wrong, all of it.
    pub diagnostics: Vec<Diagnostic>,
    /// True if the command line or the environment is to blame, false if only files are.
    pub by_caller: bool,
}

/// Resolves `layers`, in whatever order they come. Values that are overridden are checked too: a mistake in a file is told
/// before the day on which it matters.
pub fn resolve(layers: &[Layer]) -> Result<InForce, Rejected> {
    let mut rejected = Rejected { diagnostics: Vec::new(), by_caller: false };
    let mut values: BTreeMap<String, (Given, Origin)> = SETTINGS
        .iter()
        .map(|s| {
            let by = "default".to_owned();
            let given = Given { text: s.default.to_owned(), by, place: None, base: Default::default() };
            (s.name.to_owned(), (given, Origin::Default))
        })
        .collect();
    for layer in layers {
        for (name, given) in &layer.values {
            if let Err((message, hint)) = check(name, &given.text, layer.origin) {
                rejected.by_caller |= layer.origin >= Origin::Environment;
                // A place says it better.
                let message = if given.place.is_some() { message } else { format!("`{}`: {message}", given.by) };
                rejected.diagnostics.push(Diagnostic {
                    severity: Severity::Error,
                    code: "settings",
                    message,
                    place: given.place.clone(),
                    hint,
                });
                continue;
            }
            let known = values.get(name).map(|(_, origin)| *origin);
            if known.is_none_or(|origin| layer.origin >= origin) {
                values.insert(name.clone(), (given.clone(), layer.origin));
            }
        }
    }
    if rejected.diagnostics.is_empty() { Ok(InForce { values }) } else { Err(rejected) }
}

fn check(name: &str, text: &str, origin: Origin) -> Result<(), (String, Option<String>)> {
    if name.starts_with("datafusion.") {
        return check_datafusion(name, text);
    }
    let Some(setting) = find(name) else {
        let hint = suggest::hint(name, "settings", SETTINGS.iter().map(|s| s.name));
        return Err((format!("unknown setting `{name}`"), hint));
    };
    if origin == Origin::Pipeline && !setting.in_pipeline {
        let hint = format!("set it in `{}`, by a flag or in the environment", super::PROJECT_FILE);
        return Err((format!("setting `{name}` cannot stand in a pipeline"), Some(hint)));
    }
    value::check(setting.kind, text)
        .map_err(|wrong| (format!("setting `{name}`: `{text}` {wrong}"), setting.kind.wanted()))
}

fn check_datafusion(name: &str, text: &str) -> Result<(), (String, Option<String>)> {
    let instead = match name {
        "datafusion.execution.target_partitions" => Some("slots"),
        "datafusion.execution.batch_size" => Some("batch_size"),
        "datafusion.runtime.memory_limit" => Some("memory"),
        "datafusion.runtime.temp_directory" => Some("spill_dir"),
        _ => None,
    };
    if let Some(own) = instead {
        return Err((format!("`{name}` is set by sparklet"), Some(format!("set `{own}` instead"))));
    }
    let mut options = ConfigOptions::default();
    let known: Vec<String> = options.entries().into_iter().map(|entry| entry.key).collect();
    if !known.iter().any(|k| k == name) {
        // Long names that differ in their last part only are all near: that part decides.
        let tail = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let tails: Vec<String> = known.iter().map(|k| tail(k)).collect();
        let near = suggest::nearest(&tail(name), tails.iter().map(String::as_str));
        let hint = near.and_then(|near| known.iter().find(|k| tail(k) == near)).map(|n| format!("did you mean `{n}`?"));
        return Err((format!("unknown DataFusion setting `{name}`"), hint));
    }
    options.set(name, text).map_err(|error| {
        let reason = error.strip_backtrace();
        let last = reason.lines().last().unwrap_or_default().trim_start_matches("External error: ").to_owned();
        (format!("setting `{name}`: `{text}` cannot be used"), Some(last))
    })
}

impl InForce {
    /// Text of the value of `name`; settings of the table always have one.
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", |(given, _)| given.text.as_str())
    }

    /// Value and origin of `name`.
    pub fn get(&self, name: &str) -> Option<(&Given, Origin)> {
        self.values.get(name).map(|(given, origin)| (given, *origin))
    }

    /// Everything in the order of the table, DataFusion's options after it.
    pub fn all(&self) -> Vec<(&str, &Given, Origin)> {
        let place = |name: &str| SETTINGS.iter().position(|s| s.name == name).unwrap_or(usize::MAX);
        let mut all: Vec<_> =
            self.values.iter().map(|(name, (given, origin))| (name.as_str(), given, *origin)).collect();
        all.sort_by_key(|(name, _, _)| place(name));
        all
    }

    /// DataFusion's options that were given.
    pub fn datafusion(&self) -> BTreeMap<String, String> {
        let ours = self.values.iter().filter(|(name, _)| name.starts_with("datafusion."));
        ours.map(|(name, (given, _))| (name.clone(), given.text.clone())).collect()
    }

    /// What is not at its default, for a run's record; how things look does not matter to a run.
    pub fn records(&self) -> BTreeMap<String, SettingRecord> {
        let matters = |name: &str| find(name).is_none_or(|s| s.group != super::table::Group::Look);
        let given = self.values.iter().filter(|(name, (_, origin))| *origin != Origin::Default && matters(name));
        given
            .map(|(name, (given, origin))| {
                (name.clone(), SettingRecord { value: given.text.clone(), origin: origin.to_string() })
            })
            .collect()
    }

    /// The folder that the setting `name` means, made absolute; nothing if it is at its default.
    pub fn path(&self, name: &str) -> Option<std::path::PathBuf> {
        let (given, origin) = self.values.get(name)?;
        let is_path = find(name).is_some_and(|s| s.kind == Kind::Path);
        (is_path && *origin != Origin::Default).then(|| given.base.join(&given.text))
    }
}
