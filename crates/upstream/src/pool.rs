//! Connections at rest, by target and address.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use rhumb_base::failure::Failure;
use rhumb_conn::h1;

use crate::connect::connect;
use crate::target::Target;

/// Connections that one worker keeps at rest for one endpoint; more are closed after use.
pub const MAX_IDLE: usize = 1024;

/// The connections of one worker.
#[derive(Default)]
pub struct Pools {
    h1: RefCell<HashMap<Key, Vec<Resting>, BuildHasherDefault<KeyHasher>>>,
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
        let io = connect(target, address).await?;
        let connection = Box::new(h1::Client::new(io, target.limits, Instant::now()));
        Ok(Lease { connection, is_reused: false })
    }

    /// tmp
    pub async fn open_stream(&self, _: &Target, _: SocketAddr, _: &rhumb_codec::head::RequestHead) -> Result<(rhumb_conn::h2::Stream, bool), Failure> { Err(rhumb_base::failure::Cause::InternalError.into()) }

    /// Takes a connection back; closes it when it cannot serve again.
    #[inline]
    pub fn put(&self, target: &Target, address: SocketAddr, mut connection: Box<h1::Client>, now: Instant) {
        if !connection.rest(now) {
            return;
        }
        let mut pools = self.h1.borrow_mut();
        let resting = pools.entry(Key { target: target.key, address }).or_default();
        if resting.len() < MAX_IDLE {
            resting.push(Resting { connection, until: now + target.idle_timeout });
        }
    }

    /// Closes what rested too long or was closed by its backend. Call it every second or so.
    pub fn sweep(&self, now: Instant) {
        self.h1.borrow_mut().retain(|_, resting| {
            resting.retain_mut(|resting| resting.until > now && resting.connection.is_usable());
            resting.shrink_to(resting.len() * 2);
            !resting.is_empty()
        });
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
