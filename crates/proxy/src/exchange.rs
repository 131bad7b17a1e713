//! One exchange: a request, what decides about it, and its response. Read [`serve`] first.

mod policies;
mod record;

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use rhumb_base::failure::{Cause, Failure};
use rhumb_codec::field::Known;
use rhumb_codec::head::{Method, RequestHead, ResponseHead, Version};
use rhumb_net::timer::Timer;
use rhumb_plan::consumer::ConsumerPolicies;
use rhumb_plan::{Backend, Port, Rule};
use rhumb_policy::chain::ChainState;
use rhumb_policy::{Effects, Findings, Priority, Reply};
use rhumb_route::{Lookup, normalize};
use rhumb_telemetry::record::Timing;
use rhumb_telemetry::{Limit, Metric, Note, NoteSet, RequestId, RetryReason, TraceContext};

use crate::baggage;
use crate::downstream::Connection;
use crate::fields;
use crate::pump::Pump;
use crate::respond;
use crate::side::Down;
use crate::traced::Traced;
use crate::worker::Worker;

/// What the connection does after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Wait for the next request.
    KeepAlive,
    /// Close.
    Close,
    /// Close, but let the client finish reading first: it may still be sending.
    Linger,
    /// Close without a word: the response is not complete, and nothing may make it look so.
    Cut,
}

/// Why an exchange ended without a backend's complete response.
pub(crate) enum End {
    /// Answer with the failure.
    Refuse(Failure),
    /// Answer with a policy's reply.
    Reply(Box<Reply>),
    /// A policy wants the stream or connection reset.
    Reset,
    /// Nobody is left to answer, or the response has begun and cannot be completed.
    Cut(Failure),
}

/// Serves one request.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    connection: &Connection,
    mut down: Down<'_>,
    head: Box<RequestHead>,
    timer: &mut Timer,
) -> After {
    let mut begun = Exchange::begin(worker, connection, head);
    let Some(exchange) = &mut begun.0 else { return After::Cut };
    let after = match exchange.run(&mut down, timer).await {
        Ok(()) => exchange.after(&down),
        Err(End::Reply(reply)) => exchange.reply(&mut down, reply, timer).await,
        Err(End::Reset) => exchange.reset(&mut down),
        Err(End::Refuse(failure)) => exchange.refuse(&mut down, failure.cause, timer, true).await,
        Err(End::Cut(failure)) => exchange.cut(&mut down, failure),
    };
    exchange.outcome.is_over = true;
    after
}

/// An exchange that has begun. It is recorded when this is dropped, whether it came to its end or its task did not.
pub(crate) struct Begun<'a>(pub(crate) Option<Exchange<'a>>);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            exchange.finish();
        }
    }
}

/// Why waiting was given up.
pub(crate) enum GaveUp {
    /// The client has left.
    ClientGone,
    /// The deadline has passed.
    Late,
}

/// Waits for `work`; drops it when the client leaves or the deadline passes first.
pub(crate) async fn wait_for<T>(
    down: &mut Down<'_>,
    timer: &mut Timer,
    work: impl Future<Output = T>,
) -> Result<T, GaveUp> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        if down.poll_closed(cx).is_ready() {
            return Poll::Ready(Err(GaveUp::ClientGone));
        }
        timer.poll(cx).map(|()| Err(GaveUp::Late))
    })
    .await
}

/// The state of one exchange.
pub(crate) struct Exchange<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) connection: &'a Connection,
    pub(crate) port: Arc<Port>,
    revision: u64,
    /// The revision by which it was last looked whether it may go on.
    allowed: u64,
    pub(crate) req: Box<RequestHead>,
    pub(crate) rsp: Box<ResponseHead>,
    pub(crate) started: Instant,
    pub(crate) client: IpAddr,
    pub(crate) request_id: Id,
    pub(crate) trace: TraceContext,
    pub(crate) traced: Traced,
    pub(crate) rule: Option<Arc<rhumb_route::Rule<Rule>>>,
    matched_prefix: Option<usize>,
    chain_state: ChainState,
    /// Policies of the consumer that asks, once they ran.
    of_consumer: Option<Box<(Arc<ConsumerPolicies>, ChainState)>>,
    pub(crate) effects: Effects,
    pub(crate) found: Findings,
    pub(crate) pump: Pump,
    pub(crate) outcome: Outcome,
}

/// The id of a request.
pub(crate) enum Id {
    /// Made here.
    Own(RequestId),
    /// Made by a trusted proxy in front.
    Given(Box<str>),
}

impl Id {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Own(id) => id.as_str(),
            Self::Given(id) => id,
        }
    }
}

/// Longest request id that is taken from a trusted proxy, in bytes.
const GIVEN_ID_MAX: usize = 128;

