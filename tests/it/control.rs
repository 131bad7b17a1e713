//! The control plane, as people use it.

use rhumb_testkit::member::{
    self, Operator, application, asks, backend_document as backend, gateway_documents as gateway,
    keep_join_token, service_document,
};
use rhumb_testkit::process::{Finished, Program, Rhumb, finish};
use rhumb_testkit::{port, wait};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A control plane of its own.
pub(crate) struct Control {
    pub(crate) dir: TempDir,
    admin: String,
    operator: Operator,
    pub(crate) listen: String,
    pub(crate) program: Program,
}

impl Control {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// One with more on its command line.
    pub(crate) fn start_with(more: &[&str]) -> Self {
        Self::in_directory_with(tempfile::tempdir().expect("a directory"), more)
    }

    fn in_directory(dir: TempDir) -> Self {
        Self::in_directory_with(dir, &[])
    }

    fn in_directory_with(dir: TempDir, more: &[&str]) -> Self {
        let admin = format!("127.0.0.1:{}", port::free());
        let listen = format!("127.0.0.1:{}", port::free());
        let mut command = Rhumb::command();
        command.arg("control").arg("--directory").arg(dir.path().join("store")).args(["--admin", &admin]);
        command.args(["--listen", &listen]).arg("--authority").arg(dir.path().join("authority"));
        command.arg("--admin-token-file").arg(dir.path().join("token")).args(more);
        let program = Program::start(command, &dir.path().join("log"));
        let operator = Operator::new(&admin, dir.path().join("token"));
        let control = Self { dir, admin, operator, listen, program };
        wait::until("the control plane answers", || (control.rhumb(&["get"]).code == Some(0)).then_some(()));
        control
    }

    pub(crate) fn rhumb(&self, args: &[&str]) -> Finished {
        self.operator.rhumb(args)
    }

    /// The output of a verb that ends well.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let finished = self.rhumb(args);
        assert_eq!(finished.code, Some(0), "{args:?}: {}\n{}", finished.output, self.program.log());
        finished.output
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A sidecar, in a directory of its own.
    fn sidecar(&self, name: &str, args: &[&str]) -> Program {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let token = dir.join("token");
        std::fs::copy(self.token("default", name), &token).expect("a copy");
        member::sidecar(&self.listen, &dir, &token, name, args)
    }

    /// A file with a join token for a service account.
    pub(crate) fn token(&self, namespace: &str, account: &str) -> PathBuf {
        let mut command = Rhumb::command();
        command.args(["token", "create", "--namespace", namespace, "--service-account", account]);
        command.arg("--authority").arg(self.dir.path().join("authority"));
        keep_join_token(&finish(command), self.dir.path().join("token-of-member"))
    }

    pub(crate) fn apply(&self, text: &str, more: &[&str]) -> Finished {
        self.operator.apply(text, more)
    }
}

#[test]
fn documents_are_applied_shown_compared_and_taken_back() {
    let control = Control::start();
    let first = control.apply(&backend(9001), &["--message", "the first"]);
    assert_eq!(first.code, Some(0), "{}", first.output);
    assert!(
        first.output.contains("revision 1") && first.output.contains("Backend/default/users added"),
        "{first:?}"
    );
    assert!(control.apply(&backend(9001), &[]).output.contains("revision 1 says so already"));
    assert!(control.apply(&backend(9002), &["--wait"]).output.contains("it concerns no proxy"));
    let history = control.ok(&["history"]);
    assert!(history.contains("the first") && history.contains("Backend/default/users changed"), "{history}");
    let diff = control.ok(&["diff", "1"]);
    assert!(diff.contains("-   - \"127.0.0.1:9001\"") && diff.contains("+   - \"127.0.0.1:9002\""), "{diff}");
    let dry = control.apply(&backend(9003), &["--dry-run"]);
    assert!(dry.output.contains("+   - \"127.0.0.1:9003\""), "{}", dry.output);
    assert!(
        control.ok(&["get", "Backend", "users", "-o", "yaml"]).contains("127.0.0.1:9002"),
        "nothing was applied"
    );
    assert!(control.ok(&["rollback", "1"]).contains("revision 3"));
    assert!(control.ok(&["get", "Backend", "users", "-o", "json"]).contains("127.0.0.1:9001"));
    assert!(control.ok(&["delete", "Backend", "users"]).contains("removed"));
    assert_eq!(control.rhumb(&["delete", "Backend", "users"]).code, Some(1));
    assert!(control.ok(&["get", "proxies"]).contains("PROXY"));
}

