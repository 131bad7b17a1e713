//! Virtual addresses: what a mesh name resolves to in a workload whose traffic is captured, so that a connection tells
//! which service it is meant for, whatever its protocol.
//!
//! An address follows from the name alone, so that it is the same in every proxy and after every start; only where two
//! names would share one, the later takes the next free one ([`Allocation`]).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 block that virtual addresses come from (RFC 1112 §4 reserves it, so nobody is reached there): the first half for
/// services, the second one for [names out of the mesh](crate::outside).
pub const BLOCK_V4: &str = "240.240.0.0/15";

/// IPv6 block that virtual addresses come from (unique local, RFC 4193), in the same halves.
pub const BLOCK_V6: &str = "fd72:6875:6d62::/63";

/// Most names that have a virtual address: the host part of an IPv4 one, without its first and last.
pub const LIMIT: usize = (1 << 16) - 2;

/// The virtual address of one name: a number that both families have as their host part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualAddress(u16);

impl VirtualAddress {
    /// In IPv4.
    pub fn v4(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(240, 240, high, low)
    }

    /// In IPv6.
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd72, 0x6875, 0x6d62, 0, 0, 0, 0, self.0)
    }

    /// The number that both have as their host part, for storage.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The one of a number that was stored.
    pub fn of_number(number: u16) -> Option<Self> {
        (1..=LIMIT).contains(&usize::from(number)).then_some(Self(number))
    }

    /// The one that an address is a form of.
    pub fn from_ip(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::from_v4(v4),
            IpAddr::V6(v6) => match v6.segments() {
                [0xfd72, 0x6875, 0x6d62, 0, 0, 0, 0, number] => Some(Self(number)),
                _ => None,
            },
        }
    }

    /// The one whose IPv4 form this is.
    pub fn from_v4(address: Ipv4Addr) -> Option<Self> {
        match address.octets() {
            [240, 240, high, low] => Some(Self(u16::from_be_bytes([high, low]))),
            _ => None,
        }
    }

    /// The place where the search for a name's address begins.
    pub(crate) fn of(name: &str) -> Self {
        // FNV-1a: the same in every version of every process, which a hasher of the library does not promise.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let folded = hash ^ (hash >> 32);
        Self::at(usize::try_from(folded & 0xffff_ffff).unwrap_or_default())
    }

    fn at(index: usize) -> Self {
        Self(u16::try_from(index % LIMIT + 1).unwrap_or(1))
    }

    pub(crate) fn next(self) -> Self {
        Self::at(usize::from(self.0))
    }
}

/// The IPv4 form of a number among names out of the mesh.
pub(crate) fn outside_v4(number: VirtualAddress) -> Ipv4Addr {
    let [_, _, high, low] = number.v4().octets();
    Ipv4Addr::new(240, 241, high, low)
}

/// The IPv6 form of a number among names out of the mesh.
pub(crate) fn outside_v6(number: VirtualAddress) -> Ipv6Addr {
    Ipv6Addr::new(0xfd72, 0x6875, 0x6d62, 1, 0, 0, 0, number.0)
}

/// The number of an address that stands for a name out of the mesh.
pub(crate) fn outside(address: IpAddr) -> Option<VirtualAddress> {
    match address.to_canonical() {
        IpAddr::V4(v4) => match v4.octets() {
            [240, 241, high, low] => Some(VirtualAddress(u16::from_be_bytes([high, low]))),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0xfd72, 0x6875, 0x6d62, 1, 0, 0, 0, number] => Some(VirtualAddress(number)),
            _ => None,
        },
    }
}

/// True for an address that stands for a name, of a service or out of the mesh: nobody has it.
pub fn is_virtual(address: IpAddr) -> bool {
    VirtualAddress::from_ip(address).is_some() || outside(address).is_some()
}

/// Which name has which virtual address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    names: HashMap<Box<str>, VirtualAddress>,
    taken: HashMap<VirtualAddress, Box<str>>,
}

impl Allocation {
    /// The address of a name, which it keeps until it is freed; `None` when all are taken.
    pub fn assign(&mut self, name: &str) -> Option<VirtualAddress> {
        if let Some(&address) = self.names.get(name) {
            return Some(address);
        }
        if self.names.len() >= LIMIT {
            return None;
        }
        let mut address = VirtualAddress::of(name);
        while self.taken.contains_key(&address) {
            address = address.next();
        }
        self.names.insert(name.into(), address);
        self.taken.insert(address, name.into());
        Some(address)
    }

    /// The address of a name, if it has one.
    pub fn of(&self, name: &str) -> Option<VirtualAddress> {
        self.names.get(name).copied()
    }

    /// Gives a name the address that somebody else has given it. Whoever had that one gets another when it is next
    /// asked for.
    pub fn restore(&mut self, name: &str, address: VirtualAddress) {
        if self.names.get(name) == Some(&address) {
            return;
        }
        if let Some(other) = self.taken.insert(address, name.into()) {
            self.names.remove(&other);
        }
        if let Some(before) = self.names.insert(name.into(), address) {
            self.taken.remove(&before);
        }
    }

    /// The name that has an address.
    pub fn name(&self, address: VirtualAddress) -> Option<&str> {
        self.taken.get(&address).map(|name| &**name)
    }

    /// Frees the address of every name that is not kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.names.retain(|name, _| keep(name));
        let names = &self.names;
        self.taken.retain(|_, name| names.contains_key(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_follows_from_the_name() {
        let (mut first, mut second) = (Allocation::default(), Allocation::default());
        first.assign("default/payments");
        assert_eq!(first.assign("default/orders"), second.assign("default/orders"));
        let address = second.assign("default/orders").unwrap();
        assert_eq!(second.name(address), Some("default/orders"));
        assert_eq!(VirtualAddress::from_v4(address.v4()), Some(address));
        assert_eq!(address.v6().octets()[14..], address.v4().octets()[2..]);
    }

    #[test]
    fn an_address_that_was_given_elsewhere_displaces_who_had_it() {
        let mut all = Allocation::default();
        let (a, b) = (all.assign("ns/a").unwrap(), all.assign("ns/b").unwrap());
        all.restore("ns/c", a);
        assert_eq!((all.name(a), all.of("ns/c"), all.of("ns/a")), (Some("ns/c"), Some(a), None));
        assert_ne!(all.assign("ns/a"), Some(a));
        all.restore("ns/c", b);
        assert_eq!((all.name(a), all.name(b), all.of("ns/b")), (None, Some("ns/c"), None));
        for form in [IpAddr::V4(b.v4()), IpAddr::V6(b.v6()), IpAddr::V6(b.v4().to_ipv6_mapped())] {
            assert_eq!(VirtualAddress::from_ip(form), Some(b));
        }
        assert_eq!(VirtualAddress::of_number(b.number()), Some(b));
        assert_eq!(VirtualAddress::of_number(0), None);
    }

    #[test]
    fn every_address_of_the_block_is_given_once() {
        let mut all = Allocation::default();
        let mut seen = std::collections::HashSet::new();
        for n in 0..LIMIT {
            let address = all.assign(&format!("ns/service-{n}")).unwrap();
            assert!(seen.insert(address.v4()));
            assert!(![[0, 0], [255, 255]].contains(&[address.v4().octets()[2], address.v4().octets()[3]]));
        }
        assert_eq!(all.assign("one/more"), None);
        all.retain(|name| name != "ns/service-7");
        assert!(all.assign("one/more").is_some());
    }
}
