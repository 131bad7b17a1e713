//! Endpoints of a control plane as Workload documents, for those who are told of them by documents.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use rhumb_agent::ads::Kind;
use rhumb_agent::ads::resource::{Document, Documents, EndpointSet, Mtls};
use serde_json::json;

/// True when some of the endpoints of a service are to be asked whether they are well.
pub(super) fn is_asked(content: &Bytes) -> bool {
    let set = EndpointSet::decode(content.clone()).unwrap_or_default();
    set.endpoints.iter().any(|endpoint| !endpoint.health.is_empty())
}

/// Endpoints as Workload documents, in bundles of one each.
pub(super) fn workloads(
    bundles: &BTreeMap<(Kind, Box<str>), Bytes>,
    is_wanted: impl Fn(&Bytes) -> bool,
) -> Vec<Bytes> {
    let mut places: BTreeMap<String, Place> = BTreeMap::new();
    for ((kind, service), bytes) in bundles {
        if *kind != Kind::Endpoints || !is_wanted(bytes) {
            continue;
        }
        let Ok(set) = EndpointSet::decode(bytes.clone()) else { continue };
        let name = service.split('/').nth(1).unwrap_or_default();
        let has_healthy = set.endpoints.iter().any(|endpoint| !endpoint.unhealthy);
        for endpoint in set.endpoints {
            if endpoint.draining || (endpoint.unhealthy && has_healthy) {
                continue;
            }
            let place = places.entry(endpoint.workload.clone()).or_default();
            place.services.insert(name.to_owned());
            for port in &endpoint.ports {
                place.ports.insert(port.name.clone(), port.number);
            }
            place.account = endpoint.identity.rsplit("/sa/").next().unwrap_or_default().to_owned();
            (place.address, place.weight) = (endpoint.address, endpoint.weight);
            (place.locality, place.mtls, place.tunnel) = (endpoint.locality, endpoint.mtls, endpoint.tunnel);
            place.health = endpoint.health;
        }
    }
    places.into_iter().filter_map(|(id, place)| document(&id, &place)).collect()
}

/// What a workload is, over all services that it is an endpoint of.
#[derive(Default)]
struct Place {
    address: String,
    ports: BTreeMap<String, u32>,
    services: BTreeSet<String>,
    account: String,
    weight: u32,
    locality: String,
    mtls: i32,
    tunnel: u32,
    health: String,
}

fn document(id: &str, place: &Place) -> Option<Bytes> {
    let (namespace, name) = id.split_once('/')?;
    let ports: BTreeMap<&String, u32> =
        place.ports.iter().filter(|(name, _)| !name.is_empty()).map(|(name, port)| (name, *port)).collect();
    let mut spec = json!({
        "address": place.address,
        "ports": ports,
        "services": place.services,
        "weight": place.weight.clamp(1, 1_000),
        "mtls": match Mtls::try_from(place.mtls) {
            Ok(Mtls::None) => "none",
            Ok(Mtls::Permissive) => "permissive",
            _ => "strict",
        },
    });
    if !place.account.is_empty() {
        spec["serviceAccount"] = json!(place.account);
    }
    if !place.locality.is_empty() {
        spec["locality"] = json!(place.locality);
    }
    if let Ok(health) = serde_json::from_str::<serde_json::Value>(&place.health) {
        spec["health"] = health;
    }
    if place.tunnel != 0 {
        spec["tunnelPort"] = json!(place.tunnel);
    }
    let document = json!({
        "apiVersion": "rhumb.dev/v1alpha1",
        "kind": "Workload",
        "metadata": { "name": name, "namespace": namespace },
        "spec": spec,
    });
    let one = Document { json: document.to_string().into(), revision: 0 };
    Some(Documents { documents: vec![one] }.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_agent::ads::resource::{Endpoint, Port};

    fn set(service: &str, endpoints: Vec<Endpoint>) -> ((Kind, Box<str>), Bytes) {
        let name = format!("shop/{service}").into();
        ((Kind::Endpoints, name), EndpointSet { endpoints }.encode_to_vec().into())
    }

    fn endpoint(port: &str, number: u32) -> Endpoint {
        Endpoint {
            workload: "shop/w".to_owned(),
            address: "10.0.0.1".to_owned(),
            ports: vec![Port { name: port.to_owned(), number }],
            identity: "spiffe://cluster.local/ns/shop/sa/orders".to_owned(),
            weight: 3,
            ..Endpoint::default()
        }
    }

    #[test]
    fn a_workload_of_two_services_is_one_document() {
        let bundles: BTreeMap<_, _> =
            [set("orders", vec![endpoint("http", 80)]), set("admin", vec![endpoint("adm", 81)])].into();
        let all = workloads(&bundles, |_| true);
        assert_eq!(all.len(), 1);
        let documents = Documents::decode(all[0].clone()).unwrap().documents;
        let value: serde_json::Value = serde_json::from_slice(&documents[0].json).unwrap();
        assert_eq!(
            value["spec"],
            json!({
                "address": "10.0.0.1", "ports": { "adm": 81, "http": 80 }, "services": ["admin", "orders"],
                "weight": 3, "mtls": "strict", "serviceAccount": "orders",
            })
        );
    }

    #[test]
    fn who_is_unwell_or_leaves_is_left_out_unless_nobody_else_is_there() {
        let count = |endpoints| workloads(&[set("orders", endpoints)].into(), |_| true).len();
        let unwell = |name: &str| Endpoint { workload: name.to_owned(), unhealthy: true, ..endpoint("", 80) };
        let leaves = Endpoint { draining: true, ..endpoint("", 80) };
        assert_eq!(count(vec![endpoint("", 80), unwell("shop/x")]), 1);
        assert_eq!(count(vec![unwell("shop/x"), unwell("shop/y")]), 2);
        assert_eq!(count(vec![leaves]), 0);
    }
}
