//! What a query names: the tables that it reads and the parameters that it uses, with their places; from its text alone.

use std::ops::{ControlFlow, Range};

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement as DFStatement};
use datafusion::sql::sqlparser::ast::{
    Ident, ObjectName, Query, Select, SetExpr, Spanned, Statement, TableFactor, Value, ValueWithSpan, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, dialect_from_str};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, Tokenizer};
use sparklet_core::Session;

/// Operators in one chain at the most.
const MAX_CHAIN: usize = 5000;

/// How SQL is read: DataFusion's settings that change what a name means.
pub struct Syntax {
    /// Names without quotes are taken in lower case.
    pub lower_case: bool,
    /// The dialect.
    pub dialect: Box<dyn Dialect>,
}

impl Default for Syntax {
    fn default() -> Self {
        Self { lower_case: true, dialect: Box::new(GenericDialect {}) }
    }
}

impl Syntax {
    /// From settings by dotted name.
    pub fn from_settings<'a>(setting: impl Fn(&str) -> Option<&'a str>) -> Self {
        let dialect = setting("datafusion.sql_parser.dialect").and_then(dialect_from_str);
        Self {
            lower_case: setting("datafusion.sql_parser.enable_ident_normalization") != Some("false"),
            dialect: dialect.unwrap_or_else(|| Box::new(GenericDialect {})),
        }
    }

    /// As `session` reads SQL.
    pub fn of(session: &Session) -> Self {
        let state = session.context().state();
        let parser = &state.config_options().sql_parser;
        let dialect = dialect_from_str(parser.dialect);
        Self {
            lower_case: parser.enable_ident_normalization,
            dialect: dialect.unwrap_or_else(|| Box::new(GenericDialect {})),
        }
    }
}

/// What a query, or an expression, names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Tables that are not defined in the query itself, in the order of the text; the same name may come again.
    pub tables: Vec<TableName>,
    /// Placeholders, in the order of the text.
    pub params: Vec<Placeholder>,
}

/// A table as it is named in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// The parts between dots, in lower case where they have no quotes.
    pub parts: Vec<String>,
    /// True if the name stands in single quotes: a file.
    pub file: bool,
    /// Byte range in the SQL.
    pub range: Range<usize>,
}

/// A placeholder as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// With its mark, e.g. `$day`.
    pub text: String,
    /// Byte range in the SQL.
    pub range: Range<usize>,
}

/// SQL that cannot be read, or is not what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// What is wrong, in lower case.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Byte range in the SQL.
    pub range: Range<usize>,
}

/// Reads one query (SELECT, WITH, VALUES, …).
///
/// # Errors
/// Bad syntax, no statement, several of them, or one that is not a query.
pub fn query(sql: &str, syntax: &Syntax) -> Result<References, SyntaxError> {
    no_long_chain(sql, syntax)?;
    let mut parser =
        DFParserBuilder::new(sql).with_dialect(&*syntax.dialect).build().map_err(|e| syntax_error(sql, &e))?;
    let statements = parser.parse_statements().map_err(|e| syntax_error(sql, &e))?;
    let first = first_word(sql);
    let not_a_query = |what: String, range: Range<usize>| SyntaxError {
        message: format!("{what} is not a query"),
        hint: Some("a step is one SELECT (or WITH, VALUES); its `output` says where the result goes".to_owned()),
        range,
    };
    let mut statements = statements.into_iter();
    let statement = match (statements.next(), statements.next()) {
        (None, _) => {
            let message = "there is no query, only comments or `;`".to_owned();
            return Err(SyntaxError { message, hint: Some("write a SELECT".to_owned()), range: 0..0 });
        }
        (Some(_), Some(second)) => {
            let range = match &second {
                DFStatement::Statement(s) => byte_range(sql, s.span()),
                _ => None,
            };
            return Err(SyntaxError {
                message: "there is more than one statement".to_owned(),
                hint: Some("a step is one query; make a step of each".to_owned()),
                range: range.unwrap_or(first),
            });
        }
        (Some(one), None) => one,
    };
    let DFStatement::Statement(statement) = statement else {
        return Err(not_a_query(named(sql, &first), first));
    };
    let Statement::Query(query) = *statement else {
        return Err(not_a_query(named(sql, &first), first));
    };
    if let Some(what) = changes(&query) {
        return Err(not_a_query(what, first));
    }
    Ok(references(&*query, sql, syntax))
}

