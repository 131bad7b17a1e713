//! Listening sockets on their way from one process to another, through a Unix socket (SCM_RIGHTS, unix(7)).
//!
//! What arrives is the same open socket, with every connection that waits in its queue: as long as one of the two
//! processes holds it, nothing in the queue is lost. A new socket on the same address would be another member of the
//! SO_REUSEPORT group, and closing the old one would reset what waits there.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Descriptors in one message; the kernel takes 253.
const BATCH: usize = 128;

/// The longest message, in bytes.
const MESSAGE_MAX: usize = 1024;

/// The most descriptors that are taken over: more workers and ports than any machine has use for.
const DESCRIPTORS_MAX: usize = 65_536;

/// One end of the way between two processes: whole messages, in order.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that this process was started with.
    ///
    /// # Errors
    /// When it is not the end of such a channel.
    pub fn inherited(end: OwnedFd) -> io::Result<Self> {
        let is_ours = sockopt::socket_type(&end)? == SocketType::SEQPACKET
            && sockopt::socket_domain(&end)? == AddressFamily::UNIX;
        if !is_ours {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the end of a channel"));
        }
        rustix::io::fcntl_setfd(&end, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self(end))
    }

    /// Limits how long a receive or a send may take.
    ///
    /// # Errors
    /// When the descriptor is no socket.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
        sockopt::set_socket_timeout(&self.0, Timeout::Send, Some(patience))?;
        Ok(())
    }

    /// Sends words without descriptors.
    ///
    /// # Errors
    /// When the other process is gone or does not read in time.
    pub fn say(&self, words: &str) -> io::Result<()> {
        self.send(words, &[])
    }

    /// Sends all descriptors, then a message that says how many they were.
    ///
    /// # Errors
    /// When the other process is gone or does not read in time.
    pub fn give(&self, descriptors: &[OwnedFd]) -> io::Result<()> {
        for batch in descriptors.chunks(BATCH) {
            let batch: Vec<_> = batch.iter().map(AsFd::as_fd).collect();
            self.send("sockets", &batch)?;
        }
        self.say(&format!("all {}", descriptors.len()))
    }

    /// Takes what [`Channel::give`] has sent.
    ///
    /// # Errors
    /// When the other process is gone, does not send in time, or less arrives than was sent (out of descriptors).
    pub fn take(&self) -> io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        loop {
            let (words, more) = self.receive()?;
            all.extend(more);
            if let Some(count) = words.strip_prefix("all ") {
                return match count.parse::<usize>() {
                    Ok(count) if count == all.len() => Ok(all),
                    _ => Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("{} of {count} sockets arrived: out of descriptors?", all.len()),
                    )),
                };
            }
            if words.is_empty() || all.len() > DESCRIPTORS_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next message; empty when the other process is gone.
    ///
    /// # Errors
    /// `WouldBlock` when nothing came in time.
    pub fn hear(&self) -> io::Result<String> {
        self.receive().map(|(words, _)| words)
    }

    fn send(&self, words: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(words.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive(&self) -> io::Result<(String, Vec<OwnedFd>)> {
        let mut words = [0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut words)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                descriptors.extend(more);
            }
        }
        let words = words.get(..received.bytes).unwrap_or_default();
        Ok((String::from_utf8_lossy(words).into_owned(), descriptors))
    }
}

/// Sockets that another process has opened, by address. What is not taken out is closed with it.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: BTreeMap<SocketAddr, Vec<TcpListener>>,
    udp: BTreeMap<SocketAddr, Vec<UdpSocket>>,
}

impl Inherited {
    /// Sorts sockets by what they are. What is neither a listening TCP socket nor a bound UDP socket is closed and
    /// counted in the second value.
    pub fn sort(descriptors: Vec<OwnedFd>) -> (Self, usize) {
        let mut sorted = Self::default();
        let mut others = 0;
        for descriptor in descriptors {
            if sorted.keep(descriptor).is_err() {
                others += 1;
            }
        }
        (sorted, others)
    }

    fn keep(&mut self, descriptor: OwnedFd) -> io::Result<()> {
        rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
        let address = SocketAddr::try_from(rustix::net::getsockname(&descriptor)?)?;
        let kind = sockopt::socket_type(&descriptor)?;
        if kind == SocketType::STREAM && sockopt::socket_acceptconn(&descriptor)? {
            let socket = TcpListener::from(descriptor);
            socket.set_nonblocking(true)?;
            // Inherited by accepted sockets, as those of `listen` do.
            sockopt::set_tcp_nodelay(&socket, true)?;
            self.tcp.entry(address).or_default().push(socket);
        } else if kind == SocketType::DGRAM {
            let socket = UdpSocket::from(descriptor);
            socket.set_nonblocking(true)?;
            self.udp.entry(address).or_default().push(socket);
        } else {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(())
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty()
    }

    /// Addresses of what is left.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.tcp.keys().chain(self.udp.keys()).copied()
    }

