//! Agents and a control plane over real gRPC on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rhumb_agent::ads::Kind;
use rhumb_agent::ads::registry::Registration;
use rhumb_agent::ads::resource::{Documents, EndpointSet};
use rhumb_agent::ads::wire::Node;
use rhumb_agent::{Agent, Event, Options, plain};
use rhumb_base::rng::Rng;
use rhumb_control::audience::Why;
use rhumb_control::caller::Caller;
use rhumb_control::core::Core;
use rhumb_control::document::Document;
use rhumb_control::hub::Hub;
use rhumb_control::serve::{Connection, caller_of, routes, serve};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

/// Longer than anything takes, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    hub: Arc<Hub>,
    address: SocketAddr,
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Server {
    async fn start(hub: Arc<Hub>, caller: Caller) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), hub, caller).await
    }

    async fn at(address: SocketAddr, hub: Arc<Hub>, caller: Caller) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tx, rx) = mpsc::channel(8);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if tx.send(Ok(Connection::new(stream, caller.clone()))).await.is_err() {
                    return;
                }
            }
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let (to, keeper) = (routes(&hub, caller_of), Arc::clone(&hub));
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            tokio::select! {
                ended = serve(&keeper, to, ReceiverStream::new(rx), stopped) => ended.unwrap(),
                () = keeper.keep() => {}
            }
        });
        Self { hub, address, task, stop: Some(stop) }
    }

    async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap();
    }
}

fn hub() -> Arc<Hub> {
    Arc::new(Hub::new(Core::new(1)))
}

fn apply(hub: &Hub, revision: u64, documents: &[serde_json::Value]) {
    let changes = documents.iter().map(|value| {
        let document = Document::parse(value.to_string().into(), revision).unwrap();
        (document.key.clone(), Some(Arc::new(document)))
    });
    hub.with(|core| core.commit(revision, changes));
}

fn service(name: &str, port: u16) -> serde_json::Value {
    serde_json::json!({ "kind": "Service", "metadata": { "name": name }, "spec": { "ports": [{ "port": port }] } })
}

fn options(servers: &[SocketAddr], name: &str) -> Options {
    Options {
        servers: servers.iter().map(ToString::to_string).collect(),
        connect: plain(),
        node: Node { id: name.to_owned(), ..Node::default() },
        directory: None,
        rng: Rng::new(1),
    }
}

fn registration(workload: &str, service: &str) -> Registration {
    Registration {
        workload: workload.to_owned(),
        address: "10.0.0.1".to_owned(),
        services: vec![service.to_owned()],
        instance: "1".to_owned(),
        ..Registration::default()
    }
}

async fn change(events: &mut mpsc::Receiver<Event>) -> rhumb_agent::ads::Change {
    loop {
        match tokio::time::timeout(PATIENCE, events.recv()).await.expect("a change in time").unwrap() {
            Event::Change(change) => return change,
            Event::State(_) => {}
        }
    }
}

/// Takes over whatever comes.
fn obey(agent: Arc<Agent>, mut events: mpsc::Receiver<Event>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Change(change) = event {
                agent.accept(change);
            }
        }
    })
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = tokio::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_proxy_is_sent_what_it_asks_for_and_its_acks_are_known() {
    let server = Server::start(hub(), Caller::Trusted).await;
    apply(&server.hub, 1, &[service("orders", 80), service("other", 80)]);
    let (agent, mut events) = Agent::start(options(&[server.address], "p"));
    agent.want(Kind::Service, "default/orders");
    let first = change(&mut events).await;
    let documents = Documents::decode(first.items[0].content.clone().unwrap()).unwrap();
    assert_eq!(documents.documents.len(), 1);
    agent.accept(first);
    apply(&server.hub, 2, &[service("other", 81)]);
    apply(&server.hub, 3, &[service("orders", 81)]);
    let touched = server.hub.with(|core| core.told(3).cloned()).unwrap();
    assert_eq!(server.hub.with(|core| core.told(2).cloned()).unwrap(), [], "nobody wants it");
    let second = change(&mut events).await;
    assert_eq!(second.revision, 3);
    let audience = server.hub.with(|core| core.audience(&touched));
    assert_eq!((audience.live, audience.waiting.len()), (0, 1));
    agent.accept(second);
    let deadline = std::time::Instant::now() + PATIENCE;
    let audience = server.hub.settled(&touched, deadline).await;
    assert_eq!((audience.live, audience.waiting.len()), (1, 0));
}

