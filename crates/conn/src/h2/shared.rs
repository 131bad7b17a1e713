//! What a connection's driver and its streams share.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::task::Waker;

use rhumb_base::failure::{Cause, Failure, Retry};
use rhumb_codec::field::Fields;
use rhumb_codec::h2::{Config, Connection, ErrorCode, OpenError, StreamId};
use rhumb_codec::head::{Method, RequestHead, ResponseHead};

use super::stream::Stream;
use crate::watchers::{Watch, Watchers};

pub(super) type Cell = Rc<RefCell<Shared>>;

pub(super) struct Shared {
    pub(super) codec: Connection,
    pub(super) slots: HashMap<u32, Slot, BuildHasherDefault<IdHasher>>,
    pub(super) driver: Option<Waker>,
    /// As client: tasks that wait for a stream to become free here or on another connection of the pool.
    pub(super) waiting: Watchers,
    /// As client: tasks that wait for the peer's settings.
    settling: Watchers,
    has_settings: bool,
    pub(super) is_dead: bool,
    /// It is to end at once, without a word.
    pub(super) is_cut: bool,
    /// Streams that were ever opened.
    pub(super) opened: u64,
}

/// What has come for a stream and was not fetched.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) heads: VecDeque<Box<ResponseHead>>,
    pub(super) content: Vec<u8>,
    /// Bytes of the window that the content holds.
    pub(super) flow: u32,
    pub(super) trailers: Option<Box<Fields>>,
    pub(super) has_ended: bool,
    pub(super) reset: Option<Failure>,
    pub(super) waker: Option<Waker>,
}

impl Slot {
    pub(super) fn wake(&mut self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    pub(super) fn watch(&mut self, waker: &Waker) {
        match &self.waker {
            Some(known) if known.will_wake(waker) => {}
            _ => self.waker = Some(waker.clone()),
        }
    }
}

impl Shared {
    pub(super) fn new(config: Config) -> Cell {
        Rc::new(RefCell::new(Self {
            codec: Connection::new(config),
            slots: HashMap::default(),
            driver: None,
            waiting: Watchers::default(),
            settling: Watchers::default(),
            has_settings: false,
            is_dead: false,
            is_cut: false,
            opened: 0,
        }))
    }

    /// Has the driver write what is in the output.
    pub(super) fn kick(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// The peer's settings have come or changed.
    pub(super) fn settle(&mut self) {
        self.has_settings = true;
        self.settling.wake_all();
        self.waiting.wake_all();
    }

    /// Requests that wait for a stream get those that are free.
    pub(super) fn share_streams(&self) {
        if self.waiting.is_empty() {
            return;
        }
        for _ in 0..self.codec.available() {
            self.waiting.wake_one();
        }
    }

    /// The connection is gone: every stream learns it.
    pub(super) fn die(&mut self) {
        self.is_dead = true;
        for slot in self.slots.values_mut() {
            slot.reset.get_or_insert_with(|| Failure::new(Cause::BackendReset));
            slot.wake();
        }
        self.settling.wake_all();
        self.waiting.wake_all();
    }
}

/// What a reset means for a request that was on its way (RFC 9113 §8.7).
pub(super) fn reset_failure(code: ErrorCode) -> Failure {
    let retry = if code == ErrorCode::REFUSED_STREAM { Retry::IfNotProcessed } else { Retry::Never };
    Failure::new(Cause::BackendReset).retry(retry)
}

/// A connection to a backend, as a pool keeps it.
#[derive(Clone)]
pub struct Handle(pub(super) Cell);

impl Handle {
    /// True when a stream can be opened now.
    pub fn can_open(&self) -> bool {
        let shared = self.0.borrow();
        !shared.is_dead && shared.codec.can_open()
    }

    /// True when no stream will ever be opened again.
    pub fn is_spent(&self) -> bool {
        let shared = self.0.borrow();
        shared.is_dead || shared.codec.is_going_away()
    }

    /// True when it has ended.
    pub fn is_gone(&self) -> bool {
        self.0.borrow().is_dead
    }

    /// Ends the connection and every stream of it at once, without a word: nothing more may pass.
    pub fn cut(&self) {
        let mut shared = self.0.borrow_mut();
        shared.is_cut = true;
        shared.die();
        shared.kick();
    }

    /// True when a stream was opened before.
    pub fn is_reused(&self) -> bool {
        self.0.borrow().opened > 0
    }

    /// Streams that are open.
    pub fn active_streams(&self) -> usize {
        self.0.borrow().codec.active_streams()
    }

    /// Whether the backend takes extended CONNECT (RFC 8441 §3); `None` until its settings have come.
    pub fn allows_extended_connect(&self) -> Option<bool> {
        let shared = self.0.borrow();
        shared.has_settings.then(|| shared.codec.peer_allows_connect_protocol())
    }

    /// Tells when the peer's settings come, or the connection dies.
    pub fn watch_settings(&self) -> Watch {
        self.0.borrow().settling.watch()
    }

    /// Has these tasks woken when a stream becomes free or the connection dies: one for each stream, all of them when
    /// more may have changed.
    pub fn tell(&self, waiting: &Watchers) {
        self.0.borrow_mut().waiting = waiting.clone();
    }

    /// Sends a request head on a new stream.
    ///
    /// # Errors
    /// Why not; nothing was sent.
    pub fn open(&self, head: &RequestHead) -> Result<Stream, OpenError> {
        let mut shared = self.0.borrow_mut();
        if shared.is_dead {
            return Err(OpenError::GoingAway);
        }
        let ends = head.content.is_empty() && head.method() != Method::Connect;
        let id = shared.codec.open(head, ends)?;
        shared.opened += 1;
        shared.slots.insert(id.get(), Slot::default());
        shared.kick();
        drop(shared);
        Ok(Stream::client(Rc::clone(&self.0), id, head.content, ends))
    }
}

pub(super) fn id_of(id: StreamId) -> u32 {
    id.get()
}

/// Stream ids are consecutive numbers that the codec has checked.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
