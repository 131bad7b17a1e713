//! Connections at rest, by target and address.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use rhumb_base::failure::{Cause, Failure, Retry};
use rhumb_codec::head::RequestHead;
use rhumb_conn::input::Input;
use rhumb_conn::watchers::{Watch, Watchers};
use rhumb_conn::{h1, h2};
use rhumb_net::timer::Timer;
use rhumb_tls::TlsStream;
use rhumb_tls::mesh::PeerSvid;

use crate::connect::{connect, connect_for};
use crate::limit::{self, Got, Permit};
use crate::target::Target;

/// Connections that one worker keeps at rest for one endpoint; more are closed after use.
pub const MAX_IDLE: usize = 1024;

/// HTTP/2 connections that one worker opens to one endpoint when the streams of the others are in use.
pub const MAX_LINES: usize = 8;

/// The connections of one worker.
#[derive(Default)]
pub struct Pools {
    h1: RefCell<HashMap<Key, Vec<Resting>, BuildHasherDefault<KeyHasher>>>,
    h2: RefCell<LinesByKey>,
    /// Requests of this worker that wait for a connection, where their number is limited.
    waiting: RefCell<HashMap<Key, Watchers, BuildHasherDefault<KeyHasher>>>,
    /// Connections to members of a mesh were made that [`Pools::cut`] has not looked at.
    has_news: Cell<bool>,
    /// Connections that were handed on to them.
    handed: Cell<u32>,
}

/// While requests of other workers wait too, every so many-th connection is closed for them instead of being handed on.
const SHARED_EVERY: u32 = 16;

type LinesByKey = HashMap<Key, Lines, BuildHasherDefault<KeyHasher>>;

/// The HTTP/2 connections to one endpoint.
#[derive(Default)]
struct Lines {
    handles: Vec<h2::Handle>,
    /// Who is at the other end of connections to members of a mesh, and the name that they were asked for.
    members: Vec<(h2::Handle, PeerSvid, Box<str>)>,
    is_connecting: bool,
    /// Requests that found no stream free.
    waiting: Watchers,
}

enum Candidate {
    Free(h2::Handle),
    Connect,
    Wait(Watch),
}

impl Lines {
    /// The connection with the fewest streams, or what to do when none has room.
    fn candidate(&mut self) -> Candidate {
        self.handles.retain(|handle| !handle.is_spent());
        let free = self
            .handles
            .iter()
            .filter(|handle| handle.can_open())
            .min_by_key(|handle| handle.active_streams());
        match free {
            Some(handle) => Candidate::Free(handle.clone()),
            None if !self.is_connecting && self.handles.len() < MAX_LINES => {
                self.is_connecting = true;
                Candidate::Connect
            }
            None => Candidate::Wait(self.waiting.watch()),
        }
    }

    fn connected(&mut self, handle: h2::Handle, member: Option<(PeerSvid, Box<str>)>) {
        handle.tell(&self.waiting);
        self.members.retain(|(handle, ..)| !handle.is_gone());
        if let Some((svid, name)) = member {
            self.members.push((handle.clone(), svid, name));
        }
        self.handles.push(handle);
        self.waiting.wake_all();
    }
}

/// The one task that connects. However it ends, others get their turn.
struct Turn<'a> {
    pools: &'a RefCell<LinesByKey>,
    key: Key,
    is_done: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(lines) = self.pools.borrow_mut().get_mut(&self.key) {
            lines.is_connecting = false;
            if !self.is_done {
                lines.waiting.wake_all();
            }
        }
    }
}

/// Extended CONNECT may be sent only after the backend has said that it knows it (RFC 8441 §3).
async fn wait_for_settings(handle: &h2::Handle, target: &Target) -> Result<(), Failure> {
    let mut deadline = Timer::new();
    deadline.set(Instant::now() + target.connect_timeout);
    let mut settled = handle.watch_settings();
    let allowed = poll_fn(|cx| match handle.allows_extended_connect() {
        Some(allowed) => Poll::Ready(allowed),
        None if handle.is_spent() || settled.poll(cx).is_ready() => Poll::Ready(false),
        None => deadline.poll(cx).map(|()| false),
    })
    .await;
    if allowed { Ok(()) } else { Err(Cause::UpgradeFailed.into()) }
}

/// What a refused stream means; nothing, when another connection may have room.
fn refuse_open(error: h2::OpenError) -> Result<(), Failure> {
    match error {
        h2::OpenError::NoStream | h2::OpenError::GoingAway | h2::OpenError::IdsUsedUp => Ok(()),
        h2::OpenError::NoExtendedConnect => Err(Cause::UpgradeFailed.into()),
        h2::OpenError::HeadTooLarge => Err(Cause::FieldsTooLarge.into()),
    }
}

#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct Key {
    target: u64,
    address: SocketAddr,
}

struct Resting {
    connection: Box<h1::Client>,
    until: Instant,
}

