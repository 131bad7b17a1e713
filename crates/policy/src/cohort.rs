//! Keep each client at the backend that its first request was sent to, while weights say how many clients go where.
//!
//! A rule with several weighted backendRefs chooses one for each request by chance. With a cohort it chooses by a key of
//! the client: rendezvous hashing of the key with every backend's name, scaled by the weights (Schindelhauer & Schomaker
//! 2005). What decides is the ratio of weights, so raising one backend moves clients only to that one, lowering it moves
//! clients only away from it, whatever the order; reloads and restarts change nothing, and all workers and all instances
//! agree. Requests without a key (a missing field) are spread by chance.
//!
//! A cookie's value is an opaque random number; clients that change it choose themselves where they go, so a cohort is no
//! protection. Safe to run again on a retry: the choice of the backend was made before.

use rhumb_codec::field::{FieldName, Known};
use rhumb_codec::head::{RequestHead, ResponseHead, Scheme};
use rhumb_route::field::cookie;
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::IpAddr;
use std::time::Duration;

use crate::condition::check_cookie_name;
use crate::context::Context;
use crate::exchange::Exchange;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// The cookie's name when none is written.
pub const DEFAULT_COOKIE: &str = "rhumb-cohort";

/// Keeps clients at their backend of a weighted split.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// What tells clients apart: `cookie` (set when it is missing), `header` or `clientIp`.
    pub by: By,
    /// Name of the cookie or field. Default: `rhumb-cohort` for a cookie; a field must be named.
    #[serde(default)]
    pub name: Option<String>,
    /// How long a browser keeps the cookie: a duration such as 720h. Default: until it is closed.
    #[serde(default)]
    pub lifetime: Option<String>,
}

/// What tells clients apart.
#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// A cookie. Clients without it get one.
    Cookie,
    /// A field of the request, such as a user's or tenant's id.
    Header,
    /// The client's address.
    ClientIp,
}

/// A compiled cohort.
pub struct Cohort(Key);

enum Key {
    Cookie { name: Box<str>, attributes: Box<str> },
    Header(FieldName),
    ClientIp,
}

/// The value for a client that has no cookie yet.
#[derive(Default)]
pub struct Fresh(Option<u64>);

impl HttpPolicy for Cohort {
    const KIND: &'static str = "cohort";
    const HOOKS: Hooks = Hooks::REQUEST.or(Hooks::RESPONSE);
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = Fresh;

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.by != By::Cookie && spec.lifetime.is_some() {
            return Err(Invalid::new(
                "lifetime",
                "only a cookie has one",
                "remove lifetime or write `by: cookie`",
            ));
        }
        Ok(Self(match (spec.by, spec.name) {
            (By::Cookie, name) => {
                let name = name.unwrap_or_else(|| DEFAULT_COOKIE.to_owned());
                check_cookie_name("name", &name)?;
                let mut attributes = "; Path=/; HttpOnly; SameSite=Lax".to_owned();
                if let Some(lifetime) = spec.lifetime {
                    let seconds = rhumb_base::unit::parse_duration(&lifetime)
                        .map_err(|error| Invalid::new("lifetime", error.to_string(), ""))?;
                    if seconds < Duration::from_secs(1) {
                        return Err(Invalid::new("lifetime", "is less than a second", ""));
                    }
                    attributes.push_str(&format!("; Max-Age={}", seconds.as_secs()));
                }
                Key::Cookie { name: name.into(), attributes: attributes.into() }
            }
            (By::Header, Some(name)) => {
                let name = FieldName::parse(name.as_bytes())
                    .map_err(|error| Invalid::new("name", error.to_string(), ""))?;
                if name.known() == Known::Cookie {
                    return Err(Invalid::new(
                        "name",
                        "all cookies together tell nobody apart for long",
                        "write `by: cookie`",
                    ));
                }
                Key::Header(name)
            }
            (By::Header, None) => {
                return Err(Invalid::new("name", "is missing", "name the field, such as x-user-id"));
            }
            (By::ClientIp, None) => Key::ClientIp,
            (By::ClientIp, Some(_)) => {
                return Err(Invalid::new("name", "an address has no name", "remove name"));
            }
        }))
    }

    fn on_request(&self, req: &mut RequestHead, state: &mut Fresh, cx: &mut Exchange<'_>) -> Verdict {
        cx.effects.cohort = match &self.0 {
            Key::Cookie { name, .. } => {
                match cookie(req, name.as_bytes()).filter(|value| !value.is_empty()) {
                    Some(value) => Some(hash(value)),
                    None => {
                        state.0 = cx.rng.map(|rng| rng.borrow_mut().next_u64());
                        state.0.map(|fresh| hash(text(fresh).as_bytes()))
                    }
                }
            }
            Key::Header(name) => req.fields.find(name).map(hash),
            Key::ClientIp => Some(match cx.client {
                IpAddr::V4(v4) => hash(&v4.octets()),
                IpAddr::V6(v6) => hash(&v6.octets()),
            }),
        };
        Verdict::Continue
    }

    fn on_response(&self, rsp: &mut ResponseHead, state: &mut Fresh, cx: &mut Exchange<'_>) {
        let (Some(fresh), Key::Cookie { name, attributes }) = (state.0, &self.0) else { return };
        // RFC 6265 §4.1.2.5: Secure would be refused, or lost, where the client came in the clear.
        let secure = if cx.scheme == Scheme::Https { "; Secure" } else { "" };
        let value = format!("{name}={}{attributes}{secure}", text(fresh));
        rsp.fields.append(Known::SetCookie, value.as_bytes());
    }
}

fn text(fresh: u64) -> String {
    format!("{fresh:016x}")
}

