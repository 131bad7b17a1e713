//! Everything known about one finished exchange, borrowed from whoever knows it.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rhumb_base::failure::Cause;

use crate::id::TraceContext;

/// One finished exchange: a request and what became of it.
///
/// Bytes that a peer chose are `&[u8]` and may hold anything; names that come from configuration are `&str`. An empty
/// slice or string means "not known" and is left out of the log. Build it with `Record { …, ..Record::default() }`.
#[derive(Clone, Debug, Default)]
pub struct Record<'a> {
    /// When the first byte of the request arrived. Unit: nanoseconds since the Unix epoch, UTC.
    pub start_unix_nanos: u64,
    /// Where the time went.
    pub timing: Timing,
    /// Address of the client, after trusted forwarding fields and the PROXY protocol. Port 0: not known.
    pub client: Option<SocketAddr>,
    /// Method as received (RFC 9110 §9.1: case-sensitive).
    pub method: &'a [u8],
    /// Scheme of the target URI.
    pub scheme: Scheme,
    /// Authority of the target URI (RFC 9110 §7.1). User information in it is never logged.
    pub authority: &'a [u8],
    /// Path as the client sent it, without query.
    pub path: &'a [u8],
    /// Query as the client sent it, without `?`. `None`: the target had no `?`.
    pub query: Option<&'a [u8]>,
    /// Protocol spoken with the client.
    pub protocol: Protocol,
    /// Upgrade token (`websocket`) or extended CONNECT `:protocol` (RFC 8441), if the exchange became a tunnel.
    pub upgrade: &'a [u8],
    /// Status sent to the client, or 499 when the client left before one was sent.
    pub status: u16,
    /// Who chose the status.
    pub status_source: StatusSource,
    /// Machine code of the failure, if there was one; see [`Record::fail`].
    pub failure_code: Option<&'static str>,
    /// Who failed: `client`, `gateway` or `backend`.
    pub failure_side: Option<&'static str>,
    /// Odd branches that the exchange took.
    pub notes: NoteSet,
    /// Content received from the client. Unit: bytes, without framing.
    pub bytes_in: u64,
    /// Content sent to the client. Unit: bytes, without framing.
    pub bytes_out: u64,
    /// Name of the listener that accepted the connection.
    pub listener: &'a str,
    /// Label of the route (`namespace/name`).
    pub route: &'a str,
    /// Template of the matched rule (`/users/*`), never the path of the request.
    pub rule: &'a str,
    /// Label of the backend.
    pub backend: &'a str,
    /// Address of the endpoint that was used last.
    pub endpoint: &'a str,
    /// Status that the endpoint sent, if one arrived.
    pub upstream_status: Option<u16>,
    /// `grpc-status` of a gRPC exchange, if one was seen.
    pub grpc_status: Option<u32>,
    /// The rule of an authorization policy that decided; empty when none had to.
    pub policy_decision: &'a str,
    /// Who asked, as authentication found; empty when nobody did.
    pub principal: &'a str,
    /// Name of the consumer that asked; empty when it is none that is registered.
    pub consumer: &'a str,
    /// Policies in shadow mode that would have refused the request, separated by commas.
    pub shadow: &'a str,
    /// How many endpoints were tried, retries included. 0: answered without a backend.
    pub tries: u16,
    /// Why it was tried again, in order; what came after the first [`RETRY_REASONS_MAX`] is only counted in `tries`.
    pub retries: &'a [RetryReason],
    /// Request id as sent upstream and to the client.
    pub request_id: &'a [u8],
    /// Trace id, and our own span id as `parent_id`, as sent upstream.
    pub trace: Option<TraceContext>,
    /// Members of the request's baggage that are told, as the configuration chooses.
    pub baggage: &'a [Member<'a>],
    /// Spans of it go to a collector.
    pub is_traced: bool,
    /// TLS towards the client, if any.
    pub tls: Option<TlsRecord<'a>>,
    /// `User-Agent` field value.
    pub user_agent: &'a [u8],
    /// `Referer` field value. User information, query and fragment in it are treated like those of the target.
    pub referer: &'a [u8],
    /// Why a connection that was carried as it is ended: `closed`, `reset_by_client`, `idle_timeout` … Empty for requests.
    pub end: &'static str,
    /// Revision of the configuration that served the exchange.
    pub config_revision: u64,
}

impl Record<'_> {
    /// Writes down why the exchange failed, and who did.
    pub fn fail(&mut self, cause: Cause) {
        let facts = cause.facts();
        self.failure_code = Some(facts.code);
        self.failure_side = Some(facts.side.as_str());
    }

    /// Whether somebody failed, or the status says so.
    pub fn is_error(&self) -> bool {
        self.failure_code.is_some() || self.status >= 500
    }
}

