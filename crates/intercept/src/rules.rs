//! What is captured, and the ruleset that does it.

use std::fmt::{self, Display, Write};
use std::net::IpAddr;
use std::str::FromStr;

use rhumb_base::cidr::Cidr;
use rhumb_base::virtual_address;

/// The table that holds everything of ours: replacing it replaces all, deleting it leaves nothing behind.
pub const TABLE: &str = "inet rhumb";

/// Where an outgoing connection of the workload arrives.
pub const OUTBOUND_PORT: u16 = 15001;

/// Where a connection to the workload arrives.
pub const INBOUND_PORT: u16 = 15006;

/// Where mesh peers connect to: never captured.
pub const TUNNEL_PORT: u16 = 15008;

/// Probes and metrics of a sidecar: never captured, so that whoever asks needs no identity of the mesh.
pub const PROBE_PORTS: [u16; 2] = [15020, 15021];

/// Where questions for names arrive.
pub const DNS_PORT: u16 = 15053;

/// Ports whose connections are not captured unless asked for: a machine that loses its shell is a machine lost.
pub const DEFAULT_EXCLUDED_INBOUND: [u16; 1] = [22];

/// The conntrack zone of the sidecar's own questions for names.
pub const ZONE: u16 = 15053;

/// A port, or several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

/// Text that is not a port or a range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a port: write a number from 1 to 65535, or two joined by a hyphen, for example 80 or 8000-8100")]
pub struct InvalidPorts;

impl FromStr for Ports {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, InvalidPorts> {
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(InvalidPorts),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last { Err(InvalidPorts) } else { Ok(Self { first, last }) }
    }
}

impl Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A user by number or by name; `nft` looks names up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(String);

/// Text that is not a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a user: write a number or a name of /etc/passwd, for example 1337 or postgres")]
pub struct InvalidUser;

impl FromStr for User {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // The text goes into a ruleset: nothing that means something there may pass.
        let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
            && text.len() <= 32;
        if is_name || is_number && text.parse::<u32>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidUser)
        }
    }
}

impl Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Connections to the workload.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    /// Where they go.
    pub port: u16,
    /// Ports of the workload that are captured; empty: all.
    pub include_ports: Vec<Ports>,
    /// Ports that are not, even when they are included.
    pub exclude_ports: Vec<Ports>,
}

/// Connections of the workload.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// Where they go.
    pub port: u16,
    /// Ports that are captured when connected to; empty: all.
    pub include_ports: Vec<Ports>,
    /// Ports that are not, even when they are included.
    pub exclude_ports: Vec<Ports>,
    /// Destinations that are captured; empty: all. Virtual addresses of the mesh always are.
    pub include_cidrs: Vec<Cidr>,
    /// Destinations that are not, even when they are included.
    pub exclude_cidrs: Vec<Cidr>,
}

/// Questions for names, over UDP and TCP.
#[derive(Clone, Debug, Default)]
pub struct Dns {
    /// Where they go.
    pub port: u16,
    /// Name servers whose questions are captured. No others: a resolver on this machine (systemd-resolved) asks the world
    /// itself, and what it asks must not come back to it.
    pub servers: Vec<IpAddr>,
}

/// What is captured in one network namespace.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// Connections to the workload; `None`: none.
    pub inbound: Option<Inbound>,
    /// Connections of the workload; `None`: none.
    pub outbound: Option<Outbound>,
    /// Questions for names; `None`: none.
    pub dns: Option<Dns>,
    /// Users whose traffic is captured; empty: everybody's.
    pub include_users: Vec<User>,
    /// Users whose traffic is not: the sidecar's, when it runs as a user of its own.
    pub exclude_users: Vec<User>,
    /// The mark of the sidecar's own sockets, which are never captured.
    pub mark: u32,
}