/// A connection lent to an exchange.
pub struct Lease {
    /// The connection.
    pub connection: Box<h1::Client>,
    /// True when it served before.
    pub is_reused: bool,
}

impl Pools {
    /// No connections.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// A connection at rest that is still alive: the one used last, its caches are warmest.
    #[inline]
    pub fn take(&self, target: &Target, address: SocketAddr) -> Option<Lease> {
        let mut pools = self.h1.borrow_mut();
        let resting = pools.get_mut(&Key { target: target.key, address })?;
        while let Some(mut candidate) = resting.pop() {
            if candidate.connection.is_usable() {
                return Some(Lease { connection: candidate.connection, is_reused: true });
            }
        }
        None
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Why not; the request has not been sent.
    pub async fn open(&self, target: &Target, address: SocketAddr) -> Result<Lease, Failure> {
        self.open_for(target, address, None).await
    }

    /// The same for a client and the address it connected to, which an endpoint that wants the PROXY protocol is told.
    ///
    /// # Errors
    /// As [`Pools::open`].
    pub async fn open_for(
        &self,
        target: &Target,
        address: SocketAddr,
        client: Option<(SocketAddr, SocketAddr)>,
    ) -> Result<Lease, Failure> {
        let permit = match self.room(target, address).await? {
            Got::Room(permit) => permit,
            Got::Ready(lease) => return Ok(lease),
        };
        let io = connect_for(target, address, client).await?;
        let mut connection = Box::new(h1::Client::new(io, target.limits, Instant::now()));
        connection.hold(Box::new(permit));
        Ok(Lease { connection, is_reused: false })
    }

    /// Room for a connection; where none is left, one that becomes free meanwhile.
    async fn room(&self, target: &Target, address: SocketAddr) -> Result<Got<Lease>, Failure> {
        if target.max_connections.is_none_or(|limit| target.connections.open() < limit) {
            return limit::wait(target, |_| None).await;
        }
        // Those at rest for other endpoints are in the way.
        self.close_one(target.key);
        let key = Key { target: target.key, address };
        let mut watch = self.waiting.borrow_mut().entry(key).or_default().watch();
        limit::wait(target, |cx| {
            let lease = self.take(target, address);
            if lease.is_none() {
                while watch.poll(cx).is_ready() {}
            }
            lease
        })
        .await
    }

    /// Room for one more connection of HTTP/2; or the news that one of those there are has a stream free meanwhile.
    async fn room_for_line(&self, target: &Target, key: Key) -> Result<Got<()>, Failure> {
        let mut watch = self.h2.borrow_mut().entry(key).or_default().waiting.watch();
        limit::wait(target, |cx| {
            while watch.poll(cx).is_ready() {}
            let lines = self.h2.borrow();
            lines.get(&key)?.handles.iter().any(h2::Handle::can_open).then_some(())
        })
        .await
    }

    /// Closes a connection at rest.
    fn close_one(&self, target: u64) {
        let mut pools = self.h1.borrow_mut();
        let of_target = pools.iter_mut().filter(|(key, _)| key.target == target);
        let closed = of_target.map(|(_, resting)| resting).find_map(Vec::pop);
        drop(pools);
        drop(closed);
    }

    /// True when a connection that has become free goes to a request of this worker that waits for it.
    #[cold]
    fn hand_on(&self, target: &Target, key: Key) -> bool {
        let waiting = self.waiting.borrow();
        let Some(here) = waiting.get(&key).filter(|here| !here.is_empty()) else { return false };
        self.handed.set(self.handed.get().wrapping_add(1));
        if self.handed.get().is_multiple_of(SHARED_EVERY) && target.connections.waiting() > here.len() {
            return false;
        }
        here.wake_one();
        true
    }

    /// Opens a stream on an HTTP/2 connection to the endpoint: one that is there, or a new one. The flag tells whether
    /// the connection is new.
    ///
    /// # Errors
    /// Why not; the request has not been sent.
    pub async fn open_stream(
        &self,
        target: &Target,
        address: SocketAddr,
        head: &RequestHead,
    ) -> Result<(h2::Stream, bool), Failure> {
        let key = Key { target: target.key, address };
        let mut deadline = Timer::new();
        let mut wait = None;
        loop {
            let candidate = self.h2.borrow_mut().entry(key).or_default().candidate();
            match candidate {
                Candidate::Free(handle) => {
                    if head.protocol().is_some() {
                        wait_for_settings(&handle, target).await?;
                    }
                    let is_new = !handle.is_reused();
                    match handle.open(head) {
                        Ok(stream) => return Ok((stream, is_new)),
                        Err(error) => refuse_open(error)?,
                    }
                }
                Candidate::Connect => {
                    let mut turn = Turn { pools: &self.h2, key, is_done: false };
                    let Got::Room(permit) = self.room_for_line(target, key).await? else { continue };
                    let io = connect(target, address).await?;
                    if io.tls().is_some_and(|tls| tls.alpn() != Some(b"h2")) {
                        // RFC 9113 §3.2: over TLS, HTTP/2 is spoken only when ALPN has chosen it.
                        return Err(Failure::new(Cause::BackendTls).retry(Retry::IfNotProcessed));
                    }
                    let name = target.tls.as_ref().and_then(|tls| tls.server_name());
                    let svid = io.tls().and_then(TlsStream::peer_svid);
                    let member = svid.zip(name).map(|(svid, name)| (svid, name.into()));
                    self.has_news.set(self.has_news.get() || member.is_some());
                    turn.is_done = true;
                    drop(turn);
                    let mut driver = h2::Driver::new(
                        io,
                        Input::default(),
                        h2::Config::new(h2::Role::Client),
                        target.idle_timeout,
                    );
                    if let Some(lines) = self.h2.borrow_mut().get_mut(&key) {
                        lines.connected(driver.handle(), member);
                    }
                    tokio::task::spawn_local(async move {
                        poll_fn(|cx| driver.poll_client(cx)).await;
                        drop(permit);
                    });
                }
                // Another request is connecting, or every stream of every connection is in use.
                Candidate::Wait(mut turn) => {
                    if wait.is_none() {
                        wait = Some(limit::wait_for_stream(target)?);
                    }
                    if deadline.deadline().is_none() {
                        deadline.set(Instant::now() + target.connect_timeout);
                    }
                    poll_fn(|cx| {
                        if turn.poll(cx).is_ready() {
                            return Poll::Ready(Ok(()));
                        }
                        let failure = Failure::new(Cause::BackendLimit).retry(Retry::IfNotProcessed);
                        deadline.poll(cx).map(|()| Err(failure))
                    })
                    .await?;
                }
            }
        }
    }

    /// True when connections to members of a mesh were made that [`Pools::cut`] has not looked at.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.has_news.get()
    }

