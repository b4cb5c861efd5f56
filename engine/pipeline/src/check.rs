//! Everything that can be said of a pipeline without reading data: sources are found, every step is planned over the columns of the
//! steps before it, outputs and checks are held against the columns of the results.
//!
//! Metadata and headers of sources are read, and the rows that inferring the types of CSV and JSON takes; nothing runs.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::{DataFusionError, ScalarValue, TableReference};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use futures::FutureExt;
use sparklet_core::sink::SinkFormat;
use sparklet_core::source::SourceSpec;
use sparklet_core::{ErrorKind, Session};
use sparklet_history::SourceRecord;

use crate::definition::{Check, Condition, Output, Pipeline, Source, SqlText, Step, Udf};
use crate::diagnostic::{self, Diagnostic, Place};
use crate::{sql_refs, stage, suggest};
use explain::Planned;

mod explain;
pub mod planned;
mod ties;

#[cfg(test)]
mod tests;

/// A pipeline whose sources are registered in a session and whose steps have been planned.
#[derive(Debug, Clone)]
pub struct Bound {
    /// What was found of each source that was bound.
    pub sources: Vec<SourceRecord>,
    /// Steps in order.
    pub steps: Vec<PlannedStep>,
    /// Warnings and notes.
    pub warnings: Vec<Diagnostic>,
}

/// A step with the columns of its result.
#[derive(Debug, Clone)]
pub struct PlannedStep {
    /// Name.
    pub name: String,
    /// Columns of the result, in the order of the query.
    pub schema: SchemaRef,
    /// Rows that statistics expect, where they tell and [`Depth::Physical`] was asked for.
    pub estimated_rows: Option<u64>,
    /// Parts of the plan, such as joins, that would run as stages before the rest is planned; 0 where only [`Depth::Logical`] was asked for.
    pub boundaries: u64,
}

/// How far planning goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Names and types.
    Logical,
    /// Down to operators as well: what DataFusion cannot run is found, rows are estimated.
    Physical,
}

/// Registers the sources in `session` and plans the steps. With `only`, those steps and all that they read, else the whole pipeline.
/// The sources stay registered; the steps do not.
///
/// # Errors
/// All that is wrong, warnings included.
pub async fn bind(
    pipeline: &Pipeline,
    session: &Session,
    params: &BTreeMap<String, ScalarValue>,
    only: Option<&[String]>,
    depth: Depth,
) -> Result<Bound, Vec<Diagnostic>> {
    let wanted = only.map(|steps| upstream(pipeline, steps));
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|w| w.contains(name));
    let mut binder = Binder { pipeline, session, params, found: Vec::new() };
    for udf in &pipeline.udfs {
        binder.functions(udf);
    }
    let mut sources = Vec::new();
    let mut ready: BTreeSet<&str> = BTreeSet::new();
    for source in pipeline.sources.iter().filter(|s| is_wanted(&s.name)) {
        if let Some(record) = binder.source(source).await {
            sources.push(record);
            ready.insert(&source.name);
        }
    }
    let mut steps = Vec::new();
    for step in pipeline.steps.iter().filter(|s| is_wanted(&s.name)) {
        // What reads something that is wrong already has nothing to be checked against.
        if !step.reads.iter().all(|r| ready.contains(r.as_str())) {
            continue;
        }
        if let Some(planned) = binder.step(step, depth).await {
            ready.insert(&step.name);
            steps.push(planned);
        }
    }
    for step in &pipeline.steps {
        // Failing to take a table out of an in-memory catalog has no cause but its absence.
        let _ = session.context().deregister_table(TableReference::bare(step.name.as_str()));
    }
    let mut found = binder.found;
    diagnostic::tidy(&mut found);
    if diagnostic::has_errors(&found) { Err(found) } else { Ok(Bound { sources, steps, warnings: found }) }
}

