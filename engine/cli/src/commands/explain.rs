//! `sparklet explain`: the plan of a step or a query, what is known of it, what was decided, and where it would be cut into stages,
//! without running it.

mod stages;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use sparklet_core::{Session, models};
use sparklet_history::{
    ChoiceRecord, Completeness, Evidence, HistoryError, NodeRecord, Observation, PlanRecord, RecallLimits, RunRecord,
    Scope, StateFolder, Subplan,
};
use sparklet_pipeline::preview;
use sparklet_report::human;

use self::stages::Stages;
use super::shared::{self, Subject};
use super::sql;
use crate::console::{Console, Look};
use crate::failure::{Failure, Result};
use crate::output::grid::{Cell, Grid};
use crate::output::{Form, Format};
use crate::settings::{EngineFlags, LookFlags, Settings};
use crate::world::World;
use crate::{past, runtime};

/// Observations asked for: enough to say how often a subplan was seen.
const SEEN: usize = 100;
/// Characters of a fingerprint that are shown.
const SHORT: usize = 8;

/// Show the plan of a step or a query with what history knows of it, what was decided, and where it is cut into stages; nothing runs
#[derive(Debug, Args)]
#[command(override_usage = "sparklet explain [OPTIONS] <PIPELINE> <STEP>\n       sparklet explain [OPTIONS] -c <SQL>")]
pub struct Arguments {
    /// Folder of the pipeline, or its definition file
    #[arg(value_name = "PIPELINE", required_unless_present = "command", requires = "step")]
    pipeline: Option<PathBuf>,
    /// Step to explain
    #[arg(value_name = "STEP")]
    step: Option<String>,
    /// Explain this query over files
    #[arg(short = 'c', long = "command", value_name = "SQL", conflicts_with_all = ["pipeline", "step"])]
    command: Option<String>,
    /// Plan it as it was planned in this run, from what was remembered then
    #[arg(long, value_name = "RUN", requires = "step")]
    run: Option<String>,
    /// Value of a parameter
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Format of the output; JSON has whole fingerprints and canonical texts
    #[arg(long, value_enum, default_value_t)]
    format: Form,
    #[command(flatten)]
    settings: EngineFlags,
}

/// Explains.
pub fn run(arguments: &Arguments, look: &LookFlags, world: &World, console: &mut Console) -> Result {
    let mut past_plan = None;
    let (query, settings) = match (&arguments.pipeline, &arguments.step, &arguments.command) {
        (Some(path), Some(step), _) => {
            let subject = Subject::load(path, &arguments.params, &arguments.settings, look, world, console)?;
            let mut config = subject.session_config();
            if let Some(run) = &arguments.run {
                let record = past::open(&subject.settings, console)?.run(run)?;
                let limits = RecallLimits { before: Some(record.started_at), ..RecallLimits::default() };
                let history = past::history(&subject.settings);
                let named = record.steps.iter().find(|of| of.name == *step).and_then(|of| of.choice.as_deref());
                if let Some(choice) = named.filter(|choice| !choice.model.is_empty()) {
                    match models::by_version(&history, &record.environment, &choice.model) {
                        Some(model) => config.model = Some(model),
                        None => console.note(&format!(
                            "cost model {} of that run is not kept any more: the one that serves predicts",
                            choice.model
                        )),
                    }
                }
                let folder = StateFolder::new(history, record.environment.as_str());
                config.past = Some(Arc::new(folder.within(limits)));
                // Orders of today are no part of a run of then.
                config.controls.clear();
                past_plan = Some(record);
            }
            let query = subject.plan_in(config, async |session, values| {
                preview::step(&subject.pipeline, session, values, step).await.map_err(shared::rejected)
            })?;
            (query, subject.settings)
        }
        (_, _, Some(text)) => {
            let (_, settings) = shared::settle(None, &arguments.settings, look, world, console)?;
            let params = shared::params(&arguments.params)?;
            let query = runtime::block_on(&settings, async {
                let session = Session::new(sql::with_places(settings.session()))?;
                sql::plan(&session, text, &params, world).await
            })??;
            (query, settings)
        }
        _ => {
            let nothing = Failure::usage("nothing to explain");
            return Err(nothing.with_hint("give a pipeline and a step, or a query with `-c`"));
        }
    };
    let observed = query.observe_with_texts();
    let seen = evidence(&observed.plan, query.session(), &settings, console);
    let stages = match query.keeps_plan() {
        true => Stages::none_for_good(query.session().adaptive()),
        false => Stages::new(query.boundaries(), &observed.plan, query.session().adaptive(), query.session().slots())
            .with_left_out(&query.adaptations())
            .with_whole(&query.uncut()),
    };
    let choice = query.choice();
    let rebuilt = match (&past_plan, &arguments.step) {
        (Some(record), Some(step)) => Some(Rebuilt::of(record, step, &choice, &observed.plan)?),
        _ => None,
    };
    let look = console.out_look();
    match arguments.format {
        Form::Json => {
            let nodes = observed.plan.nodes.iter().zip(&seen).map(|(node, seen)| {
                json!({
                    "parent": node.parent,
                    "operator": node.operator,
                    "detail": node.detail,
                    "estimated_rows": node.estimated_rows,
                    "fingerprint": node.fingerprint,
                    "template": node.template,
                    "canonical": node.fingerprint.and_then(|f| observed.texts.get(&f)),
                    "seen": seen,
                })
            });
            let value = json!({
                "decisions": query.decisions(),
                "choice": choice,
                "rebuilt": rebuilt,
                "adaptive": stages,
                "planning_us": query.planning_time().as_micros() as u64,
                "nodes": nodes.collect::<Vec<Value>>(),
            });
            console.json(&value)?;
        }
        Form::Text => {
            if let Some(rebuilt) = &rebuilt {
                writeln!(console.out(), "{}", rebuilt.text())?;
            }
            writeln!(console.out(), "{}", sparklet_report::choice::headline(&choice))?;
            for line in sparklet_report::choice::details(&choice) {
                writeln!(console.out(), "  {line}")?;
            }
            write!(console.out(), "{}", stages.text())?;
            let took = human::duration(query.planning_time().as_micros() as u64, look.unicode);
            writeln!(console.out(), "planned in {took}\n")?;
            grid(&observed.plan, &seen, look).write(console.out(), Format::Table, look)?;
        }
    }
    Ok(())
}

