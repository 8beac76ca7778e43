//! An expression's text into what is evaluated: a tree of operations over leaves, each of which is one question to the shards. What is not supported is
//! refused here, by its name and with the part of the expression that it stands in.

mod durations;
mod leaf;
mod tree;

use std::collections::BTreeSet;

use promql_parser::parser::token::{T_LAND, T_LOR, T_LUNLESS, TokenType};
use promql_parser::parser::{
    AggregateExpr, BinModifier, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, parse as parse_promql, token,
};

pub use self::durations::fits as duration_fits;
pub use self::leaf::{Leaf, LeafMatcher};
pub use self::tree::{Aggregation, Arithmetic, Comparison, Function, Labels, Node, Operator, Plan, Root, SetOperation};
use super::envelope::{Failure, Notes};
use crate::limits::{PROMQL_BYTES_MAX, PROMQL_REGEXES_MAX, PROMQL_SELECTORS_MAX, PROMQL_TOKENS_MAX};

/// Longest part of an expression that an error shows, in characters.
const SHOWN_CHARS: usize = 120;

const FUNCTIONS: [(&str, Function); 12] = [
    ("sort", Function::Sort),
    ("sort_desc", Function::SortDescending),
    ("abs", Function::Abs),
    ("ceil", Function::Ceil),
    ("floor", Function::Floor),
    ("round", Function::Round),
    ("sqrt", Function::Sqrt),
    ("scalar", Function::Scalar),
    ("vector", Function::Vector),
    ("time", Function::Time),
    ("clamp_min", Function::ClampMin),
    ("clamp_max", Function::ClampMax),
];

/// # Errors
/// 400 when it is no PromQL or over a limit; 422 for what is not supported.
pub fn plan(text: &str) -> Result<Plan, Failure> {
    let expr = parse(text)?;
    let mut lowering = Lowering::default();
    let root = match without_parens(&expr) {
        Expr::StringLiteral(text) => Root::Text(text.val.clone()),
        other => Root::Node(lowering.node(other)?),
    };
    Ok(Plan { root, leaves: lowering.leaves, notes: lowering.notes })
}

/// A selector alone, as look-ups have it.
///
/// # Errors
/// As [`plan`].
pub fn selector(text: &str) -> Result<Leaf, Failure> {
    match &parse(text)? {
        Expr::VectorSelector(selector) => Leaf::of_lookup(selector),
        other => Err(Failure::bad_data(format!("match[] must be a selector, not `{}`", shown(other)))),
    }
}

fn parse(text: &str) -> Result<Expr, Failure> {
    let over = |what: &str, limit: usize| Err(Failure::bad_data(format!("the expression has more than {limit} {what}")));
    if text.len() > PROMQL_BYTES_MAX {
        return over("bytes", PROMQL_BYTES_MAX);
    }
    if tokens(text) > PROMQL_TOKENS_MAX {
        return over("words and signs", PROMQL_TOKENS_MAX);
    }
    if text.matches("=~").count() + text.matches("!~").count() > PROMQL_REGEXES_MAX {
        return over("regular expressions", PROMQL_REGEXES_MAX);
    }
    durations::check(text).map_err(|why| Failure::bad_data(format!("parse error: {why}")))?;
    // A last resort: a panic of the parser is the end of this question only.
    match std::panic::catch_unwind(|| parse_promql(text)) {
        Ok(Ok(expr)) => Ok(expr),
        Ok(Err(e)) => Err(Failure::bad_data(format!("parse error: {e}"))),
        Err(_) => Err(Failure::bad_data("parse error: a number in it is out of bounds")),
    }
}

