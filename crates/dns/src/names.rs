//! Which names are the mesh's, and their addresses.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rhumb_base::outside::{Destinations, OutsideNames};

/// The addresses of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For questions of type A.
    pub v4: Option<Ipv4Addr>,
    /// For questions of type AAAA.
    pub v6: Option<Ipv6Addr>,
}

/// The mesh names at one moment. Immutable once it is in use; a change is another one.
#[derive(Clone, Debug, Default)]
pub struct Names {
    addresses: HashMap<Box<str>, Addresses>,
    names: HashMap<IpAddr, Box<str>>,
    zones: Vec<Box<str>>,
    outside: Option<Outside>,
}

/// Names out of the mesh that are reached through another proxy, which alone has to know their addresses.
#[derive(Clone)]
pub struct Outside {
    /// Those; nothing: all that have a dot in them.
    pub names: Option<Destinations>,
    /// Names that are asked of name servers all the same, in lower case.
    pub own: HashSet<Box<str>>,
    /// The addresses that stand for them.
    pub addresses: Arc<OutsideNames>,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Outside {
    /// True when something stands for a name here.
    pub(crate) fn takes(&self, name: &str) -> bool {
        let is_listed = match &self.names {
            Some(listed) => listed.has_name(name),
            None => name.contains('.') && name.parse::<IpAddr>().is_err(),
        };
        is_listed && !self.own.contains(name)
    }
}

impl Names {
    /// Adds a name; its case does not matter, nor does a dot at its end. The first name of an address is what a question
    /// for the address is answered with.
    pub fn insert(&mut self, name: &str, addresses: Addresses) {
        let name: Box<str> = normal(name).into();
        for address in addresses.v4.map(IpAddr::V4).into_iter().chain(addresses.v6.map(IpAddr::V6)) {
            self.names.entry(address).or_insert_with(|| name.clone());
        }
        self.addresses.insert(name, addresses);
    }

    /// Every name below this one is the mesh's alone: one that is not in the table does not exist.
    pub fn own_zone(&mut self, zone: &str) {
        self.zones.push(format!(".{}", normal(zone)).into());
    }

    /// Names out of the mesh that something stands for.
    pub fn stand_for(&mut self, outside: Outside) {
        self.outside = Some(outside);
    }

    /// The stand-ins of names out of the mesh.
    pub(crate) fn outside(&self) -> Option<&Outside> {
        self.outside.as_ref()
    }

    /// The addresses of a name, written in lower case without a dot at its end.
    pub fn find(&self, name: &str) -> Option<Addresses> {
        self.addresses.get(name).copied()
    }

    /// True for a name that nobody else can have.
    pub fn is_own(&self, name: &str) -> bool {
        self.zones.iter().any(|zone| name.ends_with(&**zone) || name == zone.trim_start_matches('.'))
    }

    /// True for a name that a service can have, whether it is in the table or not: its own, with its namespace, and that in
    /// a zone of the mesh.
    pub fn may_be_service(&self, name: &str) -> bool {
        let in_zone = self.zones.iter().find_map(|zone| name.strip_suffix(&**zone));
        let labels = in_zone.or_else(|| name.strip_suffix(".svc")).unwrap_or(name);
        let is_whole = in_zone.is_some() || labels.len() < name.len();
        match labels.split('.').count() {
            1 => !is_whole && !labels.is_empty(),
            2 => labels.split('.').all(|label| !label.is_empty()),
            _ => false,
        }
    }

    /// The name of an address.
    pub fn name_of(&self, address: IpAddr) -> Option<&str> {
        self.names.get(&address).map(|name| &**name)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_service_can_have_are_told_from_others() {
        let mut names = Names::default();
        names.own_zone("svc.cluster.local");
        for (name, may_be) in [
            ("orders", true),
            ("orders.shop", true),
            ("orders.shop.svc", true),
            ("orders.shop.svc.cluster.local", true),
            ("orders.svc.cluster.local", false),
            ("a.orders.shop.svc.cluster.local", false),
            ("svc.cluster.local", false),
            ("api.example.com", false),
            ("api.example.com.shop.svc.cluster.local", false),
            (".shop", false),
            ("", false),
        ] {
            assert_eq!(names.may_be_service(name), may_be, "{name}");
        }
    }
}
