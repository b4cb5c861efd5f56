//! What is run over the skewed facts: joins of each type, distinct counts, windows.

use serde::Serialize;

use crate::error::{Failure, Result};

/// What a case stresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Join,
    Aggregate,
    Window,
}

/// A query over `{fact}`, which stands for the skewed facts or the even ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    sql: &'static str,
}

impl Case {
    /// The text over the table `fact`.
    pub(crate) fn sql(&self, fact: &str) -> String {
        self.sql.replace("{fact}", fact)
    }
}

const fn join(name: &'static str, sql: &'static str) -> Case {
    Case { name, kind: Kind::Join, sql }
}

const fn window(name: &'static str, sql: &'static str) -> Case {
    Case { name, kind: Kind::Window, sql }
}

/// All cases. Each aggregates what the stage of interest gives: the result is one row, but every row of the stage is in it. Sums of
/// windows are taken of remainders, which fit an integer.
const CASES: [Case; 15] = [
    join(
        "inner",
        "SELECT count(*) AS n, sum(f.v) AS v, sum(f.f) AS f, sum(d.w) AS w, sum((f.v + d.w) % 1009) AS m \
         FROM {fact} f JOIN dim d ON f.k = d.k",
    ),
    join(
        "left",
        "SELECT count(*) AS n, count(d.k) AS matched, sum(f.v) AS v, sum(f.f) AS f, sum(d.w) AS w \
         FROM {fact} f LEFT JOIN dim d ON f.k = d.k",
    ),
    join(
        "right",
        "SELECT count(*) AS n, count(f.v) AS matched, sum(f.v) AS v, sum(f.f) AS f, sum(d.w) AS w \
         FROM {fact} f RIGHT JOIN dim d ON f.k = d.k",
    ),
    join(
        "full",
        "SELECT count(*) AS n, count(f.v) AS facts, count(d.w) AS dims, sum(f.v) AS v, sum(f.f) AS f, sum(d.w) AS w \
         FROM {fact} f FULL JOIN dim d ON f.k = d.k",
    ),
    join(
        "left_semi",
        "SELECT count(*) AS n, sum(f.v) AS v, sum(f.f) AS f FROM {fact} f LEFT SEMI JOIN dim d ON f.k = d.k",
    ),
    join(
        "right_semi",
        "SELECT count(*) AS n, sum(d.k) AS k, sum(d.w) AS w FROM {fact} f RIGHT SEMI JOIN dim d ON f.k = d.k",
    ),
    join(
        "left_anti",
        "SELECT count(*) AS n, sum(f.v) AS v, sum(f.f) AS f FROM {fact} f LEFT ANTI JOIN dim d ON f.k = d.k",
    ),
    join(
        "right_anti",
        "SELECT count(*) AS n, sum(d.k) AS k, sum(d.w) AS w FROM {fact} f RIGHT ANTI JOIN dim d ON f.k = d.k",
    ),
    join(
        "mark",
        "SELECT count(*) AS n, sum(f.v) AS v, sum(f.f) AS f FROM {fact} f \
         WHERE EXISTS (SELECT 1 FROM dim d WHERE d.k = f.k) OR f.v < 1000",
    ),
    Case {
        name: "distinct_two",
        kind: Kind::Aggregate,
        sql: "SELECT count(*) AS n, sum(a) AS a, sum(b) AS b, max(a) AS most, sum(c) AS c FROM \
              (SELECT k, count(DISTINCT d) AS a, count(DISTINCT v) AS b, sum(f) AS c FROM {fact} GROUP BY k)",
    },
    Case {
        name: "distinct_one",
        kind: Kind::Aggregate,
        sql: "SELECT count(*) AS n, sum(a) AS a, max(a) AS most, sum(c) AS c FROM \
              (SELECT k, count(DISTINCT d) AS a, sum(v) AS c FROM {fact} GROUP BY k)",
    },
    window(
        "row_number",
        "SELECT count(*) AS n, sum(r) AS r, max(r) AS most FROM \
         (SELECT row_number() OVER (PARTITION BY k ORDER BY d) AS r FROM {fact})",
    ),
    window(
        "rank",
        "SELECT count(*) AS n, sum(r) AS r, max(r) AS most FROM \
         (SELECT rank() OVER (PARTITION BY k ORDER BY d) AS r FROM {fact})",
    ),
    window(
        "running_sum",
        "SELECT count(*) AS n, sum(r % 1000003) AS r, max(r) AS most FROM \
         (SELECT sum(v) OVER (PARTITION BY k ORDER BY d) AS r FROM {fact})",
    ),
    window(
        "whole_sum",
        "SELECT count(*) AS n, sum((r + v) % 1000003) AS r, max(r) AS most FROM \
         (SELECT v, sum(v) OVER (PARTITION BY k) AS r FROM {fact})",
    ),
];

/// The cases named `only`, or all where that is empty, in the order of the report.
pub(crate) fn load(only: &[String]) -> Result<Vec<Case>> {
    if let Some(unknown) = only.iter().find(|name| CASES.iter().all(|case| case.name != **name)) {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(Failure::new(format!("there is no case `{unknown}`"))
            .with_hint(format!("the cases are {}", names.join(", "))));
    }
    Ok(CASES.into_iter().filter(|case| only.is_empty() || only.iter().any(|name| name == case.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_told_apart_and_unknown_ones_refused() {
        let all = load(&[]).unwrap();
        let mut names: Vec<_> = all.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|case| case.sql("even").contains("FROM even") && !case.sql("even").contains('{')));
        let two = load(&["rank".into(), "full".into()]).unwrap();
        assert_eq!(two.iter().map(|case| case.name).collect::<Vec<_>>(), ["full", "rank"]);
        assert!(load(&["cross".into()]).unwrap_err().to_string().contains("inner, left, right"));
    }
}
