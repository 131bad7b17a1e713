//! Datagrams: sessions, their bounds and ends, and a DNS server with dig.

use super::flow::records;
use crate::gate::local;
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Program, Rhumb, finish};
use rhumb_testkit::wait;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

/// A backend that answers each datagram with its name and the datagram.
fn peer(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let address = socket.local_addr().expect("its address");
    std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let answer = [name.as_bytes(), &buffer[..len]].concat();
            let _ = socket.send_to(&answer, from);
        }
    });
    address
}

fn config(port: u16, endpoints: &[SocketAddr], policy: &str) -> Config {
    let endpoints: Vec<String> = endpoints.iter().map(|endpoint| format!("'{endpoint}'")).collect();
    let policy = if policy.is_empty() { String::new() } else { format!(", policies: {{udp: {{{policy}}}}}") };
    Config::new()
        .listener("dns", port, &format!("protocol: UDP{policy}"))
        .backend("peer", &format!("endpoints: [{}]", endpoints.join(", ")))
        .route("on: dns, to: peer")
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    socket
}

/// The answer to a datagram, which is sent again while none comes: datagrams may be lost.
fn ask(socket: &UdpSocket, proxy: SocketAddr, text: &str) -> String {
    let mut buffer = [0; 65_536];
    wait::until("an answer", || {
        socket.send_to(text.as_bytes(), proxy).expect("a datagram");
        loop {
            let (len, from) = socket.recv_from(&mut buffer).ok()?;
            assert_eq!(from, proxy, "answers come from where the question went");
            let answer = String::from_utf8_lossy(&buffer[..len]).into_owned();
            // Of an earlier question that was asked twice.
            if answer.ends_with(text) {
                return Some(answer);
            }
        }
    })
}

fn ended(rhumb: &Rhumb, end: &str) -> Value {
    wait::until(end, || records(rhumb).into_iter().find(|record| record["end"] == end))
}

#[test]
fn a_session_stays_with_its_endpoint_until_it_rests() {
    let (one, two) = (peer("one "), peer("two "));
    let port = port::free();
    let config = config(port, &[one, two], "idleTimeout: 1s").top("workers: 2");
    let rhumb = Rhumb::start(&config);
    let clients: Vec<UdpSocket> = (0..20).map(|_| client()).collect();
    let first: Vec<String> = clients.iter().map(|client| ask(client, local(port), "a")).collect();
    for (client, first) in clients.iter().zip(&first) {
        assert_eq!(&ask(client, local(port), "a"), first);
    }
    assert!(first.iter().any(|answer| answer == "one a") && first.iter().any(|answer| answer == "two a"));
    assert!(rhumb.metric("rhumb_udp_datagrams_total", &["direction=\"in\""]) >= 40.0);
    let record = ended(&rhumb, "idle_timeout");
    assert_eq!((&record["protocol"], &record["route"]), (&"UDP".into(), &"default/dns".into()), "{record}");
    wait::until("all sessions rest", || (rhumb.metric("rhumb_udp_sessions_open", &[]) == 0.0).then_some(()));
}

/// Datagrams of one client: three clients have at most 184 KiB of a receive buffer with them, of 208 that are usual.
const BURST: usize = 40;

#[test]
fn bursts_of_several_clients_come_back_whole_in_order_and_to_whom_they_belong() {
    let port = port::free();
    let rhumb = Rhumb::start(&config(port, &[peer("")], "").top("workers: 1"));
    let clients: Vec<UdpSocket> = (0..3).map(|_| client()).collect();
    for client in &clients {
        // A proxy that has to wait for its turn on a busy machine has lost nothing.
        client.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    }
    let mut buffer = [0; 65_536];
    let mut round = 0;
    // More than the proxy takes at a time, of all sizes, and no more than its socket holds while it does not run: what is lost
    // then would be lost in each round. A datagram may be lost all the same: then it is all asked again.
    wait::until("all of a burst", || {
        round += 1;
        let datagram =
            |client: usize, n: usize| format!("{round}/{client}/{n} {}", "x".repeat(n * 20)).into_bytes();
        for n in 0..BURST {
            for (who, client) in clients.iter().enumerate() {
                client.send_to(&datagram(who, n), local(port)).expect("a datagram");
            }
        }
        for (who, client) in clients.iter().enumerate() {
            let mut n = 0;
            while n < BURST {
                let (len, _) = client.recv_from(&mut buffer).ok()?;
                if !buffer.starts_with(format!("{round}/").as_bytes()) {
                    continue;
                }
                // A later one than expected means that one was lost.
                let is_later = (n + 1..BURST).any(|later| buffer[..len] == datagram(who, later)[..]);
                if is_later {
                    return None;
                }
                assert_eq!(buffer[..len], datagram(who, n)[..]);
                n += 1;
            }
        }
        Some(())
    });
    assert!(rhumb.metric("rhumb_udp_datagrams_total", &["direction=\"out\""]) >= 3.0 * BURST as f64);
}

