//! Programs that tests start: the proxy, nginx, scripts. Each is ended when its handle goes, its output kept in a
//! file and shown when a test fails.

use crate::client::Client;
use crate::config::Config;
use crate::message::Message;
use crate::{port, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tempfile::TempDir;

/// How long a program may live: a test that hangs is ended and named by its output.
const LIFETIME: Duration = Duration::from_secs(400);

/// Bytes of the end of a log that a failing test shows.
const SHOWN: usize = 16 * 1024;

/// A started program.
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
    /// Dropped with the handle, which ends the watchdog.
    _alive: Sender<()>,
}

impl Program {
    /// Starts a command; both outputs go to `log`.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let out = File::options().create(true).append(true).open(log).expect("a writable log");
        let err = out.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap_or_else(|error| {
            panic!("{} does not start: {error}", command.get_program().to_string_lossy())
        });
        let (alive, gone) = channel::<()>();
        let (pid, log_of, name_of) = (Pid::from_child(&child), log.to_owned(), name.clone());
        std::thread::spawn(move || {
            if gone.recv_timeout(LIFETIME) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process(pid, Signal::KILL);
                eprintln!(
                    "{name_of} was still running after {LIFETIME:?}; its output ended with:\n{}",
                    tail(&log_of)
                );
                std::process::abort();
            }
        });
        Self { child, name, log: log.to_owned(), _alive: alive }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is there");
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child")
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let what = format!("{} ends; output: {}", self.name, self.log());
        wait::until(&what, || self.ended())
    }

    /// Everything written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// Open file descriptors.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    fn status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    }
}

/// What a program that ran to its end left behind.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, then standard error.
    pub output: String,
}

/// Runs a program to its end.
pub fn finish(command: Command) -> Finished {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut program = Program::start(command, &dir.path().join("output"));
    let name = program.name.clone();
    let status = wait::until_within(LIFETIME, &format!("{name} ends"), || program.ended());
    Finished { code: status.code(), output: program.log() }
}

/// Runs a program that must succeed; its output.
pub fn succeed(command: Command) -> String {
    let shown = format!("{command:?}");
    let finished = finish(command);
    assert_eq!(finished.code, Some(0), "{shown}:\n{}", finished.output);
    finished.output
}

impl Drop for Program {
    fn drop(&mut self) {
        // A sidecar that is killed cannot end its application any more.
        let started = descendants(self.pid());
        let _ = self.child.kill();
        for pid in started {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- output of {} ---\n{}\n---", self.name, tail(&self.log));
        }
    }
}

/// What a process has started and what these have, as far as it still runs.
fn descendants(pid: u32) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse::<u32>().ok());
            for child in children {
                left.push(child);
                found.extend(i32::try_from(child).ok().and_then(Pid::from_raw));
            }
        }
    }
    found
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN)..]).into_owned()
}

/// The operator's token, a hidden file beside the configuration.
const ADMIN_TOKEN: &str = ".admin.token";

/// The proxy under test.
pub struct Rhumb {
    program: Program,
    dir: TempDir,
    admin: u16,
    /// Processes that took over from it by an upgrade, the latest last.
    heirs: Vec<Pid>,
}

impl Rhumb {
    /// The binary: `RHUMB_BIN`, or the one that was built into the same target directory as this test.
    pub fn binary() -> PathBuf {
        if let Some(path) = std::env::var_os("RHUMB_BIN") {
            return path.into();
        }
        let test = std::env::current_exe().expect("the path of this test");
        let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/test");
        let binary = profile.join("rhumb");
        assert!(
            binary.exists(),
            "{} is missing: run `cargo xtask test`, or `cargo build -p rhumb-app` first",
            binary.display()
        );
        binary
    }