/// The text that takes everything away; it is no error when nothing is there.
pub fn remove() -> String {
    // Adding a table that exists is no error, deleting one that does not exist is.
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

impl Capture {
    /// The whole ruleset. It replaces what an earlier one made, in one transaction.
    pub fn ruleset(&self) -> String {
        let mut out = remove();
        let _ = writeln!(out, "table {TABLE} {{");
        if let Some(dns) = self.dns.as_ref().filter(|dns| !dns.servers.is_empty()) {
            self.zones(&mut out, dns);
        }
        if self.outbound.is_some() || self.dns.is_some() {
            self.output(&mut out);
        }
        if let Some(inbound) = &self.inbound {
            prerouting(&mut out, inbound);
        }
        out.push_str("}\n");
        out
    }

    /// Rules that let the sidecar's own sockets pass, each followed by what is to be done.
    fn own(&self, out: &mut String, matching: &str, verdict: &str) {
        line(out, &format!("meta mark {:#x} {matching}{verdict}", self.mark));
        if !self.exclude_users.is_empty() {
            line(out, &format!("meta skuid {} {matching}{verdict}", set(&self.exclude_users)));
        }
    }

    /// The sidecar asks the same servers as the application, and may do so from a port that the application has just used.
    /// Connection tracking would take that for the application's exchange and bring the question back to the sidecar, so
    /// its exchanges are tracked in a zone of their own.
    fn zones(&self, out: &mut String, dns: &Dns) {
        let (v4, v6) = by_family(&dns.servers, |server| server.is_ipv4());
        let answers = |out: &mut String| {
            for (family, servers) in [("ip", &v4), ("ip6", &v6)] {
                if !servers.is_empty() {
                    line(out, &format!("udp sport 53 {family} saddr {} ct zone set {ZONE}", set(servers)));
                }
            }
        };
        chain(out, "own_questions", "filter hook output priority -300", |out| {
            self.own(out, "udp dport 53 ", &format!("ct zone set {ZONE}"));
            // A server of this machine answers here.
            answers(out);
        });
        chain(out, "own_answers", "filter hook prerouting priority -300", answers);
    }

    fn output(&self, out: &mut String) {
        chain(out, "outbound", "nat hook output priority -100", |out| {
            // First of all, or what the sidecar sends comes back to it.
            self.own(out, "", "return");
            if !self.include_users.is_empty() {
                line(out, &format!("meta skuid != {} return", set(&self.include_users)));
            }
            if let Some(dns) = &self.dns {
                let (v4, v6) = by_family(&dns.servers, |server| server.is_ipv4());
                for (family, servers) in [("ip", v4), ("ip6", v6)] {
                    if !servers.is_empty() {
                        let to =
                            format!("{family} daddr {} th dport 53 redirect to :{}", set(&servers), dns.port);
                        line(out, &format!("meta l4proto {{ tcp, udp }} {to}"));
                    }
                }
            }
            if let Some(outbound) = &self.outbound {
                outbound.rules(out);
            }
        });
    }
}

impl Outbound {
    fn rules(&self, out: &mut String) {
        line(out, "meta l4proto != tcp return");
        // What stays on this machine needs no protection on a wire, and the explicit listeners of a sidecar are here.
        line(out, "fib daddr type { local, broadcast, multicast } return");
        let (v4, v6) = by_family(&self.exclude_cidrs, is_v4);
        for (family, blocks) in [("ip", v4), ("ip6", v6)] {
            if !blocks.is_empty() {
                line(out, &format!("{family} daddr {} return", set(&blocks)));
            }
        }
        if !self.exclude_ports.is_empty() {
            line(out, &format!("tcp dport {} return", set(&self.exclude_ports)));
        }
        if !self.include_cidrs.is_empty() {
            let (mut v4, mut v6) = by_family(&self.include_cidrs, is_v4);
            v4.push(virtual_address::BLOCK_V4.to_owned());
            v6.push(virtual_address::BLOCK_V6.to_owned());
            line(out, &format!("ip daddr != {} return", set(&v4)));
            line(out, &format!("ip6 daddr != {} return", set(&v6)));
        }
        if !self.include_ports.is_empty() {
            line(out, &format!("tcp dport != {} return", set(&self.include_ports)));
        }
        line(out, &format!("meta l4proto tcp redirect to :{}", self.port));
    }
}

fn prerouting(out: &mut String, inbound: &Inbound) {
    chain(out, "inbound", "nat hook prerouting priority -100", |out| {
        line(out, "meta l4proto != tcp return");
        line(out, "iif lo return");
        // What this machine only passes on belongs to others.
        line(out, "fib daddr type != local return");
        let own = [TUNNEL_PORT, inbound.port].into_iter().chain(PROBE_PORTS).map(Ports::from);
        let excluded: Vec<_> = own.chain(inbound.exclude_ports.iter().copied()).collect();
        line(out, &format!("tcp dport {} return", set(&excluded)));
        if !inbound.include_ports.is_empty() {
            line(out, &format!("tcp dport != {} return", set(&inbound.include_ports)));
        }
        line(out, &format!("meta l4proto tcp redirect to :{}", inbound.port));
    });
}

fn chain(out: &mut String, name: &str, hook: &str, rules: impl FnOnce(&mut String)) {
    let _ = writeln!(out, "    chain {name} {{");
    let _ = writeln!(out, "        type {hook}; policy accept;");
    rules(out);
    out.push_str("    }\n");
}

fn line(out: &mut String, rule: &str) {
    let _ = writeln!(out, "        {rule}");
}

/// An anonymous set. Sets of ranges must not overlap for `nft`, so what is written twice stands once.
fn set<T: Display>(items: &[T]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for item in items {
        let text = item.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    format!("{{ {} }}", texts.join(", "))
}

fn by_family<T: Display>(items: &[T], is_v4: impl Fn(&T) -> bool) -> (Vec<String>, Vec<String>) {
    let (v4, v6): (Vec<_>, Vec<_>) = items.iter().partition(|item| is_v4(item));
    (v4.iter().map(ToString::to_string).collect(), v6.iter().map(ToString::to_string).collect())
}

fn is_v4(block: &Cidr) -> bool {
    block.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Capture {
        Capture {
            inbound: Some(Inbound { port: 15006, exclude_ports: vec![22.into()], ..Inbound::default() }),
            outbound: Some(Outbound { port: 15001, ..Outbound::default() }),
            dns: Some(Dns {
                port: 15053,
                servers: vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
            }),
            mark: 0x5248,
            ..Capture::default()
        }
    }

    #[test]
    fn the_usual_capture_is_this_text() {
        let expected = "\
table inet rhumb
delete table inet rhumb
table inet rhumb {
    chain own_questions {
        type filter hook output priority -300; policy accept;
        meta mark 0x5248 udp dport 53 ct zone set 15053
        udp sport 53 ip saddr { 10.0.0.53 } ct zone set 15053
        udp sport 53 ip6 saddr { fd00::53 } ct zone set 15053
    }
    chain own_answers {
        type filter hook prerouting priority -300; policy accept;
        udp sport 53 ip saddr { 10.0.0.53 } ct zone set 15053
        udp sport 53 ip6 saddr { fd00::53 } ct zone set 15053
    }
    chain outbound {
        type nat hook output priority -100; policy accept;
        meta mark 0x5248 return
        meta l4proto { tcp, udp } ip daddr { 10.0.0.53 } th dport 53 redirect to :15053
        meta l4proto { tcp, udp } ip6 daddr { fd00::53 } th dport 53 redirect to :15053
        meta l4proto != tcp return
        fib daddr type { local, broadcast, multicast } return
        meta l4proto tcp redirect to :15001
    }
    chain inbound {
        type nat hook prerouting priority -100; policy accept;
        meta l4proto != tcp return
        iif lo return
        fib daddr type != local return
        tcp dport { 15008, 15006, 15020, 15021, 22 } return
        meta l4proto tcp redirect to :15006
    }
}
";
        assert_eq!(all().ruleset(), expected);
    }

    #[test]
    fn the_sidecar_is_let_through_before_anything_else() {
        let mut capture = all();
        capture.exclude_users = vec!["1337".parse().unwrap(), "rhumb".parse().unwrap()];
        let text = capture.ruleset();
        let chain = text.split("chain outbound").nth(1).unwrap();
        let rules: Vec<_> = chain.lines().skip(2).take(2).map(str::trim).collect();
        assert_eq!(rules, ["meta mark 0x5248 return", "meta skuid { 1337, rhumb } return"]);
    }

    #[test]
    fn virtual_addresses_are_captured_whatever_is_included() {
        let mut capture = all();
        let outbound = capture.outbound.as_mut().unwrap();
        outbound.include_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
        outbound.exclude_cidrs = vec!["10.9.0.0/16".parse().unwrap(), "fd01::/16".parse().unwrap()];
        outbound.include_ports = vec!["80".parse().unwrap(), "8000-8100".parse().unwrap()];
        let text = capture.ruleset();
        for rule in [
            "ip daddr { 10.9.0.0/16 } return",
            "ip6 daddr { fd01::/16 } return",
            "ip daddr != { 10.0.0.0/8, 240.240.0.0/15 } return",
            "ip6 daddr != { fd72:6875:6d62::/63 } return",
            "tcp dport != { 80, 8000-8100 } return",
        ] {
            assert!(text.contains(rule), "{rule} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_off_has_no_rules() {
        let capture = Capture { inbound: None, dns: None, ..all() };
        let text = capture.ruleset();
        assert!(!text.contains("prerouting") && !text.contains("53"), "{text}");
    }

    #[test]
    fn nothing_but_a_user_passes_as_one() {
        for bad in ["", "a b", "0;flush", "-1", "99999999999", "x}"] {
            assert!(bad.parse::<User>().is_err(), "{bad}");
        }
        for bad in ["", "0", "70000", "9-8", "1-", "+1"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad}");
        }
    }
}
