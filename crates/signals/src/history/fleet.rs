//! What many processes counted, put together: the history of a control plane.
//!
//! Processes report ten seconds at a time. Spans are kept open for a while, since reports come at different times, and are
//! then made one frame ([`Pending::settle`]), in which each call stands once:
//!
//! - Of an edge and of an endpoint both sides may tell. Those of the service win: who is called knows best what it was asked
//!   and what it answered. What the caller alone tells fills what has no proxy, and failures that never arrived are added.
//! - A proxy is heard only about edges that it is one side of, and about endpoints of services that it calls
//!   ([`Reporter::side`]); of routes, consumers and usage only gateways are heard.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rhumb_telemetry::signals::{Dimension, Name, OTHER, Outcome, Totals};
use rhumb_telemetry::{Board, Registry};

use super::{DAY, HALF_A_LOOK_MS, HOUR, History, LOOK, MINUTE};
use crate::apis::Finder;
use crate::frame::Frame;
use crate::shelf::{Shelf, ShelfError};
use crate::tens;

/// How long a span takes. Unit: seconds.
const SPAN: u64 = 10;

/// How long reports are waited for after their span is over. Unit: seconds.
const GRACE: u64 = 5;

/// Series of one span at most; what comes then is counted as `other`.
pub const SERIES: usize = 65_536;

/// Spans without a report that are told one by one; after more the history goes on where it is.
const GAP: u64 = 12;

/// What the file of a control plane's history takes at most. Unit: bytes.
pub const FILE: usize = 256 << 20;

/// Who reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reporter {
    /// `NAMESPACE/ACCOUNT` that it has proved.
    pub account: String,
    /// Services that it is an endpoint of, as `NAMESPACE/NAME`.
    pub services: Vec<Arc<str>>,
    /// Its address, as callers have it, without a port.
    pub address: String,
    /// It is a gateway, which is heard about routes, consumers and usage.
    pub is_gateway: bool,
}

/// What came of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Series that were taken over.
    pub taken: u64,
    /// Series that are none of the reporter's business, or no series.
    pub foreign: u64,
    /// Series that came when their span was closed already.
    pub late: u64,
    /// Series that found no room, and are counted as `other`.
    pub overflow: u64,
}

/// Whose knowledge something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Side {
    /// Of who is called.
    Target,
    /// Of who calls.
    Source,
    /// Of a gateway, about itself.
    Own,
}

impl Reporter {
    /// On which side of a series it is; none where that is not its business.
    fn side(&self, dimension: Dimension, name: &Name) -> Option<Side> {
        match dimension {
            Dimension::Edge | Dimension::Connection if self.serves(name.part(1)) => Some(Side::Target),
            Dimension::Edge | Dimension::Connection => (name.part(0) == self.account).then_some(Side::Source),
            Dimension::Endpoint => Some(Side::Source),
            _ => self.is_gateway.then_some(Side::Own),
        }
    }

    /// `target`: `NAMESPACE/NAME:PORT`.
    pub(crate) fn serves(&self, target: &str) -> bool {
        let service = target.rsplit_once(':').map_or(target, |(service, _)| service);
        self.services.iter().any(|own| **own == *service)
    }
}

/// What others count.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    open: BTreeMap<u64, Pending>,
    /// When the last span began that is closed. Unit: seconds since 1970.
    closed: u64,
}

/// A span that is not closed.
#[derive(Debug, Default)]
struct Pending {
    series: HashMap<(Dimension, Name, Side), Totals>,
}

impl Pending {
    /// False when it is counted as `other`.
    fn add(&mut self, dimension: Dimension, name: Name, side: Side, totals: &Totals) -> bool {
        let key = (dimension, name, side);
        let has_room = self.series.len() < SERIES || self.series.contains_key(&key);
        let key = if has_room { key } else { (dimension, Name::new(&vec![OTHER; dimension.names()]), side) };
        self.series.entry(key).or_default().add(totals);
        has_room
    }

