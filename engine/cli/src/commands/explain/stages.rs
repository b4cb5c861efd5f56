//! Where a run would cut a plan into stages, and why there; or why nowhere.

use serde::Serialize;
use sparklet_core::{AdaptiveMode, AdaptiveSettings};
use sparklet_history::{Adaptation, AdaptationKind, NodeRecord, PlanRecord, Whole};
use sparklet_report::Adapted;
use sparklet_report::human::{count, plural};

/// Why there are joins and no boundary, where size is no reason.
const NOWHERE: &str =
    "its joins lie where nothing is cut: below a limit, in a recursion, in a scalar subquery, or in a NOT IN";

/// The boundaries of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Stages {
    /// The setting `adaptive`.
    mode: &'static str,
    /// The setting `adaptive_min_rows`.
    min_rows: u64,
    /// A line for each join whose inputs run first, and for each part that is computed once for several readers.
    boundaries: Vec<String>,
    /// Why there, or why nowhere.
    why: String,
    /// A line for each operator that is not cut for what an earlier run has found of its keys.
    left_out: Vec<String>,
    /// A line for each aggregate or window whose groups or partitions stay whole even if they are hot.
    whole: Vec<String>,
    /// True if a run that does not fit in memory is run again with more of them.
    again_if_out_of_memory: bool,
}

