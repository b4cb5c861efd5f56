//! What was changed in mid-run, in sentences and figures: why, what was expected of it, and what its tasks took.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;
use sparklet_history::{Adaptation, AdaptationKind, AdaptationReason, RunRecord, Whole, WindowSplit};

use crate::human::{bytes, clip, count, factor, plural, safe};
use crate::thresholds::ADAPTATION_GAIN;
use crate::timing::share;

/// Slots for which the time of the tasks is told besides the run's own: those of a small and of a large server.
pub const OTHER_SLOTS: [u32; 2] = [8, 32];

/// Sizes that a record lists, at most: of so many there may be more.
pub(crate) const SIZES_LISTED: usize = 64;

/// Columns of an operator's text in a sentence, at most.
const LONGEST_OPERATOR: usize = 120;

/// Columns of an error's text in a sentence, at most.
const LONGEST_MESSAGE: usize = 240;

/// The engine divides a join for the sake of time where that is expected to be a tenth shorter; what gains less was divided for memory.
const DIVISION_PAYS: f64 = 1.1;

/// What is derived from one [`Adaptation`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Adapted {
    /// What was changed, in one sentence.
    pub what: String,
    /// Why, in one sentence.
    pub because: String,
    /// Expected time before ÷ expected time after, on the run's slots; none where no time was expected.
    pub predicted_gain: Option<f64>,
    /// What its tasks took; none where it ran no tasks of its own, or none has ended.
    pub measured: Option<Measured>,
}

/// CPU time of the tasks of an adaptation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Tasks that have ended.
    pub tasks: u64,
    /// Thread CPU time of all of them, in micro-seconds.
    pub total_us: u64,
    /// Thread CPU time of the longest, in micro-seconds.
    pub longest_us: u64,
    /// On the run's slots first, then on [`OTHER_SLOTS`].
    pub spans: Vec<Span>,
}

/// How long the tasks take on a number of slots.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// Tasks at the same time.
    pub slots: u32,
    /// Until the last one ends, the longest first; see [`makespan`]. Micro-seconds of CPU time.
    pub makespan_us: u64,
    /// All of them ÷ slots: no order is faster. Micro-seconds of CPU time.
    pub ideal_us: u64,
    /// The first ÷ the second; none where nothing took time.
    pub ratio: Option<f64>,
}

impl Adapted {
    /// Of an adaptation in a run on so many `slots`.
    pub fn new(adaptation: &Adaptation, slots: u32) -> Self {
        Self {
            what: what(&adaptation.kind),
            because: because(adaptation),
            predicted_gain: predicted_gain(adaptation),
            measured: Measured::new(&adaptation.task_cpu_us, slots),
        }
    }
}

impl Measured {
    fn new(tasks: &[u64], slots: u32) -> Option<Self> {
        let longest_us = tasks.iter().copied().max()?;
        let total_us = tasks.iter().fold(0, |a: u64, b| a.saturating_add(*b));
        let slots = slots.max(1);
        let others = OTHER_SLOTS.into_iter().filter(|other| *other != slots);
        let span = |slots: u32| {
            let makespan_us = makespan(tasks, slots);
            let ideal = total_us as f64 / f64::from(slots);
            let ratio = (total_us > 0).then(|| makespan_us as f64 / ideal);
            Span { slots, makespan_us, ideal_us: ideal.round() as u64, ratio }
        };
        let spans = std::iter::once(slots).chain(others).map(span).collect();
        Some(Self { tasks: tasks.len() as u64, total_us, longest_us, spans })
    }
}

