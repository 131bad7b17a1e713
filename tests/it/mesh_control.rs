//! Workloads on machines of their own whose documents come from a control plane, which is taken away under load.

use rhumb_testkit::netns::{Machine, Network};
use rhumb_testkit::process::{Finished, Program, Rhumb, finish, succeed};
use rhumb_testkit::wait;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

pub(crate) const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// What a sidecar says when callers know of it.
pub(crate) const REGISTERED: &str = "registered at the control plane";

/// A control plane and machines.
pub(crate) struct Site {
    pub(crate) network: Network,
    pub(crate) plane: Machine,
    /// What workloads call its host; at first its address.
    pub(crate) plane_host: String,
    control: Option<Program>,
    dir: TempDir,
}

/// An application with its sidecar.
pub(crate) struct Member {
    pub(crate) program: Program,
    home: PathBuf,
}

impl Site {
    pub(crate) fn new() -> Self {
        let network = Network::new();
        let plane = network.machine("plane");
        let (plane_host, dir) = (plane.address().to_string(), tempfile::tempdir().unwrap());
        let mut site = Self { network, plane, plane_host, control: None, dir };
        site.start_control();
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start_control(&mut self) {
        let mut command = Rhumb::command();
        command.args(["control", "--listen", "0.0.0.0:15012", "--directory"]).arg(self.path("store"));
        command.arg("--authority").arg(self.path("authority"));
        command.arg("--admin-token-file").arg(self.path("control-token"));
        self.control = Some(Program::start(self.plane.enter(&command), &self.path("control.log")));
        wait::until("the control plane answers", || (self.rhumb(&["get"]).code == Some(0)).then_some(()));
    }

    /// Ends the control plane without a word.
    fn kill_control(&mut self) {
        if let Some(mut control) = self.control.take() {
            control.signal(rustix::process::Signal::KILL);
            control.wait();
        }
    }

    /// A verb, asked of the control plane.
    pub(crate) fn rhumb(&self, arguments: &[&str]) -> Finished {
        let mut command = Rhumb::command();
        command.args(arguments).arg("--admin-token-file").arg(self.path("control-token"));
        finish(self.plane.enter(&command))
    }

    pub(crate) fn apply(&self, text: &str, more: &[&str]) -> Finished {
        let path = self.path("documents.yaml");
        std::fs::write(&path, text).unwrap();
        let done = self.rhumb(&[&["apply", path.to_str().unwrap()], more].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        done
    }

    /// An application and its sidecar; both begin with nothing but a token.
    pub(crate) fn start(
        &self,
        machine: &Machine,
        name: &str,
        account: &str,
        options: &[&str],
        application: &Command,
    ) -> Member {
        let home = self.path(name);
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("join"), self.token(account)).unwrap();
        self.start_again(machine, name, account, options, application)
    }

    /// A join token for a service account.
    pub(crate) fn token(&self, account: &str) -> String {
        let mut create = Rhumb::command();
        create.args(["token", "create", "--namespace", "shop", "--service-account", account, "--authority"]);
        create.arg(self.path("authority"));
        let made = finish(create);
        made.output.lines().find(|line| line.starts_with("rhumb-join-")).expect("a token").to_owned()
    }

    /// The same with what an earlier process has left.
    fn start_again(
        &self,
        machine: &Machine,
        name: &str,
        account: &str,
        options: &[&str],
        application: &Command,
    ) -> Member {
        let home = self.path(name);
        let mut command = Rhumb::command();
        command.args(["sidecar", "--control", &format!("{}:15012", self.plane_host)]);
        command.args(["--namespace", "shop", "--workload", name, "--service-account", account]);
        command.arg("--join-token-file").arg(home.join("join")).arg("--state").arg(home.join("state"));
        command.arg("--admin-token-file").arg(home.join("token")).args(options).arg("--");
        command.arg(application.get_program()).args(application.get_args());
        let program = Program::start(machine.enter(&command), &home.join("log"));
        Member { program, home }
    }

    /// A service of one port, and a workload of it.
    fn serve(&self, machine: &Machine, name: &str, service: &str) -> Member {
        let served = ["--service", service, "--port", "80=9000:http"];
        let member = self.start(machine, name, service, &served, &hop(name));
        wait::until("a workload is registered", || member.program.log().contains(REGISTERED).then_some(()));
        member
    }
}

impl Member {
    /// What the configuration in force is, as it is logged.
    fn in_force(&self) -> String {
        let log = self.program.log();
        log.lines().rfind(|line| line.contains("configuration is live")).unwrap_or_default().to_owned()
    }
}

pub(crate) fn hop(name: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(format!("{PEERS}/hop.py")).args([name, "9000"]);
    command
}

/// An application that calls nobody by itself.
pub(crate) fn rest() -> Command {
    let mut command = Command::new("sleep");
    command.arg("100000");
    command
}

pub(crate) fn curl(from: &Machine, url: &str) -> Finished {
    let mut command = from.command("curl");
    command.args(["-sS", "-g", "--max-time", "60", url]);
    finish(command)
}

/// Services of a namespace that nobody has asked for.
pub(crate) fn services(names: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    for name in names {
        let _ = writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{ports: [{{name: http, port: 80, targetPort: 9000, appProtocol: http}}]}}"
        );
    }
    text
}

