//! TCPRoute, TLSRoute and UDPRoute: which connections and datagrams go where.

use super::http_route::check_backend_kind;
use super::refs::{ParentRef, core_group, service_kind};
use crate::decode::{Decoder, List, Whole, object};
use crate::scalar::{Group, Hostname, KindName, Name, Namespace, Port};
use crate::span::Spanned;

object! {
    /// Where the connections of a listener go.
    pub struct TcpRoute as "the spec of a TCPRoute" {
        /// The Gateways or listeners to attach to: listeners of protocol TCP, or of TLS with mode Terminate.
        "parentRefs" parent_refs: List<ParentRef, 0, 32>,
        /// The rule: all connections of a listener are alike, so there is one.
        "rules" rules: List<L4Rule, 1, 1>,
    }
    later { "useDefaultGateways": "default Gateways come with a later version" }
}

object! {
    /// Where TLS connections go, by the name that the client asks for (SNI).
    pub struct TlsRoute as "the spec of a TLSRoute" {
        /// The Gateways or listeners to attach to: listeners of protocol TLS.
        "parentRefs" parent_refs: List<ParentRef, 0, 32>,
        /// Server names, `*.example.com` for all below one. Default: those of the listeners.
        "hostnames" hostnames: List<Spanned<Hostname>, 0, 16>,
        /// The rule: nothing but the server name tells connections apart, so there is one.
        "rules" rules: List<L4Rule, 1, 1>,
    }
    later { "useDefaultGateways": "default Gateways come with a later version" }
}

object! {
    /// Where the datagrams of a listener go.
    pub struct UdpRoute as "the spec of a UDPRoute" {
        /// The Gateways or listeners to attach to: listeners of protocol UDP.
        "parentRefs" parent_refs: List<ParentRef, 0, 32>,
        /// The rule: all datagrams of a listener are alike, so there is one.
        "rules" rules: List<L4Rule, 1, 1>,
    }
    later { "useDefaultGateways": "default Gateways come with a later version" }
}

object! {
    /// Where connections go.
    pub struct L4Rule as "a rule" {
        /// Name of the rule, for people.
        "name" name: Option<Spanned<Name>>,
        /// Where they go, by weight.
        "backendRefs" backend_refs: List<L4BackendRef, 1, 16>,
    }
}

object! {
    /// A backend and its share of the connections.
    pub struct L4BackendRef as "a backendRef" {
        /// Group of the backend: rhumb.dev for a Backend; empty (default) for a Service.
        "group" group: Spanned<Group> = core_group,
        /// Kind of the backend: Backend, or Service (default).
        "kind" kind: Spanned<KindName> = service_kind,
        /// Namespace of the backend; another one needs a ReferenceGrant there. Default: that of the route.
        "namespace" namespace: Option<Spanned<Namespace>>,
        /// Name of the backend.
        "name" name: Spanned<Name>,
        /// Port of a Service. A Backend has its own.
        "port" port: Option<Spanned<Port>>,
        /// Share of the connections: this weight of the sum of all. Default: 1. Zero: none.
        "weight" weight: Spanned<Whole<0, 1000000>> = |span| Spanned::new(Whole::literal(1), span),
    }
    check L4BackendRef::check;
}

impl L4BackendRef {
    fn check(&self, cx: &mut Decoder<'_>) {
        check_backend_kind(&self.group, &self.kind, &self.name, self.port.as_ref(), cx);
    }
}