/// Time until the last of `tasks` ends when `slots` take them one by one, the longest first (Graham: "Bounds on multiprocessing timing
/// anomalies", 1969), in the unit of the tasks.
pub fn makespan(tasks: &[u64], slots: u32) -> u64 {
    let mut tasks = tasks.to_vec();
    tasks.sort_unstable_by_key(|task| Reverse(*task));
    // More slots than tasks stay empty.
    let slots = usize::try_from(slots).unwrap_or(usize::MAX).clamp(1, tasks.len().max(1));
    let mut busy: BinaryHeap<Reverse<u64>> = std::iter::repeat_n(Reverse(0), slots).collect();
    let mut last = 0;
    for task in tasks {
        let Reverse(free) = busy.pop().unwrap_or(Reverse(0));
        let ends = free.saturating_add(task);
        last = last.max(ends);
        busy.push(Reverse(ends));
    }
    last
}

/// Expected time before ÷ after; none where no time was expected.
pub(crate) fn predicted_gain(adaptation: &Adaptation) -> Option<f64> {
    let (before, after) = (adaptation.predicted_before, adaptation.predicted_after);
    (before > 0 && after > 0).then(|| before as f64 / after as f64)
}

/// True if it was worth it, as far as anybody expected; one that was only forced is not, unless it also helps.
pub(crate) fn matters(adaptation: &Adaptation) -> bool {
    // Slots come and go, the plan stays; so it does where nothing was cut.
    if matches!(adaptation.kind, AdaptationKind::ChangeSlots { .. } | AdaptationKind::LeaveOut { .. }) {
        return false;
    }
    adaptation.because != AdaptationReason::Forced || predicted_gain(adaptation).is_some_and(|g| g >= ADAPTATION_GAIN)
}

/// Changes of `record` that matter.
pub(crate) fn count_of(record: &RunRecord) -> u64 {
    record.steps.iter().flat_map(|s| &s.adaptations).filter(|a| matters(a)).count() as u64
}

/// ` on a.k = b.k`; nothing where no keys are known.
pub(crate) fn keys(on: &[String]) -> String {
    if on.is_empty() { String::new() } else { format!(" on {}", safe(&on.join(" and "))) }
}

/// The setting that turns an adaptation off, as written in a settings file.
pub(crate) fn switch(adaptation: &Adaptation) -> &'static str {
    match (&adaptation.kind, &adaptation.because) {
        (_, AdaptationReason::Forced) => "adaptive = \"off\"",
        (AdaptationKind::DivideJoin { .. }, _) if Division::of(adaptation) == Some(Division::Memory) => {
            "adaptive_memory = \"off\""
        }
        (AdaptationKind::DivideJoin { .. }, _) => "adaptive_split_skew = \"off\"",
        (AdaptationKind::Broadcast { .. } | AdaptationKind::Partition { .. }, _) => "adaptive_broadcast = \"off\"",
        (AdaptationKind::SkipEmpty { .. }, _) => "adaptive_skip_empty = \"off\"",
        (AdaptationKind::ShareSubplan { .. }, _) => "adaptive_share = \"off\"",
        (AdaptationKind::SplitGroups { .. }, _) => "adaptive_split_groups = \"off\"",
        (AdaptationKind::SplitWindow { .. } | AdaptationKind::LeftWhole { .. }, _) => {
            "adaptive_split_windows = \"off\""
        }
        (AdaptationKind::RunInStages, _) => "adaptive_memory = \"off\"",
        (AdaptationKind::ChangeSlots { .. }, _) => "adaptive_slots = \"off\"",
        (AdaptationKind::PushKeys { .. }, _) => "adaptive_push_keys = \"off\"",
        (AdaptationKind::ReorderJoins { .. }, _) => "adaptive_reorder = \"off\"",
        (AdaptationKind::BeginWithSplit { .. } | AdaptationKind::LeaveOut { .. }, _) => "adaptive_known_keys = \"off\"",
    }
}

/// The start of a text that may be long: an operator with all its expressions.
fn short(text: &str) -> String {
    clip(text, LONGEST_OPERATOR, true)
}

