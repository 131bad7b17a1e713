//! From value trees to typed documents, collecting every mistake.
//!
//! Each type says once what its written form is; decoding, error texts and JSON Schema come from that one table
//! (macros [`object!`], [`choice!`] and [`text!`]).

pub use rhumb_base::words::nearest;

use crate::diag::{Diag, DocId, Origin, Rule};
use crate::span::{Source, Span, Spanned};
use crate::value::{Entry, Node, Value, parse_int};
use crate::yaml::MAX_DIAGS;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A typed value that has a written form.
pub trait Decode: Sized {
    /// The value that was written, or nothing when a mistake was noted.
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self>;

    /// The value when nothing is written; nothing when something must be. `parent` is the enclosing object's span.
    fn absent(_parent: Span) -> Option<Self> {
        None
    }

    /// The value to go on with after a mistake was noted; nothing gives up the enclosing object.
    fn broken(parent: Span) -> Option<Self> {
        Self::absent(parent)
    }

    /// JSON Schema of the written form; object types put themselves into `defs` and return a reference.
    fn schema(defs: &mut Defs) -> serde_json::Value;
}

/// The schemas of named types, by name.
pub type Defs = BTreeMap<&'static str, serde_json::Value>;

/// Where mistakes go while one document is decoded.
pub struct Decoder<'a> {
    source: &'a Arc<Source>,
    doc: Option<Arc<DocId>>,
    diags: &'a mut Vec<Diag>,
    noted: usize,
    errors: usize,
    secret: bool,
}

impl<'a> Decoder<'a> {
    /// A decoder for values of `source` that belong to `doc`.
    pub fn new(source: &'a Arc<Source>, doc: Option<Arc<DocId>>, diags: &'a mut Vec<Diag>) -> Self {
        Self { source, doc, diags, noted: 0, errors: 0, secret: false }
    }

    /// How many errors were found so far.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The origin of a span of this document.
    pub fn origin(&self, span: Span) -> Origin {
        Origin { source: self.source.clone(), span, doc: self.doc.clone() }
    }

    /// An error at a span, to be completed and given to [`Decoder::push`].
    pub fn error(&self, rule: Rule, span: Span, what: impl Into<String>) -> Diag {
        Diag::error(rule, self.origin(span), what)
    }

    /// Notes a mistake.
    pub fn push(&mut self, mut diag: Diag) {
        self.errors += usize::from(diag.is_error());
        self.noted += 1;
        diag.secret |= self.secret;
        if self.noted <= MAX_DIAGS {
            self.diags.push(diag);
        } else if self.noted == MAX_DIAGS + 1 {
            let at = self.origin(diag.at.span);
            self.diags.push(Diag::error(
                Rule::TooLarge,
                at,
                "more mistakes follow in this document that are not shown",
            ));
        }
    }

    /// Decodes a value whose content must not show up in messages.
    pub fn secretly<T>(&mut self, decode: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.secret, true);
        let value = decode(self);
        self.secret = before;
        value
    }

    /// Notes that a value has another type than it should; `wanted` names the right one.
    pub fn wrong_type(&mut self, node: &Node, wanted: &str) {
        if matches!(node.value, Value::Mistake) {
            self.errors += 1;
            return;
        }
        let mut diag =
            self.error(Rule::WrongType, node.span, format!("{} where {wanted} is expected", node.describe()));
        let shown = node.shown();
        match &node.value {
            Value::Int(_) | Value::Float(_) | Value::Bool(_) if wanted.contains("text") => {
                let example = if self.secret { String::new() } else { format!(": \"{shown}\"") };
                diag = diag.fix(format!("put it into quotes{example}"));
            }
            Value::String(text) if wanted.contains("number") && text.parse::<f64>().is_ok() => {
                diag = diag.fix(format!("write it without quotes: {shown}"));
            }
            Value::String(text) if wanted.contains("boolean") => {
                diag = diag.fix(match &*text.to_ascii_lowercase() {
                    "yes" | "on" | "true" | "enabled" => "write `true`",
                    "no" | "off" | "false" | "disabled" => "write `false`",
                    _ => "write `true` or `false`",
                });
            }
            Value::Seq(_) | Value::Map(_) if wanted.starts_with("text") => diag = diag.fix("write one text"),
            _ if wanted.starts_with("a mapping") => {
                diag = diag.fix("write `name: value` pairs, one on each line")
            }
            _ if wanted.starts_with("a list") => diag = diag.fix("write it as an item: `- …` or `[…]`"),
            _ => {}
        }
        self.push(diag);
    }

    /// Notes a value that is none of `allowed`, and suggests the nearest.
    pub fn unknown_value(&mut self, node: &Node, what: &str, allowed: &[&str]) {
        let shown = node.shown();
        let mut diag = self
            .error(Rule::UnknownValue, node.span, format!("unknown {what} `{shown}`"))
            .why(format!("allowed: {}", list(allowed)));
        if let Some(near) = nearest(&shown, allowed.iter().copied()) {
            diag = diag.fix(format!("did you mean `{near}`?"));
        }
        self.push(diag);
    }
}

