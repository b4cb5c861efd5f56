//! Where a plan is cut: joins whose inputs are worth knowing before the rest is planned.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::statistics::StatisticsContext;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs};
use sparklet_history::RunId;
use sparklet_optimizer::{SourceNames, fingerprint_logical, fingerprint_physical};

use super::known::{self, Heavy, KnownKeys, Lesson, SourceKey};
use super::{AdaptiveMode, AdaptiveSettings, groups, windows};
use crate::exchange::Size;
use crate::observe::scanned_bytes;

/// An operator of the logical plan whose inputs become stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) operator: Operator,
    /// From the root, the number of the input to go to.
    pub(crate) path: Vec<usize>,
    /// Rows that DataFusion expects of all inputs together, where it says.
    pub(crate) expected_rows: Option<u64>,
    /// The operator and the heavy key for whose sake alone it is cut.
    pub(crate) known: Option<(String, Heavy)>,
    /// A join that is planned as a broadcast: its build side may have more rows than are expected, and is measured first.
    pub(crate) broadcasts: bool,
}

/// Where to cut, and where not for what is known.
#[derive(Debug, Default)]
pub(crate) struct Cutting {
    /// Inner joins first.
    pub(crate) boundaries: Vec<Boundary>,
    /// Operators that would be cut if it was not known from a run that no key is heavy.
    pub(crate) left_out: Vec<(String, RunId)>,
}

/// What a search for boundaries goes by.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) settings: &'a AdaptiveSettings,
    pub(crate) build_bytes_limit: u64,
    pub(crate) reach: Reach,
    pub(crate) slots: usize,
    pub(crate) known: &'a KnownKeys,
}

/// What a boundary is below of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Join,
    Aggregate,
    Window,
}

/// Which joins are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those that are worth it.
    Worthwhile,
    /// All that can be staged.
    EveryJoin,
    /// The same for a query that has run out of memory: no build side is small before it was measured.
    AfterExhaustion,
}

/// Bytes of files below a join of unknown size that count as one row.
const BYTES_A_ROW: u64 = 24;

/// The boundaries of a plan; none where there is nothing to gain.
pub(crate) fn find(
    logical: &LogicalPlan,
    physical: &Arc<dyn ExecutionPlan>,
    sources: &dyn SourceNames,
    look: &Look<'_>,
) -> Cutting {
    let mut search =
        Search { look, at: 0, found: Vec::new(), grouped: Vec::new(), statistics: StatisticsContext::new() };
    search.visit(physical, false);
    if search.found.is_empty() && search.grouped.is_empty() {
        return Cutting::default();
    }
    let grouped = search.grouped;
    // The link between the two plans: a join has the same fingerprint in both. One over a source that nobody knows has none; its keys
    // have the same names.
    let identities = fingerprint_physical(physical, sources).nodes;
    let mut by_identity = HashMap::new();
    let mut by_names = HashMap::new();
    for found in search.found {
        match identities.get(found.at).copied().flatten() {
            Some(identity) => by_identity.insert(identity.fingerprint, found.worth),
            None => by_names.insert(found.names, found.worth),
        };
    }
    let identities = fingerprint_logical(logical, sources).nodes;
    let Cutting { mut boundaries, mut left_out } = Cutting::default();
    let mut path = Vec::new();
    let mut at = 0;
    walk(logical, &mut at, &mut path, &mut |node, at, path| {
        let operator = match node {
            LogicalPlan::Aggregate(aggregate) if matches!(groups::recognise(aggregate), Some(Ok(_))) => {
                Operator::Aggregate
            }
            LogicalPlan::Window(window) if matches!(windows::recognise(window), Some(Ok(_))) => Operator::Window,
            _ => Operator::Join,
        };
        if let Some(keys) = group_names(node).filter(|_| operator != Operator::Join) {
            let same = grouped.iter().filter(|found| found.operator == operator && found.keys == keys);
            if let Some(worth) = same.map(|found| found.worth).max_by_key(|worth| worth.rows) {
                let inputs = [source_key(node.inputs().first(), &group_keys(node), sources)];
                let name = if operator == Operator::Window { "window" } else { "aggregate" };
                match judge(worth, &inputs, look) {
                    Verdict::Cut { known } => {
                        let known = known.map(|heavy| (format!("{name} by {}", keys.join(", ")), heavy));
                        boundaries.push(Boundary {
                            operator,
                            path: path.to_vec(),
                            expected_rows: worth.rows,
                            known,
                            broadcasts: false,
                        });
                    }
                    Verdict::LeaveOut(run) => left_out.push((format!("{name} by {}", keys.join(", ")), run)),
                    Verdict::Leave => {}
                }
            }
        }
        let LogicalPlan::Join(join) = node else { return };
        // What is hashed must be columns: of an expression the planner makes a column only later.
        let Some(names) = key_names(join).filter(|names| !names.is_empty() && !join.null_aware) else { return };
        let wanted = match identities.get(at).copied().flatten() {
            Some(identity) => by_identity.get(&identity.fingerprint),
            None => by_names.get(&names),
        };
        let Some(&worth) = wanted else { return };
        let (left, right): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        let inputs = [
            source_key(Some(&join.left.as_ref()), &left, sources),
            source_key(Some(&join.right.as_ref()), &right, sources),
        ];
        let what = || {
            let on: Vec<String> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
            format!("join on {}", on.join(" and "))
        };
        match judge(worth, &inputs, look) {
            Verdict::Cut { known } => {
                let known = known.map(|heavy| (what(), heavy));
                let (operator, expected_rows) = (Operator::Join, worth.rows);
                let broadcasts = worth.broadcasts;
                boundaries.push(Boundary { operator, path: path.to_vec(), expected_rows, known, broadcasts });
            }
            Verdict::LeaveOut(run) => left_out.push((what(), run)),
            Verdict::Leave => {}
        }
    });
    // Inner ones first; of two side by side the left one.
    boundaries.sort_by_key(|b| std::cmp::Reverse(b.path.len()));
    Cutting { boundaries, left_out }
}

