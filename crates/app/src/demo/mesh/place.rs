//! Where the demonstration runs: machines that are network namespaces on one bridge, or this machine alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::SERVICES;

/// The machine of the gateway.
pub(crate) const GATE: &str = "gate";

/// What names of namespaces begin with; the id of this process follows.
const PREFIX: &str = "rhumb-demo-";

/// What the name of the bridge begins with; names of interfaces have at most 15 bytes.
const BRIDGE: &str = "rhumb";

/// Where `ip netns` keeps namespaces, and where it looks for their name servers.
const NAMESPACES: &str = "/run/netns";
const ETC: &str = "/etc/netns";

/// Where an application listens on a machine of its own.
const APPLICATION_PORT: u16 = 9000;

/// Where connections of the mesh are taken on a machine of its own.
const TUNNEL_PORT: u16 = 15008;

/// Where the gateway listens.
const GATE_PORT: u16 = 8080;

/// Where a service is called on this machine alone, and all its other ports.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    application: u16,
    tunnel: u16,
    upstream: u16,
    admin: u16,
}

/// Where everything runs.
pub(crate) enum Place {
    /// Each on a machine of its own, its connections intercepted.
    Namespaces(Namespaces),
    /// All on this machine, calling through addresses of their own.
    Loopback { gate: SocketAddr, ports: BTreeMap<&'static str, Ports> },
}

/// Machines of this process; they go when it is dropped.
pub(crate) struct Namespaces {
    process: u32,
    /// Third byte of their addresses.
    block: u8,
}

impl Place {
    /// Namespaces where they can be had, unless only this machine is wanted. What is shown to people has the usual port.
    ///
    /// # Errors
    /// When they can be had, and then something is in the way; when there is no free port.
    pub(crate) fn choose(only_loopback: bool, is_shown: bool) -> anyhow::Result<Self> {
        if !only_loopback
            && rustix::process::geteuid().is_root()
            && ["ip", "nft"].iter().all(|name| is_installed(name))
        {
            clean();
            return Ok(Self::Namespaces(Namespaces::make()?));
        }
        let mut ports = BTreeMap::new();
        for name in SERVICES.into_iter().chain([GATE]) {
            let [application, tunnel, upstream, admin] = free_ports().context("free ports")?;
            ports.insert(name, Ports { application, tunnel, upstream, admin });
        }
        let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, GATE_PORT));
        let gate = match TcpListener::bind(usual) {
            Ok(_) if is_shown => usual,
            _ => (Ipv4Addr::LOCALHOST, free_ports::<1>().context("a free port")?[0]).into(),
        };
        Ok(Self::Loopback { gate, ports })
    }

    /// Where the gateway is called.
    pub(crate) fn gate(&self) -> SocketAddr {
        match self {
            Self::Namespaces(namespaces) => (namespaces.address(GATE), GATE_PORT).into(),
            Self::Loopback { gate, .. } => *gate,
        }
    }

    /// Where an application listens, as it sees it.
    pub(crate) fn application(&self, name: &str) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.application_port(name)).into()
    }

    /// The port of an application.
    pub(crate) fn application_port(&self, name: &str) -> u16 {
        match self {
            Self::Namespaces(_) => APPLICATION_PORT,
            Self::Loopback { ports, .. } => {
                ports.get(name).map_or(APPLICATION_PORT, |ports| ports.application)
            }
        }
    }

    /// The address that others know a workload by.
    pub(crate) fn address(&self, name: &str) -> Ipv4Addr {
        match self {
            Self::Namespaces(namespaces) => namespaces.address(name),
            Self::Loopback { .. } => Ipv4Addr::LOCALHOST,
        }
    }

    /// Where its proxy takes connections of the mesh.
    pub(crate) fn tunnel(&self, name: &str) -> SocketAddr {
        match self {
            Self::Namespaces(namespaces) => (namespaces.address(name), TUNNEL_PORT).into(),
            Self::Loopback { ports, .. } => {
                (Ipv4Addr::LOCALHOST, ports.get(name).map_or(TUNNEL_PORT, |ports| ports.tunnel)).into()
            }
        }
    }

    /// Where a service calls the next one when its connections are not intercepted.
    pub(crate) fn upstream(&self, name: &str) -> Option<SocketAddr> {
        match self {
            Self::Namespaces(_) => None,
            Self::Loopback { ports, .. } => Some((Ipv4Addr::LOCALHOST, ports.get(name)?.upstream).into()),
        }
    }

    /// The admin listener of a proxy, where the usual one is not its own.
    pub(crate) fn admin(&self, name: &str) -> Option<SocketAddr> {
        match self {
            Self::Namespaces(_) => None,
            Self::Loopback { ports, .. } => Some((Ipv4Addr::LOCALHOST, ports.get(name)?.admin).into()),
        }
    }

    /// The URL that a service calls the next one by.
    pub(crate) fn url(&self, name: &str, next: &str) -> String {
        match self.upstream(name) {
            Some(address) => format!("http://{address}"),
            None => format!("http://{next}"),
        }
    }

    /// A command on the machine of a workload.
    pub(crate) fn command(&self, name: &str, program: &Path) -> Command {
        match self {
            Self::Namespaces(namespaces) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespaces.name(name)]).arg(program);
                command
            }
            Self::Loopback { .. } => Command::new(program),
        }
    }

    /// Has the connections of a workload intercepted, where it has a machine.
    ///
    /// # Errors
    /// What `rhumb intercept` says.
    pub(crate) fn intercept(&self, name: &str, program: &Path) -> anyhow::Result<()> {
        if matches!(self, Self::Loopback { .. }) {
            return Ok(());
        }
        let mut command = self.command(name, program);
        command.arg("intercept");
        done(command)
    }

    /// Where everything runs, in words.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Namespaces(_) => "each in a network namespace of its own, their connections intercepted".to_owned(),
            Self::Loopback { .. } => {
                "side by side on this machine, calling through addresses of their own (as root they get namespaces)".to_owned()
            }
        }
    }

    /// What else is worth a try.
    pub(crate) fn try_this(&self, program: &str) -> String {
        let mut text = String::new();
        match self {
            Self::Namespaces(namespaces) => {
                let (shop, stock) = (namespaces.name("shop"), namespaces.address("stock"));
                let _ = writeln!(
                    text,
                    "  curl -m 5 http://{stock}:9000/            # past the mesh, in plain text: refused"
                );
                let _ = writeln!(
                    text,
                    "  ip netns exec {shop} curl http://orders/   # as shop, whose connections are intercepted"
                );
                let _ = writeln!(text, "  ip netns exec {shop} {program} intercept --dry-run");
                let _ = writeln!(
                    text,
                    "  tcpdump -i {BRIDGE}{} -A port 15008       # what is on the wire",
                    namespaces.process
                );
            }
            Self::Loopback { .. } => {
                if let Some(orders) = self.upstream("shop") {
                    let _ =
                        writeln!(text, "  curl http://{orders}/            # as shop, through its sidecar");
                }
                if let Some(admin) = self.admin("shop") {
                    let _ = writeln!(text, "  curl -s http://{admin}/metrics   # metrics of shop's sidecar");
                }
            }
        }
        text
    }
}

