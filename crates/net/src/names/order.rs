//! Which address of a host is tried first: RFC 6724 §6 in a simple form.
//!
//! Rule 1: those that there is a way to. Rules 2 and 5: those that are reached from an address of their own kind; a machine
//! with nothing but unique local addresses of IPv6 would else try all the world from them. Rule 6: this machine itself,
//! then IPv6, then IPv4. Rule 10: as they came. There is no table of policies (/etc/gai.conf), and no rule about prefixes.

use std::net::{IpAddr, SocketAddr};

use super::MOST_ADDRESSES;
use crate::connect::source_towards;

/// Sorted, and the most likely ones of too many.
pub(super) fn sorted(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if addresses.len() > 1 {
        addresses.sort_by_cached_key(|&address| rank(address.ip(), source_towards(address).ok()));
    }
    addresses.truncate(MOST_ADDRESSES);
    addresses
}

/// Less is better.
fn rank(destination: IpAddr, source: Option<IpAddr>) -> (bool, bool, u8) {
    let precedence = match destination {
        IpAddr::V6(ip) if ip.is_loopback() => 0,
        IpAddr::V6(_) => 1,
        IpAddr::V4(_) => 2,
    };
    let is_of_another_kind = source.is_some_and(|source| Kind::of(source) != Kind::of(destination));
    (source.is_none(), is_of_another_kind, precedence)
}

/// Scope (RFC 6724 §3.1) and label (§2.1) of an address, as far as they matter.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Loopback,
    LinkLocal,
    UniqueLocal,
    /// Private addresses of IPv4 are so too (§3.2).
    Global,
}

impl Kind {
    fn of(ip: IpAddr) -> Self {
        let (is_loopback, is_link_local, is_unique_local) = match ip {
            IpAddr::V4(ip) => (ip.is_loopback(), ip.is_link_local(), false),
            IpAddr::V6(ip) => (ip.is_loopback(), ip.is_unicast_link_local(), ip.is_unique_local()),
        };
        match () {
            () if is_loopback => Self::Loopback,
            () if is_link_local => Self::LinkLocal,
            () if is_unique_local => Self::UniqueLocal,
            () => Self::Global,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_comes_first_and_ipv6_before_ipv4() {
        // Destination, and from where it is reached.
        let expected = [
            ("::1", Some("::1")),
            ("2001:db8::1", Some("2001:db8::9")),
            ("fd00::1", Some("fd00::9")),
            ("192.0.2.1", Some("10.0.0.9")),
            ("10.0.0.1", Some("10.0.0.9")),
            // From unique local addresses hardly anybody reaches the world.
            ("2001:db8::2", Some("fd00::9")),
            ("169.254.0.1", Some("10.0.0.9")),
            ("2001:db8::3", None),
            ("192.0.2.3", None),
        ];
        let rank = |&(destination, source): &(&str, Option<&str>)| {
            rank(destination.parse().unwrap(), source.map(|source| source.parse().unwrap()))
        };
        assert!(expected.is_sorted_by_key(rank));
    }

    #[test]
    fn those_of_a_rank_stay_as_they_came_and_too_many_are_left_out() {
        let came: Vec<SocketAddr> = (1..100).rev().map(|last| ([127, 0, 0, last], 80).into()).collect();
        assert_eq!(sorted(came.clone()), came[..MOST_ADDRESSES]);
    }
}
