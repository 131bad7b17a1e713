//! The control plane of a process: [`Core`] behind a lock, and tasks that wait for it.
//!
//! The lock is held for as long as it takes to work something out, never while anything is waited for. Each stream has a
//! task of its own, which sends one response at a time: a proxy that does not read holds up nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rhumb_ads::registry::Registration;
use rhumb_ads::wire::{DeltaRequest, DeltaResponse};
use tokio::sync::{Notify, watch};

use crate::audience::{Audience, Standing};
use crate::caller::Caller;
use crate::core::{Core, Ended, StreamId, Touched};
use crate::fleet::Fleet;
use crate::members::Refused;
use crate::others::{self, Others};
use crate::store::Move;

/// How far apart new streams begin: after a restart everybody comes at once, and each wants all that it knows checked.
const STREAM_SPACING: Duration = Duration::from_millis(2);

/// The longest a new stream waits for its turn; then it is told to come again.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);

/// How far apart the answers to who uses a change are worked out for somebody who waits.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

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
    /// Other control planes, where there may be some.
    others: OnceLock<Arc<Others>>,
    /// Where what proxies tell is put together, if somewhere.
    fleet: OnceLock<Arc<Fleet>>,
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
            others: OnceLock::new(),
            fleet: OnceLock::new(),
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
        self.standing(touched, deadline).await.into()
    }

    /// As [`settled`](Self::settled), with everybody's name.
    pub(crate) async fn standing(&self, touched: &Touched, deadline: Instant) -> Standing {
        let mut last = None;
        loop {
            let answered = self.answers.notified();
            let mut answered = std::pin::pin!(answered);
            // From here on nothing is missed.
            answered.as_mut().enable();
            // As long as one is known to be missing nobody else is looked at.
            last = self.lock().pending(touched, last);
            let left = deadline.saturating_duration_since(now());
            if last.is_none() || left.is_zero() || tokio::time::timeout(left, answered).await.is_err() {
                return self.lock().standing(touched);
            }
            // Thousands answer within a moment.
            tokio::time::sleep(LOOK_AGAIN.min(left)).await;
        }
    }

    /// There may be other control planes.
    pub(crate) fn share(&self, others: Arc<Others>) {
        // Once, when the control plane is made.
        let _ = self.others.set(others);
    }

    /// The other control planes, where there may be some.
    pub fn others(&self) -> Option<&Arc<Others>> {
        self.others.get()
    }

    /// Hears what proxies tell of themselves and of what they carry.
    pub fn hear(&self, fleet: Arc<Fleet>) {
        // Once, before proxies are served.
        let _ = self.fleet.set(fleet);
    }

    /// What proxies tell, where that is heard.
    pub fn fleet(&self) -> Option<&Arc<Fleet>> {
        self.fleet.get()
    }

    /// Takes a registration.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn register(&self, registration: Registration) -> Result<(), Refused> {
        let told = self
            .others()
            .map(|others| (others, registration.workload.clone(), others::is_here(&registration)));
        self.with(|core| core.register(registration))?;
        if let Some((others, workload, here)) = told {
            others.moved(&workload, here);
        }
        Ok(())
    }

    /// The stream of a registration broke.
    pub(crate) fn lose(&self, workload: &str, instance: &str) {
        self.with(|core| core.lose(workload, instance, now()));
        self.lost();
        if let Some(others) = self.others() {
            others.moved(workload, Move::Lost { instance: instance.to_owned() });
        }
    }

    /// Takes a workload out, and waits until nobody who is connected, here or elsewhere, has it among its endpoints.
    pub(crate) async fn withdraw(&self, workload: &str, instance: &str, deadline: Instant) -> Audience {
        let touched = self.with(|core| core.withdraw(workload, instance));
        match self.others() {
            None => self.settled(&touched, deadline).await,
            Some(others) => {
                others.moved(workload, Move::Gone { instance: instance.to_owned() });
                let (own, other) =
                    tokio::join!(self.standing(&touched, deadline), others.withdrawn(workload, deadline));
                others::together(own, other)
            }
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
