//! The chain: the policies of one rule in order, and what runs per request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rhumb_codec::head::{RequestHead, ResponseHead};

use crate::exchange::{Exchange, Mode, Refusal, Reply};
use crate::list::{Policy, State};
use crate::policy::{Hooks, Outcome, Verdict};
use crate::trail::Message;

/// A policy in a chain with the place that attached it.
#[derive(Clone)]
pub struct Item {
    /// The compiled policy, shared by every chain that inherits it.
    pub policy: Arc<Policy>,
    /// Which document attached it, for `rhumb explain` and dumps.
    pub origin: Arc<str>,
    /// Shadow mode: it runs and is counted, and what it decides is not done.
    pub is_shadow: bool,
}

/// The policies of one rule, in order. Immutable.
#[derive(Clone, Default)]
pub struct Chain {
    items: Box<[Item]>,
    request: Box<[u16]>,
    response: Box<[u16]>,
    is_stateful: bool,
    /// It has a policy that decides about requests without credentials.
    decides_later: bool,
}

/// What the chain remembers of one exchange.
#[derive(Default)]
pub struct ChainState {
    slots: Vec<State>,
    /// Policies with a lower index ran their request hook.
    reached: u16,
}

/// Where the request hooks stand.
pub enum Step {
    /// All ran.
    Done,
    /// One answered.
    Respond(Box<Reply>),
    /// One wants the stream or connection reset.
    Reset,
    /// One wants this time to pass; then give the outcome to [`Chain::resume`].
    Delay(Duration, Outcome),
    /// One wants to see so much of the request's content; then call [`Chain::proceed`].
    Read(usize),
    /// One waits; give its outcome to [`Chain::resume`].
    Wait(Pin<Box<dyn Future<Output = Outcome>>>),
}

impl Chain {
    /// Puts policies into chain order; those of equal rank keep theirs.
    pub fn new(mut items: Vec<Item>) -> Self {
        items.sort_by_key(|item| item.policy.rank());
        items.truncate(usize::from(u16::MAX));
        let with = |hook| {
            let has = |(index, item): (u16, &Item)| item.policy.hooks().has(hook).then_some(index);
            (0u16..).zip(&items).filter_map(has).collect::<Vec<u16>>()
        };
        let (request, mut response) = (with(Hooks::REQUEST), with(Hooks::RESPONSE));
        response.reverse();
        let is_stateful = items.iter().any(|item| item.policy.is_stateful());
        let decides_later = items.iter().any(|item| !item.is_shadow && item.policy.decides_about_strangers());
        Self {
            items: items.into(),
            request: request.into(),
            response: response.into(),
            is_stateful,
            decides_later,
        }
    }

    /// Every policy in chain order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// True when nothing is attached.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Runs the request hooks from the beginning.
    #[inline]
    pub fn on_request(&self, req: &mut RequestHead, state: &mut ChainState, cx: &mut Exchange<'_>) -> Step {
        state.reached = 0;
        cx.found.is_decided_later = self.decides_later;
        if self.items.is_empty() {
            return Step::Done;
        }
        state.slots.clear();
        if self.is_stateful {
            state.slots.resize_with(self.items.len(), || State::Unused);
        }
        self.run(req, state, cx)
    }

    /// Applies what the waiting policy came back with and runs the hooks behind it.
    pub fn resume(
        &self,
        outcome: Outcome,
        req: &mut RequestHead,
        state: &mut ChainState,
        cx: &mut Exchange<'_>,
    ) -> Step {
        match outcome {
            Outcome::Respond(reply) => Step::Respond(reply),
            Outcome::Reset => Step::Reset,
            Outcome::Apply(apply) => {
                let waited = state.reached.checked_sub(1).and_then(|at| self.items.get(usize::from(at)));
                let Some(item) = waited else { return self.run(req, state, cx) };
                let verdict = match cx.found.trail {
                    None => settle(item, req, cx, apply),
                    Some(_) => watched(item, req, cx, apply),
                };
                match verdict {
                    Verdict::Continue => self.run(req, state, cx),
                    Verdict::Read(limit) => {
                        state.reached = state.reached.saturating_sub(1);
                        Step::Read(limit)
                    }
                    verdict => step(verdict),
                }
            }
            Outcome::Continue(edits) => {
                edits.iter().for_each(|edit| edit.apply(&mut req.fields));
                self.run(req, state, cx)
            }
        }
    }