    /// A command of the binary, without the environment's `RHUMB_*` variables.
    pub fn command() -> Command {
        let mut command = Command::new(Self::binary());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RHUMB_")) {
            command.env_remove(name);
        }
        command
    }

    /// Starts with this configuration in a fresh directory and waits until it is ready.
    pub fn start(config: &Config) -> Self {
        Self::start_with(config, |_| ())
    }

    /// The same; `prepare` puts further files beside `rhumb.yaml` first.
    pub fn start_with(config: &Config, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        prepare(dir.path());
        let admin = port::free();
        std::fs::write(dir.path().join("rhumb.yaml"), config.text(admin)).expect("a writable directory");
        Self::run(dir, "rhumb.yaml", admin, &[])
    }

    /// Starts on a directory of files, one of which must set the admin listener to `admin`.
    pub fn start_on(dir: TempDir, config: &str, admin: u16) -> Self {
        Self::run(dir, config, admin, &[])
    }

    /// The same with `--partial`: a document with mistakes refuses its own traffic only.
    pub fn start_partial(dir: TempDir, config: &str, admin: u16) -> Self {
        Self::run(dir, config, admin, &["--partial"])
    }

    /// Starts with at most so many open files, hard limit included.
    pub fn start_with_descriptors(config: &Config, most: u32) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let admin = port::free();
        std::fs::write(dir.path().join("rhumb.yaml"), config.text(admin)).expect("a writable directory");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")]).arg(Self::binary());
        Self::run_command(command, dir, "rhumb.yaml", admin, &[])
    }

    fn run(dir: TempDir, config: &str, admin: u16, more: &[&str]) -> Self {
        Self::run_command(Self::command(), dir, config, admin, more)
    }

    fn run_command(mut command: Command, dir: TempDir, config: &str, admin: u16, more: &[&str]) -> Self {
        command.arg("run").arg("-c").arg(dir.path().join(config)).args(more).current_dir(dir.path());
        command.env("RHUMB_ADMIN_TOKEN_FILE", dir.path().join(ADMIN_TOKEN));
        let program = Program::start(command, &dir.path().join("rhumb.log"));
        let mut rhumb = Self { program, dir, admin, heirs: Vec::new() };
        rhumb.wait_until_ready();
        rhumb
    }

    fn wait_until_ready(&mut self) {
        wait::until("rhumb is ready", || {
            if let Some(status) = self.program.ended() {
                panic!("rhumb ended with {status}: {}", self.program.log());
            }
            self.try_admin("/readyz").filter(|response| response.status() == 200)
        });
    }

    /// The program's handle.
    pub fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    /// The directory of its configuration.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes `rhumb.yaml` anew, whole (rename), as editors and config tools do.
    pub fn write(&self, config: &Config) {
        self.write_text(&config.text(self.admin));
    }

    /// Writes any text as `rhumb.yaml`; see [`Self::text_of`].
    pub fn write_text(&self, text: &str) {
        let fresh = self.dir.path().join(".rhumb.yaml.new");
        std::fs::write(&fresh, text).expect("a writable directory");
        std::fs::rename(&fresh, self.dir.path().join("rhumb.yaml")).expect("a rename");
    }

    /// The text that [`Self::write`] would write.
    pub fn text_of(&self, config: &Config) -> String {
        config.text(self.admin)
    }

    /// Asks for a reload (SIGHUP).
    pub fn reload(&self) {
        self.program.signal(Signal::HUP);
    }

    /// The process that serves.
    pub fn serving(&self) -> u32 {
        self.heirs.last().map_or_else(|| self.program.pid(), |pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Sends a signal to the process that serves.
    pub fn signal(&self, signal: Signal) {
        match self.heirs.last() {
            Some(pid) => kill_process(*pid, signal).expect("the process is there"),
            None => self.program.signal(signal),
        }
    }

    /// Upgrades in place (SIGUSR2) and waits until the new process serves; its predecessor drains.
    pub fn upgrade(&mut self) {
        let before = self.serving();
        self.signal(Signal::USR2);
        let pid = wait::until("the new process serves", || {
            let pid = self.pid_of_admin()?;
            (pid != before).then_some(pid)
        });
        self.heirs.extend(i32::try_from(pid).ok().and_then(Pid::from_raw));
    }

    /// The id of the process that answers on the admin listener.
    pub fn pid_of_admin(&self) -> Option<u32> {
        let text = self.try_ask_admin("GET", "/status")?.text();
        let digits = text.split("\"pid\":").nth(1)?.trim_start();
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// Ends the process that serves (SIGTERM) and waits until it and all before it have ended.
    pub fn end_all(mut self) -> String {
        self.signal(Signal::TERM);
        for pid in std::mem::take(&mut self.heirs) {
            wait::until("an upgraded process ends", || has_ended(pid).then_some(()));
        }
        self.program.wait();
        self.program.log()
    }

    /// GET on the admin listener, with the operator's token.
    pub fn admin(&self, path: &str) -> Message {
        self.ask_admin("GET", path)
    }

    /// A request without content to the admin listener, with the operator's token.
    pub fn ask_admin(&self, method: &str, path: &str) -> Message {
        Client::connect(self.admin_address()).exchange(self.admin_request(method, path))
    }

    fn try_ask_admin(&self, method: &str, path: &str) -> Option<Message> {
        let mut client = Client::try_connect(self.admin_address()).ok()?;
        client.try_send(self.admin_request(method, path)).ok()?;
        client.try_response(crate::message::Kind::Response).ok()
    }

    fn admin_request(&self, method: &str, path: &str) -> String {
        let token =
            self.token().map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}Connection: close\r\n\r\n")
    }

    /// The file with the operator's token.
    pub fn admin_token(&self) -> PathBuf {
        self.dir.path().join(ADMIN_TOKEN)
    }

    fn token(&self) -> Option<String> {
        std::fs::read_to_string(self.admin_token()).ok().map(|token| token.trim().to_owned())
    }

    /// GET on the admin listener; `None` while nobody listens or answers.
    pub fn try_admin(&self, path: &str) -> Option<Message> {
        let mut client = Client::try_connect(self.admin_address()).ok()?;
        client
            .try_send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .ok()?;
        client.try_response(crate::message::Kind::Response).ok()
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.admin).into()
    }

    /// The sum of all series of a metric whose line contains every one of `labels`; 0 when there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").text();
        let series = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
                && labels.iter().all(|label| line.contains(label))
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Asks for a graceful end (SIGTERM) and waits for it.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        assert!(self.heirs.is_empty(), "use end_all after an upgrade");
        self.program.signal(Signal::TERM);
        let status = self.program.wait();
        (status, self.program.log())
    }

    /// Everything it wrote to its outputs.
    pub fn log(&self) -> String {
        self.program.log()
    }
}

