//! A call through the proxies of both sides is one trace.

use super::{World, upstream};
use crate::gate::seen;
use crate::tracing::{CLIENT, Collector, SERVER, of_kind};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::Client;

#[test]
fn a_call_between_workloads_is_one_trace_with_the_right_parents() {
    let collector = Collector::start("http");
    let backend = Backend::start();
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    world.add(&format!(
        "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {{name: traces}}\n\
         spec: {{targetRefs: [{{kind: Service, name: orders}}], policies: {{tracing: {{percentage: 100, \
         otlp: {{url: 'http://127.0.0.1:{}/v1/traces'}}}}}}}}",
        collector.port
    ));
    let _orders = world.sidecar_of(&orders);
    let (listen, address) = upstream();
    let _web = world.caller("web", &[(&orders, listen)]);
    // The workload's own trace is joined: nobody but it can have begun it.
    let (trace, span) = ("463ac35c9f6413ad48485a3953bb6124", "a2fb4a1d1a96d312");
    let request = format!("GET /x HTTP/1.1\r\nHost: orders\r\ntraceparent: 00-{trace}-{span}-01\r\n\r\n");
    let echo = Client::connect(address).exchange(request);
    assert_eq!(echo.status(), 200);
    let spans = collector.wait_for(4);
    assert!(spans.len() == 4 && spans.iter().all(|span| span["trace"] == trace), "{spans:#?}");
    let (servers, clients) = (of_kind(&spans, SERVER), of_kind(&spans, CLIENT));
    let parent_of =
        |parent: &str| *servers.iter().find(|span| span["parent"] == parent).expect("a span of a proxy");
    let call_of =
        |server: &str| *clients.iter().find(|span| span["parent"] == server).expect("a span of a call");
    let mut parent = span.to_owned();
    for _ in 0..2 {
        let server = parent_of(&parent)["span"].as_str().expect("an id");
        parent = call_of(server)["span"].as_str().expect("an id").to_owned();
    }
    assert_eq!(seen(&echo, "traceparent"), Some(format!("00-{trace}-{parent}-01")));
}
