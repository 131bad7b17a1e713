//! Name servers and how they are asked.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, ResolverBuilder};
use rhumb_base::resolv_conf::ResolvConf;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::capture;

/// Where name servers listen (RFC 1035 §4.2).
pub const PORT: u16 = 53;

/// How long a connection to a name server may take to be made when nobody says.
const CONNECT: Duration = Duration::from_secs(5);

/// Asks name servers, from sockets that pass where connections are captured.
pub type NameResolver = Resolver<Sockets>;

/// Why a name has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// NXDOMAIN: the name does not exist.
    #[error("the name does not exist (NXDOMAIN)")]
    NoSuchName,
    /// The name exists and has no records of the kind; or a service says that it is not offered (RFC 2782, target `.`).
    #[error("the name has no addresses")]
    NoRecords,
    /// What was asked for cannot be a name.
    #[error("{0}")]
    NotAName(&'static str),
    /// A server answered with an error, such as SERVFAIL or REFUSED.
    #[error("the name server answered {0}")]
    Server(String),
    /// No server answered in time.
    #[error("no name server answered in time")]
    Timeout,
    /// Anything else: no server can be reached, an answer cannot be read.
    #[error("{0}")]
    Other(String),
}

impl Trouble {
    /// The name in metrics.
    pub fn token(&self) -> &'static str {
        match self {
            Self::NoSuchName => "nxdomain",
            Self::NoRecords => "nodata",
            Self::Server(_) => "server_failure",
            Self::Timeout => "timeout",
            Self::NotAName(_) | Self::Other(_) => "error",
        }
    }

    /// True when a server knows that there are no addresses, rather than not knowing.
    pub fn is_negative(&self) -> bool {
        matches!(self, Self::NoSuchName | Self::NoRecords)
    }

    /// What servers do not know weighs more than what they know not to exist.
    pub fn outweighs(&self, other: &Self) -> bool {
        other.is_negative() && !self.is_negative()
    }
}

/// What a file says of how names are asked for; as by default when there is none.
pub fn read_conf(path: &str) -> ResolvConf {
    let text = std::fs::read(path).unwrap_or_default();
    ResolvConf::parse(&String::from_utf8_lossy(&text))
}

/// A resolver in the making that asks as this machine's programs do: the name servers of `conf` at `port`, with its search
/// list, after /etc/hosts.
pub fn of_machine(conf: &ResolvConf, port: u16) -> ResolverBuilder<Sockets> {
    let servers = conf.nameservers.iter().map(|&ip| SocketAddr::new(ip, port));
    let mut builder = builder(servers, &conf.search);
    let options = builder.options_mut();
    options.ndots = conf.ndots;
    options.timeout = conf.timeout;
    options.attempts = repetitions(conf.attempts);
    // resolv.conf(5) turns it on, for servers that know it.
    options.edns0 = false;
    builder
}

/// A resolver in the making that asks these servers and nobody else, for names as they are.
pub fn of(servers: &[SocketAddr]) -> ResolverBuilder<Sockets> {
    let mut builder = builder(servers.iter().copied(), &[]);
    builder.options_mut().use_hosts_file = ResolveHosts::Never;
    builder
}

/// Over UDP and, for long answers, TCP; domains that cannot be names are left out. Answers are kept by whoever asks, or not at
/// all.
fn builder(servers: impl Iterator<Item = SocketAddr>, search: &[String]) -> ResolverBuilder<Sockets> {
    let search = search.iter().filter_map(|domain| Name::from_str_relaxed(format!("{domain}.")).ok());
    let config = ResolverConfig::from_parts(None, search.collect(), servers.map(name_server).collect());
    let mut builder = Resolver::builder_with_config(config, Sockets::default());
    builder.options_mut().cache_size = 0;
    builder
}

/// What the resolver calls attempts, of how often each server shall be asked: those after the first.
pub fn repetitions(attempts: usize) -> usize {
    attempts.saturating_sub(1)
}

/// Asks for the records of a name.
///
/// # Errors
/// [`Trouble`], when there are none or nobody knows.
pub async fn lookup(resolver: &NameResolver, name: &str, kind: RecordType) -> Result<Lookup, Trouble> {
    match resolver.lookup(name, kind).await {
        Ok(found) => Ok(found),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Err(match none.response_code {
            ResponseCode::NXDomain => Trouble::NoSuchName,
            ResponseCode::NoError => Trouble::NoRecords,
            code => Trouble::Server(code.to_string()),
        }),
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(Trouble::Server(code.to_string())),
        Err(NetError::Timeout) => Err(Trouble::Timeout),
        Err(error) => Err(Trouble::Other(error.to_string())),
    }
}

/// The addresses among the records of an answer.
pub fn addresses(found: &Lookup) -> impl Iterator<Item = IpAddr> + '_ {
    found.answers().iter().filter_map(|record| match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    })
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// Sockets towards name servers, [marked](capture::mark) as all of this process: questions that are captured would come
/// back to it.
#[derive(Clone, Default)]
pub struct Sockets(TokioRuntimeProvider);

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        patience: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        Box::pin(async move {
            let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            capture::mark(&socket);
            if let Some(local) = local {
                socket.bind(local)?;
            }
            socket.set_nodelay(true)?;
            let stream = tokio::time::timeout(patience.unwrap_or(CONNECT), socket.connect(server)).await??;
            Ok(AsyncIoTokioAsStd(stream))
        })
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            capture::mark(&socket);
            Ok(socket)
        })
    }
}
