//! Mesh and Sidecar: what holds for all proxies of the mesh, and what one of them does.

use super::refs::{check_unique, literal};
use super::secret::SecretText;
use super::service::{AppProtocol, TUNNEL_PORT, parse_service_name};
use crate::decode::{Complaint, Decode, Decoder, Defs, List, Whole, choice, decode_text, object};
use crate::diag::{Diag, Rule};
use crate::scalar::{
    Cidr, Duration, HostPort, Hostname, IpAddress, Name, Namespace, Port, PreciseHostname, SocketAddress,
};
use crate::span::{Span, Spanned};
use crate::value::Node;
use serde_json::json;

/// The trust domain when none is written.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

object! {
    /// What holds for the whole mesh. There is one.
    pub struct Mesh as "the spec of a Mesh" {
        /// The trust domain: the first part of every identity. Default: cluster.local.
        "trustDomain" trust_domain: Spanned<PreciseHostname> = trust_domain,
        /// `strict` (default): plain text from other workloads is refused. `permissive`: it is taken and listed.
        "mtls" mtls: Spanned<MeshMtls>,
        /// What happens to connections that lead out of the mesh: `allow` (default) or `deny`.
        "egress" egress: Spanned<Egress>,
        /// Names, addresses and blocks of addresses outside that connections may lead to although `egress` is `deny`;
        /// `*.example.com` for all below one.
        "allowedNames" allowed_names: List<Spanned<Outside>, 0, 1024>,
        /// The proxy that connections out of the mesh go through. Default: none; they leave from where they are made.
        "egressGateway" egress_gateway: Option<EgressGateway>,
        /// Certificates of the mesh.
        "certificates" certificates: Option<Certificates>,
    }
}

object! {
    /// The proxy that connections out of the mesh go through: a service like any other, whose Workloads lead out.
    pub struct EgressGateway as "an egressGateway" {
        /// The service: `egress`, or `egress.NAMESPACE`.
        "service" service: Spanned<ServiceName>,
        /// The port of the service. Default: its only one.
        "port" port: Option<Spanned<Port>>,
        /// Names, addresses and blocks of addresses that are reached through it; `*.example.com` for all below one. They need
        /// not be in `allowedNames` too. Default: everything that leaves the mesh.
        "destinations" destinations: List<Spanned<Outside>, 0, 1024>,
    }
}

/// Something outside of the mesh: a name, `*.example.com` for all below one, an address, or a block of addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outside {
    /// A name.
    Name(Hostname),
    /// A block of addresses, or one.
    Block(Cidr),
}

impl Outside {
    fn parse(text: &str) -> Result<Self, Complaint> {
        let is_block = text.contains(['/', ':']) || text.parse::<std::net::IpAddr>().is_ok();
        if is_block { Cidr::parse(text).map(Self::Block) } else { Hostname::parse(text).map(Self::Name) }
    }
}

impl Decode for Outside {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        decode_text(node, "name, address or block of addresses", cx, Self::parse)
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "type": "string", "description": "A name, `*.example.com` for all below one, an IP address, or a block of them (`10.0.0.0/8`)." })
    }
}

choice! {
    /// Whether plain text is taken.
    pub enum MeshMtls as "mtls" {
        /// It is refused.
        Strict = "strict",
        /// It is taken and listed.
        Permissive = "permissive",
    }
    default Strict;
}

choice! {
    /// What happens to connections that lead out of the mesh.
    pub enum Egress as "egress" {
        /// They go where they want.
        Allow = "allow",
        /// They are closed.
        Deny = "deny",
    }
    default Allow;
}

object! {
    /// Certificates of the mesh.
    pub struct Certificates as "certificates" {
        /// How long the certificate of a workload is valid. It is renewed at half of that. Default: 24h.
        "leafLifetime" leaf_lifetime: Option<Spanned<Duration>>,
        /// How long an intermediate certificate is valid.
        "intermediateLifetime" intermediate_lifetime: Option<Spanned<Duration>>,
        /// How long a root certificate is valid.
        "rootLifetime" root_lifetime: Option<Spanned<Duration>>,
    }
}

object! {
    /// What one proxy does for its workload: what comes in from the mesh, and what the workload calls.
    pub struct Sidecar as "the spec of a Sidecar" {
        /// The workload.
        "workload" workload: Option<SidecarWorkload>,
        /// Ports of services that the workload serves.
        "inbound" inbound: List<Inbound, 0, 64>,
        /// Services that the workload calls at addresses of its own machine. Needs no privileges.
        "upstreams" upstreams: List<Upstream, 0, 1024>,
        /// Ports that `rhumb intercept` leads connections to. Default: none.
        "capture" capture: Option<Capture>,
        /// Where connections of the mesh are taken. Default: port 15008 of every address, when there is something inbound.
        "tunnel" tunnel: Option<Spanned<SocketAddress>>,
        /// Whether this workload takes plain text, while others are on their way into the mesh. Default: what the Mesh says.
        "mtls" mtls: Option<Spanned<MeshMtls>>,
        /// Who the workload is.
        "identity" identity: Option<SidecarIdentity>,
    }
    check Sidecar::check;
}

