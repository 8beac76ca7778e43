//! What an expression is made into.

use std::collections::BTreeSet;

use super::Leaf;
use crate::http::read::prometheus::envelope::Notes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOperation {
    And,
    Or,
    Unless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Arithmetic(Arithmetic),
    /// With `bool`: 0 or 1 instead of a filter.
    Comparison(Comparison, bool),
    Set(SetOperation),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    TopK,
    BottomK,
}

/// Which labels put series together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    Only(BTreeSet<String>),
    AllBut(BTreeSet<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    Abs,
    Ceil,
    Floor,
    Round,
    Sqrt,
    Scalar,
    Vector,
    Time,
    ClampMin,
    ClampMax,
    /// Of use at one moment only, around everything else.
    Sort,
    SortDescending,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Number(f64),
    /// Index into [`Plan::leaves`].
    Leaf(usize),
    Negate(Box<Node>),
    Aggregate {
        operation: Aggregation,
        k: Option<Box<Node>>,
        by: Labels,
        of: Box<Node>,
    },
    Binary {
        operator: Operator,
        on: Labels,
        left: Box<Node>,
        right: Box<Node>,
    },
    Call {
        function: Function,
        arguments: Vec<Node>,
    },
}

#[derive(Clone, Debug)]
pub enum Root {
    Text(String),
    Node(Node),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub root: Root,
    pub leaves: Vec<Leaf>,
    /// How it was read, where that may surprise.
    pub notes: Notes,
}
