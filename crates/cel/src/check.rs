//! Whether an expression can mean something: names exist, values fit.

use crate::ast::{Expr, ExprKind, Fold, Operator};
use crate::functions::Function;
use crate::program::{CompileError, nearest};
use crate::schema::{Kind, Schema};

pub(crate) fn check(expr: &Expr, schema: &'static Schema) -> Result<Kind, CompileError> {
    Checker { schema, locals: Vec::new() }.kind(expr)
}

struct Checker {
    schema: &'static Schema,
    /// Kinds of macro variables, the innermost last.
    locals: Vec<Kind>,
}

fn wrong(expr: &Expr, why: String, fix: impl Into<String>) -> CompileError {
    CompileError::new(expr.at.clone(), why, fix)
}

impl Checker {
    fn kind(&mut self, expr: &Expr) -> Result<Kind, CompileError> {
        Ok(match &expr.kind {
            ExprKind::Null => Kind::Null,
            ExprKind::Bool(_) => Kind::Bool,
            ExprKind::Int(_) => Kind::Int,
            ExprKind::Uint(_) => Kind::Uint,
            ExprKind::Double(_) => Kind::Double,
            ExprKind::Text(_) => Kind::Text,
            ExprKind::Bytes(_) => Kind::Bytes,
            ExprKind::Duration(_) => Kind::Duration,
            ExprKind::Timestamp(_) => Kind::Timestamp,
            ExprKind::Ip(_) => Kind::Ip,
            ExprKind::Cidr(_) => Kind::Cidr,
            ExprKind::Name(name) => match self.schema.field(name) {
                Some(field) => field.kind,
                None => {
                    let mut fix = nearest(name, self.schema.fields.iter().map(|field| field.name));
                    if fix.is_empty() {
                        let names: Vec<_> = self.schema.fields.iter().map(|field| field.name).collect();
                        fix = format!("there are {}; strings stand in quotes", names.join(", "));
                    }
                    return Err(wrong(expr, format!("no attribute `{name}`"), fix));
                }
            },
            ExprKind::Local(distance) => self
                .locals
                .len()
                .checked_sub(distance + 1)
                .and_then(|at| self.locals.get(at))
                .copied()
                .unwrap_or(Kind::Dyn),
            ExprKind::Select(object, name) => {
                let kind = self.kind(object)?;
                self.select(expr, kind, name)?
            }
            ExprKind::Has(object, name) => {
                let kind = self.kind(object)?;
                self.select(expr, kind, name)?;
                Kind::Bool
            }
            ExprKind::Index(object, index) => self.index(object, index)?,
            ExprKind::List(items) => self.list(items)?,
            ExprKind::Map(entries) => {
                for (key, value) in entries {
                    let kind = self.kind(key)?;
                    if !matches!(kind, Kind::Dyn | Kind::Text | Kind::Int | Kind::Uint | Kind::Bool) {
                        return Err(wrong(key, format!("{} is no key of a map", kind.tell()), ""));
                    }
                    self.kind(value)?;
                }
                Kind::Map(&Kind::Dyn)
            }
            ExprKind::Not(inner) => self.expect(inner, Kind::Bool, "`!`")?,
            ExprKind::Negate(inner) => {
                let kind = self.kind(inner)?;
                if !matches!(kind, Kind::Dyn | Kind::Int | Kind::Double | Kind::Duration) {
                    return Err(wrong(inner, format!("`-` of {}", kind.tell()), ""));
                }
                kind
            }
            ExprKind::And(all) | ExprKind::Or(all) => {
                let mark = if matches!(expr.kind, ExprKind::And(_)) { "`&&`" } else { "`||`" };
                for part in all {
                    self.expect(part, Kind::Bool, mark)?;
                }
                Kind::Bool
            }
            ExprKind::Binary(operator, left, right) => self.binary(expr, *operator, left, right)?,
            ExprKind::Choose(condition, yes, no) => {
                self.expect(condition, Kind::Bool, "`?`")?;
                let (yes, no) = (self.kind(yes)?, self.kind(no)?);
                if yes == no { yes } else { Kind::Dyn }
            }
            ExprKind::Call(function, arguments) => self.call(*function, arguments)?,
            ExprKind::Matches(text, _) => {
                self.expect(text, Kind::Text, "`matches`")?;
                Kind::Bool
            }
            ExprKind::Part(part, time, zone) => {
                let kind = self.kind(time)?;
                let fits = match kind {
                    Kind::Dyn | Kind::Timestamp => true,
                    Kind::Duration => part.of_duration(0).is_some() && zone.is_none(),
                    _ => false,
                };
                if !fits {
                    return Err(wrong(
                        time,
                        format!("{} has no such part", kind.tell()),
                        "begin with timestamp(\"…\") or request.time",
                    ));
                }
                if let Some(zone) = zone {
                    self.expect(zone, Kind::Text, "the zone")?;
                    if let ExprKind::Text(text) = &zone.kind
                        && crate::time::parse_offset(text).is_none()
                    {
                        return Err(wrong(
                            zone,
                            format!("no zone `{text}`"),
                            "write an offset to UTC: \"+02:00\"",
                        ));
                    }
                }
                Kind::Int
            }
            ExprKind::Fold(fold, range, bodies) => self.fold(*fold, range, bodies)?,
        })
    }

