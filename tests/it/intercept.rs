//! `rhumb intercept` in network namespaces: the kernel's own word on where connections were going, heard by a peer that
//! stands in the sidecar's place, with curl and dig as applications.

use rhumb_testkit::netns::{Machine, Network};
use rhumb_testkit::process::{Finished, Program, Rhumb, finish, succeed};
use rhumb_testkit::wait;
use std::process::Command;
use tempfile::TempDir;

/// A user without any privilege.
const NOBODY: &str = "65534";

struct Scene {
    _network: Network,
    app: Machine,
    peer: Machine,
    dir: TempDir,
    _programs: Vec<Program>,
}

impl Scene {
    /// A workload with a peer in its sidecar's place, and another machine with the same peer on port 80 and 53.
    fn new() -> Self {
        let network = Network::new();
        let (app, peer) = (network.machine("app"), network.machine("peer"));
        let server = peer.address().to_string();
        app.nameservers(&[&server, &peer.address_v6().to_string()]);
        let mut scene =
            Self { _network: network, app, peer, dir: tempfile::tempdir().unwrap(), _programs: Vec::new() };
        let sidecar = ["tcp:15001", "tcp:15006", "tcp:15008", "tcp:22", "tcp:15053", "local:15053"];
        scene._programs.push(scene.start(&scene.app, "sidecar", &sidecar));
        scene._programs.push(scene.start(&scene.peer, "peer", &["tcp:80", "tcp:53", "udp:53"]));
        scene
    }

    fn start(&self, machine: &Machine, name: &str, ports: &[&str]) -> Program {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/capture_peer.py");
        let mut command = machine.command("python3");
        command.arg(script).arg(name).args(ports);
        let program = Program::start(command, &self.dir.path().join(format!("{name}.log")));
        wait::until("the peer listens", || program.log().contains("ready").then_some(()));
        program
    }

    fn intercept(&self, arguments: &[&str]) -> Finished {
        let mut inner = Rhumb::command();
        inner.arg("intercept").args(arguments);
        finish(self.app.enter(&inner))
    }

    /// Captures, and the application's calls of these URLs.
    fn calls(&self, arguments: &[&str], urls: &[&str]) -> Vec<String> {
        let done = self.intercept(arguments);
        assert_eq!((done.code, done.output.as_str()), (Some(0), ""));
        urls.iter().map(|url| curl(&self.app, url)).collect()
    }
}

/// What a call brings: the first line of the answer, or curl's exit code.
fn curl(from: &Machine, url: &str) -> String {
    outcome(from.command("curl"), url)
}

fn outcome(mut command: Command, url: &str) -> String {
    let done = finish({
        command.args(["-sS", "-g", "--max-time", "60", url]);
        command
    });
    if done.code == Some(0) { done.output.trim_end().to_owned() } else { format!("curl: {:?}", done.code) }
}

fn dig(from: &Machine, arguments: &[&str]) -> String {
    let mut command = from.command("dig");
    command.args(["+short", "+time=30", "+tries=2", "TXT"]).args(arguments);
    succeed(command).trim().to_owned()
}

#[test]
fn connections_that_leave_arrive_at_the_sidecar_with_their_destination() {
    let scene = Scene::new();
    let (v4, v6) = (scene.peer.address(), scene.peer.address_v6());
    let urls = [
        &format!("http://{v4}/"),
        &format!("http://[{v6}]/"),
        "http://240.240.7.9:5432/",
        "http://192.0.2.1:81/",
    ];
    let seen = scene.calls(&[], &urls);
    assert_eq!(
        seen,
        [
            format!("sidecar 15001 {v4}:80"),
            format!("sidecar 15001 [{v6}]:80"),
            "sidecar 15001 240.240.7.9:5432".to_owned(),
            "sidecar 15001 192.0.2.1:81".to_owned(),
        ]
    );
}

