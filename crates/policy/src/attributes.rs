//! What expressions can ask about an exchange: `request.method`, `source.address`. See `docs/expressions.md`.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use rhumb_cel::value::{List, Map, Timestamp};
use rhumb_cel::{Field, Kind, Object, Schema, Value};
use rhumb_codec::field::Known;
use rhumb_codec::head::{Content, RequestHead, Scheme, Version};
use rhumb_route::field::{cookie, decoded};

use crate::consumers::own_name;
use crate::exchange::Exchange;
use crate::principal::{Certificate, Principal};

/// Every attribute.
pub static SCHEMA: Schema = Schema {
    fields: &[
        Field { name: "request", kind: Kind::Object(&REQUEST), doc: "The request, as the client sent it." },
        Field { name: "source", kind: Kind::Object(&SOURCE), doc: "Who asks." },
        Field {
            name: "destination",
            kind: Kind::Object(&DESTINATION),
            doc: "Where a connection leads that leaves the mesh through its egress gateway.",
        },
        Field {
            name: "principal",
            kind: Kind::Object(&PRINCIPAL),
            doc: "Who asks, as an authentication has proven.",
        },
        Field {
            name: "jwt",
            kind: Kind::Map(&Kind::Dyn),
            doc: "The claims of the token; the same as `principal.claims`.",
        },
        Field {
            name: "consumer",
            kind: Kind::Object(&CONSUMER),
            doc: "The Consumer that the credentials belong to.",
        },
        Field { name: "listener", kind: Kind::Object(&LISTENER), doc: "Where the request came in." },
    ],
};

pub(crate) static REQUEST: Schema = Schema {
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

pub(crate) static SOURCE: Schema = Schema {
    fields: &[
        Field {
            name: "address",
            kind: Kind::Ip,
            doc: "The client's address: the peer's, or what a trusted proxy said.",
        },
        Field {
            name: "certificate",
            kind: Kind::Object(&CERTIFICATE),
            doc: "The client's certificate, verified. Without one its texts and lists are empty.",
        },
        Field {
            name: "principal",
            kind: Kind::Text,
            doc: "The SPIFFE ID of the workload that asks; empty outside of the mesh.",
        },
        Field {
            name: "namespace",
            kind: Kind::Text,
            doc: "The namespace of the workload that asks; empty outside of the mesh.",
        },
        Field {
            name: "serviceAccount",
            kind: Kind::Text,
            doc: "The service account of the workload that asks; empty outside of the mesh.",
        },
    ],
};

pub(crate) static DESTINATION: Schema = Schema {
    fields: &[
        Field {
            name: "host",
            kind: Kind::Text,
            doc: "The name in lower case, or the address; empty for what stays in the mesh.",
        },
        Field { name: "port", kind: Kind::Int, doc: "The port; 0 for what stays in the mesh." },
    ],
};

static CERTIFICATE: Schema = Schema {
    fields: &[
        Field { name: "subject", kind: Kind::Text, doc: "The subject: `CN=api,O=Example` (RFC 4514)." },
        Field { name: "names", kind: Kind::List(&Kind::Text), doc: "Every subject alternative name." },
        Field { name: "fingerprint", kind: Kind::Text, doc: "SHA-256 in lower-case hexadecimal." },
        Field { name: "serial", kind: Kind::Text, doc: "The serial number in lower-case hexadecimal." },
        Field { name: "spiffeId", kind: Kind::Text, doc: "The SPIFFE ID." },
    ],
};

pub(crate) static PRINCIPAL: Schema = Schema {
    fields: &[
        Field {
            name: "method",
            kind: Kind::Text,
            doc: "The policy that proved it: `jwt`, `apiKey`; empty when nobody proved anything.",
        },
        Field {
            name: "subject",
            kind: Kind::Text,
            doc: "Who: the subject of a token, the name of a user or key.",
        },
        Field { name: "issuer", kind: Kind::Text, doc: "Who says so; empty when this gateway does." },
        Field { name: "scopes", kind: Kind::List(&Kind::Text), doc: "What the token allows." },
        Field { name: "claims", kind: Kind::Map(&Kind::Dyn), doc: "What else the issuer says." },
    ],
};

pub(crate) static CONSUMER: Schema = Schema {
    fields: &[
        Field { name: "name", kind: Kind::Text, doc: "Its name; empty when there is none." },
        Field { name: "groups", kind: Kind::List(&Kind::Text), doc: "Groups that it is in." },
        Field { name: "plan", kind: Kind::Text, doc: "Its plan; empty when it has none." },
        Field { name: "attributes", kind: Kind::Map(&Kind::Dyn), doc: "What else is written of it." },
    ],
};

pub(crate) static LISTENER: Schema =
    Schema { fields: &[Field { name: "port", kind: Kind::Int, doc: "The port of the listener." }] };

/// The attributes of one exchange.
pub struct Attributes<'a> {
    request: Request<'a>,
    source: Source,
    destination: Destination<'a>,
    principal: Who,
    consumer: Whose,
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

struct Source {
    address: IpAddr,
    certificate: Shown,
}

/// A host out of the mesh and a port.
struct Destination<'a>(Option<(&'a str, u16)>);

