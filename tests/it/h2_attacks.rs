//! HTTP/2 used against the proxy: floods, bombs, stalls, broken frames, injections towards HTTP/1. Each test runs
//! one worker, so that whoever else is served during the attack is served by the worker under attack.

mod floods;
mod frames;
mod injections;

use rhumb_testkit::backend::Backend;
use rhumb_testkit::config::Config;
use rhumb_testkit::h2::{self, Connection};
use rhumb_testkit::load::Load;
use rhumb_testkit::port;
use rhumb_testkit::process::Rhumb;
use std::net::{Ipv4Addr, SocketAddr};

/// How much an attack by one client may add to the process. Queues of one connection are some hundred KiB.
const GROWTH: u64 = 48 * 1024 * 1024;

/// The proxy with one worker, a backend, and somebody else who wants to be served meanwhile.
struct Scene {
    rhumb: Rhumb,
    proxy: SocketAddr,
    backend: Backend,
    others: Option<Load>,
    before: u64,
}

impl Scene {
    fn new() -> Self {
        let backend = Backend::start();
        let port = port::free();
        // A machine that stalls is an overload too, and others would be refused for that.
        let config =
            Config::simple(port, backend.address()).top("workers: 1").top("overload: {queueDelay: 30s}");
        let rhumb = Rhumb::start(&config);
        let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let others =
            Load::start(proxy, 2, "GET /bytes/100 HTTP/1.1\r\nHost: other.test\r\n\r\n", |response| {
                (response.status() != 200).then(|| response.start.clone())
            });
        others.wait_more(50);
        let mut scene = Self { rhumb, proxy, backend, others: Some(others), before: 0 };
        scene.before = scene.rhumb.program().rss();
        scene
    }

    fn connect(&self) -> Connection {
        Connection::open(self.proxy, &[])
    }

    /// Memory is bounded, others were and are served, a new HTTP/2 client too.
    fn check(&mut self) {
        let grown = self.rhumb.program().rss().saturating_sub(self.before);
        assert!(grown < GROWTH, "the process grew by {grown} bytes");
        let others = self.others.take().expect("one check per scene");
        others.wait_more(50);
        let report = others.stop();
        assert_eq!(report.failed, 0, "others were not served: {:?}", report.first());
        let mut fresh = self.connect();
        fresh.send(&h2::headers(1, &h2::get("a.test", "/bytes/10", &[]), true));
        let answer = fresh.answer(1).expect("a new client is served");
        assert_eq!((answer.status, answer.content.len()), (200, 10));
    }
}
