//! Addresses that stand for services: what an application connects to when it asks for a service by name.

use std::net::IpAddr;

use rhumb_base::virtual_address::{Allocation, VirtualAddress};

/// Which service has which virtual address.
#[derive(Debug, Default)]
pub struct Virtuals {
    given: Allocation,
}

impl Virtuals {
    /// What was assigned before.
    pub fn restore(&mut self, service: &str, number: u16) {
        if let Some(address) = VirtualAddress::of_number(number) {
            self.given.restore(service, address);
        }
    }

    /// The number of a service, and whether it was assigned by this call. It follows from the name where it can, so
    /// that two control planes that know nothing of each other mostly agree. Nothing when all are taken.
    pub fn assign(&mut self, service: &str) -> Option<(u16, bool)> {
        let known = self.given.of(service);
        let address = known.or_else(|| self.given.assign(service))?;
        Some((address.number(), known.is_none()))
    }

    /// The addresses of a service.
    pub fn of(&self, service: &str) -> Vec<IpAddr> {
        let address = self.given.of(service);
        address.map_or_else(Vec::new, |address| vec![address.v4().into(), address.v6().into()])
    }

    /// The service of an address.
    pub fn at(&self, address: IpAddr) -> Option<&str> {
        self.given.name(VirtualAddress::from_ip(address)?)
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
                assert_eq!(virtuals.at(address), Some(&**name));
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
