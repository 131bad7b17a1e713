//! Several control planes on one store, which is a real PostgreSQL.

use crate::l4::postgres::Cluster;
use rhumb_testkit::member::{
    self, Operator, application, asks, backend_document as backend, gateway_documents as gateway,
    keep_join_token, service_document,
};
use rhumb_testkit::process::{Finished, Program, Rhumb, finish};
use rhumb_testkit::{port, wait};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// A database that can be stopped and started again.
struct Store {
    cluster: Cluster,
    port: u16,
    dir: TempDir,
    program: Option<Program>,
}

impl Store {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = Self { cluster: Cluster::new(), port: port::free(), dir, program: None };
        store.up();
        std::fs::write(store.dir.path().join("store"), store.url()).expect("a file");
        store
    }

    fn url(&self) -> String {
        format!("postgres://postgres@localhost:{}/postgres", self.port)
    }

    fn up(&mut self) {
        let mut program =
            Program::start(self.cluster.server(self.port), &self.dir.path().join("postgres.log"));
        wait::until("PostgreSQL answers", || {
            assert!(program.ended().is_none(), "PostgreSQL ended: {}", program.log());
            let mut ready = Command::new("psql");
            ready.args(["-X", "-q", "-c", "select 1", &self.url()]);
            (finish(ready).code == Some(0)).then_some(())
        });
        self.program = Some(program);
    }

    /// A fast shutdown: connections are cut.
    fn down(&mut self) {
        let mut program = self.program.take().expect("a server that runs");
        program.signal(rustix::process::Signal::INT);
        program.wait();
    }

    /// A verb that asks the store itself.
    fn rhumb(&self, args: &[&str]) -> Finished {
        let mut command = Rhumb::command();
        command.args(args).arg("--store-file").arg(self.dir.path().join("store"));
        command.arg("--seal-key-file").arg(self.dir.path().join("seal.key"));
        finish(command)
    }

    /// A file with a join token.
    fn token(&self, name: &str, namespace: &str, account: &str) -> PathBuf {
        let made = self.rhumb(&["token", "create", "--namespace", namespace, "--service-account", account]);
        keep_join_token(&made, self.dir.path().join(name))
    }
}

/// A control plane.
struct Plane {
    admin: u16,
    operator: Operator,
    listen: String,
    dir: PathBuf,
    program: Program,
}

impl Plane {
    fn start(store: &Store, name: &str) -> Self {
        let plane = Self::begin(store, name);
        wait::until("the control plane answers", || (plane.rhumb(&["get"]).code == Some(0)).then_some(()));
        plane
    }

    fn begin(store: &Store, name: &str) -> Self {
        let (admin, listen) = (port::free(), format!("127.0.0.1:{}", port::free()));
        let address = format!("127.0.0.1:{admin}");
        let dir = store.dir.path().join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let mut command = Rhumb::command();
        command.args(["control", "--admin", &address, "--listen", &listen]);
        command.arg("--store-file").arg(store.dir.path().join("store"));
        command.arg("--seal-key-file").arg(store.dir.path().join("seal.key"));
        command.arg("--admin-token-file").arg(dir.join("token"));
        let program = Program::start(command, &dir.join("log"));
        Self { admin, operator: Operator::new(&address, dir.join("token")), listen, dir, program }
    }

    fn rhumb(&self, args: &[&str]) -> Finished {
        self.operator.rhumb(args)
    }

    fn apply(&self, text: &str, more: &[&str]) -> Finished {
        self.operator.apply(text, more)
    }

    fn applied(&self, text: &str, more: &[&str]) -> String {
        let applied = self.apply(text, more);
        assert_eq!(applied.code, Some(0), "{}\n{}", applied.output, self.program.log());
        applied.output
    }
}

