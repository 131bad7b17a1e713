//! The egress gateway on machines of its own: a workload that may not leave by itself, the gateway, and a host outside.

use super::namespaces::Lab;
use rhumb_testkit::netns::Machine;
use rhumb_testkit::process::{Finished, Program, finish, succeed};
use rhumb_testkit::wait;
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;

/// What the Mesh says about the gateway.
const LISTED: &str = "egress: deny, egressGateway: {service: egress, destinations: [api.example.com, secret.example.com, \
                      internal.example.com, BLOCK]}";

/// Whoever may not: everybody, but the account of `web` and one name.
const RULES: &str = "apiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {name: who-may-leave}\nspec:\n  \
                     targetRefs: [{kind: Service, name: egress}]\n  policies:\n    authorization:\n      rules:\n        \
                     - {name: web, when: \"source.serviceAccount == 'web' && destination.port in [80, 443, 2525]\"}\n        \
                     - {name: secret, action: Deny, when: \"destination.host == 'secret.example.com'\"}";

/// Talks to a host outside for as long as it is let, and writes down each answer.
pub(crate) const TALKER: &str = "import socket, sys, time
s = socket.create_connection((sys.argv[1], 2525), 60).makefile('rw', newline='\\r\\n')
try:
    print(s.readline().strip(), flush=True)
    while True:
        s.write('HELO there\\r\\n'); s.flush()
        if not s.readline(): break
        print('heard', flush=True); time.sleep(0.05)
except OSError: pass
print('ended', flush=True)";

/// Somebody who talks to a host outside.
pub(crate) struct Talker(Program);

impl Talker {
    pub(crate) fn start(machine: &Machine, host: &str, log: &Path) -> Self {
        let mut command = machine.command("python3");
        command.args(["-c", TALKER, host]);
        let talker = Self(Program::start(command, log));
        talker.goes_on();
        talker
    }

    /// Waits until it has heard more.
    pub(crate) fn goes_on(&self) {
        let heard = || self.0.log().matches("heard").count();
        let before = heard();
        wait::until("somebody talks to a host outside", || {
            assert!(!self.0.log().contains("ended"), "{}", self.0.log());
            (heard() > before).then_some(())
        });
    }

    /// Waits until it is not let any more.
    pub(crate) fn ends(&self) {
        wait::until("the connection out of the mesh is cut", || self.0.log().contains("ended").then_some(()));
    }
}

struct Scene {
    lab: Lab,
    /// Of the host outside.
    outside: String,
}

impl Scene {
    /// The gateway and the host outside run; `web` is captured, and its network lets nothing of it get there.
    fn new(mesh: &str) -> Self {
        let mut lab =
            Lab::new(&[("web", None), ("batch", None), ("egress", Some("port: 443")), ("outside", None)]);
        let outside = lab.machine("outside").address().to_string();
        let mesh = mesh.replace("BLOCK", &format!("{outside}/32"));
        lab.world.add(&format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: Mesh\nmetadata: {{name: mesh}}\nspec: {{{mesh}}}"
        ));
        lab.world.add(RULES);
        let identity = lab.world.authority.server(&["api.example.com"]);
        let (crt, key) = identity.write(lab.dir.path(), "outside");
        let mut peer = lab.machine("outside").command("python3");
        peer.arg(format!("{}/outside_peer.py", super::namespaces::PEERS)).arg(&outside).arg(crt).arg(key);
        let program = Program::start(peer, &lab.path("outside.log"));
        wait::until("the host outside listens", || program.log().contains("ready").then_some(()));
        lab.programs.push(program);
        lab.machine("egress").nameservers(&[&outside]);
        lab.start_proxy(
            "egress",
            "workload: {serviceAccount: egress}, inbound: [{service: egress, port: 443}]",
        );
        for name in ["web", "batch"] {
            shut(&lab, name, &outside);
        }
        Self { lab, outside }
    }

    fn start_web(&mut self) {
        self.lab.intercept("web");
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        self.lab.start_sidecar("web", &["--capture"], &sleep);
    }

    fn curl(&self, url: &str) -> Finished {
        self.lab.curl("web", url)
    }

    fn talk(&self, host: &str) -> Talker {
        Talker::start(self.lab.machine("web"), host, &self.lab.path(&format!("talk-{host}.log")))
    }

    /// Writes something else into the documents of the gateway.
    fn change(&self, before: &str, after: &str) {
        let path = self.lab.path("egress/mesh.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(before), "{text}");
        let fresh = self.lab.path("egress/mesh.yaml.new");
        std::fs::write(&fresh, text.replace(before, after)).unwrap();
        std::fs::rename(fresh, path).unwrap();
    }

    /// Waits until the gateway says why it refused something.
    fn told(&self, expected: &[&str]) {
        let told = wait::poll(wait::LIMIT, || {
            let logs = self.lab.logs();
            logs.lines().any(|line| expected.iter().all(|word| line.contains(word))).then_some(())
        });
        assert!(told.is_some(), "{expected:?} is not told:\n{}", self.lab.logs());
    }

    /// Where the connections that came to the host outside were from.
    fn sources(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.lab.path("outside.log")).unwrap();
        let mut sources: Vec<_> =
            log.lines().filter_map(|line| Some(line.strip_prefix("from ")?.to_owned())).collect();
        sources.sort();
        sources.dedup();
        sources
    }
}

