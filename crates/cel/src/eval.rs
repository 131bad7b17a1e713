//! Evaluation: a walk over the tree with borrowed values, bounded in steps.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::rc::Rc;

use crate::ast::{Expr, ExprKind, Fold, Operator};
use crate::functions::{LIST_LIMIT, TEXT_LIMIT};
use crate::time::{self, Timestamp};
use crate::value::{List, Map, Object, Value};

/// Most steps of one evaluation: one for each part of the expression, again for each element of a macro.
pub const STEPS_LIMIT: u32 = 20_000;

/// Why an expression has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// A key, field or element that is not there.
    NotFound,
    /// An operator or function, by its name, with values that it does not take.
    NoOverload(&'static str),
    /// A number that does not fit into 64 bits.
    Overflow,
    /// Division by zero.
    DivisionByZero,
    /// Something that cannot be read as the named kind.
    Conversion(&'static str),
    /// A place beyond the end.
    OutOfRange,
    /// A string or list beyond its limit.
    TooLarge,
    /// More than [`STEPS_LIMIT`] steps.
    TooManySteps,
}

impl std::fmt::Display for EvalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("a key or field is not there"),
            Self::NoOverload(what) => write!(f, "`{what}` does not take such values"),
            Self::Overflow => f.write_str("a number does not fit into 64 bits"),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::Conversion(kind) => write!(f, "a value cannot be read as {kind}"),
            Self::OutOfRange => f.write_str("a place is beyond the end"),
            Self::TooLarge => f.write_str("a string or list is too large"),
            Self::TooManySteps => f.write_str("the evaluation takes too many steps"),
        }
    }
}

impl std::error::Error for EvalError {}

type Result<T> = std::result::Result<T, EvalError>;

pub(crate) fn eval<'a>(expr: &'a Expr, attributes: &'a dyn Object) -> Result<Value<'a>> {
    Evaluation { attributes, steps: Cell::new(0) }.value(expr, None)
}

struct Evaluation<'a> {
    attributes: &'a dyn Object,
    steps: Cell<u32>,
}

/// The variable of a macro, and those around it.
struct Scope<'s, 'a> {
    value: Value<'a>,
    outer: Option<&'s Self>,
}

impl<'a> Evaluation<'a> {
    fn step(&self) -> Result<()> {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        if steps > STEPS_LIMIT { Err(EvalError::TooManySteps) } else { Ok(()) }
    }

