//! TCP: half-close, much data both ways, slow readers, resets, limits, reload and drain.

use super::{Peer, connect, ended, pattern, read_all, read_exact, send};
use crate::gate::local;
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::wait;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

/// A TCP listener `db` in front of `peer`; `route` is more of the route.
fn config(port: u16, endpoints: &[SocketAddr], route: &str) -> Config {
    let endpoints: Vec<String> = endpoints.iter().map(|endpoint| format!("'{endpoint}'")).collect();
    Config::new()
        .top("workers: 1")
        .listener("db", port, "protocol: TCP")
        .backend("peer", &format!("endpoints: [{}]", endpoints.join(", ")))
        .route(&format!("on: db, to: peer{route}"))
}

fn start(peer: &Peer, route: &str) -> (Rhumb, SocketAddr) {
    let port = port::free();
    (Rhumb::start(&config(port, &[peer.address], route)), local(port))
}

/// The records of connections so far.
pub(super) fn records(rhumb: &Rhumb) -> Vec<Value> {
    let log = rhumb.log();
    let lines = log.lines().filter(|line| line.contains("\"end\":"));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The record of the connection that ended last, once there are `count`.
pub(super) fn record(rhumb: &Rhumb, count: usize) -> Value {
    wait::until("the record", || {
        let mut records = records(rhumb);
        (records.len() >= count).then(|| records.pop()).flatten()
    })
}

#[test]
fn each_side_may_finish_first_and_the_other_goes_on() {
    let peer = Peer::echo("hello");
    let (rhumb, proxy) = start(&peer, "");
    let mut client = connect(proxy);
    // The server speaks first, as databases and mail servers do.
    assert_eq!(read_exact(&client, 5), b"hello");
    client.write_all(b"abc").expect("a write");
    assert_eq!(read_exact(&client, 3), b"abc");
    client.shutdown(Shutdown::Write).expect("half an end");
    assert_eq!(read_all(&client), b".");
    let record = record(&rhumb, 1);
    assert_eq!(
        (&record["protocol"], &record["end"]),
        (&Value::from("TCP"), &Value::from("closed")),
        "{record}"
    );
    assert_eq!((&record["bytes_in"], &record["bytes_out"]), (&Value::from(3), &Value::from(9)), "{record}");
    assert_eq!(record["route"], "default/db", "{record}");
    assert!(
        rhumb.metric("rhumb_l4_connections_total", &["end=\"closed\"", "backend=\"default/peer\""]) == 1.0
    );
    assert!(rhumb.metric("rhumb_l4_bytes_total", &["direction=\"out\""]) == 9.0);
    // The backend finishes first, the client goes on.
    let (sender, receiver) = mpsc::channel();
    let peer = Peer::new(move |stream| {
        stream.shutdown(Shutdown::Write).expect("half an end");
        let _ = sender.send(read_all(&stream));
    });
    let (_rhumb, proxy) = start(&peer, "");
    let mut client = connect(proxy);
    assert_eq!(read_all(&client), b"");
    client.write_all(b"still here").expect("a write");
    drop(client);
    assert_eq!(receiver.recv_timeout(wait::LIMIT).expect("all of it"), b"still here");
}

#[test]
fn much_goes_both_ways_at_once_and_nothing_is_lost() {
    const LEN: usize = 24 << 20;
    let peer = Peer::new(|stream| {
        let sender = send(&stream, pattern(1, LEN));
        let got = read_all(&stream);
        assert!(got == pattern(2, LEN), "{} bytes", got.len());
        sender.join().expect("all was sent");
    });
    let (rhumb, proxy) = start(&peer, "");
    let client = connect(proxy);
    let sender = send(&client, pattern(2, LEN));
    let mut got = vec![0; LEN];
    // Slow at first: what cannot go on must wait, not pile up.
    for chunk in got.chunks_mut(LEN / 8).take(2) {
        for part in chunk.chunks_mut(256 << 10) {
            std::thread::yield_now();
            (&client).read_exact(part).expect("a part");
        }
    }
    (&client).read_exact(&mut got[LEN / 4..]).expect("the rest");
    assert!(got == pattern(1, LEN));
    assert_eq!(read_all(&client), b"");
    sender.join().expect("all was taken");
    let record = record(&rhumb, 1);
    assert_eq!(record["end"], "closed", "{record}");
    assert_eq!(
        (&record["bytes_in"], &record["bytes_out"]),
        (&Value::from(LEN), &Value::from(LEN)),
        "{record}"
    );
    assert!(record["notes"].to_string().contains("spliced"), "{record}");
}

#[test]
fn who_does_not_read_holds_little_memory() {
    // Each side sends as much as it can and reads nothing.
    let (stuck, stuck_at) = mpsc::channel();
    let peer = Peer::new(move |mut stream| {
        stream.set_nonblocking(true).expect("a mode");
        let (chunk, mut sent) = (vec![1; 65_536], 0_u64);
        // The size of socket buffers bounds it.
        let full = wait::poll(Duration::from_secs(5), || {
            while let Ok(len) = stream.write(&chunk) {
                sent += len as u64;
            }
            (sent > 1 << 30).then_some(())
        });
        let _ = stuck.send((sent, full.is_none()));
        std::thread::park();
    });
    let (mut rhumb, proxy) = start(&peer, "");
    let before = rhumb.program().rss();
    let clients: Vec<TcpStream> = (0..20).map(|_| connect(proxy)).collect();
    for _ in &clients {
        let (sent, is_bounded) = stuck_at.recv_timeout(wait::LIMIT).expect("the backend gets stuck");
        assert!(is_bounded, "{sent} bytes were taken for a client that reads nothing");
    }
    let grown = rhumb.program().rss().saturating_sub(before);
    assert!(grown < 20 * 256 * 1024, "{grown} bytes more");
}

#[test]
fn a_reset_is_passed_on_and_not_made_an_orderly_end() {
    let (sender, receiver) = mpsc::channel();
    let peer = Peer::new(move |mut stream| {
        let mut first = [0; 1];
        stream.read_exact(&mut first).expect("a byte");
        if first == *b"r" {
            reset(&stream);
        } else {
            let _ = sender.send(ended(&stream));
        }
    });
    let (rhumb, proxy) = start(&peer, "");
    let mut client = connect(proxy);
    client.write_all(b"r").expect("a write");
    assert_eq!(ended(&client), ErrorKind::ConnectionReset);
    assert_eq!(record(&rhumb, 1)["end"], "backend_reset");
    let mut client = connect(proxy);
    client.write_all(b"x").expect("a write");
    // Only when the backend has it, else the reset may overtake it.
    wait::until("the connection", || {
        (rhumb.metric("rhumb_connections_open", &["default/db"]) == 1.0).then_some(())
    });
    reset(&client);
    drop(client);
    let end = receiver.recv_timeout(wait::LIMIT);
    assert!(matches!(end, Ok(ErrorKind::ConnectionReset) | Err(_)), "{end:?}");
    assert_eq!(record(&rhumb, 2)["end"], "client_reset");
}

/// Makes the end of a connection a reset.
fn reset(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("an option");
}

#[test]
fn another_endpoint_is_tried_when_one_refuses() {
    let peer = Peer::echo("here");
    let (port, dead) = (port::free(), local(port::free()));
    let rhumb = Rhumb::start(&config(port, &[dead, peer.address], ""));
    for _ in 0..20 {
        assert_eq!(read_exact(&connect(local(port)), 4), b"here");
    }
    assert!(rhumb.metric("rhumb_notes_total", &["retried_on_other_endpoint"]) <= 20.0);
    // Nobody at all: the connection ends, and the record says why.
    let port = port::free();
    let rhumb = Rhumb::start(&config(port, &[dead], ""));
    assert_eq!(read_all(&connect(local(port))), b"");
    let record = record(&rhumb, 1);
    assert_eq!(
        (&record["end"], &record["failure_side"]),
        (&"connect_refused".into(), &"backend".into()),
        "{record}"
    );
    assert_eq!(record["tries"], 3, "{record}");
}

#[test]
fn rest_and_life_are_limited() {
    let peer = Peer::echo("");
    let (rhumb, proxy) = start(&peer, ", policies: {tcp: {idleTimeout: 300ms}}");
    assert_eq!(read_all(&connect(proxy)), b"");
    assert_eq!(record(&rhumb, 1)["end"], "idle_timeout");
    let (rhumb, proxy) = start(&peer, ", policies: {tcp: {maxDuration: 500ms}}");
    let client = connect(proxy);
    // Never at rest, and ended all the same.
    let end = wait::until("the end", || {
        let written = (&client).write_all(b"x");
        written.err().map(|error| error.kind())
    });
    assert!(matches!(end, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{end:?}");
    assert_eq!(record(&rhumb, 1)["end"], "max_duration");
}

#[test]
fn a_long_connection_is_written_down_with_the_time_at_which_it_began() {
    let peer = Peer::echo("hello");
    let (rhumb, proxy) = start(&peer, ", policies: {tcp: {maxDuration: 3s}}");
    let open = || {
        let client = connect(proxy);
        assert_eq!(read_exact(&client, 5), b"hello");
        let port = client.local_addr().expect("its address").port();
        (client, port)
    };
    let end = |client: TcpStream| {
        client.shutdown(Shutdown::Write).expect("half an end");
        assert_eq!(read_all(&client), b".");
    };
    // Further apart than a reading of a clock is ever off.
    let apart = || std::thread::sleep(Duration::from_millis(200));
    let (client, before) = open();
    end(client);
    apart();
    let (long_client, long) = open();
    apart();
    let (client, after) = open();
    end(client);
    ended(&long_client);
    record(&rhumb, 3);
    let records = records(&rhumb);
    let of = |port: u16| records.iter().find(|record| record["client_port"] == port).expect("its record");
    let began = [before, long, after].map(|port| of(port)["ts"].as_str().expect("a time"));
    assert!(began.is_sorted(), "{records:?}");
    let took = of(long)["duration_ms"]["total"].as_f64().expect("a duration");
    assert!(of(long)["end"] == "max_duration" && took >= 3000.0, "{records:?}");
}

#[test]
fn open_connections_live_through_reloads_and_until_the_end_of_a_drain() {
    let peer = Peer::echo("");
    let port = port::free();
    let base = config(port, &[peer.address], "").top("timeouts: {drain: 60s}");
    let mut rhumb = Rhumb::start(&base);
    let mut client = connect(local(port));
    let mut say = |text: &[u8]| {
        client.write_all(text).expect("a write");
        assert_eq!(read_exact(&client, text.len()), text);
    };
    say(b"before");
    // Also one that removes the listener.
    for (config, text) in [
        (base.clone().top("# changed"), &b"after a reload"[..]),
        (
            Config::new().top("workers: 1").listener("web", port::free(), "").route("respond: {status: 200}"),
            b"removed",
        ),
        (base, b"back"),
    ] {
        let before = rhumb.metric("rhumb_config_reloads_total", &[]);
        rhumb.write(&config);
        rhumb.reload();
        wait::until("the reload", || {
            (rhumb.metric("rhumb_config_reloads_total", &[]) > before).then_some(())
        });
        say(text);
    }
    rhumb.program().signal(Signal::TERM);
    // It no longer accepts, and still carries.
    wait::until("it stops to accept", || TcpStream::connect(local(port)).is_err().then_some(()));
    say(b"while it drains");
    client.shutdown(Shutdown::Write).expect("an end");
    assert_eq!(read_all(&client), b".");
    rhumb.program().wait();
    assert_eq!(record(&rhumb, 1)["end"], "closed");
}

#[test]
fn what_the_drain_cuts_is_recorded() {
    let peer = Peer::echo("");
    let port = port::free();
    let mut rhumb = Rhumb::start(&config(port, &[peer.address], "").top("timeouts: {drain: 200ms}"));
    let mut client = connect(local(port));
    client.write_all(b"x").expect("a write");
    assert_eq!(read_exact(&client, 1), b"x");
    rhumb.program().signal(Signal::TERM);
    rhumb.program().wait();
    ended(&client);
    assert_eq!(record(&rhumb, 1)["end"], "shutting_down");
}
