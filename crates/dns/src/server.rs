//! The server: two sockets per family, and who may use how much of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::{Message, ResponseCode};
use rhumb_telemetry::metrics::Counter;
use rhumb_telemetry::{Limit, Metric, Registry};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, oneshot};

use crate::answer::{Reply, answer, refuse};
use crate::asking::{Asking, MAX_ASKED, Told};
use crate::forward::{Forwarder, framed, read_framed};
use crate::names::Names;

/// Questions that wait for name servers at a time. One more is answered with SERVFAIL.
pub const MAX_FORWARDED: usize = 512;

/// TCP connections of programs at a time. One more is closed at once.
pub const MAX_CONNECTIONS: usize = 64;

/// How long a TCP connection may rest (RFC 7766 §6.2.3).
pub const IDLE: Duration = Duration::from_secs(10);

/// The port of name servers.
const DNS: u16 = 53;

/// Longest datagram of a question.
const LONGEST: usize = 4096;

/// What a server needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Port on 127.0.0.1 and ::1: rules of the kernel bring questions of this machine there, nobody else's. 0: a free one.
    pub port: u16,
    /// Name servers for all other names, in this order.
    pub nameservers: Vec<IpAddr>,
    /// Whether programs here can connect over IPv6.
    pub is_v6: bool,
    /// Who knows names that are not in the table.
    pub asking: Option<Asking>,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    _alive: oneshot::Sender<()>,
}

impl Server {
    /// Binds and answers from here on, on a thread of its own.
    ///
    /// # Errors
    /// When the port cannot be had on 127.0.0.1, or there is no thread.
    pub fn start(settings: &Settings, names: Arc<ArcSwap<Names>>, registry: &Registry) -> io::Result<Self> {
        let forwarders: Vec<_> =
            settings.nameservers.iter().map(|&server| SocketAddr::new(server, DNS)).collect();
        Self::start_with(settings, &forwarders, names, registry)
    }

