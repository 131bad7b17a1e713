//! A compiled expression.

use std::fmt;
use std::ops::Range;

use crate::ast::Expr;
use crate::check;
use crate::eval::{self, EvalError};
use crate::parse;
use crate::schema::{Kind, Schema};
use crate::value::{Object, Value};

/// An expression that was read and checked.
#[derive(Clone, Debug)]
pub struct Program {
    expr: Expr,
    text: Box<str>,
    kind: Kind,
}

impl Program {
    /// Reads an expression that may use the attributes of `schema`.
    ///
    /// # Errors
    /// The first mistake: of grammar, a name that does not exist, a value of the wrong kind.
    pub fn compile(text: &str, schema: &'static Schema) -> Result<Self, CompileError> {
        let checked =
            parse::parse(text).and_then(|expr| check::check(&expr, schema).map(|kind| (expr, kind)));
        let (expr, kind) = checked.map_err(|error| error.within(text))?;
        Ok(Self { expr, text: text.into(), kind })
    }

    /// Reads a condition: an expression whose value is a bool.
    ///
    /// # Errors
    /// As [`Self::compile`], and when the value is something else.
    pub fn condition(text: &str, schema: &'static Schema) -> Result<Self, CompileError> {
        let program = Self::compile(text, schema)?;
        if !program.kind.may_be(Kind::Bool) {
            let why = format!("a condition is true or false, this is {}", program.kind.tell());
            return Err(CompileError::new(program.expr.at, why, "compare it with something: `… == …`"));
        }
        Ok(program)
    }

    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What its value is, as far as it is known.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its value for these attributes.
    ///
    /// # Errors
    /// What could not be worked out: a key that is not there, an overflow, too many steps.
    pub fn eval<'a>(&'a self, attributes: &'a dyn Object) -> Result<Value<'a>, EvalError> {
        eval::eval(&self.expr, attributes)
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// As [`Self::eval`], and when the value is no bool.
    #[inline]
    pub fn holds(&self, attributes: &dyn Object) -> Result<bool, EvalError> {
        match eval::eval(&self.expr, attributes)? {
            Value::Bool(value) => Ok(value),
            _ => Err(EvalError::NoOverload("condition")),
        }
    }
}

/// A mistake in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// Where, in bytes of the text.
    pub at: Range<usize>,
    /// What is wrong.
    pub why: String,
    /// How to mend it; may be empty.
    pub fix: String,
}

impl CompileError {
    pub(crate) fn new(at: Range<usize>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { at, why: why.into(), fix: fix.into() }
    }

    /// The same with a place that text can be cut at: a mistake at the end may reach beyond it.
    fn within(mut self, text: &str) -> Self {
        let start =
            (0..=self.at.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end =
            (self.at.end.max(start)..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        self.at = start..end;
        self
    }

    /// The place and the mistake in one line: ``at 9 (`metod`): no field `metod` ``.
    pub fn tell(&self, text: &str) -> String {
        let place = text.get(..self.at.start).map_or(0, |before| before.chars().count()) + 1;
        match text
            .get(self.at.clone())
            .filter(|part| !part.is_empty() && part.len() <= 40 && !part.contains('\n'))
        {
            Some(part) if *part != *text => format!("at character {place} (`{part}`): {}", self.why),
            _ => format!("at character {place}: {}", self.why),
        }
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        if !self.fix.is_empty() {
            write!(f, "; {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileError {}

/// A hint to the name that was probably meant; empty when none is near.
pub(crate) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    rhumb_base::words::nearest(name, known).map_or_else(String::new, |near| format!("did you mean `{near}`?"))
}
