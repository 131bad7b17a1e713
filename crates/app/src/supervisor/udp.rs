//! The sockets for datagrams: as those that listen, one per worker and port.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rhumb_net::handover::Inherited;
use rhumb_proxy::worker::Command;
use tokio::sync::mpsc::UnboundedSender;

/// Sockets that are open but not read yet: one per worker for each address, each with its second handle.
pub(super) type BoundUdp = Vec<(SocketAddr, Vec<(UdpSocket, UdpSocket)>)>;

/// A second handle of every socket, to be handed over.
#[derive(Default)]
pub(super) struct UdpSockets(BTreeMap<SocketAddr, Vec<UdpSocket>>);

impl UdpSockets {
    /// Opens sockets for those addresses that have none yet, or takes inherited ones.
    pub(super) fn bind(
        &self,
        wanted: &BTreeSet<SocketAddr>,
        inherited: &Inherited,
        workers: usize,
    ) -> Result<BoundUdp, (SocketAddr, io::Error)> {
        let fresh = wanted.iter().filter(|address| !self.0.contains_key(address));
        let open = |&address: &SocketAddr| {
            let sockets = self.open(address, inherited, workers).map_err(|error| (address, error))?;
            Ok((address, sockets))
        };
        fresh.map(open).collect()
    }

    fn open(
        &self,
        address: SocketAddr,
        inherited: &Inherited,
        workers: usize,
    ) -> io::Result<Vec<(UdpSocket, UdpSocket)>> {
        let mut sockets = match inherited.udp(address) {
            // Datagrams that wait in them are not lost.
            Some(inherited) => inherited.iter().map(UdpSocket::try_clone).collect::<io::Result<Vec<_>>>()?,
            None => {
                let ours = self.0.keys().any(|ours| super::overlap(*ours, address));
                if !ours {
                    rhumb_net::listen::probe_udp(address)?;
                }
                Vec::new()
            }
        };
        let given = sockets.len();
        while sockets.len() < workers {
            // A socket that does not share its port (a service manager's) is read by several workers.
            let more = rhumb_net::listen::udp(address);
            let more = match (more, given.checked_sub(1).map(|last| sockets.len() % (last + 1))) {
                (Err(_), Some(at)) => match sockets.get(at) {
                    Some(socket) => socket.try_clone()?,
                    None => return Err(io::ErrorKind::InvalidInput.into()),
                },
                (more, _) => more?,
            };
            sockets.push(more);
        }
        sockets.into_iter().map(|socket| socket.try_clone().map(|second| (socket, second))).collect()
    }

    /// Has the workers read the new sockets.
    pub(super) fn accept(
        &mut self,
        bound: BoundUdp,
        workers: &[UnboundedSender<Command>],
        inherited: &mut Inherited,
    ) {
        for (address, sockets) in bound {
            let mut kept = Vec::new();
            for ((socket, second), worker) in sockets.into_iter().zip(workers.iter().cycle()) {
                super::send(worker, Command::ListenUdp(address, socket));
                kept.push(second);
            }
            self.0.insert(address, kept);
            drop(inherited.take_udp(address));
        }
    }

    /// Forgets every address that is not wanted.
    pub(super) fn close_others(&mut self, wanted: &BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
        let gone: Vec<_> = self.0.keys().filter(|address| !wanted.contains(address)).copied().collect();
        gone.iter().for_each(|address| drop(self.0.remove(address)));
        gone
    }

    /// Handles of every socket, for another process.
    pub(super) fn handles(&self) -> impl Iterator<Item = io::Result<OwnedFd>> {
        self.0.values().flatten().map(|socket| socket.try_clone().map(OwnedFd::from))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