fn given_id(value: &[u8]) -> Option<Box<str>> {
    let is_plain = !value.is_empty() && value.len() <= GIVEN_ID_MAX && value.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(value).ok().filter(|_| is_plain).map(Into::into)
}

/// What is known of the exchange's end.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) status: u16,
    pub(crate) upstream_status: Option<u16>,
    pub(crate) failure: Option<Failure>,
    pub(crate) notes: NoteSet,
    pub(crate) tries: u16,
    /// Why it was tried again.
    pub(crate) retries: Vec<RetryReason>,
    /// What the caller is told in the response: retries that are left for the request, and attempts.
    pub(crate) tells: Option<Tells>,
    pub(crate) backend: Option<Arc<Backend>>,
    pub(crate) endpoint: Option<Arc<rhumb_balance::Endpoint>>,
    pub(crate) timing: Timing,
    /// The final response head was handed to the client's side.
    pub(crate) has_responded: bool,
    /// It came to an end of its own.
    pub(crate) is_over: bool,
    pub(crate) is_tunnel: bool,
    /// When the latest attempt began.
    pub(crate) attempt_begun: Option<Instant>,
    /// When it was over, where that was looked at.
    pub(crate) ended: Option<Instant>,
    pub(crate) grpc_status: Option<u32>,
    /// The rule of a policy that decided whether the request may pass.
    decision: Option<Arc<str>>,
    local_bytes: u64,
}

/// What a response says about attempts.
#[derive(Clone, Copy)]
pub(crate) struct Tells {
    pub(crate) left: Option<u16>,
    pub(crate) attempts: bool,
}