#[test]
fn what_one_control_plane_is_told_is_in_force_at_the_other() {
    let store = Store::start();
    let (one, two) = (Plane::start(&store, "one"), Plane::start(&store, "two"));
    one.applied(&backend(9001), &[]);
    wait::until("the other has it", || {
        two.rhumb(&["get", "Backend", "users", "-o", "yaml"]).output.contains("9001").then_some(())
    });
    // Numbers are those of the store, whoever asks for them.
    let second = two.applied(&backend(9002), &["--if-revision", "1", "--message", "at the other"]);
    assert!(second.contains("revision 2"), "{second}");
    let late = one.apply(&backend(9003), &["--if-revision", "1"]);
    assert!(late.code != Some(0) && late.output.contains("revision 2 is in force, not 1"), "{late:?}");
    assert!(one.rhumb(&["history"]).output.contains("at the other"));
    // Both write at once: each change is a revision, and none is lost.
    std::thread::scope(|scope| {
        for plane in [&one, &two] {
            let name = plane.dir.file_name().and_then(|name| name.to_str()).expect("a name");
            scope.spawn(move || {
                for number in 0..5 {
                    plane.applied(&backend(9100).replace("users", &format!("{name}-{number}")), &[]);
                }
            });
        }
    });
    for plane in [&one, &two] {
        wait::until("everything is there", || {
            let all = plane.rhumb(&["get", "Backend"]).output;
            let is_there = |name: &str| (0..5).all(|number| all.contains(&format!("{name}-{number}")));
            (is_there("one") && is_there("two")).then_some(())
        });
        assert!(plane.rhumb(&["history"]).output.contains("12"));
    }
    let back = one.rhumb(&["rollback", "1"]);
    assert!(back.code == Some(0) && back.output.contains("revision 13"), "{}", back.output);
    wait::until("the other is back too", || {
        two.rhumb(&["get", "Backend", "users", "-o", "yaml"]).output.contains("9001").then_some(())
    });
}

#[test]
fn a_dump_of_the_store_gives_nothing_away() {
    let store = Store::start();
    let one = Plane::start(&store, "one");
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {token: hunter2-is-a-password}\n";
    one.applied(secret, &[]);
    let token = std::fs::read_to_string(store.token("token", "shop", "edge")).expect("a token");
    let mut dump = Command::new("pg_dump");
    dump.args(["--inserts", &store.url()]);
    let dump = finish(dump);
    assert_eq!(dump.code, Some(0), "{}", dump.output);
    assert!(
        dump.output.contains("Secret/default/key") && dump.output.contains("authority.json"),
        "{}",
        dump.output
    );
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    for text in ["hunter2-is-a-password", "PRIVATE KEY", "intermediate", token.trim()] {
        assert!(!dump.output.contains(text) && !dump.output.contains(&hex(text)), "{text}");
    }
    // Who has another key, or none, is told which file is missing.
    std::fs::rename(store.dir.path().join("seal.key"), store.dir.path().join("kept.key")).expect("a name");
    let refused = store.rhumb(&["cert", "authority"]);
    assert!(refused.code == Some(1) && refused.output.contains("copy that file here"), "{}", refused.output);
    assert!(!store.dir.path().join("seal.key").exists());
}

