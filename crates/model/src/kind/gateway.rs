//! Gateway and GatewayClass: where requests are accepted.

use super::refs::{CaRef, LabelSelector, ParametersRef, SecretRef, check_unique};
use crate::decode::{Decoder, List, Table, choice, object};
use crate::diag::Rule;
use crate::scalar::{Group, Hostname, IpAddress, KindName, Name, Port};
use crate::span::Spanned;

object! {
    /// A class of Gateways and who implements it. The class `rhumb` is built in: it need not be written.
    pub struct GatewayClass as "the spec of a GatewayClass" {
        /// Who implements Gateways of this class: rhumb.dev/gateway for us.
        "controllerName" controller_name: Spanned<Box<str>>,
        /// Parameters for every Gateway of the class: a ProxyConfig.
        "parametersRef" parameters_ref: Option<ParametersRef>,
        /// Words for people.
        "description" description: Option<Spanned<Box<str>>>,
    }
}

object! {
    /// Listeners: ports on which requests are accepted, and what may attach to them.
    pub struct Gateway as "the spec of a Gateway" {
        /// The class: `rhumb`, or a GatewayClass of ours.
        "gatewayClassName" class_name: Spanned<Name>,
        /// The listeners.
        "listeners" listeners: List<Listener, 1, 64>,
        /// The addresses to listen on. Default: every address of the machine.
        "addresses" addresses: List<GatewayAddress, 0, 16>,
        /// Labels, annotations and parameters for what is made for this Gateway.
        "infrastructure" infrastructure: Option<Infrastructure>,
        /// Client certificates, to and from us.
        "tls" tls: Option<GatewayTls>,
    }
    later {
        "allowedListeners": "ListenerSets come with a later version",
        "defaultScope": "default Gateways come with a later version",
    }
    check Gateway::check;
}

impl Gateway {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_unique(&self.listeners, "listener", |l| (l.name.as_str(), l.name.to_string(), l.name.span), cx);
        check_unique(
            &self.listeners,
            "the same port, protocol and hostname",
            |l| {
                let host = l.hostname.as_ref().map_or("", |hostname| hostname.as_str());
                let shown = format!(
                    "{} {} {}",
                    l.port.get(),
                    l.protocol.word(),
                    if host.is_empty() { "*" } else { host }
                );
                ((l.port.get(), l.protocol.word(), host), shown, l.name.span)
            },
            cx,
        );
        // One port speaks one protocol: the first byte of a connection cannot be asked for another (GEP-1911).
        for (index, listener) in self.listeners.iter().enumerate() {
            let other = self.listeners.iter().take(index).find(|other| {
                let is_udp = |listener: &Listener| *listener.protocol == Protocol::Udp;
                // UDP has port numbers of its own: DNS has 53 of both.
                *other.port == *listener.port
                    && *other.protocol != *listener.protocol
                    && is_udp(other) == is_udp(listener)
            });
            if let Some(other) = other {
                let diag = cx
                    .error(
                        Rule::Conflict,
                        listener.protocol.span,
                        format!(
                            "port {} is {} here and {} in listener `{}`",
                            listener.port.get(),
                            listener.protocol.word(),
                            other.protocol.word(),
                            other.name
                        ),
                    )
                    .why("one port speaks one protocol")
                    .fix("use another port")
                    .related(cx.origin(other.protocol.span), "other protocol here");
                cx.push(diag);
            }
        }
    }
}

object! {
    /// One port, protocol and (optionally) hostname.
    pub struct Listener as "a listener" {
        /// Name, unique in the Gateway: `sectionName` of parentRefs.
        "name" name: Spanned<Name>,
        /// Accept requests for this hostname only. Default: every one.
        "hostname" hostname: Option<Spanned<Hostname>>,
        /// Port to listen on.
        "port" port: Spanned<Port>,
        /// HTTP, HTTPS or TLS (both with `tls`), TCP or UDP.
        "protocol" protocol: Spanned<Protocol>,
        /// Certificates of HTTPS and TLS.
        "tls" tls: Option<ListenerTls>,
        /// Which routes may attach. Default: those that fit the protocol, of the Gateway's namespace.
        "allowedRoutes" allowed_routes: Option<AllowedRoutes>,
    }
    check Listener::check;
}

