//! Functions and methods (CEL specification, "Standard Definitions"; the string and network extensions of the field).

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

use crate::eval::EvalError;
use crate::program::{CompileError, nearest};
use crate::time::{self, Timestamp};
use crate::value::{List, Value};

/// Longest string that an expression may make, in bytes.
pub(crate) const TEXT_LIMIT: usize = 64 << 10;

/// Longest list that a function may make.
pub(crate) const LIST_LIMIT: usize = 1_000;

/// A function. Of a method the receiver is the first argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    LowerAscii,
    UpperAscii,
    Trim,
    Split,
    Substring,
    IndexOf,
    LastIndexOf,
    Replace,
    CharAt,
    Join,
    ToInt,
    ToUint,
    ToDouble,
    ToText,
    ToBytes,
    ToBool,
    ToDyn,
    Duration,
    Timestamp,
    Ip,
    IsIp,
    Cidr,
    ContainsIp,
}

/// Name, whether it may be written as a function and as a method, and how many arguments it takes, the receiver counted.
const FUNCTIONS: &[(&str, bool, bool, Range<usize>, Function)] = &[
    ("size", true, true, 1..2, Function::Size),
    ("contains", false, true, 2..3, Function::Contains),
    ("startsWith", false, true, 2..3, Function::StartsWith),
    ("endsWith", false, true, 2..3, Function::EndsWith),
    ("matches", true, true, 2..3, Function::Matches),
    ("lowerAscii", false, true, 1..2, Function::LowerAscii),
    ("upperAscii", false, true, 1..2, Function::UpperAscii),
    ("trim", false, true, 1..2, Function::Trim),
    ("split", false, true, 2..4, Function::Split),
    ("substring", false, true, 2..4, Function::Substring),
    ("indexOf", false, true, 2..3, Function::IndexOf),
    ("lastIndexOf", false, true, 2..3, Function::LastIndexOf),
    ("replace", false, true, 3..4, Function::Replace),
    ("charAt", false, true, 2..3, Function::CharAt),
    ("join", false, true, 1..3, Function::Join),
    ("int", true, false, 1..2, Function::ToInt),
    ("uint", true, false, 1..2, Function::ToUint),
    ("double", true, false, 1..2, Function::ToDouble),
    ("string", true, false, 1..2, Function::ToText),
    ("bytes", true, false, 1..2, Function::ToBytes),
    ("bool", true, false, 1..2, Function::ToBool),
    ("dyn", true, false, 1..2, Function::ToDyn),
    ("duration", true, false, 1..2, Function::Duration),
    ("timestamp", true, false, 1..2, Function::Timestamp),
    ("ip", true, false, 1..2, Function::Ip),
    ("isIP", true, false, 1..2, Function::IsIp),
    ("cidr", true, false, 1..2, Function::Cidr),
    ("containsIP", false, true, 2..3, Function::ContainsIp),
];

