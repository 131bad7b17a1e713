//! Whether the demonstration does what it promises.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

use super::home::Home;
use super::place::Place;
use super::{SERVICES, WHOLE, service};

/// Calls that cross everything.
const CALLS: usize = 20;

/// Frames of every protocol (linux/if_ether.h, ETH_P_ALL), as a socket wants it.
const ALL_FRAMES: u16 = 3_u16.to_be();

/// Frames of packets (linux/socket.h, AF_PACKET).
const PACKET: i32 = 17;

/// Longest frame, after offloading has joined several.
const LONGEST_FRAME: usize = 256 << 10;

/// How often a sniffer looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// How long frames are taken that were on the wire already, where others keep this machine busy.
const LATE: Duration = Duration::from_secs(1);

/// What was found.
pub(crate) struct Found {
    good: Vec<String>,
    bad: Vec<String>,
}

impl Found {
    /// True when everything was as promised.
    pub(crate) fn is_good(&self) -> bool {
        self.bad.is_empty()
    }

    fn note(&mut self, is_good: bool, good: impl Into<String>, bad: impl Into<String>) {
        if is_good { self.good.push(good.into()) } else { self.bad.push(bad.into()) }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_good() {
            write!(f, "mesh: ok: {}", self.good.join("; "))
        } else {
            write!(f, "mesh: NOT ok: {}", self.bad.join("; "))
        }
    }
}

/// Finds out.
///
/// # Errors
/// When something cannot be tried at all.
pub(crate) fn check(home: &Home, place: &Place) -> anyhow::Result<Found> {
    let mut found = Found { good: Vec::new(), bad: Vec::new() };
    crosses(place, &mut found)?;
    only_shop_calls_orders(place, &mut found);
    plaintext_is_refused(place, &mut found);
    strangers_are_refused(home, &mut found)?;
    Ok(found)
}

/// Calls cross the gateway and all services, and what services say to each other cannot be read on the way.
fn crosses(place: &Place, found: &mut Found) -> anyhow::Result<()> {
    let (is_done, ports) = (AtomicBool::new(false), SERVICES.map(|name| place.tunnel(name).port()));
    let [a, b, c, _] = place.address(SERVICES[0]).octets();
    let block = [a, b, c];
    let sniffer = match place {
        Place::Namespaces(_) => Some(sniffer().context("a look at the wire")?),
        Place::Loopback { .. } => None,
    };
    let (seen, calls) = std::thread::scope(|scope| {
        let looking = sniffer.as_ref().map(|sniffer| scope.spawn(|| look(sniffer, &is_done, &ports, block)));
        let calls: Vec<_> = (0..CALLS).map(|_| service::call(place.gate(), "localhost", "/")).collect();
        is_done.store(true, Ordering::Relaxed);
        (looking.map(|looking| looking.join().unwrap_or_default()), calls)
    });
    let is_whole = |call: &&std::io::Result<(u16, String)>| matches!(call, Ok((200, content)) if content.trim() == WHOLE);
    let whole = calls.iter().filter(is_whole).count();
    found.note(
        whole == CALLS,
        format!("{CALLS} of {CALLS} calls crossed the gateway and {} services", SERVICES.len()),
        format!("{whole} of {CALLS} calls crossed: {:?}", calls.iter().find(|call| !is_whole(call))),
    );
    if let Some(Seen { encrypted, readable }) = seen {
        found.note(
            encrypted > 0 && readable == 0,
            format!("{encrypted} frames between them, none readable"),
            format!("of {encrypted} frames between proxies and all others {readable} could be read"),
        );
    }
    Ok(())
}

/// Frames on the wire.
#[derive(Default)]
struct Seen {
    /// To or from proxies.
    encrypted: usize,
    /// With what only services may know.
    readable: usize,
}

/// Hears every frame of this machine, those of the demonstration's bridge among them.
fn sniffer() -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::from(PACKET), Type::RAW, Some(Protocol::from(i32::from(ALL_FRAMES))))?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

fn look(mut sniffer: &Socket, is_done: &AtomicBool, ports: &[u16], block: [u8; 3]) -> Seen {
    let (mut seen, mut frame) = (Seen::default(), vec![0; LONGEST_FRAME]);
    let mut until: Option<Instant> = None;
    loop {
        if is_done.load(Ordering::Relaxed)
            && Instant::now() > *until.get_or_insert_with(|| Instant::now() + LATE)
        {
            return seen;
        }
        match sniffer.read(&mut frame) {
            Ok(len) => {
                let frame = frame.get(..len).unwrap_or_default();
                // Ethernet, IPv4 without options: addresses behind 26 bytes, the ports of TCP behind 34. What others send on
                // this machine is not ours to judge.
                let is_ours = [26, 30].iter().any(|at| frame.get(*at..at + block.len()) == Some(&block[..]));
                if !is_ours {
                    continue;
                }
                let is_of_proxy = [34, 36].iter().any(|at| {
                    matches!(frame.get(*at..at + 2), Some(&[high, low]) if ports.contains(&u16::from_be_bytes([high, low])))
                });
                seen.encrypted += usize::from(is_of_proxy);
                let secret = service::SECRET.as_bytes();
                seen.readable += usize::from(frame.windows(secret.len()).any(|window| window == secret));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // Nothing is left to be heard.
                if is_done.load(Ordering::Relaxed) {
                    return seen;
                }
            }
            Err(_) => return seen,
        }
    }
}

fn only_shop_calls_orders(place: &Place, found: &mut Found) {
    let call = service::call(place.gate(), "localhost", "/orders");
    found.note(
        matches!(call, Ok((403, _))),
        "orders refused the gateway, which is not shop",
        format!("the gateway called orders, which only shop may: {call:?}"),
    );
}

/// Neither applications nor proxies answer who speaks plain text.
fn plaintext_is_refused(place: &Place, found: &mut Found) {
    let mut addresses: Vec<SocketAddr> = SERVICES.iter().map(|name| place.tunnel(name)).collect();
    if let Place::Namespaces(_) = place {
        let application = |name: &&str| SocketAddr::from((place.address(name), place.application_port(name)));
        addresses.extend(SERVICES.iter().map(application));
    }
    for address in addresses {
        let call = service::call(address, "localhost", "/");
        let is_refused = !matches!(call, Ok((200, _)));
        if !is_refused {
            return found.note(false, "", format!("{address} answered a call in plain text"));
        }
    }
    found.note(true, "plain text was refused", "");
}

/// Somebody with a certificate of another authority is not shop, whatever it says.
fn strangers_are_refused(home: &Home, found: &mut Found) -> anyhow::Result<()> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    let listen = free.context("a free port")?;
    let program = std::env::current_exe().context("this program")?;
    let mut command = Command::new(&program);
    command.args(home.stranger("shop", listen)).arg("--").arg(&program);
    command.args(["demo", "call", &format!("http://{listen}/")]);
    let done = command.stdin(Stdio::null()).output().context("a stranger's sidecar")?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    // Its own proxy tells it that the other side was not to be had; anything else is no proof.
    let is_refused = !done.status.success() && said.starts_with("50");
    found.note(
        is_refused,
        "an identity of another authority was refused",
        format!("a stranger's call ended with: {said} {}", String::from_utf8_lossy(&done.stderr)),
    );
    Ok(())
}
