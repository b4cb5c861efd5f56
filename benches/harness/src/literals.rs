//! New literals for a query, so that no day asks what another day asked.
//!
//! A scheme for any query over tables whose column names are unique; a seed makes it repeatable. What it changes:
//!
//! | literal | becomes |
//! |---|---|
//! | dates (`'1995-03-15'`) | all of a query shifted by the same number of days, within the days that have data |
//! | numbers compared with a column named like `…year…`, quarters (`'2000Q1'`), `…month_seq`, `…week_seq` | shifted by the same whole number of years |
//! | text or number that a column is equal to, or IN a list of | other values of that column, frequent ones more likely; one value is mapped to one other, wherever it stands in the query |
//! | number that a column is less or greater than, or BETWEEN | up to 10 % more or less, by the same amount at both ends |
//! | LIKE with one word (`'%green%'`) | a word of another value of that column |
//!
//! Everything else stays: LIMIT, INTERVAL, arguments of functions, literals compared with anything but a column of a table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use chrono::{Datelike, Days, NaiveDate};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Statement, Value, visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::{Failure, Result};

/// Part of its value that a bound moves by at most.
const BOUND_SHIFT: f64 = 0.1;
/// Columns of dates that literals shift with the calendar, never to any other value of the column.
const CALENDAR: [&str; 3] = ["month_seq", "week_seq", "quarter_name"];

/// The frequent values of a column with their counts.
pub(crate) type Values = Vec<(Scalar, u64)>;

/// A value as a literal of SQL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scalar {
    /// Digits as written.
    Number(String),
    Text(String),
}

/// What is known of the data: what columns hold, and the days that have rows.
#[derive(Debug, Clone)]
pub(crate) struct Domains {
    pub(crate) columns: BTreeMap<String, Values>,
    pub(crate) first_day: NaiveDate,
    pub(crate) last_day: NaiveDate,
}

fn parse(sql: &str) -> Result<Statement> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql)
        .map_err(|e| Failure::new(format!("the query cannot be parsed: {e}")))?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => Err(Failure::new("the query is not one statement")),
    }
}

/// Columns that [`redraw`] looks for values of.
pub(crate) fn compared_columns(sql: &str) -> Result<BTreeSet<String>> {
    let statement = parse(sql)?;
    let mut columns = BTreeSet::new();
    let _ = visit_expressions(&statement, |expr| {
        columns.extend(comparison(expr).map(|c| c.column));
        ControlFlow::<()>::Continue(())
    });
    Ok(columns)
}

/// The query with literals drawn anew by `seed`.
pub(crate) fn redraw(sql: &str, domains: &Domains, seed: u64) -> Result<String> {
    let mut statement = parse(sql)?;
    let mut draw = Draw {
        domains,
        random: StdRng::seed_from_u64(seed),
        mapped: BTreeMap::new(),
        taken: BTreeSet::new(),
        days: 0,
        years: 0,
    };
    draw.choose_shift(&statement);
    draw.shift_dates(&mut statement);
    let _ = visit_expressions_mut(&mut statement, |expr| {
        draw.rewrite(expr);
        ControlFlow::<()>::Continue(())
    });
    Ok(statement.to_string())
}

/// A comparison of a column with literals.
struct Comparison {
    column: String,
}

fn comparison(expr: &Expr) -> Option<Comparison> {
    let column = match expr {
        Expr::BinaryOp { left, op, right } if is_comparison(op) => column_name(left).or_else(|| column_name(right)),
        Expr::InList { expr, .. } | Expr::Between { expr, .. } | Expr::Like { expr, .. } => column_name(expr),
        _ => None,
    }?;
    Some(Comparison { column })
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

fn column_name(expr: &Expr) -> Option<String> {
    let name = |ident: &Ident| ident.value.to_lowercase();
    match expr {
        Expr::Identifier(ident) => Some(name(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(name),
        Expr::Nested(inner) => column_name(inner),
        _ => None,
    }
}

/// The literal that an expression is, or begins with: of `0.06 - 0.01` the first.
fn anchor(expr: &mut Expr) -> Option<&mut Value> {
    match expr {
        Expr::Value(value) => Some(&mut value.value),
        Expr::Nested(inner) => anchor(inner),
        Expr::BinaryOp { left, op: BinaryOperator::Plus | BinaryOperator::Minus, .. } => anchor(left),
        _ => None,
    }
}

fn anchor_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) | Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => anchor_text(inner),
        Expr::BinaryOp { left, op: BinaryOperator::Plus | BinaryOperator::Minus, .. } => anchor_text(left),
        _ => None,
    }
}