/// All that can be said of the pipeline; empty is good. Parameters that have no value yet may be NULLs of their types
/// ([`crate::params::plan_params`]).
pub async fn check(pipeline: &Pipeline, session: &Session, params: &BTreeMap<String, ScalarValue>) -> Vec<Diagnostic> {
    session.plan_only();
    let mut found = match bind(pipeline, session, params, None, Depth::Physical).await {
        Ok(bound) => bound.warnings,
        Err(found) => found,
    };
    for source in pipeline.sources.iter().filter(|s| !pipeline.steps.iter().any(|step| step.reads.contains(&s.name))) {
        let note = Diagnostic::note("unused-source", format!("no step reads source `{}`", source.name));
        found.push(note.at(definition_place(pipeline, source.span.clone())));
    }
    diagnostic::tidy(&mut found);
    found
}

/// The source's specification with its parameters filled in.
///
/// # Errors
/// The parameter is NULL or not a positive number.
#[expect(clippy::result_large_err, reason = "an error is said once and ends the work")]
pub fn resolve_source(
    pipeline: &Pipeline,
    source: &Source,
    params: &BTreeMap<String, ScalarValue>,
) -> Result<SourceSpec, Diagnostic> {
    let mut spec = source.spec.clone();
    let Some(name) = &source.scale_param else { return Ok(spec) };
    let scale = match params.get(name) {
        Some(ScalarValue::Float64(Some(scale))) => *scale,
        Some(ScalarValue::Int64(Some(scale))) => *scale as f64,
        // Not known yet: any scale has the same columns.
        Some(ScalarValue::Float64(None) | ScalarValue::Int64(None)) => return Ok(spec),
        _ => 0.0,
    };
    if !(scale > 0.0 && scale <= 100_000.0) {
        return Err(Diagnostic::error(
            "out-of-range",
            format!("the scale of source `{}` cannot be {scale}", source.name),
        )
        .hint(format!("give a number above 0 and up to 100000: `--param {name}=0.1`"))
        .at(definition_place(pipeline, source.span.clone())));
    }
    spec.options.scale = scale;
    Ok(spec)
}

/// Names of the steps and of all sources and steps that they read, directly or not.
fn upstream(pipeline: &Pipeline, steps: &[String]) -> BTreeSet<String> {
    let (mut wanted, mut queue) = (BTreeSet::new(), steps.to_vec());
    while let Some(name) = queue.pop() {
        if wanted.insert(name.clone())
            && let Some(step) = pipeline.steps.iter().find(|s| s.name == name)
        {
            queue.extend(step.reads.iter().cloned());
        }
    }
    wanted
}

pub(crate) fn definition_place(pipeline: &Pipeline, span: std::ops::Range<usize>) -> Place {
    Place { file: pipeline.file.clone(), text: Arc::clone(&pipeline.text), span, label: None }
}

struct Binder<'a> {
    pipeline: &'a Pipeline,
    session: &'a Session,
    params: &'a BTreeMap<String, ScalarValue>,
    found: Vec<Diagnostic>,
}

