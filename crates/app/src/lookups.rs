//! What a captured workload wants that nobody has declared: services by name or address, found when it first calls them.
//!
//! A question becomes a wanted `Address` resource; what that names becomes wanted services and their endpoints; when these
//! are in force, whoever waits looks at the plan again. What was found stays wanted, so a sidecar has what its workload uses
//! and no more, and has it after a restart without a control plane too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use bytes::Bytes;
use prost::Message;
use rhumb_agent::Agent;
use rhumb_agent::ads::Kind;
use rhumb_agent::ads::resource::Address;
use rhumb_dns::{Asking, Told};
use rhumb_proxy::discovery::{self, Answer, Discovery};
use rhumb_telemetry::Limit;
use rhumb_telemetry::metrics::Counter;
use rhumb_telemetry::{Metric, Registry};
use tokio::sync::{mpsc, oneshot};

/// Services that a sidecar finds by itself; what is beyond is not looked up.
const MAX_FOUND: usize = 4_096;

/// Names and addresses that are no services, or only lead to one, and are remembered: those that were asked for first are
/// forgotten first.
const MAX_LOOKED: usize = 1_024;

/// Names and addresses that are looked up at a time. One more is treated as not found.
const MAX_WAITING: usize = 1_024;

/// The ends that ask.
pub(crate) struct Askers {
    /// For connections.
    pub(crate) discovery: Discovery,
    /// For names.
    pub(crate) asking: Asking,
}

/// What is asked, and who waits.
pub(crate) struct Lookups {
    destinations: mpsc::Receiver<discovery::Question>,
    names: mpsc::Receiver<rhumb_dns::Question>,
    /// The namespace of the workload: names without one are in it.
    namespace: String,
    /// Who waits, by name of the resource. Names stay here until something is known about them.
    waiting: BTreeMap<String, Vec<Waiter>>,
    /// Names that may be forgotten, in the order in which they were asked for.
    looked: VecDeque<String>,
    /// Services that were found.
    found: BTreeSet<String>,
    /// Resources that cannot be used.
    refused: BTreeSet<(Kind, String)>,
    hits: Counter,
}

/// Something is to be found.
pub(crate) enum Asked {
    /// By a connection.
    Destination(discovery::Question),
    /// By its name.
    Name(rhumb_dns::Question),
}

enum Waiter {
    Connection(oneshot::Sender<Answer>),
    Name(oneshot::Sender<Told>),
}

impl Waiter {
    fn is_gone(&self) -> bool {
        match self {
            Self::Connection(answer) => answer.is_closed(),
            Self::Name(answer) => answer.is_closed(),
        }
    }

    /// Whoever waits looks again: what there is, is in the plan in force and in the table of names.
    fn tell(self, told: Told) {
        // It may have given up.
        match self {
            Self::Connection(answer) => drop(answer.send(Answer::Unknown)),
            Self::Name(answer) => drop(answer.send(told)),
        }
    }
}

impl Lookups {
    /// With the ends that ask.
    pub(crate) fn new(namespace: &str, registry: &Registry) -> (Self, Askers) {
        let (discovery, destinations) = Discovery::new();
        let (asking, names) = Asking::new();
        let lookups = Self {
            destinations,
            names,
            namespace: namespace.to_owned(),
            waiting: BTreeMap::new(),
            looked: VecDeque::new(),
            found: BTreeSet::new(),
            refused: BTreeSet::new(),
            hits: registry.counter(Metric::LimitHits, &[Limit::MeshLookups.name()]),
        };
        (lookups, Askers { discovery, asking })
    }

    /// Services that an earlier process has found.
    pub(crate) fn restore(&mut self, services: impl Iterator<Item = String>) {
        self.found.extend(services);
    }

    /// What is asked next. **Cancel**: nothing is lost.
    pub(crate) async fn asked(&mut self) -> Asked {
        tokio::select! {
            Some(question) = self.destinations.recv() => Asked::Destination(question),
            Some(question) = self.names.recv() => Asked::Name(question),
            else => std::future::pending().await,
        }
    }