#[test]
fn what_is_in_force_survives_the_process() {
    let mut control = Control::start();
    assert_eq!(control.apply(&backend(9001), &[]).code, Some(0));
    control.program.signal(rustix::process::Signal::TERM);
    assert!(control.program.wait().success(), "{}", control.program.log());
    let Control { dir, .. } = control;
    let control = Control::in_directory(dir);
    assert!(control.ok(&["get"]).contains("users"));
    assert!(control.ok(&["history"]).contains("Backend/default/users added"));
}

#[test]
fn mistakes_are_told_with_their_place_and_change_nothing() {
    let control = Control::start();
    let wrong = control.apply(&backend(9001).replace("endpoints", "endpints"), &[]);
    assert_eq!(wrong.code, Some(3));
    assert!(
        wrong.output.contains("documents.yaml:4") && wrong.output.contains("endpoints"),
        "{}",
        wrong.output
    );
    assert!(!control.ok(&["get"]).contains("users"));
}

#[test]
fn a_change_can_depend_on_the_revision_that_somebody_saw() {
    let control = Control::start();
    assert_eq!(control.apply(&backend(9001), &["--if-revision", "0"]).code, Some(0));
    let late = control.apply(&backend(9002), &["--if-revision", "0"]);
    assert!(late.code != Some(0) && late.output.contains("revision 1 is in force, not 0"), "{late:?}");
    assert!(control.ok(&["get", "-o", "yaml"]).contains("9001"));
}

#[test]
fn the_store_is_for_one_process_and_documents_need_the_token() {
    let control = Control::start();
    let mut second = Rhumb::command();
    second.arg("control").arg("--directory").arg(control.dir.path().join("store"));
    second.args(["--listen", "127.0.0.1:0"]).arg("--authority").arg(control.dir.path().join("other"));
    second.args(["--admin", &format!("127.0.0.1:{}", port::free())]);
    let second = finish(second);
    assert!(
        second.code == Some(1) && second.output.contains("another process has the store open"),
        "{second:?}"
    );
    control.write("other-token", "0123456789abcdef0123456789abcdef");
    let mut stranger = Rhumb::command();
    stranger
        .args(["get", "--admin", &control.admin, "--admin-token-file"])
        .arg(control.dir.path().join("other-token"));
    assert_eq!(finish(stranger).code, Some(1));
}

/// A gateway whose documents come from a control plane.
struct Member {
    program: Program,
    dir: TempDir,
}

impl Member {
    fn start(control: &Control, dir: TempDir, token: Option<&Path>) -> Self {
        Self { program: member::gateway(&[&control.listen], dir.path(), token), dir }
    }
}

