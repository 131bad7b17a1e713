//! Spans: ten seconds, minutes, hours and days, which are gathered, closed when they are over, and kept for a while.

use crate::frame::{self, Frame};
use crate::shelf::{Kind, ShelfError, Write};
use crate::usage::Book;

use super::{DAY, HOUR, HOURS_KEPT, Inner, LOOKS_A_MINUTE, MINUTE, MINUTES_KEPT, TENS_KEPT};

/// How long days of usage are kept. Unit: seconds.
const DAYS_KEPT: u64 = 400 * DAY;

/// Looks that are kept as they are: those of a minute.
const LIVE: usize = 30;

/// Memory of them at most. Unit: bytes.
const LIVE_BYTES: usize = 2 << 20;

/// What has come since a moment. Unit: seconds since 1970.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) since: u64,
    pub(super) frame: Frame,
}

impl Inner {
    /// Closes what is over: ten seconds, a minute, an hour.
    pub(super) fn turn(&mut self, now: u64) {
        let (ten, minute, hour) = (now / 10 * 10, now / MINUTE * MINUTE, now / HOUR * HOUR);
        if ten != self.ten.since {
            self.close_ten();
            self.ten.since = ten;
        }
        if minute != self.minute.since {
            self.close_minute();
            self.minute.since = minute;
        }
        if hour != self.hour.0 {
            self.turn_hour(hour);
        }
    }

    /// Begins an hour.
    pub(super) fn turn_hour(&mut self, hour: u64) {
        self.close_hour();
        let book = self.shelf.one(Kind::Hours, hour).map(|bytes| Book::read(&bytes)).unwrap_or_default();
        self.hour = (hour, book);
    }

    pub(super) fn close_ten(&mut self) {
        let since = self.ten.since;
        let mut over = std::mem::take(&mut self.ten.frame);
        if over.is_empty() {
            return;
        }
        if since / MINUTE * MINUTE != self.minute.since {
            self.close_minute();
            self.minute.since = since / MINUTE * MINUTE;
        }
        for (number, totals) in &over {
            self.minute.frame.entry(*number).or_default().add(totals);
        }
        self.hand_on(since, &over);
        // A process before this one may have had the beginning of it.
        if let Some(bytes) = self.shelf.one(Kind::Tens, since) {
            frame::join(&mut over, &bytes);
        }
        self.waiting.push(Write::Put(Kind::Tens, since, frame::write(&over)));
    }

    pub(super) fn close_minute(&mut self) {
        let since = self.minute.since;
        let mut over = std::mem::take(&mut self.minute.frame);
        if over.is_empty() {
            return;
        }
        // A process before this one may have had the beginning of it.
        if let Some(bytes) = self.shelf.one(Kind::Minutes, since) {
            frame::join(&mut over, &bytes);
        }
        self.waiting.push(Write::Put(Kind::Minutes, since, frame::write(&over)));
    }

    /// Adds an hour that is over to its day.
    fn close_hour(&mut self) {
        let (hour, book) = std::mem::take(&mut self.hour);
        self.is_hour_new = false;
        if book.is_empty() {
            return;
        }
        self.waiting.push(Write::Put(Kind::Hours, hour, book.write()));
        let day = hour / DAY * DAY;
        let mut of_day = self.shelf.one(Kind::Days, day).map(|bytes| Book::read(&bytes)).unwrap_or_default();
        of_day.join(&book);
        self.waiting.push(Write::Put(Kind::Days, day, of_day.write()));
    }

    pub(super) fn keep_look(&mut self, now_ms: u64, frame: &Frame) {
        let length = now_ms.saturating_sub(self.looked_at.unwrap_or(now_ms));
        self.looked_at = Some(now_ms);
        let bytes = frame::write(frame);
        self.live_bytes += bytes.len();
        self.live.push_back((now_ms, length, bytes));
        while self.live.len() > LIVE || self.live_bytes > LIVE_BYTES {
            let Some((_, _, bytes)) = self.live.pop_front() else { break };
            self.live_bytes -= bytes.len();
        }
    }

    pub(super) fn write(&mut self, now: u64, is_last: bool) -> Result<(), ShelfError> {
        if is_last {
            // What is gathered is kept as it is; the next process goes on with it.
            self.close_ten();
            self.close_minute();
        }
        let is_minute = self.looks.is_multiple_of(LOOKS_A_MINUTE);
        if is_minute || is_last {
            if self.is_hour_new {
                self.waiting.push(Write::Put(Kind::Hours, self.hour.0, self.hour.1.write()));
                self.is_hour_new = false;
            }
            for (kind, kept) in [
                (Kind::Tens, TENS_KEPT),
                (Kind::Minutes, MINUTES_KEPT),
                (Kind::Hours, HOURS_KEPT),
                (Kind::Days, DAYS_KEPT),
            ] {
                let gone = self.shelf.below(kind, now.saturating_sub(kept));
                self.waiting.extend(gone.into_iter().map(|key| Write::Remove(kind, key)));
            }
            self.names.forget(now, &mut self.waiting);
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        let writes = std::mem::take(&mut self.waiting);
        self.apply(writes, is_minute || is_last)
    }

    pub(super) fn apply(&mut self, writes: Vec<Write>, durable: bool) -> Result<(), ShelfError> {
        self.taken_off += self.shelf.apply(writes, durable)? as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::answer::By;
    use crate::history::traffic::{START, Traffic};
    use crate::history::{History, MEMORY};

    #[test]
    fn the_first_ten_seconds_are_told_when_they_were() {
        let mut traffic = Traffic::new();
        let history = History::in_memory(Arc::clone(&traffic.board), MEMORY);
        let start = START + 52;
        history.look(start * 1000, false).unwrap();
        traffic.send("default/shop", "", 200, 4);
        for look in 1..30 {
            history.look((start + 2 * look) * 1000, false).unwrap();
        }
        let series = history.series(By::Route, None, START, START + 120, 10);
        let told = series.at.iter().zip(&series.requests_per_second).find(|(_, rate)| **rate > 0.0);
        assert_eq!(told.map(|(at, _)| *at), Some(START + 50));
    }
}
