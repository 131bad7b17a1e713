//! A load balancer in front tells the client's address by the PROXY protocol, version 1 or 2.
//!
//! A setting of a port, not a hook. Whoever may say so must: a connection from `from` without a valid header is closed.
//! From everybody else no header is read, so nobody can pretend to be another client.

use std::time::Duration;

use rhumb_base::cidr::Cidr;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge};

/// How long the header may take when nothing is written.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most address blocks of one listener.
pub const MAX_SOURCES: usize = 1024;

/// Takes the client's address from the PROXY protocol header that a load balancer in front sends.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Addresses of the load balancers: their connections must begin with a header. Others are taken as they come.
    pub from: Vec<String>,
    /// How long the header may take. Default: 3s.
    #[serde(default)]
    pub timeout: Option<String>,
}

/// A compiled setting.
pub struct ProxyProtocol {
    /// Who must send a header.
    pub from: Box<[Cidr]>,
    /// How long it may take.
    pub timeout: Duration,
}

impl HttpPolicy for ProxyProtocol {
    const KIND: &'static str = "proxyProtocol";
    const HOOKS: Hooks = Hooks::NONE;
    const ATTACH: Attach = Attach::GATEWAY.or(Attach::LISTENER);
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.from.is_empty() || spec.from.len() > MAX_SOURCES {
            return Err(Invalid::new(
                "from",
                format!("has {} address blocks", spec.from.len()),
                format!("name the load balancers, 1 to {MAX_SOURCES} blocks such as 10.0.0.0/8"),
            ));
        }
        let from = (0..).zip(&spec.from).map(|(index, text): (usize, _)| {
            text.parse().map_err(|_| {
                let fix = "write an address or block, such as 10.0.0.0/8";
                Invalid::new(format!("from[{index}]"), format!("`{text}` is not an address block"), fix)
            })
        });
        let from = from.collect::<Result<_, _>>()?;
        let timeout = limit("timeout", spec.timeout.as_deref())?.unwrap_or(DEFAULT_TIMEOUT);
        if timeout.is_zero() {
            return Err(Invalid::new("timeout", "is zero", "leave it out for 3s"));
        }
        Ok(Self { from, timeout })
    }
}

/// Reads an optional time limit.
pub(crate) fn limit(field: &str, text: Option<&str>) -> Result<Option<Duration>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    let read = rhumb_base::unit::parse_duration(text);
    read.map(Some).map_err(|error| Invalid::new(field, format!("`{text}` is {error}"), ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::json;

    #[test]
    fn sources_are_blocks_and_there_is_at_least_one() {
        let compile = |body| compile_alone::<ProxyProtocol>(serde_json::from_value(body).unwrap());
        let good = compile(json!({ "from": ["10.0.0.0/8", "::1"], "timeout": "500ms" })).unwrap();
        assert_eq!((good.from.len(), good.timeout), (2, Duration::from_millis(500)));
        for body in [
            json!({ "from": [] }),
            json!({ "from": ["everybody"] }),
            json!({ "from": ["::1"], "timeout": "0s" }),
            json!({ "from": ["::1"], "timeout": "soon" }),
        ] {
            assert!(compile(body.clone()).is_err(), "{body}");
        }
    }
}
