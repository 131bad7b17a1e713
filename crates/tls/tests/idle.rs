//! Memory of idle connections. Alone in its process: it reads the process' resident size.
#![cfg(target_os = "linux")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rcgen::{CertificateParams, KeyPair};
use rhumb_tls::{
    Certificate, CertificateSource, ClientSpec, ClientTls, Roots, Scratch, ServerSpec, ServerTls,
    ServerTlsSet, TlsStream, Transport, Verify,
};

type Lane = Rc<RefCell<VecDeque<u8>>>;

/// An end of a pipe that gives its memory back when it is empty, as a kernel's socket does.
struct End {
    from: Lane,
    to: Lane,
}

impl Transport for End {
    fn poll_read(&mut self, _: &mut Context<'_>, dst: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut from = self.from.borrow_mut();
        let len = from.len().min(dst.len());
        if len == 0 {
            return Poll::Pending;
        }
        for (slot, byte) in dst.iter_mut().zip(from.drain(..len)) {
            *slot = byte;
        }
        if from.is_empty() {
            *from = VecDeque::new();
        }
        Poll::Ready(Ok(len))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, src: &[u8]) -> Poll<io::Result<usize>> {
        self.to.borrow_mut().extend(src);
        Poll::Ready(Ok(src.len()))
    }
}

/// Memory in use. Unit: bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn connect(
    servers: &ServerTlsSet,
    client: &ClientTls,
    scratch: &mut Scratch,
) -> (TlsStream<End>, TlsStream<End>) {
    let mut cx = Context::from_waker(Waker::noop());
    let (one, two) = (Lane::default(), Lane::default());
    let near = End { from: Rc::clone(&one), to: Rc::clone(&two) };
    let mut server = TlsStream::server(near, servers.clone());
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut client = TlsStream::client(End { from: two, to: one }, client, address).unwrap();
    let mut buf = vec![0; 64 * 1024];
    while !(client.is_established() && server.is_established()) {
        for stream in [&mut client, &mut server] {
            let _ = stream.poll_handshake(&mut cx, scratch).map(Result::unwrap);
            let _ = stream.poll_flush(&mut cx).map(Result::unwrap);
        }
    }
    // Requests and answers.
    for _ in 0..2 {
        for (is_request, bytes) in [(true, 300), (false, 1000)] {
            let (from, to) = if is_request { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let sent = from.poll_write(&mut cx, &vec![1; bytes], scratch).map(Result::unwrap);
            let got = to.poll_read(&mut cx, &mut buf, scratch).map(Result::unwrap);
            assert_eq!((sent, got), (Poll::Ready(bytes), Poll::Ready(bytes)));
            // Waits for more.
            assert!(to.poll_read(&mut cx, &mut buf, scratch).is_pending());
        }
    }
    (server, client)
}

#[test]
fn an_idle_connection_costs_at_most_8_kibibytes() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let source = CertificateSource {
        chain: certificate.pem().into(),
        key: key.serialize_pem().into(),
        origin: "leaf".into(),
    };
    let leaf = Certificate::parse(&source).unwrap();
    let server = ServerTls::build(ServerSpec::new(vec![leaf], "server")).unwrap();
    let servers = ServerTlsSet::single(server);
    let roots = Roots::parse(&source.chain, "ca").unwrap();
    let client = ClientTls::build(ClientSpec::new(Verify::Full(roots), "client")).unwrap();
    let scratch = &mut Scratch::new();

    let warm: Vec<_> = (0..50).map(|_| connect(&servers, &client, scratch)).collect();
    let before = resident();
    let pairs = 500;
    let idle: Vec<_> = (0..pairs).map(|_| connect(&servers, &client, scratch)).collect();
    let each = (resident() - before) / pairs / 2;
    assert!(
        idle.iter().chain(&warm).all(|(server, client)| server.is_established() && client.is_established())
    );
    assert!(each <= 8 * 1024, "{each} bytes per connection");
}