#[test]
fn proxies_go_to_the_other_control_plane_and_nothing_fails() {
    let store = Store::start();
    let (mut one, two) = (Plane::start(&store, "one"), Plane::start(&store, "two"));
    let port = port::free();
    one.applied(&gateway(port, "first"), &[]);
    let token = store.token("token", "shop", "edge");
    let gateway_of =
        member::gateway(&[&one.listen, &two.listen], &store.dir.path().join("edge"), Some(&token));
    wait::until("the gateway answers", || {
        asks(port, "/").filter(|answer| answer.ends_with("first")).or_else(|| {
            assert!(!gateway_of.log().contains("rhumb ends"), "{}", gateway_of.log());
            None
        })
    });
    // A token that was used at one control plane is used up at the other.
    let thief = member::gateway(&[&two.listen], &store.dir.path().join("thief"), Some(&token));
    wait::until("the thief is refused", || thief.log().contains("proof of identity").then_some(()));
    drop(thief);
    // Whoever is asked counts the proxies of both.
    let applied = two.applied(&gateway(port, "second"), &["--wait"]);
    assert!(applied.contains("live on 1 proxy"), "{applied}\n{}", gateway_of.log());
    assert!(asks(port, "/").expect("an answer").ends_with("second"));
    assert!(two.rhumb(&["get", "proxies"]).output.contains("gateway/shop/edge/"));
    let (is_over, failed) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if !asks(port, "/").is_some_and(|answer| answer.contains(" 200 ")) {
                    failed.store(true, Ordering::Relaxed);
                }
            }
        });
        one.program.signal(rustix::process::Signal::KILL);
        one.program.wait();
        two.applied(&gateway(port, "third"), &[]);
        let arrived = wait::poll(Duration::from_secs(60), || {
            asks(port, "/").filter(|answer| answer.ends_with("third"))
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(arrived.is_some(), "{}\n{}", gateway_of.log(), two.program.log());
    });
    assert!(!failed.load(Ordering::Relaxed), "a request failed");
    let applied = two.applied(&gateway(port, "fourth"), &["--wait=30s"]);
    assert!(applied.contains("live on 1 proxy"), "{applied}");
}

#[test]
fn what_one_control_plane_is_told_reaches_proxies_of_the_other() {
    let store = Store::start();
    let (one, two) = (Plane::start(&store, "one"), Plane::start(&store, "two"));
    let port = port::free();
    one.applied(&gateway(port, "answer-0"), &[]);
    let token = store.token("token", "shop", "edge");
    let edge = member::gateway(&[&two.listen], &store.dir.path().join("edge"), Some(&token));
    let answers = |number: u32| {
        let expected = format!("answer-{number}");
        let answered =
            wait::poll(wait::LIMIT, || asks(port, "/").filter(|answer| answer.ends_with(&expected)));
        assert!(answered.is_some(), "{expected}: {}\n{}", edge.log(), two.program.log());
    };
    answers(0);
    for number in 1..=5 {
        one.applied(&gateway(port, &format!("answer-{number}")), &[]);
        answers(number);
    }
    // Whoever has applied it knows that it is in force there, too.
    let applied = one.applied(&gateway(port, "answer-6"), &["--wait"]);
    assert!(applied.contains("live on 1 proxy"), "{applied}\n{}", edge.log());
    assert!(asks(port, "/").expect("an answer").ends_with("answer-6"));
}

#[test]
fn without_the_store_everything_goes_on_and_changes_are_refused() {
    let mut store = Store::start();
    let (one, two) = (Plane::start(&store, "one"), Plane::start(&store, "two"));
    let port = port::free();
    one.applied(&gateway(port, "first"), &[]);
    let token = store.token("token", "shop", "edge");
    let dir = store.dir.path().join("edge");
    let edge = member::gateway(&[&one.listen, &two.listen], &dir, Some(&token));
    wait::until("the gateway answers", || asks(port, "/").filter(|answer| answer.ends_with("first")));
    store.down();
    for plane in [&one, &two] {
        let refused = plane.apply(&gateway(port, "second"), &[]);
        assert!(
            refused.code != Some(0) && refused.output.contains("the database is away"),
            "{}",
            refused.output
        );
        assert!(plane.rhumb(&["get"]).output.contains("answer"));
    }
    assert!(asks(port, "/").expect("an answer").ends_with("first"));
    // A proxy that begins anew is served by a control plane whose store is away.
    drop(edge);
    // It may have been too early to have any.
    let _ = std::fs::remove_dir_all(dir.join("state/documents"));
    let edge = member::gateway(&[&one.listen, &two.listen], &dir, Some(&token));
    wait::until("it answers again", || {
        asks(port, "/").filter(|answer| answer.ends_with("first")).or_else(|| {
            assert!(!edge.log().contains("rhumb ends"), "{}", edge.log());
            None
        })
    });
    store.up();
    // Nobody has to do anything for that.
    wait::until("changes are taken again", || {
        (two.apply(&gateway(port, "second"), &[]).code == Some(0)).then_some(())
    });
    wait::until("the gateway runs it", || asks(port, "/").filter(|answer| answer.ends_with("second")));
}