    fn expect(&mut self, expr: &Expr, wanted: Kind, of: &str) -> Result<Kind, CompileError> {
        let kind = self.kind(expr)?;
        if kind.may_be(wanted) {
            return Ok(wanted);
        }
        let fix = match (wanted, kind) {
            (Kind::Bool, Kind::Text) => "compare it: `… == \"value\"`",
            (Kind::Bool, _) => "compare it with something",
            (Kind::Text, Kind::Int | Kind::Uint | Kind::Double | Kind::Ip) => "convert it: string(…)",
            _ => "",
        };
        Err(wrong(expr, format!("{of} takes {}, this is {}", wanted.tell(), kind.tell()), fix))
    }

    fn select(&self, expr: &Expr, kind: Kind, name: &str) -> Result<Kind, CompileError> {
        match kind {
            Kind::Dyn => Ok(Kind::Dyn),
            Kind::Map(value) => Ok(*value),
            Kind::Object(schema) => match schema.field(name) {
                Some(field) => Ok(field.kind),
                None => {
                    let mut fix = nearest(name, schema.fields.iter().map(|field| field.name));
                    if fix.is_empty() {
                        let names: Vec<_> = schema.fields.iter().map(|field| field.name).collect();
                        fix = format!("there are {}", names.join(", "));
                    }
                    Err(wrong(expr, format!("no field `{name}`"), fix))
                }
            },
            other => Err(wrong(expr, format!("{} has no field `{name}`", other.tell()), "")),
        }
    }

    fn index(&mut self, object: &Expr, index: &Expr) -> Result<Kind, CompileError> {
        let (kind, at) = (self.kind(object)?, self.kind(index)?);
        match kind {
            Kind::Dyn => Ok(Kind::Dyn),
            Kind::List(element) => {
                if !matches!(at, Kind::Dyn | Kind::Int | Kind::Uint) {
                    return Err(wrong(
                        index,
                        format!("elements of a list are numbered from 0, this is {}", at.tell()),
                        "",
                    ));
                }
                Ok(*element)
            }
            Kind::Map(value) => Ok(*value),
            Kind::Object(_) => match &index.kind {
                ExprKind::Text(name) => self.select(index, kind, name),
                _ if at.may_be(Kind::Text) => Ok(Kind::Dyn),
                _ => Err(wrong(index, format!("fields are named by strings, this is {}", at.tell()), "")),
            },
            other => Err(wrong(object, format!("{} has no elements", other.tell()), "")),
        }
    }

    fn list(&mut self, items: &[Expr]) -> Result<Kind, CompileError> {
        let mut common = None;
        for item in items {
            let kind = self.kind(item)?;
            common = Some(match common {
                None => kind,
                Some(before) if before == kind => kind,
                Some(_) => Kind::Dyn,
            });
        }
        Ok(common.unwrap_or(Kind::Dyn).list())
    }

