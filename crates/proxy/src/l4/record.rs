//! The record of one connection or session that was carried as it is: made once, whatever became of it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_balance::Endpoint;
use rhumb_base::failure::{Cause, Failure, Side};
use rhumb_plan::l4::L4Rule;
use rhumb_plan::{Backend, Port};
use rhumb_telemetry::metrics::LocalGauge;
use rhumb_telemetry::record::{Timing, TlsRecord};
use rhumb_telemetry::signals::{Meter, Outcome, Tie};
use rhumb_telemetry::{Metric, Note, NoteSet, Protocol, Record};

use crate::downstream::TlsFacts;
use crate::l4::relay::{Carried, RelayEnd};
use crate::signals::{UNKNOWN, know_own_name, served_here};
use crate::worker::Worker;

/// The end of a connection that was broken on purpose.
pub(crate) const FAULT: &str = "fault_injected";

/// What is known of a connection; written down when this is dropped, also when its task is cut at the end of a drain.
pub(crate) struct Account {
    worker: Rc<Worker>,
    pub(crate) port: Arc<Port>,
    revision: u64,
    protocol: Protocol,
    pub(crate) client: SocketAddr,
    started: Instant,
    pub(crate) rule: Option<Arc<L4Rule>>,
    pub(crate) backend: Option<Arc<Backend>>,
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    pub(crate) tls: Option<TlsFacts>,
    /// Of a ClientHello that was not answered here.
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) connect: Option<Duration>,
    pub(crate) tries: u16,
    pub(crate) carried: Carried,
    pub(crate) notes: NoteSet,
    /// Who calls what is served here, where that was proven.
    pub(crate) caller: Option<Box<str>>,
    /// Why it ended; the end of the process until something else is said.
    pub(crate) end: &'static str,
    pub(crate) failure: Option<Failure>,
    /// Where it leads, when that is out of the mesh.
    pub(crate) way: Option<Box<Way>>,
    /// It turned out to be something else, which makes its own record.
    is_void: bool,
    open: LocalGauge,
}

/// The way of a connection out of the mesh.
pub(crate) struct Way {
    /// Host and port.
    pub(crate) to: String,
    /// The SPIFFE ID of the workload that connects, where it is another one.
    pub(crate) who: Option<Box<str>>,
    /// The address that it was connected to from here.
    pub(crate) reached: Option<SocketAddr>,
}

impl Account {
    pub(crate) fn new(worker: &Rc<Worker>, port: &Arc<Port>, protocol: Protocol, client: SocketAddr) -> Self {
        let gauge = match protocol {
            Protocol::Udp => Metric::UdpSessions,
            _ => Metric::ConnectionsOpen,
        };
        let open = worker.metrics.borrow_mut().gauge(gauge, &[port.name.as_str()]);
        open.increment();
        Self {
            worker: Rc::clone(worker),
            port: Arc::clone(port),
            revision: worker.plan().revision,
            protocol,
            client,
            started: Instant::now(),
            rule: None,
            backend: None,
            endpoint: None,
            tls: None,
            server_name: None,
            connect: None,
            tries: 0,
            carried: Carried::default(),
            notes: NoteSet::default(),
            caller: None,
            end: "shutting_down",
            failure: None,
            way: None,
            is_void: false,
            open,
        }
    }

    /// When it began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Both sides are connected: it counts among who calls whom.
    pub(crate) fn begin(&mut self) {
        self.carried.meter = self.meter();
    }

    fn meter(&self) -> Option<Meter> {
        let (signals, backend) = (self.worker.signals.as_ref()?, self.backend.as_ref()?);
        know_own_name(&self.worker);
        let own_name = self.worker.own_name.borrow();
        let served = served_here(backend.name.as_str());
        let tie = match &served {
            // Who comes without a proxy does not say who it is.
            Some(target) => {
                let source = self.caller.as_deref().unwrap_or(UNKNOWN);
                Tie { source, target, is_mutual: source != UNKNOWN }
            }
            None => Tie {
                source: &own_name,
                target: backend.name.as_str(),
                is_mutual: backend.mesh.is_some()
                    && self.endpoint.as_ref().is_some_and(|endpoint| endpoint.tunnel() != 0),
            },
        };
        signals.borrow_mut().open(&tie)
    }

    /// A datagram of the client.
    pub(crate) fn count_in(&mut self, len: usize) {
        self.carried.moved(self.carried.bytes_in + len as u64, self.carried.bytes_out);
    }

    /// A datagram for the client.
    pub(crate) fn count_out(&mut self, len: usize) {
        self.carried.moved(self.carried.bytes_in, self.carried.bytes_out + len as u64);
    }

    /// How it ended, as far as blame goes.
    fn outcome(&self) -> Outcome {
        match self.failure.map(|failure| failure.cause.facts().side) {
            Some(Side::Backend) => Outcome::BackendError,
            Some(Side::Client) => Outcome::ClientError,
            Some(_) => Outcome::GatewayError,
            None => match self.end {
                "client_reset" => Outcome::ClientGone,
                "backend_reset" => Outcome::BackendError,
                "access_denied" => Outcome::ClientError,
                FAULT => Outcome::GatewayError,
                _ => Outcome::Ok,
            },
        }
    }

