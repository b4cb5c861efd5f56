//! What a finished input of a join says of the keys of the other one: a filter that this one is run with, so that its scans prune as they
//! would by a dynamic filter of DataFusion.
//!
//! The filter is put above the leaves that the keys are columns of, and nowhere else: on the way down a filter over a column commutes with
//! all that is passed, and what is compared is a stored value. From the top of the input DataFusion would push it down by names of columns,
//! of which two may be alike, and through computed ones, whose expressions might fail, or give something else, for rows that
//! no one asks them for. A join of two exchanges counts as a leaf: with a filter between, it could not be divided any more.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::common::{Column as Named, DFSchemaRef, JoinType, NullEquality, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Distinct, Expr, Extension, Join, LogicalPlan, Operator, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::expressions::{Column, DynamicFilterPhysicalExpr, binary, in_list, lit};
use datafusion::physical_expr::{PhysicalExpr, PhysicalExprRef};
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::statistics::StatisticsContext;
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs};

use super::driver::Side;
use super::leaf::ExchangeLeaf;
use super::path::{at_path, replace_at};
use crate::exchange::{Exchange, KeyFacts};

/// A filter over the keys of one input of a join.
#[derive(Debug)]
pub(super) struct Learned {
    keys: Vec<Key>,
}

/// A key column of the input.
#[derive(Debug)]
struct Key {
    column: usize,
    values: Values,
    /// Leaves of the input that give its values.
    places: Vec<Place>,
}

/// A column of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: Vec<usize>,
    column: usize,
}

/// Values of a key column.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    Range(ScalarValue, ScalarValue),
    Listed(Vec<ScalarValue>),
}

/// True if a row of the input other than `finished` that matches no row of that gives none of the join.
pub(super) fn may_filter(join: &Join, finished: Side) -> bool {
    let other = match join.join_type {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => true,
        JoinType::Left | JoinType::LeftAnti => finished == Side::Left,
        JoinType::Right | JoinType::RightAnti => finished == Side::Right,
        JoinType::Full | JoinType::LeftMark | JoinType::RightMark => false,
    };
    // Where NULLs match one another a range would lose them.
    other && !join.null_aware && join.null_equality == NullEquality::NullEqualsNothing
}

impl Learned {
    /// What `facts` say of the columns `keys` of `input`, the other input of their join; none where they say nothing, or the keys are not read
    /// from leaves.
    pub(super) fn of(facts: &KeyFacts, input: &LogicalPlan, keys: &[Expr]) -> Option<Self> {
        let mut found = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let Expr::Column(column) = key else { continue };
            let Some(column) = input.schema().maybe_index_of_column(column) else { continue };
            let data_type = input.schema().field(column).data_type();
            let Some(Some((min, max))) = facts.bounds.get(at) else { continue };
            if min.is_null() || max.is_null() || &min.data_type() != data_type || &max.data_type() != data_type {
                continue;
            }
            let values = match &facts.values {
                Some(values) if keys.len() == 1 => Values::Listed(values.clone()),
                _ => Values::Range(min.clone(), max.clone()),
            };
            let mut places = Vec::new();
            origins(input, column, &mut Vec::new(), &mut places);
            places.retain(|place| {
                let leaf = at_path(input, &place.path).map(LogicalPlan::schema);
                leaf.and_then(|leaf| leaf.fields().get(place.column)).is_some_and(|leaf| leaf.data_type() == data_type)
            });
            if !places.is_empty() {
                found.push(Key { column, values, places });
            }
        }
        (!found.is_empty()).then_some(Self { keys: found })
    }

    /// True if it may leave out rows of `stage`, the plan of its input.
    pub(super) fn may_reduce(&self, stage: &Arc<dyn ExecutionPlan>) -> bool {
        let Ok(statistics) = StatisticsContext::new().compute(stage.as_ref(), &StatisticsArgs::new()) else {
            return true;
        };
        self.keys.iter().any(|key| {
            let Values::Range(min, max) = &key.values else { return true };
            let Some(known) = statistics.column_statistics.get(key.column) else { return true };
            let (Some(least), Some(most)) = (known.min_value.get_value(), known.max_value.get_value()) else {
                return true;
            };
            !(least >= min && most <= max)
        })
    }

    /// Values that are listed.
    pub(super) fn listed(&self) -> Option<u32> {
        self.keys.iter().find_map(|key| match &key.values {
            Values::Listed(values) => Some(values.len() as u32),
            Values::Range(..) => None,
        })
    }

    /// `input` with the filter above its leaves. What is planned from it shows the filter in `exchange`, from which it was learned.
    pub(super) fn over(&self, input: &LogicalPlan, exchange: &Arc<Exchange>) -> Result<LogicalPlan> {
        let mut filters: BTreeMap<&[usize], Vec<(usize, Values)>> = BTreeMap::new();
        for key in &self.keys {
            for Place { path, column } in &key.places {
                filters.entry(path).or_default().push((*column, key.values.clone()));
            }
        }
        let mut plan = input.clone();
        for (path, keys) in filters {
            let Some(leaf) = at_path(input, path) else { continue };
            let node = LearnedFilter { keys, input: Arc::new(leaf.clone()), exchange: Arc::clone(exchange) };
            plan = replace_at(plan, path, LogicalPlan::Extension(Extension { node: Arc::new(node) }))?;
        }
        Ok(plan)
    }
}