    /// Number of sockets.
    pub fn len(&self) -> usize {
        self.tcp.values().map(Vec::len).sum::<usize>() + self.udp.values().map(Vec::len).sum::<usize>()
    }

    /// Listening sockets on this address. One on `[::]` that takes both families also stands for `0.0.0.0`.
    pub fn tcp(&self, address: SocketAddr) -> Option<&[TcpListener]> {
        let wide = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, address.port()));
        let is_wide = |sockets: &&Vec<TcpListener>| {
            let is_any_v4 = address.is_ipv4() && address.ip().is_unspecified();
            is_any_v4 && sockets.iter().all(|socket| sockopt::ipv6_v6only(socket).is_ok_and(|only| !only))
        };
        self.tcp.get(&address).or_else(|| self.tcp.get(&wide).filter(is_wide)).map(Vec::as_slice)
    }

    /// UDP sockets on this address.
    pub fn udp(&self, address: SocketAddr) -> Option<&[UdpSocket]> {
        self.udp.get(&address).map(Vec::as_slice)
    }

    /// Takes the listening sockets on this address out.
    pub fn take_tcp(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        self.tcp.remove(&address).unwrap_or_default()
    }

    /// Takes the UDP sockets on this address out.
    pub fn take_udp(&mut self, address: SocketAddr) -> Vec<UdpSocket> {
        self.udp.remove(&address).unwrap_or_default()
    }
}

/// Makes the sockets of one address as many as there are workers: with more on the same address where the first one
/// allows it (SO_REUSEPORT), else with further handles of it. Never fewer: closing one would lose what waits in it.
///
/// # Errors
/// As [`crate::listen::listen`].
pub fn spread(
    address: SocketAddr,
    mut sockets: Vec<TcpListener>,
    workers: usize,
) -> io::Result<Vec<TcpListener>> {
    let inherited = sockets.len();
    while sockets.len() < workers {
        let Some(first) = sockets.get(sockets.len() % inherited.max(1)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let shares = sockopt::socket_reuseport(first)?;
        let more = if shares { crate::listen::listen(address)? } else { first.try_clone()? };
        sockets.push(more);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};

    fn pair() -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        (ours, Channel::inherited(theirs).unwrap())
    }

    #[test]
    fn a_waiting_connection_comes_with_its_socket() {
        let (old, new) = pair();
        let socket = crate::listen::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp_address = udp.local_addr().unwrap();
        old.give(&[socket.into(), udp.into()]).unwrap();
        let (mut sockets, others) = Inherited::sort(new.take().unwrap());
        assert_eq!((sockets.len(), others), (2, 0));
        assert_eq!(sockets.take_udp(udp_address).len(), 1);
        let taken = sockets.take_tcp(address).pop().unwrap();
        let (mut stream, _) = taken.accept().unwrap();
        let mut hello = [0; 5];
        stream.set_nonblocking(false).unwrap();
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        assert!(sockets.is_empty());
    }

    #[test]
    fn many_descriptors_arrive_in_order() {
        let (old, new) = pair();
        let mut sockets = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..BATCH + 3 {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            addresses.push(socket.local_addr().unwrap());
            sockets.push(OwnedFd::from(socket));
        }
        old.give(&sockets).unwrap();
        let taken = new.take().unwrap();
        let taken = taken.into_iter().map(|socket| UdpSocket::from(socket).local_addr().unwrap());
        assert_eq!(taken.collect::<Vec<_>>(), addresses);
    }

    #[test]
    fn an_end_without_a_word_is_told_apart_from_silence() {
        let (old, new) = pair();
        new.set_patience(Duration::from_millis(10)).unwrap();
        assert_eq!(new.hear().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        old.say("ready").unwrap();
        assert_eq!(new.hear().unwrap(), "ready");
        drop(old);
        assert_eq!(new.hear().unwrap(), "");
        assert_eq!(new.take().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_not_a_listening_socket_is_not_taken() {
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Channel::inherited(stream.try_clone().unwrap().into()).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        let (sorted, others) = Inherited::sort(vec![stream.into(), file.into()]);
        assert_eq!((sorted.is_empty(), others), (true, 2));
    }

    #[test]
    fn one_socket_is_spread_over_all_workers() {
        let alone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = alone.local_addr().unwrap();
        assert_eq!(spread(address, vec![alone], 3).unwrap().len(), 3);
        let shared = crate::listen::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = shared.local_addr().unwrap();
        assert_eq!(spread(address, vec![shared], 3).unwrap().len(), 3);
        let two = (0..2).map(|_| crate::listen::listen(address).unwrap()).collect();
        assert_eq!(spread(address, two, 1).unwrap().len(), 2, "none is closed");
    }
}