/// A plan of the past, made again.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
struct Rebuilt {
    run: String,
    /// It is the plan that ran.
    identical: bool,
    /// What differs, if anything.
    differs: Option<String>,
}

impl Rebuilt {
    fn of(record: &RunRecord, step: &str, choice: &ChoiceRecord, plan: &PlanRecord) -> Result<Self> {
        let of_step = record.steps.iter().find(|s| s.name == step);
        let Some((step, ran)) = of_step.and_then(|s| Some((s, s.plan.as_ref()?))) else {
            let failure = Failure::usage(format!("step `{step}` was not planned in run `{}`", record.id));
            return Err(failure.with_hint("see `sparklet report RUN` for its steps"));
        };
        let was = step.choice.as_ref().and_then(|choice| choice.chosen.key);
        // A record without a name of its plan, or one that changed in mid-run, is compared operator by operator.
        let same = match (was, choice.chosen.key) {
            (Some(was), Some(now)) => was == now,
            _ => {
                let shape = |plan: &PlanRecord| -> Vec<_> {
                    plan.nodes.iter().map(|n| (n.parent, n.operator.clone(), n.fingerprint)).collect()
                };
                shape(ran) == shape(plan)
            }
        };
        let differs = (!same).then(|| {
            let changed = plan.nodes.iter().zip(&ran.nodes).find(|(a, b)| a.operator != b.operator || a.template != b.template);
            match changed {
                Some((now, then)) => format!(
                    "the first operator that differs is {} then and {} now; sources, settings or the engine have changed since",
                    then.operator, now.operator
                ),
                None => "sources, settings or the engine have changed since".to_owned(),
            }
        });
        Ok(Self { run: record.id.to_string(), identical: same, differs })
    }

    fn text(&self) -> String {
        match &self.differs {
            None => format!("the plan of run {}, made again: identical", self.run),
            Some(differs) => format!("the plan of run {} cannot be made again: {differs}", self.run),
        }
    }
}

/// What history knows of one operator.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
struct Seen {
    /// Runs among the last [`SEEN`] observations; several operators of one run may stand for one subplan.
    times: usize,
    /// Rows of the last complete observation.
    rows: Option<u64>,
    /// Micro-seconds in the operator then.
    elapsed_us: Option<u64>,
    /// The run.
    run: Option<String>,
}

impl Seen {
    fn of(observations: &[Observation]) -> Option<Self> {
        let last = observations.iter().find(|o| o.completeness == Completeness::Complete);
        let runs: BTreeSet<_> = observations.iter().map(|o| &o.run).collect();
        (!runs.is_empty()).then(|| Self {
            times: runs.len(),
            rows: last.map(|o| o.rows),
            elapsed_us: last.map(|o| o.elapsed_us),
            run: last.map(|o| o.run.to_string()),
        })
    }
}

