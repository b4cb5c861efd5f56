//! From steps as written to steps in an order in which they can run: what each reads, and which parameters it uses.

use super::step::{Draft, DraftCheck};
use super::walk::Walk;
use super::{Params, Sources};
use crate::definition::{Condition, SqlText, Step};
use crate::diagnostic::Diagnostic;
use crate::sql_refs::{self, References, Syntax, SyntaxError, TableName};
use crate::suggest;

/// A step with the tables that it reads.
pub(crate) struct Resolved {
    pub(crate) draft: Draft,
    reads: Vec<Read>,
}

/// A table that a step reads, with the first place where it does.
struct Read {
    name: String,
    diagnostic: Diagnostic,
}

impl Resolved {
    /// The step, if it has its query.
    pub(crate) fn finish(self) -> Option<Step> {
        let draft = self.draft;
        Some(Step {
            name: draft.name.value,
            sql: draft.sql?,
            reads: self.reads.into_iter().map(|r| r.name).collect(),
            output: draft.output,
            checks: draft.checks.into_iter().map(|c| c.check).collect(),
            timeout: draft.timeout,
            deterministic: draft.deterministic,
            span: draft.span,
        })
    }
}

/// Resolves names, reports what is unknown, and puts the steps in order.
pub(crate) fn resolve(
    walk: &Walk<'_>,
    drafts: Vec<Draft>,
    sources: &Sources,
    params: &Params,
    syntax: &Syntax,
) -> Vec<Resolved> {
    step_names(walk, &drafts, sources);
    let names = Names {
        sources: sources.names.iter().map(|(n, _)| n.clone()).collect(),
        steps: drafts.iter().map(|d| d.name.value.clone()).collect(),
    };
    let mut used = Used::default();
    let mut steps = Vec::new();
    for draft in drafts {
        let mut reads = Vec::new();
        let mut take = |sql: &SqlText, found: Result<References, SyntaxError>, in_check: bool| match found {
            Ok(found) => {
                for table in &found.tables {
                    match names.resolve(sql, table) {
                        // A check sees the result under the step's name.
                        Ok(name) if in_check && name == draft.name.value => {}
                        Ok(name) if reads.iter().any(|r: &Read| r.name == name) => {}
                        Ok(name) => {
                            let diagnostic = sql.error("step-cycle", table.range.clone(), "");
                            reads.push(Read { name, diagnostic });
                        }
                        Err(diagnostic) => walk.found.borrow_mut().push(diagnostic),
                    }
                }
                used.take(walk, sql, &found, params);
            }
            Err(error) => {
                let diagnostic = sql.error("sql-syntax", error.range, error.message).maybe_hint(error.hint);
                walk.found.borrow_mut().push(diagnostic);
            }
        };
        if let Some(sql) = &draft.sql {
            take(sql, sql_refs::query(&sql.sql, syntax), false);
        }
        for DraftCheck { check, sql } in &draft.checks {
            let found = match check.condition {
                Condition::EachRow(_) => sql_refs::expression(&sql.sql, syntax),
                Condition::Query(_) => sql_refs::query(&sql.sql, syntax),
            };
            take(sql, found, true);
        }
        steps.push(Resolved { draft, reads });
    }
    used.finish(walk, sources, params);
    in_order(walk, steps)
}

fn step_names(walk: &Walk<'_>, drafts: &[Draft], sources: &Sources) {
    for (i, draft) in drafts.iter().enumerate() {
        let name = &draft.name;
        if let Some((source, _)) = sources.names.iter().find(|(s, _)| s.eq_ignore_ascii_case(&name.value)) {
            let message = format!("step `{}` has the name of source `{source}`", name.value);
            walk.error("duplicate-name", name.span.clone(), message, "rename one: both are tables in SQL");
        }
        if let Some(other) = drafts[..i].iter().find(|d| d.name.value.eq_ignore_ascii_case(&name.value)) {
            let message = if other.name.value == name.value {
                format!("two steps have the name `{}`", name.value)
            } else {
                format!("steps `{}` and `{}` differ by case only", other.name.value, name.value)
            };
            walk.error("duplicate-name", name.span.clone(), message, "rename one");
        }
    }
}

struct Names {
    sources: Vec<String>,
    steps: Vec<String>,
}

