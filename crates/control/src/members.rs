//! Which workloads a service has: by documents, and by those that say so themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rhumb_ads::MAX_NAME_BYTES;
use rhumb_ads::registry::{Registration, registered_port};
use rhumb_ads::resource::{Endpoint, EndpointSet, Mtls, Port};

use crate::document::{Key, Mesh, Role, Service, Target, Workload};
use crate::library::Library;

/// How long an endpoint stays when the stream of its registration broke: the control plane may have gone away, or the
/// network for a moment. Whoever sends requests there finds out by itself meanwhile.
pub const GRACE: Duration = Duration::from_secs(30);

/// The most workloads that register themselves.
pub const MAX_REGISTRATIONS: usize = 100_000;

/// The most services and ports of one registration.
pub const MAX_SERVICES: usize = 64;

/// The workloads.
#[derive(Debug, Default)]
pub struct Members {
    registered: BTreeMap<Arc<str>, Registered>,
    /// Services by workload, as `NAMESPACE/NAME`.
    services: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Workloads by service.
    workloads: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Workloads by address.
    addresses: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    /// Addresses by workload.
    address_of: HashMap<Arc<str>, IpAddr>,
    /// Counts changes of who is registered.
    generation: u64,
}

#[derive(Debug)]
struct Registered {
    registration: Registration,
    /// When its stream broke.
    lost: Option<Instant>,
    /// It is connected to another control plane, which looks after it.
    is_elsewhere: bool,
}

/// What a change of workloads concerns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Services whose endpoints may have changed.
    pub services: BTreeSet<Arc<str>>,
    /// Workloads that belong to other services than before.
    pub workloads: BTreeSet<Arc<str>>,
    /// Addresses behind which there is something else.
    pub addresses: BTreeSet<IpAddr>,
}

/// Why a registration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A name of it, or another text, is too long.
    #[error("what a registration names has at most {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// The name is not `NAMESPACE/NAME`.
    #[error("`{0}` is not NAMESPACE/NAME")]
    Name(String),
    /// The address is none.
    #[error("`{0}` is not an IP address")]
    Address(String),
    /// A port is none.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// Too many services or ports.
    #[error("a workload may have {MAX_SERVICES} services and as many ports")]
    TooMuch,
    /// Too many workloads.
    #[error("there may be {MAX_REGISTRATIONS} registered workloads")]
    TooMany,
}

impl Members {
    /// Another number when other workloads are registered, or say something else.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The services of a workload.
    pub fn services_of(&self, workload: &str) -> &[Arc<str>] {
        self.services.get(workload).map_or(&[], Vec::as_slice)
    }

