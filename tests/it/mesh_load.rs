//! Services under load whose control plane dies, and whose every instance is replaced: not one request may fail.
//!
//! All of it on this machine without privileges: instances have loopback addresses of their own, and callers call through
//! addresses of their sidecars. `bench/mesh_run.py` is the same for minutes.

use crate::gate::local;
use rhumb_testkit::client::Client;
use rhumb_testkit::load::{Load, Report};
use rhumb_testkit::message::Kind;
use rhumb_testkit::process::{Finished, Program, Rhumb, finish};
use rhumb_testkit::{port, wait};
use rustix::process::Signal;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// What a sidecar says when callers know of it.
const REGISTERED: &str = "registered at the control plane";

const REQUEST: &str = "GET /cart HTTP/1.1\r\nHost: orders\r\n\r\n";

/// A control plane that is started again where it was.
struct Site {
    dir: TempDir,
    listen: SocketAddr,
    admin: SocketAddr,
    control: Option<Program>,
}

/// An instance of a service.
#[derive(Clone)]
struct Instance {
    service: &'static str,
    name: String,
    /// Its address; each has another one of 127.0.0.0/8.
    address: String,
    /// Where its proxy takes connections.
    tunnel: u16,
    /// Where its application listens.
    application: u16,
    /// What it calls: a service, and where.
    calls: Option<(&'static str, u16)>,
}

impl Site {
    fn new() -> Self {
        let (listen, admin) = (local(port::free()), local(port::free()));
        let mut site = Self { dir: tempfile::tempdir().unwrap(), listen, admin, control: None };
        site.start_control();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start_control(&mut self) {
        let mut command = Rhumb::command();
        command.args(["control", "--listen", &self.listen.to_string(), "--admin", &self.admin.to_string()]);
        command.arg("--directory").arg(self.path("store")).arg("--authority").arg(self.path("authority"));
        command.arg("--admin-token-file").arg(self.path("control-token"));
        self.control = Some(Program::start(command, &self.path("control.log")));
        wait::until("the control plane answers", || (self.rhumb(&["get"]).code == Some(0)).then_some(()));
    }

    /// Ends the control plane without a word.
    fn kill_control(&mut self) {
        if let Some(mut control) = self.control.take() {
            control.signal(Signal::KILL);
            control.wait();
        }
    }

    fn rhumb(&self, arguments: &[&str]) -> Finished {
        let mut command = Rhumb::command();
        command.args(arguments).args(["--admin", &self.admin.to_string(), "--admin-token-file"]);
        command.arg(self.path("control-token"));
        finish(command)
    }

    fn apply(&self, services: &[&str]) {
        let document = |name: &&str| {
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
                 spec: {{ports: [{{name: http, port: 80, appProtocol: http}}]}}\n"
            )
        };
        self.apply_text(&services.iter().map(document).collect::<String>());
    }

    /// Documents that are in force everywhere when this returns.
    fn apply_text(&self, text: &str) {
        let path = self.path("documents.yaml");
        std::fs::write(&path, text).unwrap();
        let done = self.rhumb(&["apply", "--wait=60s", path.to_str().unwrap()]);
        assert_eq!(done.code, Some(0), "{done:?}");
    }

    /// The directory of a workload, with a token for its first start and what is its machine's business.
    fn home(&self, name: &str, account: &str) -> PathBuf {
        let home = self.path(name);
        if home.exists() {
            return home;
        }
        std::fs::create_dir(&home).unwrap();
        let mut create = Rhumb::command();
        create.args(["token", "create", "--namespace", "shop", "--service-account", account, "--authority"]);
        create.arg(self.path("authority"));
        let made = finish(create);
        let token = made.output.lines().find(|line| line.starts_with("rhumb-join-")).expect("a token");
        std::fs::write(home.join("join"), token).unwrap();
        let own = home.join("own");
        std::fs::create_dir(&own).unwrap();
        let text = format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {{name: process}}\n\
             spec: {{workers: 1, timeouts: {{drainDelay: 200ms}}, admin: {{address: '127.0.0.1:{}'}}}}\n",
            port::free()
        );
        std::fs::write(own.join("process.yaml"), text).unwrap();
        home
    }

    /// A sidecar with an application.
    fn sidecar(&self, name: &str, account: &str, options: &[String], application: &Command) -> Program {
        let home = self.home(name, account);
        let mut command = Rhumb::command();
        command.arg("sidecar").arg("-c").arg(home.join("own"));
        command.args(["--control", &self.listen.to_string(), "--namespace", "shop", "--workload", name]);
        command.args(["--service-account", account, "--join-token-file"]).arg(home.join("join"));
        command.arg("--state").arg(home.join("state")).arg("--admin-token-file").arg(home.join("token"));
        command.args(options).arg("--").arg(application.get_program()).args(application.get_args());
        // What an earlier process has said is none of what this one says.
        let log = (0..).map(|number| home.join(format!("log-{number}"))).find(|log| !log.exists());
        Program::start(command, &log.unwrap())
    }

