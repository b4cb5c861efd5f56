//! Physical expressions to terms. Logical expressions come here too: they are first lowered by DataFusion's own
//! `create_physical_expr`, so that both kinds of plan meet in one vocabulary.

use std::sync::Arc;

use datafusion::arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Schema,
};
use datafusion::common::{HashMap, ScalarValue};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr,
    Literal, NegativeExpr, NotExpr, TryCastExpr,
};
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr};

use super::canon::{Canon, Lowered};
use super::term::{Key, Style, TermId};
use super::versioned;

/// Values of scalar subqueries by the expression that reads them.
pub(crate) type Subqueries = HashMap<ScalarSubqueryExpr, Option<Key>>;

/// What a column of an expression stands for.
pub(crate) enum Columns<'a> {
    /// By position in the input.
    ByIndex(&'a [Option<TermId>]),
    /// By the caller.
    Mapped(&'a dyn Fn(&Column) -> Option<TermId>),
}

/// A lowering of expressions over given columns.
pub(crate) struct Expressions<'a> {
    pub(crate) canon: &'a mut Canon,
    pub(crate) columns: Columns<'a>,
    /// Schema that the expressions are written against.
    pub(crate) schema: &'a Schema,
    pub(crate) subqueries: &'a Subqueries,
}

/// An expression that has no term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opaque {
    /// It may give another value on the next call.
    Volatile,
    /// Its kind is not known here, or it reads something that has no term.
    Unknown,
}