    /// The kind of the policy that [`Step::Wait`] is of.
    pub fn waiting(&self, state: &ChainState) -> &'static str {
        let waited = state.reached.checked_sub(1).and_then(|at| self.items.get(usize::from(at)));
        waited.map_or("", |item| item.policy.kind())
    }

    /// Goes on where [`Step::Read`] stopped.
    pub fn proceed(&self, req: &mut RequestHead, state: &mut ChainState, cx: &mut Exchange<'_>) -> Step {
        self.run(req, state, cx)
    }

    fn run(&self, req: &mut RequestHead, state: &mut ChainState, cx: &mut Exchange<'_>) -> Step {
        let mut unused = State::Unused;
        let from = state.reached;
        for &index in self.request.iter().filter(|&&index| index >= from) {
            let Some(item) = self.items.get(usize::from(index)) else { break };
            state.reached = index + 1;
            let slot = state.slots.get_mut(usize::from(index)).unwrap_or(&mut unused);
            let decide = |req: &mut RequestHead, cx: &mut Exchange<'_>| item.policy.on_request(req, slot, cx);
            let verdict = match cx.found.trail {
                None => settle(item, req, cx, decide),
                Some(_) => watched(item, req, cx, decide),
            };
            match verdict {
                Verdict::Continue => {}
                Verdict::Read(limit) => {
                    state.reached = index;
                    return Step::Read(limit);
                }
                verdict => return step(verdict),
            }
        }
        state.reached = u16::MAX;
        Step::Done
    }

    /// Runs the response hooks, last policy first, of those that saw the request.
    #[inline]
    pub fn on_response(&self, rsp: &mut ResponseHead, state: &mut ChainState, cx: &mut Exchange<'_>) {
        let mut unused = State::Unused;
        for &index in self.response.iter().filter(|&&index| index < state.reached) {
            let Some(item) = self.items.get(usize::from(index)) else { continue };
            let slot = state.slots.get_mut(usize::from(index)).unwrap_or(&mut unused);
            let before = cx.found.trail.as_ref().map(|_| Message::of_response(rsp));
            if item.is_shadow {
                rehearse(cx, |cx| item.policy.on_response(&mut rsp.clone(), slot, cx));
            } else {
                item.policy.on_response(rsp, slot, cx);
            }
            if let (Some(before), Some(trail)) = (before, &mut cx.found.trail) {
                trail.answered(item, &before, rsp);
            }
        }
    }
}

fn step(verdict: Verdict) -> Step {
    match verdict {
        Verdict::Continue => Step::Done,
        Verdict::Respond(reply) => Step::Respond(reply),
        Verdict::Reset => Step::Reset,
        Verdict::Delay(time, then) => Step::Delay(time, then),
        Verdict::Read(limit) => Step::Read(limit),
        Verdict::Wait(future) => Step::Wait(future),
    }
}