/// The fields of one mapping while they are read.
pub struct Object<'n> {
    entries: &'n [Entry],
    span: Span,
    what: &'static str,
    fields: &'static [&'static str],
}

impl<'n> Object<'n> {
    /// The mapping of a node, which has these fields. Notes a mistake for any other value. An empty value counts as
    /// an empty mapping.
    pub fn open(
        node: &'n Node,
        what: &'static str,
        fields: &'static [&'static str],
        cx: &mut Decoder<'_>,
    ) -> Option<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => {
                let diag = cx
                    .error(
                        Rule::WrongType,
                        node.span,
                        format!("{} where {what} is expected", node.describe()),
                    )
                    .why(format!("it is a mapping with the fields {}", list(fields)));
                match node.value {
                    Value::Mistake => cx.errors += 1,
                    _ => cx.push(diag),
                }
                return None;
            }
        };
        Some(Self { entries, span: node.span, what, fields })
    }

    /// The value of a field; the default when it is absent; a noted mistake when it is wrong or must be written.
    pub fn field<T: Decode>(&self, key: &str, cx: &mut Decoder<'_>) -> Option<T> {
        match self.entries.iter().find(|entry| &*entry.key == key) {
            Some(entry) if !entry.value.is_null() => {
                T::decode(&entry.value, cx).or_else(|| T::broken(self.span))
            }
            // An empty value is an absent one, as in Kubernetes.
            Some(_) | None => T::absent(self.span).or_else(|| {
                self.missing(key, cx);
                None
            }),
        }
    }

    /// The value of a field, or `default` when it is absent or wrong.
    pub fn field_or<T: Decode>(&self, key: &str, default: fn(Span) -> T, cx: &mut Decoder<'_>) -> Option<T> {
        match self.entries.iter().find(|entry| &*entry.key == key) {
            Some(entry) if !entry.value.is_null() => {
                Some(T::decode(&entry.value, cx).unwrap_or_else(|| default(self.span)))
            }
            Some(_) | None => Some(default(self.span)),
        }
    }

    /// Notes each key that is no field: refused ones with their reason, others with the nearest field.
    pub fn close(&self, refused: &[(&str, &str)], cx: &mut Decoder<'_>) {
        let fields = self.fields;
        for entry in self.entries {
            if fields.contains(&&*entry.key) {
                continue;
            }
            if let Some((name, reason)) = refused.iter().find(|(name, _)| *name == &*entry.key) {
                let diag = cx
                    .error(
                        Rule::NotSupported,
                        entry.key_span,
                        format!("`{name}` is not supported by this version"),
                    )
                    .why(*reason)
                    .fix("remove it");
                cx.push(diag);
                continue;
            }
            let mut diag = cx
                .error(Rule::UnknownField, entry.key_span, format!("unknown field `{}`", entry.key))
                .label(format!("not a field of {}", self.what))
                .why(format!("allowed here: {}", list(fields)));
            if let Some(near) = nearest(&entry.key, fields.iter().copied()) {
                diag = diag.fix(format!("did you mean `{near}`?"));
            }
            cx.push(diag);
        }
    }

    /// Notes that a field is missing.
    pub fn missing(&self, key: &str, cx: &mut Decoder<'_>) {
        // A key that is nearly this one is reported as unknown, with this one as its fix.
        let misspelt = |entry: &Entry| {
            !self.fields.contains(&&*entry.key)
                && nearest(&entry.key, self.fields.iter().copied()) == Some(key)
        };
        if self.entries.iter().any(misspelt) {
            return;
        }
        // The whole object would underline many lines: the first key stands for it.
        let at = self.entries.first().map_or(self.span, |entry| entry.key_span);
        let diag = cx
            .error(Rule::MissingField, at, format!("field `{key}` is missing"))
            .label(format!("{} needs `{key}`", self.what))
            .fix(format!("add `{key}:`"));
        cx.push(Diag { enclosing: true, ..diag });
    }
}

/// Names in a sentence: `a, b, c`.
pub(crate) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        T::decode(node, cx).map(Some)
    }
    fn absent(_: Span) -> Option<Self> {
        Some(None)
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        T::schema(defs)
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        T::decode(node, cx).map(Self::new)
    }
    fn absent(parent: Span) -> Option<Self> {
        T::absent(parent).map(Self::new)
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        T::schema(defs)
    }
}

