//! The end of a WebSocket when the process ends: a Close frame instead of a cut (RFC 6455 §7.4.1, 1001 "going away").
//!
//! The frame may only stand between two frames of the backend, so that those are followed ([`Frames`]). The client
//! answers it with a Close of its own, which reaches the backend: both sides see an orderly end.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rhumb_net::timer::Timer;

use crate::worker::{Watch, Worker};

/// Close from a server: FIN and opcode 8, two bytes, 1001.
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// The longest frame header from a server: two bytes and a length of eight.
const LONGEST_HEADER: usize = 10;

/// The frames of one direction (RFC 6455 §5.2), as far as their borders are concerned.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: [u8; LONGEST_HEADER + 4],
    /// Bytes of the header at hand.
    have: usize,
    /// Bytes of the frame's content to come.
    left: u64,
    is_closed: bool,
}

impl Frames {
    /// Follows what is passed on.
    pub(crate) fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                self.left -= skipped as u64;
                data = data.get(skipped..).unwrap_or_default();
                continue;
            }
            let [byte, rest @ ..] = data else { return };
            data = rest;
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            if self.have >= self.header_length() {
                self.left = self.content_length();
                self.is_closed |= self.header[0] & 0x0f == 8;
                self.have = 0;
            }
        }
    }

    /// True when another frame may be put here.
    pub(crate) fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.is_closed
    }

    fn header_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7f {
            126 => 4,
            127 => LONGEST_HEADER,
            _ => 2,
        };
        // A server must not mask (RFC 6455 §5.1); one that does is followed all the same.
        if self.header[1] & 0x80 == 0 { length } else { length + 4 }
    }

    fn content_length(&self) -> u64 {
        let number = |bytes: &[u8]| bytes.iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        match self.header[1] & 0x7f {
            126 => number(&self.header[2..4]),
            127 => number(&self.header[2..10]),
            short => short.into(),
        }
    }
}

/// When a WebSocket is told to go: in the last fifth of the drain, spread, so that clients do not all come back at once.
pub(crate) struct Goodbye {
    watch: Watch,
    timer: Timer,
    is_said: bool,
}

impl Goodbye {
    pub(crate) fn new(worker: &std::rc::Rc<Worker>) -> Self {
        Self { watch: Watch::new(worker), timer: Timer::new(), is_said: false }
    }

    /// Ready once, when it is time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_said {
            return Poll::Pending;
        }
        self.watch.watch(cx.waker());
        if self.timer.deadline().is_none() {
            let worker = self.watch.worker();
            let Some((begun, deadline)) = worker.drain() else { return Poll::Pending };
            let lead = deadline.saturating_duration_since(begun) / 10;
            let spread = f64::from(worker.rng.borrow_mut().below(1 << 16)) / f64::from(1 << 16);
            self.timer.set(time_of(deadline, lead, spread));
        }
        if self.timer.poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.is_said = true;
        Poll::Ready(())
    }
}

fn time_of(deadline: Instant, lead: Duration, spread: f64) -> Instant {
    deadline.checked_sub(lead + lead.mul_f64(spread)).unwrap_or(deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_found_however_the_bytes_are_cut() {
        let mut stream = vec![0x81, 2, b'h', b'i', 0x82, 126, 0, 200];
        stream.extend([7; 200]);
        let first_two = stream.len();
        stream.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend(vec![9; 65_536]);
        stream.extend([0x89, 0]);
        for step in [1, 2, 3, 7, 100, 5_000, stream.len()] {
            let mut frames = Frames::default();
            let mut borders = Vec::new();
            let mut at = 0;
            for piece in stream.chunks(step) {
                frames.pass(piece);
                at += piece.len();
                if frames.is_between() {
                    borders.push(at);
                }
            }
            assert_eq!(borders.last(), Some(&stream.len()), "{step}");
            if step == 1 {
                assert_eq!(borders, [4, first_two, stream.len() - 2, stream.len()]);
            }
        }
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut frames = Frames::default();
        assert!(frames.is_between());
        frames.pass(&GOING_AWAY);
        assert!(!frames.is_between());
        let mut masked = Frames::default();
        masked.pass(&[0x81, 0x81, 1, 2, 3, 4, b'x']);
        assert!(masked.is_between());
    }

    #[test]
    fn goodbyes_are_spread_over_a_tenth_of_the_drain() {
        let begun = Instant::now();
        let deadline = begun + Duration::from_secs(100);
        let at = |spread| time_of(deadline, Duration::from_secs(10), spread).duration_since(begun).as_secs();
        assert_eq!((at(0.0), at(0.5), at(1.0)), (90, 85, 80));
    }
}
