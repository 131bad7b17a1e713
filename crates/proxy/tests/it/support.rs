//! A worker with a plan made by hand, and backends that say what the test tells them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rhumb_balance::{Algorithm, BudgetLimits, EndpointSet, EndpointSpec, Endpoints, RetryBudget};
use rhumb_plan::{
    Backend, Current, HashOn, Plan, Port, PortSettings, Retry, Rule, Timeouts, WeightedBackend,
};
use rhumb_policy::{Chain, Item};
use rhumb_proxy::worker::{self, Command, Shared};
use rhumb_telemetry::{AccessLog, AccessLogConfig, Registry};
use rhumb_testkit::message::{Kind, Message, latin};
use rhumb_testkit::{h2, hpack, wait};
use rhumb_upstream::target::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT};
use rhumb_upstream::{Protocol, Target};
use tokio::sync::mpsc;

/// What a test may change about the plan: one port, one rule, one backend.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) settings: PortSettings,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Retry,
    pub(crate) budget: BudgetLimits,
    pub(crate) protocol: Protocol,
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) connect_timeout: Duration,
    pub(crate) policies: Vec<Item>,
    pub(crate) revision: u64,
}

impl Setup {
    /// One rule that sends everything to an HTTP/1.1 backend.
    pub(crate) fn to(endpoint: SocketAddr) -> Self {
        Self {
            settings: PortSettings::default(),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            budget: BudgetLimits::default(),
            protocol: Protocol::Http1,
            endpoints: vec![endpoint],
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            policies: Vec::new(),
            revision: 1,
        }
    }

    /// The same with an HTTP/2 backend.
    pub(crate) fn to_h2(endpoint: SocketAddr) -> Self {
        Self { protocol: Protocol::Http2, ..Self::to(endpoint) }
    }

    fn plan(&self, address: SocketAddr) -> Arc<Plan> {
        let specs = self.endpoints.iter().map(|endpoint| EndpointSpec::new(*endpoint)).collect();
        let backend = Arc::new(Backend {
            name: "backend".into(),
            digest: 0,
            dns_names: Box::default(),
            endpoints: Arc::new(Endpoints::new(EndpointSet::new(specs, Algorithm::RoundRobin))),
            budget: Arc::new(RetryBudget::new(self.budget)),
            needs_key: false,
            check: None,
            hash_on: HashOn::default(),
            target: Target {
                connections: Arc::default(),
                max_connections: None,
                max_pending: 1024,
                key: 1,
                protocol: self.protocol,
                tls: None,
                proxy_protocol: None,
                connect_timeout: self.connect_timeout,
                idle_timeout: DEFAULT_IDLE_TIMEOUT,
                limits: rhumb_codec::h1::Limits::default(),
            },
            mesh: None,
            metrics_id: OnceLock::new(),
        });
        let rule = Rule {
            route: "route".into(),
            index: 0,
            template: "/".into(),
            listener: "web".into(),
            chain: Chain::new(self.policies.clone()),
            backends: [WeightedBackend {
                timeouts: self.timeouts,
                retry: Arc::new(self.retry.clone()),
                ..WeightedBackend::new(1, Some(Arc::clone(&backend)))
            }]
            .into(),
            mirrors: Box::default(),
            timeouts: self.timeouts,
            priority: rhumb_policy::Priority::Normal,
            tracing: None,
            has_sessions: false,
            invalid: None,
            metrics_id: OnceLock::new(),
        };
        let mut table = rhumb_route::Builder::new();
        let listener = table.listener(&rhumb_route::Host::Any);
        table.attach(
            listener,
            Arc::new(rhumb_route::Rule {
                route: "route".into(),
                created: 0,
                index: 0,
                hosts: Box::default(),
                matches: [rhumb_route::RequestMatch::default()].into(),
                value: rule,
            }),
        );
        let port = Port {
            address,
            name: "web".into(),
            listeners: Box::default(),
            tls: None,
            table: table.build(),
            priority: None,
            settings: self.settings.clone(),
            l4: None,
            role: None,
        };
        let udp_ports = Vec::new();
        let (ports, backends) = (vec![Arc::new(port)], vec![backend]);
        Arc::new(Plan {
            revision: self.revision,
            ports,
            udp_ports,
            backends,
            consumers: Default::default(),
            keeper: rhumb_policy::Keeper::default(),
            names_clients: false,
            admin: None,
            mesh: None,
        })
    }

    /// Starts a worker with this plan.
    pub(crate) fn start(&self) -> Proxy {
        self.start_after(|_, _| {})
    }

