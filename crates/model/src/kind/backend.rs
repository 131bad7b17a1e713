//! Backend: where requests go.

use super::health::{CheckType, HealthCheck, OutlierDetection};
use super::refs::{LocalRef, check_unique};
use crate::decode::{Complaint, Decode, Decoder, Defs, List, Whole, choice, object};
use crate::diag::Rule;
use crate::scalar::{Duration, FieldName, HostPort, PreciseHostname, parse_dns_name};
use crate::span::{Span, Spanned};
use crate::value::{Node, Value};
use serde_json::json;

object! {
    /// A set of endpoints that serve the same, and how to talk to them.
    pub struct Backend as "the spec of a Backend" {
        /// Fixed endpoints. Either these or `dns`.
        "endpoints" endpoints: List<Endpoint, 0, 10000>,
        /// A DNS name whose addresses are the endpoints, asked for again when its TTL ends. With port, except for SRV.
        "dns" dns: Option<Spanned<Box<str>>>,
        /// A: addresses (A and AAAA records; default). SRV: hosts, ports and weights.
        "dnsType" dns_type: Spanned<DnsType>,
        /// What the endpoints speak. Default: http/1.
        "protocol" protocol: Spanned<BackendProtocol>,
        /// Encrypt, and check who answers. Default: not encrypted.
        "tls" tls: Option<BackendTls>,
        /// Tell endpoints the client's address in a PROXY protocol header, version `v1` or `v2`, at the beginning of each
        /// connection. Connections are then not kept for other clients. Default: not told.
        "proxyProtocol" proxy_protocol: Option<Spanned<ProxyProtocolVersion>>,
        /// How one endpoint is chosen for each request.
        "loadBalancing" load_balancing: Option<LoadBalancing>,
        /// Ask endpoints whether they are well; those that are not get no requests. Default: they are not asked.
        "health" health: Option<HealthCheck>,
        /// Which endpoints are put out for failing requests, and how they come back. On by default.
        "outlierDetection" outlier_detection: Option<OutlierDetection>,
        /// How long the share of an endpoint that comes new to others grows, from a tenth to all of it. Default: 0s: it
        /// gets all of it at once.
        "slowStart" slow_start: Option<Spanned<Duration>>,
        /// When less than this much of all weight can be used, in percent, all endpoints are used: the few would be
        /// overrun. 0: never. Default: 20.
        "panicThreshold" panic_threshold: Option<Spanned<Whole<0, 100>>>,
        /// How long a connection may take to be made, TLS included. Default: 5s.
        "connectTimeout" connect_timeout: Option<Spanned<Duration>>,
        /// How long an unused connection is kept for the next request. Default: 60s. Zero: not at all.
        "idleTimeout" idle_timeout: Option<Spanned<Duration>>,
        /// Connections at a time, over all endpoints and workers. Default: no limit.
        "maxConnections" max_connections: Option<Spanned<Whole<1, 1000000>>>,
        /// Requests that wait for a connection when there are so many, over all workers; more are answered with 503, and so
        /// is who waits longer than `connectTimeout`. Default: 1024.
        "maxPendingRequests" max_pending_requests: Option<Spanned<Whole<0, 1000000>>>,
        /// Requests at a time, over all endpoints and workers; more are answered with 503. Default: no limit.
        "maxRequests" max_requests: Option<Spanned<Whole<1, 10000000>>>,
    }
    check Backend::check;
}