impl<T: Decode> Decode for Spanned<T> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        T::decode(node, cx).map(|value| Self::new(value, node.span))
    }
    fn absent(parent: Span) -> Option<Self> {
        T::absent(parent).map(|value| Self::new(value, parent))
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        T::schema(defs)
    }
}

/// A list of at least `MIN` and at most `MAX` items. Items with mistakes are noted and left out.
#[derive(Clone, Debug)]
pub struct List<T, const MIN: usize, const MAX: usize> {
    items: Vec<T>,
    /// Where the list was written; the span of the enclosing object for an absent one.
    pub span: Span,
}

impl<T, const MIN: usize, const MAX: usize> List<T, MIN, MAX> {
    /// A list of these items.
    pub fn of(items: Vec<T>, span: Span) -> Self {
        Self { items, span }
    }

    /// The items.
    pub fn into_vec(self) -> Vec<T> {
        self.items
    }
}

impl<T, const MIN: usize, const MAX: usize> std::ops::Deref for List<T, MIN, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<'a, T, const MIN: usize, const MAX: usize> IntoIterator for &'a List<T, MIN, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<T: Decode, const MIN: usize, const MAX: usize> Decode for List<T, MIN, MAX> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Value::Seq(nodes) = &node.value else {
            cx.wrong_type(node, "a list");
            return None;
        };
        if nodes.len() < MIN {
            let diag = cx
                .error(Rule::OutOfRange, node.span, "the list is empty")
                .why(format!("at least {MIN} item{} needed", if MIN == 1 { " is" } else { "s are" }));
            cx.push(diag);
        }
        if let Some(first_beyond) = nodes.get(MAX) {
            let diag = cx
                .error(Rule::OutOfRange, first_beyond.span, format!("{} items in the list", nodes.len()))
                .why(format!("at most {MAX} are allowed"));
            cx.push(diag);
        }
        let items = nodes.iter().take(MAX).filter_map(|node| T::decode(node, cx)).collect();
        Some(Self { items, span: node.span })
    }
    fn absent(parent: Span) -> Option<Self> {
        (MIN == 0).then(|| Self { items: Vec::new(), span: parent })
    }
    fn broken(parent: Span) -> Option<Self> {
        Some(Self { items: Vec::new(), span: parent })
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        let mut schema = json!({ "type": "array", "items": T::schema(defs), "maxItems": MAX });
        if MIN > 0 {
            schema["minItems"] = MIN.into();
        }
        schema
    }
}

/// A mapping with free keys, at most `MAX` of them, in written order.
#[derive(Clone, Debug)]
pub struct Table<T, const MAX: usize> {
    /// Keys and values.
    pub entries: Vec<(Spanned<Box<str>>, T)>,
}

impl<T, const MAX: usize> Table<T, MAX> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.entries.iter().find(|(name, _)| &*name.value == key).map(|(_, value)| value)
    }
}

impl<T: Decode, const MAX: usize> Decode for Table<T, MAX> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            cx.wrong_type(node, "a mapping");
            return None;
        };
        if let Some(first_beyond) = entries.get(MAX) {
            let diag = cx
                .error(
                    Rule::OutOfRange,
                    first_beyond.key_span,
                    format!("{} keys in the mapping", entries.len()),
                )
                .why(format!("at most {MAX} are allowed"));
            cx.push(diag);
        }
        let entries = entries
            .iter()
            .take(MAX)
            .filter_map(|entry| {
                let value = T::decode(&entry.value, cx)?;
                Some((Spanned::new(entry.key.clone(), entry.key_span), value))
            })
            .collect();
        Some(Self { entries })
    }
    fn absent(_: Span) -> Option<Self> {
        Some(Self { entries: Vec::new() })
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "type": "object", "additionalProperties": T::schema(defs), "maxProperties": MAX })
    }
}

impl Decode for bool {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        cx.wrong_type(node, "a boolean");
        None
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "type": ["boolean", "string"], "pattern": crate::schema::VARIABLE_PATTERN })
    }
}

