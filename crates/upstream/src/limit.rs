//! How many connections a backend has, of all workers, and who waits for one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use rhumb_base::failure::{Cause, Failure};
use rhumb_net::timer::Timer;

use crate::target::Target;

/// Requests that may wait for a connection when there is a limit of connections and nothing is written about waiting.
pub const DEFAULT_MAX_PENDING: u32 = 1024;

/// Requests of a backend, of all workers, that may wait for a stream of HTTP/2 when its connections are not limited.
pub const DEFAULT_STREAM_WAITS: u32 = 8192;

/// The connections of a backend. Goes on from revision to revision of it.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU32,
    waiting: AtomicU32,
    refused: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    wakers: VecDeque<(u64, Waker)>,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Connections>);

/// A place in the queue, left when dropped.
struct Place<'a> {
    connections: &'a Connections,
    id: Option<u64>,
}

impl Connections {
    /// Connections that are open or being made.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// Requests that wait for one.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// Requests that were refused: too many waited, or it took too long.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Room for a connection; `None` when there are `limit`.
    fn take(self: &Arc<Self>, limit: Option<u32>) -> Option<Permit> {
        let open = self.open.fetch_add(1, Relaxed);
        if limit.is_some_and(|limit| open >= limit) {
            self.open.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Permit(Arc::clone(self)))
    }

    fn refuse(&self) -> Failure {
        self.refused.fetch_add(1, Relaxed);
        // Not to be sent again: the others of the backend are behind the same limit.
        Cause::BackendLimit.into()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the longest waiting one look again.
    fn wake_one(&self) {
        if self.waiting() > 0
            && let Some((_, waker)) = self.queue().wakers.pop_front()
        {
            waker.wake();
        }
    }
}

impl Permit {
    /// True when others wait for a connection to end.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.waiting() > 0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.wake_one();
    }
}

impl Place<'_> {
    /// Stands in the queue, behind whoever came before.
    fn stand(&mut self, cx: &Context<'_>) {
        let mut queue = self.connections.queue();
        let place = self.id.and_then(|id| queue.wakers.iter_mut().find(|(other, _)| *other == id));
        match place {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => {
                queue.next += 1;
                let id = queue.next;
                queue.wakers.push_back((id, cx.waker().clone()));
                self.id = Some(id);
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.connections.waiting.fetch_sub(1, Relaxed);
        let Some(id) = self.id else { return };
        let was_woken = {
            let mut queue = self.connections.queue();
            let before = queue.wakers.len();
            queue.wakers.retain(|(other, _)| *other != id);
            queue.wakers.len() == before
        };
        // Who was woken and does not want it any more passes it on.
        if was_woken {
            self.connections.wake_one();
        }
    }
}

/// A request that waits for a stream of HTTP/2, until this is dropped.
pub(crate) struct StreamWait<'a>(&'a Connections);

impl Drop for StreamWait<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Counts a request in that waits for a stream.
///
/// # Errors
/// `BackendLimit` when too many wait already.
pub(crate) fn wait_for_stream(target: &Target) -> Result<StreamWait<'_>, Failure> {
    let most = if target.max_connections.is_some() { target.max_pending } else { DEFAULT_STREAM_WAITS };
    let connections = &*target.connections;
    if connections.waiting.fetch_add(1, Relaxed) >= most {
        connections.waiting.fetch_sub(1, Relaxed);
        return Err(connections.refuse());
    }
    Ok(StreamWait(connections))
}

/// What a request that needs a connection gets.
pub(crate) enum Got<T> {
    /// Room for a new one.
    Room(Permit),
    /// One that is there.
    Ready(T),
}

/// Room for a connection, or what `look` finds meanwhile. Waits its turn when there is none, as long as connecting may
/// take.
///
/// # Errors
/// `BackendLimit` when too many wait already, or it takes too long.
pub(crate) async fn wait<T>(
    target: &Target,
    mut look: impl FnMut(&mut Context<'_>) -> Option<T>,
) -> Result<Got<T>, Failure> {
    let connections = &target.connections;
    if let Some(permit) = connections.take(target.max_connections) {
        return Ok(Got::Room(permit));
    }
    if connections.waiting.fetch_add(1, Relaxed) >= target.max_pending {
        connections.waiting.fetch_sub(1, Relaxed);
        return Err(connections.refuse());
    }
    let mut place = Place { connections, id: None };
    let mut deadline = Timer::new();
    deadline.set(Instant::now() + target.connect_timeout);
    poll_fn(|cx| {
        if let Some(ready) = look(cx) {
            return Poll::Ready(Ok(Got::Ready(ready)));
        }
        // In the queue before the last look: who gives one back in between finds us there.
        place.stand(cx);
        if let Some(permit) = connections.take(target.max_connections) {
            return Poll::Ready(Ok(Got::Room(permit)));
        }
        deadline.poll(cx).map(|()| Err(connections.refuse()))
    })
    .await
}

/// Room for something that cannot wait for it, as a session of datagrams.
///
/// # Errors
/// `BackendLimit` when there is none.
pub fn permit_now(target: &Target) -> Result<Permit, Failure> {
    target.connections.take(target.max_connections).ok_or_else(|| target.connections.refuse())
}

/// Room for a connection that belongs to no pool.
///
/// # Errors
/// `BackendLimit` when too many wait already, or it takes too long.
pub async fn permit(target: &Target) -> Result<Permit, Failure> {
    match wait(target, |_| None::<Permit>).await? {
        Got::Room(permit) | Got::Ready(permit) => Ok(permit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_that_is_dropped_makes_room() {
        let connections = Arc::new(Connections::default());
        let first = connections.take(Some(1));
        assert!(first.is_some() && connections.take(Some(1)).is_none());
        assert_eq!(connections.open(), 1);
        drop(first);
        assert!(connections.take(Some(1)).is_some());
        let many: Vec<_> = (0..10).map(|_| connections.take(None)).collect();
        assert_eq!((connections.open(), many.iter().flatten().count()), (10, 10));
    }
}
