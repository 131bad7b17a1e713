//! Much content, both ways, through every pair of protocols.

use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;

use rhumb_testkit::backend::pattern;
use rhumb_testkit::client::Client;
use rhumb_testkit::oracle;

use crate::support::{Listener, Setup, connect};

const MUCH: usize = 3 << 20;

#[test]
fn much_content_passes_unchanged_between_plain_sockets() {
    let content = pattern(MUCH as u64);
    for is_chunked in [false, true] {
        let backend = Listener::new();
        let proxy = Setup::to(backend.address()).start();
        let framing = if is_chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {MUCH}")
        };
        let body = if is_chunked { chunked(&content) } else { content.clone() };
        let mut client = Client::connect(proxy.address);
        std::thread::scope(|scope| {
            let (backend, framing, body, content) = (&backend, &framing, &body, &content);
            scope.spawn(move || {
                let mut peer = backend.accept();
                assert!(peer.request().content == *content);
                peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
                peer.send(body);
                // The connection is good for another exchange.
                peer.answer("ok");
            });
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
            client.send(body);
            assert!(client.response().content == *content);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.response().content, b"ok");
        });
        let record = proxy.records(2).remove(0);
        assert_eq!(
            (record["bytes_in"].as_u64(), record["bytes_out"].as_u64()),
            (Some(MUCH as u64), Some(MUCH as u64))
        );
        assert_eq!(record.to_string().contains("spliced"), !is_chunked, "{record}");
    }
}

#[test]
fn content_that_the_client_takes_at_once_is_spliced() {
    let content = pattern(256 << 10);
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = Client::connect(proxy.address);
    std::thread::scope(|scope| {
        let (backend, content) = (&backend, &content);
        scope.spawn(move || {
            let mut peer = backend.accept();
            peer.request();
            // Head and content in one piece: nothing ever waits on the way to the client.
            let mut message =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).into_bytes();
            message.extend_from_slice(content);
            peer.send(message);
        });
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.response().content == *content);
    });
    assert!(proxy.record().to_string().contains("spliced"));
}

#[test]
fn a_request_and_its_response_may_flow_at_the_same_time() {
    let content = pattern(MUCH as u64);
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let client = connect(proxy.address);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = backend.accept();
            peer.head();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"));
            // What comes is sent back, so neither direction can finish before the other has moved on.
            let mut left = MUCH;
            while left > 0 {
                let echo = peer.bytes(left.min(10_000));
                left -= echo.len();
                peer.send(echo);
            }
        });
        let mut writer = client.stream.try_clone().unwrap();
        let sent = &content;
        scope.spawn(move || {
            writer
                .write_all(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n").as_bytes())
                .unwrap();
            writer.write_all(sent).unwrap();
        });
        let mut client = client;
        let head = client.read("a head", |received| {
            let end = received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
            Some((received[..end].to_vec(), end))
        });
        assert!(head.starts_with(b"HTTP/1.1 200"));
        assert!(client.bytes(MUCH) == content);
    });
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let content = pattern(MUCH as u64);
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    let mut client = connect(proxy.address);
    socket2::SockRef::from(&client.stream).set_recv_buffer_size(64 << 10).unwrap();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut peer = backend.accept();
    peer.request();
    // Nobody reads yet: the proxy holds back, so a part of this waits in its kernel and a part in ours.
    peer.stream.set_nonblocking(true).unwrap();
    let mut message = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n").into_bytes();
    message.extend_from_slice(&content);
    let sent = peer.stream.write(&message).unwrap();
    peer.stream.set_nonblocking(false).unwrap();
    std::thread::scope(|scope| {
        let rest = &message[sent..];
        scope.spawn(move || {
            peer.send(rest);
            peer
        });
        let mut got = Vec::new();
        let mut buf = [0; 1000];
        while !got.ends_with(&content[MUCH - 200..]) || got.len() < MUCH {
            let n = client.stream.read(&mut buf).unwrap();
            assert!(n > 0);
            got.extend_from_slice(&buf[..n]);
        }
        assert!(got.ends_with(&content));
    });
}

fn chunked(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in content.chunks(5000) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// An HTTP/2 backend that answers each request with its own content, until it is dropped.
struct Echo {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Echo {
    fn start() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(oracle::echo(stream, |_| {}));
            }
        });
        Self { address, runtime: Some(runtime) }
    }

    /// Runs a client of HTTP/2 on the same runtime.
    fn run<F: Future>(&self, client: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(client)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn post(proxy: SocketAddr, content: &[u8]) -> (u16, Vec<u8>) {
    let stream = tokio::net::TcpStream::connect(proxy).await.unwrap();
    let client = oracle::connect(stream, |_| {}).await;
    oracle::exchange(client, content.to_vec().into()).await.unwrap()
}

#[test]
fn much_content_passes_from_http_2_to_http_1_and_back() {
    let content = pattern(MUCH as u64);
    let backend = Listener::new();
    let proxy = Setup::to(backend.address()).start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = backend.accept();
            assert!(peer.request().content == content);
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"));
            peer.send(&content);
        });
        let answer = Echo::start().run(post(proxy.address, &content));
        assert!(answer == (200, content.clone()));
    });
}

#[test]
fn much_content_passes_from_http_2_to_http_2_and_back() {
    let content = pattern(MUCH as u64);
    let echo = Echo::start();
    let proxy = Setup::to_h2(echo.address).start();
    assert!(echo.run(post(proxy.address, &content)) == (200, content));
}

#[test]
fn much_content_passes_from_http_1_to_http_2_and_back() {
    let content = pattern(MUCH as u64);
    let echo = Echo::start();
    let proxy = Setup::to_h2(echo.address).start();
    let mut client = Client::connect(proxy.address);
    std::thread::scope(|scope| {
        let mut writer = client.stream().try_clone().unwrap();
        let sent = &content;
        scope.spawn(move || {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n");
            writer.write_all(head.as_bytes()).unwrap();
            writer.write_all(sent).unwrap();
        });
        assert!(client.response().content == *sent);
    });
}

#[test]
fn many_streams_share_what_a_backend_allows() {
    let echo = Echo::start();
    let proxy = Setup::to_h2(echo.address).start();
    let content = pattern(20_000);
    echo.run(async {
        let stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        let client = oracle::connect(stream, |_| {}).await;
        let tasks: Vec<_> = (0..300)
            .map(|_| tokio::spawn(oracle::exchange(client.clone(), content.clone().into())))
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().unwrap() == (200, content.clone()));
        }
    });
    assert!(proxy.records(300).iter().all(|record| record["status"] == 200));
}
