//! From a rule to a backend's response: choose, connect, send, wait, and try again where that is allowed.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rhumb_balance::{Endpoint, InFlight, Nanos, NotPicked, Outcome};
use rhumb_base::failure::{Cause, Failure, Side};
use rhumb_codec::field::Known;
use rhumb_codec::head::{Content, Method, RequestHead, ResponseHead, Version};
use rhumb_conn::Part;
use rhumb_net::timer::Timer;
use rhumb_plan::Backend;
use rhumb_policy::Chain;
use rhumb_policy::chain::ChainState;
use rhumb_telemetry::Note;

use crate::exchange::{End, Exchange, GaveUp, Tells, wait_for};
use crate::limits::{self, Limits};
use crate::pump::Broken;
use crate::respond::is_grpc;
use crate::session;
use crate::side::{Down, Up};
use crate::tries::{Again, Tries};

/// Content of a response that is not passed on is read up to here, so that its connection can be used again. Unit: bytes.
const DRAIN_MAX: usize = 16 << 10;

impl Exchange<'_> {
    /// Sends the request to a backend and its response to the client.
    pub(crate) async fn forward(&mut self, down: &mut Down<'_>, timer: &mut Timer) -> Result<(), End> {
        let Some(rule) = self.rule.clone() else { return Err(End::Refuse(Cause::RouteNotFound.into())) };
        // Whoever has a session stays where it is; the weights are for those without.
        let resumed = match rule.value.has_sessions {
            true => {
                let now = self.worker.unix_nanos_lately(self.started) / 1_000_000_000;
                session::resume(&rule.value, &self.req, now)
            }
            false => None,
        };
        let (resumed, chosen) = match (resumed, self.effects.cohort) {
            (Some((resumed, chosen)), _) => (Some(resumed), Some(chosen)),
            (None, Some(cohort)) => (None, rule.value.choose_for(cohort)),
            (None, None) => (None, rule.value.choose(&mut self.worker.rng.borrow_mut())),
        };
        // Gateway API: a reference that is not valid, or no backend with a weight, is answered with 500.
        let Some((chosen, backend)) = chosen.and_then(|chosen| Some((chosen, chosen.backend.clone()?)))
        else {
            return Err(End::Refuse(Cause::ConfigurationInvalid.into()));
        };
        self.outcome.backend = Some(Arc::clone(&backend));
        if !rule.value.mirrors.is_empty() {
            self.mirror(&rule.value);
        }
        let mut backend_state = ChainState::default();
        self.run_chain(&chosen.chain, &mut backend_state, down, timer).await?;
        self.set_forwarding_fields();
        self.step("forwarded", Self::told_of_request);
        let is_grpc = is_grpc(&self.req);
        let limits = Limits::new(
            chosen,
            limits::told(&self.req, is_grpc),
            self.started,
            self.port.settings.body_timeout,
        );
        let mut tries = Tries::new(&chosen.retry, &self.req, is_grpc);
        if let Some(rate) = self.effects.bytes_per_second {
            let line = self.found.shared_pace.take().map(|shared| shared.paid_until);
            self.pump.set_pace(rate, line);
        }
        if let Some(after) = self.effects.reset_after {
            self.pump.set_cut(after);
        }
        let first = Instant::now();
        let at = resumed.and_then(|resumed| self.session_endpoint(&backend, &resumed));
        let result = self.attempts(down, timer, &backend, &limits, &mut tries, at, first).await;
        if chosen.retry.reports || tries.over().is_some() {
            self.outcome.tells = Some(Tells { left: tries.over(), attempts: chosen.retry.reports });
        }
        let attempt = result?;
        if let Some(session) = &chosen.session {
            self.tell_session(session, resumed.as_ref(), &backend, &attempt.endpoint);
        }
        self.respond(down, attempt, timer, &limits, &chosen.chain, &mut backend_state, &backend, first).await
    }

    /// Tries until a response head has come that is passed on. `first` is now.
    #[allow(clippy::too_many_arguments)] // what attempts depend on, used once
    async fn attempts(
        &mut self,
        down: &mut Down<'_>,
        timer: &mut Timer,
        backend: &Backend,
        limits: &Limits,
        tries: &mut Tries<'_>,
        mut at: Option<Arc<Endpoint>>,
        first: Instant,
    ) -> Result<Attempt, End> {
        let mut fresh = false;
        let mut begun = first;
        loop {
            self.tell_next_hop(limits, tries, begun)?;
            self.outcome.tries += 1;
            self.tell_trace(self.outcome.tries);
            self.outcome.attempt_begun = Some(begun);
            let again = match self.attempt(down, timer, backend, limits, tries, at.take(), fresh, begun).await
            {
                Ok(attempt) => {
                    tries.learn(&mut self.rsp);
                    self.step("response", Self::told_of_attempt);
                    match self.again_after_response(tries, backend, limits) {
                        Some(again) => {
                            self.note_attempt(None);
                            self.discard(attempt, backend, tries).await;
                            again
                        }
                        None => return Ok(attempt),
                    }
                }
                Err(Broken::Client(failure)) => return Err(End::Cut(failure)),
                Err(Broken::Request(failure)) => return Err(End::Refuse(failure)),
                Err(Broken::Backend(failure)) => {
                    self.step("failure", |exchange| exchange.told_of_failure(failure));
                    let again = self.again_after_failure(tries, backend, limits, failure);
                    if again.is_some() {
                        self.note_attempt(Some(failure));
                    }
                    match again {
                        Some(Again { fresh: false, .. }) => tries.tried.extend(self.outcome.endpoint.clone()),
                        Some(_) => {}
                        None => return Err(End::Refuse(failure)),
                    }
                    again.unwrap_or(Again { wait: Duration::ZERO, fresh: false })
                }
            };
            if again.fresh {
                // The connection was stale; the endpoint is as good as before.
                at = self.outcome.endpoint.clone();
            }
            fresh = again.fresh;
            if !again.wait.is_zero() {
                Limits::set_for_wait(timer, Instant::now(), again.wait);
                if let Err(GaveUp::ClientGone) = wait_for(down, timer, std::future::pending::<()>()).await {
                    return Err(End::Cut(Cause::ClientClosed.into()));
                }
            }
            begun = Instant::now();
        }
    }

    /// Says in the request what time and how many retries the next hop has.
    fn tell_next_hop(&mut self, limits: &Limits, tries: &Tries<'_>, now: Instant) -> Result<(), End> {
        if let Some(left) = limits.left(now) {
            if left.is_zero() {
                return Err(End::Refuse(limits.over().into()));
            }
            limits::tell(&mut self.req, tries.is_grpc, left);
        }
        tries.tell(&mut self.req);
        Ok(())
    }

    /// Puts a response aside that is not passed on. Its connection is used again when the rest of it is here already.
    async fn discard(&mut self, attempt: Attempt, backend: &Backend, tries: &mut Tries<'_>) {
        let Attempt { mut up, load, endpoint, first_byte, .. } = attempt;
        let now = Instant::now();
        let at = Nanos::since(self.worker.origin, now);
        backend.endpoints.finish(load, first_byte, judge_head(&self.rsp), at);
        let is_read = poll_fn(|cx| {
            let mut left = DRAIN_MAX;
            loop {
                match up.poll_body(cx) {
                    Poll::Ready(Ok(Part::End(_))) => return Poll::Ready(true),
                    Poll::Ready(Ok(Part::Data(data))) if data.len() <= left => left -= data.len(),
                    _ => return Poll::Ready(false),
                }
            }
        })
        .await;
        if is_read && let Up::H1(connection) = up {
            let (target, address) = backend.way(&endpoint);
            self.worker.pools.put(target, address, connection, now);
        }
        tries.tried.push(endpoint);
    }

    /// One attempt: an endpoint, a connection, the request, and the wait for the response head. `at` is an endpoint that
    /// is chosen already, `fresh` asks for a new connection.
    #[allow(clippy::too_many_arguments)] // what an attempt depends on, used once
    async fn attempt(
        &mut self,
        down: &mut Down<'_>,
        timer: &mut Timer,
        backend: &Backend,
        limits: &Limits,
        tries: &Tries<'_>,
        at: Option<Arc<Endpoint>>,
        fresh: bool,
        begun: Instant,
    ) -> Result<Attempt, Broken> {
        let picked = {
            let mut rng = self.worker.rng.borrow_mut();
            let now = Nanos::since(self.worker.origin, begun);
            if self.outcome.tries == 1 {
                backend.budget.count(self.worker.stripe, now);
            }
            match &at {
                Some(endpoint) => backend.endpoints.begin_again(endpoint),
                None => backend.begin(&self.req, self.client, now, &mut rng, &tries.tried),
            }
        };
        let load = picked.map_err(|none| Broken::Backend(refuse_pick(none)))?;
        let endpoint = Arc::clone(load.endpoint());
        self.outcome.endpoint = Some(Arc::clone(&endpoint));
        limits.set_for_connect(timer, begun);
        let connected = match wait_for(down, timer, self.connect(backend, &endpoint, fresh, begun)).await {
            Ok(connected) => connected,
            Err(GaveUp::ClientGone) => return Err(Broken::Client(Cause::ClientClosed.into())),
            Err(GaveUp::Late) => match limits.late_to_connect() {
                Ok(failure) => Err(failure),
                Err(over) => return Err(Broken::Request(over.into())),
            },
        };
        let (mut up, is_reused, sent) = match connected {
            Ok(connected) => connected,
            Err(failure) => {
                // A head that is too large for the backend is not the backend's fault.
                if failure.cause.facts().side == Side::Backend {
                    self.learn(backend, load, begun, Outcome::LocalFailure);
                }
                return Err(Broken::Backend(failure));
            }
        };
        let keep = tries.keep(is_reused, matches!(up, Up::H2(_)));
        let mut is_begun = false;
        let result = loop {
            let waited = poll_fn(|cx| {
                if !self.is_still_allowed() {
                    return Poll::Ready(Err(Broken::Request(Cause::AccessDenied.into())));
                }
                let Self { req, rsp, pump, .. } = &mut *self;
                if !is_begun {
                    is_begun = true;
                    if let Err(failure) = pump.begin(req, &mut up, cx, keep) {
                        return Poll::Ready(Err(Broken::Backend(failure)));
                    }
                    limits.set_for_head(timer, begun, sent, !pump.is_request_done());
                }
                if let Poll::Ready(result) = pump.poll_response(cx, down, &mut up, rsp) {
                    return Poll::Ready(result);
                }
                if std::mem::take(&mut pump.has_moved) {
                    limits.set_for_head(timer, begun, Instant::now(), !pump.is_request_done());
                }
                timer.poll(cx).map(|()| {
                    Err(if limits.is_over() && limits.over() == Cause::DeadlineExceeded {
                        // The caller's hurry says nothing about the endpoint.
                        Broken::Request(Cause::DeadlineExceeded.into())
                    } else if pump.waits_for_client(&up) || !pump.is_request_done() && limits.is_upload_over()
                    {
                        Broken::Request(Cause::RequestTimeout.into())
                    } else {
                        Broken::Backend(Cause::BackendTimeout.into())
                    })
                })
            })
            .await;
            match waited {
                Ok(()) if self.rsp.is_interim() && self.rsp.status != 101 => {
                    // RFC 9110 §15.2: interim responses are relayed, but not to HTTP/1.0.
                    if self.req.version != Version::Http10 {
                        down.send_head(&self.rsp, true);
                    }
                }
                result => break result,
            }
        };
        match result {
            Ok(()) => {
                let came = Instant::now();
                let first_byte = came.saturating_duration_since(sent);
                self.outcome.timing.upstream_first_byte = Some(first_byte);
                self.outcome.upstream_status = Some(self.rsp.status);
                Ok(Attempt { up, load, endpoint, first_byte, begun, came })
            }
            Err(broken) => {
                if matches!(broken, Broken::Backend(_)) {
                    self.learn(backend, load, sent, Outcome::LocalFailure);
                }
                Err(broken)
            }
        }
    }

    fn learn(&self, backend: &Backend, load: InFlight, since: Instant, outcome: Outcome) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(since);
        backend.endpoints.finish(load, latency, outcome, Nanos::since(self.worker.origin, now));
    }

    /// A connection or stream to the endpoint, whether it was there before, and since when it can be used.
    async fn connect(
        &mut self,
        backend: &Backend,
        endpoint: &Endpoint,
        fresh: bool,
        begun: Instant,
    ) -> Result<(Up, bool, Instant), Failure> {
        let pools = &self.worker.pools;
        let (target, address) = backend.way(endpoint);
        if target.protocol == rhumb_upstream::Protocol::Http2 {
            let tunnel = self.asks_for_tunnel().then(|| extended_connect(&self.req));
            let (stream, is_new) =
                pools.open_stream(target, address, tunnel.as_ref().unwrap_or(&self.req)).await?;
            let now = Instant::now();
            if is_new {
                self.outcome.timing.connect = Some(now.saturating_duration_since(begun));
            }
            return Ok((Up::H2(Box::new(stream)), !is_new, now));
        }
        if self.req.protocol() == Some(b"websocket") && !self.req.fields.has(Known::SecWebsocketKey) {
            // RFC 8441 §5: HTTP/2 has no key; the handshake of HTTP/1.1 does not go without.
            let mut rng = self.worker.rng.borrow_mut();
            let random = (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())).to_ne_bytes();
            self.req.fields.append(Known::SecWebsocketKey, rhumb_conn::websocket::key(random).as_bytes());
        }
        if !fresh && let Some(lease) = pools.take(target, address) {
            // One that rested in the pool has taken no time.
            return Ok((Up::H1(lease.connection), true, begun));
        }
        let client = target.proxy_protocol.map(|_| self.connection.ends());
        let lease = pools.open_for(target, address, client).await?;
        let now = Instant::now();
        self.outcome.timing.connect = Some(now.saturating_duration_since(begun));
        Ok((Up::H1(lease.connection), lease.is_reused, now))
    }

    /// True for a request that asks for a WebSocket, in either protocol.
    fn is_websocket(&self) -> bool {
        let asked = self.req.upgrade().or_else(|| self.req.protocol()).unwrap_or_default();
        asked.trim_ascii().eq_ignore_ascii_case(b"websocket")
    }

    /// Sends the response head to the client, then content both ways to its end.
    #[allow(clippy::too_many_arguments)] // everything an attempt leaves behind, used once
    async fn respond(
        &mut self,
        down: &mut Down<'_>,
        attempt: Attempt,
        timer: &mut Timer,
        limits: &Limits,
        backend_chain: &Chain,
        backend_state: &mut ChainState,
        backend: &Backend,
        first: Instant,
    ) -> Result<(), End> {
        let Attempt { mut up, load, endpoint, first_byte, begun, came } = attempt;
        let verdict = judge_head(&self.rsp);
        let opens_tunnel = self.opens_tunnel()?;
        // What a backend runs is nobody's business; a policy may say something else.
        self.rsp.fields.remove(Known::Server);
        if !backend_chain.is_empty() {
            self.run_response_chain(backend_chain, backend_state);
        }
        self.finish_response_head();
        if let Some(status) = self.rsp.fields.get(Known::GrpcStatus) {
            self.outcome.grpc_status = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok());
        }
        if let Some(sightings) = &self.worker.sightings {
            crate::signals::glance(sightings, &self.req, &self.rsp, &mut self.pump);
        }
        let keep_alive = self.wants_keep_alive() && self.pump.is_request_done();
        down.send_head(&self.rsp, keep_alive);
        self.outcome.has_responded = true;
        if opens_tunnel {
            self.outcome.is_tunnel = true;
            self.outcome.notes.insert(Note::Upgraded);
            self.pump.begin_tunnel(down, &mut up);
            if self.is_websocket() {
                self.pump.end_in_order(self.worker);
            }
        }
        let mut is_first = true;
        let result = poll_fn(|cx| {
            if !self.is_still_allowed() {
                return Poll::Ready(Err(Broken::Request(Cause::AccessDenied.into())));
            }
            if let Poll::Ready(result) = self.pump.poll_content(cx, down, &mut up) {
                return Poll::Ready(result);
            }
            let has_moved = std::mem::take(&mut self.pump.has_moved);
            if std::mem::take(&mut is_first) {
                limits.set_for_content(timer, begun, came, opens_tunnel);
            } else if has_moved {
                limits.set_for_content(timer, begun, Instant::now(), opens_tunnel);
            }
            timer.poll(cx).map(|()| {
                let cause = limits.late_with_content(begun, opens_tunnel);
                // Who does not read, or has nothing to say in a tunnel, says nothing about the endpoint.
                let is_ours = matches!(cause, Cause::DeadlineExceeded | Cause::LifetimeOver);
                Err(if opens_tunnel || down.backlog() > 0 || is_ours {
                    Broken::Client(cause.into())
                } else {
                    Broken::Backend(cause.into())
                })
            })
        })
        .await;
        let now = Instant::now();
        self.outcome.timing.upstream_total = Some(now.saturating_duration_since(first));
        match result {
            Ok(()) => {
                let at = Nanos::since(self.worker.origin, now);
                backend.endpoints.finish(load, first_byte, verdict, at);
                if let Up::H1(connection) = up {
                    let (target, address) = backend.way(&endpoint);
                    self.worker.pools.put(target, address, connection, now);
                }
                self.outcome.ended = Some(now);
                Ok(())
            }
            Err(Broken::Client(failure) | Broken::Request(failure)) => Err(End::Cut(failure)),
            Err(Broken::Backend(failure)) => {
                let at = Nanos::since(self.worker.origin, now);
                backend.endpoints.finish(load, first_byte, Outcome::LocalFailure, at);
                Err(End::Cut(failure))
            }
        }
    }

    /// True when the response switches protocols, as the request asked.
    fn opens_tunnel(&mut self) -> Result<bool, End> {
        let is_connect = self.req.method() == Method::Connect;
        let opens = match (self.rsp.status, self.rsp.version) {
            (101, _) => true,
            (200..=299, Version::Http2) => is_connect || self.asks_for_tunnel(),
            // RFC 8441 §5: the client would take the answer of a backend that ignores the upgrade for an open tunnel.
            (200..=299, _) if is_connect => return Err(End::Refuse(Cause::UpgradeFailed.into())),
            _ => return Ok(false),
        };
        if !opens {
            return Ok(false);
        }
        let was_asked = is_connect || self.req.upgrade().is_some();
        // RFC 9110 §7.8: before the end of the request nobody may switch; the rest of its content would be tunnelled.
        // And nobody may switch to what the client has not offered.
        let is_offered = self.rsp.status != 101 || self.offers_what_was_chosen();
        if !was_asked || !is_offered || !self.pump.is_request_done() {
            return Err(End::Refuse(Cause::UpgradeFailed.into()));
        }
        if self.req.version == Version::Http2 {
            // RFC 8441 §5: what HTTP/1.1 says with 101, HTTP/2 says with 200.
            if self.rsp.status == 101 {
                self.rsp.status = 200;
            }
            self.rsp.fields.remove(Known::SecWebsocketAccept);
            self.rsp.set_upgrade(None);
            self.rsp.content = Content::Streamed;
        } else if self.rsp.status != 101 {
            self.switch_protocols();
        }
        Ok(true)
    }

    /// True for a request of HTTP/1.1 that an HTTP/2 backend gets as an extended CONNECT. One with content has to be
    /// answered as it is: the content would end up in the tunnel.
    fn asks_for_tunnel(&self) -> bool {
        self.req.upgrade().is_some() && self.req.content.is_empty()
    }

    fn offers_what_was_chosen(&self) -> bool {
        let offered = self.req.upgrade().or_else(|| self.req.protocol()).unwrap_or_default();
        let chosen = self.rsp.upgrade().unwrap_or_default();
        let is_chosen = |protocol: &[u8]| protocol.trim_ascii().eq_ignore_ascii_case(chosen.trim_ascii());
        offered.split(|&b| b == b',').any(is_chosen)
    }

    /// Turns a backend's 2xx to an extended CONNECT into the 101 that a client of HTTP/1.1 waits for (RFC 8441 §5).
    fn switch_protocols(&mut self) {
        let protocol = self.req.upgrade().unwrap_or_default().to_vec();
        self.rsp.status = 101;
        self.rsp.set_upgrade(Some(&protocol));
        self.rsp.content = Content::None;
        if let Some(key) = self.req.fields.get_only(Known::SecWebsocketKey) {
            let accept = rhumb_conn::websocket::accept(key);
            self.rsp.fields.set(Known::SecWebsocketAccept, accept.as_bytes());
        }
    }
}

