//! Functions of a module for DataFusion, and the scope of a query put into a plan.

use std::sync::Arc;

use datafusion::catalog::TableFunctionImpl;
use datafusion::catalog::default_table_source::{DefaultTableSource, source_as_provider};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::WindowFunctionDefinition;
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan, ScalarUDF};

use crate::aggregate::WasmAggregate;
use crate::describe::Shape;
use crate::module::Module;
use crate::scalar::WasmScalar;
use crate::scope::Scope;
use crate::table::{WasmTable, WasmTableFunction};

/// A function as DataFusion takes it.
#[derive(Debug, Clone)]
pub enum Registered {
    /// A scalar function.
    Scalar(Arc<ScalarUDF>),
    /// An aggregate.
    Aggregate(Arc<AggregateUDF>),
    /// A table function and its name.
    Table(String, Arc<dyn TableFunctionImpl>),
}

impl Registered {
    /// Name in SQL.
    pub fn name(&self) -> &str {
        match self {
            Self::Scalar(f) => f.name(),
            Self::Aggregate(f) => f.name(),
            Self::Table(name, _) => name,
        }
    }
}

/// All functions of `module`; calls of them belong to `scope` until a query has its own ([`enter`]).
pub fn functions(module: &Arc<Module>, scope: &Arc<Scope>) -> Vec<Registered> {
    let mut found = Vec::new();
    for (name, overloads) in module.by_name() {
        let Some(first) = overloads.first() else { continue };
        let owned = || overloads.iter().map(|f| (*f).clone()).collect();
        found.push(match first.shape {
            Shape::Scalar { .. } => {
                Registered::Scalar(Arc::new(ScalarUDF::new_from_impl(WasmScalar::new(module, owned(), scope))))
            }
            Shape::Aggregate { .. } => {
                Registered::Aggregate(Arc::new(AggregateUDF::new_from_impl(WasmAggregate::new(module, owned(), scope))))
            }
            Shape::Table { .. } => {
                let function = WasmTableFunction::new(module, (*first).clone(), scope);
                Registered::Table(name.to_lowercase(), Arc::new(function))
            }
        });
    }
    found
}

/// `plan` with its functions in `scope`.
///
/// # Errors
/// Those of DataFusion, for a plan that it would not take either.
pub fn enter(plan: LogicalPlan, scope: &Arc<Scope>) -> Result<LogicalPlan> {
    let entered = plan.transform_up_with_subqueries(|node| {
        let node = node.map_expressions(|expr| expr.transform_up(|e| Ok(enter_expression(e, scope))))?;
        node.transform_data(|node| match node {
            LogicalPlan::TableScan(mut scan) => {
                let table = source_as_provider(&scan.source).ok();
                let table = table.as_ref().and_then(|t| t.downcast_ref::<WasmTable>());
                let Some(table) = table else { return Ok(Transformed::no(LogicalPlan::TableScan(scan))) };
                scan.source = Arc::new(DefaultTableSource::new(Arc::new(table.in_scope(scope))));
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            node => Ok(Transformed::no(node)),
        })
    })?;
    Ok(entered.data)
}

fn enter_expression(expr: Expr, scope: &Arc<Scope>) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(mut call) => {
            let Some(function) = call.func.inner().downcast_ref::<WasmScalar>() else {
                return Transformed::no(Expr::ScalarFunction(call));
            };
            call.func = Arc::new(ScalarUDF::new_from_impl(function.in_scope(scope)));
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::AggregateFunction(mut call) => {
            let Some(function) = call.func.inner().downcast_ref::<WasmAggregate>() else {
                return Transformed::no(Expr::AggregateFunction(call));
            };
            call.func = Arc::new(AggregateUDF::new_from_impl(function.in_scope(scope)));
            Transformed::yes(Expr::AggregateFunction(call))
        }
        Expr::WindowFunction(mut call) => {
            let WindowFunctionDefinition::AggregateUDF(function) = &call.fun else {
                return Transformed::no(Expr::WindowFunction(call));
            };
            let Some(function) = function.inner().downcast_ref::<WasmAggregate>() else {
                return Transformed::no(Expr::WindowFunction(call));
            };
            let function = AggregateUDF::new_from_impl(function.in_scope(scope));
            call.fun = WindowFunctionDefinition::AggregateUDF(Arc::new(function));
            Transformed::yes(Expr::WindowFunction(call))
        }
        expr => Transformed::no(expr),
    }
}