impl Function {
    /// The function of a name, for so many arguments (without the receiver of a method).
    pub(crate) fn named(
        name: &str,
        is_method: bool,
        arguments: usize,
        at: Range<usize>,
    ) -> Result<Self, CompileError> {
        let known = |(text, global, method, _, _): &(&str, bool, bool, Range<usize>, Self)| {
            *text == name && if is_method { *method } else { *global }
        };
        let Some((_, _, _, counts, function)) = FUNCTIONS.iter().find(|entry| known(entry)) else {
            let what = if is_method { "method" } else { "function" };
            let fix = match FUNCTIONS.iter().find(|(text, ..)| *text == name) {
                Some(_) if is_method => format!("write `{name}(value)`"),
                Some(_) => format!("write `value.{name}(…)`"),
                None => {
                    let names = FUNCTIONS.iter().filter(|entry| if is_method { entry.2 } else { entry.1 });
                    nearest(name, names.map(|entry| entry.0))
                }
            };
            return Err(CompileError::new(at, format!("no {what} `{name}`"), fix));
        };
        let given = arguments + usize::from(is_method);
        if !counts.contains(&given) {
            let least = counts.start - usize::from(is_method);
            let why = format!(
                "`{name}` takes {least} argument{}, not {arguments}",
                if least == 1 { "" } else { "s" }
            );
            return Err(CompileError::new(at, why, ""));
        }
        Ok(*function)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|entry| entry.4 == self).map_or("", |entry| entry.0)
    }

    /// Applies it. `arguments` has as many as the check of the expression demanded.
    pub(crate) fn apply<'a>(
        self,
        mut arguments: [Value<'a>; 3],
        count: usize,
    ) -> Result<Value<'a>, EvalError> {
        let no_overload = EvalError::NoOverload(self.name());
        let [first, second, third] = &mut arguments;
        let first = std::mem::replace(first, Value::Null);
        let answer = match (self, first) {
            (Self::Size, Value::Text(text)) => Value::Int(length(text.chars().count())),
            (Self::Size, Value::Bytes(bytes)) => Value::Int(length(bytes.len())),
            (Self::Size, Value::List(list)) => Value::Int(length(list.len())),
            (Self::Size, Value::Map(map)) => Value::Int(length(map.len())),
            (Self::ToDyn, any) => any,
            (
                Self::Contains | Self::StartsWith | Self::EndsWith | Self::IndexOf | Self::LastIndexOf,
                Value::Text(text),
            ) => {
                let Value::Text(part) = second else { return Err(no_overload) };
                let at_char = |at: Option<usize>| {
                    Value::Int(
                        at.and_then(|at| text.get(..at)).map_or(-1, |before| length(before.chars().count())),
                    )
                };
                match self {
                    Self::Contains => {
                        Value::Bool(memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some())
                    }
                    Self::StartsWith => Value::Bool(text.starts_with(&**part)),
                    Self::EndsWith => Value::Bool(text.ends_with(&**part)),
                    Self::IndexOf => at_char(text.find(&**part)),
                    _ => at_char(text.rfind(&**part)),
                }
            }
            (Self::LowerAscii, Value::Text(text)) => Value::Text(match text {
                Cow::Borrowed(text) if !text.bytes().any(|b| b.is_ascii_uppercase()) => Cow::Borrowed(text),
                text => Cow::Owned(text.to_ascii_lowercase()),
            }),
            (Self::UpperAscii, Value::Text(text)) => Value::Text(text.to_ascii_uppercase().into()),
            (Self::Trim, Value::Text(text)) => Value::Text(match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
            }),
            (Self::Split, Value::Text(text)) => {
                split(text, second, (count > 2).then_some(third), no_overload)?
            }
            (Self::Substring, Value::Text(text)) => {
                substring(&text, second, (count > 2).then_some(third), no_overload)?
            }
            (Self::CharAt, Value::Text(text)) => {
                let Value::Int(at) = second else { return Err(no_overload) };
                let at = usize::try_from(*at).map_err(|_| EvalError::OutOfRange)?;
                let found = text.chars().nth(at);
                if found.is_none() && at != text.chars().count() {
                    return Err(EvalError::OutOfRange);
                }
                Value::Text(found.map(String::from).unwrap_or_default().into())
            }
            (Self::Replace, Value::Text(text)) => {
                let (Value::Text(from), Value::Text(to)) = (second, third) else { return Err(no_overload) };
                let count =
                    if from.is_empty() { text.chars().count() + 1 } else { text.matches(&**from).count() };
                let grown = text.len().saturating_add(count.saturating_mul(to.len()));
                if grown > TEXT_LIMIT {
                    return Err(EvalError::TooLarge);
                }
                Value::Text(text.replace(&**from, to).into())
            }
            (Self::Join, Value::List(list)) => {
                let separator = match second {
                    Value::Text(separator) if count > 1 => separator.clone(),
                    _ if count > 1 => return Err(no_overload),
                    _ => Cow::Borrowed(""),
                };
                let mut joined = String::new();
                for at in 0..list.len() {
                    let Some(Value::Text(text)) = list.get(at) else { return Err(no_overload) };
                    if at > 0 {
                        joined.push_str(&separator);
                    }
                    joined.push_str(&text);
                    if joined.len() > TEXT_LIMIT {
                        return Err(EvalError::TooLarge);
                    }
                }
                Value::Text(joined.into())
            }
            (Self::ToInt, value) => Value::Int(to_int(&value)?),
            (Self::ToUint, value) => Value::Uint(to_uint(&value)?),
            (Self::ToDouble, value) => Value::Double(match value {
                Value::Double(n) => n,
                Value::Int(n) => n as f64,
                Value::Uint(n) => n as f64,
                Value::Text(text) => text.parse().map_err(|_| EvalError::Conversion("double"))?,
                _ => return Err(no_overload),
            }),
            (Self::ToText, value) => Value::Text(match value {
                Value::Text(text) => text,
                Value::Int(n) => n.to_string().into(),
                Value::Uint(n) => n.to_string().into(),
                Value::Double(n) => n.to_string().into(),
                Value::Bool(value) => if value { "true" } else { "false" }.into(),
                Value::Bytes(bytes) => match bytes {
                    Cow::Borrowed(bytes) => {
                        std::str::from_utf8(bytes).map_err(|_| EvalError::Conversion("string"))?.into()
                    }
                    Cow::Owned(bytes) => {
                        String::from_utf8(bytes).map_err(|_| EvalError::Conversion("string"))?.into()
                    }
                },
                Value::Duration(nanos) => time::write_duration(nanos).into(),
                Value::Timestamp(time) => time.write().into(),
                Value::Ip(address) => address.to_string().into(),
                Value::Cidr(block) => block.to_string().into(),
                _ => return Err(no_overload),
            }),
            (Self::ToBytes, Value::Text(text)) => Value::Bytes(match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
            (Self::ToBytes, Value::Bytes(bytes)) => Value::Bytes(bytes),
            (Self::ToBool, Value::Bool(value)) => Value::Bool(value),
            (Self::ToBool, Value::Text(text)) => Value::Bool(match &*text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => return Err(EvalError::Conversion("bool")),
            }),
            (Self::Duration, Value::Duration(nanos)) => Value::Duration(nanos),
            (Self::Duration, Value::Text(text)) => {
                Value::Duration(time::parse_duration(&text).ok_or(EvalError::Conversion("duration"))?)
            }
            (Self::Timestamp, Value::Timestamp(time)) => Value::Timestamp(time),
            (Self::Timestamp, Value::Text(text)) => {
                Value::Timestamp(Timestamp::parse(&text).ok_or(EvalError::Conversion("timestamp"))?)
            }
            (Self::Timestamp, Value::Int(seconds)) => {
                let start = Timestamp { seconds, nanos: 0 };
                Value::Timestamp(start.plus(0).ok_or(EvalError::Conversion("timestamp"))?)
            }
            (Self::Ip, Value::Ip(address)) => Value::Ip(address),
            (Self::Ip, Value::Text(text)) => {
                Value::Ip(text.parse().map_err(|_| EvalError::Conversion("IP address"))?)
            }
            (Self::IsIp, Value::Text(text)) => Value::Bool(text.parse::<std::net::IpAddr>().is_ok()),
            (Self::IsIp, Value::Ip(_)) => Value::Bool(true),
            (Self::Cidr, Value::Cidr(block)) => Value::Cidr(block),
            (Self::Cidr, Value::Text(text)) => {
                Value::Cidr(text.parse().map_err(|_| EvalError::Conversion("address block"))?)
            }
            (Self::ContainsIp, Value::Cidr(block)) => Value::Bool(match second {
                Value::Ip(address) => block.contains(*address),
                Value::Text(text) => {
                    block.contains(text.parse().map_err(|_| EvalError::Conversion("IP address"))?)
                }
                _ => return Err(no_overload),
            }),
            _ => return Err(no_overload),
        };
        Ok(answer)
    }
}

