//! One record as a JSON object.
//!
//! A line is written once per request, after trips through the kernel that leave little in the nearest cache, so what counts is
//! how many different instructions there are as much as how many: all fields go through a few functions that are called, not
//! inlined, and what is short is written by moves of a fixed length.

use std::time::Duration;

use super::QueryLog;
use super::format::gateway_time;
use super::redact::{self, VALUE_LIMIT, clip};
use crate::record::{Protocol, Record, Scheme, StatusSource};
use crate::text::{self, TimeText};

/// Writes the JSON form: the order of fields is fixed, what is not known is left out.
pub(super) struct Json<'o> {
    pub(super) out: &'o mut Vec<u8>,
    pub(super) query: QueryLog,
}

/// What stands before a value. All have the same room, so that copying one is two moves and no call.
#[derive(Clone, Copy)]
struct Key {
    text: [u8; KEY_MAX],
    len: usize,
}

/// Longest key with its punctuation. Unit: bytes.
const KEY_MAX: usize = 32;

impl Key {
    const fn new(text: &str) -> Self {
        let mut room = [0; KEY_MAX];
        room.split_at_mut(text.len()).0.copy_from_slice(text.as_bytes());
        Self { text: room, len: text.len() }
    }

    /// With one of the few values that it has.
    const fn with(self, value: &str) -> Self {
        let Self { mut text, len } = self;
        let end = len + value.len();
        let (_, room) = text.split_at_mut(len);
        let (room, rest) = room.split_at_mut(value.len());
        room.copy_from_slice(value.as_bytes());
        rest[0] = b'"';
        Self { text, len: end + 1 }
    }
}

/// The key of a text, with the quote that opens it.
macro_rules! text {
    ($name:literal) => {
        const { &Key::new(concat!(",\"", $name, "\":\"")) }
    };
}

/// The key of a number.
macro_rules! number {
    ($name:literal) => {
        const { &Key::new(concat!(",\"", $name, "\":")) }
    };
}

/// The key of one of the few values that it has, with it.
macro_rules! word {
    ($name:literal, $value:expr) => {
        const { &Key::new(concat!(",\"", $name, "\":\"")).with($value.as_str()) }
    };
}

const fn scheme(scheme: Scheme) -> &'static Key {
    match scheme {
        Scheme::Http => word!("scheme", Scheme::Http),
        Scheme::Https => word!("scheme", Scheme::Https),
    }
}

const fn status_source(source: StatusSource) -> &'static Key {
    match source {
        StatusSource::Gateway => word!("status_source", StatusSource::Gateway),
        StatusSource::Upstream => word!("status_source", StatusSource::Upstream),
    }
}

const fn protocol(protocol: Protocol) -> &'static Key {
    match protocol {
        Protocol::Http10 => word!("protocol", Protocol::Http10),
        Protocol::Http11 => word!("protocol", Protocol::Http11),
        Protocol::Http2 => word!("protocol", Protocol::Http2),
        Protocol::Http3 => word!("protocol", Protocol::Http3),
        Protocol::Tcp => word!("protocol", Protocol::Tcp),
        Protocol::Tls => word!("protocol", Protocol::Tls),
        Protocol::Udp => word!("protocol", Protocol::Udp),
    }
}