    /// Does something while the port listens and no worker runs yet, then starts it.
    pub(crate) fn start_after(
        &self,
        before: impl FnOnce(SocketAddr, &mpsc::UnboundedSender<Command>),
    ) -> Proxy {
        let socket = rhumb_net::listen::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let (current, registry) = (Current::default(), Registry::new());
        current.swap(self.plan(address));
        let log = tempfile::NamedTempFile::new().unwrap();
        let access_log = AccessLogConfig {
            sink: rhumb_telemetry::access_log::Sink::File(log.path().into()),
            ..AccessLogConfig::default()
        };
        let access_log = Arc::new(AccessLog::open(access_log, &registry).unwrap());
        let (commands, receiver) = mpsc::unbounded_channel();
        assert!(commands.send(Command::Log(vec![Arc::clone(&access_log)])).is_ok());
        assert!(commands.send(Command::Listen(address, socket)).is_ok());
        before(address, &commands);
        let shared = Shared {
            current: current.clone(),
            registry: Arc::clone(&registry),
            origin: Instant::now(),
            connections: Arc::default(),
            pressure: Arc::default(),
            discovery: rhumb_proxy::discovery::Discovery::default(),
            outside: Default::default(),
            plaintext: Arc::default(),
            signals: None,
            lookout: None,
            taps: Arc::default(),
            awake: Arc::default(),
        };
        let thread = Some(std::thread::spawn(move || worker::run(&shared, receiver).unwrap()));
        Proxy { address, current, registry, commands, thread, access_log, log }
    }
}

/// A worker on a thread of its own.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    current: Current,
    registry: Arc<Registry>,
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
    access_log: Arc<AccessLog>,
    log: tempfile::NamedTempFile,
}

impl Proxy {
    /// Puts another plan into force.
    pub(crate) fn swap(&self, setup: &Setup) {
        self.current.swap(setup.plan(self.address));
    }

    /// The plan in force.
    pub(crate) fn plan(&self) -> Arc<Plan> {
        self.current.load()
    }

    /// Begins to drain; the worker ends by itself when its connections do, at the latest after `within`.
    pub(crate) fn drain(&self, within: Duration) {
        assert!(self.commands.send(Command::Drain(Instant::now() + within)).is_ok());
    }

    /// Waits until the worker has ended.
    pub(crate) fn wait(&mut self) {
        let thread = self.thread.take().unwrap();
        wait::until("the worker ends", || thread.is_finished().then_some(()));
        assert!(thread.join().is_ok(), "the worker has panicked");
    }

    /// The sum of a metric's series whose labels have every one of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let mut text = String::new();
        self.registry.render(rhumb_telemetry::metrics::Format::Text, &mut text);
        let is_of = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        text.lines().filter(is_of).filter_map(value).sum()
    }

    /// Exchanges that have begun and are not recorded.
    pub(crate) fn active(&self) -> f64 {
        self.metric("http_server_active_requests", &[])
    }

    /// The access log's records, once there are `count`.
    pub(crate) fn records(&self, count: usize) -> Vec<serde_json::Value> {
        wait::until("the records are in the log", || {
            self.access_log.flush(Duration::from_secs(1));
            let text = std::fs::read_to_string(self.log.path()).unwrap();
            let records: Vec<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            (records.len() >= count).then_some(records)
        })
    }

    /// The only record.
    pub(crate) fn record(&self) -> serde_json::Value {
        let mut records = self.records(1);
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Drain(Instant::now()));
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(!matches!(ended, Some(Err(_))), "the worker has panicked");
        }
    }
}

/// A listening backend whose connections the test takes and answers itself.
pub(crate) struct Listener(TcpListener);

impl Listener {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> Peer {
        wait::until("a connection comes", || self.try_accept())
    }

    /// A connection that is there already.
    pub(crate) fn try_accept(&self) -> Option<Peer> {
        match self.0.accept() {
            Ok((stream, _)) => Some(Peer::new(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("accept: {error}"),
        }
    }
}

/// A connection that the backend has accepted.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    pub(crate) received: Vec<u8>,
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(wait::LIMIT)).unwrap();
        stream.set_write_timeout(Some(wait::LIMIT)).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// A complete request.
    pub(crate) fn request(&mut self) -> Message {
        self.read("a request", |received| Message::read(received, Kind::Request, false).unwrap())
    }

    /// A request without its content; what of it has come stays.
    pub(crate) fn head(&mut self) -> Message {
        self.read("a request head", |received| Message::read_start(received, Kind::Request).unwrap())
    }