/// FNV-1a with a finish that spreads every bit (the last steps of SplitMix64). The same on every machine and in every
/// version: a changed hash would move every client.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    spread(hash)
}

fn spread(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Chooses one of several by a cohort: the one with the highest score. Items are names and weights; a weight of 0 is
/// never chosen, and names that repeat are told apart by their order.
pub fn choose<'n>(cohort: u64, items: impl Iterator<Item = (&'n str, u32)> + Clone) -> Option<usize> {
    let mut best: Option<(f64, usize)> = None;
    for (at, (name, weight)) in items.clone().enumerate() {
        if weight == 0 {
            continue;
        }
        let same_before = items.clone().take(at).filter(|(other, _)| *other == name).count();
        let salt = hash(name.as_bytes()).wrapping_add(spread(u64::try_from(same_before).unwrap_or(0)));
        // 53 bits that are never 0, as a number between 0 and 1.
        let drawn = ((spread(cohort ^ salt) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let score = f64::from(weight) / -drawn.ln();
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, at));
        }
    }
    best.map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_base::rng::Rng;
    use serde_json::json;
    use std::cell::RefCell;

    fn cohort(body: serde_json::Value) -> Result<Cohort, Invalid> {
        compile_alone::<Cohort>(serde_json::from_value(body).unwrap())
    }

    fn shares(items: &[(&str, u32)]) -> Vec<usize> {
        (0..100_000u64).map(|key| choose(hash(&key.to_be_bytes()), items.iter().copied()).unwrap()).collect()
    }

    #[test]
    fn clients_are_shared_out_by_weight() {
        let chosen = shares(&[("a", 80), ("b", 15), ("none", 0), ("c", 5), ("c", 100)]);
        let count = |at| chosen.iter().filter(|&&c| c == at).count();
        for (at, expected) in [(0, 40_000), (1, 7_500), (2, 0), (3, 2_500), (4, 50_000)] {
            let got = count(at);
            assert!(got.abs_diff(expected) <= expected / 20, "{at}: {got} of {expected}");
        }
    }

    #[test]
    fn raising_a_weight_moves_clients_only_there() {
        let before = shares(&[("stable", 80), ("canary", 10), ("other", 10)]);
        let after = shares(&[("other", 10), ("stable", 70), ("canary", 20)]);
        let names = |order: [&'static str; 3]| move |at: &usize| order[*at];
        let before = before.iter().map(names(["stable", "canary", "other"]));
        let after = after.iter().map(names(["other", "stable", "canary"]));
        let mut moved = 0;
        for (was, is) in before.zip(after) {
            // Stable went down as canary went up; other's share of the sum is what it was, but against each of the
            // two its weight rose or fell.
            match (was, is) {
                ("canary", is) => assert_eq!(is, "canary", "a client left what was raised"),
                (was, is) if was != is => moved += 1,
                _ => {}
            }
        }
        assert!((9_000..13_000).contains(&moved), "{moved}");
    }

    #[test]
    fn a_client_without_the_cookie_gets_one_and_then_stays() {
        let policy = cohort(json!({ "by": "cookie", "lifetime": "24h" })).unwrap();
        let rng = RefCell::new(Rng::new(1));
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        let mut req = RequestHead::new();
        let mut cx = Exchange { rng: Some(&rng), ..Exchange::new(client, Scheme::Https, 443) };
        let mut state = Fresh::default();
        policy.on_request(&mut req, &mut state, &mut cx);
        let chosen = cx.effects.cohort.unwrap();
        let mut rsp = ResponseHead::with_status(200);
        policy.on_response(&mut rsp, &mut state, &mut cx);
        let set = String::from_utf8(rsp.fields.get(Known::SetCookie).unwrap().to_vec()).unwrap();
        let (pair, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=86400; Secure");
        req.fields.append(Known::Cookie, b"x=1");
        req.fields.append(Known::Cookie, pair.as_bytes());
        let mut state = Fresh::default();
        policy.on_request(&mut req, &mut state, &mut cx);
        assert_eq!(cx.effects.cohort, Some(chosen));
        let mut rsp = ResponseHead::with_status(200);
        policy.on_response(&mut rsp, &mut state, &mut cx);
        assert!(!rsp.fields.has(Known::SetCookie));
    }

    #[test]
    fn a_request_without_the_field_has_no_cohort() {
        let policy = cohort(json!({ "by": "header", "name": "x-user" })).unwrap();
        let client = std::net::Ipv4Addr::LOCALHOST.into();
        let mut cx = Exchange::new(client, Scheme::Http, 80);
        let mut req = RequestHead::new();
        policy.on_request(&mut req, &mut Fresh::default(), &mut cx);
        assert_eq!(cx.effects.cohort, None);
        req.fields.append_raw(Known::of(b"x-user"), b"x-user", b"7");
        policy.on_request(&mut req, &mut Fresh::default(), &mut cx);
        assert!(cx.effects.cohort.is_some());
    }

    #[test]
    fn mistakes_are_refused() {
        for (body, field) in [
            (json!({ "by": "header" }), "name"),
            (json!({ "by": "header", "name": "a b" }), "name"),
            (json!({ "by": "header", "name": "cookie" }), "name"),
            (json!({ "by": "header", "name": "a", "lifetime": "1h" }), "lifetime"),
            (json!({ "by": "clientIp", "name": "a" }), "name"),
            (json!({ "by": "cookie", "name": "a b" }), "name"),
            (json!({ "by": "cookie", "lifetime": "30d" }), "lifetime"),
            (json!({ "by": "cookie", "lifetime": "10ms" }), "lifetime"),
        ] {
            let Err(invalid) = cohort(body.clone()) else { panic!("accepted: {body}") };
            assert_eq!(invalid.field, field, "{body}");
        }
    }
}