    /// The workloads at an address.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        self.addresses.get(&address).into_iter().flatten()
    }

    /// What a workload says of itself.
    pub fn registration(&self, workload: &str) -> Option<&Registration> {
        self.registered.get(workload).map(|registered| &registered.registration)
    }

    /// The workloads that registered themselves, and whether they are connected.
    pub fn registrations(&self) -> impl Iterator<Item = (&Registration, bool)> {
        self.registered.values().map(|registered| (&registered.registration, registered.lost.is_none()))
    }

    /// Takes a registration, for the first time or again.
    ///
    /// # Errors
    /// [`Refused`]; what was known before stays.
    pub fn register(&mut self, registration: Registration, library: &Library) -> Result<Moved, Refused> {
        check(&registration)?;
        let id: Arc<str> = registration.workload.as_str().into();
        if !self.registered.contains_key(&id) && self.registered.len() >= MAX_REGISTRATIONS {
            return Err(Refused::TooMany);
        }
        self.registered.insert(id.clone(), Registered { registration, lost: None, is_elsewhere: false });
        Ok(self.workload_changed(&id, library))
    }

    /// Another control plane has a registration.
    pub fn place(&mut self, registration: Registration, library: &Library) -> Moved {
        let id = registration.workload.clone();
        match self.register(registration, library) {
            Ok(moved) => {
                if let Some(registered) = self.registered.get_mut(&*id) {
                    registered.is_elsewhere = true;
                }
                moved
            }
            // It was taken there: by another version, or with more room.
            Err(refused) => {
                tracing::warn!(workload = id, %refused, "a workload of another control plane is left out");
                Moved::default()
            }
        }
    }

    /// No control plane has a registration any more.
    pub fn displace(&mut self, workload: &str, library: &Library) -> Moved {
        match self.registered.remove_entry(workload) {
            Some((id, _)) => self.workload_changed(&id, library),
            None => Moved::default(),
        }
    }

    /// The workloads that are connected here.
    pub fn here(&self) -> impl Iterator<Item = &Registration> {
        let is_here = |registered: &&Registered| registered.lost.is_none() && !registered.is_elsewhere;
        self.registered.values().filter(is_here).map(|registered| &registered.registration)
    }

    /// Whether a workload is connected here.
    pub fn is_here(&self, workload: &str) -> bool {
        let registered = self.registered.get(workload);
        registered.is_some_and(|registered| registered.lost.is_none() && !registered.is_elsewhere)
    }

    /// The stream of a registration broke. Nothing changes yet.
    pub fn lose(&mut self, workload: &str, instance: &str, now: Instant) {
        if let Some(registered) = self.registered.get_mut(workload)
            && registered.registration.instance == instance
            && !registered.is_elsewhere
        {
            registered.lost = Some(now);
        }
    }

    /// Takes a workload out, if it is still the same process.
    pub fn withdraw(&mut self, workload: &str, instance: &str, library: &Library) -> Moved {
        let is_this =
            self.registration(workload).is_some_and(|registration| registration.instance == instance);
        if !is_this {
            return Moved::default();
        }
        match self.registered.remove_entry(workload) {
            Some((id, _)) => self.workload_changed(&id, library),
            None => Moved::default(),
        }
    }

    /// Takes out whoever has been lost for too long, and says when to look again.
    pub fn expire(&mut self, now: Instant, library: &Library) -> (Moved, Option<Instant>) {
        let end = |registered: &Registered| registered.lost.map(|lost| lost + GRACE);
        let gone: Vec<Arc<str>> = self
            .registered
            .iter()
            .filter(|(_, registered)| end(registered).is_some_and(|end| end <= now))
            .map(|(id, _)| id.clone())
            .collect();
        let mut moved = Moved::default();
        for id in gone {
            self.registered.remove(&id);
            moved.add(self.workload_changed(&id, library));
        }
        (moved, self.registered.values().filter_map(end).min())
    }

    /// A Workload's document or registration changed.
    pub fn workload_changed(&mut self, id: &Arc<str>, library: &Library) -> Moved {
        self.generation += 1;
        let mut moved = Moved::default();
        let before = self.services.remove(id).unwrap_or_default();
        let after = self.belongs_to(id, library);
        for service in before.iter().chain(&after) {
            moved.services.insert(service.clone());
        }
        if before != after {
            moved.workloads.insert(id.clone());
            self.leave(id, before.iter().filter(|service| !after.contains(service)));
            for service in after.iter().filter(|service| !before.contains(service)) {
                self.workloads.entry(service.clone()).or_default().insert(id.clone());
            }
        }
        if !after.is_empty() {
            self.services.insert(id.clone(), after);
        }
        self.readdress(id, library, &mut moved);
        moved
    }

    /// A Service's document changed. Only another selector makes other workloads its own.
    pub fn service_changed(&mut self, service: &Key, is_selector_changed: bool, library: &Library) -> Moved {
        let mut moved = Moved::default();
        moved.services.insert(service.path().into());
        if !is_selector_changed {
            return moved;
        }
        let documents =
            library.of("Workload", &service.namespace).map(|document| Arc::from(document.key.path()));
        let prefix = format!("{}/", service.namespace);
        let registered = self.registered.range(Arc::<str>::from(&*prefix)..);
        let registered = registered.map(|(id, _)| id.clone()).take_while(|id| id.starts_with(&prefix));
        let all: BTreeSet<Arc<str>> = documents.chain(registered).collect();
        for id in all {
            if self.belongs_to(&id, library) != self.services_of(&id) {
                moved.add(self.workload_changed(&id, library));
            }
        }
        moved
    }

    /// The content of the endpoints of a service. Nothing when there is no such service and nobody says to be one.
    pub fn endpoints(&self, path: &str, library: &Library, mesh: &Mesh) -> Option<Bytes> {
        let (namespace, name) = split(path)?;
        let document = library.get(&Key::new("Service", namespace, name));
        let workloads = self.workloads.get(path);
        if document.is_none() && workloads.is_none() {
            return None;
        }
        let service = match document.map(|document| &document.role) {
            Some(Role::Service(service)) => Some(&**service),
            _ => None,
        };
        let mut set = EndpointSet::default();
        for id in workloads.into_iter().flatten() {
            set.endpoints.extend(self.endpoint(id, (name, service), library, mesh));
        }
        Some(set.encode_to_vec().into())
    }

    fn endpoint(
        &self,
        id: &Arc<str>,
        (called, service): (&str, Option<&Service>),
        library: &Library,
        mesh: &Mesh,
    ) -> Option<Endpoint> {
        let (namespace, name) = split(id)?;
        let written = written(library, namespace, name);
        let registered = self.registered.get(id).map(|registered| &registered.registration);
        let account = match (registered, written) {
            (Some(registered), _) if !registered.service_account.is_empty() => &*registered.service_account,
            (_, Some(written)) => &written.service_account,
            _ => "default",
        };
        let says = |word: &str| match word {
            "none" => Mtls::None,
            "permissive" => Mtls::Permissive,
            _ => Mtls::Strict,
        };
        let mtls = match (registered, written) {
            (Some(registered), _) => registered.mtls(),
            (None, Some(written)) if !written.mtls.is_empty() => says(&written.mtls),
            (None, _) => says(&mesh.mtls),
        };
        let number = |name: &str| -> Option<u32> {
            let own = registered.and_then(|own| own.ports.iter().find(|port| port.name == name));
            let written = || written?.ports.iter().find(|(port, _)| **port == *name);
            own.map(|port| port.number).or_else(|| written().map(|(_, number)| u32::from(*number)))
        };
        let listens = |of: u16| -> Option<u32> {
            let name = registered_port(called, of);
            registered?.ports.iter().find(|port| port.name == name).map(|port| port.number)
        };
        let ports = match service {
            Some(service) => service
                .ports
                .iter()
                .filter_map(|port| {
                    let target = listens(port.port).or_else(|| match &port.target {
                        Some(Target::Name(name)) => number(name),
                        Some(Target::Number(target)) => {
                            number(&port.name).or_else(|| Some(u32::from(*target)))
                        }
                        None => number(&port.name).or_else(|| Some(u32::from(port.port))),
                    })?;
                    Some(Port { name: port.name.to_string(), number: target })
                })
                .collect(),
            None => registered.map(|registered| registered.ports.clone()).unwrap_or_default(),
        };
        let address = match (registered, written) {
            (Some(registered), _) => registered.address.clone(),
            (None, written) => written?.address.to_string(),
        };
        let weight = match registered.map(|registered| registered.weight) {
            Some(weight) if weight > 0 => weight,
            _ => written.and_then(|written| written.weight).unwrap_or(1),
        };
        let locality = match registered {
            Some(registered) if !registered.locality.is_empty() => registered.locality.clone(),
            _ => written.map(|written| written.locality.to_string()).unwrap_or_default(),
        };
        let identity = match mtls {
            Mtls::None => String::new(),
            _ => format!("spiffe://{}/ns/{namespace}/sa/{account}", mesh.trust_domain),
        };
        Some(Endpoint {
            workload: id.to_string(),
            address,
            ports,
            identity,
            weight,
            locality,
            mtls: mtls.into(),
            draining: false,
            unhealthy: registered.is_some_and(|registered| registered.unhealthy),
            tunnel: registered.map_or(0, |registered| registered.tunnel),
            health: match (mtls, written) {
                (Mtls::None, Some(written)) => written.health.to_string(),
                _ => String::new(),
            },
        })
    }

    /// The services that a workload belongs to, in order.
    fn belongs_to(&self, id: &str, library: &Library) -> Vec<Arc<str>> {
        let Some((namespace, name)) = split(id) else { return Vec::new() };
        let mut services = BTreeSet::new();
        if let Some(registered) = self.registration(id) {
            let account = &registered.service_account;
            let own =
                registered.services.iter().filter(|service| may_serve(library, namespace, service, account));
            services.extend(own.map(|service| format!("{namespace}/{service}")));
        }
        if let Some(written) = written(library, namespace, name) {
            services.extend(written.services.iter().map(|service| format!("{namespace}/{service}")));
            if !written.labels.is_empty() {
                for document in library.of("Service", namespace) {
                    let Role::Service(service) = &document.role else { continue };
                    let selected = service.selector.iter().all(|label| written.labels.contains(label));
                    if selected && !service.selector.is_empty() {
                        services.insert(document.key.path());
                    }
                }
            }
        }
        services.into_iter().map(Arc::from).collect()
    }

    fn leave<'a>(&mut self, id: &Arc<str>, services: impl Iterator<Item = &'a Arc<str>>) {
        for service in services {
            if let Some(workloads) = self.workloads.get_mut(service) {
                workloads.remove(id);
                if workloads.is_empty() {
                    self.workloads.remove(service);
                }
            }
        }
    }

    fn readdress(&mut self, id: &Arc<str>, library: &Library, moved: &mut Moved) {
        let (namespace, name) = split(id).unwrap_or_default();
        let registered = self.registration(id).and_then(|registered| registered.address.parse().ok());
        let address: Option<IpAddr> = registered
            .or_else(|| written(library, namespace, name).and_then(|written| written.address.parse().ok()));
        let before = match address {
            Some(address) => self.address_of.insert(id.clone(), address),
            None => self.address_of.remove(id),
        };
        if let Some(old) = before.filter(|old| Some(*old) != address)
            && let Some(ids) = self.addresses.get_mut(&old)
        {
            ids.remove(id);
            if ids.is_empty() {
                self.addresses.remove(&old);
            }
            moved.addresses.insert(old);
        }
        if let Some(address) = address {
            self.addresses.entry(address).or_default().insert(id.clone());
            moved.addresses.insert(address);
        }
    }
}