impl Stages {
    /// Of `plan`, which a run on so many `slots` would cut at `boundaries`.
    pub(super) fn new(boundaries: Vec<String>, plan: &PlanRecord, settings: &AdaptiveSettings, slots: usize) -> Self {
        let why = if boundaries.is_empty() { why_none(plan, settings, slots) } else { why_there(settings) };
        let may = settings.mode == AdaptiveMode::On && settings.memory && boundaries.is_empty();
        Self {
            mode: settings.mode.name(),
            min_rows: settings.min_rows,
            again_if_out_of_memory: may && why != NOWHERE && joins(plan).next().is_some(),
            why,
            boundaries,
            left_out: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// The same with what is not cut according to `changes`, for what an earlier run has found.
    pub(super) fn with_left_out(self, changes: &[Adaptation]) -> Self {
        let left_out = changes.iter().filter(|change| matches!(change.kind, AdaptationKind::LeaveOut { .. }));
        let said = left_out.map(|change| Adapted::new(change, 1));
        let left_out: Vec<String> = said.map(|said| format!("{}; {}", said.what, said.because)).collect();
        let known = self.boundaries.is_empty() && !left_out.is_empty();
        let why = if known { "what they would look for is known".to_owned() } else { self.why };
        Self { left_out, why, ..self }
    }

    /// The same with what is never cut.
    pub(super) fn with_whole(self, whole: &[(String, Whole)]) -> Self {
        let line = |(what, why): &(String, Whole)| format!("{what}: {}", sparklet_report::adaptation::why_whole(why));
        Self { whole: whole.iter().map(line).collect(), ..self }
    }

    /// Of a plan that does not change while it runs.
    pub(super) fn none_for_good(settings: &AdaptiveSettings) -> Self {
        Self {
            mode: settings.mode.name(),
            min_rows: settings.min_rows,
            boundaries: Vec::new(),
            left_out: Vec::new(),
            whole: Vec::new(),
            why: "the step is `deterministic`, so it keeps its plan".to_owned(),
            again_if_out_of_memory: false,
        }
    }

    /// Lines for people.
    pub(super) fn text(&self) -> String {
        let whole = self
            .whole
            .iter()
            .map(|line| format!("  stays whole if it is hot: {}\n", sparklet_report::human::safe(line)));
        let left_out = self.left_out.iter().map(|line| format!("  {}\n", sparklet_report::human::safe(line)));
        format!("{}{}{}", self.text_of_stages(), left_out.collect::<String>(), whole.collect::<String>())
    }

    fn text_of_stages(&self) -> String {
        if self.boundaries.is_empty() {
            let again = if self.again_if_out_of_memory {
                "\n  if it runs out of memory, it is run again with the inputs of its joins as stages (`adaptive_memory`)"
            } else {
                ""
            };
            return format!("no stages: {}{again}\n", self.why);
        }
        let mut text =
            "stages: these parts run first and are measured; what is above is planned from what they were\n".to_owned();
        for boundary in &self.boundaries {
            text.push_str(&format!("  {}\n", sparklet_report::human::safe(boundary)));
        }
        text.push_str(&format!("  why: {}\n", self.why.replace("; or ", ";\n       or ")));
        text
    }
}

fn why_there(settings: &AdaptiveSettings) -> String {
    if settings.mode == AdaptiveMode::Force {
        return "`adaptive` is `force`: every join, group and window that can be cut, and every part that is there more than once"
            .to_owned();
    }
    let mut reasons = Vec::new();
    let changes = match (settings.split_skew, settings.broadcast) {
        (true, true) => Some("a hot key, or an input smaller than expected, would change how they are joined"),
        (true, false) => Some("a hot key would change how they are joined"),
        (false, true) => Some("an input smaller than expected would change how they are joined"),
        (false, false) => None,
    };
    reasons.extend(
        changes.map(|c| format!("{} rows or more of both inputs (`adaptive_min_rows`): {c}", count(settings.min_rows))),
    );
    let grouped = match (settings.split_groups, settings.split_windows) {
        (true, true) => Some("an aggregate with DISTINCT, or a window"),
        (true, false) => Some("an aggregate with DISTINCT"),
        (false, true) => Some("a window"),
        (false, false) => None,
    };
    reasons.extend(grouped.map(|what| format!("as many rows of {what}: hot groups would be cut")));
    if settings.memory {
        reasons.push("a build side that may not fit in the memory of a slot (`adaptive_memory`)".to_owned());
    }
    if settings.share {
        reasons.push("a part that is there more than once (`adaptive_share`)".to_owned());
    }
    format!("expected are {}", reasons.join("; or "))
}

/// Why a plan has no boundaries. It looks at what the search for them looks at: joins, how they run, and their expected inputs.
fn why_none(plan: &PlanRecord, settings: &AdaptiveSettings, slots: usize) -> String {
    if settings.mode == AdaptiveMode::Off {
        return "`adaptive` is `off`".to_owned();
    }
    if joins(plan).next().is_none() {
        return "the plan has no hash join, no aggregate with DISTINCT and no window large enough to look for hot groups, \
                and no part that is there more than once and large enough"
            .to_owned();
    }
    if settings.mode == AdaptiveMode::Force {
        return NOWHERE.to_owned();
    }
    if !settings.split_skew && !settings.broadcast && !settings.memory {
        return "`adaptive_split_skew`, `adaptive_broadcast` and `adaptive_memory` are `off`".to_owned();
    }
    if !settings.split_skew && !settings.broadcast {
        return "no build side is expected to be too large for memory, and `adaptive_split_skew` and `adaptive_broadcast` are `off`"
            .to_owned();
    }
    let partitioned: Vec<usize> =
        joins(plan).filter(|(_, node)| node.detail.contains("mode=Partitioned")).map(|(at, _)| at).collect();
    if partitioned.is_empty() {
        return "each of its joins is a broadcast: one input is expected to be small".to_owned();
    }
    let expected: Option<Vec<u64>> = partitioned.iter().map(|join| input_rows(plan, *join)).collect();
    let min = count(settings.min_rows);
    match expected.map(|rows| rows.into_iter().max().unwrap_or(0)) {
        Some(most) if most < settings.min_rows => {
            format!(
                "its largest join expects {} of both inputs, fewer than {min} (`adaptive_min_rows`)",
                plural(most, "row", "rows")
            )
        }
        _ if slots < settings.min_slots => format!(
            "on {} a hot key costs about what looking for it would (`adaptive_min_slots` is {})",
            plural(slots as u64, "slot", "slots"),
            settings.min_slots
        ),
        None => format!(
            "the sizes of its joins are not all known; those that are, and what the files say of the others, are below {min} rows \
             (`adaptive_min_rows`)"
        ),
        Some(_) => NOWHERE.to_owned(),
    }
}

fn joins(plan: &PlanRecord) -> impl Iterator<Item = (usize, &NodeRecord)> {
    plan.nodes.iter().enumerate().filter(|(_, node)| node.operator == "HashJoinExec")
}

/// Expected rows of all inputs of a node; none where one is not known.
fn input_rows(plan: &PlanRecord, node: usize) -> Option<u64> {
    let inputs = plan.nodes.iter().filter(|n| n.parent.is_some_and(|parent| parent as usize == node));
    inputs.map(|input| input.estimated_rows).try_fold(0_u64, |sum, rows| Some(sum.saturating_add(rows?)))
}

#[cfg(test)]
mod tests {
    use sparklet_history::Completeness;

    use super::*;

    fn plan(nodes: &[(Option<u32>, &str, &str, Option<u64>)]) -> PlanRecord {
        let node = |&(parent, operator, detail, estimated_rows): &(Option<u32>, &str, &str, Option<u64>)| NodeRecord {
            parent,
            operator: operator.to_owned(),
            detail: detail.to_owned(),
            fingerprint: None,
            template: None,
            completeness: Completeness::Truncated,
            estimated_rows,
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
        PlanRecord { nodes: nodes.iter().map(node).collect() }
    }

    fn join(mode: &str, rows: [Option<u64>; 2]) -> PlanRecord {
        plan(&[(None, "HashJoinExec", mode, None), (Some(0), "A", "", rows[0]), (Some(0), "B", "", rows[1])])
    }

    #[test]
    fn why() {
        let on = AdaptiveSettings { min_rows: 1_000, ..AdaptiveSettings::default() };
        let off = AdaptiveSettings { mode: AdaptiveMode::Off, ..on.clone() };
        let force = AdaptiveSettings { mode: AdaptiveMode::Force, ..on.clone() };
        let no_rule = AdaptiveSettings { split_skew: false, broadcast: false, memory: false, ..on.clone() };
        let memory_only = AdaptiveSettings { split_skew: false, broadcast: false, ..on.clone() };
        let skew_only = AdaptiveSettings { broadcast: false, memory: false, share: false, ..on.clone() };
        let small = join("mode=Partitioned, join_type=Inner", [Some(400), Some(99)]);
        let large = join("mode=Partitioned, join_type=Inner", [Some(400_000), Some(99)]);
        let unknown = join("mode=Partitioned, join_type=Inner", [Some(400), None]);
        let broadcast = join("mode=CollectLeft, join_type=Inner", [Some(4), Some(99_000)]);
        let none = plan(&[(None, "SortExec", "", None)]);
        let found = vec!["Inner join on a.k = b.k: 400099 rows expected on both sides together".to_owned()];
        let said: Vec<String> = [
            (&[][..], &small, &on),
            (&[], &large, &on),
            (&[], &unknown, &on),
            (&[], &broadcast, &on),
            (&[], &none, &on),
            (&[], &none, &force),
            (&[], &large, &force),
            (&[], &large, &off),
            (&[], &large, &no_rule),
            (&[], &large, &memory_only),
            (&found, &large, &on),
            (&found, &large, &skew_only),
            (&found, &large, &force),
        ]
        .into_iter()
        .map(|(found, plan, settings)| Stages::new(found.to_vec(), plan, settings, 4).text())
        .chain([Stages::new(Vec::new(), &large, &on, 2).text()])
        .collect();
        insta::assert_snapshot!(said.concat(), @"
            no stages: its largest join expects 499 rows of both inputs, fewer than 1,000 (`adaptive_min_rows`)
              if it runs out of memory, it is run again with the inputs of its joins as stages (`adaptive_memory`)
            no stages: its joins lie where nothing is cut: below a limit, in a recursion, in a scalar subquery, or in a NOT IN
            no stages: the sizes of its joins are not all known; those that are, and what the files say of the others, are below 1,000 rows (`adaptive_min_rows`)
              if it runs out of memory, it is run again with the inputs of its joins as stages (`adaptive_memory`)
            no stages: each of its joins is a broadcast: one input is expected to be small
              if it runs out of memory, it is run again with the inputs of its joins as stages (`adaptive_memory`)
            no stages: the plan has no hash join, no aggregate with DISTINCT and no window large enough to look for hot groups, and no part that is there more than once and large enough
            no stages: the plan has no hash join, no aggregate with DISTINCT and no window large enough to look for hot groups, and no part that is there more than once and large enough
            no stages: its joins lie where nothing is cut: below a limit, in a recursion, in a scalar subquery, or in a NOT IN
            no stages: `adaptive` is `off`
            no stages: `adaptive_split_skew`, `adaptive_broadcast` and `adaptive_memory` are `off`
            no stages: no build side is expected to be too large for memory, and `adaptive_split_skew` and `adaptive_broadcast` are `off`
              if it runs out of memory, it is run again with the inputs of its joins as stages (`adaptive_memory`)
            stages: these parts run first and are measured; what is above is planned from what they were
              Inner join on a.k = b.k: 400099 rows expected on both sides together
              why: expected are 1,000 rows or more of both inputs (`adaptive_min_rows`): a hot key, or an input smaller than expected, would change how they are joined;
                   or as many rows of an aggregate with DISTINCT, or a window: hot groups would be cut;
                   or a build side that may not fit in the memory of a slot (`adaptive_memory`);
                   or a part that is there more than once (`adaptive_share`)
            stages: these parts run first and are measured; what is above is planned from what they were
              Inner join on a.k = b.k: 400099 rows expected on both sides together
              why: expected are 1,000 rows or more of both inputs (`adaptive_min_rows`): a hot key would change how they are joined;
                   or as many rows of an aggregate with DISTINCT, or a window: hot groups would be cut
            stages: these parts run first and are measured; what is above is planned from what they were
              Inner join on a.k = b.k: 400099 rows expected on both sides together
              why: `adaptive` is `force`: every join, group and window that can be cut, and every part that is there more than once
            no stages: on 2 slots a hot key costs about what looking for it would (`adaptive_min_slots` is 4)
              if it runs out of memory, it is run again with the inputs of its joins as stages (`adaptive_memory`)
        ");
    }
}
