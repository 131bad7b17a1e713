//! Spans: what a traced exchange leaves behind for a collector, in OpenTelemetry's protocol (OTLP 1.x, protobuf).
//!
//! Nothing is made while a request runs: its spans are written at its end, out of its [`Record`] and of what is known of
//! its attempts and waits, straight into the bytes that are sent. Names follow OpenTelemetry's semantic conventions for
//! HTTP; those of our own begin with `rhumb.`.

use std::time::Duration;

use rhumb_codec::protobuf::{Message, Value, Writer};

use crate::access_log::redact;
use crate::id::TraceContext;
use crate::record::{Protocol, Record, StatusSource};

/// Spans of finished exchanges, as they go into a request to a collector.
#[derive(Debug, Default)]
pub struct Batch {
    spans: Vec<u8>,
    count: u32,
}

/// An exchange and how it is to be told.
#[derive(Clone, Copy, Debug)]
pub struct Traced<'a> {
    /// What is known of it.
    pub record: &'a Record<'a>,
    /// The trace, with the exchange's own span as parent of what it calls.
    pub context: TraceContext,
    /// The caller's span.
    pub parent: Option<[u8; 8]>,
    /// Attempts in order.
    pub attempts: &'a [Attempt<'a>],
    /// What policies waited for, in order.
    pub waits: &'a [Wait],
}

/// An attempt at a backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempt<'a> {
    /// When it began, since the exchange did.
    pub begun: Duration,
    /// When it ended, since the exchange began.
    pub ended: Duration,
    /// Address of the endpoint; empty when none was found.
    pub endpoint: &'a str,
    /// How long it took to make a connection, if one had to be made.
    pub connect: Option<Duration>,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// Machine code of its failure, if it failed.
    pub failure: Option<&'static str>,
}

/// A policy that waited.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Its kind.
    pub policy: &'static str,
    /// When it began to wait, since the exchange began.
    pub begun: Duration,
    /// When it went on, since the exchange began.
    pub ended: Duration,
}

/// The kinds of spans that a proxy has.
#[derive(Clone, Copy)]
enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// The span of an attempt: that of its exchange with the attempt's number added, so that it is known without being kept.
pub fn attempt_span(exchange: [u8; 8], number: u16) -> [u8; 8] {
    // All zero is no span (W3C Trace Context §3.2.2.4).
    u64::from_be_bytes(exchange).wrapping_add(u64::from(number)).max(1).to_be_bytes()
}

impl Batch {
    /// How many spans are in it.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What it takes. **Unit**: bytes.
    pub fn size(&self) -> usize {
        self.spans.len()
    }

    /// Adds the spans of an exchange.
    pub fn push(&mut self, traced: &Traced<'_>) {
        let Traced { record, context, .. } = *traced;
        let begun = record.start_unix_nanos;
        let ended = begun.saturating_add(nanos(record.timing.total));
        let method = text(record.method);
        let name =
            if record.rule.is_empty() { method.to_string() } else { format!("{method} {}", record.rule) };
        let is_error = record.status >= 500 || record.failure_code.is_some();
        self.span(Kind::Server, context, context.parent_id, traced.parent, &name, (begun, ended), |span| {
            exchange(span, record, &method);
            status(span, is_error, record.failure_code.unwrap_or_default());
        });
        // A number per attempt and per wait: none has the id of another.
        let mut number = 0;
        for attempt in traced.attempts {
            number += 1;
            let id = attempt_span(context.parent_id, number);
            let times =
                (begun.saturating_add(nanos(attempt.begun)), begun.saturating_add(nanos(attempt.ended)));
            self.span(Kind::Client, context, id, Some(context.parent_id), &method, times, |span| {
                self::attempt(span, attempt, record, number, times.0);
            });
        }
        number = number.max(record.tries);
        for wait in traced.waits {
            number = number.saturating_add(1);
            let id = attempt_span(context.parent_id, number);
            let times = (begun.saturating_add(nanos(wait.begun)), begun.saturating_add(nanos(wait.ended)));
            let name = format!("policy {}", wait.policy);
            self.span(Kind::Internal, context, id, Some(context.parent_id), &name, times, |span| {
                string(span, "rhumb.policy", wait.policy.as_bytes());
            });
        }
    }

