//! gRPC clients without a proxy: grpcio's own xDS client asks the control plane and calls services of the mesh.

use crate::control::Control;
use rhumb_testkit::process::{Program, Rhumb, finish, script, serve_script};
use rhumb_testkit::{port, wait};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/grpc_xds.py");

/// The last calls that are looked at when it is said where calls go.
const LAST: usize = 12;

/// A gRPC server that answers with its name.
fn server(control: &Control, name: &str) -> (Program, u16) {
    let port = port::free();
    let log = control.dir.path().join(format!("{name}.server"));
    (serve_script(Path::new(PEER), &["server", &port.to_string(), name], port, &log), port)
}

/// A client that calls over and over.
fn client(
    control: &Control,
    name: &str,
    server: &str,
    certificates: Option<&Path>,
    more: &[(&str, &str)],
) -> Program {
    let mut command = Rhumb::command();
    command.args(["xds-bootstrap", "--server", server, "--namespace", "shop", "--node", name]);
    if let Some(certificates) = certificates {
        command.arg("--certificates").arg(certificates);
    }
    let bootstrap = finish(command);
    assert_eq!(bootstrap.code, Some(0), "{}", bootstrap.output);
    let path = control.write(&format!("{name}.json"), &bootstrap.output);
    let mut command = script(Path::new(PEER), &["watch", "xds:///orders.shop:8080"]);
    command.env("GRPC_XDS_BOOTSTRAP", path).envs(more.iter().copied());
    Program::start(command, &control.dir.path().join(format!("{name}.calls")))
}

/// Waits until the last calls came out as they should, each of them; `among` has every line that there should be.
fn calls(what: &str, control: &Control, client: &Program, among: &[&str]) {
    let ended = wait::poll(Duration::from_secs(60), || {
        let log = client.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().checked_sub(LAST)?..)?;
        let all = last.iter().all(|line| among.iter().any(|word| line.starts_with(word)));
        let each = among.iter().all(|word| last.iter().any(|line| line.starts_with(word)));
        (all && each).then_some(())
    });
    let tail: String = client.log().lines().rev().take(20).map(|line| format!("{line}\n")).collect();
    assert!(ended.is_some(), "{what}\n{tail}\n{}", control.program.log());
}

fn service(name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{ports: [{{name: grpc, port: 8080, {more}appProtocol: grpc}}]}}\n"
    )
}

fn workload(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: rhumb.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{address: 127.0.0.1, services: [orders], ports: {{grpc: {port}}}, mtls: none}}\n"
    )
}

#[test]
fn a_client_without_a_proxy_follows_endpoints_and_is_told_what_it_could_not_enforce() {
    let local = format!("127.0.0.1:{}", port::free());
    let control = Control::start_with(&["--xds", &local]);
    let (_a, a) = server(&control, "A");
    let (_b, b) = server(&control, "B");
    let documents = service("orders", "targetPort: grpc, ") + &workload("a", a);
    assert_eq!(control.apply(&documents, &[]).code, Some(0));
    let client = client(&control, "web", &local, None, &[]);
    calls("the only endpoint answers", &control, &client, &["OK A"]);
    // What is applied is live at the client when that is said.
    let applied = control.apply(&workload("b", b), &["--wait"]);
    assert_eq!(
        (applied.code, applied.output.contains("live on 1 proxy")),
        (Some(0), true),
        "{}",
        applied.output
    );
    calls("both take their turns", &control, &client, &["OK A", "OK B"]);
    control.ok(&["delete", "Workload", "a", "-n", "shop", "--wait"]);
    calls("the one that is left answers", &control, &client, &["OK B"]);
    let fault = "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: faulty, namespace: shop}\n\
        spec: {targetRefs: [{kind: Service, name: orders}], policies: {fault: {abort: {percent: 1, status: 503}}}}\n";
    assert_eq!(control.apply(fault, &["--wait"]).code, Some(0));
    calls("nobody pretends", &control, &client, &["UNAVAILABLE"]);
    assert!(
        control.program.log().contains("cannot do what `fault` of Policy shop/faulty"),
        "{}",
        control.program.log()
    );
    control.ok(&["delete", "Policy", "faulty", "-n", "shop"]);
    calls("it is offered again", &control, &client, &["OK B"]);
    // Who would have to enforce this is not there.
    let guard = "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: guard, namespace: shop}\n\
        spec: {targetRefs: [{kind: Service, name: orders}], policies: {authorization: {rules: [{when: 'true'}]}}}\n";
    assert_eq!(control.apply(guard, &["--wait"]).code, Some(0));
    calls("nobody would enforce it", &control, &client, &["UNAVAILABLE"]);
}