#[test]
fn a_gateway_joins_runs_what_is_applied_and_goes_on_alone() {
    let mut control = Control::start();
    let port = port::free();
    assert_eq!(control.apply(&gateway(port, "one"), &[]).code, Some(0));
    let token = control.token("shop", "edge");
    let member = Member::start(&control, tempfile::tempdir().expect("a directory"), Some(&token));
    wait::until("the gateway answers", || {
        asks(port, "/").filter(|answer| answer.ends_with("one")).or_else(|| {
            assert!(!member.program.log().contains("rhumb ends"), "{}", member.program.log());
            None
        })
    });
    // What is applied with --wait holds for the next request.
    for answer in ["two", "three", "four"] {
        let applied = control.apply(&gateway(port, answer), &["--wait"]);
        assert_eq!(applied.code, Some(0), "{}\n{}", applied.output, member.program.log());
        assert!(applied.output.contains("live on 1 proxy"), "{}", applied.output);
        let found = asks(port, "/").expect("an answer");
        assert!(found.ends_with(answer), "{found}");
    }
    // What it cannot use is refused with a reason, and what it has goes on.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("its address").port();
    let refused = control.apply(&gateway(taken, "five"), &["--wait", "--roll-back"]);
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    assert!(
        refused.output.contains("(refused)") && refused.output.contains("revision 6"),
        "{}",
        refused.output
    );
    assert!(asks(port, "/").expect("an answer").ends_with("four"));
    assert!(control.ok(&["get", "proxies"]).contains("gateway/shop/edge/"));
    // Without a control plane: what runs goes on, and what starts begins with what it had.
    let saved = member.dir.path().join("state/documents/resources");
    wait::until("the documents are saved", || {
        std::fs::read(&saved).ok().filter(|saved| saved.windows(4).any(|part| part == b"four"))
    });
    control.program.signal(rustix::process::Signal::TERM);
    assert!(control.program.wait().success(), "{}", control.program.log());
    assert!(asks(port, "/").expect("an answer").ends_with("four"));
    let Member { mut program, dir } = member;
    program.signal(rustix::process::Signal::KILL);
    program.wait();
    let again = Member::start(&control, dir, None);
    wait::until("the gateway answers again", || {
        asks(port, "/").filter(|answer| answer.ends_with("four")).or_else(|| {
            assert!(!again.program.log().contains("rhumb ends"), "{}", again.program.log());
            None
        })
    });
}

#[test]
fn what_gets_worse_among_all_documents_is_told() {
    let control = Control::start();
    let route = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules:
    - backendRefs: [{group: rhumb.dev, kind: Backend, name: nobody}]
";
    let both =
        format!("{}---\n{route}", gateway(port::free(), "one").split("---").next().expect("a Gateway"));
    for more in [&["--dry-run"][..], &[]] {
        let told = control.apply(&both, more);
        assert_eq!(told.code, Some(0), "{}", told.output);
        assert!(told.output.contains("warning: ") && told.output.contains("nobody"), "{}", told.output);
    }
    // Once it is known it is not told again.
    let again = control.apply(&backend(9001), &[]);
    assert!(!again.output.contains("warning: "), "{}", again.output);
}

#[test]
fn trust_domain_and_lifetimes_are_those_of_the_mesh_document() {
    let control = Control::in_directory_with(
        tempfile::tempdir().expect("a directory"),
        &["--trust-domain", "shop.example"],
    );
    // Proxies know the trust domain by the document.
    assert!(control.ok(&["get", "Mesh", "-o", "yaml"]).contains("shop.example"));
    let mesh = |spec: &str| {
        format!("apiVersion: rhumb.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec: {{{spec}}}\n")
    };
    let other = control.apply(&mesh("mtls: strict"), &[]);
    assert!(
        other.code != Some(0) && other.output.contains("write `trustDomain: shop.example`"),
        "{}",
        other.output
    );
    let short = control.apply(&mesh("trustDomain: shop.example, certificates: {rootLifetime: 24h}"), &[]);
    assert!(short.code != Some(0) && short.output.contains("a root lives"), "{}", short.output);
    // Whoever joins with a token need not be told.
    let port = port::free();
    assert_eq!(control.apply(&gateway(port, "one"), &[]).code, Some(0));
    let token = control.token("shop", "edge");
    let member = Member::start(&control, tempfile::tempdir().expect("a directory"), Some(&token));
    wait::until("the gateway answers", || {
        asks(port, "/").filter(|answer| answer.ends_with("one")).or_else(|| {
            assert!(!member.program.log().contains("rhumb ends"), "{}", member.program.log());
            None
        })
    });
    assert!(member.dir.path().join("state/identity/svid.json").exists());
    let wanted = mesh("trustDomain: shop.example, certificates: {leafLifetime: 30m}");
    let applied = control.apply(&wanted, &[]);
    assert_eq!(applied.code, Some(0), "{}", applied.output);
    wait::until("certificates live for half an hour", || {
        let mut command = Rhumb::command();
        command.args(["token", "create", "--life", "45m"]);
        command.arg("--authority").arg(control.dir.path().join("authority"));
        finish(command).output.contains("at most 1800 s").then_some(())
    });
}

