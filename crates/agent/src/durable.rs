//! Which changes have to be on disk before they are acknowledged.
//!
//! Whoever is told that a change is in force relies on it, also where the proxy dies the next moment and begins anew with what
//! it has on disk while no control plane is there. So what forbids something comes first: documents, and endpoints that are
//! not called in plain text any more. Other endpoints come and go too often, and are found to be gone by calling them.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use rhumb_ads::resource::{EndpointSet, Mtls};
use rhumb_ads::{Change, Follower, Kind};

/// Whether a change has to be on disk before it is acknowledged. To be asked before it is taken over.
pub fn is_saved_first(follower: &Follower, change: &Change) -> bool {
    match change.kind {
        Kind::Own | Kind::Service | Kind::Gateway => true,
        Kind::Address => false,
        Kind::Endpoints => change.items.iter().any(|item| {
            let before = follower.known(Kind::Endpoints, &item.name).flatten().map(called_in_plain_text);
            let after = || item.content.as_ref().map(called_in_plain_text).unwrap_or_default();
            before.is_some_and(|before| !before.is_empty() && !before.is_subset(&after()))
        }),
    }
}

/// Addresses of endpoints without a proxy. What cannot be read is called in no way.
fn called_in_plain_text(content: &Bytes) -> BTreeSet<String> {
    let set = EndpointSet::decode(content.clone()).unwrap_or_default();
    let plain = set.endpoints.into_iter().filter(|endpoint| endpoint.mtls == Mtls::None as i32);
    plain.map(|endpoint| endpoint.address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_ads::Version;
    use rhumb_ads::resource::Endpoint;
    use rhumb_ads::wire::{Any, DeltaResponse, Node, Resource};

    fn change(follower: &Follower, kind: Kind, endpoints: &[(&str, Mtls)]) -> Change {
        let endpoint = |(address, mtls): &(&str, Mtls)| Endpoint {
            address: (*address).to_owned(),
            mtls: (*mtls).into(),
            ..Endpoint::default()
        };
        let content = EndpointSet { endpoints: endpoints.iter().map(endpoint).collect() }.encode_to_vec();
        let resource = Resource {
            name: "shop/orders".to_owned(),
            version: Version::of(1, &content).to_string(),
            resource: Some(Any { type_url: kind.url().to_owned(), value: content.into() }),
        };
        let response = DeltaResponse {
            type_url: kind.url().to_owned(),
            resources: vec![resource],
            ..DeltaResponse::default()
        };
        follower.response(response).unwrap()
    }

    #[test]
    fn what_forbids_something_is_saved_first() {
        let mut follower = Follower::new(Node::default());
        for kind in [Kind::Endpoints, Kind::Service] {
            follower.want(kind, "shop/orders");
        }
        assert!(is_saved_first(&follower, &change(&follower, Kind::Service, &[])));
        for (endpoints, is_first) in [
            (&[("10.0.0.1", Mtls::None), ("10.0.0.2", Mtls::Strict)][..], false),
            (&[("10.0.0.1", Mtls::None)], false),
            (&[("10.0.0.1", Mtls::Permissive)], true),
            (&[("10.0.0.1", Mtls::None), ("10.0.0.3", Mtls::None)], false),
            (&[("10.0.0.3", Mtls::None)], true),
            (&[], true),
            (&[("10.0.0.2", Mtls::Strict)], false),
        ] {
            let change = change(&follower, Kind::Endpoints, endpoints);
            assert_eq!(is_saved_first(&follower, &change), is_first, "{endpoints:?}");
            follower.accept(change);
        }
    }
}