/// Reads one expression, the condition of a row check.
///
/// # Errors
/// Bad syntax, or something after the expression.
pub fn expression(sql: &str, syntax: &Syntax) -> Result<References, SyntaxError> {
    no_long_chain(sql, syntax)?;
    let mut parser =
        DFParserBuilder::new(sql).with_dialect(&*syntax.dialect).build().map_err(|e| syntax_error(sql, &e))?;
    let expression = parser.parse_expr().map_err(|e| syntax_error(sql, &e))?;
    let next = parser.parser.peek_token();
    if next.token != Token::EOF {
        let range = byte_range(sql, next.span).unwrap_or(0..sql.len());
        return Err(SyntaxError {
            message: format!("expected the end of the expression, found `{}`", next.token),
            hint: Some("a row check is one boolean expression, e.g. `total >= 0`".to_owned()),
            range,
        });
    }
    Ok(references(&expression.expr, sql, syntax))
}

/// Refuses chains of operators (`a + b + …`, `… UNION …`) that are longer than any person writes: they become trees as deep as they are
/// long, and a tree too deep for the stack would end the process. Lists (`IN (…)`, `VALUES`) are as long as they like.
fn no_long_chain(sql: &str, syntax: &Syntax) -> Result<(), SyntaxError> {
    if sql.len() < MAX_CHAIN {
        return Ok(());
    }
    // What the tokenizer does not like, the parser says better.
    let Ok(tokens) = Tokenizer::new(&*syntax.dialect, sql).tokenize_with_location() else { return Ok(()) };
    let (mut chains, mut queries) = (vec![0usize], 0usize);
    for token in &tokens {
        match &token.token {
            Token::LParen | Token::LBracket => chains.push(0),
            Token::RParen | Token::RBracket => {
                chains.pop();
            }
            Token::Comma => chains.last_mut().into_iter().for_each(|c| *c = 0),
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => {}
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::JOIN => queries += 1,
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::IN
                | Keyword::BETWEEN => {
                    chains.last_mut().into_iter().for_each(|c| *c += 1);
                }
                _ => {}
            },
            // Every other mark may be an operator.
            _ => chains.last_mut().into_iter().for_each(|c| *c += 1),
        }
        if queries >= MAX_CHAIN || chains.last().is_some_and(|c| *c >= MAX_CHAIN) {
            return Err(SyntaxError {
                message: format!("a chain of more than {MAX_CHAIN} operators"),
                hint: Some("use a list, `x IN (…)`, or join with a table".to_owned()),
                range: byte_range(sql, token.span).unwrap_or(0..0),
            });
        }
    }
    Ok(())
}

fn references<T: Visit>(node: &T, sql: &str, syntax: &Syntax) -> References {
    let mut collector =
        Collector { sql, syntax, in_scope: Vec::new(), functions: Vec::new(), found: References::default() };
    let _ = node.visit(&mut collector);
    let mut found = collector.found;
    found.tables.sort_by_key(|t| t.range.start);
    found.tables.dedup();
    found.params.sort_by_key(|p| p.range.start);
    found.params.dedup();
    found
}

struct Collector<'a> {
    sql: &'a str,
    syntax: &'a Syntax,
    in_scope: Vec<String>,
    functions: Vec<ObjectName>,
    found: References,
}

impl Collector<'_> {
    fn normal(&self, ident: &Ident) -> String {
        if ident.quote_style.is_none() && self.syntax.lower_case {
            ident.value.to_lowercase()
        } else {
            ident.value.clone()
        }
    }
}