    fn start_with(
        settings: &Settings,
        nameservers: &[SocketAddr],
        names: Arc<ArcSwap<Names>>,
        registry: &Registry,
    ) -> io::Result<Self> {
        let (v4, v6) = match settings.port {
            0 => (0..ATTEMPTS).find_map(|_| both(0).ok()).map_or_else(|| both(0), Ok)?,
            port => both(port)?,
        };
        let addresses = std::iter::once(v4.address).chain(v6.as_ref().map(|v6| v6.address)).collect();
        let hub = Arc::new(Hub {
            names,
            is_v6: settings.is_v6,
            forwarder: Forwarder::new(nameservers),
            forwards: Semaphore::new(MAX_FORWARDED),
            asking: settings.asking.clone(),
            asked: Semaphore::new(MAX_ASKED),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            counts: Counts::new(registry),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (alive, gone) = oneshot::channel();
        let (started, starting) = mpsc::channel();
        std::thread::Builder::new().name("dns".to_owned()).spawn(move || {
            runtime.block_on(async {
                let registered = std::iter::once(v4).chain(v6).try_for_each(|sockets| sockets.serve(&hub));
                // The caller waits for this word.
                let _ = started.send(registered);
                // Whatever is sent, and the end of the sender, mean the same.
                let _ = gone.await;
            });
            runtime.shutdown_background();
        })?;
        starting.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
        Ok(Self { addresses, _alive: alive })
    }

    /// Where it answers.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Sockets of both families on one port; of IPv4 alone where there is no IPv6.
fn both(port: u16) -> io::Result<(Sockets, Option<Sockets>)> {
    let v4 = Sockets::bind((Ipv4Addr::LOCALHOST, port).into())?;
    match Sockets::bind((Ipv6Addr::LOCALHOST, v4.address.port()).into()) {
        Ok(v6) => Ok((v4, Some(v6))),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok((v4, None)),
        Err(error) if error.raw_os_error() == Some(AFNOSUPPORT) => Ok((v4, None)),
        Err(error) => Err(error),
    }
}

/// How often a free port is looked for: one that is free for one socket need not be for the others.
const ATTEMPTS: usize = 16;

/// EAFNOSUPPORT, which has no kind of its own.
const AFNOSUPPORT: i32 = 97;

/// The two sockets of one address.
struct Sockets {
    address: SocketAddr,
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl Sockets {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        let udp = std::net::UdpSocket::bind(address)?;
        udp.set_nonblocking(true)?;
        let address = udp.local_addr()?;
        let tcp = std::net::TcpListener::bind(address)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { address, udp, tcp })
    }

    fn serve(self, hub: &Arc<Hub>) -> io::Result<()> {
        let udp = Arc::new(UdpSocket::from_std(self.udp)?);
        tokio::spawn(Arc::clone(hub).serve_datagrams(udp));
        tokio::spawn(Arc::clone(hub).serve_connections(TcpListener::from_std(self.tcp)?));
        Ok(())
    }
}

/// What to do about a question.
enum Decision {
    /// To give this answer.
    Answer(Vec<u8>),
    /// To ask name servers.
    Forward,
    /// To ask whoever knows more names.
    Ask(Box<str>),
}

struct Hub {
    names: Arc<ArcSwap<Names>>,
    is_v6: bool,
    forwarder: Forwarder,
    forwards: Semaphore,
    asking: Option<Asking>,
    asked: Semaphore,
    connections: Arc<Semaphore>,
    counts: Counts,
}

/// Over which transport a question came, and goes on.
#[derive(Clone, Copy)]
enum Transport {
    Datagram,
    Connection,
}

impl Hub {
    async fn serve_datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buf = vec![0; LONGEST];
        loop {
            let (len, from) = match socket.recv_from(&mut buf).await {
                Ok(received) => received,
                Err(error) => {
                    // An answer that nobody took (ICMP); anything else would come back at once.
                    tracing::debug!(%error, "a question for a name was not received");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let Some(Ok(query)) = buf.get(..len).map(Message::from_vec) else {
                // Nothing can be said to what cannot be read: not even its id is sure.
                self.counts.unreadable.add(1);
                continue;
            };
            match self.decide(&query, from.port(), self.asking.is_none()) {
                Decision::Answer(answer) => reply(&socket, answer, from).await,
                undecided => {
                    let (hub, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    let question = buf.get(..len).unwrap_or_default().to_vec();
                    // Bounded by the permits that it asks for first.
                    tokio::spawn(async move {
                        let way = (from.port(), Transport::Datagram);
                        let answer = hub.find_out(undecided, &query, &question, way).await;
                        reply(&socket, answer, from).await;
                    });
                }
            }
        }
    }

    async fn serve_connections(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
                        self.counts.too_many_connections.add(1);
                        continue;
                    };
                    let hub = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = hub.serve_connection(stream, from).await {
                            tracing::debug!(%error, "a connection with questions for names ended");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection with questions for names");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn serve_connection(&self, mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
        while let Ok(question) = tokio::time::timeout(IDLE, read_framed(&mut stream)).await {
            let question = match question {
                Ok(question) => question,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            };
            let Ok(query) = Message::from_vec(&question) else {
                self.counts.unreadable.add(1);
                break;
            };
            let answer = match self.decide(&query, from.port(), self.asking.is_none()) {
                Decision::Answer(answer) => answer,
                undecided => {
                    let way = (from.port(), Transport::Connection);
                    self.find_out(undecided, &query, &question, way).await
                }
            };
            tokio::time::timeout(IDLE, stream.write_all(&framed(&answer)?)).await??;
        }
        Ok(())
    }

    /// What to do about a question. `is_complete`: the table has all names, as far as anybody knows.
    fn decide(&self, query: &Message, port: u16, is_complete: bool) -> Decision {
        match answer(query, &self.names.load(), self.is_v6, is_complete) {
            Reply::Here(message) => {
                self.counts.here.add(1);
                Decision::Answer(encoded(&message))
            }
            Reply::Perhaps(name) => Decision::Ask(name),
            Reply::Elsewhere if self.forwarder.is_own(port) => {
                self.counts.loops.add(1);
                tracing::warn!(
                    "questions of this process for names come back to it: it needs CAP_NET_RAW to mark them, or a user of its \
                     own that `rhumb intercept --exclude-users` names"
                );
                Decision::Answer(encoded(&refuse(query, ResponseCode::Refused)))
            }
            Reply::Elsewhere => Decision::Forward,
        }
    }

    /// The answer to a question that others are asked about.
    async fn find_out(
        &self,
        decision: Decision,
        query: &Message,
        question: &[u8],
        (port, transport): (u16, Transport),
    ) -> Vec<u8> {
        let name = match decision {
            Decision::Answer(answer) => return answer,
            Decision::Forward => return self.forward(query, question, transport).await,
            Decision::Ask(name) => name,
        };
        let is_own = self.names.load().is_own(&name);
        let told = match (&self.asking, self.asked.try_acquire()) {
            (Some(asking), Ok(_permit)) => asking.ask(name).await,
            _ => None,
        };
        if told.is_none() {
            self.counts.too_many_asked.add(1);
        }
        if is_own && told != Some(Told::Looked) {
            // That there is no such name would be kept; that it is not known is asked again.
            self.counts.failed.add(1);
            return encoded(&refuse(query, ResponseCode::ServFail));
        }
        match self.decide(query, port, true) {
            Decision::Answer(answer) => answer,
            Decision::Forward | Decision::Ask(_) => self.forward(query, question, transport).await,
        }
    }

    async fn forward(&self, query: &Message, question: &[u8], transport: Transport) -> Vec<u8> {
        let Ok(_permit) = self.forwards.try_acquire() else {
            self.counts.too_many_forwards.add(1);
            return encoded(&refuse(query, ResponseCode::ServFail));
        };
        let answer = match transport {
            Transport::Datagram => self.forwarder.ask(question).await,
            Transport::Connection => self.forwarder.ask_long(question).await,
        };
        match answer {
            Some(answer) => {
                self.counts.forwarded.add(1);
                answer
            }
            None => {
                self.counts.failed.add(1);
                encoded(&refuse(query, ResponseCode::ServFail))
            }
        }
    }
}

async fn reply(socket: &UdpSocket, answer: Vec<u8>, to: SocketAddr) {
    if let Err(error) = socket.send_to(&answer, to).await {
        tracing::debug!(%error, "an answer for a name was not sent");
    }
}

/// The bytes of a message of our own: small, so it always fits; the empty one stands for one that does not.
fn encoded(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap_or_default()
}

struct Counts {
    here: Counter,
    forwarded: Counter,
    failed: Counter,
    loops: Counter,
    unreadable: Counter,
    too_many_forwards: Counter,
    too_many_asked: Counter,
    too_many_connections: Counter,
}

impl Counts {
    fn new(registry: &Registry) -> Self {
        let questions = |answer| registry.counter(Metric::DnsQuestions, &[answer]);
        let limit = |limit: Limit| registry.counter(Metric::LimitHits, &[limit.name()]);
        Self {
            here: questions("mesh"),
            forwarded: questions("forwarded"),
            failed: questions("failed"),
            loops: questions("loop"),
            unreadable: questions("unreadable"),
            too_many_asked: limit(Limit::MeshQuestions),
            too_many_forwards: limit(Limit::DnsForwards),
            too_many_connections: limit(Limit::DnsConnections),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Addresses;
    use hickory_proto::op::Query;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};
    use std::io::{Read, Write};

    /// A name server that knows one address for every name.
    fn name_server() -> SocketAddr {
        fn told(question: &[u8]) -> Vec<u8> {
            let query = Message::from_vec(question).unwrap();
            let mut answer = refuse(&query, ResponseCode::NoError);
            let name = query.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(name, 5, RData::A(A::new(192, 0, 2, 7))));
            answer.to_vec().unwrap()
        }
        let pair = std::iter::repeat_with(|| {
            let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let tcp = std::net::TcpListener::bind(udp.local_addr().unwrap());
            tcp.ok().map(|tcp| (udp, tcp))
        });
        let (udp, tcp) = pair.take(50).find_map(|pair| pair).unwrap();
        let address = udp.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buf = [0; 512];
            while let Ok((len, from)) = udp.recv_from(&mut buf) {
                // Somebody else's answer first: it is not taken.
                let mut wrong = told(&buf[..len]);
                wrong[0] ^= 1;
                udp.send_to(&wrong, from).unwrap();
                udp.send_to(&told(&buf[..len]), from).unwrap();
            }
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
                stream.read_exact(&mut question).unwrap();
                stream.write_all(&framed(&told(&question)).unwrap()).unwrap();
            }
        });
        address
    }

    fn start(nameservers: &[SocketAddr]) -> (Server, Arc<Registry>) {
        start_asking(nameservers, None, Arc::default())
    }

    fn start_asking(
        nameservers: &[SocketAddr],
        asking: Option<Asking>,
        table: Arc<ArcSwap<Names>>,
    ) -> (Server, Arc<Registry>) {
        let mut names = Names::default();
        names.insert("orders", Addresses { v4: Some(Ipv4Addr::new(240, 240, 0, 9)), v6: None });
        let registry = Registry::new();
        let settings = Settings { port: 0, nameservers: Vec::new(), is_v6: false, asking };
        table.store(Arc::new(names));
        (Server::start_with(&settings, nameservers, table, &registry).unwrap(), registry)
    }

    fn question(name: &str) -> Vec<u8> {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        query.to_vec().unwrap()
    }

    fn ask(server: SocketAddr, name: &str) -> Message {
        let socket = std::net::UdpSocket::bind((server.ip(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.send_to(&question(name), server).unwrap();
        let mut buf = [0; 512];
        let (len, from) = socket.recv_from(&mut buf).unwrap();
        assert_eq!(from, server);
        Message::from_vec(&buf[..len]).unwrap()
    }

    fn address(answer: &Message) -> String {
        answer.answers.iter().map(|record| record.data.to_string()).collect()
    }

    #[test]
    fn mesh_names_are_answered_here_and_others_by_the_name_server() {
        let (server, registry) = start(&[name_server()]);
        for &at in server.addresses() {
            assert_eq!(address(&ask(at, "orders.")), "240.240.0.9");
            assert_eq!(address(&ask(at, "example.com.")), "192.0.2.7");
        }
        let count = |answer| registry.counter(Metric::DnsQuestions, &[answer]).value();
        let asked = server.addresses().len() as u64;
        assert_eq!((count("mesh"), count("forwarded")), (asked, asked));
    }

    #[test]
    fn a_name_that_is_not_in_the_table_is_looked_for_first() {
        let (asking, mut questions) = Asking::new();
        asking.open(true);
        let table = Arc::<ArcSwap<Names>>::default();
        let (server, registry) = start_asking(&[name_server()], Some(asking), Arc::clone(&table));
        let known = Arc::clone(&table);
        std::thread::spawn(move || {
            while let Some(question) = questions.blocking_recv() {
                let told = match &*question.name {
                    "stock.shop.svc.cluster.local" => {
                        let mut names = Names::clone(&known.load());
                        let v4 = Some(Ipv4Addr::new(240, 240, 0, 10));
                        names.insert(&question.name, Addresses { v4, v6: None });
                        known.store(Arc::new(names));
                        Told::Looked
                    }
                    "none.shop.svc.cluster.local" | "example.com" => Told::Looked,
                    _ => Told::Away,
                };
                let _ = question.answer.send(told);
            }
        });
        let mut names = Names::clone(&table.load());
        names.own_zone("svc.cluster.local");
        table.store(Arc::new(names));
        let at = server.addresses()[0];
        assert_eq!(address(&ask(at, "stock.shop.svc.cluster.local.")), "240.240.0.10");
        assert_eq!(address(&ask(at, "example.com.")), "192.0.2.7");
        // Nobody can be asked: others may know it, unless it can only be ours.
        assert_eq!(address(&ask(at, "example.org.")), "192.0.2.7");
        let code = |name| ask(at, name).metadata.response_code;
        assert_eq!(code("none.shop.svc.cluster.local."), ResponseCode::NXDomain);
        assert_eq!(code("away.shop.svc.cluster.local."), ResponseCode::ServFail);
        assert_eq!(registry.counter(Metric::LimitHits, &[Limit::MeshQuestions.name()]).value(), 0);
    }

    #[test]
    fn one_connection_carries_several_questions() {
        let (server, _) = start(&[name_server()]);
        let mut stream = std::net::TcpStream::connect(server.addresses()[0]).unwrap();
        for (name, expected) in
            [("orders.", "240.240.0.9"), ("example.com.", "192.0.2.7"), ("orders.", "240.240.0.9")]
        {
            stream.write_all(&framed(&question(name)).unwrap()).unwrap();
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(address(&Message::from_vec(&answer).unwrap()), expected);
        }
    }

    #[test]
    fn without_name_servers_the_failure_is_told() {
        // Nobody listens there: the first is refused at once, and the second knows.
        let closed = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (server, _) = start(&[closed]);
        assert_eq!(ask(server.addresses()[0], "example.com.").metadata.response_code, ResponseCode::ServFail);
        let (server, _) = start(&[closed, name_server()]);
        assert_eq!(address(&ask(server.addresses()[0], "example.com.")), "192.0.2.7");
    }

    #[test]
    fn a_question_that_comes_back_is_refused() {
        // The name server is the server itself, as when rules bring its own questions back to it.
        let registry = Registry::new();
        let server = std::iter::repeat_with(|| {
            let at = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
            let settings = Settings { port: at.port(), nameservers: Vec::new(), is_v6: false, asking: None };
            Server::start_with(&settings, &[at], Arc::default(), &registry)
        });
        // A port that is free for one socket need not be for the others.
        let server = server.take(50).find_map(Result::ok).unwrap();
        let answer = ask(server.addresses()[0], "example.com.");
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        assert_eq!(registry.counter(Metric::DnsQuestions, &["loop"]).value(), 1);
    }
}
