//! What gRPC clients are told of a service.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_ads::resource::{Endpoint as Place, EndpointSet, Mtls};
use rhumb_model::kind::policy::Policy;
use rhumb_model::kind::service::{Carried, Service, ServicePort as PortSpec, ServiceType, TUNNEL_PORT};
use rhumb_model::{Doc, Spec};
use rhumb_policy::mesh::{Enforcer, enforcer};

use crate::bundle::{Bundle, Facts, Why};
use crate::name::ServicePort;
use crate::routes;
use crate::wire::{
    Address, ApiListener, CertificateValidationContext, Cluster, ClusterLoadAssignment, CommonTlsContext,
    ConfigSource, EdsClusterConfig, Empty, Endpoint, HttpConnectionManager, HttpFilter, LbEndpoint, Listener,
    Locality, LocalityLbEndpoints, Number, ProviderInstance, Rds, RouteConfiguration, SocketAddress,
    StringMatcher, TransportSocket, UpstreamTlsContext, any, url,
};

/// `envoy.config.cluster.v3.Cluster.DiscoveryType.EDS`.
const EDS: i32 = 3;

/// Who is told.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Its namespace, in which names without one are looked for.
    pub namespace: String,
    /// The certificate provider of its bootstrap; without one it can speak plain text only.
    pub certificates: Option<String>,
}

/// How the endpoints of a port are reached.
pub(crate) struct Reach {
    pub(crate) server_name: String,
    /// By mutual TLS through their proxies, or in plain text.
    is_mutual: bool,
    endpoints: Vec<(Place, String, u32)>,
}

/// The Listener of a name that an application uses.
///
/// # Errors
/// [`Why`].
pub fn listener(facts: &mut Facts, client: &Client, name: &str) -> Result<Listener, Why> {
    let absent =
        || Why::Absent(format!("`{name}` is no name of a service: write xds:///SERVICE.NAMESPACE:PORT"));
    let written = ServicePort::of_listener(name, &client.namespace).ok_or_else(absent)?;
    let bundle = facts.bundle(&written.path())?;
    let port = resolve(&bundle, &written)?;
    // Nothing is offered of which a part could not be obeyed.
    let routes = route_configuration(facts, client, &port)?;
    let manager = HttpConnectionManager {
        stat_prefix: routes.name.clone(),
        rds: Some(Rds { config_source: Some(ConfigSource::ADS), route_config_name: routes.name }),
        http_filters: vec![HttpFilter {
            name: "router".to_owned(),
            typed_config: Some(any(url::ROUTER, &Empty {})),
        }],
    };
    let api = ApiListener { api_listener: Some(any(url::HTTP_CONNECTION_MANAGER, &manager)) };
    Ok(Listener { name: name.to_owned(), api_listener: Some(api) })
}

/// The routes of a port.
///
/// # Errors
/// [`Why`].
pub fn route_configuration(
    facts: &mut Facts,
    client: &Client,
    port: &ServicePort,
) -> Result<RouteConfiguration, Why> {
    let bundle = facts.bundle(&port.path())?;
    let host = routes::virtual_host(facts, client, port, &bundle)?;
    Ok(RouteConfiguration { name: port.server_name(bundle.trust_domain()), virtual_hosts: vec![host] })
}

/// The Cluster of a port.
///
/// # Errors
/// [`Why`].
pub fn cluster(facts: &mut Facts, client: &Client, port: &ServicePort) -> Result<Cluster, Why> {
    let reach = reach(facts, client, port)?;
    let transport_socket = match (&client.certificates, reach.is_mutual) {
        (Some(provider), true) => {
            let instance = Some(ProviderInstance { instance_name: provider.clone() });
            let mut identities: BTreeSet<&str> =
                reach.endpoints.iter().map(|(place, _, _)| &*place.identity).collect();
            if identities.is_empty() {
                // Without any name every certificate of the mesh would do. Nobody has this one.
                identities.insert("spiffe://");
            }
            let names = identities.into_iter().map(|id| StringMatcher { exact: Some(id.to_owned()) });
            let context = UpstreamTlsContext {
                common_tls_context: Some(CommonTlsContext {
                    validation_context: Some(CertificateValidationContext {
                        match_subject_alt_names: names.collect(),
                        ca_certificate_provider_instance: instance.clone(),
                    }),
                    tls_certificate_provider_instance: instance,
                }),
                sni: reach.server_name.clone(),
            };
            let typed_config = Some(any(url::UPSTREAM_TLS, &context));
            Some(TransportSocket { name: "envoy.transport_sockets.tls".to_owned(), typed_config })
        }
        _ => None,
    };
    Ok(Cluster {
        name: reach.server_name.clone(),
        r#type: EDS,
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ConfigSource::ADS),
            service_name: reach.server_name,
        }),
        transport_socket,
    })
}

