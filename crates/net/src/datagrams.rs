//! Many datagrams with one system call: recvmmsg(2).
//!
//! A call takes what is there and never waits for more, so nothing comes later than it would one by one. A call that
//! brought less than a whole [`BATCH`] has found the end of the queue: the runtime is told so, and the call that would
//! only hear "nothing there" is saved.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, recvmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::buffer::SIZE;

/// Datagrams that one system call takes at most.
pub const BATCH: usize = 16;

thread_local! {
    // Room for a batch: pages of it are memory only once a datagram came to lie there.
    static ROOM: RefCell<Option<Box<Room>>> = const { RefCell::new(None) };
}

struct Room {
    bytes: Box<[u8]>,
    lengths: [usize; BATCH],
    v4: Headers<SockaddrIn>,
    v6: Headers<SockaddrIn6>,
    none: Headers<()>,
}

/// The kernel leaves the length of the address in a header, which is the room for that of the next datagram: so each
/// family has its own.
struct Headers<S> {
    headers: MultiHeaders<S>,
    from: [Option<S>; BATCH],
}

impl<S: SockaddrLike + Copy> Headers<S> {
    fn new() -> Self {
        Self { headers: MultiHeaders::preallocate(BATCH, None), from: [None; BATCH] }
    }

    /// How many came. Their lengths and senders are in `lengths` and `self.from`.
    fn receive(
        &mut self,
        socket: &UdpSocket,
        bytes: &mut [u8],
        lengths: &mut [usize; BATCH],
    ) -> io::Result<usize> {
        let mut pieces = bytes.chunks_exact_mut(SIZE);
        let mut slots: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(pieces.next().unwrap_or_default())]);
        let came =
            recvmmsg(socket.as_raw_fd(), &mut self.headers, slots.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let mut count = 0;
        for ((one, length), from) in came.zip(lengths).zip(&mut self.from) {
            (*length, *from) = (one.bytes, one.address);
            count += 1;
        }
        Ok(count)
    }
}

impl Room {
    fn new() -> Self {
        Self {
            bytes: vec![0; BATCH * SIZE].into_boxed_slice(),
            lengths: [0; BATCH],
            v4: Headers::new(),
            v6: Headers::new(),
            none: Headers::new(),
        }
    }
}

/// What a call has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// All there was; there may have been nothing.
    All,
    /// As many as one call takes: there may be more.
    Batch,
}

/// Takes datagrams with their senders.
///
/// # Errors
/// The socket's error. Nothing there is none.
pub fn receive(socket: &UdpSocket, is_v6: bool, mut each: impl FnMut(SocketAddr, &[u8])) -> io::Result<Came> {
    lend(|room| {
        let Room { bytes, lengths, v4, v6, .. } = room;
        let count = match is_v6 {
            true => take(socket, || v6.receive(socket, bytes, lengths))?,
            false => take(socket, || v4.receive(socket, bytes, lengths))?,
        };
        for (at, (length, slot)) in lengths.iter().zip(bytes.chunks_exact(SIZE)).take(count).enumerate() {
            let from = match is_v6 {
                true => v6.from.get(at).copied().flatten().map(SocketAddr::from),
                false => v4.from.get(at).copied().flatten().map(SocketAddr::from),
            };
            if let (Some(from), Some(datagram)) = (from, slot.get(..*length)) {
                each(from, datagram);
            }
        }
        Ok(came(count))
    })
}

/// Takes datagrams of a connected socket.
///
/// # Errors
/// The socket's error, `ConnectionRefused` when one of ours was refused (RFC 1122 §4.1.3.3). Nothing there is none. An error
/// that comes without datagrams is seen by waiting for [`Interest::ERROR`] only.
pub fn receive_connected(socket: &UdpSocket, mut each: impl FnMut(&[u8])) -> io::Result<Came> {
    lend(|room| {
        let Room { bytes, lengths, none, .. } = room;
        let count = take(socket, || none.receive(socket, bytes, lengths))?;
        for (length, slot) in lengths.iter().zip(bytes.chunks_exact(SIZE)).take(count) {
            each(slot.get(..*length).unwrap_or_default());
        }
        Ok(came(count))
    })
}

fn came(count: usize) -> Came {
    if count < BATCH { Came::All } else { Came::Batch }
}

/// Calls for datagrams if the runtime knows of any, and tells it when there are no more.
fn take(socket: &UdpSocket, receive: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    let mut count = 0;
    let whole = socket.try_io(Interest::READABLE, || {
        count = receive()?;
        // What arrives from now on announces itself anew.
        if count < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match whole {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(count),
    }
}

fn lend<T>(work: impl FnOnce(&mut Room) -> T) -> T {
    // Taken out, because the work may come back here: then there is another one.
    let mut room = ROOM.with(RefCell::take).unwrap_or_else(|| Box::new(Room::new()));
    let result = work(&mut room);
    ROOM.with(|kept| kept.replace(Some(room)));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn run(work: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    }

    async fn pair(ip: std::net::IpAddr) -> (UdpSocket, UdpSocket) {
        let (one, two) = (UdpSocket::bind((ip, 0)).await.unwrap(), UdpSocket::bind((ip, 0)).await.unwrap());
        two.connect(one.local_addr().unwrap()).await.unwrap();
        (one, two)
    }

    #[test]
    fn all_that_waits_is_taken_in_order_with_its_sender() {
        run(async {
            let families = [std::net::Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            // Twice, because a call leaves something in the headers of the next one.
            for ip in [families[0], families[1], families[0], families[1]] {
                let (to, from) = pair(ip).await;
                let sent: Vec<Vec<u8>> = (0..BATCH + 5).map(|n| vec![n as u8; n * 100]).collect();
                for datagram in &sent {
                    from.send(datagram).await.unwrap();
                }
                let mut got = Vec::new();
                while got.len() < sent.len() {
                    to.readable().await.unwrap();
                    receive(&to, ip.is_ipv6(), |sender, datagram| {
                        assert_eq!(sender, from.local_addr().unwrap());
                        got.push(datagram.to_vec());
                    })
                    .unwrap();
                }
                assert_eq!(got, sent);
            }
        });
    }

    #[test]
    fn what_comes_after_a_short_batch_is_announced() {
        run(async {
            let (to, from) = pair(std::net::Ipv4Addr::LOCALHOST.into()).await;
            for round in 0..100_u8 {
                from.send(&[round]).await.unwrap();
                let mut got = None;
                while got.is_none() {
                    to.readable().await.unwrap();
                    let came = receive(&to, false, |_, datagram| got = datagram.first().copied()).unwrap();
                    assert_eq!(came, Came::All);
                }
                assert_eq!(got, Some(round));
            }
        });
    }

    #[test]
    fn the_largest_datagram_is_whole_and_a_refused_one_is_an_error() {
        run(async {
            let (one, two) = pair(std::net::Ipv4Addr::LOCALHOST.into()).await;
            one.send_to(&[7; 65_507], two.local_addr().unwrap()).await.unwrap();
            two.readable().await.unwrap();
            let mut len = 0;
            receive_connected(&two, |datagram| len = datagram.len()).unwrap();
            assert_eq!(len, 65_507);
            drop(one);
            two.send(b"x").await.unwrap();
            let ready = two.ready(Interest::READABLE | Interest::ERROR).await.unwrap();
            let error = match ready.is_error() {
                true => two.take_error().unwrap().unwrap(),
                false => receive_connected(&two, |_| {}).unwrap_err(),
            };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
