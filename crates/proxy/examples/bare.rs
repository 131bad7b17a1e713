//! tmp
use rhumb_plan::*;
use rhumb_proxy::worker::{self, *};
use std::net::SocketAddr;
use std::sync::*;
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let listen: SocketAddr = a[1].parse().unwrap();
    let up: SocketAddr = a[2].parse().unwrap();
    let backend = Arc::new(Backend {
        name: "b".into(),
        digest: 0,
        dns_names: Box::default(),
        endpoints: Arc::new(rhumb_balance::Endpoints::new(rhumb_balance::EndpointSet::new(
            vec![rhumb_balance::EndpointSpec::new(up)],
            rhumb_balance::Algorithm::LeastBusy,
        ))),
        needs_key: false,
        hash_on: HashOn::default(),
        target: rhumb_upstream::Target {
            key: 1,
            protocol: Default::default(),
            tls: None,
            connect_timeout: rhumb_upstream::target::DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: rhumb_upstream::target::DEFAULT_IDLE_TIMEOUT,
            limits: Default::default(),
        },
        metrics_id: OnceLock::new(),
    });
    let mut t = rhumb_route::Builder::new();
    let l = t.listener(&rhumb_route::Host::Any);
    let rule = Rule {
        route: "r".into(),
        index: 0,
        template: "/".into(),
        listener: "l".into(),
        chain: Default::default(),
        backends: vec![WeightedBackend {
            weight: 1,
            backend: Some(backend.clone()),
            chain: Default::default(),
        }]
        .into(),
        timeouts: Default::default(),
        invalid: None,
        metrics_id: OnceLock::new(),
    };
    t.attach(
        l,
        Arc::new(rhumb_route::Rule {
            route: "r".into(),
            created: 0,
            index: 0,
            hosts: Box::new([]),
            matches: Box::new([rhumb_route::RequestMatch::default()]),
            value: rule,
        }),
    );
    let port = Port {
        address: listen,
        name: "l".into(),
        listeners: Box::default(),
        tls: None,
        table: t.build(),
        settings: PortSettings { forwarded: false, ..Default::default() },
    };
    let current = Current::default();
    current.swap(Arc::new(Plan { revision: 1, ports: vec![Arc::new(port)], backends: vec![backend] }));
    let registry = rhumb_telemetry::Registry::new();
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
    tx.send(Command::Listen(listen, rhumb_net::listen::listen(listen).unwrap())).ok();
    if let Some(f) = a.get(3) {
        let log = rhumb_telemetry::AccessLog::open(
            rhumb_telemetry::AccessLogConfig {
                sink: rhumb_telemetry::access_log::Sink::File(f.into()),
                ..Default::default()
            },
            &registry,
        )
        .unwrap();
        tx.send(Command::Log(vec![Arc::new(log)])).ok();
    }
    worker::run(
        &Shared { current, registry, origin: std::time::Instant::now(), connections: Default::default() },
        rx,
    )
    .unwrap();
    drop(tx);
}