/// The certificate that was shown.
struct Shown(Option<Arc<Certificate>>);
struct Who(Option<Arc<Principal>>);
/// Whose credentials they are.
struct Whose(Option<Arc<Principal>>);
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
            source: Source { address: cx.client, certificate: Shown(cx.certificate.clone()) },
            destination: Destination(cx.destination),
            principal: Who(cx.found.principal.clone()),
            consumer: Whose(cx.found.principal.clone()),
            listener: Listener(cx.port),
        }
    }
}

/// The attributes of a connection that is carried as it is: nothing of requests has a value, nor has what only requests can
/// prove.
pub struct OfConnection<'a> {
    source: Source,
    destination: Destination<'a>,
    listener: Listener,
}

impl<'a> OfConnection<'a> {
    /// They are few.
    pub fn new(cx: &Exchange<'a>) -> Self {
        Self {
            source: Source { address: cx.client, certificate: Shown(cx.certificate.clone()) },
            destination: Destination(cx.destination),
            listener: Listener(cx.port),
        }
    }
}

impl Object for OfConnection<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(Value::Map(Map::Object(match name {
            "source" => &self.source,
            "destination" => &self.destination,
            "listener" => &self.listener,
            _ => return None,
        })))
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell(&["source", "destination", "listener"], each);
    }
}

fn tell(names: &[&str], each: &mut dyn FnMut(&str) -> bool) {
    let _ = names.iter().all(|name| each(name));
}

fn tell_all(schema: &Schema, each: &mut dyn FnMut(&str) -> bool) {
    let _ = schema.fields.iter().all(|field| each(field.name));
}

fn borrowed(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn texts<'a>(all: impl Iterator<Item = &'a str>) -> Value<'a> {
    Value::List(List::Made(all.map(borrowed).collect()))
}

/// The members of an object; none when it is not there.
fn object(members: Option<&serde_json::Map<String, serde_json::Value>>) -> Value<'_> {
    Value::Map(match members {
        Some(members) => Map::Json(members),
        None => Map::Made([].into()),
    })
}

impl Object for Attributes<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(Value::Map(Map::Object(match name {
            "request" => &self.request,
            "source" => &self.source,
            "destination" => &self.destination,
            "principal" => &self.principal,
            "jwt" => return self.principal.field("claims"),
            "consumer" => &self.consumer,
            "listener" => &self.listener,
            _ => return None,
        })))
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell_all(&SCHEMA, each);
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
        tell_all(&REQUEST, each);
    }
}

impl Object for Destination<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "host" => borrowed(self.0.map_or("", |(host, _)| host)),
            "port" => Value::Int(self.0.map_or(0, |(_, port)| port.into())),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell_all(&DESTINATION, each);
    }
}

impl Source {
    fn spiffe_id(&self) -> &str {
        self.certificate.0.as_deref().map_or("", |certificate| &certificate.spiffe_id)
    }
}

