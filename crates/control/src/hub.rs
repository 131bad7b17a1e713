//! The control plane of a process: [`Core`] behind a lock, and tasks that wait for it.
//!
//! The lock is held for as long as it takes to work something out, never while anything is waited for. Each stream has a
//! task of its own, which sends one response at a time: a proxy that does not read holds up nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rhumb_ads::wire::{DeltaRequest, DeltaResponse};
use tokio::sync::{Notify, watch};

use crate::audience::Audience;
use crate::caller::Caller;
use crate::core::{Core, Ended, StreamId, Touched};

/// How far apart new streams begin: after a restart everybody comes at once, and each wants all that it knows checked.
const STREAM_SPACING: Duration = Duration::from_millis(2);

/// The longest a new stream waits for its turn; then it is told to come again.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

/// How far apart the answers to who uses a change are worked out for somebody who waits.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// How much more for each proxy that has not answered, and the most.
const LOOK_AGAIN_EACH: Duration = Duration::from_micros(10);
const LOOK_AGAIN_AT_MOST: Duration = Duration::from_millis(50);

/// The control plane of a process.
#[derive(Debug)]
pub struct Hub {
    core: Mutex<Core>,
    /// How tasks of streams are woken.
    wakers: Mutex<HashMap<StreamId, Arc<Notify>>>,
    /// Somebody acked or refused something, or came or went.
    answers: Notify,
    /// Something has a time to be forgotten at.
    deadline: Notify,
    next_stream: Mutex<Option<Instant>>,
    ending: watch::Sender<bool>,
}

/// A stream that is open until this is dropped.
pub(crate) struct Open {
    hub: Arc<Hub>,
    id: StreamId,
    waker: Arc<Notify>,
}

impl Hub {
    /// Around what is known.
    pub fn new(core: Core) -> Self {
        Self {
            core: Mutex::new(core),
            wakers: Mutex::default(),
            answers: Notify::new(),
            deadline: Notify::new(),
            next_stream: Mutex::default(),
            ending: watch::Sender::new(false),
        }
    }

    /// Looks at it, or changes it; streams that have something to send are woken after it.
    pub fn with<T>(&self, f: impl FnOnce(&mut Core) -> T) -> T {
        let (result, woken) = {
            let mut core = self.lock();
            let result = f(&mut core);
            (result, core.take_woken())
        };
        self.wake(&woken);
        result
    }

    /// Waits until everybody who is connected has answered to what was touched, or until a deadline, and says how it
    /// stands.
    pub async fn settled(&self, touched: &Touched, deadline: Instant) -> Audience {
        loop {
            let answered = self.answers.notified();
            let mut answered = std::pin::pin!(answered);
            // From here on nothing is missed.
            answered.as_mut().enable();
            let audience = self.lock().audience(touched);
            let pending = u32::try_from(audience.pending().count()).unwrap_or(u32::MAX);
            if pending == 0 {
                return audience;
            }
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() || tokio::time::timeout(left, answered).await.is_err() {
                return self.lock().audience(touched);
            }
            // Thousands answer within a moment, and looking costs as much as there are.
            let pause = LOOK_AGAIN + LOOK_AGAIN_EACH.saturating_mul(pending);
            tokio::time::sleep(pause.min(LOOK_AGAIN_AT_MOST).min(left)).await;
        }
    }

    /// Forgets what time has run out for, until the process ends.
    pub async fn keep(&self) {
        loop {
            let next = self.with(|core| core.expire(now()));
            match next {
                Some(at) => {
                    let left = at.saturating_duration_since(now()) + LOOK_AGAIN;
                    let _ = tokio::time::timeout(left, self.deadline.notified()).await;
                }
                None => self.deadline.notified().await,
            }
            self.answers.notify_waiters();
        }
    }

    /// Ends every stream: proxies go elsewhere, or come again.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Waits until streams are to end. **Cancel**: nothing is lost.
    pub(crate) async fn ending(&self) {
        // The sender lives as long as this.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// Something was lost that is to be forgotten later.
    pub(crate) fn lost(&self) {
        self.deadline.notify_one();
    }

    /// Begins a stream, in its turn. Nothing when too many wait for theirs.
    pub(crate) async fn open(self: &Arc<Self>, caller: Caller) -> Option<Open> {
        let turn = {
            let mut next = self.next_stream.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = next.unwrap_or_else(now).max(now());
            if turn.saturating_duration_since(now()) > STREAM_PATIENCE {
                return None;
            }
            *next = Some(turn + STREAM_SPACING);
            turn
        };
        tokio::time::sleep_until(turn.into()).await;
        let id = self.lock().open(caller, now());
        let waker = Arc::new(Notify::new());
        self.wakers().insert(id, Arc::clone(&waker));
        Some(Open { hub: Arc::clone(self), id, waker })
    }

    fn wake(&self, woken: &[StreamId]) {
        if woken.is_empty() {
            return;
        }
        let wakers = self.wakers();
        for id in woken {
            if let Some(waker) = wakers.get(id) {
                waker.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wakers(&self) -> MutexGuard<'_, HashMap<StreamId, Arc<Notify>>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// What the proxy says.
    ///
    /// # Errors
    /// [`Ended`].
    pub(crate) fn request(&self, request: &DeltaRequest) -> Result<(), Ended> {
        let answered = self.hub.with(|core| core.request(self.id, request))?;
        if answered {
            self.hub.answers.notify_waiters();
        }
        Ok(())
    }

    /// What is to be sent next.
    ///
    /// # Errors
    /// [`Ended`].
    pub(crate) fn respond(&self) -> Result<Option<DeltaResponse>, Ended> {
        self.hub.lock().respond(self.id)
    }

    /// Waits until there may be something to send. **Cancel**: nothing is lost.
    pub(crate) async fn woken(&self) {
        self.waker.notified().await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.hub.wakers().remove(&self.id);
        self.hub.with(|core| core.close(self.id, now()));
        self.hub.answers.notify_waiters();
        self.hub.lost();
    }
}

pub(crate) fn now() -> Instant {
    Instant::now()
}
