//! Endpoints of services from a control plane: a change of them reaches the requests after it without another plan.
//!
//! Each port of such a service has a backend whose endpoint cell is filled here, together with the identities that its
//! proxies may have. Lives on the control thread; workers see only the cells.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rhumb_agent::ads::resource::{Endpoint, EndpointSet, Mtls};
use rhumb_balance::{EndpointSpec, Nanos};
use rhumb_base::spiffe::SpiffeId;
use rhumb_plan::mesh::Placed;
use rhumb_plan::{Backend, Plan};

/// The port of a workload's proxy when nothing is said about it.
const TUNNEL: u16 = 15_008;

/// How long whoever has left may answer what it was asked before: connections to proxies that nobody expects are cut.
const FAREWELL: Duration = Duration::from_secs(60);

/// The most weight of one endpoint.
const MAX_WEIGHT: u32 = 1_000;

/// Where the services of the plan in force are.
pub(crate) struct ServicePlaces {
    /// By service, as `NAMESPACE/NAME`.
    sets: HashMap<Box<str>, EndpointSet>,
    /// Backends of the plan in force, by service.
    backends: HashMap<Box<str>, Vec<Filled>>,
    /// Addresses of workloads of services that are called here, in the plan in force.
    addresses: Option<Arc<rhumb_plan::mesh::Addresses>>,
    /// Endpoints have come or gone since these were worked out.
    is_moved: bool,
    origin: Instant,
}

/// A backend with what its cell was filled with.
struct Filled {
    backend: Arc<Backend>,
    specs: Vec<EndpointSpec>,
    /// Who its workloads are, by their names.
    known: BTreeMap<Box<str>, SpiffeId>,
    /// Who has left, and until when that one may answer what it was asked.
    leaving: Vec<(SpiffeId, Instant)>,
}

impl ServicePlaces {
    /// Of no service. `origin` is where the balancer's clock begins.
    pub(crate) fn new(origin: Instant) -> Self {
        Self { sets: HashMap::new(), backends: HashMap::new(), addresses: None, is_moved: false, origin }
    }

    /// Takes the endpoints of a service; nothing when there are none to be had any more. They count from here on.
    ///
    /// # Errors
    /// When they cannot be read; those from before then stay.
    pub(crate) fn place(
        &mut self,
        service: &str,
        content: Option<&Bytes>,
        now: Instant,
    ) -> Result<(), prost::DecodeError> {
        let set = content.map(|content| EndpointSet::decode(content.clone())).transpose()?;
        self.sets.insert(service.into(), set.unwrap_or_default());
        if let Some((name, mut filled)) = self.backends.remove_entry(service) {
            for filled in &mut filled {
                self.is_moved |= self.publish(service, filled, now);
            }
            self.backends.insert(name, filled);
        }
        Ok(())
    }