/// A workload whose connections are captured; it has declared nobody whom it calls.
pub(crate) fn captured(site: &Site, machine: &Machine, name: &str) -> Member {
    machine.nameservers(&["10.77.0.254"]);
    let mut intercept = Rhumb::command();
    intercept.arg("intercept");
    succeed(machine.enter(&intercept));
    let member = site.start(machine, name, name, &["--capture"], &rest());
    wait::until("it runs", || member.program.log().contains("configuration is live").then_some(()));
    member
}

#[test]
fn a_captured_workload_reaches_services_that_it_has_not_declared_the_first_time_it_calls_them() {
    let mut site = Site::new();
    let others = (0..40).map(|number| format!("other-{number}"));
    site.apply(&services(["orders".to_owned(), "stock".to_owned()].into_iter().chain(others)), &[]);
    let (orders, stock) = (site.network.machine("orders"), site.network.machine("stock"));
    let _orders = site.serve(&orders, "orders-1", "orders");
    let _stock = site.serve(&stock, "stock-1", "stock");
    let machine = site.network.machine("web");
    let web = captured(&site, &machine, "web");
    assert!(web.in_force().contains(" 0 backends"), "{}", web.in_force());

    let first = curl(&machine, "http://orders.shop.svc.cluster.local/");
    assert_eq!((first.code, &*first.output), (Some(0), "orders-1"), "{}", web.program.log());
    let by_address = curl(&machine, &format!("http://{}:9000/", stock.address()));
    assert_eq!((by_address.code, &*by_address.output), (Some(0), "stock-1"), "{}", web.program.log());
    for url in ["http://orders/", "http://stock.shop/", "http://stock.shop.svc/"] {
        assert_eq!(curl(&machine, url).code, Some(0), "{url}");
    }
    // What is used, and nothing of the forty others.
    assert!(web.in_force().contains(" 2 backends"), "{}", web.in_force());
    // CURLE_COULDNT_RESOLVE_HOST
    assert_eq!(curl(&machine, "http://nobody.shop.svc.cluster.local/").code, Some(6));
    // A virtual address that no service has: refused, never sent anywhere.
    assert_ne!(curl(&machine, "http://240.240.255.254/").code, Some(0));
    // One that comes to be later is found then.
    site.apply(&services(["nobody".to_owned()]), &[]);
    wait::until("the new service has an address", || {
        let done = curl(&machine, "http://nobody.shop.svc.cluster.local/");
        // Nobody is there yet, which its proxy says.
        done.output.contains("no_endpoint").then_some(())
    });

    // Started again without a control plane it has what it used before, as soon as that is on its disk.
    let saved = web.home.join("state/documents/resources");
    wait::until("what it uses is saved", || {
        let saved = std::fs::read(&saved).unwrap_or_default();
        saved.windows(11).any(|name| name == b"nobody.shop").then_some(())
    });
    site.kill_control();
    drop(web);
    let again = site.start_again(&machine, "web", "web", &["--capture"], &rest());
    wait::until("a call by name", || {
        (curl(&machine, "http://orders.shop.svc.cluster.local/").output == "orders-1").then_some(())
    });
    assert_eq!(curl(&machine, "http://stock/").output, "stock-1", "{}", again.program.log());
    assert!(again.home.join("state").is_dir());
}
