//! Requests by the client's address.
//!
//! The address is the peer's, or what a trusted proxy said (`trustedProxies`), so a client cannot choose it.

use rhumb_base::cidr::Cidr;
use rhumb_base::failure::Cause;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// Most blocks of one list.
pub const BLOCKS_LIMIT: usize = 10_000;

/// Lets requests through by the client's address. `deny` wins; with `allow`, all others are refused.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Addresses and blocks that may ask: `10.0.0.0/8`, `2001:db8::/32`. Default: all.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Addresses and blocks that may not. Default: none.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// Compiled lists.
pub struct IpAccess {
    allow: Box<[Cidr]>,
    deny: Box<[Cidr]>,
}

impl HttpPolicy for IpAccess {
    const KIND: &'static str = "ipAccess";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT.or(Attach::CONSUMER);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.allow.is_empty() && spec.deny.is_empty() {
            return Err(Invalid::new(
                "",
                "neither `allow` nor `deny` has an address",
                "write `allow: [10.0.0.0/8]`",
            ));
        }
        Ok(Self { allow: blocks("allow", &spec.allow)?, deny: blocks("deny", &spec.deny)? })
    }

    fn on_request(&self, _: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let holds = |list: &[Cidr]| list.iter().any(|block| block.contains(cx.client));
        if holds(&self.deny) || !self.allow.is_empty() && !holds(&self.allow) {
            return Verdict::Respond(Reply::refuse(Cause::AddressDenied));
        }
        Verdict::Continue
    }
}

fn blocks(field: &str, list: &[String]) -> Result<Box<[Cidr]>, Invalid> {
    if list.len() > BLOCKS_LIMIT {
        return Err(Invalid::new(field, format!("has more than {BLOCKS_LIMIT} blocks"), ""));
    }
    let parse = |(at, text): (usize, &String)| {
        text.parse().map_err(|_| {
            let why = format!("`{text}` is no address and no block");
            Invalid::new(format!("{field}[{at}]"), why, "write 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32")
        })
    };
    list.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use rhumb_codec::head::Scheme;

    fn passes(spec: serde_json::Value, client: &str) -> bool {
        let policy = compile_alone::<IpAccess>(serde_json::from_value(spec).unwrap()).unwrap();
        let mut cx = Exchange::new(client.parse().unwrap(), Scheme::Http, 80);
        matches!(policy.on_request(&mut RequestHead::new(), &mut (), &mut cx), Verdict::Continue)
    }

    #[test]
    fn deny_wins_and_allow_shuts_out_the_rest() {
        let spec = serde_json::json!({ "allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.9.0.0/16"] });
        for (client, expected) in [
            ("10.1.2.3", true),
            ("10.9.2.3", false),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("::ffff:10.1.2.3", true),
        ] {
            assert_eq!(passes(spec.clone(), client), expected, "{client}");
        }
        let spec = serde_json::json!({ "deny": ["192.0.2.0/24"] });
        assert!(passes(spec.clone(), "198.51.100.1") && !passes(spec, "192.0.2.1"));
    }

    #[test]
    fn mistakes_are_named() {
        let compile = |spec| compile_alone::<IpAccess>(serde_json::from_value(spec).unwrap()).err().unwrap();
        assert_eq!(compile(serde_json::json!({ "allow": ["10.0.0.0/8", "10.0.0/8"] })).field, "allow[1]");
        assert!(compile(serde_json::json!({})).why.contains("neither"));
    }
}
