//! From words to a tree (CEL specification, "Syntax").

use std::ops::Range;

use regex::RegexBuilder;

use crate::ast::{Expr, ExprKind, Fold, Operator};
use crate::functions::Function;
use crate::program::CompileError;
use crate::time::{self, TimePart, Timestamp};
use crate::token::{self, Spanned, Token};

/// Longest expression, in bytes.
pub const LENGTH_LIMIT: usize = 8 << 10;

/// How deep an expression may be nested.
pub const DEPTH_LIMIT: usize = 64;

/// Most parts of an expression.
pub const NODES_LIMIT: usize = 2_000;

/// Most memory that a compiled pattern may take, in bytes.
const PATTERN_LIMIT: usize = 256 << 10;

pub(crate) fn parse(text: &str) -> Result<Expr, CompileError> {
    if text.len() > LENGTH_LIMIT {
        let why = format!("the expression is longer than {LENGTH_LIMIT} bytes");
        return Err(CompileError::new(0..text.len(), why, "divide it into several rules"));
    }
    let tokens = token::read(text)?;
    let mut parser = Parser { tokens: &tokens, next: 0, depth: 0, nodes: 0, locals: Vec::new() };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => {
            let why = format!("{} where the expression should end", other.tell());
            let fix = match other {
                Token::Name(_) | Token::Text(_) | Token::Int(_) => "combine conditions with `&&` or `||`",
                _ => "",
            };
            Err(CompileError::new(parser.at(), why, fix))
        }
    }
}