/// Evidence for each node; where the history cannot be read it is said and there is none.
fn evidence(plan: &PlanRecord, session: &Session, settings: &Settings, console: &mut Console) -> Vec<Option<Seen>> {
    let nothing = vec![None; plan.nodes.len()];
    if !past::exists(settings) {
        return nothing;
    }
    let seen = past::with_history(Some(session), settings, |history| {
        let store = history.open()?;
        let scope = Scope { pipeline: session.pipeline(), environment: &settings.environment };
        let look_up = |node: &NodeRecord| {
            let subplan = Subplan { fingerprint: node.fingerprint?, template: node.template };
            Seen::of(&store.by_fingerprint(scope, &subplan, SEEN))
        };
        Ok::<_, HistoryError>(plan.nodes.iter().map(look_up).collect())
    });
    seen.unwrap_or_else(|error| {
        console.note(&format!("history is left out: {error}"));
        nothing
    })
}

fn grid(plan: &PlanRecord, seen: &[Option<Seen>], look: Look) -> Grid {
    let mut grid = Grid::new(&[
        ("estimated", true),
        ("last seen", true),
        ("times", true),
        ("fingerprint", false),
        ("plan", false),
    ]);
    for (at, (node, seen)) in plan.nodes.iter().zip(seen).enumerate() {
        let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), human::count);
        let fingerprint = node.fingerprint.map(|f| f.to_string().chars().take(SHORT).collect::<String>());
        grid.push(vec![
            Cell::text(number(node.estimated_rows)),
            Cell::text(number(seen.as_ref().and_then(|s| s.rows))),
            Cell::text(seen.as_ref().map_or_else(|| "-".to_owned(), |s| s.times.to_string())),
            Cell::text(fingerprint.unwrap_or_else(|| "-".to_owned())),
            Cell::text(format!("{}{} {}", branches(plan, at, look.unicode), node.operator, node.detail).trim_end()),
        ]);
    }
    grid
}

/// Lines of the tree in front of node `at`.
fn branches(plan: &PlanRecord, at: usize, unicode: bool) -> String {
    let (tee, corner, bar, blank) =
        if unicode { ("├─ ", "└─ ", "│  ", "   ") } else { ("|- ", "`- ", "|  ", "   ") };
    let parent = |node: usize| plan.nodes.get(node).and_then(|n| n.parent).map(|p| p as usize).filter(|p| *p < node);
    // The last child of a parent is the last node that names it.
    let is_last = |node: usize| {
        let own = parent(node);
        !(node + 1..plan.nodes.len()).any(|later| parent(later) == own)
    };
    let mut parts = Vec::new();
    let mut node = at;
    while let Some(above) = parent(node) {
        parts.push(match (node == at, is_last(node)) {
            (true, true) => corner,
            (true, false) => tee,
            (false, true) => blank,
            (false, false) => bar,
        });
        node = above;
    }
    parts.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(parents: &[Option<u32>]) -> PlanRecord {
        let node = |(i, parent): (usize, &Option<u32>)| NodeRecord {
            parent: *parent,
            operator: format!("Op{i}"),
            detail: String::new(),
            fingerprint: None,
            template: None,
            completeness: Completeness::Truncated,
            estimated_rows: Some(1000 * i as u64),
            rows: None,
            bytes: None,
            elapsed_us: 0,
            spill_count: 0,
            spilled_bytes: 0,
            peak_memory_bytes: None,
            partitions: Vec::new(),
            metrics: Default::default(),
            shape: None,
        };
        PlanRecord { nodes: parents.iter().enumerate().map(node).collect() }
    }

    #[test]
    fn trees() {
        let plan = plan(&[None, Some(0), Some(1), Some(0), Some(3)]);
        let lines: Vec<String> = (0..5).map(|at| format!("{}{at}", branches(&plan, at, true))).collect();
        assert_eq!(lines, ["0", "├─ 1", "│  └─ 2", "└─ 3", "   └─ 4"]);
        assert!((0..5).all(|at| branches(&plan, at, false).is_ascii()));
        let mut out = Vec::new();
        let seen =
            vec![None, None, Some(Seen { times: 3, rows: Some(1234), elapsed_us: Some(5), run: None }), None, None];
        grid(&plan, &seen, Look::plain(80)).write(&mut out, Format::Table, Look::plain(80)).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
            estimated │ last seen │ times │ fingerprint │ plan
            ──────────┼───────────┼───────┼─────────────┼──────────
                    0 │         - │     - │ -           │ Op0
                1,000 │         - │     - │ -           │ ├─ Op1
                2,000 │     1,234 │     3 │ -           │ │  └─ Op2
                3,000 │         - │     - │ -           │ └─ Op3
                4,000 │         - │     - │ -           │    └─ Op4
        "#);
    }
}