impl Visitor for Collector<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            // A table expression does not see itself, so that `WITH t AS (SELECT * FROM t)` reads the table `t`: it is visited before
            // its name is in scope, and once more, without effect, as a part of the query.
            if !query.with.as_ref().is_some_and(|w| w.recursive) {
                cte.visit(self)?;
            }
            self.in_scope.push(self.normal(&cte.alias.name));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let names = query.with.iter().flat_map(|with| &with.cte_tables).count();
        self.in_scope.truncate(self.in_scope.len() - names);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: Some(_), .. } = factor {
            self.functions.push(name.clone());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        // `generate_series(1, 10)` is visited as a relation right after its table factor.
        if self.functions.last() == Some(name) {
            self.functions.pop();
            return ControlFlow::Continue(());
        }
        let idents: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
        let parts: Vec<String> = idents.iter().map(|i| self.normal(i)).collect();
        if parts.len() == 1 && self.in_scope.contains(&parts[0]) {
            return ControlFlow::Continue(());
        }
        let file = idents.len() == 1 && idents[0].quote_style == Some('\'');
        // The parser gives no place to names in single quotes.
        let range = byte_range(self.sql, name.span()).or_else(|| {
            let text = name.to_string();
            self.sql.find(&text).map(|at| at..at + text.len())
        });
        let range = range.unwrap_or(0..0);
        self.found.tables.push(TableName { parts, file, range });
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        if let Value::Placeholder(text) = &value.value {
            let range = byte_range(self.sql, value.span).unwrap_or(0..0);
            self.found.params.push(Placeholder { text: text.clone(), range });
        }
        ControlFlow::Continue(())
    }
}

/// What a query does besides reading, if anything.
fn changes(query: &Query) -> Option<String> {
    struct Finder(Option<String>);
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            if select.into.is_some() {
                self.0 = Some("`SELECT INTO`".to_owned());
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let what = match &*query.body {
                SetExpr::Insert(_) => "`INSERT`",
                SetExpr::Update(_) => "`UPDATE`",
                SetExpr::Delete(_) => "`DELETE`",
                SetExpr::Merge(_) => "`MERGE`",
                _ => return ControlFlow::Continue(()),
            };
            self.0 = Some(what.to_owned());
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder(None);
    let _ = query.visit(&mut finder);
    finder.0
}

/// The range of the first word that is not in a comment.
pub(crate) fn first_word(sql: &str) -> Range<usize> {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '(');
        if let Some(tail) = rest.strip_prefix("--") {
            rest = tail.find('\n').map_or("", |i| &tail[i..]);
        } else if let Some(tail) = rest.strip_prefix("/*") {
            rest = tail.find("*/").map_or("", |i| &tail[i + 2..]);
        } else {
            break;
        }
    }
    let start = sql.len() - rest.len();
    start..start + word(rest)
}

fn named(sql: &str, range: &Range<usize>) -> String {
    format!("`{}`", sql.get(range.clone()).unwrap_or_default().to_uppercase())
}

/// Bytes of the word (or the one character) that the text begins with.
fn word(text: &str) -> usize {
    let length = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    if length == 0 { text.chars().next().map_or(0, char::len_utf8) } else { length }
}

/// The byte offset of a line and column (both from 1, the column counts characters).
pub(crate) fn offset(sql: &str, line: u64, column: u64) -> Option<usize> {
    let line_start = match usize::try_from(line.checked_sub(1)?).ok()? {
        0 => 0,
        n => sql.match_indices('\n').nth(n - 1)?.0 + 1,
    };
    let rest = sql.get(line_start..)?;
    let column = usize::try_from(column.checked_sub(1)?).ok()?;
    let at = rest.char_indices().nth(column).map_or(rest.len(), |(i, _)| i);
    Some(line_start + at)
}

