//! Where a query's answer may depend on ties or on the order of its input: two right plans may then give different rows.
//!
//! Only what is certain to have no total order is named: a sort counts as total where its columns are all columns of its input or,
//! by the functional dependencies that DataFusion knows (primary keys, groups), determine them.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};

/// Functions of a window that depend on which of two tied rows comes first.
const BY_POSITION: [&str; 7] = ["row_number", "ntile", "lag", "lead", "first_value", "last_value", "nth_value"];
/// Aggregates that depend on the order of their input.
const BY_ORDER: [&str; 5] = ["array_agg", "string_agg", "first_value", "last_value", "nth_value"];

/// Reasons why the result of `plan` may differ from plan to plan, each once.
pub(crate) fn reasons(plan: &LogicalPlan) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    let mut say = |reason: String| {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    // The walk cannot fail: the closure does not.
    let _ = plan.apply(|node| {
        if let LogicalPlan::Limit(limit) = node {
            match ordered_by(&limit.input) {
                _ if limit.input.max_rows().is_some_and(|rows| rows <= 1) => {}
                None => say("`LIMIT` without `ORDER BY` takes any rows".to_owned()),
                Some((columns, schema)) if !determines(&columns, schema) => {
                    say(format!("`LIMIT` takes any of the rows that tie in {}", by(&columns)))
                }
                Some(_) => {}
            }
        }
        let input = node.inputs().first().map(|input| input.schema());
        let _ = node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::WindowFunction(function) => {
                        window(function, input.map(|s| s.as_ref())).into_iter().for_each(&mut say)
                    }
                    Expr::AggregateFunction(AggregateFunction { func, params })
                        if BY_ORDER.contains(&func.name()) && params.order_by.is_empty() =>
                    {
                        say(format!("`{}` without `ORDER BY` depends on the order of its input", func.name()));
                    }
                    Expr::ScalarFunction(function) if expr.is_volatile_node() => {
                        say(format!("`{}` gives another value in each run", function.name()));
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        });
        Ok(TreeNodeRecursion::Continue)
    });
    reasons
}

fn window(function: &WindowFunction, input: Option<&DFSchema>) -> Option<String> {
    let name = match &function.fun {
        WindowFunctionDefinition::AggregateUDF(f) => f.name(),
        WindowFunctionDefinition::WindowUDF(f) => f.name(),
    };
    if !BY_POSITION.contains(&name) {
        return None;
    }
    let params = &function.params;
    if params.order_by.is_empty() {
        return Some(format!("`{name}` without `ORDER BY` depends on the order of its input"));
    }
    let columns: Vec<&Expr> = params.order_by.iter().map(|s| &s.expr).chain(&params.partition_by).collect();
    let ordered: Vec<&Expr> = params.order_by.iter().map(|s| &s.expr).collect();
    (!determines(&columns, input?)).then(|| format!("`{name}` numbers rows that tie in {} in any order", by(&ordered)))
}

/// The sort that a limit stands on, with the schema of the rows that it sorts.
fn ordered_by(plan: &LogicalPlan) -> Option<(Vec<&Expr>, &DFSchema)> {
    match plan {
        LogicalPlan::Sort(sort) => Some((sort.expr.iter().map(|s| &s.expr).collect(), sort.input.schema())),
        LogicalPlan::Projection(projection) => ordered_by(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => ordered_by(&alias.input),
        _ => None,
    }
}

/// True if rows with equal values of these expressions are equal rows.
fn determines(expressions: &[&Expr], schema: &DFSchema) -> bool {
    let known: Vec<usize> = expressions
        .iter()
        .filter_map(|e| match e {
            Expr::Column(column) => schema.maybe_index_of_column(column),
            _ => None,
        })
        .collect();
    let all = 0..schema.fields().len();
    if all.clone().all(|i| known.contains(&i)) {
        return true;
    }
    schema.functional_dependencies().iter().any(|dependency| {
        dependency.source_indices.iter().all(|i| known.contains(i))
            && all.clone().all(|i| known.contains(&i) || dependency.target_indices.contains(&i))
    })
}

fn by(columns: &[&Expr]) -> String {
    let names: Vec<String> = columns
        .iter()
        .take(3)
        .map(|e| match e {
            Expr::Column(column) => format!("`{}`", column.name),
            other => format!("`{other}`"),
        })
        .collect();
    names.join(", ")
}