    #[allow(clippy::too_many_arguments)] // the parts of a span, each used once
    fn span(
        &mut self,
        kind: Kind,
        context: TraceContext,
        id: [u8; 8],
        parent: Option<[u8; 8]>,
        name: &str,
        times: (u64, u64),
        write: impl FnOnce(&mut Writer),
    ) {
        let mut spans = Writer::appending(std::mem::take(&mut self.spans));
        spans.message(2, |span| {
            span.bytes(1, &context.trace_id);
            span.bytes(2, &id);
            if let Some(parent) = parent {
                span.bytes(4, &parent);
            }
            span.bytes(5, name.as_bytes());
            span.number(6, kind as u64);
            span.fixed64(7, times.0);
            span.fixed64(8, times.1);
            write(span);
        });
        self.spans = spans.into_bytes();
        self.count += 1;
    }

    /// The request that hands everything over to a collector (`ExportTraceServiceRequest`), and how many spans are in it.
    /// Nothing is left.
    pub fn take(&mut self, resource: &Resource<'_>) -> (Vec<u8>, u32) {
        let count = std::mem::take(&mut self.count);
        (scoped(resource, &mut self.spans), count)
    }

    /// Drops everything. Returns how many spans that were.
    pub fn clear(&mut self) -> u32 {
        self.spans.clear();
        std::mem::take(&mut self.count)
    }
}

/// The request that hands over spans, log records or metrics, each of which has its key (2) and length already.
/// Nothing is left of them.
pub(crate) fn scoped(resource: &Resource<'_>, told: &mut Vec<u8>) -> Vec<u8> {
    let mut scope = Writer::new();
    scope.message(1, |scope| {
        scope.bytes(1, b"rhumb");
        scope.bytes(2, resource.version.as_bytes());
    });
    // Each span has its key and length already.
    let mut scope = scope.into_bytes();
    scope.append(told);
    let mut request = Writer::new();
    request.message(1, |spans| {
        spans.message(1, |writer| {
            for (key, value) in [
                ("service.name", resource.service),
                ("service.instance.id", resource.instance),
                ("service.version", resource.version),
                ("telemetry.sdk.name", "rhumb"),
            ] {
                // Field 1 of a Resource is what field 9 of a Span is.
                attribute(writer, 1, key, |any| any.bytes(1, value.as_bytes()));
            }
        });
        spans.bytes(2, &scope);
    });
    request.into_bytes()
}

/// Who tells.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// `service.name`.
    pub service: &'a str,
    /// `service.instance.id`.
    pub instance: &'a str,
    /// `service.version`.
    pub version: &'a str,
}

/// How many spans a collector did not take, by its answer (`ExportTraceServiceResponse`).
pub fn rejected(answer: &[u8]) -> u64 {
    let partial = field(answer, 1).and_then(Value::bytes);
    partial.and_then(|partial| field(partial, 1)).and_then(Value::number).unwrap_or(0)
}

fn field(message: &[u8], number: u32) -> Option<Value<'_>> {
    Message::new(message).filter_map(Result::ok).find(|(found, _)| *found == number).map(|(_, value)| value)
}