impl Namespaces {
    fn make() -> anyhow::Result<Self> {
        let block = free_block().context("addresses")?;
        let made = Self { process: std::process::id(), block };
        let bridge = format!("{BRIDGE}{}", made.process);
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", &format!("10.78.{block}.254/24"), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for name in SERVICES.into_iter().chain([GATE]) {
            let namespace = made.name(name);
            let port = format!("{BRIDGE}{}{}", made.process, made.number(name));
            ip(&["netns", "add", &namespace])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["link", "set", &port, "master", &bridge, "up"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            let address = format!("{}/24", made.address(name));
            ip(&["-n", &namespace, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &namespace, "route", "add", "default", "via", &format!("10.78.{block}.254")])?;
            // Nobody has to answer there: mesh names are all that is asked for.
            let etc = Path::new(ETC).join(&namespace);
            std::fs::create_dir_all(&etc)?;
            std::fs::write(etc.join("resolv.conf"), format!("nameserver 10.78.{block}.254\n"))?;
        }
        Ok(made)
    }

    fn name(&self, name: &str) -> String {
        format!("{PREFIX}{}-{name}", self.process)
    }

    fn number(&self, name: &str) -> u8 {
        let at = SERVICES.iter().position(|service| *service == name).unwrap_or(SERVICES.len());
        u8::try_from(at).unwrap_or_default() + 1
    }

    fn address(&self, name: &str) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, self.block, self.number(name))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in SERVICES.into_iter().chain([GATE]) {
            delete(&self.name(name));
        }
        delete_bridge(self.process);
    }
}

/// Takes away what demonstrations left behind that are gone.
fn clean() {
    let entries =
        [NAMESPACES, ETC].into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if let Some(process) =
            process.filter(|process| !Path::new("/proc").join(process.to_string()).exists())
        {
            delete(&name);
            delete_bridge(process);
        }
    }
}

fn delete(namespace: &str) {
    // What is not there needs no deleting.
    let _ = Command::new("ip").args(["netns", "delete", namespace]).output();
    let _ = std::fs::remove_dir_all(Path::new(ETC).join(namespace));
}

fn delete_bridge(process: u32) {
    let _ = Command::new("ip").args(["link", "delete", &format!("{BRIDGE}{process}")]).output();
}

/// A third byte of addresses that no interface of this machine has.
fn free_block() -> anyhow::Result<u8> {
    let shown = Command::new("ip").args(["-4", "-o", "address", "show"]).output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    (0..=u8::MAX).find(|block| !shown.contains(&format!("10.78.{block}."))).context("10.78.0.0/16 is in use")
}

/// Ports that are free at this moment, all different.
fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut sockets = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = socket.local_addr()?.port();
        // Kept until all are known.
        sockets.push(socket);
    }
    Ok(ports)
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    done(command)
}

/// Runs a command that has to succeed.
fn done(mut command: Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
