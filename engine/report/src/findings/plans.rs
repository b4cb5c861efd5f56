//! Rules over the plans of the steps: spill, skew, estimates, joins. Each tells of its worst case only.

use sparklet_history::{NodeRecord, PlanRecord};

use super::{Finding, FindingKind, Scene, Tone, at_node};
use crate::human::{bytes, count, factor, percent, plural, safe};
use crate::plan::{Shape, is_exchange_reader, is_join, is_leaf, is_shared_out, q_error};
use crate::thresholds::{
    JOIN_GROWTH, JOIN_GROWTH_MIN_ROWS, Q_ERROR, Q_ERROR_MIN_ROWS, Q_ERROR_STEP, SKEW, SKEW_MIN_ROWS, SKEW_MIN_SHARE,
    SPILL_MIN_BYTES,
};

/// A node in its place.
struct Spot<'a> {
    step: &'a str,
    plan: &'a PlanRecord,
    shape: &'a Shape,
    index: usize,
    node: &'a NodeRecord,
    /// Share of the run's time in this operator.
    share: f64,
}

impl Spot<'_> {
    fn place(&self) -> super::Place {
        at_node(self.step, self.index, &safe(&self.node.operator))
    }

    /// Operators above, nearest first. Ends for any record: parents must stand before their children.
    fn ancestors(&self) -> impl Iterator<Item = &NodeRecord> {
        let up = |index: &usize| {
            let parent = usize::try_from(self.plan.nodes.get(*index)?.parent?).ok()?;
            (parent < *index).then_some(parent)
        };
        std::iter::successors(up(&self.index), up).filter_map(|at| self.plan.nodes.get(at))
    }

    fn name(&self) -> String {
        format!("{} of step `{}`", safe(&self.node.operator), safe(self.step))
    }
}

pub(super) fn look(scene: &Scene<'_>, found: &mut Vec<Finding>) {
    let mut worst: [Option<Finding>; 3] = [const { None }; 3];
    for (number, step) in scene.record.steps.iter().enumerate() {
        let Some(plan) = &step.plan else { continue };
        let shape = Shape::of(plan);
        for (index, node) in plan.nodes.iter().enumerate() {
            let share = scene.time.node_share(number, index);
            let spot = Spot { step: &step.name, plan, shape: &shape, index, node, share };
            for (kept, new) in worst.iter_mut().zip([skew(&spot), estimate(&spot), growth(&spot)]) {
                let Some(new) = new else { continue };
                if kept.as_ref().is_none_or(|old| new.weight > old.weight) {
                    *kept = Some(new);
                }
            }
        }
    }
    found.extend(worst.into_iter().flatten());
    found.extend(spill(scene));
}

fn spill(scene: &Scene<'_>) -> Option<Finding> {
    let nodes = scene
        .record
        .steps
        .iter()
        .flat_map(|s| s.plan.iter().flat_map(move |p| p.nodes.iter().enumerate().map(move |n| (s, n))));
    let (mut total, mut files, mut worst) = (0_u64, 0_u64, None::<(u64, super::Place)>);
    for (step, (index, node)) in nodes {
        total = total.saturating_add(node.spilled_bytes);
        files = files.saturating_add(node.spill_count);
        if node.spilled_bytes > worst.as_ref().map_or(0, |w| w.0) {
            worst = Some((node.spilled_bytes, at_node(&step.name, index, &safe(&node.operator))));
        }
    }
    let (most, place) = worst.filter(|_| total >= SPILL_MIN_BYTES)?;
    let operator = place.name.as_deref().unwrap_or_default();
    Some(Finding {
        kind: FindingKind::Spill,
        tone: Tone::Warning,
        what: format!(
            "{} spilled to disk in {}, most of it ({}) by {operator}",
            bytes(total),
            plural(files, "file", "files"),
            bytes(most)
        ),
        next: format!(
            "raise `memory` (now {}), or lower `slots` (now {}) so that each task gets more of it",
            bytes(scene.record.memory_limit_bytes),
            scene.record.slots
        ),
        place,
        weight: 1.0 + (total as f64 / scene.record.memory_limit_bytes.max(1) as f64).min(1.0),
    })
}