impl Expressions<'_> {
    /// The term of `expr`.
    pub(crate) fn term(&mut self, expr: &Arc<dyn PhysicalExpr>) -> Option<TermId> {
        self.lower(expr).ok()
    }

    /// The conditions that `expr` is a conjunction of; filters that are learned while running are left out.
    pub(crate) fn conjuncts(&mut self, expr: &Arc<dyn PhysicalExpr>) -> Vec<Option<TermId>> {
        let mut parts = Vec::new();
        operands(expr, Operator::And, &mut parts);
        parts.into_iter().filter(|part| !is_noise(part)).map(|part| self.term(part)).collect()
    }

    #[recursive::recursive]
    pub(crate) fn lower(&mut self, expr: &Arc<dyn PhysicalExpr>) -> Result<TermId, Opaque> {
        if let Some(column) = expr.downcast_ref::<Column>() {
            let term = match &self.columns {
                Columns::ByIndex(columns) => columns.get(column.index()).copied().flatten(),
                Columns::Mapped(map) => map(column),
            };
            return term.ok_or(Opaque::Unknown);
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            return Ok(self.canon.scalar(literal.value()));
        }
        if expr.is_volatile_node() {
            return Err(Opaque::Volatile);
        }
        if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            return self.binary(expr, binary);
        }
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            return self.cast(cast.expr(), cast.cast_type(), false);
        }
        if let Some(cast) = expr.downcast_ref::<TryCastExpr>() {
            return self.cast(cast.expr(), cast.cast_type(), true);
        }
        if let Some(function) = expr.downcast_ref::<ScalarFunctionExpr>() {
            let args = self.all(function.args())?;
            return Ok(self.call(versioned(function.fun().name(), function.fun().aliases()), &args));
        }
        if let Some(subquery) = expr.downcast_ref::<ScalarSubqueryExpr>() {
            let key = self.subqueries.get(subquery).copied().flatten().ok_or(Opaque::Unknown)?;
            return Ok(self.canon.terms.opaque(key));
        }
        self.predicate(expr)
    }

    fn predicate(&mut self, expr: &Arc<dyn PhysicalExpr>) -> Result<TermId, Opaque> {
        if let Some(not) = expr.downcast_ref::<NotExpr>() {
            let arg = self.lower(not.arg())?;
            return Ok(self.canon.terms.not(arg));
        }
        if let Some(null) = expr.downcast_ref::<IsNullExpr>() {
            let arg = self.lower(null.arg())?;
            return Ok(self.canon.terms.is_null(arg));
        }
        if let Some(null) = expr.downcast_ref::<IsNotNullExpr>() {
            let arg = self.lower(null.arg())?;
            return Ok(self.canon.terms.is_not_null(arg));
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>() {
            let of = self.lower(list.expr())?;
            let values = self.all(list.list())?;
            return Ok(self.canon.terms.in_list(of, &values, list.negated()));
        }
        if let Some(like) = expr.downcast_ref::<LikeExpr>() {
            let args = [self.lower(like.expr())?, self.lower(like.pattern())?];
            let name = self.canon.symbols.intern(if like.case_insensitive() { "ilike" } else { "like" });
            let term = self.canon.terms.apply(name, Style::Infix, &args);
            return Ok(if like.negated() { self.canon.terms.not(term) } else { term });
        }
        if let Some(case) = expr.downcast_ref::<CaseExpr>() {
            return self.case(case);
        }
        if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            let arg = self.lower(negative.arg())?;
            return Ok(self.call("-", &[arg]));
        }
        Err(Opaque::Unknown)
    }

    fn all(&mut self, exprs: &[Arc<dyn PhysicalExpr>]) -> Result<Vec<TermId>, Opaque> {
        exprs.iter().map(|e| self.lower(e)).collect()
    }

    fn call(&mut self, name: &str, args: &[TermId]) -> TermId {
        let name = self.canon.symbols.intern(name);
        self.canon.terms.apply(name, Style::Call, args)
    }

    fn case(&mut self, case: &CaseExpr) -> Result<TermId, Opaque> {
        let mut args = Vec::new();
        if let Some(of) = case.expr() {
            let of = self.lower(of)?;
            args.push(self.call("of", &[of]));
        }
        for (when, then) in case.when_then_expr() {
            let pair = [self.lower(when)?, self.lower(then)?];
            args.push(self.call("when", &pair));
        }
        if let Some(otherwise) = case.else_expr() {
            let otherwise = self.lower(otherwise)?;
            args.push(self.call("else", &[otherwise]));
        }
        Ok(self.call("case", &args))
    }

    fn cast(&mut self, arg: &Arc<dyn PhysicalExpr>, to: &DataType, lenient: bool) -> Result<TermId, Opaque> {
        // Planners cast to the same type to change no more than nullability.
        if arg.data_type(self.schema).is_ok_and(|from| from == *to) {
            return self.lower(arg);
        }
        let arg = self.lower(arg)?;
        // Also where a projection below made it a literal.
        if let Some(Ok(value)) = self.canon.literals.get(&arg).map(|value| value.cast_to(to)) {
            return Ok(self.canon.scalar(&value));
        }
        let name = self.canon.symbols.intern(&if lenient { format!("{to} or null") } else { to.to_string() });
        Ok(self.canon.terms.apply(name, Style::Cast, &[arg]))
    }

    fn binary(&mut self, expr: &Arc<dyn PhysicalExpr>, binary: &BinaryExpr) -> Result<TermId, Opaque> {
        let op = *binary.op();
        if matches!(op, Operator::And | Operator::Or) {
            let mut parts = Vec::new();
            operands(expr, op, &mut parts);
            let terms: Vec<TermId> = parts
                .into_iter()
                .filter(|p| op == Operator::Or || !is_noise(p))
                .map(|p| self.lower(p))
                .collect::<Result<_, _>>()?;
            return Ok(match op {
                Operator::Or => self.canon.terms.or(&terms),
                _ => self.canon.terms.and(&terms),
            });
        }
        let (a, b) = (self.lower(binary.left())?, self.lower(binary.right())?);
        let terms = &mut self.canon.terms;
        Ok(match op {
            Operator::Eq => terms.equal(&[a, b]),
            Operator::NotEq => terms.not_equal(a, b),
            Operator::Lt => terms.less(a, b),
            Operator::LtEq => terms.less_or_equal(a, b),
            Operator::Gt => terms.less(b, a),
            Operator::GtEq => terms.less_or_equal(b, a),
            Operator::Plus
            | Operator::Multiply
            | Operator::BitwiseAnd
            | Operator::BitwiseOr
            | Operator::BitwiseXor
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom => {
                let name = self.canon.symbols.intern(&op.to_string().to_lowercase());
                self.canon.terms.commutative(name, a, b)
            }
            Operator::NotLikeMatch | Operator::NotILikeMatch => {
                let name = self.canon.symbols.intern(if op == Operator::NotLikeMatch { "like" } else { "ilike" });
                let term = self.canon.terms.apply(name, Style::Infix, &[a, b]);
                self.canon.terms.not(term)
            }
            _ => {
                let name = self.canon.symbols.intern(&op.to_string().to_lowercase());
                self.canon.terms.apply(name, Style::Infix, &[a, b])
            }
        })
    }

    /// A sort key.
    pub(crate) fn sort_key(&mut self, key: &PhysicalSortExpr) -> Option<TermId> {
        let term = self.term(&key.expr)?;
        Some(self.canon.sort_key(term, key.options.descending, key.options.nulls_first))
    }
}

impl Canon {
    /// The term of a literal.
    pub(crate) fn scalar(&mut self, value: &ScalarValue) -> TermId {
        let ty = self.symbols.intern(&value.data_type().to_string());
        let text = self.symbols.intern(&scalar_text(value));
        let term = self.terms.literal(text, ty);
        self.literals.entry(term).or_insert_with(|| value.clone());
        term
    }

    /// A term with its direction.
    pub(crate) fn sort_key(&mut self, term: TermId, descending: bool, nulls_first: bool) -> TermId {
        let name = match (descending, nulls_first) {
            (false, false) => "ascending",
            (false, true) => "ascending nulls first",
            (true, false) => "descending nulls last",
            (true, true) => "descending",
        };
        let name = self.symbols.intern(name);
        self.terms.apply(name, Style::Call, &[term])
    }

