//! What several commands do.

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::common::ScalarValue;
use sparklet_core::sink::SinkFormat;
use sparklet_core::source::{Format, SourceOptions, SourceSpec};
use sparklet_core::{Session, SessionConfig};
use sparklet_history::{Controls, Scope};
use sparklet_pipeline::check::resolve_source;
use sparklet_pipeline::definition::{Output, Target};
use sparklet_pipeline::params::plan_params;
use sparklet_pipeline::{Diagnostic, Pipeline};

use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::settings::{EngineFlags, LookFlags, Settings};
use crate::world::World;
use crate::{diagnostics, exit, runtime};

/// A pipeline with the settings that are in force for it, and what was given for its parameters.
pub(super) struct Subject {
    pub(super) pipeline: Pipeline,
    pub(super) settings: Settings,
    pub(super) params: BTreeMap<String, String>,
    pub(super) controls: Controls,
}

impl Subject {
    /// Loads the pipeline at `path`, shows warnings, and settles its settings.
    pub(super) fn load(
        path: &Path,
        given: &[String],
        flags: &EngineFlags,
        look: &LookFlags,
        world: &World,
        console: &mut Console,
    ) -> Result<Self> {
        let flags = flags.given(&world.cwd).map_err(Failure::usage)?;
        let params = params(given)?;
        let pipeline = load(path, world, console)?;
        let settings = world.in_force(look, flags, Some(&pipeline), console)?;
        // An order that cannot be read must not be overlooked.
        let controls = Controls::read(&settings.state).map_err(|error| {
            let path = settings.state.join("plan-control.json");
            Failure::io(format!("cannot read `{}`", path.display()), error)
        })?;
        Ok(Self { pipeline, settings, params, controls })
    }

    /// Configuration of a session that works for the pipeline.
    pub(super) fn session_config(&self) -> SessionConfig {
        let scope = Scope { pipeline: &self.pipeline.name, environment: &self.settings.environment };
        SessionConfig {
            pipeline: self.pipeline.name.clone(),
            controls: self.controls.of(scope),
            ..self.settings.session()
        }
    }

    /// Does `work` that plans and does not run, in a session of its own; parameters without a value are NULLs of their types.
    pub(super) fn plan<T>(
        &self,
        work: impl AsyncFnOnce(&Session, &BTreeMap<String, ScalarValue>) -> Result<T>,
    ) -> Result<T> {
        self.plan_in(self.session_config(), work)
    }

    /// As [`Self::plan`], in a session with `config`.
    pub(super) fn plan_in<T>(
        &self,
        config: SessionConfig,
        work: impl AsyncFnOnce(&Session, &BTreeMap<String, ScalarValue>) -> Result<T>,
    ) -> Result<T> {
        let values = plan_params(&self.pipeline, &self.params).map_err(rejected)?;
        runtime::block_on(&self.settings, async {
            let session = Session::new(config)?;
            work(&session, &values).await
        })?
    }
}

/// The settings in force for a command that may have a pipeline, and that pipeline.
pub(super) fn settle(
    path: Option<&Path>,
    flags: &EngineFlags,
    look: &LookFlags,
    world: &World,
    console: &mut Console,
) -> Result<(Option<Pipeline>, Settings)> {
    let flags = flags.given(&world.cwd).map_err(Failure::usage)?;
    let pipeline = path.map(|path| load(path, world, console)).transpose()?;
    let settings = world.in_force(look, flags, pipeline.as_ref(), console)?;
    Ok((pipeline, settings))
}

/// Loads a pipeline and shows warnings.
pub(super) fn load(path: &Path, world: &World, console: &mut Console) -> Result<Pipeline> {
    let loaded = sparklet_pipeline::load(path, &*world.env)?;
    if !loaded.warnings.is_empty() {
        let text = diagnostics::render(&loaded.warnings, console.err_look());
        console.say(&text);
    }
    Ok(loaded.pipeline)
}

/// Registers the sources of `pipeline`, and what it has published, as tables of `session`. What cannot be read is warned of and
/// left out: a query over the rest still works.
pub(super) async fn register_tables(
    session: &Session,
    pipeline: &Pipeline,
    params: &BTreeMap<String, String>,
    console: &mut Console,
) -> Result {
    for udf in &pipeline.udfs {
        if let Err(error) = session.load_module(&udf.file, &udf.written, udf.declared.clone()) {
            console.warn(&error.message);
        }
    }
    // Parameters of the SQL stand beside those of the pipeline.
    let declared = params.iter().filter(|(name, _)| pipeline.params.contains_key(*name));
    let values = plan_params(pipeline, &declared.map(|(n, v)| (n.clone(), v.clone())).collect())?;
    let sources = pipeline.sources.iter().map(|source| (&source.name, resolve_source(pipeline, source, &values)));
    let outputs = pipeline.steps.iter().filter_map(|step| Some((&step.name, Ok(published(step.output.as_ref()?)?))));
    for (name, spec) in sources.chain(outputs) {
        if let Err(error) = session.register_source(name, &spec.map_err(|d| vec![d])?).await {
            console.warn(&format!("no table `{name}`: {}", error.message));
        }
    }
    Ok(())
}

/// How to read what a step published; nothing where nothing is there yet.
fn published(output: &Output) -> Option<SourceSpec> {
    let location = match &output.target {
        Target::Local(path) if path.exists() => path.display().to_string(),
        Target::Local(_) => return None,
        Target::Remote(url) => url.clone(),
    };
    let format = match output.sink.format {
        SinkFormat::Parquet => Format::Parquet,
        SinkFormat::Csv => Format::Csv,
        SinkFormat::Json => Format::Json,
        SinkFormat::Arrow => Format::Arrow,
    };
    Some(SourceSpec {
        location,
        written: output.location.clone(),
        format,
        options: SourceOptions::default(),
        columns: Vec::new(),
        partition_columns: Vec::new(),
        storage: BTreeMap::new(),
    })
}

/// A run that did not begin: whether the definition, the caller or the moment is to blame decides the exit code.
pub(super) fn rejected(diagnostics: Vec<Diagnostic>) -> Failure {
    let all = |codes: &[&str]| diagnostics.iter().filter(|d| d.is_error()).all(|d| codes.contains(&d.code));
    let code = if all(&[
        "unknown-param",
        "bad-param",
        "missing-param",
        "setting",
        "unknown-step",
        "bad-select",
        "not-published",
    ]) {
        exit::USAGE
    } else if all(&["busy", "state", "unreachable-source"]) {
        exit::FAILED
    } else {
        exit::DEFINITION
    };
    Failure::Definition { diagnostics, code }
}

/// `NAME=VALUE` of `--param`.
pub(super) fn params(given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut params = BTreeMap::new();
    for text in given {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Failure::usage(format!("`--param {text}` is not `NAME=VALUE`"))
                .with_hint("write e.g. `--param day=2013-02-01`"));
        };
        if params.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::usage(format!("parameter `{name}` is given twice")));
        }
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_split_at_the_first_equals_sign() {
        let given = ["day=2013-02-01", "where=a=b", "empty="].map(str::to_owned);
        let params = params(&given).unwrap();
        assert_eq!(params["where"], "a=b");
        assert_eq!(params["empty"], "");
        for bad in [vec!["day"], vec!["=x"], vec!["a=1", "a=2"]] {
            let bad: Vec<String> = bad.into_iter().map(str::to_owned).collect();
            assert_eq!(super::params(&bad).unwrap_err().code(), 2);
        }
    }
}
