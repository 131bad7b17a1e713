//! The record of an exchange, and who is told of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use rhumb_base::failure::Cause;
use rhumb_codec::field::Known;
use rhumb_codec::head::{Scheme, Version};
use rhumb_policy::Mode;
use rhumb_telemetry::metrics::RuleId;
use rhumb_telemetry::record::{Timing, TlsRecord};
use rhumb_telemetry::{Limit, Note, Protocol, Record, StatusSource};

use super::Exchange;
use crate::baggage;

impl Exchange<'_> {
    /// Names of the policies in shadow mode that would have refused.
    fn shadow_refusals(&self) -> String {
        let shadows = self.found.refusals.iter().filter(|refusal| refusal.mode == Mode::Shadow);
        let names: Vec<&str> = shadows.map(|refusal| refusal.policy).collect();
        names.join(",")
    }

    /// Makes the record, the only place where one is made.
    pub(super) fn finish(mut self) {
        let now = self.outcome.ended.unwrap_or_else(Instant::now);
        self.connection.rests_since.set(now);
        let trail = self.found.trail.take();
        if !self.outcome.is_over {
            // Its task was dropped: at the end of a drain, or because of a bug of ours.
            let cause = if std::thread::panicking() { Cause::InternalError } else { Cause::ShuttingDown };
            self.outcome.failure = Some(cause.into());
            if !self.outcome.has_responded {
                self.outcome.status = cause.facts().status;
            }
        }
        let Self { worker, connection, port, revision, req, outcome, pump, .. } = &self;
        let worker = Rc::clone(worker);
        let facts = outcome.failure.map(|failure| failure.cause.facts());
        let target = req.received_target();
        let (path, query) = match target.iter().position(|&b| b == b'?') {
            Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..)),
            None => (target, None),
        };
        let rule = self.rule.as_ref().map(|rule| &rule.value);
        let principal = self.found.principal.as_deref();
        let keys = rule.and_then(|rule| rule.tracing.as_ref()?.baggage.as_deref()).unwrap_or_default();
        let members = match keys {
            [] => Vec::new(),
            keys => baggage::chosen(&req.fields, keys),
        };
        let mut notes = outcome.notes;
        if pump.has_said_goodbye() {
            notes.insert(Note::Draining);
        }
        if pump.has_spliced {
            notes.insert(Note::Spliced);
        }
        if self.effects.delayed {
            notes.insert(Note::FaultDelay);
        }
        if self.effects.aborted {
            notes.insert(Note::FaultAbort);
        }
        if pump.is_cut() {
            notes.insert(Note::FaultReset);
        }
        if pump.is_paced() && !self.effects.is_limited {
            notes.insert(Note::FaultBandwidth);
        }
        let record = Record {
            start_unix_nanos: worker.unix_nanos(self.started),
            timing: Timing { total: now.saturating_duration_since(self.started), ..outcome.timing },
            client: Some(SocketAddr::new(
                self.client,
                if self.client == connection.peer_ip { connection.peer.port() } else { 0 },
            )),
            method: req.method_name(),
            scheme: match connection.scheme {
                Scheme::Http => rhumb_telemetry::Scheme::Http,
                Scheme::Https => rhumb_telemetry::Scheme::Https,
            },
            authority: req.received_authority(),
            path,
            query,
            protocol: match req.version {
                Version::Http10 => Protocol::Http10,
                Version::Http11 => Protocol::Http11,
                Version::Http2 => Protocol::Http2,
            },
            upgrade: if outcome.is_tunnel {
                req.upgrade().or_else(|| req.protocol()).unwrap_or_default()
            } else {
                b""
            },
            status: outcome.status,
            status_source: if outcome.upstream_status.is_some() {
                StatusSource::Upstream
            } else {
                StatusSource::Gateway
            },
            failure_code: facts.map(|facts| facts.code),
            failure_side: facts.map(|facts| facts.side.as_str()),
            notes,
            bytes_in: pump.bytes_in,
            bytes_out: pump.bytes_out + outcome.local_bytes,
            listener: port.name.as_str(),
            route: rule.map_or("", |rule| rule.route.as_str()),
            rule: rule.map_or("", |rule| &rule.template),
            backend: outcome.backend.as_ref().map_or("", |backend| backend.name.as_str()),
            endpoint: outcome.endpoint.as_ref().map_or("", |endpoint| endpoint.label()),
            upstream_status: outcome.upstream_status,
            grpc_status: outcome.grpc_status,
            policy_decision: outcome.decision.as_deref().unwrap_or_default(),
            principal: principal.map_or("", |principal| &principal.subject),
            consumer: principal.and_then(|principal| principal.consumer.as_ref()).map_or("", |c| &c.name),
            shadow: &self.shadow_refusals(),
            tries: outcome.tries,
            retries: &outcome.retries,
            request_id: self.request_id.as_str().as_bytes(),
            trace: Some(self.trace),
            baggage: &members,
            is_traced: self.traced.is_sampled(),
            tls: connection.tls.as_deref().map(|tls| TlsRecord {
                version: tls.version,
                cipher: tls.cipher,
                sni: tls.server_name.as_deref().unwrap_or_default().as_bytes(),
                client_subject: tls.client_subject.as_deref().unwrap_or_default().as_bytes(),
            }),
            user_agent: req.fields.get(Known::UserAgent).unwrap_or_default(),
            referer: req.fields.get(Known::Referer).unwrap_or_default(),
            end: "",
            config_revision: *revision,
        };
        let rule_id = rule.map_or(RuleId::UNMATCHED, |rule| {
            *rule.metrics_id.get_or_init(|| worker.registry.rule(rule.route.as_str(), &rule.template))
        });
        let backend_id = outcome.backend.as_ref().map(|backend| {
            *backend.metrics_id.get_or_init(|| worker.registry.backend(backend.name.as_str()))
        });
        let mut metrics = worker.metrics.borrow_mut();
        metrics.finish(&record, connection.listener, rule_id, backend_id);
        if let Some(mesh) = &connection.mesh {
            mesh.count(&mut metrics, outcome.status);
        }
        if let Some(signals) = &worker.signals {
            crate::signals::count(&worker, signals, &self, &record, rule_id, backend_id);
        }
        if let Some(limit) = outcome.failure.and_then(|failure| limit_of(failure.cause, rule.is_some())) {
            metrics.limit(limit);
        }
        if pump.replay.had_no_room() {
            metrics.limit(Limit::ReplayTotal);
        }
        drop(metrics);
        for log in worker.logs.borrow_mut().iter_mut() {
            log.push(&record, now);
        }
        self.tell_spans(&record);
        self.tell_taps(&record, trail);
        worker.give_request(self.req);
        worker.give_response(self.rsp);
    }
}

/// The bound that a failure has reached, if it was one; those of request heads are counted where heads are read.
fn limit_of(cause: Cause, is_routed: bool) -> Option<Limit> {
    match cause {
        Cause::ContentTooLarge => Some(Limit::BodyBytes),
        Cause::RequestTimeout if is_routed => Some(Limit::BodyTime),
        Cause::IdleTimeout => Some(Limit::StreamTime),
        _ => None,
    }
}