/// Lets nothing that a machine sends get to an address.
fn shut(lab: &Lab, name: &str, address: &str) {
    for rule in [
        "add table ip shut".to_owned(),
        "add chain ip shut out { type filter hook output priority 10; }".to_owned(),
        format!("add rule ip shut out ip daddr {address} drop"),
    ] {
        let mut nft = lab.machine(name).command("nft");
        nft.arg(rule);
        succeed(nft);
    }
}

#[test]
fn what_leaves_the_mesh_goes_through_the_egress_gateway_by_name_and_nothing_past_it() {
    let mut scene = Scene::new(LISTED);
    scene.start_web();
    let gateway = scene.lab.machine("egress").address().to_string();
    let sniffer = scene.lab.network.sniff();
    let lab = &scene.lab;
    lab.until("HTTP by name", &format!("api.example.com from {gateway}"), || {
        scene.curl("http://api.example.com/")
    });
    let bundle = lab.path("bundle.pem");
    let mut secure = lab.machine("web").command("curl");
    secure.args(["-sS", "--max-time", "60", "https://api.example.com/", "--cacert"]).arg(bundle);
    assert_eq!(succeed(secure).trim(), format!("api.example.com from {gateway}"));
    // By address, which is listed as a block; the name in the request is not the one that decides there.
    let by_address = scene.curl(&format!("http://{}/", scene.outside));
    assert_eq!(by_address.output.trim(), format!("{} from {gateway}", scene.outside), "{}", lab.logs());
    let talk = "import socket
s = socket.create_connection(('api.example.com', 2525), 60).makefile('rw', newline='\\r\\n')
first = s.readline().strip(); s.write('HELO there\\r\\n'); s.flush(); print(first, '/', s.readline().strip())";
    let mut client = lab.machine("web").command("python3");
    client.args(["-c", talk]);
    assert_eq!(succeed(client).trim(), "220 greet-4711 / 250 HELO there");
    assert_eq!(scene.sources(), [gateway]);
    // What web asked for was on the wire from it to the gateway, and not to be read.
    assert!(!sniffer.saw(b"HELO there\r\n220"));
    // Its names were asked for at the gateway alone.
    let asked = std::fs::read_to_string(lab.path("outside.log")).unwrap();
    assert!(asked.contains("asked api.example.com"), "{asked}");
}

