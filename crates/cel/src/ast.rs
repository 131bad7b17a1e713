//! An expression as a tree.

use std::net::IpAddr;
use std::ops::Range;

use regex::Regex;
use rhumb_base::cidr::Cidr;

use crate::functions::Function;
use crate::time::{TimePart, Timestamp};

/// An expression with its place in the text.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    pub(crate) at: Range<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum ExprKind {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    Duration(i64),
    Timestamp(Timestamp),
    Ip(IpAddr),
    Cidr(Cidr),
    /// An attribute of the context, by name.
    Name(Box<str>),
    /// A variable of a macro, counted from the innermost.
    Local(usize),
    Select(Box<Expr>, Box<str>),
    /// `has(a.b)`.
    Has(Box<Expr>, Box<str>),
    Index(Box<Expr>, Box<Expr>),
    List(Box<[Expr]>),
    Map(Box<[(Expr, Expr)]>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    /// All of them, at least two.
    And(Box<[Expr]>),
    /// Any of them, at least two.
    Or(Box<[Expr]>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Choose(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A function with its arguments; of a method the receiver is the first.
    Call(Function, Box<[Expr]>),
    /// `text.matches(pattern)` with a pattern that is written out.
    Matches(Box<Expr>, Box<Regex>),
    /// `timestamp.getHours()` and its like, with an optional zone.
    Part(TimePart, Box<Expr>, Option<Box<Expr>>),
    /// A macro over the elements of a list or the keys of a map.
    Fold(Fold, Box<Expr>, Box<[Expr]>),
}

/// Operators of two values that are both needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Operator {
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

/// Macros over elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    All,
    Exists,
    ExistsOne,
    Filter,
    /// With one body: the new element; with two: a condition first.
    Map,
}