impl Json<'_> {
    pub(super) fn write(&mut self, r: &Record<'_>, times: &mut TimeText, node: &[u8]) {
        self.key(const { &Key::new("{\"ts\":\"") });
        times.rfc3339(self.out, r.start_unix_nanos);
        self.out.push(b'"');
        self.text(text!("request_id"), r.request_id);
        if let Some(trace) = &r.trace {
            self.key(text!("trace_id"));
            self.out.extend_from_slice(&trace.trace_id_hex());
            self.key(const { &Key::new("\",\"span_id\":\"") });
            self.out.extend_from_slice(&trace.parent_id_hex());
            self.out.push(b'"');
        }
        if !r.baggage.is_empty() {
            self.baggage(r);
        }
        if let Some(client) = r.client {
            self.key(text!("client_ip"));
            text::ip(self.out, client.ip());
            self.out.push(b'"');
            if client.port() != 0 {
                self.number(number!("client_port"), client.port().into());
            }
        }
        if r.protocol.is_l4() {
            self.connection(r);
        } else {
            self.request(r);
            self.outcome(r);
        }
        self.timing(r);
        self.text(text!("listener"), r.listener.as_bytes());
        self.text(text!("route"), r.route.as_bytes());
        self.text(text!("rule"), r.rule.as_bytes());
        self.text(text!("backend"), r.backend.as_bytes());
        self.text(text!("endpoint"), r.endpoint.as_bytes());
        if let Some(status) = r.upstream_status {
            self.number(number!("upstream_status"), status.into());
        }
        self.text(text!("policy_decision"), r.policy_decision.as_bytes());
        self.text(text!("principal"), r.principal.as_bytes());
        self.text(text!("consumer"), r.consumer.as_bytes());
        self.text(text!("shadow_refusals"), r.shadow.as_bytes());
        if r.tries != 0 {
            self.number(number!("tries"), r.tries.into());
        }
        if !r.retries.is_empty() {
            self.retries(r);
        }
        self.client(r);
        if !node.is_empty() {
            self.known(text!("node"), node);
        }
        self.number(number!("config_revision"), r.config_revision);
        self.out.push(b'}');
    }

    #[cold]
    fn baggage(&mut self, r: &Record<'_>) {
        let mut before: &[u8] = b",\"baggage\":{\"";
        for member in r.baggage {
            self.raw(before);
            text::json(self.out, member.key.as_bytes());
            self.raw(b"\":\"");
            text::json(self.out, clip(&member.value, VALUE_LIMIT));
            before = b"\",\"";
        }
        self.raw(b"\"}");
    }

    #[cold]
    fn retries(&mut self, r: &Record<'_>) {
        let mut before: &[u8] = b",\"retries\":[\"";
        for reason in r.retries {
            self.raw(before);
            self.raw(reason.to_string().as_bytes());
            before = b"\",\"";
        }
        self.raw(b"\"]");
    }

    fn host(&mut self, r: &Record<'_>) {
        if !r.authority.is_empty() {
            self.key(text!("host"));
            redact::authority(self.out, text::json, r.authority);
            self.out.push(b'"');
        }
    }

    fn request(&mut self, r: &Record<'_>) {
        self.text(text!("method"), r.method);
        self.key(scheme(r.scheme));
        self.host(r);
        self.key(text!("path"));
        redact::path(self.out, text::json, r.path);
        self.out.push(b'"');
        if let (Some(query), QueryLog::Redacted) = (r.query, self.query) {
            self.key(text!("query"));
            redact::query(self.out, text::json, query);
            self.raw(b"\"");
        }
        self.key(protocol(r.protocol));
        self.text(text!("upgrade"), r.upgrade);
    }

    /// What there is to say without requests.
    #[cold]
    fn connection(&mut self, r: &Record<'_>) {
        self.key(protocol(r.protocol));
        self.host(r);
        self.text(text!("end"), r.end.as_bytes());
        self.failure(r);
        self.volume(r);
    }

    fn outcome(&mut self, r: &Record<'_>) {
        self.number(number!("status"), r.status.into());
        self.key(status_source(r.status_source));
        self.failure(r);
        if let Some(status) = r.grpc_status {
            self.number(number!("grpc_status"), status.into());
        }
        self.volume(r);
    }

    fn failure(&mut self, r: &Record<'_>) {
        self.text(text!("failure_code"), r.failure_code.unwrap_or_default().as_bytes());
        self.text(text!("failure_side"), r.failure_side.unwrap_or_default().as_bytes());
    }

    fn volume(&mut self, r: &Record<'_>) {
        if !r.notes.is_empty() {
            for (at, note) in r.notes.iter().enumerate() {
                self.raw(if at == 0 { b",\"notes\":[\"" } else { b"\",\"" });
                self.raw(note.name().as_bytes());
            }
            self.raw(b"\"]");
        }
        self.number(number!("bytes_in"), r.bytes_in);
        self.number(number!("bytes_out"), r.bytes_out);
    }

    fn timing(&mut self, r: &Record<'_>) {
        self.millis(const { &Key::new(",\"duration_ms\":{\"total\":") }, Some(r.timing.total));
        self.millis(number!("gateway"), gateway_time(r));
        self.millis(number!("request_body"), r.timing.request_body);
        self.millis(number!("connect"), r.timing.connect);
        self.millis(number!("upstream_first_byte"), r.timing.upstream_first_byte);
        self.millis(number!("upstream_total"), r.timing.upstream_total);
        self.out.push(b'}');
    }

    fn client(&mut self, r: &Record<'_>) {
        if let Some(tls) = &r.tls {
            // Of what is passed on without being decrypted nothing but the name is known.
            if tls.version.is_empty() {
                self.key(const { &Key::new(",\"tls\":{\"sni\":\"") });
                text::json(self.out, clip(tls.sni, VALUE_LIMIT));
                self.raw(b"\"");
            } else {
                self.text(const { &Key::new(",\"tls\":{\"version\":\"") }, tls.version.as_bytes());
                self.text(text!("cipher"), tls.cipher.as_bytes());
                self.text(text!("sni"), tls.sni);
                self.text(text!("client_subject"), tls.client_subject);
            }
            self.raw(b"}");
        }
        self.text(text!("user_agent"), r.user_agent);
        if !r.referer.is_empty() {
            self.key(text!("referer"));
            redact::uri(self.out, text::json, r.referer, self.query);
            self.out.push(b'"');
        }
    }

    #[inline(never)]
    fn raw(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
    }

    #[inline(always)]
    fn key(&mut self, key: &Key) {
        let end = self.out.len() + key.len;
        self.out.extend_from_slice(&key.text);
        self.out.truncate(end);
    }

    /// A text of a peer or of the configuration, unless it is empty.
    #[inline(never)]
    fn text(&mut self, key: &Key, value: &[u8]) {
        if !value.is_empty() {
            self.key(key);
            text::json(self.out, clip(value, VALUE_LIMIT));
            self.out.push(b'"');
        }
    }

    /// A text that has no byte to escape.
    #[inline(never)]
    fn known(&mut self, key: &Key, value: &[u8]) {
        self.key(key);
        self.out.extend_from_slice(value);
        self.out.push(b'"');
    }

    #[inline(never)]
    fn number(&mut self, key: &Key, value: u64) {
        self.key(key);
        text::number(self.out, value);
    }

    #[inline(never)]
    fn millis(&mut self, key: &Key, value: Option<Duration>) {
        if let Some(value) = value {
            self.key(key);
            text::millis(self.out, value);
        }
    }
}