impl Backend {
    /// The name and port of `dns`; the port of SRV records is 0.
    pub fn dns_target(&self) -> Option<(Box<str>, u16)> {
        let text = self.dns.as_ref()?;
        if *self.dns_type == DnsType::Srv {
            return Some((text.value.clone(), 0));
        }
        let target = HostPort::parse(text).ok()?;
        Some((target.host().into(), target.port().get()))
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        match (&self.dns, self.endpoints.first()) {
            (Some(dns), Some(first)) => {
                let diag = cx
                    .error(Rule::Conflict, dns.span, "both `endpoints` and `dns`")
                    .why("a backend has fixed endpoints or those of a DNS name")
                    .fix("remove one, or make two backends with weights")
                    .related(cx.origin(first.address.span), "endpoints");
                cx.push(diag);
            }
            (None, None) if !self.broken => {
                let diag = cx
                    .error(Rule::MissingField, self.span, "the backend has no endpoints")
                    .why("without one every request would be answered with 503")
                    .fix("add `endpoints: [\"HOST:PORT\"]`, or `dns: NAME:PORT`");
                cx.push(diag);
            }
            _ => {}
        }
        check_unique(
            &self.endpoints,
            "endpoint",
            |endpoint| {
                ((endpoint.address.host(), endpoint.address.port()), endpoint.shown(), endpoint.address.span)
            },
            cx,
        );
        self.check_dns(cx);
        self.check_limits(cx);
        if let Some(written) = &self.proxy_protocol
            && *self.protocol != BackendProtocol::Http1
        {
            let diag = cx
                .error(
                    Rule::Conflict,
                    written.span,
                    format!("`proxyProtocol` with protocol `{}`", self.protocol.word()),
                )
                .why("one HTTP/2 connection carries the requests of many clients, and the header names one")
                .fix("write `protocol: http/1`, or remove `proxyProtocol`")
                .related(cx.origin(self.protocol.span), "protocol");
            cx.push(diag);
        }
        match (*self.protocol, &self.tls) {
            (BackendProtocol::H2, None) => {
                let diag = cx
                    .error(Rule::MissingField, self.protocol.span, "field `tls` is missing")
                    .label("`h2` is HTTP/2 over TLS")
                    .fix("add `tls: {}`, or write `protocol: h2c` for HTTP/2 without encryption");
                cx.push(diag);
            }
            (BackendProtocol::H2c, Some(tls)) => {
                let diag = cx
                    .error(Rule::Conflict, tls.span, "`tls` with protocol `h2c`")
                    .why("`h2c` is HTTP/2 without encryption (RFC 9113 §3.3)")
                    .fix("write `protocol: h2`")
                    .related(cx.origin(self.protocol.span), "protocol");
                cx.push(diag);
            }
            _ => {}
        }
    }

    fn check_limits(&self, cx: &mut Decoder<'_>) {
        if let Some(health) = &self.health
            && *health.kind == CheckType::Grpc
            && *self.protocol == BackendProtocol::Http1
        {
            let diag = cx
                .error(
                    Rule::Conflict,
                    health.kind.span,
                    "a health check by gRPC of a backend that speaks `http/1`",
                )
                .why("gRPC needs HTTP/2")
                .fix("write `protocol: h2c` or `h2`, or check by `type: http`")
                .related(cx.origin(self.protocol.span), "protocol");
            cx.push(diag);
        }
        if let (Some(pending), None) = (&self.max_pending_requests, &self.max_connections) {
            let diag = cx
                .error(Rule::Conflict, pending.span, "`maxPendingRequests` without `maxConnections`")
                .why("requests wait only where the number of connections is limited")
                .fix("add `maxConnections`");
            cx.push(diag);
        }
    }

    fn check_dns(&self, cx: &mut Decoder<'_>) {
        let Some(dns) = &self.dns else {
            if *self.dns_type == DnsType::Srv {
                let diag = cx.error(Rule::Conflict, self.dns_type.span, "`dnsType` without `dns`");
                cx.push(diag);
            }
            return;
        };
        let outcome =
            match *self.dns_type {
                DnsType::Srv => parse_dns_name(dns).map(|_| ()),
                DnsType::A => {
                    HostPort::parse(dns).and_then(|target| match target.host().parse::<std::net::IpAddr>() {
                        Ok(_) => Err(Complaint::new("this is an address, not a name")
                            .fix("write it under `endpoints`")),
                        Err(_) => Ok(()),
                    })
                }
            };
        if let Err(complaint) = outcome {
            let mut diag =
                cx.error(Rule::BadValue, dns.span, format!("`{dns}` is not a DNS name")).why(complaint.why);
            diag.fix = complaint.fix;
            cx.push(diag);
        }
    }
}

