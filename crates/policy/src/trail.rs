//! What the policies of one exchange decided and changed, for `rhumb trace`.
//!
//! Kept for the few exchanges that somebody asked for. Values of fields whose name says credential are never told.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhumb_codec::field::Fields;
use rhumb_codec::head::{RequestHead, ResponseHead};
use serde_json::{Value, json};

use crate::chain::Item;
use crate::policy::Verdict;

/// Steps that one exchange remembers; a retried one asks the policies of its backend again.
pub const MAX_STEPS: usize = 256;

/// Changes that one step tells.
const MAX_CHANGES: usize = 64;

/// The longest value that is told, in bytes.
const MAX_VALUE: usize = 256;

/// Stands for a value that is not told.
const HIDDEN: &str = "(not shown)";

/// What happened to an exchange, in order.
#[derive(Debug)]
pub struct Trail {
    began: Instant,
    steps: Vec<Value>,
}

impl Trail {
    /// Nothing has happened since the exchange began.
    pub fn new(began: Instant) -> Self {
        Self { began, steps: Vec::new() }
    }

    /// Takes a step down. What is told of it is an object, and gets the time at which it ended.
    pub fn note(&mut self, step: &str, mut told: Value) {
        if self.steps.len() >= MAX_STEPS {
            return;
        }
        // Who looks at an exchange wants to know how long it was where; nobody else comes here.
        put(&mut told, "step", step);
        put(&mut told, "atUs", micros(self.began.elapsed()));
        self.steps.push(told);
    }

    /// The steps.
    pub fn into_steps(self) -> Vec<Value> {
        self.steps
    }

    /// Takes down what a policy decided about a request, and what it changed.
    pub(crate) fn asked(&mut self, item: &Item, verdict: &Verdict, before: &Message, req: &RequestHead) {
        let mut told = about(item, "request");
        let decision = match verdict {
            Verdict::Continue => "continue",
            Verdict::Respond(_) => "respond",
            Verdict::Reset => "reset",
            Verdict::Delay(..) => "delay",
            Verdict::Read(_) => "read content",
            Verdict::Wait(_) => "wait",
        };
        put(&mut told, "decision", decision);
        if let Verdict::Respond(reply) = verdict {
            put(&mut told, "status", reply.head.status);
            put(&mut told, "code", reply.cause.map(|cause| cause.facts().code));
            put(&mut told, "detail", reply.detail.as_deref());
        }
        if let Verdict::Delay(time, _) = verdict {
            put(&mut told, "delayUs", micros(*time));
        }
        put(&mut told, "changes", before.changes(&Message::of_request(req)));
        self.note("policy", told);
    }

    /// Takes down what a policy changed of a response.
    pub(crate) fn answered(&mut self, item: &Item, before: &Message, rsp: &ResponseHead) {
        let mut told = about(item, "response");
        put(&mut told, "decision", "continue");
        put(&mut told, "changes", before.changes(&Message::of_response(rsp)));
        self.note("policy", told);
    }
}

