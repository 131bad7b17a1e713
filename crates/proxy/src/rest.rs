//! Resting: a process that carries nothing does nothing.
//!
//! A worker looks many times in a second at its queue, its pools and what is allowed, and the process at its memory and the
//! health of endpoints. A mesh has a proxy beside each process, most of which have nothing to do most of the time, and what
//! wakes them is paid for by the machine. So a worker that has neither connections nor anything pooled stops looking, until
//! something comes; and who looks after traffic for the whole process waits for [`Awake::any`].

use std::cell::Cell;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// Turns of housekeeping without anything to do after which a worker rests.
const QUIET_TURNS: u32 = 2;

/// The workers of a process that do not rest.
#[derive(Debug, Default)]
pub struct Awake(watch::Sender<usize>);

impl Awake {
    /// True while a worker carries something, or has done so a moment ago.
    pub fn is_any(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Waits until a worker is awake. **Cancel**: nothing is lost.
    pub async fn any(&self) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(|awake| *awake > 0).await;
    }

    /// One more is awake.
    pub fn add(&self) {
        self.0.send_modify(|awake| *awake += 1);
    }

    fn remove(&self) {
        self.0.send_modify(|awake| *awake = awake.saturating_sub(1));
    }
}

/// Whether one worker rests.
pub(crate) struct Rest {
    awake: Arc<Awake>,
    is_resting: Cell<bool>,
    /// Something has come since the last turn.
    is_stirred: Cell<bool>,
    quiet_turns: Cell<u32>,
    stirred: Notify,
}

impl Rest {
    /// A worker that begins is awake.
    pub(crate) fn new(awake: &Arc<Awake>) -> Self {
        awake.add();
        Self {
            awake: Arc::clone(awake),
            is_resting: Cell::new(false),
            is_stirred: Cell::new(false),
            quiet_turns: Cell::new(0),
            stirred: Notify::new(),
        }
    }

    /// Something has come that has to be looked after.
    #[inline]
    pub(crate) fn stir(&self) {
        self.is_stirred.set(true);
        if self.is_resting.get() {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        self.is_resting.set(false);
        self.awake.add();
        self.stirred.notify_one();
    }

    /// A turn of housekeeping found that there is something, or nothing, to look after.
    pub(crate) fn turn(&self, is_quiet: bool) {
        let quiet = is_quiet && !self.is_stirred.take();
        self.quiet_turns.set(if quiet { self.quiet_turns.get().saturating_add(1) } else { 0 });
    }

    /// True when there is nothing to look after, and has not been for a while.
    pub(crate) fn is_due(&self) -> bool {
        self.quiet_turns.get() >= QUIET_TURNS && !self.is_stirred.get()
    }

    /// Returns when something has come, if there is nothing to look after; true when time was spent so.
    pub(crate) async fn rest(&self) -> bool {
        if !self.is_due() {
            return false;
        }
        self.is_resting.set(true);
        self.awake.remove();
        self.stirred.notified().await;
        self.quiet_turns.set(0);
        true
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if !self.is_resting.get() {
            self.awake.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll(future: std::pin::Pin<&mut impl Future<Output = bool>>) -> Poll<bool> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_worker_rests_after_quiet_turns_and_wakes_when_something_comes() {
        let awake = Arc::new(Awake::default());
        let rest = Rest::new(&awake);
        assert!(awake.is_any());
        rest.turn(true);
        assert_eq!(poll(pin!(rest.rest())), Poll::Ready(false), "one quiet turn is not enough");
        rest.turn(true);
        {
            let mut resting = pin!(rest.rest());
            assert_eq!(poll(resting.as_mut()), Poll::Pending);
            assert!(!awake.is_any());
            rest.stir();
            assert!(awake.is_any(), "at once: others are woken by it");
            assert_eq!(poll(resting), Poll::Ready(true));
        }
        rest.turn(true);
        assert_eq!(poll(pin!(rest.rest())), Poll::Ready(false), "it has to be quiet for as long again");
    }

    #[test]
    fn what_came_and_went_between_two_turns_is_looked_after() {
        let awake = Arc::new(Awake::default());
        let rest = Rest::new(&awake);
        rest.turn(true);
        rest.stir();
        rest.turn(true);
        assert_eq!(poll(pin!(rest.rest())), Poll::Ready(false));
        rest.turn(true);
        rest.turn(true);
        rest.stir();
        assert_eq!(poll(pin!(rest.rest())), Poll::Ready(false));
    }

    #[test]
    fn a_worker_that_ends_is_not_awake() {
        let awake = Arc::new(Awake::default());
        drop(Rest::new(&awake));
        assert!(!awake.is_any());
    }
}
