//! Random queries over random schemas.

use std::fmt::Write;

use rand::Rng;
use rand::rngs::StdRng;

use super::schema::{Content, Table, Tables};

/// A query of random form, of no meaning.
pub(super) fn random_query(random: &mut StdRng, schema: &Tables) -> String {
    let fact = random.random_range(0..schema.facts);
    let mut used = vec![fact];
    let mut from = format!("{0} AS {0}", schema.tables[fact].name);
    let mut filters = Vec::new();
    let joins = if random.random_bool(0.2) { 0 } else { random.random_range(1..=4) };
    for _ in 0..joins {
        // Any reference of a table that is there already.
        let references: Vec<(usize, usize)> = used
            .iter()
            .flat_map(|&table| {
                schema.tables[table].columns.iter().filter_map(move |c| refers(c.content).map(|to| (table, to)))
            })
            .filter(|(_, to)| !used.contains(to))
            .collect();
        let Some(&(table, to)) = pick(random, &references) else { break };
        let kind = ["JOIN", "JOIN", "JOIN", "LEFT JOIN", "FULL JOIN"][random.random_range(0..5)];
        let (left, right) = (&schema.tables[table].name, &schema.tables[to].name);
        let _ = write!(from, " {kind} {right} AS {right} ON {left}.r{to} = {right}.id");
        used.push(to);
    }
    for &table in &used {
        if random.random_bool(0.5) {
            filters.extend(filter(random, &schema.tables[table]));
        }
    }
    if random.random_bool(0.15) {
        let references: Vec<usize> = schema.tables[fact]
            .columns
            .iter()
            .filter_map(|c| refers(c.content))
            .filter(|to| !used.contains(to))
            .collect();
        if let Some(&to) = pick(random, &references) {
            let not = if random.random_bool(0.3) { "NOT " } else { "" };
            let inner = filter(random, &schema.tables[to]).map(|f| format!(" WHERE {f}")).unwrap_or_default();
            let (outer, table) = (&schema.tables[fact].name, &schema.tables[to].name);
            let joined = match inner.is_empty() {
                true => format!(" WHERE {table}.id = {outer}.r{to}"),
                false => format!("{inner} AND {table}.id = {outer}.r{to}"),
            };
            filters.push(format!("{not}EXISTS (SELECT 1 FROM {table}{joined})"));
        }
    }
    let filtered = if filters.is_empty() { String::new() } else { format!(" WHERE {}", filters.join(" AND ")) };
    let columns: Vec<(String, Content)> = used
        .iter()
        .flat_map(|&t| {
            schema.tables[t].columns.iter().map(move |c| (format!("{}.{}", schema.tables[t].name, c.name), c.content))
        })
        .collect();
    let any = |random: &mut StdRng| columns[random.random_range(0..columns.len())].0.clone();
    let some = |random: &mut StdRng, n: usize| -> Vec<String> {
        let mut chosen: Vec<String> = (0..n).map(|_| any(random)).collect();
        chosen.sort();
        chosen.dedup();
        chosen
    };
    let measure = |random: &mut StdRng| numeric(random, &columns).unwrap_or_else(|| "1".to_owned());
    match random.random_range(0..12) {
        // Groups.
        0..=5 => {
            let groups = random.random_range(0..=3);
            let keys = some(random, groups);
            let functions: Vec<String> =
                (0..random.random_range(1..=5)).map(|i| format!("{} AS a{i}", aggregate(random, &columns))).collect();
            let listed: Vec<String> = keys.iter().cloned().chain(functions).collect();
            let grouped = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
            let ordered = match random.random_range(0..3) {
                0 => format!(" ORDER BY a0 DESC LIMIT {}", random.random_range(1..500)),
                1 if !keys.is_empty() => format!(" ORDER BY {}", keys.join(", ")),
                _ => String::new(),
            };
            format!("SELECT {} FROM {from}{filtered}{grouped}{ordered}", listed.join(", "))
        }
        // Rows in an order, all of them or the first.
        6 | 7 => {
            let shown = random.random_range(1..=6);
            let (listed, order) = (some(random, shown), any(random));
            let limit = match random.random_range(0..3) {
                0 => String::new(),
                _ => format!(" LIMIT {}", random.random_range(1..2000)),
            };
            format!("SELECT {} FROM {from}{filtered} ORDER BY {order}{limit}", listed.join(", "))
        }
        // Computed columns.
        8 => {
            let (a, b) = (measure(random), measure(random));
            let key = any(random);
            format!(
                "SELECT {key}, {a} * 2 + {b} AS x, CASE WHEN {a} > {b} THEN {a} ELSE 0 END AS y FROM {from}{filtered}"
            )
        }
        // Windows.
        9 | 10 => {
            let (key, order, value) = (any(random), any(random), measure(random));
            let function = ["row_number()", "rank()", "sum(V)", "avg(V)", "lag(V)"][random.random_range(0..5)]
                .replace('V', &value);
            format!(
                "SELECT count(*), max(w) FROM (SELECT {function} OVER (PARTITION BY {key} ORDER BY {order}) AS w FROM {from}{filtered}) AS windows"
            )
        }
        // Groups of two halves.
        _ => {
            let (key, value) = (any(random), measure(random));
            format!(
                "SELECT k, sum(v) FROM (SELECT {key} AS k, {value} AS v FROM {from}{filtered} UNION ALL SELECT {key} AS k, {value} AS v FROM {from}) AS both_halves GROUP BY k"
            )
        }
    }
}