/// A member of baggage (W3C Baggage), without its properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its key, out of the configuration.
    pub key: &'a str,
    /// Its value, as the caller wrote it but for percent-encoding.
    pub value: Cow<'a, [u8]>,
}

/// Reasons of retries that one record holds at most.
pub const RETRY_REASONS_MAX: usize = 16;

/// Why an exchange was tried again. Shown as a cause's machine code, as a status, or as `grpc_14`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryReason {
    /// An attempt failed.
    Failure(Cause),
    /// It was answered with this status.
    Status(u16),
    /// It was answered with this gRPC status.
    Grpc(u32),
}

impl fmt::Display for RetryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failure(cause) => f.write_str(cause.facts().code),
            Self::Status(status) => write!(f, "{status}"),
            Self::Grpc(status) => write!(f, "grpc_{status}"),
        }
    }
}

/// Where the time of an exchange went. `None`: that step did not happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// First byte of the request to last byte of the response.
    pub total: Duration,
    /// First byte of the request to the end of its content.
    pub request_body: Option<Duration>,
    /// Making a new upstream connection, TLS included. `None`: a pooled one was used.
    pub connect: Option<Duration>,
    /// Request sent upstream to first byte of the response head.
    pub upstream_first_byte: Option<Duration>,
    /// First attempt to the last byte from the endpoint.
    pub upstream_total: Option<Duration>,
}

/// TLS parameters of the client's connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsRecord<'a> {
    /// Protocol version, `1.2` or `1.3`.
    pub version: &'a str,
    /// Cipher suite by its IANA name.
    pub cipher: &'a str,
    /// Server name that the client asked for (RFC 6066 §3).
    pub sni: &'a [u8],
    /// Subject of the verified client certificate (RFC 4514 text).
    pub client_subject: &'a [u8],
}

/// Scheme of the target URI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Scheme {
    /// `http`.
    #[default]
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// The scheme as written in a URI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Protocol spoken with the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
    /// A TCP connection that was carried as it is.
    Tcp,
    /// A TLS connection that was carried without being decrypted.
    Tls,
    /// Datagrams of one client.
    Udp,
}

impl Protocol {
    /// The protocol as written in a request line (`HTTP/1.1`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Udp => "UDP",
        }
    }

    /// True for what is carried without looking at requests: such a record has neither method, path nor status.
    pub const fn is_l4(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls | Self::Udp)
    }

    /// The version alone, as OpenTelemetry's `network.protocol.version` wants it (`1.1`).
    pub const fn version(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
            Self::Http3 => "3",
            Self::Tcp | Self::Tls | Self::Udp => "",
        }
    }
}

/// Who chose the status of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum StatusSource {
    /// Rhumb answered by itself.
    #[default]
    Gateway,
    /// An endpoint answered.
    Upstream,
}

impl StatusSource {
    /// The word in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Upstream => "upstream",
        }
    }
}

/// An odd branch that an exchange took. Each is shown in the log and counted in `rhumb_notes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Note {
    /// A peer closed its connection before its message was complete.
    PeerClosedEarly,
    /// The client left before the response was complete.
    ClientGone,
    /// The client reset its stream (RFC 9113 §6.4).
    ClientReset,
    /// The endpoint reset the stream.
    UpstreamReset,
    /// The endpoint announced that it goes away (GOAWAY, or `Connection: close` in the middle of a pipeline).
    UpstreamGoaway,
    /// A reused connection died before any byte of an answer; the request went out again on a fresh one.
    RetriedOnFreshConnection,
    /// The request went to another endpoint after a failure.
    RetriedOnOtherEndpoint,
    /// A retry was wanted, but the budget was spent.
    RetryBudgetSpent,
    /// Content was larger than allowed.
    BodyTooLarge,
    /// A head was larger than allowed.
    HeadTooLarge,
    /// The endpoint could not be reached in time.
    ConnectTimeout,
    /// The client was too slow to send its request.
    RequestTimeout,
    /// The endpoint took too long to answer.
    UpstreamTimeout,
    /// Nothing moved for too long.
    IdleTimeout,
    /// The endpoint answered before the request was complete.
    EarlyResponse,
    /// The client waited for `100 (Continue)` (RFC 9110 §10.1.1).
    ExpectContinue,
    /// The exchange became a tunnel.
    Upgraded,
    /// Content went from socket to socket inside the kernel.
    Spliced,
    /// One side was made to wait for the other.
    BackPressure,
    /// The path was rewritten to its normal form before matching.
    PathNormalized,
    /// Forwarding fields of an untrusted client were removed.
    ForwardedStripped,
    /// The connection was closed because the proxy drains.
    Draining,
    /// No endpoint was healthy, so one was chosen among all.
    AllUnhealthy,
    /// A message broke the rules of its protocol.
    ProtocolError,
    /// A retry was wanted, but not all of the request's content was kept.
    ReplayTooLarge,
    /// The endpoint of a session is gone or must not be used: the session goes on at another one.
    SessionMoved,
    /// A `fault` policy made the request wait.
    FaultDelay,
    /// A `fault` policy answered instead of the backend.
    FaultAbort,
    /// A `fault` policy reset the stream or connection.
    FaultReset,
    /// A `fault` policy slowed the response down.
    FaultBandwidth,
}

