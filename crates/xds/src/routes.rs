//! Routes of a Service as gRPC clients know them.
//!
//! They take the first route that matches, so routes are sent in the order in which they win here.

mod manners;
mod rule;

use std::cmp::Reverse;

use rhumb_model::kind::policy::Policy;
use rhumb_model::kind::refs::{GATEWAY_GROUP, ParentRef};
use rhumb_model::{Doc, Spec};

use crate::bundle::{Bundle, Facts, Why};
use crate::name::ServicePort;
use crate::offer::{Client, is_for, port_spec, reach};
use crate::wire::{
    Action, ClusterSpecifier, ClusterWeight, Empty, Number, PathSpecifier, Route, RouteMatch, VirtualHost,
    WeightedCluster,
};

use manners::Manners;
use rule::Rule;

pub(crate) use manners::can_obey;

/// The place of a match among the others; the least wins.
type Order = (Reverse<(u8, usize)>, bool, Reverse<usize>, Option<Box<str>>, String, usize);

/// The routes of a port.
pub(crate) fn virtual_host(
    facts: &mut Facts,
    client: &Client,
    port: &ServicePort,
    bundle: &Bundle,
) -> Result<VirtualHost, Why> {
    let mut manners = Manners::default();
    if let Some((service, spec)) = port_spec(bundle, port) {
        for (doc, policy) in policies(bundle, &port.namespace) {
            if is_for(policy, service, spec) {
                manners = manners.with(doc, policy)?;
            }
        }
    }
    let mut found: Vec<(Order, Route)> = Vec::new();
    let mut has_routes = false;
    for doc in &bundle.documents {
        let (parents, hostnames) = match &doc.spec {
            Spec::HttpRoute(route) => (&*route.parent_refs, route.hostnames.is_empty()),
            Spec::GrpcRoute(route) => (&*route.parent_refs, route.hostnames.is_empty()),
            _ => continue,
        };
        // One of another namespace holds for callers of its own.
        let is_heard = doc.namespace() == port.namespace || doc.namespace() == client.namespace;
        if !is_heard || !parents.iter().any(|parent| is_parent(parent, doc, port)) {
            continue;
        }
        has_routes = true;
        let unreadable =
            |what: &str| Why::Refused(format!("{} {}/{} {what}", doc.id.kind, doc.namespace(), doc.name()));
        if doc.broken {
            return Err(unreadable("has mistakes"));
        }
        if !hostnames {
            return Err(unreadable("has hostnames, which calls without a proxy are not compared with"));
        }
        let by_route = {
            let mut manners = manners.clone();
            for (policy_doc, policy) in policies(bundle, doc.namespace()) {
                if is_target(policy, doc, None) {
                    manners = manners.with_all(policy_doc, policy)?;
                }
            }
            manners
        };
        let rules = match &doc.spec {
            Spec::HttpRoute(route) => route.rules.iter().map(|rule| Rule::of_http(doc, rule)).collect(),
            Spec::GrpcRoute(route) => route.rules.iter().map(|rule| Rule::of_grpc(doc, rule)).collect(),
            _ => Vec::new(),
        };
        // A route without rules sends nothing anywhere.
        for (place, rule) in rules.into_iter().enumerate() {
            let rule = rule?;
            let mut manners = by_route.clone();
            for (policy_doc, policy) in policies(bundle, doc.namespace()) {
                let is_named = rule.name.as_deref().is_some_and(|name| is_target(policy, doc, Some(name)));
                let is_extension = policy_doc.namespace() == doc.namespace()
                    && rule.extensions.iter().any(|name| **name == *policy_doc.name());
                if is_named || is_extension {
                    manners = manners.with_all(policy_doc, policy)?;
                }
            }
            manners = manners.or_written(rule.limit, rule.retry.clone());
            let action = action(facts, client, bundle, doc, &rule, &manners)?;
            for (rank, r#match) in rule.matches {
                let fields = r#match.headers.len();
                let order = (
                    Reverse(rank.path),
                    !rank.has_method,
                    Reverse(fields),
                    doc.created.clone(),
                    format!("{}/{}", doc.namespace(), doc.name()),
                    place,
                );
                let name = format!("{}/{}/{place}", doc.namespace(), doc.name());
                found.push((order, Route { r#match: Some(r#match), action: Some(action.clone()), name }));
            }
        }
    }
    let domains = vec!["*".to_owned()];
    let name = port.to_string();
    if has_routes {
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let routes = found.into_iter().map(|(_, route)| route).collect();
        return Ok(VirtualHost { name, domains, routes });
    }
    let cluster = reach(facts, client, port)?.server_name;
    let action = manners.action(Some(ClusterSpecifier::Cluster(cluster)));
    let every = RouteMatch { path: Some(PathSpecifier::Prefix(String::new())), headers: Vec::new() };
    let route = Route { r#match: Some(every), action: Some(action), name: "default".to_owned() };
    Ok(VirtualHost { name, domains, routes: vec![route] })
}

fn policies<'b>(bundle: &'b Bundle, namespace: &str) -> impl Iterator<Item = (&'b Doc, &'b Policy)> {
    let all = bundle.documents.iter().filter(move |doc| doc.namespace() == namespace);
    all.filter_map(|doc| match &doc.spec {
        Spec::Policy(policy) => Some((&**doc, &**policy)),
        _ => None,
    })
}

fn is_parent(parent: &ParentRef, route: &Doc, port: &ServicePort) -> bool {
    let namespace =
        parent.namespace.as_ref().map_or_else(|| route.namespace(), |namespace| namespace.as_str());
    parent.is_service()
        && namespace == port.namespace
        && parent.name.as_str() == port.service
        && parent.port.as_ref().is_none_or(|number| number.number() == port.port)
}

/// True for a Policy that is attached to a route, or to one of its rules.
fn is_target(policy: &Policy, route: &Doc, rule: Option<&str>) -> bool {
    policy.target_refs.iter().any(|target| {
        *target.kind.as_str() == *route.id.kind
            && target.name.as_str() == route.name()
            && target.section_name.as_ref().map(|name| name.as_str()) == rule
    })
}

/// Where the requests of a rule go.
fn action(
    facts: &mut Facts,
    client: &Client,
    bundle: &Bundle,
    doc: &Doc,
    rule: &Rule,
    manners: &Manners,
) -> Result<Action, Why> {
    let mut clusters = Vec::new();
    for backend in &rule.backends {
        if backend.to.namespace != doc.namespace() && !is_granted(bundle, doc, &backend.to) {
            return Err(Why::Refused(format!(
                "{} {}/{} may not refer to Service {}: no ReferenceGrant there allows it",
                doc.id.kind,
                doc.namespace(),
                doc.name(),
                backend.to.path()
            )));
        }
        let name = match reach(facts, client, &backend.to) {
            Ok(reach) => reach.server_name,
            Err(Why::Absent(why)) => return Err(Why::Refused(why)),
            Err(why) => return Err(why),
        };
        if backend.weight > 0 {
            clusters.push(ClusterWeight { name, weight: Some(Number { value: backend.weight }) });
        }
    }
    Ok(match clusters.len() {
        0 => Action::None(Empty {}),
        1 => manners.action(clusters.pop().map(|cluster| ClusterSpecifier::Cluster(cluster.name))),
        _ => manners.action(Some(ClusterSpecifier::Weighted(WeightedCluster { clusters }))),
    })
}

fn is_granted(bundle: &Bundle, from: &Doc, to: &ServicePort) -> bool {
    bundle.documents.iter().any(|doc| match &doc.spec {
        Spec::ReferenceGrant(grant) => {
            doc.namespace() == to.namespace
                && grant
                    .allows((GATEWAY_GROUP, &from.id.kind, from.namespace()), ("", "Service", &to.service))
        }
        _ => false,
    })
}
