//! What routes say of Services.

use foldhash::HashSet;
use std::sync::Arc;

use rhumb_model::kind::filter::FilterAction;
use rhumb_model::kind::refs::ParentRef;
use rhumb_model::{Doc, Spec};

use super::PortKey;
use crate::collect::namespace_or;

/// A name that stands for all ports of a Service.
pub(super) fn any_port(name: &PortKey) -> PortKey {
    (name.0.clone(), name.1.clone(), 0)
}

/// What routes say of Services.
#[derive(Default)]
pub(super) struct Routed {
    /// Ports, 0 for all of one Service, that requests have routes for.
    pub(super) requests: HashSet<PortKey>,
    pub(super) connections: HashSet<PortKey>,
    /// Ports that some route sends to.
    pub(super) backends: Vec<PortKey>,
}

impl Routed {
    pub(super) fn find(docs: &[Arc<Doc>], client: Option<&str>) -> Self {
        let mut this = Self::default();
        for doc in docs {
            let parents = |parents: &[ParentRef], to: &mut HashSet<PortKey>| {
                for parent in parents.iter().filter(|parent| parent.is_service()) {
                    let namespace = namespace_or(parent.namespace.as_ref(), doc);
                    if holds(doc.namespace(), namespace, client) {
                        let port = parent.port.as_ref().map_or(0, |port| port.number());
                        to.insert((namespace.into(), parent.name.as_str().into(), port));
                    }
                }
            };
            let mut refer = |kind: &str, namespace: Option<&str>, name: &str, port: Option<u16>| {
                if let (true, Some(port)) = (kind == "Service", port) {
                    this.backends.push((
                        namespace.unwrap_or_else(|| doc.namespace()).into(),
                        name.into(),
                        port,
                    ));
                }
            };
            match &doc.spec {
                Spec::HttpRoute(route) => {
                    parents(&route.parent_refs, &mut this.requests);
                    for rule in &route.rules {
                        for one in &rule.backend_refs {
                            let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                            let port = one.port.as_ref().map(|port| port.number());
                            refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                        }
                        for filter in &rule.filters {
                            let Some(FilterAction::Mirror(mirror)) = filter.action() else { continue };
                            let one = &mirror.backend_ref;
                            let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                            let port = one.port.as_ref().map(|port| port.number());
                            refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                        }
                    }
                }
                Spec::GrpcRoute(route) => {
                    parents(&route.parent_refs, &mut this.requests);
                    for one in route.rules.iter().flat_map(|rule| &rule.backend_refs) {
                        let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                        let port = one.port.as_ref().map(|port| port.number());
                        refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                    }
                }
                Spec::TcpRoute(route) => {
                    parents(&route.parent_refs, &mut this.connections);
                    for one in route.rules.iter().flat_map(|rule| &rule.backend_refs) {
                        let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                        let port = one.port.as_ref().map(|port| port.number());
                        refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                    }
                }
                Spec::TlsRoute(route) => {
                    for one in route.rules.iter().flat_map(|rule| &rule.backend_refs) {
                        let namespace = one.namespace.as_ref().map(|namespace| namespace.as_str());
                        let port = one.port.as_ref().map(|port| port.number());
                        refer(one.kind.as_str(), namespace, one.name.as_str(), port);
                    }
                }
                _ => {}
            }
        }
        this
    }
}

/// True when a route that names a Service as its parent holds for calls from here: one of the Service's own namespace
/// does for every caller, another one for callers of its namespace (GEP-1426, producer and consumer routes).
pub(crate) fn holds(route: &str, service: &str, client: Option<&str>) -> bool {
    route == service || client == Some(route)
}