impl Note {
    /// Every note, in bit order.
    pub const ALL: [Self; 30] = [
        Self::PeerClosedEarly,
        Self::ClientGone,
        Self::ClientReset,
        Self::UpstreamReset,
        Self::UpstreamGoaway,
        Self::RetriedOnFreshConnection,
        Self::RetriedOnOtherEndpoint,
        Self::RetryBudgetSpent,
        Self::BodyTooLarge,
        Self::HeadTooLarge,
        Self::ConnectTimeout,
        Self::RequestTimeout,
        Self::UpstreamTimeout,
        Self::IdleTimeout,
        Self::EarlyResponse,
        Self::ExpectContinue,
        Self::Upgraded,
        Self::Spliced,
        Self::BackPressure,
        Self::PathNormalized,
        Self::ForwardedStripped,
        Self::Draining,
        Self::AllUnhealthy,
        Self::ProtocolError,
        Self::ReplayTooLarge,
        Self::SessionMoved,
        Self::FaultDelay,
        Self::FaultAbort,
        Self::FaultReset,
        Self::FaultBandwidth,
    ];

    /// The word in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeerClosedEarly => "peer_closed_early",
            Self::ClientGone => "client_gone",
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamGoaway => "upstream_goaway",
            Self::RetriedOnFreshConnection => "retried_on_fresh_connection",
            Self::RetriedOnOtherEndpoint => "retried_on_other_endpoint",
            Self::RetryBudgetSpent => "retry_budget_spent",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadTooLarge => "head_too_large",
            Self::ConnectTimeout => "connect_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::EarlyResponse => "early_response",
            Self::ExpectContinue => "expect_continue",
            Self::Upgraded => "upgraded",
            Self::Spliced => "spliced",
            Self::BackPressure => "back_pressure",
            Self::PathNormalized => "path_normalized",
            Self::ForwardedStripped => "forwarded_stripped",
            Self::Draining => "draining",
            Self::AllUnhealthy => "all_unhealthy",
            Self::ProtocolError => "protocol_error",
            Self::ReplayTooLarge => "replay_too_large",
            Self::SessionMoved => "session_moved",
            Self::FaultDelay => "fault_delay",
            Self::FaultAbort => "fault_abort",
            Self::FaultReset => "fault_reset",
            Self::FaultBandwidth => "fault_bandwidth",
        }
    }
}

/// A set of notes, 8 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoteSet(u64);

impl NoteSet {
    /// No note.
    pub const EMPTY: Self = Self(0);

    /// Adds a note; adding it again changes nothing.
    pub const fn insert(&mut self, note: Note) {
        self.0 |= 1 << note as u8;
    }

    /// This set with one more note.
    #[must_use]
    pub const fn with(mut self, note: Note) -> Self {
        self.insert(note);
        self
    }

    /// Whether the note is in the set.
    pub const fn contains(self, note: Note) -> bool {
        self.0 & (1 << note as u8) != 0
    }

    /// Whether there is no note.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The notes in bit order.
    pub fn iter(self) -> impl Iterator<Item = Note> {
        Note::ALL.into_iter().filter(move |note| self.contains(*note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_has_its_own_bit_and_name() {
        let mut names = std::collections::BTreeSet::new();
        for (bit, note) in Note::ALL.into_iter().enumerate() {
            assert_eq!(note as usize, bit);
            assert!(names.insert(note.name()));
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = NoteSet::EMPTY.with(Note::Spliced).with(Note::ClientGone).with(Note::Spliced);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Note::ClientGone, Note::Spliced]);
        assert!(set.contains(Note::Spliced) && !set.contains(Note::Upgraded));
        assert!(!set.is_empty() && NoteSet::EMPTY.is_empty());
    }

    #[test]
    fn a_failure_says_who_failed() {
        let mut record = Record::default();
        assert!(!record.is_error());
        record.fail(Cause::ConnectRefused);
        assert_eq!((record.failure_code, record.failure_side), (Some("connect_refused"), Some("backend")));
        assert!(record.is_error());
    }

    #[test]
    fn the_record_stays_small() {
        // It is filled once per exchange on the stack.
        assert!(size_of::<Record<'_>>() <= 640, "{}", size_of::<Record<'_>>());
    }
}