/// Words and signs outside of strings: no tree is deeper than that.
fn tokens(text: &str) -> usize {
    let (mut count, mut in_word, mut quote, mut escaped) = (0, false, None, false);
    for c in text.chars() {
        if let Some(open) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' if open != '`' => escaped = true,
                c if c == open => quote = None,
                _ => {}
            }
            continue;
        }
        let is_word = c.is_alphanumeric() || matches!(c, '_' | ':' | '.');
        count += usize::from(!(c.is_whitespace() || is_word && in_word));
        in_word = is_word;
        if matches!(c, '"' | '\'' | '`') {
            quote = Some(c);
        }
    }
    count
}

/// The part of the expression that an error is about.
pub fn shown(part: &impl std::fmt::Display) -> String {
    let text = part.to_string();
    if text.chars().count() <= SHOWN_CHARS { text } else { format!("{}...", text.chars().take(SHOWN_CHARS).collect::<String>()) }
}

fn unsupported(what: &str, part: &impl std::fmt::Display, instead: &str) -> Failure {
    Failure::execution(format!("{what} is not supported, in `{}`{instead}", shown(part)))
}

fn without_parens(mut expr: &Expr) -> &Expr {
    while let Expr::Paren(inner) = expr {
        expr = &inner.expr;
    }
    expr
}

#[derive(Default)]
struct Lowering {
    leaves: Vec<Leaf>,
    notes: Notes,
}

impl Lowering {
    fn node(&mut self, expr: &Expr) -> Result<Node, Failure> {
        match expr {
            Expr::Paren(inner) => self.node(&inner.expr),
            Expr::NumberLiteral(number) => Ok(Node::Number(number.val)),
            Expr::Unary(unary) => Ok(Node::Negate(Box::new(self.node(&unary.expr)?))),
            Expr::VectorSelector(selector) => self.leaf(Leaf::bare(selector)?),
            Expr::Call(call) => self.call(call),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::MatrixSelector(_) => Err(unsupported(
                "a range of samples as a result",
                expr,
                ": events are not samples; take rate, increase or an ..._over_time of it",
            )),
            Expr::Subquery(_) => Err(unsupported("a subquery", expr, "")),
            Expr::StringLiteral(_) => Err(unsupported("a string in this place", expr, "")),
            Expr::Extension(_) => Err(unsupported("an extension", &"", "")),
        }
    }

    fn leaf(&mut self, leaf: Leaf) -> Result<Node, Failure> {
        if self.leaves.len() == PROMQL_SELECTORS_MAX {
            return Err(Failure::bad_data(format!("the expression has more than {PROMQL_SELECTORS_MAX} selectors")));
        }
        self.notes.infos.extend(leaf.rounding());
        self.leaves.push(leaf);
        Ok(Node::Leaf(self.leaves.len() - 1))
    }

