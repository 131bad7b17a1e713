//! JSON of other parties, read strictly: a member that is written twice means something else to each reader, so it is
//! refused (RFC 8259 §4, RFC 7515 §4).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a document and nothing behind it. `None` when it is no JSON, nested more than 127 deep, or has a member twice.
pub(crate) fn read(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Strict>(bytes).ok().map(|strict| strict.0)
}

/// Reads a document that is an object.
pub(crate) fn read_object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match read(bytes)? {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Strict)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let Strict(value) = members.next_value()?;
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is written twice"));
            }
        }
        Ok(Value::Object(all))
    }
}

/// Where a value is in an object: the name of a member, or a path into it (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Path(Box<str>);

impl Path {
    /// Reads `sub`, or `/realm_access/roles`; `None` for an empty one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && text != "/").then(|| Self(text.into()))
    }

    /// As it was written.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The value there.
    pub(crate) fn find<'v>(&self, object: &'v Map<String, Value>) -> Option<&'v Value> {
        let Some(path) = self.0.strip_prefix('/') else { return object.get(&*self.0) };
        let (first, rest) = match path.find('/') {
            Some(at) => path.split_at(at),
            None => (path, ""),
        };
        object.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_meaning_is_read() {
        assert_eq!(
            read(br#"{"a": [1, -2, 3.5, "x", null, true, {"b": {}}]}"#).unwrap(),
            serde_json::json!({ "a": [1, -2, 3.5, "x", null, true, { "b": {} }] })
        );
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"a": {"b": 1, "\u0062": 2}}"#,
            r#"[{"a": 1, "a": 1}]"#,
            "{} {}",
            "{",
            "",
            "1e999",
            "\u{feff}{}",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(read("[".repeat(200).as_bytes()), None);
        assert_eq!(read_object(b"[]"), None);
    }

    #[test]
    fn paths_lead_into_objects() {
        let object =
            read_object(br#"{"sub": "a", "https://x/y": 1, "realm": {"roles": ["r"], "a/b": 2}}"#).unwrap();
        for (path, found) in [
            ("sub", Some(Value::from("a"))),
            ("https://x/y", Some(1.into())),
            ("/realm/roles", Some(serde_json::json!(["r"]))),
            ("/realm/roles/0", Some("r".into())),
            ("/realm/a~1b", Some(2.into())),
            ("/https:~1~1x~1y", Some(1.into())),
            ("realm/roles", None),
            ("/none", None),
        ] {
            assert_eq!(Path::parse(path).unwrap().find(&object), found.as_ref(), "{path}");
        }
        assert_eq!(Path::parse(""), None);
    }
}