impl Sidecar {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_unique(
            &self.upstreams,
            "address",
            |upstream| (upstream.listen.get(), upstream.listen.get().to_string(), upstream.listen.span),
            cx,
        );
        check_unique(
            &self.inbound,
            "port",
            |inbound| {
                let name = (inbound.service.name(), inbound.service.namespace(), inbound.port.number());
                (name, inbound.port.number().to_string(), inbound.port.span)
            },
            cx,
        );
        for upstream in &self.upstreams {
            if !upstream.listen.get().ip().is_loopback() {
                let what = format!("{} can be reached from other machines", upstream.listen.get());
                let diag = Diag::warning(Rule::Conflict, cx.origin(upstream.listen.span), what)
                    .why("whoever connects there calls the service in the name of this workload")
                    .fix("write an address of 127.0.0.0/8 or [::1]");
                cx.push(diag);
            }
        }
    }
}

object! {
    /// The workload that a Sidecar stands beside.
    pub struct SidecarWorkload as "a workload" {
        /// Its name. Default: that of the Sidecar.
        "name" name: Option<Spanned<Name>>,
        /// The address that others reach it at. Default: that of the first interface.
        "address" address: Option<Spanned<IpAddress>>,
        /// Who it is. Default: default.
        "serviceAccount" service_account: Option<Spanned<Name>>,
    }
}

/// A Service by name, in the namespace of the document unless it says another one: `orders`, `orders.shop`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceName {
    name: Box<str>,
    namespace: Option<Box<str>>,
}

impl ServiceName {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace, when it is written.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

impl ServiceName {
    fn parse(text: &str) -> Result<Self, Complaint> {
        let (name, namespace) = parse_service_name(text)?;
        Ok(Self { name: name.into(), namespace: namespace.map(Into::into) })
    }
}

impl Decode for ServiceName {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        decode_text(node, "name of a Service", cx, Self::parse)
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "type": "string", "description": "A Service: NAME or NAME.NAMESPACE." })
    }
}

object! {
    /// A port of a service that the workload serves.
    pub struct Inbound as "an inbound port" {
        /// The service: `orders`, or `orders.NAMESPACE`.
        "service" service: Spanned<ServiceName>,
        /// The port of the service.
        "port" port: Spanned<Port>,
        /// Where the application listens. Default: port of the service's `targetPort` at 127.0.0.1.
        "target" target: Option<Spanned<SocketAddress>>,
        /// What the application speaks. Default: what the Service says.
        "protocol" protocol: Option<Spanned<AppProtocol>>,
    }
}

object! {
    /// A service, or something out of the mesh, that the workload calls at an address of its own machine.
    pub struct Upstream as "an upstream" {
        /// The service: `orders`, or `orders.NAMESPACE`.
        "service" service: Option<Spanned<ServiceName>>,
        /// The port of the service. Default: its only one.
        "port" port: Option<Spanned<Port>>,
        /// Instead of a service: a name or address out of the mesh, with its port: `api.example.com:443`.
        "host" host: Option<Spanned<HostPort>>,
        /// Where the workload calls it.
        "listen" listen: Spanned<SocketAddress>,
    }
    check Upstream::check;
}

impl Upstream {
    fn check(&self, cx: &mut Decoder<'_>) {
        let diag = match (&self.service, &self.host) {
            _ if self.broken => return,
            (Some(_), Some(host)) => cx
                .error(Rule::Conflict, host.span, "`host` beside `service`")
                .why("an upstream is a service of the mesh or something out of it")
                .fix("make two upstreams of it"),
            (None, None) => cx
                .error(Rule::MissingField, self.span, "field `service` is missing")
                .why("or `host`, for what is out of the mesh")
                .fix("add `service: NAME`, or `host: NAME:PORT`"),
            (None, Some(host)) => match &self.port {
                Some(port) => cx
                    .error(Rule::Conflict, port.span, "`port` beside `host`")
                    .why("`host` has the port")
                    .fix(format!("write `host: {}:{}`", host.host(), port.number())),
                None => return,
            },
            (Some(_), None) => return,
        };
        cx.push(diag);
    }
}

object! {
    /// Ports that `rhumb intercept` leads connections to.
    pub struct Capture as "capture" {
        /// Where connections of the workload go. Default: 15001.
        "outbound" outbound: Spanned<Port> = |span| Spanned::new(Whole::literal(15001), span),
        /// Where connections to the workload go. Default: 15006.
        "inbound" inbound: Spanned<Port> = |span| Spanned::new(Whole::literal(15006), span),
        /// Where questions for names go. Default: 15053.
        "dns" dns: Spanned<Port> = |span| Spanned::new(Whole::literal(15053), span),
    }
}

