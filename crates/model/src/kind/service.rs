//! Service and Workload: what is called by name in the mesh, and where it runs.

use super::health::HealthCheck;
use super::refs::check_unique;
use crate::decode::{Complaint, Decode, Decoder, Defs, List, Table, Whole, choice, object};
use crate::diag::Rule;
use crate::doc::Skip;
use crate::scalar::{IpAddress, Name, Port, PreciseHostname};
use crate::span::{Span, Spanned};
use crate::value::{Node, Value};
use serde_json::json;

/// The port that proxies of the mesh take connections on when nothing else is written: HBONE's.
pub const TUNNEL_PORT: i64 = 15008;

object! {
    /// Something that is called by name, and the Workloads that serve it.
    pub struct Service as "the spec of a Service" {
        /// Its ports.
        "ports" ports: List<ServicePort, 0, 64>,
        /// Labels that a Workload of the same namespace must have to serve it. Default: only Workloads that name it.
        "selector" selector: Table<Box<str>, 64>,
        /// ClusterIP (default), or ExternalName for a name in DNS.
        "type" service_type: Spanned<ServiceType>,
        /// The name of an ExternalName.
        "externalName" external_name: Option<Spanned<PreciseHostname>>,
        /// The address that clients of the service connect to; `None` has them connect to Workloads. Default: assigned.
        "clusterIP" cluster_ip: Option<Spanned<Box<str>>>,
        /// Set by Kubernetes.
        "clusterIPs" cluster_ips: Skip,
        /// Set by Kubernetes.
        "ipFamilies" ip_families: Skip,
        /// Set by Kubernetes.
        "ipFamilyPolicy" ip_family_policy: Skip,
        /// Without effect: clients find endpoints themselves.
        "internalTrafficPolicy" internal_traffic_policy: Skip,
        /// Without effect: sessions are those of an XBackendTrafficPolicy.
        "sessionAffinity" session_affinity: Skip,
        /// Without effect.
        "publishNotReadyAddresses" publish_not_ready: Skip,
    }
    check Service::check;
}

impl Service {
    /// The address of `clusterIP`, when it is one.
    pub fn virtual_address(&self) -> Option<std::net::IpAddr> {
        self.cluster_ip.as_ref().and_then(|written| written.parse().ok())
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        check_unique(
            &self.ports,
            "port",
            |p| (p.port.number(), p.port.number().to_string(), p.port.span),
            cx,
        );
        let names = self.ports.iter().filter_map(|port| port.name.as_ref());
        check_unique(names, "port", |name| (name.as_str(), name.to_string(), name.span), cx);
        if let Some(nameless) = self.ports.iter().find(|port| port.name.is_none())
            && self.ports.len() > 1
        {
            let diag = cx
                .error(Rule::MissingField, nameless.port.span, "field `name` is missing")
                .why("ports of a Service with several have names (Kubernetes)")
                .fix("add `name:`");
            cx.push(diag);
        }
        if let Some(written) = &self.cluster_ip
            && !matches!(&*written.value, "" | "None")
            && self.virtual_address().is_none()
        {
            let diag = cx
                .error(Rule::BadValue, written.span, "`clusterIP` is no IP address")
                .fix("write an address, `None`, or leave it out");
            cx.push(diag);
        }
        match (*self.service_type, &self.external_name) {
            (ServiceType::ExternalName, None) if !self.broken => {
                let diag = cx
                    .error(Rule::MissingField, self.service_type.span, "field `externalName` is missing")
                    .label("an ExternalName is a name in DNS")
                    .fix("add `externalName:`");
                cx.push(diag);
            }
            (ServiceType::ExternalName, _) if self.ports.is_empty() && !self.broken => {
                let diag = cx
                    .error(Rule::MissingField, self.service_type.span, "the Service has no ports")
                    .fix("add `ports: [{port: NUMBER}]`");
                cx.push(diag);
            }
            (ServiceType::ClusterIp, Some(name)) => {
                let diag = cx
                    .error(Rule::Conflict, name.span, "`externalName` without `type: ExternalName`")
                    .fix("add `type: ExternalName`, or remove `externalName`");
                cx.push(diag);
            }
            _ => {}
        }
    }
}

choice! {
    /// What a Service is.
    pub enum ServiceType as "type of Service" {
        /// Workloads of the mesh.
        ClusterIp = "ClusterIP",
        /// A name in DNS, outside of the mesh.
        ExternalName = "ExternalName",
    }
    default ClusterIp;
    later {
        "NodePort": "write a Gateway to be reached from outside",
        "LoadBalancer": "write a Gateway to be reached from outside",
    }
}

object! {
    /// One port of a Service.
    pub struct ServicePort as "a port of a Service" {
        /// Its name.
        "name" name: Option<Spanned<Name>>,
        /// The number that clients use.
        "port" port: Spanned<Port>,
        /// Where the Workloads listen: a number, or the name of one of their ports. Default: the same number.
        "targetPort" target_port: Option<Spanned<TargetPort>>,
        /// What is spoken. Default: what is found on each connection, without waiting for it.
        "appProtocol" app_protocol: Option<Spanned<AppProtocol>>,
        /// TCP.
        "protocol" protocol: Spanned<Transport>,
        /// Without effect.
        "nodePort" node_port: Skip,
    }
}