    /// Reads until `take` finds something at the front of what came, and how long it is.
    pub(crate) fn read<T>(&mut self, what: &str, take: impl Fn(&[u8]) -> Option<(T, usize)>) -> T {
        loop {
            if let Some((found, len)) = take(&self.received) {
                self.received.drain(..len);
                return found;
            }
            assert!(self.fill() > 0, "end instead of {what} after {:?}", latin(&self.received));
        }
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.read("bytes", |received| Some((received.get(..count)?.to_vec(), count)))
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Answers the next request with `content`; the request.
    pub(crate) fn answer(&mut self, content: &str) -> Message {
        let request = self.request();
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len()));
        request
    }

    /// Answers a request if one has come; for sockets that do not block.
    pub(crate) fn answer_if_asked(&mut self, content: &str) {
        let mut buf = [0; 65_536];
        if let Ok(n) = self.stream.read(&mut buf) {
            self.received.extend_from_slice(&buf[..n]);
        }
        if let Some((_, len)) = Message::read(&self.received, Kind::Request, false).unwrap() {
            self.received.drain(..len);
            self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len()));
        }
    }

    /// Everything that comes until the proxy closes; true when it closed with a reset.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, bool) {
        loop {
            let mut buf = [0; 65_536];
            match self.stream.read(&mut buf) {
                Ok(0) => return (std::mem::take(&mut self.received), false),
                Ok(n) => self.received.extend_from_slice(&buf[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return (std::mem::take(&mut self.received), true);
                }
                Err(error) => panic!("the proxy does not close: {error}; {:?}", latin(&self.received)),
            }
        }
    }

    fn fill(&mut self) -> usize {
        let mut buf = [0; 65_536];
        let n = self.stream.read(&mut buf).unwrap();
        self.received.extend_from_slice(&buf[..n]);
        n
    }
}

/// Connects to the proxy as a bare socket.
pub(crate) fn connect(address: SocketAddr) -> Peer {
    Peer::new(TcpStream::connect(address).unwrap())
}

/// An HTTP/2 backend's connection: frames by hand.
pub(crate) struct H2Peer {
    pub(crate) peer: Peer,
    decoder: hpack::Decoder,
}

impl H2Peer {
    /// The next connection, after its preface; answers with these settings.
    pub(crate) fn accept(listener: &Listener, parameters: &[(u16, u32)]) -> Self {
        let mut peer = listener.accept();
        assert_eq!(peer.bytes(h2::PREFACE.len()), h2::PREFACE);
        peer.send(h2::settings(parameters));
        Self { peer, decoder: hpack::Decoder::default() }
    }

    /// The next frame that is neither SETTINGS, PING nor WINDOW_UPDATE; the first two are acknowledged.
    pub(crate) fn frame(&mut self) -> h2::Frame {
        loop {
            let frame = self.peer.read("a frame", h2::Frame::read);
            match frame.kind {
                h2::kind::SETTINGS | h2::kind::PING if frame.flags & h2::ACK == 0 => {
                    let payload = if frame.kind == h2::kind::PING { &frame.payload[..] } else { &[] };
                    self.peer.send(h2::frame(frame.kind, h2::ACK, 0, payload));
                }
                h2::kind::SETTINGS | h2::kind::PING | h2::kind::WINDOW_UPDATE => {}
                _ => return frame,
            }
        }
    }

    /// The next request's stream and fields.
    pub(crate) fn request(&mut self) -> (u32, Vec<(String, String)>) {
        loop {
            let frame = self.frame();
            if frame.kind == h2::kind::HEADERS {
                return (frame.stream, self.decoder.decode(&frame.payload).unwrap());
            }
        }
    }

    /// Content of a stream until there are `count` bytes.
    pub(crate) fn content(&mut self, stream: u32, count: usize) -> Vec<u8> {
        let mut content = Vec::new();
        while content.len() < count {
            let frame = self.frame();
            assert_eq!((frame.kind, frame.stream), (h2::kind::DATA, stream), "{frame:?}");
            content.extend(frame.payload);
        }
        content
    }

    pub(crate) fn respond(&mut self, stream: u32, fields: &[(&str, &str)], is_end: bool) {
        self.peer.send(h2::headers(stream, &hpack::encode(fields), is_end));
    }
}

/// The value of a field.
pub(crate) fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// An address where connecting neither succeeds nor fails; the sockets that make it so.
pub(crate) fn black_hole() -> (SocketAddr, Vec<socket2::Socket>) {
    let new = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = new();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut held = vec![listener];
    // Linux drops SYNs once the queue of connections that nobody accepts is full.
    loop {
        let socket = new();
        if socket.connect_timeout(&address.into(), Duration::from_millis(300)).is_err() {
            return (address, held);
        }
        held.push(socket);
    }
}
