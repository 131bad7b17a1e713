//! The policies of an exchange: they are run, waited for, and asked again when they have changed.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rhumb_base::failure::Cause;
use rhumb_codec::field::Known;
use rhumb_codec::head::{RequestHead, ResponseHead, Version};
use rhumb_net::timer::Timer;
use rhumb_plan::consumer::ConsumerPolicies;
use rhumb_plan::rule::DEFAULT_REQUEST_TIMEOUT;
use rhumb_policy::Chain;
use rhumb_policy::chain::{ChainState, Step};
use rhumb_route::Lookup;
use rhumb_telemetry::{Limit, Metric};

use super::{End, Exchange, GaveUp, client_of, refuse, wait_for};
use crate::fields;
use crate::limits::Digits;
use crate::pump::Broken;
use crate::side::Down;

impl Exchange<'_> {
    pub(super) async fn run_request_policies(
        &mut self,
        down: &mut Down<'_>,
        timer: &mut Timer,
    ) -> Result<(), End> {
        let Some(rule) = self.rule.clone() else { return Ok(()) };
        let mut state = std::mem::take(&mut self.chain_state);
        let result = self.run_chain(&rule.value.chain, &mut state, down, timer).await;
        self.chain_state = state;
        result
    }

    /// Policies of the consumer that asks, if it is known and has some.
    pub(super) fn consumer_policies(&self) -> Option<Arc<ConsumerPolicies>> {
        let consumer = self.found.principal.as_ref()?.consumer.as_ref()?;
        let mut reader = self.worker.reader.borrow_mut();
        reader.load().consumers.get(&*consumer.name).map(Arc::clone)
    }

    pub(super) async fn run_consumer_policies(
        &mut self,
        policies: Arc<ConsumerPolicies>,
        down: &mut Down<'_>,
        timer: &mut Timer,
    ) -> Result<(), End> {
        if policies.invalid.is_some() {
            return Err(refuse(Cause::ConfigurationInvalid));
        }
        let mut state = ChainState::default();
        let result = self.run_chain(&policies.chain, &mut state, down, timer).await;
        self.of_consumer = Some(Box::new((policies, state)));
        result
    }

    /// Runs a chain's request hooks, waiting where one of them waits.
    pub(crate) async fn run_chain(
        &mut self,
        chain: &Chain,
        state: &mut ChainState,
        down: &mut Down<'_>,
        timer: &mut Timer,
    ) -> Result<(), End> {
        if chain.is_empty() {
            return Ok(());
        }
        let mut step = self.with_policy_view(|req, _, cx| chain.on_request(req, state, cx));
        loop {
            let outcome = match step {
                Step::Done => return Ok(()),
                Step::Respond(reply) => return Err(End::Reply(reply)),
                Step::Reset => return Err(End::Reset),
                Step::Delay(time, then) => {
                    self.wait(down, timer, time + time, pause(Instant::now() + time)).await?;
                    then
                }
                Step::Read(limit) => {
                    self.read_ahead(down, timer, limit).await?;
                    step = self.with_policy_view(|req, _, cx| chain.proceed(req, state, cx));
                    continue;
                }
                Step::Wait(future) => {
                    let begun = self.begin_wait();
                    let waited = self.wait(down, timer, DEFAULT_REQUEST_TIMEOUT, future).await;
                    self.note_wait(chain.waiting(state), begun);
                    waited?
                }
            };
            step = self.with_policy_view(|req, _, cx| chain.resume(outcome, req, state, cx));
        }
    }

    /// Reads the beginning of the request's content for a policy, within the request's time.
    async fn read_ahead(&mut self, down: &mut Down<'_>, timer: &mut Timer, limit: usize) -> Result<(), End> {
        // RFC 9110 §10.1.1: the client waits to be asked; who reads asks, and nobody has to a second time.
        if std::mem::take(&mut self.req.expect_continue) && self.req.version != Version::Http10 {
            down.send_head(&ResponseHead::with_status(100), true);
        }
        timer.set(self.started + self.request_limit(DEFAULT_REQUEST_TIMEOUT));
        let Self { req, pump, .. } = self;
        let read = poll_fn(|cx| match pump.poll_ahead(cx, req, down, limit) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => timer.poll(cx).map(Err),
        });
        match read.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Broken::Client(failure))) => Err(End::Cut(failure)),
            Ok(Err(Broken::Request(failure) | Broken::Backend(failure))) => Err(End::Refuse(failure)),
            Err(()) => Err(refuse(Cause::RequestTimeout)),
        }
    }

    /// Waits for what a policy waits for, within the request's time; for `longest` when that has no end.
    async fn wait<T>(
        &mut self,
        down: &mut Down<'_>,
        timer: &mut Timer,
        longest: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, End> {
        timer.set(self.started + self.request_limit(longest));
        wait_for(down, timer, work).await.map_err(|gave_up| match gave_up {
            GaveUp::ClientGone => End::Cut(Cause::ClientClosed.into()),
            GaveUp::Late => refuse(Cause::BackendTimeout),
        })
    }

    /// The request's time; `longest` when that has no end.
    fn request_limit(&self, longest: Duration) -> Duration {
        match self.rule.as_ref().and_then(|rule| rule.value.timeouts.request) {
            None => DEFAULT_REQUEST_TIMEOUT,
            Some(Duration::ZERO) => longest,
            Some(limit) => limit,
        }
    }

    /// True when a request of a caller in the mesh may go on: nothing has changed, or what has changed allows it too.
    #[inline]
    pub(crate) fn is_still_allowed(&mut self) -> bool {
        self.connection.mesh.is_none()
            || self.worker.revision() == self.allowed
            || self.look_whether_allowed()
    }

    #[cold]
    fn look_whether_allowed(&mut self) -> bool {
        let (revision, port) = self.connection.port(self.worker);
        self.allowed = revision;
        if !self.connection.mesh.as_ref().is_some_and(|mesh| mesh.is_inbound()) {
            return true;
        }
        let rule = match port.table.find(self.req.authority(), &self.req) {
            Lookup::Found(found) => Arc::clone(found.rule),
            // It is no longer served: whoever is served still is served to the end.
            _ => return true,
        };
        let mut policies = rule.value.chain.items().iter().filter(|item| !item.is_shadow);
        let is_allowed = rule.value.invalid.is_none()
            && policies.all(|item| {
                self.with_policy_view(|req, _, cx| rhumb_policy::mesh::still_admits(&item.policy, req, cx))
            });
        if !is_allowed {
            self.worker.metrics.borrow_mut().add(Metric::MeshEnded, &["denied"], 1);
        }
        is_allowed
    }

    /// Runs hooks on the request, and keeps what they ask of the engine.
    fn with_policy_view<T>(
        &mut self,
        run: impl FnOnce(&mut RequestHead, &mut ResponseHead, &mut rhumb_policy::Exchange<'_>) -> T,
    ) -> T {
        let known = self.found.refusals.len();
        let mut cx = rhumb_policy::Exchange {
            client: self.client,
            certificate: self.connection.certificate(),
            scheme: self.connection.scheme,
            port: self.connection.address.port(),
            destination: None,
            matched_prefix: self.matched_prefix,
            request_id: self.request_id.as_str(),
            unix_nanos: self.worker.unix_nanos_lately(self.started),
            rng: Some(&self.worker.rng),
            effects: self.effects,
            decision: None,
            began: Some(self.started),
            found: std::mem::take(&mut self.found),
            content: self.pump.ahead(),
            out: Some(&self.worker.out),
            member: Some(&**self.worker),
        };
        let result = run(&mut self.req, &mut self.rsp, &mut cx);
        (self.effects, self.found) = (cx.effects, cx.found);
        if cx.decision.is_some() {
            self.outcome.decision = cx.decision;
        }
        if let Some(most) = self.effects.max_content {
            self.pump.max_content = self.pump.max_content.min(most);
        }
        if std::mem::take(&mut self.found.keys_full) {
            self.worker.metrics.borrow_mut().limit(Limit::PolicyKeys);
        }
        if self.found.refusals.len() > known {
            self.count_refusals(known);
        }
        result
    }

    /// Counts what policies refused, or would have refused.
    #[cold]
    fn count_refusals(&self, known: usize) {
        let mut metrics = self.worker.metrics.borrow_mut();
        for refusal in self.found.refusals.iter().skip(known) {
            let code = refusal.cause.map_or("", |cause| cause.facts().code);
            metrics.add(Metric::PolicyRefusals, &[refusal.policy, code, refusal.mode.as_str()], 1);
        }
    }

    /// Runs the response hooks of a chain on the response head.
    pub(crate) fn run_response_chain(&mut self, chain: &Chain, state: &mut ChainState) {
        self.with_policy_view(|_, rsp, cx| chain.on_response(rsp, state, cx));
    }

    /// Runs the rule's response hooks and sets the fields that every response has.
    pub(crate) fn finish_response_head(&mut self) {
        if let Some(mut of_consumer) = self.of_consumer.take() {
            let (policies, state) = &mut *of_consumer;
            self.run_response_chain(&policies.chain, state);
            self.of_consumer = Some(of_consumer);
        }
        if let Some(rule) = self.rule.clone()
            && !rule.value.chain.is_empty()
        {
            let mut state = std::mem::take(&mut self.chain_state);
            self.run_response_chain(&rule.value.chain, &mut state);
            self.chain_state = state;
        }
        if !self.found.response_edits.is_empty() {
            self.found.response_edits.iter().for_each(|edit| edit.apply(&mut self.rsp.fields));
        }
        let seconds = self.worker.unix_nanos_lately(self.started) / 1_000_000_000;
        fields::finish_response(&mut self.rsp, self.request_id.as_str(), seconds);
        if let Some(tells) = self.outcome.tells {
            let attempts = tells.attempts.then_some(self.outcome.tries);
            for (name, number) in [(Known::XRhumbRetriesLeft, tells.left), (Known::XRhumbAttempts, attempts)]
            {
                let Some(number) = number else { continue };
                let mut text = Digits::default();
                text.put(number.into(), b"");
                self.rsp.fields.set(name, text.as_bytes());
            }
        }
        self.outcome.status = self.rsp.status;
    }

    /// A copy of the request for a mirror, with forwarding fields; nothing when a policy of the mirror would not let it
    /// pass at once.
    pub(crate) fn copy_request(&self, chain: &Chain) -> Option<Box<RequestHead>> {
        let mut copy = self.req.clone();
        let mut cx = rhumb_policy::Exchange {
            matched_prefix: self.matched_prefix,
            request_id: self.request_id.as_str(),
            unix_nanos: self.worker.unix_nanos_lately(self.started),
            rng: Some(&self.worker.rng),
            ..rhumb_policy::Exchange::new(self.client, self.connection.scheme, self.connection.address.port())
        };
        if !matches!(chain.on_request(&mut copy, &mut ChainState::default(), &mut cx), Step::Done) {
            return None;
        }
        // The copy is sent when its content is at hand: nobody waits for 100 (Continue).
        copy.fields.remove(Known::Expect);
        let client = client_of(self.connection);
        fields::forward(&mut copy, &client, &self.port.settings, &self.trace, self.request_id.as_str());
        self.tell_trace_to_mirror(&mut copy.fields);
        Some(copy)
    }
}

/// Until a point in time.
async fn pause(until: Instant) {
    let mut timer = Timer::new();
    timer.set(until);
    poll_fn(|cx| timer.poll(cx)).await;
}
