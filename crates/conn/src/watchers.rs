//! Tasks that wait for their turn.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Tasks that wait for the same thing, first come, first served. A task that stops waiting takes nothing with it and
/// leaves nothing behind.
#[derive(Clone, Default)]
pub struct Watchers(Rc<RefCell<List>>);

#[derive(Default)]
struct List {
    next: u64,
    /// In the order of their numbers.
    waiting: VecDeque<(u64, Waker)>,
}

impl Watchers {
    /// A place for one task. It is taken when the watch is polled first.
    pub fn watch(&self) -> Watch {
        Watch { watchers: self.clone(), number: None }
    }

    /// Wakes the task that has waited longest: one thing has become free.
    pub fn wake_one(&self) {
        // Wakers run outside of the borrow.
        let first = self.0.borrow_mut().waiting.pop_front();
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    /// Wakes every task: each has to look again.
    pub fn wake_all(&self) {
        let all = std::mem::take(&mut self.0.borrow_mut().waiting);
        all.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Tasks that wait.
    pub fn len(&self) -> u32 {
        u32::try_from(self.0.borrow().waiting.len()).unwrap_or(u32::MAX)
    }

    /// True when no task waits.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().waiting.is_empty()
    }
}

/// A task that waits. Dropped after it was woken, and before it has seen that, it passes the turn on.
pub struct Watch {
    watchers: Watchers,
    number: Option<u64>,
}

impl Watch {
    /// Ready once the task was woken; the next call waits again. Always to be called from the same task.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let list = &mut *self.watchers.0.borrow_mut();
        match self.number {
            Some(number) if list.place(number).is_some() => Poll::Pending,
            Some(_) => {
                self.number = None;
                Poll::Ready(())
            }
            None => {
                self.number = Some(list.next);
                list.waiting.push_back((list.next, cx.waker().clone()));
                list.next += 1;
                Poll::Pending
            }
        }
    }
}

impl List {
    fn place(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |(known, _)| *known).ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let removed = {
            let list = &mut *self.watchers.0.borrow_mut();
            list.place(number).and_then(|place| list.waiting.remove(place))
        };
        if removed.is_none() {
            self.watchers.wake_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Task {
        count: Arc<Count>,
        watch: Watch,
    }

    impl Task {
        fn new(watchers: &Watchers) -> Self {
            let mut task = Self { count: Arc::default(), watch: watchers.watch() };
            assert!(task.poll().is_pending());
            task
        }

        fn poll(&mut self) -> Poll<()> {
            let waker = Waker::from(Arc::clone(&self.count));
            self.watch.poll(&mut Context::from_waker(&waker))
        }

        fn wakes(&self) -> usize {
            self.count.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn turns_come_in_order_and_are_passed_on() {
        let watchers = Watchers::default();
        let (mut a, b, mut c) = (Task::new(&watchers), Task::new(&watchers), Task::new(&watchers));
        assert!(a.poll().is_pending(), "a poll that nothing has caused is no turn");
        watchers.wake_one();
        assert_eq!((a.poll(), a.wakes(), b.wakes(), c.wakes()), (Poll::Ready(()), 1, 0, 0));
        watchers.wake_one();
        assert_eq!((b.wakes(), c.wakes()), (1, 0));
        // It was woken and goes before it has looked: the next one must.
        drop(b);
        assert_eq!((c.wakes(), c.poll()), (1, Poll::Ready(())));
        assert!(watchers.is_empty());
    }

    #[test]
    fn who_leaves_is_forgotten_and_takes_no_turn() {
        let watchers = Watchers::default();
        for _ in 0..1000 {
            drop(Task::new(&watchers));
        }
        let (a, b) = (Task::new(&watchers), Task::new(&watchers));
        assert_eq!(watchers.0.borrow().waiting.len(), 2);
        drop(a);
        assert_eq!(b.wakes(), 0, "nothing was passed on");
        watchers.wake_all();
        assert_eq!((b.wakes(), watchers.is_empty()), (1, true));
    }
}
