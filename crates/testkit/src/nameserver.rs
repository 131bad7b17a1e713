//! A name server on loopback whose answers a test sets.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// Most bytes of an answer over UDP (RFC 1035 §4.2.1).
const UDP_BYTES: usize = 512;

/// What is answered to a question.
#[derive(Clone)]
pub enum Reply {
    /// These records, each to be kept for so many seconds.
    Records(Vec<RData>, u32),
    /// No records, and why.
    Code(ResponseCode),
    /// Nothing.
    Silence,
}

/// A name server. A name that nothing was set for exists without records.
pub struct NameServer {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

#[derive(Default)]
struct State {
    replies: HashMap<(String, RecordType), Reply>,
    asked: Vec<(String, RecordType)>,
}

impl NameServer {
    /// Serves on a port of its own, over UDP and TCP, as long as the runtime lives that calls this.
    pub async fn start() -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
            // Somebody else's may have the same number.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("an address")).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("an address");
        let state = Arc::default();
        tokio::spawn(serve_udp(udp, Arc::clone(&state)));
        tokio::spawn(serve_tcp(tcp, Arc::clone(&state)));
        Self { state, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what is answered from here on. Names have no dot at their end.
    pub fn set(&self, name: &str, kind: RecordType, reply: Reply) {
        lock(&self.state).replies.insert((name.to_owned(), kind), reply);
    }

    /// The same for both kinds of addresses.
    pub fn set_both(&self, name: &str, reply: &Reply) {
        self.set(name, RecordType::A, reply.clone());
        self.set(name, RecordType::AAAA, reply.clone());
    }

    /// Gives a name addresses of IPv4: 127.0.0.x for each of `last`.
    pub fn addresses(&self, name: &str, last: &[u8], ttl: u32) {
        let records = last.iter().map(|&last| RData::A(A(Ipv4Addr::new(127, 0, 0, last)))).collect();
        self.set(name, RecordType::A, Reply::Records(records, ttl));
    }

    /// Gives a name an address of IPv6.
    pub fn address_v6(&self, name: &str, address: Ipv6Addr, ttl: u32) {
        self.set(name, RecordType::AAAA, Reply::Records(vec![RData::AAAA(AAAA(address))], ttl));
    }

    /// What it was asked so far: names as they were set, in small letters.
    pub fn asked(&self) -> Vec<(String, RecordType)> {
        lock(&self.state).asked.clone()
    }
}

async fn serve_udp(socket: UdpSocket, state: Arc<Mutex<State>>) {
    let mut buf = [0; 4096];
    while let Ok((len, peer)) = socket.recv_from(&mut buf).await {
        if let Some(bytes) = answer(&buf[..len], &state, UDP_BYTES) {
            // Whoever asked may be gone.
            let _ = socket.send_to(&bytes, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // RFC 1035 §4.2.2: each message behind its length. Whoever asked may be gone.
        while let Ok(len) = stream.read_u16().await {
            let mut question = vec![0; len.into()];
            let asked = stream.read_exact(&mut question).await;
            let Some(bytes) = asked.ok().and_then(|_| answer(&question, &state, usize::MAX)) else { break };
            let len = u16::try_from(bytes.len()).expect("an answer that fits");
            if stream.write_all(&[&len.to_be_bytes(), bytes.as_slice()].concat()).await.is_err() {
                break;
            }
        }
    }
}

/// The answer to a question, if there is one; without its records when it has more bytes than `most`.
fn answer(question: &[u8], state: &Mutex<State>, most: usize) -> Option<Vec<u8>> {
    let request = Message::from_vec(question).expect("a question");
    let query = request.queries[0].clone();
    let name = query.name().to_ascii().to_ascii_lowercase();
    let key = (name.trim_end_matches('.').to_owned(), query.query_type());
    let reply = {
        let mut state = lock(state);
        state.asked.push(key.clone());
        state.replies.get(&key).cloned().unwrap_or(Reply::Code(ResponseCode::NoError))
    };
    let mut response = Message::response(request.id, request.op_code);
    response.add_query(query.clone());
    match reply {
        Reply::Silence => return None,
        Reply::Code(code) => response.metadata.response_code = code,
        Reply::Records(records, ttl) => {
            let named = |data| Record::from_rdata(query.name().clone(), ttl, data);
            response.add_answers(records.into_iter().map(named));
        }
    }
    let bytes = response.to_vec().expect("an answer");
    if bytes.len() <= most {
        return Some(bytes);
    }
    response.answers.clear();
    response.metadata.truncation = true;
    Some(response.to_vec().expect("an answer"))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