#[test]
fn the_egress_gateway_refuses_what_is_not_listed_what_policies_deny_and_what_leads_to_itself() {
    let mut scene = Scene::new(LISTED);
    scene.start_web();
    let gateway = scene.lab.machine("egress").address().to_string();
    scene.lab.until("a call that may leave", &format!("api.example.com from {gateway}"), || {
        scene.curl("http://api.example.com/")
    });
    // Not listed: its own proxy refuses it, with its name, which it asks for with its first bytes.
    let mut other = scene.lab.machine("web").command("curl");
    other.args([
        "-sS",
        "--max-time",
        "60",
        "--resolve",
        "www.example.com:80:192.0.2.1",
        "http://www.example.com/",
    ]);
    assert_ne!(finish(other).code, Some(0));
    scene.told(&["www.example.com:80", "its Mesh does not let it out"]);
    for (url, why) in [
        ("http://secret.example.com/", "no policy of the egress gateway allows it"),
        ("http://api.example.com:8080/", "no policy of the egress gateway allows it"),
        ("http://internal.example.com/", "its addresses are those of the gateway itself"),
    ] {
        assert_ne!(scene.curl(url).code, Some(0), "{url}");
        let host = url.trim_start_matches("http://").trim_end_matches('/');
        scene.told(&["spiffe://cluster.local/ns/default/sa/web", host, why]);
    }
    // Somebody else who may not, in the explicit way.
    let upstream = "workload: {serviceAccount: batch}, \
                    upstreams: [{host: api.example.com:80, listen: '127.0.0.1:7001'}]";
    scene.lab.start_proxy("batch", upstream);
    wait::until("the proxy of batch refuses", || {
        let done = scene.lab.curl("batch", "http://127.0.0.1:7001/");
        assert_ne!(done.code, Some(0));
        scene.lab.logs().contains("spiffe://cluster.local/ns/default/sa/batch").then_some(())
    });
    // A proxy that does not ask itself is kept in by the gateway.
    let mut stranger = scene.lab.machine("batch").enter(&rhumb_testkit::process::script(
        format!("{}/hbone_peer.py", super::namespaces::PEERS).as_ref(),
        &[],
    ));
    let home = scene.lab.path("web");
    stranger
        .arg(format!("{gateway}:15008"))
        .arg("www.example.com:80")
        .arg(home.join("workload.crt"))
        .arg(home.join("workload.key"))
        .arg(scene.lab.path("bundle.pem"))
        .arg("/");
    let seen = finish(stranger);
    assert!(seen.output.contains("connect 403"), "{seen:?}\n{}", scene.lab.logs());
    scene.told(&["www.example.com:80", "the Mesh does not let it through"]);
    assert_eq!(scene.sources(), [gateway]);
}

#[test]
fn without_the_egress_gateway_nothing_leaves() {
    let mut scene = Scene::new("egressGateway: {service: egress}");
    scene.start_web();
    let gateway = scene.lab.machine("egress").address().to_string();
    scene.lab.until("a call through the gateway", &format!("www.example.com from {gateway}"), || {
        scene.curl("http://www.example.com/")
    });
    let gate = scene.lab.programs.get_mut(1).expect("the gateway was started behind the host outside");
    gate.signal(Signal::KILL);
    gate.wait();
    for url in ["http://www.example.com/".to_owned(), format!("http://{}/", scene.outside)] {
        assert_ne!(scene.curl(&url).code, Some(0), "{url}");
    }
    scene.told(&["www.example.com:80", "cannot be made"]);
    assert_eq!(scene.sources(), [gateway]);
}

#[test]
fn a_workload_calls_a_host_outside_at_an_address_of_its_own_through_the_gateway() {
    let mut scene = Scene::new(LISTED);
    let gateway = scene.lab.machine("egress").address().to_string();
    let upstream = "workload: {serviceAccount: web}, \
                    upstreams: [{host: API.example.com:80, listen: '127.0.0.1:7001'}]";
    scene.lab.start_proxy("web", upstream);
    let call = || scene.lab.curl("web", "http://127.0.0.1:7001/");
    scene.lab.until("a call", &format!("127.0.0.1:7001 from {gateway}"), call);
    assert_eq!(scene.sources(), [gateway]);
}

#[test]
fn connections_through_the_egress_gateway_end_when_they_are_no_longer_allowed_and_others_go_on() {
    let listed = "egress: deny, egressGateway: {service: egress, destinations: [api.example.com, www.example.com, BLOCK]}";
    let mut scene = Scene::new(listed);
    scene.start_web();
    let gateway = scene.lab.machine("egress").address().to_string();
    scene.lab.until("a call that may leave", &format!("api.example.com from {gateway}"), || {
        scene.curl("http://api.example.com/")
    });
    let (api, www) = (scene.talk("api.example.com"), scene.talk("www.example.com"));
    let by_address = scene.talk(&scene.outside);
    // A destination that is listed no more.
    scene.change("destinations: [api.example.com, ", "destinations: [");
    api.ends();
    www.goes_on();
    by_address.goes_on();
    // A policy.
    scene.change("destination.port in [80, 443, 2525]", "destination.host != 'www.example.com'");
    www.ends();
    by_address.goes_on();
    // The gateway as a whole.
    let text = std::fs::read_to_string(scene.lab.path("egress/mesh.yaml")).unwrap();
    let written = text.lines().find(|line| line.contains("egressGateway")).expect("the spec of the Mesh");
    scene.change(written, "spec: {egress: deny}");
    by_address.ends();
    assert_ne!(scene.curl("http://api.example.com/").code, Some(0));
    assert_eq!(scene.sources(), [gateway]);
}