fn as_date(text: &str) -> Option<NaiveDate> {
    // `1999-3-1` is a date of TPC-DS, too.
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|date| (1000..=9999).contains(&date.year()))
}

fn as_quarter(text: &str) -> Option<(i32, &str)> {
    let (year, quarter) = text.split_once('Q')?;
    let valid = year.len() == 4 && quarter.len() == 1;
    Some((year.parse().ok().filter(|_| valid)?, quarter))
}

fn is_year_column(column: &str) -> bool {
    column.contains("year") && !column.contains("birth")
}

struct Draw<'a> {
    domains: &'a Domains,
    random: StdRng,
    /// New value of each old value of a column.
    mapped: BTreeMap<(String, Scalar), Scalar>,
    /// New values already given out, so that two old values stay two.
    taken: BTreeSet<(String, Scalar)>,
    days: i64,
    years: i32,
}

impl Draw<'_> {
    /// Draws by how much the calendar of the query moves.
    fn choose_shift(&mut self, statement: &Statement) {
        let (mut years, mut dates) = (Vec::new(), Vec::new());
        let _ = visit_expressions(statement, |expr| {
            if let Expr::Value(value) = expr
                && let Value::SingleQuotedString(text) = &value.value
            {
                dates.extend(as_date(text));
                years.extend(as_quarter(text).map(|q| q.0));
            }
            if let Expr::TypedString(typed) = expr
                && let Value::SingleQuotedString(text) = &typed.value.value
            {
                dates.extend(as_date(text));
            }
            if comparison(expr).is_some_and(|c| is_year_column(&c.column)) {
                years.extend(sides(expr).into_iter().filter_map(anchor_text).filter_map(|t| t.parse::<i32>().ok()));
            }
            ControlFlow::<()>::Continue(())
        });
        let years_of_data = (self.domains.first_day.year(), self.domains.last_day.year());
        years.retain(|y| (1900..=2100).contains(y));
        if let (Some(&first), Some(&last)) = (years.iter().min(), years.iter().max()) {
            let room = (years_of_data.0 - first).min(0)..=(years_of_data.1 - last).max(0);
            self.years = self.random.random_range(room);
            self.days = i64::from(self.years) * 365;
        } else if let (Some(&first), Some(&last)) = (dates.iter().min(), dates.iter().max()) {
            let room =
                (self.domains.first_day - first).num_days().min(0)..=(self.domains.last_day - last).num_days().max(0);
            self.days = self.random.random_range(room);
        } else {
            // Sequences of months and weeks only: whole years, and only back and forth by a few.
            self.years = self.random.random_range(-1..=1);
        }
    }

    fn shift_dates(&self, statement: &mut Statement) {
        let shift = |text: &mut String| {
            if let Some(date) = as_date(text) {
                let days = Days::new(self.days.unsigned_abs());
                let moved = if self.days < 0 { date.checked_sub_days(days) } else { date.checked_add_days(days) };
                *text = moved.unwrap_or(date).to_string();
            }
        };
        let _ = visit_expressions_mut(statement, |expr| {
            match expr {
                Expr::Value(value) => {
                    if let Value::SingleQuotedString(text) = &mut value.value {
                        shift(text);
                    }
                }
                Expr::TypedString(typed) => {
                    if let Value::SingleQuotedString(text) = &mut typed.value.value {
                        shift(text);
                    }
                }
                _ => {}
            }
            ControlFlow::<()>::Continue(())
        });
    }

    fn rewrite(&mut self, expr: &mut Expr) {
        let Some(Comparison { column }) = comparison(expr) else { return };
        match expr {
            Expr::BinaryOp { left, op, right } => {
                let literal = if column_name(left).is_some() { right } else { left };
                let Some(value) = anchor(literal) else { return };
                if matches!(op, BinaryOperator::Eq | BinaryOperator::NotEq) {
                    self.replace(&column, value);
                } else {
                    let factor = self.factor();
                    self.move_bound(&column, value, factor);
                }
            }
            Expr::InList { list, .. } => {
                list.iter_mut().filter_map(anchor).for_each(|value| self.replace(&column, value))
            }
            Expr::Between { low, high, .. } => {
                // Both ends by the same amount: that of the lower one.
                let factor = self.factor();
                let by = anchor_text(low).and_then(|t| t.parse::<f64>().ok()).map_or(0.0, |low| low * factor);
                for end in [low, high] {
                    if let Some(value) = anchor(end) {
                        let own =
                            if let Value::Number(text, _) = value { text.parse::<f64>().unwrap_or(1.0) } else { 1.0 };
                        self.move_bound(&column, value, if own == 0.0 { 0.0 } else { by / own });
                    }
                }
            }
            Expr::Like { pattern, .. } => {
                if let Some(Value::SingleQuotedString(text)) = anchor(pattern)
                    && let Some(new) = self.other_pattern(&column, text)
                {
                    *text = new;
                }
            }
            _ => {}
        }
    }

    fn factor(&mut self) -> f64 {
        self.random.random_range(-BOUND_SHIFT..=BOUND_SHIFT)
    }

    /// True if the literal belongs to the calendar, and has been moved with it.
    fn move_with_calendar(&self, column: &str, value: &mut Value) -> bool {
        if let Value::SingleQuotedString(text) = value {
            if let Some((year, quarter)) = as_quarter(text) {
                *text = format!("{}Q{quarter}", year + self.years);
                return true;
            }
            return as_date(text).is_some();
        }
        let steps_a_year = match column {
            _ if is_year_column(column) => 1,
            _ if column.contains("month_seq") => 12,
            _ if column.contains("week_seq") => 52,
            _ => return false,
        };
        if let Value::Number(text, _) = value
            && let Ok(number) = text.parse::<i64>()
            && number > 366
        {
            *text = (number + i64::from(self.years) * steps_a_year).to_string();
        }
        true
    }

    /// Another value of the column, if it is a column of a table whose values are known.
    fn replace(&mut self, column: &str, value: &mut Value) {
        if self.move_with_calendar(column, value) || CALENDAR.iter().any(|c| column.contains(c)) {
            return;
        }
        let old = match value {
            Value::Number(text, _) => Scalar::Number(text.clone()),
            Value::SingleQuotedString(text) => Scalar::Text(text.clone()),
            _ => return,
        };
        let key = (column.to_owned(), old);
        let new = match self.mapped.get(&key) {
            Some(new) => new.clone(),
            None => {
                let Some(new) = self.other_value(column, &key.1) else { return };
                self.taken.insert((column.to_owned(), new.clone()));
                self.mapped.insert(key, new.clone());
                new
            }
        };
        match (value, new) {
            (Value::Number(text, _), Scalar::Number(new)) | (Value::SingleQuotedString(text), Scalar::Text(new)) => {
                *text = new
            }
            _ => {}
        }
    }

    fn other_value(&mut self, column: &str, old: &Scalar) -> Option<Scalar> {
        let same_kind = |value: &Scalar| {
            matches!((value, old), (Scalar::Number(_), Scalar::Number(_)) | (Scalar::Text(_), Scalar::Text(_)))
        };
        let free: Vec<&(Scalar, u64)> = self
            .domains
            .columns
            .get(column)?
            .iter()
            .filter(|(value, _)| same_kind(value) && !self.taken.contains(&(column.to_owned(), value.clone())))
            .collect();
        let total: u64 = free.iter().map(|(_, count)| count).sum();
        let mut at = if total == 0 { return None } else { self.random.random_range(0..total) };
        for (value, count) in free {
            if at < *count {
                return Some(value.clone());
            }
            at -= count;
        }
        None
    }

    fn move_bound(&self, column: &str, value: &mut Value, factor: f64) {
        if self.move_with_calendar(column, value) || !self.domains.columns.contains_key(column) {
            return;
        }
        let Value::Number(text, _) = value else { return };
        let Ok(number) = text.parse::<f64>() else { return };
        let digits = text.split_once('.').map_or(0, |(_, digits)| digits.len());
        let moved = number + number * factor;
        if !text.contains(['e', 'E']) {
            *text = format!("{moved:.digits$}");
        }
    }

    /// `'%green%'` with a word of another value of the column; none if the pattern is not one word with `%` around it.
    fn other_pattern(&mut self, column: &str, pattern: &str) -> Option<String> {
        let word = pattern.trim_matches('%');
        if word.is_empty() || word.contains(['%', '_', ' ']) {
            return None;
        }
        let values = self.domains.columns.get(column)?;
        let value = values.get(self.random.random_range(0..values.len().max(1)))?;
        let Scalar::Text(text) = &value.0 else { return None };
        let words: Vec<&str> = text.split_whitespace().filter(|w| !w.contains(['%', '_', '\''])).collect();
        let new = match (pattern.starts_with('%'), pattern.ends_with('%')) {
            (true, false) => words.last(),
            (false, true) => words.first(),
            _ => words.get(self.random.random_range(0..words.len().max(1))),
        }?;
        Some(pattern.replacen(word, new, 1))
    }
}

/// Expressions that a comparison compares.
fn sides(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::BinaryOp { left, right, .. } => vec![left, right],
        Expr::InList { list, .. } => list.iter().collect(),
        Expr::Between { low, high, .. } => vec![low, high],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