    /// Forgets the endpoints of services that are not kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.sets.retain(|service, _| keep(service));
    }

    /// Fills the backends of a plan that comes into force. What is filled already is left as it is.
    pub(crate) fn settle(&mut self, plan: &Plan, now: Instant) {
        let mut before: HashMap<(Box<str>, u16), Filled> = HashMap::new();
        for filled in std::mem::take(&mut self.backends).into_values().flatten() {
            let Some(placed) = placed_of(&filled.backend) else { continue };
            before.insert((placed.service.clone(), placed.number), filled);
        }
        for backend in &plan.backends {
            let Some(placed) = placed_of(backend) else { continue };
            let filled = match before.remove(&(placed.service.clone(), placed.number)) {
                Some(filled) if Arc::ptr_eq(&filled.backend, backend) => filled,
                // Another cell; who is leaving leaves all the same.
                other => {
                    let (known, leaving) =
                        other.map(|other| (other.known, other.leaving)).unwrap_or_default();
                    let mut filled =
                        Filled { backend: Arc::clone(backend), specs: Vec::new(), known, leaving };
                    self.publish(&placed.service, &mut filled, now);
                    filled
                }
            };
            self.backends.entry(placed.service.clone()).or_default().push(filled);
        }
        // Nobody comes by the address of a workload where connections are not captured.
        let captured = plan.mesh.as_ref().filter(|mesh| mesh.capture.is_some());
        self.addresses = captured.map(|mesh| Arc::clone(&mesh.places));
        self.is_moved = true;
        self.readdress();
    }

    /// True when somebody who has left is expected still.
    pub(crate) fn is_untidy(&self) -> bool {
        self.backends.values().flatten().any(|filled| !filled.leaving.is_empty())
    }

    /// Expects nobody any more who has left long ago. Call it every second or so.
    pub(crate) fn tidy(&mut self, now: Instant) {
        for filled in self.backends.values_mut().flatten() {
            if filled.leaving.iter().any(|(_, until)| *until <= now) {
                expect(filled, now);
            }
        }
    }

    /// Has the addresses of workloads lead to their services.
    pub(crate) fn readdress(&mut self) {
        if !std::mem::take(&mut self.is_moved) {
            return;
        }
        let Some(addresses) = &self.addresses else { return };
        let mut all = HashMap::new();
        for filled in self.backends.values().flatten() {
            let Some(placed) = placed_of(&filled.backend) else { continue };
            let name: Arc<str> = format!("{}:{}", placed.service, placed.number).into();
            all.extend(filled.specs.iter().map(|spec| (spec.address, Arc::clone(&name))));
        }
        addresses.store(Arc::new(all));
    }

    /// Fills a backend. True when there are other addresses than before.
    fn publish(&self, service: &str, filled: &mut Filled, now: Instant) -> bool {
        let backend = Arc::clone(&filled.backend);
        let Some(placed) = placed_of(&backend) else { return false };
        let none = EndpointSet::default();
        let set = self.sets.get(service).unwrap_or(&none);
        let specs = specs(set, placed);
        let known: BTreeMap<Box<str>, SpiffeId> =
            identities(set).map(|(workload, id)| (workload.into(), id)).collect();
        // One that is somebody else by now has not left: it is not to be talked to as who it was.
        for (workload, id) in std::mem::take(&mut filled.known) {
            if !known.contains_key(&workload) {
                filled.leaving.retain(|(leaving, _)| *leaving != id);
                filled.leaving.push((id, now + FAREWELL));
            }
        }
        filled.known = known;
        // Whom there are to be connections to is expected before they can be made.
        expect(filled, now);
        let addresses = |specs: &[EndpointSpec]| specs.iter().map(|spec| spec.address).collect::<Vec<_>>();
        let is_moved = addresses(&filled.specs) != addresses(&specs);
        if filled.specs != specs || filled.backend.endpoints.load().members().len() != specs.len() {
            filled.backend.endpoints.publish(specs.clone(), Nanos::since(self.origin, now));
            filled.specs = specs;
        }
        is_moved
    }
}

fn placed_of(backend: &Backend) -> Option<&Placed> {
    backend.mesh.as_ref()?.placed.as_ref()
}

/// Has proxies of a backend be those that are known, and those that are leaving.
fn expect(filled: &mut Filled, now: Instant) {
    filled.leaving.retain(|(_, until)| *until > now);
    let Some(way) = &filled.backend.mesh else { return };
    let leaving = filled.leaving.iter().map(|(id, _)| id);
    way.expected.swap(filled.known.values().chain(leaving).cloned());
}

/// Endpoints that take requests: those that say that they are unwell do when all do.
fn usable(set: &EndpointSet) -> impl Iterator<Item = &Endpoint> {
    let has_healthy = set.endpoints.iter().any(|endpoint| !endpoint.unhealthy && !endpoint.draining);
    set.endpoints.iter().filter(move |endpoint| !endpoint.draining && (!endpoint.unhealthy || !has_healthy))
}