object! {
    /// Who a workload is. Files, or whoever gives certificates out.
    pub struct SidecarIdentity as "an identity" {
        /// PEM text of the certificate and its chain: `file:cert.pem`.
        "certificate" certificate: Option<Spanned<SecretText>>,
        /// PEM text of the key: `file:key.pem`.
        "key" key: Option<Spanned<SecretText>>,
        /// PEM text of the roots that are trusted: `file:bundle.pem`.
        "bundle" bundle: Option<Spanned<Box<str>>>,
        /// A SPIFFE Workload API.
        "workloadApi" workload_api: Option<WorkloadApi>,
        /// A control plane of Rhumb, or an issuer alone.
        "control" control: Option<ControlPlane>,
        /// Serve the SPIFFE Workload API to the application: it gets the same certificate. Default: not.
        "serve" serve: Option<ServedApi>,
    }
    check SidecarIdentity::check;
}

object! {
    /// The SPIFFE Workload API for the application beside the proxy.
    pub struct ServedApi as "a served Workload API" {
        /// Path of the Unix socket.
        "socket" socket: Spanned<Box<str>>,
        /// Numbers of users that may ask, besides root and the proxy's own.
        "users" users: List<Spanned<Whole<0, 4294967294>>, 0, 64>,
    }
}

impl SidecarIdentity {
    fn check(&self, cx: &mut Decoder<'_>) {
        let files = [
            ("certificate", self.certificate.as_ref().map(|text| text.span)),
            ("key", self.key.as_ref().map(|text| text.span)),
            ("bundle", self.bundle.as_ref().map(|text| text.span)),
        ];
        let written = files.iter().filter(|(_, span)| span.is_some()).count();
        let ways = usize::from(written > 0)
            + usize::from(self.workload_api.is_some())
            + usize::from(self.control.is_some());
        if self.broken {
            return;
        }
        if ways != 1 {
            let diag = cx
                .error(Rule::Conflict, self.span, "an identity comes from exactly one place")
                .why("files, a Workload API, or a control plane")
                .fix("write `certificate`, `key` and `bundle`, or `workloadApi`, or `control`");
            cx.push(diag);
        } else if written > 0 {
            for (name, span) in files {
                if span.is_none() {
                    let diag = cx
                        .error(Rule::MissingField, self.span, format!("field `{name}` is missing"))
                        .why("an identity in files is a certificate, its key, and the roots that are trusted")
                        .fix(format!("add `{name}: file:PATH`"));
                    cx.push(diag);
                }
            }
        }
    }
}

object! {
    /// A SPIFFE Workload API.
    pub struct WorkloadApi as "a workloadApi" {
        /// Path of its Unix socket.
        "socket" socket: Spanned<Box<str>>,
    }
}

object! {
    /// A control plane of Rhumb.
    pub struct ControlPlane as "a control plane" {
        /// Where it is: one address or name with port, or several to fail over to.
        "addresses" addresses: List<Spanned<HostPort>, 1, 16>,
        /// The join token for the first connection: `file:PATH`.
        "token" token: Option<Spanned<SecretText>>,
        /// The token of a Kubernetes service account for the first connection, instead of a join token.
        "serviceAccount" service_account: Option<ServiceAccountToken>,
        /// Where key, certificates and documents are kept. Default: a directory under /var/lib/rhumb.
        "stateDirectory" state_directory: Option<Spanned<Box<str>>>,
        /// The namespace of the workload. Default: that of the Sidecar.
        "namespace" namespace: Option<Spanned<Namespace>>,
        /// The trust domain of its mesh; goes before that of a Mesh among the documents. `rhumb sidecar` takes it from the join
        /// token, or from the certificate that it has. Default: what the Mesh says.
        "trustDomain" trust_domain: Option<Spanned<PreciseHostname>>,
    }
}

object! {
    /// The token of a Kubernetes service account.
    pub struct ServiceAccountToken as "a token of a service account" {
        /// Path of the projected token; read anew each time.
        "token" token: Spanned<Box<str>>,
        /// Path of the roots of the mesh, PEM.
        "bundle" bundle: Spanned<Box<str>>,
    }
}

fn trust_domain(span: Span) -> Spanned<PreciseHostname> {
    literal(PreciseHostname::parse(DEFAULT_TRUST_DOMAIN), span)
}

/// The port of [`TUNNEL_PORT`] as sockets take it.
pub fn default_tunnel_port() -> u16 {
    u16::try_from(TUNNEL_PORT).unwrap_or(u16::MAX)
}