    /// Looks something up, or answers at once what is known.
    pub(crate) fn look(&mut self, asked: Asked, agent: &Agent) {
        let (name, waiter) = match asked {
            Asked::Destination(question) => {
                let address = question.destination.ip().to_canonical();
                (Some(address.to_string()), Waiter::Connection(question.answer))
            }
            Asked::Name(question) => (self.resource(&question.name), Waiter::Name(question.answer)),
        };
        let Some(name) = name else { return waiter.tell(Told::Looked) };
        if let Some(told) = self.standing(&name, agent) {
            return waiter.tell(told);
        }
        for waiters in self.waiting.values_mut() {
            waiters.retain(|waiter| !waiter.is_gone());
        }
        if self.waiting.len() >= MAX_WAITING && !self.waiting.contains_key(&name) {
            self.hits.add(1);
            return waiter.tell(Told::Away);
        }
        self.waiting.entry(name).or_default().push(waiter);
    }

    /// Something came into force, or the connection came or went: answers those who have waited for it.
    pub(crate) fn settle(&mut self, agent: &Agent) {
        let names: Vec<String> = self.waiting.keys().cloned().collect();
        for name in names {
            let Some(told) = self.standing(&name, agent) else { continue };
            for waiter in self.waiting.remove(&name).into_iter().flatten() {
                waiter.tell(told);
            }
        }
    }

    /// Resources cannot be used; nobody waits for them.
    pub(crate) fn refuse<'a>(&mut self, kind: Kind, names: impl Iterator<Item = &'a str>) {
        self.refused.extend(names.map(|name| (kind, name.to_owned())));
    }

    /// Resources are in use.
    pub(crate) fn accept<'a>(&mut self, kind: Kind, names: impl Iterator<Item = &'a str>) {
        for name in names {
            self.refused.remove(&(kind, name.to_owned()));
        }
    }

    /// What can be told about a name by now; nothing as long as something is on its way. What it takes is asked for.
    fn standing(&mut self, name: &str, agent: &Agent) -> Option<Told> {
        let away = || (!agent.is_connected()).then_some(Told::Away);
        let Some(known) = agent.known(Kind::Address, name) else {
            if agent.is_connected() && !self.waiting.contains_key(name) {
                agent.want(Kind::Address, name);
                if !self.looked.iter().any(|looked| looked == name) {
                    self.remember(name, agent);
                }
            }
            return away();
        };
        let Some(address) = known.and_then(|content| Address::decode(content).ok()) else {
            return Some(Told::Looked);
        };
        let mut is_all_here = true;
        for service in &address.services {
            let is_full = self.found.len() >= MAX_FOUND && !self.found.contains(service);
            if is_full {
                self.hits.add(1);
                continue;
            }
            self.found.insert(service.clone());
            for kind in [Kind::Service, Kind::Endpoints] {
                agent.want(kind, service);
                let is_here =
                    agent.known(kind, service).is_some() || self.refused.contains(&(kind, service.clone()));
                is_all_here &= is_here;
            }
        }
        if is_all_here { Some(Told::Looked) } else { away() }
    }

    /// Bounds what was asked for: what was asked for first is not wanted any more, unless it is the name of a service that
    /// was found.
    fn remember(&mut self, name: &str, agent: &Agent) {
        self.looked.push_back(name.to_owned());
        while self.looked.len() > MAX_LOOKED {
            let Some(oldest) = self.looked.pop_front() else { return };
            if !self.is_of_found(&oldest) {
                agent.leave(Kind::Address, &oldest);
            }
        }
    }

    fn is_of_found(&self, name: &str) -> bool {
        let Some((service, namespace)) = name.split_once('.') else { return false };
        name.parse::<IpAddr>().is_err() && self.found.contains(&format!("{namespace}/{service}"))
    }

    /// The resource of a name: `orders.shop` for every form of it.
    fn resource(&self, name: &str) -> Option<String> {
        let mut labels = name.split('.');
        let service = labels.next().filter(|label| !label.is_empty())?;
        let namespace = labels.next().unwrap_or(&self.namespace);
        Some(format!("{service}.{namespace}"))
    }
}

/// The name of the resource of a service.
pub(crate) fn resource_of(service: &str) -> Option<String> {
    let (namespace, name) = service.split_once('/')?;
    Some(format!("{name}.{namespace}"))
}

/// The service of a resource, with its virtual address in IPv4, if it has one.
pub(crate) fn service_of(content: &Bytes) -> Option<(String, Option<IpAddr>)> {
    let address = Address::decode(content.clone()).ok()?;
    let first = address.virtual_addresses.iter().find_map(|address| address.parse().ok());
    Some((address.service, first))
}