impl Names {
    fn all(&self) -> impl Iterator<Item = &str> + Clone {
        self.sources.iter().chain(&self.steps).map(String::as_str)
    }

    #[expect(clippy::result_large_err, reason = "an error is said once and ends the work")]
    fn resolve(&self, sql: &SqlText, table: &TableName) -> Result<String, Diagnostic> {
        let unknown = |message: String| sql.error("unknown-table", table.range.clone(), message);
        let looks_like_file = |name: &str| {
            name.contains('/') || super::source::ENDINGS.iter().any(|(e, _)| name.ends_with(&format!(".{e}")))
        };
        let name = match table.parts.as_slice() {
            [name] if table.file || looks_like_file(name) => {
                let message = format!("a step cannot read the file `{name}` directly");
                let hint = format!(
                    "declare it, `[sources.NAME]` with `path = \"{name}\"`, and read `NAME`; files as tables are for `sparklet sql`"
                );
                return Err(unknown(message).hint(hint));
            }
            [name] => name,
            [schema, name] if schema == "public" => name,
            [catalog, schema, name] if catalog == "datafusion" && schema == "public" => name,
            parts => {
                let whole = parts.join(".");
                let last = parts.last().map_or("", String::as_str);
                let hint = match self.all().find(|n| *n == last) {
                    Some(name) => format!("write `{name}`: sources and steps have plain names"),
                    None if looks_like_file(&whole) => {
                        format!("declare it, `[sources.NAME]` with `path = \"{whole}\"`, and read `NAME`")
                    }
                    None => "tables are the sources and steps of the pipeline, with plain names".to_owned(),
                };
                return Err(unknown(format!("unknown table `{whole}`")).hint(hint));
            }
        };
        if let Some(known) = self.all().find(|n| n == name) {
            return Ok(known.to_owned());
        }
        let diagnostic = unknown(format!("unknown table `{name}`"));
        if let Some(known) = self.all().find(|n| n.eq_ignore_ascii_case(name)) {
            return Err(
                diagnostic.hint(format!("write `\"{known}\"`: names with capital letters need double quotes in SQL"))
            );
        }
        Err(diagnostic.maybe_hint(suggest::hint(name, "tables", self.all())))
    }
}

/// Parameters that something uses.
#[derive(Default)]
struct Used(Vec<String>);

impl Used {
    fn take(&mut self, walk: &Walk<'_>, sql: &SqlText, found: &References, params: &Params) {
        for placeholder in &found.params {
            let name = placeholder.text.trim_start_matches('$');
            if params.contains_key(name) && placeholder.text.starts_with('$') {
                self.0.push(name.to_owned());
                continue;
            }
            let declared = params.keys().map(String::as_str);
            let error = |message: String| sql.error("unknown-param", placeholder.range.clone(), message);
            let diagnostic = if name.is_empty()
                || name.starts_with(|c: char| c.is_ascii_digit())
                || !placeholder.text.starts_with('$')
            {
                error(format!("`{}` is not the name of a parameter", placeholder.text))
                    .hint("write `$name` and declare `name` in `[params]`")
            } else if ["interval_start", "interval_end"].contains(&name) {
                error(format!("`${name}` has no value: intervals take effect with the service"))
                    .hint(format!("declare it meanwhile, `[params]` with `{name} = 2013-02-01T00:00:00Z`"))
            } else {
                let hint = match suggest::nearest(name, declared) {
                    Some(near) => format!("did you mean `${near}`?"),
                    None => format!("declare it: `[params]` with `{name} = …`, its default"),
                };
                error(format!("parameter `${name}` is not declared")).hint(hint)
            };
            walk.found.borrow_mut().push(diagnostic);
        }
    }

