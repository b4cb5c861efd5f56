//! A plan from an order of joins.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::{Column, JoinType, NullEquality, Result, TableReference, plan_datafusion_err};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Filter, Join, JoinConstraint, LogicalPlan, Projection};

use super::block::{Place, Tree, place_of, with_columns};
use super::graph::{Graph, split};
use super::set::{Set, within};

/// Names of the columns of the relations, no two alike.
pub(super) struct Names(Vec<Vec<Column>>);

impl Names {
    /// Where two relations have a column of one name, the later relation's columns get new ones.
    fn given(plans: &mut [LogicalPlan]) -> Result<Self> {
        let mut names = Vec::with_capacity(plans.len());
        let mut taken: HashSet<String> = HashSet::new();
        let mut qualified: HashSet<(String, String)> = HashSet::new();
        let mut unqualified: HashSet<String> = HashSet::new();
        for (i, plan) in plans.iter_mut().enumerate() {
            let columns: Vec<Column> = plan.schema().columns();
            let clash = columns.iter().any(|c| match &c.relation {
                Some(relation) => {
                    unqualified.contains(&c.name) || qualified.contains(&(relation.to_string(), c.name.clone()))
                }
                None => taken.contains(&c.name),
            });
            let columns = if clash {
                let alias = TableReference::bare(format!("relation {i}"));
                let renamed: Vec<(Column, Column)> = columns
                    .into_iter()
                    .enumerate()
                    .map(|(at, c)| {
                        let new = Column::new(Some(alias.clone()), format!("{} {at}", c.name));
                        (c, new)
                    })
                    .collect();
                let exprs = renamed
                    .iter()
                    .map(|(old, new)| Expr::Column(old.clone()).alias_qualified(new.relation.clone(), new.name.clone()))
                    .collect();
                *plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan.clone()))?);
                renamed.into_iter().map(|(_, new)| new).collect()
            } else {
                columns
            };
            for column in &columns {
                taken.insert(column.name.clone());
                match &column.relation {
                    Some(relation) => qualified.insert((relation.to_string(), column.name.clone())),
                    None => unqualified.insert(column.name.clone()),
                };
            }
            names.push(columns);
        }
        Ok(Self(names))
    }

    fn of(&self, (relation, column): Place) -> Result<Column> {
        let known = self.0.get(relation).and_then(|columns| columns.get(column));
        known.cloned().ok_or_else(|| plan_datafusion_err!("no column {column} in relation {relation}"))
    }

    /// `expr` of a block in these names.
    pub(super) fn named(&self, expr: &Expr) -> Result<Expr> {
        with_columns(expr, &|column| Some(Expr::Column(self.of(place_of(column)?).ok()?)))
    }
}

/// `tree` with the input to build on the left of each join.
pub(super) fn oriented(graph: &mut Graph, tree: Tree) -> Tree {
    let Tree::Join(a, b) = tree else { return tree };
    let (a, b) = (oriented(graph, *a), oriented(graph, *b));
    let mut bytes = |tree: &Tree| {
        let input = graph.input(tree.set());
        input.rows * input.width
    };
    if bytes(&a) <= bytes(&b) { Tree::Join(Box::new(a), Box::new(b)) } else { Tree::Join(Box::new(b), Box::new(a)) }
}

/// Joins of `plan`, which was made from `tree`, with the relations on either side, those below before those above.
pub(super) fn joins<'p>(plan: &'p LogicalPlan, tree: &Tree, into: &mut Vec<(&'p LogicalPlan, Set, Set)>) {
    match (plan, tree) {
        (LogicalPlan::Projection(top), _) => joins(&top.input, tree, into),
        (LogicalPlan::Join(join), Tree::Join(a, b)) => {
            joins(&join.left, a, into);
            joins(&join.right, b, into);
            into.push((plan, a.set(), b.set()));
        }
        _ => {}
    }
}

/// The joins of `tree` over `relations`, which get names that are not alike and the conditions on them alone; with these names.
pub(super) fn joins_of(graph: &Graph, relations: &mut [LogicalPlan], tree: &Tree) -> Result<(LogicalPlan, Names)> {
    let names = Names::given(relations)?;
    for (i, plan) in relations.iter_mut().enumerate() {
        let own = graph.relations.get(i).map(|r| r.own.as_slice()).unwrap_or_default();
        let own = own.iter().map(|expr| names.named(expr)).collect::<Result<Vec<_>>>()?;
        if let Some(predicate) = conjunction(own) {
            *plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan.clone()))?);
        }
    }
    Ok((joined(graph, relations, &names, tree)?, names))
}