/// Who its workloads are, of those behind a proxy.
fn identities(set: &EndpointSet) -> impl Iterator<Item = (&str, SpiffeId)> {
    let behind = usable(set).filter(|endpoint| endpoint.mtls != Mtls::None as i32);
    behind.filter_map(|endpoint| Some((&*endpoint.workload, SpiffeId::parse(&endpoint.identity).ok()?)))
}

fn specs(set: &EndpointSet, placed: &Placed) -> Vec<EndpointSpec> {
    let spec = |endpoint: &Endpoint| {
        let port = endpoint.ports.iter().find(|port| *port.name == *placed.port)?;
        let number = u16::try_from(port.number).ok()?;
        let address = SocketAddr::new(endpoint.address.parse().ok()?, number);
        // Only who says that there is no proxy is sent plain text.
        let tunnel = match Mtls::try_from(endpoint.mtls) {
            Ok(Mtls::None) => 0,
            _ => u16::try_from(endpoint.tunnel).ok().filter(|tunnel| *tunnel > 0).unwrap_or(TUNNEL),
        };
        let zone = (!endpoint.locality.is_empty()).then(|| endpoint.locality.as_str().into());
        Some(EndpointSpec {
            zone,
            tunnel,
            weight: endpoint.weight.min(MAX_WEIGHT),
            ..EndpointSpec::new(address)
        })
    };
    usable(set).filter_map(spec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_agent::ads::resource::Port;

    fn endpoint(last: u8, mtls: Mtls) -> Endpoint {
        Endpoint {
            workload: format!("shop/w{last}"),
            address: format!("10.0.0.{last}"),
            ports: vec![Port { name: "http".to_owned(), number: 9000 }],
            identity: format!("spiffe://cluster.local/ns/shop/sa/a{last}"),
            weight: 3,
            mtls: mtls.into(),
            ..Endpoint::default()
        }
    }

    fn placed(port: &str) -> Placed {
        Placed { service: "shop/orders".into(), port: port.into(), number: 80 }
    }

    #[test]
    fn only_who_says_that_there_is_no_proxy_is_sent_plain_text() {
        let set = EndpointSet {
            endpoints: vec![
                endpoint(1, Mtls::Strict),
                endpoint(2, Mtls::Permissive),
                endpoint(3, Mtls::None),
                Endpoint { mtls: 99, tunnel: 70_000, ..endpoint(4, Mtls::Strict) },
                Endpoint { tunnel: 15_009, ..endpoint(5, Mtls::Strict) },
                Endpoint { address: "host".to_owned(), ..endpoint(6, Mtls::None) },
            ],
        };
        let tunnels: Vec<_> =
            specs(&set, &placed("http")).iter().map(|spec| (spec.address.to_string(), spec.tunnel)).collect();
        let expected = [(1, 15_008), (2, 15_008), (3, 0), (4, 15_008), (5, 15_009)];
        let expected = expected.map(|(last, tunnel)| (format!("10.0.0.{last}:9000"), tunnel));
        assert_eq!(tunnels, expected);
        assert!(specs(&set, &placed("admin")).is_empty(), "a port that it does not have");
        let known: Vec<_> =
            identities(&set).map(|(_, id)| id.as_str().rsplit('/').next().unwrap().to_owned()).collect();
        assert_eq!(known, ["a1", "a2", "a4", "a5"]);
    }

    #[test]
    fn who_is_unwell_or_leaves_is_left_out_unless_nobody_else_is_there() {
        let count = |endpoints| specs(&EndpointSet { endpoints }, &placed("http")).len();
        let unwell = |last| Endpoint { unhealthy: true, ..endpoint(last, Mtls::Strict) };
        let leaves = Endpoint { draining: true, ..endpoint(9, Mtls::Strict) };
        assert_eq!(count(vec![endpoint(1, Mtls::Strict), unwell(2)]), 1);
        assert_eq!(count(vec![unwell(1), unwell(2), leaves.clone()]), 2);
        assert_eq!(count(vec![leaves]), 0);
    }
}
