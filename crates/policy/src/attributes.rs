//! What expressions can ask about an exchange: `request.method`, `source.address`. See `docs/expressions.md`.

use std::borrow::Cow;
use std::net::IpAddr;

use rhumb_cel::value::{Map, Timestamp};
use rhumb_cel::{Field, Kind, Object, Schema, Value};
use rhumb_codec::field::Known;
use rhumb_codec::head::{Content, RequestHead, Scheme, Version};
use rhumb_route::field::{cookie, decoded};

use crate::exchange::Exchange;

/// Every attribute.
pub static SCHEMA: Schema = Schema {
    fields: &[
        Field { name: "request", kind: Kind::Object(&REQUEST), doc: "The request, as the client sent it." },
        Field { name: "source", kind: Kind::Object(&SOURCE), doc: "Who asks." },
        Field { name: "listener", kind: Kind::Object(&LISTENER), doc: "Where the request came in." },
    ],
};

static REQUEST: Schema = Schema {
    fields: &[
        Field { name: "id", kind: Kind::Text, doc: "The request's id." },
        Field { name: "method", kind: Kind::Text, doc: "The method, case-sensitive: `GET`." },
        Field { name: "scheme", kind: Kind::Text, doc: "`http` or `https`." },
        Field { name: "host", kind: Kind::Text, doc: "The host without its port, in lower case." },
        Field {
            name: "path",
            kind: Kind::Text,
            doc: "The path in normal form, percent-encoded where it must be.",
        },
        Field {
            name: "query",
            kind: Kind::Map(&Kind::Text),
            doc: "Query parameters, percent-decoded; of a repeated one the first.",
        },
        Field {
            name: "headers",
            kind: Kind::Map(&Kind::Text),
            doc: "Fields by name in any case; several lines are joined by `, `.",
        },
        Field { name: "cookies", kind: Kind::Map(&Kind::Text), doc: "Cookies; of a repeated one the first." },
        Field { name: "protocol", kind: Kind::Text, doc: "`HTTP/1.0`, `HTTP/1.1` or `HTTP/2`." },
        Field {
            name: "size",
            kind: Kind::Int,
            doc: "Announced length of the content in bytes; -1 when it is not announced.",
        },
        Field { name: "time", kind: Kind::Timestamp, doc: "When the request came." },
    ],
};

static SOURCE: Schema = Schema {
    fields: &[Field {
        name: "address",
        kind: Kind::Ip,
        doc: "The client's address: the peer's, or what a trusted proxy said.",
    }],
};

static LISTENER: Schema =
    Schema { fields: &[Field { name: "port", kind: Kind::Int, doc: "The port of the listener." }] };

/// The attributes of one exchange.
pub struct Attributes<'a> {
    request: Request<'a>,
    source: Source,
    listener: Listener,
}

struct Request<'a> {
    head: &'a RequestHead,
    id: &'a str,
    scheme: Scheme,
    nanos: u64,
    headers: Headers<'a>,
    query: Query<'a>,
    cookies: Cookies<'a>,
}

struct Source(IpAddr);
struct Listener(u16);
struct Headers<'a>(&'a RequestHead);
struct Query<'a>(&'a RequestHead);
struct Cookies<'a>(&'a RequestHead);

impl<'a> Attributes<'a> {
    /// Borrows them: nothing is read before an expression asks.
    pub fn new(head: &'a RequestHead, cx: &Exchange<'a>) -> Self {
        Self {
            request: Request {
                head,
                id: cx.request_id,
                scheme: cx.scheme,
                nanos: cx.unix_nanos,
                headers: Headers(head),
                query: Query(head),
                cookies: Cookies(head),
            },
            source: Source(cx.client),
            listener: Listener(cx.port),
        }
    }
}

fn tell(names: &[&str], each: &mut dyn FnMut(&str) -> bool) {
    let _ = names.iter().all(|name| each(name));
}

impl Object for Attributes<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(Value::Map(Map::Object(match name {
            "request" => &self.request,
            "source" => &self.source,
            "listener" => &self.listener,
            _ => return None,
        })))
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell(&["request", "source", "listener"], each);
    }
}

impl Object for Request<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "id" => Value::Text(Cow::Borrowed(self.id)),
            "method" => Value::text(self.head.method_name()),
            "scheme" => Value::Text(Cow::Borrowed(self.scheme.as_str())),
            "host" => match Value::text(self.head.host()) {
                Value::Text(host) if host.bytes().any(|b| b.is_ascii_uppercase()) => {
                    Value::Text(host.to_ascii_lowercase().into())
                }
                host => host,
            },
            "path" => Value::text(self.head.path()),
            "query" => Value::Map(Map::Object(&self.query)),
            "headers" => Value::Map(Map::Object(&self.headers)),
            "cookies" => Value::Map(Map::Object(&self.cookies)),
            "protocol" => Value::Text(Cow::Borrowed(match self.head.version {
                Version::Http10 => "HTTP/1.0",
                Version::Http11 => "HTTP/1.1",
                Version::Http2 => "HTTP/2",
            })),
            "size" => Value::Int(match self.head.content {
                Content::Length(length) => i64::try_from(length).unwrap_or(i64::MAX),
                _ if self.head.content.is_empty() => 0,
                _ => -1,
            }),
            "time" => Value::Timestamp(Timestamp::from_unix_nanos(self.nanos)),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = REQUEST.fields.iter().all(|field| each(field.name));
    }
}

impl Object for Source {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        (name == "address").then(|| Value::Ip(self.0.to_canonical()))
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell(&["address"], each);
    }
}

impl Object for Listener {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        (name == "port").then_some(Value::Int(i64::from(self.0)))
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell(&["port"], each);
    }
}

