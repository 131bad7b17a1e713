//! `envoy.service.auth.v3.CheckRequest` and `CheckResponse`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhumb_codec::field::{FieldName, FieldValue, Fields, Known};
use rhumb_codec::head::{Content, RequestHead, Version};
use rhumb_codec::protobuf::{Malformed, Message, Value, Writer, grpc_message};
use serde_json::{Map, Number, Value as Json};

use super::{Decision, principal};
use crate::call::Answer;
use crate::exchange::Exchange;
use crate::policy::Edit;
use crate::principal::Principal;

/// The method's path.
pub(super) const PATH: &[u8] = b"/envoy.service.auth.v3.Authorization/Check";

/// How deep dynamic metadata may be.
const DEPTH_MAX: usize = 16;

/// Status of a refusal that names none (Envoy's default).
const DEFAULT_STATUS: u16 = 403;

/// A framed `CheckRequest`.
pub(super) fn request(
    req: &RequestHead,
    cx: &Exchange<'_>,
    content: &[u8],
    extensions: &BTreeMap<String, String>,
    is_told: impl Fn(&[u8]) -> bool,
) -> Vec<u8> {
    let mut target = Vec::new();
    req.write_target(&mut target);
    let address = cx.client.to_canonical().to_string();
    let mut message = Writer::new();
    message.message(1, |attributes| {
        // source.address.socket_address.address
        attributes.message(1, |peer| {
            peer.message(1, |any| any.message(1, |socket| socket.bytes(2, address.as_bytes())));
        });
        // destination.address.socket_address.port_value
        attributes.message(2, |peer| {
            peer.message(1, |any| any.message(1, |socket| socket.number(3, cx.port.into())));
        });
        attributes.message(4, |request| {
            request.message(1, |time| {
                time.number(1, cx.unix_nanos / 1_000_000_000);
                time.number(2, cx.unix_nanos % 1_000_000_000);
            });
            request.message(2, |http| {
                http.bytes(1, cx.request_id.as_bytes());
                http.bytes(2, req.method_name());
                for (name, value) in [
                    (&b":authority"[..], req.authority()),
                    (b":method", req.method_name()),
                    (b":path", &target),
                    (b":scheme", cx.scheme.as_str().as_bytes()),
                ] {
                    http.entry(3, name, value);
                }
                for (name, value) in joined(&req.fields) {
                    if is_told(&name) {
                        http.entry(3, &name, &value);
                    }
                }
                http.bytes(4, &target);
                http.bytes(5, req.authority());
                http.bytes(6, cx.scheme.as_str().as_bytes());
                http.bytes(7, req.query().unwrap_or_default());
                if let Content::Length(length) = req.content {
                    http.number(9, length);
                } else if !req.content.is_empty() {
                    // -1: not known (int64).
                    http.number(9, u64::MAX);
                }
                http.bytes(
                    10,
                    match req.version {
                        Version::Http10 => b"HTTP/1.0",
                        Version::Http11 => b"HTTP/1.1",
                        Version::Http2 => b"HTTP/2",
                    },
                );
                // A string has to be UTF-8.
                let field = if std::str::from_utf8(content).is_ok() { 11 } else { 12 };
                http.bytes(field, content);
            });
        });
        for (key, value) in extensions {
            attributes.entry(10, key.as_bytes(), value.as_bytes());
        }
    });
    message.into_grpc()
}

/// Fields by name in lower case, lines of the same name joined (RFC 9110 §5.3). What is no UTF-8 is made so: map entries
/// are strings.
fn joined(fields: &Fields) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut joined: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for line in fields.iter() {
        let value = String::from_utf8_lossy(line.value);
        let entry = joined.entry(line.name.to_ascii_lowercase()).or_default();
        if !entry.is_empty() {
            entry.push(b',');
        }
        entry.extend_from_slice(value.as_bytes());
    }
    joined
}

/// What a framed `CheckResponse` says.
pub(super) fn decision(answer: &Answer, subject: Option<&FieldName>) -> Result<Decision, Malformed> {
    let trailers = answer.trailers.as_ref().unwrap_or(&answer.fields);
    if answer.status != 200 || trailers.get(Known::GrpcStatus) != Some(b"0") {
        return Err(Malformed);
    }
    let (mut code, mut denied, mut allowed, mut metadata) = (0, None, None, Map::new());
    for field in Message::new(grpc_message(&answer.content)?) {
        match field? {
            (1, status) => code = number(status, 1)?,
            (2, value) => denied = value.bytes(),
            (3, value) => allowed = value.bytes(),
            (4, value) => metadata = object(value.bytes().ok_or(Malformed)?, 0)?,
            _ => {}
        }
    }
    if code != 0 {
        return refusal(denied.unwrap_or_default());
    }
    let (mut request, mut response) = (Vec::new(), Vec::new());
    for field in Message::new(allowed.unwrap_or_default()) {
        match field? {
            (2, value) => request.extend(edit(value)?),
            (5, value) => request.extend(value.bytes().and_then(own_name).map(Edit::Remove)),
            (6, value) => response.extend(edit(value)?),
            // Changes of the query would have to be made here: what cannot be obeyed is not passed over.
            (7 | 8, _) => return Err(Malformed),
            _ => {}
        }
    }
    let named = subject.and_then(|name| {
        request.iter().find_map(|edit| match edit {
            Edit::Set(of, value) | Edit::Append(of, value) if of == name => {
                Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
            }
            _ => None,
        })
    });
    let named = named.or_else(|| metadata.get("sub").and_then(Json::as_str).map(str::to_owned));
    let principal = named.map(|subject| {
        let principal = principal(&subject);
        Arc::new(Principal { claims: Arc::new(metadata), ..(*principal).clone() })
    });
    Ok(Decision::Allow { request, response, principal })
}

