//! The report as JSON: a superset of the text, for programs.
//!
//! Field names are stable. Times are micro-seconds, sizes bytes, shares 0 to 1; what is not known is `null`.
//!
//! | field | what |
//! |---|---|
//! | `report_version` | [`REPORT_VERSION`] |
//! | `verdict` | one sentence |
//! | `findings[]` | `kind`, `tone` (`warning`, `note`, `good`), `what`, `place` (`step`, `node`, `name`), `next`, `weight`; most important first |
//! | `comparison` | `earlier_runs`, `runs[]` (this run first: `id`, `started_at`, `wall_us`, `cpu_us`, `rows`, `delta`, `changed[]`), `median_wall_us`, `spread_wall_us`, `median_rows`, `delta`, `beyond_noise`, `changed[]`, `changed_sources[]`, `steps[]` (`step`, `wall_us`, `median_wall_us`, `runs`, `delta`) |
//! | `time` | `total_us`, `lines[]` (`kind`, `step`, `node`, `operator`, `wall_us`, `share`, `elapsed_us`), largest first |
//! | `steps[]` | aligned with `run.steps`: `name`, `share` of the run, `nodes[]` aligned with the nodes of its plan, `adaptations[]` aligned with its `adaptations` |
//! | `steps[].choice` | how the plan was chosen, in words: `headline`, `details[]`, `history_unused` (why); the data is `run.steps[].choice` |
//! | `steps[].adaptations[]` | `what` and `because` in words, `predicted_gain` (expected time before ÷ after), `measured` (`tasks`, `total_us`, `longest_us`, `spans[]`: `slots`, `makespan_us`, `ideal_us`, `ratio`; thread CPU time) |
//! | `steps[].nodes[]` | `depth` in the tree, `step_share` and `run_share` of the time, attributed `wall_us`, `q_error`, `q_error_at_least`, `skew` |
//! | `run` | the record, whole, as the history keeps it |

use serde::Serialize;
use sparklet_history::{RunRecord, StepRecord};

use crate::Report;
use crate::adaptation::Adapted;
use crate::compare::Comparison;
use crate::findings::Finding;
use crate::plan::{Shape, q_error};
use crate::timing::{TimeSplit, share};

/// Version of the JSON form written by this build.
pub const REPORT_VERSION: u16 = 1;

#[derive(Serialize)]
struct Document<'a> {
    report_version: u16,
    verdict: String,
    findings: &'a [Finding],
    comparison: &'a Comparison,
    time: &'a TimeSplit,
    steps: Vec<Step<'a>>,
    run: &'a RunRecord,
}

#[derive(Serialize)]
struct Step<'a> {
    name: &'a str,
    share: f64,
    adaptations: Vec<Adapted>,
    choice: Option<ChoiceInWords>,
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct ChoiceInWords {
    headline: String,
    details: Vec<String>,
    history_unused: Option<String>,
}

#[derive(Serialize)]
struct Node {
    depth: usize,
    step_share: f64,
    run_share: f64,
    wall_us: u64,
    q_error: Option<f64>,
    q_error_at_least: bool,
    skew: f32,
}

pub(crate) fn render(report: &Report<'_>) -> Result<serde_json::Value, serde_json::Error> {
    let steps = report.record.steps.iter().enumerate().map(|(i, step)| derive(report, i, step)).collect();
    serde_json::to_value(Document {
        report_version: REPORT_VERSION,
        verdict: report.verdict(),
        findings: &report.findings,
        comparison: &report.comparison,
        time: &report.time,
        steps,
        run: report.record,
    })
}

fn derive<'a>(report: &Report<'_>, number: usize, step: &'a StepRecord) -> Step<'a> {
    let mut nodes = Vec::new();
    if let Some(plan) = &step.plan {
        let shape = Shape::of(plan);
        let mut depths = vec![0_usize; plan.nodes.len()];
        // Parents stand before their children, so one pass is enough.
        for (index, children) in shape.children.iter().enumerate() {
            let depth = depths.get(index).map_or(0, |d| d + 1);
            for child in children {
                if let Some(slot) = depths.get_mut(*child) {
                    *slot = depth;
                }
            }
        }
        let elapsed = plan.nodes.iter().fold(0, |a: u64, n| a.saturating_add(n.elapsed_us));
        for (index, (node, depth)) in plan.nodes.iter().zip(depths).enumerate() {
            let q = q_error(node);
            nodes.push(Node {
                depth,
                step_share: share(node.elapsed_us, elapsed),
                run_share: report.time.node_share(number, index),
                wall_us: report.time.node_us(number, index),
                q_error: q.map(|q| q.value),
                q_error_at_least: q.is_some_and(|q| q.at_least),
                skew: node.skew(),
            });
        }
    }
    let slots = report.record.slots;
    let adaptations = step.adaptations.iter().map(|a| Adapted::new(a, slots)).collect();
    let choice = step.choice.as_deref().map(|choice| ChoiceInWords {
        headline: crate::choice::headline(choice),
        details: crate::choice::details(choice),
        history_unused: choice.unused.as_ref().map(crate::choice::unused),
    });
    Step { name: &step.name, choice, share: share(step.wall_us, report.time.total_us), adaptations, nodes }
}
