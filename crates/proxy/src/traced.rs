//! Tracing of an exchange: which trace it belongs to, what the next hop is told, and what is kept for its spans.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_balance::Endpoint;
use rhumb_base::failure::{Failure, Side};
use rhumb_codec::field::{FieldName, Fields, Known};
use rhumb_policy::tracing::{DEFAULT_PERCENTAGE, Follow, Propagation};
use rhumb_policy::{Share, Tracing};
use rhumb_telemetry::trace::{Attempt, Traced as Told, Wait, attempt_span};
use rhumb_telemetry::{Record, TraceContext};

use crate::exchange::Exchange;

/// Most waits of policies that one exchange remembers.
const WAITS_MAX: usize = 32;

/// What an exchange knows of its trace.
#[derive(Default)]
pub(crate) struct Traced {
    /// The caller's span.
    parent: Option<[u8; 8]>,
    state: State,
    /// What happened on the way; few exchanges have any of it.
    details: Option<Box<Details>>,
}

/// Whether spans will be made.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// No: no policy asks for it.
    #[default]
    Off,
    /// No, and trace context is written.
    Unsampled,
    /// That is seen at the end.
    Looking,
    /// Yes.
    Sampled,
}

/// What happened before the last attempt.
#[derive(Default)]
struct Details {
    attempts: Vec<Tried>,
    waits: Vec<Wait>,
}

/// An attempt that was not the last one.
struct Tried {
    begun: Duration,
    ended: Duration,
    endpoint: Option<Arc<Endpoint>>,
    status: Option<u16>,
    failure: Option<&'static str>,
}

impl Traced {
    /// True when its spans go to a collector whatever becomes of it.
    pub(crate) fn is_sampled(&self) -> bool {
        self.state == State::Sampled
    }

    /// True when what happens may be told.
    #[inline]
    fn remembers(&self) -> bool {
        matches!(self.state, State::Looking | State::Sampled)
    }
}

