//! A block: a maximal part of a plan that is inner joins, semi and anti joins, filters between them, and renamings.
//!
//! Its relations are the subplans below. Their columns are told apart by position, for names may recur: `"r"."c"` in the expressions of a
//! block is column `c` of relation `r`.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, Result, TableReference, plan_datafusion_err};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator, Projection};

use super::set::{MAX_RELATIONS, Set, single};

/// A column of a relation.
pub(super) type Place = (usize, usize);

/// A semi or anti join: rows of the block stay that have a partner in `relation`, or none.
#[derive(Debug)]
pub(super) struct Existence {
    pub(super) relation: usize,
    pub(super) anti: bool,
    pub(super) conjuncts: Vec<Expr>,
}

/// The order of the joins as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    Relation(usize),
    Join(Box<Tree>, Box<Tree>),
}

impl Tree {
    pub(super) fn set(&self) -> Set {
        match self {
            Self::Relation(relation) => single(*relation),
            Self::Join(left, right) => left.set() | right.set(),
        }
    }

    /// See [`sparklet_history::JoinOrder`].
    pub(super) fn to_postfix(&self) -> Vec<Option<u32>> {
        fn walk(tree: &Tree, into: &mut Vec<Option<u32>>) {
            match tree {
                Tree::Relation(relation) => into.push(Some(*relation as u32)),
                Tree::Join(left, right) => {
                    walk(left, into);
                    walk(right, into);
                    into.push(None);
                }
            }
        }
        let mut postfix = Vec::new();
        walk(self, &mut postfix);
        postfix
    }

    /// The tree over `relations` relations; none where `postfix`, which comes from outside, is not one of each of them once.
    pub(super) fn from_postfix(postfix: &[Option<u32>], relations: usize) -> Option<Self> {
        let mut stack: Vec<Self> = Vec::new();
        let mut seen: Set = 0;
        for part in postfix {
            let tree = match *part {
                Some(relation) => {
                    let relation = usize::try_from(relation).ok().filter(|&r| r < relations.min(MAX_RELATIONS))?;
                    if seen & single(relation) != 0 {
                        return None;
                    }
                    seen |= single(relation);
                    Self::Relation(relation)
                }
                None => {
                    let (right, left) = (stack.pop()?, stack.pop()?);
                    Self::Join(Box::new(left), Box::new(right))
                }
            };
            stack.push(tree);
        }
        let tree = stack.pop()?;
        (stack.is_empty() && seen.count_ones() as usize == relations).then_some(tree)
    }
}

#[derive(Debug)]
pub(super) struct Block<'p> {
    pub(super) relations: Vec<&'p LogicalPlan>,
    pub(super) conjuncts: Vec<Expr>,
    pub(super) existences: Vec<Existence>,
    /// Columns of the result.
    pub(super) output: Vec<Place>,
    pub(super) written: Tree,
    /// Joins of the block with the relations on either side, those below before those above.
    pub(super) joins: Vec<(&'p LogicalPlan, Set, Set)>,
    /// Conditions that stand above the joins which they could be part of.
    pub(super) late: Vec<Expr>,
}

impl<'p> Block<'p> {
    /// The block with `plan` on top; none where there is no join to move.
    pub(super) fn of(plan: &'p LogicalPlan) -> Result<Option<Self>> {
        if !reaches_join(plan) {
            return Ok(None);
        }
        let mut block = Self::of_relations(Vec::new(), Vec::new());
        let (output, written) = block.take(plan)?;
        (block.output, block.written) = (output, written);
        Ok((block.relations.len() <= MAX_RELATIONS).then_some(block))
    }

    /// A block of one relation.
    pub(super) fn single(plan: &'p LogicalPlan) -> Self {
        let mut block = Self::of_relations(vec![plan], Vec::new());
        block.output = (0..plan.schema().fields().len()).map(|column| (0, column)).collect();
        block
    }