fn what(kind: &AdaptationKind) -> String {
    match kind {
        AdaptationKind::DivideJoin { on, units, split_buckets, swapped_units, oversized_units } => {
            let mut text = format!(
                "the join{} was divided into {} of {} own",
                keys(on),
                plural(u64::from(*units), "join", "joins"),
                if *units == 1 { "its" } else { "their" }
            );
            if *split_buckets > 0 {
                text.push_str(&format!(
                    ", {} cut into slices",
                    plural(u64::from(*split_buckets), "hot bucket", "hot buckets")
                ));
            }
            if *swapped_units > 0 {
                text.push_str(&format!(", {} with the other side built", count(u64::from(*swapped_units))));
            }
            if *oversized_units > 0 {
                let many = count(u64::from(*oversized_units));
                text.push_str(&format!(", {many} too large for a hash table: divided once more or sorted"));
            }
            text
        }
        AdaptationKind::Broadcast { on } => format!("the join{} became a broadcast of its smaller input", keys(on)),
        AdaptationKind::Partition { on } => {
            format!("the join{} became a partitioned one, instead of a broadcast of one input", keys(on))
        }
        AdaptationKind::SkipEmpty { on } => {
            format!("the join{} was not run, nor what was left to run beneath it", keys(on))
        }
        AdaptationKind::ShareSubplan { what, readers } => format!(
            "a part of the plan that stands in it {} was computed once: {}",
            plural(u64::from(*readers), "time", "times"),
            safe(&short(what))
        ),
        AdaptationKind::SplitGroups { by, distinct, hot_buckets, slices } => format!(
            "{} of the aggregate by {} {} cut into {} and computed in two phases, divided by {} first",
            plural(u64::from(*hot_buckets), "hot bucket", "hot buckets"),
            safe(&by.join(", ")),
            was(*hot_buckets),
            plural(u64::from(*slices), "slice", "slices"),
            safe(&short(&distinct.join("; ")))
        ),
        AdaptationKind::SplitWindow { by, functions, how, hot_buckets, slices } => format!(
            "{} of the window by {} {} cut into {}: {} {}",
            plural(u64::from(*hot_buckets), "hot bucket", "hot buckets"),
            safe(&by.join(", ")),
            was(*hot_buckets),
            plural(u64::from(*slices), "slice", "slices"),
            safe(&short(&functions.join(", "))),
            match how {
                WindowSplit::Prefix => "of a slice goes on from what the slices before it gave",
                WindowSplit::AggregateJoin => "was computed once for each partition and joined to its rows",
            }
        ),
        AdaptationKind::LeftWhole { what, why } => {
            format!("the hot partition of the {} was left whole: {}", safe(&short(what)), why_whole(why))
        }
        AdaptationKind::ChangeSlots { from, to } => format!(
            "{} of each operator may take tasks from here on, instead of {}",
            plural(u64::from(*to), "slot", "slots"),
            count(u64::from(*from))
        ),
        AdaptationKind::BeginWithSplit { what } => {
            format!("the inputs of the {} ran first, to be cut by a heavy key that was known", safe(&short(what)))
        }
        AdaptationKind::PushKeys { on, listed, expected_rows, rows } => {
            let filter = match listed {
                Some(listed) => format!("a list of {} of the other", plural(u64::from(*listed), "key", "keys")),
                None => "the range of the keys of the other".to_owned(),
            };
            let expected = expected_rows.map(|rows| format!(", of {} expected", count(rows))).unwrap_or_default();
            let rows = plural(*rows, "row", "rows");
            format!("one input of the join{} was read with {filter}: {rows}{expected}", keys(on))
        }
        AdaptationKind::LeaveOut { what } => {
            format!("the inputs of the {} did not run first: there is no heavy key to look for", safe(&short(what)))
        }
        AdaptationKind::ReorderJoins { orders } => {
            let orders: Vec<String> = orders.iter().map(|order| safe(&short(order))).collect();
            format!("the joins that were still to come ran in another order: {}", orders.join("; "))
        }
        AdaptationKind::RunInStages => "the query began again, the inputs of its joins as stages".to_owned(),
    }
}