/// The endpoints of a port. gRPC takes turns among the endpoints of a locality and knows no weight of one of them, so
/// those of one place with the same weight make a locality.
///
/// # Errors
/// [`Why`].
pub fn load_assignment(
    facts: &mut Facts,
    client: &Client,
    port: &ServicePort,
) -> Result<ClusterLoadAssignment, Why> {
    let reach = reach(facts, client, port)?;
    let mut groups: BTreeMap<(String, u32), Vec<LbEndpoint>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (place, address, number) in reach.endpoints {
        // A weight of 0 takes nothing, and the same address twice is a mistake to gRPC.
        if place.weight == 0 || !seen.insert((address.clone(), number)) {
            continue;
        }
        let health_status = match (place.unhealthy, place.draining) {
            (true, _) => 2,
            (false, true) => 3,
            (false, false) => 1,
        };
        let socket_address = Some(SocketAddress { address, port_value: number });
        let hostname = if reach.is_mutual { reach.server_name.clone() } else { String::new() };
        groups.entry((place.locality, place.weight)).or_default().push(LbEndpoint {
            endpoint: Some(Endpoint { address: Some(Address { socket_address }), hostname }),
            health_status,
            load_balancing_weight: Some(Number { value: place.weight }),
        });
    }
    let endpoints = groups.into_iter().map(|((place, weight), lb_endpoints)| {
        let (region, zone) = place.split_once('/').unwrap_or((&place, ""));
        let usable = lb_endpoints.iter().filter(|endpoint| endpoint.health_status == 1).count();
        let share = weight.saturating_mul(u32::try_from(usable).unwrap_or(u32::MAX)).max(1);
        LocalityLbEndpoints {
            locality: Some(Locality {
                region: region.to_owned(),
                zone: zone.to_owned(),
                sub_zone: format!("weight-{weight}"),
            }),
            lb_endpoints,
            load_balancing_weight: Some(Number { value: share }),
        }
    });
    Ok(ClusterLoadAssignment { cluster_name: reach.server_name, endpoints: endpoints.collect() })
}

/// The port with its number, as the Service has it.
fn resolve(bundle: &Bundle, port: &ServicePort) -> Result<ServicePort, Why> {
    let (_, spec) = service(bundle, port)?;
    let number = match (port.port, &*spec.ports) {
        (0, [only]) => only.port.number(),
        (0, ports) => {
            let numbers: Vec<String> = ports.iter().map(|port| port.port.number().to_string()).collect();
            let why = format!(
                "Service {} has {} ports ({}): write one",
                port.path(),
                ports.len(),
                numbers.join(", ")
            );
            return Err(Why::Absent(why));
        }
        (number, _) => number,
    };
    Ok(ServicePort { port: number, ..port.clone() })
}

fn service<'b>(bundle: &'b Bundle, port: &ServicePort) -> Result<(&'b Doc, &'b Service), Why> {
    let found = bundle.documents.iter().find_map(|doc| match &doc.spec {
        Spec::Service(spec) if doc.namespace() == port.namespace && doc.name() == port.service => {
            Some((&**doc, &**spec))
        }
        _ => None,
    });
    found.ok_or_else(|| Why::Absent(format!("there is no Service {}", port.path())))
}

/// How a port is reached, if a gRPC client can do all that is asked for on the way.
pub(crate) fn reach(facts: &mut Facts, client: &Client, port: &ServicePort) -> Result<Reach, Why> {
    let bundle = facts.bundle(&port.path())?;
    let (doc, spec) = service(&bundle, port)?;
    let numbers = || spec.ports.iter().find(|candidate| candidate.port.number() == port.port);
    let port_spec =
        numbers().ok_or_else(|| Why::Absent(format!("Service {} has no port {}", port.path(), port.port)))?;
    if *spec.service_type == ServiceType::ExternalName {
        return Err(Why::Refused(format!("Service {} is outside of the mesh", port.path())));
    }
    if port_spec.carried() != Carried::Http2 {
        let why = format!("port {} of Service {} does not say `appProtocol: grpc`", port.port, port.path());
        return Err(Why::Refused(why));
    }
    let guards = guards(&bundle, doc, port_spec)?;
    let set = facts.endpoints(&port.path())?;
    let (is_mutual, endpoints) = choose(&set, client, port_spec);
    let has = |mtls: Mtls| set.endpoints.iter().any(|place| place.mtls() == mtls);
    if endpoints.is_empty() && has(Mtls::Strict) && client.certificates.is_none() {
        let why = format!(
            "the workloads of Service {} take mutual TLS only, and this client has no certificates in its bootstrap",
            port.path()
        );
        return Err(Why::Refused(why));
    }
    if let Some(open) = endpoints.iter().find(|(place, _, _)| place.mtls() == Mtls::None)
        && let Some(guard) = guards.first()
    {
        let why = format!(
            "nobody would enforce `{guard}` of Service {}: workload {} has no proxy",
            port.path(),
            open.0.workload
        );
        return Err(Why::Refused(why));
    }
    Ok(Reach { server_name: port.server_name(bundle.trust_domain()), is_mutual, endpoints })
}

