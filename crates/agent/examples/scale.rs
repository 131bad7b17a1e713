//! How a control plane stands up to thousands of proxies: `cargo run --profile fast -p rhumb-agent --example scale`.
//!
//! The control plane and its clients are processes of their own, so that what it costs is what it costs; they speak real
//! gRPC over loopback. Each client wants some services out of all, and one that all of them want. Measured is the time from
//! a change until the last client that it concerns has acked it, and the CPU time and memory of the control plane.

#![allow(clippy::print_stdout, reason = "it is what this program is for")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_agent::ads::Kind;
use rhumb_agent::ads::registry::Registration;
use rhumb_agent::ads::resource::Port;
use rhumb_agent::ads::wire::Node;
use rhumb_agent::{Agent, Event, Options, plain};
use rhumb_base::rng::Rng;
use rhumb_control::caller::Caller;
use rhumb_control::core::{Core, Touched};
use rhumb_control::document::Document;
use rhumb_control::hub::Hub;
use rhumb_control::serve::{Connection, caller_of, routes, serve};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const CLIENTS: usize = 2_000;
const SERVICES: usize = 1_000;
const WANTED: usize = 20;
const ENDPOINTS: usize = 5;
const CHANGES: usize = 300;

/// Longer than a change takes.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("server") => server(),
        Some("clients") => clients(&arguments[2]),
        _ => measure(),
    }
}

/// A runtime on a thread of its own, as the control plane has it.
fn runtime() -> Handle {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

fn service(number: usize, revision: u64) -> Document {
    let value = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": format!("s{number}"), "namespace": "shop", "annotations": { "revision": revision.to_string() } },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    });
    Document::parse(value.to_string().into(), revision).expect("a document")
}

fn endpoint(service: usize, number: usize, weight: u32) -> Registration {
    Registration {
        workload: format!("shop/s{service}-{number}"),
        address: format!("10.{}.{}.{}", number, service / 250, service % 250 + 1),
        services: vec![format!("s{service}")],
        ports: vec![Port { name: "http".to_owned(), number: 8080 }],
        service_account: format!("s{service}"),
        weight,
        instance: "1".to_owned(),
        ..Registration::default()
    }
}

/// Obeys orders from its standard input, a line each, and answers with a line.
fn server() {
    let runtime = runtime();
    let hub = Arc::new(Hub::new(Core::new(1)));
    hub.with(|core| {
        let documents = (0..SERVICES).map(|number| service(number, 1));
        core.commit(1, documents.map(|document| (document.key.clone(), Some(Arc::new(document)))));
        for service in 0..SERVICES {
            for number in 0..ENDPOINTS {
                core.register(endpoint(service, number, 1)).expect("an endpoint");
            }
        }
    });
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    println!("{}", listener.local_addr().expect("its address"));
    let (tx, rx) = mpsc::channel(64);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let _ = tx.send(Ok(Connection::new(stream, Caller::Trusted))).await;
        }
    });
    let at = Arc::clone(&hub);
    runtime.spawn(async move {
        let routes = routes(&at, caller_of);
        serve(&at, routes, ReceiverStream::new(rx), std::future::pending()).await
    });
    let mut revision = 1;
    for line in std::io::stdin().lines() {
        let line = line.expect("an order");
        let words: Vec<&str> = line.split(' ').collect();
        let number: usize = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        let began = Instant::now();
        let touched: Touched = match words[0] {
            "endpoint" => {
                revision += 1;
                let weight = u32::try_from(revision).unwrap_or(u32::MAX);
                hub.with(|core| core.register(endpoint(number, 0, weight))).expect("an endpoint")
            }
            "document" => {
                revision += 1;
                let document = service(number, revision);
                hub.with(|core| core.commit(revision, [(document.key.clone(), Some(Arc::new(document)))])).0
            }
            _ => return,
        };
        let audience = runtime.block_on(hub.settled(&touched, began + PATIENCE));
        println!("{} {} {}", began.elapsed().as_micros(), audience.live, audience.waiting.len());
    }
}

