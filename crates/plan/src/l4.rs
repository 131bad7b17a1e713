//! Listeners that carry connections or datagrams as they are: where they go.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::cidr::Cidr;
use rhumb_base::name::{ListenerName, RouteName};
use rhumb_base::rng::Rng;
use rhumb_policy::Policy;
use rhumb_policy::fault::ConnectionFaults;
use rhumb_policy::tcp::Tcp;
use rhumb_policy::udp::Udp;
use rhumb_route::Host;

use crate::backend::Backend;

/// What a port of protocol TCP, TLS or UDP carries, and where.
pub struct L4 {
    /// What it carries.
    pub carries: Carries,
    /// Its listeners by server name. Only TLS has more than the one for every name.
    pub listeners: NameTable<L4Listener>,
    /// Limits of sessions; UDP only.
    pub udp: Udp,
}

/// What a port without requests carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Plain TCP.
    Tcp,
    /// TLS, passed on or terminated.
    Tls,
    /// Datagrams.
    Udp,
}

impl Carries {
    /// The protocol as listeners write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Udp => "UDP",
        }
    }
}

/// A listener of such a port.
pub struct L4Listener {
    /// Its name.
    pub name: ListenerName,
    /// TLS is not terminated here.
    pub is_passthrough: bool,
    /// Where its connections go, by server name; without TLS the one route for every name.
    pub routes: NameTable<Arc<L4Rule>>,
}

/// Where connections or sessions go.
pub struct L4Rule {
    /// The route document.
    pub route: RouteName,
    /// Backends and their shares.
    pub backends: Box<[(u32, Option<Arc<Backend>>)]>,
    /// Limits of connections.
    pub tcp: Tcp,
    /// Who may connect, as policies of a Service say.
    pub access: Box<[Arc<Policy>]>,
    /// What is broken on purpose on the way to each of the backends; policies of kind `fault`.
    pub faults: Box<[Box<[Arc<Policy>]>]>,
    /// Set when the documents ask for something that cannot be given: connections are closed.
    pub invalid: Option<Arc<str>>,
}

impl L4Rule {
    /// What is to go wrong with a connection to the backend of this place.
    pub fn faults(&self, backend: usize, rng: &mut Rng) -> ConnectionFaults {
        let decided = self.faults.get(backend).into_iter().flatten().map(|policy| match &**policy {
            Policy::Fault(fault) => fault.on_connection(rng),
            _ => ConnectionFaults::default(),
        });
        decided.fold(ConnectionFaults::default(), ConnectionFaults::and)
    }

    /// Chooses a backend by weight, and tells its place; nothing when there is none, or the reference is not valid.
    pub fn choose(&self, rng: &mut Rng) -> Option<(usize, &Arc<Backend>)> {
        // At most 16 backends of weight up to 10⁶ each, so the sum fits.
        let total: u32 = self.backends.iter().map(|(weight, _)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut left = rng.below(total);
        let chosen = self.backends.iter().enumerate().find(|(_, (weight, _))| {
            let is_chosen = left < *weight;
            left = left.saturating_sub(*weight);
            is_chosen
        });
        let (at, (_, backend)) = chosen?;
        Some((at, backend.as_ref()?))
    }
}

impl L4 {
    /// The listener that a server name belongs to; `None` is a connection without one.
    pub fn listener(&self, server_name: Option<&str>) -> Option<&L4Listener> {
        self.listeners.find(server_name)
    }

    /// True when some listener passes TLS on as it is, so that ClientHellos have to be read before TLS is spoken.
    pub fn has_passthrough(&self) -> bool {
        self.listeners.values().any(|listener| listener.is_passthrough)
    }
}

/// Values by server name: exact names, then the longest `*.suffix`, then the one for all.
pub struct NameTable<T> {
    exact: HashMap<Box<str>, T>,
    /// By the suffix behind `*.`.
    wildcard: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for NameTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), any: None }
    }
}

impl<T> NameTable<T> {
    /// Adds a value; false, without a change, when the name has one.
    pub fn add(&mut self, host: &Host, value: T) -> bool {
        let (map, key) = match host {
            Host::Any => {
                let is_free = self.any.is_none();
                self.any.get_or_insert(value);
                return is_free;
            }
            Host::Wildcard(suffix) => (&mut self.wildcard, suffix),
            Host::Exact(name) => (&mut self.exact, name),
        };
        if map.contains_key(key) {
            return false;
        }
        map.insert(key.clone(), value);
        true
    }

    /// The value of a name in lower case. A wildcard stands for one label or more (Gateway API), never for none.
    pub fn find(&self, name: Option<&str>) -> Option<&T> {
        if let Some(name) = name {
            if let Some(value) = self.exact.get(name) {
                return Some(value);
            }
            // A DNS name has at most 127 labels.
            let mut rest = name;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(value) = self.wildcard.get(parent) {
                    return Some(value);
                }
                rest = parent;
            }
        }
        self.any.as_ref()
    }

    /// All values with their names, sorted.
    pub fn entries(&self) -> Vec<(String, &T)> {
        let exact = self.exact.iter().map(|(name, value)| (name.to_string(), value));
        let wildcard = self.wildcard.iter().map(|(suffix, value)| (format!("*.{suffix}"), value));
        let any = self.any.iter().map(|value| ("*".to_owned(), value));
        let mut all: Vec<_> = exact.chain(wildcard).chain(any).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.any)
    }
}

/// Whose connections begin with a PROXY protocol header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// The load balancers in front.
    pub from: Box<[Cidr]>,
    /// How long the header may take.
    pub timeout: Duration,
}

impl ProxyProtocol {
    /// True when connections from there begin with a header.
    #[inline]
    pub fn expects(&self, peer: std::net::IpAddr) -> bool {
        self.from.iter().any(|block| block.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_name_wins() {
        let mut table = NameTable::default();
        for (index, host) in ["a.test", "*.a.test", "*.b.a.test", "*"].into_iter().enumerate() {
            assert!(table.add(&Host::parse(host).unwrap(), index), "{host}");
        }
        assert!(!table.add(&Host::parse("*.a.test").unwrap(), 9));
        for (name, expected) in [
            (Some("a.test"), 0),
            (Some("x.a.test"), 1),
            (Some("x.y.a.test"), 1),
            (Some("b.a.test"), 1),
            (Some("x.b.a.test"), 2),
            (Some("c.test"), 3),
            (None, 3),
        ] {
            assert_eq!(table.find(name), Some(&expected), "{name:?}");
        }
    }

    #[test]
    fn without_a_value_for_all_others_have_none() {
        let mut table = NameTable::default();
        assert!(table.add(&Host::parse("*.a.test").unwrap(), ()));
        assert_eq!((table.find(Some("a.test")), table.find(None), table.find(Some(""))), (None, None, None));
        assert!(table.find(Some("b.a.test")).is_some());
    }
}