/// The plan that joins `relations` in the order of `tree`, the left of each join built, and gives the columns `output` as `original` names them.
pub(super) fn plan(
    graph: &Graph,
    mut relations: Vec<LogicalPlan>,
    tree: &Tree,
    output: &[Place],
    original: &LogicalPlan,
) -> Result<LogicalPlan> {
    let (joined, names) = joins_of(graph, &mut relations, tree)?;
    let schema = original.schema();
    let exprs = output
        .iter()
        .zip(schema.iter())
        .map(|(&place, (qualifier, field))| {
            let column = names.of(place)?;
            let same = column.relation.as_ref() == qualifier && column.name == *field.name();
            let expr = Expr::Column(column);
            Ok(if same { expr } else { expr.alias_qualified(qualifier.cloned(), field.name().clone()) })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(joined))?))
}

fn joined(graph: &Graph, relations: &[LogicalPlan], names: &Names, tree: &Tree) -> Result<LogicalPlan> {
    let (left, right) = match tree {
        Tree::Relation(relation) => {
            let plan = relations.get(*relation).cloned();
            return plan.ok_or_else(|| plan_datafusion_err!("no relation {relation}"));
        }
        Tree::Join(left, right) => (left, right),
    };
    let (left_set, right_set) = (left.set(), right.set());
    let left = joined(graph, relations, names, left)?;
    let right = joined(graph, relations, names, right)?;
    let (join_type, on, rest) = match (graph.is_partner(left_set), graph.is_partner(right_set)) {
        (Some(_), _) => {
            let (on, rest) = existence(graph, left_set, right_set)?;
            let on = on.into_iter().map(|(outer, inner)| (inner, outer)).collect();
            let anti = graph.is_partner(left_set).is_some_and(|p| p.anti);
            (if anti { JoinType::RightAnti } else { JoinType::RightSemi }, on, rest)
        }
        (None, Some(partner)) => {
            let anti = partner.anti;
            let (on, rest) = existence(graph, right_set, left_set)?;
            (if anti { JoinType::LeftAnti } else { JoinType::LeftSemi }, on, rest)
        }
        (None, None) => {
            let (on, rest) = conditions(graph, left_set, right_set);
            (JoinType::Inner, on, rest)
        }
    };
    let on = on.iter().map(|(l, r)| Ok((names.named(l)?, names.named(r)?))).collect::<Result<Vec<_>>>()?;
    let rest = rest.iter().map(|expr| names.named(expr)).collect::<Result<Vec<_>>>()?;
    let join = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        conjunction(rest),
        join_type,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?;
    Ok(LogicalPlan::Join(join))
}

type Conditions = (Vec<(Expr, Expr)>, Vec<Expr>);

/// Keys (of the block, of the relation) and other conditions of a semi or anti join.
fn existence(graph: &Graph, partner: Set, outer: Set) -> Result<Conditions> {
    let Some(of) = graph.is_partner(partner) else { return Ok(Conditions::default()) };
    let keys = of.keys.iter().enumerate().map(|(i, (_, inner))| {
        let outer = graph.outer_key(of, i, outer);
        let outer = outer.ok_or_else(|| plan_datafusion_err!("a semi join before what it asks about"))?;
        Ok((outer.clone(), inner.clone()))
    });
    Ok((keys.collect::<Result<_>>()?, of.rest.clone()))
}

/// Keys (left, right) and other conditions of an inner join.
fn conditions(graph: &Graph, left: Set, right: Set) -> Conditions {
    let mut on = Vec::new();
    let mut rest = Vec::new();
    for class in &graph.classes {
        // One of each side stands for all: those of one side are equal already.
        if let (Some(l), Some(r)) = (class.in_set(left), class.in_set(right)) {
            on.push((l.expr.clone(), r.expr.clone()));
        }
    }
    for condition in &graph.conditions {
        let of = condition.relations;
        if !within(of, left | right) || within(of, left) || within(of, right) {
            continue;
        }
        match split(condition, left, right) {
            Some((l, r)) => on.push((l.clone(), r.clone())),
            None => rest.push(condition.expr.clone()),
        }
    }
    (on, rest)
}