fn source_key(input: Option<&&LogicalPlan>, keys: &[Expr], sources: &dyn SourceNames) -> Option<SourceKey> {
    known::source_key(input?, keys, sources)
}

/// What becomes of an operator that can be cut.
enum Verdict {
    /// Its inputs run first; `known`: for the sake of this key alone.
    Cut {
        known: Option<Heavy>,
    },
    /// It would be cut, but a run has found that no key is heavy.
    LeaveOut(RunId),
    Leave,
}

/// What is to be done with an operator of this `worth`, whose inputs are divided by `keys`.
fn judge(worth: Worth, keys: &[Option<SourceKey>], look: &Look<'_>) -> Verdict {
    let cut = Verdict::Cut { known: None };
    if worth.always {
        return cut;
    }
    match look.known.lesson(keys, look.slots) {
        Lesson::Heavy(heavy) if worth.splits && !worth.looks => Verdict::Cut { known: Some(heavy) },
        Lesson::Even(run) if worth.looks && worth.rows.is_some() => Verdict::LeaveOut(run),
        _ if worth.looks => cut,
        _ => Verdict::Leave,
    }
}

/// Names of the key columns of a join, sides left out of account.
type KeyNames = Vec<(String, String)>;

fn key_names(join: &Join) -> Option<KeyNames> {
    let pair = |(left, right): &(Expr, Expr)| match (left, right) {
        (Expr::Column(left), Expr::Column(right)) => Some(ordered(&left.name, &right.name)),
        _ => None,
    };
    let mut names = join.on.iter().map(pair).collect::<Option<KeyNames>>()?;
    names.sort_unstable();
    Some(names)
}

/// Names of the columns by which an aggregate or a window groups.
fn group_names(node: &LogicalPlan) -> Option<Vec<String>> {
    match node {
        LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) => group_columns(group_keys(node)),
        _ => None,
    }
}

