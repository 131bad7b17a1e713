//! Set, add and remove fields. Gateway API `HTTPHeaderFilter`.
//!
//! The last policy of the request and the first of the response. Fields that frame or address the message cannot be
//! changed here: they belong to the codec (RFC 9112 §6) and to `rewrite`.

use rhumb_codec::field::{FieldName, FieldValue, Fields, Known, KnownSet};
use rhumb_codec::head::{RequestHead, ResponseHead};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::Exchange;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// Most fields in one list (Gateway API: 16 items each).
pub const MAX_FIELDS: usize = 16;

/// Changes the fields of requests and responses.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Changes on the way to the backend.
    #[serde(default)]
    pub request: Option<ChangeSpec>,
    /// Changes on the way to the client.
    #[serde(default)]
    pub response: Option<ChangeSpec>,
}

/// One direction's changes: remove, then set, then add.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeSpec {
    /// Replaces every line of that name, or adds one.
    #[serde(default)]
    pub set: Vec<FieldSpec>,
    /// Adds a line, whatever is there.
    #[serde(default)]
    pub add: Vec<FieldSpec>,
    /// Removes every line of that name.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A field with its value.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldSpec {
    /// Field name; case does not matter.
    pub name: String,
    /// Field value.
    pub value: String,
}

/// Compiled changes.
pub struct HeaderModifier {
    request: Option<Box<Change>>,
    response: Option<Box<Change>>,
}

struct Change {
    remove: Box<[FieldName]>,
    set: Box<[(FieldName, FieldValue)]>,
    add: Box<[(FieldName, FieldValue)]>,
}

// Framing, connection management and addressing (RFC 9110 §7.2, §7.6.1; RFC 9112 §6).
const UNTOUCHABLE: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::ContentLength,
    Known::Host,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::Trailer,
    Known::TransferEncoding,
    Known::Upgrade,
]);

impl HttpPolicy for HeaderModifier {
    const KIND: &'static str = "headerModifier";
    const HOOKS: Hooks = Hooks::REQUEST.or(Hooks::RESPONSE);
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND).or(Attach::CONSUMER);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let change =
            |side: &str, spec: Option<ChangeSpec>| spec.map(|spec| Change::compile(side, spec)).transpose();
        Ok(Self { request: change("request", spec.request)?, response: change("response", spec.response)? })
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), _: &mut Exchange<'_>) -> Verdict {
        if let Some(change) = &self.request {
            change.apply(&mut req.fields);
        }
        Verdict::Continue
    }

    fn on_response(&self, rsp: &mut ResponseHead, _: &mut (), _: &mut Exchange<'_>) {
        if let Some(change) = &self.response {
            change.apply(&mut rsp.fields);
        }
    }
}

impl Change {
    fn compile(side: &str, spec: ChangeSpec) -> Result<Box<Self>, Invalid> {
        let remove =
            spec.remove.iter().enumerate().map(|(at, name)| read_name(&format!("{side}.remove[{at}]"), name));
        Ok(Box::new(Self {
            remove: remove.collect::<Result<_, _>>()?,
            set: read_fields(&format!("{side}.set"), spec.set)?,
            add: read_fields(&format!("{side}.add"), spec.add)?,
        }))
    }

    fn apply(&self, fields: &mut Fields) {
        for name in &self.remove {
            fields.remove_named(name);
        }
        for (name, value) in &self.set {
            fields.set_named(name, value);
        }
        for (name, value) in &self.add {
            fields.append_named(name, value);
        }
    }
}

/// Reads a list of fields that users may set.
pub(crate) fn read_fields(
    list: &str,
    specs: Vec<FieldSpec>,
) -> Result<Box<[(FieldName, FieldValue)]>, Invalid> {
    if specs.len() > MAX_FIELDS {
        return Err(Invalid::new(
            list,
            format!("has {} items, more than {MAX_FIELDS}", specs.len()),
            "split it over several rules",
        ));
    }
    let read = |(at, spec): (usize, FieldSpec)| {
        let name = read_name(&format!("{list}[{at}].name"), &spec.name)?;
        let value = FieldValue::parse(spec.value.as_bytes())
            .map_err(|error| Invalid::new(format!("{list}[{at}].value"), error.to_string(), "remove it"))?;
        Ok((name, value))
    };
    specs.into_iter().enumerate().map(read).collect()
}

/// Reads the name of a field that users may change.
pub(crate) fn read_name(field: &str, text: &str) -> Result<FieldName, Invalid> {
    let name = FieldName::parse(text.as_bytes())
        .map_err(|error| Invalid::new(field, format!("{text:?} is {error}"), ""))?;
    if UNTOUCHABLE.contains(name.known()) {
        let fix = if name.known() == Known::Host {
            "use rewrite with hostname"
        } else {
            "remove it: the proxy frames each message itself"
        };
        return Err(Invalid::new(
            field,
            format!("{text} frames or addresses the message and cannot be changed"),
            fix,
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::json;

    fn compile(body: serde_json::Value) -> Result<HeaderModifier, Invalid> {
        compile_alone::<HeaderModifier>(serde_json::from_value(body).unwrap())
    }

    #[test]
    fn fields_are_removed_set_and_added_in_that_order() {
        let modifier = compile(json!({ "request": {
            "remove": ["X-A"], "set": [{ "name": "Via", "value": "b" }], "add": [{ "name": "x-a", "value": "new" }] } }))
        .unwrap_or_else(|invalid| panic!("{invalid}"));
        let mut fields = Fields::new();
        fields.append_raw(Known::Other, b"x-a", b"old");
        fields.append(Known::Via, b"a");
        modifier.request.unwrap().apply(&mut fields);
        assert_eq!(fields.get_all(Known::Via).collect::<Vec<_>>(), [b"b"]);
        assert_eq!(fields.find_all(&FieldName::parse(b"x-a").unwrap()).collect::<Vec<_>>(), [b"new"]);
    }

    #[test]
    fn framing_cannot_be_touched() {
        for name in ["Host", "content-length", "Transfer-Encoding", "connection", "upgrade"] {
            let body = json!({ "response": { "set": [{ "name": name, "value": "1" }] } });
            let Err(invalid) = compile(body) else { panic!("{name} accepted") };
            assert_eq!(invalid.field, "response.set[0].name");
            assert!(compile(json!({ "request": { "remove": [name] } })).is_err(), "{name}");
        }
    }

    #[test]
    fn a_value_cannot_split_the_message() {
        assert!(compile(json!({ "request": { "add": [{ "name": "x", "value": "a\r\nb: c" }] } })).is_err());
    }
}