impl Object for Headers<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        let head = self.0;
        // Host and Upgrade are no fields of a head; the other fields of framing say nothing beyond `request.size`.
        if name.eq_ignore_ascii_case("host") {
            return (!head.authority().is_empty()).then(|| Value::text(head.authority()));
        }
        if name.eq_ignore_ascii_case("upgrade") {
            return head.upgrade().or_else(|| head.protocol()).map(Value::text);
        }
        let separator: &[u8] = if name.eq_ignore_ascii_case("cookie") { b"; " } else { b", " };
        let mut lines = head.fields.iter().filter(|line| line.name.eq_ignore_ascii_case(name.as_bytes()));
        let first = lines.next()?;
        let Some(second) = lines.next() else { return Some(Value::text(first.value)) };
        // RFC 9110 §5.3; lines of Cookie are joined by RFC 9113 §8.2.3.
        let mut joined = first.value.to_vec();
        for line in std::iter::once(second).chain(lines) {
            joined.extend_from_slice(separator);
            joined.extend_from_slice(line.value);
        }
        Some(Value::Text(Cow::Owned(String::from_utf8_lossy(&joined).into_owned())))
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let lines = self.0.fields.iter();
        let mut names = lines.map(|line| String::from_utf8_lossy(line.name).to_ascii_lowercase());
        let _ = names.all(|name| each(&name)) && (self.0.authority().is_empty() || each("host"));
    }
}

impl Query<'_> {
    fn parameters(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let parts = self.0.query().unwrap_or_default().split(|&b| b == b'&').filter(|part| !part.is_empty());
        parts.map(|part| match memchr::memchr(b'=', part).and_then(|at| part.split_at_checked(at)) {
            Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
            None => (part, &b""[..]),
        })
    }
}

impl Object for Query<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        self.parameters()
            .find(|(raw, _)| *decoded(raw) == *name.as_bytes())
            .map(|(_, value)| text(decoded(value)))
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = self.parameters().all(|(name, _)| each(&String::from_utf8_lossy(&decoded(name))));
    }
}

impl Cookies<'_> {
    /// RFC 6265 §5.4: pairs separated by `; `.
    fn cookie_names(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.0.fields.get_all(Known::Cookie);
        lines.flat_map(|line| line.split(|&b| b == b';')).filter_map(|pair| {
            let pair = pair.trim_ascii();
            pair.get(..memchr::memchr(b'=', pair)?)
        })
    }
}

impl Object for Cookies<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        cookie(self.0, name.as_bytes()).map(Value::text)
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = self.cookie_names().all(|name| each(&String::from_utf8_lossy(name)));
    }
}

fn text(bytes: Cow<'_, [u8]>) -> Value<'_> {
    match bytes {
        Cow::Borrowed(bytes) => Value::text(bytes),
        Cow::Owned(bytes) => Value::Text(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_cel::Program;

    fn head() -> RequestHead {
        let mut head = RequestHead::new();
        head.set_method(b"GET");
        head.set_authority(b"API.example.com:8080");
        head.set_target(b"/a%20b?q=1%2B1&q=2&flag&n%61me=%zz");
        for (name, value) in
            [("x-a", "1"), ("X-A", "2"), ("cookie", "a=1; b=2"), ("cookie", "a=3"), ("x-bad", "\u{fe}")]
        {
            head.fields.append_raw(
                Known::of(name.to_ascii_lowercase().as_bytes()),
                name.as_bytes(),
                value.as_bytes(),
            );
        }
        head
    }

    #[test]
    fn attributes_are_what_the_client_sent() {
        let head = head();
        let cx = Exchange {
            request_id: "id-1",
            unix_nanos: 1_234_567_890_500_000_000,
            ..Exchange::new([10, 0, 0, 7].into(), Scheme::Https, 8443)
        };
        let attributes = Attributes::new(&head, &cx);
        for (text, expected) in [
            ("request.id", "\"id-1\""),
            ("request.method", "\"GET\""),
            ("request.scheme", "\"https\""),
            ("request.host", "\"api.example.com\""),
            ("request.path", "\"/a%20b\""),
            ("request.query['q']", "\"1+1\""),
            ("request.query.flag", "\"\""),
            ("request.query['name']", "\"%zz\""),
            ("'nope' in request.query", "false"),
            ("request.headers['x-A']", "\"1, 2\""),
            ("request.headers['Host']", "\"API.example.com:8080\""),
            ("request.headers.cookie", "\"a=1; b=2; a=3\""),
            ("request.headers.exists(h, h == 'host')", "true"),
            ("request.cookies.a + request.cookies.b", "\"12\""),
            ("request.protocol", "\"HTTP/1.1\""),
            ("request.size", "0"),
            ("request.time", "2009-02-13T23:31:30.5Z"),
            ("source.address == ip('10.0.0.7') && cidr('10.0.0.0/8').containsIP(source.address)", "true"),
            ("listener.port", "8443"),
        ] {
            let program = Program::compile(text, &SCHEMA).unwrap_or_else(|error| panic!("{text}: {error}"));
            let value = program.eval(&attributes).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(format!("{value:?}"), expected, "{text}");
        }
    }

    #[test]
    fn every_attribute_of_the_schema_has_a_value() {
        let head = head();
        let cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80);
        let attributes = Attributes::new(&head, &cx);
        SCHEMA.walk(&mut |path, field| {
            assert!(!field.doc.is_empty());
            Program::compile(path, &SCHEMA)
                .unwrap()
                .eval(&attributes)
                .unwrap_or_else(|error| panic!("{path}: {error}"));
        });
    }
}
