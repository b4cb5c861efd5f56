//! Where settings come from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use sparklet_pipeline::Place;

use super::table::SETTINGS;

/// A place that settings come from, in order of precedence: later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The table.
    Default,
    /// The user's file.
    User,
    /// `sparklet.toml` of the project.
    Project,
    /// `[settings]` of the pipeline.
    Pipeline,
    /// An environment variable.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::User => "user",
            Self::Project => "project",
            Self::Pipeline => "pipeline",
            Self::Environment => "environment",
            Self::Flag => "flag",
        })
    }
}

/// A value as somebody gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The value.
    pub text: String,
    /// Who says so: `--memory`, `SPARKLET_MEMORY`, a file.
    pub by: String,
    /// Where in a file.
    pub place: Option<Place>,
    /// Folder that relative paths start at.
    pub base: PathBuf,
}

/// The settings of one origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// The origin.
    pub origin: Origin,
    /// By name; names are not checked yet.
    pub values: BTreeMap<String, Given>,
}

impl Layer {
    /// Settings from environment variables; `cwd` is where relative paths start.
    pub fn from_environment(env: &dyn Fn(&str) -> Option<String>, cwd: &std::path::Path) -> Self {
        let given = |text: String, by: &str| Given { text, by: by.to_owned(), place: None, base: cwd.to_owned() };
        let mut values = BTreeMap::new();
        if env("NO_COLOR").is_some_and(|v| !v.is_empty()) {
            values.insert("color".to_owned(), given("never".to_owned(), "NO_COLOR"));
        }
        for setting in SETTINGS {
            let found = setting.env.and_then(|name| env(name).filter(|v| !v.is_empty()).map(|text| (name, text)));
            if let Some((name, text)) = found {
                values.insert(setting.name.to_owned(), given(text, name));
            }
        }
        Self { origin: Origin::Environment, values }
    }
}