impl Binder<'_> {
    fn at(&self, span: std::ops::Range<usize>) -> Place {
        definition_place(self.pipeline, span)
    }

    /// Loads the functions of a module; nothing of it runs.
    fn functions(&mut self, udf: &Udf) {
        if let Err(error) = self.session.load_module(&udf.file, &udf.written, udf.declared.clone()) {
            let diagnostic =
                Diagnostic::error("bad-module", error.message).maybe_hint(error.hint).at(self.at(udf.span.clone()));
            self.found.push(diagnostic);
        }
    }

    async fn source(&mut self, source: &Source) -> Option<SourceRecord> {
        let spec = match resolve_source(self.pipeline, source, self.params) {
            Ok(spec) => spec,
            Err(diagnostic) => {
                self.found.push(diagnostic);
                return None;
            }
        };
        // A reader that meets bytes nobody thought of may panic; that is a bad file here, not the end of the process.
        let registering = AssertUnwindSafe(self.session.register_source(&source.name, &spec)).catch_unwind();
        let registered = registering.await.unwrap_or_else(|_| {
            let message =
                format!("source `{}`: reading the metadata of `{}` broke the reader", source.name, spec.written);
            Err(sparklet_core::Error::new(ErrorKind::Data, message)
                .with_hint("a file is damaged or of another format; write it again, or leave it out by a glob"))
        });
        match registered {
            Ok(record) => Some(record),
            Err(error) => {
                let code = match error.kind {
                    ErrorKind::Source => "bad-source",
                    ErrorKind::Data => "bad-data",
                    ErrorKind::Transient => "unreachable-source",
                    kind => kind.name(),
                };
                let diagnostic =
                    Diagnostic::error(code, error.message).maybe_hint(error.hint).at(self.at(source.span.clone()));
                self.found.push(diagnostic);
                None
            }
        }
    }

    async fn step(&mut self, step: &Step, depth: Depth) -> Option<PlannedStep> {
        let planned = Planned { text: &step.sql, sql: &step.sql.sql, before: 0 };
        let plan = match self.plan(planned.sql).await {
            Ok(plan) => plan,
            Err(error) => {
                self.found.extend(explain::explain(self.session, &planned, error));
                return None;
            }
        };
        let schema: SchemaRef = Arc::clone(plan.schema().inner());
        if !self.columns(step, &schema) {
            return None;
        }
        if let Some(output) = &step.output {
            self.output(step, output, &schema);
        }
        if !step.deterministic {
            self.ties(step, &plan);
        }
        let (estimated_rows, boundaries) = match depth {
            Depth::Logical => (None, 0),
            Depth::Physical => match stage::prepared(self.session.frame(plan), step).await {
                Ok(prepared) => {
                    let rows = prepared.observe().nodes.first().and_then(|n| n.estimated_rows);
                    (rows, prepared.boundaries().len() as u64)
                }
                Err(error) => {
                    let range = sql_refs::first_word(&step.sql.sql);
                    self.found.push(step.sql.error("sql-plan", range, error.message).maybe_hint(error.hint));
                    return None;
                }
            },
        };
        let table = Arc::new(planned::PlannedTable::new(Arc::clone(&schema), estimated_rows));
        if let Err(error) = self.session.context().register_table(TableReference::bare(step.name.as_str()), table) {
            let range = sql_refs::first_word(&step.sql.sql);
            self.found.push(step.sql.error("internal", range, error.strip_backtrace()));
            return None;
        }
        for check in &step.checks {
            self.check(step, check).await;
        }
        Some(PlannedStep { name: step.name.clone(), schema, estimated_rows, boundaries })
    }

    /// Plans a query down to checked types; errors carry places.
    async fn plan(&self, sql: &str) -> Result<LogicalPlan, DataFusionError> {
        let state = with_places(self.session.context().state());
        let mut plan = state.create_logical_plan(sql).await?;
        if !self.params.is_empty() {
            let values: Vec<_> = self.params.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            plan = plan.with_param_values(values)?;
        }
        state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})
    }

    /// Names of columns must be told apart.
    fn columns(&mut self, step: &Step, schema: &SchemaRef) -> bool {
        let mut names = BTreeSet::new();
        let twice: BTreeSet<&str> =
            schema.fields().iter().map(|f| f.name().as_str()).filter(|n| !names.insert(*n)).collect();
        for name in &twice {
            let message = format!("the result of `{}` has two columns `{name}`", step.name);
            let range = sql_refs::first_word(&step.sql.sql);
            self.found.push(
                step.sql.error("duplicate-column", range, message).hint("give one of them another name with `AS`"),
            );
        }
        twice.is_empty()
    }

    fn output(&mut self, step: &Step, output: &Output, schema: &SchemaRef) {
        let place = self.at(output.span.clone());
        let error = |code, message: String| Diagnostic::error(code, message).at(place.clone());
        let names = schema.fields().iter().map(|f| f.name().as_str());
        for column in &output.sink.partition_by {
            match schema.field_with_name(column) {
                Err(_) => {
                    let diagnostic = error(
                        "unknown-column",
                        format!("`partition_by` names `{column}`, which the result of `{}` does not have", step.name),
                    );
                    self.found.push(diagnostic.maybe_hint(suggest::hint(
                        column,
                        "columns of the result",
                        names.clone(),
                    )));
                }
                Ok(field) if !sparklet_core::write::can_name_folders(field.data_type()) => {
                    let message =
                        format!("column `{column}` is of type {}, which cannot name folders", field.data_type());
                    self.found.push(
                        error("wrong-type", message).hint("partition by a column of integers, text, dates or booleans"),
                    );
                }
                Ok(_) => {}
            }
        }
        if !output.sink.partition_by.is_empty()
            && names.clone().all(|n| output.sink.partition_by.iter().any(|p| p == n))
        {
            let message =
                format!("`partition_by` names every column of `{}`: nothing is left for the files", step.name);
            self.found.push(error("bad-value", message).hint("leave out one column, or select another"));
        }
        for field in schema.fields() {
            if output.sink.format == SinkFormat::Csv && field.data_type().is_nested() {
                let message =
                    format!("column `{}` is of type {}, which CSV cannot hold", field.name(), field.data_type());
                self.found.push(
                    error("wrong-type", message).hint("write Parquet or JSON, or take the column apart in the query"),
                );
            } else if is_untyped(field) {
                let message = format!("column `{}` of `{}` is always NULL and has no type", field.name(), step.name);
                let diagnostic = Diagnostic::warning("no-type", message)
                    .hint(format!("write `CAST(NULL AS INT) AS {}`", field.name()));
                self.found.push(diagnostic.at(place.clone()));
            }
        }
    }

    fn ties(&mut self, step: &Step, plan: &LogicalPlan) {
        let reasons = ties::reasons(plan);
        if reasons.is_empty() {
            return;
        }
        let message = format!("the result of `{}` may differ from run to run: {}", step.name, reasons.join("; "));
        let note = Diagnostic::note("ties", message)
            .hint("order by columns in which no two rows are equal, or set `deterministic = true`, which keeps one plan and one layout");
        self.found.push(note.at(step.sql.place(sql_refs::first_word(&step.sql.sql))));
    }

    async fn check(&mut self, step: &Step, check: &Check) {
        let text = check_text(self.pipeline, check);
        let (sql, before, each_row) = match &check.condition {
            // The line break ends a comment at the end of the expression.
            Condition::EachRow(expression) => {
                (format!("SELECT ({expression}\n) FROM \"{}\"", step.name), "SELECT (".len(), true)
            }
            Condition::Query(query) => (query.clone(), 0, false),
        };
        let planned = Planned { text: &text, sql: &sql, before };
        let plan = match self.plan(&sql).await {
            Ok(plan) => plan,
            Err(error) => {
                self.found.extend(explain::explain(self.session, &planned, error));
                return;
            }
        };
        let whole = sql_refs::first_word(&text.sql);
        let fields = plan.schema().fields();
        let kind = fields.first().map(|f| f.data_type().clone());
        if fields.len() != 1 {
            let message = format!("check `{}` returns {} columns, not one boolean", check.name, fields.len());
            self.found.push(
                text.error("bad-check", whole, message).hint("select one condition, e.g. `SELECT count(*) > 0 FROM …`"),
            );
        } else if !matches!(kind, Some(DataType::Boolean | DataType::Null)) {
            let message = format!("check `{}` is of type {}, not boolean", check.name, kind.unwrap_or(DataType::Null));
            self.found.push(
                text.error("bad-check", whole, message).hint("compare with something, e.g. `… > 0` or `… IS NOT NULL`"),
            );
        } else if each_row && aggregates(&plan) {
            let message = format!("check `{}` aggregates, but `expr` is asked of each row", check.name);
            self.found.push(
                text.error("bad-check", whole, message)
                    .hint(format!("write it as a query: `sql = \"SELECT … FROM {}\"`", step.name)),
            );
        }
    }
}

/// The SQL of a check with its place in the definition.
fn check_text(pipeline: &Pipeline, check: &Check) -> SqlText {
    let (Condition::EachRow(sql) | Condition::Query(sql)) = &check.condition;
    SqlText::inline(&pipeline.file, &pipeline.text, check.span.clone(), sql.clone())
}

fn with_places(mut state: SessionState) -> SessionState {
    state.config_mut().options_mut().sql_parser.collect_spans = true;
    state
}

fn aggregates(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => true,
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => plan.inputs().into_iter().any(aggregates),
        _ => false,
    }
}

fn is_untyped(field: &Field) -> bool {
    matches!(field.data_type(), DataType::Null)
}