/// Adds to what is told of a step.
fn put(told: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(told) = told.as_object_mut() {
        told.insert(name.to_owned(), value.into());
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn about(item: &Item, side: &str) -> Value {
    let origin: &Arc<str> = &item.origin;
    let mut told = json!({ "policy": item.policy.kind(), "origin": &**origin, "side": side });
    if item.is_shadow {
        put(&mut told, "shadow", true);
    }
    told
}

/// A message as it was at a time: what is told of it, by name.
pub struct Message(Vec<(String, Vec<u8>)>);

impl Message {
    /// A request.
    pub fn of_request(req: &RequestHead) -> Self {
        let mut target = Vec::new();
        req.write_target(&mut target);
        let mut all = vec![
            ("method".to_owned(), req.method_name().to_vec()),
            ("host".to_owned(), req.authority().to_vec()),
            ("target".to_owned(), target),
        ];
        all.extend(fields(&req.fields));
        Self(all)
    }

    /// A response.
    pub fn of_response(rsp: &ResponseHead) -> Self {
        let mut all = vec![("status".to_owned(), rsp.status.to_string().into_bytes())];
        all.extend(fields(&rsp.fields));
        Self(all)
    }

    /// Everything, as it is told.
    pub fn told(&self) -> Value {
        self.0.iter().take(MAX_CHANGES).map(|(name, value)| json!([name, shown(name, value)])).collect()
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    fn changes(&self, after: &Self) -> Value {
        let gone = self.0.iter().filter(|(name, _)| after.get(name).is_none());
        let gone = gone.map(|(name, value)| (name, Some(&**value), None));
        let other = after.0.iter().filter(|(name, value)| self.get(name) != Some(value));
        let other = other.map(|(name, value)| (name, self.get(name), Some(&**value)));
        let told = gone.chain(other).take(MAX_CHANGES).map(|(name, before, after)| {
            let side = |value: Option<&[u8]>| value.map(|value| shown(name, value).into_owned());
            json!({ "what": name, "before": side(before), "after": side(after) })
        });
        told.collect()
    }
}

/// Fields by name in lower case; lines of one name are joined (RFC 9110 §5.3).
fn fields(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for line in fields.iter() {
        let name = String::from_utf8_lossy(line.name).to_ascii_lowercase();
        match all.iter_mut().find(|(other, _)| *other == name) {
            Some((_, value)) => {
                value.extend_from_slice(b", ");
                value.extend_from_slice(line.value);
            }
            None => all.push((name, line.value.to_vec())),
        }
    }
    all
}

fn shown<'v>(name: &str, value: &'v [u8]) -> Cow<'v, str> {
    if says_credential(name) {
        return HIDDEN.into();
    }
    if name == "target" {
        return target(value).into();
    }
    let text = String::from_utf8_lossy(value.get(..MAX_VALUE).unwrap_or(value));
    if value.len() > MAX_VALUE { format!("{text}…").into() } else { text }
}

/// A target without the values of parameters whose name says credential.
fn target(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    let path = path.chars().take(MAX_VALUE);
    let mut out: String = path.collect();
    if !query.is_empty() {
        let parts = query.split('&').take(MAX_CHANGES).map(|pair| match pair.split_once('=') {
            Some((name, _)) if says_credential(name) => format!("{name}={HIDDEN}"),
            // What has no name may be anything.
            None => HIDDEN.to_owned(),
            Some(_) => pair.chars().take(MAX_VALUE).collect(),
        });
        out.push('?');
        out.push_str(&parts.collect::<Vec<_>>().join("&"));
    }
    out
}

/// Names whose values open something.
fn says_credential(name: &str) -> bool {
    const WORDS: [&str; 14] = [
        "auth",
        "cookie",
        "token",
        "secret",
        "key",
        "passw",
        "session",
        "signature",
        "credential",
        "jwt",
        "csrf",
        "xsrf",
        "otp",
        "sid",
    ];
    let name = name.to_ascii_lowercase();
    // No secret, and what is most often looked for.
    let is_known = ["authority", "www-authenticate", ":authority"].contains(&name.as_str());
    !is_known && (WORDS.iter().any(|word| name.contains(word)) || name == "code" || name == "state")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_codec::field::Known;

    #[test]
    fn changes_are_told_and_secrets_are_not() {
        let mut req = RequestHead::new();
        req.set_method(b"GET");
        req.set_target(b"/a?x=1&access_token=hunter2&hunter3");
        req.fields.append(Known::Authorization, b"Bearer hunter2");
        req.fields.append(Known::UserAgent, b"curl");
        let before = Message::of_request(&req);
        assert!(!before.told().to_string().contains("hunter"), "{}", before.told());
        assert!(before.told().to_string().contains("/a?x=1"));
        req.fields.set(Known::Authorization, b"Bearer hunter4");
        req.fields.remove(Known::UserAgent);
        req.fields.append(Known::Via, b"1.1 a");
        let changes = before.changes(&Message::of_request(&req));
        assert_eq!(
            changes,
            json!([
                { "what": "user-agent", "before": "curl", "after": null },
                { "what": "authorization", "before": HIDDEN, "after": HIDDEN },
                { "what": "via", "before": null, "after": "1.1 a" },
            ])
        );
    }

    #[test]
    fn steps_are_bounded() {
        let mut trail = Trail::new(Instant::now());
        for _ in 0..10 * MAX_STEPS {
            trail.note("x", json!({}));
        }
        assert_eq!(trail.into_steps().len(), MAX_STEPS);
    }
}