#[test]
fn connections_that_arrive_do_so_at_the_sidecar_except_at_its_own_ports_and_the_shells() {
    let scene = Scene::new();
    assert_eq!(scene.intercept(&[]).code, Some(0));
    let (v4, v6) = (scene.app.address(), scene.app.address_v6());
    assert_eq!(curl(&scene.peer, &format!("http://{v4}:9000/")), format!("sidecar 15006 {v4}:9000"));
    assert_eq!(curl(&scene.peer, &format!("http://[{v6}]:9000/")), format!("sidecar 15006 [{v6}]:9000"));
    for port in [15008, 22] {
        let seen = curl(&scene.peer, &format!("http://{v4}:{port}/"));
        assert!(seen.starts_with(&format!("sidecar {port} ")), "{seen}");
    }
    // What stays on the machine is nobody else's.
    for own in ["127.0.0.1", &v4.to_string()] {
        assert!(curl(&scene.app, &format!("http://{own}:22/")).starts_with("sidecar 22 "));
    }
}

#[test]
fn the_sidecars_own_sockets_pass_by_mark_and_by_user() {
    let scene = Scene::new();
    let peer = scene.peer.address();
    let url = format!("http://{peer}/");
    let captured = format!("sidecar 15001 {peer}:80");
    let direct = |seen: &str| seen.starts_with("peer 80 ");
    assert_eq!(scene.calls(&["--exclude-users", NOBODY], &[&url]), std::slice::from_ref(&captured));
    let nobody = |scene: &Scene| {
        let mut command = scene.app.command("setpriv");
        command.args(["--reuid", NOBODY, "--clear-groups", "curl"]);
        outcome(command, &url)
    };
    assert!(direct(&nobody(&scene)));
    // SO_MARK is 36.
    let marked = "import socket,sys; s=socket.socket(); s.setsockopt(socket.SOL_SOCKET,36,0x5248); \
                  s.connect((sys.argv[1],80)); s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n'); print(s.recv(999).decode())";
    let mut command = scene.app.command("python3");
    command.args(["-c", marked, &peer.to_string()]);
    assert!(succeed(command).contains("peer 80 "));
    // The other way round: of one user only.
    assert!(direct(&scene.calls(&["--include-users", "nobody"], &[&url])[0]));
    assert_eq!(nobody(&scene), captured);
}

#[test]
fn ports_and_blocks_are_included_and_excluded() {
    let scene = Scene::new();
    let (v4, v6) = (scene.peer.address(), scene.peer.address_v6());
    let (url, url_v6) = (format!("http://{v4}/"), format!("http://[{v6}]/"));
    let virtual_url = "http://240.240.7.9/";
    let cases: [(&[&str], [bool; 3]); 6] = [
        (&["--exclude-outbound-ports", "70-80"], [false, false, false]),
        (&["--include-outbound-ports", "80"], [true, true, true]),
        (&["--include-outbound-ports", "81"], [false, false, false]),
        (&["--exclude-cidrs", "10.77.0.0/24"], [false, true, true]),
        (&["--include-cidrs", "fd77::/64"], [false, true, true]),
        (&["--include-cidrs", "192.0.2.0/24"], [false, false, true]),
    ];
    for (arguments, expected) in cases {
        assert_eq!(scene.intercept(arguments).code, Some(0));
        let mut urls = vec![url.as_str(), url_v6.as_str()];
        // Nobody has that address, so it is called only where it is captured.
        if expected[2] {
            urls.push(virtual_url);
        }
        for (url, captured) in urls.iter().zip(expected) {
            let seen = curl(&scene.app, url);
            assert_eq!(seen.starts_with("sidecar 15001 "), captured, "{arguments:?} {url}: {seen}");
        }
    }
    let (app, arguments) =
        (scene.app.address(), ["--include-inbound-ports", "9000-9001", "--exclude-inbound-ports", "9001"]);
    assert_eq!(scene.intercept(&arguments).code, Some(0));
    assert_eq!(curl(&scene.peer, &format!("http://{app}:9000/")), format!("sidecar 15006 {app}:9000"));
    assert_eq!(curl(&scene.peer, &format!("http://{app}:9001/")), "curl: Some(7)");
}

