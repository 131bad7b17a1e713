//! What is asked of a history: the last seconds, what came when, usage, events.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_telemetry::signals::{Dimension, Name, Outcome, Totals};

use crate::answer::{By, Event, Events, Golden, Item, Level, Now, Series, Sort, Top, round};
use crate::frame;
use crate::shelf::Kind;
use crate::usage::{Book, Query, Rows, Step, Usage};

use super::{DAY, HOUR, HOURS_KEPT, History, Inner, MINUTE, MINUTES_KEPT, TENS_KEPT};

/// Points of one answer at most.
const POINTS: u64 = 3_000;

impl History {
    /// All requests of the last seconds.
    pub fn now(&self, window: Duration) -> Now {
        let inner = self.lock();
        let (at, seconds, found) = inner.lately(window, inner.everything(), |_| String::new());
        let golden = found.values().next().map_or_else(Golden::default, |totals| Golden::of(totals, seconds));
        Now { at, window_seconds: round(seconds), golden }
    }

    /// Who had what in the last seconds, at most a minute.
    pub fn top(&self, by: By, window: Duration, sort: Sort, limit: usize) -> Top {
        let inner = self.lock();
        let (at, seconds, found) = inner.lately(window, by.dimension(), |name| by.name(name));
        let mut connections = match by {
            By::Edge => Self::connections(&inner, window, |name| by.name(name)),
            _ => BTreeMap::new(),
        };
        let mut items: Vec<_> = found
            .into_iter()
            .map(|(name, totals)| Item {
                connections: connections.remove(&name).map(|tied| tied.told(seconds)),
                name,
                golden: Golden::of(&totals, seconds),
            })
            .collect();
        items.extend(connections.into_iter().map(|(name, tied)| Item {
            name,
            golden: Golden::default(),
            connections: Some(tied.told(seconds)),
        }));
        sort.apply(&mut items);
        items.truncate(limit);
        Top { at, by, window_seconds: round(seconds), items }
    }

    /// What came when, of one or of all together. Times in seconds since 1970; `step` of 0 is as fine as is sensible.
    #[allow(clippy::cast_precision_loss)] // seconds of a step
    pub fn series(&self, by: By, name: Option<&str>, from: u64, to: u64, step: u64) -> Series {
        let inner = self.lock();
        let newest = inner.looked_at.unwrap_or(0) / 1000;
        let to = to.min(newest.max(from) + MINUTE);
        let from = from.max(to.saturating_sub(MINUTES_KEPT + HOUR)).min(to);
        let finest = if newest.saturating_sub(from) <= TENS_KEPT { 10 } else { MINUTE };
        let span = to - from;
        let step = step.max(finest).max(span.div_ceil(POINTS)).next_multiple_of(finest);
        let from = from / step * step;
        let to = to.next_multiple_of(step).max(from + step);
        let mut steps: BTreeMap<u64, Totals> = BTreeMap::new();
        let dimension = if name.is_none() && by == By::Route { inner.everything() } else { by.dimension() };
        inner.frames(from, to, |at, bytes| {
            let sum = steps.entry(at / step * step).or_default();
            frame::read(bytes, |number, totals| {
                if let Some((of, series)) = inner.names.name(number)
                    && of == dimension
                    && name.is_none_or(|name| by.name(series) == name)
                {
                    sum.add(totals);
                }
            });
        });
        let mut series = Series {
            by,
            name: name.map(str::to_owned),
            from,
            to,
            step,
            at: Vec::new(),
            requests_per_second: Vec::new(),
            errors_per_second: Vec::new(),
            client_errors_per_second: Vec::new(),
            p50_ms: Vec::new(),
            p95_ms: Vec::new(),
            p99_ms: Vec::new(),
            bytes_in_per_second: Vec::new(),
            bytes_out_per_second: Vec::new(),
        };
        let nothing = Totals::default();
        let mut at = from;
        // What is still gathered is not told: a step that looks small would be one that is not over.
        while at < to && at + finest <= newest {
            let totals = steps.get(&at).unwrap_or(&nothing);
            let golden = Golden::of(totals, step as f64);
            series.at.push(at);
            series.requests_per_second.push(golden.requests_per_second);
            series.errors_per_second.push(golden.errors_per_second);
            let of_clients = totals.outcomes[Outcome::ClientError as usize];
            series.client_errors_per_second.push(round(of_clients as f64 / step as f64));
            series.p50_ms.push(golden.p50_ms);
            series.p95_ms.push(golden.p95_ms);
            series.p99_ms.push(golden.p99_ms);
            series.bytes_in_per_second.push(golden.bytes_in_per_second);
            series.bytes_out_per_second.push(golden.bytes_out_per_second);
            at += step;
        }
        series
    }