impl Exchange<'_> {
    /// Joins the caller's trace or begins one, as the rule's policy says.
    pub(crate) fn begin_trace(&mut self, tracing: &Tracing) {
        // Whoever could have requests recorded, or put into traces of others, could do harm: a stranger's context is nothing.
        let forms = if self.connection.is_trusted || self.connection.is_believed() {
            tracing.propagation()
        } else {
            &[]
        };
        let given = forms.iter().find_map(|form| match form {
            Propagation::W3c => self.req.fields.has(Known::Traceparent).then_some(self.trace),
            Propagation::B3 => find(&self.req.fields, b"b3").and_then(TraceContext::parse_b3),
            Propagation::B3multi => b3_of(&self.req.fields),
        });
        let is_sampled = match given {
            Some(given) if tracing.follow != Some(Follow::Never) => given.is_sampled(),
            _ => {
                let share = tracing.share.or_else(|| Share::percent(DEFAULT_PERCENTAGE)).unwrap_or_default();
                share.rolls(&mut self.worker.rng.borrow_mut())
            }
        };
        let context = match given {
            Some(given) => self.worker.ids.borrow_mut().child(&given),
            None => self.trace,
        };
        self.trace = context.sampled(is_sampled);
        self.traced.parent = given.map(|given| given.parent_id);
        self.traced.state = match (tracing.collector.is_some(), is_sampled) {
            (true, true) => State::Sampled,
            (true, false) if tracing.looks_back() => State::Looking,
            _ => State::Unsampled,
        };
    }

    /// Says in the request which span the next hop is called by.
    #[inline]
    pub(crate) fn tell_trace(&mut self, attempt: u16) {
        if self.traced.state != State::Off {
            let span = attempt_span(self.trace.parent_id, attempt);
            self.write_trace(TraceContext { parent_id: span, ..self.trace });
        }
    }

    fn write_trace(&mut self, context: TraceContext) {
        let Some(rule) = &self.rule else { return };
        let Some(tracing) = &rule.value.tracing else { return };
        write(&mut self.req.fields, tracing, context);
    }

    /// The same in the copy of a request that a mirror gets.
    pub(crate) fn tell_trace_to_mirror(&self, fields: &mut Fields) {
        if self.traced.state != State::Off
            && let Some(tracing) = self.rule.as_ref().and_then(|rule| rule.value.tracing.as_ref())
        {
            write(fields, tracing, self.trace);
        }
    }

    /// Remembers an attempt that is followed by another one.
    pub(crate) fn note_attempt(&mut self, failure: Option<Failure>) {
        if !self.traced.remembers() {
            return;
        }
        let tried = Tried {
            begun: self.since_start(self.outcome.attempt_begun.unwrap_or(self.started)),
            ended: self.since_start(Instant::now()),
            endpoint: self.outcome.endpoint.clone(),
            status: failure.is_none().then_some(self.rsp.status),
            failure: failure.map(|failure| failure.cause.facts().code),
        };
        // As many as there may be retries.
        self.traced.details.get_or_insert_default().attempts.push(tried);
    }

    /// When a policy begins to wait, if anybody wants to know.
    #[inline]
    pub(crate) fn begin_wait(&self) -> Option<Instant> {
        self.traced.remembers().then(Instant::now)
    }

    /// Remembers what a policy waited for.
    pub(crate) fn note_wait(&mut self, policy: &'static str, begun: Option<Instant>) {
        let Some(begun) = begun else { return };
        let (begun, ended) = (self.since_start(begun), self.since_start(Instant::now()));
        let waits = &mut self.traced.details.get_or_insert_default().waits;
        if waits.len() < WAITS_MAX {
            waits.push(Wait { policy, begun, ended });
        }
    }

    fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.started)
    }

    /// Makes spans of an exchange that has ended, when they are wanted.
    #[inline]
    pub(crate) fn tell_spans(&self, record: &Record<'_>) {
        if self.traced.remembers() {
            self.make_spans(record);
        }
        let tracing = self.rule.as_ref().and_then(|rule| rule.value.tracing.as_ref());
        let collector = tracing.and_then(|tracing| tracing.collector.as_ref());
        let of_rule = collector.filter(|collector| collector.logs);
        let of_process = self.port.settings.exporter.as_ref().filter(|collector| collector.logs);
        // One collector is told once.
        let of_rule = of_rule.filter(|collector| of_process.is_none_or(|other| ***collector != **other));
        for collector in of_rule.into_iter().chain(of_process) {
            self.worker.exports.log(self.worker, collector, record);
        }
    }

    fn make_spans(&self, record: &Record<'_>) {
        let Some(tracing) = self.rule.as_ref().and_then(|rule| rule.value.tracing.as_ref()) else { return };
        let Some(collector) = &tracing.collector else { return };
        if self.traced.state == State::Looking && !tracing.wants(record.is_error(), record.timing.total) {
            return;
        }
        let details = self.traced.details.as_deref();
        let tried = details.map_or(&[][..], |details| &details.attempts);
        let mut attempts: Vec<Attempt<'_>> = tried.iter().map(Tried::told).collect();
        if let Some(begun) = self.outcome.attempt_begun
            && attempts.len() < usize::from(record.tries)
        {
            let facts = self.outcome.failure.map(|failure| failure.cause.facts());
            let failure = facts.filter(|facts| facts.side == Side::Backend);
            attempts.push(Attempt {
                begun: self.since_start(begun),
                ended: record.timing.total,
                endpoint: record.endpoint,
                connect: record.timing.connect.filter(|_| record.tries == 1),
                // What an earlier attempt brought says nothing about this one.
                status: record.upstream_status.filter(|_| failure.is_none() || record.tries == 1),
                failure: failure.map(|facts| facts.code),
            });
        }
        self.worker.exports.tell(
            self.worker,
            collector,
            &Told {
                record,
                context: self.trace,
                parent: self.traced.parent,
                attempts: &attempts,
                waits: details.map_or(&[][..], |details| &details.waits),
            },
        );
    }
}

impl Tried {
    fn told(&self) -> Attempt<'_> {
        Attempt {
            begun: self.begun,
            ended: self.ended,
            endpoint: self.endpoint.as_ref().map_or("", |endpoint| endpoint.label()),
            connect: None,
            status: self.status,
            failure: self.failure,
        }
    }
}

fn find<'f>(fields: &'f Fields, name: &[u8]) -> Option<&'f [u8]> {
    fields.find(&FieldName::parse(name).ok()?)
}

fn b3_of(fields: &Fields) -> Option<TraceContext> {
    // Flags of 1 mean debug, which is sampled (B3, "Debug Flag").
    let sampled = match find(fields, b"x-b3-flags") {
        Some(b"1") => Some(&b"d"[..]),
        _ => find(fields, b"x-b3-sampled"),
    };
    TraceContext::from_b3(find(fields, b"x-b3-traceid")?, find(fields, b"x-b3-spanid")?, sampled)
}

fn write(fields: &mut Fields, tracing: &Tracing, context: TraceContext) {
    for form in tracing.propagation() {
        match form {
            Propagation::W3c => fields.set(Known::Traceparent, &context.to_bytes()),
            Propagation::B3 => set(fields, b"b3", &context.to_b3()),
            Propagation::B3multi => {
                set(fields, b"x-b3-traceid", &context.trace_id_hex());
                set(fields, b"x-b3-spanid", &context.parent_id_hex());
                set(fields, b"x-b3-sampled", if context.is_sampled() { b"1" } else { b"0" });
            }
        }
    }
}

fn set(fields: &mut Fields, name: &[u8], value: &[u8]) {
    fields.remove_spelled(name);
    fields.append_raw(Known::Other, name, value);
}