impl Decode for Box<str> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if let Value::String(text) = &node.value {
            return Some(text.clone());
        }
        cx.wrong_type(node, "text");
        None
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// Any value, taken as it is: its meaning is known elsewhere.
impl Decode for Node {
    fn decode(node: &Node, _: &mut Decoder<'_>) -> Option<Self> {
        Some(node.clone())
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({})
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Whole<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    /// A number that is written here, as a default.
    ///
    /// # Panics
    /// When it is out of range: at compile time in a constant.
    pub const fn literal(number: i64) -> Self {
        assert!(MIN <= number && number <= MAX, "a default is in range");
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl<const MIN: i64, const MAX: i64> TryFrom<i64> for Whole<MIN, MAX> {
    type Error = ();
    fn try_from(number: i64) -> Result<Self, ()> {
        if (MIN..=MAX).contains(&number) { Ok(Self(number)) } else { Err(()) }
    }
}

impl<const MIN: i64, const MAX: i64> Decode for Whole<MIN, MAX> {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let allowed = || format!("allowed: {MIN} to {MAX}");
        let text = match &node.value {
            Value::Int(text) => text,
            Value::String(text) if parse_int(text).is_none() => {
                let what = format!("`{}` is not a whole number", node.shown());
                let diag = cx.error(Rule::WrongType, node.span, what).why(allowed());
                cx.push(diag);
                return None;
            }
            _ => {
                cx.wrong_type(node, "a whole number");
                return None;
            }
        };
        let number = parse_int(text).filter(|number| (MIN..=MAX).contains(number));
        if number.is_none() {
            let what = format!("{} is out of range", node.shown());
            let diag = cx.error(Rule::OutOfRange, node.span, what).why(allowed());
            cx.push(diag);
        }
        number.map(Self)
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "type": ["integer", "string"], "minimum": MIN, "maximum": MAX, "pattern": crate::schema::VARIABLE_PATTERN })
    }
}

/// Why a text does not have the form it needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// What would be right.
    pub why: String,
    /// What to write instead, if that is clear.
    pub fix: Option<String>,
}

impl Complaint {
    /// A complaint with its reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), fix: None }
    }

    /// With what to write instead.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// Decodes text with a parser, noting its complaint.
pub(crate) fn decode_text<T>(
    node: &Node,
    what: &str,
    cx: &mut Decoder<'_>,
    parse: fn(&str) -> Result<T, Complaint>,
) -> Option<T> {
    let text = match &node.value {
        Value::String(text) => text,
        // A number that has not even the right form, such as a duration without unit: quotes would not help.
        Value::Int(text) | Value::Float(text) if parse(text).is_err() => text,
        _ => {
            cx.wrong_type(node, &format!("text ({what})"));
            return None;
        }
    };
    match parse(text) {
        Ok(value) => Some(value),
        Err(complaint) => {
            let what = if text.is_empty() {
                format!("the {what} is empty")
            } else {
                let article = if what.starts_with(['a', 'e', 'i', 'o', 'u', 'H', 'I']) { "an" } else { "a" };
                format!("`{}` is not {article} {what}", node.shown())
            };
            let mut diag = cx.error(Rule::BadValue, node.span, what).why(complaint.why);
            diag.fix = complaint.fix;
            cx.push(diag);
            None
        }
    }
}

/// Declares a type written as a mapping: its fields with their names, types, defaults and descriptions.
///
/// Each gets `span` (where the mapping was written) and `broken` (a mistake was noted inside of it).
/// `later` names fields of the standard that this version refuses, each with the reason; `check` is a function that
/// looks at fields together.
macro_rules! object {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $name:ident as $what:literal {
            $(
                $(#[doc = $field_doc:literal])*
                $key:literal $field:ident : $type:ty $(= $default:expr)?
            ),* $(,)?
        }
        $(later { $($later:literal : $reason:literal),* $(,)? })?
        $(check $check:path;)?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
            /// Where the mapping was written.
            pub span: $crate::span::Span,
            /// A mistake was noted inside of it: what is here is not all that was meant.
            pub broken: bool,
        }

        impl $name {
            /// The names of its fields as they are written.
            pub const FIELDS: &'static [&'static str] = &[$($key),*];
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::value::Node, cx: &mut $crate::decode::Decoder<'_>) -> Option<Self> {
                let before = cx.errors();
                let object = $crate::decode::Object::open(node, $what, Self::FIELDS, cx)?;
                $(let $field = object!(@field object, $key, $type, cx $(, $default)?);)*
                object.close(&[$($(($later, $reason)),*)?], cx);
                #[allow(unused_mut)]
                let mut value = Self { $($field: $field?,)* span: node.span, broken: cx.errors() > before };
                $($check(&value, cx);)?
                value.broken = cx.errors() > before;
                Some(value)
            }

            fn schema(defs: &mut $crate::decode::Defs) -> serde_json::Value {
                const NAME: &str = stringify!($name);
                if !defs.contains_key(NAME) {
                    defs.insert(NAME, serde_json::Value::Null);
                    #[allow(unused_mut)]
                    let mut object = $crate::schema::ObjectSchema::new(concat!($($doc, "\n",)* ""));
                    $(object.field::<$type>(
                        $key,
                        concat!($($field_doc, "\n",)* ""),
                        object!(@has_default $($default)?),
                        defs,
                    );)*
                    let schema = object.finish();
                    defs.insert(NAME, schema);
                }
                serde_json::json!({ "$ref": concat!("#/$defs/", stringify!($name)) })
            }
        }
    };
    (@field $object:ident, $key:literal, $type:ty, $cx:ident) => {
        $object.field::<$type>($key, $cx)
    };
    (@field $object:ident, $key:literal, $type:ty, $cx:ident, $default:expr) => {
        $object.field_or::<$type>($key, $default, $cx)
    };
    (@has_default) => { false };
    (@has_default $default:expr) => { true };
}

