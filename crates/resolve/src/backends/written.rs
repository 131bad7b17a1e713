//! What a Backend document says about its endpoints and the choice among them.

use std::hash::{DefaultHasher, Hash};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rhumb_balance::{Algorithm, EndpointSpec};
use rhumb_codec::field::FieldName;
use rhumb_codec::proxy_protocol;
use rhumb_model::kind::backend::{
    Algorithm as WrittenAlgorithm, Backend, DnsType, HashOn as WrittenHashOn, ProxyProtocolVersion,
};
use rhumb_model::{Doc, Source};
use rhumb_plan::HashOn;
use rhumb_policy::Want;

use super::names::{DnsKind, DnsName};

/// The PROXY protocol towards endpoints.
pub(super) fn proxy_protocol_of(spec: &Backend) -> Option<proxy_protocol::Version> {
    spec.proxy_protocol.as_ref().map(|version| match version.value {
        ProxyProtocolVersion::V1 => proxy_protocol::Version::V1,
        ProxyProtocolVersion::V2 => proxy_protocol::Version::V2,
    })
}

pub(super) fn balancing(spec: &Backend) -> (Algorithm, HashOn) {
    let Some(written) = &spec.load_balancing else { return (Algorithm::LeastBusy, HashOn::default()) };
    let algorithm = match *written.algorithm {
        WrittenAlgorithm::LeastBusy => Algorithm::LeastBusy,
        WrittenAlgorithm::RoundRobin => Algorithm::RoundRobin,
        WrittenAlgorithm::Random => Algorithm::Random,
        WrittenAlgorithm::RingHash => Algorithm::RingHash,
        WrittenAlgorithm::Maglev => Algorithm::Maglev,
    };
    let hash_on = match written.hash_on.as_ref().map(|hash_on| &hash_on.value) {
        None | Some(WrittenHashOn::SourceIp) => HashOn::SourceIp,
        Some(WrittenHashOn::Path) => HashOn::Path,
        Some(WrittenHashOn::Cookie(name)) => HashOn::Cookie(name.clone()),
        Some(WrittenHashOn::Header(name)) => {
            FieldName::parse(name.as_str().as_bytes()).map_or(HashOn::SourceIp, HashOn::Header)
        }
    };
    (algorithm, hash_on)
}

/// Endpoints with addresses, and names that have to be looked up.
pub(super) fn endpoints(spec: &Backend) -> (Vec<EndpointSpec>, Vec<DnsName>) {
    let (mut fixed, mut names) = (Vec::new(), Vec::new());
    for endpoint in &spec.endpoints {
        let weight = u32::try_from(endpoint.weight.get()).unwrap_or(1);
        let priority = endpoint.priority.as_ref().map_or(0, |level| u32::try_from(level.get()).unwrap_or(0));
        let zone = endpoint.zone.as_ref().map(|zone| Arc::from(&*zone.value));
        let port = endpoint.address.port().get();
        match endpoint.address.host().parse::<IpAddr>() {
            Ok(ip) => {
                let address = SocketAddr::new(ip, port);
                fixed.push(EndpointSpec { address, hostname: None, weight, zone, priority, tunnel: 0 });
            }
            Err(_) => {
                let name = endpoint.address.host().into();
                names.push(DnsName { name, kind: DnsKind::Addresses, port, weight, zone, priority });
            }
        }
    }
    if let Some((name, port)) = spec.dns_target() {
        let kind = match *spec.dns_type {
            DnsType::A => DnsKind::Addresses,
            DnsType::Srv => DnsKind::Services,
        };
        names.push(DnsName { name: name.into(), kind, port, weight: 1, zone: None, priority: 0 });
    }
    (fixed, names)
}

pub(super) fn hash_written(
    fixed: &[EndpointSpec],
    names: &[DnsName],
    hash_on: &HashOn,
    hasher: &mut DefaultHasher,
) {
    for spec in fixed {
        (spec.address, spec.weight, &spec.zone, spec.priority).hash(hasher);
    }
    for name in names {
        (&name.name, name.kind, name.port, name.weight, &name.zone, name.priority).hash(hasher);
    }
    match hash_on {
        HashOn::SourceIp => 0.hash(hasher),
        HashOn::Path => 1.hash(hasher),
        HashOn::Header(name) => (2, name.as_bytes()).hash(hasher),
        HashOn::Cookie(name) => (3, name).hash(hasher),
    }
}

/// A Backend document for the origin of a URL: its host is the one endpoint's, or a DNS name.
pub(super) fn document(want: &Want) -> Option<Arc<Doc>> {
    let origin = want.origin.as_ref()?;
    let bare = origin.host.trim_start_matches('[').trim_end_matches(']');
    let at = format!("{}:{}", origin.host, origin.port);
    let place = match bare.parse::<IpAddr>() {
        Ok(_) => format!("endpoints: [\"{at}\"]"),
        Err(_) => format!("dns: \"{at}\""),
    };
    let tls = if origin.is_tls { ", tls: {}" } else { "" };
    let text = format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Backend\nmetadata: {{name: origin}}\nspec: {{{place}{tls}}}\n"
    );
    let source = Arc::new(Source::new(&*want.backend, 1, text));
    rhumb_model::read(&source, None, &[]).docs.pop()
}