    /// `name(args…)` with the parts of an aggregate or window function that are given.
    pub(crate) fn function(&mut self, name: &str, args: &[TermId], parts: &[(&str, Style, Vec<TermId>)]) -> TermId {
        let mut all = args.to_vec();
        for (part, style, terms) in parts {
            if !terms.is_empty() {
                let part = self.symbols.intern(part);
                all.push(self.terms.apply(part, *style, terms));
            }
        }
        let name = self.symbols.intern(name);
        self.terms.apply(name, Style::Call, &all)
    }

    /// An aggregate function; `order` is made of sort keys as (term, descending, nulls first).
    pub(crate) fn aggregate_function(&mut self, call: AggregateCall<'_>) -> Option<TermId> {
        let args: Vec<TermId> = call.args.into_iter().collect::<Option<_>>()?;
        let filter: Vec<TermId> = call.filter.into_iter().collect::<Option<_>>()?;
        // The planner may turn one into the other to use an order that is already there.
        let reverse = call.name == "last_value" && !call.order.is_empty();
        let name = if reverse { "first_value" } else { call.name };
        let mut order = Vec::with_capacity(call.order.len());
        for (term, descending, nulls_first) in call.order {
            order.push(self.sort_key(term?, descending != reverse, nulls_first != reverse));
        }
        let counts_rows = name == "count" && !call.distinct && args.len() == 1 && self.is_value(args[0]);
        let (args, name) = if counts_rows { (Vec::new(), "count") } else { (args, name) };
        let mut written = name.to_owned();
        if call.distinct {
            written.push_str(" distinct");
        }
        if call.ignore_nulls {
            written.push_str(" ignore nulls");
        }
        Some(self.function(&written, &args, &[("order by", Style::Call, order), ("filter", Style::Call, filter)]))
    }

    /// True for a literal other than null.
    fn is_value(&self, term: TermId) -> bool {
        match self.terms.get(term) {
            super::term::Term::Literal { text, .. } => self.symbols.text(*text) != "null",
            _ => false,
        }
    }
}

/// A call of an aggregate function.
pub(crate) struct AggregateCall<'a> {
    pub(crate) name: &'a str,
    pub(crate) args: Vec<Option<TermId>>,
    pub(crate) distinct: bool,
    pub(crate) ignore_nulls: bool,
    /// Term, descending, nulls first.
    pub(crate) order: Vec<(Option<TermId>, bool, bool)>,
    pub(crate) filter: Option<Option<TermId>>,
}

/// Operands of a chain of `op`, without recursion: such chains can be thousands long.
fn operands<'e>(expr: &'e Arc<dyn PhysicalExpr>, op: Operator, into: &mut Vec<&'e Arc<dyn PhysicalExpr>>) {
    let mut left = vec![expr];
    while let Some(next) = left.pop() {
        match next.downcast_ref::<BinaryExpr>() {
            Some(binary) if *binary.op() == op => {
                left.push(binary.right());
                left.push(binary.left());
            }
            _ => into.push(next),
        }
    }
}

/// True for a conjunct that says nothing about the logical subplan.
fn is_noise(expr: &Arc<dyn PhysicalExpr>) -> bool {
    if expr.downcast_ref::<DynamicFilterPhysicalExpr>().is_some() {
        return true;
    }
    expr.downcast_ref::<Literal>().is_some_and(|literal| *literal.value() == ScalarValue::Boolean(Some(true)))
}

fn scalar_text(value: &ScalarValue) -> String {
    if value.is_null() {
        return "null".to_owned();
    }
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            format!("'{}'", text.escape_debug())
        }
        ScalarValue::Dictionary(_, inner) => scalar_text(inner),
        ScalarValue::Decimal32(Some(v), p, s) => Decimal32Type::format_decimal(*v, *p, *s),
        ScalarValue::Decimal64(Some(v), p, s) => Decimal64Type::format_decimal(*v, *p, *s),
        ScalarValue::Decimal128(Some(v), p, s) => Decimal128Type::format_decimal(*v, *p, *s),
        ScalarValue::Decimal256(Some(v), p, s) => Decimal256Type::format_decimal(*v, *p, *s),
        // Shortest text that reads back as the same number.
        ScalarValue::Float32(Some(v)) => format!("{v:?}"),
        ScalarValue::Float64(Some(v)) => format!("{v:?}"),
        other => other.to_string().escape_debug().to_string(),
    }
}

/// `lowered` with its columns replaced by those at `indices`.
pub(crate) fn project(mut lowered: Lowered, indices: &[usize]) -> Lowered {
    lowered.columns = indices.iter().map(|&i| lowered.columns.get(i).copied().flatten()).collect();
    lowered
}