/// The byte range of a span of the parser; none where the span is empty. An end within a word is moved to its end.
pub(crate) fn byte_range(sql: &str, span: Span) -> Option<Range<usize>> {
    if span == Span::empty() {
        return None;
    }
    let (start, end) = (offset(sql, span.start.line, span.start.column)?, offset(sql, span.end.line, span.end.column)?);
    if end > start { Some(start..end) } else { Some(start..start + word(sql.get(start..)?)) }
}

/// The parser's error with its place taken out of the text and put where it can be shown.
fn syntax_error(sql: &str, error: &DataFusionError) -> SyntaxError {
    let text = match error.find_root() {
        DataFusionError::SQL(parser, _) => match &**parser {
            ParserError::TokenizerError(s) | ParserError::ParserError(s) => s.clone(),
            ParserError::RecursionLimitExceeded => "expressions are nested too deeply".to_owned(),
        },
        other => other.strip_backtrace(),
    };
    let text = text.trim_start_matches("sql parser error: ");
    let (text, at) = split_place(text);
    let end = sql.trim_end().len();
    let range = match at.and_then(|l| offset(sql, l.line, l.column)) {
        Some(start) if start < end => start..start + word(&sql[start..]),
        _ => end.saturating_sub(sql[..end].chars().next_back().map_or(0, char::len_utf8))..end,
    };
    let mut message =
        text.replace("Expected: ", "expected ").replace(", found: ", ", found ").trim_end_matches('.').to_owned();
    // Only the first letter: names and keywords keep their case.
    if let Some(first) = message.chars().next().filter(|c| c.is_uppercase() && !text.starts_with("SQL")) {
        message.replace_range(..first.len_utf8(), &first.to_lowercase().to_string());
    }
    message = message.replace("found EOF", "but the text ends here");
    let hint = if sql.contains("${") {
        Some("the environment is not pasted into SQL: declare a parameter in `[params]` and write `$name`".to_owned())
    } else if sql[..range.start].trim_end().ends_with(',') && text.contains("found: ") {
        Some("is there a comma too many before it?".to_owned())
    } else {
        None
    };
    SyntaxError { message: format!("SQL syntax: {message}"), hint, range }
}