    fn finish(mut self, walk: &Walk<'_>, sources: &Sources, params: &Params) {
        for source in &sources.read {
            let Some(name) = &source.scale_param else { continue };
            match params.get(name) {
                Some((param, _))
                    if matches!(
                        param.kind,
                        crate::definition::ParamKind::Int | crate::definition::ParamKind::Float
                    ) => {}
                Some((param, _)) => {
                    let message = format!(
                        "`scale` of source `{}` must be a number, but `${name}` is a {}",
                        source.name,
                        param.kind.name()
                    );
                    walk.error("wrong-type", source.span.clone(), message, "declare the parameter as int or float");
                }
                None => {
                    let hint = suggest::hint(name, "declared parameters", params.keys().map(String::as_str))
                        .unwrap_or_else(|| format!("declare it: `[params]` with `{name} = 0.1`"));
                    walk.error(
                        "unknown-param",
                        source.span.clone(),
                        format!("parameter `${name}` is not declared"),
                        hint,
                    );
                }
            }
            self.0.push(name.clone());
        }
        // SQL that cannot be read may use any of them.
        if crate::diagnostic::has_errors(&walk.found.borrow()) {
            return;
        }
        for (name, (_, span)) in params.iter().filter(|(name, _)| !self.0.contains(name)) {
            let diagnostic = Diagnostic::note("unused-param", format!("parameter `{name}` is not used"))
                .hint(format!("write `${name}` in SQL, or remove it"));
            walk.report(diagnostic, span.clone());
        }
    }
}

/// Puts each step after those that it reads; otherwise they stay as written. Steps of a cycle come last.
fn in_order(walk: &Walk<'_>, steps: Vec<Resolved>) -> Vec<Resolved> {
    let names: Vec<String> = steps.iter().map(|s| s.draft.name.value.clone()).collect();
    let index = |name: &str| names.iter().position(|n| n == name);
    let needs: Vec<Vec<usize>> =
        steps.iter().map(|s| s.reads.iter().filter_map(|r| index(&r.name)).collect()).collect();
    let (mut order, mut placed) = (Vec::with_capacity(steps.len()), vec![false; steps.len()]);
    while let Some(next) = (0..steps.len()).find(|i| !placed[*i] && needs[*i].iter().all(|n| placed[*n])) {
        placed[next] = true;
        order.push(next);
    }
    report_cycles(walk, &steps, &needs, &placed);
    order.extend((0..steps.len()).filter(|i| !placed[*i]));
    let mut steps: Vec<Option<Resolved>> = steps.into_iter().map(Some).collect();
    order.into_iter().filter_map(|i| steps[i].take()).collect()
}

fn report_cycles(walk: &Walk<'_>, steps: &[Resolved], needs: &[Vec<usize>], placed: &[bool]) {
    let mut seen = placed.to_vec();
    for start in 0..steps.len() {
        // Each step that is not placed needs one that is not placed: following these ends in a cycle, or in one already told.
        let (mut path, mut at) = (Vec::new(), start);
        while !seen[at] {
            seen[at] = true;
            path.push(at);
            let Some(next) = needs[at].iter().copied().find(|n| !placed[*n]) else { break };
            at = next;
        }
        let Some(begin) = path.iter().position(|p| *p == at) else { continue };
        let cycle = &path[begin..];
        // Begin with the step that is written first.
        let first = cycle.iter().enumerate().min_by_key(|(_, step)| **step).map_or(0, |(i, _)| i);
        let cycle: Vec<usize> = cycle[first..].iter().chain(&cycle[..first]).copied().collect();
        let edges: Vec<(usize, usize)> =
            cycle.iter().zip(cycle.iter().cycle().skip(1)).map(|(a, b)| (*a, *b)).collect();
        let name = |i: usize| steps[i].draft.name.value.as_str();
        let read = |(a, b): (usize, usize)| steps[a].reads.iter().find(|r| r.name == name(b));
        let Some(diagnostic) = edges.first().and_then(|e| read(*e)).map(|r| r.diagnostic.clone()) else { continue };
        let ring: Vec<&str> = cycle.iter().chain(cycle.first()).map(|i| name(*i)).collect();
        let mut diagnostic = diagnostic;
        diagnostic.message = format!("steps read each other in a circle: `{}`", ring.join(" → "));
        let places: Vec<String> = edges
            .iter()
            .filter_map(|e| {
                let place = read(*e)?.diagnostic.place.as_ref()?;
                let (line, column) = place.line_column();
                Some(format!("`{}` reads `{}` at {}:{line}:{column}", name(e.0), name(e.1), place.file.display()))
            })
            .collect();
        let hint = if cycle.len() == 1 {
            "a step cannot read its own result".to_owned()
        } else {
            format!("take out one of these: {}", places.join(", "))
        };
        walk.found.borrow_mut().push(diagnostic.hint(hint));
    }
}