    /// What the connection turned out to be.
    pub(crate) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// It was no connection of its own: nothing is written down.
    pub(crate) fn cancel(mut self) {
        self.is_void = true;
    }

    /// Why the relay ended.
    pub(crate) fn finish(&mut self, end: RelayEnd) {
        self.end = match end {
            RelayEnd::Closed => "closed",
            RelayEnd::ClientReset => "client_reset",
            RelayEnd::BackendReset => "backend_reset",
            RelayEnd::Idle => "idle_timeout",
            RelayEnd::Expired => "max_duration",
            RelayEnd::Denied => "access_denied",
            RelayEnd::Fault => FAULT,
        };
        match end {
            RelayEnd::Idle => self.notes.insert(Note::IdleTimeout),
            RelayEnd::BackendReset => self.notes.insert(Note::UpstreamReset),
            RelayEnd::ClientReset => self.notes.insert(Note::ClientGone),
            RelayEnd::Fault => self.notes.insert(Note::FaultReset),
            _ => {}
        }
    }

    /// It ended because of a failure.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
        self.end = failure.cause.facts().code;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.open.decrement();
        if self.is_void {
            return;
        }
        if std::thread::panicking() {
            self.fail(Cause::InternalError.into());
        }
        let now = Instant::now();
        let total = now.saturating_duration_since(self.started);
        let facts = self.failure.map(|failure| failure.cause.facts());
        // One that never came to anything counts too.
        if let Some(meter) = self.carried.meter.take().or_else(|| self.meter()) {
            meter.close(self.outcome(), total);
        }
        if self.carried.has_spliced {
            self.notes.insert(Note::Spliced);
        }
        if self.carried.was_cut_short {
            self.notes.insert(Note::PeerClosedEarly);
        }
        let (listener, route) =
            (self.port.name.as_str(), self.rule.as_ref().map_or("", |rule| rule.route.as_str()));
        let backend = self.backend.as_ref().map_or("", |backend| backend.name.as_str());
        let tls = match (&self.tls, &self.server_name) {
            (Some(tls), _) => Some(TlsRecord {
                version: tls.version,
                cipher: tls.cipher,
                sni: tls.server_name.as_deref().unwrap_or_default().as_bytes(),
                client_subject: tls.client_subject.as_deref().unwrap_or_default().as_bytes(),
            }),
            (None, Some(name)) => Some(TlsRecord { sni: name.as_bytes(), ..TlsRecord::default() }),
            (None, None) => None,
        };
        let way = self.way.as_deref();
        let reached = way.and_then(|way| way.reached).map(|address| address.to_string());
        let endpoint = self.endpoint.as_ref().map_or("", |endpoint| endpoint.label());
        let worker = &self.worker;
        let id = worker.ids.borrow_mut().request_id(worker.unix_nanos(self.started) / 1_000_000);
        let record = Record {
            start_unix_nanos: worker.unix_nanos(self.started),
            timing: Timing { total, connect: self.connect, ..Timing::default() },
            client: Some(SocketAddr::new(self.client.ip().to_canonical(), self.client.port())),
            protocol: self.protocol,
            failure_code: facts.map(|facts| facts.code),
            failure_side: facts.map(|facts| facts.side.as_str()),
            notes: self.notes,
            bytes_in: self.carried.bytes_in,
            bytes_out: self.carried.bytes_out,
            listener,
            route,
            backend,
            endpoint: reached.as_deref().unwrap_or(endpoint),
            authority: way.map_or(&[], |way| way.to.as_bytes()),
            principal: way.and_then(|way| way.who.as_deref()).unwrap_or_default(),
            tries: self.tries,
            request_id: id.as_str().as_bytes(),
            tls,
            end: self.end,
            config_revision: self.revision,
            ..Record::default()
        };
        let mut metrics = worker.metrics.borrow_mut();
        metrics.add(Metric::L4Connections, &[listener, route, backend, self.end], 1);
        metrics.add(Metric::L4Bytes, &[listener, route, backend, "in"], self.carried.bytes_in);
        metrics.add(Metric::L4Bytes, &[listener, route, backend, "out"], self.carried.bytes_out);
        let micros = u64::try_from(total.as_micros()).unwrap_or(u64::MAX);
        metrics.add(Metric::L4Time, &[listener, route, backend], micros);
        for note in self.notes.iter() {
            metrics.note(note);
        }
        if let Some(facts) = facts {
            metrics.add(Metric::Failures, &[facts.code, facts.side.as_str()], 1);
        }
        drop(metrics);
        for log in worker.logs.borrow_mut().iter_mut() {
            log.push(&record, now);
        }
        let collector = self.port.settings.exporter.as_ref().filter(|collector| collector.logs);
        if let Some(collector) = collector.filter(|_| !std::thread::panicking()) {
            worker.exports.log(worker, collector, &record);
        }
    }
}
