//! Coarse deadlines for very many tasks of one worker.
//!
//! A deadline that is moved forward on every request (idle and request timeouts) must cost almost nothing: the entry
//! in the wheel stays where it is, and is entered again only when it comes up too early. Deadlines are met up to one
//! [`TICK`] late, never early.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Resolution of deadlines.
pub const TICK: Duration = Duration::from_millis(8);

/// Slots of the wheel; a deadline beyond `SLOTS × TICK` (33 s) comes up early and is entered again.
pub const SLOTS: usize = 4096;

const NONE: u32 = u32::MAX;
const IDLE: u64 = u64::MAX;

thread_local! {
    static WHEEL: RefCell<Wheel> = RefCell::new(Wheel::new());
}

/// A deadline of one task. Dropping it forgets the deadline.
#[derive(Default)]
pub struct Timer {
    deadline: Option<Instant>,
    token: Option<Token>,
}

impl Timer {
    /// No deadline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the deadline; takes effect at the next [`Timer::poll`].
    #[inline]
    pub fn set(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Forgets the deadline.
    #[inline]
    pub fn clear(&mut self) {
        self.deadline = None;
    }

    /// The deadline.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ready once the deadline has passed. Always call it from the same task: its waker is kept, not compared.
    #[inline]
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        WHEEL.with(|wheel| {
            let wheel = &mut *wheel.borrow_mut();
            let tick = wheel.tick_of(deadline);
            if let Some(token) = self.token {
                match wheel.entered_at(token) {
                    Some(entered) if entered <= tick => return Poll::Pending,
                    Some(_) => wheel.remove(token),
                    None => {}
                }
                self.token = None;
            }
            // Reached when the deadline is new, came closer, or the entry came up: the only clock reading here.
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.token = Some(wheel.insert(tick, cx.waker().clone()));
            Poll::Pending
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            // During thread exit the wheel is gone, and with it the entry.
            let _ = WHEEL.try_with(|wheel| wheel.borrow_mut().remove(token));
        }
    }
}

/// Wakes tasks whose deadlines come up. Each worker runs it once, forever; without it no timer fires.
pub async fn drive() {
    let mut sleep = pin!(tokio::time::sleep_until(tokio::time::Instant::now()));
    let mut due = Vec::new();
    poll_fn(|cx| {
        loop {
            let now = Instant::now();
            let planned = WHEEL.with(|wheel| {
                let wheel = &mut *wheel.borrow_mut();
                wheel.take_due(now, &mut due);
                wheel.plan(cx.waker())
            });
            // Wakers run outside of the borrow: a woken task may touch its timer at once.
            due.drain(..).for_each(Waker::wake);
            let Some(planned) = planned else { return Poll::<()>::Pending };
            sleep.as_mut().reset(planned.into());
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

#[derive(Clone, Copy)]
struct Token {
    index: u32,
    generation: u32,
}

/// An entry of the wheel: in a slot's list while `waker` is there, else in the list of free entries.
struct Entry {
    waker: Option<Waker>,
    tick: u64,
    generation: u32,
    slot: u32,
    next: u32,
    prev: u32,
}

struct Wheel {
    started: Instant,
    entries: Vec<Entry>,
    free: u32,
    heads: Box<[u32]>,
    occupied: [u64; SLOTS / 64],
    /// Every tick before this one has been handled.
    cursor: u64,
    /// The tick that the driver sleeps until.
    planned: u64,
    driver: Option<Waker>,
}

impl Wheel {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            entries: Vec::new(),
            free: NONE,
            heads: vec![NONE; SLOTS].into_boxed_slice(),
            occupied: [0; SLOTS / 64],
            cursor: 0,
            planned: IDLE,
            driver: None,
        }
    }

    /// The first tick at which `deadline` has passed.
    fn tick_of(&self, deadline: Instant) -> u64 {
        let since = deadline.saturating_duration_since(self.started).as_nanos();
        u64::try_from(since.div_ceil(TICK.as_nanos())).unwrap_or(IDLE - 1)
    }

    fn entered_at(&self, token: Token) -> Option<u64> {
        let entry = self.entries.get(token.index as usize)?;
        (entry.generation == token.generation).then_some(entry.tick)
    }

    fn insert(&mut self, tick: u64, waker: Waker) -> Token {
        let tick = tick.clamp(self.cursor, self.cursor + SLOTS as u64 - 1);
        let slot = (tick % SLOTS as u64) as u32;
        let index = if self.free == NONE {
            self.entries.push(Entry { waker: None, tick: 0, generation: 0, slot: 0, next: NONE, prev: NONE });
            (self.entries.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = self.entries[index as usize].next;
            index
        };
        let head = self.heads[slot as usize];
        let entry = &mut self.entries[index as usize];
        (entry.waker, entry.tick, entry.slot, entry.next, entry.prev) = (Some(waker), tick, slot, head, NONE);
        let generation = entry.generation;
        if head != NONE {
            self.entries[head as usize].prev = index;
        }
        self.heads[slot as usize] = index;
        self.occupied[slot as usize / 64] |= 1 << (slot % 64);
        if tick < self.planned {
            self.planned = tick;
            if let Some(driver) = self.driver.take() {
                driver.wake();
            }
        }
        Token { index, generation }
    }

    fn remove(&mut self, token: Token) {
        if self.entered_at(token).is_some() {
            self.unlink(token.index);
        }
    }

    fn unlink(&mut self, index: u32) -> Option<Waker> {
        let free = self.free;
        let entry = &mut self.entries[index as usize];
        let (slot, next, prev) = (entry.slot as usize, entry.next, entry.prev);
        let waker = entry.waker.take();
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = free;
        self.free = index;
        if prev == NONE {
            self.heads[slot] = next;
            if next == NONE {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        } else {
            self.entries[prev as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].prev = prev;
        }
        waker
    }

    fn take_due(&mut self, now: Instant, due: &mut Vec<Waker>) {
        // Rounded down: a tick is due only when all of it has passed, so no deadline is met early.
        let now = (now.saturating_duration_since(self.started).as_nanos() / TICK.as_nanos()) as u64;
        while let Some(tick) = self.next_occupied().filter(|&tick| tick <= now) {
            self.cursor = tick;
            let slot = (tick % SLOTS as u64) as usize;
            while self.heads[slot] != NONE {
                due.extend(self.unlink(self.heads[slot]));
            }
        }
        self.cursor = self.cursor.max(now);
    }

    fn plan(&mut self, driver: &Waker) -> Option<Instant> {
        self.driver = Some(driver.clone());
        self.planned = self.next_occupied().unwrap_or(IDLE);
        let millis = TICK.as_millis() as u64;
        (self.planned != IDLE).then(|| self.started + Duration::from_millis(self.planned * millis))
    }

    /// The first tick from the cursor on that has an entry.
    fn next_occupied(&self) -> Option<u64> {
        let from = (self.cursor % SLOTS as u64) as usize;
        let words = self.occupied.len();
        for step in 0..=words {
            let word = (from / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (from % 64);
            } else if step == words {
                bits &= !(u64::MAX << (from % 64));
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - from) % SLOTS;
                return Some(self.cursor + ahead as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            tokio::task::spawn_local(drive());
            future.await
        })
    }

    async fn wait(timer: &mut Timer) {
        poll_fn(|cx| timer.poll(cx)).await;
    }

    #[test]
    fn deadlines_are_never_early_and_come_in_order() {
        run(async {
            let start = Instant::now();
            let order = std::rc::Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = [90u64, 30, 60, 0, 30]
                .into_iter()
                .map(|after| {
                    let order = order.clone();
                    tokio::task::spawn_local(async move {
                        let mut timer = Timer::new();
                        timer.set(start + Duration::from_millis(after));
                        wait(&mut timer).await;
                        assert!(start.elapsed() >= Duration::from_millis(after));
                        order.borrow_mut().push(after);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(*order.borrow(), [0, 30, 30, 60, 90]);
        });
    }

    #[test]
    fn a_deadline_moved_forward_fires_once_at_the_later_time() {
        run(async {
            let start = Instant::now();
            let mut timer = Timer::new();
            timer.set(start + Duration::from_millis(10));
            assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx))).await.is_pending());
            timer.set(start + Duration::from_millis(60));
            wait(&mut timer).await;
            assert!(start.elapsed() >= Duration::from_millis(60));
        });
    }

    #[test]
    fn a_deadline_moved_closer_fires_at_the_closer_time() {
        run(async {
            let start = Instant::now();
            let mut timer = Timer::new();
            timer.set(start + Duration::from_secs(30));
            assert!(poll_fn(|cx| Poll::Ready(timer.poll(cx))).await.is_pending());
            timer.set(start + Duration::from_millis(20));
            wait(&mut timer).await;
            assert!(start.elapsed() < Duration::from_secs(20));
        });
    }

    #[test]
    fn deadlines_beyond_the_wheel_are_entered_again() {
        let mut wheel = Wheel::new();
        let token = wheel.insert(10 * SLOTS as u64, Waker::noop().clone());
        assert_eq!(wheel.entered_at(token), Some(SLOTS as u64 - 1));
        let mut due = Vec::new();
        wheel.take_due(wheel.started + TICK * SLOTS as u32, &mut due);
        assert_eq!((due.len(), wheel.entered_at(token).is_none()), (1, true));
    }

    #[test]
    fn entries_are_reused_and_the_wheel_agrees_with_a_list() {
        let mut rng = rhumb_base::rng::Rng::new(3);
        let mut wheel = Wheel::new();
        let mut model: Vec<(u64, Token)> = Vec::new();
        for _ in 0..20_000 {
            if rng.below(3) < 2 {
                let tick = wheel.cursor + u64::from(rng.below(SLOTS as u32));
                model.push((tick, wheel.insert(tick, Waker::noop().clone())));
            } else if !model.is_empty() {
                let (_, token) = model.swap_remove(rng.below(model.len() as u32) as usize);
                wheel.remove(token);
            }
            if rng.below(50) == 0 {
                let now = wheel.cursor + u64::from(rng.below(300));
                let mut due = Vec::new();
                wheel.take_due(wheel.started + TICK * now as u32, &mut due);
                let before = model.len();
                model.retain(|&(tick, _)| tick > now);
                assert_eq!(due.len(), before - model.len());
            }
            assert_eq!(wheel.next_occupied(), model.iter().map(|&(tick, _)| tick).min());
        }
        assert!(wheel.entries.len() < 20_000);
    }
}
