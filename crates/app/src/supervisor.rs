//! The worker threads and the sockets that they accept on.
//!
//! Each worker has its own socket per port (SO_REUSEPORT); all of them are opened here, before anything changes, so that
//! a port which cannot be had refuses the change as a whole. A port that another process has opened for this one
//! (upgrade, service manager) is taken over with its sockets, never opened a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::errand::Errands;
use crate::supervisor::udp::UdpSockets;
use rhumb_net::handover::{self, Inherited};
use rhumb_proxy::Shared;
use rhumb_proxy::worker::{self, Command};
use rhumb_telemetry::AccessLog;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

mod udp;

/// Most worker threads.
pub(crate) const MAX_WORKERS: usize = 1024;

/// The worker threads.
pub(crate) struct Supervisor {
    workers: Vec<UnboundedSender<Command>>,
    /// A second handle of every socket, to be handed over.
    listening: BTreeMap<SocketAddr, Vec<TcpListener>>,
    udp: UdpSockets,
    inherited: Inherited,
    /// The latest call, and the latest one that each worker has answered.
    called: u32,
    answered: Vec<Arc<AtomicU32>>,
}

/// A worker thread that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Which one, from 0.
    pub(crate) worker: usize,
    /// How: `Ok` only after a drain.
    pub(crate) outcome: Result<(), String>,
}