    /// Each call once.
    fn settle(self) -> Vec<(Dimension, Name, Totals)> {
        let of = |name: &Name| (name.part(0).to_owned(), ip_of(name.part(1)).to_owned());
        // Callers know which port it is.
        let called = self
            .series
            .keys()
            .filter(|(dimension, _, side)| (*dimension, *side) == (Dimension::Endpoint, Side::Source));
        let called: HashMap<(String, String), Name> =
            called.map(|(_, name, _)| (of(name), name.clone())).collect();
        let mut told: HashSet<(Dimension, (String, String))> = HashSet::new();
        let mut arrived: HashMap<(String, String), (u64, Name)> = HashMap::new();
        for ((dimension, name, side), totals) in &self.series {
            if *side == Side::Target {
                told.insert((*dimension, of(name)));
                if *dimension == Dimension::Edge {
                    arrived.entry(of(name)).or_insert_with(|| (0, name.clone())).0 += totals.errors();
                }
            }
        }
        let mut settled = Vec::with_capacity(self.series.len());
        for ((dimension, name, side), totals) in self.series {
            if (dimension, side) == (Dimension::Endpoint, Side::Target) {
                settled.push((dimension, called.get(&of(&name)).cloned().unwrap_or(name), totals));
            } else if side != Side::Source || !told.contains(&(dimension, of(&name))) {
                settled.push((dimension, name, totals));
            } else if dimension == Dimension::Edge
                && let Some((known, name)) = arrived.get_mut(&of(&name))
            {
                let lost = totals.errors().saturating_sub(*known);
                *known = known.saturating_sub(totals.errors());
                if lost > 0 {
                    let mut failed = Totals::default();
                    failed.outcomes[Outcome::BackendError as usize] = lost;
                    // What never arrived was sent in no other way than what did.
                    settled.push((dimension, name.clone(), failed));
                }
            }
        }
        settled
    }
}

impl History {
    /// A history of what others count, in memory.
    pub fn of_fleet(limit: usize) -> Self {
        let board = Board::new(0, 1, &Registry::new());
        Self::new(board, Shelf::in_memory(limit), Finder::of_fleet()).hearing()
    }

    /// A history of what others count, in a file that outlives the process.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn of_fleet_in_file(path: &Path, limit: usize) -> Result<Self, ShelfError> {
        let board = Board::new(0, 1, &Registry::new());
        Ok(Self::new(board, Shelf::in_file(path, limit)?, Finder::of_fleet()).hearing())
    }

    fn hearing(self) -> Self {
        self.lock().fleet = Some(Fleet::default());
        self
    }

    /// Takes over what somebody reports of a span that ended `age_ms` ago. `now_ms`: since 1970.
    pub fn take(&self, reporter: &Reporter, series: &[u8], age_ms: u64, now_ms: u64) -> Taken {
        let mut inner = self.lock();
        let mut taken = Taken::default();
        let Some(fleet) = &mut inner.fleet else { return taken };
        // The nearest span of this clock: those of others go differently.
        let began = now_ms.saturating_sub(age_ms).saturating_sub(SPAN * 1000);
        let since = (began + SPAN * 500) / (SPAN * 1000) * SPAN;
        if since <= fleet.closed || since * 1000 > now_ms {
            taken.foreign = tens::read(series, |_, _, _| taken.late += 1);
            return taken;
        }
        let pending = fleet.open.entry(since).or_default();
        let mut called: HashSet<String> = HashSet::new();
        let mut endpoints = Vec::new();
        let mut put = |dimension, name, side, totals: &Totals| {
            if pending.add(dimension, name, side, totals) {
                taken.taken += 1;
            } else {
                taken.overflow += 1;
            }
        };
        let mut foreign = 0;
        let unread = tens::read(series, |dimension, name, totals| match reporter.side(dimension, &name) {
            None => foreign += 1,
            Some(Side::Source) if dimension == Dimension::Endpoint => endpoints.push((name, totals)),
            Some(side) => {
                if side == Side::Source {
                    called.insert(name.part(1).to_owned());
                }
                if dimension == Dimension::Edge && side == Side::Target && !reporter.address.is_empty() {
                    let own = Name::new(&[name.part(1), &reporter.address]);
                    put(Dimension::Endpoint, own, Side::Target, &totals);
                }
                put(dimension, name, side, &totals);
            }
        });
        for (name, totals) in endpoints {
            // What a proxy has beside itself is no endpoint to anybody else.
            if reporter.is_gateway || called.contains(name.part(0)) {
                put(Dimension::Endpoint, name, Side::Source, &totals);
            }
        }
        taken.foreign = foreign + unread;
        taken
    }

    /// Closes spans that nobody is waited for any more. To be called every [`LOOK`]. `now_ms`: since 1970; `is_last`: the
    /// process ends.
    ///
    /// # Errors
    /// When the file cannot be written; what was to be written then is lost.
    pub fn settle(&self, now_ms: u64, is_last: bool) -> Result<(), ShelfError> {
        let mut inner = self.lock();
        inner.looks += 1;
        let inner = &mut *inner;
        let Some(fleet) = &mut inner.fleet else { return Ok(()) };
        let now = now_ms / 1000;
        let wait = if is_last { 0 } else { SPAN + GRACE };
        let last = now.saturating_sub(wait) / SPAN * SPAN;
        let first = (fleet.closed + SPAN).max(last.saturating_sub(GAP * SPAN));
        let mut closed = Vec::new();
        for since in (first..=last).step_by(usize::try_from(SPAN).unwrap_or(10)) {
            closed.push((since, fleet.open.remove(&since).unwrap_or_default()));
        }
        fleet.open.retain(|since, _| *since > last);
        fleet.closed = fleet.closed.max(last);
        for (since, pending) in closed {
            inner.close_span(since, pending);
        }
        self.finder.begin(now);
        self.keep_apis(inner, is_last);
        inner.write(now_ms.saturating_sub(HALF_A_LOOK_MS) / 1000, is_last)
    }
}

