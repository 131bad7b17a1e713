//! Network namespaces as machines: each has an address and a default route on one Ethernet, whose frames a sniffer sees.
//!
//! Needs root and the programs `ip` and `tcpdump`. Names carry the id of the process that made them, so that what a crash
//! left behind is found and taken away by the next run; the namespace of this machine is not touched.

use crate::process::{Program, succeed};
use crate::wait;
use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// What names of namespaces begin with.
const PREFIX: &str = "rhumbt";

/// Where `ip netns` keeps them.
const NAMESPACES: &str = "/run/netns";

/// Files that a namespace has instead of those of /etc.
const ETC: &str = "/etc/netns";

/// The Ethernet: a namespace with a bridge, and an address that every machine's default route leads to.
pub struct Network {
    name: String,
    machines: Cell<u8>,
    dir: TempDir,
}

/// A machine: a namespace with one interface, `eth0`.
pub struct Machine {
    namespace: String,
    number: u8,
}

impl Network {
    /// A network of its own.
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        clean();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            name: format!("{PREFIX}{}-{number}", std::process::id()),
            machines: Cell::new(0),
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        let hub = network.hub();
        ip(&["netns", "add", &hub]);
        ip(&["-n", &hub, "link", "set", "lo", "up"]);
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        ip(&["-n", &hub, "link", "set", "br0", "up"]);
        ip(&["-n", &hub, "address", "add", "10.77.0.254/24", "dev", "br0"]);
        ip(&["-n", &hub, "address", "add", "fd77::254/64", "dev", "br0", "nodad"]);
        network
    }

    /// Adds a machine.
    pub fn machine(&self, name: &str) -> Machine {
        let number = self.machines.get() + 1;
        self.machines.set(number);
        let machine = Machine { namespace: format!("{}-{name}", self.name), number };
        let (hub, of, link) = (self.hub(), &machine.namespace, format!("port{number}"));
        ip(&["netns", "add", of]);
        ip(&["-n", of, "link", "set", "lo", "up"]);
        ip(&["-n", &hub, "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", of]);
        ip(&["-n", &hub, "link", "set", &link, "master", "br0", "up"]);
        ip(&["-n", of, "link", "set", "eth0", "up"]);
        ip(&["-n", of, "address", "add", &format!("{}/24", machine.address()), "dev", "eth0"]);
        ip(&["-n", of, "address", "add", &format!("{}/64", machine.address_v6()), "dev", "eth0", "nodad"]);
        ip(&["-n", of, "route", "add", "default", "via", "10.77.0.254"]);
        ip(&["-n", of, "-6", "route", "add", "default", "via", "fd77::254"]);
        machine
    }

    /// Records every frame on the Ethernet from here on.
    pub fn sniff(&self) -> Sniffer {
        let file = self.dir.path().join(format!("frames-{}.pcap", self.machines.get()));
        let mut command = Command::new("ip");
        // Every frame passes the bridge on its way from one port to another; written at once, whole.
        command.args([
            "netns",
            "exec",
            &self.hub(),
            "tcpdump",
            "-i",
            "br0",
            "-s",
            "0",
            "-U",
            "-n",
            "-Z",
            "root",
            "-w",
        ]);
        command.arg(&file);
        let program = Program::start(command, &self.dir.path().join("tcpdump.log"));
        wait::until("tcpdump listens", || program.log().contains("listening on").then_some(()));
        Sniffer { program, file }
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        delete(&self.hub());
    }
}

impl Machine {
    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number)
    }

    /// Its other address.
    pub fn address_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.number))
    }

    /// A command that runs here. Its process id is that of the program.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program.as_ref());
        command
    }

    /// A command of the same environment and arguments that runs here.
    pub fn enter(&self, inner: &Command) -> Command {
        let mut command = self.command(inner.get_program());
        command.args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = inner.get_current_dir() {
            command.current_dir(dir);
        }
        command
    }

    /// Sets the name servers of programs that start here later.
    pub fn nameservers(&self, servers: &[&str]) {
        let dir = Path::new(ETC).join(&self.namespace);
        std::fs::create_dir_all(&dir).expect("a directory of /etc");
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        std::fs::write(dir.join("resolv.conf"), text).expect("a writable file");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        delete(&self.namespace);
    }
}

/// Frames that pass between machines.
pub struct Sniffer {
    program: Program,
    file: PathBuf,
}

impl Sniffer {
    /// Everything recorded so far, as it was on the wire.
    pub fn frames(&self) -> Vec<u8> {
        std::fs::read(&self.file).unwrap_or_default()
    }

    /// True when bytes were on the wire as they are.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        self.frames().windows(bytes.len()).any(|window| window == bytes)
    }

    /// What tcpdump says itself.
    pub fn log(&self) -> String {
        self.program.log()
    }
}

fn ip(args: &[&str]) {
    let mut command = Command::new("ip");
    command.args(args);
    succeed(command);
}

fn delete(namespace: &str) {
    let mut command = Command::new("ip");
    // Programs in it were ended by their handles; a namespace lives on until the last of them is gone.
    let _ = command.args(["netns", "delete", namespace]).output();
    let _ = std::fs::remove_dir_all(Path::new(ETC).join(namespace));
}

/// Takes away what processes that are gone left behind.
fn clean() {
    for entry in
        [NAMESPACES, ETC].into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let made_by = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).unwrap_or_default();
        let is_ours = !made_by.is_empty() && made_by.bytes().all(|b| b.is_ascii_digit());
        if is_ours && !Path::new("/proc").join(made_by).exists() {
            delete(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_reach_each_other_and_the_sniffer_sees_it() {
        let network = Network::new();
        let (a, b) = (network.machine("a"), network.machine("b"));
        let sniffer = network.sniff();
        for address in [b.address().to_string(), b.address_v6().to_string()] {
            let mut send = a.command("bash");
            send.args(["-c", &format!("echo over the wire to {address} >/dev/udp/{address}/9")]);
            succeed(send);
            let text = format!("over the wire to {address}\n");
            wait::until("the frame is recorded", || sniffer.saw(text.as_bytes()).then_some(()));
        }
        assert!(!sniffer.saw(b"not on the wire"));
    }

    #[test]
    fn what_a_crash_left_behind_is_taken_away() {
        let mut ended = Command::new("true").spawn().unwrap();
        let stale = format!("{PREFIX}{}-0-stale", ended.id());
        ip(&["netns", "add", &stale]);
        ended.wait().unwrap();
        drop(Network::new());
        assert!(!Path::new(NAMESPACES).join(&stale).exists());
    }
}