/// Expressions by which an aggregate or a window that can be cut groups.
fn group_keys(node: &LogicalPlan) -> Vec<Expr> {
    match node {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.clone(),
        LogicalPlan::Window(window) => match windows::recognise(window) {
            Some(Ok(divided)) => divided.by,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Names of the columns that `keys` are, in order; none where one is no column.
pub(super) fn group_columns(keys: Vec<Expr>) -> Option<Vec<String>> {
    let name = |key: Expr| match key {
        Expr::Column(column) => Some(column.name),
        _ => None,
    };
    let mut names = keys.into_iter().map(name).collect::<Option<Vec<_>>>()?;
    names.sort_unstable();
    Some(names)
}

/// The name of the column that `key` is.
pub(super) fn column_name(key: &PhysicalExprRef) -> Option<String> {
    key.downcast_ref::<Column>().map(|column| column.name().to_owned())
}

fn ordered(a: &str, b: &str) -> (String, String) {
    let (first, second) = if a <= b { (a, b) } else { (b, a) };
    (first.to_owned(), second.to_owned())
}

#[recursive::recursive]
fn walk(
    node: &LogicalPlan,
    at: &mut usize,
    path: &mut Vec<usize>,
    visit: &mut dyn FnMut(&LogicalPlan, usize, &[usize]),
) {
    visit(node, *at, path);
    *at += 1;
    for (i, input) in node.inputs().into_iter().enumerate() {
        path.push(i);
        walk(input, at, path, visit);
        path.pop();
    }
}

/// A join of the physical plan.
struct Found {
    /// Its position in pre-order.
    at: usize,
    names: KeyNames,
    worth: Worth,
}

/// What there is to gain where an operator is cut.
#[derive(Debug, Clone, Copy)]
struct Worth {
    /// Expected rows of its inputs.
    rows: Option<u64>,
    /// It is cut, whatever is known of its keys.
    always: bool,
    /// It is large enough to look for heavy keys.
    looks: bool,
    /// Heavy keys are split.
    splits: bool,
    /// It is planned as a broadcast.
    broadcasts: bool,
}

/// An aggregate with distinct arguments, or a window, of the physical plan.
struct Grouped {
    operator: Operator,
    /// Names of the columns by which it groups.
    keys: Vec<String>,
    worth: Worth,
}

fn names_of(join: &HashJoinExec) -> KeyNames {
    let name =
        |key: &PhysicalExprRef| key.downcast_ref::<Column>().map_or_else(|| key.to_string(), |c| c.name().to_owned());
    let mut names: KeyNames = join.on().iter().map(|(l, r)| ordered(&name(l), &name(r))).collect();
    names.sort_unstable();
    names
}

struct Search<'a> {
    look: &'a Look<'a>,
    /// Position of the next node in pre-order.
    at: usize,
    found: Vec<Found>,
    grouped: Vec<Grouped>,
    statistics: StatisticsContext,
}

impl Search<'_> {
    /// `limited`: a LIMIT above may stop pulling before this node has given all its rows.
    #[recursive::recursive]
    fn visit(&mut self, plan: &Arc<dyn ExecutionPlan>, limited: bool) {
        let own = self.at;
        self.at += 1;
        if plan.is::<RecursiveQueryExec>() {
            // Nothing inside a recursion is run on its own.
            self.at += descendants(plan);
            return;
        }
        let blocking = plan.name().starts_with("SortExec")
            || plan.name().starts_with("AggregateExec")
            || plan.name() == "WindowAggExec";
        let limits =
            plan.is::<GlobalLimitExec>() || plan.is::<LocalLimitExec>() || (plan.fetch().is_some() && !blocking);
        let below = (limited || limits) && !blocking;
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            if !limited && let Some(worth) = self.worth_it(join) {
                self.found.push(Found { at: own, names: names_of(join), worth });
            }
            self.visit(join.left(), false);
            self.visit(join.right(), below);
            return;
        }
        if let Some(grouped) = self.grouped(plan, limited) {
            self.grouped.push(grouped);
        }
        for (i, child) in plan.children().into_iter().enumerate() {
            // The plans of scalar subqueries are not part of the logical tree.
            let subquery = plan.is::<ScalarSubqueryExec>() && i > 0;
            if subquery {
                self.at += 1 + descendants(child);
            } else {
                self.visit(child, below);
            }
        }
    }

    /// `plan` as an aggregate or window whose hot groups would be worth cutting.
    fn grouped(&mut self, plan: &Arc<dyn ExecutionPlan>, limited: bool) -> Option<Grouped> {
        let (operator, keys, enabled) = if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
            if !aggregate.aggr_expr().iter().any(|function| function.is_distinct()) {
                return None;
            }
            let keys: Vec<PhysicalExprRef> =
                aggregate.group_expr().expr().iter().map(|(key, _)| Arc::clone(key)).collect();
            (Operator::Aggregate, keys, self.look.settings.split_groups)
        } else {
            let functions = match (plan.downcast_ref::<BoundedWindowAggExec>(), plan.downcast_ref::<WindowAggExec>()) {
                (Some(window), _) => window.window_expr(),
                (_, Some(window)) => window.window_expr(),
                _ => return None,
            };
            (Operator::Window, functions.first()?.partition_by().to_vec(), self.look.settings.split_windows && !limited)
        };
        let mut keys = keys.iter().map(column_name).collect::<Option<Vec<_>>>()?;
        keys.sort_unstable();
        let input = plan.children().into_iter().next()?;
        let rows = self.rows(input);
        let expected = rows.unwrap_or_else(|| scanned_bytes(input) / BYTES_A_ROW);
        let Look { settings, reach, slots, known, .. } = *self.look;
        // Buckets are sorted in less time than all rows, heavy keys or not; and sets of distinct values cost many times what looking for heavy
        // keys does.
        let looks = expected >= settings.min_rows && slots > 1 && reach == Reach::Worthwhile;
        let splits = !known.is_empty() && reach == Reach::Worthwhile;
        let always = settings.mode == AdaptiveMode::Force || (looks && operator == Operator::Window);
        let worth = Worth { rows, always, looks, splits, broadcasts: false };
        (enabled && (worth.always || looks || splits)).then_some(Grouped { operator, keys, worth })
    }

    /// What there is to gain if the inputs of `join` are stages.
    fn worth_it(&mut self, join: &HashJoinExec) -> Option<Worth> {
        if join.null_aware {
            return None;
        }
        let (left, right) = (self.rows(join.left()), self.rows(join.right()));
        let known = left.zip(right).map(|(left, right)| left + right);
        let worth = Worth { rows: known, always: true, looks: true, splits: true, broadcasts: false };
        if self.look.reach != Reach::Worthwhile {
            return Some(worth);
        }
        if *join.partition_mode() != PartitionMode::Partitioned {
            let grows = self.may_grow(join);
            return grows.then_some(Worth { always: false, splits: false, broadcasts: true, ..worth });
        }
        let rows = |rows: Option<u64>, side: &Arc<dyn ExecutionPlan>| {
            rows.unwrap_or_else(|| scanned_bytes(side) / BYTES_A_ROW)
        };
        let (left_rows, right_rows) = (rows(left, join.left()), rows(right, join.right()));
        let Look { settings, slots, build_bytes_limit, known, .. } = *self.look;
        let looks = left_rows + right_rows >= settings.min_rows
            && slots >= settings.min_slots
            && (settings.split_skew || settings.broadcast);
        let short = settings.memory && table_bytes(left_rows, self.width(join.left())) > build_bytes_limit;
        let splits = settings.split_skew && !known.is_empty();
        (looks || short || splits).then_some(Worth { always: short, looks, splits, ..worth })
    }

    /// True if the build side of a broadcast is expected to be small, but nobody knows, and what it is read from is large; where its probe side is
    /// large too, so that one table for all slots would be much work.
    fn may_grow(&mut self, join: &HashJoinExec) -> bool {
        let Look { settings, slots, .. } = *self.look;
        if !settings.broadcast || slots < settings.min_slots || *join.partition_mode() != PartitionMode::CollectLeft {
            return false;
        }
        let statistics = self.statistics.compute(join.left().as_ref(), &StatisticsArgs::new());
        let known = statistics.is_ok_and(|s| s.num_rows.is_exact() == Some(true));
        !known && self.read_rows(join.left()) >= settings.min_rows && self.read_rows(join.right()) >= settings.min_rows
    }

    /// Rows of the largest source below `plan`.
    fn read_rows(&mut self, plan: &Arc<dyn ExecutionPlan>) -> u64 {
        let children = plan.children();
        if children.is_empty() {
            return self.rows(plan).unwrap_or_else(|| scanned_bytes(plan) / BYTES_A_ROW);
        }
        children.into_iter().map(|child| self.read_rows(child)).max().unwrap_or(0)
    }

    fn rows(&mut self, plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
        let statistics = self.statistics.compute(plan.as_ref(), &StatisticsArgs::new()).ok()?;
        statistics.num_rows.get_value().map(|rows| *rows as u64)
    }

    /// Bytes of a row of `plan` in memory, guessed from its types.
    fn width(&self, plan: &Arc<dyn ExecutionPlan>) -> u64 {
        let schema = plan.schema();
        let widths = schema.fields().iter().map(|f| f.data_type().primitive_width().unwrap_or(24) as u64);
        widths.sum::<u64>() + 8
    }
}

/// Bytes of a hash table over `rows` rows of `width` bytes.
fn table_bytes(rows: u64, width: u64) -> u64 {
    Size { rows, bytes: rows.saturating_mul(width) }.hash_table()
}

fn descendants(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.children().into_iter().map(|child| 1 + descendants(child)).sum()
}