    fn call(&mut self, call: &Call) -> Result<Node, Failure> {
        if let Some(leaf) = Leaf::of_call(call)? {
            return self.leaf(leaf);
        }
        let name = call.func.name;
        let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            let known = leaf::RANGE_FUNCTIONS.iter().copied().chain(FUNCTIONS.iter().map(|(known, _)| *known));
            let known: Vec<&str> = known.collect();
            return Err(unsupported(&format!("the function `{name}`"), call, &format!("; there are {}", known.join(", "))));
        };
        let arity = match function {
            Function::Time => 0,
            Function::ClampMin | Function::ClampMax => 2,
            _ => 1,
        };
        if call.args.args.len() != arity {
            return Err(unsupported(&format!("`{name}` with {} arguments", call.args.args.len()), call, ""));
        }
        let arguments = call.args.args.iter().map(|a| self.node(a)).collect::<Result<_, _>>()?;
        Ok(Node::Call { function: *function, arguments })
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr) -> Result<Node, Failure> {
        let operation = match aggregate.op.id() {
            token::T_SUM => Aggregation::Sum,
            token::T_AVG => Aggregation::Avg,
            token::T_MIN => Aggregation::Min,
            token::T_MAX => Aggregation::Max,
            token::T_COUNT => Aggregation::Count,
            token::T_GROUP => Aggregation::Group,
            token::T_TOPK => Aggregation::TopK,
            token::T_BOTTOMK => Aggregation::BottomK,
            token::T_QUANTILE => {
                let instead = ": quantiles of the events' values are `quantile_over_time(0.95, m[5m])`, grouped by `m{__by__=\"label\"}`";
                return Err(unsupported("`quantile` over series", aggregate, instead));
            }
            _ => return Err(unsupported(&format!("the aggregation `{}`", aggregate.op), aggregate, "")),
        };
        let names = |labels: &promql_parser::label::Labels| labels.labels.iter().cloned().collect();
        let by = match &aggregate.modifier {
            None => Labels::Only(BTreeSet::new()),
            Some(LabelModifier::Include(labels)) => Labels::Only(names(labels)),
            Some(LabelModifier::Exclude(labels)) => Labels::AllBut(names(labels)),
        };
        let k = aggregate.param.as_ref().map(|k| self.node(k).map(Box::new)).transpose()?;
        let of = self.node(&aggregate.expr)?;
        if let Node::Leaf(at) = of {
            self.leaves[at].push_down(operation, &by).map_err(|why| Failure::execution(format!("{why}, in `{}`", shown(aggregate))))?;
        }
        Ok(Node::Aggregate { operation, k, by, of: Box::new(of) })
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Result<Node, Failure> {
        let operator =
            operator(binary.op, binary.return_bool()).ok_or_else(|| unsupported(&format!("the operator `{}`", binary.op), binary, ""))?;
        let mut on = Labels::AllBut(BTreeSet::new());
        if let Some(BinModifier { card, matching, fill_values, .. }) = &binary.modifier {
            match card {
                VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => {}
                VectorMatchCardinality::ManyToOne(_) => return Err(unsupported("group_left (many-to-one matching)", binary, "")),
                VectorMatchCardinality::OneToMany(_) => return Err(unsupported("group_right (one-to-many matching)", binary, "")),
            }
            if fill_values.lhs.is_some() || fill_values.rhs.is_some() {
                return Err(unsupported("fill", binary, ""));
            }
            let names = |labels: &promql_parser::label::Labels| labels.labels.iter().cloned().collect();
            match matching {
                None => {}
                Some(LabelModifier::Include(labels)) => on = Labels::Only(names(labels)),
                Some(LabelModifier::Exclude(labels)) => on = Labels::AllBut(names(labels)),
            }
        }
        let (left, right) = (self.node(&binary.lhs)?, self.node(&binary.rhs)?);
        Ok(Node::Binary { operator, on, left: Box::new(left), right: Box::new(right) })
    }
}

fn operator(op: TokenType, with_bool: bool) -> Option<Operator> {
    let compare = |comparison| Some(Operator::Comparison(comparison, with_bool));
    let compute = |arithmetic| Some(Operator::Arithmetic(arithmetic));
    match op.id() {
        token::T_ADD => compute(Arithmetic::Add),
        token::T_SUB => compute(Arithmetic::Sub),
        token::T_MUL => compute(Arithmetic::Mul),
        token::T_DIV => compute(Arithmetic::Div),
        token::T_MOD => compute(Arithmetic::Mod),
        token::T_POW => compute(Arithmetic::Pow),
        token::T_ATAN2 => compute(Arithmetic::Atan2),
        token::T_EQLC => compare(Comparison::Equal),
        token::T_NEQ => compare(Comparison::NotEqual),
        token::T_GTR => compare(Comparison::Greater),
        token::T_LSS => compare(Comparison::Less),
        token::T_GTE => compare(Comparison::GreaterOrEqual),
        token::T_LTE => compare(Comparison::LessOrEqual),
        T_LAND => Some(Operator::Set(SetOperation::And)),
        T_LOR => Some(Operator::Set(SetOperation::Or)),
        T_LUNLESS => Some(Operator::Set(SetOperation::Unless)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
