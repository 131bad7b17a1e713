//! Connections as a collector of OpenTelemetry is told of them: what the access log has.

use super::flow::records;
use super::{Peer, connect, read_all, read_exact};
use crate::gate::local;
use crate::tracing::Collector;
use rhumb_testkit::config::Config;
use rhumb_testkit::port;
use rhumb_testkit::process::{Rhumb, finish};
use rhumb_testkit::wait;
use serde_json::Value;
use std::net::Shutdown;
use std::process::Command;

/// What the access log and a log record call the same thing.
const SAME: [(&str, &str); 12] = [
    ("client_ip", "client.address"),
    ("client_port", "client.port"),
    ("end", "rhumb.end"),
    ("failure_code", "error.type"),
    ("failure_side", "rhumb.failure.side"),
    ("bytes_in", "rhumb.bytes_in"),
    ("bytes_out", "rhumb.bytes_out"),
    ("listener", "rhumb.listener"),
    ("route", "rhumb.route"),
    ("backend", "rhumb.backend"),
    ("endpoint", "rhumb.endpoint"),
    ("config_revision", "rhumb.config_revision"),
];

#[test]
fn a_collector_is_told_of_connections_what_the_access_log_has() {
    let (collector, peer) = (Collector::start("http"), Peer::echo("hello"));
    let (plain, tls, nobody) = (port::free(), port::free(), port::free());
    let config = Config::new()
        .top(&format!("signals: {{otlp: {{url: 'http://127.0.0.1:{}', logs: true}}}}", collector.port))
        .listener("db", plain, "protocol: TCP")
        .listener("tls", tls, "protocol: TLS")
        .listener("gone", nobody, "protocol: TCP")
        .backend("peer", &format!("endpoints: ['{}']", peer.address))
        .backend("nobody", &format!("endpoints: ['{}']", local(port::free())))
        .route("on: db, to: peer")
        .route("on: tls, match: {host: one.test}, to: peer")
        .route("on: gone, to: nobody");
    let rhumb = Rhumb::start(&config);
    let client = connect(local(plain));
    assert_eq!(read_exact(&client, 5), b"hello");
    client.shutdown(Shutdown::Write).expect("half an end");
    assert_eq!(read_all(&client), b".");
    assert_eq!(read_all(&connect(local(nobody))), b"");
    // The peer speaks no TLS; what was passed on is a connection all the same.
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &local(tls).to_string(), "-servername", "one.test"]);
    finish(command);

    let told = wait::until("the collector was told of all", || {
        Some(collector.lines("spans.logs")).filter(|logs| logs.len() >= 3)
    });
    let written = wait::until("the access log", || Some(records(&rhumb)).filter(|lines| lines.len() >= 3));
    assert_eq!((told.len(), written.len()), (3, 3), "{told:#?} {written:#?}");
    let of = |route: &str| {
        let one = told.iter().find(|log| log["attributes"]["rhumb.route"] == route);
        one.unwrap_or_else(|| panic!("{route}: {told:#?}"))
    };
    for line in &written {
        let log = of(line["route"].as_str().expect("a route"));
        let attributes = &log["attributes"];
        assert_eq!(attributes["rhumb.request_id"], line["request_id"], "{log} {line}");
        for (here, there) in SAME {
            assert_eq!(attributes[there], line[here], "{there}: {log} {line}");
        }
        assert_eq!(attributes["rhumb.notes"], line["notes"], "{log} {line}");
        assert!(attributes["rhumb.duration_nanos"].as_u64() > Some(0), "{log}");
        assert!(attributes["http.request.method"].is_null(), "{log}");
    }
    assert_eq!(
        (&of("default/db")["severity"], &of("default/db")["body"]),
        (&"INFO".into(), &"TCP default/db closed".into())
    );
    assert_eq!(of("default/gone")["severity"], "ERROR", "{told:#?}");
    let passed = of("default/one.test");
    assert_eq!(passed["attributes"]["network.protocol.name"], "tls", "{passed}");
    assert_eq!(passed["attributes"]["rhumb.tls.server_name"], "one.test", "{passed}");
    assert_eq!(passed["attributes"]["server.address"], "one.test", "{passed}");
    assert_ne!(passed["attributes"]["rhumb.bytes_in"], Value::from(0), "{passed}");
}