    fn binary(
        &mut self,
        expr: &Expr,
        operator: Operator,
        left: &Expr,
        right: &Expr,
    ) -> Result<Kind, CompileError> {
        let (a, b) = (self.kind(left)?, self.kind(right)?);
        let mark = operator.mark();
        let mismatch = || {
            let fix = match (a, b) {
                (Kind::Ip, Kind::Text) => "write ip(\"…\"), or cidr(\"…\").containsIP(…) for a block",
                (Kind::Text, Kind::Int) => "write the number in quotes, or convert with int(…)",
                (Kind::Int, Kind::Text) => "write the number without quotes",
                (Kind::Int, Kind::Uint) | (Kind::Uint, Kind::Int) => "convert with int(…)",
                (Kind::Double, Kind::Int) | (Kind::Int, Kind::Double) => "convert with double(…)",
                _ => "",
            };
            wrong(expr, format!("`{mark}` between {} and {}", a.tell(), b.tell()), fix)
        };
        let is_dyn = a == Kind::Dyn || b == Kind::Dyn;
        let is_numeric = a.is_number() && b.is_number();
        match operator {
            Operator::Equal | Operator::NotEqual => {
                let fits = a.may_be(b) || is_numeric || a == Kind::Null || b == Kind::Null;
                if fits { Ok(Kind::Bool) } else { Err(mismatch()) }
            }
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                let is_ordered =
                    matches!(a, Kind::Bool | Kind::Text | Kind::Bytes | Kind::Duration | Kind::Timestamp)
                        && a == b;
                if is_dyn || is_numeric || is_ordered { Ok(Kind::Bool) } else { Err(mismatch()) }
            }
            Operator::In => match b {
                Kind::Dyn => Ok(Kind::Bool),
                Kind::List(element) if a.may_be(*element) || (a.is_number() && element.is_number()) => {
                    Ok(Kind::Bool)
                }
                Kind::Map(_) | Kind::Object(_)
                    if a.may_be(Kind::Text) || matches!(b, Kind::Map(Kind::Dyn)) =>
                {
                    Ok(Kind::Bool)
                }
                Kind::Cidr => Err(wrong(
                    expr,
                    "`in` looks into lists and maps".to_owned(),
                    "write cidr(\"…\").containsIP(…)",
                )),
                _ => Err(mismatch()),
            },
            Operator::Add => match (a, b) {
                _ if is_dyn => Ok(Kind::Dyn),
                (Kind::Int | Kind::Uint | Kind::Double | Kind::Text | Kind::Bytes | Kind::Duration, _)
                    if a == b =>
                {
                    Ok(a)
                }
                (Kind::Timestamp, Kind::Duration) | (Kind::Duration, Kind::Timestamp) => Ok(Kind::Timestamp),
                (Kind::List(_), Kind::List(_)) => Ok(if a == b { a } else { Kind::List(&Kind::Dyn) }),
                _ => Err(mismatch()),
            },
            Operator::Subtract => match (a, b) {
                _ if is_dyn => Ok(Kind::Dyn),
                (Kind::Int | Kind::Uint | Kind::Double | Kind::Duration, _) if a == b => Ok(a),
                (Kind::Timestamp, Kind::Duration) => Ok(Kind::Timestamp),
                (Kind::Timestamp, Kind::Timestamp) => Ok(Kind::Duration),
                _ => Err(mismatch()),
            },
            Operator::Multiply | Operator::Divide => match a {
                _ if is_dyn => Ok(Kind::Dyn),
                Kind::Int | Kind::Uint | Kind::Double if a == b => Ok(a),
                _ => Err(mismatch()),
            },
            Operator::Modulo => match a {
                _ if is_dyn => Ok(Kind::Dyn),
                Kind::Int | Kind::Uint if a == b => Ok(a),
                _ => Err(mismatch()),
            },
        }
    }

    fn call(&mut self, function: Function, arguments: &[Expr]) -> Result<Kind, CompileError> {
        let name = format!("`{}`", function.name());
        let texts = |this: &mut Self, kinds: &[Kind]| -> Result<(), CompileError> {
            for (argument, kind) in arguments.iter().zip(kinds) {
                this.expect(argument, *kind, &name)?;
            }
            Ok(())
        };
        let result = match function {
            Function::Size => {
                let Some(first) = arguments.first() else { return Ok(Kind::Int) };
                let kind = self.kind(first)?;
                if !matches!(
                    kind,
                    Kind::Dyn | Kind::Text | Kind::Bytes | Kind::List(_) | Kind::Map(_) | Kind::Object(_)
                ) {
                    return Err(wrong(first, format!("{} has no size", kind.tell()), ""));
                }
                return Ok(Kind::Int);
            }
            Function::Contains | Function::StartsWith | Function::EndsWith | Function::Matches => {
                texts(self, &[Kind::Text, Kind::Text])?;
                return Ok(Kind::Bool);
            }
            Function::LowerAscii | Function::UpperAscii | Function::Trim => {
                texts(self, &[Kind::Text])?;
                Kind::Text
            }
            Function::Replace => {
                texts(self, &[Kind::Text, Kind::Text, Kind::Text])?;
                Kind::Text
            }
            Function::Split => {
                texts(self, &[Kind::Text, Kind::Text, Kind::Int])?;
                Kind::List(&Kind::Text)
            }
            Function::Substring => {
                texts(self, &[Kind::Text, Kind::Int, Kind::Int])?;
                Kind::Text
            }
            Function::CharAt => {
                texts(self, &[Kind::Text, Kind::Int])?;
                Kind::Text
            }
            Function::IndexOf | Function::LastIndexOf => {
                texts(self, &[Kind::Text, Kind::Text])?;
                Kind::Int
            }
            Function::Join => {
                texts(self, &[Kind::List(&Kind::Text), Kind::Text])?;
                Kind::Text
            }
            Function::ContainsIp => {
                texts(self, &[Kind::Cidr])?;
                if let Some(address) = arguments.get(1) {
                    let kind = self.kind(address)?;
                    if !matches!(kind, Kind::Dyn | Kind::Ip | Kind::Text) {
                        return Err(wrong(
                            address,
                            format!("{name} takes an IP address, this is {}", kind.tell()),
                            "",
                        ));
                    }
                }
                Kind::Bool
            }
            Function::IsIp
            | Function::ToInt
            | Function::ToUint
            | Function::ToDouble
            | Function::ToText
            | Function::ToBytes
            | Function::ToBool
            | Function::ToDyn
            | Function::Duration
            | Function::Timestamp
            | Function::Ip
            | Function::Cidr => {
                for argument in arguments {
                    self.kind(argument)?;
                }
                match function {
                    Function::ToInt => Kind::Int,
                    Function::ToUint => Kind::Uint,
                    Function::ToDouble => Kind::Double,
                    Function::ToText => Kind::Text,
                    Function::ToBytes => Kind::Bytes,
                    Function::ToBool | Function::IsIp => Kind::Bool,
                    Function::Duration => Kind::Duration,
                    Function::Timestamp => Kind::Timestamp,
                    Function::Ip => Kind::Ip,
                    Function::Cidr => Kind::Cidr,
                    _ => Kind::Dyn,
                }
            }
        };
        Ok(result)
    }

    fn fold(&mut self, fold: Fold, range: &Expr, bodies: &[Expr]) -> Result<Kind, CompileError> {
        let kind = self.kind(range)?;
        let element = match kind {
            Kind::Dyn => Kind::Dyn,
            Kind::List(element) => *element,
            Kind::Map(_) | Kind::Object(_) => Kind::Text,
            other => return Err(wrong(range, format!("{} has no elements", other.tell()), "")),
        };
        self.locals.push(element);
        let result = self.bodies(fold, bodies);
        self.locals.pop();
        let last = result?;
        Ok(match fold {
            Fold::All | Fold::Exists | Fold::ExistsOne => Kind::Bool,
            Fold::Filter => element.list(),
            Fold::Map => last.list(),
        })
    }

    fn bodies(&mut self, fold: Fold, bodies: &[Expr]) -> Result<Kind, CompileError> {
        let mut last = Kind::Dyn;
        for (at, body) in bodies.iter().enumerate() {
            let is_condition = fold != Fold::Map || at + 1 < bodies.len();
            last = if is_condition { self.expect(body, Kind::Bool, "the macro")? } else { self.kind(body)? };
        }
        Ok(last)
    }
}
