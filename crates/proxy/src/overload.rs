//! When there is too much to do: what is measured, and what is done about it.
//!
//! Each worker knows how long everything that is ready waits for its turn on this thread (the sojourn time of RFC 8289,
//! [`crate::queue`]). Memory is weighed by the control thread ([`Pressure::weigh`]). The worker's state says what follows:
//! in [`State::Closing`] connections are closed, spread over time; in [`State::Shedding`] requests are refused, lowest
//! priority first: those that have waited too long, or a share that grows with the memory that is in use.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rhumb_base::rng::Rng;
use rhumb_policy::Priority;
use rhumb_telemetry::Limit;

use crate::queue::{Queue, Rounds};

/// The whole of a share.
const ALL: u32 = 1000;

/// The smallest share of requests that is refused, if any is.
const LEAST_SHARE: u32 = 100;

/// One in so many answers of HTTP/1 closes its connection while memory is what is short.
const CLOSE_ONE_IN: u32 = 16;

/// The same while the queue is too long: a client that comes back on a new connection costs more than the request.
const CLOSE_ONE_IN_QUEUE: u32 = 128;

/// One in so many requests of HTTP/2 begins the end of its connection while the state is not normal.
const LEAVE_ONE_IN: u32 = 256;

/// Per mille of the memory from where connections are closed, until where, and the same for refusing requests.
const MEMORY: Marks = Marks { close: 850, open: 820, shed: 920, admit: 900, all: 980 };

/// The same for buffers.
const BUFFERS: Marks = Marks { close: 750, open: 700, shed: 900, admit: 850, all: 1000 };

/// How long a refusal is held back when few are refused, at least; at most twice that. Only while the queue is what is
/// too long: memory is not to be filled with refusals.
const HOLD: Duration = Duration::from_millis(500);

/// The more are refused, the longer: by so many times as much as the share of requests that are refused says, and [`HOLD_MOST`]
/// times as long at most. A refusal costs a fifth of a request that is served, as most of both is a connection that no
/// cache has; who was refused is to come again only as often as can be borne.
const HOLD_GROWTH: f64 = 8.0;

/// See [`HOLD_GROWTH`].
const HOLD_MOST: f64 = 4.0;

/// Refusals that a worker holds back at a time; more are sent at once.
const HELD: u32 = 8192;

/// Looks that a share of refused requests is the mean of.
const SMOOTH: u32 = 16;

/// Parts of the table of client addresses, so that workers seldom meet at one lock.
const SHARDS: usize = 16;

/// What is done about overload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Nothing.
    #[default]
    Normal,
    /// Connections are closed.
    Closing,
    /// Requests are refused, too.
    Shedding,
}

impl State {
    /// The word in metrics, logs and `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Closing => "closing",
            Self::Shedding => "shedding",
        }
    }

    fn of(number: u8) -> Self {
        match number {
            0 => Self::Normal,
            1 => Self::Closing,
            _ => Self::Shedding,
        }
    }
}

/// Where something that fills up is too full, per mille.
struct Marks {
    close: u32,
    open: u32,
    shed: u32,
    admit: u32,
    all: u32,
}

impl Marks {
    /// The state and the share of refused requests at `level`, given the state before.
    fn judge(&self, level: u32, before: State) -> (State, u32) {
        let (close, shed) = match before {
            State::Normal => (self.close, self.shed),
            State::Closing => (self.open, self.shed),
            State::Shedding => (self.open, self.admit),
        };
        if level >= shed {
            let share = (level - shed.min(level)) * ALL / (self.all - shed).max(1);
            (State::Shedding, share.clamp(LEAST_SHARE, ALL))
        } else if level >= close {
            (State::Closing, 0)
        } else {
            (State::Normal, 0)
        }
    }
}

/// How full memory and buffers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Resident memory. Unit: bytes.
    pub memory: u64,
    /// What counts as full. Unit: bytes. Zero: nothing does.
    pub memory_limit: u64,
    /// What counts as full of buffers. Unit: bytes. Zero: nothing does.
    pub buffers_limit: u64,
}

