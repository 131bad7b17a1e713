//! Configuration texts for tests, in one place so that a change of the short form is a change here.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// A `rhumb.yaml` in the making. Fragments are YAML flow or block text, put where the method says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    listeners: Vec<String>,
    backends: Vec<String>,
    routes: Vec<String>,
    top: Vec<String>,
}

impl Config {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One plain listener `web`, one backend `peer`, one route from everything to it: enough for most tests.
    pub fn simple(port: u16, backend: SocketAddr) -> Self {
        Self::new()
            .listener("web", port, "")
            .backend("peer", &format!("endpoints: ['{backend}']"))
            .route("match: {path: '/*'}, to: peer")
    }

    /// A listener on 127.0.0.1; `more` is further keys in flow form (`tls: {…}`).
    #[must_use]
    pub fn listener(mut self, name: &str, port: u16, more: &str) -> Self {
        let comma = if more.is_empty() { "" } else { ", " };
        self.listeners.push(format!("{name}: {{address: 127.0.0.1, port: {port}{comma}{more}}}"));
        self
    }

    /// A backend; `body` in flow form without the braces.
    #[must_use]
    pub fn backend(mut self, name: &str, body: &str) -> Self {
        self.backends.push(format!("{name}: {{{body}}}"));
        self
    }

    /// A route on listener `web` unless `body` says `on:`; `body` in flow form without the braces.
    #[must_use]
    pub fn route(mut self, body: &str) -> Self {
        let on = if body.contains("on:") { "" } else { "on: web, " };
        self.routes.push(format!("{{{on}{body}}}"));
        self
    }

    /// A top-level line, such as `workers: 1`.
    #[must_use]
    pub fn top(mut self, line: &str) -> Self {
        self.top.push(line.to_owned());
        self
    }

    /// The text of the file, with the admin listener on `admin`.
    pub fn text(&self, admin: u16) -> String {
        let mut text = format!("admin: {{address: '127.0.0.1:{admin}'}}\n");
        for line in &self.top {
            let _ = writeln!(text, "{line}");
        }
        for (title, mark, items) in [
            ("listeners", "", &self.listeners),
            ("backends", "", &self.backends),
            ("routes", "- ", &self.routes),
        ] {
            if !items.is_empty() {
                let _ = writeln!(text, "{title}:");
            }
            for item in items {
                let _ = writeln!(text, "  {mark}{item}");
            }
        }
        text
    }
}
