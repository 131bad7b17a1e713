//! What a process counted, for somebody else who puts it together with what others did: ten seconds at a time.

use std::collections::{HashMap, VecDeque};

use rhumb_telemetry::signals::{Dimension, Name, OTHER, Totals};

use super::{History, Inner};
use crate::answer::Event;
use crate::frame::Frame;
use crate::tens;

/// Spans that wait to be fetched at most; with more, the oldest are dropped.
const WAITING: usize = 6;

/// Events that wait to be fetched at most; one more is not handed on.
const EVENTS: usize = 64;

/// Series of one span at most; those with the fewest requests are told together as `other`.
pub const SERIES: usize = 2_048;

/// What was counted in ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ten {
    /// When it began. Unit: seconds since 1970, a multiple of ten.
    pub since: u64,
    /// Series that had something.
    pub series: Vec<(Dimension, Name, Totals)>,
}

impl Ten {
    /// As bytes.
    pub fn write(&self) -> Vec<u8> {
        tens::write(&self.series)
    }
}

/// Spans that wait.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    is_wanted: bool,
    /// Usage of the span that is not over.
    usage: HashMap<Name, Totals>,
    tens: VecDeque<Ten>,
    events: VecDeque<Event>,
}

impl Outbox {
    pub(super) fn add_event(&mut self, event: &Event) {
        if self.is_wanted && self.events.len() < EVENTS {
            self.events.push_back(event.clone());
        }
    }

    pub(super) fn add_usage(&mut self, name: &Name, totals: &Totals) {
        if self.is_wanted {
            self.usage.entry(name.clone()).or_default().add(totals);
        }
    }

    /// Ten seconds are over.
    pub(super) fn put<'n>(
        &mut self,
        since: u64,
        frame: &Frame,
        name: impl Fn(u32) -> Option<(Dimension, &'n Name)>,
    ) {
        if !self.is_wanted {
            return;
        }
        let counted = frame.iter().filter_map(|(number, totals)| {
            let (dimension, name) = name(*number)?;
            Some((dimension, name.clone(), totals.clone()))
        });
        let usage = self.usage.drain().map(|(name, totals)| (Dimension::Usage, name, totals));
        let series = limited(counted.chain(usage).collect());
        if self.tens.len() >= WAITING {
            self.tens.pop_front();
        }
        self.tens.push_back(Ten { since, series });
    }
}

/// As many as there may be: the busiest by name, the rest together.
fn limited(mut series: Vec<(Dimension, Name, Totals)>) -> Vec<(Dimension, Name, Totals)> {
    if series.len() <= SERIES {
        return series;
    }
    series.sort_by_key(|(_, _, totals)| std::cmp::Reverse(totals.count()));
    let rest = series.split_off(SERIES - Dimension::ALL.len());
    for dimension in Dimension::ALL {
        let mut sum = Totals::default();
        rest.iter().filter(|(of, ..)| *of == dimension).for_each(|(_, _, totals)| sum.add(totals));
        if sum.count() > 0 {
            series.push((dimension, Name::new(&vec![OTHER; dimension.names()]), sum));
        }
    }
    series
}

impl History {
    /// From here on what is counted is kept for [`take_tens`](Self::take_tens) too.
    pub fn share(&self) {
        self.lock().outbox.is_wanted = true;
    }

    /// What was counted in spans that are over and were not fetched yet. `now`: seconds since 1970.
    pub fn take_tens(&self, now: u64) -> Vec<Ten> {
        let mut inner = self.lock();
        let since = inner.ten.since;
        if since > 0 {
            inner.turn(now.max(since));
        }
        inner.outbox.tens.drain(..).collect()
    }
}

impl History {
    /// What happened and was not fetched yet.
    pub fn take_events(&self) -> Vec<Event> {
        self.lock().outbox.events.drain(..).collect()
    }
}

impl Inner {
    /// Hands on what was counted in ten seconds that are over.
    pub(super) fn hand_on(&mut self, since: u64, frame: &Frame) {
        let Self { outbox, names, .. } = self;
        outbox.put(since, frame, |number| names.name(number));
    }
}
