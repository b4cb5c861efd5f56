//! Outputs of steps that are not run, as the last run that ran them published them.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::listing::ListingOptions;
use sparklet_core::sink::SinkFormat;
use sparklet_core::{Error, ErrorKind, Result, Session};
use url::Url;

use super::{Files, files_table};
use crate::definition::{Mode, Output, Step, Target};
use crate::publish::{Layout, Place};

/// The published output of `step` as a table with the columns that its query has now. Fails where what was published has others:
/// NULLs in their place would be wrong answers.
pub(crate) async fn published_table(
    session: &Session,
    step: &Step,
    output: &Output,
    schema: &SchemaRef,
) -> Result<Arc<dyn TableProvider>> {
    let stale = |what: String| {
        Error::new(ErrorKind::Source, format!("step `{}` is not selected, and its output {what}", step.name))
            .with_hint(format!("run it again, e.g. `--select {}+`", step.name))
    };
    let files = match &output.target {
        Target::Local(path) => Files::Local(path.clone()),
        Target::Remote(url) => Files::Remote(Url::parse(url).map_err(|e| stale(format!("`{url}` is not a URL: {e}")))?),
    };
    let mut has_files = true;
    if let Files::Local(path) = &files {
        let place = Place::resolve(path)?;
        // Read as it would be extended: with the partition columns of now, and nothing else in it.
        let found = Layout { sink: output.sink.clone(), mode: Mode::Append }.inspect(&place)?;
        has_files = output.sink.single_file || !found.is_empty();
    }
    // A key that is NULL everywhere is not in a JSON file at all.
    if has_files && output.sink.format != SinkFormat::Json {
        let sink = &output.sink;
        let ending =
            if sink.single_file { String::new() } else { sink.format.ending(sink.compression.as_deref()).to_owned() };
        let options = ListingOptions::new(super::format(sink)?).with_file_extension(ending);
        let inferred = options.infer_schema(&session.context().state(), &super::url(&files, sink)?).await;
        let there =
            inferred.map_err(|e| stale(format!("`{}` cannot be read: {}", output.location, session.explain(e))))?;
        let there: BTreeSet<&str> = there.fields().iter().map(|f| f.name().as_str()).collect();
        let missing = schema.fields().iter().map(|f| f.name().as_str());
        let missing = missing.filter(|name| !sink.partition_by.iter().any(|p| p == name) && !there.contains(name));
        let missing: Vec<String> = missing.map(|name| format!("`{name}`")).collect();
        if !missing.is_empty() {
            return Err(stale(format!("`{}` was published without {}", output.location, missing.join(", "))));
        }
    }
    files_table(session, &step.name, &files, &output.sink, schema)
}