/// Takes a policy's verdict, and takes down a refusal. In shadow mode what it does to the request is undone, and it
/// decides nothing.
#[inline]
fn settle(
    item: &Item,
    req: &mut RequestHead,
    cx: &mut Exchange<'_>,
    decide: impl FnOnce(&mut RequestHead, &mut Exchange<'_>) -> Verdict,
) -> Verdict {
    if item.is_shadow {
        return in_shadow(item, req, cx, decide);
    }
    let verdict = decide(req, cx);
    if let Verdict::Respond(reply) = &verdict
        && reply.cause.is_some()
    {
        let policy = item.policy.kind();
        cx.found.refusals.push(Refusal { policy, mode: Mode::Enforce, cause: reply.cause });
    }
    verdict
}

/// The same, and takes down what the policy decided and changed.
#[cold]
fn watched(
    item: &Item,
    req: &mut RequestHead,
    cx: &mut Exchange<'_>,
    decide: impl FnOnce(&mut RequestHead, &mut Exchange<'_>) -> Verdict,
) -> Verdict {
    let before = Message::of_request(req);
    let verdict = settle(item, req, cx, decide);
    if let Some(trail) = &mut cx.found.trail {
        trail.asked(item, &verdict, &before, req);
    }
    verdict
}

#[cold]
fn in_shadow(
    item: &Item,
    req: &RequestHead,
    cx: &mut Exchange<'_>,
    decide: impl FnOnce(&mut RequestHead, &mut Exchange<'_>) -> Verdict,
) -> Verdict {
    let mut copy = req.clone();
    let cause = match rehearse(cx, |cx| decide(&mut copy, cx)) {
        Verdict::Continue | Verdict::Delay(..) => return Verdict::Continue,
        Verdict::Read(limit) => return Verdict::Read(limit),
        // What it waits for is waited for; its outcome comes back here.
        Verdict::Wait(future) => return Verdict::Wait(Box::pin(async { hold_back(future.await) })),
        Verdict::Respond(reply) => reply.cause,
        Verdict::Reset => None,
    };
    cx.found.refusals.push(Refusal { policy: item.policy.kind(), mode: Mode::Shadow, cause });
    Verdict::Continue
}

/// An outcome that is settled where verdicts are.
fn hold_back(outcome: Outcome) -> Outcome {
    Outcome::Apply(match outcome {
        Outcome::Apply(apply) => apply,
        Outcome::Continue(_) => Box::new(|_, _| Verdict::Continue),
        Outcome::Respond(reply) => Box::new(|_, _| Verdict::Respond(reply)),
        Outcome::Reset => Box::new(|_, _| Verdict::Reset),
    })
}

/// Lets a policy in shadow mode see what other policies in shadow mode found, and leaves nothing of what it does but that.
fn rehearse<T>(cx: &mut Exchange<'_>, run: impl FnOnce(&mut Exchange<'_>) -> T) -> T {
    let (principal, effects, decision) = (cx.found.principal.take(), cx.effects, cx.decision.take());
    let challenges = cx.found.challenges.len();
    cx.found.principal = cx.found.rehearsed.take().or_else(|| principal.clone());
    let result = run(cx);
    cx.found.rehearsed = std::mem::replace(&mut cx.found.principal, principal);
    (cx.effects, cx.decision) = (effects, decision);
    cx.found.challenges.truncate(challenges);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Context, Keeper, NoDocuments};
    use crate::parse;
    use rhumb_base::failure::Cause;
    use rhumb_codec::field::Known;
    use rhumb_codec::head::Scheme;
    use serde_json::json;

    fn item(kind: &str, body: serde_json::Value) -> Item {
        let (mut documents, keeper) = (NoDocuments, Keeper::default());
        let mut cx = Context::new("default", "test", &mut documents, &keeper);
        let parsed = parse(kind, &body, &mut cx).unwrap().unwrap();
        Item { policy: Arc::new(parsed.policy), origin: "test".into(), is_shadow: parsed.is_shadow }
    }

    fn exchange() -> Exchange<'static> {
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        Exchange::new(client, Scheme::Http, 80)
    }

    #[test]
    fn policies_run_in_list_order_and_stop_at_a_reply() {
        let chain = Chain::new(vec![
            item(
                "headerModifier",
                json!({ "request": { "set": [{ "name": "via", "value": "x" }] }, "response": { "set": [{ "name": "server", "value": "x" }] } }),
            ),
            item("directResponse", json!({ "status": 418 })),
        ]);
        assert_eq!(chain.items().first().unwrap().policy.kind(), "directResponse");
        let (mut req, mut state) = (RequestHead::new(), ChainState::default());
        let Step::Respond(mut reply) = chain.on_request(&mut req, &mut state, &mut exchange()) else {
            panic!("no reply")
        };
        assert_eq!(reply.head.status, 418);
        assert!(!req.fields.has(Known::Via));
        chain.on_response(&mut reply.head, &mut state, &mut exchange());
        assert!(
            !reply.head.fields.has(Known::Server),
            "a policy that never saw the request changed the response"
        );
    }

    #[test]
    fn in_shadow_mode_a_policy_is_asked_and_not_obeyed() {
        let chain = Chain::new(vec![
            item("authorization", json!({ "shadow": true, "rules": [{ "when": "false" }] })),
            item("headerModifier", json!({ "request": { "set": [{ "name": "via", "value": "x" }] } })),
        ]);
        let (mut req, mut state, mut cx) = (RequestHead::new(), ChainState::default(), exchange());
        assert!(matches!(chain.on_request(&mut req, &mut state, &mut cx), Step::Done));
        assert!(req.fields.has(Known::Via) && cx.decision.is_none());
        assert_eq!(
            cx.found.refusals,
            [Refusal { policy: "authorization", mode: Mode::Shadow, cause: Some(Cause::AccessDenied) }]
        );
        let chain = Chain::new(vec![item("authorization", json!({ "rules": [{ "when": "false" }] }))]);
        let mut cx = exchange();
        assert!(matches!(chain.on_request(&mut req, &mut state, &mut cx), Step::Respond(_)));
        assert_eq!(cx.found.refusals[0].mode, Mode::Enforce);
    }

    #[test]
    fn an_empty_chain_does_nothing() {
        let (mut req, mut state) = (RequestHead::new(), ChainState::default());
        assert!(matches!(Chain::default().on_request(&mut req, &mut state, &mut exchange()), Step::Done));
    }
}
