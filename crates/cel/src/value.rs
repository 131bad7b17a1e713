//! Values, borrowed from what is evaluated wherever that is possible.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use rhumb_base::cidr::Cidr;

pub use crate::time::Timestamp;

/// A value.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A bool.
    Bool(bool),
    /// An int.
    Int(i64),
    /// A uint.
    Uint(u64),
    /// A double.
    Double(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// Octets.
    Bytes(Cow<'a, [u8]>),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// A point in time.
    Timestamp(Timestamp),
    /// An IP address.
    Ip(IpAddr),
    /// An address block.
    Cidr(Cidr),
    /// A list.
    List(List<'a>),
    /// Values by key.
    Map(Map<'a>),
}

/// The elements of a list.
#[derive(Clone)]
pub enum List<'a> {
    /// Made by the expression.
    Made(Rc<[Value<'a>]>),
    /// Of a JSON document.
    Json(&'a [serde_json::Value]),
}

/// The entries of a map.
#[derive(Clone)]
pub enum Map<'a> {
    /// Made by the expression.
    Made(Rc<[(Value<'a>, Value<'a>)]>),
    /// Of a JSON document.
    Json(&'a serde_json::Map<String, serde_json::Value>),
    /// Of the context.
    Object(&'a dyn Object),
}

/// Something with named values: the request, its fields, a token's claims.
pub trait Object {
    /// The value of that name; `None` when there is none.
    fn field(&self, name: &str) -> Option<Value<'_>>;

    /// Tells every name, until `each` says false. Names may come twice.
    fn names(&self, each: &mut dyn FnMut(&str) -> bool);
}

impl<'a> Value<'a> {
    /// A string from octets of a peer. Octets that are no UTF-8 become U+FFFD.
    pub fn text(bytes: &'a [u8]) -> Self {
        Self::Text(String::from_utf8_lossy(bytes))
    }

    /// A value of a JSON document.
    pub fn json(value: &'a serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(n), _) => Self::Int(n),
                (None, Some(n)) => Self::Uint(n),
                (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(text) => Self::Text(Cow::Borrowed(text)),
            serde_json::Value::Array(items) => Self::List(List::Json(items)),
            serde_json::Value::Object(map) => Self::Map(Map::Json(map)),
        }
    }

    /// What it is, for people.
    pub fn tell(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Uint(_) => "a uint",
            Self::Double(_) => "a double",
            Self::Text(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "a duration",
            Self::Timestamp(_) => "a timestamp",
            Self::Ip(_) => "an IP address",
            Self::Cidr(_) => "an address block",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }

    /// Equality of the language: numbers by value, whatever their kind; values of different kinds are not equal. NaN is
    /// not equal to itself.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a.to_canonical() == b.to_canonical(),
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len()
                    && (0..a.len())
                        .all(|at| matches!((a.get(at), b.get(at)), (Some(a), Some(b)) if a.equals(&b)))
            }
            (Self::Map(a), Self::Map(b)) => {
                let mut is_equal = a.len() == b.len();
                a.each_key(&mut |key| {
                    is_equal =
                        is_equal && matches!((a.get(&key), b.get(&key)), (Some(a), Some(b)) if a.equals(&b));
                    is_equal
                });
                is_equal
            }
            _ => self.compare_numbers(other) == Some(Ordering::Equal),
        }
    }

    /// Order of the language; `None` when there is none between the two.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            _ => self.compare_numbers(other),
        }
    }

    fn compare_numbers(&self, other: &Self) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Uint(a), Self::Uint(b)) => a.cmp(b),
            (Self::Int(a), Self::Uint(b)) => i128::from(*a).cmp(&i128::from(*b)),
            (Self::Uint(a), Self::Int(b)) => i128::from(*a).cmp(&i128::from(*b)),
            (Self::Double(a), Self::Double(b)) => return a.partial_cmp(b),
            (Self::Double(a), Self::Int(b)) => return compare_double(*a, i128::from(*b)),
            (Self::Double(a), Self::Uint(b)) => return compare_double(*a, i128::from(*b)),
            (Self::Int(a), Self::Double(b)) => {
                return compare_double(*b, i128::from(*a)).map(Ordering::reverse);
            }
            (Self::Uint(a), Self::Double(b)) => {
                return compare_double(*b, i128::from(*a)).map(Ordering::reverse);
            }
            _ => return None,
        })
    }
}

/// Compares without rounding: 2⁵³ + 1 is not 2⁵³ as a double.
fn compare_double(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    // Beyond this no integer of 64 bits reaches, and below it the whole part of a double is exact in 128 bits.
    if a.abs() > 2f64.powi(65) {
        return Some(if a > 0.0 { Ordering::Greater } else { Ordering::Less });
    }
    let whole = a.trunc() as i128;
    Some(whole.cmp(&b).then_with(|| a.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal)))
}

impl<'a> List<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Made(items) => items.len(),
            Self::Json(items) => items.len(),
        }
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at a place from 0.
    pub fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            Self::Made(items) => items.get(at).cloned(),
            Self::Json(items) => items.get(at).map(Value::json),
        }
    }
}

impl<'a> Map<'a> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        match self {
            Self::Made(entries) => entries.len(),
            Self::Json(map) => map.len(),
            Self::Object(object) => {
                // A name that comes twice counts once.
                let mut seen = std::collections::BTreeSet::new();
                object.names(&mut |name| {
                    seen.insert(name.to_owned());
                    true
                });
                seen.len()
            }
        }
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        let mut is_empty = true;
        self.each_key(&mut |_| {
            is_empty = false;
            false
        });
        is_empty
    }

    /// The value of a key.
    pub fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Made(entries), _) => {
                entries.iter().find(|(name, _)| name.equals(key)).map(|(_, value)| value.clone())
            }
            (Self::Json(map), Value::Text(name)) => map.get(&**name).map(Value::json),
            (Self::Object(object), Value::Text(name)) => object.field(name),
            _ => None,
        }
    }

    /// The value of a name.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Made(_) => self.get(&Value::Text(Cow::Borrowed(name))),
            Self::Json(map) => map.get(name).map(Value::json),
            Self::Object(object) => object.field(name),
        }
    }

    /// Tells every key once, until `each` says false.
    pub fn each_key(&self, each: &mut dyn FnMut(Value<'a>) -> bool) {
        match self {
            Self::Made(entries) => {
                let _ = entries.iter().all(|(key, _)| each(key.clone()));
            }
            Self::Json(map) => {
                let _ = map.keys().all(|key| each(Value::Text(Cow::Borrowed(key))));
            }
            Self::Object(object) => {
                let mut seen = std::collections::BTreeSet::new();
                object.names(&mut |name| {
                    !seen.insert(name.to_owned()) || each(Value::Text(Cow::Owned(name.to_owned())))
                });
            }
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}u"),
            Self::Double(value) => write!(f, "{value:?}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "b\"{}\"", bytes.escape_ascii()),
            Self::Duration(nanos) => f.write_str(&crate::time::write_duration(*nanos)),
            Self::Timestamp(time) => f.write_str(&time.write()),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Cidr(block) => write!(f, "{block}"),
            Self::List(list) => {
                f.debug_list().entries((0..list.len()).filter_map(|at| list.get(at))).finish()
            }
            Self::Map(map) => {
                let mut out = f.debug_map();
                map.each_key(&mut |key| {
                    let value = map.get(&key);
                    out.entry(&key, &value);
                    true
                });
                out.finish()
            }
        }
    }
}