choice! {
    /// What carries the connections of a port.
    pub enum Transport as "protocol" {
        /// TCP.
        Tcp = "TCP",
    }
    default Tcp;
    later {
        "UDP": "the mesh carries TCP; datagrams go past it",
        "SCTP": "the mesh carries TCP",
    }
}

choice! {
    /// What is spoken on a port.
    pub enum AppProtocol as "appProtocol" {
        /// HTTP/1.1, or HTTP/2 when a connection begins with it.
        Http = "http",
        /// HTTP/2 without encryption.
        Http2 = "http2",
        /// HTTP/2 without encryption.
        H2c = "h2c",
        /// HTTP/2 without encryption.
        KubernetesH2c = "kubernetes.io/h2c",
        /// gRPC.
        Grpc = "grpc",
        /// WebSocket over HTTP/1.1.
        Ws = "kubernetes.io/ws",
        /// Connections are carried as they are.
        Tcp = "tcp",
        /// TLS of the application, carried as it is.
        Tls = "tls",
        /// HTTP over TLS of the application, carried as it is.
        Https = "https",
        /// Carried as it is.
        Postgresql = "postgresql",
        /// Carried as it is; the server speaks first.
        Mysql = "mysql",
        /// Carried as it is.
        Redis = "redis",
        /// Carried as it is.
        Mongo = "mongo",
        /// Carried as it is; the server speaks first.
        Smtp = "smtp",
    }
}

/// What the mesh does with the connections of a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Carried {
    /// As requests; the application speaks HTTP/1.1.
    Http1,
    /// As requests; the application speaks HTTP/2.
    Http2,
    /// As they are.
    Tcp,
    /// As what turns out to be spoken.
    Found,
}

impl ServicePort {
    /// What is done with its connections.
    pub fn carried(&self) -> Carried {
        match self.app_protocol.as_deref() {
            None => Carried::Found,
            Some(AppProtocol::Http | AppProtocol::Ws) => Carried::Http1,
            Some(AppProtocol::Http2 | AppProtocol::H2c | AppProtocol::KubernetesH2c | AppProtocol::Grpc) => {
                Carried::Http2
            }
            Some(_) => Carried::Tcp,
        }
    }
}

/// A port of Workloads, by number or by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetPort {
    /// The number.
    Number(Port),
    /// The name, found in each Workload's `ports`.
    Name(Name),
}

impl Decode for TargetPort {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.value {
            Value::String(text) if !text.bytes().all(|b| b.is_ascii_digit()) => {
                Name::decode(node, cx).map(Self::Name)
            }
            _ => Port::decode(node, cx).map(Self::Number),
        }
    }
    fn schema(defs: &mut Defs) -> serde_json::Value {
        json!({ "anyOf": [Port::schema(defs), Name::schema(defs)] })
    }
}

object! {
    /// Where a service runs: one process or machine, whoever started it.
    pub struct Workload as "the spec of a Workload" {
        /// Its address.
        "address" address: Spanned<IpAddress>,
        /// Its ports by name, for Services that name theirs, such as `{http: 9000}`.
        "ports" ports: Table<Spanned<Port>, 64>,
        /// Who it is: with namespace and trust domain its identity. Default: default.
        "serviceAccount" service_account: Option<Spanned<Name>>,
        /// Services of this namespace that it serves, besides those whose selector has its labels.
        "services" services: List<Spanned<Name>, 0, 64>,
        /// Where it is. Workloads of our own zone are asked first.
        "locality" locality: Option<Spanned<Box<str>>>,
        /// Share of the requests, relative to the others. Default: 1.
        "weight" weight: Spanned<Whole<1, 1000>> = one,
        /// Ask whether it is well. Default: it is not asked.
        "health" health: Option<HealthCheck>,
        /// `strict` (default): its proxy takes connections of the mesh only. `permissive`: in plain text too. `none`: it has
        /// no proxy, so clients send plain text.
        "mtls" mtls: Option<Spanned<WorkloadMtls>>,
        /// The port of its proxy. Default: 15008.
        "tunnelPort" tunnel_port: Spanned<Port> = tunnel_port,
    }
}

fn one(span: Span) -> Spanned<Whole<1, 1000>> {
    Spanned::new(Whole::literal(1), span)
}

fn tunnel_port(span: Span) -> Spanned<Port> {
    Spanned::new(Whole::literal(TUNNEL_PORT), span)
}

choice! {
    /// How connections to a Workload are protected.
    pub enum WorkloadMtls as "mtls" {
        /// Both sides prove who they are; nothing else is taken.
        Strict = "strict",
        /// Plain text is taken too, and who sends it is listed.
        Permissive = "permissive",
        /// There is no proxy.
        None = "none",
    }
}

/// `NAME`, `NAME.NAMESPACE`, or either with the rest of a name in the mesh.
pub fn parse_service_name(text: &str) -> Result<(&str, Option<&str>), Complaint> {
    let mut labels = text.split('.');
    let name = labels.next().unwrap_or_default();
    let namespace = labels.next();
    let is_fine = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if is_fine(name) && namespace.is_none_or(is_fine) && labels.next().is_none() {
        Ok((name, namespace))
    } else {
        Err(Complaint::new("write the name of a Service, or NAME.NAMESPACE"))
    }
}
