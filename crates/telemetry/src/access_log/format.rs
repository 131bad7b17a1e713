//! One record as one line: JSON, NCSA combined, or a template.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::json::Json;
use super::redact::{self, VALUE_LIMIT, clip};
use super::{Format, QueryLog};
use crate::record::Record;
use crate::text::{self, TimeText};

/// What a worker needs to write lines.
#[derive(Debug)]
pub(super) struct Formatter {
    format: Format,
    query: QueryLog,
    /// The inside of a JSON string.
    node: Box<[u8]>,
    times: TimeText,
}

impl Formatter {
    pub(super) fn new(format: Format, query: QueryLog, node: &str) -> Self {
        let mut escaped = Vec::new();
        text::json(&mut escaped, node.as_bytes());
        Self { format, query, node: escaped.into(), times: TimeText::new() }
    }

    /// Writes one line with its line feed. Whatever the record holds, there is no other line feed in it.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, record: &Record<'_>) {
        match &self.format {
            Format::Json => Json { out, query: self.query }.write(record, &mut self.times, &self.node),
            Format::Combined => combined(out, record, self.query, &mut self.times),
            Format::Template(template) => {
                for piece in &template.0 {
                    match piece {
                        Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Piece::Field(field) => field.write(out, record, self.query, &mut self.times),
                    }
                }
            }
        }
        out.push(b'\n');
    }
}

// The user is always `-`: who sent credentials is not for this file to tell.
fn combined(out: &mut Vec<u8>, r: &Record<'_>, query: QueryLog, times: &mut TimeText) {
    client_ip(out, r.client);
    out.extend_from_slice(b" - - [");
    times.ncsa(out, r.start_unix_nanos);
    out.extend_from_slice(b"] \"");
    if r.protocol.is_l4() {
        // Three words, as programs that read this form expect, and a status that says that there was none.
        out.extend_from_slice(r.protocol.as_str().as_bytes());
        out.push(b' ');
        or_dash(out, r.route.as_bytes(), text::quoted);
        out.push(b' ');
        or_dash(out, r.end.as_bytes(), |out, value| out.extend_from_slice(value));
        out.extend_from_slice(b"\" 0 ");
        text::number(out, r.bytes_out);
        out.extend_from_slice(b" \"-\" \"-\"");
        return;
    }
    text::quoted(out, clip(r.method, VALUE_LIMIT));
    out.push(b' ');
    redact::path(out, text::quoted, r.path);
    if let (Some(text), QueryLog::Redacted) = (r.query, query) {
        out.push(b'?');
        redact::query(out, text::quoted, text);
    }
    out.push(b' ');
    out.extend_from_slice(r.protocol.as_str().as_bytes());
    out.extend_from_slice(b"\" ");
    text::number(out, r.status);
    out.push(b' ');
    text::number(out, r.bytes_out);
    out.extend_from_slice(b" \"");
    or_dash(out, r.referer, |out, value| redact::uri(out, text::quoted, value, query));
    out.extend_from_slice(b"\" \"");
    or_dash(out, r.user_agent, |out, value| text::quoted(out, clip(value, VALUE_LIMIT)));
    out.push(b'"');
}

fn client_ip(out: &mut Vec<u8>, client: Option<SocketAddr>) {
    match client {
        Some(client) => text::ip(out, client.ip()),
        None => out.push(b'-'),
    }
}

fn or_dash(out: &mut Vec<u8>, value: &[u8], write: impl FnOnce(&mut Vec<u8>, &[u8])) {
    if value.is_empty() { out.push(b'-') } else { write(out, value) }
}

// What we added ourselves, as far as it can be told apart: all but the time since the first attempt.
pub(super) fn gateway_time(r: &Record<'_>) -> Option<Duration> {
    Some(r.timing.total.saturating_sub(r.timing.upstream_total?))
}