impl Listener {
    fn check(&self, cx: &mut Decoder<'_>) {
        match (*self.protocol, &self.tls) {
            (protocol @ (Protocol::Http | Protocol::Tcp | Protocol::Udp), Some(tls)) => {
                let word = protocol.word();
                let encrypted = if protocol == Protocol::Http { "HTTPS" } else { "TLS" };
                let diag = cx
                    .error(Rule::Conflict, tls.span, format!("`tls` on a listener of protocol {word}"))
                    .why(format!("{word} is not encrypted"))
                    .fix(format!("write `protocol: {encrypted}`, or remove `tls`"))
                    .related(cx.origin(self.protocol.span), "protocol");
                cx.push(diag);
            }
            (protocol @ (Protocol::Https | Protocol::Tls), None) => {
                let mut diag = cx
                    .error(Rule::MissingField, self.protocol.span, "field `tls` is missing")
                    .fix("add `tls: {certificateRefs: [{name: SECRET}]}`");
                diag = match protocol {
                    Protocol::Tls => diag.label("TLS is either terminated here or passed through").fix(
                        "add `tls: {mode: Passthrough}`, or `tls: {certificateRefs: [{name: SECRET}]}` to terminate",
                    ),
                    _ => diag.label("HTTPS needs a certificate"),
                };
                cx.push(diag);
            }
            (Protocol::Https, Some(tls)) if *tls.mode == TlsMode::Passthrough => {
                let diag = cx
                    .error(Rule::Conflict, tls.mode.span, "mode Passthrough on a listener of protocol HTTPS")
                    .why("requests cannot be seen in connections that are not decrypted")
                    .fix("write `protocol: TLS`, and a TLSRoute")
                    .related(cx.origin(self.protocol.span), "protocol");
                cx.push(diag);
            }
            (_, Some(tls)) if *tls.mode == TlsMode::Passthrough => {
                if let Some(first) = tls.certificate_refs.first() {
                    let diag = cx
                        .error(Rule::Conflict, first.name.span, "`certificateRefs` with mode Passthrough")
                        .why("the backend has the certificate: connections are not decrypted here")
                        .fix("remove `certificateRefs`, or write `mode: Terminate`")
                        .related(cx.origin(tls.mode.span), "mode");
                    cx.push(diag);
                }
            }
            (protocol, Some(tls)) if tls.certificate_refs.is_empty() && !tls.broken => {
                let diag = cx
                    .error(Rule::MissingField, tls.span, "field `certificateRefs` is missing")
                    .label(format!("{} needs a certificate", protocol.word()))
                    .fix("add `certificateRefs: [{name: SECRET}]`");
                cx.push(diag);
            }
            _ => {}
        }
        if let (Protocol::Tcp | Protocol::Udp, Some(hostname)) = (*self.protocol, &self.hostname) {
            let word = self.protocol.word();
            let diag = cx
                .error(Rule::Conflict, hostname.span, format!("`hostname` on a listener of protocol {word}"))
                .why(format!("{word} says no hostname"))
                .fix("remove `hostname`")
                .related(cx.origin(self.protocol.span), "protocol");
            cx.push(diag);
        }
    }
}

choice! {
    /// What a listener speaks.
    pub enum Protocol as "protocol" {
        /// HTTP/1.1, and HTTP/2 with prior knowledge, without encryption.
        Http = "HTTP",
        /// HTTP/1.1 and HTTP/2 over TLS.
        Https = "HTTPS",
        /// Any protocol over TLS: passed on by server name without being decrypted, or terminated.
        Tls = "TLS",
        /// Any protocol over TCP.
        Tcp = "TCP",
        /// Datagrams.
        Udp = "UDP",
    }
}