/// What is known about one worker.
#[derive(Debug, Default)]
struct Published {
    state: AtomicU8,
    share: AtomicU32,
    delay_us: AtomicU32,
    buffers: AtomicU64,
}

/// Overload of the process: what every worker and the control thread share.
#[derive(Debug, Default)]
pub struct Pressure {
    /// Unit: microseconds. Zero: never too long.
    queue_delay_us: AtomicU32,
    /// What memory and buffers ask for.
    state: AtomicU8,
    share: AtomicU32,
    is_memory: AtomicU8,
    workers: Mutex<Vec<Arc<Published>>>,
    addresses: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// How things stand, for logs and `/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The worst state of a worker.
    pub state: State,
    /// The largest share of refused requests. Unit: per mille.
    pub share: u32,
    /// The longest queue delay of a worker.
    pub queue_delay: Duration,
    /// Memory in buffers. Unit: bytes.
    pub buffers: u64,
    /// What is behind the state: `memory`, `buffers` or `queue_delay`.
    pub cause: &'static str,
}

impl Pressure {
    /// Sets how long what is ready may wait; `None` is for ever.
    pub fn set_queue_delay(&self, limit: Option<Duration>) {
        let micros = limit.map_or(0, |limit| u32::try_from(limit.as_micros()).unwrap_or(u32::MAX).max(1));
        self.queue_delay_us.store(micros, Relaxed);
    }

    /// Judges memory and buffers. Call it a few times per second. True when it asks for another state than before.
    pub fn weigh(&self, weight: Weight) -> bool {
        let per_mille = |part: u64, whole: u64| match whole {
            0 => 0,
            whole => u32::try_from(part.saturating_mul(ALL.into()) / whole).unwrap_or(u32::MAX),
        };
        let before = State::of(self.state.load(Relaxed));
        let memory = MEMORY.judge(per_mille(weight.memory, weight.memory_limit), before);
        let buffers = BUFFERS.judge(per_mille(self.buffers(), weight.buffers_limit), before);
        let (state, share) = memory.max(buffers);
        self.is_memory.store(u8::from(memory >= buffers), Relaxed);
        self.share.store(share, Relaxed);
        self.state.store(state as u8, Relaxed);
        state != before
    }

    /// Memory in buffers of all workers. Unit: bytes.
    pub fn buffers(&self) -> u64 {
        lock(&self.workers).iter().map(|worker| worker.buffers.load(Relaxed)).sum()
    }

    /// Workers in this state.
    pub fn workers_in(&self, state: State) -> usize {
        lock(&self.workers).iter().filter(|worker| State::of(worker.state.load(Relaxed)) == state).count()
    }

    /// How things stand.
    pub fn standing(&self) -> Standing {
        let mut standing = Standing::default();
        for worker in lock(&self.workers).iter() {
            standing.state = standing.state.max(State::of(worker.state.load(Relaxed)));
            standing.share = standing.share.max(worker.share.load(Relaxed));
            let delay = Duration::from_micros(worker.delay_us.load(Relaxed).into());
            standing.queue_delay = standing.queue_delay.max(delay);
            standing.buffers += worker.buffers.load(Relaxed);
        }
        let asked = State::of(self.state.load(Relaxed));
        standing.cause = match (standing.state > asked, self.is_memory.load(Relaxed)) {
            (true, _) => Limit::QueueDelay.name(),
            (false, 0) => Limit::Buffers.name(),
            (false, _) => Limit::Memory.name(),
        };
        standing
    }