    /// A block whose relations are joined by `conjuncts`, in no order yet.
    pub(super) fn of_relations(relations: Vec<&'p LogicalPlan>, conjuncts: Vec<Expr>) -> Self {
        Self {
            relations,
            conjuncts,
            existences: Vec::new(),
            output: Vec::new(),
            written: Tree::Relation(0),
            joins: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Takes `plan` in: its output columns, and the order of its joins.
    #[recursive::recursive]
    fn take(&mut self, plan: &'p LogicalPlan) -> Result<(Vec<Place>, Tree)> {
        if !reaches_join(plan) {
            let relation = self.relations.len();
            self.relations.push(plan);
            let columns = (0..plan.schema().fields().len()).map(|column| (relation, column)).collect();
            return Ok((columns, Tree::Relation(relation)));
        }
        match plan {
            LogicalPlan::Join(join) => self.join(plan, join),
            LogicalPlan::Filter(filter) => {
                let (columns, tree) = self.take(&filter.input)?;
                let conditions = placed(&filter.predicate, &filter.input, &columns)?;
                self.late.extend(conditions.iter().cloned());
                self.conjuncts.extend(conditions);
                Ok((columns, tree))
            }
            LogicalPlan::Projection(projection) => {
                let (columns, tree) = self.take(&projection.input)?;
                let schema = projection.input.schema();
                let kept = projection.expr.iter().map(|expr| {
                    let at = plain_column(expr).and_then(|column| schema.maybe_index_of_column(column));
                    at.and_then(|at| columns.get(at).copied()).ok_or_else(|| plan_datafusion_err!("no column `{expr}`"))
                });
                Ok((kept.collect::<Result<_>>()?, tree))
            }
            LogicalPlan::SubqueryAlias(alias) => self.take(&alias.input),
            other => Err(plan_datafusion_err!("no join below {}", other.display())),
        }
    }

    fn join(&mut self, plan: &'p LogicalPlan, join: &'p Join) -> Result<(Vec<Place>, Tree)> {
        let (outer, inner, anti) = match join.join_type {
            JoinType::LeftSemi => (&join.left, &join.right, Some(false)),
            JoinType::RightSemi => (&join.right, &join.left, Some(false)),
            JoinType::LeftAnti => (&join.left, &join.right, Some(true)),
            JoinType::RightAnti => (&join.right, &join.left, Some(true)),
            _ => (&join.left, &join.right, None),
        };
        let (outer_columns, outer_tree) = self.take(outer)?;
        let (inner_columns, inner_tree) = match anti {
            None => self.take(inner)?,
            Some(_) => {
                let relation = self.relations.len();
                self.relations.push(inner);
                let columns = (0..inner.schema().fields().len()).map(|column| (relation, column)).collect();
                (columns, Tree::Relation(relation))
            }
        };
        let swapped = matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti);
        let (left, right) = if swapped { (&inner_columns, &outer_columns) } else { (&outer_columns, &inner_columns) };
        let mut conjuncts = Vec::new();
        for (l, r) in &join.on {
            let (l, r) = (placed_whole(l, &join.left, left)?, placed_whole(r, &join.right, right)?);
            conjuncts.push(Expr::BinaryExpr(BinaryExpr::new(Box::new(l), Operator::Eq, Box::new(r))));
        }
        if let Some(filter) = &join.filter {
            let schema = join.left.schema().join(join.right.schema())?;
            let both = [left.as_slice(), right.as_slice()].concat();
            let placed =
                replaced(filter, &|column| schema.maybe_index_of_column(column).and_then(|at| both.get(at).copied()))?;
            conjuncts.extend(split_conjunction_owned(placed));
        }
        self.joins.push((plan, outer_tree.set(), inner_tree.set()));
        let tree = Tree::Join(Box::new(outer_tree), Box::new(inner_tree));
        match (anti, join.join_type) {
            (Some(anti), _) => {
                let relation = self.relations.len() - 1;
                self.existences.push(Existence { relation, anti, conjuncts });
                Ok((outer_columns, tree))
            }
            (None, _) => {
                self.conjuncts.extend(conjuncts);
                Ok(([outer_columns, inner_columns].concat(), tree))
            }
        }
    }
}

/// Whether `plan` is a join that a block takes in, or has one below what only renames or filters.
fn reaches_join(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Join(join) => {
            let kind = match join.join_type {
                JoinType::Inner => true,
                JoinType::LeftSemi | JoinType::RightSemi | JoinType::LeftAnti | JoinType::RightAnti => !join.null_aware,
                _ => false,
            };
            let conditions = join.on.iter().flat_map(|(l, r)| [l, r]).chain(&join.filter);
            kind && join.null_equality == NullEquality::NullEqualsNothing && conditions.into_iter().all(movable)
        }
        LogicalPlan::Filter(filter) => movable(&filter.predicate) && reaches_join(&filter.input),
        LogicalPlan::Projection(Projection { expr, input, .. }) => {
            expr.iter().all(|e| plain_column(e).is_some()) && reaches_join(input)
        }
        LogicalPlan::SubqueryAlias(alias) => reaches_join(&alias.input),
        _ => false,
    }
}

