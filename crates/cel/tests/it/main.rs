//! The language, by tables.

mod errors;
mod values;
mod wild;

use rhumb_cel::value::Map;
use rhumb_cel::{Field, Kind, Object, Schema, Value};

/// Attributes for these tests.
pub(crate) static SCHEMA: Schema = Schema {
    fields: &[
        Field { name: "request", kind: Kind::Object(&REQUEST), doc: "the request" },
        Field { name: "claims", kind: Kind::Dyn, doc: "JSON" },
        Field { name: "source", kind: Kind::Ip, doc: "the client" },
    ],
};

static REQUEST: Schema = Schema {
    fields: &[
        Field { name: "method", kind: Kind::Text, doc: "the method" },
        Field { name: "size", kind: Kind::Int, doc: "octets" },
        Field { name: "headers", kind: Kind::Map(&Kind::Text), doc: "fields" },
        Field { name: "time", kind: Kind::Timestamp, doc: "when" },
    ],
};

pub(crate) struct Context {
    claims: serde_json::Value,
    request: Request,
}

struct Request {
    headers: Headers,
}

struct Headers;

impl Context {
    pub(crate) fn new() -> Self {
        let claims = serde_json::json!({
            "sub": "ada", "groups": ["admin", "dev"], "age": 36, "ratio": 0.5, "big": 18_446_744_073_709_551_615u64,
            "nested": { "a": { "b": [1, 2, 3] } }, "none": null, "yes": true
        });
        Self { claims, request: Request { headers: Headers } }
    }
}

impl Object for Context {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "request" => Value::Map(Map::Object(&self.request)),
            "claims" => Value::json(&self.claims),
            "source" => Value::Ip([10, 1, 2, 3].into()),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = ["request", "claims", "source"].into_iter().all(each);
    }
}

impl Object for Request {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "method" => Value::text(b"GET"),
            "size" => Value::Int(100),
            "headers" => Value::Map(Map::Object(&self.headers)),
            "time" => Value::Timestamp(rhumb_cel::value::Timestamp::parse("2009-02-13T23:31:30Z").unwrap()),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = ["method", "size", "headers", "time"].into_iter().all(each);
    }
}

impl Object for Headers {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        match &*name.to_ascii_lowercase() {
            "x-a" => Some(Value::text(b"one")),
            "x-b" => Some(Value::text("grün".as_bytes())),
            "x-bad" => Some(Value::text(b"\xff")),
            _ => None,
        }
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = ["x-a", "x-b", "x-bad", "x-a"].into_iter().all(each);
    }
}