    /// Counts a connection from this address, unless there are `most` already.
    pub(crate) fn admit_address(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<AddressGuard> {
        let key = network(address);
        let mut shard = lock(self.shard(key)?);
        let count = shard.entry(key).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(AddressGuard { pressure: Arc::clone(self), key })
    }

    fn shard(&self, key: IpAddr) -> Option<&Mutex<HashMap<IpAddr, u32>>> {
        let last = match key {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[7],
        };
        self.addresses.get(usize::from(last) % SHARDS)
    }
}

/// A counted connection of an address. The table has entries for open connections only.
pub(crate) struct AddressGuard {
    pressure: Arc<Pressure>,
    key: IpAddr,
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let Some(shard) = self.pressure.shard(self.key) else { return };
        let mut shard = lock(shard);
        if let Some(count) = shard.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                shard.remove(&self.key);
            }
        }
        if shard.is_empty() {
            shard.shrink_to(64);
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which one client has all of (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One worker's overload.
pub(crate) struct Gauge {
    pressure: Arc<Pressure>,
    published: Arc<Published>,
    state: Cell<State>,
    /// Share of requests that memory has refused, per mille.
    share: Cell<u32>,
    queue: RefCell<Queue>,
    rounds: Rounds,
    /// Share of requests that have waited too long, per mille, smoothed over [`SMOOTH`] looks.
    refused: Cell<u32>,
    held: Rc<Cell<u32>>,
}

/// A refusal that is held back.
pub(crate) struct Held(Rc<Cell<u32>>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// What a worker does after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: State,
    pub(crate) to: State,
}

impl Gauge {
    pub(crate) fn new(pressure: &Arc<Pressure>) -> Self {
        let published = Arc::default();
        lock(&pressure.workers).push(Arc::clone(&published));
        Self {
            pressure: Arc::clone(pressure),
            published,
            state: Cell::default(),
            share: Cell::new(0),
            queue: RefCell::default(),
            rounds: Rounds::default(),
            refused: Cell::new(0),
            held: Rc::default(),
        }
    }

    /// Whether, and for how long, a refusal is held back.
    pub(crate) fn hold(&self, rng: &RefCell<Rng>) -> Option<(Held, Duration)> {
        if self.cause() != Limit::QueueDelay || self.held.get() >= HELD {
            return None;
        }
        self.held.set(self.held.get() + 1);
        let spread = f64::from(rng.borrow_mut().below(ALL)) / f64::from(ALL);
        let refused = f64::from(self.refused.get()) / f64::from(ALL);
        Some((
            Held(Rc::clone(&self.held)),
            HOLD.mul_f64((1.0 + spread) * (1.0 + HOLD_GROWTH * refused).min(HOLD_MOST)),
        ))
    }

    pub(crate) fn pressure(&self) -> &Arc<Pressure> {
        &self.pressure
    }

    /// How long what is ready may wait; `None` is for ever.
    pub(crate) fn limit(&self) -> Option<Duration> {
        let micros = self.pressure.queue_delay_us.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }

    pub(crate) fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    /// Judges the queue, given how long it was found to be, and takes over what memory asks for.
    pub(crate) fn look(&self, length: Duration, buffers: usize) -> Option<Change> {
        let limit = self.pressure.queue_delay_us.load(Relaxed);
        let length = u32::try_from(length.as_micros()).unwrap_or(u32::MAX);
        let queue_state = self.queue.borrow_mut().judge(length, limit);
        let refused = self.rounds.settle(queue_state, limit);
        let refused = (self.refused.get() * (SMOOTH - 1) + refused.min(ALL)).div_ceil(SMOOTH);
        self.refused.set(if queue_state == State::Shedding { refused } else { 0 });
        let asked = State::of(self.pressure.state.load(Relaxed));
        let share = self.pressure.share.load(Relaxed);
        let state = asked.max(queue_state);
        self.share.set(share);
        self.published.share.store(share.max(self.refused.get()), Relaxed);
        self.published.delay_us.store(length, Relaxed);
        self.published.buffers.store(buffers as u64, Relaxed);
        self.published.state.store(state as u8, Relaxed);
        let from = self.state.replace(state);
        (from != state).then_some(Change { from, to: state })
    }

    /// The bound that is behind the state.
    pub(crate) fn cause(&self) -> Limit {
        if self.state.get() > State::of(self.pressure.state.load(Relaxed)) {
            Limit::QueueDelay
        } else if self.pressure.is_memory.load(Relaxed) == 0 {
            Limit::Buffers
        } else {
            Limit::Memory
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state.get()
    }

    /// True while requests are refused.
    #[inline]
    pub(crate) fn is_shedding(&self) -> bool {
        self.state.get() == State::Shedding
    }

    /// True when this request, which begins at `now`, is to be refused.
    #[inline]
    pub(crate) fn refuses(&self, priority: Priority, now: Instant, rng: &RefCell<Rng>) -> bool {
        let share = self.share.get();
        share > 0 && is_among(share_of(priority, share), rng) || self.rounds.refuses(priority, now)
    }

    /// True when this answer of HTTP/1 is to close its connection.
    #[inline]
    pub(crate) fn closes(&self, rng: &RefCell<Rng>) -> bool {
        self.state.get() != State::Normal && {
            let one_in = if self.cause() == Limit::QueueDelay { CLOSE_ONE_IN_QUEUE } else { CLOSE_ONE_IN };
            rng.borrow_mut().below(one_in) == 0
        }
    }

    /// True when this request of HTTP/2 is to be the beginning of its connection's end.
    #[inline]
    pub(crate) fn leaves(&self, rng: &RefCell<Rng>) -> bool {
        self.state.get() != State::Normal && rng.borrow_mut().below(LEAVE_ONE_IN) == 0
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        lock(&self.pressure.workers).retain(|published| !Arc::ptr_eq(published, &self.published));
    }
}

#[cold]
fn is_among(share: u32, rng: &RefCell<Rng>) -> bool {
    rng.borrow_mut().below(ALL) < share
}

/// The share of one priority, when `share` of all is to go: low goes within the first third, normal within the rest, high
/// at the very end.
fn share_of(priority: Priority, share: u32) -> u32 {
    let part = match priority {
        Priority::Low => share * 3,
        Priority::Normal => share.saturating_sub(ALL / 3) * 3 / 2,
        Priority::High => share.saturating_sub(ALL * 9 / 10) * 5,
    };
    part.min(ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_priority_goes_first_and_high_last() {
        let shares =
            |share| [Priority::Low, Priority::Normal, Priority::High].map(|level| share_of(level, share));
        assert_eq!(shares(0), [0, 0, 0]);
        assert_eq!(shares(200), [600, 0, 0]);
        assert_eq!(shares(500), [1000, 250, 0]);
        assert_eq!(shares(1000), [1000, 1000, 500]);
    }

    #[test]
    fn memory_has_a_lower_mark_to_recover() {
        let pressure = Pressure::default();
        let weigh = |percent: u64| {
            pressure.weigh(Weight { memory: percent, memory_limit: 100, buffers_limit: 0 });
            (State::of(pressure.state.load(Relaxed)), pressure.share.load(Relaxed))
        };
        assert_eq!(weigh(84), (State::Normal, 0));
        assert_eq!(weigh(86), (State::Closing, 0));
        assert_eq!(weigh(83), (State::Closing, 0));
        let (state, share) = weigh(95);
        assert!(state == State::Shedding && share > 0 && share < ALL, "{share}");
        assert_eq!(weigh(99), (State::Shedding, ALL));
        assert_eq!(weigh(91).0, State::Shedding);
        assert_eq!(weigh(89), (State::Closing, 0));
        assert_eq!(weigh(81), (State::Normal, 0));
    }

    #[test]
    fn connections_of_an_address_are_counted_while_they_are_open() {
        let pressure = Arc::new(Pressure::default());
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.17".parse().unwrap());
        let first = pressure.admit_address(one, 2).unwrap();
        let _second = pressure.admit_address(one, 2).unwrap();
        assert!(pressure.admit_address(one, 2).is_none());
        assert!(pressure.admit_address("::ffff:192.0.2.1".parse().unwrap(), 2).is_none());
        assert!(pressure.admit_address(other, 2).is_some());
        drop(first);
        assert!(pressure.admit_address(one, 2).is_some());
        let of_network = pressure.admit_address("2001:db8::1".parse().unwrap(), 1);
        assert!(of_network.is_some() && pressure.admit_address("2001:db8::2".parse().unwrap(), 1).is_none());
        assert!(pressure.admit_address("2001:db8:0:1::1".parse().unwrap(), 1).is_some());
        drop(of_network);
        let left: usize = pressure.addresses.iter().map(|shard| lock(shard).len()).sum();
        assert_eq!(left, 1, "only the open one is remembered");
    }
}