    /// Usage of a time.
    pub fn usage(&self, query: &Query) -> Usage {
        let inner = self.lock();
        let mut rows = Rows::default();
        let (hour, book) = (inner.hour.0, &inner.hour.1);
        // Hours where they are asked for, or where they are kept and the time does not begin with a day.
        let by_hours = query.step == Step::Hour
            || query.step == Step::All && hour.saturating_sub(query.from) < HOURS_KEPT - DAY;
        let (kind, unit) = if by_hours { (Kind::Hours, HOUR) } else { (Kind::Days, DAY) };
        let from = query.from / unit * unit;
        let at = |at: u64| (query.step != Step::All).then_some(at);
        let last = query.to.saturating_sub(1);
        inner.shelf.range(kind, from, last, |begun, bytes| {
            if !(by_hours && begun == hour) {
                rows.add(query, at(begun), &Book::read(bytes));
            }
        });
        let begun = hour / unit * unit;
        if !book.is_empty() && (from..=last).contains(&begun) {
            rows.add(query, at(begun), book);
        }
        Usage { from, to: query.to, rows: rows.into_rows(query) }
    }

    /// What happened between two times (seconds since 1970), the latest first. `kinds`: only these; none: all.
    pub fn events(&self, from: f64, to: f64, kinds: &[&str], least: Level, limit: usize) -> Events {
        let inner = self.lock();
        let mut events = Vec::new();
        inner.shelf.range(Kind::Events, 0, u64::MAX, |_, bytes| {
            if let Ok(event) = serde_json::from_slice::<Event>(bytes)
                && (from..=to).contains(&event.at)
                && event.level >= least
                && (kinds.is_empty() || kinds.contains(&&*event.kind))
            {
                events.push(event);
            }
        });
        events.reverse();
        events.truncate(limit);
        Events { events }
    }
}

impl Inner {
    /// Frames that begin between two times, the finest that is kept of each: minutes, ten seconds, and what is gathered.
    pub(super) fn frames(&self, from: u64, to: u64, mut visit: impl FnMut(u64, &[u8])) {
        if from >= to {
            return;
        }
        // Where ten seconds are kept, minutes would be told twice.
        let fine = self.shelf.ends(Kind::Tens).map_or(u64::MAX, |(first, _)| {
            let minute = first / MINUTE * MINUTE;
            if self.has_all_tens(minute) { minute } else { minute + MINUTE }
        });
        self.shelf.range(Kind::Minutes, from, (to - 1).min(fine.saturating_sub(1)), &mut visit);
        self.shelf.range(Kind::Tens, from.max(fine), to - 1, &mut visit);
        let gathered = [(&self.minute, fine == u64::MAX), (&self.ten, true)];
        for (gathered, is_told) in gathered {
            if is_told && (from..to).contains(&gathered.since) && !gathered.frame.is_empty() {
                visit(gathered.since, &frame::write(&gathered.frame));
            }
        }
    }