/// Why hot groups or partitions stay whole.
pub fn why_whole(why: &Whole) -> String {
    match why {
        Whole::NoKey => "all rows are one group".to_owned(),
        Whole::Key { key } => format!("its key `{}` is no plain column of a simple type", safe(key)),
        Whole::Expression => "it has an expression that is no plain function of its rows".to_owned(),
        Whole::NotDecomposable { function } => {
            format!("`{}` cannot be put together from parts of a group that are smaller than its rows", safe(function))
        }
        Whole::Frame { function } => {
            format!("`{}` is over neither the whole partition nor all rows up to the current one", safe(function))
        }
        Whole::Ties { function } => {
            format!("`{}` tells rows of equal rank apart, and those may differ in other columns", safe(function))
        }
        Whole::Mixed => "functions over the whole partition stand beside running ones".to_owned(),
        Whole::NoOrder { function } => {
            format!("`{}` has no single ORDER BY by which slices could follow one another", safe(function))
        }
    }
}

fn was(many: u32) -> &'static str {
    if many == 1 { "was" } else { "were" }
}

/// Why a join was divided. A record names the sizes of buckets; that is the whole reason only where one of them was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Division {
    /// A bucket is much larger than others.
    Hot,
    /// The work is less with the other side built.
    OtherSide,
    /// Expected to take about as long as before: only memory asks for it.
    Memory,
}

impl Division {
    fn of(adaptation: &Adaptation) -> Option<Self> {
        let AdaptationKind::DivideJoin { split_buckets, swapped_units, .. } = &adaptation.kind else { return None };
        if matches!(adaptation.because, AdaptationReason::BuildSideLarge { .. }) {
            return Some(Self::Memory);
        }
        let pays = predicted_gain(adaptation).is_none_or(|gain| gain >= DIVISION_PAYS);
        Some(match (pays, *split_buckets, *swapped_units) {
            (false, ..) => Self::Memory,
            (true, 0, 1..) => Self::OtherSide,
            _ => Self::Hot,
        })
    }
}