/// Splits ` at Line: 3, Column: 5` off the end of a message.
fn split_place(text: &str) -> (&str, Option<Location>) {
    let Some((before, place)) = text.rsplit_once("at Line: ") else { return (text, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (text, None) };
    let column = column.trim_end_matches(|c: char| !c.is_ascii_digit());
    match (line.trim().parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (before.trim_end().trim_end_matches(','), Some(Location { line, column })),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tables(sql: &str) -> Vec<String> {
        query(sql, &Syntax::default())
            .unwrap()
            .tables
            .iter()
            .map(|t| format!("{}@{:?}", t.parts.join("."), &sql[t.range.clone()]))
            .collect()
    }

    #[test]
    fn tables_of_queries() {
        for (sql, expected) in [
            ("SELECT 1", vec![]),
            ("SELECT * FROM a, B AS x JOIN \"C\" ON true", vec!["a@\"a\"", "b@\"B\"", "C@\"\\\"C\\\"\""]),
            ("WITH t AS (SELECT * FROM a) SELECT * FROM t", vec!["a@\"a\""]),
            ("WITH t AS (SELECT * FROM t) SELECT * FROM t", vec!["t@\"t\""]),
            ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b, c", vec!["c@\"c\""]),
            ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r", vec![]),
            ("SELECT * FROM (WITH i AS (SELECT * FROM a) SELECT * FROM i) JOIN i ON true", vec!["a@\"a\"", "i@\"i\""]),
            (
                "SELECT (SELECT max(x) FROM b) FROM a WHERE EXISTS (SELECT 1 FROM c)",
                vec!["b@\"b\"", "a@\"a\"", "c@\"c\""],
            ),
            ("SELECT * FROM generate_series(1, 3) g, a", vec!["a@\"a\""]),
            ("SELECT * FROM s.t UNION SELECT * FROM u", vec!["s.t@\"s.t\"", "u@\"u\""]),
            ("VALUES (1)", vec![]),
            ("SELECT * FROM 'x.parquet'", vec!["x.parquet@\"'x.parquet'\""]),
        ] {
            assert_eq!(tables(sql), expected, "{sql}");
        }
    }

    #[test]
    fn placeholders() {
        let sql = "SELECT $a, x\nFROM t WHERE d = $day LIMIT $n";
        let found: Vec<_> =
            query(sql, &Syntax::default()).unwrap().params.iter().map(|p| (p.text.clone(), p.range.start)).collect();
        assert_eq!(found, [("$a".to_owned(), 7), ("$day".to_owned(), 30), ("$n".to_owned(), 41)]);
    }

    #[test]
    fn bad_queries() {
        for (sql, message, at) in [
            ("SELEC 1", "SQL syntax: expected an SQL statement, found SELEC", "SELEC"),
            ("SELECT 1 FROM", "SQL syntax: expected identifier, but the text ends here", "M"),
            ("SELECT a,\nFROM t WHERE", "SQL syntax: expected an expression, but the text ends here", "E"),
            ("SELECT 'abc", "SQL syntax: unterminated string literal", "'"),
            ("SELECT 1; SELECT 2", "there is more than one statement", "SELECT 2"),
            ("-- nothing\n;", "there is no query, only comments or `;`", ""),
            ("CREATE TABLE x AS SELECT 1", "`CREATE` is not a query", "CREATE"),
            ("COPY t TO 'x.csv'", "`COPY` is not a query", "COPY"),
            ("/* c */ INSERT INTO t SELECT 1", "`INSERT` is not a query", "INSERT"),
            ("EXPLAIN SELECT 1", "`EXPLAIN` is not a query", "EXPLAIN"),
        ] {
            let error = query(sql, &Syntax::default()).unwrap_err();
            assert_eq!((error.message.as_str(), &sql[error.range.clone()]), (message, at), "{sql}");
        }
        let error = expression("a > 1 b", &Syntax::default()).unwrap_err();
        assert_eq!(error.message, "expected the end of the expression, found `b`");
        assert!(expression("a >", &Syntax::default()).is_err());
    }

    #[test]
    fn deep_and_long_queries_end() {
        let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(query(&deep, &Syntax::default()).unwrap_err().message.contains("nested too deeply"));
        for terms in [1000, 4000, 20_000] {
            let few = terms < MAX_CHAIN;
            let is_ok = |sql: String| query(&sql, &Syntax::default()).is_ok();
            assert_eq!(is_ok(format!("SELECT 1{}", " + abs(1, 2)".repeat(terms))), few);
            assert_eq!(is_ok(format!("SELECT true{}", " OR a".repeat(terms))), few);
            assert_eq!(is_ok(format!("SELECT 1, 2{}", " UNION ALL SELECT 1, 2".repeat(terms))), few);
            assert_eq!(expression(&format!("1{}", " = 1".repeat(terms)), &Syntax::default()).is_ok(), few);
            assert!(is_ok(format!("SELECT 1 WHERE 1 IN (-1{})", ", -1".repeat(terms))));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(sql in "(SELECT|WITH|FROM|t|,|\\(|\\)|'|\"|\\$a|--|;|é|\n| |1|AS|\\*){0,16}") {
            if let Err(error) = query(&sql, &Syntax::default()) {
                prop_assert!(sql.get(error.range.clone()).is_some(), "{error:?}");
            }
            let _ = expression(&sql, &Syntax::default());
        }

        #[test]
        fn any_unicode_is_answered(sql in ".{0,40}") {
            if let Err(error) = query(&sql, &Syntax::default()) {
                prop_assert!(sql.get(error.range.clone()).is_some(), "{error:?}");
            }
        }
    }
}
