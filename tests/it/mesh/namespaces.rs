//! The mesh on machines of its own: four network namespaces on one Ethernet, and a sniffer on it.

use super::World;
use crate::l4::postgres::Cluster;
use rhumb_testkit::cert::Validity;
use rhumb_testkit::netns::{Machine, Network, Sniffer};
use rhumb_testkit::process::{Finished, Program, Rhumb, finish, script, succeed};
use rhumb_testkit::wait;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

pub(super) const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Machines, each with a service or a caller.
pub(super) struct Lab {
    pub(super) world: World,
    pub(super) network: Network,
    machines: Vec<(&'static str, Machine)>,
    pub(super) dir: TempDir,
    pub(super) programs: Vec<Program>,
}

/// Services that call one another, each in a language of its own.
const CHAIN: [(&str, [&str; 2], Option<&str>); 3] = [
    ("shop", ["python3", "hop.py"], Some("orders")),
    ("orders", ["node", "hop.mjs"], Some("stock")),
    ("stock", ["python3", "hop.py"], None),
];

/// What a call through all of them brings.
const WHOLE: &str = "shop < orders < stock";

impl Lab {
    /// Machines, and a Service for each that has a port.
    pub(super) fn new(machines: &[(&'static str, Option<&str>)]) -> Self {
        let (network, mut world) = (Network::new(), World::new());
        let made = machines.iter().map(|(name, port)| {
            let machine = network.machine(name);
            if let Some(port) = port {
                world.add(&format!(
                    "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{{port}}}]}}"
                ));
                world.add(&format!(
                    "apiVersion: rhumb.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\n\
                     spec: {{address: {}, serviceAccount: {name}, services: [{name}]}}",
                    machine.address()
                ));
            }
            (*name, machine)
        });
        let machines = made.collect();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bundle.pem"), world.authority.pem()).unwrap();
        Self { world, network, machines, dir, programs: Vec::new() }
    }

    pub(super) fn machine(&self, name: &str) -> &Machine {
        let found = self.machines.iter().find(|(of, _)| *of == name);
        &found.unwrap_or_else(|| panic!("no machine {name}")).1
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a command of the binary on a machine.
    fn start(&mut self, name: &str, inner: &Command) {
        let log = self.path(&format!("{name}.log"));
        let program = Program::start(self.machine(name).enter(inner), &log);
        self.programs.push(program);
    }

    /// The gateway: reachable by whoever is on its machine, and a member of the mesh.
    fn start_gate(&mut self) {
        let documents = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gate}\n\
             spec: {gatewayClassName: rhumb, listeners: [{name: http, port: 8080, protocol: HTTP}]}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: shop}\n\
             spec: {parentRefs: [{name: gate}], rules: [{backendRefs: [{kind: Service, name: shop, port: 80}]}]}\n---\n";
        self.start_process("gate", documents, "workload: {serviceAccount: gate}");
    }

    /// A proxy without an application of its own: what its Sidecar says is all that it does.
    pub(super) fn start_proxy(&mut self, name: &str, sidecar: &str) {
        self.start_process(name, "", sidecar);
    }

    fn start_process(&mut self, name: &str, documents: &str, sidecar: &str) {
        let home = self.home(name);
        let text = format!(
            "{documents}apiVersion: rhumb.dev/v1alpha1\nkind: Sidecar\nmetadata: {{name: {name}}}\n\
             spec: {{{sidecar}, identity: {{certificate: 'file:workload.crt', key: 'file:workload.key', \
             bundle: 'file:../bundle.pem'}}}}\n{}",
            self.world.documents
        );
        std::fs::write(home.join("mesh.yaml"), text).unwrap();
        let mut command = Rhumb::command();
        command
            .arg("run")
            .arg("-c")
            .arg(home.join("mesh.yaml"))
            .arg("--admin-token-file")
            .arg(home.join("token"));
        self.start(name, &command);
    }

    /// An application and its sidecar.
    pub(super) fn start_sidecar(&mut self, name: &str, options: &[&str], application: &Command) {
        self.start_sidecar_under(name, &[], options, application);
    }

    /// The same, started by another program.
    fn start_sidecar_under(&mut self, name: &str, under: &[&str], options: &[&str], application: &Command) {
        let home = self.home(name);
        std::fs::write(home.join("mesh.yaml"), &self.world.documents).unwrap();
        let mut command = Rhumb::command();
        command.args(["sidecar", "-c"]).arg(home.join("mesh.yaml"));
        command.args(["--workload", name, "--service-account", name]).args(options);
        for (option, file) in
            [("certificate", "workload.crt"), ("key", "workload.key"), ("bundle", "../bundle.pem")]
        {
            command.arg(format!("--{option}")).arg(home.join(file));
        }
        command.arg("--admin-token-file").arg(home.join("token"));
        command.arg("--").arg(application.get_program()).args(application.get_args());
        if let [program, arguments @ ..] = under {
            let mut outer = Command::new(program);
            outer.args(arguments).arg(command.get_program()).args(command.get_args());
            command = outer;
        }
        self.start(name, &command);
    }

    /// Captures what a machine sends and gets. Names are asked of somebody who does not answer.
    pub(super) fn intercept(&self, name: &str) {
        self.intercept_with(name, "10.77.0.254");
    }

    fn intercept_with(&self, name: &str, nameserver: &str) {
        self.machine(name).nameservers(&[nameserver]);
        let mut inner = Rhumb::command();
        inner.arg("intercept");
        succeed(self.machine(name).enter(&inner));
    }

    /// Waits until a call brings what it should.
    pub(super) fn until(&self, what: &str, expected: &str, mut call: impl FnMut() -> Finished) {
        let mut last = None;
        let arrived = wait::poll(wait::LIMIT, || {
            let done = call();
            let is_right = done.code == Some(0) && done.output.trim() == expected;
            last = Some(done);
            is_right.then_some(())
        });
        assert!(arrived.is_some(), "{what}: {last:?}\n{}", self.logs());
    }

    /// The directory of a workload, with its identity.
    fn home(&self, name: &str) -> PathBuf {
        let home = self.path(name);
        std::fs::create_dir(&home).unwrap();
        self.world.identity(name).write(&home, "workload");
        home
    }

    pub(super) fn curl(&self, from: &str, url: &str) -> Finished {
        let mut command = self.machine(from).command("curl");
        command.args(["-sS", "--max-time", "60", url]);
        finish(command)
    }

    pub(super) fn logs(&self) -> String {
        self.programs.iter().map(Program::log).collect::<Vec<_>>().join("\n---\n")
    }
}

/// A program of a chain, with its arguments.
fn hop(name: &str, program: [&str; 2], further: Option<&str>) -> Command {
    let mut command = Command::new(program[0]);
    command.arg(format!("{PEERS}/{}", program[1])).args([name, "9000"]).args(further);
    command
}

const WEB: &str = "port: 80, targetPort: 9000, appProtocol: http";

#[test]
fn a_call_crosses_four_machines_and_nothing_of_it_can_be_read_on_the_way() {
    let mut lab =
        Lab::new(&[("gate", None), ("shop", Some(WEB)), ("orders", Some(WEB)), ("stock", Some(WEB))]);
    for (name, program, calls) in CHAIN {
        let served = ["--service", name, "--port", "80=9000:http"];
        match calls {
            Some(next) => {
                let upstream = format!("{next}=127.0.0.1:7001");
                let options = [&served[..], &["--upstream", &upstream]].concat();
                lab.start_sidecar(name, &options, &hop(name, program, Some("http://127.0.0.1:7001/")));
            }
            None => lab.start_sidecar(name, &served, &hop(name, program, None)),
        }
    }
    lab.start_gate();
    let sniffer = lab.network.sniff();
    lab.until("a call through the gateway", WHOLE, || lab.curl("gate", "http://127.0.0.1:8080/cart-4711"));
    nothing_was_readable(&sniffer, &["shop", "orders", "stock"]);
    refuses_strangers(&lab);
}

#[test]
fn the_same_services_work_unchanged_when_their_connections_are_intercepted() {
    let mut lab = Lab::new(&[
        ("shop", Some(WEB)),
        // What is spoken is found out.
        ("orders", Some("port: 80, targetPort: 9000")),
        ("stock", Some(WEB)),
    ]);
    for (name, program, calls) in CHAIN {
        lab.intercept(name);
        let further = calls.map(|next| format!("http://{next}.default.svc.cluster.local/"));
        let options = ["--service", name, "--port", "80=9000", "--capture"];
        lab.start_sidecar(name, &options, &hop(name, program, further.as_deref()));
    }
    let sniffer = lab.network.sniff();
    for url in ["http://shop/cart-4711", "http://shop.default/cart-4711"] {
        lab.until("a call by name", WHOLE, || lab.curl("stock", url));
    }
    let mut over_v6 = lab.machine("stock").command("curl");
    over_v6.args(["-sS", "-6", "--max-time", "60", "http://shop/cart-4711"]);
    assert_eq!(succeed(over_v6), WHOLE);
    // By the address of a workload, as clients that look for services themselves.
    let direct = format!("http://{}:9000/cart-4711", lab.machine("orders").address());
    lab.until("a call by address", "orders < stock", || lab.curl("shop", &direct));
    nothing_was_readable(&sniffer, &["shop", "orders", "stock"]);
    refuses_strangers(&lab);
}

#[test]
fn databases_grpc_and_servers_that_speak_first_are_intercepted_without_a_declaration() {
    let mut lab = Lab::new(&[
        ("caller", None),
        ("db", Some("port: 5432")),
        ("greet", Some("port: 2525")),
        ("echo", Some("port: 50051, appProtocol: grpc")),
    ]);
    for name in ["caller", "db", "greet", "echo"] {
        lab.intercept(name);
    }
    let cluster = Cluster::new();
    lab.start_sidecar("db", &["--service", "db", "--port", "5432", "--capture"], &cluster.server(5432));
    let greeting = "import socketserver
class Greet(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b'220 greet-4711\\r\\n')
        for line in self.rfile: self.wfile.write(b'250 ' + line)
socketserver.ThreadingTCPServer(('127.0.0.1', 2525), Greet).serve_forever()";
    let mut greet = Command::new("python3");
    greet.args(["-c", greeting]);
    lab.start_sidecar("greet", &["--service", "greet", "--port", "2525", "--capture"], &greet);
    let grpc: PathBuf = format!("{PEERS}/grpc_peer.py").into();
    let served = ["--service", "echo", "--port", "50051", "--capture"];
    lab.start_sidecar("echo", &served, &script(&grpc, &["server", "50051"]));
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    lab.start_sidecar("caller", &["--capture"], &sleep);
    let sniffer = lab.network.sniff();
    let caller = |inner: &Command| finish(lab.machine("caller").enter(inner));
    for mode in ["disable", "require"] {
        let mut psql = Command::new("psql");
        let target =
            format!("host=db port=5432 user=postgres dbname=postgres connect_timeout=30 sslmode={mode}");
        psql.args(["-X", "-q", "-A", "-t", "-c", "select 'row-' || 4711", &target]);
        lab.until("a row of the database", "row-4711", || caller(&psql));
    }
    let talk = "import socket
s = socket.create_connection(('greet', 2525), 60).makefile('rw', newline='\\r\\n')
first = s.readline().strip(); s.write('HELO there\\r\\n'); s.flush(); print(first, '/', s.readline().strip())";
    let mut client = Command::new("python3");
    client.args(["-c", talk]);
    lab.until("a greeting", "220 greet-4711 / 250 HELO there", || caller(&client));
    let ask = script(&grpc, &["ask", "echo:50051", "Unary", "call-4711"]);
    lab.until("an answer of gRPC", "OK call-4711", || caller(&ask));
    for secret in ["row-4711", "select 'row-'", "220 greet", "HELO there", "call-4711"] {
        assert!(!sniffer.saw(secret.as_bytes()), "{secret} was on the wire");
    }
}

/// The names that TLS asks for are all that was to be read.
fn nothing_was_readable(sniffer: &Sniffer, services: &[&str]) {
    for name in services {
        let asked = format!("80.{name}.default.svc.cluster.local");
        wait::until("the frames are recorded", || sniffer.saw(asked.as_bytes()).then_some(()));
    }
    for secret in ["cart-4711", "shop < ", "orders < stock", "HTTP/1.1", "text/plain"] {
        assert!(!sniffer.saw(secret.as_bytes()), "{secret} was on the wire");
    }
}

/// Nobody gets to a service past its proxy, or through it without an identity.
fn refuses_strangers(lab: &Lab) {
    let stranger = lab.network.machine("stranger");
    let address = lab.machine("orders").address();
    for port in [9000, 15008] {
        let mut command = stranger.command("curl");
        // What speaks TLS may say so.
        command.args(["-sS", "--fail", "--max-time", "60", &format!("http://{address}:{port}/")]);
        let done = finish(command);
        assert_ne!(done.code, Some(0), "port {port}: {}", done.output);
    }
    let shop = "spiffe://cluster.local/ns/default/sa/shop";
    let identities = [
        ("none", None),
        ("of another authority", Some(World::new().identity("shop"))),
        ("expired", Some(lab.world.authority.workload_valid(shop, Validity::Expired))),
        (
            "of another trust domain",
            Some(lab.world.authority.workload("spiffe://elsewhere/ns/default/sa/shop")),
        ),
    ];
    for (at, (what, identity)) in identities.iter().enumerate() {
        let mut command = stranger.command("openssl");
        command.args([
            "s_client",
            "-alpn",
            "h2",
            "-servername",
            "80.orders.default.svc.cluster.local",
            "-ign_eof",
        ]);
        command.args(["-connect", &format!("{address}:15008")]);
        if let Some(identity) = identity {
            let home = lab.path(&format!("stranger-{at}"));
            std::fs::create_dir(&home).unwrap();
            identity.write(&home, "workload");
            command.arg("-cert").arg(home.join("workload.crt")).arg("-key").arg(home.join("workload.key"));
        }
        // In TLS 1.3 a client learns behind its own handshake that it was refused (RFC 8446 §4.4.2.4).
        let told = finish(command).output.to_lowercase();
        assert!(told.contains("alert"), "{what}: {told}");
    }
}

/// A machine with a name server, and a captured workload that asks it.
fn with_names(options: &[&str]) -> (Lab, impl Fn(&Lab, &[&str]) -> String + use<>) {
    let mut lab = Lab::new(&[("shop", Some(WEB)), ("names", None)]);
    let mut names = lab.machine("names").command("python3");
    names.arg(format!("{PEERS}/capture_peer.py")).args(["names", "udp:53", "tcp:53", "tcp:80"]);
    let program = Program::start(names, &lab.path("names.log"));
    wait::until("the name server listens", || program.log().contains("ready").then_some(()));
    lab.programs.push(program);
    let address = lab.machine("names").address().to_string();
    lab.intercept_with("shop", &address);
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    lab.start_sidecar_under("shop", options, &["--capture"], &sleep);
    let dig = |lab: &Lab, arguments: &[&str]| {
        let mut command = lab.machine("shop").command("dig");
        command.args(["+time=30", "+tries=2", "+noall", "+answer", "+comments"]).args(arguments);
        finish(command).output
    };
    wait::until("questions are answered", || {
        dig(&lab, &["+time=1", "+tries=1", "shop"]).contains("NOERROR").then_some(())
    });
    (lab, dig)
}

#[test]
fn names_of_services_are_answered_by_the_sidecar_and_others_by_the_machines_name_server() {
    let (lab, dig) = with_names(&[]);
    let answer = dig(&lab, &["shop", "A"]);
    let found = answer.split_whitespace().find(|word| word.starts_with("240.240."));
    let address = found.unwrap_or_else(|| panic!("{answer}\n{}", lab.logs()));
    for name in ["SHOP", "shop.default", "shop.default.svc", "shop.default.svc.cluster.local"] {
        for transport in ["+notcp", "+tcp"] {
            assert!(dig(&lab, &[transport, name]).contains(address), "{name} {transport}");
        }
    }
    assert!(dig(&lab, &["shop", "AAAA"]).contains("fd72:6875:6d62::"));
    assert!(dig(&lab, &["-x", address]).contains("shop.default.svc.cluster.local."));
    for kind in ["HTTPS", "MX"] {
        let nothing = dig(&lab, &["shop", kind]);
        assert!(nothing.contains("NOERROR") && nothing.contains("ANSWER: 0"), "{nothing}");
    }
    assert!(dig(&lab, &["nobody.default.svc.cluster.local"]).contains("NXDOMAIN"));
    for transport in ["+notcp", "+tcp"] {
        assert!(dig(&lab, &[transport, "example.com", "TXT"]).contains("\"names\""));
    }
}

#[test]
fn a_sidecar_that_may_not_mark_its_sockets_notices_that_its_own_come_back() {
    let bounded = ["setpriv", "--bounding-set=-net_admin,-net_raw"];
    let (lab, dig) = with_names(&bounded);
    let refused = dig(&lab, &["example.com", "TXT"]);
    assert!(refused.contains("REFUSED"), "{refused}");
    // What leads out of the mesh comes back as well, once.
    let url = format!("http://{}/", lab.machine("names").address());
    assert_ne!(lab.curl("shop", &url).code, Some(0));
    let said = lab.logs();
    for told in
        ["sockets cannot be marked", "--exclude-users", "a connection of this process was brought back to it"]
    {
        assert!(said.contains(told), "{told} is not in:\n{said}");
    }
}