fn because(adaptation: &Adaptation) -> String {
    match &adaptation.because {
        AdaptationReason::HotBuckets { largest_rows, median_rows } => {
            let first = match Division::of(adaptation) {
                Some(Division::Memory) => "a build side might not have fit in the memory of a slot; ",
                Some(Division::OtherSide) => "the other side turned out to be cheaper to build; ",
                Some(Division::Hot) | None => "",
            };
            let times = if *median_rows == 0 {
                String::new()
            } else {
                format!(" ({})", factor(*largest_rows as f64 / *median_rows as f64, true))
            };
            if matches!(adaptation.kind, AdaptationKind::LeftWhole { .. }) {
                let (largest, median) = (plural(*largest_rows, "row", "rows"), count(*median_rows));
                return format!("the largest task had {largest}, the median one {median}");
            }
            let sides =
                if matches!(adaptation.kind, AdaptationKind::DivideJoin { .. }) { " of both sides" } else { "" };
            format!(
                "{first}the largest bucket has {}{sides}, the median one {}{times}",
                plural(*largest_rows, "row", "rows"),
                count(*median_rows)
            )
        }
        AdaptationReason::BuildSideLarge { bytes: size, limit } => {
            format!("the largest hash table would take {} of memory, a slot may have {}", bytes(*size), bytes(*limit))
        }
        AdaptationReason::BuildSideSmall { rows, bytes: size, expected_rows } => {
            let found = match (rows, size) {
                // Nothing of its own was measured: the sizes of what lies below decided.
                (0, 0) => "what runs before it turned out smaller than expected".to_owned(),
                (rows, size) => {
                    format!("one input has {} in {}", plural(*rows, "row", "rows"), bytes(*size))
                }
            };
            let expected = expected_rows
                .map(|rows| format!("; {} were expected of both together", plural(rows, "row", "rows")))
                .unwrap_or_default();
            format!("{found}{expected}")
        }
        AdaptationReason::Repeated { rows, bytes: size } => {
            format!("its {} in {} are kept for all who read them", plural(*rows, "row", "rows"), bytes(*size))
        }
        AdaptationReason::InputEmpty => "one of its inputs has no rows".to_owned(),
        AdaptationReason::MemoryExhausted { message } => {
            let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
            format!(
                "the attempt without stages did not fit in memory: {}",
                clip(&safe(&message), LONGEST_MESSAGE, true)
            )
        }
        AdaptationReason::Forced => "`adaptive = \"force\"`".to_owned(),
        AdaptationReason::PoolUse { used, limit } => {
            format!("{} of the memory pool's {} were in use", bytes(*used), bytes(*limit))
        }
        AdaptationReason::OtherQueries { queries: 0 } => "no other query of the process had tasks any more".to_owned(),
        AdaptationReason::OtherQueries { queries } => format!(
            "{} of the process had tasks at the same time",
            plural(u64::from(*queries), "other query", "other queries")
        ),
        AdaptationReason::KnownKey { run, columns, percent } => format!(
            "known from run {run}: one key had {percent} % of the rows by {}",
            safe(&short(&columns.join(", ")))
        ),
        AdaptationReason::NoKnownKey { run } => format!("known from run {run}, which kept them and found no heavy key"),
        AdaptationReason::RowsDiffer { rows, expected_rows } => {
            let rows = plural(*rows, "row", "rows");
            let expected = expected_rows.map(|rows| format!(", {} were expected", count(rows))).unwrap_or_default();
            format!("a finished part of the plan has {rows}{expected}")
        }
        AdaptationReason::InputFinished { rows, distinct } => format!(
            "the other input was finished, with {} and about {}",
            plural(*rows, "row", "rows"),
            plural(*distinct, "key", "keys")
        ),
        AdaptationReason::Cores { cores } => {
            format!("the process might use {}", plural(u64::from(*cores), "core", "cores"))
        }
    }
}