#[test]
fn one_session_too_many_ends_the_one_that_rested_longest() {
    let port = port::free();
    let rhumb = Rhumb::start(&config(port, &[peer("")], "maxSessions: 3").top("workers: 1"));
    let clients: Vec<UdpSocket> = (0..4).map(|_| client()).collect();
    for client in &clients[..3] {
        ask(client, local(port), "x");
    }
    // The first one is used again: the second has rested longest.
    ask(&clients[0], local(port), "y");
    ask(&clients[3], local(port), "z");
    let record = ended(&rhumb, "evicted");
    assert_eq!(record["client_port"], clients[1].local_addr().expect("an address").port(), "{record}");
    assert_eq!(rhumb.metric("rhumb_udp_sessions_open", &[]), 3.0);
    assert_eq!(rhumb.metric("rhumb_limit_hits_total", &["udp_sessions"]), 1.0);
}

#[test]
fn sessions_count_against_the_limits_of_their_backend() {
    for limit in ["maxConnections: 1", "maxRequests: 1"] {
        let (port, peer) = (port::free(), peer("it "));
        let config = Config::new()
            .listener("dns", port, "protocol: UDP, policies: {udp: {idleTimeout: 1s}}")
            .backend("peer", &format!("endpoints: ['{peer}'], {limit}"))
            .route("on: dns, to: peer")
            .top("workers: 2");
        let rhumb = Rhumb::start(&config);
        let (first, second) = (client(), client());
        assert_eq!(ask(&first, local(port), "a"), "it a");
        // While the first one goes on there is no room for another.
        wait::until("a datagram to be dropped", || {
            assert_eq!(ask(&first, local(port), "b"), "it b");
            second.send_to(b"c", local(port)).expect("a datagram");
            (rhumb.metric("rhumb_udp_dropped_total", &["reason=\"backend_limit\""]) >= 1.0).then_some(())
        });
        assert!(rhumb.metric("rhumb_backend_refused_total", &[]) >= 1.0);
        // Asked until the first one has rested for long enough.
        assert_eq!(ask(&second, local(port), "d"), "it d");
    }
}

#[test]
fn a_session_leaves_an_endpoint_that_is_gone() {
    let (one, two) = (peer("one "), peer("two "));
    let port = port::free();
    let rhumb = Rhumb::start(&config(port, &[one], ""));
    let socket = client();
    assert_eq!(ask(&socket, local(port), "a"), "one a");
    // Named in the way that users change it: the same backend with other endpoints.
    rhumb.write(&config(port, &[two], ""));
    rhumb.reload();
    wait::until("the other endpoint", || (ask(&socket, local(port), "b") == "two b").then_some(()));
    ended(&rhumb, "endpoint_removed");
    // The listener goes, and comes again.
    rhumb.write(&Config::new().listener("web", port::free(), "").route("respond: {status: 200}"));
    rhumb.reload();
    ended(&rhumb, "listener_removed");
    rhumb.write(&config(port, &[one], ""));
    rhumb.reload();
    assert_eq!(ask(&socket, local(port), "c"), "one c");
}

#[test]
fn an_endpoint_that_is_not_there_is_told_of() {
    let port = port::free();
    let rhumb = Rhumb::start(&config(port, &[local(port::free())], ""));
    client().send_to(b"x", local(port)).expect("a datagram");
    let record = ended(&rhumb, "connect_refused");
    assert_eq!(record["failure_side"], "backend", "{record}");
}

#[test]
fn dig_asks_a_dns_server_by_udp_and_tcp_on_one_port_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = port::free();
    let mut command = Command::new("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--pid-file=",
    ]);
    command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--address=/host.test/192.0.2.7"]);
    command.arg(format!("--port={server}"));
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    let _server = Program::start(command, &dir.path().join("dnsmasq.log"));
    let proxy = port::free();
    let backend = format!("endpoints: ['127.0.0.1:{server}']");
    let config = Config::new()
        .listener("udp", proxy, "protocol: UDP, policies: {udp: {responses: 1}}")
        .listener("tcp", proxy, "protocol: TCP")
        .backend("dns", &backend)
        .route("on: udp, to: dns")
        .route("on: tcp, to: dns");
    let rhumb = Rhumb::start(&config);
    let dig = |more: &str| {
        let mut command = Command::new("dig");
        command.args([
            "+short",
            "+time=2",
            "+tries=5",
            more,
            "-p",
            &proxy.to_string(),
            "@127.0.0.1",
            "host.test",
        ]);
        finish(command).output
    };
    wait::until("an answer by UDP", || (dig("+notcp").trim() == "192.0.2.7").then_some(()));
    wait::until("an answer by TCP", || (dig("+tcp").trim() == "192.0.2.7").then_some(()));
    // One answer was all that it waited for.
    let record = wait::until("the session", || {
        records(&rhumb).into_iter().find(|record| record["protocol"] == "UDP" && record["end"] == "closed")
    });
    assert!(record["bytes_out"].as_u64() > Some(0), "{record}");
    // Many at once, from many ports.
    let many = ["q"; 200].map(|_| "host.test").join(" ");
    let mut command = Command::new("dig");
    command.args(["+short", "+time=2", "+tries=5", "-p", &proxy.to_string(), "@127.0.0.1"]);
    command.args(many.split(' '));
    let answers = finish(command).output;
    assert_eq!(answers.lines().filter(|line| *line == "192.0.2.7").count(), 200, "{answers}");
}