/// One address. Written as `host:port`, or with weight and zone.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host and port.
    pub address: Spanned<HostPort>,
    /// Share of the requests, relative to the other endpoints. Default: 1.
    pub weight: Spanned<Whole<1, 1000>>,
    /// Where it is. Endpoints of our own zone are asked first.
    pub zone: Option<Spanned<Box<str>>>,
    /// Its level. Endpoints of a higher one are for when those of the lower ones are not enough. Default: 0.
    pub priority: Option<Spanned<Whole<0, 15>>>,
}

object! {
    /// One address with its weight and zone.
    pub struct EndpointFields as "an endpoint" {
        /// Host and port.
        "address" address: Spanned<HostPort>,
        /// Share of the requests, relative to the other endpoints. Default: 1.
        "weight" weight: Spanned<Whole<1, 1000>> = default_weight,
        /// Where it is. Endpoints of our own zone (`zone` of the ProxyConfig) are asked first.
        "zone" zone: Option<Spanned<Box<str>>>,
        /// Its level. Endpoints of a higher one are for when those of the lower ones are not enough. Default: 0.
        "priority" priority: Option<Spanned<Whole<0, 15>>>,
    }
}

fn default_weight(span: Span) -> Spanned<Whole<1, 1000>> {
    Spanned::new(Whole::literal(1), span)
}

impl Endpoint {
    /// The address as it is written.
    pub fn shown(&self) -> String {
        let host = self.address.host();
        if host.contains(':') {
            format!("[{host}]:{}", self.address.port())
        } else {
            format!("{host}:{}", self.address.port())
        }
    }
}

impl Decode for Endpoint {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            let fields = EndpointFields::decode(node, cx)?;
            return Some(Self {
                address: fields.address,
                weight: fields.weight,
                zone: fields.zone,
                priority: fields.priority,
            });
        }
        let address = Spanned::<HostPort>::decode(node, cx)?;
        Some(Self { weight: default_weight(address.span), address, zone: None, priority: None })
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [HostPort::schema(defs), EndpointFields::schema(defs)] })
    }
}

choice! {
    /// A version of the PROXY protocol.
    pub enum ProxyProtocolVersion as "version of the PROXY protocol" {
        /// A line of text.
        V1 = "v1",
        /// Binary.
        V2 = "v2",
    }
}

choice! {
    /// Which DNS records are asked for.
    pub enum DnsType as "DNS type" {
        /// Addresses: A and AAAA.
        A = "A",
        /// Hosts, ports and weights (RFC 2782).
        Srv = "SRV",
    }
    default A;
}

choice! {
    /// What endpoints speak.
    pub enum BackendProtocol as "protocol" {
        /// HTTP/1.1.
        Http1 = "http/1",
        /// HTTP/2 without encryption, with prior knowledge.
        H2c = "h2c",
        /// HTTP/2 over TLS.
        H2 = "h2",
    }
    default Http1;
}

