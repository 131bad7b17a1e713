//! The value tree: what a YAML or JSON document says, each key and value with its span.

use crate::span::Span;
use std::fmt::Write;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct Node {
    /// What was written.
    pub value: Value,
    /// Where.
    pub span: Span,
    /// How it was written, for a scalar that an environment variable or a file took part in.
    pub raw: Option<Box<Raw>>,
}

/// The written form of a scalar that was expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// The text before expansion, such as `${PORT:-8080}` or `file:tls/key.pem`.
    pub text: Box<str>,
    /// It was a plain (unquoted) scalar: its type follows from the expanded text.
    pub plain: bool,
}

/// A value of the YAML core schema, which is that of JSON. Numbers keep the text they were written with.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing: `null`, `~` or an empty value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, as written.
    Int(Box<str>),
    /// A number with a fraction or exponent, as written.
    Float(Box<str>),
    /// Text.
    String(Box<str>),
    /// A list.
    Seq(Vec<Node>),
    /// A mapping, in written order, without duplicate keys.
    Map(Vec<Entry>),
    /// What was written could not be read; the mistake is noted already.
    Mistake,
}

/// One key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// Where the key was written.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// A value at a span.
    pub fn new(value: Value, span: Span) -> Self {
        Self { value, span, raw: None }
    }

    /// Text at a span.
    pub fn text(text: impl Into<Box<str>>, span: Span) -> Self {
        Self::new(Value::String(text.into()), span)
    }

    /// A whole number at a span.
    pub fn int(number: i64, span: Span) -> Self {
        Self::new(Value::Int(number.to_string().into()), span)
    }

    /// A list at a span.
    pub fn seq(items: Vec<Self>, span: Span) -> Self {
        Self::new(Value::Seq(items), span)
    }

    /// A mapping at a span; keys get the span of their value.
    pub fn map<K: Into<Box<str>>>(entries: impl IntoIterator<Item = (K, Self)>, span: Span) -> Self {
        let entries = entries
            .into_iter()
            .map(|(key, value)| Entry { key: key.into(), key_span: value.span, value })
            .collect();
        Self::new(Value::Map(entries), span)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping.
    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn as_seq(&self) -> Option<&[Self]> {
        match &self.value {
            Value::Seq(items) => Some(items),
            _ => None,
        }
    }

    /// The entry of a key of a mapping.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.as_map()?.iter().find(|entry| &*entry.key == key)
    }

    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// True for `null` and an empty value.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// What this is, in words for messages.
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Value::Null | Value::Mistake => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "a number",
            Value::Float(_) => "a fraction",
            Value::String(_) => "text",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The scalar for a message: never what an environment variable or file contained.
    pub fn shown(&self) -> String {
        if let Some(raw) = &self.raw {
            return clip(&raw.text);
        }
        match &self.value {
            Value::Bool(value) => value.to_string(),
            Value::Int(text) | Value::Float(text) | Value::String(text) => clip(text),
            Value::Null | Value::Seq(_) | Value::Map(_) | Value::Mistake => self.describe().to_owned(),
        }
    }

    /// As JSON. Numbers beyond JSON's precision become text; non-finite ones become null.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null | Value::Mistake => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(text) => match (parse_int(text), parse_uint(text)) {
                (Some(number), _) => number.into(),
                (None, Some(number)) => number.into(),
                (None, None) => Json::String(text.to_string()),
            },
            Value::Float(text) => text
                .parse::<f64>()
                .ok()
                .and_then(serde_json::Number::from_f64)
                .map_or(Json::Null, Json::Number),
            Value::String(text) => Json::String(text.to_string()),
            Value::Seq(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries.iter().map(|entry| (entry.key.to_string(), entry.value.to_json())).collect(),
            ),
        }
    }

    /// The node at a path such as `rules[2].path` (what serde-based parsers report) or the deepest one on the way.
    ///
    /// Meant for pointing at a mistake found in [`Node::to_json`]: a path that does not exist ends at its last
    /// part that does.
    pub fn find(&self, path: &str) -> &Self {
        let mut here = self;
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = match &here.value {
                Value::Map(_) => here.get(step),
                Value::Seq(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
            let Some(next) = next else { break };
            here = next;
        }
        here
    }

    /// The path of the innermost key or value that covers `span`.
    pub fn path_at(&self, span: Span) -> String {
        let mut path = String::new();
        let mut here = self;
        'deeper: loop {
            match &here.value {
                Value::Map(entries) => {
                    for entry in entries {
                        let on_key = covers(entry.key_span, span);
                        if on_key || covers(entry.value.span, span) {
                            if !path.is_empty() {
                                path.push('.');
                            }
                            push_key(&mut path, &entry.key);
                            if on_key {
                                return path;
                            }
                            here = &entry.value;
                            continue 'deeper;
                        }
                    }
                }
                Value::Seq(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if covers(item.span, span) {
                            let _ = write!(path, "[{index}]");
                            here = item;
                            continue 'deeper;
                        }
                    }
                }
                _ => {}
            }
            return path;
        }
    }
}

/// A whole number of the YAML core schema: decimal, `0o` octal or `0x` hexadecimal.
pub(crate) fn parse_int(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if let Some(hex) = digits.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok();
    }
    if let Some(octal) = digits.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok();
    }
    digits.parse().ok()
}

fn parse_uint(text: &str) -> Option<u64> {
    text.strip_prefix('+').unwrap_or(text).parse().ok()
}

fn covers(outer: Span, inner: Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end && outer.start < outer.end
}

/// A key as one step of a path; keys with dots or brackets are quoted.
pub(crate) fn push_key(path: &mut String, key: &str) {
    if key.contains(['.', '[', ']', ' ']) {
        let _ = write!(path, "{key:?}");
    } else {
        path.push_str(key);
    }
}

/// Text cut to a length that fits into a message.
pub(crate) fn clip(text: &str) -> String {
    const SHOWN_CHARS: usize = 60;
    let line = text.lines().next().unwrap_or("");
    let mut shown: String = line.chars().take(SHOWN_CHARS).filter(|c| !c.is_control()).collect();
    if line.chars().count() > SHOWN_CHARS || text.lines().nth(1).is_some() {
        shown.push('…');
    }
    shown
}
