//! Which steps run, who reads whom, and for how long results must be kept.

use std::collections::BTreeSet;

use crate::definition::{Condition, Step};
use crate::sql_refs::{self, References, Syntax};
use crate::step::Way;

/// A step of a run and how its result gets to those who read it. Index: position among the steps that run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Earlier steps of the run that it reads, in queries or checks.
    pub(crate) reads: Vec<usize>,
    /// Number of later steps that read it.
    pub(crate) readers: usize,
    /// What is done with its result.
    pub(crate) way: Way,
    /// The last step during which its result is read, by itself or as a part of what was inlined; its own where there is none.
    pub(crate) needed_until: usize,
}

/// Routes of `steps`, which are in an order in which they can run.
pub(crate) fn routes(steps: &[&Step], syntax: &Syntax) -> Vec<Route> {
    let mentions: Vec<Vec<usize>> = steps.iter().map(|reader| mentions(reader, steps, syntax)).collect();
    let mut routes: Vec<Route> = Vec::with_capacity(steps.len());
    for (i, step) in steps.iter().enumerate() {
        let reads = (0..i).filter(|&other| mentions[i][other] > 0).collect();
        let readers: Vec<usize> = (i + 1..steps.len()).filter(|&reader| mentions[reader][i] > 0).collect();
        let named = readers.iter().map(|&reader| mentions[reader][i]).sum();
        let way = Way::of(step, readers.len(), named);
        routes.push(Route { reads, readers: readers.len(), way, needed_until: i });
    }
    // An inlined step reads when its reader runs.
    for i in (0..steps.len()).rev() {
        let until = match routes[i].way {
            Way::Inline => routes[i].needed_until,
            _ => i,
        };
        for read in routes[i].reads.clone() {
            routes[read].needed_until = routes[read].needed_until.max(until);
        }
    }
    routes
}

/// How often `reader` names each of `steps`.
fn mentions(reader: &Step, steps: &[&Step], syntax: &Syntax) -> Vec<usize> {
    let named = |references: &References, step: &Step| {
        let is_step = |parts: &[String]| parts.last().is_some_and(|last| last.eq_ignore_ascii_case(&step.name));
        references.tables.iter().filter(|table| is_step(&table.parts)).count()
    };
    let query = sql_refs::query(&reader.sql.sql, syntax).unwrap_or_default();
    let checks: Vec<References> =
        reader.checks.iter().map(|check| check_references(&check.condition, syntax)).collect();
    let declared: BTreeSet<&str> = reader.reads.iter().map(String::as_str).collect();
    steps
        .iter()
        .map(|step| {
            let at_least = usize::from(declared.contains(step.name.as_str()));
            named(&query, step).max(at_least) + checks.iter().map(|check| named(check, step)).sum::<usize>()
        })
        .collect()
}

fn check_references(condition: &Condition, syntax: &Syntax) -> References {
    match condition {
        Condition::EachRow(expression) => sql_refs::expression(expression, syntax).unwrap_or_default(),
        Condition::Query(sql) => sql_refs::query(sql, syntax).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes of steps given as (name, query, has a Parquet output, query of a check).
    fn routes(steps: &[(&str, &str, bool, Option<&str>)]) -> Vec<Route> {
        let mut toml = "name = \"p\"\n".to_owned();
        for (name, query, output, check) in steps {
            toml += &format!("[[step]]\nname = \"{name}\"\nquery = \"{query}\"\n");
            if *output {
                toml += &format!("output.path = \"out/{name}.parquet\"\n");
            }
            if let Some(check) = check {
                toml += &format!("checks = [{{ name = \"c\", sql = \"{check}\" }}]\n");
            }
        }
        let path = std::path::Path::new("pipeline.toml");
        let loaded = crate::load_text(path, std::sync::Arc::from(toml), &|_| None).unwrap();
        let steps: Vec<&Step> = loaded.pipeline.steps.iter().collect();
        super::routes(&steps, &Syntax::default())
    }

    #[test]
    fn an_intermediate_with_one_reader_is_inlined() {
        let found = routes(&[("a", "SELECT 1 AS x", false, None), ("b", "SELECT * FROM a", true, None)]);
        assert_eq!(found[0], Route { reads: vec![], readers: 1, way: Way::Inline, needed_until: 1 });
        assert_eq!(found[1], Route { reads: vec![0], readers: 0, way: Way::Write, needed_until: 1 });
    }

    #[test]
    fn one_that_is_named_twice_is_kept() {
        let twice = "SELECT * FROM a JOIN A AS again USING (x)";
        assert_eq!(routes(&[("a", "SELECT random() AS x", false, None), ("b", twice, true, None)])[0].way, Way::Keep);
    }

    #[test]
    fn what_an_inlined_step_reads_is_needed_by_its_reader() {
        let found = routes(&[
            ("a", "SELECT 1 AS x", false, None),
            ("b", "SELECT * FROM a", false, None),
            ("c", "SELECT * FROM a", true, None),
            ("d", "SELECT * FROM b", true, None),
        ]);
        assert_eq!((found[0].way, found[0].needed_until), (Way::Keep, 3));
        assert_eq!((found[1].way, found[1].needed_until), (Way::Inline, 3));
    }

    #[test]
    fn checks_read_too() {
        let found = routes(&[
            ("a", "SELECT 1 AS x", false, None),
            ("b", "SELECT * FROM a", true, Some("SELECT count(*) = (SELECT count(*) FROM a) FROM b")),
        ]);
        assert_eq!((found[0].way, found[0].needed_until), (Way::Keep, 1));
        // A step names itself in its checks: that makes no reader of it.
        assert_eq!((found[1].reads.as_slice(), found[1].readers), ([0].as_slice(), 0));
    }
}