/// A condition that gives the same wherever it is evaluated.
pub(super) fn movable(expr: &Expr) -> bool {
    let fixed = expr.exists(|e| {
        Ok(match e {
            Expr::OuterReferenceColumn(..) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => true,
            Expr::ScalarSubquery(subquery) => !subquery.outer_ref_columns.is_empty(),
            _ => false,
        })
    });
    !expr.is_volatile() && !fixed.unwrap_or(true)
}

fn plain_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => plain_column(&alias.expr),
        _ => None,
    }
}

/// The name of a column within a block.
pub(super) fn name_of((relation, column): Place) -> Column {
    Column::new(Some(TableReference::bare(relation.to_string())), column.to_string())
}

/// The column that a name within a block stands for.
pub(super) fn place_of(column: &Column) -> Option<Place> {
    Some((column.relation.as_ref()?.table().parse().ok()?, column.name.parse().ok()?))
}

fn placed(predicate: &Expr, input: &LogicalPlan, columns: &[Place]) -> Result<Vec<Expr>> {
    Ok(split_conjunction_owned(placed_whole(predicate, input, columns)?))
}

pub(super) fn placed_whole(expr: &Expr, input: &LogicalPlan, columns: &[Place]) -> Result<Expr> {
    let schema = input.schema();
    replaced(expr, &|column| schema.maybe_index_of_column(column).and_then(|at| columns.get(at).copied()))
}

fn replaced(expr: &Expr, place: &dyn Fn(&Column) -> Option<Place>) -> Result<Expr> {
    Ok(unaliased(with_columns(expr, &|column| Some(Expr::Column(name_of(place(column)?))))?))
}

/// `expr` with `value` in the place of each column; an error where that knows none.
pub(super) fn with_columns(expr: &Expr, value: &dyn Fn(&Column) -> Option<Expr>) -> Result<Expr> {
    let replaced = expr.clone().transform(|e| match e {
        Expr::Column(column) => {
            let value = value(&column).ok_or_else(|| plan_datafusion_err!("no column `{column}`"))?;
            Ok(Transformed::new(value, true, TreeNodeRecursion::Jump))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(replaced.data)
}

/// `expr` over the columns of `plan`, in terms of what these stand for: `columns`, in their order.
pub(super) fn in_terms_of(expr: &Expr, plan: &LogicalPlan, columns: &[Expr]) -> Result<Expr> {
    let value = |column: &Column| columns.get(plan.schema().maybe_index_of_column(column)?).cloned();
    Ok(with_columns(expr, &value)?.unalias_nested().data)
}

fn unaliased(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => unaliased(*alias.expr),
        other => other,
    }
}

/// Relations whose columns an expression of a block reads.
pub(super) fn relations_of(expr: &Expr) -> Set {
    expr.column_refs().into_iter().filter_map(place_of).fold(0, |set, (relation, _)| set | single(relation))
}