struct Parser<'t> {
    tokens: &'t [Spanned],
    next: usize,
    depth: usize,
    nodes: usize,
    /// Names of macro variables in force, the innermost last.
    locals: Vec<String>,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |spanned| &spanned.token)
    }

    fn at(&self) -> Range<usize> {
        self.tokens.get(self.next).or_else(|| self.tokens.last()).map_or(0..0, |spanned| spanned.at.clone())
    }

    fn end_of_last(&self) -> usize {
        self.next.checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(0, |spanned| spanned.at.end)
    }

    fn take(&mut self, mark: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Mark(next) if *next == mark);
        self.next += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, mark: &'static str, of: &str) -> Result<(), CompileError> {
        if self.take(mark) {
            return Ok(());
        }
        let why = format!("{} where `{mark}` of {of} is expected", self.peek().tell());
        Err(CompileError::new(self.at(), why, ""))
    }

    fn make(&mut self, kind: ExprKind, start: usize) -> Result<Expr, CompileError> {
        let at = start..self.end_of_last();
        self.nodes += 1;
        if self.nodes > NODES_LIMIT {
            let why = format!("the expression has more than {NODES_LIMIT} parts");
            return Err(CompileError::new(at, why, "divide it into several rules"));
        }
        Ok(Expr { kind, at })
    }

    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CompileError>,
    ) -> Result<T, CompileError> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            let why = format!("the expression is nested deeper than {DEPTH_LIMIT}");
            return Err(CompileError::new(self.at(), why, "divide it into several rules"));
        }
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Counts a step of a row such as `a + b + c`, whose tree is as deep as the row is long.
    fn one_more(&self, steps: usize) -> Result<usize, CompileError> {
        if steps == DEPTH_LIMIT {
            let why = format!("more than {DEPTH_LIMIT} operators in a row");
            return Err(CompileError::new(self.at(), why, "divide the expression"));
        }
        Ok(steps + 1)
    }

    /// `Expr = ConditionalOr ["?" ConditionalOr ":" Expr]`.
    fn expr(&mut self) -> Result<Expr, CompileError> {
        self.deeper(|this| {
            let start = this.at().start;
            let condition = this.or()?;
            if !this.take("?") {
                return Ok(condition);
            }
            let yes = this.or()?;
            this.expect(":", "the choice")?;
            let no = this.expr()?;
            this.make(ExprKind::Choose(condition.into(), yes.into(), no.into()), start)
        })
    }

    fn or(&mut self) -> Result<Expr, CompileError> {
        let start = self.at().start;
        let first = self.and()?;
        if !matches!(self.peek(), Token::Mark("||")) {
            return Ok(first);
        }
        let mut all = vec![first];
        while self.take("||") {
            all.push(self.and()?);
        }
        self.make(ExprKind::Or(all.into()), start)
    }

    fn and(&mut self) -> Result<Expr, CompileError> {
        let start = self.at().start;
        let first = self.relation()?;
        if !matches!(self.peek(), Token::Mark("&&")) {
            return Ok(first);
        }
        let mut all = vec![first];
        while self.take("&&") {
            all.push(self.relation()?);
        }
        self.make(ExprKind::And(all.into()), start)
    }

    fn relation(&mut self) -> Result<Expr, CompileError> {
        let start = self.at().start;
        let (mut left, mut steps) = (self.sum()?, 0);
        loop {
            let operator = match self.peek() {
                Token::In => Operator::In,
                Token::Mark("==") => Operator::Equal,
                Token::Mark("!=") => Operator::NotEqual,
                Token::Mark("<") => Operator::Less,
                Token::Mark("<=") => Operator::LessOrEqual,
                Token::Mark(">") => Operator::Greater,
                Token::Mark(">=") => Operator::GreaterOrEqual,
                _ => return Ok(left),
            };
            self.next += 1;
            steps = self.one_more(steps)?;
            let right = self.sum()?;
            left = self.make(ExprKind::Binary(operator, left.into(), right.into()), start)?;
        }
    }

    fn sum(&mut self) -> Result<Expr, CompileError> {
        let start = self.at().start;
        let (mut left, mut steps) = (self.product()?, 0);
        loop {
            let operator = match self.peek() {
                Token::Mark("+") => Operator::Add,
                Token::Mark("-") => Operator::Subtract,
                _ => return Ok(left),
            };
            self.next += 1;
            steps = self.one_more(steps)?;
            let right = self.product()?;
            left = self.make(ExprKind::Binary(operator, left.into(), right.into()), start)?;
        }
    }

    fn product(&mut self) -> Result<Expr, CompileError> {
        let start = self.at().start;
        let (mut left, mut steps) = (self.unary()?, 0);
        loop {
            let operator = match self.peek() {
                Token::Mark("*") => Operator::Multiply,
                Token::Mark("/") => Operator::Divide,
                Token::Mark("%") => Operator::Modulo,
                _ => return Ok(left),
            };
            self.next += 1;
            steps = self.one_more(steps)?;
            let right = self.unary()?;
            left = self.make(ExprKind::Binary(operator, left.into(), right.into()), start)?;
        }
    }

    fn unary(&mut self) -> Result<Expr, CompileError> {
        let start = self.at().start;
        if self.take("!") {
            let inner = self.deeper(Self::unary)?;
            return self.make(ExprKind::Not(inner.into()), start);
        }
        if self.take("-") {
            if *self.peek() == Token::IntMinMagnitude {
                self.next += 1;
                return self.make(ExprKind::Int(i64::MIN), start);
            }
            let inner = self.deeper(Self::unary)?;
            return match inner.kind {
                ExprKind::Int(n) => self.make(ExprKind::Int(n.wrapping_neg()), start),
                ExprKind::Double(n) => self.make(ExprKind::Double(-n), start),
                _ => self.make(ExprKind::Negate(inner.into()), start),
            };
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, CompileError> {
        let start = self.at().start;
        let mut expr = self.primary()?;
        let mut steps = 0;
        loop {
            if self.take("?.") || self.take("[?") {
                let why = "optional selection is not supported";
                return Err(CompileError::new(self.at(), why, "ask with `has(a.b)` first, or `key in map`"));
            }
            let is_dot = self.take(".");
            if !is_dot && !self.take("[") {
                return Ok(expr);
            }
            steps = self.one_more(steps)?;
            if !is_dot {
                let index = self.expr()?;
                self.expect("]", "the index")?;
                expr = self.make(ExprKind::Index(expr.into(), index.into()), start)?;
                continue;
            }
            let name_at = self.at();
            let Token::Name(name) = self.peek().clone() else {
                let why = format!("{} where a name is expected", self.peek().tell());
                return Err(CompileError::new(name_at, why, "write names that are no words as [\"x-name\"]"));
            };
            self.next += 1;
            expr = if self.take("(") {
                self.method(expr, &name, name_at, start)?
            } else {
                self.make(ExprKind::Select(expr.into(), name.into()), start)?
            };
        }
    }

    fn primary(&mut self) -> Result<Expr, CompileError> {
        let at = self.at();
        let token = self.peek().clone();
        self.next += 1;
        let kind = match token {
            Token::Null => ExprKind::Null,
            Token::True => ExprKind::Bool(true),
            Token::False => ExprKind::Bool(false),
            Token::Int(n) => ExprKind::Int(n),
            Token::IntMinMagnitude => return Err(CompileError::new(at, "no integer of 64 bits", "")),
            Token::Uint(n) => ExprKind::Uint(n),
            Token::Double(n) => ExprKind::Double(n),
            Token::Text(text) => ExprKind::Text(text.into()),
            Token::Bytes(bytes) => ExprKind::Bytes(bytes.into()),
            Token::Mark("(") => {
                let inner = self.expr()?;
                self.expect(")", "the parenthesis")?;
                return Ok(inner);
            }
            Token::Mark("[") => {
                let items = self.list("]", "the list")?;
                ExprKind::List(items.into())
            }
            Token::Mark("{") => ExprKind::Map(self.entries()?.into()),
            // A leading dot means the root, where every attribute is.
            Token::Mark(".") => return self.primary(),
            Token::Name(name) => {
                if self.take("(") {
                    return self.function(&name, at);
                }
                if matches!(self.peek(), Token::Mark("{")) {
                    return Err(CompileError::new(
                        self.at(),
                        "messages are not supported",
                        "write a map: {\"key\": value}",
                    ));
                }
                match self.locals.iter().rev().position(|local| *local == name) {
                    Some(distance) => ExprKind::Local(distance),
                    None => ExprKind::Name(name.into()),
                }
            }
            other => {
                self.next -= 1;
                let fix = if other == Token::End { "the expression breaks off" } else { "" };
                let why = format!("{} where a value is expected", other.tell());
                return Err(CompileError::new(at, why, fix));
            }
        };
        self.make(kind, at.start)
    }

    fn list(&mut self, end: &'static str, of: &str) -> Result<Vec<Expr>, CompileError> {
        let mut items = Vec::new();
        while !self.take(end) {
            items.push(self.expr()?);
            if !self.take(",") {
                self.expect(end, of)?;
                break;
            }
        }
        Ok(items)
    }

    fn entries(&mut self) -> Result<Vec<(Expr, Expr)>, CompileError> {
        let mut entries = Vec::new();
        while !self.take("}") {
            let key = self.expr()?;
            self.expect(":", "the map entry")?;
            entries.push((key, self.expr()?));
            if !self.take(",") {
                self.expect("}", "the map")?;
                break;
            }
        }
        Ok(entries)
    }

    fn function(&mut self, name: &str, at: Range<usize>) -> Result<Expr, CompileError> {
        if name == "has" {
            let inner = self.expr()?;
            self.expect(")", "`has`")?;
            let ExprKind::Select(object, field) = inner.kind else {
                return Err(CompileError::new(
                    inner.at,
                    "`has` asks for a field",
                    "write has(a.b), or `\"key\" in map`",
                ));
            };
            return self.make(ExprKind::Has(object, field), at.start);
        }
        let arguments = self.list(")", "the call")?;
        let function = Function::named(name, false, arguments.len(), at.clone())?;
        let kind = self.call(function, arguments)?;
        self.make(kind, at.start)
    }

    fn method(
        &mut self,
        receiver: Expr,
        name: &str,
        at: Range<usize>,
        start: usize,
    ) -> Result<Expr, CompileError> {
        let fold = match name {
            "all" => Some(Fold::All),
            "exists" => Some(Fold::Exists),
            "exists_one" | "existsOne" => Some(Fold::ExistsOne),
            "filter" => Some(Fold::Filter),
            "map" => Some(Fold::Map),
            _ => None,
        };
        if let Some(fold) = fold {
            return self.fold(fold, receiver, name, start);
        }
        let mut arguments = self.list(")", "the call")?;
        if let Some(part) = TimePart::named(name) {
            if arguments.len() > 1 {
                return Err(CompileError::new(at, format!("`{name}` takes at most a zone"), ""));
            }
            return self.make(ExprKind::Part(part, receiver.into(), arguments.pop().map(Box::new)), start);
        }
        let function = Function::named(name, true, arguments.len(), at)?;
        arguments.insert(0, receiver);
        let kind = self.call(function, arguments)?;
        self.make(kind, start)
    }

    /// A call; what is written out is worked out here, once.
    fn call(&self, function: Function, mut arguments: Vec<Expr>) -> Result<ExprKind, CompileError> {
        let Some(last) = arguments.last() else { return Ok(ExprKind::Call(function, arguments.into())) };
        let at = last.at.clone();
        let ExprKind::Text(text) = &last.kind else {
            if function == Function::Matches {
                return Err(CompileError::new(
                    at,
                    "the pattern of `matches` has to be a string that is written out",
                    "",
                ));
            }
            return Ok(ExprKind::Call(function, arguments.into()));
        };
        let wrong =
            |what: &str, fix: &str| CompileError::new(at.clone(), format!("`{text}` is no {what}"), fix);
        Ok(match function {
            Function::Matches => {
                // A pattern of this engine takes linear time, whatever it is matched with.
                let regex = RegexBuilder::new(text).size_limit(PATTERN_LIMIT).build().map_err(|error| {
                    let told = error.to_string();
                    let why =
                        told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                    CompileError::new(at.clone(), format!("no regular expression: {why}"), "")
                })?;
                arguments.truncate(1);
                match arguments.pop() {
                    Some(text) => ExprKind::Matches(text.into(), regex.into()),
                    None => ExprKind::Null,
                }
            }
            Function::Duration => ExprKind::Duration(
                time::parse_duration(text).ok_or_else(|| wrong("duration", "write 90s, 1h30m or 250ms"))?,
            ),
            Function::Timestamp => ExprKind::Timestamp(
                Timestamp::parse(text).ok_or_else(|| wrong("timestamp", "write 2030-01-31T12:00:00Z"))?,
            ),
            Function::Ip => {
                ExprKind::Ip(text.parse().map_err(|_| wrong("IP address", "write 10.0.0.1 or 2001:db8::1"))?)
            }
            Function::Cidr => ExprKind::Cidr(
                text.parse().map_err(|_| wrong("address block", "write 10.0.0.0/8 or 2001:db8::/32"))?,
            ),
            _ => ExprKind::Call(function, arguments.into()),
        })
    }

    fn fold(&mut self, fold: Fold, range: Expr, name: &str, start: usize) -> Result<Expr, CompileError> {
        let at = self.at();
        let Token::Name(variable) = self.peek().clone() else {
            return Err(CompileError::new(
                at,
                format!("`{name}` begins with the name of its variable"),
                format!("write `list.{name}(x, …)`"),
            ));
        };
        self.next += 1;
        self.expect(",", &format!("`{name}`"))?;
        self.locals.push(variable);
        let bodies = self.list(")", &format!("`{name}`"));
        self.locals.pop();
        let bodies = bodies?;
        let is_right = bodies.len() == 1 || (fold == Fold::Map && bodies.len() == 2);
        if !is_right {
            return Err(CompileError::new(at, format!("`{name}` takes a variable and one expression"), ""));
        }
        self.make(ExprKind::Fold(fold, range.into(), bodies.into()), start)
    }
}