/// Adds to `found` the leaves below `plan`, which is at `path`, whose rows that a filter over column `at` of `plan` would leave out can be left
/// out there.
#[recursive::recursive]
fn origins(plan: &LogicalPlan, at: usize, path: &mut Vec<usize>, found: &mut Vec<Place>) {
    let column = |name: &Named, input: &LogicalPlan| input.schema().maybe_index_of_column(name);
    let down: Vec<(usize, usize)> = match plan {
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
            found.push(Place { path: path.clone(), column: at });
            return;
        }
        LogicalPlan::Extension(_) if ExchangeLeaf::of(plan).is_some() => {
            found.push(Place { path: path.clone(), column: at });
            return;
        }
        LogicalPlan::Join(join) if reads_rows(&join.left) && reads_rows(&join.right) => {
            found.push(Place { path: path.clone(), column: at });
            return;
        }
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) | LogicalPlan::Repartition(_) => vec![(0, at)],
        LogicalPlan::Distinct(Distinct::All(_)) => vec![(0, at)],
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => vec![(0, at)],
        LogicalPlan::Union(union) => (0..union.inputs.len()).map(|input| (input, at)).collect(),
        LogicalPlan::Projection(projection) => match projection.expr.get(at).cloned().map(Expr::unalias) {
            Some(Expr::Column(name)) => column(&name, &projection.input).map(|at| (0, at)).into_iter().collect(),
            _ => Vec::new(),
        },
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.get(at) {
            Some(Expr::Column(name)) => column(name, &aggregate.input).map(|at| (0, at)).into_iter().collect(),
            _ => Vec::new(),
        },
        LogicalPlan::Join(join) => {
            let inputs = [&join.left, &join.right];
            below(join, at)
                .filter(|(input, _)| inputs.get(*input).is_some_and(|input| !reads_rows(input)))
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    };
    for (input, at) in down {
        let Some(below) = plan.inputs().get(input).copied() else { continue };
        path.push(input);
        origins(below, at, path, found);
        path.pop();
    }
}

/// True if `plan` gives the rows of an exchange.
fn reads_rows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => reads_rows(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => reads_rows(&alias.input),
        _ => ExchangeLeaf::of(plan).is_some(),
    }
}

/// The input of `join` that gives column `at`, and its column there, where rows of it stand or fall one by one.
fn below(join: &Join, at: usize) -> Option<(usize, usize)> {
    let left = join.left.schema().fields().len();
    let right = join.right.schema().fields().len();
    match join.join_type {
        JoinType::Inner if at < left => Some((0, at)),
        JoinType::Inner => Some((1, at - left)),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (at < left).then_some((0, at)),
        JoinType::Right => at.checked_sub(left).map(|at| (1, at)),
        JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (at < right).then_some((1, at)),
        JoinType::Full => None,
    }
}

/// A leaf of an input of a join with what was learned of its columns. It stands in no plan but that of a stage.
#[derive(Debug, Clone)]
pub(super) struct LearnedFilter {
    keys: Vec<(usize, Values)>,
    input: Arc<LogicalPlan>,
    exchange: Arc<Exchange>,
}

impl LearnedFilter {
    /// The filter over `input`. To the history it is a dynamic one: no part of the query, and a reason for counts to be too low.
    pub(super) fn physical(&self, input: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let predicate = self.predicate(input)?;
        self.exchange.teaches(Arc::clone(&predicate) as Arc<dyn PhysicalExpr>);
        let filter = FilterExecBuilder::new(predicate, Arc::clone(input));
        // How many rows it leaves out nobody knows: none is what was expected before.
        Ok(Arc::new(filter.with_default_selectivity(100).build()?))
    }

    fn predicate(&self, input: &Arc<dyn ExecutionPlan>) -> Result<PhysicalExprRef> {
        let schema = input.schema();
        let mut columns: Vec<PhysicalExprRef> = Vec::new();
        let mut all: Option<PhysicalExprRef> = None;
        for (at, values) in &self.keys {
            let Some(field) = schema.fields().get(*at) else { return plan_err!("a leaf without column {at}") };
            let column: PhysicalExprRef = Arc::new(Column::new(field.name(), *at));
            columns.push(Arc::clone(&column));
            let one = match values {
                Values::Range(min, max) => {
                    let from = binary(Arc::clone(&column), Operator::GtEq, lit(min.clone()), &schema)?;
                    let to = binary(column, Operator::LtEq, lit(max.clone()), &schema)?;
                    binary(from, Operator::And, to, &schema)?
                }
                Values::Listed(values) => in_list(column, values.iter().cloned().map(lit).collect(), &false, &schema)?,
            };
            all = Some(match all {
                None => one,
                Some(others) => binary(others, Operator::And, one, &schema)?,
            });
        }
        let Some(all) = all else { return plan_err!("a filter over no column") };
        let filter = DynamicFilterPhysicalExpr::new(columns, all);
        filter.mark_complete();
        Ok(Arc::new(filter))
    }
}

impl PartialEq for LearnedFilter {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys && self.input == other.input
    }
}

impl Eq for LearnedFilter {}

impl PartialOrd for LearnedFilter {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.exchange.id.partial_cmp(&other.exchange.id)
    }
}

impl Hash for LearnedFilter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for LearnedFilter {
    fn name(&self) -> &str {
        "LearnedFilter"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LearnedFilter: exchange={}", self.exchange.id)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Some(input) = inputs.pop() else { return plan_err!("a filter has one input") };
        Ok(Self { input: Arc::new(input), ..self.clone() })
    }
}