fn refusal(denied: &[u8]) -> Result<Decision, Malformed> {
    let (mut status, mut fields, mut content) = (DEFAULT_STATUS, Fields::new(), Vec::new());
    for field in Message::new(denied) {
        match field? {
            (1, value) => {
                let code = number(value, 1)?;
                status =
                    u16::try_from(code).ok().filter(|code| (200..600).contains(code)).ok_or(Malformed)?;
            }
            (2, value) => edit(value)?.iter().for_each(|edit| edit.apply(&mut fields)),
            (3, value) => content = value.bytes().ok_or(Malformed)?.to_vec(),
            _ => {}
        }
    }
    Ok(Decision::Refuse { status, fields, content })
}

/// The integer in a field of a message; zero where it is left out.
fn number(message: Value<'_>, wanted: u32) -> Result<u64, Malformed> {
    let mut found = 0;
    for field in Message::new(message.bytes().ok_or(Malformed)?) {
        let (number, value) = field?;
        if number == wanted {
            found = value.number().ok_or(Malformed)?;
        }
    }
    Ok(found)
}

/// A name that the service may set: no pseudo field, and none that framing or routing is about.
fn own_name(name: &[u8]) -> Option<FieldName> {
    let name = FieldName::parse(name).ok()?;
    (!name.as_bytes().eq_ignore_ascii_case(b"host")).then_some(name)
}

/// A `HeaderValueOption`; nothing for a name that cannot be set.
fn edit(option: Value<'_>) -> Result<Option<Edit>, Malformed> {
    let (mut name, mut value, mut appends) = (&[][..], &[][..], false);
    for field in Message::new(option.bytes().ok_or(Malformed)?) {
        match field? {
            (1, header) => {
                for field in Message::new(header.bytes().ok_or(Malformed)?) {
                    match field? {
                        (1, key) => name = key.bytes().ok_or(Malformed)?,
                        (2 | 3, text) => value = text.bytes().ok_or(Malformed)?,
                        _ => {}
                    }
                }
            }
            // BoolValue
            (2, append) => appends = number(append, 1)? != 0,
            _ => {}
        }
    }
    let value = FieldValue::parse(value).map_err(|_| Malformed)?;
    Ok(own_name(name).map(|name| if appends { Edit::Append(name, value) } else { Edit::Set(name, value) }))
}

/// A `google.protobuf.Struct`.
fn object(message: &[u8], depth: usize) -> Result<Map<String, Json>, Malformed> {
    let mut map = Map::new();
    for field in Message::new(message) {
        let (1, entry) = field? else { continue };
        let (mut key, mut value) = ("", Json::Null);
        for field in Message::new(entry.bytes().ok_or(Malformed)?) {
            match field? {
                (1, text) => key = text.text().ok_or(Malformed)?,
                (2, inner) => value = json(inner.bytes().ok_or(Malformed)?, depth + 1)?,
                _ => {}
            }
        }
        map.insert(key.to_owned(), value);
    }
    Ok(map)
}

/// A `google.protobuf.Value`.
fn json(message: &[u8], depth: usize) -> Result<Json, Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed);
    }
    let mut json_value = Json::Null;
    for field in Message::new(message) {
        json_value = match field? {
            (2, Value::Fixed64(bits)) => {
                Number::from_f64(f64::from_bits(bits)).map(Json::Number).ok_or(Malformed)?
            }
            (3, text) => text.text().ok_or(Malformed)?.into(),
            (4, truth) => (truth.number().ok_or(Malformed)? != 0).into(),
            (5, inner) => Json::Object(object(inner.bytes().ok_or(Malformed)?, depth)?),
            (6, list) => {
                let mut items = Vec::new();
                for field in Message::new(list.bytes().ok_or(Malformed)?) {
                    if let (1, item) = field? {
                        items.push(json(item.bytes().ok_or(Malformed)?, depth + 1)?);
                    }
                }
                Json::Array(items)
            }
            _ => Json::Null,
        };
    }
    Ok(json_value)
}