#[tokio::test]
async fn a_refusal_is_told_by_name_and_reason() {
    let server = Server::start(hub(), Caller::Trusted).await;
    apply(&server.hub, 1, &[service("orders", 80)]);
    let (agent, mut events) = Agent::start(options(&[server.address], "picky"));
    agent.want(Kind::Service, "default/orders");
    let first = change(&mut events).await;
    agent.accept(first);
    apply(&server.hub, 2, &[service("orders", 81)]);
    let bad = change(&mut events).await;
    agent.refuse(bad, "port 81 is taken".to_owned());
    let touched = server.hub.with(|core| core.told(2).cloned()).unwrap();
    let audience = server.hub.settled(&touched, std::time::Instant::now() + PATIENCE).await;
    assert_eq!(audience.live, 0);
    assert_eq!(audience.waiting[0].proxy, "picky");
    assert_eq!(audience.waiting[0].why, Why::Refused("port 81 is taken".to_owned()));
}

#[tokio::test]
async fn endpoints_come_go_and_the_one_that_leaves_waits_for_its_clients() {
    let server = Server::start(hub(), Caller::Trusted).await;
    apply(&server.hub, 1, &[service("orders", 80)]);
    let (client, mut events) = Agent::start(options(&[server.address], "client"));
    client.want(Kind::Endpoints, "default/orders");
    let none = change(&mut events).await;
    client.accept(none);
    let (workload, its_events) = Agent::start(options(&[server.address], "workload"));
    let workload = Arc::new(workload);
    let _obeying = obey(Arc::clone(&workload), its_events);
    workload.register(registration("default/orders-1", "orders"));
    let one = change(&mut events).await;
    let set = EndpointSet::decode(one.items[0].content.clone().unwrap()).unwrap();
    assert_eq!(set.endpoints[0].address, "10.0.0.1");
    client.accept(one);
    let leaving = tokio::spawn({
        let workload = Arc::clone(&workload);
        async move { workload.withdraw(PATIENCE).await }
    });
    let gone = change(&mut events).await;
    assert_eq!(EndpointSet::decode(gone.items[0].content.clone().unwrap()).unwrap().endpoints.len(), 0);
    assert!(!leaving.is_finished(), "the client has not said that it knows");
    client.accept(gone);
    let withdrawn = leaving.await.unwrap().unwrap();
    assert_eq!((withdrawn.acked, withdrawn.pending.len()), (1, 0));
}

#[tokio::test]
async fn a_withdrawal_names_clients_that_do_not_answer() {
    let server = Server::start(hub(), Caller::Trusted).await;
    apply(&server.hub, 1, &[service("orders", 80)]);
    let (client, mut events) = Agent::start(options(&[server.address], "slow"));
    client.want(Kind::Endpoints, "default/orders");
    let none = change(&mut events).await;
    client.accept(none);
    let (workload, its_events) = Agent::start(options(&[server.address], "workload"));
    let workload = Arc::new(workload);
    let _obeying = obey(Arc::clone(&workload), its_events);
    workload.register(registration("default/orders-1", "orders"));
    let one = change(&mut events).await;
    client.accept(one);
    let withdrawn = workload.withdraw(Duration::from_millis(200)).await.unwrap();
    assert_eq!((withdrawn.acked, withdrawn.pending), (0, vec!["slow".to_owned()]));
}

#[tokio::test]
async fn proxies_go_to_another_control_plane_and_are_sent_only_what_differs() {
    let (one, two) = (hub(), hub());
    for hub in [&one, &two] {
        apply(hub, 1, &[service("orders", 80), service("users", 80)]);
    }
    let first = Server::start(one, Caller::Trusted).await;
    let (agent, events) = Agent::start(options(&[first.address], "p"));
    drop((agent, events));
    let second = Server::start(two, Caller::Trusted).await;
    let (agent, mut events) = Agent::start(options(&[first.address, second.address], "p"));
    agent.want(Kind::Service, "default/orders");
    agent.want(Kind::Service, "default/users");
    while agent.unknown() > 0 {
        let change = change(&mut events).await;
        agent.accept(change);
    }
    let at = agent.state().borrow().server.clone().unwrap();
    let (left, other) = if at == first.address.to_string() { (first, second) } else { (second, first) };
    apply(&other.hub, 2, &[service("users", 81)]);
    left.stop().await;
    let change = change(&mut events).await;
    let names: Vec<&str> = change.items.iter().map(|item| &*item.name).collect();
    assert_eq!(names, ["default/users"]);
    agent.accept(change);
    assert_eq!(agent.state().borrow().server, Some(other.address.to_string()));
}

