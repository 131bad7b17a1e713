//! What is out of the mesh: names and address blocks that documents list, and addresses that stand for such names in a
//! workload whose traffic is captured.
//!
//! A name that is reached through another proxy has no address here that means anything: its own may not even be found
//! out from here. So a virtual one stands for it ([`OutsideNames`]), by which a connection tells which name was meant.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cidr::Cidr;
use crate::virtual_address::{self, VirtualAddress};

/// Names and address blocks out of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    /// Blocks; a single address is one of one.
    pub blocks: Box<[Cidr]>,
    /// Names in lower case; those that begin with `*.` stand for all below.
    pub names: Box<[Box<str>]>,
}

impl Destinations {
    /// True when an address is listed.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.contains(address))
    }

    /// True when a name is listed. **Unit**: in lower case and without a final dot.
    pub fn has_name(&self, name: &str) -> bool {
        self.listed_name(name).is_some()
    }

    /// The entry that a name is listed by.
    pub fn listed_name(&self, name: &str) -> Option<&str> {
        let means = |listed: &&str| match listed.strip_prefix("*.") {
            Some(suffix) => {
                name.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            None => *listed == name,
        };
        self.names.iter().map(|listed| &**listed).find(means)
    }

    /// True when nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.names.is_empty()
    }
}

/// Most names out of the mesh that have a virtual address at a time.
pub const NAMES_LIMIT: usize = 4096;

/// How long a name surely keeps its address after it was asked for; as long as answers hold, and some connections more.
pub const KEPT: Duration = Duration::from_secs(300);

/// Virtual addresses of names out of the mesh: from blocks beside those of services, and of this process alone. A name
/// keeps its address while it is asked for; where there is no room, whoever was not asked for the longest time gives way.
#[derive(Default)]
pub struct OutsideNames(Mutex<Given>);

#[derive(Default)]
struct Given {
    numbers: HashMap<Box<str>, (VirtualAddress, Instant)>,
    names: HashMap<VirtualAddress, Box<str>>,
}

impl OutsideNames {
    /// The addresses that stand for a name; nothing when all are in use.
    pub fn assign(&self, name: &str, now: Instant) -> Option<(Ipv4Addr, Ipv6Addr)> {
        let mut given = self.given();
        let number = match given.numbers.get_mut(name) {
            Some((number, asked)) => {
                *asked = now;
                *number
            }
            None => given.add(name, now)?,
        };
        Some((virtual_address::outside_v4(number), virtual_address::outside_v6(number)))
    }

    /// The name that an address stands for.
    pub fn name(&self, address: IpAddr) -> Option<Box<str>> {
        let number = virtual_address::outside(address)?;
        self.given().names.get(&number).cloned()
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Given {
    fn add(&mut self, name: &str, now: Instant) -> Option<VirtualAddress> {
        if self.numbers.len() >= NAMES_LIMIT {
            let oldest = self.numbers.iter().min_by_key(|(_, (_, asked))| *asked);
            let (oldest, number) = oldest
                .filter(|(_, (_, asked))| now.saturating_duration_since(*asked) >= KEPT)
                .map(|(name, (number, _))| (name.clone(), *number))?;
            self.numbers.remove(&oldest);
            self.names.remove(&number);
        }
        let mut number = VirtualAddress::of(name);
        while self.names.contains_key(&number) {
            number = number.next();
        }
        self.numbers.insert(name.into(), (number, now));
        self.names.insert(number, name.into());
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_names_below_it_only() {
        let names = Box::new(["*.example.com".into(), "one.test".into()]);
        let listed = Destinations { blocks: Box::new([]), names };
        for (name, is_listed) in [
            ("a.example.com", true),
            ("b.a.example.com", true),
            ("example.com", false),
            (".example.com", false),
            ("notexample.com", false),
            ("one.test", true),
            ("two.test", false),
        ] {
            assert_eq!(listed.has_name(name), is_listed, "{name}");
        }
    }

    #[test]
    fn an_address_stands_for_its_name_in_both_families_and_for_no_service() {
        let names = OutsideNames::default();
        let now = Instant::now();
        let (v4, v6) = names.assign("api.example.com", now).expect("there is room");
        assert_eq!(names.assign("api.example.com", now), Some((v4, v6)));
        for address in [IpAddr::V4(v4), IpAddr::V6(v6), IpAddr::V6(v4.to_ipv6_mapped())] {
            assert_eq!(names.name(address).as_deref(), Some("api.example.com"), "{address}");
            assert_eq!(VirtualAddress::from_ip(address), None, "{address}");
        }
        let other = names.assign("www.example.com", now).expect("there is room");
        assert_ne!(other, (v4, v6));
        assert_eq!(names.name([203, 0, 113, 1].into()), None);
    }

    #[test]
    fn a_name_gives_way_only_when_nobody_has_asked_for_it_for_long() {
        let names = OutsideNames::default();
        let start = Instant::now();
        let (first, _) = names.assign("first.example.com", start).expect("there is room");
        for at in 1..NAMES_LIMIT {
            let later = start + Duration::from_secs(1);
            assert!(names.assign(&format!("n{at}.example.com"), later).is_some());
        }
        assert_eq!(names.assign("more.example.com", start + KEPT - Duration::from_millis(1)), None);
        assert!(names.assign("more.example.com", start + KEPT).is_some());
        assert_eq!(names.name(first.into()).filter(|name| &**name == "first.example.com"), None);
    }
}