/// True for a process that is gone, or only waits for somebody to ask how it ended.
fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The name in brackets may have any character; the state is behind it (proc_pid_stat(5)).
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

impl Drop for Rhumb {
    fn drop(&mut self) {
        for pid in self.heirs.drain(..) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A Redis server that keeps nothing on disk. Ended when dropped.
pub struct Redis {
    program: Option<Program>,
    dir: TempDir,
    port: u16,
}

impl Redis {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut redis = Self { program: None, dir, port: port::free() };
        redis.restart();
        redis
    }

    /// Kills it if it runs, starts it again on the same port and waits until it answers. It has forgotten everything.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(self.dir.path());
        let mut program = Program::start(command, &self.dir.path().join("redis.log"));
        wait::until("redis accepts", || {
            assert!(program.ended().is_none(), "redis ended: {}", program.log());
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
        self.program = Some(program);
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.signal(Signal::KILL);
            program.wait();
        }
    }

    /// Lets it stand still (`Signal::STOP`), or go on (`Signal::CONT`).
    pub fn signal(&self, signal: Signal) {
        if let Some(program) = &self.program {
            program.signal(signal);
        }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// nginx with a configuration of the test's.
pub struct Nginx {
    program: Option<Program>,
    dir: TempDir,
    port: u16,
}

impl Nginx {
    /// Starts with these `http` block contents; `PORT` in them becomes a free port, `DIR` its directory.
    pub fn start(http: &str) -> Self {
        Self::start_with(http, |_| ())
    }

    /// The same; `prepare` puts files into its directory first.
    pub fn start_with(http: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        prepare(dir.path());
        let port = port::free();
        let base = dir.path().display().to_string();
        let http = http.replace("PORT", &port.to_string()).replace("DIR", &base);
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {base}/{kind};"))
            .concat();
        // As root, nginx would give its workers to `nobody`, who may not enter the test's directory.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let text = format!(
            "daemon off; {user} worker_processes 1; pid {base}/nginx.pid; error_log stderr warn;\n\
             events {{ worker_connections 1024; }}\nhttp {{ access_log off; {temp}\n{http}\n}}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), text).expect("a writable directory");
        let mut nginx = Self { program: None, dir, port };
        nginx.restart();
        nginx
    }

    /// Ends it at once if it runs, starts it again on the same port and waits until it accepts.
    pub fn restart(&mut self) {
        self.stop();
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("nginx");
        let mut command = Command::new(program);
        command.arg("-p").arg(self.dir.path()).arg("-c").arg(self.dir.path().join("nginx.conf"));
        let mut program = Program::start(command, &self.dir.path().join("nginx.log"));
        wait::until("nginx accepts", || {
            assert!(program.ended().is_none(), "nginx ended: {}", program.log());
            TcpStream::connect(self.address()).ok()
        });
        self.program = Some(program);
    }

    /// Ends it: master and workers together, as a crash would.
    pub fn stop(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.signal(Signal::TERM);
            program.wait();
        }
    }

    /// Asks it to finish what it has and end (SIGQUIT), and waits.
    pub fn quit(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.signal(Signal::QUIT);
            program.wait();
        }
    }

    /// Asks it to start its workers anew (SIGHUP): the old ones close what is idle.
    pub fn reload(&self) {
        if let Some(program) = &self.program {
            program.signal(Signal::HUP);
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its directory, for files to serve.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A script in the interpreter that has the independent peers.
pub fn script(path: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.arg(path).args(args);
    command
}

/// Starts a script that serves on the port it is given as its last argument, and waits until it accepts.
pub fn serve_script(path: &Path, args: &[&str], port: u16, log: &Path) -> Program {
    let mut command = script(path, args);
    command.arg(port.to_string());
    serve(command, port, log)
}

/// A script in Node.js with the packages of the peers. `dir` is for its copy, beside which it finds them.
pub fn node_script(path: &Path, args: &[&str], dir: &Path) -> Command {
    let modules = cache("node/node_modules", "RHUMB_NODE_MODULES");
    let link = dir.join("node_modules");
    if !link.exists() {
        std::os::unix::fs::symlink(&modules, &link).expect("a link to the packages");
    }
    let copy = dir.join(path.file_name().expect("a script has a name"));
    std::fs::copy(path, &copy).expect("a copy of the script");
    let mut command = Command::new("node");
    command.arg(copy).args(args);
    command
}

/// Starts a program that serves on a port, and waits until it accepts.
pub fn serve(command: Command, port: u16, log: &Path) -> Program {
    let mut program = Program::start(command, log);
    wait::until("the program accepts", || {
        assert!(program.ended().is_none(), "the program ended: {}", program.log());
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
    });
    program
}

/// The Python interpreter that has the independent peers.
pub fn python() -> PathBuf {
    cache("venv/bin/python", "RHUMB_PYTHON")
}

/// Something in the cache directory that `cargo xtask test` put there, or where a variable says it is.
fn cache(name: &str, variable: &str) -> PathBuf {
    let found = std::env::var_os(variable).map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
        cache.map(|dir| dir.join("rhumb").join(name))
    });
    let found = found.unwrap_or_else(|| panic!("{variable}, XDG_CACHE_HOME or HOME"));
    assert!(
        found.exists(),
        "{} is missing: run `cargo xtask test` once, it installs the peers",
        found.display()
    );
    found
}