impl super::Inner {
    /// What every request is counted by: among processes that is who called whom.
    pub(super) fn everything(&self) -> Dimension {
        if self.fleet.is_some() { Dimension::Edge } else { Dimension::Route }
    }

    fn close_span(&mut self, since: u64, pending: Pending) {
        let mut frame = Frame::new();
        let hour = since / HOUR * HOUR;
        if hour != self.hour.0 {
            self.turn_hour(hour);
        }
        for (dimension, name, totals) in pending.settle() {
            if dimension == Dimension::Usage {
                self.hour.1.add(&name, &totals);
                self.is_hour_new = true;
                continue;
            }
            let number = self.names.number(dimension, &name, since, &mut self.waiting);
            frame.entry(number).or_default().add(&totals);
        }
        let end = (since + SPAN) * 1000;
        if self.looked_at.is_none() {
            self.looked_at = Some(since * 1000);
        }
        self.keep_look(end, &frame);
        let minute = since / MINUTE * MINUTE;
        if minute != self.minute.since {
            self.close_minute();
            self.minute.since = minute;
        }
        self.ten = super::spans::Gathered { since, frame };
        self.close_ten();
        debug_assert!(
            SPAN.is_multiple_of(LOOK.as_secs()) && HOUR.is_multiple_of(SPAN) && DAY.is_multiple_of(HOUR)
        );
    }
}

