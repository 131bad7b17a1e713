//! How long an exchange and its parts may take: a setting, obeyed where requests are forwarded.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge};
use crate::quantity;

/// Limits the time of exchanges. `0s` is no limit. `timeouts` of an HTTPRoute rule overrule the fields they have.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// From the head of the request to the last byte of the response, attempts and waits included. Default: 15s from the
    /// end of the request to the head of the response, for gRPC routes none; no limit for content.
    #[serde(default)]
    pub request: Option<String>,
    /// One attempt, connecting included, to the last byte of its response. At most `request`. Default: none.
    #[serde(default)]
    pub backend_request: Option<String>,
    /// Until there is a connection for an attempt. Default: `connectTimeout` of the Backend (5s), which is always the limit.
    #[serde(default)]
    pub connect: Option<String>,
    /// Content that stands still in both directions. Default: 5m, in tunnels (WebSocket) 1h.
    #[serde(default)]
    pub idle: Option<String>,
    /// Longest life of an exchange, tunnels and streams included. Default: none.
    #[serde(default)]
    pub stream: Option<String>,
}

/// Time limits. `None`: nothing is written; zero: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole exchange but tunnels.
    pub request: Option<Duration>,
    /// One attempt.
    pub backend_request: Option<Duration>,
    /// A connection.
    pub connect: Option<Duration>,
    /// Content that stands still.
    pub idle: Option<Duration>,
    /// The whole exchange, tunnels included.
    pub stream: Option<Duration>,
}

impl Timeouts {
    /// These, and those of `other` where nothing is written here.
    pub fn or(self, other: Self) -> Self {
        Self {
            request: self.request.or(other.request),
            backend_request: self.backend_request.or(other.backend_request),
            connect: self.connect.or(other.connect),
            idle: self.idle.or(other.idle),
            stream: self.stream.or(other.stream),
        }
    }
}

impl HttpPolicy for Timeouts {
    const KIND: &'static str = "timeouts";
    const HOOKS: Hooks = Hooks::NONE;
    const ATTACH: Attach = Attach::FRONT.or(Attach::BACKEND);
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        let timeouts = Self {
            request: quantity::duration("request", spec.request.as_deref())?,
            backend_request: quantity::duration("backendRequest", spec.backend_request.as_deref())?,
            connect: quantity::positive("connect", spec.connect.as_deref())?,
            idle: quantity::duration("idle", spec.idle.as_deref())?,
            stream: quantity::duration("stream", spec.stream.as_deref())?,
        };
        let (request, attempt) = (timeouts.request, timeouts.backend_request);
        if request.is_some_and(|request| !request.is_zero() && attempt > Some(request)) {
            let why = "is longer than `request`: one attempt cannot take longer than all of them";
            return Err(Invalid::new("backendRequest", why, ""));
        }
        Ok(timeouts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::{Value, json};

    fn compile(body: Value) -> Result<Timeouts, String> {
        let spec = serde_json::from_value(body).map_err(|error| error.to_string())?;
        compile_alone::<Timeouts>(spec).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn times_are_read_and_mistakes_refused() {
        let seconds = |n| Some(Duration::from_secs(n));
        let read = compile(json!({"request": "0s", "backendRequest": "2s", "stream": "1h"})).unwrap();
        assert_eq!(
            (read.request, read.backend_request, read.stream),
            (seconds(0), seconds(2), seconds(3600))
        );
        assert_eq!(read.or(Timeouts { idle: seconds(1), request: seconds(9), ..read }).idle, seconds(1));
        for body in [
            json!({"request": "1s", "backendRequest": "2s"}),
            json!({"connect": "0s"}),
            json!({"idle": "forever"}),
            json!({"read": "1s"}),
        ] {
            assert!(compile(body.clone()).is_err(), "{body}");
        }
    }
}