pub(crate) fn exchange(span: &mut Writer, record: &Record<'_>, method: &str) {
    string(span, "http.request.method", method.as_bytes());
    string(span, "url.scheme", record.scheme.as_str().as_bytes());
    let mut told = Vec::new();
    redact::path(&mut told, as_it_is, record.path);
    string(span, "url.path", &told);
    told.clear();
    redact::authority(&mut told, as_it_is, record.authority);
    let (address, port) = address_of(&told);
    string(span, "server.address", address);
    if let Some(port) = port {
        number(span, "server.port", port.into());
    }
    if record.status != 0 {
        number(span, "http.response.status_code", record.status.into());
    }
    string(span, "http.route", record.rule.as_bytes());
    if let Some(client) = record.client {
        string(span, "client.address", client.ip().to_string().as_bytes());
        if client.port() != 0 {
            number(span, "client.port", client.port().into());
        }
    }
    string(span, "network.protocol.version", version(record.protocol).as_bytes());
    string(span, "user_agent.original", record.user_agent);
    for member in record.baggage {
        string(span, &format!("baggage.{}", member.key), &member.value);
    }
    if let Some(code) = record.grpc_status {
        number(span, "rpc.grpc.status_code", code.into());
    }
    number(span, "http.request.body.size", record.bytes_in);
    number(span, "http.response.body.size", record.bytes_out);
    match record.failure_code {
        Some(code) => string(span, "error.type", code.as_bytes()),
        None if record.status >= 500 => string(span, "error.type", record.status.to_string().as_bytes()),
        None => {}
    }
    for (key, value) in [
        ("rhumb.listener", record.listener),
        ("rhumb.route", record.route),
        ("rhumb.backend", record.backend),
        ("rhumb.failure.side", record.failure_side.unwrap_or_default()),
        ("rhumb.policy.decision", record.policy_decision),
        ("rhumb.consumer", record.consumer),
        ("rhumb.policy.shadow_refusals", record.shadow),
    ] {
        string(span, key, value.as_bytes());
    }
    string(span, "rhumb.request_id", record.request_id);
    if record.status_source == StatusSource::Gateway {
        string(span, "rhumb.status_source", b"gateway");
    }
    number(span, "rhumb.config_revision", record.config_revision);
}

fn attempt(span: &mut Writer, attempt: &Attempt<'_>, record: &Record<'_>, count: u16, begun: u64) {
    string(span, "http.request.method", record.method);
    let (address, port) = address_of(attempt.endpoint.as_bytes());
    string(span, "server.address", address);
    if let Some(port) = port {
        number(span, "server.port", port.into());
    }
    string(span, "rhumb.backend", record.backend.as_bytes());
    if let Some(status) = attempt.status {
        number(span, "http.response.status_code", status.into());
    }
    if count > 1 {
        number(span, "http.request.resend_count", u64::from(count - 1));
    }
    if let Some(connect) = attempt.connect {
        span.message(11, |event| {
            event.fixed64(1, begun.saturating_add(nanos(connect)));
            event.bytes(2, b"connected");
        });
    }
    // OpenTelemetry's conventions: for a client a status of 4xx is an error too.
    let wrong = attempt.status.filter(|status| *status >= 400);
    match (attempt.failure, wrong) {
        (Some(code), _) => string(span, "error.type", code.as_bytes()),
        (None, Some(code)) => string(span, "error.type", code.to_string().as_bytes()),
        (None, None) => {}
    }
    status(span, attempt.failure.is_some() || wrong.is_some(), attempt.failure.unwrap_or_default());
}

/// Host, without the brackets of IPv6, and port of an authority.
pub(crate) fn address_of(authority: &[u8]) -> (&[u8], Option<u16>) {
    let colon = authority.iter().rposition(|&byte| byte == b':');
    let split = colon.and_then(|at| {
        let port = std::str::from_utf8(authority.get(at + 1..)?).ok()?.parse().ok()?;
        Some((authority.get(..at)?, port))
    });
    let (host, port) = split.map_or((authority, None), |(host, port)| (host, Some(port)));
    let inner = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
    (inner.unwrap_or(host), port)
}

pub(crate) fn as_it_is(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

fn version(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http10 => "1.0",
        Protocol::Http11 => "1.1",
        Protocol::Http2 => "2",
        Protocol::Http3 => "3",
        Protocol::Tcp | Protocol::Tls | Protocol::Udp => "",
    }
}

fn status(span: &mut Writer, is_error: bool, message: &str) {
    // Status is unset unless something failed, as the conventions ask.
    if is_error {
        span.message(15, |status| {
            status.bytes(2, message.as_bytes());
            status.number(3, 2);
        });
    }
}

pub(crate) fn string(span: &mut Writer, key: &str, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    // Strings of protocol buffers are UTF-8; a collector refuses the whole batch for one that is not.
    let value = String::from_utf8_lossy(value.get(..VALUE_MAX).unwrap_or(value));
    attribute(span, 9, key, |any| any.bytes(1, value.as_bytes()));
}

/// Longest value of an attribute. Unit: bytes.
const VALUE_MAX: usize = 4096;

pub(crate) fn number(span: &mut Writer, key: &str, value: u64) {
    attribute(span, 9, key, |any| any.always_number(3, value));
}