/// The IP address of an endpoint; the whole text where it is none.
fn ip_of(endpoint: &str) -> &str {
    let Some((ip, port)) = endpoint.rsplit_once(':') else { return endpoint };
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if port.parse::<u16>().is_ok() && ip.parse::<std::net::IpAddr>().is_ok() { ip } else { endpoint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{By, Sort};
    use crate::usage::{Column, Query, Step};
    use std::time::Duration;

    const START: u64 = 1_800_000_000 / DAY * DAY;

    fn totals(ok: u64, failed: u64) -> Totals {
        let mut totals = Totals::default();
        totals.outcomes[Outcome::Ok as usize] = ok;
        totals.outcomes[Outcome::BackendError as usize] = failed;
        totals.buckets.0[10] = ok + failed;
        totals
    }

    fn edge(source: &str, target: &str, ok: u64, failed: u64) -> (Dimension, Name, Totals) {
        (Dimension::Edge, Name::new(&[source, target, "mtls"]), totals(ok, failed))
    }

    fn reporter(account: &str, services: &[&str]) -> Reporter {
        Reporter {
            account: account.to_owned(),
            services: services.iter().map(|service| Arc::from(*service)).collect(),
            address: "10.0.0.7".to_owned(),
            is_gateway: false,
        }
    }

    /// Reports of a span, four seconds after it.
    fn report(history: &History, of: &Reporter, since: u64, series: &[(Dimension, Name, Totals)]) -> Taken {
        history.take(of, &tens::write(series), 4_000, (since + SPAN + 4) * 1000)
    }

    fn shown(history: &History) -> Vec<(String, String, u64, u64)> {
        let edges = history.edges(None).edges.into_iter();
        edges
            .map(|edge| {
                let golden = edge.golden;
                let errors = golden.error_ratio.unwrap_or_default() * golden.requests as f64;
                (edge.source, edge.target, golden.requests, errors.round() as u64)
            })
            .collect()
    }

    #[test]
    fn both_sides_of_a_call_are_told_once_and_the_side_of_the_service_wins() {
        let history = History::of_fleet(1 << 20);
        let (web, orders) = (reporter("shop/web", &["shop/web"]), reporter("shop/orders", &["shop/orders"]));
        let endpoint = (Dimension::Endpoint, Name::new(&["shop/orders:80", "10.0.0.7:9000"]), totals(90, 10));
        let told =
            [edge("shop/web", "shop/orders:80", 90, 10), endpoint, edge("shop/web", "db/x:5432", 7, 0)];
        assert_eq!(report(&history, &web, START, &told).taken, 3);
        // Of ten failures six never arrived.
        report(&history, &orders, START, &[edge("shop/web", "shop/orders:80", 91, 4)]);
        history.settle((START + SPAN + GRACE) * 1000, false).unwrap();
        assert_eq!(
            shown(&history),
            [
                ("shop/web".to_owned(), "db/x:5432".to_owned(), 7, 0),
                ("shop/web".to_owned(), "shop/orders:80".to_owned(), 101, 10),
            ]
        );
        let top = history.top(By::Endpoint, Duration::from_secs(10), Sort::Name, 9);
        let found: Vec<_> = top.items.iter().map(|item| (&*item.name, item.golden.requests)).collect();
        assert_eq!(found, [("shop/orders:80 10.0.0.7:9000", 95)]);
        let series = history.series(By::Edge, Some("shop/web>shop/orders:80"), START, START + 20, 10);
        assert_eq!(series.requests_per_second[0], 10.1);
        let late = report(&history, &web, START, &told);
        assert_eq!((late.taken, late.late), (0, 3));
    }

    #[test]
    fn nobody_is_heard_about_others() {
        let history = History::of_fleet(1 << 20);
        let liar = reporter("shop/liar", &["shop/liar"]);
        let endpoint =
            |backend| (Dimension::Endpoint, Name::new(&[backend, "10.0.0.1:80"]), totals(0, 1_000));
        let told = [
            edge("shop/web", "shop/orders:80", 0, 1_000),
            edge("shop/web", "shop/liar2:80", 0, 1_000),
            endpoint("shop/orders:80"),
            (Dimension::Route, Name::new(&["shop/route", "/"]), totals(0, 5)),
            (Dimension::Consumer, Name::new(&["shop/acme", ""]), totals(5, 0)),
        ];
        let taken = report(&history, &liar, START, &told);
        assert_eq!((taken.taken, taken.foreign), (0, 4));
        // What it says of its own calls is its own.
        report(
            &history,
            &liar,
            START,
            &[edge("shop/liar", "shop/orders:80", 0, 3), endpoint("shop/orders:80")],
        );
        history.settle((START + SPAN + GRACE) * 1000, false).unwrap();
        assert_eq!(shown(&history), [("shop/liar".to_owned(), "shop/orders:80".to_owned(), 3, 3)]);
        assert!(history.top(By::Route, Duration::from_secs(10), Sort::Name, 9).items.is_empty());
    }

    #[test]
    fn gateways_are_heard_about_routes_and_usage_and_what_ends_is_told_to_have_ended() {
        let history = History::of_fleet(1 << 20);
        let gateway = Reporter { is_gateway: true, ..reporter("shop/edge", &[]) };
        let usage = Name::new(&["shop/route", "/x", "GET", "shop/acme", "gold", "200"]);
        for span in 0..6 {
            let told = [
                (Dimension::Route, Name::new(&["shop/route", "/x"]), totals(50, 0)),
                (Dimension::Usage, usage.clone(), totals(50, 0)),
            ];
            let since = START + span * SPAN;
            assert_eq!(report(&history, &gateway, since, &told).taken, 2);
            history.settle((since + SPAN + GRACE) * 1000, false).unwrap();
        }
        let all = Query {
            from: START,
            to: START + HOUR,
            by: vec![Column::Consumer],
            step: Step::All,
            ..Query::default()
        };
        assert_eq!(history.usage(&all).rows[0].requests, 300);
        let series = history.series(By::Route, None, START, START + 60, 10);
        assert_eq!(series.requests_per_second, [0.0; 6]);
        let series = history.series(By::Route, Some("shop/route"), START, START + 60, 10);
        assert_eq!(series.requests_per_second, [5.0; 6]);
        history.settle((START + 5 * SPAN + 3 * SPAN + GRACE) * 1000, false).unwrap();
        assert_eq!(history.top(By::Route, Duration::from_secs(10), Sort::Name, 9).items, []);
    }
}
