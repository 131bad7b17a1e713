//! What another service says and that holds for a while: fetched once for all who need it.
//!
//! The first request that needs it fetches it, the others wait for the same answer. From four fifths of its time on it is
//! fetched anew beside requests. What came last is kept until something better comes. After a failure nobody asks for a
//! while: a second first, twice as long after each further one, up to a minute.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::call::{Local, Out};

/// How long nobody asks after the first failure; twice as long after each further one, up to [`FAILURE_PAUSE_MAX`].
pub(crate) const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// The longest time in which nobody asks after failures.
pub(crate) const FAILURE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Something that came.
pub(crate) struct Arrived<T> {
    pub(crate) value: T,
    /// Unit: nanoseconds since 1970.
    at: u64,
    /// Until when it is good. Unit: nanoseconds since 1970.
    until: u64,
    /// Differs for each.
    pub(crate) number: u64,
}

/// Something that is fetched, or will be.
pub(crate) struct Fetched<T> {
    last: ArcSwapOption<Arrived<T>>,
    state: Mutex<State>,
    landed: AtomicU64,
}

#[derive(Default)]
struct State {
    is_under_way: bool,
    wakers: Vec<Waker>,
    failures: u32,
    /// Nobody asks before this. Unit: nanoseconds since 1970.
    next: u64,
}

impl<T> Arrived<T> {
    /// True until its time is over.
    pub(crate) fn is_good(&self, now_unix_nanos: u64) -> bool {
        now_unix_nanos < self.until
    }
}

/// What there is.
pub(crate) enum Look<T> {
    /// This.
    Have(Arc<Arrived<T>>),
    /// It is being fetched: wait, then look again.
    Wait,
    /// Nothing, and it is too early to ask again.
    Nothing,
}

/// What a fetch came to, and how long that is good.
pub(crate) type Fetch<T> = Local<Result<(T, Duration), String>>;

impl<T> Default for Fetched<T> {
    fn default() -> Self {
        Self { last: ArcSwapOption::empty(), state: Mutex::default(), landed: AtomicU64::new(0) }
    }
}

impl<T: Send + Sync + 'static> Fetched<T> {
    /// Something that is there already.
    pub(crate) fn of(value: T, at: u64, good_for: Duration) -> Self {
        let this = Self::default();
        this.last.store(Some(Arc::new(Arrived {
            value,
            at,
            until: at.saturating_add(nanos(good_for)),
            number: 0,
        })));
        this
    }

    /// What came last, good or not.
    pub(crate) fn last(&self) -> Option<Arc<Arrived<T>>> {
        self.last.load_full()
    }

    /// What there is; fetched when it is time. With `may_wait`, what is not good any more is waited for.
    pub(crate) fn look(
        self: &Arc<Self>,
        now: u64,
        out: Option<&Out>,
        may_wait: bool,
        fetch: impl FnOnce(Out) -> Fetch<T>,
    ) -> Look<T> {
        let last = self.last.load_full();
        let is_good = last.as_ref().is_some_and(|last| now < last.until);
        let is_due = last.as_ref().is_none_or(|last| now >= last.until - (last.until - last.at) / 5);
        let comes = is_due && out.is_some_and(|out| self.fetch(now, out, fetch));
        match last {
            Some(last) if is_good || !comes || !may_wait => Look::Have(last),
            _ if comes && may_wait => Look::Wait,
            _ => Look::Nothing,
        }
    }

    /// Has it fetched; true when it is on its way.
    pub(crate) fn fetch(self: &Arc<Self>, now: u64, out: &Out, fetch: impl FnOnce(Out) -> Fetch<T>) -> bool {
        let mut state = self.state();
        if state.is_under_way {
            return true;
        }
        if now < state.next {
            return false;
        }
        state.is_under_way = true;
        drop(state);
        let flight = Flight { of: Arc::clone(self), result: None };
        let (work, own) = (fetch(Rc::clone(out)), Rc::clone(out));
        out.spawn(Box::pin(async move {
            // As a whole: dropped early, it has to land all the same.
            let mut flight = flight;
            let result = work.await;
            flight.result = Some((result.ok(), own.unix_nanos()));
        }));
        true
    }

    /// True while it is being fetched.
    pub(crate) fn is_under_way(&self) -> bool {
        self.state().is_under_way
    }

    /// Done when what is under way has come, or failed.
    pub(crate) async fn wait(self: Arc<Self>) {
        let seen = self.landed.load(Ordering::Acquire);
        poll_fn(|cx| {
            let mut state = self.state();
            if !state.is_under_way || self.landed.load(Ordering::Acquire) != seen {
                return Poll::Ready(());
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fetch that is under way. However it ends, also with its worker, it is over when this is dropped.
struct Flight<T> {
    of: Arc<Fetched<T>>,
    result: Option<(Option<(T, Duration)>, u64)>,
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let mut state = self.of.state.lock().unwrap_or_else(PoisonError::into_inner);
        match self.result.take() {
            Some((Some((value, good_for)), at)) => {
                let until = at.saturating_add(nanos(good_for));
                let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                self.of.last.store(Some(Arc::new(Arrived { value, at, until, number })));
                (state.failures, state.next) = (0, 0);
            }
            Some((None, at)) => {
                let doubled = FAILURE_PAUSE.saturating_mul(1 << state.failures.min(16));
                state.failures = state.failures.saturating_add(1);
                state.next = at.saturating_add(nanos(doubled.min(FAILURE_PAUSE_MAX)));
            }
            None => {}
        }
        state.is_under_way = false;
        self.of.landed.fetch_add(1, Ordering::Release);
        state.wakers.drain(..).for_each(Waker::wake);
    }
}

/// A time in nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