/// A line with `{field}` places, such as `{client_ip} {method} {path} {status} {duration_ms}`.
///
/// Field names are those of the JSON form; nested ones are written with a dot (`duration_ms.connect`, `tls.sni`).
/// `{{` and `}}` are braces. What is not known is written as `-`. Bytes of peers are escaped as in the combined form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(Field),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = template;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            rest = match c {
                '{' | '}' if after.starts_with(c) => {
                    text.push(c);
                    &after[1..]
                }
                '{' => {
                    let (name, after) = after.split_once('}').ok_or(TemplateError::Unclosed)?;
                    let field = Field::ALL.into_iter().find(|field| field.name() == name);
                    let field = field.ok_or_else(|| TemplateError::UnknownField(name.into()))?;
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                    }
                    pieces.push(Piece::Field(field));
                    after
                }
                '}' => return Err(TemplateError::Unopened),
                // One record is one line.
                c if c.is_control() && c != '\t' => return Err(TemplateError::ControlCharacter),
                c => {
                    text.push(c);
                    after
                }
            };
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self(pieces))
    }

    /// The names that may stand between braces.
    pub fn field_names() -> impl Iterator<Item = &'static str> {
        Field::ALL.into_iter().map(Field::name)
    }
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A name between braces is not a field.
    #[error("unknown field {0:?} in log template")]
    UnknownField(String),
    /// An opening brace has no closing one.
    #[error("`{{` without `}}` in log template; write `{{{{` for a brace")]
    Unclosed,
    /// A closing brace has no opening one.
    #[error("`}}` without `{{` in log template; write `}}}}` for a brace")]
    Unopened,
    /// The template has a control character other than tab.
    #[error("control character in log template")]
    ControlCharacter,
}

