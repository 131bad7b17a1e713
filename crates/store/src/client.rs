//! The thread that owns a store, and the way to it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::{Ask, Away, Store};

/// Most wishes of one round trip.
const BATCH: usize = 256;

/// How often the thread looks after things without being asked.
const LOOK: Duration = Duration::from_secs(1);

/// How long nothing is asked before the store is told to rest.
const REST: Duration = Duration::from_millis(200);

/// How the store is.
#[derive(Debug, Default)]
pub struct Health {
    is_away: AtomicBool,
    users: AtomicU32,
    round_trips: AtomicU64,
    asks: AtomicU64,
    failures: AtomicU64,
}

impl Health {
    /// True while it cannot be asked.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Relaxed)
    }

    /// How many processes used it when that was last known, this one included.
    pub fn users(&self) -> u32 {
        self.users.load(Relaxed).max(1)
    }

    /// Round trips that were made for wishes.
    pub fn round_trips(&self) -> u64 {
        self.round_trips.load(Relaxed)
    }

    /// Wishes so far.
    pub fn asks(&self) -> u64 {
        self.asks.load(Relaxed)
    }

    /// Round trips that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub(crate) fn count(&self, is_answered: bool) {
        self.round_trips.fetch_add(1, Relaxed);
        self.failures.fetch_add(u64::from(!is_answered), Relaxed);
        self.is_away.store(!is_answered, Relaxed);
    }
}

/// Every store of the process, by name.
static KNOWN: Mutex<Vec<(String, Weak<Health>)>> = Mutex::new(Vec::new());

/// Tells the name and health of every store that is in use.
pub fn each_store(tell: &mut dyn FnMut(&str, &Health)) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|(_, health)| health.strong_count() > 0);
    for (name, health) in known.iter() {
        if let Some(health) = health.upgrade() {
            tell(name, &health);
        }
    }
}

/// Somebody who holds leases and is visited once a second.
pub trait Attend: Send + Sync {
    /// Wishes that have come up meanwhile: leases that nobody uses are given back.
    fn tidy(&self) -> Vec<Ask>;
}

/// A way to a store. Its thread starts with the first wish and ends with the last client.
pub struct Client {
    health: Arc<Health>,
    attendants: Arc<Mutex<Vec<Weak<dyn Attend>>>>,
    store: Mutex<Option<Box<dyn Store>>>,
    orders: OnceLock<Sender<Ask>>,
}

impl Client {
    /// A way to the store that `open` makes. It is not asked before there is a wish.
    pub fn new(open: impl FnOnce(Arc<Health>) -> Box<dyn Store>) -> Self {
        let health = Arc::<Health>::default();
        let store = open(Arc::clone(&health));
        let known = (store.name(), Arc::downgrade(&health));
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).push(known);
        let store = Mutex::new(Some(store));
        Self { health, attendants: Arc::default(), store, orders: OnceLock::new() }
    }

    /// How the store is.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Has somebody visited once a second as long as it lives.
    pub fn attend(&self, who: Weak<dyn Attend>) {
        let mut attendants = self.attendants.lock().unwrap_or_else(PoisonError::into_inner);
        attendants.retain(|known| known.strong_count() > 0);
        attendants.push(who);
    }

    /// Hands on a wish. Does not wait. Without a thread the wish is never answered, and the store is away.
    pub fn ask(&self, ask: Ask) {
        self.health.asks.fetch_add(1, Relaxed);
        let orders = self.orders.get_or_init(|| {
            let (orders, taken) = channel();
            if let Some(store) = self.store.lock().unwrap_or_else(PoisonError::into_inner).take() {
                let (health, attendants) = (Arc::clone(&self.health), Arc::clone(&self.attendants));
                let run = move || run(store, &health, &attendants, &taken);
                if let Err(error) = std::thread::Builder::new().name("store".into()).spawn(run) {
                    tracing::error!(%error, "the thread of a store cannot be started");
                }
            }
            orders
        });
        if orders.send(ask).is_err() {
            // The caller may hold what `done` would want: it is told by this alone.
            self.health.is_away.store(true, Relaxed);
        }
    }
}

fn run(
    mut store: Box<dyn Store>,
    health: &Health,
    attendants: &Mutex<Vec<Weak<dyn Attend>>>,
    orders: &Receiver<Ask>,
) {
    let mut looked: Option<Instant> = None;
    let (mut was_away, mut rests) = (false, false);
    loop {
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            match store.look() {
                Ok(users) => health.users.store(users.max(1), Relaxed),
                Err(Away) => health.is_away.store(true, Relaxed),
            }
            let present: Vec<_> = {
                let attendants = attendants.lock().unwrap_or_else(PoisonError::into_inner);
                attendants.iter().filter_map(Weak::upgrade).collect()
            };
            let asks: Vec<Ask> = present.iter().flat_map(|who| who.tidy()).collect();
            if !asks.is_empty() {
                store.answer(asks);
            }
            rests = false;
        }
        let left = looked.map_or(LOOK, |at| LOOK.saturating_sub(at.elapsed()));
        let mut batch = match orders.recv_timeout(if rests { left } else { left.min(REST) }) {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => {
                if !rests {
                    store.rest();
                    rests = true;
                }
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        rests = false;
        batch.extend(orders.try_iter().take(BATCH - 1));
        store.answer(batch);
        let is_away = health.is_away();
        if is_away != was_away {
            match is_away {
                true => tracing::warn!(store = store.name(), "the store of limits cannot be reached"),
                false => tracing::info!(store = store.name(), "the store of limits can be reached again"),
            }
            was_away = is_away;
        }
    }
}