impl Moved {
    /// What another change concerns too.
    pub fn add(&mut self, other: Self) {
        self.services.extend(other.services);
        self.workloads.extend(other.workloads);
        self.addresses.extend(other.addresses);
    }
}

/// Whether a workload of a service account may say that it is an endpoint of a service: where the service says whose its
/// workloads are, only theirs.
pub(crate) fn may_serve(library: &Library, namespace: &str, service: &str, account: &str) -> bool {
    let document = library.get(&Key::new("Service", namespace, service));
    match document.map(|document| &document.role) {
        Some(Role::Service(service)) => {
            service.accounts.is_empty() || service.accounts.iter().any(|own| **own == *account)
        }
        _ => true,
    }
}

/// Namespace and name.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let (namespace, name) = path.split_once('/')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains('/')).then_some((namespace, name))
}

/// Whether a registration makes sense, whoever it is of.
pub(crate) fn check(registration: &Registration) -> Result<(), Refused> {
    let Registration { workload, address, services, ports, service_account, locality, instance, .. } =
        registration;
    if services.len() > MAX_SERVICES || ports.len() > MAX_SERVICES {
        return Err(Refused::TooMuch);
    }
    let names = services.iter().chain(ports.iter().map(|port| &port.name));
    let mut texts = [workload, address, service_account, locality, instance].into_iter().chain(names);
    if texts.any(|text| text.len() > MAX_NAME_BYTES) {
        return Err(Refused::TooLong);
    }
    if split(workload).is_none() {
        return Err(Refused::Name(workload.clone()));
    }
    if address.parse::<IpAddr>().is_err() {
        return Err(Refused::Address(address.clone()));
    }
    if ports.iter().any(|port| port.number == 0 || port.number > u32::from(u16::MAX)) {
        return Err(Refused::Port);
    }
    Ok(())
}

