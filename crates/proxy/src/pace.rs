//! A narrow line on purpose: content passes at so many bytes per second (`fault` policy, `bandwidth`).

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rhumb_net::timer::Timer;

/// How much passes at once: what belongs to this time. A worker's timers are about this coarse.
const STEP: Duration = Duration::from_millis(20);

/// The point in time that shared lines count from.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Content that passes slowly.
pub(crate) struct Pace {
    bytes_per_second: NonZeroU64,
    /// Content from the backend, as much as came at once.
    kept: Vec<u8>,
    /// How much of it has passed.
    passed: usize,
    /// Bytes that passed since then are paid for until [`Pace::paid_until`].
    paid_until: Option<Instant>,
    /// The same of all that share the line. **Unit**: nanoseconds since [`ORIGIN`].
    line: Option<Arc<AtomicU64>>,
    timer: Timer,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: NonZeroU64, line: Option<Arc<AtomicU64>>) -> Self {
        Self { bytes_per_second, kept: Vec::new(), passed: 0, paid_until: None, line, timer: Timer::new() }
    }

    /// True when there is a limit.
    pub(crate) fn is_slow(&self) -> bool {
        self.bytes_per_second != NonZeroU64::MAX
    }

    /// What has come and not passed.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.kept.get(self.passed..).unwrap_or_default()
    }

    /// Takes content when nothing waits.
    pub(crate) fn keep(&mut self, data: &[u8]) {
        self.kept.clear();
        self.kept.extend_from_slice(data);
        self.passed = 0;
    }

    /// How many of the bytes that wait may pass; pending while none may.
    pub(crate) fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.poll_step(cx).map(|step| step.min(self.waiting().len()))
    }

    /// How many bytes may pass, at least one; pending while none may.
    pub(crate) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if let Some(until) = self.paid_until {
            self.timer.set(until);
            if self.timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let step = self.bytes_per_second.get().saturating_mul(STEP.as_millis() as u64) / 1_000;
        let step = usize::try_from(step.max(1)).unwrap_or(usize::MAX);
        Poll::Ready(step)
    }

    /// So many of the bytes that wait have passed.
    pub(crate) fn pass(&mut self, count: usize) {
        self.passed += count;
        self.pay(count);
    }

    /// So many bytes have passed. They take their time from when the ones before were paid for, so that late timers do
    /// not add up; time without content is lost.
    pub(crate) fn pay(&mut self, count: usize) {
        let now = Instant::now();
        if let Some(line) = &self.line {
            self.paid_until = share(line, now, count, self.bytes_per_second);
            return;
        }
        let begun = self.paid_until.filter(|until| *until + 4 * STEP > now).unwrap_or(now);
        self.paid_until = begun.checked_add(Duration::from_nanos(cost(count, self.bytes_per_second)));
    }
}

/// How long so many bytes take. **Unit**: nanoseconds.
fn cost(count: usize, bytes_per_second: NonZeroU64) -> u64 {
    let nanos = u128::try_from(count).unwrap_or(0) * 1_000_000_000 / u128::from(bytes_per_second.get());
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// Passes bytes over a shared line: they are paid for behind those that others have passed before.
fn share(line: &AtomicU64, now: Instant, count: usize, bytes_per_second: NonZeroU64) -> Option<Instant> {
    let origin = *ORIGIN.get_or_init(|| now);
    let now = u64::try_from(now.saturating_duration_since(origin).as_nanos()).unwrap_or(u64::MAX);
    let earliest = now.saturating_sub(u64::try_from((4 * STEP).as_nanos()).unwrap_or(0));
    let cost = cost(count, bytes_per_second);
    let paid = |until: u64| if until > earliest { until } else { now }.saturating_add(cost);
    let before = line.fetch_update(Relaxed, Relaxed, |until| Some(paid(until))).unwrap_or(0);
    origin.checked_add(Duration::from_nanos(paid(before)))
}
