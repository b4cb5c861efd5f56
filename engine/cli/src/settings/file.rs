//! Settings from TOML files: flattened to dotted names, each with its place.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sparklet_pipeline::{Diagnostic, Pipeline, Place, Severity};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::layer::{Given, Layer, Origin};

/// Name of a project's settings file.
pub const PROJECT_FILE: &str = "sparklet.toml";

/// The nearest [`PROJECT_FILE`] in `from` or a folder above it.
pub fn find_project_file(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|folder| folder.join(PROJECT_FILE)).find(|file| file.is_file())
}

/// The user's settings file, whether or not it exists.
pub fn user_file(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(config.join("sparklet").join("config.toml"))
}

/// Reads a settings file. A file that does not exist is an empty layer.
pub fn from_file(path: &Path, origin: Origin) -> Result<Layer, Vec<Diagnostic>> {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map_err(|_| vec![problem(None, format!("`{}` is not UTF-8 text", path.display()), None)])?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Layer { origin, values: BTreeMap::new() }),
        Err(error) => {
            let hint = "let the user who runs sparklet read it, or move it away";
            return Err(vec![problem(
                None,
                format!("cannot read `{}`: {error}", path.display()),
                Some(hint.to_owned()),
            )]);
        }
    };
    let file = Source { path, text: text.into() };
    let table = DeTable::parse(&file.text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        vec![problem(Some(file.place(span)), error.message().to_owned(), None)]
    })?;
    let mut found = Found::default();
    flatten(&file, "", table.get_ref(), &mut found);
    if found.errors.is_empty() { Ok(Layer { origin, values: found.values }) } else { Err(found.errors) }
}

/// The `[settings]` of a pipeline, with their places in its definition.
pub fn from_pipeline(pipeline: &Pipeline) -> Layer {
    let file = Source { path: &pipeline.file, text: Arc::clone(&pipeline.text) };
    let mut found = Found::default();
    // The definition was parsed before: errors were told then.
    if let Ok(table) = DeTable::parse(&file.text)
        && let Some(DeValue::Table(settings)) = table.get_ref().get("settings").map(Spanned::get_ref)
    {
        flatten(&file, "", settings, &mut found);
    }
    let given = |(name, text): (&String, &String)| {
        let place = found.values.get(name).and_then(|given| given.place.clone());
        let by = shown(&pipeline.file);
        (name.clone(), Given { text: text.clone(), by, place, base: pipeline.root.clone() })
    };
    Layer { origin: Origin::Pipeline, values: pipeline.settings.iter().map(given).collect() }
}

struct Source<'a> {
    path: &'a Path,
    text: Arc<str>,
}

impl Source<'_> {
    fn place(&self, span: std::ops::Range<usize>) -> Place {
        Place { file: relative(self.path), text: Arc::clone(&self.text), span, label: None }
    }
}

#[derive(Default)]
struct Found {
    values: BTreeMap<String, Given>,
    errors: Vec<Diagnostic>,
}

fn flatten(file: &Source<'_>, prefix: &str, table: &DeTable<'_>, found: &mut Found) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        let text = match value.get_ref() {
            DeValue::Table(inner) => {
                flatten(file, &name, inner, found);
                continue;
            }
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', ""),
            DeValue::Float(number) => number.as_str().replace('_', ""),
            DeValue::Boolean(truth) => truth.to_string(),
            other => {
                let message = format!("setting `{name}` cannot be {}", other.type_str());
                let hint = Some("write a text, a number or a truth value".to_owned());
                found.errors.push(problem(Some(file.place(value.span())), message, hint));
                continue;
            }
        };
        let base = file.path.parent().unwrap_or(Path::new("")).to_owned();
        let place = Some(file.place(value.span()));
        found.values.insert(name, Given { text, by: shown(file.path), place, base });
    }
}

fn problem(place: Option<Place>, message: String, hint: Option<String>) -> Diagnostic {
    Diagnostic { severity: Severity::Error, code: "settings", message, place, hint }
}

/// The path as short as it can be said from the working directory.
pub(crate) fn relative(path: &Path) -> PathBuf {
    let short = std::env::current_dir().ok().and_then(|cwd| path.strip_prefix(&cwd).ok().map(Path::to_owned));
    short.filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| path.to_owned())
}

fn shown(path: &Path) -> String {
    relative(path).display().to_string()
}
