//! Addresses that stand for services: what an application connects to when it asks for a service by name.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The first two octets of virtual IPv4 addresses: of 240.0.0.0/4, which nobody routes (RFC 1112 §4).
const V4: [u8; 2] = [240, 240];

/// The first segments of virtual IPv6 addresses (RFC 4193).
const V6: [u16; 4] = [0xfd52, 0x6875, 0x6d62, 0x5653];

/// Which service has which number.
#[derive(Debug, Default)]
pub struct Virtuals {
    numbers: HashMap<Arc<str>, u16>,
    services: HashMap<u16, Arc<str>>,
}

impl Virtuals {
    /// What was assigned before.
    pub fn restore(&mut self, service: &str, number: u16) {
        let service: Arc<str> = service.into();
        if number != 0 && self.services.insert(number, service.clone()).is_none() {
            self.numbers.insert(service, number);
        }
    }

    /// The number of a service, and whether it was assigned by this call. It follows from the name where it can, so
    /// that two control planes that know nothing of each other mostly agree. Nothing when all are taken.
    pub fn assign(&mut self, service: &str) -> Option<(u16, bool)> {
        if let Some(number) = self.numbers.get(service) {
            return Some((*number, false));
        }
        let spread = rhumb_ads::Version::of(0, service.as_bytes()).hash;
        let first = u16::try_from(spread % u64::from(u16::MAX - 1)).unwrap_or(0);
        let number = (0..u16::MAX - 1)
            .map(|step| {
                let number = (u32::from(first) + u32::from(step)) % u32::from(u16::MAX - 1) + 1;
                u16::try_from(number).unwrap_or(1)
            })
            .find(|number| !self.services.contains_key(number))?;
        let service: Arc<str> = service.into();
        self.services.insert(number, service.clone());
        self.numbers.insert(service, number);
        Some((number, true))
    }

    /// The addresses of a service.
    pub fn of(&self, service: &str) -> Vec<IpAddr> {
        let Some(number) = self.numbers.get(service) else { return Vec::new() };
        let [high, low] = number.to_be_bytes();
        let [a, b, c, d] = V6;
        let v4 = Ipv4Addr::new(V4[0], V4[1], high, low);
        vec![v4.into(), Ipv6Addr::new(a, b, c, d, 0, 0, 0, *number).into()]
    }

    /// The service of an address.
    pub fn at(&self, address: IpAddr) -> Option<&Arc<str>> {
        let number = match address {
            IpAddr::V4(v4) => match v4.octets() {
                [a, b, high, low] if [a, b] == V4 => u16::from_be_bytes([high, low]),
                _ => return None,
            },
            IpAddr::V6(v6) => match v6.segments() {
                [a, b, c, d, 0, 0, 0, number] if [a, b, c, d] == V6 => number,
                _ => return None,
            },
        };
        self.services.get(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_addresses_of_its_own_that_lead_back_to_it() {
        let mut virtuals = Virtuals::default();
        let names: Vec<String> = (0..5_000).map(|number| format!("default/s{number}")).collect();
        for name in &names {
            assert!(virtuals.assign(name).unwrap().1);
            assert!(!virtuals.assign(name).unwrap().1);
        }
        for name in &names {
            let addresses = virtuals.of(name);
            assert_eq!(addresses.len(), 2);
            for address in addresses {
                assert_eq!(&**virtuals.at(address).unwrap(), name);
            }
        }
        assert!(virtuals.at("10.0.0.1".parse().unwrap()).is_none());
        assert!(virtuals.of("default/unknown").is_empty());
    }

    #[test]
    fn what_was_assigned_stays_and_nothing_is_given_out_twice() {
        let mut first = Virtuals::default();
        let (number, _) = first.assign("a/b").unwrap();
        let mut again = Virtuals::default();
        again.restore("other/name", number);
        assert_ne!(again.assign("a/b").unwrap().0, number);
        for number in 1..u16::MAX {
            again.restore(&format!("x/{number}"), number);
        }
        assert_eq!(again.assign("too/many"), None);
    }
}