#[test]
fn a_control_plane_waits_for_its_store() {
    let mut store = Store::start();
    drop(Plane::start(&store, "first"));
    store.down();
    let mut plane = Plane::begin(&store, "one");
    wait::until("it waits", || plane.program.log().contains("waiting for the database").then_some(()));
    let admin = plane.admin;
    let ready = || asks(admin, "/readyz?verbose");
    let answer = wait::until("the admin listener answers", ready);
    assert!(answer.contains(" 503 ") && answer.contains("is away"), "{answer}");
    assert!(plane.program.ended().is_none(), "{}", plane.program.log());
    store.up();
    wait::until("it is ready", || ready().filter(|answer| answer.contains(" 200 ")));
    plane.applied(&backend(9000), &[]);
    let scraped = asks(admin, "/metrics").expect("metrics");
    assert!(scraped.contains("rhumb_store_up 1\n"), "{scraped}");
    store.down();
    wait::until("the metrics say that it is away", || {
        asks(admin, "/metrics").filter(|scraped| scraped.contains("rhumb_store_up 0\n"))
    });
    // One that still waits ends when it is told to.
    let mut other = Plane::begin(&store, "two");
    wait::until("it waits", || other.program.log().contains("waiting for the database").then_some(()));
    other.program.signal(rustix::process::Signal::TERM);
    other.program.wait();
}

#[test]
fn workloads_of_one_control_plane_serve_clients_of_the_other() {
    let store = Store::start();
    let (one, two) = (Plane::start(&store, "one"), Plane::start(&store, "two"));
    let (app, upstream) = (application("hello"), port::free());
    one.applied(&service_document(app), &[]);
    let (tunnel, other) = (format!("127.0.0.1:{}", port::free()), format!("127.0.0.1:{}", port::free()));
    let mut orders = member::sidecar(
        &one.listen,
        &store.dir.path().join("orders"),
        &store.token("orders-token", "default", "orders"),
        "orders",
        &["--service", "orders", "--port", &format!("80={app}"), "--tunnel", &tunnel],
    );
    let client = member::sidecar(
        &two.listen,
        &store.dir.path().join("client"),
        &store.token("client-token", "default", "client"),
        "client",
        &["--workload", "client", "--upstream", &format!("orders=127.0.0.1:{upstream}"), "--tunnel", &other],
    );
    let told = |orders: &Program| {
        let logs = [one.program.log(), two.program.log(), orders.log(), client.log()];
        logs.join("\n---\n")
    };
    let found = wait::poll(Duration::from_secs(60), || {
        asks(upstream, "/").filter(|answer| answer.ends_with("hello"))
    });
    assert!(found.is_some(), "{}", told(&orders));
    // Whoever ends is withdrawn first, and the client's proxy at the other control plane is waited for.
    orders.signal(rustix::process::Signal::TERM);
    orders.wait();
    let log = orders.log();
    let withdrawn = log.lines().find(|line| line.contains("no proxy sends requests here any more"));
    // Its own proxy wants the endpoints of its service, too.
    assert!(withdrawn.is_some_and(|line| line.contains("proxies=2")), "{}", told(&orders));
    let answer = asks(upstream, "/").expect("an answer");
    assert!(answer.contains(" 503 "), "{answer}");
    // What is revoked at the store is refused by both.
    let revoked = store.rhumb(&["cert", "revoke", "spiffe://cluster.local/ns/default/sa/client"]);
    assert_eq!(revoked.code, Some(0), "{}", revoked.output);
    wait::until("its streams end", || two.program.log().contains("revoked").then_some(()));
}
