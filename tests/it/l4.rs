//! Connections and datagrams that are carried as they are.

pub(crate) mod edges;
mod flow;
mod otlp;
mod passthrough;
pub(crate) mod postgres;
mod proxy_protocol;
mod udp;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use rhumb_testkit::wait;

/// A backend of plain TCP: each connection is served by `serve` in a thread of its own.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
}

impl Peer {
    fn new(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let address = listener.local_addr().expect("its address");
        let serve = std::sync::Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                limit(&stream);
                let serve = std::sync::Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { address }
    }

    /// Says its name, then sends everything back until the client has finished, then `.` and the end.
    pub(crate) fn echo(name: &'static str) -> Self {
        Self::new(move |mut stream| {
            let _ = stream.write_all(name.as_bytes());
            let mut buffer = [0; 65_536];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(len) => {
                        if stream.write_all(&buffer[..len]).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
            let _ = stream.write_all(b".");
        })
    }
}

fn limit(stream: &TcpStream) {
    stream.set_read_timeout(Some(wait::LIMIT)).expect("a timeout");
    stream.set_write_timeout(Some(wait::LIMIT)).expect("a timeout");
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    limit(&stream);
    stream
}

/// Everything until the other side has finished.
pub(crate) fn read_all(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    all
}

pub(crate) fn read_exact(mut stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut all = vec![0; len];
    stream.read_exact(&mut all).expect("so many bytes");
    all
}

/// How a connection ended that nothing more comes from.
pub(crate) fn ended(mut stream: &TcpStream) -> ErrorKind {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return ErrorKind::UnexpectedEof,
            Ok(_) => {}
            Err(error) => return error.kind(),
        }
    }
}

/// Bytes that tell where they belong.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state >> 16).to_le_bytes()[..6]);
    }
    bytes.truncate(len);
    bytes
}

/// Sends all and finishes, in a thread.
fn send(stream: &TcpStream, bytes: Vec<u8>) -> JoinHandle<()> {
    let mut stream = stream.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        stream.write_all(&bytes).expect("all is taken");
        stream.shutdown(Shutdown::Write).expect("an end");
    })
}