pub(crate) fn attribute(writer: &mut Writer, field: u32, key: &str, write: impl FnOnce(&mut Writer)) {
    writer.message(field, |pair| {
        pair.bytes(1, key.as_bytes());
        pair.message(2, write);
    });
}

pub(crate) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> TraceContext {
        TraceContext { trace_id: [7; 16], parent_id: [0, 0, 0, 0, 0, 0, 1, 0], flags: 1 }
    }

    fn messages(bytes: &[u8], number: u32) -> Vec<&[u8]> {
        let of_field = Message::new(bytes).map(Result::unwrap).filter(|(found, _)| *found == number);
        of_field.map(|(_, value)| value.bytes().unwrap()).collect()
    }

    /// The spans in a request to a collector.
    fn spans(request: &[u8]) -> Vec<&[u8]> {
        messages(messages(messages(request, 1)[0], 2)[0], 2)
    }

    const RESOURCE: Resource<'static> = Resource { service: "edge", instance: "one", version: "0" };

    #[test]
    fn an_exchange_has_a_span_and_one_of_each_attempt_and_wait() {
        let record = Record { method: b"GET", rule: "/users/*", status: 200, tries: 2, ..Record::default() };
        let attempts =
            [Attempt { failure: Some("connect_failed"), ..Attempt::default() }, Attempt::default()];
        let waits = [Wait { policy: "oidc", begun: Duration::ZERO, ended: Duration::from_millis(1) }];
        let mut batch = Batch::default();
        let told =
            Traced { record: &record, context: context(), parent: None, attempts: &attempts, waits: &waits };
        batch.push(&told);
        assert_eq!(batch.len(), 4);
        let (request, count) = batch.take(&RESOURCE);
        assert!(batch.is_empty() && batch.size() == 0);
        let spans = spans(&request);
        assert_eq!((spans.len(), count), (4, 4));
        let names: Vec<_> = spans.iter().map(|span| messages(span, 5)[0]).collect();
        assert_eq!(names, [&b"GET /users/*"[..], b"GET", b"GET", b"policy oidc"]);
        let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| messages(span, 2)[0]).collect();
        assert_eq!(ids.len(), 4);
        assert!(messages(spans[0], 4).is_empty() && messages(spans[1], 4)[0] == context().parent_id);
        assert_eq!(messages(spans[1], 2)[0], attempt_span(context().parent_id, 1));
        // Status is set where something failed, and nowhere else.
        let failed: Vec<_> = spans.iter().map(|span| !messages(span, 15).is_empty()).collect();
        assert_eq!(failed, [false, true, false, false]);
    }

    #[test]
    fn what_peers_wrote_becomes_text_and_credentials_are_left_out() {
        let record = Record {
            method: b"G\xffT",
            path: b"/a;token=abc/\xfe",
            authority: b"me:pw@[::1]:80",
            user_agent: &[0xff; 9000],
            ..Record::default()
        };
        let mut batch = Batch::default();
        batch.push(&Traced { record: &record, context: context(), parent: None, attempts: &[], waits: &[] });
        let (request, _) = batch.take(&RESOURCE);
        let span = spans(&request)[0];
        let attributes = messages(span, 9);
        let value = |key: &str| {
            let found = attributes.iter().find(|pair| messages(pair, 1)[0] == key.as_bytes()).unwrap();
            let value = messages(found, 2)[0];
            std::str::from_utf8(messages(value, 1)[0]).unwrap().to_owned()
        };
        assert_eq!(value("server.address"), "::1");
        assert!(!value("url.path").contains("abc") && value("url.path").ends_with('\u{fffd}'));
        assert_eq!(value("user_agent.original").chars().count(), VALUE_MAX);
    }

    #[test]
    fn ids_of_attempts_are_never_nothing() {
        assert_eq!(attempt_span([0xff; 8], 1), 1u64.to_be_bytes());
        assert_ne!(attempt_span([1; 8], 1), attempt_span([1; 8], 2));
    }

    #[test]
    fn a_collector_says_how_many_it_did_not_take() {
        assert_eq!(rejected(b""), 0);
        assert_eq!(rejected(&[0x0a, 2, 0x08, 3]), 3);
        assert_eq!(rejected(&[0x0a, 9]), 0);
    }
}