    fn value(&self, expr: &'a Expr, scope: Option<&Scope<'_, 'a>>) -> Result<Value<'a>> {
        self.step()?;
        Ok(match &expr.kind {
            ExprKind::Null => Value::Null,
            ExprKind::Bool(value) => Value::Bool(*value),
            ExprKind::Int(n) => Value::Int(*n),
            ExprKind::Uint(n) => Value::Uint(*n),
            ExprKind::Double(n) => Value::Double(*n),
            ExprKind::Text(text) => Value::Text(Cow::Borrowed(text)),
            ExprKind::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
            ExprKind::Duration(nanos) => Value::Duration(*nanos),
            ExprKind::Timestamp(time) => Value::Timestamp(*time),
            ExprKind::Ip(address) => Value::Ip(*address),
            ExprKind::Cidr(block) => Value::Cidr(*block),
            ExprKind::Name(name) => self.attributes.field(name).ok_or(EvalError::NotFound)?,
            ExprKind::Local(distance) => {
                let mut at = scope;
                for _ in 0..*distance {
                    at = at.and_then(|scope| scope.outer);
                }
                at.map(|scope| scope.value.clone()).ok_or(EvalError::NotFound)?
            }
            ExprKind::Select(object, name) => match self.value(object, scope)? {
                Value::Map(map) => map.field(name).ok_or(EvalError::NotFound)?,
                _ => return Err(EvalError::NoOverload(".")),
            },
            ExprKind::Has(object, name) => match self.value(object, scope)? {
                Value::Map(map) => Value::Bool(map.field(name).is_some()),
                _ => return Err(EvalError::NoOverload("has")),
            },
            ExprKind::Index(object, index) => {
                let index = self.value(index, scope)?;
                match self.value(object, scope)? {
                    Value::Map(map) => map.get(&index).ok_or(EvalError::NotFound)?,
                    Value::List(list) => {
                        let at = match index {
                            Value::Int(at) => usize::try_from(at).ok(),
                            Value::Uint(at) => usize::try_from(at).ok(),
                            _ => return Err(EvalError::NoOverload("[]")),
                        };
                        at.and_then(|at| list.get(at)).ok_or(EvalError::NotFound)?
                    }
                    _ => return Err(EvalError::NoOverload("[]")),
                }
            }
            ExprKind::List(items) => {
                let values: Result<Vec<_>> = items.iter().map(|item| self.value(item, scope)).collect();
                Value::List(List::Made(Rc::from(values?)))
            }
            ExprKind::Map(entries) => {
                let mut made: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let (key, value) = (self.value(key, scope)?, self.value(value, scope)?);
                    if made.iter().any(|(other, _)| other.equals(&key)) {
                        return Err(EvalError::NoOverload("{}"));
                    }
                    made.push((key, value));
                }
                Value::Map(Map::Made(Rc::from(made)))
            }
            ExprKind::Not(inner) => match self.value(inner, scope)? {
                Value::Bool(value) => Value::Bool(!value),
                _ => return Err(EvalError::NoOverload("!")),
            },
            ExprKind::Negate(inner) => match self.value(inner, scope)? {
                Value::Int(n) => Value::Int(n.checked_neg().ok_or(EvalError::Overflow)?),
                Value::Double(n) => Value::Double(-n),
                Value::Duration(n) => Value::Duration(n.checked_neg().ok_or(EvalError::Overflow)?),
                _ => return Err(EvalError::NoOverload("-")),
            },
            ExprKind::And(all) => self.logic(all, scope, false)?,
            ExprKind::Or(all) => self.logic(all, scope, true)?,
            ExprKind::Binary(Operator::In, left, right) => {
                let left = self.value(left, scope)?;
                Value::Bool(self.is_in(&left, right, scope)?)
            }
            ExprKind::Binary(operator, left, right) => {
                let (left, right) = (self.value(left, scope)?, self.value(right, scope)?);
                binary(*operator, left, right)?
            }
            ExprKind::Choose(condition, yes, no) => match self.value(condition, scope)? {
                Value::Bool(true) => self.value(yes, scope)?,
                Value::Bool(false) => self.value(no, scope)?,
                _ => return Err(EvalError::NoOverload("?:")),
            },
            ExprKind::Call(function, arguments) => {
                let mut values = [Value::Null, Value::Null, Value::Null];
                for (slot, argument) in values.iter_mut().zip(arguments) {
                    *slot = self.value(argument, scope)?;
                }
                function.apply(values, arguments.len())?
            }
            ExprKind::Matches(text, pattern) => match self.value(text, scope)? {
                Value::Text(text) => Value::Bool(pattern.is_match(&text)),
                _ => return Err(EvalError::NoOverload("matches")),
            },
            ExprKind::Part(part, of, zone) => {
                let offset = match zone {
                    None => 0,
                    Some(zone) => match self.value(zone, scope)? {
                        Value::Text(zone) => {
                            time::parse_offset(&zone).ok_or(EvalError::Conversion("a time zone"))?
                        }
                        _ => return Err(EvalError::NoOverload("time zone")),
                    },
                };
                match self.value(of, scope)? {
                    Value::Timestamp(time) => Value::Int(part.of(time, offset)),
                    Value::Duration(nanos) => {
                        Value::Int(part.of_duration(nanos).ok_or(EvalError::NoOverload("duration"))?)
                    }
                    _ => return Err(EvalError::NoOverload("timestamp")),
                }
            }
            ExprKind::Fold(fold, range, bodies) => {
                let range = self.value(range, scope)?;
                self.fold(*fold, &range, bodies, scope)?
            }
        })
    }