/// Sockets that are open but not accepted on yet: at least one per worker for each address, each with its second handle.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    sockets: Vec<(SocketAddr, Vec<(TcpListener, TcpListener)>)>,
    udp: udp::BoundUdp,
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub(crate) struct BindError {
    address: SocketAddr,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "{address} is in use by another program: `ss -ltnp 'sport = :{}'` shows which",
                address.port()
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "{address} needs privilege: give the binary CAP_NET_BIND_SERVICE, or listen on a port from 1024"
            ),
            io::ErrorKind::AddrNotAvailable => write!(f, "{address} is not an address of this machine"),
            _ => write!(f, "{address}: {source}"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Supervisor {
    /// Starts `count` workers that accept nothing yet. The receiver tells which of them ended.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    pub(crate) fn start(count: usize, shared: &Shared) -> io::Result<(Self, UnboundedReceiver<Ended>)> {
        let (ended, endings) = unbounded_channel();
        let mut workers = Vec::new();
        for worker in 0..count.clamp(1, MAX_WORKERS) {
            let (commands, received) = unbounded_channel();
            let (shared, ended) = (shared.clone(), ended.clone());
            std::thread::Builder::new().name(format!("worker-{worker}")).spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| worker::run(&shared, received));
                let outcome = match std::panic::catch_unwind(run) {
                    Ok(outcome) => outcome.map_err(|error| error.to_string()),
                    Err(_) => Err("it panicked".to_owned()),
                };
                // Without a receiver the process is ending.
                let _ = ended.send(Ended { worker, outcome });
            })?;
            workers.push(commands);
        }
        let answered = workers.iter().map(|_| Arc::default()).collect();
        let (listening, inherited) = (BTreeMap::new(), Inherited::default());
        Ok((Self { workers, listening, udp: UdpSockets::default(), inherited, called: 0, answered }, endings))
    }

    /// The first worker does what others want of one.
    pub(crate) fn run_errands(&self, errands: &Errands) {
        if let Some(worker) = self.workers.first() {
            errands.go_to(worker.clone());
        }
    }

    /// Number of workers.
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// True when every worker has answered the last call; calls them again then. For a watchdog.
    pub(crate) fn all_turn(&mut self) -> bool {
        if self.answered.iter().any(|answered| answered.load(Ordering::Relaxed) != self.called) {
            return false;
        }
        self.called = self.called.wrapping_add(1);
        for (worker, answered) in self.workers.iter().zip(&self.answered) {
            send(worker, Command::Answer(self.called, Arc::clone(answered)));
        }
        true
    }

    /// Sockets that another process has opened are used before others are opened.
    pub(crate) fn inherit(&mut self, inherited: Inherited) {
        self.inherited = inherited;
    }

    /// Closes what was inherited and is not listened on. Returns the addresses.
    pub(crate) fn disinherit(&mut self) -> Vec<SocketAddr> {
        let rest = std::mem::take(&mut self.inherited);
        rest.addresses().collect()
    }

    /// Opens sockets for those addresses that are not listened on yet. Dropping the result closes them again.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub(crate) fn bind(&self, wanted: &BTreeSet<SocketAddr>) -> Result<Bound, BindError> {
        let mut bound = Bound::default();
        for &address in wanted.iter().filter(|address| !self.listening.contains_key(address)) {
            let sockets = self.open(address).map_err(|source| BindError { address, source })?;
            bound.sockets.push((address, sockets));
        }
        Ok(bound)
    }

    fn open(&self, address: SocketAddr) -> io::Result<Vec<(TcpListener, TcpListener)>> {
        let sockets = match self.inherited.tcp(address) {
            Some(inherited) => {
                let sockets = inherited.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
                handover::spread(address, sockets, self.workers.len())?
            }
            None => {
                // A socket of ours on 0.0.0.0:80 would make the probe of 127.0.0.1:80 fail; the two may exist side by side.
                let ours = self.listening.keys().copied().chain(self.inherited.addresses());
                if !ours.into_iter().any(|ours| overlap(ours, address)) {
                    rhumb_net::listen::probe(address)?;
                }
                self.workers.iter().map(|_| rhumb_net::listen::listen(address)).collect::<io::Result<_>>()?
            }
        };
        sockets.into_iter().map(|socket| socket.try_clone().map(|second| (socket, second))).collect()
    }

    /// As [`Self::bind`], for datagrams; what is opened is added to `bound`.
    ///
    /// # Errors
    /// The first address that cannot be had.
    pub(crate) fn bind_udp(&self, wanted: &BTreeSet<SocketAddr>, bound: &mut Bound) -> Result<(), BindError> {
        let opened = self.udp.bind(wanted, &self.inherited, self.workers.len());
        bound.udp = opened.map_err(|(address, source)| BindError { address, source })?;
        Ok(())
    }

    /// Takes no more datagrams on every address that is not wanted.
    pub(crate) fn close_other_udp(&mut self, wanted: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
        let gone = self.udp.close_others(wanted);
        for &address in &gone {
            self.workers.iter().for_each(|worker| send(worker, Command::UnlistenUdp(address)));
        }
        gone
    }

    /// Accepts on the new sockets. Call it when the plan that has their ports is in force.
    pub(crate) fn accept(&mut self, bound: Bound) {
        for (address, sockets) in bound.sockets {
            let mut kept = Vec::new();
            // More sockets than workers: an earlier process had more of these.
            for ((socket, second), worker) in sockets.into_iter().zip(self.workers.iter().cycle()) {
                send(worker, Command::Listen(address, socket));
                kept.push(second);
            }
            self.listening.insert(address, kept);
            drop(self.inherited.take_tcp(address));
        }
        self.udp.accept(bound.udp, &self.workers, &mut self.inherited);
    }

    /// Stops accepting on every address that is not wanted; open connections stay.
    pub(crate) fn close_others(&mut self, wanted: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
        let gone: Vec<_> =
            self.listening.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for &address in &gone {
            self.listening.remove(&address);
            self.workers.iter().for_each(|worker| send(worker, Command::Unlisten(address)));
        }
        gone
    }

    /// Handles of every listening socket, for another process.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn handles(&self) -> io::Result<Vec<OwnedFd>> {
        let tcp = self.listening.values().flatten().map(|socket| socket.try_clone().map(OwnedFd::from));
        tcp.chain(self.udp.handles()).collect()
    }

    /// Has every worker look at the plan in force, those that rest too.
    pub(crate) fn look(&self) {
        self.workers.iter().for_each(|worker| send(worker, Command::Look));
    }

    /// Has every worker write to these access logs from here on.
    pub(crate) fn log_to(&self, logs: &[Arc<AccessLog>]) {
        self.workers.iter().for_each(|worker| send(worker, Command::Log(logs.to_vec())));
    }

    /// Has every worker finish what it has, until `deadline`.
    pub(crate) fn drain(&mut self, deadline: Instant) {
        self.listening.clear();
        self.udp.clear();
        self.workers.iter().for_each(|worker| send(worker, Command::Drain(deadline)));
    }
}