object! {
    /// TLS towards endpoints.
    pub struct BackendTls as "the tls of a backend" {
        /// The name that is asked for (SNI) and must be in the certificate. Default: the endpoint's host name.
        "serverName" server_name: Option<Spanned<PreciseHostname>>,
        /// Who may have signed the certificate: PEM text (`file:ca.pem`), or a ConfigMap or Secret with `ca.crt`.
        /// Default: the CAs that the system trusts.
        "ca" ca: Option<Spanned<CaSource>>,
        /// Our certificate: PEM text of `cert` and `key`, or a Secret of type kubernetes.io/tls. Default: none.
        "clientCertificate" client_certificate: Option<Spanned<CertificateSource>>,
        /// Take any certificate. Whoever is on the way can then read and change everything. Default: no.
        "insecureSkipVerify" insecure_skip_verify: Option<Spanned<bool>>,
        /// Names of which one must be in the certificate, instead of `serverName`: hostnames, or URIs such as SPIFFE IDs.
        "subjectAltNames" subject_alt_names: List<Spanned<Box<str>>, 0, 16>,
        /// The lowest TLS version. Default: 1.2.
        "minVersion" min_version: Option<Spanned<TlsVersion>>,
    }
    check BackendTls::check;
}

impl BackendTls {
    fn check(&self, cx: &mut Decoder<'_>) {
        let Some(skip) = self.insecure_skip_verify.as_ref().filter(|skip| skip.value) else { return };
        let others = [
            ("ca", self.ca.as_ref().map(|ca| ca.span)),
            ("subjectAltNames", self.subject_alt_names.first().map(|name| name.span)),
        ];
        for (name, span) in others {
            let Some(span) = span else { continue };
            let diag = cx
                .error(Rule::Conflict, span, format!("`{name}` with `insecureSkipVerify: true`"))
                .why("nothing is verified, so this would have no effect")
                .fix("remove `insecureSkipVerify`")
                .related(cx.origin(skip.span), "skips every check");
            cx.push(diag);
        }
    }
}

choice! {
    /// A version of TLS.
    pub enum TlsVersion as "TLS version" {
        /// RFC 5246.
        Tls12 = "1.2",
        /// RFC 8446.
        Tls13 = "1.3",
    }
}

/// Where CA certificates come from.
#[derive(Clone, Debug)]
pub enum CaSource {
    /// PEM text.
    Pem(Box<str>),
    /// A ConfigMap or Secret in the namespace of the document.
    Object(LocalRef),
}

impl Decode for CaSource {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::String(text) => is_pem(node, text, "CA certificates", cx).then(|| Self::Pem(text.clone())),
            _ => LocalRef::decode(node, cx).map(Self::Object),
        }
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [{ "type": "string" }, LocalRef::schema(defs)] })
    }
}

/// Where a certificate and its key come from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// PEM text of the chain and of the key.
    Pem(PemPair),
    /// A Secret of type kubernetes.io/tls in the namespace of the document.
    Object(LocalRef),
}

object! {
    /// A certificate chain and its private key as PEM text.
    pub struct PemPair as "a certificate" {
        /// The chain: `file:cert.pem`.
        "cert" cert: Spanned<super::secret::SecretText>,
        /// The key: `file:key.pem`.
        "key" key: Spanned<super::secret::SecretText>,
    }
}

impl Decode for CertificateSource {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if node.get("cert").is_some() || node.get("key").is_some() {
            let pair = PemPair::decode(node, cx)?;
            let certificate =
                node.get("cert").is_some_and(|n| is_pem(n, &pair.cert.value.0, "a certificate", cx));
            let key = node
                .get("key")
                .is_some_and(|n| cx.secretly(|cx| is_pem(n, &pair.key.value.0, "a private key", cx)));
            return (certificate && key).then_some(Self::Pem(pair));
        }
        LocalRef::decode(node, cx).map(Self::Object)
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [PemPair::schema(defs), LocalRef::schema(defs)] })
    }
}

/// True for PEM text (RFC 7468). A path without `file:` is the usual mistake.
fn is_pem(node: &Node, text: &str, what: &str, cx: &mut Decoder<'_>) -> bool {
    if text.contains("-----BEGIN ") {
        return true;
    }
    let mut diag = cx
        .error(Rule::BadValue, node.span, format!("this is not {what} in PEM"))
        .why("PEM text has a line `-----BEGIN …-----` (RFC 7468)");
    if node.raw.is_none() && text.lines().count() == 1 {
        diag = diag.fix("for the content of a file write `file:PATH`");
    }
    cx.push(diag);
    false
}