fn length(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn to_int(value: &Value<'_>) -> Result<i64, EvalError> {
    match value {
        Value::Int(n) => Ok(*n),
        Value::Uint(n) => i64::try_from(*n).map_err(|_| EvalError::Overflow),
        // 2⁶³ itself is a double, but no int.
        Value::Double(n) if n.abs() < 9_223_372_036_854_775_807.0 => Ok(*n as i64),
        Value::Double(_) => Err(EvalError::Overflow),
        Value::Text(text) => text.parse().map_err(|_| EvalError::Conversion("int")),
        Value::Timestamp(time) => Ok(time.seconds),
        _ => Err(EvalError::NoOverload("int")),
    }
}

fn to_uint(value: &Value<'_>) -> Result<u64, EvalError> {
    match value {
        Value::Uint(n) => Ok(*n),
        Value::Int(n) => u64::try_from(*n).map_err(|_| EvalError::Overflow),
        Value::Double(n) if *n > -1.0 && *n < 18_446_744_073_709_551_615.0 => Ok(*n as u64),
        Value::Double(_) => Err(EvalError::Overflow),
        Value::Text(text) => text.parse().map_err(|_| EvalError::Conversion("uint")),
        _ => Err(EvalError::NoOverload("uint")),
    }
}

fn split<'a>(
    text: Cow<'a, str>,
    separator: &Value<'a>,
    most: Option<&mut Value<'a>>,
    no_overload: EvalError,
) -> Result<Value<'a>, EvalError> {
    let Value::Text(separator) = separator else { return Err(no_overload) };
    let most = match most {
        None => LIST_LIMIT + 1,
        Some(Value::Int(n)) if *n < 0 => LIST_LIMIT + 1,
        Some(Value::Int(n)) => usize::try_from(*n).unwrap_or(LIST_LIMIT + 1).min(LIST_LIMIT + 1),
        Some(_) => return Err(no_overload),
    };
    let parts: Vec<Value<'a>> = match (most, text) {
        (0, _) => Vec::new(),
        (most, Cow::Borrowed(text)) => {
            text.splitn(most, &**separator).map(|part| Value::Text(Cow::Borrowed(part))).collect()
        }
        (most, Cow::Owned(text)) => {
            text.splitn(most, &**separator).map(|part| Value::Text(Cow::Owned(part.to_owned()))).collect()
        }
    };
    if parts.len() > LIST_LIMIT {
        return Err(EvalError::TooLarge);
    }
    Ok(Value::List(List::Made(Rc::from(parts))))
}

/// The characters from one place to before another.
fn substring<'a>(
    text: &Cow<'a, str>,
    from: &Value<'a>,
    to: Option<&mut Value<'a>>,
    no_overload: EvalError,
) -> Result<Value<'a>, EvalError> {
    let Value::Int(from) = from else { return Err(no_overload) };
    let byte_at = |chars: i64| {
        let chars = usize::try_from(chars).map_err(|_| EvalError::OutOfRange)?;
        let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        starts.nth(chars).ok_or(EvalError::OutOfRange)
    };
    let from = byte_at(*from)?;
    let to = match to {
        None => text.len(),
        Some(Value::Int(to)) => byte_at(*to)?,
        Some(_) => return Err(no_overload),
    };
    Ok(Value::Text(match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(from..to).ok_or(EvalError::OutOfRange)?),
        Cow::Owned(text) => Cow::Owned(text.get(from..to).ok_or(EvalError::OutOfRange)?.to_owned()),
    }))
}