/// What the head of a response says about the endpoint.
pub(crate) fn judge_head(rsp: &ResponseHead) -> Outcome {
    if let Some(status) = rsp.fields.get(Known::GrpcStatus) {
        return number(status).map_or(Outcome::Success, Outcome::of_grpc);
    }
    Outcome::of_status(rsp.status, || rsp.fields.get(Known::RetryAfter).and_then(retry_after))
}

pub(crate) fn refuse_pick(none: NotPicked) -> Failure {
    match none {
        NotPicked::NoEndpoint => Cause::NoEndpoint.into(),
        NotPicked::Limit => Cause::BackendLimit.into(),
    }
}

fn number<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The time in a Retry-After (RFC 9110 §10.2.3); one with a date says that there is one.
fn retry_after(value: &[u8]) -> Option<Duration> {
    Some(number(value).map_or(rhumb_balance::health::THROTTLE_DEFAULT, Duration::from_secs))
}

/// The extended CONNECT that stands for an upgrade (RFC 8441 §5).
fn extended_connect(req: &RequestHead) -> RequestHead {
    let mut connect = req.clone();
    let protocol = req.upgrade().unwrap_or_default().to_ascii_lowercase();
    connect.set_method(b"CONNECT");
    connect.set_protocol(Some(&protocol));
    connect.set_upgrade(None);
    connect.content = Content::Streamed;
    connect.fields.remove(Known::SecWebsocketKey);
    connect
}

/// What a successful attempt leaves behind.
pub(crate) struct Attempt {
    up: Up,
    load: InFlight,
    endpoint: Arc<Endpoint>,
    first_byte: Duration,
    /// When the attempt began.
    begun: Instant,
    /// When the response head came.
    came: Instant,
}