/// Declares a type written as one of several words.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident as $what:literal {
            $($(#[doc = $variant_doc:literal])* $variant:ident = $word:literal),* $(,)?
        }
        $(default $default:ident;)?
        $(later { $($later:literal : $reason:literal),* $(,)? })?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        $vis enum $name {
            $($(#[doc = $variant_doc])* $variant,)*
        }

        impl $name {
            /// The words, in order.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word as it is written.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::value::Node, cx: &mut $crate::decode::Decoder<'_>) -> Option<Self> {
                let $crate::value::Value::String(text) = &node.value else {
                    cx.wrong_type(node, concat!("text (", $what, ")"));
                    return None;
                };
                match &**text {
                    $($word => return Some(Self::$variant),)*
                    _ => {}
                }
                $($(
                    if &**text == $later {
                        let diag = cx
                            .error(
                                $crate::diag::Rule::NotSupported,
                                node.span,
                                concat!($what, " `", $later, "` is not supported by this version"),
                            )
                            .why($reason);
                        cx.push(diag);
                        return None;
                    }
                )*)?
                cx.unknown_value(node, $what, Self::WORDS);
                None
            }

            $(
                fn absent(_: $crate::span::Span) -> Option<Self> {
                    Some(Self::$default)
                }
            )?

            fn schema(defs: &mut $crate::decode::Defs) -> serde_json::Value {
                const NAME: &str = stringify!($name);
                if !defs.contains_key(NAME) {
                    #[allow(unused_mut)]
                    let mut schema = serde_json::json!({
                        "type": "string",
                        "description": $crate::schema::description(concat!($($doc, "\n",)* "")),
                        "anyOf": [{ "enum": Self::WORDS }, { "pattern": $crate::schema::VARIABLE_PATTERN }],
                        "x-descriptions": [$($crate::schema::description(concat!($($variant_doc, "\n",)* ""))),*],
                    });
                    $(schema["default"] = Self::$default.word().into();)?
                    defs.insert(NAME, schema);
                }
                serde_json::json!({ "$ref": concat!("#/$defs/", stringify!($name)) })
            }
        }
    };
}

/// Declares a type written as text of a certain form: how it is parsed, and its JSON Schema.
macro_rules! text {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident($inner:ty) as $what:literal;
        parse $parse:path;
        schema { $($schema:tt)* }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name($inner);

        impl $name {
            /// Parses the written form.
            ///
            /// # Errors
            /// What would be right.
            pub fn parse(text: &str) -> Result<Self, $crate::decode::Complaint> {
                $parse(text).map(Self)
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::value::Node, cx: &mut $crate::decode::Decoder<'_>) -> Option<Self> {
                $crate::decode::decode_text(node, $what, cx, Self::parse)
            }
            fn schema(defs: &mut $crate::decode::Defs) -> serde_json::Value {
                const NAME: &str = stringify!($name);
                defs.entry(NAME).or_insert_with(|| {
                    let mut schema = serde_json::json!({ "type": "string", $($schema)* });
                    $crate::schema::or_variable(&mut schema);
                    schema["description"] = $crate::schema::description(concat!($($doc, "\n",)* "")).into();
                    schema
                });
                serde_json::json!({ "$ref": concat!("#/$defs/", stringify!($name)) })
            }
        }
    };
}

pub(crate) use {choice, object, text};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_and_far_ones_are_not() {
        let fields = ["hostnames", "parentRefs", "rules", "backendRefs", "matches"];
        for (written, near) in [
            ("hostname", Some("hostnames")),
            ("backends", Some("backendRefs")),
            ("backendRef", Some("backendRefs")),
            ("parentrefs", Some("parentRefs")),
            ("ruels", Some("rules")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, fields.iter().copied()), near, "{written}");
        }
    }
}