fn skew(spot: &Spot<'_>) -> Option<Finding> {
    let (node, skew) = (spot.node, spot.node.skew());
    let largest = node.partitions.iter().map(|p| p.rows).max()?;
    if skew < SKEW
        || spot.share < SKEW_MIN_SHARE
        || largest < SKEW_MIN_ROWS
        || is_shared_out(spot.plan, spot.shape, spot.index)
    {
        return None;
    }
    let partitions = node.partitions.len() as u64;
    let leaf = is_leaf(spot.shape, spot.index) && !is_exchange_reader(node);
    let rest = node.partitions.iter().filter(|p| p.rows > 0).count();
    let (how, next) = if rest == 1 && leaf {
        (
            format!("one of {partitions} partitions has all {} rows", count(largest)),
            "write the source as several files, or with several row groups (a Parquet row group is read by one task)",
        )
    } else if leaf {
        (uneven(largest, partitions, skew), "write the source as files, or row groups, of even size")
    } else {
        (
            uneven(largest, partitions, skew),
            "look for a key with most of the rows (NULL, 0 or ''), and aggregate or filter it before",
        )
    };
    Some(Finding {
        kind: FindingKind::Skew,
        tone: Tone::Warning,
        what: format!("{} is skewed: {how}; it takes {} of the run", spot.name(), percent(spot.share)),
        place: spot.place(),
        next: next.to_owned(),
        weight: spot.share,
    })
}

fn uneven(largest: u64, partitions: u64, skew: f32) -> String {
    format!(
        "the largest of {partitions} partitions has {} rows, {} the median",
        count(largest),
        factor(f64::from(skew), true)
    )
}

fn estimate(spot: &Spot<'_>) -> Option<Finding> {
    let (estimated, rows) = (spot.node.estimated_rows?, spot.node.rows?);
    let q = q_error(spot.node)?;
    if q.value < Q_ERROR || estimated.max(rows) < Q_ERROR_MIN_ROWS {
        return None;
    }
    // A wrong estimate is passed on to everything above it: it is told where it came up.
    let children = spot.shape.children.get(spot.index).map(Vec::as_slice).unwrap_or_default();
    let below = children.iter().filter_map(|c| q_error(spot.plan.nodes.get(*c)?)).map(|q| q.value).fold(1.0, f64::max);
    if q.value < below * Q_ERROR_STEP {
        return None;
    }
    // An estimate decides where a join reads it: the join's sides, its algorithm, the order of joins. Elsewhere the plan hardly depends on
    // it, and an aggregate's is always a guess (DataFusion takes the rows of its input where it knows nothing of the groups).
    // What is above an exchange was planned anew from the rows that it holds.
    let read_by_join = spot.ancestors().take_while(|above| !is_exchange_reader(above)).any(is_join);
    if !read_by_join && !is_join(spot.node) {
        return None;
    }
    let at_least = if q.at_least { "at least " } else { "" };
    let next = if read_by_join {
        "a join above was planned by it: if the step is slow, make the input of that join a step with a Parquet output, whose footers \
         hold the true number of rows"
    } else {
        "no join above reads it, so this plan hardly depends on it; before you join this result, make it a step with a Parquet \
         output, whose footers hold the true number of rows"
    };
    Some(Finding {
        kind: FindingKind::Estimate,
        tone: if read_by_join { Tone::Warning } else { Tone::Note },
        what: format!(
            "{} gave {at_least}{} rows where {} were expected (q-error {at_least}{})",
            spot.name(),
            count(rows),
            count(estimated),
            factor(q.value, true)
        ),
        place: spot.place(),
        next: next.to_owned(),
        weight: spot.share + q.value.log10().min(6.0) / 20.0 + if read_by_join { 1.0 } else { 0.0 },
    })
}

fn growth(spot: &Spot<'_>) -> Option<Finding> {
    let rows = spot.node.rows.filter(|rows| is_join(spot.node) && *rows >= JOIN_GROWTH_MIN_ROWS)?;
    let largest = spot.shape.input_rows(spot.plan, spot.index).first().copied()?;
    let ratio = rows as f64 / largest.max(1) as f64;
    (ratio >= JOIN_GROWTH).then(|| Finding {
        kind: FindingKind::JoinGrowth,
        tone: Tone::Warning,
        what: format!("{} gave {} rows, {} its larger input", spot.name(), count(rows), factor(ratio, true)),
        place: spot.place(),
        next: "check that the join names all key columns, and that one side has no duplicates of the key".to_owned(),
        weight: 0.8 + spot.share,
    })
}