    fn instance(&self, service: &'static str, number: u8, calls: Option<(&'static str, u16)>) -> Instance {
        Instance {
            service,
            name: format!("{service}-{number}"),
            address: format!("127.7.{}.{number}", service.len()),
            tunnel: port::free(),
            application: port::free(),
            calls,
        }
    }

    fn start(&self, instance: &Instance) -> Program {
        let mut hop = Command::new("python3");
        hop.arg(Path::new(PEERS).join("hop.py")).args([&instance.name, &instance.application.to_string()]);
        if let Some((_, at)) = instance.calls {
            hop.arg(format!("http://127.0.0.1:{at}/"));
        }
        self.start_as(instance, &hop)
    }

    fn start_as(&self, instance: &Instance, application_of: &Command) -> Program {
        let Instance { service, name, address, tunnel, application, calls } = instance;
        let mut options: Vec<String> =
            ["--service", service, "--address", address, "--port"].map(str::to_owned).into();
        options.push(format!("80={application}:http"));
        options.extend(["--tunnel".to_owned(), format!("{address}:{tunnel}")]);
        if let Some((next, at)) = calls {
            options.extend(["--upstream".to_owned(), format!("{next}=127.0.0.1:{at}")]);
        }
        let program = self.sidecar(name, service, &options, application_of);
        wait::until("an instance is registered", || program.log().contains(REGISTERED).then_some(()));
        program
    }

    /// A caller of `orders`, and where it calls it.
    fn caller(&self, name: &str, at: u16) -> Program {
        self.caller_of(name, "orders", at)
    }

    fn caller_of(&self, name: &str, service: &str, at: u16) -> Program {
        let mut rest = Command::new("sleep");
        rest.arg("100000");
        self.sidecar(name, "web", &["--upstream".to_owned(), format!("{service}=127.0.0.1:{at}")], &rest)
    }
}

fn answer(at: u16) -> Option<String> {
    let mut client = Client::try_connect(local(at)).ok()?;
    client.try_send(REQUEST).ok()?;
    let answer = client.try_response(Kind::Response).ok()?;
    (answer.status() == 200).then(|| answer.text())
}

/// Load on a caller's address; every answer but a 200 is a failure, and every connection that ends. Who has answered is kept.
fn load(at: u16) -> (Load, Arc<Mutex<HashSet<String>>>) {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let by = Arc::clone(&seen);
    let load = Load::start(local(at), 4, REQUEST, move |answer| {
        if answer.status() != 200 {
            return Some(format!("{}: {}", answer.start, answer.text()));
        }
        by.lock().unwrap().insert(answer.text());
        None
    });
    (load, seen)
}

fn expect_none_failed(report: &Report, logs: &[&Program]) {
    let logs = || logs.iter().map(|program| program.log()).collect::<Vec<_>>().join("\n---\n");
    assert_eq!(report.failed, 0, "of {} requests: {:#?}\n{}", report.good, report.first(), logs());
}

#[test]
fn the_control_plane_is_killed_under_load_and_no_request_fails() {
    let mut site = Site::new();
    site.apply(&["orders"]);
    let (first, second) = (site.instance("orders", 1, None), site.instance("orders", 2, None));
    let _first = site.start(&first);
    let second_program = site.start(&second);
    let (at, other) = (port::free(), port::free());
    let web = site.caller("web", at);
    wait::until("a call", || answer(at));
    // It runs once, so that it has what it needs.
    let earlier = site.caller("late", other);
    wait::until("a call of the other caller", || answer(other));
    wait::until("what it needs is on its disk", || {
        let saved = std::fs::read(site.path("late/state/documents/resources")).unwrap_or_default();
        let has = |what: &[u8]| saved.windows(what.len()).any(|part| part == what);
        ["127.7.6.1", "127.7.6.2", "rhumb.dev/Service", "rhumb.dev/Self"]
            .iter()
            .all(|what| has(what.as_bytes()))
            .then_some(())
    });
    drop(earlier);

    let (load, seen) = load(at);
    load.wait_more(200);
    site.kill_control();
    load.wait_more(300);
    // A proxy that starts has what it had.
    let late = site.caller("late", other);
    wait::until("a call of one that started without a control plane", || answer(other));
    load.wait_more(300);
    site.start_control();
    // What the control plane does not know yet is no reason to forget it: nobody loses an endpoint.
    load.wait_more(300);
    wait::until("both callers are back", || {
        let proxies = site.rhumb(&["get", "proxies"]).output;
        ["sidecar/shop/web", "sidecar/shop/late"].iter().all(|name| proxies.contains(name)).then_some(())
    });
    // A change that is made now arrives.
    let third = site.instance("orders", 3, None);
    let _third = site.start(&third);
    wait::until("a new instance is called", || seen.lock().unwrap().contains("orders-3").then_some(()));
    let report = load.stop();
    expect_none_failed(&report, &[&web, &late, &second_program]);
    assert_eq!(seen.lock().unwrap().len(), 3);
}