fn send(worker: &UnboundedSender<Command>, command: Command) {
    // A worker that is gone is told by its ending.
    let _ = worker.send(command);
}

/// True when two addresses cannot both be bound by different programs.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// As many workers as there are cores that the process may use (affinity and cgroup quota counted).
pub(crate) fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Lets the process open as many descriptors as the hard limit allows: each connection takes one or two. Returns how
/// many that are.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open descriptors cannot be raised");
            return limit.current;
        }
    }
    limit.maximum
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_plan::Current;
    use rhumb_telemetry::Registry;
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    fn supervisor(count: usize) -> (Supervisor, UnboundedReceiver<Ended>) {
        let shared = Shared {
            current: Current::default(),
            registry: Registry::new(),
            origin: Instant::now(),
            connections: Arc::default(),
            pressure: Arc::default(),
            discovery: rhumb_proxy::discovery::Discovery::default(),
            outside: Arc::default(),
            plaintext: Arc::default(),
            signals: None,
            lookout: None,
            taps: Arc::default(),
            awake: Arc::default(),
        };
        Supervisor::start(count, &shared).unwrap()
    }

    fn free() -> SocketAddr {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn every_worker_ends_when_it_is_told_to() {
        let (mut supervisor, mut endings) = supervisor(3);
        assert_eq!(supervisor.len(), 3);
        supervisor.drain(Instant::now());
        let mut ended = BTreeSet::new();
        for _ in 0..3 {
            let ending = endings.blocking_recv().unwrap();
            assert_eq!(ending.outcome, Ok(()));
            ended.insert(ending.worker);
        }
        assert_eq!(ended, BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn workers_that_turn_answer_every_call() {
        let (mut supervisor, _endings) = supervisor(2);
        for _ in 0..3 {
            let begun = Instant::now();
            while !supervisor.all_turn() {
                assert!(begun.elapsed() < Duration::from_secs(20), "no answer");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn an_address_of_another_program_is_refused_as_a_whole() {
        let (supervisor, _endings) = supervisor(2);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (first, second) = (free(), taken.local_addr().unwrap());
        let error = supervisor.bind(&BTreeSet::from([first, second])).unwrap_err().to_string();
        assert!(error.contains(&second.to_string()) && error.contains("another program"), "{error}");
        TcpListener::bind(first).expect("nothing of the refused change stays open");
    }

    #[test]
    fn one_address_can_be_widened_while_it_is_listened_on() {
        let (mut supervisor, _endings) = supervisor(2);
        let narrow = free();
        let wide = SocketAddr::from((Ipv4Addr::UNSPECIFIED, narrow.port()));
        let first = BTreeSet::from([narrow]);
        let bound = supervisor.bind(&first).unwrap();
        supervisor.accept(bound);
        assert!(supervisor.bind(&first).unwrap().sockets.is_empty(), "what is open is not opened again");
        let bound = supervisor.bind(&BTreeSet::from([wide])).unwrap();
        assert_eq!(bound.sockets.iter().map(|(_, sockets)| sockets.len()).collect::<Vec<_>>(), [2]);
        supervisor.accept(bound);
        assert_eq!(supervisor.close_others(&BTreeSet::from([wide])), [narrow]);
        // The workers close the narrow sockets when they come to it: until then these take connections, and the last may be
        // reset.
        let begun = Instant::now();
        while let Err(error) = TcpStream::connect_timeout(&narrow, Duration::from_secs(5)) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
        }
    }
}
