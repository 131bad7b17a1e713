//! What is out of the mesh: hosts by name or address, and connections to them from here.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_base::failure::{Cause, Failure};
use rhumb_base::virtual_address;
use rhumb_codec::authority::Authority;
use rhumb_telemetry::Limit;
use rhumb_upstream::dns::{Dns, Nameservers, Settings};
use tokio::net::TcpStream;

use crate::worker::Worker;

/// A host and port out of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// A host out of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name in lower case, without a final dot.
    Name(Arc<str>),
    Address(IpAddr),
}

impl Host {
    pub(crate) fn parse(text: &str) -> Self {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => Self::Address(address.to_canonical()),
            Err(_) => Self::Name(text.trim_end_matches('.').to_ascii_lowercase().into()),
        }
    }

    /// The name, if it is one.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }

    /// The name, if it is one, for whoever keeps it.
    pub(crate) fn shared_name(&self) -> Option<Arc<str>> {
        match self {
            Self::Name(name) => Some(Arc::clone(name)),
            Self::Address(_) => None,
        }
    }

    /// The address, if it is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::Address(address) => Some(*address),
        }
    }
}

impl Outside {
    /// What the authority of a CONNECT names.
    pub(crate) fn parse(authority: &[u8]) -> Option<Self> {
        let Authority { host, port } = Authority::parse(authority)?;
        Some(Self { host: Host::parse(std::str::from_utf8(host).ok()?), port: port? })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

/// Names out of the mesh whose addresses a worker remembers.
const MAX_KNOWN: usize = 1024;

/// Names that are looked up at a time by one worker. One more is refused.
const MAX_LOOKUPS: usize = 256;

/// How long addresses are remembered at most, whatever their records say.
const MAX_KEPT: Duration = Duration::from_secs(60);

/// The same at least, so that a name with a TTL of zero is not asked for with each of many connections.
const MIN_KEPT: Duration = Duration::from_secs(1);

/// Addresses that are tried for one connection.
const MAX_ADDRESSES: usize = 4;

/// How long connecting to one of them may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Finds the addresses of names out of the mesh, for one worker.
#[derive(Default)]
pub(crate) struct OutsideDns {
    /// Made when the first name is looked up: it reads /etc/resolv.conf. Nothing when that cannot be used.
    dns: OnceCell<Option<Dns>>,
    known: RefCell<HashMap<Arc<str>, Known>>,
    lookups: Cell<usize>,
}

struct Known {
    addresses: Rc<[IpAddr]>,
    until: Instant,
}

/// Counts a lookup as long as it takes.
struct Lookup<'a>(&'a Cell<usize>);

impl Drop for Lookup<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl OutsideDns {
    /// The addresses of a name, remembered or looked up.
    async fn find(&self, worker: &Worker, name: &Arc<str>) -> Result<Rc<[IpAddr]>, Failure> {
        let now = Instant::now();
        if let Some(known) = self.known.borrow().get(name).filter(|known| known.until > now) {
            return Ok(Rc::clone(&known.addresses));
        }
        if self.lookups.get() >= MAX_LOOKUPS {
            worker.metrics.borrow_mut().limit(Limit::EgressLookups);
            return Err(Cause::Overloaded.into());
        }
        self.lookups.set(self.lookups.get() + 1);
        let _counted = Lookup(&self.lookups);
        let dns = self.dns.get_or_init(|| {
            Dns::new(&Nameservers::System, Settings::default(), worker.origin)
                .map_err(|error| tracing::warn!(%error, "names out of the mesh cannot be looked up"))
                .ok()
        });
        let Some(dns) = dns else { return Err(Cause::DnsError.into()) };
        let (addresses, ttl) = dns.addresses(name).await.map_err(|error| {
            tracing::info!(%name, %error, "a name out of the mesh has no address");
            Failure::from(Cause::DnsError)
        })?;
        let addresses: Rc<[IpAddr]> = addresses.into();
        let mut known = self.known.borrow_mut();
        if known.len() >= MAX_KNOWN {
            let now = Instant::now();
            known.retain(|_, known| known.until > now);
        }
        if known.len() < MAX_KNOWN {
            let until = Instant::now() + ttl.clamp(MIN_KEPT, MAX_KEPT);
            known.insert(Arc::clone(name), Known { addresses: Rc::clone(&addresses), until });
        }
        Ok(addresses)
    }
}

/// Opens a connection to a host out of the mesh, to the next one of its addresses where one cannot be reached.
///
/// # Errors
/// Why not. An address that is this machine's own, or that of its neighbours on the link, is refused: whoever can make a
/// name lead there would get at what only this machine may. `is_listed` tells addresses that documents name.
pub(crate) async fn connect(
    worker: &Worker,
    to: &Outside,
    is_listed: impl Fn(IpAddr) -> bool,
) -> Result<(TcpStream, SocketAddr), Failure> {
    let addresses = match &to.host {
        Host::Address(address) => Rc::from([*address]),
        Host::Name(name) => worker.outside_dns.find(worker, name).await?,
    };
    let mut failure = Failure::from(Cause::AccessDenied);
    for address in addresses.iter().filter(|address| may_reach(**address, &is_listed)).take(MAX_ADDRESSES) {
        let address = SocketAddr::new(*address, to.port);
        match rhumb_net::connect::connect(address, CONNECT_TIMEOUT).await {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => {
                tracing::debug!(%to, %address, %error, "an address out of the mesh cannot be reached");
                failure = match error.kind() {
                    std::io::ErrorKind::TimedOut => Cause::ConnectTimeout,
                    std::io::ErrorKind::ConnectionRefused => Cause::ConnectRefused,
                    _ => Cause::ConnectFailed,
                }
                .into();
            }
        }
    }
    Err(failure)
}

/// True for an address that names may lead to, or that documents list.
pub(crate) fn may_reach(address: IpAddr, is_listed: impl Fn(IpAddr) -> bool) -> bool {
    !is_own(address) || is_listed(address)
}

/// True for addresses that mean this machine, or its neighbours on the link: metadata services of clouds are there.
fn is_own(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets().first() == Some(&0),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    is_special
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || virtual_address::is_virtual(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_names_a_host_and_a_port() {
        for (authority, shown) in [
            ("API.example.com:443", Some("api.example.com:443")),
            ("api.example.com.:443", Some("api.example.com:443")),
            ("203.0.113.7:80", Some("203.0.113.7:80")),
            ("[2001:DB8::1]:80", Some("[2001:db8::1]:80")),
            ("[::ffff:203.0.113.7]:80", Some("203.0.113.7:80")),
            ("api.example.com", None),
            ("2001:db8::1:80", None),
            ("127.1:80", None),
            ("api.example.com:0", None),
            ("user@api.example.com:80", None),
            ("", None),
        ] {
            let found = Outside::parse(authority.as_bytes()).map(|outside| outside.to_string());
            assert_eq!(found.as_deref(), shown, "{authority}");
        }
    }

    #[test]
    fn addresses_of_the_machine_and_its_link_are_told() {
        for own in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:127.0.0.1",
            "240.240.0.1",
            "240.241.0.1",
        ] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["10.0.0.1", "203.0.113.7", "2001:db8::1", "fd00::1"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }
}