fn refers(content: Content) -> Option<usize> {
    match content {
        Content::Refers { table, .. } => Some(table),
        _ => None,
    }
}

fn pick<'a, T>(random: &mut StdRng, from: &'a [T]) -> Option<&'a T> {
    if from.is_empty() { None } else { from.get(random.random_range(0..from.len())) }
}

fn numeric(random: &mut StdRng, columns: &[(String, Content)]) -> Option<String> {
    let numbers: Vec<&String> = columns
        .iter()
        .filter(|(_, c)| matches!(c, Content::Integer(_) | Content::Float | Content::Amount | Content::Id))
        .map(|(name, _)| name)
        .collect();
    pick(random, &numbers)
        .map(|name| format!("CAST({name} AS DOUBLE)"))
        .filter(|_| random.random_bool(0.3))
        .or_else(|| pick(random, &numbers).map(|name| (*name).clone()))
}

fn aggregate(random: &mut StdRng, columns: &[(String, Content)]) -> String {
    let any = columns[random.random_range(0..columns.len())].0.clone();
    let number = numeric(random, columns).unwrap_or_else(|| "1".to_owned());
    match random.random_range(0..9) {
        0 | 1 => "count(*)".to_owned(),
        2 | 3 => format!("sum({number})"),
        4 => format!("avg({number})"),
        5 => format!("min({any})"),
        6 => format!("max({number})"),
        7 => format!("sum(CASE WHEN {number} > 100 THEN {number} ELSE 0 END)"),
        _ => format!("count(DISTINCT {any})"),
    }
}

/// A condition on one column of `table`, of any selectivity.
fn filter(random: &mut StdRng, table: &Table) -> Option<String> {
    let column = pick(random, &table.columns)?;
    let name = format!("{}.{}", table.name, column.name);
    let share: f64 = random.random_range(0.001_f64..1.0);
    Some(match column.content {
        Content::Id => format!("{name} < {}", (table.rows as f64 * share) as i64),
        Content::Refers { rows, .. } => format!("{name} >= {}", (rows as f64 * share) as i64),
        Content::Integer(bound) => format!("{name} < {}", (bound as f64 * share) as i64 + 1),
        Content::Float => format!("{name} > {:.1}", 1000.0 * share),
        Content::Amount => format!("{name} BETWEEN {:.2} AND 90000", 100_000.0 * share * 0.9),
        Content::Day => format!("{name} >= CAST('2009-01-01' AS DATE) + INTERVAL '{}' DAY", (3000.0 * share) as i64),
        Content::Word(words) => match random.random_range(0..3) {
            0 => format!("{name} = 'word {}'", random.random_range(0..words.max(1))),
            1 => format!("{name} IN ('word 0', 'word 1', 'word 2', 'word 5', 'word 7')"),
            _ => format!("{name} LIKE 'word {}%'", random.random_range(1..10)),
        },
        Content::Text(_) => format!("{name} LIKE '%{}%'", ["a", "qu", "ing", "z"][random.random_range(0..4)]),
    })
}
