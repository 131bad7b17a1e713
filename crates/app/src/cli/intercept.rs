//! `rhumb intercept`.

use std::net::IpAddr;

use rhumb_base::cidr::Cidr;
use rhumb_base::{resolv_conf, virtual_address};
use rhumb_intercept::nft::{self, NftError};
use rhumb_intercept::rules::{
    self, Capture, DEFAULT_EXCLUDED_INBOUND, DNS_PORT, Dns, INBOUND_PORT, Inbound, OUTBOUND_PORT, Outbound,
    Ports, User,
};
use rhumb_net::capture::DEFAULT_MARK;

use super::Exit;
use crate::print;

/// Where the kernel shows the routes of IPv4.
const ROUTES: &str = "/proc/net/route";

/// Bring this machine's or container's traffic to its sidecar
///
/// Writes rules of nftables into the network namespace it runs in (a container, a VM, `ip netns exec`): connections that
/// leave go to the sidecar's port 15001, connections that arrive to 15006, questions for names to 15053. Needs
/// CAP_NET_ADMIN, once; the sidecar needs it too, or CAP_NET_RAW, to mark its own sockets, unless it runs as a user that is
/// excluded here. Repeated, it replaces what it made before; connections that are open stay as they are.
///
/// Never captured: the sidecar's own sockets (by mark or user), the tunnel port 15008, probes on 15020 and 15021, what stays
/// on this machine, and, unless asked for, port 22.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  rhumb intercept --dry-run                        show the rules, change nothing
  rhumb intercept
  rhumb intercept --exclude-outbound-ports 5432,8000-8100 --exclude-cidrs 10.9.0.0/16
  rhumb intercept --no-inbound --exclude-users postgres
  ip netns exec orders rhumb intercept
  rhumb intercept --remove")]
pub(crate) struct Args {
    /// Print the rules and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take all rules away; no error when there are none
    #[arg(long)]
    remove: bool,
    /// Port of the sidecar for connections that leave
    #[arg(long, value_name = "PORT", default_value_t = OUTBOUND_PORT)]
    outbound_port: u16,
    /// Port of the sidecar for connections that arrive
    #[arg(long, value_name = "PORT", default_value_t = INBOUND_PORT)]
    inbound_port: u16,
    /// Port of the sidecar for questions for names
    #[arg(long, value_name = "PORT", default_value_t = DNS_PORT)]
    dns_port: u16,
    /// Do not capture connections that leave
    #[arg(long)]
    no_outbound: bool,
    /// Do not capture connections that arrive
    #[arg(long)]
    no_inbound: bool,
    /// Do not capture questions for names
    #[arg(long)]
    no_dns: bool,
    /// Capture connections to these ports only
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    include_outbound_ports: Vec<Ports>,
    /// Leave connections to these ports alone
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_outbound_ports: Vec<Ports>,
    /// Capture connections to these destinations only; virtual addresses of mesh names always are
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    include_cidrs: Vec<Cidr>,
    /// Leave connections to these destinations alone
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    exclude_cidrs: Vec<Cidr>,
    /// Capture connections that arrive at these ports only
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    include_inbound_ports: Vec<Ports>,
    /// Leave connections that arrive at these ports alone. Default: 22
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_inbound_ports: Option<Vec<Ports>>,
    /// Capture what programs of these users send only (numbers or names)
    #[arg(long, value_name = "USERS", value_delimiter = ',')]
    include_users: Vec<User>,
    /// Leave what programs of these users send alone: the sidecar's user, when it has one of its own
    #[arg(long, value_name = "USERS", value_delimiter = ',')]
    exclude_users: Vec<User>,
    /// Name servers whose questions are captured. Default: those of /etc/resolv.conf
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    dns_servers: Vec<IpAddr>,
    /// Mark of the sidecar's own sockets
    #[arg(long, value_name = "NUMBER", default_value_t = DEFAULT_MARK, value_parser = mark)]
    mark: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let ruleset = if args.remove { rules::remove() } else { capture(args).ruleset() };
    if args.dry_run {
        print::out(&ruleset)?;
        return Ok(Exit::Ok);
    }
    match nft::apply(&ruleset) {
        Ok(()) => {}
        Err(error @ (NftError::Missing | NftError::Denied | NftError::Kernel { .. })) => {
            print::err(&format!("rhumb: {error}\n"));
            return Ok(Exit::Runtime);
        }
        Err(error) => return Err(error.into()),
    }
    let captures_names = !args.no_dns && !args.no_outbound;
    if !args.remove
        && captures_names
        && !has_default_route(&std::fs::read_to_string(ROUTES).unwrap_or_default())
    {
        print::err(&format!(
            "rhumb: there is no default route here, so programs cannot connect to the virtual addresses of mesh names ({}): \
             add one (ip route add default via GATEWAY), or a route of that block to any interface\n",
            virtual_address::BLOCK_V4
        ));
    }
    Ok(Exit::Ok)
}

/// What the arguments ask for.
fn capture(args: &Args) -> Capture {
    Capture {
        inbound: (!args.no_inbound).then(|| Inbound {
            port: args.inbound_port,
            include_ports: args.include_inbound_ports.clone(),
            exclude_ports: args
                .exclude_inbound_ports
                .clone()
                .unwrap_or_else(|| DEFAULT_EXCLUDED_INBOUND.map(Ports::from).to_vec()),
        }),
        outbound: (!args.no_outbound).then(|| Outbound {
            port: args.outbound_port,
            include_ports: args.include_outbound_ports.clone(),
            exclude_ports: args.exclude_outbound_ports.clone(),
            include_cidrs: args.include_cidrs.clone(),
            exclude_cidrs: args.exclude_cidrs.clone(),
        }),
        dns: (!args.no_dns).then(|| Dns { port: args.dns_port, servers: servers(args) }),
        include_users: args.include_users.clone(),
        exclude_users: args.exclude_users.clone(),
        mark: args.mark,
    }
}

fn servers(args: &Args) -> Vec<IpAddr> {
    if !args.dns_servers.is_empty() {
        return args.dns_servers.clone();
    }
    rhumb_net::names::servers::read_conf(resolv_conf::PATH).nameservers
}

/// A mark, also as it is written in rules: 0x5248.
fn mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match parsed {
        Ok(0) | Err(_) => {
            Err("not a mark: write a number from 1 to 4294967295, for example 0x5248".to_owned())
        }
        Ok(mark) => Ok(mark),
    }
}

/// True when a table of routes has one for every destination, or for the virtual ones. Columns are in the byte order of
/// the machine: destination second, mask eighth.
fn has_default_route(routes: &str) -> bool {
    let wanted = u32::from_ne_bytes([240, 240, 0, 1]);
    routes.lines().skip(1).any(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| columns.get(at).and_then(|text| u32::from_str_radix(text, 16).ok());
        matches!((number(1), number(7)), (Some(network), Some(mask)) if wanted & mask == network)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_route_or_one_to_the_block_is_found() {
        let title = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let near = "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\n";
        assert!(!has_default_route(&format!("{title}{near}")));
        assert!(has_default_route(&format!(
            "{title}{near}eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n"
        )));
        assert_eq!(
            has_default_route(&format!("{title}lo\t0000F0F0\t00000000\t0001\t0\t0\t0\t0000FFFF\n")),
            cfg!(target_endian = "little")
        );
    }

    #[test]
    fn marks_are_numbers_of_both_notations() {
        assert_eq!((mark("0x5248"), mark("21064")), (Ok(21064), Ok(21064)));
        assert!(mark("0").is_err() && mark("x").is_err());
    }
}
