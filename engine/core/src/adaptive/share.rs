//! Subplans that a query has more than once, e.g. a CTE with several readers: found where they are equal after optimisation, so that no
//! filter of a single reader is lost.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;

use super::path::subqueries;

/// A subplan and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shared {
    /// From the root, the number of the input or subquery to go to, for each occurrence.
    pub(crate) paths: Vec<Vec<usize>>,
}

/// The largest subplans that stand more than once in `plan` and do work that is worth keeping: those with an aggregate, a window or a
/// DISTINCT in them. What lies within one of them is not looked at again.
pub(crate) fn repeated(plan: &LogicalPlan) -> Vec<Shared> {
    if !scans_twice(plan) {
        return Vec::new();
    }
    // Scalar subqueries are plans of their own, with places in this one.
    let mut queries: Vec<(Vec<usize>, Arc<LogicalPlan>)> = Vec::new();
    within(plan, &mut Vec::new(), &mut queries);
    let mut search = Search { occurrences: HashMap::new(), path: Vec::new() };
    search.collect(plan, false);
    for (path, query) in &queries {
        search.path.clone_from(path);
        search.collect(query, false);
    }
    let occurrences = search.occurrences;
    let mut found: Vec<Shared> = Vec::new();
    pick(plan, &occurrences, &mut found);
    queries.iter().for_each(|(_, query)| pick(query, &occurrences, &mut found));
    found
}

/// Subqueries of `plan`, which stands at `path`, with their places; the outer before the inner.
#[recursive::recursive]
fn within(plan: &LogicalPlan, path: &mut Vec<usize>, found: &mut Vec<(Vec<usize>, Arc<LogicalPlan>)>) {
    let inputs = plan.inputs();
    for (i, input) in inputs.iter().enumerate() {
        path.push(i);
        within(input, path, found);
        path.pop();
    }
    for (i, query) in subqueries(plan).into_iter().enumerate() {
        let Some(query) = query else { continue };
        path.push(inputs.len() + i);
        found.push((path.clone(), Arc::clone(&query)));
        within(&query, path, found);
        path.pop();
    }
}

/// A subplan can only repeat where a table does.
fn scans_twice(plan: &LogicalPlan) -> bool {
    let mut tables: Vec<TableReference> = Vec::new();
    let mut twice = false;
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            twice |= tables.contains(&scan.table_name);
            tables.push(scan.table_name.clone());
        }
        Ok(if twice { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.is_ok() && twice
}

struct Search<'a> {
    occurrences: HashMap<&'a LogicalPlan, Vec<Vec<usize>>>,
    path: Vec<usize>,
}

impl<'a> Search<'a> {
    /// Notes all candidates in `plan`; says whether it does work that is worth keeping, and that nothing in it forbids that. `limited`: a
    /// LIMIT above may stop pulling.
    #[recursive::recursive]
    fn collect(&mut self, plan: &'a LogicalPlan, limited: bool) -> Work {
        let blocking = matches!(
            plan,
            LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(_) | LogicalPlan::Sort(_)
        );
        let below = (limited || matches!(plan, LogicalPlan::Limit(_))) && !blocking;
        let mut work = Work { reduces: false, allowed: true };
        for (i, input) in plan.inputs().into_iter().enumerate() {
            self.path.push(i);
            let input = self.collect(input, below);
            self.path.pop();
            work.reduces |= input.reduces;
            work.allowed &= input.allowed;
        }
        work.reduces |= matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(_));
        work.allowed &= may_be_shared(plan);
        let early = limited && !blocking;
        if work.reduces && work.allowed && !early {
            self.occurrences.entry(plan).or_default().push(self.path.clone());
        }
        work
    }
}

#[derive(Clone, Copy)]
struct Work {
    reduces: bool,
    allowed: bool,
}

fn may_be_shared(plan: &LogicalPlan) -> bool {
    let kind = !matches!(
        plan,
        LogicalPlan::RecursiveQuery(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::Statement(_)
    );
    let mut plain = true;
    let visited = plan.apply_expressions(|expr| {
        plain &= !expr.is_volatile() && !expr.contains_outer() && !expr.contains_scalar_subquery();
        Ok(TreeNodeRecursion::Continue)
    });
    kind && plain && visited.is_ok()
}

/// From the root down, the first that repeat.
#[recursive::recursive]
fn pick(plan: &LogicalPlan, occurrences: &HashMap<&LogicalPlan, Vec<Vec<usize>>>, found: &mut Vec<Shared>) {
    if let Some(paths) = occurrences.get(plan)
        && paths.len() > 1
    {
        let shared = Shared { paths: paths.clone() };
        // Those inside another that is shared stand at fewer places once that one is a leaf.
        let inside = found.iter().flat_map(|f| &f.paths).any(|outer| paths.iter().any(|path| path.starts_with(outer)));
        if !found.contains(&shared) && !inside {
            found.push(shared);
        }
        return;
    }
    plan.inputs().into_iter().for_each(|input| pick(input, occurrences, found));
}