impl<'a> Exchange<'a> {
    pub(crate) fn begin(
        worker: &'a Rc<Worker>,
        connection: &'a Connection,
        mut req: Box<RequestHead>,
    ) -> Begun<'a> {
        let started = Instant::now();
        let (revision, port) = connection.port(worker);
        worker.metrics.borrow_mut().begin(connection.listener);
        connection.count_request();
        let mut notes = NoteSet::default();
        let mut client = connection.peer_ip;
        if let Some(mesh) = &connection.mesh {
            // The workload speaks for itself, and proxies of the mesh for what they have carried: nothing is claimed. But who
            // calls is known here and nowhere else.
            if !mesh.is_believed() {
                let strip = match &mesh.peer {
                    Some(_) => fields::strip_claims_of_member,
                    None => fields::strip_claims,
                };
                if strip(&mut req.fields) {
                    notes.insert(Note::ForwardedStripped);
                }
            } else if mesh.is_inbound() {
                req.fields.remove(Known::XForwardedClientCert);
            }
        } else if connection.is_trusted {
            // No one outside of the mesh vouches for users.
            req.fields.remove(Known::XUserToken);
            client = fields::client_address(&req, &client_of(connection), &port.settings);
        } else if fields::strip_claims(&mut req.fields) {
            notes.insert(Note::ForwardedStripped);
        }
        if req.fields.has(Known::Baggage) && baggage::bound(&mut req.fields) {
            worker.metrics.borrow_mut().limit(Limit::Baggage);
        }
        let mut ids = worker.ids.borrow_mut();
        let given = req.fields.get_only(Known::XRequestId).and_then(given_id);
        let request_id = match given {
            Some(given) => Id::Given(given),
            None => Id::Own(ids.request_id(worker.unix_nanos(started) / 1_000_000)),
        };
        let trace = match req.fields.get_only(Known::Traceparent).map(TraceContext::parse) {
            Some(Some(trace)) => trace,
            _ => {
                // W3C Trace Context §4.3: an invalid traceparent takes its tracestate with it.
                req.fields.remove(Known::Traceparent);
                req.fields.remove(Known::Tracestate);
                ids.trace(true)
            }
        };
        drop(ids);
        let pump = Pump::new(port.settings.max_content);
        Begun(Some(Self {
            worker,
            connection,
            port,
            revision,
            allowed: revision,
            req,
            rsp: worker.take_response(),
            started,
            client,
            request_id,
            trace,
            traced: Traced::default(),
            rule: None,
            matched_prefix: None,
            chain_state: ChainState::default(),
            of_consumer: None,
            effects: Effects::default(),
            found: Findings::default(),
            pump,
            outcome: Outcome { notes, ..Outcome::default() },
        }))
    }

    /// The ways of a request, in order.
    async fn run(&mut self, down: &mut Down<'_>, timer: &mut Timer) -> Result<(), End> {
        self.begin_trail();
        // Before anything that costs, where no rule has to be found to know.
        if let Some(priority) = self.port.priority {
            self.weigh(down, timer, priority).await?;
        }
        self.admit()?;
        self.route()?;
        self.step("routed", Self::told_of_rule);
        if self.port.priority.is_none() {
            let priority = self.rule.as_ref().map_or(Priority::Normal, |rule| rule.value.priority);
            self.weigh(down, timer, priority).await?;
        }
        self.run_request_policies(down, timer).await?;
        if let Some(policies) = self.consumer_policies() {
            // Boxed: few consumers have some.
            Box::pin(self.run_consumer_policies(policies, down, timer)).await?;
        }
        self.forward(down, timer).await
    }

    fn admit(&mut self) -> Result<(), End> {
        // CONNECT without :protocol asks for a forward proxy, which a gateway is not.
        if self.req.method() == Method::Connect && self.req.protocol().is_none() {
            return Err(refuse(Cause::NotImplemented));
        }
        if let Some(options) = self.port.settings.path {
            let mut scratch = Vec::new();
            let before = self.req.path().len();
            normalize::normalize_head(&mut self.req, options, &mut scratch)
                .map_err(|_| refuse(Cause::PathInvalid))?;
            if self.req.path().len() != before || !scratch.is_empty() {
                self.outcome.notes.insert(Note::PathNormalized);
            }
        }
        if let rhumb_codec::head::Content::Length(length) = self.req.content
            && length > self.pump.max_content
        {
            return Err(refuse(Cause::ContentTooLarge));
        }
        Ok(())
    }

    fn route(&mut self) -> Result<(), End> {
        if self.is_misdirected() {
            return Err(refuse(Cause::MisdirectedRequest));
        }
        match self.port.table.find(self.req.authority(), &self.req) {
            Lookup::Found(found) => {
                if found.rule.value.invalid.is_some() {
                    self.rule = Some(Arc::clone(found.rule));
                    return Err(refuse(Cause::ConfigurationInvalid));
                }
                if found.matched.path().is_prefix() {
                    let rest = found.matched.path().behind_prefix(self.req.path()).map_or(0, <[u8]>::len);
                    self.matched_prefix = Some(self.req.path().len() - rest);
                }
                let rule = Arc::clone(found.rule);
                if let Some(tracing) = &rule.value.tracing {
                    self.begin_trace(tracing);
                }
                self.rule = Some(rule);
                Ok(())
            }
            Lookup::MethodNotAllowed { allow } => {
                let mut reply = respond::refusal(
                    Cause::MethodNotAllowed,
                    &self.req,
                    self.request_id.as_str(),
                    self.port.settings.proxy_status,
                );
                let mut names = Vec::new();
                allow.write_allow(&mut names);
                reply.fields().append(Known::Allow, &names);
                Err(End::Reply(reply))
            }
            Lookup::NotFound(_) => Err(refuse(Cause::RouteNotFound)),
        }
    }

    /// Refuses the request when the proxy is overloaded and this one is among those that have to go.
    #[inline]
    async fn weigh(&self, down: &mut Down<'_>, timer: &mut Timer, priority: Priority) -> Result<(), End> {
        match self.connection.take_verdict() {
            None => {}
            Some(false) => return Ok(()),
            Some(true) => {
                self.worker.metrics.borrow_mut().add(Metric::OverloadRefused, &[priority.as_str()], 1);
                return Err(refuse(Cause::Overloaded));
            }
        }
        let gauge = &self.worker.gauge;
        if !gauge.is_shedding() || !gauge.refuses(priority, self.started, &self.worker.rng) {
            return Ok(());
        }
        self.worker.metrics.borrow_mut().add(Metric::OverloadRefused, &[priority.as_str()], 1);
        // Boxed: a part of every exchange otherwise.
        Box::pin(self.hold(down, timer)).await?;
        Err(refuse(Cause::Overloaded))
    }

    /// Holds a refusal back for a while: a client that asks again at once would have the worker do nothing but refuse.
    async fn hold(&self, down: &mut Down<'_>, timer: &mut Timer) -> Result<(), End> {
        let Some((_held, time)) = self.worker.gauge.hold(&self.worker.rng) else { return Ok(()) };
        timer.set(Instant::now() + time);
        match wait_for(down, timer, std::future::pending::<()>()).await {
            Err(GaveUp::ClientGone) => Err(End::Cut(Cause::ClientClosed.into())),
            _ => Ok(()),
        }
    }

    /// True when the handshake chose one listener of a port with several and the request names another: that one's
    /// certificates and client authentication were never applied (RFC 9110 §7.4, Gateway API listener isolation).
    fn is_misdirected(&self) -> bool {
        let Some(tls) = &self.connection.tls else { return false };
        let (Some(name), Some(servers)) = (&tls.server_name, &self.port.tls) else { return false };
        if servers.servers().nth(1).is_none() {
            return false;
        }
        let table = &self.port.table;
        table.listener(name.as_bytes()) != table.listener(self.req.authority())
    }

    /// Which rule got it, for those who look.
    fn told_of_rule(&self) -> serde_json::Value {
        let rule = self.rule.as_ref().map(|rule| &rule.value);
        serde_json::json!({
            "route": rule.map(|rule| rule.route.as_str()),
            "rule": rule.map(|rule| rule.index),
            "template": rule.map(|rule| &*rule.template),
            "listener": self.port.name.as_str(),
        })
    }

    /// Sets the forwarding fields of the request. Once per exchange, after its policies.
    pub(crate) fn set_forwarding_fields(&mut self) {
        if self.connection.mesh.is_some() {
            return fields::forward_inside(&mut self.req, &self.trace, self.request_id.as_str());
        }
        let client = client_of(self.connection);
        fields::forward(&mut self.req, &client, &self.port.settings, &self.trace, self.request_id.as_str());
    }

    /// True when this side would keep the client's connection open.
    pub(crate) fn wants_keep_alive(&self) -> bool {
        let is_leaving = self.connection.is_leaving(self.worker);
        if !self.req.keep_alive || is_leaving || self.worker.gauge.closes(&self.worker.rng) {
            return false;
        }
        let is_used_up = self.connection.is_used_up(&self.port.settings);
        // A connection of HTTP/2 counts it when it leaves.
        if is_used_up && self.req.version != Version::Http2 {
            self.worker.metrics.borrow_mut().limit(Limit::RequestsPerConnection);
        }
        !is_used_up
    }

    fn after(&self, down: &Down<'_>) -> After {
        let Down::H1(server) = down else { return After::Close };
        // What the response said, not what would be said by now.
        if server.stays_open() {
            After::KeepAlive
        } else if self.outcome.is_tunnel || server.is_request_done() && !self.req.keep_alive {
            After::Close
        } else {
            // The client may still be sending its request, or has begun another one (RFC 9112 §9.6).
            After::Linger
        }
    }

    /// Answers with a failure.
    pub(crate) async fn refuse(
        &mut self,
        down: &mut Down<'_>,
        cause: Cause,
        timer: &mut Timer,
        is_readable: bool,
    ) -> After {
        self.outcome.failure = Some(cause.into());
        let reply =
            respond::refusal(cause, &self.req, self.request_id.as_str(), self.port.settings.proxy_status);
        self.answer(down, reply, timer, is_readable).await
    }

    /// Answers with a policy's reply.
    async fn reply(&mut self, down: &mut Down<'_>, mut reply: Box<Reply>, timer: &mut Timer) -> After {
        if let Some(cause) = reply.cause {
            self.outcome.failure = Some(cause.into());
            respond::complete(&mut reply, &self.req, self.request_id.as_str());
        }
        self.answer(down, reply, timer, true).await
    }

    async fn answer(
        &mut self,
        down: &mut Down<'_>,
        reply: Box<Reply>,
        timer: &mut Timer,
        is_readable: bool,
    ) -> After {
        let Reply { head, content, .. } = *reply;
        *self.rsp = head;
        self.rsp.version = Version::Http11;
        self.finish_response_head();
        let is_complete = match down {
            // What the client has not sent yet would be read as its next request. What has come already is read off.
            Down::H1(server) => is_readable && server.skip_content(),
            Down::H2(_) => true,
        };
        let keep_alive = is_complete && self.wants_keep_alive();
        self.outcome.has_responded = true;
        self.outcome.local_bytes = if self.req.method() == Method::Head { 0 } else { content.len() as u64 };
        let is_written =
            respond::send(down, &mut self.rsp, self.req.method(), &content, keep_alive, timer).await;
        if is_written { self.after(down) } else { After::Cut }
    }

    /// Ends an exchange as a policy wants it: by a reset of the stream or connection.
    fn reset(&mut self, down: &mut Down<'_>) -> After {
        self.outcome.notes.insert(Note::FaultReset);
        let after = self.cut(down, Cause::FaultInjected.into());
        down.reset();
        after
    }

    /// Ends an exchange that cannot be answered any more.
    fn cut(&mut self, down: &mut Down<'_>, failure: Failure) -> After {
        self.outcome.failure = Some(failure);
        if !self.outcome.has_responded {
            self.outcome.status = failure.cause.facts().status;
        }
        if failure.cause == Cause::ClientClosed {
            self.outcome.notes.insert(Note::ClientGone);
        }
        down.abort();
        After::Cut
    }
}

fn refuse(cause: Cause) -> End {
    End::Refuse(cause.into())
}

fn client_of(connection: &Connection) -> fields::Client<'_> {
    fields::Client {
        address: connection.peer_ip,
        address_text: &connection.peer_text,
        port: connection.address.port(),
        scheme: connection.scheme,
        is_trusted: connection.is_trusted,
    }
}