#[tokio::test]
async fn a_process_starts_with_the_last_set_when_nobody_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(hub(), Caller::Trusted).await;
    apply(&server.hub, 1, &[service("orders", 80)]);
    let address = server.address;
    let with_directory =
        || Options { directory: Some(directory.path().to_owned()), ..options(&[address], "p") };
    let (agent, mut events) = Agent::start(with_directory());
    agent.want(Kind::Service, "default/orders");
    let first = change(&mut events).await;
    let content: Bytes = first.items[0].content.clone().unwrap();
    agent.accept(first);
    until("the set is saved", || directory.path().join("resources").exists()).await;
    drop((agent, events));
    server.stop().await;
    let (agent, _events) = Agent::start(with_directory());
    assert_eq!(agent.held(Kind::Service)[0].2, Some(content));
    assert_eq!(agent.unknown(), 0);
}

#[tokio::test]
async fn nobody_gets_what_is_not_its_own() {
    let proven = Caller::Proven { namespace: "default".into(), account: "orders".into() };
    let server = Server::start(hub(), proven).await;
    apply(
        &server.hub,
        1,
        &[
            service("orders", 80),
            serde_json::json!({ "kind": "Workload", "metadata": { "name": "users-1" }, "spec": { "address": "10.0.0.2", "serviceAccount": "users" } }),
        ],
    );
    for (kind, name) in
        [(Kind::Own, "default/users-1"), (Kind::Own, "other/orders-1"), (Kind::Gateway, "default/gate")]
    {
        let (agent, mut events) = Agent::start(options(&[server.address], "p"));
        agent.want(kind, name);
        loop {
            match tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap() {
                Event::State(state) if state.trouble.is_some() => {
                    assert!(state.trouble.clone().unwrap().contains("service account"), "{state:?}");
                    break;
                }
                Event::State(_) => {}
                Event::Change(change) => panic!("{name}: {change:?}"),
            }
        }
    }
    let (agent, mut events) = Agent::start(options(&[server.address], "p"));
    agent.want(Kind::Own, "default/orders-1");
    let own = change(&mut events).await;
    assert!(own.items[0].content.is_none(), "it may ask, and nothing is known of it");
    agent.accept(own);
    agent.register(Registration {
        service_account: "users".to_owned(),
        ..registration("default/x", "orders")
    });
    until("a registration for another account is refused", || {
        agent.state().borrow().trouble.as_ref().is_some_and(|trouble| trouble.contains("cannot speak for"))
    })
    .await;
}

#[tokio::test]
async fn a_registration_that_makes_no_sense_is_refused_with_the_reason() {
    let server = Server::start(hub(), Caller::Trusted).await;
    let of = |services: Vec<String>| Registration { services, ..registration("default/x", "") };
    for (registration, why) in [
        (of(vec!["orders".to_owned(); 65]), "64 services"),
        (of(vec!["o".repeat(600)]), "512 bytes"),
        (of(vec!["orders".to_owned(); 20_000]), "too large"),
    ] {
        let (agent, _events) = Agent::start(options(&[server.address], "p"));
        agent.register(registration);
        until(why, || agent.state().borrow().trouble.as_ref().is_some_and(|trouble| trouble.contains(why)))
            .await;
    }
    assert_eq!(server.hub.with(|core| core.members().registrations().count()), 0);
}

#[tokio::test]
async fn who_has_proven_nothing_gets_nothing() {
    let server = Server::start(hub(), Caller::Unknown(None)).await;
    let (agent, mut events) = Agent::start(options(&[server.address], "p"));
    agent.want(Kind::Service, "default/orders");
    let Event::State(state) = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap() else {
        panic!("it was sent something")
    };
    assert!(state.trouble.unwrap().contains("client certificate"));
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_holds_up_nobody() {
    let server = Server::start(hub(), Caller::Trusted).await;
    apply(&server.hub, 1, &[service("orders", 80)]);
    let (stuck, mut its_events) = Agent::start(options(&[server.address], "stuck"));
    stuck.want(Kind::Service, "default/orders");
    let held = change(&mut its_events).await;
    let (agent, mut events) = Agent::start(options(&[server.address], "p"));
    agent.want(Kind::Service, "default/orders");
    let first = change(&mut events).await;
    agent.accept(first);
    for revision in 2..50 {
        apply(&server.hub, revision, &[service("orders", 100 + revision as u16)]);
        let next = change(&mut events).await;
        agent.accept(next);
    }
    // It was sent one thing, and when it answers it is sent the latest.
    stuck.accept(held);
    let next = change(&mut its_events).await;
    assert_eq!(next.revision, 49);
}