#[test]
fn questions_for_names_arrive_at_the_sidecar_over_udp_and_tcp() {
    let scene = Scene::new();
    assert_eq!(dig(&scene.app, &["a.example"]), "\"peer\"");
    assert_eq!(scene.intercept(&[]).code, Some(0));
    let v6 = format!("@{}", scene.peer.address_v6());
    for arguments in
        [&["a.example"][..], &["+tcp", "a.example"], &[&v6, "a.example"], &["+tcp", &v6, "a.example"]]
    {
        assert_eq!(dig(&scene.app, arguments), "\"sidecar\"", "{arguments:?}");
    }
    assert_eq!(scene.intercept(&["--no-dns"]).code, Some(0));
    assert_eq!(dig(&scene.app, &["a.example"]), "\"peer\"");
}

#[test]
fn the_sidecars_questions_are_not_mistaken_for_those_that_the_application_has_just_asked() {
    let scene = Scene::new();
    assert_eq!(scene.intercept(&[]).code, Some(0));
    // From one port: first without the mark, then with it. Without a zone of its own the second would follow the first.
    let both = "import socket,sys
for mark in (0, 0x5248):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if mark: s.setsockopt(socket.SOL_SOCKET, 36, mark)
    s.bind(('', 40053))
    s.settimeout(60)
    s.sendto(b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\1a\\0\\0\\x10\\0\\1', (sys.argv[1], 53))
    print(next(name for name in ('sidecar', 'peer') if s.recv(999, socket.MSG_PEEK).endswith(name.encode())))
    s.close()";
    let mut command = scene.app.command("python3");
    command.args(["-c", both, &scene.peer.address().to_string()]);
    assert_eq!(succeed(command), "sidecar\npeer\n");
}

#[test]
fn it_can_be_repeated_and_taken_away() {
    let scene = Scene::new();
    let url = format!("http://{}/", scene.peer.address());
    let rules = || {
        let mut command = scene.app.command("nft");
        command.args(["list", "ruleset"]);
        succeed(command)
    };
    scene.calls(&[], &[]);
    let first = rules();
    scene.calls(&[], &[]);
    assert_eq!(rules(), first);
    scene.calls(&["--remove"], &[]);
    assert_eq!(rules(), "");
    assert!(scene.calls(&["--remove"], &[&url])[0].starts_with("peer 80 "));
}

#[test]
fn a_dry_run_shows_the_rules_and_needs_no_privilege() {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--clear-groups"]).arg(Rhumb::binary());
    command.args(["intercept", "--dry-run", "--exclude-users", "1337", "--dns-servers", "192.0.2.53"]);
    let shown = finish(command);
    // A directory that only its owner may enter hides the binary from others.
    if shown.output.contains("Permission denied") {
        return;
    }
    assert_eq!(shown.code, Some(0), "{}", shown.output);
    assert!(
        shown.output.contains("meta skuid { 1337 } return") && shown.output.contains("192.0.2.53"),
        "{}",
        shown.output
    );
}

#[test]
fn what_hinders_it_is_told_with_what_to_do() {
    let scene = Scene::new();
    let run = |words: &[&str]| {
        let mut command = scene.app.command("setpriv");
        command.args(words).arg(Rhumb::binary()).arg("intercept");
        finish(command)
    };
    let denied = run(&["--bounding-set=-net_admin"]);
    assert_eq!(denied.code, Some(1));
    assert!(denied.output.contains("CAP_NET_ADMIN") && denied.output.contains("sudo"), "{}", denied.output);
    let mut command = scene.app.command("ip");
    command.args(["route", "delete", "default"]);
    succeed(command);
    let lonely = scene.intercept(&[]);
    assert_eq!(lonely.code, Some(0));
    assert!(lonely.output.contains("no default route"), "{}", lonely.output);
    for wrong in
        [["--include-cidrs", "10.0.0.0/99"], ["--exclude-users", "a;b"], ["--exclude-outbound-ports", "0"]]
    {
        assert_eq!(scene.intercept(&wrong).code, Some(2), "{wrong:?}");
    }
}