#[test]
fn every_instance_of_every_service_is_replaced_under_load_and_no_request_fails() {
    let site = Site::new();
    site.apply(&["orders", "stock"]);
    let instances = [
        site.instance("stock", 1, None),
        site.instance("stock", 2, None),
        site.instance("orders", 1, Some(("stock", port::free()))),
        site.instance("orders", 2, Some(("stock", port::free()))),
    ];
    let mut programs: Vec<Program> = instances.iter().map(|instance| site.start(instance)).collect();
    let at = port::free();
    let web = site.caller("web", at);
    wait::until("a call through both", || answer(at));
    let (load, seen) = load(at);
    for (instance, program) in instances.iter().zip(&mut programs) {
        load.wait_more(100);
        program.signal(Signal::TERM);
        program.wait();
        let log = program.log();
        assert!(log.contains("no proxy sends requests here any more"), "{log}");
        *program = site.start(instance);
    }
    seen.lock().unwrap().clear();
    wait::until("all of the new ones are called", || (seen.lock().unwrap().len() == 4).then_some(()));
    let report = load.stop();
    let shown: Vec<&Program> = std::iter::once(&web).chain(&programs).collect();
    expect_none_failed(&report, &shown);
}

#[test]
fn a_workload_that_is_unwell_is_left_out_until_it_is_well_again_and_no_request_fails() {
    let site = Site::new();
    site.apply(&["orders"]);
    let instances = [site.instance("orders", 1, None), site.instance("orders", 2, None)];
    let workload = |instance: &Instance| {
        format!(
            "---\napiVersion: rhumb.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {}, namespace: shop}}\n\
             spec: {{address: {}, services: [orders], serviceAccount: orders, \
             health: {{path: /healthy, interval: 100ms}}}}\n",
            instance.name, instance.address
        )
    };
    site.apply_text(&instances.iter().map(workload).collect::<String>());
    let unwell = |instance: &Instance| site.path(&format!("{}.unwell", instance.name));
    let start = |instance: &Instance| {
        let mut moody = Command::new("python3");
        moody.arg(Path::new(PEERS).join("moody.py"));
        moody.args([&instance.name, &instance.application.to_string()]).arg(unwell(instance));
        site.start_as(instance, &moody)
    };
    let programs: Vec<Program> = instances.iter().map(start).collect();
    let at = port::free();
    let web = site.caller("web", at);
    wait::until("a call", || answer(at));
    let (load, seen) = load(at);
    // Who answers a number of requests in a row.
    let answering = |wanted: &[&str]| {
        wait::until("the right ones answer", || {
            seen.lock().unwrap().clear();
            load.wait_more(40);
            let seen = seen.lock().unwrap();
            (seen.len() == wanted.len() && wanted.iter().all(|name| seen.contains(*name))).then_some(())
        });
    };
    answering(&["orders-1", "orders-2"]);
    std::fs::write(unwell(&instances[0]), "").unwrap();
    answering(&["orders-2"]);
    std::fs::remove_file(unwell(&instances[0])).unwrap();
    answering(&["orders-1", "orders-2"]);
    // When all are unwell all are asked: that is more than nothing.
    instances.iter().for_each(|instance| std::fs::write(unwell(instance), "").unwrap());
    let told = |program: &Program| program.log().contains("is_unwell=true");
    wait::until("both say so", || programs.iter().all(told).then_some(()));
    answering(&["orders-1", "orders-2"]);
    let report = load.stop();
    expect_none_failed(&report, &[&web, &programs[0], &programs[1]]);
}

#[test]
fn a_workload_that_gets_a_proxy_is_sent_no_plain_text_from_there_on() {
    let site = Site::new();
    let application = port::free();
    let mut moody = Command::new("python3");
    moody.arg(Path::new(PEERS).join("moody.py")).args(["bare", &application.to_string(), "/nonexistent"]);
    let _application = Program::start(moody, &site.path("bare.log"));
    let documents = |mtls: &str, health: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: bare, namespace: shop}}\n\
             spec: {{ports: [{{port: 80, targetPort: {application}, appProtocol: http}}]}}\n---\n\
             apiVersion: rhumb.dev/v1alpha1\nkind: Workload\nmetadata: {{name: bare-1, namespace: shop}}\n\
             spec: {{address: 127.0.0.1, services: [bare], serviceAccount: bare, mtls: {mtls}{health}}}\n"
        )
    };
    site.apply_text(&documents("none", ""));
    let at = port::free();
    let web = site.caller_of("web", "bare", at);
    wait::until("a call in plain text", || answer(at));
    // With a check, and back: the ways that endpoints take into the proxy differ, the answers do not.
    for health in [", health: {path: /healthy}", "", ", health: {type: tcp}"] {
        site.apply_text(&documents("none", health));
        assert_eq!(answer(at).as_deref(), Some("bare"), "{health}: {}", web.log());
    }
    for health in ["", ", health: {path: /healthy}"] {
        site.apply_text(&documents("strict", health));
        // Nobody is where its proxy would be.
        assert_eq!(answer(at), None, "{health}: {}", web.log());
    }
    site.apply_text(&documents("none", ""));
    wait::until("a call in plain text again", || answer(at));
}
