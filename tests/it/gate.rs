//! What most tests stand on: one proxy in front of the scripted backend.

use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::message::Message;
use rhumb_testkit::port;
use rhumb_testkit::process::Rhumb;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};

/// The proxy, where it listens, and the backend named `peer`.
pub(crate) struct Gate {
    pub(crate) rhumb: Rhumb,
    pub(crate) proxy: SocketAddr,
    pub(crate) backend: Backend,
}

impl Gate {
    /// One worker, a plain listener `web`, everything to the backend.
    pub(crate) fn new() -> Self {
        Self::with(|config| config.route("match: {path: '/*'}, to: peer"))
    }

    /// Listener `web` and backend `peer` are there; `more` adds routes and settings.
    pub(crate) fn with(more: impl FnOnce(Config) -> Config) -> Self {
        let backend = Backend::start();
        let port = port::free();
        let peer = format!("endpoints: ['{}']", backend.address());
        let config = more(Config::new().top("workers: 1").listener("web", port, "").backend("peer", &peer));
        let rhumb = Rhumb::start(&config);
        Self { rhumb, proxy: local(port), backend }
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.proxy)
    }

    /// One GET for `a.test` on a new connection.
    pub(crate) fn get(&self, target: &str) -> Message {
        self.connect().get("a.test", target)
    }
}

/// A port of 127.0.0.1.
pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The content as JSON.
pub(crate) fn json(message: &Message) -> Value {
    serde_json::from_slice(&message.content).unwrap_or_else(|error| panic!("{error}: {message:?}"))
}

/// The `code` of a problem+json response; panics when it is none.
pub(crate) fn problem(message: &Message) -> String {
    assert_eq!(message.field("content-type"), Some("application/problem+json"), "{message:?}");
    let body = json(message);
    assert_eq!(body["status"], message.status());
    body["code"].as_str().unwrap_or_else(|| panic!("no code in {body}")).to_owned()
}

/// The value of a field of the request that the echo backend saw; `None` when it was not there.
pub(crate) fn seen(echo: &Message, name: &str) -> Option<String> {
    let body = json(echo);
    let fields = body["fields"].as_array().unwrap_or_else(|| panic!("no echo: {body}"));
    let mut values =
        fields.iter().filter(|field| field[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
    let value = values.next().map(|field| field[1].as_str().unwrap_or_default().to_owned());
    assert!(values.next().is_none(), "{name} more than once in {body}");
    value
}