fn written<'a>(library: &'a Library, namespace: &str, name: &str) -> Option<&'a Workload> {
    match &library.get(&Key::new("Workload", namespace, name))?.role {
        Role::Workload(workload) => Some(workload),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tests::document;
    use serde_json::{Value, json};

    fn put(library: &mut Library, members: &mut Members, value: Value) -> Moved {
        let document = document(&value, 1);
        let key = document.key.clone();
        library.set(&key, Some(Arc::new(document)));
        match &*key.kind {
            "Service" => members.service_changed(&key, true, library),
            _ => members.workload_changed(&key.path().into(), library),
        }
    }

    fn service(selector: Value) -> Value {
        json!({ "kind": "Service", "metadata": { "name": "orders" }, "spec": {
            "selector": selector,
            "ports": [{ "name": "http", "port": 80, "targetPort": 9000 }, { "name": "admin", "port": 81, "targetPort": "adm" }],
        }})
    }

    fn workload(name: &str, address: &str, app: &str) -> Value {
        json!({ "kind": "Workload", "metadata": { "name": name, "labels": { "app": app } },
                "spec": { "address": address, "ports": { "adm": 9100 }, "serviceAccount": "orders" } })
    }

    fn registration(name: &str, address: &str) -> Registration {
        Registration {
            workload: format!("default/{name}"),
            address: address.to_owned(),
            services: vec!["orders".to_owned()],
            ports: vec![Port { name: "http".to_owned(), number: 9001 }],
            service_account: "orders".to_owned(),
            instance: "1".to_owned(),
            ..Registration::default()
        }
    }

    fn endpoints(library: &Library, members: &Members) -> Vec<Endpoint> {
        let bytes = members.endpoints("default/orders", library, &Mesh::default()).unwrap();
        EndpointSet::decode(bytes).unwrap().endpoints
    }

    fn addresses(library: &Library, members: &Members) -> Vec<String> {
        endpoints(library, members).into_iter().map(|endpoint| endpoint.address).collect()
    }

    #[test]
    fn an_instance_may_listen_elsewhere_than_its_service_says() {
        let (mut library, mut members) = (Library::default(), Members::default());
        put(&mut library, &mut members, service(json!({})));
        let named = |service: &str, port, number| Port { name: registered_port(service, port), number };
        let ports = vec![named("orders", 80, 9555), named("orders", 81, 9556), named("other", 80, 9557)];
        members.register(Registration { ports, ..registration("a", "10.0.0.1") }, &library).unwrap();
        let told = |members: &Members| -> Vec<(String, u32)> {
            let endpoint = endpoints(&library, members).remove(0);
            endpoint.ports.into_iter().map(|port| (port.name, port.number)).collect()
        };
        assert_eq!(told(&members), [("http".to_owned(), 9555), ("admin".to_owned(), 9556)]);
        let ports = vec![named("other", 80, 9557)];
        members.register(Registration { ports, ..registration("a", "10.0.0.1") }, &library).unwrap();
        assert_eq!(told(&members), [("http".to_owned(), 9000)], "nothing says which port `adm` is");
    }

    #[test]
    fn a_service_that_names_accounts_takes_no_others() {
        let (mut library, mut members) = (Library::default(), Members::default());
        put(&mut library, &mut members, service(json!({})));
        members.register(registration("a", "10.0.0.1"), &library).unwrap();
        assert_eq!(addresses(&library, &members), ["10.0.0.1"]);
        let with = |accounts: &str| {
            let mut document = service(json!({}));
            document["metadata"]["annotations"] = json!({ crate::document::ACCOUNTS: accounts });
            document
        };
        put(&mut library, &mut members, with("other, another"));
        assert!(addresses(&library, &members).is_empty());
        assert!(!may_serve(&library, "default", "orders", "orders"));
        put(&mut library, &mut members, with("other,orders"));
        assert_eq!(addresses(&library, &members), ["10.0.0.1"]);
    }

    #[test]
    fn what_is_connected_elsewhere_is_not_lost_here() {
        let (mut library, mut members) = (Library::default(), Members::default());
        put(&mut library, &mut members, service(json!({})));
        let now = Instant::now();
        members.register(registration("a", "10.0.0.1"), &library).unwrap();
        assert!(members.is_here("default/a"));
        // It went to another control plane before its stream here was found broken.
        members.place(registration("a", "10.0.0.1"), &library);
        members.lose("default/a", "1", now);
        members.expire(now + 2 * GRACE, &library);
        assert_eq!((addresses(&library, &members).len(), members.here().count()), (1, 0));
        let moved = members.displace("default/a", &library);
        assert_eq!(moved.services.len(), 1);
        assert!(addresses(&library, &members).is_empty());
    }

    #[test]
    fn labels_and_registrations_make_endpoints() {
        let (mut library, mut members) = (Library::default(), Members::default());
        let (all, of) = (&mut library, &mut members);
        put(all, of, workload("a", "10.0.0.1", "orders"));
        put(all, of, workload("b", "10.0.0.2", "users"));
        assert!(members.endpoints("default/orders", &library, &Mesh::default()).is_none());
        let (all, of) = (&mut library, &mut members);
        let moved = put(all, of, service(json!({ "app": "orders" })));
        assert_eq!(moved.workloads.len(), 1);
        of.register(registration("c", "10.0.0.3"), all).unwrap();
        assert_eq!(addresses(all, of), ["10.0.0.1", "10.0.0.3"]);
        let numbers: Vec<Vec<u32>> = endpoints(all, of)
            .iter()
            .map(|endpoint| endpoint.ports.iter().map(|port| port.number).collect())
            .collect();
        assert_eq!(numbers, [vec![9000, 9100], vec![9001]], "a port that it does not have is left out");
        assert_eq!(endpoints(all, of)[0].identity, "spiffe://cluster.local/ns/default/sa/orders");
        // Another selector: other workloads.
        let moved = put(all, of, service(json!({ "app": "users" })));
        assert_eq!(moved.workloads.len(), 2);
        assert_eq!(addresses(all, of), ["10.0.0.2", "10.0.0.3"]);
        // The label goes elsewhere.
        let moved = put(all, of, workload("b", "10.0.0.2", "x"));
        assert!(moved.services.contains("default/orders"));
        assert_eq!(addresses(all, of), ["10.0.0.3"]);
    }

    #[test]
    fn a_lost_workload_stays_for_a_while_and_a_withdrawn_one_goes_at_once() {
        let (mut library, mut members) = (Library::default(), Members::default());
        put(&mut library, &mut members, service(json!({})));
        let now = Instant::now();
        members.register(registration("a", "10.0.0.1"), &library).unwrap();
        members.register(registration("b", "10.0.0.2"), &library).unwrap();
        members.lose("default/a", "1", now);
        let (moved, next) = members.expire(now, &library);
        assert_eq!((moved, next), (Moved::default(), Some(now + GRACE)));
        let (moved, next) = members.expire(now + GRACE, &library);
        assert_eq!((moved.services.len(), next), (1, None));
        assert_eq!(addresses(&library, &members), ["10.0.0.2"]);
        // A process that was replaced takes nothing with it.
        members
            .register(Registration { instance: "2".to_owned(), ..registration("b", "10.0.0.4") }, &library)
            .unwrap();
        members.lose("default/b", "1", now);
        assert_eq!(members.withdraw("default/b", "1", &library), Moved::default());
        assert_eq!(addresses(&library, &members), ["10.0.0.4"]);
        assert_eq!(members.at("10.0.0.4".parse().unwrap()).count(), 1);
        members.withdraw("default/b", "2", &library);
        assert_eq!(addresses(&library, &members).len(), 0);
        assert_eq!(members.at("10.0.0.4".parse().unwrap()).count(), 0);
    }

    #[test]
    fn registrations_that_make_no_sense_are_refused() {
        let (library, mut members) = (Library::default(), Members::default());
        let named =
            |workload: &str| Registration { workload: workload.to_owned(), ..registration("a", "10.0.0.1") };
        let port = |number| Registration {
            ports: vec![Port { name: String::new(), number }],
            ..registration("a", "::1")
        };
        let serving =
            |service: &str| Registration { services: vec![service.to_owned()], ..registration("a", "::1") };
        let many = Registration { services: vec![String::new(); 65], ..registration("a", "::1") };
        for (registration, refused) in [
            (named("a"), Refused::Name("a".to_owned())),
            (named("a/b/c"), Refused::Name("a/b/c".to_owned())),
            (registration("a", "host"), Refused::Address("host".to_owned())),
            (port(0), Refused::Port),
            (port(65_536), Refused::Port),
            (many, Refused::TooMuch),
            (named(&format!("a/{}", "b".repeat(MAX_NAME_BYTES))), Refused::TooLong),
            (registration("a", &"1".repeat(MAX_NAME_BYTES + 1)), Refused::TooLong),
            (serving(&"s".repeat(MAX_NAME_BYTES + 1)), Refused::TooLong),
        ] {
            assert_eq!(members.register(registration, &library), Err(refused));
        }
    }
}