    /// True when what is kept by ten seconds of a minute is all that came in it: the earlier of them may have been given up.
    fn has_all_tens(&self, minute: u64) -> bool {
        if !self.shelf.has(Kind::Minutes, minute) {
            return true;
        }
        let came = |kind, to| {
            let mut came = 0u64;
            self.shelf.range(kind, minute, to, |_, bytes| {
                frame::read(bytes, |_, totals| came = came.wrapping_add(totals.count() + totals.opened));
            });
            came
        };
        came(Kind::Tens, minute + MINUTE - 1) == came(Kind::Minutes, minute)
    }

    /// What came in the last looks: when they ended, how long they were together (seconds), and totals by name.
    #[allow(clippy::cast_precision_loss)] // milliseconds
    pub(super) fn lately<K: Ord>(
        &self,
        window: Duration,
        dimension: Dimension,
        name: impl Fn(&Name) -> K,
    ) -> (f64, f64, BTreeMap<K, Totals>) {
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut found = BTreeMap::new();
        let mut length = 0;
        for (_, took, bytes) in self.live.iter().rev() {
            if length >= window {
                break;
            }
            length += took;
            self.collect(bytes, dimension, &name, &mut found);
        }
        (self.looked_at.unwrap_or(0) as f64 / 1000.0, (length.max(1)) as f64 / 1000.0, found)
    }

