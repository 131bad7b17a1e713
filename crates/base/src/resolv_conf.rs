//! Name servers of this machine, as resolv.conf(5) names them.

use std::net::{IpAddr, Ipv4Addr};

/// Where every program looks for them.
pub const PATH: &str = "/etc/resolv.conf";

/// The name servers that a text of resolv.conf names, in order. Without any: the one on this machine, as resolv.conf(5)
/// says. An address with a scope (`fe80::1%eth0`) is left out: it means nothing without its interface.
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        if let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>)
            && !servers.contains(&address)
        {
            servers.push(address);
        }
    }
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_come_in_their_order_and_once() {
        let text = "# nameserver 1.1.1.1\nsearch a b\n nameserver 10.0.0.53 # first\nnameserver fd00::53\nnameserver\n\
                    nameserver fe80::1%eth0\nnameserver 10.0.0.53\nnameserver x\n";
        assert_eq!(nameservers(text), ["10.0.0.53".parse::<IpAddr>().unwrap(), "fd00::53".parse().unwrap()]);
    }

    #[test]
    fn without_any_the_machine_itself_is_asked() {
        assert_eq!(nameservers("options edns0\n"), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }
}
