//! `rhumb sidecar`: an application's life beside its proxy, with independent programs as applications.

use super::{World, upstream};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::client::get;
use rhumb_testkit::process::{Program, Rhumb, finish};
use rhumb_testkit::{port, wait};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/guest.py");

/// Documents and an identity in files.
struct Home {
    dir: TempDir,
    admin: u16,
}

impl Home {
    fn new(world: &World, account: &str, drain_delay: &str) -> Self {
        let (dir, admin) = (tempfile::tempdir().unwrap(), port::free());
        world.identity(account).write(dir.path(), "workload");
        std::fs::write(dir.path().join("bundle.pem"), world.authority.pem()).unwrap();
        let text = format!(
            "apiVersion: rhumb.dev/v1alpha1\nkind: ProxyConfig\nmetadata: {{name: process}}\n\
             spec: {{workers: 1, admin: {{address: '127.0.0.1:{admin}'}}, timeouts: {{drainDelay: {drain_delay}}}}}\n{}",
            world.documents
        );
        std::fs::write(dir.path().join("mesh.yaml"), text).unwrap();
        Self { dir, admin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary runs beside an application.
    fn sidecar<A: AsRef<OsStr>>(
        &self,
        options: &[&str],
        application: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Rhumb::command();
        command.arg("sidecar").arg("-c").arg(self.path("mesh.yaml")).args(options);
        for (option, file) in
            [("certificate", "workload.crt"), ("key", "workload.key"), ("bundle", "bundle.pem")]
        {
            command.arg(format!("--{option}")).arg(self.path(file));
        }
        command.arg("--admin-token-file").arg(self.path("token"));
        command.arg("--").args(application);
        command
    }

    fn run(&self, options: &[&str], application: &[&str]) -> (Option<i32>, String) {
        let done = finish(self.sidecar(options, application));
        (done.code, done.output)
    }

    fn is_ready(&self) -> bool {
        get(([127, 0, 0, 1], self.admin).into(), "localhost", "/readyz").status() == 200
    }
}

fn notes(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_sidecar_that_is_killed_takes_its_application_along() {
    let mut world = World::new();
    world.serve("orders", 8080, "", ([127, 0, 0, 1], 1).into());
    let home = Home::new(&world, "report", "0s");
    let told = home.path("told");
    let script =
        format!("trap 'echo told > {}; exit 0' TERM; echo $$; while :; do sleep 0.05; done", told.display());
    let mut sidecar = Program::start(home.sidecar(&[], ["sh", "-c", &script]), &home.path("log"));
    wait::until("the application runs", || sidecar.log().contains("the application starts").then_some(()));
    let log = sidecar.log();
    let pid = log.split("pid=").nth(1).and_then(|rest| rest.split(' ').next()).expect("its id").to_owned();
    // The shell says so once its trap is set.
    wait::until("it has begun", || sidecar.log().lines().any(|line| line == pid).then_some(()));
    sidecar.signal(Signal::KILL);
    sidecar.wait();
    wait::until("it was told to end", || (notes(&told) == ["told"]).then_some(()));
}

#[test]
fn a_job_finds_its_way_open_and_its_end_is_the_sidecars() {
    let backend = Backend::start();
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    let _server = world.sidecar_of(&orders);
    let home = Home::new(&world, "report", "0s");
    let (listen, address) = upstream();
    let options = ["--upstream", &format!("orders={address}")];
    // The first thing it does is to call.
    let url = format!("http://127.0.0.1:{listen}/first");
    let (code, output) = home.run(&options, &["curl", "-sS", "--fail", &url]);
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(backend.seen()[0].message.target(), "/first");
    assert_eq!(home.run(&options, &["sh", "-c", "exit 7"]).0, Some(7));
    assert_eq!(home.run(&options, &["sh", "-c", "kill -9 $$"]).0, Some(137));
}

#[test]
fn an_application_may_open_as_many_files_as_without_a_sidecar() {
    let home = Home::new(&World::new(), "report", "0s");
    let script = "until [ $(ulimit -Sn) = 256 ]; do :; done; exit 4";
    let inner = home.sidecar(&[], ["sh", "-c", script]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args());
    assert_eq!(finish(command).code, Some(4));
}

#[test]
fn an_application_that_does_not_start_ends_the_sidecar_and_says_why() {
    let world = World::new();
    let home = Home::new(&world, "report", "60s");
    let (code, output) = home.run(&[], &["./no-such-program"]);
    assert_eq!(code, Some(127), "{output}");
    assert!(output.contains("no program ./no-such-program"), "{output}");
    let text = home.path("mesh.yaml");
    let (code, output) = home.run(&[], &[text.to_str().unwrap()]);
    assert_eq!(code, Some(126), "{output}");
    assert!(output.contains("may not be executed"), "{output}");
    // A sidecar that does not start starts no application.
    let mark = home.path("mark");
    let (code, output) = home.run(&["--upstream", "nobody=127.0.0.1:1"], &["touch", mark.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{output}");
    assert!(output.contains("no Service `nobody`") && !mark.exists(), "{output}");
}

#[test]
fn at_the_end_callers_are_told_before_the_application_and_its_calls_are_carried_until_it_is_gone() {
    let (backend, served) = (Backend::start(), Backend::start());
    let mut world = World::new();
    let orders = world.serve("orders", 8080, ", appProtocol: http", backend.address());
    let web = world.serve("web", 8080, ", appProtocol: http", served.address());
    let _server = world.sidecar_of(&orders);
    // Longer than a test may last: a second signal cuts it short.
    let home = Home::new(&world, "web", "3600s");
    let (listen, address) = upstream();
    let file = home.path("notes");
    let url = format!("http://127.0.0.1:{listen}/last");
    let application = [OsStr::new("python3"), OsStr::new(GUEST), file.as_os_str(), OsStr::new(&url)];
    let options = [
        "--service",
        "web",
        "--port",
        &format!("8080={}", served.address().port()),
        "--tunnel",
        &format!("127.0.0.1:{}", web.tunnel),
        "--upstream",
        &format!("orders={address}"),
    ];
    let mut sidecar = Program::start(home.sidecar(&options, application), &home.path("log"));
    let saw = |expected: &[&str]| {
        wait::until(&format!("the application notes {expected:?}"), || {
            (notes(&file) == expected).then_some(())
        });
    };
    saw(&["ready"]);
    // Signals that are the application's.
    for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        sidecar.signal(signal);
        wait::until(name, || notes(&file).iter().any(|note| note == name).then_some(()));
    }
    let before = ["ready", "SIGHUP", "SIGUSR1", "SIGUSR2"];
    let (callers_port, callers) = upstream();
    let _caller = world.caller("other", &[(&web, callers_port)]);
    assert_eq!(get(callers, "web", "/").status(), 200);
    assert!(home.is_ready());
    sidecar.signal(Signal::TERM);
    wait::until("callers are told", || (!home.is_ready()).then_some(()));
    // It is served as before, and knows nothing yet.
    assert_eq!(get(callers, "web", "/").status(), 200);
    saw(&before);
    sidecar.signal(Signal::TERM);
    let status = sidecar.wait();
    assert_eq!(status.code(), Some(5), "{}", sidecar.log());
    assert_eq!(notes(&file)[before.len()..], ["SIGTERM", "200"]);
    assert_eq!(backend.seen()[0].message.target(), "/last");
}

#[test]
fn as_the_first_process_of_a_container_it_collects_what_is_left_to_it() {
    let world = World::new();
    let home = Home::new(&world, "web", "0s");
    // Orphans tell their ids and end; a process that nobody collects stays in /proc.
    let script = "cd \"$0\"; for n in 1 2 3; do (sh -c \"echo \\$\\$ >orphan$n\" &); done
        for n in 1 2 3; do
            until [ -s orphan$n ]; do :; done
            while [ -e /proc/$(cat orphan$n) ]; do :; done
        done
        [ $PPID = 1 ] && exit 9";
    let inner = home
        .sidecar(&[], [OsStr::new("sh"), OsStr::new("-c"), OsStr::new(script), home.dir.path().as_os_str()]);
    let mut command = Command::new("unshare");
    command
        .args(["--fork", "--pid", "--mount-proc", "--kill-child"])
        .arg(inner.get_program())
        .args(inner.get_args());
    let done = finish(command);
    assert_eq!(done.code, Some(9), "{}", done.output);
}