object! {
    /// How one endpoint is chosen for each request.
    pub struct LoadBalancing as "loadBalancing" {
        /// Default: leastBusy.
        "algorithm" algorithm: Spanned<Algorithm>,
        /// What ringHash and maglev tell requests apart by: `sourceIp`, `path`, `{header: NAME}` or `{cookie: NAME}`.
        "hashOn" hash_on: Option<Spanned<HashOn>>,
        /// Ask endpoints of our own zone (`zone` of the ProxyConfig) as long as they can carry it. Default: yes.
        "preferSameZone" prefer_same_zone: Option<Spanned<bool>>,
    }
    check LoadBalancing::check;
}

impl LoadBalancing {
    fn check(&self, cx: &mut Decoder<'_>) {
        let hashes = matches!(*self.algorithm, Algorithm::RingHash | Algorithm::Maglev);
        match &self.hash_on {
            None if hashes && !self.broken => {
                let diag = cx
                    .error(Rule::MissingField, self.algorithm.span, "field `hashOn` is missing")
                    .label(format!("`{}` needs `hashOn`", self.algorithm.word()))
                    .fix("add `hashOn: sourceIp`, `hashOn: {header: NAME}` or `hashOn: {cookie: NAME}`");
                cx.push(diag);
            }
            Some(hash_on) if !hashes => {
                let diag = cx
                    .error(Rule::Conflict, hash_on.span, format!("`hashOn` with `{}`", self.algorithm.word()))
                    .why("this algorithm does not look at requests")
                    .fix("write `algorithm: maglev` or `ringHash`, or remove `hashOn`");
                cx.push(diag);
            }
            _ => {}
        }
    }
}

choice! {
    /// How one endpoint is chosen.
    pub enum Algorithm as "algorithm" {
        /// The less busy of two chosen at random: requests in flight times latency (peak EWMA).
        LeastBusy = "leastBusy",
        /// One after the other.
        RoundRobin = "roundRobin",
        /// At random.
        Random = "random",
        /// Requests that hash alike go to the same endpoint; a ring, so that few move when endpoints change.
        RingHash = "ringHash",
        /// As ringHash, with a table: more even, faster.
        Maglev = "maglev",
    }
    default LeastBusy;
}

/// What requests are told apart by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HashOn {
    /// The address of the client.
    SourceIp,
    /// The path.
    Path,
    /// The value of a field.
    Header(FieldName),
    /// The value of a cookie.
    Cookie(Box<str>),
}

object! {
    /// What requests are told apart by.
    pub struct HashFields as "hashOn" {
        /// The name of a field.
        "header" header: Option<Spanned<FieldName>>,
        /// The name of a cookie.
        "cookie" cookie: Option<Spanned<Box<str>>>,
    }
}

choice! {
    /// What requests are told apart by.
    pub enum HashWord as "value of `hashOn`" {
        /// The address of the client.
        SourceIp = "sourceIp",
        /// The path.
        Path = "path",
    }
}

impl Decode for HashOn {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            return HashWord::decode(node, cx).map(|word| match word {
                HashWord::SourceIp => Self::SourceIp,
                HashWord::Path => Self::Path,
            });
        }
        let before = cx.errors();
        let fields = HashFields::decode(node, cx)?;
        match (fields.header, fields.cookie) {
            (Some(header), None) => Some(Self::Header(header.value)),
            (None, Some(cookie)) => Some(Self::Cookie(cookie.value)),
            _ if cx.errors() > before => None,
            _ => {
                let diag = cx
                    .error(Rule::Conflict, node.span, "`hashOn` takes either `header` or `cookie`")
                    .fix("write one of `{header: NAME}` and `{cookie: NAME}`");
                cx.push(diag);
                None
            }
        }
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [HashWord::schema(defs), HashFields::schema(defs)] })
    }
}