/// The endpoints that are used, each with the port that is connected to: those that have a proxy, if the client can prove who
/// it is, and otherwise those that take plain text.
fn choose(set: &EndpointSet, client: &Client, port: &PortSpec) -> (bool, Vec<(Place, String, u32)>) {
    let name = port.name.as_ref().map_or("", |name| name.as_str());
    let tunnel = u32::try_from(TUNNEL_PORT).unwrap_or_default();
    let of = |is_mutual: bool| {
        let places = set.endpoints.iter().filter(move |place| match place.mtls() {
            Mtls::Strict => is_mutual && !place.identity.is_empty(),
            Mtls::Permissive => !is_mutual || !place.identity.is_empty(),
            Mtls::None => !is_mutual,
        });
        places.filter_map(move |place| {
            // An endpoint without this port does not serve it.
            let own = place.ports.iter().find(|port| port.name == name)?.number;
            let number = match (is_mutual, place.tunnel) {
                (false, _) => own,
                (true, 0) => tunnel,
                (true, number) => number,
            };
            Some((place.clone(), place.address.clone(), number))
        })
    };
    if client.certificates.is_some() {
        let mutual: Vec<_> = of(true).collect();
        let is_plain = mutual.is_empty() && set.endpoints.iter().any(|place| place.mtls() == Mtls::None);
        if !is_plain {
            return (true, mutual);
        }
    }
    (false, of(false).collect())
}

/// The policies that the proxies of a service enforce. Those that its clients would have to enforce and a gRPC client
/// cannot are a reason not to offer it.
fn guards(bundle: &Bundle, service: &Doc, port: &PortSpec) -> Result<Vec<String>, Why> {
    let mut guards = Vec::new();
    for doc in &bundle.documents {
        if doc.namespace() != service.namespace() {
            continue;
        }
        let is_target = |kind: &str, name: &str| kind == "Service" && name == service.name();
        match &doc.spec {
            Spec::Policy(policy) => {
                if !is_for(policy, service, port) {
                    continue;
                }
                for kind in policy.policies.entries.iter().map(|(kind, _)| &**kind) {
                    match enforcer(kind) {
                        Some(Enforcer::Server) => guards.push(kind.to_string()),
                        Some(Enforcer::Both) => {}
                        Some(Enforcer::Client) if routes::can_obey(kind) => {}
                        Some(Enforcer::Client) | None => {
                            return Err(refusal(kind, doc, &format!("Service {}", service.name())));
                        }
                    }
                }
            }
            Spec::BackendTrafficPolicy(policy) => {
                let mut targets = policy.target_refs.iter();
                if targets.any(|target| is_target(target.kind.as_str(), target.name.as_str())) {
                    return Err(refusal(
                        "XBackendTrafficPolicy",
                        doc,
                        &format!("Service {}", service.name()),
                    ));
                }
            }
            Spec::BackendTlsPolicy(policy) => {
                let mut targets = policy.target_refs.iter();
                if targets.any(|target| is_target(target.kind.as_str(), target.name.as_str())) {
                    return Err(refusal("BackendTLSPolicy", doc, &format!("Service {}", service.name())));
                }
            }
            _ => {}
        }
    }
    Ok(guards)
}

/// True for a Policy that is attached to a port of a Service, or to all of it.
pub(crate) fn is_for(policy: &Policy, service: &Doc, port: &PortSpec) -> bool {
    policy.target_refs.iter().any(|target| {
        let section = target.section_name.as_ref().map(|name| name.as_str());
        let own = port.name.as_ref().map(|name| name.as_str());
        target.kind.as_str() == "Service"
            && target.name.as_str() == service.name()
            && section.is_none_or(|section| Some(section) == own)
    })
}

/// A port of a service, by its number.
pub(crate) fn port_spec<'b>(bundle: &'b Bundle, port: &ServicePort) -> Option<(&'b Doc, &'b PortSpec)> {
    let (doc, spec) = service(bundle, port).ok()?;
    let found = spec.ports.iter().find(|candidate| candidate.port.number() == port.port)?;
    Some((doc, found))
}

pub(crate) fn refusal(what: &str, doc: &Doc, about: &str) -> Why {
    Why::Refused(format!(
        "a gRPC client cannot do what `{what}` of {} {}/{} asks of callers of {about}: call it through a proxy",
        doc.id.kind,
        doc.namespace(),
        doc.name()
    ))
}