#[test]
fn a_service_takes_workloads_of_the_accounts_that_it_names() {
    let control = Control::start();
    let service = "apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {rhumb.dev/service-accounts: orders}}
spec: {ports: [{name: http, port: 80, appProtocol: http}]}
";
    assert_eq!(control.apply(service, &[]).code, Some(0));
    let (tunnel, app) = (format!("127.0.0.1:{}", port::free()), format!("80={}", application("hello")));
    let serves = ["--service", "orders", "--port", &app, "--tunnel", &tunnel];
    let thief = control.sidecar("thief", &serves);
    wait::until("it is refused", || {
        control
            .program
            .log()
            .contains("service account thief may not be an endpoint of default/orders")
            .then_some(())
            .or_else(|| thief.log().contains("service account thief may not").then_some(()))
    });
}

#[test]
fn nobody_gets_a_gateway_that_it_is_not() {
    let control = Control::start();
    let port = port::free();
    assert_eq!(control.apply(&gateway(port, "one"), &[]).code, Some(0));
    let token = control.token("shop", "other");
    let member = Member::start(&control, tempfile::tempdir().expect("a directory"), Some(&token));
    wait::until("it is told why", || member.program.log().contains("service account `edge`").then_some(()));
    assert!(asks(port, "/").is_none());
}

#[test]
fn sidecars_live_on_a_control_plane() {
    // Its trust domain is in the join tokens: nobody has to write it.
    let control = Control::in_directory_with(
        tempfile::tempdir().expect("a directory"),
        &["--trust-domain", "shop.example"],
    );
    let (app, upstream) = (application("hello"), port::free());
    assert_eq!(control.apply(&service_document(app), &[]).code, Some(0));
    let (tunnel, other) = (format!("127.0.0.1:{}", port::free()), format!("127.0.0.1:{}", port::free()));
    let mut orders = control
        .sidecar("orders", &["--service", "orders", "--port", &format!("80={app}"), "--tunnel", &tunnel]);
    let client = control.sidecar(
        "client",
        &["--workload", "client", "--upstream", &format!("orders=127.0.0.1:{upstream}"), "--tunnel", &other],
    );
    let told =
        |orders: &Program| format!("{}\n---\n{}\n---\n{}", control.program.log(), orders.log(), client.log());
    let found = wait::poll(Duration::from_secs(60), || {
        asks(upstream, "/").filter(|answer| answer.ends_with("hello"))
    });
    assert!(found.is_some(), "{}\n{:?}", told(&orders), asks(upstream, "/"));
    let certificate = std::fs::read_to_string(control.dir.path().join("orders/state/svid.json"));
    assert!(certificate.is_ok(), "{}", told(&orders));
    // A policy of the server's side is in force when it is said to be.
    let denied = "apiVersion: rhumb.dev/v1alpha1
kind: Policy
metadata: {name: closed}
spec:
  targetRefs: [{kind: Service, name: orders}]
  policies: {authorization: {rules: [{action: Deny, when: 'true'}]}}
";
    let applied = control.apply(denied, &["--wait"]);
    assert_eq!(applied.code, Some(0), "{}\n{}", applied.output, told(&orders));
    let answer = asks(upstream, "/").expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 403") || answer.starts_with("HTTP/1.1 403"), "{answer}");
    control.ok(&["delete", "Policy", "closed", "--wait"]);
    assert!(asks(upstream, "/").expect("an answer").ends_with("hello"));
    // Whoever ends is withdrawn first.
    orders.signal(rustix::process::Signal::TERM);
    orders.wait();
    assert!(orders.log().contains("no proxy sends requests here any more"), "{}", told(&orders));
    let answer = asks(upstream, "/").expect("an answer");
    assert!(answer.contains(" 503 "), "{answer}");
}
