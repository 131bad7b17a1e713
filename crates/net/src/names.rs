//! Which addresses a host has, for what this process asks of others: control planes, databases, issuers.
//!
//! The C library is not asked. In a program that is linked with it statically, its `getaddrinfo` loads modules of whatever
//! version the machine has; so hosts that only such a module knows (mDNS, LDAP) are not found. These are asked, in order:
//! the host itself, when it is an address; /etc/hosts; for `localhost` nobody else (RFC 6761 §6.3); the name servers of
//! /etc/resolv.conf with its search list. The files are read anew for each host: somebody who connects does so seldom.
//!
//! Backends of documents are resolved elsewhere (`upstream::dns`), with the same [`servers`].

mod hosts;
mod order;
pub mod servers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use std::{fs, io};

use hickory_resolver::config::ResolveHosts;
use hickory_resolver::proto::rr::RecordType;
use rhumb_base::resolv_conf::{self, ResolvConf};

use servers::{NameResolver, Trouble};

/// Addresses of one host, at most. More are left out.
pub const MOST_ADDRESSES: usize = 32;

/// How long finding them may take, whatever resolv.conf(5) gives each name server.
pub const LONGEST: Duration = Duration::from_secs(10);

/// A host whose addresses are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host}: {why}")]
pub struct Unresolved {
    /// The host as it was written.
    pub host: String,
    /// What is wrong with it.
    pub why: Trouble,
}

impl From<Unresolved> for io::Error {
    fn from(error: Unresolved) -> Self {
        let kind = match error.why {
            Trouble::NoSuchName | Trouble::NoRecords => io::ErrorKind::NotFound,
            Trouble::Timeout => io::ErrorKind::TimedOut,
            Trouble::NotAName(_) => io::ErrorKind::InvalidInput,
            Trouble::Server(_) | Trouble::Other(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The parts of `HOST:PORT`; an IPv6 address in brackets.
///
/// # Errors
/// When there is no port.
pub fn host_and_port(server: &str) -> Result<(&str, u16), Unresolved> {
    let parts = server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parts.ok_or_else(|| Unresolved {
        host: server.to_owned(),
        why: Trouble::NotAName("is not of the form HOST:PORT"),
    })
}

/// The addresses of a host, at least one, those first that are most likely reached (see `order`).
///
/// # Errors
/// When it has none, or nobody knows.
pub async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
    Sources::MACHINE.addresses(host, port).await
}

/// The same, for a thread that may wait.
///
/// # Errors
/// When it has none, or nobody knows.
pub fn addresses_blocking(host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
    Sources::MACHINE.addresses_blocking(host, port)
}

/// Who is asked.
struct Sources<'a> {
    hosts: &'a str,
    resolv_conf: &'a str,
    /// Where name servers listen.
    port: u16,
    longest: Duration,
}

impl Sources<'static> {
    const MACHINE: Self =
        Self { hosts: hosts::PATH, resolv_conf: resolv_conf::PATH, port: servers::PORT, longest: LONGEST };
}

impl Sources<'_> {
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
        let found = match self.known_here(host) {
            Some(found) => Ok(found),
            None => tokio::time::timeout(self.longest, self.ask(host)).await.unwrap_or(Err(Trouble::Timeout)),
        };
        told(host, port, found)
    }

    fn addresses_blocking(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
        if let Some(found) = self.known_here(host) {
            return told(host, port, Ok(found));
        }
        // On a thread of its own: the caller's may belong to a runtime, which must not run another one.
        let lookup = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(self.addresses(host, port)))
        };
        let looked_up = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("names".to_owned()).spawn_scoped(scope, lookup)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the lookup panicked")))
        });
        looked_up.unwrap_or_else(|error| told(host, port, Err(Trouble::Other(error.to_string()))))
    }

    /// The addresses of a host that no name server is asked about.
    fn known_here(&self, host: &str) -> Option<Vec<IpAddr>> {
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = literal.parse() {
            return Some(vec![address]);
        }
        let name = host.trim_end_matches('.');
        let text = fs::read(self.hosts).unwrap_or_default();
        let mut found = hosts::addresses(&String::from_utf8_lossy(&text), name);
        if found.is_empty() && is_localhost(name) {
            found = vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
        }
        (!found.is_empty()).then_some(found)
    }

    async fn ask(&self, host: &str) -> Result<Vec<IpAddr>, Trouble> {
        if host.is_empty() || host.contains([':', '[', ']', '/', '@']) || host.contains(char::is_whitespace) {
            return Err(Trouble::NotAName("is neither a name nor an address"));
        }
        let conf = servers::read_conf(self.resolv_conf);
        let mut builder = servers::of_machine(&conf, self.port);
        // It has been looked at, and only for the first name of a search list would it be again.
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        let resolver = builder.build().map_err(|error| Trouble::Other(error.to_string()))?;
        let mut worst = Trouble::NoSuchName;
        for (at, name) in candidates(host, &conf).into_iter().enumerate() {
            match both_families(&resolver, &name).await {
                Ok(found) => return Ok(found),
                Err(trouble) if at == 0 || trouble.outweighs(&worst) => worst = trouble,
                Err(_) => {}
            }
        }
        Err(worst)
    }
}

fn told(host: &str, port: u16, found: Result<Vec<IpAddr>, Trouble>) -> Result<Vec<SocketAddr>, Unresolved> {
    let found = found.map_err(|why| Unresolved { host: host.to_owned(), why })?;
    Ok(order::sorted(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()))
}

/// RFC 6761 §6.3: `localhost` and names within it.
fn is_localhost(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

/// What is asked for in turn, complete names all of them.
fn candidates(host: &str, conf: &ResolvConf) -> Vec<String> {
    let as_it_is = format!("{}.", host.trim_end_matches('.'));
    if host.ends_with('.') {
        return vec![as_it_is];
    }
    let domains = conf.search.iter().filter(|domain| !domain.is_empty());
    let mut names: Vec<String> = domains.map(|domain| format!("{as_it_is}{domain}.")).collect();
    let is_first = host.matches('.').count() >= conf.ndots;
    names.insert(if is_first { 0 } else { names.len() }, as_it_is);
    names
}

async fn both_families(resolver: &NameResolver, name: &str) -> Result<Vec<IpAddr>, Trouble> {
    let (v6, v4) = tokio::join!(
        servers::lookup(resolver, name, RecordType::AAAA),
        servers::lookup(resolver, name, RecordType::A)
    );
    let mut found = Vec::new();
    let mut worst = None;
    for outcome in [v6, v4] {
        match outcome {
            Ok(answer) => found.extend(servers::addresses(&answer).take(MOST_ADDRESSES)),
            Err(trouble) if worst.as_ref().is_none_or(|other| trouble.outweighs(other)) => {
                worst = Some(trouble)
            }
            Err(_) => {}
        }
    }
    // One family is enough: that the other is not known is no reason to reach nobody.
    if found.is_empty() { Err(worst.unwrap_or(Trouble::NoRecords)) } else { Ok(found) }
}

#[cfg(test)]
mod tests;