fn clients(address: &str) {
    let runtimes = [runtime(), runtime()];
    let mut agents = Vec::new();
    for number in 0..CLIENTS {
        let runtime = &runtimes[number % 2];
        let _guard = runtime.enter();
        let mut rng = Rng::new(number as u64);
        let (agent, mut events) = Agent::start(Options {
            servers: vec![address.to_owned()],
            connect: plain(),
            node: Node { id: format!("shop/client-{number}"), ..Node::default() },
            directory: None,
            rng: Rng::new(number as u64),
        });
        let agent = Arc::new(agent);
        let others = std::iter::repeat_with(|| 1 + rng.below(SERVICES as u32 - 1));
        for service in std::iter::once(0).chain(others.take(WANTED - 1)) {
            agent.want(Kind::Service, &format!("shop/s{service}"));
            agent.want(Kind::Endpoints, &format!("shop/s{service}"));
        }
        let obedient = Arc::clone(&agent);
        runtime.spawn(async move {
            while let Some(event) = events.recv().await {
                if let Event::Change(change) = event {
                    obedient.accept(change);
                }
            }
        });
        agents.push(agent);
    }
    while agents.iter().any(|agent| agent.unknown() > 0) {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    println!("ready");
    // Until the other end closes it.
    let _ = std::io::stdin().lines().count();
}

struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, orders, answers }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().to_owned()
    }

    fn order(&mut self, order: &str) -> Vec<u64> {
        let orders = self.orders.as_mut().expect("its input");
        writeln!(orders, "{order}").expect("an order");
        self.line().split(' ').map(|number| number.parse().expect("a number")).collect()
    }

    /// CPU time so far.
    fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("its state");
        let fields: Vec<&str> = text.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks: u64 =
            fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks");
        Duration::from_millis(ticks * 10)
    }

    fn resident_mib(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its state");
        let line = text.lines().find(|line| line.starts_with("VmRSS")).expect("its memory");
        line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number") / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn measure() {
    let mut server = Process::start(&["server"]);
    let address = server.line();
    let idle = server.resident_mib();
    let began = Instant::now();
    let mut clients = Process::start(&["clients", &address]);
    assert_eq!(clients.line(), "ready");
    println!(
        "{CLIENTS} proxies, {SERVICES} services with {ENDPOINTS} endpoints, {WANTED} services per proxy ({} MiB before they came)",
        idle.round()
    );
    println!(
        "all connected and served after {:.1} s, {:.1} s of CPU, {:.0} MiB resident",
        began.elapsed().as_secs_f64(),
        server.cpu().as_secs_f64(),
        server.resident_mib()
    );
    println!("| change | proxies | p50 | p99 | longest | CPU of the control plane each |");
    println!("|---|---|---|---|---|---|");
    let mut rng = Rng::new(7);
    for (name, order, is_common) in [
        ("endpoint of a service", "endpoint", false),
        ("endpoint of a service that all want", "endpoint", true),
        ("document of a service", "document", false),
        ("document of a service that all want", "document", true),
    ] {
        let (mut times, mut live) = (Vec::new(), 0);
        let before = server.cpu();
        let changes = if is_common { CHANGES / 6 } else { CHANGES };
        for _ in 0..changes {
            let service = if is_common { 0 } else { 1 + rng.below(SERVICES as u32 - 1) };
            let answer = server.order(&format!("{order} {service}"));
            assert_eq!(answer[2], 0, "somebody has not answered");
            times.push(answer[0]);
            live += answer[1];
        }
        let cpu = (server.cpu() - before).as_secs_f64() * 1e3 / changes as f64;
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize] as f64 / 1e3;
        println!(
            "| {name} | {} | {:.1} ms | {:.1} ms | {:.1} ms | {cpu:.2} ms |",
            live / changes as u64,
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    println!("{:.0} MiB resident in the end", server.resident_mib());
}