    pub(super) fn collect<K: Ord>(
        &self,
        bytes: &[u8],
        dimension: Dimension,
        name: impl Fn(&Name) -> K,
        into: &mut BTreeMap<K, Totals>,
    ) {
        frame::read(bytes, |number, totals| {
            if let Some((of, series)) = self.names.name(number)
                && of == dimension
            {
                into.entry(name(series)).or_default().add(totals);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::history::traffic::{START, Traffic};
    use crate::history::{FILE, MEMORY};
    use crate::usage::Column;

    fn usage(
        history: &History,
        from: u64,
        to: u64,
        by: &[Column],
        step: Step,
    ) -> Vec<(Option<u64>, String, u64)> {
        let query = Query { from, to, by: by.to_vec(), step, ..Query::default() };
        let name =
            |row: &crate::usage::Row| row.consumer.clone().or_else(|| row.status.clone()).unwrap_or_default();
        history.usage(&query).rows.iter().map(|row| (row.at, name(row), row.requests)).collect()
    }

    #[test]
    fn the_last_seconds_are_told_by_name() {
        let mut traffic = Traffic::new();
        let history = History::in_memory(Arc::clone(&traffic.board), MEMORY);
        history.look(START * 1000, false).unwrap();
        for second in 1..=10 {
            for _ in 0..30 {
                traffic.send("default/web", "default/acme", 200, 10);
            }
            traffic.send("default/api", "", 503, 100);
            history.look((START + 2 * second) * 1000, false).unwrap();
        }
        let now = history.now(Duration::from_secs(10));
        assert_eq!((now.window_seconds, now.golden.requests_per_second), (10.0, 15.5));
        let top = history.top(By::Route, Duration::from_secs(10), Sort::Requests, 10);
        let names: Vec<_> = top.items.iter().map(|item| &*item.name).collect();
        assert_eq!(names, ["default/web", "default/api"]);
        assert_eq!(top.items[1].golden.error_ratio, Some(1.0));
        assert!((9.0..=11.5).contains(&top.items[0].golden.p50_ms.unwrap()), "{top:?}");
        let by_errors = history.top(By::Rule, Duration::from_secs(10), Sort::Errors, 1);
        assert_eq!(by_errors.items[0].name, "default/api /x/*");
        let edges = history.edges(None);
        assert_eq!((&*edges.edges[0].source, &*edges.edges[0].target), ("gateway", "default/shop"));
        assert_eq!(
            history.top(By::Consumer, Duration::from_secs(4), Sort::Name, 9).items[0].golden.requests,
            60
        );
    }

    #[test]
    fn a_day_is_kept_first_by_ten_seconds_then_by_minute() {
        let mut traffic = Traffic::new();
        let history = History::in_memory(Arc::clone(&traffic.board), MEMORY);
        traffic.run(&history, START, 4 * HOUR);
        let fine =
            history.series(By::Route, Some("default/web"), START + 4 * HOUR - 600, START + 4 * HOUR, 0);
        assert_eq!((fine.step, fine.at.len()), (10, 60));
        assert!(fine.requests_per_second[..59].iter().all(|rate| *rate == 0.5), "{fine:?}");
        let day = history.series(By::Route, None, START, START + 4 * HOUR, 600);
        assert_eq!((day.step, day.at.len()), (600, 24));
        let requests: f64 = day.requests_per_second.iter().map(|rate| rate * 600.0).sum();
        assert!((requests - 7200.0).abs() <= 5.0, "{requests}");
        let failing = day.errors_per_second.iter().filter(|rate| **rate > 0.0).count();
        assert_eq!(failing, 4, "{:?}", day.errors_per_second);
        assert_eq!(history.edges(Some(START + HOUR)).edges[0].golden.requests, 30);
        let mut traffic = Traffic::new();
        let history = History::in_memory(Arc::clone(&traffic.board), MEMORY);
        traffic.run(&history, START + 73, 20);
        let young = history.series(By::Route, None, START, START + 120, 10);
        let requests: f64 = young.requests_per_second.iter().map(|rate| rate * 10.0).sum();
        assert!((8.0..=10.0).contains(&requests), "{young:?}");
        let none = history.series(By::Consumer, Some("nobody"), START, START + HOUR, 60);
        assert!(none.p50_ms.iter().all(Option::is_none));
    }

    #[test]
    fn usage_is_told_by_hour_and_day_and_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signals.redb");
        let mut traffic = Traffic::new();
        let history = History::in_file(Arc::clone(&traffic.board), &path, FILE).unwrap();
        traffic.run(&history, START + 22 * HOUR, 3 * HOUR);
        traffic.send("default/web", "default/acme", 200, 10);
        history.look((START + 25 * HOUR + 30) * 1000, true).unwrap();
        history.tell(&Event {
            at: 5.0,
            kind: "configuration_applied".to_owned(),
            level: Level::Info,
            about: String::new(),
            text: "revision 2 is live".to_owned(),
            proxy: None,
        });
        drop(history);
        let mut traffic = Traffic::new();
        let history = History::in_file(Arc::clone(&traffic.board), &path, FILE).unwrap();
        history.look((START + 25 * HOUR + 40) * 1000, false).unwrap();
        traffic.run(&history, START + 25 * HOUR + 42, 100);
        let (from, to) = (START, START + 2 * DAY);
        let days = usage(&history, from, to, &[], Step::Day);
        assert_eq!(days, [(Some(START), String::new(), 3600), (Some(START + DAY), String::new(), 1851)]);
        let hours = usage(&history, START + 23 * HOUR, to, &[Column::Consumer], Step::Hour);
        assert_eq!(hours.len(), 4, "{hours:?}");
        assert_eq!(hours[3], (Some(START + 25 * HOUR), "default/acme".to_owned(), 1));
        let all = usage(&history, from, to, &[Column::Status], Step::All);
        assert_eq!(all.iter().map(|row| row.2).sum::<u64>(), 3600 + 1851);
        assert_eq!(all[1].1, "503");
        let series = history.series(By::Route, Some("default/web"), START + 23 * HOUR, START + 24 * HOUR, 60);
        assert!(series.requests_per_second[5..].iter().all(|rate| *rate == 0.5));
        let events = history.events(0.0, 10.0, &[], Level::Info, 10).events;
        assert_eq!(events[0].text, "revision 2 is live");
        assert!(history.events(0.0, 10.0, &["other"], Level::Info, 10).events.is_empty());
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size < FILE as u64, "{size}");
    }
}