    /// `&&` (decided by false) and `||` (decided by true): one part that decides makes errors of the others not matter
    /// (CEL specification, "Logical Operators").
    fn logic(&self, all: &'a [Expr], scope: Option<&Scope<'_, 'a>>, decides: bool) -> Result<Value<'a>> {
        let mut error = None;
        for part in all {
            match self.value(part, scope) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => error = Some(EvalError::NoOverload(if decides { "||" } else { "&&" })),
                Err(EvalError::TooManySteps) => return Err(EvalError::TooManySteps),
                Err(other) => error = error.or(Some(other)),
            }
        }
        error.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn is_in(&self, left: &Value<'a>, right: &'a Expr, scope: Option<&Scope<'_, 'a>>) -> Result<bool> {
        // A list that is written out is not built to look into it.
        if let ExprKind::List(items) = &right.kind {
            for item in items {
                if self.value(item, scope)?.equals(left) {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        match self.value(right, scope)? {
            Value::List(list) => {
                for at in 0..list.len() {
                    self.step()?;
                    if list.get(at).is_some_and(|item| item.equals(left)) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::Map(map) => Ok(map.get(left).is_some()),
            _ => Err(EvalError::NoOverload("in")),
        }
    }

    fn fold(
        &self,
        fold: Fold,
        range: &Value<'a>,
        bodies: &'a [Expr],
        outer: Option<&Scope<'_, 'a>>,
    ) -> Result<Value<'a>> {
        let mut state = Folding { fold, bodies, made: Vec::new(), count: 0, error: None };
        match range {
            Value::List(list) => {
                for at in 0..list.len() {
                    let Some(item) = list.get(at) else { break };
                    if let Some(result) = self.fold_one(&mut state, item, outer)? {
                        return Ok(result);
                    }
                }
            }
            Value::Map(map) => {
                let mut result = Ok(None);
                map.each_key(&mut |key| {
                    result = self.fold_one(&mut state, key, outer);
                    matches!(result, Ok(None))
                });
                if let Some(result) = result? {
                    return Ok(result);
                }
            }
            _ => return Err(EvalError::NoOverload("macro")),
        }
        match (state.error, fold) {
            (Some(error), _) => Err(error),
            (None, Fold::All) => Ok(Value::Bool(true)),
            (None, Fold::Exists) => Ok(Value::Bool(false)),
            (None, Fold::ExistsOne) => Ok(Value::Bool(state.count == 1)),
            (None, Fold::Filter | Fold::Map) => Ok(Value::List(List::Made(Rc::from(state.made)))),
        }
    }

    /// One element; `Some` when the result stands.
    fn fold_one(
        &self,
        state: &mut Folding<'a>,
        item: Value<'a>,
        outer: Option<&Scope<'_, 'a>>,
    ) -> Result<Option<Value<'a>>> {
        let scope = Scope { value: item, outer };
        let Some((last, conditions)) = state.bodies.split_last() else { return Ok(None) };
        for condition in conditions {
            match self.value(condition, Some(&scope))? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Ok(None),
                _ => return Err(EvalError::NoOverload("map")),
            }
        }
        let value = self.value(last, Some(&scope));
        match (state.fold, value) {
            (_, Err(EvalError::TooManySteps)) => return Err(EvalError::TooManySteps),
            (Fold::All, Ok(Value::Bool(false))) => return Ok(Some(Value::Bool(false))),
            (Fold::Exists, Ok(Value::Bool(true))) => return Ok(Some(Value::Bool(true))),
            (Fold::All, Ok(Value::Bool(true))) | (Fold::Exists, Ok(Value::Bool(false))) => {}
            // As with && and ||: an element that decides outweighs one that fails.
            (Fold::All | Fold::Exists, Err(error)) => state.error = state.error.or(Some(error)),
            (_, Err(error)) => return Err(error),
            (Fold::ExistsOne, Ok(Value::Bool(value))) => state.count += u32::from(value),
            (Fold::Filter, Ok(Value::Bool(value))) => {
                if value {
                    state.made.push(scope.value);
                }
            }
            (Fold::Map, Ok(value)) => state.made.push(value),
            (_, Ok(_)) => return Err(EvalError::NoOverload("macro")),
        }
        if state.made.len() > LIST_LIMIT {
            return Err(EvalError::TooLarge);
        }
        Ok(None)
    }
}

/// A macro under way.
struct Folding<'a> {
    fold: Fold,
    bodies: &'a [Expr],
    made: Vec<Value<'a>>,
    count: u32,
    error: Option<EvalError>,
}

fn binary<'a>(operator: Operator, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>> {
    let compared = |wanted: &[Ordering]| match left.compare(&right) {
        Some(order) => Ok(Value::Bool(wanted.contains(&order))),
        // NaN is in no order with any number.
        None if matches!((&left, &right), (Value::Double(_), _) | (_, Value::Double(_))) => {
            Ok(Value::Bool(false))
        }
        None => Err(EvalError::NoOverload(operator.mark())),
    };
    match operator {
        Operator::Equal => Ok(Value::Bool(left.equals(&right))),
        Operator::NotEqual => Ok(Value::Bool(!left.equals(&right))),
        Operator::Less => compared(&[Ordering::Less]),
        Operator::LessOrEqual => compared(&[Ordering::Less, Ordering::Equal]),
        Operator::Greater => compared(&[Ordering::Greater]),
        Operator::GreaterOrEqual => compared(&[Ordering::Greater, Ordering::Equal]),
        Operator::Add => add(left, right),
        Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Modulo => {
            arithmetic(operator, &left, &right)
        }
        Operator::In => Err(EvalError::NoOverload("in")),
    }
}

fn add<'a>(left: Value<'a>, right: Value<'a>) -> Result<Value<'a>> {
    let overflow = EvalError::Overflow;
    Ok(match (left, right) {
        (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(b).ok_or(overflow)?),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(a.checked_add(b).ok_or(overflow)?),
        (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
        (Value::Duration(a), Value::Duration(b)) => Value::Duration(a.checked_add(b).ok_or(overflow)?),
        (Value::Timestamp(a), Value::Duration(b)) | (Value::Duration(b), Value::Timestamp(a)) => {
            Value::Timestamp(a.plus(b).ok_or(overflow)?)
        }
        (Value::Text(a), Value::Text(b)) => {
            if a.len() + b.len() > TEXT_LIMIT {
                return Err(EvalError::TooLarge);
            }
            Value::Text(a + b)
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            if a.len() + b.len() > TEXT_LIMIT {
                return Err(EvalError::TooLarge);
            }
            Value::Bytes([a, b].concat().into())
        }
        (Value::List(a), Value::List(b)) => {
            if a.len() + b.len() > LIST_LIMIT {
                return Err(EvalError::TooLarge);
            }
            let items =
                (0..a.len()).filter_map(|at| a.get(at)).chain((0..b.len()).filter_map(|at| b.get(at)));
            Value::List(List::Made(items.collect()))
        }
        _ => return Err(EvalError::NoOverload("+")),
    })
}

fn arithmetic<'a>(operator: Operator, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'a>> {
    let zero = EvalError::DivisionByZero;
    let checked = |value: Option<i64>| value.map(Value::Int).ok_or(EvalError::Overflow);
    let checked_unsigned = |value: Option<u64>| value.map(Value::Uint).ok_or(EvalError::Overflow);
    match (operator, left, right) {
        (Operator::Divide | Operator::Modulo, _, Value::Int(0) | Value::Uint(0)) => Err(zero),
        (Operator::Subtract, Value::Int(a), Value::Int(b)) => checked(a.checked_sub(*b)),
        (Operator::Multiply, Value::Int(a), Value::Int(b)) => checked(a.checked_mul(*b)),
        (Operator::Divide, Value::Int(a), Value::Int(b)) => checked(a.checked_div(*b)),
        (Operator::Modulo, Value::Int(a), Value::Int(b)) => checked(a.checked_rem(*b)),
        (Operator::Subtract, Value::Uint(a), Value::Uint(b)) => checked_unsigned(a.checked_sub(*b)),
        (Operator::Multiply, Value::Uint(a), Value::Uint(b)) => checked_unsigned(a.checked_mul(*b)),
        (Operator::Divide, Value::Uint(a), Value::Uint(b)) => checked_unsigned(a.checked_div(*b)),
        (Operator::Modulo, Value::Uint(a), Value::Uint(b)) => checked_unsigned(a.checked_rem(*b)),
        (Operator::Subtract, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Operator::Multiply, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        (Operator::Divide, Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        (Operator::Subtract, Value::Duration(a), Value::Duration(b)) => {
            a.checked_sub(*b).map(Value::Duration).ok_or(EvalError::Overflow)
        }
        (Operator::Subtract, Value::Timestamp(a), Value::Timestamp(b)) => {
            a.since(*b).map(Value::Duration).ok_or(EvalError::Overflow)
        }
        (Operator::Subtract, Value::Timestamp(a), Value::Duration(b)) => {
            let moved: Option<Timestamp> = b.checked_neg().and_then(|b| a.plus(b));
            moved.map(Value::Timestamp).ok_or(EvalError::Overflow)
        }
        _ => Err(EvalError::NoOverload(operator.mark())),
    }
}