/// Share of the CPU time of a step that went into exchanges, 0 to 1.
pub(crate) fn cost_share(adaptation: &Adaptation, step_cpu_us: u64) -> f64 {
    share(adaptation.cost_us, step_cpu_us).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::divided;

    proptest! {
        #[test]
        fn makespan_is_within_the_bounds_of_graham(tasks in proptest::collection::vec(0_u64..1000, 0..60), slots in 1_u32..12) {
            let total: u64 = tasks.iter().sum();
            let longest = tasks.iter().copied().max().unwrap_or(0);
            let span = makespan(&tasks, slots);
            prop_assert!(span >= longest.max(total.div_ceil(u64::from(slots))));
            prop_assert!(span <= total / u64::from(slots) + longest);
        }
    }

    #[test]
    fn any_number_of_slots_is_answered() {
        assert_eq!(makespan(&[], 4), 0);
        assert_eq!(makespan(&[3, 5], u32::MAX), 5);
        assert_eq!(makespan(&[3, 5], 0), 8);
        assert_eq!(makespan(&[u64::MAX, u64::MAX], 1), u64::MAX);
    }

    #[test]
    fn the_run_and_two_other_numbers_of_slots() {
        let measured = |slots| Measured::new(&[60, 20, 20, 20], slots).map(|m| m.spans).unwrap_or_default();
        let spans: Vec<_> = measured(2).iter().map(|s| (s.slots, s.makespan_us, s.ideal_us, s.ratio)).collect();
        assert_eq!(spans, [(2, 60, 60, Some(1.0)), (8, 60, 15, Some(4.0)), (32, 60, 4, Some(16.0))]);
        assert_eq!(measured(8).len(), 2, "once is enough");
        assert_eq!(Measured::new(&[], 2), None);
        assert_eq!(Measured::new(&[0, 0], 2).map(|m| m.spans[0].ratio), Some(None), "no time, no ratio");
    }

    #[test]
    fn what_was_only_forced_does_not_matter() {
        let mut adaptation = divided();
        assert!(matters(&adaptation));
        adaptation.because = AdaptationReason::Forced;
        assert!(matters(&adaptation), "forced, and it helps");
        adaptation.predicted_after = adaptation.predicted_before;
        assert!(!matters(&adaptation));
        adaptation.predicted_after = 0;
        assert!(!matters(&adaptation) && predicted_gain(&adaptation).is_none());
    }

    #[test]
    fn sentences() {
        let on = vec!["a.k = b.k".to_owned(), "a.t = b.t".to_owned()];
        let kinds = [
            AdaptationKind::DivideJoin {
                on: on.clone(),
                units: 1,
                split_buckets: 0,
                swapped_units: 0,
                oversized_units: 0,
            },
            AdaptationKind::DivideJoin {
                on: on.clone(),
                units: 40,
                split_buckets: 2,
                swapped_units: 3,
                oversized_units: 1,
            },
            AdaptationKind::Broadcast { on: on.clone() },
            AdaptationKind::Partition { on: on.clone() },
            AdaptationKind::SkipEmpty { on: Vec::new() },
            AdaptationKind::ShareSubplan {
                what: "Aggregate: groupBy=[[a.k]], aggr=[[sum(a.v)]]".to_owned(),
                readers: 2,
            },
            AdaptationKind::RunInStages,
            AdaptationKind::ChangeSlots { from: 4, to: 1 },
            AdaptationKind::BeginWithSplit { what: "join on a.k = b.k".to_owned() },
            AdaptationKind::LeaveOut { what: "window by a.k".to_owned() },
            AdaptationKind::PushKeys { on: on.clone(), listed: None, expected_rows: Some(5_000), rows: 700 },
            AdaptationKind::PushKeys { on: on.clone(), listed: Some(1), expected_rows: None, rows: 1 },
            AdaptationKind::ReorderJoins { orders: vec!["(Exchange 0 JOIN c) JOIN b".to_owned()] },
            AdaptationKind::SplitGroups {
                by: vec!["a.k".to_owned(), "a.t".to_owned()],
                distinct: vec!["a.v".to_owned(), "a.w".to_owned()],
                hot_buckets: 1,
                slices: 8,
            },
            AdaptationKind::SplitWindow {
                by: vec!["a.k".to_owned()],
                functions: vec!["row_number".to_owned(), "sum".to_owned()],
                how: WindowSplit::Prefix,
                hot_buckets: 2,
                slices: 14,
            },
            AdaptationKind::SplitWindow {
                by: vec!["a.k".to_owned()],
                functions: vec!["sum".to_owned()],
                how: WindowSplit::AggregateJoin,
                hot_buckets: 1,
                slices: 14,
            },
        ];
        let run = crate::fixture::record().id;
        let reasons = [
            AdaptationReason::HotBuckets { largest_rows: 420_000, median_rows: 10_000 },
            AdaptationReason::HotBuckets { largest_rows: 420_000, median_rows: 0 },
            AdaptationReason::BuildSideLarge { bytes: 40 << 20, limit: 5 << 20 },
            AdaptationReason::BuildSideSmall { rows: 1, bytes: 2048, expected_rows: Some(5_000) },
            AdaptationReason::BuildSideSmall { rows: 0, bytes: 0, expected_rows: None },
            AdaptationReason::MemoryExhausted { message: "\nout of memory\nby much".to_owned() },
            AdaptationReason::Repeated { rows: 1_000, bytes: 20_480 },
            AdaptationReason::InputEmpty,
            AdaptationReason::Forced,
            AdaptationReason::PoolUse { used: 60 << 20, limit: 64 << 20 },
            AdaptationReason::OtherQueries { queries: 1 },
            AdaptationReason::OtherQueries { queries: 0 },
            AdaptationReason::Cores { cores: 2 },
            AdaptationReason::KnownKey { run: run.clone(), columns: vec!["a.k".to_owned()], percent: 40 },
            AdaptationReason::NoKnownKey { run },
            AdaptationReason::InputFinished { rows: 9_000, distinct: 1_200 },
            AdaptationReason::RowsDiffer { rows: 9_000, expected_rows: Some(120) },
        ];
        let of = |because: &AdaptationReason| Adaptation { because: because.clone(), ..divided() };
        let mut lines: Vec<String> = kinds.iter().map(what).chain(reasons.iter().map(|r| because(&of(r)))).collect();
        let mut even = of(&AdaptationReason::HotBuckets { largest_rows: 10_100, median_rows: 10_000 });
        if let AdaptationKind::DivideJoin { split_buckets, .. } = &mut even.kind {
            *split_buckets = 0;
        }
        lines.push(because(&even));
        even.predicted_after = even.predicted_before;
        lines.extend([because(&even), switch(&even).to_owned()]);
        insta::assert_snapshot!(lines.join("\n"), @r#"
        the join on a.k = b.k and a.t = b.t was divided into 1 join of its own
        the join on a.k = b.k and a.t = b.t was divided into 40 joins of their own, 2 hot buckets cut into slices, 3 with the other side built, 1 too large for a hash table: divided once more or sorted
        the join on a.k = b.k and a.t = b.t became a broadcast of its smaller input
        the join on a.k = b.k and a.t = b.t became a partitioned one, instead of a broadcast of one input
        the join was not run, nor what was left to run beneath it
        a part of the plan that stands in it 2 times was computed once: Aggregate: groupBy=[[a.k]], aggr=[[sum(a.v)]]
        the query began again, the inputs of its joins as stages
        1 slot of each operator may take tasks from here on, instead of 4
        the inputs of the join on a.k = b.k ran first, to be cut by a heavy key that was known
        the inputs of the window by a.k did not run first: there is no heavy key to look for
        one input of the join on a.k = b.k and a.t = b.t was read with the range of the keys of the other: 700 rows, of 5,000 expected
        one input of the join on a.k = b.k and a.t = b.t was read with a list of 1 key of the other: 1 row
        the joins that were still to come ran in another order: (Exchange 0 JOIN c) JOIN b
        1 hot bucket of the aggregate by a.k, a.t was cut into 8 slices and computed in two phases, divided by a.v; a.w first
        2 hot buckets of the window by a.k were cut into 14 slices: row_number, sum of a slice goes on from what the slices before it gave
        1 hot bucket of the window by a.k was cut into 14 slices: sum was computed once for each partition and joined to its rows
        the largest bucket has 420,000 rows of both sides, the median one 10,000 (42×)
        the largest bucket has 420,000 rows of both sides, the median one 0
        the largest hash table would take 40.0 MiB of memory, a slot may have 5.00 MiB
        one input has 1 row in 2.00 KiB; 5,000 rows were expected of both together
        what runs before it turned out smaller than expected
        the attempt without stages did not fit in memory: out of memory by much
        its 1,000 rows in 20.0 KiB are kept for all who read them
        one of its inputs has no rows
        `adaptive = "force"`
        60.0 MiB of the memory pool's 64.0 MiB were in use
        1 other query of the process had tasks at the same time
        no other query of the process had tasks any more
        the process might use 2 cores
        known from run a100000000: one key had 40 % of the rows by a.k
        known from run a100000000, which kept them and found no heavy key
        the other input was finished, with 9,000 rows and about 1,200 keys
        a finished part of the plan has 9,000 rows, 120 were expected
        the other side turned out to be cheaper to build; the largest bucket has 10,100 rows of both sides, the median one 10,000 (1.0×)
        a build side might not have fit in the memory of a slot; the largest bucket has 10,100 rows of both sides, the median one 10,000 (1.0×)
        adaptive_memory = "off"
        "#);
    }
}