/// A sidecar that has everything from a control plane.
fn sidecar(control: &Control, service: &str, application: u16) -> Program {
    let dir = control.dir.path().join(service);
    std::fs::create_dir_all(&dir).expect("a directory");
    let token = dir.join("token");
    std::fs::copy(control.token("shop", service), &token).expect("a copy");
    let mut command = Rhumb::command();
    command.current_dir(&dir).args(["sidecar", "--namespace", "shop", "--control", &control.listen]);
    command.arg("--join-token-file").arg(&token).arg("--state").arg(dir.join("state"));
    command.args(["--service-account", service, "--service", service, "--address", "127.0.0.1"]);
    command.args([
        "--port",
        &format!("8080={application}"),
        "--tunnel",
        &format!("127.0.0.1:{}", port::free()),
    ]);
    command.args(["--", "sleep", "600"]);
    Program::start(command, &dir.join("log"))
}

/// An agent for clients, with the directory of its certificate.
fn agent(control: &Control, account: &str) -> (Program, String, PathBuf) {
    let dir = control.dir.path().join(format!("agent-{account}"));
    let (listen, certificates) = (format!("127.0.0.1:{}", port::free()), dir.join("svid"));
    let mut command = Rhumb::command();
    command
        .args(["xds-agent", "--control", &control.listen, "--listen", &listen])
        .arg("--state")
        .arg(dir.join("state"));
    command
        .arg("--join-token-file")
        .arg(control.token("shop", account))
        .arg("--certificates")
        .arg(&certificates);
    let agent = Program::start(command, &control.dir.path().join(format!("{account}.agent")));
    wait::until("the agent has a certificate", || {
        agent.log().contains("gRPC clients of this machine connect here").then_some(())
    });
    (agent, listen, certificates)
}

#[test]
fn with_a_certificate_of_the_mesh_it_reaches_meshed_services_by_its_identity() {
    let control = Control::start();
    let (_a, a) = server(&control, "A");
    let (_b, b) = server(&control, "B");
    let documents =
        service("orders", &format!("targetPort: {a}, ")) + &service("canary", &format!("targetPort: {b}, "));
    assert_eq!(control.apply(&documents, &[]).code, Some(0));
    let _orders = sidecar(&control, "orders", a);
    let _canary = sidecar(&control, "canary", b);
    let (_agent, local, certificates) = agent(&control, "web");
    let web = client(&control, "web", &local, Some(&certificates), &[]);
    calls("the service is reached", &control, &web, &["OK A"]);
    // A client that understands it is told why.
    let data_errors = [("GRPC_EXPERIMENTAL_XDS_DATA_ERROR_HANDLING", "true")];
    let open = client(&control, "open", &local, None, &data_errors);
    calls("who can prove nothing is not let in", &control, &open, &["UNAVAILABLE"]);
    wait::until("it says why", || open.log().contains("take mutual TLS only").then_some(()));
    // A part of the calls goes elsewhere, where the authority is not what the client wrote.
    let split = |orders: u32, canary: u32| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: split, namespace: shop}}\n\
             spec:\n  parentRefs: [{{group: '', kind: Service, name: orders}}]\n  rules:\n\
             \x20   - backendRefs: [{{name: orders, port: 8080, weight: {orders}}}, {{name: canary, port: 8080, weight: {canary}}}]\n"
        )
    };
    assert_eq!(control.apply(&split(1, 1), &["--wait"]).code, Some(0));
    calls("both versions are called", &control, &web, &["OK A", "OK B"]);
    assert_eq!(control.apply(&split(0, 1), &["--wait"]).code, Some(0));
    calls("the other version alone is called", &control, &web, &["OK B"]);
    assert_eq!(control.apply(&split(1, 0), &["--wait"]).code, Some(0));
    calls("the first version alone is called", &control, &web, &["OK A"]);
    let denied = "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: closed, namespace: shop}\n\
        spec: {targetRefs: [{kind: Service, name: orders}],\n\
        \x20 policies: {authorization: {rules: [{action: Deny, when: \"source.serviceAccount == 'web'\"}, {when: 'true'}]}}}\n";
    assert_eq!(control.apply(denied, &["--wait"]).code, Some(0));
    calls("the proxy of the service denies it", &control, &web, &["PERMISSION_DENIED"]);
    control.ok(&["delete", "Policy", "closed", "-n", "shop"]);
    calls("it is allowed again", &control, &web, &["OK A"]);
}

#[test]
fn plain_text_is_not_offered_to_other_machines() {
    let mut command: Command = Rhumb::command();
    command.args(["control", "--xds", "0.0.0.0:15013"]);
    let refused = finish(command);
    assert_eq!(refused.code, Some(2), "{}", refused.output);
    assert!(refused.output.contains("rhumb xds-agent"), "{}", refused.output);
}