/// Namespace and service account of a SPIFFE ID that was verified; both empty for one of another form.
fn account(id: &str) -> (&str, &str) {
    let path = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    let Some((_, path)) = path else { return ("", "") };
    let mut parts = path.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => (namespace, account),
        _ => ("", ""),
    }
}

impl Object for Source {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "address" => Value::Ip(self.address.to_canonical()),
            "certificate" => Value::Map(Map::Object(&self.certificate)),
            "principal" => borrowed(self.spiffe_id()),
            "namespace" => borrowed(account(self.spiffe_id()).0),
            "serviceAccount" => borrowed(account(self.spiffe_id()).1),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell_all(&SOURCE, each);
    }
}

impl Object for Shown {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        let shown = self.0.as_deref();
        let of = |field: fn(&Certificate) -> &str| borrowed(shown.map_or("", field));
        Some(match name {
            "subject" => of(|certificate| &certificate.subject),
            "fingerprint" => of(|certificate| &certificate.fingerprint),
            "serial" => of(|certificate| &certificate.serial),
            "spiffeId" => of(|certificate| &certificate.spiffe_id),
            "names" => texts(shown.into_iter().flat_map(Certificate::names)),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell_all(&CERTIFICATE, each);
    }
}

impl Object for Who {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        let who = self.0.as_deref();
        Some(match name {
            "method" => borrowed(who.map_or("", |who| who.method)),
            "subject" => borrowed(who.map_or("", |who| &who.subject)),
            "issuer" => borrowed(who.map_or("", |who| &who.issuer)),
            "scopes" => texts(who.into_iter().flat_map(|who| who.scopes.iter().map(|scope| &**scope))),
            "claims" => object(who.map(|who| &*who.claims)),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell_all(&PRINCIPAL, each);
    }
}

impl Object for Whose {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        let consumer = self.0.as_ref().and_then(|who| who.consumer.as_deref());
        let own = consumer.map_or("", own_name);
        Some(match name {
            "name" => borrowed(own),
            "plan" => borrowed(consumer.map_or("", |consumer| &consumer.plan)),
            "groups" => texts(consumer.into_iter().flat_map(|one| one.groups.iter().map(|group| &**group))),
            "attributes" => object(consumer.map(|consumer| &consumer.attributes)),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        tell_all(&CONSUMER, each);
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
    fn who_asks_is_an_attribute() {
        let head = head();
        let mut cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80);
        let claims = serde_json::json!({ "sub": "ann", "realm": { "roles": ["admin"] }, "level": 3 });
        let serde_json::Value::Object(claims) = claims else { panic!() };
        let consumer = crate::Consumer {
            name: "team/acme".into(),
            groups: ["gold".into()].into(),
            plan: "pro".into(),
            ..crate::Consumer::default()
        };
        cx.prove(Arc::new(Principal {
            method: "jwt",
            subject: "ann".into(),
            issuer: "https://id".into(),
            scopes: ["read".into(), "write".into()].into(),
            claims: Arc::new(claims),
            consumer: Some(Arc::new(consumer)),
        }));
        cx.certificate = Some(Arc::new(Certificate {
            subject: "CN=x".into(),
            uris: ["spiffe://t/a".into()].into(),
            ..Certificate::default()
        }));
        let stranger = Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80);
        for (text, expected, without) in [
            ("jwt.sub == 'ann'", true, false),
            ("'admin' in jwt.realm.roles && jwt.level >= 3", true, false),
            ("'read' in principal.scopes", true, false),
            ("principal.method == '' || consumer.name == ''", false, true),
            ("principal.issuer + principal.subject == 'https://idann'", true, false),
            ("consumer.name == 'acme'", true, false),
            ("consumer.plan == 'pro' && 'gold' in consumer.groups", true, false),
            ("source.certificate.names.exists(n, n.startsWith('spiffe://t/'))", true, false),
            ("source.certificate.subject == ''", false, true),
            ("'sub' in principal.claims", true, false),
        ] {
            let program = Program::condition(text, &SCHEMA).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(program.holds(&Attributes::new(&head, &cx)).unwrap_or(false), expected, "{text}");
            assert_eq!(program.holds(&Attributes::new(&head, &stranger)).unwrap_or(false), without, "{text}");
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