impl Protocol {
    /// True when requests are seen, so that HTTPRoutes mean something.
    pub fn has_requests(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

object! {
    /// Certificates of a listener.
    pub struct ListenerTls as "the tls of a listener" {
        /// Terminate (we decrypt; default), or Passthrough (the backend does; protocol TLS only).
        "mode" mode: Spanned<TlsMode>,
        /// Secrets of type kubernetes.io/tls. The one whose names fit the client's SNI is used; the first otherwise.
        "certificateRefs" certificate_refs: List<SecretRef, 0, 64>,
        /// `rhumb.dev/min-tls-version`: `"1.2"` (default) or `"1.3"`.
        "options" options: Table<Spanned<Box<str>>, 16>,
    }
    check ListenerTls::check;
}

/// The option of [`ListenerTls`] that names the lowest TLS version.
pub const OPTION_MIN_TLS_VERSION: &str = "rhumb.dev/min-tls-version";

impl ListenerTls {
    fn check(&self, cx: &mut Decoder<'_>) {
        for (key, value) in &self.options.entries {
            if &*key.value != OPTION_MIN_TLS_VERSION {
                let mut diag = cx
                    .error(Rule::UnknownField, key.span, format!("unknown TLS option `{}`", key.value))
                    .why(format!("allowed here: `{OPTION_MIN_TLS_VERSION}`"));
                if crate::decode::nearest(key, [OPTION_MIN_TLS_VERSION].into_iter()).is_some() {
                    diag = diag.fix(format!("did you mean `{OPTION_MIN_TLS_VERSION}`?"));
                }
                cx.push(diag);
            } else if !matches!(&*value.value, "1.2" | "1.3") {
                let diag = cx
                    .error(Rule::UnknownValue, value.span, format!("unknown TLS version `{}`", value.value))
                    .why("allowed: `\"1.2\"`, `\"1.3\"`; older versions are forbidden (RFC 8996)");
                cx.push(diag);
            }
        }
    }

    /// The lowest TLS version that clients may use is 1.3 instead of 1.2.
    pub fn needs_tls13(&self) -> bool {
        self.options.get(OPTION_MIN_TLS_VERSION).is_some_and(|version| &*version.value == "1.3")
    }
}

choice! {
    /// What happens to encrypted connections.
    pub enum TlsMode as "TLS mode" {
        /// We decrypt them.
        Terminate = "Terminate",
        /// The backend decrypts them: only the server name of their ClientHello is read.
        Passthrough = "Passthrough",
    }
    default Terminate;
}

object! {
    /// Which routes may attach to a listener.
    pub struct AllowedRoutes as "allowedRoutes" {
        /// From which namespaces. Default: that of the Gateway.
        "namespaces" namespaces: Option<RouteNamespaces>,
        /// Of which kinds. Default: all that fit the protocol.
        "kinds" kinds: List<RouteKind, 0, 8>,
    }
}

object! {
    /// Namespaces from which routes may attach.
    pub struct RouteNamespaces as "the namespaces of allowedRoutes" {
        /// All, Same (default) or Selector.
        "from" from: Spanned<FromNamespaces>,
        /// Labels of namespaces, with `from: Selector`.
        "selector" selector: Option<LabelSelector>,
    }
    check RouteNamespaces::check;
}

impl RouteNamespaces {
    fn check(&self, cx: &mut Decoder<'_>) {
        let wants_selector = *self.from == FromNamespaces::Selector;
        if wants_selector != self.selector.is_some() {
            let diag = if wants_selector {
                cx.error(Rule::MissingField, self.from.span, "field `selector` is missing")
                    .label("`from: Selector` needs `selector`")
                    .fix("add `selector: {matchLabels: {…}}`")
            } else {
                cx.error(Rule::Conflict, self.from.span, "`selector` without `from: Selector`")
                    .fix("write `from: Selector`")
            };
            cx.push(diag);
        }
    }
}

choice! {
    /// Namespaces from which routes may attach.
    pub enum FromNamespaces as "value of `from`" {
        /// Every namespace.
        All = "All",
        /// Those with certain labels.
        Selector = "Selector",
        /// That of the Gateway.
        Same = "Same",
    }
    default Same;
}

object! {
    /// A kind of route.
    pub struct RouteKind as "a route kind" {
        /// Group of the kind. Default: gateway.networking.k8s.io.
        "group" group: Option<Spanned<Group>>,
        /// The kind: HTTPRoute, GRPCRoute, TLSRoute, TCPRoute or UDPRoute.
        "kind" kind: Spanned<KindName>,
    }
    check RouteKind::check;
}

impl RouteKind {
    fn check(&self, cx: &mut Decoder<'_>) {
        let group_fits = self.group.as_ref().is_none_or(|group| group.as_str() == super::refs::GATEWAY_GROUP);
        if !group_fits || !super::ROUTE_KINDS.contains(&self.kind.as_str()) {
            let diag = cx
                .error(
                    Rule::NotSupported,
                    self.kind.span,
                    format!("routes of kind {} are not supported by this version", self.kind),
                )
                .why("supported: HTTPRoute, GRPCRoute, TLSRoute, TCPRoute and UDPRoute of group gateway.networking.k8s.io");
            cx.push(diag);
        }
    }
}

object! {
    /// An address to listen on.
    pub struct GatewayAddress as "an address" {
        /// IPAddress (default).
        "type" kind: Spanned<AddressKind>,
        /// The address.
        "value" value: Spanned<IpAddress>,
    }
}

choice! {
    /// Kinds of addresses.
    pub enum AddressKind as "address type" {
        /// An IP address of this machine.
        IpAddress = "IPAddress",
    }
    default IpAddress;
    later {
        "Hostname": "listening needs an IP address",
        "NamedAddress": "listening needs an IP address",
    }
}

object! {
    /// What is made for a Gateway.
    pub struct Infrastructure as "infrastructure" {
        /// Labels of objects that a controller makes for this Gateway; without effect outside of Kubernetes.
        "labels" labels: Table<Box<str>, 8>,
        /// Annotations of objects that a controller makes for this Gateway; without effect outside of Kubernetes.
        "annotations" annotations: Table<Box<str>, 16>,
        /// Settings of this Gateway: a ProxyConfig in its namespace.
        "parametersRef" parameters_ref: Option<ParametersRef>,
    }
}

object! {
    /// Client certificates.
    pub struct GatewayTls as "the tls of a Gateway" {
        /// Certificates of our clients.
        "frontend" frontend: Option<FrontendTls>,
        /// Our certificate when we are the client of a backend.
        "backend" backend: Option<GatewayBackendTls>,
    }
}

object! {
    /// Certificates of our clients.
    pub struct FrontendTls as "the frontend of tls" {
        /// For every port that `perPort` does not name.
        "default" default: FrontendTlsConfig,
        /// For single ports.
        "perPort" per_port: List<PortTls, 0, 64>,
    }
    check FrontendTls::check;
}

impl FrontendTls {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_unique(&self.per_port, "port", |p| (p.port.get(), p.port.get().to_string(), p.port.span), cx);
    }

    /// What holds on a port.
    pub fn of_port(&self, port: u16) -> &FrontendTlsConfig {
        self.per_port.iter().find(|p| p.port.number() == port).map_or(&self.default, |p| &p.tls)
    }
}

object! {
    /// Certificates of clients on one port.
    pub struct PortTls as "a port of perPort" {
        /// The port.
        "port" port: Spanned<Port>,
        /// What holds there.
        "tls" tls: FrontendTlsConfig,
    }
}

object! {
    /// Whether and how certificates of clients are checked.
    pub struct FrontendTlsConfig as "the TLS settings of a port" {
        /// How they are checked. Default: none is asked for.
        "validation" validation: Option<FrontendValidation>,
    }
}

object! {
    /// How certificates of clients are checked (GEP-91).
    pub struct FrontendValidation as "a validation" {
        /// The CAs that may have signed them: ConfigMaps or Secrets with `ca.crt`.
        "caCertificateRefs" ca_certificate_refs: List<CaRef, 1, 16>,
        /// Whether a certificate must be shown. Default: AllowValidOnly.
        "mode" mode: Spanned<FrontendValidationMode>,
    }
}

choice! {
    /// Whether a client must show a certificate.
    pub enum FrontendValidationMode as "validation mode" {
        /// Clients without a valid certificate are refused.
        AllowValidOnly = "AllowValidOnly",
        /// Clients without a certificate are let in; one that does not verify is refused all the same.
        AllowInsecureFallback = "AllowInsecureFallback",
    }
    default AllowValidOnly;
}

object! {
    /// TLS from us to backends.
    pub struct GatewayBackendTls as "the backend of tls" {
        /// Our certificate towards every backend that speaks TLS: a Secret of type kubernetes.io/tls.
        "clientCertificateRef" client_certificate_ref: Option<SecretRef>,
    }
}