macro_rules! fields {
    ($($name:ident = $text:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Field { $($name),* }

        impl Field {
            const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

fields! {
    Ts = "ts",
    RequestId = "request_id",
    TraceId = "trace_id",
    SpanId = "span_id",
    ClientIp = "client_ip",
    ClientPort = "client_port",
    Method = "method",
    Scheme = "scheme",
    Host = "host",
    Path = "path",
    Query = "query",
    Protocol = "protocol",
    Upgrade = "upgrade",
    Status = "status",
    StatusSource = "status_source",
    FailureCode = "failure_code",
    FailureSide = "failure_side",
    GrpcStatus = "grpc_status",
    Notes = "notes",
    BytesIn = "bytes_in",
    BytesOut = "bytes_out",
    Total = "duration_ms",
    Gateway = "duration_ms.gateway",
    RequestBody = "duration_ms.request_body",
    Connect = "duration_ms.connect",
    UpstreamFirstByte = "duration_ms.upstream_first_byte",
    UpstreamTotal = "duration_ms.upstream_total",
    Listener = "listener",
    Route = "route",
    Rule = "rule",
    Backend = "backend",
    Endpoint = "endpoint",
    UpstreamStatus = "upstream_status",
    PolicyDecision = "policy_decision",
    Principal = "principal",
    Consumer = "consumer",
    ShadowRefusals = "shadow_refusals",
    Tries = "tries",
    TlsVersion = "tls.version",
    TlsCipher = "tls.cipher",
    TlsSni = "tls.sni",
    TlsClientSubject = "tls.client_subject",
    UserAgent = "user_agent",
    Referer = "referer",
    End = "end",
    ConfigRevision = "config_revision",
}

impl Field {
    fn write(self, out: &mut Vec<u8>, r: &Record<'_>, query: QueryLog, times: &mut TimeText) {
        let tls = r.tls.unwrap_or_default();
        match self {
            Self::Ts => times.rfc3339(out, r.start_unix_nanos),
            Self::RequestId => value(out, r.request_id),
            Self::TraceId => {
                value(out, r.trace.map(|trace| trace.trace_id_hex()).as_ref().map_or(&[], |hex| hex))
            }
            Self::SpanId => {
                value(out, r.trace.map(|trace| trace.parent_id_hex()).as_ref().map_or(&[], |hex| hex))
            }
            Self::ClientIp => client_ip(out, r.client),
            Self::ClientPort => known(out, r.client.map(|client| client.port()).filter(|port| *port != 0)),
            Self::Method => value(out, r.method),
            Self::Scheme => value(out, r.scheme.as_str().as_bytes()),
            Self::Host => or_dash(out, r.authority, |out, host| redact::authority(out, text::quoted, host)),
            Self::Path => redact::path(out, text::quoted, r.path),
            Self::Query => match (r.query, query) {
                (Some(text), QueryLog::Redacted) => redact::query(out, text::quoted, text),
                _ => out.push(b'-'),
            },
            Self::Protocol => value(out, r.protocol.as_str().as_bytes()),
            Self::Upgrade => value(out, r.upgrade),
            Self::Status => text::number(out, r.status),
            Self::StatusSource => value(out, r.status_source.as_str().as_bytes()),
            Self::FailureCode => value(out, r.failure_code.unwrap_or_default().as_bytes()),
            Self::FailureSide => value(out, r.failure_side.unwrap_or_default().as_bytes()),
            Self::GrpcStatus => known(out, r.grpc_status),
            Self::Notes if r.notes.is_empty() => out.push(b'-'),
            Self::Notes => {
                for (at, note) in r.notes.iter().enumerate() {
                    out.extend_from_slice(if at == 0 { b"" } else { b"," });
                    out.extend_from_slice(note.name().as_bytes());
                }
            }
            Self::BytesIn => text::number(out, r.bytes_in),
            Self::BytesOut => text::number(out, r.bytes_out),
            Self::Total => text::millis(out, r.timing.total),
            Self::Gateway => duration(out, gateway_time(r)),
            Self::RequestBody => duration(out, r.timing.request_body),
            Self::Connect => duration(out, r.timing.connect),
            Self::UpstreamFirstByte => duration(out, r.timing.upstream_first_byte),
            Self::UpstreamTotal => duration(out, r.timing.upstream_total),
            Self::Listener => value(out, r.listener.as_bytes()),
            Self::Route => value(out, r.route.as_bytes()),
            Self::Rule => value(out, r.rule.as_bytes()),
            Self::Backend => value(out, r.backend.as_bytes()),
            Self::Endpoint => value(out, r.endpoint.as_bytes()),
            Self::UpstreamStatus => known(out, r.upstream_status),
            Self::PolicyDecision => value(out, r.policy_decision.as_bytes()),
            Self::Principal => value(out, r.principal.as_bytes()),
            Self::Consumer => value(out, r.consumer.as_bytes()),
            Self::ShadowRefusals => value(out, r.shadow.as_bytes()),
            Self::Tries => text::number(out, r.tries),
            Self::TlsVersion => value(out, tls.version.as_bytes()),
            Self::TlsCipher => value(out, tls.cipher.as_bytes()),
            Self::TlsSni => value(out, tls.sni),
            Self::TlsClientSubject => value(out, tls.client_subject),
            Self::UserAgent => value(out, r.user_agent),
            Self::Referer => or_dash(out, r.referer, |out, uri| redact::uri(out, text::quoted, uri, query)),
            Self::End => value(out, r.end.as_bytes()),
            Self::ConfigRevision => text::number(out, r.config_revision),
        }
    }
}

fn value(out: &mut Vec<u8>, value: &[u8]) {
    or_dash(out, value, |out, value| text::quoted(out, clip(value, VALUE_LIMIT)));
}

fn known(out: &mut Vec<u8>, value: Option<impl Into<u64>>) {
    match value {
        Some(value) => text::number(out, value),
        None => out.push(b'-'),
    }
}

fn duration(out: &mut Vec<u8>, value: Option<Duration>) {
    match value {
        Some(value) => text::millis(out, value),
        None => out.push(b'-'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TraceContext;
    use crate::record::{
        Member, Note, NoteSet, Protocol, RetryReason, Scheme, StatusSource, Timing, TlsRecord,
    };
    use rhumb_base::failure::Cause;

    fn full() -> Record<'static> {
        Record {
            start_unix_nanos: 1_772_000_000_123_456_789,
            timing: Timing {
                total: Duration::from_micros(12_345),
                request_body: Some(Duration::from_micros(20)),
                connect: Some(Duration::from_micros(800)),
                upstream_first_byte: Some(Duration::from_micros(9000)),
                upstream_total: Some(Duration::from_micros(12_000)),
            },
            client: Some("192.0.2.7:51234".parse().unwrap()),
            method: b"GET",
            scheme: Scheme::Https,
            authority: b"api.example.com",
            path: b"/users/7",
            query: Some(b"page=2&access_token=hunter2"),
            protocol: Protocol::Http2,
            upgrade: b"",
            status: 200,
            status_source: StatusSource::Upstream,
            failure_code: None,
            failure_side: None,
            notes: NoteSet::EMPTY.with(Note::RetriedOnFreshConnection).with(Note::Spliced),
            bytes_in: 0,
            bytes_out: 1024,
            listener: "web",
            route: "default/users",
            rule: "/users/*",
            backend: "default/users",
            endpoint: "10.0.0.3:9001",
            upstream_status: Some(200),
            grpc_status: None,
            policy_decision: "readers",
            principal: "ann@example.com",
            consumer: "default/acme",
            shadow: "rateLimit",
            tries: 3,
            retries: &[RetryReason::Failure(Cause::BackendReset), RetryReason::Grpc(14)],
            request_id: b"019c9d2e-5f6b-7abc-8def-0123456789ab",
            trace: TraceContext::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            baggage: &[],
            is_traced: false,
            tls: Some(TlsRecord {
                version: "1.3",
                cipher: "TLS_AES_128_GCM_SHA256",
                sni: b"api.example.com",
                client_subject: b"CN=me",
            }),
            user_agent: b"curl/8.5.0",
            referer: b"https://me:pw@example.com/start?code=abc",
            end: "",
            config_revision: 42,
        }
    }

    /// A refusal of a request in which every byte that a client chose is hostile.
    fn hostile() -> Record<'static> {
        Record {
            client: Some("[2001:db8::1]:0".parse().unwrap()),
            method: b"GE\"T",
            authority: b"a\nb",
            path: b"/\x00\x1b[31m\"\\\r\n{\"status\":200}",
            query: Some(b"a=\xff\xfe&token=\"\n\"&b=\xe2\x80\xae"),
            status: 400,
            failure_code: Some("malformed_request"),
            failure_side: Some("client"),
            request_id: b"\"},{\"",
            user_agent: b"\xc3\x28 \x7f\t",
            referer: b"\" onload=\"x\ny?key=1",
            ..Record::default()
        }
    }

    fn line(format: Format, query: QueryLog, node: &str, record: &Record<'_>) -> String {
        let mut out = Vec::new();
        Formatter::new(format, query, node).write(&mut out, record);
        let text = String::from_utf8(out).expect("every line is UTF-8");
        let text = text.strip_suffix('\n').expect("every line ends");
        assert!(!text.chars().any(char::is_control), "{text:?}");
        text.into()
    }

    #[test]
    fn json_tells_everything_in_a_fixed_order() {
        assert_eq!(
            line(Format::Json, QueryLog::Omitted, "edge-1", &full()),
            concat!(
                r#"{"ts":"2026-02-25T06:13:20.123456Z","request_id":"019c9d2e-5f6b-7abc-8def-0123456789ab","#,
                r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","#,
                r#""client_ip":"192.0.2.7","client_port":51234,"method":"GET","scheme":"https","#,
                r#""host":"api.example.com","path":"/users/7","protocol":"HTTP/2","status":200,"#,
                r#""status_source":"upstream","notes":["retried_on_fresh_connection","spliced"],"bytes_in":0,"#,
                r#""bytes_out":1024,"duration_ms":{"total":12.345,"gateway":0.345,"request_body":0.020,"connect":0.800,"#,
                r#""upstream_first_byte":9.000,"upstream_total":12.000},"listener":"web","route":"default/users","#,
                r#""rule":"/users/*","backend":"default/users","endpoint":"10.0.0.3:9001","upstream_status":200,"#,
                r#""policy_decision":"readers","principal":"ann@example.com","consumer":"default/acme","shadow_refusals":"rateLimit","tries":3,"retries":["backend_reset","grpc_14"],"tls":{"version":"1.3","cipher":"TLS_AES_128_GCM_SHA256","sni":"api.example.com","#,
                r#""client_subject":"CN=me"},"user_agent":"curl/8.5.0","referer":"https://example.com/start","#,
                r#""node":"edge-1","config_revision":42}"#,
            )
        );
    }

    #[test]
    fn json_leaves_out_what_is_not_known() {
        assert_eq!(
            line(Format::Json, QueryLog::Redacted, "", &Record::default()),
            concat!(
                r#"{"ts":"1970-01-01T00:00:00.000000Z","scheme":"http","path":"","protocol":"HTTP/1.1","status":0,"#,
                r#""status_source":"gateway","bytes_in":0,"bytes_out":0,"duration_ms":{"total":0.000},"config_revision":0}"#,
            )
        );
    }

    #[test]
    fn hostile_bytes_stay_inside_their_json_string() {
        let text = line(Format::Json, QueryLog::Redacted, "", &hostile());
        assert_eq!(
            text,
            concat!(
                r#"{"ts":"1970-01-01T00:00:00.000000Z","request_id":"\"},{\"","client_ip":"2001:db8::1","method":"GE\"T","#,
                r#""scheme":"http","host":"a\nb","path":"/\u0000\u001b[31m\"\\\r\n{\"status\":200}","#,
                r#""query":"a=\ufffd\ufffd&token=[redacted]&b=\u202e","protocol":"HTTP/1.1","status":400,"#,
                r#""status_source":"gateway","failure_code":"malformed_request","failure_side":"client","bytes_in":0,"#,
                r#""bytes_out":0,"duration_ms":{"total":0.000},"user_agent":"\ufffd( \u007f\t","#,
                r#""referer":"\" onload=\"x\ny?key=[redacted]","config_revision":0}"#,
            )
        );
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["status"], 400);
        assert_eq!(parsed["path"], "/\0\u{1b}[31m\"\\\r\n{\"status\":200}");
    }

    #[test]
    fn combined_is_what_ncsa_tools_read() {
        assert_eq!(
            line(Format::Combined, QueryLog::Redacted, "", &full()),
            concat!(
                r#"192.0.2.7 - - [25/Feb/2026:06:13:20 +0000] "GET /users/7?page=2&access_token=[redacted] HTTP/2" "#,
                r#"200 1024 "https://example.com/start?code=[redacted]" "curl/8.5.0""#,
            )
        );
        assert_eq!(
            line(Format::Combined, QueryLog::Omitted, "", &hostile()),
            concat!(
                r#"2001:db8::1 - - [01/Jan/1970:00:00:00 +0000] "GE\x22T /\x00\x1b[31m\x22\x5c\x0d\x0a{\x22status\x22:200} HTTP/1.1" "#,
                r#"400 0 "\x22 onload=\x22x\x0ay" "\xc3( \x7f\x09""#,
            )
        );
        assert_eq!(
            line(Format::Combined, QueryLog::Omitted, "", &Record::default()),
            r#"- - - [01/Jan/1970:00:00:00 +0000] "  HTTP/1.1" 0 0 "-" "-""#
        );
    }

    #[test]
    fn a_template_writes_its_fields() {
        let template =
            "{{{client_ip}}} {method} {path}?{query} {status} {duration_ms}/{duration_ms.connect} {tls.sni}";
        let format = Format::Template(Template::parse(template).unwrap());
        assert_eq!(
            line(format.clone(), QueryLog::Omitted, "", &full()),
            "{192.0.2.7} GET /users/7?- 200 12.345/0.800 api.example.com"
        );
        assert_eq!(
            line(format, QueryLog::Redacted, "", &hostile()),
            concat!(
                r"{2001:db8::1} GE\x22T /\x00\x1b[31m\x22\x5c\x0d\x0a{\x22status\x22:200}?",
                r"a=\xff\xfe&token=[redacted]&b=\xe2\x80\xae 400 0.000/- -",
            )
        );
    }

    #[test]
    fn every_field_can_stand_in_a_template() {
        let template: String = Template::field_names().map(|name| format!("{{{name}}} ")).collect();
        let format = Format::Template(Template::parse(&template).unwrap());
        for record in [full(), hostile(), Record::default()] {
            let text = line(format.clone(), QueryLog::Redacted, "", &record);
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_template_with_a_mistake_is_refused() {
        let cases = [
            ("{client_ip} {hots}", TemplateError::UnknownField("hots".into())),
            ("{client_ip", TemplateError::Unclosed),
            ("client_ip}", TemplateError::Unopened),
            ("{status}\n", TemplateError::ControlCharacter),
        ];
        for (template, error) in cases {
            assert_eq!(Template::parse(template), Err(error));
        }
    }

    #[test]
    fn members_of_baggage_are_told_by_their_keys() {
        let baggage = [Member { key: "tenant", value: b"acme \"1\"".into() }];
        let record = Record { baggage: &baggage, ..Record::default() };
        let mut json = Vec::new();
        Formatter::new(Format::Json, QueryLog::Omitted, "").write(&mut json, &record);
        let line: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(line["baggage"]["tenant"], "acme \"1\"");
    }
}
