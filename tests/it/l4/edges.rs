//! Who is connected with what: told while connections are open, and of those that came to nothing.

use super::{Peer, connect, read_all, read_exact};
use crate::gate::{json, local};
use rhumb_testkit::config::Config;
use rhumb_testkit::process::Rhumb;
use rhumb_testkit::{port, wait};
use serde_json::Value;
use std::io::Write;
use std::net::Shutdown;

/// The connections of the edge to a service, once `wanted` holds of them.
pub(crate) fn connections(rhumb: &Rhumb, target: &str, wanted: impl Fn(&Value) -> bool) -> (Value, Value) {
    wait::until("the edge", || {
        let answer = json(&rhumb.admin("/api/v1/edges"));
        let edges = answer["edges"].as_array().expect("edges").iter();
        let edge = edges.into_iter().find(|edge| edge["target"] == target)?.clone();
        let connections = edge["connections"].clone();
        wanted(&connections).then_some((edge, connections))
    })
}

#[test]
fn an_open_connection_is_an_edge_with_what_it_carries() {
    let peer = Peer::echo("hello");
    let (listen, dead) = (port::free(), port::free());
    let nobody = port::free();
    let config = Config::new()
        .top("workers: 1")
        .listener("db", listen, "protocol: TCP")
        .listener("dead", dead, "protocol: TCP")
        .backend("peer", &format!("endpoints: ['{}']", peer.address))
        .backend("nobody", &format!("endpoints: ['{}']", local(nobody)))
        .route("on: db, to: peer")
        .route("on: dead, to: nobody");
    let rhumb = Rhumb::start(&config);
    let mut client = connect(local(listen));
    assert_eq!(read_exact(&client, 5), b"hello");
    client.write_all(b"abc").expect("a write");
    assert_eq!(read_exact(&client, 3), b"abc");
    let (edge, open) = connections(&rhumb, "default/peer", |all| all["open"] == 1);
    assert_eq!(
        (&edge["source"], &edge["mtls"], &edge["requests"]),
        (&"gateway".into(), &false.into(), &0.into())
    );
    assert_eq!((&open["opened"], &open["failed"]), (&1.into(), &0.into()), "{open}");
    let bytes = |direction: &str| {
        let labels = ["target=\"default/peer\"", &format!("direction=\"{direction}\"")].map(str::to_owned);
        rhumb.metric("rhumb_edge_connection_bytes_total", &labels.each_ref().map(String::as_str))
    };
    wait::until("what it has carried so far", || (bytes("in") == 3.0 && bytes("out") == 8.0).then_some(()));
    client.shutdown(Shutdown::Write).expect("half an end");
    assert_eq!(read_all(&client), b".");
    let (_, ended) = connections(&rhumb, "default/peer", |all| all["open"] == 0);
    assert_eq!(ended["outcomes"]["ok"], 1, "{ended}");
    // What could not be connected is told too.
    drop(connect(local(dead)));
    let (_, failed) = connections(&rhumb, "default/nobody", |all| all["failed"] == 1);
    assert_eq!((&failed["opened"], &failed["outcomes"]["backendError"]), (&1.into(), &1.into()), "{failed}");
    let top = json(&rhumb.admin("/api/v1/top?by=edge&window=60&sort=name"));
    let item = &top["items"][1];
    assert_eq!((&item["name"], &item["connections"]["opened"]), (&"gateway>default/peer".into(), &1.into()));
}