    /// Ends connections to members of a mesh that are not to be talked to any more, with everything that is under way on
    /// them. `admits` is told who is at the other end, and the name that it was asked for. How many there were.
    pub fn cut(&self, mut admits: impl FnMut(&PeerSvid, &str) -> bool) -> u64 {
        self.has_news.set(false);
        let mut cut = Vec::new();
        for lines in self.h2.borrow_mut().values_mut() {
            lines.members.retain(|(handle, svid, name)| {
                let stays = admits(svid, name);
                if !stays {
                    cut.push(handle.clone());
                }
                stays
            });
        }
        // Who is woken may ask the pool for another one.
        cut.iter().for_each(h2::Handle::cut);
        cut.len() as u64
    }

    /// Takes a connection back; closes it when it cannot serve again.
    #[inline]
    pub fn put(&self, target: &Target, address: SocketAddr, mut connection: Box<h1::Client>, now: Instant) {
        // A connection that was told of one client must not serve another.
        if target.proxy_protocol.is_some() || !connection.rest(now) {
            return;
        }
        let key = Key { target: target.key, address };
        // Whoever waits elsewhere, or for another endpoint, needs the room and not the connection.
        if target.connections.waiting() > 0 && !self.hand_on(target, key) {
            return;
        }
        let mut pools = self.h1.borrow_mut();
        let resting = pools.entry(key).or_default();
        if resting.len() < MAX_IDLE {
            resting.push(Resting { connection, until: now + target.idle_timeout });
        }
    }

    /// Closes what rested too long or was closed by its backend. Call it every second or so.
    pub fn sweep(&self, now: Instant) {
        self.h1.borrow_mut().retain(|_, resting| {
            resting.retain_mut(|resting| {
                let permit = resting.connection.held().and_then(|held| held.downcast_ref::<Permit>());
                let is_wanted = permit.is_some_and(Permit::is_wanted);
                resting.until > now && !is_wanted && resting.connection.is_usable()
            });
            resting.shrink_to(resting.len() * 2);
            !resting.is_empty()
        });
        self.waiting.borrow_mut().retain(|_, waiting| !waiting.is_empty());
        self.h2.borrow_mut().retain(|_, lines| {
            lines.handles.retain(|handle| !handle.is_spent());
            // One that is going away may still have streams; one that is gone has none.
            lines.members.retain(|(handle, ..)| !handle.is_gone());
            lines.is_connecting
                || !lines.handles.is_empty()
                || !lines.members.is_empty()
                || !lines.waiting.is_empty()
        });
    }

    /// True when there is no connection to look after. One that is in use by HTTP/1.1 belongs to who uses it.
    pub fn is_empty(&self) -> bool {
        self.h1.borrow().is_empty() && self.h2.borrow().is_empty() && self.waiting.borrow().is_empty()
    }

    /// Connections at rest.
    pub fn idle(&self) -> usize {
        self.h1.borrow().values().map(Vec::len).sum()
    }
}

/// Mixes the few integers of a key; keys come from configuration and DNS, not from clients.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(word.into());
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}
